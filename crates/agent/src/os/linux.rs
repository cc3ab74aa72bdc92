//! Linux: accounts through the account database, processes through `/proc` and pidfds, terminals
//! through devpts.
#![expect(
    unsafe_code,
    reason = "the hook between fork and exec, and borrowing inherited descriptors, have no safe form"
)]

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::{
        DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions,
        pidfd_open, pidfd_send_signal,
    },
    pty::OpenptFlags,
    termios::{InputModes, OptionalActions, Winsize},
    thread::{Gid, Uid},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{UnixListener, UnixStream, unix::pipe},
    signal::unix::{SignalKind, signal},
};

use super::{Account, ExitCode, HostFacts, PipeOptions, ProcessId, Program, TerminalSize};

/// The account that sessions run as when the agent is root, as on AWS.
const SESSION_ACCOUNT: &str = "ssm-user";
const SUDOERS_DIRECTORY: &str = "/etc/sudoers.d";
const SUDOERS_FILE: &str = "ssm-agent-users";
const SUDOERS_TEXT: &str = "# Lets sessions of Session Manager administer this machine.\nssm-user ALL=(ALL) NOPASSWD:ALL\n";
/// What a pipe to a program holds.
const PIPE_SIZE: usize = 256 * 1024;
/// Where a worker of a kernel without pidfds is looked for.
const EXIT_POLL: Duration = Duration::from_millis(500);

// ---- the network --------------------------------------------------------------------------------

/// Breaks a connection whose peer's machine has confirmed nothing of what was sent for this long. A
/// slow one that gets on is left alone.
pub(crate) fn limit_unconfirmed(connection: impl AsFd, limit: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(connection, milliseconds)?;
    Ok(())
}

/// Has a connection be reset when it is closed, instead of ended: what was not delivered is dropped, and
/// the other side sees that something is missing.
pub(crate) fn reset_on_close(connection: impl AsFd) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(connection, Some(Duration::ZERO))?;
    Ok(())
}

// ---- this process -------------------------------------------------------------------------------

/// Whether this process may become any account.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// This process's effective user id.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Keeps other processes of the same account out of this one's memory, environment and
/// descriptors, and its secrets out of core dumps.
pub(crate) fn hide_process() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Makes this process independent of whoever started it: a session of its own, standard input and
/// output at `/dev/null`, and nothing inherited that a program started here would inherit again.
pub(crate) fn detach() -> io::Result<()> {
    // Fails only when this already leads a group, as when started from an interactive shell.
    let _ = rustix::process::setsid();
    close_inherited_on_exec()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

fn close_inherited_on_exec() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if number > 2 {
            // SAFETY: the number was just listed as open and this process has one thread; should it
            // be the listing's own, closed by then, the call fails without effect.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// Has as many files open from now on as the system lets this process have. Not for one that starts
/// programs: some misbehave with more than usual.
pub(crate) fn allow_many_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "cannot have more files open");
    }
}

/// Gives up every right but `account`'s, for good. Only for a process of one thread: the kernel
/// keeps these identities by thread, and later threads inherit the caller's.
pub(crate) fn become_account(account: &Account) -> io::Result<()> {
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    if account.uid != 0 && rustix::thread::set_thread_uid(Uid::ROOT).is_ok() {
        return Err(io::Error::other(
            "privileges could be taken back after giving them up",
        ));
    }
    // Programs started from here get what a login gives.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

/// SIGTERM, SIGINT, SIGQUIT and SIGHUP of this process.
///
/// Handling them also undoes, for programs started from here, that whoever started the agent may have had
/// them ignored: handled signals are reset when a program is executed, ignored ones are not.
pub(crate) struct EndSignals {
    ending: [tokio::signal::unix::Signal; 4],
    _job_control: [tokio::signal::unix::Signal; 3],
}

impl EndSignals {
    /// Handles them from now on. Only within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let of = |kind: Signal| signal(SignalKind::from_raw(kind.as_raw()));
        Ok(Self {
            ending: [
                of(Signal::TERM)?,
                of(Signal::INT)?,
                of(Signal::QUIT)?,
                of(Signal::HUP)?,
            ],
            _job_control: [of(Signal::TSTP)?, of(Signal::TTIN)?, of(Signal::TTOU)?],
        })
    }

    /// Waits for one of them.
    pub(crate) async fn ended(&mut self) {
        std::future::poll_fn(|context| {
            let mut arrived = self
                .ending
                .iter_mut()
                .map(|signal| signal.poll_recv(context));
            if arrived.any(|poll| poll.is_ready()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

/// Takes the file at `path`, made when missing, for this process alone, until it is dropped.
pub(crate) fn lock_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

// ---- private files ------------------------------------------------------------------------------

/// Makes `path` and its parents where missing, and lets nobody but this account into `path`.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::metadata(path)?;
    if found.uid() != own_uid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} belongs to another account", path.display()),
        ));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces the file at `path` with `bytes`, mode 0600: afterwards the old content is there or the
/// new one, whatever happens meanwhile.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = temporary_name(path);
    let written = (|| {
        let _ = fs::remove_file(&temporary);
        let mut file = create_private_file(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

/// A new file, mode 0600, that must not exist yet.
pub(crate) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

// ---- a socket in a directory --------------------------------------------------------------------

/// What [`bind_private`] makes.
pub(crate) type PrivateListener = std::os::unix::net::UnixListener;

/// Listens at `directory/name`, mode 0600. Goes through the directory's descriptor, because a socket's
/// path may have 107 bytes only.
pub(crate) fn bind_private(directory: &Path, name: &str) -> io::Result<PrivateListener> {
    let held = File::open(directory)?;
    let path = through(&held, name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory is 0700, so nobody can come in between these two.
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Hands the listener to the runtime. Only within one.
pub(crate) fn serve_private(listener: PrivateListener) -> io::Result<UnixListener> {
    UnixListener::from_std(listener)
}

/// Connects to what listens at `directory/name`.
pub(crate) async fn connect_private(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let held = File::open(directory)?;
    UnixStream::connect(through(&held, name)).await
}

/// Whether the other end of `stream` runs as `uid` or root.
pub(crate) fn is_trusted_peer(stream: &UnixStream, uid: u32) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == uid || peer.uid() == 0)
}

fn through(directory: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

// ---- sockets of sessions ------------------------------------------------------------------------

/// A unix socket that a session listens at. Its file goes when this does.
pub(crate) struct SessionSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Which file it is: device and inode.
    file: (u64, u64),
}

impl SessionSocket {
    /// Listens at `path`, mode 0600. What is there already stays. Only within a runtime.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        // No other thread makes files, and between making and restricting it nobody may come in.
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = bound?;
        let made = fs::symlink_metadata(path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (made.dev(), made.ino()),
        })
    }

    /// Waits for a connection.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for SessionSocket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Connects to the unix socket at `path`.
pub(crate) async fn connect_socket(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

/// Whether the process or the system has as many files open as it may.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

// ---- accounts -----------------------------------------------------------------------------------

/// The account that runs this process.
pub(crate) fn own_account() -> io::Result<Account> {
    let uid = own_uid();
    let groups = rustix::process::getgroups()?
        .into_iter()
        .map(|gid| gid.as_raw())
        .collect();
    let found = account_line(&uid.to_string(), |fields| {
        fields.get(2) == Some(&uid.to_string().as_str())
    })?;
    let mut account = match found {
        Some(account) => account,
        // Containers run as numbers that no account database knows.
        None => Account {
            name: uid.to_string(),
            uid,
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
            home: PathBuf::from("/"),
            shell: PathBuf::from("/bin/sh"),
        },
    };
    account.groups = groups;
    Ok(account)
}

/// The account called `name`, with its groups. `None` when there is none.
pub(crate) fn find_account(name: &str) -> io::Result<Option<Account>> {
    if !is_account_name(name) {
        return Ok(None);
    }
    let Some(mut account) = account_line(name, |fields| fields.first() == Some(&name))? else {
        return Ok(None);
    };
    account.groups = groups_of(&account)?;
    Ok(Some(account))
}

/// What account databases take for a name, short of anything a command line could misread.
fn is_account_name(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/:,\"'\\".contains(&b))
        && !name.bytes().all(|b| b.is_ascii_digit())
}

fn account_line(key: &str, matches: impl Fn(&[&str]) -> bool) -> io::Result<Option<Account>> {
    let local = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if let Some(account) = local.lines().find_map(|line| parse_account(line, &matches)) {
        return Ok(Some(account));
    }
    // Directory services answer through the name service switch only.
    match program("getent")
        .args(["passwd", "--", key])
        .stdin(Stdio::null())
        .output()
    {
        Ok(answer) => Ok(String::from_utf8_lossy(&answer.stdout)
            .lines()
            .find_map(|line| parse_account(line, &matches))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_account(line: &str, matches: impl Fn(&[&str]) -> bool) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    if !matches(&fields) {
        return None;
    }
    let &[name, _, uid, gid, _, home, shell] = fields.as_slice() else {
        return None;
    };
    let gid = gid.parse().ok()?;
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid,
        groups: vec![gid],
        home: PathBuf::from(if home.is_empty() { "/" } else { home }),
        shell: PathBuf::from(if shell.is_empty() { "/bin/sh" } else { shell }),
    })
}

fn groups_of(account: &Account) -> io::Result<Vec<u32>> {
    let asked = program("id")
        .args(["-G", "--", &account.name])
        .stdin(Stdio::null())
        .output();
    let mut groups = match asked {
        Ok(answer) if answer.status.success() => String::from_utf8_lossy(&answer.stdout)
            .split_whitespace()
            .filter_map(|gid| gid.parse().ok())
            .collect(),
        Ok(_) => local_groups(&account.name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => local_groups(&account.name),
        Err(error) => return Err(error),
    };
    if !groups.contains(&account.gid) {
        groups.insert(0, account.gid);
    }
    Ok(groups)
}

fn local_groups(name: &str) -> Vec<u32> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields
            .next()?
            .split(',')
            .any(|member| member == name)
            .then_some(gid)
    };
    text.lines().filter_map(group).collect()
}

/// The account that sessions run as when the agent is root; made when missing, and with `sudo` given
/// the right to administer the machine, as AWS gives it.
pub(crate) fn ensure_session_account(sudo: bool) -> io::Result<Account> {
    if find_account(SESSION_ACCOUNT)?.is_none() {
        make_session_account()?;
    }
    let directory = Path::new(SUDOERS_DIRECTORY);
    if sudo {
        if let Err(error) = allow_sudo(directory) {
            tracing::warn!(%error, "cannot let {SESSION_ACCOUNT} use sudo");
        }
    } else if let Err(error) = withdraw_sudo(directory) {
        tracing::warn!(%error, "{SESSION_ACCOUNT} may still use sudo");
    }
    find_account(SESSION_ACCOUNT)?.ok_or_else(|| {
        io::Error::other(format!(
            "account {SESSION_ACCOUNT} was made but is not there"
        ))
    })
}

fn make_session_account() -> io::Result<()> {
    let shell = if Path::new("/bin/bash").exists() {
        "/bin/bash"
    } else {
        "/bin/sh"
    };
    let useradd = program("useradd")
        .args(["-m", "-s", shell, SESSION_ACCOUNT])
        .output();
    let made = match useradd {
        // BusyBox systems have the other program.
        Err(error) if error.kind() == io::ErrorKind::NotFound => program("adduser")
            .args(["-D", "-s", shell, SESSION_ACCOUNT])
            .output()?,
        other => other?,
    };
    if made.status.success() || find_account(SESSION_ACCOUNT)?.is_some() {
        tracing::info!("made the account {SESSION_ACCOUNT}");
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err(io::Error::other(format!(
        "cannot make the account {SESSION_ACCOUNT}: {}",
        said.trim()
    )))
}

/// Leaves a file that is there alone: an administrator may have narrowed it.
fn allow_sudo(directory: &Path) -> io::Result<()> {
    let path = directory.join(SUDOERS_FILE);
    if !directory.is_dir() || path.exists() {
        return Ok(());
    }
    // sudo skips names with a dot, so the file is not in force before it was judged.
    let unjudged = directory.join(format!("{SUDOERS_FILE}.new"));
    let written = (|| {
        let _ = fs::remove_file(&unjudged);
        let mut file = create_private_file(&unjudged)?;
        file.write_all(SUDOERS_TEXT.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o440))?;
        file.sync_all()?;
        judge_sudoers(&unjudged)?;
        fs::rename(&unjudged, &path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unjudged);
    }
    written
}

/// Takes back what an earlier registration allowed. What an administrator wrote there stays.
fn withdraw_sudo(directory: &Path) -> io::Result<()> {
    let path = directory.join(SUDOERS_FILE);
    match fs::read(&path) {
        Ok(text) if text == SUDOERS_TEXT.as_bytes() => fs::remove_file(&path),
        Ok(_) => Err(io::Error::other(format!(
            "{} was changed by hand",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn judge_sudoers(path: &Path) -> io::Result<()> {
    match program("visudo")
        .arg("-cqf")
        .arg(path)
        .stdin(Stdio::null())
        .output()
    {
        Ok(judged) if judged.status.success() => Ok(()),
        Ok(_) => Err(io::Error::other("visudo refuses the sudoers file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A program of the system, looked for in the system's own directories only.
fn program(name: &str) -> Command {
    const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists());
    let mut command =
        Command::new(found.unwrap_or_else(|| PathBuf::from("/nonexistent").join(name)));
    command
        .env_clear()
        .env("PATH", DIRECTORIES.join(":"))
        .env("LC_ALL", "C");
    command
}

// ---- facts --------------------------------------------------------------------------------------

/// What this machine says of itself.
pub(crate) fn host_facts() -> HostFacts {
    let release = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let kernel = rustix::system::uname();
    HostFacts {
        computer_name: kernel.nodename().to_string_lossy().into_owned(),
        platform_type: "Linux",
        platform_name: release_field(&release, "NAME").unwrap_or_else(|| "Linux".to_owned()),
        platform_version: release_field(&release, "VERSION_ID")
            .unwrap_or_else(|| kernel.release().to_string_lossy().into_owned()),
    }
}

fn release_field(text: &str, name: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(|c| c == '"' || c == '\'');
    (!value.is_empty()).then(|| value.to_owned())
}

/// The local address that connections to `server` leave from. Sends nothing.
pub(crate) fn local_address(server: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

// ---- processes ----------------------------------------------------------------------------------

/// More than the kernel says in a process's `stat`: 52 numbers and a short name.
const STAT_LIMIT: usize = 2048;

/// What `/proc` says about one process.
struct ProcessStat {
    state: u8,
    session: u32,
    start_time: u64,
}

fn process_stat(pid: u32) -> Option<ProcessStat> {
    let mut buffer = [0; STAT_LIMIT];
    // The kernel gives it in one piece. Looking for a session's members reads one of each process.
    let file = File::open(format!("/proc/{pid}/stat")).ok()?;
    let read = rustix::io::read(&file, &mut buffer).ok()?;
    let text = buffer.get(..read)?;
    // The name stands in parentheses and may hold anything, parentheses too.
    let end = text.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(ProcessStat {
        state: *fields.first()?.as_bytes().first()?,
        session: fields.get(3)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// This process.
pub(crate) fn this_process() -> io::Result<ProcessId> {
    process_of(std::process::id())
}

fn process_of(pid: u32) -> io::Result<ProcessId> {
    let stat = process_stat(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(ProcessId {
        pid,
        start_time: stat.start_time,
        boot_id: boot_id(),
    })
}

/// Whether that very process still runs.
pub(crate) fn is_running(process: &ProcessId) -> bool {
    process.boot_id == boot_id()
        && process_stat(process.pid).is_some_and(|stat| {
            stat.start_time == process.start_time && !matches!(stat.state, b'Z' | b'X')
        })
}

/// Starts `program` with `arguments`, an environment of `environment` alone, and `message` on its
/// standard input. Blocks until the message is written.
pub(crate) fn start_worker(
    program: &Path,
    arguments: &[&OsStr],
    environment: &[(&str, std::ffi::OsString)],
    message: &[u8],
) -> io::Result<ProcessId> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let process = process_of(child.id());
    if let Some(mut input) = child.stdin.take() {
        input.write_all(message)?;
    }
    process
}

/// Waits until the process is gone, and reaps it when it is a child.
pub(crate) async fn until_exit(process: &ProcessId) -> io::Result<()> {
    let Some(pid) = raw_pid(process.pid) else {
        return Ok(());
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(()),
        Err(_) => return poll_exit(process, pid).await,
    };
    // Opened by number: it may be somebody else's by now.
    if process_stat(process.pid).is_none_or(|stat| stat.start_time != process.start_time) {
        return Ok(());
    }
    let pidfd = watched(pidfd, Interest::READABLE)?;
    let _ready = pidfd.readable().await?;
    let _ = rustix::process::waitid(
        WaitId::PidFd(pidfd.get_ref().as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    );
    Ok(())
}

async fn poll_exit(process: &ProcessId, pid: Pid) -> io::Result<()> {
    while is_running(process) {
        tokio::time::sleep(EXIT_POLL).await;
    }
    let _ = rustix::process::waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    );
    Ok(())
}

/// Only within a runtime.
fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives, and the `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    watched.map_err(io::Error::from)
}

fn raw_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Kills that very process.
pub(crate) fn kill(process: &ProcessId) {
    if is_running(process) {
        signal_checked(process.pid, Signal::KILL, |stat| {
            stat.start_time == process.start_time
        });
    }
}

/// Sends through a pidfd, after the pidfd is known to be the process meant: numbers are reused.
fn signal_checked(pid: u32, signal: Signal, meant: impl Fn(&ProcessStat) -> bool) {
    let Some(raw) = raw_pid(pid) else { return };
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => {
            if process_stat(pid).is_some_and(|stat| meant(&stat)) {
                let _ = pidfd_send_signal(&pidfd, signal);
            }
        }
        Err(Errno::SRCH) => {}
        Err(_) => {
            if process_stat(pid).is_some_and(|stat| meant(&stat)) {
                let _ = rustix::process::kill_process(raw, signal);
            }
        }
    }
}

// ---- a terminal, pipes, and the program on them -------------------------------------------------

/// The master side of a pseudo terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// A new terminal of that size, and its other side for the program. Only within a runtime.
    pub(crate) fn open(size: TerminalSize) -> io::Result<(Self, OwnedFd)> {
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(
            &*name,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut modes = rustix::termios::tcgetattr(&slave)?;
        // Erasing takes whole characters then, also before the shell sets its own modes.
        modes.input_modes |= InputModes::IUTF8;
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let terminal = Self {
            master: watched(master, Interest::READABLE | Interest::WRITABLE)?,
        };
        terminal.resize(size)?;
        Ok((terminal, slave))
    }

    /// Sets the size; the program on it gets SIGWINCH.
    pub(crate) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(self.master.get_ref(), size)?;
        Ok(())
    }

    /// Reads what the program wrote; 0 when the last program has left the terminal. Nothing is lost
    /// when the future is dropped.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            match ready.try_io(|master| Ok(rustix::io::read(master.get_ref(), &mut *buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }

    /// Reads what is there now; `None` when that is nothing.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> Option<usize> {
        rustix::io::read(self.master.get_ref(), buffer)
            .ok()
            .filter(|&read| read > 0)
    }

    /// Writes some of `bytes` as typed input and says how many. Nothing is lost when the future is
    /// dropped.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.writable().await?;
            match ready.try_io(|master| Ok(rustix::io::write(master.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return written,
                Err(_would_block) => {}
            }
        }
    }
}

/// This side of a pipe that a program writes to.
pub(crate) type PipeReader = pipe::Receiver;
/// This side of a pipe that a program reads.
pub(crate) type PipeWriter = pipe::Sender;

/// This side of the pipes that are a program's standard streams.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) input: Option<PipeWriter>,
    pub(crate) output: PipeReader,
    pub(crate) error: Option<PipeReader>,
}

/// Bytes that wait in a pipe.
pub(crate) fn waiting_in(pipe: &PipeReader) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap_or_default()
}

/// A program that leads a session of its own.
#[derive(Debug)]
pub(crate) struct SessionProcess {
    child: tokio::process::Child,
    session: u32,
}

impl SessionProcess {
    /// Starts the program with `slave` as its controlling terminal and all three standard streams.
    pub(crate) fn start_on_terminal(program: &Program, slave: OwnedFd) -> io::Result<Self> {
        let mut command = command(program);
        command
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave);
        // SAFETY: runs in the child between fork and exec; both calls are bare system calls that
        // touch no memory but their arguments, take no lock and allocate nothing.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        Self::start(command)
    }

    /// Starts the program with pipes as its standard streams and no terminal. Only within a runtime.
    pub(crate) fn start_with_pipes(
        program: &Program,
        options: PipeOptions,
    ) -> io::Result<(Self, Pipes)> {
        let mut command = command(program);
        let (output, theirs) = io::pipe()?;
        let error = if options.error {
            let (error, theirs) = io::pipe()?;
            command.stderr(theirs);
            Some(receiver(error)?)
        } else {
            command.stderr(theirs.try_clone()?);
            None
        };
        command.stdout(theirs);
        let input = if options.input {
            let (theirs, input) = io::pipe()?;
            command.stdin(theirs);
            Some(sender(input)?)
        } else {
            command.stdin(Stdio::null());
            None
        };
        // SAFETY: runs in the child between fork and exec; the call is a bare system call that takes no
        // lock and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(())
            });
        }
        let pipes = Pipes {
            input,
            output: receiver(output)?,
            error,
        };
        Ok((Self::start(command)?, pipes))
    }

    fn start(command: Command) -> io::Result<Self> {
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).spawn()?;
        let session = child
            .id()
            .ok_or_else(|| io::Error::other("the program ended at once"))?;
        Ok(Self { child, session })
    }

    /// Waits for the program's end. May be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitCode> {
        Ok(exit_code(self.child.wait().await?))
    }

    /// Tells every process of the session that the terminal is gone.
    pub(crate) fn hang_up(&self) {
        // A stopped job acts on it only when continued.
        self.signal_session(&[Signal::HUP, Signal::CONT]);
    }

    /// Tells every process of the session to end.
    pub(crate) fn terminate(&self) {
        self.signal_session(&[Signal::TERM, Signal::CONT]);
    }

    /// Sends the signal of this name, without `SIG`, to the program's process group; false when there is
    /// no such signal. Does nothing once the program's end is known.
    pub(crate) fn signal_group(&self, name: &str) -> bool {
        let Some(signal) = signal_named(name) else {
            return false;
        };
        // The number is the program's until its end was taken note of.
        if let Some(group) = self.child.id().and_then(raw_pid) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
        true
    }

    /// Ends every process of the session.
    pub(crate) fn kill(&self) {
        self.signal_session(&[Signal::KILL]);
    }

    /// Whether any process of the session is left.
    pub(crate) fn is_anyone_left(&self) -> bool {
        !self.members().is_empty()
    }

    fn signal_session(&self, signals: &[Signal]) {
        for pid in self.members() {
            for &signal in signals {
                signal_checked(pid, signal, |stat| stat.session == self.session);
            }
        }
    }

    fn members(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pid =
            |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<u32>().ok();
        let is_member = |pid: &u32| {
            process_stat(*pid).is_some_and(|stat| {
                stat.session == self.session && !matches!(stat.state, b'Z' | b'X')
            })
        };
        entries.filter_map(pid).filter(is_member).collect()
    }
}

fn command(program: &Program) -> Command {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(&program.environment)
        .current_dir(&program.directory);
    if let Some(argv0) = &program.argv0 {
        command.arg0(argv0);
    }
    command
}

fn receiver(reader: io::PipeReader) -> io::Result<PipeReader> {
    enlarge(&reader);
    pipe::Receiver::from_owned_fd(reader.into())
}

fn sender(writer: io::PipeWriter) -> io::Result<PipeWriter> {
    enlarge(&writer);
    pipe::Sender::from_owned_fd(writer.into())
}

/// Fewer changes between the two processes. An account may have run out of room for large pipes.
fn enlarge(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_SIZE);
}

fn signal_named(name: &str) -> Option<Signal> {
    Some(match name {
        "ABRT" => Signal::ABORT,
        "ALRM" => Signal::ALARM,
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        "QUIT" => Signal::QUIT,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        "TSTP" => Signal::TSTP,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        _ => return None,
    })
}

fn exit_code(status: ExitStatus) -> ExitCode {
    ExitCode(
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
    )
}

/// Reads a pipe or file to its end, refusing more than `limit` bytes.
pub(crate) fn read_standard_input(limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "start message is too long",
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_program_could_misread_are_no_accounts() {
        for name in [
            "", "-r", "a b", "a:b", "../x", "0", "1000", "a\nb", "a\0b", "a,b",
        ] {
            assert!(!is_account_name(name), "{name:?}");
        }
        for name in [
            "ssm-user",
            "alice",
            "DOMAIN+alice",
            "alice@example.org",
            "a.b_c",
        ] {
            assert!(is_account_name(name), "{name:?}");
        }
    }

    #[test]
    fn root_is_found_and_nobody_of_that_name_is_not() {
        let root = find_account("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(find_account("no-such-account-here").unwrap(), None);
    }

    #[test]
    fn release_fields_lose_their_quotes() {
        let text = "PRETTY_NAME=\"Debian 12\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nID=debian\nEMPTY=\n";
        assert_eq!(
            release_field(text, "NAME").as_deref(),
            Some("Debian GNU/Linux")
        );
        assert_eq!(release_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(release_field(text, "EMPTY"), None);
        assert_eq!(release_field(text, "BUILD_ID"), None);
    }

    #[test]
    fn a_process_is_told_apart_from_a_later_one_of_the_same_number() {
        let this = this_process().unwrap();
        assert!(is_running(&this));
        assert!(!is_running(&ProcessId {
            start_time: this.start_time + 1,
            ..this.clone()
        }));
        assert!(!is_running(&ProcessId {
            boot_id: "another".to_owned(),
            ..this
        }));
    }

    #[test]
    fn private_files_are_replaced_whole_and_readable_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        create_private_directory(&inner).unwrap();
        let path = inner.join("key");
        for text in ["first", "second"] {
            write_private(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
    }

    #[test]
    fn the_sudo_rule_is_given_once_and_only_our_own_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let rule = directory.path().join(SUDOERS_FILE);
        withdraw_sudo(directory.path()).unwrap();
        allow_sudo(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(&rule).unwrap(), SUDOERS_TEXT);
        assert_eq!(fs::metadata(&rule).unwrap().mode() & 0o777, 0o440);
        withdraw_sudo(directory.path()).unwrap();
        assert!(!rule.exists());

        fs::write(&rule, "ssm-user ALL=(ALL) /usr/bin/apt\n").unwrap();
        allow_sudo(directory.path()).unwrap();
        assert!(withdraw_sudo(directory.path()).is_err());
        assert!(fs::read_to_string(&rule).unwrap().contains("apt"));
    }
}
