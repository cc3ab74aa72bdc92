//! Who may come in, what the others are told, and that each of them leaves its record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod common;

use common::{Draft, World, now};
use serde_json::{Value, json};
use sortie_control::Access;
use sortie_doors::{OperationEntry, operations};
use sortie_types::Secret;
use sortie_wire::{Protocol, Service, sigv4::Credentials};
use std::time::Duration;

const NODE: &str = "mi-0123456789abcdef0";

/// An input of the right shape for each operation.
fn input(name: &str) -> Value {
    match name {
        "AddTagsToResource" => {
            json!({ "ResourceType": "ManagedInstance", "ResourceId": NODE, "Tags": [{ "Key": "a", "Value": "b" }] })
        }
        "RemoveTagsFromResource" => {
            json!({ "ResourceType": "ManagedInstance", "ResourceId": NODE, "TagKeys": ["a"] })
        }
        "ListTagsForResource" => json!({ "ResourceType": "ManagedInstance", "ResourceId": NODE }),
        "CreateActivation" => json!({ "IamRole": "SortieNode" }),
        "DeleteActivation" => json!({ "ActivationId": "0b2a6f0e-3f0e-4c57-9d7c-0123456789ab" }),
        "DeregisterManagedInstance" | "ListInstanceAssociations" | "UpdateInstanceInformation" => {
            json!({ "InstanceId": NODE })
        }
        "DescribeSessions" => json!({ "State": "Active" }),
        "Explain" => json!({ "Action": "ssm:StartSession", "Resource": NODE }),
        "GetConnectionStatus" | "StartSession" => json!({ "Target": NODE }),
        "ResumeSession" | "TerminateSession" => json!({ "SessionId": "admin-0123456789abcdef0" }),
        "UpdateManagedInstanceRole" => json!({ "InstanceId": NODE, "IamRole": "SortieNode" }),
        "RegisterManagedInstance" => json!({
            "ActivationId": "0b2a6f0e-3f0e-4c57-9d7c-0123456789ab", "ActivationCode": "0123456789abcdefghij",
            "PublicKey": "A".repeat(392), "PublicKeyType": "Rsa", "Fingerprint": "f",
        }),
        "RequestManagedInstanceRoleToken" => json!({ "Fingerprint": "f" }),
        "UpdateManagedInstancePublicKey" => {
            json!({ "NewPublicKey": "A".repeat(392), "NewPublicKeyType": "Rsa" })
        }
        "AcknowledgeMessage" | "DeleteMessage" | "FailMessage" => json!({ "MessageId": "m" }),
        "SignIn" => json!({ "UserName": "nobody", "Password": "p" }),
        "SendReply" => json!({ "MessageId": "m", "ReplyId": "r" }),
        "GetEndpoint" | "GetMessages" => json!({ "Destination": NODE }),
        "CreateControlChannel" | "CreateDataChannel" => {
            json!({ "MessageSchemaVersion": "1.0", "RequestId": "r" })
        }
        _ => json!({}),
    }
}

fn draft(world: &World, entry: &OperationEntry) -> Draft {
    let body = input(entry.name);
    match (entry.service.protocol(), entry.name) {
        (Protocol::Query, name) => {
            let version = entry.service.api_version().unwrap();
            let form = world
                .request("POST", "/")
                .header("content-type", "application/x-www-form-urlencoded");
            form.body(format!("Action={name}&Version={version}"))
        }
        (Protocol::Channel, "CreateControlChannel") => world
            .request("POST", &format!("/v1/control-channel/{NODE}"))
            .header("content-type", "application/json")
            .body(body.to_string()),
        (Protocol::Channel, "OpenControlChannel") => upgrade(
            world,
            &format!("/v1/control-channel/{NODE}?role=subscribe&stream=input"),
        ),
        (Protocol::Channel, "OpenDataChannel") => upgrade(
            world,
            "/v1/data-channel/admin-0123456789abcdef0?role=publish_subscribe",
        ),
        (Protocol::Channel, _) => world
            .request("POST", "/v1/data-channel/admin-0123456789abcdef0")
            .header("content-type", "application/json")
            .body(body.to_string()),
        _ => {
            let target = format!("{}.{}", entry.service.target_prefix().unwrap(), entry.name);
            world.json(&target, &body)
        }
    }
}

fn upgrade(world: &World, path: &str) -> Draft {
    world
        .request("GET", path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn code(service: Service, json: &str, query: &str) -> String {
    match service.protocol() {
        Protocol::Query => query.to_owned(),
        _ => json.to_owned(),
    }
}

/// Another world now and then: of one source's failures only so many a minute are recorded.
async fn fresh(world: World, index: usize) -> World {
    if index % 20 == 19 {
        return World::start().await;
    }
    world
}

#[tokio::test]
async fn every_operation_refuses_nobody_and_leaves_a_record() {
    let mut world = World::start().await;
    for (index, entry) in operations().iter().enumerate() {
        world = fresh(world, index).await;
        // Whoever has its token may open a data channel.
        if entry.name == "OpenDataChannel" {
            continue;
        }
        let answer = draft(&world, entry).send().await;
        let (status, told) = answer.error();
        let record = world.record_of_any(entry, &answer).await;
        if entry.name == "SignIn" {
            let record = record.unwrap();
            assert_eq!(told, "SignInFailedException");
            assert_eq!(record["eventName"], "ConsoleLogin", "as a console's");
            assert_eq!(record["responseElements"]["ConsoleLogin"], "Failure");
            continue;
        }
        if let Some(record) = record {
            assert_eq!(record["eventName"], entry.name);
            assert_eq!(record["errorCode"], told.as_str(), "{}", entry.name);
        }
        if entry.who() == Access::Anyone {
            assert_eq!(told, "InvalidActivation", "{}", entry.name);
            continue;
        }
        let expected = code(
            entry.service,
            "MissingAuthenticationTokenException",
            "MissingAuthenticationToken",
        );
        assert_eq!(told, expected, "{}", entry.name);
        assert!(matches!(status, 400 | 403), "{} {status}", entry.name);
    }
}

#[tokio::test]
async fn every_operation_refuses_a_wrong_signature_and_leaves_a_record() {
    let mut world = World::start().await;
    for (index, entry) in operations().iter().enumerate() {
        world = fresh(world, index).await;
        let wrong = Credentials {
            secret_access_key: Secret::new("not the secret"),
            ..world.admin.clone()
        };
        let answer = draft(&world, entry)
            .signed(&wrong, entry.service.signing_name())
            .send()
            .await;
        let expected = code(
            entry.service,
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
        );
        assert_eq!(answer.error().1, expected, "{}", entry.name);
        if let Some(record) = world.record_of_any(entry, &answer).await {
            assert_eq!(record["eventName"], entry.name);
            assert_eq!(record["errorCode"], expected.as_str());
            assert_eq!(
                record["requestParameters"],
                Value::Null,
                "unverified input stays out"
            );
        }
    }
}

#[tokio::test]
async fn every_operation_of_users_takes_the_administrator_and_no_other_does() {
    let world = World::start().await;
    for entry in operations() {
        // Judged by a token and by a password, whoever signs.
        if matches!(entry.name, "OpenDataChannel" | "SignIn") {
            continue;
        }
        let answer = draft(&world, entry)
            .signed(&world.admin, entry.service.signing_name())
            .send()
            .await;
        let record = world.record_of_any(entry, &answer).await;
        let denied = answer.status >= 400 && answer.error().1.starts_with("AccessDenied");
        match entry.who() {
            Access::Node | Access::NodeKey => {
                assert!(denied, "{}: {}", entry.name, answer.text());
                if let Some(record) = &record {
                    assert_eq!(record["errorCode"], "AccessDenied", "{}", entry.name);
                }
            }
            _ => assert!(!denied, "{}: {}", entry.name, answer.text()),
        }
        if let Some(record) = record {
            assert_eq!(record["eventName"], entry.name);
            assert_eq!(record["readOnly"], entry.read_only, "{}", entry.name);
            assert_eq!(
                record["userIdentity"]["userName"], "admin",
                "{}",
                entry.name
            );
        }
    }
}

fn describe(world: &World) -> Draft {
    world.json("AmazonSSM.DescribeSessions", &json!({ "State": "Active" }))
}

#[tokio::test]
async fn each_fault_of_a_signature_has_its_code() {
    let world = World::start().await;
    let admin = &world.admin;
    let unknown = Credentials {
        access_key_id: "AKIAAAAAAAAAAAAAAAAA".to_owned(),
        ..admin.clone()
    };
    let with_token = Credentials {
        session_token: Some(Secret::new("stray")),
        ..admin.clone()
    };
    let hour = Duration::from_secs(3600);
    let good = describe(&world).signed(admin, "ssm");
    for (what, draft, expected) in [
        (
            "nonsense",
            describe(&world)
                .header("authorization", "Bearer x")
                .header("x-amz-date", &now().iso_basic()),
            "IncompleteSignatureException",
        ),
        (
            "unknown key",
            describe(&world).signed(&unknown, "ssm"),
            "UnrecognizedClientException",
        ),
        (
            "stray token",
            describe(&world).signed(&with_token, "ssm"),
            "UnrecognizedClientException",
        ),
        (
            "other body",
            good.clone().body("{}"),
            "InvalidSignatureException",
        ),
        (
            "other target",
            good.clone()
                .header("x-amz-target", "AmazonSSM.CreateActivation"),
            "InvalidSignatureException",
        ),
        (
            "other service",
            describe(&world).signed(admin, "sts"),
            "InvalidSignatureException",
        ),
        (
            "other region",
            describe(&world).signed_at(admin, "ssm", "us-east-1", now()),
            "InvalidSignatureException",
        ),
        (
            "too old",
            describe(&world).signed_at(admin, "ssm", "local-1", now().minus(hour)),
            "InvalidSignatureException",
        ),
        (
            "too new",
            describe(&world).signed_at(admin, "ssm", "local-1", now().plus(hour)),
            "InvalidSignatureException",
        ),
    ] {
        let answer = draft.send().await;
        assert_eq!(
            answer.error(),
            (400, expected.to_owned()),
            "{what}: {}",
            answer.text()
        );
        assert_eq!(answer.content_type(), common::JSON, "{what}");
        assert_eq!(
            world.record_of(&answer).await["errorCode"],
            expected,
            "{what}"
        );
    }
    good.send().await.ok();
}

#[tokio::test]
async fn skewed_clocks_are_told_which_way() {
    let world = World::start().await;
    let hour = Duration::from_secs(3600);
    let told = |answer: common::Answer| answer.json()["message"].as_str().unwrap().to_owned();
    let old = describe(&world)
        .signed_at(&world.admin, "ssm", "local-1", now().minus(hour))
        .send()
        .await;
    assert!(told(old).starts_with("Signature expired:"));
    let new = describe(&world)
        .signed_at(&world.admin, "ssm", "local-1", now().plus(hour))
        .send()
        .await;
    assert!(told(new).starts_with("Signature not yet current:"));
}

#[tokio::test]
async fn sts_is_taken_for_the_global_region_too_and_presigned_in_a_query() {
    let world = World::start().await;
    let query = "/?Action=GetCallerIdentity&Version=2011-06-15";
    for region in ["local-1", "us-east-1"] {
        let answer = world
            .request("GET", query)
            .presigned(&world.admin, "sts", region)
            .send()
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.content_type(), "text/xml");
        let account = world.control.account_id();
        assert!(
            answer
                .text()
                .contains(&format!("<Arn>arn:aws:iam::{account}:user/admin</Arn>")),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains(&answer.request_id()));
        assert_eq!(
            world.record_of(&answer).await["eventSource"],
            "sts.amazonaws.com"
        );
    }
    let other = world
        .request("GET", query)
        .presigned(&world.admin, "sts", "eu-west-1")
        .send()
        .await;
    assert_eq!(other.error(), (403, "SignatureDoesNotMatch".to_owned()));
}
