//! The principals of trust policies, as they are stored and as they are shown.
//!
//! Stored, a user or role stands there by its unique id, shown by its ARN for as long as it exists.
//! So a name that is made anew inherits nothing, and a principal that gets another name keeps what
//! it had. All else in a document stays as it was given, down to the white space.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;
use sortie_iam::{PolicyKind, Quota, document_size};
use sortie_types::UniqueId;

use crate::{
    arns::Names,
    directory::Directory,
    iam::{
        document::{check_policy, one_or_more, place, refusal, statements},
        entity::{role_arn, user_arn},
        error::IamError,
    },
};

/// Checks a trust policy and gives the text to store.
pub(crate) fn stored(directory: &Directory, names: &Names, text: &str) -> Result<String, IamError> {
    check_policy(text, PolicyKind::Trust)?;
    Quota::Trust.check(document_size(text)).map_err(refusal)?;
    let mut replacements = Vec::new();
    for principal in principals(text) {
        let id = stored_principal(directory, names, &principal)
            .ok_or_else(|| invalid_principal(&principal))?;
        if let Cow::Owned(id) = id {
            replacements.push((principal.span, id));
        }
    }
    Ok(replaced(text, replacements))
}

/// A stored trust policy with the ARNs of those principals that exist.
pub(crate) fn shown(directory: &Directory, names: &Names, text: &str) -> String {
    let replacements = principals(text).into_iter().filter_map(|principal| {
        let arn = shown_principal(directory, names, &principal)?;
        Some((principal.span, arn))
    });
    replaced(text, replacements)
}

/// One value of a `Principal` element.
struct Principal {
    /// `AWS`, `Service`, `Federated` or `CanonicalUser`.
    kind: String,
    value: String,
    /// Where the JSON string stands in the document.
    span: Range<usize>,
}

fn invalid_principal(principal: &Principal) -> IamError {
    // AWS writes the kind of all but its own principals in capitals.
    let kind = principal.kind.to_ascii_uppercase();
    let value = &principal.value;
    IamError::MalformedPolicyDocument(format!(
        "Invalid principal in policy: \"{kind}\":\"{value}\""
    ))
}

/// The text to store for a principal; `None` when there is no such principal.
fn stored_principal<'a>(
    directory: &Directory,
    names: &Names,
    principal: &'a Principal,
) -> Option<Cow<'a, str>> {
    let value = principal.value.as_str();
    let as_given = || Some(Cow::Borrowed(value));
    match principal.kind.as_str() {
        "AWS" if value == "*" => as_given(),
        "AWS" if is_own_account(names, value) => as_given(),
        "AWS" => match aws_principal(directory, names, value)? {
            id if id == value => as_given(),
            id => Some(Cow::Owned(id)),
        },
        "Service" if is_service(value) => as_given(),
        "Federated" if is_web_provider(value) => as_given(),
        _ => None,
    }
}

fn is_own_account(names: &Names, value: &str) -> bool {
    let account = names.account.as_str();
    value == account || value == format!("arn:aws:iam::{account}:root")
}

fn is_service(value: &str) -> bool {
    value
        .strip_suffix(".amazonaws.com")
        .is_some_and(|name| !name.is_empty() && !name.contains(['*', '?', '/', ':']))
}

/// The providers that AWS knows without anybody having made them.
fn is_web_provider(value: &str) -> bool {
    [
        "accounts.google.com",
        "cognito-identity.amazonaws.com",
        "graph.facebook.com",
        "www.amazon.com",
    ]
    .contains(&value)
}

/// A user, role or role session, named by ARN or unique id: its unique id.
fn aws_principal(directory: &Directory, names: &Names, value: &str) -> Option<String> {
    if !value.starts_with("arn:") {
        let (id, session) = split_session(value);
        return shown_identity(directory, names, id, session).map(|_| value.to_owned());
    }
    let account = names.account.as_str();
    if let Some(rest) = value.strip_prefix(&format!("arn:aws:sts::{account}:assumed-role/")) {
        let (role, session) = rest.split_once('/')?;
        let role = directory.role(role).filter(|found| found.name == role)?;
        return is_session_name(session).then(|| format!("{}:{session}", role.unique_id));
    }
    let name = value.rsplit('/').next()?;
    if let Some(user) = directory.user(name)
        && user_arn(names, user).as_str() == value
    {
        return Some(user.unique_id.to_string());
    }
    directory
        .role(name)
        .filter(|role| role_arn(names, role).as_str() == value)
        .map(|role| role.unique_id.to_string())
}

fn is_session_name(text: &str) -> bool {
    (2..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

fn split_session(value: &str) -> (&str, Option<&str>) {
    value
        .split_once(':')
        .map_or((value, None), |(id, session)| (id, Some(session)))
}

/// The ARN to show for a stored principal; `None` where it stays as it is.
fn shown_principal(directory: &Directory, names: &Names, principal: &Principal) -> Option<String> {
    if principal.kind != "AWS" {
        return None;
    }
    let (id, session) = split_session(&principal.value);
    shown_identity(directory, names, id, session)
}

fn shown_identity(
    directory: &Directory,
    names: &Names,
    id: &str,
    session: Option<&str>,
) -> Option<String> {
    let id: UniqueId = id.parse().ok()?;
    match session {
        Some(session) => directory.role_by_id(&id).map(|role| {
            let account = names.account.as_str();
            format!(
                "arn:aws:sts::{account}:assumed-role/{}/{session}",
                role.name
            )
        }),
        None => directory
            .user_by_id(&id)
            .map(|user| user_arn(names, user))
            .or_else(|| directory.role_by_id(&id).map(|role| role_arn(names, role)))
            .map(String::from),
    }
}

#[derive(Deserialize)]
struct StatementPart<'a> {
    #[serde(borrow, default, rename = "Principal")]
    principal: Option<&'a RawValue>,
}

/// The named principals of a document that is known to be a policy.
fn principals(text: &str) -> Vec<Principal> {
    let mut found = Vec::new();
    for statement in statements(text) {
        let statement = serde_json::from_str::<StatementPart<'_>>(statement.get());
        let Some(principal) = statement.ok().and_then(|part| part.principal) else {
            continue;
        };
        // `"*"` is a principal without a name.
        let map = serde_json::from_str::<BTreeMap<String, &RawValue>>(principal.get());
        for (kind, values) in map.unwrap_or_default() {
            for value in one_or_more(values) {
                found.extend(principal_at(text, &kind, value));
            }
        }
    }
    found.sort_by_key(|principal| principal.span.start);
    found
}

fn principal_at(text: &str, kind: &str, raw: &RawValue) -> Option<Principal> {
    let value = serde_json::from_str(raw.get()).ok()?;
    let span = place(text, raw)?;
    Some(Principal {
        kind: kind.to_owned(),
        value,
        span,
    })
}

/// The text with other JSON strings in these places, which are in order.
fn replaced(text: &str, replacements: impl IntoIterator<Item = (Range<usize>, String)>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut copied = 0;
    for (span, value) in replacements {
        result.push_str(text.get(copied..span.start).unwrap_or_default());
        result.push_str(&serde_json::Value::from(value).to_string());
        copied = span.end;
    }
    result.push_str(text.get(copied..).unwrap_or_default());
    result
}

#[cfg(test)]
mod tests {
    use sortie_iam::Policy;
    use sortie_ports::Identity;

    use super::*;
    use crate::iam::testing::{ACCOUNT, Rows, names, role, text, user};

    fn rows() -> Rows {
        Rows::of([
            Identity::User(user("alice", 1)),
            Identity::Role(role("Dev", 2)),
        ])
    }

    fn document(principal: &str) -> String {
        format!(
            "{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [{{\"Effect\": \"Allow\",\n    \
             \"Principal\": {principal},  \"Action\": \"sts:AssumeRole\"}}]\n}}"
        )
    }

    fn alice() -> String {
        format!("arn:aws:iam::{ACCOUNT}:user/team/alice")
    }

    #[test]
    fn principals_are_stored_by_id_and_shown_by_arn_and_nothing_else_changes() {
        let (directory, names) = (rows().directory(), names());
        let session = format!("arn:aws:sts::{ACCOUNT}:assumed-role/Dev/carol");
        let role = format!("arn:aws:iam::{ACCOUNT}:role/Dev");
        let given = document(&format!(
            r#"{{"AWS": ["{}", "{role}", "{session}", "{ACCOUNT}"], "Service": "ssm.amazonaws.com"}}"#,
            alice()
        ));
        let stored = stored(&directory, &names, &given).unwrap();
        let user_id = user("alice", 1).unique_id;
        let role_id = crate::iam::testing::role("Dev", 2).unique_id;
        for expected in [
            format!("\"{user_id}\""),
            format!("\"{role_id}\""),
            format!("\"{role_id}:carol\""),
            format!("\"{ACCOUNT}\""),
        ] {
            assert!(stored.contains(&expected), "{stored}");
        }
        assert!(Policy::parse(&stored, PolicyKind::Trust).is_ok());
        assert_eq!(shown(&directory, &names, &stored), given);
        // What was stored can be given again.
        assert_eq!(super::stored(&directory, &names, &stored).unwrap(), stored);
    }

    #[test]
    fn a_principal_that_is_gone_stays_as_its_id_and_nobody_takes_its_place() {
        let names = names();
        let given = document(&format!(r#"{{"AWS": "{}"}}"#, alice()));
        let stored = stored(&rows().directory(), &names, &given).unwrap();
        let later = Rows::of([Identity::User(user("alice", 9))]).directory();
        assert_eq!(shown(&later, &names, &stored), stored);
        let refused = text(super::stored(&later, &names, &stored));
        let id = user("alice", 1).unique_id;
        assert_eq!(
            refused,
            format!("Invalid principal in policy: \"AWS\":\"{id}\"")
        );
    }

    #[test]
    fn principals_that_nobody_is_are_refused() {
        let (directory, names) = (rows().directory(), names());
        for (principal, said) in [
            (
                format!(r#"{{"AWS": "arn:aws:iam::{ACCOUNT}:user/alice"}}"#),
                "AWS",
            ),
            (
                format!(r#"{{"AWS": "arn:aws:iam::{ACCOUNT}:user/team/Alice"}}"#),
                "AWS",
            ),
            (
                format!(r#"{{"AWS": "arn:aws:iam::{ACCOUNT}:role/Ops"}}"#),
                "AWS",
            ),
            (
                format!(r#"{{"AWS": "arn:aws:sts::{ACCOUNT}:assumed-role/Ops/x1"}}"#),
                "AWS",
            ),
            (r#"{"AWS": "444455556666"}"#.to_owned(), "AWS"),
            (
                r#"{"AWS": "arn:aws:iam::444455556666:root"}"#.to_owned(),
                "AWS",
            ),
            (r#"{"Service": "ssm.example.com"}"#.to_owned(), "SERVICE"),
            (
                format!(r#"{{"Federated": "arn:aws:iam::{ACCOUNT}:saml-provider/x"}}"#),
                "FEDERATED",
            ),
        ] {
            let refused = text(stored(&directory, &names, &document(&principal)));
            let start = format!("Invalid principal in policy: \"{said}\":");
            assert!(refused.starts_with(&start), "{principal}: {refused}");
        }
    }

    #[test]
    fn everybody_and_the_account_are_principals() {
        let (directory, names) = (rows().directory(), names());
        for principal in [
            r#""*""#.to_owned(),
            r#"{"AWS": "*"}"#.to_owned(),
            format!(r#"{{"AWS": "arn:aws:iam::{ACCOUNT}:root"}}"#),
        ] {
            let given = document(&principal);
            assert_eq!(stored(&directory, &names, &given).unwrap(), given);
        }
    }

    #[test]
    fn only_trust_policies_of_the_right_size_are_taken() {
        let (directory, names) = (rows().directory(), names());
        assert!(stored(&directory, &names, "{").is_err());
        let long = "x".repeat(2_048);
        let large = document(r#"{"Service": "ssm.amazonaws.com"}"#)
            .replace("\"Effect\"", &format!("\"Sid\": \"{long}\", \"Effect\""));
        assert_eq!(
            text(stored(&directory, &names, &large)),
            "Cannot exceed quota for ACLSizePerRole: 2048"
        );
        let spacious = document(r#"{"Service": "ssm.amazonaws.com"}"#) + &" ".repeat(3_000);
        assert!(stored(&directory, &names, &spacious).is_ok());
    }
}
