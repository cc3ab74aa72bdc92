//! What a process holds of memory, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// Of one process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident, shared pages counted in full.
    pub(crate) resident: f64,
    /// Resident, shared pages counted by their share.
    pub(crate) proportional: f64,
    /// Resident and nobody else's.
    pub(crate) private: f64,
}

/// The process's memory now.
pub(crate) fn of(process_id: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{process_id}/smaps_rollup"))?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find(|line| line.starts_with(name));
        let words = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(words.with_context(|| format!("no {name}"))?.parse()?)
    };
    Ok(Memory {
        resident: field("Rss:")?,
        proportional: field("Pss:")?,
        private: field("Private_Clean:")? + field("Private_Dirty:")?,
    })
}

/// Children of a process whose command line holds `word`.
pub(crate) fn children(process_id: u32, word: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let parent = read("status")
            .lines()
            .find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
        if parent == Some(process_id) && read("cmdline").contains(word) {
            found.push(id);
        }
    }
    Ok(found)
}
