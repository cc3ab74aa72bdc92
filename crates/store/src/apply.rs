//! Applies one commit inside a transaction that the writer has opened: every kind of change, and
//! the audit records. Opens, commits and rolls back nothing itself.

use std::collections::BTreeMap;

use sortie_evidence::{AuditRecord, Category, Resource};
use sortie_ports::{
    Activation, ActivationUse, Change, Commit, Conflict, Document, DocumentVersion, Identity,
    IdentityKind, IdentityUse, Installation, Node, NodeInfo, ServiceSetting, Session, SessionPatch,
    SessionState, StoreError, TaggedResource,
};
use sortie_types::{ActivationId, Arn, NodeId, SessionId, Tag, Timestamp};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, query, sqlite::SqliteArguments};

use crate::{
    decode,
    read::{self, bounded},
    sql,
    sqlite::engine,
};

type Statement<'q> = query::Query<'q, Sqlite, SqliteArguments>;

/// How many rows one statement touches; its parameters must stay below the engine's limit.
const TOUCH_ROWS: usize = 500;

/// Makes everything of `commit` true, or fails and leaves the rolling back to the caller.
pub(crate) async fn apply(
    connection: &mut SqliteConnection,
    commit: &Commit,
) -> Result<(), StoreError> {
    let mut required = false;
    for change in &commit.changes {
        match change {
            Change::RequireIdentities { .. } => required = true,
            Change::PutIdentity(_) | Change::RemoveIdentity { .. } if !required => {
                return Err(Conflict::Revision.into());
            }
            _ => {}
        }
        apply_change(connection, change).await?;
    }
    for record in &commit.trail {
        append_record(connection, record).await?;
    }
    Ok(())
}

async fn apply_change(
    connection: &mut SqliteConnection,
    change: &Change,
) -> Result<(), StoreError> {
    match change {
        Change::DeleteActivation(id) => delete_activation(connection, *id).await,
        Change::DeleteDocument { name, revision } => {
            delete_document(connection, name, *revision).await
        }
        Change::DeregisterNode(node_id) => {
            on_node(connection, query(sql::DEREGISTER_NODE), node_id, |q| q).await
        }
        Change::InsertActivation(activation) => insert_activation(connection, activation).await,
        Change::InsertAdministrator { name } => {
            run_unique(connection, query(sql::INSERT_ADMINISTRATOR).bind(name)).await?;
            Ok(())
        }
        Change::InsertDocument {
            document,
            version,
            limit,
        } => insert_document(connection, document, version, *limit).await,
        Change::InsertInstallation(constants) => insert_installation(connection, constants).await,
        Change::InsertNode(node) => insert_node(connection, node).await,
        Change::InsertSession(session) => insert_session(connection, session).await,
        Change::Prune {
            sessions_ended_before,
            trail_before,
            limit,
        } => prune(connection, *sessions_ended_before, *trail_before, *limit).await,
        Change::PutIdentity(identity) => put_identity(connection, identity).await,
        Change::PutServiceSetting(setting) => put_service_setting(connection, setting).await,
        Change::PutTags {
            resource,
            tags,
            limit,
        } => put_tags(connection, resource, tags, *limit).await,
        Change::RemoveIdentity { kind, key } => remove_identity(connection, *kind, key).await,
        Change::RemoveServiceSetting { id } => {
            run(connection, query(sql::REMOVE_SERVICE_SETTING).bind(id)).await?;
            Ok(())
        }
        Change::RemoveTags { resource, keys } => remove_tags(connection, resource, keys).await,
        Change::RequireIdentities { revision } => require_identities(connection, *revision).await,
        Change::RequireNode {
            node_id,
            public_key,
        } => require_node(connection, node_id, public_key.as_deref()).await,
        Change::SetNodeConnected {
            node_id,
            connected,
            at,
        } => {
            let set = query(sql::SET_NODE_CONNECTED);
            let bind = |q: Statement<'static>| q.bind(*connected).bind(at.millis());
            on_node(connection, set, node_id, bind).await
        }
        Change::SetNodeInfo { node_id, info, at } => {
            set_node_info(connection, node_id, info, *at).await
        }
        Change::SetNodeKey {
            node_id,
            public_key,
            previous,
        } => set_node_key(connection, node_id, public_key, previous.as_deref()).await,
        Change::SetNodeName { node_id, name } => {
            let bind = |q: Statement<'static>| q.bind(name.as_deref());
            on_node(connection, query(sql::SET_NODE_NAME), node_id, bind).await
        }
        Change::SetNodeRole { node_id, iam_role } => {
            let bind = |q: Statement<'static>| q.bind(iam_role.as_str());
            on_node(connection, query(sql::SET_NODE_ROLE), node_id, bind).await
        }
        Change::SetNoNodeConnected => {
            run(connection, query(sql::SET_NO_NODE_CONNECTED)).await?;
            Ok(())
        }
        Change::Touch {
            nodes,
            sessions,
            identities,
        } => {
            touch(connection, nodes, sessions).await?;
            touch_identities(connection, identities).await
        }
        Change::UpdateDocument {
            document,
            added,
            removed,
        } => update_document(connection, document, added.as_deref(), *removed).await,
        Change::UpdateSession {
            session_id,
            when,
            patch,
        } => update_session(connection, session_id, when, patch).await,
        Change::UseActivation { activation_id, at } => {
            use_activation(connection, *activation_id, *at).await
        }
        Change::UseMfaStep {
            serial_number,
            step,
        } => use_mfa_step(connection, serial_number, *step).await,
    }
}

/// Runs a statement and says how many rows it changed.
async fn run(
    connection: &mut SqliteConnection,
    statement: Statement<'_>,
) -> Result<u64, StoreError> {
    let done = statement.execute(connection).await.map_err(engine)?;
    Ok(done.rows_affected())
}

/// Runs a statement whose unique columns may be taken.
async fn run_unique(
    connection: &mut SqliteConnection,
    statement: Statement<'_>,
) -> Result<u64, StoreError> {
    match statement.execute(connection).await {
        Ok(done) => Ok(done.rows_affected()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Err(Conflict::Exists.into())
        }
        Err(error) => Err(engine(error)),
    }
}

/// Runs an update of one active node; `bind` adds what follows the id.
async fn on_node(
    connection: &mut SqliteConnection,
    update: Statement<'static>,
    node_id: &NodeId,
    bind: impl FnOnce(Statement<'static>) -> Statement<'static>,
) -> Result<(), StoreError> {
    let update = bind(update.bind(node_id.as_str()));
    match run_unique(connection, update).await? {
        0 => Err(Conflict::NoNode.into()),
        _ => Ok(()),
    }
}

async fn require_node(
    connection: &mut SqliteConnection,
    node_id: &NodeId,
    public_key: Option<&[u8]>,
) -> Result<(), StoreError> {
    let key: Vec<u8> = query(sql::ACTIVE_NODE_KEY)
        .bind(node_id.as_str())
        .fetch_optional(&mut *connection)
        .await
        .map_err(engine)?
        .ok_or(Conflict::NoNode)?
        .try_get(0)
        .map_err(engine)?;
    match public_key {
        Some(wanted) if wanted != key => Err(Conflict::NodeKey.into()),
        _ => Ok(()),
    }
}

async fn insert_installation(
    connection: &mut SqliteConnection,
    constants: &Installation,
) -> Result<(), StoreError> {
    let insert = query(sql::INSERT_INSTALLATION)
        .bind(constants.account_id.as_str())
        .bind(constants.region.as_str());
    run_unique(connection, insert).await?;
    Ok(())
}

async fn require_identities(
    connection: &mut SqliteConnection,
    revision: i64,
) -> Result<(), StoreError> {
    match read::identity_revision(connection).await.map_err(engine)? {
        found if found == revision => Ok(()),
        _ => Err(Conflict::Revision.into()),
    }
}

async fn put_identity(
    connection: &mut SqliteConnection,
    identity: &Identity,
) -> Result<(), StoreError> {
    let body = serde_json::to_string(identity).map_err(|error| StoreError::Engine(error.into()))?;
    let put = query(sql::PUT_IDENTITY)
        .bind(identity.kind().as_str())
        .bind(identity.key())
        .bind(body);
    run(connection, put).await?;
    run(connection, query(sql::RAISE_IDENTITY_REVISION)).await?;
    Ok(())
}

async fn remove_identity(
    connection: &mut SqliteConnection,
    kind: IdentityKind,
    key: &str,
) -> Result<(), StoreError> {
    for statement in [sql::REMOVE_IDENTITY, sql::REMOVE_IDENTITY_USE] {
        let remove = query(statement).bind(kind.as_str()).bind(key);
        run(connection, remove).await?;
    }
    if kind == IdentityKind::MfaDevice {
        // A device that is made under the same name has another seed.
        run(connection, query(sql::REMOVE_MFA_STEP).bind(key)).await?;
    }
    run(connection, query(sql::RAISE_IDENTITY_REVISION)).await?;
    Ok(())
}

async fn use_mfa_step(
    connection: &mut SqliteConnection,
    serial_number: &Arn,
    step: i64,
) -> Result<(), StoreError> {
    let raise = query(sql::USE_MFA_STEP)
        .bind(serial_number.as_str())
        .bind(step);
    match run(connection, raise).await? {
        0 => Err(Conflict::CodeUsed.into()),
        _ => Ok(()),
    }
}

async fn insert_activation(
    connection: &mut SqliteConnection,
    activation: &Activation,
) -> Result<(), StoreError> {
    let insert = query(sql::INSERT_ACTIVATION)
        .bind(activation.id.to_string())
        .bind(activation.code_digest.as_slice())
        .bind(&activation.iam_role)
        .bind(activation.description.as_deref())
        .bind(activation.default_instance_name.as_deref())
        .bind(activation.registration_limit)
        .bind(activation.registrations_count)
        .bind(activation.expires.millis())
        .bind(activation.created.millis());
    run_unique(connection, insert).await?;
    let resource = TaggedResource::Activation(activation.id);
    write_tags(connection, &resource, &activation.tags).await
}

async fn delete_activation(
    connection: &mut SqliteConnection,
    id: ActivationId,
) -> Result<(), StoreError> {
    let delete = query(sql::DELETE_ACTIVATION).bind(id.to_string());
    if run(connection, delete).await? == 0 {
        return Err(Conflict::NoActivation.into());
    }
    let (kind, resource_id) = tag_owner(&TaggedResource::Activation(id));
    let delete = query(sql::REMOVE_ALL_TAGS).bind(kind).bind(resource_id);
    run(connection, delete).await?;
    Ok(())
}

async fn use_activation(
    connection: &mut SqliteConnection,
    id: ActivationId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let count = query(sql::USE_ACTIVATION)
        .bind(id.to_string())
        .bind(at.millis());
    if run(connection, count).await? > 0 {
        return Ok(());
    }
    let found = query(sql::ACTIVATION_EXPIRY)
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
        .map_err(engine)?;
    let refused = match found {
        None => ActivationUse::Unknown,
        Some(row) if row.try_get::<i64, _>("expires").map_err(engine)? < at.millis() => {
            ActivationUse::Expired
        }
        Some(_) => ActivationUse::UsedUp,
    };
    Err(Conflict::Activation(refused).into())
}

async fn insert_document(
    connection: &mut SqliteConnection,
    document: &Document,
    version: &DocumentVersion,
    limit: usize,
) -> Result<(), StoreError> {
    let insert = query(sql::INSERT_DOCUMENT)
        .bind(&document.name)
        .bind(document.created.millis())
        .bind(document.default_version)
        .bind(document.latest_version)
        .bind(document.next_version)
        .bind(document.target_type.as_deref())
        .bind(shared_with(document)?)
        .bind(document.revision);
    run_unique(connection, insert).await?;
    insert_document_version(connection, version).await?;
    let counted = query(sql::COUNT_DOCUMENTS)
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get::<i64, _>(0))
        .map_err(engine)?;
    if usize::try_from(counted).is_ok_and(|count| count > limit) {
        return Err(Conflict::TooManyDocuments.into());
    }
    let resource = TaggedResource::Document(document.name.clone());
    write_tags(connection, &resource, &document.tags).await
}

fn shared_with(document: &Document) -> Result<String, StoreError> {
    serde_json::to_string(&document.shared_with).map_err(|error| StoreError::Engine(error.into()))
}

async fn insert_document_version(
    connection: &mut SqliteConnection,
    version: &DocumentVersion,
) -> Result<(), StoreError> {
    let insert = query(sql::INSERT_DOCUMENT_VERSION)
        .bind(&version.document)
        .bind(version.number)
        .bind(version.version_name.as_deref())
        .bind(version.display_name.as_deref())
        .bind(&version.format)
        .bind(&version.content)
        .bind(version.created.millis());
    run_unique(connection, insert).await?;
    Ok(())
}

async fn update_document(
    connection: &mut SqliteConnection,
    document: &Document,
    added: Option<&DocumentVersion>,
    removed: Option<i64>,
) -> Result<(), StoreError> {
    let update = query(sql::UPDATE_DOCUMENT)
        .bind(&document.name)
        .bind(document.revision)
        .bind(document.default_version)
        .bind(document.latest_version)
        .bind(document.next_version)
        .bind(document.target_type.as_deref())
        .bind(shared_with(document)?);
    if run(connection, update).await? == 0 {
        return Err(document_changed(connection, &document.name).await?.into());
    }
    if let Some(version) = added {
        insert_document_version(connection, version).await?;
    }
    if let Some(number) = removed {
        let delete = query(sql::DELETE_DOCUMENT_VERSION)
            .bind(&document.name)
            .bind(number);
        run(connection, delete).await?;
    }
    Ok(())
}

async fn delete_document(
    connection: &mut SqliteConnection,
    name: &str,
    revision: i64,
) -> Result<(), StoreError> {
    let delete = query(sql::DELETE_DOCUMENT_VERSIONS).bind(name);
    run(connection, delete).await?;
    let delete = query(sql::DELETE_DOCUMENT).bind(name).bind(revision);
    if run(connection, delete).await? == 0 {
        return Err(document_changed(connection, name).await?.into());
    }
    let (kind, resource_id) = tag_owner(&TaggedResource::Document(name.to_owned()));
    let delete = query(sql::REMOVE_ALL_TAGS).bind(kind).bind(resource_id);
    run(connection, delete).await?;
    Ok(())
}

/// Why a document is not the one that was read.
async fn document_changed(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Conflict, StoreError> {
    let found = query(sql::DOCUMENT_EXISTS)
        .bind(name)
        .fetch_optional(connection)
        .await;
    Ok(match found.map_err(engine)? {
        Some(_) => Conflict::DocumentRevision,
        None => Conflict::NoDocument,
    })
}

async fn put_service_setting(
    connection: &mut SqliteConnection,
    setting: &ServiceSetting,
) -> Result<(), StoreError> {
    let put = query(sql::PUT_SERVICE_SETTING)
        .bind(&setting.id)
        .bind(&setting.value)
        .bind(setting.modified.millis())
        .bind(&setting.modified_by);
    run(connection, put).await?;
    Ok(())
}

async fn insert_node(connection: &mut SqliteConnection, node: &Node) -> Result<(), StoreError> {
    let insert = query(sql::INSERT_NODE)
        .bind(node.id.as_str())
        .bind(decode::node_state_word(node.state))
        .bind(node.activation_id.to_string())
        .bind(&node.iam_role)
        .bind(node.name.as_deref())
        .bind(node.registered.millis())
        .bind(node.source_ip.as_deref())
        .bind(&node.fingerprint)
        .bind(&node.public_key)
        .bind(node.previous_public_key.as_deref());
    let insert = bind_info(insert, &node.info)
        .bind(node.last_ping.millis())
        .bind(node.connected);
    run_unique(connection, insert).await?;
    write_tags(
        connection,
        &TaggedResource::Node(node.id.clone()),
        &node.tags,
    )
    .await
}

/// In the order of the columns.
fn bind_info<'q>(statement: Statement<'q>, info: &NodeInfo) -> Statement<'q> {
    statement
        .bind(info.agent_name.as_deref())
        .bind(info.agent_version.as_deref())
        .bind(info.computer_name.as_deref())
        .bind(info.ip_address.as_deref())
        .bind(info.platform_type.as_deref())
        .bind(info.platform_name.as_deref())
        .bind(info.platform_version.as_deref())
}

async fn set_node_info(
    connection: &mut SqliteConnection,
    node_id: &NodeId,
    info: &NodeInfo,
    at: Timestamp,
) -> Result<(), StoreError> {
    let bind = |q| bind_info(q, info).bind(at.millis());
    on_node(connection, query(sql::SET_NODE_INFO), node_id, bind).await
}

async fn set_node_key(
    connection: &mut SqliteConnection,
    node_id: &NodeId,
    public_key: &[u8],
    previous: Option<&[u8]>,
) -> Result<(), StoreError> {
    let bind = |q: Statement<'static>| q.bind(public_key).bind(previous);
    on_node(connection, query(sql::SET_NODE_KEY), node_id, bind).await
}

/// The kind and id under which the tags of a resource are kept.
pub(crate) fn tag_owner(resource: &TaggedResource) -> (&'static str, String) {
    match resource {
        TaggedResource::Activation(id) => ("activation", id.to_string()),
        TaggedResource::Document(name) => ("document", name.clone()),
        TaggedResource::Node(id) => ("node", id.as_str().to_owned()),
    }
}

async fn put_tags(
    connection: &mut SqliteConnection,
    resource: &TaggedResource,
    tags: &[Tag],
    limit: usize,
) -> Result<(), StoreError> {
    let (exists, missing) = match resource {
        TaggedResource::Activation(_) => (sql::ACTIVATION_EXISTS, Conflict::NoActivation),
        TaggedResource::Document(_) => (sql::DOCUMENT_EXISTS, Conflict::NoDocument),
        TaggedResource::Node(_) => (sql::ACTIVE_NODE_EXISTS, Conflict::NoNode),
    };
    let (kind, resource_id) = tag_owner(resource);
    let found = query(exists)
        .bind(&resource_id)
        .fetch_optional(&mut *connection)
        .await;
    if found.map_err(engine)?.is_none() {
        return Err(missing.into());
    }
    write_tags(connection, resource, tags).await?;
    let counted = query(sql::COUNT_TAGS)
        .bind(kind)
        .bind(&resource_id)
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get::<i64, _>(0))
        .map_err(engine)?;
    if usize::try_from(counted).is_ok_and(|count| count <= limit) {
        Ok(())
    } else {
        Err(Conflict::TooManyTags.into())
    }
}

async fn write_tags(
    connection: &mut SqliteConnection,
    resource: &TaggedResource,
    tags: &[Tag],
) -> Result<(), StoreError> {
    let (kind, resource_id) = tag_owner(resource);
    for tag in tags {
        let put = query(sql::PUT_TAG)
            .bind(kind)
            .bind(&resource_id)
            .bind(&tag.key)
            .bind(&tag.value);
        run(connection, put).await?;
    }
    Ok(())
}

async fn remove_tags(
    connection: &mut SqliteConnection,
    resource: &TaggedResource,
    keys: &[String],
) -> Result<(), StoreError> {
    let (kind, resource_id) = tag_owner(resource);
    for key in keys {
        let remove = query(sql::REMOVE_TAG)
            .bind(kind)
            .bind(&resource_id)
            .bind(key);
        run(connection, remove).await?;
    }
    Ok(())
}

async fn insert_session(
    connection: &mut SqliteConnection,
    session: &Session,
) -> Result<(), StoreError> {
    let insert = query(sql::INSERT_SESSION)
        .bind(session.id.as_str())
        .bind(session.target.as_str())
        .bind(session.owner.as_str())
        .bind(session.owner_unique_id.as_str())
        .bind(&session.document_name)
        .bind(session.document_content.to_string())
        .bind(session.parameters.to_string())
        .bind(session.reason.as_deref())
        .bind(session.state.as_str())
        .bind(session.end_reason.as_deref())
        .bind(session.started.millis())
        .bind(session.ended.map(Timestamp::millis))
        .bind(session.idle_timeout_seconds)
        .bind(session.max_duration_seconds)
        .bind(session.client_epoch)
        .bind(session.node_epoch)
        .bind(session.last_activity.millis())
        .bind(session.request_context.to_string());
    run_unique(connection, insert).await?;
    Ok(())
}

async fn update_session(
    connection: &mut SqliteConnection,
    session_id: &SessionId,
    when: &[SessionState],
    patch: &SessionPatch,
) -> Result<(), StoreError> {
    // Nothing comes between this look and the update: there is one writer.
    let found = query(sql::SESSION_STATE)
        .bind(session_id.as_str())
        .fetch_optional(&mut *connection)
        .await
        .map_err(engine)?
        .ok_or(Conflict::NoSession)?;
    let state = decode::session_state(&found)?;
    if !when.is_empty() && !when.contains(&state) {
        return Err(Conflict::SessionState(state).into());
    }
    let epoch: i64 = found.try_get("client_epoch").map_err(engine)?;
    if patch.client_epoch.is_some_and(|next| next <= epoch) {
        return Err(Conflict::Superseded.into());
    }
    let update = query(sql::UPDATE_SESSION)
        .bind(session_id.as_str())
        .bind(patch.state.map(SessionState::as_str))
        .bind(patch.end_reason.as_deref())
        .bind(patch.ended.map(Timestamp::millis))
        .bind(patch.client_epoch)
        .bind(patch.node_epoch)
        .bind(patch.last_activity.map(Timestamp::millis))
        .bind(patch.request_context.as_ref().map(ToString::to_string));
    run(connection, update).await?;
    Ok(())
}

async fn touch(
    connection: &mut SqliteConnection,
    nodes: &[(NodeId, Timestamp)],
    sessions: &[(SessionId, Timestamp)],
) -> Result<(), StoreError> {
    let nodes = nodes.iter().map(|(id, at)| (id.as_str(), *at));
    touch_rows(connection, sql::TOUCH_NODES, nodes, sql::TOUCH_NODES_WHERE).await?;
    let sessions = sessions.iter().map(|(id, at)| (id.as_str(), *at));
    touch_rows(
        connection,
        sql::TOUCH_SESSIONS,
        sessions,
        sql::TOUCH_SESSIONS_WHERE,
    )
    .await
}

async fn touch_identities(
    connection: &mut SqliteConnection,
    identities: &[(IdentityKind, String, IdentityUse)],
) -> Result<(), StoreError> {
    for (kind, key, usage) in identities {
        let touch = query(sql::TOUCH_IDENTITY)
            .bind(kind.as_str())
            .bind(key)
            .bind(usage.at.millis())
            .bind(usage.service.as_deref())
            .bind(usage.region.as_deref());
        run(connection, touch).await?;
    }
    Ok(())
}

async fn touch_rows(
    connection: &mut SqliteConnection,
    head: &'static str,
    rows: impl Iterator<Item = (&str, Timestamp)>,
    tail: &'static str,
) -> Result<(), StoreError> {
    // Of two times for one row the engine would take either.
    let mut latest = BTreeMap::new();
    for (id, at) in rows {
        let kept = latest.entry(id).or_insert(at);
        *kept = at.max(*kept);
    }
    let latest: Vec<_> = latest.into_iter().collect();
    for rows in latest.chunks(TOUCH_ROWS) {
        let mut update = QueryBuilder::<Sqlite>::new(head);
        update.push_values(rows, |mut row, (id, at)| {
            row.push_bind(*id).push_bind(at.millis());
        });
        update.push(tail);
        run(connection, update.build().persistent(false)).await?;
    }
    Ok(())
}

async fn prune(
    connection: &mut SqliteConnection,
    sessions_ended_before: Timestamp,
    trail_before: Timestamp,
    limit: usize,
) -> Result<(), StoreError> {
    for (statement, before) in [
        (sql::PRUNE_SESSIONS, sessions_ended_before),
        (sql::PRUNE_TRAIL, trail_before),
    ] {
        let delete = query(statement).bind(before.millis()).bind(bounded(limit));
        run(connection, delete).await?;
    }
    Ok(())
}

async fn append_record(
    connection: &mut SqliteConnection,
    record: &AuditRecord,
) -> Result<(), StoreError> {
    let inserted = query(sql::INSERT_TRAIL)
        .bind(record.account_id.as_str())
        .bind(record.region.as_str())
        .bind(record.event_id.to_string())
        .bind(record.event_time.millis())
        .bind(&record.event_name)
        .bind(&record.event_source)
        .bind(record.username())
        .bind(record.access_key_id())
        .bind(record.read_only)
        .bind(category_word(record.category))
        .bind(record.to_json().to_string())
        .fetch_one(&mut *connection)
        .await
        .map_err(engine)?;
    let line: i64 = inserted.try_get("line").map_err(engine)?;
    for (ordinal, resource) in (0_i64..).zip(&record.resources) {
        let insert = query(sql::INSERT_TRAIL_RESOURCE)
            .bind(line)
            .bind(ordinal)
            .bind(resource.kind)
            .bind(resource_name(resource))
            .bind(resource.arn.as_str());
        run(connection, insert).await?;
    }
    Ok(())
}

fn category_word(category: Category) -> &'static str {
    match category {
        Category::Data => "Data",
        Category::Management => "Management",
    }
}

/// The last part of the ARN: what people call the resource.
fn resource_name(resource: &Resource) -> &str {
    let text = resource.arn.resource();
    text.rsplit('/').next().unwrap_or(text)
}
