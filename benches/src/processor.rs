//! What processes take of processor time, as the kernel counts it.

use std::{collections::BTreeSet, fs};

use crate::memory;

/// The kernel's unit of such times, of which Linux shows programs a hundred to the second.
const TICKS: f64 = 100.0;

/// The seconds that these processes and all that descend from them have computed until now. Those
/// that have ended count with whoever waited for them.
pub(crate) fn seconds(roots: &[u32]) -> f64 {
    let (mut all, mut next) = (BTreeSet::new(), roots.to_vec());
    while let Some(process_id) = next.pop() {
        if all.insert(process_id) {
            next.extend(memory::children(process_id, "").unwrap_or_default());
        }
    }
    all.into_iter().filter_map(ticks).sum::<f64>() / TICKS
}

/// The process's own and those of children it has waited for, in user and kernel mode.
fn ticks(process_id: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // The name may hold anything, even brackets and blanks.
    let (_, fields) = text.rsplit_once(") ")?;
    // Fields 14 to 17, and the state behind the name is field 3.
    let times = fields.split(' ').skip(11).take(4);
    Some(times.filter_map(|time| time.parse::<f64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command, time::Instant};

    use rustix::process::{Pid, Signal, kill_process_group};

    use super::*;

    #[test]
    fn children_count_too() {
        let begun = Instant::now();
        // The first shell only waits for the second.
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & wait"])
            .process_group(0)
            .spawn()
            .unwrap();
        while seconds(&[shell.id()]) < 0.2 {
            assert!(begun.elapsed().as_secs() < 60);
            std::thread::yield_now();
        }
        let group = Pid::from_raw(shell.id().try_into().unwrap()).unwrap();
        kill_process_group(group, Signal::KILL).unwrap();
        shell.wait().unwrap();
    }
}
