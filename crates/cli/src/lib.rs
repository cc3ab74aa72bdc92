//! The command line programs `sortie` and `session-manager-plugin`: one binary that looks at the name
//! it was called by.
//!
//! Both sit on `sortie-client`; here is what a person sees: arguments, tables, the terminal, the
//! reason of an end, the exit status.

mod arguments;
mod command;
mod cp;
mod denial;
mod error;
mod escape;
mod exec;
mod explain;
mod forward;
mod login;
mod nodes;
mod output;
mod plugin;
mod plugin_install;
mod prompt;
mod sessions;
mod shell;
mod socks;
mod ssh;
mod ssh_config;
mod start;
mod stdio;
mod terminal;
mod whoami;

use std::{ffi::OsString, path::Path, process::ExitCode};

/// The name under which the program is AWS's plugin.
const PLUGIN_NAME: &str = "session-manager-plugin";

/// Exit status of the program's own failures, as `ssh` has it.
const FAILURE: u8 = 255;

/// Runs the program under the name it was called by.
#[must_use]
pub fn main() -> ExitCode {
    terminal::restore_on_panic();
    start_log();
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let code = if is_plugin(&program) {
        plugin::main(arguments.collect())
    } else {
        command::main(std::iter::once(program).chain(arguments).collect())
    };
    ExitCode::from(code)
}

fn is_plugin(program: &OsString) -> bool {
    Path::new(program)
        .file_stem()
        .is_some_and(|name| name == PLUGIN_NAME)
}

/// Libraries that at their finest levels log what passes through them: tokens and terminal bytes.
const NEVER_FINER: [&str; 6] = [
    "hyper=info",
    "hyper_util=info",
    "reqwest=info",
    "rustls=info",
    "tokio_tungstenite=info",
    "tungstenite=info",
];

/// The log goes to standard error and only when `SORTIE_LOG` asks for it: the terminal is the
/// session's.
fn start_log() {
    let Ok(filter) = std::env::var("SORTIE_LOG") else {
        return;
    };
    let limits = NEVER_FINER
        .iter()
        .filter_map(|directive| directive.parse().ok());
    let filter = limits.fold(
        tracing_subscriber::EnvFilter::new(filter),
        tracing_subscriber::EnvFilter::add_directive,
    );
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// A runtime on this thread: sessions move little and answer fast.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
