//! A terminal that a test types on and reads: a pseudo terminal with a program in front of it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};

use crate::wait::{PATIENCE, wait_for};

/// A program on a pseudo terminal, as a person would use it.
pub struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    screen: Arc<Screen>,
    /// How much of what was shown earlier calls of [`Terminal::until`] have used up.
    seen: usize,
}

/// Nothing that a program writes.
const MARK: &[u8] = b"\x1b_behind the program\x1b\\";

#[derive(Default)]
struct Screen {
    shown: Mutex<Shown>,
    changed: Condvar,
}

#[derive(Default)]
struct Shown {
    bytes: Vec<u8>,
    over: bool,
    /// Nobody reads: what the program writes stays in the terminal until that is full.
    held: bool,
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terminal {
    /// Starts `command` on a terminal of this size. It becomes leader of a session that the terminal
    /// controls, so that keys like Ctrl-C do what they do for a person.
    ///
    /// # Errors
    /// When there is no pseudo terminal, or the program does not start.
    pub fn open(command: &Command, columns: u16, rows: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&*name, flags, Mode::empty())?;
        set_size(&slave, columns, rows)?;

        let mut leader = Command::new("setsid");
        leader
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            leader.current_dir(folder);
        }
        leader.env("TERM", "xterm-256color");
        let end = || -> Result<Stdio> { Ok(Stdio::from(slave.try_clone()?)) };
        leader.stdin(end()?).stdout(end()?).stderr(end()?);
        let child = leader
            .spawn()
            .context("cannot start a program on a terminal")?;

        let screen = Arc::new(Screen::default());
        let master = File::from(master);
        let (reader, sink) = (master.try_clone()?, Arc::clone(&screen));
        // Ends by itself when the last program on the terminal is gone.
        thread::spawn(move || show(reader, &sink));
        Ok(Self {
            child,
            master,
            slave,
            screen,
            seen: 0,
        })
    }

    /// Types these keys.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn keys(&mut self, keys: impl AsRef<[u8]>) -> Result<()> {
        self.master
            .write_all(keys.as_ref())
            .context("the terminal is gone")
    }

    /// Types a line and Enter.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn line(&mut self, line: &str) -> Result<()> {
        self.keys(format!("{line}\r"))
    }

    /// Waits until `text` is shown, after what earlier calls have waited for. Gives back everything
    /// shown up to and including it.
    ///
    /// # Errors
    /// Says what is on the terminal when the text does not come.
    pub fn until(&mut self, text: &str) -> Result<String> {
        let started = Instant::now();
        let mut shown = self.screen.lock();
        loop {
            let fresh = shown.bytes.get(self.seen..).unwrap_or_default();
            if let Some(end) = find(fresh, text.as_bytes()) {
                let part = String::from_utf8_lossy(fresh.get(..end).unwrap_or_default()).into();
                self.seen += end;
                return Ok(part);
            }
            let left = PATIENCE.saturating_sub(started.elapsed());
            if shown.over || left.is_zero() {
                let screen = String::from_utf8_lossy(fresh);
                bail!("waited for `{text}` on the terminal, which shows:\n{screen}");
            }
            let waited = self.screen.changed.wait_timeout(shown, left);
            shown = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What was shown after what earlier calls have waited for, byte by byte. Waits for it at most
    /// this long, and gives back nothing when nothing comes.
    ///
    /// # Errors
    /// When the program is over and everything was taken.
    pub fn take(&mut self, patience: Duration) -> Result<Vec<u8>> {
        let shown = self.screen.lock();
        let seen = self.seen;
        let waited = self
            .screen
            .changed
            .wait_timeout_while(shown, patience, |shown| {
                shown.bytes.len() <= seen && !shown.over
            });
        let shown = waited.unwrap_or_else(PoisonError::into_inner).0;
        let fresh = shown.bytes.get(seen..).unwrap_or_default().to_vec();
        if fresh.is_empty() && shown.over {
            bail!("the program on the terminal is over");
        }
        self.seen += fresh.len();
        Ok(fresh)
    }

    /// Stops reading, as a terminal does after Ctrl-S: soon the program cannot write any more.
    pub fn hold(&self) {
        self.screen.lock().held = true;
    }

    /// Reads on.
    pub fn pass(&self) {
        self.screen.lock().held = false;
        self.screen.changed.notify_all();
    }

    /// Everything shown so far.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().bytes).into_owned()
    }

    /// Changes the size, as dragging a window does.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        set_size(&self.slave, columns, rows)
    }

    /// Whether the terminal is in its ordinary mode: echoing, line by line.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn is_cooked(&self) -> Result<bool> {
        use rustix::termios::LocalModes;
        let modes = tcgetattr(&self.slave)?.local_modes;
        Ok(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG))
    }

    /// The process that holds the terminal, for signals.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program is over, and what it wrote is shown.
    ///
    /// # Errors
    /// Says what is on the terminal when it does not end.
    pub fn exit_status(&mut self) -> Result<ExitStatus> {
        let (child, screen) = (&mut self.child, &self.screen);
        let status = wait_for("the program on the terminal to end", || {
            Ok(child.try_wait()?)
        })
        .with_context(|| {
            format!(
                "the terminal shows:\n{}",
                String::from_utf8_lossy(&screen.lock().bytes)
            )
        })?;
        self.show_the_rest()?;
        Ok(status)
    }

    /// The program's last words may still be on their way when it is gone. What is written behind them
    /// comes behind them.
    fn show_the_rest(&self) -> Result<()> {
        {
            let shown = self.screen.lock();
            if shown.held || shown.over {
                return Ok(());
            }
        }
        rustix::io::write(&self.slave, MARK).context("cannot write to the terminal")?;
        wait_for("the terminal to show everything", || {
            let mut shown = self.screen.lock();
            let at = shown
                .bytes
                .windows(MARK.len())
                .rposition(|bytes| bytes == MARK);
            if let Some(at) = at {
                shown.bytes.drain(at..at + MARK.len());
            }
            Ok(at.map(drop))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.pass();
        // A test that failed in the middle: hang up on whatever is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).context("cannot set the size of the terminal")
}

fn show(mut reader: File, screen: &Screen) {
    let mut buffer = [0; 8192];
    loop {
        let waited = screen.changed.wait_while(screen.lock(), |shown| shown.held);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        let count = reader.read(&mut buffer).unwrap_or(0);
        let mut shown = screen.lock();
        if count == 0 {
            shown.over = true;
        } else {
            shown
                .bytes
                .extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        screen.changed.notify_all();
        if shown.over {
            return;
        }
    }
}

/// Where the first occurrence of `needle` ends.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|part| part == needle)
        .map(|start| start + needle.len())
}
