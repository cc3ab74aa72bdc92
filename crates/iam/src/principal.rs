//! Who makes a request, and how the `Principal` element of a resource policy names them.

use crate::{Context, arn::ArnParts};

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The account itself: no identity policies apply, everything is allowed.
    AccountRoot {
        /// Twelve digits.
        account: String,
    },
    /// Nobody: an unsigned request.
    Anonymous,
    /// A session of a role.
    AssumedRole {
        /// The role's ARN, with its path.
        role_arn: String,
        /// `arn:aws:sts::<account>:assumed-role/<role>/<session>`.
        session_arn: String,
        /// The role's unique id (`AROA…`).
        role_id: String,
    },
    /// An identity of an OIDC or SAML provider, which can only assume roles.
    Federated {
        /// The provider as trust policies name it.
        provider: String,
    },
    /// A session made by GetFederationToken.
    FederatedUser {
        /// `arn:aws:sts::<account>:federated-user/<name>`.
        arn: String,
        /// The ARN of the user who made the session.
        user_arn: Option<String>,
    },
    /// A service acting by itself.
    Service {
        /// Such as `ssm.amazonaws.com`.
        name: String,
    },
    /// A user, also through GetSessionToken.
    User {
        /// The user's ARN, with its path.
        arn: String,
        /// The user's unique id (`AIDA…`).
        user_id: String,
    },
}

/// A text that names no principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not name a principal")]
pub struct ParsePrincipalError(pub String);

impl Principal {
    /// A user.
    #[must_use]
    pub fn user(arn: impl Into<String>, user_id: impl Into<String>) -> Self {
        Self::User {
            arn: arn.into(),
            user_id: user_id.into(),
        }
    }

    /// A session of a role.
    #[must_use]
    pub fn assumed_role(
        role_arn: impl Into<String>,
        session_arn: impl Into<String>,
        role_id: impl Into<String>,
    ) -> Self {
        Self::AssumedRole {
            role_arn: role_arn.into(),
            session_arn: session_arn.into(),
            role_id: role_id.into(),
        }
    }

    /// Reads a principal from its ARN, a service's name, or `*` or `anonymous` for nobody. Unique ids
    /// and a role's path are taken from `aws:userid` and `aws:PrincipalArn` where they are given.
    ///
    /// # Errors
    ///
    /// When the text is none of these.
    pub fn from_text(text: &str, context: &Context) -> Result<Self, ParsePrincipalError> {
        let unknown = || ParsePrincipalError(text.to_owned());
        if text == "*" || text == "anonymous" {
            return Ok(Self::Anonymous);
        }
        if is_service(text) {
            return Ok(Self::Service {
                name: text.to_owned(),
            });
        }
        let parts = ArnParts::parse(text).ok_or_else(unknown)?;
        let user_id = single(context, "aws:userid").unwrap_or_default();
        let account = parts.account();
        match (parts.service(), parts.rest.split_once('/')) {
            ("iam", None) if parts.rest == "root" && is_account(account) => Ok(Self::AccountRoot {
                account: account.to_owned(),
            }),
            ("iam", Some(("user", _))) => Ok(Self::user(text, user_id)),
            ("iam", Some(("oidc-provider" | "saml-provider", _))) => Ok(Self::Federated {
                provider: text.to_owned(),
            }),
            ("sts", Some(("assumed-role", name))) => {
                let (role, _) = name.split_once('/').ok_or_else(unknown)?;
                let role_id = user_id.split(':').next().unwrap_or_default();
                let role_arn = role_arn(&parts, role, context);
                Ok(Self::assumed_role(role_arn, text, role_id))
            }
            ("sts", Some(("federated-user", _))) => Ok(Self::FederatedUser {
                arn: text.to_owned(),
                user_arn: None,
            }),
            _ => Err(unknown()),
        }
    }

    /// The ARN that messages name; a service's name where there is none.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::AccountRoot { account } => format!("arn:aws:iam::{account}:root"),
            Self::Anonymous => "anonymous".to_owned(),
            Self::AssumedRole { session_arn, .. } => session_arn.clone(),
            Self::Federated { provider } => provider.clone(),
            Self::FederatedUser { arn, .. } | Self::User { arn, .. } => arn.clone(),
            Self::Service { name } => name.clone(),
        }
    }

    /// The account that the principal belongs to.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        let arn = match self {
            Self::AccountRoot { account } => return Some(account),
            Self::AssumedRole { session_arn, .. } => session_arn,
            Self::FederatedUser { arn, .. } | Self::User { arn, .. } => arn,
            Self::Anonymous | Self::Federated { .. } | Self::Service { .. } => return None,
        };
        ArnParts::parse(arn).map(|parts| parts.account())
    }

    /// Whether account-wide policies spare this principal: roles that services made for themselves.
    pub(crate) fn is_service_linked(&self) -> bool {
        match self {
            Self::AssumedRole { role_arn, .. } => ArnParts::parse(role_arn)
                .is_some_and(|parts| parts.rest.starts_with("role/aws-service-role/")),
            _ => false,
        }
    }
}

fn single<'a>(context: &'a Context, key: &str) -> Option<&'a str> {
    match context.get(key) {
        Some([value]) => Some(value),
        _ => None,
    }
}

/// The role's ARN behind a session's. A session does not show the role's path; `aws:PrincipalArn` does.
fn role_arn(session: &ArnParts<'_>, role: &str, context: &Context) -> String {
    let [partition, _, _, account] = session.middle;
    if let Some(known) = single(context, "aws:PrincipalArn")
        && let Some(parts) = ArnParts::parse(known)
        && parts.account() == account
        && let Some(name) = parts.rest.strip_prefix("role/")
        && name.rsplit('/').next() == Some(role)
    {
        return known.to_owned();
    }
    format!("arn:{partition}:iam::{account}:role/{role}")
}

fn is_service(text: &str) -> bool {
    text.contains('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_unique_id(text: &str) -> bool {
    (text.starts_with("AIDA") || text.starts_with("AROA"))
        && text.len() > 4
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// One entry of a `Principal` element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Account(String),
    Canonical(String),
    Everyone,
    Federated(String),
    FederatedUser(String),
    Role(String),
    Service(String),
    Session(String),
    /// A role's unique id and a session's name, kept instead of the session's ARN.
    SessionId(String),
    /// What AWS keeps instead of an ARN: of a user or of a role.
    UniqueId(String),
    User(String),
}

/// How directly a resource policy names the caller, which decides what else has to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    /// By account: a delegation, the caller's own policies must allow as well.
    Account,
    /// By role: as if the role's policies allowed.
    Role,
    /// Nothing else is needed.
    Direct,
}

impl Named {
    /// Reads a value of the map's key `AWS`, `Service`, `Federated` or `CanonicalUser`.
    pub(crate) fn parse(key: &str, text: &str) -> Option<Self> {
        if text == "*" {
            return (key == "AWS").then_some(Self::Everyone);
        }
        if text.is_empty() || text.contains(['*', '?']) {
            return None;
        }
        let owned = text.to_owned();
        match key {
            "AWS" => Self::parse_aws(text),
            "CanonicalUser" => Some(Self::Canonical(owned)),
            "Federated" => Some(Self::Federated(owned)),
            "Service" => is_service(text).then_some(Self::Service(owned)),
            _ => None,
        }
    }

    fn parse_aws(text: &str) -> Option<Self> {
        if is_account(text) {
            return Some(Self::Account(text.to_owned()));
        }
        if is_unique_id(text) {
            return Some(Self::UniqueId(text.to_owned()));
        }
        if let Some((role_id, session)) = text.split_once(':')
            && role_id.starts_with("AROA")
            && is_unique_id(role_id)
            && !session.is_empty()
        {
            return Some(Self::SessionId(text.to_owned()));
        }
        let parts = ArnParts::parse(text)?;
        let [partition, _, region, account] = parts.middle;
        if partition.is_empty() || !region.is_empty() || !is_account(account) {
            return None;
        }
        let owned = text.to_owned();
        match (parts.service(), parts.rest.split_once('/')) {
            ("iam", None) if parts.rest == "root" => Some(Self::Account(account.to_owned())),
            ("iam", Some(("user", name))) if !name.is_empty() => Some(Self::User(owned)),
            ("iam", Some(("role", name))) if !name.is_empty() => Some(Self::Role(owned)),
            ("sts", Some(("assumed-role", name))) if name.contains('/') => {
                Some(Self::Session(owned))
            }
            ("sts", Some(("federated-user", name))) if !name.is_empty() => {
                Some(Self::FederatedUser(owned))
            }
            _ => None,
        }
    }

    /// The map key and the text, as in the document.
    pub(crate) fn written(&self) -> (&'static str, &str) {
        match self {
            Self::Account(text)
            | Self::FederatedUser(text)
            | Self::Role(text)
            | Self::Session(text)
            | Self::SessionId(text)
            | Self::UniqueId(text)
            | Self::User(text) => ("AWS", text),
            Self::Canonical(text) => ("CanonicalUser", text),
            Self::Everyone => ("AWS", "*"),
            Self::Federated(text) => ("Federated", text),
            Self::Service(text) => ("Service", text),
        }
    }

    /// How this entry names a principal, if it does.
    fn grade(&self, principal: &Principal) -> Option<Grade> {
        let direct = match (self, principal) {
            (Self::Everyone, _) => true,
            (Self::Account(account), Principal::AccountRoot { account: root }) => {
                return (account == root).then_some(Grade::Account);
            }
            (Self::Account(account), _) => {
                return (principal.account() == Some(account)).then_some(Grade::Account);
            }
            (Self::User(user), Principal::User { arn, .. }) => user == arn,
            (Self::User(user), Principal::FederatedUser { user_arn, .. }) => {
                return (user_arn.as_ref() == Some(user)).then_some(Grade::Role);
            }
            (Self::UniqueId(id), Principal::User { user_id, .. }) => id == user_id,
            (Self::UniqueId(id), Principal::AssumedRole { role_id, .. }) => {
                return (id == role_id).then_some(Grade::Role);
            }
            (Self::Role(role), Principal::AssumedRole { role_arn, .. }) => {
                return (role == role_arn).then_some(Grade::Role);
            }
            (Self::Session(session), Principal::AssumedRole { session_arn, .. }) => {
                session == session_arn
            }
            (
                Self::SessionId(id),
                Principal::AssumedRole {
                    role_id,
                    session_arn,
                    ..
                },
            ) => id.split_once(':').is_some_and(|(role, session)| {
                role == role_id && session_arn.rsplit('/').next() == Some(session)
            }),
            (Self::FederatedUser(named), Principal::FederatedUser { arn, .. }) => named == arn,
            (Self::Service(service), Principal::Service { name }) => service == name,
            (Self::Federated(named), Principal::Federated { provider }) => named == provider,
            _ => false,
        };
        direct.then_some(Grade::Direct)
    }
}

/// The `Principal` or `NotPrincipal` element.
#[derive(Clone, Debug)]
pub(crate) struct Principals {
    pub(crate) not: bool,
    pub(crate) named: Vec<Named>,
}

impl Principals {
    /// How the statement names the principal; `None` when it is not about it.
    pub(crate) fn grade(&self, principal: &Principal) -> Option<Grade> {
        if self.not {
            // Only statements that deny have it, and these do not grade.
            return (!self.excepts(principal)).then_some(Grade::Direct);
        }
        let grades = self.named.iter().map(|named| named.grade(principal));
        grades.max().flatten()
    }

    /// Whether a Deny for everybody else spares the principal. Its account must be listed as well,
    /// and for a session both the role and the session.
    fn excepts(&self, principal: &Principal) -> bool {
        let listed = |grade| {
            self.named
                .iter()
                .any(|named| named.grade(principal) == Some(grade))
        };
        if self.named.contains(&Named::Everyone) {
            return true;
        }
        match principal {
            Principal::AccountRoot { .. } => listed(Grade::Account),
            Principal::AssumedRole { .. } => {
                listed(Grade::Direct) && listed(Grade::Role) && listed(Grade::Account)
            }
            Principal::FederatedUser { .. } | Principal::User { .. } => {
                listed(Grade::Direct) && listed(Grade::Account)
            }
            Principal::Federated { .. } | Principal::Service { .. } => listed(Grade::Direct),
            Principal::Anonymous => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "111122223333";
    const ROOT: &str = "arn:aws:iam::111122223333:root";
    const ALICE: &str = "arn:aws:iam::111122223333:user/alice";
    const ROLE: &str = "arn:aws:iam::111122223333:role/team/Dev";
    const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/Dev/carol";
    const FEDERATED: &str = "arn:aws:sts::111122223333:federated-user/eve";

    fn named(texts: &[&str], not: bool) -> Principals {
        let named = texts
            .iter()
            .map(|text| Named::parse("AWS", text).unwrap_or_else(|| panic!("{text}")));
        Principals {
            not,
            named: named.collect(),
        }
    }

    fn alice() -> Principal {
        Principal::user(ALICE, "AIDAALICE")
    }

    fn carol() -> Principal {
        Principal::assumed_role(ROLE, SESSION, "AROADEV")
    }

    fn eve() -> Principal {
        Principal::FederatedUser {
            arn: FEDERATED.to_owned(),
            user_arn: Some(ALICE.to_owned()),
        }
    }

    #[test]
    fn callers_are_named_in_these_ways() {
        let cases = [
            ("*", alice(), Some(Grade::Direct)),
            ("*", Principal::Anonymous, Some(Grade::Direct)),
            (ACCOUNT, alice(), Some(Grade::Account)),
            (ROOT, carol(), Some(Grade::Account)),
            (ROOT, eve(), Some(Grade::Account)),
            ("444455556666", alice(), None),
            (ALICE, alice(), Some(Grade::Direct)),
            ("AIDAALICE", alice(), Some(Grade::Direct)),
            ("AIDABOB", alice(), None),
            (ALICE, carol(), None),
            (ALICE, eve(), Some(Grade::Role)),
            (ROLE, carol(), Some(Grade::Role)),
            ("AROADEV", carol(), Some(Grade::Role)),
            ("arn:aws:iam::111122223333:role/Dev", carol(), None),
            (SESSION, carol(), Some(Grade::Direct)),
            (
                "arn:aws:sts::111122223333:assumed-role/Dev/dave",
                carol(),
                None,
            ),
            ("AROADEV:carol", carol(), Some(Grade::Direct)),
            ("AROADEV:dave", carol(), None),
            ("AROAOPS:carol", carol(), None),
            (FEDERATED, eve(), Some(Grade::Direct)),
        ];
        for (text, principal, expected) in cases {
            let grade = named(&[text], false).grade(&principal);
            assert_eq!(grade, expected, "{text} for {principal:?}");
        }
        let both = named(&[ROOT, SESSION, ROLE], false);
        assert_eq!(both.grade(&carol()), Some(Grade::Direct));
    }

    #[test]
    fn exceptions_of_a_deny_need_every_name_of_the_caller() {
        let cases: [(&[&str], Principal, bool); 9] = [
            (&["*"], alice(), true),
            (&[ALICE], alice(), false),
            (&[ALICE, ROOT], alice(), true),
            (&[ROOT], alice(), false),
            (&[ROOT, ROLE], carol(), false),
            (&[ROOT, SESSION], carol(), false),
            (&[ROOT, SESSION, ROLE], carol(), true),
            (
                &[ROOT],
                Principal::AccountRoot {
                    account: ACCOUNT.to_owned(),
                },
                true,
            ),
            (&[ROOT], Principal::Anonymous, false),
        ];
        for (texts, principal, spared) in cases {
            let grade = named(texts, true).grade(&principal);
            assert_eq!(grade.is_none(), spared, "{texts:?} for {principal:?}");
        }
    }

    #[test]
    fn texts_that_name_nobody_are_refused() {
        for text in [
            "",
            "alice",
            "arn:aws:iam::111122223333:user/*",
            "arn:aws:iam::*:root",
            "arn:aws:iam::111122223333:group/dev",
            "arn:aws:iam::111122223333:user/",
            "arn:aws:sts::111122223333:assumed-role/Dev",
            "arn:aws:iam::1111:root",
            "1111",
            "AIDAALICE:carol",
            "AROADEV:",
        ] {
            assert_eq!(Named::parse("AWS", text), None, "{text}");
        }
        assert_eq!(Named::parse("Service", "*"), None);
        assert_eq!(Named::parse("Service", "ssm"), None);
        assert!(Named::parse("Service", "ssm.amazonaws.com").is_some());
        assert_eq!(Named::parse("Unknown", "ssm.amazonaws.com"), None);
    }

    #[test]
    fn principals_are_read_from_texts() {
        let context = Context::new()
            .with("aws:userid", "AROADEV:carol")
            .with("aws:PrincipalArn", ROLE);
        assert_eq!(Principal::from_text(SESSION, &context), Ok(carol()));
        let foreign = Context::new().with("aws:PrincipalArn", "arn:aws:iam::111122223333:role/Ops");
        let Ok(Principal::AssumedRole { role_arn, .. }) = Principal::from_text(SESSION, &foreign)
        else {
            panic!("a session");
        };
        assert_eq!(role_arn, "arn:aws:iam::111122223333:role/Dev");
        let none = Context::new();
        assert_eq!(Principal::from_text("*", &none), Ok(Principal::Anonymous));
        let root = Principal::from_text(ROOT, &none).expect("root");
        assert_eq!(root.account(), Some(ACCOUNT));
        assert_eq!(root.name(), ROOT);
        for text in ["", "alice", ROLE, "arn:aws:sts::1:assumed-role/Dev"] {
            assert!(Principal::from_text(text, &none).is_err(), "{text}");
        }
    }
}
