//! Chores of the repository, as `cargo xtask <chore>`. Each chore is a module; this file only
//! chooses.

mod codegen;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of the repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Generate the shapes in crates/wire/src/shapes from the service models
    Codegen(codegen::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Codegen(options) => codegen::run(&options),
    }
}
