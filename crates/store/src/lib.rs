//! State on SQLite: [`SqliteState`] keeps the rows of `sortie-ports` in one file.
//!
//! The file belongs to one process at a time. All changes go through one writer, which commits
//! together whatever waits and answers when it is on stable storage; readers work beside it. The
//! schema only goes forward, and a database of a newer program is refused. Holds no rule about who
//! may do what.

mod apply;
mod decode;
mod migrate;
mod place;
mod read;
mod revision;
mod sql;
mod sqlite;
mod writer;

pub use migrate::MigrateError;
pub use place::PlaceError;
pub use sqlite::{OpenError, SqliteState};
