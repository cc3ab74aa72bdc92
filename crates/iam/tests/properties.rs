//! What must hold for all policies and requests: a Deny never helps, order never matters, what is
//! unknown is never allowed, and no text makes the parser or the matcher fail.

#![expect(
    clippy::expect_used,
    reason = "a case that cannot be read must fail the test"
)]

use proptest::prelude::*;
use serde_json::{Value, json};
use sortie_iam::{Outcome, Policy, PolicyKind, case, wildcard_matches};

const ACTIONS: [&str; 3] = ["ssm:StartSession", "ssm:TerminateSession", "kms:Decrypt"];
const RESOURCES: [&str; 4] = [
    "arn:aws:ssm:us-east-1:111122223333:session/alice-1",
    "arn:aws:ec2:us-east-1:111122223333:instance/i-1",
    "arn:aws:kms:us-east-1:111122223333:key/1",
    "*",
];

fn one_of(texts: &[&'static str]) -> impl Strategy<Value = &'static str> + use<> {
    prop::sample::select(texts.to_vec())
}

fn condition() -> impl Strategy<Value = Value> {
    let operators = one_of(&[
        "StringEquals",
        "StringNotEquals",
        "StringLike",
        "StringNotLikeIfExists",
        "Null",
        "Bool",
        "ForAllValues:StringEquals",
        "ForAnyValue:StringNotEquals",
        "NumericLessThan",
        "NotIpAddress",
        "ArnLike",
        "DateGreaterThan",
        "StringEqualsIfExists",
        "BoolIfExists",
    ]);
    let keys = one_of(&[
        "aws:username",
        "aws:TagKeys",
        "aws:SourceIp",
        "test:number",
        "test:absent",
    ]);
    (operators, keys, any::<bool>()).prop_map(|(operator, key, flag)| {
        let wanted = match operator {
            "Null" | "Bool" | "BoolIfExists" => json!(flag),
            "NumericLessThan" => json!(if flag { 5 } else { 50 }),
            "NotIpAddress" => json!(if flag {
                "192.0.2.0/24"
            } else {
                "203.0.113.0/24"
            }),
            "DateGreaterThan" => json!("2026-05-04T08:00:00Z"),
            _ if flag => json!(["alice", "${aws:username}", "Team"]),
            _ => json!("a*"),
        };
        json!({ operator: { key: wanted } })
    })
}

fn statement() -> impl Strategy<Value = Value> {
    let actions = one_of(&[
        "*",
        "ssm:*",
        "ssm:StartSession",
        "SSM:*session",
        "kms:Decrypt",
    ]);
    let resources = one_of(&[
        "*",
        "arn:aws:ssm:*:*:session/${aws:username}-*",
        "arn:aws:ec2:*:*:instance/*",
        "arn:aws:kms:*:*:key/${aws:PrincipalTag/Key}",
        "arn:aws:ssm:*",
    ]);
    let shape = (
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
    let condition = prop::option::of(condition());
    (shape, actions, resources, condition).prop_map(
        |((deny, not_action, not_resource), action, resource, condition)| {
            json!({
                "Effect": if deny { "Deny" } else { "Allow" },
                (if not_action { "NotAction" } else { "Action" }): action,
                (if not_resource { "NotResource" } else { "Resource" }): resource,
                "Condition": condition.unwrap_or_else(|| json!({})),
            })
        },
    )
}

fn policy() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(statement(), 1..5)
}

fn context() -> impl Strategy<Value = Value> {
    let user = prop::option::of(one_of(&["alice", "bob", "a*"]));
    let tags = prop::option::of(prop::collection::vec(
        one_of(&["Team", "Env", "alice"]),
        0..3,
    ));
    let address = prop::option::of(one_of(&["192.0.2.1", "2001:db8::1", "text"]));
    let number = prop::option::of(one_of(&["10", "x"]));
    (user, tags, address, number).prop_map(|(user, tags, address, number)| {
        let mut context = json!({});
        let keys = [
            ("aws:username", json!(user)),
            ("aws:TagKeys", json!(tags)),
            ("aws:SourceIp", json!(address)),
            ("test:number", json!(number)),
        ];
        for (key, value) in keys {
            if !value.is_null() {
                context[key] = value;
            }
        }
        context
    })
}

#[derive(Clone, Debug)]
struct Case {
    identity: Vec<Vec<Value>>,
    boundary: Option<Vec<Value>>,
    session: Option<Vec<Value>>,
    request: Value,
}

fn any_case() -> impl Strategy<Value = Case> {
    let policies = prop::collection::vec(policy(), 0..4);
    let limits = (prop::option::of(policy()), prop::option::of(policy()));
    let request = (one_of(&ACTIONS), one_of(&RESOURCES), context());
    (policies, limits, request).prop_map(
        |(identity, (boundary, session), (action, resource, context))| Case {
            identity,
            boundary,
            session,
            request: json!({ "principal": "arn:aws:iam::111122223333:user/alice", "action": action,
            "resource": resource, "account": "111122223333", "context": context }),
        },
    )
}

fn document(statements: &[Value]) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn decide(case: &Case) -> Outcome {
    let identity: Vec<Value> = case
        .identity
        .iter()
        .map(|policy| document(policy))
        .collect();
    let mut line = json!({ "id": 1, "request": case.request, "identity": identity });
    if let Some(boundary) = &case.boundary {
        line["boundary"] = json!([document(boundary)]);
    }
    if let Some(session) = &case.session {
        line["session"] = document(session);
    }
    case::judge(&line.to_string()).expect("a case").outcome
}

fn openness(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::ExplicitlyDenied => 0,
        Outcome::ImplicitlyDenied => 1,
        Outcome::Allowed => 2,
    }
}

/// The plain reference: every split of the text is tried.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
        (Some(('?', rest)), Some((_, text))) => naive(rest, text),
        (Some((wanted, rest)), Some((found, text))) => wanted == found && naive(rest, text),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_deny_added_never_allows_more(case in any_case(), mut extra in statement(), place in 0_usize..3) {
        extra["Effect"] = json!("Deny");
        let before = decide(&case);
        let mut with = case.clone();
        match place {
            0 => with.identity.push(vec![extra]),
            1 if with.boundary.is_some() => with.boundary.iter_mut().for_each(|b| b.push(extra.clone())),
            _ if with.session.is_some() => with.session.iter_mut().for_each(|s| s.insert(0, extra.clone())),
            _ => with.identity.insert(0, vec![extra]),
        }
        prop_assert!(openness(decide(&with)) <= openness(before));
    }

    #[test]
    fn an_allow_taken_away_never_allows_more(case in any_case(), at in any::<prop::sample::Index>()) {
        prop_assume!(!case.identity.is_empty());
        let mut without = case.clone();
        let place = at.index(case.identity.len());
        for statement in &mut without.identity[place] {
            if statement["Effect"] == "Allow" {
                statement["Action"] = json!("none:None");
                statement.as_object_mut().expect("an object").remove("NotAction");
            }
        }
        prop_assert!(openness(decide(&without)) <= openness(decide(&case)));
    }

    #[test]
    fn the_order_of_statements_and_policies_never_matters(case in any_case()) {
        let mut turned = case.clone();
        turned.identity.reverse();
        for policy in turned.identity.iter_mut().chain(&mut turned.boundary).chain(&mut turned.session) {
            policy.reverse();
        }
        prop_assert_eq!(decide(&turned), decide(&case));
    }

    #[test]
    fn limits_never_grant(case in any_case(), limit in policy()) {
        let mut limited = case.clone();
        limited.boundary = Some(limit);
        let mut free = case;
        free.boundary = None;
        prop_assert!(openness(decide(&limited)) <= openness(decide(&free)));
    }

    #[test]
    fn an_absent_key_is_never_allowed_by_a_positive_operator(
        operator in one_of(&["StringEquals", "StringLike", "StringEqualsIgnoreCase", "ArnLike", "ArnEquals",
            "ForAnyValue:StringLike", "ForAnyValue:ArnLike"]),
        wanted in one_of(&["*", "", "${aws:username}", "${test:absent}", "${test:absent, '*'}", "arn:*:*:*:*:*"]),
        context in context(),
    ) {
        let allow = json!({ "Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": { operator: { "test:absent": wanted } } });
        let case = Case { identity: vec![vec![allow]], boundary: None, session: None, request: json!({
            "principal": "arn:aws:iam::111122223333:user/alice", "action": "ssm:StartSession",
            "resource": "*", "account": "111122223333", "context": context }) };
        prop_assert_eq!(decide(&case), Outcome::ImplicitlyDenied);
    }

    #[test]
    fn the_matcher_agrees_with_the_plain_reference(
        pattern in "[ab?*üé]{0,9}",
        text in "[abü?*]{0,9}",
    ) {
        let pattern_chars: Vec<char> = pattern.chars().collect();
        let text_chars: Vec<char> = text.chars().collect();
        prop_assert_eq!(wildcard_matches(&pattern, &text), naive(&pattern_chars, &text_chars));
    }

    #[test]
    fn the_parser_takes_any_text(text in any::<String>()) {
        for kind in [PolicyKind::Identity, PolicyKind::Resource, PolicyKind::Trust] {
            let _ = Policy::parse(&text, kind);
        }
    }

    #[test]
    fn the_parser_takes_any_change_of_a_policy(
        statements in policy(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = document(&statements).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let text = String::from_utf8_lossy(&bytes);
        let _ = Policy::parse(&text, PolicyKind::Identity);
    }
}
