//! Which documents are policies, and with which of AWS's words the others are refused.

#![expect(
    clippy::expect_used,
    reason = "a case that cannot be read must fail the test"
)]

use serde_json::{Value, json};
use sortie_iam::{Policy, PolicyError, PolicyKind, Quota, document_size};

const KINDS: [PolicyKind; 5] = [
    PolicyKind::Boundary,
    PolicyKind::Identity,
    PolicyKind::Resource,
    PolicyKind::Session,
    PolicyKind::Trust,
];

fn refused(text: &str, kind: PolicyKind) -> String {
    let error = Policy::parse(text, kind).expect_err(text);
    assert_eq!(error.code(), "MalformedPolicyDocument");
    assert!(!error.detail().is_empty());
    error.to_string()
}

fn statement(changes: &Value) -> Value {
    let mut statement = json!({ "Effect": "Allow", "Action": "ssm:*", "Resource": "*" });
    let members = statement.as_object_mut().expect("an object");
    for (key, value) in changes.as_object().expect("changes") {
        if value.is_null() {
            members.remove(key);
        } else {
            members.insert(key.clone(), value.clone());
        }
    }
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}

#[test]
fn documents_that_are_policies_are_read() {
    let identity = [
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
        r#" {"Version":"2008-10-17","Statement":[{"Sid":"","Effect":"Deny","NotAction":["a:b"],"NotResource":["*"]}]}"#,
        r#"{"Version":"2012-10-17","Statement":[{"Sid":"A1","Effect":"Allow","Action":"*:*","Resource":"arn:aws:ssm:*","Condition":{"Bool":{"a":[true,"false"]},"Null":{"b":false}}}]}"#,
    ];
    for text in identity {
        for kind in [
            PolicyKind::Identity,
            PolicyKind::Session,
            PolicyKind::Boundary,
        ] {
            assert!(Policy::parse(text, kind).is_ok(), "{text}");
        }
        for kind in [PolicyKind::Resource, PolicyKind::Trust] {
            assert!(Policy::parse(text, kind).is_err(), "{text}");
        }
    }
    let resource = r#"{"Id":"any string","Statement":[
        {"Sid":"with spaces","Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b/*"},
        {"Effect":"Deny","NotPrincipal":{"AWS":["111122223333"],"Service":"ssm.amazonaws.com"},"Action":"s3:*","Resource":"*"}]}"#;
    let policy = Policy::parse(resource, PolicyKind::Resource).expect("a bucket's policy");
    assert_eq!(policy.statement_count(), 2);
    let named: Vec<_> = policy.principals().map(|p| (p.kind, p.text)).collect();
    assert_eq!(
        named,
        [
            ("AWS", "*"),
            ("AWS", "111122223333"),
            ("Service", "ssm.amazonaws.com")
        ]
    );
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ssm.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"]}]}"#;
    assert!(Policy::parse(trust, PolicyKind::Trust).is_ok());
}

#[test]
fn each_fault_has_its_words() {
    let cases = [
        (
            json!({ "Action": null }),
            "Policy statement must contain actions.",
        ),
        (
            json!({ "Action": [] }),
            "Policy statement must contain actions.",
        ),
        (
            json!({ "Resource": null }),
            "Policy statement must contain resources.",
        ),
        (
            json!({ "Resource": [] }),
            "Policy statement must contain resources.",
        ),
        (
            json!({ "Principal": "*" }),
            "Policy document should not specify a principal.",
        ),
        (
            json!({ "NotPrincipal": { "AWS": "*" } }),
            "Policy document should not specify a principal.",
        ),
        (
            json!({ "Action": "StartSession" }),
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (
            json!({ "Action": "a:b:c" }),
            "Actions/Condition can contain only one colon.",
        ),
        (json!({ "Action": "s*:Get" }), "Vendor s* is not valid"),
        (json!({ "Action": ":Get" }), "Vendor  is not valid"),
        (
            json!({ "Resource": "instance/*" }),
            "Resource instance/* must be in ARN format or \"*\".",
        ),
        (
            json!({ "Resource": "arn::s3:::b" }),
            "Partition \"\" is not valid for resource \"arn::s3:::b\".",
        ),
        (
            json!({ "Resource": "arn:aws:s*:::b" }),
            "Vendor s* is not valid",
        ),
        (
            json!({ "Sid": "with-dash" }),
            "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
        ),
        (
            json!({ "Condition": { "StringEqual": { "a": "b" } } }),
            "Invalid Condition type : StringEqual",
        ),
        (
            json!({ "Condition": { "StringEqual": {} } }),
            "Invalid Condition type : StringEqual",
        ),
        (
            json!({ "Condition": { "NullIfExists": { "a": "true" } } }),
            "Invalid Condition type : NullIfExists",
        ),
        (
            json!({ "Condition": { "ForAnyValue:Null": { "a": "true" } } }),
            "Invalid Condition type : ForAnyValue:Null",
        ),
        (
            json!({ "Condition": { "ForSomeValues:StringLike": { "a": "b" } } }),
            "Invalid Condition type : ForSomeValues:StringLike",
        ),
    ];
    for (changes, words) in cases {
        let text = statement(&changes).to_string();
        assert_eq!(refused(&text, PolicyKind::Identity), words, "{text}");
    }
}

#[test]
fn whatever_else_is_wrong_is_a_syntax_error() {
    let changes = [
        json!({ "Effect": null }),
        json!({ "Effect": "allow" }),
        json!({ "Effect": ["Allow"] }),
        json!({ "NotAction": "ssm:*" }),
        json!({ "NotResource": "*" }),
        json!({ "Sid": 1 }),
        json!({ "action": "ssm:*" }),
        json!({ "Action": [1] }),
        json!({ "Action": [["ssm:*"]] }),
        json!({ "Resource": "arn:aws:ssm:${aws:RequestedRegion}:1:x" }),
        json!({ "Condition": [] }),
        json!({ "Condition": { "StringEquals": "a" } }),
        json!({ "Condition": { "StringEquals": { "": "b" } } }),
        json!({ "Condition": { "StringEquals": { "a": {} } } }),
        json!({ "Condition": { "StringEquals": { "a": [["b"]] } } }),
        json!({ "Condition": { "NumericEquals": { "a": "ten" } } }),
        json!({ "Condition": { "NumericEquals": { "a": "${b}" } } }),
        json!({ "Condition": { "DateEquals": { "a": "today" } } }),
        json!({ "Condition": { "Bool": { "a": "yes" } } }),
        json!({ "Condition": { "Null": { "a": "maybe" } } }),
        json!({ "Condition": { "IpAddress": { "a": "10.0.0.0/33" } } }),
        json!({ "Condition": { "BinaryEquals": { "a": "*" } } }),
    ];
    for changes in changes {
        let text = statement(&changes).to_string();
        assert_eq!(
            refused(&text, PolicyKind::Identity),
            "Syntax errors in policy.",
            "{text}"
        );
    }
    let texts = [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"Statement":[]}"#,
        r#"{"Statement":[1]}"#,
        r#"{"Version":"2012-10-18","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
        r#"{"Id":"x","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
        r#"{"Statment":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Effect":"Deny","Action":"*","Resource":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"a":null}}}]}"#,
        "{\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"arn:aws:s3:::\u{100}\"}]}",
    ];
    for text in texts {
        assert_eq!(
            refused(text, PolicyKind::Identity),
            "Syntax errors in policy.",
            "{text}"
        );
    }
    let empty =
        r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}]} trailing"#;
    assert_eq!(
        refused(empty, PolicyKind::Trust),
        "This policy contains invalid Json"
    );
}

#[test]
fn statements_of_one_name_are_refused() {
    let one = json!({ "Sid": "A", "Effect": "Allow", "Action": "*", "Resource": "*" });
    let text = json!({ "Statement": [one, one] }).to_string();
    let words = "Statement IDs (SID) in a single policy must be unique.";
    assert_eq!(refused(&text, PolicyKind::Identity), words);
}

#[test]
fn principals_are_checked_where_they_belong() {
    let policy = |principal: Value, effect: &str, element: &str| {
        json!({ "Statement": [{ "Effect": effect, element: principal, "Action": "sts:AssumeRole" }] })
            .to_string()
    };
    let trust =
        |principal: Value| refused(&policy(principal, "Allow", "Principal"), PolicyKind::Trust);
    for text in [
        "nobody",
        "arn:aws:iam::111122223333:user/*",
        "arn:aws:iam::111122223333:group/g",
    ] {
        let words = format!("Invalid principal in policy: \"AWS\":\"{text}\"");
        assert_eq!(trust(json!({ "AWS": text })), words);
    }
    assert_eq!(trust(json!("alice")), "Syntax errors in policy.");
    assert_eq!(
        trust(json!({ "User": "alice" })),
        "Syntax errors in policy."
    );
    assert_eq!(
        trust(json!({ "AWS": [] })),
        "Missing required field Principal"
    );
    assert_eq!(trust(json!({})), "Missing required field Principal");
    let not = policy(json!({ "AWS": "111122223333" }), "Deny", "NotPrincipal");
    assert_eq!(
        refused(&not, PolicyKind::Trust),
        "Has prohibited field NotPrincipal"
    );
    let bucket = r#"{"Statement":[{"Effect":"Allow","NotPrincipal":{"AWS":"111122223333"},"Action":"s3:*","Resource":"*"}]}"#;
    assert_eq!(
        refused(bucket, PolicyKind::Resource),
        "Has prohibited field NotPrincipal"
    );
    let with_resource = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}]}"#;
    assert_eq!(
        refused(with_resource, PolicyKind::Trust),
        "Has prohibited field Resource"
    );
    let other = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject"}]}"#;
    let words = "AssumeRole policy may only specify STS AssumeRole actions.";
    assert_eq!(refused(other, PolicyKind::Trust), words);
    let nobody = r#"{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}"#;
    assert_eq!(
        refused(nobody, PolicyKind::Trust),
        "Missing required field Principal"
    );
    let short = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:*"}]}"#;
    assert!(refused(short, PolicyKind::Resource).contains("must be in ARN format"));
}

#[test]
fn oversize_documents_are_told_apart() {
    let text = format!("{}{}", " ".repeat(200_000), statement(&json!({})));
    assert!(
        Policy::parse(&text, PolicyKind::Identity).is_ok(),
        "white space does not count"
    );
    let long = "x".repeat(140_000);
    for kind in KINDS {
        let error = Policy::parse(&long, kind).expect_err("too long");
        assert_eq!(error.code(), "LimitExceeded");
    }
    assert_eq!(document_size("{ \"a\" :\t1\n}"), 7);
    assert_eq!(Quota::Managed.check(6_144), Ok(()));
    let Err(error) = Quota::Managed.check(6_145) else {
        panic!("over the quota")
    };
    assert_eq!(
        error.to_string(),
        "Cannot exceed quota for PolicySize: 6144"
    );
    assert!(matches!(
        error,
        PolicyError::LimitExceeded { size: 6_145, .. }
    ));
    let Err(error) = Quota::Trust.check(2_049) else {
        panic!("over the quota")
    };
    assert_eq!(
        error.to_string(),
        "Cannot exceed quota for ACLSizePerRole: 2048"
    );
}

#[test]
fn hostile_documents_are_refused_in_time() {
    let deep = "[".repeat(60_000);
    let keys: String = (0..10_000).map(|n| format!("\"k{n}\":1,")).collect();
    for text in [
        deep,
        format!("{{{keys}\"k0\":1}}"),
        "{\"a\":".repeat(20_000),
    ] {
        for kind in KINDS {
            assert!(Policy::parse(&text, kind).is_err());
        }
    }
}

#[test]
fn the_keys_that_a_policy_asks_for_are_known() {
    let text = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "*",
        "Resource": "arn:aws:s3:::b/${aws:username}/*", "Condition": {
            "StringEquals": { "aws:ResourceTag/Team": "${aws:PrincipalTag/Team}" },
            "Bool": { "aws:SecureTransport": "true" } } }] });
    let policy = Policy::parse(&text.to_string(), PolicyKind::Identity).expect("a policy");
    let keys = [
        "aws:PrincipalTag/Team",
        "aws:ResourceTag/Team",
        "aws:SecureTransport",
        "aws:username",
    ];
    assert_eq!(policy.context_keys(), keys);
}
