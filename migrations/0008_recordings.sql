-- What becomes of finished recordings: checksum, reason of a failure, retention, upload. And the server's own
-- secrets, made at first use.

ALTER TABLE recordings ADD COLUMN channels BIGINT NOT NULL DEFAULT 1 CHECK (channels IN (1, 2));
ALTER TABLE recordings ADD COLUMN sha256 TEXT;
ALTER TABLE recordings ADD COLUMN reason TEXT;
ALTER TABLE recordings ADD COLUMN expired_at BIGINT;
ALTER TABLE recordings ADD COLUMN upload_state TEXT NOT NULL DEFAULT 'none'
    CHECK (upload_state IN ('none', 'done', 'failed'));
ALTER TABLE recordings ADD COLUMN upload_attempts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE recordings ADD COLUMN upload_at BIGINT NOT NULL DEFAULT 0;

ALTER TABLE calls ADD COLUMN record_channels BIGINT NOT NULL DEFAULT 1 CHECK (record_channels IN (1, 2));

CREATE INDEX recordings_kept ON recordings (created_at) WHERE expired_at IS NULL;
CREATE INDEX recordings_unsent ON recordings (upload_at)
    WHERE upload_state = 'none' AND state = 'done' AND expired_at IS NULL;

-- Days that a key's recordings are kept; NULL: as the configuration says; 0: for ever.
ALTER TABLE api_keys ADD COLUMN keep_days BIGINT CHECK (keep_days >= 0);

CREATE TABLE server_secrets (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);
