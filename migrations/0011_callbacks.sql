-- What others' systems have told POST /webhook/callback. Kept for operators to read; changes no call.

CREATE TABLE callbacks (
    id                  BIGINT PRIMARY KEY NOT NULL,
    call                TEXT   NOT NULL,
    status              TEXT   NOT NULL,
    recording_available BIGINT NOT NULL CHECK (recording_available IN (0, 1)),
    sender              TEXT   NOT NULL,
    received_at         BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('callbacks', 0);
