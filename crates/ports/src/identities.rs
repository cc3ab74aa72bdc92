//! The rows of identities: users, groups, roles, managed policies, access keys and MFA devices.
//!
//! An account holds at most a few thousand of them (the quotas of IAM), they are read at every call
//! and change rarely. So each is one row with a document, all are read together, and a revision that
//! every change raises tells a reader whether what it has is still true. Names, paths and documents
//! are checked by whoever writes them; this module only keeps them.
//!
//! A member that this program does not know makes a row unreadable: passed over, a boundary that
//! somebody misspelt would bound nobody.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sortie_types::{AccessKeyId, Arn, Tag, Timestamp, UniqueId, UserName};

/// Everything there is at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// Raised by every change.
    pub revision: i64,
    /// In no particular order.
    pub rows: Vec<Identity>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// A long-lived access key.
    AccessKey(AccessKey),
    /// A group.
    Group(Group),
    /// A virtual MFA device, assigned or not.
    MfaDevice(MfaDevice),
    /// A customer managed policy.
    Policy(ManagedPolicy),
    /// A role.
    Role(Role),
    /// A user.
    User(User),
}

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IdentityKind {
    /// [`Identity::AccessKey`].
    AccessKey,
    /// [`Identity::Group`].
    Group,
    /// [`Identity::MfaDevice`].
    MfaDevice,
    /// [`Identity::Policy`].
    Policy,
    /// [`Identity::Role`].
    Role,
    /// [`Identity::User`].
    User,
}

impl IdentityKind {
    /// The word of the kind in a row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessKey => "AccessKey",
            Self::Group => "Group",
            Self::MfaDevice => "MfaDevice",
            Self::Policy => "Policy",
            Self::Role => "Role",
            Self::User => "User",
        }
    }
}

impl Identity {
    /// What the row is of.
    #[must_use]
    pub fn kind(&self) -> IdentityKind {
        match self {
            Self::AccessKey(_) => IdentityKind::AccessKey,
            Self::Group(_) => IdentityKind::Group,
            Self::MfaDevice(_) => IdentityKind::MfaDevice,
            Self::Policy(_) => IdentityKind::Policy,
            Self::Role(_) => IdentityKind::Role,
            Self::User(_) => IdentityKind::User,
        }
    }

    /// The row's key among those of its kind: the unique id, the access key's id, or the device's
    /// serial number.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::AccessKey(key) => key.id.as_str(),
            Self::Group(group) => group.unique_id.as_str(),
            Self::MfaDevice(device) => device.serial_number.as_str(),
            Self::Policy(policy) => policy.unique_id.as_str(),
            Self::Role(role) => role.unique_id.as_str(),
            Self::User(user) => user.unique_id.as_str(),
        }
    }
}

/// The policies of a user, group or role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Managed policies by ARN, ours and AWS's, in the order of attachment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<Arn>,
    /// Inline policies: name and document as it was given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inline: BTreeMap<String, String>,
}

/// An IAM user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `AIDA…`; never used again, unlike the name.
    pub unique_id: UniqueId,
    /// Unique among living users, without regard to case.
    pub name: UserName,
    /// `/` or `/a/b/`.
    pub path: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its own policies.
    #[serde(default)]
    pub grants: Grants,
    /// The groups it is in, by unique id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<UniqueId>,
    /// The managed policy that bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions_boundary: Option<Arn>,
    /// Its tags, in order of keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Its password, if it may sign in with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_profile: Option<LoginProfile>,
}

/// A user's password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginProfile {
    /// Argon2id in PHC form.
    pub password_hash: String,
    /// Whether it must be changed before anything else.
    pub reset_required: bool,
    /// When the password was first set.
    pub created: Timestamp,
    /// When it was set anew, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
}

impl LoginProfile {
    /// Since when the password is the one it is. Whoever signed in before did so with another.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.changed.unwrap_or(self.created)
    }
}

impl std::fmt::Debug for LoginProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginProfile")
            .field("reset_required", &self.reset_required)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// A group of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// `AGPA…`.
    pub unique_id: UniqueId,
    /// Unique among living groups, without regard to case.
    pub name: String,
    /// `/` or `/a/b/`.
    pub path: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its policies.
    #[serde(default)]
    pub grants: Grants,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// `AROA…`.
    pub unique_id: UniqueId,
    /// Unique among living roles, without regard to case.
    pub name: String,
    /// `/` or `/a/b/`.
    pub path: String,
    /// When it was made.
    pub created: Timestamp,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its policies.
    #[serde(default)]
    pub grants: Grants,
    /// Who may assume it: the document as it was given, but with the unique ids of users and roles in
    /// place of their ARNs, so that a name made anew inherits nothing.
    pub trust_policy: String,
    /// 3600 to 43200.
    pub max_session_seconds: i64,
    /// The managed policy that bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions_boundary: Option<Arn>,
    /// Its tags, in order of keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// A customer managed policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedPolicy {
    /// `ANPA…`.
    pub unique_id: UniqueId,
    /// Unique among living policies, without regard to case.
    pub name: String,
    /// `/` or `/a/b/`.
    pub path: String,
    /// Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When a version was last added, removed or made the default one.
    pub updated: Timestamp,
    /// Oldest first; at least one, at most five.
    pub versions: Vec<PolicyVersion>,
    /// The version in force, such as 1 for `v1`.
    pub default_version: u32,
    /// The number of the next version; numbers are never used again.
    pub next_version: u32,
    /// Its tags, in order of keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// One version of a managed policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyVersion {
    /// 1 for `v1`.
    pub number: u32,
    /// As it was given.
    pub document: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A user's long-lived access key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// `AKIA…`.
    pub id: AccessKeyId,
    /// Whose it is.
    pub user: UniqueId,
    /// The secret, sealed under a key derived from the root key.
    #[serde(with = "hex")]
    pub sealed_secret: Vec<u8>,
    /// Whether it may be used.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// A virtual MFA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MfaDevice {
    /// Its ARN.
    pub serial_number: Arn,
    /// The TOTP seed, sealed under a key derived from the root key.
    #[serde(with = "hex")]
    pub sealed_seed: Vec<u8>,
    /// When it was made.
    pub created: Timestamp,
    /// Whose it is, once it is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UniqueId>,
    /// When it was enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<Timestamp>,
    /// How many steps of 30 s its clock is ahead of ours, as resynchronisation found.
    #[serde(default)]
    pub drift_steps: i64,
    /// Its tags, in order of keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// When and for what an access key, a password, a role or a device was last used. Kept apart from
/// the rows, since use is no change of who may do what: it raises no revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityUse {
    /// When.
    pub at: Timestamp,
    /// The service's signing name, where one was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The region of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Bytes in a document: lower-case hex, which every engine can make of its own byte strings.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ptr_arg, reason = "serde gives the field")]
    pub(super) fn serialize<S: Serializer>(bytes: &Vec<u8>, to: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        if !text.len().is_multiple_of(2) {
            return Err(D::Error::custom("an odd number of hex digits"));
        }
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|digit| {
                digit
                    .to_digit(16)
                    .and_then(|value| u8::try_from(value).ok())
            })
            .collect();
        let digits = digits.ok_or_else(|| D::Error::custom("not hex"))?;
        let bytes = digits.chunks_exact(2);
        Ok(bytes
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect())
    }
}
