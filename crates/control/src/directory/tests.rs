//! The directory alone, and how control reads and changes it on a real state.

use std::{
    cell::Cell,
    sync::{Arc, Mutex},
};

use serde_json::json;
use sortie_iam::Context;
use sortie_ports::{
    Commit, IdentityKind, IdentityUse, LocalSignals, PolicyVersion, Signals, State,
};
use sortie_store::SqliteState;
use sortie_types::{Timestamp, UniqueIdKind};
use tempfile::TempDir;
use tokio::sync::broadcast::error::TryRecvError;
use uuid::Uuid;

use super::*;
use crate::{
    Settings,
    authorize::{CREATE_USER, GET_USER},
    call::{Caller, UserCaller},
    seal::RootKey,
};

const T: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const ALLOW_ALL: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
const ALLOW_SSM: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}}"#;
const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "ssm.amazonaws.com"}, "Action": "sts:AssumeRole"}}"#;

fn account() -> AccountId {
    "111122223333".parse().unwrap()
}

fn id(kind: UniqueIdKind, number: u8) -> UniqueId {
    UniqueId::from_random(kind, [number; 17])
}

fn user(number: u8, name: &str) -> User {
    User {
        unique_id: id(UniqueIdKind::User, number),
        name: name.parse().unwrap(),
        path: "/".into(),
        created: T,
        grants: Grants::default(),
        groups: Vec::new(),
        permissions_boundary: None,
        tags: Vec::new(),
        login_profile: None,
    }
}

fn group(number: u8, name: &str, grants: Grants) -> Group {
    Group {
        unique_id: id(UniqueIdKind::Group, number),
        name: name.into(),
        path: "/".into(),
        created: T,
        grants,
    }
}

fn role(number: u8, name: &str, trust_policy: &str) -> Role {
    Role {
        unique_id: id(UniqueIdKind::Role, number),
        name: name.into(),
        path: "/ops/".into(),
        created: T,
        description: None,
        grants: Grants::default(),
        trust_policy: trust_policy.into(),
        max_session_seconds: 3600,
        permissions_boundary: None,
        tags: Vec::new(),
    }
}

/// A managed policy with a version for each text, of which the last is in force.
fn policy(number: u8, name: &str, texts: &[&str]) -> ManagedPolicy {
    let versions = (1..).zip(texts).map(|(number, text)| PolicyVersion {
        number,
        document: (*text).into(),
        created: T,
    });
    let versions: Vec<PolicyVersion> = versions.collect();
    let last = u32::try_from(versions.len()).unwrap();
    ManagedPolicy {
        unique_id: id(UniqueIdKind::ManagedPolicy, number),
        name: name.into(),
        path: "/team/".into(),
        description: None,
        created: T,
        updated: T,
        versions,
        default_version: last,
        next_version: last + 1,
        tags: Vec::new(),
    }
}

fn access_key(number: u8, user: &User, seconds: i64) -> AccessKey {
    AccessKey {
        id: AccessKeyId::long_lived([number; 16]),
        user: user.unique_id.clone(),
        sealed_secret: Vec::new(),
        active: true,
        created: Timestamp::from_millis(seconds * 1000),
    }
}

fn device(name: &str, user: Option<&User>) -> MfaDevice {
    MfaDevice {
        serial_number: arn(&format!("mfa/{name}")),
        sealed_seed: Vec::new(),
        created: T,
        user: user.map(|user| user.unique_id.clone()),
        enabled: user.map(|_| T),
        drift_steps: 0,
        tags: Vec::new(),
    }
}

fn arn(resource: &str) -> Arn {
    Arn::new("iam", "", "111122223333", resource)
}

fn inline(policies: &[(&str, &str)]) -> Grants {
    let policies = policies.iter();
    Grants {
        attached: Vec::new(),
        inline: policies
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect(),
    }
}

fn attached(arns: &[Arn]) -> Grants {
    Grants {
        attached: arns.to_vec(),
        ..Grants::default()
    }
}

fn directory(rows: Vec<Identity>) -> Directory {
    Directory::new(Identities { revision: 1, rows }, &account(), None)
}

#[test]
fn names_are_found_without_regard_to_case_and_listed_in_order() {
    let names = ["bob", "Alice", "carol", "Zoe"];
    let users = (1..).zip(names);
    let rows = users.map(|(number, name)| Identity::User(user(number, name)));
    let directory = directory(rows.collect());
    let listed: Vec<&str> = directory.users().map(|user| user.name.as_str()).collect();
    assert_eq!(listed, ["Alice", "bob", "carol", "Zoe"]);
    for asked in ["alice", "ALICE", "Alice"] {
        let found = directory.user(asked).unwrap();
        assert_eq!(found.unique_id, id(UniqueIdKind::User, 2), "{asked}");
    }
    assert!(directory.user("dave").is_none());
    let zoe = directory.user_by_id(&id(UniqueIdKind::User, 4)).unwrap();
    assert_eq!(zoe.name.as_str(), "Zoe");
    assert!(directory.user_by_id(&id(UniqueIdKind::User, 9)).is_none());
}

#[test]
fn users_of_old_whose_names_differ_by_case_alone_are_both_there() {
    let (small, large) = (user(2, "admin"), user(1, "Admin"));
    let rows = [&small, &large].map(|user| Identity::User(user.clone()));
    let directory = directory(rows.to_vec());
    assert_eq!(directory.users().count(), 2);
    assert_eq!(directory.user_by_id(&small.unique_id), Some(&small));
    assert_eq!(directory.user_by_id(&large.unique_id), Some(&large));
    assert!(directory.user("admin").is_some());
}

#[test]
fn groups_keys_and_devices_are_found_by_their_users() {
    let ops = group(1, "Ops", Grants::default());
    let member = |number, name| User {
        groups: vec![ops.unique_id.clone()],
        ..user(number, name)
    };
    let (alice, bob, carol) = (member(1, "alice"), user(2, "bob"), member(3, "Carol"));
    let (older, newer) = (access_key(9, &alice, 1), access_key(1, &alice, 2));
    let of_bob = access_key(5, &bob, 3);
    let directory = directory(vec![
        Identity::User(carol.clone()),
        Identity::User(bob.clone()),
        Identity::User(alice.clone()),
        Identity::Group(ops.clone()),
        Identity::AccessKey(newer.clone()),
        Identity::AccessKey(of_bob.clone()),
        Identity::AccessKey(older.clone()),
        Identity::MfaDevice(device("alice", Some(&alice))),
        Identity::MfaDevice(device("spare", None)),
    ]);
    let members: Vec<&User> = directory.members(&ops.unique_id).collect();
    assert_eq!(members, [&alice, &carol]);
    assert_eq!(directory.group("OPS"), Some(&ops));
    assert_eq!(directory.group_by_id(&ops.unique_id), Some(&ops));
    assert_eq!(directory.groups().count(), 1);
    let nobodys = id(UniqueIdKind::Group, 9);
    assert_eq!(directory.members(&nobodys).count(), 0);

    assert_eq!(directory.access_key(&newer.id), Some(&newer));
    let keys = directory.access_keys_of(&alice.unique_id);
    assert_eq!(keys, [&older, &newer], "in order of creation");
    assert_eq!(directory.access_keys_of(&bob.unique_id), [&of_bob]);
    assert!(directory.access_keys_of(&carol.unique_id).is_empty());

    let serial_number = arn("mfa/alice");
    let found = directory.mfa_device(serial_number.as_str()).unwrap();
    assert_eq!(directory.mfa_devices_of(&alice.unique_id), [found]);
    assert!(directory.mfa_devices_of(&bob.unique_id).is_empty());
    assert_eq!(directory.mfa_devices().count(), 2);
}

#[test]
fn managed_policies_are_found_by_arn_with_those_who_use_them() {
    let shared = policy(1, "Shared", &["old", ALLOW_SSM]);
    let shared_arn = arn("policy/team/Shared");
    let bounded = User {
        permissions_boundary: Some(shared_arn.clone()),
        ..user(1, "bounded")
    };
    let holder = User {
        grants: attached(std::slice::from_ref(&shared_arn)),
        ..user(2, "holder")
    };
    let ops = group(1, "Ops", attached(std::slice::from_ref(&shared_arn)));
    let nodes = Role {
        grants: attached(std::slice::from_ref(&shared_arn)),
        permissions_boundary: Some(shared_arn.clone()),
        ..role(1, "Nodes", TRUST)
    };
    let directory = directory(vec![
        Identity::Policy(shared.clone()),
        Identity::User(bounded.clone()),
        Identity::User(holder.clone()),
        Identity::Group(ops.clone()),
        Identity::Role(nodes.clone()),
    ]);
    assert_eq!(directory.customer_policy(&shared_arn), Some(&shared));
    assert_eq!(directory.policy("shared"), Some(&shared));
    assert_eq!(directory.policies().count(), 1);
    let other_path = arn("policy/Shared");
    assert_eq!(directory.customer_policy(&other_path), None);
    assert_eq!(directory.managed_document(&shared_arn), Some(ALLOW_SSM));
    assert_eq!(directory.managed_document(&other_path), None);
    let of_aws = "arn:aws:iam::aws:policy/AdministratorAccess";
    let of_aws = directory.managed_document(&of_aws.parse().unwrap());
    assert!(of_aws.unwrap().contains("Allow"));

    let uses = directory.attachments_of(&shared_arn);
    assert_eq!(uses.users, [&holder]);
    assert_eq!(uses.groups, [&ops]);
    assert_eq!(uses.roles, [&nodes]);
    assert_eq!(uses.boundaries, [&bounded.unique_id, &nodes.unique_id]);
    let unused = directory.attachments_of(&other_path);
    assert!(unused.users.is_empty() && unused.boundaries.is_empty());
}

fn sources(policies: &PrincipalPolicies) -> Vec<String> {
    let policies = policies.identity.iter();
    policies.map(|one| one.source.to_string()).collect()
}

#[test]
fn a_user_has_its_own_policies_and_those_of_its_groups() {
    let admins = "arn:aws:iam::aws:policy/AdministratorAccess"
        .parse()
        .unwrap();
    let ops = group(1, "Ops", inline(&[("ssm", ALLOW_SSM)]));
    let alice = User {
        grants: Grants {
            attached: vec![admins],
            ..inline(&[("all", ALLOW_ALL)])
        },
        groups: vec![ops.unique_id.clone(), id(UniqueIdKind::Group, 9)],
        permissions_boundary: Some(arn("policy/team/Bound")),
        ..user(1, "alice")
    };
    let nodes = Role {
        grants: inline(&[("ssm", ALLOW_SSM)]),
        ..role(1, "Nodes", TRUST)
    };
    let directory = directory(vec![
        Identity::User(alice),
        Identity::Group(ops),
        Identity::Role(nodes),
        Identity::Policy(policy(1, "Bound", &[ALLOW_SSM])),
    ]);
    let alice = directory.user("alice").unwrap();
    let policies = directory.policies_of_user(alice);
    assert_eq!(
        sources(&policies),
        [
            "the inline policy `all` of user alice",
            "the policy `arn:aws:iam::aws:policy/AdministratorAccess` attached to user alice",
            "the inline policy `ssm` of group Ops",
        ]
    );
    let boundary = policies.boundary.unwrap();
    assert_eq!(boundary.policy.kind(), PolicyKind::Boundary);
    assert_eq!(
        boundary.source.to_string(),
        "the permissions boundary `arn:aws:iam::111122223333:policy/team/Bound`"
    );
    // A changed copy is not taken for the row.
    let bare = User {
        grants: Grants::default(),
        groups: Vec::new(),
        ..alice.clone()
    };
    assert!(directory.policies_of_user(&bare).identity.is_empty());

    let nodes = directory.role("nodes").unwrap();
    let policies = directory.policies_of_role(nodes);
    assert_eq!(
        sources(&policies),
        ["the inline policy `ssm` of role Nodes"]
    );
    assert!(policies.boundary.is_none());
    let trust = directory.trust_policy(nodes);
    assert_eq!(trust.policy.kind(), PolicyKind::Trust);
    assert_eq!(
        trust.source.to_string(),
        "the trust policy of arn:aws:iam::111122223333:role/ops/Nodes"
    );
}

#[test]
fn policies_are_read_once_and_kept_while_their_text_is_the_same() {
    let rows = |text: &str| {
        let alice = User {
            grants: inline(&[("changing", text), ("same", ALLOW_ALL)]),
            ..user(1, "alice")
        };
        let bob = User {
            grants: inline(&[("same", ALLOW_ALL)]),
            ..user(2, "bob")
        };
        vec![Identity::User(alice), Identity::User(bob)]
    };
    let of = |directory: &Directory, name: &str| -> Vec<Arc<Policy>> {
        let policies = directory.policies_of_user(directory.user(name).unwrap());
        policies
            .identity
            .into_iter()
            .map(|one| one.policy)
            .collect()
    };
    let before = directory(rows(ALLOW_ALL));
    let identities = Identities {
        revision: 2,
        rows: rows(ALLOW_SSM),
    };
    let after = Directory::new(identities, &account(), Some(&before));
    assert_eq!(after.revision(), 2);
    let (first, second) = (of(&before, "alice"), of(&after, "alice"));
    assert!(Arc::ptr_eq(&first[1], &second[1]), "the text is the same");
    assert!(!Arc::ptr_eq(&first[0], &second[0]), "the text is another");
    assert!(Arc::ptr_eq(&first[1], &of(&before, "bob")[0]));
    assert!(Arc::ptr_eq(&second[1], &of(&after, "bob")[0]));
}

#[test]
fn what_cannot_be_read_or_is_gone_denies_everything() {
    let gone = arn("policy/team/Gone");
    let allowed = inline(&[("all", ALLOW_ALL)]);
    let cases = [
        User {
            grants: inline(&[("all", ALLOW_ALL), ("broken", "{")]),
            ..user(1, "broken")
        },
        User {
            grants: Grants {
                attached: vec![gone.clone()],
                ..allowed.clone()
            },
            ..user(2, "attached")
        },
        User {
            grants: allowed.clone(),
            permissions_boundary: Some(gone),
            ..user(3, "bounded")
        },
    ];
    let fine = User {
        grants: allowed,
        ..user(4, "fine")
    };
    let broken = role(1, "Broken", "{");
    let users = cases.iter().chain([&fine]).cloned().map(Identity::User);
    let directory = directory(users.chain([Identity::Role(broken)]).collect());
    let outcome = |user: &User| {
        let policies = directory.policies_of_user(user);
        let principal = sortie_iam::Principal::user("arn:aws:iam::111122223333:user/x", "AIDAX");
        let context = Context::new();
        let request = sortie_iam::Request {
            principal: &principal,
            action: "ssm:DescribeSessions",
            resource: sortie_iam::Resource::new("*"),
            context: &context,
            account: "111122223333",
        };
        let policies = sortie_iam::Policies {
            identity: &policies.identity,
            boundary: policies.boundary.as_ref().map(std::slice::from_ref),
            ..sortie_iam::Policies::default()
        };
        sortie_iam::decide(&request, &policies).outcome
    };
    for user in &cases {
        let denied = sortie_iam::Outcome::ExplicitlyDenied;
        assert_eq!(outcome(user), denied, "{}", user.name);
    }
    assert_eq!(outcome(&fine), sortie_iam::Outcome::Allowed);
    let trust = directory.trust_policy(directory.role("Broken").unwrap());
    assert!(Arc::ptr_eq(&trust.policy, &deny_all(PolicyKind::Trust)));
}

/// Two servers of one installation, and what tells them of changes.
struct Servers {
    one: Control,
    other: Control,
    state: Arc<SqliteState>,
    signals: Arc<LocalSignals>,
    _kept: TempDir,
}

impl Servers {
    async fn start() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let state = SqliteState::open(&kept.path().join("state.db")).await;
        let state = Arc::new(state.unwrap());
        let signals = Arc::new(LocalSignals::default());
        let root_key = RootKey::from_bytes([7; 32]);
        let open = async || {
            let settings = Settings::new("local-1".parse().unwrap());
            let opened = Control::open(
                state.clone(),
                signals.clone(),
                root_key.clone(),
                settings,
                T,
            );
            opened.await.unwrap()
        };
        let (one, other) = (open().await, open().await);
        let made = one.create_administrator(&"admin".parse().unwrap(), T).await;
        assert!(made.unwrap().is_some());
        Self {
            one,
            other,
            state,
            signals,
            _kept: kept,
        }
    }

    async fn call(&self) -> Call {
        let directory = self.one.directory().await.unwrap();
        let admin = directory.user("admin").unwrap();
        let key = directory.access_keys_of(&admin.unique_id)[0];
        Call {
            request_id: Uuid::nil(),
            caller: Caller::User(Box::new(UserCaller {
                user: admin.clone(),
                access_key_id: key.id.clone(),
                session: None,
            })),
            source_ip: "192.0.2.1".into(),
            user_agent: None,
            referer: None,
            secure_transport: true,
            event_source: "iam.amazonaws.com",
            event_name: "CreateUser",
            read_only: false,
            request_parameters: json!({}),
            now: T,
        }
    }

    /// A change past both servers.
    async fn put(&self, row: Identity) {
        let revision = self.state.identity_revision().await.unwrap();
        let commit = Commit {
            changes: vec![
                Change::RequireIdentities { revision },
                Change::PutIdentity(Box::new(row)),
            ],
            trail: Vec::new(),
        };
        self.state.commit(commit).await.unwrap();
    }

    async fn records(&self) -> usize {
        let query = sortie_ports::TrailQuery {
            limit: 100,
            ..sortie_ports::TrailQuery::default()
        };
        self.state.trail(query).await.unwrap().len()
    }
}

fn adding(row: User) -> Edit<usize> {
    Edit {
        answer: 0,
        changes: vec![Change::PutIdentity(Box::new(Identity::User(row)))],
        response: json!({}),
        resources: Vec::new(),
    }
}

#[tokio::test]
async fn a_directory_is_kept_until_anybody_changes_an_identity() {
    let servers = Servers::start().await;
    let first = servers.one.directory().await.unwrap();
    let again = servers.one.directory().await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(first.users().count(), 1);

    let call = servers.call().await;
    let made = servers.other.change_identities(
        &call,
        &CREATE_USER,
        |_| Ask::any(),
        |_, _| Ok(adding(user(1, "alice"))),
    );
    made.await.unwrap();
    let after = servers.one.directory().await.unwrap();
    assert!(after.user("alice").is_some());
    assert!(after.revision() > first.revision());
    assert!(
        first.user("alice").is_none(),
        "what was taken stays as it was"
    );
}

#[tokio::test]
async fn many_calls_at_once_get_one_directory() {
    let servers = Servers::start().await;
    servers.put(Identity::User(user(1, "alice"))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let control = servers.other.clone();
        tasks.spawn(async move { control.directory().await.unwrap() });
    }
    let all = tasks.join_all().await;
    assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_was_overtaken_starts_again_from_what_is_there() {
    let servers = Servers::start().await;
    let (call, before) = (servers.call().await, servers.records().await);
    let mut signals = servers.signals.subscribe();
    let rounds = Cell::new(0);
    let changed = servers.one.change_identities(
        &call,
        &CREATE_USER,
        |_| Ask::any(),
        |directory, _| {
            rounds.set(rounds.get() + 1);
            if rounds.get() <= 2 {
                let overtaking =
                    Identity::User(user(rounds.get(), &format!("user-{}", rounds.get())));
                let put = servers.put(overtaking);
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(put));
            }
            let seen = directory.users().count();
            Ok(Edit {
                answer: seen,
                ..adding(user(9, "last"))
            })
        },
    );
    let seen = changed.await.unwrap().into_inner();
    assert_eq!(rounds.get(), 3);
    assert_eq!(seen, 3, "the administrator and both that overtook");
    let directory = servers.other.directory().await.unwrap();
    assert_eq!(directory.users().count(), 4);
    assert_eq!(servers.records().await, before + 1, "one record of it");
    assert_eq!(signals.try_recv(), Ok(Signal::Identities));
    assert_eq!(signals.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_is_always_overtaken_is_given_up() {
    let servers = Servers::start().await;
    let (call, before) = (servers.call().await, servers.records().await);
    let rounds = Cell::new(0_usize);
    let changed = servers.one.change_identities(
        &call,
        &CREATE_USER,
        |_| Ask::any(),
        |_, _| {
            rounds.set(rounds.get() + 1);
            let put = servers.put(Identity::User(user(1, "busy")));
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(put));
            Ok(adding(user(9, "last")))
        },
    );
    let refused = changed.await;
    assert!(matches!(refused, Err(IamError::ConcurrentModification)));
    assert_eq!(rounds.get(), ATTEMPTS);
    let directory = servers.one.directory().await.unwrap();
    assert!(directory.user("last").is_none());
    assert_eq!(servers.records().await, before);
}

#[tokio::test]
async fn edits_at_the_same_time_all_happen() {
    let servers = Servers::start().await;
    let call = servers.call().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=30 {
        let (control, call) = (servers.one.clone(), call.clone());
        tasks.spawn(async move {
            let changed = control.change_identities(
                &call,
                &CREATE_USER,
                |_| Ask::any(),
                |_, _| Ok(adding(user(number, &format!("user-{number}")))),
            );
            changed.await.unwrap();
        });
    }
    tasks.join_all().await;
    let directory = servers.other.directory().await.unwrap();
    assert_eq!(directory.users().count(), 31);
}

#[tokio::test]
async fn what_is_refused_or_changes_nothing_raises_no_revision() {
    let servers = Servers::start().await;
    let call = servers.call().await;
    let revision = servers.one.directory().await.unwrap().revision();
    let mut signals = servers.signals.subscribe();
    let refused = servers.one.change_identities::<()>(
        &call,
        &CREATE_USER,
        |_| Ask::any(),
        |_, _| Err(IamError::NoSuchEntity("no".into())),
    );
    assert!(matches!(refused.await, Err(IamError::NoSuchEntity(_))));
    let before = servers.records().await;
    let nothing = servers.one.change_identities(
        &call,
        &CREATE_USER,
        |_| Ask::any(),
        |_, _| {
            Ok(Edit {
                changes: Vec::new(),
                ..adding(user(1, "x"))
            })
        },
    );
    nothing.await.unwrap();
    let read = servers.one.read_identities(
        &call,
        &GET_USER,
        |_| Ask::any(),
        |directory, _| Ok(directory.users().count()),
    );
    assert_eq!(read.await.unwrap().into_inner(), 1);
    assert_eq!(servers.records().await, before + 2);
    let nobody = Call {
        caller: Caller::Anonymous { access_key: None },
        ..call
    };
    let asked = Mutex::new(false);
    let denied = servers.one.change_identities(
        &nobody,
        &CREATE_USER,
        |_| Ask::any(),
        |_, _| {
            *asked.lock().unwrap() = true;
            Ok(adding(user(1, "x")))
        },
    );
    assert!(matches!(denied.await, Err(IamError::Denied(_))));
    assert!(
        !*asked.lock().unwrap(),
        "nothing is looked at without leave"
    );
    assert_eq!(servers.one.directory().await.unwrap().revision(), revision);
    assert_eq!(signals.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn the_newest_use_of_a_key_is_known_before_it_is_written() {
    let servers = Servers::start().await;
    let Caller::User(caller) = servers.call().await.caller else {
        panic!("the administrator is a user");
    };
    let key = caller.access_key_id.as_str();
    let of = async |control: &Control| {
        let found = control.identity_use(IdentityKind::AccessKey, key).await;
        found
            .unwrap()
            .map(|usage| (usage.at, usage.service.unwrap()))
    };
    let note = |at, service: &str| {
        let usage = IdentityUse {
            at: Timestamp::from_millis(at),
            service: Some(service.into()),
            region: Some("local-1".into()),
        };
        servers
            .one
            .identity_used(IdentityKind::AccessKey, key, usage);
    };
    assert_eq!(of(&servers.one).await, None);
    note(2000, "ssm");
    note(1000, "sts");
    let newest = Some((Timestamp::from_millis(2000), "ssm".to_owned()));
    assert_eq!(of(&servers.one).await, newest);
    assert_eq!(of(&servers.other).await, None, "it is not written yet");
    let revision = servers.state.identity_revision().await.unwrap();
    servers.one.flush().await;
    assert_eq!(of(&servers.one).await, newest);
    assert_eq!(of(&servers.other).await, newest);
    assert_eq!(servers.state.identity_revision().await.unwrap(), revision);
    // One that came late does not hide what is written.
    note(1500, "iam");
    assert_eq!(of(&servers.one).await, newest);
    note(3000, "iam");
    let newest = Some((Timestamp::from_millis(3000), "iam".to_owned()));
    assert_eq!(of(&servers.one).await, newest);
}
