//! Runs a command of `sortie` and turns what came of it into an exit status.

use std::{ffi::OsString, sync::Arc};

use clap::Parser;
use sortie_client::{Api, ClientConfig, Environment, Overrides};

use crate::{
    FAILURE,
    arguments::{Arguments, Command, Plugin, Sessions},
    cp,
    error::CommandError,
    exec, explain, forward, login, nodes, output, plugin_install,
    prompt::OnTerminal,
    runtime, sessions, ssh, ssh_config, start, whoami,
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
    if let Command::SshConfig(config) = &arguments.command {
        ssh_config::run(config, &arguments.connection)?;
        return Ok(0);
    }
    let overrides = Overrides {
        may_be_new: matches!(arguments.command, Command::Login(_)),
        ..arguments.connection.overrides()
    };
    if matches!(arguments.command, Command::Logout) {
        login::log_out(&Environment::of_process(), &overrides)?;
        return Ok(0);
    }
    let config = ClientConfig::from_environment(&overrides)?;
    let api = Api::with_prompt(&config, Some(Arc::new(OnTerminal)))?;
    let runtime = runtime().map_err(|error| CommandError::io("start", error))?;
    let status = runtime.block_on(dispatch(arguments, &api));
    // A name lookup may still be running; nobody waits for it.
    runtime.shutdown_background();
    status
}

async fn dispatch(all: &Arguments, api: &Api) -> Result<u8, CommandError> {
    match &all.command {
        Command::Explain(arguments) => return explain::run(api, arguments).await,
        Command::Cp(arguments) => return cp::run(api, arguments).await,
        Command::Forward(arguments) => return forward::run(api, arguments).await,
        Command::Login(arguments) => {
            login::log_in(api, arguments, &all.connection.overrides()).await?;
        }
        Command::Nodes(arguments) => nodes::run(api, arguments).await?,
        Command::Ssh(arguments) => return ssh::run(api, arguments, &all.connection).await,
        Command::Exec(arguments) => return exec::run(api, arguments).await,
        Command::Start(arguments) => return start::run(api, arguments).await,
        Command::Sessions(Sessions::List(arguments)) => sessions::list(api, arguments).await?,
        Command::Sessions(Sessions::Show(arguments)) => sessions::show(api, arguments).await?,
        Command::Sessions(Sessions::Terminate(arguments)) => {
            sessions::terminate(api, arguments).await?;
        }
        Command::Whoami(arguments) => whoami::run(api, arguments).await?,
        // Done before a client was made.
        Command::Logout | Command::Plugin(_) | Command::SshConfig(_) => {}
    }
    Ok(0)
}
