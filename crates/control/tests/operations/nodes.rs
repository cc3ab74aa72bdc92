//! Lists of nodes, deregistering, roles, tags, and heartbeats.

use std::time::Duration;

use serde_json::json;
use sortie_control::{
    AddTagsToResourceInput, CreateActivationInput, CreateRoleInput, DeregisterManagedInstanceError,
    DeregisterManagedInstanceInput, DescribeInstanceInformationError,
    DescribeInstanceInformationInput, DescribeInstancePropertiesError,
    DescribeInstancePropertiesInput, FilterOperator, ListTagsForResourceInput, NodeFilter,
    NodeView, RemoveTagsFromResourceInput, TagsError, UpdateInstanceInformationError,
    UpdateInstanceInformationInput, UpdateManagedInstanceRoleError, UpdateManagedInstanceRoleInput,
};
use sortie_ports::{NodeInfo, PingStatus, Signal, Signals};
use sortie_types::{NodeId, Timestamp};

use crate::world::{NODE_ROLE, START, World, call, role_of};

fn filter(key: &str, values: &[&str]) -> NodeFilter {
    NodeFilter {
        key: key.into(),
        values: values.iter().map(ToString::to_string).collect(),
        operator: FilterOperator::Equal,
    }
}

async fn information(
    world: &World,
    filters: Vec<NodeFilter>,
    now: Timestamp,
) -> Result<Vec<NodeView>, DescribeInstanceInformationError> {
    let call = world.admin_at("DescribeInstanceInformation", now);
    let input = DescribeInstanceInformationInput {
        filters,
        ..DescribeInstanceInformationInput::default()
    };
    let outcome = world
        .control
        .describe_instance_information(&call, input)
        .await;
    outcome.map(|recorded| recorded.into_inner().nodes)
}

async fn properties(
    world: &World,
    filters: Vec<NodeFilter>,
) -> Result<Vec<NodeView>, DescribeInstancePropertiesError> {
    let call = world.admin("DescribeInstanceProperties");
    let input = DescribeInstancePropertiesInput {
        filters,
        ..DescribeInstancePropertiesInput::default()
    };
    let outcome = world
        .control
        .describe_instance_properties(&call, input)
        .await;
    outcome.map(|recorded| recorded.into_inner().nodes)
}

async fn heartbeat(
    world: &World,
    caller: &NodeId,
    about: &str,
    now: Timestamp,
) -> Result<(), UpdateInstanceInformationError> {
    let call = call(world.node_caller(caller), "UpdateInstanceInformation", now);
    let info = NodeInfo {
        computer_name: Some("web-1".into()),
        agent_version: Some("3.3.1.0".into()),
        platform_type: Some("Linux".into()),
        ..NodeInfo::default()
    };
    let input = UpdateInstanceInformationInput {
        instance_id: about.into(),
        info,
    };
    let outcome = world
        .control
        .update_instance_information(&call, input)
        .await;
    outcome.map(sortie_control::Recorded::into_inner)
}

#[tokio::test]
async fn ping_status_follows_the_channel_then_the_heartbeats_then_time() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let status = async |after: Duration| {
        let list = information(&world, Vec::new(), START.plus(after))
            .await
            .unwrap();
        list[0].ping_status
    };
    assert_eq!(
        status(Duration::from_secs(1)).await,
        PingStatus::ConnectionLost,
        "enrolled, but its agent has not run"
    );
    let heard = START.plus(Duration::from_secs(1));
    let node = world.connect(&node_id, heard).await;
    assert_eq!(status(Duration::from_hours(24)).await, PingStatus::Online);
    world.control.node_lost(&node, heard, "gone").await;
    assert_eq!(status(Duration::from_secs(631)).await, PingStatus::Online);
    assert_eq!(
        status(Duration::from_secs(632)).await,
        PingStatus::ConnectionLost
    );
    assert_eq!(
        status(Duration::from_hours(31 * 24)).await,
        PingStatus::Inactive
    );
    // A sign of life counts before it is written.
    world
        .control
        .heard(&node_id, START.plus(Duration::from_hours(1)));
    assert_eq!(status(Duration::from_hours(1)).await, PingStatus::Online);
}

#[tokio::test]
async fn signs_of_life_are_written_in_batches_when_stopping_too() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await.session_id;
    let later = START.plus(Duration::from_mins(7));
    world.control.heard(&node_id, later);
    world.control.heard(&node_id, START);
    world.control.active(&session, later);
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    world.control.run(stop).await;
    let node = sortie_ports::State::node(&*world.state, &node_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(node.last_ping, later);
    assert_eq!(world.session_row(&session).await.last_activity, later);
}

#[tokio::test]
async fn a_node_reports_for_itself_alone() {
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    let now = START.plus(Duration::from_mins(5));
    heartbeat(&world, &one, one.as_str(), now).await.unwrap();
    let error = heartbeat(&world, &one, two.as_str(), now)
        .await
        .unwrap_err();
    let UpdateInstanceInformationError::Denied(denied) = error else {
        panic!("{error}")
    };
    let account = world.control.account_id();
    assert_eq!(
        denied.message,
        format!(
            "User: arn:aws:sts::{account}:assumed-role/SortieNode/{one} is not authorized to perform: \
             ssm:UpdateInstanceInformation on resource: \
             arn:aws:ssm:local-1:{account}:managed-instance/{two} because no identity-based \
             policy allows the ssm:UpdateInstanceInformation action"
        )
    );
    let list = information(&world, Vec::new(), now).await.unwrap();
    let named = |id: &NodeId| list.iter().find(|view| view.node.id == *id).unwrap();
    assert_eq!(
        named(&one).node.info.computer_name.as_deref(),
        Some("web-1")
    );
    assert_eq!(named(&one).node.last_ping, now);
    assert_eq!(named(&two).node.info, NodeInfo::default());
}

#[tokio::test]
async fn nodes_are_found_by_what_they_are() {
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    world.connect(&one, START).await;
    heartbeat(&world, &one, one.as_str(), START).await.unwrap();
    let late = START.plus(Duration::from_hours(2));
    let find = async |key: &str, value: &str| {
        let list = information(&world, vec![filter(key, &[value])], late)
            .await
            .unwrap();
        list.into_iter()
            .map(|view| view.node.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        find("PingStatus", "Online").await,
        std::slice::from_ref(&one)
    );
    assert_eq!(
        find("PingStatus", "ConnectionLost").await,
        std::slice::from_ref(&two)
    );
    assert_eq!(
        find("InstanceIds", two.as_str()).await,
        std::slice::from_ref(&two)
    );
    assert_eq!(
        find("PlatformTypes", "Linux").await,
        std::slice::from_ref(&one)
    );
    assert_eq!(
        find("AgentVersion", "3.3.1.0").await,
        std::slice::from_ref(&one)
    );
    assert_eq!(find("IamRole", NODE_ROLE).await.len(), 2);
    assert_eq!(find("ResourceType", "ManagedInstance").await.len(), 2);
    assert_eq!(find("ResourceType", "EC2Instance").await.len(), 0);
    assert_eq!(find("tag:Env", "prod").await.len(), 2);
    assert_eq!(find("tag-key", "Env").await.len(), 2);
    assert_eq!(find("tag:Env", "dev").await.len(), 0);
    assert_eq!(find("AssociationStatus", "Success").await.len(), 0);
}

#[tokio::test]
async fn wrong_conditions_are_refused_by_name() {
    use DescribeInstanceInformationError as Error;
    let world = World::start().await;
    world.enrol(0).await;
    let refused = async |filters| information(&world, filters, START).await.unwrap_err();
    let key = refused(vec![filter("Color", &["red"])]).await;
    assert!(matches!(key, Error::InvalidFilterKey { .. }));
    let value = refused(vec![filter("PingStatus", &["Up"])]).await;
    assert!(matches!(value, Error::InvalidFilterValue { .. }));
    let id = refused(vec![filter("InstanceIds", &["mi-00000000000000000"])]).await;
    assert!(matches!(id, Error::InvalidInstanceId { .. }));
    let mixed = vec![
        filter("tag:Env", &["prod"]),
        filter("PingStatus", &["Online"]),
    ];
    assert!(matches!(
        refused(mixed).await,
        Error::InvalidFilterKey { .. }
    ));

    let call = world.admin("DescribeInstanceInformation");
    let both = DescribeInstanceInformationInput {
        filters: vec![filter("PingStatus", &["Online"])],
        filter_list: vec![filter("PingStatus", &["Online"])],
        ..DescribeInstanceInformationInput::default()
    };
    let outcome = world
        .control
        .describe_instance_information(&call, both)
        .await;
    assert!(matches!(outcome, Err(Error::InvalidFilterKey { .. })));
    let garbage = DescribeInstanceInformationInput {
        next_token: Some("garbage".into()),
        ..DescribeInstanceInformationInput::default()
    };
    let outcome = world
        .control
        .describe_instance_information(&call, garbage)
        .await;
    assert!(matches!(outcome, Err(Error::InvalidNextToken)));
}

#[tokio::test]
async fn pages_of_nodes_join_in_order_of_id() {
    let world = World::start().await;
    let mut enrolled = Vec::new();
    for key in 0..3 {
        enrolled.push(world.enrol(key).await);
    }
    enrolled.sort();
    let page = async |next_token| {
        let call = world.admin("DescribeInstanceInformation");
        let input = DescribeInstanceInformationInput {
            max_results: Some(2),
            next_token,
            ..DescribeInstanceInformationInput::default()
        };
        let outcome = world
            .control
            .describe_instance_information(&call, input)
            .await;
        outcome.unwrap().into_inner()
    };
    let first = page(None).await;
    let second = page(first.next_token.clone()).await;
    let ids = first
        .nodes
        .iter()
        .chain(&second.nodes)
        .map(|view| view.node.id.clone());
    assert_eq!(ids.collect::<Vec<_>>(), enrolled);
    assert!(first.next_token.is_some() && second.next_token.is_none());
}

#[tokio::test]
async fn properties_know_operators_and_more_fields() {
    use DescribeInstancePropertiesError as Error;
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    heartbeat(&world, &one, one.as_str(), START).await.unwrap();
    let with = |key: &str, value: &str, operator: FilterOperator| {
        vec![NodeFilter {
            operator,
            ..filter(key, &[value])
        }]
    };
    use FilterOperator::{BeginWith, Equal, GreaterThan, NotEqual};
    let find = async |filters| {
        let list = properties(&world, filters).await.unwrap();
        list.into_iter()
            .map(|view| view.node.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        find(with("ComputerName", "web", BeginWith)).await,
        std::slice::from_ref(&one)
    );
    assert_eq!(
        find(with("AgentVersion", "3.2.99.0", GreaterThan)).await,
        std::slice::from_ref(&one)
    );
    assert_eq!(
        find(with("InstanceIds", one.as_str(), NotEqual)).await,
        [two]
    );
    assert_eq!(find(Vec::new()).await.len(), 2);
    let refused = async |key: &str| properties(&world, with(key, "x", Equal)).await.unwrap_err();
    assert!(matches!(
        refused("Color").await,
        Error::InvalidFilterKey { .. }
    ));
    assert!(matches!(
        refused("ActivationIds").await,
        Error::InvalidActivationId { .. }
    ));
    assert!(matches!(
        refused("DocumentName").await,
        Error::InvalidDocument { .. }
    ));
    assert!(matches!(
        refused("InstanceIds").await,
        Error::InvalidInstanceId { .. }
    ));
    assert!(matches!(
        refused("PlatformTypes").await,
        Error::InvalidFilterValue { .. }
    ));
    assert_eq!(world.record("DescribeInstanceProperties")["readOnly"], true);
}

#[tokio::test]
async fn deregistering_takes_a_node_out_of_every_list_once() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let deregister = async |id: &str| {
        let call = world.admin("DeregisterManagedInstance");
        let input = DeregisterManagedInstanceInput {
            instance_id: id.into(),
        };
        world
            .control
            .deregister_managed_instance(&call, input)
            .await
    };
    deregister(node_id.as_str()).await.unwrap();
    assert!(
        information(&world, Vec::new(), START)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(!world.control.node_is_active(&node_id).await.unwrap());
    for id in [node_id.as_str(), "mi-00000000000000000", "x"] {
        let error = deregister(id).await;
        assert!(matches!(
            error,
            Err(DeregisterManagedInstanceError::InvalidInstanceId { .. })
        ));
    }
    assert_eq!(world.count("DeregisterManagedInstance"), 1);
    let error = heartbeat(&world, &node_id, node_id.as_str(), START).await;
    assert!(matches!(
        error,
        Err(UpdateInstanceInformationError::InvalidInstanceId { .. })
    ));
}

#[tokio::test]
async fn roles_change_for_nodes_that_exist() {
    use UpdateManagedInstanceRoleError as Error;
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let update = async |id: &str, role: &str| {
        let call = world.admin("UpdateManagedInstanceRole");
        let input = UpdateManagedInstanceRoleInput {
            instance_id: id.into(),
            iam_role: role.into(),
        };
        world
            .control
            .update_managed_instance_role(&call, input)
            .await
    };
    let absent = update(node_id.as_str(), "Others").await;
    assert!(matches!(absent, Err(Error::InvalidRole(_))));
    role_of(&world, "Others", "ssm.amazonaws.com").await;
    let mut signals = world.signals.subscribe();
    update(node_id.as_str(), "Others").await.unwrap();
    assert_eq!(signals.recv().await, Ok(Signal::Node(node_id.clone())));
    assert_eq!(
        information(&world, Vec::new(), START).await.unwrap()[0]
            .node
            .iam_role,
        "Others"
    );
    let unknown = update("mi-00000000000000000", "Others").await;
    assert!(matches!(unknown, Err(Error::InvalidInstanceId { .. })));
    let invalid = update(node_id.as_str(), "no role").await;
    assert!(matches!(invalid, Err(Error::InvalidRole(_))));
    let untrusting = role_of(&world, "Untrusting", "ec2.amazonaws.com").await;
    let untrusting = update(node_id.as_str(), &untrusting.name)
        .await
        .unwrap_err();
    assert_eq!(
        untrusting.to_string(),
        "Nonexistent role or missing ssm service principal in trust policy: Untrusting"
    );
}

#[tokio::test]
async fn a_role_may_ask_on_whose_behalf_it_is_assumed() {
    let world = World::start().await;
    let account = world.control.account_id().to_string();
    let node_id = world.enrol(0).await;
    let usable = async |name: &str, account: &str, source: &str| {
        let trust = json!({
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow", "Principal": {"Service": "ssm.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {"aws:SourceAccount": account},
                    "ArnEquals": {"aws:SourceArn": source},
                },
            },
        });
        let role = CreateRoleInput {
            name: name.into(),
            trust_policy: trust.to_string(),
            ..CreateRoleInput::default()
        };
        let call = world.admin("CreateRole");
        world.control.create_role(&call, role).await.unwrap();
        let call = world.admin("CreateActivation");
        let input = CreateActivationInput {
            iam_role: name.into(),
            registration_limit: Some(1),
            ..CreateActivationInput::default()
        };
        let created = world.control.create_activation(&call, input).await;
        let call = world.admin("UpdateManagedInstanceRole");
        let input = UpdateManagedInstanceRoleInput {
            instance_id: node_id.to_string(),
            iam_role: name.into(),
        };
        let updated = world.control.update_managed_instance_role(&call, input);
        (created.is_ok(), updated.await.is_ok())
    };
    let here = format!("arn:aws:ssm:local-1:{account}:*");
    assert_eq!(usable("Ours", &account, &here).await, (true, true));
    // Of this node alone.
    let node = format!("arn:aws:ssm:local-1:{account}:managed-instance/{node_id}");
    assert_eq!(usable("Its", &account, &node).await, (false, true));
    let other = "999988887777";
    assert_eq!(usable("Theirs", other, &here).await, (false, false));
    let there = format!("arn:aws:ssm:local-1:{other}:*");
    assert_eq!(usable("There", &account, &there).await, (false, false));
}

fn add(kind: &str, id: &str, tags: &[(&str, &str)]) -> AddTagsToResourceInput {
    let tag = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    AddTagsToResourceInput {
        resource_type: kind.into(),
        resource_id: id.into(),
        tags: tags.iter().map(tag).collect(),
    }
}

async fn tags(world: &World, kind: &str, id: &str) -> Result<Vec<String>, TagsError> {
    let call = world.admin("ListTagsForResource");
    let input = ListTagsForResourceInput {
        resource_type: kind.into(),
        resource_id: id.into(),
    };
    let outcome = world.control.list_tags_for_resource(&call, input).await?;
    let tags = outcome.into_inner().tags.into_iter();
    Ok(tags
        .map(|tag| format!("{}={}", tag.key, tag.value))
        .collect())
}

#[tokio::test]
async fn tags_are_set_replaced_and_removed() {
    let world = World::start().await;
    let activation = world.activation(1).await.activation_id.to_string();
    let node_id = world.enrol(0).await.to_string();
    for (kind, id) in [("ManagedInstance", &node_id), ("Activation", &activation)] {
        let call = world.admin("AddTagsToResource");
        let input = add(kind, id, &[("Env", "dev"), ("Name", "db 1")]);
        world
            .control
            .add_tags_to_resource(&call, input)
            .await
            .unwrap();
        assert_eq!(
            tags(&world, kind, id).await.unwrap(),
            ["Env=dev", "Name=db 1"]
        );
        let call = world.admin("RemoveTagsFromResource");
        let input = RemoveTagsFromResourceInput {
            resource_type: kind.into(),
            resource_id: id.clone(),
            tag_keys: vec!["Env".into(), "absent".into()],
        };
        world
            .control
            .remove_tags_from_resource(&call, input)
            .await
            .unwrap();
        assert_eq!(tags(&world, kind, id).await.unwrap(), ["Name=db 1"]);
    }
    assert_eq!(world.count("AddTagsToResource"), 2);
    assert_eq!(world.count("RemoveTagsFromResource"), 2);
}

#[tokio::test]
async fn wrong_tags_change_nothing() {
    let world = World::start().await;
    let node_id = world.enrol(0).await.to_string();
    let call = world.admin("AddTagsToResource");
    let refused = async |input| {
        world
            .control
            .add_tags_to_resource(&call, input)
            .await
            .unwrap_err()
    };
    let unknown = add("ManagedInstance", "mi-00000000000000000", &[("k", "v")]);
    assert!(matches!(
        refused(unknown).await,
        TagsError::InvalidResourceId
    ));
    let kind = add("PatchBaseline", &node_id, &[("k", "v")]);
    assert!(matches!(
        refused(kind).await,
        TagsError::InvalidResourceType
    ));
    let reserved = add("ManagedInstance", &node_id, &[("k", "v"), ("aws:k", "v")]);
    assert!(matches!(refused(reserved).await, TagsError::InvalidTag(_)));
    let keys: Vec<String> = (0..50).map(|index| format!("key{index}")).collect();
    let many: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
    let many = add("ManagedInstance", &node_id, &many);
    assert!(matches!(refused(many).await, TagsError::TooManyTags));
    assert_eq!(
        tags(&world, "ManagedInstance", &node_id).await.unwrap(),
        ["Env=prod"]
    );
    assert!(matches!(
        tags(&world, "Activation", "x").await,
        Err(TagsError::InvalidResourceId)
    ));
    assert_eq!(world.count("AddTagsToResource"), 0);
}
