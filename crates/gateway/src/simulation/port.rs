//! A session with streams: the talk of its two people goes through one of them, and others are opened
//! beside it, to destinations that are allowed, that are not, and about which the server changes its mind.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use sortie_channel::{
    frame::PayloadType,
    streams::{Destination, Event, Limits, RefusalCode, Side, Streams},
};
use sortie_control::StreamDestination;

use super::{dice::Dice, talk::Transcript};

/// The stream that the talk goes through.
const TALK: u32 = 1;
/// What the node says on every other stream.
const GREETING: usize = 100;
/// What the client says on them.
const REQUEST: usize = 33;

/// How the server decides at this time, in its n-th life.
pub(super) fn is_allowed(destination: &StreamDestination, lives: u64, now: Duration) -> bool {
    let StreamDestination::Port { host, .. } = destination else {
        return false;
    };
    match host.as_str() {
        "yes" => true,
        "maybe" => (now.as_secs() / 20 + lives).is_multiple_of(2),
        _ => false,
    }
}

/// What became of a stream beside the talk, at the client's end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Beside {
    Asked,
    Accepted { heard: usize },
    Over { heard: usize },
    Refused,
    Reset,
}

/// One end's streams.
pub(super) struct Port {
    side: Side,
    streams: Streams,
    beside: BTreeMap<u32, (String, Beside)>,
    next_at: Duration,
    until: Duration,
    is_talking: bool,
}

impl Port {
    pub(super) fn new(side: Side, until: Duration, dice: &mut Dice) -> Self {
        let mut streams = Streams::new(side, Limits::default());
        if side == Side::Client {
            assert_eq!(streams.open(to("yes")), Ok(TALK));
        }
        Self {
            side,
            streams,
            beside: BTreeMap::new(),
            next_at: dice.millis(0, 3000),
            until,
            is_talking: side == Side::Client,
        }
    }

    /// Whether every stream beside the talk has come to what it should have.
    pub(super) fn is_settled(&self) -> bool {
        let is_settled = |(host, beside): &(String, Beside)| match (host.as_str(), beside) {
            ("yes", Beside::Over { heard: GREETING }) | ("no", Beside::Refused) => true,
            ("yes", Beside::Asked | Beside::Accepted { .. }) | ("no", Beside::Asked) => false,
            ("yes" | "no", other) => panic!("a stream to {host} is {other:?}"),
            (_, beside) => !matches!(beside, Beside::Asked),
        };
        self.beside.values().all(is_settled)
    }

    /// How many streams to this host there were.
    pub(super) fn count(&self, host: &str) -> usize {
        self.beside.values().filter(|(of, _)| of == host).count()
    }

    /// Opens streams now and then.
    pub(super) fn advance(&mut self, now: Duration, dice: &mut Dice) {
        if self.side == Side::Node || now < self.next_at || now >= self.until {
            return;
        }
        self.next_at = now + dice.millis(20, 4000);
        for _ in 0..dice.between(1, 5) {
            let host = ["yes", "no", "maybe"][usize::try_from(dice.below(3)).unwrap_or(0)];
            let id = self.streams.open(to(host)).expect("few streams");
            self.beside.insert(id, (host.to_owned(), Beside::Asked));
            self.streams.send(id, Bytes::from_static(&[b'r'; REQUEST]));
            self.streams.finish(id);
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        (self.side == Side::Client && self.next_at < self.until).then_some(self.next_at)
    }

    /// Bytes of the talk that may be said now.
    pub(super) fn room(&mut self) -> usize {
        if self.is_talking {
            self.streams.room(TALK)
        } else {
            0
        }
    }

    pub(super) fn say(&mut self, bytes: Bytes) {
        self.streams.send(TALK, bytes);
    }

    pub(super) fn next_message(&mut self, limit: usize) -> Option<(PayloadType, Bytes)> {
        self.streams.next_message(limit)
    }

    pub(super) fn is_said(&self) -> bool {
        !self.streams.has_message()
    }

    /// Takes a message of the other end. Nobody on the way may make it one that breaks the rules.
    pub(super) fn receive(
        &mut self,
        payload_type: PayloadType,
        payload: Bytes,
        hears: &mut Transcript,
    ) {
        let taken = self.streams.receive(payload_type, payload);
        assert_eq!(taken, Ok(()), "{:?}", self.side);
        while let Some(event) = self.streams.next_event() {
            match event {
                Event::Data(TALK, bytes) => {
                    hears.hear(&bytes);
                    self.streams.consumed(TALK, bytes.len());
                }
                Event::Finished(TALK) | Event::Reset(TALK) | Event::Refused(TALK, _) => {
                    panic!("the talk was cut off")
                }
                Event::Writable(_) | Event::Accepted(TALK) => {}
                event => match self.side {
                    Side::Node => self.serve(event),
                    Side::Client => self.note(event),
                },
            }
        }
    }

    fn serve(&mut self, event: Event) {
        match event {
            Event::Open(id, destination) => {
                let host = destination.host.unwrap_or_default();
                assert_ne!(host, "no", "a refused stream reached the node");
                self.streams.accept(id);
                if id == TALK {
                    self.is_talking = true;
                    return;
                }
                self.streams.send(id, Bytes::from_static(&[b'g'; GREETING]));
                self.streams.finish(id);
            }
            Event::Data(id, bytes) => self.streams.consumed(id, bytes.len()),
            Event::Finished(_) | Event::Reset(_) => {}
            other => panic!("{other:?} at the node"),
        }
    }

    fn note(&mut self, event: Event) {
        let (id, heard) = match &event {
            Event::Accepted(id) | Event::Finished(id) | Event::Reset(id) => (*id, 0),
            Event::Refused(id, refusal) => {
                assert_eq!(refusal.code, RefusalCode::Forbidden);
                (*id, 0)
            }
            Event::Data(id, bytes) => {
                self.streams.consumed(*id, bytes.len());
                (*id, bytes.len())
            }
            other => panic!("{other:?} at the client"),
        };
        let (_, beside) = self.beside.get_mut(&id).expect("a stream of ours");
        let before = match beside {
            Beside::Accepted { heard } => *heard,
            _ => 0,
        };
        *beside = match event {
            Event::Accepted(_) => Beside::Accepted { heard: 0 },
            Event::Data(..) => Beside::Accepted {
                heard: before + heard,
            },
            Event::Finished(_) => Beside::Over { heard: before },
            Event::Refused(..) => Beside::Refused,
            _ => Beside::Reset,
        };
    }
}

fn to(host: &str) -> Destination {
    Destination {
        host: Some(host.to_owned()),
        port: Some(80),
        socket: None,
    }
}
