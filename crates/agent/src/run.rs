//! The agent's life: puts the parts together and takes them down again.

use std::{io, path::PathBuf, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, CallError},
    control::ControlChannel,
    data_dir::DataDir,
    identity::Identity,
    os,
    registration::{self, Registration, RegistrationError},
    report::Reporter,
    sessions::{Sessions, SessionsOptions},
    socket::Dialer,
    trust::{self, TrustError},
};

/// How old a node's key gets where nothing else is said.
const KEY_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// How the agent runs.
#[derive(Debug)]
pub struct RunOptions {
    /// The agent's directory, where `register` has been.
    pub data_dir: PathBuf,
    /// Ends the agent. Its sessions live on, unless `end_sessions`.
    pub stop: CancellationToken,
    /// What is started for each session, with `session-worker` as its first argument: a program whose
    /// `main` begins with [`crate::worker::is_worker`]. Default: this process's own executable.
    pub worker_program: Option<PathBuf>,
    /// Sessions run as the account that runs the agent, also when that is root. For development.
    pub run_as_self: bool,
    /// Sessions end with the agent. For development.
    pub end_sessions: bool,
    /// How old the node's key may get before it is rotated; `None`: only when the server asks for it.
    pub rotate_key_after: Option<Duration>,
    /// What session workers log, as `tracing` directives; `None`: as `SORTIE_LOG` says.
    pub worker_log: Option<String>,
}

impl RunOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, stop: CancellationToken) -> Self {
        Self {
            data_dir: data_dir.into(),
            stop,
            worker_program: None,
            run_as_self: false,
            end_sessions: false,
            rotate_key_after: Some(KEY_LIFE),
            worker_log: None,
        }
    }
}

/// Why the agent could not run. What can get better by waiting is waited for instead.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No usable registration.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// Nobody to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No client for the API could be made.
    #[error("cannot prepare calls to the server")]
    Api(#[from] CallError),
    /// Another agent runs with this directory.
    #[error("another agent runs with the directory {0}")]
    Locked(PathBuf),
    /// The system refused something.
    #[error("cannot run the agent")]
    Io(#[from] io::Error),
    /// A part of the agent ended, which is a fault in it.
    #[error("a part of the agent failed")]
    Part(#[from] tokio::task::JoinError),
}

/// Runs the agent until [`RunOptions::stop`].
///
/// Makes this whole process undumpable, so that sessions of the same account cannot read its memory.
///
/// # Errors
/// See [`RunError`].
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    os::hide_process()?;
    let data_dir = DataDir::new(&options.data_dir);
    let registration = Registration::load(&data_dir)?;
    data_dir.create()?;
    let _lock = lock(&data_dir)?;
    let endpoint = registration.endpoint().map_err(RegistrationError::from)?;
    let ca_pem = registration::load_ca(&data_dir)?;
    let tls = trust::client_config(ca_pem.as_deref())?;
    let key = registration::load_key(&data_dir)?;
    let api = Api::new(endpoint.clone(), registration.region.clone(), &tls)?;
    let node_id = registration.node_id.clone();
    tracing::info!(%node_id, %endpoint, "the agent starts");

    // Not a child of the caller's: sessions that end with the agent are still watched while they do.
    let stop = CancellationToken::new();
    let sessions = sessions(&options, &data_dir, &registration, ca_pem, stop.clone())?;
    let (identity, credentials) = Identity::new(
        api.clone(),
        data_dir,
        registration,
        key,
        options.rotate_key_after,
    );
    let reporter = Reporter {
        api: api.clone(),
        endpoint: endpoint.clone(),
        node_id: node_id.clone(),
        credentials: credentials.clone(),
    };
    let control = ControlChannel {
        api,
        dialer: Dialer::new(endpoint, tls),
        node_id,
        credentials,
        sessions: sessions.clone(),
    };
    let mut parts = JoinSet::new();
    // The control channel stays until the sessions are over: it brings their results.
    let last = CancellationToken::new();
    parts.spawn(identity.keep(last.clone()));
    parts.spawn(control.run(last.clone()));
    parts.spawn(reporter.run(last.clone()));
    let ended = until_stopped(&options, &mut parts, &sessions).await;
    last.cancel();
    stop.cancel();
    while let Some(part) = parts.join_next().await {
        part?;
    }
    sessions.closed().await;
    ended
}

async fn until_stopped(
    options: &RunOptions,
    parts: &mut JoinSet<()>,
    sessions: &Sessions,
) -> Result<(), RunError> {
    tokio::select! {
        () = options.stop.cancelled() => {}
        Some(part) = parts.join_next() => part?,
    }
    if options.end_sessions {
        sessions.end_all().await;
    }
    Ok(())
}

fn lock(data_dir: &DataDir) -> Result<std::fs::File, RunError> {
    os::lock_private(&data_dir.path().join("lock")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => RunError::Locked(data_dir.path().to_owned()),
        _ => RunError::Io(error),
    })
}

fn sessions(
    options: &RunOptions,
    data_dir: &DataDir,
    registration: &Registration,
    ca_pem: Option<String>,
    stop: CancellationToken,
) -> io::Result<Sessions> {
    let worker_program = match &options.worker_program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?,
    };
    let sessions = Sessions::new(
        SessionsOptions {
            data_dir: DataDir::new(std::path::absolute(data_dir.path())?),
            node_id: registration.node_id.clone(),
            endpoint: registration.endpoint.clone(),
            ca_pem,
            worker_program,
            run_as_self: options.run_as_self,
            sudo: registration.sudo,
            worker_log: options.worker_log.clone(),
        },
        stop,
    );
    sessions.adopt()?;
    Ok(sessions)
}
