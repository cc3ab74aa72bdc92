//! Sends and receives trees of files over a byte stream: both ends of `sortie cp`.
//!
//! The protocol is [`sortie_channel::copy`]; here is what reads and writes files. Everything blocks and
//! belongs on a thread of its own: the stream is one end of a socket pair, whose other end a session
//! carries. Shutting that down, or setting [`Stop`], ends the work.
//!
//! What makes it safe: the receiver goes through directories that it holds open and takes single names
//! within them, and never follows a link that lies below its destination. A file gets its name when it
//! is complete, its digest is right and it is on stable storage; until then it has a temporary name
//! beside it, from which a later copy goes on.
//!
//! Who may copy what, and what a person is told, is not here.

mod files;
mod line;
mod partial;
mod place;
mod receive;
mod scan;
mod send;
mod serve;
mod watch;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sortie_channel::copy::{MessageError, Rule};

pub use self::{
    receive::{Target, receive},
    send::{Source, send},
    serve::{Download, Upload},
    watch::{Settled, Told, Unwatched, Watch},
};

/// What a person asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// Directories are copied with what is in them.
    pub recursive: bool,
    /// Modes and times are those of the source.
    pub preserve: bool,
    /// What is named on the receiving end has to be a directory.
    pub into_directory: bool,
    /// The person looks on and wants to know how much there is.
    pub totals: bool,
}

/// Why a copy as a whole came to nothing, or to no end. Single files that fail are told to the
/// [`Watch`] and are no error.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The other end says so.
    #[error("{0}")]
    Told(String),
    /// This end found it.
    #[error("{0}")]
    Here(String),
    /// The other end cannot be understood.
    #[error("the other end cannot be understood: {0}")]
    Message(#[from] MessageError),
    /// The other end breaks the rules.
    #[error("the other end breaks the rules of copying: {0}")]
    Rule(#[from] Rule),
    /// The stream between the ends broke.
    #[error("the connection between the ends was lost: {0}")]
    Line(#[source] io::Error),
    /// The stream ended before the copy.
    #[error("the other end has left before everything was copied")]
    Left,
    /// [`Stop`] was set.
    #[error("the copy was stopped")]
    Stopped,
}

/// Tells the work to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends the work at the next block.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), CopyError> {
        if self.is_set() {
            return Err(CopyError::Stopped);
        }
        Ok(())
    }
}
