//! The node's end: waits for the client's hello, and does what the session is for and nothing else.

use std::{os::unix::net::UnixStream, path::PathBuf};

use crate::{
    CopyError, Source, Stop, Target, Unwatched, Wishes,
    line::{Input, Output, greeting, nodes_hello, say_goodbye},
    receive::{Manner, receive_all},
    send::send_all,
};

/// Takes what a client sends to one path.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Absolute.
    pub path: PathBuf,
    /// What new files do not let others do.
    pub umask: u32,
}

/// Sends a client what is at one path.
#[derive(Clone, Debug)]
pub struct Download {
    /// Absolute.
    pub path: PathBuf,
}

impl Upload {
    /// Serves the client at the other end of the stream. Blocks until that is over.
    ///
    /// # Errors
    /// When the copy did not come to its end.
    pub fn serve(self, stream: &UnixStream, stop: &Stop) -> Result<(), CopyError> {
        let output = Output::new(stream);
        let mut input = Input::new(stream);
        let served = (|| {
            output.tell(&nodes_hello())?;
            let hello = greeting(&mut input)?;
            let manner = Manner {
                preserve: hello.preserve,
                must_be_directory: hello.into_directory,
                umask: self.umask,
            };
            let target = Target::Path(self.path);
            receive_all(
                &mut input, &output, &hello, target, manner, &Unwatched, stop,
            )
        })();
        if let Err(error) = &served {
            say_goodbye(stream, &output, error);
        }
        served
    }
}

impl Download {
    /// Serves the client at the other end of the stream. Blocks until that is over.
    ///
    /// # Errors
    /// When the copy did not come to its end.
    pub fn serve(self, stream: &UnixStream, stop: &Stop) -> Result<(), CopyError> {
        let output = Output::new(stream);
        let mut input = Input::new(stream);
        let served = (|| {
            output.tell(&nodes_hello())?;
            let hello = greeting(&mut input)?;
            let wishes = Wishes {
                recursive: hello.recursive,
                totals: hello.totals,
                ..Wishes::default()
            };
            let source = Source::Paths(vec![self.path]);
            send_all(
                stream, &mut input, &output, source, wishes, &Unwatched, stop,
            )
        })();
        if let Err(error) = &served {
            say_goodbye(stream, &output, error);
        }
        served
    }
}
