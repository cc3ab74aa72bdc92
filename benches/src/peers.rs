//! The peers: two private instances of OpenSSH's server on loopback, with keys and configuration of
//! their own. `jump` reaches the second through the first (`ssh -J`); `rev` reaches it over a reverse
//! tunnel that it holds to the first, the shape of our agent. Nothing of an installed ssh is used but
//! the programs.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::terminal::PROMPT;

const SSHD: &str = "/usr/sbin/sshd";
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that is ended with us, by its id.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it, its output going to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn();
        Ok(Self(
            child.with_context(|| format!("cannot run {command:?}"))?,
        ))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Asks it to end and waits for that; a process that does not is killed.
    pub(crate) fn stop(&mut self) -> Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        if self.has_ended()? {
            return Ok(());
        }
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let started = Instant::now();
        while !self.has_ended()? {
            if started.elapsed() > Duration::from_secs(30) {
                self.0.kill()?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Waits until `probe` answers, with a bound.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if started.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `program` in a mount namespace where the account's home is empty but for a prompt, so that
/// nobody's start-up files are measured. The process becomes the program.
pub(crate) fn with_light_home(program: &Path) -> Command {
    let script = "mount -t tmpfs none \"$HOME\" && printf '%s\\n' \"$1\" > \"$HOME/.profile\" \
                  && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(format!("PS1='{PROMPT}'"))
        .arg(program);
    command
}

/// The peers, running.
pub(crate) struct Peers {
    configuration: PathBuf,
    _servers: [Process; 2],
    _tunnel: Process,
}

/// Why there are none; `None` when there may be.
pub(crate) fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("private sshd instances need root");
    }
    let there = Path::new(SSHD).is_file() && Command::new("ssh").arg("-V").output().is_ok();
    (!there).then_some("it is not installed (Debian: apt-get install openssh-server)")
}

impl Peers {
    /// Starts them with everything in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        // Where sshd's unprivileged child is locked up.
        fs::create_dir_all("/run/sshd")?;
        for key in ["bastion", "target", "id"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key));
            if !keygen.status()?.success() {
                bail!("ssh-keygen failed");
            }
        }
        fs::copy(folder.join("id.pub"), folder.join("authorized_keys"))?;
        let (bastion, target, reverse) = (free_port()?, free_port()?, free_port()?);
        let configuration = folder.join("ssh_config");
        fs::write(
            &configuration,
            client_configuration(folder, bastion, target, reverse),
        )?;
        let mut known = String::new();
        for (name, port) in [
            ("bastion", bastion),
            ("target", target),
            ("target", reverse),
        ] {
            let key = fs::read_to_string(folder.join(name).with_extension("pub"))?;
            known.push_str(&format!("[127.0.0.1]:{port} {key}"));
        }
        fs::write(folder.join("known_hosts"), known)?;
        let servers = [
            serve(folder, "bastion", bastion)?,
            serve(folder, "target", target)?,
        ];
        let mut tunnel = Command::new("ssh");
        tunnel.arg("-F").arg(&configuration);
        tunnel.args([
            "-N",
            "-R",
            &format!("127.0.0.1:{reverse}:127.0.0.1:{target}"),
            "bastion",
        ]);
        let tunnel = Process::start(&mut tunnel, &folder.join("tunnel.log"))?;
        wait_for_port(reverse)?;
        Ok(Self {
            configuration,
            _servers: servers,
            _tunnel: tunnel,
        })
    }

    /// What opens a login shell on the host `jump` or `rev`.
    pub(crate) fn shell(&self, host: &str) -> Vec<String> {
        let file = self.configuration.to_string_lossy().into_owned();
        ["ssh", "-F", &file, "-tt", host]
            .map(str::to_owned)
            .to_vec()
    }
}

fn wait_for_port(port: u16) -> Result<()> {
    wait_for("a port of ssh", || {
        Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    })
}

fn serve(folder: &Path, name: &str, port: u16) -> Result<Process> {
    let shown = folder.display();
    let configuration = folder.join(format!("sshd_{name}"));
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/{name}\nPidFile none\n\
         AuthorizedKeysFile {shown}/authorized_keys\nStrictModes no\nPermitRootLogin yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\n\
         PrintMotd no\nPrintLastLog no\nMaxStartups 200:30:400\nMaxSessions 500\n"
    );
    fs::write(&configuration, text)?;
    let mut sshd = with_light_home(Path::new(SSHD));
    sshd.args(["-D", "-e", "-f"]).arg(&configuration);
    let process = Process::start(&mut sshd, &folder.join(format!("sshd_{name}.log")))?;
    wait_for_port(port)?;
    Ok(process)
}

fn client_configuration(folder: &Path, bastion: u16, target: u16, reverse: u16) -> String {
    let shown = folder.display();
    format!(
        "Host bastion\n  Port {bastion}\nHost jump rev\n  ProxyJump bastion\n\
         Host rev\n  Port {reverse}\nHost *\n  HostName 127.0.0.1\n  Port {target}\n  User root\n  \
         IdentityFile {shown}/id\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
         UserKnownHostsFile {shown}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
         StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n"
    )
}
