//! Live channels: the websockets of nodes and clients, paired, relayed, limited and ended.
//!
//! A node keeps one *control channel* open; through it sessions are started and ended. Each session
//! has two *data channels*, one from the client and one from the node, and one task that owns both
//! and passes frames from the one to the other, in order and byte for byte. Reliability is end to
//! end between the two peers; the gateway adds only the cures without which official peers hang
//! or kill each other.
//!
//! What is decided is decided in plain structs without IO, with the time as an argument: `pairing`
//! (what passes between two ends), `idle` (how long a session may live), `life` (how it starts
//! and ends), `course` (one session's steps, made of those three), `clones` (two machines with one
//! identity). The tasks around them (`session`, `node`) move bytes. Who may do what, and every row, is `sortie-control`'s; upgrading HTTP
//! requests is the doors'.
//!
//! No payload is looked into, with three exceptions: acknowledgements, which the cures need, the
//! eight bytes that tell a bare keep-alive of a forwarded port from use, and what opens a stream between
//! our ends (`streams`), which may name a destination that has to be authorised. Payloads and tokens
//! are never logged.

mod check;
mod clock;
mod clones;
mod course;
mod gateway;
mod hold;
mod idle;
mod kind;
mod life;
mod node;
mod numbers;
mod options;
mod outbox;
mod pairing;
mod publication;
mod session;
#[cfg(test)]
mod simulation;
mod socket;
mod spool;
mod streams;

pub use gateway::{Gateway, GatewayTask, Peer};
pub use options::Options;
pub use socket::{Io, Metered, Socket};
