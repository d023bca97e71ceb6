-- Several processes on one database: which of them has a call, a webhook or a request under way. With SQLite there
-- is one process and these columns stay 0.

CREATE TABLE nodes (
    id        BIGINT PRIMARY KEY NOT NULL,
    locked_at BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('nodes', 0);

-- The process that has the call; 0: none, or none any more.
ALTER TABLE calls ADD COLUMN node BIGINT NOT NULL DEFAULT 0;

CREATE INDEX calls_open ON calls (node) WHERE state <> 'ended';

-- The process that is sending the row; 0: none.
ALTER TABLE deliveries ADD COLUMN claimed_by BIGINT NOT NULL DEFAULT 0;

CREATE INDEX deliveries_claimed ON deliveries (claimed_by) WHERE claimed_by <> 0;

-- Requests that carry an Idempotency-Key and are being done.
CREATE TABLE idempotency_running (
    api_key BIGINT NOT NULL REFERENCES api_keys (id),
    path    TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    digest  TEXT   NOT NULL,
    node    BIGINT NOT NULL,
    ticket  BIGINT NOT NULL,
    PRIMARY KEY (api_key, path, name)
);

-- Sliding windows of requests that all processes count in.
CREATE TABLE rate_windows (
    surface TEXT   NOT NULL,
    api_key BIGINT NOT NULL REFERENCES api_keys (id),
    last_at BIGINT NOT NULL,
    asked   BIGINT NOT NULL,
    PRIMARY KEY (surface, api_key)
);

CREATE TABLE rate_moments (
    surface TEXT   NOT NULL,
    api_key BIGINT NOT NULL,
    asked   BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (surface, api_key, asked)
);
