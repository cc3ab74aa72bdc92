//! What an outsider can check later. For now: the audit record of one API call or service event,
//! in CloudTrail's form. Pure: no IO, no clock, no randomness.

mod record;

pub use record::{
    AuditRecord, Category, Failure, HIDDEN, Resource, SessionAttributes, SessionIssuer,
    UserIdentity,
};
