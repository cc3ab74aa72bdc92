//! The operations that read documents: get, describe, list, and list versions.

use sortie_ports::{DocumentVersion, StoreError};

use super::{
    builtin::{BUILT_IN, BuiltIn},
    operations::{DocumentError, DocumentInput, There},
    parse::{Format, write},
    start::content_of,
    view::{DocumentFilter, DocumentView, is_filter_key},
};
use crate::{
    Control,
    authorize::{self, Ask, OperationRule},
    call::{Call, Recorded},
    token,
    trail::Done,
};

/// Documents, or versions, on a page, at most and unless asked otherwise.
const PAGE: usize = 50;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListDocumentsInput {
    /// All must hold.
    pub filters: Vec<DocumentFilter>,
    /// Up to 50.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// The versions of which document.
#[derive(Clone, Debug, Default)]
pub struct ListDocumentVersionsInput {
    /// By name or ARN.
    pub name: String,
    /// Up to 50.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentPage<T> {
    /// The items.
    pub items: Vec<T>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// A document in the format that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetDocumentOutput {
    /// The version.
    pub view: DocumentView,
    /// Its content in that format.
    pub content: String,
    /// `JSON`, `YAML` or `TEXT`.
    pub format: String,
}

impl Control {
    /// `GetDocument`.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn get_document(
        &self,
        call: &Call,
        input: DocumentInput,
        format: Option<&str>,
    ) -> Result<Recorded<GetDocumentOutput>, DocumentError> {
        const RULE: OperationRule = authorize::GET_DOCUMENT;
        let there = self.authorize_document(call, &RULE, &input.name).await?;
        let view = self.wanted_version(there, &input).await?;
        let format = format.unwrap_or(Format::Json.as_str());
        // Exactly as it was given, wherever that will do.
        let content = if format == view.format || format == "TEXT" {
            view.content.clone()
        } else {
            converted(&view, format)?
        };
        let done = Done::with(GetDocumentOutput {
            content,
            format: format.to_owned(),
            view,
        });
        let resource = self.inner.names.document_resource(&done.answer.view.name);
        Ok(self.record(call, &RULE, done.about([resource])).await?)
    }

    /// `DescribeDocument`.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn describe_document(
        &self,
        call: &Call,
        input: DocumentInput,
    ) -> Result<Recorded<DocumentView>, DocumentError> {
        const RULE: OperationRule = authorize::DESCRIBE_DOCUMENT;
        let there = self.authorize_document(call, &RULE, &input.name).await?;
        let view = self.wanted_version(there, &input).await?;
        let resource = self.inner.names.document_resource(&view.name);
        let done = Done::with(view).about([resource]);
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `ListDocuments`, each in the version in force.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn list_documents(
        &self,
        call: &Call,
        input: ListDocumentsInput,
    ) -> Result<Recorded<DocumentPage<DocumentView>>, DocumentError> {
        const RULE: OperationRule = authorize::LIST_DOCUMENTS;
        self.authorize(call, &RULE, Ask::any(), None, ()).await?;
        let unknown = |filter: &&DocumentFilter| !is_filter_key(&filter.key);
        if let Some(unknown) = input.filters.iter().find(unknown) {
            return Err(DocumentError::InvalidFilterKey(unknown.key.clone()));
        }
        let sealer = &self.inner.page_sealer;
        let after: Option<String> = token::cursor(sealer, RULE.name, input.next_token.as_deref())
            .map_err(|_| DocumentError::InvalidNextToken)?;
        let limit = input.max_results.unwrap_or(PAGE).clamp(1, PAGE);
        let mut items = self
            .matching_documents(after, limit + 1, &input.filters)
            .await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_token = match items.last().filter(|_| more) {
            Some(last) => Some(token::next_token(sealer, RULE.name, &last.name)?),
            None => None,
        };
        let done = Done::with(DocumentPage { items, next_token });
        Ok(self.record(call, &RULE, done).await?)
    }

    /// The next documents that match, behind `after`, `wanted` or more if there are.
    async fn matching_documents(
        &self,
        mut after: Option<String>,
        wanted: usize,
        filters: &[DocumentFilter],
    ) -> Result<Vec<DocumentView>, StoreError> {
        let account = self.inner.names.account.as_str();
        let mut found = Vec::new();
        loop {
            let own = self.inner.state.documents(after.clone(), PAGE).await?;
            let last = own.last().filter(|_| own.len() == PAGE);
            let until = last.map(|(document, _)| document.name.clone());
            let is_next = |built_in: &&BuiltIn| {
                after.as_deref().is_none_or(|after| built_in.name > after)
                    && until.as_deref().is_none_or(|until| built_in.name <= until)
            };
            let built_in = BUILT_IN
                .iter()
                .filter(is_next)
                .map(DocumentView::of_built_in);
            let own = own
                .into_iter()
                .map(|(document, version)| self.document_view(document, version));
            let mut page: Vec<DocumentView> = built_in.chain(own).collect();
            page.retain(|view| filters.iter().all(|filter| view.meets(filter, account)));
            page.sort_by(|one, other| one.name.cmp(&other.name));
            found.extend(page);
            if until.is_none() || found.len() >= wanted {
                return Ok(found);
            }
            after = until;
        }
    }

    /// `ListDocumentVersions`, newest first.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn list_document_versions(
        &self,
        call: &Call,
        input: ListDocumentVersionsInput,
    ) -> Result<Recorded<DocumentPage<DocumentView>>, DocumentError> {
        const RULE: OperationRule = authorize::LIST_DOCUMENT_VERSIONS;
        let there = self.authorize_document(call, &RULE, &input.name).await?;
        let sealer = &self.inner.page_sealer;
        let before: Option<(String, i64)> =
            token::cursor(sealer, RULE.name, input.next_token.as_deref())
                .map_err(|_| DocumentError::InvalidNextToken)?;
        let limit = input.max_results.unwrap_or(PAGE).clamp(1, PAGE);
        let document = match there {
            There::BuiltIn(built_in) => {
                let items = vec![DocumentView::of_built_in(built_in)];
                let next_token = None;
                let done = Done::with(DocumentPage { items, next_token });
                return Ok(self.record(call, &RULE, done).await?);
            }
            There::Account(own) => own.0,
        };
        let before = match before {
            Some((of, _)) if of != document.name => return Err(DocumentError::InvalidNextToken),
            before => before.map(|(_, number)| number),
        };
        let state = &self.inner.state;
        let found = state.document_versions(&document.name, before, limit + 1);
        let mut found = found.await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next_token = match found.last().filter(|_| more) {
            Some(last) => {
                let cursor = (&document.name, last.number);
                Some(token::next_token(sealer, RULE.name, &cursor)?)
            }
            None => None,
        };
        let view = |version| self.document_view(document.clone(), version);
        let items = found.into_iter().map(view).collect();
        let done = Done::with(DocumentPage { items, next_token })
            .about([self.inner.names.document_resource(&document.name)]);
        Ok(self.record(call, &RULE, done).await?)
    }
}

/// The content of a version in another format.
fn converted(view: &DocumentView, format: &str) -> Result<String, DocumentError> {
    let format = Format::named(format);
    let format = format.ok_or_else(|| DocumentError::Validation("no such format".to_owned()))?;
    let version = DocumentVersion {
        document: view.name.clone(),
        number: view.version,
        version_name: None,
        display_name: None,
        format: view.format.clone(),
        content: view.content.clone(),
        created: view.version_created,
    };
    let content = content_of(&version).map_err(DocumentError::InvalidContent)?;
    Ok(write(&content, format)?)
}
