//! An installation in processes of its own: the server as a developer or an operator starts it, and
//! agents beside it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::wait_for;

/// One of our programs, as the build that runs the tests has made it.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    // Test programs are in `<profile>/deps`, the programs they test beside that folder.
    let test = std::env::current_exe()?;
    let folder = test
        .parent()
        .and_then(Path::parent)
        .context("the test program is nowhere")?;
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built: run `cargo build --workspace` first",
            path.display()
        );
    }
    Ok(path)
}

/// A process that is told to end, and waited for, when it goes out of scope.
struct Process {
    child: Child,
}

impl Process {
    fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("the process has no id")?, signal)?;
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.signal(signal)?;
        }
        let child = &mut self.child;
        wait_for("a process to end", || Ok(child.try_wait()?))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end(Signal::TERM).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// `sortie-server dev` in a folder of its own.
pub struct Installation {
    server: Option<Process>,
    folder: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    facts: Value,
}

impl Installation {
    /// Starts a server with this machine as its node, and waits until the node is online.
    ///
    /// # Errors
    /// With the server's log when it does not come up.
    pub fn start() -> Result<Self> {
        Self::with_arguments(&[])
    }

    /// The same with further arguments for `sortie-server dev`.
    ///
    /// # Errors
    /// With the server's log when it does not come up.
    pub fn with_arguments(arguments: &[&str]) -> Result<Self> {
        Self::with(arguments, &[])
    }

    /// The same with settings as variables of the server's environment.
    ///
    /// # Errors
    /// With the server's log when it does not come up.
    pub fn with_variables(variables: &[(&str, &str)]) -> Result<Self> {
        Self::with(&[], variables)
    }

    fn with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        let mut installation = Self {
            server: None,
            folder: TempDir::new()?,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            variables: variables.iter().map(owned).collect(),
            facts: Value::Null,
        };
        installation.launch()?;
        Ok(installation)
    }

    fn launch(&mut self) -> Result<()> {
        let data = self.data_dir();
        // What an earlier server wrote must not be taken for news.
        let _ = fs::remove_file(data.join("dev.json"));
        let mut command = Command::new(program("sortie-server")?);
        command.arg("dev").arg("--data-dir").arg(&data);
        if !self.arguments.iter().any(|argument| argument == "--listen") {
            command.args(["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"]);
        }
        command
            .args(&self.arguments)
            .envs(self.variables.iter().cloned());
        let mut server = Process::spawn(&mut command, &self.log_file())?;
        let ready = wait_for("dev.json of the server", || {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended: {status}");
            }
            let text = fs::read_to_string(data.join("dev.json")).unwrap_or_default();
            Ok(serde_json::from_str(&text).ok())
        });
        self.facts = ready.with_context(|| format!("the server's log:\n{}", self.log()))?;
        self.server = Some(server);
        Ok(())
    }

    /// Starts the server again in the same folder, after [`Installation::stop`] or
    /// [`Installation::kill`].
    ///
    /// # Errors
    /// With the server's log when it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()
    }

    /// Ends the server as an operator would.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.end(Signal::TERM))
    }

    /// Ends the server as a crash would.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.end(Signal::KILL))
    }

    /// The server's process, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.child.id())
    }

    /// The folder that everything is in.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// A fact of `dev.json`, such as `endpoint` or `node_id`.
    #[must_use]
    pub fn fact(&self, name: &str) -> &str {
        self.facts
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The variables of a shell in which `dev.env` was sourced, and nothing else but a `PATH` and a
    /// home without AWS files.
    ///
    /// # Errors
    /// When the file cannot be sourced.
    pub fn environment(&self) -> Result<BTreeMap<String, String>> {
        let mut shell = Command::new("sh");
        shell
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // What a developer's shell may have and `dev.env` must get rid of.
        shell
            .env("AWS_PROFILE", "somebody")
            .env("AWS_SESSION_TOKEN", "stale");
        shell
            .env("HOME", self.folder.path())
            .args(["-c", ". \"$1\" && env -0", "sh"]);
        let output = shell.arg(self.data_dir().join("dev.env")).output()?;
        if !output.status.success() {
            bail!("dev.env: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8(output.stdout)?;
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    /// A program in the environment of [`Installation::environment`].
    ///
    /// # Errors
    /// When the environment cannot be made.
    pub fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .envs(self.environment()?)
            .current_dir(self.folder.path());
        Ok(command)
    }

    /// Runs the AWS CLI and reads its JSON answer.
    ///
    /// # Errors
    /// With what the CLI said when it fails.
    pub fn aws(&self, aws: &Path, arguments: &[&str]) -> Result<Value> {
        let output = self
            .command(aws)?
            .args(arguments)
            .args(["--output", "json"])
            .output()?;
        json_of(arguments, &output)
    }
}

impl Installation {
    /// Registers another agent on this machine with an activation, as `create-activation` answered, and
    /// runs it with these options. Its folder and log are `name` in the test's own folder. The node's id
    /// and the agent.
    ///
    /// # Errors
    /// When it cannot be registered or started.
    pub fn enrol(
        &self,
        activation: &Value,
        name: &str,
        options: &[&str],
    ) -> Result<(String, Agent)> {
        let word = |name: &str| activation[name].as_str().context("no activation");
        let folder = self.scratch().join(name);
        let output = Command::new(program("sortie-agent")?)
            .args(["register", "--no-sudo"])
            .args(["--endpoint", self.fact("https_endpoint")])
            .args(["--ca-file", self.fact("ca_file")])
            .args(["--activation-id", word("ActivationId")?])
            .args(["--activation-code", word("ActivationCode")?])
            .arg("--data-dir")
            .arg(&folder)
            .output()?;
        if !output.status.success() {
            bail!("register: {output:?}");
        }
        let registration = fs::read(folder.join("registration.json"))?;
        let registration: Value = serde_json::from_slice(&registration)?;
        let node_id = registration["node_id"].as_str().context("no node id")?;
        let mut run = Command::new(program("sortie-agent")?);
        run.arg("run").args(options).arg("--data-dir").arg(&folder);
        let agent = Agent::spawn(&mut run, self.scratch().join(format!("{name}.log")))?;
        Ok((node_id.to_owned(), agent))
    }
}

fn json_of(arguments: &[&str], output: &Output) -> Result<Value> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{arguments:?}: {}: {said}", output.status);
    }
    if output.stdout.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout).context("the answer is not JSON")
}

/// `sortie-server serve` or any other program of ours that runs until it is told to end.
pub struct Server {
    process: Process,
    log: PathBuf,
}

impl Server {
    /// Starts `command`, its output going to `log`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(command: &mut Command, log: impl Into<PathBuf>) -> Result<Self> {
        let log = log.into();
        Ok(Self {
            process: Process::spawn(command, &log)?,
            log,
        })
    }

    /// What it has written to stdout and stderr.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.child.id()
    }

    /// Whether it is still running.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.child.try_wait()?.is_none())
    }

    /// Tells it to end and waits for that.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<()> {
        self.process.end(Signal::TERM)
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(mut self) -> Result<()> {
        self.process.end(Signal::KILL)
    }
}

/// An agent in a process of its own.
pub type Agent = Server;
