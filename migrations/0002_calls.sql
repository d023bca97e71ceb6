-- Calls, what happened to them, the credit each one holds, and their recordings.

CREATE TABLE calls (
    id               TEXT   PRIMARY KEY NOT NULL,
    kaphila_id       TEXT   NOT NULL UNIQUE,
    surface          TEXT   NOT NULL,
    api_key          BIGINT NOT NULL REFERENCES api_keys (id),
    tenant           TEXT   NOT NULL REFERENCES tenants (id),
    submitted_number TEXT   NOT NULL,
    number           TEXT   NOT NULL,
    caller_id        TEXT,
    trunks           TEXT   NOT NULL,
    ring_timeout_ms  BIGINT NOT NULL,
    max_duration_ms  BIGINT NOT NULL,
    use_amd          BIGINT NOT NULL CHECK (use_amd IN (0, 1)),
    record           BIGINT NOT NULL CHECK (record IN (0, 1)),
    voice_name       TEXT   NOT NULL,
    webhook_url      TEXT,
    created_at       BIGINT NOT NULL,
    state            TEXT   NOT NULL,
    outcome          TEXT   NOT NULL,
    placed           BIGINT NOT NULL CHECK (placed IN (0, 1)),
    attempts         TEXT   NOT NULL,
    amd_status       TEXT,
    amd_cause        TEXT,
    amd_confidence   DOUBLE PRECISION,
    gather           TEXT,
    recording        TEXT,
    recording_active BIGINT NOT NULL DEFAULT 0 CHECK (recording_active IN (0, 1)),
    dialed_at        BIGINT,
    ringing_at       BIGINT,
    answered_at      BIGINT,
    ended_at         BIGINT,
    end_reason       TEXT,
    q850             BIGINT,
    sip_code         BIGINT,
    duration_s       BIGINT NOT NULL DEFAULT 0,
    events           BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX calls_live ON calls (api_key) WHERE state <> 'ended';
CREATE INDEX calls_newest ON calls (api_key, created_at, id);
CREATE INDEX calls_outcome ON calls (api_key, outcome, created_at, id);

CREATE TABLE events (
    call     TEXT   NOT NULL REFERENCES calls (id),
    sequence BIGINT NOT NULL,
    type     TEXT   NOT NULL,
    at       BIGINT NOT NULL,
    data     TEXT   NOT NULL,
    PRIMARY KEY (call, sequence)
);

CREATE TABLE credit_holds (
    call    TEXT   PRIMARY KEY NOT NULL REFERENCES calls (id),
    api_key BIGINT NOT NULL REFERENCES api_keys (id),
    state   TEXT   NOT NULL CHECK (state IN ('held', 'taken', 'released'))
);

CREATE TABLE recordings (
    recording   TEXT   PRIMARY KEY NOT NULL,
    filename    TEXT   NOT NULL UNIQUE,
    call        TEXT   NOT NULL REFERENCES calls (id),
    api_key     BIGINT NOT NULL REFERENCES api_keys (id),
    state       TEXT   NOT NULL CHECK (state IN ('active', 'finalising', 'done', 'failed')),
    bytes       BIGINT NOT NULL DEFAULT 0,
    duration_ms BIGINT NOT NULL DEFAULT 0,
    created_at  BIGINT NOT NULL
);

CREATE INDEX recordings_newest ON recordings (api_key, created_at, recording);
CREATE INDEX recordings_of_call ON recordings (call, created_at);
CREATE INDEX recordings_open ON recordings (recording) WHERE state IN ('active', 'finalising');
