-- What an application says when it gives a call back.

ALTER TABLE calls ADD COLUMN handoff TEXT;

-- Whether the call goes on when the agent's relay application is done.
ALTER TABLE agents ADD COLUMN relay_keeps BIGINT NOT NULL DEFAULT 0;
