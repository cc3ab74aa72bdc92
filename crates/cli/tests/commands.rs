//! The commands that ask and print.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::process::Output;

use serde_json::Value;
use support::{NODE, OURS, SESSION, World};

fn run(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = world.sortie(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn stdout(world: &World, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = run(world, arguments);
    assert_eq!((status, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

#[test]
fn nodes_of_all_pages_are_one_line_each_without_colour_in_a_pipe() {
    let world = World::start(OURS);
    let table = stdout(&world, &["nodes"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("NODE"), "{table}");
    let first: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(
        first,
        [
            NODE,
            "web",
            "Online",
            "Debian",
            "12",
            "10.0.0.1",
            "3.3.9999.0",
            "2026-05-04T08:00:00Z"
        ]
    );
    assert!(!table.contains('\x1b'));
}

#[test]
fn nodes_are_filtered_by_the_server_and_by_text() {
    let world = World::start(OURS);
    let table = stdout(
        &world,
        &[
            "nodes",
            "--online",
            "--platform",
            "macos",
            "--tag",
            "role=db",
            "DB",
        ],
    );
    assert_eq!(table.lines().count(), 3, "{table}");
    let filters = world.calls_of("DescribeInstanceInformation")[0].json()["Filters"].clone();
    assert_eq!(
        filters,
        serde_json::json!([
            {"Key": "PingStatus", "Values": ["Online"]},
            {"Key": "PlatformTypes", "Values": ["MacOS"]},
            {"Key": "tag:role", "Values": ["db"]},
        ])
    );
}

#[test]
fn json_is_the_services_own_form() {
    let world = World::start(OURS);
    let nodes: Value = serde_json::from_str(&stdout(&world, &["nodes", "--json"])).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 4);
    assert_eq!(nodes[0]["InstanceId"], NODE);
    let identity: Value = serde_json::from_str(&stdout(&world, &["whoami", "--json"])).unwrap();
    assert_eq!(identity["Account"], "111122223333");
    let sessions: Value =
        serde_json::from_str(&stdout(&world, &["sessions", "list", "--json"])).unwrap();
    assert_eq!(sessions[0]["SessionId"], SESSION);
}

#[test]
fn a_name_stands_for_its_node_and_an_ambiguous_one_for_an_error() {
    let world = World::start(OURS);
    let (status, _, stderr) = run(&world, &["start", "db"]);
    assert_eq!(status, 255);
    assert!(
        stderr.contains("mi-00000000000000002, mi-00000000000000003"),
        "{stderr}"
    );
    let (status, _, stderr) = run(&world, &["start", "nobody"]);
    assert_eq!(status, 255);
    assert!(
        stderr.contains("`nobody`") && stderr.contains("sortie-agent register"),
        "{stderr}"
    );
    let (status, _, stderr) = run(&world, &["start", "mail"]);
    assert_eq!(status, 255);
    assert!(
        stderr.contains("mi-00000000000000001 is not connected"),
        "{stderr}"
    );
    let calls = world.calls_of("StartSession");
    assert_eq!(calls.len(), 1);
}

#[test]
fn the_reason_goes_to_the_server() {
    let world = World::start(OURS);
    let (status, ..) = run(&world, &["start", "mail", "--reason", "disk full"]);
    assert_eq!(status, 255);
    assert_eq!(
        world.calls_of("StartSession")[0].json()["Reason"],
        "disk full"
    );
}

#[test]
fn sessions_are_listed_shown_and_ended() {
    let world = World::start(OURS);
    let active = stdout(&world, &["sessions", "list"]);
    assert!(
        active.contains(SESSION) && active.contains("Connected") && active.contains("because"),
        "{active}"
    );
    let history = stdout(&world, &["sessions", "list", "--history", "--node", "web"]);
    assert!(
        history.contains("Terminated") && history.contains("2026-05-04T08:01:00Z"),
        "{history}"
    );
    let calls = world.calls_of("DescribeSessions");
    assert_eq!(
        calls[1].json()["Filters"][0],
        serde_json::json!({"key": "Target", "value": NODE})
    );

    let ended = stdout(&world, &["sessions", "show", "someone-00000000000000001"]);
    assert!(
        ended.contains("Terminated") && ended.contains("Ended"),
        "{ended}"
    );
    let (status, _, stderr) = run(&world, &["sessions", "show", "nobody-0"]);
    assert_eq!(status, 255);
    assert!(stderr.contains("nobody-0"), "{stderr}");
    assert_eq!(
        stdout(&world, &["sessions", "terminate", SESSION]),
        format!("{SESSION}\n")
    );
    assert_eq!(world.count("TerminateSession"), 1);
}

#[test]
fn whoami_names_principal_and_server() {
    let world = World::start(OURS);
    let told = stdout(&world, &["whoami"]);
    assert!(
        told.starts_with("arn:aws:iam::111122223333:user/someone\n"),
        "{told}"
    );
    assert!(told.contains(&world.address.to_string()), "{told}");
}

#[test]
fn failures_are_255_with_a_reason_and_never_a_secret() {
    let world = World::start_with(OURS, |call| {
        (call.operation() == "GetCallerIdentity").then(|| {
            let body = "<ErrorResponse><Error><Code>InvalidClientTokenId</Code>\
                <Message>The security token included in the request is invalid.</Message></Error></ErrorResponse>";
            (403, body.to_owned())
        })
    });
    let (status, _, stderr) = run(&world, &["whoami"]);
    assert_eq!(status, 255);
    assert!(
        stderr.contains("InvalidClientTokenId") && stderr.contains("is invalid"),
        "{stderr}"
    );
    assert!(!stderr.contains("topsecret"), "{stderr}");
    let (status, _, stderr) = run(&world, &["--endpoint-url", "ftp://x", "whoami"]);
    assert_eq!(
        (status, stderr.contains("ftp://x")),
        (255, true),
        "{stderr}"
    );
    let (status, _, stderr) = run(&world, &["--ca-bundle", "/nonexistent.pem", "whoami"]);
    assert_eq!(
        (status, stderr.contains("/nonexistent.pem")),
        (255, true),
        "{stderr}"
    );
    let (status, ..) = run(&world, &["nonsense"]);
    assert_eq!(status, 255);
    let (status, stdout, _) = run(&world, &["--help"]);
    assert_eq!((status, stdout.contains("Usage")), (0, true));
}
