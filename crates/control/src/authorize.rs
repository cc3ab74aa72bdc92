//! The one place that says who may do what: a table of operations, and a decision that returns a
//! proof. Acting code takes proofs, not names.
//!
//! The rule for now: the administrator may do every user operation, a node may do node operations as
//! itself, and everyone else is refused in AWS's words. A policy engine takes the place of
//! [`decide`] later; table and proofs stay.

use sortie_evidence::Category;
use sortie_types::{Arn, NodeId};

use crate::{
    arns::Names,
    call::{Caller, NodeCaller},
};

/// Who may call an operation at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No authentication: the input itself is the proof.
    Anyone,
    /// Whoever is known; no permission needed.
    Authenticated,
    /// A node, as itself, with temporary credentials or its own key.
    Node,
    /// A node, as itself, with its own key only, so that stolen temporary credentials cannot renew
    /// themselves.
    NodeKey,
    /// Principals with permission.
    User,
}

/// What an action is checked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// Everything of the service: listings.
    Any,
    /// A session document.
    Document,
    /// A managed node.
    ManagedInstance,
    /// A session.
    Session,
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
    DELETE_ACTIVATION = "ssm" "DeleteActivation", User on [Any], Management;
    DEREGISTER_MANAGED_INSTANCE = "ssm" "DeregisterManagedInstance", User on [ManagedInstance], Management;
    DESCRIBE_ACTIVATIONS = "ssm" "DescribeActivations", User on [Any], Management;
    DESCRIBE_INSTANCE_INFORMATION = "ssm" "DescribeInstanceInformation", User on [Any], Management;
    DESCRIBE_INSTANCE_PROPERTIES = "ssm" "DescribeInstanceProperties", User on [Any], Management;
    DESCRIBE_SESSIONS = "ssm" "DescribeSessions", User on [Any], Management;
    GET_CONNECTION_STATUS = "ssm" "GetConnectionStatus", User on [ManagedInstance], Management;
    LIST_TAGS_FOR_RESOURCE = "ssm" "ListTagsForResource", User on [ManagedInstance], Management;
    REMOVE_TAGS_FROM_RESOURCE = "ssm" "RemoveTagsFromResource", User on [ManagedInstance], Management;
    RESUME_SESSION = "ssm" "ResumeSession", User on [Session], Management;
    START_SESSION = "ssm" "StartSession", User on [ManagedInstance, Document], Management;
    TERMINATE_SESSION = "ssm" "TerminateSession", User on [Session], Management;
    UPDATE_MANAGED_INSTANCE_ROLE = "ssm" "UpdateManagedInstanceRole", User on [ManagedInstance], Management;

    GET_CALLER_IDENTITY = "sts" "GetCallerIdentity", Authenticated on [], Management;
    LOOKUP_EVENTS = "cloudtrail" "LookupEvents", User on [Any], Management;

    REGISTER_MANAGED_INSTANCE = "ssm" "RegisterManagedInstance", Anyone on [], Management;
    REQUEST_MANAGED_INSTANCE_ROLE_TOKEN = "ssm" "RequestManagedInstanceRoleToken", NodeKey on [ManagedInstance], Data;
    UPDATE_MANAGED_INSTANCE_PUBLIC_KEY = "ssm" "UpdateManagedInstancePublicKey", NodeKey on [ManagedInstance], Management;
    UPDATE_INSTANCE_INFORMATION = "ssm" "UpdateInstanceInformation", Node on [ManagedInstance], Data;
    LIST_ASSOCIATIONS = "ssm" "ListAssociations", Node on [ManagedInstance], Data;
    LIST_INSTANCE_ASSOCIATIONS = "ssm" "ListInstanceAssociations", Node on [ManagedInstance], Data;
    DESCRIBE_ASSOCIATION = "ssm" "DescribeAssociation", Node on [ManagedInstance], Data;
    UPDATE_ASSOCIATION_STATUS = "ssm" "UpdateAssociationStatus", Node on [ManagedInstance], Data;
    UPDATE_INSTANCE_ASSOCIATION_STATUS = "ssm" "UpdateInstanceAssociationStatus", Node on [ManagedInstance], Data;
    PUT_COMPLIANCE_ITEMS = "ssm" "PutComplianceItems", Node on [ManagedInstance], Data;
    PUT_CONFIGURE_PACKAGE_RESULT = "ssm" "PutConfigurePackageResult", Node on [ManagedInstance], Data;
    PUT_INVENTORY = "ssm" "PutInventory", Node on [ManagedInstance], Data;

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

/// Decides, and gives the proof. `arns` is what the action is checked on, in the order of the rule;
/// `acts_as` is the node that a node operation is about.
pub(crate) fn authorize<R>(
    names: &Names,
    caller: &Caller,
    rule: &OperationRule,
    arns: &[Arn],
    acts_as: Option<&NodeId>,
    resource: R,
) -> Result<Authorized<R>, Denied> {
    if decide(caller, rule.access, acts_as) {
        return Ok(Authorized { resource });
    }
    Err(Denied::new(
        &principal(names, caller),
        rule.action,
        arns.first(),
    ))
}

/// The refusal of an action on a resource, for reasons that the caller does not learn.
pub(crate) fn refusal(names: &Names, caller: &Caller, rule: &OperationRule, arn: &Arn) -> Denied {
    Denied::new(&principal(names, caller), rule.action, Some(arn))
}

fn decide(caller: &Caller, access: Access, acts_as: Option<&NodeId>) -> bool {
    match (access, caller) {
        (Access::Anyone, _) | (Access::Authenticated, Caller::Node(_) | Caller::User(_)) => true,
        (Access::Node, Caller::Node(node)) => itself(node, acts_as),
        (Access::NodeKey, Caller::Node(node)) => {
            node.access_key_id.is_none() && itself(node, acts_as)
        }
        (Access::User, Caller::User(user)) => user.user.administrator,
        (Access::Authenticated | Access::Node | Access::NodeKey | Access::User, _) => false,
    }
}

fn itself(node: &NodeCaller, acts_as: Option<&NodeId>) -> bool {
    acts_as == Some(&node.node_id)
}

/// The caller as refusals name it.
pub(crate) fn principal(names: &Names, caller: &Caller) -> String {
    match caller {
        Caller::Anonymous { .. } => "anonymous".to_owned(),
        Caller::Node(node) => names.node_session(&node.iam_role, &node.node_id).into(),
        Caller::User(user) => names.user(&user.user).into(),
    }
}

#[cfg(test)]
mod tests {
    use sortie_ports::User;
    use sortie_types::{AccessKeyId, Timestamp, UniqueId, UniqueIdKind};

    use super::*;
    use crate::call::UserCaller;

    fn user(administrator: bool) -> Caller {
        Caller::User(UserCaller {
            user: User {
                unique_id: UniqueId::from_random(UniqueIdKind::User, [1; 17]),
                name: "alice".parse().unwrap(),
                path: "/ops/".into(),
                created: Timestamp::from_millis(0),
                administrator,
            },
            access_key_id: AccessKeyId::long_lived([1; 16]),
        })
    }

    fn node(byte: u8, key: bool) -> Caller {
        Caller::Node(NodeCaller {
            node_id: NodeId::from_random([byte; 9]),
            iam_role: "service-role/Nodes".into(),
            access_key_id: (!key).then(|| AccessKeyId::temporary([1; 16])),
            issued: None,
        })
    }

    fn names() -> Names {
        Names {
            account: "111122223333".parse().unwrap(),
            region: "local-1".parse().unwrap(),
        }
    }

    #[test]
    fn the_whole_table_against_every_kind_of_caller() {
        let own = NodeId::from_random([1; 9]);
        let nobody = Caller::Anonymous { access_key: None };
        for rule in OPERATIONS {
            let may = |caller: &Caller| decide(caller, rule.access, Some(&own));
            let name = rule.name;
            let is = |access: &[Access]| access.contains(&rule.access);
            use Access::{Anyone, Authenticated, Node, NodeKey, User};
            assert_eq!(may(&nobody), is(&[Anyone]), "{name} as nobody");
            assert_eq!(
                may(&user(true)),
                is(&[Anyone, Authenticated, User]),
                "{name} as administrator"
            );
            assert_eq!(
                may(&user(false)),
                is(&[Anyone, Authenticated]),
                "{name} as another user"
            );
            assert_eq!(
                may(&node(1, true)),
                is(&[Anyone, Authenticated, Node, NodeKey]),
                "{name} by key"
            );
            assert_eq!(
                may(&node(1, false)),
                is(&[Anyone, Authenticated, Node]),
                "{name} by credentials"
            );
            assert_eq!(
                may(&node(2, true)),
                is(&[Anyone, Authenticated]),
                "{name} as another node"
            );
        }
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
    fn refusals_are_in_awss_words() {
        let names = names();
        let arn = names.target("mi-0123456789abcdef0");
        let refused = authorize(
            &names,
            &user(false),
            &START_SESSION,
            std::slice::from_ref(&arn),
            None,
            (),
        );
        assert_eq!(
            refused.unwrap_err().message,
            "User: arn:aws:iam::111122223333:user/ops/alice is not authorized to perform: \
             ssm:StartSession on resource: \
             arn:aws:ssm:local-1:111122223333:managed-instance/mi-0123456789abcdef0 \
             because no identity-based policy allows the ssm:StartSession action"
        );
        let refused = authorize(&names, &node(1, true), &START_SESSION, &[arn], None, ());
        assert!(refused.unwrap_err().message.starts_with(
            "User: arn:aws:sts::111122223333:assumed-role/Nodes/mi-01010101010101010 is not"
        ));
    }
}
