//! The trail: data events, failures, bounds, and looking events up.

use std::time::Duration;

use serde_json::{Value, json};
use sortie_control::{
    Control, LookupEventsError, LookupEventsInput, LookupEventsOutput, OpenError, RootKey, Settings,
};
use sortie_types::Timestamp;

use crate::world::{START, World, call, nobody};

async fn look_up(
    world: &World,
    input: LookupEventsInput,
    now: Timestamp,
) -> Result<LookupEventsOutput, LookupEventsError> {
    let call = world.admin_at("LookupEvents", now);
    let outcome = world.control.lookup_events(&call, input).await;
    outcome.map(sortie_control::Recorded::into_inner)
}

fn by(key: &str, value: &str) -> LookupEventsInput {
    LookupEventsInput {
        attributes: vec![(key.into(), value.into())],
        ..LookupEventsInput::default()
    }
}

#[tokio::test]
async fn node_traffic_is_recorded_only_where_asked_for() {
    for data_events in [false, true] {
        let world = World::start_with(|settings| settings.data_events = data_events).await;
        let node_id = world.enrol(0).await;
        world.connect(&node_id, START).await;
        let session = world.session(&node_id).await;
        let open = sortie_control::DataOpen {
            secure_transport: true,
            token: session.token_value.clone(),
            client_id: "c".into(),
            node_id: None,
            source_ip: "192.0.2.9".into(),
            user_agent: None,
            signed_by: None,
        };
        let id = session.session_id.as_str();
        world
            .control
            .accept_data_channel(id, open, START)
            .await
            .unwrap();
        for name in [
            "CreateControlChannel",
            "OpenControlChannel",
            "OpenDataChannel",
        ] {
            assert_eq!(world.count(name), usize::from(data_events), "{name}");
        }
        if data_events {
            let record = world.record("CreateControlChannel");
            assert_eq!(record["eventSource"], "ssm.amazonaws.com");
            assert_eq!(record["eventCategory"], "Data");
            assert_eq!(record["managementEvent"], false);
            assert_eq!(
                record["responseElements"]["tokenValue"],
                sortie_evidence::HIDDEN
            );
            assert_eq!(
                record["resources"][0]["type"],
                "AWS::SSMMessages::ControlChannel"
            );
            assert_eq!(record["userIdentity"]["type"], "AssumedRole");
        }
        // Not traffic: it changes who may act.
        assert_eq!(world.count("RegisterManagedInstance"), 1);
    }
}

#[tokio::test]
async fn failures_are_recorded_as_the_caller_saw_them() {
    let world = World::start().await;
    let mut refused = world.admin("TerminateSession");
    refused.request_parameters = json!({"sessionId": "admin-00000000000000000"});
    world
        .control
        .record_failure(&refused, "DoesNotExistException", "no such session", &[])
        .await;
    let record = world.record("TerminateSession");
    assert_eq!(record["errorCode"], "DoesNotExistException");
    assert_eq!(record["errorMessage"], "no such session");
    assert_eq!(record["responseElements"], Value::Null);
    assert_eq!(record["requestID"], refused.request_id.to_string());
    let account = world.control.account_id();
    assert_eq!(
        record["resources"][0]["ARN"],
        format!("arn:aws:ssm:local-1:{account}:session/admin-00000000000000000")
    );
}

#[tokio::test]
async fn a_flood_of_strangers_is_counted_and_not_written() {
    let world = World::start().await;
    let stranger = call(nobody(), "StartSession", START);
    for _ in 0..200 {
        world
            .control
            .record_failure(&stranger, "UnrecognizedClientException", "no", &[])
            .await;
    }
    let written = world.count("StartSession");
    assert!((1..200).contains(&written), "{written}");
    // Someone known is always written.
    let known = world.admin("StartSession");
    world
        .control
        .record_failure(&known, "TargetNotConnected", "no", &[])
        .await;
    assert_eq!(world.count("StartSession"), written + 1);
    let mut later = stranger;
    later.now = START.plus(Duration::from_mins(1));
    world
        .control
        .record_failure(&later, "UnrecognizedClientException", "no", &[])
        .await;
    let record = world.record("StartSession");
    assert_eq!(
        record["additionalEventData"]["unrecordedFailures"],
        200 - written
    );
}

#[tokio::test]
async fn oversized_parameters_do_not_enter_the_trail() {
    let world = World::start().await;
    let mut large = world.admin("StartSession");
    large.request_parameters = json!({"reason": "x".repeat(200_000)});
    world
        .control
        .record_failure(&large, "ValidationException", "too long", &[])
        .await;
    assert!(world.record("StartSession").to_string().len() < 10_000);
}

#[tokio::test]
async fn events_are_looked_up_newest_first_by_one_attribute() {
    let world = World::start().await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let session = world.session(&node_id).await.session_id;
    let refused = world.admin_at("StartSession", START.plus(Duration::from_secs(5)));
    world
        .control
        .record_failure(&refused, "TargetNotConnected", "x is not connected.", &[])
        .await;

    let now = START.plus(Duration::from_mins(1));
    let found = look_up(&world, by("EventName", "StartSession"), now)
        .await
        .unwrap();
    assert_eq!(found.events.len(), 2);
    assert!(found.events[0].record.contains("TargetNotConnected"));
    assert!(found.events[1].record.contains(session.as_str()));
    assert_eq!(found.events[0].username.as_deref(), Some("admin"));
    let count = async |key, value: &str| {
        look_up(&world, by(key, value), now)
            .await
            .unwrap()
            .events
            .len()
    };
    assert!(count("Username", "admin").await >= 3);
    assert_eq!(count("Username", "nobody").await, 0);
    assert_eq!(count("EventId", &found.events[0].event_id).await, 1);
    let key = world.administrator.access_key_id.to_string();
    assert!(count("AccessKeyId", &key).await >= 3);
    assert!(count("ReadOnly", "true").await >= 3);
    assert!(count("ResourceType", "AWS::SSM::ManagedNode").await >= 2);
    assert!(count("EventSource", "cloudtrail.amazonaws.com").await >= 5);
    let late = START.plus(Duration::from_hours(91 * 24));
    let old = look_up(&world, by("EventName", "StartSession"), late)
        .await
        .unwrap();
    assert!(old.events.is_empty());
}

#[tokio::test]
async fn pages_of_the_trail_join() {
    let world = World::start().await;
    for _ in 0..5 {
        world.activation(1).await;
    }
    let mut input = by("EventName", "CreateActivation");
    input.max_results = Some(2);
    let mut seen = Vec::new();
    loop {
        let page = look_up(&world, input.clone(), START).await.unwrap();
        seen.extend(page.events.into_iter().map(|event| event.event_id));
        input.next_token = page.next_token;
        if input.next_token.is_none() {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[tokio::test]
async fn wrong_look_ups_are_refused_by_name() {
    use LookupEventsError as Error;
    let world = World::start().await;
    let refused = async |input| look_up(&world, input, START).await.unwrap_err();
    let base = LookupEventsInput::default;
    let two = LookupEventsInput {
        attributes: vec![
            ("EventName".into(), "x".into()),
            ("Username".into(), "y".into()),
        ],
        ..base()
    };
    assert!(matches!(
        refused(two).await,
        Error::InvalidLookupAttributes(_)
    ));
    assert!(matches!(
        refused(by("Color", "red")).await,
        Error::InvalidLookupAttributes(_)
    ));
    assert!(matches!(
        refused(by("ReadOnly", "maybe")).await,
        Error::InvalidLookupAttributes(_)
    ));
    let time = LookupEventsInput {
        start_time: Some(START),
        end_time: Some(START.minus(Duration::from_secs(1))),
        ..base()
    };
    assert!(matches!(refused(time).await, Error::InvalidTimeRange));
    for max_results in [Some(0), Some(51)] {
        let input = LookupEventsInput {
            max_results,
            ..base()
        };
        assert!(matches!(refused(input).await, Error::InvalidMaxResults));
    }
    let token = LookupEventsInput {
        next_token: Some("x".into()),
        ..base()
    };
    assert!(matches!(refused(token).await, Error::InvalidNextToken));
    let category = LookupEventsInput {
        event_category: Some("weather".into()),
        ..base()
    };
    assert!(matches!(
        refused(category).await,
        Error::InvalidEventCategory
    ));
    let insight = LookupEventsInput {
        event_category: Some("insight".into()),
        ..base()
    };
    assert!(
        look_up(&world, insight, START)
            .await
            .unwrap()
            .events
            .is_empty()
    );
    let mallory = call(world.mallory().await, "LookupEvents", START);
    let outcome = world.control.lookup_events(&mallory, base()).await;
    assert!(matches!(outcome, Err(Error::Denied(_))));
}

#[tokio::test]
async fn the_constants_are_made_once_and_the_region_stays() {
    let world = World::start().await;
    let account = world.control.account_id().clone();
    let world = world.restart(START).await;
    assert_eq!(*world.control.account_id(), account);
    let other = Settings::new("elsewhere-1".parse().unwrap());
    let root_key = RootKey::generate().unwrap();
    let outcome = Control::open(
        world.state.clone(),
        world.signals.clone(),
        root_key,
        other,
        START,
    );
    assert!(matches!(outcome.await, Err(OpenError::Region { .. })));
}

#[tokio::test]
async fn what_is_past_its_retention_goes_and_nothing_else() {
    let day = Duration::from_hours(24);
    let world = World::start_with(|settings| settings.retention = Some(day * 100)).await;
    let node_id = world.enrol(0).await;
    world.connect(&node_id, START).await;
    let over = world.session(&node_id).await.session_id;
    let live = world.session(&node_id).await.session_id;
    let end = sortie_control::End {
        failed: false,
        reason: String::new(),
    };
    world.control.session_ended(&over, end, START).await;

    world.control.prune(START.plus(day * 99)).await.unwrap();
    assert!(world.control.session(&over).await.unwrap().is_some());
    let enrolments = async || {
        let input = by("EventName", "RegisterManagedInstance");
        look_up(&world, input, START.plus(day))
            .await
            .unwrap()
            .events
            .len()
    };
    assert_eq!(enrolments().await, 1);

    world.control.prune(START.plus(day * 101)).await.unwrap();
    assert!(world.control.session(&over).await.unwrap().is_none());
    assert!(
        world.control.session(&live).await.unwrap().is_some(),
        "a live session stays"
    );
    assert_eq!(enrolments().await, 0);
}
