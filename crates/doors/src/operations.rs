//! Every operation that the doors answer, as one table, and the step that all of them share: parse
//! the input, run the operation, write the answer or record the failure.

mod cloudtrail;
mod documents;
mod iam;
mod node;
mod sortie;
mod ssm;
mod sts;

use std::{future::Future, pin::Pin};

use sortie_control::{Access, Call, Recorded, operation_rule};
use sortie_wire::{Operation, Service, Shape, call::decode_request, shapes};

use crate::{
    House, answer,
    channels::{self, channel_parameters},
    errors::Failure,
    perform::{Outcome, poll_hold},
    request::Received,
};

/// Who may call an operation at all.
pub use sortie_control::Access as Who;

/// An operation that the doors answer.
#[derive(Clone, Copy)]
pub struct OperationEntry {
    /// Whose.
    pub service: Service,
    /// Its name.
    pub name: &'static str,
    /// Whether it changes nothing.
    pub read_only: bool,
    run: Option<Run>,
    /// Whether the answer is held back.
    held: bool,
}

type Run = for<'a> fn(&'a OperationEntry, &'a House, &'a Received, Call, &'a [u8]) -> Running<'a>;
type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

impl std::fmt::Debug for OperationEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperationEntry")
            .field("service", &self.service)
            .field("name", &self.name)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl OperationEntry {
    /// Who may call it at all.
    #[must_use]
    pub fn who(&self) -> Who {
        // A test keeps both tables together; an operation that control lacks is nobody's.
        operation_rule(self.service.signing_name(), self.name)
            .map_or(Access::User, |rule| rule.access)
    }

    /// Whether it is an HTTP call with an input, not the opening of a websocket.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.run.is_some()
    }

    const fn of<O: Handler>() -> Self {
        Self {
            service: O::SERVICE,
            name: O::NAME,
            read_only: O::READ_ONLY,
            run: Some(run::<O>),
            held: false,
        }
    }

    const fn held<O: Handler>() -> Self {
        Self {
            held: true,
            ..Self::of::<O>()
        }
    }

    const fn upgrade(name: &'static str) -> Self {
        Self {
            service: Service::SsmMessages,
            name,
            read_only: false,
            run: None,
            held: false,
        }
    }

    pub(crate) async fn run(
        &'static self,
        house: &House,
        received: &Received,
        call: Call,
        body: &[u8],
    ) -> Outcome {
        match self.run {
            Some(run) => run(self, house, received, call, body).await,
            None => {
                house
                    .failed(
                        received,
                        self.service,
                        &call,
                        Failure::internal(self.service),
                    )
                    .await
            }
        }
    }
}

/// An operation with everything it needs beside its input.
pub(crate) trait Handler:
    Operation<Input: Send + Sync, Output: Send + Sync> + 'static
{
    /// Runs it.
    fn handle(
        scene: Scene<'_>,
        input: Self::Input,
    ) -> impl Future<Output = Result<Recorded<Self::Output>, Failure>> + Send;
}

/// Where an operation runs.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) house: &'a House,
    pub(crate) received: &'a Received,
    pub(crate) call: &'a Call,
}

fn run<'a, O: Handler>(
    entry: &'a OperationEntry,
    house: &'a House,
    received: &'a Received,
    mut call: Call,
    body: &'a [u8],
) -> Running<'a> {
    Box::pin(async move {
        let input = match decode_request::<O>(body) {
            Ok(input) => input,
            Err(error) => {
                let failure = Failure::of(error.to_error(O::SERVICE.protocol()));
                return house.failed(received, O::SERVICE, &call, failure).await;
            }
        };
        call.request_parameters = match O::SERVICE {
            Service::SsmMessages => channel_parameters(&channels::name(received), input.to_trail()),
            _ => input.to_trail(),
        };
        let scene = Scene {
            house,
            received,
            call: &call,
        };
        match O::handle(scene, input).await {
            Ok(output) => Outcome {
                response: answer::success::<O>(&output.into_inner(), received.request_id),
                hold: entry.held.then(poll_hold),
            },
            Err(failure) => house.failed(received, O::SERVICE, &call, failure).await,
        }
    })
}

impl House {
    /// Records a failure and answers it.
    pub(crate) async fn failed(
        &self,
        received: &Received,
        service: Service,
        call: &Call,
        failure: Failure,
    ) -> Outcome {
        self.record(call, &failure).await;
        answer::failure(&failure.error, service, received.request_id).into()
    }
}

/// The name under which a control channel's opening stands in the table.
pub(crate) const OPEN_CONTROL_CHANNEL: &str = "OpenControlChannel";
/// The name under which a data channel's opening stands in the table.
pub(crate) const OPEN_DATA_CHANNEL: &str = "OpenDataChannel";

macro_rules! table {
    ($($how:ident $($module:ident $name:ident)? $($upgrade:literal)?;)*) => {
        static TABLE: &[OperationEntry] = &[
            $(table!(@ $how $($module $name)? $($upgrade)?)),*
        ];
    };
    (@ of $module:ident $name:ident) => { OperationEntry::of::<shapes::$module::$name>() };
    (@ held $module:ident $name:ident) => { OperationEntry::held::<shapes::$module::$name>() };
    (@ upgrade $name:literal) => { OperationEntry::upgrade($name) };
}

table! {
    of ssm AddTagsToResource;
    of ssm CreateActivation;
    of ssm CreateDocument;
    of ssm DeleteActivation;
    of ssm DeleteDocument;
    of ssm DeregisterManagedInstance;
    of ssm DescribeActivations;
    of ssm DescribeDocument;
    of ssm DescribeDocumentPermission;
    of ssm DescribeInstanceInformation;
    of ssm DescribeInstanceProperties;
    of ssm DescribeSessions;
    of ssm GetConnectionStatus;
    of ssm GetDocument;
    of ssm GetServiceSetting;
    of ssm ListDocumentVersions;
    of ssm ListDocuments;
    of ssm ListTagsForResource;
    of ssm ModifyDocumentPermission;
    of ssm RemoveTagsFromResource;
    of ssm ResetServiceSetting;
    of ssm ResumeSession;
    of ssm StartSession;
    of ssm TerminateSession;
    of ssm UpdateDocument;
    of ssm UpdateDocumentDefaultVersion;
    of ssm UpdateManagedInstanceRole;
    of ssm UpdateServiceSetting;
    of sts AssumeRole;
    of sts GetCallerIdentity;
    of sts GetSessionToken;
    of sortie Explain;
    of sortie GetCaller;
    of sortie SignIn;
    of cloudtrail LookupEvents;
    of iam AddUserToGroup;
    of iam AttachGroupPolicy;
    of iam AttachRolePolicy;
    of iam AttachUserPolicy;
    of iam ChangePassword;
    of iam CreateAccessKey;
    of iam CreateGroup;
    of iam CreateLoginProfile;
    of iam CreatePolicy;
    of iam CreatePolicyVersion;
    of iam CreateRole;
    of iam CreateUser;
    of iam CreateVirtualMFADevice;
    of iam DeactivateMFADevice;
    of iam DeleteAccessKey;
    of iam DeleteGroup;
    of iam DeleteGroupPolicy;
    of iam DeleteLoginProfile;
    of iam DeletePolicy;
    of iam DeletePolicyVersion;
    of iam DeleteRole;
    of iam DeleteRolePermissionsBoundary;
    of iam DeleteRolePolicy;
    of iam DeleteUser;
    of iam DeleteUserPermissionsBoundary;
    of iam DeleteUserPolicy;
    of iam DeleteVirtualMFADevice;
    of iam DetachGroupPolicy;
    of iam DetachRolePolicy;
    of iam DetachUserPolicy;
    of iam EnableMFADevice;
    of iam GetAccessKeyLastUsed;
    of iam GetAccountAuthorizationDetails;
    of iam GetAccountSummary;
    of iam GetContextKeysForCustomPolicy;
    of iam GetContextKeysForPrincipalPolicy;
    of iam GetGroup;
    of iam GetGroupPolicy;
    of iam GetLoginProfile;
    of iam GetMFADevice;
    of iam GetPolicy;
    of iam GetPolicyVersion;
    of iam GetRole;
    of iam GetRolePolicy;
    of iam GetUser;
    of iam GetUserPolicy;
    of iam ListAccessKeys;
    of iam ListAttachedGroupPolicies;
    of iam ListAttachedRolePolicies;
    of iam ListAttachedUserPolicies;
    of iam ListEntitiesForPolicy;
    of iam ListGroupPolicies;
    of iam ListGroups;
    of iam ListGroupsForUser;
    of iam ListInstanceProfilesForRole;
    of iam ListMFADevices;
    of iam ListPolicies;
    of iam ListPolicyTags;
    of iam ListPolicyVersions;
    of iam ListRolePolicies;
    of iam ListRoleTags;
    of iam ListRoles;
    of iam ListSSHPublicKeys;
    of iam ListServiceSpecificCredentials;
    of iam ListSigningCertificates;
    of iam ListUserPolicies;
    of iam ListUserTags;
    of iam ListUsers;
    of iam ListVirtualMFADevices;
    of iam PutGroupPolicy;
    of iam PutRolePermissionsBoundary;
    of iam PutRolePolicy;
    of iam PutUserPermissionsBoundary;
    of iam PutUserPolicy;
    of iam RemoveUserFromGroup;
    of iam ResyncMFADevice;
    of iam SetDefaultPolicyVersion;
    of iam SimulateCustomPolicy;
    of iam SimulatePrincipalPolicy;
    of iam TagPolicy;
    of iam TagRole;
    of iam TagUser;
    of iam UntagPolicy;
    of iam UntagRole;
    of iam UntagUser;
    of iam UpdateAccessKey;
    of iam UpdateAssumeRolePolicy;
    of iam UpdateGroup;
    of iam UpdateLoginProfile;
    of iam UpdateRole;
    of iam UpdateRoleDescription;
    of iam UpdateUser;
    of node RegisterManagedInstance;
    of node RequestManagedInstanceRoleToken;
    of node UpdateManagedInstancePublicKey;
    of node UpdateInstanceInformation;
    of node ListInstanceAssociations;
    of node ListAssociations;
    of node AcknowledgeMessage;
    of node DeleteMessage;
    of node FailMessage;
    of node GetEndpoint;
    held node GetMessages;
    of node SendReply;
    of node CreateControlChannel;
    of node CreateDataChannel;
    upgrade "OpenControlChannel";
    upgrade "OpenDataChannel";
}

/// Everything that the doors answer.
#[must_use]
pub fn operations() -> &'static [OperationEntry] {
    TABLE
}

/// The entry of an operation.
pub(crate) fn find(service: Service, name: &str) -> Option<&'static OperationEntry> {
    TABLE
        .iter()
        .find(|entry| entry.service == service && entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_has_a_rule_for_every_operation_and_names_it_once() {
        for (index, entry) in operations().iter().enumerate() {
            let service = entry.service.signing_name();
            assert!(
                operation_rule(service, entry.name).is_some(),
                "{}",
                entry.name
            );
            let first = operations()
                .iter()
                .position(|other| other.name == entry.name);
            assert_eq!(first, Some(index), "{}", entry.name);
        }
    }
}
