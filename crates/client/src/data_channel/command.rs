//! What a client says to a command besides bytes: that it may begin, that its input is over, signals.
//! The bytes themselves go the way of all input.

use std::collections::VecDeque;

use bytes::Bytes;
use sortie_channel::{
    features,
    frame::PayloadType,
    handshake::{Outgoing, SessionType},
    link::Link,
    stdin,
};
use sortie_types::Now;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Commands, Over};

/// Signals that wait for the channel.
const QUEUE: usize = 16;

/// A signal that is passed on to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandSignal {
    /// The person's interrupt key.
    Int,
    /// A polite end.
    Term,
    /// The terminal is gone.
    Hup,
    /// The person's quit key.
    Quit,
    /// The command's own meaning.
    Usr1,
    /// The command's own meaning.
    Usr2,
    /// Nobody reads the command's standard output any more: its next write there fails.
    Pipe,
}

impl CommandSignal {
    /// The name without `SIG`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Term => "TERM",
            Self::Hup => "HUP",
            Self::Quit => "QUIT",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Pipe => "PIPE",
        }
    }

    /// The byte that means it to an official agent.
    #[must_use]
    pub fn control_byte(self) -> Option<u8> {
        match self {
            Self::Int => Some(0x03),
            Self::Quit => Some(0x1c),
            _ => None,
        }
    }
}

impl Commands {
    /// Lets a session begin that asked ([`super::Event::Asked`]).
    pub fn agree(&self) {
        self.to_command.agreed.cancel();
    }

    /// Says that the command's standard input is over, behind all input that was queued before. Means
    /// nothing where the other end takes no standard input.
    pub fn end_input(&self) {
        self.to_command.input_over.cancel();
    }

    /// Queues a signal for the command; it overtakes queued input. An official agent takes `INT` and
    /// `QUIT` only, others are thrown away there.
    ///
    /// # Errors
    /// When the session is over, or when more signals wait than anybody means.
    pub fn signal(&self, signal: CommandSignal) -> Result<(), Over> {
        self.to_command.signals.try_send(signal).map_err(|_| Over)
    }

    /// Whether the session takes nothing more. Its last events may wait to be read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.to_command.signals.is_closed()
    }
}

/// The caller's side.
#[derive(Clone, Debug)]
pub(super) struct ToCommand {
    signals: mpsc::Sender<CommandSignal>,
    input_over: CancellationToken,
    agreed: CancellationToken,
}

/// The channel's side, with what was said already.
#[derive(Debug)]
pub(super) struct FromCaller {
    incoming: mpsc::Receiver<CommandSignal>,
    input_over: CancellationToken,
    agreed: CancellationToken,
    signals: VecDeque<CommandSignal>,
    has_noticed_end: bool,
    has_told_end: bool,
    /// What both ends can do, as the server said last.
    features: Vec<String>,
    /// The session is a command without a terminal.
    is_command: bool,
    /// Bytes of standard input sent, and taken by the command.
    sent: u64,
    taken: u64,
    /// The handshake's answer, until the caller agrees.
    answer: Option<Outgoing>,
}

/// Both sides.
pub(super) fn pair() -> (ToCommand, FromCaller) {
    let (signals, incoming) = mpsc::channel(QUEUE);
    let (input_over, agreed) = (CancellationToken::new(), CancellationToken::new());
    let caller = ToCommand {
        signals,
        input_over: input_over.clone(),
        agreed: agreed.clone(),
    };
    let channel = FromCaller {
        incoming,
        input_over,
        agreed,
        signals: VecDeque::new(),
        has_noticed_end: false,
        has_told_end: false,
        features: Vec::new(),
        is_command: false,
        sent: 0,
        taken: 0,
        answer: None,
    };
    (caller, channel)
}

impl FromCaller {
    pub(super) fn set_features(&mut self, features: &[String]) {
        self.features = features.to_vec();
    }

    pub(super) fn features(&self) -> &[String] {
        &self.features
    }

    pub(super) fn begin(&mut self, session_type: SessionType) {
        self.is_command = session_type == SessionType::NonInteractiveCommands;
    }

    /// Keeps the handshake's answer; gives it back when there is nothing to wait for.
    pub(super) fn hold(&mut self, answer: Outgoing) -> Option<Outgoing> {
        if self.agreed.is_cancelled() {
            return Some(answer);
        }
        self.answer = Some(answer);
        None
    }

    /// The kept answer, once the caller has agreed.
    pub(super) fn released(&mut self) -> Option<Outgoing> {
        self.answer.take_if(|_| self.agreed.is_cancelled())
    }

    /// The node says how much the command has taken. Old news and nonsense change nothing.
    pub(super) fn take_taken(&mut self, payload: &[u8]) {
        if let Some(taken) = stdin::parse_taken(payload) {
            self.taken = self.taken.max(taken.min(self.sent));
        }
    }

    fn has_stdin(&self) -> bool {
        self.is_command && self.features.iter().any(|name| name == features::STDIN)
    }

    /// How long a piece of input may be now: no more is under way than the node takes whatever the
    /// command does, so that signals get through.
    pub(super) fn room(&self) -> usize {
        if !self.has_stdin() {
            return usize::MAX;
        }
        let ahead = usize::try_from(self.sent - self.taken).unwrap_or(usize::MAX);
        stdin::WINDOW.saturating_sub(ahead)
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        if self.has_stdin() {
            self.sent += bytes as u64;
        }
    }

    /// Waits for something to say. Cancel safe.
    pub(super) async fn wait(&mut self) {
        let takes_signals = self.signals.len() < QUEUE;
        let is_held = self.answer.is_some();
        let no_end = !self.has_noticed_end;
        tokio::select! {
            Some(signal) = self.incoming.recv(), if takes_signals => self.signals.push_back(signal),
            () = self.agreed.cancelled(), if is_held => {}
            () = self.input_over.cancelled(), if no_end => self.has_noticed_end = true,
            else => std::future::pending().await,
        }
    }

    /// Gives the link the signals. They go before the input that the caller has queued.
    pub(super) fn offer_signals(&mut self, link: &mut Link, now: Now) {
        if !self.is_command {
            return;
        }
        while let Some(signal) = self.signals.front() {
            let sent = if self.has_stdin() {
                let name = Bytes::from_static(signal.name().as_bytes());
                link.send(PayloadType::SIGNAL, name, now)
            } else if let Some(byte) = signal.control_byte() {
                link.send(PayloadType::OUTPUT, Bytes::copy_from_slice(&[byte]), now)
            } else {
                Ok(())
            };
            if sent.is_err() {
                return;
            }
            self.signals.pop_front();
        }
    }

    /// Says that the input is over; to be called when none is left.
    pub(super) fn offer_end(&mut self, link: &mut Link, now: Now) {
        if self.has_told_end || !self.has_stdin() || !self.input_over.is_cancelled() {
            return;
        }
        let sent = link.send(PayloadType::STDIN_EOF, Bytes::from_static(&[0]), now);
        self.has_told_end = sent.is_ok();
    }
}
