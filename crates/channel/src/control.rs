//! Messages of the control channel: starting and ending sessions on a node, and their results.
//!
//! Neither `interactive_shell` nor `channel_closed` is acknowledged by an official agent; timers and
//! the session's data channel tell whether they arrived.

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    body::{
        AgentTaskAcknowledge, AgentTaskComplete, Body, BodyError, ChannelClosed, InteractiveShell,
        RunningSessions, StartContent,
    },
    frame::{Frame, MessageType},
    service::{Stamp, closed_body, message},
};

/// `Topic` of a session's result and of its acknowledgement.
pub const TASK_COMPLETE_TOPIC: &str = "agent_task_complete";

/// `Topic` of a start message.
pub const START_SESSION_TOPIC: &str = "aws.ssm.startSession";

/// A control-channel message that one of our ends acts upon.
#[derive(Clone, Debug)]
pub enum ControlMessage {
    /// Start a session.
    InteractiveShell(Box<StartContent>),
    /// End a session.
    ChannelClosed(ChannelClosed),
    /// A session's result; the id is what the acknowledgement has to name.
    TaskComplete {
        /// The frame's id.
        message_id: Uuid,
        /// The result.
        result: Box<AgentTaskComplete>,
    },
    /// A result has arrived.
    TaskAcknowledge(AgentTaskAcknowledge),
    /// The sessions that run on the node.
    Sessions(RunningSessions),
    /// Anything else, to be ignored or handled by who knows it.
    Other(MessageType),
}

impl ControlMessage {
    /// Reads a frame of the control channel.
    pub fn parse(frame: &Frame) -> Result<Self, BodyError> {
        let payload = frame.payload();
        Ok(match frame.message_type() {
            MessageType::InteractiveShell => {
                let shell = InteractiveShell::parse(&payload)?;
                Self::InteractiveShell(Box::new(StartContent::parse(shell.content.as_bytes())?))
            }
            MessageType::ChannelClosed => Self::ChannelClosed(ChannelClosed::parse(&payload)?),
            MessageType::AgentTaskComplete => Self::TaskComplete {
                message_id: frame.message_id(),
                result: Box::new(AgentTaskComplete::parse(&payload)?),
            },
            MessageType::AgentTaskAcknowledge => {
                Self::TaskAcknowledge(AgentTaskAcknowledge::parse(&payload)?)
            }
            MessageType::SortieSessions => Self::Sessions(RunningSessions::parse(&payload)?),
            other => Self::Other(other.clone()),
        })
    }
}

/// Starts a session on the node.
#[must_use]
pub fn interactive_shell(stamp: Stamp, start: &StartContent) -> Bytes {
    let body = InteractiveShell {
        content: start.to_text(),
        task_id: start.session_id.clone(),
        topic: START_SESSION_TOPIC.to_owned(),
        schema_version: 1,
    };
    control_message(MessageType::InteractiveShell, stamp, &body)
}

/// Ends a session on the node. Works also when the session's data channel is stuck.
#[must_use]
pub fn channel_closed(stamp: Stamp, session_id: &str, destination_id: &str, output: &str) -> Bytes {
    let body = closed_body(stamp, session_id, destination_id, output);
    control_message(MessageType::ChannelClosed, stamp, &body)
}

/// A session's result. To be repeated with the same stamp until acknowledged.
#[must_use]
pub fn task_complete(stamp: Stamp, result: &AgentTaskComplete) -> Bytes {
    control_message(MessageType::AgentTaskComplete, stamp, result)
}

/// Tells the node that the `agent_task_complete` frame with this id has arrived.
#[must_use]
pub fn task_acknowledge(stamp: Stamp, acknowledged: Uuid, session_id: &str) -> Bytes {
    let body = AgentTaskAcknowledge {
        schema_version: 1,
        message_id: acknowledged.to_string(),
        task_id: session_id.to_owned(),
        topic: TASK_COMPLETE_TOPIC.to_owned(),
    };
    control_message(MessageType::AgentTaskAcknowledge, stamp, &body)
}

/// Tells the server which sessions run on the node.
#[must_use]
pub fn sortie_sessions(stamp: Stamp, sessions: &RunningSessions) -> Bytes {
    control_message(MessageType::SortieSessions, stamp, sessions)
}

fn control_message(message_type: MessageType, stamp: Stamp, body: &impl Body) -> Bytes {
    message(message_type, 0, stamp, body.to_text().as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sortie_types::Timestamp;

    use super::*;
    use crate::body::SortieStart;

    fn stamp() -> Stamp {
        Stamp::new(
            Uuid::from_u128(7),
            Timestamp::from_millis(1_777_881_600_000),
        )
    }

    fn parse(bytes: Bytes) -> ControlMessage {
        ControlMessage::parse(&Frame::parse(bytes).unwrap()).unwrap()
    }

    #[test]
    fn a_start_message_arrives_with_document_and_token() {
        let start = StartContent {
            session_id: "alice-0123456789abcdef0".into(),
            document_content: json!({"sessionType": "Port"}),
            sortie: Some(SortieStart {
                token: "SRT1.x".into(),
                features: vec!["a".into()],
            }),
            ..StartContent::default()
        };
        let ControlMessage::InteractiveShell(back) = parse(interactive_shell(stamp(), &start))
        else {
            panic!("not a start message");
        };
        assert_eq!(back.session_id, start.session_id);
        assert_eq!(back.document_content, start.document_content);
        assert_eq!(back.sortie.unwrap().token.expose(), "SRT1.x");
    }

    #[test]
    fn a_result_carries_the_id_that_its_acknowledgement_names() {
        let result = AgentTaskComplete {
            task_id: "s".into(),
            retry_number: 2,
            ..Default::default()
        };
        let ControlMessage::TaskComplete { message_id, result } =
            parse(task_complete(stamp(), &result))
        else {
            panic!("not a result");
        };
        assert_eq!(result.retry_number, 2);
        let ControlMessage::TaskAcknowledge(acknowledged) =
            parse(task_acknowledge(stamp(), message_id, "s"))
        else {
            panic!("not an acknowledgement");
        };
        assert_eq!(acknowledged.message_id, stamp().message_id.to_string());
    }

    #[test]
    fn running_sessions_and_closing_are_read_back() {
        let sessions = RunningSessions {
            sessions: vec!["a".into(), "b".into()],
        };
        let ControlMessage::Sessions(back) = parse(sortie_sessions(stamp(), &sessions)) else {
            panic!("not the sessions");
        };
        assert_eq!(back.sessions, ["a", "b"]);
        let ControlMessage::ChannelClosed(closed) =
            parse(channel_closed(stamp(), "a", "mi-1", "bye"))
        else {
            panic!("not a closing");
        };
        assert_eq!(
            (closed.session_id.as_str(), closed.output.as_str()),
            ("a", "bye")
        );
    }
}
