//! File descriptors: how many connections may be open at once without taking those that the server
//! itself needs, for its database above all.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are kept for everything but connections.
const KEPT: u64 = 256;

/// Allows this process as many descriptors as it may have. Programs that it starts inherit that.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it there is room for fewer connections, of which the log tells.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// How many connections may be open at once where `configured` are wanted.
pub(crate) fn connections(configured: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let possible = within(configured, limit);
    if possible < configured {
        tracing::info!(
            possible,
            configured,
            "fewer connections than configured: the limit of open files is too low"
        );
    }
    possible
}

/// `limit`: descriptors of the process; `None` for any number.
fn within(configured: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else {
        return configured;
    };
    // A small limit is shared.
    let kept = KEPT.min(limit / 2);
    let room = usize::try_from(limit.saturating_sub(kept)).unwrap_or(usize::MAX);
    configured.min(room).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_server_itself() {
        for (configured, limit, possible) in [
            (20_000, None, 20_000),
            (20_000, Some(524_288), 20_000),
            (20_000, Some(1024), 768),
            (20_000, Some(64), 32),
            (100, Some(1024), 100),
            (100, Some(0), 1),
        ] {
            assert_eq!(within(configured, limit), possible, "{limit:?}");
        }
    }
}
