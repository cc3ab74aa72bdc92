//! The terminal that the program runs on: raw while a session uses it, restored on every way out (a
//! guard's drop, the panic hook where panics abort), and its size.

use std::{
    io::{self, IsTerminal},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sortie_channel::body::Size;

/// The terminal that is raw, and the settings to go back to.
static COOKED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// What the official client says without a terminal: wide enough that scripts see no wrapped line.
const NO_TERMINAL_SIZE: (u32, u32) = (300, 100);

/// A terminal that is raw until this is dropped. There is one at a time.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Makes the terminal on standard input raw; `None` when standard input is none.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        Self::of(stdin).map(Some)
    }

    /// Makes this terminal raw.
    pub(crate) fn of(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let cooked = tcgetattr(&terminal)?;
        let mut raw = cooked.clone();
        raw.make_raw();
        let guard = {
            let mut kept = COOKED.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.is_some() {
                return Err(io::Error::other("the terminal is in use by a session"));
            }
            tcsetattr(&terminal, OptionalActions::Now, &raw)?;
            *kept = Some((terminal, cooked));
            Self(())
        };
        Ok(guard)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal if it is raw.
fn restore() {
    // The panic hook may run while this thread holds the lock; then the drop below it restores.
    let cooked = match COOKED.try_lock() {
        Ok(mut cooked) => cooked.take(),
        Err(std::sync::TryLockError::Poisoned(cooked)) => cooked.into_inner().take(),
        Err(std::sync::TryLockError::WouldBlock) => None,
    };
    if let Some((terminal, cooked)) = cooked {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(terminal, OptionalActions::Now, &cooked);
    }
}

/// Has a panic restore the terminal before it prints: the release build aborts without unwinding.
pub(crate) fn restore_on_panic() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        hook(panic);
    }));
}

/// The size of the terminal that shows the session, or the official client's size for none.
pub(crate) fn size() -> Size {
    let of = |size: rustix::io::Result<rustix::termios::Winsize>| {
        size.ok().filter(|size| size.ws_col > 0 && size.ws_row > 0)
    };
    let found = of(tcgetwinsize(io::stdout()))
        .or_else(|| of(tcgetwinsize(io::stdin())))
        .or_else(|| of(tcgetwinsize(io::stderr())));
    let (cols, rows) = found.map_or(NO_TERMINAL_SIZE, |size| {
        (u32::from(size.ws_col), u32::from(size.ws_row))
    });
    Size::new(cols, rows)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use sortie_testkit::Terminal;

    use super::*;

    /// Tells this test's second run, on the terminal, what it is for.
    const ON_TERMINAL: &str = "SORTIE_TEST_ON_TERMINAL";

    #[test]
    fn a_panic_restores_the_terminal_even_without_unwinding() {
        if std::env::var_os(ON_TERMINAL).is_some() {
            restore_on_panic();
            // Without its drop only the hook can restore, as where panics abort.
            std::mem::forget(RawTerminal::enter().unwrap().unwrap());
            panic!("on purpose");
        }
        let name = "terminal::tests::a_panic_restores_the_terminal_even_without_unwinding";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", name, "--nocapture"])
            .env(ON_TERMINAL, "1");
        let mut terminal = Terminal::open(&command, 80, 24).unwrap();
        terminal.until("on purpose").unwrap();
        assert!(!terminal.exit_status().unwrap().success());
        assert!(terminal.is_cooked().unwrap());
    }
}
