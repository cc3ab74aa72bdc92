//! The one place that says who may do what: a table of operations, and a decision that returns a
//! proof. Acting code takes proofs, not names.
//!
//! The table says what kind of caller an operation is for; the policies of the caller say the rest.
//! What policies mean is `sortie-iam`'s matter, what they are is the directory's, and what a call is
//! about is told by its operation as an [`Ask`]. Callers who may not learn nothing else: an operation
//! asks before it says whether a thing exists.

use std::sync::Arc;

use sortie_evidence::Category;
use sortie_iam::{
    Context, Decision, NamedPolicy, Outcome, Policies, Policy, PolicyKind, PolicySource, Principal,
    Request, Resource,
};
use sortie_ports::Role;
use sortie_types::{Arn, NodeId, Tag};

use crate::{
    Control,
    arns::Names,
    call::{Call, Caller, InternalError, NodeCaller, TemporarySession, UserCaller},
    context::{self, Keys},
    directory::{Directory, PrincipalPolicies},
};

/// Who may call an operation at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No authentication: the input itself is the proof.
    Anyone,
    /// Whoever is known; no permission needed.
    Authenticated,
    /// A node, as itself, with temporary credentials or its own key, where its role allows it.
    Node,
    /// A node, as itself, with its own key only, so that stolen temporary credentials cannot renew
    /// themselves. The key is the permission; the role must exist.
    NodeKey,
    /// Users and role sessions with permission. A node with temporary credentials is one.
    User,
}

/// What an action is checked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// Everything of the service: listings.
    Any,
    /// A session document.
    Document,
    /// A group of users.
    Group,
    /// A managed node.
    ManagedInstance,
    /// A virtual MFA device.
    MfaDevice,
    /// A managed policy.
    Policy,
    /// A role.
    Role,
    /// A service setting.
    ServiceSetting,
    /// A session.
    Session,
    /// An IAM user.
    User,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationRule {
    /// The service's signing name.
    pub service: &'static str,
    /// The operation.
    pub name: &'static str,
    /// The IAM action.
    pub action: &'static str,
    /// Who may call it at all.
    pub access: Access,
    /// What the action is checked on; empty: not checked.
    pub resources: &'static [ResourceKind],
    /// How it appears in the trail.
    pub category: Category,
}

macro_rules! operations {
    ($($constant:ident = $service:literal $name:literal, $access:ident on [$($kind:ident),*], $category:ident;)*) => {
        $(pub(crate) const $constant: OperationRule = OperationRule {
            service: $service,
            name: $name,
            action: concat!($service, ":", $name),
            access: Access::$access,
            resources: &[$(ResourceKind::$kind),*],
            category: Category::$category,
        };)*

        /// Every operation there is.
        pub const OPERATIONS: &[OperationRule] = &[$($constant),*];
    };
}

operations! {
    ADD_TAGS_TO_RESOURCE = "ssm" "AddTagsToResource", User on [ManagedInstance], Management;
    CREATE_ACTIVATION = "ssm" "CreateActivation", User on [Any], Management;
    CREATE_DOCUMENT = "ssm" "CreateDocument", User on [Document], Management;
    DELETE_ACTIVATION = "ssm" "DeleteActivation", User on [Any], Management;
    DELETE_DOCUMENT = "ssm" "DeleteDocument", User on [Document], Management;
    DEREGISTER_MANAGED_INSTANCE = "ssm" "DeregisterManagedInstance", User on [ManagedInstance], Management;
    DESCRIBE_ACTIVATIONS = "ssm" "DescribeActivations", User on [Any], Management;
    DESCRIBE_DOCUMENT = "ssm" "DescribeDocument", User on [Document], Management;
    DESCRIBE_DOCUMENT_PERMISSION = "ssm" "DescribeDocumentPermission", User on [Document], Management;
    DESCRIBE_INSTANCE_INFORMATION = "ssm" "DescribeInstanceInformation", User on [Any], Management;
    DESCRIBE_INSTANCE_PROPERTIES = "ssm" "DescribeInstanceProperties", User on [Any], Management;
    DESCRIBE_SESSIONS = "ssm" "DescribeSessions", User on [Any], Management;
    GET_CONNECTION_STATUS = "ssm" "GetConnectionStatus", User on [ManagedInstance], Management;
    GET_DOCUMENT = "ssm" "GetDocument", User on [Document], Management;
    GET_SERVICE_SETTING = "ssm" "GetServiceSetting", User on [ServiceSetting], Management;
    LIST_DOCUMENT_VERSIONS = "ssm" "ListDocumentVersions", User on [Document], Management;
    LIST_DOCUMENTS = "ssm" "ListDocuments", User on [Any], Management;
    LIST_TAGS_FOR_RESOURCE = "ssm" "ListTagsForResource", User on [ManagedInstance], Management;
    MODIFY_DOCUMENT_PERMISSION = "ssm" "ModifyDocumentPermission", User on [Document], Management;
    REMOVE_TAGS_FROM_RESOURCE = "ssm" "RemoveTagsFromResource", User on [ManagedInstance], Management;
    RESET_SERVICE_SETTING = "ssm" "ResetServiceSetting", User on [ServiceSetting], Management;
    RESUME_SESSION = "ssm" "ResumeSession", User on [Session], Management;
    START_SESSION = "ssm" "StartSession", User on [ManagedInstance, Document], Management;
    TERMINATE_SESSION = "ssm" "TerminateSession", User on [Session], Management;
    UPDATE_DOCUMENT = "ssm" "UpdateDocument", User on [Document], Management;
    UPDATE_DOCUMENT_DEFAULT_VERSION = "ssm" "UpdateDocumentDefaultVersion", User on [Document], Management;
    UPDATE_MANAGED_INSTANCE_ROLE = "ssm" "UpdateManagedInstanceRole", User on [ManagedInstance], Management;
    UPDATE_SERVICE_SETTING = "ssm" "UpdateServiceSetting", User on [ServiceSetting], Management;

    ASSUME_ROLE = "sts" "AssumeRole", User on [Role], Management;
    GET_CALLER_IDENTITY = "sts" "GetCallerIdentity", Authenticated on [], Management;
    GET_SESSION_TOKEN = "sts" "GetSessionToken", Authenticated on [], Management;

    LOOKUP_EVENTS = "cloudtrail" "LookupEvents", User on [Any], Management;

    ADD_USER_TO_GROUP = "iam" "AddUserToGroup", User on [Group], Management;
    ATTACH_GROUP_POLICY = "iam" "AttachGroupPolicy", User on [Group], Management;
    ATTACH_ROLE_POLICY = "iam" "AttachRolePolicy", User on [Role], Management;
    ATTACH_USER_POLICY = "iam" "AttachUserPolicy", User on [User], Management;
    CHANGE_PASSWORD = "iam" "ChangePassword", User on [User], Management;
    CREATE_ACCESS_KEY = "iam" "CreateAccessKey", User on [User], Management;
    CREATE_GROUP = "iam" "CreateGroup", User on [Group], Management;
    CREATE_LOGIN_PROFILE = "iam" "CreateLoginProfile", User on [User], Management;
    CREATE_POLICY = "iam" "CreatePolicy", User on [Policy], Management;
    CREATE_POLICY_VERSION = "iam" "CreatePolicyVersion", User on [Policy], Management;
    CREATE_ROLE = "iam" "CreateRole", User on [Role], Management;
    CREATE_USER = "iam" "CreateUser", User on [User], Management;
    CREATE_VIRTUAL_MFA_DEVICE = "iam" "CreateVirtualMFADevice", User on [MfaDevice], Management;
    DEACTIVATE_MFA_DEVICE = "iam" "DeactivateMFADevice", User on [User], Management;
    DELETE_ACCESS_KEY = "iam" "DeleteAccessKey", User on [User], Management;
    DELETE_GROUP = "iam" "DeleteGroup", User on [Group], Management;
    DELETE_GROUP_POLICY = "iam" "DeleteGroupPolicy", User on [Group], Management;
    DELETE_LOGIN_PROFILE = "iam" "DeleteLoginProfile", User on [User], Management;
    DELETE_POLICY = "iam" "DeletePolicy", User on [Policy], Management;
    DELETE_POLICY_VERSION = "iam" "DeletePolicyVersion", User on [Policy], Management;
    DELETE_ROLE = "iam" "DeleteRole", User on [Role], Management;
    DELETE_ROLE_PERMISSIONS_BOUNDARY = "iam" "DeleteRolePermissionsBoundary", User on [Role], Management;
    DELETE_ROLE_POLICY = "iam" "DeleteRolePolicy", User on [Role], Management;
    DELETE_USER = "iam" "DeleteUser", User on [User], Management;
    DELETE_USER_PERMISSIONS_BOUNDARY = "iam" "DeleteUserPermissionsBoundary", User on [User], Management;
    DELETE_USER_POLICY = "iam" "DeleteUserPolicy", User on [User], Management;
    DELETE_VIRTUAL_MFA_DEVICE = "iam" "DeleteVirtualMFADevice", User on [MfaDevice], Management;
    DETACH_GROUP_POLICY = "iam" "DetachGroupPolicy", User on [Group], Management;
    DETACH_ROLE_POLICY = "iam" "DetachRolePolicy", User on [Role], Management;
    DETACH_USER_POLICY = "iam" "DetachUserPolicy", User on [User], Management;
    ENABLE_MFA_DEVICE = "iam" "EnableMFADevice", User on [User], Management;
    GET_ACCESS_KEY_LAST_USED = "iam" "GetAccessKeyLastUsed", User on [User], Management;
    GET_ACCOUNT_AUTHORIZATION_DETAILS = "iam" "GetAccountAuthorizationDetails", User on [Any], Management;
    GET_ACCOUNT_SUMMARY = "iam" "GetAccountSummary", User on [Any], Management;
    GET_CONTEXT_KEYS_FOR_CUSTOM_POLICY = "iam" "GetContextKeysForCustomPolicy", User on [Any], Management;
    GET_CONTEXT_KEYS_FOR_PRINCIPAL_POLICY = "iam" "GetContextKeysForPrincipalPolicy", User on [User, Group, Role], Management;
    GET_GROUP = "iam" "GetGroup", User on [Group], Management;
    GET_GROUP_POLICY = "iam" "GetGroupPolicy", User on [Group], Management;
    GET_LOGIN_PROFILE = "iam" "GetLoginProfile", User on [User], Management;
    GET_MFA_DEVICE = "iam" "GetMFADevice", User on [User], Management;
    GET_POLICY = "iam" "GetPolicy", User on [Policy], Management;
    GET_POLICY_VERSION = "iam" "GetPolicyVersion", User on [Policy], Management;
    GET_ROLE = "iam" "GetRole", User on [Role], Management;
    GET_ROLE_POLICY = "iam" "GetRolePolicy", User on [Role], Management;
    GET_USER = "iam" "GetUser", User on [User], Management;
    GET_USER_POLICY = "iam" "GetUserPolicy", User on [User], Management;
    LIST_ACCESS_KEYS = "iam" "ListAccessKeys", User on [User], Management;
    LIST_ATTACHED_GROUP_POLICIES = "iam" "ListAttachedGroupPolicies", User on [Group], Management;
    LIST_ATTACHED_ROLE_POLICIES = "iam" "ListAttachedRolePolicies", User on [Role], Management;
    LIST_ATTACHED_USER_POLICIES = "iam" "ListAttachedUserPolicies", User on [User], Management;
    LIST_ENTITIES_FOR_POLICY = "iam" "ListEntitiesForPolicy", User on [Policy], Management;
    LIST_GROUP_POLICIES = "iam" "ListGroupPolicies", User on [Group], Management;
    LIST_GROUPS = "iam" "ListGroups", User on [Any], Management;
    LIST_GROUPS_FOR_USER = "iam" "ListGroupsForUser", User on [User], Management;
    LIST_INSTANCE_PROFILES_FOR_ROLE = "iam" "ListInstanceProfilesForRole", User on [Role], Management;
    LIST_MFA_DEVICES = "iam" "ListMFADevices", User on [User], Management;
    LIST_POLICIES = "iam" "ListPolicies", User on [Any], Management;
    LIST_POLICY_TAGS = "iam" "ListPolicyTags", User on [Policy], Management;
    LIST_POLICY_VERSIONS = "iam" "ListPolicyVersions", User on [Policy], Management;
    LIST_ROLE_POLICIES = "iam" "ListRolePolicies", User on [Role], Management;
    LIST_ROLE_TAGS = "iam" "ListRoleTags", User on [Role], Management;
    LIST_ROLES = "iam" "ListRoles", User on [Any], Management;
    LIST_SSH_PUBLIC_KEYS = "iam" "ListSSHPublicKeys", User on [User], Management;
    LIST_SERVICE_SPECIFIC_CREDENTIALS = "iam" "ListServiceSpecificCredentials", User on [User], Management;
    LIST_SIGNING_CERTIFICATES = "iam" "ListSigningCertificates", User on [User], Management;
    LIST_USER_POLICIES = "iam" "ListUserPolicies", User on [User], Management;
    LIST_USER_TAGS = "iam" "ListUserTags", User on [User], Management;
    LIST_USERS = "iam" "ListUsers", User on [Any], Management;
    LIST_VIRTUAL_MFA_DEVICES = "iam" "ListVirtualMFADevices", User on [Any], Management;
    PUT_GROUP_POLICY = "iam" "PutGroupPolicy", User on [Group], Management;
    PUT_ROLE_PERMISSIONS_BOUNDARY = "iam" "PutRolePermissionsBoundary", User on [Role], Management;
    PUT_ROLE_POLICY = "iam" "PutRolePolicy", User on [Role], Management;
    PUT_USER_PERMISSIONS_BOUNDARY = "iam" "PutUserPermissionsBoundary", User on [User], Management;
    PUT_USER_POLICY = "iam" "PutUserPolicy", User on [User], Management;
    REMOVE_USER_FROM_GROUP = "iam" "RemoveUserFromGroup", User on [Group], Management;
    RESYNC_MFA_DEVICE = "iam" "ResyncMFADevice", User on [User], Management;
    SET_DEFAULT_POLICY_VERSION = "iam" "SetDefaultPolicyVersion", User on [Policy], Management;
    SIMULATE_CUSTOM_POLICY = "iam" "SimulateCustomPolicy", User on [Any], Management;
    SIMULATE_PRINCIPAL_POLICY = "iam" "SimulatePrincipalPolicy", User on [User, Group, Role], Management;
    TAG_POLICY = "iam" "TagPolicy", User on [Policy], Management;
    TAG_ROLE = "iam" "TagRole", User on [Role], Management;
    TAG_USER = "iam" "TagUser", User on [User], Management;
    UNTAG_POLICY = "iam" "UntagPolicy", User on [Policy], Management;
    UNTAG_ROLE = "iam" "UntagRole", User on [Role], Management;
    UNTAG_USER = "iam" "UntagUser", User on [User], Management;
    UPDATE_ACCESS_KEY = "iam" "UpdateAccessKey", User on [User], Management;
    UPDATE_ASSUME_ROLE_POLICY = "iam" "UpdateAssumeRolePolicy", User on [Role], Management;
    UPDATE_GROUP = "iam" "UpdateGroup", User on [Group], Management;
    UPDATE_LOGIN_PROFILE = "iam" "UpdateLoginProfile", User on [User], Management;
    UPDATE_ROLE = "iam" "UpdateRole", User on [Role], Management;
    UPDATE_ROLE_DESCRIPTION = "iam" "UpdateRoleDescription", User on [Role], Management;
    UPDATE_USER = "iam" "UpdateUser", User on [User], Management;

    EXPLAIN = "sortie" "Explain", Authenticated on [], Management;
    GET_CALLER = "sortie" "GetCaller", Authenticated on [], Management;
    SIGN_IN = "sortie" "SignIn", Anyone on [], Management;

    REGISTER_MANAGED_INSTANCE = "ssm" "RegisterManagedInstance", Anyone on [], Management;
    REQUEST_MANAGED_INSTANCE_ROLE_TOKEN = "ssm" "RequestManagedInstanceRoleToken", NodeKey on [ManagedInstance], Data;
    UPDATE_MANAGED_INSTANCE_PUBLIC_KEY = "ssm" "UpdateManagedInstancePublicKey", NodeKey on [ManagedInstance], Management;
    UPDATE_INSTANCE_INFORMATION = "ssm" "UpdateInstanceInformation", Node on [ManagedInstance], Data;
    LIST_ASSOCIATIONS = "ssm" "ListAssociations", Node on [Any], Data;
    LIST_INSTANCE_ASSOCIATIONS = "ssm" "ListInstanceAssociations", Node on [ManagedInstance], Data;
    DESCRIBE_ASSOCIATION = "ssm" "DescribeAssociation", Node on [ManagedInstance], Data;
    UPDATE_ASSOCIATION_STATUS = "ssm" "UpdateAssociationStatus", Node on [ManagedInstance], Data;
    UPDATE_INSTANCE_ASSOCIATION_STATUS = "ssm" "UpdateInstanceAssociationStatus", Node on [ManagedInstance], Data;
    PUT_COMPLIANCE_ITEMS = "ssm" "PutComplianceItems", Node on [ManagedInstance], Data;
    PUT_CONFIGURE_PACKAGE_RESULT = "ssm" "PutConfigurePackageResult", Node on [Any], Data;
    PUT_INVENTORY = "ssm" "PutInventory", Node on [Any], Data;

    CREATE_CONTROL_CHANNEL = "ssmmessages" "CreateControlChannel", Node on [Any], Data;
    CREATE_DATA_CHANNEL = "ssmmessages" "CreateDataChannel", Node on [Any], Data;
    OPEN_CONTROL_CHANNEL = "ssmmessages" "OpenControlChannel", Node on [Any], Data;
    OPEN_DATA_CHANNEL = "ssmmessages" "OpenDataChannel", Node on [Any], Data;

    ACKNOWLEDGE_MESSAGE = "ec2messages" "AcknowledgeMessage", Node on [Any], Data;
    DELETE_MESSAGE = "ec2messages" "DeleteMessage", Node on [Any], Data;
    FAIL_MESSAGE = "ec2messages" "FailMessage", Node on [Any], Data;
    GET_ENDPOINT = "ec2messages" "GetEndpoint", Node on [Any], Data;
    GET_MESSAGES = "ec2messages" "GetMessages", Node on [Any], Data;
    SEND_REPLY = "ec2messages" "SendReply", Node on [Any], Data;
}

/// The line of an operation.
#[must_use]
pub fn operation_rule(service: &str, name: &str) -> Option<&'static OperationRule> {
    OPERATIONS
        .iter()
        .find(|rule| rule.service == service && rule.name == name)
}

/// The line of an action, whose name people write as they like.
pub(crate) fn operation_rule_ignoring_case(
    service: &str,
    name: &str,
) -> Option<&'static OperationRule> {
    OPERATIONS.iter().find(|rule| {
        rule.service.eq_ignore_ascii_case(service) && rule.name.eq_ignore_ascii_case(name)
    })
}

/// The line of an operation by name alone. The names of the node's three services do not overlap,
/// and the trail writes channel operations under another service than the one they are signed for.
pub(crate) fn rule_named(name: &str) -> Option<&'static OperationRule> {
    OPERATIONS.iter().find(|rule| rule.name == name)
}

/// Proof that the caller may do what it asked on this resource.
#[derive(Clone, Debug)]
pub struct Authorized<R> {
    resource: R,
}

impl<R> Authorized<Option<R>> {
    /// A proof about what is there.
    pub(crate) fn transpose(self) -> Option<Authorized<R>> {
        self.resource.map(|resource| Authorized { resource })
    }
}

impl<R> Authorized<R> {
    /// What the proof is about.
    #[must_use]
    pub fn resource(&self) -> &R {
        &self.resource
    }

    /// What the proof was about, for use at once.
    pub(crate) fn into_resource(self) -> R {
        self.resource
    }
}

/// A refusal in AWS's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// `User: … is not authorized to perform: … on resource: … because …`.
    pub message: String,
}

impl Denied {
    fn new(principal: &str, action: &str, resource: Option<&Arn>) -> Self {
        let on = resource.map_or_else(String::new, |arn| format!(" on resource: {arn}"));
        Self {
            message: format!(
                "User: {principal} is not authorized to perform: {action}{on} \
                 because no identity-based policy allows the {action} action"
            ),
        }
    }

    /// The refusal of an operation that is not in the table.
    pub(crate) fn unknown_operation(principal: &str, name: &str) -> Self {
        Self::new(principal, name, None)
    }
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorizeError {
    /// Policy refuses.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// On our side.
    #[error(transparent)]
    Internal(#[from] InternalError),
}

crate::call::internal!(AuthorizeError);

/// What a call asks leave for: its action on these resources, each of which must be allowed, and
/// further actions that go with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    resources: Vec<AskedResource>,
    keys: Keys,
    further: Vec<Further>,
}

/// An action that must be allowed beside the operation's own.
#[derive(Clone, Debug)]
struct Further {
    action: &'static str,
    resources: Vec<AskedResource>,
    keys: Keys,
}

/// A resource that an action is checked on.
#[derive(Clone, Debug)]
pub(crate) struct AskedResource {
    arn: Arn,
    aliases: Vec<Arn>,
    keys: Keys,
    policy: Option<NamedPolicy>,
}

impl AskedResource {
    /// A resource, whether it exists or not.
    pub(crate) fn new(arn: Arn) -> Self {
        let account = arn.as_str().split(':').nth(4).unwrap_or_default();
        let keys = if account.is_empty() {
            Keys::default()
        } else {
            Keys::default().one("aws:ResourceAccount", account)
        };
        Self {
            arn,
            aliases: Vec::new(),
            keys,
            policy: None,
        }
    }

    /// Another name of it: it is allowed when it is under one of its names and is denied under none.
    pub(crate) fn alias(mut self, arn: Arn) -> Self {
        if arn != self.arn && !self.aliases.contains(&arn) {
            self.aliases.push(arn);
        }
        self
    }

    /// With a policy of its own, such as the trust policy of a role that is to be assumed.
    pub(crate) fn governed_by(mut self, policy: NamedPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// With a key of its own.
    pub(crate) fn key(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.keys = self.keys.one(key, value);
        self
    }

    /// With its tags, under each of the families of keys, such as `aws:ResourceTag`.
    pub(crate) fn tags(mut self, families: &[&str], tags: &[Tag]) -> Self {
        for family in families {
            for tag in tags {
                self = self.key(format!("{family}/{}", tag.key), tag.value.clone());
            }
        }
        self
    }

    fn context(&self) -> Context {
        let mut context = Context::new();
        self.keys.apply(&mut context);
        context
    }
}

impl Ask {
    /// About no resource: listings and the like.
    pub(crate) fn any() -> Self {
        Self::default()
    }

    /// About one resource that brings no keys.
    pub(crate) fn on(arn: Arn) -> Self {
        Self::about(vec![AskedResource::new(arn)])
    }

    /// About these resources.
    pub(crate) fn about(resources: Vec<AskedResource>) -> Self {
        Self {
            resources,
            ..Self::default()
        }
    }

    /// With a condition key of the request.
    pub(crate) fn key(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.keys = self.keys.one(key, value);
        self
    }

    /// With a condition key of the request that holds a list.
    pub(crate) fn list<V: Into<String>>(
        mut self,
        key: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.keys = self.keys.many(key, values);
        self
    }

    /// With the tags that the request carries.
    pub(crate) fn request_tags(mut self, tags: &[Tag]) -> Self {
        self.keys = self.keys.request_tags(tags);
        self
    }

    /// With all of these condition keys of the request.
    pub(crate) fn with(mut self, keys: Keys) -> Self {
        self.keys = self.keys.and(keys);
        self
    }

    /// With these keys in place of what the request and its resources have.
    pub(crate) fn supposing(mut self, keys: &Keys) -> Self {
        let further = &mut self.further;
        let resources = further
            .iter_mut()
            .flat_map(|further| &mut further.resources);
        for resource in self.resources.iter_mut().chain(resources) {
            resource.keys = std::mem::take(&mut resource.keys).and(keys.clone());
        }
        for further in &mut self.further {
            further.keys = std::mem::take(&mut further.keys).and(keys.clone());
        }
        self.with(keys.clone())
    }

    /// And this action, under the same keys.
    pub(crate) fn also(self, action: &'static str, resources: Vec<AskedResource>) -> Self {
        let keys = self.keys.clone();
        self.also_with(action, resources, keys)
    }

    /// And this action, under keys of its own.
    pub(crate) fn also_with(
        mut self,
        action: &'static str,
        resources: Vec<AskedResource>,
        keys: Keys,
    ) -> Self {
        self.further.push(Further {
            action,
            resources,
            keys,
        });
        self
    }
}

/// A caller as policies know it now.
pub(crate) struct Standing {
    /// As policies and refusals name it.
    pub(crate) principal: Principal,
    /// What it may do, and its boundary.
    pub(crate) policies: PrincipalPolicies,
    /// What its session is limited to; `None`: it is not.
    pub(crate) session: Option<Vec<NamedPolicy>>,
}

impl Standing {
    /// The caller's policies as a request is decided by them.
    pub(crate) fn policies(&self) -> Policies<'_> {
        Policies {
            identity: &self.policies.identity,
            boundary: self.policies.boundary.as_ref().map(std::slice::from_ref),
            session: self.session.as_deref(),
            ..Policies::default()
        }
    }
}

/// How policies are asked: with or without what nearly applied.
type Decide = fn(&Request<'_>, &Policies<'_>) -> Decision;

/// An action on one resource, or on none, under the keys of the call.
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) policies: Policies<'a>,
    pub(crate) action: &'a str,
    pub(crate) resource: Option<&'a AskedResource>,
    pub(crate) context: &'a Context,
}

impl Question<'_> {
    /// What the policies say.
    pub(crate) fn decide(&self, names: &Names) -> Outcome {
        self.decision(names).outcome
    }

    /// The same, with the reason. A resource with several names is allowed when it is under one of
    /// them and denied under none; the reason is that of its own ARN unless another name decides.
    pub(crate) fn decision(&self, names: &Names) -> Decision {
        self.decided_by(sortie_iam::decide, names)
    }

    /// The same, with the statements that nearly applied.
    pub(crate) fn explained(&self, names: &Names) -> Decision {
        self.decided_by(sortie_iam::explain, names)
    }

    fn decided_by(&self, decide: Decide, names: &Names) -> Decision {
        let Some(asked) = self.resource else {
            return self.decide_on(decide, names, Resource::new("*"));
        };
        let own = asked.context();
        let on =
            |arn: &Arn| self.decide_on(decide, names, Resource::with_context(arn.as_str(), &own));
        let mut decision = on(&asked.arn);
        for alias in &asked.aliases {
            if decision.outcome == Outcome::ExplicitlyDenied {
                break;
            }
            let under_alias = on(alias);
            if under_alias.outcome != Outcome::ImplicitlyDenied {
                decision = match (decision.outcome, under_alias.outcome) {
                    (Outcome::Allowed, Outcome::Allowed) => decision,
                    _ => under_alias,
                };
            }
        }
        decision
    }

    fn decide_on(&self, decide: Decide, names: &Names, resource: Resource<'_>) -> Decision {
        let request = Request {
            principal: self.principal,
            action: self.action,
            resource,
            context: self.context,
            account: names.account.as_str(),
        };
        decide(&request, &self.policies)
    }

    /// `None` when the policies allow; else whether the denial is explicit, and how it is told. Of a
    /// resource the ARN is named, never an alias.
    pub(crate) fn refusal(&self, names: &Names) -> Option<(bool, Denied)> {
        let decision = self.decision(names);
        let explicit = match decision.outcome {
            Outcome::Allowed => return None,
            Outcome::ExplicitlyDenied => true,
            Outcome::ImplicitlyDenied => false,
        };
        let resource = self.resource.map(|asked| asked.arn.as_str());
        let principal = self.principal.name();
        let message = decision
            .explanation
            .access_denied_message(&principal, resource);
        Some((explicit, Denied { message }))
    }
}

impl Control {
    /// Decides, and gives the proof. `acts_as` is the node that a node operation is about.
    pub(crate) async fn authorize<R>(
        &self,
        call: &Call,
        rule: &OperationRule,
        ask: Ask,
        acts_as: Option<&NodeId>,
        resource: R,
    ) -> Result<Authorized<R>, AuthorizeError> {
        let directory = self.directory().await?;
        Ok(self.authorize_in(&directory, call, rule, &ask, acts_as, resource)?)
    }

    /// The same with the identities at hand.
    pub(crate) fn authorize_in<R>(
        &self,
        directory: &Directory,
        call: &Call,
        rule: &OperationRule,
        ask: &Ask,
        acts_as: Option<&NodeId>,
        resource: R,
    ) -> Result<Authorized<R>, Denied> {
        match admitted(&call.caller, rule, acts_as) {
            Admitted::Yes => {}
            Admitted::IfPoliciesAllow => self.ask(directory, call, rule, ask)?,
            Admitted::No => return Err(self.plain_refusal(call, rule, ask)),
            Admitted::NotWithThisToken(why) => {
                let principal = principal(&self.inner.names, &call.caller);
                let action = rule.action;
                let message = format!(
                    "User: {principal} is not authorized to perform: {action} because {why}"
                );
                return Err(Denied { message });
            }
        }
        Ok(Authorized { resource })
    }

    /// Whether the caller's policies allow all that is asked. An explicit deny is told before what is
    /// merely not allowed.
    fn ask(
        &self,
        directory: &Directory,
        call: &Call,
        rule: &OperationRule,
        ask: &Ask,
    ) -> Result<(), Denied> {
        let names = &self.inner.names;
        let Some(standing) = standing(names, directory, &call.caller) else {
            return Err(self.plain_refusal(call, rule, ask));
        };
        let (mut explicit, mut implicit) = (None, None);
        let action = (rule.service, rule.action);
        self.each_question(&standing, call, action, ask, |question| {
            match question.refusal(names) {
                None => {}
                Some((true, denied)) => explicit = explicit.take().or(Some(denied)),
                Some((false, denied)) => implicit = implicit.take().or(Some(denied)),
            }
        });
        explicit.or(implicit).map_or(Ok(()), Err)
    }

    /// Puts every question that a call asks: its own action first, then those that go with it, each
    /// on each of its resources.
    pub(crate) fn each_question(
        &self,
        standing: &Standing,
        call: &Call,
        (service, action): (&str, &str),
        ask: &Ask,
        mut put: impl FnMut(&Question<'_>),
    ) {
        let names = &self.inner.names;
        let base = context::of_call(names, call, service);
        let any = any_resource(names, service).map(AskedResource::new);
        let own = std::iter::once((action, &ask.resources, &ask.keys));
        let further = ask.further.iter();
        let further = further.map(|further| (further.action, &further.resources, &further.keys));
        for (action, resources, keys) in own.chain(further) {
            let mut context = base.clone();
            keys.apply(&mut context);
            let named = resources.iter().map(Some);
            let unnamed = resources.is_empty().then_some(any.as_ref());
            for resource in named.chain(unnamed) {
                put(&Question {
                    principal: &standing.principal,
                    policies: Policies {
                        resource: resource.and_then(|asked| asked.policy.as_ref()),
                        ..standing.policies()
                    },
                    action,
                    resource,
                    context: &context,
                });
            }
        }
    }

    /// Refuses only what a policy of the caller denies explicitly: for what a token has allowed.
    pub(crate) fn honour_deny(
        &self,
        directory: &Directory,
        call: &Call,
        rule: &OperationRule,
        ask: &Ask,
    ) -> Result<(), Denied> {
        let names = &self.inner.names;
        let Some(standing) = standing(names, directory, &call.caller) else {
            return Err(self.plain_refusal(call, rule, ask));
        };
        let mut context = context::of_call(names, call, rule.service);
        ask.keys.apply(&mut context);
        for resource in &ask.resources {
            let question = Question {
                principal: &standing.principal,
                policies: standing.policies(),
                action: rule.action,
                resource: Some(resource),
                context: &context,
            };
            if let Some((true, denied)) = question.refusal(names) {
                return Err(denied);
            }
        }
        Ok(())
    }

    /// The refusal of a caller whom no policy could have allowed.
    fn plain_refusal(&self, call: &Call, rule: &OperationRule, ask: &Ask) -> Denied {
        let names = &self.inner.names;
        let any = any_resource(names, rule.service);
        let resource = ask.resources.first().map(|asked| &asked.arn);
        let principal = principal(names, &call.caller);
        Denied::new(&principal, rule.action, resource.or(any.as_ref()))
    }
}

/// The refusal of an action on a resource, for reasons that the caller does not learn.
pub(crate) fn refusal(names: &Names, caller: &Caller, rule: &OperationRule, arn: &Arn) -> Denied {
    Denied::new(&principal(names, caller), rule.action, Some(arn))
}

/// The caller as refusals name it.
pub(crate) fn principal(names: &Names, caller: &Caller) -> String {
    let arn = names.caller(caller);
    arn.map_or_else(|| "anonymous".to_owned(), String::from)
}

/// What the kind of a caller says about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// Nothing else is needed.
    Yes,
    /// Its policies decide.
    IfPoliciesAllow,
    /// Never.
    No,
    /// Not with the credentials that it has.
    NotWithThisToken(&'static str),
}

pub(crate) fn admitted(
    caller: &Caller,
    rule: &OperationRule,
    acts_as: Option<&NodeId>,
) -> Admitted {
    let yes = |holds: bool, then: Admitted| if holds { then } else { Admitted::No };
    match (rule.access, caller) {
        (Access::Anyone, _) => Admitted::Yes,
        (Access::Authenticated, Caller::Node(_) | Caller::Role(_) | Caller::User(_)) => {
            Admitted::Yes
        }
        (Access::Node, Caller::Node(node)) => yes(itself(node, acts_as), Admitted::IfPoliciesAllow),
        (Access::NodeKey, Caller::Node(node)) => {
            let by_key = node.access_key_id.is_none() && node.role.is_some();
            yes(by_key && itself(node, acts_as), Admitted::Yes)
        }
        // Its own key is for being a node and nothing else.
        (Access::User, Caller::Node(node)) => {
            yes(node.access_key_id.is_some(), Admitted::IfPoliciesAllow)
        }
        (Access::User, Caller::Role(_)) => Admitted::IfPoliciesAllow,
        (Access::User, Caller::User(user)) => limited_by_token(user, rule)
            .map_or(Admitted::IfPoliciesAllow, Admitted::NotWithThisToken),
        (Access::Authenticated | Access::Node | Access::NodeKey | Access::User, _) => Admitted::No,
    }
}

fn itself(node: &NodeCaller, acts_as: Option<&NodeId>) -> bool {
    acts_as == Some(&node.node_id)
}

/// What credentials of `GetSessionToken` are not good for, whatever policies say. Those of signing in
/// with a password are not so limited.
fn limited_by_token(user: &UserCaller, rule: &OperationRule) -> Option<&'static str> {
    let session = user.session.as_ref()?;
    session.issuing_key.as_ref()?;
    match rule.service {
        "iam" if session.mfa.is_none() => {
            Some("its session credentials were issued without multi-factor authentication")
        }
        "sts" if rule.name != ASSUME_ROLE.name => Some("session credentials cannot be used for it"),
        _ => None,
    }
}

/// What a service's actions without a resource are checked on, and their refusals name.
fn any_resource(names: &Names, service: &str) -> Option<Arn> {
    match service {
        "cloudtrail" | "ec2messages" | "ssm" | "ssmmessages" => Some(names.any_of(service)),
        _ => None,
    }
}

/// A caller as policies know it now; `None` for those who are not there any more, and for nobody.
pub(crate) fn standing(names: &Names, directory: &Directory, caller: &Caller) -> Option<Standing> {
    match caller {
        Caller::Anonymous { .. } => None,
        Caller::User(user) => {
            let row = directory.user_by_id(&user.user.unique_id)?;
            let arn = names.user(row);
            Some(Standing {
                principal: Principal::user(arn.as_str(), row.unique_id.as_str()),
                policies: directory.policies_of_user(row),
                session: user
                    .session
                    .as_ref()
                    .and_then(|s| session_policies(directory, s)),
            })
        }
        Caller::Role(role) => {
            let row = directory.role_by_id(&role.role.unique_id)?;
            let session_arn = names.role_session(row, &role.session_name);
            let session = session_policies(directory, &role.session);
            Some(role_standing(names, directory, row, &session_arn, session))
        }
        Caller::Node(node) => {
            let row = directory.role_by_id(&node.role.as_ref()?.unique_id)?;
            let session_arn = names.node_session(&node.iam_role, &node.node_id);
            Some(role_standing(names, directory, row, &session_arn, None))
        }
    }
}

fn role_standing(
    names: &Names,
    directory: &Directory,
    role: &Role,
    session_arn: &Arn,
    session: Option<Vec<NamedPolicy>>,
) -> Standing {
    let role_arn = names.role_arn(role);
    Standing {
        principal: Principal::assumed_role(
            role_arn.as_str(),
            session_arn.as_str(),
            role.unique_id.as_str(),
        ),
        policies: directory.policies_of_role(role),
        session,
    }
}

/// The policies that a session is limited to; `None` when it has none. Where one of them is gone or
/// cannot be read, nothing is allowed: nobody knows what it denied.
fn session_policies(directory: &Directory, session: &TemporarySession) -> Option<Vec<NamedPolicy>> {
    if session.policies.is_empty() && session.policy_arns.is_empty() {
        return None;
    }
    let inline = session
        .policies
        .iter()
        .map(|text| (None, Some(text.as_str())));
    let managed = session.policy_arns.iter();
    let managed = managed.map(|arn| (Some(arn.to_string()), directory.managed_document(arn)));
    let read = |(arn, text): (Option<String>, Option<&str>)| {
        let policy = Policy::parse(text?, PolicyKind::Session).ok()?;
        Some(NamedPolicy {
            source: PolicySource::Session { arn },
            policy: Arc::new(policy),
        })
    };
    let read: Option<Vec<NamedPolicy>> = inline.chain(managed).map(read).collect();
    Some(read.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use sortie_ports::{Grants, User};
    use sortie_types::{AccessKeyId, Timestamp, UniqueId, UniqueIdKind};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    fn user(session: Option<TemporarySession>) -> Caller {
        Caller::User(Box::new(UserCaller {
            user: User {
                unique_id: UniqueId::from_random(UniqueIdKind::User, [1; 17]),
                name: "alice".parse().unwrap(),
                path: "/ops/".into(),
                created: NOW,
                grants: Grants::default(),
                groups: Vec::new(),
                permissions_boundary: None,
                tags: Vec::new(),
                login_profile: None,
            },
            access_key_id: AccessKeyId::long_lived([1; 16]),
            session,
        }))
    }

    fn role() -> Role {
        Role {
            unique_id: UniqueId::from_random(UniqueIdKind::Role, [2; 17]),
            name: "Nodes".into(),
            path: "/".into(),
            created: NOW,
            description: None,
            grants: Grants::default(),
            trust_policy: String::new(),
            max_session_seconds: 3600,
            permissions_boundary: None,
            tags: Vec::new(),
        }
    }

    fn node(byte: u8, key: bool, role: Option<Role>) -> Caller {
        Caller::Node(Box::new(NodeCaller {
            node_id: NodeId::from_random([byte; 9]),
            iam_role: "Nodes".into(),
            role,
            access_key_id: (!key).then(|| AccessKeyId::temporary([1; 16])),
            issued: None,
        }))
    }

    fn session(mfa: bool, key: bool) -> TemporarySession {
        TemporarySession {
            mfa: mfa.then_some(NOW),
            issuing_key: key.then(|| AccessKeyId::long_lived([1; 16])),
            ..TemporarySession::new(NOW, NOW)
        }
    }

    #[test]
    fn the_whole_table_against_every_kind_of_caller() {
        use Access::{Anyone, Authenticated};
        use Admitted::{IfPoliciesAllow, No, Yes};
        let own = NodeId::from_random([1; 9]);
        let nobody = Caller::Anonymous { access_key: None };
        let (by_key, by_token) = (node(1, true, Some(role())), node(1, false, Some(role())));
        for rule in OPERATIONS {
            let name = rule.name;
            let may = |caller: &Caller| admitted(caller, rule, Some(&own));
            // Nobody, a user, the node by its key and by its credentials, and another node.
            let expected = match rule.access {
                Anyone => [Yes, Yes, Yes, Yes, Yes],
                Authenticated => [No, Yes, Yes, Yes, Yes],
                Access::Node => [No, No, IfPoliciesAllow, IfPoliciesAllow, No],
                Access::NodeKey => [No, No, Yes, No, No],
                Access::User => [No, IfPoliciesAllow, No, IfPoliciesAllow, IfPoliciesAllow],
            };
            let other = node(2, false, Some(role()));
            let callers = [&nobody, &user(None), &by_key, &by_token, &other];
            assert_eq!(callers.map(may), expected, "{name}");
            if rule.access == Access::NodeKey {
                assert_eq!(may(&node(1, true, None)), No, "{name} without a role");
            }
        }
    }

    #[test]
    fn session_tokens_of_users_are_good_for_little_of_iam_and_sts() {
        let limited = |rule: &OperationRule, session: TemporarySession| {
            let admitted = admitted(&user(Some(session)), rule, None);
            matches!(admitted, Admitted::NotWithThisToken(_))
        };
        let iam = operation_rule("iam", "ListUsers").unwrap();
        assert!(limited(iam, session(false, true)));
        assert!(!limited(iam, session(true, true)));
        assert!(
            !limited(iam, session(false, false)),
            "signed in with a password"
        );
        assert!(!limited(&ASSUME_ROLE, session(false, true)));
        assert!(!limited(&START_SESSION, session(false, true)));
    }

    #[test]
    fn no_operation_stands_twice_in_the_table() {
        for (index, rule) in OPERATIONS.iter().enumerate() {
            let first = OPERATIONS.iter().position(|other| other.name == rule.name);
            assert_eq!(first, Some(index), "{}", rule.name);
            assert_eq!(operation_rule(rule.service, rule.name), Some(rule));
        }
    }

    #[test]
    fn a_resource_with_two_names_is_allowed_under_either_and_denied_under_none() {
        let names = Names {
            account: "111122223333".parse().unwrap(),
            region: "local-1".parse().unwrap(),
        };
        let asked = AskedResource::new(names.session("carol-1")).alias(names.session("AIDA-1"));
        let decide = |statements: &str| {
            let text = format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#);
            let policies = [NamedPolicy {
                source: PolicySource::Unnamed { position: 1 },
                policy: Arc::new(Policy::parse(&text, PolicyKind::Identity).unwrap()),
            }];
            let question = Question {
                principal: &Principal::user("arn:aws:iam::111122223333:user/carol", "AIDA"),
                policies: Policies {
                    identity: &policies,
                    ..Policies::default()
                },
                action: "ssm:TerminateSession",
                resource: Some(&asked),
                context: &Context::new(),
            };
            let refusal = question.refusal(&names);
            (
                question.decide(&names),
                refusal.map(|(_, denied)| denied.message),
            )
        };
        let on = |effect: &str, id: &str| {
            format!(
                r#"{{"Effect": "{effect}", "Action": "ssm:*", "Resource": "arn:aws:ssm:*:*:session/{id}-*"}}"#
            )
        };
        assert_eq!(decide(&on("Allow", "carol")), (Outcome::Allowed, None));
        assert_eq!(decide(&on("Allow", "AIDA")), (Outcome::Allowed, None));
        assert_eq!(decide(&on("Allow", "dave")).0, Outcome::ImplicitlyDenied);
        for denied in ["carol", "AIDA"] {
            let both = format!("{}, {}", on("Allow", "*"), on("Deny", denied));
            let (outcome, message) = decide(&both);
            assert_eq!(outcome, Outcome::ExplicitlyDenied, "{denied}");
            assert_eq!(
                message.unwrap(),
                "User: arn:aws:iam::111122223333:user/carol is not authorized to perform: \
                 ssm:TerminateSession on resource: \
                 arn:aws:ssm:local-1:111122223333:session/carol-1 \
                 with an explicit deny in an identity-based policy"
            );
        }
    }
}
