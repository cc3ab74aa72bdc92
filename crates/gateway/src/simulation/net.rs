//! Websockets on a virtual clock. One delivers in order and whole while it lives; what is lost is what
//! was under way when it broke. Different sockets overtake each other.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::dice::Dice;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    ClientData,
    NodeData,
    Control,
}

impl Purpose {
    fn index(self) -> usize {
        self as usize
    }
}

/// Which end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Peer,
    Server,
}

impl Place {
    fn other(self) -> Self {
        match self {
            Self::Peer => Self::Server,
            Self::Server => Self::Peer,
        }
    }
}

/// What goes through a socket.
#[derive(Clone, Debug)]
pub(super) enum Message {
    /// The open message of a data channel: the peer's features when it is one of ours, its process,
    /// and its ticket.
    Open {
        announced: Option<Vec<String>>,
        process: u64,
        ticket: Option<String>,
    },
    Frame(Bytes),
    Ping(u64),
    Pong(u64),
    /// The open message of a control channel: whether the session is listed, by an agent that lists.
    Hello {
        ours: bool,
        listed: Option<bool>,
    },
    /// Start the session.
    Start,
    /// End the session.
    End,
    /// The session's result.
    Complete {
        failed: bool,
    },
    CompleteTaken,
}

impl Message {
    fn cost(&self) -> usize {
        match self {
            Self::Frame(bytes) => bytes.len() + 8,
            _ => 64,
        }
    }
}

/// How a socket breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// What is under way is lost, and both ends notice, each in its time.
    Reset,
    /// The same, and the server's end notices late: the peer changed its address.
    Moved,
    /// Everything is swallowed from now on. Nobody is told before `heals`.
    HalfOpen { heals: Option<Duration> },
}

#[derive(Debug, Default)]
struct Pipe {
    queue: VecDeque<(Duration, Message)>,
    held: usize,
    latest: Duration,
}

impl Pipe {
    fn clear(&mut self) {
        self.queue.clear();
        self.held = 0;
    }
}

#[derive(Debug)]
struct Wire {
    purpose: Purpose,
    latency: Duration,
    capacity: usize,
    /// Towards the peer, towards the server.
    pipes: [Pipe; 2],
    is_dead: bool,
    /// When an end notices that it is over.
    gone_at: [Option<Duration>; 2],
    released: [bool; 2],
}

impl Wire {
    fn toward(&mut self, place: Place) -> &mut Pipe {
        &mut self.pipes[place as usize]
    }
}

/// All sockets, and whether new ones can be had.
#[derive(Debug)]
pub(super) struct Net {
    wires: BTreeMap<u64, Wire>,
    next: u64,
    /// Sockets that the server has not looked at yet.
    fresh: Vec<(u64, Purpose)>,
    pub(super) server_is_up: bool,
    unreachable_until: [Duration; 3],
    latency: [Duration; 3],
    capacity: usize,
}

impl Net {
    pub(super) fn new(latency: [Duration; 3], capacity: usize) -> Self {
        Self {
            wires: BTreeMap::new(),
            next: 1,
            fresh: Vec::new(),
            server_is_up: true,
            unreachable_until: [Duration::ZERO; 3],
            latency,
            capacity,
        }
    }

    /// Opens a socket and sends its first message. `None`: the server cannot be reached.
    pub(super) fn dial(&mut self, purpose: Purpose, first: Message, now: Duration) -> Option<u64> {
        if !self.can_reach(purpose, now) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        let latency = self.latency[purpose.index()];
        let mut wire = Wire {
            purpose,
            latency,
            capacity: self.capacity,
            pipes: [Pipe::default(), Pipe::default()],
            is_dead: false,
            gone_at: [None; 2],
            released: [false; 2],
        };
        // Connecting takes round trips.
        let pipe = wire.toward(Place::Server);
        pipe.latest = now + latency * 3;
        pipe.held = first.cost();
        pipe.queue.push_back((pipe.latest, first));
        self.wires.insert(id, wire);
        self.fresh.push((id, purpose));
        Some(id)
    }

    /// Whether a request of this peer would be answered.
    pub(super) fn can_reach(&self, purpose: Purpose, now: Duration) -> bool {
        self.server_is_up && now >= self.unreachable_until[purpose.index()]
    }

    pub(super) fn take_fresh(&mut self) -> Vec<(u64, Purpose)> {
        std::mem::take(&mut self.fresh)
    }

    /// Whether a message can be written: the buffers on the way are not full.
    pub(super) fn has_room(&self, id: u64, from: Place) -> bool {
        self.wires
            .get(&id)
            .is_some_and(|wire| wire.pipes[from.other() as usize].held < wire.capacity)
    }

    pub(super) fn send(
        &mut self,
        id: u64,
        from: Place,
        message: Message,
        now: Duration,
        dice: &mut Dice,
    ) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let (latency, is_dead) = (wire.latency, wire.is_dead);
        let pipe = wire.toward(from.other());
        pipe.held += message.cost();
        let arrival = if is_dead {
            Duration::MAX
        } else {
            let jitter = dice.below(u64::try_from(latency.as_micros()).unwrap_or(1) / 4 + 1);
            pipe.latest = pipe
                .latest
                .max(now + latency + Duration::from_micros(jitter));
            pipe.latest
        };
        pipe.queue.push_back((arrival, message));
    }

    /// The next message that has arrived.
    pub(super) fn receive(&mut self, id: u64, at: Place, now: Duration) -> Option<Message> {
        let pipe = self.wires.get_mut(&id)?.toward(at);
        if pipe.queue.front()?.0 > now {
            return None;
        }
        let (_, message) = pipe.queue.pop_front()?;
        pipe.held -= message.cost();
        Some(message)
    }

    /// Whether an end sees that the socket is over.
    pub(super) fn is_gone(&self, id: u64, at: Place, now: Duration) -> bool {
        let Some(wire) = self.wires.get(&id) else {
            return true;
        };
        let unread = wire.pipes[at as usize].queue.front();
        let has_more = unread.is_some_and(|(arrival, _)| *arrival != Duration::MAX);
        wire.gone_at[at as usize].is_some_and(|at| now >= at) && !has_more
    }

    /// An end closes the socket: what it has written arrives, then the other end sees the end.
    pub(super) fn release(&mut self, id: u64, by: Place, now: Duration) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.released[by as usize] = true;
        if wire.released == [true; 2] {
            self.wires.remove(&id);
            return;
        }
        if wire.is_dead {
            return;
        }
        wire.is_dead = true;
        wire.toward(by).clear();
        let latency = wire.latency;
        let end = wire.toward(by.other()).latest.max(now + latency);
        wire.gone_at[by.other() as usize].get_or_insert(end);
    }

    pub(super) fn cut(&mut self, id: u64, how: Cut, now: Duration, dice: &mut Dice) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.is_dead = true;
        let keeps_unread = dice.one_in(2);
        for pipe in &mut wire.pipes {
            let half_open = matches!(how, Cut::HalfOpen { .. });
            if half_open {
                for (arrival, _) in &mut pipe.queue {
                    if *arrival > now {
                        *arrival = Duration::MAX;
                    }
                }
            } else {
                pipe.queue
                    .retain(|(arrival, _)| *arrival <= now && keeps_unread);
                pipe.held = pipe.queue.iter().map(|(_, message)| message.cost()).sum();
            }
        }
        let notices = match how {
            Cut::Reset => [now + dice.millis(0, 60), now + dice.millis(0, 60)],
            Cut::Moved => [now + dice.millis(0, 20), now + dice.millis(500, 8000)],
            Cut::HalfOpen { heals: Some(at) } => [at, at],
            Cut::HalfOpen { heals: None } => return,
        };
        for (gone_at, notice) in wire.gone_at.iter_mut().zip(notices) {
            *gone_at = Some(gone_at.map_or(notice, |earlier| earlier.min(notice)));
        }
    }

    /// No new socket of this purpose before `until`.
    pub(super) fn block(&mut self, purpose: Purpose, until: Duration) {
        let blocked = &mut self.unreachable_until[purpose.index()];
        *blocked = (*blocked).max(until);
    }

    /// The server's process is gone, and its kernel closes what it had.
    pub(super) fn kill_server(&mut self, now: Duration, dice: &mut Dice) {
        self.server_is_up = false;
        self.fresh.clear();
        let all: Vec<u64> = self.wires.keys().copied().collect();
        for id in all {
            if dice.one_in(2) {
                self.cut(id, Cut::Reset, now, dice);
            }
            self.release(id, Place::Server, now);
        }
    }

    pub(super) fn wires_of(&self, purpose: Purpose) -> Vec<u64> {
        let of = |(id, wire): (&u64, &Wire)| (wire.purpose == purpose).then_some(*id);
        self.wires.iter().filter_map(of).collect()
    }

    /// When something arrives or is noticed next.
    pub(super) fn next_event(&self, now: Duration) -> Option<Duration> {
        let arrivals = self.wires.values().flat_map(|wire| {
            let fronts = wire
                .pipes
                .iter()
                .filter_map(|pipe| Some(pipe.queue.front()?.0));
            fronts.chain(wire.gone_at.iter().flatten().copied())
        });
        arrivals
            .filter(|at| *at > now && *at != Duration::MAX)
            .min()
    }
}
