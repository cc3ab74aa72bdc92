//! What streams and the task that moves their messages share: the machine, and for each stream what
//! came for it and who waits. Locked for moments only; nothing here waits.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use sortie_channel::{
    frame::PayloadType,
    streams::{Destination, Queue, Refusal, RefusalCode},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    IncomingStream, OpenError, PortStream,
    carrier::{Machine, Told},
};

/// Shared by a session's task and all its streams.
pub(super) struct Shared {
    state: Mutex<State>,
    /// There may be messages to send, or events to look at.
    pub(super) changed: Notify,
    start: Instant,
}

struct State {
    machine: Option<Machine>,
    /// The session is over, or was never one of ports.
    is_over: bool,
    entries: HashMap<u32, Entry>,
    /// For the session's owner.
    news: VecDeque<News>,
}

/// What the owner of the session is told of streams.
#[derive(Debug)]
pub(super) enum News {
    ConnectFailed,
    Incoming(u32, Destination),
}

/// Whether the destination is there.
#[derive(Clone, Debug)]
enum Connection {
    Asked,
    Made,
    Refused(Refusal),
}

/// How the direction from the node goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    Flows,
    /// Behind what has come.
    Ended,
    Broken,
}

struct Entry {
    connection: Connection,
    received: Queue,
    incoming: Incoming,
    /// This end has ended its direction.
    is_finished: bool,
    /// The node takes nothing more.
    is_deaf: bool,
    /// The stream was dropped here and may still deliver what was written.
    is_left: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Waits for the destination.
    asker: Option<Waker>,
    /// Waits for the node to take nothing more.
    watcher: Option<Waker>,
}

impl Entry {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            received: Queue::default(),
            incoming: Incoming::Flows,
            is_finished: false,
            is_deaf: false,
            is_left: false,
            reader: None,
            writer: None,
            asker: None,
            watcher: None,
        }
    }

    fn wake_all(&mut self) {
        let wakers = [
            &mut self.reader,
            &mut self.writer,
            &mut self.asker,
            &mut self.watcher,
        ];
        for waker in wakers {
            wake(waker);
        }
    }

    fn broken(&self) -> io::Error {
        match &self.connection {
            Connection::Refused(refusal) => {
                io::Error::new(io::ErrorKind::ConnectionRefused, refusal.clone())
            }
            _ => io::ErrorKind::ConnectionReset.into(),
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Keeps one waker, which is enough for one reader and one writer.
fn keep(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(context.waker()) => {}
        _ => *slot = Some(context.waker().clone()),
    }
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session is over")
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                machine: None,
                is_over: false,
                entries: HashMap::new(),
                news: VecDeque::new(),
            }),
            changed: Notify::new(),
            start: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    // ---- the streams' side ----

    pub(super) fn open(
        self: &Arc<Self>,
        destination: Destination,
    ) -> Result<PortStream, OpenError> {
        let mut state = self.lock();
        if state.is_over {
            return Err(OpenError::NotOpen);
        }
        let machine = state.machine.as_mut().ok_or(OpenError::NotOpen)?;
        let id = machine.open(destination)?;
        state.entries.insert(id, Entry::new(Connection::Asked));
        // A machine that asks nobody has its answer already.
        state.settle();
        drop(state);
        self.changed.notify_one();
        Ok(PortStream::new(self.clone(), id))
    }

    pub(super) fn accept(&self, id: u32) {
        let mut state = self.lock();
        if let Some(machine) = &mut state.machine {
            machine.accept(id);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn refuse(&self, id: u32, refusal: Refusal) {
        let mut state = self.lock();
        if let Some(machine) = &mut state.machine {
            machine.refuse(id, refusal);
        }
        state.entries.remove(&id);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn poll_connected(
        &self,
        id: u32,
        context: &Context<'_>,
    ) -> Poll<Result<(), Refusal>> {
        let mut state = self.lock();
        let is_over = state.is_over;
        let Some(entry) = state.entries.get_mut(&id) else {
            return Poll::Ready(Err(gone()));
        };
        match &entry.connection {
            Connection::Made => Poll::Ready(Ok(())),
            Connection::Refused(refusal) => Poll::Ready(Err(refusal.clone())),
            Connection::Asked if is_over || entry.incoming == Incoming::Broken => {
                Poll::Ready(Err(gone()))
            }
            Connection::Asked => {
                keep(&mut entry.asker, context);
                Poll::Pending
            }
        }
    }

    /// What is taken of the bytes that came, once there are some; `None` at the end.
    pub(super) fn poll_receive<T>(
        &self,
        id: u32,
        context: &Context<'_>,
        take: impl FnOnce(&mut Queue) -> T,
    ) -> Poll<io::Result<Option<T>>> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(entry) = state.entries.get_mut(&id) else {
            return Poll::Ready(Err(over()));
        };
        if !entry.received.is_empty() {
            let before = entry.received.len();
            let taken = take(&mut entry.received);
            if let Some(machine) = &mut state.machine {
                machine.consumed(id, before - entry.received.len());
            }
            self.changed.notify_one();
            return Poll::Ready(Ok(Some(taken)));
        }
        match entry.incoming {
            Incoming::Ended => Poll::Ready(Ok(None)),
            Incoming::Broken => Poll::Ready(Err(entry.broken())),
            Incoming::Flows if state.is_over => Poll::Ready(Err(over())),
            Incoming::Flows => {
                keep(&mut entry.reader, context);
                Poll::Pending
            }
        }
    }

    /// Waits for room and tells how much there is.
    pub(super) fn poll_room(&self, id: u32, context: &Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(entry) = state.entries.get_mut(&id) else {
            return Poll::Ready(Err(over()));
        };
        if state.is_over {
            return Poll::Ready(Err(over()));
        }
        if entry.incoming == Incoming::Broken {
            return Poll::Ready(Err(entry.broken()));
        }
        if entry.is_finished || entry.is_deaf {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match state.machine.as_mut().map_or(0, |machine| machine.room(id)) {
            0 => {
                keep(&mut entry.writer, context);
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Queues bytes for which there was room.
    pub(super) fn send(&self, id: u32, data: Bytes) {
        let mut state = self.lock();
        if let Some(machine) = &mut state.machine {
            machine.send(id, data);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn finish(&self, id: u32) {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(entry) = state.entries.get_mut(&id)
            && !std::mem::replace(&mut entry.is_finished, true)
            && let Some(machine) = &mut state.machine
        {
            machine.finish(id, now);
            self.changed.notify_one();
        }
    }

    /// Ends a stream in both directions at once.
    pub(super) fn reset(&self, id: u32) {
        let mut state = self.lock();
        if let Some(mut entry) = state.entries.remove(&id) {
            entry.wake_all();
            if let Some(machine) = &mut state.machine {
                machine.reset(id);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Nobody holds the stream any more. What was written before its end still goes.
    pub(super) fn leave(&self, id: u32) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&id) else {
            return;
        };
        let is_read = entry.received.is_empty() && entry.incoming != Incoming::Broken;
        if entry.is_finished && entry.incoming == Incoming::Ended && is_read {
            state.entries.remove(&id);
        } else if entry.is_finished && is_read {
            entry.is_left = true;
        } else {
            drop(state);
            self.reset(id);
        }
    }

    /// Waits until the node takes nothing more.
    pub(super) fn poll_deaf(&self, id: u32, context: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let is_over = state.is_over;
        let Some(entry) = state.entries.get_mut(&id) else {
            return Poll::Ready(());
        };
        if is_over || entry.is_deaf || entry.incoming == Incoming::Broken {
            return Poll::Ready(());
        }
        keep(&mut entry.watcher, context);
        Poll::Pending
    }

    // ---- the task's side ----

    pub(super) fn begin(&self, machine: Machine) {
        self.lock().machine = Some(machine);
    }

    /// Nothing moves any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        for entry in state.entries.values_mut() {
            entry.wake_all();
        }
    }

    /// Takes a message of the session.
    pub(super) fn receive(&self, payload_type: PayloadType, payload: Bytes) -> Result<(), String> {
        let now = self.now();
        let mut state = self.lock();
        if let Some(machine) = &mut state.machine {
            machine.receive(payload_type, payload, now)?;
        }
        state.settle();
        Ok(())
    }

    /// Says what there is to do next. `is_delivered`: the node has acknowledged all messages that were
    /// taken.
    pub(super) fn look(&self, is_delivered: bool) -> Outlook {
        let now = self.now();
        let mut state = self.lock();
        let Some(machine) = &mut state.machine else {
            return Outlook {
                has_message: false,
                takes_more: true,
                due: None,
            };
        };
        if machine.has_message() || !is_delivered {
            machine.still_sending(now);
        }
        let machine = state.machine.as_ref();
        Outlook {
            has_message: machine.is_some_and(Machine::has_message),
            takes_more: machine.is_none_or(Machine::takes_more),
            due: machine
                .and_then(Machine::deadline)
                .map(|due| self.start + due),
        }
    }

    /// Does what is due, once everything that has come was taken.
    pub(super) fn on_time(&self) {
        let now = self.now();
        let mut state = self.lock();
        if let Some(machine) = &mut state.machine
            && machine.deadline().is_some_and(|due| now >= due)
        {
            machine.on_time(now);
            state.settle();
        }
    }

    /// What goes out next, in a message that should hold at most `portion` bytes.
    pub(super) fn next_message(&self, portion: usize) -> Option<(PayloadType, Bytes)> {
        let mut state = self.lock();
        let message = state.machine.as_mut()?.next_message(portion);
        state.settle();
        message
    }

    pub(super) fn next_news(&self) -> Option<News> {
        self.lock().news.pop_front()
    }

    /// The stream of news about one that the node opened.
    pub(super) fn incoming(self: &Arc<Self>, id: u32, destination: Destination) -> IncomingStream {
        IncomingStream {
            stream: Some(PortStream::new(self.clone(), id)),
            shared: self.clone(),
            destination,
        }
    }
}

/// What the task has to do next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) has_message: bool,
    pub(super) takes_more: bool,
    pub(super) due: Option<Instant>,
}

fn gone() -> Refusal {
    Refusal {
        code: RefusalCode::Other,
        message: "the session is over".to_owned(),
    }
}

impl State {
    /// Gives streams what the machine tells.
    fn settle(&mut self) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        while let Some(told) = machine.next_told() {
            match told {
                Told::Open(id, destination) => {
                    self.entries.insert(id, Entry::new(Connection::Made));
                    self.news.push_back(News::Incoming(id, destination));
                }
                Told::ConnectFailed => self.news.push_back(News::ConnectFailed),
                Told::Accepted(id) => change(&mut self.entries, id, |entry| {
                    entry.connection = Connection::Made;
                    wake(&mut entry.asker);
                }),
                Told::Refused(id, refusal) => change(&mut self.entries, id, |entry| {
                    entry.connection = Connection::Refused(refusal);
                    entry.incoming = Incoming::Broken;
                    entry.wake_all();
                }),
                Told::Data(id, data) => match self.entries.get_mut(&id) {
                    Some(entry) if !entry.is_left => {
                        entry.received.push(data);
                        wake(&mut entry.reader);
                    }
                    // Nobody is there to read it.
                    _ => {
                        machine.reset(id);
                        self.entries.remove(&id);
                    }
                },
                Told::Finished(id) => change(&mut self.entries, id, |entry| {
                    entry.incoming = Incoming::Ended;
                    wake(&mut entry.reader);
                }),
                Told::Closed(id) => change(&mut self.entries, id, |entry| {
                    entry.incoming = Incoming::Ended;
                    entry.is_deaf = true;
                    entry.wake_all();
                }),
                Told::Reset(id) => change(&mut self.entries, id, |entry| {
                    entry.incoming = Incoming::Broken;
                    entry.received = Queue::default();
                    entry.wake_all();
                }),
                Told::Writable(id) => {
                    change(&mut self.entries, id, |entry| wake(&mut entry.writer))
                }
            }
        }
    }
}

/// Changes a stream; one that nobody holds is forgotten once nothing more comes.
fn change(entries: &mut HashMap<u32, Entry>, id: u32, with: impl FnOnce(&mut Entry)) {
    if let Some(entry) = entries.get_mut(&id) {
        with(entry);
        if entry.is_left && entry.incoming != Incoming::Flows {
            entries.remove(&id);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("streams", &state.entries.len())
            .field("is_over", &state.is_over)
            .finish_non_exhaustive()
    }
}
