-- What VoxForge's users keep: contacts, appointments, endpoints of webhooks; and the minutes that their plans count in.

CREATE TABLE plan_minutes (
    api_key BIGINT PRIMARY KEY NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    ends_at BIGINT NOT NULL,
    asked   BIGINT NOT NULL
);

CREATE TABLE contacts (
    id         TEXT   PRIMARY KEY NOT NULL,
    tenant     TEXT   NOT NULL REFERENCES tenants (id),
    phone      TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    variables  TEXT   NOT NULL,
    timezone   TEXT   NOT NULL,
    dnc        BIGINT NOT NULL CHECK (dnc IN (0, 1)),
    created_at BIGINT NOT NULL
);

CREATE INDEX contacts_of_tenant ON contacts (tenant, created_at, id);
CREATE INDEX contacts_by_phone ON contacts (tenant, phone);

CREATE TABLE appointments (
    id         TEXT   PRIMARY KEY NOT NULL,
    tenant     TEXT   NOT NULL REFERENCES tenants (id),
    contact    TEXT   NOT NULL,
    starts_at  BIGINT NOT NULL,
    ends_at    BIGINT NOT NULL,
    title      TEXT   NOT NULL,
    notes      TEXT,
    status     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX appointments_of_tenant ON appointments (tenant, starts_at, id);

-- An endpoint that is deleted stays for the log of its deliveries.
CREATE TABLE webhook_endpoints (
    id         TEXT   PRIMARY KEY NOT NULL,
    tenant     TEXT   NOT NULL REFERENCES tenants (id),
    url        TEXT   NOT NULL,
    events     TEXT   NOT NULL,
    active     BIGINT NOT NULL CHECK (active IN (0, 1)),
    secret     TEXT   NOT NULL,
    old_secret TEXT,
    old_until  BIGINT,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);

CREATE INDEX webhook_endpoints_of_tenant ON webhook_endpoints (tenant, created_at, id) WHERE deleted_at IS NULL;

-- Whose secret signs a delivery, where it is not the key's.
ALTER TABLE deliveries ADD COLUMN endpoint TEXT;

CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint, id) WHERE endpoint IS NOT NULL;
CREATE INDEX calls_of_agent ON calls (agent) WHERE state <> 'ended';
