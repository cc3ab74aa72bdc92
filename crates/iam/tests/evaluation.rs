//! The order of evaluation, from cases in JSON: what has to allow whom, and what a refusal names.

#![expect(
    clippy::panic,
    reason = "a case that cannot be read must fail the test"
)]

use serde_json::{Value, json};
use sortie_iam::{Decision, Miss, Outcome, Reason, case};

const ALICE: &str = "arn:aws:iam::111122223333:user/alice";
const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/Dev/carol";
const DEV: &str = "arn:aws:iam::111122223333:role/Dev";
const ROOT: &str = "arn:aws:iam::111122223333:root";
const MALLORY: &str = "arn:aws:iam::444455556666:user/mallory";
const FEDERATED: &str = "arn:aws:sts::111122223333:federated-user/eve";
const SERVICE: &str = "cloudtrail.amazonaws.com";
const OBJECT: &str = "arn:aws:s3:::bucket/key";
const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd";
const ROLE: &str = "arn:aws:iam::111122223333:role/Ops";

fn identity(effect: &str) -> Value {
    json!({ "Statement": [{ "Sid": "S", "Effect": effect, "Action": "*", "Resource": "*" }] })
}

fn resource(effect: &str, principal: &Value) -> Value {
    json!({ "Statement": [{ "Effect": effect, "Principal": principal, "Action": "*", "Resource": "*" }] })
}

fn trust(principal: &Value) -> Value {
    json!({ "Statement": [{ "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" }] })
}

fn decide(principal: &str, action: &str, resource: &str, policies: &Value) -> Decision {
    let mut line = policies.clone();
    line["id"] = json!("case");
    line["request"] = json!({ "principal": principal, "action": action, "resource": resource,
        "account": "111122223333", "context": { "aws:userid": "AIDAALICE" } });
    case::judge(&line.to_string()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn on_object(principal: &str, policies: &Value) -> &'static str {
    decide(principal, "s3:GetObject", OBJECT, policies)
        .outcome
        .as_str()
}

const ALLOWED: &str = "Allowed";
const IMPLICIT: &str = "ImplicitlyDenied";
const EXPLICIT: &str = "ExplicitlyDenied";

#[test]
fn nothing_is_allowed_by_nothing() {
    for principal in [ALICE, SESSION, MALLORY, FEDERATED, SERVICE, "anonymous"] {
        assert_eq!(on_object(principal, &json!({})), IMPLICIT, "{principal}");
    }
    assert_eq!(on_object(ROOT, &json!({})), ALLOWED);
}

#[test]
fn a_resource_policy_allows_as_directly_as_it_names_the_caller() {
    // Caller, how it is named, and the outcome with: nothing else; a boundary that allows nothing; a
    // session policy that allows nothing.
    let none =
        json!({ "Statement": [{ "Effect": "Allow", "Action": "none:None", "Resource": "*" }] });
    let cases = [
        (ALICE, json!({ "AWS": ALICE }), [ALLOWED, ALLOWED, ALLOWED]),
        (ALICE, json!("*"), [ALLOWED, ALLOWED, ALLOWED]),
        (ALICE, json!({ "AWS": "*" }), [ALLOWED, ALLOWED, ALLOWED]),
        (
            ALICE,
            json!({ "AWS": "AIDAALICE" }),
            [ALLOWED, ALLOWED, ALLOWED],
        ),
        (
            ALICE,
            json!({ "AWS": ROOT }),
            [IMPLICIT, IMPLICIT, IMPLICIT],
        ),
        (
            ALICE,
            json!({ "AWS": "111122223333" }),
            [IMPLICIT, IMPLICIT, IMPLICIT],
        ),
        (ALICE, json!({ "AWS": DEV }), [IMPLICIT, IMPLICIT, IMPLICIT]),
        (
            SESSION,
            json!({ "AWS": SESSION }),
            [ALLOWED, ALLOWED, ALLOWED],
        ),
        (
            SESSION,
            json!({ "AWS": DEV }),
            [ALLOWED, IMPLICIT, IMPLICIT],
        ),
        (
            SESSION,
            json!({ "AWS": [DEV, SESSION] }),
            [ALLOWED, ALLOWED, ALLOWED],
        ),
        (
            FEDERATED,
            json!({ "AWS": FEDERATED }),
            [ALLOWED, ALLOWED, ALLOWED],
        ),
        (
            SERVICE,
            json!({ "Service": SERVICE }),
            [ALLOWED, ALLOWED, ALLOWED],
        ),
        (
            SERVICE,
            json!({ "Service": "sns.amazonaws.com" }),
            [IMPLICIT, IMPLICIT, IMPLICIT],
        ),
        ("anonymous", json!("*"), [ALLOWED, ALLOWED, ALLOWED]),
        (
            "anonymous",
            json!({ "AWS": ROOT }),
            [IMPLICIT, IMPLICIT, IMPLICIT],
        ),
    ];
    for (caller, principal, expected) in cases {
        let policy = resource("Allow", &principal);
        let outcomes = [
            on_object(caller, &json!({ "resourcePolicy": policy })),
            on_object(
                caller,
                &json!({ "resourcePolicy": policy, "boundary": [none] }),
            ),
            on_object(
                caller,
                &json!({ "resourcePolicy": policy, "session": none }),
            ),
        ];
        assert_eq!(outcomes, expected, "{caller} named by {principal}");
    }
}

#[test]
fn a_delegation_needs_the_callers_own_policies() {
    let policy = resource("Allow", &json!({ "AWS": ROOT }));
    let both = json!({ "resourcePolicy": policy, "identity": [identity("Allow")] });
    assert_eq!(on_object(ALICE, &both), ALLOWED);
    let own = json!({ "identity": [identity("Allow")] });
    assert_eq!(
        on_object(ALICE, &own),
        ALLOWED,
        "one side is enough within an account"
    );
}

#[test]
fn across_accounts_both_sides_must_allow() {
    let own = json!([identity("Allow")]);
    let by_account = resource("Allow", &json!({ "AWS": "444455556666" }));
    let by_user = resource("Allow", &json!({ "AWS": MALLORY }));
    assert_eq!(on_object(MALLORY, &json!({ "identity": own })), IMPLICIT);
    assert_eq!(
        on_object(MALLORY, &json!({ "resourcePolicy": by_user })),
        IMPLICIT
    );
    for policy in [by_account, by_user.clone()] {
        let both = json!({ "identity": own, "resourcePolicy": policy });
        assert_eq!(on_object(MALLORY, &both), ALLOWED);
    }
    let bound = json!({ "identity": own, "resourcePolicy": by_user,
        "boundary": [{ "Statement": { "Effect": "Allow", "Action": "ssm:*", "Resource": "*" } }] });
    assert_eq!(on_object(MALLORY, &bound), IMPLICIT);
    assert_eq!(
        on_object("arn:aws:iam::444455556666:root", &json!({})),
        IMPLICIT
    );
}

#[test]
fn a_deny_wins_wherever_it_is() {
    let allow = identity("Allow");
    let deny = identity("Deny");
    let all = resource("Allow", &json!("*"));
    for policies in [
        json!({ "identity": [allow, deny], "resourcePolicy": all }),
        json!({ "identity": [allow], "boundary": [allow, deny], "resourcePolicy": all }),
        json!({ "identity": [allow], "session": deny, "resourcePolicy": all }),
        json!({ "identity": [allow], "resourcePolicy": resource("Deny", &json!({ "AWS": ROOT })) }),
        json!({ "identity": [allow], "scps": [[allow], [allow, deny]] }),
        json!({ "identity": [allow], "rcps": [[resource("Deny", &json!("*"))]] }),
        // Also where something else does not allow at all.
        json!({ "identity": [deny], "scps": [[]] }),
    ] {
        assert_eq!(on_object(ALICE, &policies), EXPLICIT, "{policies}");
    }
}

#[test]
fn account_wide_policies_limit_level_by_level() {
    let allow = identity("Allow");
    let s3 = json!({ "Statement": { "Effect": "Allow", "Action": "s3:*", "Resource": "*" } });
    let ssm = json!({ "Statement": { "Effect": "Allow", "Action": "ssm:*", "Resource": "*" } });
    let judge = |scps: Value| on_object(ALICE, &json!({ "identity": [allow], "scps": scps }));
    assert_eq!(judge(json!([[allow], [s3, ssm]])), ALLOWED);
    assert_eq!(judge(json!([[allow], [ssm]])), IMPLICIT);
    assert_eq!(judge(json!([[allow], []])), IMPLICIT);
    assert_eq!(
        on_object(ROOT, &json!({ "scps": [[ssm]] })),
        IMPLICIT,
        "the root is bound too"
    );
    let all = resource("Allow", &json!("*"));
    for free in [SERVICE, "anonymous"] {
        let policies = json!({ "resourcePolicy": all, "scps": [[ssm]] });
        assert_eq!(
            on_object(free, &policies),
            ALLOWED,
            "{free} is of no account"
        );
    }
    let other = json!({ "Statement": [{ "Effect": "Deny", "Principal": "*", "Action": "ssm:*", "Resource": "*" }] });
    let denies_only = json!({ "identity": [allow], "rcps": [[other]] });
    assert_eq!(on_object(ALICE, &denies_only), ALLOWED);
}

#[test]
fn boundaries_and_session_policies_only_limit() {
    let allow = identity("Allow");
    assert_eq!(on_object(ALICE, &json!({ "boundary": [allow] })), IMPLICIT);
    assert_eq!(on_object(SESSION, &json!({ "session": allow })), IMPLICIT);
    assert_eq!(
        on_object(ALICE, &json!({ "identity": [allow], "boundary": [] })),
        IMPLICIT
    );
    // A federated user has what both the user and the session policy give.
    assert_eq!(
        on_object(FEDERATED, &json!({ "identity": [allow] })),
        IMPLICIT
    );
    assert_eq!(
        on_object(FEDERATED, &json!({ "identity": [allow], "session": allow })),
        ALLOWED
    );
}

#[test]
fn keys_and_roles_must_themselves_allow() {
    let own = json!([identity("Allow")]);
    let key = |policies: &Value| decide(ALICE, "kms:Decrypt", KEY, policies).outcome.as_str();
    assert_eq!(key(&json!({ "identity": own })), IMPLICIT);
    let account = resource("Allow", &json!({ "AWS": ROOT }));
    assert_eq!(key(&json!({ "resourcePolicy": account })), IMPLICIT);
    assert_eq!(
        key(&json!({ "resourcePolicy": account, "identity": own })),
        ALLOWED
    );
    let direct = resource("Allow", &json!({ "AWS": ALICE }));
    assert_eq!(key(&json!({ "resourcePolicy": direct })), ALLOWED);
    let list = json!({ "identity": own });
    assert!(decide(ALICE, "kms:ListKeys", "*", &list).is_allowed());

    let role = |policies: &Value| {
        decide(ALICE, "sts:AssumeRole", ROLE, policies)
            .outcome
            .as_str()
    };
    assert_eq!(role(&json!({ "identity": own })), IMPLICIT);
    assert_eq!(
        role(&json!({ "resourcePolicy": trust(&json!({ "AWS": ROOT })) })),
        IMPLICIT
    );
    assert_eq!(
        role(&json!({ "resourcePolicy": trust(&json!({ "AWS": ALICE })) })),
        ALLOWED
    );
    let both = json!({ "identity": own, "resourcePolicy": trust(&json!({ "AWS": ROOT })) });
    assert_eq!(role(&both), ALLOWED);
    // Reading or passing a role is not assuming it.
    for action in ["iam:GetRole", "iam:PassRole"] {
        assert!(decide(ALICE, action, ROLE, &json!({ "identity": own })).is_allowed());
    }
    let service = json!({ "resourcePolicy": trust(&json!({ "Service": SERVICE })) });
    assert!(decide(SERVICE, "sts:AssumeRole", ROLE, &service).is_allowed());
}

#[test]
fn not_principal_denies_all_whom_it_does_not_spare() {
    let deny = |spared: Value| {
        json!({ "identity": [identity("Allow")], "resourcePolicy": { "Statement": [
            { "Effect": "Deny", "NotPrincipal": { "AWS": spared }, "Action": "*", "Resource": "*" }] } })
    };
    assert_eq!(on_object(ALICE, &deny(json!([ALICE, ROOT]))), ALLOWED);
    assert_eq!(on_object(ALICE, &deny(json!(ALICE))), EXPLICIT);
    assert_eq!(
        on_object(SESSION, &deny(json!([SESSION, DEV, ROOT]))),
        ALLOWED
    );
    assert_eq!(on_object(SESSION, &deny(json!([SESSION, ROOT]))), EXPLICIT);
    assert_eq!(
        on_object("anonymous", &deny(json!([ALICE, ROOT]))),
        EXPLICIT
    );
}

#[test]
fn not_forms_cover_what_they_do_not_list() {
    let judge = |statement: Value, action: &str, resource: &str| {
        let policies = json!({ "identity": [{ "Version": "2012-10-17", "Statement": statement }] });
        decide(ALICE, action, resource, &policies).is_allowed()
    };
    let not_action =
        json!({ "Effect": "Allow", "NotAction": ["iam:*", "STS:AssumeRole"], "Resource": "*" });
    assert!(judge(not_action.clone(), "s3:GetObject", OBJECT));
    assert!(judge(not_action.clone(), "sts:TagSession", "*"));
    assert!(!judge(not_action.clone(), "IAM:CreateUser", "*"));
    assert!(!judge(not_action, "sts:AssumeRole", "*"));
    let not_resource =
        json!({ "Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::bucket/*" });
    assert!(!judge(not_resource.clone(), "s3:GetObject", OBJECT));
    assert!(judge(
        not_resource.clone(),
        "s3:GetObject",
        "arn:aws:s3:::bucket2/key"
    ));
    assert!(
        judge(not_resource, "s3:ListAllMyBuckets", "*"),
        "no resource is not excepted"
    );
    let none = json!({ "Effect": "Allow", "Action": "*", "NotResource": "*" });
    assert!(!judge(none, "s3:ListAllMyBuckets", "*"));
}

#[test]
fn an_exception_without_value_denies_more_and_allows_nothing() {
    let statement = |effect: &str, version: &str| {
        json!({ "Version": version, "Statement": { "Effect": effect, "Action": "*",
            "NotResource": "arn:aws:s3:::${aws:PrincipalTag/Home}/*" } })
    };
    let allow = json!({ "identity": [statement("Allow", "2012-10-17")] });
    assert_eq!(on_object(ALICE, &allow), IMPLICIT);
    let deny = json!({ "identity": [identity("Allow"), statement("Deny", "2012-10-17")] });
    assert_eq!(on_object(ALICE, &deny), EXPLICIT);
    let old = json!({ "identity": [statement("Allow", "2008-10-17")] });
    assert_eq!(
        on_object(ALICE, &old),
        ALLOWED,
        "in old policies it is plain text"
    );
}

#[test]
fn over_several_resources_the_worst_decides() {
    let judge = |statements: Value| {
        let line = json!({ "id": 7, "identity": [{ "Statement": statements }], "request": {
            "principal": ALICE, "action": "ssm:StartSession", "account": "111122223333",
            "resources": ["arn:aws:ec2:r:111122223333:instance/i-1",
                { "arn": "arn:aws:ssm:r:111122223333:document/D", "context": { "aws:ResourceTag/T": "x" } }],
            "context": { "aws:ResourceTag/T": "request" } } });
        case::judge(&line.to_string()).expect("a case")
    };
    let allow = json!({ "Effect": "Allow", "Action": "ssm:*", "Resource": "*" });
    let node_only =
        json!({ "Effect": "Allow", "Action": "ssm:*", "Resource": "arn:aws:ec2:*:*:instance/*" });
    let deny_tagged = json!({ "Effect": "Deny", "Action": "ssm:*", "Resource": "*",
        "Condition": { "StringEquals": { "aws:ResourceTag/T": "x" } } });
    assert_eq!(judge(json!([allow])).outcome, Outcome::Allowed);
    let refused = judge(json!([node_only]));
    assert_eq!(refused.outcome, Outcome::ImplicitlyDenied);
    assert_eq!(
        refused.explanation.resource,
        "arn:aws:ssm:r:111122223333:document/D"
    );
    assert_eq!(
        judge(json!([node_only, deny_tagged])).outcome,
        Outcome::ExplicitlyDenied
    );
}

#[test]
fn refusals_are_worded_as_on_aws() {
    let allow = identity("Allow");
    let deny = identity("Deny");
    let none =
        json!({ "Statement": { "Effect": "Allow", "Action": "none:None", "Resource": "*" } });
    let all = resource("Allow", &json!("*"));
    let cases = [
        (
            json!({}),
            "because no identity-based policy allows the s3:GetObject action",
        ),
        (
            json!({ "identity": [deny] }),
            "with an explicit deny in an identity-based policy",
        ),
        (
            json!({ "identity": [allow], "boundary": [none] }),
            "because no permissions boundary allows the s3:GetObject action",
        ),
        (
            json!({ "identity": [allow], "boundary": [deny] }),
            "with an explicit deny in a permissions boundary",
        ),
        (
            json!({ "identity": [allow], "session": none }),
            "because no session policy allows the s3:GetObject action",
        ),
        (
            json!({ "identity": [allow], "session": deny }),
            "with an explicit deny in a session policy",
        ),
        (
            json!({ "identity": [allow], "scps": [[none]] }),
            "because no service control policy allows the s3:GetObject action",
        ),
        (
            json!({ "identity": [allow], "scps": [[allow, deny]] }),
            "with an explicit deny in a service control policy",
        ),
        (
            json!({ "identity": [allow], "rcps": [[all, resource("Deny", &json!("*"))]] }),
            "with an explicit deny in a resource control policy",
        ),
        (
            json!({ "identity": [allow], "resourcePolicy": resource("Deny", &json!("*")) }),
            "with an explicit deny in a resource-based policy",
        ),
    ];
    for (policies, why) in cases {
        let explanation = decide(SESSION, "s3:GetObject", OBJECT, &policies).explanation;
        let message = explanation.access_denied_message(SESSION, Some(OBJECT));
        let expected = format!(
            "User: {SESSION} is not authorized to perform: s3:GetObject on resource: {OBJECT} {why}"
        );
        assert_eq!(message, expected);
    }
    let key = decide(ALICE, "kms:Decrypt", KEY, &json!({ "identity": [allow] })).explanation;
    assert!(key.access_denied_message(ALICE, None).ends_with(
        "is not authorized to perform: kms:Decrypt because no resource-based policy allows the kms:Decrypt action"
    ));
    let untrusted =
        json!({ "identity": [allow], "resourcePolicy": trust(&json!({ "AWS": MALLORY })) });
    let role = decide(ALICE, "sts:AssumeRole", ROLE, &untrusted).explanation;
    assert!(
        role.access_denied_message(ALICE, Some(ROLE))
            .ends_with("because no role trust policy allows the sts:AssumeRole action")
    );
}

#[test]
fn people_are_told_what_decided_and_what_nearly_did() {
    let policies = json!({ "identity": [{ "Statement": [
        { "Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::other/*" },
        { "Sid": "Office", "Effect": "Allow", "Action": "s3:Get*", "Resource": "*",
          "Condition": { "IpAddress": { "aws:SourceIp": "203.0.113.0/24" }, "Bool": { "aws:SecureTransport": "true" } } },
    ] }] });
    let explanation = decide(ALICE, "s3:GetObject", OBJECT, &policies).explanation;
    let sentences = explanation.sentences();
    assert_eq!(
        sentences[0],
        format!("s3:GetObject on {OBJECT} is denied because no identity-based policy allows it.")
    );
    assert!(
        sentences[1].starts_with("Statement 2 (Office) of policy 1"),
        "{}",
        sentences[1]
    );
    assert!(sentences[1].contains(
        "IpAddress on aws:SourceIp wants `203.0.113.0/24`, and the request does not have it"
    ));
    assert!(sentences[2].contains("it is about other resources"));
    assert!(matches!(
        explanation.near_misses[0].misses[0],
        Miss::Condition(_)
    ));

    let denied = decide(
        ALICE,
        "s3:GetObject",
        OBJECT,
        &json!({ "identity": [identity("Deny")] }),
    );
    let Reason::Denied { statement } = &denied.explanation.reason else {
        panic!("denied")
    };
    assert_eq!((statement.index, statement.sid.as_deref()), (0, Some("S")));
    let first = &denied.explanation.sentences()[0];
    assert!(
        first.ends_with(
            "is denied explicitly by statement 1 (S) of policy 1 (identity-based policy)."
        ),
        "{first}"
    );
}

#[test]
fn lines_that_are_no_cases_are_refused() {
    let request = json!({ "principal": ALICE, "action": "s3:GetObject", "resource": OBJECT });
    let bad = [
        json!({ "id": 1 }),
        json!({ "id": 1, "request": { "principal": ALICE } }),
        json!({ "id": 1, "request": { "principal": "alice", "action": "s3:GetObject" } }),
        json!({ "id": 1, "request": { "principal": ALICE, "action": "GetObject" } }),
        json!({ "id": 1, "request": { "principal": ALICE, "action": "s3:GetObject", "context": { "a": {} } } }),
        json!({ "id": 1, "request": request, "identity": {} }),
        json!({ "id": 1, "request": request, "identity": [{ "Statement": [] }] }),
        json!({ "id": 1, "request": request, "session": { "Statement": [{ "Effect": "Allow" }] } }),
    ];
    for line in bad {
        assert!(case::judge(&line.to_string()).is_err(), "{line}");
        assert_eq!(case::id(&line.to_string()), json!(1));
    }
    assert!(case::judge("not json").is_err());
    assert_eq!(case::id("not json"), Value::Null);
}
