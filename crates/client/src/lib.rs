//! Signed API client and data channel: what a program needs to open sessions.
//!
//! [`ClientConfig`] finds settings and credentials where every AWS tool finds them, [`Api`] calls
//! operations, [`DataChannel`] joins a session. Works against Sortie and against AWS. Knows no
//! terminal and prints nothing.

mod api;
mod backoff;
mod clock;
mod config;
mod credentials;
pub mod data_channel;
mod environment;
mod ini;
mod tls;

pub use api::{Api, ApiError, CallError};
pub use config::{ClientConfig, ConfigError, Overrides};
pub use credentials::{AssumeRole, CredentialSource, CredentialsError};
pub use data_channel::{DataChannel, StartedSession};
pub use environment::Environment;
pub use tls::{Tls, TlsError};
