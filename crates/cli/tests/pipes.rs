//! `sortie start` in a script: bytes in, bytes out, the exit status.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod support;

use std::{
    io::{Read, Write},
    process::{Command, Output, Stdio},
};

use support::{NODE, OURS, World};

fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Beside the reading: a full pipe in one direction must not stop the other.
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    output
}

#[test]
fn piped_bytes_are_typed_as_they_are_and_escapes_are_not_looked_for() {
    let world = World::start(OURS);
    let output = run(
        world.sortie(&["start", NODE]),
        b"~.\n\xff\x00binary\nexit 5\n",
    );
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(output.stdout, b"ready> ~.\n\xff\x00binary\nexit 5\n");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(world.seen.lock().unwrap().sizes.first(), Some(&(300, 100)));
}

#[test]
fn the_end_of_the_input_is_typed_as_control_d() {
    let world = World::start(OURS);
    let output = run(world.sortie(&["start", NODE]), b"ls\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(world.seen.lock().unwrap().input, b"ls\n\x04");
}

#[test]
fn much_input_arrives_whole() {
    let world = World::start(OURS);
    let mut input: Vec<u8> = (0..100_000u32)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    input.extend_from_slice(b"exit 0\n");
    let output = run(world.sortie(&["start", NODE]), &input);
    assert_eq!(output.status.code(), Some(0));
    assert!(world.seen.lock().unwrap().input == input);
    assert!(
        output.stdout.strip_prefix(b"ready> ") == Some(&input),
        "the echo differs"
    );
}

#[test]
fn a_reader_that_leaves_ends_the_session() {
    let world = World::start(OURS);
    let mut child = world
        .sortie(&["start", NODE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut prompt = [0; 7];
    child
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut prompt)
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let status = sortie_testkit::wait_for("the program to end", || {
        // Each line is echoed to nobody.
        let _ = stdin.write_all(b"more\n");
        Ok(child.try_wait()?)
    })
    .unwrap();
    assert_eq!(status.code(), Some(255));
    assert_eq!(world.count("TerminateSession"), 1);
}
