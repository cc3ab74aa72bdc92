//! The work of a session without a terminal: one command, joined to the data channel by pipes.
//!
//! ```text
//! waiting ── features ──► handshake ──► running ── command ended, pipes read ──► flushing ──► over
//! ```
//!
//! With a client that knows `stdin` the command has a standard input, and its outputs always go apart.
//! Any other client gets what an official node gives: no input, control bytes as signals, and both
//! outputs together unless the document separates them.
//!
//! The session ends with the command, as with `sshd` and official nodes, and what the command has put
//! into the background lives on. `sshd` waits until nobody holds the pipes any more, so that a careless
//! background process keeps the session open for ever. Here everything that the command itself wrote is
//! read; what others write is waited for while it keeps coming, and not for long. An end from
//! outside ends everybody.

use std::{io, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use sortie_channel::{
    features::STDIN,
    frame::PayloadType,
    handshake::{NodeHandshake, SessionType},
    link::Delivery,
    stdin,
};
use tokio::time::Instant;

use self::{input::Input, output::Output};
use super::{
    channel::ChannelEvent,
    leaving,
    outside::{End, Outside},
    program,
    session::Stopped,
};
use crate::{
    document::Command,
    os::{Account, ExitCode, PipeOptions, Pipes, SessionProcess},
};

mod input;
mod output;

/// The most that goes into one frame.
const FRAME_LIMIT: usize = 64 * 1024;
/// How long the pipes may be silent, after the command's end, before they are left to whoever holds them.
const SILENCE: Duration = Duration::from_millis(200);
/// How long others' output is taken after the command's end.
const LINGER: Duration = Duration::from_secs(2);

/// What shells answer for a command that is not there.
const NOT_FOUND: ExitCode = ExitCode(127);
/// What shells answer for a command that is there and cannot be run.
const NOT_RUNNABLE: ExitCode = ExitCode(126);
/// The signal whose meaning is that nobody reads the standard output.
const BROKEN_PIPE: &str = "PIPE";
/// What Ctrl-C and Ctrl-\ are, and the signals they stand for.
const CONTROL_BYTES: [(u8, &str); 2] = [(0x03, "INT"), (0x1c, "QUIT")];

/// Runs the command to its end.
pub(super) async fn run(
    account: &Account,
    command: &Command,
    outside: &mut Outside,
) -> Result<End, Stopped> {
    outside.client_known().await?;
    let mut handshake = NodeHandshake::new(SessionType::NonInteractiveCommands, Value::Null, "");
    if command.separate.is_some() {
        handshake = handshake.with_separate_output();
    }
    outside.shake_hands(handshake).await?;
    let exit_code = match start(account, command, outside) {
        Ok((process, pipes)) => relay(process, pipes, command, outside).await?,
        Err(error) => {
            let text = format!("cannot run {}: {}\n", shown(command), reason(&error));
            outside.send(PayloadType::STDERR, text.into()).await?;
            code_of(&error)
        }
    };
    Ok(outside.flush(exit_code, command.separate.is_some()).await)
}

fn start(
    account: &Account,
    command: &Command,
    outside: &Outside,
) -> io::Result<(SessionProcess, Pipes)> {
    let program = program::command(account, &command.words).ok_or(io::ErrorKind::NotFound)?;
    let has_stdin = outside.channel.has_feature(STDIN);
    let options = PipeOptions {
        input: has_stdin,
        error: has_stdin || command.separate.is_some(),
    };
    SessionProcess::start_with_pipes(&program, options)
}

fn code_of(error: &io::Error) -> ExitCode {
    match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_RUNNABLE,
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "not found".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// The program's name as it may be printed.
fn shown(command: &Command) -> String {
    let name = command.words.first().map_or("", String::as_str);
    name.chars().filter(|c| !c.is_control()).take(256).collect()
}

async fn relay(
    process: SessionProcess,
    pipes: Pipes,
    command: &Command,
    outside: &mut Outside,
) -> Result<ExitCode, End> {
    outside.is_running = true;
    let prefixes = command.separate.clone().unwrap_or_default();
    let mut running = Running {
        outside,
        process,
        input: Input::new(pipes.input),
        output: Output::new(Some(pipes.output), prefixes.output),
        error: Output::new(pipes.error, prefixes.error),
        buffer: vec![0; FRAME_LIMIT].into_boxed_slice(),
        exited: None,
    };
    let ended = running.relay().await;
    if ended.is_err() {
        running.leave().await;
    }
    ended
}

/// A session whose command was started.
struct Running<'a> {
    outside: &'a mut Outside,
    process: SessionProcess,
    input: Input,
    output: Output,
    error: Output,
    buffer: Box<[u8]>,
    exited: Option<Exited>,
}

/// The command has ended; others may hold its pipes.
struct Exited {
    code: ExitCode,
    at: Instant,
    /// When there was something to read, last.
    heard: Instant,
}

impl Running<'_> {
    /// Moves bytes both ways until the command has ended and what it wrote was read.
    async fn relay(&mut self) -> Result<ExitCode, End> {
        loop {
            self.tell_what_was_taken();
            let room = self.outside.channel.writable().min(self.buffer.len());
            if let Some(exited) = &self.exited
                && self.is_over(exited, room)
            {
                return Ok(exited.code);
            }
            let has_exited = self.exited.is_some();
            let (output_reads, error_reads) = (self.output.fits(room), self.error.fits(room));
            // Room for a byte is none for a prefix.
            let is_short = room > 0 && !(output_reads && error_reads);
            tokio::select! {
                event = self.outside.event(self.input.has_room()) => self.take_event(event?),
                () = self.output.readable(), if output_reads => {
                    self.take_output(PayloadType::OUTPUT, room);
                }
                () = self.error.readable(), if error_reads => {
                    self.take_output(PayloadType::STDERR, room);
                }
                () = self.input.writable() => self.input.write(),
                code = self.process.wait(), if !has_exited => self.take_exit(code)?,
                () = tokio::time::sleep(leaving::TICK), if has_exited || is_short => {}
            }
        }
    }

    fn take_event(&mut self, event: ChannelEvent) {
        let ChannelEvent::Input(delivery) = event else {
            return;
        };
        if self.outside.channel.has_feature(STDIN) {
            self.take_input(delivery);
        } else if delivery.payload_type == PayloadType::OUTPUT {
            for (byte, name) in CONTROL_BYTES {
                if delivery.payload.contains(&byte) {
                    self.process.signal_group(name);
                }
            }
        }
    }

    fn take_input(&mut self, delivery: Delivery) {
        match delivery.payload_type {
            PayloadType::OUTPUT => self.input.push(delivery.payload),
            PayloadType::STDIN_EOF => self.input.end(),
            PayloadType::SIGNAL => match std::str::from_utf8(&delivery.payload) {
                // The next write fails, as it does when the reader of a pipe has gone.
                Ok(BROKEN_PIPE) => self.output.close(),
                Ok(name) if self.process.signal_group(name) => {}
                _ => tracing::debug!("ignored a signal that does not exist"),
            },
            _ => {}
        }
    }

    fn tell_what_was_taken(&mut self) {
        if let Some(taken) = self.input.news()
            && self.outside.channel.has_feature(STDIN)
            && self
                .outside
                .channel
                .send(PayloadType::STDIN_TAKEN, stdin::taken(taken))
                .is_ok()
        {
            self.input.told(taken);
        }
    }

    /// Sends what can be read now, up to the room that there is.
    fn take_output(&mut self, payload_type: PayloadType, room: usize) {
        let output = if payload_type == PayloadType::OUTPUT {
            &mut self.output
        } else {
            &mut self.error
        };
        let Some(room) = self.buffer.get_mut(..room) else {
            return;
        };
        let payload = output.read(room);
        if payload.is_empty() {
            return;
        }
        let payload = Bytes::copy_from_slice(payload);
        if self.outside.channel.send(payload_type, payload).is_err() {
            // Cannot be: no more than the room was read.
            tracing::error!("the data channel refused output that it had room for");
        }
        if let Some(exited) = &mut self.exited {
            exited.heard = Instant::now();
        }
    }

    fn take_exit(&mut self, code: io::Result<ExitCode>) -> Result<(), End> {
        let code = code.map_err(|error| End::Failed(format!("lost the command: {error}")))?;
        tracing::debug!(code = code.0, "the command has ended");
        self.outside.is_running = false;
        self.input.close();
        self.output.note_what_waits();
        self.error.note_what_waits();
        let now = Instant::now();
        self.exited = Some(Exited {
            code,
            at: now,
            heard: now,
        });
        Ok(())
    }

    fn is_over(&self, exited: &Exited, room: usize) -> bool {
        let outputs = [&self.output, &self.error];
        if outputs.iter().all(|output| !output.is_open()) {
            return true;
        }
        // The command's own output is never left behind, however slowly it is taken.
        if room == 0 || outputs.iter().any(|output| output.is_owed()) {
            return false;
        }
        exited.at.elapsed() >= LINGER || exited.heard.elapsed() >= SILENCE
    }

    /// Ends everybody, with a grace for those who tidy up.
    async fn leave(&mut self) {
        self.process.terminate();
        self.input.close();
        let (output, error, buffer) = (&mut self.output, &mut self.error, &mut self.buffer);
        leaving::until_gone(&mut self.process, self.exited.is_some(), || {
            // Last words into a closed pipe would end a program before it has tidied up.
            for _ in 0..leaving::READS {
                if output.read(buffer).is_empty() && error.read(buffer).is_empty() {
                    return;
                }
            }
        })
        .await;
    }
}
