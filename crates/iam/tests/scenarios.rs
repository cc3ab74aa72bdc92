//! The scenarios: requests with complete policies and the decision that they must lead to.

use serde::Deserialize;
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
