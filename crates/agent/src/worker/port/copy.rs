//! Copying files: what the session's own destination is when its document is one for that. The work is
//! `sortie_copy`'s, on a thread of its own; here is how a session reaches it.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sortie_copy::{Download, Stop, Upload};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    destination::{Connection, Sink, Source},
    plan::{PortRefusal, text},
};

/// What files of a login shell are not for others.
const UMASK: u32 = 0o022;

/// Which way files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Direction {
    /// To this node.
    Upload,
    /// From this node.
    Download,
}

/// What may be copied. Nothing else is read or written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CopyPlan {
    direction: Direction,
    /// As the document has it, until [`Self::at_home`].
    path: PathBuf,
}

impl CopyPlan {
    /// Reads the resolved properties of a document.
    pub(super) fn of(properties: &Value) -> Result<Self, PortRefusal> {
        let direction = match text(properties, "direction")?.as_str() {
            "upload" => Direction::Upload,
            "download" => Direction::Download,
            _ => return Err(PortRefusal::Property("direction")),
        };
        let path = text(properties, "path")?;
        if path.is_empty() || path.contains('\0') {
            return Err(PortRefusal::Property("path"));
        }
        Ok(Self {
            direction,
            path: path.into(),
        })
    }

    /// The same with an absolute path: others begin in the home directory, as `~/` does.
    pub(super) fn at_home(&self, home: &Path) -> Self {
        let text = self.path.to_string_lossy();
        let path = match text.strip_prefix("~") {
            Some("") => home.to_owned(),
            Some(rest) if rest.starts_with('/') => join(home, rest.trim_start_matches('/')),
            _ => join(home, &text),
        };
        Self {
            path,
            direction: self.direction,
        }
    }

    /// Starts the service. It ends with the connection.
    pub(super) fn connect(&self) -> io::Result<Connection> {
        let (here, there) = std::os::unix::net::UnixStream::pair()?;
        here.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(here)?.into_split();
        let stop = Stop::default();
        let (plan, stopped) = (self.clone(), stop.clone());
        // Not kept: it ends when the stream does, and the runtime waits for it.
        drop(tokio::task::spawn_blocking(move || {
            plan.serve(&there, &stopped);
        }));
        Ok(Connection {
            reader: Box::new(Served { reader, stop }),
            writer: Box::new(writer),
        })
    }

    fn serve(self, stream: &std::os::unix::net::UnixStream, stop: &Stop) {
        let path = self.path;
        let served = match self.direction {
            Direction::Upload => Upload { path, umask: UMASK }.serve(stream, stop),
            Direction::Download => Download { path }.serve(stream, stop),
        };
        match served {
            Ok(()) => tracing::info!("the files are copied"),
            Err(error) => tracing::info!(%error, "the files are not copied"),
        }
    }
}

impl std::fmt::Display for CopyPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// Keeps a slash at the end, which says that a directory is meant.
fn join(home: &Path, rest: &str) -> PathBuf {
    if rest.is_empty() {
        home.to_owned()
    } else {
        home.join(rest)
    }
}

/// What the service says. Without it the service stops.
struct Served {
    reader: OwnedReadHalf,
    stop: Stop,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.set();
    }
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl Source for Served {}

impl Sink for OwnedWriteHalf {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> String {
        let properties = json!({"type": "CopyFile", "path": text, "direction": "upload"});
        let plan = CopyPlan::of(&properties).unwrap();
        plan.at_home(Path::new("/home/ann")).to_string()
    }

    #[test]
    fn paths_begin_in_the_home_directory_unless_they_are_absolute() {
        for (given, expected) in [
            ("/srv/x/", "/srv/x/"),
            ("x", "/home/ann/x"),
            ("x/", "/home/ann/x/"),
            (".", "/home/ann/."),
            ("~", "/home/ann"),
            ("~/", "/home/ann"),
            ("~/x", "/home/ann/x"),
            ("~//etc", "/home/ann/etc"),
            ("~bob/x", "/home/ann/~bob/x"),
        ] {
            assert_eq!(path(given), expected, "{given}");
        }
    }

    #[test]
    fn both_properties_are_needed() {
        for properties in [
            json!({"path": "x"}),
            json!({"path": "x", "direction": "both"}),
            json!({"direction": "upload"}),
            json!({"path": "", "direction": "upload"}),
            json!({"path": "a\0b", "direction": "upload"}),
            json!({"path": ["x"], "direction": "upload"}),
        ] {
            assert!(CopyPlan::of(&properties).is_err(), "{properties}");
        }
    }
}
