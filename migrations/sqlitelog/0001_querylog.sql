-- +goose Up
-- Days are counted since the epoch, in UTC. Texts are blobs, so that they are compared byte by byte and may hold any.

-- Days before this one are no longer stored: their events are or will be deleted, and then their words. One row.
CREATE TABLE horizon (day INTEGER NOT NULL);
INSERT INTO horizon VALUES (0);

-- Which batches of a boot were stored: numbers from first to last, without a hole. day is the latest of their days.
CREATE TABLE batches (
    instance BLOB NOT NULL,
    boot     BLOB NOT NULL,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    day      INTEGER NOT NULL,
    PRIMARY KEY (instance, boot, first)
) WITHOUT ROWID;

-- The words of the events. Those of one day are numbered for that day, and so go with it.
CREATE TABLE kinds (
    id       INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: readers remember them
    day      INTEGER NOT NULL,
    instance BLOB NOT NULL,
    protocol BLOB NOT NULL,
    outcome  INTEGER NOT NULL,
    rcode    INTEGER NOT NULL,
    upstream BLOB NOT NULL,
    list     BLOB NOT NULL,
    UNIQUE (day, instance, protocol, outcome, rcode, upstream, list)
);
CREATE TABLE clients (
    id      INTEGER PRIMARY KEY,
    day     INTEGER NOT NULL,
    address BLOB NOT NULL,
    name    BLOB NOT NULL,
    UNIQUE (day, address, name)
);
CREATE TABLE names (
    id  INTEGER PRIMARY KEY,
    day INTEGER NOT NULL,
    rev BLOB NOT NULL, -- moc.elpmaxe for example.com.: what is below a domain has one beginning
    UNIQUE (day, rev)
);

-- The events, in the order of time: id is the Unix millisecond << 21 | a number that tells apart those of one
-- millisecond. qtype has the class above its 16 bits unless that is IN.
CREATE TABLE events (
    id     INTEGER PRIMARY KEY,
    kind   INTEGER NOT NULL,
    qtype  INTEGER NOT NULL,
    client INTEGER NOT NULL,
    name   INTEGER NOT NULL,
    us     INTEGER NOT NULL -- how long the answer took, in microseconds
);

-- Sums of the events of one instance in one minute or hour (size and start in seconds), changed with the events.
CREATE TABLE rollups (
    size      INTEGER NOT NULL,
    start     INTEGER NOT NULL,
    instance  BLOB NOT NULL,
    outcomes  BLOB NOT NULL,
    us        INTEGER NOT NULL,
    latency   BLOB NOT NULL,
    upstreams BLOB NOT NULL,
    PRIMARY KEY (size, start, instance)
);
