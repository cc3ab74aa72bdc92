//! iam: managed policies attached to users, groups and roles. The three differ in the member that
//! names the holder.

use sortie_control::{Holder, Recorded};
use sortie_wire::{
    Empty,
    shapes::iam::{
        AttachGroupPolicy, AttachGroupPolicyRequest, AttachRolePolicy, AttachRolePolicyRequest,
        AttachUserPolicy, AttachUserPolicyRequest, DetachGroupPolicy, DetachGroupPolicyRequest,
        DetachRolePolicy, DetachRolePolicyRequest, DetachUserPolicy, DetachUserPolicyRequest,
        ListAttachedGroupPolicies, ListAttachedGroupPoliciesRequest,
        ListAttachedGroupPoliciesResponse, ListAttachedRolePolicies,
        ListAttachedRolePoliciesRequest, ListAttachedRolePoliciesResponse,
        ListAttachedUserPolicies, ListAttachedUserPoliciesRequest,
        ListAttachedUserPoliciesResponse,
    },
};

use super::convert;
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

macro_rules! attach {
    ($($operation:ident($request:ident) of $kind:ident $name:ident;)*) => {$(
        impl Handler for $operation {
            async fn handle(
                scene: Scene<'_>,
                input: $request,
            ) -> Result<Recorded<Empty>, Failure> {
                let holder = Holder::$kind(input.$name);
                let control = &scene.house.control;
                let attached = control
                    .attach_policy(scene.call, &holder, &input.policy_arn)
                    .await?;
                Ok(attached.map(|()| Empty {}))
            }
        }
    )*};
}

macro_rules! detach {
    ($($operation:ident($request:ident) of $kind:ident $name:ident;)*) => {$(
        impl Handler for $operation {
            async fn handle(
                scene: Scene<'_>,
                input: $request,
            ) -> Result<Recorded<Empty>, Failure> {
                let holder = Holder::$kind(input.$name);
                let control = &scene.house.control;
                let detached = control
                    .detach_policy(scene.call, &holder, &input.policy_arn)
                    .await?;
                Ok(detached.map(|()| Empty {}))
            }
        }
    )*};
}

macro_rules! list {
    ($($operation:ident($request:ident) -> $response:ident of $kind:ident $name:ident;)*) => {$(
        impl Handler for $operation {
            async fn handle(
                scene: Scene<'_>,
                input: $request,
            ) -> Result<Recorded<$response>, Failure> {
                let holder = Holder::$kind(input.$name);
                let page = convert::page(input.marker, input.max_items);
                let prefix = input.path_prefix.as_deref();
                let control = &scene.house.control;
                let listed = control
                    .list_attached_policies(scene.call, &holder, prefix, &page)
                    .await?;
                Ok(listed.map(|page| $response {
                    attached_policies: Some(convert::attached(page.items)),
                    is_truncated: Some(page.marker.is_some()),
                    marker: page.marker,
                }))
            }
        }
    )*};
}

attach! {
    AttachGroupPolicy(AttachGroupPolicyRequest) of Group group_name;
    AttachRolePolicy(AttachRolePolicyRequest) of Role role_name;
    AttachUserPolicy(AttachUserPolicyRequest) of User user_name;
}

detach! {
    DetachGroupPolicy(DetachGroupPolicyRequest) of Group group_name;
    DetachRolePolicy(DetachRolePolicyRequest) of Role role_name;
    DetachUserPolicy(DetachUserPolicyRequest) of User user_name;
}

list! {
    ListAttachedGroupPolicies(ListAttachedGroupPoliciesRequest)
        -> ListAttachedGroupPoliciesResponse of Group group_name;
    ListAttachedRolePolicies(ListAttachedRolePoliciesRequest)
        -> ListAttachedRolePoliciesResponse of Role role_name;
    ListAttachedUserPolicies(ListAttachedUserPoliciesRequest)
        -> ListAttachedUserPoliciesResponse of User user_name;
}
