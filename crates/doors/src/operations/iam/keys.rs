//! Access keys.

use sortie_control::{AccessKeyUse, AccessKeyView, Recorded};
use sortie_wire::{
    AwsError, Empty, Protocol,
    shapes::iam::{
        self as wire, CreateAccessKey, DeleteAccessKey, GetAccessKeyLastUsed, ListAccessKeys,
        StatusType, UpdateAccessKey,
    },
};

use super::convert;
use crate::{
    errors::Failure,
    operations::{Handler, Scene},
};

/// What stands where a key was never used.
const NOT_APPLICABLE: &str = "N/A";

fn metadata(key: AccessKeyView) -> wire::AccessKeyMetadata {
    wire::AccessKeyMetadata {
        user_name: Some(key.user_name.to_string()),
        access_key_id: Some(key.id.to_string()),
        status: Some(if key.active {
            StatusType::ACTIVE
        } else {
            StatusType::INACTIVE
        }),
        create_date: Some(key.created),
    }
}

fn last_used(key: AccessKeyUse) -> wire::GetAccessKeyLastUsedResponse {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NOT_APPLICABLE.to_owned());
    let at = key.used.as_ref().map(|used| used.at);
    let (service, region) = key
        .used
        .map_or((None, None), |used| (used.service, used.region));
    wire::GetAccessKeyLastUsedResponse {
        user_name: Some(key.user_name.to_string()),
        access_key_last_used: Some(wire::AccessKeyLastUsed {
            last_used_date: at,
            service_name: or_none(service),
            region: or_none(region),
        }),
    }
}

impl Handler for CreateAccessKey {
    async fn handle(
        scene: Scene<'_>,
        input: wire::CreateAccessKeyRequest,
    ) -> Result<Recorded<wire::CreateAccessKeyResponse>, Failure> {
        let control = &scene.house.control;
        let made = control
            .create_access_key(scene.call, input.user_name)
            .await?;
        Ok(made.map(|made| wire::CreateAccessKeyResponse {
            access_key: wire::AccessKey {
                user_name: made.user_name.to_string(),
                access_key_id: made.id.to_string(),
                status: StatusType::ACTIVE,
                secret_access_key: made.secret,
                create_date: Some(made.created),
            },
        }))
    }
}

impl Handler for ListAccessKeys {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListAccessKeysRequest,
    ) -> Result<Recorded<wire::ListAccessKeysResponse>, Failure> {
        let asked = convert::page(input.marker, input.max_items);
        let control = &scene.house.control;
        let found = control
            .list_access_keys(scene.call, input.user_name, &asked)
            .await?;
        Ok(found.map(|found| {
            let (access_key_metadata, is_truncated, marker) = convert::listing(found, metadata);
            wire::ListAccessKeysResponse {
                access_key_metadata,
                is_truncated,
                marker,
            }
        }))
    }
}

impl Handler for UpdateAccessKey {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateAccessKeyRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let active = active(&input.status)?;
        let id = &input.access_key_id;
        let control = &scene.house.control;
        let done = control
            .update_access_key(scene.call, input.user_name, id, active)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

/// `Expired` is a status that the model lists for other credentials.
fn active(status: &StatusType) -> Result<bool, Failure> {
    match status {
        status if *status == StatusType::ACTIVE => Ok(true),
        status if *status == StatusType::INACTIVE => Ok(false),
        other => {
            let text = format!("The status of an access key cannot be {other}.");
            Err(Failure::of(AwsError::validation(Protocol::Query, text)))
        }
    }
}

impl Handler for DeleteAccessKey {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeleteAccessKeyRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let id = &input.access_key_id;
        let control = &scene.house.control;
        let done = control
            .delete_access_key(scene.call, input.user_name, id)
            .await?;
        Ok(done.map(|()| Empty {}))
    }
}

impl Handler for GetAccessKeyLastUsed {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetAccessKeyLastUsedRequest,
    ) -> Result<Recorded<wire::GetAccessKeyLastUsedResponse>, Failure> {
        let control = &scene.house.control;
        let found = control
            .get_access_key_last_used(scene.call, &input.access_key_id)
            .await?;
        Ok(found.map(last_used))
    }
}
