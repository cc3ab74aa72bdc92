//! Much is offered to a reader that takes little: what the processes between hold of it, whether
//! others in the same session notice, and whether all of it arrives once the reader hurries.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Ground, Sizes, spoken};
use crate::{
    memory, note,
    peers::wait_for,
    table::{Judge, Peer, Table, quantile},
    traffic::{self, Flow},
};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// When what fits between both ends has long been sent.
const FULL: Duration = Duration::from_secs(2);
const ECHOES: usize = 300;
const PAUSE: Duration = Duration::from_millis(2);
/// How much any process may grow, in MB.
const GROWTH: f64 = 64.0;

/// One process, watched.
struct Watched {
    name: &'static str,
    process_id: u32,
    before: f64,
    most: f64,
}

/// One round, with a session of its own for each direction.
pub(super) fn measure(ground: &Ground, far: u16, sizes: &Sizes, table: &mut Table) -> Result<()> {
    let reader_is_here = |port, bytes, slow| traffic::take_slowly(port, bytes, slow);
    watch(ground, far, sizes, table, "here", reader_is_here)?;
    let reader_is_there = |port, bytes, slow| traffic::offer_to_slow(port, bytes, slow);
    watch(ground, far, sizes, table, "there", reader_is_there)
}

fn watch(
    ground: &Ground,
    far: u16,
    sizes: &Sizes,
    table: &mut Table,
    place: &str,
    transfer: impl Fn(u16, u64, Duration) -> Result<Flow> + Send + Sync,
) -> Result<()> {
    let (bytes, slow) = (sizes.offer_bytes, Duration::from_secs(sizes.slow_seconds));
    note(&format!(
        "tunnels: {} to a slow reader {place}, for {slow:?}",
        spoken(bytes)
    ));
    let others = memory::children(ground.agent.process_id(), "session-worker")?;
    let forward = ground.installation.forward(&ground.agent.node_id, far)?;
    let worker = wait_for("the session's process", || {
        let workers = memory::children(ground.agent.process_id(), "session-worker")?;
        Ok(workers.into_iter().find(|worker| !others.contains(worker)))
    })?;
    // One connection goes through first: what every session needs is no growth.
    traffic::echoes(forward.port, 10, Duration::ZERO)?;
    let client = forward.processes.first().map_or(0, |client| client.id());
    let mut watched = [
        Watched::new("client", client)?,
        Watched::new("server", ground.installation.process_id()?)?,
        Watched::new("session worker", worker)?,
    ];
    let (echoes, flow) = thread::scope(|scope| {
        let transfer = scope.spawn(|| transfer(forward.port, bytes, slow));
        let echoes = scope.spawn(|| {
            thread::sleep(FULL);
            traffic::echoes(forward.port, ECHOES, PAUSE)
        });
        let begun = Instant::now();
        while !transfer.is_finished() {
            for process in &mut watched {
                process.look()?;
            }
            thread::sleep(INTERVAL);
            if begun.elapsed() > slow * 2 + Duration::from_secs(600) {
                bail!("it does not end");
            }
        }
        let (Ok(echoes), Ok(flow)) = (echoes.join(), transfer.join()) else {
            bail!("a thread failed");
        };
        Ok((echoes?, flow?))
    })?;
    let row = format!("{} to a slow reader {place}", spoken(bytes));
    let mut add = |what: &str, judge, value| {
        let name = format!("{row}, {what}");
        table.declare(&name, judge);
        table.add(&name, Peer::Ours, value);
    };
    for process in watched {
        let growth = process.most - process.before;
        let judge = Judge::AtMost {
            limit: GROWTH,
            aim: GROWTH,
        };
        add(&format!("{} grows by, MB", process.name), judge, growth);
    }
    add(
        "1 byte beside it, p50, ms",
        Judge::None,
        quantile(echoes, 0.5) / 1e3,
    );
    add(
        "the rest of it at full speed, MB/s",
        Judge::None,
        flow.rate(),
    );
    Ok(())
}

impl Watched {
    fn new(name: &'static str, process_id: u32) -> Result<Self> {
        let before = resident(process_id)?;
        Ok(Self {
            name,
            process_id,
            before,
            most: before,
        })
    }

    fn look(&mut self) -> Result<()> {
        self.most = self.most.max(resident(self.process_id)?);
        Ok(())
    }
}

/// In MB.
fn resident(process_id: u32) -> Result<f64> {
    Ok(memory::of(process_id)?.resident * 1024.0 / 1e6)
}
