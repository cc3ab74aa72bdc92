//! What the gateway asks: whether a channel may be opened, tickets for the next reconnect, and the
//! lives of nodes and sessions as the gateway sees them.
//!
//! Failures of the state while a node or session changes are logged here, since the gateway can do
//! nothing about them; the end of a session is kept and tried again.

use serde_json::json;
use sortie_evidence::{AuditRecord, Resource};
use sortie_ports::{
    Change, Commit, Conflict, NodeInfo, NodeState, Session, SessionPatch, SessionQuery,
    SessionState, Signal, StoreError,
};
use sortie_types::{NodeId, Secret, SessionId, Timestamp};

use crate::{
    Control,
    authenticate::node_by_key,
    authorize::{self, Ask, Authorized, Denied, OperationRule},
    call::{Call, Caller, InternalError, internal, refusable},
    judge::Circumstances,
    mint::{self, RandomError},
    session_life::{LIVING, origins},
    sessions::{TOKEN_LIFETIME, asked_session},
    token::{ChannelToken, TokenKind, client_binding},
    trail::Done,
};

/// Sessions read at once where all living ones are wanted.
const BATCH: usize = 500;
/// How often the end of a session is tried again because the session moved meanwhile.
const ATTEMPTS: usize = 8;

/// An end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The person's program.
    Client,
    /// The managed node.
    Node,
}

/// What an end presents when it opens a data channel.
#[derive(Clone, Debug)]
pub struct DataOpen {
    /// `TokenValue` of the open message, or a ticket.
    pub token: Secret,
    /// The client's own id; empty from nodes.
    pub client_id: String,
    /// The node's id; absent from clients.
    pub node_id: Option<String>,
    /// From where.
    pub source_ip: String,
    /// With what.
    pub user_agent: Option<String>,
    /// Whether the connection is encrypted.
    pub secure_transport: bool,
    /// Who signed the upgrade, where anybody did.
    pub signed_by: Option<Caller>,
}

/// An end that may take part in a session. Only control makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct DataGrant {
    /// The session as it is now.
    pub session: Session,
    /// Which end.
    pub side: Side,
    /// The client's own id.
    pub client_id: String,
    epoch: i64,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Whether it could not start, or broke.
    pub failed: bool,
    /// For people; may be empty.
    pub reason: String,
}

/// Why a channel is not opened, in words for the person at the other end.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The token was not used in time.
    #[error("The token for this session has expired.")]
    Expired,
    /// The token is another session's, another node's or another client's, or not ours.
    #[error("The token is not valid for this session.")]
    Foreign,
    /// The node was deregistered.
    #[error("The node is not registered any more.")]
    Gone,
    /// On our side.
    #[error("The session could not be opened because of a server error.")]
    Internal(#[from] InternalError),
    /// The session is over.
    #[error("{reason}")]
    Over {
        /// Why it ended.
        reason: String,
    },
    /// A newer token was given out.
    #[error("The session was resumed from elsewhere.")]
    Superseded,
    /// There is no such session.
    #[error("The session does not exist.")]
    Unknown,
}

internal!(AcceptError);
refusable!(AcceptError);

impl AcceptError {
    /// The code under which the refusal stands in the trail.
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => "AccessDenied",
            Self::Expired => "ExpiredToken",
            Self::Foreign => "InvalidToken",
            Self::Gone => "InvalidInstanceId",
            Self::Internal(_) => "InternalServerError",
            Self::Over { .. } => "SessionTerminated",
            Self::Superseded => "SupersededToken",
            Self::Unknown => "DoesNotExistException",
        }
    }
}

/// Whether a token opens this session for who presents it. Pure: the order of the checks decides
/// what a person is told; a session that is over says why, even to an old token.
fn judge(
    token: &ChannelToken,
    session: &Session,
    open: &DataOpen,
    now: Timestamp,
) -> Result<Side, AcceptError> {
    let (side, current) = match token.kind {
        TokenKind::Client | TokenKind::ClientTicket => (Side::Client, session.client_epoch),
        TokenKind::Node | TokenKind::NodeTicket => (Side::Node, session.node_epoch),
        TokenKind::Control => return Err(AcceptError::Foreign),
    };
    if token.name != session.id.as_str() || token.epoch > current {
        return Err(AcceptError::Foreign);
    }
    if side == Side::Node && open.node_id.as_deref() != Some(session.target.as_str()) {
        return Err(AcceptError::Foreign);
    }
    if token.kind == TokenKind::ClientTicket && token.client != client_binding(&open.client_id) {
        return Err(AcceptError::Foreign);
    }
    if !is_fit(side, open.signed_by.as_ref(), session) {
        return Err(AcceptError::Foreign);
    }
    if !LIVING.contains(&session.state) {
        return Err(AcceptError::Over {
            reason: over_reason(session),
        });
    }
    if token.epoch < current {
        return Err(AcceptError::Superseded);
    }
    if token.expired(now) {
        return Err(AcceptError::Expired);
    }
    Ok(side)
}

/// A signed upgrade must be signed by the session's own node, and a node never opens the client's side.
fn is_fit(side: Side, signer: Option<&Caller>, session: &Session) -> bool {
    match (side, signer) {
        (Side::Node, Some(Caller::Node(node))) => node.node_id == session.target,
        (Side::Client, Some(Caller::Node(_))) => false,
        _ => true,
    }
}

fn over_reason(session: &Session) -> String {
    let reason = session.end_reason.clone();
    reason.unwrap_or_else(|| "The session is over.".to_owned())
}

impl Control {
    /// Judges a node's control channel and records `OpenControlChannel`; a refusal too.
    ///
    /// # Errors
    /// As [`AcceptError`] says.
    pub async fn accept_control_channel(
        &self,
        call: &Call,
        node_id: &str,
        token: &Secret,
    ) -> Result<Authorized<NodeId>, AcceptError> {
        let outcome = self.admit_control(call, node_id, token).await;
        if let Err(error) = &outcome {
            self.record_refusal(call, error, &[]).await;
        }
        outcome
    }

    async fn record_refusal(&self, call: &Call, error: &AcceptError, resources: &[Resource]) {
        if let AcceptError::Internal(cause) = error {
            let cause = cause as &dyn std::error::Error;
            tracing::error!(
                error = cause,
                operation = call.event_name,
                "a channel cannot be judged"
            );
        }
        let message = error.to_string();
        self.record_failure(call, error.code(), &message, resources)
            .await;
    }

    async fn admit_control(
        &self,
        call: &Call,
        node_id: &str,
        token: &Secret,
    ) -> Result<Authorized<NodeId>, AcceptError> {
        const RULE: OperationRule = authorize::OPEN_CONTROL_CHANNEL;
        let names = &self.inner.names;
        let id: NodeId = node_id.parse().map_err(|_| AcceptError::Unknown)?;
        let proof = self
            .authorize(call, &RULE, Ask::any(), Some(&id), id.clone())
            .await?;
        let token = ChannelToken::open(&self.inner.channel_sealer, token)
            .map_err(|_| AcceptError::Foreign)?;
        if token.kind != TokenKind::Control || token.name != id.as_str() {
            return Err(AcceptError::Foreign);
        }
        if token.expired(call.now) {
            return Err(AcceptError::Expired);
        }
        if self.active_node(&id).await?.is_none() {
            return Err(AcceptError::Gone);
        }
        let done = Done::with(()).about([names.control_channel_resource(&id)]);
        self.record(call, &RULE, done).await?;
        Ok(proof)
    }

    /// Notes that a node's control channel is open.
    ///
    /// # Errors
    /// When the node was deregistered meanwhile, or the state fails.
    pub async fn node_online(
        &self,
        node: &Authorized<NodeId>,
        info: NodeInfo,
        address: String,
        now: Timestamp,
    ) -> Result<(), InternalError> {
        let node_id = node.resource();
        let row = self.inner.state.node(node_id).await?;
        let changes = vec![
            Change::SetNodeConnected {
                node_id: node_id.clone(),
                connected: true,
                at: now,
            },
            Change::SetNodeInfo {
                node_id: node_id.clone(),
                info,
                at: now,
            },
        ];
        // A channel that takes the place of another is no news.
        let mut trail = Vec::new();
        if !row.is_some_and(|row| row.connected) {
            let details = json!({"instanceId": node_id, "address": address});
            trail.push(self.node_event("NodeOnline", node_id, details, now)?);
        }
        Ok(self.inner.state.commit(Commit { changes, trail }).await?)
    }

    /// Notes that a node's last control channel is gone, and why.
    pub async fn node_lost(&self, node: &Authorized<NodeId>, now: Timestamp, why: &str) {
        let node_id = node.resource();
        let outcome = async {
            let details = json!({"instanceId": node_id, "reason": why});
            let commit = Commit {
                changes: vec![Change::SetNodeConnected {
                    node_id: node_id.clone(),
                    connected: false,
                    at: now,
                }],
                trail: vec![self.node_event("NodeLost", node_id, details, now)?],
            };
            match self.inner.state.commit(commit).await {
                // Deregistering already said that it is not connected.
                Err(StoreError::Conflict(Conflict::NoNode)) => Ok(()),
                outcome => outcome.map_err(InternalError::from),
            }
        };
        if let Err(error) = outcome.await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, %node_id, "the loss of a node is not recorded");
        }
    }

    /// Reports that several machines act as one node.
    pub async fn node_cloned(
        &self,
        node: &Authorized<NodeId>,
        addresses: &[String],
        now: Timestamp,
    ) {
        let node_id = node.resource();
        tracing::warn!(%node_id, ?addresses, "several machines act as this node");
        let outcome = async {
            let details = json!({"instanceId": node_id, "addresses": addresses});
            let event = self.node_event("NodeCloneDetected", node_id, details, now)?;
            let commit = Commit {
                changes: Vec::new(),
                trail: vec![event],
            };
            Ok::<_, InternalError>(self.inner.state.commit(commit).await?)
        };
        if let Err(error) = outcome.await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, %node_id, "the clone of a node is not recorded");
        }
    }

    fn node_event(
        &self,
        name: &str,
        node_id: &NodeId,
        details: serde_json::Value,
        now: Timestamp,
    ) -> Result<AuditRecord, RandomError> {
        let resource = self.inner.names.node_resource(node_id);
        self.service_event(name, details, vec![resource], now)
    }

    /// Notes a sign of life of a node; written with the next batch.
    pub fn heard(&self, node_id: &NodeId, now: Timestamp) {
        let mut memory = self.memory();
        match memory.heard.get_mut(node_id) {
            Some(heard) => *heard = now.max(*heard),
            None => {
                memory.heard.insert(node_id.clone(), now);
            }
        }
    }

    /// Notes activity of a session; written with the next batch.
    pub fn active(&self, session_id: &SessionId, now: Timestamp) {
        let mut memory = self.memory();
        match memory.active.get_mut(session_id) {
            Some(active) => *active = now.max(*active),
            None => {
                memory.active.insert(session_id.clone(), now);
            }
        }
    }

    /// Judges an end that opens a data channel, and records it: `OpenDataChannel` where data events
    /// are on, refusals always, and `ResumeSession` of the owner, or of who resumed the session
    /// last, when a client comes back with a ticket.
    ///
    /// # Errors
    /// As [`AcceptError`] says.
    pub async fn accept_data_channel(
        &self,
        session_id: &str,
        open: DataOpen,
        now: Timestamp,
    ) -> Result<DataGrant, AcceptError> {
        let refused = refused_open(session_id, &open, now);
        let outcome = self.admit_data(session_id, open, now).await;
        if let (Err(error), Ok(call)) = (&outcome, &refused) {
            let session_id = session_id.parse().ok();
            let named = session_id.map(|id| self.inner.names.data_channel_resource(&id));
            self.record_refusal(call, error, named.as_slice()).await;
        }
        outcome
    }

    async fn admit_data(
        &self,
        session_id: &str,
        open: DataOpen,
        now: Timestamp,
    ) -> Result<DataGrant, AcceptError> {
        let token = ChannelToken::open(&self.inner.channel_sealer, &open.token)
            .map_err(|_| AcceptError::Foreign)?;
        let id: SessionId = session_id.parse().map_err(|_| AcceptError::Unknown)?;
        let session = self.inner.state.session(&id).await?;
        let session = session.ok_or(AcceptError::Unknown)?;
        let side = judge(&token, &session, &open, now)?;
        match side {
            Side::Client => self.admit_client(&session, &open, token.kind, now).await?,
            Side::Node => self.admit_node(&session, &open, now).await?,
        }
        Ok(DataGrant {
            session,
            side,
            client_id: open.client_id,
            epoch: token.epoch,
        })
    }

    async fn admit_client(
        &self,
        session: &Session,
        open: &DataOpen,
        kind: TokenKind,
        now: Timestamp,
    ) -> Result<(), AcceptError> {
        let directory = self.directory().await?;
        let circumstances = Circumstances::of_session(session)?;
        let participant = self
            .participant(&directory, session, &circumstances)
            .await?;
        let caller = participant.map_err(|_| self.ownerless(session))?;
        let names = &self.inner.names;
        let about = names.session_resource(&session.id);
        let ask = Ask::about(vec![asked_session(names, session)]);
        if kind == TokenKind::ClientTicket {
            const RULE: OperationRule = authorize::RESUME_SESSION;
            let call = call_of(caller.clone(), &RULE, session, open, now)?;
            self.authorize_in(&directory, &call, &RULE, &ask, None, ())?;
            let done = Done::with(()).about([about.clone()]);
            self.record(&call, &RULE, done).await?;
        }
        const RULE: OperationRule = authorize::OPEN_DATA_CHANNEL;
        let call = call_of(caller, &RULE, session, open, now)?;
        // The token is the permission; only a policy that says no takes it away.
        self.honour_deny(&directory, &call, &RULE, &ask)?;
        let channel = self.inner.names.data_channel_resource(&session.id);
        self.record(&call, &RULE, Done::with(()).about([channel, about]))
            .await?;
        Ok(())
    }

    async fn admit_node(
        &self,
        session: &Session,
        open: &DataOpen,
        now: Timestamp,
    ) -> Result<(), AcceptError> {
        const RULE: OperationRule = authorize::OPEN_DATA_CHANNEL;
        let node = self.active_node(&session.target).await?;
        let node = node.ok_or(AcceptError::Gone)?;
        let directory = self.directory().await?;
        let names = &self.inner.names;
        let caller = node_by_key(names, &directory, node.id.clone(), node.iam_role);
        let call = call_of(caller, &RULE, session, open, now)?;
        self.authorize_in(&directory, &call, &RULE, &Ask::any(), Some(&node.id), ())?;
        let done = Done::with(()).about([
            self.inner.names.data_channel_resource(&session.id),
            self.inner.names.node_resource(&session.target),
        ]);
        self.record(&call, &RULE, done).await?;
        Ok(())
    }

    fn ownerless(&self, session: &Session) -> Denied {
        let caller = Caller::Anonymous { access_key: None };
        let arn = self.inner.names.session(session.id.as_str());
        authorize::refusal(&self.inner.names, &caller, &authorize::RESUME_SESSION, &arn)
    }

    /// A token for the next reconnect of an end: good as long as the session lives and is not
    /// resumed from elsewhere, and a client's for that client alone.
    ///
    /// # Errors
    /// When there are no random bytes to seal with.
    pub fn ticket(&self, grant: &DataGrant, _now: Timestamp) -> Result<Secret, RandomError> {
        let (kind, client) = match grant.side {
            Side::Client => (TokenKind::ClientTicket, client_binding(&grant.client_id)),
            Side::Node => (TokenKind::NodeTicket, [0; 16]),
        };
        let token = ChannelToken {
            kind,
            name: grant.session.id.to_string(),
            epoch: grant.epoch,
            expires: None,
            client,
        };
        token.seal(&self.inner.channel_sealer)
    }

    /// The token that the start message brings to the process of a session on the node: good for
    /// that session's data channel alone.
    ///
    /// # Errors
    /// When there are no random bytes to seal with.
    pub fn worker_token(&self, session: &Session, now: Timestamp) -> Result<Secret, RandomError> {
        let token = ChannelToken {
            kind: TokenKind::Node,
            name: session.id.to_string(),
            epoch: session.node_epoch,
            expires: Some(now.plus(TOKEN_LIFETIME)),
            client: [0; 16],
        };
        token.seal(&self.inner.channel_sealer)
    }

    /// A session as it is now.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        self.inner.state.session(id).await
    }

    /// Whether a node is enrolled and not thrown out.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn node_is_active(&self, id: &NodeId) -> Result<bool, StoreError> {
        let node = self.inner.state.node(id).await?;
        Ok(node.is_some_and(|node| node.state == NodeState::Active))
    }

    /// The sessions on a node that are not over.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn live_sessions_of(
        &self,
        node: &Authorized<NodeId>,
    ) -> Result<Vec<Session>, StoreError> {
        self.live_sessions_on(node.resource()).await
    }

    pub(crate) async fn live_sessions_on(
        &self,
        node_id: &NodeId,
    ) -> Result<Vec<Session>, StoreError> {
        self.all_live(Some(node_id.clone())).await
    }

    /// All sessions that are not over.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn live_sessions(&self) -> Result<Vec<Session>, StoreError> {
        self.all_live(None).await
    }

    async fn all_live(&self, target: Option<NodeId>) -> Result<Vec<Session>, StoreError> {
        let states = crate::session_life::STATES.into_iter();
        let states: Vec<_> = states.filter(|state| !state.is_over()).collect();
        let mut sessions: Vec<Session> = Vec::new();
        loop {
            let query = SessionQuery {
                states: states.clone(),
                target: target.clone(),
                after: sessions.last().map(|last| (last.started, last.id.clone())),
                limit: BATCH,
                ..SessionQuery::default()
            };
            let batch = self.inner.state.sessions(query).await?;
            let last_batch = batch.len() < BATCH;
            sessions.extend(batch);
            if last_batch {
                return Ok(sessions);
            }
        }
    }

    /// Moves a session to a state, if its life has that move; otherwise nothing happens.
    pub async fn session_state(&self, id: &SessionId, state: SessionState, now: Timestamp) {
        let when = origins(state);
        if when.is_empty() {
            // To the state, an empty list of conditions would mean any.
            return;
        }
        let commit = Commit {
            changes: vec![Change::UpdateSession {
                session_id: id.clone(),
                when,
                patch: SessionPatch {
                    state: Some(state),
                    last_activity: (state == SessionState::Connected).then_some(now),
                    ..SessionPatch::default()
                },
            }],
            trail: Vec::new(),
        };
        match self.inner.state.commit(commit).await {
            Ok(()) => {}
            Err(StoreError::Conflict(conflict)) => {
                tracing::debug!(session_id = %id, wanted = state.as_str(), %conflict, "no such move");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, session_id = %id, "the state of a session is not written");
            }
        }
    }

    /// Ends a session. Idempotent: what is over stays as it ended. A session that was told to end
    /// keeps the reason that it was told. Whether the end is on stable storage now; otherwise it is
    /// tried again later, and forgotten if the server dies before.
    pub async fn session_ended(&self, id: &SessionId, end: End, now: Timestamp) -> bool {
        self.memory().active.remove(id);
        let Err(error) = self.end(id, &end, now).await else {
            return true;
        };
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, session_id = %id, "the end of a session is not written yet");
        self.memory().unsaved_ends.insert(id.clone(), (end, now));
        false
    }

    async fn end(&self, id: &SessionId, end: &End, now: Timestamp) -> Result<(), InternalError> {
        for _ in 0..ATTEMPTS {
            let session = self.inner.state.session(id).await?;
            let Some(session) = session.filter(|session| !session.state.is_over()) else {
                return Ok(());
            };
            let commit = self.ending(&session, end, now)?;
            match self.inner.state.commit(commit).await {
                // It moved between reading and writing: judge again.
                Err(StoreError::Conflict(Conflict::SessionState(_))) => {}
                outcome => {
                    outcome?;
                    self.inner.signals.publish(Signal::Session(id.clone()));
                    return Ok(());
                }
            }
        }
        Err(StoreError::Conflict(Conflict::SessionState(SessionState::Connecting)).into())
    }

    /// The change that ends a session found in its present state, with its service event.
    fn ending(&self, session: &Session, end: &End, now: Timestamp) -> Result<Commit, RandomError> {
        let told = session.state == SessionState::Terminating;
        let state = if end.failed && !told {
            SessionState::Failed
        } else {
            SessionState::Terminated
        };
        let given = (!end.reason.is_empty()).then(|| end.reason.clone());
        let reason = session.end_reason.clone().filter(|_| told).or(given);
        let details = json!({
            "sessionId": session.id,
            "target": session.target,
            "owner": session.owner,
            "status": state.as_str(),
            "reason": reason,
            "startDate": session.started.iso_seconds(),
            "endDate": now.iso_seconds(),
        });
        let names = &self.inner.names;
        let resources = vec![
            names.session_resource(&session.id),
            names.node_resource(&session.target),
        ];
        Ok(Commit {
            changes: vec![Change::UpdateSession {
                session_id: session.id.clone(),
                when: vec![session.state],
                patch: SessionPatch {
                    state: Some(state),
                    end_reason: reason,
                    ended: Some(now),
                    ..SessionPatch::default()
                },
            }],
            trail: vec![self.service_event("SessionEnded", details, resources, now)?],
        })
    }
}

/// The call that opening a data channel amounts to while nobody knows by whom. The texts in it are
/// a stranger's, so only what has the form of an id is kept.
fn refused_open(session_id: &str, open: &DataOpen, now: Timestamp) -> Result<Call, RandomError> {
    let session_id: Option<SessionId> = session_id.parse().ok();
    let node_id = open.node_id.as_deref();
    let node_id: Option<NodeId> = node_id.and_then(|id| id.parse().ok());
    Ok(Call {
        request_id: mint::uuid()?,
        caller: Caller::Anonymous { access_key: None },
        source_ip: open.source_ip.clone(),
        user_agent: open.user_agent.clone(),
        referer: None,
        secure_transport: open.secure_transport,
        event_source: "ssm.amazonaws.com",
        event_name: authorize::OPEN_DATA_CHANNEL.name,
        read_only: false,
        request_parameters: json!({"channelId": session_id, "clientInstanceId": node_id}),
        now,
    })
}

/// The call that opening a channel amounts to.
fn call_of(
    caller: Caller,
    rule: &OperationRule,
    session: &Session,
    open: &DataOpen,
    now: Timestamp,
) -> Result<Call, RandomError> {
    let request_parameters = if rule.service == "ssm" {
        json!({"sessionId": session.id})
    } else {
        json!({"channelId": session.id, "clientId": open.client_id})
    };
    Ok(Call {
        request_id: mint::uuid()?,
        caller,
        source_ip: open.source_ip.clone(),
        user_agent: open.user_agent.clone(),
        referer: None,
        secure_transport: open.secure_transport,
        event_source: "ssm.amazonaws.com",
        event_name: rule.name,
        read_only: false,
        request_parameters,
        now,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sortie_types::{AccessKeyId, Arn, UniqueId, UniqueIdKind};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn session(state: SessionState) -> Session {
        Session {
            id: SessionId::from_random("alice", [1; 9]),
            target: NodeId::from_random([2; 9]),
            owner: Arn::new("iam", "", "111122223333", "user/alice"),
            owner_unique_id: UniqueId::from_random(UniqueIdKind::User, [3; 17]),
            document_name: "d".into(),
            document_content: json!({}),
            parameters: json!({}),
            reason: None,
            state,
            end_reason: Some("because".into()),
            started: NOW,
            ended: None,
            idle_timeout_seconds: 1200,
            max_duration_seconds: None,
            client_epoch: 5,
            node_epoch: 7,
            last_activity: NOW,
            request_context: json!({"accessKeyId": AccessKeyId::long_lived([1; 16])}),
        }
    }

    fn token(kind: TokenKind, epoch: i64) -> ChannelToken {
        ChannelToken {
            kind,
            name: SessionId::from_random("alice", [1; 9]).to_string(),
            epoch,
            expires: Some(NOW.plus(TOKEN_LIFETIME)),
            client: client_binding("a client"),
        }
    }

    fn open(node: bool) -> DataOpen {
        DataOpen {
            token: Secret::new(""),
            client_id: "a client".into(),
            node_id: node.then(|| NodeId::from_random([2; 9]).to_string()),
            source_ip: "127.0.0.1".into(),
            user_agent: None,
            secure_transport: true,
            signed_by: None,
        }
    }

    fn judged(token: &ChannelToken, open: &DataOpen, now: Timestamp) -> Result<Side, AcceptError> {
        judge(token, &session(SessionState::Connected), open, now)
    }

    #[test]
    fn each_side_has_its_own_epochs() {
        use TokenKind::{Client, ClientTicket, Node, NodeTicket};
        for kind in [Client, ClientTicket] {
            assert_eq!(
                judged(&token(kind, 5), &open(false), NOW).unwrap(),
                Side::Client
            );
            let old = judged(&token(kind, 4), &open(false), NOW);
            assert!(matches!(old, Err(AcceptError::Superseded)));
            let future = judged(&token(kind, 6), &open(false), NOW);
            assert!(matches!(future, Err(AcceptError::Foreign)));
        }
        for kind in [Node, NodeTicket] {
            assert_eq!(
                judged(&token(kind, 7), &open(true), NOW).unwrap(),
                Side::Node
            );
            let old = judged(&token(kind, 6), &open(true), NOW);
            assert!(matches!(old, Err(AcceptError::Superseded)));
        }
    }

    #[test]
    fn tokens_are_bound_to_session_node_client_and_time() {
        let mut other = token(TokenKind::Client, 5);
        other.name = SessionId::from_random("alice", [9; 9]).to_string();
        assert!(matches!(
            judged(&other, &open(false), NOW),
            Err(AcceptError::Foreign)
        ));
        let node = token(TokenKind::Node, 7);
        assert!(matches!(
            judged(&node, &open(false), NOW),
            Err(AcceptError::Foreign)
        ));
        let mut stolen = open(false);
        stolen.client_id = "another client".into();
        let ticket = token(TokenKind::ClientTicket, 5);
        assert!(matches!(
            judged(&ticket, &stolen, NOW),
            Err(AcceptError::Foreign)
        ));
        let control = token(TokenKind::Control, 5);
        assert!(matches!(
            judged(&control, &open(false), NOW),
            Err(AcceptError::Foreign)
        ));
        let late = NOW.plus(TOKEN_LIFETIME);
        let token = token(TokenKind::Client, 5);
        assert!(matches!(
            judged(&token, &open(false), late),
            Err(AcceptError::Expired)
        ));
    }

    #[test]
    fn a_session_that_is_over_says_why_even_to_an_old_token() {
        for state in [
            SessionState::Terminating,
            SessionState::Terminated,
            SessionState::Failed,
        ] {
            let late = NOW.plus(TOKEN_LIFETIME * 2);
            let outcome = judge(
                &token(TokenKind::Client, 1),
                &session(state),
                &open(false),
                late,
            );
            assert!(matches!(outcome, Err(AcceptError::Over { reason }) if reason == "because"));
        }
    }
}
