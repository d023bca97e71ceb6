-- What an agent does where a machine answers, and the customer's functions that its language model may call.

ALTER TABLE agents ADD COLUMN voicemail TEXT NOT NULL DEFAULT 'continue';
ALTER TABLE agents ADD COLUMN voicemail_message TEXT;
ALTER TABLE agents ADD COLUMN tools TEXT NOT NULL DEFAULT '[]';
