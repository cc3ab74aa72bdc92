//! The `session-manager-plugin` personality: AWS's arguments and AWS's lines.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::{
    io::Write,
    process::{Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sortie_testkit::Terminal;
use support::{OFFICIAL, OURS, SESSION, World};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn banner() -> String {
    format!("\nStarting session with SessionId: {SESSION}\n")
}

fn run(world: &World, arguments: &[&str]) -> Output {
    let plugin = world.install_plugin();
    world.command(&plugin).args(arguments).output().unwrap()
}

#[test]
fn the_version_is_four_numbers_above_what_the_aws_cli_asks_for() {
    let world = World::start(OURS);
    let output = run(&world, &["--version"]);
    assert!(output.status.success());
    let version: Vec<u64> = text(&output.stdout)
        .trim_end()
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    assert!(
        version.as_slice() > &[1, 2, 764, 0] && version.len() == 4,
        "{version:?}"
    );
}

#[test]
fn by_itself_it_says_that_it_is_installed() {
    let world = World::start(OURS);
    let output = run(&world, &[]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("session-manager-plugin"));
}

#[test]
fn bad_invocations_fail_with_a_reason_and_without_the_token() {
    let world = World::start(OURS);
    let response = r#"{"SessionId":"s","TokenValue":"topsecret","StreamUrl":"ws://127.0.0.1:1/"}"#;
    for (arguments, reason) in [
        (vec!["one"], "unknown operation"),
        (vec!["one", "two"], "unknown operation"),
        (vec![response, "r", "Stop"], "invalid operation `Stop`"),
        (vec!["nonsense", "r", "StartSession"], "not a JSON object"),
        (
            vec![r#"{"SessionId":"s"}"#, "r", "StartSession"],
            "has no TokenValue",
        ),
        (
            vec!["AWS_SSM_START_SESSION_RESPONSE9", "r", "StartSession"],
            "is not set",
        ),
        (
            vec![response, "r", "StartSession", "", "topsecret"],
            "argument 5",
        ),
        (vec![response, "r", "StartSession", "nobody"], "nobody"),
    ] {
        let output = run(&world, &arguments);
        assert_eq!(output.status.code(), Some(255), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.contains(reason), "{arguments:?}: {told}");
        assert!(!told.contains("topsecret"), "{told}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_shell_on_a_terminal_begins_and_ends_with_awss_lines() {
    for token in [OURS, OFFICIAL] {
        let world = World::start(token);
        let mut terminal = Terminal::open(&world.plugin(token), 80, 24).unwrap();
        terminal.until("ready> ").unwrap();
        assert!(!terminal.is_cooked().unwrap());
        // Escapes are the remote shell's, as with AWS's plugin.
        terminal.keys("~.\r").unwrap();
        world.node_sees("the keys", |seen| seen.input == b"~.\r");
        terminal.line("size").unwrap();
        terminal.until("size is 80x24").unwrap();
        terminal.line("exit 9").unwrap();
        let status = terminal.exit_status().unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(terminal.is_cooked().unwrap());
        let shown = terminal.shown().replace("\r\n", "\n");
        assert!(shown.starts_with(&banner()), "{shown}");
        assert!(
            shown.ends_with(&format!(
                "\n\nExiting session with sessionId: {SESSION}.\n\n"
            )),
            "{shown}"
        );
        assert_eq!(world.count("TerminateSession"), 0);
    }
}

#[test]
fn signals_of_the_keyboard_are_typed() {
    let world = World::start(OURS);
    let mut terminal = Terminal::open(&world.plugin(OURS), 80, 24).unwrap();
    terminal.until("ready> ").unwrap();
    let pid = Pid::from_raw(i32::try_from(terminal.process_id()).unwrap()).unwrap();
    for (signal, key) in [
        (Signal::INT, 0x03),
        (Signal::QUIT, 0x1c),
        (Signal::TSTP, 0x1a),
    ] {
        kill_process(pid, signal).unwrap();
        world.node_sees("the key", |seen| seen.input.last() == Some(&key));
    }
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(terminal.exit_status().unwrap().code(), Some(255));
    assert!(terminal.is_cooked().unwrap());
}

#[test]
fn the_servers_reason_is_shown_in_awss_form() {
    let world = World::start(OURS);
    let mut terminal = Terminal::open(&world.plugin(OURS), 80, 24).unwrap();
    terminal.until("ready> ").unwrap();
    terminal.line("idle").unwrap();
    assert_eq!(terminal.exit_status().unwrap().code(), Some(0));
    let shown = terminal.shown().replace("\r\n", "\n");
    assert!(
        shown.ends_with(&format!(
            "\n\nSessionId: {SESSION} : idle for 20 minutes\n\n"
        )),
        "{shown}"
    );
}

#[test]
fn a_session_that_is_gone_has_timed_out() {
    let world = World::start(OFFICIAL);
    let mut terminal = Terminal::open(&world.plugin(OFFICIAL), 80, 24).unwrap();
    terminal.until("ready> ").unwrap();
    terminal.line("cut").unwrap();
    assert_eq!(terminal.exit_status().unwrap().code(), Some(0));
    terminal
        .until(&format!("Session: {SESSION} timed out."))
        .unwrap();
    assert_eq!(world.count("ResumeSession"), 1);
}

#[test]
fn the_end_of_the_input_ends_the_program_once_all_of_it_is_delivered() {
    let world = World::start(OURS);
    let mut child = world
        .plugin(OURS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = vec![b'x'; 300_000];
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stdout = text(&output.stdout);
    assert!(
        stdout.starts_with(&format!("{}ready> ", banner())),
        "{stdout}"
    );
    assert!(
        stdout.ends_with("Cannot perform start session: EOF\n"),
        "{stdout}"
    );
    world.node_sees("the input", |seen| seen.input == input);
    assert_eq!(world.count("TerminateSession"), 0);
}

#[test]
fn the_variable_with_the_token_is_not_handed_on() {
    let world = World::start(OFFICIAL);
    let aws = world.folder.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let seen = world.folder.path().join("environment");
    std::fs::write(
        aws.join("config"),
        format!(
            "[profile p]\ncredential_process = sh -c 'env > {}; false'\n",
            seen.display()
        ),
    )
    .unwrap();
    let mut command = world.plugin(OFFICIAL);
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut with_profile = world.command(std::path::Path::new(command.get_program()));
    with_profile.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    for (index, argument) in arguments.iter().enumerate() {
        with_profile.arg(if index == 3 {
            std::ffi::OsStr::new("p")
        } else {
            argument
        });
    }
    command = with_profile;
    let mut terminal = Terminal::open(&command, 80, 24).unwrap();
    terminal.until("ready> ").unwrap();
    // Resuming needs credentials, so the process is run.
    terminal.line("cut").unwrap();
    assert_eq!(terminal.exit_status().unwrap().code(), Some(255));
    let environment = std::fs::read_to_string(seen).unwrap();
    assert!(environment.contains("AWS_REGION"), "{environment}");
    assert!(
        !environment.contains("AWS_SSM_START_SESSION_RESPONSE"),
        "{environment}"
    );
    assert!(!terminal.shown().contains("topsecret"));
}
