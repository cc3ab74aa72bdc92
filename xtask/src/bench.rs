//! `cargo xtask bench`: builds the programs as they are released and the tool in `benches/`, which
//! measures them beside OpenSSH and writes docs/benchmarks.md. Needs root and Debian's
//! `openssh-server` for the peers; without them only ours is measured, which the tool says and
//! `--check` does not let pass.

use std::{fs, process::Command};

use anyhow::{Result, bail};

use crate::workspace;

/// What is measured, and what measures.
const PACKAGES: [&str; 4] = [
    "sortie-server",
    "sortie-agent",
    "sortie-cli",
    "sortie-benches",
];
/// Where the part of the page begins that is written by people.
const REMARKS: &str = "\n## Remarks\n";

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fail when a limit is missed
    #[arg(long)]
    check: bool,
    /// How often ours and each peer has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How many simulated nodes
    #[arg(long, default_value_t = 10_000)]
    nodes: u32,
    /// Measure `decisions`, `shells`, `tunnels` or `fleet` alone, and write no page
    #[arg(long)]
    only: Option<String>,
    /// Further options of `sortie-bench run`, such as how much is moved
    #[arg(last = true)]
    more: Vec<String>,
}

/// Builds, measures, writes the page.
///
/// # Errors
/// When something could not be measured; with `--check` also when a limit is missed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--locked"]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    workspace::run("build", &mut build)?;
    let programs = workspace::target_dir()?.join("release");
    let page = workspace::root().join("docs/benchmarks.md");
    let earlier = fs::read_to_string(&page).unwrap_or_default();
    let mut measure = Command::new(programs.join("sortie-bench"));
    measure
        .arg("run")
        .arg("--programs")
        .arg(&programs)
        .arg("--page")
        .arg(&page);
    measure.args([
        "--rounds",
        &options.rounds.to_string(),
        "--nodes",
        &options.nodes.to_string(),
    ]);
    if let Some(part) = &options.only {
        measure.args(["--only", part]);
    }
    if options.check {
        measure.arg("--check");
    }
    measure.args(&options.more);
    let status = measure.status()?;
    if options.only.is_none() {
        keep_remarks(&page, &earlier)?;
    }
    if !status.success() {
        bail!("something was missed or could not be measured");
    }
    Ok(())
}

/// What people wrote below the table outlives it, until they change it.
fn keep_remarks(page: &std::path::Path, earlier: &str) -> Result<()> {
    let Some((_, remarks)) = earlier.split_once(REMARKS) else {
        return Ok(());
    };
    let fresh = fs::read_to_string(page)?;
    if !fresh.contains(REMARKS) {
        fs::write(page, format!("{fresh}{REMARKS}{remarks}"))?;
    }
    Ok(())
}
