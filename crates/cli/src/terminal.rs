//! The terminal that the program runs on: raw while a session uses it, restored on every way out (a
//! guard's drop, the panic hook where panics abort), and its size.

use std::{
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sortie_channel::body::Size;

/// The settings to go back to while the terminal is raw.
static COOKED: Mutex<Option<Termios>> = Mutex::new(None);

/// What the official client says without a terminal: wide enough that scripts see no wrapped line.
const NO_TERMINAL_SIZE: (u32, u32) = (300, 100);

/// The terminal on standard input, raw until this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Makes the terminal raw; `None` when standard input is none.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let cooked = tcgetattr(&stdin)?;
        let mut raw = cooked.clone();
        raw.make_raw();
        *COOKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(cooked);
        let guard = Self(());
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(guard))
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
    if let Some(cooked) = cooked {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &cooked);
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
