//! The life of a session, as a pure table:
//!
//! ```text
//! Connecting ──► Connected ◄──► Disconnected
//!     │              │               │
//!     └──────────────┴───────────────┴──► Terminating ──► Terminated | Failed
//!                     (each of the three also directly to Terminated | Failed)
//! ```

use sortie_ports::SessionState;

/// What a wanted state means for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It moves.
    Move,
    /// Its life has no such move.
    Refused,
    /// It is there already.
    Stay,
}

/// Every state, in the order of a life.
pub(crate) const STATES: [SessionState; 6] = [
    SessionState::Connecting,
    SessionState::Connected,
    SessionState::Disconnected,
    SessionState::Terminating,
    SessionState::Terminated,
    SessionState::Failed,
];

/// The states in which a session lives and may be told to end.
pub(crate) const LIVING: [SessionState; 3] = [
    SessionState::Connecting,
    SessionState::Connected,
    SessionState::Disconnected,
];

/// Whether a session in `from` moves when `to` is wanted.
pub(crate) fn step(from: SessionState, to: SessionState) -> Step {
    use SessionState::{Connected, Connecting, Disconnected, Failed, Terminated, Terminating};
    match (from, to) {
        _ if from == to => Step::Stay,
        (Terminated | Failed, _) | (_, Connecting) => Step::Refused,
        (_, Terminated | Failed) => Step::Move,
        (Terminating, _) => Step::Refused,
        (Connecting | Connected | Disconnected, Connected | Disconnected | Terminating) => {
            Step::Move
        }
    }
}

/// The states from which a session moves to `to`: the condition of the change.
pub(crate) fn origins(to: SessionState) -> Vec<SessionState> {
    STATES
        .into_iter()
        .filter(|from| step(*from, to) == Step::Move)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        use Step::{Move as M, Refused as R, Stay as S};
        // Rows and columns in the order of STATES.
        let table = [
            [S, M, M, M, M, M],
            [R, S, M, M, M, M],
            [R, M, S, M, M, M],
            [R, R, R, S, M, M],
            [R, R, R, R, S, R],
            [R, R, R, R, R, S],
        ];
        for (from, row) in STATES.into_iter().zip(table) {
            for (to, wanted) in STATES.into_iter().zip(row) {
                assert_eq!(
                    step(from, to),
                    wanted,
                    "{} to {}",
                    from.as_str(),
                    to.as_str()
                );
            }
        }
    }

    #[test]
    fn whatever_is_over_stays_over() {
        for over in STATES.into_iter().filter(|state| state.is_over()) {
            assert!(STATES.into_iter().all(|to| step(over, to) != Step::Move));
        }
    }

    #[test]
    fn only_living_sessions_can_be_told_to_end() {
        assert_eq!(origins(SessionState::Terminating), LIVING);
        assert!(origins(SessionState::Connecting).is_empty());
    }
}
