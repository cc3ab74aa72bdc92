//! Users: making, finding, renaming and deleting them, and their tags.
//!
//! A call that names no user is about its caller, where AWS has it so.

use serde_json::{Value, json};
use sortie_ports::{Change, Identity, IdentityKind, User};
use sortie_types::{Arn, SessionId, Tag, Timestamp, UniqueId, UniqueIdKind, UserName};

use super::{
    boundaries::boundary,
    entity::{
        Held, identity_arn, new_tags, not_found, sort_key, tagged, trail_tags, under, untagged,
        user_arn,
    },
    error::IamError,
    page::{Page, PageRequest},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, AskedResource, OperationRule},
    call::{Call, Caller, Recorded},
    directory::{Directory, Edit},
    mint,
};

/// Users of an account.
pub(crate) const USERS: usize = 5_000;
/// The tags of what an action is on, under both of their names.
const RESOURCE_TAG: &[&str] = &["aws:ResourceTag", "iam:ResourceTag"];

/// What to create.
#[derive(Clone, Debug, Default)]
pub struct CreateUserInput {
    /// `/` when absent.
    pub path: Option<String>,
    /// Its name.
    pub name: String,
    /// The managed policy that bounds it.
    pub permissions_boundary: Option<String>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

/// What to change; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct UpdateUserInput {
    /// Which.
    pub name: String,
    /// Where it moves.
    pub new_path: Option<String>,
    /// What it is called from then on.
    pub new_name: Option<String>,
}

/// A user as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserView {
    /// The row.
    pub user: User,
    /// Its ARN.
    pub arn: Arn,
    /// When it last signed in with its password, where that was looked up.
    pub password_last_used: Option<Timestamp>,
}

pub(crate) fn view(names: &Names, user: &User) -> UserView {
    UserView {
        arn: user_arn(names, user),
        user: user.clone(),
        password_last_used: None,
    }
}

/// The user of this name.
pub(crate) fn user<'a>(directory: &'a Directory, name: &str) -> Result<&'a User, IamError> {
    directory.user(name).ok_or_else(|| not_found("user", name))
}

/// The name that a call gives, or that of its caller.
pub(crate) fn named_or_caller(call: &Call, name: Option<String>) -> Result<String, IamError> {
    match (name, &call.caller) {
        (Some(name), _) => Ok(name),
        (None, Caller::User(caller)) => Ok(caller.user.name.to_string()),
        (None, _) => {
            let why = "Must specify userName when calling with non-User credentials";
            Err(IamError::Validation(why.to_owned()))
        }
    }
}

/// A user, whether there is such a one or not, with the tags of the one there is.
pub(crate) fn asked_user(directory: &Directory, names: &Names, name: &str) -> AskedResource {
    match directory.user(name) {
        Some(user) => AskedResource::new(user_arn(names, user)).tags(RESOURCE_TAG, &user.tags),
        None => AskedResource::new(identity_arn(names, "user", "/", name)),
    }
}

pub(crate) fn ask_user(directory: &Directory, names: &Names, name: &str) -> Ask {
    Ask::about(vec![asked_user(directory, names, name)])
}

/// The tags of a request, as policies see them. Whether they are good is not asked yet.
pub(crate) fn ask_with_tags(ask: Ask, tags: &[(String, String)]) -> Ask {
    let tags: Vec<Tag> = tags
        .iter()
        .map(|(key, value)| Tag {
            key: key.clone(),
            value: value.clone(),
        })
        .collect();
    ask.request_tags(&tags)
}

fn ask_new_user(names: &Names, input: &CreateUserInput) -> Ask {
    let path = input.path.as_deref().unwrap_or("/");
    let arn = identity_arn(names, "user", path, &input.name);
    let mut ask = ask_with_tags(Ask::on(arn.clone()), &input.tags);
    if let Some(boundary) = &input.permissions_boundary {
        ask = ask.key("iam:PermissionsBoundary", boundary.as_str());
    }
    if input.tags.is_empty() {
        return ask;
    }
    // Making a user with tags is tagging it as well.
    ask.also("iam:TagUser", vec![AskedResource::new(arn)])
}

/// Moving a user takes it from one place and puts it in another: both must be allowed.
fn ask_moved_user(directory: &Directory, names: &Names, input: &UpdateUserInput) -> Ask {
    let before = asked_user(directory, names, &input.name);
    let Some(user) = directory.user(&input.name) else {
        return Ask::about(vec![before]);
    };
    let path = input.new_path.as_deref().unwrap_or(&user.path);
    let name = input.new_name.as_deref().unwrap_or(user.name.as_str());
    let after = identity_arn(names, "user", path, name);
    if after == user_arn(names, user) {
        return Ask::about(vec![before]);
    }
    let after = AskedResource::new(after).tags(RESOURCE_TAG, &user.tags);
    Ask::about(vec![before, after])
}

/// A name that is free for this user: for nobody, when it is new.
fn free_name(
    directory: &Directory,
    name: &str,
    of: Option<&UniqueId>,
) -> Result<UserName, IamError> {
    let parsed = name.parse().map_err(|_| {
        let why = "The specified value for userName is invalid. It must contain only alphanumeric \
                   characters and/or the following: +=,.@_-";
        IamError::Validation(why.to_owned())
    })?;
    // Own-session rules of policies name sessions by the unique id of their owner.
    if name.to_ascii_uppercase().parse::<UniqueId>().is_ok() {
        let why = "The specified value for userName is invalid. It must not have the form of a \
                   unique identifier.";
        return Err(IamError::Validation(why.to_owned()));
    }
    let others = || {
        let users = directory.users();
        users.filter(|user| of != Some(&user.unique_id))
    };
    if others().any(|other| other.name.as_str().eq_ignore_ascii_case(name)) {
        let why = format!("User with name {name} already exists.");
        return Err(IamError::EntityAlreadyExists(why));
    }
    // Policies that name sessions by their owner's name would take one's for the other's.
    let part = SessionId::name_part(name);
    let alike =
        |other: &User| SessionId::name_part(other.name.as_str()).eq_ignore_ascii_case(&part);
    if let Some(other) = others().find(|other| alike(other)) {
        let why = format!(
            "User with name {} already exists, whose sessions would have the same names.",
            other.name
        );
        return Err(IamError::EntityAlreadyExists(why));
    }
    Ok(parsed)
}

fn create(
    directory: &Directory,
    names: &Names,
    input: &CreateUserInput,
    unique_id: &UniqueId,
    now: Timestamp,
) -> Result<Edit<UserView>, IamError> {
    let name = free_name(directory, &input.name, None)?;
    if directory.users().count() >= USERS {
        let why = format!("Cannot exceed quota for UsersPerAccount: {USERS}");
        return Err(IamError::LimitExceeded(why));
    }
    let bounded_by = input.permissions_boundary.as_deref();
    let user = User {
        unique_id: unique_id.clone(),
        name,
        path: input.path.clone().unwrap_or_else(|| "/".to_owned()),
        created: now,
        grants: sortie_ports::Grants::default(),
        groups: Vec::new(),
        permissions_boundary: bounded_by.map(|arn| boundary(directory, arn)).transpose()?,
        tags: new_tags(&input.tags)?,
        login_profile: None,
    };
    let mut edit = put(names, user);
    edit.response = json!({"user": trail_user(&edit.answer)});
    Ok(edit)
}

fn update(
    directory: &Directory,
    names: &Names,
    input: &UpdateUserInput,
) -> Result<Edit<UserView>, IamError> {
    let before = user(directory, &input.name)?;
    let name = match &input.new_name {
        Some(name) => free_name(directory, name, Some(&before.unique_id))?,
        None => before.name.clone(),
    };
    Ok(put(
        names,
        User {
            name,
            path: input
                .new_path
                .clone()
                .unwrap_or_else(|| before.path.clone()),
            ..before.clone()
        },
    ))
}

/// A user is deleted bare: what it can be used by, and what it may do, go first.
fn delete(directory: &Directory, names: &Names, name: &str) -> Result<Edit<()>, IamError> {
    let user = user(directory, name)?;
    let left = [
        (
            directory.access_keys_of(&user.unique_id).is_empty(),
            "delete access keys",
        ),
        (user.login_profile.is_none(), "delete login profile"),
        (
            directory.mfa_devices_of(&user.unique_id).is_empty(),
            "delete MFA device",
        ),
        (user.groups.is_empty(), "remove users from group"),
        (user.grants.attached.is_empty(), "detach all policies"),
        (user.grants.inline.is_empty(), "delete policies"),
    ];
    if let Some((_, first)) = left.iter().find(|(gone, _)| !gone) {
        let why = format!("Cannot delete entity, must {first} first.");
        return Err(IamError::DeleteConflict(why));
    }
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![Held::User(user).resource(names)],
        changes: vec![Change::RemoveIdentity {
            kind: IdentityKind::User,
            key: user.unique_id.to_string(),
        }],
    })
}

fn tag(
    directory: &Directory,
    names: &Names,
    name: &str,
    tags: &[(String, String)],
) -> Result<Edit<()>, IamError> {
    let before = user(directory, name)?;
    let tags = tagged(&before.tags, tags)?;
    Ok(silent(put(
        names,
        User {
            tags,
            ..before.clone()
        },
    )))
}

fn untag(
    directory: &Directory,
    names: &Names,
    name: &str,
    keys: &[String],
) -> Result<Edit<()>, IamError> {
    let before = user(directory, name)?;
    let tags = untagged(&before.tags, keys);
    Ok(silent(put(
        names,
        User {
            tags,
            ..before.clone()
        },
    )))
}

/// The user as it is from now on.
pub(crate) fn put(names: &Names, user: User) -> Edit<UserView> {
    Edit {
        answer: view(names, &user),
        response: Value::Null,
        resources: vec![Held::User(&user).resource(names)],
        changes: vec![Change::PutIdentity(Box::new(Identity::User(user)))],
    }
}

/// An edit whose answer says nothing.
pub(crate) fn silent<T>(edit: Edit<T>) -> Edit<()> {
    Edit {
        answer: (),
        response: edit.response,
        resources: edit.resources,
        changes: edit.changes,
    }
}

fn trail_user(view: &UserView) -> Value {
    let user = &view.user;
    let mut shown = json!({
        "path": user.path,
        "userName": user.name,
        "userId": user.unique_id,
        "arn": view.arn,
        "createDate": user.created.iso_seconds(),
    });
    if let (false, Some(members)) = (user.tags.is_empty(), shown.as_object_mut()) {
        members.insert("tags".to_owned(), trail_tags(&user.tags));
    }
    shown
}

fn listed<'a>(
    directory: &'a Directory,
    names: &'a Names,
    prefix: Option<&'a str>,
) -> impl Iterator<Item = (String, UserView)> + 'a {
    directory
        .users()
        .filter(move |user| under(&user.path, prefix))
        .map(move |user| (sort_key(user.name.as_str()), view(names, user)))
}

impl Control {
    /// `CreateUser`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_user(
        &self,
        call: &Call,
        input: CreateUserInput,
    ) -> Result<Recorded<UserView>, IamError> {
        let names = &self.inner.names;
        let id = UniqueId::from_random(UniqueIdKind::User, mint::random()?);
        self.change_identities(
            call,
            &authorize::CREATE_USER,
            |_| ask_new_user(names, &input),
            |directory, _| create(directory, names, &input, &id, call.now),
        )
        .await
    }

    /// `GetUser`: the caller, when no name is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_user(
        &self,
        call: &Call,
        name: Option<String>,
    ) -> Result<Recorded<UserView>, IamError> {
        let names = &self.inner.names;
        let name = named_or_caller(call, name)?;
        let found = self
            .read_identities(
                call,
                &authorize::GET_USER,
                |directory| ask_user(directory, names, &name),
                |directory, _| Ok(view(names, user(directory, &name)?)),
            )
            .await?;
        let mut found = found.into_inner();
        self.look_up_password_use(std::slice::from_mut(&mut found))
            .await?;
        Ok(Recorded::new(found))
    }

    /// `ListUsers`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_users(
        &self,
        call: &Call,
        path_prefix: Option<&str>,
        page: &PageRequest,
    ) -> Result<Recorded<Page<UserView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_USERS;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        let found = self
            .read_identities(
                call,
                &RULE,
                |_| Ask::any(),
                |directory, _| pager.page(listed(directory, names, path_prefix)),
            )
            .await?;
        let mut found = found.into_inner();
        self.look_up_password_use(&mut found.items).await?;
        Ok(Recorded::new(found))
    }

    async fn look_up_password_use(&self, views: &mut [UserView]) -> Result<(), IamError> {
        for view in views {
            if view.user.login_profile.is_some() {
                let id = view.user.unique_id.as_str();
                let used = self.identity_use(IdentityKind::User, id);
                view.password_last_used = used.await?.map(|used| used.at);
            }
        }
        Ok(())
    }

    /// `UpdateUser`: another name, path or both. What the user has and may do goes along.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn update_user(
        &self,
        call: &Call,
        input: UpdateUserInput,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::UPDATE_USER,
            |directory| ask_moved_user(directory, names, &input),
            |directory, _| update(directory, names, &input).map(silent),
        )
        .await
    }

    /// `DeleteUser`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_user(&self, call: &Call, name: &str) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::DELETE_USER,
            |directory| ask_user(directory, names, name),
            |directory, _| delete(directory, names, name),
        )
        .await
    }

    /// `TagUser`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn tag_user(
        &self,
        call: &Call,
        name: &str,
        tags: &[(String, String)],
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::TAG_USER,
            |directory| ask_with_tags(ask_user(directory, names, name), tags),
            |directory, _| tag(directory, names, name, tags),
        )
        .await
    }

    /// `UntagUser`. Keys that the user does not have are fine.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn untag_user(
        &self,
        call: &Call,
        name: &str,
        keys: &[String],
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        self.change_identities(
            call,
            &authorize::UNTAG_USER,
            |directory| ask_user(directory, names, name).list("aws:TagKeys", keys.to_vec()),
            |directory, _| untag(directory, names, name, keys),
        )
        .await
    }

    /// `ListUserTags`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_user_tags(
        &self,
        call: &Call,
        name: &str,
        page: &PageRequest,
    ) -> Result<Recorded<Page<Tag>>, IamError> {
        const RULE: OperationRule = authorize::LIST_USER_TAGS;
        let names = &self.inner.names;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask_user(directory, names, name),
            |directory, _| {
                let tags = &user(directory, name)?.tags;
                pager.page(tags.iter().map(|tag| (tag.key.clone(), tag.clone())))
            },
        )
        .await
    }

    /// `ListSSHPublicKeys`: nobody has any, which is true of users alone that exist.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_ssh_public_keys(
        &self,
        call: &Call,
        name: Option<String>,
    ) -> Result<Recorded<()>, IamError> {
        self.user_exists(call, &authorize::LIST_SSH_PUBLIC_KEYS, name)
            .await
    }

    /// `ListSigningCertificates`: nobody has any.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_signing_certificates(
        &self,
        call: &Call,
        name: Option<String>,
    ) -> Result<Recorded<()>, IamError> {
        self.user_exists(call, &authorize::LIST_SIGNING_CERTIFICATES, name)
            .await
    }

    /// `ListServiceSpecificCredentials`: nobody has any. `None`: of all users.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_service_specific_credentials(
        &self,
        call: &Call,
        name: Option<String>,
        all_users: bool,
    ) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::LIST_SERVICE_SPECIFIC_CREDENTIALS;
        if all_users && name.is_none() {
            return self
                .read_identities(call, &RULE, |_| Ask::any(), |_, _| Ok(()))
                .await;
        }
        self.user_exists(call, &RULE, name).await
    }

    async fn user_exists(
        &self,
        call: &Call,
        rule: &OperationRule,
        name: Option<String>,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let name = named_or_caller(call, name)?;
        self.read_identities(
            call,
            rule,
            |directory| ask_user(directory, names, &name),
            |directory, _| user(directory, &name).map(|_| ()),
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iam::testing::{NOW, Rows, id, names, text, user};

    fn input(name: &str) -> CreateUserInput {
        CreateUserInput {
            name: name.to_owned(),
            ..CreateUserInput::default()
        }
    }

    #[test]
    fn an_account_has_so_many_users_and_no_more() {
        let filled = (1..USERS).map(|index| {
            let number = [(index / 256) as u8, (index % 256) as u8];
            let mut bytes = [0; 17];
            for (place, byte) in number.iter().enumerate() {
                bytes[2 * place] = byte & 31;
                bytes[2 * place + 1] = byte >> 5;
            }
            Identity::User(User {
                unique_id: UniqueId::from_random(UniqueIdKind::User, bytes),
                ..user(&format!("user{index}"), 0)
            })
        });
        let mut rows = Rows::of(filled);
        let mut create = |name: &str, byte| {
            let id = id(UniqueIdKind::User, byte);
            rows.edit(|directory| super::create(directory, &names(), &input(name), &id, NOW))
        };
        create("last", 30).unwrap();
        assert_eq!(
            text(create("over", 31)),
            "Cannot exceed quota for UsersPerAccount: 5000"
        );
    }

    #[test]
    fn a_moved_user_is_asked_about_where_it_was_and_where_it_goes() {
        let rows = Rows::of([Identity::User(user("alice", 1))]);
        let ask = |new_path: Option<&str>, new_name: Option<&str>| {
            let input = UpdateUserInput {
                name: "ALICE".to_owned(),
                new_path: new_path.map(str::to_owned),
                new_name: new_name.map(str::to_owned),
            };
            format!("{:?}", ask_moved_user(&rows.directory(), &names(), &input))
        };
        let both = ask(None, Some("bob"));
        assert!(both.contains("user/team/alice") && both.contains("user/team/bob"));
        let moved = ask(Some("/"), None);
        assert!(moved.contains("user/team/alice") && moved.contains("user/alice"));
        let unmoved = ask(Some("/team/"), Some("alice"));
        assert_eq!(unmoved.matches("user/team/alice").count(), 1, "{unmoved}");
    }

    #[test]
    fn a_renamed_user_keeps_everything_else() {
        let mut rows = Rows::of([Identity::User(user("alice", 1))]);
        let before = rows.directory().user("alice").cloned().unwrap();
        let input = UpdateUserInput {
            name: "alice".to_owned(),
            new_path: None,
            new_name: Some("Bob".to_owned()),
        };
        rows.edit(|directory| update(directory, &names(), &input))
            .unwrap();
        let after = rows.directory().user("bob").cloned().unwrap();
        let name = "Bob".parse().unwrap();
        assert_eq!(after, User { name, ..before });
        assert!(rows.directory().user("alice").is_none());
    }
}
