//! Commands without a terminal: how long one takes that does nothing, and how fast much goes through
//! the standard input and output of another.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Ground, Sizes, spoken};
use crate::{
    installation::Variables,
    note,
    table::{Judge, Peer, Table, quantile},
    traffic,
};

/// Commands of a turn, behind one that warms up.
const COMMANDS: usize = 12;

/// What runs a command.
struct Way {
    peer: Peer,
    nothing: Vec<String>,
    /// Gives back what it gets.
    copy: Vec<String>,
    variables: Variables,
}

pub(super) fn measure(
    ground: &Ground,
    rounds: u32,
    sizes: &Sizes,
    table: &mut Table,
) -> Result<()> {
    let quick = "command that does nothing, ms";
    let much = format!(
        "{} through a command and back, MB/s",
        spoken(sizes.copy_bytes)
    );
    let quarter = Judge::TimesJump {
        limit: 0.25,
        aim: 0.25,
    };
    table.declare(quick, quarter);
    table.declare(&much, Judge::None);
    let ways = ways(ground)?;
    for round in 1..=rounds {
        note(&format!("commands: round {round} of {rounds}"));
        for way in &ways {
            let failed = || format!("{:?}", way.peer);
            let times = way.run_nothing().with_context(failed)?;
            table.add(quick, way.peer, quantile(times, 0.5));
            let rate = way.copy(sizes.copy_bytes).with_context(failed)?;
            table.add(&much, way.peer, rate);
        }
    }
    Ok(())
}

fn ways(ground: &Ground) -> Result<Vec<Way>> {
    let node = ground.agent.node_id.as_str();
    let ours = |word| ground.installation.client(&["exec", node, "--", word]);
    let ((nothing, variables), (copy, _)) = (ours("true")?, ours("cat")?);
    let mut ways = vec![Way {
        peer: Peer::Ours,
        nothing,
        copy,
        variables,
    }];
    for (peer, host, fast_host) in [
        (Peer::Jump, "jump", "jump-gcm"),
        (Peer::Reverse, "rev", "rev-gcm"),
    ] {
        ways.extend(ground.peers.as_ref().map(|peers| Way {
            peer,
            nothing: peers.command(host, &["true"]),
            copy: peers.command(fast_host, &["cat"]),
            variables: Vec::new(),
        }));
    }
    Ok(ways)
}

impl Way {
    /// Wall times in ms.
    fn run_nothing(&self) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for _ in 0..=COMMANDS {
            let begun = Instant::now();
            let output = self.program(&self.nothing)?.stdin(Stdio::null()).output()?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            ensure!(output.status.success(), "{output:?}");
            ensure!(output.stdout.is_empty(), "it says {output:?}");
        }
        Ok(times.split_off(1))
    }

    /// The rate at which everything comes back unchanged, in MB/s.
    fn copy(&self, bytes: u64) -> Result<f64> {
        let begun = Instant::now();
        let mut child = self
            .program(&self.copy)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (mut input, mut output) = input.zip(output).context("no pipes")?;
        let (given, got, rest) = thread::scope(|scope| {
            // Its end closes the pipe.
            let given = scope.spawn(move || traffic::offer(&mut input, bytes));
            let got = traffic::take(&mut output, bytes, Duration::ZERO);
            let rest = std::io::copy(&mut output, &mut std::io::sink());
            // Where too little came it must not write for ever.
            drop(output);
            (given.join(), got, rest)
        });
        let status = child.wait()?;
        let Ok(given) = given else {
            bail!("the writer failed");
        };
        traffic::same(got?.as_ref(), given?.as_ref())?;
        ensure!(rest? == 0, "more came back than was given");
        ensure!(status.success(), "{status}");
        Ok(bytes as f64 / begun.elapsed().as_secs_f64() / 1e6)
    }

    fn program(&self, words: &[String]) -> Result<Command> {
        let (program, arguments) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(self.variables.iter().cloned());
        Ok(command)
    }
}
