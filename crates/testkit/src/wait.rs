//! Waiting for a state, with a bound.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long a test waits for anything: far longer than it takes even on a busy machine, so that a
/// failure means that it does not happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until `probe` answers, and says what it waited for when it never does.
///
/// # Errors
/// When nothing came within [`PATIENCE`], or when the probe itself fails.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if started.elapsed() > PATIENCE {
            bail!("waited {} s for {what}", PATIENCE.as_secs());
        }
        // Between two looks at the state; nothing depends on its length.
        thread::park_timeout(Duration::from_millis(20));
    }
}
