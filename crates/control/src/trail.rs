//! The audit trail: how a record is made of a call, how it is committed together with the call's
//! changes, how refused and failed calls get theirs, and `LookupEvents`.

use std::time::Duration;

use serde_json::{Value, json};
use sortie_evidence::{
    AuditRecord, Category, Failure, Resource, SessionAttributes, SessionIssuer, UserIdentity,
};
use sortie_ports::{Change, Commit, Role, TrailAttribute, TrailEntry, TrailQuery};
use sortie_types::{Region, SessionId, Timestamp};

use crate::{
    Control,
    arns::role_name,
    authorize::{self, Ask, Denied, OperationRule, rule_named},
    call::{
        Call, Caller, InternalError, NodeCaller, Recorded, RoleCaller, TemporarySession,
        UserCaller, internal, refusable,
    },
    context::GLOBAL_REGION,
    failures::Verdict,
    mint::{self, RandomError},
    token,
};

/// Events can be looked up for this long.
const LOOK_BACK: Duration = Duration::from_hours(90 * 24);
/// Events on a page, at most and unless asked otherwise.
const PAGE: usize = 50;
/// CloudTrail's limit of `requestParameters` and `responseElements`.
const ELEMENTS_LIMIT: usize = 100 * 1024;
/// The service under whose name the node's channels are recorded.
const SSM: &str = "ssm.amazonaws.com";

/// What a successful operation leaves: its answer, and what is committed with it.
pub(crate) struct Done<T> {
    pub(crate) answer: T,
    pub(crate) changes: Vec<Change>,
    pub(crate) response: Value,
    pub(crate) resources: Vec<Resource>,
}

impl<T> Done<T> {
    /// An answer that changes nothing and shows nothing in the trail.
    pub(crate) fn with(answer: T) -> Self {
        Self {
            answer,
            changes: Vec::new(),
            response: Value::Null,
            resources: Vec::new(),
        }
    }

    pub(crate) fn changing(mut self, changes: Vec<Change>) -> Self {
        self.changes = changes;
        self
    }

    pub(crate) fn showing(mut self, response: Value) -> Self {
        self.response = response;
        self
    }

    pub(crate) fn about(mut self, resources: impl IntoIterator<Item = Resource>) -> Self {
        self.resources.extend(resources);
        self
    }
}

impl Control {
    /// Commits an operation's changes with its record, and makes the proof of it.
    pub(crate) async fn record<T>(
        &self,
        call: &Call,
        rule: &OperationRule,
        done: Done<T>,
    ) -> Result<Recorded<T>, InternalError> {
        let mut commit = Commit {
            changes: done.changes,
            trail: Vec::new(),
        };
        if rule.category == Category::Management || self.inner.settings.data_events {
            let mut record = self.api_record(call, rule.category)?;
            record.response_elements = limited(done.response);
            record.resources = done.resources;
            commit.trail.push(record);
        }
        if !commit.changes.is_empty() || !commit.trail.is_empty() {
            self.inner.state.commit(commit).await?;
        }
        Ok(Recorded::new(done.answer))
    }

    /// Records a call that was refused or failed, as the caller saw it. Failures of callers that
    /// are not authenticated, and of node traffic, are written at a bounded rate per source.
    /// Without `resources`, they are named from the call's parameters.
    pub async fn record_failure(
        &self,
        call: &Call,
        code: &str,
        message: &str,
        resources: &[Resource],
    ) {
        let category =
            rule_named(call.event_name).map_or(Category::Management, |rule| rule.category);
        let stranger = matches!(call.caller, Caller::Anonymous { .. });
        let mut unwritten = 0;
        if stranger || category == Category::Data {
            match self.failures().admit(&call.source_ip, call.now) {
                Verdict::Count => return,
                Verdict::Write { unwritten: count } => unwritten = count,
            }
        }
        if let Err(error) = self
            .write_failure(call, category, (code, message), resources, unwritten)
            .await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error, request_id = %call.request_id,
                operation = call.event_name, code, "a failed call is not in the trail"
            );
        }
    }

    async fn write_failure(
        &self,
        call: &Call,
        category: Category,
        (code, message): (&str, &str),
        resources: &[Resource],
        unwritten: u64,
    ) -> Result<(), InternalError> {
        let mut record = self.api_record(call, category)?;
        record.failure = Some(Failure {
            code: code.to_owned(),
            message: message.to_owned(),
        });
        record.resources = if resources.is_empty() {
            self.named_resources(&call.request_parameters)
        } else {
            resources.to_vec()
        };
        if unwritten > 0 {
            record.additional = json!({"unrecordedFailures": unwritten});
        }
        let commit = Commit {
            changes: Vec::new(),
            trail: vec![record],
        };
        Ok(self.inner.state.commit(commit).await?)
    }

    /// The resources that a call's parameters name in a valid form.
    fn named_resources(&self, parameters: &Value) -> Vec<Resource> {
        let names = &self.inner.names;
        let text = |name: &str| parameters.get(name).and_then(Value::as_str);
        let node = text("target").or_else(|| text("instanceId"));
        let node = node.and_then(|id| id.parse().ok());
        let session = text("sessionId").and_then(|id| id.parse::<SessionId>().ok());
        let activation = text("activationId").and_then(|id| id.parse().ok());
        let mut found = Vec::new();
        found.extend(node.map(|id| names.node_resource(&id)));
        found.extend(session.map(|id| names.session_resource(&id)));
        found.extend(activation.map(|id| names.activation_resource(&id)));
        found
    }

    /// The record of a call, without what only its outcome knows.
    fn api_record(&self, call: &Call, category: Category) -> Result<AuditRecord, RandomError> {
        let event_source = match call.event_source {
            "ssmmessages.amazonaws.com" => SSM,
            other => other,
        };
        Ok(AuditRecord {
            event_id: mint::uuid()?,
            event_time: call.now,
            event_source: event_source.to_owned(),
            event_name: call.event_name.to_owned(),
            event_type: "AwsApiCall",
            region: self.region_of(event_source),
            account_id: self.inner.names.account.clone(),
            source_ip_address: call.source_ip.clone(),
            user_agent: call.user_agent.clone(),
            identity: self.identity(&call.caller),
            request_parameters: limited(call.request_parameters.clone()),
            response_elements: Value::Null,
            additional: Value::Null,
            service_event: Value::Null,
            request_id: call.request_id,
            read_only: call.read_only,
            resources: Vec::new(),
            category,
            failure: None,
        })
    }

    /// Where an event is filed: those of identities have one place wherever they come from.
    fn region_of(&self, event_source: &str) -> Region {
        let global = match event_source {
            "iam.amazonaws.com" => GLOBAL_REGION.parse().ok(),
            _ => None,
        };
        global.unwrap_or_else(|| self.inner.names.region.clone())
    }

    /// Something that the installation itself did or saw.
    pub(crate) fn service_event(
        &self,
        name: &str,
        details: Value,
        resources: Vec<Resource>,
        now: Timestamp,
    ) -> Result<AuditRecord, RandomError> {
        Ok(AuditRecord {
            event_id: mint::uuid()?,
            event_time: now,
            event_source: SSM.to_owned(),
            event_name: name.to_owned(),
            event_type: "AwsServiceEvent",
            region: self.inner.names.region.clone(),
            account_id: self.inner.names.account.clone(),
            source_ip_address: SSM.to_owned(),
            user_agent: None,
            identity: service_identity(),
            request_parameters: Value::Null,
            response_elements: Value::Null,
            additional: Value::Null,
            service_event: details,
            request_id: mint::uuid()?,
            read_only: false,
            resources,
            category: Category::Management,
            failure: None,
        })
    }

    pub(crate) fn identity(&self, caller: &Caller) -> UserIdentity {
        match caller {
            Caller::Anonymous { access_key } => UserIdentity::Anonymous {
                access_key_id: access_key.clone(),
            },
            Caller::Node(node) => self.node_identity(node),
            Caller::Role(role) => self.role_identity(role),
            Caller::User(user) => self.user_identity(user),
        }
    }

    fn user_identity(&self, caller: &UserCaller) -> UserIdentity {
        UserIdentity::IamUser {
            principal_id: caller.user.unique_id.to_string(),
            arn: self.inner.names.user(&caller.user),
            access_key_id: Some(caller.access_key_id.to_string()),
            user_name: caller.user.name.to_string(),
            session: caller.session.as_ref().map(session_attributes),
        }
    }

    fn role_identity(&self, caller: &RoleCaller) -> UserIdentity {
        let names = &self.inner.names;
        UserIdentity::AssumedRole {
            principal_id: format!("{}:{}", caller.role.unique_id, caller.session_name),
            arn: names.role_session(&caller.role, &caller.session_name),
            access_key_id: Some(caller.access_key_id.to_string()),
            issuer: self.issuer(&caller.role),
            session: session_attributes(&caller.session),
            source_identity: caller.session.source_identity.clone(),
        }
    }

    fn node_identity(&self, node: &NodeCaller) -> UserIdentity {
        let names = &self.inner.names;
        let issuer = match &node.role {
            Some(role) => self.issuer(role),
            // The role is gone, and was refused for that.
            None => SessionIssuer {
                principal_id: names.role_unique_id(&node.iam_role).to_string(),
                arn: names.role(&node.iam_role),
                user_name: role_name(&node.iam_role).to_owned(),
            },
        };
        UserIdentity::AssumedRole {
            principal_id: format!("{}:{}", issuer.principal_id, node.node_id),
            arn: names.node_session(&node.iam_role, &node.node_id),
            access_key_id: node.access_key_id.as_ref().map(ToString::to_string),
            issuer,
            session: SessionAttributes {
                created: node.issued,
                mfa: false,
            },
            source_identity: None,
        }
    }

    fn issuer(&self, role: &Role) -> SessionIssuer {
        SessionIssuer {
            principal_id: role.unique_id.to_string(),
            arn: self.inner.names.role_arn(role),
            user_name: role.name.clone(),
        }
    }
}

/// The installation itself.
pub(crate) fn service_identity() -> UserIdentity {
    UserIdentity::Service {
        invoked_by: SSM.to_owned(),
    }
}

fn session_attributes(session: &TemporarySession) -> SessionAttributes {
    SessionAttributes {
        created: Some(session.issued),
        mfa: session.mfa.is_some(),
    }
}

/// Elements within CloudTrail's limit; larger ones are left out and said to be.
fn limited(elements: Value) -> Value {
    if elements.to_string().len() > ELEMENTS_LIMIT {
        return json!({"omitted": "larger than 100 KB"});
    }
    elements
}

/// What to look up.
#[derive(Clone, Debug, Default)]
pub struct LookupEventsInput {
    /// At most one key and value.
    pub attributes: Vec<(String, String)>,
    /// Not before.
    pub start_time: Option<Timestamp>,
    /// Not after.
    pub end_time: Option<Timestamp>,
    /// `insight`, or none for management events.
    pub event_category: Option<String>,
    /// 1 to 50.
    pub max_results: Option<usize>,
    /// Of the page before.
    pub next_token: Option<String>,
}

/// A page of the trail.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupEventsOutput {
    /// Newest first.
    pub events: Vec<TrailEntry>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// Why nothing was looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupEventsError {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
    /// There are no events of this kind.
    #[error("event category is not valid")]
    InvalidEventCategory,
    /// More than one attribute, an unknown one, or a value it cannot have.
    #[error("lookup attribute is not valid: {0}")]
    InvalidLookupAttributes(String),
    /// Not from 1 to 50.
    #[error("max results must be from 1 to 50")]
    InvalidMaxResults,
    /// Not of the page before.
    #[error("next token is not valid")]
    InvalidNextToken,
    /// It ends before it begins.
    #[error("the start time is after the end time")]
    InvalidTimeRange,
}

internal!(LookupEventsError);
refusable!(LookupEventsError);

impl Control {
    /// `LookupEvents`: management events of the last 90 days, newest first.
    ///
    /// # Errors
    /// As [`LookupEventsError`] says.
    pub async fn lookup_events(
        &self,
        call: &Call,
        input: LookupEventsInput,
    ) -> Result<Recorded<LookupEventsOutput>, LookupEventsError> {
        const RULE: OperationRule = authorize::LOOKUP_EVENTS;
        self.authorize(call, &RULE, Ask::any(), None, ()).await?;
        let insight = match input.event_category.as_deref() {
            None => false,
            Some("insight") => true,
            Some(_) => return Err(LookupEventsError::InvalidEventCategory),
        };
        let query = self.trail_query(call, &input)?;
        let limit = query.limit;
        let mut lines = if insight {
            Vec::new()
        } else {
            let query = TrailQuery {
                limit: limit + 1,
                ..query
            };
            self.inner.state.trail(query).await?
        };
        let more = lines.len() > limit;
        lines.truncate(limit);
        let next_token = match lines.last() {
            Some((row, _)) if more => {
                Some(token::next_token(&self.inner.page_sealer, RULE.name, row)?)
            }
            _ => None,
        };
        let events = lines.into_iter().map(|(_, entry)| entry).collect();
        let done = Done::with(LookupEventsOutput { events, next_token });
        Ok(self.record(call, &RULE, done).await?)
    }

    fn trail_query(
        &self,
        call: &Call,
        input: &LookupEventsInput,
    ) -> Result<TrailQuery, LookupEventsError> {
        let attribute = match input.attributes.as_slice() {
            [] => None,
            [(key, value)] => Some(attribute(key, value)?),
            _ => {
                let why = "only one attribute can be given".to_owned();
                return Err(LookupEventsError::InvalidLookupAttributes(why));
            }
        };
        if let (Some(start), Some(end)) = (input.start_time, input.end_time)
            && start > end
        {
            return Err(LookupEventsError::InvalidTimeRange);
        }
        let limit = input.max_results.unwrap_or(PAGE);
        if !(1..=PAGE).contains(&limit) {
            return Err(LookupEventsError::InvalidMaxResults);
        }
        let name = authorize::LOOKUP_EVENTS.name;
        let after = token::cursor(&self.inner.page_sealer, name, input.next_token.as_deref())
            .map_err(|_| LookupEventsError::InvalidNextToken)?;
        let oldest = call.now.minus(LOOK_BACK);
        Ok(TrailQuery {
            attribute,
            from: Some(input.start_time.map_or(oldest, |start| start.max(oldest))),
            until: input.end_time,
            after,
            limit,
        })
    }
}

fn attribute(key: &str, value: &str) -> Result<TrailAttribute, LookupEventsError> {
    let value = value.to_owned();
    Ok(match key {
        "AccessKeyId" => TrailAttribute::AccessKeyId(value),
        "EventId" => TrailAttribute::EventId(value),
        "EventName" => TrailAttribute::EventName(value),
        "EventSource" => TrailAttribute::EventSource(value),
        "ReadOnly" => {
            let refused =
                |_| LookupEventsError::InvalidLookupAttributes("ReadOnly is true or false".into());
            TrailAttribute::ReadOnly(value.parse().map_err(refused)?)
        }
        "ResourceName" => TrailAttribute::ResourceName(value),
        "ResourceType" => TrailAttribute::ResourceType(value),
        "Username" => TrailAttribute::Username(value),
        other => {
            let why = format!("there is no attribute {other}");
            return Err(LookupEventsError::InvalidLookupAttributes(why));
        }
    })
}
