//! IAM's policy language: policy documents are read and checked here, requests are decided by them,
//! and a decision can be explained.
//!
//! Pure: no clock, no IO, nothing stored. Who the caller is, which policies are attached to whom, and
//! what the condition keys of a request hold is found out elsewhere and handed in. One rule of thumb
//! settles what IAM leaves open: an Allow whose meaning is unclear does not apply, a Deny whose
//! meaning is unclear does.
//!
//! ```
//! use std::sync::Arc;
//! use sortie_iam::{
//!     Context, NamedPolicy, Outcome, Policies, Policy, PolicyKind, PolicySource, Principal, Request,
//!     Resource, decide,
//! };
//!
//! let text = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
//!     "Action": "ssm:TerminateSession", "Resource": "arn:aws:ssm:*:*:session/${aws:username}-*"}}"#;
//! let identity = [NamedPolicy {
//!     source: PolicySource::Unnamed { position: 1 },
//!     policy: Arc::new(Policy::parse(text, PolicyKind::Identity)?),
//! }];
//! let principal = Principal::user("arn:aws:iam::111122223333:user/alice", "AIDAALICE");
//! let context = Context::new().with("aws:username", "alice");
//! let request = Request {
//!     principal: &principal,
//!     action: "ssm:TerminateSession",
//!     resource: Resource::new("arn:aws:ssm:local-1:111122223333:session/alice-0123456789abcdef0"),
//!     context: &context,
//!     account: "111122223333",
//! };
//! let policies = Policies { identity: &identity, ..Policies::default() };
//! assert_eq!(decide(&request, &policies).outcome, Outcome::Allowed);
//! # Ok::<(), sortie_iam::PolicyError>(())
//! ```

mod arn;
pub mod case;
mod condition;
mod context;
mod decide;
mod error;
mod explain;
mod json;
pub mod managed;
mod parse;
mod pattern;
mod policy;
mod principal;
mod template;
mod value;
mod word;

pub use context::Context;
pub use decide::{
    Decision, NamedPolicy, Outcome, Policies, PolicySource, Request, Resource, decide, decide_all,
    explain, explain_all,
};
pub use error::{PolicyError, Problem, Quota, document_size};
pub use explain::{Explanation, FailedCondition, Miss, NearMiss, PolicyType, Reason, StatementRef};
pub use pattern::wildcard_matches;
pub use policy::{Effect, NamedPrincipal, Policy, PolicyKind, Version};
pub use principal::{ParsePrincipalError, Principal};
