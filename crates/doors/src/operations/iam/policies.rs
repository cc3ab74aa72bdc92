//! iam: managed policies and their versions.

use sortie_control::{
    CreatePolicyInput, EntityKind, EntityView, ListEntitiesInput, ListPoliciesInput, PolicyScope,
    PolicyUsage, PolicyVersionView, PolicyView, Recorded,
};
use sortie_wire::{
    Empty,
    shapes::iam::{
        CreatePolicy, CreatePolicyRequest, CreatePolicyResponse, CreatePolicyVersion,
        CreatePolicyVersionRequest, CreatePolicyVersionResponse, DeletePolicy, DeletePolicyRequest,
        DeletePolicyVersion, DeletePolicyVersionRequest, EntityType, GetPolicy, GetPolicyRequest,
        GetPolicyResponse, GetPolicyVersion, GetPolicyVersionRequest, GetPolicyVersionResponse,
        ListEntitiesForPolicy, ListEntitiesForPolicyRequest, ListEntitiesForPolicyResponse,
        ListPolicies, ListPoliciesRequest, ListPoliciesResponse, ListPolicyTags,
        ListPolicyTagsRequest, ListPolicyTagsResponse, ListPolicyVersions,
        ListPolicyVersionsRequest, ListPolicyVersionsResponse, Policy, PolicyGroup, PolicyRole,
        PolicyScopeType, PolicyUsageType, PolicyUser, PolicyVersion, SetDefaultPolicyVersion,
        SetDefaultPolicyVersionRequest, TagPolicy, TagPolicyRequest, UntagPolicy,
        UntagPolicyRequest,
    },
};

use super::convert;
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

impl Handler for CreatePolicy {
    async fn handle(
        scene: Scene<'_>,
        input: CreatePolicyRequest,
    ) -> Result<Recorded<CreatePolicyResponse>, Failure> {
        let input = CreatePolicyInput {
            path: input.path,
            name: input.policy_name,
            document: input.policy_document,
            description: input.description,
            tags: convert::given_tags(input.tags),
        };
        let made = scene.house.control.create_policy(scene.call, input).await?;
        Ok(made.map(|view| CreatePolicyResponse {
            // The description comes with GetPolicy alone.
            policy: Some(Policy {
                description: None,
                ..policy(view)
            }),
        }))
    }
}

impl Handler for GetPolicy {
    async fn handle(
        scene: Scene<'_>,
        input: GetPolicyRequest,
    ) -> Result<Recorded<GetPolicyResponse>, Failure> {
        let control = &scene.house.control;
        let found = control.get_policy(scene.call, &input.policy_arn).await?;
        Ok(found.map(|view| GetPolicyResponse {
            policy: Some(policy(view)),
        }))
    }
}

impl Handler for ListPolicies {
    async fn handle(
        scene: Scene<'_>,
        input: ListPoliciesRequest,
    ) -> Result<Recorded<ListPoliciesResponse>, Failure> {
        let scope = match input.scope {
            Some(scope) if scope == PolicyScopeType::AWS => PolicyScope::Aws,
            Some(scope) if scope == PolicyScopeType::LOCAL => PolicyScope::Local,
            _ => PolicyScope::All,
        };
        let input = ListPoliciesInput {
            scope,
            only_attached: input.only_attached.unwrap_or_default(),
            path_prefix: input.path_prefix,
            usage: input.policy_usage_filter.as_ref().map(usage),
            page: convert::page(input.marker, input.max_items),
        };
        let listed = scene.house.control.list_policies(scene.call, input).await?;
        Ok(listed.map(|page| ListPoliciesResponse {
            is_truncated: Some(page.marker.is_some()),
            marker: page.marker,
            policies: Some(page.items.into_iter().map(listed_policy).collect()),
        }))
    }
}

impl Handler for DeletePolicy {
    async fn handle(
        scene: Scene<'_>,
        input: DeletePolicyRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let deleted = control.delete_policy(scene.call, &input.policy_arn).await?;
        Ok(deleted.map(|()| Empty {}))
    }
}

impl Handler for CreatePolicyVersion {
    async fn handle(
        scene: Scene<'_>,
        input: CreatePolicyVersionRequest,
    ) -> Result<Recorded<CreatePolicyVersionResponse>, Failure> {
        let control = &scene.house.control;
        let (arn, document) = (&input.policy_arn, &input.policy_document);
        let set_as_default = input.set_as_default.unwrap_or_default();
        let made = control
            .create_policy_version(scene.call, arn, document, set_as_default)
            .await?;
        Ok(made.map(|view| CreatePolicyVersionResponse {
            policy_version: Some(without_document(view)),
        }))
    }
}

impl Handler for GetPolicyVersion {
    async fn handle(
        scene: Scene<'_>,
        input: GetPolicyVersionRequest,
    ) -> Result<Recorded<GetPolicyVersionResponse>, Failure> {
        let control = &scene.house.control;
        let found = control
            .get_policy_version(scene.call, &input.policy_arn, &input.version_id)
            .await?;
        Ok(found.map(|view| GetPolicyVersionResponse {
            policy_version: Some(version(view)),
        }))
    }
}

impl Handler for ListPolicyVersions {
    async fn handle(
        scene: Scene<'_>,
        input: ListPolicyVersionsRequest,
    ) -> Result<Recorded<ListPolicyVersionsResponse>, Failure> {
        let page = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let listed = control
            .list_policy_versions(scene.call, &input.policy_arn, &page)
            .await?;
        Ok(listed.map(|page| ListPolicyVersionsResponse {
            is_truncated: Some(page.marker.is_some()),
            marker: page.marker,
            versions: Some(page.items.into_iter().map(without_document).collect()),
        }))
    }
}

impl Handler for SetDefaultPolicyVersion {
    async fn handle(
        scene: Scene<'_>,
        input: SetDefaultPolicyVersionRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let set = control
            .set_default_policy_version(scene.call, &input.policy_arn, &input.version_id)
            .await?;
        Ok(set.map(|()| Empty {}))
    }
}

impl Handler for DeletePolicyVersion {
    async fn handle(
        scene: Scene<'_>,
        input: DeletePolicyVersionRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let deleted = control
            .delete_policy_version(scene.call, &input.policy_arn, &input.version_id)
            .await?;
        Ok(deleted.map(|()| Empty {}))
    }
}

impl Handler for ListEntitiesForPolicy {
    async fn handle(
        scene: Scene<'_>,
        input: ListEntitiesForPolicyRequest,
    ) -> Result<Recorded<ListEntitiesForPolicyResponse>, Failure> {
        let input = ListEntitiesInput {
            arn: input.policy_arn,
            kind: input.entity_filter.as_ref().and_then(entity_kind),
            path_prefix: input.path_prefix,
            usage: input.policy_usage_filter.as_ref().map(usage),
            page: convert::page(input.marker, input.max_items),
        };
        let control = &scene.house.control;
        let listed = control.list_entities_for_policy(scene.call, input).await?;
        Ok(listed.map(|page| entities(page.items, page.marker)))
    }
}

impl Handler for TagPolicy {
    async fn handle(scene: Scene<'_>, input: TagPolicyRequest) -> Result<Recorded<Empty>, Failure> {
        let tags = convert::given_tags(Some(input.tags));
        let control = &scene.house.control;
        let tagged = control
            .tag_policy(scene.call, &input.policy_arn, &tags)
            .await?;
        Ok(tagged.map(|()| Empty {}))
    }
}

impl Handler for UntagPolicy {
    async fn handle(
        scene: Scene<'_>,
        input: UntagPolicyRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let untagged = control
            .untag_policy(scene.call, &input.policy_arn, &input.tag_keys)
            .await?;
        Ok(untagged.map(|()| Empty {}))
    }
}

impl Handler for ListPolicyTags {
    async fn handle(
        scene: Scene<'_>,
        input: ListPolicyTagsRequest,
    ) -> Result<Recorded<ListPolicyTagsResponse>, Failure> {
        let page = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let listed = control
            .list_policy_tags(scene.call, &input.policy_arn, &page)
            .await?;
        Ok(listed.map(|page| ListPolicyTagsResponse {
            is_truncated: Some(page.marker.is_some()),
            marker: page.marker,
            tags: page.items.into_iter().map(convert::tag).collect(),
        }))
    }
}

fn usage(usage: &PolicyUsageType) -> PolicyUsage {
    if *usage == PolicyUsageType::PERMISSIONS_BOUNDARY {
        PolicyUsage::Boundary
    } else {
        PolicyUsage::Permissions
    }
}

/// The model also lets one ask for policies here, which are no entities: that narrows nothing.
fn entity_kind(kind: &EntityType) -> Option<EntityKind> {
    match kind.as_str() {
        "Group" => Some(EntityKind::Group),
        "Role" => Some(EntityKind::Role),
        "User" => Some(EntityKind::User),
        _ => None,
    }
}

fn entities(found: Vec<EntityView>, marker: Option<String>) -> ListEntitiesForPolicyResponse {
    let (mut groups, mut roles, mut users) = (Vec::new(), Vec::new(), Vec::new());
    for entity in found {
        let (name, id) = (Some(entity.name), Some(entity.unique_id.to_string()));
        match entity.kind {
            EntityKind::Group => groups.push(PolicyGroup {
                group_name: name,
                group_id: id,
            }),
            EntityKind::Role => roles.push(PolicyRole {
                role_name: name,
                role_id: id,
            }),
            EntityKind::User => users.push(PolicyUser {
                user_name: name,
                user_id: id,
            }),
        }
    }
    ListEntitiesForPolicyResponse {
        policy_groups: Some(groups),
        policy_users: Some(users),
        policy_roles: Some(roles),
        is_truncated: Some(marker.is_some()),
        marker,
    }
}

fn policy(view: PolicyView) -> Policy {
    Policy {
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
        tags: convert::tags(view.tags),
    }
}

/// A policy as listings show it: without what `GetPolicy` is for.
fn listed_policy(view: PolicyView) -> Policy {
    Policy {
        description: None,
        tags: None,
        ..policy(view)
    }
}

pub(super) fn version(view: PolicyVersionView) -> PolicyVersion {
    PolicyVersion {
        document: Some(convert::document(&view.document)),
        version_id: Some(view.id),
        is_default_version: Some(view.is_default),
        create_date: Some(view.created),
    }
}

fn without_document(view: PolicyVersionView) -> PolicyVersion {
    PolicyVersion {
        document: None,
        ..version(view)
    }
}
