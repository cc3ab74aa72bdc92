//! `sortie exec` where the node is no agent of ours, and what it asks of the service: a scripted node
//! that behaves as official agents do.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::{
    io::{Read, Write},
    process::{Child, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sortie_channel::{
    frame::PayloadType,
    handshake::{NodeHandshake, NodeStep, SessionType},
};
use support::{
    NODE, OFFICIAL, SESSION, World,
    server::{Call, Node, Server},
};
use tokio::runtime::Runtime;

/// A service with one node, whose data channel is the test's.
struct Scene {
    calls: Arc<Mutex<Vec<Call>>>,
    server: Server,
    world: World,
    runtime: Runtime,
}

impl Scene {
    fn begin() -> Self {
        let runtime = Runtime::new().unwrap();
        let address = Arc::new(Mutex::new(String::new()));
        let own = Arc::clone(&address);
        let server = runtime.block_on(Server::start(move |call| {
            let body = match call.operation().as_str() {
                "StartSession" => json!({
                    "SessionId": SESSION,
                    "TokenValue": OFFICIAL,
                    "StreamUrl": *own.lock().unwrap(),
                }),
                "ResumeSession" => return (503, "{}".to_owned()),
                _ => json!({ "SessionId": SESSION }),
            };
            (200, body.to_string())
        }));
        *address.lock().unwrap() = server.stream_url();
        Self {
            calls: Arc::clone(&server.calls),
            server,
            world: World::start(OFFICIAL),
            runtime,
        }
    }

    /// `sortie exec OPTIONS NODE -- sh -c true`, with pipes.
    fn exec(&self, options: &[&str]) -> Child {
        let mut command = self.world.sortie(&["exec"]);
        command.args(options).args([NODE, "--", "sh", "-c", "true"]);
        command.env(
            "AWS_ENDPOINT_URL",
            format!("http://{}", self.server.address),
        );
        command.env("AWS_MAX_ATTEMPTS", "1");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn node(&mut self) -> Node {
        let mut node = Node::new(false);
        let peer = self.runtime.block_on(self.server.next_channel());
        node.attach(peer);
        node
    }

    fn calls(&self, operation: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        let of = calls.iter().filter(|call| call.operation() == operation);
        of.map(Call::json).collect()
    }
}

/// Asks the client, and waits for its answer: false when it leaves instead.
async fn shake_hands(node: &mut Node) -> bool {
    let session_type = SessionType::NonInteractiveCommands;
    let mut handshake = NodeHandshake::new(session_type, Value::Null, "");
    let request = handshake.start(node.now());
    node.send(request.payload_type, &request.payload);
    if !node.pump(|node| !node.other.is_empty()).await {
        return false;
    }
    let response = node.other.remove(0);
    let Ok(NodeStep::Complete { send, .. }) = handshake.receive(&response, node.now()) else {
        panic!("not answered");
    };
    node.send(send.payload_type, &send.payload);
    true
}

async fn end(node: &mut Node, code: Option<i32>) {
    if let Some(code) = code {
        let text = format!("EXIT_CODE: {code}");
        node.send(PayloadType::EXIT_CODE, text.as_bytes());
    }
    node.close("").await;
    node.pump_until_closed().await;
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Becomes true when the command's output begins so.
fn shown(child: &mut Child, text: &'static str) -> Arc<AtomicBool> {
    let is_shown = Arc::new(AtomicBool::new(false));
    let mut stdout = child.stdout.take().unwrap();
    let tell = Arc::clone(&is_shown);
    std::thread::spawn(move || {
        let mut bytes = vec![0; text.len()];
        stdout.read_exact(&mut bytes).unwrap();
        tell.store(bytes == text.as_bytes(), Ordering::Relaxed);
        // Open until the end: a closed output would be an end of its own.
        let _ = stdout.read_to_end(&mut bytes);
    });
    is_shown
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn an_official_agents_outputs_and_status_are_passed_on() {
    let mut scene = Scene::begin();
    let child = scene.exec(&["-n", "--reason", "because"]);
    let mut node = scene.node();
    scene.runtime.block_on(async {
        assert!(shake_hands(&mut node).await);
        node.output(b"out");
        node.send(PayloadType::STDERR, b"err");
        end(&mut node, Some(3)).await;
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"out"[..], &b"err"[..])
    );
    assert_eq!(
        scene.calls("StartSession"),
        [json!({
            "Target": NODE,
            "DocumentName": "AWS-StartNonInteractiveCommand",
            "Reason": "because",
            "Parameters": {"command": ["sh -c true"], "separateOutputStream": ["true"]},
        })]
    );
    assert!(scene.calls("TerminateSession").is_empty());
}

#[test]
fn input_that_an_official_agent_cannot_take_is_refused_before_the_command_runs() {
    let mut scene = Scene::begin();
    let mut child = scene.exec(&[]);
    child.stdin.take().unwrap().write_all(b"data").unwrap();
    let mut node = scene.node();
    let began = scene.runtime.block_on(shake_hands(&mut node));
    assert!(!began, "the command was let run");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(
        told(&output).contains("standard input"),
        "{}",
        told(&output)
    );
    assert_eq!(scene.calls("TerminateSession").len(), 1);
}

#[test]
fn an_empty_input_is_no_reason_to_refuse() {
    let mut scene = Scene::begin();
    let mut child = scene.exec(&[]);
    drop(child.stdin.take());
    let mut node = scene.node();
    scene.runtime.block_on(async {
        assert!(shake_hands(&mut node).await);
        end(&mut node, Some(0)).await;
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), told(&output).as_str()),
        (Some(0), "")
    );
}

#[test]
fn a_status_that_nobody_told_is_not_made_up() {
    let mut scene = Scene::begin();
    let child = scene.exec(&["-n"]);
    let mut node = scene.node();
    scene.runtime.block_on(async {
        assert!(shake_hands(&mut node).await);
        end(&mut node, None).await;
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(told(&output).contains("exit status"), "{}", told(&output));
}

#[test]
fn signals_become_control_bytes_or_the_end_of_the_session() {
    let mut scene = Scene::begin();
    let mut child = scene.exec(&["-n"]);
    let mut node = scene.node();
    scene.runtime.block_on(async {
        assert!(shake_hands(&mut node).await);
        node.output(b"ready");
        let shown = shown(&mut child, "ready");
        node.pump_until("the output", |_| shown.load(Ordering::Relaxed))
            .await;
        signal(&child, Signal::INT);
        node.pump_until("Ctrl-C", |node| node.input == [0x03]).await;
        signal(&child, Signal::TERM);
        node.pump_until_closed().await;
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", told(&output));
    assert_eq!(scene.calls("TerminateSession").len(), 1);
}

#[test]
fn a_person_can_leave_while_the_connection_is_away() {
    let mut scene = Scene::begin();
    let child = scene.exec(&["-n"]);
    let mut node = scene.node();
    scene.runtime.block_on(async {
        assert!(shake_hands(&mut node).await);
        node.output(b"ready");
        node.pump_until("the output to be taken", |node| node.link.drained())
            .await;
    });
    node.cut();
    sortie_testkit::wait_for("the client to try to come back", || {
        Ok((!scene.calls("ResumeSession").is_empty()).then_some(()))
    })
    .unwrap();
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    // Away or just given up: a failed session is our own failure.
    assert!(
        matches!(output.status.code(), Some(130 | 255)),
        "{output:?}"
    );
    assert_eq!(scene.calls("TerminateSession").len(), 1);
}

#[test]
fn a_session_for_terminals_is_said_to_be_one() {
    let mut scene = Scene::begin();
    let child = scene.exec(&["-n"]);
    let mut node = scene.node();
    scene.runtime.block_on(async {
        node.output(b"$ ");
        node.pump_until_closed().await;
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(told(&output).contains("-t"), "{}", told(&output));
    assert_eq!(scene.calls("TerminateSession").len(), 1);
}
