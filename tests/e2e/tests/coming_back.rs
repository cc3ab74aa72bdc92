//! A session while everything around it breaks: websockets cut, the server killed, the agent
//! restarted, each in a process of its own. What is typed and what comes back is compared byte by
//! byte. Networks break in proxies between the client and the server and between the node and the
//! server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use sortie_testkit::{
    Agent, Installation, Manner, Proxy, Server, Talk, Terminal, aws, official_plugin, program,
    skip, wait_for,
};

/// A server, a node and the breakable networks of both sides.
struct Story {
    // Dropped in this order: nobody waits for a server that is gone.
    node: Option<Agent>,
    installation: Installation,
    node_network: Proxy,
    client_network: Proxy,
    node_id: String,
    /// `serve` on the same state and port in place of `dev`.
    served: Option<Server>,
    /// Where the node is, if not here.
    elsewhere: Option<Place>,
}

impl Story {
    /// Enrols a node of its own through its own network. `None` without the AWS CLI, which makes
    /// the activation.
    fn begin() -> Result<Option<Self>> {
        Self::begin_with(None)
    }

    fn begin_with(elsewhere: Option<Place>) -> Result<Option<Self>> {
        let Some(aws) = aws() else {
            return skip("the AWS CLI").map(|()| None);
        };
        let listen = match &elsewhere {
            Some(_) => Place::address(1),
            None => "127.0.0.1".to_owned(),
        };
        let installation = Installation::with_arguments(&[
            "--no-node",
            "--listen",
            "127.0.0.1:0",
            "--listen-tls",
            &format!("{listen}:0"),
        ])?;
        let node_network = Proxy::to_url(installation.fact("https_endpoint"))?;
        let client_network = Proxy::to_url(installation.fact("endpoint"))?;
        let mut story = Self {
            node: None,
            installation,
            node_network,
            client_network,
            node_id: String::new(),
            served: None,
            elsewhere,
        };
        story.enrol(&aws)?;
        story.start_node()?;
        story.wait_for_node(&aws)?;
        Ok(Some(story))
    }

    fn enrol(&mut self, aws: &Path) -> Result<()> {
        let activation = ["ssm", "create-activation", "--iam-role", "SortieNode"];
        let activation = self.installation.aws(aws, &activation)?;
        let word = |name: &str| activation[name].as_str().context("activation");
        let endpoint = match &self.elsewhere {
            Some(_) => self.installation.fact("https_endpoint").to_owned(),
            None => format!("https://{}", self.node_network.address()),
        };
        let output = self
            .on_node("sortie-agent")?
            .args(["register", "--no-sudo", "--endpoint", &endpoint])
            .args(["--ca-file", self.installation.fact("ca_file")])
            .args(["--activation-id", word("ActivationId")?])
            .args(["--activation-code", word("ActivationCode")?])
            .arg("--data-dir")
            .arg(self.node_dir())
            .output()?;
        ensure!(output.status.success(), "register: {output:?}");
        let registration = fs::read(self.node_dir().join("registration.json"))?;
        let registration: Value = serde_json::from_slice(&registration)?;
        let id = registration["node_id"].as_str();
        self.node_id = id.context("no node id")?.to_owned();
        Ok(())
    }

    fn node_dir(&self) -> PathBuf {
        self.installation.scratch().join("node")
    }

    fn on_node(&self, name: &str) -> Result<Command> {
        let program = program(name)?;
        Ok(match &self.elsewhere {
            Some(place) => place.inside(&program),
            None => Command::new(program),
        })
    }

    /// Starts the agent; it runs sessions as whoever runs the test.
    fn start_node(&mut self) -> Result<()> {
        let mut command = self.on_node("sortie-agent")?;
        command.args(["run", "--run-as-self", "--data-dir"]);
        command.arg(self.node_dir());
        let log = self.installation.scratch().join("agent.log");
        self.node = Some(Agent::spawn(&mut command, log)?);
        Ok(())
    }

    fn stop_node(&mut self) -> Result<()> {
        self.node.take().map_or(Ok(()), Agent::stop)
    }

    fn kill_node(&mut self) -> Result<()> {
        self.node.take().map_or(Ok(()), Agent::kill)
    }

    fn wait_for_node(&self, aws: &Path) -> Result<()> {
        wait_for("the node to be connected", || {
            let ask = ["ssm", "get-connection-status", "--target", &self.node_id];
            let mut command = self.command(aws)?;
            let output = command.args(ask).args(["--output", "json"]).output()?;
            ensure!(output.status.success(), "{ask:?}: {output:?}");
            let answer: Value = serde_json::from_slice(&output.stdout)?;
            Ok((answer["Status"] == "connected").then_some(()))
        })
        .with_context(|| self.logs())
    }

    /// Ends `dev`, and starts `serve` in its place.
    fn serve(&mut self) -> Result<()> {
        self.installation.stop()?;
        self.client_network = Proxy::to_url(self.installation.fact("https_endpoint"))?;
        self.start_serving()
    }

    fn start_serving(&mut self) -> Result<()> {
        let listen = self.installation.fact("https_endpoint");
        let listen = listen.trim_start_matches("https://");
        let mut command = Command::new(program("sortie-server")?);
        command.args(["serve", "--listen-tls", listen, "--data-dir"]);
        command.arg(self.installation.data_dir().join("server"));
        let mut server =
            Server::spawn(&mut command, self.installation.scratch().join("serve.log"))?;
        wait_for("the server to be ready", || {
            ensure!(server.is_running()?, "the server ended: {}", server.log());
            Ok(server.log().contains("ready").then_some(()))
        })?;
        self.served = Some(server);
        Ok(())
    }

    /// A program that reaches the server past the breakable networks.
    fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let address = match &self.served {
            Some(_) => self.installation.fact("https_endpoint"),
            None => self.installation.fact("endpoint"),
        };
        let address = address.split("://").last().unwrap_or_default();
        self.command_at(program, address)
    }

    fn command_at(&self, program: impl AsRef<Path>, address: &str) -> Result<Command> {
        let mut command = self.installation.command(program)?;
        let scheme = match &self.served {
            Some(_) => "https",
            None => "http",
        };
        command
            .env("AWS_ENDPOINT_URL", format!("{scheme}://{address}"))
            .env("AWS_CA_BUNDLE", self.installation.fact("ca_file"));
        Ok(command)
    }

    /// What `sortie` answers in JSON.
    fn asked(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.command("sortie")?.args(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn terminate(&self, session_id: &str) -> Result<()> {
        let arguments = ["sessions", "terminate", session_id];
        let output = self.command("sortie")?.args(arguments).output()?;
        ensure!(output.status.success(), "terminate: {output:?}");
        Ok(())
    }

    /// The only session there is: the one that is open.
    fn session_id(&self) -> Result<String> {
        let sessions = self.asked(&["sessions", "list", "--json"])?;
        let id = sessions[0]["SessionId"].as_str();
        Ok(id.context("no session is open")?.to_owned())
    }

    /// Waits until the session stands in the history, and gives it back.
    fn ended(&self, session_id: &str) -> Result<Value> {
        wait_for("the session in the history", || {
            let sessions = self.asked(&["sessions", "list", "--history", "--json"])?;
            let sessions = sessions.as_array().context("a list")?;
            let found = sessions
                .iter()
                .find(|session| session["SessionId"] == session_id);
            Ok(found.cloned())
        })
        .with_context(|| self.logs())
    }

    /// Waits until the agent has nothing of a session any more: its result was delivered.
    fn node_is_clean(&self) -> Result<()> {
        let sessions = self.node_dir().join("sessions");
        wait_for("the results to be delivered", || {
            let left = fs::read_dir(&sessions)?.count();
            Ok((left == 0).then_some(()))
        })
        .with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        let agent = self.node.as_ref().map(Agent::log).unwrap_or_default();
        format!(
            "the server's log:\n{}{}\nthe agent's log:\n{agent}\nthe client's remarks:\n{}",
            self.installation.log(),
            self.served.as_ref().map(Server::log).unwrap_or_default(),
            self.remarks()
        )
    }

    /// A program that reaches the server through the client's network.
    fn client(&self, program: impl AsRef<Path>) -> Result<Command> {
        self.command_at(program, &self.client_network.address().to_string())
    }

    /// A shell with our own client.
    fn our_client(&self) -> Result<Command> {
        let mut command = self.client("sortie")?;
        command.args(["start", &self.node_id]);
        Ok(command)
    }

    /// What our client said besides what the session showed.
    fn remarks(&self) -> String {
        fs::read_to_string(self.installation.scratch().join("remarks")).unwrap_or_default()
    }

    /// Opens a shell with our own client and has a talk on it. What the client remarks goes to a
    /// file, out of the way of the bytes that are compared.
    fn talk(&self) -> Result<Talk> {
        let mut command = self.client("sh")?;
        command.args([
            "-c",
            "exec sortie start \"$1\" 2>remarks",
            "sh",
            &self.node_id,
        ]);
        Talk::open(&command, &Manner::default()).with_context(|| self.logs())
    }
}

/// A network namespace with one cable to here, in which a node is. Needs root.
struct Place {
    name: String,
}

impl Place {
    /// `None` where namespaces cannot be made.
    fn make() -> Result<Option<Self>> {
        let name = format!("sortie-away-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if !rustix::process::geteuid().is_root() || made.is_err() {
            return skip("root with iproute2, for a network namespace").map(|()| None);
        }
        let place = Self { name };
        let cable = format!("sa{}", std::process::id());
        let lay = ["link", "add", &cable, "type", "veth", "peer", "name", "up0"];
        ip(&[&lay[..], &["netns", &place.name]].concat())?;
        let here = format!("{}/29", Self::address(1));
        ip(&["address", "add", &here, "dev", &cable])?;
        ip(&["link", "set", &cable, "up"])?;
        place.take_address(2)?;
        place.ip(&["link", "set", "up0", "up"])?;
        Ok(Some(place))
    }

    /// From a block for documentation (RFC 5737), different from one test process to the next: 1 is
    /// our end of the cable, others are the node's.
    fn address(number: u32) -> String {
        format!("203.0.113.{}", std::process::id() % 30 * 8 + number)
    }

    fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    fn take_address(&self, number: u32) -> Result<()> {
        let address = format!("{}/29", Self::address(number));
        self.ip(&["address", "add", &address, "dev", "up0"])
    }

    /// The node moves: packets to its old address go nowhere, and nobody is told.
    fn change_address(&self) -> Result<()> {
        self.ip(&["address", "flush", "dev", "up0"])?;
        self.take_address(3)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A session that a failed test leaves behind would keep the cable.
        let left = Command::new("ip")
            .args(["netns", "pids", &self.name])
            .output();
        let left = left.map(|output| output.stdout).unwrap_or_default();
        for word in String::from_utf8_lossy(&left).split_whitespace() {
            if let Some(process) = word.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(process, Signal::KILL);
            }
        }
        // Takes the cable with it.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    ensure!(output.status.success(), "ip {arguments:?}: {output:?}");
    Ok(())
}

/// Waits until a process is gone.
fn gone(process: Pid) -> Result<()> {
    wait_for("the shell on the node to end", || {
        Ok(test_kill_process(process).is_err().then_some(()))
    })
}

#[test]
fn every_byte_arrives_through_cuts_and_restarts_of_everything() -> Result<()> {
    let Some(mut story) = Story::begin()? else {
        return Ok(());
    };
    let mut talk = story.talk()?;
    talk.catch_up()?;
    let session_id = story.session_id()?;
    through_cuts(&story, &mut talk).with_context(|| story.logs())?;
    for round in 0..3 {
        story.installation.kill()?;
        talk.type_line()?;
        story.installation.restart()?;
        talk.catch_up()
            .with_context(|| format!("kill {round}: {}", story.logs()))?;
    }

    // Sessions live on without an agent, and with one that is killed.
    story.stop_node()?;
    talk.catch_up()?;
    story.start_node()?;
    talk.catch_up()?;
    story.kill_node()?;
    story.node_network.cut();
    talk.catch_up()?;
    story.start_node()?;
    talk.catch_up()?;

    assert!(talk.typed() > 100, "only {} lines were typed", talk.typed());
    assert_eq!(talk.finish()?, Some(7), "{}", story.logs());
    assert_eq!(story.ended(&session_id)?["Status"], "Terminated");
    story.node_is_clean()
}

/// Twenty cuts of each side's connections: some wait until everything is back, some come while it is
/// coming back, and some hit the new connection after so many bytes.
fn through_cuts(story: &Story, talk: &mut Talk) -> Result<()> {
    let sides = [&story.client_network, &story.node_network];
    for round in 0_u64..20 {
        for (side, network) in sides.into_iter().enumerate() {
            match round % 4 {
                0 => network.cut_next(400 + 700 * round),
                1 => {
                    // Both at once.
                    let _ = sides.map(Proxy::cut);
                }
                _ => {}
            }
            network.cut();
            talk.go_on()?;
            if round % 4 != 2 {
                let place = || format!("cut {round} of side {side}");
                talk.catch_up().with_context(place)?;
            }
        }
    }
    talk.catch_up()
}

#[test]
fn a_termination_asked_for_while_the_node_is_away_happens_when_it_is_back() -> Result<()> {
    let Some(mut story) = Story::begin()? else {
        return Ok(());
    };
    let mut talk = story.talk()?;
    talk.catch_up()?;
    let shell = talk.process_id()?;
    let session_id = story.session_id()?;

    story.node_network.refuse();
    story.node_network.cut();
    story.terminate(&session_id)?;
    // The person need not wait for the node.
    assert_eq!(talk.exit_status()?.code(), Some(255));
    let remarks = story.remarks();
    assert!(remarks.contains("Your session was ended by"), "{remarks}");
    assert!(test_kill_process(shell).is_ok(), "the node cannot know yet");

    // The row is the truth, not what a server remembers.
    story.installation.kill()?;
    story.installation.restart()?;
    assert!(test_kill_process(shell).is_ok(), "the node cannot know yet");
    story.node_network.pass();
    gone(shell).with_context(|| story.logs())?;
    let ended = story.ended(&session_id)?;
    assert_eq!(ended["Status"], "Terminated", "{ended}");
    story.node_is_clean()
}

#[test]
fn a_client_that_was_away_learns_why_its_session_ended() -> Result<()> {
    let Some(story) = Story::begin()? else {
        return Ok(());
    };
    let client = story.our_client()?;
    // On the terminal itself, where remarks are shown.
    let mut terminal = Terminal::open(&client, 200, 50)?;
    terminal.line("echo he\"\"re")?;
    terminal.until("here")?;
    let session_id = story.session_id()?;

    story.client_network.refuse();
    story.client_network.cut();
    terminal.until("\r\n[sortie: connection lost for ")?;
    // Renewed in its place.
    terminal.until("\x1b[K[sortie: connection lost for ")?;
    story.client_network.pass();
    terminal.until("connected again after")?;
    terminal.line("echo ag\"\"ain")?;
    terminal.until("again\r\n")?;

    story.client_network.refuse();
    story.client_network.cut();
    story.terminate(&session_id)?;
    assert_eq!(story.ended(&session_id)?["Status"], "Terminated");
    story.client_network.pass();
    terminal.until("Your session was ended by")?;
    assert_eq!(terminal.exit_status()?.code(), Some(255));
    assert!(terminal.is_cooked()?, "the terminal is as it was before");
    story.node_is_clean()
}

#[test]
fn a_result_waits_for_the_next_agent_and_the_last_output_for_the_network() -> Result<()> {
    let Some(mut story) = Story::begin()? else {
        return Ok(());
    };
    let mut talk = story.talk()?;
    talk.catch_up()?;
    let shell = talk.process_id()?;
    let session_id = story.session_id()?;
    // It ends by itself, and nobody can be told.
    story.node_network.refuse();
    story.node_network.cut();
    kill_process(shell, Signal::TERM)?;
    story.kill_node()?;
    gone(shell)?;
    story.start_node()?;
    story.node_network.pass();
    talk.until_over().with_context(|| story.logs())?;
    assert_eq!(talk.exit_status()?.code(), Some(7));
    assert_eq!(story.ended(&session_id)?["Status"], "Terminated");
    story.node_is_clean()
}

#[test]
fn a_server_that_stops_takes_no_new_session_and_finds_the_old_ones_again() -> Result<()> {
    let Some(mut story) = Story::begin()? else {
        return Ok(());
    };
    let Some(aws) = aws() else { return Ok(()) };
    story.serve()?;
    story.wait_for_node(&aws)?;
    let mut talk = story.talk()?;
    talk.catch_up()?;
    let session_id = story.session_id()?;
    for round in 0..2 {
        let place = || format!("stop {round}");
        let started = Instant::now();
        let server = story.served.take().context("no server")?;
        server.stop()?;
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "sessions are waited for"
        );
        talk.type_line()?;
        // Nobody is there to start a session: the client says so, and does not wait.
        let refused = story.our_client()?.output()?;
        assert_eq!(refused.status.code(), Some(255), "{refused:?}");
        story.start_serving()?;
        talk.catch_up()
            .with_context(place)
            .with_context(|| story.logs())?;
    }
    assert_eq!(talk.finish()?, Some(7), "{}", story.logs());
    assert_eq!(story.ended(&session_id)?["Status"], "Terminated");
    story.node_is_clean()
}

#[test]
fn a_node_that_got_another_address_is_back_long_before_a_minute_is_over() -> Result<()> {
    let Some(place) = Place::make()? else {
        return Ok(());
    };
    let Some(story) = Story::begin_with(Some(place))? else {
        return Ok(());
    };
    let mut talk = story.talk()?;
    talk.catch_up()?;
    let place = story.elsewhere.as_ref().context("the node is here")?;
    let moved = Instant::now();
    place.change_address()?;
    talk.catch_up().with_context(|| story.logs())?;
    let away = moved.elapsed();
    assert!(away < Duration::from_secs(50), "away for {away:?}");
    assert_eq!(talk.finish()?, Some(7), "{}", story.logs());
    Ok(())
}

/// Our node and the official client. That one gives up about three seconds after a loss, and at once
/// when a key is typed before it has noticed the loss; and it shows output again whose
/// acknowledgement it could not write. So its network falls silent before the connection breaks.
#[test]
fn a_bad_line_costs_the_official_plugin_nothing() -> Result<()> {
    let Some(plugin) = official_plugin() else {
        return Ok(());
    };
    let Some(mut story) = Story::begin()? else {
        return Ok(());
    };
    let Some(aws) = aws() else { return Ok(()) };
    let mut talk = official_talk(&story, &aws, &plugin).with_context(|| story.logs())?;
    talk.catch_up()?;
    let session_id = story.session_id()?;
    for round in 0..20 {
        let place = || format!("cut {round}: {}", story.logs());
        story.node_network.cut();
        talk.catch_up().with_context(place)?;
        talk.fall_silent(&[&story.client_network])
            .with_context(place)?;
        story.client_network.cut();
        story.client_network.pass();
        // Only a new connection can bring anything.
        talk.hear(1).with_context(place)?;
        talk.catch_up().with_context(place)?;
    }
    for round in 0..3 {
        let place = || format!("kill {round}");
        talk.fall_silent(&[&story.client_network])
            .with_context(place)?;
        story.installation.kill()?;
        // What was held back must not reach the client when its connection breaks behind it.
        story.client_network.cut();
        story.client_network.pass();
        story.installation.restart()?;
        talk.hear(1)
            .with_context(place)
            .with_context(|| story.logs())?;
        talk.catch_up()
            .with_context(place)
            .with_context(|| story.logs())?;
    }
    story.kill_node()?;
    story.start_node()?;
    talk.catch_up()?;
    assert_eq!(talk.finish()?, Some(0), "{}", story.logs());
    assert_eq!(story.ended(&session_id)?["Status"], "Terminated");
    story.node_is_clean()
}

/// A talk through the official client, as the stock CLI starts it.
fn official_talk(story: &Story, aws: &Path, plugin: &Path) -> Result<Talk> {
    let mut command = story.client(aws)?;
    let folder = plugin.parent().context("the plugin is in no folder")?;
    let path = story.installation.environment()?.remove("PATH");
    let path = format!("{}:{}", folder.display(), path.unwrap_or_default());
    command.env("PATH", path);
    command.args(["ssm", "start-session", "--target", &story.node_id]);
    let manner = Manner {
        has_official_client: true,
        ..Manner::default()
    };
    Talk::open(&command, &manner)
}
