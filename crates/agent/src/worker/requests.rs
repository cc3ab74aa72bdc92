//! What the agent may ask of a worker: one JSON line each way over the socket in the session's
//! directory. It outlives the agent that started the worker.

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{data_dir::SessionDir, os};

const LINE_LIMIT: u64 = 16 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// End the session.
    Cancel {
        /// Why, for the worker's log.
        reason: String,
    },
    /// Say how the session stands.
    Status,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Whether the server is within reach of the worker.
    pub(crate) connected: bool,
    /// Whether the shell runs.
    pub(crate) running: bool,
}

/// A request and where its answer goes.
pub(crate) type Asked = (Request, oneshot::Sender<Status>);

/// Asks the worker of `session`.
pub(crate) async fn ask(session: &SessionDir, request: &Request) -> io::Result<Status> {
    ask_at(session.path(), request).await
}

async fn ask_at(directory: &Path, request: &Request) -> io::Result<Status> {
    let exchange = async {
        let mut stream = os::connect_private(directory, SessionDir::CONTROL).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        read_line(&mut stream).await
    };
    timeout(ANSWER_TIMEOUT, exchange)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

async fn read_line<T: serde::de::DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_LIMIT))
        .read_until(b'\n', &mut line)
        .await?;
    Ok(serde_json::from_slice(&line)?)
}

/// Answers requests that come in at `listener`, one after the other, from `trusted_uid` and root alone.
pub(crate) async fn serve(
    listener: os::PrivateListener,
    trusted_uid: u32,
    asked: mpsc::Sender<Asked>,
) -> io::Result<()> {
    let listener = os::serve_private(listener)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        if !os::is_trusted_peer(&stream, trusted_uid) {
            continue;
        }
        // One that asks nothing must not keep the next from being heard.
        match timeout(ANSWER_TIMEOUT, answer(&mut stream, &asked)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a request of the agent failed"),
            Err(_) => tracing::debug!("a request of the agent took too long"),
        }
    }
}

async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    asked: &mpsc::Sender<Asked>,
) -> io::Result<()> {
    let request: Request = read_line(stream).await?;
    let (reply, answered) = oneshot::channel();
    asked
        .send((request, reply))
        .await
        .map_err(|_| io::ErrorKind::BrokenPipe)?;
    let status = answered.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    let mut line = serde_json::to_vec(&status)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
