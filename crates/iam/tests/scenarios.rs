//! The scenarios: requests with complete policies and the decision that they must lead to, by the
//! library and by the program that reads them from its standard input.

#![expect(clippy::expect_used, reason = "a test says what is wrong by failing")]

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde::Deserialize;
use serde_json::Value;
use sortie_iam::case;

const SCENARIOS: &str = include_str!("scenarios.jsonl");

#[derive(Deserialize)]
struct Expected {
    id: String,
    expect: String,
    title: String,
}

#[test]
fn every_scenario_is_decided_as_expected() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in SCENARIOS.lines() {
        let expected: Expected = serde_json::from_str(line).expect("a scenario");
        let decision = case::judge(line).unwrap_or_else(|error| panic!("{}: {error}", expected.id));
        if decision.outcome.as_str() != expected.expect {
            let why = decision.explanation.sentences().join(" ");
            wrong.push(format!("{} {}: {why}", expected.id, expected.title));
        }
        count += 1;
    }
    assert_eq!(count, 121);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The example, which `cargo test` builds beside the tests unless it is told to build one test alone.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(|deps| deps.parent());
    let program = profile.expect("a target folder").join("examples/decide");
    let hint = "run `cargo build --package sortie-iam --examples` first";
    assert!(
        program.is_file(),
        "{} is missing: {hint}",
        program.display()
    );
    program
}

fn decide(input: &'static [u8]) -> Output {
    let mut child = Command::new(program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It writes while it reads.
    let writer = std::thread::spawn(move || stdin.write_all(input));
    let output = child.wait_with_output().expect("the program ends");
    writer
        .join()
        .expect("written")
        .expect("the program reads all");
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    let line = |line| serde_json::from_str(line).expect("JSON in each line");
    text.lines().map(line).collect()
}

#[test]
fn the_program_decides_each_line_of_its_input() {
    let output = decide(SCENARIOS.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let expected: BTreeMap<String, String> = SCENARIOS
        .lines()
        .map(|line| serde_json::from_str::<Expected>(line).expect("a scenario"))
        .map(|expected| (expected.id, expected.expect))
        .collect();
    let answers = lines(&output);
    assert_eq!(answers.len(), expected.len());
    for answer in answers {
        let id = answer["id"].as_str().expect("an id");
        assert_eq!(answer["decision"], expected[id], "{id}");
        assert!(
            answer["why"].as_str().is_some_and(|why| !why.is_empty()),
            "{id}"
        );
    }
}

#[test]
fn a_line_that_is_no_case_is_answered_with_its_error_and_the_others_with_decisions() {
    let first = SCENARIOS.lines().next().expect("a scenario");
    let input = format!("{{\"id\": \"odd\"}}\nno JSON\n\n{first}\n").into_bytes();
    let output = decide(input.leak());
    assert_eq!(output.status.code(), Some(1));
    let answers = lines(&output);
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["id"], "odd");
    assert!(answers[0]["error"].is_string());
    assert_eq!(answers[1]["id"], Value::Null);
    assert!(answers[1]["error"].is_string());
    assert!(answers[2]["decision"].is_string());
}
