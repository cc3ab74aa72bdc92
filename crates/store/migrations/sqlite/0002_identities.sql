-- Identities become documents, one a row, with a revision for all of them together. `body` is the
-- row of the port as JSON, `key` is unique among those of a kind. Bytes are hex in it.

CREATE TABLE identities (
    kind       TEXT NOT NULL,
    key        TEXT NOT NULL,
    account_id TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (kind, key)
);

-- Nothing has changed an identity as long as it is 0.
CREATE TABLE identity_revision (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    revision  BIGINT NOT NULL
);
INSERT INTO identity_revision (singleton, revision) VALUES (1, 0);

-- Names of the administrators that were made, in lower case. They stay when the user goes, so that
-- it does not come back with the next start.
CREATE TABLE administrators (
    name       TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL
);

-- The newest code that each MFA device was used with, as Unix time over 30 s.
CREATE TABLE mfa_steps (
    serial_number TEXT   NOT NULL PRIMARY KEY,
    account_id    TEXT   NOT NULL,
    step          BIGINT NOT NULL
);

CREATE TABLE identity_uses (
    kind       TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    account_id TEXT   NOT NULL,
    used       BIGINT NOT NULL,
    service    TEXT,
    region     TEXT,
    PRIMARY KEY (kind, key)
);

-- Who could do everything by a mark of its own does so by a policy now.
INSERT INTO identities (kind, key, account_id, body)
SELECT 'User', unique_id, account_id, json_object('User', json_object(
    'unique_id', unique_id,
    'name', name,
    'path', path,
    'created', created,
    'grants', json(CASE WHEN administrator
        THEN '{"attached":["arn:aws:iam::aws:policy/AdministratorAccess"]}'
        ELSE '{}' END)))
FROM users;

INSERT INTO identities (kind, key, account_id, body)
SELECT 'AccessKey', id, account_id, json_object('AccessKey', json_object(
    'id', id,
    'user', user_id,
    'sealed_secret', lower(hex(sealed_secret)),
    'active', json(CASE WHEN active THEN 'true' ELSE 'false' END),
    'created', created))
FROM access_keys;

INSERT INTO administrators (name, account_id)
SELECT DISTINCT lower(name), account_id FROM users WHERE administrator;

DROP TABLE access_keys;
DROP TABLE users;
