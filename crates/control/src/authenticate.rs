//! Looking up what a caller presents: an access key, a session token, or a node's own key. The door
//! verifies the signature with what is found here. State is looked up on every call, so a key, user
//! or node that is switched off is refused at once.

use sortie_ports::{Change, Commit, Conflict, Node, NodeState, StoreError};
use sortie_types::{AccessKeyId, NodeId, Secret, Timestamp};

use crate::{
    Control,
    call::{Caller, InternalError, NodeCaller, UserCaller, internal},
    credentials::NodeCredentials,
    seal,
};

/// A key that exists: who holds it, and what it signs with.
#[derive(Clone, Debug)]
pub struct KnownKey {
    /// Who calls, once the signature is verified.
    pub caller: Caller,
    /// The secret to verify with.
    pub secret: Secret,
}

/// The public keys a node may sign with.
#[derive(Clone, Debug)]
pub struct NodeKeys {
    /// Whose.
    pub node_id: NodeId,
    /// DER SubjectPublicKeyInfo.
    pub current: Vec<u8>,
    /// The key before, good until the current one has been used.
    pub previous: Option<Vec<u8>>,
    /// Who calls, once the signature is verified.
    pub caller: Caller,
}

/// Why a caller is not known.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// The session token was not sealed by us for this key, is missing, or does not belong here.
    #[error("the session token is not valid")]
    BadToken,
    /// The temporary credentials are over.
    #[error("the credentials have expired")]
    Expired,
    /// The key is switched off.
    #[error("the access key is not active")]
    Inactive,
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// The node was deregistered.
    #[error("the node is not registered any more")]
    NodeGone,
    /// There is no such key.
    #[error("the access key does not exist")]
    UnknownKey,
}

internal!(AuthenticationError);

impl Control {
    /// Finds the holder and the secret of an access key.
    ///
    /// # Errors
    /// As [`AuthenticationError`] says.
    pub async fn look_up_key(
        &self,
        access_key: &str,
        session_token: Option<&Secret>,
        now: Timestamp,
    ) -> Result<KnownKey, AuthenticationError> {
        let key_id: AccessKeyId = access_key
            .parse()
            .map_err(|_| AuthenticationError::UnknownKey)?;
        match session_token {
            Some(token) if key_id.is_temporary() => self.temporary_key(&key_id, token, now).await,
            None if !key_id.is_temporary() => self.long_lived_key(&key_id).await,
            _ => Err(AuthenticationError::BadToken),
        }
    }

    async fn long_lived_key(&self, key_id: &AccessKeyId) -> Result<KnownKey, AuthenticationError> {
        let (key, user) = self
            .inner
            .state
            .access_key(key_id)
            .await?
            .ok_or(AuthenticationError::UnknownKey)?;
        if !key.active {
            return Err(AuthenticationError::Inactive);
        }
        let sealer = &self.inner.access_key_sealer;
        let secret = seal::open_access_key(sealer, key_id.as_str(), &key.sealed_secret)
            .map_err(|_| unreadable_secret(key_id))?;
        let access_key_id = key_id.clone();
        let caller = Caller::User(UserCaller {
            user,
            access_key_id,
        });
        Ok(KnownKey { caller, secret })
    }

    async fn temporary_key(
        &self,
        key_id: &AccessKeyId,
        token: &Secret,
        now: Timestamp,
    ) -> Result<KnownKey, AuthenticationError> {
        let credentials = NodeCredentials::open(&self.inner.credential_sealer, key_id, token)
            .map_err(|_| AuthenticationError::BadToken)?;
        if now >= credentials.expires {
            return Err(AuthenticationError::Expired);
        }
        self.known_node(&credentials.node_id).await?;
        let caller = Caller::Node(NodeCaller {
            node_id: credentials.node_id,
            iam_role: credentials.iam_role,
            access_key_id: Some(credentials.access_key_id),
            issued: Some(credentials.issued),
        });
        Ok(KnownKey {
            caller,
            secret: credentials.secret,
        })
    }

    /// Finds the public keys of a node that signs with its own key.
    ///
    /// # Errors
    /// As [`AuthenticationError`] says.
    pub async fn node_public_keys(&self, node_id: &str) -> Result<NodeKeys, AuthenticationError> {
        let node_id: NodeId = node_id
            .parse()
            .map_err(|_| AuthenticationError::UnknownKey)?;
        let node = self.known_node(&node_id).await?;
        let caller = Caller::Node(NodeCaller {
            node_id: node.id.clone(),
            iam_role: node.iam_role,
            access_key_id: None,
            issued: None,
        });
        Ok(NodeKeys {
            node_id: node.id,
            current: node.public_key,
            previous: node.previous_public_key,
            caller,
        })
    }

    /// Notes with which of its public keys a node signed, before its operation runs. The first use of
    /// the current key ends the life of the one before.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn node_key_used(&self, node_id: &NodeId, used: &[u8]) -> Result<(), StoreError> {
        let node = self.inner.state.node(node_id).await?;
        let Some(node) =
            node.filter(|node| node.previous_public_key.is_some() && node.public_key == used)
        else {
            return Ok(());
        };
        let commit = Commit {
            changes: vec![
                // A newer key that was set meanwhile must not be undone.
                Change::RequireNode {
                    node_id: node_id.clone(),
                    public_key: Some(node.public_key.clone()),
                },
                Change::SetNodeKey {
                    node_id: node.id,
                    public_key: node.public_key,
                    previous: None,
                },
            ],
            trail: Vec::new(),
        };
        match self.inner.state.commit(commit).await {
            // Deregistered or rotated meanwhile: the operation will find out.
            Err(StoreError::Conflict(Conflict::NoNode | Conflict::NodeKey)) => Ok(()),
            outcome => outcome,
        }
    }

    async fn known_node(&self, node_id: &NodeId) -> Result<Node, AuthenticationError> {
        let node = self.inner.state.node(node_id).await?;
        let node = node.ok_or(AuthenticationError::UnknownKey)?;
        match node.state {
            NodeState::Active => Ok(node),
            NodeState::Deregistered => Err(AuthenticationError::NodeGone),
        }
    }
}

/// The secret was sealed under another root key: the key exists, but nobody can use it.
fn unreadable_secret(key_id: &AccessKeyId) -> AuthenticationError {
    tracing::error!(access_key_id = %key_id, "the secret of an access key does not open: is the root key another one?");
    AuthenticationError::UnknownKey
}
