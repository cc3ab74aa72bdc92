//! Where the session's one message stream and its many connections meet.
//!
//! The session gives in what the client sends and takes out what goes to it; each connection has a task
//! that reads and writes its socket. Between them lie the multiplexer's bounded queues, and no other: a
//! socket is read only when its queue has room, and the client hears of what was written only then.

use std::{
    collections::HashMap,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use sortie_channel::{
    frame::PayloadType,
    streams::{Destination, Queue, Refusal, TooManyStreams},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::destination::Connection;

/// What one read of a socket brings at most. Shared by all connections.
const READ_BUFFER: usize = 256 << 10;
/// With less than this left of it a new buffer is taken.
const LEAST_READ: usize = 64 << 10;
/// What one turn of a connection writes at most.
const WRITE: usize = 512 << 10;
/// A read that brought less is copied, so that it does not keep the whole buffer.
const SMALL_READ: usize = 32 << 10;

/// What a multiplexer tells of the other end.
pub(super) enum Happened {
    /// It wants a connection.
    Open(u32, Destination),
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// Nothing more comes on a stream.
    Finished(u32),
    /// A stream is over in both directions, at once.
    Gone(u32),
    /// There is room in the queue of a stream.
    Writable(u32),
    /// There is room in the queue that all streams share.
    AllWritable,
}

/// How streams share the session.
pub(super) trait Multiplexer: Send + 'static {
    /// Whether a direction ends by itself. Otherwise the end of one is the end of the other.
    const HALF_CLOSE: bool;

    /// Takes a message of the client; an error, in words, when nothing can be understood any more.
    fn receive(&mut self, payload_type: PayloadType, payload: Bytes) -> Result<(), String>;
    fn next_happened(&mut self) -> Option<Happened>;
    /// The next message to the client, of about `limit` bytes at most.
    fn next_message(&mut self, limit: usize) -> Option<(PayloadType, Bytes)>;
    fn has_message(&self) -> bool;
    /// How many streams there are, those included that only have something left to send.
    fn count(&self) -> usize;
    /// Whether what the client sends has a place now.
    fn takes_input(&self) -> bool;
    fn open(&mut self) -> Result<u32, TooManyStreams>;
    fn accept(&mut self, id: u32);
    fn refuse(&mut self, id: u32, refusal: Refusal);
    /// Bytes that a stream may queue now.
    fn room(&mut self, id: u32) -> usize;
    fn send(&mut self, id: u32, data: Bytes);
    fn finish(&mut self, id: u32);
    fn reset(&mut self, id: u32);
    fn consumed(&mut self, id: u32, bytes: usize);
    /// Says that this end is alive, where that is asked for.
    fn keep_alive(&mut self) {}
}

/// A stream was ended from the other side.
#[derive(Debug)]
struct Gone;

/// Why a connection was not carried to its ends.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client has ended the stream")]
    Gone,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Gone> for Broken {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// What a connection's task has to know of its stream.
#[derive(Default)]
struct Slot {
    incoming: Queue,
    is_finished: bool,
    is_gone: bool,
    /// Waits for bytes, or that they can be written.
    downward: Option<Waker>,
    /// Waits for room.
    upward: Option<Waker>,
}

impl Slot {
    fn wake_all(&mut self) {
        wake(&mut self.downward);
        wake(&mut self.upward);
    }
}

struct Inner<M> {
    multiplexer: M,
    slots: HashMap<u32, Slot>,
    /// What is left of the buffer that sockets are read into.
    spare: BytesMut,
    /// The session was told that there is no place for input.
    held_input: bool,
}

/// The meeting place. Clones are the same one.
pub(super) struct Hub<M> {
    inner: Arc<Mutex<Inner<M>>>,
    changed: Arc<Notify>,
}

impl<M> Clone for Hub<M> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            changed: Arc::clone(&self.changed),
        }
    }
}

impl<M: Multiplexer> Hub<M> {
    pub(super) fn new(multiplexer: M) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                multiplexer,
                slots: HashMap::new(),
                spare: BytesMut::new(),
                held_input: false,
            })),
            changed: Arc::new(Notify::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for the session

    /// Waits until a connection has done something that concerns the session.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether what the client sends has a place now.
    pub(super) fn takes_input(&self) -> bool {
        let mut inner = self.lock();
        let takes = inner.multiplexer.takes_input();
        inner.held_input = !takes;
        takes
    }

    /// Takes a message of the client. The streams that it asks for with it.
    pub(super) fn receive(
        &self,
        payload_type: PayloadType,
        payload: Bytes,
    ) -> Result<Vec<(u32, Destination)>, String> {
        let mut inner = self.lock();
        inner.multiplexer.receive(payload_type, payload)?;
        Ok(inner.settle())
    }

    /// The next message to the client.
    pub(super) fn next_message(&self, limit: usize) -> Option<(PayloadType, Bytes)> {
        let mut inner = self.lock();
        let message = inner.multiplexer.next_message(limit);
        inner.settle();
        message
    }

    /// Whether no stream is left, nor anything to be said of one.
    pub(super) fn is_done(&self) -> bool {
        let inner = self.lock();
        inner.multiplexer.count() == 0 && !inner.multiplexer.has_message()
    }

    pub(super) fn keep_alive(&self) {
        self.lock().multiplexer.keep_alive();
    }

    /// A stream that this end asks for.
    pub(super) fn open(&self) -> Result<u32, TooManyStreams> {
        let mut inner = self.lock();
        let id = inner.multiplexer.open()?;
        inner.slots.insert(id, Slot::default());
        self.tell(&inner);
        Ok(id)
    }

    // ---- for a connection

    pub(super) fn accept(&self, id: u32) {
        let mut inner = self.lock();
        inner.multiplexer.accept(id);
        self.tell(&inner);
    }

    pub(super) fn refuse(&self, id: u32, refusal: Refusal) {
        let mut inner = self.lock();
        inner.multiplexer.refuse(id, refusal);
        inner.slots.remove(&id);
        self.tell(&inner);
    }

    /// Waits until the client has given up a stream, which is forgotten then: nobody will carry it.
    pub(super) async fn gone(&self, id: u32) {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            match inner.slots.get_mut(&id) {
                Some(slot) if !slot.is_gone => {
                    keep(&mut slot.upward, context);
                    Poll::Pending
                }
                _ => {
                    inner.slots.remove(&id);
                    Poll::Ready(())
                }
            }
        })
        .await;
    }

    /// Carries bytes both ways between a stream and a connection until both directions have ended.
    pub(super) async fn carry(&self, id: u32, mut connection: Connection) {
        let up = self.carry_up(id, &mut connection.reader);
        let down = self.carry_down(id, &mut connection.writer);
        let carried = tokio::try_join!(up, down);
        let mut inner = self.lock();
        inner.slots.remove(&id);
        if let Err(error) = carried {
            tracing::debug!(id, %error, "a connection broke");
            inner.multiplexer.reset(id);
            if M::HALF_CLOSE {
                connection.abort();
            }
        }
        inner.settle();
        self.tell(&inner);
    }

    async fn carry_up(&self, id: u32, reader: &mut (impl AsyncRead + Unpin)) -> Result<(), Broken> {
        loop {
            let read = std::future::poll_fn(|context| self.poll_read(id, reader, context));
            let bytes = read.await?;
            let mut inner = self.lock();
            if bytes.is_empty() {
                // What is not written yet of a stream that the client has ended still is.
                if !M::HALF_CLOSE && inner.slots.get(&id).is_some_and(|slot| slot.is_finished) {
                    return Ok(());
                }
                inner.multiplexer.finish(id);
                if !M::HALF_CLOSE
                    && let Some(slot) = inner.slots.get_mut(&id)
                {
                    slot.is_gone = true;
                    slot.wake_all();
                }
                self.tell(&inner);
                return Ok(());
            }
            inner.multiplexer.send(id, bytes);
            self.tell(&inner);
        }
    }

    /// Reads as soon as the stream has room. No bytes: the end.
    fn poll_read(
        &self,
        id: u32,
        reader: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Broken>> {
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(&id) else {
            return Poll::Ready(Err(Broken::Gone));
        };
        if slot.is_gone {
            return Poll::Ready(Err(Broken::Gone));
        }
        if slot.is_finished && !M::HALF_CLOSE {
            return Poll::Ready(Ok(Bytes::new()));
        }
        keep(&mut slot.upward, context);
        if inner.multiplexer.room(id) == 0 {
            return Poll::Pending;
        }
        if inner.spare.capacity() < LEAST_READ {
            inner.spare = BytesMut::with_capacity(READ_BUFFER);
        }
        let read = pin!(reader.read_buf(&mut inner.spare)).poll(context);
        read.map(|read| {
            let read = read?;
            Ok(if read < SMALL_READ {
                let bytes = Bytes::copy_from_slice(&inner.spare);
                inner.spare.clear();
                bytes
            } else {
                inner.spare.split().freeze()
            })
        })
    }

    async fn carry_down(
        &self,
        id: u32,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Broken> {
        while let Some(mut bytes) =
            std::future::poll_fn(|context| self.poll_bytes(id, context)).await?
        {
            while !bytes.is_empty() {
                let write = std::future::poll_fn(|context| {
                    self.poll_write(id, writer, &mut bytes, context)
                });
                let written = write.await?;
                let mut inner = self.lock();
                inner.multiplexer.consumed(id, written);
                self.tell(&inner);
            }
        }
        match writer.shutdown().await {
            // The other side has closed meanwhile: it cannot be told, and need not be.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The next bytes that came; none after the last.
    fn poll_bytes(&self, id: u32, context: &mut Context<'_>) -> Poll<Result<Option<Queue>, Gone>> {
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(&id).filter(|slot| !slot.is_gone) else {
            return Poll::Ready(Err(Gone));
        };
        if !slot.incoming.is_empty() {
            return Poll::Ready(Ok(Some(slot.incoming.split_to(WRITE))));
        }
        if slot.is_finished {
            return Poll::Ready(Ok(None));
        }
        keep(&mut slot.downward, context);
        Poll::Pending
    }

    fn poll_write(
        &self,
        id: u32,
        writer: &mut (impl AsyncWrite + Unpin),
        bytes: &mut Queue,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, Broken>> {
        {
            let mut inner = self.lock();
            let Some(slot) = inner.slots.get_mut(&id).filter(|slot| !slot.is_gone) else {
                return Poll::Ready(Err(Broken::Gone));
            };
            keep(&mut slot.downward, context);
        }
        let written = pin!(writer.write_buf(bytes)).poll(context);
        written.map(|written| match written? {
            0 => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            written => Ok(written),
        })
    }

    /// Wakes the session when there is something for it.
    fn tell(&self, inner: &Inner<M>) {
        let can_go_on = inner.held_input && inner.multiplexer.takes_input();
        if inner.multiplexer.has_message() || can_go_on {
            self.changed.notify_one();
        }
    }
}

impl<M: Multiplexer> Inner<M> {
    /// Hands what has happened to the connections. What they have no part in is returned.
    fn settle(&mut self) -> Vec<(u32, Destination)> {
        let mut asked = Vec::new();
        while let Some(happened) = self.multiplexer.next_happened() {
            match happened {
                Happened::Open(id, destination) => {
                    self.slots.insert(id, Slot::default());
                    asked.push((id, destination));
                }
                Happened::Data(id, data) => match self.slots.get_mut(&id) {
                    Some(slot) => {
                        slot.incoming.push(data);
                        wake(&mut slot.downward);
                    }
                    None => self.multiplexer.consumed(id, data.len()),
                },
                Happened::Finished(id) => self.change(id, |slot| slot.is_finished = true),
                Happened::Gone(id) => self.change(id, |slot| slot.is_gone = true),
                Happened::Writable(id) => self.change(id, |_| {}),
                Happened::AllWritable => {
                    for slot in self.slots.values_mut() {
                        wake(&mut slot.upward);
                    }
                }
            }
        }
        asked
    }

    fn change(&mut self, id: u32, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(&id) {
            change(slot);
            slot.wake_all();
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn keep(waker: &mut Option<Waker>, context: &Context<'_>) {
    match waker {
        Some(waker) if waker.will_wake(context.waker()) => {}
        waker => *waker = Some(context.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use sortie_channel::streams::Message;

    use super::*;
    use crate::worker::port::streams::OurStreams;

    #[tokio::test]
    async fn nothing_is_left_of_a_stream_that_was_given_up_before_it_was_connected() {
        let hub = Hub::new(OurStreams::new());
        for id in (1..200).step_by(2) {
            for message in [
                Message::Open(id, Destination::default()),
                Message::Reset(id),
            ] {
                let (payload_type, payload) = message.encode();
                hub.receive(payload_type, payload).unwrap();
            }
            hub.gone(id).await;
        }
        assert!(hub.lock().slots.is_empty());
    }
}
