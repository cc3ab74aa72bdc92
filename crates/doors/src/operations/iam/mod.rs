//! iam: the wire forms of users, groups, roles, policies, keys and devices.

mod attachments;
mod boundaries;
mod convert;
mod groups;
mod inline;
mod keys;
mod login_profiles;
mod mfa;
mod overview;
mod policies;
mod roles;
mod simulate;
mod users;
