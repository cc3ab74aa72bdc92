//! One command between this process's standard streams and its session: bytes in, bytes out, signals.
//! Why the session was started and what its end means are the caller's.
//!
//! States: waiting for the node → asked (what the node takes is known, the command does not run yet) →
//! running → over, or left by a signal or because nobody reads the output.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    time::Duration,
};

use bytes::Bytes;
use sortie_channel::{
    features,
    handshake::{Session, SessionType},
};
use sortie_client::{
    DataChannel,
    data_channel::{CommandSignal, Commands, End, Event, Events, Over},
};
use tokio::time::Instant;

use super::signals::{Caught, Signals, is_ending};
use crate::{
    shell::away,
    stdio::{Closed, Input, Output, Peeked, Stream},
    terminal,
};

/// How long the server may take to close the session of a command that has ended.
const CLOSING: Duration = Duration::from_secs(10);

/// How long the output may take when the person leaves.
const HURRY: Duration = Duration::from_millis(300);

/// What the person can do while the connection is away.
const WAY_OUT: &str = "Ctrl-C leaves";

/// What came of a command.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ending: Ending,
    /// The command's exit status, where the node told it.
    pub(super) exit_status: Option<i32>,
    /// Whether all output was written.
    pub(super) written: io::Result<()>,
    /// Whether the node reports the exit status of every command.
    pub(super) tells_status: bool,
}

/// Why it is over here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The channel's own end.
    Channel(End),
    /// Standard input cannot be read to its end.
    InputFailed(String),
    /// There is standard input and the node takes none.
    NoStdin,
    /// Standard output cannot be written any more.
    OutputClosed,
    /// This process was told to end, and the command cannot be told.
    Signalled(i32),
    /// The session is none of a command without a terminal.
    WrongType(SessionType),
}

/// Runs the command until it is over here. All output is written when this returns, except when the
/// person is in a hurry.
pub(super) async fn run(
    channel: DataChannel,
    signals: &mut Signals,
    reads_stdin: bool,
) -> io::Result<Outcome> {
    let DataChannel { events, commands } = channel;
    let mut relay = Relay {
        events,
        commands,
        output: Output::start()?,
        broken: None,
        input: reads_stdin.then(Input::start).transpose()?,
        read: None,
        shown: VecDeque::new(),
        has_begun: false,
        takes_stdin: false,
        tells_status: false,
        exit_status: None,
        closing_until: None,
        away_since: None,
        remark_at: None,
        has_remarked: false,
    };
    let ending = relay.run(signals).await;
    Ok(relay.close(ending, signals).await)
}

struct Relay {
    events: Events,
    commands: Commands,
    output: Output,
    /// The output before it, of which standard output was not taken any more.
    broken: Option<Output>,
    /// Standard input, until it is over or unwanted.
    input: Option<Input>,
    /// Read and not taken by the channel yet.
    read: Option<Bytes>,
    /// Arrived and not taken by the output yet. At most one event's worth.
    shown: VecDeque<(Stream, Bytes)>,
    has_begun: bool,
    takes_stdin: bool,
    tells_status: bool,
    exit_status: Option<i32>,
    closing_until: Option<Instant>,
    away_since: Option<Instant>,
    /// When the person is to be told that the connection is away.
    remark_at: Option<Instant>,
    has_remarked: bool,
}

/// What the loop wakes up for.
enum Wake {
    Closing,
    Event(Option<Event>),
    Input(Option<Bytes>),
    OutputRoom(Result<(), Closed>),
    Remark,
    Room(Result<(), Over>),
    Signal(Caught),
}

impl Relay {
    async fn run(&mut self, signals: &mut Signals) -> Ending {
        loop {
            let wake = self.wait(signals).await;
            let ending = match wake {
                Wake::Event(Some(Event::Asked { features })) => self.decide(&features).await,
                wake => self.handle(wake),
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    async fn wait(&mut self, signals: &mut Signals) -> Wake {
        let reads = self.has_begun && self.read.is_none();
        let remark_at = self.remark_at;
        let closing_until = self.closing_until;
        tokio::select! {
            caught = signals.next() => Wake::Signal(caught),
            room = self.output.ready(), if !self.shown.is_empty() => Wake::OutputRoom(room),
            event = self.events.next(), if self.shown.is_empty() => Wake::Event(event),
            room = self.commands.ready(), if self.read.is_some() => Wake::Room(room),
            piece = next_piece(&mut self.input), if reads => Wake::Input(piece),
            () = at(remark_at) => Wake::Remark,
            () = at(closing_until) => Wake::Closing,
        }
    }

    fn handle(&mut self, wake: Wake) -> Option<Ending> {
        match wake {
            Wake::Event(event) => return self.take_event(event),
            Wake::Input(piece) => return self.take_input(piece),
            Wake::Signal(caught) => return self.take_signal(caught),
            Wake::OutputRoom(Err(Closed)) => return self.output_closed(),
            Wake::OutputRoom(Ok(())) => self.show(),
            // Everything of the command is here, as its status came last.
            Wake::Closing => return Some(closed()),
            Wake::Room(Ok(())) => self.send(),
            // The session is over; its last event says so.
            Wake::Room(Err(Over)) => self.forget_input(),
            Wake::Remark => self.remark(),
        }
        None
    }

    fn take_event(&mut self, event: Option<Event>) -> Option<Ending> {
        match event {
            Some(Event::Begun(session)) => return self.begin(&session),
            Some(Event::Output(_)) if self.broken.is_some() => {}
            Some(Event::Output(bytes)) => self.shown.push_back((Stream::Stdout, bytes)),
            Some(Event::StdErr(bytes)) => self.shown.push_back((Stream::Stderr, bytes)),
            Some(Event::ExitStatus { code, .. }) => {
                self.exit_status = code;
                self.closing_until = code.map(|_| Instant::now() + CLOSING);
            }
            Some(Event::Away { .. }) if self.exit_status.is_some() => return Some(closed()),
            Some(Event::Away { .. }) => {
                let now = Instant::now();
                self.away_since = Some(now);
                self.remark_at = Some(now + away::QUIET);
            }
            Some(Event::Back) => self.back(),
            Some(Event::Ended(end)) => return Some(Ending::Channel(end)),
            None => return Some(Ending::Channel(End::Left)),
            // The question was answered, and the rest says nothing to a command.
            Some(Event::Asked { .. } | Event::Joined | Event::Message { .. }) => {}
        }
        None
    }

    /// The node is known and the command does not run yet: the last moment to say that something is
    /// not possible.
    async fn decide(&mut self, features: &[String]) -> Option<Ending> {
        let has = |name: &str| features.iter().any(|feature| feature == name);
        self.takes_stdin = has(features::STDIN);
        self.tells_status = has(features::EXIT_STATUS);
        if !self.takes_stdin && self.has_something_to_say().await {
            return Some(Ending::NoStdin);
        }
        self.commands.agree();
        None
    }

    /// Whether there is standard input, for a node that takes none. A person who may never type
    /// anything is not in the way.
    async fn has_something_to_say(&mut self) -> bool {
        if io::stdin().is_terminal() {
            self.forget_input();
        }
        let Some(input) = &mut self.input else {
            return false;
        };
        match input.peek().await {
            Peeked::Piece => return true,
            Peeked::Ended => self.forget_input(),
            Peeked::Nothing => {}
        }
        false
    }

    fn begin(&mut self, session: &Session) -> Option<Ending> {
        if session.session_type != SessionType::NonInteractiveCommands {
            return Some(Ending::WrongType(session.session_type));
        }
        self.has_begun = true;
        if self.input.is_none() {
            self.commands.end_input();
        }
        None
    }

    fn take_input(&mut self, piece: Option<Bytes>) -> Option<Ending> {
        match piece {
            None => {
                // The command must not take half of the input for all of it.
                if let Some(reason) = self.input.as_ref().and_then(Input::failure) {
                    return Some(Ending::InputFailed(reason));
                }
                self.input = None;
                self.commands.end_input();
            }
            Some(piece) if self.takes_stdin => {
                self.read = Some(piece);
                self.send();
            }
            Some(_) => {
                // It came after the command had begun, so that nobody could know before.
                self.forget_input();
                self.output
                    .remark("sortie: standard input is ignored: the node's agent takes none\n");
            }
        }
        None
    }

    fn send(&mut self) {
        self.read = self.read.take().and_then(|read| self.commands.offer(read));
    }

    fn forget_input(&mut self) {
        self.read = None;
        self.input = None;
    }

    /// Gives the output what it has room for.
    fn show(&mut self) {
        while let Some(piece) = self.shown.pop_front() {
            if let Some(piece) = self.output.offer(piece) {
                self.shown.push_front(piece);
                return;
            }
        }
    }

    /// Nobody reads standard output: the command's next write there fails, as it would in a pipe on one
    /// machine, and what else it does goes on. An agent that cannot be told has its session ended.
    fn output_closed(&mut self) -> Option<Ending> {
        let can_be_told = self.broken.is_none() && self.has_begun && self.takes_stdin;
        // When all is over, what the command did is in the events that wait.
        if !can_be_told
            || (self.commands.signal(CommandSignal::Pipe).is_err() && !self.commands.is_over())
        {
            return Some(Ending::OutputClosed);
        }
        let Ok(rest) = self.output.successor() else {
            return Some(Ending::OutputClosed);
        };
        self.broken = Some(std::mem::replace(&mut self.output, rest));
        self.shown
            .retain(|(stream, _)| matches!(stream, Stream::Stderr));
        None
    }

    /// A signal is the command's, as long as it can be told.
    fn take_signal(&mut self, caught: Caught) -> Option<Ending> {
        let meaning = caught.meaning;
        let can_be_told = self.takes_stdin || meaning.control_byte().is_some();
        let is_reachable = self.away_since.is_none() || !is_ending(meaning);
        if self.has_begun && can_be_told && is_reachable && self.commands.signal(meaning).is_ok() {
            return None;
        }
        Some(Ending::Signalled(caught.number))
    }

    fn back(&mut self) {
        self.remark_at = None;
        if let Some(since) = self.away_since.take()
            && std::mem::take(&mut self.has_remarked)
        {
            self.output.remark(&away::farewell(since.elapsed()));
        }
    }

    /// Says for how long the connection is away, to a person only.
    fn remark(&mut self) {
        self.remark_at = None;
        let Some(since) = self.away_since.filter(|_| io::stderr().is_terminal()) else {
            return;
        };
        let renewed = std::mem::replace(&mut self.has_remarked, true);
        self.output
            .remark(&away::notice(since.elapsed(), renewed, WAY_OUT));
        // In a narrow terminal it would not take its own place.
        if terminal::size().cols >= away::COLUMNS {
            self.remark_at = Some(Instant::now() + away::RENEWAL);
        }
    }

    /// Writes what is left.
    async fn close(mut self, mut ending: Ending, signals: &mut Signals) -> Outcome {
        self.forget_input();
        let Self {
            mut output,
            mut broken,
            mut shown,
            exit_status,
            tells_status,
            ..
        } = self;
        let was_told = broken.is_some();
        let write_rest = async move {
            while let Some(piece) = shown.pop_front() {
                if output.put(piece.clone()).await.is_err() && broken.is_none() {
                    let rest = output.successor()?;
                    broken = Some(std::mem::replace(&mut output, rest));
                    shown.push_front(piece);
                    shown.retain(|(stream, _)| matches!(stream, Stream::Stderr));
                }
            }
            output.result().await?;
            match broken {
                Some(broken) if was_told => broken.result().await.or_else(pass_a_broken_pipe),
                Some(broken) => broken.result().await,
                None => Ok(()),
            }
        };
        let is_hurried = matches!(ending, Ending::Signalled(_));
        let hurry = is_hurried.then(|| Instant::now() + HURRY);
        let mut written = Ok(());
        tokio::select! {
            result = write_rest => written = result,
            () = at(hurry) => {}
            caught = ending_signal(signals) => ending = Ending::Signalled(caught.number),
        }
        Outcome {
            ending,
            exit_status,
            written,
            tells_status,
        }
    }
}

/// An ordinary end.
pub(super) fn closed() -> Ending {
    Ending::Channel(End::Closed {
        output: String::new(),
    })
}

/// The command was told of it, and had its own say.
fn pass_a_broken_pipe(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(error)
}

async fn ending_signal(signals: &mut Signals) -> Caught {
    loop {
        let caught = signals.next().await;
        if is_ending(caught.meaning) {
            return caught;
        }
    }
}

/// Waits for a time, for ever when there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The next piece of input where it is read at all.
async fn next_piece(input: &mut Option<Input>) -> Option<Bytes> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}
