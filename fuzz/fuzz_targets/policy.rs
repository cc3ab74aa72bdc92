//! Any text as a policy document of every kind: reading never panics, and what was read decides.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sortie_iam::{
    Context, NamedPolicy, Policies, Policy, PolicyKind, PolicySource, Principal, Request, Resource,
    explain,
};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let principal = Principal::user("arn:aws:iam::111122223333:user/alice", "AIDAALICE");
    let context = Context::new()
        .with("aws:username", "alice")
        .with("aws:CurrentTime", "2026-05-04T08:00:00Z")
        .with("aws:SourceIp", "192.0.2.1")
        .with_many("aws:TagKeys", ["Team", "Env"]);
    let kinds = [
        PolicyKind::Boundary,
        PolicyKind::Identity,
        PolicyKind::Resource,
        PolicyKind::Session,
        PolicyKind::Trust,
    ];
    for kind in kinds {
        let Ok(policy) = Policy::parse(text, kind) else { continue };
        let _ = policy.context_keys();
        let named = [NamedPolicy {
            source: PolicySource::Unnamed { position: 1 },
            policy: Arc::new(policy),
        }];
        let request = Request {
            principal: &principal,
            action: "ssm:TerminateSession",
            resource: Resource::new("arn:aws:ssm:local-1:111122223333:session/alice-0123456789abcdef0"),
            context: &context,
            account: "111122223333",
        };
        let policies = match kind {
            PolicyKind::Resource | PolicyKind::Trust => {
                Policies { resource: named.first(), ..Policies::default() }
            }
            _ => Policies { identity: &named, ..Policies::default() },
        };
        let decision = explain(&request, &policies);
        let _ = decision.explanation.sentences();
        // A limit of any kind never makes an allowed request out of one that was not.
        let limited = Policies { boundary: Some(&named), ..policies };
        assert!(decision.is_allowed() || !explain(&request, &limited).is_allowed());
    }
});
