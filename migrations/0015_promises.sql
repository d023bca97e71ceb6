-- What campaigns promise: when each contact was taken, so that several processes together begin no more calls in a second
-- than may begin; and the key by which whoever is called asks not to be called again.

ALTER TABLE campaigns ADD COLUMN opt_out_key TEXT;
ALTER TABLE campaign_contacts ADD COLUMN taken_at BIGINT;

CREATE INDEX campaign_contacts_taken ON campaign_contacts (campaign, taken_at) WHERE taken_at IS NOT NULL;

-- Who is due is asked five times a second, whatever waits for tomorrow.
DROP INDEX campaign_contacts_pending;
DROP INDEX campaign_contacts_elsewhere;
CREATE INDEX campaign_contacts_next ON campaign_contacts (campaign, next_at, position) WHERE state = 'pending';
CREATE INDEX campaign_contacts_elsewhere ON campaign_contacts (campaign, next_at, position)
    WHERE state = 'pending' AND timezone <> '';

-- Whose key answers a call that comes in, and who is told of events.
CREATE INDEX api_keys_of_tenant ON api_keys (tenant, id) WHERE revoked_at IS NULL;
CREATE INDEX webhook_endpoints_active ON webhook_endpoints (tenant, created_at, id)
    WHERE active = 1 AND deleted_at IS NULL;
