//! Documents as they are shown, and which of them a listing is of. Pure.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use sortie_ports::{Document, DocumentVersion};
use sortie_types::{Tag, Timestamp};

use super::{
    builtin::{BuiltIn, CREATED},
    parameters::Parameter,
    parse::Format,
    schema::SessionDocument,
};

/// The type of all documents here.
pub(super) const SESSION: &str = "Session";

/// One condition of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentFilter {
    /// `DocumentType`, `Name`, `Owner`, `PlatformTypes`, `SearchKeyword`, `TargetType` or `tag:` and
    /// the key of a tag.
    pub key: String,
    /// One of them must be met.
    pub values: Vec<String>,
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

impl DocumentView {
    pub(super) fn of_built_in(built_in: &BuiltIn) -> Self {
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
            shared_with: BTreeMap::new(),
            revision: 0,
            tags: Vec::new(),
        };
        let content = Some(&built_in.document);
        Self::new(document, version, built_in.owner.to_owned(), content)
    }

    pub(super) fn new(
        document: Document,
        version: DocumentVersion,
        owner: String,
        content: Option<&SessionDocument>,
    ) -> Self {
        let parameters = content.map(|content| content.parameters.iter());
        let parameter = |(name, parameter): (&String, &Parameter)| DocumentParameterView {
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
    pub(super) fn shown(&self) -> Value {
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

    pub(super) fn meets(&self, filter: &DocumentFilter, account: &str) -> bool {
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
pub(super) fn is_filter_key(key: &str) -> bool {
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
