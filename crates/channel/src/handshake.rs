//! The handshake of a session, both sides, as small machines over stream deliveries.
//!
//! The node asks, the client answers, the node completes. Numbers, acknowledgements and resending are
//! the link's; encryption is not negotiated here: our node never asks for it, and our client answers
//! an official agent that does with a failure that says so.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sortie_types::Now;

use crate::{
    body::{
        ACTION_FAILED, ACTION_SUCCESS, ACTION_UNSUPPORTED, Body, BodyError, HandshakeComplete,
        HandshakeRequest, HandshakeResponse, Nullable, ProcessedAction, RequestedAction,
        SessionTypeParameters,
    },
    frame::PayloadType,
    link::Delivery,
    version::agent_gates,
};

/// The version that our node shows: four numbers, above every gate of official clients.
pub const AGENT_VERSION: &str = "3.3.9999.0";

/// The version that our client shows: four numbers, above every gate of official agents and above the
/// one below which the AWS CLI warns.
pub const CLIENT_VERSION: &str = "1.2.9999.0";

/// How long an official agent waits for the client's response.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a client is told that cannot tell separated outputs apart.
const UPGRADE_MESSAGE: &str = "The output and the errors of this command come separately, which this version of the Session Manager plugin does not support. Please update it to a version above 1.2.295.";

const ACTION_SESSION_TYPE: &str = "SessionType";
const ACTION_KMS: &str = "KMSEncryption";

/// What kind of session the document asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionType {
    /// A shell on a terminal.
    StandardStream,
    /// Commands on a terminal.
    InteractiveCommands,
    /// Commands without a terminal.
    NonInteractiveCommands,
    /// A forwarded port, or a connection over standard input and output.
    Port,
}

impl SessionType {
    /// The document's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StandardStream => "Standard_Stream",
            Self::InteractiveCommands => "InteractiveCommands",
            Self::NonInteractiveCommands => "NonInteractiveCommands",
            Self::Port => "Port",
        }
    }

    /// From the document's word; `None` for a word that is none of the four.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::StandardStream,
            Self::InteractiveCommands,
            Self::NonInteractiveCommands,
            Self::Port,
        ]
        .into_iter()
        .find(|session_type| session_type.as_str() == name)
    }

    /// Whether official agents shake hands in such a session, encryption aside. Clients that know
    /// nothing of handshakes can only be served in the others.
    #[must_use]
    pub fn needs_handshake(self) -> bool {
        matches!(self, Self::NonInteractiveCommands | Self::Port)
    }
}

/// A payload to hand to [`crate::link::Link::send`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What it is.
    pub payload_type: PayloadType,
    /// Its bytes.
    pub payload: Bytes,
}

impl Outgoing {
    fn new(payload_type: PayloadType, body: &impl Body) -> Self {
        Self {
            payload_type,
            payload: Bytes::from(body.to_text()),
        }
    }
}

/// Why a handshake came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The other side's message could not be read.
    #[error("handshake message could not be read")]
    Body(#[from] BodyError),
    /// The client did not process an action.
    #[error("client could not process action {action}: {error}")]
    Refused {
        /// The action's type.
        action: String,
        /// The client's words.
        error: String,
    },
    /// No answer in time.
    #[error("handshake timed out, please ensure that you have the latest version of the client")]
    TimedOut,
    /// The node completed the handshake without naming a session type.
    #[error("unable to determine session type")]
    NoSessionType,
    /// The node asks for encryption, which this client cannot give.
    #[error("the session asks for KMS encryption, which this client does not support")]
    EncryptionWanted,
}

/// The node's side.
#[derive(Debug)]
pub struct NodeHandshake {
    session_type: SessionType,
    properties: Value,
    customer_message: String,
    separate_output: bool,
    started: Option<Now>,
    done: bool,
}

/// What the node has to do after a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeStep {
    /// Nothing; the delivery was no answer and is to be thrown away, as an official agent does.
    Waiting,
    /// Send this; the session may begin.
    Complete {
        /// The HandshakeComplete message.
        send: Outgoing,
        /// What the client calls itself, for [`crate::version::agent_gates`].
        client_version: String,
    },
    /// The handshake is over already: the delivery belongs to the session.
    Over,
}

impl NodeHandshake {
    /// A handshake for a session of this type. `properties` is `null` or a port document's properties,
    /// verbatim; `customer_message` is printed by the client when it is not empty.
    #[must_use]
    pub fn new(session_type: SessionType, properties: Value, customer_message: &str) -> Self {
        Self {
            session_type,
            properties,
            customer_message: customer_message.to_owned(),
            separate_output: false,
            started: None,
            done: false,
        }
    }

    /// The session has separated output: clients that are too old for it are told so.
    #[must_use]
    pub fn with_separate_output(mut self) -> Self {
        self.separate_output = true;
        self
    }

    /// The first message of the session. Starts the clock.
    pub fn start(&mut self, now: Now) -> Outgoing {
        self.started = Some(now);
        let parameters = SessionTypeParameters {
            session_type: self.session_type.as_str().to_owned(),
            properties: self.properties.clone(),
        };
        let request = HandshakeRequest {
            agent_version: AGENT_VERSION.to_owned(),
            actions: vec![RequestedAction {
                action_type: ACTION_SESSION_TYPE.to_owned(),
                parameters: parameters.to_value(),
            }],
        };
        Outgoing::new(PayloadType::HANDSHAKE_REQUEST, &request)
    }

    /// Looks at the next delivery of the link.
    pub fn receive(&mut self, delivery: &Delivery, now: Now) -> Result<NodeStep, HandshakeError> {
        if self.done {
            return Ok(NodeStep::Over);
        }
        if delivery.payload_type != PayloadType::HANDSHAKE_RESPONSE {
            return Ok(NodeStep::Waiting);
        }
        let response = HandshakeResponse::parse(&delivery.payload)?;
        if let Some(action) = response
            .actions
            .iter()
            .find(|action| action.status != ACTION_SUCCESS)
        {
            return Err(HandshakeError::Refused {
                action: action.action_type.clone(),
                error: action.error.clone(),
            });
        }
        self.done = true;
        Ok(NodeStep::Complete {
            send: self.complete(&response.client_version, now),
            client_version: response.client_version,
        })
    }

    /// When to give up, on the monotonic clock; `None` before the start and after the end.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let started = self.started.filter(|_| !self.done)?;
        Some(started.monotonic + RESPONSE_TIMEOUT)
    }

    /// Fails once the deadline has passed.
    pub fn check_time(&self, now: Now) -> Result<(), HandshakeError> {
        match self.deadline() {
            Some(deadline) if now.monotonic >= deadline => Err(HandshakeError::TimedOut),
            _ => Ok(()),
        }
    }

    fn complete(&self, client_version: &str, now: Now) -> Outgoing {
        let gates = agent_gates(client_version);
        let customer_message = if self.separate_output && gates.separate_output_upgrade_message {
            UPGRADE_MESSAGE
        } else {
            &self.customer_message
        };
        let started = self.started.unwrap_or(now).monotonic;
        let took = now.monotonic.saturating_sub(started).as_nanos();
        let complete = HandshakeComplete {
            time_to_complete_ns: i64::try_from(took).unwrap_or(i64::MAX),
            customer_message: customer_message.to_owned(),
        };
        Outgoing::new(PayloadType::HANDSHAKE_COMPLETE, &complete)
    }
}

/// What a client learns about its session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// What kind of session.
    pub session_type: SessionType,
    /// `null`, or a port document's properties.
    pub properties: Value,
    /// What the agent calls itself, for [`crate::version::client_gates`]; empty without a handshake.
    pub agent_version: String,
    /// To be printed, with a newline, when not empty.
    pub customer_message: String,
}

/// What the client has to do after a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientStep {
    /// Nothing.
    Waiting,
    /// Send the answer.
    Send(Outgoing),
    /// The session's type is known and the session begins with the *next* delivery.
    Complete(Session),
    /// There was no handshake: the session is a shell, and *this* delivery is its first.
    Shell(Session),
    /// The session has begun: the delivery belongs to it.
    Over,
}

/// The client's side.
#[derive(Debug, Default)]
pub struct ClientHandshake {
    agent_version: String,
    session_type: Option<(SessionType, Value)>,
    encryption_wanted: bool,
    done: bool,
}

impl ClientHandshake {
    /// A client that knows nothing of its session yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next delivery of the link.
    pub fn receive(&mut self, delivery: &Delivery) -> Result<ClientStep, HandshakeError> {
        match delivery.payload_type {
            // A request under a new number is answered again, also later: official clients do so.
            PayloadType::HANDSHAKE_REQUEST => self
                .answer(HandshakeRequest::parse(&delivery.payload)?)
                .map(ClientStep::Send),
            _ if self.done => Ok(ClientStep::Over),
            PayloadType::HANDSHAKE_COMPLETE => self.complete(&delivery.payload),
            PayloadType::OUTPUT if self.session_type.is_none() => {
                self.done = true;
                Ok(ClientStep::Shell(Session {
                    session_type: SessionType::StandardStream,
                    properties: Value::Null,
                    agent_version: String::new(),
                    customer_message: String::new(),
                }))
            }
            _ => Ok(ClientStep::Waiting),
        }
    }

    /// Whether the node asked for encryption, so that the session's end can be explained.
    #[must_use]
    pub fn encryption_wanted(&self) -> bool {
        self.encryption_wanted
    }

    fn answer(&mut self, request: HandshakeRequest) -> Result<Outgoing, HandshakeError> {
        self.agent_version = request.agent_version;
        let mut actions = Vec::with_capacity(request.actions.len());
        for action in request.actions {
            actions.push(self.process(action)?);
        }
        let errors: Vec<String> = actions
            .iter()
            .map(|action| action.error.clone())
            .filter(|error| !error.is_empty())
            .collect();
        let response = HandshakeResponse {
            client_version: CLIENT_VERSION.to_owned(),
            actions,
            errors: Nullable((!errors.is_empty()).then_some(errors)),
        };
        Ok(Outgoing::new(PayloadType::HANDSHAKE_RESPONSE, &response))
    }

    fn process(&mut self, action: RequestedAction) -> Result<ProcessedAction, HandshakeError> {
        let (status, error) = match action.action_type.as_str() {
            ACTION_SESSION_TYPE => self.take_session_type(&action.parameters)?,
            ACTION_KMS => {
                self.encryption_wanted = true;
                let reason = HandshakeError::EncryptionWanted;
                (
                    ACTION_FAILED,
                    format!("Failed to process action {ACTION_KMS}: {reason}"),
                )
            }
            other => (ACTION_UNSUPPORTED, format!("Unsupported action {other}")),
        };
        Ok(ProcessedAction {
            action_type: action.action_type,
            status,
            result: Value::Null,
            error,
        })
    }

    fn take_session_type(&mut self, parameters: &Value) -> Result<(i64, String), HandshakeError> {
        let parameters = SessionTypeParameters::from_value(parameters)?;
        let Some(session_type) = SessionType::from_name(&parameters.session_type) else {
            let error = format!(
                "Failed to process action {ACTION_SESSION_TYPE}: unknown session type {}",
                parameters.session_type
            );
            return Ok((ACTION_FAILED, error));
        };
        self.session_type = Some((session_type, parameters.properties));
        Ok((ACTION_SUCCESS, String::new()))
    }

    fn complete(&mut self, payload: &[u8]) -> Result<ClientStep, HandshakeError> {
        let complete = HandshakeComplete::parse(payload)?;
        let (session_type, properties) = self
            .session_type
            .take()
            .ok_or(HandshakeError::NoSessionType)?;
        self.done = true;
        Ok(ClientStep::Complete(Session {
            session_type,
            properties,
            agent_version: self.agent_version.clone(),
            customer_message: complete.customer_message,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sortie_types::Timestamp;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now::new(
            Duration::from_secs(seconds),
            Timestamp::from_millis(1_777_881_600_000),
        )
    }

    fn delivery(outgoing: Outgoing) -> Delivery {
        Delivery {
            payload_type: outgoing.payload_type,
            payload: outgoing.payload,
        }
    }

    fn request(actions: Value) -> Delivery {
        let body = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions});
        Delivery {
            payload_type: PayloadType::HANDSHAKE_REQUEST,
            payload: Bytes::from(body.to_string()),
        }
    }

    fn answer(client: &mut ClientHandshake, request: &Delivery) -> HandshakeResponse {
        let Ok(ClientStep::Send(outgoing)) = client.receive(request) else {
            panic!("no answer");
        };
        assert_eq!(outgoing.payload_type, PayloadType::HANDSHAKE_RESPONSE);
        HandshakeResponse::parse(&outgoing.payload).unwrap()
    }

    #[test]
    fn a_client_too_old_for_separated_output_is_told_to_update() {
        let message = |client_version: &str| {
            let body = json!({"ClientVersion": client_version, "ProcessedClientActions": []});
            let response = Delivery {
                payload_type: PayloadType::HANDSHAKE_RESPONSE,
                payload: Bytes::from(body.to_string()),
            };
            let session_type = SessionType::NonInteractiveCommands;
            let mut node = NodeHandshake::new(session_type, Value::Null, "").with_separate_output();
            node.start(at(1));
            let Ok(NodeStep::Complete { send, .. }) = node.receive(&response, at(2)) else {
                panic!("not complete");
            };
            HandshakeComplete::parse(&send.payload)
                .unwrap()
                .customer_message
        };
        assert!(message("1.2.295").contains("update"));
        assert_eq!(message("1.2.331.0"), "");
        assert_eq!(message(CLIENT_VERSION), "");
    }

    #[test]
    fn both_sides_agree_on_session_type_and_properties() {
        let properties = json!({"portNumber": "5432", "type": "LocalPortForwarding"});
        let mut node = NodeHandshake::new(SessionType::Port, properties.clone(), "welcome");
        let mut client = ClientHandshake::new();

        let request = delivery(node.start(at(1)));
        let Ok(ClientStep::Send(response)) = client.receive(&request) else {
            panic!("no answer")
        };
        let Ok(NodeStep::Complete {
            send,
            client_version,
        }) = node.receive(&delivery(response), at(3))
        else {
            panic!("not complete");
        };
        assert_eq!(client_version, CLIENT_VERSION);
        let complete = HandshakeComplete::parse(&send.payload).unwrap();
        assert_eq!(complete.time_to_complete_ns, 2_000_000_000);
        let Ok(ClientStep::Complete(session)) = client.receive(&delivery(send)) else {
            panic!("not complete");
        };
        assert_eq!(
            session,
            Session {
                session_type: SessionType::Port,
                properties,
                agent_version: AGENT_VERSION.into(),
                customer_message: "welcome".into(),
            }
        );

        let data = Delivery {
            payload_type: PayloadType::OUTPUT,
            payload: Bytes::from_static(b"x"),
        };
        assert_eq!(client.receive(&data), Ok(ClientStep::Over));
        assert_eq!(node.receive(&data, at(4)), Ok(NodeStep::Over));
        assert_eq!(node.deadline(), None);
    }

    #[test]
    fn an_unknown_action_is_answered_as_unsupported_in_the_status() {
        let mut client = ClientHandshake::new();
        let response = answer(
            &mut client,
            &request(json!([{"ActionType": "Dance", "ActionParameters": {"Tempo": 120}}])),
        );
        let action = &response.actions[0];
        assert_eq!(
            (action.action_type.as_str(), action.status),
            ("Dance", ACTION_UNSUPPORTED)
        );
        assert_eq!(action.result, Value::Null);
    }

    #[test]
    fn encryption_is_refused_with_a_reason() {
        let mut client = ClientHandshake::new();
        let response = answer(
            &mut client,
            &request(json!([
                {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Standard_Stream"}},
                {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k", "Challenge": "AA=="}},
            ])),
        );
        assert_eq!(response.actions[0].status, ACTION_SUCCESS);
        assert_eq!(response.actions[1].status, ACTION_FAILED);
        assert!(response.actions[1].error.contains("does not support"));
        assert_eq!(response.errors.0.unwrap().len(), 1);
        assert!(client.encryption_wanted());
    }

    #[test]
    fn an_unknown_session_type_is_a_failed_action_and_completing_without_one_an_error() {
        let mut client = ClientHandshake::new();
        let response = answer(
            &mut client,
            &request(
                json!([{"ActionType": "SessionType", "ActionParameters": {"SessionType": "Rdp"}}]),
            ),
        );
        assert_eq!(response.actions[0].status, ACTION_FAILED);
        let complete = Delivery {
            payload_type: PayloadType::HANDSHAKE_COMPLETE,
            payload: Bytes::from_static(b"{}"),
        };
        assert_eq!(
            client.receive(&complete),
            Err(HandshakeError::NoSessionType)
        );
    }

    #[test]
    fn without_a_handshake_the_first_output_makes_a_shell() {
        let mut client = ClientHandshake::new();
        let prompt = Delivery {
            payload_type: PayloadType::OUTPUT,
            payload: Bytes::from_static(b"$ "),
        };
        let Ok(ClientStep::Shell(session)) = client.receive(&prompt) else {
            panic!("no shell")
        };
        assert_eq!(session.session_type, SessionType::StandardStream);
        assert_eq!(client.receive(&prompt), Ok(ClientStep::Over));
    }

    #[test]
    fn a_node_waits_fifteen_seconds_and_throws_away_what_is_no_answer() {
        let mut node = NodeHandshake::new(SessionType::Port, Value::Null, "");
        assert_eq!(node.deadline(), None);
        node.start(at(10));
        let early = Delivery {
            payload_type: PayloadType::OUTPUT,
            payload: Bytes::from_static(b"x"),
        };
        assert_eq!(node.receive(&early, at(11)), Ok(NodeStep::Waiting));
        assert_eq!(node.check_time(at(24)), Ok(()));
        assert_eq!(node.check_time(at(25)), Err(HandshakeError::TimedOut));
    }

    #[test]
    fn a_node_takes_any_status_but_success_for_a_failure() {
        // What an official client writes for an action that it does not know: 0, and 3 elsewhere.
        for status in [0, ACTION_FAILED, ACTION_UNSUPPORTED] {
            let mut node = NodeHandshake::new(SessionType::Port, Value::Null, "");
            node.start(at(0));
            let body = json!({"ClientVersion": "1.2.0.0", "ProcessedClientActions": [
                {"ActionType": "SessionType", "ActionStatus": status, "ActionResult": 3, "Error": "no"},
            ], "Errors": null});
            let response = Delivery {
                payload_type: PayloadType::HANDSHAKE_RESPONSE,
                payload: Bytes::from(body.to_string()),
            };
            let refused = node.receive(&response, at(1));
            assert!(
                matches!(refused, Err(HandshakeError::Refused { .. })),
                "{refused:?}"
            );
        }
    }
}
