//! Port sessions of the plugin: its lines are AWS's to the byte, what it can do is more where the other
//! ends are ours.

use std::path::PathBuf;

use rustix::process::Signal;
use sortie_channel::handshake::Session;
use sortie_client::{
    Api, DataChannel, PortSession,
    data_channel::End,
    ports::{Begun, Carrier, Event, SpliceError},
};
use tokio::task::JoinSet;

use super::{fail, last_words};
use crate::{
    error::CommandError,
    forward::{
        local::{Listener, Local},
        spec::Place,
        tunnel::refusal_of,
    },
    output,
    shell::{Ending, Signals},
    ssh::{carry_stdio, close},
    start::{must_terminate, terminate},
};

/// Where AWS's plugin listens.
const BIND: &str = "127.0.0.1";

/// Said when a destination cannot be connected.
const FAILED: &str = "\nConnection to destination port failed, check SSM Agent logs.\n";

/// Said when a signal of the keyboard ends the session.
const TERMINATED: &str = "Terminate signal received, exiting.\n";

/// Goes on with a channel whose session is one of ports.
pub(super) async fn run(
    api: &Api,
    session_id: &str,
    channel: DataChannel,
    session: Session,
) -> Result<u8, CommandError> {
    let mut session = PortSession::of_begun(channel, session);
    let begun = loop {
        match session.next().await {
            Some(Event::Begun(begun)) => break begun,
            Some(Event::Ended(end)) => {
                return say_end(api, session_id, Ending::Channel(end)).await;
            }
            Some(_) => {}
            None => return say_end(api, session_id, Ending::Left).await,
        }
    };
    if !begun.customer_message.is_empty() {
        output::print(&format!("{}\n", begun.customer_message))?;
    }
    let ending = if begun.is_forwarding() {
        forward(api, session, &begun, session_id).await?
    } else {
        stdio(session, begun).await?
    };
    say_end(api, session_id, ending).await
}

async fn say_end(api: &Api, session_id: &str, ending: Ending) -> Result<u8, CommandError> {
    if must_terminate(&ending) {
        terminate(api, session_id).await;
    }
    match last_words(session_id, &ending) {
        Ok(text) => output::print(&text).map(|()| 0),
        Err(reason) => Ok(fail(&reason)),
    }
}

/// Standard input and output are the connection.
async fn stdio(session: PortSession, begun: Begun) -> Result<Ending, CommandError> {
    let outcome = carry_stdio(session, Some(begun))
        .await
        .map_err(|error| CommandError::io("use standard input and output", error))?;
    if let Some(number) = outcome.signal {
        return Ok(Ending::Signalled(number));
    }
    if let Some(reason) = &outcome.failure {
        output::error_line(&format!(
            "session-manager-plugin: {}",
            output::plain(reason)
        ));
    }
    Ok(match outcome.end {
        // The stream is over, and with it what the session was for.
        None | Some(End::Left) => Ending::Channel(End::Closed {
            output: String::new(),
        }),
        Some(end) => Ending::Channel(end),
    })
}

/// Listens as the properties say, and joins each connection with a stream.
async fn forward(
    api: &Api,
    session: PortSession,
    begun: &Begun,
    session_id: &str,
) -> Result<Ending, CommandError> {
    let mut signals =
        Signals::new().map_err(|error| CommandError::io("wait for signals", error))?;
    let place = place(begun);
    let listener = match Listener::open(&place, BIND).await {
        Ok(listener) => listener,
        Err(error) => {
            output::error_line(&format!(
                "session-manager-plugin: cannot listen at {place}: {error}"
            ));
            close(session).await;
            return Ok(Ending::Left);
        }
    };
    let opened = match &listener {
        Listener::Tcp(_) => format!("Port {}", listener.port().unwrap_or_default()),
        Listener::Unix(..) => format!("Unix socket {}", listener.address()),
    };
    let opened = format!("{opened} opened for sessionId {session_id}.\n");
    let is_one = begun.carrier == Carrier::One;
    let waiting = if is_one {
        ""
    } else {
        "Waiting for connections...\n"
    };
    output::print(&format!("{opened}{waiting}"))?;
    let mut forwarding = Forwarding {
        session,
        session_id,
        listener,
        is_one,
        has_accepted: false,
        connections: JoinSet::new(),
        is_unanswered: false,
        has_explained: false,
    };
    let ending = forwarding.run(&mut signals).await?;
    forwarding.connections.shutdown().await;
    if forwarding.is_unanswered {
        terminate(api, session_id).await;
    }
    Ok(ending)
}

fn place(begun: &Begun) -> Place {
    let is_unix = begun.property("localConnectionType") == Some("unix");
    match begun.property("localUnixSocket") {
        Some(path) if is_unix => Place::Unix(PathBuf::from(path)),
        _ => {
            let port = begun.property("localPortNumber").unwrap_or_default();
            Place::port(port.parse().unwrap_or(0))
        }
    }
}

struct Forwarding<'a> {
    session: PortSession,
    session_id: &'a str,
    listener: Listener,
    /// One connection at a time.
    is_one: bool,
    has_accepted: bool,
    connections: JoinSet<Result<(), SpliceError>>,
    /// The node did not end the session though it was asked to.
    is_unanswered: bool,
    /// The reason of a failed connection was told.
    has_explained: bool,
}

enum Wake {
    Accepted(Local),
    Done(Result<(), SpliceError>),
    Event(Option<Event>),
    Signal(i32),
}

impl Forwarding<'_> {
    async fn run(&mut self, signals: &mut Signals) -> Result<Ending, CommandError> {
        let mut stopped = None;
        loop {
            let accepts = stopped.is_none() && (!self.is_one || self.connections.is_empty());
            let wake = tokio::select! {
                event = self.session.next() => Wake::Event(event),
                local = self.listener.accept(), if accepts => Wake::Accepted(local),
                Some(done) = self.connections.join_next() => Wake::Done(done.unwrap_or(Ok(()))),
                number = signals.next() => Wake::Signal(number),
            };
            match wake {
                Wake::Event(None) => return Ok(stopped.unwrap_or(Ending::Left)),
                Wake::Event(Some(Event::Ended(end))) => {
                    return Ok(self.ending(stopped, end));
                }
                Wake::Event(Some(Event::ConnectFailed)) => output::print(FAILED)?,
                Wake::Event(Some(_)) => {}
                Wake::Accepted(local) => self.accept(local)?,
                Wake::Done(done) => self.done(done)?,
                Wake::Signal(number) if stopped.is_none() => {
                    stopped = self.stop(number)?;
                }
                Wake::Signal(_) => {}
            }
        }
    }

    /// Acts on a signal: those of the keyboard end the session in AWS's words.
    fn stop(&mut self, number: i32) -> Result<Option<Ending>, CommandError> {
        let keyboard = [Signal::INT, Signal::QUIT, Signal::TSTP];
        let ending = match Signal::from_named_raw(number) {
            Some(Signal::WINCH) => return Ok(None),
            Some(signal) if keyboard.contains(&signal) => {
                output::print(TERMINATED)?;
                Ending::Channel(End::Closed {
                    output: String::new(),
                })
            }
            _ => Ending::Signalled(number),
        };
        self.session.close();
        Ok(Some(ending))
    }

    fn ending(&mut self, stopped: Option<Ending>, end: End) -> Ending {
        match stopped {
            // The node did not answer: the server has to end it.
            Some(Ending::Channel(_)) if !matches!(end, End::Closed { .. } | End::TimedOut) => {
                self.is_unanswered = true;
                Ending::Channel(End::Closed {
                    output: String::new(),
                })
            }
            Some(ending) => ending,
            None => Ending::Channel(end),
        }
    }

    fn accept(&mut self, local: Local) -> Result<(), CommandError> {
        if self.is_one {
            output::print(&format!(
                "Connection accepted for session {}.\n",
                self.session_id
            ))?;
        } else if !std::mem::replace(&mut self.has_accepted, true) {
            output::print(&format!(
                "\nConnection accepted for session [{}]\n",
                self.session_id
            ))?;
        }
        match self.session.connector().open_own() {
            Ok(stream) => {
                self.connections.spawn(local.splice(stream));
            }
            Err(error) => {
                local.break_off();
                output::error_line(&format!("session-manager-plugin: {error}"));
            }
        }
        Ok(())
    }

    /// Tells of a failed destination in AWS's words, and once in the node's.
    fn done(&mut self, done: Result<(), SpliceError>) -> Result<(), CommandError> {
        let Err(error) = done else {
            return Ok(());
        };
        let Some(refusal) = refusal_of(&error) else {
            tracing::debug!(%error, "a connection broke");
            return Ok(());
        };
        if !std::mem::replace(&mut self.has_explained, true) {
            let reason = output::plain(&refusal.message);
            output::error_line(&format!("session-manager-plugin: {reason}"));
        }
        output::print(FAILED)
    }
}
