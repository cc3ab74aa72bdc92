//! Enrolment, and the node's identity afterwards: its key, its credentials, what it reports.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::{os::unix::fs::MetadataExt, process::Stdio};

use serde_json::Value;
use sortie_agent::{CallError, RegisterError, RegisterOptions};
use sortie_types::Secret;
use support::{Node, server::Server, within};
use tokio::io::AsyncWriteExt;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn a_registered_node_keeps_its_key_to_itself() {
    let server = Server::start().await;
    let node = Node::register(&server).await;

    let directory = node.data_dir();
    assert_eq!(mode(&directory), 0o700);
    for file in ["node-key.pem", "registration.json", "ca.pem"] {
        assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
    }
    let text = std::fs::read(directory.join("registration.json")).unwrap();
    let registration: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(registration["node_id"], node.node_id.as_str());
    assert!(
        !String::from_utf8(text).unwrap().contains("code-of-twenty"),
        "the code was kept"
    );
    let sent = server.seen(|seen| seen.registration.clone()).unwrap();
    assert_eq!(sent["PublicKeyType"], "Rsa");
    assert_eq!(sent["Fingerprint"], registration["fingerprint"]);
    assert_eq!(sent["Tags"][0]["Value"], "node-1");
}

#[tokio::test]
async fn a_refused_registration_says_why_and_leaves_nothing() {
    let server = Server::start().await;
    server.seen(|seen| seen.refuses_registration = Some("InvalidActivation"));
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, &server.ca_pem).unwrap();
    let options = || RegisterOptions {
        data_dir: directory.path().join("agent"),
        endpoint: server.endpoint(),
        activation_id: "0a1b2c3d-0000-4000-8000-000000000000".to_owned(),
        activation_code: Secret::new("code-of-twenty-characters"),
        ca_file: Some(ca_file.clone()),
        name: None,
        region: None,
        sudo: true,
    };

    let Err(RegisterError::Call(CallError::Refused(error))) =
        sortie_agent::register(options()).await
    else {
        panic!("it was not refused");
    };
    assert_eq!(error.code, "InvalidActivation");
    assert_eq!(
        std::fs::read_dir(directory.path().join("agent"))
            .unwrap()
            .count(),
        0
    );

    // Without its CA the server is a stranger.
    let untrusting = RegisterOptions {
        ca_file: None,
        ..options()
    };
    let refused = sortie_agent::register(untrusting).await;
    let untrusted = matches!(
        refused,
        Err(RegisterError::Call(CallError::Unreachable(_)) | RegisterError::Trust(_))
    );
    assert!(untrusted);
}

#[tokio::test]
async fn a_running_node_reports_its_facts_and_opens_a_control_channel() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;

    let control = server.control().await;
    assert_eq!(control.open.token.expose(), "SRT1.control");
    assert_eq!(control.open.platform_type, "linux");
    assert_eq!(control.open.sessions.as_deref(), Some(&[][..]));
    let announced = control.open.sortie.clone().unwrap();
    assert!(
        announced
            .features
            .iter()
            .any(|feature| feature == "exit-status")
    );

    let facts = within("the node's facts", async {
        loop {
            if let Some(facts) = server.seen(|seen| seen.information.clone()) {
                return facts;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(facts["InstanceId"], node.node_id.as_str());
    assert_eq!(facts["PlatformType"], "Linux");
    assert_eq!(facts["IPAddress"], "127.0.0.1");
    assert_eq!(
        facts["AgentVersion"].as_str().unwrap().split('.').count(),
        4
    );
    node.stop().await;
    assert!(server.seen(|seen| seen.refused.is_empty()));
}

#[tokio::test]
async fn the_control_channel_comes_back_by_itself() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let control = server.control().await;
    drop(control);
    server.control().await;
    node.stop().await;
}

#[tokio::test]
async fn only_one_agent_runs_with_a_directory() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let _control = server.control().await;
    let second = sortie_agent::run(sortie_agent::RunOptions::new(
        node.data_dir(),
        Default::default(),
    ))
    .await;
    assert!(
        matches!(second, Err(sortie_agent::RunError::Locked(_))),
        "{second:?}"
    );
    node.stop().await;
}

async fn until_new_key_is_used(server: &Server, old: &str) -> String {
    within("the new key to be used", async {
        loop {
            if let Some(key) = server
                .seen(|seen| seen.used_key.clone())
                .filter(|key| key != old)
            {
                return key;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn the_key_is_rotated_when_the_server_asks_for_it() {
    let server = Server::start().await;
    let mut node = Node::register(&server).await;
    let old = server.seen(|seen| {
        seen.wants_new_key = true;
        seen.keys[0].clone()
    });
    let old_file = std::fs::read(node.data_dir().join("node-key.pem")).unwrap();
    node.run();

    let new = until_new_key_is_used(&server, &old).await;
    // The old key is of no use any more, and the agent does not need it.
    server.seen(|seen| seen.keys = vec![new]);
    node.stop().await;
    assert_ne!(
        std::fs::read(node.data_dir().join("node-key.pem")).unwrap(),
        old_file
    );
    assert!(!node.data_dir().join("node-key.next.pem").exists());
    assert_eq!(mode(&node.data_dir().join("node-key.pem")), 0o600);
    let tokens = server.seen(|seen| seen.tokens);
    node.run();
    server.control().await;
    node.stop().await;
    server.seen(|seen| assert!(seen.tokens > tokens && seen.refused.is_empty()));
}

#[tokio::test]
async fn a_rotation_whose_answer_was_lost_is_settled_at_the_next_start() {
    let server = Server::start().await;
    let mut node = Node::register(&server).await;
    let old = server.seen(|seen| {
        seen.wants_new_key = true;
        seen.loses_update_answer = true;
        seen.keys[0].clone()
    });
    node.run();
    // It keeps working with what it has.
    let _control = server.control().await;
    within("the update to be lost", async {
        while server.seen(|seen| seen.loses_update_answer) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stop().await;
    assert!(node.data_dir().join("node-key.next.pem").exists());

    node.run();
    let new = until_new_key_is_used(&server, &old).await;
    node.stop().await;
    assert!(!node.data_dir().join("node-key.next.pem").exists());
    assert_eq!(server.seen(|seen| seen.keys[1].clone()), new);
}

#[tokio::test]
async fn a_new_key_that_the_server_never_took_is_thrown_away() {
    let server = Server::start().await;
    let mut node = Node::register(&server).await;
    let stray = {
        let other = Server::start().await;
        let other = Node::register(&other).await;
        std::fs::read(other.data_dir().join("node-key.pem")).unwrap()
    };
    std::fs::write(node.data_dir().join("node-key.next.pem"), stray).unwrap();
    node.run();
    server.control().await;
    node.stop().await;
    assert!(!node.data_dir().join("node-key.next.pem").exists());
    assert_eq!(
        server.seen(|seen| seen.refused.clone()),
        ["RequestManagedInstanceRoleToken"]
    );
}

fn program(arguments: &[&str]) -> tokio::process::Command {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_sortie-agent"));
    program
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    program
}

#[tokio::test]
async fn the_program_takes_the_code_from_standard_input() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, &server.ca_pem).unwrap();
    let data_dir = directory.path().join("agent");
    let arguments = [
        "register",
        "--endpoint",
        &server.endpoint(),
        "--activation-id",
        "0a1b2c3d-0000-4000-8000-000000000000",
        "--activation-code",
        "-",
        "--ca-file",
        ca_file.to_str().unwrap(),
        "--no-sudo",
        "--data-dir",
        data_dir.to_str().unwrap(),
    ];
    let mut child = program(&arguments).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"code-of-twenty-characters\n")
        .await
        .unwrap();
    let ended = within("the program to end", child.wait_with_output())
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&ended.stdout),
        "registered as mi-0123456789abcdef0\n"
    );
    let sent = server.seen(|seen| seen.registration.clone()).unwrap();
    assert_eq!(sent["ActivationCode"], "code-of-twenty-characters");
    let text = std::fs::read(data_dir.join("registration.json")).unwrap();
    let registration: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(registration["sudo"], false);
}

#[tokio::test]
async fn an_unregistered_machine_has_no_agent_to_run() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["run", "--data-dir", directory.path().to_str().unwrap()];
    let ended = within("the program to end", program(&arguments).output())
        .await
        .unwrap();
    assert_eq!(ended.status.code(), Some(78));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("run sortie-agent register first"), "{said}");
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "register",
        "--endpoint",
        "http://192.0.2.1",
        "--activation-id",
        "0a1b2c3d-0000-4000-8000-000000000000",
        "--activation-code",
        "code-of-twenty-characters",
        "--data-dir",
        directory.path().to_str().unwrap(),
    ];
    let ended = within("the program to end", program(&arguments).output())
        .await
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("use https") && !said.contains("twenty"),
        "{said}"
    );
}
