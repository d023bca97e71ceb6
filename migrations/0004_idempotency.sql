-- Answers to requests that carried an Idempotency-Key, kept for a day (CONTRACT 0.5). A row is written when the
-- request has been answered; requests under way are known to the process alone and die with it.

CREATE TABLE idempotency (
    api_key    BIGINT NOT NULL REFERENCES api_keys (id),
    path       TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    digest     TEXT   NOT NULL,
    status     BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (api_key, path, name)
);

CREATE INDEX idempotency_oldest ON idempotency (created_at);
