//! Access keys of users. A secret is seen once, in the answer that makes it; it is kept sealed.

use serde_json::{Value, json};
use sortie_ports::{AccessKey, Change, Identity, IdentityKind, IdentityUse, User};
use sortie_types::{AccessKeyId, Secret, Timestamp, UserName};

use super::{
    entity::{Held, identity_arn},
    error::IamError,
    page::{Page, PageRequest},
    users::{ask_user, named_or_caller, user},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, OperationRule},
    call::{Call, Recorded},
    directory::{Directory, Edit},
    mint, seal,
};

/// Access keys of a user: one in use, one to take its place.
pub(crate) const KEYS_OF_A_USER: usize = 2;

/// A new key, with the only copy of its secret.
#[derive(Clone, Debug)]
pub struct NewAccessKey {
    /// Whose it is.
    pub user_name: UserName,
    /// Its id.
    pub id: AccessKeyId,
    /// Its secret.
    pub secret: Secret,
    /// When it was made.
    pub created: Timestamp,
}

/// A key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeyView {
    /// Whose it is.
    pub user_name: UserName,
    /// Its id.
    pub id: AccessKeyId,
    /// Whether it may be used.
    pub active: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// When and for what a key was last used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKeyUse {
    /// Whose it is.
    pub user_name: UserName,
    /// `None`: never.
    pub used: Option<IdentityUse>,
}

fn not_found(id: &str) -> IamError {
    IamError::NoSuchEntity(format!("The Access Key with id {id} cannot be found."))
}

fn owned<'a>(directory: &'a Directory, user: &User, id: &str) -> Result<&'a AccessKey, IamError> {
    any(directory, id)
        .filter(|key| key.user == user.unique_id)
        .ok_or_else(|| not_found(id))
}

fn any<'a>(directory: &'a Directory, id: &str) -> Option<&'a AccessKey> {
    directory.access_key(&id.parse().ok()?)
}

fn create(
    directory: &Directory,
    names: &Names,
    user_name: &str,
    (made, sealed_secret): (&NewAccessKey, &[u8]),
) -> Result<Edit<NewAccessKey>, IamError> {
    let user = user(directory, user_name)?;
    if directory.access_keys_of(&user.unique_id).len() >= KEYS_OF_A_USER {
        let why = format!("Cannot exceed quota for AccessKeysPerUser: {KEYS_OF_A_USER}");
        return Err(IamError::LimitExceeded(why));
    }
    let key = AccessKey {
        id: made.id.clone(),
        user: user.unique_id.clone(),
        sealed_secret: sealed_secret.to_vec(),
        active: true,
        created: made.created,
    };
    let answer = NewAccessKey {
        user_name: user.name.clone(),
        ..made.clone()
    };
    let shown = json!({
        "userName": answer.user_name,
        "accessKeyId": answer.id,
        "status": "Active",
        "createDate": answer.created.iso_seconds(),
    });
    Ok(Edit {
        answer,
        response: json!({"accessKey": shown}),
        resources: vec![Held::User(user).resource(names)],
        changes: vec![Change::PutIdentity(Box::new(Identity::AccessKey(key)))],
    })
}

fn update(
    directory: &Directory,
    names: &Names,
    user_name: &str,
    id: &str,
    active: bool,
) -> Result<Edit<()>, IamError> {
    let user = user(directory, user_name)?;
    let key = AccessKey {
        active,
        ..owned(directory, user, id)?.clone()
    };
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![Held::User(user).resource(names)],
        changes: vec![Change::PutIdentity(Box::new(Identity::AccessKey(key)))],
    })
}

fn delete(
    directory: &Directory,
    names: &Names,
    user_name: &str,
    id: &str,
) -> Result<Edit<()>, IamError> {
    let user = user(directory, user_name)?;
    let key = owned(directory, user, id)?;
    Ok(Edit {
        answer: (),
        response: Value::Null,
        resources: vec![Held::User(user).resource(names)],
        changes: vec![Change::RemoveIdentity {
            kind: IdentityKind::AccessKey,
            key: key.id.to_string(),
        }],
    })
}

/// In order of creation, which the key of a page keeps.
fn listed<'a>(
    directory: &'a Directory,
    user: &'a User,
) -> impl Iterator<Item = (String, AccessKeyView)> + 'a {
    let mut keys = directory.access_keys_of(&user.unique_id);
    keys.sort_by_key(|key| (key.created, key.id.clone()));
    keys.into_iter().map(|key| {
        let place = format!("{:020}{}", key.created.millis().max(0), key.id);
        let view = AccessKeyView {
            user_name: user.name.clone(),
            id: key.id.clone(),
            active: key.active,
            created: key.created,
        };
        (place, view)
    })
}

/// A key's use is its user's affair; a key that is nobody's is asked about by no user's name.
fn ask_about_key(directory: &Directory, names: &Names, id: &str) -> Ask {
    let owner = any(directory, id).and_then(|key| directory.user_by_id(&key.user));
    match owner {
        Some(user) => ask_user(directory, names, user.name.as_str()),
        None => Ask::on(identity_arn(names, "user", "/", "*")),
    }
}

impl Control {
    /// `CreateAccessKey`, for the caller when no name is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_access_key(
        &self,
        call: &Call,
        user_name: Option<String>,
    ) -> Result<Recorded<NewAccessKey>, IamError> {
        let names = &self.inner.names;
        let user_name = named_or_caller(call, user_name)?;
        let made = NewAccessKey {
            user_name: user_name
                .parse()
                .map_err(|_| super::entity::not_found("user", &user_name))?,
            id: mint::long_lived_key()?,
            secret: mint::secret_access_key()?,
            created: call.now,
        };
        let sealer = &self.inner.access_key_sealer;
        let sealed = seal::seal_access_key(sealer, made.id.as_str(), &made.secret)?;
        self.change_identities(
            call,
            &authorize::CREATE_ACCESS_KEY,
            |directory| ask_user(directory, names, &user_name),
            |directory, _| create(directory, names, &user_name, (&made, &sealed)),
        )
        .await
    }

    /// `ListAccessKeys`, of the caller when no name is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn list_access_keys(
        &self,
        call: &Call,
        user_name: Option<String>,
        page: &PageRequest,
    ) -> Result<Recorded<Page<AccessKeyView>>, IamError> {
        const RULE: OperationRule = authorize::LIST_ACCESS_KEYS;
        let names = &self.inner.names;
        let user_name = named_or_caller(call, user_name)?;
        let pager = self.pager(&RULE, page)?;
        self.read_identities(
            call,
            &RULE,
            |directory| ask_user(directory, names, &user_name),
            |directory, _| pager.page(listed(directory, user(directory, &user_name)?)),
        )
        .await
    }

    /// `UpdateAccessKey`: whether it may be used. Calls with a key that may not are refused at once.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn update_access_key(
        &self,
        call: &Call,
        user_name: Option<String>,
        id: &str,
        active: bool,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let user_name = named_or_caller(call, user_name)?;
        self.change_identities(
            call,
            &authorize::UPDATE_ACCESS_KEY,
            |directory| ask_user(directory, names, &user_name),
            |directory, _| update(directory, names, &user_name, id, active),
        )
        .await
    }

    /// `DeleteAccessKey`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_access_key(
        &self,
        call: &Call,
        user_name: Option<String>,
        id: &str,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let user_name = named_or_caller(call, user_name)?;
        self.change_identities(
            call,
            &authorize::DELETE_ACCESS_KEY,
            |directory| ask_user(directory, names, &user_name),
            |directory, _| delete(directory, names, &user_name, id),
        )
        .await
    }

    /// `GetAccessKeyLastUsed`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_access_key_last_used(
        &self,
        call: &Call,
        id: &str,
    ) -> Result<Recorded<AccessKeyUse>, IamError> {
        let names = &self.inner.names;
        let used = self.identity_use(IdentityKind::AccessKey, id);
        let used = used.await?;
        self.read_identities(
            call,
            &authorize::GET_ACCESS_KEY_LAST_USED,
            |directory| ask_about_key(directory, names, id),
            |directory, _| {
                let key = any(directory, id).ok_or_else(|| not_found(id))?;
                let user = directory.user_by_id(&key.user);
                let user = user.ok_or_else(|| not_found(id))?;
                Ok(AccessKeyUse {
                    user_name: user.name.clone(),
                    used: used.clone(),
                })
            },
        )
        .await
    }
}
