//! Groups of users, and who is in them.

use serde_json::{Value, json};
use sortie_ports::{Change, Group, Identity, IdentityKind, User};
use sortie_types::{Arn, Timestamp, UniqueId, UniqueIdKind};

use super::{
    entity::{Held, group_arn, identity_arn, not_found, sort_key, under},
    error::IamError,
    page::{Page, PageRequest},
    users::{self, UserView, ask_user, user},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, AskedResource, OperationRule},
    call::{Call, Recorded},
    directory::{Directory, Edit},
    mint,
};

/// Groups of an account.
pub(crate) const GROUPS: usize = 300;
/// Groups that one user can be in.
pub(crate) const GROUPS_OF_A_USER: usize = 10;

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateGroupInput {
    /// `/` when absent.
    pub path: Option<String>,
    /// Its name.
    pub name: String,
}

/// What to change; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct UpdateGroupInput {
    /// Which.
    pub name: String,
    /// Where it moves.
    pub new_path: Option<String>,
    /// What it is called from then on.
    pub new_name: Option<String>,
}

/// A group as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// The row.
    pub group: Group,
    /// Its ARN.
    pub arn: Arn,
}

/// A group with some of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMembers {
    /// The group.
    pub group: GroupView,
    /// A page of them.
    pub members: Page<UserView>,
}

pub(crate) fn view(names: &Names, group: &Group) -> GroupView {
    GroupView {
        arn: group_arn(names, group),
        group: group.clone(),
    }
}

/// The group of this name.
pub(crate) fn group<'a>(directory: &'a Directory, name: &str) -> Result<&'a Group, IamError> {
    directory
        .group(name)
        .ok_or_else(|| not_found("group", name))
}

fn ask_group(directory: &Directory, names: &Names, name: &str) -> Ask {
    Ask::on(match directory.group(name) {
        Some(group) => group_arn(names, group),
        None => identity_arn(names, "group", "/", name),
    })
}

/// Moving a group takes it from one place and puts it in another: both must be allowed.
fn ask_moved_group(directory: &Directory, names: &Names, input: &UpdateGroupInput) -> Ask {
    let Some(group) = directory.group(&input.name) else {
        return ask_group(directory, names, &input.name);
    };
    let before = group_arn(names, group);
    let path = input.new_path.as_deref().unwrap_or(&group.path);
    let name = input.new_name.as_deref().unwrap_or(&group.name);
    let mut arns = vec![identity_arn(names, "group", path, name)];
    if arns.first() != Some(&before) {
        arns.insert(0, before);
    }
    Ask::about(arns.into_iter().map(AskedResource::new).collect())
}

/// A name that is free for this group: for none, when it is new.
fn free_name(directory: &Directory, name: &str, of: Option<&UniqueId>) -> Result<(), IamError> {
    match directory.group(name) {
        Some(other) if of != Some(&other.unique_id) => {
            let why = format!("Group with name {name} already exists.");
            Err(IamError::EntityAlreadyExists(why))
        }
        _ => Ok(()),
    }
}

fn create(
    directory: &Directory,
    names: &Names,
    input: &CreateGroupInput,
    unique_id: &UniqueId,
    now: Timestamp,
) -> Result<Edit<GroupView>, IamError> {
    free_name(directory, &input.name, None)?;
    if directory.groups().count() >= GROUPS {
        let why = format!("Cannot exceed quota for GroupsPerAccount: {GROUPS}");
        return Err(IamError::LimitExceeded(why));
    }
    let group = Group {
        unique_id: unique_id.clone(),
        name: input.name.clone(),
        path: input.path.clone().unwrap_or_else(|| "/".to_owned()),
        created: now,
        grants: sortie_ports::Grants::default(),
    };
    let mut edit = put(names, group);
    edit.response = json!({"group": trail_group(&edit.answer)});
    Ok(edit)
}

fn update(
    directory: &Directory,
    names: &Names,
    input: &UpdateGroupInput,
) -> Result<Edit<GroupView>, IamError> {
    let before = group(directory, &input.name)?;
    if let Some(name) = &input.new_name {
        free_name(directory, name, Some(&before.unique_id))?;
    }
    let group = before.clone();
    Ok(put(
        names,
        Group {
            name: input.new_name.clone().unwrap_or(group.name),
            path: input.new_path.clone().unwrap_or(group.path),
            ..before.clone()
        },
    ))
}

fn delete(directory: &Directory, names: &Names, name: &str) -> Result<Edit<()>, IamError> {
    let group = group(directory, name)?;
    let left = [
        (
            directory.members(&group.unique_id).next().is_none(),
            "remove users from group",
        ),
        (group.grants.attached.is_empty(), "detach all policies"),
        (group.grants.inline.is_empty(), "delete policies"),
    ];
    if let Some((_, first)) = left.iter().find(|(gone, _)| !gone) {
        let why = format!("Cannot delete entity, must {first} first.");
        return Err(IamError::DeleteConflict(why));
    }
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![Held::Group(group).resource(names)],
        changes: vec![Change::RemoveIdentity {
            kind: IdentityKind::Group,
            key: group.unique_id.to_string(),
        }],
    })
}

/// Who is in it already stays in it.
fn add(
    directory: &Directory,
    names: &Names,
    group_name: &str,
    user_name: &str,
) -> Result<Edit<()>, IamError> {
    let (group, user) = (group(directory, group_name)?, user(directory, user_name)?);
    if user.groups.contains(&group.unique_id) {
        return Ok(membership(names, group, user, None));
    }
    if user.groups.len() >= GROUPS_OF_A_USER {
        let why = format!("Cannot exceed quota for GroupsPerUser: {GROUPS_OF_A_USER}");
        return Err(IamError::LimitExceeded(why));
    }
    let mut groups = user.groups.clone();
    groups.push(group.unique_id.clone());
    Ok(membership(names, group, user, Some(groups)))
}

/// Who is not in it stays out of it.
fn remove(
    directory: &Directory,
    names: &Names,
    group_name: &str,
    user_name: &str,
) -> Result<Edit<()>, IamError> {
    let (group, user) = (group(directory, group_name)?, user(directory, user_name)?);
    let mut groups = user.groups.clone();
    groups.retain(|id| *id != group.unique_id);
    let changed = groups.len() < user.groups.len();
    Ok(membership(names, group, user, changed.then_some(groups)))
}

fn membership(
    names: &Names,
    group: &Group,
    user: &User,
    groups: Option<Vec<UniqueId>>,
) -> Edit<()> {
    let changed = groups.map(|groups| {
        let user = User {
            groups,
            ..user.clone()
        };
        Change::PutIdentity(Box::new(Identity::User(user)))
    });
    Edit {
        answer: (),
        response: Value::Null,
        resources: vec![
            Held::Group(group).resource(names),
            Held::User(user).resource(names),
        ],
        changes: changed.into_iter().collect(),
    }
}

/// The group as it is from now on.
fn put(names: &Names, group: Group) -> Edit<GroupView> {
    Edit {
        answer: view(names, &group),
        response: Value::Null,
        resources: vec![Held::Group(&group).resource(names)],
        changes: vec![Change::PutIdentity(Box::new(Identity::Group(group)))],
    }
}

fn trail_group(view: &GroupView) -> Value {
    let group = &view.group;
    json!({
        "path": group.path,
        "groupName": group.name,
        "groupId": group.unique_id,
        "arn": view.arn,
        "createDate": group.created.iso_seconds(),
    })
}

fn listed<'a>(
    directory: &'a Directory,
    names: &'a Names,
    prefix: Option<&'a str>,
) -> impl Iterator<Item = (String, GroupView)> + 'a {
    directory
        .groups()
        .filter(move |group| under(&group.path, prefix))
        .map(move |group| (sort_key(&group.name), view(names, group)))
}

fn members<'a>(
    directory: &'a Directory,
    names: &'a Names,
    group: &'a Group,
) -> impl Iterator<Item = (String, UserView)> + 'a {
    // Through all users, who are in order: members are in the order of nothing.
    directory
        .users()
        .filter(|user| user.groups.contains(&group.unique_id))
        .map(|user| (sort_key(user.name.as_str()), users::view(names, user)))
}

fn groups_of<'a>(
    directory: &'a Directory,
    names: &'a Names,
    user: &'a User,
) -> impl Iterator<Item = (String, GroupView)> + 'a {
    directory
        .groups()
        .filter(|group| user.groups.contains(&group.unique_id))
        .map(|group| (sort_key(&group.name), view(names, group)))
}

impl Control {
    /// `CreateGroup`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_group(
        &self,
        call: &Call,
        input: CreateGroupInput,
    ) -> Result<Recorded<GroupView>, IamError> {
        let names = &self.inner.names;
        let id = UniqueId::from_random(UniqueIdKind::Group, mint::random()?);
        let path = input.path.as_deref().unwrap_or("/");
        self.change_identities(
            call,
            &authorize::CREATE_GROUP,
            |_| Ask::on(identity_arn(names, "group", path, &input.name)),
            |directory, _| create(directory, names, &input, &id, call.now),
        )
        .await
    }

    /// `GetGroup`: the group and a page of its members.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_group(
        &self,
        call: &Call,
        name: &str,
        page: &PageRequest,
    ) -> Result<Recorded<GroupMembers>, IamError> {
        const RULE: OperationRule = authorize::GET_GROUP;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask_group(directory, names, name),
            |directory, _| {
                let group = group(directory, name)?;
                Ok(GroupMembers {
                    group: view(names, group),
                    members: pager.page(members(directory, names, group))?,
                })
            },
        )
        .await
    }

    /// `ListGroups`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_groups(
        &self,
        call: &Call,
        path_prefix: Option<&str>,
        page: &PageRequest,
    ) -> Result<Recorded<Page<GroupView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_GROUPS;
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

    /// `UpdateGroup`: another name, path or both. Members and policies go along.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn update_group(
        &self,
        call: &Call,
        input: UpdateGroupInput,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::UPDATE_GROUP,
            |directory| ask_moved_group(directory, names, &input),
            |directory, _| update(directory, names, &input).map(users::silent),
        )
        .await
    }

    /// `DeleteGroup`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_group(&self, call: &Call, name: &str) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::DELETE_GROUP,
            |directory| ask_group(directory, names, name),
            |directory, _| delete(directory, names, name),
        )
        .await
    }

    /// `AddUserToGroup`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn add_user_to_group(
        &self,
        call: &Call,
        group_name: &str,
        user_name: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::ADD_USER_TO_GROUP,
            |directory| ask_group(directory, names, group_name),
            |directory, _| add(directory, names, group_name, user_name),
        )
        .await
    }

    /// `RemoveUserFromGroup`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn remove_user_from_group(
        &self,
        call: &Call,
        group_name: &str,
        user_name: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::REMOVE_USER_FROM_GROUP,
            |directory| ask_group(directory, names, group_name),
            |directory, _| remove(directory, names, group_name, user_name),
        )
        .await
    }

    /// `ListGroupsForUser`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_groups_for_user(
        &self,
        call: &Call,
        user_name: &str,
        page: &PageRequest,
    ) -> Result<Recorded<Page<GroupView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_GROUPS_FOR_USER;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask_user(directory, names, user_name),
            |directory, _| {
                let user = user(directory, user_name)?;
                pager.page(groups_of(directory, names, user))
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::testing::{NOW, Rows, group as row, id, names, text, user as user_row};

    #[test]
    fn an_account_has_so_many_groups_and_no_more() {
        let filled = (1..GROUPS).map(|index| {
            let mut bytes = [0; 17];
            bytes[0] = (index % 32) as u8;
            bytes[1] = (index / 32) as u8;
            Identity::Group(Group {
                unique_id: UniqueId::from_random(UniqueIdKind::Group, bytes),
                ..row(&format!("group{index}"), 0)
            })
        });
        let mut rows = Rows::of(filled);
        let mut create = |name: &str, byte| {
            let id = id(UniqueIdKind::Group, byte);
            let input = CreateGroupInput {
                path: None,
                name: name.to_owned(),
            };
            rows.edit(|directory| super::create(directory, &names(), &input, &id, NOW))
        };
        create("last", 30).unwrap();
        assert_eq!(
            text(create("over", 31)),
            "Cannot exceed quota for GroupsPerAccount: 300"
        );
    }

    #[test]
    fn what_is_so_already_changes_nothing() {
        let mut rows = Rows::of([
            Identity::Group(row("Ops", 1)),
            Identity::User(user_row("alice", 2)),
        ]);
        let edit = remove(&rows.directory(), &names(), "ops", "alice").unwrap();
        assert!(edit.changes.is_empty());
        rows.edit(|directory| add(directory, &names(), "ops", "Alice"))
            .unwrap();
        let edit = add(&rows.directory(), &names(), "ops", "alice").unwrap();
        assert!(edit.changes.is_empty());
        let directory = rows.directory();
        let group = row("Ops", 1);
        assert_eq!(directory.members(&group.unique_id).count(), 1);
    }
}
