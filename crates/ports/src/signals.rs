//! Hints between control and gateway, and the bus that carries them inside one process.

use sortie_types::{NodeId, SessionId};
use tokio::sync::broadcast;

/// Something may have changed: read the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The tags of a document changed: who may start sessions of it is another.
    Documents,
    /// Users, groups, roles, policies, keys or devices changed: what callers may do is another.
    Identities,
    /// The node's row changed: deregistered, or its role is another.
    Node(NodeId),
    /// The session's row changed: told to end, or resumed.
    Session(SessionId),
}

/// Carries hints to everyone who listens. Delivery is best effort.
pub trait Signals: Send + Sync {
    /// Tells everyone.
    fn publish(&self, signal: Signal);

    /// Listens from now on. A receiver that lags must look at all its rows again.
    fn subscribe(&self) -> broadcast::Receiver<Signal>;
}

/// Signals within one process.
#[derive(Debug)]
pub struct LocalSignals {
    sender: broadcast::Sender<Signal>,
}

impl LocalSignals {
    /// How many signals a slow listener may be behind before it has to look at all rows.
    const CAPACITY: usize = 1024;
}

impl Default for LocalSignals {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(Self::CAPACITY),
        }
    }
}

impl Signals for LocalSignals {
    fn publish(&self, signal: Signal) {
        // An error only says that nobody listens.
        let _ = self.sender.send(signal);
    }

    fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.sender.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};

    use super::*;

    fn node(number: u8) -> Signal {
        Signal::Node(NodeId::from_random([number; 9]))
    }

    #[tokio::test]
    async fn everyone_who_listens_hears_everything_in_order() {
        let signals = LocalSignals::default();
        let (mut first, mut second) = (signals.subscribe(), signals.subscribe());
        let session = Signal::Session(SessionId::from_random("alice", [1; 9]));
        signals.publish(node(1));
        signals.publish(session.clone());
        for listener in [&mut first, &mut second] {
            assert_eq!(listener.recv().await, Ok(node(1)));
            assert_eq!(listener.recv().await, Ok(session.clone()));
        }
    }

    #[test]
    fn nobody_hears_what_was_said_before() {
        let signals = LocalSignals::default();
        signals.publish(node(1));
        let mut late = signals.subscribe();
        assert_eq!(late.try_recv(), Err(TryRecvError::Empty));
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_that_it_missed_some_and_goes_on() {
        let signals = LocalSignals::default();
        let mut slow = signals.subscribe();
        for _ in 0..=LocalSignals::CAPACITY {
            signals.publish(node(1));
        }
        signals.publish(node(2));
        assert_eq!(slow.recv().await, Err(RecvError::Lagged(2)));
        let mut last = None;
        while let Ok(signal) = slow.try_recv() {
            last = Some(signal);
        }
        assert_eq!(last, Some(node(2)));
    }
}
