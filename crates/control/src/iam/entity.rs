//! Users, groups, roles and customer managed policies by the names that calls give them: found or
//! refused in AWS's words, with their ARNs, tags and lines in the trail.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sortie_evidence::Resource;
use sortie_ports::{Change, Grants, Group, Identity, ManagedPolicy, Role, User};
use sortie_types::{Arn, Tag};

use super::error::IamError;
use crate::{arns::Names, directory::Directory};

/// Tags of one entity.
const TAG_LIMIT: usize = 50;

/// Whose policies: a user's, a group's or a role's, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A group.
    Group(String),
    /// A role.
    Role(String),
    /// A user.
    User(String),
}

/// A holder that exists.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held<'a> {
    Group(&'a Group),
    Role(&'a Role),
    User(&'a User),
}

impl Holder {
    /// What it is, as AWS's texts say it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Group(_) => "group",
            Self::Role(_) => "role",
            Self::User(_) => "user",
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Group(name) | Self::Role(name) | Self::User(name) => name,
        }
    }

    /// The one there is.
    pub(crate) fn find<'a>(&self, directory: &'a Directory) -> Result<Held<'a>, IamError> {
        let found = match self {
            Self::Group(name) => directory.group(name).map(Held::Group),
            Self::Role(name) => directory.role(name).map(Held::Role),
            Self::User(name) => directory.user(name).map(Held::User),
        };
        found.ok_or_else(|| not_found(self.kind(), self.name()))
    }

    /// The ARN to check an action on, whether there is such a one or not.
    pub(crate) fn arn(&self, directory: &Directory, names: &Names) -> Arn {
        self.find(directory).map_or_else(
            |_| identity_arn(names, self.kind(), "/", self.name()),
            |held| held.arn(names),
        )
    }
}

impl<'a> Held<'a> {
    pub(crate) fn arn(self, names: &Names) -> Arn {
        match self {
            Self::Group(group) => group_arn(names, group),
            Self::Role(role) => role_arn(names, role),
            Self::User(user) => user_arn(names, user),
        }
    }

    pub(crate) fn grants(self) -> &'a Grants {
        match self {
            Self::Group(group) => &group.grants,
            Self::Role(role) => &role.grants,
            Self::User(user) => &user.grants,
        }
    }

    pub(crate) fn boundary(self) -> Option<&'a Arn> {
        match self {
            Self::Group(_) => None,
            Self::Role(role) => role.permissions_boundary.as_ref(),
            Self::User(user) => user.permissions_boundary.as_ref(),
        }
    }

    pub(crate) fn tags(self) -> &'a [Tag] {
        match self {
            Self::Group(_) => &[],
            Self::Role(role) => &role.tags,
            Self::User(user) => &user.tags,
        }
    }

    /// The row with other policies.
    pub(crate) fn with_grants(self, grants: Grants) -> Change {
        Change::PutIdentity(Box::new(match self {
            Self::Group(group) => Identity::Group(Group {
                grants,
                ..group.clone()
            }),
            Self::Role(role) => Identity::Role(Role {
                grants,
                ..role.clone()
            }),
            Self::User(user) => Identity::User(User {
                grants,
                ..user.clone()
            }),
        }))
    }

    /// The row with another boundary. Groups have none.
    pub(crate) fn with_boundary(self, boundary: Option<Arn>) -> Change {
        Change::PutIdentity(Box::new(match self {
            Self::Group(group) => Identity::Group(group.clone()),
            Self::Role(role) => Identity::Role(Role {
                permissions_boundary: boundary,
                ..role.clone()
            }),
            Self::User(user) => Identity::User(User {
                permissions_boundary: boundary,
                ..user.clone()
            }),
        }))
    }

    pub(crate) fn resource(self, names: &Names) -> Resource {
        let kind = match self {
            Self::Group(_) => "AWS::IAM::Group",
            Self::Role(_) => "AWS::IAM::Role",
            Self::User(_) => "AWS::IAM::User",
        };
        Resource {
            kind,
            arn: self.arn(names),
        }
    }
}

/// The ARN of something of IAM's: its path stands before its name.
pub(crate) fn identity_arn(names: &Names, kind: &str, path: &str, name: &str) -> Arn {
    let resource = format!("{kind}{path}{name}");
    Arn::new("iam", "", names.account.as_str(), &resource)
}

pub(crate) fn user_arn(names: &Names, user: &User) -> Arn {
    identity_arn(names, "user", &user.path, user.name.as_str())
}

pub(crate) fn group_arn(names: &Names, group: &Group) -> Arn {
    identity_arn(names, "group", &group.path, &group.name)
}

pub(crate) fn role_arn(names: &Names, role: &Role) -> Arn {
    identity_arn(names, "role", &role.path, &role.name)
}

pub(crate) fn policy_arn(names: &Names, policy: &ManagedPolicy) -> Arn {
    identity_arn(names, "policy", &policy.path, &policy.name)
}

pub(crate) fn not_found(kind: &str, name: &str) -> IamError {
    IamError::NoSuchEntity(format!("The {kind} with name {name} cannot be found."))
}

/// The role of this name.
pub(crate) fn role<'a>(directory: &'a Directory, name: &str) -> Result<&'a Role, IamError> {
    directory.role(name).ok_or_else(|| not_found("role", name))
}

/// The name by which listings are ordered and page on: AWS's names differ by more than case.
pub(crate) fn sort_key(name: &str) -> String {
    name.to_lowercase()
}

/// An ARN as a caller wrote it.
pub(crate) fn parse_arn(text: &str) -> Result<Arn, IamError> {
    text.parse()
        .map_err(|_| IamError::InvalidInput(format!("ARN {text} is not valid.")))
}

/// Checks tags as a caller gave them; in order of keys.
pub(crate) fn new_tags(given: &[(String, String)]) -> Result<Vec<Tag>, IamError> {
    let mut keys = BTreeSet::new();
    let mut tags = Vec::with_capacity(given.len());
    for (key, value) in given {
        if !keys.insert(key.to_lowercase()) {
            let why = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(IamError::InvalidInput(why.to_owned()));
        }
        let tag =
            Tag::new(key, value).map_err(|error| IamError::InvalidInput(error.to_string()))?;
        tags.push(tag);
    }
    tags.sort();
    within_limit(tags)
}

/// The tags there are with those given. A key that differs in case alone is the same key, and keeps
/// the case it was given last.
pub(crate) fn tagged(present: &[Tag], given: &[(String, String)]) -> Result<Vec<Tag>, IamError> {
    let given = new_tags(given)?;
    let is_given = |tag: &Tag| {
        given
            .iter()
            .any(|new| new.key.to_lowercase() == tag.key.to_lowercase())
    };
    let mut tags: Vec<Tag> = present
        .iter()
        .filter(|tag| !is_given(tag))
        .cloned()
        .collect();
    tags.extend(given.iter().cloned());
    tags.sort();
    within_limit(tags)
}

/// The tags there are without those of these keys.
pub(crate) fn untagged(present: &[Tag], keys: &[String]) -> Vec<Tag> {
    let goes = |tag: &&Tag| {
        keys.iter()
            .any(|key| key.to_lowercase() == tag.key.to_lowercase())
    };
    present.iter().filter(|tag| !goes(tag)).cloned().collect()
}

fn within_limit(tags: Vec<Tag>) -> Result<Vec<Tag>, IamError> {
    if tags.len() > TAG_LIMIT {
        let why = format!("The number of tags has reached the maximum limit of {TAG_LIMIT}.");
        return Err(IamError::LimitExceeded(why));
    }
    Ok(tags)
}

/// Tags as records of the trail show them.
pub(crate) fn trail_tags(tags: &[Tag]) -> Value {
    tags.iter()
        .map(|tag| json!({"key": tag.key, "value": tag.value}))
        .collect()
}

/// Whether a path lies under a prefix.
pub(crate) fn under(path: &str, prefix: Option<&str>) -> bool {
    prefix.is_none_or(|prefix| path.starts_with(prefix))
}
