//! Streams between our ends whose destination the client chooses while the session lasts. Pure: frames,
//! decisions and times go in; frames, questions and records come out.
//!
//! Of a forwarded port's frames only those that open a stream are read, and each is held until it is
//! decided. Numbers are end to end, so no message can be taken out or put in: a refusal takes the place
//! of the opening, under its number, and the node sends it back. What belongs to a stream that was
//! refused or is not allowed any more has its place taken by a reset, in both directions.
//!
//! A decision is kept by number until the node has acknowledged it, so that every repeat meets the same
//! one. Who may is control's.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use sortie_channel::{
    frame::{Frame, NewFrame, PayloadType},
    streams::{Destination, Message, Refusal, RefusalCode, payload},
};
use sortie_control::{
    Side, StreamDestination, StreamEnd, StreamRecord, StreamRecords, StreamSummary,
};
use sortie_types::{Now, Timestamp};

use crate::numbers::Numbers;

/// Streams of one session that are open at a time; our ends allow 1024 themselves.
const OPEN: usize = 2048;
/// Decisions that are kept: an end has no more messages in flight.
const KEPT: usize = 8192;
/// Streams that are remembered as refused or taken away.
const SEVERED: usize = 16 * 1024;
/// Records of single streams of one session in a minute; the others are counted together.
const RECORDS: usize = 300;
const MINUTE: Duration = Duration::from_secs(60);
/// Records that wait because they cannot be written.
const UNWRITTEN: usize = 1024;
/// How long a record waits for others that are written with it.
const GATHER: Duration = Duration::from_secs(1);
/// Destinations that a summary names.
const NAMED: usize = 32;
/// How often open streams are judged again, since hints can be lost.
const AGAIN: Duration = MINUTE;
/// How much of a destination that cannot be is kept for the record.
const TEXT: usize = 300;

/// What becomes of a frame.
#[derive(Debug)]
pub(crate) enum Passed {
    /// It goes on, as it came or with another payload.
    Frame(Frame),
    /// It waits for a decision, and nothing else is taken from the client meanwhile.
    Held,
}

/// What control is to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether a new stream may be opened.
    Open(StreamDestination),
    /// Whether those that are open may go on.
    Again(StreamDestination),
}

/// A decision that was made.
#[derive(Debug)]
struct Kept {
    payload: Bytes,
    /// What takes its place; `None`: it was allowed.
    refused: Option<Bytes>,
}

/// A frame that is held.
#[derive(Debug)]
struct Asking {
    frame: Frame,
    id: u32,
    destination: StreamDestination,
    since: Duration,
}

/// A stream that was allowed.
#[derive(Debug)]
struct Open {
    destination: StreamDestination,
    began: Duration,
    bytes: [u64; 2],
    finished: [bool; 2],
}

/// A stream that is over.
#[derive(Debug)]
struct Over {
    destination: Result<StreamDestination, String>,
    began: Duration,
    ended: Duration,
    bytes: [u64; 2],
    end: StreamEnd,
}

/// All streams of one session.
#[derive(Debug)]
pub(crate) struct StreamGate {
    chooses: bool,
    restored: bool,
    kept: BTreeMap<i64, Kept>,
    asking: Option<Asking>,
    /// A question is out.
    is_asked: bool,
    again: VecDeque<StreamDestination>,
    judged_at: Duration,
    open: BTreeMap<u32, Open>,
    severed: BTreeSet<u32>,
    /// Ids that were asked for since the server started, halved: a client's are odd.
    asked_for: Numbers,
    /// The smallest of them.
    first: Option<u32>,
    /// Streams from before the server started, and their bytes since.
    earlier: (BTreeSet<u32>, [u64; 2]),
    book: Book,
}

impl StreamGate {
    /// `chooses`: whether the session's streams have destinations of their own. `restored`: it was taken
    /// up after a restart, so streams may be open that are not known.
    pub(crate) fn new(chooses: bool, restored: bool, now: Duration) -> Self {
        Self {
            chooses,
            restored,
            kept: BTreeMap::new(),
            asking: None,
            is_asked: false,
            again: VecDeque::new(),
            judged_at: now,
            open: BTreeMap::new(),
            severed: BTreeSet::new(),
            asked_for: Numbers::default(),
            first: None,
            earlier: (BTreeSet::new(), [0; 2]),
            book: Book::default(),
        }
    }

    /// Whether a frame of the client waits for a decision.
    pub(crate) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether the frame of this number is the one that waits.
    #[cfg(test)]
    pub(crate) fn holds(&self, number: i64) -> bool {
        let of = |asking: &Asking| asking.frame.sequence_number() == number;
        self.asking.as_ref().is_some_and(of)
    }

    /// Takes a stream frame of a forwarded port. `is_new`: its number was not seen before.
    pub(crate) fn pass(&mut self, from: Side, frame: Frame, is_new: bool, now: Duration) -> Passed {
        if from == Side::Client && frame.payload_type() == payload::OPEN {
            return self.opening(frame, now);
        }
        if !self.chooses {
            return Passed::Frame(frame);
        }
        let Some(id) = stream_id(&frame) else {
            return Passed::Frame(frame);
        };
        if is_new {
            self.note(from, id, &frame, now);
        }
        let says_no = matches!(
            frame.payload_type(),
            payload::REFUSED | payload::RESET | payload::OPEN
        );
        if says_no || !self.severed.contains(&id) {
            return Passed::Frame(frame);
        }
        let (payload_type, bytes) = Message::Reset(id).encode();
        Passed::Frame(with_payload(frame, payload_type, &bytes))
    }

    /// The node has acknowledged this number, or everything up to it.
    pub(crate) fn acknowledged(&mut self, number: i64, cumulative: bool) {
        if cumulative {
            self.kept = self.kept.split_off(&number.saturating_add(1));
        } else {
            self.kept.remove(&number);
        }
    }

    fn opening(&mut self, frame: Frame, now: Duration) -> Passed {
        let number = frame.sequence_number();
        let asked = frame.payload();
        if let Some(kept) = self.kept.get(&number) {
            if kept.payload != asked {
                let (id, message) = (id_of(&asked).unwrap_or(0), "the request was changed");
                return Passed::Frame(refused(frame, id, RefusalCode::Forbidden, message).0);
            }
            return Passed::Frame(match &kept.refused {
                Some(bytes) => with_payload(frame, payload::REFUSED, bytes),
                None => frame,
            });
        }
        match Message::parse(payload::OPEN, asked.clone()) {
            Ok(Message::Open(_, wanted)) if !self.chooses && wanted == Destination::default() => {
                Passed::Frame(frame)
            }
            Ok(Message::Open(id, wanted)) if !id.is_multiple_of(2) => {
                self.chosen(frame, id, &wanted, now)
            }
            _ => {
                let id = id_of(&asked).unwrap_or(0);
                let text = "a request that cannot be read".to_owned();
                let why = "the destination of a stream cannot be read";
                self.forbid(frame, id, Err(text), why, now)
            }
        }
    }

    fn chosen(&mut self, frame: Frame, id: u32, wanted: &Destination, now: Duration) -> Passed {
        let (host, port) = (wanted.host.as_deref(), wanted.port);
        let found = StreamDestination::new(host, port, wanted.socket.as_deref());
        if !self.chooses {
            let text = found.map_err(|_| text_of(wanted));
            let why = "the streams of this session have the destination of the session";
            return self.forbid(frame, id, text, why, now);
        }
        let destination = match found {
            Ok(destination) => destination,
            Err(error) => {
                return self.forbid(frame, id, Err(text_of(wanted)), &error.to_string(), now);
            }
        };
        if self.open.len() >= OPEN {
            let why = "too many connections are open";
            let end = StreamEnd::NotConnected(why.to_owned());
            return self.refuse(
                frame,
                id,
                Ok(destination),
                (RefusalCode::Limit, why),
                end,
                now,
            );
        }
        self.asking = Some(Asking {
            frame,
            id,
            destination,
            since: now,
        });
        Passed::Held
    }

    fn forbid(
        &mut self,
        frame: Frame,
        id: u32,
        destination: Result<StreamDestination, String>,
        why: &str,
        now: Duration,
    ) -> Passed {
        let end = StreamEnd::Refused(why.to_owned());
        self.refuse(
            frame,
            id,
            destination,
            (RefusalCode::Forbidden, why),
            end,
            now,
        )
    }

    fn refuse(
        &mut self,
        frame: Frame,
        id: u32,
        destination: Result<StreamDestination, String>,
        (code, why): (RefusalCode, &str),
        end: StreamEnd,
        now: Duration,
    ) -> Passed {
        let (number, payload) = (frame.sequence_number(), frame.payload());
        let (frame, bytes) = refused(frame, id, code, why);
        self.keep(number, payload, Some(bytes));
        self.sever(id);
        if self.is_first(id) {
            let over = Over {
                destination,
                began: now,
                ended: now,
                bytes: [0; 2],
                end,
            };
            self.book.enter(over, now);
        }
        Passed::Frame(frame)
    }

    fn keep(&mut self, number: i64, payload: Bytes, refused: Option<Bytes>) {
        self.kept.insert(number, Kept { payload, refused });
        if self.kept.len() > KEPT {
            self.kept.pop_first();
        }
    }

    fn sever(&mut self, id: u32) {
        self.severed.insert(id);
        if self.severed.len() > SEVERED {
            self.severed.pop_first();
        }
    }

    /// Whether this id was not asked for before. Otherwise it is a repeat, or nonsense that the node ends
    /// the session for.
    fn is_first(&mut self, id: u32) -> bool {
        let half = i64::from(id / 2);
        let is_first = !self.asked_for.contains(half) && !self.open.contains_key(&id);
        self.asked_for.insert(half);
        self.first = Some(self.first.map_or(id, |first| first.min(id)));
        is_first
    }

    // Decisions.

    /// What control is to decide next; there is one question at a time.
    pub(crate) fn question(&mut self) -> Option<Question> {
        if self.is_asked {
            return None;
        }
        let question = match &self.asking {
            Some(asking) => Some(Question::Open(asking.destination.clone())),
            None => self.again.pop_front().map(Question::Again),
        };
        self.is_asked = question.is_some();
        question
    }

    /// The question is decided: `Err` says why not. A frame that was held, to go on.
    pub(crate) fn answered(
        &mut self,
        question: Question,
        decision: Result<(), (RefusalCode, String)>,
        now: Duration,
    ) -> Option<Frame> {
        self.is_asked = false;
        if let Question::Again(destination) = question {
            if let Err((RefusalCode::Forbidden, why)) = decision {
                self.take_away(&destination, &why, now);
            }
            return None;
        }
        let Asking {
            frame,
            id,
            destination,
            since,
        } = self.asking.take()?;
        let passed = match decision {
            Ok(()) => {
                self.keep(frame.sequence_number(), frame.payload(), None);
                self.severed.remove(&id);
                if self.is_first(id) {
                    let open = Open {
                        destination,
                        began: since,
                        bytes: [0; 2],
                        finished: [false; 2],
                    };
                    self.open.insert(id, open);
                }
                Passed::Frame(frame)
            }
            Err((RefusalCode::Forbidden, why)) => {
                self.forbid(frame, id, Ok(destination), &why, now)
            }
            Err((code, why)) => {
                let end = StreamEnd::NotConnected(why.clone());
                self.refuse(frame, id, Ok(destination), (code, &why), end, now)
            }
        };
        match passed {
            Passed::Frame(frame) => Some(frame),
            Passed::Held => None,
        }
    }

    /// Who may open what may have changed: open streams are judged again.
    pub(crate) fn judge_again(&mut self, now: Duration) {
        self.judged_at = now;
        let all: BTreeSet<_> = self.open.values().map(|open| &open.destination).collect();
        self.again = all.into_iter().cloned().collect();
    }

    fn take_away(&mut self, destination: &StreamDestination, why: &str, now: Duration) {
        let of = |(id, open): (&u32, &Open)| (open.destination == *destination).then_some(*id);
        let ids: Vec<u32> = self.open.iter().filter_map(of).collect();
        for id in ids {
            self.sever(id);
            self.over(id, StreamEnd::AccessTakenAway(why.to_owned()), now);
        }
    }

    // What is known of streams.

    fn note(&mut self, from: Side, id: u32, frame: &Frame, now: Duration) {
        let Some(open) = self.open.get_mut(&id) else {
            return self.note_earlier(from, id, frame);
        };
        match frame.payload_type() {
            payload::DATA => {
                if let Some(bytes) = open.bytes.get_mut(from as usize) {
                    *bytes += data_length(frame);
                }
            }
            payload::FIN => {
                if let Some(finished) = open.finished.get_mut(from as usize) {
                    *finished = true;
                }
                if open.finished == [true; 2] {
                    self.over(id, StreamEnd::Closed, now);
                }
            }
            payload::RESET => self.over(id, StreamEnd::Reset, now),
            payload::REFUSED if from == Side::Node => {
                let why = match Message::parse(payload::REFUSED, frame.payload()) {
                    Ok(Message::Refused(_, refusal)) => {
                        refusal.message.chars().take(TEXT).collect()
                    }
                    _ => String::new(),
                };
                self.over(id, StreamEnd::NotConnected(why), now);
            }
            _ => {}
        }
    }

    /// A stream of the client that is not known was opened through a server that is gone.
    fn note_earlier(&mut self, from: Side, id: u32, frame: &Frame) {
        let is_earlier = self.first.is_none_or(|first| id < first) && !id.is_multiple_of(2);
        if !self.restored || !is_earlier || frame.payload_type() != payload::DATA {
            return;
        }
        let (ids, bytes) = &mut self.earlier;
        if ids.len() < OPEN {
            ids.insert(id);
        }
        if let Some(bytes) = bytes.get_mut(from as usize) {
            *bytes += data_length(frame);
        }
    }

    fn over(&mut self, id: u32, end: StreamEnd, now: Duration) {
        if let Some(open) = self.open.remove(&id) {
            let over = Over {
                destination: Ok(open.destination),
                began: open.began,
                ended: now,
                bytes: open.bytes,
                end,
            };
            self.book.enter(over, now);
        }
    }

    // Time and records.

    /// What is due by the mere passing of time.
    pub(crate) fn advance(&mut self, now: Duration) {
        if !self.open.is_empty() && now >= self.judged_at + AGAIN {
            self.judge_again(now);
        }
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let judge = (!self.open.is_empty()).then(|| self.judged_at + AGAIN);
        [judge, self.book.due_at()].into_iter().flatten().min()
    }

    /// The session ends or leaves this server: what is open is over, for the record.
    pub(crate) fn close(&mut self, end: &StreamEnd, now: Duration) {
        let ids: Vec<u32> = self.open.keys().copied().collect();
        for id in ids {
            self.over(id, end.clone(), now);
        }
        let (ids, bytes) = std::mem::take(&mut self.earlier);
        if !ids.is_empty() {
            let named = "opened before the server was started".to_owned();
            self.book.count(named, ids.len() as u64, bytes, false, now);
        }
    }

    /// The records that are to be written now, one batch at a time; all that there are when the session
    /// is `leaving`.
    pub(crate) fn take_records(&mut self, leaving: bool, now: Now) -> Option<StreamRecords> {
        if self.book.is_writing && !leaving {
            return None;
        }
        let records = self.book.take(leaving, now);
        self.book.is_writing = !records.is_empty();
        self.book.is_writing.then_some(records)
    }

    /// They are written, or could not be and are to be tried again.
    pub(crate) fn written(&mut self, back: Option<StreamRecords>, now: Duration) {
        self.book.is_writing = false;
        if let Some(records) = back {
            self.book.put_back(records, now);
        }
    }
}

/// What is over and not recorded yet.
#[derive(Debug, Default)]
struct Book {
    over: Vec<Over>,
    /// Could not be written.
    unwritten: Vec<StreamRecord>,
    summary: StreamSummary,
    named: BTreeMap<String, u64>,
    /// The minute that is counted in, and the records in it.
    minute: Option<(Duration, usize)>,
    gather_until: Option<Duration>,
    summary_at: Option<Duration>,
    /// A batch was taken and is not written yet.
    is_writing: bool,
}

impl Book {
    fn enter(&mut self, over: Over, now: Duration) {
        let (since, records) = match self.minute {
            Some((since, records)) if now < since + MINUTE => (since, records),
            _ => (now, 0),
        };
        if records >= RECORDS || self.over.len() + self.unwritten.len() >= UNWRITTEN {
            let name = match &over.destination {
                Ok(destination) => destination.to_string(),
                Err(text) => text.clone(),
            };
            let refused = matches!(over.end, StreamEnd::Refused(_));
            return self.count(name, 1, over.bytes, refused, now);
        }
        self.minute = Some((since, records + 1));
        self.gather_until.get_or_insert(now + GATHER);
        self.over.push(over);
    }

    fn count(&mut self, name: String, streams: u64, bytes: [u64; 2], refused: bool, now: Duration) {
        let [to_node, to_client] = bytes;
        self.summary.streams += streams;
        self.summary.refused += u64::from(refused);
        self.summary.bytes_to_node += to_node;
        self.summary.bytes_to_client += to_client;
        self.summary_at.get_or_insert(now + MINUTE);
        if self.named.len() < NAMED || self.named.contains_key(&name) {
            *self.named.entry(name).or_default() += streams;
        }
    }

    fn due_at(&self) -> Option<Duration> {
        if self.is_writing {
            return None;
        }
        [self.gather_until, self.summary_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn take(&mut self, leaving: bool, now: Now) -> StreamRecords {
        let is_due = |at: Option<Duration>| at.is_some_and(|at| leaving || now.monotonic >= at);
        let mut records = StreamRecords::default();
        if is_due(self.gather_until) {
            self.gather_until = None;
            records.streams = std::mem::take(&mut self.unwritten);
            let over = std::mem::take(&mut self.over);
            let over = over.into_iter().map(|over| over.record(now));
            records.streams.extend(over);
        }
        if is_due(self.summary_at) {
            self.summary_at = None;
            let summary = std::mem::take(&mut self.summary);
            records.summary = Some(StreamSummary {
                destinations: std::mem::take(&mut self.named).into_iter().collect(),
                ..summary
            });
        }
        records
    }

    fn put_back(&mut self, records: StreamRecords, now: Duration) {
        if !records.streams.is_empty() {
            self.gather_until = Some(now + GATHER);
            let newer = std::mem::replace(&mut self.unwritten, records.streams);
            self.unwritten.extend(newer);
        }
        if let Some(summary) = records.summary {
            self.summary.streams += summary.streams;
            self.summary.refused += summary.refused;
            self.summary.bytes_to_node += summary.bytes_to_node;
            self.summary.bytes_to_client += summary.bytes_to_client;
            self.summary_at = Some(now + GATHER);
            for (name, streams) in summary.destinations {
                *self.named.entry(name).or_default() += streams;
            }
        }
    }
}

impl Over {
    /// With the times of the wall clock.
    fn record(self, now: Now) -> StreamRecord {
        let wall = |at: Duration| -> Timestamp { now.wall.minus(now.monotonic.saturating_sub(at)) };
        let [bytes_to_node, bytes_to_client] = self.bytes;
        StreamRecord {
            began: wall(self.began),
            ended: wall(self.ended),
            destination: self.destination,
            bytes_to_node,
            bytes_to_client,
            end: self.end,
        }
    }
}

/// The stream that a frame belongs to.
fn stream_id(frame: &Frame) -> Option<u32> {
    let types = payload::OPEN.0..=payload::CREDIT.0;
    types
        .contains(&frame.payload_type().0)
        .then(|| id_of(&frame.payload()))?
}

fn id_of(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().copied().map(u32::from_be_bytes)
}

fn data_length(frame: &Frame) -> u64 {
    frame.payload().len().saturating_sub(4) as u64
}

/// The frame with a refusal in place of its payload, and that payload.
fn refused(frame: Frame, id: u32, code: RefusalCode, why: &str) -> (Frame, Bytes) {
    let message = why.to_owned();
    let (payload_type, bytes) = Message::Refused(id, Refusal { code, message }).encode();
    (with_payload(frame, payload_type, &bytes), bytes)
}

/// The same message with another payload.
#[expect(
    clippy::expect_used,
    reason = "its type was parsed and its payload is short and not empty"
)]
fn with_payload(frame: Frame, payload_type: PayloadType, payload: &[u8]) -> Frame {
    let created = i64::try_from(frame.created_date_ms()).unwrap_or(1);
    let new = NewFrame {
        message_type: frame.message_type().clone(),
        sequence_number: frame.sequence_number(),
        flags: frame.flags(),
        message_id: frame.message_id(),
        payload_type,
        payload,
        created: Timestamp::from_millis(created),
        digest: true,
    };
    let made = new.encode().ok().and_then(|bytes| Frame::parse(bytes).ok());
    made.expect("a stream message with a payload")
}

/// A destination that cannot be, for the record.
fn text_of(wanted: &Destination) -> String {
    let text = serde_json::to_string(wanted).unwrap_or_default();
    text.chars().take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    use sortie_channel::frame::MessageType;

    use super::*;
    use crate::pairing::testing::frame;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn now(seconds: u64) -> Now {
        Now::new(s(seconds), Timestamp::from_millis(0).plus(s(seconds)))
    }

    fn gate() -> StreamGate {
        StreamGate::new(true, false, s(0))
    }

    fn message(number: i64, message: &Message) -> Frame {
        let (payload_type, payload) = message.encode();
        frame(MessageType::InputStreamData, number, payload_type, &payload)
    }

    fn to(host: &str) -> Destination {
        Destination {
            host: Some(host.to_owned()),
            port: Some(80),
            socket: None,
        }
    }

    fn open(number: i64, id: u32, host: &str) -> Frame {
        message(number, &Message::Open(id, to(host)))
    }

    fn data(number: i64, id: u32, length: usize) -> Frame {
        message(number, &Message::Data(id, vec![7; length].into()))
    }

    fn chosen(host: &str) -> StreamDestination {
        StreamDestination::new(Some(host), Some(80), None).unwrap()
    }

    fn passed(gate: &mut StreamGate, from: Side, frame: &Frame, at: u64) -> Frame {
        match gate.pass(from, frame.clone(), true, s(at)) {
            Passed::Frame(frame) => frame,
            Passed::Held => panic!("held"),
        }
    }

    fn meaning(frame: &Frame) -> Message {
        Message::parse(frame.payload_type(), frame.payload()).unwrap()
    }

    /// Asks and answers.
    fn decided(gate: &mut StreamGate, frame: &Frame, decision: Result<(), &str>, at: u64) -> Frame {
        let held = gate.pass(Side::Client, frame.clone(), true, s(at));
        assert!(matches!(held, Passed::Held), "{held:?}");
        assert!(gate.is_asking());
        let question = gate.question().unwrap();
        let decision = decision.map_err(|why| (RefusalCode::Forbidden, why.to_owned()));
        gate.answered(question, decision, s(at)).unwrap()
    }

    fn refusal(frame: &Frame) -> (u32, RefusalCode, String) {
        match meaning(frame) {
            Message::Refused(id, refusal) => (id, refusal.code, refusal.message),
            other => panic!("{other:?}"),
        }
    }

    fn recorded(gate: &mut StreamGate, at: u64) -> StreamRecords {
        gate.take_records(true, now(at)).unwrap_or_default()
    }

    #[test]
    fn what_is_allowed_goes_on_unchanged() {
        let mut gate = gate();
        let asked = open(3, 1, "DB.internal");
        gate.pass(Side::Client, asked.clone(), true, s(1));
        assert_eq!(gate.question(), Some(Question::Open(chosen("db.internal"))));
        assert_eq!(gate.question(), None, "one at a time");
        let question = Question::Open(chosen("db.internal"));
        assert_eq!(gate.answered(question, Ok(()), s(1)), Some(asked));
        assert!(!gate.is_asking());
    }

    #[test]
    fn a_refusal_takes_the_place_of_the_request_under_its_number() {
        let mut gate = gate();
        let asked = open(3, 1, "db.internal");
        let answer = decided(&mut gate, &asked, Err("no policy allows it"), 1);
        assert_eq!(answer.sequence_number(), 3);
        assert_eq!(answer.message_id(), asked.message_id());
        assert_eq!(answer.message_type(), asked.message_type());
        assert!(answer.digest_matches());
        let (id, code, message) = refusal(&answer);
        assert_eq!((id, code), (1, RefusalCode::Forbidden));
        assert_eq!(message, "no policy allows it");
    }

    #[test]
    fn every_repeat_meets_the_same_decision_until_it_is_acknowledged() {
        let mut gate = gate();
        let (no, yes) = (open(3, 1, "no"), open(4, 3, "yes"));
        let refused = decided(&mut gate, &no, Err("no"), 1);
        decided(&mut gate, &yes, Ok(()), 1);
        for _ in 0..2 {
            assert_eq!(passed(&mut gate, Side::Client, &no, 2), refused);
            assert_eq!(passed(&mut gate, Side::Client, &yes, 2), yes);
        }
        gate.acknowledged(3, true);
        assert_eq!(passed(&mut gate, Side::Client, &yes, 2), yes);
        let again = gate.pass(Side::Client, no, false, s(3));
        assert!(matches!(again, Passed::Held), "judged anew");
        assert_eq!(recorded(&mut gate, 9).streams.len(), 1, "one refusal");
    }

    #[test]
    fn a_repeat_with_another_destination_is_refused() {
        let mut gate = gate();
        decided(&mut gate, &open(3, 1, "yes"), Ok(()), 1);
        let changed = passed(&mut gate, Side::Client, &open(3, 1, "secret"), 1);
        assert_eq!(refusal(&changed).1, RefusalCode::Forbidden);
    }

    #[test]
    fn a_late_number_or_a_small_id_is_judged_and_recorded_all_the_same() {
        let mut gate = gate();
        decided(&mut gate, &open(20, 9, "a"), Ok(()), 1);
        let late = gate.pass(Side::Client, open(10, 1, "b"), false, s(1));
        assert!(matches!(late, Passed::Held));
        let question = gate.question().unwrap();
        gate.answered(question, Ok(()), s(1));
        gate.close(&StreamEnd::SessionEnded, s(2));
        assert_eq!(recorded(&mut gate, 2).streams.len(), 2);
    }

    #[test]
    fn where_nothing_is_chosen_only_the_own_destination_passes() {
        let mut gate = StreamGate::new(false, false, s(0));
        let own = message(0, &Message::Open(1, Destination::default()));
        assert_eq!(passed(&mut gate, Side::Client, &own, 1), own);
        let other = passed(&mut gate, Side::Client, &open(1, 3, "secret"), 1);
        assert_eq!(refusal(&other).1, RefusalCode::Forbidden);
        let socket = Destination {
            socket: Some("/run/docker.sock".to_owned()),
            ..Destination::default()
        };
        let other = message(2, &Message::Open(5, socket));
        assert_eq!(refusal(&passed(&mut gate, Side::Client, &other, 1)).0, 5);
        let records = recorded(&mut gate, 2).streams;
        assert_eq!(records.len(), 2, "refusals are recorded");
        assert_eq!(records[0].destination, Ok(chosen("secret")));
    }

    #[test]
    fn what_cannot_be_read_never_reaches_the_node_as_a_request() {
        let mut gate = gate();
        let table: [&[u8]; 6] = [
            b"\0\0",
            b"\0\0\0\x01",
            b"\0\0\0\x01{",
            br#"____{"Host":"a","Port":80,"Proto":"udp"}"#,
            br#"____{"Host":"a","Host":"b","Port":80}"#,
            b"\0\0\0\x02{\"Host\":\"a\",\"Port\":80}",
        ];
        for (number, bytes) in (0..).zip(table) {
            let asked = frame(MessageType::InputStreamData, number, payload::OPEN, bytes);
            let answer = passed(&mut gate, Side::Client, &asked, 1);
            assert_eq!(refusal(&answer).1, RefusalCode::Forbidden, "{bytes:?}");
        }
        let own = message(9, &Message::Open(11, Destination::default()));
        let answer = passed(&mut gate, Side::Client, &own, 1);
        assert_eq!(refusal(&answer).1, RefusalCode::Forbidden);
    }

    #[test]
    fn nothing_of_a_refused_stream_reaches_the_node() {
        let mut gate = gate();
        decided(&mut gate, &open(0, 1, "no"), Err("no"), 1);
        let early = passed(&mut gate, Side::Client, &data(1, 1, 100), 1);
        assert_eq!(meaning(&early), Message::Reset(1));
        let answer = message(
            0,
            &Message::Refused(
                1,
                Refusal {
                    code: RefusalCode::Forbidden,
                    message: "no".to_owned(),
                },
            ),
        );
        assert_eq!(passed(&mut gate, Side::Node, &answer, 1), answer);
        let other = data(2, 3, 5);
        assert_eq!(passed(&mut gate, Side::Client, &other, 1), other);
    }

    #[test]
    fn a_stream_is_recorded_when_it_ends() {
        let mut gate = gate();
        decided(&mut gate, &open(0, 1, "db"), Ok(()), 10);
        passed(&mut gate, Side::Client, &data(1, 1, 100), 11);
        passed(&mut gate, Side::Node, &data(0, 1, 2000), 12);
        let again = gate.pass(Side::Node, data(0, 1, 2000), false, s(12));
        assert!(matches!(again, Passed::Frame(_)));
        passed(&mut gate, Side::Node, &message(1, &Message::Fin(1)), 13);
        assert!(gate.take_records(false, now(90)).is_none());
        passed(&mut gate, Side::Client, &message(2, &Message::Fin(1)), 20);
        assert!(gate.take_records(false, now(20)).is_none(), "gathered");
        assert_eq!(gate.deadline(), Some(s(21)));
        let records = gate.take_records(false, now(21)).unwrap();
        let expected = StreamRecord {
            destination: Ok(chosen("db")),
            began: now(10).wall,
            ended: now(20).wall,
            bytes_to_node: 100,
            bytes_to_client: 2000,
            end: StreamEnd::Closed,
        };
        assert_eq!(records.streams, [expected]);
        assert_eq!(gate.deadline(), None);
    }

    #[test]
    fn the_record_says_how_a_stream_ended() {
        let mut gate = gate();
        for (id, host) in [(1, "reset"), (3, "down"), (5, "left")] {
            decided(&mut gate, &open(i64::from(id), id, host), Ok(()), 1);
        }
        decided(&mut gate, &open(7, 7, "no"), Err("no"), 1);
        passed(&mut gate, Side::Client, &message(8, &Message::Reset(1)), 2);
        let down = Refusal {
            code: RefusalCode::Refused,
            message: "connection refused".to_owned(),
        };
        passed(
            &mut gate,
            Side::Node,
            &message(0, &Message::Refused(3, down)),
            2,
        );
        gate.close(&StreamEnd::SessionEnded, s(3));
        let ends: Vec<StreamEnd> = recorded(&mut gate, 3)
            .streams
            .into_iter()
            .map(|stream| stream.end)
            .collect();
        let expected = [
            StreamEnd::Refused("no".to_owned()),
            StreamEnd::Reset,
            StreamEnd::NotConnected("connection refused".to_owned()),
            StreamEnd::SessionEnded,
        ];
        assert_eq!(ends, expected);
    }

    #[test]
    fn a_flood_of_streams_is_summarised() {
        let mut gate = gate();
        for number in 0..1000_u32 {
            let host = if number < 900 { "a" } else { "b" };
            let asked = open(i64::from(number), 2 * number + 1, host);
            decided(&mut gate, &asked, Err("no"), 1);
        }
        let records = recorded(&mut gate, 2);
        assert_eq!(records.streams.len(), RECORDS);
        let summary = records.summary.unwrap();
        assert_eq!((summary.streams, summary.refused), (700, 700));
        assert_eq!(
            summary.destinations,
            [("a:80".to_owned(), 600), ("b:80".to_owned(), 100)]
        );
        decided(&mut gate, &open(1000, 2001, "c"), Err("no"), 62);
        assert_eq!(recorded(&mut gate, 62).streams.len(), 1, "a new minute");
    }

    #[test]
    fn records_that_cannot_be_written_are_kept_and_tried_again() {
        let mut gate = gate();
        decided(&mut gate, &open(0, 1, "a"), Err("no"), 1);
        let records = gate.take_records(false, now(2)).unwrap();
        decided(&mut gate, &open(1, 3, "b"), Err("no"), 2);
        assert_eq!(gate.deadline(), None, "one batch at a time");
        assert_eq!(gate.take_records(false, now(9)), None);
        gate.written(Some(records.clone()), s(2));
        assert_eq!(gate.take_records(false, now(2)), None);
        assert_eq!(gate.deadline(), Some(s(3)));
        let again = gate.take_records(false, now(3)).unwrap().streams;
        assert_eq!(again.len(), 2);
        assert_eq!(again[0], records.streams[0]);
        gate.written(None, s(3));
        assert!(gate.take_records(true, now(3)).is_none());
    }

    #[test]
    fn streams_that_are_not_allowed_any_more_are_cut_in_both_directions() {
        let mut gate = gate();
        for (id, host) in [(1, "gone"), (3, "stays"), (5, "gone")] {
            decided(&mut gate, &open(i64::from(id), id, host), Ok(()), 1);
        }
        gate.judge_again(s(2));
        let gone = Question::Again(chosen("gone"));
        assert_eq!(gate.question(), Some(gone.clone()));
        let refused = Err((RefusalCode::Forbidden, "taken".to_owned()));
        assert_eq!(gate.answered(gone, refused, s(3)), None);
        let stays = gate.question().unwrap();
        assert_eq!(stays, Question::Again(chosen("stays")));
        gate.answered(stays, Ok(()), s(3));
        assert_eq!(gate.question(), None, "each destination once");

        let upwards = passed(&mut gate, Side::Client, &data(9, 1, 50), 4);
        assert_eq!(meaning(&upwards), Message::Reset(1));
        assert_eq!(upwards.sequence_number(), 9);
        let downwards = passed(&mut gate, Side::Node, &data(4, 5, 50), 4);
        assert_eq!(meaning(&downwards), Message::Reset(5));
        let credit = passed(
            &mut gate,
            Side::Client,
            &message(10, &Message::Credit(1, 5)),
            4,
        );
        assert_eq!(meaning(&credit), Message::Reset(1));
        let other = data(11, 3, 50);
        assert_eq!(passed(&mut gate, Side::Client, &other, 4), other);
        let records = recorded(&mut gate, 5).streams;
        assert_eq!(records.len(), 2);
        assert_eq!(
            records[0].end,
            StreamEnd::AccessTakenAway("taken".to_owned())
        );
    }

    #[test]
    fn a_failure_of_the_server_ends_nothing_that_is_open() {
        let mut gate = gate();
        decided(&mut gate, &open(0, 1, "a"), Ok(()), 1);
        gate.advance(s(61));
        let question = gate.question().unwrap();
        gate.answered(
            question,
            Err((RefusalCode::Other, "disk".to_owned())),
            s(61),
        );
        let other = data(1, 1, 5);
        assert_eq!(passed(&mut gate, Side::Client, &other, 62), other);
        assert_eq!(gate.deadline(), Some(s(121)), "judged again each minute");
    }

    #[test]
    fn a_decision_that_a_restart_made_another_one_closes_what_is_open() {
        // The node has the stream from the server before; the repeat of its request is refused now.
        let mut gate = StreamGate::new(true, true, s(0));
        decided(&mut gate, &open(0, 1, "a"), Err("not any more"), 1);
        let answer = passed(&mut gate, Side::Node, &message(0, &Message::Opened(1)), 1);
        assert_eq!(meaning(&answer), Message::Reset(1));
    }

    #[test]
    fn streams_from_before_a_restart_are_summed_up() {
        let mut gate = StreamGate::new(true, true, s(0));
        passed(&mut gate, Side::Client, &data(5, 1, 10), 1);
        decided(&mut gate, &open(6, 7, "a"), Ok(()), 1);
        passed(&mut gate, Side::Node, &data(5, 3, 20), 1);
        passed(&mut gate, Side::Node, &data(6, 9, 40), 1);
        gate.close(&StreamEnd::SessionEnded, s(2));
        let summary = recorded(&mut gate, 2).summary.unwrap();
        assert_eq!(summary.streams, 2);
        assert_eq!((summary.bytes_to_node, summary.bytes_to_client), (10, 20));
    }

    #[test]
    fn too_many_streams_are_refused_for_that() {
        let mut gate = gate();
        for id in 0..u32::try_from(OPEN).unwrap() {
            decided(&mut gate, &open(i64::from(id), 2 * id + 1, "a"), Ok(()), 1);
        }
        let more = passed(&mut gate, Side::Client, &open(9999, 9999, "a"), 1);
        assert_eq!(refusal(&more).1, RefusalCode::Limit);
    }
}
