//! What waits for one end, and what was written to it and is not acknowledged yet. Pure.
//!
//! Both official senders repair loss at ten messages a second, and a frame that was written to a
//! websocket which then broke is lost. So what is not acknowledged is kept, within a bound, and goes
//! first on the end's next websocket. What a sender repeats while its first copy still waits here is
//! dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sortie_channel::frame::{Frame, PayloadType};

/// What a held message counts on top of its bytes, so that many small ones are bounded too.
const OVERHEAD: usize = 128;
/// Bytes written and not acknowledged that are kept. Beyond it the oldest are left to the sender.
const KEEP: usize = 8 * 1024 * 1024;
/// The longest message that is copied rather than held with what was read beside it: some KiB at
/// most, so that a longer one holds little more than itself.
const COMPACT: usize = 4 * 1024;
#[derive(Clone, Debug)]
struct Item {
    number: Option<i64>,
    payload_type: Option<PayloadType>,
    bytes: Bytes,
    /// Was written before, and may have arrived then.
    again: bool,
    /// Made by the gateway for the websocket that is open now, and of no use on the next.
    own: bool,
}

impl Item {
    fn is_data(&self) -> bool {
        matches!(
            self.payload_type,
            Some(PayloadType::OUTPUT | PayloadType::STDERR)
        )
    }

    /// An official client takes these at once, even if it takes no data yet.
    fn is_handshake(&self) -> bool {
        matches!(
            self.payload_type,
            Some(
                PayloadType::HANDSHAKE_REQUEST
                    | PayloadType::HANDSHAKE_COMPLETE
                    | PayloadType::ENC_CHALLENGE_REQUEST
            )
        )
    }
}

#[derive(Debug)]
struct Written {
    item: Item,
    /// Counts what was written to this end, so that order on the wire is known: that of the first
    /// copy that the receiver was ready for.
    turn: u64,
    /// The same of its first copy on this websocket.
    first_turn: u64,
    /// That copy has certainly been read: something written behind it was acknowledged.
    arrived: bool,
    /// The receiver took such messages when it was written.
    ready: bool,
}

/// The queue towards one end.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Item>,
    queued: usize,
    numbers: BTreeSet<i64>,
    written: BTreeMap<i64, Written>,
    kept: usize,
    /// How many of those went again.
    repeated: usize,
    turn: u64,
}

impl Outbox {
    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queued
    }

    /// Bytes that the receiver has not acknowledged, written or not. Of what was written long ago
    /// only some are known.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.queued + self.kept
    }

    /// Whether anything waits or was written without being acknowledged.
    pub(crate) fn unfinished(&self) -> bool {
        !self.queue.is_empty() || !self.written.is_empty()
    }

    /// Whether a message waits to be written, or stands on a websocket that has not broken.
    #[cfg(test)]
    pub(crate) fn will_write(&self, number: i64) -> bool {
        self.numbers.contains(&number) || self.written.contains_key(&number)
    }

    /// Appends a numbered frame, unless a copy of it still waits. `again`: the receiver may have had it
    /// from a server that is gone.
    pub(crate) fn push_stream(&mut self, frame: Frame, again: bool) {
        if self.numbers.insert(frame.sequence_number()) {
            self.append(Item {
                number: Some(frame.sequence_number()),
                payload_type: Some(frame.payload_type()),
                bytes: compact(frame.into_bytes()),
                again,
                own: false,
            });
        }
    }

    /// Appends an acknowledgement.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.append(plain(bytes, false));
    }

    /// Appends a message of the gateway's own.
    pub(crate) fn push_own(&mut self, bytes: Bytes) {
        self.append(plain(bytes, true));
    }

    /// Puts an acknowledgement before all that waits.
    pub(crate) fn push_first(&mut self, bytes: Bytes) {
        self.prepend(plain(bytes, false));
    }

    /// Puts a message of the gateway's own before all that waits.
    pub(crate) fn push_own_first(&mut self, bytes: Bytes) {
        self.prepend(plain(bytes, true));
    }

    /// Type of the message that is next: the outer `None` when nothing waits.
    pub(crate) fn next_type(&self) -> Option<Option<PayloadType>> {
        self.queue.front().map(|item| item.payload_type)
    }

    /// Takes the next message, to be written. `takes_data`: whether the receiver certainly does, so that
    /// it drops nothing but what it has had.
    pub(crate) fn pop(&mut self, takes_data: bool) -> Option<Bytes> {
        let item = self.queue.pop_front()?;
        self.queued = self.queued.saturating_sub(item.bytes.len() + OVERHEAD);
        let bytes = item.bytes.clone();
        if let Some(number) = item.number {
            self.numbers.remove(&number);
            self.keep(number, item, takes_data);
        }
        Some(bytes)
    }

    /// The end has a new websocket: what was not acknowledged goes again, first and in order. What
    /// the gateway made for the old websocket is dropped.
    pub(crate) fn reconnected(&mut self) {
        self.queue.retain(|item| !item.own);
        self.queued = self
            .queue
            .iter()
            .map(|item| item.bytes.len() + OVERHEAD)
            .sum();
        let written = std::mem::take(&mut self.written);
        (self.kept, self.repeated) = (0, 0);
        for (number, mut written) in written.into_iter().rev() {
            if self.numbers.insert(number) {
                written.item.again = true;
                self.prepend(written.item);
            }
        }
    }

    /// The receiver acknowledged `number`. Whether that was data and the oldest message that is kept:
    /// then the receiver takes data in order.
    pub(crate) fn acknowledged(&mut self, number: i64) -> bool {
        let oldest = self.written.first_key_value().map(|(oldest, _)| *oldest);
        let Some(written) = self.forget(number) else {
            return false;
        };
        written.item.is_data() && oldest == Some(number)
    }

    /// The receiver acknowledged everything up to `number`.
    pub(crate) fn acknowledged_up_to(&mut self, number: i64) {
        while let Some((&oldest, _)) = self.written.first_key_value() {
            if oldest > number {
                break;
            }
            self.forget(oldest);
        }
    }

    /// The receiver acknowledged `number`, so it has read whatever was written before. Whether it was
    /// silent about data among that.
    pub(crate) fn arrived_before(&mut self, number: i64) -> bool {
        let Some(turn) = self.written.get(&number).map(|written| written.first_turn) else {
            return false;
        };
        arrived(self.written.range_mut(..number), |written| {
            written.first_turn < turn
        })
    }

    /// The receiver has answered behind everything up to this turn, so it has read it. Whether it was
    /// silent about data among that.
    pub(crate) fn arrived_up_to(&mut self, turn: u64) -> bool {
        arrived(self.written.iter_mut(), |written| {
            written.first_turn <= turn
        })
    }

    /// Takes out what went again and was written before `number`, which was acknowledged while it was
    /// not: an official client that has a message already drops its repeat without a word. So it
    /// does with what comes before it takes data, and that must not be taken for the same.
    pub(crate) fn take_dropped_before(&mut self, number: i64) -> Vec<Bytes> {
        // Which of its copies was acknowledged is not known.
        let Some(turn) = self.written.get(&number).map(|written| written.first_turn) else {
            return Vec::new();
        };
        self.take_dropped(|earlier, written| earlier < number && written.turn < turn)
    }

    /// Takes out what went again up to this turn, behind which the receiver has answered, as
    /// [`Outbox::take_dropped_before`] does.
    pub(crate) fn take_dropped_up_to(&mut self, turn: u64) -> Vec<Bytes> {
        self.take_dropped(|_, written| written.turn <= turn)
    }

    fn take_dropped(&mut self, was_read: impl Fn(i64, &Written) -> bool) -> Vec<Bytes> {
        let all = self.written.iter();
        let dropped: Vec<i64> = all
            .filter(|(number, written)| {
                written.item.again && written.ready && was_read(**number, written)
            })
            .map(|(number, _)| *number)
            .collect();
        let taken = dropped.into_iter().filter_map(|number| self.forget(number));
        taken.map(|written| written.item.bytes).collect()
    }

    /// What the receiver can be asked to answer behind, by a ping, when something that went again is
    /// not acknowledged: without later messages there is no other sign that it was dropped.
    pub(crate) fn question(&self) -> Option<u64> {
        // Not looked for where nothing can be found: this is asked at every keystroke.
        if self.repeated == 0 {
            return None;
        }
        let unsettled =
            |written: &Written| written.item.again && (written.ready || !written.arrived);
        self.written.values().any(unsettled).then_some(self.turn)
    }

    /// The receiver takes data now: what went again before that was known goes once more, first and in
    /// order.
    pub(crate) fn repeat_doubtful(&mut self) {
        let all = self.written.iter().rev();
        let doubtful: Vec<(i64, Item)> = all
            .filter(|(_, written)| written.item.again && !written.ready)
            .map(|(number, written)| (*number, written.item.clone()))
            .collect();
        for (number, item) in doubtful {
            if self.numbers.insert(number) {
                self.prepend(item);
            }
        }
    }

    fn append(&mut self, item: Item) {
        self.queued += item.bytes.len() + OVERHEAD;
        self.queue.push_back(item);
    }

    fn prepend(&mut self, item: Item) {
        self.queued += item.bytes.len() + OVERHEAD;
        self.queue.push_front(item);
    }

    fn keep(&mut self, number: i64, mut item: Item, takes_data: bool) {
        self.turn += 1;
        let (mut turn, mut first_turn, mut arrived) = (self.turn, self.turn, false);
        if let Some(earlier) = self.forget(number) {
            item.again = true;
            (first_turn, arrived) = (earlier.first_turn, earlier.arrived);
            if earlier.ready {
                turn = earlier.turn;
            }
        }
        let written = Written {
            turn,
            first_turn,
            arrived,
            ready: takes_data || item.is_handshake(),
            item,
        };
        self.kept += written.item.bytes.len() + OVERHEAD;
        self.repeated += usize::from(written.item.again);
        self.written.insert(number, written);
        while self.kept > KEEP {
            let Some((&oldest, _)) = self.written.first_key_value() else {
                break;
            };
            self.forget(oldest);
        }
    }

    fn forget(&mut self, number: i64) -> Option<Written> {
        let written = self.written.remove(&number)?;
        self.kept = self
            .kept
            .saturating_sub(written.item.bytes.len() + OVERHEAD);
        self.repeated -= usize::from(written.item.again);
        Some(written)
    }
}

/// The same bytes in memory of their own, where that is small. A message shares the memory of
/// everything that was read from the socket with it, and would hold all of that for as long as it
/// waits.
pub(crate) fn compact(bytes: Bytes) -> Bytes {
    if bytes.len() <= COMPACT {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

/// Notes what has certainly been read. Whether data is among it.
fn arrived<'a>(
    all: impl Iterator<Item = (&'a i64, &'a mut Written)>,
    was_read: impl Fn(&Written) -> bool,
) -> bool {
    let mut has_data = false;
    for (_, written) in all {
        if was_read(written) {
            written.arrived = true;
            has_data |= written.item.is_data();
        }
    }
    has_data
}

fn plain(bytes: Bytes, own: bool) -> Item {
    Item {
        number: None,
        payload_type: None,
        bytes: compact(bytes),
        again: false,
        own,
    }
}

#[cfg(test)]
mod tests {
    use sortie_channel::frame::MessageType;

    use super::*;
    use crate::pairing::testing::frame;

    fn output(number: i64) -> Frame {
        frame(
            MessageType::OutputStreamData,
            number,
            PayloadType::OUTPUT,
            &number.to_be_bytes(),
        )
    }

    fn numbers(outbox: &mut Outbox) -> Vec<i64> {
        let pop = || {
            outbox
                .pop(true)
                .map(|bytes| Frame::parse(bytes).unwrap().sequence_number())
        };
        std::iter::from_fn(pop).collect()
    }

    fn filled(up_to: i64) -> Outbox {
        let mut outbox = Outbox::default();
        (0..up_to).for_each(|number| outbox.push_stream(output(number), false));
        outbox
    }

    #[test]
    fn repeats_of_what_still_waits_are_dropped_and_later_ones_pass() {
        let mut outbox = filled(3);
        outbox.push_stream(output(0), false);
        assert_eq!(numbers(&mut outbox), [0, 1, 2]);
        outbox.push_stream(output(0), false);
        assert_eq!(
            numbers(&mut outbox),
            [0],
            "the receiver may have refused the first copy"
        );
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn a_new_websocket_gets_what_was_not_acknowledged_first_and_in_order() {
        let mut outbox = filled(4);
        numbers(&mut outbox);
        outbox.push_stream(output(4), false);
        outbox.acknowledged(1);
        outbox.push_own(service_message());
        outbox.reconnected();
        assert_eq!(numbers(&mut outbox), [0, 2, 3, 4]);
        assert_eq!(outbox.waiting(), 0);
        outbox.acknowledged_up_to(4);
        assert!(!outbox.unfinished());
        assert_eq!(outbox.kept, 0);
    }

    fn service_message() -> Bytes {
        frame(MessageType::StartPublication, 99, PayloadType::NONE, b"").into_bytes()
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut outbox = Outbox::default();
        let payload = vec![0; 1024 * 1024];
        for number in 0..20 {
            let frame = frame(
                MessageType::OutputStreamData,
                number,
                PayloadType::OUTPUT,
                &payload,
            );
            outbox.push_stream(frame, false);
            assert!(outbox.pop(true).is_some());
        }
        assert!(outbox.kept <= KEEP);
        assert!(outbox.written.contains_key(&19) && !outbox.written.contains_key(&0));
    }

    #[test]
    fn a_small_message_holds_nothing_but_itself() {
        let read = Bytes::from(vec![1; 8192]);
        let small = read.slice(..100);
        let held = compact(small.clone());
        assert_eq!(held, small);
        drop(small);
        assert!(read.is_unique(), "what was read beside it is held");
        let large = read.slice(..COMPACT + 1);
        assert_eq!(compact(large.clone()).as_ptr(), large.as_ptr());
    }

    #[test]
    fn what_was_written_counts_until_it_is_acknowledged() {
        let mut outbox = filled(3);
        let all = outbox.unacknowledged();
        assert_eq!(all, outbox.waiting());
        numbers(&mut outbox);
        assert_eq!((outbox.waiting(), outbox.unacknowledged()), (0, all));
        outbox.acknowledged_up_to(2);
        assert_eq!(outbox.unacknowledged(), 0);
    }

    #[test]
    fn silence_about_a_repeat_is_told_by_a_later_acknowledgement() {
        let mut outbox = filled(2);
        numbers(&mut outbox);
        outbox.reconnected();
        outbox.push_stream(output(2), false);
        numbers(&mut outbox);
        assert!(outbox.take_dropped_before(7).is_empty());
        let dropped = outbox.take_dropped_before(2);
        let number = |bytes: Bytes| Frame::parse(bytes).unwrap().sequence_number();
        assert_eq!(dropped.into_iter().map(number).collect::<Vec<_>>(), [0, 1]);
        let mut fresh = filled(3);
        numbers(&mut fresh);
        assert!(
            fresh.take_dropped_before(2).is_empty(),
            "these were never repeated"
        );
    }
}
