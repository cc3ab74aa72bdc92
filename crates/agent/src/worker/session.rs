//! A shell session from its first websocket to its result: joins the data channel to the terminal.
//!
//! ```text
//! waiting ── features, and a size where one is to be expected ──► running ── shell ended ──►
//! leaving (what is left of the shell's session is ended, the terminal read dry) ──► flushing ──► over
//! ```
//!
//! From every state a cancel, `channel_closed` or a server out of reach for the idle limit leads to
//! over at once.
//!
//! The shell starts as soon as the client is known. Only a client of ours announces its size without
//! having seen output, so only such a client's size is waited for, and not long: a prompt late by
//! [`SIZE_WAIT`] is the worst that a client without a terminal gets.

use std::{io, time::Duration};

use bytes::{Buf, Bytes};
use sortie_channel::{
    body::{Body, Size},
    features::EXIT_STATUS,
    frame::{PayloadType, flag},
    link::Delivery,
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    channel::{ChannelEvent, DataChannel},
    requests::{Asked, Request, Status},
    shell,
};
use crate::{
    os::{Account, EndSignals, ExitCode, Terminal, TerminalProcess, TerminalSize},
    task_result::TaskResult,
};

/// How long the size of a client of ours is waited for.
const SIZE_WAIT: Duration = Duration::from_millis(150);
/// The most that goes into one frame.
const FRAME_LIMIT: usize = 64 * 1024;
/// How often the end of what the shell left behind is looked for.
const LEAVING_TICK: Duration = Duration::from_millis(10);
/// How long processes of the shell's session may take to end after being told.
const HANG_UP_GRACE: Duration = Duration::from_secs(2);
/// How long an official client may acknowledge nothing before its last output is given up.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// What a session needs besides its channel.
pub(crate) struct SessionOptions {
    pub(crate) account: Account,
    /// Typed into the shell when it starts.
    pub(crate) shell_profile: String,
    /// The bound of every wait for a server or client that is away.
    pub(crate) idle_limit: Duration,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The shell ended and its output was sent.
    Exited,
    /// Somebody ended the session from outside.
    Cancelled,
    /// Nobody could be reached for the idle limit.
    CutOff,
    /// It could not be run.
    Failed(String),
}

/// Runs the session to its end.
pub(crate) async fn run(
    options: SessionOptions,
    mut channel: DataChannel,
    mut asked: mpsc::Receiver<Asked>,
) -> TaskResult {
    let end = match conduct(&options, &mut channel, &mut asked).await {
        Ok(end) => end,
        Err(error) => End::Failed(error.to_string()),
    };
    tracing::info!(?end, "the session is over");
    channel.close(end == End::Exited).await;
    let now = crate::clock::wall();
    match end {
        End::Exited | End::Cancelled => TaskResult::success("", now),
        End::CutOff => TaskResult::success(
            "The session was ended because the node could not reach the server for the session's idle limit.",
            now,
        ),
        End::Failed(why) => TaskResult::failed(why, now),
    }
}

async fn conduct(
    options: &SessionOptions,
    channel: &mut DataChannel,
    asked: &mut mpsc::Receiver<Asked>,
) -> io::Result<End> {
    let mut signals = EndSignals::new()?;
    let (size, typed) = match first_size(channel, asked, &mut signals).await {
        Ok(found) => found,
        Err(end) => return Ok(end),
    };
    let (terminal, process) = shell::start(&options.account, size).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start the shell: {error}"))
    })?;
    let mut input = Vec::new();
    if !options.shell_profile.is_empty() {
        input.extend_from_slice(options.shell_profile.as_bytes());
        input.push(b'\n');
    }
    input.extend_from_slice(&typed);
    let mut session = Running {
        channel,
        asked,
        signals,
        terminal,
        process,
        input: input.into(),
        buffer: vec![0; FRAME_LIMIT].into_boxed_slice(),
        is_terminal_open: true,
        exited: None,
    };
    let ended = session.relay().await;
    // Whatever the reason, nothing of the session stays on the machine.
    session.process.hang_up();
    let (exit_code, end) = match ended {
        Ok(exit_code) => (Some(exit_code), End::Exited),
        Err(end) => (None, end),
    };
    session.leave().await;
    match exit_code {
        Some(exit_code) => {
            tracing::debug!("the terminal was read dry");
            Ok(flush(options, channel, asked, exit_code).await)
        }
        None => Ok(end),
    }
}

/// Waits until the client is known, and for its terminal's size where that is coming. Also what was
/// typed before the size, which a client of ours never does.
async fn first_size(
    channel: &mut DataChannel,
    asked: &mut mpsc::Receiver<Asked>,
    signals: &mut EndSignals,
) -> Result<(TerminalSize, Bytes), End> {
    let mut give_up = None;
    loop {
        let event = tokio::select! {
            event = channel.event(true) => event,
            () = super::until(give_up) => return Ok((shell::DEFAULT_SIZE, Bytes::new())),
            Some(request) = asked.recv() => match answer(request, channel, false) {
                Some(end) => return Err(end),
                None => continue,
            },
            () = signals.ended() => return Err(End::Cancelled),
        };
        match event {
            ChannelEvent::Features if !channel.is_client_ours() => {
                return Ok((shell::DEFAULT_SIZE, Bytes::new()));
            }
            ChannelEvent::Features => give_up = Some(Instant::now() + SIZE_WAIT),
            ChannelEvent::Input(delivery) => match delivery.payload_type {
                PayloadType::SIZE => {
                    return Ok((
                        announced_size(&delivery).unwrap_or(shell::DEFAULT_SIZE),
                        Bytes::new(),
                    ));
                }
                PayloadType::OUTPUT => return Ok((shell::DEFAULT_SIZE, delivery.payload)),
                _ if is_terminate_flag(&delivery) => return Err(End::Cancelled),
                _ => {}
            },
            ChannelEvent::Closed => return Err(End::Cancelled),
            ChannelEvent::CutOff => return Err(End::CutOff),
            ChannelEvent::Room => {}
        }
    }
}

fn announced_size(delivery: &Delivery) -> Option<TerminalSize> {
    let size = Size::parse(&delivery.payload).ok()?;
    shell::terminal_size(size.cols, size.rows)
}

fn is_terminate_flag(delivery: &Delivery) -> bool {
    delivery.payload_type == PayloadType::FLAG
        && delivery.payload.as_ref() == flag::TERMINATE_SESSION.to_be_bytes()
}

/// Answers the agent; the end when it asked for that.
fn answer((request, reply): Asked, channel: &DataChannel, running: bool) -> Option<End> {
    // An agent that has gone meanwhile needs no answer.
    let _ = reply.send(Status {
        connected: channel.is_connected(),
        running,
    });
    match request {
        Request::Cancel { reason } => {
            tracing::info!(reason, "the session is cancelled");
            Some(End::Cancelled)
        }
        Request::Status => None,
    }
}

/// A session whose shell was started.
struct Running<'a> {
    channel: &'a mut DataChannel,
    asked: &'a mut mpsc::Receiver<Asked>,
    signals: EndSignals,
    terminal: Terminal,
    process: TerminalProcess,
    /// Typed and not yet taken by the terminal.
    input: Bytes,
    buffer: Box<[u8]>,
    is_terminal_open: bool,
    exited: Option<Exited>,
}

/// The shell has ended; its session may hold more processes, and the terminal more output.
struct Exited {
    code: ExitCode,
    at: Instant,
    was_quiet: bool,
    was_killed: bool,
}

impl Running<'_> {
    /// Moves bytes both ways until the shell has ended and its terminal was read dry.
    async fn relay(&mut self) -> Result<ExitCode, End> {
        loop {
            if let Some(exited) = &self.exited
                && !self.is_terminal_open
            {
                return Ok(exited.code);
            }
            let room = self.channel.writable().min(self.buffer.len());
            let reads = self.is_terminal_open && room > 0;
            let has_exited = self.exited.is_some();
            tokio::select! {
                event = self.channel.event(self.input.is_empty()) => self.take_event(event)?,
                read = self.terminal.read(self.buffer.get_mut(..room).unwrap_or_default()), if reads => {
                    self.take_output(read, room);
                }
                written = self.terminal.write(&self.input), if !self.input.is_empty() => {
                    self.take_written(&written);
                }
                code = self.process.wait(), if !has_exited => self.take_exit(code)?,
                Some(request) = self.asked.recv() => {
                    if let Some(end) = answer(request, self.channel, !has_exited) {
                        return Err(end);
                    }
                }
                () = self.signals.ended() => return Err(End::Cancelled),
                () = tokio::time::sleep(LEAVING_TICK), if has_exited && room > 0 => self.look_for_the_end(),
            }
        }
    }

    fn take_event(&mut self, event: ChannelEvent) -> Result<(), End> {
        match event {
            ChannelEvent::Input(delivery) => self.take_input(delivery)?,
            ChannelEvent::Closed => return Err(End::Cancelled),
            ChannelEvent::CutOff => return Err(End::CutOff),
            ChannelEvent::Features | ChannelEvent::Room => {}
        }
        Ok(())
    }

    fn take_input(&mut self, delivery: Delivery) -> Result<(), End> {
        match delivery.payload_type {
            // After the shell's end there is nobody to type for.
            PayloadType::OUTPUT if self.exited.is_none() => self.input = delivery.payload,
            PayloadType::SIZE => {
                if let Some(size) = announced_size(&delivery)
                    && let Err(error) = self.terminal.resize(size)
                {
                    tracing::debug!(%error, "cannot resize the terminal");
                }
            }
            _ if is_terminate_flag(&delivery) => return Err(End::Cancelled),
            _ => {}
        }
        Ok(())
    }

    /// Sends what was read and what else is there, up to the room that there is.
    fn take_output(&mut self, read: io::Result<usize>, room: usize) {
        let mut filled = match read {
            Ok(read) if read > 0 => read,
            Ok(_) => return self.is_terminal_open = false,
            Err(error) => {
                tracing::warn!(%error, "cannot read the terminal");
                return self.is_terminal_open = false;
            }
        };
        while filled < room
            && let Some(rest) = self.buffer.get_mut(filled..room)
            && let Some(read) = self.terminal.read_now(rest)
        {
            filled += read;
        }
        let payload = Bytes::copy_from_slice(self.buffer.get(..filled).unwrap_or_default());
        if self.channel.send(PayloadType::OUTPUT, payload).is_err() {
            // Cannot be: no more than the room was read.
            tracing::error!("the data channel refused output that it had room for");
        }
        if let Some(exited) = &mut self.exited {
            exited.was_quiet = false;
        }
    }

    fn take_written(&mut self, written: &io::Result<usize>) {
        match written {
            Ok(written) => self.input.advance((*written).min(self.input.len())),
            // The terminal's last program has left: nobody reads this.
            Err(_) => self.input.clear(),
        }
    }

    fn take_exit(&mut self, code: io::Result<ExitCode>) -> Result<(), End> {
        let code = code.map_err(|error| End::Failed(format!("lost the shell: {error}")))?;
        self.input.clear();
        self.process.hang_up();
        tracing::debug!(code = code.0, "the shell has ended");
        self.exited = Some(Exited {
            code,
            at: Instant::now(),
            was_quiet: false,
            was_killed: false,
        });
        Ok(())
    }

    /// The terminal closes by itself when the last program leaves it, mostly at once. A program that
    /// left the session and kept the terminal must not hold up the end.
    fn look_for_the_end(&mut self) {
        let is_anyone_left = self.process.is_anyone_left();
        let Some(exited) = &mut self.exited else {
            return;
        };
        if is_anyone_left {
            if exited.at.elapsed() >= HANG_UP_GRACE && !exited.was_killed {
                exited.was_killed = true;
                self.process.kill();
            }
        } else if exited.was_quiet {
            self.is_terminal_open = false;
        } else {
            exited.was_quiet = true;
        }
    }

    /// Ends what is left of the shell's session, with a grace for those who tidy up.
    async fn leave(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < HANG_UP_GRACE {
            if self.exited.is_none() {
                let waited = tokio::time::timeout(LEAVING_TICK, self.process.wait()).await;
                if waited.is_ok() {
                    self.exited = Some(Exited {
                        code: ExitCode(0),
                        at: begun,
                        was_quiet: false,
                        was_killed: false,
                    });
                }
            } else if !self.process.is_anyone_left() {
                return;
            } else {
                tokio::time::sleep(LEAVING_TICK).await;
            }
            // A program that cannot write does not end.
            while self.terminal.read_now(&mut self.buffer).is_some() {}
        }
        self.process.kill();
    }
}

/// Sends the exit status where the client wants it, and waits until everything has arrived.
async fn flush(
    options: &SessionOptions,
    channel: &mut DataChannel,
    asked: &mut mpsc::Receiver<Asked>,
    exit_code: ExitCode,
) -> End {
    let mut last = Some(Bytes::from(format!("EXIT_CODE: {}", exit_code.0)));
    if !channel.has_feature(EXIT_STATUS) {
        last = None;
    }
    let begun = Instant::now();
    loop {
        if let Some(payload) = last.take() {
            last = channel.send(PayloadType::EXIT_CODE, payload).err();
        }
        // A client of ours comes back and takes it; another one may be gone for good.
        let is_given_up = if channel.is_listened_to() && !channel.is_client_ours() {
            channel.ignored_for(begun) >= FLUSH_LIMIT
        } else {
            begun.elapsed() >= options.idle_limit
        };
        if (last.is_none() && channel.is_drained()) || is_given_up {
            return End::Exited;
        }
        tokio::select! {
            event = channel.event(true) => match event {
                ChannelEvent::Closed => return End::Cancelled,
                ChannelEvent::CutOff => return End::CutOff,
                _ => {}
            },
            Some(request) = asked.recv() => {
                if let Some(end) = answer(request, channel, false) {
                    return end;
                }
            }
            () = tokio::time::sleep(LEAVING_TICK) => {}
        }
    }
}
