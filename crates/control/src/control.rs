//! [`Control`] itself: what it is made of, how it opens, and the work it does in the background.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sortie_ports::{
    Change, Commit, Conflict, IdentityKind, IdentityUse, Installation, Signals, State, StoreError,
};
use sortie_types::{AccountId, NodeId, Region, SessionId, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{
    arns::Names,
    call::InternalError,
    channels::End,
    directory::DirectoryCache,
    failures::FailureBudget,
    mint,
    seal::{Purpose, RootKey, Sealer},
    secrets::Secrets,
};

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The installation's region; fixed at the first start.
    pub region: Region,
    /// How long a session may be idle, unless its document says otherwise.
    pub default_idle: Duration,
    /// How long a session may last, unless its document says otherwise.
    pub max_duration: Option<Duration>,
    /// Whether node traffic is written to the trail.
    pub data_events: bool,
    /// How long temporary credentials of nodes are good.
    pub credential_lifetime: Duration,
    /// How long a started session waits for its client.
    pub client_wait: Duration,
    /// How often heartbeats and idle marks are written.
    pub flush_interval: Duration,
    /// Whether sessions end that their owner could not start any more, when identities or the tags of
    /// nodes change.
    pub end_disallowed_sessions: bool,
    /// How long sessions that are over and lines of the trail are kept; `None`: for ever.
    pub retention: Option<Duration>,
}

impl Settings {
    /// The defaults.
    #[must_use]
    pub fn new(region: Region) -> Self {
        Self {
            region,
            default_idle: Duration::from_mins(20),
            max_duration: None,
            data_events: false,
            credential_lifetime: Duration::from_hours(1),
            client_wait: Duration::from_mins(1),
            flush_interval: Duration::from_secs(10),
            end_disallowed_sessions: true,
            retention: None,
        }
    }
}

/// Why control did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// The region was another one when the state was made, and is part of every stored ARN.
    #[error("the region of this state is `{stored}`, not `{configured}`")]
    Region {
        /// What the state says.
        stored: Region,
        /// What the settings say.
        configured: Region,
    },
}

crate::call::internal!(OpenError);

/// The use-cases. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Control {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) state: Arc<dyn State>,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) settings: Settings,
    pub(crate) names: Names,
    pub(crate) access_key_sealer: Sealer,
    pub(crate) credential_sealer: Sealer,
    pub(crate) channel_sealer: Sealer,
    pub(crate) page_sealer: Sealer,
    pub(crate) secrets: Secrets,
    pub(crate) directory: DirectoryCache,
    memory: Mutex<Memory>,
    failures: Mutex<FailureBudget>,
}

/// What waits to be written in a batch. Bounded by the nodes, living sessions and identities there
/// are.
#[derive(Default)]
pub(crate) struct Memory {
    /// When nodes were heard since the last batch.
    pub(crate) heard: HashMap<NodeId, Timestamp>,
    /// When sessions were active since the last batch.
    pub(crate) active: HashMap<SessionId, Timestamp>,
    /// When and for what identities were used since the last batch.
    pub(crate) used: HashMap<(IdentityKind, String), IdentityUse>,
    /// Ends that the state did not take; tried again with each batch.
    pub(crate) unsaved_ends: HashMap<SessionId, (End, Timestamp)>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("account", &self.inner.names.account)
            .field("region", &self.inner.names.region)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Opens the use-cases on a state. Makes the installation's constants and first roles when they
    /// are absent, and notes that no node is connected: nothing is, when a server starts.
    ///
    /// # Errors
    /// When the state fails or belongs to another region.
    pub async fn open(
        state: Arc<dyn State>,
        signals: Arc<dyn Signals>,
        root_key: RootKey,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let installation = installation(state.as_ref(), &settings.region).await?;
        if installation.region != settings.region {
            return Err(OpenError::Region {
                stored: installation.region,
                configured: settings.region,
            });
        }
        let commit = Commit {
            changes: vec![Change::SetNoNodeConnected],
            trail: Vec::new(),
        };
        state.commit(commit).await?;
        tracing::info!(account = %installation.account_id, region = %installation.region, time = %now, "control is open");
        let names = Names {
            account: installation.account_id,
            region: installation.region,
        };
        let control = Self {
            inner: Arc::new(Inner {
                state,
                signals,
                settings,
                names,
                access_key_sealer: root_key.derive(Purpose::AccessKeySecret)?,
                credential_sealer: root_key.derive(Purpose::Credentials)?,
                channel_sealer: root_key.derive(Purpose::ChannelToken)?,
                page_sealer: root_key.derive(Purpose::Page)?,
                secrets: Secrets::new(&root_key)?,
                directory: DirectoryCache::default(),
                memory: Mutex::default(),
                failures: Mutex::default(),
            }),
        };
        control.make_first_roles(now).await?;
        Ok(control)
    }

    /// The installation's account.
    #[must_use]
    pub fn account_id(&self) -> &AccountId {
        &self.inner.names.account
    }

    /// The installation's region.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.inner.names.region
    }

    /// What the operator set.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Writes heartbeats and idle marks in batches, and judges sessions anew when what allowed them
    /// may have changed, until told to stop. Writes once more then.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(self.write_batches(&stop), self.keep_judging(&stop));
        self.flush().await;
    }

    async fn write_batches(&self, stop: &CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(self.inner.settings.flush_interval))
            .await
            .is_some()
        {
            self.flush().await;
        }
    }

    /// Removes a bounded number of sessions and lines of the trail that are older than the retention.
    /// Does nothing where everything is kept.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn prune(&self, now: Timestamp) -> Result<(), StoreError> {
        const AT_ONCE: usize = 1_000;
        let Some(retention) = self.inner.settings.retention else {
            return Ok(());
        };
        let prune = Change::Prune {
            sessions_ended_before: now.minus(retention),
            trail_before: now.minus(retention),
            limit: AT_ONCE,
        };
        let commit = Commit {
            changes: vec![prune],
            trail: Vec::new(),
        };
        self.inner.state.commit(commit).await
    }

    /// Writes what was gathered in memory. What the state does not take is kept for the next time.
    pub(crate) async fn flush(&self) {
        let (heard, active, used, ends) = {
            let mut memory = self.memory();
            (
                std::mem::take(&mut memory.heard),
                std::mem::take(&mut memory.active),
                std::mem::take(&mut memory.used),
                std::mem::take(&mut memory.unsaved_ends),
            )
        };
        if !heard.is_empty() || !active.is_empty() || !used.is_empty() {
            let uses = used.clone().into_iter();
            let touch = Change::Touch {
                nodes: heard.clone().into_iter().collect(),
                sessions: active.clone().into_iter().collect(),
                identities: uses
                    .map(|((kind, key), usage)| (kind, key, usage))
                    .collect(),
            };
            let commit = Commit {
                changes: vec![touch],
                trail: Vec::new(),
            };
            if let Err(error) = self.inner.state.commit(commit).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "heartbeats are not written"
                );
                self.keep(heard, active, used);
            }
        }
        for (session_id, (end, at)) in ends {
            self.session_ended(&session_id, end, at).await;
        }
    }

    fn keep(
        &self,
        heard: HashMap<NodeId, Timestamp>,
        active: HashMap<SessionId, Timestamp>,
        used: HashMap<(IdentityKind, String), IdentityUse>,
    ) {
        let mut memory = self.memory();
        for (node_id, at) in heard {
            memory.heard.entry(node_id).or_insert(at);
        }
        for (session_id, at) in active {
            memory.active.entry(session_id).or_insert(at);
        }
        for (identity, usage) in used {
            memory.used.entry(identity).or_insert(usage);
        }
    }

    /// Notes that an access key, a password (of a user), a role or a device was used. Written with the
    /// next batch.
    pub(crate) fn identity_used(&self, kind: IdentityKind, key: &str, usage: IdentityUse) {
        match self.memory().used.entry((kind, key.to_owned())) {
            Entry::Occupied(mut newest) if newest.get().at <= usage.at => {
                newest.insert(usage);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(none) => {
                none.insert(usage);
            }
        }
    }

    /// When and for what an access key, a password (of a user), a role or a device was last used.
    pub(crate) async fn identity_use(
        &self,
        kind: IdentityKind,
        key: &str,
    ) -> Result<Option<IdentityUse>, StoreError> {
        // Memory first: what is written meanwhile is in one of the two.
        let recent = self.memory().used.get(&(kind, key.to_owned())).cloned();
        let written = self.inner.state.identity_use(kind, key).await?;
        let uses = [recent, written].into_iter().flatten();
        Ok(uses.max_by_key(|usage| usage.at))
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic elsewhere leaves plain maps behind: nothing in them can be half done.
        let memory = self.inner.memory.lock();
        memory.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failures(&self) -> MutexGuard<'_, FailureBudget> {
        let failures = self.inner.failures.lock();
        failures.unwrap_or_else(PoisonError::into_inner)
    }
}

async fn installation(state: &dyn State, region: &Region) -> Result<Installation, InternalError> {
    if let Some(installation) = state.installation().await? {
        return Ok(installation);
    }
    let fresh = Installation {
        account_id: mint::account_id()?,
        region: region.clone(),
    };
    let commit = Commit {
        changes: vec![Change::InsertInstallation(fresh.clone())],
        trail: Vec::new(),
    };
    match state.commit(commit).await {
        // Another server of this installation was faster: its constants hold.
        Err(StoreError::Conflict(Conflict::Exists)) => {
            Ok(state.installation().await?.unwrap_or(fresh))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(fresh),
    }
}
