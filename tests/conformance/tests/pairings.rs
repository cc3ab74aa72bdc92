//! Every client with every node, ours and the official ones, unmodified: what a session must do in
//! all pairings. Each case that was tried is a line of JSON in the file that `SORTIE_PEERS_REPORT`
//! names; `cargo xtask peers` makes the compatibility table of them.

mod pairing;

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use pairing::{Client, Node, Pairing, Shell, commands, ports, report, station};
use sortie_testkit::{Proxy, Talk, wait_for};

/// How long an outage is: within what an official end survives.
const OUTAGE: Duration = Duration::from_millis(1500);

#[test]
fn official_plugin_and_official_agent() -> Result<()> {
    every_case(Client::OfficialPlugin, Node::OfficialAgent)
}

#[test]
fn official_plugin_and_our_agent() -> Result<()> {
    every_case(Client::OfficialPlugin, Node::OurAgent)
}

#[test]
fn our_plugin_and_official_agent() -> Result<()> {
    every_case(Client::OurPlugin, Node::OfficialAgent)
}

#[test]
fn our_plugin_and_our_agent() -> Result<()> {
    every_case(Client::OurPlugin, Node::OurAgent)
}

#[test]
fn our_command_line_and_official_agent() -> Result<()> {
    every_case(Client::Sortie, Node::OfficialAgent)
}

#[test]
fn our_command_line_and_our_agent() -> Result<()> {
    every_case(Client::Sortie, Node::OurAgent)
}

/// The official agent with one setting, its domain, and the official plugin over TLS.
#[test]
fn the_official_agent_needs_but_a_service_domain() -> Result<()> {
    let Some(station) = station(Client::OfficialPlugin, Node::OfficialAgent)? else {
        return Ok(());
    };
    let mut pairing = Pairing::by_service_domain(station)?;
    let tried = shell(&mut pairing).and_then(|()| exit(&mut pairing));
    report(&pairing, "ServiceDomain alone", "holds", &tried)?;
    tried.with_context(|| pairing.logs())
}

type Case = fn(&mut Pairing) -> Result<()>;

const MISSING: &str = "plugin missing";
const BEYOND: &str = "SOCKS, reverse";

/// In this order: the last ones leave nothing to go on with.
const CASES: [(&str, Case); 21] = [
    ("shell", shell),
    ("resize", resize),
    ("Ctrl-C", interrupt),
    ("exit", exit),
    ("TerminateSession", terminate),
    (MISSING, plugin_missing),
    ("resume, client cut for 1.5 s", client_cut),
    ("resume, node cut for 1.5 s", node_cut),
    ("resume, both cut for 1.5 s", both_cut),
    ("command", commands::separated),
    ("command, client cut for 1.5 s", commands::client_cut),
    ("command on a terminal", commands::on_a_terminal),
    ("port", ports::many),
    ("port, client cut for 1.5 s", ports::client_cut),
    ("port where nobody listens", ports::refused),
    ("raw port, as ssh uses it", ports::raw),
    (BEYOND, ports::beyond),
    ("server killed and restarted", server_restarted),
    ("40 cuts, 3 server kills, agent restart", whole_story),
    ("idle end", idle),
    ("node deregistered", deregistered),
];

fn every_case(client: Client, node: Node) -> Result<()> {
    let Some(station) = station(client, node)? else {
        return Ok(());
    };
    let mut pairing = Pairing::begin(station)?;
    let mut failures = Vec::new();
    for (name, case) in CASES {
        if let Some(why) = is_without(name, client) {
            report(&pairing, name, why, &Ok(()))?;
            continue;
        }
        let good = if name == BEYOND && node == Node::OfficialAgent {
            "refused before it starts"
        } else {
            "holds"
        };
        let tried = case(&mut pairing);
        report(&pairing, name, good, &tried)?;
        if let Err(error) = tried {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(
        failures.is_empty(),
        "{pairing}:\n{}\n{}",
        failures.join("\n"),
        pairing.logs()
    );
    Ok(())
}

/// Why there is nothing to try, where a client has no part in a case.
fn is_without(case: &str, client: Client) -> Option<&'static str> {
    match (case, client) {
        (MISSING, Client::Sortie) => Some("needs no plugin"),
        (BEYOND, Client::OfficialPlugin | Client::OurPlugin) => Some("not of a plugin"),
        _ => None,
    }
}

fn shell(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    ensure!(shell.ask("$((6 * 7))")? == "42", "a wrong answer");
    shell.count_ticks(400, "0")?;
    shell.leave(pairing)
}

fn resize(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.until_size("100x30")?;
    shell.terminal.resize(77, 20)?;
    shell.until_size("77x20")?;
    shell.leave(pairing)
}

fn interrupt(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.ask("0")?;
    // Said by the program itself: before, Ctrl-C would meet the shell that still starts it.
    shell
        .terminal
        .line("sh -c 'echo sta\"\"rted; exec sleep 1000'; echo ne\"\"ver")?;
    shell.terminal.until("started")?;
    shell.terminal.keys([3])?;
    // The terminal throws away what is typed behind a Ctrl-C until it has acted on it.
    shell.terminal.until("^C")?;
    ensure!(shell.ask("$?")? == "130", "the program was not interrupted");
    shell.leave(pairing)
}

fn exit(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.ask("0")?;
    shell.terminal.line("exit")?;
    if pairing.client != Client::Sortie {
        shell
            .terminal
            .until(&format!("Exiting session with sessionId: {}.", shell.id))?;
    }
    let status = shell.terminal.exit_status()?;
    ensure!(status.success(), "the client ended with {status}");
    shell.terminal_is_as_before(pairing)?;
    pairing.is_over(&shell.id)?;
    pairing.node_is_clean()
}

fn terminate(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.ask("0")?;
    pairing.aws(&["ssm", "terminate-session", "--session-id", &shell.id])?;
    shell.terminal.until("Your session was ended by admin")?;
    shell.terminal.exit_status()?;
    shell.terminal_is_as_before(pairing)?;
    pairing.is_over(&shell.id)?;
    pairing.node_is_clean()
}

/// The CLI finds no plugin, ends the session that it has just started and says so.
fn plugin_missing(pairing: &mut Pairing) -> Result<()> {
    let output = pairing.command_without_plugin()?.output()?;
    ensure!(output.status.code() == Some(255), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("SessionManagerPlugin is not found"), "{said}");
    wait_for("no session to be open", || {
        Ok(pairing.sessions("Active")?.is_empty().then_some(()))
    })?;
    pairing.node_is_clean()
}

fn idle(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.ask("0")?;
    let text = "idle for 1 minute";
    // The limit is as long as a test waits.
    let shown = shell.terminal.until(text);
    shown.or_else(|_| shell.terminal.until(text))?;
    shell.terminal.exit_status()?;
    pairing.is_over(&shell.id)?;
    pairing.node_is_clean()
}

fn client_cut(pairing: &mut Pairing) -> Result<()> {
    through_outage(pairing, |pairing| {
        pairing.client_network.refuse();
        ensure!(pairing.client_network.cut() > 0, "nothing to cut");
        thread::park_timeout(OUTAGE);
        pairing.client_network.pass();
        Ok(())
    })
}

fn node_cut(pairing: &mut Pairing) -> Result<()> {
    through_outage(pairing, |pairing| {
        pairing.node_network.refuse();
        ensure!(pairing.node_network.cut() > 0, "nothing to cut");
        thread::park_timeout(OUTAGE);
        pairing.node_network.pass();
        Ok(())
    })
}

fn both_cut(pairing: &mut Pairing) -> Result<()> {
    through_outage(pairing, |pairing| {
        for network in [&pairing.client_network, &pairing.node_network] {
            network.refuse();
            ensure!(network.cut() > 0, "nothing to cut");
        }
        thread::park_timeout(OUTAGE);
        pairing.client_network.pass();
        pairing.node_network.pass();
        Ok(())
    })
}

/// A session that counts while something breaks: no line is lost, doubled or out of order, what is
/// typed meanwhile arrives, and the session ends as usual.
fn through_outage(
    pairing: &mut Pairing,
    break_it: impl FnOnce(&Pairing) -> Result<()>,
) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.ask("0")?;
    let count = 60;
    shell.start_ticks(count, "0.05")?;
    shell.terminal.until("tick-5\r")?;
    break_it(pairing)?;
    shell.check_ticks(6, count)?;
    ensure!(shell.ask("$((6 * 7))")? == "42", "a wrong answer");
    pairing.until_online()?;
    shell.leave(pairing)
}

fn server_restarted(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.ask("0")?;
    let count = 60;
    shell.start_ticks(count, "0.05")?;
    shell.terminal.until("tick-5\r")?;
    pairing.kill()?;
    pairing.restart()?;
    shell.check_ticks(6, count)?;
    ensure!(shell.ask("$((6 * 7))")? == "42", "a wrong answer");
    shell.leave(pairing)?;
    pairing.until_online()?;
    // And everything is as before.
    exit(pairing)
}

/// One session, typed through twenty cuts of each side's connections, three kills of the server and a
/// restart of the agent, with every byte compared.
fn whole_story(pairing: &mut Pairing) -> Result<()> {
    let mut talk = pairing.talk()?;
    talk.catch_up()?;
    let id = pairing.only_session()?;
    for round in 0..20 {
        let place = || format!("cut {round}");
        for network in [&pairing.node_network, &pairing.client_network] {
            lose(pairing, &mut talk, network, round).with_context(place)?;
        }
    }
    for round in 0..3 {
        let place = || format!("kill {round}");
        let networks = [&pairing.node_network, &pairing.client_network];
        fall_silent(pairing, &mut talk, &networks).with_context(place)?;
        pairing.kill()?;
        // What was held back must not reach an end whose connection breaks behind it.
        for network in [&pairing.node_network, &pairing.client_network] {
            network.cut();
            network.pass();
        }
        pairing.restart()?;
        talk.hear(1).with_context(place)?;
        talk.catch_up().with_context(place)?;
    }
    pairing.until_online()?;
    pairing.restart_agent()?;
    talk.catch_up().context("the agent was restarted")?;
    ensure!(talk.typed() > 40, "only {} lines were typed", talk.typed());
    // Of ours alone: the official programs have no exit codes.
    let both_are_ours = pairing.client == Client::Sortie && pairing.node == Node::OurAgent;
    let expected = if both_are_ours { 7 } else { 0 };
    let status = talk.finish()?;
    ensure!(status == Some(expected), "the client ended with {status:?}");
    pairing.is_over(&id)?;
    pairing.node_is_clean()
}

/// Breaks the connections of one end; in every fourth round it cannot come back at once.
fn lose(pairing: &Pairing, talk: &mut Talk, network: &Proxy, round: u32) -> Result<()> {
    fall_silent(pairing, talk, &[network])?;
    network.cut();
    if round % 4 == 3 {
        let refused = network.accepted();
        network.refuse();
        network.cut();
        while network.accepted() == refused {
            talk.listen()?;
        }
    }
    network.pass();
    // Only a new connection can bring anything.
    talk.hear(1)?;
    talk.catch_up()
}

/// An official end takes again what it was busy with when its connection broke, since it could not
/// write the acknowledgement; and the client gives up at once when a key is typed before it has noticed
/// the loss. So before an official end's connection breaks, nothing passes any more. Ours are cut in the
/// middle of things.
fn fall_silent(pairing: &Pairing, talk: &mut Talk, networks: &[&Proxy]) -> Result<()> {
    let is_official = |network: &&&Proxy| {
        if network.address() == pairing.node_network.address() {
            pairing.node == Node::OfficialAgent
        } else {
            pairing.client == Client::OfficialPlugin
        }
    };
    let official: Vec<&Proxy> = networks.iter().filter(is_official).copied().collect();
    if official.is_empty() {
        return talk.type_line();
    }
    talk.fall_silent(&official)
}

/// The session ends with a text, no other starts, and the node is not driven into a frenzy.
fn deregistered(pairing: &mut Pairing) -> Result<()> {
    let mut shell = pairing.open()?;
    shell.ask("0")?;
    let node_id = pairing.node_id.clone();
    pairing.aws(&[
        "ssm",
        "deregister-managed-instance",
        "--instance-id",
        &node_id,
    ])?;
    shell.terminal.until("deregistered")?;
    shell.terminal.exit_status()?;
    pairing.is_over(&shell.id)?;
    pairing.node_is_clean()?;
    let (connections, refusals) = (pairing.node_network.accepted(), pairing.refusals());
    thread::park_timeout(Duration::from_secs(15));
    let connections = pairing.node_network.accepted() - connections;
    let refusals = u64::try_from(pairing.refusals() - refusals)?;
    // Ours tries again after anything from nothing to a bound that doubles up to 10 s, without end, so
    // how often is chance; a frenzy is hundreds.
    let most = match pairing.node {
        Node::OfficialAgent => 6,
        Node::OurAgent => 30,
    };
    ensure!(
        connections <= most && refusals <= most,
        "{connections} connections and {refusals} refused calls in 15 s"
    );
    Ok(())
}

impl Shell {
    /// Types a line whose answer cannot be mistaken for the echo of the typing, and waits for it.
    fn ask(&mut self, expression: &str) -> Result<String> {
        let terminal = &mut self.terminal;
        terminal.line(&format!("echo \"=\"\"[\"{expression}\"]\"\"=\""))?;
        // The echoed line has quotes between the equals sign and the bracket.
        terminal.until("=[")?;
        let answer = terminal.until("]=")?;
        Ok(answer.trim_end_matches("]=").to_owned())
    }

    fn until_size(&mut self, size: &str) -> Result<()> {
        wait_for("the size to reach the shell", || {
            let shown = self.ask("$(stty size | sed 's/\\(.*\\) \\(.*\\)/\\2x\\1/')")?;
            Ok((shown == size).then_some(()))
        })
    }

    /// Starts to print numbered lines, `pause` seconds apart.
    fn start_ticks(&mut self, count: u32, pause: &str) -> Result<()> {
        self.terminal.line(&format!(
            "for i in $(seq {count}); do echo ti\"\"ck-$i; sleep {pause}; done; echo do\"\"ne"
        ))
    }

    /// Waits for the last of the lines and looks at all from `first`.
    fn check_ticks(&mut self, first: u32, count: u32) -> Result<()> {
        let shown = self.terminal.until("done\r")?;
        // A shell may switch a mode of the terminal off before the first line.
        let seen: Vec<&str> = shown
            .split('\n')
            .filter_map(|line| line.find("tick-").and_then(|start| line.get(start..)))
            // The official plugin leaves the terminal's own treatment of line ends on.
            .map(|line| line.trim_end_matches('\r'))
            .collect();
        let expected: Vec<String> = (first..=count).map(|i| format!("tick-{i}")).collect();
        ensure!(seen == expected, "the lines came as {seen:?}");
        Ok(())
    }

    fn count_ticks(&mut self, count: u32, pause: &str) -> Result<()> {
        self.start_ticks(count, pause)?;
        self.check_ticks(1, count)
    }

    /// Only where the client is ours: the official plugin is what it is.
    fn terminal_is_as_before(&self, pairing: &Pairing) -> Result<()> {
        let is_ours = pairing.client != Client::OfficialPlugin;
        ensure!(
            !is_ours || self.terminal.is_cooked()?,
            "the terminal is left in disorder"
        );
        Ok(())
    }

    /// Ends the session from inside and waits until it is over everywhere.
    fn leave(mut self, pairing: &Pairing) -> Result<()> {
        self.terminal.line("exit")?;
        self.terminal.exit_status()?;
        pairing.is_over(&self.id)
    }
}
