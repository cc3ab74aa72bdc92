//! The rows of session documents, their versions, and service settings.

use std::collections::BTreeMap;

use sortie_types::{Tag, Timestamp};

/// A document of the account. What it says is in its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Unique among documents.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The version in force; there is one of this number.
    pub default_version: i64,
    /// The newest version; there is one of this number.
    pub latest_version: i64,
    /// The number of the next version; numbers are never used again.
    pub next_version: i64,
    /// What it is for, as its author says.
    pub target_type: Option<String>,
    /// Accounts that it is shared with, and which version they get.
    pub shared_with: BTreeMap<String, Option<String>>,
    /// Raised by every change of the row. Tags are no part of it.
    pub revision: i64,
    /// In order of keys.
    pub tags: Vec<Tag>,
}

/// One version of a document. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentVersion {
    /// Of which document.
    pub document: String,
    /// From 1.
    pub number: i64,
    /// Unique among the versions of the document.
    pub version_name: Option<String>,
    /// For people.
    pub display_name: Option<String>,
    /// `JSON` or `YAML`.
    pub format: String,
    /// As it was given.
    pub content: String,
    /// When it was made.
    pub created: Timestamp,
}

/// Which version of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentVersionKey<'a> {
    /// That of the number.
    Number(i64),
    /// That of the name.
    Named(&'a str),
}

/// A setting that is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSetting {
    /// Such as `/ssm/managed-instance/activation-tier`.
    pub id: String,
    /// What was set.
    pub value: String,
    /// When it was set.
    pub modified: Timestamp,
    /// ARN of who set it.
    pub modified_by: String,
}
