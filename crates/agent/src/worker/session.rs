//! A session from its first websocket to its result, whatever it does: picks the work, says goodbye and
//! makes the result. The work itself is in `terminal`, `command` and `port`.

use std::{io, time::Duration};

use tokio::sync::mpsc;

use super::{
    channel::DataChannel,
    command,
    outside::{End, Outside},
    port,
    requests::Asked,
    terminal,
};
use crate::{
    document::Work,
    os::{Account, EndSignals},
    task_result::TaskResult,
};

/// What a session needs besides its channel.
pub(crate) struct SessionOptions {
    pub(crate) account: Account,
    /// What is run.
    pub(crate) work: Work,
    /// The bound of every wait for a server or client that is away.
    pub(crate) idle_limit: Duration,
}

/// Runs the session to its end.
pub(crate) async fn run(
    options: SessionOptions,
    channel: DataChannel,
    asked: mpsc::Receiver<Asked>,
) -> TaskResult {
    let now = crate::clock::wall;
    let signals = match EndSignals::new() {
        Ok(signals) => signals,
        Err(error) => return TaskResult::failed(error, now()),
    };
    let mut outside = Outside::new(channel, asked, signals, options.idle_limit);
    let end = match conduct(&options, &mut outside).await {
        Ok(end) | Err(Stopped::Outside(end)) => end,
        Err(Stopped::Io(error)) => End::Failed(error.to_string()),
    };
    tracing::info!(?end, "the session is over");
    outside.channel.close(end == End::Exited).await;
    match end {
        End::Exited | End::Cancelled => TaskResult::success("", now()),
        End::CutOff => TaskResult::success(
            "The session was ended because the node could not reach the server for the session's idle limit.",
            now(),
        ),
        End::Failed(why) => TaskResult::failed(why, now()),
    }
}

/// Why the work did not come to its own end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the session was ended from outside: {0:?}")]
    Outside(End),
}

impl From<End> for Stopped {
    fn from(end: End) -> Self {
        Self::Outside(end)
    }
}

async fn conduct(options: &SessionOptions, outside: &mut Outside) -> Result<End, Stopped> {
    match &options.work {
        Work::Shell { profile } => terminal::shell(&options.account, profile, outside).await,
        Work::Interactive { commands } => {
            terminal::commands(&options.account, commands, outside).await
        }
        Work::NonInteractive(command) => command::run(&options.account, command, outside).await,
        Work::Port(plan) => Ok(port::run(plan, &options.account.home, outside).await?),
    }
}
