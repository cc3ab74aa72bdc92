//! The sessions of this node: starts their workers, takes over those of an earlier agent, and keeps
//! each result until the server has acknowledged it. What happens inside a session is the worker's.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sortie_channel::body::StartContent;
use sortie_types::{NodeId, SessionId, Timestamp};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    clock,
    data_dir::{DataDir, SessionDir, read_if_present},
    document::{self, UserChoice},
    os::{self, Account, ProcessId},
    task_result::TaskResult,
    worker::{self, Request, StartMessage},
};

/// Sessions at a time, as many as an official node takes.
const SESSION_LIMIT: usize = 1000;
/// A result that nobody wanted for so long is thrown away.
const RESULT_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// How long sessions may take to end when the agent takes them along.
const END_GRACE: Duration = Duration::from_secs(5);
/// How long the server may take to acknowledge their results then.
const REPORT_GRACE: Duration = Duration::from_secs(1);
/// Whom elevated commands run as.
const ROOT: &str = "root";
/// What a worker gets of the agent's environment. It hands none of it to the shell.
const PASSED_ON: [&str; 3] = ["SSL_CERT_FILE", "SSL_CERT_DIR", crate::log::FILTER_VARIABLE];

/// What sessions are run with.
pub(crate) struct SessionsOptions {
    pub(crate) data_dir: DataDir,
    pub(crate) node_id: NodeId,
    pub(crate) endpoint: String,
    pub(crate) ca_pem: Option<String>,
    pub(crate) worker_program: PathBuf,
    /// Sessions run as the account that runs the agent, also when that is root.
    pub(crate) run_as_self: bool,
    /// `ssm-user` may use sudo.
    pub(crate) sudo: bool,
    /// What workers log, instead of what the agent's environment says.
    pub(crate) worker_log: Option<String>,
}

/// The sessions of this node.
#[derive(Clone)]
pub(crate) struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    options: SessionsOptions,
    state: Mutex<State>,
    /// Making accounts is not for two at a time.
    accounts: Mutex<()>,
    changed: Notify,
    tasks: TaskTracker,
    /// Ends the tasks, not the sessions.
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    live: HashMap<SessionId, Live>,
    results: HashMap<SessionId, TaskResult>,
}

/// A session that has not ended.
#[derive(Default)]
struct Live {
    /// Absent while the worker is being started.
    process: Option<ProcessId>,
    cancelled: bool,
}

/// Why a session did not start. The text is shown to the person who started it.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Document(#[from] document::Refusal),
    #[error(
        "this node's agent works with a Sortie server only: the start message brought no token for the session"
    )]
    NoToken,
    #[error("this node runs as many sessions as it can")]
    TooMany,
    #[error("failed to start pty since RunAs user {0} does not exist")]
    UnknownUser(String),
    #[error("sessions do not run as root: RunAs user {0} is refused")]
    Root(String),
    #[error("the agent must run as root to use RunAs")]
    NotRoot,
    #[error("cannot look up the session's account: {0}")]
    Account(#[source] io::Error),
    #[error("cannot start the session's process: {0}")]
    Worker(#[source] io::Error),
}

impl Sessions {
    pub(crate) fn new(options: SessionsOptions, stop: CancellationToken) -> Self {
        let inner = Inner {
            options,
            state: Mutex::default(),
            accounts: Mutex::default(),
            changed: Notify::new(),
            tasks: TaskTracker::new(),
            stop,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Takes over what an earlier agent left: workers that run, and results.
    pub(crate) fn adopt(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(self.inner.options.data_dir.sessions()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(session_id) = name
                .to_str()
                .and_then(|name| name.parse::<SessionId>().ok())
            else {
                continue;
            };
            self.adopt_one(session_id);
        }
        Ok(())
    }

    fn adopt_one(&self, session_id: SessionId) {
        let directory = self.inner.options.data_dir.session(&session_id);
        let process = read_if_present(&directory.worker())
            .ok()
            .flatten()
            .and_then(|bytes| serde_json::from_slice::<ProcessId>(&bytes).ok())
            .filter(os::is_running);
        match process {
            Some(process) => {
                tracing::info!(%session_id, pid = process.pid, "took over a session");
                let live = Live {
                    process: Some(process.clone()),
                    cancelled: false,
                };
                self.state().live.insert(session_id.clone(), live);
                self.watch(session_id, process);
            }
            None => self.collect(&session_id),
        }
    }

    /// Starts a session. Everything that goes wrong becomes its result.
    pub(crate) fn start(&self, start: StartContent) {
        let session_id: SessionId = match start.session_id.parse() {
            Ok(session_id) => session_id,
            Err(error) => return tracing::warn!(%error, "ignored a session"),
        };
        let is_new = {
            let mut state = self.state();
            let is_new =
                !state.live.contains_key(&session_id) && !state.results.contains_key(&session_id);
            if is_new {
                state.live.insert(session_id.clone(), Live::default());
            }
            is_new
        };
        if !is_new {
            // A server that asks twice has lost the first answer, if there is one.
            return self.inner.changed.notify_one();
        }
        let this = self.clone();
        self.inner
            .tasks
            .spawn_blocking(move || this.start_new(session_id, &start));
    }

    fn start_new(&self, session_id: SessionId, start: &StartContent) {
        let directory = self.inner.options.data_dir.session(&session_id);
        if let Err(error) = directory.remove().and_then(|()| directory.create()) {
            tracing::error!(%session_id, %error, "cannot make the session's directory");
            return self.ended(&session_id, TaskResult::failed(error, clock::wall()));
        }
        if self
            .state()
            .live
            .get(&session_id)
            .is_some_and(|live| live.cancelled)
        {
            return self.keep_result(&session_id, TaskResult::cancelled(clock::wall()));
        }
        let started = self.start_worker(&session_id, &directory, start);
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                tracing::warn!(%session_id, %error, "a session was not started");
                return self.keep_result(&session_id, TaskResult::failed(error, clock::wall()));
            }
        };
        tracing::info!(%session_id, pid = process.pid, owner = start.session_owner, "a session has started");
        let cancelled = {
            let mut state = self.state();
            let live = state.live.entry(session_id.clone()).or_default();
            live.process = Some(process.clone());
            live.cancelled
        };
        self.watch(session_id.clone(), process);
        if cancelled {
            self.cancel(&session_id, "it was ended before it began");
        }
    }

    fn start_worker(
        &self,
        session_id: &SessionId,
        directory: &SessionDir,
        start: &StartContent,
    ) -> Result<ProcessId, StartError> {
        let options = &self.inner.options;
        if self.state().live.len() > SESSION_LIMIT {
            return Err(StartError::TooMany);
        }
        let plan = document::plan(start)?;
        let ours = start.sortie.as_ref().ok_or(StartError::NoToken)?;
        let account = self.account(&plan.user)?;
        let message = StartMessage {
            session_id: session_id.clone(),
            node_id: options.node_id.clone(),
            endpoint: options.endpoint.clone(),
            ca_pem: options.ca_pem.clone(),
            token: ours.token.clone(),
            directory: directory.path().to_owned(),
            account,
            work: plan.work,
            idle_limit: plan.idle_limit,
        };
        let message = Zeroizing::new(
            serde_json::to_vec(&message).map_err(|error| StartError::Worker(error.into()))?,
        );
        let arguments = [
            OsStr::new(worker::SUBCOMMAND),
            OsStr::new(session_id.as_str()),
        ];
        os::start_worker(
            &options.worker_program,
            &arguments,
            &passed_on(options.worker_log.as_deref()),
            &message,
        )
        .map_err(StartError::Worker)
    }

    fn account(&self, user: &UserChoice) -> Result<Account, StartError> {
        let options = &self.inner.options;
        let may_choose = os::is_root() && !options.run_as_self;
        let _one_at_a_time = self
            .inner
            .accounts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match user {
            UserChoice::Usual if may_choose => {
                os::ensure_session_account(options.sudo).map_err(StartError::Account)
            }
            UserChoice::Elevated if may_choose => {
                let root = os::find_account(ROOT).map_err(StartError::Account)?;
                root.ok_or_else(|| StartError::UnknownUser(ROOT.to_owned()))
            }
            // An agent without rights cannot give any.
            UserChoice::Usual | UserChoice::Elevated => {
                os::own_account().map_err(StartError::Account)
            }
            UserChoice::RunAs(_) if !may_choose => Err(StartError::NotRoot),
            UserChoice::RunAs(name) => {
                let found = os::find_account(name).map_err(StartError::Account)?;
                let account = found.ok_or_else(|| StartError::UnknownUser(name.clone()))?;
                if account.uid == 0 || account.gid == 0 {
                    return Err(StartError::Root(name.clone()));
                }
                Ok(account)
            }
        }
    }

    /// Ends a session, if it is there.
    pub(crate) fn cancel(&self, session_id: &SessionId, reason: &str) {
        let process = match self.state().live.get_mut(session_id) {
            None => return,
            Some(live) => {
                live.cancelled = true;
                live.process.clone()
            }
        };
        // Without a process it is being started, and looked at again then.
        let Some(process) = process else { return };
        let directory = self.inner.options.data_dir.session(session_id);
        let (session_id, reason) = (session_id.clone(), reason.to_owned());
        self.inner.tasks.spawn(async move {
            if let Err(error) = ask_to_end(&directory, &process, reason).await {
                tracing::warn!(%session_id, %error, "a session does not answer and is killed");
                os::kill(&process);
            }
        });
    }

    /// Ends every session and waits for their results. For a node that exists only as long as its agent.
    pub(crate) async fn end_all(&self) {
        let ids: Vec<SessionId> = self.state().live.keys().cloned().collect();
        for session_id in &ids {
            self.cancel(session_id, "the agent is stopping");
        }
        let all_ended = self.until(|state| state.live.is_empty());
        let _ = tokio::time::timeout(END_GRACE, all_ended).await;
        // The server should hear of it from this agent: there may be no other.
        let all_heard = self.until(|state| state.results.is_empty());
        let _ = tokio::time::timeout(REPORT_GRACE, all_heard).await;
        for live in self.state().live.values() {
            live.process.iter().for_each(os::kill);
        }
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        while !reached(&self.state()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn watch(&self, session_id: SessionId, process: ProcessId) {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                // The session lives on and the next agent takes it over.
                () = this.inner.stop.cancelled() => return,
                waited = os::until_exit(&process) => {
                    if let Err(error) = waited {
                        tracing::error!(%session_id, %error, "cannot watch the session's process");
                    }
                }
            }
            this.collect(&session_id);
        });
    }

    /// Takes the result that a worker left, or makes one for a worker that could not.
    fn collect(&self, session_id: &SessionId) {
        let directory = self.inner.options.data_dir.session(session_id);
        let left = read_if_present(&directory.result()).ok().flatten();
        match left.and_then(|bytes| serde_json::from_slice::<TaskResult>(&bytes).ok()) {
            Some(result) if is_stale(&result) => {
                self.forget(session_id, &directory);
            }
            Some(result) => self.ended(session_id, result),
            None => {
                tracing::warn!(%session_id, "the session's process ended without a result");
                let result =
                    TaskResult::failed("the session's process ended unexpectedly", clock::wall());
                self.keep_result(session_id, result);
            }
        }
    }

    fn keep_result(&self, session_id: &SessionId, result: TaskResult) {
        let directory = self.inner.options.data_dir.session(session_id);
        let kept = serde_json::to_vec(&result)
            .map_err(io::Error::from)
            .and_then(|text| os::write_private(&directory.result(), &text));
        if let Err(error) = kept {
            tracing::error!(%session_id, %error, "cannot keep the session's result");
        }
        self.ended(session_id, result);
    }

    fn ended(&self, session_id: &SessionId, result: TaskResult) {
        {
            let mut state = self.state();
            state.live.remove(session_id);
            state.results.insert(session_id.clone(), result);
        }
        self.inner.changed.notify_one();
    }

    /// The server has the result that this message brought.
    pub(crate) fn acknowledged(&self, message_id: Uuid) {
        let session_id = {
            let state = self.state();
            let found = state
                .results
                .iter()
                .find(|(_, result)| result.message_id == message_id);
            found.map(|(session_id, _)| session_id.clone())
        };
        if let Some(session_id) = session_id {
            let directory = self.inner.options.data_dir.session(&session_id);
            self.forget(&session_id, &directory);
        }
    }

    fn forget(&self, session_id: &SessionId, directory: &SessionDir) {
        {
            let mut state = self.state();
            state.live.remove(session_id);
            state.results.remove(session_id);
        }
        if let Err(error) = directory.remove() {
            tracing::warn!(%session_id, %error, "cannot remove the session's directory");
        }
    }

    /// Every session whose end the server has not acknowledged.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        let state = self.state();
        state
            .live
            .keys()
            .chain(state.results.keys())
            .cloned()
            .collect()
    }

    /// The results that the server has not acknowledged.
    pub(crate) fn results(&self) -> Vec<(SessionId, TaskResult)> {
        let state = self.state();
        state
            .results
            .iter()
            .map(|(session_id, result)| (session_id.clone(), result.clone()))
            .collect()
    }

    /// Waits for a new result. For one listener.
    pub(crate) async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Waits for the tasks to end, after the stop.
    pub(crate) async fn closed(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that was just started may not listen yet.
async fn ask_to_end(directory: &SessionDir, process: &ProcessId, reason: String) -> io::Result<()> {
    const TRIES: u32 = 50;
    let request = Request::Cancel { reason };
    let mut tries = 0;
    loop {
        let error = match worker::ask(directory, &request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        tries += 1;
        if !os::is_running(process) {
            return Ok(());
        }
        if tries == TRIES {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_stale(result: &TaskResult) -> bool {
    let now: Timestamp = clock::wall();
    now.since(result.ended) >= RESULT_LIFE
}

fn passed_on(worker_log: Option<&str>) -> Vec<(&'static str, OsString)> {
    let chosen = |name: &str| worker_log.filter(|_| name == crate::log::FILTER_VARIABLE);
    PASSED_ON
        .into_iter()
        .filter_map(|name| {
            let value = chosen(name).map(OsString::from);
            Some((name, value.or_else(|| std::env::var_os(name))?))
        })
        .collect()
}
