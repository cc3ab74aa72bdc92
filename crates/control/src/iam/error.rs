//! Why an operation on identities was not done: one error for the whole IAM service, as AWS has it.

use sortie_ports::{Conflict, StoreError};

use crate::{
    authorize::{AuthorizeError, Denied},
    call::InternalError,
    mint::RandomError,
};

/// Why an operation on identities was not done. Texts are AWS's words for the caller.
#[derive(Debug, thiserror::Error)]
pub enum IamError {
    /// Others changed identities again and again while this change was tried.
    #[error("The request was rejected because of concurrent modifications. Please try again.")]
    ConcurrentModification,
    /// Something still hangs on what should go.
    #[error("{0}")]
    DeleteConflict(String),
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The name is taken.
    #[error("{0}")]
    EntityAlreadyExists(String),
    /// It was changed a moment ago.
    #[error("{0}")]
    EntityTemporarilyUnmodifiable(String),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// The code of an MFA device is wrong, or was used.
    #[error("{0}")]
    InvalidAuthenticationCode(String),
    /// A member has a value that it cannot have here.
    #[error("{0}")]
    InvalidInput(String),
    /// The caller is of a kind that cannot do it.
    #[error("{0}")]
    InvalidUserType(String),
    /// A quota is reached.
    #[error("{0}")]
    LimitExceeded(String),
    /// A policy document breaks the rules.
    #[error("{0}")]
    MalformedPolicyDocument(String),
    /// What was named is not there.
    #[error("{0}")]
    NoSuchEntity(String),
    /// The password breaks the rules.
    #[error("{0}")]
    PasswordPolicyViolation(String),
    /// A simulation cannot be made.
    #[error("{0}")]
    PolicyEvaluation(String),
    /// The policy cannot be attached there.
    #[error("{0}")]
    PolicyNotAttachable(String),
    /// Only a service may change it.
    #[error("{0}")]
    UnmodifiableEntity(String),
    /// The members do not go together.
    #[error("{0}")]
    Validation(String),
}

impl From<StoreError> for IamError {
    fn from(error: StoreError) -> Self {
        InternalError::from(error).into_iam()
    }
}

impl From<RandomError> for IamError {
    fn from(error: RandomError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<AuthorizeError> for IamError {
    fn from(error: AuthorizeError) -> Self {
        match error {
            AuthorizeError::Denied(denied) => Self::Denied(denied),
            AuthorizeError::Internal(error) => Self::Internal(error),
        }
    }
}

impl InternalError {
    /// What of it is the caller's affair: a condition of the commit that did not hold.
    pub(crate) fn into_iam(self) -> IamError {
        match self {
            Self::Store(StoreError::Conflict(Conflict::CodeUsed)) => {
                let why = "Authentication code for device is not valid.";
                IamError::InvalidAuthenticationCode(why.to_owned())
            }
            Self::Store(StoreError::Conflict(Conflict::Revision)) => {
                IamError::ConcurrentModification
            }
            error => IamError::Internal(error),
        }
    }
}
