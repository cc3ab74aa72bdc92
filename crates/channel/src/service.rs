//! The data-channel messages that a gateway makes itself, and the two that both ends make.
//!
//! Relayed frames are passed on as bytes and do not come from here.

use bytes::Bytes;
use sortie_types::Timestamp;
use uuid::Uuid;

use crate::{
    body::{Acknowledge, AgentSessionState, Body, ChannelClosed, Features},
    frame::{FLAGS_SYN_FIN, Frame, MessageType, NewFrame, PayloadType},
};

/// What makes one message different from the next: its id and its time.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The message's id, fresh for each message.
    pub message_id: Uuid,
    /// When it is made.
    pub created: Timestamp,
}

impl Stamp {
    /// An id and a time.
    #[must_use]
    pub fn new(message_id: Uuid, created: Timestamp) -> Self {
        Self {
            message_id,
            created,
        }
    }
}

/// Ends the session at whichever end receives it. `output` is what the person at the client reads.
#[must_use]
pub fn channel_closed(stamp: Stamp, session_id: &str, destination_id: &str, output: &str) -> Bytes {
    let body = closed_body(stamp, session_id, destination_id, output);
    data_message(MessageType::ChannelClosed, stamp, body.to_text().as_bytes())
}

pub(crate) fn closed_body(
    stamp: Stamp,
    session_id: &str,
    destination_id: &str,
    output: &str,
) -> ChannelClosed {
    ChannelClosed {
        message_id: stamp.message_id.to_string(),
        created_date: stamp.created.millis().to_string(),
        destination_id: destination_id.to_owned(),
        session_id: session_id.to_owned(),
        message_type: MessageType::ChannelClosed.as_str().to_owned(),
        schema_version: 1,
        output: output.to_owned(),
    }
}

/// Tells a node that its client is there.
#[must_use]
pub fn start_publication(stamp: Stamp) -> Bytes {
    data_message(MessageType::StartPublication, stamp, &[])
}

/// Tells a node to stop sending. Never for separated non-interactive output, which it would kill.
#[must_use]
pub fn pause_publication(stamp: Stamp) -> Bytes {
    data_message(MessageType::PausePublication, stamp, &[])
}

/// Tells an announcing end, and no other, what both ends can do.
#[must_use]
pub fn sortie_features(stamp: Stamp, features: &Features) -> Bytes {
    data_message(
        MessageType::SortieFeatures,
        stamp,
        features.to_text().as_bytes(),
    )
}

/// Tells the gateway how the session on the node stands.
#[must_use]
pub fn agent_session_state(stamp: Stamp, session_id: &str, session_state: &str) -> Bytes {
    let body = AgentSessionState {
        schema_version: 1,
        session_state: session_state.to_owned(),
        session_id: session_id.to_owned(),
    };
    data_message(
        MessageType::AgentSessionState,
        stamp,
        body.to_text().as_bytes(),
    )
}

/// The `acknowledge` of one stream message: made by its receiver, or rebuilt by a gateway which
/// knows that the receiver has acknowledged it and answers a repeated message in its place.
#[must_use]
pub fn acknowledge(
    stamp: Stamp,
    message_type: &MessageType,
    message_id: Uuid,
    sequence_number: i64,
) -> Bytes {
    acknowledge_message(
        stamp,
        &acknowledge_body(message_type, message_id, sequence_number),
    )
}

/// The same, for all numbers up to and including this one. `room_again` also tells the sender to send
/// what was refused.
#[must_use]
pub fn acknowledge_up_to(
    stamp: Stamp,
    message_type: &MessageType,
    message_id: Uuid,
    sequence_number: i64,
    room_again: bool,
) -> Bytes {
    let body = Acknowledge {
        cumulative: Some(true),
        room_again: room_again.then_some(true),
        ..acknowledge_body(message_type, message_id, sequence_number)
    };
    acknowledge_message(stamp, &body)
}

/// The `acknowledge` that answers `frame`.
#[must_use]
pub fn acknowledge_of(stamp: Stamp, frame: &Frame) -> Bytes {
    acknowledge(
        stamp,
        frame.message_type(),
        frame.message_id(),
        frame.sequence_number(),
    )
}

fn acknowledge_body(
    message_type: &MessageType,
    message_id: Uuid,
    sequence_number: i64,
) -> Acknowledge {
    Acknowledge {
        message_type: message_type.clone(),
        message_id: message_id.to_string(),
        sequence_number,
        is_sequential: true,
        ..Acknowledge::default()
    }
}

fn acknowledge_message(stamp: Stamp, body: &Acknowledge) -> Bytes {
    data_message(MessageType::Acknowledge, stamp, body.to_text().as_bytes())
}

fn data_message(message_type: MessageType, stamp: Stamp, payload: &[u8]) -> Bytes {
    message(message_type, FLAGS_SYN_FIN, stamp, payload)
}

/// A message outside the numbered stream. Publication messages go without payload, and their digest
/// is zero as AWS sends it.
#[expect(
    clippy::expect_used,
    reason = "the types are ours and short, the payloads JSON texts far below 4 GiB"
)]
pub(crate) fn message(
    message_type: MessageType,
    flags: u64,
    stamp: Stamp,
    payload: &[u8],
) -> Bytes {
    NewFrame {
        message_type,
        sequence_number: 0,
        flags,
        message_id: stamp.message_id,
        payload_type: PayloadType::NONE,
        payload,
        created: stamp.created,
        digest: !payload.is_empty(),
    }
    .encode()
    .expect("a service message is always encodable")
}
