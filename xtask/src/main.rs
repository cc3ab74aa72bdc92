//! Chores of the repository, as `cargo xtask <chore>`. Each chore is a module; this file only
//! chooses.

mod bench;
mod codegen;
mod dev;
mod fuzz;
mod peers;
mod test;
mod workspace;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of the repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measure beside OpenSSH and with simulated nodes, and write docs/benchmarks.md
    Bench(bench::Options),
    /// Generate the shapes in crates/wire/src/shapes from the service models
    Codegen(codegen::Options),
    /// Build everything and start a server for trying things out
    Dev {
        /// Build optimised programs
        #[arg(long)]
        release: bool,
        /// Arguments for `sortie-server dev`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz the parsers of strangers' bytes
    Fuzz {
        /// One target instead of all
        target: Option<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// Try every pairing with the official programs and write docs/compatibility.md
    Peers,
    /// Run everything that must be green before a change lands
    Test {
        /// Leave out what needs other people's programs, and fuzzing
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Bench(options) => bench::run(&options),
        Chore::Codegen(options) => codegen::run(&options),
        Chore::Dev { release, arguments } => dev::run(release, &arguments),
        Chore::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Chore::Peers => peers::run(),
        Chore::Test { quick } => test::run(quick),
    }
}
