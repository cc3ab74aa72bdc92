//! Rows of the database as rows of the port. A value that is not what it should be is
//! [`StoreError::Corrupt`], never a panic: the file may have been edited by hand.

use std::{fmt::Display, str::FromStr};

use serde_json::Value;
use sortie_ports::{
    Activation, Document, DocumentVersion, Identity, IdentityUse, Installation, Node, NodeInfo,
    NodeState, ServiceSetting, Session, SessionState, StoreError, TrailEntry,
};
use sortie_types::Timestamp;
use sqlx::{Decode, Row, Sqlite, Type, sqlite::SqliteRow};

/// A row, and the table to name when it cannot be read.
pub(crate) struct Columns<'r> {
    pub(crate) table: &'static str,
    pub(crate) row: &'r SqliteRow,
}

impl<'r> Columns<'r> {
    pub(crate) fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(
        &self,
        column: &str,
    ) -> Result<T, StoreError> {
        self.row
            .try_get(column)
            .map_err(|error| self.corrupt(error))
    }

    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        text.parse().map_err(|error| self.corrupt(error))
    }

    fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.get(column).map(Timestamp::from_millis)
    }

    fn json(&self, column: &str) -> Result<Value, StoreError> {
        serde_json::from_str(self.get(column)?).map_err(|error| self.corrupt(error))
    }

    fn corrupt(&self, what: impl Display) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            what: what.to_string(),
        }
    }
}

pub(crate) fn installation(row: &SqliteRow) -> Result<Installation, StoreError> {
    let columns = Columns {
        table: "installation",
        row,
    };
    Ok(Installation {
        account_id: columns.parsed("account_id")?,
        region: columns.parsed("region")?,
    })
}

pub(crate) fn identity(row: &SqliteRow) -> Result<Identity, StoreError> {
    let columns = Columns {
        table: "identities",
        row,
    };
    let body: &str = columns.get("body")?;
    serde_json::from_str(body).map_err(|error| columns.corrupt(error))
}

pub(crate) fn identity_use(row: &SqliteRow) -> Result<IdentityUse, StoreError> {
    let columns = Columns {
        table: "identity_uses",
        row,
    };
    Ok(IdentityUse {
        at: columns.time("used")?,
        service: columns.get("service")?,
        region: columns.get("region")?,
    })
}

/// An activation, still without its tags.
pub(crate) fn activation(row: &SqliteRow) -> Result<Activation, StoreError> {
    let columns = Columns {
        table: "activations",
        row,
    };
    let code_digest: Vec<u8> = columns.get("code_digest")?;
    Ok(Activation {
        id: columns.parsed("id")?,
        code_digest: code_digest
            .try_into()
            .map_err(|_| columns.corrupt("code_digest is not 32 bytes"))?,
        iam_role: columns.get("iam_role")?,
        description: columns.get("description")?,
        default_instance_name: columns.get("default_instance_name")?,
        registration_limit: columns.get("registration_limit")?,
        registrations_count: columns.get("registrations_count")?,
        expires: columns.time("expires")?,
        created: columns.time("created")?,
        tags: Vec::new(),
    })
}

/// A document, still without its tags.
fn document(row: &SqliteRow) -> Result<Document, StoreError> {
    let columns = Columns {
        table: "documents",
        row,
    };
    let shared_with: &str = columns.get("shared_with")?;
    Ok(Document {
        name: columns.get("name")?,
        created: columns.time("created")?,
        default_version: columns.get("default_version")?,
        latest_version: columns.get("latest_version")?,
        next_version: columns.get("next_version")?,
        target_type: columns.get("target_type")?,
        shared_with: serde_json::from_str(shared_with).map_err(|error| columns.corrupt(error))?,
        revision: columns.get("revision")?,
        tags: Vec::new(),
    })
}

pub(crate) fn document_version(row: &SqliteRow) -> Result<DocumentVersion, StoreError> {
    let columns = Columns {
        table: "document_versions",
        row,
    };
    Ok(DocumentVersion {
        document: columns.get("document")?,
        number: columns.get("number")?,
        version_name: columns.get("version_name")?,
        display_name: columns.get("display_name")?,
        format: columns.get("format")?,
        content: columns.get("content")?,
        created: columns.time("version_created")?,
    })
}

/// A document, still without its tags, and its version in force.
pub(crate) fn document_with_version(
    row: &SqliteRow,
) -> Result<(Document, DocumentVersion), StoreError> {
    Ok((document(row)?, document_version(row)?))
}

pub(crate) fn service_setting(row: &SqliteRow) -> Result<ServiceSetting, StoreError> {
    let columns = Columns {
        table: "service_settings",
        row,
    };
    Ok(ServiceSetting {
        id: columns.get("id")?,
        value: columns.get("value")?,
        modified: columns.time("modified")?,
        modified_by: columns.get("modified_by")?,
    })
}

/// A node, still without its tags.
pub(crate) fn node(row: &SqliteRow) -> Result<Node, StoreError> {
    let columns = Columns {
        table: "nodes",
        row,
    };
    Ok(Node {
        id: columns.parsed("id")?,
        state: node_state(&columns)?,
        activation_id: columns.parsed("activation_id")?,
        iam_role: columns.get("iam_role")?,
        name: columns.get("name")?,
        registered: columns.time("registered")?,
        source_ip: columns.get("source_ip")?,
        fingerprint: columns.get("fingerprint")?,
        public_key: columns.get("public_key")?,
        previous_public_key: columns.get("previous_public_key")?,
        info: node_info(&columns)?,
        last_ping: columns.time("last_ping")?,
        connected: columns.get("connected")?,
        tags: Vec::new(),
    })
}

fn node_info(columns: &Columns<'_>) -> Result<NodeInfo, StoreError> {
    Ok(NodeInfo {
        agent_name: columns.get("agent_name")?,
        agent_version: columns.get("agent_version")?,
        computer_name: columns.get("computer_name")?,
        ip_address: columns.get("ip_address")?,
        platform_type: columns.get("platform_type")?,
        platform_name: columns.get("platform_name")?,
        platform_version: columns.get("platform_version")?,
    })
}

/// The word that a node's state is kept as; statements know it too.
pub(crate) fn node_state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "Active",
        NodeState::Deregistered => "Deregistered",
    }
}

fn node_state(columns: &Columns<'_>) -> Result<NodeState, StoreError> {
    let word: &str = columns.get("state")?;
    [NodeState::Active, NodeState::Deregistered]
        .into_iter()
        .find(|state| node_state_word(*state) == word)
        .ok_or_else(|| columns.corrupt(format_args!("`{word}` is no state")))
}

pub(crate) fn session_state(row: &SqliteRow) -> Result<SessionState, StoreError> {
    use SessionState::{Connected, Connecting, Disconnected, Failed, Terminated, Terminating};
    let columns = Columns {
        table: "sessions",
        row,
    };
    let word: &str = columns.get("state")?;
    [
        Connected,
        Connecting,
        Disconnected,
        Failed,
        Terminated,
        Terminating,
    ]
    .into_iter()
    .find(|state| state.as_str() == word)
    .ok_or_else(|| columns.corrupt(format_args!("`{word}` is no state")))
}

pub(crate) fn session(row: &SqliteRow) -> Result<Session, StoreError> {
    let columns = Columns {
        table: "sessions",
        row,
    };
    let ended: Option<i64> = columns.get("ended")?;
    Ok(Session {
        id: columns.parsed("id")?,
        target: columns.parsed("target")?,
        owner: columns.parsed("owner")?,
        owner_unique_id: columns.parsed("owner_unique_id")?,
        document_name: columns.get("document_name")?,
        document_content: columns.json("document_content")?,
        parameters: columns.json("parameters")?,
        reason: columns.get("reason")?,
        state: session_state(row)?,
        end_reason: columns.get("end_reason")?,
        started: columns.time("started")?,
        ended: ended.map(Timestamp::from_millis),
        idle_timeout_seconds: columns.get("idle_timeout_seconds")?,
        max_duration_seconds: columns.get("max_duration_seconds")?,
        client_epoch: columns.get("client_epoch")?,
        node_epoch: columns.get("node_epoch")?,
        last_activity: columns.time("last_activity")?,
        request_context: columns.json("request_context")?,
    })
}

/// A line of the trail and its number, still without its resources.
pub(crate) fn trail_entry(row: &SqliteRow) -> Result<(i64, TrailEntry), StoreError> {
    let columns = Columns {
        table: "trail",
        row,
    };
    let entry = TrailEntry {
        event_id: columns.get("event_id")?,
        event_time: columns.time("event_time")?,
        event_name: columns.get("event_name")?,
        event_source: columns.get("event_source")?,
        username: columns.get("username")?,
        access_key_id: columns.get("access_key_id")?,
        read_only: columns.get("read_only")?,
        resources: Vec::new(),
        record: columns.get("record")?,
    };
    Ok((columns.get("line")?, entry))
}
