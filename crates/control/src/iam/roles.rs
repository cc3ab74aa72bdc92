//! Roles: who may be assumed, by whom, and for how long.

use serde_json::{Value, json};
use sortie_ports::{Change, Identity, IdentityKind, IdentityUse, Role};
use sortie_types::{Arn, Tag, Timestamp, UniqueId, UniqueIdKind};

use super::{
    ask,
    boundaries::boundary,
    entity::{Held, new_tags, role, role_arn, sort_key, tagged, trail_tags, under, untagged},
    error::IamError,
    page::{Page, PageRequest},
    trust,
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, OperationRule},
    call::{Call, Recorded},
    directory::{Directory, Edit},
    mint,
};

/// Roles of an account.
pub(crate) const ROLES: usize = 1_000;
/// How long a session of a role may last, unless the role says otherwise.
const SESSION_SECONDS: i64 = 3_600;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateRoleInput {
    /// `/` when absent.
    pub path: Option<String>,
    /// Its name.
    pub name: String,
    /// Who may assume it.
    pub trust_policy: String,
    /// For people.
    pub description: Option<String>,
    /// 3600 to 43200; 3600 when absent.
    pub max_session_seconds: Option<i64>,
    /// The managed policy that bounds it.
    pub permissions_boundary: Option<String>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

/// What to change; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct UpdateRoleInput {
    /// Which.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// 3600 to 43200.
    pub max_session_seconds: Option<i64>,
}

/// A role as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleView {
    /// The row, its trust policy with ARNs of principals.
    pub role: Role,
    /// Its ARN.
    pub arn: Arn,
    /// When it was last assumed, where that was looked up.
    pub last_used: Option<IdentityUse>,
}

pub(crate) fn view(directory: &Directory, names: &Names, role: &Role) -> RoleView {
    RoleView {
        arn: role_arn(names, role),
        role: Role {
            trust_policy: trust::shown(directory, names, &role.trust_policy),
            ..role.clone()
        },
        last_used: None,
    }
}

fn create(
    directory: &Directory,
    names: &Names,
    input: &CreateRoleInput,
    unique_id: &UniqueId,
    now: Timestamp,
) -> Result<Edit<RoleView>, IamError> {
    if directory.role(&input.name).is_some() {
        let why = format!("Role with name {} already exists.", input.name);
        return Err(IamError::EntityAlreadyExists(why));
    }
    if directory.roles().count() >= ROLES {
        let why = format!("Cannot exceed quota for RolesPerAccount: {ROLES}");
        return Err(IamError::LimitExceeded(why));
    }
    let bounded_by = input.permissions_boundary.as_deref();
    let bounded_by = bounded_by.map(|arn| boundary(directory, arn)).transpose()?;
    let role = Role {
        unique_id: unique_id.clone(),
        name: input.name.clone(),
        path: input.path.clone().unwrap_or_else(|| "/".to_owned()),
        created: now,
        description: input.description.clone(),
        grants: sortie_ports::Grants::default(),
        trust_policy: trust::stored(directory, names, &input.trust_policy)?,
        max_session_seconds: input.max_session_seconds.unwrap_or(SESSION_SECONDS),
        permissions_boundary: bounded_by,
        tags: new_tags(&input.tags)?,
    };
    let answer = view(directory, names, &role);
    Ok(Edit {
        response: json!({"role": trail_role(&answer)}),
        resources: vec![Held::Role(&role).resource(names)],
        changes: vec![Change::PutIdentity(Box::new(Identity::Role(role)))],
        answer,
    })
}

fn update(
    directory: &Directory,
    names: &Names,
    input: &UpdateRoleInput,
) -> Result<Edit<RoleView>, IamError> {
    let before = role(directory, &input.name)?;
    let role = Role {
        description: input
            .description
            .clone()
            .or_else(|| before.description.clone()),
        max_session_seconds: input
            .max_session_seconds
            .unwrap_or(before.max_session_seconds),
        ..before.clone()
    };
    Ok(changed(directory, names, role))
}

fn update_trust(
    directory: &Directory,
    names: &Names,
    name: &str,
    text: &str,
) -> Result<Edit<()>, IamError> {
    let role = Role {
        trust_policy: trust::stored(directory, names, text)?,
        ..role(directory, name)?.clone()
    };
    Ok(silent(changed(directory, names, role)))
}

fn delete(directory: &Directory, names: &Names, name: &str) -> Result<Edit<()>, IamError> {
    let role = role(directory, name)?;
    if !role.grants.attached.is_empty() {
        let why = "Cannot delete entity, must detach all policies first.";
        return Err(IamError::DeleteConflict(why.to_owned()));
    }
    if !role.grants.inline.is_empty() {
        let why = "Cannot delete entity, must delete policies first.";
        return Err(IamError::DeleteConflict(why.to_owned()));
    }
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![Held::Role(role).resource(names)],
        changes: vec![Change::RemoveIdentity {
            kind: IdentityKind::Role,
            key: role.unique_id.to_string(),
        }],
    })
}

fn tag(
    directory: &Directory,
    names: &Names,
    name: &str,
    tags: &[(String, String)],
) -> Result<Edit<()>, IamError> {
    let before = role(directory, name)?;
    let role = Role {
        tags: tagged(&before.tags, tags)?,
        ..before.clone()
    };
    Ok(silent(changed(directory, names, role)))
}

fn untag(
    directory: &Directory,
    names: &Names,
    name: &str,
    keys: &[String],
) -> Result<Edit<()>, IamError> {
    let before = role(directory, name)?;
    let role = Role {
        tags: untagged(&before.tags, keys),
        ..before.clone()
    };
    Ok(silent(changed(directory, names, role)))
}

/// A role in place of the one there was.
fn changed(directory: &Directory, names: &Names, role: Role) -> Edit<RoleView> {
    Edit {
        answer: view(directory, names, &role),
        response: Value::Null,
        resources: vec![Held::Role(&role).resource(names)],
        changes: vec![Change::PutIdentity(Box::new(Identity::Role(role)))],
    }
}

/// An edit whose answer says nothing.
fn silent<T>(edit: Edit<T>) -> Edit<()> {
    Edit {
        answer: (),
        response: edit.response,
        resources: edit.resources,
        changes: edit.changes,
    }
}

fn trail_role(view: &RoleView) -> Value {
    let role = &view.role;
    let mut shown = json!({
        "path": role.path,
        "roleName": role.name,
        "roleId": role.unique_id,
        "arn": view.arn,
        "createDate": role.created.iso_seconds(),
        "assumeRolePolicyDocument": role.trust_policy,
    });
    if let (false, Some(members)) = (role.tags.is_empty(), shown.as_object_mut()) {
        members.insert("tags".to_owned(), trail_tags(&role.tags));
    }
    shown
}

fn listed<'a>(
    directory: &'a Directory,
    names: &'a Names,
    prefix: Option<&'a str>,
) -> impl Iterator<Item = (String, RoleView)> + 'a {
    directory
        .roles()
        .filter(move |role| under(&role.path, prefix))
        .map(move |role| (sort_key(&role.name), view(directory, names, role)))
}

impl Control {
    /// `CreateRole`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_role(
        &self,
        call: &Call,
        input: CreateRoleInput,
    ) -> Result<Recorded<RoleView>, IamError> {
        let names = &self.inner.names;
        let id = UniqueId::from_random(UniqueIdKind::Role, mint::random()?);
        let (path, boundary) = (&input.path, &input.permissions_boundary);
        self.change_identities(
            call,
            &authorize::CREATE_ROLE,
            |_| {
                let (path, boundary) = (path.as_deref(), boundary.as_deref());
                ask::new_role(names, path, &input.name, boundary, &input.tags)
            },
            |directory, _| create(directory, names, &input, &id, call.now),
        )
        .await
    }

    /// `GetRole`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_role(&self, call: &Call, name: &str) -> Result<Recorded<RoleView>, IamError> {
        let names = &self.inner.names;
        let used = self.role_use(name).await?;
        self.read_identities(
            call,
            &authorize::GET_ROLE,
            |directory| ask::role(directory, names, name),
            |directory, _| {
                let role = role(directory, name)?;
                Ok(RoleView {
                    last_used: used.clone(),
                    ..view(directory, names, role)
                })
            },
        )
        .await
    }

    async fn role_use(&self, name: &str) -> Result<Option<IdentityUse>, IamError> {
        let directory = self.directory().await?;
        let Some(role) = directory.role(name) else {
            return Ok(None);
        };
        let id = role.unique_id.as_str();
        Ok(self.identity_use(IdentityKind::Role, id).await?)
    }

    /// `ListRoles`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_roles(
        &self,
        call: &Call,
        path_prefix: Option<&str>,
        page: &PageRequest,
    ) -> Result<Recorded<Page<RoleView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_ROLES;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |_| Ask::any(),
            |directory, _| pager.page(listed(directory, names, path_prefix)),
        )
        .await
    }

    /// `UpdateRole`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn update_role(
        &self,
        call: &Call,
        input: UpdateRoleInput,
    ) -> Result<Recorded<RoleView>, IamError> {
        self.change_role(call, &authorize::UPDATE_ROLE, &input)
            .await
    }

    /// `UpdateRoleDescription`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn update_role_description(
        &self,
        call: &Call,
        name: String,
        description: String,
    ) -> Result<Recorded<RoleView>, IamError> {
        let input = UpdateRoleInput {
            name,
            description: Some(description),
            max_session_seconds: None,
        };
        self.change_role(call, &authorize::UPDATE_ROLE_DESCRIPTION, &input)
            .await
    }

    async fn change_role(
        &self,
        call: &Call,
        rule: &OperationRule,
        input: &UpdateRoleInput,
    ) -> Result<Recorded<RoleView>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            rule,
            |directory| ask::role(directory, names, &input.name),
            |directory, _| update(directory, names, input),
        )
        .await
    }

    /// `UpdateAssumeRolePolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn update_assume_role_policy(
        &self,
        call: &Call,
        name: &str,
        document: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::UPDATE_ASSUME_ROLE_POLICY,
            |directory| ask::role(directory, names, name),
            |directory, _| update_trust(directory, names, name, document),
        )
        .await
    }

    /// `DeleteRole`. Nodes that act with it are refused from then on.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_role(&self, call: &Call, name: &str) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::DELETE_ROLE,
            |directory| ask::role(directory, names, name),
            |directory, _| delete(directory, names, name),
        )
        .await
    }

    /// `TagRole`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn tag_role(
        &self,
        call: &Call,
        name: &str,
        tags: &[(String, String)],
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::TAG_ROLE,
            |directory| ask::with_request_tags(ask::role(directory, names, name), tags),
            |directory, _| tag(directory, names, name, tags),
        )
        .await
    }

    /// `UntagRole`. Keys that the role does not have are fine.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn untag_role(
        &self,
        call: &Call,
        name: &str,
        keys: &[String],
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::UNTAG_ROLE,
            |directory| ask::role(directory, names, name).list("aws:TagKeys", keys.to_vec()),
            |directory, _| untag(directory, names, name, keys),
        )
        .await
    }

    /// `ListRoleTags`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_role_tags(
        &self,
        call: &Call,
        name: &str,
        page: &PageRequest,
    ) -> Result<Recorded<Page<Tag>>, IamError> {
        const RULE: OperationRule = authorize::LIST_ROLE_TAGS;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask::role(directory, names, name),
            |directory, _| {
                let tags = &role(directory, name)?.tags;
                pager.page(tags.iter().map(|tag| (tag.key.clone(), tag.clone())))
            },
        )
        .await
    }

    /// `ListInstanceProfilesForRole`. There are no instance profiles here; that a role has none is
    /// true of those alone that exist.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_instance_profiles_for_role(
        &self,
        call: &Call,
        name: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.read_identities(
            call,
            &authorize::LIST_INSTANCE_PROFILES_FOR_ROLE,
            |directory| ask::role(directory, names, name),
            |directory, _| role(directory, name).map(|_| ()),
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::testing::{self, NOW, READ_ONLY, Rows, SERVICE_TRUST, names, text};

    fn input(name: &str) -> CreateRoleInput {
        CreateRoleInput {
            name: name.to_owned(),
            trust_policy: SERVICE_TRUST.to_owned(),
            ..CreateRoleInput::default()
        }
    }

    fn make(rows: &mut Rows, input: &CreateRoleInput, byte: u8) -> Result<RoleView, IamError> {
        let id = testing::id(UniqueIdKind::Role, byte);
        rows.edit(|directory| create(directory, &names(), input, &id, NOW))
    }

    #[test]
    fn a_role_is_made_once_whatever_the_case() {
        let mut rows = Rows::default();
        let wanted = CreateRoleInput {
            path: Some("/service-role/".to_owned()),
            permissions_boundary: Some(READ_ONLY.to_owned()),
            tags: vec![("b".into(), "2".into()), ("a".into(), "1".into())],
            ..input("Nodes")
        };
        let made = make(&mut rows, &wanted, 1).unwrap();
        assert_eq!(
            made.arn.as_str(),
            "arn:aws:iam::111122223333:role/service-role/Nodes"
        );
        assert_eq!(made.role.max_session_seconds, 3_600);
        assert_eq!(made.role.tags.first().unwrap().key, "a");
        let refused = make(&mut rows, &input("nodes"), 2);
        assert_eq!(text(refused), "Role with name nodes already exists.");
    }

    #[test]
    fn what_cannot_be_a_role_is_refused_in_awss_words() {
        let mut rows = Rows::default();
        let tags = |tags: &[(&str, &str)]| CreateRoleInput {
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..input("Nodes")
        };
        let bounded = |arn: &str| CreateRoleInput {
            permissions_boundary: Some(arn.to_owned()),
            ..input("Nodes")
        };
        let missing = "arn:aws:iam::111122223333:policy/Nothing";
        for (input, said) in [
            (
                tags(&[("A", "1"), ("a", "2")]),
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ),
            (
                bounded(missing),
                "Scope ARN: arn:aws:iam::111122223333:policy/Nothing does not exist or is not \
                 attachable.",
            ),
            (bounded("x"), "ARN x is not valid."),
        ] {
            assert_eq!(text(make(&mut rows, &input, 1)), said);
        }
        assert!(make(&mut rows, &tags(&[("aws:x", "1")]), 1).is_err());
        assert!(rows.directory().roles().next().is_none());
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let mut rows = Rows::default();
        let wanted = CreateRoleInput {
            description: Some("first".to_owned()),
            max_session_seconds: Some(7_200),
            ..input("Nodes")
        };
        make(&mut rows, &wanted, 1).unwrap();
        let change = UpdateRoleInput {
            name: "Nodes".to_owned(),
            max_session_seconds: Some(4_000),
            ..UpdateRoleInput::default()
        };
        let changed = rows
            .edit(|directory| update(directory, &names(), &change))
            .unwrap();
        assert_eq!(changed.role.description.as_deref(), Some("first"));
        assert_eq!(changed.role.max_session_seconds, 4_000);
    }

    #[test]
    fn a_role_with_policies_stays() {
        let mut role = testing::role("Nodes", 1);
        role.grants.attached.push(READ_ONLY.parse().unwrap());
        role.grants
            .inline
            .insert("p".to_owned(), testing::allow("ssm:*"));
        let mut rows = Rows::of([Identity::Role(role.clone())]);
        let gone = |rows: &mut Rows| {
            rows.edit(|directory| delete(directory, &names(), "nodes"))
                .map_err(|error| error.to_string())
        };
        let refused = gone(&mut rows).unwrap_err();
        assert_eq!(
            refused,
            "Cannot delete entity, must detach all policies first."
        );
        role.grants.attached.clear();
        let mut rows = Rows::of([Identity::Role(role.clone())]);
        let refused = gone(&mut rows).unwrap_err();
        assert_eq!(refused, "Cannot delete entity, must delete policies first.");
        role.grants.inline.clear();
        let mut rows = Rows::of([Identity::Role(role)]);
        gone(&mut rows).unwrap();
        let refused = gone(&mut rows).unwrap_err();
        assert_eq!(refused, "The role with name nodes cannot be found.");
    }

    #[test]
    fn a_tag_replaces_the_one_of_its_key_whatever_the_case() {
        let mut rows = Rows::of([Identity::Role(testing::role("Nodes", 1))]);
        for given in [("Env", "a"), ("env", "b"), ("Team", "c")] {
            let given = [(given.0.to_owned(), given.1.to_owned())];
            rows.edit(|directory| tag(directory, &names(), "Nodes", &given))
                .unwrap();
        }
        let tags = rows.directory().role("Nodes").unwrap().tags.clone();
        let found: Vec<_> = tags.iter().map(|tag| (&*tag.key, &*tag.value)).collect();
        assert_eq!(found, [("Team", "c"), ("env", "b")]);
        let keys = ["TEAM".to_owned(), "absent".to_owned()];
        rows.edit(|directory| untag(directory, &names(), "Nodes", &keys))
            .unwrap();
        assert_eq!(rows.directory().role("Nodes").unwrap().tags.len(), 1);
        let many: Vec<_> = (0..50).map(|n| (format!("k{n}"), String::new())).collect();
        let refused = rows.edit(|directory| tag(directory, &names(), "Nodes", &many));
        assert!(matches!(refused, Err(IamError::LimitExceeded(_))));
    }
}
