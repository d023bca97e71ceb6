-- What a call is for beyond its key, and the agents that talk.

ALTER TABLE calls ADD COLUMN direction TEXT NOT NULL DEFAULT 'outbound';
ALTER TABLE calls ADD COLUMN mode TEXT NOT NULL DEFAULT 'control';
ALTER TABLE calls ADD COLUMN agent BIGINT;
ALTER TABLE calls ADD COLUMN campaign TEXT;
ALTER TABLE calls ADD COLUMN contact TEXT;
ALTER TABLE calls ADD COLUMN context TEXT NOT NULL DEFAULT '{}';

CREATE INDEX calls_of_tenant ON calls (tenant, created_at);

-- An agent that has placed calls is never removed, only marked: history keeps naming it.
CREATE TABLE agents (
    id                  BIGINT PRIMARY KEY NOT NULL,
    cuid                TEXT   NOT NULL UNIQUE,
    tenant              TEXT   NOT NULL REFERENCES tenants (id),
    name                TEXT   NOT NULL,
    kind                TEXT   NOT NULL CHECK (kind IN ('inbound', 'outbound')),
    active              BIGINT NOT NULL CHECK (active IN (0, 1)),
    system_prompt       TEXT   NOT NULL,
    first_message       TEXT,
    voice               TEXT   NOT NULL,
    language            TEXT   NOT NULL,
    max_call_duration_s BIGINT,
    record              BIGINT NOT NULL CHECK (record IN (0, 1)),
    context             TEXT   NOT NULL,
    relay_url           TEXT,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    deleted_at          BIGINT
);

CREATE INDEX agents_of_tenant ON agents (tenant, id) WHERE deleted_at IS NULL;

INSERT INTO counters (name, value) VALUES ('agents', 0);
