//! Everything a person notices of one shell: how fast it opens, how fast keys come back, how fast
//! output comes, how soon Ctrl-C stops it; and what it takes of memory. Ours and each peer in turns.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    installation::{Agent, Installation},
    memory, note,
    peers::{Peers, missing, wait_for},
    table::{Judge, Peer, Table, quantile},
    terminal::{PROMPT, Terminal},
};

/// Shells opened in a turn.
const OPENINGS: usize = 6;
/// Keys typed in a turn, one as soon as the other has come back, and with a person's pauses.
const BUSY_KEYS: usize = 600;
const TYPED_KEYS: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);
/// After so many keys a line is ended.
const LINE: usize = 64;
const OUTPUT_BYTES: u64 = 30_000_000;
/// Floods interrupted in a turn, and how long each flows.
const FLOODS: usize = 4;
const FLOW: Duration = Duration::from_millis(400);
/// A line of the flood.
const TEXT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What opens a shell.
struct Way {
    peer: Peer,
    command: Vec<String>,
    variables: Vec<(String, String)>,
}

/// Measures all of it into `table`. Without peers only ours is measured, which is said.
pub(crate) fn measure(programs: &Path, rounds: u32, table: &mut Table) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let installation = Installation::start(programs, folder.path())?;
    let agent = installation.agent()?;
    let (command, variables) = installation.shell(&agent.node_id)?;
    let mut ways = vec![Way {
        peer: Peer::Ours,
        command,
        variables,
    }];
    take_memory(&ways, &agent, table)?;
    let peers = match missing() {
        Some(reason) => {
            note(&format!("OpenSSH IS NOT MEASURED: {reason}"));
            None
        }
        None => Some(Peers::start(folder.path())?),
    };
    for (peer, host) in [(Peer::Jump, "jump"), (Peer::Reverse, "rev")] {
        ways.extend(peers.as_ref().map(|peers| Way {
            peer,
            command: peers.shell(host),
            variables: Vec::new(),
        }));
    }
    declare(table);
    for round in 1..=rounds {
        note(&format!("round {round} of {rounds}"));
        for way in &ways {
            way.turn(table).with_context(|| format!("{:?}", way.peer))?;
        }
    }
    Ok(())
}

/// The rows, in the order of the page, with what is demanded.
fn declare(table: &mut Table) {
    table.declare(
        "open a shell, ms",
        Judge::TimesJump {
            limit: 0.25,
            aim: 0.1,
        },
    );
    table.declare("key typed every 10 ms, p50, µs", Judge::Echo);
    table.declare("key typed every 10 ms, p99, µs", Judge::None);
    table.declare("keys back to back, p50, µs", Judge::Echo);
    table.declare("keys back to back, p99, µs", Judge::None);
    table.declare("terminal output, MB/s", Judge::AtLeastJump);
    table.declare(
        "Ctrl-C in a flood, median, ms",
        Judge::AtMost {
            limit: 20.0,
            aim: 20.0,
        },
    );
    table.declare("Ctrl-C in a flood, slowest, ms", Judge::None);
}

impl Way {
    fn terminal(&self) -> Result<Terminal> {
        Terminal::open(&self.command, &self.variables)
    }

    fn ready(&self) -> Result<Terminal> {
        let mut terminal = self.terminal()?;
        terminal.until(PROMPT)?;
        Ok(terminal)
    }

    fn turn(&self, table: &mut Table) -> Result<()> {
        let openings = self.openings()?;
        table.add("open a shell, ms", self.peer, quantile(openings, 0.5));
        for (name, keys, pause) in [
            ("key typed every 10 ms", TYPED_KEYS, PAUSE),
            ("keys back to back", BUSY_KEYS, Duration::ZERO),
        ] {
            let times = self.echoes(keys, pause)?;
            table.add(
                &format!("{name}, p50, µs"),
                self.peer,
                quantile(times.clone(), 0.5),
            );
            table.add(
                &format!("{name}, p99, µs"),
                self.peer,
                quantile(times, 0.99),
            );
        }
        table.add("terminal output, MB/s", self.peer, self.output()?);
        let stops = self.interrupts()?;
        let median = quantile(stops.clone(), 0.5);
        table.add("Ctrl-C in a flood, median, ms", self.peer, median);
        table.add(
            "Ctrl-C in a flood, slowest, ms",
            self.peer,
            quantile(stops, 1.0),
        );
        Ok(())
    }

    /// From starting the client to the remote shell's prompt, in ms.
    fn openings(&self) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for _ in 0..OPENINGS {
            let mut terminal = self.ready()?;
            times.push(terminal.started.elapsed().as_secs_f64() * 1e3);
            terminal.keys("exit\r")?;
            terminal.close()?;
        }
        Ok(times)
    }

    /// From a key to its echo, in µs. The remote terminal itself echoes, before `cat`.
    fn echoes(&self, keys: usize, pause: Duration) -> Result<Vec<f64>> {
        let mut terminal = self.ready()?;
        // The terminal is the program's when the word comes, not the line editor's any more; and what
        // is typed then is shown twice as soon as `cat` reads.
        terminal.keys("echo CA''T; exec cat\r")?;
        terminal.until("CAT")?;
        terminal.keys("zz\r")?;
        terminal.until("zz\r\nzz\r\n")?;
        let mut times = Vec::new();
        for number in 0..keys {
            let letter = char::from(b'a' + u8::try_from(number % 26)?).to_string();
            let pressed = Instant::now();
            terminal.keys(&letter)?;
            terminal.until(&letter)?;
            times.push(pressed.elapsed().as_secs_f64() * 1e6);
            std::thread::sleep(pause);
            if number % LINE == LINE - 1 {
                terminal.keys("\r")?;
                terminal.until("\n")?;
                terminal.until("\n")?;
            }
        }
        terminal.keys("\r\x04")?;
        terminal.close()?;
        // The first ones warm up.
        Ok(times.split_off(keys / 10))
    }

    /// MB/s of lines of text.
    fn output(&self) -> Result<f64> {
        let mut terminal = self.ready()?;
        // The quotes keep the echo of the command from looking like its output.
        terminal.keys(format!(
            "echo BE''GIN; yes {TEXT} | head -c {OUTPUT_BYTES}; echo E''ND\r"
        ))?;
        terminal.until("BEGIN")?;
        let begun = Instant::now();
        let bytes = terminal.until("END")?;
        let seconds = begun.elapsed().as_secs_f64();
        terminal.until(PROMPT)?;
        terminal.keys("exit\r")?;
        terminal.close()?;
        Ok(bytes as f64 / seconds / 1e6)
    }

    /// From Ctrl-C in a flood until the terminal shows it, behind what was under way, in ms.
    fn interrupts(&self) -> Result<Vec<f64>> {
        let mut terminal = self.ready()?;
        let mut times = Vec::new();
        for _ in 0..FLOODS {
            terminal.keys(format!("yes {TEXT}\r"))?;
            terminal.until("\n")?;
            terminal.drink(FLOW)?;
            let pressed = Instant::now();
            terminal.keys("\x03")?;
            terminal.until("^C")?;
            times.push(pressed.elapsed().as_secs_f64() * 1e3);
            terminal.until(PROMPT)?;
        }
        terminal.keys("exit\r")?;
        terminal.close()?;
        Ok(times)
    }
}

/// Memory of the agent before its first session, and of what a session adds.
fn take_memory(ways: &[Way], agent: &Agent, table: &mut Table) -> Result<()> {
    let way = ways.first().context("no way to a shell")?;
    // What its start needed has settled.
    std::thread::sleep(Duration::from_secs(3));
    let idle = memory::of(agent.process_id())?;
    let mut terminal = way.ready()?;
    std::thread::sleep(Duration::from_secs(1));
    let worker = wait_for("the session's process", || {
        Ok(memory::children(agent.process_id(), "session-worker")?.pop())
    })?;
    let (busy, worker) = (memory::of(agent.process_id())?, memory::of(worker)?);
    let client = memory::of(terminal.process_id())?;
    terminal.keys("exit\r")?;
    terminal.close()?;
    let grown = busy.proportional + worker.proportional - idle.proportional;
    let mut row = |name: &str, judge, kib: f64| {
        table.declare(name, judge);
        table.add(name, Peer::Ours, kib / 1024.0);
    };
    row(
        "idle agent, RSS, MiB",
        Judge::AtMost {
            limit: 12.0,
            aim: 6.0,
        },
        idle.resident,
    );
    row("idle agent, private, MiB", Judge::None, idle.private);
    row(
        "a session more on the node, growth of PSS, MiB",
        Judge::AtMost {
            limit: 4.0,
            aim: 1.0,
        },
        grown,
    );
    row("session worker, RSS, MiB", Judge::None, worker.resident);
    row("session worker, private, MiB", Judge::None, worker.private);
    row("client, RSS, MiB", Judge::None, client.resident);
    row("client, private, MiB", Judge::None, client.private);
    Ok(())
}
