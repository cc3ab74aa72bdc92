//! Brings complete files to stable storage and to their names. Those that have come while the storage was
//! busy go together, as it then does for many what it would do for one.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc::Receiver},
};

use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use sortie_channel::copy::{Meta, Name};

use super::{OpenDirectory, Replaced, Shared, directory::release};
use crate::{
    Settled,
    files::{self, spoken},
    partial::Partial,
};

/// A file that is complete and whose digest is right.
pub(super) struct Job {
    pub(super) entry: u64,
    pub(super) path: PathBuf,
    pub(super) meta: Meta,
    pub(super) settled: Settled,
    pub(super) file: Finished,
    pub(super) directory: Arc<OpenDirectory>,
}

pub(super) enum Finished {
    New {
        partial: Partial,
        name: Name,
        replaced: Option<Replaced>,
    },
    /// It was there.
    Same(File),
}

/// The most files that go together.
const TOGETHER: usize = 64;
/// Threads for that.
const SIDE_BY_SIDE: usize = 16;

/// Does what waits, until nothing more comes. Files that have come meanwhile go together.
pub(super) fn finish(shared: &Shared<'_>, waiting: &Mutex<Receiver<Job>>) {
    loop {
        let mut jobs = gather(waiting);
        if jobs.is_empty() {
            return;
        }
        let share = jobs.len().div_ceil(SIDE_BY_SIDE);
        std::thread::scope(|scope| {
            while jobs.len() > share {
                let part = jobs.split_off(jobs.len() - share);
                scope.spawn(move || finish_each(shared, part));
            }
            finish_each(shared, jobs);
        });
    }
}

/// What waits, at least one unless there is no more.
fn gather(waiting: &Mutex<Receiver<Job>>) -> Vec<Job> {
    let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let first = waiting.recv().ok();
    first
        .into_iter()
        .chain(waiting.try_iter())
        .take(TOGETHER)
        .collect()
}

fn finish_each(shared: &Shared<'_>, jobs: Vec<Job>) {
    for job in jobs {
        let put = put(shared, &job);
        let Job {
            entry,
            path,
            settled,
            file,
            directory,
            ..
        } = job;
        match put {
            Ok(()) => shared.settle(entry, path, settled),
            Err(error) => {
                if let Finished::New { partial, .. } = &file {
                    partial.discard(&directory.file);
                }
                shared.fail(entry, path, spoken(&error));
            }
        }
        release(shared, directory);
    }
}

fn put(shared: &Shared<'_>, job: &Job) -> io::Result<()> {
    let manner = &shared.manner;
    match &job.file {
        Finished::Same(file) => {
            if manner.preserve {
                let mode = files::mode(&job.meta, true, manner.umask);
                fchmod(file, Mode::from_raw_mode(mode))?;
                files::set_times(file, &job.meta)?;
            }
            Ok(())
        }
        Finished::New {
            partial,
            name,
            replaced,
        } => {
            let own = files::mode(&job.meta, manner.preserve, manner.umask);
            let mode = match replaced {
                Some(replaced) => {
                    // As if it had been written to; only root can.
                    let (uid, gid) = (Uid::from_raw(replaced.uid), Gid::from_raw(replaced.gid));
                    let _ = fchown(&partial.file, Some(uid), Some(gid));
                    if manner.preserve { own } else { replaced.mode }
                }
                None => own,
            };
            fchmod(&partial.file, Mode::from_raw_mode(mode))?;
            if manner.preserve {
                files::set_times(&partial.file, &job.meta)?;
            }
            partial.file.sync_all()?;
            partial.put_in_place(&job.directory.file, name.as_bytes())
        }
    }
}
