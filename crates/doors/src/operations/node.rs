//! The operations that nodes call, the official program's included. What it also asks and gets no
//! work from is answered empty: any error would make it ask again sooner, or look elsewhere.

use sortie_control::{
    Caller, CreateControlChannelError, CreateControlChannelInput, CreateDataChannelInput, NodeInfo,
    Recorded, RegisterManagedInstanceInput, RequestManagedInstanceRoleTokenInput,
    UpdateInstanceInformationInput, UpdateManagedInstancePublicKeyInput,
};
use sortie_wire::{
    AwsError, Empty, Protocol,
    shapes::node::{
        self as wire, AcknowledgeMessage, CreateControlChannel, CreateDataChannel, DeleteMessage,
        FailMessage, GetEndpoint, GetMessages, ListAssociations, ListInstanceAssociations,
        RegisterManagedInstance, RequestManagedInstanceRoleToken, SendReply,
        UpdateInstanceInformation, UpdateManagedInstancePublicKey,
    },
};

use super::{Handler, Scene};
use crate::{channels, errors::Failure};

/// What nodes expect in the answers that open channels.
const MESSAGE_SCHEMA_VERSION: &str = "1.0";

impl Handler for RegisterManagedInstance {
    async fn handle(
        scene: Scene<'_>,
        input: wire::RegisterManagedInstanceRequest,
    ) -> Result<Recorded<wire::RegisterManagedInstanceResponse>, Failure> {
        // Registration by an IAM role in place of an activation is not offered.
        let (Some(activation_id), Some(activation_code)) =
            (input.activation_id, input.activation_code)
        else {
            let text = "ActivationId and ActivationCode are required.";
            return Err(Failure::of(AwsError::validation(Protocol::Json11, text)));
        };
        let tags = input.tags.unwrap_or_default();
        let input = RegisterManagedInstanceInput {
            activation_id,
            activation_code,
            public_key: input.public_key,
            public_key_type: input
                .public_key_type
                .unwrap_or(wire::PublicKeyType::RSA)
                .to_string(),
            fingerprint: input.fingerprint,
            tags: tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
        };
        let control = &scene.house.control;
        let output = control.register_managed_instance(scene.call, input).await?;
        Ok(output.map(|output| wire::RegisterManagedInstanceResponse {
            instance_id: Some(output.node_id.to_string()),
            // For our own agent, which signs for the region that it is told.
            region: Some(control.region().to_string()),
        }))
    }
}

impl Handler for RequestManagedInstanceRoleToken {
    async fn handle(
        scene: Scene<'_>,
        input: wire::RequestManagedInstanceRoleTokenRequest,
    ) -> Result<Recorded<wire::RequestManagedInstanceRoleTokenResponse>, Failure> {
        let input = RequestManagedInstanceRoleTokenInput {
            fingerprint: input.fingerprint,
        };
        let control = &scene.house.control;
        let output = control
            .request_managed_instance_role_token(scene.call, input)
            .await?;
        Ok(
            output.map(|output| wire::RequestManagedInstanceRoleTokenResponse {
                access_key_id: output.access_key_id.to_string(),
                secret_access_key: output.secret_access_key,
                session_token: output.session_token,
                token_expiration_date: output.expiration,
                update_key_pair: output.update_key_pair,
            }),
        )
    }
}

impl Handler for UpdateManagedInstancePublicKey {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateManagedInstancePublicKeyRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let input = UpdateManagedInstancePublicKeyInput {
            new_public_key: input.new_public_key,
            new_public_key_type: input.new_public_key_type.to_string(),
        };
        let control = &scene.house.control;
        let output = control
            .update_managed_instance_public_key(scene.call, input)
            .await?;
        Ok(output.map(|()| Empty {}))
    }
}

impl Handler for UpdateInstanceInformation {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateInstanceInformationRequest,
    ) -> Result<Recorded<Empty>, Failure> {
        let input = UpdateInstanceInformationInput {
            instance_id: input.instance_id,
            info: NodeInfo {
                agent_name: input.agent_name,
                agent_version: input.agent_version,
                computer_name: input.computer_name,
                ip_address: input.ip_address,
                platform_type: input.platform_type,
                platform_name: input.platform_name,
                platform_version: input.platform_version,
            },
        };
        let control = &scene.house.control;
        let output = control
            .update_instance_information(scene.call, input)
            .await?;
        Ok(output.map(|()| Empty {}))
    }
}

impl Handler for ListInstanceAssociations {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListInstanceAssociationsRequest,
    ) -> Result<Recorded<wire::ListInstanceAssociationsResponse>, Failure> {
        let quiet = scene
            .house
            .control
            .quiet(scene.call, Some(&input.instance_id))
            .await?;
        Ok(quiet.map(|()| wire::ListInstanceAssociationsResponse {
            associations: Some(Vec::new()),
            next_token: None,
        }))
    }
}

impl Handler for ListAssociations {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListAssociationsRequest,
    ) -> Result<Recorded<wire::ListAssociationsResponse>, Failure> {
        let filters = input.association_filter_list.unwrap_or_default();
        let named = filters.iter().find(|filter| filter.key == "InstanceId");
        let instance_id = named.map(|filter| filter.value.as_str());
        let quiet = scene.house.control.quiet(scene.call, instance_id).await?;
        Ok(quiet.map(|()| wire::ListAssociationsResponse {
            associations: Some(Vec::new()),
            next_token: None,
        }))
    }
}

impl Handler for GetMessages {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetMessagesRequest,
    ) -> Result<Recorded<wire::GetMessagesResponse>, Failure> {
        let quiet = scene
            .house
            .control
            .quiet(scene.call, Some(&input.destination))
            .await?;
        Ok(quiet.map(|()| wire::GetMessagesResponse {
            destination: Some(input.destination),
            messages_request_id: input.messages_request_id,
            messages: Some(Vec::new()),
        }))
    }
}

impl Handler for GetEndpoint {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetEndpointRequest,
    ) -> Result<Recorded<wire::GetEndpointResponse>, Failure> {
        let quiet = scene
            .house
            .control
            .quiet(scene.call, Some(&input.destination))
            .await?;
        Ok(quiet.map(|()| wire::GetEndpointResponse {
            endpoint: scene.received.host().map(str::to_owned),
        }))
    }
}

macro_rules! quiet {
    ($($name:ident($input:ident);)*) => {$(
        impl Handler for $name {
            async fn handle(
                scene: Scene<'_>,
                _: wire::$input,
            ) -> Result<Recorded<Empty>, Failure> {
                let quiet = scene.house.control.quiet(scene.call, None).await?;
                Ok(quiet.map(|()| Empty {}))
            }
        }
    )*};
}

quiet! {
    AcknowledgeMessage(AcknowledgeMessageRequest);
    DeleteMessage(DeleteMessageRequest);
    FailMessage(FailMessageRequest);
    SendReply(SendReplyRequest);
}

impl Handler for CreateControlChannel {
    async fn handle(
        scene: Scene<'_>,
        _: wire::CreateControlChannelRequest,
    ) -> Result<Recorded<wire::CreateControlChannelResponse>, Failure> {
        let input = CreateControlChannelInput {
            node_id: channels::name(scene.received),
        };
        let control = &scene.house.control;
        let output = match control.create_control_channel(scene.call, input).await {
            Err(CreateControlChannelError::Denied(denied)) if by_node(scene) => {
                // The access-denied tag would switch an official node to polling, for ever. The
                // trail still says what it was.
                let error = AwsError::new("InvalidInstanceId", 400, denied.message);
                return Err(Failure::denied_as(error));
            }
            other => other?,
        };
        Ok(output.map(|output| wire::CreateControlChannelResponse {
            message_schema_version: Some(MESSAGE_SCHEMA_VERSION.to_owned()),
            token_value: output.token_value,
        }))
    }
}

fn by_node(scene: Scene<'_>) -> bool {
    matches!(scene.call.caller, Caller::Node(_))
}

impl Handler for CreateDataChannel {
    async fn handle(
        scene: Scene<'_>,
        _: wire::CreateDataChannelRequest,
    ) -> Result<Recorded<wire::CreateDataChannelResponse>, Failure> {
        let input = CreateDataChannelInput {
            session_id: channels::name(scene.received),
        };
        let control = &scene.house.control;
        let output = control.create_data_channel(scene.call, input).await?;
        Ok(output.map(|output| wire::CreateDataChannelResponse {
            message_schema_version: Some(MESSAGE_SCHEMA_VERSION.to_owned()),
            token_value: output.token_value,
        }))
    }
}
