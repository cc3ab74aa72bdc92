//! The questions, each answered from one snapshot of the database by a fixed number of statements,
//! however many rows there are.

use std::collections::HashMap;

use sortie_ports::{
    Activation, Document, DocumentVersion, Identities, Identity, Node, Session, SessionQuery,
    StoreError, TaggedResource, TrailAttribute, TrailEntry, TrailQuery,
};
use sortie_types::{ActivationId, NodeId, Tag, Timestamp};
use sqlx::{
    QueryBuilder, Row, Sqlite, SqliteConnection, query,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{apply::tag_owner, decode, decode::Columns, sql, sqlite::engine};

type Statement<'q> = query::Query<'q, Sqlite, SqliteArguments>;

/// How many lines of the trail one statement asks the resources of.
const RESOURCE_LINES: usize = 500;

pub(crate) async fn one<T>(
    connection: &mut SqliteConnection,
    statement: Statement<'_>,
    decode: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let row = statement.fetch_optional(connection).await.map_err(engine)?;
    row.as_ref().map(decode).transpose()
}

async fn all<T>(
    connection: &mut SqliteConnection,
    statement: Statement<'_>,
    decode: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let rows = statement.fetch_all(connection).await.map_err(engine)?;
    rows.iter().map(decode).collect()
}

/// A page size as the engine takes it.
pub(crate) fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The revision of the identities.
pub(crate) async fn identity_revision(
    connection: &mut SqliteConnection,
) -> Result<i64, sqlx::Error> {
    let row = query(sql::IDENTITY_REVISION).fetch_one(connection).await?;
    row.try_get("revision")
}

/// All identities, unless they are those of revision `known`. `connection` is in a snapshot, so that
/// revision and rows belong together.
pub(crate) async fn identities(
    connection: &mut SqliteConnection,
    known: Option<i64>,
) -> Result<Option<Identities>, StoreError> {
    let revision = identity_revision(connection).await.map_err(engine)?;
    if known == Some(revision) {
        return Ok(None);
    }
    // One that cannot be read fails all: without it, a caller might be less bounded than it is.
    let rows: Vec<Identity> = all(connection, query(sql::IDENTITIES), decode::identity).await?;
    Ok(Some(Identities { revision, rows }))
}

pub(crate) async fn activation(
    connection: &mut SqliteConnection,
    id: ActivationId,
) -> Result<Option<Activation>, StoreError> {
    let select = query(sql::ACTIVATION).bind(id.to_string());
    let Some(mut activation) = one(connection, select, decode::activation).await? else {
        return Ok(None);
    };
    activation.tags = tags_of(connection, &TaggedResource::Activation(id)).await?;
    Ok(Some(activation))
}

pub(crate) async fn activations(
    connection: &mut SqliteConnection,
    after: Option<(Timestamp, ActivationId)>,
    limit: usize,
) -> Result<Vec<Activation>, StoreError> {
    let (created, id) = match after {
        Some((created, id)) => (created.millis(), id.to_string()),
        None => (i64::MAX, String::new()),
    };
    let page = |text: &'static str| {
        let statement = query(text).bind(created).bind(id.clone());
        statement.bind(bounded(limit))
    };
    let mut activations = all(connection, page(sql::ACTIVATIONS), decode::activation).await?;
    let mut tags = tags(connection, page(sql::TAGS_OF_ACTIVATIONS)).await?;
    for activation in &mut activations {
        let own = tags.remove(&activation.id.to_string());
        activation.tags = own.unwrap_or_default();
    }
    Ok(activations)
}

pub(crate) async fn document(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<(Document, DocumentVersion)>, StoreError> {
    let select = query(sql::DOCUMENT).bind(name);
    let found = one(connection, select, decode::document_with_version).await?;
    let Some((mut document, version)) = found else {
        return Ok(None);
    };
    let resource = TaggedResource::Document(name.to_owned());
    document.tags = tags_of(connection, &resource).await?;
    Ok(Some((document, version)))
}

pub(crate) async fn documents(
    connection: &mut SqliteConnection,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(Document, DocumentVersion)>, StoreError> {
    let page = |text: &'static str| {
        let statement = query(text).bind(after.unwrap_or_default());
        statement.bind(bounded(limit))
    };
    let select = page(sql::DOCUMENTS);
    let mut documents = all(connection, select, decode::document_with_version).await?;
    let mut tags = tags(connection, page(sql::TAGS_OF_DOCUMENTS)).await?;
    for (document, _) in &mut documents {
        document.tags = tags.remove(&document.name).unwrap_or_default();
    }
    Ok(documents)
}

pub(crate) async fn document_versions(
    connection: &mut SqliteConnection,
    name: &str,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<DocumentVersion>, StoreError> {
    let select = query(sql::DOCUMENT_VERSIONS)
        .bind(name)
        .bind(before.unwrap_or(i64::MAX))
        .bind(bounded(limit));
    all(connection, select, decode::document_version).await
}

pub(crate) async fn node(
    connection: &mut SqliteConnection,
    id: &NodeId,
) -> Result<Option<Node>, StoreError> {
    // One statement: nodes are asked for with every call that one makes. A row for each tag, or one
    // without any.
    let select = query(sql::NODE).bind(id.as_str());
    let rows = select.fetch_all(connection).await.map_err(engine)?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let mut node = decode::node(first)?;
    for row in &rows {
        let columns = Columns { table: "tags", row };
        if let Some(key) = columns.get("tag_key")? {
            let value = columns.get("tag_value")?;
            node.tags.push(Tag { key, value });
        }
    }
    Ok(Some(node))
}

pub(crate) async fn nodes(
    connection: &mut SqliteConnection,
    after: Option<&NodeId>,
    limit: usize,
) -> Result<Vec<Node>, StoreError> {
    let page = |text: &'static str| {
        let statement = query(text).bind(after.map_or("", NodeId::as_str));
        statement.bind(bounded(limit))
    };
    let mut nodes = all(connection, page(sql::NODES), decode::node).await?;
    let mut tags = tags(connection, page(sql::TAGS_OF_NODES)).await?;
    for node in &mut nodes {
        node.tags = tags.remove(node.id.as_str()).unwrap_or_default();
    }
    Ok(nodes)
}

async fn tags_of(
    connection: &mut SqliteConnection,
    resource: &TaggedResource,
) -> Result<Vec<Tag>, StoreError> {
    let (kind, resource_id) = tag_owner(resource);
    let select = query(sql::TAGS_OF_ONE).bind(kind).bind(&resource_id);
    let mut tags = tags(connection, select).await?;
    Ok(tags.remove(&resource_id).unwrap_or_default())
}

/// Tags by the id of their resource, in order of key.
async fn tags(
    connection: &mut SqliteConnection,
    statement: Statement<'_>,
) -> Result<HashMap<String, Vec<Tag>>, StoreError> {
    let rows = statement.fetch_all(connection).await.map_err(engine)?;
    let mut tags: HashMap<String, Vec<Tag>> = HashMap::new();
    for row in &rows {
        let columns = Columns { table: "tags", row };
        let (key, value) = (columns.get("key")?, columns.get("value")?);
        let owner = tags.entry(columns.get("resource_id")?).or_default();
        owner.push(Tag { key, value });
    }
    Ok(tags)
}

pub(crate) async fn sessions(
    connection: &mut SqliteConnection,
    wanted: &SessionQuery,
) -> Result<Vec<Session>, StoreError> {
    let mut select = QueryBuilder::<Sqlite>::new(sql::SESSIONS);
    filter_states(&mut select, wanted);
    if let Some(target) = &wanted.target {
        select.push(" AND target = ").push_bind(target.as_str());
    }
    if let Some(owner) = &wanted.owner {
        select.push(" AND owner = ").push_bind(owner.as_str());
    }
    if let Some(id) = &wanted.session_id {
        select.push(" AND id = ").push_bind(id.as_str());
    }
    if let Some(time) = wanted.started_after {
        select.push(" AND started >= ").push_bind(time.millis());
    }
    if let Some(time) = wanted.started_before {
        select.push(" AND started < ").push_bind(time.millis());
    }
    if let Some(time) = wanted.ended_after {
        select.push(" AND (ended IS NULL OR ended > ");
        select.push_bind(time.millis()).push(")");
    }
    if let Some((started, id)) = &wanted.after {
        select.push(" AND (started, id) < (");
        select.push_bind(started.millis()).push(", ");
        select.push_bind(id.as_str()).push(")");
    }
    select.push(" ORDER BY started DESC, id DESC LIMIT ");
    select.push_bind(bounded(wanted.limit));
    all(connection, select.build(), decode::session).await
}

fn filter_states(select: &mut QueryBuilder<Sqlite>, wanted: &SessionQuery) {
    if wanted.states.is_empty() {
        return;
    }
    select.push(" AND state IN (");
    let mut list = select.separated(", ");
    for state in &wanted.states {
        list.push_bind(state.as_str());
    }
    select.push(")");
    if !wanted.states.iter().any(|state| state.is_over()) {
        select.push(sql::ONLY_LIVE);
    }
}

pub(crate) async fn trail(
    connection: &mut SqliteConnection,
    wanted: &TrailQuery,
) -> Result<Vec<(i64, TrailEntry)>, StoreError> {
    let mut select = QueryBuilder::<Sqlite>::new(sql::TRAIL);
    if let Some(attribute) = &wanted.attribute {
        filter_attribute(&mut select, attribute);
    }
    if let Some(from) = wanted.from {
        select.push(" AND event_time >= ").push_bind(from.millis());
    }
    if let Some(until) = wanted.until {
        select.push(" AND event_time <= ").push_bind(until.millis());
    }
    if let Some(after) = wanted.after {
        select.push(" AND line < ").push_bind(after);
    }
    select.push(" ORDER BY line DESC LIMIT ");
    select.push_bind(bounded(wanted.limit));
    let mut lines = all(connection, select.build(), decode::trail_entry).await?;
    for lines in lines.chunks_mut(RESOURCE_LINES) {
        load_resources(connection, lines).await?;
    }
    Ok(lines)
}

fn filter_attribute(select: &mut QueryBuilder<Sqlite>, attribute: &TrailAttribute) {
    let (column, value) = match attribute {
        TrailAttribute::AccessKeyId(value) => ("access_key_id", value),
        TrailAttribute::EventId(value) => ("event_id", value),
        TrailAttribute::EventName(value) => ("event_name", value),
        TrailAttribute::EventSource(value) => ("event_source", value),
        TrailAttribute::ReadOnly(value) => {
            select.push(" AND read_only = ").push_bind(*value);
            return;
        }
        TrailAttribute::ResourceName(value) => {
            // People look for both.
            select.push(" AND line IN (SELECT line FROM trail_resources WHERE name = ");
            select.push_bind(value.clone()).push(" OR arn = ");
            select.push_bind(value.clone()).push(")");
            return;
        }
        TrailAttribute::ResourceType(value) => {
            select.push(" AND line IN (SELECT line FROM trail_resources WHERE kind = ");
            select.push_bind(value.clone()).push(")");
            return;
        }
        TrailAttribute::Username(value) => ("username", value),
    };
    select.push(" AND ").push(column).push(" = ");
    select.push_bind(value.clone());
}

async fn load_resources(
    connection: &mut SqliteConnection,
    lines: &mut [(i64, TrailEntry)],
) -> Result<(), StoreError> {
    let mut select = QueryBuilder::<Sqlite>::new(sql::TRAIL_RESOURCES);
    let mut list = select.separated(", ");
    for (line, _) in lines.iter() {
        list.push_bind(*line);
    }
    select.push(sql::TRAIL_RESOURCES_ORDER);
    let rows = select.build().fetch_all(connection).await.map_err(engine)?;
    let mut resources: HashMap<i64, Vec<(String, String)>> = HashMap::new();
    for row in &rows {
        let columns = Columns {
            table: "trail_resources",
            row,
        };
        let resource = (columns.get("kind")?, columns.get("name")?);
        let line = resources.entry(columns.get("line")?).or_default();
        line.push(resource);
    }
    for (line, entry) in lines {
        entry.resources = resources.remove(line).unwrap_or_default();
    }
    Ok(())
}
