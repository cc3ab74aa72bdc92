//! Calls of people's tools: routes, bodies, forms of answers and errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod common;

use common::{World, until};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sortie_doors::DoorOptions;
use tokio::net::TcpStream;

#[tokio::test]
async fn malformed_and_invalid_inputs_are_told_apart_and_recorded() {
    let world = World::start().await;
    let raw = |body: &str| {
        let draft = world.json("AmazonSSM.StartSession", &json!({})).body(body);
        draft.signed(&world.admin, "ssm").send()
    };
    for (body, code) in [
        ("", "ValidationException"),
        ("{}", "ValidationException"),
        ("{\"Target\":\"\"}", "ValidationException"),
        ("{\"Target\":1}", "SerializationException"),
        ("[]", "SerializationException"),
        ("{\"Target\":", "SerializationException"),
        ("\u{0}\u{ff}", "SerializationException"),
    ] {
        let answer = raw(body).await;
        assert_eq!(
            answer.error(),
            (400, code.to_owned()),
            "{body}: {}",
            answer.text()
        );
        assert_eq!(world.record_of(&answer).await["errorCode"], code);
    }
    let message = raw("{}").await.json()["message"].clone();
    assert_eq!(
        message,
        "1 validation error detected: Value null at 'target' failed to satisfy constraint: \
         Member must not be null"
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_413_however_it_is_sent() {
    let options = DoorOptions {
        body_limit: 1000,
        ..DoorOptions::default()
    };
    let world = World::with(options).await;
    let large = json!({ "Target": "x".repeat(2000) });
    let draft = world
        .json("AmazonSSM.StartSession", &large)
        .signed(&world.admin, "ssm");
    for draft in [draft.clone(), draft.chunked()] {
        let answer = draft.send().await;
        assert_eq!(answer.error(), (413, "RequestEntityTooLarge".to_owned()));
        assert_eq!(
            world.record_of(&answer).await["errorCode"],
            "RequestEntityTooLarge"
        );
    }
    let small = world.json("AmazonSSM.DescribeSessions", &json!({ "State": "Active" }));
    small
        .signed(&world.admin, "ssm")
        .chunked()
        .send()
        .await
        .ok();
}

#[tokio::test]
async fn a_far_too_large_body_does_not_get_in() {
    let world = World::with(DoorOptions {
        body_limit: 1000,
        ..DoorOptions::default()
    })
    .await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let draft = world.json("AmazonSSM.StartSession", &json!({}));
    let body = Full::new(bytes::Bytes::from(vec![b' '; 1 << 26]));
    // An early answer or a cut connection: both are right, waiting for the end is not.
    if let Ok(answer) = sender.send_request(draft.build(body)).await {
        assert_eq!(answer.status(), 413);
    }
    drop(sender);
    let _ = connection.await;
}

#[tokio::test]
async fn unknown_operations_and_services_are_told_so_in_their_own_form() {
    let world = World::start().await;
    let admin = &world.admin;
    for target in ["AmazonSSM.PutComplianceItems", "AmazonSSM.", "Nobody.Knows"] {
        let answer = world
            .json(target, &json!({}))
            .signed(admin, "ssm")
            .send()
            .await;
        assert_eq!(
            answer.error(),
            (400, "UnknownOperationException".to_owned()),
            "{target}"
        );
    }
    let kms = world
        .json("TrentService.Decrypt", &json!({}))
        .signed(admin, "kms")
        .send()
        .await;
    assert_eq!(kms.error(), (400, "UnknownOperationException".to_owned()));
    let form = |body: &str| {
        let draft = world
            .request("POST", "/")
            .header("content-type", "application/x-www-form-urlencoded");
        draft.body(body)
    };
    let iam = form("Action=ListSAMLProviders&Version=2010-05-08")
        .signed(admin, "iam")
        .send()
        .await;
    assert_eq!(
        iam.error(),
        (400, "InvalidAction".to_owned()),
        "{}",
        iam.text()
    );
    let s3 = world
        .request("GET", "/bucket/key")
        .signed(admin, "s3")
        .send()
        .await;
    assert_eq!(
        s3.error(),
        (501, "NotImplemented".to_owned()),
        "{}",
        s3.text()
    );
    assert!(s3.headers.contains_key("x-amz-request-id"));
}

#[tokio::test]
async fn a_target_of_another_service_than_the_scope_is_an_invalid_signature() {
    let world = World::start().await;
    let draft = world.json(
        "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents",
        &json!({}),
    );
    let answer = draft.signed(&world.admin, "ssm").send().await;
    assert_eq!(
        answer.error(),
        (400, "InvalidSignatureException".to_owned())
    );
    let form = world
        .request("POST", "/")
        .header("content-type", "application/x-www-form-urlencoded");
    let form = form.body("Action=GetCallerIdentity&Version=2011-06-15");
    let answer = form.signed(&world.admin, "ssm").send().await;
    assert_eq!(answer.error(), (403, "SignatureDoesNotMatch".to_owned()));
}

#[tokio::test]
async fn everything_has_a_request_id_and_what_is_not_there_is_404() {
    let world = World::start().await;
    for path in [
        "/",
        "/console/",
        "/auth/login",
        "/v1/data-channel/",
        "/v1/other",
    ] {
        let answer = world.request("GET", path).send().await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.request_id().len(), 36);
    }
    let health = world.request("GET", "/health").send().await;
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    world.doors.stop();
    let health = world.request("GET", "/health").send().await;
    assert_eq!(health.status, 503);
}

#[tokio::test]
async fn a_calls_record_shows_who_what_and_from_where_without_secrets() {
    let world = World::start().await;
    let body = json!({ "IamRole": "SortieNode", "DefaultInstanceName": "web-1", "Tags": [{ "Key": "Env", "Value": "x" }] });
    let draft = world
        .json("AmazonSSM.CreateActivation", &body)
        .header("user-agent", "test/1");
    let answer = draft.signed(&world.admin, "ssm").send().await;
    let code = answer.ok()["ActivationCode"].as_str().unwrap().to_owned();
    let record = world.record_of(&answer).await;
    assert_eq!(record["eventName"], "CreateActivation");
    assert_eq!(record["eventSource"], "ssm.amazonaws.com");
    assert_eq!(record["sourceIPAddress"], "127.0.0.1");
    assert_eq!(record["userAgent"], "test/1");
    assert_eq!(
        record["userIdentity"]["accessKeyId"],
        world.admin.access_key_id.as_str()
    );
    let expected = json!({ "iamRole": "SortieNode", "defaultInstanceName": "web-1", "tags": [{ "key": "Env", "value": "x" }] });
    assert_eq!(record["requestParameters"], expected);
    assert!(
        !record.to_string().contains(&code),
        "the code is in the record"
    );

    let wanted = json!({ "LookupAttributes": [{ "AttributeKey": "EventName", "AttributeValue": "CreateActivation" }] });
    let target = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents";
    let found = world
        .json(target, &wanted)
        .signed(&world.admin, "cloudtrail")
        .send()
        .await
        .ok();
    assert_eq!(found["Events"][0]["Username"], "admin");
    let text = found["Events"][0]["CloudTrailEvent"].as_str().unwrap();
    assert!(text.contains(&answer.request_id()));
}

#[tokio::test]
async fn refused_and_unknown_targets_read_as_on_aws() {
    let world = World::start().await;
    let answer = world
        .ssm("StartSession", json!({ "Target": "mi-0123456789abcdef0" }))
        .await;
    assert_eq!(answer.error(), (400, "TargetNotConnected".to_owned()));
    assert_eq!(
        answer.json()["message"],
        "mi-0123456789abcdef0 is not connected."
    );
    assert_eq!(
        world.record_of(&answer).await["requestParameters"]["target"],
        "mi-0123456789abcdef0"
    );
    let status = world
        .ssm("GetConnectionStatus", json!({ "Target": "nobody" }))
        .await
        .ok();
    assert_eq!(
        status,
        json!({ "Target": "nobody", "Status": "notconnected" })
    );
    let unknown = world
        .ssm(
            "ResumeSession",
            json!({ "SessionId": "admin-0123456789abcdef0" }),
        )
        .await;
    assert_eq!(unknown.error(), (400, "DoesNotExistException".to_owned()));
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_its_record_all_the_same() {
    let world = World::start().await;
    let draft = world.json(
        "AmazonSSM.CreateActivation",
        &json!({ "IamRole": "SortieNode" }),
    );
    let draft = draft.signed(&world.admin, "ssm");
    let stream = TcpStream::connect(world.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let body = json!({ "IamRole": "SortieNode" }).to_string();
    let answer = sender.send_request(draft.build(Full::new(bytes::Bytes::from(body))));
    // Sent, and gone before anything can come back.
    let mut answer = std::pin::pin!(answer);
    let _ = futures_util::poll!(answer.as_mut());
    until("the request", || async {
        (!world.connections.is_empty()).then_some(())
    })
    .await;
    connection.abort();
    let outcome = until("the record of the call, or none of the request", || async {
        let records = world.records().await;
        let found = records
            .iter()
            .any(|record| record["eventName"] == "CreateActivation");
        (found || world.connections.is_empty()).then_some(())
    });
    outcome.await;
    world.doors.stop();
    world.doors.drained().await;
    // Whatever part of the request came through: a change and its record stand or fall together.
    let made = world.state.activations(None, 10).await.unwrap().len();
    let recorded = world
        .records()
        .await
        .iter()
        .filter(|record| record["eventName"] == "CreateActivation")
        .count();
    assert_eq!(made, recorded);
}
