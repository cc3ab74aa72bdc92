//! Passwords of users. Only their hash is kept. Hashing takes long, so it is done only for those who
//! may, and before the change is made.

use serde_json::json;
use sortie_ports::{LoginProfile, User};
use sortie_types::{Secret, Timestamp, UserName};

use super::{
    error::IamError,
    users::{self, ask_user, named_or_caller, user},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Denied, OperationRule},
    call::{Call, Caller, Recorded},
    directory::{Directory, Edit},
    secrets::{Attempt, Refused},
};

/// The shortest password of AWS's default password policy.
const SHORTEST: usize = 8;
/// How many of the four kinds of characters that policy wants.
const KINDS: usize = 3;

/// A password to set.
#[derive(Clone, Debug)]
pub struct LoginProfileInput {
    /// Whose; the caller when absent.
    pub user_name: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Whether it must be changed before anything else.
    pub reset_required: Option<bool>,
}

/// A login profile as it is shown: without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginProfileView {
    /// Whose it is.
    pub user_name: UserName,
    /// When a password was first set.
    pub created: Timestamp,
    /// Whether the password must be changed.
    pub reset_required: bool,
}

fn view(user: &User, profile: &LoginProfile) -> LoginProfileView {
    LoginProfileView {
        user_name: user.name.clone(),
        created: profile.created,
        reset_required: profile.reset_required,
    }
}

fn profile<'a>(
    directory: &'a Directory,
    name: &str,
) -> Result<(&'a User, &'a LoginProfile), IamError> {
    let user = user(directory, name)?;
    match &user.login_profile {
        Some(profile) => Ok((user, profile)),
        None => Err(IamError::NoSuchEntity(format!(
            "Login Profile for User {name} cannot be found."
        ))),
    }
}

fn acceptable(names: &Names, user: &User, password: &Secret) -> Result<(), IamError> {
    violation(names, user, password)
        .map_or(Ok(()), |why| Err(IamError::PasswordPolicyViolation(why)))
}

/// What AWS's default password policy has against a password.
pub(crate) fn violation(names: &Names, user: &User, password: &Secret) -> Option<String> {
    let text = password.expose();
    let kinds: [fn(char) -> bool; 4] = [
        |c| c.is_ascii_uppercase(),
        |c| c.is_ascii_lowercase(),
        |c| c.is_ascii_digit(),
        |c| !c.is_ascii_alphanumeric(),
    ];
    let kinds = kinds.iter().filter(|kind| text.chars().any(**kind)).count();
    let why = if text.chars().count() < SHORTEST {
        format!("Password should have a minimum length of {SHORTEST}")
    } else if kinds < KINDS {
        format!(
            "Password should have at least {KINDS} of these: uppercase letters, lowercase letters, \
             numbers, symbols"
        )
    } else if text.eq_ignore_ascii_case(user.name.as_str()) || text == names.account.as_str() {
        "Password should not be the name of the user or the account".to_owned()
    } else {
        return None;
    };
    Some(why)
}

/// A password as it goes into a row: checked against the policy first, hashed then.
#[derive(Clone, Copy)]
struct NewPassword<'a> {
    text: &'a Secret,
    hash: &'a str,
}

fn create(
    directory: &Directory,
    names: &Names,
    name: &str,
    (password, reset_required): (NewPassword<'_>, bool),
    now: Timestamp,
) -> Result<Edit<LoginProfileView>, IamError> {
    let user = user(directory, name)?;
    if user.login_profile.is_some() {
        let why = format!("Login Profile for user {name} already exists.");
        return Err(IamError::EntityAlreadyExists(why));
    }
    acceptable(names, user, password.text)?;
    let profile = LoginProfile {
        password_hash: password.hash.to_owned(),
        reset_required,
        created: now,
        changed: None,
    };
    let answer = view(user, &profile);
    let shown = json!({
        "userName": answer.user_name,
        "createDate": answer.created.iso_seconds(),
        "passwordResetRequired": answer.reset_required,
    });
    let edit = put(names, user, Some(profile));
    Ok(Edit {
        answer,
        response: json!({"loginProfile": shown}),
        resources: edit.resources,
        changes: edit.changes,
    })
}

fn update(
    directory: &Directory,
    names: &Names,
    name: &str,
    (password, reset_required): (Option<NewPassword<'_>>, Option<bool>),
    now: Timestamp,
) -> Result<Edit<()>, IamError> {
    let (user, before) = profile(directory, name)?;
    let mut profile = before.clone();
    if let Some(password) = password {
        acceptable(names, user, password.text)?;
        password.hash.clone_into(&mut profile.password_hash);
    }
    // A password that must be changed is as little trusted as one that was.
    if password.is_some() || reset_required == Some(true) {
        profile.changed = Some(now);
    }
    profile.reset_required = reset_required.unwrap_or(profile.reset_required);
    Ok(put(names, user, Some(profile)))
}

/// The password that was checked must still be the one there is.
fn change(
    directory: &Directory,
    names: &Names,
    name: &str,
    (checked, password): (&str, NewPassword<'_>),
    now: Timestamp,
) -> Result<Edit<()>, IamError> {
    let (user, before) = profile(directory, name)?;
    if before.password_hash != checked {
        let why = "The password was changed at the same time.";
        return Err(IamError::EntityTemporarilyUnmodifiable(why.to_owned()));
    }
    acceptable(names, user, password.text)?;
    let profile = LoginProfile {
        password_hash: password.hash.to_owned(),
        reset_required: false,
        created: before.created,
        changed: Some(now),
    };
    Ok(put(names, user, Some(profile)))
}

fn delete(directory: &Directory, names: &Names, name: &str) -> Result<Edit<()>, IamError> {
    let (user, _) = profile(directory, name)?;
    Ok(put(names, user, None))
}

fn put(names: &Names, user: &User, login_profile: Option<LoginProfile>) -> Edit<()> {
    users::silent(users::put(
        names,
        User {
            login_profile,
            ..user.clone()
        },
    ))
}

fn old_password_wrong() -> IamError {
    IamError::Denied(Denied {
        message: "The old password was incorrect.".to_owned(),
    })
}

/// Too many at once, or a failure of ours.
fn not_now(refused: Refused) -> IamError {
    match refused {
        Refused::Internal(error) => IamError::Internal(error),
        Refused::Throttled | Refused::Wrong => {
            let why = "Too many passwords are being set or checked. Try again in a moment.";
            IamError::EntityTemporarilyUnmodifiable(why.to_owned())
        }
    }
}

impl Control {
    /// `CreateLoginProfile`: gives a user, the caller when no name is given, a password.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn create_login_profile(
        &self,
        call: &Call,
        input: LoginProfileInput,
    ) -> Result<Recorded<LoginProfileView>, IamError> {
        const RULE: OperationRule = authorize::CREATE_LOGIN_PROFILE;
        let names = &self.inner.names;
        let name = named_or_caller(call, input.user_name)?;
        let Some(text) = &input.password else {
            let why = "Must specify a password.";
            return Err(IamError::Validation(why.to_owned()));
        };
        let reset_required = input.reset_required.unwrap_or(false);
        let new = |directory: &Directory, hash: &str| {
            let password = (NewPassword { text, hash }, reset_required);
            create(directory, names, &name, password, call.now)
        };
        let directory = self.may_change_password(call, &RULE, &name).await?;
        new(&directory, "")?;
        let hash = self.hashed(text).await?;
        self.change_identities(
            call,
            &RULE,
            |directory| ask_user(directory, names, &name),
            |directory, _| new(directory, &hash),
        )
        .await
    }

    /// `GetLoginProfile`, of the caller when no name is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_login_profile(
        &self,
        call: &Call,
        user_name: Option<String>,
    ) -> Result<Recorded<LoginProfileView>, IamError> {
        let names = &self.inner.names;
        let name = named_or_caller(call, user_name)?;
        self.read_identities(
            call,
            &authorize::GET_LOGIN_PROFILE,
            |directory| ask_user(directory, names, &name),
            |directory, _| profile(directory, &name).map(|(user, profile)| view(user, profile)),
        )
        .await
    }

    /// `UpdateLoginProfile`: another password, or whether it must be changed; what is absent stays.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn update_login_profile(
        &self,
        call: &Call,
        input: LoginProfileInput,
    ) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::UPDATE_LOGIN_PROFILE;
        let names = &self.inner.names;
        let name = named_or_caller(call, input.user_name)?;
        let text = input.password.as_ref();
        let new = |directory: &Directory, hash: &str| {
            let password = text.map(|text| NewPassword { text, hash });
            let flags = (password, input.reset_required);
            update(directory, names, &name, flags, call.now)
        };
        let directory = self.may_change_password(call, &RULE, &name).await?;
        new(&directory, "")?;
        let hash = match text {
            Some(text) => self.hashed(text).await?,
            None => String::new(),
        };
        self.change_identities(
            call,
            &RULE,
            |directory| ask_user(directory, names, &name),
            |directory, _| new(directory, &hash),
        )
        .await
    }

    /// `DeleteLoginProfile`: who has no password does not sign in. The caller's own, when no name is
    /// given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn delete_login_profile(
        &self,
        call: &Call,
        user_name: Option<String>,
    ) -> Result<Recorded<()>, IamError> {
        let names = &self.inner.names;
        let name = named_or_caller(call, user_name)?;
        self.change_identities(
            call,
            &authorize::DELETE_LOGIN_PROFILE,
            |directory| ask_user(directory, names, &name),
            |directory, _| delete(directory, names, &name),
        )
        .await
    }

    /// `ChangePassword`: a user's own, by the one before.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn change_password(
        &self,
        call: &Call,
        old: &Secret,
        new: &Secret,
    ) -> Result<Recorded<()>, IamError> {
        const RULE: OperationRule = authorize::CHANGE_PASSWORD;
        let Caller::User(caller) = &call.caller else {
            let why = "Only IAM Users can change their own password.";
            return Err(IamError::InvalidUserType(why.to_owned()));
        };
        let (names, name) = (&self.inner.names, caller.user.name.as_str());
        let directory = self.may_change_password(call, &RULE, name).await?;
        let (user, before) = profile(&directory, name)?;
        self.check_old_password(call, name, old, &before.password_hash)
            .await?;
        acceptable(names, user, new)?;
        let hash = self.hashed(new).await?;
        let password = NewPassword {
            text: new,
            hash: &hash,
        };
        self.change_identities(
            call,
            &RULE,
            |directory| ask_user(directory, names, name),
            |directory, _| {
                let passwords = (before.password_hash.as_str(), password);
                change(directory, names, name, passwords, call.now)
            },
        )
        .await
    }

    async fn check_old_password(
        &self,
        call: &Call,
        name: &str,
        old: &Secret,
        hash: &str,
    ) -> Result<(), IamError> {
        let attempt = Attempt {
            principal: name,
            source: &call.source_ip,
            now: call.now,
        };
        let checked = self.inner.secrets.check_password(&attempt, old, Some(hash));
        checked.await.map_err(|refused| match refused {
            Refused::Internal(error) => IamError::Internal(error),
            // Whoever guesses too often is not told when a guess was not looked at.
            Refused::Throttled | Refused::Wrong => old_password_wrong(),
        })
    }

    /// Whether the caller may, before anything costs time.
    async fn may_change_password(
        &self,
        call: &Call,
        rule: &OperationRule,
        name: &str,
    ) -> Result<std::sync::Arc<Directory>, IamError> {
        let directory = self.directory().await?;
        let ask = ask_user(&directory, &self.inner.names, name);
        self.authorize_in(&directory, call, rule, &ask, None, ())?;
        Ok(directory)
    }

    async fn hashed(&self, password: &Secret) -> Result<String, IamError> {
        let hashed = self.inner.secrets.hash_password(password).await;
        hashed.map_err(not_now)
    }
}
