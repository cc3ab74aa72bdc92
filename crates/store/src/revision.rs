//! The revision of the identities, known without asking the database.
//!
//! Every change of the database goes through the one writer of this process, and the lock beside the
//! file keeps every other server out, so nobody else can raise the revision. The writer raises it here
//! after `COMMIT` and before it answers: whoever has an answer, and whoever asks after them, sees it.
//! In between, a reader may still be told that nothing changed, which is an answer from before the
//! commit. Where the outcome of a `COMMIT` is unknown, so is the revision: readers ask the row until
//! the next commit has succeeded.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// No revision has this number.
const UNKNOWN: i64 = i64::MIN;

/// Shared by the writer, who sets it, and the readers.
#[derive(Clone, Debug)]
pub(crate) struct KnownRevision(Arc<AtomicI64>);

impl Default for KnownRevision {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl KnownRevision {
    /// The revision that was committed last, where it is known.
    pub(crate) fn get(&self) -> Option<i64> {
        let revision = self.0.load(Ordering::Acquire);
        (revision != UNKNOWN).then_some(revision)
    }

    /// This revision is committed.
    pub(crate) fn set(&self, revision: i64) {
        self.0.store(revision, Ordering::Release);
    }

    /// Only the row knows.
    pub(crate) fn forget(&self) {
        self.set(UNKNOWN);
    }
}
