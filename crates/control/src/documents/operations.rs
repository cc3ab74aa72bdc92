//! The operations on documents. A caller who may not ask about a document does not learn whether there
//! is one.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use sortie_ports::{
    Change, Conflict, Document, DocumentVersion, DocumentVersionKey, Signal, StoreError,
};
use sortie_types::{InvalidTag, Tag, Timestamp};

use super::{
    DEFAULT_DOCUMENT, SessionType,
    builtin::{BUILT_IN, BuiltIn, CREATED, RESERVED_PREFIXES, built_in},
    name,
    parse::{Format, Unreadable, read, write},
    schema::{InvalidContent, SessionDocument},
    start::{content_of, stored},
};
use crate::{
    Control,
    authorize::{self, Ask, AskedResource, Denied, OperationRule},
    call::{Call, InternalError, Recorded, internal, refusable},
    context::Keys,
    sessions::asked_document,
    tags::{TAG_LIMIT, parse_tags},
    token,
    trail::Done,
};

/// The type of all documents here.
const SESSION: &str = "Session";
/// How many documents an account may have.
const MOST_DOCUMENTS: usize = 500;
/// How many versions a document may have.
const MOST_VERSIONS: usize = 1_000;
/// Documents, or versions, on a page, at most and unless asked otherwise.
const PAGE: usize = 50;
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

/// One condition of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentFilter {
    /// `DocumentType`, `Name`, `Owner`, `PlatformTypes`, `SearchKeyword`, `TargetType` or `tag:` and
    /// the key of a tag.
    pub key: String,
    /// One of them must be met.
    pub values: Vec<String>,
}

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

/// A parameter as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentParameterView {
    /// Its name.
    pub name: String,
    /// `String` and the like.
    pub kind: &'static str,
    /// For people.
    pub description: Option<String>,
    /// As text.
    pub default: Option<String>,
}

/// One version of a document, and what is known of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentView {
    /// The document.
    pub name: String,
    /// The account, or who made it for every installation.
    pub owner: String,
    /// When the document was made.
    pub created: Timestamp,
    /// This version.
    pub version: i64,
    /// Its name.
    pub version_name: Option<String>,
    /// When the version was made.
    pub version_created: Timestamp,
    /// For people.
    pub display_name: Option<String>,
    /// As the version says.
    pub description: Option<String>,
    /// In order of names.
    pub parameters: Vec<DocumentParameterView>,
    /// `Windows`, `Linux`, `MacOS`.
    pub platform_types: Vec<&'static str>,
    /// The newest version.
    pub latest_version: i64,
    /// The version in force.
    pub default_version: i64,
    /// `JSON` or `YAML`.
    pub format: String,
    /// As it was given.
    pub content: String,
    /// SHA-256 of the content, in hex.
    pub hash: String,
    /// What it is for.
    pub target_type: Option<String>,
    /// In order of keys.
    pub tags: Vec<Tag>,
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

impl DocumentView {
    fn of_built_in(built_in: &BuiltIn) -> Self {
        let version = DocumentVersion {
            document: built_in.name.to_owned(),
            number: 1,
            version_name: None,
            display_name: None,
            format: Format::Json.as_str().to_owned(),
            content: built_in.content.clone(),
            created: CREATED,
        };
        let document = Document {
            name: built_in.name.to_owned(),
            created: CREATED,
            default_version: 1,
            latest_version: 1,
            next_version: 2,
            target_type: None,
            shared_with: std::collections::BTreeMap::new(),
            revision: 0,
            tags: Vec::new(),
        };
        let content = Some(&built_in.document);
        Self::new(document, version, built_in.owner.to_owned(), content)
    }

    fn new(
        document: Document,
        version: DocumentVersion,
        owner: String,
        content: Option<&SessionDocument>,
    ) -> Self {
        let parameters = content.map(|content| content.parameters.iter());
        let parameter =
            |(name, parameter): (&String, &super::parameters::Parameter)| DocumentParameterView {
                name: name.clone(),
                kind: parameter.kind.as_str(),
                description: parameter.description.clone(),
                default: parameter.default.clone(),
            };
        let description = content.map(|content| content.description.clone());
        Self {
            owner,
            created: document.created,
            version: version.number,
            version_name: version.version_name,
            version_created: version.created,
            display_name: version.display_name,
            description: description.filter(|description| !description.is_empty()),
            parameters: parameters.into_iter().flatten().map(parameter).collect(),
            platform_types: content
                .map(SessionDocument::platform_types)
                .unwrap_or_default(),
            latest_version: document.latest_version,
            default_version: document.default_version,
            format: version.format,
            hash: hash(&version.content),
            content: version.content,
            target_type: document.target_type,
            tags: document.tags,
            name: document.name,
        }
    }

    /// As the trail shows it.
    fn shown(&self) -> Value {
        json!({"documentDescription": {
            "name": self.name,
            "documentVersion": self.version.to_string(),
            "documentType": SESSION,
            "documentFormat": self.format,
            "defaultVersion": self.default_version.to_string(),
            "latestVersion": self.latest_version.to_string(),
            "hash": self.hash,
            "hashType": "Sha256",
        }})
    }

    fn meets(&self, filter: &DocumentFilter, account: &str) -> bool {
        let any = |meets: &dyn Fn(&str) -> bool| filter.values.iter().any(|value| meets(value));
        match filter.key.as_str() {
            "DocumentType" => any(&|value| value == SESSION),
            "Name" => any(&|value| self.name.starts_with(value)),
            "Owner" => any(&|value| self.is_owned(value, account)),
            "PlatformTypes" => any(&|value| {
                let mut platforms = self.platform_types.iter();
                platforms.any(|platform| platform.eq_ignore_ascii_case(value))
            }),
            "SearchKeyword" => any(&|value| {
                let value = value.to_lowercase();
                let description = self.description.as_deref().unwrap_or_default();
                [self.name.as_str(), description]
                    .iter()
                    .any(|text| text.to_lowercase().contains(&value))
            }),
            "TargetType" => any(&|value| self.target_type.as_deref() == Some(value)),
            key => {
                let key = key.strip_prefix("tag:").unwrap_or_default();
                let tag = self.tags.iter().find(|tag| tag.key == key);
                tag.is_some_and(|tag| any(&|value| tag.value == value))
            }
        }
    }

    fn is_owned(&self, by: &str, account: &str) -> bool {
        let own = self.owner == account;
        match by {
            "All" => true,
            "Private" | "Self" => own,
            "Public" => !own,
            "ThirdParty" => !own && self.owner != "Amazon",
            owner => self.owner == owner,
        }
    }
}

/// Whether documents can be listed by it.
fn is_filter_key(key: &str) -> bool {
    let known = [
        "DocumentType",
        "Name",
        "Owner",
        "PlatformTypes",
        "SearchKeyword",
        "TargetType",
    ];
    known.contains(&key) || key.strip_prefix("tag:").is_some_and(|key| !key.is_empty())
}

fn hash(content: &str) -> String {
    let digest = digest(&SHA256, content.as_bytes());
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
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

    fn document_view(&self, document: Document, version: DocumentVersion) -> DocumentView {
        let content = stored(&version).ok();
        let owner = self.inner.names.account.to_string();
        DocumentView::new(document, version, owner, content.as_ref())
    }

    /// The version that is meant, the one in force unless another is named.
    async fn wanted_version(
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

/// Session documents consist of their content alone.
fn no_more(has_more: bool) -> Result<(), DocumentError> {
    if has_more {
        let why = "Session documents have neither attachments nor required documents.";
        return Err(DocumentError::Validation(why.to_owned()));
    }
    Ok(())
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
