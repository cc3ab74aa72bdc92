//! One client and one node with a server of their own between them: how each kind is started, and
//! what is written about a case.

pub(crate) mod commands;
pub(crate) mod ports;

use std::{
    env, fmt,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sortie_testkit::{
    Installation, Machine, Manner, Peer, Proxy, Setup, Talk, Terminal, announce, aws,
    can_make_machines, official_agent, official_plugin, program, skip, wait_for,
};

/// Where a server of its own has the port that a service domain means.
const SERVICE_ADDRESS: &str = "127.0.83.1:443";
const SERVICE_DOMAIN: &str = "sortie.test";

/// What a person types on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// The stock CLI with the official `session-manager-plugin`.
    OfficialPlugin,
    /// The stock CLI with `sortie` as its plugin.
    OurPlugin,
    /// `sortie start`.
    Sortie,
}

/// What runs the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// `amazon-ssm-agent`.
    OfficialAgent,
    /// `sortie-agent`.
    OurAgent,
}

/// The programs of a pairing, once all of them are there.
pub(crate) struct Station {
    client: Client,
    node: Node,
    aws: Peer,
    plugin: Option<Peer>,
    agent: Option<Peer>,
}

/// Finds the programs. `None`, with a word to the person who waits, when something is missing.
pub(crate) fn station(client: Client, node: Node) -> Result<Option<Station>> {
    if !can_make_machines() {
        announce("pairings make machines of Linux namespaces, which only root may");
        return Ok(None);
    }
    let Some(aws) = aws() else {
        return skip("the AWS CLI").map(|()| None);
    };
    let plugin = (client == Client::OfficialPlugin).then(official_plugin);
    let agent = (node == Node::OfficialAgent).then(official_agent);
    if matches!(plugin, Some(None)) || matches!(agent, Some(None)) {
        return Ok(None);
    }
    Ok(Some(Station {
        client,
        node,
        aws,
        plugin: plugin.flatten(),
        agent: agent.flatten(),
    }))
}

/// A shell that was opened.
pub(crate) struct Shell {
    pub(crate) terminal: Terminal,
    pub(crate) id: String,
}

/// A server, a node on a machine of its own, and networks that can be broken before each end.
pub(crate) struct Pairing {
    pub(crate) client: Client,
    pub(crate) node: Node,
    pub(crate) node_id: String,
    pub(crate) client_network: Proxy,
    pub(crate) node_network: Proxy,
    // The node ends before its server.
    machine: Option<Machine>,
    /// What runs on the machine while no session is open.
    idle_processes: usize,
    installation: Installation,
    station: Station,
    /// Where the client finds the server.
    endpoint: String,
    versions: Value,
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {:?}", self.client, self.node)
    }
}

impl Pairing {
    /// A server that ends idle sessions after a minute, and a node that reaches it by three
    /// endpoints in its settings file.
    pub(crate) fn begin(station: Station) -> Result<Self> {
        let installation = Installation::with_arguments(&[
            "--no-node",
            "--idle-timeout",
            "1m",
            "--log",
            "sortie_doors=debug,info",
        ])?;
        let mut pairing = Self::new(station, installation)?;
        let endpoint = format!("https://{}", pairing.node_network.address());
        let setup = Setup {
            settings: Some(
                json!({
                    "Ssm": {"Endpoint": endpoint},
                    "Mds": {"Endpoint": endpoint},
                    "Mgs": {"Endpoint": endpoint},
                })
                .to_string(),
            ),
            ..Setup::default()
        };
        pairing.enrol(setup, &endpoint)?;
        Ok(pairing)
    }

    /// The official agent with nothing but a domain in its settings file.
    pub(crate) fn by_service_domain(station: Station) -> Result<Self> {
        let hosts = ["ssm", "ssmmessages", "ec2messages"]
            .map(|service| format!("{service}.local-1.{SERVICE_DOMAIN}"));
        let installation = Installation::with_arguments(&[
            "--no-node",
            "--listen",
            "127.0.0.1:0",
            "--listen-tls",
            SERVICE_ADDRESS,
            "--service-domain",
            SERVICE_DOMAIN,
            "--tls-names",
            &hosts.join(","),
        ])?;
        let mut pairing = Self::new(station, installation)?;
        // Here the client speaks TLS too.
        pairing.endpoint = format!("https://{SERVICE_ADDRESS}");
        let address = SERVICE_ADDRESS.trim_end_matches(":443");
        let setup = Setup {
            settings: Some(json!({"Agent": {"ServiceDomain": SERVICE_DOMAIN}}).to_string()),
            hosts: format!("{address} {}\n", hosts.join(" ")),
            ..Setup::default()
        };
        pairing.enrol(setup, "")?;
        Ok(pairing)
    }

    fn new(station: Station, installation: Installation) -> Result<Self> {
        let client_network = Proxy::to_url(installation.fact("endpoint"))?;
        Ok(Self {
            client: station.client,
            node: station.node,
            node_id: String::new(),
            endpoint: format!("http://{}", client_network.address()),
            client_network,
            node_network: Proxy::to_url(installation.fact("https_endpoint"))?,
            machine: None,
            idle_processes: 0,
            installation,
            station,
            versions: Value::Null,
        })
    }

    fn folder(&self) -> PathBuf {
        self.installation.scratch().join("machine")
    }

    fn enrol(&mut self, mut setup: Setup, endpoint: &str) -> Result<()> {
        let activation = ["ssm", "create-activation", "--iam-role", "SortieNode"];
        let activation = self.aws(&activation)?;
        let word = |name: &str| activation[name].as_str().context("activation");
        let (id, code) = (word("ActivationId")?, word("ActivationCode")?);
        let command = match self.node {
            Node::OfficialAgent => {
                let agent = self.station.agent.as_deref().and_then(Path::parent);
                setup.programs = agent.map(Path::to_owned);
                let trust = self.installation.fact("ca_bundle_file").to_owned();
                let variable = |name: &str, value: String| (name.to_owned(), value);
                setup.variables = vec![
                    variable("SSL_CERT_FILE", trust),
                    variable("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
                ];
                let program = Machine::programs(&self.folder()).join("amazon-ssm-agent");
                let (program, region) = (program.display(), self.installation.fact("region"));
                format!(
                    "{program} -register -y -id {id} -code {code} -region {region} && \
                     while :; do {program}; done"
                )
            }
            Node::OurAgent => {
                let (program, trust) =
                    (program("sortie-agent")?, self.installation.fact("ca_file"));
                let (program, data) = (program.display(), self.folder().join("data"));
                let data = data.display();
                format!(
                    "{program} register --endpoint {endpoint} --activation-id {id} \
                     --activation-code {code} --ca-file {trust} --data-dir {data} && \
                     while :; do {program} run --data-dir {data}; done"
                )
            }
        };
        self.machine = Some(Machine::start(&self.folder(), &setup, &command)?);
        self.until_online().with_context(|| self.logs())?;
        self.versions = self.versions()?;
        Ok(())
    }

    /// Waits until the node is connected.
    pub(crate) fn until_online(&mut self) -> Result<()> {
        self.node_id = wait_for("the node to be online", || {
            let listed = self.aws(&["ssm", "describe-instance-information"])?;
            let node = &listed["InstanceInformationList"][0];
            let Some(id) = node["InstanceId"].as_str() else {
                return Ok(None);
            };
            let status = self.aws(&["ssm", "get-connection-status", "--target", id])?;
            let connected = status["Status"] == "connected" && node["AgentVersion"].is_string();
            Ok(connected.then(|| id.to_owned()))
        })?;
        if self.idle_processes == 0 {
            self.idle_processes = self.processes()?.len();
        }
        Ok(())
    }

    fn processes(&self) -> Result<Vec<String>> {
        self.machine.as_ref().context("no machine")?.processes()
    }

    /// Waits until the machine has no process of a session any more.
    pub(crate) fn node_is_clean(&self) -> Result<()> {
        let mut left = Vec::new();
        wait_for("the session's processes to end", || {
            left = self.processes()?;
            Ok((left.len() <= self.idle_processes).then_some(()))
        })
        .with_context(|| format!("on the node run: {left:#?}"))
    }

    /// Calls the server past the breakable networks.
    pub(crate) fn aws(&self, arguments: &[&str]) -> Result<Value> {
        self.installation.aws(&self.station.aws, arguments)
    }

    /// The sessions of this state, `Active` or `History`.
    pub(crate) fn sessions(&self, state: &str) -> Result<Vec<Value>> {
        let answer = self.aws(&["ssm", "describe-sessions", "--state", state])?;
        let sessions = answer["Sessions"].as_array();
        Ok(sessions.cloned().unwrap_or_default())
    }

    /// The only session that is open.
    pub(crate) fn only_session(&self) -> Result<String> {
        let sessions = self.sessions("Active")?;
        let id = sessions
            .first()
            .and_then(|session| session["SessionId"].as_str());
        Ok(id.context("no session is open")?.to_owned())
    }

    /// Waits until the session stands in the history, ended in the ordinary way.
    pub(crate) fn is_over(&self, session_id: &str) -> Result<()> {
        let session = wait_for("the session in the history", || {
            let sessions = self.sessions("History")?;
            let mine = |session: &&Value| session["SessionId"] == session_id;
            let session = sessions.iter().find(mine);
            let is_over = |session: &&Value| {
                matches!(session["Status"].as_str(), Some("Terminated" | "Failed"))
            };
            Ok(session.filter(is_over).cloned())
        })?;
        ensure!(session["Status"] == "Terminated", "it ended as {session}");
        Ok(())
    }

    /// Opens a shell and waits until the server knows of both ends.
    pub(crate) fn open(&self) -> Result<Shell> {
        let terminal = Terminal::open(&self.client_command()?, 100, 30)?;
        let id = wait_for("the session to be connected", || {
            let sessions = self.sessions("Active")?;
            let open = sessions
                .iter()
                .find(|session| session["Status"] == "Connected");
            Ok(open.and_then(|session| session["SessionId"].as_str().map(str::to_owned)))
        })
        .with_context(|| format!("the terminal shows:\n{}", terminal.shown()))?;
        Ok(Shell { terminal, id })
    }

    /// The same with a program in it whose every byte is compared.
    pub(crate) fn talk(&self) -> Result<Talk> {
        let manner = Manner {
            has_official_client: self.client == Client::OfficialPlugin,
            has_official_node: self.node == Node::OfficialAgent,
        };
        let command = self.client_command()?;
        // What our client remarks is none of those bytes.
        let mut aside = self.installation.command("sh")?;
        aside
            .args(["-c", "exec \"$@\" 2>remarks", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            aside.env(name, value.unwrap_or_default());
        }
        Talk::open(&aside, &manner)
    }

    /// The agent's process.
    fn agent(&self) -> Result<Option<u32>> {
        let end = match self.node {
            Node::OfficialAgent => "/amazon-ssm-agent".to_owned(),
            Node::OurAgent => format!("run --data-dir {}", self.folder().join("data").display()),
        };
        let running = self.machine.as_ref().context("no machine")?.running()?;
        let is_agent = |line: &String| line.ends_with(&end) && !line.starts_with("sh ");
        Ok(running
            .into_iter()
            .find_map(|(id, line)| is_agent(&line).then_some(id)))
    }

    /// Ends the agent's own process as its service manager does, and lets it start again.
    pub(crate) fn restart_agent(&mut self) -> Result<()> {
        let before = self.agent()?.context("no agent runs")?;
        let process = i32::try_from(before).ok().and_then(Pid::from_raw);
        kill_process(process.context("no process id")?, Signal::TERM)?;
        wait_for("the agent to be there again", || {
            Ok(self.agent()?.filter(|after| *after != before))
        })?;
        self.until_online()
    }

    fn client_command(&self) -> Result<Command> {
        let command = match self.client {
            Client::Sortie => {
                let mut command = self.installation.command("sortie")?;
                command.args(["start", &self.node_id]);
                command
            }
            Client::OurPlugin | Client::OfficialPlugin => self.start_session()?,
        };
        self.past_the_network(command)
    }

    /// `sortie exec` with these options.
    pub(crate) fn exec(&self, options: &[&str], words: &[&str]) -> Result<Command> {
        let mut command = self.installation.command("sortie")?;
        command.arg("exec").args(options);
        command.arg(&self.node_id).arg("--").args(words);
        self.past_the_network(command)
    }

    /// `sortie forward` of these, for scripts.
    pub(crate) fn forward(&self, specs: &[&str]) -> Result<Command> {
        let mut command = self.installation.command("sortie")?;
        command.args(["forward", "--json", &self.node_id]);
        command.args(specs);
        self.past_the_network(command)
    }

    /// `sortie ssh` with these options and what goes behind the node.
    pub(crate) fn ssh(&self, options: &[&str], rest: &str) -> Result<Command> {
        let mut command = self.installation.command("sortie")?;
        command.arg("ssh").args(options);
        command.args([&self.node_id, rest]);
        self.past_the_network(command)
    }

    /// The stock CLI with a session document; parameters as JSON.
    pub(crate) fn document(&self, name: &str, parameters: &Value) -> Result<Command> {
        let mut command = self.start_session()?;
        let parameters = parameters.to_string();
        command.args(["--document-name", name, "--parameters", &parameters]);
        self.past_the_network(command)
    }

    /// With the client's breakable network between it and the server, and its plugin in `PATH`.
    fn past_the_network(&self, mut command: Command) -> Result<Command> {
        command.env("AWS_ENDPOINT_URL", &self.endpoint);
        let folder = self.station.plugin.as_deref().and_then(Path::parent);
        if let Some(folder) = folder {
            let path = self.installation.environment()?.remove("PATH");
            let path = path.unwrap_or_default();
            command.env("PATH", format!("{}:{path}", folder.display()));
        }
        Ok(command)
    }

    fn start_session(&self) -> Result<Command> {
        let mut command = self.installation.command(&self.station.aws)?;
        let trust = self.installation.fact("ca_bundle_file");
        command
            .args(["ssm", "start-session", "--target", &self.node_id])
            .env("AWS_CA_BUNDLE", trust)
            .env("SSL_CERT_FILE", trust);
        Ok(command)
    }

    /// The CLI where no plugin is installed.
    pub(crate) fn command_without_plugin(&self) -> Result<Command> {
        let empty = self.installation.scratch().join("empty");
        fs::create_dir_all(&empty)?;
        let mut command = self.start_session()?;
        command.env("PATH", empty);
        Ok(command)
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.installation.kill()
    }

    /// Starts the server again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.installation.restart()
    }

    /// How many calls the server has refused because of who made them.
    pub(crate) fn refusals(&self) -> usize {
        self.installation.log().matches("not authenticated").count()
    }

    /// What server and node have logged.
    pub(crate) fn logs(&self) -> String {
        let node = self.machine.as_ref().map(Machine::log).unwrap_or_default();
        let server = self.installation.log();
        format!("the server's log:\n{server}\nthe node's log:\n{node}")
    }

    fn versions(&self) -> Result<Value> {
        let ours = |name: &str| version(&mut Command::new(program(name)?), "--version");
        let client = match (&self.station.plugin, self.client) {
            (Some(plugin), _) => {
                let found = version(&mut Command::new(plugin), "--version")?;
                format!("session-manager-plugin {found}")
            }
            (None, _) => ours("sortie")?,
        };
        let agent = match &self.station.agent {
            Some(_) => self.agent_version()?,
            None => ours("sortie-agent")?,
        };
        let cli = version(&mut Command::new(&self.station.aws), "--version")?;
        let cli = cli.split(' ').next().unwrap_or_default().replace('/', " ");
        Ok(json!({"client": client, "node": agent, "cli": cli}))
    }

    /// What the agent says about itself in its heartbeats.
    fn agent_version(&self) -> Result<String> {
        let listed = self.aws(&["ssm", "describe-instance-information"])?;
        let version = listed["InstanceInformationList"][0]["AgentVersion"].as_str();
        Ok(format!(
            "amazon-ssm-agent {}",
            version.context("AgentVersion")?
        ))
    }
}

fn version(command: &mut Command, flag: &str) -> Result<String> {
    let output = command.arg(flag).output()?;
    if !output.status.success() {
        bail!("{command:?}: {output:?}");
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Writes down how a case went, where somebody wants to know.
pub(crate) fn report(pairing: &Pairing, case: &str, good: &str, tried: &Result<()>) -> Result<()> {
    let Some(path) = env::var_os("SORTIE_PEERS_REPORT") else {
        return Ok(());
    };
    let (result, detail) = match tried {
        Ok(()) => (good, String::new()),
        Err(error) => ("fails", format!("{error:#}")),
    };
    let line = json!({
        "client": match pairing.client {
            Client::OfficialPlugin => "session-manager-plugin",
            Client::OurPlugin => "sortie as plugin",
            Client::Sortie => "sortie start",
        },
        "node": match pairing.node {
            Node::OfficialAgent => "amazon-ssm-agent",
            Node::OurAgent => "sortie-agent",
        },
        "case": case,
        "result": result,
        "detail": detail,
        "versions": pairing.versions,
    });
    let mut file = File::options().create(true).append(true).open(path)?;
    // In one write: other pairings write into the same file.
    file.write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}
