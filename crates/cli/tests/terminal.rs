//! `sortie start` on a pseudo terminal, as a person uses it: the terminal is raw while the session
//! runs and as it was on every way out.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use sortie_testkit::{Terminal, wait_for};
use support::{NODE, OFFICIAL, OURS, SESSION, World};

/// A shell on a terminal, its prompt shown.
fn start(world: &World) -> Terminal {
    let mut terminal = Terminal::open(&world.sortie(&["start", NODE]), 80, 24).unwrap();
    terminal.until("ready> ").unwrap();
    assert!(
        !terminal.is_cooked().unwrap(),
        "the terminal is raw in a session"
    );
    terminal
}

fn exit_code(terminal: &mut Terminal) -> i32 {
    let status = terminal.exit_status().unwrap();
    assert!(terminal.is_cooked().unwrap(), "the terminal is as it was");
    status.code().unwrap_or_else(|| panic!("{status}"))
}

fn signal(terminal: &Terminal, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(terminal.process_id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn the_exit_status_is_the_remote_commands() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    terminal.line("exit 7").unwrap();
    assert_eq!(exit_code(&mut terminal), 7);
    assert!(
        terminal
            .shown()
            .contains(&format!("Session {SESSION} ended."))
    );
    assert_eq!(world.count("TerminateSession"), 0);
}

#[test]
fn a_server_that_is_not_ours_is_no_different_but_for_the_status() {
    let world = World::start(OFFICIAL);
    let mut terminal = start(&world);
    terminal.line("size").unwrap();
    terminal.until("size is 80x24").unwrap();
    terminal.line("exit 7").unwrap();
    assert_eq!(exit_code(&mut terminal), 7);
}

#[test]
fn tilde_dot_leaves_and_ends_the_session() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    terminal.keys("ls ~.").unwrap();
    terminal.until("ls ~.").unwrap();
    terminal.keys("\r~.").unwrap();
    assert_eq!(exit_code(&mut terminal), 255);
    assert_eq!(world.count("TerminateSession"), 1);
    let input = world.seen.lock().unwrap().input.clone();
    assert!(input.starts_with(b"ls ~."), "{input:?}");
    assert!(!input.ends_with(b"\r~."), "{input:?}");
}

#[test]
fn tilde_question_mark_helps() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    terminal.keys("~?").unwrap();
    terminal.until("leave and end the session").unwrap();
    terminal.line("exit 0").unwrap();
    assert_eq!(exit_code(&mut terminal), 0);
}

#[test]
fn the_first_size_goes_before_the_input_and_later_ones_follow_the_window() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    world.node_sees("the first size", |seen| {
        seen.sizes.first() == Some(&(80, 24))
    });
    terminal.resize(132, 43).unwrap();
    world.node_sees("the new size", |seen| seen.sizes.last() == Some(&(132, 43)));
    terminal.line("size").unwrap();
    terminal.until("size is 132x43").unwrap();
    terminal.line("exit 0").unwrap();
    assert_eq!(exit_code(&mut terminal), 0);
}

#[test]
fn control_keys_are_the_remote_shells() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    terminal.keys([0x03, 0x1a, 0x1c, 0x11, 0x13, 0xff]).unwrap();
    world.node_sees("the keys", |seen| {
        seen.input == [0x03, 0x1a, 0x1c, 0x11, 0x13, 0xff]
    });
    terminal.line("").unwrap();
    terminal.line("exit 0").unwrap();
    assert_eq!(exit_code(&mut terminal), 0);
}

#[test]
fn the_reason_of_the_end_is_shown() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    terminal.line("idle").unwrap();
    assert_eq!(exit_code(&mut terminal), 255);
    terminal
        .until(&format!("Session {SESSION} ended: idle for 20 minutes"))
        .unwrap();
}

#[test]
fn signals_restore_the_terminal_and_end_the_session() {
    for number in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        let world = World::start(OURS);
        let mut terminal = start(&world);
        signal(&terminal, number);
        assert_eq!(exit_code(&mut terminal), 255, "{number:?}");
        assert_eq!(world.count("TerminateSession"), 1, "{number:?}");
    }
}

#[test]
fn a_lost_connection_is_come_back_to() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    terminal.line("cut").unwrap();
    world.node_sees("a second connection", |seen| seen.channels == 2);
    terminal.line("size").unwrap();
    terminal.until("size is 80x24").unwrap();
    terminal.line("exit 3").unwrap();
    assert_eq!(exit_code(&mut terminal), 3);
    assert_eq!(world.count("ResumeSession"), 0);
}

#[test]
fn a_session_that_ended_while_away_says_so() {
    let world = World::start(OFFICIAL);
    let mut terminal = start(&world);
    // ResumeSession answers without token.
    terminal.line("cut").unwrap();
    assert_eq!(exit_code(&mut terminal), 255);
    terminal
        .until("ended while the connection was away")
        .unwrap();
}

#[test]
fn a_websocket_that_is_refused_leaves_the_terminal_alone_and_the_session_ended() {
    let world = World::start_with(OURS, |call| {
        call.header("upgrade")
            .is_some()
            .then(|| (403, String::new()))
    });
    let mut terminal = Terminal::open(&world.sortie(&["start", NODE]), 80, 24).unwrap();
    assert_eq!(exit_code(&mut terminal), 255);
    terminal.until("403").unwrap();
    assert_eq!(world.count("TerminateSession"), 1);
}

#[test]
fn suspending_gives_the_terminal_back_until_the_program_goes_on() {
    let world = World::start(OURS);
    let mut terminal = start(&world);
    for way in 0..2 {
        if way == 0 {
            terminal.keys("~\x1a").unwrap();
        } else {
            signal(&terminal, Signal::TSTP);
        }
        let stat = format!("/proc/{}/stat", terminal.process_id());
        wait_for("the program to stop", || {
            let stat = std::fs::read_to_string(&stat)?;
            Ok(stat.contains(") T ").then_some(()))
        })
        .unwrap();
        assert!(terminal.is_cooked().unwrap());
        signal(&terminal, Signal::CONT);
        wait_for("the terminal to be raw again", || {
            Ok((!terminal.is_cooked()?).then_some(()))
        })
        .unwrap();
    }
    terminal.line("exit 0").unwrap();
    assert_eq!(exit_code(&mut terminal), 0);
}

#[test]
fn waiting_for_a_node_is_said_after_a_while() {
    // The server accepts the websocket and its node never comes.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let silent =
        runtime.block_on(async { support::server::Server::start(|_| (200, String::new())).await });
    let stream_url = silent.stream_url();
    let world = World::start_with(OURS, move |call| {
        (call.operation() == "StartSession").then(|| {
            let response = serde_json::json!({
                "SessionId": SESSION, "TokenValue": OURS, "StreamUrl": stream_url,
            });
            (200, response.to_string())
        })
    });
    let mut terminal = Terminal::open(&world.sortie(&["start", "web"]), 80, 24).unwrap();
    terminal.until("waiting for node web").unwrap();
    assert!(
        terminal.is_cooked().unwrap(),
        "the terminal is left alone while waiting"
    );
    terminal.keys([0x03]).unwrap();
    assert_eq!(exit_code(&mut terminal), 255);
    assert_eq!(world.count("TerminateSession"), 1);
}
