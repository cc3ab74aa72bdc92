//! Decisions of the policy engine a second, on one core, for a principal with ten policies of twenty
//! statements each.
//!
//! The statements differ in services, actions, resources, variables and conditions, as those of a busy
//! user do; requests are allowed late in the list, refused for want of an Allow, and denied.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};
use sortie_iam::{
    Context, NamedPolicy, Outcome, Policies, Policy, PolicyKind, PolicySource, Principal, Request,
    Resource, decide,
};

use crate::{
    note,
    table::{Judge, Peer, Table},
};

const POLICIES: usize = 10;
const STATEMENTS: usize = 20;
const ACCOUNT: &str = "111122223333";

/// Measures each kind of request in `rounds` turns into `table`.
pub(crate) fn measure(rounds: u32, table: &mut Table) -> Result<()> {
    note("policy decisions");
    let identity = policies()?;
    let principal = Principal::user("arn:aws:iam::111122223333:user/alice", "AIDAALICEEXAMPLE");
    let context = context();
    let node = Context::new()
        .with("ssm:resourceTag/Team", "team-199")
        .with("aws:ResourceTag/Team", "team-199");
    let other = Context::new().with("ssm:resourceTag/Team", "none");
    let production = Context::new().with("aws:ResourceTag/Env", "prod");
    let cases = [
        (
            "allowed by the last",
            "ssm:StartSession",
            "instance/i-0123456789abcdef0",
            &node,
            Outcome::Allowed,
        ),
        (
            "allowed by a variable",
            "ssm:TerminateSession",
            "session/alice-0123456789abcdef0",
            &other,
            Outcome::Allowed,
        ),
        (
            "denied explicitly",
            "ssm:StartSession",
            "instance/i-0123456789abcdef0",
            &production,
            Outcome::ExplicitlyDenied,
        ),
        (
            "on no listed node",
            "ssm:StartSession",
            "instance/i-0123456789abcdef0",
            &other,
            Outcome::ImplicitlyDenied,
        ),
        (
            "no such action",
            "kms:Decrypt",
            "key/1234abcd",
            &other,
            Outcome::ImplicitlyDenied,
        ),
    ];
    for (name, action, resource, resource_context, expected) in cases {
        let service = if resource.starts_with("instance") {
            "ec2"
        } else {
            "ssm"
        };
        let arn = format!("arn:aws:{service}:us-east-1:{ACCOUNT}:{resource}");
        let request = Request {
            principal: &principal,
            action,
            resource: Resource::with_context(&arn, resource_context),
            context: &context,
            account: ACCOUNT,
        };
        let policies = Policies {
            identity: &identity,
            ..Policies::default()
        };
        anyhow::ensure!(decide(&request, &policies).outcome == expected, "{name}");
        let row = format!("policy decisions a second and core, thousands: {name}");
        let judge = Judge::AtLeast { limit: 200.0 };
        table.declare(&row, judge);
        for _ in 0..rounds {
            table.add(&row, Peer::Ours, rate(&request, &policies) / 1000.0);
        }
    }
    Ok(())
}

/// Time that this process has had a core, so that others on the machine do not count; where the kernel
/// does not tell, time since the start.
fn core_time(started: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets, user time is the twelfth field, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields
        .split_whitespace()
        .nth(11)
        .and_then(|ticks| ticks.parse().ok());
    ticks.map_or_else(
        || started.elapsed(),
        |ticks: u64| Duration::from_millis(ticks * 10),
    )
}

/// Decisions in a second of a core.
fn rate(request: &Request<'_>, policies: &Policies<'_>) -> f64 {
    let started = Instant::now();
    let before = core_time(started);
    let mut count = 0_u32;
    while core_time(started).saturating_sub(before) < Duration::from_secs(1) {
        for _ in 0..1000 {
            black_box(decide(black_box(request), black_box(policies)));
        }
        count += 1000;
    }
    f64::from(count) / core_time(started).saturating_sub(before).as_secs_f64()
}

fn context() -> Context {
    Context::new()
        .with("aws:CurrentTime", "2026-05-04T10:00:00Z")
        .with("aws:EpochTime", "1777888800")
        .with("aws:MultiFactorAuthAge", "120")
        .with("aws:MultiFactorAuthPresent", "true")
        .with("aws:PrincipalAccount", ACCOUNT)
        .with("aws:PrincipalArn", "arn:aws:iam::111122223333:user/alice")
        .with("aws:PrincipalTag/Team", "red")
        .with("aws:PrincipalType", "User")
        .with("aws:RequestedRegion", "us-east-1")
        .with("aws:SecureTransport", "true")
        .with("aws:SourceIp", "203.0.113.10")
        .with("aws:UserAgent", "aws-cli/2.31.0")
        .with("aws:ViaAWSService", "false")
        .with("aws:userid", "AIDAALICEEXAMPLE")
        .with("aws:username", "alice")
        .with("ssm:SessionDocumentAccessCheck", "true")
}

fn policies() -> Result<Vec<NamedPolicy>> {
    let mut named = Vec::new();
    for policy in 0..POLICIES {
        let statements: Vec<Value> = (0..STATEMENTS)
            .map(|statement| statement_number(policy * STATEMENTS + statement))
            .collect();
        let text = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        named.push(NamedPolicy {
            source: PolicySource::Managed {
                arn: format!("arn:aws:iam::{ACCOUNT}:policy/p{policy}"),
                attached_to: "arn:aws:iam::111122223333:user/alice".to_owned(),
            },
            policy: Arc::new(Policy::parse(&text, PolicyKind::Identity)?),
        });
    }
    Ok(named)
}

/// Six kinds of statement in turn; the last of all allows the first case.
fn statement_number(number: usize) -> Value {
    let sid = format!("S{number}");
    if number + 1 == POLICIES * STATEMENTS {
        return by_tag(&sid, number);
    }
    match number % 6 {
        0 => by_tag(&sid, number),
        1 => json!({ "Sid": sid, "Effect": "Allow",
            "Action": ["ssm:GetDocument", "ssm:DescribeDocument", "ssm:StartSession"],
            "Resource": format!("arn:aws:ssm:*:*:document/Team{number}-*") }),
        2 => json!({ "Sid": sid, "Effect": "Allow",
            "Action": ["s3:Get*", "s3:List*", "logs:*", "ssm:Describe*"],
            "Resource": [format!("arn:aws:s3:::bucket-{number}/*"), format!("arn:aws:s3:::bucket-{number}")] }),
        3 => json!({ "Sid": sid, "Effect": "Deny", "Action": ["ssm:*Session", "ssm:SendCommand"],
            "Resource": "*", "Condition": { "StringEquals": { "aws:ResourceTag/Env": "prod" },
            "NotIpAddress": { "aws:SourceIp": [format!("198.51.100.{number}/32"), "192.0.2.0/24"] } } }),
        4 => {
            json!({ "Sid": sid, "Effect": "Allow", "Action": ["ssm:TerminateSession", "ssm:ResumeSession"],
            "Resource": format!("arn:aws:ssm:*:*:session/${{aws:username}}-{}*", if number == 196 { "" } else { "x" }) })
        }
        _ => json!({ "Sid": sid, "Effect": "Allow", "Action": "ssm:StartSession",
            "Resource": "arn:aws:ec2:*:*:instance/*", "Condition": {
                "DateGreaterThan": { "aws:CurrentTime": "2027-01-01T00:00:00Z" },
                "Bool": { "aws:MultiFactorAuthPresent": "true" } } }),
    }
}

fn by_tag(sid: &str, number: usize) -> Value {
    json!({ "Sid": sid, "Effect": "Allow", "Action": "ssm:StartSession",
        "Resource": ["arn:aws:ec2:*:111122223333:instance/*", "arn:aws:ssm:*:111122223333:managed-instance/*"],
        "Condition": { "StringLike": { "ssm:resourceTag/Team": format!("team-{number}") },
            "BoolIfExists": { "ssm:SessionDocumentAccessCheck": "true" } } })
}
