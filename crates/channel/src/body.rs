//! The JSON bodies of messages on both channels, and the text frames that open a channel.
//!
//! Each is a [`Body`]: `parse` reads what official ends read, `to_text` writes what they write, in
//! their order. Members named `Sortie` and the bodies of `sortie_…` messages are ours and are
//! described in `docs/wire/data-channel.md`.

mod json;

use bytes::Bytes;
use serde_json::Value;
use sortie_types::Secret;

use crate::frame::MessageType;
pub use json::{Body, BodyError};
use json::{Member, bodies};

/// The prefix of the tokens that our server gives out. A client announces itself only with such a
/// token, because it may as well be talking to AWS.
pub const TOKEN_PREFIX: &str = "SRT1.";

/// `SessionState` right after the node opened its data channel.
pub const SESSION_CONNECTED: &str = "Connected";
/// `SessionState` when the process ended and all output was sent.
pub const SESSION_TERMINATING: &str = "Terminating";

/// `ActionStatus` of an action done.
pub const ACTION_SUCCESS: i64 = 1;
/// `ActionStatus` of an action that failed.
pub const ACTION_FAILED: i64 = 2;
/// `ActionStatus` of an action that the client does not know.
pub const ACTION_UNSUPPORTED: i64 = 3;

bodies! {
    /// The `acknowledge` message. Receivers use only the number (and `cumulative`).
    Acknowledge {
        /// Type of the acknowledged message.
        message_type: MessageType = "AcknowledgedMessageType",
        /// Its id.
        message_id: String = "AcknowledgedMessageId",
        /// Its number.
        sequence_number: i64 = "AcknowledgedMessageSequenceNumber",
        /// Always true.
        is_sequential: bool = "IsSequentialMessage",
        /// Ours: every smaller number is acknowledged too. Only where both ends agreed on it.
        cumulative: Option<bool> = "Cumulative",
        /// Ours, on a cumulative one: messages were refused for want of room, and there is room again.
        room_again: Option<bool> = "RoomAgain",
    }

    /// The `channel_closed` message of the data channel.
    ChannelClosed {
        /// The message's id.
        message_id: String = "MessageId",
        /// Unix milliseconds as text.
        created_date: String = "CreatedDate",
        /// The node.
        destination_id: String = "DestinationId",
        /// The session that is over.
        session_id: String = "SessionId",
        /// `channel_closed`.
        message_type: String = "MessageType",
        /// 1.
        schema_version: i64 = "SchemaVersion",
        /// What the person at the client is told; empty after an ordinary end.
        output: String = "Output",
    }

    /// The `agent_session_state` message, for the gateway alone.
    AgentSessionState {
        /// 1.
        schema_version: i64 = "SchemaVersion",
        /// [`SESSION_CONNECTED`] or [`SESSION_TERMINATING`].
        session_state: String = "SessionState",
        /// The session.
        session_id: String = "SessionId",
    }

    /// The `agent_task_complete` message: a session's result.
    AgentTaskComplete {
        /// 1.
        schema_version: i64 = "SchemaVersion",
        /// The session.
        task_id: String = "TaskId",
        /// `agent_task_complete`.
        topic: String = "Topic",
        /// `Success`, `Failed`, `Cancelled` or `TimedOut`.
        final_task_status: String = "FinalTaskStatus",
        /// False.
        is_routing_failure: bool = "IsRoutingFailure",
        /// Empty.
        aws_account_id: String = "AwsAccountId",
        /// The node.
        instance_id: String = "InstanceId",
        /// Error text, empty on success.
        output: String = "Output",
        /// Bucket of the log that the node uploaded.
        s3_bucket: String = "S3Bucket",
        /// Key of that log.
        s3_url_suffix: String = "S3UrlSuffix",
        /// Log group of that log.
        cwl_group: String = "CwlGroup",
        /// Log stream of that log.
        cwl_stream: String = "CwlStream",
        /// 1, 2, 3.
        retry_number: i64 = "RetryNumber",
    }

    /// The `agent_task_acknowledge` message. The node uses only the message id.
    AgentTaskAcknowledge {
        /// 1.
        schema_version: i64 = "SchemaVersion",
        /// Id of the `agent_task_complete` frame.
        message_id: String = "MessageId",
        /// The session.
        task_id: String = "TaskId",
        /// `agent_task_complete`.
        topic: String = "Topic",
    }

    /// The `interactive_shell` message. Only `content` is read: a [`StartContent`] as JSON text.
    InteractiveShell {
        /// A [`StartContent`] as text.
        content: String = "Content",
        /// The session.
        task_id: String = "TaskId",
        /// Free.
        topic: String = "Topic",
        /// 1.
        schema_version: i64 = "SchemaVersion",
    }

    /// What the node needs to start a session.
    StartContent {
        /// For the node's log.
        document_name: String = "DocumentName",
        /// The session document.
        document_content: Value = "DocumentContent",
        /// The session; also a directory's name on the node.
        session_id: String = "SessionId",
        /// Name to value, for `{{ name }}` in the document.
        parameters: Value = "Parameters",
        /// The account for this principal; wins over the document's when not blank.
        run_as_user: String = "RunAsUser",
        /// The principal's ARN.
        session_owner: String = "SessionOwner",
        /// Ours.
        sortie: Option<SortieStart> = "Sortie",
    }

    /// Our member of [`StartContent`].
    SortieStart {
        /// The worker's credential for this session's data channel, and for nothing else.
        token: Secret = "Token",
        /// What the node has in common with the client, as far as known.
        features: Vec<String> = "Features",
    }

    /// Our member of an open message.
    SortieOpen {
        /// Version of the sender's package, for logs only.
        version: String = "Version",
        /// What the sender can do.
        features: Vec<String> = "Features",
    }

    /// The first text frame of a client's data channel.
    OpenClient {
        /// `1.0`.
        message_schema_version: SchemaVersion = "MessageSchemaVersion",
        /// A fresh UUID.
        request_id: String = "RequestId",
        /// The session token, or a ticket.
        token: Secret = "TokenValue",
        /// A UUID for the life of the client process.
        client_id: String = "ClientId",
        /// Four numbers; absent from older official clients.
        client_version: Option<String> = "ClientVersion",
        /// Ours.
        sortie: Option<SortieOpen> = "Sortie",
    }

    /// The first text frame of a node's data channel.
    OpenNode {
        /// `1.0`.
        message_schema_version: SchemaVersion = "MessageSchemaVersion",
        /// A fresh UUID.
        request_id: String = "RequestId",
        /// The token of CreateDataChannel, or a ticket.
        token: Secret = "TokenValue",
        /// The node.
        client_instance_id: String = "ClientInstanceId",
        /// Empty in official agents.
        client_id: String = "ClientId",
        /// Ours.
        sortie: Option<SortieOpen> = "Sortie",
    }

    /// The first text frame of a control channel.
    OpenControl {
        /// `null` in official agents.
        cookie: Value = "Cookie",
        /// `1.0`.
        message_schema_version: SchemaVersion = "MessageSchemaVersion",
        /// A fresh UUID.
        request_id: String = "RequestId",
        /// The token of CreateControlChannel.
        token: Secret = "TokenValue",
        /// Four numbers.
        agent_version: String = "AgentVersion",
        /// `linux`, `windows`, `macos`.
        platform_type: String = "PlatformType",
        /// Ours.
        sortie: Option<SortieOpen> = "Sortie",
        /// Ours: the sessions that run on the node.
        sessions: Option<Vec<String>> = "Sessions",
    }

    /// A terminal's size.
    Size {
        /// Columns.
        cols: u32 = "cols",
        /// Rows.
        rows: u32 = "rows",
    }

    /// The node's handshake request.
    HandshakeRequest {
        /// Four numbers.
        agent_version: String = "AgentVersion",
        /// In the order in which they are wanted.
        actions: Vec<RequestedAction> = "RequestedClientActions",
    }

    /// One thing that the client is asked to process.
    RequestedAction {
        /// `SessionType` or `KMSEncryption`.
        action_type: String = "ActionType",
        /// Depends on the type.
        parameters: Value = "ActionParameters",
    }

    /// Parameters of the `SessionType` action.
    SessionTypeParameters {
        /// The session document's `sessionType`.
        session_type: String = "SessionType",
        /// `null`, or a port document's `properties`.
        properties: Value = "Properties",
    }

    /// The client's handshake response.
    HandshakeResponse {
        /// Four numbers.
        client_version: String = "ClientVersion",
        /// One for each request.
        actions: Vec<ProcessedAction> = "ProcessedClientActions",
        /// Texts, or `null`.
        errors: Nullable<Vec<String>> = "Errors",
    }

    /// The client's answer to one action.
    ProcessedAction {
        /// As requested.
        action_type: String = "ActionType",
        /// [`ACTION_SUCCESS`], [`ACTION_FAILED`] or [`ACTION_UNSUPPORTED`]; the official client leaves
        /// 0 for what it does not know.
        status: i64 = "ActionStatus",
        /// Depends on the type; mostly `null`.
        result: Value = "ActionResult",
        /// Empty on success.
        error: String = "Error",
    }

    /// The node's end of the handshake.
    HandshakeComplete {
        /// Nanoseconds.
        time_to_complete_ns: i64 = "HandshakeTimeToComplete",
        /// Printed by the client, followed by a newline, when not empty.
        customer_message: String = "CustomerMessage",
    }

    /// The `sortie_features` message.
    Features {
        /// Version of the gateway's package, for logs only.
        version: String = "Version",
        /// What both ends can do.
        features: Vec<String> = "Features",
        /// The `TokenValue` of this end's next open message.
        ticket: Option<Secret> = "Ticket",
    }

    /// The `sortie_sessions` message.
    RunningSessions {
        /// Ids of the sessions that run on the node.
        sessions: Vec<String> = "Sessions",
    }
}

/// The version that an open message names. Official ends write the text `1.0`; `pyssm-client` writes
/// the number 1, and nobody ever compares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaVersion(pub String);

impl From<&str> for SchemaVersion {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Member for SchemaVersion {
    fn missing() -> Self {
        Self::default()
    }

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self(number.to_string())),
            _ => value.as_str().map(Self::from),
        }
    }

    fn write(&self) -> Option<Value> {
        Some(Value::from(self.0.as_str()))
    }
}

/// A member that is written as `null` when absent, where official ends do so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nullable<T>(pub Option<T>);

impl<M: Member> Member for Nullable<M> {
    fn missing() -> Self {
        Self(None)
    }

    fn read(value: &Value) -> Option<Self> {
        M::read(value).map(|value| Self(Some(value)))
    }

    fn write(&self) -> Option<Value> {
        Some(self.0.as_ref().and_then(M::write).unwrap_or(Value::Null))
    }
}

impl Size {
    /// The size of a terminal.
    #[must_use]
    pub fn new(cols: u32, rows: u32) -> Self {
        Self { cols, rows }
    }
}

impl SortieOpen {
    /// What this crate's version can do, under the version of the package that uses it.
    #[must_use]
    pub fn announcing(version: &str) -> Self {
        let features = crate::features::ALL
            .iter()
            .map(ToString::to_string)
            .collect();
        Self {
            version: version.to_owned(),
            features,
        }
    }
}

const EXIT_CODE_PREFIX: &str = "EXIT_CODE: ";

/// The payload of a [`crate::frame::PayloadType::EXIT_CODE`] message.
#[must_use]
pub fn exit_code(status: i32) -> Bytes {
    Bytes::from(format!("{EXIT_CODE_PREFIX}{status}"))
}

/// Reads the payload of an exit code message.
#[must_use]
pub fn parse_exit_code(payload: &[u8]) -> Option<i32> {
    std::str::from_utf8(payload)
        .ok()?
        .trim()
        .strip_prefix(EXIT_CODE_PREFIX)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_message_may_give_its_version_as_a_number() {
        let open = OpenClient::parse(br#"{"MessageSchemaVersion":1,"TokenValue":"t"}"#).unwrap();
        assert_eq!(open.message_schema_version, SchemaVersion::from("1"));
        assert!(OpenClient::parse(br#"{"MessageSchemaVersion":[1]}"#).is_err());
    }

    #[test]
    fn names_are_read_in_any_case_unknown_ones_ignored_and_null_is_the_zero_value() {
        let body =
            br#"{"sessionstate":"Connected","SCHEMAVERSION":null,"Nobody":[1],"SessionID":"a"}"#;
        let state = AgentSessionState::parse(body).unwrap();
        assert_eq!(state.session_state, "Connected");
        assert_eq!(state.session_id, "a");
        assert_eq!(state.schema_version, 0);
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_member() {
        let read = |text: &str| Size::parse(text.as_bytes()).map(|size| (size.cols, size.rows));
        assert_eq!(read(r#"{"cols":"80"}"#), Err(BodyError::WrongType("cols")));
        assert_eq!(read(r#"{"rows":-1}"#), Err(BodyError::WrongType("rows")));
        assert_eq!(read("[]"), Err(BodyError::NotAnObject));
        assert_eq!(read("nonsense"), Err(BodyError::NotJson));
        assert_eq!(
            read(r#"{"cols":300,"rows":4294967295}"#),
            Ok((300, u32::MAX))
        );
    }

    #[test]
    fn our_members_are_left_out_towards_those_who_do_not_know_them() {
        let mut open = OpenClient {
            token: "t".into(),
            client_id: "c".into(),
            ..OpenClient::default()
        };
        assert_eq!(
            open.to_text(),
            r#"{"MessageSchemaVersion":"","RequestId":"","TokenValue":"t","ClientId":"c"}"#
        );
        open.sortie = Some(SortieOpen {
            version: "0.1.0".into(),
            features: vec!["x".into()],
        });
        let back = OpenClient::parse(open.to_text().as_bytes()).unwrap();
        assert_eq!(back.sortie.unwrap().features, ["x"]);
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let start = SortieStart {
            token: "hunter2".into(),
            features: vec![],
        };
        assert!(!format!("{start:?}").contains("hunter2"));
        assert!(start.to_text().contains("hunter2"));
    }

    #[test]
    fn an_exit_code_is_the_official_text() {
        assert_eq!(exit_code(127), "EXIT_CODE: 127");
        for status in [0, 127, -1, i32::MIN] {
            assert_eq!(parse_exit_code(&exit_code(status)), Some(status));
        }
        for text in [
            "",
            "EXIT_CODE:",
            "EXIT_CODE: x",
            "0",
            "EXIT_CODE: 99999999999",
        ] {
            assert_eq!(parse_exit_code(text.as_bytes()), None, "{text}");
        }
    }
}
