//! The one writer. It takes what waits, runs it in one transaction with a savepoint for each
//! commit, waits once for stable storage and then answers all. A commit that is alone waits for
//! nobody: a group forms only of what arrived while the group before was being written.

use std::sync::Arc;

use sortie_ports::{Commit, StoreError};
use sqlx::{Connection, SqliteConnection, SqlitePool, query};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{apply::apply, place::Place, sql};

/// How many commits may wait before callers wait to hand theirs over.
pub(crate) const QUEUE: usize = 1024;

/// How many commits are written together at most: a few milliseconds of work.
const GROUP: usize = 256;

/// A commit and where its outcome goes.
pub(crate) struct Request {
    pub(crate) commit: Commit,
    pub(crate) answer: oneshot::Sender<Result<(), StoreError>>,
}

/// What the writer's task owns.
pub(crate) struct Writer {
    pub(crate) connection: SqliteConnection,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Told when the store closes.
    pub(crate) closing: CancellationToken,
    /// Closed before the writer's own connection, so that this one is the last and empties the
    /// write-ahead log.
    pub(crate) readers: SqlitePool,
    /// Kept until nothing is written any more.
    pub(crate) place: Place,
}

/// A failure of the engine that met every commit of a group.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the transaction failed")]
struct GroupFailed(#[source] Arc<sqlx::Error>);

impl Writer {
    /// Writes until the store is closed or dropped and nothing waits any more.
    pub(crate) async fn run(mut self) {
        let mut group = Vec::new();
        while self.next_group(&mut group).await {
            self.write(&mut group).await;
        }
        self.readers.close().await;
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
        drop(self.place);
    }

    /// Waits for a commit and takes along what else is there. `false` when there will be none.
    async fn next_group(&mut self, group: &mut Vec<Request>) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled(), if !self.requests.is_closed() => {
                    // What waits is still received.
                    self.requests.close();
                }
                taken = self.requests.recv_many(group, GROUP) => return taken > 0,
            }
        }
    }

    async fn write(&mut self, group: &mut Vec<Request>) {
        match self.transact(group).await {
            Ok(outcomes) => {
                for (request, outcome) in group.drain(..).zip(outcomes) {
                    // Whoever went away does not want to know.
                    let _ = request.answer.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, commits = group.len(), "cannot write to the database");
                // Without effect where the engine has rolled back by itself, as it does when the
                // disk is full.
                let _ = query("ROLLBACK").execute(&mut self.connection).await;
                let failed = GroupFailed(Arc::new(error));
                for request in group.drain(..) {
                    let outcome = Err(StoreError::Engine(Box::new(failed.clone())));
                    let _ = request.answer.send(outcome);
                }
            }
        }
    }

    /// Runs all in one transaction. An error means that none is stored.
    async fn transact(
        &mut self,
        group: &[Request],
    ) -> Result<Vec<Result<(), StoreError>>, sqlx::Error> {
        let connection = &mut self.connection;
        query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let mut outcomes = Vec::with_capacity(group.len());
        for request in group {
            outcomes.push(attempt(connection, &request.commit).await?);
        }
        query("COMMIT").execute(&mut *connection).await?;
        Ok(outcomes)
    }
}

/// Applies one commit, or undoes it alone. The outer error is one that ends the transaction.
async fn attempt(
    connection: &mut SqliteConnection,
    commit: &Commit,
) -> Result<Result<(), StoreError>, sqlx::Error> {
    query(sql::SAVEPOINT).execute(&mut *connection).await?;
    let outcome = apply(connection, commit).await;
    if outcome.is_err() {
        query(sql::ROLLBACK_TO_SAVEPOINT)
            .execute(&mut *connection)
            .await?;
    }
    query(sql::RELEASE_SAVEPOINT).execute(connection).await?;
    Ok(outcome)
}

/// The answer when the writer is gone.
pub(crate) fn closed<E>(_: E) -> StoreError {
    StoreError::Closed
}
