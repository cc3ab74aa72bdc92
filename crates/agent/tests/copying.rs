//! Sessions that copy files, with a client that is played by the test: what is said on the stream, what
//! is written, and how the session ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]
#![allow(dead_code, reason = "not every test uses all of the support")]

mod support;

use std::{fs, path::Path};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use sortie_channel::{
    copy::{Decoder, Digest, Hello, Message, Meta, Name, VERSION},
    features,
    handshake::CLIENT_VERSION,
};
use support::{
    Node,
    peer::{Ours, Peer},
    server::{Control, Server},
};

const SESSION: &str = "alice-0123456789abcdef0";
const META: Meta = Meta {
    mode: 0o640,
    seconds: 0,
    nanoseconds: 0,
};

fn document(direction: &str, path: &Path) -> Value {
    json!({"schemaVersion": "1.0", "sessionType": "Port", "inputs": {}, "parameters": {},
           "properties": {"type": "CopyFile", "path": path, "direction": direction}})
}

async fn start() -> (Server, Node, Control) {
    let server = Server::start().await;
    let node = Node::start(&server).await;
    let control = server.control().await;
    (server, node, control)
}

/// A session's one stream.
struct Copy<'a> {
    client: Ours<'a>,
    id: u32,
}

impl<'a> Copy<'a> {
    async fn begin(server: &'a Server, control: &mut Control, document: Value) -> Self {
        control.start_session(SESSION, document).await;
        let mut peer = Peer::attach(server, SESSION, &features::ALL).await;
        peer.shake_hands(CLIENT_VERSION).await;
        let mut client = Ours::new(peer);
        let id = client.open();
        let mut copy = Self { client, id };
        copy.say(&[Message::Hello(Hello {
            version: VERSION,
            ..Hello::default()
        })]);
        copy
    }

    fn say(&mut self, messages: &[Message]) {
        let mut bytes = Vec::new();
        for message in messages {
            message.write(&mut bytes);
        }
        self.client.streams.send(self.id, bytes.into());
    }

    fn heard(client: &Ours<'_>, id: u32) -> Vec<Message> {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(client.got(id));
        std::iter::from_fn(|| decoder.next_message().unwrap()).collect()
    }

    async fn until(&mut self, last: &Message) -> Vec<Message> {
        let id = self.id;
        self.client
            .until("a message", |client| {
                Self::heard(client, id).last() == Some(last)
            })
            .await;
        Self::heard(&self.client, id)
    }
}

fn sum(bytes: &[u8]) -> Digest {
    Digest(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

#[tokio::test]
async fn a_file_is_received_at_the_path_of_the_document_and_the_session_ends() {
    let (server, mut node, mut control) = start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("there");
    let mut copy = Copy::begin(&server, &mut control, document("upload", &path)).await;
    let bytes: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    copy.say(&[Message::File {
        meta: META,
        size: Some(bytes.len() as u64),
        name: Some(Name::new("here").unwrap()),
    }]);
    copy.until(&Message::Want(0, None)).await;
    assert!(!path.exists());
    copy.say(&[Message::Start(0, 0)]);
    for piece in bytes.chunks(200_000) {
        copy.say(&[Message::Data(piece.to_vec().into())]);
    }
    copy.say(&[Message::End(sum(&bytes))]);
    copy.until(&Message::Done(0)).await;
    assert!(fs::read(&path).unwrap() == bytes);
    copy.say(&[Message::Finish]);
    let heard = copy.until(&Message::Finished).await;
    assert_eq!(heard.len(), 4, "{heard:?}");
    copy.client.streams.finish(copy.id);
    let id = copy.id;
    copy.client
        .until("the end", |client| client.finished.contains(&id))
        .await;
    // What came last is acknowledged with the next step.
    copy.client.step().await;
    let (_, _, status, output) = control.result().await;
    assert_eq!((status.as_str(), output.as_str()), ("Success", ""));
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_to_the_client() {
    let (server, mut node, mut control) = start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/where");
    let mut copy = Copy::begin(&server, &mut control, document("upload", &path)).await;
    let parent = path.parent().unwrap().display().to_string();
    let why = format!("cannot open {parent}: no such file or directory");
    copy.until(&Message::Fatal(why)).await;
    node.stop().await;
}

#[tokio::test]
async fn an_official_client_is_told_that_it_cannot_copy() {
    let (server, mut node, mut control) = start().await;
    let folder = tempfile::tempdir().unwrap();
    let document = document("download", folder.path());
    control.start_session(SESSION, document).await;
    let _peer = Peer::attach(&server, SESSION, &[]).await;
    let (_, _, status, output) = control.result().await;
    assert_eq!(status, "Failed");
    assert!(output.contains("needs a client of Sortie"), "{output}");
    node.stop().await;
}
