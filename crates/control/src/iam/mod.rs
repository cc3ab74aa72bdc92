//! The operations of IAM: users, groups, roles, policies, keys, passwords and MFA devices. Each is a
//! pure edit of the [`crate::directory`] of one revision, which says what rows change and what the
//! trail shows, and a method of [`Control`](crate::Control), which asks for leave, runs the edit on
//! the newest directory and commits what comes of it; how a call is authorised is in
//! [`crate::authorize`].

pub(crate) mod ask;
pub(crate) mod attachments;
pub(crate) mod aws_policies;
pub(crate) mod boundaries;
pub(crate) mod document;
pub(crate) mod entity;
pub(crate) mod error;
pub(crate) mod groups;
pub(crate) mod inline;
pub(crate) mod keys;
pub(crate) mod login_profiles;
pub(crate) mod mfa;
pub(crate) mod overview;
pub(crate) mod page;
pub(crate) mod policies;
mod qr_png;
pub(crate) mod roles;
pub(crate) mod simulate;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod trust;
pub(crate) mod users;
