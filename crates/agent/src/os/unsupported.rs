//! Systems that the agent does not run on yet: everything compiles, and says so when used.

use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{Account, ExitCode, HostFacts, PipeOptions, ProcessId, Program, TerminalSize};

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "sortie-agent does not run sessions on this operating system yet",
    ))
}

pub(crate) fn is_root() -> bool {
    false
}

pub(crate) fn own_uid() -> u32 {
    0
}

pub(crate) fn hide_process() -> io::Result<()> {
    unsupported()
}

pub(crate) fn detach() -> io::Result<()> {
    unsupported()
}

pub(crate) fn become_account(_account: &Account) -> io::Result<()> {
    unsupported()
}

/// Signals that never come.
pub(crate) struct EndSignals(());

impl EndSignals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    pub(crate) async fn ended(&mut self) {
        std::future::pending().await
    }
}

pub(crate) fn lock_private(_path: &Path) -> io::Result<File> {
    unsupported()
}

pub(crate) fn create_private_directory(_path: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn write_private(_path: &Path, _bytes: &[u8]) -> io::Result<()> {
    unsupported()
}

pub(crate) fn create_private_file(_path: &Path) -> io::Result<File> {
    unsupported()
}

/// A socket that cannot exist.
pub(crate) struct Listener(Infallible);

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<(tokio::io::DuplexStream, ())> {
        match self.0 {}
    }
}

pub(crate) type PrivateListener = Listener;

impl Listener {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self.0 {}
    }
}

pub(crate) fn bind_private(_directory: &Path, _name: &str) -> io::Result<Listener> {
    unsupported()
}

pub(crate) fn serve_private(listener: Listener) -> io::Result<Listener> {
    Ok(listener)
}

pub(crate) async fn connect_private(
    _directory: &Path,
    _name: &str,
) -> io::Result<tokio::io::DuplexStream> {
    unsupported()
}

pub(crate) fn is_trusted_peer(_stream: &tokio::io::DuplexStream, _uid: u32) -> bool {
    false
}

/// A socket that cannot exist.
pub(crate) struct SessionSocket(Infallible);

impl SessionSocket {
    pub(crate) fn bind(_path: &Path) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) async fn accept(&self) -> io::Result<tokio::io::DuplexStream> {
        match self.0 {}
    }
}

pub(crate) async fn connect_socket(_path: &Path) -> io::Result<tokio::io::DuplexStream> {
    unsupported()
}

pub(crate) fn is_out_of_files(_error: &io::Error) -> bool {
    false
}

pub(crate) fn own_account() -> io::Result<Account> {
    unsupported()
}

pub(crate) fn find_account(_name: &str) -> io::Result<Option<Account>> {
    unsupported()
}

pub(crate) fn ensure_session_account(_sudo: bool) -> io::Result<Account> {
    unsupported()
}

pub(crate) fn host_facts() -> HostFacts {
    HostFacts {
        computer_name: "unknown".to_owned(),
        platform_type: if cfg!(windows) { "Windows" } else { "MacOS" },
        platform_name: std::env::consts::OS.to_owned(),
        platform_version: "unknown".to_owned(),
    }
}

pub(crate) fn local_address(_server: SocketAddr) -> Option<IpAddr> {
    None
}

pub(crate) fn this_process() -> io::Result<ProcessId> {
    unsupported()
}

pub(crate) fn is_running(_process: &ProcessId) -> bool {
    false
}

pub(crate) fn start_worker(
    _program: &Path,
    _arguments: &[&OsStr],
    _environment: &[(&str, OsString)],
    _message: &[u8],
) -> io::Result<ProcessId> {
    unsupported()
}

pub(crate) async fn until_exit(_process: &ProcessId) -> io::Result<()> {
    unsupported()
}

pub(crate) fn kill(_process: &ProcessId) {}

/// A terminal that cannot exist.
pub(crate) struct Terminal(Infallible);

impl Terminal {
    pub(crate) fn open(_size: TerminalSize) -> io::Result<(Self, Infallible)> {
        unsupported()
    }

    pub(crate) fn resize(&self, _size: TerminalSize) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) async fn read(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn read_now(&self, _buffer: &mut [u8]) -> Option<usize> {
        match self.0 {}
    }

    pub(crate) async fn write(&self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

/// Such a connection is found out by its silence alone.
pub(crate) fn limit_unconfirmed<T>(_connection: T, _limit: std::time::Duration) -> io::Result<()> {
    Ok(())
}

/// Pipes that cannot exist.
pub(crate) struct Pipes {
    pub(crate) input: Option<Pipe>,
    pub(crate) output: Pipe,
    pub(crate) error: Option<Pipe>,
}

pub(crate) type PipeReader = Pipe;
pub(crate) type PipeWriter = Pipe;

/// A pipe that cannot exist.
pub(crate) struct Pipe(Infallible);

impl Pipe {
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn try_read(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn try_write(&self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

pub(crate) fn waiting_in(pipe: &Pipe) -> u64 {
    match pipe.0 {}
}

/// Such a connection is ended, not reset.
pub(crate) fn reset_on_close<T>(_connection: T) -> io::Result<()> {
    Ok(())
}

pub(crate) fn allow_many_files() {}

/// A program that cannot run.
pub(crate) struct SessionProcess(Infallible);

impl SessionProcess {
    pub(crate) fn start_on_terminal(_program: &Program, slave: Infallible) -> io::Result<Self> {
        match slave {}
    }

    pub(crate) fn start_with_pipes(
        _program: &Program,
        _options: PipeOptions,
    ) -> io::Result<(Self, Pipes)> {
        unsupported()
    }

    pub(crate) async fn wait(&mut self) -> io::Result<ExitCode> {
        match self.0 {}
    }

    pub(crate) fn hang_up(&self) {
        match self.0 {}
    }

    pub(crate) fn terminate(&self) {
        match self.0 {}
    }

    pub(crate) fn signal_group(&self, _name: &str) -> bool {
        match self.0 {}
    }

    pub(crate) fn kill(&self) {
        match self.0 {}
    }

    pub(crate) fn is_anyone_left(&self) -> bool {
        match self.0 {}
    }
}

pub(crate) fn read_standard_input(_limit: u64) -> io::Result<Vec<u8>> {
    unsupported()
}
