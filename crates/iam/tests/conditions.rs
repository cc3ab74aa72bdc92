//! Every condition operator: what it compares, and what an absent key, a list, or a value of another
//! type means for it.

#![expect(
    clippy::panic,
    reason = "a case that cannot be read must fail the test"
)]

use std::sync::Arc;

use serde_json::{Value, json};
use sortie_iam::{
    Context, NamedPolicy, Outcome, Policies, Policy, PolicyKind, PolicySource, Principal, Request,
    Resource, decide,
};

const RESOURCE: &str = "arn:aws:ssm:us-east-1:111122223333:document/D";

/// Whether a statement of this effect applies under one condition.
fn applies(effect: &str, operator: &str, key: &str, wanted: &Value, context: &Context) -> bool {
    let mut statements = vec![json!({ "Effect": effect, "Action": "*", "Resource": "*",
        "Condition": { operator: { key: wanted } } })];
    if effect == "Deny" {
        statements.push(json!({ "Effect": "Allow", "Action": "*", "Resource": "*" }));
    }
    let text = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let policy = Policy::parse(&text, PolicyKind::Identity)
        .unwrap_or_else(|error| panic!("{operator}: {error} {}", error.detail()));
    let identity = [NamedPolicy {
        source: PolicySource::Unnamed { position: 1 },
        policy: Arc::new(policy),
    }];
    let principal = Principal::user("arn:aws:iam::111122223333:user/alice", "AIDAALICE");
    let request = Request {
        principal: &principal,
        action: "ssm:GetDocument",
        resource: Resource::new(RESOURCE),
        context,
        account: "111122223333",
    };
    let policies = Policies {
        identity: &identity,
        ..Policies::default()
    };
    let outcome = decide(&request, &policies).outcome;
    match effect {
        "Deny" => outcome == Outcome::ExplicitlyDenied,
        _ => outcome == Outcome::Allowed,
    }
}

/// Judges `operator` with one value in the request, in both effects, where these agree.
fn holds(operator: &str, value: &str, wanted: &Value) -> bool {
    let context = Context::new()
        .with("test:key", value)
        .with("aws:username", "alice")
        .with("aws:PrincipalAccount", "111122223333");
    let allow = applies("Allow", operator, "test:key", wanted, &context);
    let deny = applies("Deny", operator, "TEST:Key", wanted, &context);
    assert_eq!(allow, deny, "{operator} of {value} with {wanted}");
    allow
}

#[test]
fn positive_operators_compare_so() {
    let cases = [
        ("StringEquals", "red", json!("red"), true),
        ("StringEquals", "red", json!(["blue", "red"]), true),
        ("StringEquals", "red", json!("Red"), false),
        ("StringEquals", "red", json!("r*"), false),
        ("StringEquals", "r*", json!("r*"), true),
        ("StringEquals", "alice", json!("${aws:username}"), true),
        ("StringEquals", "x-alice", json!("x-${aws:UserName}"), true),
        ("StringEquals", "", json!("${aws:none}"), false),
        (
            "StringEquals",
            "nobody",
            json!("${aws:none, 'nobody'}"),
            true,
        ),
        ("StringEquals", "a*", json!("a${*}"), true),
        ("StringEquals", "true", json!(true), true),
        ("StringEquals", "10", json!(10), true),
        ("StringEquals", "10", json!(10.0), true),
        ("StringEquals", "red", json!([]), false),
        ("stringequals", "red", json!("red"), true),
        ("StringEqualsIgnoreCase", "RED", json!("red"), true),
        (
            "StringEqualsIgnoreCase",
            "ALICE",
            json!("${aws:username}"),
            true,
        ),
        ("StringEqualsIgnoreCase", "ÄRGER", json!("ärger"), true),
        ("StringEqualsIgnoreCase", "redd", json!("red"), false),
        ("StringLike", "red", json!("r?d"), true),
        ("StringLike", "red", json!("*"), true),
        ("StringLike", "red", json!("R*"), false),
        ("StringLike", "rxd", json!("r${?}d"), false),
        ("StringLike", "alice-1", json!("${aws:username}-*"), true),
        ("NumericEquals", "10.0", json!("10"), true),
        ("NumericEquals", "10", json!(1e1), true),
        (
            "NumericEquals",
            "9007199254740993",
            json!("9007199254740992"),
            false,
        ),
        ("NumericLessThan", "3599", json!("3600"), true),
        ("NumericLessThan", "3600", json!("3600"), false),
        ("NumericLessThanEquals", "3600", json!("3600"), true),
        ("NumericGreaterThan", "3600", json!("3600"), false),
        ("NumericGreaterThan", "-1", json!("-2"), true),
        ("NumericGreaterThanEquals", "3600", json!("3600"), true),
        (
            "DateEquals",
            "2026-05-04T08:00:00Z",
            json!("1777881600"),
            true,
        ),
        (
            "DateEquals",
            "1777881600",
            json!("2026-05-04T17:00:00+09:00"),
            true,
        ),
        (
            "DateLessThan",
            "2026-05-04T07:59:59Z",
            json!("2026-05-04T08:00:00Z"),
            true,
        ),
        (
            "DateLessThan",
            "2026-05-04T08:00:00Z",
            json!("2026-05-04T08:00:00Z"),
            false,
        ),
        (
            "DateLessThanEquals",
            "2026-05-04T08:00:00Z",
            json!("2026-05-04T08:00:00Z"),
            true,
        ),
        (
            "DateGreaterThan",
            "2026-05-04T08:00:01Z",
            json!("2026-05-04T08:00:00Z"),
            true,
        ),
        ("DateGreaterThanEquals", "2026-01-01", json!("2026"), true),
        ("Bool", "True", json!("true"), true),
        ("Bool", "false", json!(true), false),
        ("BinaryEquals", "QmluYXJ5", json!("QmluYXJ5"), true),
        ("BinaryEquals", "QmluYXJ6", json!("QmluYXJ5"), false),
        (
            "IpAddress",
            "203.0.113.9",
            json!(["192.0.2.0/24", "203.0.113.0/24"]),
            true,
        ),
        ("IpAddress", "203.0.114.0", json!("203.0.113.0/24"), false),
        ("IpAddress", "203.0.113.9", json!("::/0"), false),
        ("IpAddress", "2001:db8::9", json!("2001:db8::/32"), true),
        (
            "ArnEquals",
            RESOURCE,
            json!("arn:aws:ssm:*:*:document/*"),
            true,
        ),
        (
            "ArnLike",
            RESOURCE,
            json!("arn:aws:ssm:*:${aws:PrincipalAccount}:document/?"),
            true,
        ),
        (
            "ArnLike",
            RESOURCE,
            json!("arn:aws:ssm:*:document/D"),
            false,
        ),
        ("ArnLike", RESOURCE, json!("*"), true),
        ("ArnLike", "no arn", json!("arn:*:*:*:*:*"), false),
    ];
    for (operator, value, wanted, expected) in cases {
        assert_eq!(
            holds(operator, value, &wanted),
            expected,
            "{operator} of {value} with {wanted}"
        );
    }
}

#[test]
fn negated_operators_hold_when_no_value_matches() {
    let cases = [
        ("StringNotEquals", "red", json!(["blue", "red"]), false),
        ("StringNotEquals", "red", json!(["blue", "green"]), true),
        ("StringNotEquals", "red", json!([]), true),
        ("StringNotEquals", "red", json!("${aws:none}"), true),
        ("StringNotEqualsIgnoreCase", "RED", json!("red"), false),
        ("StringNotLike", "red", json!("r*"), false),
        ("StringNotLike", "red", json!("b*"), true),
        ("NumericNotEquals", "10", json!("10.0"), false),
        ("NumericNotEquals", "10", json!("11"), true),
        (
            "DateNotEquals",
            "2026",
            json!("2026-01-01T00:00:00Z"),
            false,
        ),
        ("DateNotEquals", "2026", json!("2027"), true),
        (
            "NotIpAddress",
            "192.0.2.1",
            json!(["203.0.113.0/24", "192.0.2.0/24"]),
            false,
        ),
        (
            "NotIpAddress",
            "198.51.100.1",
            json!(["203.0.113.0/24", "192.0.2.0/24"]),
            true,
        ),
        ("NotIpAddress", "2001:db8::1", json!("0.0.0.0/0"), true),
        (
            "ArnNotEquals",
            RESOURCE,
            json!("arn:aws:ssm:*:*:document/*"),
            false,
        ),
        (
            "ArnNotLike",
            RESOURCE,
            json!("arn:aws:ssm:*:*:session/*"),
            true,
        ),
    ];
    for (operator, value, wanted, expected) in cases {
        assert_eq!(
            holds(operator, value, &wanted),
            expected,
            "{operator} of {value} with {wanted}"
        );
    }
}

#[test]
fn an_absent_key_means_what_the_table_says() {
    let empty = Context::new().with_many("test:key", [] as [&str; 0]);
    let cases = [
        ("StringEquals", json!("x"), false),
        ("StringLike", json!("*"), false),
        ("NumericLessThan", json!("1"), false),
        ("DateGreaterThan", json!("1970"), false),
        ("Bool", json!("false"), false),
        ("IpAddress", json!("0.0.0.0/0"), false),
        ("ArnLike", json!("*"), false),
        ("BinaryEquals", json!(""), false),
        ("StringNotEquals", json!("x"), true),
        ("StringNotLike", json!("*"), true),
        ("NumericNotEquals", json!("1"), true),
        ("DateNotEquals", json!("1970"), true),
        ("NotIpAddress", json!("0.0.0.0/0"), true),
        ("ArnNotLike", json!("*"), true),
        ("StringEqualsIfExists", json!("x"), true),
        ("StringNotEqualsIfExists", json!("x"), true),
        ("BoolIfExists", json!("true"), true),
        ("IpAddressIfExists", json!("192.0.2.1"), true),
        ("Null", json!("true"), true),
        ("Null", json!("false"), false),
        ("Null", json!(["true", "false"]), true),
        ("Null", json!([]), false),
        ("ForAllValues:StringEquals", json!("x"), true),
        ("ForAllValues:StringNotEquals", json!("x"), true),
        ("ForAnyValue:StringEquals", json!("x"), false),
        ("ForAnyValue:StringNotEquals", json!("x"), false),
        ("ForAnyValue:StringLikeIfExists", json!("x"), true),
    ];
    for (operator, wanted, expected) in cases {
        for context in [&Context::new(), &empty] {
            for effect in ["Allow", "Deny"] {
                let holds = applies(effect, operator, "test:key", &wanted, context);
                assert_eq!(holds, expected, "{effect} {operator} {wanted} {context:?}");
            }
        }
    }
}

#[test]
fn a_present_key_is_not_null() {
    let context = Context::new().with("test:key", "");
    assert!(!applies(
        "Allow",
        "Null",
        "test:key",
        &json!("true"),
        &context
    ));
    assert!(applies(
        "Allow",
        "Null",
        "test:key",
        &json!(false),
        &context
    ));
}

#[test]
fn lists_are_judged_by_their_prefix() {
    let context = Context::new().with_many("aws:TagKeys", ["Team", "Env"]);
    let cases = [
        (
            "ForAllValues:StringEquals",
            json!(["Team", "Env", "Cost"]),
            true,
        ),
        ("ForAllValues:StringEquals", json!("Team"), false),
        ("ForAllValues:StringLike", json!("*"), true),
        ("ForAllValues:StringNotEquals", json!("Cost"), true),
        ("ForAllValues:StringNotEquals", json!("Env"), false),
        ("ForAnyValue:StringEquals", json!("Env"), true),
        ("ForAnyValue:StringEquals", json!(["Cost", "Owner"]), false),
        ("ForAnyValue:StringNotEquals", json!("Env"), true),
        ("ForAnyValue:StringNotEquals", json!(["Env", "Team"]), false),
        ("ForAnyValue:StringLikeIfExists", json!("C*"), false),
        (
            "forallvalues:stringequalsignorecase",
            json!(["team", "env"]),
            true,
        ),
    ];
    for (operator, wanted, expected) in cases {
        for effect in ["Allow", "Deny"] {
            let holds = applies(effect, operator, "aws:TagKeys", &wanted, &context);
            assert_eq!(holds, expected, "{effect} {operator} {wanted}");
        }
    }
    // A key with one value is a list of one.
    let one = Context::new().with("aws:TagKeys", "Env");
    assert!(applies(
        "Allow",
        "ForAnyValue:StringEquals",
        "aws:TagKeys",
        &json!("Env"),
        &one
    ));
    assert!(applies(
        "Allow",
        "ForAllValues:StringEquals",
        "aws:TagKeys",
        &json!("Env"),
        &one
    ));
}

#[test]
fn a_list_without_prefix_can_deny_but_not_allow() {
    let several = Context::new().with_many("aws:TagKeys", ["Team", "Env"]);
    let one = Context::new().with_many("aws:TagKeys", ["Team"]);
    let judge = |effect, operator, context| {
        applies(effect, operator, "aws:TagKeys", &json!("Team"), context)
    };
    assert!(!judge("Allow", "StringEquals", &several));
    assert!(judge("Deny", "StringEquals", &several));
    assert!(!judge("Allow", "StringNotEquals", &several));
    assert!(judge("Deny", "StringNotEquals", &several));
    assert!(judge("Allow", "StringEquals", &one));
    assert!(!judge("Allow", "StringNotEquals", &one));
}

#[test]
fn a_value_of_another_type_never_helps_the_caller() {
    let context = Context::new().with("test:key", "a text");
    let positive = [
        ("NumericEquals", "1"),
        ("NumericLessThan", "1"),
        ("DateLessThan", "2026"),
        ("Bool", "true"),
        ("IpAddress", "0.0.0.0/0"),
        ("BinaryEquals", "YQ=="),
    ];
    for (operator, wanted) in positive {
        for effect in ["Allow", "Deny"] {
            let holds = applies(effect, operator, "test:key", &json!(wanted), &context);
            assert!(!holds, "{effect} {operator}");
        }
    }
    for (operator, wanted) in [
        ("NumericNotEquals", "1"),
        ("DateNotEquals", "2026"),
        ("NotIpAddress", "192.0.2.1"),
    ] {
        let judge = |effect| applies(effect, operator, "test:key", &json!(wanted), &context);
        assert!(!judge("Allow"), "{operator}");
        assert!(judge("Deny"), "{operator}");
    }
}

#[test]
fn tags_that_differ_in_case_alone_deny_by_any_and_allow_by_the_exact_one() {
    let context = Context::new()
        .with("aws:ResourceTag/Env", "prod")
        .with("aws:ResourceTag/env", "dev");
    let judge =
        |effect, key, wanted: &str| applies(effect, "StringEquals", key, &json!(wanted), &context);
    assert!(judge("Allow", "aws:ResourceTag/env", "dev"));
    assert!(!judge("Allow", "aws:ResourceTag/Env", "dev"));
    assert!(!judge("Allow", "aws:ResourceTag/ENV", "dev"));
    assert!(judge("Deny", "aws:ResourceTag/ENV", "dev"));
    assert!(judge("Deny", "aws:ResourceTag/ENV", "prod"));
    assert!(!judge("Deny", "aws:ResourceTag/ENV", "test"));
}

#[test]
fn all_keys_and_operators_must_hold() {
    let context = Context::new().with("test:a", "1").with("test:b", "2");
    let judge = |condition: Value| {
        let text = json!({ "Statement": { "Effect": "Allow", "Action": "*", "Resource": "*",
            "Condition": condition } });
        let line = json!({ "id": 1, "identity": [text], "request": {
            "principal": "arn:aws:iam::111122223333:user/alice", "action": "ssm:GetDocument",
            "context": { "test:a": context.get("test:a").map(|v| v[0].clone()),
                         "test:b": context.get("test:b").map(|v| v[0].clone()) } } });
        sortie_iam::case::judge(&line.to_string())
            .expect("a case")
            .is_allowed()
    };
    assert!(judge(
        json!({ "StringEquals": { "test:a": "1", "test:b": "2" } })
    ));
    assert!(!judge(
        json!({ "StringEquals": { "test:a": "1", "test:b": "x" } })
    ));
    assert!(!judge(
        json!({ "StringEquals": { "test:a": "1" }, "StringLike": { "test:b": "x" } })
    ));
    assert!(judge(json!({})));
    assert!(judge(json!({ "StringEquals": {} })));
}
