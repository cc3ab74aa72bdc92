//! The one writer. It takes what waits, runs it in one transaction with a savepoint for each
//! commit, waits once for stable storage and then answers all. A commit that is alone waits for
//! nobody: a group forms only of what arrived while the group before was being written.

use std::sync::Arc;

use sortie_ports::{Change, Commit, StoreError};
use sqlx::{Connection, SqliteConnection, SqlitePool, query};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{apply::apply, place::Place, read, revision::KnownRevision, sql};

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
    /// Set with every commit that changes identities.
    pub(crate) identity_revision: KnownRevision,
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
                // A COMMIT that failed may still be found in the log.
                self.identity_revision.forget();
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
        let mut changes = group.iter().flat_map(|request| &request.commit.changes);
        let unknown = self.identity_revision.get().is_none();
        let revision = match unknown || changes.any(changes_identities) {
            true => Some(read::identity_revision(connection).await?),
            false => None,
        };
        query("COMMIT").execute(&mut *connection).await?;
        if let Some(revision) = revision {
            self.identity_revision.set(revision);
        }
        Ok(outcomes)
    }
}

fn changes_identities(change: &Change) -> bool {
    matches!(
        change,
        Change::PutIdentity(_) | Change::RemoveIdentity { .. }
    )
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

#[cfg(test)]
mod tests {
    use sortie_ports::{Activation, Installation};
    use sortie_types::{ActivationId, Timestamp};
    use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    /// A writer whose database cannot grow beyond `pages`, and where to send it commits.
    async fn writer(pages: u32) -> (Writer, mpsc::Sender<Request>, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let place = Place::take(&path).unwrap();
        let options = SqliteConnectOptions::new().filename(&path);
        let mut connection = options.connect().await.unwrap();
        crate::migrate::migrate(&mut connection).await.unwrap();
        let bound = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        query(bound).execute(&mut connection).await.unwrap();
        let (sender, requests) = mpsc::channel(QUEUE);
        let writer = Writer {
            connection,
            requests,
            closing: CancellationToken::new(),
            readers: SqlitePool::connect_lazy_with(options),
            identity_revision: KnownRevision::default(),
            place,
        };
        (writer, sender, directory)
    }

    type Answer = oneshot::Receiver<Result<(), StoreError>>;

    async fn ask(sender: &mpsc::Sender<Request>, change: Change) -> Answer {
        let commit = Commit {
            changes: vec![change],
            trail: Vec::new(),
        };
        let (answer, outcome) = oneshot::channel();
        let request = Request { commit, answer };
        assert!(sender.send(request).await.is_ok());
        outcome
    }

    fn installation() -> Change {
        Change::InsertInstallation(Installation {
            account_id: "111122223333".parse().unwrap(),
            region: "local-1".parse().unwrap(),
        })
    }

    fn activation(number: u8, description: &str) -> Change {
        Change::InsertActivation(Activation {
            id: ActivationId::new(Uuid::from_u128(u128::from(number))),
            code_digest: [number; 32],
            iam_role: "Nodes".into(),
            description: Some(description.into()),
            default_instance_name: None,
            registration_limit: 1,
            registrations_count: 0,
            expires: Timestamp::from_millis(0),
            created: Timestamp::from_millis(0),
            tags: Vec::new(),
        })
    }

    #[tokio::test]
    async fn what_waits_is_one_group() {
        let (mut writer, sender, _directory) = writer(u32::MAX).await;
        let mut answers = vec![ask(&sender, installation()).await];
        for number in 0..3 {
            answers.push(ask(&sender, activation(number, "")).await);
        }
        let mut group = Vec::new();
        assert!(writer.next_group(&mut group).await);
        assert_eq!(group.len(), 4);
        writer.write(&mut group).await;
        for answer in &mut answers {
            assert!(matches!(answer.try_recv(), Ok(Ok(()))));
        }
    }

    #[tokio::test]
    async fn what_waits_when_the_store_closes_is_still_written() {
        let (writer, sender, _directory) = writer(u32::MAX).await;
        let answer = ask(&sender, installation()).await;
        writer.closing.cancel();
        writer.run().await;
        assert!(matches!(answer.await, Ok(Ok(()))));
        assert!(sender.is_closed());
    }

    #[tokio::test]
    async fn a_full_disk_fails_what_does_not_fit_and_what_fits_goes_on() {
        let (writer, sender, _directory) = writer(100).await;
        let closing = writer.closing.clone();
        let first = ask(&sender, installation()).await;
        let known = writer.identity_revision.clone();
        known.set(0);
        let small = ask(&sender, activation(1, "")).await;
        let large = ask(&sender, activation(2, &"x".repeat(1 << 20))).await;
        let task = tokio::spawn(writer.run());
        let together = [first.await.unwrap().is_ok(), small.await.unwrap().is_ok()];
        let large = large.await.unwrap();
        assert!(matches!(large, Err(StoreError::Engine(_))), "{large:?}");
        let failed_last = known.get().is_none();

        // Exactly what was answered as done is done, and the writer still works.
        for (done, again) in together
            .into_iter()
            .zip([installation(), activation(1, "")])
        {
            let again = ask(&sender, again).await.await.unwrap();
            assert_eq!(again.is_ok(), !done, "{again:?}");
        }
        let after = ask(&sender, activation(3, "")).await;
        assert!(after.await.unwrap().is_ok());
        assert!(failed_last, "a commit that failed may have been stored");
        assert_eq!(known.get(), Some(0));
        closing.cancel();
        task.await.unwrap();
    }
}
