//! What the server stores and signals through, as traits: [`State`] for rows, [`Signals`] for hints.
//! The in-process signal bus and the contract suites that every adapter must pass are here too.
//! Knows no engine.
//!
//! Signals are hints, rows are the truth: whoever hears a signal reads the row; whoever misses one
//! finds the row at its next look.

pub mod contract;
mod documents;
mod identities;
mod rows;
mod signals;
mod state;

pub use documents::{Document, DocumentVersion, DocumentVersionKey, ServiceSetting};
pub use identities::{
    AccessKey, Grants, Group, Identities, Identity, IdentityKind, IdentityUse, LoginProfile,
    ManagedPolicy, MfaDevice, PolicyVersion, Role, User,
};
pub use rows::{
    Activation, Installation, Node, NodeInfo, NodeState, PingStatus, Session, SessionState,
    TaggedResource, TrailEntry,
};
pub use signals::{LocalSignals, Signal, Signals};
pub use state::{
    ActivationUse, Change, Commit, Conflict, SessionPatch, SessionQuery, State, StoreError,
    TrailAttribute, TrailQuery,
};
