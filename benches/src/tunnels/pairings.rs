//! Bulk through tunnels of which one end, or both, are AWS's own programs, where those are present.
//! What they send is bound by how they send; what our end sends to theirs is not.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sortie_testkit::{
    Machine, Setup, can_make_machines, official_agent, official_plugin, wait_for,
};

use super::{DIRECTIONS, Ground, Sizes, name};
use crate::{
    api::{REGION, text_of},
    note,
    peers::{Forward, Process, free_port},
    table::{Judge, Peer, Table},
    traffic::{self, Direction},
};

const DOCUMENT: &str = "AWS-StartPortForwardingSession";
/// In MB/s, where our end sends.
const OURS_SENDS: f64 = 70.0;
/// What the official client says once its port is open.
const OPEN: &str = "Waiting for connections";

/// Two ends with a server of ours between them.
struct Pair<'a> {
    client: &'static str,
    node: &'static str,
    node_id: &'a str,
    plugin: Option<&'a Path>,
}

const OUR_CLIENT: &str = "sortie";
const OUR_NODE: &str = "sortie-agent";
const OFFICIAL_CLIENT: &str = "session-manager-plugin";
const OFFICIAL_NODE: &str = "amazon-ssm-agent";

/// Measures what is there; what is not is said.
pub(super) fn measure(
    ground: &Ground,
    far: u16,
    rounds: u32,
    sizes: &Sizes,
    table: &mut Table,
) -> Result<()> {
    let plugin = official_plugin();
    let official = OfficialNode::start(ground)?;
    let official = official.as_ref().map(|node| node.node_id.as_str());
    let pairs = pairs(plugin.as_deref(), official, &ground.agent.node_id);
    for pair in &pairs {
        for direction in DIRECTIONS {
            table.declare(&pair.row(direction), pair.judge(direction));
        }
    }
    let time = Duration::from_secs_f64(sizes.bulk_seconds);
    for round in 1..=rounds {
        note(&format!("official ends: round {round} of {rounds}"));
        for pair in &pairs {
            // What fails between others' programs must not cost all other figures: its cell stays empty.
            if let Err(error) = pair.turn(ground, far, time, table) {
                note(&format!("{} and {}: {error:#}", pair.client, pair.node));
            }
        }
    }
    Ok(())
}

/// Every pairing with an official end of which both are there.
fn pairs<'a>(
    plugin: Option<&'a Path>,
    official_node: Option<&'a str>,
    our_node: &'a str,
) -> Vec<Pair<'a>> {
    let clients = [
        Some((OUR_CLIENT, None)),
        plugin.map(|plugin| (OFFICIAL_CLIENT, Some(plugin))),
    ];
    let nodes = [
        Some((OUR_NODE, our_node)),
        official_node.map(|node_id| (OFFICIAL_NODE, node_id)),
    ];
    let mut pairs = Vec::new();
    for (client, plugin) in clients.into_iter().flatten() {
        for (node, node_id) in nodes.into_iter().flatten() {
            if (client, node) != (OUR_CLIENT, OUR_NODE) {
                pairs.push(Pair {
                    client,
                    node,
                    node_id,
                    plugin,
                });
            }
        }
    }
    pairs
}

impl Pair<'_> {
    /// Both directions, in a session of their own.
    fn turn(&self, ground: &Ground, far: u16, time: Duration, table: &mut Table) -> Result<()> {
        let forward = match self.plugin {
            Some(plugin) => official_forward(ground, plugin, self.node_id, far)?,
            None => ground.installation.forward(self.node_id, far)?,
        };
        for direction in DIRECTIONS {
            let flow = traffic::bulk(forward.port, direction, time)
                .with_context(|| format!("bulk {}", name(direction)))?;
            table.add(&self.row(direction), Peer::Ours, flow.rate());
        }
        Ok(())
    }

    fn row(&self, direction: Direction) -> String {
        let (client, node) = (self.client, self.node);
        format!("{client} and {node}, bulk {}, MB/s", name(direction))
    }

    fn judge(&self, direction: Direction) -> Judge {
        let sender_is_ours = match direction {
            Direction::Up => self.client == OUR_CLIENT,
            Direction::Down => self.node == OUR_NODE,
        };
        if sender_is_ours {
            Judge::AtLeast { limit: OURS_SENDS }
        } else {
            Judge::None
        }
    }
}

/// The official client, forwarding a port of this machine to `far` of a node.
fn official_forward(ground: &Ground, plugin: &Path, node_id: &str, far: u16) -> Result<Forward> {
    let port = free_port()?;
    let request = json!({
        "Target": node_id,
        "DocumentName": DOCUMENT,
        "Parameters": {"portNumber": [far.to_string()], "localPortNumber": [port.to_string()]},
    });
    let session = ground.installation.call("StartSession", &request)?;
    let endpoint = format!("https://{}", ground.installation.address());
    let log = tempfile::NamedTempFile::new_in(ground.folder.path())?;
    let mut command = Command::new(plugin);
    command
        .args([&session.to_string(), REGION, "StartSession", ""])
        .args([&request.to_string(), &endpoint])
        .env("SSL_CERT_FILE", ground.installation.ca_file())
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let mut process = Process::start(&mut command, log.path())?;
    let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
    wait_for("the official client's port", || {
        anyhow::ensure!(!process.has_ended()?, "the official client ended");
        Ok(said().contains(OPEN).then_some(()))
    })
    .with_context(said)?;
    Ok(Forward {
        port,
        processes: vec![process],
    })
}

/// The official agent on a machine of namespaces.
struct OfficialNode {
    _machine: Machine,
    node_id: String,
}

impl OfficialNode {
    /// Registers and starts it. `None` when it is not there or cannot be started here, which is said.
    fn start(ground: &Ground) -> Result<Option<Self>> {
        let Some(agent) = official_agent() else {
            return Ok(None);
        };
        if !can_make_machines() {
            note("skipped: the official agent runs in Linux namespaces, which only root may make");
            return Ok(None);
        }
        let folder = ground.folder.path().join("official");
        let installation = &ground.installation;
        let endpoint = format!("https://{}", installation.address());
        let service = || json!({"Endpoint": endpoint});
        let settings = json!({"Ssm": service(), "Mds": service(), "Mgs": service()});
        let trust = installation.ca_file().to_string_lossy().into_owned();
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let setup = Setup {
            programs: agent.parent().map(Path::to_owned),
            settings: Some(settings.to_string()),
            variables: vec![
                variable("SSL_CERT_FILE", &trust),
                variable("AWS_EC2_METADATA_DISABLED", "true"),
            ],
            ..Setup::default()
        };
        let activation = installation.activation(1)?;
        let (id, code) = (activation.id, activation.code);
        let program = Machine::programs(&folder).join("amazon-ssm-agent");
        let program = program.display();
        let command = format!(
            "{program} -register -y -id {id} -code {code} -region {REGION} && \
             while :; do {program}; done"
        );
        let machine = Machine::start(&folder, &setup, &command)?;
        let node_id = wait_for("the official agent to be connected", || connected(ground))
            .with_context(|| machine.log())?;
        Ok(Some(Self {
            _machine: machine,
            node_id,
        }))
    }
}

/// The node that is not our agent's, once it can be reached.
fn connected(ground: &Ground) -> Result<Option<String>> {
    let listed = ground
        .installation
        .call("DescribeInstanceInformation", &json!({}))?;
    let nodes = listed
        .get("InstanceInformationList")
        .and_then(Value::as_array);
    for node in nodes.into_iter().flatten() {
        let node_id = text_of(node, "InstanceId")?;
        if node_id == ground.agent.node_id {
            continue;
        }
        let input = json!({"Target": node_id});
        let status = ground.installation.call("GetConnectionStatus", &input)?;
        if status.get("Status").and_then(Value::as_str) == Some("connected") {
            return Ok(Some(node_id));
        }
    }
    Ok(None)
}
