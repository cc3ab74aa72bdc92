//! The end of what a session has started.

use std::time::Duration;

use tokio::time::Instant;

use crate::os::SessionProcess;

/// How often it is looked whether anybody is left.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// How long processes may take to end after being told.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often last output may be read between two such looks: a flood must not put off the end.
pub(super) const READS: usize = 64;

/// Waits for the end of the processes of a session that have been told to end, and kills those that take
/// too long to tidy up. Calls `meanwhile` again and again.
pub(super) async fn until_gone(
    process: &mut SessionProcess,
    mut has_exited: bool,
    mut meanwhile: impl FnMut(),
) {
    let begun = Instant::now();
    while begun.elapsed() < GRACE {
        if !has_exited {
            has_exited = tokio::time::timeout(TICK, process.wait()).await.is_ok();
        } else if !process.is_anyone_left() {
            return;
        } else {
            tokio::time::sleep(TICK).await;
        }
        meanwhile();
    }
    process.kill();
}
