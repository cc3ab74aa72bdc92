//! One audit record: CloudTrail's record format, version 1.11. Says what is in a record and how it
//! is written as JSON; who appends it, and when, is `control`'s matter.

use serde_json::{Map, Value, json};
use sortie_types::{AccountId, Arn, Region, Timestamp};
use uuid::Uuid;

/// What stands in a record where a secret was.
pub const HIDDEN: &str = "Value hidden due to security reasons.";

/// CloudTrail cuts error texts and user agents at one kilobyte.
const TEXT_LIMIT: usize = 1024;

/// The version of the record format that is written.
const EVENT_VERSION: &str = "1.11";

/// Who made the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserIdentity {
    /// Nobody that we know: unsigned, or signed with a key that does not exist.
    Anonymous {
        /// The key id that was presented, if any.
        access_key_id: Option<String>,
    },
    /// A role session. That of a managed node has the node id as its name.
    AssumedRole {
        /// `<role unique id>:<session name>`.
        principal_id: String,
        /// The STS ARN of the role session.
        arn: Arn,
        /// The temporary key.
        access_key_id: Option<String>,
        /// The role behind the session.
        issuer: SessionIssuer,
        /// What is known of the credentials.
        session: SessionAttributes,
        /// Who is behind the session, where that was said.
        source_identity: Option<String>,
    },
    /// An IAM user.
    IamUser {
        /// `AIDA…`.
        principal_id: String,
        /// The user's ARN.
        arn: Arn,
        /// The key that signed.
        access_key_id: Option<String>,
        /// The user's name.
        user_name: String,
        /// What is known of temporary credentials; `None` with a long-lived key.
        session: Option<SessionAttributes>,
    },
    /// The installation itself, in service events.
    Service {
        /// Such as `ssm.amazonaws.com`.
        invoked_by: String,
    },
    /// Somebody who tried to sign in under a name that no user has. The name is not written: it may
    /// be a password.
    UnknownUser,
}

/// What is known of temporary credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionAttributes {
    /// When they were issued.
    pub created: Option<Timestamp>,
    /// Whether a code of an MFA device was checked for them.
    pub mfa: bool,
}

/// The role that issued a role session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionIssuer {
    /// `AROA…`.
    pub principal_id: String,
    /// The role's IAM ARN.
    pub arn: Arn,
    /// The role's name.
    pub user_name: String,
}

/// Whether an event is about managing things or about using them. Data events are written only
/// where an installation asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Use of a resource: node traffic.
    Data,
    /// Calls that manage.
    Management,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error code as the caller saw it; empty where CloudTrail writes none.
    pub code: String,
    /// The text as the caller saw it.
    pub message: String,
}

/// A resource that the call was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Such as `AWS::SSM::ManagedNode`.
    pub kind: &'static str,
    /// Its ARN.
    pub arn: Arn,
}

/// One API call or service event.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// Unique id of this record.
    pub event_id: Uuid,
    /// When the call was answered.
    pub event_time: Timestamp,
    /// Such as `ssm.amazonaws.com`.
    pub event_source: String,
    /// The operation.
    pub event_name: String,
    /// `AwsApiCall`, `AwsServiceEvent`, ….
    pub event_type: &'static str,
    /// The installation's region.
    pub region: Region,
    /// The installation's account.
    pub account_id: AccountId,
    /// The caller's address, or a service's name.
    pub source_ip_address: String,
    /// The `User-Agent` header; shortened when written.
    pub user_agent: Option<String>,
    /// Who called.
    pub identity: UserIdentity,
    /// The input with lower-camel names and secrets replaced, or `null`.
    pub request_parameters: Value,
    /// The output of a successful write, or `null`.
    pub response_elements: Value,
    /// Further facts, or `null`.
    pub additional: Value,
    /// For service events: what happened.
    pub service_event: Value,
    /// The id that the caller saw in `x-amzn-RequestId`.
    pub request_id: Uuid,
    /// Whether the operation only reads.
    pub read_only: bool,
    /// What it was about.
    pub resources: Vec<Resource>,
    /// Management or data.
    pub category: Category,
    /// Set when the call was refused or failed.
    pub failure: Option<Failure>,
}

impl AuditRecord {
    /// The record as CloudTrail writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut record = Map::new();
        let mut put = |name: &str, value: Value| record.insert(name.to_owned(), value);
        put("eventVersion", EVENT_VERSION.into());
        put("userIdentity", self.identity.to_json(&self.account_id));
        put("eventTime", self.event_time.iso_seconds().into());
        put("eventSource", self.event_source.as_str().into());
        put("eventName", self.event_name.as_str().into());
        put("awsRegion", self.region.as_str().into());
        put("sourceIPAddress", self.source_ip_address.as_str().into());
        if let Some(agent) = &self.user_agent {
            put("userAgent", cut(agent).into());
        }
        if let Some(failure) = &self.failure {
            if !failure.code.is_empty() {
                put("errorCode", failure.code.as_str().into());
            }
            put("errorMessage", cut(&failure.message).into());
        }
        put("requestParameters", self.request_parameters.clone());
        put("responseElements", self.response_elements.clone());
        if !self.additional.is_null() {
            put("additionalEventData", self.additional.clone());
        }
        if !self.service_event.is_null() {
            put("serviceEventDetails", self.service_event.clone());
        }
        put("requestID", self.request_id.to_string().into());
        put("eventID", self.event_id.to_string().into());
        put("readOnly", self.read_only.into());
        if !self.resources.is_empty() {
            let list = self
                .resources
                .iter()
                .map(|resource| resource.to_json(&self.account_id));
            put("resources", list.collect());
        }
        put("eventType", self.event_type.into());
        put(
            "managementEvent",
            (self.category == Category::Management).into(),
        );
        put("recipientAccountId", self.account_id.as_str().into());
        put(
            "eventCategory",
            match self.category {
                Category::Data => "Data".into(),
                Category::Management => "Management".into(),
            },
        );
        Value::Object(record)
    }

    /// What `LookupEvents` shows and filters as `Username`.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match &self.identity {
            UserIdentity::Anonymous { .. }
            | UserIdentity::Service { .. }
            | UserIdentity::UnknownUser => None,
            UserIdentity::AssumedRole { arn, .. } => arn.resource().rsplit('/').next(),
            UserIdentity::IamUser { user_name, .. } => Some(user_name),
        }
    }

    /// The key that the caller presented.
    #[must_use]
    pub fn access_key_id(&self) -> Option<&str> {
        match &self.identity {
            UserIdentity::Anonymous { access_key_id }
            | UserIdentity::AssumedRole { access_key_id, .. }
            | UserIdentity::IamUser { access_key_id, .. } => access_key_id.as_deref(),
            UserIdentity::Service { .. } | UserIdentity::UnknownUser => None,
        }
    }
}

impl UserIdentity {
    fn to_json(&self, account_id: &AccountId) -> Value {
        let account = account_id.as_str();
        let mut identity = match self {
            Self::Anonymous { .. } => json!({
                "type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL",
            }),
            Self::AssumedRole {
                principal_id,
                arn,
                issuer,
                session,
                source_identity,
                ..
            } => json!({
                "type": "AssumedRole", "principalId": principal_id, "arn": arn, "accountId": account,
                "sessionContext": role_context(issuer, *session, source_identity.as_deref(), account),
            }),
            Self::IamUser {
                principal_id,
                arn,
                user_name,
                session,
                ..
            } => {
                let mut user = json!({
                    "type": "IAMUser", "principalId": principal_id, "arn": arn,
                    "accountId": account, "userName": user_name,
                });
                if let (Some(session), Some(members)) = (session, user.as_object_mut()) {
                    let context = json!({"attributes": session.to_json()});
                    members.insert("sessionContext".to_owned(), context);
                }
                user
            }
            Self::Service { invoked_by } => json!({"type": "AWSService", "invokedBy": invoked_by}),
            Self::UnknownUser => json!({
                "type": "IAMUser", "accountId": account, "accessKeyId": "",
                "userName": "HIDDEN_DUE_TO_SECURITY_REASONS",
            }),
        };
        if let (Some(key), Some(members)) = (self.key(), identity.as_object_mut()) {
            members.insert("accessKeyId".to_owned(), key.into());
        }
        identity
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::Anonymous { access_key_id }
            | Self::AssumedRole { access_key_id, .. }
            | Self::IamUser { access_key_id, .. } => access_key_id.as_deref(),
            Self::Service { .. } | Self::UnknownUser => None,
        }
    }
}

impl SessionAttributes {
    fn to_json(self) -> Value {
        // CloudTrail writes the flag as a text.
        let mut attributes = json!({"mfaAuthenticated": self.mfa.to_string()});
        if let (Some(created), Some(members)) = (self.created, attributes.as_object_mut()) {
            members.insert("creationDate".to_owned(), created.iso_seconds().into());
        }
        attributes
    }
}

fn role_context(
    issuer: &SessionIssuer,
    session: SessionAttributes,
    source_identity: Option<&str>,
    account: &str,
) -> Value {
    let mut context = json!({
        "sessionIssuer": {
            "type": "Role", "principalId": issuer.principal_id, "arn": issuer.arn,
            "accountId": account, "userName": issuer.user_name,
        },
        "attributes": session.to_json(),
    });
    if let (Some(identity), Some(members)) = (source_identity, context.as_object_mut()) {
        members.insert("sourceIdentity".to_owned(), identity.into());
    }
    context
}

impl Resource {
    fn to_json(&self, account_id: &AccountId) -> Value {
        json!({"accountId": account_id.as_str(), "type": self.kind, "ARN": self.arn})
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(identity: UserIdentity) -> AuditRecord {
        AuditRecord {
            event_id: Uuid::nil(),
            event_time: Timestamp::from_millis(1_777_881_600_000),
            event_source: "ssm.amazonaws.com".into(),
            event_name: "StartSession".into(),
            event_type: "AwsApiCall",
            region: "local-1".parse().unwrap(),
            account_id: "111122223333".parse().unwrap(),
            source_ip_address: "127.0.0.1".into(),
            user_agent: Some("é".repeat(2000)),
            identity,
            request_parameters: json!({"target": "mi-0123456789abcdef0"}),
            response_elements: Value::Null,
            additional: Value::Null,
            service_event: Value::Null,
            request_id: Uuid::nil(),
            read_only: false,
            resources: Vec::new(),
            category: Category::Management,
            failure: Some(Failure {
                code: "AccessDenied".into(),
                message: "no".into(),
            }),
        }
    }

    #[test]
    fn a_users_refused_call_reads_as_cloudtrail_writes_it() {
        let user = UserIdentity::IamUser {
            principal_id: "AIDAAAAAAAAAAAAAAAAAA".into(),
            arn: Arn::new("iam", "", "111122223333", "user/alice"),
            access_key_id: Some("AKIAAAAAAAAAAAAAAAAA".into()),
            user_name: "alice".into(),
            session: None,
        };
        let written = record(user).to_json();
        assert!(written["userIdentity"].get("sessionContext").is_none());
        assert_eq!(written["eventVersion"], "1.11");
        assert_eq!(written["eventTime"], "2026-05-04T08:00:00Z");
        assert_eq!(written["userIdentity"]["type"], "IAMUser");
        assert_eq!(
            written["userIdentity"]["accessKeyId"],
            "AKIAAAAAAAAAAAAAAAAA"
        );
        assert_eq!(written["errorCode"], "AccessDenied");
        assert_eq!(written["responseElements"], Value::Null);
        assert_eq!(written["managementEvent"], true);
        assert_eq!(written["userAgent"].as_str().unwrap().len(), TEXT_LIMIT);
        assert!(written.get("resources").is_none());
    }

    #[test]
    fn temporary_credentials_say_when_they_were_issued_and_whether_with_mfa() {
        let session = SessionAttributes {
            created: Some(Timestamp::from_millis(1_777_881_310_000)),
            mfa: true,
        };
        let attributes = json!({
            "mfaAuthenticated": "true", "creationDate": "2026-05-04T07:55:10Z",
        });
        let user = UserIdentity::IamUser {
            principal_id: "AIDAAAAAAAAAAAAAAAAAA".into(),
            arn: Arn::new("iam", "", "111122223333", "user/alice"),
            access_key_id: Some("ASIAAAAAAAAAAAAAAAAA".into()),
            user_name: "alice".into(),
            session: Some(session),
        };
        let written = record(user).to_json();
        let context = &written["userIdentity"]["sessionContext"];
        assert_eq!(*context, json!({"attributes": attributes}));
        let role = UserIdentity::AssumedRole {
            principal_id: "AROAAAAAAAAAAAAAAAAAA:carol".into(),
            arn: Arn::new("sts", "", "111122223333", "assumed-role/Dev/carol"),
            access_key_id: Some("ASIAAAAAAAAAAAAAAAAA".into()),
            issuer: SessionIssuer {
                principal_id: "AROAAAAAAAAAAAAAAAAAA".into(),
                arn: Arn::new("iam", "", "111122223333", "role/team/Dev"),
                user_name: "Dev".into(),
            },
            session,
            source_identity: Some("carol@example".into()),
        };
        let record = record(role);
        assert_eq!(record.username(), Some("carol"));
        let written = record.to_json();
        let context = &written["userIdentity"]["sessionContext"];
        assert_eq!(context["attributes"], attributes);
        assert_eq!(context["sourceIdentity"], "carol@example");
        assert_eq!(context["sessionIssuer"]["userName"], "Dev");
    }

    #[test]
    fn nobody_is_written_as_the_anonymous_principal() {
        let record = record(UserIdentity::Anonymous {
            access_key_id: None,
        });
        assert_eq!(record.username(), None);
        assert_eq!(
            record.to_json()["userIdentity"]["accountId"],
            "ANONYMOUS_PRINCIPAL"
        );
    }

    #[test]
    fn a_nodes_username_is_its_id() {
        let node = UserIdentity::AssumedRole {
            principal_id: "AROAAAAAAAAAAAAAAAAAA:mi-0123456789abcdef0".into(),
            arn: Arn::new(
                "sts",
                "",
                "111122223333",
                "assumed-role/Nodes/mi-0123456789abcdef0",
            ),
            access_key_id: None,
            issuer: SessionIssuer {
                principal_id: "AROAAAAAAAAAAAAAAAAAA".into(),
                arn: Arn::new("iam", "", "111122223333", "role/Nodes"),
                user_name: "Nodes".into(),
            },
            session: SessionAttributes::default(),
            source_identity: None,
        };
        assert_eq!(record(node).username(), Some("mi-0123456789abcdef0"));
    }
}
