//! The policy simulator: what policies would decide, and which statements of which policy. Nothing
//! here grants or changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use sortie_iam::{
    Context, NamedPolicy, Outcome, Policies, Policy, PolicyKind, PolicySource, Principal, Quota,
    Reason, Request, Resource, StatementRef, decide, document_size,
};
use sortie_ports::{Grants, StoreError, User};
use sortie_types::{Arn, Tag, Timestamp};
use tokio::sync::Semaphore;

use super::{
    ask,
    attachments::attached_view,
    document::{place, statements},
    entity::{Held, Holder, user_arn},
    error::IamError,
    page::{Page, PageRequest, Pager},
};
use crate::{
    Control,
    arns::Names,
    authorize::{self, Ask, OperationRule},
    call::{Call, InternalError, Recorded},
    context::Keys,
    directory::Directory,
    trail::Done,
};

/// Simulations that run at the same time, each on a thread of its own. Others wait.
const AT_ONCE: usize = 2;
static RUNNING: Semaphore = Semaphore::const_new(AT_ONCE);
/// Bytes of missing keys and matched statements on a page: every result has all of them again.
const PAGE_BYTES: usize = 4 << 20;
/// What a statement that is named in a result takes.
const STATEMENT_BYTES: usize = 128;

/// What to simulate.
#[derive(Clone, Debug, Default)]
pub struct SimulateInput {
    /// The user, group or role whose policies take part; `None`: only those given here.
    pub principal: Option<String>,
    /// Further policies.
    pub policies: Vec<String>,
    /// Boundaries in place of the principal's own.
    pub boundaries: Vec<String>,
    /// `service:Name`.
    pub actions: Vec<String>,
    /// `*` when there are none.
    pub resources: Vec<String>,
    /// The policy of every resource.
    pub resource_policy: Option<String>,
    /// The account that owns every resource, as `arn:aws:iam::<account>:root` or alone.
    pub resource_owner: Option<String>,
    /// The user who asks, where that is not the principal.
    pub caller: Option<String>,
    /// Condition keys.
    pub context: Vec<ContextEntry>,
    /// Which part of the results.
    pub page: PageRequest,
}

/// A condition key of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextEntry {
    /// Such as `aws:SourceIp`.
    pub key: String,
    /// As policies see them.
    pub values: Vec<String>,
    /// Whether the key holds a list.
    pub is_list: bool,
}

/// What was decided about one action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// As it was asked for.
    pub action: String,
    /// As it was asked for.
    pub resource: String,
    /// The decision.
    pub outcome: Outcome,
    /// What led to it: the statement that denies, or those that allow.
    pub matched: Vec<MatchedStatement>,
    /// Condition keys that the policies ask for and that nobody gave: the same for all results.
    pub missing_keys: Arc<[String]>,
    /// Whether the boundary allows, where there is one.
    pub boundary_allows: Option<bool>,
}

/// A statement of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedStatement {
    /// The policy's name, or its place among those given.
    pub policy: String,
    /// Where the policy is from.
    pub origin: PolicyOrigin,
    /// Where the statement begins and ends in the document.
    pub span: Option<(TextPosition, TextPosition)>,
}

/// Where a policy is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyOrigin {
    /// A managed policy of AWS's.
    AwsManaged,
    /// Given for this simulation.
    Given,
    /// An inline policy of a group.
    Group,
    /// The policy of the resource.
    Resource,
    /// An inline policy of a role.
    Role,
    /// An inline policy of a user.
    User,
    /// A managed policy of the account.
    UserManaged,
}

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPosition {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// A policy that takes part, with what is needed to point at it.
struct Part {
    policy: String,
    origin: PolicyOrigin,
    text: String,
}

/// The policies that take part. In their decisions they are numbered, and the number leads back here.
#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
    /// Of the policies that were given, together.
    given_size: usize,
    identity: Vec<NamedPolicy>,
    boundary: Option<Vec<NamedPolicy>>,
    resource: Option<NamedPolicy>,
}

impl Parts {
    fn add(&mut self, part: Part, kind: PolicyKind) -> Result<NamedPolicy, IamError> {
        let policy = Policy::parse(&part.text, kind).map_err(|error| {
            IamError::InvalidInput(format!("{} is not valid: {error}", part.policy))
        })?;
        let named = NamedPolicy {
            source: PolicySource::Unnamed {
                position: self.parts.len(),
            },
            policy: Arc::new(policy),
        };
        self.parts.push(part);
        Ok(named)
    }

    fn add_identity(&mut self, part: Part) -> Result<(), IamError> {
        let named = self.add(part, PolicyKind::Identity)?;
        self.identity.push(named);
        Ok(())
    }

    /// Policies that were given, under AWS's names for them.
    fn add_given(
        &mut self,
        list: &str,
        texts: &[String],
        kind: PolicyKind,
    ) -> Result<Vec<NamedPolicy>, IamError> {
        // Identity policies may become inline ones, and those of roles may be the largest.
        let quota = match kind {
            PolicyKind::Boundary => Quota::Managed,
            _ => Quota::InlineRole,
        };
        for (index, text) in texts.iter().enumerate() {
            self.check_size(&format!("{list}.{}", index + 1), text, quota)?;
        }
        let given = texts.iter().enumerate().map(|(index, text)| Part {
            policy: format!("{list}.{}", index + 1),
            origin: PolicyOrigin::Given,
            text: text.clone(),
        });
        given.map(|part| self.add(part, kind)).collect()
    }

    /// Each policy that is given within its own quota, and all together within that of one document.
    fn check_size(&mut self, name: &str, text: &str, quota: Quota) -> Result<(), IamError> {
        let size = document_size(text);
        self.given_size = self.given_size.saturating_add(size);
        quota
            .check(size)
            .and_then(|()| Quota::Document.check(self.given_size))
            .map_err(|error| IamError::InvalidInput(format!("{name} is not valid: {error}")))
    }

    /// The policies of a user with its groups, of a group, or of a role.
    fn add_held(&mut self, directory: &Directory, held: Held<'_>) -> Result<(), IamError> {
        let (origin, kind, name) = match held {
            Held::Group(group) => (PolicyOrigin::Group, "group", group.name.as_str()),
            Held::Role(role) => (PolicyOrigin::Role, "role", role.name.as_str()),
            Held::User(user) => (PolicyOrigin::User, "user", user.name.as_str()),
        };
        for (policy, text) in &held.grants().inline {
            self.add_identity(Part {
                policy: format!("{kind}_{name}_{policy}"),
                origin,
                text: text.clone(),
            })?;
        }
        self.add_attached(directory, held.grants())?;
        if let Held::User(user) = held {
            for group in user
                .groups
                .iter()
                .filter_map(|id| directory.group_by_id(id))
            {
                self.add_held(directory, Held::Group(group))?;
            }
        }
        Ok(())
    }

    fn add_attached(&mut self, directory: &Directory, grants: &Grants) -> Result<(), IamError> {
        for arn in &grants.attached {
            if let Some(part) = managed(directory, arn) {
                self.add_identity(part)?;
            }
        }
        Ok(())
    }

    fn add_boundary(&mut self, directory: &Directory, arn: &Arn) -> Result<(), IamError> {
        let mut boundary = Vec::new();
        if let Some(part) = managed(directory, arn) {
            boundary.push(self.add(part, PolicyKind::Boundary)?);
        }
        // A boundary that is gone allows nothing.
        self.boundary = Some(boundary);
        Ok(())
    }

    fn policies(&self) -> Policies<'_> {
        Policies {
            identity: &self.identity,
            boundary: self.boundary.as_deref(),
            resource: self.resource.as_ref(),
            ..Policies::default()
        }
    }

    /// Every condition key that a policy asks for, each once.
    fn context_keys(&self) -> Vec<String> {
        let own = self.identity.iter().chain(self.boundary.iter().flatten());
        let all = own.chain(&self.resource);
        let keys = all.flat_map(|named| named.policy.context_keys());
        let by_lower: BTreeMap<String, &str> =
            keys.map(|key| (key.to_ascii_lowercase(), key)).collect();
        by_lower.into_values().map(str::to_owned).collect()
    }

    fn matched(&self, statement: &StatementRef) -> Option<MatchedStatement> {
        let PolicySource::Unnamed { position } = statement.source else {
            return None;
        };
        let part = self.parts.get(position)?;
        Some(MatchedStatement {
            policy: part.policy.clone(),
            origin: part.origin,
            span: span(&part.text, statement.index),
        })
    }
}

fn managed(directory: &Directory, arn: &Arn) -> Option<Part> {
    let origin = if directory.customer_policy(arn).is_some() {
        PolicyOrigin::UserManaged
    } else {
        PolicyOrigin::AwsManaged
    };
    Some(Part {
        policy: attached_view(arn).name,
        origin,
        text: directory.managed_document(arn)?.to_owned(),
    })
}

/// Where a statement begins and ends.
fn span(text: &str, index: usize) -> Option<(TextPosition, TextPosition)> {
    let statement = *statements(text).get(index)?;
    let place = place(text, statement)?;
    Some((position(text, place.start), position(text, place.end)))
}

fn position(text: &str, at: usize) -> TextPosition {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.get(line_start..).unwrap_or_default();
    TextPosition {
        line: before.matches('\n').count() + 1,
        column: line.chars().count() + 1,
    }
}

/// A simulation that is ready to be asked.
struct Simulation {
    parts: Parts,
    principal: Principal,
    context: Context,
    account: String,
    missing_keys: Arc<[String]>,
}

impl Simulation {
    fn prepare(
        directory: &Directory,
        names: &Names,
        input: &SimulateInput,
        now: Timestamp,
    ) -> Result<Self, IamError> {
        let mut parts = Parts::default();
        let source = input.principal.as_deref();
        let held = source
            .map(|arn| source_of(directory, names, arn))
            .transpose()?;
        if let Some(held) = held {
            parts.add_held(directory, held)?;
            if let Some(boundary) = held.boundary() {
                parts.add_boundary(directory, boundary)?;
            }
        }
        let given = parts.add_given("PolicyInputList", &input.policies, PolicyKind::Identity)?;
        parts.identity.extend(given);
        if !input.boundaries.is_empty() {
            let list = "PermissionsBoundaryPolicyInputList";
            parts.boundary =
                Some(parts.add_given(list, &input.boundaries, PolicyKind::Boundary)?);
        }
        if let Some(text) = &input.resource_policy {
            parts.check_size("ResourcePolicy", text, Quota::Document)?;
            let part = Part {
                policy: "ResourcePolicy".to_owned(),
                origin: PolicyOrigin::Resource,
                text: text.clone(),
            };
            parts.resource = Some(parts.add(part, PolicyKind::Resource)?);
        }
        let (principal, mut context) = asker(directory, names, held, input.caller.as_deref())?;
        context.set("aws:CurrentTime", now.iso_seconds());
        context.set("aws:EpochTime", now.millis().div_euclid(1_000).to_string());
        put_given(&mut context, &input.context);
        let missing = |key: &String| context.get(key).is_none();
        Ok(Self {
            missing_keys: parts.context_keys().into_iter().filter(missing).collect(),
            account: owner(names, input.resource_owner.as_deref())?,
            parts,
            principal,
            context,
        })
    }

    /// How many results a page may have.
    fn most_results(&self) -> usize {
        let keys: usize = self.missing_keys.iter().map(String::len).sum();
        let statements = self.parts.parts.len() * STATEMENT_BYTES;
        (PAGE_BYTES / (keys + statements).max(1)).max(1)
    }

    fn simulate(&self, action: &str, resource: &str) -> Simulated {
        let policies = self.parts.policies();
        let decision = decide(&self.request(action, resource), &policies);
        let mut matched = Vec::new();
        match &decision.explanation.reason {
            Reason::Denied { statement } => matched.extend(self.parts.matched(statement)),
            Reason::Allowed { .. } => matched = self.allowing(action, resource),
            Reason::Missing { .. } | Reason::Root => {}
        }
        Simulated {
            action: action.to_owned(),
            resource: resource.to_owned(),
            outcome: decision.outcome,
            matched,
            missing_keys: Arc::clone(&self.missing_keys),
            boundary_allows: self.parts.boundary.as_deref().map(|boundary| {
                let alone = Policies {
                    identity: boundary,
                    ..Policies::default()
                };
                decide(&self.request(action, resource), &alone).is_allowed()
            }),
        }
    }

    /// The statements that allow by themselves, one of each policy that has one.
    fn allowing(&self, action: &str, resource: &str) -> Vec<MatchedStatement> {
        let request = self.request(action, resource);
        let own = self.parts.identity.iter().map(|named| Policies {
            identity: std::slice::from_ref(named),
            ..Policies::default()
        });
        let of_resource = self.parts.resource.iter().map(|named| Policies {
            resource: Some(named),
            ..Policies::default()
        });
        own.chain(of_resource)
            .filter_map(
                |policies| match decide(&request, &policies).explanation.reason {
                    Reason::Allowed { statement } => self.parts.matched(&statement),
                    _ => None,
                },
            )
            .collect()
    }

    fn request<'a>(&'a self, action: &'a str, resource: &'a str) -> Request<'a> {
        Request {
            principal: &self.principal,
            action,
            resource: Resource::new(resource),
            context: &self.context,
            account: &self.account,
        }
    }
}

/// Whose ARN it is, by its form alone.
fn holder_of(arn: &str) -> Result<Holder, IamError> {
    let refused = || {
        let why =
            format!("Invalid Entity Arn: {arn} does not clearly define entity type and name.");
        IamError::InvalidInput(why)
    };
    let parsed: Arn = arn.parse().map_err(|_| refused())?;
    let (kind, rest) = parsed.resource().split_once('/').ok_or_else(refused)?;
    let name = rest.rsplit('/').next().unwrap_or(rest).to_owned();
    match (parsed.service(), kind) {
        ("iam", "group") => Ok(Holder::Group(name)),
        ("iam", "role") => Ok(Holder::Role(name)),
        ("iam", "user") => Ok(Holder::User(name)),
        _ => Err(refused()),
    }
}

/// The user, group or role of an ARN.
fn source_of<'a>(directory: &'a Directory, names: &Names, arn: &str) -> Result<Held<'a>, IamError> {
    let holder = holder_of(arn)?;
    let held = holder.find(directory)?;
    if held.arn(names).as_str() != arn {
        let (kind, name) = (holder.kind(), holder.name());
        let why = format!("The {kind} with name {name} cannot be found.");
        return Err(IamError::NoSuchEntity(why));
    }
    Ok(held)
}

/// Who asks, with its condition keys: the caller that was named, else the principal, else nobody in
/// particular of this account.
fn asker(
    directory: &Directory,
    names: &Names,
    held: Option<Held<'_>>,
    caller: Option<&str>,
) -> Result<(Principal, Context), IamError> {
    if let Some(arn) = caller {
        let Ok(Held::User(user)) = source_of(directory, names, arn) else {
            let why = format!("CallerArn {arn} is not the ARN of a user.");
            return Err(IamError::InvalidInput(why));
        };
        return Ok(user_asker(names, user));
    }
    let account = names.account.as_str();
    Ok(match held {
        Some(Held::User(user)) => user_asker(names, user),
        Some(Held::Role(role)) => {
            let arn = Held::Role(role).arn(names);
            let session = format!(
                "arn:aws:sts::{account}:assumed-role/{}/simulated",
                role.name
            );
            let userid = format!("{}:simulated", role.unique_id);
            let context = principal_context(names, &arn, "AssumedRole", &userid, &role.tags);
            let principal = Principal::assumed_role(arn.as_str(), session, role.unique_id.as_str());
            (principal, context)
        }
        // Groups are no principals; their policies are tried on somebody without other policies.
        Some(Held::Group(_)) | None => {
            let arn = format!("arn:aws:iam::{account}:user/simulated");
            (Principal::user(arn, ""), Context::new())
        }
    })
}

fn user_asker(names: &Names, user: &User) -> (Principal, Context) {
    let arn = user_arn(names, user);
    let id = user.unique_id.as_str();
    let mut context = principal_context(names, &arn, "User", id, &user.tags);
    context.set("aws:username", user.name.as_str());
    (Principal::user(arn.as_str(), id), context)
}

fn principal_context(names: &Names, arn: &Arn, kind: &str, userid: &str, tags: &[Tag]) -> Context {
    let mut context = Context::new();
    context.set("aws:PrincipalArn", arn.as_str());
    context.set("aws:PrincipalAccount", names.account.as_str());
    context.set("aws:PrincipalType", kind);
    context.set("aws:userid", userid);
    for tag in tags {
        context.set(&format!("aws:PrincipalTag/{}", tag.key), tag.value.as_str());
    }
    context
}

/// What is given stands in place of what was found.
fn put_given(context: &mut Context, given: &[ContextEntry]) {
    for entry in given {
        context.remove(&entry.key);
        match entry.values.as_slice() {
            [value] if !entry.is_list => context.set(&entry.key, value.as_str()),
            values => context.set_many(&entry.key, values.iter().map(String::as_str)),
        }
    }
}

fn owner(names: &Names, given: Option<&str>) -> Result<String, IamError> {
    let Some(given) = given else {
        return Ok(names.account.to_string());
    };
    let account = match given.parse::<Arn>() {
        Ok(arn) => arn
            .as_str()
            .split(':')
            .nth(4)
            .unwrap_or_default()
            .to_owned(),
        Err(_) => given.to_owned(),
    };
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        let why = format!("ResourceOwner {given} is not the ARN of an account.");
        return Err(IamError::InvalidInput(why));
    }
    Ok(account)
}

fn check_actions(actions: &[String]) -> Result<(), IamError> {
    let is_action = |action: &&String| {
        !action.contains(['*', '?'])
            && action
                .split_once(':')
                .is_some_and(|(service, name)| !service.is_empty() && !name.is_empty())
    };
    match actions.iter().find(|action| !is_action(action)) {
        Some(action) => Err(IamError::InvalidInput(format!(
            "Invalid action name: {action}"
        ))),
        None => Ok(()),
    }
}

/// Each action on each resource, under keys that rise.
fn questions(input: &SimulateInput) -> impl Iterator<Item = (String, (&str, &str))> {
    let everything = input.resources.is_empty().then_some("*");
    let pairs = input.actions.iter().flat_map(move |action| {
        let resources = input.resources.iter().map(String::as_str);
        resources
            .chain(everything)
            .map(move |resource| (action.as_str(), resource))
    });
    let numbered = pairs.enumerate();
    numbered.map(|(number, pair)| (format!("{number:012}"), pair))
}

/// The page of results that was asked for.
fn results(
    directory: &Directory,
    names: &Names,
    input: &SimulateInput,
    now: Timestamp,
    pager: Pager<'_>,
) -> Result<Page<Simulated>, IamError> {
    check_actions(&input.actions)?;
    let simulation = Simulation::prepare(directory, names, input, now)?;
    let pager = pager.at_most(simulation.most_results());
    let page = pager.page(questions(input))?;
    let asked = page.items.into_iter();
    Ok(Page {
        items: asked
            .map(|(action, resource)| simulation.simulate(action, resource))
            .collect(),
        marker: page.marker,
    })
}

/// What is asked of the policies of whoever simulates.
fn ask_about(directory: &Directory, names: &Names, arn: &str) -> Ask {
    match holder_of(arn) {
        Ok(holder) => ask::holder(directory, names, &holder),
        Err(_) => Ask::any(),
    }
}

fn principal_keys(
    directory: &Directory,
    names: &Names,
    arn: &str,
    policies: &[String],
) -> Result<Vec<String>, IamError> {
    let mut parts = Parts::default();
    parts.add_held(directory, source_of(directory, names, arn)?)?;
    let given = parts.add_given("PolicyInputList", policies, PolicyKind::Identity)?;
    parts.identity.extend(given);
    Ok(parts.context_keys())
}

/// Runs a simulation where it holds up nobody but those who simulate.
async fn off_the_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IamError> + Send + 'static,
) -> Result<T, IamError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        IamError::from(InternalError::Store(StoreError::Engine(error)))
    };
    let permit = RUNNING.acquire().await;
    let permit = permit.map_err(|error| failed(Box::new(error)))?;
    // The permit goes along: a caller who leaves does not make room before the work is done.
    let running = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    running.await.map_err(|error| failed(Box::new(error)))?
}

impl Control {
    /// `SimulatePrincipalPolicy`, and `SimulateCustomPolicy` where no principal is given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn simulate_policy(
        &self,
        call: &Call,
        input: SimulateInput,
    ) -> Result<Recorded<Page<Simulated>>, IamError> {
        let rule: &OperationRule = match input.principal {
            Some(_) => &authorize::SIMULATE_PRINCIPAL_POLICY,
            None => &authorize::SIMULATE_CUSTOM_POLICY,
        };
        let names = &self.inner.names;
        self.pager(rule, &input.page)?;
        let directory = self.directory().await?;
        let asked = match &input.principal {
            Some(arn) => ask_about(&directory, names, arn),
            None => Ask::any(),
        };
        let own = names.caller(&call.caller);
        // Whoever is supposed to ask brings tags of their own, which decisions tell of.
        let other = input
            .caller
            .as_deref()
            .filter(|arn| own.as_ref().is_none_or(|own| own.as_str() != *arn));
        let asked = match other.map(holder_of) {
            Some(Ok(holder)) => {
                let resource = ask::holder_itself(&directory, names, &holder);
                let action = authorize::SIMULATE_PRINCIPAL_POLICY.action;
                asked.also_with(action, vec![resource], Keys::default())
            }
            Some(Err(_)) | None => asked,
        };
        self.authorize_in(&directory, call, rule, &asked, None, ())?;
        let (control, now) = (self.clone(), call.now);
        let page = off_the_threads(move || {
            let pager = control.pager(rule, &input.page)?;
            results(&directory, &control.inner.names, &input, now, pager)
        });
        let recorded = self.record(call, rule, Done::with(page.await?)).await;
        recorded.map_err(InternalError::into_iam)
    }

    /// `GetContextKeysForPrincipalPolicy`: of the principal's policies and of those given.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_context_keys_for_principal_policy(
        &self,
        call: &Call,
        arn: &str,
        policies: &[String],
    ) -> Result<Recorded<Vec<String>>, IamError> {
        let names = &self.inner.names;
        self.read_identities(
            call,
            &authorize::GET_CONTEXT_KEYS_FOR_PRINCIPAL_POLICY,
            |directory| ask_about(directory, names, arn),
            |directory, _| principal_keys(directory, names, arn, policies),
        )
        .await
    }

    /// `GetContextKeysForCustomPolicy`.
    ///
    /// # Errors
    /// As [`IamError`] says.
    pub async fn get_context_keys_for_custom_policy(
        &self,
        call: &Call,
        policies: &[String],
    ) -> Result<Recorded<Vec<String>>, IamError> {
        self.read_identities(
            call,
            &authorize::GET_CONTEXT_KEYS_FOR_CUSTOM_POLICY,
            |_| Ask::any(),
            |_, _| {
                let mut parts = Parts::default();
                parts.identity =
                    parts.add_given("PolicyInputList", policies, PolicyKind::Identity)?;
                Ok(parts.context_keys())
            },
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use sortie_ports::Identity;

    use super::*;
    use crate::iam::testing::{
        ACCOUNT, NOW, READ_ONLY, Rows, allow, group, names, policy, role, text, user,
    };

    const ALICE: &str = "arn:aws:iam::111122223333:user/team/alice";

    /// Alice has a policy of her own, one of her group, and a managed one.
    fn directory() -> Directory {
        let mut alice = user("alice", 1);
        alice
            .grants
            .inline
            .insert("own".to_owned(), allow("ssm:StartSession"));
        alice.tags = vec![Tag::new("Team", "blue").unwrap()];
        let mut ops = group("Ops", 2);
        ops.grants.attached = vec![
            format!("arn:aws:iam::{ACCOUNT}:policy/Start")
                .parse()
                .unwrap(),
        ];
        alice.groups = vec![ops.unique_id.clone()];
        Rows::of([
            Identity::User(alice),
            Identity::Group(ops),
            Identity::Policy(policy("Start", 3)),
            Identity::Role(role("Dev", 4)),
        ])
        .directory()
    }

    fn run(input: &SimulateInput) -> Result<Vec<Simulated>, IamError> {
        check_actions(&input.actions)?;
        let simulation = Simulation::prepare(&directory(), &names(), input, NOW)?;
        Ok(questions(input)
            .map(|(_, (action, resource))| simulation.simulate(action, resource))
            .collect())
    }

    fn of_alice(actions: &[&str]) -> SimulateInput {
        SimulateInput {
            principal: Some(ALICE.to_owned()),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            ..SimulateInput::default()
        }
    }

    fn policies(simulated: &Simulated) -> Vec<(&str, PolicyOrigin)> {
        let matched = simulated.matched.iter();
        matched
            .map(|matched| (matched.policy.as_str(), matched.origin))
            .collect()
    }

    #[test]
    fn every_policy_that_allows_is_named() {
        let results = run(&of_alice(&["ssm:StartSession", "iam:CreateUser"])).unwrap();
        let [start, create] = results.as_slice() else {
            panic!("{results:?}");
        };
        assert_eq!(start.outcome, Outcome::Allowed);
        assert_eq!(
            policies(start),
            [
                ("user_alice_own", PolicyOrigin::User),
                ("Start", PolicyOrigin::UserManaged)
            ]
        );
        assert_eq!(create.outcome, Outcome::ImplicitlyDenied);
        assert!(create.matched.is_empty());
    }

    #[test]
    fn a_denial_is_the_only_statement_named() {
        let input = SimulateInput {
            policies: vec![allow("ssm:*"), allow("ssm:*").replace("Allow", "Deny")],
            ..of_alice(&["ssm:StartSession"])
        };
        let results = run(&input).unwrap();
        let result = results.first().unwrap();
        assert_eq!(result.outcome, Outcome::ExplicitlyDenied);
        assert_eq!(
            policies(result),
            [("PolicyInputList.2", PolicyOrigin::Given)]
        );
    }

    #[test]
    fn a_boundary_limits_and_says_so() {
        let bounded = |boundary: &str| SimulateInput {
            boundaries: vec![allow(boundary)],
            ..of_alice(&["ssm:StartSession"])
        };
        for (boundary, outcome, allows) in [
            ("ssm:*", Outcome::Allowed, true),
            ("iam:*", Outcome::ImplicitlyDenied, false),
        ] {
            let results = run(&bounded(boundary)).unwrap();
            let result = results.first().unwrap();
            assert_eq!(
                (result.outcome, result.boundary_allows),
                (outcome, Some(allows))
            );
        }
        let results = run(&of_alice(&["ssm:StartSession"])).unwrap();
        assert_eq!(results.first().unwrap().boundary_allows, None);
    }

    #[test]
    fn keys_of_the_principal_are_known_and_the_others_are_missing() {
        let conditional = allow("ssm:SendCommand").replace(
            "\"Resource\"",
            "\"Condition\":{\"StringEquals\":{\"ssm:resourceTag/T\":\"${aws:PrincipalTag/Team}\"}},\
             \"Resource\"",
        );
        let mut input = SimulateInput {
            policies: vec![conditional],
            ..of_alice(&["ssm:SendCommand"])
        };
        let results = run(&input).unwrap();
        let result = results.first().unwrap();
        assert_eq!(result.outcome, Outcome::ImplicitlyDenied);
        assert_eq!(*result.missing_keys, ["ssm:resourceTag/T"]);
        input.context = vec![ContextEntry {
            key: "SSM:ResourceTag/T".to_owned(),
            values: vec!["blue".to_owned()],
            is_list: false,
        }];
        let results = run(&input).unwrap();
        assert_eq!(results.first().unwrap().outcome, Outcome::Allowed);
    }

    /// An `Allow` under a condition with `count` keys of their own.
    fn with_keys(document: usize, count: usize) -> String {
        let keys: Vec<String> = (0..count)
            .map(|key| format!(r#""a:{document}k{key}":"""#))
            .collect();
        allow("ssm:*").replace(
            "\"Resource\"",
            &format!(
                r#""Condition":{{"StringEquals":{{{}}}}},"Resource""#,
                keys.join(",")
            ),
        )
    }

    fn is_invalid<T: std::fmt::Debug>(outcome: Result<T, IamError>) -> bool {
        matches!(outcome, Err(IamError::InvalidInput(_)))
    }

    #[test]
    fn given_policies_have_quotas_alone_and_together() {
        let padded = |size: usize| {
            let bare = allow("ssm:*");
            let pad = "x".repeat(size - document_size(&bare));
            bare.replace("ssm:*", &format!("ssm:*{pad}"))
        };
        let given = |policies: Vec<String>, boundaries: Vec<String>| {
            run(&SimulateInput {
                policies,
                boundaries,
                actions: vec!["ssm:StartSession".to_owned()],
                ..SimulateInput::default()
            })
        };
        assert!(given(vec![padded(10_240)], vec![padded(6_144)]).is_ok());
        assert!(is_invalid(given(vec![padded(10_241)], Vec::new())));
        assert!(is_invalid(given(Vec::new(), vec![padded(6_145)])));
        assert!(given(vec![padded(10_000); 13], Vec::new()).is_ok());
        assert!(is_invalid(given(vec![padded(10_000); 14], Vec::new())));
        let both = given(vec![padded(10_000); 12], vec![padded(6_000); 2]);
        assert!(is_invalid(both));
        let mut parts = Parts::default();
        let texts = [padded(10_241)];
        let kind = PolicyKind::Identity;
        assert!(is_invalid(parts.add_given("List", &texts, kind).map(drop)));
    }

    #[test]
    fn a_page_has_fewer_results_the_more_each_of_them_says() {
        let sealer: crate::seal::Sealer = crate::seal::RootKey::from_bytes([3; 32])
            .derive(crate::seal::Purpose::Page)
            .unwrap();
        let mut input = SimulateInput {
            policies: (0..25).map(|document| with_keys(document, 340)).collect(),
            actions: (0..1000).map(|action| format!("ssm:A{action}")).collect(),
            ..SimulateInput::default()
        };
        input.page.max_items = Some(1000);
        let (mut given, mut pages) = (0, 0);
        loop {
            let pager = Pager::new(&sealer, "SimulateCustomPolicy", &input.page).unwrap();
            let page = results(&directory(), &names(), &input, NOW, pager).unwrap();
            let keys = page
                .items
                .iter()
                .flat_map(|result| result.missing_keys.iter());
            let said: usize = keys.map(String::len).sum();
            assert!(said <= PAGE_BYTES, "{said}");
            assert!(!page.items.is_empty());
            let first = page.items.first().unwrap();
            assert_eq!(first.missing_keys.len(), 25 * 340);
            let is_shared =
                |result: &Simulated| Arc::ptr_eq(&result.missing_keys, &first.missing_keys);
            assert!(page.items.iter().all(is_shared));
            (given, pages) = (given + page.items.len(), pages + 1);
            input.page.marker = page.marker;
            // The rest is cut in the same way.
            if pages == 3 {
                break;
            }
        }
        assert!(given < 1000 && input.page.marker.is_some());
        input.policies = vec![allow("ssm:*")];
        input.page.marker = None;
        let pager = Pager::new(&sealer, "SimulateCustomPolicy", &input.page).unwrap();
        let page = results(&directory(), &names(), &input, NOW, pager).unwrap();
        assert_eq!(page.items.len(), 1000);
    }

    #[test]
    fn a_resource_policy_allows_the_caller() {
        let resource_policy = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Principal":{{"AWS":"{ALICE}"}},
                "Action":"s3:GetObject","Resource":"arn:aws:s3:::logs/*"}}}}"#
        );
        let input = SimulateInput {
            resource_policy: Some(resource_policy),
            resources: vec![
                "arn:aws:s3:::logs/a".to_owned(),
                "arn:aws:s3:::b/c".to_owned(),
            ],
            ..of_alice(&["s3:GetObject"])
        };
        let results = run(&input).unwrap();
        let [logs, other] = results.as_slice() else {
            panic!("{results:?}");
        };
        assert_eq!(policies(logs), [("ResourcePolicy", PolicyOrigin::Resource)]);
        assert_eq!(other.outcome, Outcome::ImplicitlyDenied);
        // Of a role nobody in particular asks, unless a caller is named.
        let role = SimulateInput {
            principal: Some(format!("arn:aws:iam::{ACCOUNT}:role/Dev")),
            ..input
        };
        let outcome = |input: &SimulateInput| run(input).unwrap().first().unwrap().outcome;
        assert_eq!(outcome(&role), Outcome::ImplicitlyDenied);
        let called = SimulateInput {
            caller: Some(ALICE.to_owned()),
            ..role
        };
        assert_eq!(outcome(&called), Outcome::Allowed);
    }

    #[test]
    fn statements_are_found_in_their_text() {
        let text = "{\n \"Statement\": [\n  {\"a\": \"é}\"}, {\n}\n ]\n}";
        let at = |line, column| TextPosition { line, column };
        assert_eq!(span(text, 0), Some((at(3, 3), at(3, 14))));
        assert_eq!(span(text, 1), Some((at(3, 16), at(4, 2))));
        assert_eq!(span(text, 2), None);
        let one = r#"{"Statement": {"a": 1}}"#;
        assert_eq!(span(one, 0), Some((at(1, 15), at(1, 23))));
    }

    #[test]
    fn what_cannot_be_simulated_is_refused() {
        let with = |change: &dyn Fn(&mut SimulateInput)| {
            let mut input = of_alice(&["ssm:StartSession"]);
            change(&mut input);
            text(run(&input))
        };
        let principal = |arn: &str| {
            let arn = arn.to_owned();
            with(&move |input| input.principal = Some(arn.clone()))
        };
        assert_eq!(
            principal("arn:aws:iam::111122223333:user/team/bob"),
            "The user with name bob cannot be found."
        );
        assert_eq!(
            principal("arn:aws:iam::111122223333:user/alice"),
            "The user with name alice cannot be found."
        );
        assert_eq!(
            principal(READ_ONLY),
            format!(
                "Invalid Entity Arn: {READ_ONLY} does not clearly define entity type and name."
            )
        );
        for action in ["StartSession", "ssm:*", "ssm:", ":StartSession"] {
            let said = with(&|input| input.actions = vec![action.to_owned()]);
            assert_eq!(said, format!("Invalid action name: {action}"));
        }
        let said = with(&|input| input.policies = vec!["{".to_owned()]);
        assert!(said.starts_with("PolicyInputList.1 is not valid"), "{said}");
        let said = with(&|input| input.caller = Some(format!("arn:aws:iam::{ACCOUNT}:role/Dev")));
        assert!(said.starts_with("CallerArn"), "{said}");
        let said = with(&|input| input.resource_owner = Some("me".to_owned()));
        assert!(said.starts_with("ResourceOwner"), "{said}");
    }
}
