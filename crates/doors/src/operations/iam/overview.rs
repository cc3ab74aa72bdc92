//! iam: the account at one look.

use std::collections::BTreeMap;

use sortie_control::{
    Detail, DetailKind, Grants, GroupDetail, PolicyVersionView, PolicyView, Recorded, RoleView,
    UserDetail,
};
use sortie_wire::{
    Empty,
    shapes::iam::{
        self, EntityType, GetAccountAuthorizationDetails, GetAccountAuthorizationDetailsRequest,
        GetAccountAuthorizationDetailsResponse, GetAccountSummary, GetAccountSummaryResponse,
        ManagedPolicyDetail, PolicyDetail, RoleDetail,
    },
};

use super::{convert, policies, roles};
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

impl Handler for GetAccountAuthorizationDetails {
    async fn handle(
        scene: Scene<'_>,
        input: GetAccountAuthorizationDetailsRequest,
    ) -> Result<Recorded<GetAccountAuthorizationDetailsResponse>, Failure> {
        let page = convert::page(input.marker, input.max_items);
        let filter = input.filter.unwrap_or_default();
        let filter: Vec<DetailKind> = filter.iter().filter_map(kind).collect();
        let control = &scene.house.control;
        let found = control
            .get_account_authorization_details(scene.call, &filter, &page)
            .await?;
        Ok(found.map(|page| response(page.items, page.marker)))
    }
}

impl Handler for GetAccountSummary {
    async fn handle(
        scene: Scene<'_>,
        Empty {}: Empty,
    ) -> Result<Recorded<GetAccountSummaryResponse>, Failure> {
        let summary = scene.house.control.get_account_summary(scene.call).await?;
        Ok(summary.map(|numbers| {
            let numbers = numbers.into_iter();
            let numbers = numbers.map(|(key, number)| (key.to_owned(), convert::count(number)));
            GetAccountSummaryResponse {
                summary_map: Some(numbers.collect::<BTreeMap<_, _>>()),
            }
        }))
    }
}

fn kind(kind: &EntityType) -> Option<DetailKind> {
    Some(match kind.as_str() {
        "AWSManagedPolicy" => DetailKind::AwsManagedPolicy,
        "Group" => DetailKind::Group,
        "LocalManagedPolicy" => DetailKind::LocalManagedPolicy,
        "Role" => DetailKind::Role,
        "User" => DetailKind::User,
        _ => return None,
    })
}

fn response(
    details: Vec<Detail>,
    marker: Option<String>,
) -> GetAccountAuthorizationDetailsResponse {
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    let (mut roles, mut policies) = (Vec::new(), Vec::new());
    for detail in details {
        match detail {
            Detail::Group(detail) => groups.push(group(detail)),
            Detail::Policy(view, versions) => policies.push(policy(view, versions)),
            Detail::Role(view, attached) => roles.push(RoleDetail {
                attached_managed_policies: Some(convert::attached(attached)),
                ..role(view)
            }),
            Detail::User(detail) => users.push(user(detail)),
        }
    }
    GetAccountAuthorizationDetailsResponse {
        user_detail_list: Some(users),
        group_detail_list: Some(groups),
        role_detail_list: Some(roles),
        policies: Some(policies),
        is_truncated: Some(marker.is_some()),
        marker,
    }
}

fn inline(grants: &Grants) -> Option<Vec<PolicyDetail>> {
    let detail = |(name, document): (&String, &String)| PolicyDetail {
        policy_name: Some(name.clone()),
        policy_document: Some(convert::document(document)),
    };
    Some(grants.inline.iter().map(detail).collect())
}

fn user(detail: UserDetail) -> iam::UserDetail {
    let user = detail.user;
    iam::UserDetail {
        user_name: Some(user.name.to_string()),
        user_id: Some(user.unique_id.to_string()),
        arn: Some(detail.arn.to_string()),
        create_date: Some(user.created),
        user_policy_list: inline(&user.grants),
        group_list: Some(detail.groups),
        attached_managed_policies: Some(convert::attached(detail.attached)),
        permissions_boundary: convert::boundary(user.permissions_boundary),
        tags: convert::tags(user.tags),
        path: Some(user.path),
    }
}

fn group(detail: GroupDetail) -> iam::GroupDetail {
    let group = detail.group;
    iam::GroupDetail {
        group_id: Some(group.unique_id.to_string()),
        arn: Some(detail.arn.to_string()),
        create_date: Some(group.created),
        group_policy_list: inline(&group.grants),
        attached_managed_policies: Some(convert::attached(detail.attached)),
        group_name: Some(group.name),
        path: Some(group.path),
    }
}

fn role(view: RoleView) -> RoleDetail {
    let role = view.role;
    RoleDetail {
        role_id: Some(role.unique_id.to_string()),
        arn: Some(view.arn.to_string()),
        create_date: Some(role.created),
        assume_role_policy_document: Some(convert::document(&role.trust_policy)),
        instance_profile_list: Some(Vec::new()),
        role_policy_list: inline(&role.grants),
        attached_managed_policies: None,
        permissions_boundary: convert::boundary(role.permissions_boundary),
        tags: convert::tags(role.tags),
        role_last_used: Some(roles::last_used(view.last_used)),
        role_name: Some(role.name),
        path: Some(role.path),
    }
}

fn policy(view: PolicyView, versions: Vec<PolicyVersionView>) -> ManagedPolicyDetail {
    ManagedPolicyDetail {
        policy_name: Some(view.name),
        policy_id: Some(view.unique_id.to_string()),
        arn: Some(view.arn.to_string()),
        path: Some(view.path),
        default_version_id: Some(view.default_version),
        attachment_count: Some(convert::count(view.attachment_count)),
        permissions_boundary_usage_count: Some(convert::count(view.boundary_count)),
        is_attachable: Some(true),
        description: view.description,
        create_date: Some(view.created),
        update_date: Some(view.updated),
        policy_version_list: Some(versions.into_iter().map(policies::version).collect()),
    }
}
