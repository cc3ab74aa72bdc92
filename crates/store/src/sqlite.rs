//! [`SqliteState`]: opens the database, owns its writer and its readers, and is the state port.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use sortie_ports::{
    Activation, Commit, Document, DocumentVersion, DocumentVersionKey, Identities, IdentityKind,
    IdentityUse, Installation, Node, ServiceSetting, Session, SessionQuery, State, StoreError,
    TrailEntry, TrailQuery,
};
use sortie_types::{ActivationId, NodeId, SessionId, Timestamp};
use sqlx::{
    ConnectOptions, Sqlite, SqlitePool, Transaction,
    pool::PoolConnection,
    query,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    decode,
    migrate::{self, MigrateError},
    place::{Place, PlaceError},
    read,
    revision::KnownRevision,
    sql,
    writer::{QUEUE, Request, Writer, closed},
};

/// How many questions are answered at the same time. Each reader is a thread.
const READERS: u32 = 4;

/// How long a statement waits for another process, such as a backup, that locks the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a question waits for its turn.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not a database, or the engine cannot use it.
    #[error("cannot open the database")]
    Engine(#[source] sqlx::Error),
    /// The schema is not one that this program can use.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// Its place cannot be used, or is used by another server.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// The state of an installation in one SQLite file.
///
/// Dropping it without [`State::close`] is safe: what was answered is on stable storage.
#[derive(Debug)]
pub struct SqliteState {
    commits: mpsc::Sender<Request>,
    readers: SqlitePool,
    closing: CancellationToken,
    identity_revision: KnownRevision,
    /// The writer's task.
    tasks: TaskTracker,
}

impl SqliteState {
    /// Opens the database file `path` and brings its schema up to date. Makes the file (mode 0600)
    /// and its directory (mode 0700) where they are missing.
    ///
    /// # Errors
    /// When another process has it open, when a newer program has used it, or when it cannot be
    /// read and written.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let place = Place::take(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full)
            // Statements are not for a log, and what takes long is measured elsewhere.
            .disable_statement_logging();
        let write = options.clone().journal_mode(SqliteJournalMode::Wal);
        let mut connection = write.connect().await.map_err(OpenError::Engine)?;
        migrate::migrate(&mut connection).await?;

        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // Waiting in a crowd is no news, and a line for each who waits makes it longer.
            .acquire_slow_threshold(ACQUIRE_TIMEOUT)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        let (commits, requests) = mpsc::channel(QUEUE);
        let closing = CancellationToken::new();
        let identity_revision = KnownRevision::default();
        let revision = read::identity_revision(&mut connection).await;
        identity_revision.set(revision.map_err(OpenError::Engine)?);
        let writer = Writer {
            connection,
            requests,
            closing: closing.clone(),
            readers: readers.clone(),
            identity_revision: identity_revision.clone(),
            place,
        };
        let tasks = TaskTracker::new();
        tasks.spawn(writer.run());
        tasks.close();
        Ok(Self {
            commits,
            readers,
            closing,
            identity_revision,
            tasks,
        })
    }

    /// For a question of one statement, which is a snapshot by itself. Each statement is a way to the
    /// connection's thread and back, which takes more time than most questions do.
    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(engine)
    }

    /// A snapshot to read from with several statements.
    async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.readers.begin().await.map_err(engine)
    }
}

/// An error of the engine as the port knows it.
pub(crate) fn engine(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::PoolClosed => StoreError::Closed,
        error => StoreError::Engine(Box::new(error)),
    }
}

#[async_trait]
impl State for SqliteState {
    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        let (answer, outcome) = oneshot::channel();
        let request = Request { commit, answer };
        self.commits.send(request).await.map_err(closed)?;
        outcome.await.map_err(closed)?
    }

    async fn installation(&self) -> Result<Option<Installation>, StoreError> {
        let mut reader = self.reader().await?;
        let select = query(sql::INSTALLATION);
        read::one(&mut reader, select, decode::installation).await
    }

    async fn administrator_made(&self, name: &str) -> Result<bool, StoreError> {
        let mut reader = self.reader().await?;
        let found = query(sql::ADMINISTRATOR)
            .bind(name)
            .fetch_optional(&mut *reader)
            .await;
        Ok(found.map_err(engine)?.is_some())
    }

    async fn identity_revision(&self) -> Result<i64, StoreError> {
        if self.readers.is_closed() {
            return Err(StoreError::Closed);
        }
        // Without a statement, and without a wait for one of the few readers.
        if let Some(revision) = self.identity_revision.get() {
            return Ok(revision);
        }
        let mut reader = self.reader().await?;
        let revision = read::identity_revision(&mut reader).await;
        revision.map_err(engine)
    }

    async fn identities(&self, known: Option<i64>) -> Result<Option<Identities>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        read::identities(&mut snapshot, known).await
    }

    async fn identity_use(
        &self,
        kind: IdentityKind,
        key: &str,
    ) -> Result<Option<IdentityUse>, StoreError> {
        let mut reader = self.reader().await?;
        let select = query(sql::IDENTITY_USE).bind(kind.as_str()).bind(key);
        read::one(&mut reader, select, decode::identity_use).await
    }

    async fn activation(&self, id: &ActivationId) -> Result<Option<Activation>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        read::activation(&mut snapshot, *id).await
    }

    async fn activations(
        &self,
        after: Option<(Timestamp, ActivationId)>,
        limit: usize,
    ) -> Result<Vec<Activation>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        read::activations(&mut snapshot, after, limit).await
    }

    async fn document(
        &self,
        name: &str,
    ) -> Result<Option<(Document, DocumentVersion)>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        read::document(&mut snapshot, name).await
    }

    async fn documents(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(Document, DocumentVersion)>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        read::documents(&mut snapshot, after.as_deref(), limit).await
    }

    async fn document_version(
        &self,
        name: &str,
        key: DocumentVersionKey<'_>,
    ) -> Result<Option<DocumentVersion>, StoreError> {
        let mut reader = self.reader().await?;
        let select = match key {
            DocumentVersionKey::Number(number) => {
                query(sql::DOCUMENT_VERSION).bind(name).bind(number)
            }
            DocumentVersionKey::Named(version_name) => query(sql::DOCUMENT_VERSION_NAMED)
                .bind(name)
                .bind(version_name),
        };
        read::one(&mut reader, select, decode::document_version).await
    }

    async fn document_versions(
        &self,
        name: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<DocumentVersion>, StoreError> {
        let mut reader = self.reader().await?;
        read::document_versions(&mut reader, name, before, limit).await
    }

    async fn service_setting(&self, id: &str) -> Result<Option<ServiceSetting>, StoreError> {
        let mut reader = self.reader().await?;
        let select = query(sql::SERVICE_SETTING).bind(id);
        read::one(&mut reader, select, decode::service_setting).await
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let mut reader = self.reader().await?;
        read::node(&mut reader, id).await
    }

    async fn nodes(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<Node>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        read::nodes(&mut snapshot, after.as_ref(), limit).await
    }

    async fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let mut reader = self.reader().await?;
        let select = query(sql::SESSION).bind(id.as_str());
        read::one(&mut reader, select, decode::session).await
    }

    async fn sessions(&self, query: SessionQuery) -> Result<Vec<Session>, StoreError> {
        let mut reader = self.reader().await?;
        read::sessions(&mut reader, &query).await
    }

    async fn trail(&self, query: TrailQuery) -> Result<Vec<(i64, TrailEntry)>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        read::trail(&mut snapshot, &query).await
    }

    async fn close(&self) {
        self.closing.cancel();
        // The writer closes the readers as its last act but one.
        self.tasks.wait().await;
    }
}
