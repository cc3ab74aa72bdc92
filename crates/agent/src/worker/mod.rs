//! One session as a process of its own: the agent's executable, started again as `session-worker`.
//!
//! The worker is told everything on its standard input, once: nothing is in its arguments or
//! environment, and what it is told is good for this session alone. It notes its process in the
//! session's directory, opens its socket and result file there, and then gives up every right but
//! those of the account that the session runs as, before it talks to anybody. From then on it needs
//! nothing of the agent, which may end, be updated and come back.
//!
//! It is not dumpable, so the shell, which runs as the same account, can read neither its memory nor
//! its environment nor its descriptors. Where the agent itself runs as that account (development), the
//! same holds for the agent's memory, but the account can of course read the agent's files.

mod channel;
mod command;
mod leaving;
mod outside;
mod port;
mod program;
mod requests;
mod session;
mod terminal;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sortie_types::{NodeId, Secret, SessionId};
use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};
use zeroize::Zeroizing;

use self::{
    channel::{ChannelOptions, DataChannel},
    session::SessionOptions,
};
pub(crate) use self::{
    port::{PortPlan, PortRefusal},
    requests::{Request, ask},
};
use crate::{
    data_dir::SessionDir,
    document::Work,
    endpoint::EndpointError,
    log::chain,
    os::{self, Account, ProcessId},
    socket::Dialer,
    task_result::TaskResult,
    trust::{self, TrustError},
};

/// The hidden subcommand.
pub(crate) const SUBCOMMAND: &str = "session-worker";
/// A start message carries a token, a few names and a CA file.
const MESSAGE_LIMIT: u64 = 1024 * 1024;
/// Requests of the agent that wait for the session.
const REQUESTS: usize = 4;

/// All that a worker is told.
#[derive(Serialize, Deserialize)]
pub(crate) struct StartMessage {
    pub(crate) session_id: SessionId,
    pub(crate) node_id: NodeId,
    /// The server's origin.
    pub(crate) endpoint: String,
    /// The authority given at registration.
    pub(crate) ca_pem: Option<String>,
    /// Opens this session's data channel, and nothing else.
    #[serde(with = "secret_text")]
    pub(crate) token: Secret,
    /// The session's directory.
    pub(crate) directory: PathBuf,
    /// Who the session runs as.
    pub(crate) account: Account,
    /// What is run.
    pub(crate) work: Work,
    /// How long the server may be out of reach.
    pub(crate) idle_limit: Duration,
}

/// Writes and reads a secret where the start message carries one.
mod secret_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use sortie_types::Secret;

    pub(super) fn serialize<S: Serializer>(
        secret: &Secret,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::from)
    }
}

/// Why a worker could not run its session.
#[derive(Debug, Error)]
enum WorkerError {
    #[error("the start message cannot be understood")]
    Message(#[source] serde_json::Error),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot take on the session's account")]
    Account(#[source] io::Error),
    #[error("the system refused what the session's process needs")]
    Io(#[from] io::Error),
}

/// Whether the arguments of this process, its own name first, are those of a worker. Programs that run
/// the agent within themselves ask this first and then call [`main`].
pub fn is_worker(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments.into_iter().nth(1).as_deref() == Some(OsStr::new(SUBCOMMAND))
}

/// The worker's whole life. To be called before anything else, threads above all.
pub fn main() -> ExitCode {
    crate::log::to_standard_error();
    match prepare().and_then(Prepared::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "the session's process failed");
            ExitCode::FAILURE
        }
    }
}

/// What was opened before the rights were given up.
struct Prepared {
    message: StartMessage,
    dialer: Dialer,
    listener: os::PrivateListener,
    result: File,
    agent_uid: u32,
}

fn prepare() -> Result<Prepared, WorkerError> {
    os::hide_process()?;
    let text = Zeroizing::new(os::read_standard_input(MESSAGE_LIMIT)?);
    os::detach()?;
    let message: StartMessage = serde_json::from_slice(&text).map_err(WorkerError::Message)?;
    let directory = SessionDir::new(&message.directory);
    let mut result = os::create_private_file(&directory.result())?;
    let prepared = open(&message, &directory);
    if let Err(error) = &prepared {
        TaskResult::failed(chain(error), crate::clock::wall()).write_to(&mut result)?;
    }
    let (dialer, listener) = prepared?;
    Ok(Prepared {
        message,
        dialer,
        listener,
        result,
        agent_uid: os::own_uid(),
    })
}

fn open(
    message: &StartMessage,
    directory: &SessionDir,
) -> Result<(Dialer, os::PrivateListener), WorkerError> {
    let tls = trust::client_config(message.ca_pem.as_deref())?;
    let dialer = Dialer::new(message.endpoint.parse()?, tls);
    let listener = os::bind_private(directory.path(), SessionDir::CONTROL)?;
    // Last: an agent that finds this file may use the socket.
    record_process(directory, &os::this_process()?)?;
    Ok((dialer, listener))
}

fn record_process(directory: &SessionDir, process: &ProcessId) -> io::Result<()> {
    os::write_private(&directory.worker(), &serde_json::to_vec(process)?)
}

impl Prepared {
    fn run(mut self) -> Result<(), WorkerError> {
        let ended = self.conduct();
        let result =
            ended.unwrap_or_else(|error| TaskResult::failed(chain(&error), crate::clock::wall()));
        result.write_to(&mut self.result)?;
        Ok(())
    }

    fn conduct(&mut self) -> Result<TaskResult, WorkerError> {
        let message = &self.message;
        if message.account.uid != os::own_uid() {
            os::become_account(&message.account).map_err(WorkerError::Account)?;
            // Changing identity also resets whether the process may be dumped.
            os::hide_process()?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = self.listener.try_clone()?;
        Ok(runtime.block_on(work(message, self.dialer.clone(), listener, self.agent_uid)))
    }
}

async fn work(
    message: &StartMessage,
    dialer: Dialer,
    listener: os::PrivateListener,
    agent_uid: u32,
) -> TaskResult {
    let (asking, asked) = mpsc::channel(REQUESTS);
    let mut served = tokio::task::JoinSet::new();
    served.spawn(requests::serve(listener, agent_uid, asking));
    let channel = DataChannel::new(
        ChannelOptions {
            session_id: message.session_id.clone(),
            node_id: message.node_id.clone(),
            token: message.token.clone(),
            idle_limit: message.idle_limit,
        },
        dialer,
    );
    let options = SessionOptions {
        account: message.account.clone(),
        work: message.work.clone(),
        idle_limit: message.idle_limit,
    };
    let result = session::run(options, channel, asked).await;
    served.shutdown().await;
    result
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
