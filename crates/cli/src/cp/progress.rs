//! What is told of a copy: a line that is renewed on a terminal, what failed, lines for scripts, and
//! what it all comes to.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use sortie_channel::copy::Digest;
use sortie_copy::{Settled, Told, Watch};
use tokio::time::Instant;

use crate::{arguments::Cp, error::CommandError, output};

/// To the beginning of the line, and without what it holds.
const AGAIN: &str = "\r\x1b[K";
/// Over how long the rate is taken.
const RATE_TIME: Duration = Duration::from_secs(4);
/// A connection that is away for less is not worth a word.
const QUIET_AWAY: Duration = Duration::from_secs(2);
const DEFAULT_COLUMNS: usize = 80;

/// How a copy goes.
pub(super) struct Progress {
    is_shown: bool,
    is_quiet: bool,
    json: bool,
    checksum: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct Counts {
    files: u64,
    directories: u64,
    links: u64,
    /// Of files that are in place.
    bytes: u64,
    /// Of those, what was there before.
    held: u64,
    /// What went over the session.
    moved: u64,
    failed: u64,
    skipped: u64,
}

struct State {
    counts: Counts,
    /// Moved, or there before, in this session and the ones before it.
    done: u64,
    total: Option<(u64, u64)>,
    /// Of the sessions before this one.
    total_before: (u64, u64),
    path: PathBuf,
    begun: Instant,
    rate: Rate,
    node: String,
    sessions: Vec<String>,
    away_since: Option<Instant>,
    interrupted: bool,
    line_is_there: bool,
    /// Why sessions came to no end.
    errors: Vec<String>,
    /// Standard output cannot be written to.
    broken: Option<CommandError>,
}

impl Progress {
    pub(super) fn new(arguments: &Cp) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        let now = Instant::now();
        Self {
            is_shown: is_seen && !arguments.quiet && !arguments.json,
            is_quiet: arguments.quiet,
            json: arguments.json,
            checksum: arguments.checksum,
            state: Mutex::new(State {
                counts: Counts::default(),
                done: 0,
                total: None,
                total_before: (0, 0),
                path: PathBuf::new(),
                begun: now,
                rate: Rate::new(now),
                node: String::new(),
                sessions: Vec::new(),
                away_since: None,
                interrupted: false,
                line_is_there: false,
                errors: Vec::new(),
                broken: None,
            }),
        }
    }

    /// Whether a person looks on.
    pub(super) fn is_shown(&self) -> bool {
        self.is_shown
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin_session(&self, node: &str, session_id: &str) {
        let mut state = self.lock();
        node.clone_into(&mut state.node);
        state.sessions.push(session_id.to_owned());
        state.total_before = state.total.unwrap_or(state.total_before);
        state.total = None;
    }

    pub(super) fn set_away(&self, since: Option<Instant>) {
        self.lock().away_since = since;
    }

    pub(super) fn interrupt(&self) {
        self.lock().interrupted = true;
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.lock().interrupted
    }

    /// The copy has come to no end.
    pub(super) fn fail(&self, why: &str) {
        let mut state = self.lock();
        state.say(&format!("sortie: {why}"));
        state.errors.push(why.to_owned());
    }

    /// Renews the line.
    pub(super) fn show(&self) {
        if !self.is_shown {
            return;
        }
        let mut state = self.lock();
        let now = Instant::now();
        let moved = state.counts.moved;
        state.rate.take(now, moved);
        let columns = columns();
        let line: String = state.line(now).chars().take(columns - 1).collect();
        state.line_is_there = true;
        let _ = write!(std::io::stderr().lock(), "{AGAIN}{line}");
    }

    /// Says what it all came to, and whether everything was copied.
    pub(super) fn finish(&self, is_whole: bool) -> Result<bool, CommandError> {
        let mut state = self.lock();
        if std::mem::take(&mut state.line_is_there) {
            let _ = write!(std::io::stderr().lock(), "{AGAIN}");
        }
        if let Some(error) = state.broken.take() {
            return Err(error);
        }
        let is_whole = is_whole && state.counts.failed == 0;
        if self.json {
            output::print(&format!("{}\n", state.summary(is_whole)))?;
        }
        if state.counts.failed > 0 {
            let failed = state.counts.failed;
            output::error_line(&format!("sortie: {failed} could not be copied"));
        }
        if self.is_shown && state.counts.files > 0 {
            output::error_line(&state.spoken_summary());
        }
        Ok(is_whole)
    }

    fn print(state: &mut State, text: &str) {
        if state.broken.is_none() {
            state.broken = output::print(text).err();
        }
    }
}

impl Watch for Progress {
    fn tell(&self, told: Told) {
        let mut state = self.lock();
        match told {
            Told::Total { files, bytes } => {
                let (before, bytes_before) = state.total_before;
                state.total = Some((before + files, bytes_before.saturating_add(bytes)));
            }
            Told::Begin { path, held, .. } => {
                state.path = path;
                state.done = state.done.saturating_add(held);
            }
            Told::Moved(bytes) => {
                state.counts.moved = state.counts.moved.saturating_add(bytes);
                state.done = state.done.saturating_add(bytes);
            }
            Told::Settled { path, what } => {
                state.settle(what);
                if let (true, Settled::File { digest, .. }) = (self.checksum, what) {
                    Self::print(&mut state, &checksum_line(digest, &path));
                }
                if self.json {
                    let line = settled_line(&path, what);
                    Self::print(&mut state, &format!("{line}\n"));
                }
            }
            Told::Failed { path, why } => {
                state.counts.failed += 1;
                self.problem(&mut state, &path, "Error", &why);
            }
            Told::Skipped { path, why } => {
                state.counts.skipped += 1;
                self.problem(&mut state, &path, "Skipped", &why);
            }
        }
    }
}

impl Progress {
    fn problem(&self, state: &mut State, path: &Path, kind: &str, why: &str) {
        if self.json {
            let line = json!({"Path": path.to_string_lossy(), kind: why});
            Self::print(state, &format!("{line}\n"));
        }
        let is_failure = kind == "Error";
        if is_failure || !self.is_quiet {
            let skipped = if is_failure { "" } else { "skipped: " };
            let text = format!("sortie: {}: {skipped}{why}", path.display());
            state.say(&output::plain(&text));
        }
    }
}

/// As `sha256sum` writes it: a name that would break its line is escaped, which the line begins with.
fn checksum_line(digest: Digest, path: &Path) -> String {
    let name = path.to_string_lossy();
    if !name.contains(['\\', '\n', '\r']) {
        return format!("{digest}  {name}\n");
    }
    let name = name
        .replace('\\', r"\\")
        .replace('\n', r"\n")
        .replace('\r', r"\r");
    format!("\\{digest}  {name}\n")
}

fn settled_line(path: &Path, what: Settled) -> Value {
    let path = path.to_string_lossy();
    match what {
        Settled::Directory => json!({"Path": path, "Type": "Directory"}),
        Settled::Link => json!({"Path": path, "Type": "Link"}),
        Settled::File {
            bytes,
            held,
            digest,
        } => json!({
            "Path": path,
            "Type": "File",
            "Bytes": bytes,
            "BytesHeld": held,
            "Sha256": digest.to_string(),
        }),
    }
}

impl State {
    fn say(&mut self, text: &str) {
        let again = if std::mem::take(&mut self.line_is_there) {
            AGAIN
        } else {
            ""
        };
        output::error_line(&format!("{again}{text}"));
    }

    fn settle(&mut self, what: Settled) {
        match what {
            Settled::Directory => self.counts.directories += 1,
            Settled::Link => self.counts.links += 1,
            Settled::File { bytes, held, .. } => {
                self.counts.files += 1;
                self.counts.bytes = self.counts.bytes.saturating_add(bytes);
                self.counts.held = self.counts.held.saturating_add(held);
            }
        }
    }

    /// `45%  12.0 MiB of 27.0 MiB  5.1 MiB/s  0:03 left  3 of 12 files  a/b`
    fn line(&self, now: Instant) -> String {
        if let Some(since) = self.away_since
            && now - since >= QUIET_AWAY
        {
            let seconds = (now - since).as_secs();
            return format!("connection lost for {seconds} s, coming back; Ctrl-C leaves");
        }
        if self.path.as_os_str().is_empty() {
            return format!("waiting for node {} …", output::plain(&self.node));
        }
        let mut parts = Vec::new();
        let rate = self.rate.bytes_per_second();
        let (files, done) = (self.counts.files, self.done);
        if let Some((all_files, all)) = self.total.filter(|(_, all)| *all >= done) {
            let percent = (done * 100).checked_div(all).unwrap_or(100);
            parts.push(format!("{percent:3}%  {} of {}", size(done), size(all)));
            parts.push(format!("{}/s", size(rate)));
            if let Some(seconds) = (all - done).checked_div(rate) {
                parts.push(format!("{} left", clock(seconds)));
            }
            if all_files > 1 {
                parts.push(format!("{files} of {all_files} files"));
            }
        } else {
            parts.push(size(done));
            parts.push(format!("{}/s", size(rate)));
        }
        parts.push(output::plain(&self.path.to_string_lossy()));
        parts.join("  ")
    }

    fn spoken_summary(&self) -> String {
        let Counts {
            files, bytes, held, ..
        } = self.counts;
        let seconds = self.begun.elapsed().as_secs_f64();
        let noun = if files == 1 { "file" } else { "files" };
        let there = if held > 0 {
            format!(", {} of it was there", size(held))
        } else {
            String::new()
        };
        format!(
            "{files} {noun}, {} in {seconds:.1} s{there}; every SHA-256 is right",
            size(bytes)
        )
    }

    fn summary(&self, is_whole: bool) -> Value {
        let counts = &self.counts;
        json!({"Summary": {
            "Complete": is_whole,
            "Files": counts.files,
            "Directories": counts.directories,
            "Links": counts.links,
            "Bytes": counts.bytes,
            "BytesHeld": counts.held,
            "BytesMoved": counts.moved,
            "Failed": counts.failed,
            "Skipped": counts.skipped,
            "Seconds": (self.begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            "Errors": self.errors,
            "SessionIds": self.sessions,
        }})
    }
}

/// Bytes in a second, over the last few of them.
struct Rate {
    /// The beginning of the time that is looked at, and one that is younger.
    old: (Instant, u64),
    young: (Instant, u64),
    last: (Instant, u64),
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self {
            old: (now, 0),
            young: (now, 0),
            last: (now, 0),
        }
    }

    fn take(&mut self, now: Instant, moved: u64) {
        self.last = (now, moved);
        if now - self.young.0 >= RATE_TIME / 2 {
            self.old = self.young;
            self.young = self.last;
        }
    }

    fn bytes_per_second(&self) -> u64 {
        let time = self.last.0 - self.old.0;
        let moved = u128::from(self.last.1.saturating_sub(self.old.1)) * 1000;
        let rate = moved.checked_div(time.as_millis()).unwrap_or(0);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

fn columns() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 1)
        .unwrap_or(DEFAULT_COLUMNS)
}

/// `17 B`, `1.5 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scaled = bytes;
    while scaled >= 1024 * 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    let tenths = scaled * 10 / 1024;
    let name = UNITS.get(unit).copied().unwrap_or_default();
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// `0:07`, `1:02:03`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536 * 1024, "1.5 MiB"),
            (5 << 40, "5.0 TiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(clock(7), "0:07");
        assert_eq!(clock(3723), "1:02:03");
    }

    #[test]
    fn a_name_cannot_forge_a_line_of_checksums() {
        let digest = Digest([0xab; 32]);
        let line = |name: &str| checksum_line(digest, Path::new(name));
        assert_eq!(line("a b"), format!("{digest}  a b\n"));
        assert_eq!(line("a\nb\\c"), format!("\\{digest}  a\\nb\\\\c\n"));
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let mut rate = Rate::new(begin);
        for second in 1..=10 {
            let moved = if second <= 5 { second * 100 } else { 500 };
            rate.take(begin + Duration::from_secs(second), moved);
        }
        assert_eq!(rate.bytes_per_second(), 0);
        rate.take(begin + Duration::from_secs(11), 4500);
        assert!(rate.bytes_per_second() > 1000);
    }
}
