//! What a session is made of: a document, the values that were given for its parameters, and the
//! account's preferences. What comes out is complete: nodes fill in nothing. Pure.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    inputs::{Inputs, run_as_user},
    parameters::{substitute, values},
    properties,
    schema::{SessionDocument, SessionType},
};

/// The largest document with its values, in bytes: it is sent in one message.
const LARGEST_RESOLVED: usize = 256 * 1024;

/// What a resolution depends on beside document and values.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The document's name, for messages.
    pub(crate) name: &'a str,
    /// Whether it is one that every installation has. Those follow the preferences where they say
    /// nothing; others bring their own inputs.
    pub(crate) is_built_in: bool,
    /// What the account's preferences say.
    pub(crate) preferences: &'a Inputs,
    /// The tag of the principal that says as whom its sessions run.
    pub(crate) run_as_tag: Option<&'a str>,
    /// Whether the node runs Windows, where run-as means nothing.
    pub(crate) is_windows: bool,
    pub(crate) default_idle: Duration,
    pub(crate) max_duration: Option<Duration>,
}

/// A document with everything filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// As the node gets it.
    pub(crate) content: Value,
    pub(crate) idle: Duration,
    pub(crate) max_duration: Option<Duration>,
}

/// Why there is no session of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error("{0}")]
    Parameters(String),
    #[error("{0}")]
    Refused(String),
}

/// Resolves a document.
pub(crate) fn resolve(
    document: &SessionDocument,
    given: &BTreeMap<String, Vec<String>>,
    surroundings: &Surroundings<'_>,
) -> Result<Resolved, Unresolved> {
    let name = surroundings.name;
    let values = values(&document.parameters, given, name).map_err(Unresolved::Parameters)?;
    let wrong = |why: String| Unresolved::Parameters(format!("Document {name}: {why}."));
    let mut room = LARGEST_RESOLVED;
    let mut fill = |part: &Value| {
        substitute(part, &values, &mut room)
            .ok_or_else(|| wrong("the values are too large together".to_owned()))
    };
    let properties = fill(&document.properties)?;
    let inputs = document.inputs.as_ref().map(&mut fill).transpose()?;
    let properties = properties::read_filled(document.session_type, &properties).map_err(wrong)?;
    let own = inputs.as_ref().map(Inputs::read_filled);
    let own = own.transpose().map_err(wrong)?;
    let mut inputs = effective(document.session_type, &properties, own, surroundings);
    if let Some(what) = inputs.not_offered() {
        return Err(Unresolved::Refused(format!(
            "Document {name} asks for {what}, which this installation does not offer yet; the \
             session is refused rather than run without."
        )));
    }
    run_as(&mut inputs, &properties, surroundings)?;
    let idle = minutes(inputs.idle_session_timeout).unwrap_or(surroundings.default_idle);
    let max_duration = minutes(inputs.max_session_duration).or(surroundings.max_duration);
    // Our own agent keeps the idle time too while it is cut off, in whole minutes.
    let whole = u32::try_from(idle.as_secs().div_ceil(60)).unwrap_or(60);
    inputs.idle_session_timeout = Some(whole.clamp(1, 60));
    let content = json!({
        "schemaVersion": "1.0",
        "description": document.description,
        "sessionType": document.session_type.as_str(),
        "inputs": inputs.to_json(),
        // Nothing is left to fill in: a value must not be looked through again.
        "parameters": {},
        "properties": properties,
    });
    Ok(Resolved {
        content,
        idle,
        max_duration,
    })
}

fn minutes(minutes: Option<u32>) -> Option<Duration> {
    minutes.map(|minutes| Duration::from_mins(minutes.into()))
}

/// Whether files are copied, which is done as a user like a command.
fn is_copy(properties: &Value) -> bool {
    properties.get("type").and_then(Value::as_str) == Some("CopyFile")
}

/// What holds for the session: the document's own inputs. A built-in document has none, so the
/// preferences hold for its commands as they do for shells. Tunnels keep the account's idle time.
fn effective(
    session_type: SessionType,
    properties: &Value,
    own: Option<Inputs>,
    surroundings: &Surroundings<'_>,
) -> Inputs {
    let preferences = surroundings.preferences;
    let is_port = session_type == SessionType::Port;
    let mut inputs = match own {
        Some(own) => own,
        None if !surroundings.is_built_in => Inputs::default(),
        None if is_port => {
            let as_user = is_copy(properties);
            Inputs {
                max_session_duration: preferences.max_session_duration,
                run_as_enabled: as_user && preferences.run_as_enabled,
                run_as_default_user: if as_user {
                    preferences.run_as_default_user.clone()
                } else {
                    String::new()
                },
                idle_session_timeout: preferences.idle_session_timeout,
                ..Inputs::default()
            }
        }
        None => Inputs {
            shell_profile_linux: String::new(),
            shell_profile_windows: String::new(),
            ..preferences.clone()
        },
    };
    if is_port {
        let account = preferences.idle_session_timeout;
        inputs.idle_session_timeout = inputs.idle_session_timeout.or(account);
    }
    inputs
}

/// Decides as whom the session runs: the principal's tag, else the document's user. It is written where
/// nodes look for the document's.
fn run_as(
    inputs: &mut Inputs,
    properties: &Value,
    surroundings: &Surroundings<'_>,
) -> Result<(), Unresolved> {
    if surroundings.is_windows {
        inputs.run_as_enabled = false;
    }
    if !inputs.run_as_enabled {
        inputs.run_as_default_user = String::new();
        return Ok(());
    }
    let tag = surroundings.run_as_tag.map(str::trim);
    if let Some(user) = tag.filter(|user| !user.is_empty()) {
        inputs.run_as_default_user = user.to_owned();
    }
    let user = inputs.run_as_default_user.as_str();
    if user.is_empty() {
        if is_elevated(properties) {
            return Ok(());
        }
        return Err(Unresolved::Refused(
            "Sessions run as the user that the principal tag SSMSessionRunAs names; you have none, \
             and the document has no default user: please set the RunAs default user."
                .to_owned(),
        ));
    }
    run_as_user(user).map_err(|why| {
        Unresolved::Refused(format!("The session is refused for its RunAs user: {why}."))
    })
}

/// Whether the document runs everything as the administrator of the node, whoever asks.
fn is_elevated(properties: &Value) -> bool {
    let elevated = |system: &Value| system.get("runAsElevated") == Some(&Value::Bool(true));
    properties
        .as_object()
        .is_some_and(|systems| !systems.is_empty() && systems.values().all(elevated))
}

/// The condition keys of a session that was started with this content.
pub(crate) fn condition_keys(content: &Value) -> Vec<(&str, String)> {
    let session_type = content.get("sessionType").and_then(Value::as_str);
    match (
        session_type.and_then(SessionType::named),
        content.get("properties"),
    ) {
        (Some(session_type), Some(properties)) => {
            properties::condition_keys(session_type, properties)
        }
        _ => Vec::new(),
    }
}

/// The user that the node is told to run a session as; empty where the document leaves it to the node.
#[must_use]
pub fn run_as_of(content: &Value) -> &str {
    let inputs = content.get("inputs");
    let member = |name: &str| inputs.and_then(|inputs| inputs.get(name));
    match member("runAsEnabled") {
        Some(Value::Bool(true)) => member("runAsDefaultUser")
            .and_then(Value::as_str)
            .unwrap_or_default(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::builtin::built_in;

    fn surroundings(preferences: &Inputs) -> Surroundings<'_> {
        Surroundings {
            name: "Doc",
            is_built_in: false,
            preferences,
            run_as_tag: None,
            is_windows: false,
            default_idle: Duration::from_mins(20),
            max_duration: None,
        }
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
        let pair = |(name, value): &(&str, &str)| ((*name).into(), vec![(*value).into()]);
        pairs.iter().map(pair).collect()
    }

    fn builtin_session(
        name: &str,
        values: &[(&str, &str)],
        preferences: &Inputs,
    ) -> Result<Resolved, Unresolved> {
        let surroundings = Surroundings {
            name,
            is_built_in: true,
            ..surroundings(preferences)
        };
        let document = &built_in(name).unwrap().document;
        resolve(document, &given(values), &surroundings)
    }

    fn shell(inputs: Value) -> SessionDocument {
        SessionDocument::read(&json!({
            "schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs,
        }))
        .unwrap()
    }

    #[test]
    fn the_built_in_documents_take_the_parameters_of_awss_guides() {
        let none = Inputs::default();
        for (name, values, properties) in [
            (
                "AWS-StartSSHSession",
                vec![("portNumber", "22")],
                json!({"portNumber": "22"}),
            ),
            (
                "AWS-StartPortForwardingSession",
                vec![("portNumber", "80"), ("localPortNumber", "8080")],
                json!({"portNumber": "80", "type": "LocalPortForwarding",
                       "localPortNumber": "8080"}),
            ),
            (
                "AWS-StartPortForwardingSessionToRemoteHost",
                vec![("host", "Mydb.example.com"), ("portNumber", "3306")],
                json!({"portNumber": "3306", "type": "LocalPortForwarding",
                       "localPortNumber": "0", "host": "mydb.example.com"}),
            ),
            (
                "AWS-StartPortForwardingSessionToSocket",
                vec![("socket", "/run/docker.sock")],
                json!({"socket": "/run/docker.sock", "type": "LocalPortForwarding",
                       "localPortNumber": "0"}),
            ),
            (
                "Sortie-StartReverseForwardingSession",
                vec![("portNumber", "9000")],
                json!({"type": "ReverseForwarding", "bindAddress": "localhost",
                       "portNumber": "9000", "socket": ""}),
            ),
            (
                "Sortie-StartSocksSession",
                vec![],
                json!({"type": "SocksForwarding"}),
            ),
            (
                "Sortie-CopyFile",
                vec![("path", "/tmp/a b"), ("direction", "upload")],
                json!({"type": "CopyFile", "path": "/tmp/a b", "direction": "upload"}),
            ),
        ] {
            let resolved = builtin_session(name, &values, &none).unwrap();
            assert_eq!(resolved.content["properties"], properties, "{name}");
            assert_eq!(resolved.content["parameters"], json!({}), "{name}");
        }
        let values = [("command", "echo '{{ command }}' {{.Name}}")];
        let resolved = builtin_session("AWS-StartNonInteractiveCommand", &values, &none).unwrap();
        let linux = &resolved.content["properties"]["linux"];
        let expected = json!({
            "commands": "echo '{{ command }}' {{.Name}}", "runAsElevated": false,
            "separateOutputStream": false,
        });
        assert_eq!(*linux, expected, "what a value brings is not filled again");
    }

    #[test]
    fn hostile_values_of_the_built_in_documents_are_refused() {
        let none = Inputs::default();
        for (name, values) in [
            ("AWS-StartSSHSession", vec![("portNumber", "22;id")]),
            ("AWS-StartSSHSession", vec![("portNumber", "22\n")]),
            ("AWS-StartSSHSession", vec![("portNumber", "0")]),
            ("AWS-StartSSHSession", vec![("portNumber", "65536")]),
            ("AWS-StartSSHSession", vec![("portNumber", "")]),
            ("AWS-StartSSHSession", vec![("host", "x")]),
            (
                "AWS-StartPortForwardingSessionToRemoteHost",
                vec![("portNumber", "80")],
            ),
            (
                "AWS-StartPortForwardingSessionToRemoteHost",
                vec![("host", "$(id)")],
            ),
            (
                "AWS-StartPortForwardingSessionToRemoteHost",
                vec![("host", "127.1")],
            ),
            (
                "AWS-StartPortForwardingSessionToSocket",
                vec![("socket", "/run/../etc/x")],
            ),
            ("Sortie-StartReverseForwardingSession", vec![]),
            (
                "Sortie-StartReverseForwardingSession",
                vec![("portNumber", "80"), ("socket", "/run/x")],
            ),
            (
                "Sortie-StartReverseForwardingSession",
                vec![("portNumber", "80"), ("bindAddress", "0.0.0.0")],
            ),
            (
                "AWS-StartInteractiveCommand",
                vec![("command", "echo {{ssm:secret}}")],
            ),
        ] {
            let error = builtin_session(name, &values, &none).unwrap_err();
            assert!(
                matches!(error, Unresolved::Parameters(_)),
                "{name} {values:?}: {error}"
            );
        }
    }

    #[test]
    fn built_in_commands_follow_the_preferences_and_others_bring_their_own() {
        let preferences = Inputs {
            run_as_enabled: true,
            run_as_default_user: "ops".into(),
            idle_session_timeout: Some(5),
            max_session_duration: Some(60),
            shell_profile_linux: "exec bash".into(),
            ..Inputs::default()
        };
        let command = [("command", "id")];
        let resolved =
            builtin_session("AWS-StartInteractiveCommand", &command, &preferences).unwrap();
        assert_eq!(resolved.idle, Duration::from_mins(5));
        assert_eq!(resolved.max_duration, Some(Duration::from_mins(60)));
        assert_eq!(run_as_of(&resolved.content), "ops");
        assert_eq!(resolved.content["inputs"]["shellProfile"]["linux"], "");

        let resolved = builtin_session("AWS-StartSSHSession", &[], &preferences).unwrap();
        assert_eq!(resolved.idle, Duration::from_mins(5));
        assert_eq!(run_as_of(&resolved.content), "");

        let own = shell(json!({"maxSessionDuration": "7"}));
        let resolved = resolve(&own, &given(&[]), &surroundings(&preferences)).unwrap();
        assert_eq!(resolved.idle, Duration::from_mins(20));
        assert_eq!(resolved.max_duration, Some(Duration::from_mins(7)));
        assert_eq!(run_as_of(&resolved.content), "");
        assert_eq!(resolved.content["inputs"]["idleSessionTimeout"], "20");
    }

    #[test]
    fn run_as_is_the_tag_else_the_default_and_never_root() {
        let none = Inputs::default();
        let user = |inputs: Value, tag: Option<&str>, is_windows: bool| {
            let surroundings = Surroundings {
                run_as_tag: tag,
                is_windows,
                ..surroundings(&none)
            };
            resolve(&shell(inputs), &given(&[]), &surroundings)
                .map(|resolved| run_as_of(&resolved.content).to_owned())
        };
        let enabled = || json!({"runAsEnabled": true, "runAsDefaultUser": "ops"});
        let alone = || json!({"runAsEnabled": "true"});
        assert_eq!(user(enabled(), None, false).unwrap(), "ops");
        assert_eq!(user(enabled(), Some("alice"), false).unwrap(), "alice");
        assert_eq!(user(enabled(), Some(" "), false).unwrap(), "ops");
        assert_eq!(user(alone(), Some("alice"), false).unwrap(), "alice");
        assert_eq!(user(json!({}), Some("alice"), false).unwrap(), "");
        assert_eq!(user(alone(), None, true).unwrap(), "");
        for tag in [None, Some("root"), Some(" root "), Some("0"), Some("a b")] {
            let refused = user(alone(), tag, false).unwrap_err();
            assert!(matches!(refused, Unresolved::Refused(_)), "{tag:?}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_and_not_left_out() {
        let none = Inputs::default();
        for inputs in [
            json!({"kmsKeyId": "alias/x"}),
            json!({"s3BucketName": "logs"}),
            json!({"cloudWatchLogGroupName": "logs"}),
        ] {
            let outcome = resolve(&shell(inputs), &given(&[]), &surroundings(&none));
            let Err(Unresolved::Refused(why)) = outcome else {
                panic!("not refused: {outcome:?}");
            };
            assert!(why.contains("does not offer"), "{why}");
        }
        let encrypted = Inputs {
            kms_key_id: "alias/x".into(),
            ..Inputs::default()
        };
        let command = [("command", "id")];
        assert!(builtin_session("AWS-StartInteractiveCommand", &command, &encrypted).is_err());
        assert!(builtin_session("AWS-StartSSHSession", &[], &encrypted).is_ok());
    }

    #[test]
    fn inputs_that_are_parameters_are_checked_when_they_are_filled() {
        let document = SessionDocument::read(&json!({
            "schemaVersion": "1.0", "sessionType": "Standard_Stream",
            "parameters": {"idle": {"type": "String"}},
            "inputs": {"idleSessionTimeout": "{{ idle }}"},
        }))
        .unwrap();
        let none = Inputs::default();
        let idle = |value: &str| {
            let values = given(&[("idle", value)]);
            resolve(&document, &values, &surroundings(&none)).map(|resolved| resolved.idle)
        };
        assert_eq!(idle("60").unwrap(), Duration::from_hours(1));
        for value in ["61", "0", "x", "{{ idle }}"] {
            assert!(idle(value).is_err(), "{value}");
        }
    }

    #[test]
    fn values_do_not_grow_without_bound() {
        let document = SessionDocument::read(&json!({
            "schemaVersion": "1.0", "sessionType": "InteractiveCommands",
            "parameters": {"x": {"type": "String"}},
            "properties": {"linux": {"commands": "{{x}}".repeat(100)}},
        }))
        .unwrap();
        let none = Inputs::default();
        let values = given(&[("x", &"v".repeat(65_535))]);
        assert!(resolve(&document, &values, &surroundings(&none)).is_err());
    }
}
