//! What nodes get: the official program reacts to small differences with panics, endless polling or
//! half an hour of silence, so each rule that keeps it well has its case here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod common;

use std::time::Duration;

use common::{Answer, Draft, Node, REGION, World, until};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sortie_doors::DoorOptions;
use sortie_wire::{XmlNode, sigv4::Credentials};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

fn create(world: &World, path: &str, body: &Value) -> Draft {
    world
        .request("POST", path)
        .header("content-type", "application/json")
        .body(body.to_string())
}

fn create_control(world: &World, node_id: &str) -> Draft {
    let body = json!({ "MessageSchemaVersion": "1.0", "RequestId": uuid::Uuid::new_v4() });
    create(world, &format!("/v1/control-channel/{node_id}"), &body)
}

fn create_data(world: &World, session_id: &str) -> Draft {
    // An official node leaves the client id empty.
    let body =
        json!({ "MessageSchemaVersion": "1.0", "RequestId": uuid::Uuid::new_v4(), "ClientId": "" });
    create(world, &format!("/v1/data-channel/{session_id}"), &body)
}

fn upgrade(world: &World, path: &str) -> Draft {
    world
        .request("GET", path)
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-extensions", "permessage-deflate")
        .header("sec-websocket-protocol", "chat")
}

/// Performs an upgrade that must be accepted.
async fn opened(world: &World, draft: Draft) -> Socket {
    let stream = TcpStream::connect(world.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let empty = http_body_util::Empty::<bytes::Bytes>::new();
    let answer = sender.send_request(draft.build(empty)).await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(
        answer.headers()["sec-websocket-accept"],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert!(
        !answer.headers().contains_key("sec-websocket-extensions"),
        "nothing offered is taken"
    );
    assert!(
        !answer.headers().contains_key("sec-websocket-protocol"),
        "nothing offered is taken"
    );
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

/// The token of an answer that must be 201 and XML.
fn token(answer: &Answer) -> String {
    assert_eq!(
        answer.status,
        201,
        "official nodes take no other success: {}",
        answer.text()
    );
    let root = XmlNode::parse(answer.text()).unwrap();
    assert_eq!(root.child_text("MessageSchemaVersion"), Some("1.0"));
    root.child_text("TokenValue").unwrap().to_owned()
}

/// A node whose control channel is open.
async fn online(world: &World) -> (Node, Credentials, Socket) {
    let node = world.node().await;
    let credentials = node.credentials(world).await;
    let answer = create_control(world, &node.id)
        .signed(&credentials, "ssmmessages")
        .send()
        .await;
    let token = token(&answer);
    let path = format!(
        "/v1/control-channel/{}?role=subscribe&stream=input",
        node.id
    );
    let mut socket = opened(
        world,
        upgrade(world, &path).signed(&credentials, "ssmmessages"),
    )
    .await;
    let open = json!({
        "Cookie": null, "MessageSchemaVersion": "1.0", "RequestId": uuid::Uuid::new_v4(),
        "TokenValue": token, "AgentVersion": "3.3.0.0", "PlatformType": "linux",
    });
    socket.send(Message::text(open.to_string())).await.unwrap();
    let target = json!({ "Target": node.id });
    until("the node online", || async {
        let status = world.ssm("GetConnectionStatus", target.clone()).await.ok();
        (status["Status"] == "connected").then_some(())
    })
    .await;
    (node, credentials, socket)
}

fn node_call(world: &World, operation: &str, body: &Value, credentials: &Credentials) -> Draft {
    world
        .json(&format!("AmazonSSM.{operation}"), body)
        .signed(credentials, "ssm")
}

#[tokio::test]
async fn a_node_boots_as_the_official_one_does() {
    let world = World::start().await;
    let (node, credentials, _socket) = online(&world).await;
    let short = json!({ "AgentName": "amazon-ssm-agent", "AgentVersion": "3.3.0.0", "InstanceId": node.id, "PlatformType": "Linux" });
    let gate = node_call(&world, "UpdateInstanceInformation", &short, &credentials)
        .send()
        .await;
    assert_eq!(gate.ok(), json!({}), "the gate to everything else");
    let full = json!({
        "AgentName": "amazon-ssm-agent", "AgentStatus": "Active", "AgentVersion": "3.3.0.0", "AvailabilityZone": "",
        "AvailabilityZoneId": "", "ComputerName": "web-1", "IPAddress": "192.0.2.9", "InstanceId": node.id,
        "PlatformName": "Debian GNU/Linux", "PlatformType": "Linux", "PlatformVersion": "12", "SSMConnectionChannel": "",
    });
    node_call(&world, "UpdateInstanceInformation", &full, &credentials)
        .send()
        .await
        .ok();
    let listed = world
        .ssm("DescribeInstanceInformation", json!({}))
        .await
        .ok();
    let row = &listed["InstanceInformationList"][0];
    assert_eq!(row["ComputerName"], "web-1");
    assert_eq!(row["PingStatus"], "Online");
    assert_eq!(row["IPAddress"], "192.0.2.9");

    let list = json!({ "InstanceId": node.id, "MaxResults": 20 });
    let associations = node_call(&world, "ListInstanceAssociations", &list, &credentials)
        .send()
        .await;
    assert_eq!(associations.ok(), json!({ "Associations": [] }));
    let filter = json!({ "AssociationFilterList": [{ "key": "InstanceId", "value": node.id }], "MaxResults": 1 });
    let associations = node_call(&world, "ListAssociations", &filter, &credentials)
        .send()
        .await;
    assert_eq!(associations.ok(), json!({ "Associations": [] }));
    // The one code that an official node does not count as a failure.
    let put = node_call(&world, "PutComplianceItems", &json!({}), &credentials)
        .send()
        .await;
    assert_eq!(put.error(), (400, "UnknownOperationException".to_owned()));
}

#[tokio::test]
async fn a_node_signs_with_its_key_for_its_own_token_only() {
    let world = World::start().await;
    let node = world.node().await;
    let other = world.node().await;
    node.token_request(&world).send().await.ok();
    let stolen = world.json(
        "AmazonSSM.RequestManagedInstanceRoleToken",
        &json!({ "Fingerprint": node.fingerprint }),
    );
    let refused = stolen.signed_by_key(&node.id, &other.key).send().await;
    assert_eq!(
        refused.error(),
        (400, "InvalidSignatureException".to_owned())
    );
    let clone = world.json(
        "AmazonSSM.RequestManagedInstanceRoleToken",
        &json!({ "Fingerprint": "another" }),
    );
    let refused = clone.signed_by_key(&node.id, &node.key).send().await;
    assert_eq!(
        refused.error(),
        (400, "MachineFingerprintDoesNotMatch".to_owned())
    );
    // Temporary credentials cannot renew themselves.
    let credentials = node.credentials(&world).await;
    let renewed = node_call(
        &world,
        "RequestManagedInstanceRoleToken",
        &json!({ "Fingerprint": node.fingerprint }),
        &credentials,
    );
    assert_eq!(
        renewed.send().await.error(),
        (400, "AccessDeniedException".to_owned())
    );
    // Nor is the key good for what people do.
    let start = world.json("AmazonSSM.DescribeSessions", &json!({ "State": "Active" }));
    let refused = start.signed_by_key(&node.id, &node.key).send().await;
    assert_eq!(refused.error(), (400, "AccessDeniedException".to_owned()));
}

#[tokio::test]
async fn after_a_rotation_the_old_key_is_good_until_the_new_one_was_used() {
    let world = World::start().await;
    let node = world.node().await;
    let next = world.node().await;
    // Any key will do as the next one; a fresh one is made by enrolling nobody.
    let fresh = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let public = public_key(&fresh);
    let body = json!({ "NewPublicKey": public, "NewPublicKeyType": "Rsa" });
    let update = world.json("AmazonSSM.UpdateManagedInstancePublicKey", &body);
    let updated = update
        .clone()
        .signed_by_key(&node.id, &node.key)
        .chunked()
        .send()
        .await;
    assert_eq!(updated.ok(), json!({}));
    let refused = update.signed_by_key(&node.id, &next.key).send().await;
    assert_eq!(
        refused.error(),
        (400, "InvalidSignatureException".to_owned())
    );

    let token = |key| {
        let body = json!({ "Fingerprint": node.fingerprint });
        let draft = world.json("AmazonSSM.RequestManagedInstanceRoleToken", &body);
        draft.signed_by_key(&node.id, key).send()
    };
    token(&node.key).await.ok();
    token(&fresh).await.ok();
    assert_eq!(
        token(&node.key).await.error(),
        (400, "InvalidSignatureException".to_owned())
    );
}

fn public_key(key: &aws_lc_rs::rsa::KeyPair) -> String {
    use aws_lc_rs::{
        encoding::{AsDer, PublicKeyX509Der},
        signature::KeyPair,
    };
    use base64::{Engine, prelude::BASE64_STANDARD};
    let der = AsDer::<PublicKeyX509Der>::as_der(key.public_key()).unwrap();
    BASE64_STANDARD.encode(der.as_ref())
}

#[tokio::test]
async fn a_node_acts_as_itself_alone() {
    let world = World::start().await;
    let node = world.node().await;
    let other = world.node().await;
    let credentials = node.credentials(&world).await;
    let foreign = json!({ "InstanceId": other.id });
    for operation in [
        "UpdateInstanceInformation",
        "ListInstanceAssociations",
        "DeregisterManagedInstance",
    ] {
        let refused = node_call(&world, operation, &foreign, &credentials)
            .send()
            .await;
        assert_eq!(
            refused.error(),
            (400, "AccessDeniedException".to_owned()),
            "{operation}"
        );
    }
    let channel = create_control(&world, &other.id)
        .signed(&credentials, "ssmmessages")
        .send()
        .await;
    assert_ne!(channel.status, 201);
    assert!(
        !channel.text().contains("AccessDeniedException"),
        "it would poll for ever: {}",
        channel.text()
    );
    let path = format!(
        "/v1/control-channel/{}?role=subscribe&stream=input",
        other.id
    );
    let opened = upgrade(&world, &path)
        .signed(&credentials, "ssmmessages")
        .send()
        .await;
    assert_eq!(opened.status, 403);
}

#[tokio::test]
async fn a_deregistered_node_is_refused_in_the_quietest_way() {
    let world = World::start().await;
    let node = world.node().await;
    let credentials = node.credentials(&world).await;
    world
        .ssm(
            "DeregisterManagedInstance",
            json!({ "InstanceId": node.id }),
        )
        .await
        .ok();

    let token = node.token_request(&world).send().await;
    assert_eq!(
        token.error(),
        (400, "AccessDeniedException".to_owned()),
        "it then waits half an hour"
    );
    let channel = create_control(&world, &node.id)
        .signed(&credentials, "ssmmessages")
        .send()
        .await;
    assert!(
        channel.status >= 400 && channel.status < 500,
        "a 5xx would be repeated at once"
    );
    assert!(
        channel.text().contains("<InvalidInstanceId>"),
        "{}",
        channel.text()
    );
    let path = format!(
        "/v1/control-channel/{}?role=subscribe&stream=input",
        node.id
    );
    let opened = upgrade(&world, &path)
        .signed(&credentials, "ssmmessages")
        .send()
        .await;
    assert_eq!(opened.error().1, "InvalidInstanceId");
}

fn poll(world: &World, node: &Node, credentials: &Credentials) -> Draft {
    let body = json!({ "Destination": node.id, "MessagesRequestId": "r-1", "VisibilityTimeoutInSeconds": 10 });
    world
        .json("EC2WindowsMessageDeliveryService.GetMessages", &body)
        .signed(credentials, "ec2messages")
}

#[tokio::test]
async fn polls_are_held_and_answered_empty_when_the_server_stops() {
    let world = World::start().await;
    let node = world.node().await;
    let credentials = node.credentials(&world).await;
    let mut held = tokio::spawn(poll(&world, &node, &credentials).send());
    let gone = world.node().await;
    let gone_credentials = gone.credentials(&world).await;
    world
        .ssm(
            "DeregisterManagedInstance",
            json!({ "InstanceId": gone.id }),
        )
        .await
        .ok();
    let mut refused = tokio::spawn(poll(&world, &gone, &gone_credentials).send());

    // An error that comes at once is repeated every two seconds, so neither may come at once.
    let both = async {
        tokio::select! { _ = &mut held => {} _ = &mut refused => {} }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(2), both)
            .await
            .is_err(),
        "a poll was not held"
    );
    world.doors.stop();
    let empty = json!({ "Destination": node.id, "MessagesRequestId": "r-1", "Messages": [] });
    assert_eq!(held.await.unwrap().ok(), empty);
    assert_eq!(
        refused.await.unwrap().error(),
        (400, "AccessDeniedException".to_owned())
    );
    world.doors.drained().await;
}

#[tokio::test]
async fn a_held_poll_ends_when_its_caller_goes() {
    let world = World::start().await;
    let node = world.node().await;
    let credentials = node.credentials(&world).await;
    world.connections.close();
    world.connections.wait().await;
    let held = tokio::spawn(poll(&world, &node, &credentials).send());
    until("the poll's connection", || async {
        (!world.connections.is_empty()).then_some(())
    })
    .await;
    held.abort();
    until("the end of the connection", || async {
        world.connections.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn upgrades_are_refused_with_plain_errors_unless_everything_is_right() {
    let world = World::start().await;
    let node = world.node().await;
    let credentials = node.credentials(&world).await;
    let control = format!(
        "/v1/control-channel/{}?role=subscribe&stream=input",
        node.id
    );
    let data = "/v1/data-channel/admin-0123456789abcdef0?role=publish_subscribe";
    let wrong = Credentials {
        secret_access_key: "wrong".into(),
        ..credentials.clone()
    };
    for (what, draft, status, code) in [
        (
            "unsigned control",
            upgrade(&world, &control),
            403,
            "MissingAuthenticationTokenException",
        ),
        (
            "badly signed control",
            upgrade(&world, &control).signed(&wrong, "ssmmessages"),
            403,
            "InvalidSignatureException",
        ),
        (
            "other service",
            upgrade(&world, &control).signed(&credentials, "ssm"),
            403,
            "InvalidSignatureException",
        ),
        (
            "badly signed data",
            upgrade(&world, data).signed(&wrong, "ssmmessages"),
            403,
            "InvalidSignatureException",
        ),
        (
            "a person's control",
            upgrade(&world, &control).signed(&world.admin, "ssmmessages"),
            403,
            "AccessDeniedException",
        ),
        ("no upgrade", world.request("GET", data), 400, "BadRequest"),
        (
            "other version",
            upgrade(&world, data).header("sec-websocket-version", "8"),
            400,
            "BadRequest",
        ),
    ] {
        let answer = draft.send().await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{what}");
    }
    let _unsigned = opened(&world, upgrade(&world, data)).await;
    // A bearer token is no signature: what counts is the first frame. A node must sign all the same.
    let bearer = |path| upgrade(&world, path).header("authorization", "Bearer token");
    let _bearer = opened(&world, bearer(data)).await;
    let answer = bearer(&control).send().await;
    assert_eq!(
        answer.error(),
        (403, "IncompleteSignatureException".to_owned())
    );
    // A client whose default credentials are another installation's counts as unsigned.
    let foreign = Credentials {
        access_key_id: "AKIAAAAAAAAAAAAAAAAA".to_owned(),
        ..world.admin.clone()
    };
    let _foreign = opened(
        &world,
        upgrade(&world, data).signed(&foreign, "ssmmessages"),
    )
    .await;
}

#[tokio::test]
async fn a_client_with_a_wrong_token_is_told_why_and_then_closed() {
    let world = World::start().await;
    let session = "/v1/data-channel/admin-0123456789abcdef0?role=publish_subscribe";
    let mut socket = opened(&world, upgrade(&world, session)).await;
    let open = json!({
        "MessageSchemaVersion": "1.0", "RequestId": uuid::Uuid::new_v4(), "TokenValue": "nonsense",
        "ClientId": uuid::Uuid::new_v4(), "ClientVersion": "1.2.0.0",
    });
    socket.send(Message::text(open.to_string())).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(10), socket.next())
        .await
        .unwrap();
    let Some(Ok(Message::Binary(frame))) = first else {
        panic!("{first:?}")
    };
    assert!(String::from_utf8_lossy(&frame).contains("channel_closed"));
}

#[tokio::test]
async fn stream_urls_name_the_host_that_the_caller_used_or_the_configured_one() {
    let world = World::start().await;
    let (node, ..) = online(&world).await;
    let started = world
        .ssm("StartSession", json!({ "Target": node.id }))
        .await
        .ok();
    let session_id = started["SessionId"].as_str().unwrap();
    let path = format!("/v1/data-channel/{session_id}?role=publish_subscribe");
    assert_eq!(
        started["StreamUrl"],
        format!("ws://{}{path}", world.address)
    );
    assert!(started["TokenValue"].as_str().unwrap().len() <= 300);
    let named = world
        .json("AmazonSSM.StartSession", &json!({ "Target": node.id }))
        .header("host", "sortie.test:81");
    let named = named.signed(&world.admin, "ssm").send().await.ok();
    assert!(
        named["StreamUrl"]
            .as_str()
            .unwrap()
            .starts_with("ws://sortie.test:81/v1/data-channel/")
    );

    let public = Some("https://sortie.example:8443".to_owned());
    let world = World::with(DoorOptions {
        public_url: public,
        ..DoorOptions::default()
    })
    .await;
    let (node, ..) = online(&world).await;
    let started = world
        .ssm("StartSession", json!({ "Target": node.id }))
        .await
        .ok();
    let url = started["StreamUrl"].as_str().unwrap();
    assert!(
        url.starts_with("wss://sortie.example:8443/v1/data-channel/"),
        "{url}"
    );
}

#[tokio::test]
async fn the_node_of_an_ended_session_is_told_to_stop_trying() {
    let world = World::start().await;
    let (node, credentials, _socket) = online(&world).await;
    let started = world
        .ssm("StartSession", json!({ "Target": node.id }))
        .await
        .ok();
    let session_id = started["SessionId"].as_str().unwrap();
    let signed = || {
        create_data(&world, session_id)
            .signed(&credentials, "ssmmessages")
            .send()
    };
    assert!(!token(&signed().await).is_empty());
    let other = world.node().await.credentials(&world).await;
    let foreign = create_data(&world, session_id)
        .signed(&other, "ssmmessages")
        .send()
        .await;
    assert_ne!(foreign.status, 201, "another node's session");

    world
        .ssm("TerminateSession", json!({ "SessionId": session_id }))
        .await
        .ok();
    let told = until("the end of the session", || async {
        let answer = signed().await;
        (answer.status != 201).then_some(answer)
    })
    .await;
    assert!(
        told.text().contains("Session is already terminated"),
        "{}",
        told.text()
    );
    // Asked twice, ended is ended.
    let again = world
        .ssm("TerminateSession", json!({ "SessionId": session_id }))
        .await
        .ok();
    assert_eq!(again["SessionId"], session_id);
    let resumed = world
        .ssm("ResumeSession", json!({ "SessionId": session_id }))
        .await
        .ok();
    assert!(
        resumed.get("TokenValue").is_none(),
        "a token would make the client try again"
    );
}

#[tokio::test]
async fn enrolling_needs_no_signature_but_a_right_one_if_any() {
    let world = World::start().await;
    let node = world.node().await;
    assert!(node.id.starts_with("mi-"));
    let body =
        json!({ "PublicKey": public_key(&node.key), "PublicKeyType": "Rsa", "Fingerprint": "f" });
    let without = world
        .json("AmazonSSM.RegisterManagedInstance", &body)
        .send()
        .await;
    assert_eq!(without.error(), (400, "ValidationException".to_owned()));
    let wrong = Credentials {
        secret_access_key: "wrong".into(),
        ..world.admin.clone()
    };
    let signed = world
        .json("AmazonSSM.RegisterManagedInstance", &body)
        .signed_at(&wrong, "ssm", REGION, common::now());
    assert_eq!(
        signed.send().await.error(),
        (400, "InvalidSignatureException".to_owned())
    );
}
