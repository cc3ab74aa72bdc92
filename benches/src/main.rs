//! `sortie-bench`: measures Sortie beside OpenSSH, in turns, on one machine and over loopback, and
//! judges the figures. `cargo xtask bench` builds and starts it. With `nodes` it is a part of the
//! simulated fleet instead.

mod api;
mod decisions;
mod fleet;
mod installation;
mod memory;
mod nodes;
mod page;
mod peers;
mod processor;
mod shells;
mod table;
mod terminal;
mod traffic;
mod tunnels;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "sortie-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure everything
    Run(Run),
    /// Be some of the simulated nodes
    Nodes(nodes::Options),
}

#[derive(Args)]
struct Run {
    /// Folder with sortie-server, sortie-agent and sortie
    #[arg(long)]
    programs: PathBuf,
    /// Where the page goes
    #[arg(long)]
    page: PathBuf,
    /// Fail when a limit is missed
    #[arg(long)]
    check: bool,
    /// How often each peer has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measure this part alone, and write no page
    #[arg(long)]
    only: Option<Part>,
    /// How many simulated nodes
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    nodes: u32,
    #[command(flatten)]
    sizes: tunnels::Sizes,
    /// Niceness of what is measured; others on the machine must not be. Only root may go below 0
    #[arg(
        long, default_value_t = -10, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-20..=19)
    )]
    nice: i32,
}

/// What can be measured without the other.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Decisions of policies
    Decisions,
    /// One shell, beside OpenSSH's
    Shells,
    /// Tunnels, commands and copies, beside OpenSSH's
    Tunnels,
    /// The simulated nodes
    Fleet,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Nodes(options) => nodes::run(options).map(|()| ExitCode::SUCCESS),
        Command::Run(run) => measure(&run),
    }
}

fn measure(run: &Run) -> Result<ExitCode> {
    let mut table = table::Table::default();
    let before = page::Machine::now();
    let preferred = rustix::process::setpriority_process(None, run.nice).is_ok();
    let nice = if preferred { run.nice } else { 0 };
    let keep = |table: &table::Table, nodes| match run.only {
        Some(_) => Ok(()),
        None => std::fs::write(
            &run.page,
            page::render(table, run.rounds, nodes, &before, nice),
        ),
    };
    let wants = |part| run.only.is_none_or(|only| only == part);
    if wants(Part::Decisions) {
        decisions::measure(run.rounds, &mut table)?;
    }
    if wants(Part::Shells) {
        shells::measure(&run.programs, run.rounds, &mut table)?;
        // Also what is measured so far is worth keeping, should the fleet fail.
        keep(&table, 0)?;
    }
    if wants(Part::Tunnels) {
        tunnels::measure(&run.programs, run.rounds, &run.sizes, &mut table)?;
        keep(&table, 0)?;
    }
    if wants(Part::Fleet) {
        fleet::measure(&run.programs, run.nodes, &mut table)?;
        keep(&table, run.nodes)?;
    }
    writeln!(io::stdout(), "{}", table.render())?;
    let missed = table.missed();
    for row in &missed {
        writeln!(io::stdout(), "missed: {row}")?;
    }
    let unjudged = table.unjudged();
    for row in &unjudged {
        writeln!(io::stdout(), "not judged, as a figure is missing: {row}")?;
    }
    Ok(
        if run.check && !(missed.is_empty() && unjudged.is_empty()) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        },
    )
}

/// A line for the person who waits.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "bench: {text}");
}
