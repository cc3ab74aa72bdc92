//! What a session document asks of this node, judged before anything is started. Pure.

mod words;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sortie_channel::{body::StartContent, handshake::SessionType};

pub(crate) use self::words::WordsError;
use crate::worker::{PortPlan, PortRefusal};

/// What [`plan`] makes of a start message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Who the session runs as.
    pub(crate) user: UserChoice,
    /// How long the session may be cut off from the server before it ends itself.
    pub(crate) idle_limit: Duration,
    /// What is run.
    pub(crate) work: Work,
}

/// Who a session runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserChoice {
    /// The node's usual account.
    Usual,
    /// The document demands a certain one.
    RunAs(String),
    /// The document demands root, or what comes closest to it here: the agent's own account.
    Elevated,
}

/// What a session does. Told to the session's own process as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// A login shell on a terminal.
    Shell {
        /// Typed into the shell when it starts; empty for nothing.
        profile: String,
    },
    /// Commands on a terminal, run by `sh`.
    Interactive {
        /// The text for `sh -c`; not empty.
        commands: String,
    },
    /// One command without a terminal.
    NonInteractive(Command),
    /// Connections through the session.
    Port(PortPlan),
}

/// A command without a terminal and without a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The program and its arguments; at least the program.
    pub(crate) words: Vec<String>,
    /// Output and error output apart, each with its prefix, also for clients that print both alike.
    pub(crate) separate: Option<Prefixes>,
}

/// What begins each line of separated output; empty for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prefixes {
    /// Of the standard output.
    pub(crate) output: String,
    /// Of the error output.
    pub(crate) error: String,
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
    #[error("the session document has no commands for this node's platform")]
    NoCommands,
    #[error("the session document has commands, which sessions of type Standard_Stream cannot run")]
    UnexpectedCommands,
    #[error(transparent)]
    Port(#[from] PortRefusal),
    #[error("the command cannot be split into words: {0}")]
    Words(#[from] WordsError),
    #[error(
        "a separator prefix may have 30 of the characters 0-9 A-Z a-z _ : - CR LF, and no others"
    )]
    Prefix,
}

const DEFAULT_IDLE_MINUTES: u64 = 20;
/// AWS's bounds of `idleSessionTimeout`.
const IDLE_MINUTES: std::ops::RangeInclusive<u64> = 1..=60;
/// The member of `properties` that is about this platform.
const PLATFORM: &str = if cfg!(windows) {
    "windows"
} else if cfg!(target_os = "macos") {
    "macos"
} else {
    "linux"
};
const LONGEST_PREFIX: usize = 30;

/// Reads the document of a start message.
///
/// The server has checked the parameters and put them where they belong. They are not checked again here:
/// only the document says what they may be, and it comes from the same server.
pub(crate) fn plan(start: &StartContent) -> Result<Plan, Refusal> {
    let document = &start.document_content;
    if !document.is_object() {
        return Err(Refusal::Document("it is no JSON object"));
    }
    let schema_version = text(document, "schemaVersion")?;
    if schema_version != "1.0" {
        return Err(Refusal::SchemaVersion(shown(schema_version)));
    }
    let name = text(document, "sessionType")?;
    let unknown = || Refusal::SessionType(shown(name));
    let session_type = SessionType::from_name(name).ok_or_else(unknown)?;
    let empty = Value::Null;
    let inputs = document.get("inputs").unwrap_or(&empty);
    if !text(inputs, "kmsKeyId")?.is_empty() {
        return Err(Refusal::Encryption);
    }
    let properties = document.get("properties").unwrap_or(&empty);
    let here = properties.get(PLATFORM).unwrap_or(&empty);
    let work = match session_type {
        SessionType::StandardStream => shell(inputs, here)?,
        SessionType::InteractiveCommands => Work::Interactive {
            commands: commands(here)?.to_owned(),
        },
        SessionType::NonInteractiveCommands => Work::NonInteractive(command(here)?),
        SessionType::Port => Work::Port(PortPlan::of(properties)?),
    };
    Ok(Plan {
        user: user(start, inputs, here)?,
        idle_limit: idle_limit(inputs),
        work,
    })
}

fn shell(inputs: &Value, here: &Value) -> Result<Work, Refusal> {
    if !text(here, "commands")?.trim().is_empty() {
        return Err(Refusal::UnexpectedCommands);
    }
    let profile = text(inputs.get("shellProfile").unwrap_or(&Value::Null), "linux")?;
    Ok(Work::Shell {
        profile: profile.to_owned(),
    })
}

fn commands(here: &Value) -> Result<&str, Refusal> {
    let commands = text(here, "commands")?;
    if commands.trim().is_empty() {
        return Err(Refusal::NoCommands);
    }
    if commands.contains('\0') {
        return Err(Refusal::Document("commands"));
    }
    Ok(commands)
}

fn command(here: &Value) -> Result<Command, Refusal> {
    let words = words::split(commands(here)?)?;
    if words.is_empty() {
        return Err(Refusal::NoCommands);
    }
    let separate = if flag(here, "separateOutputStream")? {
        Some(Prefixes {
            output: prefix(here, "stdOutSeparatorPrefix")?,
            error: prefix(here, "stdErrSeparatorPrefix")?,
        })
    } else {
        None
    };
    Ok(Command { words, separate })
}

fn prefix(here: &Value, name: &'static str) -> Result<String, Refusal> {
    let prefix = text(here, name)?;
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"\r\n_:-".contains(&b);
    if prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(is_allowed) {
        return Err(Refusal::Prefix);
    }
    Ok(prefix.to_owned())
}

fn user(start: &StartContent, inputs: &Value, here: &Value) -> Result<UserChoice, Refusal> {
    if flag(here, "runAsElevated")? {
        return Ok(UserChoice::Elevated);
    }
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

    fn commands(session_type: &str, here: Value) -> Value {
        json!({"schemaVersion": "1.0", "sessionType": session_type, "properties": {PLATFORM: here}})
    }

    fn planned(document: Value) -> Result<Plan, Refusal> {
        plan(&start(document, ""))
    }

    #[test]
    fn a_plain_shell_runs_as_the_usual_user_for_twenty_minutes_of_silence() {
        let expected = Plan {
            user: UserChoice::Usual,
            idle_limit: Duration::from_secs(1200),
            work: Work::Shell {
                profile: String::new(),
            },
        };
        assert_eq!(planned(shell(json!({}))), Ok(expected.clone()));
        // Saved preferences may carry objects for the platforms, with nothing to run in them.
        let with_platforms = commands("Standard_Stream", json!({"commands": ""}));
        assert_eq!(planned(with_platforms), Ok(expected));
        assert_eq!(
            planned(commands("Standard_Stream", json!({"commands": "id"}))),
            Err(Refusal::UnexpectedCommands)
        );
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
    fn elevated_commands_run_as_root_whoever_asks() {
        let mut document = commands(
            "InteractiveCommands",
            json!({"commands": "id", "runAsElevated": "true"}),
        );
        document["inputs"] = json!({"runAsEnabled": true});
        let chosen = plan(&start(document, "alice")).map(|plan| plan.user);
        assert_eq!(chosen, Ok(UserChoice::Elevated));
    }

    #[test]
    fn the_documents_idle_limit_is_taken_within_its_bounds() {
        let limit = |value: Value| {
            planned(shell(json!({"idleSessionTimeout": value})))
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
    fn interactive_commands_go_to_a_shell_as_they_are() {
        let commands = |here| planned(commands("InteractiveCommands", here)).map(|plan| plan.work);
        let text = "tail -f '/var/log/x y' | grep \"$HOME\"";
        assert_eq!(
            commands(json!({"commands": text})),
            Ok(Work::Interactive {
                commands: text.into()
            })
        );
        for nothing in [json!({}), json!({"commands": " \n"}), json!(null)] {
            assert_eq!(commands(nothing), Err(Refusal::NoCommands));
        }
        for nonsense in [json!({"commands": ["id"]}), json!({"commands": "a\0b"})] {
            assert_eq!(commands(nonsense), Err(Refusal::Document("commands")));
        }
    }

    #[test]
    fn a_command_without_a_terminal_is_words_and_no_shell_sees_it() {
        let command = |here| {
            planned(commands("NonInteractiveCommands", here)).map(|plan| match plan.work {
                Work::NonInteractive(command) => command,
                other => panic!("not expected: {other:?}"),
            })
        };
        let plain = command(json!({"commands": "echo 'a b';id $(id)"})).unwrap();
        assert_eq!(plain.words, ["echo", "a b;id", "$(id)"]);
        assert_eq!(plain.separate, None);
        for yes in [json!(true), json!("True")] {
            let apart = command(json!({"commands": "id", "separateOutputStream": yes,
                "stdOutSeparatorPrefix": "out: ".trim(), "stdErrSeparatorPrefix": "ERR_1-\r\n"}));
            let prefixes = Prefixes {
                output: "out:".into(),
                error: "ERR_1-\r\n".into(),
            };
            assert_eq!(apart.unwrap().separate, Some(prefixes));
        }
        for prefix in ["a b", &"x".repeat(31), "\u{1b}", "é"] {
            let refused = command(json!({"commands": "id", "separateOutputStream": true,
                "stdErrSeparatorPrefix": prefix}));
            assert_eq!(refused, Err(Refusal::Prefix), "{prefix}");
        }
        assert_eq!(
            command(json!({"commands": "# nothing"})),
            Err(Refusal::NoCommands)
        );
        assert!(matches!(
            command(json!({"commands": "echo 'a"})),
            Err(Refusal::Words(_))
        ));
    }

    #[test]
    fn what_cannot_be_run_here_says_why() {
        let refused = |document: Value| planned(document).unwrap_err().to_string();
        assert_eq!(
            refused(json!({"schemaVersion": "1.0", "sessionType": "Port"})),
            "Port number is empty in session properties."
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
