//! The operations that change documents, and what all operations on them share. A caller who may not ask about a document does not learn whether there
//! is one.

use serde_json::{Value, json};
use sortie_ports::{
    Change, Conflict, Document, DocumentVersion, DocumentVersionKey, Signal, StoreError,
};
use sortie_types::{InvalidTag, Timestamp};

use super::{
    DEFAULT_DOCUMENT, SessionType,
    builtin::{BuiltIn, RESERVED_PREFIXES, built_in},
    name,
    parse::{Format, Unreadable, read},
    schema::{InvalidContent, SessionDocument},
    start::stored,
    view::{DocumentView, SESSION},
};
use crate::{
    Control,
    authorize::{self, Ask, AskedResource, Denied, OperationRule},
    call::{Call, InternalError, Recorded, internal, refusable},
    context::Keys,
    sessions::asked_document,
    tags::{TAG_LIMIT, parse_tags},
    trail::Done,
};

/// How many documents an account may have.
const MOST_DOCUMENTS: usize = 500;
/// How many versions a document may have.
const MOST_VERSIONS: usize = 1_000;
/// How often a change is decided anew because the document changed meanwhile.
const ATTEMPTS: usize = 8;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateDocumentInput {
    /// Its name.
    pub name: String,
    /// Its first version.
    pub content: String,
    /// `JSON` when absent.
    pub format: Option<String>,
    /// `Session` is the only one that there is here.
    pub document_type: Option<String>,
    /// A name for the version.
    pub version_name: Option<String>,
    /// For people.
    pub display_name: Option<String>,
    /// What it is for.
    pub target_type: Option<String>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
    /// Whether there are attachments or documents that it requires, which this type has not.
    pub has_more: bool,
}

/// A new version.
#[derive(Clone, Debug, Default)]
pub struct UpdateDocumentInput {
    /// Of which document.
    pub name: String,
    /// What it says.
    pub content: String,
    /// `JSON` when absent.
    pub format: Option<String>,
    /// The version that is updated: the latest one.
    pub version: Option<String>,
    /// A name for the version.
    pub version_name: Option<String>,
    /// For people.
    pub display_name: Option<String>,
    /// What it is for; as it was when absent.
    pub target_type: Option<String>,
    /// Whether there are attachments, which this type has not.
    pub has_more: bool,
}

/// A document, and which version.
#[derive(Clone, Debug, Default)]
pub struct DocumentInput {
    /// By name or ARN.
    pub name: String,
    /// A number, `$LATEST` or `$DEFAULT`.
    pub version: Option<String>,
    /// The name of a version.
    pub version_name: Option<String>,
}

/// Why nothing was done with a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The name is taken.
    #[error("Document with same name {0} already exists.")]
    AlreadyExists(String),
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// What it says is what the latest version says.
    #[error(
        "The content of the document matches that of its latest version. Change the content and try again."
    )]
    DuplicateContent,
    /// Another version has the name.
    #[error("The document has a version of the name {0} already.")]
    DuplicateVersionName(String),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// It is no session document.
    #[error("{0}")]
    InvalidContent(String),
    /// There is no such document.
    #[error("Document with name {0} does not exist.")]
    InvalidDocument(String),
    /// There is no such filter.
    #[error("The filter key {0} is not valid.")]
    InvalidFilterKey(String),
    /// Not of the page before.
    #[error("The next token is not valid.")]
    InvalidNextToken,
    /// It cannot be done to this document.
    #[error("{0}")]
    InvalidOperation(String),
    /// Of another schema.
    #[error("{0}")]
    InvalidSchemaVersion(String),
    /// A tag breaks the rules.
    #[error(transparent)]
    InvalidTag(#[from] InvalidTag),
    /// There is no such version.
    #[error("The document version is not valid or does not exist.")]
    InvalidVersion,
    /// More documents than an account may have.
    #[error("An account can have {MOST_DOCUMENTS} documents.")]
    LimitExceeded,
    /// Larger than a document may be.
    #[error("{0}")]
    MaxSizeExceeded(String),
    /// Shared with more accounts than a document may be.
    #[error("A document can be shared with {0} accounts.")]
    PermissionLimit(usize),
    /// The input makes no sense.
    #[error("{0}")]
    Validation(String),
    /// More versions than a document may have.
    #[error("A document can have {MOST_VERSIONS} versions.")]
    VersionLimitExceeded,
}

internal!(DocumentError);
refusable!(DocumentError);

impl From<InvalidContent> for DocumentError {
    fn from(error: InvalidContent) -> Self {
        let text = error.to_string();
        match error {
            InvalidContent::Element(_) => Self::InvalidContent(text),
            InvalidContent::SchemaVersion => Self::InvalidSchemaVersion(text),
        }
    }
}

impl From<Unreadable> for DocumentError {
    fn from(error: Unreadable) -> Self {
        let text = error.to_string();
        match error {
            Unreadable::TooLarge => Self::MaxSizeExceeded(text),
            Unreadable::Syntax(_) | Unreadable::TooDeep => Self::InvalidContent(text),
        }
    }
}

/// A document that is there.
pub(super) enum There {
    BuiltIn(&'static BuiltIn),
    Account(Box<(Document, DocumentVersion)>),
}

impl There {
    /// The account's own, which alone can be changed.
    pub(super) fn own(self) -> Result<(Document, DocumentVersion), DocumentError> {
        match self {
            Self::Account(own) => Ok(*own),
            Self::BuiltIn(document) => Err(DocumentError::InvalidOperation(format!(
                "Document {} belongs to {} and cannot be changed.",
                document.name, document.owner
            ))),
        }
    }
}

/// Checks the content of a version, and gives it with its format.
fn checked(
    name: &str,
    content: &str,
    format: Option<&str>,
) -> Result<(SessionDocument, Format), DocumentError> {
    let format = match format {
        None => Format::Json,
        Some(format) => Format::named(format).ok_or_else(|| {
            DocumentError::InvalidContent(
                "Session documents are written in JSON or in YAML.".to_owned(),
            )
        })?,
    };
    let document = SessionDocument::read(&read(content, format)?)?;
    if name == DEFAULT_DOCUMENT {
        let is_shell = document.session_type == SessionType::StandardStream;
        if !is_shell || !document.parameters.is_empty() {
            return Err(DocumentError::InvalidContent(format!(
                "{DEFAULT_DOCUMENT} holds the preferences: it is a Standard_Stream document \
                 without parameters."
            )));
        }
    }
    Ok((document, format))
}

fn new_name(name: &str) -> Result<(), DocumentError> {
    let lower = name.to_ascii_lowercase();
    let reserved = RESERVED_PREFIXES
        .iter()
        .find(|prefix| lower.starts_with(**prefix));
    match reserved {
        Some(prefix) => Err(DocumentError::Validation(format!(
            "Names of documents cannot begin with {prefix}."
        ))),
        None => Ok(()),
    }
}

/// Which version of a document is meant; `None` when there can be none.
fn version_number(document: &Document, given: &str) -> Option<i64> {
    match given {
        "$LATEST" => Some(document.latest_version),
        "$DEFAULT" => Some(document.default_version),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => number.parse().ok(),
        _ => None,
    }
}

impl Control {
    /// Looks a document up and asks leave for an action on it.
    pub(super) async fn authorize_document(
        &self,
        call: &Call,
        rule: &OperationRule,
        given: &str,
    ) -> Result<There, DocumentError> {
        let names = &self.inner.names;
        let named = name(names, given);
        let there = match named {
            Some(name) => match built_in(name) {
                Some(built_in) => Some(There::BuiltIn(built_in)),
                None => self
                    .inner
                    .state
                    .document(name)
                    .await?
                    .map(|own| There::Account(Box::new(own))),
            },
            None => None,
        };
        let tags = match &there {
            Some(There::Account(own)) => own.0.tags.as_slice(),
            _ => &[],
        };
        let asked = asked_document(names, named.unwrap_or(given), tags);
        let mut ask = Ask::about(vec![asked]);
        if there.is_some() {
            ask = ask.key("ssm:DocumentType", SESSION);
        }
        let there = self.authorize(call, rule, ask, None, there).await?;
        there
            .into_resource()
            .ok_or_else(|| DocumentError::InvalidDocument(given.to_owned()))
    }

    pub(super) fn document_view(
        &self,
        document: Document,
        version: DocumentVersion,
    ) -> DocumentView {
        let content = stored(&version).ok();
        let owner = self.inner.names.account.to_string();
        DocumentView::new(document, version, owner, content.as_ref())
    }

    /// The version that is meant, the one in force unless another is named.
    pub(super) async fn wanted_version(
        &self,
        there: There,
        input: &DocumentInput,
    ) -> Result<DocumentView, DocumentError> {
        let (document, default) = match there {
            There::BuiltIn(built_in) => {
                let version = input.version.as_deref().unwrap_or("1");
                let known = ["1", "$LATEST", "$DEFAULT"].contains(&version);
                return match known && input.version_name.is_none() {
                    true => Ok(DocumentView::of_built_in(built_in)),
                    false => Err(DocumentError::InvalidVersion),
                };
            }
            There::Account(own) => *own,
        };
        let number = match &input.version {
            Some(version) => {
                let number = version_number(&document, version);
                Some(number.ok_or(DocumentError::InvalidVersion)?)
            }
            None => None,
        };
        let key = match (&input.version_name, number) {
            (Some(name), _) => DocumentVersionKey::Named(name),
            (None, Some(number)) if number != default.number => DocumentVersionKey::Number(number),
            (None, _) => return Ok(self.document_view(document, default)),
        };
        let found = self.inner.state.document_version(&document.name, key);
        let found = found.await?.ok_or(DocumentError::InvalidVersion)?;
        if number.is_some_and(|number| number != found.number) {
            return Err(DocumentError::InvalidVersion);
        }
        Ok(self.document_view(document, found))
    }

    /// `CreateDocument`.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn create_document(
        &self,
        call: &Call,
        input: CreateDocumentInput,
    ) -> Result<Recorded<DocumentView>, DocumentError> {
        const RULE: OperationRule = authorize::CREATE_DOCUMENT;
        let names = &self.inner.names;
        let document_type = input.document_type.as_deref().unwrap_or("Command");
        let keys = Keys::default().request_tag_texts(&input.tags);
        let asked = || vec![AskedResource::new(names.document(&input.name))];
        let mut ask = Ask::about(asked())
            .with(keys)
            .key("ssm:DocumentType", document_type);
        if !input.tags.is_empty() {
            ask = ask.also("ssm:AddTagsToResource", asked());
        }
        self.authorize(call, &RULE, ask, None, ()).await?;
        let (document, version) = self.new_document(&input, document_type, call.now)?;
        let view = self.document_view(document.clone(), version.clone());
        let name = input.name;
        let done = Done::with(view.clone())
            .showing(view.shown())
            .about([names.document_resource(&name)])
            .changing(vec![Change::InsertDocument {
                document: Box::new(document),
                version: Box::new(version),
                limit: MOST_DOCUMENTS,
            }]);
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::Exists))) => {
                Err(DocumentError::AlreadyExists(name))
            }
            Err(InternalError::Store(StoreError::Conflict(Conflict::TooManyDocuments))) => {
                Err(DocumentError::LimitExceeded)
            }
            outcome => Ok(outcome?),
        }
    }

    fn new_document(
        &self,
        input: &CreateDocumentInput,
        document_type: &str,
        now: Timestamp,
    ) -> Result<(Document, DocumentVersion), DocumentError> {
        if document_type != SESSION {
            return Err(DocumentError::Validation(format!(
                "Documents of type {document_type} are not offered here: give the DocumentType \
                 {SESSION}."
            )));
        }
        no_more(input.has_more)?;
        new_name(&input.name)?;
        let mut tags = parse_tags(&input.tags)?;
        tags.sort();
        let count = tags.len();
        tags.dedup_by(|one, other| one.key == other.key);
        if tags.len() != count || count > TAG_LIMIT {
            return Err(DocumentError::Validation(format!(
                "A document has at most {TAG_LIMIT} tags, each of another key."
            )));
        }
        let (_, format) = checked(&input.name, &input.content, input.format.as_deref())?;
        let document = Document {
            name: input.name.clone(),
            created: now,
            default_version: 1,
            latest_version: 1,
            next_version: 2,
            target_type: input.target_type.clone(),
            shared_with: std::collections::BTreeMap::new(),
            revision: 1,
            tags,
        };
        let version = DocumentVersion {
            document: input.name.clone(),
            number: 1,
            version_name: input.version_name.clone(),
            display_name: input.display_name.clone(),
            format: format.as_str().to_owned(),
            content: input.content.clone(),
            created: now,
        };
        Ok((document, version))
    }

    /// `UpdateDocument`: adds a version, which is not in force yet.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn update_document(
        &self,
        call: &Call,
        input: UpdateDocumentInput,
    ) -> Result<Recorded<DocumentView>, DocumentError> {
        const RULE: OperationRule = authorize::UPDATE_DOCUMENT;
        for _ in 0..ATTEMPTS {
            let there = self.authorize_document(call, &RULE, &input.name).await?;
            let (mut document, _) = there.own()?;
            no_more(input.has_more)?;
            let version = self.next_version(&mut document, &input, call.now).await?;
            let mut shown = document.clone();
            shown.latest_version = version.number;
            let view = self.document_view(shown, version.clone());
            let name = view.name.clone();
            let change = Change::UpdateDocument {
                document: Box::new(document),
                added: Some(Box::new(version)),
                removed: None,
            };
            let done = Done::with(view.clone())
                .showing(view.shown())
                .about([self.inner.names.document_resource(&name)])
                .changing(vec![change]);
            match self.record(call, &RULE, done).await {
                // Changed meanwhile: decided anew.
                Err(InternalError::Store(StoreError::Conflict(
                    Conflict::DocumentRevision | Conflict::NoDocument,
                ))) => {}
                Err(InternalError::Store(StoreError::Conflict(Conflict::Exists))) => {
                    let name = input.version_name.unwrap_or_default();
                    return Err(DocumentError::DuplicateVersionName(name));
                }
                outcome => return Ok(outcome?),
            }
        }
        Err(StoreError::Conflict(Conflict::DocumentRevision).into())
    }

    /// The version that an update adds; `document` becomes what it is then.
    async fn next_version(
        &self,
        document: &mut Document,
        input: &UpdateDocumentInput,
        now: Timestamp,
    ) -> Result<DocumentVersion, DocumentError> {
        if let Some(given) = &input.version
            && version_number(document, given) != Some(document.latest_version)
        {
            return Err(DocumentError::InvalidVersion);
        }
        let (_, format) = checked(&document.name, &input.content, input.format.as_deref())?;
        let state = &self.inner.state;
        let latest = DocumentVersionKey::Number(document.latest_version);
        let latest = state.document_version(&document.name, latest).await?;
        if latest.is_some_and(|latest| latest.content == input.content) {
            return Err(DocumentError::DuplicateContent);
        }
        if usize::try_from(document.next_version).is_ok_and(|next| next > MOST_VERSIONS) {
            // Numbers are never used again, so this many may be there, or fewer.
            let all = state.document_versions(&document.name, None, MOST_VERSIONS);
            if all.await?.len() >= MOST_VERSIONS {
                return Err(DocumentError::VersionLimitExceeded);
            }
        }
        let number = document.next_version;
        document.latest_version = number;
        document.next_version = number.saturating_add(1);
        document.target_type = input.target_type.clone().or(document.target_type.take());
        Ok(DocumentVersion {
            document: document.name.clone(),
            number,
            version_name: input.version_name.clone(),
            display_name: input.display_name.clone(),
            format: format.as_str().to_owned(),
            content: input.content.clone(),
            created: now,
        })
    }

    /// `UpdateDocumentDefaultVersion`: puts a version in force, from the next session on.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn update_document_default_version(
        &self,
        call: &Call,
        input: DocumentInput,
    ) -> Result<Recorded<DocumentView>, DocumentError> {
        const RULE: OperationRule = authorize::UPDATE_DOCUMENT_DEFAULT_VERSION;
        for _ in 0..ATTEMPTS {
            let there = self.authorize_document(call, &RULE, &input.name).await?;
            let (mut document, default) = there.own()?;
            let mut view = self
                .wanted_version(
                    There::Account(Box::new((document.clone(), default))),
                    &input,
                )
                .await?;
            document.default_version = view.version;
            view.default_version = view.version;
            let change = Change::UpdateDocument {
                document: Box::new(document),
                added: None,
                removed: None,
            };
            let shown = json!({"description": {
                "name": view.name, "defaultVersion": view.version.to_string(),
            }});
            let resource = self.inner.names.document_resource(&view.name);
            let done = Done::with(view)
                .showing(shown)
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

    /// `DeleteDocument`: the document, or one version of it that is not in force.
    ///
    /// # Errors
    /// As [`DocumentError`] says.
    pub async fn delete_document(
        &self,
        call: &Call,
        input: DocumentInput,
    ) -> Result<Recorded<()>, DocumentError> {
        const RULE: OperationRule = authorize::DELETE_DOCUMENT;
        for _ in 0..ATTEMPTS {
            let there = self.authorize_document(call, &RULE, &input.name).await?;
            let (document, default) = there.own()?;
            let name = document.name.clone();
            let change = self.deletion(document, default, &input).await?;
            let done = Done::with(())
                .showing(Value::Null)
                .about([self.inner.names.document_resource(&name)])
                .changing(vec![change]);
            match self.record(call, &RULE, done).await {
                Err(InternalError::Store(StoreError::Conflict(
                    Conflict::DocumentRevision | Conflict::NoDocument,
                ))) => {}
                outcome => {
                    let recorded = outcome?;
                    // Its tags, which may have let sessions be, are gone.
                    self.inner.signals.publish(Signal::Documents);
                    return Ok(recorded);
                }
            }
        }
        Err(StoreError::Conflict(Conflict::DocumentRevision).into())
    }

    async fn deletion(
        &self,
        mut document: Document,
        default: DocumentVersion,
        input: &DocumentInput,
    ) -> Result<Change, DocumentError> {
        if input.version.is_none() && input.version_name.is_none() {
            if !document.shared_with.is_empty() {
                let why = "The document is shared: stop sharing it before you delete it.";
                return Err(DocumentError::InvalidOperation(why.to_owned()));
            }
            return Ok(Change::DeleteDocument {
                name: document.name,
                revision: document.revision,
            });
        }
        let there = There::Account(Box::new((document.clone(), default)));
        let wanted = self.wanted_version(there, input).await?;
        if wanted.version == document.default_version {
            let why = "The default version cannot be deleted: make another one the default before.";
            return Err(DocumentError::InvalidOperation(why.to_owned()));
        }
        if wanted.version == document.latest_version {
            let before = self.inner.state.document_versions(
                &document.name,
                Some(document.latest_version),
                1,
            );
            let before = before.await?;
            let newest = before.first().map(|version| version.number);
            document.latest_version = newest.unwrap_or(document.default_version);
        }
        Ok(Change::UpdateDocument {
            document: Box::new(document),
            added: None,
            removed: Some(wanted.version),
        })
    }
}

/// Session documents consist of their content alone.
fn no_more(has_more: bool) -> Result<(), DocumentError> {
    if has_more {
        let why = "Session documents have neither attachments nor required documents.";
        return Err(DocumentError::Validation(why.to_owned()));
    }
    Ok(())
}
