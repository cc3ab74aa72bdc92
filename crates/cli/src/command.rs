//! Runs a command of `sortie` and turns what came of it into an exit status.

use std::ffi::OsString;

use clap::Parser;
use sortie_client::{Api, ClientConfig};

use crate::{
    FAILURE,
    arguments::{Arguments, Command, Plugin, Sessions},
    error::CommandError,
    nodes, output, plugin_install, runtime, sessions, start, whoami,
};

/// Parses the arguments (the program's name first) and runs the command.
pub(crate) fn main(arguments: Vec<OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_answer = !error.use_stderr();
            // Nobody to tell when even this cannot be written.
            let _ = error.print();
            return if is_answer { 0 } else { FAILURE };
        }
    };
    match run(&arguments) {
        Ok(status) => status,
        Err(error) => {
            output::error_line(&format!("sortie: {}", error.full_text()));
            FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, CommandError> {
    if let Command::Plugin(Plugin::Install(install)) = &arguments.command {
        plugin_install::run(install)?;
        return Ok(0);
    }
    let config = ClientConfig::from_environment(&arguments.connection.overrides())?;
    let api = Api::new(&config)?;
    let runtime = runtime().map_err(|error| CommandError::io("start", error))?;
    let status = runtime.block_on(dispatch(&arguments.command, &api));
    // A name lookup may still be running; nobody waits for it.
    runtime.shutdown_background();
    status
}

async fn dispatch(command: &Command, api: &Api) -> Result<u8, CommandError> {
    match command {
        Command::Nodes(arguments) => nodes::run(api, arguments).await?,
        Command::Start(arguments) => return start::run(api, arguments).await,
        Command::Sessions(Sessions::List(arguments)) => sessions::list(api, arguments).await?,
        Command::Sessions(Sessions::Show(arguments)) => sessions::show(api, arguments).await?,
        Command::Sessions(Sessions::Terminate(arguments)) => {
            sessions::terminate(api, arguments).await?;
        }
        Command::Whoami(arguments) => whoami::run(api, arguments).await?,
        // Done before a client was made.
        Command::Plugin(_) => {}
    }
    Ok(0)
}
