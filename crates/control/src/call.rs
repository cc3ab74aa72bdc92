//! One call: who makes it, from where, when; and the answer that proves its record was written.

use serde_json::Value;
use sortie_ports::{StoreError, User};
use sortie_types::{AccessKeyId, NodeId, Timestamp};
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
    Node(NodeCaller),
    /// An IAM user.
    User(UserCaller),
}

/// An IAM user who signed with a long-lived key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCaller {
    /// The user as it is now.
    pub user: User,
    /// The key that signed.
    pub access_key_id: AccessKeyId,
}

/// A node that acts as itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCaller {
    /// Which.
    pub node_id: NodeId,
    /// The role it acts with.
    pub iam_role: String,
    /// The temporary key that signed; `None` when the node's own RSA key did.
    pub access_key_id: Option<AccessKeyId>,
    /// When the temporary credentials were issued.
    pub issued: Option<Timestamp>,
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
