//! `cargo xtask peers`: tries our client, server and agent in every pairing with the official
//! programs that are found in `SORTIE_PEERS` or on `PATH`, and writes docs/compatibility.md. The
//! cases themselves are the tests in tests/conformance/tests/pairings.rs.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{test, workspace};

/// What must be there for a table that is worth keeping.
const OFFICIAL: [&str; 2] = ["session-manager-plugin", "amazon-ssm-agent"];

/// A case that was tried, as the tests write it down.
#[derive(Debug, Deserialize)]
struct Tried {
    client: String,
    node: String,
    case: String,
    result: String,
    detail: String,
    versions: Versions,
}

/// What the programs said about themselves.
#[derive(Debug, Deserialize)]
struct Versions {
    client: String,
    node: String,
    cli: String,
}

/// Runs all cases and writes the table. Without the official programs nothing is run or written,
/// which is said.
///
/// # Errors
/// When a case fails; the table is written all the same.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<&str> = OFFICIAL
        .into_iter()
        .filter(|name| !is_there(name))
        .collect();
    if !missing.is_empty() {
        workspace::note(&format!(
            "skipped: {} neither in SORTIE_PEERS nor on PATH",
            missing.join(" and ")
        ));
        return Ok(());
    }
    let mut build = workspace::cargo();
    build.args(["build", "--quiet", "--locked", "--package", "sortie-server"]);
    build.args(["--package", "sortie-agent", "--package", "sortie-cli"]);
    workspace::run("build", &mut build)?;

    let report = workspace::target_dir()?.join("peers").join("report.jsonl");
    let installed = test::install_peers()?;
    let _ = fs::remove_file(&report);
    let mut tests = workspace::cargo_test();
    tests
        .args(["--quiet", "--locked", "--package"])
        .args(["sortie-conformance", "--test", "pairings"])
        // They mostly wait.
        .args(["--", "--test-threads", "8"])
        .envs(installed.variables())
        .env("SORTIE_PEERS_REPORT", &report);
    let outcome = workspace::run("pairings", &mut tests);
    let tried = read(&report)?;
    let page = workspace::root().join("docs/compatibility.md");
    fs::write(&page, render(&tried, &today())?)?;
    workspace::note(&format!("{} cases written", tried.len()));
    outcome
}

fn is_there(name: &str) -> bool {
    let mut folders: Vec<PathBuf> = env::var_os("SORTIE_PEERS")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let path = env::var_os("PATH").unwrap_or_default();
    folders.extend(env::split_paths(&path));
    folders.iter().any(|folder| folder.join(name).is_file())
}

fn read(report: &Path) -> Result<Vec<Tried>> {
    let text = fs::read_to_string(report).context("no case was tried")?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("the report has `{line}`")))
        .collect()
}

const HEAD: &str = "\
# Compatibility with the official programs

Unmodified official programs, configured by their own settings and certificate trust alone, in every
pairing with ours. Made by `cargo xtask peers`, which runs the cases of
`tests/conformance/tests/pairings.rs` against a server of its own for each pairing; do not edit.

The agents run each on a machine of Linux namespaces. `session-manager-plugin` and `sortie as plugin`
are started by the stock AWS CLI. An outage breaks every connection of one end, or of both, and
refuses new ones for 1.5 s while numbered lines are printed; none may be lost, doubled or out of
order, and what is typed afterwards must arrive. The server is killed (SIGKILL) and started again at
once. In the longest case one session is typed through twenty cuts of each end's connections, three
kills of the server and a restart of the agent's own process, with every byte compared in both
directions. After each end nothing of the session may be left on the node; after a deregistration the node
may make no more than six connections and six refused calls in 15 s, ours no more than thirty. What
official programs have no word for, a SOCKS proxy and ports that the node listens at, needs `sortie forward` and
our agent; with another agent it is refused before a session exists.
";

/// The whole page.
fn render(tried: &[Tried], date: &str) -> Result<String> {
    let mut page = HEAD.to_owned();
    for (client, node) in pairings(tried)? {
        let cases = || {
            tried
                .iter()
                .filter(|tried| tried.client == client && tried.node == node)
        };
        let versions = &cases().next().context("a pairing without a case")?.versions;
        let Versions {
            client: first,
            node: second,
            cli,
        } = versions;
        let cli = match client.as_str() {
            "sortie start" => String::new(),
            _ => format!(", {cli}"),
        };
        write!(
            page,
            "\n## {client} and {node}\n\nVersions: {first}, {second}{cli}.\n\n"
        )?;
        page.push_str("| case | date | result |\n|---|---|---|\n");
        for tried in cases() {
            writeln!(page, "| {} | {date} | {} |", tried.case, outcome(tried))?;
        }
    }
    Ok(page)
}

/// All pairings, those with official programs first.
fn pairings(tried: &[Tried]) -> Result<Vec<(String, String)>> {
    let mut pairings: Vec<(String, String)> = tried
        .iter()
        .map(|tried| (tried.client.clone(), tried.node.clone()))
        .collect();
    pairings.sort_by_key(|(client, node)| {
        let rank = |name: &str| ["session-manager-plugin", "amazon-ssm-agent"].contains(&name);
        (!rank(client), !rank(node), client.clone())
    });
    pairings.dedup();
    if pairings.is_empty() {
        bail!("no case was tried");
    }
    Ok(pairings)
}

fn outcome(tried: &Tried) -> String {
    let first = tried.detail.lines().next().unwrap_or_default();
    if first.is_empty() {
        tried.result.clone()
    } else {
        format!("**{}**: {}", tried.result, first.replace('|', "\\|"))
    }
}

/// The date in UTC, as `2026-11-22`.
fn today() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    date(since.unwrap_or_default())
}

/// The civil date of a time since 1970: whole eras of 400 years, years that begin in March.
fn date(since: Duration) -> String {
    let days = since.as_secs() / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        for (days, text) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_779, "2026-11-22"),
            (20_818, "2026-12-31"),
        ] {
            assert_eq!(date(Duration::from_secs(days * 86_400 + 86_399)), text);
        }
    }

    #[test]
    fn a_page_has_a_table_for_each_pairing_and_says_what_failed() {
        let line = |client: &str, case: &str, result: &str, detail: &str| Tried {
            client: client.into(),
            node: "sortie-agent".into(),
            case: case.into(),
            result: result.into(),
            detail: detail.into(),
            versions: Versions {
                client: "c 1".into(),
                node: "n 2".into(),
                cli: "aws-cli 3".into(),
            },
        };
        let tried = [
            line("sortie start", "shell", "holds", ""),
            line("session-manager-plugin", "shell", "fails", "a | b\nmore"),
        ];
        let page = render(&tried, "2026-11-22").unwrap();
        let official = page
            .find("## session-manager-plugin and sortie-agent")
            .unwrap();
        let ours = page.find("## sortie start and sortie-agent").unwrap();
        assert!(official < ours);
        assert!(page.contains("| shell | 2026-11-22 | **fails**: a \\| b |"));
        assert!(page.contains("| shell | 2026-11-22 | holds |"));
        assert!(page.contains("Versions: c 1, n 2, aws-cli 3."));
        assert!(page.contains("Versions: c 1, n 2.\n"));
    }
}
