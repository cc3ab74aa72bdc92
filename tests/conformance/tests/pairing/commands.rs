//! Commands in a pairing: without a terminal, through an outage, and on a terminal.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sortie_testkit::Terminal;

use super::{Client, Node, Pairing};

/// How long an outage is: within what an official end survives.
const OUTAGE: Duration = Duration::from_millis(1500);

/// How many ticks come before an outage.
const CUT_AFTER: u32 = 10;

const WITHOUT_TERMINAL: &str = "AWS-StartNonInteractiveCommand";
const WITH_TERMINAL: &str = "AWS-StartInteractiveCommand";

/// Outputs apart, and the exit status.
pub(crate) fn separated(pairing: &mut Pairing) -> Result<()> {
    let script = "echo out; echo err >&2; exit 42";
    if pairing.client != Client::Sortie {
        let mut terminal = Terminal::open(&without_terminal(pairing, script)?, 100, 30)?;
        terminal.until("EXIT_CODE: 42")?;
        ensure!(
            terminal.exit_status()?.code() == Some(0),
            "the plugin failed"
        );
        let shown = terminal.shown();
        ensure!(
            shown.contains("out\r\n") && shown.contains("err\r\n"),
            "{shown}"
        );
        return pairing.node_is_clean();
    }
    let output = without_terminal(pairing, script)?.output()?;
    ensure!(output.status.code() == Some(42), "{output:?}");
    ensure!(
        output.stdout == b"out\n" && output.stderr == b"err\n",
        "{output:?}"
    );
    standard_input(pairing)?;
    pairing.node_is_clean()
}

/// Passed on, or refused before the command is run.
fn standard_input(pairing: &Pairing) -> Result<()> {
    let mut child = pairing
        .exec(&[], &["sh", "-c", "echo run; cat"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("no standard input")?
        .write_all(b"data\n")?;
    let output = child.wait_with_output()?;
    let (status, told) = match pairing.node {
        Node::OurAgent => (0, &b"run\ndata\n"[..]),
        Node::OfficialAgent => (255, &b""[..]),
    };
    ensure!(output.status.code() == Some(status), "{output:?}");
    ensure!(output.stdout == told, "{output:?}");
    let says_why = String::from_utf8_lossy(&output.stderr).contains("standard input");
    ensure!(
        says_why == (pairing.node == Node::OfficialAgent),
        "{output:?}"
    );
    Ok(())
}

/// A command goes on while the client is away, and nothing of it is lost.
pub(crate) fn client_cut(pairing: &mut Pairing) -> Result<()> {
    let script = "i=0; while [ $i -lt 50 ]; do echo tick $i; i=$((i+1)); sleep 0.1; done; exit 7";
    let mut child = without_terminal(pairing, script)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Official plugins leave when their input ends.
    let input = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut ticks = 0;
    while let Some(line) = lines.next().transpose()? {
        let Some(number) = line.strip_prefix("tick ") else {
            continue;
        };
        // An official client prints a message again whose acknowledgement met the broken connection.
        let is_again = pairing.client == Client::OfficialPlugin && ticks == CUT_AFTER;
        if is_again && number == (ticks - 1).to_string() {
            continue;
        }
        ensure!(
            number == ticks.to_string(),
            "tick {number} in the place of {ticks}"
        );
        ticks += 1;
        if ticks == CUT_AFTER {
            outage(pairing)?;
        }
    }
    ensure!(ticks == 50, "only {ticks} of 50 ticks came");
    drop(input);
    let status = child.wait()?.code();
    let expected = if pairing.client == Client::Sortie {
        7
    } else {
        0
    };
    ensure!(status == Some(expected), "exit status {status:?}");
    pairing.node_is_clean()
}

fn outage(pairing: &Pairing) -> Result<()> {
    pairing.client_network.refuse();
    ensure!(pairing.client_network.cut() > 0, "nothing to cut");
    thread::park_timeout(OUTAGE);
    pairing.client_network.pass();
    Ok(())
}

/// A command that asks something.
pub(crate) fn on_a_terminal(pairing: &mut Pairing) -> Result<()> {
    let script = "tty; echo \"name\"\"?\"; read x; echo \"<$x>\"; exit 9";
    let command = if pairing.client == Client::Sortie {
        pairing.exec(&["-t"], &["sh", "-c", script])?
    } else {
        pairing.document(WITH_TERMINAL, &json!({"command": [script]}))?
    };
    let mut terminal = Terminal::open(&command, 100, 30)?;
    terminal.until("/dev/pts/")?;
    terminal.until("name?")?;
    terminal.line("word")?;
    terminal.until("<word>")?;
    let status = terminal.exit_status()?.code();
    // Official agents do not say how a command on a terminal has ended.
    let is_told = pairing.client == Client::Sortie && pairing.node == Node::OurAgent;
    let expected = if is_told { 9 } else { 0 };
    ensure!(status == Some(expected), "exit status {status:?}");
    pairing.node_is_clean()
}

fn without_terminal(pairing: &Pairing, script: &str) -> Result<Command> {
    if pairing.client == Client::Sortie {
        return pairing.exec(&["-n"], &["sh", "-c", script]);
    }
    let parameters = json!({
        "command": [format!("sh -c '{script}'")],
        "separateOutputStream": ["true"],
    });
    pairing.document(WITHOUT_TERMINAL, &parameters)
}
