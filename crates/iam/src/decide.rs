//! The order of evaluation: an explicit Deny anywhere, then everything that has to allow.
//!
//! For one action on one resource: account-wide policies must allow; a resource policy of the same
//! account that names the caller allows alone; otherwise the caller's identity policies must allow,
//! and their boundary and session policy with them. Across accounts both sides must allow. A role's
//! trust policy and a key's policy must allow in any case.

use std::{fmt, sync::Arc};

use crate::{
    Context, Policy, PolicyKind, Principal,
    arn::{ArnParts, Named},
    context::Facts,
    explain::{Explanation, PolicyType, Reason, StatementRef, near_misses},
    policy::{Action, Effect, Hit, Question},
    principal::Grade,
    word::WordRef,
};

/// A policy and where it comes from.
#[derive(Clone, Debug)]
pub struct NamedPolicy {
    /// For explanations.
    pub source: PolicySource,
    /// Shared, because policies are read once and used by many requests.
    pub policy: Arc<Policy>,
}

/// Where a policy comes from; decides nothing, and is shown in explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// The permissions boundary of the caller.
    Boundary {
        /// The managed policy that is the boundary.
        arn: String,
    },
    /// Inline policy.
    Inline {
        /// Its name.
        name: String,
        /// The user, group or role that has it.
        attached_to: String,
    },
    /// Managed policy.
    Managed {
        /// Its ARN.
        arn: String,
        /// The user, group or role that it is attached to.
        attached_to: String,
    },
    /// The policy of a resource.
    Resource {
        /// The resource.
        arn: String,
    },
    /// Account-wide.
    ServiceControl {
        /// Its name.
        name: String,
    },
    /// Passed when the session was made.
    Session {
        /// The managed policy, when it was not passed inline.
        arn: Option<String>,
    },
    /// The trust policy of a role.
    Trust {
        /// The role.
        role_arn: String,
    },
    /// Given without a name, as in a simulation.
    Unnamed {
        /// Counted from 1, in the list that it was given in.
        position: usize,
    },
}

impl fmt::Display for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boundary { arn } => write!(f, "the permissions boundary `{arn}`"),
            Self::Inline { name, attached_to } => {
                write!(f, "the inline policy `{name}` of {attached_to}")
            }
            Self::Managed { arn, attached_to } => {
                write!(f, "the policy `{arn}` attached to {attached_to}")
            }
            Self::Resource { arn } => write!(f, "the policy of {arn}"),
            Self::ServiceControl { name } => write!(f, "the account-wide policy `{name}`"),
            Self::Session { arn: Some(arn) } => write!(f, "the session policy `{arn}`"),
            Self::Session { arn: None } => f.write_str("the session policy"),
            Self::Trust { role_arn } => write!(f, "the trust policy of {role_arn}"),
            Self::Unnamed { position } => write!(f, "policy {position}"),
        }
    }
}

/// One action of one principal on one resource.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// `service:Name`, in any case.
    pub action: &'a str,
    /// On what.
    pub resource: Resource<'a>,
    /// The request's condition keys.
    pub context: &'a Context,
    /// The account that owns the resource.
    pub account: &'a str,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// Its ARN; `*` for an action that has no resource.
    pub arn: &'a str,
    /// Its own condition keys, such as its tags, which go before the request's.
    pub context: Option<&'a Context>,
}

impl<'a> Resource<'a> {
    /// A resource without keys of its own.
    #[must_use]
    pub const fn new(arn: &'a str) -> Self {
        Self { arn, context: None }
    }

    /// A resource with keys of its own.
    #[must_use]
    pub const fn with_context(arn: &'a str, context: &'a Context) -> Self {
        Self {
            arn,
            context: Some(context),
        }
    }
}

/// All policies that a request is judged by. The default has none, so that nothing is allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policies<'a> {
    /// The caller's own: inline and attached ones of the user and all groups, or of the role.
    pub identity: &'a [NamedPolicy],
    /// The caller's permissions boundary, if there is one. Of several, one has to allow.
    pub boundary: Option<&'a [NamedPolicy]>,
    /// The policies passed when the session was made, if there were any; one of them has to allow.
    pub session: Option<&'a [NamedPolicy]>,
    /// The resource's own policy; a role's trust policy when the role is assumed.
    pub resource: Option<&'a NamedPolicy>,
    /// Account-wide boundaries of the caller's account, level by level: one of each level has to allow.
    pub scps: &'a [Vec<NamedPolicy>],
    /// Account-wide boundaries of the resource's account, level by level; a level without an Allow
    /// statement only denies.
    pub rcps: &'a [Vec<NamedPolicy>],
}

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Everything that has to allow does, and nothing denies.
    Allowed,
    /// A statement denies.
    ExplicitlyDenied,
    /// Something that has to allow does not.
    ImplicitlyDenied,
}

impl Outcome {
    /// `Allowed`, `ExplicitlyDenied` or `ImplicitlyDenied`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "Allowed",
            Self::ExplicitlyDenied => "ExplicitlyDenied",
            Self::ImplicitlyDenied => "ImplicitlyDenied",
        }
    }
}

/// What is decided and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The outcome.
    pub outcome: Outcome,
    /// The reason of it.
    pub explanation: Explanation,
}

impl Decision {
    /// Whether the request is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }
}

/// Decides one request. [`explain`] decides the same and also says which statements nearly applied.
#[must_use]
pub fn decide(request: &Request<'_>, policies: &Policies<'_>) -> Decision {
    let lower = request.action.to_ascii_lowercase();
    let question = question(request, &lower);
    let (outcome, reason) = Judge {
        question: &question,
        policies,
        account: request.account,
    }
    .judge();
    Decision {
        outcome,
        explanation: Explanation {
            action: request.action.to_owned(),
            resource: request.resource.arn.to_owned(),
            reason,
            near_misses: Vec::new(),
        },
    }
}

/// Decides one action on several resources, each judged with its own keys: any explicit denial makes
/// it explicitly denied, else any implicit one implicitly, else it is allowed. The explanation is that
/// of the resource that decided. Without resources the request's own is judged.
#[must_use]
pub fn decide_all(
    request: &Request<'_>,
    resources: &[Resource<'_>],
    policies: &Policies<'_>,
) -> Decision {
    over_all(request, resources, |request| decide(request, policies))
}

/// Like [`decide`], with the statements that nearly applied. Slower, for people who ask.
#[must_use]
pub fn explain(request: &Request<'_>, policies: &Policies<'_>) -> Decision {
    let mut decision = decide(request, policies);
    if decision.outcome != Outcome::ExplicitlyDenied {
        let lower = request.action.to_ascii_lowercase();
        let question = question(request, &lower);
        decision.explanation.near_misses = near_misses(&question, policies, decision.outcome);
    }
    decision
}

/// Like [`decide_all`], with the statements that nearly applied to the resource that decided.
#[must_use]
pub fn explain_all(
    request: &Request<'_>,
    resources: &[Resource<'_>],
    policies: &Policies<'_>,
) -> Decision {
    over_all(request, resources, |request| explain(request, policies))
}

fn over_all(
    request: &Request<'_>,
    resources: &[Resource<'_>],
    decide: impl Fn(&Request<'_>) -> Decision,
) -> Decision {
    let mut worst: Option<Decision> = None;
    for resource in resources {
        let decision = decide(&Request {
            resource: *resource,
            ..*request
        });
        match (decision.outcome, worst.as_ref().map(|worst| worst.outcome)) {
            (Outcome::ExplicitlyDenied, _) => return decision,
            (_, None) | (Outcome::ImplicitlyDenied, Some(Outcome::Allowed)) => {
                worst = Some(decision);
            }
            _ => {}
        }
    }
    worst.unwrap_or_else(|| decide(request))
}

fn question<'a>(request: &Request<'a>, lower: &'a str) -> Question<'a> {
    let (service, name) = lower.split_once(':').unwrap_or((lower, ""));
    Question {
        principal: request.principal,
        action: Action {
            service: WordRef::new(service),
            name: WordRef::new(name),
        },
        resource: Named::new(request.resource.arn),
        facts: Facts::new(request.context, request.resource.context),
    }
}

type Verdict = (Outcome, Reason);

struct Judge<'a> {
    question: &'a Question<'a>,
    policies: &'a Policies<'a>,
    /// That owns the resource.
    account: &'a str,
}

impl Judge<'_> {
    fn judge(&self) -> Verdict {
        if let Some(denied) = self.explicit_deny() {
            return (Outcome::ExplicitlyDenied, denied);
        }
        if let Some(missing) = self.account_wide() {
            return missing;
        }
        let resource = self.resource_allow();
        match self.question.principal {
            Principal::Anonymous | Principal::Federated { .. } | Principal::Service { .. } => {
                // They have no policies of their own.
                resource.map_or_else(|| implicit(self.resource_type()), allowed)
            }
            principal if principal.account() == Some(self.account) => self.same_account(resource),
            _ => match resource {
                Some(_) => self.identity_side(),
                // The caller's own side is named first, as its own administrator can do something.
                None => match self.identity_side() {
                    (Outcome::Allowed, _) => implicit(self.resource_type()),
                    denied => denied,
                },
            },
        }
    }

    /// The sets of policies whose Deny counts for this caller.
    fn explicit_deny(&self) -> Option<Reason> {
        let policies = self.policies;
        let find = |kind, list: &[NamedPolicy]| self.find(Effect::Deny, kind, list);
        let levels =
            |kind, levels: &[Vec<NamedPolicy>]| levels.iter().find_map(|level| find(kind, level));
        let own = || {
            if self.is_root() {
                return None;
            }
            find(PolicyType::Identity, policies.identity)
                .or_else(|| find(PolicyType::Boundary, policies.boundary.unwrap_or_default()))
                .or_else(|| find(PolicyType::Session, policies.session.unwrap_or_default()))
        };
        let resource = || {
            let list = policies.resource.map_or(&[][..], std::slice::from_ref);
            find(self.resource_type(), list)
        };
        let wide = || {
            if self.is_bound_account_wide()
                && let Some(denied) = levels(PolicyType::ServiceControl, policies.scps)
            {
                return Some(denied);
            }
            if self.question.principal.is_service_linked() {
                return None;
            }
            levels(PolicyType::ResourceControl, policies.rcps)
        };
        own()
            .or_else(resource)
            .or_else(wide)
            .map(|statement| Reason::Denied { statement })
    }

    fn account_wide(&self) -> Option<Verdict> {
        let allows = |kind, level: &[NamedPolicy]| self.find(Effect::Allow, kind, level).is_some();
        let mut scps = self.policies.scps.iter();
        if self.is_bound_account_wide()
            && !scps.all(|level| allows(PolicyType::ServiceControl, level))
        {
            return Some(implicit(PolicyType::ServiceControl));
        }
        // AWS attaches a policy that allows everything to each level of these and lets nobody take it
        // away, so a level that says nothing of allowing allows.
        let silent =
            |level: &[NamedPolicy]| !level.iter().any(|named| named.policy.allows_anything());
        let mut rcps = self.policies.rcps.iter();
        if !self.question.principal.is_service_linked()
            && !rcps.all(|level| silent(level) || allows(PolicyType::ResourceControl, level))
        {
            return Some(implicit(PolicyType::ResourceControl));
        }
        None
    }

    /// Services and anonymous callers belong to no account; roles of services are spared.
    fn is_bound_account_wide(&self) -> bool {
        let principal = self.question.principal;
        principal.account().is_some() && !principal.is_service_linked()
    }

    fn is_root(&self) -> bool {
        matches!(self.question.principal, Principal::AccountRoot { .. })
    }

    fn same_account(&self, resource: Option<(Grade, StatementRef)>) -> Verdict {
        match resource {
            Some((Grade::Direct, statement)) => allowed((Grade::Direct, statement)),
            Some((Grade::Role, statement)) => self
                .limits()
                .unwrap_or_else(|| allowed((Grade::Role, statement))),
            Some((Grade::Account, _)) => self.identity_side(),
            None if self.resource_must_allow() => implicit(self.resource_type()),
            None => self.identity_side(),
        }
    }

    /// What the caller's own account has to allow: identity policies, boundary, session policy.
    fn identity_side(&self) -> Verdict {
        if self.is_root() {
            return (Outcome::Allowed, Reason::Root);
        }
        match self.find(Effect::Allow, PolicyType::Identity, self.policies.identity) {
            Some(statement) => self
                .limits()
                .unwrap_or((Outcome::Allowed, Reason::Allowed { statement })),
            None => implicit(PolicyType::Identity),
        }
    }

    /// Boundary and session policy, which only limit.
    fn limits(&self) -> Option<Verdict> {
        if let Some(boundary) = self.policies.boundary
            && self
                .find(Effect::Allow, PolicyType::Boundary, boundary)
                .is_none()
        {
            return Some(implicit(PolicyType::Boundary));
        }
        let session = match self.policies.session {
            // A federated user has what a session policy gives, and nothing without one.
            None if matches!(self.question.principal, Principal::FederatedUser { .. }) => &[],
            None => return None,
            Some(session) => session,
        };
        self.find(Effect::Allow, PolicyType::Session, session)
            .is_none()
            .then(|| implicit(PolicyType::Session))
    }

    fn resource_allow(&self) -> Option<(Grade, StatementRef)> {
        let named = self.policies.resource?;
        let hit = named.policy.best_allow(self.question)?;
        Some((hit.grade, reference(self.resource_type(), named, hit)))
    }

    /// Assuming a role, and using a key: without their own policy's consent nobody may.
    fn resource_must_allow(&self) -> bool {
        self.assumes_role() || {
            let parts = self.question.resource.parts;
            self.question.action.service.text == "kms"
                && parts.is_some_and(|p| p.service() == "kms" && p.rest.starts_with("key/"))
        }
    }

    fn assumes_role(&self) -> bool {
        assumes_role(self.question)
    }

    fn resource_type(&self) -> PolicyType {
        let trust = |named: &NamedPolicy| named.policy.kind() == PolicyKind::Trust;
        if self.assumes_role() || self.policies.resource.is_some_and(trust) {
            PolicyType::Trust
        } else {
            PolicyType::Resource
        }
    }

    fn find(&self, effect: Effect, kind: PolicyType, list: &[NamedPolicy]) -> Option<StatementRef> {
        list.iter().find_map(|named| {
            let hit = named.policy.find(effect, self.question)?;
            Some(reference(kind, named, hit))
        })
    }
}

fn assumes_role(question: &Question<'_>) -> bool {
    let is_role = |parts: ArnParts<'_>| parts.service() == "iam" && parts.rest.starts_with("role/");
    question.action.service.text == "sts" && question.resource.parts.is_some_and(is_role)
}

fn reference(kind: PolicyType, named: &NamedPolicy, hit: Hit) -> StatementRef {
    StatementRef::new(kind, named, hit.place)
}

fn allowed((_, statement): (Grade, StatementRef)) -> Verdict {
    (Outcome::Allowed, Reason::Allowed { statement })
}

fn implicit(policy_type: PolicyType) -> Verdict {
    (Outcome::ImplicitlyDenied, Reason::Missing { policy_type })
}
