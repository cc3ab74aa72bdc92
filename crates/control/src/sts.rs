//! `AssumeRole` and `GetSessionToken`: temporary credentials for those who have others already. What
//! is fixed now (tags, session policies, MFA, who is behind it all) goes into the session token;
//! what may be done with them is decided at each call.

use std::time::Duration;

use serde_json::{Value, json};
use sortie_evidence::{HIDDEN, Resource};
use sortie_iam::{Policy, PolicyKind};
use sortie_ports::{Change, Conflict, Role, StoreError};
use sortie_types::{AccessKeyId, Arn, NodeId, Secret, Tag, Timestamp, UniqueId};

use crate::{
    Control,
    authorize::{self, Ask, AskedResource, Denied, OperationRule},
    call::{
        Call, Caller, InternalError, Recorded, TemporarySession, UserCaller, internal, refusable,
    },
    context::{Keys, temporary_session},
    credentials::{Holder, TemporaryCredentials},
    directory::Directory,
    mint::RandomError,
    secrets::{Attempt, Refused},
    tags::{TAG_LIMIT, parse_tags},
    trail::Done,
};

/// How long a role is assumed for, unless asked otherwise.
const ROLE_LIFETIME: i64 = 3_600;
/// The longest for a role that is assumed by a role session.
const CHAINED_LIFETIME: i64 = 3_600;
/// How long a session token of a user is good, unless asked otherwise.
const USER_LIFETIME: i64 = 43_200;
/// How many managed policies may be session policies.
const SESSION_POLICIES: usize = 10;
/// How large session policies and tags may be together, so that the token fits into a header
/// everywhere.
const PACKED_LIMIT: usize = 6_144;

/// A role to assume.
#[derive(Clone, Debug, Default)]
pub struct AssumeRoleInput {
    /// The role.
    pub role_arn: String,
    /// Names the session.
    pub role_session_name: String,
    /// A session policy.
    pub policy: Option<String>,
    /// Managed policies that are session policies.
    pub policy_arns: Vec<String>,
    /// 900 to the role's maximum; one hour when absent.
    pub duration_seconds: Option<i64>,
    /// Session tags.
    pub tags: Vec<(String, String)>,
    /// Those of them that go along when another role is assumed.
    pub transitive_tag_keys: Vec<String>,
    /// What the role's trust policy may ask for.
    pub external_id: Option<String>,
    /// The caller's MFA device.
    pub serial_number: Option<String>,
    /// A code of it.
    pub token_code: Option<Secret>,
    /// Who is behind the session; stays through all that follow.
    pub source_identity: Option<String>,
}

/// A session token of one's own.
#[derive(Clone, Debug, Default)]
pub struct GetSessionTokenInput {
    /// 900 to 129600; twelve hours when absent.
    pub duration_seconds: Option<i64>,
    /// The caller's MFA device.
    pub serial_number: Option<String>,
    /// A code of it.
    pub token_code: Option<Secret>,
}

/// New temporary credentials.
#[derive(Clone, Debug)]
pub struct IssuedCredentials {
    /// `ASIA…`.
    pub access_key_id: AccessKeyId,
    /// Its secret.
    pub secret_access_key: Secret,
    /// Must go with every call.
    pub session_token: Secret,
    /// Not good from then on.
    pub expiration: Timestamp,
}

/// An assumed role.
#[derive(Clone, Debug)]
pub struct AssumeRoleOutput {
    /// The credentials.
    pub credentials: IssuedCredentials,
    /// `AROA…:<session name>`.
    pub assumed_role_id: String,
    /// The ARN of the role session.
    pub arn: Arn,
    /// How much of the room for session policies and tags is used, in percent; `None` without any.
    pub packed_policy_size: Option<i64>,
    /// Who is behind the session.
    pub source_identity: Option<String>,
}

/// Why a role is not assumed.
#[derive(Debug, thiserror::Error)]
pub enum AssumeRoleError {
    /// Not allowed, or the code is wrong.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A value is not one.
    #[error("{0}")]
    InvalidInput(String),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// A session policy cannot be read.
    #[error("{0}")]
    MalformedPolicyDocument(String),
    /// Session policies and tags are too large together.
    #[error("Packed size of session policies and tags consumes {percent}% of the allotted space.")]
    PackedPolicyTooLarge {
        /// Of the room there is.
        percent: i64,
    },
    /// Too many wrong codes.
    #[error("Rate exceeded")]
    Throttled,
}

/// Why there is no session token.
#[derive(Debug, thiserror::Error)]
pub enum GetSessionTokenError {
    /// Not with these credentials, or the code is wrong.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Too many wrong codes.
    #[error("Rate exceeded")]
    Throttled,
}

internal!(AssumeRoleError, GetSessionTokenError);
refusable!(AssumeRoleError, GetSessionTokenError);

/// Why a code was not taken.
enum CodeError {
    Denied(Denied),
    Internal(InternalError),
    Throttled,
}

macro_rules! of_code {
    ($($error:ty),*) => {$(
        impl From<CodeError> for $error {
            fn from(error: CodeError) -> Self {
                match error {
                    CodeError::Denied(denied) => Self::Denied(denied),
                    CodeError::Internal(error) => Self::Internal(error),
                    CodeError::Throttled => Self::Throttled,
                }
            }
        }
    )*};
}
of_code!(AssumeRoleError, GetSessionTokenError);

/// A session that is to be made, after all checks but those of its size.
struct Planned {
    role: Role,
    session_name: String,
    session: TemporarySession,
    /// Uses up the code.
    code: Option<Change>,
}

impl Control {
    /// New temporary credentials.
    pub(crate) fn issue(
        &self,
        holder: Holder,
        session: TemporarySession,
    ) -> Result<IssuedCredentials, RandomError> {
        let credentials = TemporaryCredentials::mint(holder, session)?;
        Ok(IssuedCredentials {
            session_token: credentials.session_token(&self.inner.credential_sealer)?,
            access_key_id: credentials.access_key_id,
            secret_access_key: credentials.secret,
            expiration: credentials.session.expires,
        })
    }

    /// `AssumeRole`.
    ///
    /// # Errors
    /// As [`AssumeRoleError`] says.
    pub async fn assume_role(
        &self,
        call: &Call,
        input: AssumeRoleInput,
    ) -> Result<Recorded<AssumeRoleOutput>, AssumeRoleError> {
        const RULE: OperationRule = authorize::ASSUME_ROLE;
        let directory = self.directory().await?;
        let planned = self.plan(&directory, call, &input)?;
        let percent = packed_percent(&planned.session);
        if percent > 100 {
            return Err(AssumeRoleError::PackedPolicyTooLarge { percent });
        }
        let names = &self.inner.names;
        let arn = names.role_session(&planned.role, &planned.session_name);
        let assumed_role_id = format!("{}:{}", planned.role.unique_id, planned.session_name);
        let source_identity = planned.session.source_identity.clone();
        let holder = Holder::Role {
            role: planned.role.unique_id.clone(),
            session_name: planned.session_name,
        };
        let credentials = self.issue(holder, planned.session)?;
        let mut shown = json!({
            "credentials": shown_credentials(&credentials),
            "assumedRoleUser": {"assumedRoleId": assumed_role_id, "arn": arn},
        });
        if let (Some(identity), Some(members)) = (&source_identity, shown.as_object_mut()) {
            members.insert("sourceIdentity".to_owned(), identity.as_str().into());
        }
        let done = Done::with(AssumeRoleOutput {
            credentials,
            assumed_role_id,
            arn,
            packed_policy_size: (percent > 0).then_some(percent),
            source_identity,
        })
        .showing(shown)
        .about([Resource {
            kind: "AWS::IAM::Role",
            arn: names.role_arn(&planned.role),
        }])
        .changing(planned.code.into_iter().collect());
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::CodeUsed))) => {
                Err(wrong_code().into())
            }
            outcome => Ok(outcome?),
        }
    }

    fn plan(
        &self,
        directory: &Directory,
        call: &Call,
        input: &AssumeRoleInput,
    ) -> Result<Planned, AssumeRoleError> {
        let arn = valid(input)?;
        let tags = session_tags(&call.caller, input)?;
        let source_identity = source_identity(&call.caller, input)?;
        let code = self.checked_code(
            directory,
            call,
            input.serial_number.as_deref(),
            input.token_code.as_ref(),
        )?;
        let role = self.role_at(directory, &arn);
        let mut keys = assume_keys(input, source_identity.as_deref());
        if code.is_some() {
            keys = keys
                .one("aws:MultiFactorAuthPresent", "true")
                .one("aws:MultiFactorAuthAge", "0");
        }
        let has_identity = source_identity.is_some();
        let ask = assume_ask(directory, role, &arn, keys, &tags, has_identity);
        let role = self
            .authorize_in(directory, call, &authorize::ASSUME_ROLE, &ask, None, role)?
            .transpose()
            // Whoever may assume any role, may not learn which there are either.
            .ok_or_else(|| {
                let rule = &authorize::ASSUME_ROLE;
                authorize::refusal(&self.inner.names, &call.caller, rule, &arn)
            })?;
        let role = (*role.resource()).clone();
        let seconds = duration(&call.caller, &role, input.duration_seconds)?;
        let policy_arns = session_policy_arns(directory, &input.policy_arns)?;
        let mfa = match &call.caller {
            _ if code.is_some() => Some(call.now),
            Caller::User(user) => user.session.as_ref().and_then(|session| session.mfa),
            _ => None,
        };
        let beginning = beginning(&call.caller);
        Ok(Planned {
            session_name: input.role_session_name.clone(),
            session: TemporarySession {
                mfa,
                policies: input.policy.clone().into_iter().collect(),
                policy_arns,
                transitive_tag_keys: transitive_keys(&call.caller, input),
                tags,
                source_identity,
                issuing_key: beginning.issuing_key,
                assumed_by: beginning.assumed_by,
                node: beginning.node,
                signed_in: beginning.signed_in,
                ..TemporarySession::new(call.now, after(call.now, seconds))
            },
            role,
            code,
        })
    }

    /// A role by its ARN.
    fn role_at<'a>(&self, directory: &'a Directory, arn: &Arn) -> Option<&'a Role> {
        let role = directory.role(arn.resource().rsplit('/').next()?)?;
        (self.inner.names.role_arn(role) == *arn).then_some(role)
    }

    /// Checks the code of an MFA device, if the call carries one. The change uses it up.
    fn checked_code(
        &self,
        directory: &Directory,
        call: &Call,
        serial_number: Option<&str>,
        code: Option<&Secret>,
    ) -> Result<Option<Change>, CodeError> {
        let (serial_number, code) = match (serial_number, code) {
            (None, None) => return Ok(None),
            (Some(serial_number), Some(code)) => (serial_number, code),
            _ => {
                return Err(CodeError::Denied(Denied {
                    message: "MultiFactorAuthentication failed, must provide both MFA serial \
                              number and one time pass code."
                        .to_owned(),
                }));
            }
        };
        // Only users have devices, and each only its own.
        let Caller::User(caller) = &call.caller else {
            return Err(CodeError::Denied(wrong_code()));
        };
        let owner = &caller.user.unique_id;
        let device = directory.mfa_device(serial_number);
        let device = device.filter(|device| device.user.as_ref() == Some(owner));
        let device = device.ok_or_else(|| CodeError::Denied(wrong_code()))?;
        let attempt = Attempt {
            principal: owner.as_str(),
            source: &call.source_ip,
            now: call.now,
        };
        let checked = self
            .inner
            .secrets
            .check_code(&attempt, device, code.expose());
        checked.map(Some).map_err(|refused| match refused {
            Refused::Internal(error) => CodeError::Internal(error),
            Refused::Throttled => CodeError::Throttled,
            Refused::Wrong => CodeError::Denied(wrong_code()),
        })
    }

    /// `GetSessionToken`: for users with a long-lived key. Heeds no policy, as with AWS.
    ///
    /// # Errors
    /// As [`GetSessionTokenError`] says.
    pub async fn get_session_token(
        &self,
        call: &Call,
        input: GetSessionTokenInput,
    ) -> Result<Recorded<IssuedCredentials>, GetSessionTokenError> {
        const RULE: OperationRule = authorize::GET_SESSION_TOKEN;
        let directory = self.directory().await?;
        self.authorize_in(&directory, call, &RULE, &Ask::any(), None, ())?;
        let user = long_lived(&call.caller)?;
        let code = self.checked_code(
            &directory,
            call,
            input.serial_number.as_deref(),
            input.token_code.as_ref(),
        )?;
        let seconds = input.duration_seconds.unwrap_or(USER_LIFETIME);
        let session = TemporarySession {
            mfa: code.is_some().then_some(call.now),
            issuing_key: Some(user.access_key_id.clone()),
            ..TemporarySession::new(call.now, after(call.now, seconds))
        };
        let holder = Holder::User {
            user: user.user.unique_id.clone(),
        };
        let credentials = self.issue(holder, session)?;
        let shown = json!({"credentials": shown_credentials(&credentials)});
        let done = Done::with(credentials)
            .showing(shown)
            .changing(code.into_iter().collect());
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::CodeUsed))) => {
                Err(wrong_code().into())
            }
            outcome => Ok(outcome?),
        }
    }
}

/// The keys of the request, which all that it asks for is judged by.
fn assume_keys(input: &AssumeRoleInput, source_identity: Option<&str>) -> Keys {
    let mut keys = Keys::default()
        .one("sts:RoleSessionName", input.role_session_name.as_str())
        .request_tag_texts(&input.tags);
    if let Some(external_id) = &input.external_id {
        keys = keys.one("sts:ExternalId", external_id.as_str());
    }
    if let Some(identity) = source_identity {
        keys = keys.one("sts:SourceIdentity", identity);
    }
    if !input.transitive_tag_keys.is_empty() {
        keys = keys.many("sts:TransitiveTagKeys", input.transitive_tag_keys.clone());
    }
    keys
}

/// Leave to assume the role, of its trust policy and of the caller's own.
fn assume_ask(
    directory: &Directory,
    role: Option<&Role>,
    arn: &Arn,
    keys: Keys,
    tags: &[Tag],
    has_source_identity: bool,
) -> Ask {
    let asked = AskedResource::new(arn.clone());
    let asked = match role {
        Some(role) => asked
            .tags(&["aws:ResourceTag", "iam:ResourceTag"], &role.tags)
            .governed_by(directory.trust_policy(role)),
        None => asked,
    };
    let mut ask = Ask::about(vec![asked.clone()]).with(keys);
    if !tags.is_empty() {
        ask = ask.also("sts:TagSession", vec![asked.clone()]);
    }
    if has_source_identity {
        ask = ask.also("sts:SetSourceIdentity", vec![asked]);
    }
    ask
}

/// Whether a text has the form of a unique id. Names of this form are refused: own-session rules know
/// sessions by the id of their owner as well, and nobody shall take another's.
pub(crate) fn is_unique_id(text: &str) -> bool {
    text.parse::<UniqueId>().is_ok()
}

/// The same for a wrong code, a used one, and a device that is not the caller's.
fn wrong_code() -> Denied {
    Denied {
        message: "MultiFactorAuthentication failed with invalid MFA one time pass code.".to_owned(),
    }
}

fn long_lived(caller: &Caller) -> Result<&UserCaller, Denied> {
    match caller {
        Caller::User(user) if user.session.is_none() => Ok(user),
        _ => Err(Denied {
            message: "Cannot call GetSessionToken with session credentials".to_owned(),
        }),
    }
}

/// What can be said without knowing who calls, or which roles there are.
fn valid(input: &AssumeRoleInput) -> Result<Arn, AssumeRoleError> {
    let invalid = |why: String| Err(AssumeRoleError::InvalidInput(why));
    let arn: Arn = match input.role_arn.parse() {
        Ok(arn) => arn,
        Err(_) => return invalid(format!("{} is invalid", input.role_arn)),
    };
    if is_unique_id(&input.role_session_name) {
        return invalid("RoleSessionName must not have the form of a unique id".to_owned());
    }
    if let Some(policy) = &input.policy {
        Policy::parse(policy, PolicyKind::Session)
            .map_err(|error| AssumeRoleError::MalformedPolicyDocument(error.to_string()))?;
    }
    if input.policy_arns.len() > SESSION_POLICIES {
        return invalid(format!(
            "at most {SESSION_POLICIES} session policies can be given"
        ));
    }
    Ok(arn)
}

/// The tags of the new session: those that are passed, and those that go along.
fn session_tags(caller: &Caller, input: &AssumeRoleInput) -> Result<Vec<Tag>, AssumeRoleError> {
    let invalid = |why: String| AssumeRoleError::InvalidInput(why);
    let mut tags = parse_tags(&input.tags).map_err(|error| invalid(error.to_string()))?;
    for (index, tag) in tags.iter().enumerate() {
        let mut before = tags.iter().take(index);
        if before.any(|other| other.key.eq_ignore_ascii_case(&tag.key)) {
            return Err(invalid(format!("Duplicate tag key: {}", tag.key)));
        }
    }
    let known = |key: &String| tags.iter().any(|tag| tag.key == *key);
    if let Some(unknown) = input.transitive_tag_keys.iter().find(|key| !known(key)) {
        return Err(invalid(format!(
            "Transitive tag key {unknown} is not among the tags"
        )));
    }
    for inherited in inherited_tags(caller) {
        if tags
            .iter()
            .any(|tag| tag.key.eq_ignore_ascii_case(&inherited.key))
        {
            let key = &inherited.key;
            return Err(invalid(format!(
                "The transitive tag {key} cannot be overridden"
            )));
        }
        tags.push(inherited.clone());
    }
    if tags.len() > TAG_LIMIT {
        return Err(invalid(format!(
            "a session can have at most {TAG_LIMIT} tags"
        )));
    }
    Ok(tags)
}

fn inherited_tags(caller: &Caller) -> impl Iterator<Item = &Tag> {
    let session = temporary_session(caller);
    session.into_iter().flat_map(|session| {
        let transitive = |tag: &&Tag| session.transitive_tag_keys.contains(&tag.key);
        session.tags.iter().filter(transitive)
    })
}

fn transitive_keys(caller: &Caller, input: &AssumeRoleInput) -> Vec<String> {
    let inherited = inherited_tags(caller).map(|tag| tag.key.clone());
    inherited
        .chain(input.transitive_tag_keys.iter().cloned())
        .collect()
}

/// Who is behind the session: said once, it cannot be changed.
fn source_identity(
    caller: &Caller,
    input: &AssumeRoleInput,
) -> Result<Option<String>, AssumeRoleError> {
    let set = temporary_session(caller).and_then(|session| session.source_identity.as_ref());
    match (set, &input.source_identity) {
        (Some(set), Some(given)) if set != given => Err(AssumeRoleError::InvalidInput(
            "the source identity of a session cannot be changed".to_owned(),
        )),
        (Some(set), _) => Ok(Some(set.clone())),
        (None, Some(given)) if given.to_ascii_lowercase().starts_with("aws:") => Err(
            AssumeRoleError::InvalidInput("a source identity must not start with aws:".to_owned()),
        ),
        (None, given) => Ok(given.clone()),
    }
}

fn duration(caller: &Caller, role: &Role, asked: Option<i64>) -> Result<i64, AssumeRoleError> {
    let seconds = asked.unwrap_or(ROLE_LIFETIME);
    let chained = matches!(caller, Caller::Role(_) | Caller::Node(_));
    let refuse = |why: &str| Err(AssumeRoleError::InvalidInput(why.to_owned()));
    if chained && seconds > CHAINED_LIFETIME {
        return refuse(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by \
             role chaining.",
        );
    }
    if seconds > role.max_session_seconds {
        return refuse(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        );
    }
    Ok(seconds)
}

fn session_policy_arns(
    directory: &Directory,
    given: &[String],
) -> Result<Vec<Arn>, AssumeRoleError> {
    let arns = given.iter().map(|text| {
        let arn: Option<Arn> = text.parse().ok();
        arn.filter(|arn| directory.managed_document(arn).is_some())
            .ok_or_else(|| {
                AssumeRoleError::InvalidInput(format!("The policy {text} does not exist."))
            })
    });
    arns.collect()
}

/// Where a chain begins: the long-lived key, or else the user with a password or the role of a node.
#[derive(Default)]
struct Beginning {
    issuing_key: Option<AccessKeyId>,
    assumed_by: Option<UniqueId>,
    node: Option<NodeId>,
    signed_in: Option<Timestamp>,
}

fn beginning(caller: &Caller) -> Beginning {
    match caller {
        Caller::Anonymous { .. } => Beginning::default(),
        Caller::Node(node) => Beginning {
            issuing_key: None,
            assumed_by: node.role.as_ref().map(|role| role.unique_id.clone()),
            node: Some(node.node_id.clone()),
            signed_in: None,
        },
        Caller::Role(role) => Beginning {
            issuing_key: role.session.issuing_key.clone(),
            assumed_by: role.session.assumed_by.clone(),
            node: role.session.node.clone(),
            signed_in: role.session.signed_in,
        },
        Caller::User(user) => Beginning {
            issuing_key: match &user.session {
                None => Some(user.access_key_id.clone()),
                Some(session) => session.issuing_key.clone(),
            },
            assumed_by: Some(user.user.unique_id.clone()),
            node: None,
            signed_in: user.session.as_ref().and_then(|session| session.signed_in),
        },
    }
}

fn after(now: Timestamp, seconds: i64) -> Timestamp {
    now.plus(Duration::from_secs(
        u64::try_from(seconds).unwrap_or_default(),
    ))
}

/// How much of the room for them session policies and tags take.
fn packed_percent(session: &TemporarySession) -> i64 {
    let policies = session
        .policies
        .iter()
        .map(|text| sortie_iam::document_size(text));
    let arns = session.policy_arns.iter().map(|arn| arn.as_str().len());
    let tags = session
        .tags
        .iter()
        .map(|tag| tag.key.len() + tag.value.len());
    let size: usize = policies.chain(arns).chain(tags).sum();
    i64::try_from((size * 100).div_ceil(PACKED_LIMIT)).unwrap_or(i64::MAX)
}

/// As CloudTrail shows credentials: no secret, and here no token either.
fn shown_credentials(credentials: &IssuedCredentials) -> Value {
    json!({
        "accessKeyId": credentials.access_key_id,
        "sessionToken": HIDDEN,
        "expiration": american(credentials.expiration),
    })
}

/// `May 4, 2026, 9:00:00 AM`: CloudTrail's form of a time inside an answer.
fn american(at: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let iso = at.iso_seconds();
    let number = |range: std::ops::Range<usize>| -> Option<usize> { iso.get(range)?.parse().ok() };
    let parts = || {
        let month = MONTHS.get(number(5..7)?.checked_sub(1)?)?;
        let (day, hour) = (number(8..10)?, number(11..13)?);
        let half = if hour < 12 { "AM" } else { "PM" };
        let hour = (hour + 11) % 12 + 1;
        Some(format!(
            "{month} {day}, {}, {hour}:{} {half}",
            iso.get(..4)?,
            iso.get(14..19)?
        ))
    };
    parts().unwrap_or_else(|| iso.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_inside_answers_are_written_as_cloudtrail_does() {
        for (iso, shown) in [
            ("2026-05-04T09:00:00Z", "May 4, 2026, 9:00:00 AM"),
            ("2026-12-31T00:05:09Z", "Dec 31, 2026, 12:05:09 AM"),
            ("2026-01-01T12:59:59Z", "Jan 1, 2026, 12:59:59 PM"),
            ("2026-01-01T23:00:00Z", "Jan 1, 2026, 11:00:00 PM"),
        ] {
            assert_eq!(american(iso.parse().unwrap()), shown);
        }
    }

    #[test]
    fn names_of_the_form_of_unique_ids_are_known() {
        for id in ["AIDAAAAAAAAAAAAAAAAAA", "AROA234567ABCDEFGHIJK"] {
            assert!(is_unique_id(id), "{id}");
        }
        for name in [
            "AIDA",
            "alice",
            "AIDAAAAAAAAAAAAAAAAAAA",
            "aidaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(!is_unique_id(name), "{name}");
        }
    }
}
