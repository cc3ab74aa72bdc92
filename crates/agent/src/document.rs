//! What a session document asks of this node, judged before anything is started. Pure.

use std::time::Duration;

use serde_json::Value;
use sortie_channel::body::StartContent;

/// What [`plan`] makes of a start message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Who the session runs as.
    pub(crate) user: UserChoice,
    /// Typed into the shell when it starts; empty for nothing.
    pub(crate) shell_profile: String,
    /// How long the session may be cut off from the server before it ends itself.
    pub(crate) idle_limit: Duration,
}

/// Who a session runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserChoice {
    /// The node's usual account.
    Usual,
    /// The document demands a certain one.
    RunAs(String),
}

/// Why a session cannot be run here. The text is shown to the person who started it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this node's agent does not support sessions of type {0}")]
    SessionType(String),
    #[error("the session document has schema version {0}, not 1.0")]
    SchemaVersion(String),
    #[error("the session document cannot be understood: {0}")]
    Document(&'static str),
    #[error("encryption of sessions with a KMS key is not supported by this node's agent")]
    Encryption,
    #[error("please set the RunAs default user")]
    NoRunAsUser,
}

const DEFAULT_IDLE_MINUTES: u64 = 20;
/// AWS's bounds of `idleSessionTimeout`.
const IDLE_MINUTES: std::ops::RangeInclusive<u64> = 1..=60;

/// Reads the document of a start message.
pub(crate) fn plan(start: &StartContent) -> Result<Plan, Refusal> {
    let document = &start.document_content;
    if !document.is_object() {
        return Err(Refusal::Document("it is no JSON object"));
    }
    let schema_version = text(document, "schemaVersion")?;
    if schema_version != "1.0" {
        return Err(Refusal::SchemaVersion(shown(schema_version)));
    }
    let session_type = text(document, "sessionType")?;
    if session_type != "Standard_Stream" {
        return Err(Refusal::SessionType(shown(session_type)));
    }
    let empty = Value::Null;
    let inputs = document.get("inputs").unwrap_or(&empty);
    if !text(inputs, "kmsKeyId")?.is_empty() {
        return Err(Refusal::Encryption);
    }
    Ok(Plan {
        user: user(start, inputs)?,
        shell_profile: text(inputs.get("shellProfile").unwrap_or(&empty), "linux")?.to_owned(),
        idle_limit: idle_limit(inputs),
    })
}

fn user(start: &StartContent, inputs: &Value) -> Result<UserChoice, Refusal> {
    if !flag(inputs, "runAsEnabled")? {
        return Ok(UserChoice::Usual);
    }
    let of_principal = start.run_as_user.trim();
    let of_document = text(inputs, "runAsDefaultUser")?.trim();
    let name = if of_principal.is_empty() {
        of_document
    } else {
        of_principal
    };
    if name.is_empty() {
        return Err(Refusal::NoRunAsUser);
    }
    Ok(UserChoice::RunAs(name.to_owned()))
}

fn idle_limit(inputs: &Value) -> Duration {
    let minutes = match inputs.get("idleSessionTimeout") {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Number(number)) => number.as_u64(),
        _ => None,
    };
    let minutes = minutes.filter(|minutes| IDLE_MINUTES.contains(minutes));
    Duration::from_secs(60 * minutes.unwrap_or(DEFAULT_IDLE_MINUTES))
}

/// A string member; absent or null is empty.
fn text<'a>(object: &'a Value, name: &'static str) -> Result<&'a str, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Refusal::Document(name)),
    }
}

/// A boolean, which documents also write as text.
fn flag(object: &Value, name: &'static str) -> Result<bool, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "" | "false" => Ok(false),
            "true" => Ok(true),
            _ => Err(Refusal::Document(name)),
        },
        Some(_) => Err(Refusal::Document(name)),
    }
}

/// A stranger's text as it may be shown: short and without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn start(document: Value, run_as_user: &str) -> StartContent {
        StartContent {
            document_content: document,
            run_as_user: run_as_user.to_owned(),
            ..StartContent::default()
        }
    }

    fn shell(inputs: Value) -> Value {
        json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs,
               "parameters": {}, "properties": null})
    }

    #[test]
    fn a_plain_shell_runs_as_the_usual_user_for_twenty_minutes_of_silence() {
        let plan = plan(&start(shell(json!({})), "")).unwrap();
        assert_eq!(plan.user, UserChoice::Usual);
        assert_eq!(plan.idle_limit, Duration::from_secs(1200));
        assert_eq!(plan.shell_profile, "");
    }

    #[test]
    fn the_principals_user_wins_over_the_documents_and_one_of_them_must_be_there() {
        let inputs = json!({"runAsEnabled": "true", "runAsDefaultUser": "app"});
        let chosen = |inputs: &Value, user: &str| {
            plan(&start(shell(inputs.clone()), user)).map(|plan| plan.user)
        };
        assert_eq!(chosen(&inputs, " "), Ok(UserChoice::RunAs("app".into())));
        assert_eq!(
            chosen(&inputs, "alice"),
            Ok(UserChoice::RunAs("alice".into()))
        );
        assert_eq!(
            chosen(&json!({"runAsEnabled": true}), ""),
            Err(Refusal::NoRunAsUser)
        );
        assert_eq!(
            chosen(&json!({"runAsEnabled": "", "runAsDefaultUser": "app"}), "x"),
            Ok(UserChoice::Usual)
        );
        assert_eq!(
            chosen(&json!({"runAsEnabled": 1}), "x"),
            Err(Refusal::Document("runAsEnabled"))
        );
    }

    #[test]
    fn the_documents_idle_limit_is_taken_within_its_bounds() {
        let limit = |value: Value| {
            plan(&start(shell(json!({"idleSessionTimeout": value})), ""))
                .unwrap()
                .idle_limit
                .as_secs()
        };
        assert_eq!(limit(json!("5")), 300);
        assert_eq!(limit(json!(60)), 3600);
        for absurd in [json!("0"), json!("61"), json!(-1), json!("x"), json!([])] {
            assert_eq!(limit(absurd), 1200);
        }
    }

    #[test]
    fn what_cannot_be_run_here_says_why() {
        let refused = |document: Value| plan(&start(document, "")).unwrap_err().to_string();
        assert_eq!(
            refused(json!({"schemaVersion": "1.0", "sessionType": "Port"})),
            "this node's agent does not support sessions of type Port"
        );
        assert_eq!(
            refused(json!({"schemaVersion": "2.2"})),
            "the session document has schema version 2.2, not 1.0"
        );
        assert_eq!(
            refused(json!([])),
            "the session document cannot be understood: it is no JSON object"
        );
        assert!(refused(shell(json!({"kmsKeyId": "alias/x"}))).contains("KMS"));
        assert!(
            refused(json!({"schemaVersion": "1.0", "sessionType": "a\u{1b}[31m"}))
                .ends_with("a[31m")
        );
    }
}
