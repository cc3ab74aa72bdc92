//! The operations of IAM on a real state: users and what they prove themselves with.

mod groups;
mod keys;
mod login_profiles;
pub(crate) mod mfa;
mod policies;
mod users;

use sortie_control::{Call, Caller, CreateUserInput, IamError, PageRequest, UserCaller, UserView};
use sortie_types::{AccessKeyId, Timestamp};

use crate::world::{START, World, call};

/// A user who may do nothing.
pub(crate) async fn user(world: &World, name: &str) -> UserView {
    let input = CreateUserInput {
        name: name.into(),
        ..CreateUserInput::default()
    };
    let made = world
        .control
        .create_user(&world.admin("CreateUser"), input)
        .await;
    made.unwrap().into_inner()
}

/// A call of a user's own, with a long-lived key.
pub(crate) fn by(user: &UserView, name: &'static str) -> Call {
    by_at(user, name, START)
}

pub(crate) fn by_at(user: &UserView, name: &'static str, now: Timestamp) -> Call {
    let caller = Caller::User(Box::new(UserCaller {
        user: user.user.clone(),
        access_key_id: AccessKeyId::long_lived([5; 16]),
        session: None,
    }));
    call(caller, name, now)
}

pub(crate) fn first(max_items: i32) -> PageRequest {
    next(None, max_items)
}

pub(crate) fn next(marker: Option<String>, max_items: i32) -> PageRequest {
    PageRequest {
        marker,
        max_items: Some(max_items),
    }
}

/// The code and text that a refusal is told with.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, IamError>) -> (&'static str, String) {
    let error = outcome.unwrap_err();
    let code = match &error {
        IamError::ConcurrentModification => "ConcurrentModification",
        IamError::DeleteConflict(_) => "DeleteConflict",
        IamError::Denied(_) => "AccessDenied",
        IamError::EntityAlreadyExists(_) => "EntityAlreadyExists",
        IamError::EntityTemporarilyUnmodifiable(_) => "EntityTemporarilyUnmodifiable",
        IamError::Internal(_) => "ServiceFailure",
        IamError::InvalidAuthenticationCode(_) => "InvalidAuthenticationCode",
        IamError::InvalidInput(_) => "InvalidInput",
        IamError::InvalidUserType(_) => "InvalidUserType",
        IamError::LimitExceeded(_) => "LimitExceeded",
        IamError::MalformedPolicyDocument(_) => "MalformedPolicyDocument",
        IamError::NoSuchEntity(_) => "NoSuchEntity",
        IamError::PasswordPolicyViolation(_) => "PasswordPolicyViolation",
        IamError::PolicyEvaluation(_) => "PolicyEvaluation",
        IamError::PolicyNotAttachable(_) => "PolicyNotAttachable",
        IamError::UnmodifiableEntity(_) => "UnmodifiableEntity",
        IamError::Validation(_) => "ValidationError",
    };
    (code, error.to_string())
}

/// The code alone.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, IamError>) -> &'static str {
    refused(outcome).0
}
