//! The binary frame: a 120-byte header and a payload, one to a websocket message.
//!
//! Parsing accepts everything that official peers emit and refuses whatever makes one of their
//! parsers fail, so that a relayed frame can harm neither side. It never hashes: who needs the
//! digest checked asks for it. What a payload means is `body`'s.

use std::fmt;

use aws_lc_rs::digest;
use bytes::{BufMut, Bytes, BytesMut};
use sortie_types::Timestamp;
use uuid::Uuid;

/// Bytes before the payload.
pub const HEADER_LEN: usize = 120;

/// The header's own first field: the offset of PayloadLength.
const HEADER_LENGTH_FIELD: u32 = 116;
const SCHEMA_VERSION: u32 = 1;
const TYPE_LEN: usize = 32;
const DIGEST_AT: usize = 80;
const DIGEST_LEN: usize = 32;

/// `Flags` of the first stream message.
pub const FLAG_SYN: u64 = 1;
/// `Flags` of everything on the data channel that is no stream message.
pub const FLAGS_SYN_FIN: u64 = 3;

macro_rules! message_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// What a frame is, by its name on the wire.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum MessageType {
            $($(#[$doc])* $variant,)*
            /// A name that this crate does not know.
            Other(Box<str>),
        }

        impl MessageType {
            /// The name on the wire, without padding.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for MessageType {
            fn from(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }
    };
}

message_types! {
    /// Client to node, numbered.
    InputStreamData = "input_stream_data",
    /// Node to client, numbered.
    OutputStreamData = "output_stream_data",
    /// Either end acknowledges a numbered message.
    Acknowledge = "acknowledge",
    /// Node to gateway: connected or terminating.
    AgentSessionState = "agent_session_state",
    /// Gateway to either end: the session is over.
    ChannelClosed = "channel_closed",
    /// Gateway to either end: publish (again).
    StartPublication = "start_publication",
    /// Gateway to either end: stop publishing.
    PausePublication = "pause_publication",
    /// Control channel, to the node: start a session.
    InteractiveShell = "interactive_shell",
    /// Control channel, from the node: a session's result.
    AgentTaskComplete = "agent_task_complete",
    /// Control channel, to the node: the result has arrived.
    AgentTaskAcknowledge = "agent_task_acknowledge",
    /// Control channel, to the node: run a command document.
    AgentJob = "agent_job",
    /// Control channel, from the node: an `agent_job` has arrived.
    AgentJobAck = "agent_job_ack",
    /// Control channel, from the node: a command's progress or result.
    AgentJobReply = "agent_job_reply",
    /// Control channel, to the node: an `agent_job_reply` has arrived.
    AgentJobReplyAck = "agent_job_reply_ack",
    /// Control channel, from the node: statistics.
    AgentTelemetry = "agent_telemetry",
    /// Control channel, from the node: the result of a self-update.
    AgentUpdateResult = "agent_update_result",
    /// Ours, gateway to an announcing end: the common features and the next ticket.
    SortieFeatures = "sortie_features",
    /// Ours, control channel, from the node: the sessions that run there.
    SortieSessions = "sortie_sessions",
}

impl MessageType {
    /// Whether official ends take this type with an empty payload and whatever header.
    #[must_use]
    pub fn is_publication(&self) -> bool {
        matches!(self, Self::StartPublication | Self::PausePublication)
    }

    /// Whether this type carries a sequence number and is acknowledged.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::InputStreamData | Self::OutputStreamData)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the payload of a stream frame is. Any number is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PayloadType(pub u32);

impl PayloadType {
    /// Messages that are no stream data.
    pub const NONE: Self = Self(0);
    /// Raw bytes: keystrokes, terminal output, port data.
    pub const OUTPUT: Self = Self(1);
    /// Unused by official ends.
    pub const ERROR: Self = Self(2);
    /// Terminal size, JSON.
    pub const SIZE: Self = Self(3);
    /// Unused by official ends.
    pub const PARAMETER: Self = Self(4);
    /// Node asks the client to process actions, JSON.
    pub const HANDSHAKE_REQUEST: Self = Self(5);
    /// The client's answer, JSON.
    pub const HANDSHAKE_RESPONSE: Self = Self(6);
    /// Node says that the handshake is over, JSON.
    pub const HANDSHAKE_COMPLETE: Self = Self(7);
    /// Node proves the encryption keys, JSON.
    pub const ENC_CHALLENGE_REQUEST: Self = Self(8);
    /// The client's answer, JSON.
    pub const ENC_CHALLENGE_RESPONSE: Self = Self(9);
    /// A big-endian u32, see [`flag`].
    pub const FLAG: Self = Self(10);
    /// Raw bytes of standard error.
    pub const STDERR: Self = Self(11);
    /// The text `EXIT_CODE: <n>`.
    pub const EXIT_CODE: Self = Self(12);
    /// Ours, client to node: the standard input of a command is over. One byte, 0.
    pub const STDIN_EOF: Self = Self(0x5311);
    /// Ours, client to node: a signal for a command, by its name without `SIG`, such as `INT`.
    pub const SIGNAL: Self = Self(0x5312);
    /// Ours, node to client: how much of its standard input a command has taken, see [`crate::stdin`].
    pub const STDIN_TAKEN: Self = Self(0x5313);
}

/// The values of a [`PayloadType::FLAG`] payload.
pub mod flag {
    /// Client to node: the local connection ended.
    pub const DISCONNECT_TO_PORT: u32 = 1;
    /// Client to node: end the session.
    pub const TERMINATE_SESSION: u32 = 2;
    /// Node to client: the destination could not be reached.
    pub const CONNECT_TO_PORT_ERROR: u32 = 3;
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header has.
    #[error("frame of {0} bytes is shorter than its header")]
    TooShort(usize),
    /// The payload would start anywhere but behind the header.
    #[error("header length is {0}, not 116")]
    HeaderLength(u32),
    /// The type is empty or not text.
    #[error("message type is empty or not text")]
    MessageType,
    /// CreatedDate is zero, which official ends refuse.
    #[error("created date is missing")]
    CreatedDate,
}

/// Why a frame cannot be written. Official serialisers refuse the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// No payload, and the type is not one that goes without.
    #[error("payload is empty")]
    EmptyPayload,
    /// The payload's length does not fit 32 bits.
    #[error("payload is too long")]
    PayloadTooLong,
    /// The type is empty or longer than 32 bytes.
    #[error("message type has {0} bytes, not 1 to 32")]
    MessageType(usize),
}

/// A received frame whose header was checked. Keeps the bytes as they came, for relaying.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    message_type: MessageType,
    header: Header,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    schema_version: u32,
    created_date_ms: u64,
    sequence_number: i64,
    flags: u64,
    message_id: Uuid,
    digest: [u8; DIGEST_LEN],
    payload_type: PayloadType,
    payload_length: u32,
}

impl Frame {
    /// Checks the header of one websocket message. The payload is everything behind it: official
    /// parsers do not cut at PayloadLength either.
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        let (message_type, header) = parse_header(&bytes)?;
        Ok(Self {
            bytes,
            message_type,
            header,
        })
    }

    /// What kind of message this is.
    #[must_use]
    pub fn message_type(&self) -> &MessageType {
        &self.message_type
    }

    /// The stream number; any value, also negative ones. Zero in messages that are no stream data.
    #[must_use]
    pub fn sequence_number(&self) -> i64 {
        self.header.sequence_number
    }

    /// The flags; no official end reads them.
    #[must_use]
    pub fn flags(&self) -> u64 {
        self.header.flags
    }

    /// The schema version; any value is accepted.
    #[must_use]
    pub fn schema_version(&self) -> u32 {
        self.header.schema_version
    }

    /// The message's id.
    #[must_use]
    pub fn message_id(&self) -> Uuid {
        self.header.message_id
    }

    /// What the payload is.
    #[must_use]
    pub fn payload_type(&self) -> PayloadType {
        self.header.payload_type
    }

    /// The payload, sharing the frame's memory.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }

    /// The length that the header claims for the payload; official ends only look whether it is zero.
    #[must_use]
    pub fn payload_length_field(&self) -> u32 {
        self.header.payload_length
    }

    /// When the sender made the message: Unix milliseconds, as an unchecked bit pattern.
    #[must_use]
    pub fn created_date_ms(&self) -> u64 {
        self.header.created_date_ms
    }

    /// Whether the digest is the SHA-256 of the payload. Hashes the payload at each call.
    #[must_use]
    pub fn digest_matches(&self) -> bool {
        let payload = self.bytes.get(HEADER_LEN..).unwrap_or_default();
        digest::digest(&digest::SHA256, payload).as_ref() == self.header.digest
    }

    /// Whether an official client takes the frame: the digest matches, or PayloadLength is zero.
    #[must_use]
    pub fn digest_passes_client(&self) -> bool {
        self.header.payload_length == 0 || self.digest_matches()
    }

    /// Header and payload as they came.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Length of the whole frame in bytes.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Shows the header only: payloads are terminal bytes, which belong in no log.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("message_type", &self.message_type)
            .field("sequence_number", &self.header.sequence_number)
            .field("message_id", &self.header.message_id)
            .field("payload_type", &self.header.payload_type)
            .field(
                "payload_bytes",
                &self.bytes.len().saturating_sub(HEADER_LEN),
            )
            .finish_non_exhaustive()
    }
}

/// Takes big-endian fields off the front of a header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

fn parse_header(bytes: &[u8]) -> Result<(MessageType, Header), FrameError> {
    let (length, message_type, header) =
        read_fields(bytes).ok_or(FrameError::TooShort(bytes.len()))?;
    let message_type = parse_type(&message_type)?;
    // An official client takes publication messages without validating them, and a service may send
    // them with an empty header. Their content is never used.
    let is_lenient = message_type.is_publication();
    if length != HEADER_LENGTH_FIELD && !(is_lenient && length == 0) {
        return Err(FrameError::HeaderLength(length));
    }
    if header.created_date_ms == 0 && !is_lenient {
        return Err(FrameError::CreatedDate);
    }
    Ok((message_type, header))
}

/// HeaderLength, the type still padded, and the other fields. `None` when there are too few bytes.
fn read_fields(bytes: &[u8]) -> Option<(u32, [u8; TYPE_LEN], Header)> {
    let mut fields = Fields(bytes);
    let length = u32::from_be_bytes(fields.take()?);
    let message_type = fields.take()?;
    let header = Header {
        schema_version: u32::from_be_bytes(fields.take()?),
        created_date_ms: u64::from_be_bytes(fields.take()?),
        sequence_number: i64::from_be_bytes(fields.take()?),
        flags: u64::from_be_bytes(fields.take()?),
        message_id: swap_halves(fields.take()?),
        digest: fields.take()?,
        payload_type: PayloadType(u32::from_be_bytes(fields.take()?)),
        payload_length: u32::from_be_bytes(fields.take()?),
    };
    Some((length, message_type, header))
}

/// Strips NULs, then white space, from both ends, as official parsers do.
fn parse_type(field: &[u8]) -> Result<MessageType, FrameError> {
    let text = std::str::from_utf8(field).map_err(|_| FrameError::MessageType)?;
    match text.trim_matches('\0').trim() {
        "" => Err(FrameError::MessageType),
        name => Ok(MessageType::from(name)),
    }
}

/// The wire has the UUID's second half first.
fn swap_halves(wire: [u8; 16]) -> Uuid {
    Uuid::from_u128(u128::from_be_bytes(wire).rotate_left(64))
}

/// A frame to be written.
#[derive(Clone, Debug)]
pub struct NewFrame<'a> {
    /// What kind of message.
    pub message_type: MessageType,
    /// The stream number, zero in messages that are no stream data.
    pub sequence_number: i64,
    /// SYN and FIN bits.
    pub flags: u64,
    /// The message's id.
    pub message_id: Uuid,
    /// What the payload is.
    pub payload_type: PayloadType,
    /// The payload.
    pub payload: &'a [u8],
    /// When the message is made. Zero is written as 1 ms, because official ends refuse zero.
    pub created: Timestamp,
    /// Whether to write the payload's SHA-256; zeros otherwise.
    pub digest: bool,
}

impl NewFrame<'_> {
    /// The frame's bytes.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        if self.payload.is_empty() && !self.message_type.is_publication() {
            return Err(EncodeError::EmptyPayload);
        }
        let name = self.message_type.as_str();
        if !(1..=TYPE_LEN).contains(&name.len()) {
            return Err(EncodeError::MessageType(name.len()));
        }
        let length = u32::try_from(self.payload.len()).map_err(|_| EncodeError::PayloadTooLong)?;
        Ok(self.write(name, length))
    }

    fn write(&self, name: &str, payload_length: u32) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN + self.payload.len());
        out.put_u32(HEADER_LENGTH_FIELD);
        out.put_slice(name.as_bytes());
        out.put_bytes(b' ', TYPE_LEN - name.len());
        out.put_u32(SCHEMA_VERSION);
        out.put_u64(self.created.millis().cast_unsigned().max(1));
        out.put_i64(self.sequence_number);
        out.put_u64(self.flags);
        out.put_u128(self.message_id.as_u128().rotate_left(64));
        if self.digest {
            out.put_slice(digest::digest(&digest::SHA256, self.payload).as_ref());
        } else {
            out.put_bytes(0, DIGEST_LEN);
        }
        out.put_u32(self.payload_type.0);
        out.put_u32(payload_length);
        out.put_slice(self.payload);
        out.freeze()
    }
}

/// A frame written without digest, with its digest put in. Copies; for the rare case that a peer
/// which needs digests takes over from one that does not.
pub(crate) fn with_digest(frame: &Bytes) -> Bytes {
    let mut bytes = BytesMut::from(frame.as_ref());
    let digest = digest::digest(&digest::SHA256, frame.get(HEADER_LEN..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(DIGEST_AT..DIGEST_AT + DIGEST_LEN) {
        field.copy_from_slice(digest.as_ref());
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_back(
            name in "[a-z_]{1,32}",
            sequence_number: i64,
            flags: u64,
            id: u128,
            payload_type: u32,
            payload in proptest::collection::vec(any::<u8>(), 1..300),
            created in 1_i64..,
            digest: bool,
        ) {
            let new = NewFrame {
                message_type: MessageType::from(name.as_str()),
                sequence_number,
                flags,
                message_id: Uuid::from_u128(id),
                payload_type: PayloadType(payload_type),
                payload: &payload,
                created: Timestamp::from_millis(created),
                digest,
            };
            let bytes = new.encode().unwrap();
            let frame = Frame::parse(bytes.clone()).unwrap();
            prop_assert_eq!(frame.message_type(), &new.message_type);
            prop_assert_eq!(frame.sequence_number(), sequence_number);
            prop_assert_eq!(frame.flags(), flags);
            prop_assert_eq!(frame.message_id(), new.message_id);
            prop_assert_eq!(frame.payload_type(), new.payload_type);
            prop_assert_eq!(frame.payload().to_vec(), payload.clone());
            prop_assert_eq!(frame.created_date_ms(), created.cast_unsigned());
            prop_assert_eq!(frame.digest_matches(), digest);
            prop_assert!(Frame::parse(with_digest(&bytes)).unwrap().digest_matches());
            prop_assert_eq!(frame.into_bytes(), bytes);
        }

        #[test]
        fn no_bytes_make_the_parser_fail_otherwise_than_by_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(frame) = Frame::parse(Bytes::from(bytes)) {
                let _ = (frame.payload(), frame.digest_matches(), format!("{frame:?}"));
            }
        }
    }
}
