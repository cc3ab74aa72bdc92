//! Streams whose destination is chosen while the session lasts, with real policies.

use bytes::Bytes;
use serde_json::json;
use sortie_channel::{
    frame::{Frame, MessageType, NewFrame, PayloadType},
    streams::{Destination, Message, RefusalCode},
};
use sortie_ports::SessionState;
use sortie_types::SessionId;
use uuid::Uuid;

use crate::world::{Channel, World, ack, now, within};

fn framed(message_type: MessageType, number: i64, message: &Message) -> Bytes {
    let (payload_type, payload) = message.encode();
    let new = NewFrame {
        message_type,
        sequence_number: number,
        flags: 0,
        message_id: Uuid::new_v4(),
        payload_type,
        payload: &payload,
        created: now(),
        digest: true,
    };
    new.encode().unwrap()
}

fn up(number: i64, message: &Message) -> Bytes {
    framed(MessageType::InputStreamData, number, message)
}

fn down(number: i64, message: &Message) -> Bytes {
    framed(MessageType::OutputStreamData, number, message)
}

fn open(id: u32, host: &str) -> Message {
    let destination = Destination {
        host: Some(host.to_owned()),
        port: Some(80),
        socket: None,
    };
    Message::Open(id, destination)
}

fn meaning(frame: &Frame) -> Message {
    Message::parse(frame.payload_type(), frame.payload()).unwrap()
}

async fn at_node(worker: &mut Channel) -> Frame {
    worker.until(MessageType::InputStreamData).await
}

/// Both ends of a session whose client chooses.
struct Socks {
    id: SessionId,
    client: Channel,
    worker: Channel,
}

impl World {
    async fn port_session(&self, properties: serde_json::Value) -> SessionId {
        let document = json!({"sessionType": "Port", "properties": properties});
        self.session_of("Sortie-StartSocksSession", document).await
    }

    async fn socks(&mut self) -> Socks {
        let mut control = self.our_node(&[]).await;
        let id = self.port_session(json!({"type": "SocksForwarding"})).await;
        let token = self.resume(&id).await.unwrap();
        let mut client = self.our_client(&id, &token).await;
        let mut worker = self.our_worker(&control.started().await).await;
        client.features().await;
        worker.features().await;
        self.until_state(&id, SessionState::Connected).await;
        Socks { id, client, worker }
    }

    /// Denies the administrator one host.
    async fn deny(&self, host: &str) {
        let policy = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Deny", "Action": "ssm:StartSession", "Resource": "*",
            "Condition": {"StringEquals": {"sortie:DestinationHost": host}},
        }});
        let holder = sortie_control::Holder::User(self.administrator.user.name.to_string());
        let call = self.user_call("PutUserPolicy");
        let text = policy.to_string();
        let put = self
            .control
            .put_inline_policy(&call, &holder, "deny", &text);
        put.await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_opens_where_policy_allows_it_and_is_recorded_when_it_ends() {
    let mut world = World::start().await;
    let mut socks = world.socks().await;
    let asked = up(0, &open(1, "db"));
    socks.client.send(asked.clone()).await;
    assert_eq!(at_node(&mut socks.worker).await.into_bytes(), asked);
    socks.worker.send(down(0, &Message::Opened(1))).await;
    socks
        .client
        .send(up(1, &Message::Data(1, Bytes::from_static(b"select"))))
        .await;
    at_node(&mut socks.worker).await;
    socks.client.send(up(2, &Message::Reset(1))).await;
    world.until_recorded("StreamEnded", 1).await;
    assert_eq!(world.recorded("StreamRefused").await, 0);
}

#[tokio::test]
async fn a_denied_stream_is_refused_in_its_place_and_every_repeat_too() {
    let mut world = World::start().await;
    world.deny("secret").await;
    let mut socks = world.socks().await;
    let refused = up(0, &open(1, "Secret."));
    let allowed = up(1, &open(3, "db"));
    socks.client.send(refused.clone()).await;
    socks.client.send(allowed.clone()).await;
    let answer = at_node(&mut socks.worker).await;
    assert_eq!(answer.sequence_number(), 0);
    match meaning(&answer) {
        Message::Refused(1, refusal) => {
            assert_eq!(refusal.code, RefusalCode::Forbidden);
            assert!(refusal.message.contains("explicit deny"), "{refusal:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(at_node(&mut socks.worker).await.into_bytes(), allowed);
    socks.client.send(refused).await;
    assert_eq!(at_node(&mut socks.worker).await, answer);
    socks.worker.send(ack(&answer)).await;
    world.until_recorded("StreamRefused", 1).await;
}

#[tokio::test]
async fn a_stream_that_is_not_allowed_any_more_is_cut() {
    let mut world = World::start().await;
    let mut socks = world.socks().await;
    for (number, id, host) in [(0, 1, "db"), (1, 3, "web")] {
        socks.client.send(up(number, &open(id, host))).await;
        at_node(&mut socks.worker).await;
    }
    world.deny("db").await;
    world.until_recorded("StreamEnded", 1).await;
    let data = |number, id| down(number, &Message::Data(id, Bytes::from_static(b"rows")));
    socks.worker.send(data(0, 1)).await;
    let cut = socks.client.until(MessageType::OutputStreamData).await;
    assert_eq!(meaning(&cut), Message::Reset(1));
    let other = data(1, 3);
    socks.worker.send(other.clone()).await;
    let passed = socks.client.until(MessageType::OutputStreamData).await;
    assert_eq!(passed.into_bytes(), other);
}

#[tokio::test]
async fn what_is_open_when_the_session_ends_is_recorded() {
    let mut world = World::start().await;
    let mut socks = world.socks().await;
    socks.client.send(up(0, &open(1, "db"))).await;
    at_node(&mut socks.worker).await;
    world.terminate(&socks.id).await;
    socks.client.closed().await;
    socks.client.until_hung_up().await;
    drop(socks.worker);
    world.until_recorded("StreamEnded", 1).await;
}

#[tokio::test]
async fn a_server_that_stops_leaves_records_and_another_judges_repeats_anew() {
    let mut world = World::start().await;
    let mut socks = world.socks().await;
    let asked = up(0, &open(1, "db"));
    socks.client.send(asked.clone()).await;
    at_node(&mut socks.worker).await;
    world.stop().await;
    assert_eq!(world.recorded("StreamEnded").await, 1);
    world.deny("db").await;
    world.restart(crate::world::quick()).await;
    let token = world.resume(&socks.id).await.unwrap();
    let mut client = world.our_client(&socks.id, &token).await;
    client.send(asked).await;
    world.until_recorded("StreamRefused", 1).await;
}

#[tokio::test]
async fn elsewhere_a_destination_is_refused() {
    let mut world = World::start().await;
    let mut control = world.our_node(&[]).await;
    let properties = json!({"type": "LocalPortForwarding", "portNumber": "22"});
    let id = world.port_session(properties).await;
    let token = world.resume(&id).await.unwrap();
    let mut client = world.our_client(&id, &token).await;
    let mut worker = world.our_worker(&control.started().await).await;
    client.features().await;
    worker.features().await;
    let own = up(0, &Message::Open(1, Destination::default()));
    client.send(own.clone()).await;
    assert_eq!(at_node(&mut worker).await.into_bytes(), own);
    client.send(up(1, &open(3, "db"))).await;
    assert_eq!(
        at_node(&mut worker).await.payload_type(),
        PayloadType(0x5303)
    );
}

#[tokio::test]
async fn an_official_client_is_told_that_it_cannot_do_it() {
    let mut world = World::start().await;
    let _control = world.our_node(&[]).await;
    let id = world.port_session(json!({"type": "SocksForwarding"})).await;
    let mut client = world.resumed(&id).await;
    let text = client.closed().await;
    assert!(text.contains("needs the sortie command line"), "{text}");
    world.until_state(&id, SessionState::Failed).await;
}

#[tokio::test]
async fn an_official_node_is_not_asked_for_what_it_cannot_do() {
    let mut world = World::start().await;
    let _control = world.official_node().await;
    let id = world.port_session(json!({"type": "CopyFile"})).await;
    let token = world.resume(&id).await.unwrap();
    let mut client = world.our_client(&id, &token).await;
    let text = client.closed().await;
    assert!(text.contains("needs sortie-agent on the node"), "{text}");
}

impl World {
    async fn until_recorded(&self, event_name: &str, count: usize) {
        let reached = async {
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(5));
            while self.recorded(event_name).await != count {
                tick.tick().await;
            }
        };
        within(&format!("{count} records {event_name}"), reached).await;
    }
}
