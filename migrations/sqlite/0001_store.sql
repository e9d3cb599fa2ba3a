-- +goose Up
-- Times are Unix milliseconds, starts of slices Unix seconds. Two processes may run this one after the other.

-- One row for each instance that was ever seen, with its last report (JSON, without slices).
CREATE TABLE instances (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    dns        INTEGER NOT NULL,
    token_id   TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    boot_id    TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    current    TEXT NOT NULL, -- outcomes of boot_id
    ended      TEXT NOT NULL, -- sum of the outcomes of all boots before
    report     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX instances_seen ON instances (last_seen);

-- Boots whose counters are not taken any more: ended, or forgotten with their instance.
CREATE TABLE boots (
    instance_id TEXT NOT NULL,
    boot_id     TEXT NOT NULL,
    forgotten   INTEGER NOT NULL,
    ended_at    INTEGER NOT NULL,
    PRIMARY KEY (instance_id, boot_id)
) WITHOUT ROWID;

-- History: one row for each complete minute, ten minutes or hour (size in seconds) of one boot.
CREATE TABLE slices (
    instance_id TEXT NOT NULL,
    size        INTEGER NOT NULL,
    start       INTEGER NOT NULL,
    boot_id     TEXT NOT NULL,
    body        BLOB NOT NULL,
    PRIMARY KEY (instance_id, size, start, boot_id)
) WITHOUT ROWID;

-- Up to where a boot's slices are here without a hole.
CREATE TABLE slices_until (
    instance_id TEXT NOT NULL,
    size        INTEGER NOT NULL,
    boot_id     TEXT NOT NULL,
    until       INTEGER NOT NULL,
    PRIMARY KEY (instance_id, size, boot_id)
) WITHOUT ROWID;

CREATE TABLE tokens (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    secret_hash   TEXT NOT NULL,
    any_instance  INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    rotated_at    INTEGER NOT NULL, -- 0 = never, like the next two
    revoked_at    INTEGER NOT NULL,
    first_used_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE token_instances (
    instance_id TEXT NOT NULL,
    token_id    TEXT NOT NULL REFERENCES tokens (id),
    PRIMARY KEY (instance_id, token_id)
) WITHOUT ROWID;
CREATE INDEX token_instances_by_token ON token_instances (token_id);

CREATE TABLE policy (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    revision   INTEGER NOT NULL,
    hash       TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    body       TEXT NOT NULL
);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    data       BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- What changed last, in order, so that every process on the file can tell what is news to it.
CREATE TABLE changes (
    kind TEXT NOT NULL, -- instance, tokens, policy
    key  TEXT NOT NULL,
    seq  INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX changes_seq ON changes (seq);

-- +goose Down
DROP TABLE changes;
DROP TABLE sessions;
DROP TABLE settings;
DROP TABLE policy;
DROP TABLE token_instances;
DROP TABLE tokens;
DROP TABLE slices_until;
DROP TABLE slices;
DROP TABLE boots;
DROP TABLE instances;
