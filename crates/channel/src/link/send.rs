//! The sending half: what waits for its number, what waits for its acknowledgement, and what has to go
//! again.
//!
//! A message is kept before it is handed out, so an acknowledgement can never overtake the keeping.
//! A resend happens in passes: a pass goes once through what is presumed lost, oldest first, and
//! sends at most a budget of unanswered bytes, which grows with each acknowledgement.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{
    OVERHEAD,
    pace::{LARGEST_PORTION, Pace},
    rtt::RoundTrip,
};
use crate::frame::{PayloadType, with_digest};

/// Messages between the oldest unacknowledged and the newest sent. An official client keeps up to
/// 10000 that came out of order.
pub(super) const MAX_IN_FLIGHT: usize = 8192;

/// Bytes sent and not acknowledged: official ends have no flow control, and ours take this much.
const WINDOW_BYTES: usize = 4 << 20;

/// What a pass may send before the first answer.
const FIRST_BUDGET: usize = 64 << 10;

pub(super) struct Sender {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// Sent; the front is the oldest unacknowledged. Numbers are `base`, `base + 1`, …
    in_flight: VecDeque<InFlight>,
    base: i64,
    in_flight_bytes: usize,
    limit: usize,
    round_trip: RoundTrip,
    pass: Option<Pass>,
    passes: u64,
    last_progress: Duration,
    /// Latest sending time of a message that was acknowledged.
    newest_acknowledged: Option<Duration>,
    pace: Option<Pace>,
    pub(super) resends: u64,
}

pub(super) struct Queued {
    pub(super) payload_type: PayloadType,
    pub(super) payload: Bytes,
}

struct InFlight {
    /// `None` once acknowledged.
    frame: Option<Bytes>,
    has_digest: bool,
    cost: usize,
    first_sent: Duration,
    last_sent: Duration,
    resent: bool,
    /// The pass in which it was sent last; 0 for none.
    pass: u64,
}

struct Pass {
    /// The next number to look at.
    cursor: i64,
    /// Only what was sent last at this time or before is presumed lost.
    sent_by: Duration,
    budget: usize,
    unanswered: usize,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Progress,
    /// Acknowledged before.
    Nothing,
    /// Never sent.
    Unknown,
}

impl Sender {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: VecDeque::new(),
            base: 0,
            in_flight_bytes: 0,
            limit,
            round_trip: RoundTrip::new(),
            pass: None,
            passes: 0,
            last_progress: Duration::ZERO,
            newest_acknowledged: None,
            pace: None,
            resends: 0,
        }
    }

    /// Payload bytes that one message may have now.
    pub(super) fn writable(&self) -> usize {
        let limit = match &self.pace {
            Some(pace) => self.limit.min(pace.window()),
            None => self.limit,
        };
        limit.saturating_sub(self.held_bytes() + OVERHEAD)
    }

    /// What one message should hold, for an owner who chooses late.
    pub(super) fn portion(&self) -> usize {
        self.pace.as_ref().map_or(LARGEST_PORTION, Pace::portion)
    }

    /// Whether a message is worth its header now.
    pub(super) fn has_room(&self) -> bool {
        let least = match &self.pace {
            Some(pace) => pace.portion() / 2,
            None => 1,
        };
        self.writable() >= least
    }

    /// Holds no more from now on than the way takes, however much that is up to a full window.
    pub(super) fn pace(&mut self, now: Duration) {
        self.limit = self.limit.max(WINDOW_BYTES);
        self.pace = Some(Pace::new(WINDOW_BYTES, now));
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.queued_bytes + self.in_flight_bytes
    }

    /// Whether nothing is held, so that a message of any size may come in without one being stuck.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn queue(&mut self, queued: Queued) {
        self.queued_bytes += queued.payload.len() + OVERHEAD;
        self.queue.push_back(queued);
    }

    /// The number that the next new message gets.
    pub(super) fn next_number(&self) -> i64 {
        self.base
            .saturating_add_unsigned(self.in_flight.len() as u64)
    }

    /// The next new message, if the window has room and nothing older waits to go again. It has to be
    /// given back encoded to [`Self::sent`].
    pub(super) fn take_new(&mut self) -> Option<Queued> {
        let cost = self.cost_of_new()?;
        self.queued_bytes -= cost;
        self.queue.pop_front()
    }

    /// Whether [`Self::take_new`] has one.
    pub(super) fn has_new(&self) -> bool {
        self.cost_of_new().is_some()
    }

    fn cost_of_new(&self) -> Option<usize> {
        let cost = self.queue.front()?.payload.len() + OVERHEAD;
        let has_room = self.in_flight.is_empty()
            || (self.in_flight_bytes + cost <= WINDOW_BYTES
                && self.in_flight.len() < MAX_IN_FLIGHT);
        (self.pass.is_none() && has_room).then_some(cost)
    }

    /// Keeps a new message that goes out now.
    pub(super) fn sent(&mut self, frame: Bytes, cost: usize, has_digest: bool, now: Duration) {
        if self.in_flight.is_empty() {
            self.last_progress = now;
        }
        self.in_flight_bytes += cost;
        self.in_flight.push_back(InFlight {
            frame: Some(frame),
            has_digest,
            cost,
            first_sent: now,
            last_sent: now,
            resent: false,
            pass: 0,
        });
    }

    /// The next message that goes again, if a pass is under way or the timeout has passed.
    pub(super) fn take_resend(&mut self, now: Duration) -> Option<Bytes> {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            let sent_by = now.saturating_sub(self.round_trip.timeout());
            // A pass sends one message whatever its budget.
            let budget = if self.round_trip.is_stalled() {
                0
            } else {
                FIRST_BUDGET
            };
            self.begin_pass(sent_by, budget);
            self.round_trip.back_off();
            self.last_progress = now;
        }
        loop {
            let pass = self.pass.as_mut()?;
            pass.cursor = pass.cursor.max(self.base);
            let offset = usize::try_from(pass.cursor - self.base).unwrap_or(usize::MAX);
            let Some(message) = self.in_flight.get_mut(offset) else {
                self.pass = None;
                return None;
            };
            let is_lost = message.last_sent <= pass.sent_by;
            if !is_lost && !message.resent {
                // First sendings are in the order of numbers: nothing behind this one is lost either.
                self.pass = None;
                return None;
            }
            let Some(frame) = message.frame.as_ref().filter(|_| is_lost) else {
                pass.cursor += 1;
                continue;
            };
            if pass.unanswered > 0 && pass.unanswered.saturating_add(message.cost) > pass.budget {
                return None;
            }
            pass.unanswered = pass.unanswered.saturating_add(message.cost);
            pass.cursor += 1;
            message.resent = true;
            message.pass = self.passes;
            message.last_sent = now;
            self.resends += 1;
            return Some(frame.clone());
        }
    }

    /// Takes an acknowledgement of one number, or of all up to it.
    pub(super) fn acknowledge(&mut self, number: i64, cumulative: bool, now: Duration) -> Effect {
        if number < 0 || number >= self.next_number() {
            return Effect::Unknown;
        }
        let Ok(offset) = usize::try_from(number.saturating_sub(self.base)) else {
            return Effect::Nothing;
        };
        let (before, held) = (self.in_flight_bytes, self.held_bytes());
        let first = if cumulative { 0 } else { offset };
        for earlier in first..offset {
            // Only the named message gives a sample: the others may have waited for it.
            self.settle(earlier, None);
        }
        self.settle(offset, Some(now));
        while self
            .in_flight
            .front()
            .is_some_and(|message| message.frame.is_none())
        {
            self.in_flight.pop_front();
            self.base += 1;
        }
        if self.in_flight_bytes == before {
            return Effect::Nothing;
        }
        self.last_progress = now;
        if let Some(pace) = &mut self.pace {
            let least = self.round_trip.least();
            pace.acknowledged(before - self.in_flight_bytes, held, least, now);
        }
        self.notice_losses();
        Effect::Progress
    }

    fn settle(&mut self, offset: usize, sampled_at: Option<Duration>) {
        let Some(message) = self.in_flight.get_mut(offset) else {
            return;
        };
        if message.frame.take().is_none() {
            return;
        }
        self.in_flight_bytes -= message.cost;
        self.newest_acknowledged = self.newest_acknowledged.max(Some(message.last_sent));
        // The answer to a message sent twice may be to either sending, so it says nothing about the
        // round trip, and a timeout that was too short for it stays doubled until one does.
        if let Some(now) = sampled_at.filter(|_| !message.resent) {
            self.round_trip
                .sample(now.saturating_sub(message.last_sent));
            self.round_trip.forget_backoff();
        }
        if let Some(pass) = self.pass.as_mut() {
            pass.budget = pass.budget.saturating_add(message.cost);
            if message.pass == self.passes {
                pass.unanswered = pass.unanswered.saturating_sub(message.cost);
            }
        }
    }

    /// What was sent clearly before something that has been acknowledged will not be acknowledged any
    /// more without going again.
    fn notice_losses(&mut self) {
        let Some(sent_by) = self
            .newest_acknowledged
            .and_then(|at| at.checked_sub(self.round_trip.reordering()))
        else {
            return;
        };
        if let Some(pass) = self.pass.as_mut() {
            pass.sent_by = pass.sent_by.max(sent_by);
        } else if self
            .in_flight
            .front()
            .is_some_and(|head| head.last_sent <= sent_by)
        {
            self.begin_pass(sent_by, FIRST_BUDGET);
        }
    }

    /// The receiver says that it has room again after refusing messages. What was sent so lately that
    /// it may still be under way is left alone; half a round trip errs on the side of sending twice.
    pub(super) fn receiver_has_room(&mut self, now: Duration) {
        self.round_trip.forget_backoff();
        self.begin_pass(
            now.saturating_sub(self.round_trip.smoothed() / 2),
            FIRST_BUDGET,
        );
    }

    /// A new connection: all that is unacknowledged goes again at once, in order.
    pub(super) fn reconnected(&mut self, now: Duration) {
        self.round_trip.forget_backoff();
        self.round_trip.forget_least();
        self.last_progress = now;
        if let Some(pace) = &mut self.pace {
            pace.restart(now);
        }
        if !self.in_flight.is_empty() {
            self.begin_pass(now, usize::MAX);
        }
    }

    fn begin_pass(&mut self, sent_by: Duration, budget: usize) {
        self.passes += 1;
        self.pass = Some(Pass {
            cursor: self.base,
            sent_by,
            budget,
            unanswered: 0,
        });
    }

    /// Puts digests into what was written without, for a peer that looks at them.
    pub(super) fn add_digests(&mut self) {
        for message in self
            .in_flight
            .iter_mut()
            .filter(|message| !message.has_digest)
        {
            message.has_digest = true;
            message.frame = message.frame.as_ref().map(with_digest);
        }
    }

    /// When the oldest message is overdue.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let head = self.in_flight.front()?;
        Some(head.last_sent.max(self.last_progress) + self.round_trip.backed_off())
    }

    /// Since when the receiver has acknowledged nothing though something waits.
    pub(super) fn unacknowledged_since(&self, last_acknowledged: Duration) -> Option<Duration> {
        self.in_flight
            .front()
            .map(|head| head.first_sent.max(last_acknowledged))
    }
}
