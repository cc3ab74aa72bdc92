//! sts: who am I?

use sortie_control::Recorded;
use sortie_wire::shapes::sts::{
    GetCallerIdentity, GetCallerIdentityRequest, GetCallerIdentityResponse,
};

use super::{Handler, Scene};
use crate::errors::Failure;

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
