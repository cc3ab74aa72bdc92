//! The contract of the state port, on SQLite.

#![expect(
    clippy::expect_used,
    reason = "helpers of tests: what cannot be done fails the test"
)]

use std::sync::Arc;

use sortie_ports::State;
use sortie_store::SqliteState;
use tempfile::TempDir;

async fn fresh() -> (Arc<dyn State>, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let state = SqliteState::open(&path).await.expect("a fresh state");
    (Arc::new(state), directory)
}

sortie_ports::state_contract!(fresh);
