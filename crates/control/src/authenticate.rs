//! Looking up what a caller presents: an access key, a session token, or a node's own key. The door
//! verifies the signature with what is found here. State is looked up on every call, so a key, user
//! or node that is switched off is refused at once.

use sortie_ports::{
    Change, Commit, Conflict, IdentityKind, IdentityUse, Node, NodeState, StoreError,
};
use sortie_types::{AccessKeyId, NodeId, Secret, Timestamp, UniqueId};

use crate::{
    Control,
    arns::Names,
    call::{Caller, InternalError, NodeCaller, RoleCaller, TemporarySession, UserCaller, internal},
    credentials::{Holder, TemporaryCredentials},
    directory::Directory,
    pass_role::role_of_nodes,
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
        let directory = self.directory().await?;
        let key = directory
            .access_key(key_id)
            .ok_or(AuthenticationError::UnknownKey)?;
        if !key.active {
            return Err(AuthenticationError::Inactive);
        }
        let user = directory
            .user_by_id(&key.user)
            .ok_or(AuthenticationError::UnknownKey)?;
        let sealer = &self.inner.access_key_sealer;
        let secret = seal::open_access_key(sealer, key_id.as_str(), &key.sealed_secret)
            .map_err(|_| unreadable_secret(key_id))?;
        let caller = Caller::User(Box::new(UserCaller {
            user: user.clone(),
            access_key_id: key_id.clone(),
            session: None,
        }));
        Ok(KnownKey { caller, secret })
    }

    async fn temporary_key(
        &self,
        key_id: &AccessKeyId,
        token: &Secret,
        now: Timestamp,
    ) -> Result<KnownKey, AuthenticationError> {
        let credentials = TemporaryCredentials::open(&self.inner.credential_sealer, key_id, token)
            .map_err(|_| AuthenticationError::BadToken)?;
        if now >= credentials.session.expires {
            return Err(AuthenticationError::Expired);
        }
        let directory = self.directory().await?;
        if let Some(node_id) = node_behind(&credentials.holder, Some(&credentials.session)) {
            self.known_node(node_id).await?;
        }
        let session = Some(credentials.session);
        let names = &self.inner.names;
        let caller = caller_of(
            names,
            &directory,
            credentials.holder,
            key_id.clone(),
            session,
        )?;
        Ok(KnownKey {
            caller,
            secret: credentials.secret,
        })
    }

    /// Notes for what a key was used, once its signature is verified.
    pub fn key_used(&self, caller: &Caller, service: &str, now: Timestamp) {
        let (kind, key) = match caller {
            Caller::Node(node) => match &node.role {
                Some(role) => (IdentityKind::Role, role.unique_id.as_str()),
                None => return,
            },
            Caller::Role(role) => (IdentityKind::Role, role.role.unique_id.as_str()),
            Caller::User(user) if user.session.is_none() => {
                (IdentityKind::AccessKey, user.access_key_id.as_str())
            }
            Caller::Anonymous { .. } | Caller::User(_) => return,
        };
        let usage = IdentityUse {
            at: now,
            service: Some(service.to_owned()),
            region: Some(self.inner.names.region.to_string()),
        };
        self.identity_used(kind, key, usage);
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
        let directory = self.directory().await?;
        let names = &self.inner.names;
        let caller = node_by_key(names, &directory, node.id.clone(), node.iam_role);
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

    pub(crate) async fn known_node(&self, node_id: &NodeId) -> Result<Node, AuthenticationError> {
        let node = self.inner.state.node(node_id).await?;
        let node = node.ok_or(AuthenticationError::UnknownKey)?;
        match node.state {
            NodeState::Active => Ok(node),
            NodeState::Deregistered => Err(AuthenticationError::NodeGone),
        }
    }
}

/// A node that acts by its own key, or by a token of a session on it.
pub(crate) fn node_by_key(
    names: &Names,
    directory: &Directory,
    node_id: NodeId,
    iam_role: String,
) -> Caller {
    Caller::Node(Box::new(NodeCaller {
        role: role_of_nodes(names, directory, &iam_role, None, Some(&node_id)).cloned(),
        node_id,
        iam_role,
        access_key_id: None,
        issued: None,
    }))
}

/// The node that temporary credentials are of, or come from in the end. They are no good without it.
pub(crate) fn node_behind<'a>(
    holder: &'a Holder,
    session: Option<&'a TemporarySession>,
) -> Option<&'a NodeId> {
    match holder {
        Holder::Node { node_id, .. } => Some(node_id),
        Holder::Role { .. } | Holder::User { .. } => session?.node.as_ref(),
    }
}

/// Those behind a key as they are now. A temporary key is as good as what it was issued for.
pub(crate) fn caller_of(
    names: &Names,
    directory: &Directory,
    holder: Holder,
    access_key_id: AccessKeyId,
    session: Option<TemporarySession>,
) -> Result<Caller, AuthenticationError> {
    match holder {
        Holder::Node {
            node_id,
            iam_role,
            role,
        } => Ok(Caller::Node(Box::new(NodeCaller {
            role: role_of_nodes(names, directory, &iam_role, role.as_ref(), Some(&node_id))
                .cloned(),
            node_id,
            iam_role,
            access_key_id: Some(access_key_id),
            issued: session.map(|session| session.issued),
        }))),
        Holder::Role { role, session_name } => {
            let session = session.ok_or(AuthenticationError::BadToken)?;
            role_caller(directory, &role, session_name, access_key_id, session)
        }
        Holder::User { user } => user_caller(directory, &user, access_key_id, session),
    }
}

fn user_caller(
    directory: &Directory,
    user: &UniqueId,
    access_key_id: AccessKeyId,
    session: Option<TemporarySession>,
) -> Result<Caller, AuthenticationError> {
    let user = directory
        .user_by_id(user)
        .ok_or(AuthenticationError::UnknownKey)?;
    let good = match &session {
        Some(session) => origin_is_good(directory, session, &user.unique_id),
        None => key_is_good(directory, &access_key_id),
    };
    if !good {
        return Err(AuthenticationError::Inactive);
    }
    Ok(Caller::User(Box::new(UserCaller {
        user: user.clone(),
        access_key_id,
        session,
    })))
}

fn role_caller(
    directory: &Directory,
    role: &UniqueId,
    session_name: String,
    access_key_id: AccessKeyId,
    session: TemporarySession,
) -> Result<Caller, AuthenticationError> {
    let role = directory
        .role_by_id(role)
        .ok_or(AuthenticationError::UnknownKey)?;
    let beginning = session.assumed_by.as_ref().unwrap_or(&role.unique_id);
    if !origin_is_good(directory, &session, beginning) {
        return Err(AuthenticationError::Inactive);
    }
    Ok(Caller::Role(Box::new(RoleCaller {
        role: role.clone(),
        session_name,
        access_key_id,
        session,
    })))
}

fn key_is_good(directory: &Directory, key: &AccessKeyId) -> bool {
    directory.access_key(key).is_some_and(|key| key.active)
}

/// Whether what temporary credentials come from in the end is still good: the long-lived key, the
/// user's password of then, or the role of a node. Stricter than IAM, where they outlive it.
fn origin_is_good(directory: &Directory, session: &TemporarySession, beginning: &UniqueId) -> bool {
    match &session.issuing_key {
        Some(key) => key_is_good(directory, key),
        None => match directory.user_by_id(beginning) {
            Some(user) => {
                let signed_in = session.signed_in.unwrap_or(session.issued);
                let profile = user.login_profile.as_ref();
                profile.is_some_and(|profile| signed_in >= profile.since())
            }
            None => directory.role_by_id(beginning).is_some(),
        },
    }
}

/// The secret was sealed under another root key: the key exists, but nobody can use it.
fn unreadable_secret(key_id: &AccessKeyId) -> AuthenticationError {
    tracing::error!(access_key_id = %key_id, "the secret of an access key does not open: is the root key another one?");
    AuthenticationError::UnknownKey
}
