//! What the gateway asks: channels, tickets, and the lives of nodes and sessions.

use std::time::Duration;

use sortie_control::{
    AcceptError, CreateControlChannelError, CreateControlChannelInput, CreateDataChannelError,
    CreateDataChannelInput, DataOpen, End, QuietError, ResumeSessionInput, Side,
    TerminateSessionInput,
};
use sortie_ports::{NodeInfo, SessionState};
use sortie_types::{NodeId, Secret, SessionId};

use crate::world::{START, World, call, secret};

fn as_client(token: &Secret, client_id: &str) -> DataOpen {
    DataOpen {
        secure_transport: true,
        token: token.clone(),
        client_id: client_id.into(),
        node_id: None,
        source_ip: "192.0.2.9".into(),
        user_agent: None,
        signed_by: None,
    }
}

fn as_node(token: &Secret, node_id: &NodeId) -> DataOpen {
    DataOpen {
        secure_transport: true,
        token: token.clone(),
        client_id: String::new(),
        node_id: Some(node_id.to_string()),
        source_ip: "192.0.2.7".into(),
        user_agent: None,
        signed_by: None,
    }
}

async fn data_channel(
    world: &World,
    node_id: &NodeId,
    session_id: &str,
) -> Result<Secret, CreateDataChannelError> {
    let call = call(world.node_caller(node_id), "CreateDataChannel", START);
    let input = CreateDataChannelInput {
        session_id: session_id.into(),
    };
    let outcome = world.control.create_data_channel(&call, input).await;
    outcome.map(|recorded| recorded.into_inner().token_value)
}

#[tokio::test]
async fn a_control_channel_opens_with_the_nodes_own_fresh_token_only() {
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    let create = async |caller: &NodeId, about: &str| {
        let call = call(world.node_caller(caller), "CreateControlChannel", START);
        let input = CreateControlChannelInput {
            node_id: about.into(),
        };
        world.control.create_control_channel(&call, input).await
    };
    let token = create(&one, one.as_str())
        .await
        .unwrap()
        .into_inner()
        .token_value;
    let foreign = create(&one, two.as_str()).await.unwrap_err();
    let CreateControlChannelError::Denied(denied) = foreign else {
        panic!("{foreign}")
    };
    let account = world.control.account_id();
    let resource = format!("on resource: arn:aws:ssmmessages:local-1:{account}:*");
    assert!(denied.message.contains(&resource));

    let accept = async |caller: &NodeId, about: &NodeId, token: &Secret, after: Duration| {
        let now = START.plus(after);
        let call = call(world.node_caller(caller), "OpenControlChannel", now);
        world
            .control
            .accept_control_channel(&call, about.as_str(), token)
            .await
    };
    let at_once = Duration::ZERO;
    assert_eq!(
        *accept(&one, &one, &token, at_once)
            .await
            .unwrap()
            .resource(),
        one
    );
    let outcome = accept(&one, &two, &token, at_once).await;
    assert!(matches!(outcome, Err(AcceptError::Denied(_))));
    let outcome = accept(&two, &two, &token, at_once).await;
    assert!(matches!(outcome, Err(AcceptError::Foreign)));
    let outcome = accept(&one, &one, &secret("SRT1.garbage"), at_once).await;
    assert!(matches!(outcome, Err(AcceptError::Foreign)));
    let outcome = accept(&one, &one, &token, Duration::from_mins(5)).await;
    assert!(matches!(outcome, Err(AcceptError::Expired)));

    let thrown_out = world.admin("DeregisterManagedInstance");
    let input = sortie_control::DeregisterManagedInstanceInput {
        instance_id: one.to_string(),
    };
    world
        .control
        .deregister_managed_instance(&thrown_out, input)
        .await
        .unwrap();
    let outcome = accept(&one, &one, &token, at_once).await;
    assert!(matches!(outcome, Err(AcceptError::Gone)));
    let outcome = create(&one, one.as_str()).await;
    assert!(matches!(
        outcome,
        Err(CreateControlChannelError::InvalidInstanceId { .. })
    ));
    assert_eq!(world.count("OpenControlChannel"), 5);
    assert_eq!(
        world.record("OpenControlChannel")["errorCode"],
        "InvalidInstanceId"
    );
}

#[tokio::test]
async fn nodes_come_and_go_as_service_events() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let node = world.connect(&node_id, START).await;
    let event = world.record("NodeOnline");
    assert_eq!(event["eventType"], "AwsServiceEvent");
    assert_eq!(event["userIdentity"]["invokedBy"], "ssm.amazonaws.com");
    assert_eq!(event["serviceEventDetails"]["address"], "192.0.2.7");
    // A channel that takes the place of another is no news.
    world.connect(&node_id, START).await;
    assert_eq!(world.count("NodeOnline"), 1);
    world
        .control
        .node_lost(&node, START, "the channel closed")
        .await;
    assert_eq!(
        world.record("NodeLost")["serviceEventDetails"]["reason"],
        "the channel closed"
    );
    let addresses = ["192.0.2.7".to_owned(), "192.0.2.8".to_owned()];
    world.control.node_cloned(&node, &addresses, START).await;
    let event = world.record("NodeCloneDetected");
    assert_eq!(event["serviceEventDetails"]["addresses"][1], "192.0.2.8");
    world.connect(&node_id, START).await;
    assert_eq!(world.count("NodeOnline"), 2);
    // Nothing is connected when a server starts.
    let world = world.restart(START).await;
    let row = sortie_ports::State::node(&*world.state, &node_id)
        .await
        .unwrap()
        .unwrap();
    assert!(!row.connected);
}

#[tokio::test]
async fn a_node_that_was_thrown_out_cannot_come_online() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let node = world.connect(&node_id, START).await;
    let call = world.admin("DeregisterManagedInstance");
    let input = sortie_control::DeregisterManagedInstanceInput {
        instance_id: node_id.to_string(),
    };
    world
        .control
        .deregister_managed_instance(&call, input)
        .await
        .unwrap();
    let (info, address) = (NodeInfo::default(), "192.0.2.7".to_owned());
    assert!(
        world
            .control
            .node_online(&node, info, address, START)
            .await
            .is_err()
    );
    assert_eq!(world.count("NodeOnline"), 1);
}

#[tokio::test]
async fn both_ends_of_a_session_open_with_their_own_tokens() {
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    let node = world.connect(&one, START).await;
    let session = world.session(&one).await;
    let id = session.session_id.as_str();
    let open =
        async |id: &str, open: DataOpen| world.control.accept_data_channel(id, open, START).await;

    let grant = open(id, as_client(&session.token_value, "c"))
        .await
        .unwrap();
    assert_eq!((grant.side, grant.session.id.as_str()), (Side::Client, id));
    // Official clients dial several times with one token.
    open(id, as_client(&session.token_value, "c"))
        .await
        .unwrap();

    let worker = world.control.worker_token(&grant.session, START).unwrap();
    assert_eq!(
        open(id, as_node(&worker, &one)).await.unwrap().side,
        Side::Node
    );
    let outcome = open(id, as_node(&worker, &two)).await;
    assert!(matches!(outcome, Err(AcceptError::Foreign)));
    let created = data_channel(&world, &one, id).await.unwrap();
    assert_eq!(
        open(id, as_node(&created, &one)).await.unwrap().side,
        Side::Node
    );
    let outcome = open(id, as_node(&worker, &one)).await;
    assert!(matches!(outcome, Err(AcceptError::Superseded)));

    let other = world.session(&one).await.session_id;
    let outcome = open(other.as_str(), as_client(&session.token_value, "c")).await;
    assert!(matches!(outcome, Err(AcceptError::Foreign)));
    let outcome = open(
        "admin-00000000000000000",
        as_client(&session.token_value, "c"),
    )
    .await;
    assert!(matches!(outcome, Err(AcceptError::Unknown)));
    let outcome = open(id, as_client(&secret("AAEAAofficial"), "c")).await;
    assert!(matches!(outcome, Err(AcceptError::Foreign)));
    assert_eq!(
        world.control.live_sessions_of(&node).await.unwrap().len(),
        2
    );

    // Each refusal is in the trail, without the token.
    assert_eq!(world.count("OpenDataChannel"), 5);
    let record = world.record("OpenDataChannel");
    assert_eq!(record["errorCode"], "InvalidToken");
    assert_eq!(record["sourceIPAddress"], "192.0.2.9");
    assert!(!record.to_string().contains("AAEAAofficial"));
}

#[tokio::test]
async fn another_nodes_session_is_no_ones_business() {
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    world.connect(&one, START).await;
    let session = world.session(&one).await.session_id;
    let outcome = data_channel(&world, &two, session.as_str()).await;
    assert!(matches!(outcome, Err(CreateDataChannelError::Denied(_))));
    assert_eq!(world.session_row(&session).await.node_epoch, 1);
    let outcome = data_channel(&world, &one, "admin-00000000000000000").await;
    assert!(matches!(
        outcome,
        Err(CreateDataChannelError::DoesNotExist { .. })
    ));
    let end = End {
        failed: false,
        reason: String::new(),
    };
    world.control.session_ended(&session, end, START).await;
    let error = data_channel(&world, &one, session.as_str())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "Session is already terminated");
}

#[tokio::test]
async fn a_ticket_lives_with_the_session_for_one_client_and_is_audited() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await;
    let id = session.session_id.as_str();
    let grant = world
        .control
        .accept_data_channel(id, as_client(&session.token_value, "c"), START);
    let ticket = world.control.ticket(&grant.await.unwrap(), START).unwrap();

    let late = START.plus(Duration::from_hours(12));
    let again = world
        .control
        .accept_data_channel(id, as_client(&ticket, "c"), late)
        .await
        .unwrap();
    assert_eq!(again.side, Side::Client);
    let record = world.record("ResumeSession");
    assert_eq!(record["userIdentity"]["userName"], "admin");
    assert_eq!(record["sourceIPAddress"], "192.0.2.9");
    assert_eq!(record["requestParameters"]["sessionId"], id);
    let stolen = world
        .control
        .accept_data_channel(id, as_client(&ticket, "d"), late)
        .await;
    assert!(matches!(stolen, Err(AcceptError::Foreign)));
    let expired = world
        .control
        .accept_data_channel(id, as_client(&session.token_value, "c"), late);
    assert!(matches!(expired.await, Err(AcceptError::Expired)));

    // Resumed from elsewhere: token and ticket of before are superseded.
    let call = world.admin("ResumeSession");
    let input = ResumeSessionInput {
        session_id: id.into(),
        stream_base: "ws://x".into(),
    };
    world.control.resume_session(&call, input).await.unwrap();
    for token in [&ticket, &session.token_value] {
        let outcome = world
            .control
            .accept_data_channel(id, as_client(token, "c"), START)
            .await;
        assert!(matches!(outcome, Err(AcceptError::Superseded)));
    }
}

#[tokio::test]
async fn a_nodes_ticket_works_as_long_as_its_session() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await.session_id;
    let row = world.session_row(&session).await;
    let worker = world.control.worker_token(&row, START).unwrap();
    let open = as_node(&worker, &node_id);
    let grant = world
        .control
        .accept_data_channel(session.as_str(), open, START)
        .await
        .unwrap();
    let ticket = world.control.ticket(&grant, START).unwrap();
    let late = START.plus(Duration::from_hours(12));
    let open = as_node(&ticket, &node_id);
    let again = world
        .control
        .accept_data_channel(session.as_str(), open, late)
        .await;
    assert_eq!(again.unwrap().side, Side::Node);
    assert_eq!(world.count("ResumeSession"), 0);
}

#[tokio::test]
async fn whoever_comes_to_an_ended_session_is_told_why() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await;
    let call = world.admin("TerminateSession");
    let input = TerminateSessionInput {
        session_id: session.session_id.to_string(),
    };
    world.control.terminate_session(&call, input).await.unwrap();
    let open = as_client(&session.token_value, "c");
    let late = START.plus(Duration::from_hours(1));
    let outcome = world
        .control
        .accept_data_channel(session.session_id.as_str(), open, late)
        .await;
    let Err(AcceptError::Over { reason }) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.starts_with("Your session was ended by admin (arn:aws:iam::"));
}

#[tokio::test]
async fn a_session_moves_only_as_its_life_allows_and_ends_once() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session: SessionId = world.session(&node_id).await.session_id;
    let state = async || world.session_row(&session).await.state;
    for wanted in [
        SessionState::Connected,
        SessionState::Disconnected,
        SessionState::Connected,
    ] {
        world.control.session_state(&session, wanted, START).await;
        assert_eq!(state().await, wanted);
    }
    world
        .control
        .session_state(&session, SessionState::Connecting, START)
        .await;
    assert_eq!(state().await, SessionState::Connected);
    let end = |reason: &str| End {
        failed: false,
        reason: reason.into(),
    };
    let ended = START.plus(Duration::from_mins(30));
    world
        .control
        .session_ended(&session, end("The session was idle for 20 minutes."), ended)
        .await;
    world
        .control
        .session_ended(&session, end("again"), ended)
        .await;
    world
        .control
        .session_state(&session, SessionState::Connected, ended)
        .await;
    let row = world.session_row(&session).await;
    assert_eq!(
        (row.state, row.ended),
        (SessionState::Terminated, Some(ended))
    );
    assert_eq!(
        row.end_reason.as_deref(),
        Some("The session was idle for 20 minutes.")
    );
    let event = world.record("SessionEnded");
    assert_eq!(event["eventType"], "AwsServiceEvent");
    assert_eq!(event["serviceEventDetails"]["status"], "Terminated");
    assert_eq!(
        event["serviceEventDetails"]["reason"],
        "The session was idle for 20 minutes."
    );
    assert_eq!(world.count("SessionEnded"), 1);
}

#[tokio::test]
async fn an_end_that_the_state_did_not_take_is_tried_again() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await.session_id;
    world.fail_commits(true);
    let end = End {
        failed: true,
        reason: "no shell".into(),
    };
    world.control.session_ended(&session, end, START).await;
    assert_eq!(
        world.session_row(&session).await.state,
        SessionState::Connecting
    );
    world.fail_commits(false);
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    world.control.run(stop).await;
    let row = world.session_row(&session).await;
    assert_eq!(
        (row.state, row.end_reason.as_deref()),
        (SessionState::Failed, Some("no shell"))
    );
}

#[tokio::test]
async fn what_the_official_agent_also_asks_is_for_nodes_about_themselves() {
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    let ask = async |caller, name, about: Option<&str>| {
        let call = call(caller, name, START);
        world
            .control
            .quiet(&call, about)
            .await
            .map(sortie_control::Recorded::into_inner)
    };
    let node = || world.node_caller(&one);
    assert!(
        ask(node(), "ListInstanceAssociations", Some(one.as_str()))
            .await
            .is_ok()
    );
    assert!(ask(node(), "GetMessages", Some(one.as_str())).await.is_ok());
    assert!(ask(node(), "ListAssociations", None).await.is_ok());
    let foreign = ask(node(), "GetMessages", Some(two.as_str())).await;
    assert!(matches!(foreign, Err(QuietError::Denied(_))));
    let admin = ask(
        world.admin_caller(),
        "ListInstanceAssociations",
        Some(one.as_str()),
    )
    .await;
    assert!(matches!(admin, Err(QuietError::Denied(_))));
    // What does something cannot be called quietly.
    let act = ask(node(), "RequestManagedInstanceRoleToken", None).await;
    assert!(matches!(act, Err(QuietError::Denied(_))));
}

#[tokio::test]
async fn an_end_that_another_node_signed_for_is_refused_and_recorded_as_refused() {
    let world = World::start_with(|settings| settings.data_events = true).await;
    let (node_id, other) = (world.enrol(0).await, world.enrol(1).await);
    world.connect(&node_id, START).await;
    let started = world.session(&node_id).await;
    let token = data_channel(&world, &node_id, started.session_id.as_str())
        .await
        .unwrap();
    let opens = [
        (as_client(&started.token_value, "client"), Some(&node_id)),
        (as_node(&token, &node_id), Some(&other)),
        (as_node(&token, &node_id), Some(&node_id)),
        (as_node(&token, &node_id), None),
    ];
    for (open, signer) in opens {
        let is_client = open.node_id.is_none();
        let open = DataOpen {
            secure_transport: true,
            signed_by: signer.map(|node_id| world.node_caller(node_id)),
            ..open
        };
        let before = world.count("OpenDataChannel");
        let accepted = world
            .control
            .accept_data_channel(started.session_id.as_str(), open, START)
            .await;
        let is_fit = !is_client && signer.is_none_or(|signer| *signer == node_id);
        assert_eq!(accepted.is_ok(), is_fit);
        assert_eq!(world.count("OpenDataChannel"), before + 1);
        let record = world.record("OpenDataChannel");
        assert_eq!(record["errorCode"].is_null(), is_fit, "{record}");
    }
}
