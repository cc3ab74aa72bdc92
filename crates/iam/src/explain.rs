//! Why a decision is as it is: for the program as data, for AWS's clients as the text of an
//! AccessDenied error, and for people in sentences.

use crate::{
    NamedPolicy, Outcome, Policies, PolicySource,
    condition::Condition,
    context::Found,
    policy::{Effect, Question, Statement},
};

/// More are of no help to anybody.
const MAX_NEAR_MISSES: usize = 16;

/// Why a decision is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The action as it was asked for.
    pub action: String,
    /// The resource that decided.
    pub resource: String,
    /// What decided.
    pub reason: Reason,
    /// Statements about this action that did not apply, with what kept them; filled by
    /// [`explain`](crate::explain) only, at most sixteen.
    pub near_misses: Vec<NearMiss>,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This statement allows, and nothing else stands against it.
    Allowed {
        /// Where more than one kind of policy has to allow: that of the caller's own.
        statement: StatementRef,
    },
    /// This statement denies.
    Denied {
        /// The first one found.
        statement: StatementRef,
    },
    /// No statement of this kind of policy allows.
    Missing {
        /// The kind that would have to.
        policy_type: PolicyType,
    },
    /// The account itself may do everything.
    Root,
}

/// The kinds of policy that a refusal can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyType {
    /// The caller's permissions boundary.
    Boundary,
    /// Of the user, a group or the role.
    Identity,
    /// Of the resource.
    Resource,
    /// Account-wide, of the resource's account.
    ResourceControl,
    /// Account-wide, of the caller's account.
    ServiceControl,
    /// Passed with the session.
    Session,
    /// Of the role being assumed.
    Trust,
}

impl PolicyType {
    /// AWS's name in a refusal, with its article for a Deny.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Boundary => ("permissions boundary", "a permissions boundary"),
            Self::Identity => ("identity-based policy", "an identity-based policy"),
            Self::Resource => ("resource-based policy", "a resource-based policy"),
            Self::ResourceControl => ("resource control policy", "a resource control policy"),
            Self::ServiceControl => ("service control policy", "a service control policy"),
            Self::Session => ("session policy", "a session policy"),
            Self::Trust => ("role trust policy", "the role trust policy"),
        }
    }
}

/// A statement of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRef {
    /// As what the policy took part.
    pub policy_type: PolicyType,
    /// Where the policy comes from.
    pub source: PolicySource,
    /// The statement's place, counted from 0.
    pub index: usize,
    /// The statement's name.
    pub sid: Option<String>,
}

impl StatementRef {
    pub(crate) fn new(policy_type: PolicyType, named: &NamedPolicy, index: usize) -> Self {
        let statement = named.policy.statements.get(index);
        Self {
            policy_type,
            source: named.source.clone(),
            index,
            sid: statement.and_then(|statement| statement.sid.clone()),
        }
    }

    /// `statement 2 (NoProd) of the policy …`
    fn words(&self) -> String {
        let name = match &self.sid {
            Some(sid) if !sid.is_empty() => format!(" ({sid})"),
            _ => String::new(),
        };
        let (kind, _) = self.policy_type.names();
        // A policy without a name needs its kind to be told from the others.
        let kind = match &self.source {
            PolicySource::Unnamed { .. } => format!(" ({kind})"),
            _ => String::new(),
        };
        format!(
            "statement {}{name} of {}{kind}",
            self.index + 1,
            self.source
        )
    }
}

/// A statement that is about the action but did not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The statement.
    pub statement: StatementRef,
    /// Whether it would have denied.
    pub denies: bool,
    /// What kept it from applying.
    pub misses: Vec<Miss>,
}

/// What keeps a statement from applying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// A condition does not hold.
    Condition(FailedCondition),
    /// It is about other principals.
    Principal,
    /// It is about other resources.
    Resource,
}

/// A condition that does not hold, with what the request has under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCondition {
    /// As written.
    pub operator: String,
    /// As written.
    pub key: String,
    /// As written.
    pub wanted: Vec<String>,
    /// `None`: the request does not have the key.
    pub found: Option<Vec<String>>,
}

impl FailedCondition {
    fn new(condition: &Condition, question: &Question<'_>) -> Self {
        let found = match question.facts.find(&condition.key) {
            Found::Absent => None,
            Found::One(entry) => Some(entry.values.clone()),
            Found::Several(entries, _) => {
                let values = entries.iter().flat_map(|entry| entry.values.clone());
                Some(values.collect())
            }
        };
        Self {
            operator: condition.operator.to_string(),
            key: condition.key.name.to_string(),
            wanted: condition.wanted.to_vec(),
            found,
        }
    }

    fn words(&self) -> String {
        let wanted = list(&self.wanted);
        let found = match self.found.as_deref() {
            None => "the request does not have it".to_owned(),
            Some([]) => "the request has an empty list".to_owned(),
            Some(values) => format!("the request has {}", list(values)),
        };
        format!(
            "its condition {} on {} wants {wanted}, and {found}",
            self.operator, self.key
        )
    }
}

fn list(values: &[String]) -> String {
    if values.is_empty() {
        return "nothing".to_owned();
    }
    let quoted: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    quoted.join(" or ")
}

impl Miss {
    fn words(&self) -> String {
        match self {
            Self::Condition(condition) => condition.words(),
            Self::Principal => "it names other principals".to_owned(),
            Self::Resource => "it is about other resources".to_owned(),
        }
    }
}

impl Explanation {
    /// The text of AWS's AccessDenied error for `principal` (an ARN; the STS one for role sessions).
    /// `resource` is what the text names; `None` for actions without one.
    ///
    /// Of a decision that allowed, the text says only who was not authorized to do what.
    #[must_use]
    pub fn access_denied_message(&self, principal: &str, resource: Option<&str>) -> String {
        let action = &self.action;
        let on = resource.map_or(String::new(), |arn| format!(" on resource: {arn}"));
        let why = match &self.reason {
            Reason::Denied { statement } => {
                let (_, kind) = statement.policy_type.names();
                format!(" with an explicit deny in {kind}")
            }
            Reason::Missing { policy_type } => {
                let (kind, _) = policy_type.names();
                format!(" because no {kind} allows the {action} action")
            }
            Reason::Allowed { .. } | Reason::Root => String::new(),
        };
        format!("User: {principal} is not authorized to perform: {action}{on}{why}")
    }

    /// The explanation in sentences: what decided, then what nearly applied.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let on = match &*self.resource {
            "*" => String::new(),
            resource => format!(" on {resource}"),
        };
        let asked = format!("{}{on}", self.action);
        let first = match &self.reason {
            Reason::Allowed { statement } => {
                format!("{asked} is allowed by {}.", statement.words())
            }
            Reason::Denied { statement } => {
                format!("{asked} is denied explicitly by {}.", statement.words())
            }
            Reason::Missing { policy_type } => {
                let (kind, _) = policy_type.names();
                format!("{asked} is denied because no {kind} allows it.")
            }
            Reason::Root => format!("{asked} is allowed because the account itself asks."),
        };
        let near = self.near_misses.iter().map(NearMiss::sentence);
        std::iter::once(first).chain(near).collect()
    }
}

impl NearMiss {
    fn sentence(&self) -> String {
        let verb = if self.denies { "deny" } else { "allow" };
        let reasons: Vec<String> = self.misses.iter().map(Miss::words).collect();
        format!(
            "{} would {verb} it, but {}.",
            upper_first(&self.statement.words()),
            reasons.join("; and ")
        )
    }
}

fn upper_first(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// For a refused request the statements that could have allowed it, for an allowed one those that
/// could have denied it.
pub(crate) fn near_misses(
    question: &Question<'_>,
    policies: &Policies<'_>,
    outcome: Outcome,
) -> Vec<NearMiss> {
    let effect = match outcome {
        Outcome::Allowed => Effect::Deny,
        Outcome::ExplicitlyDenied | Outcome::ImplicitlyDenied => Effect::Allow,
    };
    let misses = all(policies).flat_map(|(kind, named)| {
        let statements = named.policy.statements.iter().enumerate();
        statements.filter_map(move |(index, statement)| {
            let misses = misses(statement, effect, question)?;
            Some(NearMiss {
                statement: StatementRef::new(kind, named, index),
                denies: effect == Effect::Deny,
                misses,
            })
        })
    });
    let mut misses: Vec<NearMiss> = misses.collect();
    // The nearest first: a statement that fails on its conditions alone is more telling.
    misses.sort_by_key(|near| (near.misses.contains(&Miss::Resource), near.misses.len()));
    misses.truncate(MAX_NEAR_MISSES);
    misses
}

fn all<'a>(policies: &'a Policies<'a>) -> impl Iterator<Item = (PolicyType, &'a NamedPolicy)> + 'a {
    let with = |kind, list: &'a [NamedPolicy]| list.iter().map(move |named| (kind, named));
    let levels = |kind, levels: &'a [Vec<NamedPolicy>]| {
        levels.iter().flatten().map(move |named| (kind, named))
    };
    with(PolicyType::Identity, policies.identity)
        .chain(policies.resource.map(|named| match named.policy.kind() {
            crate::PolicyKind::Trust => (PolicyType::Trust, named),
            _ => (PolicyType::Resource, named),
        }))
        .chain(with(
            PolicyType::Boundary,
            policies.boundary.unwrap_or_default(),
        ))
        .chain(with(
            PolicyType::Session,
            policies.session.unwrap_or_default(),
        ))
        .chain(levels(PolicyType::ServiceControl, policies.scps))
        .chain(levels(PolicyType::ResourceControl, policies.rcps))
}

/// What keeps a statement about the action from applying; `None` when it is not about the action, of
/// the other effect, or applies.
fn misses(statement: &Statement, effect: Effect, question: &Question<'_>) -> Option<Vec<Miss>> {
    if statement.effect != effect || !statement.actions.cover(&question.action) {
        return None;
    }
    let mut misses = Vec::new();
    if !statement.covers_resource(&question.resource, &question.facts) {
        misses.push(Miss::Resource);
    }
    if let Some(principals) = &statement.principals
        && principals.grade(question.principal).is_none()
    {
        misses.push(Miss::Principal);
    }
    let failed = statement
        .conditions
        .iter()
        .filter(|condition| !condition.holds(effect, &question.facts))
        .map(|condition| Miss::Condition(FailedCondition::new(condition, question)));
    misses.extend(failed);
    (!misses.is_empty()).then_some(misses)
}
