//! What only a database in a file can lose: everything across a restart, a crash, a second server,
//! a newer program, and the modes of its files.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be done fails the test"
)]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use sortie_evidence::{AuditRecord, Category, UserIdentity};
use sortie_ports::{
    AccessKey, Activation, Change, Commit, Conflict, Grants, Group, Identity, Installation, State,
    StoreError, TrailQuery, User,
};
use sortie_store::{MigrateError, OpenError, PlaceError, SqliteState};
use sortie_types::{ActivationId, Arn, Timestamp, UniqueId, UniqueIdKind};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Where a child process of the crash test finds its database.
const CHILD_DATABASE: &str = "SORTIE_TEST_CHILD_DATABASE";
/// The number at which it starts to count.
const CHILD_FIRST: &str = "SORTIE_TEST_CHILD_FIRST";

fn installation() -> Installation {
    Installation {
        account_id: "111122223333".parse().unwrap(),
        region: "local-1".parse().unwrap(),
    }
}

fn activation(number: u32) -> Activation {
    Activation {
        id: ActivationId::new(Uuid::from_u128(u128::from(number))),
        code_digest: [7; 32],
        iam_role: "Nodes".into(),
        description: Some(name(number)),
        default_instance_name: None,
        registration_limit: 1,
        registrations_count: 0,
        expires: Timestamp::from_millis(0),
        created: Timestamp::from_millis(0),
        tags: Vec::new(),
    }
}

/// The activation whose record has this name.
async fn named(state: &SqliteState, name: &str) -> Option<Activation> {
    let number: u32 = name.strip_prefix("activation-").unwrap().parse().unwrap();
    state.activation(&activation(number).id).await.unwrap()
}

fn name(number: u32) -> String {
    format!("activation-{number}")
}

fn record(number: u32) -> AuditRecord {
    AuditRecord {
        event_id: Uuid::from_u128(u128::from(number)),
        event_time: Timestamp::from_millis(i64::from(number)),
        event_source: "iam.amazonaws.com".into(),
        event_name: name(number),
        event_type: "AwsApiCall",
        region: installation().region,
        account_id: installation().account_id,
        source_ip_address: "192.0.2.1".into(),
        user_agent: None,
        identity: UserIdentity::Anonymous {
            access_key_id: None,
        },
        request_parameters: Value::Null,
        response_elements: Value::Null,
        additional: Value::Null,
        service_event: Value::Null,
        request_id: Uuid::nil(),
        read_only: false,
        resources: Vec::new(),
        category: Category::Management,
        failure: None,
    }
}

fn insert(number: u32) -> Commit {
    Commit {
        changes: vec![Change::InsertActivation(activation(number))],
        trail: vec![record(number)],
    }
}

fn set_up() -> Commit {
    Commit {
        changes: vec![Change::InsertInstallation(installation())],
        trail: Vec::new(),
    }
}

/// Names in the trail, each of an activation made with the record.
async fn recorded(state: &SqliteState) -> BTreeSet<String> {
    let query = TrailQuery {
        limit: usize::MAX,
        ..TrailQuery::default()
    };
    let lines = state.trail(query).await.unwrap();
    lines.into_iter().map(|(_, line)| line.event_name).collect()
}

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn raw(path: &Path, statement: &'static str) {
    let mut connection = connect(path).await;
    sqlx::raw_sql(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// Opens as soon as the one before has let go.
async fn reopen(path: &Path) -> SqliteState {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match SqliteState::open(path).await {
            Err(OpenError::Place(PlaceError::InUse(_))) if Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            outcome => return outcome.unwrap(),
        }
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    state.commit(set_up()).await.unwrap();
    state.commit(insert(1)).await.unwrap();
    let before = state.trail(all()).await.unwrap();
    state.close().await;
    assert!(
        !directory.path().join("state.db-wal").exists(),
        "closing empties the log"
    );

    let state = SqliteState::open(&path).await.unwrap();
    assert_eq!(state.installation().await.unwrap(), Some(installation()));
    assert_eq!(named(&state, "activation-1").await, Some(activation(1)));
    assert_eq!(state.trail(all()).await.unwrap(), before);
    state.commit(insert(2)).await.unwrap();
    state.close().await;
}

fn all() -> TrailQuery {
    TrailQuery {
        limit: 100,
        ..TrailQuery::default()
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_drop_without_close() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    state.commit(set_up()).await.unwrap();
    state.commit(insert(1)).await.unwrap();
    drop(state);
    let state = reopen(&path).await;
    assert_eq!(named(&state, "activation-1").await, Some(activation(1)));
}

#[tokio::test]
async fn what_was_answered_survives_kill_9_and_the_rest_is_whole_or_absent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    state.commit(set_up()).await.unwrap();
    state.close().await;
    for round in 0..3_u32 {
        let path_of_child = path.clone();
        let answered = tokio::task::spawn_blocking(move || {
            answered_until_killed(&path_of_child, round * 1_000_000)
        });
        let answered = answered.await.unwrap();
        assert!(answered.len() >= 100, "{} were answered", answered.len());

        let state = reopen(&path).await;
        let recorded = recorded(&state).await;
        for number in &answered {
            assert!(recorded.contains(&name(*number)), "{number} was answered");
        }
        for name in &recorded {
            let made = named(&state, name).await;
            assert!(made.is_some(), "the record of {name} without its change");
        }
        state.close().await;
    }
}

/// Runs a writing process, kills it in the middle, and says what it had been answered.
fn answered_until_killed(path: &Path, first: u32) -> Vec<u32> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_killed", "--ignored", "--nocapture"])
        .env(CHILD_DATABASE, path)
        .env(CHILD_FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = Vec::new();
    for line in lines {
        // The last line may be cut.
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("answered ")
            && let Some(number) = number.strip_suffix('.')
        {
            answered.push(number.parse().unwrap());
        }
        if answered.len() == 100 {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "it ended by itself");
    answered
}

#[tokio::test]
#[ignore = "runs in a process of its own, which another test starts and kills"]
async fn writes_until_killed() {
    let path = std::env::var_os(CHILD_DATABASE).expect("started by the test that kills it");
    let first: u32 = std::env::var(CHILD_FIRST).unwrap().parse().unwrap();
    let state = Arc::new(SqliteState::open(Path::new(&path)).await.unwrap());
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let state = Arc::clone(&state);
        tasks.spawn(async move {
            for number in (first + task..).step_by(8) {
                state.commit(insert(number)).await.unwrap();
                let line = format!("answered {number}.\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_among_five_hundred_fails_alone() {
    const COMMITS: u32 = 500;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = Arc::new(SqliteState::open(&path).await.unwrap());
    state.commit(set_up()).await.unwrap();
    state.commit(insert(COMMITS)).await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..COMMITS {
        let state = Arc::clone(&state);
        tasks.spawn(async move {
            let mut commit = insert(number);
            if number == 250 {
                commit
                    .changes
                    .push(Change::InsertActivation(activation(COMMITS)));
            }
            (number, state.commit(commit).await)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (number, outcome) = done.unwrap();
        match outcome {
            Ok(()) => assert_ne!(number, 250),
            Err(StoreError::Conflict(Conflict::Exists)) => assert_eq!(number, 250),
            Err(error) => panic!("{number}: {error}"),
        }
    }
    let recorded = recorded(&state).await;
    let expected: BTreeSet<String> = (0..=COMMITS)
        .filter(|number| *number != 250)
        .map(name)
        .collect();
    assert_eq!(recorded, expected);
    assert_eq!(named(&state, "activation-250").await, None);
    state.close().await;
}

#[tokio::test]
async fn a_change_that_the_engine_refuses_leaves_the_writer_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(&directory.path().join("state.db"))
        .await
        .unwrap();
    // Nothing can belong to an account that is not there yet.
    let early = state.commit(insert(1)).await;
    assert!(matches!(early, Err(StoreError::Engine(_))), "{early:?}");
    state.commit(set_up()).await.unwrap();
    state.commit(insert(2)).await.unwrap();
    // The id of its record is taken.
    let mut commit = insert(1);
    commit.trail = vec![record(2)];
    let refused = state.commit(commit).await;
    assert!(matches!(refused, Err(StoreError::Engine(_))), "{refused:?}");
    assert_eq!(named(&state, "activation-1").await, None);
    state.commit(insert(1)).await.unwrap();
    assert_eq!(recorded(&state).await, BTreeSet::from([name(1), name(2)]));
    state.close().await;
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    SqliteState::open(&path).await.unwrap().close().await;
    raw(
        &path,
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (99, 'later', 'x')",
    )
    .await;
    let refused = SqliteState::open(&path).await.unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Migrate(MigrateError::Newer { found: 99, .. })
        ),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("newer program"), "{refused}");
    // The newer program can still open it.
    raw(&path, "DELETE FROM schema_migrations WHERE version = 99").await;
    SqliteState::open(&path).await.unwrap().close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let text = "not a database, but something dear to its owner\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    assert!(SqliteState::open(&path).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_second_server_is_kept_out_while_the_first_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    let second = SqliteState::open(&path).await.unwrap_err();
    assert!(
        matches!(second, OpenError::Place(PlaceError::InUse(_))),
        "{second:?}"
    );
    state.commit(set_up()).await.unwrap();
    state.close().await;
    // Closed is enough; it need not be dropped.
    let second = SqliteState::open(&path).await.unwrap();
    assert_eq!(second.installation().await.unwrap(), Some(installation()));
    second.close().await;
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a").join("b");
    let path = directory.join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    state.commit(set_up()).await.unwrap();
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&parent.path().join("a")), 0o700);
    let files = std::fs::read_dir(&directory).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert!(files.contains(&directory.join("state.db-wal")), "{files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    state.close().await;

    // One that was opened up is closed again.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let state = SqliteState::open(&path).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    state.close().await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_row_that_was_spoilt_is_named_and_nothing_else_suffers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    state.commit(set_up()).await.unwrap();
    state.commit(insert(1)).await.unwrap();
    state.commit(insert(2)).await.unwrap();
    state.close().await;
    raw(
        &path,
        "UPDATE activations SET code_digest = 'x' WHERE description = 'activation-1'",
    )
    .await;
    let state = SqliteState::open(&path).await.unwrap();
    let spoilt = state.activation(&activation(1).id).await;
    let what = "activations";
    assert!(
        matches!(spoilt, Err(StoreError::Corrupt { table, .. }) if table == what),
        "{spoilt:?}"
    );
    assert_eq!(named(&state, "activation-2").await, Some(activation(2)));
    state.close().await;
}

#[tokio::test]
async fn of_identities_none_is_read_when_one_is_spoilt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    state.commit(set_up()).await.unwrap();
    for (revision, number) in [(0, 1), (1, 2)] {
        let commit = Commit {
            changes: vec![
                Change::RequireIdentities { revision },
                Change::PutIdentity(Box::new(Identity::Group(group(number)))),
            ],
            trail: Vec::new(),
        };
        state.commit(commit).await.unwrap();
    }
    state.close().await;
    // It might have denied something.
    raw(
        &path,
        "UPDATE identities SET body = replace(body, 'attached', 'attach') WHERE body LIKE '%group-1%'",
    )
    .await;
    let state = SqliteState::open(&path).await.unwrap();
    let spoilt = state.identities(None).await;
    let what = "identities";
    assert!(
        matches!(spoilt, Err(StoreError::Corrupt { table, .. }) if table == what),
        "{spoilt:?}"
    );
    state.close().await;
}

fn group(number: u8) -> Group {
    Group {
        unique_id: UniqueId::from_random(UniqueIdKind::Group, [number; 17]),
        name: format!("group-{number}"),
        path: "/".into(),
        created: Timestamp::from_millis(0),
        grants: Grants {
            attached: vec![Arn::new("iam", "", "aws", "policy/AdministratorAccess")],
            ..Grants::default()
        },
    }
}

#[tokio::test]
async fn the_revision_of_identities_outlives_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.unwrap();
    state.commit(set_up()).await.unwrap();
    let put = |revision| Commit {
        changes: vec![
            Change::RequireIdentities { revision },
            Change::PutIdentity(Box::new(Identity::Group(group(1)))),
        ],
        trail: Vec::new(),
    };
    state.commit(put(0)).await.unwrap();
    let before = state.identities(None).await.unwrap().unwrap();
    state.close().await;
    let state = SqliteState::open(&path).await.unwrap();
    let known = Some(before.revision);
    assert_eq!(state.identity_revision().await.unwrap(), before.revision);
    assert_eq!(state.identities(known).await.unwrap(), None);
    assert_eq!(state.identities(None).await.unwrap(), Some(before));
    let stale = state.commit(put(0)).await;
    let conflict = Conflict::Revision;
    assert!(matches!(stale, Err(StoreError::Conflict(found)) if found == conflict));
    state.close().await;
}

/// An installation as the first schema kept it: an administrator with a key, and another user with
/// two, one of them switched off.
const FIRST_SCHEMA: &str = concat!(
    include_str!("../migrations/sqlite/0001_first.sql"),
    "CREATE TABLE schema_migrations (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL,
        checksum TEXT NOT NULL, applied TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
    INSERT INTO installation VALUES (1, '111122223333', 'local-1');
    INSERT INTO users VALUES
        ('AIDAAAAAAAAAAAAAAAAAA', '111122223333', 'admin', '/', 1000, TRUE),
        ('AIDABBBBBBBBBBBBBBBBB', '111122223333', 'alice=x', '/ops/', 2000, FALSE);
    INSERT INTO access_keys VALUES
        ('AKIAAAAAAAAAAAAAAAAA', '111122223333', 'AIDAAAAAAAAAAAAAAAAAA', X'00ff10', TRUE, 1001),
        ('AKIABBBBBBBBBBBBBBBB', '111122223333', 'AIDABBBBBBBBBBBBBBBBB', X'7f80', TRUE, 2001),
        ('AKIACCCCCCCCCCCCCCCC', '111122223333', 'AIDABBBBBBBBBBBBBBBBB', X'', FALSE, 2002);"
);

/// Makes a file of the first schema, as the program that knew no other left it.
async fn first_schema(path: &Path) {
    use aws_lc_rs::digest::{SHA256, digest};
    raw(path, FIRST_SCHEMA).await;
    let text = include_bytes!("../migrations/sqlite/0001_first.sql");
    let checksum: String = digest(&SHA256, text)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut connection = connect(path).await;
    sqlx::query("INSERT INTO schema_migrations (version, name, checksum) VALUES (1, 'first', $1)")
        .bind(checksum)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

fn old_user(id: &str, name: &str, path: &str, created: i64, attached: &[&str]) -> Identity {
    Identity::User(User {
        unique_id: id.parse().unwrap(),
        name: name.parse().unwrap(),
        path: path.into(),
        created: Timestamp::from_millis(created),
        grants: Grants {
            attached: attached.iter().map(|arn| arn.parse().unwrap()).collect(),
            ..Grants::default()
        },
        groups: Vec::new(),
        permissions_boundary: None,
        tags: Vec::new(),
        login_profile: None,
    })
}

fn old_key(id: &str, user: &str, sealed_secret: &[u8], active: bool, created: i64) -> Identity {
    Identity::AccessKey(AccessKey {
        id: id.parse().unwrap(),
        user: user.parse().unwrap(),
        sealed_secret: sealed_secret.to_vec(),
        active,
        created: Timestamp::from_millis(created),
    })
}

#[tokio::test]
async fn users_and_keys_of_the_first_schema_become_identities() {
    let (admin, alice) = ("AIDAAAAAAAAAAAAAAAAAA", "AIDABBBBBBBBBBBBBBBBB");
    let expected = vec![
        old_key("AKIAAAAAAAAAAAAAAAAA", admin, &[0, 255, 16], true, 1001),
        old_key("AKIABBBBBBBBBBBBBBBB", alice, &[127, 128], true, 2001),
        old_key("AKIACCCCCCCCCCCCCCCC", alice, &[], false, 2002),
        old_user(
            admin,
            "admin",
            "/",
            1000,
            &["arn:aws:iam::aws:policy/AdministratorAccess"],
        ),
        old_user(alice, "alice=x", "/ops/", 2000, &[]),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    first_schema(&path).await;
    for _ in 0..2 {
        let state = SqliteState::open(&path).await.unwrap();
        let mut found = state.identities(None).await.unwrap().unwrap();
        found.rows.sort_by(|one, other| one.key().cmp(other.key()));
        found.rows.sort_by_key(Identity::kind);
        assert_eq!(found.rows, expected);
        assert_eq!(found.revision, 0, "nobody has changed them yet");
        assert!(state.administrator_made("admin").await.unwrap());
        assert!(!state.administrator_made("alice=x").await.unwrap());
        state.close().await;
    }
}
