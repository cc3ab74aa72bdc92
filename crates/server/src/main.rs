//! The program `sortie-server`: arguments in, exit status out. What it does is in the library.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sortie_server::{
    config::{Config, DEFAULT_CONFIG, ROOT_KEY_VARIABLE, Settings},
    descriptors,
    dev::{self, DevOptions},
    log,
};
use sortie_types::Secret;
use tokio::signal::unix::{SignalKind, signal};

/// The system's allocator keeps what thousands of nodes needed while they came back: it doubles what
/// an idle one costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A self-hosted AWS Session Manager.
#[derive(Parser)]
#[command(name = "sortie-server", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything on this machine, for trying out and developing
    Dev(Box<DevOptions>),
    /// The server
    Serve(Box<Serve>),
}

#[derive(clap::Args)]
struct Serve {
    /// Configuration file, TOML
    #[arg(long, env = "SORTIE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show the annotated defaults and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Settings,
}

fn main() -> ExitCode {
    // A session of the node inside `dev` is this program again, under its own name for it.
    if sortie_agent::worker::is_worker(std::env::args_os()) {
        return sortie_agent::worker::main();
    }
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "sortie-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(serve) if serve.print_config => {
            io::stdout().write_all(DEFAULT_CONFIG.as_bytes())?;
            Ok(())
        }
        Command::Serve(serve) => {
            let config = configuration(*serve)?;
            descriptors::raise_limit();
            log::start(config.log_format, &config.log).context("`log`")?;
            runtime()?.block_on(serve_until_told(config))
        }
        Command::Dev(options) => {
            options.start_log()?;
            runtime()?.block_on(dev_until_told(*options))
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn configuration(serve: Serve) -> anyhow::Result<Config> {
    let file = match &serve.config {
        Some(path) => Settings::from_file(path)?,
        None => Settings::default(),
    };
    let root_key = std::env::var(ROOT_KEY_VARIABLE).ok().map(Secret::new);
    Ok(Config::judge(serve.settings.over(file), root_key)?)
}

async fn serve_until_told(config: Config) -> anyhow::Result<()> {
    let mut told = Told::listen()?;
    let region = config.region.clone();
    let running = sortie_server::start(config).await?;
    if let Some(administrator) = &running.administrator {
        // The one time that a secret is shown.
        writeln!(
            io::stdout(),
            "administrator: {}\nAWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\nAWS_REGION={region}",
            administrator.user_name,
            administrator.access_key_id,
            administrator.secret_access_key.expose(),
        )?;
    }
    tracing::info!(https = %running.https, account = %running.control.account_id(), "ready");
    notify(&[sd_notify::NotifyState::Ready]);
    told.wait().await;
    tracing::info!("stopping");
    notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await;
    Ok(())
}

async fn dev_until_told(options: DevOptions) -> anyhow::Result<()> {
    let mut told = Told::listen()?;
    let started = tokio::select! {
        () = told.wait() => return Ok(()),
        started = dev::start(options) => started?,
    };
    io::stdout().write_all(started.welcome().as_bytes())?;
    io::stdout().flush()?;
    told.wait().await;
    started.stop().await;
    Ok(())
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// The two signals that tell a server to stop.
struct Told {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Told {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
