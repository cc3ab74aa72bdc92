//! Directories for the tests of pure edits: rows that changes can be applied to, without IO.

use std::collections::BTreeMap;

use sortie_ports::{
    Change, Grants, Group, Identities, Identity, IdentityKind, ManagedPolicy, PolicyVersion, Role,
    User,
};
use sortie_types::{Timestamp, UniqueId, UniqueIdKind};

use super::error::IamError;
use crate::{
    arns::Names,
    directory::{Directory, Edit},
};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_777_881_600_000);
pub(crate) const ACCOUNT: &str = "111122223333";
pub(crate) const READ_ONLY: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
pub(crate) const SERVICE_TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Principal":{"Service":"ssm.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

pub(crate) fn names() -> Names {
    Names {
        account: ACCOUNT.parse().unwrap(),
        region: "local-1".parse().unwrap(),
    }
}

pub(crate) fn id(kind: UniqueIdKind, byte: u8) -> UniqueId {
    UniqueId::from_random(kind, [byte; 17])
}

pub(crate) fn allow(action: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"{action}","Resource":"*"}}]}}"#
    )
}

pub(crate) fn user(name: &str, byte: u8) -> User {
    User {
        unique_id: id(UniqueIdKind::User, byte),
        name: name.parse().unwrap(),
        path: "/team/".to_owned(),
        created: NOW,
        grants: Grants::default(),
        groups: Vec::new(),
        permissions_boundary: None,
        tags: Vec::new(),
        login_profile: None,
    }
}

pub(crate) fn group(name: &str, byte: u8) -> Group {
    Group {
        unique_id: id(UniqueIdKind::Group, byte),
        name: name.to_owned(),
        path: "/".to_owned(),
        created: NOW,
        grants: Grants::default(),
    }
}

pub(crate) fn role(name: &str, byte: u8) -> Role {
    Role {
        unique_id: id(UniqueIdKind::Role, byte),
        name: name.to_owned(),
        path: "/".to_owned(),
        created: NOW,
        description: None,
        grants: Grants::default(),
        trust_policy: SERVICE_TRUST.to_owned(),
        max_session_seconds: 3_600,
        permissions_boundary: None,
        tags: Vec::new(),
    }
}

pub(crate) fn policy(name: &str, byte: u8) -> ManagedPolicy {
    ManagedPolicy {
        unique_id: id(UniqueIdKind::ManagedPolicy, byte),
        name: name.to_owned(),
        path: "/".to_owned(),
        description: None,
        created: NOW,
        updated: NOW,
        versions: vec![PolicyVersion {
            number: 1,
            document: allow("ssm:StartSession"),
            created: NOW,
        }],
        default_version: 1,
        next_version: 2,
        tags: Vec::new(),
    }
}

/// The rows of a state.
#[derive(Default)]
pub(crate) struct Rows {
    rows: BTreeMap<(IdentityKind, String), Identity>,
}

impl Rows {
    pub(crate) fn of(rows: impl IntoIterator<Item = Identity>) -> Self {
        let mut made = Self::default();
        for row in rows {
            made.put(row);
        }
        made
    }

    fn put(&mut self, row: Identity) {
        self.rows.insert((row.kind(), row.key().to_owned()), row);
    }

    pub(crate) fn directory(&self) -> Directory {
        let identities = Identities {
            revision: 1,
            rows: self.rows.values().cloned().collect(),
        };
        Directory::new(identities, &ACCOUNT.parse().unwrap(), None)
    }

    /// What an edit of the present directory comes to, after it was committed.
    pub(crate) fn edit<T>(
        &mut self,
        edit: impl FnOnce(&Directory) -> Result<Edit<T>, IamError>,
    ) -> Result<T, IamError> {
        let done = edit(&self.directory())?;
        for change in done.changes {
            match change {
                Change::PutIdentity(row) => self.put(*row),
                Change::RemoveIdentity { kind, key } => {
                    assert!(self.rows.remove(&(kind, key)).is_some());
                }
                other => panic!("not of an identity: {other:?}"),
            }
        }
        Ok(done.answer)
    }
}

/// The text of what must be a refusal.
pub(crate) fn text<T>(outcome: Result<T, IamError>) -> String {
    match outcome {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.to_string(),
    }
}
