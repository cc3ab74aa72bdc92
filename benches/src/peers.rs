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

/// The cipher of what moves much.
const GCM: &str = "Ciphers aes128-gcm@openssh.com";
const SSHD: &str = "/usr/sbin/sshd";
/// What the target's key is known as, whichever way leads to it.
const ALIAS: &str = "the-target";
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
    folder: PathBuf,
    configuration: PathBuf,
    /// The target's own port.
    target: u16,
    servers: [Process; 2],
    _tunnel: Process,
}

/// A port of this machine whose connections come out elsewhere, while this lives.
pub(crate) struct Forward {
    pub(crate) port: u16,
    /// What was started for it alone; the client comes last.
    pub(crate) processes: Vec<Process>,
}

impl Forward {
    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }
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
        let key = fs::read_to_string(folder.join("target.pub"))?;
        known.push_str(&format!("{ALIAS} {key}"));
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
            folder: folder.to_owned(),
            configuration,
            target,
            servers,
            _tunnel: tunnel,
        })
    }

    /// What runs a program through the first host or over the reverse tunnel.
    pub(crate) fn command(&self, host: &str, words: &[&str]) -> Vec<String> {
        let file = self.configuration.to_string_lossy().into_owned();
        let mut command = ["ssh", "-F", &file, host].map(str::to_owned).to_vec();
        command.extend(words.iter().copied().map(str::to_owned));
        command
    }

    /// The configuration of `ssh`, which other programs of OpenSSH take, too.
    pub(crate) fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// A configuration that reaches the target by other means, which `block` tells.
    pub(crate) fn configuration_with(&self, block: &str) -> Result<PathBuf> {
        let file = self.folder.join("other_ssh_config");
        let (target, identity) = (self.target, identity(&self.folder));
        let text = format!(
            "{block}\nHost *\n  Port {target}\n  HostKeyAlias {ALIAS}\n  {GCM}\n{identity}"
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    /// The servers' processes, of which all others of theirs descend.
    pub(crate) fn server_ids(&self) -> Vec<u32> {
        self.servers.iter().map(Process::id).collect()
    }

    /// Forwards a port to one of the target's by `ssh -J … -L`, with AES-128-GCM on both hops.
    pub(crate) fn forward_by_jump(&self, to: u16) -> Result<Forward> {
        let port = free_port()?;
        let client = self.hold("-L", port, to, "jump-gcm")?;
        Ok(Forward {
            port,
            processes: vec![client],
        })
    }

    /// The same over a reverse tunnel: the target holds `ssh -R` to the first host, and the client
    /// has `ssh -L` to it; both with AES-128-GCM.
    pub(crate) fn forward_by_reverse_tunnel(&self, to: u16) -> Result<Forward> {
        let (port, between) = (free_port()?, free_port()?);
        let node = self.hold("-R", between, to, "bastion-gcm")?;
        let client = self.hold("-L", port, between, "bastion-gcm")?;
        Ok(Forward {
            port,
            processes: vec![node, client],
        })
    }

    /// An ssh that does nothing but forward, once its port is open.
    fn hold(&self, option: &str, port: u16, to: u16, host: &str) -> Result<Process> {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.configuration).args([
            "-N",
            option,
            &format!("127.0.0.1:{port}:127.0.0.1:{to}"),
            host,
        ]);
        let process = Process::start(&mut ssh, &self.folder.join("forward.log"))?;
        wait_for_port(port)?;
        Ok(process)
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
         PrintMotd no\nPrintLastLog no\nMaxStartups 200:30:400\nMaxSessions 500\n\
         Subsystem sftp internal-sftp\n"
    );
    fs::write(&configuration, text)?;
    let mut sshd = with_light_home(Path::new(SSHD));
    sshd.args(["-D", "-e", "-f"]).arg(&configuration);
    let process = Process::start(&mut sshd, &folder.join(format!("sshd_{name}.log")))?;
    wait_for_port(port)?;
    Ok(process)
}

fn client_configuration(folder: &Path, bastion: u16, target: u16, reverse: u16) -> String {
    let identity = identity(folder);
    format!(
        "Host bastion bastion-gcm\n  Port {bastion}\nHost jump rev\n  ProxyJump bastion\n\
         Host jump-gcm rev-gcm\n  ProxyJump bastion-gcm\nHost *-gcm\n  {GCM}\n\
         Host rev rev-gcm\n  Port {reverse}\nHost *\n  HostName 127.0.0.1\n  Port {target}\n{identity}"
    )
}

/// Who we are and whom we know, for any host.
fn identity(folder: &Path) -> String {
    let shown = folder.display();
    format!(
        "  User root\n  IdentityFile {shown}/id\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
         UserKnownHostsFile {shown}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
         StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n"
    )
}
