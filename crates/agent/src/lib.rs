//! The node agent: enrols a machine, keeps it reachable, and runs the sessions that the server starts
//! on it. It only ever dials out.
//!
//! [`register`] trades an activation for a node id; [`run`] is the agent itself, which any program can
//! host; [`worker`] is what each session runs as, a process of its own.
//!
//! Nothing here knows the server's side. Protocol rules are in `sortie-channel` and `sortie-wire`; what
//! depends on the operating system is in `os`.

mod api;
mod backoff;
mod clock;
mod control;
mod data_dir;
mod document;
mod endpoint;
mod identity;
mod key;
pub mod log;
mod os;
mod register;
mod registration;
mod report;
mod run;
pub mod service;
mod sessions;
mod socket;
mod task_result;
mod trust;
pub mod worker;

pub use api::CallError;
pub use endpoint::{Endpoint, EndpointError};
pub use key::KeyError;
pub use register::{RegisterError, RegisterOptions, register};
pub use registration::{Registration, RegistrationError};
pub use run::{RunError, RunOptions, run};
pub use trust::TrustError;

/// The agent's directory where none is given: `/var/lib/sortie` for root, else under the account's
/// state directory. `None` when the account has neither a state nor a home directory.
#[must_use]
pub fn default_data_dir() -> Option<std::path::PathBuf> {
    if os::is_root() {
        return Some("/var/lib/sortie".into());
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(std::path::PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("sortie-agent"))
}
