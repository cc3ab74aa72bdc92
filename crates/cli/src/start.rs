//! `sortie start`: a shell on a node, or what a session document makes of it; and what every verb that
//! starts sessions has in common.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use sortie_channel::features;

use sortie_client::{
    Api, CallError, DataChannel, StartedSession,
    data_channel::{self, End},
};
use sortie_wire::shapes::ssm::{StartSession, StartSessionRequest};

use crate::{
    FAILURE,
    arguments::Start,
    error::CommandError,
    nodes, output,
    shell::{self, Ending, Manner, Outcome},
};

/// How long ending the session on its server may take when the person leaves.
pub(crate) const TERMINATE_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn run(api: &Api, arguments: &Start) -> Result<u8, CommandError> {
    let parameters = parameters(&arguments.parameter);
    let request = StartSessionRequest {
        target: nodes::resolve(api, &arguments.node).await?,
        document_name: arguments.document.clone(),
        reason: arguments.reason.clone(),
        parameters: (!parameters.is_empty()).then_some(parameters),
    };
    let session = open(api, &request).await?;
    let session_id = session.session_id.clone();
    let channel = DataChannel::open(session, api.clone(), api.tls(), options());
    let manner = Manner {
        is_plugin: false,
        waiting_for: format!("node {}", arguments.node),
    };
    let outcome = shell::run(channel, None, manner)
        .await
        .map_err(|error| CommandError::io("use the terminal", error))?;
    conclude(api, &session_id, &outcome, false).await
}

/// How the channel of a person at a terminal behaves: what is typed is typed, also to a command that
/// takes no terminal.
pub(crate) fn options() -> data_channel::Options {
    let mut options = data_channel::Options::default();
    options
        .features
        .retain(|feature| feature != features::STDIN);
    options
}

/// Ends the session on its server where it is not over, says what the person must know, and gives the
/// exit status. Quiet: an ordinary end is not worth a word.
pub(crate) async fn conclude(
    api: &Api,
    session_id: &str,
    outcome: &Outcome,
    is_quiet: bool,
) -> Result<u8, CommandError> {
    if must_terminate(&outcome.end) {
        terminate(api, session_id).await;
    }
    let is_ordinary = outcome.exit_status.is_some();
    let line = last_line(session_id, outcome);
    if let Some(line) = line.filter(|_| !(is_quiet && exit_status(outcome) != FAILURE)) {
        // What the session showed last may have been a prompt.
        let is_seen = std::io::stdout().is_terminal();
        let gap = if is_seen && !is_ordinary { "\n" } else { "" };
        output::error_line(&format!("{gap}{line}"));
    }
    Ok(exit_status(outcome))
}

/// What was given as NAME=VALUE; a name that comes again has several values.
pub(crate) fn parameters(given: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in given {
        parameters
            .entry(name.clone())
            .or_default()
            .push(value.clone());
    }
    parameters
}

/// Starts a session; the target is a node's id.
pub(crate) async fn open(
    api: &Api,
    request: &StartSessionRequest,
) -> Result<StartedSession, CommandError> {
    match api.call::<StartSession>(request).await {
        Ok(response) => Ok(response.try_into()?),
        Err(error) if error.code() == Some("TargetNotConnected") => {
            Err(CommandError::NotConnected {
                target: request.target.clone(),
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the session still runs on its server though nobody is here for it any more.
pub(crate) fn must_terminate(ending: &Ending) -> bool {
    match ending {
        Ending::Left | Ending::OutputClosed | Ending::Signalled(_) | Ending::Unsupported(_) => true,
        Ending::Channel(end) => matches!(end, End::Left | End::Lost { .. } | End::Refused { .. }),
        Ending::InputEnded => false,
    }
}

/// Ends the session on its server, as well as that goes: the person is leaving, and a session that
/// stays behind ends by its idle limit.
pub(crate) async fn terminate(api: &Api, session_id: &str) {
    let ended: Result<Result<(), CallError>, _> =
        tokio::time::timeout(TERMINATE_TIMEOUT, data_channel::terminate(api, session_id)).await;
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the session was not ended on its server"),
        Err(_) => tracing::debug!("the session was not ended on its server in time"),
    }
}

/// What the person is told at the end. An ordinary end needs no words in a script.
fn last_line(session_id: &str, outcome: &Outcome) -> Option<String> {
    let told = |text: &str| Some(format!("Session {session_id} {text}"));
    match &outcome.end {
        Ending::Channel(End::Closed { output }) if output.is_empty() => {
            let is_seen = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
            is_seen.then(|| format!("Session {session_id} ended."))
        }
        Ending::Channel(End::Closed { output }) => told(&format!("ended: {output}")),
        Ending::Channel(End::Lost { reason }) => told(&format!("lost: {reason}")),
        Ending::Channel(End::Refused { reason }) => told(&format!("could not be joined: {reason}")),
        Ending::Channel(End::TimedOut) => told("ended while the connection was away."),
        Ending::Channel(End::Left) | Ending::Left | Ending::InputEnded => told("left."),
        Ending::OutputClosed => None,
        Ending::Signalled(number) => told(&format!("left because of signal {number}.")),
        Ending::Unsupported(session_type) => told(&format!(
            "is of type {}, which is not a shell.",
            session_type.as_str()
        )),
    }
}

/// The remote command's status; 0 for an ordinary end of which no status is known; else our own
/// failure.
fn exit_status(outcome: &Outcome) -> u8 {
    match (&outcome.end, outcome.exit_status) {
        (Ending::Channel(End::Closed { .. }), Some(status)) => status.rem_euclid(256) as u8,
        (Ending::Channel(End::Closed { output }), None) if output.is_empty() => 0,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(end: Ending, exit_status: Option<i32>) -> Outcome {
        Outcome { end, exit_status }
    }

    #[test]
    fn the_exit_status_is_the_commands_or_255() {
        let closed = |output: &str| {
            Ending::Channel(End::Closed {
                output: output.to_owned(),
            })
        };
        for (end, told, status) in [
            (closed(""), Some(3), 3),
            (closed(""), None, 0),
            (closed("idle"), None, 255),
            (closed("done"), Some(0), 0),
            (closed(""), Some(-1), 255),
            (Ending::Left, Some(0), 255),
            (Ending::Channel(End::TimedOut), None, 255),
        ] {
            assert_eq!(
                exit_status(&outcome(end.clone(), told)),
                status,
                "{end:?} {told:?}"
            );
        }
    }
}
