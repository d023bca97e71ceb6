-- What operators set at run time: limits of keys and tenants, numbers that can be called, and who changed what.

ALTER TABLE tenants ADD COLUMN status TEXT NOT NULL DEFAULT 'active';
ALTER TABLE tenants ADD COLUMN max_agents BIGINT;
ALTER TABLE tenants ADD COLUMN max_concurrent_calls BIGINT;
ALTER TABLE tenants ADD COLUMN billing_email TEXT NOT NULL DEFAULT '';

ALTER TABLE api_keys ADD COLUMN surfaces TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN countries TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN allow_premium BIGINT NOT NULL DEFAULT 0 CHECK (allow_premium IN (0, 1));
ALTER TABLE api_keys ADD COLUMN allow_emergency BIGINT NOT NULL DEFAULT 0 CHECK (allow_emergency IN (0, 1));
ALTER TABLE api_keys ADD COLUMN daily_credits BIGINT;
ALTER TABLE api_keys ADD COLUMN calls_per_minute BIGINT;

CREATE INDEX calls_live_of_tenant ON calls (tenant) WHERE state <> 'ended';

-- Credits that a key's calls of one UTC day have taken or hold; a day counts from 1970-01-01.
CREATE TABLE daily_credits (
    api_key BIGINT NOT NULL REFERENCES api_keys (id),
    day     BIGINT NOT NULL,
    credits BIGINT NOT NULL,
    PRIMARY KEY (api_key, day)
);

-- Numbers that may be called, and what happens then.
CREATE TABLE numbers (
    id            TEXT   PRIMARY KEY NOT NULL,
    e164          TEXT   NOT NULL UNIQUE,
    sid           TEXT   NOT NULL UNIQUE,
    tenant        TEXT   NOT NULL REFERENCES tenants (id),
    friendly_name TEXT   NOT NULL,
    trunk         BIGINT REFERENCES trunks (id) ON DELETE SET NULL,
    action        TEXT   NOT NULL CHECK (action IN ('nothing', 'webhook', 'agent', 'play', 'echo')),
    target        TEXT   NOT NULL,
    api_key       BIGINT REFERENCES api_keys (id),
    created_at    BIGINT NOT NULL
);

CREATE INDEX numbers_of_tenant ON numbers (tenant, e164);

-- One row a change. Rows are only ever added.
CREATE TABLE audit (
    id      BIGINT PRIMARY KEY NOT NULL,
    at      BIGINT NOT NULL,
    actor   TEXT   NOT NULL,
    ip      TEXT,
    action  TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    detail  TEXT   NOT NULL
);

CREATE INDEX audit_of_actor ON audit (actor, id);
CREATE INDEX audit_of_subject ON audit (subject, id);

INSERT INTO counters (name, value) VALUES ('audit', 0);
