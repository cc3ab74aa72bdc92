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

/// Two ends with a tunnel between them.
struct Pair {
    client: &'static str,
    node: &'static str,
    forward: Forward,
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
    let mut pairs = Vec::new();
    let mut pair = |client, node, forward| {
        pairs.push(Pair {
            client,
            node,
            forward,
        });
    };
    if let Some(official) = &official {
        let forward = ground.installation.forward(&official.node_id, far);
        let forward = forward.with_context(|| official.machine.log())?;
        pair(OUR_CLIENT, OFFICIAL_NODE, forward);
    }
    if let Some(plugin) = &plugin {
        let forward = official_forward(ground, plugin, &ground.agent.node_id, far)?;
        pair(OFFICIAL_CLIENT, OUR_NODE, forward);
    }
    if let Some((plugin, official)) = plugin.as_ref().zip(official.as_ref()) {
        let forward = official_forward(ground, plugin, &official.node_id, far)?;
        pair(OFFICIAL_CLIENT, OFFICIAL_NODE, forward);
    }
    for (pair, direction) in both_ways(&pairs) {
        table.declare(&pair.row(direction), pair.judge(direction));
    }
    let time = Duration::from_secs_f64(sizes.bulk_seconds);
    for round in 1..=rounds {
        note(&format!("official ends: round {round} of {rounds}"));
        for (pair, direction) in both_ways(&pairs) {
            let flow = traffic::bulk(pair.forward.port, direction, time);
            let flow = flow.with_context(|| pair.row(direction))?;
            table.add(&pair.row(direction), Peer::Ours, flow.rate());
        }
    }
    Ok(())
}

fn both_ways(pairs: &[Pair]) -> impl Iterator<Item = (&Pair, Direction)> {
    let pairs = pairs.iter();
    pairs.flat_map(|pair| DIRECTIONS.map(|direction| (pair, direction)))
}

impl Pair {
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
    machine: Machine,
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
        Ok(Some(Self { machine, node_id }))
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
