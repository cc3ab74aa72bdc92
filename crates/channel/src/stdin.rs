//! How much of a command's standard input may be under way, where the feature `stdin` is agreed.
//!
//! A message behind standard input that the command does not read would wait with it. So the node takes
//! [`WINDOW`] bytes of it whatever the command does and says how much was read, and a client that sends
//! no more than that gets its signals through.

use bytes::Bytes;

/// Bytes of standard input that a client may have sent beyond what the node last said was taken.
pub const WINDOW: usize = 1 << 20;

/// How many more bytes have to be taken before the node says so again.
pub const TAKEN_STEP: u64 = WINDOW as u64 / 4;

/// The payload of a [`crate::frame::PayloadType::STDIN_TAKEN`] message: the command has taken so many bytes
/// since it started.
#[must_use]
pub fn taken(bytes: u64) -> Bytes {
    Bytes::copy_from_slice(&bytes.to_be_bytes())
}

/// Reads the payload of such a message.
#[must_use]
pub fn parse_taken(payload: &[u8]) -> Option<u64> {
    payload.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_eight_bytes() {
        assert_eq!(taken(258), [0u8, 0, 0, 0, 0, 0, 1, 2].as_slice());
        for bytes in [0, 1, u64::MAX] {
            assert_eq!(parse_taken(&taken(bytes)), Some(bytes));
        }
        for wrong in [&[][..], &[0; 7], &[0; 9]] {
            assert_eq!(parse_taken(wrong), None);
        }
    }
}
