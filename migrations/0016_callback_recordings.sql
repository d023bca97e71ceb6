-- Recordings that were fetched when a callback told of them: NULL where there was nothing to fetch, else how it stands,
-- and the size of the file.

ALTER TABLE callbacks ADD COLUMN recording TEXT CHECK (recording IN ('fetching', 'stored', 'failed', 'removed'));
ALTER TABLE callbacks ADD COLUMN recording_size BIGINT;

CREATE INDEX callbacks_stored ON callbacks (received_at) WHERE recording = 'stored';
