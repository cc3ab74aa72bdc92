//! A policy document that has been read: everything in it that a decision needs is prepared here, and
//! a statement says whether it is about a request.

use crate::{
    PolicyError,
    arn::{ArnPattern, Named as NamedResource},
    condition::Condition,
    context::Facts,
    parse,
    pattern::Pattern,
    principal::{Grade, Principals},
    template::Fit,
    word::{Word, WordRef},
};

/// What a policy is attached to, which decides the elements it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// A permissions boundary: written like an identity policy.
    Boundary,
    /// Of a user, group or role, and account-wide policies.
    Identity,
    /// Of a bucket, key, topic: has principals.
    Resource,
    /// Passed when a session is made: written like an identity policy.
    Session,
    /// Of a role, saying who may assume it: has principals and no resources.
    Trust,
}

/// The `Version` of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `2008-10-17`, also where none is given: variables are plain text.
    V2008,
    /// `2012-10-17`.
    V2012,
}

/// The `Effect` of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Allows what it is about.
    Allow,
    /// Denies it, whatever else allows.
    Deny,
}

/// A policy document that is valid for its kind. The source text is not kept.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) kind: PolicyKind,
    pub(crate) version: Version,
    pub(crate) statements: Vec<Statement>,
    pub(crate) allows: Places,
    pub(crate) denies: Places,
}

/// Where the statements of one effect are, by what they are about, so that a decision looks only at
/// those that can be about its action.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Statements that list whole actions only: the front of each action's name, sorted.
    exact: Vec<(u128, usize)>,
    /// All others.
    others: Vec<usize>,
}

impl Places {
    pub(crate) fn new(statements: &[Statement], effect: Effect) -> Self {
        let mut places = Self::default();
        let all = statements.iter().enumerate();
        for (place, statement) in all.filter(|(_, statement)| statement.effect == effect) {
            match statement.actions.exact_names() {
                Some(names) => places
                    .exact
                    .extend(names.into_iter().map(|name| (name, place))),
                None => places.others.push(place),
            }
        }
        places.exact.sort_unstable();
        places.exact.dedup();
        places
    }

    fn about(&self, action: &Action<'_>) -> impl Iterator<Item = usize> {
        let name = action.name.front;
        let start = self.exact.partition_point(|(front, _)| *front < name);
        let exact = self.exact.get(start..).unwrap_or_default();
        let exact = exact.iter().take_while(move |(front, _)| *front == name);
        exact
            .map(|(_, place)| *place)
            .chain(self.others.iter().copied())
    }
}

/// A principal as a policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedPrincipal<'a> {
    /// `AWS`, `Service`, `Federated` or `CanonicalUser`.
    pub kind: &'static str,
    /// An ARN, an account, a unique id, `*`, or the name of a service or provider.
    pub text: &'a str,
}

impl Policy {
    /// Reads and checks a document.
    ///
    /// Of sizes only the largest that any document may have is checked; what a policy may have where
    /// it is attached is [`Quota`](crate::Quota).
    ///
    /// # Errors
    ///
    /// [`PolicyError`] in AWS's words, with a detail for people.
    pub fn parse(text: &str, kind: PolicyKind) -> Result<Self, PolicyError> {
        parse::policy(text, kind)
    }

    /// What it was read as.
    #[must_use]
    pub const fn kind(&self) -> PolicyKind {
        self.kind
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The number of statements.
    #[must_use]
    pub const fn statement_count(&self) -> usize {
        self.statements.len()
    }

    /// The principals that its statements name, in the order of the document.
    pub fn principals(&self) -> impl Iterator<Item = NamedPrincipal<'_>> {
        let elements = self.statements.iter().filter_map(|s| s.principals.as_ref());
        elements.flat_map(|element| &element.named).map(|named| {
            let (kind, text) = named.written();
            NamedPrincipal { kind, text }
        })
    }

    /// The condition keys that it asks for, as written: in conditions and in variables. Sorted, each
    /// once.
    #[must_use]
    pub fn context_keys(&self) -> Vec<&str> {
        let conditions = self.statements.iter().flat_map(|s| &s.conditions);
        let mut keys: Vec<&str> = conditions.flat_map(Condition::keys).collect();
        let resources = self.statements.iter().flat_map(|s| &s.resources);
        keys.extend(
            resources
                .flat_map(|r| &r.patterns)
                .flat_map(ArnPattern::keys),
        );
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether it has a statement that allows.
    pub(crate) fn allows_anything(&self) -> bool {
        let mut statements = self.statements.iter();
        statements.any(|statement| statement.effect == Effect::Allow)
    }

    /// The first statement of an effect that is about the request, with how it names the caller.
    pub(crate) fn find(&self, effect: Effect, question: &Question<'_>) -> Option<Hit> {
        let places = match effect {
            Effect::Allow => &self.allows,
            Effect::Deny => &self.denies,
        };
        places.about(&question.action).find_map(|place| {
            let grade = self.statements.get(place)?.applies(question)?;
            Some(Hit { place, grade })
        })
    }

    /// The statement that allows the caller most directly.
    pub(crate) fn best_allow(&self, question: &Question<'_>) -> Option<Hit> {
        let mut best: Option<Hit> = None;
        for place in self.allows.about(&question.action) {
            let grade = self.statements.get(place).and_then(|s| s.applies(question));
            if let Some(grade) = grade
                && best.is_none_or(|best| grade > best.grade)
            {
                best = Some(Hit { place, grade });
            }
        }
        best
    }
}

/// A statement that is about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub(crate) place: usize,
    pub(crate) grade: Grade,
}

/// A request, prepared for being compared with statements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a crate::Principal,
    pub(crate) action: Action<'a>,
    pub(crate) resource: NamedResource<'a>,
    pub(crate) facts: Facts<'a>,
}

/// An action in lower case, cut at its colon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action<'a> {
    pub(crate) service: WordRef<'a>,
    pub(crate) name: WordRef<'a>,
}

/// One statement.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) sid: Option<String>,
    pub(crate) effect: Effect,
    pub(crate) principals: Option<Principals>,
    pub(crate) actions: Actions,
    /// `None` in trust policies.
    pub(crate) resources: Option<Resources>,
    pub(crate) conditions: Vec<Condition>,
}

/// `Action` or `NotAction`.
#[derive(Clone, Debug)]
pub(crate) struct Actions {
    pub(crate) not: bool,
    pub(crate) patterns: Vec<ActionPattern>,
}

/// A pattern for actions, in lower case.
#[derive(Clone, Debug)]
pub(crate) enum ActionPattern {
    Everything,
    Exact {
        service: Word,
        name: Word,
    },
    /// Boxed, so that the far more common whole actions lie close together.
    Of {
        service: Word,
        name: Box<Pattern>,
    },
}

/// `Resource` or `NotResource`.
#[derive(Clone, Debug)]
pub(crate) struct Resources {
    pub(crate) not: bool,
    pub(crate) patterns: Vec<ArnPattern>,
}

impl Statement {
    /// Whether the statement is about the request, and how it names the caller: in policies without
    /// principals always directly.
    pub(crate) fn applies(&self, question: &Question<'_>) -> Option<Grade> {
        if !self.actions.cover(&question.action) {
            return None;
        }
        let facts = &question.facts;
        if !self.covers_resource(&question.resource, facts) {
            return None;
        }
        let grade = match &self.principals {
            Some(principals) => principals.grade(question.principal)?,
            None => Grade::Direct,
        };
        let mut conditions = self.conditions.iter();
        conditions
            .all(|condition| condition.holds(self.effect, facts))
            .then_some(grade)
    }

    pub(crate) fn covers_resource(&self, resource: &NamedResource<'_>, facts: &Facts<'_>) -> bool {
        match &self.resources {
            Some(resources) => resources.cover(self.effect, resource, facts),
            None => true,
        }
    }
}

impl Actions {
    /// The fronts of the names, when these are whole actions.
    fn exact_names(&self) -> Option<Vec<u128>> {
        if self.not {
            return None;
        }
        let names = self.patterns.iter().map(|pattern| match pattern {
            ActionPattern::Exact { name, .. } => Some(name.front),
            ActionPattern::Everything | ActionPattern::Of { .. } => None,
        });
        names.collect()
    }

    pub(crate) fn cover(&self, action: &Action<'_>) -> bool {
        let listed = self.patterns.iter().any(|pattern| match pattern {
            ActionPattern::Everything => true,
            ActionPattern::Exact { service, name } => {
                name.is(action.name) && service.is(action.service)
            }
            ActionPattern::Of { service, name } => {
                service.is(action.service) && name.matches(action.name.text)
            }
        });
        listed != self.not
    }
}

impl Resources {
    fn cover(&self, effect: Effect, resource: &NamedResource<'_>, facts: &Facts<'_>) -> bool {
        let mut patterns = self.patterns.iter();
        if !self.not {
            return patterns.any(|pattern| pattern.matches(resource, facts));
        }
        // An exception whose variable has no value excepts nothing. For a Deny that is the safe side;
        // an Allow would then cover what nobody meant, so it does not apply.
        patterns.all(|pattern| match pattern.fits(resource, facts) {
            Fit::No => true,
            Fit::Yes => false,
            Fit::Unresolved => effect == Effect::Deny,
        })
    }
}
