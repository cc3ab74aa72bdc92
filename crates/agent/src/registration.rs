//! Who this node is: the file that `register` writes and `run` reads.

use std::io;

use serde::{Deserialize, Serialize};
use sortie_types::{NodeId, Region, Timestamp};

use crate::{
    data_dir::{DataDir, read_if_present},
    endpoint::{Endpoint, EndpointError},
    key::{KeyError, NodeKey},
    os,
};

/// What a node knows of its own registration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// The form of this file.
    pub version: u32,
    /// The server's origin.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: Region,
    /// The node's id.
    pub node_id: NodeId,
    /// A random UUID that the server compares to find copies of this registration.
    pub fingerprint: String,
    /// Whether `ssm-user` may use sudo.
    pub sudo: bool,
    /// When the node registered.
    pub registered: Timestamp,
    /// When its present key was made.
    pub key_made: Timestamp,
}

/// The form that this version writes.
pub(crate) const VERSION: u32 = 1;

/// Why a registration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// `register` was never run here.
    #[error("this machine is not registered: run sortie-agent register first")]
    Absent,
    /// The file or the key cannot be read.
    #[error("cannot read the registration")]
    Io(#[from] io::Error),
    /// The file is not what `register` wrote.
    #[error("the registration file cannot be understood")]
    File(#[source] serde_json::Error),
    /// The file is a newer agent's.
    #[error("the registration file has version {0}, this agent knows {VERSION}")]
    Version(u32),
    /// Its endpoint is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The key cannot be read.
    #[error("cannot read the node's key")]
    Key(#[from] KeyError),
}

impl Registration {
    /// Reads the registration of this directory.
    pub(crate) fn load(data_dir: &DataDir) -> Result<Self, RegistrationError> {
        let bytes = read_if_present(&data_dir.registration())?.ok_or(RegistrationError::Absent)?;
        let registration: Self = serde_json::from_slice(&bytes).map_err(RegistrationError::File)?;
        if registration.version > VERSION {
            return Err(RegistrationError::Version(registration.version));
        }
        Ok(registration)
    }

    /// Writes the registration of this directory.
    pub(crate) fn save(&self, data_dir: &DataDir) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        os::write_private(&data_dir.registration(), &text)
    }

    /// Where the server is.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, EndpointError> {
        self.endpoint.parse()
    }
}

/// The node's key in this directory.
pub(crate) fn load_key(data_dir: &DataDir) -> Result<NodeKey, RegistrationError> {
    let pem = read_if_present(&data_dir.key())?.ok_or(RegistrationError::Absent)?;
    Ok(NodeKey::from_pem(&zeroize::Zeroizing::new(pem))?)
}

/// The authority given at registration.
pub(crate) fn load_ca(data_dir: &DataDir) -> Result<Option<String>, RegistrationError> {
    let bytes = read_if_present(&data_dir.ca())?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
