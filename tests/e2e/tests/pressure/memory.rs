//! What processes hold and move, as the kernel tells it below `/proc`. Linux alone.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// What a process of ours may grow by under pressure, in bytes.
pub(crate) const MOST: u64 = 32_000_000;

/// Memory of processes of ours, from one moment on.
pub(crate) struct Watch {
    watched: Vec<Watched>,
}

struct Watched {
    process: u32,
    name: String,
    before: u64,
    /// Of the last look at a process that may be gone by now.
    growth: u64,
}

impl Watch {
    /// Begins with every process of ours among these and their descendants.
    pub(crate) fn begin(roots: &[u32]) -> Result<Self> {
        let mut watched = Vec::new();
        for process in roots.iter().flat_map(|root| family(*root)) {
            let Some(name) = name_of_ours(process) else {
                continue;
            };
            // Forgets the peak so far. Where that is not allowed the figures are too high.
            let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
            let before = status(process, "VmRSS").context("a process of ours has ended")?;
            watched.push(Watched {
                process,
                name,
                before,
                growth: 0,
            });
        }
        ensure!(!watched.is_empty(), "nothing of ours is running");
        Ok(Self { watched })
    }

    /// Looks at the peaks since the beginning: no process may have grown by more than [`MOST`].
    pub(crate) fn look(&mut self) -> Result<()> {
        self.look_up_to(MOST)
    }

    /// The same where more is expected.
    pub(crate) fn look_up_to(&mut self, most: u64) -> Result<()> {
        for watched in &mut self.watched {
            if let Some(peak) = status(watched.process, "VmHWM") {
                watched.growth = peak.saturating_sub(watched.before);
            }
        }
        let worst = self.watched.iter().map(|watched| watched.growth).max();
        ensure!(worst.unwrap_or(0) <= most, "memory: {}", self.figures());
        Ok(())
    }

    /// How many processes of ours are watched.
    pub(crate) fn processes(&self) -> usize {
        self.watched.len()
    }

    /// What each process had, and by how much it grew.
    pub(crate) fn figures(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let figure = |watched: &Watched| {
            let (before, growth) = (mib(watched.before), mib(watched.growth));
            format!("{} {before:.1} MiB +{growth:.1}", watched.name)
        };
        let figures: Vec<String> = self.watched.iter().map(figure).collect();
        figures.join(", ")
    }
}

/// Resident bytes of a process now.
pub(crate) fn resident(process: u32) -> Result<u64> {
    status(process, "VmRSS").context("the process has ended")
}

/// A process and all that descend from it.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut looked_at = 0;
    while let Some(&process) = found.get(looked_at) {
        looked_at += 1;
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(
                text.split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// Those of a family that run one of our programs.
pub(crate) fn ours(root: u32) -> Vec<u32> {
    let mut found = family(root);
    found.retain(|process| name_of_ours(*process).is_some());
    found
}

fn name_of_ours(process: u32) -> Option<String> {
    let program = fs::read_link(format!("/proc/{process}/exe")).ok()?;
    let program = program.file_name()?.to_str()?;
    if !program.starts_with("sortie") {
        return None;
    }
    let line = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?;
    let verb = line.split('\0').nth(1).unwrap_or_default();
    let is_verb = !verb.is_empty() && verb.bytes().all(|byte| byte.is_ascii_lowercase());
    Some(if is_verb {
        format!("{program} {verb}")
    } else {
        program.to_owned()
    })
}

fn status(process: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    Some(kibibytes.trim().parse::<u64>().ok()? * 1024)
}

/// The process whose command line has this argument, wherever it runs.
pub(crate) fn running(program: &str, argument: &str) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        let is_it = words
            .next()
            .and_then(|path| Path::new(path).file_name())
            .is_some_and(|name| name == program);
        if is_it && words.any(|word| word == argument) {
            let id = entry.file_name();
            return Ok(id.to_str().and_then(|id| id.parse().ok()));
        }
    }
    Ok(None)
}

/// Bytes that a process has written so far; `None` once it is gone.
pub(crate) fn written(process: u32) -> Option<u64> {
    counter(process, "wchar")
}

fn counter(process: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_start_matches(':').trim().parse().ok()
}
