//! Where log lines go: standard error, as text or JSON, filtered as configured. Standard output
//! belongs to what a person or script asked for.
//!
//! Whatever is configured, tokens and terminal bytes are in no line, and an event is one line: what
//! strangers send cannot look like another event or move a terminal.

use std::io::{self, IsTerminal, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterFn, ParseError, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// Libraries that at their finest levels log what passes through them.
const NEVER_FINER: [&str; 7] = [
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "tokio_tungstenite",
    "tungstenite",
];

/// Sends log lines to standard error from now on. A second call in one process changes nothing.
///
/// # Errors
/// The filter is not in the form of an env filter.
pub fn start(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(terminal)
        // Whoever reads the log may go; the server must not, and a complaint about that could only
        // go the same way.
        .log_internal_errors(false)
        .with_writer(move || OneLine {
            to: io::stderr(),
            coloured: terminal,
        });
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(without_payloads());
    // An error says that the process has a subscriber already: a test's, or a first server's.
    let _ = match format {
        LogFormat::Json => registry.with(lines.json()).try_init(),
        LogFormat::Text => registry.with(lines).try_init(),
    };
    Ok(())
}

/// Lets through what cannot hold the bytes of a channel.
fn without_payloads() -> FilterFn {
    fn is_fit(metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let library = target.split("::").next().unwrap_or(target);
        *metadata.level() <= Level::INFO || !NEVER_FINER.contains(&library)
    }
    filter_fn(is_fit)
}

/// Writes each event, which comes in one piece, as one line of printable characters.
struct OneLine<W> {
    to: W,
    /// The line has escape sequences of its own; those in values are escaped before.
    coloured: bool,
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = String::with_capacity(text.len());
        for c in body.chars() {
            if c.is_control() && !(self.coloured && c == '\x1b') {
                // The spelling that JSON has for it, too.
                line.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                line.push(c);
            }
        }
        line.push('\n');
        self.to.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `work` when everything is asked for.
    fn logged(work: impl FnOnce()) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || OneLine {
                to: to.clone(),
                coloured: false,
            });
        let all = EnvFilter::new("trace,tungstenite::protocol=trace");
        let subscriber = tracing_subscriber::registry()
            .with(all)
            .with(without_payloads())
            .with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_filter_makes_libraries_log_what_passes_through_them() {
        let lines = logged(|| {
            tracing::trace!(target: "tungstenite::protocol", "Received message SRT1.token");
            tracing::debug!(target: "hyper::proto", "Authorization: secret");
            tracing::trace!(target: "sortie_gateway::session", "our own");
            tracing::info!(target: "tungstenite", "harmless");
        });
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.contains("our own") && lines.contains("harmless"));
    }

    #[test]
    fn an_event_is_one_line_whatever_strangers_send() {
        let session_id = "admin-0\n2026-01-01T00:00:00Z  INFO forged\u{9b}31m\x1b]0;x\x07";
        let lines = logged(|| tracing::debug!(%session_id, "data channel given up"));
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains(r"admin-0\u000a2026"), "{lines}");
        assert!(!lines.trim_end().chars().any(char::is_control), "{lines}");
    }
}
