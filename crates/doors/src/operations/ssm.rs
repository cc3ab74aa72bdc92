//! ssm: the operations of people and their tools. Each turns wire types into control's and back.

use sortie_control::{
    self as control, ActivationFilter, ActivationView, AddTagsToResourceInput,
    CreateActivationInput, DeleteActivationInput, DeregisterManagedInstanceInput,
    DescribeActivationsInput, DescribeInstanceInformationInput, DescribeInstancePropertiesInput,
    DescribeSessionsInput, FilterOperator, GetConnectionStatusInput, ListTagsForResourceInput,
    NodeFilter, NodeView, Recorded, RemoveTagsFromResourceInput, ResumeSessionInput, SessionList,
    StartSessionInput, TerminateSessionInput, UpdateManagedInstanceRoleInput,
};
use sortie_types::Secret;
use sortie_wire::{
    AwsError, Protocol,
    shapes::ssm::{
        self as wire, AddTagsToResource, CreateActivation, DeleteActivation,
        DeregisterManagedInstance, DescribeActivations, DescribeInstanceInformation,
        DescribeInstanceProperties, DescribeSessions, GetConnectionStatus, ListTagsForResource,
        RemoveTagsFromResource, ResumeSession, StartSession, TerminateSession,
        UpdateManagedInstanceRole,
    },
};

use super::{Handler, Scene};
use crate::errors::Failure;

impl Handler for StartSession {
    async fn handle(
        scene: Scene<'_>,
        input: wire::StartSessionRequest,
    ) -> Result<Recorded<wire::StartSessionResponse>, Failure> {
        let input = StartSessionInput {
            target: input.target,
            document_name: input.document_name,
            parameters: input.parameters.unwrap_or_default(),
            reason: input.reason,
            stream_base: stream_base(scene)?,
        };
        let output = scene.house.control.start_session(scene.call, input).await?;
        Ok(output.map(|output| wire::StartSessionResponse {
            session_id: Some(output.session_id.to_string()),
            token_value: Some(output.token_value),
            stream_url: Some(output.stream_url),
        }))
    }
}

impl Handler for ResumeSession {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ResumeSessionRequest,
    ) -> Result<Recorded<wire::ResumeSessionResponse>, Failure> {
        let input = ResumeSessionInput {
            session_id: input.session_id,
            stream_base: stream_base(scene)?,
        };
        let output = scene
            .house
            .control
            .resume_session(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::ResumeSessionResponse {
            session_id: Some(output.session_id.to_string()),
            token_value: output.token_value,
            stream_url: output.stream_url,
        }))
    }
}

/// A stream URL needs a host. SigV4 demands a signed one, so only an odd `Host` can lack here.
fn stream_base(scene: Scene<'_>) -> Result<String, Failure> {
    scene.house.stream_base(scene.received).ok_or_else(|| {
        let text = "The Host header cannot stand in a stream URL.";
        Failure::of(AwsError::validation(Protocol::Json11, text))
    })
}

impl Handler for TerminateSession {
    async fn handle(
        scene: Scene<'_>,
        input: wire::TerminateSessionRequest,
    ) -> Result<Recorded<wire::TerminateSessionResponse>, Failure> {
        let input = TerminateSessionInput {
            session_id: input.session_id,
        };
        let output = scene
            .house
            .control
            .terminate_session(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::TerminateSessionResponse {
            session_id: Some(output.session_id),
        }))
    }
}

impl Handler for DescribeSessions {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DescribeSessionsRequest,
    ) -> Result<Recorded<wire::DescribeSessionsResponse>, Failure> {
        let filter = |filter: wire::SessionFilter| sortie_control::SessionFilter {
            key: filter.key.to_string(),
            value: filter.value,
        };
        let input = DescribeSessionsInput {
            state: if input.state == wire::SessionState::ACTIVE {
                SessionList::Active
            } else {
                SessionList::History
            },
            filters: input.filters.into_iter().flatten().map(filter).collect(),
            max_results: page_size(input.max_results),
            next_token: input.next_token,
        };
        let output = scene
            .house
            .control
            .describe_sessions(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::DescribeSessionsResponse {
            sessions: Some(output.sessions.into_iter().map(session).collect()),
            next_token: output.next_token,
        }))
    }
}

fn session(session: control::Session) -> wire::Session {
    let minutes = |seconds: i64| (seconds / 60).clamp(1, 1440).to_string();
    wire::Session {
        session_id: Some(session.id.to_string()),
        target: Some(session.target.to_string()),
        status: Some(session.state.as_str().into()),
        start_date: Some(session.started),
        end_date: session.ended,
        document_name: Some(session.document_name),
        owner: Some(session.owner.to_string()),
        reason: session.reason,
        // AWS reserves the member; here it says why the session ended.
        details: session
            .end_reason
            .filter(|reason| !reason.is_empty())
            .map(|reason| reason.chars().take(1024).collect()),
        output_url: Some(wire::SessionManagerOutputUrl::default()),
        max_session_duration: session.max_duration_seconds.map(minutes),
        access_type: Some(wire::AccessType::STANDARD),
    }
}

impl Handler for GetConnectionStatus {
    async fn handle(
        scene: Scene<'_>,
        input: wire::GetConnectionStatusRequest,
    ) -> Result<Recorded<wire::GetConnectionStatusResponse>, Failure> {
        let input = GetConnectionStatusInput {
            target: input.target,
        };
        let output = scene
            .house
            .control
            .get_connection_status(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::GetConnectionStatusResponse {
            target: Some(output.target),
            status: Some(if output.connected {
                wire::ConnectionStatus::CONNECTED
            } else {
                wire::ConnectionStatus::NOTCONNECTED
            }),
        }))
    }
}

impl Handler for CreateActivation {
    async fn handle(
        scene: Scene<'_>,
        input: wire::CreateActivationRequest,
    ) -> Result<Recorded<wire::CreateActivationResult>, Failure> {
        let input = CreateActivationInput {
            description: input.description,
            default_instance_name: input.default_instance_name,
            iam_role: input.iam_role,
            registration_limit: input.registration_limit.map(i64::from),
            expiration: input.expiration_date,
            tags: pairs(input.tags),
        };
        let output = scene
            .house
            .control
            .create_activation(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::CreateActivationResult {
            activation_id: Some(output.activation_id.to_string()),
            activation_code: Some(output.activation_code),
        }))
    }
}

impl Handler for DescribeActivations {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DescribeActivationsRequest,
    ) -> Result<Recorded<wire::DescribeActivationsResult>, Failure> {
        let filter = |filter: wire::DescribeActivationsFilter| ActivationFilter {
            key: filter
                .filter_key
                .map(|key| key.to_string())
                .unwrap_or_default(),
            values: filter.filter_values.unwrap_or_default(),
        };
        let input = DescribeActivationsInput {
            filters: input.filters.into_iter().flatten().map(filter).collect(),
            max_results: page_size(input.max_results),
            next_token: input.next_token,
        };
        let output = scene
            .house
            .control
            .describe_activations(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::DescribeActivationsResult {
            activation_list: Some(output.activations.into_iter().map(activation).collect()),
            next_token: output.next_token,
        }))
    }
}

fn activation(view: ActivationView) -> wire::Activation {
    let ActivationView {
        activation,
        expired,
    } = view;
    wire::Activation {
        activation_id: Some(activation.id.to_string()),
        description: activation.description,
        default_instance_name: activation.default_instance_name,
        iam_role: Some(activation.iam_role),
        registration_limit: i32::try_from(activation.registration_limit).ok(),
        // The model has no zero.
        registrations_count: i32::try_from(activation.registrations_count)
            .ok()
            .filter(|count| *count > 0),
        expiration_date: Some(activation.expires),
        expired: Some(expired),
        created_date: Some(activation.created),
        tags: Some(tags(activation.tags)),
    }
}

impl Handler for DeleteActivation {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeleteActivationRequest,
    ) -> Result<Recorded<wire::DeleteActivationResult>, Failure> {
        let input = DeleteActivationInput {
            activation_id: input.activation_id,
        };
        let output = scene
            .house
            .control
            .delete_activation(scene.call, input)
            .await?;
        Ok(output.map(|()| wire::DeleteActivationResult {}))
    }
}

impl Handler for DescribeInstanceInformation {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DescribeInstanceInformationRequest,
    ) -> Result<Recorded<wire::DescribeInstanceInformationResult>, Failure> {
        let filter =
            |filter: wire::InstanceInformationStringFilter| equal(filter.key, filter.values);
        let old_filter = |filter: wire::InstanceInformationFilter| {
            equal(filter.key.to_string(), filter.value_set)
        };
        let old = input.instance_information_filter_list;
        let input = DescribeInstanceInformationInput {
            filters: input.filters.into_iter().flatten().map(filter).collect(),
            filter_list: old.into_iter().flatten().map(old_filter).collect(),
            max_results: page_size(input.max_results),
            next_token: input.next_token,
        };
        let control = &scene.house.control;
        let output = control
            .describe_instance_information(scene.call, input)
            .await?;
        Ok(
            output.map(|output| wire::DescribeInstanceInformationResult {
                instance_information_list: Some(
                    output.nodes.into_iter().map(information).collect(),
                ),
                next_token: output.next_token,
            }),
        )
    }
}

fn information(view: NodeView) -> wire::InstanceInformation {
    let NodeView { node, ping_status } = view;
    let info = node.info;
    wire::InstanceInformation {
        instance_id: Some(node.id.to_string()),
        ping_status: Some(ping(ping_status)),
        last_ping_date_time: Some(node.last_ping),
        agent_version: present(info.agent_version),
        platform_type: info.platform_type.as_deref().and_then(platform),
        platform_name: present(info.platform_name),
        platform_version: present(info.platform_version),
        activation_id: Some(node.activation_id.to_string()),
        iam_role: Some(node.iam_role),
        registration_date: Some(node.registered),
        resource_type: Some(wire::ResourceType::MANAGED_INSTANCE),
        name: present(node.name),
        ip_address: present(info.ip_address).map(Secret::new),
        computer_name: present(info.computer_name),
        source_id: Some(node.id.to_string()),
        source_type: Some(wire::SourceType::AWS_SSM_MANAGED_INSTANCE),
        ..wire::InstanceInformation::default()
    }
}

impl Handler for DescribeInstanceProperties {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DescribeInstancePropertiesRequest,
    ) -> Result<Recorded<wire::DescribeInstancePropertiesResult>, Failure> {
        let old = input.instance_property_filter_list.into_iter().flatten();
        let old = old.map(|filter| equal(filter.key.to_string(), filter.value_set));
        let new = input.filters_with_operator.into_iter().flatten();
        let new = new.map(|filter| NodeFilter {
            operator: filter
                .operator
                .and_then(|operator| operator.as_str().parse().ok())
                .unwrap_or_default(),
            ..equal(filter.key, filter.values)
        });
        let input = DescribeInstancePropertiesInput {
            filters: old.chain(new).collect(),
            max_results: page_size(input.max_results),
            next_token: input.next_token,
        };
        let control = &scene.house.control;
        let output = control
            .describe_instance_properties(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::DescribeInstancePropertiesResult {
            instance_properties: Some(output.nodes.into_iter().map(property).collect()),
            next_token: output.next_token,
        }))
    }
}

fn property(view: NodeView) -> wire::InstanceProperty {
    let NodeView { node, ping_status } = view;
    let info = node.info;
    wire::InstanceProperty {
        name: present(node.name),
        instance_id: Some(node.id.to_string()),
        ip_address: present(info.ip_address).map(Secret::new),
        ping_status: Some(ping(ping_status)),
        last_ping_date_time: Some(node.last_ping),
        agent_version: present(info.agent_version),
        platform_type: info.platform_type.as_deref().and_then(platform),
        platform_name: present(info.platform_name),
        platform_version: present(info.platform_version),
        activation_id: Some(node.activation_id.to_string()),
        iam_role: Some(node.iam_role),
        registration_date: Some(node.registered),
        resource_type: Some(wire::ResourceType::MANAGED_INSTANCE.to_string()),
        computer_name: present(info.computer_name),
        source_id: Some(node.id.to_string()),
        source_type: Some(wire::SourceType::AWS_SSM_MANAGED_INSTANCE),
        ..wire::InstanceProperty::default()
    }
}

fn equal(key: String, values: Vec<String>) -> NodeFilter {
    NodeFilter {
        key,
        values,
        operator: FilterOperator::Equal,
    }
}

/// Nodes send empty texts for what they do not know; answers leave those out.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn ping(status: control::PingStatus) -> wire::PingStatus {
    match status {
        control::PingStatus::ConnectionLost => wire::PingStatus::CONNECTION_LOST,
        control::PingStatus::Inactive => wire::PingStatus::INACTIVE,
        control::PingStatus::Online => wire::PingStatus::ONLINE,
    }
}

pub(super) fn platform(text: &str) -> Option<wire::PlatformType> {
    match text.to_ascii_lowercase().as_str() {
        "linux" => Some(wire::PlatformType::LINUX),
        "macos" | "darwin" => Some(wire::PlatformType::MAC_OS),
        "windows" => Some(wire::PlatformType::WINDOWS),
        _ => None,
    }
}

impl Handler for DeregisterManagedInstance {
    async fn handle(
        scene: Scene<'_>,
        input: wire::DeregisterManagedInstanceRequest,
    ) -> Result<Recorded<wire::DeregisterManagedInstanceResult>, Failure> {
        let input = DeregisterManagedInstanceInput {
            instance_id: input.instance_id,
        };
        let control = &scene.house.control;
        let output = control
            .deregister_managed_instance(scene.call, input)
            .await?;
        Ok(output.map(|()| wire::DeregisterManagedInstanceResult {}))
    }
}

impl Handler for UpdateManagedInstanceRole {
    async fn handle(
        scene: Scene<'_>,
        input: wire::UpdateManagedInstanceRoleRequest,
    ) -> Result<Recorded<wire::UpdateManagedInstanceRoleResult>, Failure> {
        let input = UpdateManagedInstanceRoleInput {
            instance_id: input.instance_id,
            iam_role: input.iam_role,
        };
        let control = &scene.house.control;
        let output = control
            .update_managed_instance_role(scene.call, input)
            .await?;
        Ok(output.map(|()| wire::UpdateManagedInstanceRoleResult {}))
    }
}

impl Handler for AddTagsToResource {
    async fn handle(
        scene: Scene<'_>,
        input: wire::AddTagsToResourceRequest,
    ) -> Result<Recorded<wire::AddTagsToResourceResult>, Failure> {
        let input = AddTagsToResourceInput {
            resource_type: input.resource_type.to_string(),
            resource_id: input.resource_id,
            tags: pairs(Some(input.tags)),
        };
        let output = scene
            .house
            .control
            .add_tags_to_resource(scene.call, input)
            .await?;
        Ok(output.map(|()| wire::AddTagsToResourceResult {}))
    }
}

impl Handler for RemoveTagsFromResource {
    async fn handle(
        scene: Scene<'_>,
        input: wire::RemoveTagsFromResourceRequest,
    ) -> Result<Recorded<wire::RemoveTagsFromResourceResult>, Failure> {
        let input = RemoveTagsFromResourceInput {
            resource_type: input.resource_type.to_string(),
            resource_id: input.resource_id,
            tag_keys: input.tag_keys,
        };
        let output = scene
            .house
            .control
            .remove_tags_from_resource(scene.call, input)
            .await?;
        Ok(output.map(|()| wire::RemoveTagsFromResourceResult {}))
    }
}

impl Handler for ListTagsForResource {
    async fn handle(
        scene: Scene<'_>,
        input: wire::ListTagsForResourceRequest,
    ) -> Result<Recorded<wire::ListTagsForResourceResult>, Failure> {
        let input = ListTagsForResourceInput {
            resource_type: input.resource_type.to_string(),
            resource_id: input.resource_id,
        };
        let output = scene
            .house
            .control
            .list_tags_for_resource(scene.call, input)
            .await?;
        Ok(output.map(|output| wire::ListTagsForResourceResult {
            tag_list: Some(tags(output.tags)),
        }))
    }
}

/// A page size as control takes it. The model's bounds were checked when the input was read.
pub(super) fn page_size(given: Option<i32>) -> Option<usize> {
    given.and_then(|given| usize::try_from(given).ok())
}

pub(super) fn pairs(tags: Option<Vec<wire::Tag>>) -> Vec<(String, String)> {
    let tags = tags.unwrap_or_default();
    tags.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

pub(super) fn tags(tags: Vec<sortie_types::Tag>) -> Vec<wire::Tag> {
    let tag = |tag: sortie_types::Tag| wire::Tag {
        key: tag.key,
        value: tag.value,
    };
    tags.into_iter().map(tag).collect()
}
