//! Enrols this machine as a node: makes its key, trades an activation for a node id, and writes it down.

use std::{io, path::PathBuf};

use serde_json::Value;
use sortie_types::{NodeId, ParseIdError, Region, Secret};
use sortie_wire::shapes::node::{
    PublicKeyType, RegisterManagedInstance, RegisterManagedInstanceRequest,
};
use uuid::Uuid;

use crate::{
    api::{Api, CallError, Signer},
    clock,
    data_dir::DataDir,
    endpoint::{Endpoint, EndpointError},
    key::{KeyError, NodeKey},
    os,
    registration::{self, Registration},
    trust::{self, TrustError},
};

/// The region of an installation that was not told another.
const DEFAULT_REGION: &str = "local-1";

/// What a registration needs.
#[derive(Debug)]
pub struct RegisterOptions {
    /// The agent's directory.
    pub data_dir: PathBuf,
    /// The server's origin, `https://HOST[:PORT]`; plain HTTP for loopback addresses only.
    pub endpoint: String,
    /// The activation.
    pub activation_id: String,
    /// Its code.
    pub activation_code: Secret,
    /// A file with certificate authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The name to show for the node, where the activation gives none.
    pub name: Option<String>,
    /// The region to sign requests for, where the server does not say.
    pub region: Option<Region>,
    /// Whether `ssm-user`, as which sessions run when the agent is root, may use sudo.
    pub sudo: bool,
}

/// Why a machine was not registered. Nothing was changed on it then.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The endpoint is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The CA file cannot be read.
    #[error("cannot read the CA file {0}")]
    CaFile(PathBuf, #[source] io::Error),
    /// The CA file cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No key could be made.
    #[error("cannot make a key for the node")]
    Key(#[from] KeyError),
    /// The server did not take it.
    #[error("registration failed")]
    Call(#[from] CallError),
    /// The server's answer names no node.
    #[error("the server's answer holds no valid node id")]
    NodeId(#[source] Option<ParseIdError>),
    /// The agent's directory cannot be written.
    #[error("cannot write the agent's directory {0}")]
    DataDir(PathBuf, #[source] io::Error),
}

/// Registers this machine, in place of any earlier registration in the same directory.
///
/// # Errors
/// See [`RegisterError`].
pub async fn register(options: RegisterOptions) -> Result<NodeId, RegisterError> {
    let endpoint: Endpoint = options.endpoint.parse()?;
    let ca_pem = read_ca(&options)?;
    let tls = trust::client_config(ca_pem.as_deref())?;
    let data_dir = DataDir::new(&options.data_dir);
    // Before the activation is used: a registration that cannot be kept would waste it.
    let unwritable = |error| RegisterError::DataDir(options.data_dir.clone(), error);
    data_dir.create().map_err(unwritable)?;

    let key = NodeKey::generate()?;
    let region = options
        .region
        .clone()
        .or_else(|| DEFAULT_REGION.parse().ok());
    let region = region.ok_or(RegisterError::NodeId(None))?;
    let api = Api::new(endpoint.clone(), region.clone(), &tls)?;
    let fingerprint = Uuid::new_v4().to_string();
    let request = request(&options, &fingerprint, &key)?;
    let answer = api
        .call_raw::<RegisterManagedInstance>(Signer::Nobody, &request)
        .await?;
    let (node_id, told_region) = read_answer(&answer)?;

    let now = clock::wall();
    let registration = Registration {
        version: registration::VERSION,
        endpoint: endpoint.to_string(),
        region: told_region.unwrap_or(region),
        node_id: node_id.clone(),
        fingerprint,
        sudo: options.sudo,
        registered: now,
        key_made: now,
    };
    save(&data_dir, &registration, &key, ca_pem.as_deref()).map_err(unwritable)?;
    Ok(node_id)
}

fn read_ca(options: &RegisterOptions) -> Result<Option<String>, RegisterError> {
    let Some(path) = &options.ca_file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| RegisterError::CaFile(path.clone(), error))?;
    Ok(Some(text))
}

fn request(
    options: &RegisterOptions,
    fingerprint: &str,
    key: &NodeKey,
) -> Result<RegisterManagedInstanceRequest, KeyError> {
    // The server takes this one key only, as the node's name.
    let tags = options.name.as_ref().map(|name| {
        vec![sortie_wire::shapes::node::Tag {
            key: "Name".to_owned(),
            value: name.clone(),
        }]
    });
    Ok(RegisterManagedInstanceRequest {
        activation_code: Some(options.activation_code.clone()),
        activation_id: Some(options.activation_id.clone()),
        fingerprint: fingerprint.to_owned(),
        public_key: key.public_key()?,
        public_key_type: Some(PublicKeyType::RSA),
        tags,
        ..RegisterManagedInstanceRequest::default()
    })
}

fn read_answer(answer: &[u8]) -> Result<(NodeId, Option<Region>), RegisterError> {
    let answer: Value = serde_json::from_slice(answer).map_err(|_| RegisterError::NodeId(None))?;
    let node_id = answer
        .get("InstanceId")
        .and_then(Value::as_str)
        .ok_or(RegisterError::NodeId(None))?;
    let node_id = node_id
        .parse()
        .map_err(|error| RegisterError::NodeId(Some(error)))?;
    // Ours; other servers do not say it.
    let region = answer
        .get("Region")
        .and_then(Value::as_str)
        .and_then(|region| region.parse().ok());
    Ok((node_id, region))
}

/// The registration comes last: it is what makes the rest count.
fn save(
    data_dir: &DataDir,
    registration: &Registration,
    key: &NodeKey,
    ca_pem: Option<&str>,
) -> io::Result<()> {
    remove_if_present(&data_dir.next_key())?;
    match ca_pem {
        Some(pem) => os::write_private(&data_dir.ca(), pem.as_bytes())?,
        None => remove_if_present(&data_dir.ca())?,
    }
    let pem = key.to_pem().map_err(io::Error::other)?;
    os::write_private(&data_dir.key(), pem.as_bytes())?;
    registration.save(data_dir)
}

fn remove_if_present(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
