-- Session documents. Versions never change, and their numbers are never used again. `shared_with` is a
-- JSON object of accounts. Tags are in `tags`, under the kind `document`.

CREATE TABLE documents (
    name            TEXT   NOT NULL PRIMARY KEY,
    account_id      TEXT   NOT NULL,
    region          TEXT   NOT NULL,
    created         BIGINT NOT NULL,
    default_version BIGINT NOT NULL,
    latest_version  BIGINT NOT NULL,
    next_version    BIGINT NOT NULL,
    target_type     TEXT,
    shared_with     TEXT   NOT NULL,
    revision        BIGINT NOT NULL
);

CREATE TABLE document_versions (
    document     TEXT   NOT NULL REFERENCES documents (name) ON DELETE CASCADE,
    number       BIGINT NOT NULL,
    version_name TEXT,
    display_name TEXT,
    format       TEXT   NOT NULL,
    content      TEXT   NOT NULL,
    created      BIGINT NOT NULL,
    PRIMARY KEY (document, number),
    UNIQUE (document, version_name)
);

-- Settings of the service that are not the default.
CREATE TABLE service_settings (
    id          TEXT   NOT NULL PRIMARY KEY,
    account_id  TEXT   NOT NULL,
    region      TEXT   NOT NULL,
    value       TEXT   NOT NULL,
    modified    BIGINT NOT NULL,
    modified_by TEXT   NOT NULL
);
