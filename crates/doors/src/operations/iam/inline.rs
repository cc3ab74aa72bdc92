//! iam: inline policies of users, groups and roles. The three differ in the member that names the
//! holder.

use sortie_control::{Holder, Recorded};
use sortie_wire::{
    Empty,
    shapes::iam::{
        DeleteGroupPolicy, DeleteGroupPolicyRequest, DeleteRolePolicy, DeleteRolePolicyRequest,
        DeleteUserPolicy, DeleteUserPolicyRequest, GetGroupPolicy, GetGroupPolicyRequest,
        GetGroupPolicyResponse, GetRolePolicy, GetRolePolicyRequest, GetRolePolicyResponse,
        GetUserPolicy, GetUserPolicyRequest, GetUserPolicyResponse, ListGroupPolicies,
        ListGroupPoliciesRequest, ListGroupPoliciesResponse, ListRolePolicies,
        ListRolePoliciesRequest, ListRolePoliciesResponse, ListUserPolicies,
        ListUserPoliciesRequest, ListUserPoliciesResponse, PutGroupPolicy, PutGroupPolicyRequest,
        PutRolePolicy, PutRolePolicyRequest, PutUserPolicy, PutUserPolicyRequest,
    },
};

use super::convert;
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

macro_rules! put {
    ($($operation:ident($request:ident) of $kind:ident $name:ident;)*) => {$(
        impl Handler for $operation {
            async fn handle(
                scene: Scene<'_>,
                input: $request,
            ) -> Result<Recorded<Empty>, Failure> {
                let holder = Holder::$kind(input.$name);
                let (name, document) = (&input.policy_name, &input.policy_document);
                let control = &scene.house.control;
                let put = control
                    .put_inline_policy(scene.call, &holder, name, document)
                    .await?;
                Ok(put.map(|()| Empty {}))
            }
        }
    )*};
}

macro_rules! get {
    ($($operation:ident($request:ident) -> $response:ident of $kind:ident $name:ident;)*) => {$(
        impl Handler for $operation {
            async fn handle(
                scene: Scene<'_>,
                input: $request,
            ) -> Result<Recorded<$response>, Failure> {
                let holder = Holder::$kind(input.$name);
                let control = &scene.house.control;
                let found = control
                    .get_inline_policy(scene.call, &holder, &input.policy_name)
                    .await?;
                Ok(found.map(|view| $response {
                    $name: view.holder,
                    policy_name: view.name,
                    policy_document: convert::document(&view.document),
                }))
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
                let control = &scene.house.control;
                let listed = control
                    .list_inline_policies(scene.call, &holder, &page)
                    .await?;
                Ok(listed.map(|page| $response {
                    policy_names: page.items,
                    is_truncated: Some(page.marker.is_some()),
                    marker: page.marker,
                }))
            }
        }
    )*};
}

macro_rules! delete {
    ($($operation:ident($request:ident) of $kind:ident $name:ident;)*) => {$(
        impl Handler for $operation {
            async fn handle(
                scene: Scene<'_>,
                input: $request,
            ) -> Result<Recorded<Empty>, Failure> {
                let holder = Holder::$kind(input.$name);
                let control = &scene.house.control;
                let deleted = control
                    .delete_inline_policy(scene.call, &holder, &input.policy_name)
                    .await?;
                Ok(deleted.map(|()| Empty {}))
            }
        }
    )*};
}

put! {
    PutGroupPolicy(PutGroupPolicyRequest) of Group group_name;
    PutRolePolicy(PutRolePolicyRequest) of Role role_name;
    PutUserPolicy(PutUserPolicyRequest) of User user_name;
}

get! {
    GetGroupPolicy(GetGroupPolicyRequest) -> GetGroupPolicyResponse of Group group_name;
    GetRolePolicy(GetRolePolicyRequest) -> GetRolePolicyResponse of Role role_name;
    GetUserPolicy(GetUserPolicyRequest) -> GetUserPolicyResponse of User user_name;
}

list! {
    ListGroupPolicies(ListGroupPoliciesRequest) -> ListGroupPoliciesResponse of Group group_name;
    ListRolePolicies(ListRolePoliciesRequest) -> ListRolePoliciesResponse of Role role_name;
    ListUserPolicies(ListUserPoliciesRequest) -> ListUserPoliciesResponse of User user_name;
}

delete! {
    DeleteGroupPolicy(DeleteGroupPolicyRequest) of Group group_name;
    DeleteRolePolicy(DeleteRolePolicyRequest) of Role role_name;
    DeleteUserPolicy(DeleteUserPolicyRequest) of User user_name;
}
