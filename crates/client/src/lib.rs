//! Signed API client and data channel: what a program needs to open sessions.
//!
//! [`ClientConfig`] finds settings and credentials where every AWS tool finds them, [`Api`] calls
//! operations, [`DataChannel`] joins a session, [`PortSession`] carries the byte streams of one of
//! ports. Works against Sortie and against AWS. Knows no terminal and prints nothing.

mod api;
mod assume_role;
mod backoff;
mod clock;
mod config;
mod credentials;
mod credentials_file;
pub mod data_channel;
mod environment;
mod ini;
pub mod ports;
mod private_file;
mod tls;
mod transport;

pub use api::Api;
pub use config::{ClientConfig, ConfigError, Overrides};
pub use credentials::{AssumeRole, CredentialSource, CredentialsError, MfaPrompt};
pub use credentials_file::{SignInPlace, SignedIn};
pub use data_channel::{DataChannel, StartedSession};
pub use environment::Environment;
pub use ports::PortSession;
pub use tls::{Tls, TlsError};
pub use transport::{ApiError, CallError};
