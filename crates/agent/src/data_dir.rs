//! The agent's directory: which file is what, and that nobody else reads it. What is inside a file
//! is its owner's.
//!
//! ```text
//! registration.json   who this node is and where its server is
//! node-key.pem        its private key
//! node-key.next.pem   a key offered to the server that has not yet said whether it has it
//! ca.pem              the authority given at registration
//! sessions/ID/        a session: worker.json (its process), control (its socket), result.json
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sortie_types::SessionId;

use crate::os;

/// The agent's directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

impl DataDir {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the directory where missing, for this account alone.
    pub(crate) fn create(&self) -> io::Result<()> {
        os::create_private_directory(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn registration(&self) -> PathBuf {
        self.path.join("registration.json")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.path.join("node-key.pem")
    }

    pub(crate) fn next_key(&self) -> PathBuf {
        self.path.join("node-key.next.pem")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.path.join("sessions")
    }

    pub(crate) fn session(&self, session_id: &SessionId) -> SessionDir {
        SessionDir {
            path: self.sessions().join(session_id.as_str()),
        }
    }
}

/// One session's directory.
#[derive(Clone, Debug)]
pub(crate) struct SessionDir {
    path: PathBuf,
}

impl SessionDir {
    /// The name of the worker's socket in it.
    pub(crate) const CONTROL: &'static str = "control";

    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the directory; an error of kind `AlreadyExists` when the session is known.
    pub(crate) fn create(&self) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            os::create_private_directory(parent)?;
        }
        fs::create_dir(&self.path)?;
        os::create_private_directory(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn worker(&self) -> PathBuf {
        self.path.join("worker.json")
    }

    pub(crate) fn result(&self) -> PathBuf {
        self.path.join("result.json")
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What `path` holds; `None` when there is no such file.
pub(crate) fn read_if_present(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
