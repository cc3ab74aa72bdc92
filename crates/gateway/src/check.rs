//! Which frames may pass, and in which direction. Pure.
//!
//! Official peers run everything they receive through one parser which panics on what it does not
//! expect, and a peer whose reader panicked hangs for good. So nothing passes whose header was not
//! checked ([`Frame::parse`]) and whose type does not belong to its direction.

use sortie_channel::frame::{Frame, MessageType, PayloadType};
use sortie_control::Side;

/// Nonce and tag: an encrypted payload is never shorter. Official decryptors panic on less than the
/// nonce.
const SEALED_OVERHEAD: usize = 28;

/// What to do with a checked frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Numbered data for the other end.
    Stream,
    /// An acknowledgement for the other end.
    Acknowledge,
    /// The node's state, for the gateway alone.
    SessionState,
    /// Nobody should see it.
    Drop,
}

/// Judges a frame that came from `from`. `encrypted`: this session's data is encrypted.
pub(crate) fn judge(from: Side, frame: &Frame, encrypted: bool) -> Verdict {
    match (from, frame.message_type()) {
        (Side::Client, MessageType::InputStreamData)
        | (Side::Node, MessageType::OutputStreamData) => {
            if encrypted && is_sealed_type(from, frame.payload_type()) && too_short(frame) {
                Verdict::Drop
            } else {
                Verdict::Stream
            }
        }
        (_, MessageType::Acknowledge) => Verdict::Acknowledge,
        (Side::Node, MessageType::AgentSessionState) => Verdict::SessionState,
        _ => Verdict::Drop,
    }
}

fn is_sealed_type(from: Side, payload_type: PayloadType) -> bool {
    match payload_type {
        PayloadType::OUTPUT => true,
        PayloadType::STDERR | PayloadType::EXIT_CODE => from == Side::Node,
        _ => false,
    }
}

fn too_short(frame: &Frame) -> bool {
    frame.payload().len() < SEALED_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing::testing::frame;

    #[test]
    fn only_the_types_of_a_direction_pass() {
        use MessageType as T;
        let table = [
            (T::InputStreamData, Verdict::Stream, Verdict::Drop),
            (T::OutputStreamData, Verdict::Drop, Verdict::Stream),
            (T::Acknowledge, Verdict::Acknowledge, Verdict::Acknowledge),
            (T::AgentSessionState, Verdict::Drop, Verdict::SessionState),
            (T::ChannelClosed, Verdict::Drop, Verdict::Drop),
            (T::StartPublication, Verdict::Drop, Verdict::Drop),
            (T::PausePublication, Verdict::Drop, Verdict::Drop),
            (T::InteractiveShell, Verdict::Drop, Verdict::Drop),
            (T::SortieFeatures, Verdict::Drop, Verdict::Drop),
            (T::Other("novelty".into()), Verdict::Drop, Verdict::Drop),
        ];
        for (message_type, client, node) in table {
            let frame = frame(message_type.clone(), 0, PayloadType::OUTPUT, b"x");
            assert_eq!(judge(Side::Client, &frame, false), client, "{message_type}");
            assert_eq!(judge(Side::Node, &frame, false), node, "{message_type}");
        }
    }

    #[test]
    fn payloads_that_a_decryptor_would_panic_on_are_dropped_once_encryption_is_on() {
        let table = [
            (PayloadType::OUTPUT, 27, Verdict::Drop),
            (PayloadType::OUTPUT, 28, Verdict::Stream),
            (PayloadType::STDERR, 3, Verdict::Drop),
            (PayloadType::EXIT_CODE, 12, Verdict::Drop),
            (PayloadType::HANDSHAKE_COMPLETE, 5, Verdict::Stream),
        ];
        for (payload_type, length, verdict) in table {
            let frame = frame(
                MessageType::OutputStreamData,
                0,
                payload_type,
                &vec![7; length],
            );
            assert_eq!(judge(Side::Node, &frame, true), verdict);
            assert_eq!(judge(Side::Node, &frame, false), Verdict::Stream);
        }
        let size = frame(MessageType::InputStreamData, 0, PayloadType::SIZE, b"{}");
        assert_eq!(judge(Side::Client, &size, true), Verdict::Stream);
    }
}
