//! The shell of a session: a login shell of the session's account on a terminal of its own.

use std::{collections::BTreeMap, io};

use crate::os::{Account, Terminal, TerminalProcess, TerminalProgram, TerminalSize};

/// The size before any was announced.
pub(crate) const DEFAULT_SIZE: TerminalSize = TerminalSize { cols: 80, rows: 24 };

/// Where commands are looked for before a profile says otherwise, as login programs set it.
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the account's login shell on a new terminal.
pub(crate) fn start(
    account: &Account,
    size: TerminalSize,
) -> io::Result<(Terminal, TerminalProcess)> {
    let (terminal, slave) = Terminal::open(size)?;
    let process = TerminalProcess::start(&login_shell(account), slave)?;
    Ok((terminal, process))
}

fn login_shell(account: &Account) -> TerminalProgram {
    let shell_name = account
        .shell
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let home = if account.home.is_dir() {
        account.home.clone()
    } else {
        "/".into()
    };
    TerminalProgram {
        path: account.shell.clone(),
        // The leading dash is how a shell knows that it is a login shell.
        argv0: format!("-{shell_name}"),
        environment: environment(account),
        directory: home,
    }
}

/// Built from nothing, so that whatever the agent was started with stays with the agent.
fn environment(account: &Account) -> BTreeMap<String, String> {
    let path = if account.uid == 0 {
        ROOT_PATH
    } else {
        USER_PATH
    };
    [
        ("HOME", account.home.to_string_lossy().as_ref()),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", &account.name),
        ("PATH", path),
        ("SHELL", account.shell.to_string_lossy().as_ref()),
        ("TERM", "xterm-256color"),
        ("USER", &account.name),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// The size that a client announced, as far as a terminal can have it.
pub(crate) fn terminal_size(cols: u32, rows: u32) -> Option<TerminalSize> {
    let part = |value: u32| u16::try_from(value).ok().filter(|&value| value > 0);
    Some(TerminalSize {
        cols: part(cols)?,
        rows: part(rows)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_the_login_one_and_nothing_else() {
        let account = Account {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![1000],
            home: "/home/alice".into(),
            shell: "/bin/bash".into(),
        };
        let program = login_shell(&account);
        assert_eq!(program.argv0, "-bash");
        let names: Vec<&str> = program.environment.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER"]
        );
        assert_eq!(program.environment["HOME"], "/home/alice");
    }

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
