//! Signing in with a password, and with a code where the user has an MFA device, for temporary
//! credentials; and `GetCaller`, which says how the caller of a call has signed in.
//!
//! Who is refused learns nothing: an unknown name, a user without a password, a wrong password and a
//! wrong code have one answer, and all but the last, which needs the right password, take one time.
//! Only the right password is told that a code or a new password is needed. Every attempt is in the
//! trail as a console's sign-in is, without what was typed.

use std::time::Duration;

use serde_json::{Value, json};
use sortie_evidence::{AuditRecord, Category, Failure, UserIdentity};
use sortie_ports::{
    Change, Commit, Conflict, Identity, IdentityKind, IdentityUse, LoginProfile, Signal,
    StoreError, User,
};
use sortie_types::{AccountId, Arn, Secret, Timestamp};

use crate::{
    Control,
    authorize::{self, OperationRule},
    call::{Call, Caller, InternalError, Recorded, TemporarySession, internal},
    credentials::Holder,
    directory::Directory,
    failures::Verdict,
    iam::login_profiles,
    judge,
    mint::{self, RandomError},
    secrets::{Attempt, Refused},
    sts::IssuedCredentials,
    trail::Done,
};

/// How long credentials of a sign-in are good, unless asked otherwise.
const LIFETIME: i64 = 43_200;
/// How often a sign-in starts again because identities changed meanwhile.
const ATTEMPTS: usize = 4;
/// The service under whose name sign-ins are recorded.
const SIGN_IN_SERVICE: &str = "signin.amazonaws.com";
/// The records of a sign-in, and of a right password that still needs a code.
const CONSOLE_LOGIN: &str = "ConsoleLogin";
const CHECK_MFA: &str = "CheckMfa";

/// What a person gives to sign in.
#[derive(Clone, Debug)]
pub struct SignInInput {
    /// The user's name.
    pub user_name: String,
    /// The password.
    pub password: Secret,
    /// A code of one of the user's MFA devices.
    pub mfa_code: Option<Secret>,
    /// The password from now on, where it has to be changed.
    pub new_password: Option<Secret>,
    /// 900 to 129600; twelve hours when absent.
    pub duration_seconds: Option<i64>,
}

/// Who signed in.
#[derive(Clone, Debug)]
pub struct SignInOutput {
    /// The user.
    pub arn: Arn,
    /// The credentials.
    pub credentials: IssuedCredentials,
    /// Whether a code was checked.
    pub mfa_used: bool,
}

/// Why nobody signed in. The trail has it already.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The one answer for all that does not fit together.
    #[error("Your authentication information is incorrect. Please try again.")]
    Failed,
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// The password is right, and the user has an MFA device.
    #[error("A code of your MFA device is required.")]
    MfaCodeRequired,
    /// The password is right, and has to be changed.
    #[error("Your password has to be changed.")]
    NewPasswordRequired,
    /// The new password is no good.
    #[error("{0}")]
    PasswordPolicyViolation(String),
    /// Nothing was looked at.
    #[error("There were too many failed attempts. Please try again later.")]
    TooManyAttempts,
}

internal!(SignInError);

/// How a caller signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedInWith {
    /// A long-lived access key.
    AccessKey,
    /// Credentials of a role.
    AssumeRole,
    /// Credentials of `GetSessionToken`.
    GetSessionToken,
    /// A node's own key.
    NodeKey,
    /// A password.
    Password,
}

/// What kind of principal a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A managed node.
    Node,
    /// A role session.
    Role,
    /// An IAM user.
    User,
}

/// Who calls, and how they signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetCallerOutput {
    /// The account.
    pub account: AccountId,
    /// As policies name it.
    pub arn: Arn,
    /// What it is.
    pub kind: CallerKind,
    /// `AIDA…`, or `AROA…:<session name>`.
    pub user_id: String,
    /// Of an IAM user.
    pub user_name: Option<String>,
    /// How.
    pub with: SignedInWith,
    /// When temporary credentials were issued.
    pub issued: Option<Timestamp>,
    /// Until when they are good.
    pub expires: Option<Timestamp>,
    /// When a code of an MFA device was checked for them.
    pub mfa: Option<Timestamp>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GetCallerError {
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Nobody that we know.
    #[error("the caller is not authenticated")]
    NotAuthenticated,
}

internal!(GetCallerError);

/// A sign-in whose checks are behind it.
struct Proven<'a> {
    user: &'a User,
    /// Uses up the code.
    code: Option<Change>,
    /// The row with the new password.
    changed: Option<User>,
}

impl Control {
    /// `SignIn`.
    ///
    /// # Errors
    /// As [`SignInError`] says.
    pub async fn sign_in(
        &self,
        call: &Call,
        input: &SignInInput,
    ) -> Result<Recorded<SignInOutput>, SignInError> {
        for _ in 0..ATTEMPTS {
            let directory = self.directory().await?;
            let user = directory.user(&input.user_name);
            let outcome = match self.prove(&directory, user, call, input).await {
                Ok(proven) => self.admit(&directory, proven, call, input).await,
                Err(error) => Err(error),
            };
            match outcome {
                Err(SignInError::Internal(InternalError::Store(StoreError::Conflict(
                    Conflict::Revision,
                )))) => {}
                Err(error) => {
                    self.record_refused(call, user, input, &error).await;
                    return Err(error);
                }
                Ok(output) => return Ok(output),
            }
        }
        Err(InternalError::Store(StoreError::Conflict(Conflict::Revision)).into())
    }

    /// Checks everything that was given, in the order in which it may be told what is missing.
    async fn prove<'a>(
        &self,
        directory: &Directory,
        user: Option<&'a User>,
        call: &Call,
        input: &SignInInput,
    ) -> Result<Proven<'a>, SignInError> {
        let lower = input.user_name.to_ascii_lowercase();
        let attempt = Attempt {
            principal: &lower,
            source: &call.source_ip,
            now: call.now,
        };
        let profile = user.and_then(|user| Some((user, user.login_profile.as_ref()?)));
        let hash = profile.map(|(_, profile)| profile.password_hash.as_str());
        let secrets = &self.inner.secrets;
        let checked = secrets
            .check_password(&attempt, &input.password, hash)
            .await;
        checked.map_err(refused)?;
        // A password of nobody is never right.
        let (user, profile) = profile.ok_or(SignInError::Failed)?;
        let new_password = self.acceptable_new(user, profile, input)?;
        let code = self.checked_mfa(directory, user, call, input)?;
        let changed = match new_password {
            None => None,
            Some(password) => {
                let password_hash = secrets.hash_password(password).await.map_err(refused)?;
                let login_profile = Some(LoginProfile {
                    password_hash,
                    reset_required: false,
                    created: profile.created,
                    changed: Some(call.now),
                });
                Some(User {
                    login_profile,
                    ..user.clone()
                })
            }
        };
        Ok(Proven {
            user,
            code,
            changed,
        })
    }

    /// The new password, where the old one is good for nothing else than to set it. It is of no effect
    /// where the old one is still good: changing that takes a permission.
    fn acceptable_new<'a>(
        &self,
        user: &User,
        profile: &LoginProfile,
        input: &'a SignInInput,
    ) -> Result<Option<&'a Secret>, SignInError> {
        if !profile.reset_required {
            return Ok(None);
        }
        let password = input
            .new_password
            .as_ref()
            .ok_or(SignInError::NewPasswordRequired)?;
        if password.expose() == input.password.expose() {
            let why = "The new password must not be the old one.";
            return Err(SignInError::PasswordPolicyViolation(why.to_owned()));
        }
        login_profiles::violation(&self.inner.names, user, password)
            .map_or(Ok(Some(password)), |why| {
                Err(SignInError::PasswordPolicyViolation(why))
            })
    }

    /// Whoever has a device has to give a code of one.
    fn checked_mfa(
        &self,
        directory: &Directory,
        user: &User,
        call: &Call,
        input: &SignInInput,
    ) -> Result<Option<Change>, SignInError> {
        let devices = directory.mfa_devices_of(&user.unique_id);
        if devices.is_empty() {
            return Ok(None);
        }
        let code = input.mfa_code.as_ref();
        let code = code.ok_or(SignInError::MfaCodeRequired)?;
        let attempt = Attempt {
            principal: user.unique_id.as_str(),
            source: &call.source_ip,
            now: call.now,
        };
        let secrets = &self.inner.secrets;
        let checked = secrets.check_code_of_any(&attempt, &devices, code.expose());
        checked.map(Some).map_err(refused)
    }

    /// Issues the credentials, and commits what they need together with the record.
    async fn admit(
        &self,
        directory: &Directory,
        proven: Proven<'_>,
        call: &Call,
        input: &SignInInput,
    ) -> Result<Recorded<SignInOutput>, SignInError> {
        let Proven {
            user,
            code,
            changed,
        } = proven;
        let mfa_used = code.is_some();
        let seconds = input.duration_seconds.unwrap_or(LIFETIME);
        let lifetime = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let session = TemporarySession {
            mfa: mfa_used.then_some(call.now),
            signed_in: Some(call.now),
            ..TemporarySession::new(call.now, call.now.plus(lifetime))
        };
        let holder = Holder::User {
            user: user.unique_id.clone(),
        };
        let credentials = self.issue(holder, session)?;
        let arn = self.inner.names.user(user);
        let mut record = self.sign_in_record(call, self.signing_in(user), mfa_used)?;
        record.response_elements = json!({CONSOLE_LOGIN: "Success"});
        let is_changed = changed.is_some();
        // Both hold only together with what was checked.
        let mut changes = vec![Change::RequireIdentities {
            revision: directory.revision(),
        }];
        changes.extend(code);
        changes.extend(changed.map(|user| Change::PutIdentity(Box::new(Identity::User(user)))));
        let commit = Commit {
            changes,
            trail: vec![record],
        };
        match self.inner.state.commit(commit).await {
            Err(StoreError::Conflict(Conflict::CodeUsed)) => return Err(SignInError::Failed),
            outcome => outcome?,
        }
        if is_changed {
            self.inner.signals.publish(Signal::Identities);
        }
        let usage = IdentityUse {
            at: call.now,
            service: None,
            region: None,
        };
        self.identity_used(IdentityKind::User, user.unique_id.as_str(), usage);
        Ok(Recorded::new(SignInOutput {
            arn,
            credentials,
            mfa_used,
        }))
    }

    fn signing_in(&self, user: &User) -> UserIdentity {
        UserIdentity::IamUser {
            principal_id: user.unique_id.to_string(),
            arn: self.inner.names.user(user),
            access_key_id: None,
            user_name: user.name.to_string(),
            session: None,
        }
    }

    /// The record of an attempt, as CloudTrail has it for a console, without its outcome.
    fn sign_in_record(
        &self,
        call: &Call,
        identity: UserIdentity,
        mfa_used: bool,
    ) -> Result<AuditRecord, RandomError> {
        let mfa = if mfa_used { "Yes" } else { "No" };
        Ok(AuditRecord {
            event_id: mint::uuid()?,
            event_time: call.now,
            event_source: SIGN_IN_SERVICE.to_owned(),
            event_name: CONSOLE_LOGIN.to_owned(),
            event_type: "AwsConsoleSignIn",
            region: self.inner.names.region.clone(),
            account_id: self.inner.names.account.clone(),
            source_ip_address: call.source_ip.clone(),
            user_agent: call.user_agent.clone(),
            identity,
            request_parameters: Value::Null,
            response_elements: Value::Null,
            additional: json!({"MobileVersion": "No", "MFAUsed": mfa}),
            service_event: Value::Null,
            request_id: call.request_id,
            read_only: false,
            resources: Vec::new(),
            category: Category::Management,
            failure: None,
        })
    }

    /// Records an attempt that gave no credentials, at a bounded rate per source: anybody can try.
    async fn record_refused(
        &self,
        call: &Call,
        user: Option<&User>,
        input: &SignInInput,
        error: &SignInError,
    ) {
        let unwritten = match self.failures().admit(&call.source_ip, call.now) {
            Verdict::Count => return,
            Verdict::Write { unwritten } => unwritten,
        };
        let identity = match user {
            Some(user) => self.signing_in(user),
            // Some type their password where the name goes.
            None => UserIdentity::UnknownUser,
        };
        let written = match self.sign_in_record(call, identity, input.mfa_code.is_some()) {
            Ok(mut record) => {
                refuse(&mut record, error, unwritten);
                let commit = Commit {
                    changes: Vec::new(),
                    trail: vec![record],
                };
                self.inner
                    .state
                    .commit(commit)
                    .await
                    .map_err(InternalError::from)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            tracing::error!(
                error = &error as &dyn std::error::Error, request_id = %call.request_id,
                "a refused sign-in is not in the trail"
            );
        }
    }

    /// `GetCaller`.
    ///
    /// # Errors
    /// As [`GetCallerError`] says.
    pub async fn get_caller(
        &self,
        call: &Call,
    ) -> Result<Recorded<GetCallerOutput>, GetCallerError> {
        const RULE: OperationRule = authorize::GET_CALLER;
        let names = &self.inner.names;
        let known = (names.caller(&call.caller), judge::starter(&call.caller));
        let (Some(arn), Some(starter)) = known else {
            return Err(GetCallerError::NotAuthenticated);
        };
        let (kind, with, session) = how(&call.caller).ok_or(GetCallerError::NotAuthenticated)?;
        let answer = GetCallerOutput {
            account: names.account.clone(),
            arn,
            kind,
            user_id: starter.userid(),
            user_name: (kind == CallerKind::User).then_some(starter.name),
            with,
            issued: match &call.caller {
                Caller::Node(node) => node.issued,
                _ => session.map(|session| session.issued),
            },
            expires: session.map(|session| session.expires),
            mfa: session.and_then(|session| session.mfa),
        };
        Ok(self.record(call, &RULE, Done::with(answer)).await?)
    }
}

/// What a caller is, and what it signed in with.
fn how(caller: &Caller) -> Option<(CallerKind, SignedInWith, Option<&TemporarySession>)> {
    Some(match caller {
        Caller::Anonymous { .. } => return None,
        Caller::Node(node) if node.access_key_id.is_none() => {
            (CallerKind::Node, SignedInWith::NodeKey, None)
        }
        Caller::Node(_) => (CallerKind::Node, SignedInWith::AssumeRole, None),
        Caller::Role(role) => (
            CallerKind::Role,
            SignedInWith::AssumeRole,
            Some(&role.session),
        ),
        Caller::User(user) => {
            let with = match &user.session {
                None => SignedInWith::AccessKey,
                Some(session) if session.issuing_key.is_some() => SignedInWith::GetSessionToken,
                Some(_) => SignedInWith::Password,
            };
            (CallerKind::User, with, user.session.as_ref())
        }
    })
}

/// Makes the record that of a refusal. A right password that only lacks its code is no failure: every
/// person who signs in with a device passes there.
fn refuse(record: &mut AuditRecord, error: &SignInError, unwritten: u64) {
    if matches!(error, SignInError::MfaCodeRequired) {
        record.event_name = CHECK_MFA.to_owned();
        record.response_elements = json!({CHECK_MFA: "Success"});
        record.additional = json!({"MfaType": "Virtual MFA"});
    } else {
        record.response_elements = json!({CONSOLE_LOGIN: "Failure"});
        let message = match error {
            SignInError::Failed => "Failed authentication".to_owned(),
            SignInError::Internal(_) => "Internal error".to_owned(),
            other => other.to_string(),
        };
        // CloudTrail has no code here.
        record.failure = Some(Failure {
            code: String::new(),
            message,
        });
    }
    if let (true, Some(members)) = (unwritten > 0, record.additional.as_object_mut()) {
        members.insert("unrecordedFailures".to_owned(), unwritten.into());
    }
}

fn refused(refused: Refused) -> SignInError {
    match refused {
        Refused::Internal(error) => SignInError::Internal(error),
        Refused::Throttled => SignInError::TooManyAttempts,
        Refused::Wrong => SignInError::Failed,
    }
}
