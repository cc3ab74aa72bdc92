//! What whole-product tests are made of: an installation in processes of its own, terminals that a
//! test types on, other people's programs, and waits for a state with a bound.
//!
//! Used by tests only; production code must not depend on it.

mod authenticator;
mod closed_port;
mod installation;
mod machine;
mod peers;
mod proxy;
mod talk;
mod terminal;
mod wait;

pub use authenticator::Authenticator;
pub use closed_port::ClosedPort;
pub use installation::{Agent, Installation, Server, program};
pub use machine::{Machine, Setup, can_make_machines};
pub use peers::{
    Peer, announce, ansible_playbook, aws, node_modules, official_agent, official_plugin,
    pyssm_python, python, skip,
};
pub use proxy::Proxy;
pub use talk::{Manner, Talk};
pub use terminal::Terminal;
pub use wait::{PATIENCE, wait_for};
