//! Sharing of documents: with which accounts, and which version they get. An installation has one
//! account, so what is kept here opens nothing to anybody; tools that manage documents find it as they
//! left it.

use serde_json::Value;
use sortie_ports::{Change, Conflict, Document, StoreError};

use super::operations::{DocumentError, DocumentPage};
use crate::{
    Control,
    authorize::{self, OperationRule},
    call::{Call, InternalError, Recorded},
    token,
    trail::Done,
};

/// How many accounts a document may be shared with.
const MOST_ACCOUNTS: usize = 1_000;
/// Accounts on a page: the model's limit.
const PAGE: usize = 20;
/// Everybody.
const ALL: &str = "all";
/// How often a change is decided anew because the document changed meanwhile.
const ATTEMPTS: usize = 8;

/// Whose permissions.
#[derive(Clone, Debug, Default)]
pub struct DescribeDocumentPermissionInput {
    /// The document.
    pub name: String,
    /// Up to 200, of which a page has 20.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// What to change.
#[derive(Clone, Debug, Default)]
pub struct ModifyDocumentPermissionInput {
    /// The document.
    pub name: String,
    /// Accounts, or `all`.
    pub add: Vec<String>,
    /// Accounts, or `all`.
    pub remove: Vec<String>,
    /// The version that those who are added get.
    pub version: Option<String>,
}

/// An account that a document is shared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedWith {
    /// Which, or `all`.
    pub account: String,
    /// The version that it gets.
    pub version: Option<String>,
}

/// The next accounts that a document is shared with, and whether there are more.
fn page(document: &Document, after: Option<&str>, limit: usize) -> (Vec<SharedWith>, bool) {
    let mut rest = document
        .shared_with
        .iter()
        .filter(|(account, _)| after.is_none_or(|after| account.as_str() > after));
    let with = |(account, version): (&String, &Option<String>)| SharedWith {
        account: account.clone(),
        version: version.clone(),
    };
    let items = rest.by_ref().take(limit).map(with).collect();
    (items, rest.next().is_some())
}

impl Control {
    /// `DescribeDocumentPermission`.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn describe_document_permission(
        &self,
        call: &Call,
        input: DescribeDocumentPermissionInput,
    ) -> Result<Recorded<DocumentPage<SharedWith>>, DocumentError> {
        const RULE: OperationRule = authorize::DESCRIBE_DOCUMENT_PERMISSION;
        let there = self.authorize_document(call, &RULE, &input.name).await?;
        let (document, _) = there.own()?;
        let sealer = &self.inner.page_sealer;
        let after: Option<String> = token::cursor(sealer, RULE.name, input.next_token.as_deref())
            .map_err(|_| DocumentError::InvalidNextToken)?;
        let limit = input.max_results.unwrap_or(PAGE).clamp(1, PAGE);
        let (items, more) = page(&document, after.as_deref(), limit);
        let next_token = match items.last().filter(|_| more) {
            Some(last) => Some(token::next_token(sealer, RULE.name, &last.account)?),
            None => None,
        };
        let done = Done::with(DocumentPage { items, next_token })
            .about([self.inner.names.document_resource(&document.name)]);
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `ModifyDocumentPermission`.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn modify_document_permission(
        &self,
        call: &Call,
        input: ModifyDocumentPermissionInput,
    ) -> Result<Recorded<()>, DocumentError> {
        const RULE: OperationRule = authorize::MODIFY_DOCUMENT_PERMISSION;
        for _ in 0..ATTEMPTS {
            let there = self.authorize_document(call, &RULE, &input.name).await?;
            let (mut document, _) = there.own()?;
            self.check_accounts(&input).await?;
            for account in &input.remove {
                document.shared_with.remove(&account.to_ascii_lowercase());
            }
            for account in &input.add {
                let account = account.to_ascii_lowercase();
                document.shared_with.insert(account, input.version.clone());
            }
            if document.shared_with.len() > MOST_ACCOUNTS {
                return Err(DocumentError::PermissionLimit(MOST_ACCOUNTS));
            }
            let resource = self.inner.names.document_resource(&document.name);
            let change = Change::UpdateDocument {
                document: Box::new(document),
                added: None,
                removed: None,
            };
            let done = Done::with(())
                .showing(Value::Null)
                .about([resource])
                .changing(vec![change]);
            match self.record(call, &RULE, done).await {
                Err(InternalError::Store(StoreError::Conflict(
                    Conflict::DocumentRevision | Conflict::NoDocument,
                ))) => {}
                outcome => return Ok(outcome?),
            }
        }
        Err(StoreError::Conflict(Conflict::DocumentRevision).into())
    }

    async fn check_accounts(
        &self,
        input: &ModifyDocumentPermissionInput,
    ) -> Result<(), DocumentError> {
        let wrong = |why: &str| Err(DocumentError::Validation(why.to_owned()));
        if input
            .add
            .iter()
            .any(|account| input.remove.contains(account))
        {
            return wrong("An account cannot be added and removed at once.");
        }
        let own = self.inner.names.account.as_str();
        if input.add.iter().any(|account| account == own) {
            return wrong("A document is not shared with its own account.");
        }
        let public = input
            .add
            .iter()
            .any(|account| account.eq_ignore_ascii_case(ALL));
        if public && !self.may_share_publicly().await? {
            return wrong(
                "Documents are not shared with everybody: the service setting \
                 /ssm/documents/console/public-sharing-permission is not Enable.",
            );
        }
        Ok(())
    }
}
