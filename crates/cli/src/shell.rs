//! An interactive session between this process's standard streams and a data channel: raw terminal,
//! escapes, window size, signals. Why the session was started and what is printed after its end are
//! the caller's.
//!
//! States: waiting for the node → running (terminal raw, input read) → over, or left by the person,
//! by a signal or because nobody reads the output.

pub(crate) mod away;

use std::{collections::VecDeque, io::IsTerminal, time::Duration};

use bytes::Bytes;
use rustix::process::{Signal, getpid, kill_process};
use sortie_channel::handshake::{Session, SessionType};
use sortie_client::{
    DataChannel,
    data_channel::{Commands, End, Event, Events, Over},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    escape::{self, Escape, Escapes},
    stdio::{Closed, Input, Output, Stream},
    terminal::{self, RawTerminal},
};

/// How long the person waits without a word.
const QUIET_WAIT: Duration = Duration::from_secs(1);

/// Typed bytes kept while the channel takes none. Beyond it standard input is not read.
const TYPED_LIMIT: usize = 64 << 10;

/// What the person can do while the connection is away.
const WAY_OUT: &str = "Enter ~. leaves";

/// End of input, as typed.
const CTRL_D: &[u8] = &[0x04];

/// In what the two programs differ.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Whether this is `session-manager-plugin`, which is as transparent as AWS's: no escapes, no
    /// remarks, keyboard signals are typed, the end of input ends the program, everything goes to
    /// standard output, and input waits until the session's type is known.
    pub(crate) is_plugin: bool,
    /// What the person waits for, as in `waiting for node web`.
    pub(crate) waiting_for: String,
}

/// How an interactive session came to its end here.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: Ending,
    /// The remote command's exit status, where the node told it.
    pub(crate) exit_status: Option<i32>,
}

/// Why an interactive session is over here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The channel's own end.
    Channel(End),
    /// The input ended (plugin only).
    InputEnded,
    /// The person typed `~.`.
    Left,
    /// Nobody reads standard output.
    OutputClosed,
    /// This process was told to end.
    Signalled(i32),
    /// The session is of a type that the program cannot serve.
    Unsupported(SessionType),
}

/// Runs the session until it is over here. The terminal is restored and all output written when this
/// returns.
///
/// `first` is an event of the channel that was taken to see what the session is.
pub(crate) async fn run(
    channel: DataChannel,
    first: Option<Event>,
    manner: Manner,
) -> std::io::Result<Outcome> {
    let DataChannel { events, commands } = channel;
    let mut signals = Signals::new()?;
    let mut shell = Shell {
        manner,
        events,
        commands,
        output: Output::start()?,
        input: None,
        input_ended: false,
        is_command: false,
        raw: None,
        escapes: Escapes::new(),
        typed: VecDeque::new(),
        typed_bytes: 0,
        shown: VecDeque::new(),
        remark_at: Some(tokio::time::Instant::now() + QUIET_WAIT),
        away_since: None,
        has_remarked: false,
        exit_status: None,
    };
    shell.commands.resize(terminal::size());
    let ended = match first {
        Some(event) => shell.take_event(Some(event))?,
        None => None,
    };
    let ending = match ended {
        Some(ending) => ending,
        None => shell.run(&mut signals).await?,
    };
    shell.close(ending, &mut signals).await
}

struct Shell {
    manner: Manner,
    events: Events,
    commands: Commands,
    output: Output,
    input: Option<Input>,
    input_ended: bool,
    /// The session is a command without a terminal, which takes nothing but signals.
    is_command: bool,
    raw: Option<RawTerminal>,
    escapes: Escapes,
    /// Typed and not taken by the channel yet.
    typed: VecDeque<Bytes>,
    typed_bytes: usize,
    /// Arrived and not taken by the output yet. At most one event's worth.
    shown: VecDeque<(Stream, Bytes)>,
    /// When the person is to be told what is being waited for.
    remark_at: Option<tokio::time::Instant>,
    away_since: Option<tokio::time::Instant>,
    has_remarked: bool,
    exit_status: Option<i32>,
}

/// What the loop wakes up for.
enum Wake {
    Event(Option<Event>),
    Input(Option<Bytes>),
    Room(Result<(), Over>),
    OutputRoom(Result<(), Closed>),
    Signal(i32),
    Remark,
}

impl Shell {
    async fn run(&mut self, signals: &mut Signals) -> std::io::Result<Ending> {
        loop {
            let reads = !self.input_ended && self.typed_bytes < TYPED_LIMIT;
            let remark_at = self.remark_at.unwrap_or_else(tokio::time::Instant::now);
            let wake = tokio::select! {
                signal = signals.next() => Wake::Signal(signal),
                room = self.output.ready(), if !self.shown.is_empty() => Wake::OutputRoom(room),
                event = self.events.next(), if self.shown.is_empty() => Wake::Event(event),
                room = self.commands.ready(), if !self.typed.is_empty() => Wake::Room(room),
                piece = next_piece(&mut self.input), if reads => Wake::Input(piece),
                () = tokio::time::sleep_until(remark_at), if self.remark_at.is_some() => Wake::Remark,
            };
            let ending = match wake {
                Wake::Event(event) => self.take_event(event)?,
                Wake::Input(piece) => self.take_input(piece)?,
                Wake::Room(room) => {
                    self.send_typed(room);
                    None
                }
                Wake::OutputRoom(Ok(())) => {
                    self.show();
                    None
                }
                Wake::OutputRoom(Err(Closed)) => Some(Ending::OutputClosed),
                Wake::Signal(number) => self.take_signal(number)?,
                Wake::Remark => {
                    self.remark();
                    None
                }
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
        }
    }

    fn take_event(&mut self, event: Option<Event>) -> std::io::Result<Option<Ending>> {
        match event {
            Some(Event::Joined) if !self.manner.is_plugin => self.begin()?,
            // A shell begins by itself, and knows no other messages.
            Some(Event::Asked { .. } | Event::Joined | Event::Message { .. }) => {}
            Some(Event::Begun(session)) => return self.take_session(session),
            Some(Event::Output(bytes)) => {
                self.settle();
                self.shown.push_back((Stream::Stdout, bytes));
            }
            Some(Event::StdErr(bytes)) => {
                let stream = if self.manner.is_plugin {
                    Stream::Stdout
                } else {
                    Stream::Stderr
                };
                self.shown.push_back((stream, bytes));
            }
            Some(Event::ExitStatus { code, text }) => {
                self.exit_status = code;
                if self.manner.is_plugin {
                    self.shown.push_back((Stream::Stdout, text));
                }
            }
            Some(Event::Away { .. }) => {
                let now = tokio::time::Instant::now();
                self.away_since = Some(now);
                self.remark_at = Some(now + away::QUIET);
            }
            Some(Event::Back) => {
                self.remark_at = None;
                if let Some(since) = self.away_since.take()
                    && std::mem::take(&mut self.has_remarked)
                {
                    self.output.remark(&away::farewell(since.elapsed()));
                }
            }
            Some(Event::Ended(end)) => return Ok(Some(Ending::Channel(end))),
            None => return Ok(Some(Ending::Channel(End::Left))),
        }
        Ok(None)
    }

    fn take_session(&mut self, session: Session) -> std::io::Result<Option<Ending>> {
        if session.session_type == SessionType::Port {
            return Ok(Some(Ending::Unsupported(SessionType::Port)));
        }
        if !session.customer_message.is_empty() {
            let line = format!("{}\n", session.customer_message);
            self.shown.push_back((Stream::Stdout, Bytes::from(line)));
        }
        self.is_command = session.session_type == SessionType::NonInteractiveCommands;
        self.begin()?;
        if self.is_command {
            // Its lines end as on a pipe, which a raw terminal would show as stairs.
            self.raw = None;
        }
        Ok(None)
    }

    /// The node is there: from now on the terminal is the session's.
    fn begin(&mut self) -> std::io::Result<()> {
        if self.input.is_none() {
            self.settle();
            if !self.is_command {
                self.raw = RawTerminal::enter()?;
            }
            self.commands.resize(terminal::size());
            self.input = Some(Input::start()?);
        }
        Ok(())
    }

    /// Nothing is being waited for.
    fn settle(&mut self) {
        if self.away_since.is_none() {
            self.remark_at = None;
        }
    }

    fn take_input(&mut self, piece: Option<Bytes>) -> std::io::Result<Option<Ending>> {
        let Some(piece) = piece else {
            self.input_ended = true;
            if self.is_command {
                return Ok(None);
            }
            if self.manner.is_plugin {
                return Ok(Some(Ending::InputEnded));
            }
            self.type_bytes(Bytes::from_static(CTRL_D));
            return Ok(None);
        };
        // Piped bytes are data: only a person at a terminal has escapes.
        if self.manner.is_plugin || self.raw.is_none() {
            self.type_bytes(piece);
            return Ok(None);
        }
        let mut forward = Vec::with_capacity(piece.len());
        let escapes = self.escapes.feed(&piece, &mut forward);
        self.type_bytes(Bytes::from(forward));
        for escape in escapes {
            match escape {
                Escape::Leave => return Ok(Some(Ending::Left)),
                Escape::Help => self.output.remark(escape::HELP),
                Escape::Suspend => self.suspend()?,
            }
        }
        Ok(None)
    }

    fn type_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.typed_bytes += bytes.len();
            self.typed.push_back(bytes);
        }
    }

    /// Gives the channel what it has room for.
    fn send_typed(&mut self, room: Result<(), Over>) {
        if room.is_err() {
            // The session is over; its last event says so.
            self.typed.clear();
        }
        while let Some(piece) = self.typed.pop_front() {
            if let Some(piece) = self.commands.offer(piece) {
                self.typed.push_front(piece);
                break;
            }
        }
        self.typed_bytes = self.typed.iter().map(Bytes::len).sum();
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

    fn take_signal(&mut self, number: i32) -> std::io::Result<Option<Ending>> {
        let signal = Signal::from_named_raw(number);
        if signal == Some(Signal::WINCH) {
            self.commands.resize(terminal::size());
            return Ok(None);
        }
        // AWS's plugin types the keyboard's signals once its shell runs, and a command without a
        // terminal knows them as bytes.
        let is_typed = self.manner.is_plugin || self.is_command;
        let key: Option<&'static [u8]> = match signal {
            _ if !is_typed || self.input.is_none() => None,
            Some(Signal::INT) => Some(&[0x03]),
            Some(Signal::QUIT) => Some(&[0x1c]),
            Some(Signal::TSTP) => Some(&[0x1a]),
            _ => None,
        };
        match (key, signal) {
            (Some(key), _) => self.type_bytes(Bytes::from_static(key)),
            (None, Some(Signal::TSTP)) => self.suspend()?,
            (None, _) => return Ok(Some(Ending::Signalled(number))),
        }
        Ok(None)
    }

    /// Stops this process with the terminal as it was, and goes on when it is continued.
    fn suspend(&mut self) -> std::io::Result<()> {
        let was_raw = self.raw.take().is_some();
        kill_process(getpid(), Signal::STOP)?;
        if was_raw {
            self.raw = RawTerminal::enter()?;
        }
        self.commands.resize(terminal::size());
        Ok(())
    }

    /// Says what is being waited for, to a person only.
    fn remark(&mut self) {
        self.remark_at = None;
        if self.manner.is_plugin || !std::io::stderr().is_terminal() {
            return;
        }
        if let Some(since) = self.away_since {
            let renewed = std::mem::replace(&mut self.has_remarked, true);
            self.output
                .remark(&away::notice(since.elapsed(), renewed, WAY_OUT));
            // In a narrow terminal it would not take its own place.
            if terminal::size().cols >= away::COLUMNS {
                self.remark_at = Some(tokio::time::Instant::now() + away::RENEWAL);
            }
        } else {
            self.output
                .remark(&format!("waiting for {} …\n", self.manner.waiting_for));
        }
    }

    /// Delivers what is left, restores the terminal and waits for the output to be written.
    async fn close(
        mut self,
        mut ending: Ending,
        signals: &mut Signals,
    ) -> std::io::Result<Outcome> {
        if ending == Ending::InputEnded {
            ending = self.deliver_rest(signals).await;
        }
        self.input = None;
        let mut shown = std::mem::take(&mut self.shown);
        let Self {
            output,
            raw,
            exit_status,
            ..
        } = self;
        let write_rest = async move {
            while let Some(piece) = shown.pop_front() {
                if output.put(piece).await.is_err() {
                    return;
                }
            }
            output.finish().await;
        };
        // A person who leaves, or a signal, does not wait for a stopped terminal or a stuck reader.
        let is_hurried = matches!(ending, Ending::Left | Ending::Signalled(_));
        let patience = if is_hurried {
            Duration::from_millis(300)
        } else {
            Duration::from_secs(24 * 3600)
        };
        tokio::select! {
            () = write_rest => {}
            () = tokio::time::sleep(patience) => {}
            number = signals.next_ending() => ending = Ending::Signalled(number),
        }
        drop(raw);
        Ok(Outcome {
            end: ending,
            exit_status,
        })
    }

    /// The plugin leaves at the end of its input, as AWS's does, but not before what it has read is
    /// delivered. Output that comes meanwhile is shown.
    async fn deliver_rest(&mut self, signals: &mut Signals) -> Ending {
        while !self.typed.is_empty() {
            tokio::select! {
                room = self.commands.ready() => self.send_typed(room),
                number = signals.next_ending() => return Ending::Signalled(number),
            }
        }
        self.commands.leave_when_delivered();
        loop {
            let event = tokio::select! {
                event = self.events.next() => event,
                number = signals.next_ending() => return Ending::Signalled(number),
            };
            match event {
                None | Some(Event::Ended(End::Left)) => return Ending::InputEnded,
                Some(Event::Ended(end)) => return Ending::Channel(end),
                Some(Event::Output(bytes) | Event::StdErr(bytes)) => {
                    // Whoever closed the output still gets the input delivered.
                    let _ = self.output.put((Stream::Stdout, bytes)).await;
                }
                Some(_) => {}
            }
        }
    }
}

/// The next piece of input once it is read at all.
async fn next_piece(input: &mut Option<Input>) -> Option<Bytes> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}

/// The signals that a session answers to.
pub(crate) struct Signals(Vec<(i32, tokio::signal::unix::Signal)>);

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        let caught = [
            Signal::HUP,
            Signal::INT,
            Signal::QUIT,
            Signal::TERM,
            Signal::TSTP,
            Signal::WINCH,
        ];
        let listen = |caught: Signal| {
            let number = caught.as_raw();
            Ok((number, signal(SignalKind::from_raw(number))?))
        };
        caught
            .into_iter()
            .map(listen)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The next signal's number.
    pub(crate) async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next signal that ends a program.
    pub(crate) async fn next_ending(&mut self) -> i32 {
        loop {
            let number = self.next().await;
            let goes_on = [Signal::WINCH, Signal::TSTP].map(Signal::as_raw);
            if !goes_on.contains(&number) {
                return number;
            }
        }
    }
}
