//! The session operations of people: start, resume, terminate, list, and whether a target is
//! connected. The live side of a session is the gateway's; what it asks is in `channels`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use sortie_evidence::HIDDEN;
use sortie_ports::{
    Change, Conflict, Node, Session, SessionPatch, SessionQuery, SessionState, Signal, StoreError,
};
use sortie_types::{Secret, SessionId, Tag, Timestamp};

use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, AskedResource, AuthorizeError, Authorized, Denied, OperationRule},
    call::{Call, InternalError, Recorded, internal, refusable},
    context::Keys,
    documents::{self, DEFAULT_DOCUMENT, Resolution, Resolved, Unresolved},
    judge::{self, Circumstances, Starter},
    mint,
    nodes::asked_node,
    session_life::{LIVING, origins},
    token::{self, ChannelToken, TokenKind},
    trail::Done,
};

/// How long a `TokenValue` is good.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_mins(5);
/// Sessions stay in the history for this long.
const HISTORY: Duration = Duration::from_hours(30 * 24);
/// Sessions on a page, unless asked otherwise.
const PAGE: usize = 50;
/// Sessions on a page, at most.
const LARGEST_PAGE: usize = 200;

/// What to start.
#[derive(Clone, Debug)]
pub struct StartSessionInput {
    /// The node.
    pub target: String,
    /// Name or ARN; the default shell when absent.
    pub document_name: Option<String>,
    /// Parameters of the document.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Scheme and host of the stream URL, such as `wss://sortie.example:7443`.
    pub stream_base: String,
}

/// A started session.
#[derive(Clone, Debug)]
pub struct StartSessionOutput {
    /// The session.
    pub session_id: SessionId,
    /// Opens the client's side of it.
    pub token_value: Secret,
    /// Where.
    pub stream_url: String,
}

/// Why no session was started.
#[derive(Debug, thiserror::Error)]
pub enum StartSessionError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// No such session document.
    #[error("Document with name {name} does not exist.")]
    InvalidDocument {
        /// As it was given.
        name: String,
    },
    /// The document has no such parameters, or not such values.
    #[error("{0}")]
    InvalidParameters(String),
    /// The document asks for something that there cannot be here.
    #[error("{0}")]
    Refused(String),
    /// The target is unknown, thrown out, or not there.
    #[error("{target} is not connected.")]
    NotConnected {
        /// As it was given.
        target: String,
    },
}

/// What to resume.
#[derive(Clone, Debug)]
pub struct ResumeSessionInput {
    /// The session.
    pub session_id: String,
    /// As in [`StartSessionInput`].
    pub stream_base: String,
}

/// A resumed session; without token and URL when it is over.
#[derive(Clone, Debug)]
pub struct ResumeSessionOutput {
    /// The session.
    pub session_id: SessionId,
    /// Opens the client's side of it, and supersedes the tokens before.
    pub token_value: Option<Secret>,
    /// Where.
    pub stream_url: Option<String>,
}

/// Why a session was not resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeSessionError {
    /// Not allowed.
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
}

/// What to terminate.
#[derive(Clone, Debug)]
pub struct TerminateSessionInput {
    /// The session.
    pub session_id: String,
}

/// A session that is over or told to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TerminateSessionOutput {
    /// The session.
    pub session_id: String,
}

/// Why a session was not terminated.
#[derive(Debug, thiserror::Error)]
pub enum TerminateSessionError {
    /// Not allowed.
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
}

/// Which half of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionList {
    /// Those that are not over.
    Active,
    /// Those that are over, of the last 30 days.
    History,
}

/// One condition of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFilter {
    /// `InvokedAfter`, `InvokedBefore`, `Target`, `Owner`, `Status`, `SessionId` or `AccessType`.
    pub key: String,
    /// What it must be.
    pub value: String,
}

/// What to list.
#[derive(Clone, Debug)]
pub struct DescribeSessionsInput {
    /// Which half.
    pub state: SessionList,
    /// All must hold.
    pub filters: Vec<SessionFilter>,
    /// Up to 200.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// A page of sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribeSessionsOutput {
    /// Newest first.
    pub sessions: Vec<Session>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// Why nothing was listed.
#[derive(Debug, thiserror::Error)]
pub enum DescribeSessionsError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// There is no such filter.
    #[error("there is no filter {key}")]
    InvalidFilterKey {
        /// As it was given.
        key: String,
    },
    /// The filter cannot have this value.
    #[error("{value} is not a value of the filter {key}")]
    InvalidFilterValue {
        /// The filter.
        key: String,
        /// As it was given.
        value: String,
    },
    /// Not of the page before.
    #[error("next token is not valid")]
    InvalidNextToken,
}

/// Whose connection.
#[derive(Clone, Debug)]
pub struct GetConnectionStatusInput {
    /// The node, or any text.
    pub target: String,
}

/// Whether a target is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetConnectionStatusOutput {
    /// As it was given.
    pub target: String,
    /// Whether its control channel is open.
    pub connected: bool,
}

/// Why there is no answer. Unknown targets are no error.
#[derive(Debug, thiserror::Error)]
pub enum GetConnectionStatusError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
}

internal!(
    StartSessionError,
    ResumeSessionError,
    TerminateSessionError,
    DescribeSessionsError,
    GetConnectionStatusError,
);
refusable!(
    StartSessionError,
    ResumeSessionError,
    TerminateSessionError,
    DescribeSessionsError,
    GetConnectionStatusError,
);

/// How often a start is judged again because identities changed meanwhile.
const ATTEMPTS: usize = 8;

/// What a session is made from, after all checks.
struct Made {
    node: Node,
    document_name: String,
    resolved: Resolved,
}

/// What the caller asked for, looked up but not judged.
struct Asked {
    node: Option<Node>,
    /// `None` for an ARN that is of no document here.
    document_name: Option<String>,
    document_tags: Vec<Tag>,
    /// `None` when there is no such document.
    resolution: Option<Resolution>,
}

impl Control {
    /// `StartSession`. Authorisation comes before anything is revealed: a caller who may not start
    /// a session does not learn whether node or document exist.
    ///
    /// # Errors
    /// As [`StartSessionError`] says.
    pub async fn start_session(
        &self,
        call: &Call,
        input: StartSessionInput,
    ) -> Result<Recorded<StartSessionOutput>, StartSessionError> {
        for _ in 0..ATTEMPTS {
            match self.try_start_session(call, &input).await {
                // Decided by what is no longer so: decided anew.
                Err(StartSessionError::Internal(InternalError::Store(StoreError::Conflict(
                    Conflict::Revision,
                )))) => {}
                outcome => return outcome,
            }
        }
        Err(StoreError::Conflict(Conflict::Revision).into())
    }

    async fn try_start_session(
        &self,
        call: &Call,
        input: &StartSessionInput,
    ) -> Result<Recorded<StartSessionOutput>, StartSessionError> {
        const RULE: OperationRule = authorize::START_SESSION;
        let names = &self.inner.names;
        let given = input.document_name.as_deref().unwrap_or(DEFAULT_DOCUMENT);
        // What is asked about is what is used. Where that is nothing, it is what was named, so that
        // nobody learns more.
        let asked = self.look_up(call, input, given).await?;
        let keys = match &asked.resolution {
            Some(Ok(resolved)) => documents::condition_keys(&resolved.content),
            _ => Vec::new(),
        };
        let name = asked.document_name.as_deref().unwrap_or(given);
        let ask = start_ask(
            asked_node(names, &input.target, asked.node.as_ref()),
            asked_document(names, name, &asked.document_tags),
            &keys,
        );
        let directory = self.directory().await?;
        let authorized = self.authorize_in(&directory, call, &RULE, &ask, None, asked)?;
        let tags = Retaggable::of(authorized.resource());
        let made = self.make(&authorized, input).await?;
        let session = self.new_session(call, made, input)?;
        let done = self.started(call, &session, input, directory.revision())?;
        let recorded = match self.record(call, &RULE, done).await {
            Err(InternalError::Store(StoreError::Conflict(Conflict::NoNode))) => {
                return Err(not_connected(&input.target));
            }
            outcome => outcome?,
        };
        self.judge_if_retagged(&session, &tags).await;
        self.inner.signals.publish(Signal::Session(session.id));
        Ok(recorded)
    }

    /// What a start is about, before anybody knows whether it may be.
    async fn look_up(
        &self,
        call: &Call,
        input: &StartSessionInput,
        given: &str,
    ) -> Result<Asked, StartSessionError> {
        let node = self.node_named(&input.target).await?;
        let name = documents::name(&self.inner.names, given);
        let found = match name {
            Some(name) => self.session_document(name).await?,
            None => None,
        };
        let resolution = match &found {
            Some(found) => {
                let parameters = &input.parameters;
                let resolved = self.resolve_session(found, parameters, &call.caller, node.as_ref());
                Some(resolved.await?)
            }
            None => None,
        };
        Ok(Asked {
            node,
            document_name: name.map(str::to_owned),
            document_tags: found.map(|found| found.tags).unwrap_or_default(),
            resolution,
        })
    }

    fn started(
        &self,
        call: &Call,
        session: &Session,
        input: &StartSessionInput,
        revision: i64,
    ) -> Result<Done<StartSessionOutput>, mint::RandomError> {
        let names = &self.inner.names;
        let stream_url = stream_url(&input.stream_base, &session.id);
        let done = Done::with(StartSessionOutput {
            session_id: session.id.clone(),
            token_value: self.client_token(session, call.now)?,
            stream_url: stream_url.clone(),
        })
        .showing(json!({"sessionId": session.id, "tokenValue": HIDDEN, "streamUrl": stream_url}))
        .about([
            names.node_resource(&session.target),
            names.document_resource(&session.document_name),
            names.session_resource(&session.id),
        ])
        .changing(vec![
            // What was taken away while this call was judged must not leave a session behind.
            Change::RequireIdentities { revision },
            // Deregistering ends a node's sessions; one that starts meanwhile would be left over.
            Change::RequireNode {
                node_id: session.target.clone(),
                public_key: None,
            },
            Change::InsertSession(Box::new(session.clone())),
        ]);
        Ok(done)
    }

    /// Judges a new session again where the tags that allowed it were changed meanwhile.
    async fn judge_if_retagged(&self, session: &Session, tags: &Retaggable) {
        let judged = async {
            let node = self.active_node(&session.target).await?;
            let document = self.document_tags(&session.document_name).await?;
            if node.is_some_and(|node| node.tags != tags.node) || document != tags.document {
                let directory = self.directory().await?;
                self.judge_session(&directory, session).await?;
            }
            Ok::<(), InternalError>(())
        };
        if let Err(error) = judged.await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, session_id = %session.id, "a session is not judged");
        }
    }

    /// The checks whose outcome only those learn who may start the session.
    async fn make(
        &self,
        authorized: &Authorized<Asked>,
        input: &StartSessionInput,
    ) -> Result<Made, StartSessionError> {
        let asked = authorized.resource();
        let given = input.document_name.as_deref().unwrap_or(DEFAULT_DOCUMENT);
        let (Some(name), Some(resolution)) = (&asked.document_name, &asked.resolution) else {
            return Err(unknown_document(given));
        };
        let resolved = resolution.clone().map_err(|error| match error {
            Unresolved::Parameters(why) => StartSessionError::InvalidParameters(why),
            Unresolved::Refused(why) => StartSessionError::Refused(why),
        })?;
        if asked.node.is_some() && !self.has_advanced_tier().await? {
            let why = "Enable advanced-instances tier to use Session Manager with your \
                       on-premises instances";
            return Err(StartSessionError::Refused(why.to_owned()));
        }
        let node = asked.node.clone().filter(|node| node.connected);
        Ok(Made {
            node: node.ok_or_else(|| not_connected(&input.target))?,
            document_name: name.clone(),
            resolved,
        })
    }

    fn new_session(
        &self,
        call: &Call,
        made: Made,
        input: &StartSessionInput,
    ) -> Result<Session, StartSessionError> {
        let (Some(Starter { name, unique_id }), Some(circumstances)) =
            (judge::starter(&call.caller), Circumstances::of(call))
        else {
            return Err(nobody().into());
        };
        let resolved = made.resolved;
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Ok(Session {
            id: mint::session_id(&name)?,
            target: made.node.id,
            owner: self.inner.names.caller(&call.caller).ok_or_else(nobody)?,
            owner_unique_id: unique_id,
            document_name: made.document_name,
            document_content: resolved.content,
            parameters: json!(input.parameters),
            reason: input.reason.clone(),
            state: SessionState::Connecting,
            end_reason: None,
            started: call.now,
            ended: None,
            idle_timeout_seconds: seconds(resolved.idle),
            max_duration_seconds: resolved.max_duration.map(seconds),
            client_epoch: 1,
            node_epoch: 1,
            last_activity: call.now,
            request_context: circumstances.to_json(),
        })
    }

    fn client_token(&self, session: &Session, now: Timestamp) -> Result<Secret, mint::RandomError> {
        let token = ChannelToken {
            kind: TokenKind::Client,
            name: session.id.to_string(),
            epoch: session.client_epoch,
            expires: Some(now.plus(TOKEN_LIFETIME)),
            client: [0; 16],
        };
        token.seal(&self.inner.channel_sealer)
    }

    /// `ResumeSession`: a living session gets a token that supersedes those before; one that is
    /// over, or told to end, answers without token, which official clients show as timed out.
    ///
    /// # Errors
    /// As [`ResumeSessionError`] says.
    pub async fn resume_session(
        &self,
        call: &Call,
        input: ResumeSessionInput,
    ) -> Result<Recorded<ResumeSessionOutput>, ResumeSessionError> {
        for _ in 0..ATTEMPTS {
            match self.try_resume_session(call, &input).await {
                // Resumed by another meanwhile, whose token this one shall supersede.
                Err(ResumeSessionError::Internal(InternalError::Store(StoreError::Conflict(
                    Conflict::Superseded,
                )))) => {}
                outcome => return outcome,
            }
        }
        Err(StoreError::Conflict(Conflict::Superseded).into())
    }

    async fn try_resume_session(
        &self,
        call: &Call,
        input: &ResumeSessionInput,
    ) -> Result<Recorded<ResumeSessionOutput>, ResumeSessionError> {
        const RULE: OperationRule = authorize::RESUME_SESSION;
        let found = self
            .authorize_session(call, &RULE, &input.session_id)
            .await?;
        let found = found.resource().clone();
        let mut session = found.ok_or_else(|| ResumeSessionError::DoesNotExist {
            session_id: input.session_id.clone(),
        })?;
        if LIVING.contains(&session.state) {
            if !judge::is_under_own_name(&*self.directory().await?, &session) {
                let names = &self.inner.names;
                let arn = names.session(session.id.as_str());
                return Err(authorize::refusal(names, &call.caller, &RULE, &arn).into());
            }
            session.client_epoch = session.client_epoch.saturating_add(1);
            let done = self.resumed(call, &session, &input.stream_base)?;
            match self.record(call, &RULE, done).await {
                // Ended meanwhile: answered as what it is now.
                Err(InternalError::Store(StoreError::Conflict(Conflict::SessionState(_)))) => {}
                outcome => {
                    let recorded = outcome?;
                    self.inner.signals.publish(Signal::Session(session.id));
                    return Ok(recorded);
                }
            }
        }
        let resource = self.inner.names.session_resource(&session.id);
        let done = Done::with(ResumeSessionOutput {
            session_id: session.id.clone(),
            token_value: None,
            stream_url: None,
        })
        .showing(json!({"sessionId": session.id}))
        .about([resource]);
        Ok(self.record(call, &RULE, done).await?)
    }

    fn resumed(
        &self,
        call: &Call,
        session: &Session,
        stream_base: &str,
    ) -> Result<Done<ResumeSessionOutput>, InternalError> {
        let circumstances = Circumstances::of_session(session)?.resumed(call, session);
        let stream_url = stream_url(stream_base, &session.id);
        let patch = SessionPatch {
            client_epoch: Some(session.client_epoch),
            last_activity: Some(call.now),
            request_context: Some(circumstances.to_json()),
            ..SessionPatch::default()
        };
        Ok(Done::with(ResumeSessionOutput {
            session_id: session.id.clone(),
            token_value: Some(self.client_token(session, call.now)?),
            stream_url: Some(stream_url.clone()),
        })
        .showing(json!({"sessionId": session.id, "tokenValue": HIDDEN, "streamUrl": stream_url}))
        .about([self.inner.names.session_resource(&session.id)])
        .changing(vec![Change::UpdateSession {
            session_id: session.id.clone(),
            when: LIVING.to_vec(),
            patch,
        }]))
    }

    /// `TerminateSession`: tells a living session to end and why; one that is over, or already told,
    /// answers the same.
    ///
    /// # Errors
    /// As [`TerminateSessionError`] says.
    pub async fn terminate_session(
        &self,
        call: &Call,
        input: TerminateSessionInput,
    ) -> Result<Recorded<TerminateSessionOutput>, TerminateSessionError> {
        const RULE: OperationRule = authorize::TERMINATE_SESSION;
        let found = self
            .authorize_session(call, &RULE, &input.session_id)
            .await?;
        let absent = || TerminateSessionError::DoesNotExist {
            session_id: input.session_id.clone(),
        };
        let session = found.resource().as_ref().ok_or_else(absent)?;
        let by = authorize::principal(&self.inner.names, &call.caller);
        let reason = match judge::starter(&call.caller) {
            Some(Starter { name, .. }) => format!("Your session was ended by {name} ({by})."),
            None => format!("Your session was ended by {by}."),
        };
        let done = || {
            Done::with(TerminateSessionOutput {
                session_id: session.id.to_string(),
            })
            .showing(json!({"sessionId": session.id}))
            .about([self.inner.names.session_resource(&session.id)])
        };
        if LIVING.contains(&session.state) {
            let telling = done().changing(vec![told_to_end(&session.id, reason)]);
            match self.record(call, &RULE, telling).await {
                // Over meanwhile: that is what was asked for.
                Err(InternalError::Store(StoreError::Conflict(Conflict::SessionState(_)))) => {}
                outcome => {
                    let recorded = outcome?;
                    self.inner
                        .signals
                        .publish(Signal::Session(session.id.clone()));
                    return Ok(recorded);
                }
            }
        }
        Ok(self.record(call, &RULE, done()).await?)
    }

    /// The proof about a session, if there is one: whoever may not, does not learn whether it exists.
    async fn authorize_session(
        &self,
        call: &Call,
        rule: &OperationRule,
        session_id: &str,
    ) -> Result<Authorized<Option<Session>>, AuthorizeError> {
        let session = match session_id.parse() {
            Ok(id) => self.inner.state.session(&id).await?,
            Err(_) => None,
        };
        let names = &self.inner.names;
        let asked = match &session {
            Some(session) => asked_session(names, session),
            None => AskedResource::new(names.session(session_id)),
        };
        self.authorize(call, rule, Ask::about(vec![asked]), None, session)
            .await
    }

    /// `DescribeSessions`: everyone's sessions, newest first.
    ///
    /// # Errors
    /// As [`DescribeSessionsError`] says.
    pub async fn describe_sessions(
        &self,
        call: &Call,
        input: DescribeSessionsInput,
    ) -> Result<Recorded<DescribeSessionsOutput>, DescribeSessionsError> {
        const RULE: OperationRule = authorize::DESCRIBE_SESSIONS;
        self.authorize(call, &RULE, Ask::any(), None, ()).await?;
        let limit = input.max_results.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
        let after = token::cursor(
            &self.inner.page_sealer,
            RULE.name,
            input.next_token.as_deref(),
        )
        .map_err(|_| DescribeSessionsError::InvalidNextToken)?;
        let query = query(input.state, &input.filters, call.now)?;
        let mut sessions = match query {
            Some(query) => {
                let query = SessionQuery {
                    after,
                    limit: limit + 1,
                    ..query
                };
                self.inner.state.sessions(query).await?
            }
            None => Vec::new(),
        };
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        let next_token = match sessions.last() {
            Some(last) if more => {
                let cursor = (last.started, &last.id);
                Some(token::next_token(
                    &self.inner.page_sealer,
                    RULE.name,
                    &cursor,
                )?)
            }
            _ => None,
        };
        let done = Done::with(DescribeSessionsOutput {
            sessions,
            next_token,
        });
        Ok(self.record(call, &RULE, done).await?)
    }

    /// `GetConnectionStatus`: never fails for targets that do not exist.
    ///
    /// # Errors
    /// As [`GetConnectionStatusError`] says.
    pub async fn get_connection_status(
        &self,
        call: &Call,
        input: GetConnectionStatusInput,
    ) -> Result<Recorded<GetConnectionStatusOutput>, GetConnectionStatusError> {
        const RULE: OperationRule = authorize::GET_CONNECTION_STATUS;
        let names = &self.inner.names;
        let node = self.node_named(&input.target).await?;
        let asked = asked_node(names, &input.target, node.as_ref());
        let ask = Ask::about(vec![asked]);
        let proof = self.authorize(call, &RULE, ask, None, node).await?;
        let node = proof.resource().as_ref().filter(|node| node.connected);
        let done = Done::with(GetConnectionStatusOutput {
            target: input.target,
            connected: node.is_some(),
        });
        let done = done.about(node.map(|node| names.node_resource(&node.id)));
        Ok(self.record(call, &RULE, done).await?)
    }
}

/// The change that tells a living session to end.
pub(crate) fn told_to_end(session_id: &SessionId, reason: String) -> Change {
    Change::UpdateSession {
        session_id: session_id.clone(),
        when: origins(SessionState::Terminating),
        patch: SessionPatch {
            state: Some(SessionState::Terminating),
            end_reason: Some(reason),
            ..SessionPatch::default()
        },
    }
}

/// Where a client finds its session.
fn stream_url(base: &str, session_id: &SessionId) -> String {
    format!("{base}/v1/data-channel/{session_id}?role=publish_subscribe")
}

fn unknown_document(given: &str) -> StartSessionError {
    StartSessionError::InvalidDocument {
        name: given.to_owned(),
    }
}

/// What starting a session asks: leave for the node and for the document, under keys that say where
/// the session leads.
pub(crate) fn start_ask(
    node: AskedResource,
    document: AskedResource,
    keys: &[(&str, String)],
) -> Ask {
    let keys = keys.iter().fold(Keys::default(), |keys, (key, value)| {
        keys.one(*key, value.as_str())
    });
    // Both are always checked, as policies with this condition demand.
    Ask::about(vec![node, document])
        .key("ssm:SessionDocumentAccessCheck", "true")
        .with(keys)
}

/// A document as policies see it, whether there is one or not.
pub(crate) fn asked_document(names: &Names, name: &str, tags: &[Tag]) -> AskedResource {
    let asked = AskedResource::new(names.document(name));
    asked.tags(&["ssm:resourceTag", "aws:ResourceTag"], tags)
}

/// The tags that a start was judged by, which may be others when the session is there.
struct Retaggable {
    node: Vec<Tag>,
    document: Vec<Tag>,
}

impl Retaggable {
    fn of(asked: &Asked) -> Self {
        let node = asked.node.as_ref();
        Self {
            node: node.map(|node| node.tags.clone()).unwrap_or_default(),
            document: asked.document_tags.clone(),
        }
    }
}

/// A session as actions on it are checked: by its id, and by the same with its owner's `aws:userid`
/// or unchanged name in front, so that both published forms of own-session policies work. Its system
/// tags name owner and node.
pub(crate) fn asked_session(names: &Names, session: &Session) -> AskedResource {
    let owner = judge::owner(session);
    let id = session.id.as_str();
    let suffix = id.rsplit_once('-').map_or(id, |(_, suffix)| suffix);
    let alias = |name: &str| names.session(&format!("{name}-{suffix}"));
    let mut asked = AskedResource::new(names.session(id))
        .alias(alias(&owner.userid()))
        .alias(alias(&owner.name));
    for family in ["ssm:resourceTag", "aws:ResourceTag"] {
        asked = asked
            .key(
                format!("{family}/aws:ssmmessages:session-id"),
                owner.userid(),
            )
            .key(
                format!("{family}/aws:ssmmessages:target-id"),
                session.target.as_str(),
            );
    }
    asked
}

fn not_connected(target: &str) -> StartSessionError {
    StartSessionError::NotConnected {
        target: target.to_owned(),
    }
}

/// Sessions are owned by users and role sessions. The table lets nobody else through; this keeps it
/// so.
fn nobody() -> Denied {
    Denied {
        message: "sessions are owned by users and role sessions".to_owned(),
    }
}

/// The query of a listing; `None` when nothing can match.
fn query(
    list: SessionList,
    filters: &[SessionFilter],
    now: Timestamp,
) -> Result<Option<SessionQuery>, DescribeSessionsError> {
    let of_list = |state: &SessionState| state.is_over() == (list == SessionList::History);
    let states = crate::session_life::STATES.into_iter().filter(of_list);
    let mut query = SessionQuery {
        states: states.collect(),
        ended_after: (list == SessionList::History).then(|| now.minus(HISTORY)),
        ..SessionQuery::default()
    };
    let mut possible = true;
    for filter in filters {
        possible &= narrow(&mut query, filter)?;
    }
    Ok(possible.then_some(query))
}

/// Adds one condition. `false` when nothing can match any more.
fn narrow(query: &mut SessionQuery, filter: &SessionFilter) -> Result<bool, DescribeSessionsError> {
    let value = filter.value.as_str();
    Ok(match filter.key.as_str() {
        "InvokedAfter" => {
            let time = time(filter)?;
            query.started_after = Some(query.started_after.map_or(time, |other| other.max(time)));
            true
        }
        "InvokedBefore" => {
            let time = time(filter)?;
            query.started_before = Some(query.started_before.map_or(time, |other| other.min(time)));
            true
        }
        "Target" => only(&mut query.target, value.parse().ok()),
        "Owner" => only(&mut query.owner, value.parse().ok()),
        "SessionId" => only(&mut query.session_id, value.parse().ok()),
        "Status" => {
            let known = crate::session_life::STATES.iter();
            if !known.into_iter().any(|state| state.as_str() == value) {
                return Err(invalid(filter));
            }
            query.states.retain(|state| state.as_str() == value);
            // An empty list of states would mean any.
            !query.states.is_empty()
        }
        "AccessType" => match value {
            "Standard" => true,
            "JustInTime" => false,
            _ => return Err(invalid(filter)),
        },
        _ => {
            return Err(DescribeSessionsError::InvalidFilterKey {
                key: filter.key.clone(),
            });
        }
    })
}

/// Narrows to one value; `false` when it cannot exist or contradicts an earlier one.
fn only<T: PartialEq>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let Some(value) = value else { return false };
    let agrees = slot.as_ref().is_none_or(|other| *other == value);
    *slot = Some(value);
    agrees
}

fn time(filter: &SessionFilter) -> Result<Timestamp, DescribeSessionsError> {
    filter.value.parse().map_err(|_| invalid(filter))
}

fn invalid(filter: &SessionFilter) -> DescribeSessionsError {
    DescribeSessionsError::InvalidFilterValue {
        key: filter.key.clone(),
        value: filter.value.clone(),
    }
}
