//! Many simulated nodes on one server: what an idle one costs, and how soon all are back after a
//! restart and after a crash.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    installation::Installation,
    memory,
    nodes::Report,
    note,
    table::{Judge, Peer, Table},
};

/// Nodes of one process: as many as one activation may register.
const PART: u32 = 1000;
/// How long the fleet may get no further.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a person who waits is told how it goes.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
/// How long a server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);

/// The processes of the fleet, and what each said last.
struct Fleet {
    parts: Vec<(Child, Option<ChildStdin>, u32)>,
    reports: Vec<Option<Report>>,
    said: Receiver<(usize, Report)>,
}

/// Measures with `nodes` nodes into `table`.
pub(crate) fn measure(programs: &Path, nodes: u32, table: &mut Table) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut installation = Installation::start(programs, folder.path())?;
    // Beside the programs, where `cargo clean` finds them.
    let keys = programs.join("bench-keys");
    fs::create_dir_all(&keys)?;
    let mut fleet = Fleet::register(&installation, &keys, nodes)?;
    // What registering took of memory is not what a connected node costs.
    installation.stop()?;
    installation.launch()?;
    thread::sleep(SETTLE);
    let without = memory::of(installation.process_id()?)?.resident;
    note(&format!("connecting {nodes} nodes"));
    fleet.connect()?;
    thread::sleep(SETTLE);
    let with = memory::of(installation.process_id()?)?.resident;
    let each = (with - without) / f64::from(nodes);
    let mut row = |name: &str, judge, value: f64| {
        table.declare(name, judge);
        table.add(name, Peer::Ours, value);
    };
    row(
        "a connected idle node on the server, KiB",
        Judge::AtMost {
            limit: 24.0,
            aim: 14.0,
        },
        each,
    );
    row(
        "server without nodes, RSS, MiB",
        Judge::None,
        without / 1024.0,
    );
    for (what, crash) in [("a restart", false), ("kill -9", true)] {
        note(&format!("{what} with {nodes} nodes"));
        let (away, back, refused) = fleet.outage(&mut installation, crash)?;
        let within = Judge::AtMost {
            limit: 20.0,
            aim: 20.0,
        };
        row(&format!("server away in {what}, s"), Judge::None, away);
        row(
            &format!("all nodes back since the begin of {what}, s"),
            within,
            back,
        );
        let none = Judge::AtMost {
            limit: 0.0,
            aim: 0.0,
        };
        row(&format!("refused after {what}"), none, f64::from(refused));
    }
    thread::sleep(SETTLE);
    let after = memory::of(installation.process_id()?)?.resident;
    row(
        "server after all came back, RSS, MiB",
        Judge::None,
        after / 1024.0,
    );
    Ok(())
}

impl Fleet {
    /// Starts the processes and waits until all nodes are registered.
    fn register(installation: &Installation, keys: &Path, nodes: u32) -> Result<Self> {
        let (say, said) = mpsc::channel();
        let mut fleet = Self {
            parts: Vec::new(),
            reports: Vec::new(),
            said,
        };
        note(&format!(
            "{nodes} nodes: keys (kept in {}; making one takes 0.1 s) and registration",
            keys.display()
        ));
        for part in 0..nodes.div_ceil(PART) {
            let count = PART.min(nodes - part * PART);
            fleet
                .parts
                .push(start(installation, keys, part, count, &say)?);
            fleet.reports.push(None);
        }
        fleet.wait("registration", |report, count| report.registered == count)?;
        Ok(fleet)
    }

    fn connect(&mut self) -> Result<()> {
        for (_, input, _) in &mut self.parts {
            input.as_mut().context("a closed input")?.write_all(b"\n")?;
        }
        self.wait("the nodes", |report, count| report.connected == count)
    }

    /// Takes the server away and brings it back: seconds it was away, seconds until all nodes were
    /// back, both since the begin, and how many times a node was refused.
    fn outage(&mut self, installation: &mut Installation, crash: bool) -> Result<(f64, f64, u32)> {
        let refused_before = self.refused();
        let begun = Instant::now();
        if crash {
            installation.kill()?;
        } else {
            installation.stop()?;
        }
        self.wait("the nodes' loss", |report, count| report.connected < count)?;
        installation.launch()?;
        let away = begun.elapsed().as_secs_f64();
        self.wait("the nodes' return", |report, count| {
            report.connected == count
        })?;
        let back = begun.elapsed().as_secs_f64();
        note(&format!("all back after {back:.1} s: {}", self.state()));
        Ok((away, back, self.refused() - refused_before))
    }

    fn refused(&self) -> u32 {
        self.sum(|report| report.refused)
    }

    /// Waits until this holds for what every process said last, as long as there is progress.
    fn wait(&mut self, what: &str, holds: impl Fn(&Report, u32) -> bool) -> Result<()> {
        let (mut best, mut better_at, mut told_at) = (0, Instant::now(), Instant::now());
        loop {
            let parts = self.parts.iter().zip(&self.reports);
            if parts.clone().all(|((.., count), report)| {
                report.as_ref().is_some_and(|report| holds(report, *count))
            }) {
                return Ok(());
            }
            let left = PATIENCE.saturating_sub(better_at.elapsed());
            let Ok((part, report)) = self.said.recv_timeout(left) else {
                bail!("waited in vain for {what}: {}", self.state());
            };
            if let Some(last) = self.reports.get_mut(part) {
                *last = Some(report);
            }
            let reached = self.sum(|report| report.keys + report.registered + report.connected);
            if reached > best {
                (best, better_at) = (reached, Instant::now());
            }
            if told_at.elapsed() >= TELL_INTERVAL {
                told_at = Instant::now();
                note(&self.state());
            }
        }
    }

    fn sum(&self, of: impl Fn(&Report) -> u32) -> u32 {
        self.reports.iter().flatten().map(of).sum()
    }

    /// How it goes, for a person.
    fn state(&self) -> String {
        let last = |of: fn(&Report) -> Option<&String>| {
            let found = self.reports.iter().flatten().find_map(of);
            found.map_or(String::new(), |text| format!(" ({text})"))
        };
        format!(
            "{} keys, {} registered, {} connected; so far {} refused{}, {} failed otherwise{}",
            self.sum(|report| report.keys),
            self.sum(|report| report.registered),
            self.sum(|report| report.connected),
            self.refused(),
            last(|report| report.refusal.as_ref()),
            self.sum(|report| report.failed),
            last(|report| report.failure.as_ref()),
        )
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (child, input, _) in &mut self.parts {
            // They end with their input.
            drop(input.take());
            let _ = child.wait();
        }
    }
}

type Part = (Child, Option<ChildStdin>, u32);

fn start(
    installation: &Installation,
    keys: &Path,
    part: u32,
    count: u32,
    say: &Sender<(usize, Report)>,
) -> Result<Part> {
    let activation = installation.activation(count)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["nodes", "--address", &installation.address().to_string()])
        .arg("--ca-file")
        .arg(installation.ca_file())
        .args([
            "--activation-id",
            &activation.id,
            "--activation-code",
            &activation.code,
        ])
        .args(["--count", &count.to_string(), "--part", &part.to_string()])
        .arg("--keys")
        .arg(keys.join(part.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (output, say) = (output.context("no output")?, say.clone());
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(report) = serde_json::from_str(&line) else {
                return;
            };
            if say.send((part as usize, report)).is_err() {
                return;
            }
        }
    });
    Ok((child, input, count))
}
