-- The tables of forebay. Later files only add (expand/contract), so that the release before and the one after can both
-- write while servers are replaced.

-- One row an event, in one leaf a UTC month. Leaves are tables of their own (events_2024_02), made ahead of time by
-- `forebay partitions maintain` and the servers. There is no DEFAULT partition: with a month's rows in it, that month's
-- leaf could not be made any more.
CREATE TABLE events (
    event_id     text        NOT NULL,
    service_name text        NOT NULL,
    event_type   text        NOT NULL,
    user_id      text,                 -- the event's user_id, else payload.user_id when that is a string
    "timestamp"  timestamptz NOT NULL, -- when it happened; the moment its batch was accepted where the sender gave none
    received_at  timestamptz NOT NULL, -- when its batch was accepted
    batch        uuid        NOT NULL, -- batches.batch
    priority     smallint    NOT NULL,
    payload      jsonb       NOT NULL,
    metadata     jsonb
) PARTITION BY RANGE ("timestamp");

-- What makes an event one: PostgreSQL itself refuses its double. It holds the partition key, as a unique index on a
-- partitioned table must, and begins with it, so that inserts go to the right edge of the index.
CREATE UNIQUE INDEX events_key ON events ("timestamp", event_id, service_name);
-- For reading: what one service sent of one type in a span of time.
CREATE INDEX events_service_type ON events (service_name, event_type, "timestamp");

-- The ledger: one row a batch whose fate is recorded, written in the transaction that writes its events. A retry finds
-- the row and changes nothing.
CREATE TABLE batches (
    caller          text        NOT NULL, -- the API key's name; '' when the server is open
    batch_id        text        NOT NULL, -- the caller's id, or ours where none was given
    batch           uuid        NOT NULL, -- in each of its events
    content_hash    bytea       NOT NULL, -- the same id with other content is another batch, and refused
    accepted_hash   bytea       NOT NULL, -- which of its events were accepted: clocks and settings of replicas may differ
    priority        smallint    NOT NULL,
    received        integer     NOT NULL, -- accepted + rejected
    accepted        integer     NOT NULL, -- committed + duplicates + quarantined
    rejected        integer     NOT NULL,
    committed       integer     NOT NULL,
    duplicates      integer     NOT NULL,
    quarantined     integer     NOT NULL,
    attempts        integer     NOT NULL,
    first_timestamp timestamptz NOT NULL, -- of its accepted events
    last_timestamp  timestamptz NOT NULL,
    accepted_at     timestamptz NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT now(),
    instance        text        NOT NULL, -- the replica that wrote it
    purged          integer     NOT NULL DEFAULT 0, -- of the quarantined events, those deleted since by hand
    PRIMARY KEY (caller, batch_id)
);
-- For the one query that prunes by LEDGER_RETENTION_DAYS, and for `verify --since`. BRIN: rows arrive in the order of time.
CREATE INDEX batches_committed_at ON batches USING brin (committed_at);

-- Events that were acknowledged and that PostgreSQL refuses, or whose batch bears another one's id.
CREATE TABLE quarantine (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    caller         text        NOT NULL,
    batch_id       text        NOT NULL,
    batch          uuid        NOT NULL,
    index          integer     NOT NULL, -- the event's place in the batch as it was sent, from 0
    service_name   text        NOT NULL,
    event_id       text        NOT NULL,
    reason         text        NOT NULL,
    detail         text        NOT NULL, -- SQLSTATE and the names of our own objects, nothing of the event
    event          bytea       NOT NULL, -- the event as JSON; payload and metadata byte for byte as they were sent
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    replayed_at    timestamptz           -- when it was sent in again
);
-- A retry adds none a second time.
CREATE UNIQUE INDEX quarantine_key ON quarantine (batch, index);

-- What is known of the leaves as a whole: always one row.
CREATE TABLE partition_state (
    one            boolean PRIMARY KEY DEFAULT true CHECK (one),
    pruned_before  date,        -- months before this one were dropped; it never goes back
    maintained_at  timestamptz  -- when `partitions maintain` last did all it had to
);
INSERT INTO partition_state DEFAULT VALUES;
