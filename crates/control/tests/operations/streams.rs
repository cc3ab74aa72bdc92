//! Streams whose destination is chosen later: judged like the start of their session, with the
//! destination in the condition keys, and recorded under whoever is at the client's end.

use std::time::Duration;

use serde_json::{Value, json};
use sortie_control::{
    AddTagsToResourceInput, Caller, Session, StreamDestination, StreamEnd, StreamJudge,
    StreamRecord, StreamRecords, StreamSummary, StreamVerdict, UpdateUserInput,
};
use sortie_types::{NodeId, Timestamp};

use crate::{
    access::{allow, deny, grant, may_start, node, person, user},
    world::{START, World, call, start},
};

fn to(host: &str, port: u16) -> StreamDestination {
    StreamDestination::new(Some(host), Some(port), None).unwrap()
}

/// Both that starting needs, where all of these conditions hold.
fn allow_if(conditions: Value) -> [Value; 1] {
    let mut statement = allow("ssm:StartSession", "*");
    statement["Condition"] = conditions;
    [statement]
}

async fn started(world: &World, caller: &Caller, node_id: &NodeId) -> Session {
    let call = call(caller.clone(), "StartSession", START);
    let started = world.control.start_session(&call, start(node_id.as_str()));
    let id = started.await.unwrap().into_inner().session_id;
    world.session_row(&id).await
}

/// A session of alice, and what judges its streams once these are her policies.
async fn judged_by(world: &World, statements: &[Value]) -> (Session, StreamJudge) {
    let node_id = node(world, 0).await;
    let alice = person(world, "alice", &may_start()).await;
    let session = started(world, &alice, &node_id).await;
    grant(world, &user("alice"), "own", statements).await;
    (session.clone(), world.control.stream_judge(session))
}

async fn refusal(judge: &StreamJudge, destination: &StreamDestination) -> Option<String> {
    match judge.judge(destination, START).await.unwrap() {
        StreamVerdict::Allowed => None,
        StreamVerdict::Refused(why) => Some(why),
    }
}

async fn is_allowed(judge: &StreamJudge, destination: &StreamDestination) -> bool {
    refusal(judge, destination).await.is_none()
}

#[tokio::test]
async fn host_and_port_decide() {
    let world = World::start().await;
    let policy = allow_if(json!({
        "StringEquals": {"sortie:DestinationHost": "db.internal"},
        "NumericEquals": {"sortie:DestinationPort": "5432"},
    }));
    let (_, judge) = judged_by(&world, &policy).await;
    assert!(is_allowed(&judge, &to("db.internal", 5432)).await);
    assert!(is_allowed(&judge, &to("DB.internal.", 5432)).await);
    assert!(!is_allowed(&judge, &to("db.internal", 22)).await);
    let refusal = refusal(&judge, &to("web.internal", 5432)).await.unwrap();
    assert!(
        refusal.starts_with("web.internal:5432: User: arn:aws:iam::")
            && refusal.contains("/alice is not authorized to perform: ssm:StartSession on"),
        "{refusal}"
    );
    let socket = StreamDestination::new(None, None, Some("/run/db.sock")).unwrap();
    assert!(!is_allowed(&judge, &socket).await);
}

#[tokio::test]
async fn a_socket_is_a_key_of_its_own() {
    let world = World::start().await;
    let policy = allow_if(json!({"StringLike": {"sortie:DestinationSocket": "/run/app/*"}}));
    let (_, judge) = judged_by(&world, &policy).await;
    let socket = |path| StreamDestination::new(None, None, Some(path)).unwrap();
    assert!(is_allowed(&judge, &socket("/run/app/a.sock")).await);
    assert!(!is_allowed(&judge, &socket("/run/docker.sock")).await);
    assert!(!is_allowed(&judge, &to("localhost", 1)).await);
}

#[tokio::test]
async fn a_deny_of_one_destination_is_honoured_in_every_spelling() {
    let world = World::start().await;
    let mut denied = deny("ssm:StartSession", "*");
    denied["Condition"] = json!({"StringEquals": {"sortie:DestinationHost": "169.254.169.254"}});
    let [allowed] = may_start();
    let (_, judge) = judged_by(&world, &[allowed, denied]).await;
    assert!(is_allowed(&judge, &to("db", 80)).await);
    assert!(!is_allowed(&judge, &to("169.254.169.254", 80)).await);
    assert!(!is_allowed(&judge, &to("::ffff:169.254.169.254", 80)).await);
}

#[tokio::test]
async fn a_change_of_policies_counts_for_the_next_stream() {
    let world = World::start().await;
    let (_, judge) = judged_by(&world, &may_start()).await;
    let destination = to("db", 80);
    assert!(is_allowed(&judge, &destination).await);
    grant(&world, &user("alice"), "own", &[deny("*", "*")]).await;
    assert!(!is_allowed(&judge, &destination).await);
    grant(&world, &user("alice"), "own", &may_start()).await;
    assert!(is_allowed(&judge, &destination).await);
}

#[tokio::test]
async fn the_tags_of_the_node_are_those_of_now_at_the_latest_after_a_moment() {
    let world = World::start().await;
    let policy = allow_if(json!({"StringEquals": {"ssm:resourceTag/Env": "test"}}));
    let document = allow("ssm:StartSession", "arn:aws:ssm:*:*:document/*");
    let (session, judge) = judged_by(&world, &[policy[0].clone(), document]).await;
    let destination = to("db", 80);
    assert!(!is_allowed(&judge, &destination).await);
    let input = AddTagsToResourceInput {
        resource_type: "ManagedInstance".into(),
        resource_id: session.target.to_string(),
        tags: vec![("Env".into(), "test".into())],
    };
    let call = world.admin("AddTagsToResource");
    world
        .control
        .add_tags_to_resource(&call, input)
        .await
        .unwrap();
    let later = judge
        .judge(&destination, START.plus(Duration::from_secs(10)))
        .await;
    assert_eq!(later.unwrap(), StreamVerdict::Allowed);
    judge.forget();
    assert!(is_allowed(&judge, &destination).await);
}

#[tokio::test]
async fn who_is_gone_opens_nothing() {
    let world = World::start().await;
    let (_, judge) = judged_by(&world, &may_start()).await;
    assert!(is_allowed(&judge, &to("db", 80)).await);
    let call = world.admin("UpdateUser");
    let input = UpdateUserInput {
        name: "alice".into(),
        new_name: Some("eve".into()),
        ..UpdateUserInput::default()
    };
    world.control.update_user(&call, input).await.unwrap();
    let refusal = refusal(&judge, &to("db", 80)).await.unwrap();
    assert!(refusal.contains("is called eve now"), "{refusal}");
}

#[tokio::test]
async fn what_is_open_goes_on_where_the_operator_says_so() {
    for ends in [true, false] {
        let world = World::start_with(|settings| settings.end_disallowed_sessions = ends).await;
        let (_, judge) = judged_by(&world, &[deny("*", "*")]).await;
        let destination = to("db", 80);
        let again = judge.judge_again(&destination, START).await.unwrap();
        assert_eq!(again != StreamVerdict::Allowed, ends);
        assert!(!is_allowed(&judge, &destination).await, "new ones are not");
    }
}

fn record(end: StreamEnd) -> StreamRecord {
    StreamRecord {
        destination: Ok(to("db.internal", 5432)),
        began: START.plus(Duration::from_secs(5)),
        ended: START.plus(Duration::from_secs(65)),
        bytes_to_node: 100,
        bytes_to_client: 2000,
        end,
    }
}

async fn recorded(world: &World, session: &Session, records: StreamRecords) {
    let now: Timestamp = START.plus(Duration::from_secs(70));
    let written = world.control.record_streams(session, &records, now).await;
    written.unwrap();
}

#[tokio::test]
async fn a_record_says_who_where_how_much_and_when() {
    let world = World::start().await;
    let (session, _) = judged_by(&world, &may_start()).await;
    let records = StreamRecords {
        streams: vec![
            record(StreamEnd::Closed),
            record(StreamEnd::Refused("not allowed".into())),
        ],
        summary: None,
    };
    recorded(&world, &session, records).await;
    let ended = world.record("StreamEnded");
    assert_eq!(ended["eventType"], "AwsServiceEvent");
    assert_eq!(ended["userIdentity"]["userName"], "alice");
    assert_eq!(ended["sourceIPAddress"], "192.0.2.1");
    assert_eq!(
        ended["eventTime"],
        START.plus(Duration::from_secs(65)).iso_seconds()
    );
    assert_eq!(ended["errorCode"], Value::Null);
    let details = &ended["serviceEventDetails"];
    assert_eq!(details["sessionId"], session.id.as_str());
    assert_eq!(details["target"], session.target.as_str());
    assert_eq!(
        details["destination"],
        json!({"host": "db.internal", "port": 5432})
    );
    assert_eq!(details["bytesToNode"], 100);
    assert_eq!(details["bytesToClient"], 2000);
    assert_eq!(
        details["startDate"],
        START.plus(Duration::from_secs(5)).iso_seconds()
    );
    assert_eq!(details["outcome"], "closed");
    let refused = world.record("StreamRefused");
    assert_eq!(refused["errorCode"], "AccessDenied");
    assert_eq!(refused["errorMessage"], "not allowed");
}

#[tokio::test]
async fn a_summary_counts_what_has_no_record() {
    let world = World::start().await;
    let (session, _) = judged_by(&world, &may_start()).await;
    let summary = StreamSummary {
        streams: 7,
        refused: 2,
        bytes_to_node: 1,
        bytes_to_client: 2,
        destinations: vec![("db:80".into(), 7)],
    };
    let records = StreamRecords {
        streams: Vec::new(),
        summary: Some(summary),
    };
    recorded(&world, &session, records).await;
    let details = &world.record("StreamsSummarized")["serviceEventDetails"];
    assert_eq!(details["streams"], 7);
    assert_eq!(details["refused"], 2);
    assert_eq!(
        details["destinations"],
        json!([{"destination": "db:80", "streams": 7}])
    );
}

#[tokio::test]
async fn records_that_are_not_written_are_said_to_be() {
    let world = World::start().await;
    let (session, _) = judged_by(&world, &may_start()).await;
    world.fail_commits(true);
    let records = StreamRecords {
        streams: vec![record(StreamEnd::Closed)],
        summary: None,
    };
    let written = world
        .control
        .record_streams(&session, &records, START)
        .await;
    assert!(written.is_err());
    world.fail_commits(false);
    assert_eq!(world.count("StreamEnded"), 0);
}
