//! A server of ours as it is run in production, on loopback, with everything in a folder of its own;
//! and an agent registered with it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sortie_wire::sigv4::Credentials;

use crate::{
    api::{self, CallError, REGION, Signer, text_of},
    memory,
    peers::{Forward, Process, free_port, wait_for, with_light_home},
};

/// Environment variables of a program, by name.
pub(crate) type Variables = Vec<(String, String)>;

/// A running server.
pub(crate) struct Installation {
    programs: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    server: Option<Process>,
}

/// What nodes register with.
pub(crate) struct Activation {
    pub(crate) id: String,
    pub(crate) code: String,
}

impl Installation {
    /// Starts a server with everything in `folder`.
    pub(crate) fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let mut installation = Self {
            programs: programs.to_owned(),
            folder: folder.to_owned(),
            address: (Ipv4Addr::LOCALHOST, free_port()?).into(),
            server: None,
        };
        installation.launch()?;
        Ok(installation)
    }

    /// Starts the server, again where it was stopped, and waits until it says that it is ready.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let log = self.folder.join("server.log");
        let ready_before = count(&log, " ready");
        let mut command = Command::new(self.programs.join("sortie-server"));
        command
            .args([
                "serve",
                "--listen-tls",
                &self.address.to_string(),
                "--data-dir",
            ])
            .arg(self.folder.join("data"))
            .arg("--administrator-file")
            .arg(self.administrator_file());
        let mut server = Process::start(&mut command, &log)?;
        wait_for("the server", || {
            if server.has_ended()? {
                bail!(
                    "the server: {}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            Ok((count(&log, " ready") > ready_before).then_some(()))
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server as an operator would.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.stop())
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), Process::kill)
    }

    pub(crate) fn process_id(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("no server runs")?.id())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.join("data/tls/ca.pem")
    }

    fn administrator_file(&self) -> PathBuf {
        self.folder.join("administrator.json")
    }

    fn administrator(&self) -> Result<Credentials> {
        let file: Value = serde_json::from_slice(&fs::read(self.administrator_file())?)?;
        Ok(Credentials {
            access_key_id: text_of(&file, "access_key_id")?,
            secret_access_key: text_of(&file, "secret_access_key")?.into(),
            session_token: None,
        })
    }

    /// An operation of SSM, asked for by the administrator.
    pub(crate) fn call(&self, operation: &str, input: &Value) -> Result<Value> {
        let server = api::Server::new(self.address, &fs::read(self.ca_file())?)?;
        let administrator = self.administrator()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime
            .block_on(server.call(
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                operation,
                input,
                Signer::Credentials(&administrator),
            ))
            .map_err(CallError::into_error)
    }

    /// An activation for this many nodes, at most 1,000.
    pub(crate) fn activation(&self, nodes: u32) -> Result<Activation> {
        let input = json!({ "IamRole": "SortieNode", "RegistrationLimit": nodes });
        let answer = self.call("CreateActivation", &input)?;
        Ok(Activation {
            id: text_of(&answer, "ActivationId")?,
            code: text_of(&answer, "ActivationCode")?,
        })
    }

    /// Registers and starts an agent, and waits until its control channel is open.
    pub(crate) fn agent(&self) -> Result<Agent> {
        // A copy: the home that its sessions see is another, and the programs may be in ours.
        let program = self.folder.join("sortie-agent");
        fs::copy(self.programs.join("sortie-agent"), &program)?;
        let (activation, data_dir) = (self.activation(1)?, self.folder.join("agent"));
        let registered = Command::new(&program)
            .args([
                "register",
                "--endpoint",
                &format!("https://{}", self.address),
            ])
            .args([
                "--activation-id",
                &activation.id,
                "--activation-code",
                &activation.code,
            ])
            .arg("--ca-file")
            .arg(self.ca_file())
            .arg("--data-dir")
            .arg(&data_dir)
            .output()?;
        let said = String::from_utf8_lossy(&registered.stdout).into_owned();
        let Some(node_id) = said.trim().strip_prefix("registered as ") else {
            bail!("register: {}", String::from_utf8_lossy(&registered.stderr));
        };
        let log = self.folder.join("agent.log");
        let mut run = with_light_home(&program);
        run.args(["run", "--run-as-self", "--data-dir"])
            .arg(&data_dir);
        let process = Process::start(&mut run, &log)?;
        wait_for("the agent's control channel", || {
            Ok((count(&log, "the control channel is open") > 0).then_some(()))
        })?;
        Ok(Agent {
            process,
            node_id: node_id.to_owned(),
        })
    }

    /// `sortie` with these arguments, and the environment that it needs.
    pub(crate) fn client(&self, arguments: &[&str]) -> Result<(Vec<String>, Variables)> {
        let administrator = self.administrator()?;
        let program = self.programs.join("sortie").to_string_lossy().into_owned();
        let mut command = vec![program];
        command.extend(arguments.iter().copied().map(str::to_owned));
        let variables = [
            ("AWS_ENDPOINT_URL", format!("https://{}", self.address)),
            (
                "AWS_CA_BUNDLE",
                self.ca_file().to_string_lossy().into_owned(),
            ),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", administrator.access_key_id),
            (
                "AWS_SECRET_ACCESS_KEY",
                administrator.secret_access_key.expose().to_owned(),
            ),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Ok((command, variables.to_vec()))
    }

    /// What opens a login shell on a node, and its environment.
    pub(crate) fn shell(&self, node_id: &str) -> Result<(Vec<String>, Variables)> {
        self.client(&["start", node_id])
    }

    /// Opens a session that forwards a port of this machine to `port` of a node.
    pub(crate) fn forward(&self, node_id: &str, port: u16) -> Result<Forward> {
        let (command, variables) =
            self.client(&["forward", node_id, &format!("0:{port}"), "--json"])?;
        let (program, arguments) = command.split_first().context("no program")?;
        let log = tempfile::NamedTempFile::new_in(&self.folder)?;
        let mut command = Command::new(program);
        command.args(arguments).envs(variables);
        let mut process = Process::start(&mut command, log.path())?;
        let said = || fs::read_to_string(log.path()).unwrap_or_default();
        let address = wait_for("the forwarded port", || {
            ensure!(!process.has_ended()?, "sortie forward ended");
            Ok(listener_in(&said()))
        })
        .with_context(said)?;
        Ok(Forward {
            port: address.port(),
            processes: vec![process],
        })
    }
}

/// The address in the first line of JSON that is whole.
fn listener_in(said: &str) -> Option<SocketAddr> {
    let whole = said
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let mut lines = whole.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find_map(|line| line.get("listen")?.as_str()?.parse().ok())
}

/// A running agent, with its sessions' processes as its children.
pub(crate) struct Agent {
    process: Process,
    pub(crate) node_id: String,
}

impl Agent {
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }
}

/// Sessions outlive their agent, and wait for their server: what is left of them ends first.
impl Drop for Agent {
    fn drop(&mut self) {
        let workers = memory::children(self.process.id(), "session-worker");
        for worker in workers.unwrap_or_default() {
            if let Some(worker) = i32::try_from(worker).ok().and_then(Pid::from_raw) {
                // Most have ended meanwhile.
                let _ = kill_process(worker, Signal::TERM);
            }
        }
    }
}

fn count(log: &Path, words: &str) -> usize {
    fs::read_to_string(log)
        .unwrap_or_default()
        .matches(words)
        .count()
}
