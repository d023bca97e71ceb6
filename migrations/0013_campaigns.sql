-- Campaigns: whom they call, and what has come of it. What becomes of a contact is written in the transaction of its
-- call: `dialing` with the call's row, the outcome with the call's end.

CREATE TABLE campaigns (
    id               TEXT   PRIMARY KEY NOT NULL,
    tenant           TEXT   NOT NULL REFERENCES tenants (id),
    api_key          BIGINT NOT NULL REFERENCES api_keys (id),
    name             TEXT   NOT NULL,
    agent            BIGINT NOT NULL REFERENCES agents (id),
    number           TEXT   NOT NULL,
    status           TEXT   NOT NULL CHECK (status IN ('active', 'paused', 'completed', 'cancelled')),
    starts_at        BIGINT NOT NULL,
    timezone         TEXT   NOT NULL,
    window_start     BIGINT,
    window_end       BIGINT,
    days             BIGINT NOT NULL,
    max_concurrent   BIGINT NOT NULL,
    calls_per_second BIGINT NOT NULL,
    max_attempts     BIGINT NOT NULL,
    retry_s          BIGINT NOT NULL,
    number_per_day   BIGINT,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL
);

CREATE INDEX campaigns_of_tenant ON campaigns (tenant, created_at, id);
CREATE INDEX campaigns_active ON campaigns (id) WHERE status = 'active';
CREATE INDEX campaigns_of_agent ON campaigns (agent) WHERE status IN ('active', 'paused');

CREATE TABLE campaign_contacts (
    campaign     TEXT   NOT NULL REFERENCES campaigns (id),
    position     BIGINT NOT NULL,
    contact      TEXT   NOT NULL,
    phone        TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    variables    TEXT   NOT NULL,
    timezone     TEXT   NOT NULL,
    state        TEXT   NOT NULL CHECK (state IN ('pending', 'dialing', 'done', 'failed', 'skipped')),
    attempts     BIGINT NOT NULL DEFAULT 0,
    next_at      BIGINT NOT NULL,
    call         TEXT,
    last_outcome TEXT,
    PRIMARY KEY (campaign, position),
    UNIQUE (campaign, phone)
);

CREATE INDEX campaign_contacts_pending ON campaign_contacts (campaign, position) WHERE state = 'pending';
CREATE INDEX campaign_contacts_elsewhere ON campaign_contacts (campaign, position)
    WHERE state = 'pending' AND timezone <> '';
CREATE INDEX campaign_contacts_state ON campaign_contacts (campaign, state);
CREATE INDEX campaign_contacts_dialing ON campaign_contacts (call) WHERE state = 'dialing';
CREATE INDEX contacts_dnc ON contacts (tenant, phone) WHERE dnc = 1;
CREATE INDEX calls_of_campaigns ON calls (tenant, number, created_at) WHERE campaign IS NOT NULL;
