//! A program on a pseudo terminal, read by the thread that measures, so that no other wakes up in
//! between. A watchdog ends what takes too long.

use std::{
    fs::File,
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// What the measured shells' prompt is.
pub(crate) const PROMPT: &str = "bench-is-ready> ";
/// The longest that one terminal is used.
const LIMIT: Duration = Duration::from_secs(90);

/// A program in front of a terminal.
pub(crate) struct Terminal {
    master: File,
    child: Child,
    /// Read already, but after what was waited for.
    rest: Vec<u8>,
    /// Dropping it calls the watchdog off.
    _watchdog: mpsc::Sender<()>,
    /// When the program was started.
    pub(crate) started: Instant,
}

impl Terminal {
    /// Starts the program as the leader of a session that the terminal controls.
    pub(crate) fn open(command: &[String], variables: &[(String, String)]) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*ptsname(&master, Vec::new())?, flags, Mode::empty())?;
        let size = Winsize {
            ws_row: 40,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size)?;
        let end = || -> io::Result<Stdio> { Ok(Stdio::from(slave.try_clone()?)) };
        let started = Instant::now();
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(command)
            .env("TERM", "xterm")
            .envs(variables.iter().cloned())
            .stdin(end()?)
            .stdout(end()?)
            .stderr(end()?)
            .spawn()
            .context("cannot run setsid")?;
        Ok(Self {
            master: File::from(master),
            _watchdog: watch(child.id()),
            child,
            rest: Vec::new(),
            started,
        })
    }

    /// The program's process: `setsid` becomes it.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn keys(&mut self, keys: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.master.write_all(keys.as_ref())?)
    }

    /// Reads until `text` has come by. Gives back how many bytes that were.
    pub(crate) fn until(&mut self, text: &str) -> Result<u64> {
        let text = text.as_bytes();
        let mut buffer = vec![0; 64 * 1024];
        let mut seen = std::mem::take(&mut self.rest);
        let mut dropped = 0;
        loop {
            if let Some(end) = find(&seen, text) {
                self.rest = seen.split_off(end);
                return Ok(dropped + seen.len() as u64);
            }
            let old = seen.len().saturating_sub(text.len());
            dropped += old as u64;
            seen.drain(..old);
            let count = self.master.read(&mut buffer).unwrap_or(0);
            if count == 0 {
                let seen = String::from_utf8_lossy(&seen);
                bail!(
                    "the terminal closed before `{}`: {seen}",
                    text.escape_ascii()
                );
            }
            seen.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    }

    /// Reads whatever comes for this long, while there is always something to read.
    pub(crate) fn drink(&mut self, time: Duration) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let started = Instant::now();
        while started.elapsed() < time {
            if self.master.read(&mut buffer)? == 0 {
                bail!("the terminal closed");
            }
        }
        self.rest.clear();
        Ok(())
    }

    /// Waits for the program's end.
    pub(crate) fn close(mut self) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        // A terminal that nobody holds any more answers with an error.
        while self.master.read(&mut buffer).is_ok_and(|count| count > 0) {}
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn watch(process_id: u32) -> mpsc::Sender<()> {
    let (calm, alarm) = mpsc::channel();
    thread::spawn(move || {
        let pid = i32::try_from(process_id).ok().and_then(Pid::from_raw);
        if let (Err(RecvTimeoutError::Timeout), Some(pid)) = (alarm.recv_timeout(LIMIT), pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    calm
}

/// Where the first occurrence of `text` ends.
fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes
        .windows(text.len())
        .position(|part| part == text)
        .map(|start| start + text.len())
}
