-- Who pays and by what trunks. Portable between SQLite and PostgreSQL: TEXT, BIGINT milliseconds,
-- 0/1 for booleans, NOT NULL wherever a value is always there.

CREATE TABLE counters (
    name  TEXT   PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('api_keys', 0), ('trunks', 0), ('calls', 0), ('deliveries', 0);

CREATE TABLE tenants (
    id         TEXT   PRIMARY KEY NOT NULL,
    name       TEXT   NOT NULL,
    subdomain  TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

INSERT INTO tenants (id, name, subdomain, created_at) VALUES ('default', 'default', 'default', 0);

CREATE TABLE api_keys (
    id                 BIGINT PRIMARY KEY NOT NULL,
    key_id             TEXT   NOT NULL UNIQUE,
    tenant             TEXT   NOT NULL REFERENCES tenants (id),
    name               TEXT   NOT NULL,
    hash               TEXT   NOT NULL UNIQUE,
    prefix             TEXT   NOT NULL,
    old_hash           TEXT   UNIQUE,
    scopes             TEXT   NOT NULL,
    ip_allow           TEXT   NOT NULL,
    plan               TEXT   NOT NULL,
    credits            BIGINT CHECK (credits >= 0),
    held               BIGINT NOT NULL DEFAULT 0 CHECK (held >= 0),
    rate_limit         BIGINT,
    max_concurrent     BIGINT NOT NULL,
    recording          TEXT   NOT NULL,
    caller_ids         TEXT   NOT NULL,
    all_trunks         BIGINT NOT NULL CHECK (all_trunks IN (0, 1)),
    trunk_cursor       BIGINT NOT NULL DEFAULT 0,
    webhook_secret     TEXT   NOT NULL,
    old_webhook_secret TEXT,
    old_until          BIGINT,
    total_calls        BIGINT NOT NULL DEFAULT 0,
    successful_calls   BIGINT NOT NULL DEFAULT 0,
    created_at         BIGINT NOT NULL,
    last_used          BIGINT,
    expires_at         BIGINT,
    revoked_at         BIGINT
);

CREATE TABLE trunks (
    id                     BIGINT PRIMARY KEY NOT NULL,
    name                   TEXT   NOT NULL UNIQUE,
    proxy                  TEXT   NOT NULL,
    username               TEXT   NOT NULL,
    password               TEXT   NOT NULL,
    dial_prefix            TEXT   NOT NULL,
    caller_id              TEXT,
    codecs                 TEXT   NOT NULL,
    no_response_timeout_ms BIGINT NOT NULL,
    enabled                BIGINT NOT NULL CHECK (enabled IN (0, 1))
);

CREATE TABLE key_trunks (
    api_key  BIGINT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    trunk    BIGINT NOT NULL REFERENCES trunks (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    PRIMARY KEY (api_key, trunk)
);
