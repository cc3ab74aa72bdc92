//! Enrolment: a machine with an activation becomes a managed node. Nobody is authenticated here;
//! the activation's code is the proof.

use aws_lc_rs::{constant_time::verify_slices_are_equal, rsa::PublicEncryptingKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use sortie_ports::{
    Activation, ActivationUse, Change, Conflict, Node, NodeInfo, NodeState, StoreError,
};
use sortie_types::{ActivationId, NodeId, Secret, Tag};

use crate::{
    Control,
    activations::code_digest,
    authorize::{self, OperationRule},
    call::{Call, InternalError, Recorded, internal},
    mint,
    trail::Done,
};

/// What a machine brings.
#[derive(Clone, Debug)]
pub struct RegisterManagedInstanceInput {
    /// The activation.
    pub activation_id: String,
    /// Its secret half.
    pub activation_code: Secret,
    /// Base64 of the DER SubjectPublicKeyInfo.
    pub public_key: String,
    /// `Rsa`.
    pub public_key_type: String,
    /// Made by the machine; a clone sends another one later.
    pub fingerprint: String,
    /// Only `Name` is taken, as the node's name. A machine does not choose its own tags, because
    /// tags decide who may reach it.
    pub tags: Vec<(String, String)>,
}

/// The new node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterManagedInstanceOutput {
    /// `mi-…`.
    pub node_id: NodeId,
}

/// Why the machine was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum RegisterManagedInstanceError {
    /// The activation's time is over.
    #[error("the activation has expired")]
    ActivationExpired,
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Unknown, deleted, or not its code: a stranger does not learn which.
    #[error("the activation or its code is not valid")]
    InvalidActivation,
    /// Not the form of an activation's id.
    #[error("the activation id is not valid")]
    InvalidActivationId,
    /// A member has a value it cannot have.
    #[error("{0}")]
    InvalidParameters(String),
    /// Not an RSA key of at least 2048 bits.
    #[error("the public key is not an RSA key of at least 2048 bits")]
    InvalidPublicKey,
    /// Another node has this key.
    #[error("the public key is registered already")]
    PublicKeyAlreadyRegistered,
    /// As many nodes enrolled as may.
    #[error("the registration limit of the activation is reached")]
    RegistrationLimitExceeded,
}

internal!(RegisterManagedInstanceError);

/// Characters of a fingerprint, at most. The official agent sends a UUID.
const FINGERPRINT_LIMIT: usize = 256;

/// A key that is not one.
#[derive(Debug)]
pub(crate) struct NotAKey;

/// Checks a node's public key and gives its DER SubjectPublicKeyInfo.
pub(crate) fn parse_public_key(text: &str, kind: &str) -> Result<Vec<u8>, NotAKey> {
    if kind != "Rsa" {
        return Err(NotAKey);
    }
    let der = STANDARD.decode(text).map_err(|_| NotAKey)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| NotAKey)?;
    (2048..=8192)
        .contains(&key.key_size_bits())
        .then_some(der)
        .ok_or(NotAKey)
}

impl Control {
    /// `RegisterManagedInstance`: uses up one registration and makes the node, in one step.
    ///
    /// # Errors
    /// As [`RegisterManagedInstanceError`] says.
    pub async fn register_managed_instance(
        &self,
        call: &Call,
        input: RegisterManagedInstanceInput,
    ) -> Result<Recorded<RegisterManagedInstanceOutput>, RegisterManagedInstanceError> {
        const RULE: OperationRule = authorize::REGISTER_MANAGED_INSTANCE;
        let activation = self.usable_activation(call, &input).await?;
        let public_key = parse_public_key(&input.public_key, &input.public_key_type)
            .map_err(|NotAKey| RegisterManagedInstanceError::InvalidPublicKey)?;
        let node = new_node(call, &input, &activation, public_key)?;
        let node_id = node.id.clone();
        let done = Done::with(RegisterManagedInstanceOutput {
            node_id: node_id.clone(),
        })
        .showing(json!({"instanceId": node_id}))
        .about([
            self.inner.names.node_resource(&node_id),
            self.inner.names.activation_resource(&activation.id),
        ])
        .changing(vec![
            Change::UseActivation {
                activation_id: activation.id,
                at: call.now,
            },
            Change::InsertNode(Box::new(node)),
        ]);
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(conflict))) => Err(refusal(conflict)),
            outcome => Ok(outcome?),
        }
    }

    async fn usable_activation(
        &self,
        call: &Call,
        input: &RegisterManagedInstanceInput,
    ) -> Result<Activation, RegisterManagedInstanceError> {
        let id: ActivationId = input
            .activation_id
            .parse()
            .map_err(|_| RegisterManagedInstanceError::InvalidActivationId)?;
        let activation = self.inner.state.activation(&id).await?;
        let activation = activation.ok_or(RegisterManagedInstanceError::InvalidActivation)?;
        let digest = code_digest(&input.activation_code);
        verify_slices_are_equal(&digest, &activation.code_digest)
            .map_err(|_| RegisterManagedInstanceError::InvalidActivation)?;
        if call.now >= activation.expires {
            return Err(RegisterManagedInstanceError::ActivationExpired);
        }
        if activation.registrations_count >= activation.registration_limit {
            return Err(RegisterManagedInstanceError::RegistrationLimitExceeded);
        }
        Ok(activation)
    }
}

/// What the state found when it was to make the node.
fn refusal(conflict: Conflict) -> RegisterManagedInstanceError {
    match conflict {
        Conflict::Activation(ActivationUse::Expired) => {
            RegisterManagedInstanceError::ActivationExpired
        }
        Conflict::Activation(ActivationUse::UsedUp) => {
            RegisterManagedInstanceError::RegistrationLimitExceeded
        }
        Conflict::Activation(ActivationUse::Unknown) | Conflict::NoActivation => {
            RegisterManagedInstanceError::InvalidActivation
        }
        Conflict::Exists => RegisterManagedInstanceError::PublicKeyAlreadyRegistered,
        other => StoreError::Conflict(other).into(),
    }
}

fn new_node(
    call: &Call,
    input: &RegisterManagedInstanceInput,
    activation: &Activation,
    public_key: Vec<u8>,
) -> Result<Node, RegisterManagedInstanceError> {
    if !(1..=FINGERPRINT_LIMIT).contains(&input.fingerprint.len()) {
        let why = "Fingerprint must have from 1 to 256 characters.".to_owned();
        return Err(RegisterManagedInstanceError::InvalidParameters(why));
    }
    Ok(Node {
        id: mint::node_id()?,
        state: NodeState::Active,
        activation_id: activation.id,
        iam_role: activation.iam_role.clone(),
        name: own_name(&input.tags)?.or_else(|| activation.default_instance_name.clone()),
        registered: call.now,
        source_ip: Some(call.source_ip.clone()),
        fingerprint: input.fingerprint.clone(),
        public_key,
        previous_public_key: None,
        info: NodeInfo::default(),
        last_ping: call.now,
        connected: false,
        tags: activation.tags.clone(),
    })
}

/// The name that a machine gives itself.
fn own_name(tags: &[(String, String)]) -> Result<Option<String>, RegisterManagedInstanceError> {
    let Some((key, value)) = tags.iter().find(|(key, _)| key == "Name") else {
        return Ok(None);
    };
    let tag = Tag::new(key, value)
        .map_err(|error| RegisterManagedInstanceError::InvalidParameters(error.to_string()))?;
    Ok((!tag.value.is_empty()).then_some(tag.value))
}
