//! Forward-only migrations. Each file is applied once, in order, in a transaction of its own, and
//! is remembered with its checksum. A database that knows more than this program is refused: an
//! older program could not tell what it would break.

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{Connection, Row, SqliteConnection};

/// One step of the schema. A released one is never edited.
struct Migration {
    version: i64,
    name: &'static str,
    text: &'static str,
}

/// All of them, in order.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "first",
        text: include_str!("../migrations/sqlite/0001_first.sql"),
    },
    Migration {
        version: 2,
        name: "identities",
        text: include_str!("../migrations/sqlite/0002_identities.sql"),
    },
    Migration {
        version: 3,
        name: "documents",
        text: include_str!("../migrations/sqlite/0003_documents.sql"),
    },
];

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
    version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, \
    applied TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)";
const APPLIED: &str = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";
const REMEMBER: &str =
    "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)";

/// Why a database was not brought to the schema of this program.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A migration that was applied is not the one that this program has.
    #[error("migration {version} of the database differs from the one this program has")]
    Altered {
        /// Which.
        version: i64,
    },
    /// The engine failed.
    #[error("cannot bring the database to the schema of this program")]
    Engine(#[from] sqlx::Error),
    /// The database was used by a newer program.
    #[error(
        "the database has schema version {found} and this program knows versions up to {known}: \
         use the newer program"
    )]
    Newer {
        /// The newest version in the database.
        found: i64,
        /// The newest version that this program has.
        known: i64,
    },
}

/// Brings the database to the newest schema.
pub(crate) async fn migrate(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    let applied = check_applied(connection).await?;
    for migration in MIGRATIONS.iter().skip(applied) {
        apply(connection, migration).await?;
        tracing::info!(
            version = migration.version,
            name = migration.name,
            "schema migrated"
        );
    }
    Ok(())
}

/// How many migrations are applied already. They must be the first ones of ours.
async fn check_applied(connection: &mut SqliteConnection) -> Result<usize, MigrateError> {
    sqlx::query(CREATE_TABLE).execute(&mut *connection).await?;
    let rows = sqlx::query(APPLIED).fetch_all(&mut *connection).await?;
    let known = MIGRATIONS.last().map_or(0, |newest| newest.version);
    if let Some(newest) = rows.last() {
        let found = newest.try_get("version")?;
        if found > known {
            return Err(MigrateError::Newer { found, known });
        }
    }
    for (index, row) in rows.iter().enumerate() {
        let version: i64 = row.try_get("version")?;
        let checksum: String = row.try_get("checksum")?;
        let same = MIGRATIONS.get(index).is_some_and(|migration| {
            migration.version == version && migration.checksum() == checksum
        });
        if !same {
            return Err(MigrateError::Altered { version });
        }
    }
    Ok(rows.len())
}

async fn apply(
    connection: &mut SqliteConnection,
    migration: &Migration,
) -> Result<(), MigrateError> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(migration.text)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(REMEMBER)
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.checksum())
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}

impl Migration {
    /// SHA-256 of the file, in hex.
    fn checksum(&self) -> String {
        let digest = digest(&SHA256, self.text.as_bytes());
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn migrated() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        migrate(&mut connection).await.unwrap();
        connection
    }

    #[tokio::test]
    async fn a_second_time_changes_nothing() {
        let mut connection = migrated().await;
        migrate(&mut connection).await.unwrap();
        let rows = sqlx::query(APPLIED).fetch_all(&mut connection).await;
        assert_eq!(rows.unwrap().len(), MIGRATIONS.len());
    }

    #[tokio::test]
    async fn an_edited_migration_is_refused() {
        let mut connection = migrated().await;
        sqlx::query("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1")
            .execute(&mut connection)
            .await
            .unwrap();
        assert!(matches!(
            migrate(&mut connection).await,
            Err(MigrateError::Altered { version: 1 })
        ));
    }

    #[test]
    fn versions_count_up_from_one() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version, i64::try_from(index).unwrap() + 1);
        }
    }
}
