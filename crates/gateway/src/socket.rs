//! Websockets as the doors hand them over: their configuration, the first message, and how to leave.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig},
};

/// What a websocket may run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An upgraded websocket of the server's side.
pub type Socket = WebSocketStream<Box<dyn Io>>;

/// Our own ends send up to 256 KiB in a frame, official ones at most 142,000 bytes.
const LARGEST_MESSAGE: usize = 1024 * 1024 + 4096;
/// Open messages have some hundred bytes; ours with a list of sessions somewhat more.
const LARGEST_OPEN_MESSAGE: usize = 256 * 1024;
const READ_BUFFER: usize = 8 * 1024;
const WRITE_BUFFER: usize = 64 * 1024;
/// How long a peer that was told everything has to hang up.
const LINGER: Duration = Duration::from_secs(2);

/// How the doors must configure websockets. Most sockets idle most of the time, so read buffers are
/// small; write buffers are bounded, and nothing larger than a frame of ours is taken.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
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

/// The first text frame. Pings may come before it: the official client starts its pinger first.
pub(crate) async fn open_message(
    socket: &mut Socket,
    patience: Duration,
) -> Result<Utf8Bytes, OpenFailure> {
    let first = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) if text.len() <= LARGEST_OPEN_MESSAGE => {
                    return Ok(text);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(OpenFailure::HungUp),
                Some(Ok(_)) => return Err(OpenFailure::Unreadable),
            }
        }
    };
    timeout(patience, first)
        .await
        .unwrap_or(Err(OpenFailure::TimedOut))
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
