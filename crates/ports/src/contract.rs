//! The suite that every state adapter must pass. Each function takes a fresh, empty state and
//! checks one rule of [`State`]; [`state_contract!`](crate::state_contract) makes tests of them.
//!
//! What only one engine can do or lose (files, crashes, migrations) is tested beside its adapter.

#![expect(
    clippy::unwrap_used,
    reason = "a test suite: what cannot be done fails the test"
)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::json;
use sortie_evidence::{AuditRecord, Category, Failure, Resource, UserIdentity};
use sortie_types::{
    AccessKeyId, ActivationId, Arn, NodeId, SessionId, Tag, Timestamp, UniqueId, UniqueIdKind,
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    AccessKey, Activation, ActivationUse, Change, Commit, Conflict, Document, DocumentVersion,
    DocumentVersionKey, Grants, Group, Identities, Identity, IdentityKind, IdentityUse,
    Installation, LoginProfile, ManagedPolicy, MfaDevice, Node, NodeInfo, NodeState, PolicyVersion,
    Role, ServiceSetting, Session, SessionPatch, SessionQuery, SessionState, State, StoreError,
    TaggedResource, TrailAttribute, TrailEntry, TrailQuery, User,
};

/// Makes a test of each rule. `$fresh` is an async function that answers an empty
/// `Arc<dyn State>` and something to keep while the test runs, such as a temporary directory.
#[macro_export]
macro_rules! state_contract {
    ($fresh:path) => {
        $crate::state_contract! { $fresh:
            a_closed_state_says_so
            a_conflict_undoes_the_whole_commit
            a_deregistered_node_stays_and_changes_no_more
            activations_are_kept_and_deleted
            activations_are_paged_without_gaps_or_repeats
            activations_are_used_within_limit_and_time
            an_administrator_is_remembered_for_good
            an_activation_is_never_used_more_often_than_its_limit
            an_mfa_code_is_used_once
            commits_stand_or_fall_alone
            documents_are_kept_and_change_only_as_they_were_read
            documents_are_paged_with_their_tags_and_versions
            identities_are_kept_and_removed
            identities_change_only_at_the_revision_that_was_read
            no_change_of_identities_is_lost_among_many
            nodes_are_kept_and_change
            nodes_are_paged_with_their_tags
            only_what_is_old_and_over_is_pruned
            service_settings_are_set_and_reset
            sessions_are_filtered
            sessions_are_kept_and_change
            sessions_are_paged_without_gaps_or_repeats
            tags_are_put_within_the_limit_and_removed
            the_installation_is_set_once
            the_trail_is_filtered_by_each_attribute
            the_trail_is_paged_without_gaps_or_repeats
            the_trail_keeps_data_events_to_itself
            the_use_of_an_identity_raises_no_revision
            touching_never_moves_a_time_back
            what_a_node_says_replaces_only_what_it_says
        }
    };
    ($fresh:path: $($rule:ident)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                let (state, _kept) = $fresh().await;
                $crate::contract::$rule(state).await;
            }
        )*
    };
}

/// Some time; the rules count from it.
const T: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The constants are kept, and cannot be set again.
pub async fn the_installation_is_set_once(state: Arc<dyn State>) {
    assert_eq!(state.installation().await.unwrap(), None);
    let constants = installation();
    let set = Change::InsertInstallation(constants.clone());
    state.commit(changes([set])).await.unwrap();
    assert_eq!(state.installation().await.unwrap(), Some(constants.clone()));

    let other = Installation {
        region: "other-1".parse().unwrap(),
        ..constants.clone()
    };
    refused(&state, Change::InsertInstallation(other), Conflict::Exists).await;
    assert_eq!(state.installation().await.unwrap(), Some(constants));
}

/// What comes before a conflict in its commit leaves no trace, nor do the commit's audit records.
pub async fn a_conflict_undoes_the_whole_commit(state: Arc<dyn State>) {
    set_up(&state).await;
    let (first, second) = (activation(1), activation(2));
    let commit = Commit {
        changes: vec![
            Change::InsertActivation(first.clone()),
            Change::DeregisterNode(node_id(1)),
            Change::InsertActivation(second.clone()),
        ],
        trail: vec![record(1)],
    };
    assert_conflict(state.commit(commit).await, Conflict::NoNode);
    assert_eq!(state.activation(&first.id).await.unwrap(), None);
    assert_eq!(state.activation(&second.id).await.unwrap(), None);
    assert_eq!(trail(&state, TrailQuery::default()).await, []);

    // The same id of a record cannot be there twice, and takes its changes with it.
    let commit = |activation: &Activation| Commit {
        changes: vec![Change::InsertActivation(activation.clone())],
        trail: vec![record(1)],
    };
    state.commit(commit(&first)).await.unwrap();
    assert!(state.commit(commit(&second)).await.is_err());
    assert_eq!(state.activation(&second.id).await.unwrap(), None);
    assert_eq!(trail(&state, TrailQuery::default()).await.len(), 1);
}

/// Of many commits at the same time each has its own outcome.
pub async fn commits_stand_or_fall_alone(state: Arc<dyn State>) {
    const COMMITS: u8 = 100;
    set_up(&state).await;
    insert(&state, Change::InsertActivation(activation(COMMITS))).await;
    let mut tasks = JoinSet::new();
    for number in 0..COMMITS {
        let state = Arc::clone(&state);
        // Every tenth wants an id that is taken, but its own record would be new.
        let id = match number % 10 {
            7 => COMMITS,
            _ => number,
        };
        tasks.spawn(async move {
            let commit = Commit {
                changes: vec![Change::InsertActivation(activation(id))],
                trail: vec![record(u128::from(number))],
            };
            (number, state.commit(commit).await)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (number, outcome) = done.unwrap();
        if number % 10 == 7 {
            assert_conflict(outcome, Conflict::Exists);
        } else {
            outcome.unwrap();
            let found = state.activation(&activation(number).id).await.unwrap();
            assert!(found.is_some(), "commit {number} is readable once answered");
        }
    }
    let lines = trail(&state, TrailQuery::default()).await;
    assert_eq!(lines.len(), usize::from(COMMITS - COMMITS / 10));
}

/// After [`State::close`] nothing is done any more; closing twice is fine.
pub async fn a_closed_state_says_so(state: Arc<dyn State>) {
    set_up(&state).await;
    tokio::join!(state.close(), state.close());
    state.close().await;
    let commit = changes([Change::SetNoNodeConnected]);
    assert!(matches!(
        state.commit(commit).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        state.installation().await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        state.identity_revision().await,
        Err(StoreError::Closed)
    ));
    let lines = state.trail(TrailQuery::default()).await;
    assert!(matches!(lines, Err(StoreError::Closed)));
}

/// Rows of every kind come back whole, are replaced by kind and key, and go.
pub async fn identities_are_kept_and_removed(state: Arc<dyn State>) {
    set_up(&state).await;
    let fresh = state.identities(None).await.unwrap().unwrap();
    assert_eq!(fresh, Identities::default(), "nothing has changed yet");
    let mut expected = one_of_each_kind();
    put(&state, expected.clone()).await;
    let (revision, found) = identities(&state).await;
    assert_eq!(found, sorted(expected.clone()));
    assert!(revision > 0);
    assert_eq!(state.identity_revision().await.unwrap(), revision);
    assert_eq!(state.identities(Some(revision)).await.unwrap(), None);
    assert!(state.identities(Some(0)).await.unwrap().is_some());
    assert!(
        state
            .identities(Some(revision + 1))
            .await
            .unwrap()
            .is_some()
    );

    // The same key under another kind is another row.
    let renamed = Group {
        name: "Others".into(),
        ..full_group()
    };
    put(&state, vec![Identity::Group(renamed.clone())]).await;
    expected.retain(|one| one.kind() != IdentityKind::Group);
    expected.push(Identity::Group(renamed));
    let (second, found) = identities(&state).await;
    assert_eq!(found, sorted(expected.clone()));
    assert!(second > revision);

    let gone = expected.pop().unwrap();
    let remove = |identity: &Identity| Change::RemoveIdentity {
        kind: identity.kind(),
        key: identity.key().to_owned(),
    };
    change_identities(&state, vec![remove(&gone)]).await;
    let (third, found) = identities(&state).await;
    assert_eq!(found, sorted(expected));
    assert!(third > second);
    // It is gone already.
    change_identities(&state, vec![remove(&gone)]).await;
}

/// A change whose revision is not the one that was read, or that names none, is refused with all that
/// comes with it. What is refused raises no revision.
pub async fn identities_change_only_at_the_revision_that_was_read(state: Arc<dyn State>) {
    set_up(&state).await;
    put(&state, vec![Identity::User(user(1, "alice"))]).await;
    let (revision, before) = identities(&state).await;
    let bob = || Change::PutIdentity(Box::new(Identity::User(user(2, "bob"))));
    let no_alice = || Change::RemoveIdentity {
        kind: IdentityKind::User,
        key: unique_id(1).to_string(),
    };
    let require = |revision| Change::RequireIdentities { revision };
    for unconditional in [bob(), no_alice()] {
        refused(&state, unconditional, Conflict::Revision).await;
    }
    for wrong in [revision - 1, revision + 1] {
        refused(&state, require(wrong), Conflict::Revision).await;
        for change in [bob(), no_alice()] {
            let commit = Commit {
                changes: vec![require(wrong), change],
                trail: vec![record(1)],
            };
            assert_conflict(state.commit(commit).await, Conflict::Revision);
        }
    }
    // One that fails for another reason.
    let commit = changes([require(revision), bob(), Change::DeregisterNode(node_id(1))]);
    assert_conflict(state.commit(commit).await, Conflict::NoNode);
    assert_eq!(identities(&state).await, (revision, before));
    assert_eq!(state.identity_revision().await.unwrap(), revision);
    assert_eq!(trail(&state, TrailQuery::default()).await, []);

    // Alone it is a question, and raises nothing.
    insert(&state, require(revision)).await;
    let both = changes([require(revision), bob(), no_alice()]);
    state.commit(both).await.unwrap();
    let (after, found) = identities(&state).await;
    assert!(after > revision);
    assert_eq!(found, [Identity::User(user(2, "bob"))]);
}

/// Everyone who is refused reads again and tries again; in the end all changes are there, and nobody
/// who was answered is told that nothing changed.
pub async fn no_change_of_identities_is_lost_among_many(state: Arc<dyn State>) {
    const WRITERS: u8 = 20;
    set_up(&state).await;
    let mut tasks = JoinSet::new();
    for number in 0..WRITERS {
        let state = Arc::clone(&state);
        tasks.spawn(async move {
            loop {
                let (revision, _) = identities(&state).await;
                let one = Identity::User(user(number, &format!("user-{number}")));
                let add = [
                    Change::RequireIdentities { revision },
                    Change::PutIdentity(Box::new(one.clone())),
                ];
                match state.commit(changes(add)).await {
                    Ok(()) => {
                        assert!(state.identity_revision().await.unwrap() > revision);
                        let now = state.identities(Some(revision)).await.unwrap();
                        assert!(now.unwrap().rows.contains(&one), "{one:?}");
                        return;
                    }
                    outcome => assert_conflict(outcome, Conflict::Revision),
                }
            }
        });
    }
    tasks.join_all().await;
    let (_, found) = identities(&state).await;
    assert_eq!(found.len(), usize::from(WRITERS));
}

/// The newest use is kept, of rows that are there; it raises no revision and goes with its row.
pub async fn the_use_of_an_identity_raises_no_revision(state: Arc<dyn State>) {
    set_up(&state).await;
    let alice = user(1, "alice");
    let key = access_key(1, &alice);
    let rows = vec![
        Identity::User(alice.clone()),
        Identity::AccessKey(key.clone()),
    ];
    put(&state, rows).await;
    let (revision, _) = identities(&state).await;
    let (of_key, of_user) = (key.id.as_str(), alice.unique_id.as_str());
    let found = async |kind, key: &str| state.identity_use(kind, key).await.unwrap();
    assert_eq!(found(IdentityKind::AccessKey, of_key).await, None);

    let at = |seconds| T.plus(Duration::from_secs(seconds));
    let of_service = |seconds, service: &str| IdentityUse {
        at: at(seconds),
        service: Some(service.into()),
        region: Some("local-1".into()),
    };
    let password = IdentityUse {
        at: at(1),
        service: None,
        region: None,
    };
    let touch = |uses: Vec<(IdentityKind, &str, IdentityUse)>| Change::Touch {
        nodes: Vec::new(),
        sessions: Vec::new(),
        identities: uses
            .into_iter()
            .map(|(kind, key, usage)| (kind, key.to_owned(), usage))
            .collect(),
    };
    let unknown = unique_id(9);
    let uses = vec![
        (IdentityKind::AccessKey, of_key, of_service(2, "ssm")),
        (IdentityKind::AccessKey, of_key, of_service(1, "sts")),
        (IdentityKind::User, of_user, password.clone()),
        (IdentityKind::User, unknown.as_str(), password.clone()),
        (IdentityKind::Role, of_user, password.clone()),
    ];
    insert(&state, touch(uses)).await;
    let newest = Some(of_service(2, "ssm"));
    assert_eq!(found(IdentityKind::AccessKey, of_key).await, newest);
    assert_eq!(found(IdentityKind::User, of_user).await, Some(password));
    assert_eq!(found(IdentityKind::User, unknown.as_str()).await, None);
    assert_eq!(found(IdentityKind::Role, of_user).await, None);
    let late = vec![(IdentityKind::AccessKey, of_key, of_service(1, "iam"))];
    insert(&state, touch(late)).await;
    assert_eq!(found(IdentityKind::AccessKey, of_key).await, newest);
    assert_eq!(state.identity_revision().await.unwrap(), revision);

    // A row that is replaced keeps it, and one that goes takes it along.
    put(&state, vec![Identity::AccessKey(key.clone())]).await;
    assert_eq!(found(IdentityKind::AccessKey, of_key).await, newest);
    let remove = Change::RemoveIdentity {
        kind: IdentityKind::AccessKey,
        key: of_key.to_owned(),
    };
    change_identities(&state, vec![remove]).await;
    put(&state, vec![Identity::AccessKey(key.clone())]).await;
    assert_eq!(found(IdentityKind::AccessKey, of_key).await, None);
}

/// Each name is taken once, whoever else is there.
pub async fn an_administrator_is_remembered_for_good(state: Arc<dyn State>) {
    set_up(&state).await;
    let made = || Change::InsertAdministrator {
        name: "admin".into(),
    };
    assert!(!state.administrator_made("admin").await.unwrap());
    insert(&state, made()).await;
    assert!(state.administrator_made("admin").await.unwrap());
    assert!(!state.administrator_made("other").await.unwrap());
    refused(&state, made(), Conflict::Exists).await;
}

/// Of one code shown many times at once, one is taken; older ones and those of devices that are gone
/// are refused.
pub async fn an_mfa_code_is_used_once(state: Arc<dyn State>) {
    set_up(&state).await;
    let device = full_device();
    let serial_number = &device.serial_number;
    let use_step = |step| Change::UseMfaStep {
        serial_number: serial_number.clone(),
        step,
    };
    refused(&state, use_step(1), Conflict::CodeUsed).await;
    put(&state, vec![Identity::MfaDevice(device.clone())]).await;

    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (state, commit) = (Arc::clone(&state), changes([use_step(100)]));
        tasks.spawn(async move { state.commit(commit).await });
    }
    let outcomes = tasks.join_all().await;
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(taken, 1);
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        assert_conflict(outcome, Conflict::CodeUsed);
    }
    refused(&state, use_step(99), Conflict::CodeUsed).await;
    insert(&state, use_step(101)).await;
    // A commit that is refused for another reason uses no code.
    let commit = changes([use_step(102), Change::DeregisterNode(node_id(1))]);
    assert_conflict(state.commit(commit).await, Conflict::NoNode);
    insert(&state, use_step(102)).await;

    // A device that is replaced is the same; a new one of the same name starts anew.
    put(&state, vec![Identity::MfaDevice(device.clone())]).await;
    refused(&state, use_step(102), Conflict::CodeUsed).await;
    let remove = Change::RemoveIdentity {
        kind: IdentityKind::MfaDevice,
        key: serial_number.to_string(),
    };
    change_identities(&state, vec![remove]).await;
    refused(&state, use_step(200), Conflict::CodeUsed).await;
    put(&state, vec![Identity::MfaDevice(device.clone())]).await;
    insert(&state, use_step(1)).await;
}

/// Activations come back whole, are taken once, and go with their tags.
pub async fn activations_are_kept_and_deleted(state: Arc<dyn State>) {
    set_up(&state).await;
    let full = Activation {
        description: Some("rack 7".into()),
        default_instance_name: Some("rack-7".into()),
        tags: vec![tag("Env", "Test"), tag("Team", "팀")],
        ..activation(1)
    };
    insert(&state, Change::InsertActivation(full.clone())).await;
    insert(&state, Change::InsertActivation(activation(2))).await;
    assert_eq!(
        state.activation(&full.id).await.unwrap(),
        Some(full.clone())
    );
    assert_eq!(
        state.activation(&activation(2).id).await.unwrap(),
        Some(activation(2))
    );
    let taken = Change::InsertActivation(activation(1));
    refused(&state, taken, Conflict::Exists).await;

    insert(&state, Change::DeleteActivation(full.id)).await;
    assert_eq!(state.activation(&full.id).await.unwrap(), None);
    let again = Change::DeleteActivation(full.id);
    refused(&state, again, Conflict::NoActivation).await;
    // A new one under the same id does not inherit tags.
    insert(&state, Change::InsertActivation(activation(1))).await;
    let found = state.activation(&full.id).await.unwrap();
    assert_eq!(found, Some(activation(1)));
}

/// Pages of every size, put together, are all activations, newest first.
pub async fn activations_are_paged_without_gaps_or_repeats(state: Arc<dyn State>) {
    set_up(&state).await;
    let mut all: Vec<Activation> = (0..10)
        .map(|number| Activation {
            // Three share each time.
            created: T.plus(Duration::from_secs(u64::from(number / 3))),
            tags: vec![tag("Number", &number.to_string()), tag("Z", "")],
            ..activation(number)
        })
        .collect();
    let inserts = all.iter().cloned().map(Change::InsertActivation);
    state.commit(changes(inserts)).await.unwrap();
    all.sort_by_key(|one| std::cmp::Reverse((one.created, one.id)));
    for size in 1..=11 {
        let mut paged: Vec<Activation> = Vec::new();
        loop {
            let after = paged.last().map(|one| (one.created, one.id));
            let page = state.activations(after, size).await.unwrap();
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "pages of {size}");
    }
}

/// Each reason for refusing a use is told apart; the last moment still counts.
pub async fn activations_are_used_within_limit_and_time(state: Arc<dyn State>) {
    set_up(&state).await;
    let activation = Activation {
        registration_limit: 1,
        ..activation(1)
    };
    let use_it = |activation: &Activation, at| Change::UseActivation {
        activation_id: activation.id,
        at,
    };
    insert(&state, Change::InsertActivation(activation.clone())).await;
    let unknown = Conflict::Activation(ActivationUse::Unknown);
    refused(&state, use_it(&self::activation(2), T), unknown).await;
    let late = activation.expires.plus(Duration::from_millis(1));
    let expired = Conflict::Activation(ActivationUse::Expired);
    refused(&state, use_it(&activation, late), expired).await;

    insert(&state, use_it(&activation, activation.expires)).await;
    let used_up = Conflict::Activation(ActivationUse::UsedUp);
    refused(&state, use_it(&activation, T), used_up).await;
    let found = state.activation(&activation.id).await.unwrap().unwrap();
    assert_eq!(found.registrations_count, 1);
}

/// Fifty machines at once, and exactly as many enrol as may.
pub async fn an_activation_is_never_used_more_often_than_its_limit(state: Arc<dyn State>) {
    const LIMIT: i64 = 20;
    set_up(&state).await;
    let activation = Activation {
        registration_limit: LIMIT,
        ..activation(1)
    };
    insert(&state, Change::InsertActivation(activation.clone())).await;
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let (state, activation_id) = (Arc::clone(&state), activation.id);
        tasks.spawn(async move {
            let enrol = [
                Change::UseActivation {
                    activation_id,
                    at: T,
                },
                Change::InsertNode(Box::new(node(number))),
            ];
            state.commit(changes(enrol)).await
        });
    }
    let mut enrolled = 0;
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(()) => enrolled += 1,
            refused => assert_conflict(refused, Conflict::Activation(ActivationUse::UsedUp)),
        }
    }
    assert_eq!(enrolled, LIMIT);
    let found = state.activation(&activation.id).await.unwrap().unwrap();
    assert_eq!(found.registrations_count, LIMIT);
    let nodes = state.nodes(None, 100).await.unwrap();
    assert_eq!(i64::try_from(nodes.len()), Ok(LIMIT));
}

/// Nodes come back whole; id and key are taken once; each setter sets its facts and no others.
pub async fn nodes_are_kept_and_change(state: Arc<dyn State>) {
    set_up(&state).await;
    let mut expected = Node {
        name: Some("web-1".into()),
        source_ip: Some("192.0.2.7".into()),
        previous_public_key: Some(vec![9, 0, 255]),
        tags: vec![tag("Env", "Test")],
        ..node(1)
    };
    insert(&state, Change::InsertNode(Box::new(expected.clone()))).await;
    insert(&state, Change::InsertNode(Box::new(node(2)))).await;
    assert_eq!(found_node(&state, 1).await, expected);
    assert_eq!(state.node(&node_id(3)).await.unwrap(), None);
    for taken in [
        Node {
            id: node_id(1),
            ..node(3)
        },
        Node {
            id: node_id(3),
            ..node(1)
        },
    ] {
        let taken = Change::InsertNode(Box::new(taken));
        refused(&state, taken, Conflict::Exists).await;
    }

    let at = T.plus(Duration::from_secs(5));
    for setter in node_setters(&expected.id, at) {
        insert(&state, setter).await;
    }
    expected.connected = true;
    expected.last_ping = at;
    expected.info = full_info();
    expected.public_key = b"new key".to_vec();
    expected.previous_public_key = None;
    expected.name = Some("renamed".into());
    expected.iam_role = "OtherRole".into();
    assert_eq!(found_node(&state, 1).await, expected);
    assert_eq!(found_node(&state, 2).await, node(2));
    let stolen = Change::SetNodeKey {
        node_id: node_id(2),
        public_key: expected.public_key.clone(),
        previous: None,
    };
    refused(&state, stolen, Conflict::Exists).await;

    let require = |number, public_key: Option<&[u8]>| Change::RequireNode {
        node_id: node_id(number),
        public_key: public_key.map(<[u8]>::to_vec),
    };
    insert(&state, require(1, None)).await;
    insert(&state, require(1, Some(b"new key"))).await;
    refused(&state, require(1, Some(b"old key")), Conflict::NodeKey).await;
    refused(&state, require(9, None), Conflict::NoNode).await;

    insert(&state, Change::SetNoNodeConnected).await;
    expected.connected = false;
    assert_eq!(found_node(&state, 1).await, expected);
}

/// Facts that a node leaves out stay as they were.
pub async fn what_a_node_says_replaces_only_what_it_says(state: Arc<dyn State>) {
    set_up(&state).await;
    insert(&state, Change::InsertNode(Box::new(node(1)))).await;
    let say = |info: NodeInfo| Change::SetNodeInfo {
        node_id: node_id(1),
        info,
        at: T,
    };
    insert(&state, say(full_info())).await;
    let only_address = NodeInfo {
        ip_address: Some("192.0.2.9".into()),
        ..NodeInfo::default()
    };
    insert(&state, say(only_address)).await;
    let expected = NodeInfo {
        ip_address: Some("192.0.2.9".into()),
        ..full_info()
    };
    assert_eq!(found_node(&state, 1).await.info, expected);
}

/// A node that was thrown out is still found by id, is listed no more, and nothing changes it.
pub async fn a_deregistered_node_stays_and_changes_no_more(state: Arc<dyn State>) {
    set_up(&state).await;
    let gone = Node {
        connected: true,
        tags: vec![tag("Env", "Test")],
        ..node(1)
    };
    insert(&state, Change::InsertNode(Box::new(gone.clone()))).await;
    insert(&state, Change::InsertNode(Box::new(node(2)))).await;
    insert(&state, Change::DeregisterNode(node_id(1))).await;
    let expected = Node {
        state: NodeState::Deregistered,
        connected: false,
        ..gone
    };
    assert_eq!(found_node(&state, 1).await, expected);
    assert_eq!(state.nodes(None, 10).await.unwrap(), [node(2)]);

    // As with one that never was.
    for id in [node_id(1), node_id(9)] {
        let mut refusals = node_setters(&id, T);
        refusals.push(Change::DeregisterNode(id.clone()));
        refusals.push(put_tags(TaggedResource::Node(id), &[tag("K", "v")], 10));
        for change in refusals {
            refused(&state, change, Conflict::NoNode).await;
        }
    }
    assert_eq!(found_node(&state, 1).await, expected);
}

/// Pages of every size, put together, are all active nodes in order, each with its own tags.
pub async fn nodes_are_paged_with_their_tags(state: Arc<dyn State>) {
    set_up(&state).await;
    let mut all: Vec<Node> = (0..10)
        .map(|number| Node {
            tags: (0..number % 4)
                .map(|index| tag(&format!("Key{index}"), &number.to_string()))
                .collect(),
            ..node(number)
        })
        .collect();
    let inserts = all
        .iter()
        .cloned()
        .map(|one| Change::InsertNode(Box::new(one)));
    state.commit(changes(inserts)).await.unwrap();
    insert(&state, Change::DeregisterNode(node_id(4))).await;
    all.remove(4);
    for size in 1..=10 {
        let mut paged: Vec<Node> = Vec::new();
        loop {
            let after = paged.last().map(|one| one.id.clone());
            let page = state.nodes(after, size).await.unwrap();
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "pages of {size}");
    }
}

/// Tags are set and replaced by key, never more than the limit, and removed by key.
pub async fn tags_are_put_within_the_limit_and_removed(state: Arc<dyn State>) {
    set_up(&state).await;
    insert(&state, Change::InsertNode(Box::new(node(1)))).await;
    insert(&state, Change::InsertActivation(activation(1))).await;
    let of_node = || TaggedResource::Node(node_id(1));
    let of_activation = || TaggedResource::Activation(activation(1).id);

    insert(
        &state,
        put_tags(of_node(), &[tag("B", "1"), tag("A", "1")], 3),
    )
    .await;
    insert(&state, put_tags(of_activation(), &[tag("A", "other")], 3)).await;
    insert(
        &state,
        put_tags(of_node(), &[tag("B", "2"), tag("C", "1")], 3),
    )
    .await;
    let three = [tag("A", "1"), tag("B", "2"), tag("C", "1")];
    assert_eq!(found_node(&state, 1).await.tags, three);
    // A fourth is refused and the replacement that came with it undone.
    let fourth = put_tags(of_node(), &[tag("A", "9"), tag("D", "1")], 3);
    refused(&state, fourth, Conflict::TooManyTags).await;
    assert_eq!(found_node(&state, 1).await.tags, three);
    // At the limit replacing is still fine.
    insert(&state, put_tags(of_node(), &[tag("A", "9")], 3)).await;

    let keys = ["A", "C", "absent"].map(str::to_owned).to_vec();
    let remove = Change::RemoveTags {
        resource: of_node(),
        keys,
    };
    insert(&state, remove).await;
    assert_eq!(found_node(&state, 1).await.tags, [tag("B", "2")]);
    let found = state.activation(&activation(1).id).await.unwrap().unwrap();
    assert_eq!(found.tags, [tag("A", "other")]);

    let nowhere = put_tags(TaggedResource::Activation(activation(2).id), &three, 9);
    refused(&state, nowhere, Conflict::NoActivation).await;
    let nowhere = put_tags(TaggedResource::Node(node_id(2)), &three, 9);
    refused(&state, nowhere, Conflict::NoNode).await;
    let nowhere = put_tags(TaggedResource::Document("none".into()), &three, 9);
    refused(&state, nowhere, Conflict::NoDocument).await;
}

/// A document comes back whole with the version in force, changes as a whole at the revision that was
/// read, and goes with its versions and tags.
pub async fn documents_are_kept_and_change_only_as_they_were_read(state: Arc<dyn State>) {
    set_up(&state).await;
    let (first, version) = (document("Tail"), document_version("Tail", 1));
    insert_document(&state, &first, &version).await;
    let found = state.document("Tail").await.unwrap();
    assert_eq!(found, Some((first.clone(), version.clone())));
    assert_eq!(state.document("tail").await.unwrap(), None);
    let again = Change::InsertDocument {
        document: Box::new(first.clone()),
        version: Box::new(version.clone()),
        limit: 9,
    };
    refused(&state, again, Conflict::Exists).await;

    let second = document_version("Tail", 2);
    let wanted = Document {
        default_version: 2,
        latest_version: 2,
        next_version: 3,
        target_type: None,
        shared_with: [("all".to_owned(), None)].into(),
        ..first.clone()
    };
    let update =
        |document: &Document, added: Option<&DocumentVersion>, removed| Change::UpdateDocument {
            document: Box::new(document.clone()),
            added: added.cloned().map(Box::new),
            removed,
        };
    insert(&state, update(&wanted, Some(&second), None)).await;
    let raised = Document {
        revision: first.revision + 1,
        ..wanted.clone()
    };
    let found = state.document("Tail").await.unwrap();
    assert_eq!(found, Some((raised.clone(), second.clone())));
    // Decided by what is no longer so.
    let third = document_version("Tail", 3);
    let late = update(&wanted, Some(&third), None);
    refused(&state, late, Conflict::DocumentRevision).await;
    let late = Change::DeleteDocument {
        name: "Tail".into(),
        revision: first.revision,
    };
    refused(&state, late, Conflict::DocumentRevision).await;
    let other = document("Other");
    refused(&state, update(&other, None, None), Conflict::NoDocument).await;
    // A number and a name are given once.
    let taken = [
        DocumentVersion {
            number: 1,
            ..third.clone()
        },
        DocumentVersion {
            version_name: second.version_name.clone(),
            ..third.clone()
        },
    ];
    for taken in &taken {
        refused(&state, update(&raised, Some(taken), None), Conflict::Exists).await;
    }
    let unnamed = |number| DocumentVersion {
        version_name: None,
        ..document_version("Tail", number)
    };
    insert(&state, update(&raised, Some(&unnamed(3)), Some(1))).await;
    let again = Document {
        revision: raised.revision + 1,
        ..raised
    };
    insert(&state, update(&again, Some(&unnamed(4)), None)).await;
    let numbers = async |before, limit| -> Vec<i64> {
        let versions = state
            .document_versions("Tail", before, limit)
            .await
            .unwrap();
        versions.iter().map(|version| version.number).collect()
    };
    assert_eq!(numbers(None, 9).await, [4, 3, 2]);
    assert_eq!(numbers(None, 2).await, [4, 3]);
    assert_eq!(numbers(Some(3), 9).await, [2]);
    let by = async |key| state.document_version("Tail", key).await.unwrap();
    assert_eq!(
        by(DocumentVersionKey::Number(2)).await,
        Some(second.clone())
    );
    assert_eq!(by(DocumentVersionKey::Named("v2")).await, Some(second));
    assert_eq!(by(DocumentVersionKey::Number(1)).await, None);
    assert_eq!(by(DocumentVersionKey::Named("v1")).await, None);

    let delete = Change::DeleteDocument {
        name: "Tail".into(),
        revision: again.revision + 1,
    };
    insert(&state, delete.clone()).await;
    assert_eq!(state.document("Tail").await.unwrap(), None);
    assert_eq!(numbers(None, 9).await, [0_i64; 0]);
    refused(&state, delete, Conflict::NoDocument).await;
    // One of the same name has nothing of the one before.
    let untagged = Document {
        tags: Vec::new(),
        ..first
    };
    insert_document(&state, &untagged, &version).await;
    let found = state.document("Tail").await.unwrap();
    assert_eq!(found, Some((untagged, version)));
}

/// Pages are in order of names, whole, and no more documents are made than there may be.
pub async fn documents_are_paged_with_their_tags_and_versions(state: Arc<dyn State>) {
    set_up(&state).await;
    let names = ["A", "B", "a", "b", "c"];
    for name in names.iter().rev() {
        insert_document(&state, &document(name), &document_version(name, 1)).await;
    }
    let tags = [tag("A", "1"), tag("Env", "prod"), tag("Z", "2")];
    let resource = TaggedResource::Document("b".into());
    insert(&state, put_tags(resource, &tags, 9)).await;
    let mut found = Vec::new();
    loop {
        let after = found
            .last()
            .map(|(document, _): &(Document, _)| document.name.clone());
        let page = state.documents(after, 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let expected: Vec<(Document, DocumentVersion)> = names
        .iter()
        .map(|name| {
            let mut document = document(name);
            if *name == "b" {
                document.tags = tags.to_vec();
            }
            (document, document_version(name, 1))
        })
        .collect();
    assert_eq!(found, expected);
    let sixth = Change::InsertDocument {
        document: Box::new(document("d")),
        version: Box::new(document_version("d", 1)),
        limit: 5,
    };
    refused(&state, sixth, Conflict::TooManyDocuments).await;
}

/// What is set is there until it is reset.
pub async fn service_settings_are_set_and_reset(state: Arc<dyn State>) {
    set_up(&state).await;
    let id = "/ssm/a";
    assert_eq!(state.service_setting(id).await.unwrap(), None);
    for value in ["x", "y"] {
        let setting = ServiceSetting {
            id: id.into(),
            value: value.into(),
            modified: T,
            modified_by: "alice".into(),
        };
        insert(&state, Change::PutServiceSetting(setting.clone())).await;
        assert_eq!(state.service_setting(id).await.unwrap(), Some(setting));
    }
    for _ in 0..2 {
        insert(&state, Change::RemoveServiceSetting { id: id.into() }).await;
        assert_eq!(state.service_setting(id).await.unwrap(), None);
    }
}

/// Sessions come back whole; a patch changes what it names, in the states it may.
pub async fn sessions_are_kept_and_change(state: Arc<dyn State>) {
    set_up(&state).await;
    let mut expected = Session {
        reason: Some("ticket 7".into()),
        max_duration_seconds: Some(3600),
        parameters: json!({"b": ["1"], "a": ["x", "y"]}),
        ..session(1)
    };
    insert(&state, Change::InsertSession(Box::new(expected.clone()))).await;
    insert(&state, Change::InsertSession(Box::new(session(2)))).await;
    assert_eq!(found_session(&state, 1).await, expected);
    assert_eq!(state.session(&session_id(3)).await.unwrap(), None);
    let taken = Change::InsertSession(Box::new(session(1)));
    refused(&state, taken, Conflict::Exists).await;

    let update = |number, when: &[SessionState], patch| Change::UpdateSession {
        session_id: session_id(number),
        when: when.to_vec(),
        patch,
    };
    let connect = SessionPatch {
        state: Some(SessionState::Connected),
        ..SessionPatch::default()
    };
    let unknown = update(3, &[], connect.clone());
    refused(&state, unknown, Conflict::NoSession).await;
    let when = [SessionState::Disconnected, SessionState::Terminating];
    let connecting = Conflict::SessionState(SessionState::Connecting);
    refused(&state, update(1, &when, connect.clone()), connecting).await;

    let when = [SessionState::Disconnected, SessionState::Connecting];
    insert(&state, update(1, &when, connect)).await;
    expected.state = SessionState::Connected;
    assert_eq!(found_session(&state, 1).await, expected);
    insert(&state, update(1, &[], SessionPatch::default())).await;
    assert_eq!(found_session(&state, 1).await, expected);

    let end = SessionPatch {
        state: Some(SessionState::Terminated),
        end_reason: Some("idle".into()),
        ended: Some(T.plus(Duration::from_secs(9))),
        client_epoch: Some(3),
        node_epoch: Some(4),
        last_activity: Some(T.plus(Duration::from_secs(8))),
        request_context: Some(json!({"sourceIp": "192.0.2.2"})),
    };
    insert(&state, update(1, &[], end.clone())).await;
    for epoch in [3, 2] {
        let late = SessionPatch {
            client_epoch: Some(epoch),
            request_context: Some(json!({})),
            ..SessionPatch::default()
        };
        refused(&state, update(1, &[], late), Conflict::Superseded).await;
    }
    expected.state = SessionState::Terminated;
    expected.end_reason = end.end_reason;
    expected.ended = end.ended;
    (expected.client_epoch, expected.node_epoch) = (3, 4);
    expected.last_activity = T.plus(Duration::from_secs(8));
    expected.request_context = json!({"sourceIp": "192.0.2.2"});
    assert_eq!(found_session(&state, 1).await, expected);
    assert_eq!(found_session(&state, 2).await, session(2));
}

/// Each filter, alone and with others.
pub async fn sessions_are_filtered(state: Arc<dyn State>) {
    use SessionState::{Connected, Connecting, Failed, Terminated, Terminating};
    set_up(&state).await;
    let at = |seconds| T.plus(Duration::from_secs(seconds));
    let states = [Connected, Connecting, Terminating, Terminated, Failed];
    for (number, session_state) in (1..=5).zip(states) {
        let one = Session {
            state: session_state,
            target: node_id(number % 2),
            owner: owner(if number < 4 { "alice" } else { "bob" }),
            started: at(u64::from(number)),
            ended: session_state.is_over().then(|| at(u64::from(number) + 10)),
            ..session(number)
        };
        insert(&state, Change::InsertSession(Box::new(one))).await;
    }
    let all = || SessionQuery {
        limit: 10,
        ..SessionQuery::default()
    };
    let cases: Vec<(SessionQuery, &[u8])> = vec![
        (all(), &[5, 4, 3, 2, 1]),
        (
            SessionQuery {
                states: vec![Connected, Connecting],
                ..all()
            },
            &[2, 1],
        ),
        (
            SessionQuery {
                states: vec![Terminated, Connected],
                ..all()
            },
            &[4, 1],
        ),
        (
            SessionQuery {
                states: vec![Failed],
                ..all()
            },
            &[5],
        ),
        (
            SessionQuery {
                target: Some(node_id(0)),
                ..all()
            },
            &[4, 2],
        ),
        (
            SessionQuery {
                target: Some(node_id(7)),
                ..all()
            },
            &[],
        ),
        (
            SessionQuery {
                owner: Some(owner("bob")),
                ..all()
            },
            &[5, 4],
        ),
        (
            SessionQuery {
                session_id: Some(session_id(3)),
                ..all()
            },
            &[3],
        ),
        (
            SessionQuery {
                started_after: Some(at(4)),
                ..all()
            },
            &[5, 4],
        ),
        (
            SessionQuery {
                started_before: Some(at(2)),
                ..all()
            },
            &[1],
        ),
        (
            SessionQuery {
                ended_after: Some(at(14)),
                ..all()
            },
            &[5, 3, 2, 1],
        ),
        (
            SessionQuery {
                after: Some((at(3), session_id(3))),
                ..all()
            },
            &[2, 1],
        ),
        (SessionQuery { limit: 2, ..all() }, &[5, 4]),
        (
            SessionQuery {
                states: vec![Terminated, Failed],
                target: Some(node_id(1)),
                owner: Some(owner("bob")),
                started_after: Some(at(5)),
                started_before: Some(at(6)),
                ended_after: Some(at(14)),
                ..all()
            },
            &[5],
        ),
    ];
    for (query, expected) in cases {
        let found = state.sessions(query.clone()).await.unwrap();
        let found: Vec<SessionId> = found.into_iter().map(|one| one.id).collect();
        let expected: Vec<SessionId> = expected.iter().copied().map(session_id).collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

/// Pages of every size, put together, are all sessions, newest first.
pub async fn sessions_are_paged_without_gaps_or_repeats(state: Arc<dyn State>) {
    set_up(&state).await;
    let mut all: Vec<Session> = (0..12)
        .map(|number| Session {
            started: T.plus(Duration::from_secs(u64::from(number / 4))),
            ..session(number)
        })
        .collect();
    let inserts = all
        .iter()
        .cloned()
        .map(|one| Change::InsertSession(Box::new(one)));
    state.commit(changes(inserts)).await.unwrap();
    all.sort_by_key(|one| std::cmp::Reverse((one.started, one.id.clone())));
    for size in 1..=13 {
        let mut paged: Vec<Session> = Vec::new();
        loop {
            let query = SessionQuery {
                after: paged.last().map(|one| (one.started, one.id.clone())),
                limit: size,
                ..SessionQuery::default()
            };
            let page = state.sessions(query).await.unwrap();
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "pages of {size}");
    }
}

/// Heartbeats and activity are written in any number and order; a late one changes nothing, and
/// rows that are gone are passed over.
pub async fn touching_never_moves_a_time_back(state: Arc<dyn State>) {
    set_up(&state).await;
    for number in 1..=2 {
        insert(&state, Change::InsertNode(Box::new(node(number)))).await;
        insert(&state, Change::InsertSession(Box::new(session(number)))).await;
    }
    let (early, late) = (
        T.minus(Duration::from_secs(1)),
        T.plus(Duration::from_secs(1)),
    );
    let later = T.plus(Duration::from_secs(2));
    // Two of each for number 1, the newer first; a late one for 2; and a crowd that is gone.
    let nodes = [(node_id(1), later), (node_id(1), late), (node_id(2), early)];
    let crowd = (3..=250).map(|number| (node_id(number), late));
    let sessions = [
        (session_id(1), later),
        (session_id(1), late),
        (session_id(2), early),
        (session_id(3), late),
    ];
    let touch = Change::Touch {
        nodes: nodes.into_iter().chain(crowd).collect(),
        sessions: sessions.to_vec(),
        identities: Vec::new(),
    };
    insert(&state, touch).await;
    assert_eq!(found_node(&state, 1).await.last_ping, later);
    assert_eq!(found_node(&state, 2).await, node(2));
    assert_eq!(found_session(&state, 1).await.last_activity, later);
    assert_eq!(found_session(&state, 2).await, session(2));
    let nothing = Change::Touch {
        nodes: Vec::new(),
        sessions: Vec::new(),
        identities: Vec::new(),
    };
    insert(&state, nothing).await;
}

/// Pruning takes ended sessions and lines older than said, the oldest first, within its limit.
pub async fn only_what_is_old_and_over_is_pruned(state: Arc<dyn State>) {
    set_up(&state).await;
    let at = |seconds| T.plus(Duration::from_secs(seconds));
    // The first lives on, the others ended one after another.
    let sessions = (0..=5).map(|number| {
        let ended = number > 0;
        Change::InsertSession(Box::new(Session {
            state: if ended {
                SessionState::Terminated
            } else {
                SessionState::Connected
            },
            ended: ended.then(|| at(u64::from(number))),
            ..session(number)
        }))
    });
    let (line, _, _) = three_records();
    let lines = (1..=5).map(|number: u8| AuditRecord {
        event_id: Uuid::from_u128(u128::from(number)),
        event_time: at(u64::from(number)),
        ..line.clone()
    });
    let commit = Commit {
        changes: sessions.collect(),
        trail: lines.collect(),
    };
    state.commit(commit).await.unwrap();

    let prune = |limit| Change::Prune {
        sessions_ended_before: at(4),
        trail_before: at(5),
        limit,
    };
    let left = async || {
        let query = SessionQuery {
            limit: 100,
            ..SessionQuery::default()
        };
        let sessions = state.sessions(query).await.unwrap();
        let sessions: Vec<SessionId> = sessions.into_iter().rev().map(|one| one.id).collect();
        let lines = trail(&state, TrailQuery::default()).await;
        let times: Vec<Timestamp> = lines.iter().rev().map(|(_, one)| one.event_time).collect();
        (sessions, times)
    };
    insert(&state, prune(2)).await;
    let ids = [0, 3, 4, 5].map(session_id).to_vec();
    assert_eq!(left().await, (ids, vec![at(3), at(4), at(5)]));
    insert(&state, prune(100)).await;
    let expected = ([0, 4, 5].map(session_id).to_vec(), vec![at(5)]);
    assert_eq!(left().await, expected);
    insert(&state, prune(100)).await;
    assert_eq!(left().await, expected);
}

/// Each attribute finds its lines and no others; times bound them, both ends included.
pub async fn the_trail_is_filtered_by_each_attribute(state: Arc<dyn State>) {
    set_up(&state).await;
    let (first, second, third) = three_records();
    for record in [&first, &second, &third] {
        let commit = Commit {
            changes: Vec::new(),
            trail: vec![record.clone()],
        };
        state.commit(commit).await.unwrap();
    }
    let by = |attribute| TrailQuery {
        attribute: Some(attribute),
        ..TrailQuery::default()
    };
    let text = str::to_owned;
    let role_arn = "arn:aws:iam::111122223333:role/service-role/Nodes";
    let cases: Vec<(TrailQuery, Vec<&AuditRecord>)> = vec![
        (TrailQuery::default(), vec![&third, &second, &first]),
        (
            by(TrailAttribute::AccessKeyId(text("AKIAAAAAAAAAAAAAAAAA"))),
            vec![&first],
        ),
        (
            by(TrailAttribute::EventId(second.event_id.to_string())),
            vec![&second],
        ),
        (
            by(TrailAttribute::EventName(text("StartSession"))),
            vec![&first],
        ),
        (
            by(TrailAttribute::EventSource(text("sts.amazonaws.com"))),
            vec![&third],
        ),
        (by(TrailAttribute::ReadOnly(true)), vec![&third, &second]),
        (by(TrailAttribute::ReadOnly(false)), vec![&first]),
        (
            by(TrailAttribute::ResourceName(text("mi-00000000000000001"))),
            vec![&first],
        ),
        (
            by(TrailAttribute::ResourceName(text("Nodes"))),
            vec![&second, &first],
        ),
        (
            by(TrailAttribute::ResourceName(text(role_arn))),
            vec![&second, &first],
        ),
        (
            by(TrailAttribute::ResourceType(text("AWS::IAM::Role"))),
            vec![&second, &first],
        ),
        (
            by(TrailAttribute::ResourceType(text("AWS::IAM::role"))),
            vec![],
        ),
        (by(TrailAttribute::Username(text("alice"))), vec![&first]),
        (by(TrailAttribute::Username(text(""))), vec![]),
        (
            TrailQuery {
                from: Some(second.event_time),
                ..TrailQuery::default()
            },
            vec![&third, &second],
        ),
        (
            TrailQuery {
                until: Some(second.event_time),
                ..TrailQuery::default()
            },
            vec![&second, &first],
        ),
        (
            TrailQuery {
                from: Some(third.event_time),
                ..by(TrailAttribute::ResourceType(text("AWS::IAM::Role")))
            },
            vec![],
        ),
    ];
    for (query, expected) in cases {
        let found = trail(&state, query.clone()).await;
        let found: Vec<TrailEntry> = found.into_iter().map(|(_, entry)| entry).collect();
        let expected: Vec<TrailEntry> = expected.into_iter().map(entry).collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

/// Pages of every size, put together, are the whole trail, the line appended last first, even
/// where all have one time and lines are appended meanwhile.
pub async fn the_trail_is_paged_without_gaps_or_repeats(state: Arc<dyn State>) {
    set_up(&state).await;
    let append = async |range: std::ops::Range<u128>| {
        let commit = Commit {
            changes: Vec::new(),
            trail: range.map(record).collect(),
        };
        state.commit(commit).await.unwrap();
    };
    append(0..10).await;
    let mut there = 10;
    for size in 1..=11 {
        let expected: Vec<String> = (0..there)
            .rev()
            .map(|number| record(number).event_id.to_string())
            .collect();
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let query = TrailQuery {
                after,
                limit: size,
                ..TrailQuery::default()
            };
            let page = state.trail(query).await.unwrap();
            assert!(page.len() <= size);
            let Some((line, _)) = page.last() else { break };
            after = Some(*line);
            paged.extend(page.into_iter().map(|(_, entry)| entry.event_id));
            append(there..there + 1).await;
            there += 1;
        }
        assert_eq!(paged, expected, "pages of {size}");
    }
}

/// Data events are kept, but a look-up answers management events only.
pub async fn the_trail_keeps_data_events_to_itself(state: Arc<dyn State>) {
    set_up(&state).await;
    let data = AuditRecord {
        category: Category::Data,
        ..record(1)
    };
    let commit = Commit {
        changes: Vec::new(),
        trail: vec![data.clone(), record(2)],
    };
    state.commit(commit).await.unwrap();
    let found = trail(&state, TrailQuery::default()).await;
    let found: BTreeSet<String> = found.into_iter().map(|(_, one)| one.event_id).collect();
    assert_eq!(found, BTreeSet::from([record(2).event_id.to_string()]));
    let by_id = TrailQuery {
        attribute: Some(TrailAttribute::EventId(data.event_id.to_string())),
        ..TrailQuery::default()
    };
    assert_eq!(trail(&state, by_id).await, []);
    // It is there all the same: its id is taken.
    let again = Commit {
        changes: Vec::new(),
        trail: vec![data],
    };
    assert!(state.commit(again).await.is_err());
}

// What the rules are made of.

async fn set_up(state: &Arc<dyn State>) {
    insert(state, Change::InsertInstallation(installation())).await;
}

/// Commits one change that must succeed.
async fn insert(state: &Arc<dyn State>, change: Change) {
    let said = format!("{change:?}");
    let outcome = state.commit(changes([change])).await;
    assert!(outcome.is_ok(), "{said}: {outcome:?}");
}

async fn insert_document(state: &Arc<dyn State>, document: &Document, version: &DocumentVersion) {
    let insert_one = Change::InsertDocument {
        document: Box::new(document.clone()),
        version: Box::new(version.clone()),
        limit: 9,
    };
    insert(state, insert_one).await;
}

fn document(name: &str) -> Document {
    Document {
        name: name.into(),
        created: T,
        default_version: 1,
        latest_version: 1,
        next_version: 2,
        target_type: Some("/any".into()),
        shared_with: [("111122223333".to_owned(), Some("$LATEST".to_owned()))].into(),
        revision: 1,
        tags: vec![tag("Env", "prod")],
    }
}

fn document_version(name: &str, number: i64) -> DocumentVersion {
    DocumentVersion {
        document: name.into(),
        number,
        version_name: Some(format!("v{number}")),
        display_name: Some("shown".into()),
        format: "YAML".into(),
        content: format!("number: {number}\n# 'quoted' \u{e4}\n"),
        created: T.plus(Duration::from_secs(number.unsigned_abs())),
    }
}

/// The revision and all rows, in order.
async fn identities(state: &Arc<dyn State>) -> (i64, Vec<Identity>) {
    let all = state.identities(None).await.unwrap().unwrap();
    (all.revision, sorted(all.rows))
}

fn sorted(mut rows: Vec<Identity>) -> Vec<Identity> {
    rows.sort_by(|one, other| (one.kind(), one.key()).cmp(&(other.kind(), other.key())));
    rows
}

/// Puts rows at the revision of this moment.
async fn put(state: &Arc<dyn State>, rows: Vec<Identity>) {
    let puts = rows
        .into_iter()
        .map(|row| Change::PutIdentity(Box::new(row)));
    change_identities(state, puts.collect()).await;
}

/// Commits changes at the revision of this moment.
async fn change_identities(state: &Arc<dyn State>, wanted: Vec<Change>) {
    let (revision, _) = identities(state).await;
    let require = Change::RequireIdentities { revision };
    let commit = changes([require].into_iter().chain(wanted));
    state.commit(commit).await.unwrap();
}

/// Commits one change that must be refused, and must leave no audit record.
async fn refused(state: &Arc<dyn State>, change: Change, conflict: Conflict) {
    let before = trail(state, TrailQuery::default()).await;
    let commit = Commit {
        changes: vec![change],
        trail: vec![record(u128::MAX)],
    };
    assert_conflict(state.commit(commit).await, conflict);
    assert_eq!(trail(state, TrailQuery::default()).await, before);
}

#[track_caller]
fn assert_conflict(outcome: Result<(), StoreError>, expected: Conflict) {
    assert!(
        matches!(outcome, Err(StoreError::Conflict(conflict)) if conflict == expected),
        "{expected:?} expected, not {outcome:?}"
    );
}

/// The lines that `query` finds, all of them when it has no limit.
async fn trail(state: &Arc<dyn State>, query: TrailQuery) -> Vec<(i64, TrailEntry)> {
    let limit = match query.limit {
        0 => 1000,
        limit => limit,
    };
    state.trail(TrailQuery { limit, ..query }).await.unwrap()
}

fn changes(changes: impl IntoIterator<Item = Change>) -> Commit {
    Commit {
        changes: changes.into_iter().collect(),
        trail: Vec::new(),
    }
}

fn put_tags(resource: TaggedResource, tags: &[Tag], limit: usize) -> Change {
    Change::PutTags {
        resource,
        tags: tags.to_vec(),
        limit,
    }
}

/// One of each change of an active node.
fn node_setters(id: &NodeId, at: Timestamp) -> Vec<Change> {
    let node_id = || id.clone();
    vec![
        Change::SetNodeConnected {
            node_id: node_id(),
            connected: true,
            at,
        },
        Change::SetNodeInfo {
            node_id: node_id(),
            info: full_info(),
            at,
        },
        Change::RequireNode {
            node_id: node_id(),
            public_key: None,
        },
        Change::SetNodeKey {
            node_id: node_id(),
            public_key: b"new key".to_vec(),
            previous: None,
        },
        Change::SetNodeName {
            node_id: node_id(),
            name: Some("renamed".into()),
        },
        Change::SetNodeRole {
            node_id: node_id(),
            iam_role: "OtherRole".into(),
        },
    ]
}

async fn found_node(state: &Arc<dyn State>, number: u8) -> Node {
    state.node(&node_id(number)).await.unwrap().unwrap()
}

async fn found_session(state: &Arc<dyn State>, number: u8) -> Session {
    state.session(&session_id(number)).await.unwrap().unwrap()
}

fn installation() -> Installation {
    Installation {
        account_id: "111122223333".parse().unwrap(),
        region: "local-1".parse().unwrap(),
    }
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::new(key, value).unwrap()
}

fn unique_id(number: u8) -> UniqueId {
    // Base 32 takes five bits of each byte.
    let mut random = [0; 17];
    random[0] = number >> 5;
    random[1] = number & 31;
    UniqueId::from_random(UniqueIdKind::User, random)
}

fn user(number: u8, name: &str) -> User {
    User {
        unique_id: unique_id(number),
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

fn unique_id_of(kind: UniqueIdKind) -> UniqueId {
    UniqueId::from_random(kind, [3; 17])
}

fn policy_arn(name: &str) -> Arn {
    Arn::new("iam", "", "111122223333", &format!("policy/{name}"))
}

fn full_grants() -> Grants {
    Grants {
        attached: vec![policy_arn("Z"), policy_arn("A")],
        inline: [("one", "{}"), ("two", r#"{"Statement": []}"#)]
            .map(|(name, document)| (name.to_owned(), document.to_owned()))
            .into(),
    }
}

fn full_group() -> Group {
    Group {
        unique_id: unique_id_of(UniqueIdKind::Group),
        name: "Operators".into(),
        path: "/ops/".into(),
        created: T,
        grants: full_grants(),
    }
}

fn full_device() -> MfaDevice {
    MfaDevice {
        serial_number: Arn::new("iam", "", "111122223333", "mfa/alice"),
        sealed_seed: (0..=255).collect(),
        created: T,
        user: Some(unique_id(1)),
        enabled: Some(T),
        drift_steps: -2,
        tags: vec![tag("A", "1")],
    }
}

/// Every kind, with everything that a row can have, and one with nothing.
fn one_of_each_kind() -> Vec<Identity> {
    let alice = User {
        path: "/ops/".into(),
        grants: full_grants(),
        groups: vec![full_group().unique_id],
        permissions_boundary: Some(policy_arn("Bound")),
        tags: vec![tag("Team", "팀")],
        login_profile: Some(LoginProfile {
            password_hash: "$argon2id$v=19$x".into(),
            reset_required: true,
            created: T,
            changed: Some(T),
        }),
        ..user(1, "alice")
    };
    let role = Role {
        unique_id: unique_id_of(UniqueIdKind::Role),
        name: "Nodes".into(),
        path: "/service-role/".into(),
        created: T,
        description: Some("한글 \"quoted\"".into()),
        grants: full_grants(),
        trust_policy: r#"{"Version": "2012-10-17"}"#.into(),
        max_session_seconds: 3600,
        permissions_boundary: Some(policy_arn("Bound")),
        tags: vec![tag("A", "1"), tag("B", "2")],
    };
    let policy = ManagedPolicy {
        unique_id: unique_id_of(UniqueIdKind::ManagedPolicy),
        name: "Bound".into(),
        path: "/".into(),
        description: None,
        created: T,
        updated: T,
        versions: vec![PolicyVersion {
            number: 2,
            document: "{}".into(),
            created: T,
        }],
        default_version: 2,
        next_version: 3,
        tags: Vec::new(),
    };
    vec![
        Identity::AccessKey(access_key(1, &alice)),
        Identity::User(alice),
        Identity::User(user(2, "bob")),
        Identity::MfaDevice(full_device()),
        Identity::Policy(policy),
        Identity::Role(role),
        Identity::Group(full_group()),
    ]
}

fn access_key(number: u8, user: &User) -> AccessKey {
    AccessKey {
        id: AccessKeyId::long_lived([number; 16]),
        user: user.unique_id.clone(),
        sealed_secret: vec![0, number, 255],
        active: true,
        created: T,
    }
}

fn activation(number: u8) -> Activation {
    Activation {
        id: ActivationId::new(Uuid::from_u128(u128::from(number))),
        code_digest: [number; 32],
        iam_role: "Nodes".into(),
        description: None,
        default_instance_name: None,
        registration_limit: 10,
        registrations_count: 0,
        expires: T.plus(Duration::from_secs(3600)),
        created: T,
        tags: Vec::new(),
    }
}

fn node_id(number: u8) -> NodeId {
    NodeId::from_random([0, 0, 0, 0, 0, 0, 0, number, 0])
}

fn node(number: u8) -> Node {
    Node {
        id: node_id(number),
        state: NodeState::Active,
        activation_id: activation(1).id,
        iam_role: "Nodes".into(),
        name: None,
        registered: T,
        source_ip: None,
        fingerprint: format!("fingerprint {number}"),
        public_key: vec![48, number],
        previous_public_key: None,
        info: NodeInfo::default(),
        last_ping: T,
        connected: false,
        tags: Vec::new(),
    }
}

fn full_info() -> NodeInfo {
    let some = |text: &str| Some(text.to_owned());
    NodeInfo {
        agent_name: some("amazon-ssm-agent"),
        agent_version: some("3.3.9999.0"),
        computer_name: some("web-1.example.org"),
        ip_address: some("10.0.0.7"),
        platform_type: some("Linux"),
        platform_name: some("Debian GNU/Linux"),
        platform_version: some("12"),
    }
}

fn owner(name: &str) -> Arn {
    Arn::new("iam", "", "111122223333", &format!("user/{name}"))
}

fn session_id(number: u8) -> SessionId {
    SessionId::from_random("alice", [0, 0, 0, 0, 0, 0, 0, number, 0])
}

fn session(number: u8) -> Session {
    Session {
        id: session_id(number),
        target: node_id(1),
        owner: owner("alice"),
        owner_unique_id: unique_id(1),
        document_name: "SSM-SessionManagerRunShell".into(),
        document_content: json!({"schemaVersion": "1.0", "inputs": {"idle": 20}}),
        parameters: json!({}),
        reason: None,
        state: SessionState::Connecting,
        end_reason: None,
        started: T,
        ended: None,
        idle_timeout_seconds: 1200,
        max_duration_seconds: None,
        client_epoch: 1,
        node_epoch: 1,
        last_activity: T,
        request_context: json!({"sourceIp": "192.0.2.1", "userAgent": "한글"}),
    }
}

fn record(number: u128) -> AuditRecord {
    AuditRecord {
        event_id: Uuid::from_u128(number),
        event_time: T,
        event_source: "ssm.amazonaws.com".into(),
        event_name: "StartSession".into(),
        event_type: "AwsApiCall",
        region: installation().region,
        account_id: installation().account_id,
        source_ip_address: "192.0.2.1".into(),
        user_agent: None,
        identity: UserIdentity::Anonymous {
            access_key_id: None,
        },
        request_parameters: json!({"target": "mi-00000000000000001"}),
        response_elements: json!(null),
        additional: json!(null),
        service_event: json!(null),
        request_id: Uuid::from_u128(number),
        read_only: false,
        resources: Vec::new(),
        category: Category::Management,
        failure: None,
    }
}

/// A user's start of a session, a service's look at a role, and a stranger's refused question.
fn three_records() -> (AuditRecord, AuditRecord, AuditRecord) {
    let role = Resource {
        kind: "AWS::IAM::Role",
        arn: Arn::new("iam", "", "111122223333", "role/service-role/Nodes"),
    };
    let node = Resource {
        kind: "AWS::SSM::ManagedNode",
        arn: "arn:aws:ssm:local-1:111122223333:managed-instance/mi-00000000000000001"
            .parse()
            .unwrap(),
    };
    let first = AuditRecord {
        identity: UserIdentity::IamUser {
            principal_id: unique_id(1).to_string(),
            arn: owner("alice"),
            access_key_id: Some("AKIAAAAAAAAAAAAAAAAA".into()),
            user_name: "alice".into(),
            session: None,
        },
        resources: vec![node, role.clone()],
        ..record(1)
    };
    let second = AuditRecord {
        event_time: T.plus(Duration::from_secs(1)),
        event_name: "RoleLookedUp".into(),
        identity: UserIdentity::Service {
            invoked_by: "ssm.amazonaws.com".into(),
        },
        read_only: true,
        resources: vec![role],
        ..record(2)
    };
    let third = AuditRecord {
        event_time: T.plus(Duration::from_secs(2)),
        event_source: "sts.amazonaws.com".into(),
        event_name: "GetCallerIdentity".into(),
        identity: UserIdentity::Anonymous {
            access_key_id: Some("AKIABBBBBBBBBBBBBBBB".into()),
        },
        read_only: true,
        failure: Some(Failure {
            code: "InvalidClientTokenId".into(),
            message: "no".into(),
        }),
        ..record(3)
    };
    (first, second, third)
}

/// How a record is looked up.
fn entry(record: &AuditRecord) -> TrailEntry {
    let last = |arn: &Arn| arn.resource().rsplit('/').next().unwrap().to_owned();
    TrailEntry {
        event_id: record.event_id.to_string(),
        event_time: record.event_time,
        event_name: record.event_name.clone(),
        event_source: record.event_source.clone(),
        username: record.username().map(str::to_owned),
        access_key_id: record.access_key_id().map(str::to_owned),
        read_only: record.read_only,
        resources: record
            .resources
            .iter()
            .map(|one| (one.kind.to_owned(), last(&one.arn)))
            .collect(),
        record: record.to_json().to_string(),
    }
}
