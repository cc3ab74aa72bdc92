//! One call: who makes it, from where, when; and the answer that proves its record was written.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sortie_ports::{Role, StoreError, User};
use sortie_types::{AccessKeyId, Arn, NodeId, Tag, Timestamp, UniqueId};
use uuid::Uuid;

use crate::mint::RandomError;

/// Who calls, as authentication found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody that we know: unsigned, or refused at the door.
    Anonymous {
        /// The key that was presented, if any.
        access_key: Option<String>,
    },
    /// A managed node.
    Node(Box<NodeCaller>),
    /// Somebody who assumed a role.
    Role(Box<RoleCaller>),
    /// An IAM user.
    User(Box<UserCaller>),
}

/// An IAM user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCaller {
    /// The user as it is now.
    pub user: User,
    /// The key that signed.
    pub access_key_id: AccessKeyId,
    /// What came with a temporary key: of `GetSessionToken`, or of signing in with a password.
    pub session: Option<TemporarySession>,
}

/// A role session that `AssumeRole` began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleCaller {
    /// The role as it is now.
    pub role: Role,
    /// The session's name.
    pub session_name: String,
    /// The temporary key that signed.
    pub access_key_id: AccessKeyId,
    /// What came with it.
    pub session: TemporarySession,
}

/// A node that acts as itself, as a session of its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCaller {
    /// Which.
    pub node_id: NodeId,
    /// The role that it was given, by name.
    pub iam_role: String,
    /// That role as it is now, if there is one.
    pub role: Option<Role>,
    /// The temporary key that signed; `None` when the node's own RSA key did.
    pub access_key_id: Option<AccessKeyId>,
    /// When the temporary credentials were issued.
    pub issued: Option<Timestamp>,
}

/// What is fixed when temporary credentials are issued. It travels in their session token, and lies
/// with the sessions that were started with them. Who they are for is looked up on each call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemporarySession {
    /// When they were issued.
    #[serde(rename = "i")]
    pub issued: Timestamp,
    /// Not good from then on.
    #[serde(rename = "e")]
    pub expires: Timestamp,
    /// When a code of an MFA device was checked for them.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub mfa: Option<Timestamp>,
    /// Documents of the session policies that were given in full.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Managed policies that are session policies. Their text is the one of now.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub policy_arns: Vec<Arn>,
    /// Session tags.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The tags among them that go along when another role is assumed.
    #[serde(rename = "tt", default, skip_serializing_if = "Vec::is_empty")]
    pub transitive_tag_keys: Vec<String>,
    /// Who is behind them, as was said when the first role was assumed.
    #[serde(rename = "si", default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// The long-lived key that they come from in the end; `None` when that was a password or a node.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub issuing_key: Option<AccessKeyId>,
    /// For role sessions: the user, or the role of the node, at the beginning of the chain.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub assumed_by: Option<UniqueId>,
    /// For role sessions: the node at the beginning of the chain.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// When the user signed in with the password that they come from in the end.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub signed_in: Option<Timestamp>,
}

impl TemporarySession {
    /// Credentials with nothing attached.
    #[must_use]
    pub fn new(issued: Timestamp, expires: Timestamp) -> Self {
        Self {
            issued,
            expires,
            mfa: None,
            policies: Vec::new(),
            policy_arns: Vec::new(),
            tags: Vec::new(),
            transitive_tag_keys: Vec::new(),
            source_identity: None,
            issuing_key: None,
            assumed_by: None,
            node: None,
            signed_in: None,
        }
    }
}

/// What is known of a call beside its input.
#[derive(Clone, Debug)]
pub struct Call {
    /// The id that the caller sees in `x-amzn-RequestId`.
    pub request_id: Uuid,
    /// Who calls.
    pub caller: Caller,
    /// From where.
    pub source_ip: String,
    /// With what.
    pub user_agent: Option<String>,
    /// From which page, as browsers say.
    pub referer: Option<String>,
    /// Whether the connection is encrypted.
    pub secure_transport: bool,
    /// Such as `ssm.amazonaws.com`.
    pub event_source: &'static str,
    /// The operation.
    pub event_name: &'static str,
    /// Whether the operation only reads.
    pub read_only: bool,
    /// The input as the trail shows it, secrets hidden.
    pub request_parameters: Value,
    /// When.
    pub now: Timestamp,
}

/// An answer whose audit record is on stable storage. Only this crate makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    pub(crate) fn new(answer: T) -> Self {
        Self(answer)
    }

    /// The answer.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }

    /// The answer in another form.
    #[must_use]
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Recorded<U> {
        Recorded(change(self.0))
    }
}

/// What failed on our side, in any operation.
#[derive(Debug, thiserror::Error)]
pub enum InternalError {
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The state could not be read or changed.
    #[error("the state could not be read or changed")]
    Store(#[source] StoreError),
}

impl From<StoreError> for InternalError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Lets `?` carry failures of ours into the error of an operation.
macro_rules! internal {
    ($($error:ty),* $(,)?) => {$(
        impl From<sortie_ports::StoreError> for $error {
            fn from(error: sortie_ports::StoreError) -> Self {
                Self::Internal(error.into())
            }
        }

        impl From<$crate::mint::RandomError> for $error {
            fn from(error: $crate::mint::RandomError) -> Self {
                Self::Internal(error.into())
            }
        }
    )*};
}
pub(crate) use internal;

/// Lets `?` carry a refusal, or a failure to decide, into the error of an operation.
macro_rules! refusable {
    ($($error:ty),* $(,)?) => {$(
        impl From<$crate::authorize::AuthorizeError> for $error {
            fn from(error: $crate::authorize::AuthorizeError) -> Self {
                match error {
                    $crate::authorize::AuthorizeError::Denied(denied) => denied.into(),
                    $crate::authorize::AuthorizeError::Internal(error) => error.into(),
                }
            }
        }
    )*};
}
pub(crate) use refusable;
