//! A server, a node and a client in processes of their own, as these tests need them: any kind of
//! node, any kind of client.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sortie_testkit::{
    Agent, Installation, Machine, PATIENCE, Peer, Setup, Terminal, announce, aws,
    can_make_machines, official_agent, official_plugin, program, skip, wait_for,
};

/// What a person types on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// `sortie start`.
    Sortie,
    /// The stock CLI with `sortie` as its plugin.
    OurPlugin,
    /// The stock CLI with the official `session-manager-plugin`.
    OfficialPlugin,
}

/// What runs the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// `sortie-agent`.
    OurAgent,
    /// `amazon-ssm-agent`.
    OfficialAgent,
}

/// A server and its one node.
pub(crate) struct Story {
    // Dropped in this order: the node ends before its server.
    node: Option<Agent>,
    machine: Option<Machine>,
    pub(crate) installation: Installation,
    pub(crate) node_id: String,
    aws: Peer,
}

impl Story {
    /// `None`, with a word to the person who waits, where a program is missing.
    pub(crate) fn begin(node: Node) -> Result<Option<Self>> {
        let Some(mut story) = Self::without_node()? else {
            return Ok(None);
        };
        let endpoint = story.installation.fact("https_endpoint").to_owned();
        let is_there = match node {
            Node::OurAgent => story.enrol_ours(&endpoint)?,
            Node::OfficialAgent => story.enrol_official(&endpoint)?,
        };
        Ok(is_there.then_some(story))
    }

    /// A server that waits for a node.
    pub(crate) fn without_node() -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        Ok(Some(Self {
            node: None,
            machine: None,
            installation: Installation::with_arguments(&["--no-node"])?,
            node_id: String::new(),
            aws,
        }))
    }

    fn activation(&self) -> Result<(String, String)> {
        let activation = ["ssm", "create-activation", "--iam-role", "SortieNode"];
        let activation = self.installation.aws(&self.aws, &activation)?;
        let word = |name: &str| {
            let word = activation[name].as_str().map(str::to_owned);
            word.context("no activation")
        };
        Ok((word("ActivationId")?, word("ActivationCode")?))
    }

    /// Our agent, which runs sessions as whoever runs the test.
    pub(crate) fn enrol_ours(&mut self, endpoint: &str) -> Result<bool> {
        let (id, code) = self.activation()?;
        let folder = self.scratch("node");
        let output = Command::new(program("sortie-agent")?)
            .args(["register", "--no-sudo", "--endpoint", endpoint])
            .args(["--ca-file", self.installation.fact("ca_file")])
            .args(["--activation-id", &id, "--activation-code", &code])
            .arg("--data-dir")
            .arg(&folder)
            .output()?;
        ensure!(output.status.success(), "register: {output:?}");
        let mut command = Command::new(program("sortie-agent")?);
        command.args(["run", "--run-as-self", "--data-dir"]);
        command.arg(&folder);
        self.node = Some(Agent::spawn(&mut command, self.scratch("agent.log"))?);
        self.until_online()?;
        Ok(true)
    }

    fn enrol_official(&mut self, endpoint: &str) -> Result<bool> {
        if !can_make_machines() {
            announce(
                "the official agent needs a machine of Linux namespaces, which only root may make",
            );
            return Ok(false);
        }
        let Some(agent) = official_agent() else {
            return Ok(false);
        };
        let (id, code) = self.activation()?;
        let settings = json!({
            "Ssm": {"Endpoint": endpoint},
            "Mds": {"Endpoint": endpoint},
            "Mgs": {"Endpoint": endpoint},
        });
        let trust = self.installation.fact("ca_bundle_file").to_owned();
        let variable = |name: &str, value: String| (name.to_owned(), value);
        let setup = Setup {
            programs: agent.parent().map(Path::to_owned),
            settings: Some(settings.to_string()),
            variables: vec![
                variable("SSL_CERT_FILE", trust),
                variable("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ],
            ..Setup::default()
        };
        let folder = self.scratch("machine");
        let program = Machine::programs(&folder).join("amazon-ssm-agent");
        let (program, region) = (program.display(), self.installation.fact("region"));
        let command = format!(
            "{program} -register -y -id {id} -code {code} -region {region} && exec {program}"
        );
        self.machine = Some(Machine::start(&folder, &setup, &command)?);
        self.until_online()?;
        Ok(true)
    }

    fn until_online(&mut self) -> Result<()> {
        let online = wait_for("the node to be online", || {
            let ask = ["ssm", "describe-instance-information"];
            let listed = self.installation.aws(&self.aws, &ask)?;
            let node = &listed["InstanceInformationList"][0];
            let Some(id) = node["InstanceId"].as_str() else {
                return Ok(None);
            };
            let ask = ["ssm", "get-connection-status", "--target", id];
            let status = self.installation.aws(&self.aws, &ask)?;
            Ok((status["Status"] == "connected").then(|| id.to_owned()))
        });
        self.node_id = online.with_context(|| self.logs())?;
        Ok(())
    }

    /// A place for a file of the test.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.installation.scratch().join(name)
    }

    /// The command that opens a shell. `None` where the program is missing.
    pub(crate) fn client(&self, client: Client) -> Result<Option<Command>> {
        if client == Client::Sortie {
            let mut command = self.installation.command("sortie")?;
            command.args(["start", &self.node_id]);
            return Ok(Some(command));
        }
        let mut command = self.installation.command("sh")?;
        // The official plugin leaves Ctrl-C to its terminal, which then throws away what it shows.
        command
            .args(["-c", "stty noflsh; exec \"$@\"", "sh"])
            .arg(&self.aws);
        command.args(["ssm", "start-session", "--target", &self.node_id]);
        if client == Client::OfficialPlugin {
            let Some(plugin) = official_plugin() else {
                return Ok(None);
            };
            let folder = plugin.parent().context("the plugin is in no folder")?;
            let path = self.installation.environment()?.remove("PATH");
            let path = format!("{}:{}", folder.display(), path.unwrap_or_default());
            command.env("PATH", path);
        }
        Ok(Some(command))
    }

    /// A shell that has answered.
    pub(crate) fn open(&self, client: Client) -> Result<Option<Terminal>> {
        let Some(command) = self.client(client)? else {
            return Ok(None);
        };
        let mut terminal = Terminal::open(&command, 200, 50)?;
        // What is typed before the prompt may be thrown away when the client makes its terminal raw.
        let begun = Instant::now();
        while !terminal.shown().contains(['#', '$']) {
            terminal.take(Duration::from_millis(100))?;
            ensure!(begun.elapsed() < PATIENCE, "no prompt: {}", self.logs());
        }
        terminal.line("echo he\"\"re")?;
        terminal.until("here").with_context(|| self.logs())?;
        Ok(Some(terminal))
    }

    /// How many sessions are open.
    pub(crate) fn open_sessions(&self) -> Result<usize> {
        let ask = ["ssm", "describe-sessions", "--state", "Active"];
        let listed = self.installation.aws(&self.aws, &ask)?;
        Ok(listed["Sessions"].as_array().map_or(0, Vec::len))
    }

    /// What the session in the history ended with.
    pub(crate) fn ended(&self) -> Result<Value> {
        wait_for("the session in the history", || {
            let ask = ["ssm", "describe-sessions", "--state", "History"];
            let listed = self.installation.aws(&self.aws, &ask)?;
            let session = listed["Sessions"][0].clone();
            let status = session["Status"].as_str().unwrap_or_default();
            Ok(matches!(status, "Terminated" | "Failed").then_some(session))
        })
        .with_context(|| self.logs())
    }

    /// The server's process.
    pub(crate) fn server(&self) -> Result<u32> {
        self.installation.process_id().context("no server")
    }

    /// The process that everything on the node descends from.
    pub(crate) fn on_node(&self) -> Result<u32> {
        let machine = self.machine.as_ref().map(Machine::process_id);
        let process = self.node.as_ref().map(Agent::process_id).or(machine);
        process.context("no node")
    }

    /// What server and node have logged.
    pub(crate) fn logs(&self) -> String {
        let agent = self.node.as_ref().map(Agent::log);
        let machine = self.machine.as_ref().map(Machine::log);
        let node = agent.or(machine).unwrap_or_default();
        format!(
            "the server's log:\n{}\nthe node's log:\n{node}",
            self.installation.log()
        )
    }

    /// Writes a script that floods the terminal with what `program` writes, between two marks. No
    /// byte of it is changed or thrown away by the node's terminal.
    pub(crate) fn flood(&self, name: &str, program: &str) -> Result<String> {
        let path = self.scratch(name);
        let text = format!(
            "stty -echo -opost noflsh\n\
             trap : INT\n\
             printf 'BE''GIN\\n'\n\
             {program}\n\
             printf '\\nOV''ER\\n'\n\
             stty echo opost -noflsh\n"
        );
        fs::write(&path, text)?;
        Ok(format!("sh {}", path.display()))
    }
}
