//! Websockets as the doors hand them over: their configuration, the first message, and how to leave.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        protocol::{Role, WebSocketConfig},
    },
};

/// What a websocket may run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An upgraded websocket of the server's side.
pub type Socket = WebSocketStream<Metered>;

/// What a websocket runs over, which takes a few bytes only until its channel is open: anybody may
/// upgrade a connection, and what a websocket collects of one message counts for every one of them.
pub struct Metered {
    io: Box<dyn Io>,
    /// Bytes that may still be read; `None` once the channel is open.
    left: Option<usize>,
}

impl std::fmt::Debug for Metered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metered")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == Some(0) {
            return Poll::Ready(Err(io::Error::other("too much before the channel is open")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        self.left = self.left.map(|left| left.saturating_sub(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Our own ends send up to 256 KiB in a frame, official ones at most 142,000 bytes.
const LARGEST_MESSAGE: usize = 1024 * 1024 + 4096;
/// Open messages of data channels have some hundred bytes, and come from anybody.
pub(crate) const LARGEST_DATA_OPEN: usize = 16 * 1024;
/// Control channels are opened by nodes that signed; ours list their sessions.
pub(crate) const LARGEST_CONTROL_OPEN: usize = 256 * 1024;
/// A record of TLS: with less, each would be taken in two pieces.
pub(crate) const READ_BUFFER: usize = 16 * 1024;
/// There are as many control channels as nodes, and hardly anything is said on them.
pub(crate) const CONTROL_READ_BUFFER: usize = 1024;
const WRITE_BUFFER: usize = 64 * 1024;
/// How long a peer that was told everything has to hang up.
const LINGER: Duration = Duration::from_secs(2);

/// The server's side of an upgraded connection, with a read buffer of this many bytes.
pub(crate) async fn websocket(io: Box<dyn Io>, read_buffer: usize) -> Socket {
    let metered = Metered {
        io,
        left: Some(LARGEST_DATA_OPEN + READ_BUFFER),
    };
    WebSocketStream::from_raw_socket(metered, Role::Server, Some(websocket_config(read_buffer)))
        .await
}

/// Most sockets idle most of the time, so read buffers are
/// small; write buffers are bounded, and nothing larger than a frame of ours is taken.
fn websocket_config(read_buffer: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 4 * LARGEST_MESSAGE)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE))
}

/// Why a channel was given up before it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error("the peer hung up before its open message")]
    HungUp,
    #[error("the open message did not come in time")]
    TimedOut,
    #[error("the first message is no open message")]
    Unreadable,
}

/// The first text frame, of at most `largest` bytes. Pings may come before it: the official client
/// starts its pinger first.
pub(crate) async fn open_message(
    socket: &mut Socket,
    largest: usize,
    patience: Duration,
) -> Result<Utf8Bytes, OpenFailure> {
    socket.get_mut().left = Some(largest + READ_BUFFER);
    let first = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) if text.len() <= largest => {
                    return Ok(text);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(OpenFailure::HungUp),
                Some(Ok(_)) => return Err(OpenFailure::Unreadable),
            }
        }
    };
    let opened = timeout(patience, first)
        .await
        .unwrap_or(Err(OpenFailure::TimedOut));
    match opened {
        Ok(text) => {
            socket.get_mut().left = None;
            Ok(text)
        }
        Err(OpenFailure::HungUp) if socket.get_ref().left == Some(0) => {
            Err(OpenFailure::Unreadable)
        }
        failure => failure,
    }
}

/// Says a last word, if any, and hangs up. Waits a little for the peer to hang up first: closing a
/// socket with unread bytes in it resets the connection, and the last word may be lost with it.
pub(crate) async fn farewell(mut socket: Socket, last_word: Option<Bytes>) {
    let leave = async {
        if let Some(bytes) = last_word
            && socket.send(Message::Binary(bytes)).await.is_err()
        {
            return;
        }
        // An error says that the peer is gone, which is what is wanted.
        let _ = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    // The socket is dropped either way.
    let _ = timeout(LINGER, leave).await;
}
