-- A database of schema 4 with rows, as the program of that time left it: two keys, a trunk, an answered call with a
-- recording, digits and webhooks, and one that was busy.
BEGIN TRANSACTION;
CREATE TABLE api_keys (
    id                 BIGINT PRIMARY KEY NOT NULL,
    key_id             TEXT   NOT NULL UNIQUE,
    tenant             TEXT   NOT NULL REFERENCES tenants (id),
    name               TEXT   NOT NULL,
    hash               TEXT   NOT NULL UNIQUE,
    prefix             TEXT   NOT NULL,
    old_hash           TEXT   UNIQUE,
    scopes             TEXT   NOT NULL,
    ip_allow           TEXT   NOT NULL,
    plan               TEXT   NOT NULL,
    credits            BIGINT CHECK (credits >= 0),
    held               BIGINT NOT NULL DEFAULT 0 CHECK (held >= 0),
    rate_limit         BIGINT,
    max_concurrent     BIGINT NOT NULL,
    recording          TEXT   NOT NULL,
    caller_ids         TEXT   NOT NULL,
    all_trunks         BIGINT NOT NULL CHECK (all_trunks IN (0, 1)),
    trunk_cursor       BIGINT NOT NULL DEFAULT 0,
    webhook_secret     TEXT   NOT NULL,
    old_webhook_secret TEXT,
    old_until          BIGINT,
    total_calls        BIGINT NOT NULL DEFAULT 0,
    successful_calls   BIGINT NOT NULL DEFAULT 0,
    created_at         BIGINT NOT NULL,
    last_used          BIGINT,
    expires_at         BIGINT,
    revoked_at         BIGINT
);
INSERT INTO "api_keys" VALUES(1,'key_7c07695da2','default','first key','f66a48b1b14cdc2bcc49bbe2579e3b188fd7fa33f8c7fa6def3afaa3cb23eec6','ak_QGUNm',NULL,'calls,recordings,agents,numbers,campaigns,supervise,analytics,webhooks','','enterprise',9,0,NULL,100,'always','',0,2,'whsec_Unqs9Z+HTKf8S/wv1ry6qX/ZPe8+Ol3G+x64hYpK7hE=',NULL,NULL,2,1,1795277308074,1795277317379,NULL,NULL);
INSERT INTO "api_keys" VALUES(2,'key_69a4bb8980','default','revoked','0227e22938e1d4b56b2ad8d93866cb868b4fa5dd1346ad05bf551e0391de49c5','ak_yeBOM',NULL,'calls,recordings,agents,numbers,campaigns,supervise,analytics,webhooks','','enterprise',NULL,0,NULL,100,'always','',0,0,'whsec_BpeAHcPvIvKnJfJNUxEA2b+MX0f0qQFignhQ/Uz2Xvo=',NULL,NULL,0,0,1795277308473,NULL,NULL,1795277319726);
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
INSERT INTO "calls" VALUES('33addddc584de3cd4b342e1228a1d762','1795277308.1','kaphila',1,'default','+1 415 555 0101','14155550101',NULL,'[{"address":"127.0.0.1:43113","codecs":["PCMU","PCMA"],"dial_prefix":"00","endpoint":"demo-endpoint","host":"127.0.0.1","no_response_timeout_ms":2000,"port":43113}]',30000,3600000,0,1,'en-US-Neural2-A','https://example.com/hook',1795277308745,'ended','completed',1,'[{"code":null,"elapsed_ms":0,"reason":"","trunk":"demo-endpoint"}]',NULL,NULL,NULL,NULL,'call-1795277308.1-1795277309784',0,1795277308771,1795277308788,1795277309784,1795277316332,'api_hangup',16,NULL,6,11);
INSERT INTO "calls" VALUES('07413682006bd7e3ced59bc470d4836b','1795277316.2','kaphila',1,'default','+1 415 555 0300','14155550300',NULL,'[{"address":"127.0.0.1:43113","codecs":["PCMU","PCMA"],"dial_prefix":"00","endpoint":"demo-endpoint","host":"127.0.0.1","no_response_timeout_ms":2000,"port":43113}]',30000,3600000,0,1,'en-US-Neural2-A',NULL,1795277316348,'ended','busy',0,'[{"code":486,"elapsed_ms":2,"reason":"Busy Here","trunk":"demo-endpoint"}]',NULL,NULL,NULL,NULL,NULL,0,1795277316356,NULL,NULL,1795277316358,'busy',17,486,0,4);
CREATE TABLE counters (
    name  TEXT   PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);
INSERT INTO "counters" VALUES('api_keys',2);
INSERT INTO "counters" VALUES('trunks',1);
INSERT INTO "counters" VALUES('calls',2);
INSERT INTO "counters" VALUES('deliveries',9);
CREATE TABLE credit_holds (
    call    TEXT   PRIMARY KEY NOT NULL REFERENCES calls (id),
    api_key BIGINT NOT NULL REFERENCES api_keys (id),
    state   TEXT   NOT NULL CHECK (state IN ('held', 'taken', 'released'))
);
INSERT INTO "credit_holds" VALUES('33addddc584de3cd4b342e1228a1d762',1,'taken');
INSERT INTO "credit_holds" VALUES('07413682006bd7e3ced59bc470d4836b',1,'released');
CREATE TABLE deliveries (
    id          BIGINT PRIMARY KEY NOT NULL,
    event_id    TEXT   NOT NULL UNIQUE,
    call        TEXT   NOT NULL REFERENCES calls (id),
    api_key     BIGINT NOT NULL REFERENCES api_keys (id),
    dialect     TEXT   NOT NULL,
    event       TEXT   NOT NULL,
    terminal    BIGINT NOT NULL CHECK (terminal IN (0, 1)),
    url         TEXT   NOT NULL,
    host        TEXT   NOT NULL,
    body        TEXT   NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed', 'dropped', 'gone')),
    head        BIGINT NOT NULL DEFAULT 0 CHECK (head IN (0, 1)),
    attempts    BIGINT NOT NULL DEFAULT 0,
    next_at     BIGINT NOT NULL,
    last_status BIGINT,
    last_result TEXT   NOT NULL DEFAULT '',
    created_at  BIGINT NOT NULL,
    settled_at  BIGINT
);
INSERT INTO "deliveries" VALUES(1,'evt_TCjLnglJ9qWcwf5WswksuIm7','33addddc584de3cd4b342e1228a1d762',1,'kaphila','call.initiated',0,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:28.771Z","event":"call.initiated","status":"ringing","number":"+1 415 555 0101","sequence":1,"trunk":"demo-endpoint"}','dropped',1,3,1795277316332,NULL,'the call ended first',1795277308771,1795277316349);
INSERT INTO "deliveries" VALUES(2,'evt_OKOmWeMxzS3DeJZNyVYtOg4M','33addddc584de3cd4b342e1228a1d762',1,'kaphila','call.answered',0,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:29.784Z","event":"call.answered","status":"answered","number":"+1 415 555 0101","sequence":2,"amd":{"status":"NOAMD","cause":null,"confidence":null}}','dropped',1,1,1795277309784,NULL,'no connection',1795277309784,1795277316354);
INSERT INTO "deliveries" VALUES(3,'evt_Quv7RkOIqsAZfsykS6VanvPs','33addddc584de3cd4b342e1228a1d762',1,'kaphila','recording.started',0,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:29.787Z","event":"recording.started","status":"answered","number":"+1 415 555 0101","sequence":3,"recording":{"active":true,"filename":"call-1795277308.1-1795277309784.wav","recordingId":"call-1795277308.1-1795277309784","method":"bridge"}}','dropped',1,1,1795277309787,NULL,'no connection',1795277309787,1795277316358);
INSERT INTO "deliveries" VALUES(4,'evt_ltv6vZwh4Y1yMRN5eUkkL4Xk','33addddc584de3cd4b342e1228a1d762',1,'kaphila','gather.started',0,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:31.259Z","event":"gather.started","status":"answered","number":"+1 415 555 0101","sequence":4,"expectedDigits":1,"timeoutMs":10000}','dropped',1,1,1795277311259,NULL,'no connection',1795277311259,1795277316369);
INSERT INTO "deliveries" VALUES(5,'evt_2woKvazO0kJHCclnVQapZYX6','33addddc584de3cd4b342e1228a1d762',1,'kaphila','dtmf.received',0,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:33.316Z","event":"dtmf.received","status":"answered","number":"+1 415 555 0101","sequence":5,"digit":"1"}','dropped',1,1,1795277313316,NULL,'no connection',1795277313316,1795277316373);
INSERT INTO "deliveries" VALUES(6,'evt_1Z0okUMjiBFUWFp6eLB1t9Tx','33addddc584de3cd4b342e1228a1d762',1,'kaphila','gather.progress',0,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:33.316Z","event":"gather.progress","status":"answered","number":"+1 415 555 0101","sequence":6,"digits":"1","digit":"1","remaining":0}','dropped',1,1,1795277313316,NULL,'no connection',1795277313316,1795277316375);
INSERT INTO "deliveries" VALUES(7,'evt_us9U6QUUrqH3KGO4Hw4QPtnN','33addddc584de3cd4b342e1228a1d762',1,'kaphila','gather.complete',0,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:33.316Z","event":"gather.complete","status":"answered","number":"+1 415 555 0101","sequence":7,"digits":"1"}','dropped',1,1,1795277313316,NULL,'no connection',1795277313316,1795277316377);
INSERT INTO "deliveries" VALUES(8,'evt_HP6fupQoiOuXgdmuxpsFKQ6h','33addddc584de3cd4b342e1228a1d762',1,'kaphila','call.ended',1,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:36.332Z","event":"call.ended","status":"completed","number":"+1 415 555 0101","sequence":8,"endReason":"api_hangup","hangupCause":"16","wasAnswered":true,"amd":{"status":"NOAMD","cause":null,"confidence":null},"recording":{"active":false,"filename":"call-1795277308.1-1795277309784.wav","recordingId":"call-1795277308.1-1795277309784","method":"bridge"},"callDuration":6}','waiting',1,1,1795277344719,NULL,'no connection',1795277316332,NULL);
INSERT INTO "deliveries" VALUES(9,'evt_EKcJp2ReUnB1JkbLQGLdSH5U','33addddc584de3cd4b342e1228a1d762',1,'kaphila','recording.completed',1,'https://example.com/hook','example.com','{"callId":"1795277308.1","timestamp":"2026-11-21T16:08:36.365Z","event":"recording.completed","status":"completed","number":"+1 415 555 0101","sequence":9,"recording":{"active":false,"filename":"call-1795277308.1-1795277309784.wav","recordingId":"call-1795277308.1-1795277309784","method":"bridge"},"size":104684,"duration":6}','waiting',0,0,1795277316365,NULL,'',1795277316365,NULL);
CREATE TABLE events (
    call     TEXT   NOT NULL REFERENCES calls (id),
    sequence BIGINT NOT NULL,
    type     TEXT   NOT NULL,
    at       BIGINT NOT NULL,
    data     TEXT   NOT NULL,
    PRIMARY KEY (call, sequence)
);
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',1,'queued',1795277308766,'{}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',2,'dialing',1795277308771,'{"attempt":1,"trunk":"demo-endpoint"}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',3,'ringing',1795277308788,'{}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',4,'answered',1795277309784,'{}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',5,'recording_started',1795277309787,'{"recording":"call-1795277308.1-1795277309784"}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',6,'gather_started',1795277311259,'{"expected":1,"timeout_ms":10000}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',7,'digit',1795277313316,'{"digit":"1","source":"rfc4733"}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',8,'gather_progress',1795277313316,'{"digit":"1","digits":"1","remaining":0}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',9,'gather_complete',1795277313316,'{"digits":"1"}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',10,'ended',1795277316332,'{"q850":16,"reason":"api_hangup","sip_code":null}');
INSERT INTO "events" VALUES('07413682006bd7e3ced59bc470d4836b',1,'queued',1795277316351,'{}');
INSERT INTO "events" VALUES('07413682006bd7e3ced59bc470d4836b',2,'dialing',1795277316356,'{"attempt":1,"trunk":"demo-endpoint"}');
INSERT INTO "events" VALUES('07413682006bd7e3ced59bc470d4836b',3,'attempt_failed',1795277316358,'{"code":486,"elapsed_ms":2,"reason":"Busy Here","trunk":"demo-endpoint"}');
INSERT INTO "events" VALUES('07413682006bd7e3ced59bc470d4836b',4,'ended',1795277316358,'{"q850":17,"reason":"busy","sip_code":486}');
INSERT INTO "events" VALUES('33addddc584de3cd4b342e1228a1d762',11,'recording_completed',1795277316365,'{"bytes":104684,"duration_ms":6540,"reason":null,"recording":"call-1795277308.1-1795277309784"}');
CREATE TABLE idempotency (
    api_key    BIGINT NOT NULL REFERENCES api_keys (id),
    path       TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    digest     TEXT   NOT NULL,
    status     BIGINT NOT NULL,
    body       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (api_key, path, name)
);
INSERT INTO "idempotency" VALUES(1,'/makecall','one','e4edd294e302b9e340f35dadadcee334dd04edb1def6e8dac226fcfe21ce1406',200,'{"success":true,"callId":"1795277308.1","status":"ringing","amdEnabled":false,"voiceName":"en-US-Neural2-A","voiceResolved":"en-us+m1","credits":10,"ringTimeoutSeconds":30,"trunk":"demo-endpoint","trunkAttempts":1,"totalTrunks":1,"timestamp":"2026-11-21T16:08:28.788Z"}',1795277308789);
CREATE TABLE key_trunks (
    api_key  BIGINT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    trunk    BIGINT NOT NULL REFERENCES trunks (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    PRIMARY KEY (api_key, trunk)
);
INSERT INTO "key_trunks" VALUES(1,1,0);
CREATE TABLE migrations (version BIGINT PRIMARY KEY NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL);
INSERT INTO "migrations" VALUES(1,'accounts','9782e0c5ccb1426f273cfc7ba443deed57d0921bcdea843c1a3edb88ba172cff');
INSERT INTO "migrations" VALUES(2,'calls','171104fc6a027b6f1ff09a0370d6c9923f351c321d3433a6da4efe8182568f17');
INSERT INTO "migrations" VALUES(3,'outbox','5e2599030bba8c0b6ce7a4a9e38c88d634a7a2bd111576a7425a74be6745e943');
INSERT INTO "migrations" VALUES(4,'idempotency','1e3b3824277517bf757cc5af9837f44ffb301b30cc186ad51a5ab8a94e191e45');
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
INSERT INTO "recordings" VALUES('call-1795277308.1-1795277309784','call-1795277308.1-1795277309784.wav','33addddc584de3cd4b342e1228a1d762',1,'done',104684,6540,1795277309787);
CREATE TABLE tenants (
    id         TEXT   PRIMARY KEY NOT NULL,
    name       TEXT   NOT NULL,
    subdomain  TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);
INSERT INTO "tenants" VALUES('default','default','default',0);
CREATE TABLE trunks (
    id                     BIGINT PRIMARY KEY NOT NULL,
    name                   TEXT   NOT NULL UNIQUE,
    proxy                  TEXT   NOT NULL,
    username               TEXT   NOT NULL,
    password               TEXT   NOT NULL,
    dial_prefix            TEXT   NOT NULL,
    caller_id              TEXT,
    codecs                 TEXT   NOT NULL,
    no_response_timeout_ms BIGINT NOT NULL,
    enabled                BIGINT NOT NULL CHECK (enabled IN (0, 1))
);
INSERT INTO "trunks" VALUES(1,'demo','sip:127.0.0.1:43113','','','00',NULL,'PCMU,PCMA',2000,1);
CREATE INDEX calls_live ON calls (api_key) WHERE state <> 'ended';
CREATE INDEX calls_newest ON calls (api_key, created_at, id);
CREATE INDEX calls_outcome ON calls (api_key, outcome, created_at, id);
CREATE INDEX recordings_newest ON recordings (api_key, created_at, recording);
CREATE INDEX recordings_of_call ON recordings (call, created_at);
CREATE INDEX recordings_open ON recordings (recording) WHERE state IN ('active', 'finalising');
CREATE INDEX deliveries_due ON deliveries (next_at, id, host) WHERE state = 'waiting' AND head = 1;
CREATE INDEX deliveries_lane ON deliveries (call, url, state, id);
CREATE INDEX idempotency_oldest ON idempotency (created_at);
COMMIT;
