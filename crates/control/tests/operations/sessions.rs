//! The session operations of people.

use std::time::Duration;

use serde_json::Value;
use sortie_control::{
    Call, DescribeSessionsError, DescribeSessionsInput, End, GetConnectionStatusInput,
    ResumeSessionError, ResumeSessionInput, SessionFilter, SessionList, StartSessionError,
    TerminateSessionError, TerminateSessionInput,
};
use sortie_ports::{Session, SessionState, Signal, Signals};
use sortie_types::{NodeId, Timestamp};

use crate::{
    access::{allow, person},
    world::{START, World, call, start},
};

fn resume(session_id: &str) -> ResumeSessionInput {
    ResumeSessionInput {
        session_id: session_id.into(),
        stream_base: "wss://sortie.example:7443".into(),
    }
}

fn terminate(session_id: &str) -> TerminateSessionInput {
    TerminateSessionInput {
        session_id: session_id.into(),
    }
}

fn end(reason: &str) -> End {
    End {
        failed: false,
        reason: reason.into(),
    }
}

#[tokio::test]
async fn a_session_starts_on_a_connected_node_and_is_audited() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let mut signals = world.signals.subscribe();
    let call = world.admin("StartSession");
    let answer = world
        .control
        .start_session(&call, start(node_id.as_str()))
        .await;
    let answer = answer.unwrap().into_inner();

    assert!(answer.session_id.as_str().starts_with("admin-"));
    assert!(answer.token_value.expose().starts_with("SRT1."));
    assert!(answer.token_value.expose().len() <= 300);
    let url = format!(
        "wss://sortie.example:7443/v1/data-channel/{}?role=publish_subscribe",
        answer.session_id
    );
    assert_eq!(answer.stream_url, url);
    assert_eq!(
        signals.recv().await,
        Ok(Signal::Session(answer.session_id.clone()))
    );

    let row = world.session_row(&answer.session_id).await;
    assert_eq!(row.state, SessionState::Connecting);
    assert_eq!(row.target, node_id);
    assert_eq!(row.idle_timeout_seconds, 1200);
    assert_eq!(row.document_name, "SSM-SessionManagerRunShell");
    assert_eq!(row.document_content["sessionType"], "Standard_Stream");

    let record = world.record("StartSession");
    assert_eq!(record["requestID"], call.request_id.to_string());
    assert_eq!(record["userIdentity"]["userName"], "admin");
    assert_eq!(
        record["responseElements"]["sessionId"],
        answer.session_id.as_str()
    );
    assert_eq!(
        record["responseElements"]["tokenValue"],
        sortie_evidence::HIDDEN
    );
    assert_eq!(record["responseElements"]["streamUrl"], url);
    let account = world.control.account_id();
    assert_eq!(
        record["resources"][0]["ARN"],
        format!("arn:aws:ssm:local-1:{account}:managed-instance/{node_id}")
    );
    assert!(!record.to_string().contains(answer.token_value.expose()));
}

#[tokio::test]
async fn who_may_not_start_a_session_learns_nothing() {
    let world = World::start().await;
    let mallory = call(world.mallory().await, "StartSession", START);
    for target in [
        "mi-00000000000000000",
        "i-0123456789abcdef0",
        "ecs:a_b_c",
        "?",
    ] {
        let mut input = start(target);
        input.document_name = Some("No-Such".into());
        let error = world
            .control
            .start_session(&mallory, input)
            .await
            .unwrap_err();
        let StartSessionError::Denied(denied) = error else {
            panic!("{error}")
        };
        let account = world.control.account_id();
        assert!(denied.message.starts_with(&format!(
            "User: arn:aws:iam::{account}:user/mallory is not authorized to perform: \
             ssm:StartSession on resource: arn:aws:"
        )));
        assert!(
            denied
                .message
                .ends_with("because no identity-based policy allows the ssm:StartSession action")
        );
    }
    let node_id = world.enrol(0).await;
    let as_node = call(world.node_caller(&node_id), "StartSession", START);
    let error = world
        .control
        .start_session(&as_node, start(node_id.as_str()))
        .await;
    assert!(matches!(error, Err(StartSessionError::Denied(_))));
    assert_eq!(world.count("StartSession"), 0);
    assert!(world.control.live_sessions().await.unwrap().is_empty());
}

#[tokio::test]
async fn documents_and_parameters_are_judged_before_the_connection() {
    let world = World::start().await;
    let call = world.admin("StartSession");
    let mut input = start("mi-00000000000000000");
    input.document_name = Some("No-Such".into());
    let error = world.control.start_session(&call, input).await.unwrap_err();
    assert!(matches!(error, StartSessionError::InvalidDocument { .. }));
    assert!(error.to_string().contains("No-Such does not exist"));

    let mut input = start("mi-00000000000000000");
    input
        .parameters
        .insert("portNumber".into(), vec!["80".into()]);
    let error = world.control.start_session(&call, input).await;
    assert!(matches!(
        error,
        Err(StartSessionError::InvalidParameters(_))
    ));

    let offline = world.enrol(0).await;
    for target in [
        "mi-00000000000000000",
        "i-0123456789abcdef0",
        "ecs:a_b_c",
        offline.as_str(),
    ] {
        let error = world
            .control
            .start_session(&call, start(target))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), format!("{target} is not connected."));
    }
    assert!(world.control.live_sessions().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_default_document_may_be_named_by_its_arn() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let account = world.control.account_id();
    let mut input = start(node_id.as_str());
    let arn = format!("arn:aws:ssm:local-1:{account}:document/SSM-SessionManagerRunShell");
    input.document_name = Some(arn);
    let call = world.admin("StartSession");
    let answer = world
        .control
        .start_session(&call, input)
        .await
        .unwrap()
        .into_inner();
    let row = world.session_row(&answer.session_id).await;
    assert_eq!(row.document_name, "SSM-SessionManagerRunShell");
}

#[tokio::test]
async fn an_arn_of_no_document_here_is_judged_as_it_was_named() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let account = world.control.account_id();
    let started = async |caller: Call, document: &str| {
        let mut input = start(node_id.as_str());
        input.document_name = Some(document.to_owned());
        world.control.start_session(&caller, input).await
    };
    let own = format!("arn:aws:ssm:local-1:{account}:");
    let alice = [
        allow("ssm:StartSession", &format!("{own}managed-instance/*")),
        allow("ssm:StartSession", &format!("{own}document/SSM-*")),
    ];
    let alice = person(&world, "alice", &alice).await;
    let by_alice = || call(alice.clone(), "StartSession", START);
    for foreign in [
        "arn:aws:ssm:local-1:999988887777:document/SSM-SessionManagerRunShell".to_owned(),
        format!("arn:aws:ssm:local-2:{account}:document/SSM-SessionManagerRunShell"),
        "arn:aws:ssm:local-1::document/SSM-SessionManagerRunShell".to_owned(),
        format!("{own}document/AWS-StartSSHSession"),
    ] {
        let unknown = started(world.admin("StartSession"), &foreign).await;
        assert!(
            matches!(unknown, Err(StartSessionError::InvalidDocument { .. })),
            "{foreign}"
        );
        let refused = started(by_alice(), &foreign).await;
        assert!(
            matches!(refused, Err(StartSessionError::Denied(_))),
            "{foreign}"
        );
    }
    let named = format!("{own}document/SSM-SessionManagerRunShell");
    started(by_alice(), &named).await.unwrap();
}

#[tokio::test]
async fn resuming_supersedes_and_answers_without_token_once_over() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await;
    let id = session.session_id.as_str();
    let call = world.admin("ResumeSession");

    let answer = world
        .control
        .resume_session(&call, resume(id))
        .await
        .unwrap()
        .into_inner();
    assert_ne!(
        answer.token_value.unwrap().expose(),
        session.token_value.expose()
    );
    assert_eq!(answer.stream_url.unwrap(), session.stream_url);
    assert_eq!(world.session_row(&session.session_id).await.client_epoch, 2);
    let record = world.record("ResumeSession");
    assert_eq!(
        record["responseElements"]["tokenValue"],
        sortie_evidence::HIDDEN
    );

    world
        .control
        .session_ended(&session.session_id, end("done"), START)
        .await;
    let answer = world
        .control
        .resume_session(&call, resume(id))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.token_value.is_none() && answer.stream_url.is_none());
    assert_eq!(world.session_row(&session.session_id).await.client_epoch, 2);
    assert_eq!(world.count("ResumeSession"), 2);

    for unknown in ["admin-00000000000000000", "../../etc/passwd", ""] {
        let error = world.control.resume_session(&call, resume(unknown)).await;
        assert!(
            matches!(error, Err(ResumeSessionError::DoesNotExist { .. })),
            "{unknown}"
        );
    }
}

#[tokio::test]
async fn terminating_writes_the_reason_and_is_idempotent() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await;
    let id = session.session_id.as_str();
    let mut signals = world.signals.subscribe();
    let call = world.admin("TerminateSession");
    let answer = world.control.terminate_session(&call, terminate(id)).await;
    assert_eq!(answer.unwrap().into_inner().session_id, id);
    assert_eq!(
        signals.recv().await,
        Ok(Signal::Session(session.session_id.clone()))
    );

    let row = world.session_row(&session.session_id).await;
    assert_eq!(row.state, SessionState::Terminating);
    let account = world.control.account_id();
    let reason = format!("Your session was ended by admin (arn:aws:iam::{account}:user/admin).");
    assert_eq!(row.end_reason.as_deref(), Some(reason.as_str()));

    // The gateway's own reason does not replace the one that was told.
    world
        .control
        .session_ended(&session.session_id, end("channel closed"), START)
        .await;
    let row = world.session_row(&session.session_id).await;
    assert_eq!(
        (row.state, row.end_reason),
        (SessionState::Terminated, Some(reason))
    );

    world
        .control
        .terminate_session(&call, terminate(id))
        .await
        .unwrap();
    assert_eq!(world.count("TerminateSession"), 2);
    let error = world
        .control
        .terminate_session(&call, terminate("admin-00000000000000000"))
        .await;
    assert!(matches!(
        error,
        Err(TerminateSessionError::DoesNotExist { .. })
    ));
    let error = crate::world::call(world.mallory().await, "TerminateSession", START);
    let error = world.control.terminate_session(&error, terminate(id)).await;
    assert!(matches!(error, Err(TerminateSessionError::Denied(_))));
}

async fn list(world: &World, state: SessionList, filters: &[(&str, &str)]) -> Vec<Session> {
    let now = START.plus(Duration::from_mins(1));
    try_list(world, state, filters, now).await.unwrap()
}

async fn try_list(
    world: &World,
    state: SessionList,
    filters: &[(&str, &str)],
    now: Timestamp,
) -> Result<Vec<Session>, DescribeSessionsError> {
    let filter = |(key, value): &(&str, &str)| SessionFilter {
        key: (*key).into(),
        value: (*value).into(),
    };
    let input = DescribeSessionsInput {
        state,
        filters: filters.iter().map(filter).collect(),
        max_results: None,
        next_token: None,
    };
    let call = world.admin_at("DescribeSessions", now);
    let outcome = world.control.describe_sessions(&call, input).await;
    outcome.map(|recorded| recorded.into_inner().sessions)
}

#[tokio::test]
async fn listings_filter_and_divide_by_state() {
    let world = World::start().await;
    let (one, two) = (world.enrol(0).await, world.enrol(1).await);
    world.connect(&one, START).await;
    world.connect(&two, START).await;
    let first = world.session(&one).await.session_id;
    let second = world.session(&two).await.session_id;
    let third = world.session(&two).await.session_id;
    world
        .control
        .session_ended(&third, end("done"), START)
        .await;
    let failed = End {
        failed: true,
        reason: "no shell".into(),
    };
    world.control.session_ended(&second, failed, START).await;

    use SessionList::{Active, History};
    let ids = |list: Vec<Session>| list.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(
        ids(list(&world, Active, &[]).await),
        std::slice::from_ref(&first)
    );
    let history = list(&world, History, &[]).await;
    assert_eq!(history.len(), 2);
    assert!(
        history
            .iter()
            .all(|row| row.ended == Some(START) && row.state.is_over())
    );
    assert_eq!(
        ids(list(&world, History, &[("Status", "Failed")]).await),
        std::slice::from_ref(&second)
    );
    assert_eq!(
        ids(list(&world, History, &[("SessionId", third.as_str())]).await),
        std::slice::from_ref(&third)
    );
    assert_eq!(
        list(&world, History, &[("Target", one.as_str())])
            .await
            .len(),
        0
    );
    let owner = world.session_row(&first).await.owner;
    assert_eq!(
        list(&world, Active, &[("Owner", owner.as_str())])
            .await
            .len(),
        1
    );
    assert_eq!(list(&world, Active, &[("Owner", "nobody")]).await.len(), 0);
    assert_eq!(
        list(&world, Active, &[("Status", "Terminated")])
            .await
            .len(),
        0
    );
    assert_eq!(
        list(&world, Active, &[("AccessType", "JustInTime")])
            .await
            .len(),
        0
    );
    let both = [("Target", one.as_str()), ("Target", two.as_str())];
    assert_eq!(list(&world, Active, &both).await.len(), 0);
    let before = START.plus(Duration::from_secs(1)).iso_seconds();
    assert_eq!(
        list(&world, Active, &[("InvokedBefore", &before)])
            .await
            .len(),
        1
    );
    assert_eq!(
        list(&world, Active, &[("InvokedAfter", &before)])
            .await
            .len(),
        0
    );

    let late = START.plus(Duration::from_hours(31 * 24));
    assert_eq!(try_list(&world, History, &[], late).await.unwrap().len(), 0);
    assert_eq!(try_list(&world, Active, &[], late).await.unwrap().len(), 1);
}

#[tokio::test]
async fn wrong_filters_are_refused_by_name() {
    let world = World::start().await;
    let refused = async |key, value| {
        try_list(&world, SessionList::Active, &[(key, value)], START)
            .await
            .unwrap_err()
    };
    assert!(matches!(
        refused("Color", "red").await,
        DescribeSessionsError::InvalidFilterKey { .. }
    ));
    for (key, value) in [
        ("Status", "Asleep"),
        ("InvokedAfter", "yesterday"),
        ("AccessType", "x"),
    ] {
        let error = refused(key, value).await;
        assert!(
            matches!(error, DescribeSessionsError::InvalidFilterValue { .. }),
            "{key}"
        );
    }
}

#[tokio::test]
async fn pages_join_without_gap_and_refuse_garbage() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let mut started = Vec::new();
    for _ in 0..5 {
        started.push(world.session(&node_id).await.session_id);
    }
    let page = async |next_token: Option<String>| {
        let input = DescribeSessionsInput {
            state: SessionList::Active,
            filters: Vec::new(),
            max_results: Some(2),
            next_token,
        };
        let call = world.admin("DescribeSessions");
        world.control.describe_sessions(&call, input).await
    };
    let mut seen = Vec::new();
    let mut token = None;
    loop {
        let answer = page(token).await.unwrap().into_inner();
        seen.extend(answer.sessions.into_iter().map(|row| row.id));
        token = answer.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    seen.sort();
    started.sort();
    assert_eq!(seen, started);
    let error = page(Some("garbage".into())).await;
    assert!(matches!(
        error,
        Err(DescribeSessionsError::InvalidNextToken)
    ));
}

#[tokio::test]
async fn connection_status_never_fails_for_unknown_targets() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    let node = world.connect(&node_id, START).await;
    let connected = async |target: &str| {
        let input = GetConnectionStatusInput {
            target: target.into(),
        };
        let call = world.admin("GetConnectionStatus");
        let answer = world.control.get_connection_status(&call, input).await;
        answer.unwrap().into_inner().connected
    };
    assert!(connected(node_id.as_str()).await);
    for target in [
        "mi-00000000000000000",
        "i-0123456789abcdef0",
        "ecs:a_b_c",
        "?",
    ] {
        assert!(!connected(target).await, "{target}");
    }
    world
        .control
        .node_lost(&node, START, "the channel closed")
        .await;
    assert!(!connected(node_id.as_str()).await);
    let record = world.record("GetConnectionStatus");
    assert_eq!(record["readOnly"], true);
    assert_eq!(record["responseElements"], Value::Null);
}

#[tokio::test]
async fn nothing_is_half_changed_when_a_commit_fails() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await;
    let before = world.session_row(&session.session_id).await;
    let records = world.records().len();
    world.fail_commits(true);
    let id = session.session_id.as_str();

    let call = world.admin("StartSession");
    let error = world
        .control
        .start_session(&call, start(node_id.as_str()))
        .await;
    assert!(matches!(error, Err(StartSessionError::Internal(_))));
    let call = world.admin("TerminateSession");
    let error = world.control.terminate_session(&call, terminate(id)).await;
    assert!(matches!(error, Err(TerminateSessionError::Internal(_))));
    let call = world.admin("ResumeSession");
    let error = world.control.resume_session(&call, resume(id)).await;
    assert!(matches!(error, Err(ResumeSessionError::Internal(_))));

    world.fail_commits(false);
    assert_eq!(world.session_row(&session.session_id).await, before);
    assert_eq!(world.control.live_sessions().await.unwrap().len(), 1);
    assert_eq!(world.records().len(), records);
}

#[tokio::test]
async fn a_node_that_was_thrown_out_takes_its_sessions_along() {
    let world = World::start().await;
    let node_id: NodeId = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await.session_id;
    let mut signals = world.signals.subscribe();
    let call = world.admin("DeregisterManagedInstance");
    let input = sortie_control::DeregisterManagedInstanceInput {
        instance_id: node_id.to_string(),
    };
    world
        .control
        .deregister_managed_instance(&call, input)
        .await
        .unwrap();
    assert_eq!(signals.recv().await, Ok(Signal::Session(session.clone())));
    assert_eq!(signals.recv().await, Ok(Signal::Node(node_id.clone())));
    let row = world.session_row(&session).await;
    assert_eq!(row.state, SessionState::Terminating);
    assert!(
        row.end_reason
            .unwrap()
            .starts_with("The node was deregistered by arn:")
    );
    let call = world.admin("StartSession");
    let error = world
        .control
        .start_session(&call, start(node_id.as_str()))
        .await;
    assert!(matches!(error, Err(StartSessionError::NotConnected { .. })));
    // Its sessions stay in the lists with their target.
    assert_eq!(
        list(&world, SessionList::Active, &[("Target", node_id.as_str())])
            .await
            .len(),
        1
    );
}
