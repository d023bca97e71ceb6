-- What a language model says of conversations that are over, and which of them wait for it.

CREATE TABLE analyses (
    call      TEXT   PRIMARY KEY NOT NULL REFERENCES calls (id),
    state     TEXT   NOT NULL CHECK (state IN ('waiting', 'done', 'none')),
    attempts  BIGINT NOT NULL,
    due_at    BIGINT NOT NULL,
    summary   TEXT,
    sentiment TEXT,
    done_at   BIGINT
);

CREATE INDEX analyses_waiting ON analyses (due_at) WHERE state = 'waiting';
CREATE INDEX calls_conversed ON calls (ended_at) WHERE mode IN ('agent', 'conversation') AND answered_at IS NOT NULL;
