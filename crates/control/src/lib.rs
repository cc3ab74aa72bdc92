//! The use-cases: who calls, whether they may, what changes, and the audit record that goes with
//! the change. One method of [`Control`] per API operation, plus what the gateway asks.
//!
//! Knows no HTTP, no wire shapes and no sockets, and reads no clock: the time of a call comes with
//! it. Changes of an operation and its audit record are one [`sortie_ports::Commit`], and only this
//! crate can make a [`Recorded`] answer, so nothing can answer without having left its record.
//!
//! Signals are published after the commit that they are about; they carry no facts.

mod activations;
mod arns;
mod authenticate;
mod authorize;
mod bootstrap;
mod call;
mod channels;
mod context;
mod control;
mod credentials;
mod directory;
mod documents;
mod enrol;
mod explain;
mod failures;
mod filters;
mod iam;
mod identity;
mod judge;
mod mint;
mod node_operations;
mod nodes;
mod pass_role;
mod seal;
mod secrets;
mod service_settings;
mod session_life;
mod sessions;
mod sign_in;
mod streams;
mod sts;
mod tags;
mod token;
mod trail;

pub use activations::{
    ActivationFilter, ActivationView, CreateActivationError, CreateActivationInput,
    CreateActivationOutput, DeleteActivationError, DeleteActivationInput, DescribeActivationsError,
    DescribeActivationsInput, DescribeActivationsOutput,
};
pub use authenticate::{AuthenticationError, KnownKey, NodeKeys};
pub use authorize::{
    Access, Authorized, Denied, OPERATIONS, OperationRule, ResourceKind, operation_rule,
};
pub use bootstrap::{CreateAdministratorError, NODE_ROLE, NewAdministrator};
pub use call::{
    Call, Caller, InternalError, NodeCaller, Recorded, RoleCaller, TemporarySession, UserCaller,
};
pub use channels::{AcceptError, DataGrant, DataOpen, End, Side};
pub use control::{Control, OpenError, Settings};
pub use documents::{
    operations::{
        CreateDocumentInput, DocumentError, DocumentFilter, DocumentInput, DocumentPage,
        DocumentParameterView, DocumentView, GetDocumentOutput, ListDocumentVersionsInput,
        ListDocumentsInput, UpdateDocumentInput,
    },
    permissions::{DescribeDocumentPermissionInput, ModifyDocumentPermissionInput, SharedWith},
    run_as_of,
};
pub use enrol::{
    RegisterManagedInstanceError, RegisterManagedInstanceInput, RegisterManagedInstanceOutput,
};
pub use explain::{ExplainError, ExplainInput, ExplainOutput, ExplainedPrincipal};
pub use filters::{FilterOperator, NodeFilter, UnknownOperator};
pub use iam::{
    attachments::AttachedPolicyView,
    entity::Holder,
    error::IamError,
    groups::{CreateGroupInput, GroupMembers, GroupView, UpdateGroupInput},
    inline::InlinePolicyView,
    keys::{AccessKeyUse, AccessKeyView, NewAccessKey},
    login_profiles::{LoginProfileInput, LoginProfileView},
    mfa::{
        ConsecutiveCodes, CreateVirtualMfaDeviceInput, MfaAssignment, MfaDeviceView, NewMfaDevice,
        QrCode,
    },
    overview::{Detail, DetailKind, GroupDetail, UserDetail},
    page::{Page, PageRequest},
    policies::{
        CreatePolicyInput, EntityKind, EntityView, ListEntitiesInput, ListPoliciesInput,
        PolicyScope, PolicyUsage, PolicyVersionView, PolicyView,
    },
    roles::{CreateRoleInput, RoleView, UpdateRoleInput},
    simulate::{
        ContextEntry, MatchedStatement, PolicyOrigin, SimulateInput, Simulated, TextPosition,
    },
    users::{CreateUserInput, UpdateUserInput, UserView},
};
pub use identity::{GetCallerIdentityError, GetCallerIdentityOutput};
pub use mint::RandomError;
pub use node_operations::{
    CreateChannelOutput, CreateControlChannelError, CreateControlChannelInput,
    CreateDataChannelError, CreateDataChannelInput, QuietError,
    RequestManagedInstanceRoleTokenError, RequestManagedInstanceRoleTokenInput,
    RequestManagedInstanceRoleTokenOutput, UpdateInstanceInformationError,
    UpdateInstanceInformationInput, UpdateManagedInstancePublicKeyError,
    UpdateManagedInstancePublicKeyInput,
};
pub use nodes::{
    DeregisterManagedInstanceError, DeregisterManagedInstanceInput,
    DescribeInstanceInformationError, DescribeInstanceInformationInput,
    DescribeInstanceInformationOutput, DescribeInstancePropertiesError,
    DescribeInstancePropertiesInput, DescribeInstancePropertiesOutput, NodeView,
    UpdateManagedInstanceRoleError, UpdateManagedInstanceRoleInput,
};
pub use pass_role::UnusableRole;
pub use seal::RootKey;
pub use service_settings::{
    ServiceSettingError, ServiceSettingInput, ServiceSettingView, UpdateServiceSettingInput,
};
pub use sessions::{
    DescribeSessionsError, DescribeSessionsInput, DescribeSessionsOutput, GetConnectionStatusError,
    GetConnectionStatusInput, GetConnectionStatusOutput, ResumeSessionError, ResumeSessionInput,
    ResumeSessionOutput, SessionFilter, SessionList, StartSessionError, StartSessionInput,
    StartSessionOutput, TerminateSessionError, TerminateSessionInput, TerminateSessionOutput,
};
pub use sign_in::{
    CallerKind, GetCallerError, GetCallerOutput, SignInError, SignInInput, SignInOutput,
    SignedInWith,
};
/// What a simulation decides.
pub use sortie_iam::Outcome;
/// The rows that answers are made of, so that callers of control need not know where they are kept.
pub use sortie_ports::{
    Activation, Grants, IdentityUse, Node, NodeInfo, PingStatus, Role, Session, SessionState,
    StoreError, TrailEntry, User,
};
pub use streams::{
    DestinationError, StreamDestination, StreamEnd, StreamJudge, StreamRecord, StreamRecords,
    StreamSummary, StreamVerdict,
};
pub use sts::{
    AssumeRoleError, AssumeRoleInput, AssumeRoleOutput, GetSessionTokenError, GetSessionTokenInput,
    IssuedCredentials,
};
pub use tags::{
    AddTagsToResourceInput, ListTagsForResourceInput, ListTagsForResourceOutput,
    RemoveTagsFromResourceInput, TagsError,
};
pub use trail::{LookupEventsError, LookupEventsInput, LookupEventsOutput};
