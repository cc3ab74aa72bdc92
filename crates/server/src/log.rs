//! Where log lines go: standard error, as text or JSON, filtered as configured. Standard output
//! belongs to what a person or script asked for.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::LogFormat;

/// Sends log lines to standard error from now on. A second call in one process changes nothing.
///
/// # Errors
/// The filter is not in the form of an env filter.
pub fn start(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        // Whoever reads the log may go; the server must not, and a complaint about that could only
        // go the same way.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    // An error says that the process has a subscriber already: a test's, or a first server's.
    let _ = match format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.try_init(),
    };
    Ok(())
}
