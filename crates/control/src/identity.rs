//! `GetCallerIdentity`: needs no permission and heeds no policy, but needs someone known.

use sortie_types::{AccountId, Arn};

use crate::{
    Control,
    authorize::{self, OperationRule},
    call::{Call, InternalError, Recorded, internal},
    judge,
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
        let known = (names.caller(&call.caller), judge::starter(&call.caller));
        let (Some(arn), Some(starter)) = known else {
            return Err(GetCallerIdentityError::NotAuthenticated);
        };
        let user_id = starter.userid();
        let account = names.account.clone();
        let answer = GetCallerIdentityOutput {
            user_id,
            account,
            arn,
        };
        Ok(self.record(call, &RULE, Done::with(answer)).await?)
    }
}
