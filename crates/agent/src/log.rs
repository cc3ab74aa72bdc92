//! Logs of agent and worker: to standard error, where the service manager keeps them.

use std::{error::Error, fmt::Write as _};

use tracing_subscriber::EnvFilter;

/// The variable that chooses what is logged, as `tracing` directives.
pub(crate) const FILTER_VARIABLE: &str = "SORTIE_LOG";

/// Libraries that at their finest levels log what passes through them: tokens and terminal bytes.
const NEVER_FINER: [&str; 6] = [
    "hyper=info",
    "hyper_util=info",
    "reqwest=info",
    "rustls=info",
    "tokio_tungstenite=info",
    "tungstenite=info",
];

/// Logs to standard error from now on. Later calls change nothing.
pub fn to_standard_error() {
    let chosen =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let limits = NEVER_FINER
        .iter()
        .filter_map(|directive| directive.parse().ok());
    let filter = limits.fold(chosen, EnvFilter::add_directive);
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
