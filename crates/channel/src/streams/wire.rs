//! The messages of multiplexed streams between our ends, as `docs/wire/data-channel.md` has them: each
//! is one stream message of the session under a payload type of ours. Parsing is validation.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::frame::PayloadType;

/// The payload types of streams.
pub mod payload {
    use crate::frame::PayloadType;

    /// A new stream, and where it goes.
    pub const OPEN: PayloadType = PayloadType(0x5301);
    /// The destination is connected.
    pub const OPENED: PayloadType = PayloadType(0x5302);
    /// The destination is not, and why.
    pub const REFUSED: PayloadType = PayloadType(0x5303);
    /// Bytes.
    pub const DATA: PayloadType = PayloadType(0x5304);
    /// Nothing more comes in this direction.
    pub const FIN: PayloadType = PayloadType(0x5305);
    /// Nothing more comes or is taken.
    pub const RESET: PayloadType = PayloadType(0x5306);
    /// So many more bytes may be sent.
    pub const CREDIT: PayloadType = PayloadType(0x5307);
}

/// Bytes of a stream id in front of every message.
pub(super) const ID_LEN: usize = 4;
/// The longest description of a destination or a refusal.
const TEXT_LIMIT: usize = 4096;

/// Where a stream goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct Destination {
    /// A name or address; absent with a port: the node itself. Absent without: the destination of the
    /// session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path of a unix socket, in place of host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
}

/// Why a destination is not connected, in a word that programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// A policy or the node does not allow it.
    Forbidden,
    /// There are too many streams.
    Limit,
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// The name does not resolve.
    UnknownHost,
    /// A newer peer's word.
    #[serde(other)]
    Other,
}

/// Why a stream was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "PascalCase")]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub message: String,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// [`payload::OPEN`].
    Open(u32, Destination),
    /// [`payload::OPENED`].
    Opened(u32),
    /// [`payload::REFUSED`].
    Refused(u32, Refusal),
    /// [`payload::DATA`].
    Data(u32, Bytes),
    /// [`payload::FIN`].
    Fin(u32),
    /// [`payload::RESET`].
    Reset(u32),
    /// [`payload::CREDIT`].
    Credit(u32, u32),
}

/// Why a payload is no message of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than its kind needs, or longer than it may be.
    #[error("a stream message of type {0:#x} has a wrong length")]
    Length(u32),
    /// Its JSON cannot be read.
    #[error("a stream message of type {0:#x} cannot be read")]
    Text(u32),
    /// Not a type of streams.
    #[error("payload type {0:#x} does not belong to streams")]
    Type(u32),
}

impl Message {
    /// Reads a stream message of the session.
    ///
    /// # Errors
    /// When it is none of streams.
    pub fn parse(payload_type: PayloadType, mut payload: Bytes) -> Result<Self, MessageError> {
        let number = payload_type.0;
        if !(payload::OPEN.0..=payload::CREDIT.0).contains(&number) {
            return Err(MessageError::Type(number));
        }
        if payload.len() < ID_LEN {
            return Err(MessageError::Length(number));
        }
        let id = payload.get_u32();
        let empty = |message: Self| match payload.len() {
            0 => Ok(message),
            _ => Err(MessageError::Length(number)),
        };
        match payload_type {
            payload::OPEN => Ok(Self::Open(id, text(number, &payload)?)),
            payload::OPENED => empty(Self::Opened(id)),
            payload::REFUSED => Ok(Self::Refused(id, text(number, &payload)?)),
            payload::DATA => Ok(Self::Data(id, payload)),
            payload::FIN => empty(Self::Fin(id)),
            payload::RESET => empty(Self::Reset(id)),
            _ if payload.len() == 4 => Ok(Self::Credit(id, payload.get_u32())),
            _ => Err(MessageError::Length(number)),
        }
    }

    /// The message as a stream message of the session.
    #[must_use]
    pub fn encode(&self) -> (PayloadType, Bytes) {
        let (kind, id, rest): (_, _, Vec<u8>) = match self {
            Self::Open(id, destination) => (payload::OPEN, id, json(destination)),
            Self::Opened(id) => (payload::OPENED, id, Vec::new()),
            Self::Refused(id, refusal) => (payload::REFUSED, id, json(&refusal.cut())),
            Self::Data(id, data) => return (payload::DATA, framed(*id, [data])),
            Self::Fin(id) => (payload::FIN, id, Vec::new()),
            Self::Reset(id) => (payload::RESET, id, Vec::new()),
            Self::Credit(id, bytes) => (payload::CREDIT, id, bytes.to_be_bytes().to_vec()),
        };
        (kind, framed(*id, [&rest]))
    }
}

impl Refusal {
    /// The same with a message that fits.
    fn cut(&self) -> Self {
        Self {
            code: self.code,
            message: self.message.chars().take(500).collect(),
        }
    }
}

/// A stream id and what goes behind it, in one piece.
pub(super) fn framed<'a, T: AsRef<[u8]> + 'a + ?Sized>(
    id: u32,
    parts: impl IntoIterator<Item = &'a T> + Clone,
) -> Bytes {
    let length: usize = parts
        .clone()
        .into_iter()
        .map(|part| part.as_ref().len())
        .sum();
    let mut framed = BytesMut::with_capacity(ID_LEN + length);
    framed.put_u32(id);
    for part in parts {
        framed.put_slice(part.as_ref());
    }
    framed.freeze()
}

fn text<T: serde::de::DeserializeOwned>(number: u32, payload: &[u8]) -> Result<T, MessageError> {
    if payload.len() > TEXT_LIMIT {
        return Err(MessageError::Length(number));
    }
    serde_json::from_slice(payload).map_err(|_| MessageError::Text(number))
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Texts and numbers always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}
