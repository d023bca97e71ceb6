-- The log of every attempt, deliveries that are asked for again, rows set aside while their receiver takes no more,
-- and which ended calls have had their deliveries and events removed by age.

CREATE TABLE attempts (
    delivery BIGINT NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number   BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    took_ms  BIGINT NOT NULL,
    status   BIGINT,
    result   TEXT   NOT NULL,
    PRIMARY KEY (delivery, number)
);

-- A lane (call and URL) has its own row of redeliveries beside what is queued for the first time. `head` marks the
-- oldest of them; `made` counts attempts since the redelivery was asked for.
CREATE TABLE redeliveries (
    delivery     BIGINT PRIMARY KEY NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    call         TEXT   NOT NULL,
    url          TEXT   NOT NULL,
    host         TEXT   NOT NULL,
    head         BIGINT NOT NULL DEFAULT 0 CHECK (head IN (0, 1)),
    made         BIGINT NOT NULL DEFAULT 0,
    next_at      BIGINT NOT NULL,
    requested_at BIGINT NOT NULL
);

CREATE INDEX redeliveries_due ON redeliveries (next_at, delivery, host) WHERE head = 1;
CREATE INDEX redeliveries_lane ON redeliveries (call, url, delivery);

-- `aside` names the queue in which a row waits that is due and cannot go; empty for all others. What is due and can
-- go is found in an index that holds nothing else, however much waits for receivers that are slow or gone.
ALTER TABLE deliveries ADD COLUMN aside TEXT NOT NULL DEFAULT '';

DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (next_at, id) WHERE state = 'waiting' AND head = 1 AND aside = '';
CREATE INDEX deliveries_aside ON deliveries (aside, next_at, id) WHERE state = 'waiting' AND aside <> '';
CREATE INDEX deliveries_of_key ON deliveries (api_key, id);

ALTER TABLE calls ADD COLUMN purged BIGINT NOT NULL DEFAULT 0 CHECK (purged IN (0, 1));

CREATE INDEX calls_unpurged ON calls (ended_at, id) WHERE state = 'ended' AND purged = 0;
