//! What an enrolled node calls. Every operation acts as the caller alone: a node that names another
//! one is refused, whatever it asks.

use serde_json::{Value, json};
use sortie_evidence::HIDDEN;
use sortie_ports::{Change, Conflict, NodeInfo, SessionPatch, StoreError};
use sortie_types::{AccessKeyId, NodeId, Secret, SessionId, Timestamp};

use crate::{
    Control,
    authorize::{
        self, Ask, AuthorizeError, Authorized, Denied, OperationRule, ResourceKind, rule_named,
    },
    call::{
        Call, Caller, InternalError, NodeCaller, Recorded, TemporarySession, internal, refusable,
    },
    credentials::{Holder, TemporaryCredentials},
    enrol::{NotAKey, parse_public_key},
    nodes::asked_node,
    session_life::LIVING,
    sessions::TOKEN_LIFETIME,
    token::{ChannelToken, TokenKind},
    trail::Done,
};

/// What a node proves itself with.
#[derive(Clone, Debug)]
pub struct RequestManagedInstanceRoleTokenInput {
    /// As at registration.
    pub fingerprint: String,
}

/// Temporary credentials. The official agent needs all five members.
#[derive(Clone, Debug)]
pub struct RequestManagedInstanceRoleTokenOutput {
    /// `ASIA…`.
    pub access_key_id: AccessKeyId,
    /// Its secret.
    pub secret_access_key: Secret,
    /// Must go with every call.
    pub session_token: Secret,
    /// Not good from then on.
    pub expiration: Timestamp,
    /// Whether the node is asked to make a new key pair now.
    pub update_key_pair: bool,
}

/// Why there are no credentials. The official agent waits half an hour after the first two.
#[derive(Debug, thiserror::Error)]
pub enum RequestManagedInstanceRoleTokenError {
    /// Not a node with its own key, or one that was thrown out.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another machine with this node's key, or this machine is no longer the same.
    #[error("the fingerprint is not that of the registered machine")]
    FingerprintDoesNotMatch,
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
}

/// A new key.
#[derive(Clone, Debug)]
pub struct UpdateManagedInstancePublicKeyInput {
    /// Base64 of the DER SubjectPublicKeyInfo.
    pub new_public_key: String,
    /// `Rsa`.
    pub new_public_key_type: String,
}

/// Why the key stays.
#[derive(Debug, thiserror::Error)]
pub enum UpdateManagedInstancePublicKeyError {
    /// Not a node with its own key.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Not an RSA key of at least 2048 bits, or another node's.
    #[error("the public key is not a new RSA key of at least 2048 bits")]
    InvalidPublicKey,
}

/// A heartbeat.
#[derive(Clone, Debug)]
pub struct UpdateInstanceInformationInput {
    /// The caller itself.
    pub instance_id: String,
    /// What it says about itself; absent facts stay as they were.
    pub info: NodeInfo,
}

/// Why it was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UpdateInstanceInformationError {
    /// Not that node.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Thrown out.
    #[error("instance {id} does not exist")]
    InvalidInstanceId {
        /// As it was given.
        id: String,
    },
}

/// Whose control channel.
#[derive(Clone, Debug)]
pub struct CreateControlChannelInput {
    /// The caller itself.
    pub node_id: String,
}

/// Which session's data channel.
#[derive(Clone, Debug)]
pub struct CreateDataChannelInput {
    /// The session.
    pub session_id: String,
}

/// Opens a channel.
#[derive(Clone, Debug)]
pub struct CreateChannelOutput {
    /// Goes into the open message.
    pub token_value: Secret,
}

/// Why there is no control channel.
#[derive(Debug, thiserror::Error)]
pub enum CreateControlChannelError {
    /// Not that node.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// Thrown out.
    #[error("instance {id} does not exist")]
    InvalidInstanceId {
        /// As it was given.
        id: String,
    },
}

/// Why there is no data channel.
#[derive(Debug, thiserror::Error)]
pub enum CreateDataChannelError {
    /// Not a session of that node.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There never was such a session.
    #[error("session {session_id} does not exist")]
    DoesNotExist {
        /// As it was given.
        session_id: String,
    },
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// The session is over. The official agent stops trying when it reads these words.
    #[error("Session is already terminated")]
    Over,
}

/// Why an operation that needs no answer has none.
#[derive(Debug, thiserror::Error)]
pub enum QuietError {
    /// Not that node, or no such operation.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
}

internal!(
    RequestManagedInstanceRoleTokenError,
    UpdateManagedInstancePublicKeyError,
    UpdateInstanceInformationError,
    CreateControlChannelError,
    CreateDataChannelError,
    QuietError,
);
refusable!(
    RequestManagedInstanceRoleTokenError,
    UpdateManagedInstancePublicKeyError,
    UpdateInstanceInformationError,
    CreateControlChannelError,
    CreateDataChannelError,
    QuietError,
);

impl Control {
    /// The proof that the caller is the node it acts as: itself where the input names none.
    async fn authorize_self(
        &self,
        call: &Call,
        rule: &OperationRule,
        named: Option<&str>,
    ) -> Result<Authorized<NodeCaller>, AuthorizeError> {
        let names = &self.inner.names;
        let caller = match &call.caller {
            Caller::Node(node) => Some(node.as_ref()),
            Caller::Anonymous { .. } | Caller::Role(_) | Caller::User(_) => None,
        };
        let own = caller.map(|node| node.node_id.as_str());
        let target = named.or(own).unwrap_or("*");
        let acts_as: Option<NodeId> = target.parse().ok();
        let ask = if rule.resources == [ResourceKind::Any] {
            Ask::any()
        } else if named.is_none_or(|named| Some(named) == own) {
            let node = self.node_named(target).await?;
            Ask::about(vec![asked_node(names, target, node.as_ref())])
        } else {
            Ask::on(names.target(target))
        };
        let proof = self
            .authorize(call, rule, ask, acts_as.as_ref(), caller.cloned())
            .await?;
        // The table lets only nodes through; for anyone else there is no proof to make.
        let refusal = || authorize::refusal(names, &call.caller, rule, &names.target(target));
        Ok(proof.transpose().ok_or_else(refusal)?)
    }

    /// `RequestManagedInstanceRoleToken`.
    ///
    /// # Errors
    /// As [`RequestManagedInstanceRoleTokenError`] says.
    pub async fn request_managed_instance_role_token(
        &self,
        call: &Call,
        input: RequestManagedInstanceRoleTokenInput,
    ) -> Result<Recorded<RequestManagedInstanceRoleTokenOutput>, RequestManagedInstanceRoleTokenError>
    {
        const RULE: OperationRule = authorize::REQUEST_MANAGED_INSTANCE_ROLE_TOKEN;
        let proof = self.authorize_self(call, &RULE, None).await?;
        let node_id = &proof.resource().node_id;
        let node = self.active_node(node_id).await?.ok_or_else(|| {
            let names = &self.inner.names;
            authorize::refusal(names, &call.caller, &RULE, &names.node(node_id))
        })?;
        if node.fingerprint != input.fingerprint {
            return Err(RequestManagedInstanceRoleTokenError::FingerprintDoesNotMatch);
        }
        let expiration = call.now.plus(self.inner.settings.credential_lifetime);
        let resource = self.inner.names.node_resource(&node.id);
        let holder = Holder::Node {
            node_id: node.id,
            iam_role: node.iam_role,
            role: proof
                .resource()
                .role
                .as_ref()
                .map(|role| role.unique_id.clone()),
        };
        let session = TemporarySession::new(call.now, expiration);
        let credentials = TemporaryCredentials::mint(holder, session)?;
        let done = Done::with(RequestManagedInstanceRoleTokenOutput {
            session_token: credentials.session_token(&self.inner.credential_sealer)?,
            access_key_id: credentials.access_key_id,
            secret_access_key: credentials.secret,
            expiration,
            update_key_pair: false,
        })
        .about([resource]);
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `UpdateManagedInstancePublicKey`. The key that signed stays good until the new one has been
    /// used, because the answer may not reach the node.
    ///
    /// # Errors
    /// As [`UpdateManagedInstancePublicKeyError`] says.
    pub async fn update_managed_instance_public_key(
        &self,
        call: &Call,
        input: UpdateManagedInstancePublicKeyInput,
    ) -> Result<Recorded<()>, UpdateManagedInstancePublicKeyError> {
        const RULE: OperationRule = authorize::UPDATE_MANAGED_INSTANCE_PUBLIC_KEY;
        let proof = self.authorize_self(call, &RULE, None).await?;
        let node_id = &proof.resource().node_id;
        let gone = || {
            let names = &self.inner.names;
            authorize::refusal(names, &call.caller, &RULE, &names.node(node_id))
        };
        let public_key = parse_public_key(&input.new_public_key, &input.new_public_key_type)
            .map_err(|NotAKey| UpdateManagedInstancePublicKeyError::InvalidPublicKey)?;
        let node = self.active_node(node_id).await?.ok_or_else(gone)?;
        let same = Change::RequireNode {
            node_id: node_id.clone(),
            public_key: Some(node.public_key.clone()),
        };
        // A previous key is there only while the current one was never used: then it signed.
        let signed = node.previous_public_key.unwrap_or(node.public_key);
        let previous = (signed != public_key).then_some(signed);
        let done = Done::with(())
            .about([self.inner.names.node_resource(node_id)])
            .changing(vec![
                same,
                Change::SetNodeKey {
                    node_id: node_id.clone(),
                    public_key,
                    previous,
                },
            ]);
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(conflict))) => Err(match conflict {
                Conflict::NoNode => gone().into(),
                Conflict::Exists => UpdateManagedInstancePublicKeyError::InvalidPublicKey,
                other => StoreError::Conflict(other).into(),
            }),
            outcome => Ok(outcome?),
        }
    }

    /// `UpdateInstanceInformation`.
    ///
    /// # Errors
    /// As [`UpdateInstanceInformationError`] says.
    pub async fn update_instance_information(
        &self,
        call: &Call,
        input: UpdateInstanceInformationInput,
    ) -> Result<Recorded<()>, UpdateInstanceInformationError> {
        const RULE: OperationRule = authorize::UPDATE_INSTANCE_INFORMATION;
        let proof = self
            .authorize_self(call, &RULE, Some(&input.instance_id))
            .await?;
        let node_id = &proof.resource().node_id;
        let done = Done::with(())
            .about([self.inner.names.node_resource(node_id)])
            .changing(vec![Change::SetNodeInfo {
                node_id: node_id.clone(),
                info: input.info,
                at: call.now,
            }]);
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::NoNode))) => {
                let id = input.instance_id;
                Err(UpdateInstanceInformationError::InvalidInstanceId { id })
            }
            outcome => Ok(outcome?),
        }
    }

    /// `CreateControlChannel`.
    ///
    /// # Errors
    /// As [`CreateControlChannelError`] says.
    pub async fn create_control_channel(
        &self,
        call: &Call,
        input: CreateControlChannelInput,
    ) -> Result<Recorded<CreateChannelOutput>, CreateControlChannelError> {
        const RULE: OperationRule = authorize::CREATE_CONTROL_CHANNEL;
        let proof = self
            .authorize_self(call, &RULE, Some(&input.node_id))
            .await?;
        let node_id = &proof.resource().node_id;
        if self.active_node(node_id).await?.is_none() {
            let id = input.node_id;
            return Err(CreateControlChannelError::InvalidInstanceId { id });
        }
        let token = ChannelToken {
            kind: TokenKind::Control,
            name: node_id.to_string(),
            epoch: 0,
            expires: Some(call.now.plus(TOKEN_LIFETIME)),
            client: [0; 16],
        };
        let answer = CreateChannelOutput {
            token_value: token.seal(&self.inner.channel_sealer)?,
        };
        let done = Done::with(answer)
            .showing(channel_elements())
            .about([self.inner.names.control_channel_resource(node_id)]);
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `CreateDataChannel`: the token supersedes those of the node's side before.
    ///
    /// # Errors
    /// As [`CreateDataChannelError`] says.
    pub async fn create_data_channel(
        &self,
        call: &Call,
        input: CreateDataChannelInput,
    ) -> Result<Recorded<CreateChannelOutput>, CreateDataChannelError> {
        const RULE: OperationRule = authorize::CREATE_DATA_CHANNEL;
        let proof = self.authorize_self(call, &RULE, None).await?;
        let absent = || CreateDataChannelError::DoesNotExist {
            session_id: input.session_id.clone(),
        };
        let id: SessionId = input.session_id.parse().map_err(|_| absent())?;
        let session = self.inner.state.session(&id).await?.ok_or_else(absent)?;
        self.authorize_self(call, &RULE, Some(session.target.as_str()))
            .await?;
        if !LIVING.contains(&session.state) {
            return Err(CreateDataChannelError::Over);
        }
        let epoch = session.node_epoch.saturating_add(1);
        let token = ChannelToken {
            kind: TokenKind::Node,
            name: session.id.to_string(),
            epoch,
            expires: Some(call.now.plus(TOKEN_LIFETIME)),
            client: [0; 16],
        };
        let answer = CreateChannelOutput {
            token_value: token.seal(&self.inner.channel_sealer)?,
        };
        let done = Done::with(answer)
            .showing(channel_elements())
            .about([
                self.inner.names.data_channel_resource(&session.id),
                self.inner.names.node_resource(&proof.resource().node_id),
            ])
            .changing(vec![Change::UpdateSession {
                session_id: session.id,
                when: LIVING.to_vec(),
                patch: SessionPatch {
                    node_epoch: Some(epoch),
                    ..SessionPatch::default()
                },
            }]);
        match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::SessionState(_)))) => {
                Err(CreateDataChannelError::Over)
            }
            outcome => Ok(outcome?),
        }
    }

    /// An operation of the official agent that is answered with nothing: `ListInstanceAssociations`,
    /// `GetMessages` and their like. `instance_id` is the node that the input names, if it does.
    ///
    /// # Errors
    /// As [`QuietError`] says.
    pub async fn quiet(
        &self,
        call: &Call,
        instance_id: Option<&str>,
    ) -> Result<Recorded<()>, QuietError> {
        let Some(rule) = rule_named(call.event_name).filter(|rule| is_quiet(rule)) else {
            let names = &self.inner.names;
            let denied = Denied::unknown_operation(
                &authorize::principal(names, &call.caller),
                call.event_name,
            );
            return Err(denied.into());
        };
        let proof = self.authorize_self(call, rule, instance_id).await?;
        let resource = self.inner.names.node_resource(&proof.resource().node_id);
        let done = Done::with(()).about([resource]);
        Ok(self.record(call, rule, done).await?)
    }
}

/// Whether an operation changes nothing here and is answered with nothing.
fn is_quiet(rule: &OperationRule) -> bool {
    rule.service == "ec2messages"
        || matches!(
            rule.name,
            "DescribeAssociation"
                | "ListAssociations"
                | "ListInstanceAssociations"
                | "PutComplianceItems"
                | "PutConfigurePackageResult"
                | "PutInventory"
                | "UpdateAssociationStatus"
                | "UpdateInstanceAssociationStatus"
        )
}

fn channel_elements() -> Value {
    json!({"messageSchemaVersion": "1.0", "tokenValue": HIDDEN})
}
