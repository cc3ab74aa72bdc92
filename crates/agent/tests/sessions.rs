//! Sessions, with real shells on real terminals, in processes of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::PathBuf,
    time::Duration,
};

use serde_json::json;
use sortie_channel::{features, service};
use support::{
    Node,
    server::{Server, stamp, start_content},
    shell::Shell,
    shell_document, within,
};

const SESSION: &str = "alice-0123456789abcdef0";

/// Every byte there is, then what UTF-8 decoders trip over, ending in the middle of a character.
fn awkward_bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend_from_slice(
        b"\xef\xbf\xbd\xc3\x28\xed\xa0\x80\xf8\x88\x80\x80\x80 \xf0\x9f\x98\x80 \xf0\x9f",
    );
    bytes
}

fn session_dir(node: &Node) -> PathBuf {
    node.data_dir().join("sessions").join(SESSION)
}

#[tokio::test]
async fn a_shell_runs_commands_and_its_exit_status_arrives_before_the_end() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    // A prompt, without anything being typed.
    shell
        .until_that("a prompt", |shell| !shell.output.is_empty())
        .await;
    shell.type_line("echo $((6 * 7))");
    shell.until("42").await;
    shell.type_line("exit 7");
    shell.until_terminating().await;
    assert_eq!(shell.exit_code.as_deref(), Some("EXIT_CODE: 7"));
    assert_eq!(shell.states, ["Connected", "Terminating"]);
    let (message_id, session_id, status, output) = control.result().await;
    assert_eq!(
        (session_id.as_str(), status.as_str(), output.as_str()),
        (SESSION, "Success", "")
    );
    control.acknowledge(message_id, SESSION).await;
    within("the session's directory to go", async {
        while session_dir(&node).exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn an_official_client_gets_its_prompt_at_once_and_no_private_message() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach_as(&server, SESSION, &[], None).await;
    shell
        .until_that("a prompt", |shell| !shell.output.is_empty())
        .await;
    shell.type_line("stty size; exit 3");
    shell.until_terminating().await;
    assert!(shell.text().contains("24 80"), "{}", shell.text());
    assert_eq!(shell.exit_code, None);
    node.stop().await;
}

#[tokio::test]
async fn the_size_is_there_before_the_first_command_and_follows_the_window() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let profile = json!({"shellProfile": {"linux": "stty size"}});
    control
        .start_session(SESSION, shell_document(profile))
        .await;
    let mut shell = Shell::attach_as(&server, SESSION, &features::ALL, Some((132, 50))).await;
    shell.until("50 132").await;
    shell.type_line("trap 'echo changed to $(stty size)' WINCH");
    shell.type_line("echo armed $((1 + 1))");
    shell.until("armed 2").await;
    shell.resize(100, 30);
    // Some shells run a trap only when they next look at their input.
    shell.type_line("");
    shell.until("changed to 30 100").await;
    // Absurd sizes change nothing.
    shell.resize(0, 70_000);
    shell.type_line("echo still $(stty size)");
    shell.until("still 30 100").await;
    node.stop().await;
}

#[tokio::test]
async fn control_characters_reach_the_program_in_front() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("(trap 'echo interrupted $((1 + 1)); exit' INT; echo waiting $((1 + 2)); while :; do sleep 0.05; done)");
    shell.until("waiting 3").await;
    shell.send_bytes(b"\x03");
    shell.until("interrupted 2").await;
    shell.type_line("(trap 'echo quit $((1 + 3)); exit' QUIT; echo waiting $((1 + 4)); while :; do sleep 0.05; done)");
    shell.until("waiting 5").await;
    shell.send_bytes(b"\x1c");
    shell.until("quit 4").await;
    shell.type_line("sh -c 'echo running $((1 + 5)); sleep 1000'");
    shell.until("running 6").await;
    shell.send_bytes(b"\x1a");
    shell.until("Stopped").await;
    shell.type_line("kill -9 %1; echo back $((1 + 6))");
    shell.until("back 7").await;
    node.stop().await;
}

#[tokio::test]
async fn the_end_of_input_ends_the_shell() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("PS1='go'' on> '");
    // At the prompt, where no other program reads the terminal.
    shell.until("go on> ").await;
    shell.send_bytes(b"\x04");
    shell.until_terminating().await;
    assert_eq!(shell.exit_code.as_deref(), Some("EXIT_CODE: 0"));
    node.stop().await;
}

#[tokio::test]
async fn bytes_pass_unchanged_in_both_directions() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let (sent, received) = (
        node.directory.path().join("sent"),
        node.directory.path().join("received"),
    );
    let bytes = awkward_bytes();
    std::fs::write(&sent, &bytes).unwrap();
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line(&format!(
        "stty raw -echo; echo ready $((1 + 1)); head -c {} > {}; echo taken $((1 + 2))",
        bytes.len(),
        received.display()
    ));
    shell.until("ready 2").await;
    shell.send_bytes(&bytes);
    shell.until("taken 3").await;
    assert_eq!(std::fs::read(&received).unwrap(), bytes);
    // The last bytes of a session arrive too, though no character ends there.
    shell.type_line(&format!(
        "stty raw -echo; printf 'begin>'; cat {}; exit",
        sent.display()
    ));
    shell.until_terminating().await;
    let begin = shell
        .output
        .windows(6)
        .rposition(|window| window == b"begin>")
        .unwrap()
        + 6;
    let arrived = &shell.output[begin..begin + bytes.len()];
    assert_eq!(arrived, bytes);
    node.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_connection_breaks_again_and_again() {
    const LINES: usize = 400_000;
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line(&format!(
        "stty -echo -opost; echo begin $((1 + 1)); seq {LINES}; exit 5"
    ));
    shell.until("begin 2\n").await;
    for part in 1..=6 {
        let enough = shell.output.len() + part * 50_000;
        shell
            .until_that("more output", |shell| shell.output.len() >= enough)
            .await;
        shell.break_connection();
        shell.accept().await;
    }
    shell.until_terminating().await;
    let expected: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    let text = shell.text();
    let (_, numbers) = text.split_once("begin 2\n").unwrap();
    assert!(numbers.starts_with(&expected), "the stream is damaged");
    assert_eq!(shell.exit_code.as_deref(), Some("EXIT_CODE: 5"));
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_the_program_up() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    let done = node.directory.path().join("done");
    shell.type_line(&format!(
        "stty -echo -opost; echo begin $((1 + 1)); head -c 8000000 /dev/zero | tr '\\0' x; touch {}; exit",
        done.display()
    ));
    shell.until("begin 2\n").await;
    // Nothing is acknowledged from here on.
    let finished = tokio::time::timeout(Duration::from_millis(500), async {
        while !done.exists() {
            tokio::task::yield_now().await;
        }
    });
    assert!(
        finished.await.is_err(),
        "the node took eight megabytes that nobody wanted"
    );
    shell.until_terminating().await;
    assert!(done.exists());
    let begin = shell
        .output
        .windows(8)
        .position(|window| window == b"begin 2\n")
        .unwrap()
        + 8;
    assert!(shell.output.len() - begin >= 8_000_000);
    assert!(
        shell.output[begin..begin + 8_000_000]
            .iter()
            .all(|&byte| byte == b'x')
    );
    node.stop().await;
}

#[tokio::test]
async fn a_new_agent_takes_over_the_sessions_of_the_old_one() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("echo before $((1 + 1))");
    shell.until("before 2").await;
    node.stop().await;
    drop(control);
    shell.type_line("echo meanwhile $((1 + 2))");
    shell.until("meanwhile 3").await;

    node.run();
    let mut control = server.control().await;
    assert_eq!(
        control.open.sessions.as_deref(),
        Some(&[SESSION.to_owned()][..])
    );
    shell.type_line("echo after $((1 + 3))");
    shell.until("after 4").await;
    // A second start of the same session is none.
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    control.close_session(SESSION).await;
    let (_, session_id, status, _) = control.result().await;
    assert_eq!((session_id.as_str(), status.as_str()), (SESSION, "Success"));
    node.stop().await;
}

#[tokio::test]
async fn a_result_is_kept_until_it_is_acknowledged() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("exit");
    shell.until_terminating().await;
    let first = control.result().await;
    // Lost by a broken connection, and by an agent that starts anew.
    drop(control);
    let mut control = server.control().await;
    assert_eq!(
        control.open.sessions.as_deref(),
        Some(&[SESSION.to_owned()][..])
    );
    assert_eq!(control.result().await, first);
    node.stop().await;
    let result = session_dir(&node).join("result.json");
    assert_eq!(std::fs::metadata(&result).unwrap().mode() & 0o777, 0o600);
    node.run();
    let mut control = server.control().await;
    assert_eq!(control.result().await, first);
    control.acknowledge(first.0, SESSION).await;
    within("the result to go", async {
        while result.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(control);
    assert_eq!(
        server.control().await.open.sessions.as_deref(),
        Some(&[][..])
    );
    node.stop().await;
}

#[tokio::test]
async fn cancelling_ends_every_process_of_the_session() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let marker = node.directory.path().join("pids");
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    // One in the background, one that ignores being hung up, the shell itself.
    shell.type_line(&format!(
        "sleep 1000 & echo $! > {0}; (trap '' HUP; exec sleep 1000) & echo $! >> {0}; echo $$ >> {0}; echo ready $((1 + 1))",
        marker.display()
    ));
    shell.until("ready 2").await;
    control.close_session(SESSION).await;
    assert_eq!(control.result().await.2, "Success");
    for pid in std::fs::read_to_string(&marker).unwrap().lines() {
        let process = PathBuf::from(format!("/proc/{pid}/exe"));
        within("the processes to end", async {
            // The link of one that has ended but was not reaped leads nowhere.
            while std::fs::read_link(&process).is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(shell.states, ["Connected"]);
    node.stop().await;
}

#[tokio::test]
async fn the_data_channel_can_end_a_session_too() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("echo ready $((1 + 1))");
    shell.until("ready 2").await;
    shell
        .gateway_sends(service::channel_closed(
            stamp(),
            SESSION,
            "",
            "idle for too long",
        ))
        .await;
    assert_eq!(control.result().await.2, "Success");
    node.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_is_reported() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("kill -9 $PPID");
    shell.flush().await;
    let (_, _, status, output) = control.result().await;
    assert_eq!(status, "Failed");
    assert!(output.contains("ended unexpectedly"), "{output}");
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_a_reason() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let cases = [
        (
            json!({"schemaVersion": "1.0", "sessionType": "InteractiveCommands"}),
            "no commands for this node's platform",
        ),
        (json!("nonsense"), "no JSON object"),
        (
            shell_document(json!({"runAsEnabled": true, "runAsDefaultUser": "nobody"})),
            "must run as root to use RunAs",
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
    // A server that is not ours gives no token, and gets no shell.
    let foreign = sortie_channel::body::StartContent {
        sortie: None,
        ..start_content(SESSION, shell_document(json!({})))
    };
    control
        .send(sortie_channel::control::interactive_shell(
            stamp(),
            &foreign,
        ))
        .await;
    let (_, _, status, output) = control.result().await;
    assert_eq!(status, "Failed");
    assert!(output.contains("Sortie server only"), "{output}");
    node.stop().await;
}

#[tokio::test]
async fn strangers_bytes_on_the_control_channel_change_nothing() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    let frame = sortie_channel::control::interactive_shell(
        stamp(),
        &start_content("../../etc", shell_document(json!({}))),
    );
    control.send(frame.clone()).await;
    control.send(frame.slice(..60)).await;
    control.send(bytes::Bytes::from_static(&[0xff; 300])).await;
    control.close_session("nobody-0123456789abcdef0").await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("echo alive $((1 + 1))");
    shell.until("alive 2").await;
    node.stop().await;
}

#[tokio::test]
async fn the_shell_gets_a_login_environment_and_nothing_of_the_agents() {
    let server = Server::start().await;
    let mut node = Node::start(&server).await;
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("echo \"$0 $TERM $LANG $PWD $HOME\" | sed 's/^/it says: /'; tr '\\0' '\\n' < /proc/$$/environ; ls -l /proc/$$/fd | sed 's/^/fd: /'; echo done $((1 + 1))");
    shell.until("done 2").await;
    let text = shell.text();
    assert!(text.contains("it says: -"), "no login shell: {text}");
    assert!(text.contains(" xterm-256color C.UTF-8 "), "{text}");
    for name in [
        "AWS_",
        "SORTIE_",
        "CARGO",
        "RUST",
        "NOTIFY_SOCKET",
        "SSL_CERT",
    ] {
        assert!(
            !text.lines().any(|line| line.starts_with(name)),
            "{name}: {text}"
        );
    }
    for line in text
        .lines()
        .filter(|line| line.starts_with("fd: ") && line.contains("->"))
    {
        let target = line.rsplit("-> ").next().unwrap();
        assert!(
            target.starts_with("/dev/pts/") || target.starts_with("pipe:"),
            "{line}"
        );
    }
    // What the worker leaves on the disk while it runs is nobody else's.
    let socket = std::fs::metadata(session_dir(&node).join("control")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::metadata(session_dir(&node).join("worker.json"))
            .unwrap()
            .mode()
            & 0o777,
        0o600
    );
    node.stop().await;
}

/// Needs root: makes the account `ssm-user`, as an agent that runs as root does.
#[tokio::test]
async fn a_session_of_another_account_finds_no_credentials() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Server::start().await;
    let mut node = Node::register(&server).await;
    node.run_as_self = false;
    node.run();
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    let data_dir = node.data_dir();
    shell.type_line("id -un | sed 's/^/i am /'; pwd | sed 's/^/i am in /'; stty -echo");
    shell.until("i am ssm-user").await;
    shell.until("i am in /home/ssm-user").await;
    shell.type_line(&format!(
        "for file in environ maps mem fd/0 cwd/x; do cat /proc/$PPID/$file; done; ls /proc/$PPID/fd; \
         cat {0}/node-key.pem {0}/registration.json; ls {0}; ls {0}/sessions/{SESSION}; \
         tr '\\0' ' ' < /proc/$PPID/cmdline; echo; grep -E '^(Uid|Groups)' /proc/$PPID/status; echo done $((1 + 1))",
        data_dir.display()
    ));
    shell.until("done 2").await;
    let text = shell.text();
    let refused = text.matches("ermission denied").count();
    assert_eq!(refused, 10, "{text}");
    assert!(
        text.contains(&format!("session-worker {SESSION}")),
        "{text}"
    );
    assert!(!text.contains("SRT1."), "{text}");
    assert!(
        !text.contains("Uid:\t0"),
        "the worker kept its rights: {text}"
    );
    control.close_session(SESSION).await;
    assert_eq!(control.result().await.2, "Success");

    for (user, reason) in [
        ("root", "do not run as root"),
        (
            "no-such-user-here",
            "RunAs user no-such-user-here does not exist",
        ),
    ] {
        let session_id = format!("{user}-0123456789abcdef0");
        let document = shell_document(json!({"runAsEnabled": true, "runAsDefaultUser": user}));
        control.start_session(&session_id, document).await;
        let (_, of, _, output) = control.result().await;
        assert_eq!(of, session_id);
        assert!(output.contains(reason), "{output}");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_agent_of_development_takes_its_sessions_along() {
    let server = Server::start().await;
    let mut node = Node::register(&server).await;
    node.end_sessions = true;
    node.run();
    let mut control = server.control().await;
    control
        .start_session(SESSION, shell_document(json!({})))
        .await;
    let mut shell = Shell::attach(&server, SESSION).await;
    shell.type_line("echo $$ is the shell $((1 + 1))");
    shell.until("is the shell 2").await;
    let worker = std::fs::read_to_string(session_dir(&node).join("worker.json")).unwrap();
    let worker: serde_json::Value = serde_json::from_str(&worker).unwrap();
    let stopping = std::time::Instant::now();
    tokio::join!(node.stop(), async {
        let (message_id, _, status, _) = control.result().await;
        assert_eq!(status, "Success");
        control.acknowledge(message_id, SESSION).await;
    });
    // Nothing was waited for until it was given up.
    assert!(
        stopping.elapsed() < Duration::from_secs(5),
        "{:?}",
        stopping.elapsed()
    );
    let process = PathBuf::from(format!("/proc/{}/exe", worker["pid"]));
    assert!(std::fs::read_link(process).is_err());
    assert!(!session_dir(&node).exists());
}
