//! The rows of the state, as control and gateway see them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sortie_types::{
    AccountId, ActivationId, Arn, NodeId, Region, SessionId, Tag, Timestamp, UniqueId,
};

/// What is fixed once at the first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The one account.
    pub account_id: AccountId,
    /// The one region.
    pub region: Region,
}

/// Leave for machines to enrol themselves as managed nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The public half.
    pub id: ActivationId,
    /// SHA-256 of the secret half. The code has over 100 bits, so no salt or stretching is needed.
    pub code_digest: [u8; 32],
    /// The role that nodes will act with.
    pub iam_role: String,
    /// Free text.
    pub description: Option<String>,
    /// The name that nodes get.
    pub default_instance_name: Option<String>,
    /// How many nodes may enrol.
    pub registration_limit: i64,
    /// How many have.
    pub registrations_count: i64,
    /// After this no node can enrol.
    pub expires: Timestamp,
    /// When it was made.
    pub created: Timestamp,
    /// Given to the nodes that enrol.
    pub tags: Vec<Tag>,
}

/// Whether a node row is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Enrolled.
    Active,
    /// Thrown out by an operator. The row stays, so that old sessions keep their target and the
    /// node is refused by name.
    Deregistered,
}

/// What a node says about itself in `UpdateInstanceInformation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// `amazon-ssm-agent` or ours.
    pub agent_name: Option<String>,
    /// Four numbers.
    pub agent_version: Option<String>,
    /// Host name.
    pub computer_name: Option<String>,
    /// The node's own idea of its address.
    pub ip_address: Option<String>,
    /// `Linux`, `Windows` or `MacOS`.
    pub platform_type: Option<String>,
    /// Such as `Debian GNU/Linux`.
    pub platform_name: Option<String>,
    /// Such as `12`.
    pub platform_version: Option<String>,
}

/// A managed node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `mi-…`.
    pub id: NodeId,
    /// Enrolled or thrown out.
    pub state: NodeState,
    /// The activation it enrolled with.
    pub activation_id: ActivationId,
    /// The role it acts with.
    pub iam_role: String,
    /// The node's name; need not be unique.
    pub name: Option<String>,
    /// When it enrolled.
    pub registered: Timestamp,
    /// The address it enrolled from.
    pub source_ip: Option<String>,
    /// What it sent at enrolment; a clone sends another one.
    pub fingerprint: String,
    /// DER SubjectPublicKeyInfo of the key it signs with.
    pub public_key: Vec<u8>,
    /// The key before, good until the new one has been used once.
    pub previous_public_key: Option<Vec<u8>>,
    /// What it last said about itself.
    pub info: NodeInfo,
    /// When it was last heard.
    pub last_ping: Timestamp,
    /// Whether its control channel is open now.
    pub connected: bool,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// How a node is doing, as `DescribeInstanceInformation` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingStatus {
    /// Heard lately, but its control channel is gone and heartbeats are overdue.
    ConnectionLost,
    /// Silent for 30 days.
    Inactive,
    /// Control channel open, or a recent heartbeat.
    Online,
}

/// Where a session is in its life, as `DescribeSessions` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SessionState {
    /// Both ends are there.
    Connected,
    /// Started; an end is still to come.
    Connecting,
    /// An end is away.
    Disconnected,
    /// Could not start, or broke.
    Failed,
    /// Over.
    Terminated,
    /// Told to end; not yet over.
    Terminating,
}

impl SessionState {
    /// Whether the session is over and will not change again.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Terminated)
    }

    /// AWS's word for the state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "Connected",
            Self::Connecting => "Connecting",
            Self::Disconnected => "Disconnected",
            Self::Failed => "Failed",
            Self::Terminated => "Terminated",
            Self::Terminating => "Terminating",
        }
    }
}

/// A session, living or over.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Name of the owner and a random suffix.
    pub id: SessionId,
    /// The node.
    pub target: NodeId,
    /// ARN of who started it.
    pub owner: Arn,
    /// Unique id of who started it.
    pub owner_unique_id: UniqueId,
    /// The session document.
    pub document_name: String,
    /// The document's content as resolved when the session started.
    pub document_content: Value,
    /// Parameters given, each a list of texts, or an empty object.
    pub parameters: Value,
    /// Why, in the owner's words.
    pub reason: Option<String>,
    /// Where it is in its life.
    pub state: SessionState,
    /// Why it ended or is ending, for people.
    pub end_reason: Option<String>,
    /// When it was started.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// Ends after this long without activity.
    pub idle_timeout_seconds: i64,
    /// Ends this long after its start.
    pub max_duration_seconds: Option<i64>,
    /// Tokens of the client side with a smaller number are superseded.
    pub client_epoch: i64,
    /// Tokens of the node side with a smaller number are superseded.
    pub node_epoch: i64,
    /// When something last happened that keeps it alive. Kept in memory while running and written
    /// in batches.
    pub last_activity: Timestamp,
    /// Facts of the starting call (address, user agent), for later judgement.
    pub request_context: Value,
}

/// What can carry tags.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TaggedResource {
    /// An activation; its tags are those that nodes will get.
    Activation(ActivationId),
    /// A document of the account, by name.
    Document(String),
    /// A managed node.
    Node(NodeId),
}

/// One line of the trail, as it is looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct TrailEntry {
    /// The record's id.
    pub event_id: String,
    /// When.
    pub event_time: Timestamp,
    /// What.
    pub event_name: String,
    /// Of which service.
    pub event_source: String,
    /// By whom.
    pub username: Option<String>,
    /// With which key.
    pub access_key_id: Option<String>,
    /// Whether it only read.
    pub read_only: bool,
    /// `(type, name)` of each resource; the name is the last part of its ARN.
    pub resources: Vec<(String, String)>,
    /// The whole record.
    pub record: String,
}
