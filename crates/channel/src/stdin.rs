//! How far a client may be ahead with a command's standard input where [`crate::features::STDIN`] is
//! agreed. Pure.
//!
//! The stream to the node is one and in order, so a signal cannot overtake input that the node has
//! not taken. The node therefore takes everything at once, and the client sends no more than the node
//! has promised to hold: [`WINDOW`] bytes at first, and then as much in total as the last
//! [`crate::frame::PayloadType::STDIN_CREDIT`] says.

use bytes::Bytes;

/// Bytes of standard input that a client may send before it was told more, and that a node holds for a
/// command that does not read.
pub const WINDOW: u64 = 2 << 20;

/// The node's side: what the client was promised.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    taken: u64,
    promised: u64,
}

impl Default for Promise {
    fn default() -> Self {
        Self {
            taken: 0,
            promised: WINDOW,
        }
    }
}

impl Promise {
    /// Nothing was taken yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The command has taken so many more bytes. What comes back is to be sent as
    /// [`crate::frame::PayloadType::STDIN_CREDIT`]: rarely, and always before the client has to wait.
    #[must_use = "without it the client stops"]
    pub fn taken(&mut self, bytes: usize) -> Option<Bytes> {
        self.taken = self.taken.saturating_add(bytes as u64);
        let promise = self.taken.saturating_add(WINDOW);
        if promise - self.promised < WINDOW / 4 {
            return None;
        }
        self.promised = promise;
        Some(Bytes::copy_from_slice(&promise.to_be_bytes()))
    }

    /// Whether a client that has sent so many bytes in all keeps to what it was promised.
    #[must_use]
    pub fn covers(&self, sent: u64) -> bool {
        sent <= self.promised
    }
}

/// The client's side: what may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    sent: u64,
    allowed: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            sent: 0,
            allowed: WINDOW,
        }
    }
}

impl Allowance {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes may be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        usize::try_from(self.allowed.saturating_sub(self.sent)).unwrap_or(usize::MAX)
    }

    /// So many bytes were sent.
    pub fn spend(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// The node's message. It never takes back what it has promised; anything but eight bytes says
    /// nothing.
    pub fn take_credit(&mut self, payload: &[u8]) {
        if let Ok(bytes) = <[u8; 8]>::try_from(payload) {
            self.allowed = self.allowed.max(u64::from_be_bytes(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_goes_on_as_the_command_reads_and_is_never_further_ahead() {
        let (mut node, mut client) = (Promise::new(), Allowance::new());
        let (mut sent, mut read, mut messages) = (0u64, 0u64, 0);
        while sent < 100 * WINDOW {
            let piece = client.room().min(70_001);
            client.spend(piece);
            sent += piece as u64;
            assert!(node.covers(sent) && sent - read <= WINDOW);
            let step = (sent - read).min(50_003);
            read += step;
            if let Some(credit) = node.taken(step as usize) {
                client.take_credit(&credit);
                messages += 1;
            }
        }
        assert!(messages <= 400, "{messages}");
    }

    #[test]
    fn nonsense_and_old_credits_change_nothing() {
        let mut client = Allowance::new();
        client.take_credit(b"");
        client.take_credit(&[0xff; 7]);
        client.take_credit(&5u64.to_be_bytes());
        assert_eq!(client.room() as u64, WINDOW);
        client.spend(3 << 20);
        assert_eq!(client.room(), 0);
        client.take_credit(&[0xff; 8]);
        assert!(client.room() > 1 << 40);
    }

    #[test]
    fn a_client_that_overruns_is_seen() {
        let node = Promise::new();
        assert!(node.covers(WINDOW) && !node.covers(WINDOW + 1));
    }
}
