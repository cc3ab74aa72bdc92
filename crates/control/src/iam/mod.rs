//! The operations of IAM: users, groups, roles, policies, keys, passwords and MFA devices. Each reads
//! or edits the [`crate::directory`] of one revision; how a call is authorised is in
//! [`crate::authorize`].

mod error;

pub use error::IamError;
