//! The state port. A change is data: a [`Commit`] lists what must hold, what becomes true, and the
//! audit records that go with it, and is applied whole or not at all. So no transaction type
//! crosses the trait, and an audit record can never be separated from its change.

use async_trait::async_trait;
use serde_json::Value;
use sortie_evidence::AuditRecord;
use sortie_types::{ActivationId, Arn, NodeId, SessionId, Tag, Timestamp};

use crate::{
    documents::{Document, DocumentVersion, DocumentVersionKey, ServiceSetting},
    identities::{Identities, Identity, IdentityKind, IdentityUse},
    rows::{
        Activation, Installation, Node, NodeInfo, Session, SessionState, TaggedResource, TrailEntry,
    },
};

/// One step: all changes and all records, or none.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Applied in order.
    pub changes: Vec<Change>,
    /// Appended with them.
    pub trail: Vec<AuditRecord>,
}

/// Something that becomes true. A change whose condition does not hold refuses its whole commit.
///
/// Rows belong to the account and region of the installation: its constants come before all others,
/// in the same commit at the latest.
#[derive(Clone, Debug)]
pub enum Change {
    /// Deletes an activation that exists. Otherwise [`Conflict::NoActivation`].
    DeleteActivation(ActivationId),
    /// Deletes a document with its versions and tags. [`Conflict::NoDocument`] when there is none, and
    /// [`Conflict::DocumentRevision`] when it is another by now.
    DeleteDocument {
        /// Which.
        name: String,
        /// [`Document::revision`] as it was read.
        revision: i64,
    },
    /// Marks an active node as deregistered and not connected. Otherwise [`Conflict::NoNode`].
    DeregisterNode(NodeId),
    /// Fails with [`Conflict::Exists`] when there is one already.
    InsertActivation(Activation),
    /// Remembers for good that an administrator of this name was made. Fails with [`Conflict::Exists`]
    /// when one was before.
    InsertAdministrator {
        /// In lower case.
        name: String,
    },
    /// Fails with [`Conflict::Exists`] when the name is taken, and with [`Conflict::TooManyDocuments`]
    /// when there are `limit` already.
    InsertDocument {
        /// The row, with its tags.
        document: Box<Document>,
        /// Its one version.
        version: Box<DocumentVersion>,
        /// How many there may be.
        limit: usize,
    },
    /// Sets the installation's constants, once. Fails with [`Conflict::Exists`] afterwards.
    InsertInstallation(Installation),
    /// Fails with [`Conflict::Exists`] when the id or public key is taken.
    InsertNode(Box<Node>),
    /// Fails with [`Conflict::Exists`] when the id is taken.
    InsertSession(Box<Session>),
    /// Refuses an MFA code that was used, or is older than one that was, or whose device is gone: the
    /// step of a device only rises. Otherwise [`Conflict::CodeUsed`].
    UseMfaStep {
        /// The device.
        serial_number: Arn,
        /// Unix time of the code over 30 s.
        step: i64,
    },
    /// Deletes what is too old to be shown, the oldest first.
    Prune {
        /// Sessions that ended before this time.
        sessions_ended_before: Timestamp,
        /// Lines of the trail from before this time.
        trail_before: Timestamp,
        /// At most this many sessions and this many lines, so that nobody waits long. Called again
        /// until nothing is left, or the next time.
        limit: usize,
    },
    /// Adds or replaces the row of an identity, and raises the revision. Only behind a
    /// [`Change::RequireIdentities`] of the same commit, else [`Conflict::Revision`]: it replaces the
    /// whole row, so whoever has not looked would undo what others did.
    PutIdentity(Box<Identity>),
    /// Removes the row of an identity with what is known of its use, and raises the revision. Absent
    /// rows are fine. Only behind a [`Change::RequireIdentities`] of the same commit, else
    /// [`Conflict::Revision`].
    RemoveIdentity {
        /// Of which kind.
        kind: IdentityKind,
        /// [`Identity::key`].
        key: String,
    },
    /// Changes nothing: what else is in the commit happens only while the identities are those of this
    /// revision. Otherwise [`Conflict::Revision`]: read them again and decide anew. Once in a commit.
    RequireIdentities {
        /// [`Identities::revision`].
        revision: i64,
    },
    /// Sets a service setting, in place of what was set before.
    PutServiceSetting(ServiceSetting),
    /// Puts a service setting back to its default; absent ones are fine.
    RemoveServiceSetting {
        /// Which.
        id: String,
    },
    /// Sets and replaces tags by key, at most `limit` in all, else [`Conflict::TooManyTags`].
    /// Without the resource: [`Conflict::NoActivation`], [`Conflict::NoDocument`] or
    /// [`Conflict::NoNode`].
    PutTags {
        /// Whose.
        resource: TaggedResource,
        /// Set or replaced.
        tags: Vec<Tag>,
        /// How many a resource may have.
        limit: usize,
    },
    /// Removes tags by key; absent keys are fine.
    RemoveTags {
        /// Whose.
        resource: TaggedResource,
        /// Which.
        keys: Vec<String>,
    },
    /// Changes nothing: what else is in the commit happens only to an active node. Otherwise
    /// [`Conflict::NoNode`].
    RequireNode {
        /// Which.
        node_id: NodeId,
        /// Where given, the key it must have at this moment, else [`Conflict::NodeKey`].
        public_key: Option<Vec<u8>>,
    },
    /// Whether the active node's control channel is open, and when it was last heard.
    SetNodeConnected {
        /// Which. [`Conflict::NoNode`] when it is not an active node.
        node_id: NodeId,
        /// Open or not.
        connected: bool,
        /// Heard when.
        at: Timestamp,
    },
    /// What an active node says about itself; absent facts stay as they were.
    SetNodeInfo {
        /// Which. [`Conflict::NoNode`] when it is not an active node.
        node_id: NodeId,
        /// The facts.
        info: NodeInfo,
        /// Heard when.
        at: Timestamp,
    },
    /// Replaces an active node's key. [`Conflict::Exists`] when another node has it.
    SetNodeKey {
        /// Which. [`Conflict::NoNode`] when it is not an active node.
        node_id: NodeId,
        /// The new key, DER.
        public_key: Vec<u8>,
        /// The one before, while it may still be used.
        previous: Option<Vec<u8>>,
    },
    /// Gives an active node another name.
    SetNodeName {
        /// Which. [`Conflict::NoNode`] when it is not an active node.
        node_id: NodeId,
        /// The name.
        name: Option<String>,
    },
    /// Gives an active node another role.
    SetNodeRole {
        /// Which. [`Conflict::NoNode`] when it is not an active node.
        node_id: NodeId,
        /// The role.
        iam_role: String,
    },
    /// Marks every node as not connected: nothing is, when a server starts.
    SetNoNodeConnected,
    /// Heartbeats and activity gathered in memory. Rows that are gone are passed over, and a time
    /// that is older than the row's is not written.
    Touch {
        /// Nodes heard.
        nodes: Vec<(NodeId, Timestamp)>,
        /// Sessions active.
        sessions: Vec<(SessionId, Timestamp)>,
        /// Access keys, passwords (of users) and roles used, by kind and [`Identity::key`]. Raises no
        /// revision.
        identities: Vec<(IdentityKind, String, IdentityUse)>,
    },
    /// Replaces the row of a document, without its tags, whose revision is still the one in it, and
    /// raises that. Else [`Conflict::DocumentRevision`], or [`Conflict::NoDocument`].
    UpdateDocument {
        /// The new row, with the revision as it was read.
        document: Box<Document>,
        /// A further version. [`Conflict::Exists`] when its number or name is taken.
        added: Option<Box<DocumentVersion>>,
        /// A version to remove.
        removed: Option<i64>,
    },
    /// Changes a session if it is in one of `when` ([`Conflict::SessionState`]) and exists
    /// ([`Conflict::NoSession`]).
    UpdateSession {
        /// Which.
        session_id: SessionId,
        /// States it may be in; empty: any.
        when: Vec<SessionState>,
        /// What changes.
        patch: SessionPatch,
    },
    /// Counts one more enrolment. Refused as [`Conflict::Activation`] says.
    UseActivation {
        /// Which.
        activation_id: ActivationId,
        /// Compared with its expiry.
        at: Timestamp,
    },
}

/// What changes of a session; `None` leaves a column as it is.
#[derive(Clone, Debug, Default)]
pub struct SessionPatch {
    /// New state.
    pub state: Option<SessionState>,
    /// Why it ends.
    pub end_reason: Option<String>,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// Supersedes client tokens below. Refused when it does not ([`Conflict::Superseded`]), so that
    /// an epoch belongs to one resume.
    pub client_epoch: Option<i64>,
    /// Supersedes node tokens below.
    pub node_epoch: Option<i64>,
    /// When it was last active.
    pub last_activity: Option<Timestamp>,
    /// The circumstances in place of those before.
    pub request_context: Option<Value>,
}

/// Why an activation could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationUse {
    /// Its time is over.
    Expired,
    /// There is none of that id.
    Unknown,
    /// Its limit is reached.
    UsedUp,
}

/// Which condition of a commit did not hold. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The activation cannot be used.
    #[error("the activation cannot be used: {0:?}")]
    Activation(ActivationUse),
    /// The MFA code, or a later one, was used before.
    #[error("the code was used before")]
    CodeUsed,
    /// The document has changed meanwhile.
    #[error("the document has changed meanwhile")]
    DocumentRevision,
    /// The row exists already.
    #[error("the row exists already")]
    Exists,
    /// No such activation.
    #[error("no such activation")]
    NoActivation,
    /// No such document.
    #[error("no such document")]
    NoDocument,
    /// No such active node.
    #[error("no such active node")]
    NoNode,
    /// No such session.
    #[error("no such session")]
    NoSession,
    /// The node has another key by now.
    #[error("the node has another key by now")]
    NodeKey,
    /// The identities have changed meanwhile.
    #[error("the identities have changed meanwhile")]
    Revision,
    /// The session is in another state than demanded.
    #[error("the session is `{}`", .0.as_str())]
    SessionState(SessionState),
    /// Client tokens of this epoch, or a later one, were given out meanwhile.
    #[error("the session was resumed meanwhile")]
    Superseded,
    /// More documents than there may be.
    #[error("too many documents")]
    TooManyDocuments,
    /// More tags than a resource may have.
    #[error("too many tags")]
    TooManyTags,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A condition did not hold; nothing was changed.
    #[error("refused: {0}")]
    Conflict(#[from] Conflict),
    /// A row cannot be read as what it should be.
    #[error("row of `{table}` cannot be read: {what}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The engine failed.
    #[error("the database failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}

/// Which sessions, newest first.
#[derive(Clone, Debug, Default)]
pub struct SessionQuery {
    /// Only in these states; empty: any.
    pub states: Vec<SessionState>,
    /// Only on this node.
    pub target: Option<NodeId>,
    /// Only of this owner.
    pub owner: Option<Arn>,
    /// Only this one.
    pub session_id: Option<SessionId>,
    /// Started at this time or later.
    pub started_after: Option<Timestamp>,
    /// Started before this time.
    pub started_before: Option<Timestamp>,
    /// Ended (or not over) after: bounds the history.
    pub ended_after: Option<Timestamp>,
    /// Continues behind this session.
    pub after: Option<(Timestamp, SessionId)>,
    /// At most this many.
    pub limit: usize,
}

/// The one attribute that a look-up of the trail may filter by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrailAttribute {
    /// The key that signed.
    AccessKeyId(String),
    /// The record's id.
    EventId(String),
    /// The operation.
    EventName(String),
    /// The service.
    EventSource(String),
    /// Whether it only read.
    ReadOnly(bool),
    /// Name or ARN of a resource.
    ResourceName(String),
    /// Type of a resource.
    ResourceType(String),
    /// Who called.
    Username(String),
}

/// Which lines of the trail, newest first. Only management events can be looked up.
#[derive(Clone, Debug, Default)]
pub struct TrailQuery {
    /// Only these.
    pub attribute: Option<TrailAttribute>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Continues behind this row.
    pub after: Option<i64>,
    /// At most this many.
    pub limit: usize,
}

/// Where everything is kept. Adapters pass the suite in [`crate::contract`].
#[async_trait]
pub trait State: Send + Sync {
    /// Applies a step whole or not at all, and answers when it is on stable storage. Commits may be
    /// grouped, but each stands or falls alone.
    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;

    /// The installation's constants, once they are set.
    async fn installation(&self) -> Result<Option<Installation>, StoreError>;

    /// Whether an administrator of this name, in lower case, was ever made. It may be gone.
    async fn administrator_made(&self, name: &str) -> Result<bool, StoreError>;

    /// The revision of the identities. Asked at every call, so it must be cheap. What was committed
    /// before the question is seen.
    async fn identity_revision(&self) -> Result<i64, StoreError>;

    /// All identities, unless they are still those of revision `known`.
    async fn identities(&self, known: Option<i64>) -> Result<Option<Identities>, StoreError>;

    /// When an access key, a password (of a user), a role or a device was last used.
    async fn identity_use(
        &self,
        kind: IdentityKind,
        key: &str,
    ) -> Result<Option<IdentityUse>, StoreError>;

    /// An activation.
    async fn activation(&self, id: &ActivationId) -> Result<Option<Activation>, StoreError>;

    /// Activations, newest first, behind `after`.
    async fn activations(
        &self,
        after: Option<(Timestamp, ActivationId)>,
        limit: usize,
    ) -> Result<Vec<Activation>, StoreError>;

    /// A document with its tags, and the version in force.
    async fn document(&self, name: &str)
    -> Result<Option<(Document, DocumentVersion)>, StoreError>;

    /// Documents in order of names, behind `after`, with their tags, each with the version in force.
    async fn documents(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(Document, DocumentVersion)>, StoreError>;

    /// A version of a document.
    async fn document_version(
        &self,
        name: &str,
        key: DocumentVersionKey<'_>,
    ) -> Result<Option<DocumentVersion>, StoreError>;

    /// Versions of a document, newest first, older than `before`.
    async fn document_versions(
        &self,
        name: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<DocumentVersion>, StoreError>;

    /// A service setting, unless it is the default.
    async fn service_setting(&self, id: &str) -> Result<Option<ServiceSetting>, StoreError>;

    /// A node, deregistered ones too, with its tags.
    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError>;

    /// Active nodes in order of id, behind `after`, with their tags.
    async fn nodes(&self, after: Option<NodeId>, limit: usize) -> Result<Vec<Node>, StoreError>;

    /// A session.
    async fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError>;

    /// Sessions, newest first.
    async fn sessions(&self, query: SessionQuery) -> Result<Vec<Session>, StoreError>;

    /// Lines of the trail, newest first, each with the row number that [`TrailQuery::after`] takes.
    async fn trail(&self, query: TrailQuery) -> Result<Vec<(i64, TrailEntry)>, StoreError>;

    /// Waits for what is under way and closes. Later calls answer [`StoreError::Closed`]; closing
    /// again is fine.
    async fn close(&self);
}
