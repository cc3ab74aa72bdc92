//! One stream of a port session, whole or in two halves. What moves its bytes is the session's task.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use sortie_channel::streams::{Queue, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::Shared;

/// A stream. `shutdown` ends the direction to the node; dropped without it, or with bytes unread, the
/// stream is reset and what was not delivered is lost.
#[derive(Debug)]
pub struct PortStream {
    stream: Arc<Stream>,
}

/// The direction from the node.
#[derive(Debug)]
pub struct PortReader {
    stream: Arc<Stream>,
}

/// The direction to the node.
#[derive(Debug)]
pub struct PortWriter {
    stream: Arc<Stream>,
}

/// Left when its last holder is gone.
#[derive(Debug)]
struct Stream {
    shared: Arc<Shared>,
    id: u32,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}

impl PortStream {
    pub(super) fn new(shared: Arc<Shared>, id: u32) -> Self {
        Self {
            stream: Arc::new(Stream { shared, id }),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.stream.id
    }

    /// Waits until the destination is connected. Towards official agents nobody tells, and this
    /// returns at once.
    ///
    /// # Errors
    /// The refusal, when it is not.
    pub async fn connected(&self) -> Result<(), Refusal> {
        let Stream { shared, id } = &*self.stream;
        poll_fn(|context| shared.poll_connected(*id, context)).await
    }

    /// The two directions.
    #[must_use]
    pub fn into_split(self) -> (PortReader, PortWriter) {
        let reader = PortReader {
            stream: self.stream.clone(),
        };
        let writer = PortWriter {
            stream: self.stream,
        };
        (reader, writer)
    }
}

impl PortReader {
    /// The next piece as it came, without copying it; `None` at the end of the direction.
    ///
    /// # Errors
    /// When the stream was refused (the error's inner one is the [`Refusal`]) or broke, or the session
    /// is over.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let Stream { shared, id } = &*self.stream;
        let piece = |received: &mut Queue| received.pop().unwrap_or_default();
        poll_fn(|context| shared.poll_receive(*id, context, piece)).await
    }

    /// What has come, at most `limit` bytes, without copying it; `None` at the end of the direction.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub async fn pieces(&mut self, limit: usize) -> io::Result<Option<Queue>> {
        let Stream { shared, id } = &*self.stream;
        let pieces = |received: &mut Queue| received.split_to(limit);
        poll_fn(|context| shared.poll_receive(*id, context, pieces)).await
    }
}

impl PortWriter {
    /// Queues a piece without copying it, waiting while the stream's queue is full.
    ///
    /// # Errors
    /// When the stream was refused (the error's inner one is the [`Refusal`]) or takes nothing more, or
    /// the session is over.
    pub async fn send(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let room = self.room().await?;
            let piece = data.split_to(data.len().min(room));
            self.stream.shared.send(self.stream.id, piece);
        }
        Ok(())
    }

    /// Waits until the stream's queue has room, and says for how many bytes.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn room(&mut self) -> io::Result<usize> {
        let Stream { shared, id } = &*self.stream;
        poll_fn(|context| shared.poll_room(*id, context)).await
    }

    /// Ends this direction behind what was sent.
    pub fn finish(&mut self) {
        self.stream.shared.finish(self.stream.id);
    }

    /// Ends the stream in both directions at once.
    pub fn reset(&mut self) {
        self.stream.shared.reset(self.stream.id);
    }

    /// Waits until the node takes nothing more, so that what else would be sent is for nobody.
    pub async fn closed(&self) {
        let Stream { shared, id } = &*self.stream;
        poll_fn(|context| shared.poll_deaf(*id, context)).await;
    }
}

fn poll_read(
    stream: &Stream,
    context: &Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if buffer.remaining() == 0 {
        return Poll::Ready(Ok(()));
    }
    let limit = buffer.remaining();
    let pieces = |received: &mut Queue| received.split_to(limit);
    let received = stream.shared.poll_receive(stream.id, context, pieces);
    if let Some(mut pieces) = ready!(received)? {
        while let Some(piece) = pieces.pop() {
            buffer.put_slice(&piece);
        }
    }
    Poll::Ready(Ok(()))
}

fn poll_write(stream: &Stream, context: &Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        return Poll::Ready(Ok(0));
    }
    let room = ready!(stream.shared.poll_room(stream.id, context))?;
    let piece = buffer.get(..buffer.len().min(room)).unwrap_or_default();
    stream.shared.send(stream.id, Bytes::copy_from_slice(piece));
    Poll::Ready(Ok(piece.len()))
}

macro_rules! reads {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                poll_read(&self.stream, context, buffer)
            }
        }
    };
}

macro_rules! writes {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &[u8],
            ) -> Poll<io::Result<usize>> {
                poll_write(&self.stream, context, buffer)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.stream.shared.finish(self.stream.id);
                Poll::Ready(Ok(()))
            }
        }
    };
}

reads!(PortStream);
reads!(PortReader);
writes!(PortStream);
writes!(PortWriter);
