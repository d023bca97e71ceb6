-- What a trunk is told beyond its address (one JSON object), which of a key's trunks comes first, and the trunks
-- that a call passed over.

ALTER TABLE trunks ADD COLUMN profile TEXT NOT NULL DEFAULT '{}';

ALTER TABLE api_keys ADD COLUMN trunk_policy TEXT NOT NULL DEFAULT 'round_robin';

ALTER TABLE calls ADD COLUMN passed TEXT NOT NULL DEFAULT '[]';
