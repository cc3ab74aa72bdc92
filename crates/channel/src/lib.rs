//! Frames, handshake and the reliability machine of the Session Manager data channel, without IO.
//!
//! Bytes and a time go in, frames and a deadline come out. One implementation serves the gateway,
//! the agent, the client and the fuzzers. No socket, clock or randomness is touched here: time is a
//! [`sortie_types::Now`], randomness a seed given at construction.

pub mod body;
pub mod control;
pub mod copy;
pub mod features;
pub mod frame;
pub mod handshake;
pub mod link;
mod random;
pub mod service;
pub mod smux;
pub mod stdin;
pub mod streams;
pub mod timer;
pub mod version;
