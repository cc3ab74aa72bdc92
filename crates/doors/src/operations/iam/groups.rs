//! Groups and their members.

use sortie_control::{CreateGroupInput, GroupView, Recorded, UpdateGroupInput};
use sortie_wire::{
    Empty,
    shapes::iam::{
        self as wire, AddUserToGroup, CreateGroup, DeleteGroup, GetGroup, ListGroups,
        ListGroupsForUser, RemoveUserFromGroup, UpdateGroup,
    },
};

use super::{convert, users::listed_user};
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

fn group(view: GroupView) -> wire::Group {
    let group = view.group;
    wire::Group {
        path: group.path,
        group_name: group.name,
        group_id: group.unique_id.to_string(),
        arn: view.arn.to_string(),
        create_date: group.created,
    }
}

impl Handler for CreateGroup {
    async fn handle(
        scene: Scene<'_>,
        input: wire::CreateGroupRequest,
    ) -> Result<Recorded<wire::CreateGroupResponse>, Failure> {
        let input = CreateGroupInput {
            path: input.path,
            name: input.group_name,
        };
        let made = scene.house.control.create_group(scene.call, input).await?;
        Ok(made.map(|made| wire::CreateGroupResponse { group: group(made) }))
    }
}

impl Handler for GetGroup {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetGroupRequest,
    ) -> Result<Recorded<wire::GetGroupResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let found = control
            .get_group(scene.call, &input.group_name, &asked)
            .await?;
        Ok(found.map(|found| {
            let (users, is_truncated, marker) = convert::listing(found.members, listed_user);
            wire::GetGroupResponse {
                group: group(found.group),
                users,
                is_truncated,
                marker,
            }
        }))
    }
}

impl Handler for ListGroups {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListGroupsRequest,
    ) -> Result<Recorded<wire::ListGroupsResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let prefix = input.path_prefix.as_deref();
        let control = &scene.house.control;
        let found = control.list_groups(scene.call, prefix, &asked).await?;
        Ok(found.map(|found| {
            let (groups, is_truncated, marker) = convert::listing(found, group);
            wire::ListGroupsResponse {
                groups,
                is_truncated,
                marker,
            }
        }))
    }
}

impl Handler for UpdateGroup {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateGroupRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let input = UpdateGroupInput {
            name: input.group_name,
            new_path: input.new_path,
            new_name: input.new_group_name,
        };
        let done = scene.house.control.update_group(scene.call, input).await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for DeleteGroup {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeleteGroupRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let done = control.delete_group(scene.call, &input.group_name).await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for AddUserToGroup {
    async fn handle(
        scene: Scene<'_>,
        input: wire::AddUserToGroupRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let done = control
            .add_user_to_group(scene.call, &input.group_name, &input.user_name)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for RemoveUserFromGroup {
    async fn handle(
        scene: Scene<'_>,
        input: wire::RemoveUserFromGroupRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let done = control
            .remove_user_from_group(scene.call, &input.group_name, &input.user_name)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for ListGroupsForUser {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListGroupsForUserRequest,
    ) -> Result<Recorded<wire::ListGroupsForUserResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let found = control
            .list_groups_for_user(scene.call, &input.user_name, &asked)
            .await?;
        Ok(found.map(|found| {
            let (groups, is_truncated, marker) = convert::listing(found, group);
            wire::ListGroupsForUserResponse {
                groups,
                is_truncated,
                marker,
            }
        }))
    }
}
