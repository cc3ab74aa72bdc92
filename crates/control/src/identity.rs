//! `GetCallerIdentity`: needs no permission, but someone known.

use sortie_types::{AccountId, Arn};

use crate::{
    Control,
    authorize::{self, OperationRule},
    call::{Call, Caller, InternalError, Recorded, internal},
    trail::Done,
};

/// Who the caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetCallerIdentityOutput {
    /// `AIDA…`, or `AROA…:<session name>`.
    pub user_id: String,
    /// The account.
    pub account: AccountId,
    /// The caller's ARN.
    pub arn: Arn,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetCallerIdentityError {
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Nobody that we know.
    #[error("the caller is not authenticated")]
    NotAuthenticated,
}

internal!(GetCallerIdentityError);

impl Control {
    /// `GetCallerIdentity`.
    ///
    /// # Errors
    /// As [`GetCallerIdentityError`] says.
    pub async fn get_caller_identity(
        &self,
        call: &Call,
    ) -> Result<Recorded<GetCallerIdentityOutput>, GetCallerIdentityError> {
        const RULE: OperationRule = authorize::GET_CALLER_IDENTITY;
        let names = &self.inner.names;
        authorize::authorize(names, &call.caller, &RULE, &[], None, ())
            .map_err(|_| GetCallerIdentityError::NotAuthenticated)?;
        let (user_id, arn) = match &call.caller {
            Caller::Anonymous { .. } => return Err(GetCallerIdentityError::NotAuthenticated),
            Caller::Node(node) => (
                format!("{}:{}", names.role_unique_id(&node.iam_role), node.node_id),
                names.node_session(&node.iam_role, &node.node_id),
            ),
            Caller::User(caller) => (caller.user.unique_id.to_string(), names.user(&caller.user)),
        };
        let account = names.account.clone();
        let answer = GetCallerIdentityOutput {
            user_id,
            account,
            arn,
        };
        Ok(self.record(call, &RULE, Done::with(answer)).await?)
    }
}
