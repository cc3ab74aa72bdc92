//! The messages of copying: one byte of kind, four of length, and a payload that its kind bounds.
//! Parsing is validation.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// The most bytes of a file in one message.
pub const LARGEST_DATA: usize = 256 << 10;
/// Bytes of a SHA-256.
pub const DIGEST_LEN: usize = 32;
/// Bytes in front of every payload.
const HEAD_LEN: usize = 5;
/// The longest name of a directory's entry.
const LONGEST_NAME: usize = 255;
/// The longest target of a link, and path in a report.
const LONGEST_PATH: usize = 4096;
/// The longest text for a person.
const LONGEST_TEXT: usize = 1024;
/// Bytes of [`Meta`].
const META_LEN: usize = 16;
/// In place of a size that is not known.
const NO_SIZE: u64 = u64::MAX;
const NANOSECONDS: u32 = 1_000_000_000;

/// What a file's bytes come to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; DIGEST_LEN]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of an entry within its directory: 1 to 255 bytes without `/` and NUL, and neither `.` nor
/// `..`. So a name never leads out of its directory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Bytes);

/// Why bytes are no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is not the name of a file within a directory")]
pub struct NameError;

impl Name {
    /// Takes what is a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        let is_name = !bytes.is_empty()
            && bytes.len() <= LONGEST_NAME
            && !bytes.iter().any(|byte| matches!(byte, b'/' | 0))
            && !matches!(&*bytes, b"." | b"..");
        is_name.then_some(Self(bytes)).ok_or(NameError)
    }

    /// The name as it is.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// What is kept of an entry besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The permission bits, 0 to 0o7777.
    pub mode: u32,
    /// When the content was last changed, in seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds, less than 10⁹.
    pub nanoseconds: u32,
}

/// What each end says first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Hello {
    /// See [`super::VERSION`].
    pub version: u32,
    /// The client: directories are copied with what is in them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// The client: modes and times are those of the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preserve: bool,
    /// The client: what is named on the node has to be a directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub into_directory: bool,
    /// The client: wants to know how much there is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub totals: bool,
}

/// What is wrong with something that is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// It cannot be read.
    Failed,
    /// It is neither file nor directory nor link.
    Skipped,
}

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// Both ends, first.
    Hello(Hello),
    /// Either end: nothing more can be done. For people.
    Fatal(String),
    /// Sender: a directory, which the following entries are in until [`Self::Leave`]. Without a name
    /// it is the destination itself, and the first.
    Enter(Meta, Option<Name>),
    /// Sender: back to the directory that the last one is in.
    Leave,
    /// Sender: a file and its size; without a size it is read to its end, without a name it is the
    /// destination itself.
    File {
        /// Of the source.
        meta: Meta,
        /// In bytes.
        size: Option<u64>,
        /// Within the directory.
        name: Option<Name>,
    },
    /// Sender: a symbolic link and where it points.
    Link {
        /// Of the link itself.
        meta: Meta,
        /// Within the directory.
        name: Name,
        /// Any path.
        target: Bytes,
    },
    /// Sender: an entry that is not announced, by its path below the source, and why.
    Problem(ProblemKind, Bytes, String),
    /// Sender: how many files and bytes there are in all.
    Total(u64, u64),
    /// Sender: what follows are the bytes of this entry from this offset on, which is the one that the
    /// receiver wanted, or 0.
    Start(u64, u64),
    /// Sender: bytes, not none.
    Data(Bytes),
    /// Sender: the file is complete, and its digest from its first byte on.
    End(Digest),
    /// Sender: this wanted entry cannot be sent, or not to its end.
    Abort(u64, String),
    /// Sender: everything was announced and every file was sent.
    Finish,
    /// Receiver: send this entry, the rest of it where the digest is that of as many first bytes.
    Want(u64, Option<(u64, Digest)>),
    /// Receiver: this entry is in place, a file with the digest that was told.
    Done(u64),
    /// Receiver: this entry is not to be. For people.
    Failed(u64, String),
    /// Receiver: everything is settled.
    Finished,
}

/// Shows no data.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hello(hello) => write!(f, "{hello:?}"),
            Self::Fatal(why) => write!(f, "Fatal({why:?})"),
            Self::Enter(_, name) => write!(f, "Enter({name:?})"),
            Self::Leave => write!(f, "Leave"),
            Self::File { size, name, .. } => write!(f, "File({name:?}, {size:?})"),
            Self::Link { name, .. } => write!(f, "Link({name:?})"),
            Self::Problem(kind, _, why) => write!(f, "Problem({kind:?}, {why:?})"),
            Self::Total(files, bytes) => write!(f, "Total({files}, {bytes})"),
            Self::Start(entry, offset) => write!(f, "Start({entry}, {offset})"),
            Self::Data(data) => write!(f, "Data({} bytes)", data.len()),
            Self::End(digest) => write!(f, "End({digest})"),
            Self::Abort(entry, why) => write!(f, "Abort({entry}, {why:?})"),
            Self::Finish => write!(f, "Finish"),
            Self::Want(entry, held) => write!(f, "Want({entry}, {held:?})"),
            Self::Done(entry) => write!(f, "Done({entry})"),
            Self::Failed(entry, why) => write!(f, "Failed({entry}, {why:?})"),
            Self::Finished => write!(f, "Finished"),
        }
    }
}

mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const FATAL: u8 = 0x02;
    pub(super) const ENTER: u8 = 0x10;
    pub(super) const LEAVE: u8 = 0x11;
    pub(super) const FILE: u8 = 0x12;
    pub(super) const LINK: u8 = 0x13;
    pub(super) const PROBLEM: u8 = 0x14;
    pub(super) const TOTAL: u8 = 0x15;
    pub(super) const START: u8 = 0x18;
    pub(super) const DATA: u8 = 0x19;
    pub(super) const END: u8 = 0x1a;
    pub(super) const ABORT: u8 = 0x1b;
    pub(super) const FINISH: u8 = 0x1f;
    pub(super) const WANT: u8 = 0x20;
    pub(super) const DONE: u8 = 0x21;
    pub(super) const FAILED: u8 = 0x22;
    pub(super) const FINISHED: u8 = 0x2f;
}

/// The lengths that a payload of a kind may have; `None` for an unknown kind.
fn lengths(kind: u8) -> Option<std::ops::RangeInclusive<usize>> {
    Some(match kind {
        kind::HELLO | kind::FATAL => 0..=LONGEST_TEXT,
        kind::ENTER => META_LEN..=META_LEN + LONGEST_NAME,
        kind::FILE => META_LEN + 8..=META_LEN + 8 + LONGEST_NAME,
        kind::LINK => META_LEN + 1 + 2..=META_LEN + 1 + LONGEST_NAME + LONGEST_PATH,
        kind::PROBLEM => 3..=3 + LONGEST_PATH + LONGEST_TEXT,
        kind::DATA => 1..=LARGEST_DATA,
        kind::END => DIGEST_LEN..=DIGEST_LEN,
        kind::ABORT | kind::FAILED => 8..=8 + LONGEST_TEXT,
        kind::TOTAL | kind::START => 16..=16,
        kind::WANT => 8..=16 + DIGEST_LEN,
        kind::DONE => 8..=8,
        kind::LEAVE | kind::FINISH | kind::FINISHED => 0..=0,
        _ => return None,
    })
}

/// Why bytes are no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not a kind that is known.
    #[error("there is no message of kind {0:#04x}")]
    Kind(u8),
    /// Shorter or longer than its kind may be.
    #[error("a message of kind {0:#04x} has {1} bytes")]
    Length(u8, usize),
    /// Its content is none.
    #[error("a message of kind {0:#04x} cannot be understood")]
    Content(u8),
    /// A file's name that could lead elsewhere.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The stream ended within a message.
    #[error("the stream ended within a message")]
    Truncated,
}

/// Makes messages of a stream's bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Where the next bytes are put.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next message, if it is there as a whole.
    ///
    /// # Errors
    /// When there is none at this place. Nothing behind it can be understood.
    pub fn next_message(&mut self) -> Result<Option<Message>, MessageError> {
        let Some((kind, length)) = self.head() else {
            return Ok(None);
        };
        let allowed = lengths(kind).ok_or(MessageError::Kind(kind))?;
        // Judged before the payload is waited for, so that nobody makes us keep more.
        if !allowed.contains(&length) {
            return Err(MessageError::Length(kind, length));
        }
        if self.buffer.len() < HEAD_LEN + length {
            return Ok(None);
        }
        let mut whole = self.buffer.split_to(HEAD_LEN + length);
        whole.advance(HEAD_LEN);
        Message::parse(kind, whole.freeze()).map(Some)
    }

    /// To be asked when the stream has ended.
    ///
    /// # Errors
    /// When it ended in the middle of a message.
    pub fn finish(&self) -> Result<(), MessageError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(MessageError::Truncated)
        }
    }

    fn head(&self) -> Option<(u8, usize)> {
        let mut head = self.buffer.get(..HEAD_LEN)?;
        let kind = head.get_u8();
        Some((kind, usize::try_from(head.get_u32()).unwrap_or(usize::MAX)))
    }
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Fatal(_) => kind::FATAL,
            Self::Enter(..) => kind::ENTER,
            Self::Leave => kind::LEAVE,
            Self::File { .. } => kind::FILE,
            Self::Link { .. } => kind::LINK,
            Self::Problem(..) => kind::PROBLEM,
            Self::Total(..) => kind::TOTAL,
            Self::Start(..) => kind::START,
            Self::Data(_) => kind::DATA,
            Self::End(_) => kind::END,
            Self::Abort(..) => kind::ABORT,
            Self::Finish => kind::FINISH,
            Self::Want(..) => kind::WANT,
            Self::Done(_) => kind::DONE,
            Self::Failed(..) => kind::FAILED,
            Self::Finished => kind::FINISHED,
        }
    }

    /// Writes the message behind what is in `buffer`. Texts and paths are cut to what they may have.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        let begin = buffer.len();
        buffer.put_u8(self.kind());
        buffer.put_u32(0);
        self.write_payload(buffer);
        let length = buffer.len() - begin - HEAD_LEN;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(place) = buffer.get_mut(begin + 1..begin + HEAD_LEN) {
            place.copy_from_slice(&length);
        }
    }

    fn write_payload(&self, buffer: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                // A structure of numbers and flags can be written.
                buffer.extend(serde_json::to_vec(hello).unwrap_or_default());
            }
            Self::Fatal(why) => buffer.put(cut(why)),
            Self::Enter(meta, name) => {
                meta.write(buffer);
                buffer.put(name_bytes(name.as_ref()));
            }
            Self::File { meta, size, name } => {
                meta.write(buffer);
                buffer.put_u64(size.unwrap_or(NO_SIZE));
                buffer.put(name_bytes(name.as_ref()));
            }
            Self::Link { meta, name, target } => {
                meta.write(buffer);
                // A name has at most 255 bytes.
                buffer.put_u8(u8::try_from(name.0.len()).unwrap_or(u8::MAX));
                buffer.put(&*name.0);
                buffer.put(target.get(..LONGEST_PATH).unwrap_or(target));
            }
            Self::Problem(kind, path, why) => {
                let path = path.get(..LONGEST_PATH).unwrap_or(path);
                buffer.put_u8(u8::from(*kind == ProblemKind::Skipped));
                buffer.put_u16(u16::try_from(path.len()).unwrap_or(u16::MAX));
                buffer.put(path);
                buffer.put(cut(why));
            }
            Self::Total(one, two) | Self::Start(one, two) => {
                buffer.put_u64(*one);
                buffer.put_u64(*two);
            }
            Self::Data(data) => buffer.put(data.get(..LARGEST_DATA).unwrap_or(data)),
            Self::End(digest) => buffer.put(&digest.0[..]),
            Self::Abort(entry, why) | Self::Failed(entry, why) => {
                buffer.put_u64(*entry);
                buffer.put(cut(why));
            }
            Self::Want(entry, held) => {
                buffer.put_u64(*entry);
                if let Some((offset, digest)) = held {
                    buffer.put_u64(*offset);
                    buffer.put(&digest.0[..]);
                }
            }
            Self::Done(entry) => buffer.put_u64(*entry),
            Self::Leave | Self::Finish | Self::Finished => {}
        }
    }

    fn parse(kind: u8, mut payload: Bytes) -> Result<Self, MessageError> {
        let length = payload.len();
        let short = |_| MessageError::Length(kind, length);
        let content = MessageError::Content(kind);
        Ok(match kind {
            kind::HELLO => Self::Hello(serde_json::from_slice(&payload).map_err(|_| content)?),
            kind::FATAL => Self::Fatal(text(&payload, content)?),
            kind::ENTER => Self::Enter(Meta::parse(&mut payload, kind)?, optional_name(&payload)?),
            kind::LEAVE => Self::Leave,
            kind::FILE => Self::File {
                meta: Meta::parse(&mut payload, kind)?,
                size: Some(payload.try_get_u64().map_err(short)?).filter(|size| *size != NO_SIZE),
                name: optional_name(&payload)?,
            },
            kind::LINK => link(&mut payload)?,
            kind::PROBLEM => problem(&mut payload)?,
            kind::TOTAL => Self::Total(
                payload.try_get_u64().map_err(short)?,
                payload.try_get_u64().map_err(short)?,
            ),
            kind::START => Self::Start(
                payload.try_get_u64().map_err(short)?,
                payload.try_get_u64().map_err(short)?,
            ),
            kind::DATA => Self::Data(payload),
            kind::END => Self::End(digest(&payload).ok_or(content)?),
            kind::ABORT => Self::Abort(
                payload.try_get_u64().map_err(short)?,
                text(&payload, content)?,
            ),
            kind::FINISH => Self::Finish,
            kind::WANT => want(&mut payload)?,
            kind::DONE => Self::Done(payload.try_get_u64().map_err(short)?),
            kind::FAILED => Self::Failed(
                payload.try_get_u64().map_err(short)?,
                text(&payload, content)?,
            ),
            kind::FINISHED => Self::Finished,
            _ => return Err(MessageError::Kind(kind)),
        })
    }
}

impl Meta {
    fn write(self, buffer: &mut Vec<u8>) {
        buffer.put_u32(self.mode);
        buffer.put_i64(self.seconds);
        buffer.put_u32(self.nanoseconds);
    }

    fn parse(payload: &mut Bytes, kind: u8) -> Result<Self, MessageError> {
        let short = |_| MessageError::Content(kind);
        let meta = Self {
            mode: payload.try_get_u32().map_err(short)?,
            seconds: payload.try_get_i64().map_err(short)?,
            nanoseconds: payload.try_get_u32().map_err(short)?,
        };
        let is_sound = meta.mode <= 0o7777 && meta.nanoseconds < NANOSECONDS;
        is_sound.then_some(meta).ok_or(MessageError::Content(kind))
    }
}

fn link(payload: &mut Bytes) -> Result<Message, MessageError> {
    let content = MessageError::Content(kind::LINK);
    let meta = Meta::parse(payload, kind::LINK)?;
    let length = usize::from(payload.try_get_u8().map_err(|_| content)?);
    if payload.len() < length {
        return Err(content);
    }
    let name = own_name(&payload.split_to(length))?;
    let target = std::mem::take(payload);
    let is_path = !target.is_empty() && target.len() <= LONGEST_PATH && !target.contains(&0);
    is_path
        .then_some(Message::Link { meta, name, target })
        .ok_or(content)
}

fn problem(payload: &mut Bytes) -> Result<Message, MessageError> {
    let content = MessageError::Content(kind::PROBLEM);
    let problem = match payload.try_get_u8().map_err(|_| content)? {
        0 => ProblemKind::Failed,
        1 => ProblemKind::Skipped,
        _ => return Err(content),
    };
    let length = usize::from(payload.try_get_u16().map_err(|_| content)?);
    if payload.len() < length || length > LONGEST_PATH {
        return Err(content);
    }
    let path = payload.split_to(length);
    Ok(Message::Problem(problem, path, text(payload, content)?))
}

fn want(payload: &mut Bytes) -> Result<Message, MessageError> {
    let content = MessageError::Content(kind::WANT);
    let entry = payload.try_get_u64().map_err(|_| content)?;
    if payload.is_empty() {
        return Ok(Message::Want(entry, None));
    }
    let offset = payload.try_get_u64().map_err(|_| content)?;
    let digest = digest(payload).ok_or(content)?;
    Ok(Message::Want(entry, Some((offset, digest))))
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok().map(Digest)
}

/// A copy: a name is kept for long, and is not to keep the buffer that it came in.
fn own_name(bytes: &[u8]) -> Result<Name, NameError> {
    Name::new(Bytes::copy_from_slice(bytes))
}

fn optional_name(bytes: &[u8]) -> Result<Option<Name>, NameError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    own_name(bytes).map(Some)
}

fn name_bytes(name: Option<&Name>) -> &[u8] {
    name.map(Name::as_bytes).unwrap_or_default()
}

fn text(bytes: &[u8], error: MessageError) -> Result<String, MessageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| error)?;
    (text.len() <= LONGEST_TEXT)
        .then(|| text.to_owned())
        .ok_or(error)
}

/// As much of a text as a message takes, in whole characters.
fn cut(text: &str) -> &[u8] {
    let end = (0..=text.len().min(LONGEST_TEXT))
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<Message>, MessageError> {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
        decoder.finish()?;
        Ok(messages)
    }

    fn bytes_of(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        bytes
    }

    fn raw(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.put_u32(u32::try_from(payload.len()).unwrap());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn meta() -> impl Strategy<Value = Meta> {
        (0..=0o7777_u32, any::<i64>(), 0..NANOSECONDS).prop_map(|(mode, seconds, nanoseconds)| {
            Meta {
                mode,
                seconds,
                nanoseconds,
            }
        })
    }

    fn name() -> impl Strategy<Value = Name> {
        proptest::collection::vec(any::<u8>(), 1..=LONGEST_NAME)
            .prop_filter_map("a name", |bytes| Name::new(bytes).ok())
    }

    fn message() -> impl Strategy<Value = Message> {
        let digest = any::<[u8; DIGEST_LEN]>().prop_map(Digest);
        let path = proptest::collection::vec(1..=u8::MAX, 1..64).prop_map(Bytes::from);
        prop_oneof![
            any::<(u32, [bool; 4])>().prop_map(|(version, flags)| Message::Hello(Hello {
                version,
                recursive: flags[0],
                preserve: flags[1],
                into_directory: flags[2],
                totals: flags[3],
            })),
            ".{0,40}".prop_map(Message::Fatal),
            (meta(), proptest::option::of(name()))
                .prop_map(|(meta, name)| { Message::Enter(meta, name) }),
            Just(Message::Leave),
            (
                meta(),
                proptest::option::of(0..NO_SIZE),
                proptest::option::of(name())
            )
                .prop_map(|(meta, size, name)| Message::File { meta, size, name }),
            (meta(), name(), path.clone()).prop_map(|(meta, name, target)| Message::Link {
                meta,
                name,
                target
            }),
            (any::<bool>(), path, ".{0,40}").prop_map(|(is_skipped, path, why)| {
                let kind = if is_skipped {
                    ProblemKind::Skipped
                } else {
                    ProblemKind::Failed
                };
                Message::Problem(kind, path, why)
            }),
            any::<(u64, u64)>().prop_map(|(files, bytes)| Message::Total(files, bytes)),
            any::<(u64, u64)>().prop_map(|(entry, offset)| Message::Start(entry, offset)),
            proptest::collection::vec(any::<u8>(), 1..64)
                .prop_map(|data| Message::Data(data.into())),
            digest.clone().prop_map(Message::End),
            (any::<u64>(), ".{0,40}").prop_map(|(entry, why)| Message::Abort(entry, why)),
            Just(Message::Finish),
            (any::<u64>(), proptest::option::of((any::<u64>(), digest)))
                .prop_map(|(entry, held)| Message::Want(entry, held)),
            any::<u64>().prop_map(Message::Done),
            (any::<u64>(), ".{0,40}").prop_map(|(entry, why)| Message::Failed(entry, why)),
            Just(Message::Finished),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            messages in proptest::collection::vec(message(), 0..8),
            cut in 1_usize..40,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(bytes_of).collect();
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.buffer().extend_from_slice(piece);
                while let Some(message) = decoder.next_message().unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(messages) = decoded(&bytes) {
                let again: Vec<u8> = messages.iter().flat_map(bytes_of).collect();
                prop_assert_eq!(decoded(&again).unwrap(), messages);
            }
        }
    }

    #[test]
    fn names_never_lead_out_of_their_directory() {
        for name in [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "/etc/passwd",
            "../x",
            "a\0b",
            &"x".repeat(256),
        ] {
            assert_eq!(Name::new(name.to_owned()), Err(NameError), "{name:?}");
        }
        for name in ["...", "..a", "a..", " ", "-rf", "\n", &"x".repeat(255)] {
            assert!(Name::new(name.to_owned()).is_ok(), "{name:?}");
        }
        let hostile = [&[0; META_LEN][..], b".."].concat();
        assert_eq!(
            decoded(&raw(kind::ENTER, &hostile)),
            Err(MessageError::Name(NameError))
        );
        let hostile = [
            &[0; META_LEN][..],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            b"../../etc/passwd",
        ]
        .concat();
        assert_eq!(
            decoded(&raw(kind::FILE, &hostile)),
            Err(MessageError::Name(NameError))
        );
        let hostile = [&[0; META_LEN][..], &[3], b"a/btarget"].concat();
        assert_eq!(
            decoded(&raw(kind::LINK, &hostile)),
            Err(MessageError::Name(NameError))
        );
    }

    #[test]
    fn too_long_and_too_short_is_refused_before_it_is_waited_for() {
        let mut head = vec![kind::DATA];
        head.put_u32(u32::MAX);
        assert_eq!(
            decoded(&head),
            Err(MessageError::Length(kind::DATA, u32::MAX as usize))
        );
        for (kind, length) in [
            (kind::DATA, 0),
            (kind::DATA, LARGEST_DATA + 1),
            (kind::END, 31),
            (kind::LEAVE, 1),
            (kind::DONE, 7),
            (kind::FILE, META_LEN),
            (kind::FATAL, LONGEST_TEXT + 1),
        ] {
            assert_eq!(
                decoded(&raw(kind, &vec![0; length])),
                Err(MessageError::Length(kind, length))
            );
        }
        let whole = bytes_of(&Message::Done(7));
        for end in 1..whole.len() {
            assert_eq!(decoded(&whole[..end]), Err(MessageError::Truncated));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let content = |kind| Err(MessageError::Content(kind));
        assert_eq!(decoded(&raw(0x7f, b"")), Err(MessageError::Kind(0x7f)));
        assert_eq!(decoded(&raw(kind::HELLO, b"{")), content(kind::HELLO));
        assert_eq!(decoded(&raw(kind::FATAL, b"\xff")), content(kind::FATAL));
        assert_eq!(decoded(&raw(kind::WANT, &[0; 20])), content(kind::WANT));
        let mode = [&[0, 1, 0, 0][..], &[0; 12]].concat();
        assert_eq!(decoded(&raw(kind::ENTER, &mode)), content(kind::ENTER));
        let nanoseconds = [&[0; 12][..], &[0xff; 4]].concat();
        assert_eq!(
            decoded(&raw(kind::ENTER, &nanoseconds)),
            content(kind::ENTER)
        );
        let no_target = [&[0; META_LEN][..], &[2], b"ab"].concat();
        assert_eq!(
            decoded(&raw(kind::LINK, &no_target)),
            Err(MessageError::Length(kind::LINK, META_LEN + 3)).or(content(kind::LINK))
        );
        assert_eq!(
            decoded(&raw(kind::PROBLEM, &[0, 0, 9, 1])),
            content(kind::PROBLEM)
        );
        assert_eq!(
            decoded(&raw(kind::PROBLEM, &[7, 0, 0])),
            content(kind::PROBLEM)
        );
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let long = "é".repeat(LONGEST_TEXT);
        let Ok([Message::Fatal(text)]) = decoded(&bytes_of(&Message::Fatal(long)))
            .as_deref()
            .map(|messages| <[Message; 1]>::try_from(messages.to_vec()).unwrap())
        else {
            panic!("not one message");
        };
        assert_eq!(text.len(), LONGEST_TEXT);
    }

    #[test]
    fn a_newer_peers_hello_is_understood() {
        let hello = decoded(&raw(kind::HELLO, br#"{"Version":2,"New":[1]}"#)).unwrap();
        let expected = Hello {
            version: 2,
            ..Hello::default()
        };
        assert_eq!(hello, [Message::Hello(expected)]);
    }
}
