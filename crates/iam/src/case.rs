//! Cases in JSON: a request with all its policies, judged in one go. For tests, simulations, and for
//! comparing decisions with those of other evaluators.
//!
//! ```json
//! {"id": "S001",
//!  "request": {"principal": "arn:aws:iam::111122223333:user/alice", "action": "ssm:StartSession",
//!              "resources": ["arn:…", {"arn": "arn:…", "context": {"aws:ResourceTag/Env": "dev"}}],
//!              "account": "111122223333", "context": {"aws:username": "alice"}},
//!  "identity": [{…}], "boundary": [{…}], "session": {…}, "resourcePolicy": {…},
//!  "scps": [[{…}]], "rcps": [[{…}]]}
//! ```
//!
//! `resource` stands for a list of one; without either the action has no resource. Without `account`
//! the resource is of the account in its ARN, else of the caller's. Members not named here are passed
//! over, so that a case may carry a title or what is expected of it.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    Context, Decision, NamedPolicy, Policies, Policy, PolicyError, PolicyKind, PolicySource,
    Principal, Request, Resource, arn::ArnParts, explain_all,
};

/// Why a case cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// Not JSON, or not shaped like a case.
    #[error("not a case: {0}")]
    Json(#[from] serde_json::Error),
    /// A condition key holds something that is no scalar and no list of scalars.
    #[error("the context key `{0}` holds neither a scalar nor a list of scalars")]
    Context(String),
    /// The action is not `service:Name`.
    #[error("`{0}` is not an action")]
    Action(String),
    /// The principal is unknown.
    #[error(transparent)]
    Principal(#[from] crate::ParsePrincipalError),
    /// A policy is not valid.
    #[error("the {place} is not valid: {error} ({})", error.detail())]
    Policy {
        /// Which one.
        place: String,
        /// What is wrong with it.
        error: PolicyError,
    },
}

#[derive(Deserialize)]
struct Id {
    id: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case<'a> {
    request: CaseRequest,
    #[serde(default, borrow)]
    identity: Vec<&'a RawValue>,
    #[serde(borrow)]
    boundary: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    resource_policy: Option<&'a RawValue>,
    #[serde(default, borrow)]
    scps: Vec<Vec<&'a RawValue>>,
    #[serde(default, borrow)]
    rcps: Vec<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct CaseRequest {
    principal: String,
    action: String,
    resource: Option<CaseResource>,
    resources: Option<Vec<CaseResource>>,
    account: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CaseResource {
    Arn(String),
    WithContext {
        arn: String,
        #[serde(default)]
        context: BTreeMap<String, Value>,
    },
}

/// The `id` of a case, also of one that cannot be judged; null where there is none.
#[must_use]
pub fn id(line: &str) -> Value {
    serde_json::from_str::<Id>(line).map_or(Value::Null, |case| case.id)
}

/// Judges a case.
///
/// # Errors
///
/// [`CaseError`] when it is not one.
pub fn judge(line: &str) -> Result<Decision, CaseError> {
    let case: Case<'_> = serde_json::from_str(line)?;
    let context = read_context(&case.request.context)?;
    let principal = Principal::from_text(&case.request.principal, &context)?;
    if !case.request.action.contains(':') {
        return Err(CaseError::Action(case.request.action));
    }
    let resources = read_resources(&case.request)?;
    let sets = Sets::read(&case, &resources)?;
    let account = case
        .request
        .account
        .as_deref()
        .or_else(|| owner(&resources))
        .or_else(|| principal.account())
        .unwrap_or_default();
    let resources: Vec<Resource<'_>> = resources
        .iter()
        .map(|(arn, context)| Resource::with_context(arn, context))
        .collect();
    let request = Request {
        principal: &principal,
        action: &case.request.action,
        resource: Resource::new("*"),
        context: &context,
        account,
    };
    Ok(explain_all(&request, &resources, &sets.policies()))
}

fn owner(resources: &[(String, Context)]) -> Option<&str> {
    let (arn, _) = resources.first()?;
    let parts = ArnParts::parse(arn)?;
    Some(parts.account()).filter(|account| !account.is_empty())
}

fn read_context(members: &BTreeMap<String, Value>) -> Result<Context, CaseError> {
    let mut context = Context::new();
    for (key, value) in members {
        let bad = || CaseError::Context(key.clone());
        match value {
            Value::Array(items) => {
                let values: Option<Vec<String>> = items.iter().map(scalar).collect();
                context.set_many(key, values.ok_or_else(bad)?);
            }
            value => context.set(key, scalar(value).ok_or_else(bad)?),
        }
    }
    Ok(context)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(match number.as_f64() {
            // The form that policies use as well: 10, not 10.0.
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        }),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn read_resources(request: &CaseRequest) -> Result<Vec<(String, Context)>, CaseError> {
    let several = request.resources.iter().flatten();
    let resources = request.resource.iter().chain(several);
    let read = resources.map(|resource| match resource {
        CaseResource::Arn(arn) => Ok((arn.clone(), Context::new())),
        CaseResource::WithContext { arn, context } => Ok((arn.clone(), read_context(context)?)),
    });
    read.collect()
}

/// The policies of a case.
struct Sets {
    identity: Vec<NamedPolicy>,
    boundary: Option<Vec<NamedPolicy>>,
    session: Option<Vec<NamedPolicy>>,
    resource: Option<NamedPolicy>,
    scps: Vec<Vec<NamedPolicy>>,
    rcps: Vec<Vec<NamedPolicy>>,
}

impl Sets {
    fn read(case: &Case<'_>, resources: &[(String, Context)]) -> Result<Self, CaseError> {
        let list = |texts: &[&RawValue], kind, what| {
            let policies = texts.iter().zip(1..);
            policies
                .map(|(text, position)| read_policy(text, kind, what, position))
                .collect::<Result<Vec<_>, _>>()
        };
        let levels = |levels: &[Vec<&RawValue>], kind, what| {
            let levels = levels.iter().map(|level| list(level, kind, what));
            levels.collect::<Result<Vec<_>, _>>()
        };
        let boundary = case
            .boundary
            .as_ref()
            .map(|texts| list(texts, PolicyKind::Boundary, "boundary"));
        let session = case
            .session
            .map(|text| list(&[text], PolicyKind::Session, "session policy"));
        let is_role = |arn: &str| {
            ArnParts::parse(arn)
                .is_some_and(|p| p.service() == "iam" && p.rest.starts_with("role/"))
        };
        let resource_kind = match resources.first() {
            Some((arn, _)) if is_role(arn) => PolicyKind::Trust,
            _ => PolicyKind::Resource,
        };
        let resource = case
            .resource_policy
            .map(|text| read_policy(text, resource_kind, "resource policy", 1));
        Ok(Self {
            identity: list(&case.identity, PolicyKind::Identity, "identity policy")?,
            boundary: boundary.transpose()?,
            session: session.transpose()?,
            resource: resource.transpose()?,
            scps: levels(&case.scps, PolicyKind::Identity, "service control policy")?,
            rcps: levels(&case.rcps, PolicyKind::Resource, "resource control policy")?,
        })
    }

    fn policies(&self) -> Policies<'_> {
        Policies {
            identity: &self.identity,
            boundary: self.boundary.as_deref(),
            session: self.session.as_deref(),
            resource: self.resource.as_ref(),
            scps: &self.scps,
            rcps: &self.rcps,
        }
    }
}

fn read_policy(
    text: &RawValue,
    kind: PolicyKind,
    what: &str,
    position: usize,
) -> Result<NamedPolicy, CaseError> {
    let policy = Policy::parse(text.get(), kind).map_err(|error| CaseError::Policy {
        place: format!("{what} {position}"),
        error,
    })?;
    Ok(NamedPolicy {
        source: PolicySource::Unnamed { position },
        policy: Arc::new(policy),
    })
}
