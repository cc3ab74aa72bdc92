//! Everything that is noticed of tunnels and of commands without a terminal, ours and each peer in
//! turns: bulk, round trips alone and beside bulk, connections one after the other and at once. What
//! needs a turn of its own is in the modules below.

mod commands;
mod pairings;
mod slow;
mod tree;

use std::{path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    installation::{Agent, Installation},
    note,
    peers::{Forward, Peers, missing},
    processor,
    table::{Judge, Peer, Table, quantile},
    traffic::{self, Direction},
};

/// Round trips of a turn, back to back and with a person's pauses.
const BUSY_ECHOES: usize = 2000;
const PACED_ECHOES: usize = 150;
const PAUSE: Duration = Duration::from_millis(10);
/// Round trips beside bulk, how long after each other, and the head start of the bulk.
const ECHOES_BESIDE: usize = 300;
const PAUSE_BESIDE: Duration = Duration::from_millis(2);
const HEAD_START: Duration = Duration::from_millis(500);
/// How long they may take, and how long bulk flows: longer than that and the head start.
const TIME_BESIDE: Duration = Duration::from_secs(3);
const BULK_BESIDE: Duration = Duration::from_secs(4);
/// Connections one after the other, and at once.
const OPENINGS: usize = 100;
const CROWD: usize = 200;

/// How much is moved. Less than the defaults is for trying the benchmark itself.
#[derive(Clone, clap::Args)]
pub(crate) struct Sizes {
    /// How long bulk flows in each turn, in seconds
    #[arg(long, default_value_t = 3.0)]
    bulk_seconds: f64,
    /// How much is offered to a slow reader, in bytes
    #[arg(long, default_value_t = 10_000_000_000)]
    offer_bytes: u64,
    /// How long that reader is slow, in seconds
    #[arg(long, default_value_t = 120)]
    slow_seconds: u64,
    /// How much goes through a command and is copied as a tree, in bytes
    #[arg(long, default_value_t = 1_000_000_000)]
    copy_bytes: u64,
}

/// What forwards a port of this machine to the one where the traffic comes from.
struct Way {
    peer: Peer,
    forward: Forward,
    /// Processes that work for it, some of them also for others.
    servers: Vec<u32>,
}

/// An installation with a node, and the peers.
pub(crate) struct Ground {
    // Before its server.
    agent: Agent,
    installation: Installation,
    peers: Option<Peers>,
    // Last: the others end before what they keep there is removed.
    folder: tempfile::TempDir,
}

/// Measures all of it into `table`. Without peers only ours is measured, which is said.
pub(crate) fn measure(
    programs: &Path,
    rounds: u32,
    sizes: &Sizes,
    table: &mut Table,
) -> Result<()> {
    if !(0.0..=600.0).contains(&sizes.bulk_seconds) {
        bail!("bulk flows for 600 s at most");
    }
    let ground = Ground::start(programs)?;
    let far = traffic::serve()?;
    declare(table);
    // First, while nothing has been used yet.
    slow::measure(&ground, far, sizes, table).context("a slow reader")?;
    let ways = ground.ways(far)?;
    for round in 1..=rounds {
        note(&format!("tunnels: round {round} of {rounds}"));
        for way in &ways {
            way.turn(sizes, table)
                .with_context(|| format!("{:?}", way.peer))?;
        }
    }
    drop(ways);
    commands::measure(&ground, rounds, sizes, table).context("commands")?;
    tree::measure(&ground, rounds, sizes, table).context("a tree of files")?;
    pairings::measure(&ground, far, rounds, sizes, table).context("official ends")
}

impl Ground {
    fn start(programs: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let installation = Installation::start(programs, folder.path())?;
        let agent = installation.agent()?;
        let peers = match missing() {
            Some(reason) => {
                note(&format!("OpenSSH IS NOT MEASURED: {reason}"));
                None
            }
            None => Some(Peers::start(folder.path())?),
        };
        Ok(Self {
            agent,
            installation,
            peers,
            folder,
        })
    }

    /// Every way to the port `far`.
    fn ways(&self, far: u16) -> Result<Vec<Way>> {
        let ours = self.installation.forward(&self.agent.node_id, far)?;
        let mut ways = vec![Way {
            peer: Peer::Ours,
            forward: ours,
            servers: vec![self.installation.process_id()?, self.agent.process_id()],
        }];
        if let Some(peers) = &self.peers {
            ways.push(Way {
                peer: Peer::Jump,
                forward: peers.forward_by_jump(far)?,
                servers: peers.server_ids(),
            });
            ways.push(Way {
                peer: Peer::Reverse,
                forward: peers.forward_by_reverse_tunnel(far)?,
                servers: peers.server_ids(),
            });
        }
        Ok(ways)
    }
}

/// How a direction is called in the table.
fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Up, Direction::Down];

/// The rows, in the order of the page, with what is demanded.
fn declare(table: &mut Table) {
    let bulk = Judge::TimesReverse {
        limit: 1.2,
        aim: 1.5,
    };
    for direction in DIRECTIONS.map(name) {
        table.declare(&format!("tunnel, bulk {direction}, MB/s"), bulk);
        table.declare(
            &format!("tunnel, bulk {direction}, processor s/GB"),
            Judge::None,
        );
    }
    table.declare("tunnel, 1 byte back to back, p50, µs", Judge::Echo);
    table.declare("tunnel, 1 byte back to back, p99, µs", Judge::None);
    table.declare("tunnel, 1 byte every 10 ms, p50, µs", Judge::None);
    let beside = Judge::AtMost {
        limit: 2.0,
        aim: 0.5,
    };
    for direction in DIRECTIONS.map(name) {
        let row = format!("tunnel, 1 byte beside bulk {direction}");
        table.declare(&format!("{row}, p50, ms"), beside);
        table.declare(&format!("{row}, p99, ms"), Judge::None);
        table.declare(&format!("{row}, bulk, MB/s"), Judge::None);
    }
    let at_most = |limit| Judge::AtMost { limit, aim: limit };
    table.declare("tunnel, new connection, p50, ms", at_most(1.0));
    table.declare("tunnel, 200 connections at once, failed", at_most(0.0));
    table.declare("tunnel, 200 connections at once, all done, ms", Judge::None);
}

impl Way {
    fn turn(&self, sizes: &Sizes, table: &mut Table) -> Result<()> {
        self.bulk(sizes, table)?;
        self.echoes(table)?;
        for direction in DIRECTIONS {
            self.echoes_beside_bulk(direction, table)?;
        }
        let times = traffic::openings(self.forward.port, OPENINGS)?;
        let median = quantile(times, 0.5) / 1e3;
        table.add("tunnel, new connection, p50, ms", self.peer, median);
        let crowd = traffic::crowd(self.forward.port, CROWD);
        let failed = crowd.failed as f64;
        let row = "tunnel, 200 connections at once";
        table.add(&format!("{row}, failed"), self.peer, failed);
        let millis = crowd.seconds * 1e3;
        table.add(&format!("{row}, all done, ms"), self.peer, millis);
        Ok(())
    }

    fn bulk(&self, sizes: &Sizes, table: &mut Table) -> Result<()> {
        let time = Duration::from_secs_f64(sizes.bulk_seconds);
        for direction in DIRECTIONS {
            let before = self.computed();
            let flow = traffic::bulk(self.forward.port, direction, time)?;
            let computed = (self.computed() - before) / (flow.bytes as f64 / 1e9);
            let row = format!("tunnel, bulk {}", name(direction));
            table.add(&format!("{row}, MB/s"), self.peer, flow.rate());
            table.add(&format!("{row}, processor s/GB"), self.peer, computed);
        }
        Ok(())
    }

    /// Seconds that all of its processes have computed until now.
    fn computed(&self) -> f64 {
        let mut all = self.forward.process_ids();
        all.extend(&self.servers);
        processor::seconds(&all)
    }

    fn echoes(&self, table: &mut Table) -> Result<()> {
        let times = traffic::echoes(self.forward.port, BUSY_ECHOES, Duration::ZERO)?;
        let row = "tunnel, 1 byte back to back";
        let median = quantile(times.clone(), 0.5);
        table.add(&format!("{row}, p50, µs"), self.peer, median);
        table.add(&format!("{row}, p99, µs"), self.peer, quantile(times, 0.99));
        let times = traffic::echoes(self.forward.port, PACED_ECHOES, PAUSE)?;
        let median = quantile(times, 0.5);
        table.add("tunnel, 1 byte every 10 ms, p50, µs", self.peer, median);
        Ok(())
    }

    /// Round trips through the forward that bulk goes through, which with us is one session.
    fn echoes_beside_bulk(&self, direction: Direction, table: &mut Table) -> Result<()> {
        let port = self.forward.port;
        let (times, flow) = thread::scope(|scope| {
            let bulk = scope.spawn(|| traffic::bulk(port, direction, BULK_BESIDE));
            thread::sleep(HEAD_START);
            let times = traffic::echoes_within(port, ECHOES_BESIDE, PAUSE_BESIDE, TIME_BESIDE);
            (times, bulk.join())
        });
        let Ok(flow) = flow else {
            bail!("the bulk beside failed");
        };
        let (times, flow) = (times?, flow?);
        let row = format!("tunnel, 1 byte beside bulk {}", name(direction));
        let median = quantile(times.clone(), 0.5) / 1e3;
        table.add(&format!("{row}, p50, ms"), self.peer, median);
        let slow = quantile(times, 0.99) / 1e3;
        table.add(&format!("{row}, p99, ms"), self.peer, slow);
        table.add(&format!("{row}, bulk, MB/s"), self.peer, flow.rate());
        Ok(())
    }
}

/// A number of bytes as a person says it.
fn spoken(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{} GB", bytes as f64 / 1e9),
        _ => format!("{} MB", bytes as f64 / 1e6),
    }
}
