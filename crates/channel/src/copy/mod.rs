//! Copying files between our ends over one byte stream, without IO: the messages and the rules of their
//! order. `docs/wire/copy.md` has the whole picture.
//!
//! One end sends a tree, the other receives it. The sender announces directories, files and links in
//! the order in which it walks, each by its own name within the directory that is open at that point;
//! so no message holds a path that could lead elsewhere. The receiver says of each file from where it
//! wants it, and of each entry whether it is in place. Announcements run ahead of the files' bytes, so
//! that many small files do not wait for each other's answers.
//!
//! What reads and writes files is not here.

mod incoming;
mod wire;

pub use self::{
    incoming::{Incoming, Rule},
    wire::{
        DIGEST_LEN, Decoder, Digest, Hello, LARGEST_DATA, Message, MessageError, Meta, Name,
        NameError, ProblemKind,
    },
};

/// The version of the protocol that this code speaks.
pub const VERSION: u32 = 1;

/// Entries that may be announced and not settled.
pub const WINDOW: usize = 256;

/// Directories that may lie within each other. Fewer than the window, since a directory is settled when all
/// that is in it is.
pub const DEEPEST: usize = 128;
