//! The `session-manager-plugin` personality: AWS's arguments in, AWS's lines out, so that the stock
//! AWS CLI, Ansible and scripts run on this client. It works against AWS as well.
//!
//! The lines that scripts match, the banner and the ends, are AWS's to the byte; everything else that
//! is said goes to standard error in our own words.

mod port;

use std::{ffi::OsString, sync::Arc};

use serde_json::Value;
use sortie_channel::{
    features,
    handshake::{CLIENT_VERSION, SessionType},
};
use sortie_client::{
    Api, ClientConfig, DataChannel, Overrides, StartedSession,
    data_channel::{End, Event, IncompleteResponse, Options},
};
use sortie_types::Secret;

use crate::{
    FAILURE,
    error::CommandError,
    output,
    prompt::OnTerminal,
    runtime,
    shell::{self, Ending, Manner, Signals},
    start::{must_terminate, terminate},
};

/// A first argument that begins so is the name of the variable that holds the response.
const RESPONSE_VARIABLE: &str = "AWS_SSM_START_SESSION_RESPONSE";

/// The one operation there is.
const OPERATION: &str = "StartSession";

/// Said when the program is run by itself.
const NOTICE: &str = "\nThis is Sortie's session-manager-plugin and it is ready for use: the AWS CLI \
    runs it for `aws ssm start-session`.\n\n";

/// What the plugin was asked for.
#[derive(Debug)]
enum Invocation {
    Notice,
    Version,
    Session(Box<Request>),
}

/// A session to join and the means to resume it.
#[derive(Debug)]
struct Request {
    session: StartedSession,
    region: String,
    profile: Option<String>,
    endpoint: Option<String>,
}

/// What is wrong with the arguments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UsageError {
    #[error("argument {0} is not UTF-8")]
    NotText(usize),
    #[error(
        "unknown operation: expected the StartSession response, the region and `StartSession`, \
         as the AWS CLI gives them"
    )]
    TooFew,
    #[error("invalid operation `{0}`: only `StartSession` is known")]
    Operation(String),
    #[error("the variable {0} that should hold the StartSession response is not set")]
    NoVariable(String),
    #[error("the StartSession response is not a JSON object")]
    Response,
    #[error(transparent)]
    Incomplete(#[from] IncompleteResponse),
    #[error("the StartSession request (argument 5) is not JSON with a `Target`")]
    Request,
}

/// Runs the plugin with its arguments, without the program's name.
pub(crate) fn main(arguments: Vec<OsString>) -> u8 {
    let invocation = match parse(arguments, take_variable) {
        Ok(invocation) => invocation,
        Err(error) => return fail(&error.to_string()),
    };
    let done = match invocation {
        Invocation::Notice => output::print(NOTICE).map(|()| 0),
        Invocation::Version => output::print(&format!("{CLIENT_VERSION}\n")).map(|()| 0),
        Invocation::Session(request) => run(*request),
    };
    done.unwrap_or_else(|error| fail(&error.full_text()))
}

fn fail(reason: &str) -> u8 {
    output::error_line(&format!("session-manager-plugin: {reason}"));
    FAILURE
}

fn parse(
    arguments: Vec<OsString>,
    take_variable: impl FnOnce(&str) -> Option<String>,
) -> Result<Invocation, UsageError> {
    let arguments = arguments
        .into_iter()
        .enumerate()
        .map(|(index, argument)| {
            argument
                .into_string()
                .map_err(|_| UsageError::NotText(index + 1))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let (response, region, operation, rest) = match arguments.as_slice() {
        [] => return Ok(Invocation::Notice),
        [only] if only == "--version" => return Ok(Invocation::Version),
        [response, region, operation, rest @ ..] => (response, region, operation, rest),
        _ => return Err(UsageError::TooFew),
    };
    if operation != OPERATION {
        return Err(UsageError::Operation(operation.clone()));
    }
    let optional = |index: usize| rest.get(index).filter(|text| !text.is_empty()).cloned();
    if let Some(request) = optional(1) {
        check_request(&request)?;
    }
    let session = if response.starts_with(RESPONSE_VARIABLE) {
        let held = take_variable(response);
        parse_response(&held.ok_or_else(|| UsageError::NoVariable(response.clone()))?)?
    } else {
        parse_response(response)?
    };
    Ok(Invocation::Session(Box::new(Request {
        session,
        region: region.clone(),
        profile: optional(0),
        endpoint: optional(2),
    })))
}

/// Member names in any case, as AWS's plugin reads them.
fn parse_response(text: &str) -> Result<StartedSession, UsageError> {
    let value: Value = serde_json::from_str(text).map_err(|_| UsageError::Response)?;
    let members = value.as_object().ok_or(UsageError::Response)?;
    let member = |name: &'static str| {
        members
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| value.as_str())
            .filter(|text| !text.is_empty())
            .ok_or(IncompleteResponse(name))
    };
    Ok(StartedSession {
        session_id: member("SessionId")?.to_owned(),
        token_value: Secret::new(member("TokenValue")?),
        stream_url: member("StreamUrl")?.to_owned(),
    })
}

fn check_request(text: &str) -> Result<(), UsageError> {
    let value: Value = serde_json::from_str(text).map_err(|_| UsageError::Request)?;
    let target = value.as_object().and_then(|members| {
        members
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case("Target"))
    });
    match target {
        Some((_, Value::String(_))) => Ok(()),
        _ => Err(UsageError::Request),
    }
}

/// Reads a variable and removes it, so that no child of this process inherits the token.
#[expect(
    unsafe_code,
    reason = "the environment is changed at the very start, before there is another thread"
)]
fn take_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    // SAFETY: called from `main` before any thread was started; nothing else reads the environment.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

fn run(request: Request) -> Result<u8, CommandError> {
    let config = ClientConfig::from_environment(&Overrides {
        profile: request.profile,
        region: Some(request.region),
        endpoint: request.endpoint,
        ..Overrides::default()
    })?;
    let api = Api::with_prompt(&config, Some(Arc::new(OnTerminal)))?;
    let runtime = runtime().map_err(|error| CommandError::io("start", error))?;
    let status = runtime.block_on(join(&api, request.session));
    // A name lookup may still be running; nobody waits for it.
    runtime.shutdown_background();
    status
}

async fn join(api: &Api, session: StartedSession) -> Result<u8, CommandError> {
    let session_id = session.session_id.clone();
    output::print(&format!(
        "\nStarting session with SessionId: {session_id}\n"
    ))?;
    let options = Options {
        // AWS's plugin prints a command's exit status where it is sent, and shells send none.
        features: [
            features::NO_DIGEST,
            features::CUMULATIVE_ACK,
            features::STREAMS,
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Options::default()
    };
    let mut channel = DataChannel::open(session, api.clone(), api.tls(), options);
    let first = match first(&mut channel).await? {
        First::Event(Some(Event::Begun(session))) if session.session_type == SessionType::Port => {
            return port::run(api, &session_id, channel, session).await;
        }
        First::Event(event) => event,
        First::Signal(number) => {
            drop(channel);
            terminate(api, &session_id).await;
            let reason = last_words(&session_id, &Ending::Signalled(number));
            return Ok(fail(&reason.unwrap_or_default()));
        }
    };
    let manner = Manner {
        is_plugin: true,
        waiting_for: String::new(),
    };
    let outcome = shell::run(channel, first, manner)
        .await
        .map_err(|error| CommandError::io("use the terminal", error))?;
    if must_terminate(&outcome.end) {
        terminate(api, &session_id).await;
    }
    match last_words(&session_id, &outcome.end) {
        Ok(text) => output::print(&text).map(|()| 0),
        Err(reason) => Ok(fail(&reason)),
    }
}

/// What tells the kind of a session, or ends the wait for it.
enum First {
    Event(Option<Event>),
    Signal(i32),
}

async fn first(channel: &mut DataChannel) -> Result<First, CommandError> {
    let mut signals =
        Signals::new().map_err(|error| CommandError::io("wait for signals", error))?;
    loop {
        let event = tokio::select! {
            event = channel.events.next() => event,
            number = signals.next_ending() => return Ok(First::Signal(number)),
        };
        match event {
            Some(Event::Joined | Event::Away { .. } | Event::Back) => {}
            event => return Ok(First::Event(event)),
        }
    }
}

/// AWS's line for an orderly end, or what went wrong.
fn last_words(session_id: &str, end: &Ending) -> Result<String, String> {
    match end {
        Ending::Channel(End::Closed { output }) if output.is_empty() => Ok(format!(
            "\n\nExiting session with sessionId: {session_id}.\n\n"
        )),
        Ending::Channel(End::Closed { output }) => {
            Ok(format!("\n\nSessionId: {session_id} : {output}\n\n"))
        }
        Ending::Channel(End::TimedOut) => Ok(format!("Session: {session_id} timed out.\n")),
        Ending::InputEnded => Ok("Cannot perform start session: EOF\n".to_owned()),
        Ending::Channel(End::Lost { reason }) => {
            Err(format!("session {session_id} was lost: {reason}"))
        }
        Ending::Channel(End::Refused { reason }) => Err(format!(
            "session {session_id} could not be joined: {reason}"
        )),
        Ending::Channel(End::Left) | Ending::Left => Err(format!("left session {session_id}")),
        Ending::OutputClosed => Err("standard output is closed".to_owned()),
        Ending::Signalled(number) => Err(format!("left session {session_id} on signal {number}")),
        Ending::Unsupported(other) => Err(format!(
            "session {session_id} is of type {}, which this version does not support; it was ended",
            other.as_str()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &str =
        r#"{"sessionid":"s-1","TokenValue":"t","StreamUrl":"ws://h/","ResponseMetadata":{}}"#;

    fn parsed(arguments: &[&str]) -> Result<Invocation, UsageError> {
        parse(arguments.iter().map(OsString::from).collect(), |name| {
            (name == "AWS_SSM_START_SESSION_RESPONSE_7").then(|| RESPONSE.to_owned())
        })
    }

    fn session(arguments: &[&str]) -> Request {
        match parsed(arguments) {
            Ok(Invocation::Session(request)) => *request,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn the_response_comes_as_an_argument_or_in_a_variable() {
        for first in [RESPONSE, "AWS_SSM_START_SESSION_RESPONSE_7"] {
            let request = session(&[
                first,
                "r-1",
                "StartSession",
                "",
                r#"{"Target":"mi-1"}"#,
                "http://e",
            ]);
            assert_eq!(request.session.session_id, "s-1");
            assert_eq!(request.session.token_value.expose(), "t");
            assert_eq!(request.session.stream_url, "ws://h/");
            assert_eq!((request.region.as_str(), request.profile), ("r-1", None));
            assert_eq!(request.endpoint.as_deref(), Some("http://e"));
        }
    }

    #[test]
    fn the_old_form_has_three_arguments() {
        let request = session(&[RESPONSE, "r-1", "StartSession"]);
        assert_eq!((request.profile, request.endpoint), (None, None));
        let request = session(&[RESPONSE, "r-1", "StartSession", "work"]);
        assert_eq!(request.profile.as_deref(), Some("work"));
    }

    #[test]
    fn bad_invocations_are_errors_that_say_what_is_wrong() {
        let error = |arguments: &[&str]| parsed(arguments).unwrap_err();
        assert!(matches!(parsed(&[]), Ok(Invocation::Notice)));
        assert!(matches!(parsed(&["--version"]), Ok(Invocation::Version)));
        assert_eq!(error(&["x"]), UsageError::TooFew);
        assert_eq!(error(&["x", "y"]), UsageError::TooFew);
        assert_eq!(
            error(&[RESPONSE, "r", "Stop"]),
            UsageError::Operation("Stop".to_owned())
        );
        assert_eq!(error(&["[]", "r", "StartSession"]), UsageError::Response);
        assert_eq!(error(&["{", "r", "StartSession"]), UsageError::Response);
        assert_eq!(
            error(&[
                r#"{"SessionId":"a","StreamUrl":"b","TokenValue":null}"#,
                "r",
                "StartSession"
            ]),
            UsageError::Incomplete(IncompleteResponse("TokenValue"))
        );
        assert_eq!(
            error(&["AWS_SSM_START_SESSION_RESPONSE", "r", "StartSession"]),
            UsageError::NoVariable("AWS_SSM_START_SESSION_RESPONSE".to_owned())
        );
        for request in ["{", "[]", "{}", r#"{"Target":1}"#] {
            assert_eq!(
                error(&[RESPONSE, "r", "StartSession", "", request]),
                UsageError::Request
            );
        }
    }
}
