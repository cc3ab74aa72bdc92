//! What looks on while files are copied.

use std::path::PathBuf;

use sortie_channel::copy::Digest;

/// Is told how a copy goes, from several threads.
pub trait Watch: Sync {
    /// Something happened. Must not take long.
    fn tell(&self, told: Told);
}

/// What happens. Paths begin with the name of what is copied.
#[derive(Clone, Debug)]
pub enum Told {
    /// How much there is. Comes late, or never.
    Total {
        /// Regular files.
        files: u64,
        /// Their sizes together.
        bytes: u64,
    },
    /// The bytes of a file begin to come or go.
    Begin {
        /// The file.
        path: PathBuf,
        /// Its size, where that is known.
        size: Option<u64>,
        /// What need not be sent, because it is there.
        held: u64,
    },
    /// So many bytes more were sent or received.
    Moved(u64),
    /// An entry is in place at the receiver.
    Settled {
        /// The entry.
        path: PathBuf,
        /// What it is.
        what: Settled,
    },
    /// An entry was not copied, or not to its end.
    Failed {
        /// The entry.
        path: PathBuf,
        /// In words.
        why: String,
    },
    /// An entry is nothing that can be copied.
    Skipped {
        /// The entry.
        path: PathBuf,
        /// In words.
        why: String,
    },
}

/// An entry that is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// With all that is in it and was not told as failed.
    Directory,
    /// A file whose receiver has found this digest.
    File {
        /// Its size.
        bytes: u64,
        /// How many of them were there before.
        held: u64,
        /// The SHA-256 of all of it.
        digest: Digest,
    },
    /// A symbolic link.
    Link,
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn tell(&self, _: Told) {}
}
