//! What the channel's task lets those know who make messages of their own: how far it has come, and how
//! much a message should hold.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Told by the task at each turn. Whoever reads it may be a turn late.
#[derive(Debug)]
pub(super) struct Sending {
    is_delivered: AtomicBool,
    portion: AtomicUsize,
}

/// A channel that was given nothing.
impl Default for Sending {
    fn default() -> Self {
        Self {
            is_delivered: AtomicBool::new(true),
            portion: AtomicUsize::new(1),
        }
    }
}

impl Sending {
    pub(super) fn note(&self, is_delivered: bool, portion: usize) {
        self.is_delivered.store(is_delivered, Ordering::Relaxed);
        self.portion.store(portion, Ordering::Relaxed);
    }

    /// Whether the other end has acknowledged all that the channel has taken.
    pub(super) fn is_delivered(&self) -> bool {
        self.is_delivered.load(Ordering::Relaxed)
    }

    /// Bytes that one message should have at most.
    pub(super) fn portion(&self) -> usize {
        self.portion.load(Ordering::Relaxed)
    }
}
