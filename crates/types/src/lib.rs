//! The nouns that every part of Sortie shares: identifiers, ARNs, names, tags, secrets and points
//! in time. Parsing is validation: a value that exists is well formed.
//!
//! Knows no IO, no clock and no randomness; whoever mints an identifier brings the random bytes.

mod arn;
mod id;
mod now;
mod secret;
mod tag;
mod time;

pub use arn::{Arn, ParseArnError};
pub use id::{
    AccessKeyId, AccountId, ActivationId, NodeId, ParseIdError, Region, SessionId, UniqueId,
    UniqueIdKind, UserName,
};
pub use now::Now;
pub use secret::Secret;
pub use tag::{InvalidTag, Tag};
pub use time::{ParseTimestampError, Timestamp};
