//! `sortie exec`: a command on a node as if it were here, or on many nodes at once.
//!
//! What the command gets and gives passes through unchanged; our own words go to standard error only,
//! and our own failures are status 255.

mod fleet;
mod lines;
mod relay;
mod selection;
mod signals;
mod words;

use std::{collections::BTreeMap, io};

use sortie_client::{
    Api, DataChannel,
    data_channel::{End, Options},
};
use sortie_wire::shapes::ssm::StartSessionRequest;

use self::{
    relay::{Ending, Outcome},
    signals::Signals,
};
use crate::{
    FAILURE,
    arguments::Exec,
    error::CommandError,
    nodes, output,
    shell::{self, Manner},
    start,
};
pub(crate) use selection::Selector;
pub(crate) use words::WordError;

/// The documents behind the verb.
const COMMAND_DOCUMENT: &str = "AWS-StartNonInteractiveCommand";
const TERMINAL_DOCUMENT: &str = "AWS-StartInteractiveCommand";

/// Their parameter, which takes shell words.
const COMMAND: &str = "command";

/// Has an official agent keep standard output and standard error apart and report the exit status.
const SEPARATE: &str = "separateOutputStream";

/// Added to a signal's number where a status says that a signal ended something, as shells do.
const BY_SIGNAL: i32 = 128;

pub(crate) async fn run(api: &Api, arguments: &Exec) -> Result<u8, CommandError> {
    let request = request(arguments)?;
    match &arguments.node {
        None => fleet::run(api, arguments, request).await,
        Some(node) => {
            let request = StartSessionRequest {
                target: nodes::resolve(api, node).await?,
                ..request
            };
            if arguments.tty {
                on_terminal(api, node, &request).await
            } else {
                on_node(api, node, &request, !arguments.no_stdin).await
            }
        }
    }
}

/// Everything but the node.
fn request(arguments: &Exec) -> Result<StartSessionRequest, CommandError> {
    let mut parameters = start::parameters(&arguments.parameter);
    if !arguments.command.is_empty() {
        let command = words::join(&arguments.command)?;
        parameters.insert(COMMAND.to_owned(), vec![command]);
    }
    let document = match (&arguments.document, arguments.tty) {
        (Some(document), _) => document.clone(),
        (None, true) => TERMINAL_DOCUMENT.to_owned(),
        (None, false) => {
            parameters.insert(SEPARATE.to_owned(), vec!["true".to_owned()]);
            COMMAND_DOCUMENT.to_owned()
        }
    };
    Ok(StartSessionRequest {
        target: String::new(),
        document_name: Some(document),
        reason: arguments.reason.clone(),
        parameters: some(parameters),
    })
}

fn some(parameters: BTreeMap<String, Vec<String>>) -> Option<BTreeMap<String, Vec<String>>> {
    (!parameters.is_empty()).then_some(parameters)
}

/// The command on a terminal: as a shell, without any word of ours about an ordinary end.
async fn on_terminal(
    api: &Api,
    node: &str,
    request: &StartSessionRequest,
) -> Result<u8, CommandError> {
    let session = start::open(api, request).await?;
    let session_id = session.session_id.clone();
    let channel = DataChannel::open(session, api.clone(), api.tls(), start::options());
    let manner = Manner {
        is_plugin: false,
        waiting_for: format!("node {node}"),
    };
    let outcome = shell::run(channel, None, manner)
        .await
        .map_err(|error| CommandError::io("use the terminal", error))?;
    start::conclude(api, &session_id, &outcome, true).await
}

/// The command between pipes.
async fn on_node(
    api: &Api,
    node: &str,
    request: &StartSessionRequest,
    reads_stdin: bool,
) -> Result<u8, CommandError> {
    // From now on a signal is no accident: the session is ended, too.
    let mut signals = Signals::new().map_err(|error| CommandError::io("take signals", error))?;
    let session = tokio::select! {
        session = start::open(api, request) => session?,
        caught = signals.next() => return Ok(status(BY_SIGNAL + caught.number)),
    };
    let session_id = session.session_id.clone();
    let channel = DataChannel::open(session, api.clone(), api.tls(), options());
    let outcome = relay::run(channel, &mut signals, reads_stdin)
        .await
        .map_err(|error| CommandError::io("use standard input and output", error))?;
    if must_terminate(&outcome.ending) {
        start::terminate(api, &session_id).await;
    }
    Ok(conclude(node, &session_id, &outcome))
}

/// How the channel of a command behaves.
fn options() -> Options {
    Options {
        asks: true,
        ..Options::default()
    }
}

/// Whether the session still runs on its server though nobody is here for it any more.
fn must_terminate(ending: &Ending) -> bool {
    match ending {
        Ending::NoStdin | Ending::OutputClosed | Ending::Signalled(_) | Ending::WrongType(_) => {
            true
        }
        Ending::Channel(end) => matches!(end, End::Left | End::Lost { .. } | End::Refused { .. }),
    }
}

/// Says what went wrong, if anything did, and gives the exit status.
fn conclude(node: &str, session_id: &str, outcome: &Outcome) -> u8 {
    match judge(node, session_id, outcome) {
        Ok(status) => status,
        Err(reason) => {
            output::error_line(&format!("sortie: {reason}"));
            FAILURE
        }
    }
}

fn judge(node: &str, session_id: &str, outcome: &Outcome) -> Result<u8, String> {
    if let Err(error) = &outcome.written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(format!("cannot write to standard output: {error}"));
    }
    // Whoever has stopped reading does not change what the command did.
    if outcome.written.is_err() || outcome.ending == Ending::OutputClosed {
        let broken = BY_SIGNAL + rustix::process::Signal::PIPE.as_raw();
        return Ok(status(outcome.exit_status.unwrap_or(broken)));
    }
    match (&outcome.ending, outcome.exit_status) {
        (Ending::Signalled(number), _) => Ok(status(BY_SIGNAL + number)),
        (Ending::Channel(_), Some(code)) => Ok(status(code)),
        (Ending::Channel(end), None) => Err(why(session_id, end, outcome.tells_status)),
        (Ending::NoStdin, _) => Err(format!(
            "the agent of {node} takes no standard input, so the command was not run; -n leaves \
             standard input alone"
        )),
        (Ending::WrongType(session_type), _) => Err(format!(
            "session {session_id} is of type {}, not of a command without a terminal; it was \
             ended. A document for terminals needs -t",
            session_type.as_str()
        )),
        (Ending::OutputClosed, _) => Err("standard output is closed".to_owned()),
    }
}

/// Why there is no exit status.
fn why(session_id: &str, end: &End, tells_status: bool) -> String {
    let reason = match end {
        End::Closed { output } if !output.is_empty() => format!("ended: {}", output::plain(output)),
        End::Closed { .. } if tells_status => "ended before the command did".to_owned(),
        End::Closed { .. } => {
            "ended, and this node's agent did not say with which exit status".to_owned()
        }
        End::Left => "was left".to_owned(),
        End::Lost { reason } => format!("was lost: {reason}"),
        End::Refused { reason } => format!("could not be joined: {reason}"),
        End::TimedOut => "ended while the connection was away".to_owned(),
    };
    format!("session {session_id} {reason}")
}

/// A status as the system has it.
fn status(code: i32) -> u8 {
    u8::try_from(code.rem_euclid(256)).unwrap_or(FAILURE)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn exec(arguments: &[&str]) -> StartSessionRequest {
        use clap::Parser;
        let line = ["sortie", "exec"].iter().chain(arguments);
        let parsed = crate::arguments::Arguments::try_parse_from(line.map(OsString::from));
        match parsed.unwrap().command {
            crate::arguments::Command::Exec(exec) => request(&exec).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn parameter(request: &StartSessionRequest, name: &str) -> Option<Vec<String>> {
        request.parameters.as_ref()?.get(name).cloned()
    }

    #[test]
    fn the_documents_are_the_verbs_and_the_words_are_quoted() {
        let words = ["web", "--", "printf", "%s", "a b"];
        let command = Some(vec!["printf %s 'a b'".to_owned()]);
        let plain = exec(&words);
        assert_eq!(plain.document_name.as_deref(), Some(COMMAND_DOCUMENT));
        assert_eq!(parameter(&plain, COMMAND), command);
        assert_eq!(parameter(&plain, SEPARATE), Some(vec!["true".to_owned()]));
        let terminal = exec(&[&["-t"][..], &words].concat());
        assert_eq!(terminal.document_name.as_deref(), Some(TERMINAL_DOCUMENT));
        assert_eq!(parameter(&terminal, COMMAND), command);
        assert_eq!(parameter(&terminal, SEPARATE), None);
    }

    #[test]
    fn a_document_of_ones_own_gets_what_it_is_given_and_nothing_else() {
        let given = exec(&[
            "web",
            "--document",
            "Logs",
            "--parameter",
            "file=/a=b",
            "--parameter",
            "line=1",
            "--parameter",
            "line=2",
        ]);
        assert_eq!(given.document_name.as_deref(), Some("Logs"));
        assert_eq!(given.parameters.as_ref().unwrap().len(), 2);
        assert_eq!(parameter(&given, "file"), Some(vec!["/a=b".to_owned()]));
        assert_eq!(
            parameter(&given, "line"),
            Some(vec!["1".to_owned(), "2".to_owned()])
        );
        let with_words = exec(&["web", "--document", "Run", "--", "a b"]);
        assert_eq!(
            parameter(&with_words, COMMAND),
            Some(vec!["'a b'".to_owned()])
        );
    }

    #[test]
    fn the_status_is_the_commands_and_our_own_failures_are_reasons() {
        let judged = |ending: Ending, exit_status: Option<i32>| {
            let outcome = Outcome {
                ending,
                exit_status,
                written: Ok(()),
                tells_status: true,
            };
            judge("web", "s-1", &outcome)
        };
        let closed = |output: &str| {
            Ending::Channel(End::Closed {
                output: output.to_owned(),
            })
        };
        for code in [0, 1, 42, 137, 255] {
            assert_eq!(judged(closed(""), Some(code)), Ok(code as u8));
        }
        // The status was told, so how the session ended does not matter.
        assert_eq!(judged(Ending::Channel(End::TimedOut), Some(0)), Ok(0));
        assert_eq!(judged(Ending::Signalled(15), None), Ok(143));
        assert_eq!(judged(Ending::OutputClosed, None), Ok(141));
        for (ending, word) in [
            (closed(""), "before the command did"),
            (closed("idle for too long"), "idle for too long"),
            (Ending::NoStdin, "standard input"),
            (Ending::Channel(End::TimedOut), "away"),
        ] {
            let reason = judged(ending, None).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_left_is_a_broken_pipe() {
        let judged = |error: io::ErrorKind, exit_status: Option<i32>| {
            let outcome = Outcome {
                ending: relay::closed(),
                exit_status,
                written: Err(error.into()),
                tells_status: true,
            };
            judge("web", "s-1", &outcome)
        };
        assert_eq!(judged(io::ErrorKind::BrokenPipe, None), Ok(141));
        assert_eq!(judged(io::ErrorKind::BrokenPipe, Some(4)), Ok(4));
        let failed = judged(io::ErrorKind::StorageFull, Some(0)).unwrap_err();
        assert!(failed.contains("standard output"), "{failed}");
    }
}
