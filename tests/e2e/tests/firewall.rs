//! A node in a network of its own, whose firewall drops everything that comes in and lets nothing
//! out but TCP to the server's TLS port. Needs root, for the network namespace.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};
use sortie_testkit::{Agent, Installation, Terminal, aws, program, skip, wait_for};

/// A network namespace joined to ours by one cable, with the firewall in it.
struct Network {
    name: String,
    host_address: String,
    node_address: String,
}

impl Network {
    /// Lays the cable. The addresses are from the block for tests (RFC 5737) and differ from one
    /// test process to the next.
    fn lay(port: u16) -> Result<Self> {
        let number = std::process::id() % 60;
        let network = Self {
            name: format!("sortie-{}", std::process::id()),
            host_address: format!("198.51.100.{}", number * 4 + 1),
            node_address: format!("198.51.100.{}", number * 4 + 2),
        };
        let (name, ours) = (&network.name, network.cable());
        sudo_like(&["ip", "netns", "add", name])?;
        sudo_like(&[
            "ip", "link", "add", &ours, "type", "veth", "peer", "name", "up0", "netns", name,
        ])?;
        let host = format!("{}/30", network.host_address);
        sudo_like(&["ip", "address", "add", &host, "dev", &ours])?;
        sudo_like(&["ip", "link", "set", &ours, "up"])?;
        let node = format!("{}/30", network.node_address);
        network.inside(&["ip", "address", "add", &node, "dev", "up0"])?;
        network.inside(&["ip", "link", "set", "up0", "up"])?;
        network.inside(&["ip", "link", "set", "lo", "up"])?;
        network.raise_firewall(port)?;
        Ok(network)
    }

    fn cable(&self) -> String {
        format!("st{}", std::process::id())
    }

    fn inside(&self, command: &[&str]) -> Result<()> {
        let mut whole = vec!["ip", "netns", "exec", &self.name];
        whole.extend(command);
        sudo_like(&whole)
    }

    fn raise_firewall(&self, port: u16) -> Result<()> {
        let rules = format!(
            "table inet node {{
                chain input {{
                    type filter hook input priority 0; policy drop;
                    ct state established accept
                    iif lo accept
                }}
                chain output {{
                    type filter hook output priority 0; policy drop;
                    oif lo accept
                    ip daddr {} tcp dport {port} accept
                }}
            }}",
            self.host_address
        );
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, rules)?;
        self.inside(&["nft", "-f", &file.path().to_string_lossy()])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Takes the cable with it.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

fn sudo_like(command: &[&str]) -> Result<()> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn can_make_networks() -> bool {
    rustix::process::geteuid().is_root()
        && ["ip", "nft"].iter().all(|tool| {
            let found = Command::new(tool).arg("-V").output();
            found.is_ok_and(|output| output.status.success())
        })
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn checked(output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_node_behind_a_closed_firewall_gives_a_shell() -> Result<()> {
    if !can_make_networks() {
        return skip("root with iproute2 and nftables, for a network namespace");
    }
    let Some(aws) = aws() else {
        return skip("the AWS CLI");
    };
    let port = free_port()?;
    let network = Network::lay(port)?;
    let listen = format!("{}:{port}", network.host_address);
    let installation = Installation::with_arguments(&[
        "--no-node",
        "--listen",
        "127.0.0.1:0",
        "--listen-tls",
        &listen,
    ])?;

    let activation = installation.aws(
        &aws,
        &[
            "ssm",
            "create-activation",
            "--iam-role",
            "SortieNode",
            "--default-instance-name",
            "far-away",
        ],
    )?;
    let word = |name: &str| {
        activation[name]
            .as_str()
            .context("activation")
            .map(str::to_owned)
    };
    let agent = program("sortie-agent")?;
    let data = installation.scratch().join("node");
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &network.name])
            .arg(&agent)
            .args(arguments);
        command.arg("--data-dir").arg(&data);
        command
    };
    let ca_file = installation.fact("ca_file").to_owned();
    let endpoint = format!("https://{listen}");
    let (id, code) = (word("ActivationId")?, word("ActivationCode")?);
    let register = ["register", "--endpoint", &endpoint, "--ca-file", &ca_file];
    let secrets = [
        "--activation-id",
        &id,
        "--activation-code",
        &code,
        "--no-sudo",
    ];
    checked(inside(&[&register[..], &secrets[..]].concat()).output()?)?;
    let log = installation.scratch().join("agent.log");
    let agent = Agent::spawn(&mut inside(&["run"]), &log)?;

    let node_id =
        wait_for("the node to be online", || {
            let listed = installation.aws(&aws, &["ssm", "describe-instance-information"])?;
            let node = &listed["InstanceInformationList"][0];
            Ok((node["PingStatus"] == "Online")
                .then(|| node["InstanceId"].as_str().map(str::to_owned)))
        })
        .with_context(|| agent.log())?
        .context("an instance id")?;

    // Its first heartbeat makes it online; a session needs its control channel.
    wait_for("the node's control channel", || {
        let ask = ["ssm", "get-connection-status", "--target", &node_id];
        Ok((installation.aws(&aws, &ask)?["Status"] == "connected").then_some(()))
    })?;

    let mut command = installation.command(&aws)?;
    command.args(["ssm", "start-session", "--target", &node_id]);
    let mut terminal = Terminal::open(&command, 80, 24)?;
    // The shell is in the node's network: it has the node's address and not ours.
    terminal.line("ip -o -4 address show | tr -d '\\n'; echo; echo sh\"\"own")?;
    let shown = terminal.until("shown").with_context(|| agent.log())?;
    assert!(
        shown.contains(&format!("{}/30", network.node_address)),
        "{shown}"
    );
    assert!(
        !shown.contains(&format!("{}/30", network.host_address)),
        "{shown}"
    );
    terminal.line("id -un; echo sh\"\"own")?;
    let shown = terminal.until("shown")?;
    assert!(
        shown.contains("ssm-user"),
        "an agent that is root runs sessions as ssm-user: {shown}"
    );
    terminal.line("exit")?;
    assert!(terminal.exit_status()?.success());

    // A second enrolment with the same activation is one too many.
    let other = installation.scratch().join("other");
    let mut again = Command::new("ip");
    again
        .args(["netns", "exec", &network.name])
        .arg(program("sortie-agent")?);
    again
        .args(register)
        .args(secrets)
        .arg("--data-dir")
        .arg(&other);
    let refused = again.output()?;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("InvalidActivation") || said.contains("RegistrationLimit"),
        "{said}"
    );
    agent.stop()
}
