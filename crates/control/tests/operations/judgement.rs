//! Taking access away: living sessions end when they could not be started any more, and not for any
//! other reason.

use std::time::Duration;

use serde_json::json;
use sortie_control::{
    AddTagsToResourceInput, AuthenticationError, Caller, DataGrant, DataOpen,
    DeregisterManagedInstanceInput, End, Holder, ResumeSessionError, ResumeSessionInput,
    SessionState, StartSessionOutput, UpdateUserInput,
};
use sortie_ports::{Signal, Signals};
use sortie_types::{NodeId, Secret, SessionId};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{allow, deny, grant, may_start, node, person, user},
    world::{NODE_ROLE, START, World, call, start},
};

async fn session(world: &World, caller: &Caller, node_id: &NodeId) -> StartSessionOutput {
    let call = call(caller.clone(), "StartSession", START);
    let started = world.control.start_session(&call, start(node_id.as_str()));
    started.await.unwrap().into_inner()
}

/// Removes one of alice's policies.
async fn take_away(world: &World, name: &str) {
    let call = world.admin("DeleteUserPolicy");
    let removed = world
        .control
        .delete_inline_policy(&call, &user("alice"), name)
        .await;
    removed.unwrap();
}

async fn state(world: &World, id: &SessionId) -> (SessionState, Option<String>) {
    let row = world.session_row(id).await;
    (row.state, row.end_reason)
}

async fn judged(world: &World, id: &SessionId) -> Option<String> {
    world.control.judge_sessions().await.unwrap();
    match state(world, id).await {
        (SessionState::Terminating, reason) => Some(reason.unwrap()),
        (SessionState::Connecting, None) => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_policy_taken_away_ends_the_sessions_that_it_allowed_and_no_others() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let alice = person(&world, "alice", &may_start()).await;
    let bob = person(&world, "bob", &may_start()).await;
    let hers = session(&world, &alice, &node_id).await.session_id;
    let his = session(&world, &bob, &node_id).await.session_id;
    assert_eq!(judged(&world, &hers).await, None);
    let mut signals = world.signals.subscribe();
    take_away(&world, "own").await;
    let reason = judged(&world, &hers).await.unwrap();
    assert!(
        reason.starts_with("Your session was ended because your access was taken away: User: ")
            && reason
                .ends_with("because no identity-based policy allows the ssm:StartSession action"),
        "{reason}"
    );
    assert_eq!(judged(&world, &his).await, None);
    assert_eq!(signals.recv().await, Ok(Signal::Identities));
    assert_eq!(signals.recv().await, Ok(Signal::Session(hers.clone())));
    // The gateway ends it, and the trail says why.
    let end = End {
        failed: false,
        reason: String::new(),
    };
    world.control.session_ended(&hers, end, START).await;
    let event = &world.record("SessionEnded")["serviceEventDetails"];
    assert_eq!(event["reason"], reason);
}

#[tokio::test]
async fn a_deny_a_group_and_a_tag_take_access_away_too() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let dev = json!({
        "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
        "Condition": {"StringEqualsIfExists": {"aws:ResourceTag/Env": "prod"}},
    });
    let alice = person(&world, "alice", &[dev]).await;
    let one = session(&world, &alice, &node_id).await.session_id;
    grant(
        &world,
        &user("alice"),
        "no",
        &[deny("ssm:StartSession", "*")],
    )
    .await;
    let reason = judged(&world, &one).await.unwrap();
    assert!(
        reason.ends_with("with an explicit deny in an identity-based policy"),
        "{reason}"
    );
    take_away(&world, "no").await;

    let two = session(&world, &alice, &node_id).await.session_id;
    assert_eq!(judged(&world, &two).await, None);
    let input = AddTagsToResourceInput {
        resource_type: "ManagedInstance".into(),
        resource_id: node_id.to_string(),
        tags: vec![("Env".into(), "dev".into())],
    };
    let call = world.admin("AddTagsToResource");
    world
        .control
        .add_tags_to_resource(&call, input)
        .await
        .unwrap();
    assert!(judged(&world, &two).await.is_some());
}

#[tokio::test]
async fn a_key_switched_off_and_a_user_deleted_end_their_sessions() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let alice = person(&world, "alice", &may_start()).await;
    let Caller::User(caller) = &alice else {
        panic!()
    };
    let key = caller.access_key_id.to_string();
    let one = session(&world, &alice, &node_id).await.session_id;
    let call = world.admin("UpdateAccessKey");
    let off = world
        .control
        .update_access_key(&call, Some("alice".into()), &key, false);
    off.await.unwrap();
    let reason = judged(&world, &one).await.unwrap();
    assert!(reason.contains(&key), "{reason}");

    let on = world
        .control
        .update_access_key(&call, Some("alice".into()), &key, true);
    on.await.unwrap();
    let two = session(&world, &alice, &node_id).await.session_id;
    assert_eq!(judged(&world, &two).await, None);
    let control = &world.control;
    let name = Some("alice".to_owned());
    control.delete_access_key(&call, name, &key).await.unwrap();
    control
        .delete_inline_policy(&call, &user("alice"), "own")
        .await
        .unwrap();
    control.delete_user(&call, "alice").await.unwrap();
    let reason = judged(&world, &two).await.unwrap();
    assert!(
        reason.ends_with("user/alice does not exist any more."),
        "{reason}"
    );
}

#[tokio::test]
async fn passing_time_and_another_address_end_nothing() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let then = json!({
        "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
        "Condition": {
            "DateLessThan": {"aws:CurrentTime": START.plus(Duration::from_secs(1)).iso_seconds()},
            "IpAddress": {"aws:SourceIp": "192.0.2.1"},
        },
    });
    let alice = person(&world, "alice", &[then]).await;
    let one = session(&world, &alice, &node_id).await.session_id;
    // Judged without a clock: by the time and address of the start.
    assert_eq!(judged(&world, &one).await, None);
    let later = json!({
        "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
        "Condition": {"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}},
    });
    grant(&world, &user("alice"), "own", &[later]).await;
    assert!(judged(&world, &one).await.is_some());
}

#[tokio::test]
async fn a_role_session_ends_with_its_role_and_with_the_key_behind_it() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let alice = person(&world, "alice", &[allow("sts:AssumeRole", "*")]).await;
    let ops = Holder::Role("Ops".into());
    crate::sts::trusting_account(&world, "Ops").await;
    grant(&world, &ops, "start", &may_start()).await;
    let carol = crate::sts::assumed(&world, &alice, "Ops", "carol").await;
    let one = session(&world, &carol, &node_id).await.session_id;
    assert!(one.as_str().starts_with("carol-"));
    assert_eq!(judged(&world, &one).await, None);
    let Caller::User(caller) = &alice else {
        panic!()
    };
    let key = caller.access_key_id.to_string();
    let call = world.admin("UpdateAccessKey");
    for active in [false, true] {
        let switch = world
            .control
            .update_access_key(&call, Some("alice".into()), &key, active);
        switch.await.unwrap();
        if !active {
            assert!(judged(&world, &one).await.is_some());
        }
    }
    let two = session(&world, &carol, &node_id).await.session_id;
    assert_eq!(judged(&world, &two).await, None);
    let control = &world.control;
    control
        .delete_inline_policy(&call, &ops, "start")
        .await
        .unwrap();
    control.delete_role(&call, "Ops").await.unwrap();
    assert!(
        judged(&world, &two)
            .await
            .unwrap()
            .ends_with("does not exist any more.")
    );
}

#[tokio::test]
async fn with_the_setting_off_only_new_starts_and_resumes_are_refused() {
    let world = World::start_with(|settings| settings.end_disallowed_sessions = false).await;
    let node_id = node(&world, 0).await;
    let both = [
        allow("ssm:StartSession", "*"),
        allow("ssm:ResumeSession", "*"),
    ];
    let alice = person(&world, "alice", &both).await;
    let started = session(&world, &alice, &node_id).await;
    let id = started.session_id.clone();
    let open = async |token| {
        let open = DataOpen {
            token,
            client_id: "a client".into(),
            node_id: None,
            source_ip: "192.0.2.1".into(),
            user_agent: None,
            secure_transport: true,
            signed_by: None,
        };
        world
            .control
            .accept_data_channel(id.as_str(), open, START)
            .await
    };
    let grant_of_now = open(started.token_value.clone()).await.unwrap();
    let ticket = world.control.ticket(&grant_of_now, START).unwrap();
    assert!(open(ticket.clone()).await.is_ok());
    take_away(&world, "own").await;
    assert_eq!(judged(&world, &started.session_id).await, None);
    let refused = open(ticket).await.unwrap_err().to_string();
    assert!(
        refused.contains("is not authorized to perform: ssm:ResumeSession"),
        "{refused}"
    );
    let record = world.record("OpenDataChannel");
    assert_eq!(record["errorCode"], "AccessDenied");
    // An explicit deny counts against a token that is still good.
    grant(
        &world,
        &user("alice"),
        "no",
        &[deny("ssmmessages:OpenDataChannel", "*")],
    )
    .await;
    let refused = open(started.token_value.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("ssmmessages:OpenDataChannel"), "{refused}");
}

async fn resumed(world: &World, caller: &Caller, id: &SessionId) -> Secret {
    let call = call(caller.clone(), "ResumeSession", START);
    let input = ResumeSessionInput {
        session_id: id.to_string(),
        stream_base: "wss://sortie.example:7443".into(),
    };
    let resumed = world.control.resume_session(&call, input).await;
    resumed.unwrap().into_inner().token_value.unwrap()
}

async fn opened(world: &World, id: &SessionId, token: Secret) -> Result<DataGrant, String> {
    let open = DataOpen {
        token,
        client_id: "a client".into(),
        node_id: None,
        source_ip: "192.0.2.1".into(),
        user_agent: None,
        secure_transport: true,
        signed_by: None,
    };
    let opened = world
        .control
        .accept_data_channel(id.as_str(), open, START)
        .await;
    opened.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_node_that_is_deregistered_takes_along_what_it_began() {
    let world = World::start().await;
    let target = node(&world, 0).await;
    let from = node(&world, 1).await;
    let role = Holder::Role(NODE_ROLE.into());
    let both = [allow("ssm:StartSession", "*"), allow("sts:AssumeRole", "*")];
    grant(&world, &role, "more", &both).await;
    crate::sts::trusting_account(&world, "Ops").await;
    crate::sts::trusting_account(&world, "Further").await;
    let ops = Holder::Role("Ops".into());
    grant(&world, &ops, "further", &[allow("sts:AssumeRole", "*")]).await;
    let further = Holder::Role("Further".into());
    grant(&world, &further, "start", &may_start()).await;

    let itself = world.node_caller(&from);
    let ops = crate::sts::assumed(&world, &itself, "Ops", "job").await;
    let chained = crate::sts::issued(&world, &ops, "Further", "job").await;
    let look_up = async || {
        let key = chained.access_key_id.as_str();
        let token = Some(&chained.session_token);
        let known = world.control.look_up_key(key, token, START).await;
        known.map(|known| known.caller)
    };
    let caller = look_up().await.unwrap();
    let one = session(&world, &caller, &target).await.session_id;
    let two = session(&world, &itself, &target).await.session_id;
    assert_eq!(judged(&world, &one).await, None);
    assert_eq!(judged(&world, &two).await, None);

    let call = world.admin("DeregisterManagedInstance");
    let input = DeregisterManagedInstanceInput {
        instance_id: from.to_string(),
    };
    let thrown_out = world.control.deregister_managed_instance(&call, input);
    thrown_out.await.unwrap();
    assert!(matches!(
        look_up().await,
        Err(AuthenticationError::NodeGone)
    ));
    for id in [one, two] {
        let reason = judged(&world, &id).await.unwrap();
        let gone = format!("{from}, is not registered any more.");
        assert!(reason.ends_with(&gone), "{reason}");
    }
}

#[tokio::test]
async fn whoever_gets_the_name_of_another_does_not_get_their_sessions() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let own = allow(
        "ssm:ResumeSession",
        "arn:aws:ssm:*:*:session/${aws:username}-*",
    );
    let alice = person(
        &world,
        "alice",
        &[allow("ssm:StartSession", "*"), own.clone()],
    )
    .await;
    let one = session(&world, &alice, &node_id).await.session_id;
    let call = world.admin("UpdateUser");
    let input = UpdateUserInput {
        name: "alice".into(),
        new_name: Some("anna".into()),
        ..UpdateUserInput::default()
    };
    world.control.update_user(&call, input).await.unwrap();
    let other = person(&world, "alice", &[own]).await;
    let call = self::call(other, "ResumeSession", START);
    let input = ResumeSessionInput {
        session_id: one.to_string(),
        stream_base: "wss://sortie.example:7443".into(),
    };
    let refused = world.control.resume_session(&call, input).await;
    assert!(matches!(refused, Err(ResumeSessionError::Denied(_))));
    let reason = judged(&world, &one).await.unwrap();
    assert!(
        reason.ends_with("user/alice is called anna now."),
        "{reason}"
    );
}

#[tokio::test]
async fn of_two_who_resume_at_once_one_is_superseded() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let both = [
        allow("ssm:StartSession", "*"),
        allow("ssm:ResumeSession", "*"),
    ];
    let alice = person(&world, "alice", &both).await;
    let bob = person(&world, "bob", &[allow("ssm:ResumeSession", "*")]).await;
    let one = session(&world, &alice, &node_id).await.session_id;
    let (hers, his) = tokio::join!(resumed(&world, &alice, &one), resumed(&world, &bob, &one));
    let row = world.session_row(&one).await;
    assert_eq!(row.client_epoch, 3);
    let hers = opened(&world, &one, hers).await;
    let his = opened(&world, &one, his).await;
    assert_ne!(hers.is_ok(), his.is_ok());
    let is_his = row.request_context.get("resumedBy").is_some();
    assert_eq!(is_his, his.is_ok());
}

#[tokio::test]
async fn whoever_resumed_the_session_of_another_is_judged_and_recorded_as_themselves() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let both = [
        allow("ssm:StartSession", "*"),
        allow("ssm:ResumeSession", "*"),
    ];
    let alice = person(&world, "alice", &both).await;
    let bob = person(&world, "bob", &[allow("ssm:ResumeSession", "*")]).await;
    let one = session(&world, &alice, &node_id).await.session_id;
    let token = resumed(&world, &bob, &one).await;
    let his = opened(&world, &one, token).await.unwrap();
    let ticket = world.control.ticket(&his, START).unwrap();
    opened(&world, &one, ticket.clone()).await.unwrap();
    let record = world.record("ResumeSession");
    assert_eq!(record["userIdentity"]["userName"], "bob");
    assert_eq!(judged(&world, &one).await, None);

    let bobs = user("bob");
    grant(&world, &bobs, "own", &[deny("ssm:ResumeSession", "*")]).await;
    let refused = opened(&world, &one, ticket).await.unwrap_err();
    assert!(refused.contains("user/bob is not authorized"), "{refused}");
    let reason = judged(&world, &one).await.unwrap();
    assert!(
        reason.starts_with("Your session was ended because your access was taken away: ")
            && reason.contains("user/bob is not authorized to perform: ssm:ResumeSession"),
        "{reason}"
    );

    // When the owner has come back, the other does not matter any more.
    grant(&world, &bobs, "own", &[allow("ssm:ResumeSession", "*")]).await;
    let two = session(&world, &alice, &node_id).await.session_id;
    resumed(&world, &bob, &two).await;
    let hers = resumed(&world, &alice, &two).await;
    grant(&world, &bobs, "own", &[deny("ssm:ResumeSession", "*")]).await;
    assert_eq!(judged(&world, &two).await, None);
    opened(&world, &two, hers).await.unwrap();
}

#[tokio::test]
async fn changes_are_judged_as_they_happen_and_at_the_start() {
    let world = World::start().await;
    let node_id = node(&world, 0).await;
    let alice = person(&world, "alice", &may_start()).await;
    let one = session(&world, &alice, &node_id).await.session_id;
    let stop = CancellationToken::new();
    let (control, told) = (world.control.clone(), stop.clone());
    let running = tokio::spawn(async move { control.run(told).await });
    let ends = async |id: &SessionId| {
        let waiting = async {
            let mut signals = world.signals.subscribe();
            while state(&world, id).await.0 != SessionState::Terminating {
                let _ = signals.recv().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .unwrap();
    };
    take_away(&world, "own").await;
    ends(&one).await;
    stop.cancel();
    running.await.unwrap();

    // Taken away while nobody judged.
    grant(&world, &user("alice"), "own", &may_start()).await;
    let two = session(&world, &alice, &node_id).await.session_id;
    take_away(&world, "own").await;
    assert_eq!(state(&world, &two).await.0, SessionState::Connecting);
    let stop = CancellationToken::new();
    let (control, told) = (world.control.clone(), stop.clone());
    let running = tokio::spawn(async move { control.run(told).await });
    ends(&two).await;
    stop.cancel();
    running.await.unwrap();
}
