//! sts: who am I, and temporary credentials.

use sortie_control::{AssumeRoleInput, GetSessionTokenInput, IssuedCredentials, Recorded};
use sortie_wire::shapes::sts::{
    AssumeRole, AssumeRoleRequest, AssumeRoleResponse, AssumedRoleUser, Credentials,
    GetCallerIdentity, GetCallerIdentityRequest, GetCallerIdentityResponse, GetSessionToken,
    GetSessionTokenRequest, GetSessionTokenResponse,
};

use super::{Handler, Scene};
use crate::errors::Failure;

impl Handler for AssumeRole {
    async fn handle(
        scene: Scene<'_>,
        input: AssumeRoleRequest,
    ) -> Result<Recorded<AssumeRoleResponse>, Failure> {
        let arns = input.policy_arns.unwrap_or_default();
        let tags = input.tags.unwrap_or_default();
        let input = AssumeRoleInput {
            role_arn: input.role_arn,
            role_session_name: input.role_session_name,
            policy: input.policy,
            policy_arns: arns.into_iter().filter_map(|policy| policy.arn).collect(),
            duration_seconds: input.duration_seconds.map(i64::from),
            tags: tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
            transitive_tag_keys: input.transitive_tag_keys.unwrap_or_default(),
            external_id: input.external_id,
            serial_number: input.serial_number,
            token_code: input.token_code,
            source_identity: input.source_identity,
        };
        let assumed = scene.house.control.assume_role(scene.call, input).await?;
        Ok(assumed.map(|assumed| AssumeRoleResponse {
            credentials: Some(credentials(assumed.credentials)),
            assumed_role_user: Some(AssumedRoleUser {
                assumed_role_id: assumed.assumed_role_id,
                arn: assumed.arn.to_string(),
            }),
            packed_policy_size: assumed
                .packed_policy_size
                .and_then(|percent| i32::try_from(percent).ok()),
            source_identity: assumed.source_identity,
        }))
    }
}

impl Handler for GetCallerIdentity {
    async fn handle(
        scene: Scene<'_>,
        GetCallerIdentityRequest {}: GetCallerIdentityRequest,
    ) -> Result<Recorded<GetCallerIdentityResponse>, Failure> {
        let identity = scene.house.control.get_caller_identity(scene.call).await?;
        Ok(identity.map(|identity| GetCallerIdentityResponse {
            user_id: Some(identity.user_id),
            account: Some(identity.account.to_string()),
            arn: Some(identity.arn.to_string()),
        }))
    }
}

impl Handler for GetSessionToken {
    async fn handle(
        scene: Scene<'_>,
        input: GetSessionTokenRequest,
    ) -> Result<Recorded<GetSessionTokenResponse>, Failure> {
        let input = GetSessionTokenInput {
            duration_seconds: input.duration_seconds.map(i64::from),
            serial_number: input.serial_number,
            token_code: input.token_code,
        };
        let issued = scene
            .house
            .control
            .get_session_token(scene.call, input)
            .await?;
        Ok(issued.map(|issued| GetSessionTokenResponse {
            credentials: Some(credentials(issued)),
        }))
    }
}

fn credentials(issued: IssuedCredentials) -> Credentials {
    Credentials {
        access_key_id: issued.access_key_id.to_string(),
        secret_access_key: issued.secret_access_key,
        session_token: issued.session_token,
        expiration: issued.expiration,
    }
}
