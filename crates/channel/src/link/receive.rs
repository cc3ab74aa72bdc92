//! The receiving half: what was delivered and not taken yet, and what came before its turn.
//!
//! Everything held counts against one byte limit. What does not fit is not accepted, hence not
//! acknowledged, and the peer sends it again.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use super::{Delivery, OVERHEAD};

/// Messages held that came before their turn. At least what any sender of ours has in flight, and what
/// an official client keeps.
const MAX_OUT_OF_ORDER: usize = 10_000;

/// How far ahead a number may be. An official agent keeps up to this many unacknowledged.
const MAX_AHEAD: i64 = 100_000;

pub(super) struct Receiver {
    expected: i64,
    ready: VecDeque<Ready>,
    early: BTreeMap<i64, Delivery>,
    early_bytes: usize,
    /// Early ones included.
    held_bytes: usize,
    limit: usize,
    has_refused: bool,
}

struct Ready {
    delivery: Delivery,
    /// Its id, when it is acknowledged once it is taken.
    owed: Option<Uuid>,
}

/// What became of a stream message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was the expected one.
    InOrder,
    /// Kept until its turn.
    Early,
    /// Had it; to be acknowledged again.
    Duplicate,
    /// No room; not to be acknowledged.
    NoRoom,
    /// The number cannot be; not to be acknowledged.
    Absurd,
}

impl Receiver {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            expected: 0,
            ready: VecDeque::new(),
            early: BTreeMap::new(),
            early_bytes: 0,
            held_bytes: 0,
            limit,
            has_refused: false,
        }
    }

    /// The first number that has not come.
    pub(super) fn expected(&self) -> i64 {
        self.expected
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// What `take` would do, before anybody looks at the payload.
    pub(super) fn judge(&self, number: i64, payload_len: usize) -> Taken {
        let ahead = number.saturating_sub(self.expected);
        if number < 0 || ahead > MAX_AHEAD {
            return Taken::Absurd;
        }
        if ahead < 0 || self.early.contains_key(&number) {
            return Taken::Duplicate;
        }
        let cost = payload_len + OVERHEAD;
        let fits = self.held_bytes.saturating_add(cost) <= self.limit;
        // Half is kept free for what is missing, or it would have to come in one by one.
        let fits_early = fits
            && self.early_bytes.saturating_add(cost) <= self.limit / 2
            && self.early.len() < MAX_OUT_OF_ORDER;
        match ahead {
            // With nothing to take, only this message can let the stream go on, whatever its size.
            0 if fits || self.ready.is_empty() => Taken::InOrder,
            1.. if fits_early => Taken::Early,
            _ => Taken::NoRoom,
        }
    }

    /// `owed`: the message's id, when it is to be acknowledged once it is taken and comes in order.
    pub(super) fn take(&mut self, number: i64, delivery: Delivery, owed: Option<Uuid>) -> Taken {
        let taken = self.judge(number, delivery.payload.len());
        match taken {
            Taken::InOrder => {
                self.held_bytes += delivery.payload.len() + OVERHEAD;
                self.make_ready(delivery, owed);
                while let Some(next) = self.early.remove(&self.expected) {
                    self.early_bytes -= next.payload.len() + OVERHEAD;
                    self.make_ready(next, None);
                }
            }
            Taken::Early => {
                self.held_bytes += delivery.payload.len() + OVERHEAD;
                self.early_bytes += delivery.payload.len() + OVERHEAD;
                self.early.insert(number, delivery);
            }
            Taken::NoRoom => self.has_refused = true,
            Taken::Duplicate | Taken::Absurd => {}
        }
        taken
    }

    fn make_ready(&mut self, delivery: Delivery, owed: Option<Uuid>) {
        self.ready.push_back(Ready { delivery, owed });
        self.expected = self.expected.saturating_add(1);
    }

    /// Number of the message that is next to be taken.
    fn first_ready(&self) -> i64 {
        let ready = i64::try_from(self.ready.len()).unwrap_or(i64::MAX);
        self.expected.saturating_sub(ready)
    }

    /// Whether a message waits to be taken and is acknowledged only then.
    pub(super) fn owes(&self, number: i64) -> bool {
        let place = usize::try_from(number.saturating_sub(self.first_ready()));
        let ready = place.ok().and_then(|place| self.ready.get(place));
        ready.is_some_and(|ready| ready.owed.is_some())
    }

    /// The next message, and what is to be acknowledged now that it is taken.
    pub(super) fn next(&mut self) -> Option<(Delivery, Option<(i64, Uuid)>)> {
        let number = self.first_ready();
        let Ready { delivery, owed } = self.ready.pop_front()?;
        self.held_bytes -= delivery.payload.len() + OVERHEAD;
        Some((delivery, owed.map(|message_id| (number, message_id))))
    }

    /// Whether there is room again after something was refused. True once for each time.
    pub(super) fn has_room_again(&mut self) -> bool {
        let has_room =
            self.has_refused && (self.ready.is_empty() || self.held_bytes <= self.limit / 2);
        if has_room {
            self.has_refused = false;
        }
        has_room
    }
}
