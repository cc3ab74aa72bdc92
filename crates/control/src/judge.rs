//! Taking access away takes effect at once: sessions that are under way are judged anew when
//! identities or the tags of nodes change, and end when they could not be started any more.
//!
//! A session is judged by the circumstances of its start, which are kept with it (time, address, MFA,
//! session policies), and by the policies, tags and keys of now. So passing time ends nothing, and
//! neither does a client that moves to another network; a policy that is detached does.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sortie_ports::{Commit, Conflict, Session, Signal, StoreError};
use sortie_types::{AccessKeyId, NodeId, Timestamp, UniqueId};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::{
    Control,
    arns::Names,
    authenticate::{caller_of, node_behind},
    authorize::{self, Ask, Denied, OperationRule},
    call::{Call, Caller, InternalError, TemporarySession},
    context::temporary_session,
    credentials::Holder,
    directory::Directory,
    documents, mint,
    nodes::asked_node,
    session_life::LIVING,
    sessions::{asked_document, asked_session, start_ask, told_to_end},
};

/// How often all living sessions are judged, whether anybody said that something changed or not.
const JUDGE_INTERVAL: Duration = Duration::from_mins(1);

/// The circumstances of a session's start, as they are kept in its row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Circumstances {
    source_ip: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(default = "encrypted")]
    secure_transport: bool,
    access_key_id: AccessKeyId,
    /// Rows from before roles could start sessions have none: those are their owners'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
    /// What came with temporary credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<TemporarySession>,
    /// Who resumed it without being its owner, until the owner does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resumed_by: Option<Box<Resumed>>,
}

/// How somebody resumed the session of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Resumed {
    at: Timestamp,
    by: Circumstances,
}

/// Rows from before it was kept do not say; the connections of then were.
fn encrypted() -> bool {
    true
}

/// Who started a session, as its row names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Starter {
    /// What session ids begin with: the user's name, or the name of the role session.
    pub(crate) name: String,
    /// Of the user or the role.
    pub(crate) unique_id: UniqueId,
}

/// Why a session may not go on, in words for the person in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Ends(String),
}

impl Circumstances {
    /// Those of a call that starts a session; `None` when nobody could own it.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        let (holder, access_key_id) = holder_of(&call.caller)?;
        let session = match &call.caller {
            Caller::Node(node) => node
                .issued
                .map(|issued| TemporarySession::new(issued, issued)),
            caller => temporary_session(caller).cloned(),
        };
        Some(Self {
            source_ip: call.source_ip.clone(),
            user_agent: call.user_agent.clone(),
            referer: call.referer.clone(),
            secure_transport: call.secure_transport,
            access_key_id,
            holder: Some(holder),
            session,
            resumed_by: None,
        })
    }

    /// The same when the session is resumed: whoever is not its owner is judged from then on too,
    /// until the owner comes back.
    pub(crate) fn resumed(self, call: &Call, session: &Session) -> Self {
        let by = match self.is_owner(&call.caller, session) {
            true => None,
            false => Self::of(call),
        };
        let at = call.now;
        Self {
            resumed_by: by.map(|by| Box::new(Resumed { at, by })),
            ..self
        }
    }

    /// A role session of the same name that somebody else began is another one.
    fn is_owner(&self, caller: &Caller, session: &Session) -> bool {
        let began = |session: Option<&TemporarySession>| session?.assumed_by.clone();
        starter(caller) == Some(owner(session))
            && began(temporary_session(caller)) == began(self.session.as_ref())
    }

    /// As they lie in the row.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Those of a session.
    pub(crate) fn of_session(session: &Session) -> Result<Self, StoreError> {
        Self::deserialize(&session.request_context).map_err(|error| StoreError::Corrupt {
            table: "sessions",
            what: format!("the circumstances of the start: {error}"),
        })
    }

    /// Who started the session, as they are now; the reason when they are gone, or their key is.
    pub(crate) fn caller(
        &self,
        names: &Names,
        directory: &Directory,
        session: &Session,
    ) -> Result<Caller, String> {
        let owner = session.owner_unique_id.clone();
        let holder = self.holder.clone().unwrap_or(Holder::User { user: owner });
        let key = &self.access_key_id;
        let caller = caller_of(names, directory, holder, key.clone(), self.session.clone());
        if let Ok(Caller::User(user)) = &caller
            && !is_under_own_name(directory, session)
        {
            return Err(format!(
                "Your session was ended because {} is called {} now.",
                session.owner, user.user.name
            ));
        }
        caller.map_err(|_| match directory.user_by_id(&session.owner_unique_id) {
            Some(_) => format!(
                "Your session was ended because the credentials that it was started with \
                     ({key}) are not good any more."
            ),
            None if directory.role_by_id(&session.owner_unique_id).is_some() => format!(
                "Your session was ended because the role session that it was started with \
                     ({key}) is not good any more."
            ),
            None => format!(
                "Your session was ended because {} does not exist any more.",
                session.owner
            ),
        })
    }

    /// Who is at the client's end, as they are now: the owner, or who resumed the session last; the
    /// reason when either is gone, or their key is.
    fn participant(
        &self,
        names: &Names,
        directory: &Directory,
        session: &Session,
    ) -> Result<Caller, String> {
        let owner = self.caller(names, directory, session)?;
        let Some(resumed) = &self.resumed_by else {
            return Ok(owner);
        };
        let by = &resumed.by;
        let reason = || {
            let key = &by.access_key_id;
            format!(
                "Your session was ended because the credentials that it was resumed with ({key}) \
                 are not good any more."
            )
        };
        let holder = by.holder.clone().ok_or_else(reason)?;
        let key = by.access_key_id.clone();
        caller_of(names, directory, holder, key, by.session.clone()).map_err(|_| reason())
    }

    /// From where, and with what, whoever is at the client's end came.
    pub(crate) fn origin(&self) -> (&str, Option<&str>) {
        let those = self.resumed_by.as_ref().map_or(self, |resumed| &resumed.by);
        (&those.source_ip, those.user_agent.as_deref())
    }

    /// The nodes from which the session was started, and resumed.
    fn nodes_behind(&self) -> impl Iterator<Item = &NodeId> {
        let resumed = self.resumed_by.as_ref().map(|resumed| &resumed.by);
        [Some(self), resumed]
            .into_iter()
            .flatten()
            .filter_map(|those| node_behind(those.holder.as_ref()?, those.session.as_ref()))
    }

    /// A call of theirs, made by `caller` again.
    pub(crate) fn call(
        &self,
        rule: &OperationRule,
        request_parameters: Value,
        caller: Caller,
        now: Timestamp,
    ) -> Result<Call, mint::RandomError> {
        Ok(Call {
            request_id: mint::uuid()?,
            caller,
            source_ip: self.source_ip.clone(),
            user_agent: self.user_agent.clone(),
            referer: self.referer.clone(),
            secure_transport: self.secure_transport,
            event_source: "ssm.amazonaws.com",
            event_name: rule.name,
            read_only: false,
            request_parameters,
            now,
        })
    }
}

fn taken_away(denied: &Denied) -> Verdict {
    Verdict::Ends(format!(
        "Your session was ended because your access was taken away: {denied}"
    ))
}

fn holder_of(caller: &Caller) -> Option<(Holder, AccessKeyId)> {
    match caller {
        Caller::Anonymous { .. } => None,
        Caller::Node(node) => {
            let holder = Holder::Node {
                node_id: node.node_id.clone(),
                iam_role: node.iam_role.clone(),
                role: Some(node.role.as_ref()?.unique_id.clone()),
            };
            Some((holder, node.access_key_id.clone()?))
        }
        Caller::Role(role) => {
            let holder = Holder::Role {
                role: role.role.unique_id.clone(),
                session_name: role.session_name.clone(),
            };
            Some((holder, role.access_key_id.clone()))
        }
        Caller::User(user) => {
            let user_id = user.user.unique_id.clone();
            Some((Holder::User { user: user_id }, user.access_key_id.clone()))
        }
    }
}

/// Who starts a session; `None` when nobody could own it.
pub(crate) fn starter(caller: &Caller) -> Option<Starter> {
    match caller {
        Caller::Anonymous { .. } => None,
        Caller::Node(node) => Some(Starter {
            name: node.node_id.to_string(),
            unique_id: node.role.as_ref()?.unique_id.clone(),
        }),
        Caller::Role(role) => Some(Starter {
            name: role.session_name.clone(),
            unique_id: role.role.unique_id.clone(),
        }),
        Caller::User(user) => Some(Starter {
            name: user.user.name.to_string(),
            unique_id: user.user.unique_id.clone(),
        }),
    }
}

/// The owner of a session as its row names them.
pub(crate) fn owner(session: &Session) -> Starter {
    let resource = session.owner.resource();
    Starter {
        name: resource.rsplit('/').next().unwrap_or_default().to_owned(),
        unique_id: session.owner_unique_id.clone(),
    }
}

/// Whether the id of a session begins with the name that its owner has. Own-session rules go by that
/// name, and where the owner has another one by now, it may be somebody else's.
pub(crate) fn is_under_own_name(directory: &Directory, session: &Session) -> bool {
    let Starter { name, unique_id } = owner(session);
    match directory.user_by_id(&unique_id) {
        Some(user) => user.name.as_str() == name,
        None => unique_id.as_str().starts_with("AROA"),
    }
}

impl Starter {
    /// `aws:userid`.
    pub(crate) fn userid(&self) -> String {
        if self.unique_id.as_str().starts_with("AROA") {
            format!("{}:{}", self.unique_id, self.name)
        } else {
            self.unique_id.to_string()
        }
    }
}

impl Control {
    /// Judges all living sessions anew and tells those to end that are not allowed any more. Does
    /// nothing where the setting says so.
    ///
    /// # Errors
    /// When the state fails; what was not judged is, the next time.
    pub async fn judge_sessions(&self) -> Result<(), InternalError> {
        self.judge_sessions_on(None).await
    }

    pub(crate) async fn judge_sessions_on(
        &self,
        node: Option<&NodeId>,
    ) -> Result<(), InternalError> {
        if !self.inner.settings.end_disallowed_sessions {
            return Ok(());
        }
        let sessions = match node {
            // What was started from a node that is gone may be on any other.
            Some(node) if self.active_node(node).await?.is_some() => {
                self.live_sessions_on(node).await?
            }
            Some(_) | None => self.live_sessions().await?,
        };
        let living = sessions
            .iter()
            .filter(|session| LIVING.contains(&session.state));
        let mut directory = None;
        for session in living {
            let directory = match &directory {
                Some(directory) => Arc::clone(directory),
                None => Arc::clone(directory.insert(self.directory().await?)),
            };
            // One session that cannot be read must not keep the others.
            if let Err(error) = self.judge_session(&directory, session).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, session_id = %session.id, "a session is not judged");
            }
        }
        Ok(())
    }

    pub(crate) async fn judge_session(
        &self,
        directory: &Directory,
        session: &Session,
    ) -> Result<(), InternalError> {
        let Verdict::Ends(reason) = self.verdict(directory, session).await? else {
            return Ok(());
        };
        tracing::info!(session_id = %session.id, owner = %session.owner, reason, "a session is not allowed any more");
        let commit = Commit {
            changes: vec![told_to_end(&session.id, reason)],
            trail: Vec::new(),
        };
        match self.inner.state.commit(commit).await {
            // Over, or told to end, meanwhile.
            Err(StoreError::Conflict(Conflict::SessionState(_) | Conflict::NoSession)) => {}
            outcome => {
                outcome?;
                self.inner
                    .signals
                    .publish(Signal::Session(session.id.clone()));
            }
        }
        Ok(())
    }

    /// Who is at the client's end of a session, as they are now; the reason when they are gone, or the
    /// node is that they act from.
    pub(crate) async fn participant(
        &self,
        directory: &Directory,
        session: &Session,
        circumstances: &Circumstances,
    ) -> Result<Result<Caller, String>, InternalError> {
        for node_id in circumstances.nodes_behind() {
            if self.active_node(node_id).await?.is_none() {
                return Ok(Err(format!(
                    "Your session was ended because the node that it was started from, {node_id}, \
                     is not registered any more."
                )));
            }
        }
        Ok(circumstances.participant(&self.inner.names, directory, session))
    }

    /// Whether a session could be started now as it was then, and resumed by who did.
    async fn verdict(
        &self,
        directory: &Directory,
        session: &Session,
    ) -> Result<Verdict, InternalError> {
        let circumstances = Circumstances::of_session(session)?;
        let names = &self.inner.names;
        let participant = self.participant(directory, session, &circumstances).await?;
        let known = participant.and_then(|participant| {
            let owner = circumstances.caller(names, directory, session)?;
            Ok((owner, participant))
        });
        let (owner, participant) = match known {
            Ok(known) => known,
            Err(reason) => return Ok(Verdict::Ends(reason)),
        };
        let target = session.target.as_str();
        let node = self.active_node(&session.target).await?;
        let document = session.document_name.as_str();
        let asked_document = asked_document(names, document, &self.document_tags(document).await?);
        let ask = start_ask(
            asked_node(names, target, node.as_ref()),
            asked_document,
            &documents::condition_keys(&session.document_content),
        );
        let rule = &authorize::START_SESSION;
        let parameters = json!({"target": session.target});
        let call = circumstances.call(rule, parameters, owner, session.started)?;
        if let Err(denied) = self.authorize_in(directory, &call, rule, &ask, None, ()) {
            return Ok(taken_away(&denied));
        }
        let Some(resumed) = &circumstances.resumed_by else {
            return Ok(Verdict::Allowed);
        };
        let rule = &authorize::RESUME_SESSION;
        let ask = Ask::about(vec![asked_session(names, session)]);
        let parameters = json!({"sessionId": session.id});
        let call = resumed.by.call(rule, parameters, participant, resumed.at)?;
        let judged = self.authorize_in(directory, &call, rule, &ask, None, ());
        Ok(judged.map_or_else(|denied| taken_away(&denied), |_| Verdict::Allowed))
    }

    /// Judges at the beginning, after each change that may matter, and from time to time, since hints
    /// can be lost; until told to stop.
    pub(crate) async fn keep_judging(&self, stop: &CancellationToken) {
        if !self.inner.settings.end_disallowed_sessions {
            return;
        }
        let mut signals = self.inner.signals.subscribe();
        let mut next = Next::All;
        loop {
            let judged = match next {
                Next::All => self.judge_sessions().await,
                Next::Node(node) => self.judge_sessions_on(Some(&node)).await,
            };
            if let Err(error) = judged {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "sessions are not judged");
            }
            let waiting = tokio::time::timeout(JUDGE_INTERVAL, change(&mut signals));
            match stop.run_until_cancelled(waiting).await {
                Some(Ok(changed)) => next = changed,
                Some(Err(_)) => next = Next::All,
                None => return,
            }
        }
    }
}

/// Which sessions are to be judged.
enum Next {
    All,
    Node(NodeId),
}

/// The next change that may matter to sessions.
async fn change(signals: &mut Receiver<Signal>) -> Next {
    loop {
        match signals.recv().await {
            Ok(Signal::Documents | Signal::Identities) | Err(RecvError::Lagged(_)) => {
                return Next::All;
            }
            Ok(Signal::Node(node)) => return Next::Node(node),
            Ok(Signal::Session(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
