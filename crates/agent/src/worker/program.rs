//! The programs that sessions run, and what they find when they start: the environment of a login,
//! built from nothing, in the home directory.

use std::{collections::BTreeMap, path::PathBuf};

use crate::os::{Account, Program};

/// Runs commands, as on official nodes. The account's own shell would read files of the account first.
const COMMAND_SHELL: &str = "/bin/sh";
/// What programs are told of a terminal.
const TERMINAL_TYPE: &str = "xterm-256color";

/// Where commands are looked for before a profile says otherwise, as login programs set it.
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The account's login shell, for a terminal.
pub(super) fn login_shell(account: &Account) -> Program {
    let shell_name = account
        .shell
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    Program {
        // The leading dash is how a shell knows that it is a login shell.
        argv0: Some(format!("-{shell_name}")),
        ..terminal_program(account, account.shell.clone())
    }
}

/// A shell that runs `commands` and ends, for a terminal.
pub(super) fn commands(account: &Account, commands: &str) -> Program {
    Program {
        arguments: vec!["-c".to_owned(), commands.to_owned()],
        ..terminal_program(account, COMMAND_SHELL.into())
    }
}

/// The program that `words` name, and its arguments. `None` without words.
pub(super) fn command(account: &Account, words: &[String]) -> Option<Program> {
    let (path, arguments) = words.split_first()?;
    Some(Program {
        arguments: arguments.to_vec(),
        ..program(account, path.into())
    })
}

fn terminal_program(account: &Account, path: PathBuf) -> Program {
    let mut program = program(account, path);
    let terminal = ("TERM".to_owned(), TERMINAL_TYPE.to_owned());
    program.environment.extend([terminal]);
    program
}

fn program(account: &Account, path: PathBuf) -> Program {
    let home = if account.home.is_dir() {
        account.home.clone()
    } else {
        "/".into()
    };
    Program {
        path,
        argv0: None,
        arguments: Vec::new(),
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
        ("USER", &account.name),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Account {
        Account {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            groups: vec![1000],
            home: "/home/alice".into(),
            shell: "/bin/bash".into(),
        }
    }

    fn names(program: &Program) -> Vec<&str> {
        program.environment.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_environment_is_the_login_one_and_nothing_else() {
        let shell = login_shell(&alice());
        assert_eq!(shell.path.to_str(), Some("/bin/bash"));
        assert_eq!(shell.argv0.as_deref(), Some("-bash"));
        assert_eq!(
            names(&shell),
            ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER"]
        );
        assert_eq!(shell.environment["HOME"], "/home/alice");
    }

    #[test]
    fn commands_are_one_argument_of_a_shell_that_reads_no_file_of_the_account() {
        let program = commands(&alice(), "tail -f 'a b'; id");
        assert_eq!(program.path.to_str(), Some("/bin/sh"));
        assert_eq!(program.argv0, None);
        assert_eq!(program.arguments, ["-c", "tail -f 'a b'; id"]);
        assert!(program.environment.contains_key("TERM"));
    }

    #[test]
    fn a_command_is_its_words_and_knows_of_no_terminal() {
        let words = ["echo", "a b", ""].map(str::to_owned);
        let program = command(&alice(), &words).unwrap();
        assert_eq!(program.path.to_str(), Some("echo"));
        assert_eq!(program.arguments, ["a b", ""]);
        assert_eq!(
            names(&program),
            ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]
        );
        assert!(command(&alice(), &[]).is_none());
    }
}
