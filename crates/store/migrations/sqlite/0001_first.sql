-- The first tables. Times are Unix milliseconds, identifiers and JSON are text.
-- Every table that names resources has the account and, where the resource has one, the region.

CREATE TABLE installation (
    singleton  BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    account_id TEXT   NOT NULL,
    region     TEXT   NOT NULL
);

CREATE TABLE users (
    unique_id     TEXT    NOT NULL PRIMARY KEY,
    account_id    TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    path          TEXT    NOT NULL,
    created       BIGINT  NOT NULL,
    administrator BOOLEAN NOT NULL,
    UNIQUE (account_id, name)
);

CREATE TABLE access_keys (
    id            TEXT    NOT NULL PRIMARY KEY,
    account_id    TEXT    NOT NULL,
    user_id       TEXT    NOT NULL REFERENCES users (unique_id),
    sealed_secret BLOB    NOT NULL,
    active        BOOLEAN NOT NULL,
    created       BIGINT  NOT NULL
);
CREATE INDEX access_keys_by_user ON access_keys (user_id);

CREATE TABLE activations (
    id                    TEXT   NOT NULL PRIMARY KEY,
    account_id            TEXT   NOT NULL,
    region                TEXT   NOT NULL,
    code_digest           BLOB   NOT NULL,
    iam_role              TEXT   NOT NULL,
    description           TEXT,
    default_instance_name TEXT,
    registration_limit    BIGINT NOT NULL,
    registrations_count   BIGINT NOT NULL,
    expires               BIGINT NOT NULL,
    created               BIGINT NOT NULL
);
CREATE INDEX activations_by_age ON activations (created, id);

-- An activation may be deleted while its nodes live on, so activation_id refers to nothing.
CREATE TABLE nodes (
    id                  TEXT    NOT NULL PRIMARY KEY,
    account_id          TEXT    NOT NULL,
    region              TEXT    NOT NULL,
    state               TEXT    NOT NULL,
    activation_id       TEXT    NOT NULL,
    iam_role            TEXT    NOT NULL,
    name                TEXT,
    registered          BIGINT  NOT NULL,
    source_ip           TEXT,
    fingerprint         TEXT    NOT NULL,
    public_key          BLOB    NOT NULL UNIQUE,
    previous_public_key BLOB,
    agent_name          TEXT,
    agent_version       TEXT,
    computer_name       TEXT,
    ip_address          TEXT,
    platform_type       TEXT,
    platform_name       TEXT,
    platform_version    TEXT,
    last_ping           BIGINT  NOT NULL,
    connected           BOOLEAN NOT NULL
);
CREATE INDEX nodes_active ON nodes (id) WHERE state = 'Active';
CREATE INDEX nodes_connected ON nodes (id) WHERE connected;

CREATE TABLE sessions (
    id                   TEXT   NOT NULL PRIMARY KEY,
    account_id           TEXT   NOT NULL,
    region               TEXT   NOT NULL,
    target               TEXT   NOT NULL,
    owner                TEXT   NOT NULL,
    owner_unique_id      TEXT   NOT NULL,
    document_name        TEXT   NOT NULL,
    document_content     TEXT   NOT NULL,
    parameters           TEXT   NOT NULL,
    reason               TEXT,
    state                TEXT   NOT NULL,
    end_reason           TEXT,
    started              BIGINT NOT NULL,
    ended                BIGINT,
    idle_timeout_seconds BIGINT NOT NULL,
    max_duration_seconds BIGINT,
    client_epoch         BIGINT NOT NULL,
    node_epoch           BIGINT NOT NULL,
    last_activity        BIGINT NOT NULL,
    request_context      TEXT   NOT NULL
);
CREATE INDEX sessions_by_age ON sessions (started, id);
CREATE INDEX sessions_by_target ON sessions (target, started, id);
CREATE INDEX sessions_by_owner ON sessions (owner, started, id);
CREATE INDEX sessions_by_end ON sessions (ended);
-- The few that live, among a history that only grows.
CREATE INDEX sessions_live ON sessions (started, id) WHERE state NOT IN ('Failed', 'Terminated');
CREATE INDEX sessions_live_by_target ON sessions (target, started, id)
    WHERE state NOT IN ('Failed', 'Terminated');

CREATE TABLE tags (
    account_id  TEXT NOT NULL,
    region      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (kind, resource_id, key)
);

-- A line number is never used again, so that paging cannot meet a line twice.
CREATE TABLE trail (
    line          INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id    TEXT    NOT NULL,
    region        TEXT    NOT NULL,
    event_id      TEXT    NOT NULL UNIQUE,
    event_time    BIGINT  NOT NULL,
    event_name    TEXT    NOT NULL,
    event_source  TEXT    NOT NULL,
    username      TEXT,
    access_key_id TEXT,
    read_only     BOOLEAN NOT NULL,
    category      TEXT    NOT NULL,
    record        TEXT    NOT NULL
);
CREATE INDEX trail_by_category ON trail (category, line);
CREATE INDEX trail_by_event_name ON trail (category, event_name, line);
CREATE INDEX trail_by_event_source ON trail (category, event_source, line);
CREATE INDEX trail_by_username ON trail (category, username, line);
CREATE INDEX trail_by_access_key ON trail (category, access_key_id, line);
CREATE INDEX trail_by_read_only ON trail (category, read_only, line);

CREATE TABLE trail_resources (
    line    BIGINT NOT NULL REFERENCES trail (line) ON DELETE CASCADE,
    ordinal BIGINT NOT NULL,
    kind    TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    arn     TEXT   NOT NULL,
    PRIMARY KEY (line, ordinal)
);
CREATE INDEX trail_resources_by_kind ON trail_resources (kind, line);
CREATE INDEX trail_resources_by_name ON trail_resources (name, line);
CREATE INDEX trail_resources_by_arn ON trail_resources (arn, line);
