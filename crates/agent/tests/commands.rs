//! Sessions that run a command, with real commands in processes of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sortie_channel::{features, frame::PayloadType, stdin};
use support::{
    Node, command_document,
    server::{Control, Server},
    shell::Shell,
    within,
};

const SESSION: &str = "alice-0123456789abcdef0";
/// What every client of ours can do.
const OURS: &[&str] = &features::ALL;
const OFFICIAL: &[&str] = &[];

fn command(commands: &str) -> Value {
    command_document("NonInteractiveCommands", commands)
}

/// `script` for a shell of its own.
fn script(script: &str) -> Value {
    command(&format!("sh -c '{}'", script.replace('\'', r"'\''")))
}

fn separated(commands: &str, output: &str, error: &str) -> Value {
    let mut document = command(commands);
    let here = &mut document["properties"]["linux"];
    here["separateOutputStream"] = json!("true");
    here["stdOutSeparatorPrefix"] = json!(output);
    here["stdErrSeparatorPrefix"] = json!(error);
    document
}

async fn begin<'a>(
    server: &'a Server,
    control: &mut Control,
    document: Value,
    features: &[&str],
) -> Shell<'a> {
    begin_as(SESSION, server, control, document, features).await
}

async fn begin_as<'a>(
    session_id: &str,
    server: &'a Server,
    control: &mut Control,
    document: Value,
    features: &[&str],
) -> Shell<'a> {
    control.start_session(session_id, document).await;
    let mut client = Shell::attach_as(server, session_id, features, None).await;
    client.until_ready().await;
    client
}

/// Every byte there is, in an order that repeats late.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn is_alive(pid: &str) -> bool {
    // The link of one that has ended but was not reaped leads nowhere.
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

async fn until_dead(pid: &str) {
    within("a process to end", async {
        while is_alive(pid) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The most memory that the session's process ever had, in bytes.
fn peak_memory(node: &Node) -> u64 {
    let worker = node.data_dir().join("sessions").join(SESSION);
    let worker = std::fs::read_to_string(worker.join("worker.json")).unwrap();
    let worker: Value = serde_json::from_str(&worker).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker["pid"])).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn the_exit_status_is_the_commands_whatever_it_was() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let cases = [
        (command("true"), 0, ""),
        (command("false"), 1, ""),
        (script("exit 42"), 42, ""),
        (script("exit 255"), 255, ""),
        (script("kill -9 $$"), 137, ""),
        (script("kill -TERM $$"), 143, ""),
        (
            command("no-such-command-here x"),
            127,
            "cannot run no-such-command-here: not found\n",
        ),
        (
            command("./nowhere/here"),
            127,
            "cannot run ./nowhere/here: ",
        ),
        (
            command("/etc/passwd"),
            126,
            "cannot run /etc/passwd: permission denied\n",
        ),
    ];
    for (number, (document, code, error)) in cases.into_iter().enumerate() {
        let session_id = format!("bob-{number:017x}");
        let mut client = begin_as(&session_id, &server, &mut control, document, OURS).await;
        client.until_terminating().await;
        assert_eq!(client.exit_code, Some(format!("EXIT_CODE: {code}")));
        let errors = String::from_utf8_lossy(&client.errors);
        assert!(errors.starts_with(error), "{errors}");
        assert_eq!(errors.is_empty(), error.is_empty(), "{errors}");
        let (message_id, of, status, output) = control.result().await;
        assert_eq!(
            (of.as_str(), status.as_str()),
            (session_id.as_str(), "Success")
        );
        assert_eq!(output, "");
        control.acknowledge(message_id, &session_id).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn words_are_passed_as_they_are_and_no_shell_sees_them() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let document =
        command(r#"printf '<%s>\n' 'a b' "c'd" $HOME `id` $(id) '' ; id | id > x && * "#);
    let mut client = begin(&server, &mut control, document, OURS).await;
    client.until_terminating().await;
    assert_eq!(
        client.text(),
        "<a b>\n<c'd>\n<$HOME>\n<`id`>\n<$(id)>\n<>\n<;>\n<id>\n<|>\n<id>\n<>>\n<x>\n<&&>\n<*>\n"
    );
    assert_eq!(client.states, ["Connected", "Terminating"]);
    node.stop().await;
}

#[tokio::test]
async fn a_command_finds_a_login_environment_and_no_terminal() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "env | cut -d= -f1 | sort | tr \"\\n\" \" \"; test \"$PWD\" = \"$HOME\" && echo at home; \
         tty; ls -l /proc/$$/fd; ps -o pid=,sid=,pgid= -p $$";
    let mut client = begin(&server, &mut control, script(text), OURS).await;
    client.until_terminating().await;
    let text = client.text();
    // The shell itself adds `PWD`, and some `OLDPWD`, `SHLVL` and `_`.
    let names = text.lines().next().unwrap().replace("at home", "");
    let names: Vec<&str> = names
        .split_whitespace()
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]);
    assert!(text.contains("at home\nnot a tty"), "{text}");
    let descriptors = text.lines().filter(|line| line.contains("->"));
    for line in descriptors {
        let target = line.rsplit("-> ").next().unwrap();
        assert!(target.starts_with("pipe:"), "{line}");
    }
    let ids = text.lines().last().unwrap().split_whitespace();
    let ids: std::collections::HashSet<&str> = ids.collect();
    assert_eq!(ids.len(), 1, "no session and group of its own: {text}");
    node.stop().await;
}

#[tokio::test]
async fn sixty_four_mebibytes_go_through_a_command_unchanged_over_broken_connections() {
    const LENGTH: usize = 64 << 20;
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let mut client = begin(&server, &mut control, command("cat"), OURS).await;
    let bytes = noise(LENGTH);
    let mut sent = 0;
    let mut breaks = 1;
    while sent < LENGTH {
        let piped = client.pipe(&bytes[sent..]);
        sent += piped;
        if sent > breaks * LENGTH / 4 {
            breaks += 1;
            client.break_connection();
        }
        if piped == 0 {
            client.step().await;
        }
    }
    client.send(PayloadType::STDIN_EOF, &[0]);
    let memory = peak_memory(&node);
    client.until_terminating().await;
    assert!(client.output == bytes, "the bytes are damaged");
    assert!(client.errors.is_empty());
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 0"));
    assert!(
        memory < 40 << 20,
        "the session's process had {memory} bytes"
    );
    node.stop().await;
}

#[tokio::test]
async fn outputs_go_apart_and_keep_their_order() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "for i in $(seq 20000); do echo out $i; echo err $i >&2; done";
    let mut client = begin(&server, &mut control, script(text), OURS).await;
    client.until_terminating().await;
    let lines = |name: &str| -> String { (1..=20_000).map(|i| format!("{name} {i}\n")).collect() };
    assert!(client.output == lines("out").as_bytes());
    assert!(client.errors == lines("err").as_bytes());
    node.stop().await;
}

#[tokio::test]
async fn input_that_is_not_read_stops_the_sender_and_holds_up_no_signal() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let mut client = begin(
        &server,
        &mut control,
        script("echo ready; sleep 1000"),
        OURS,
    )
    .await;
    client.until("ready").await;
    let bytes = vec![b'x'; 16 << 20];
    let mut sent = 0;
    while client.sent - client.taken < stdin::WINDOW as u64 {
        sent += client.pipe(&bytes[sent..]);
        client.step().await;
    }
    // A pipe's worth was taken, by nobody.
    assert!(client.taken <= 1 << 20, "{}", client.taken);
    client.send(PayloadType::SIGNAL, b"INT");
    client.until_terminating().await;
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 130"));
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_keeps_to_no_window_is_stopped_all_the_same() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "echo ready; read line; echo $line; wc -c";
    let mut client = begin(&server, &mut control, script(text), OURS).await;
    client.until("ready").await;
    let bytes = vec![b'x'; 64 << 20];
    let mut sent = 0;
    // More than every buffer on the way together holds, as fast as the link takes it.
    let give_up = Instant::now() + Duration::from_secs(2);
    while sent < bytes.len() && Instant::now() < give_up {
        let room = client.writable().min(64 * 1024).min(bytes.len() - sent);
        if room > 0 {
            client.send_bytes(&bytes[sent..sent + room]);
            sent += room;
        }
        client.step().await;
    }
    assert!(sent < 16 << 20, "{sent} bytes were taken by nobody");
    assert!(peak_memory(&node) < 40 << 20);
    node.stop().await;
}

#[tokio::test]
async fn signals_reach_every_process_of_the_command() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "trap \"echo hung up\" HUP; trap \"echo first; wait; exit 5\" USR1; \
         sh -c \"trap \\\"echo second; exit\\\" USR1; echo ready; while :; do sleep 0.02; done\" & \
         while :; do wait; done";
    let mut client = begin(&server, &mut control, script(text), OURS).await;
    client.until("ready").await;
    client.send(PayloadType::SIGNAL, b"NONSENSE");
    client.send(PayloadType::SIGNAL, b"\xff");
    client.send(PayloadType::SIGNAL, b"");
    client.send(PayloadType::SIGNAL, b"USR1");
    client.until_terminating().await;
    let text = client.text();
    assert!(
        text.contains("first\n") && text.contains("second\n"),
        "{text}"
    );
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 5"));
    node.stop().await;
}

#[tokio::test]
async fn a_command_whose_output_nobody_reads_is_told_as_by_a_pipe() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let mut client = begin(&server, &mut control, command("yes"), OURS).await;
    client.until("y\ny\n").await;
    client.send(PayloadType::SIGNAL, b"PIPE");
    client.until_terminating().await;
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 141"));
    node.stop().await;
}

#[tokio::test]
async fn the_end_of_input_arrives_behind_it() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let mut client = begin(&server, &mut control, command("wc -c"), OURS).await;
    client.pipe(b"\x03\x1c\x04four");
    client.send(PayloadType::STDIN_EOF, &[0]);
    // Nothing comes after the end.
    client.send_bytes(b"more");
    client.until_terminating().await;
    assert_eq!(client.text().trim(), "7");
    node.stop().await;
}

#[tokio::test]
async fn an_official_client_gets_both_outputs_together_in_their_order() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "for i in $(seq 2000); do echo out $i; echo err $i >&2; done; cat; exit 3";
    let mut client = begin(&server, &mut control, script(text), OFFICIAL).await;
    client.until_terminating().await;
    let expected: String = (1..=2000).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert!(client.output == expected.as_bytes(), "{}", client.text());
    assert!(client.errors.is_empty());
    // Merged output brings no exit status there.
    assert_eq!(client.exit_code, None);
    assert_eq!(client.customer_message, "");
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}

#[tokio::test]
async fn an_official_client_signals_by_control_bytes_and_types_nothing_else() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "trap \"echo interrupted\" INT; trap \"echo quit; exit 4\" QUIT; \
         echo ready; cat; while :; do sleep 0.02; done";
    let mut client = begin(&server, &mut control, script(text), OFFICIAL).await;
    client.until("ready").await;
    client.send_bytes(b"echo typed; exit 9\n\x1a");
    client.resize(100, 30);
    client.send_bytes(b"\x03");
    client.until("interrupted").await;
    client.send_bytes(b"a\x1cb");
    client.until_terminating().await;
    assert!(client.text().ends_with("quit\n"), "{}", client.text());
    assert!(!client.text().contains("typed"), "{}", client.text());
    node.stop().await;
}

#[tokio::test]
async fn a_document_can_separate_and_mark_the_outputs() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "sh -c 'printf one; echo bad >&2; exit 6'";
    let document = separated(text, "OUT:\n", "ERR:");
    let mut client = begin(&server, &mut control, document, OFFICIAL).await;
    client.until_terminating().await;
    assert_eq!(client.text(), "OUT:\none");
    assert_eq!(String::from_utf8_lossy(&client.errors), "ERR:bad\n");
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 6"));
    node.stop().await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_holds_up_nothing_and_lives_on() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "sleep 1000 & echo $!; exit 8";
    let mut client = begin(&server, &mut control, script(text), OURS).await;
    client.until_terminating().await;
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 8"));
    let pid = client.text().trim().to_owned();
    assert_eq!(control.result().await.2, "Success");
    assert!(is_alive(&pid));
    kill(&pid);
    node.stop().await;
}

#[tokio::test]
async fn a_flood_from_the_background_ends_with_the_command_soon_after() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "yes & echo $! >&2; exit 9";
    let mut client = begin(&server, &mut control, script(text), OURS).await;
    client.until_terminating().await;
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 9"));
    // It writes into a pipe that nobody reads.
    until_dead(String::from_utf8_lossy(&client.errors).trim()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_late_reader_gets_all_that_the_command_wrote() {
    const LENGTH: usize = 1_200_000;
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let done = node.directory.path().join("done");
    let text = format!(
        "head -c {LENGTH} /dev/zero; (sleep 3; touch {}) & exit 7",
        done.display()
    );
    let mut client = begin(&server, &mut control, script(&text), OURS).await;
    // Nothing is acknowledged until the command is over for long.
    until_there(&done).await;
    client.until_terminating().await;
    assert_eq!(client.output.len(), LENGTH);
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 7"));
    node.stop().await;
}

async fn until_there(path: &Path) {
    within("a file", async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn cancelling_ends_every_process_of_the_command() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let tidied = node.directory.path().join("tidied");
    // One that tidies up, one that takes no notice, the command itself.
    let text = format!(
        "sh -c \"trap \\\"touch {0}; exit\\\" TERM; echo \\$\\$; while :; do sleep 0.02; done\" & \
         sh -c \"trap : TERM HUP; echo \\$\\$; while :; do sleep 0.02; done\" & echo $$; wait; wait; wait",
        tidied.display()
    );
    let mut client = begin(&server, &mut control, script(&text), OURS).await;
    client
        .until_that("three numbers", |client| {
            client
                .text()
                .lines()
                .filter(|line| !line.is_empty())
                .count()
                == 3
        })
        .await;
    control.close_session(SESSION).await;
    assert_eq!(control.result().await.2, "Success");
    for pid in client.text().lines() {
        until_dead(pid).await;
    }
    assert!(tidied.exists());
    assert_eq!(client.states, ["Connected"]);
    node.stop().await;
}

#[tokio::test]
async fn a_flood_that_takes_no_notice_of_its_end_is_ended() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let text = "trap \"\" TERM HUP INT PIPE; echo $$ >&2; exec yes";
    let mut client = begin(&server, &mut control, script(text), OURS).await;
    client.until("y\ny\n").await;
    control.close_session(SESSION).await;
    assert_eq!(control.result().await.2, "Success");
    until_dead(String::from_utf8_lossy(&client.errors).trim()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_new_agent_takes_over_a_command() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let mut client = begin(&server, &mut control, command("cat"), OURS).await;
    client.pipe(b"before ");
    client.until("before ").await;
    node.stop().await;
    drop(control);
    client.pipe(b"meanwhile ");
    client.until("meanwhile ").await;
    node.run();
    let mut control = server.control().await;
    assert_eq!(
        control.open.sessions.as_deref(),
        Some(&[SESSION.to_owned()][..])
    );
    client.pipe(b"after");
    client.send(PayloadType::STDIN_EOF, &[0]);
    client.until_terminating().await;
    assert_eq!(client.text(), "before meanwhile after");
    let (_, session_id, status, _) = control.result().await;
    assert_eq!((session_id.as_str(), status.as_str()), (SESSION, "Success"));
    node.stop().await;
}

#[tokio::test]
async fn interactive_commands_have_a_terminal_and_end_with_their_status() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let commands = "echo \"$0 $TERM $(tty | cut -c1-9)\"; read line; echo \"<$line>\"; exit 12";
    let document = command_document("InteractiveCommands", commands);
    control.start_session(SESSION, document).await;
    let mut client = Shell::attach(&server, SESSION).await;
    client.until("xterm-256color /dev/pts/").await;
    client.type_line("typed");
    client.until("<typed>").await;
    client.until_terminating().await;
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 12"));
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}

/// What a person can do at the terminal of a document that runs `tail` on one file.
#[tokio::test]
async fn nothing_typed_at_interactive_commands_becomes_a_command() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let (log, marker) = (
        node.directory.path().join("app.log"),
        node.directory.path().join("marker"),
    );
    std::fs::write(&log, "first line\n").unwrap();
    let mut document =
        command_document("InteractiveCommands", &format!("tail -f {}", log.display()));
    // Belongs to shells, and is typed into nothing else.
    document["inputs"] = json!({"shellProfile": {"linux": format!("touch {}", marker.display())}});
    control.start_session(SESSION, document).await;
    let mut client = Shell::attach(&server, SESSION).await;
    client.until("first line").await;
    let attempt = format!("touch {}\r", marker.display());
    for escape in [
        "",
        "!",
        ":!",
        "\x1b:!",
        "\x04",
        "\x1a",
        "\x1a\rbg\r",
        "$(",
        "\r;",
        "\x11",
        "\x13\x11",
        "~C",
        "\x1d",
        "\x16\x03",
    ] {
        client.send_bytes(escape.as_bytes());
        client.send_bytes(attempt.as_bytes());
    }
    client.send(PayloadType::SIGNAL, b"CONT");
    client.send(PayloadType::STDIN_EOF, &[0]);
    // A terminal that takes Ctrl-Z throws away what it was about to show.
    client.until("^\u{8}^C").await;
    std::fs::write(&log, "first line\nsecond line\n").unwrap();
    client.until("second line").await;
    client.send_bytes(b"\x03");
    client.send_bytes(attempt.as_bytes());
    client.until_terminating().await;
    assert_eq!(client.exit_code.as_deref(), Some("EXIT_CODE: 130"));
    assert!(!marker.exists());
    node.stop().await;
}

#[tokio::test]
async fn command_documents_that_cannot_be_run_are_refused() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let mut with_key = command("true");
    with_key["inputs"] = json!({"kmsKeyId": "alias/sessions"});
    let mut as_nobody = command("true");
    as_nobody["inputs"] = json!({"runAsEnabled": true, "runAsDefaultUser": "nobody"});
    let cases = [
        (with_key, "KMS"),
        (as_nobody, "must run as root to use RunAs"),
        (command("echo 'open"), "not closed"),
        (command(" "), "no commands"),
        (separated("true", "", "a b"), "separator prefix"),
        (
            json!({"schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
                "properties": {"windows": {"commands": "dir"}}}),
            "no commands for this node's platform",
        ),
    ];
    for (number, (document, reason)) in cases.into_iter().enumerate() {
        let session_id = format!("bob-{number:017x}");
        control.start_session(&session_id, document).await;
        let (message_id, of, status, output) = control.result().await;
        assert_eq!((of, status.as_str()), (session_id.clone(), "Failed"));
        assert!(output.contains(reason), "{output}");
        control.acknowledge(message_id, &session_id).await;
    }
    node.stop().await;
}

/// Needs root: makes the account `ssm-user`, as an agent that runs as root does.
#[tokio::test]
async fn elevated_commands_run_as_root_and_others_do_not() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Server::start().await;
    let mut node = Node::register(&server).await;
    node.run_as_self = false;
    node.run();
    let mut control = server.control().await;
    let elevated = |session_type: &str| {
        let mut document = command_document(session_type, "id -un");
        document["properties"]["linux"]["runAsElevated"] = json!(true);
        document
    };
    let mut as_nobody = command("id -un");
    as_nobody["inputs"] = json!({"runAsEnabled": true, "runAsDefaultUser": "nobody"});
    let cases = [
        (command("id -un"), "ssm-user"),
        (elevated("NonInteractiveCommands"), "root"),
        (elevated("InteractiveCommands"), "root"),
        (elevated("Standard_Stream"), "root"),
        (as_nobody, "nobody"),
    ];
    for (number, (mut document, user)) in cases.into_iter().enumerate() {
        let session_id = format!("bob-{number:017x}");
        let is_shell = document["sessionType"] == "Standard_Stream";
        if is_shell {
            document["properties"]["linux"]["commands"] = json!("");
            document["inputs"] = json!({"shellProfile": {"linux": "id -un; exit"}});
        }
        control.start_session(&session_id, document).await;
        let mut client = Shell::attach(&server, &session_id).await;
        client.until_terminating().await;
        let text = client.text();
        assert!(
            text.lines().any(|line| line.trim().ends_with(user)),
            "{text}"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn a_handshake_that_an_official_client_never_answers_fails_the_session() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control.start_session(SESSION, command("true")).await;
    let mut client = Shell::attach_as(&server, SESSION, OFFICIAL, None).await;
    client.is_mute = true;
    let begun = Instant::now();
    let (_, _, status, output) = loop {
        tokio::select! {
            result = control.result() => break result,
            () = client.step() => {}
        }
    };
    assert_eq!(status, "Failed");
    assert!(output.contains("handshake timed out"), "{output}");
    assert!(begun.elapsed() > Duration::from_secs(14));
    node.stop().await;
}
