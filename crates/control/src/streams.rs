//! Streams whose destination is chosen while their session lasts, as a SOCKS proxy chooses them: who may
//! open which, and what of them is in the trail.
//!
//! A stream is judged like the start of its session (`judge`): by the circumstances of that start and
//! the policies, tags and keys of now, with the destination in the condition keys
//! `sortie:DestinationHost`, `sortie:DestinationPort` and `sortie:DestinationSocket`. Parsing frames,
//! holding them back and answering refusals is the gateway's; connecting is the node's.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use sortie_evidence::{AuditRecord, Failure, UserIdentity};
use sortie_ports::{Commit, Session};
use sortie_types::Timestamp;

use crate::{
    Control,
    authorize::{self, Ask},
    call::InternalError,
    directory::Directory,
    documents::destination,
    judge::Circumstances,
    mint::RandomError,
    nodes::asked_node,
    sessions::{asked_document, start_ask},
    trail::service_identity,
};

/// How long a decision is remembered, at most: hints that a node's tags have changed can be lost.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Destinations of a session whose decisions are remembered.
const DESTINATIONS: usize = 1024;

/// Where a stream goes, in one spelling: two that mean the same are equal, as far as can be told
/// without asking DNS, so that a policy need not foresee spellings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamDestination {
    /// A TCP port.
    Port {
        /// A name in lower case without a dot at its end, or an address as RFC 5952 and the dotted
        /// form have it.
        host: String,
        /// Not zero.
        port: u16,
    },
    /// A unix socket of the node.
    Socket {
        /// Absolute, without `.`, `..` and empty parts.
        path: String,
    },
}

/// Why a destination is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Neither a port nor a socket.
    #[error("a stream of this session needs a destination")]
    Missing,
    /// A socket together with host or port.
    #[error("a destination is a port or a socket, not both")]
    Both,
    /// A host without a port, or port 0.
    #[error("a destination needs a port from 1 to 65535")]
    Port,
    /// Neither a host name nor an address, or an address in a form that programs read differently.
    #[error("the host of a destination is a name or an address")]
    Host,
    /// Not a plain absolute path.
    #[error("the socket of a destination is an absolute path without '.' and '..'")]
    Path,
}

impl StreamDestination {
    /// What a frame asks for.
    ///
    /// # Errors
    /// When it is no destination, or one that node and policy might read differently.
    pub fn new(
        host: Option<&str>,
        port: Option<u16>,
        socket: Option<&str>,
    ) -> Result<Self, DestinationError> {
        match (host, port, socket) {
            (None, None, None) => Err(DestinationError::Missing),
            (None, None, Some(path)) => destination::socket(path)
                .map(|path| Self::Socket {
                    path: path.to_owned(),
                })
                .map_err(|_| DestinationError::Path),
            (_, _, Some(_)) => Err(DestinationError::Both),
            (_, None | Some(0), None) => Err(DestinationError::Port),
            (host, Some(port), None) => Ok(Self::Port {
                host: destination::host(host.unwrap_or_default())
                    .map_err(|_| DestinationError::Host)?,
                port,
            }),
        }
    }

    fn keys(&self, ask: Ask) -> Ask {
        match self {
            Self::Port { host, port } => ask
                .key("sortie:DestinationHost", host)
                .key("sortie:DestinationPort", port.to_string()),
            Self::Socket { path } => ask.key("sortie:DestinationSocket", path),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Port { host, port } => json!({"host": host, "port": port}),
            Self::Socket { path } => json!({"socket": path}),
        }
    }
}

/// As people write it.
impl fmt::Display for StreamDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Port { host, port } => write!(f, "{host}:{port}"),
            Self::Socket { path } => f.write_str(path),
        }
    }
}

/// Whether a stream may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamVerdict {
    /// It may.
    Allowed,
    /// It may not, and why, for the person.
    Refused(String),
}

/// Judges the streams of one session, and remembers what it decided as long as that holds.
#[derive(Debug)]
pub struct StreamJudge {
    control: Control,
    session: Session,
    memory: Mutex<Memory>,
}

/// Decisions by the identities of one revision.
#[derive(Debug, Default)]
struct Memory {
    revision: Option<i64>,
    decisions: HashMap<StreamDestination, (Timestamp, StreamVerdict)>,
}

impl Memory {
    fn recall(
        &self,
        revision: i64,
        destination: &StreamDestination,
        now: Timestamp,
    ) -> Option<StreamVerdict> {
        let (at, verdict) = self.decisions.get(destination)?;
        let holds = self.revision == Some(revision) && now >= *at && now.since(*at) < REMEMBERED;
        holds.then(|| verdict.clone())
    }

    fn remember(
        &mut self,
        revision: i64,
        destination: StreamDestination,
        now: Timestamp,
        verdict: StreamVerdict,
    ) {
        if self.revision != Some(revision) || self.decisions.len() >= DESTINATIONS {
            self.decisions.clear();
            self.revision = Some(revision);
        }
        self.decisions.insert(destination, (now, verdict));
    }
}

impl StreamJudge {
    /// Whether the session may have a stream to `destination` now.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn judge(
        &self,
        destination: &StreamDestination,
        now: Timestamp,
    ) -> Result<StreamVerdict, InternalError> {
        let directory = self.control.directory().await?;
        let revision = directory.revision();
        if let Some(verdict) = self.memory().recall(revision, destination, now) {
            return Ok(verdict);
        }
        let control = &self.control;
        let verdict = control
            .stream_verdict(&directory, &self.session, destination)
            .await?;
        self.memory()
            .remember(revision, destination.clone(), now, verdict.clone());
        Ok(verdict)
    }

    /// Whether a stream that is open may go on. Always, where access that is taken away ends nothing.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn judge_again(
        &self,
        destination: &StreamDestination,
        now: Timestamp,
    ) -> Result<StreamVerdict, InternalError> {
        if !self.control.settings().end_disallowed_sessions {
            return Ok(StreamVerdict::Allowed);
        }
        self.judge(destination, now).await
    }

    /// Something may have changed that has no revision, such as the tags of the node.
    pub fn forget(&self) {
        self.memory().decisions.clear();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A plain map: nothing in it can be half done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Both directions were finished.
    Closed,
    /// One of the ends broke it off.
    Reset,
    /// Policy refused it, in these words.
    Refused(String),
    /// The node refused it, or could not connect it.
    NotConnected(String),
    /// It was allowed and is not any more.
    AccessTakenAway(String),
    /// It was open when the session ended.
    SessionEnded,
    /// It was open when the server stopped; the session may go on.
    ServerStopped,
}

impl StreamEnd {
    fn name(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Refused(_) => "refused",
            Self::NotConnected(_) => "notConnected",
            Self::AccessTakenAway(_) => "accessTakenAway",
            Self::SessionEnded => "sessionEnded",
            Self::ServerStopped => "serverStopped",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(why) | Self::NotConnected(why) | Self::AccessTakenAway(why) => Some(why),
            _ => None,
        }
    }
}

/// One stream that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// Where it went; text of the client where that is no destination.
    pub destination: Result<StreamDestination, String>,
    /// When it was asked for.
    pub began: Timestamp,
    /// When it was over.
    pub ended: Timestamp,
    /// Bytes of data that the client sent.
    pub bytes_to_node: u64,
    /// Bytes of data that the node sent.
    pub bytes_to_client: u64,
    /// How it ended.
    pub end: StreamEnd,
}

/// Streams that are over and have no record of their own, because there were too many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSummary {
    /// How many.
    pub streams: u64,
    /// How many of them policy refused.
    pub refused: u64,
    /// Bytes of data that the client sent.
    pub bytes_to_node: u64,
    /// Bytes of data that the node sent.
    pub bytes_to_client: u64,
    /// Some of the destinations, with the number of streams to each.
    pub destinations: Vec<(String, u64)>,
}

/// What is to be recorded of a session's streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRecords {
    /// Each with a record of its own.
    pub streams: Vec<StreamRecord>,
    /// All others.
    pub summary: Option<StreamSummary>,
}

impl StreamRecords {
    /// Whether there is nothing to record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.summary.is_none()
    }
}

impl Control {
    /// Judges the streams of a session, whose row is as it was read now.
    #[must_use]
    pub fn stream_judge(&self, session: Session) -> StreamJudge {
        StreamJudge {
            control: self.clone(),
            session,
            memory: Mutex::default(),
        }
    }

    /// Whether the session could be started now as it was then, to this destination.
    async fn stream_verdict(
        &self,
        directory: &Directory,
        session: &Session,
        destination: &StreamDestination,
    ) -> Result<StreamVerdict, InternalError> {
        let circumstances = Circumstances::of_session(session)?;
        let names = &self.inner.names;
        let participant = self.participant(directory, session, &circumstances).await?;
        let owner = participant.and_then(|_| circumstances.caller(names, directory, session));
        let owner = match owner {
            Ok(owner) => owner,
            Err(reason) => return Ok(StreamVerdict::Refused(reason)),
        };
        let node = self.active_node(&session.target).await?;
        let target = session.target.as_str();
        let document = session.document_name.as_str();
        let asked_document = asked_document(names, document, &self.document_tags(document).await?);
        // The keys of the session itself would name another destination, or none.
        let ask = start_ask(
            asked_node(names, target, node.as_ref()),
            asked_document,
            &[],
        );
        let ask = destination.keys(ask);
        let rule = &authorize::START_SESSION;
        let parameters = json!({"target": session.target});
        let call = circumstances.call(rule, parameters, owner, session.started)?;
        let judged = self.authorize_in(directory, &call, rule, &ask, None, ());
        Ok(match judged {
            Ok(_) => StreamVerdict::Allowed,
            Err(denied) => StreamVerdict::Refused(format!("{destination}: {denied}")),
        })
    }

    /// Writes what became of streams, in one commit.
    ///
    /// # Errors
    /// When the state fails: nothing is written.
    pub async fn record_streams(
        &self,
        session: &Session,
        records: &StreamRecords,
        now: Timestamp,
    ) -> Result<(), InternalError> {
        let by = self.stream_user(session).await?;
        let mut trail = Vec::with_capacity(records.streams.len() + 1);
        for stream in &records.streams {
            trail.push(self.stream_record(session, &by, stream)?);
        }
        if let Some(summary) = &records.summary {
            trail.push(self.stream_summary(session, &by, summary, now)?);
        }
        let commit = Commit {
            changes: Vec::new(),
            trail,
        };
        Ok(self.inner.state.commit(commit).await?)
    }

    /// Who is at the client's end, and from where they came.
    async fn stream_user(&self, session: &Session) -> Result<By, InternalError> {
        let circumstances = Circumstances::of_session(session)?;
        let directory = self.directory().await?;
        let known = self
            .participant(&directory, session, &circumstances)
            .await?;
        // Who is gone meanwhile is named by the details alone.
        let identity = known.map_or_else(|_| service_identity(), |by| self.identity(&by));
        let (source_ip, user_agent) = circumstances.origin();
        Ok(By {
            identity,
            source_ip: source_ip.to_owned(),
            user_agent: user_agent.map(ToOwned::to_owned),
        })
    }

    fn stream_record(
        &self,
        session: &Session,
        by: &By,
        stream: &StreamRecord,
    ) -> Result<AuditRecord, RandomError> {
        let destination = match &stream.destination {
            Ok(destination) => destination.to_json(),
            Err(text) => json!({"text": text}),
        };
        let refused = matches!(stream.end, StreamEnd::Refused(_));
        let mut details = details(session);
        details.extend([
            ("destination", destination),
            ("outcome", json!(stream.end.name())),
            ("reason", json!(stream.end.reason())),
            ("bytesToNode", json!(stream.bytes_to_node)),
            ("bytesToClient", json!(stream.bytes_to_client)),
            ("startDate", json!(stream.began.iso_seconds())),
            ("endDate", json!(stream.ended.iso_seconds())),
        ]);
        let name = if refused {
            "StreamRefused"
        } else {
            "StreamEnded"
        };
        let mut record = self.stream_event(session, by, name, details, stream.ended)?;
        if let StreamEnd::Refused(message) = &stream.end {
            record.failure = Some(Failure {
                code: "AccessDenied".to_owned(),
                message: message.clone(),
            });
        }
        Ok(record)
    }

    fn stream_summary(
        &self,
        session: &Session,
        by: &By,
        summary: &StreamSummary,
        now: Timestamp,
    ) -> Result<AuditRecord, RandomError> {
        let destinations = summary.destinations.iter();
        let destinations =
            destinations.map(|(name, streams)| json!({"destination": name, "streams": streams}));
        let mut details = details(session);
        details.extend([
            ("streams", json!(summary.streams)),
            ("refused", json!(summary.refused)),
            ("bytesToNode", json!(summary.bytes_to_node)),
            ("bytesToClient", json!(summary.bytes_to_client)),
            ("destinations", destinations.collect()),
        ]);
        self.stream_event(session, by, "StreamsSummarized", details, now)
    }

    fn stream_event(
        &self,
        session: &Session,
        by: &By,
        name: &str,
        details: Vec<(&'static str, Value)>,
        at: Timestamp,
    ) -> Result<AuditRecord, RandomError> {
        let names = &self.inner.names;
        let resources = vec![
            names.session_resource(&session.id),
            names.node_resource(&session.target),
        ];
        let details = details
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let details = Value::Object(details.collect());
        Ok(AuditRecord {
            identity: by.identity.clone(),
            source_ip_address: by.source_ip.clone(),
            user_agent: by.user_agent.clone(),
            ..self.service_event(name, details, resources, at)?
        })
    }
}

/// Whose streams they were.
struct By {
    identity: UserIdentity,
    source_ip: String,
    user_agent: Option<String>,
}

fn details(session: &Session) -> Vec<(&'static str, Value)> {
    vec![
        ("sessionId", json!(session.id)),
        ("target", json!(session.target)),
        ("owner", json!(session.owner)),
        ("documentName", json!(session.document_name)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: &str, port: u16) -> Result<StreamDestination, DestinationError> {
        StreamDestination::new(Some(host), Some(port), None)
    }

    fn spelled(host: &str) -> String {
        port(host, 80).unwrap().to_string()
    }

    #[test]
    fn spellings_of_one_host_are_one_destination() {
        assert_eq!(spelled("DB.Internal."), "db.internal:80");
        assert_eq!(spelled(""), "localhost:80");
        assert_eq!(spelled("::FFFF:10.0.0.1"), "10.0.0.1:80");
        assert_eq!(spelled("2001:DB8:0::1"), "[2001:db8::1]:80");
        assert_eq!(spelled("under_score.a-b"), "under_score.a-b:80");
        assert_eq!(
            StreamDestination::new(None, Some(5432), None),
            port("localhost", 5432)
        );
    }

    #[test]
    fn what_node_and_policy_might_read_differently_is_no_host() {
        let long = ["a"; 127].join(".") + "a";
        for host in [
            "127.1",
            "0x7f000001",
            "2130706433",
            "a.0x1",
            "010.0.0.1",
            "10.0.0.1.",
            "a b",
            "a/b",
            "a\0",
            "fe80::1%eth0",
            "a..b",
            ".",
            "*",
            "bücher.example",
            &long,
        ] {
            assert_eq!(port(host, 80), Err(DestinationError::Host), "{host:?}");
        }
        assert_eq!(port("a", 0), Err(DestinationError::Port));
    }

    #[test]
    fn a_destination_is_a_port_or_a_socket() {
        let new = StreamDestination::new;
        assert_eq!(new(None, None, None), Err(DestinationError::Missing));
        assert_eq!(new(Some("a"), None, None), Err(DestinationError::Port));
        assert_eq!(new(None, Some(1), Some("/a")), Err(DestinationError::Both));
        let socket = |path| new(None, None, Some(path)).map(|socket| socket.to_string());
        assert_eq!(socket("/run/db.sock"), Ok("/run/db.sock".to_owned()));
        let long = format!("/{}", "a".repeat(107));
        for path in [
            "", "a", "/", "/a/../b", "/a/./b", "//a", "/a/", "/a\0", &long,
        ] {
            assert_eq!(socket(path), Err(DestinationError::Path), "{path:?}");
        }
    }

    #[test]
    fn decisions_hold_for_one_revision_and_not_for_long() {
        let at = |second: i64| Timestamp::from_millis(second * 1000);
        let (here, there) = (port("a", 1).unwrap(), port("b", 1).unwrap());
        let mut memory = Memory::default();
        memory.remember(7, here.clone(), at(100), StreamVerdict::Allowed);
        assert_eq!(
            memory.recall(7, &here, at(109)),
            Some(StreamVerdict::Allowed)
        );
        assert_eq!(memory.recall(7, &there, at(100)), None);
        assert_eq!(memory.recall(8, &here, at(100)), None);
        assert_eq!(memory.recall(7, &here, at(110)), None);
        assert_eq!(memory.recall(7, &here, at(99)), None, "a clock set back");
        memory.remember(8, there, at(100), StreamVerdict::Allowed);
        assert_eq!(memory.recall(8, &here, at(100)), None);
    }
}
