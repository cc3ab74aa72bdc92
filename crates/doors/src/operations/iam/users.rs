//! Users, their tags, and what none of them has.

use sortie_control::{CreateUserInput, Recorded, UpdateUserInput, UserView};
use sortie_wire::{
    Empty,
    shapes::iam::{
        self as wire, CreateUser, DeleteUser, GetUser, ListSSHPublicKeys,
        ListServiceSpecificCredentials, ListSigningCertificates, ListUserTags, ListUsers, TagUser,
        UntagUser, UpdateUser,
    },
};

use super::convert;
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

pub(super) fn user(view: UserView) -> wire::User {
    let user = view.user;
    wire::User {
        path: user.path,
        user_name: user.name.to_string(),
        user_id: user.unique_id.to_string(),
        arn: view.arn.to_string(),
        create_date: user.created,
        password_last_used: view.password_last_used,
        permissions_boundary: convert::boundary(user.permissions_boundary),
        tags: convert::tags(user.tags),
    }
}

/// A user in a listing, which leaves out boundary and tags as AWS's do.
pub(super) fn listed_user(view: UserView) -> wire::User {
    wire::User {
        permissions_boundary: None,
        tags: None,
        ..user(view)
    }
}

impl Handler for CreateUser {
    async fn handle(
        scene: Scene<'_>,
        input: wire::CreateUserRequest,
    ) -> Result<Recorded<wire::CreateUserResponse>, Failure> {
        let input = CreateUserInput {
            path: input.path,
            name: input.user_name,
            permissions_boundary: input.permissions_boundary,
            tags: convert::given_tags(input.tags),
        };
        let made = scene.house.control.create_user(scene.call, input).await?;
        Ok(made.map(|made| wire::CreateUserResponse {
            user: Some(user(made)),
        }))
    }
}

impl Handler for GetUser {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetUserRequest,
    ) -> Result<Recorded<wire::GetUserResponse>, Failure> {
        let control = &scene.house.control;
        let found = control.get_user(scene.call, input.user_name).await?;
        Ok(found.map(|found| wire::GetUserResponse { user: user(found) }))
    }
}

impl Handler for ListUsers {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListUsersRequest,
    ) -> Result<Recorded<wire::ListUsersResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let prefix = input.path_prefix.as_deref();
        let control = &scene.house.control;
        let found = control.list_users(scene.call, prefix, &asked).await?;
        Ok(found.map(|found| {
            let (users, is_truncated, marker) = convert::listing(found, listed_user);
            wire::ListUsersResponse {
                users,
                is_truncated,
                marker,
            }
        }))
    }
}

impl Handler for UpdateUser {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateUserRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let input = UpdateUserInput {
            name: input.user_name,
            new_path: input.new_path,
            new_name: input.new_user_name,
        };
        let done = scene.house.control.update_user(scene.call, input).await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for DeleteUser {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeleteUserRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let done = control.delete_user(scene.call, &input.user_name).await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for TagUser {
    async fn handle(
        scene: Scene<'_>,
        input: wire::TagUserRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let tags = convert::given_tags(Some(input.tags));
        let control = &scene.house.control;
        let done = control
            .tag_user(scene.call, &input.user_name, &tags)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for UntagUser {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UntagUserRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let done = control
            .untag_user(scene.call, &input.user_name, &input.tag_keys)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for ListUserTags {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListUserTagsRequest,
    ) -> Result<Recorded<wire::ListUserTagsResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let found = control
            .list_user_tags(scene.call, &input.user_name, &asked)
            .await?;
        Ok(found.map(|found| {
            let (tags, is_truncated, marker) = convert::listing(found, convert::tag);
            wire::ListUserTagsResponse {
                tags,
                is_truncated,
                marker,
            }
        }))
    }
}

impl Handler for ListSSHPublicKeys {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListSSHPublicKeysRequest,
    ) -> Result<Recorded<wire::ListSSHPublicKeysResponse>, Failure> {
        let control = &scene.house.control;
        let done = control
            .list_ssh_public_keys(scene.call, input.user_name)
            .await?;
        Ok(done.map(|()| wire::ListSSHPublicKeysResponse {
            ssh_public_keys: Some(Vec::new()),
            is_truncated: Some(false),
            marker: None,
        }))
    }
}

impl Handler for ListSigningCertificates {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListSigningCertificatesRequest,
    ) -> Result<Recorded<wire::ListSigningCertificatesResponse>, Failure> {
        let control = &scene.house.control;
        let done = control
            .list_signing_certificates(scene.call, input.user_name)
            .await?;
        Ok(done.map(|()| wire::ListSigningCertificatesResponse {
            certificates: Vec::new(),
            is_truncated: Some(false),
            marker: None,
        }))
    }
}

impl Handler for ListServiceSpecificCredentials {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListServiceSpecificCredentialsRequest,
    ) -> Result<Recorded<wire::ListServiceSpecificCredentialsResponse>, Failure> {
        let of_all = input.all_users.unwrap_or(false);
        let control = &scene.house.control;
        let done = control
            .list_service_specific_credentials(scene.call, input.user_name, of_all)
            .await?;
        Ok(done.map(|()| wire::ListServiceSpecificCredentialsResponse {
            service_specific_credentials: Some(Vec::new()),
            is_truncated: Some(false),
            marker: None,
        }))
    }
}
