//! The server program as a library: reads the configuration, makes or loads keys and certificates,
//! opens the store, wires control, gateway and doors together, listens, and drains. Only this crate
//! names adapters. Nothing of what the server does for its callers is here.

mod burst;
pub mod config;
pub mod descriptors;
pub mod dev;
mod files;
mod listener;
pub mod log;
mod root_key;
mod serve;
mod tls;

pub use files::FileError;
pub use root_key::RootKeyError;
pub use serve::{Administrator, Running, StartError, start};
pub use tls::{TlsError, install_crypto_provider};
