//! iam: roles.

use sortie_control::{CreateRoleInput, IdentityUse, Recorded, RoleView, UpdateRoleInput};
use sortie_wire::{
    Empty,
    shapes::iam::{
        CreateRole, CreateRoleRequest, CreateRoleResponse, DeleteRole, DeleteRoleRequest, GetRole,
        GetRoleRequest, GetRoleResponse, ListInstanceProfilesForRole,
        ListInstanceProfilesForRoleRequest, ListInstanceProfilesForRoleResponse, ListRoleTags,
        ListRoleTagsRequest, ListRoleTagsResponse, ListRoles, ListRolesRequest, ListRolesResponse,
        Role, RoleLastUsed, TagRole, TagRoleRequest, UntagRole, UntagRoleRequest,
        UpdateAssumeRolePolicy, UpdateAssumeRolePolicyRequest, UpdateRole, UpdateRoleDescription,
        UpdateRoleDescriptionRequest, UpdateRoleDescriptionResponse, UpdateRoleRequest,
        UpdateRoleResponse,
    },
};

use super::convert;
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

impl Handler for CreateRole {
    async fn handle(
        scene: Scene<'_>,
        input: CreateRoleRequest,
    ) -> Result<Recorded<CreateRoleResponse>, Failure> {
        let input = CreateRoleInput {
            path: input.path,
            name: input.role_name,
            trust_policy: input.assume_role_policy_document,
            description: input.description,
            max_session_seconds: input.max_session_duration.map(i64::from),
            permissions_boundary: input.permissions_boundary,
            tags: convert::given_tags(input.tags),
        };
        let made = scene.house.control.create_role(scene.call, input).await?;
        Ok(made.map(|view| CreateRoleResponse { role: role(view) }))
    }
}

impl Handler for GetRole {
    async fn handle(
        scene: Scene<'_>,
        input: GetRoleRequest,
    ) -> Result<Recorded<GetRoleResponse>, Failure> {
        let control = &scene.house.control;
        let found = control.get_role(scene.call, &input.role_name).await?;
        Ok(found.map(|mut view| {
            let last_used = last_used(view.last_used.take());
            GetRoleResponse {
                role: Role {
                    role_last_used: Some(last_used),
                    ..role(view)
                },
            }
        }))
    }
}

impl Handler for ListRoles {
    async fn handle(
        scene: Scene<'_>,
        input: ListRolesRequest,
    ) -> Result<Recorded<ListRolesResponse>, Failure> {
        let page = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let prefix = input.path_prefix.as_deref();
        let listed = control.list_roles(scene.call, prefix, &page).await?;
        Ok(listed.map(|page| ListRolesResponse {
            is_truncated: Some(page.marker.is_some()),
            marker: page.marker,
            roles: page.items.into_iter().map(listed_role).collect(),
        }))
    }
}

impl Handler for UpdateRole {
    async fn handle(
        scene: Scene<'_>,
        input: UpdateRoleRequest,
    ) -> Result<Recorded<UpdateRoleResponse>, Failure> {
        let input = UpdateRoleInput {
            name: input.role_name,
            description: input.description,
            max_session_seconds: input.max_session_duration.map(i64::from),
        };
        let updated = scene.house.control.update_role(scene.call, input).await?;
        Ok(updated.map(|_| UpdateRoleResponse {}))
    }
}

impl Handler for UpdateRoleDescription {
    async fn handle(
        scene: Scene<'_>,
        input: UpdateRoleDescriptionRequest,
    ) -> Result<Recorded<UpdateRoleDescriptionResponse>, Failure> {
        let (name, description) = (input.role_name, input.description);
        let control = &scene.house.control;
        let updated = control
            .update_role_description(scene.call, name, description)
            .await?;
        Ok(updated.map(|view| UpdateRoleDescriptionResponse {
            role: Some(role(view)),
        }))
    }
}

impl Handler for UpdateAssumeRolePolicy {
    async fn handle(
        scene: Scene<'_>,
        input: UpdateAssumeRolePolicyRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let (name, document) = (&input.role_name, &input.policy_document);
        let control = &scene.house.control;
        let updated = control
            .update_assume_role_policy(scene.call, name, document)
            .await?;
        Ok(updated.map(|()| Empty {}))
    }
}

impl Handler for DeleteRole {
    async fn handle(
        scene: Scene<'_>,
        input: DeleteRoleRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let deleted = control.delete_role(scene.call, &input.role_name).await?;
        Ok(deleted.map(|()| Empty {}))
    }
}

impl Handler for TagRole {
    async fn handle(scene: Scene<'_>, input: TagRoleRequest) -> Result<Recorded<Empty>, Failure> {
        let tags = convert::given_tags(Some(input.tags));
        let control = &scene.house.control;
        let tagged = control
            .tag_role(scene.call, &input.role_name, &tags)
            .await?;
        Ok(tagged.map(|()| Empty {}))
    }
}

impl Handler for UntagRole {
    async fn handle(scene: Scene<'_>, input: UntagRoleRequest) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let untagged = control
            .untag_role(scene.call, &input.role_name, &input.tag_keys)
            .await?;
        Ok(untagged.map(|()| Empty {}))
    }
}

impl Handler for ListRoleTags {
    async fn handle(
        scene: Scene<'_>,
        input: ListRoleTagsRequest,
    ) -> Result<Recorded<ListRoleTagsResponse>, Failure> {
        let page = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let listed = control
            .list_role_tags(scene.call, &input.role_name, &page)
            .await?;
        Ok(listed.map(|page| ListRoleTagsResponse {
            is_truncated: Some(page.marker.is_some()),
            marker: page.marker,
            tags: page.items.into_iter().map(convert::tag).collect(),
        }))
    }
}

impl Handler for ListInstanceProfilesForRole {
    async fn handle(
        scene: Scene<'_>,
        input: ListInstanceProfilesForRoleRequest,
    ) -> Result<Recorded<ListInstanceProfilesForRoleResponse>, Failure> {
        let control = &scene.house.control;
        let listed = control
            .list_instance_profiles_for_role(scene.call, &input.role_name)
            .await?;
        Ok(listed.map(|()| ListInstanceProfilesForRoleResponse {
            instance_profiles: Vec::new(),
            is_truncated: Some(false),
            marker: None,
        }))
    }
}

fn role(view: RoleView) -> Role {
    let row = view.role;
    Role {
        path: row.path,
        role_name: row.name,
        role_id: row.unique_id.to_string(),
        arn: view.arn.to_string(),
        create_date: row.created,
        assume_role_policy_document: Some(convert::document(&row.trust_policy)),
        description: row.description,
        max_session_duration: Some(i32::try_from(row.max_session_seconds).unwrap_or(i32::MAX)),
        permissions_boundary: convert::boundary(row.permissions_boundary),
        tags: convert::tags(row.tags),
        role_last_used: None,
    }
}

/// A role as listings show it: without what `GetRole` is for.
fn listed_role(view: RoleView) -> Role {
    Role {
        permissions_boundary: None,
        tags: None,
        ..role(view)
    }
}

pub(super) fn last_used(last_used: Option<IdentityUse>) -> RoleLastUsed {
    let (at, region) = last_used.map_or((None, None), |used| (Some(used.at), used.region));
    RoleLastUsed {
        last_used_date: at,
        region,
    }
}
