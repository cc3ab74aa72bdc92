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
    AccessKey, Change, Commit, Conflict, Installation, State, StoreError, TrailQuery, User,
};
use sortie_store::{MigrateError, OpenError, PlaceError, SqliteState};
use sortie_types::{AccessKeyId, Timestamp, UniqueId, UniqueIdKind};
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

fn user(number: u32) -> User {
    let mut random = [0; 17];
    for (place, byte) in random.iter_mut().take(7).enumerate() {
        *byte = u8::try_from(number >> (5 * place) & 31).unwrap();
    }
    User {
        unique_id: UniqueId::from_random(UniqueIdKind::User, random),
        name: name(number).parse().unwrap(),
        path: "/".into(),
        created: Timestamp::from_millis(0),
        administrator: false,
    }
}

fn name(number: u32) -> String {
    format!("user-{number}")
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

fn insert_user(number: u32) -> Commit {
    Commit {
        changes: vec![Change::InsertUser(user(number))],
        trail: vec![record(number)],
    }
}

fn set_up() -> Commit {
    Commit {
        changes: vec![Change::InsertInstallation(installation())],
        trail: Vec::new(),
    }
}

/// Names in the trail, each the name of a user made with the record.
async fn recorded(state: &SqliteState) -> BTreeSet<String> {
    let query = TrailQuery {
        limit: usize::MAX,
        ..TrailQuery::default()
    };
    let lines = state.trail(query).await.unwrap();
    lines.into_iter().map(|(_, line)| line.event_name).collect()
}

async fn raw(path: &Path, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
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
    state.commit(insert_user(1)).await.unwrap();
    let before = state.trail(all()).await.unwrap();
    state.close().await;
    assert!(
        !directory.path().join("state.db-wal").exists(),
        "closing empties the log"
    );

    let state = SqliteState::open(&path).await.unwrap();
    assert_eq!(state.installation().await.unwrap(), Some(installation()));
    assert_eq!(state.user_named("user-1").await.unwrap(), Some(user(1)));
    assert_eq!(state.trail(all()).await.unwrap(), before);
    state.commit(insert_user(2)).await.unwrap();
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
    state.commit(insert_user(1)).await.unwrap();
    drop(state);
    let state = reopen(&path).await;
    assert_eq!(state.user_named("user-1").await.unwrap(), Some(user(1)));
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
            let user = state.user_named(name).await.unwrap();
            assert!(user.is_some(), "the record of {name} without its change");
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
                state.commit(insert_user(number)).await.unwrap();
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
    state.commit(insert_user(COMMITS)).await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..COMMITS {
        let state = Arc::clone(&state);
        tasks.spawn(async move {
            let mut commit = insert_user(number);
            if number == 250 {
                commit.changes.push(Change::InsertUser(user(COMMITS)));
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
    assert_eq!(state.user_named("user-250").await.unwrap(), None);
    state.close().await;
}

#[tokio::test]
async fn a_change_that_the_engine_refuses_leaves_the_writer_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(&directory.path().join("state.db"))
        .await
        .unwrap();
    // Nothing can belong to an account that is not there yet.
    let early = state.commit(insert_user(1)).await;
    assert!(matches!(early, Err(StoreError::Engine(_))), "{early:?}");
    state.commit(set_up()).await.unwrap();
    let orphan = Change::InsertAccessKey(AccessKey {
        id: AccessKeyId::long_lived([1; 16]),
        user: user(9).unique_id,
        sealed_secret: vec![1],
        active: true,
        created: Timestamp::from_millis(0),
    });
    let mut commit = insert_user(1);
    commit.changes.push(orphan);
    let refused = state.commit(commit).await;
    assert!(matches!(refused, Err(StoreError::Engine(_))), "{refused:?}");
    assert_eq!(state.user_named("user-1").await.unwrap(), None);
    state.commit(insert_user(1)).await.unwrap();
    assert_eq!(recorded(&state).await, BTreeSet::from([name(1)]));
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
    state.commit(insert_user(1)).await.unwrap();
    state.commit(insert_user(2)).await.unwrap();
    state.close().await;
    raw(
        &path,
        "UPDATE users SET unique_id = 'x' WHERE name = 'user-1'",
    )
    .await;
    let state = SqliteState::open(&path).await.unwrap();
    let spoilt = state.user_named("user-1").await;
    assert!(
        matches!(spoilt, Err(StoreError::Corrupt { table: "users", .. })),
        "{spoilt:?}"
    );
    assert_eq!(state.user_named("user-2").await.unwrap(), Some(user(2)));
    state.close().await;
}
