//! iam: the wire forms of users, groups, roles, policies, keys and devices.

mod attachments;
mod boundaries;
mod convert;
mod inline;
mod overview;
mod policies;
mod roles;
mod simulate;
