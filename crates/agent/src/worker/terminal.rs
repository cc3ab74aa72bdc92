//! The work of a session on a terminal, a shell or commands: joins the data channel to the terminal.
//!
//! ```text
//! waiting ── features, and a size where one is to be expected ──► running ── program ended ──►
//! leaving (what is left of the terminal's session is ended, the terminal read dry) ──► flushing ──► over
//! ```
//!
//! From every state an end from outside leads to over at once.
//!
//! The program starts as soon as the client is known. Only a client of ours announces its size without
//! having seen output, so only such a client's size is waited for, and not long: a prompt late by
//! [`SIZE_WAIT`] is the worst that a client without a terminal gets.
//!
//! Where the program is commands of a document, nothing that is typed becomes a command: no shell reads
//! the terminal, before, beside or after them.

use std::{io, time::Duration};

use bytes::{Buf, Bytes};
use sortie_channel::{
    body::{Body, Size},
    frame::PayloadType,
    link::Delivery,
};
use tokio::time::Instant;

use super::{
    channel::ChannelEvent,
    leaving,
    outside::{End, Outside},
    program,
    session::Stopped,
};
use crate::os::{Account, ExitCode, Program, SessionProcess, Terminal, TerminalSize};

/// How long the size of a client of ours is waited for.
const SIZE_WAIT: Duration = Duration::from_millis(150);
/// The most that goes into one frame.
const FRAME_LIMIT: usize = 64 * 1024;
/// The size before any was announced.
const DEFAULT_SIZE: TerminalSize = TerminalSize { cols: 80, rows: 24 };

/// Runs the account's login shell.
pub(super) async fn shell(
    account: &Account,
    profile: &str,
    outside: &mut Outside,
) -> Result<End, Stopped> {
    let mut typed = Vec::new();
    if !profile.is_empty() {
        typed.extend_from_slice(profile.as_bytes());
        typed.push(b'\n');
    }
    run(&program::login_shell(account), typed, outside).await
}

/// Runs the commands of a document.
pub(super) async fn commands(
    account: &Account,
    commands: &str,
    outside: &mut Outside,
) -> Result<End, Stopped> {
    run(&program::commands(account, commands), Vec::new(), outside).await
}

/// Runs the program. It finds `typed` in the terminal before what the client types.
async fn run(program: &Program, mut typed: Vec<u8>, outside: &mut Outside) -> Result<End, Stopped> {
    let (size, typed_early) = first_size(outside).await?;
    typed.extend_from_slice(&typed_early);
    let (terminal, process) = start(program, size)?;
    outside.is_running = true;
    let mut running = Running {
        outside,
        terminal,
        process,
        input: typed.into(),
        buffer: vec![0; FRAME_LIMIT].into_boxed_slice(),
        is_terminal_open: true,
        exited: None,
    };
    let ended = running.relay().await;
    // Whatever the reason, nothing of the session stays on the machine.
    running.process.hang_up();
    let (terminal, buffer) = (&running.terminal, &mut running.buffer);
    leaving::until_gone(&mut running.process, running.exited.is_some(), || {
        // A program that cannot write does not end.
        for _ in 0..leaving::READS {
            if terminal.read_now(buffer).is_none() {
                return;
            }
        }
    })
    .await;
    let exit_code = ended?;
    tracing::debug!("the terminal was read dry");
    Ok(outside.flush(exit_code, false).await)
}

fn start(program: &Program, size: TerminalSize) -> io::Result<(Terminal, SessionProcess)> {
    let started = Terminal::open(size).and_then(|(terminal, slave)| {
        let process = SessionProcess::start_on_terminal(program, slave)?;
        Ok((terminal, process))
    });
    started
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start the shell: {error}")))
}

/// Waits until the client is known, and for its terminal's size where that is coming. Also what was
/// typed before the size, which a client of ours never does.
async fn first_size(outside: &mut Outside) -> Result<(TerminalSize, Bytes), End> {
    let mut give_up = None;
    loop {
        let event = tokio::select! {
            // A size that has come counts, however late it is looked at.
            biased;
            event = outside.event(true) => event?,
            () = super::until(give_up) => return Ok((DEFAULT_SIZE, Bytes::new())),
        };
        match event {
            ChannelEvent::Features if !outside.channel.is_client_ours() => {
                return Ok((DEFAULT_SIZE, Bytes::new()));
            }
            ChannelEvent::Features => give_up = Some(Instant::now() + SIZE_WAIT),
            ChannelEvent::Input(delivery) => match delivery.payload_type {
                PayloadType::SIZE => {
                    let size = announced_size(&delivery).unwrap_or(DEFAULT_SIZE);
                    return Ok((size, Bytes::new()));
                }
                PayloadType::OUTPUT => return Ok((DEFAULT_SIZE, delivery.payload)),
                _ => {}
            },
            _ => {}
        }
    }
}

fn announced_size(delivery: &Delivery) -> Option<TerminalSize> {
    let size = Size::parse(&delivery.payload).ok()?;
    terminal_size(size.cols, size.rows)
}

/// The size that a client announced, as far as a terminal can have it.
fn terminal_size(cols: u32, rows: u32) -> Option<TerminalSize> {
    let part = |value: u32| u16::try_from(value).ok().filter(|&value| value > 0);
    Some(TerminalSize {
        cols: part(cols)?,
        rows: part(rows)?,
    })
}

/// A session whose program was started.
struct Running<'a> {
    outside: &'a mut Outside,
    terminal: Terminal,
    process: SessionProcess,
    /// Typed and not yet taken by the terminal.
    input: Bytes,
    buffer: Box<[u8]>,
    is_terminal_open: bool,
    exited: Option<Exited>,
}

/// The program has ended; its session may hold more processes, and the terminal more output.
struct Exited {
    code: ExitCode,
    at: Instant,
    was_quiet: bool,
    was_killed: bool,
}

impl Running<'_> {
    /// Moves bytes both ways until the program has ended and its terminal was read dry.
    async fn relay(&mut self) -> Result<ExitCode, End> {
        loop {
            if let Some(exited) = &self.exited
                && !self.is_terminal_open
            {
                return Ok(exited.code);
            }
            let room = self.outside.channel.writable().min(self.buffer.len());
            let reads = self.is_terminal_open && room > 0;
            let has_exited = self.exited.is_some();
            tokio::select! {
                event = self.outside.event(self.input.is_empty()) => self.take_event(event?),
                read = self.terminal.read(self.buffer.get_mut(..room).unwrap_or_default()), if reads => {
                    self.take_output(read, room);
                }
                written = self.terminal.write(&self.input), if !self.input.is_empty() => {
                    self.take_written(&written);
                }
                code = self.process.wait(), if !has_exited => self.take_exit(code)?,
                () = tokio::time::sleep(leaving::TICK), if has_exited && room > 0 => self.look_for_the_end(),
            }
        }
    }

    fn take_event(&mut self, event: ChannelEvent) {
        let ChannelEvent::Input(delivery) = event else {
            return;
        };
        match delivery.payload_type {
            // After the program's end there is nobody to type for.
            PayloadType::OUTPUT if self.exited.is_none() => self.input = delivery.payload,
            PayloadType::SIZE => {
                if let Some(size) = announced_size(&delivery)
                    && let Err(error) = self.terminal.resize(size)
                {
                    tracing::debug!(%error, "cannot resize the terminal");
                }
            }
            _ => {}
        }
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
        if self
            .outside
            .channel
            .send(PayloadType::OUTPUT, payload)
            .is_err()
        {
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
        let code = code.map_err(|error| End::Failed(format!("lost the program: {error}")))?;
        self.input.clear();
        self.outside.is_running = false;
        self.process.hang_up();
        tracing::debug!(code = code.0, "the program has ended");
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
            if exited.at.elapsed() >= leaving::GRACE && !exited.was_killed {
                exited.was_killed = true;
                self.process.kill();
            }
        } else if exited.was_quiet {
            self.is_terminal_open = false;
        } else {
            exited.was_quiet = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_terminal_can_have_are_not_taken() {
        assert_eq!(
            terminal_size(132, 50),
            Some(TerminalSize {
                cols: 132,
                rows: 50
            })
        );
        for (cols, rows) in [(0, 24), (80, 0), (65_536, 24), (u32::MAX, u32::MAX)] {
            assert_eq!(terminal_size(cols, rows), None);
        }
    }
}
