//! Passwords.

use sortie_control::{LoginProfileInput, LoginProfileView, Recorded};
use sortie_wire::{
    Empty,
    shapes::iam::{
        self as wire, ChangePassword, CreateLoginProfile, DeleteLoginProfile, GetLoginProfile,
        UpdateLoginProfile,
    },
};

use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

fn profile(view: LoginProfileView) -> wire::LoginProfile {
    wire::LoginProfile {
        user_name: view.user_name.to_string(),
        create_date: view.created,
        password_reset_required: Some(view.reset_required),
    }
}

impl Handler for CreateLoginProfile {
    async fn handle(
        scene: Scene<'_>,
        input: wire::CreateLoginProfileRequest,
    ) -> Result<Recorded<wire::CreateLoginProfileResponse>, Failure> {
        let input = LoginProfileInput {
            user_name: input.user_name,
            password: input.password,
            reset_required: input.password_reset_required,
        };
        let control = &scene.house.control;
        let made = control.create_login_profile(scene.call, input).await?;
        Ok(made.map(|made| wire::CreateLoginProfileResponse {
            login_profile: profile(made),
        }))
    }
}

impl Handler for GetLoginProfile {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetLoginProfileRequest,
    ) -> Result<Recorded<wire::GetLoginProfileResponse>, Failure> {
        let control = &scene.house.control;
        let found = control
            .get_login_profile(scene.call, input.user_name)
            .await?;
        Ok(found.map(|found| wire::GetLoginProfileResponse {
            login_profile: profile(found),
        }))
    }
}

impl Handler for UpdateLoginProfile {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateLoginProfileRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let input = LoginProfileInput {
            user_name: Some(input.user_name),
            password: input.password,
            reset_required: input.password_reset_required,
        };
        let control = &scene.house.control;
        let done = control.update_login_profile(scene.call, input).await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for DeleteLoginProfile {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeleteLoginProfileRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let control = &scene.house.control;
        let done = control
            .delete_login_profile(scene.call, input.user_name)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for ChangePassword {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ChangePasswordRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let (old, new) = (&input.old_password, &input.new_password);
        let control = &scene.house.control;
        let done = control.change_password(scene.call, old, new).await?;
        Ok(done.map(|()| Empty {}))
    }
}
