//! iam: permissions boundaries.

use sortie_control::{Holder, Recorded};
use sortie_wire::{
    Empty,
    shapes::iam::{
        DeleteRolePermissionsBoundary, DeleteRolePermissionsBoundaryRequest,
        DeleteUserPermissionsBoundary, DeleteUserPermissionsBoundaryRequest,
        PutRolePermissionsBoundary, PutRolePermissionsBoundaryRequest, PutUserPermissionsBoundary,
        PutUserPermissionsBoundaryRequest,
    },
};

use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

async fn put(scene: Scene<'_>, holder: Holder, arn: &str) -> Result<Recorded<Empty>, Failure> {
    let control = &scene.house.control;
    let put = control
        .put_permissions_boundary(scene.call, &holder, arn)
        .await?;
    Ok(put.map(|()| Empty {}))
}

async fn delete(scene: Scene<'_>, holder: Holder) -> Result<Recorded<Empty>, Failure> {
    let control = &scene.house.control;
    let deleted = control
        .delete_permissions_boundary(scene.call, &holder)
        .await?;
    Ok(deleted.map(|()| Empty {}))
}

impl Handler for PutUserPermissionsBoundary {
    async fn handle(
        scene: Scene<'_>,
        input: PutUserPermissionsBoundaryRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let holder = Holder::User(input.user_name);
        put(scene, holder, &input.permissions_boundary).await
    }
}

impl Handler for PutRolePermissionsBoundary {
    async fn handle(
        scene: Scene<'_>,
        input: PutRolePermissionsBoundaryRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let holder = Holder::Role(input.role_name);
        put(scene, holder, &input.permissions_boundary).await
    }
}

impl Handler for DeleteUserPermissionsBoundary {
    async fn handle(
        scene: Scene<'_>,
        input: DeleteUserPermissionsBoundaryRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        delete(scene, Holder::User(input.user_name)).await
    }
}

impl Handler for DeleteRolePermissionsBoundary {
    async fn handle(
        scene: Scene<'_>,
        input: DeleteRolePermissionsBoundaryRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        delete(scene, Holder::Role(input.role_name)).await
    }
}
