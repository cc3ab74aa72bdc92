//! Starting and stopping a whole server. Everything that can refuse a start does so before the
//! first request is accepted. A stop goes from the outside in: no new connections, the channels
//! closed with a reason, what is under way finished, marks flushed, the store closed.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sortie_control::{Control, CreateAdministratorError, NewAdministrator, RootKey, Settings};
use sortie_doors::{DoorOptions, Doors, Listener};
use sortie_gateway::{Gateway, Options as GatewayOptions};
use sortie_ports::{LocalSignals, Signals, State, StoreError};
use sortie_store::SqliteState;
use sortie_types::{Secret, Timestamp};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    config::Config,
    descriptors,
    files::{self, DirLock, FileError},
    listener::{self, Serving, Shares},
    root_key::{self, RootKeyError},
    tls::{self, Tls, TlsError},
};

/// The name of the database in the data directory.
const DATABASE: &str = "sortie.db";

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The first administrator could not be made.
    #[error("cannot make the administrator")]
    Administrator(#[from] CreateAdministratorError),
    /// A port could not be taken.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The installation's constants could not be read or made.
    #[error("cannot open the installation")]
    Control(#[source] sortie_control::OpenError),
    /// The data directory cannot be used.
    #[error("cannot use the data directory")]
    File(#[from] FileError),
    /// Plain HTTP is for loopback alone.
    #[error("plain HTTP is served on loopback only, not on {0}")]
    PlainHttp(SocketAddr),
    /// There is no root key.
    #[error("cannot use the root key")]
    RootKey(#[from] RootKeyError),
    /// The database cannot be read.
    #[error("cannot read the database")]
    State(#[source] StoreError),
    /// The database cannot be opened.
    #[error("cannot open the database")]
    Store(#[source] sortie_store::OpenError),
    /// There is no TLS.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

/// The user made at the first start, with its only access key.
#[derive(Clone, Debug)]
pub struct Administrator {
    /// The user's name.
    pub user_name: String,
    /// The key's id.
    pub access_key_id: String,
    /// The key's secret. Shown once: the server keeps it sealed.
    pub secret_access_key: Secret,
}

/// The administrator's file, as JSON.
#[derive(Serialize, Deserialize)]
struct AdministratorFile {
    user_name: String,
    access_key_id: String,
    secret_access_key: String,
}

impl Administrator {
    fn of(made: &NewAdministrator) -> Self {
        Self {
            user_name: made.user.name.to_string(),
            access_key_id: made.access_key_id.to_string(),
            secret_access_key: made.secret.clone(),
        }
    }

    fn write(&self, path: &Path) -> Result<(), FileError> {
        let content = AdministratorFile {
            user_name: self.user_name.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.expose().to_owned(),
        };
        let text = serde_json::to_vec_pretty(&content).unwrap_or_default();
        files::write_private(path, &text)
    }

    /// Reads an administrator file, `None` when it does not exist or is something else.
    ///
    /// # Errors
    /// The file cannot be read, or others than the owner may read it.
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        let bytes = files::read_private(path)?;
        let content: Option<AdministratorFile> =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(content.map(|content| Self {
            user_name: content.user_name,
            access_key_id: content.access_key_id,
            secret_access_key: content.secret_access_key.into(),
        }))
    }
}

/// A running server. Dropping it stops it without waiting; [`Running::stop`] drains.
pub struct Running {
    /// Where plain HTTP is served.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// The own authority's certificate, when it is in use.
    pub ca_file: Option<PathBuf>,
    /// The user made by this start, if it made one and no file was given for it.
    pub administrator: Option<Administrator>,
    /// The use-cases.
    pub control: Control,
    /// The store.
    pub state: Arc<dyn State>,
    drain: Drain,
}

/// What a stop needs, in the order of stopping.
struct Drain {
    timeout: Duration,
    accepting: DropGuard,
    accept_loops: TaskTracker,
    connections: TaskTracker,
    abandon: DropGuard,
    doors: Doors,
    gateway_stop: DropGuard,
    gateway: AbortOnDropHandle<()>,
    flusher_stop: DropGuard,
    flusher: AbortOnDropHandle<()>,
    _lock: DirLock,
}

/// Starts a server and returns when it accepts requests.
///
/// # Errors
/// Whatever makes the configuration unusable on this machine. Nothing listens then.
pub async fn start(config: Config) -> Result<Running, StartError> {
    tls::install_crypto_provider();
    if let Some(address) = config
        .listen_http
        .filter(|address| !address.ip().is_loopback())
    {
        return Err(StartError::PlainHttp(address));
    }
    files::private_dir(&config.data_dir)?;
    let lock = DirLock::take(&config.data_dir)?;
    let database = config.data_dir.join(DATABASE);
    let key = root_key::load(&config.root_key, !database.exists())?;
    let tls = tls::load(&config.tls, &config.data_dir.join("tls"), SystemTime::now())?;
    let https = bind(config.listen_tls)?;
    let http = config.listen_http.map(bind).transpose()?;
    let state = SqliteState::open(&database)
        .await
        .map_err(StartError::Store)?;
    let state: Arc<dyn State> = Arc::new(state);
    let signals: Arc<dyn Signals> = Arc::new(LocalSignals::default());
    let control = Control::open(
        Arc::clone(&state),
        Arc::clone(&signals),
        RootKey::from_bytes(*key),
        control_settings(&config),
        now(),
    )
    .await
    .map_err(StartError::Control)?;
    let administrator = administrator(&control, &config).await?;
    let wired = Wired {
        config: &config,
        control: control.clone(),
        signals,
        tls,
        lock,
    };
    Ok(wired.run(https, http, administrator, state))
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = || {
        let listener = listener::bind(address)?;
        let actual = listener.local_addr()?;
        Ok((listener, actual))
    };
    bound().map_err(|source| StartError::Bind { address, source })
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn control_settings(config: &Config) -> Settings {
    Settings {
        default_idle: config.idle_timeout,
        max_duration: config.max_duration,
        retention: config.retention,
        data_events: config.data_events,
        end_disallowed_sessions: config.end_disallowed_sessions,
        credential_lifetime: config.credential_lifetime,
        ..Settings::new(config.region.clone())
    }
}

/// Makes the administrator if there is none of that name. With a file for it the key goes there, and
/// does so first: a key that could not be written afterwards would be lost.
async fn administrator(
    control: &Control,
    config: &Config,
) -> Result<Option<Administrator>, StartError> {
    let path = config.administrator_file.as_deref();
    let keep = |made: &NewAdministrator| match path {
        Some(path) => Ok(Administrator::of(made).write(path)?),
        None => Ok::<(), StartError>(()),
    };
    let made = control
        .create_administrator_keeping(&config.administrator_name, now(), keep)
        .await?;
    Ok(made
        .as_ref()
        .map(Administrator::of)
        .filter(|_| path.is_none()))
}

/// What is ready before anything is accepted.
struct Wired<'a> {
    config: &'a Config,
    control: Control,
    signals: Arc<dyn Signals>,
    tls: Tls,
    lock: DirLock,
}

impl Wired<'_> {
    fn run(
        self,
        (https, https_address): (TcpListener, SocketAddr),
        http: Option<(TcpListener, SocketAddr)>,
        administrator: Option<Administrator>,
        state: Arc<dyn State>,
    ) -> Running {
        let control = self.control;
        let (gateway, gateway_task) =
            Gateway::new(control.clone(), self.signals, gateway_options(self.config));
        let doors = Doors::new(control.clone(), gateway, door_options(self.config));
        let flusher_stop = CancellationToken::new();
        let flusher = {
            let (control, stop) = (control.clone(), flusher_stop.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::join!(control.run(stop.clone()), prune(&control, &stop));
            }))
        };
        let gateway_stop = CancellationToken::new();
        let gateway_run = tokio::spawn(gateway_task.run(gateway_stop.clone()));
        let gateway_run = AbortOnDropHandle::new(gateway_run);
        let accepting = CancellationToken::new();
        let abandon = CancellationToken::new();
        let accept_loops = TaskTracker::new();
        let connections = TaskTracker::new();
        let connections_at_once = descriptors::connections(self.config.limits.connections);
        let permits = Arc::new(Semaphore::new(connections_at_once));
        let shares = Shares::of(connections_at_once);
        let serving = |tls: Option<TlsAcceptor>| Serving {
            router: doors.router(Listener { tls: tls.is_some() }),
            tls,
            limits: self.config.limits,
            permits: Arc::clone(&permits),
            shares: Arc::clone(&shares),
            tasks: connections.clone(),
            stop: accepting.clone(),
            abandon: abandon.clone(),
        };
        accept_loops.spawn(serving(Some(TlsAcceptor::from(self.tls.config))).accept(https));
        let http_address = http.map(|(listener, address)| {
            accept_loops.spawn(serving(None).accept(listener));
            address
        });
        Running {
            http: http_address,
            https: https_address,
            ca_file: self.tls.ca_file,
            administrator,
            control,
            state,
            drain: Drain {
                timeout: self.config.limits.drain,
                accepting: accepting.clone().drop_guard(),
                accept_loops,
                connections,
                abandon: abandon.drop_guard(),
                doors: doors.clone(),
                gateway_stop: gateway_stop.drop_guard(),
                gateway: gateway_run,
                flusher_stop: flusher_stop.drop_guard(),
                flusher,
                _lock: self.lock,
            },
        }
    }
}

/// Removes what is older than the retention, a little every minute.
async fn prune(control: &Control, stop: &CancellationToken) {
    const PAUSE: Duration = Duration::from_mins(1);
    while stop
        .run_until_cancelled(tokio::time::sleep(PAUSE))
        .await
        .is_some()
    {
        if let Err(error) = control.prune(now()).await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "what is past its retention is not removed");
        }
    }
}

fn gateway_options(config: &Config) -> GatewayOptions {
    GatewayOptions {
        drain: config.limits.drain,
        end_sessions_on_stop: config.end_sessions_on_stop,
        // What is held there has no name.
        spool_directory: Some(config.data_dir.clone()),
        ..GatewayOptions::default()
    }
}

fn door_options(config: &Config) -> DoorOptions {
    DoorOptions {
        public_url: config.public_url.clone(),
        body_limit: config.limits.body_bytes,
        domain: config.service_domain.clone(),
        accepted_regions: config.accepted_regions.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
    }
}

impl Running {
    /// Stops: accepts no more, closes the channels, finishes what is under way (within the
    /// configured time), and closes the store.
    pub async fn stop(self) {
        let Drain {
            timeout: limit,
            accepting,
            accept_loops,
            connections,
            abandon,
            doors,
            gateway_stop,
            gateway,
            flusher_stop,
            flusher,
            _lock,
        } = self.drain;
        drop(accepting);
        accept_loops.close();
        accept_loops.wait().await;
        doors.stop();
        drop(gateway_stop);
        bounded(limit, "the gateway", gateway).await;
        connections.close();
        bounded(limit, "connections", connections.wait()).await;
        drop(abandon);
        connections.wait().await;
        bounded(limit, "channels", doors.drained()).await;
        // Last before the store: it writes the marks that the channels left.
        drop(flusher_stop);
        bounded(limit, "the flusher", flusher).await;
        self.state.close().await;
    }
}

async fn bounded<F: Future>(limit: Duration, what: &str, ended: F) {
    if timeout(limit, ended).await.is_err() {
        tracing::warn!(what, ?limit, "did not end in time");
    }
}
