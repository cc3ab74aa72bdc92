//! What depends on the operating system: accounts, processes, the terminal, private files.
//!
//! One module for each system behind the same names; the rest of the crate knows no system call.
//! This is also the only place where `unsafe` may stand.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
pub(crate) use unsupported::*;

/// An account of this machine, as its account database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Login name.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// All groups, the primary one among them.
    pub(crate) groups: Vec<u32>,
    /// Home directory; it need not exist.
    pub(crate) home: PathBuf,
    /// Login shell.
    pub(crate) shell: PathBuf,
}

/// One process, told apart from every later one that gets the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// The process's number.
    pub(crate) pid: u32,
    /// When it started, in the kernel's ticks since boot.
    pub(crate) start_time: u64,
    /// Which boot that was.
    pub(crate) boot_id: String,
}

/// What is told about this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// Host name.
    pub(crate) computer_name: String,
    /// `Linux`, as UpdateInstanceInformation has it.
    pub(crate) platform_type: &'static str,
    /// Name of the distribution.
    pub(crate) platform_name: String,
    /// Its version.
    pub(crate) platform_version: String,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TerminalSize {
    /// Columns.
    pub(crate) cols: u16,
    /// Rows.
    pub(crate) rows: u16,
}

/// A program to run as the leader of a session of its own.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The file to execute; without a slash it is looked for in the environment's `PATH`.
    pub(crate) path: PathBuf,
    /// What the program sees as its own name, when that is not `path`.
    pub(crate) argv0: Option<String>,
    /// What follows the name.
    pub(crate) arguments: Vec<String>,
    /// The whole environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Where it starts.
    pub(crate) directory: PathBuf,
}

/// What a program's standard streams are, when there is no terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PipeOptions {
    /// Whether there is a standard input. Otherwise it is empty.
    pub(crate) input: bool,
    /// Whether the error output goes its own way. Otherwise it goes where the output goes, in order.
    pub(crate) error: bool,
}

/// How a program ended: its status, or 128 and the number of the signal, as shells report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExitCode(pub(crate) i32);
