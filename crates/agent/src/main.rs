//! The program `sortie-agent`: reads the command line and calls the library.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sd_notify::NotifyState;
use sortie_agent::{
    RegisterOptions, RegistrationError, RunError, RunOptions, default_data_dir, register, run,
    service::{self, ServiceOptions},
    worker,
};
use sortie_types::{Region, Secret};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Codes have at most 250 characters.
const CODE_LIMIT: u64 = 1024;

/// The Sortie node agent.
#[derive(Parser)]
#[command(name = "sortie-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Enrol this machine as a managed node
    Register(RegisterArguments),
    /// Run the agent
    Run {
        #[command(flatten)]
        data: DataArguments,
        /// Run sessions as the account that runs the agent, also when that is root
        #[arg(long)]
        run_as_self: bool,
    },
    /// Install and start the systemd unit
    Install {
        #[command(flatten)]
        data: DataArguments,
        /// Install into another root directory, without starting anything
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Stop and remove the systemd unit
    Uninstall {
        /// Remove from another root directory, without stopping anything
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
}

#[derive(Args)]
struct DataArguments {
    /// The agent's directory [default: /var/lib/sortie for root, else in the account's state directory]
    #[arg(long, value_name = "DIR", env = "SORTIE_AGENT_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataArguments {
    fn path(self) -> anyhow::Result<PathBuf> {
        self.data_dir
            .or_else(default_data_dir)
            .context("no home directory: give --data-dir")
    }
}

#[derive(Args)]
struct RegisterArguments {
    #[command(flatten)]
    data: DataArguments,
    /// The server, https://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// The activation's id
    #[arg(long, value_name = "ID")]
    activation_id: String,
    /// The activation's code; `-` reads it from standard input, which keeps it out of process lists
    #[arg(
        long,
        value_name = "CODE",
        env = "SORTIE_ACTIVATION_CODE",
        hide_env_values = true
    )]
    activation_code: String,
    /// Certificate authorities to trust besides the system's, in PEM
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// The name to show for this node
    #[arg(long)]
    name: Option<String>,
    /// The region to sign requests for, where the server does not say
    #[arg(long)]
    region: Option<Region>,
    /// Do not let ssm-user, as which sessions run, use sudo
    #[arg(long)]
    no_sudo: bool,
}

fn main() -> ExitCode {
    if worker::is_worker(std::env::args_os()) {
        return worker::main();
    }
    match carry_out(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "sortie-agent: {error:#}");
            let is_unregistered = error.downcast_ref().is_some_and(|error| {
                matches!(error, RunError::Registration(RegistrationError::Absent))
            });
            if is_unregistered {
                ExitCode::from(service::UNREGISTERED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Register(arguments) => register_node(arguments),
        Command::Run { data, run_as_self } => run_agent(data.path()?, run_as_self),
        Command::Install { data, root } => {
            let program = std::env::current_exe()?;
            let data_dir = std::path::absolute(data.path()?)?;
            say(&service::install(&ServiceOptions {
                root,
                program,
                data_dir,
            })?)
        }
        Command::Uninstall { root } => say(&service::uninstall(&root)?),
    }
}

fn say(lines: &[String]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn register_node(arguments: RegisterArguments) -> anyhow::Result<()> {
    let activation_code = match arguments.activation_code.as_str() {
        "-" => read_code()?,
        code => Secret::new(code),
    };
    let options = RegisterOptions {
        data_dir: arguments.data.path()?,
        endpoint: arguments.endpoint,
        activation_id: arguments.activation_id,
        activation_code,
        ca_file: arguments.ca_file,
        name: arguments.name,
        region: arguments.region,
        sudo: !arguments.no_sudo,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let node_id = runtime.block_on(register(options))?;
    say(&[format!("registered as {node_id}")])
}

fn read_code() -> anyhow::Result<Secret> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(CODE_LIMIT)
        .read_to_string(&mut text)?;
    Ok(Secret::new(text.trim()))
}

fn run_agent(data_dir: PathBuf, run_as_self: bool) -> anyhow::Result<()> {
    sortie_agent::log::to_standard_error();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stopping = stop.clone();
        let signals = tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopping.cancel();
        });
        // Ready means running, not connected: a node must boot while its server is away.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        let ended = run(RunOptions {
            run_as_self,
            ..RunOptions::new(data_dir, stop)
        })
        .await;
        signals.abort();
        Ok(ended?)
    })
}
