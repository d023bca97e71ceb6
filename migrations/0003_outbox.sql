-- Webhooks that wait to be delivered, and the log of those that were. A lane is one call and one URL.
-- `head` marks the rows of a lane that may go as soon as they are due.

CREATE TABLE deliveries (
    id          BIGINT PRIMARY KEY NOT NULL,
    event_id    TEXT   NOT NULL UNIQUE,
    call        TEXT   NOT NULL REFERENCES calls (id),
    api_key     BIGINT NOT NULL REFERENCES api_keys (id),
    dialect     TEXT   NOT NULL,
    event       TEXT   NOT NULL,
    terminal    BIGINT NOT NULL CHECK (terminal IN (0, 1)),
    url         TEXT   NOT NULL,
    host        TEXT   NOT NULL,
    body        TEXT   NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed', 'dropped', 'gone')),
    head        BIGINT NOT NULL DEFAULT 0 CHECK (head IN (0, 1)),
    attempts    BIGINT NOT NULL DEFAULT 0,
    next_at     BIGINT NOT NULL,
    last_status BIGINT,
    last_result TEXT   NOT NULL DEFAULT '',
    created_at  BIGINT NOT NULL,
    settled_at  BIGINT
);

CREATE INDEX deliveries_due ON deliveries (next_at, id, host) WHERE state = 'waiting' AND head = 1;
CREATE INDEX deliveries_lane ON deliveries (call, url, state, id);
