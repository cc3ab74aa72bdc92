//! Every statement of the store, in a text that both SQLite and PostgreSQL take: `$n` parameters,
//! `BIGINT` milliseconds, text for identifiers and JSON. Knows nothing of rows as Rust values.
//!
//! Statements whose shape depends on the question (`SESSIONS`, `TRAIL`) are kept as a head, and
//! fragments that `read` puts behind it; values are always bound.

/// Declares statements, and the list of them that a test prepares against the newest schema.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $sql;)*

        #[cfg(test)]
        const ALL: &[&str] = &[$($name),*];
    };
}

/// Resources belong to the one account and region there are.
macro_rules! account {
    () => {
        "(SELECT account_id FROM installation)"
    };
}

macro_rules! account_and_region {
    () => {
        "(SELECT account_id FROM installation), (SELECT region FROM installation)"
    };
}

macro_rules! activation_columns {
    () => {
        "id, code_digest, iam_role, description, default_instance_name, registration_limit, \
         registrations_count, expires, created"
    };
}

macro_rules! node_columns {
    () => {
        "id, state, activation_id, iam_role, name, registered, source_ip, fingerprint, public_key, \
         previous_public_key, agent_name, agent_version, computer_name, ip_address, platform_type, \
         platform_name, platform_version, last_ping, connected"
    };
}

macro_rules! session_columns {
    () => {
        "id, target, owner, owner_unique_id, document_name, document_content, parameters, reason, \
         state, end_reason, started, ended, idle_timeout_seconds, max_duration_seconds, \
         client_epoch, node_epoch, last_activity, request_context"
    };
}

macro_rules! document_columns {
    () => {
        "name, created, default_version, latest_version, next_version, target_type, shared_with, \
         revision"
    };
}

macro_rules! document_version_columns {
    () => {
        "document, number, version_name, display_name, format, content, created"
    };
}

/// Documents, each with its version in force; the conditions follow.
macro_rules! documents_with_version {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM documents d JOIN document_versions v \
             ON v.document = d.name AND v.number = d.default_version"
        )
    };
}

/// What [`documents_with_version`] selects: the columns of the version begin with `version_`.
macro_rules! joined_document_columns {
    () => {
        "d.name, d.created, d.default_version, d.latest_version, d.next_version, d.target_type, \
         d.shared_with, d.revision, v.document, v.number, v.version_name, v.display_name, \
         v.format, v.content, v.created AS version_created"
    };
}

/// One page of activations, newest first.
macro_rules! activations_page {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM activations WHERE (created, id) < ($1, $2) ORDER BY created DESC, id DESC LIMIT $3"
        )
    };
}

/// One page of active nodes.
macro_rules! nodes_page {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM nodes WHERE state = 'Active' AND id > $1 ORDER BY id LIMIT $2"
        )
    };
}

statements! {
    SAVEPOINT = "SAVEPOINT one_commit";
    ROLLBACK_TO_SAVEPOINT = "ROLLBACK TO SAVEPOINT one_commit";
    RELEASE_SAVEPOINT = "RELEASE SAVEPOINT one_commit";

    INSERT_INSTALLATION =
        "INSERT INTO installation (singleton, account_id, region) VALUES (1, $1, $2)";
    INSTALLATION = "SELECT account_id, region FROM installation";

    INSERT_ADMINISTRATOR = concat!(
        "INSERT INTO administrators (account_id, name) VALUES (", account!(), ", $1)"
    );
    ADMINISTRATOR = "SELECT 1 FROM administrators WHERE name = $1";

    IDENTITY_REVISION = "SELECT revision FROM identity_revision";
    RAISE_IDENTITY_REVISION = "UPDATE identity_revision SET revision = revision + 1";
    IDENTITIES = "SELECT body FROM identities";
    PUT_IDENTITY = concat!(
        "INSERT INTO identities (account_id, kind, key, body) VALUES (",
        account!(), ", $1, $2, $3) ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body"
    );
    REMOVE_IDENTITY = "DELETE FROM identities WHERE kind = $1 AND key = $2";
    IDENTITY_USE = "SELECT used, service, region FROM identity_uses WHERE kind = $1 AND key = $2";
    /// A late flush must not make a use look older than it is.
    TOUCH_IDENTITY = "INSERT INTO identity_uses (account_id, kind, key, used, service, region) \
        SELECT account_id, kind, key, $3, $4, $5 FROM identities WHERE kind = $1 AND key = $2 \
        ON CONFLICT (kind, key) DO UPDATE SET used = excluded.used, service = excluded.service, \
        region = excluded.region WHERE identity_uses.used < excluded.used";
    REMOVE_IDENTITY_USE = "DELETE FROM identity_uses WHERE kind = $1 AND key = $2";
    USE_MFA_STEP = "INSERT INTO mfa_steps (account_id, serial_number, step) \
        SELECT account_id, key, $2 FROM identities WHERE kind = 'MfaDevice' AND key = $1 \
        ON CONFLICT (serial_number) DO UPDATE SET step = excluded.step \
        WHERE mfa_steps.step < excluded.step";
    REMOVE_MFA_STEP = "DELETE FROM mfa_steps WHERE serial_number = $1";

    INSERT_ACTIVATION = concat!(
        "INSERT INTO activations (account_id, region, ", activation_columns!(), ") VALUES (",
        account_and_region!(), ", $1, $2, $3, $4, $5, $6, $7, $8, $9)"
    );
    DELETE_ACTIVATION = "DELETE FROM activations WHERE id = $1";
    USE_ACTIVATION = "UPDATE activations SET registrations_count = registrations_count + 1 \
        WHERE id = $1 AND expires >= $2 AND registrations_count < registration_limit";
    ACTIVATION_EXPIRY = "SELECT expires FROM activations WHERE id = $1";
    ACTIVATION = concat!("SELECT ", activation_columns!(), " FROM activations WHERE id = $1");
    ACTIVATIONS = activations_page!(activation_columns!());
    TAGS_OF_ACTIVATIONS = concat!(
        "SELECT t.resource_id, t.key, t.value FROM tags t JOIN (",
        activations_page!("id"),
        ") page ON page.id = t.resource_id WHERE t.kind = 'activation' ORDER BY t.resource_id, t.key"
    );

    INSERT_DOCUMENT = concat!(
        "INSERT INTO documents (account_id, region, ", document_columns!(), ") VALUES (",
        account_and_region!(), ", $1, $2, $3, $4, $5, $6, $7, $8)"
    );
    COUNT_DOCUMENTS = "SELECT COUNT(*) FROM documents";
    UPDATE_DOCUMENT = "UPDATE documents SET default_version = $3, latest_version = $4, \
        next_version = $5, target_type = $6, shared_with = $7, revision = revision + 1 \
        WHERE name = $1 AND revision = $2";
    DELETE_DOCUMENT = "DELETE FROM documents WHERE name = $1 AND revision = $2";
    DOCUMENT_EXISTS = "SELECT 1 FROM documents WHERE name = $1";
    INSERT_DOCUMENT_VERSION = concat!(
        "INSERT INTO document_versions (", document_version_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7)"
    );
    DELETE_DOCUMENT_VERSION = "DELETE FROM document_versions WHERE document = $1 AND number = $2";
    DELETE_DOCUMENT_VERSIONS = "DELETE FROM document_versions WHERE document = $1";
    DOCUMENT = concat!(
        documents_with_version!(joined_document_columns!()), " WHERE d.name = $1"
    );
    DOCUMENTS = concat!(
        documents_with_version!(joined_document_columns!()),
        " WHERE d.name > $1 ORDER BY d.name LIMIT $2"
    );
    TAGS_OF_DOCUMENTS = "SELECT t.resource_id, t.key, t.value FROM tags t JOIN (\
        SELECT name FROM documents WHERE name > $1 ORDER BY name LIMIT $2\
        ) page ON page.name = t.resource_id WHERE t.kind = 'document' ORDER BY t.resource_id, t.key";
    DOCUMENT_VERSION = concat!(
        "SELECT ", document_version_columns!(), ", created AS version_created \
        FROM document_versions WHERE document = $1 AND number = $2"
    );
    DOCUMENT_VERSION_NAMED = concat!(
        "SELECT ", document_version_columns!(), ", created AS version_created \
        FROM document_versions WHERE document = $1 AND version_name = $2"
    );
    DOCUMENT_VERSIONS = concat!(
        "SELECT ", document_version_columns!(), ", created AS version_created \
        FROM document_versions WHERE document = $1 AND number < $2 ORDER BY number DESC LIMIT $3"
    );

    PUT_SERVICE_SETTING = concat!(
        "INSERT INTO service_settings (account_id, region, id, value, modified, modified_by) \
        VALUES (", account_and_region!(), ", $1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET \
        value = excluded.value, modified = excluded.modified, modified_by = excluded.modified_by"
    );
    REMOVE_SERVICE_SETTING = "DELETE FROM service_settings WHERE id = $1";
    SERVICE_SETTING = "SELECT id, value, modified, modified_by FROM service_settings WHERE id = $1";

    INSERT_NODE = concat!(
        "INSERT INTO nodes (account_id, region, ", node_columns!(), ") VALUES (",
        account_and_region!(),
        ", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"
    );
    DEREGISTER_NODE = "UPDATE nodes SET state = 'Deregistered', connected = FALSE \
        WHERE id = $1 AND state = 'Active'";
    SET_NODE_CONNECTED = "UPDATE nodes SET connected = $2, \
        last_ping = CASE WHEN last_ping < $3 THEN $3 ELSE last_ping END \
        WHERE id = $1 AND state = 'Active'";
    SET_NODE_INFO = "UPDATE nodes SET agent_name = COALESCE($2, agent_name), \
        agent_version = COALESCE($3, agent_version), \
        computer_name = COALESCE($4, computer_name), ip_address = COALESCE($5, ip_address), \
        platform_type = COALESCE($6, platform_type), platform_name = COALESCE($7, platform_name), \
        platform_version = COALESCE($8, platform_version), \
        last_ping = CASE WHEN last_ping < $9 THEN $9 ELSE last_ping END \
        WHERE id = $1 AND state = 'Active'";
    SET_NODE_KEY = "UPDATE nodes SET public_key = $2, previous_public_key = $3 \
        WHERE id = $1 AND state = 'Active'";
    SET_NODE_NAME = "UPDATE nodes SET name = $2 WHERE id = $1 AND state = 'Active'";
    SET_NODE_ROLE = "UPDATE nodes SET iam_role = $2 WHERE id = $1 AND state = 'Active'";
    SET_NO_NODE_CONNECTED = "UPDATE nodes SET connected = FALSE WHERE connected";
    NODE = concat!(
        "SELECT ", node_columns!(), ", tag.key AS tag_key, tag.value AS tag_value FROM nodes \
        LEFT JOIN tags tag ON tag.kind = 'node' AND tag.resource_id = nodes.id \
        WHERE nodes.id = $1 ORDER BY tag.key"
    );
    NODES = nodes_page!(node_columns!());
    TAGS_OF_NODES = concat!(
        "SELECT t.resource_id, t.key, t.value FROM tags t JOIN (",
        nodes_page!("id"),
        ") page ON page.id = t.resource_id WHERE t.kind = 'node' ORDER BY t.resource_id, t.key"
    );
    ACTIVATION_EXISTS = "SELECT 1 FROM activations WHERE id = $1";
    ACTIVE_NODE_KEY = "SELECT public_key FROM nodes WHERE id = $1 AND state = 'Active'";
    ACTIVE_NODE_EXISTS = "SELECT 1 FROM nodes WHERE id = $1 AND state = 'Active'";

    PUT_TAG = concat!(
        "INSERT INTO tags (account_id, region, kind, resource_id, key, value) VALUES (",
        account_and_region!(), ", $1, $2, $3, $4) \
        ON CONFLICT (kind, resource_id, key) DO UPDATE SET value = excluded.value"
    );
    COUNT_TAGS = "SELECT COUNT(*) FROM tags WHERE kind = $1 AND resource_id = $2";
    REMOVE_TAG = "DELETE FROM tags WHERE kind = $1 AND resource_id = $2 AND key = $3";
    REMOVE_ALL_TAGS = "DELETE FROM tags WHERE kind = $1 AND resource_id = $2";
    TAGS_OF_ONE = "SELECT resource_id, key, value FROM tags WHERE kind = $1 AND resource_id = $2 \
        ORDER BY key";

    INSERT_SESSION = concat!(
        "INSERT INTO sessions (account_id, region, ", session_columns!(), ") VALUES (",
        account_and_region!(),
        ", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
    );
    SESSION_STATE = "SELECT state, client_epoch FROM sessions WHERE id = $1";
    UPDATE_SESSION = "UPDATE sessions SET state = COALESCE($2, state), \
        end_reason = COALESCE($3, end_reason), ended = COALESCE($4, ended), \
        client_epoch = COALESCE($5, client_epoch), node_epoch = COALESCE($6, node_epoch), \
        last_activity = COALESCE($7, last_activity), \
        request_context = COALESCE($8, request_context) WHERE id = $1";
    SESSION = concat!("SELECT ", session_columns!(), " FROM sessions WHERE id = $1");

    PRUNE_SESSIONS = "DELETE FROM sessions WHERE id IN (\
        SELECT id FROM sessions WHERE ended < $1 ORDER BY ended LIMIT $2)";
    /// Looks at the oldest lines only: the trail is in order of time but for a stepped clock.
    PRUNE_TRAIL = "DELETE FROM trail WHERE line IN (SELECT line FROM (\
        SELECT line, event_time FROM trail ORDER BY line LIMIT $2) oldest WHERE event_time < $1)";

    /// Heads of statements that are continued by fragments.
    SESSIONS = concat!("SELECT ", session_columns!(), " FROM sessions WHERE TRUE");
    TRAIL = "SELECT line, event_id, event_time, event_name, event_source, username, access_key_id, \
        read_only, record FROM trail WHERE category = 'Management'";

    INSERT_TRAIL = "INSERT INTO trail (account_id, region, event_id, event_time, event_name, \
        event_source, username, access_key_id, read_only, category, record) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING line";
    INSERT_TRAIL_RESOURCE = "INSERT INTO trail_resources (line, ordinal, kind, name, arn) \
        VALUES ($1, $2, $3, $4, $5)";
}

/// Says of living sessions, in the words of the partial indexes, what their states say already.
pub(crate) const ONLY_LIVE: &str = " AND state NOT IN ('Failed', 'Terminated')";

/// Heartbeats of many nodes: a list of `(id, time)` and [`TOUCH_NODES_WHERE`] follow.
pub(crate) const TOUCH_NODES: &str = "UPDATE nodes SET last_ping = heard.column2 FROM (";
/// A late flush must not make a row look older than it is.
pub(crate) const TOUCH_NODES_WHERE: &str =
    ") AS heard WHERE nodes.id = heard.column1 AND nodes.last_ping < heard.column2";
/// Activity of many sessions: a list of `(id, time)` and [`TOUCH_SESSIONS_WHERE`] follow.
pub(crate) const TOUCH_SESSIONS: &str = "UPDATE sessions SET last_activity = active.column2 FROM (";
/// As [`TOUCH_NODES_WHERE`].
pub(crate) const TOUCH_SESSIONS_WHERE: &str =
    ") AS active WHERE sessions.id = active.column1 AND sessions.last_activity < active.column2";

/// Resources of some lines of the trail: their numbers and [`TRAIL_RESOURCES_ORDER`] follow.
pub(crate) const TRAIL_RESOURCES: &str =
    "SELECT line, kind, name FROM trail_resources WHERE line IN (";
/// In the order in which the record names them.
pub(crate) const TRAIL_RESOURCES_ORDER: &str = ") ORDER BY line, ordinal";

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Executor, SqlSafeStr, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn every_statement_is_valid_for_the_newest_schema() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::migrate::migrate(&mut connection).await.unwrap();
        for statement in ALL {
            if let Err(error) = connection.prepare((*statement).into_sql_str()).await {
                panic!("{statement}: {error}");
            }
        }
    }

    /// The plan's lines for a statement without values.
    async fn plan(connection: &mut SqliteConnection, statement: String) -> String {
        use sqlx::Row;
        let explained = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let rows = sqlx::query(explained).fetch_all(connection).await.unwrap();
        let lines: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        lines.join("\n")
    }

    #[tokio::test]
    async fn growing_tables_are_read_by_index_and_never_sorted() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::migrate::migrate(&mut connection).await.unwrap();
        let by_age = " ORDER BY started DESC, id DESC LIMIT 10";
        let by_line = " AND line < 9 ORDER BY line DESC LIMIT 10";
        let cases = [
            (format!("{SESSIONS}{by_age}"), "sessions_by_age"),
            (
                format!("{SESSIONS} AND state IN ('Connected', 'Connecting'){ONLY_LIVE}{by_age}"),
                "sessions_live",
            ),
            (
                format!("{SESSIONS} AND target = 'x'{by_age}"),
                "sessions_by_target",
            ),
            (
                format!("{SESSIONS} AND owner = 'x'{by_age}"),
                "sessions_by_owner",
            ),
            (format!("{TRAIL}{by_line}"), "trail_by_category"),
            (
                format!("{TRAIL} AND username = 'x'{by_line}"),
                "trail_by_username",
            ),
            (
                format!("{TRAIL} AND event_name = 'x'{by_line}"),
                "trail_by_event_name",
            ),
            (PRUNE_SESSIONS.to_owned(), "sessions_by_end"),
            (ACTIVATIONS.to_owned(), "activations_by_age"),
            (NODES.to_owned(), "nodes"),
            (DOCUMENTS.to_owned(), "documents"),
            (DOCUMENT_VERSIONS.to_owned(), "document_versions"),
        ];
        for (statement, index) in cases {
            let plan = plan(&mut connection, statement.clone()).await;
            assert!(
                plan.contains(index) && !plan.contains("TEMP B-TREE"),
                "{statement}\n{plan}"
            );
        }
    }
}
