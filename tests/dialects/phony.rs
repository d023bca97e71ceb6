//! Phony (CONTRACT 1.2) from outside: agents, tenants, numbers, calls, what a supervisor does, figures, live events.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Key, bare, send};
use crate::audio::heard_seconds;
use crate::harness::{Server, go, number, until};
use crate::sockets::{Came, Ws};
use crate::uas::{Script, Uas};

/// A server, a tenant's key on a far end of the test's own, and an admin's.
struct World {
    server: Server,
    far: Uas,
    key: Key,
    admin: Key,
}

impl World {
    async fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let server = Server::start(name, settings).await;
        let far = Uas::answering().await;
        server.trunk("far", far.addr, &[]);
        let key = server.key(&["--trunks", "far", "--tenant", "acme"]);
        let admin = server.key(&["--admin"]);
        Self { server, far, key, admin }
    }

    async fn agent(&self, more: Value) -> String {
        let mut body = json!({"name": "Sales", "type": "outbound", "system_prompt": "You sell."});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let made = self.key.post("/api/agents", &body).await.expect(201);
        made["id"].as_str().expect("an id").to_owned()
    }

    async fn call(&self, agent: &str, to: &str, context: Value) -> String {
        let body = json!({"to_number": format!("+{to}"), "context": context});
        let placed = self.key.post(&format!("/api/agents/{agent}/call"), &body).await.expect(200);
        assert_eq!(placed["status"], "queued");
        assert_eq!(placed["message"], "Call initiated successfully");
        placed["call_sid"].as_str().expect("a call_sid").to_owned()
    }

    /// Waits until a call is answered; its row of the list.
    async fn active(&self, sid: &str) -> Value {
        until(15.0, "the call is active", async || {
            let list = self.key.get("/api/calls/active").await.expect(200);
            let row = list.as_array()?.iter().find(|row| row["call_sid"] == sid)?.clone();
            (row["status"] == "active").then_some(row)
        })
        .await
    }

    /// Waits until a call is over; its row of the history.
    async fn past(&self, sid: &str) -> Value {
        until(15.0, "the call is over", async || {
            let page = self.key.get("/api/calls/history").await.expect(200);
            page["calls"].as_array()?.iter().find(|row| row["call_sid"] == sid).cloned()
        })
        .await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        send(self.key.request(Method::PUT, path).body(body.to_string())).await
    }

    async fn listen(&self, query: &str) -> Ws {
        let path = format!("/events/ws?api_key={}{query}", self.key.key);
        Ws::open(self.server.http, &path, &[]).await.expect("it may listen")
    }
}

/// Checks the envelope.
fn refused(answer: &Answer, status: u16) -> String {
    let body = answer.expect(status);
    assert_eq!(body["code"], status, "{body}");
    assert!(body["error"].is_string(), "{body}");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    body["message"].as_str().expect("words").to_owned()
}

#[test]
fn t085_to_t092_agents_and_the_envelope() {
    go(async {
        let world = World::start("phony-agents", &[]).await;
        let (key, http) = (&world.key, world.server.http);
        let health = send(bare(http, Method::GET, "/healthz")).await.expect(200);
        assert_eq!((&health["status"], &health["activeCalls"]), (&json!("ok"), &json!(0)));
        assert!(health["uptime"].is_u64());

        let nobody = send(bare(http, Method::GET, "/api/agents")).await;
        assert_eq!(refused(&nobody, 401), "Invalid or missing API key");
        assert_eq!(nobody.header("www-authenticate"), "Bearer");
        assert_eq!(key.get("/api/agents").await.expect(200), json!([]));
        assert_eq!(refused(&key.get("/api/agents/agent_999").await, 404), "Agent not found");
        assert_eq!(send(key.request(Method::PATCH, "/api/agents")).await.status, 405);
        refused(&send(key.request(Method::PATCH, "/api/agents")).await, 405);
        refused(&key.get("/tenants/x/y").await, 404);

        let sample = json!({
            "name": "Sales Agent", "type": "outbound", "system_prompt": "You are a sales representative...",
            "voice": "nova", "context_data": {"department": "sales", "region": "west"},
        });
        let made = key.post("/api/agents", &sample).await.expect(201);
        let id = made["id"].as_str().expect("an id").to_owned();
        assert!(id.starts_with("agent_") && made["status"] == "active", "{made}");
        let listed = key.get("/api/agents").await.expect(200);
        assert_eq!((&listed[0]["total_calls"], &listed[0]["phone_number"]), (&json!(0), &Value::Null));
        assert_eq!(key.get("/agents").await.expect(200), listed);
        assert_eq!(key.get("/phony/agents").await.expect(200), listed);

        for (body, field) in [
            (json!({"type": "outbound", "system_prompt": "x"}), "name"),
            (json!({"name": "a", "type": "both", "system_prompt": "x"}), "type"),
            (json!({"name": "a", "type": "inbound"}), "system_prompt"),
            (
                json!({"name": "a", "type": "inbound", "system_prompt": "x", "relay_url": "http://x.example/"}),
                "relay_url",
            ),
            (json!({"name": 7, "type": "inbound", "system_prompt": "x"}), "name"),
        ] {
            let told = refused(&key.post("/api/agents", &body).await, 400);
            assert!(told.contains(field), "{told}");
        }

        assert_eq!(key.get("/api/agents?status=inactive").await.expect(200), json!([]));
        assert_eq!(key.get("/api/agents?type=inbound").await.expect(200), json!([]));
        assert_eq!(key.get("/api/agents?type=outbound").await.expect(200), listed);
        refused(&key.get("/api/agents?status=foo").await, 400);
        refused(&key.get("/api/agents?tenant_id=other").await, 403);
        assert_eq!(world.admin.get("/api/agents?tenant_id=acme").await.expect(200), listed);

        let path = format!("/api/agents/{id}");
        let changed = world.put(&path, &json!({"name": "New", "context_data": {"a": 1}})).await.expect(200);
        assert_eq!(changed["system_prompt"], "You are a sales representative...");
        assert_eq!((&changed["name"], &changed["context_data"]), (&json!("New"), &json!({"a": 1})));

        let deleted = send(key.request(Method::DELETE, &path)).await.expect(200);
        assert_eq!(deleted, json!({"message": "Agent deleted successfully"}));
        refused(&send(key.request(Method::DELETE, &path)).await, 404);
    });
}

#[test]
fn t093_to_t098_tenants_and_numbers() {
    go(async {
        let world = World::start("phony-tenants", &[]).await;
        let (key, admin) = (&world.key, &world.admin);
        let sample = json!({
            "name": "Acme Corporation", "subdomain": "acme-corp", "max_agents": 50, "max_concurrent_calls": 200,
            "billing_email": "billing@acme.com",
        });
        refused(&key.post("/tenants", &sample).await, 403);
        let made = admin.post("/tenants", &sample).await.expect(201);
        assert_eq!(made["status"], "trial");
        assert_eq!(made["limits"], json!({"max_agents": 50, "max_concurrent_calls": 200}));
        refused(&admin.post("/tenants", &sample).await, 409);
        refused(&key.get("/tenants").await, 403);
        assert!(admin.get("/tenants").await.expect(200).as_array().expect("a list").len() >= 2);
        let path = format!("/tenants/{}", made["id"].as_str().expect("an id"));
        let patch =
            send(admin.request(Method::PATCH, &path).body(r#"{"max_agents":100,"status":"active"}"#)).await;
        assert_eq!(patch.expect(200)["limits"]["max_agents"], 100);
        let shown = admin.get(&path).await.expect(200);
        assert_eq!((&shown["status"], &shown["limits"]["max_agents"]), (&json!("active"), &json!(100)));
        refused(&key.get(&path).await, 404);
        assert_eq!(key.get("/tenants/acme").await.expect(200)["name"], "acme");
        assert_eq!(admin.get(&format!("/api{path}")).await.expect(200), shown);

        let first = world.agent(json!({})).await;
        let one = send(admin.request(Method::PATCH, "/tenants/acme").body(r#"{"max_agents":1}"#)).await;
        one.expect(200);
        let body = json!({"name": "b", "type": "inbound", "system_prompt": "x"});
        refused(&key.post("/api/agents", &body).await, 403);
        send(admin.request(Method::PATCH, "/tenants/acme").body(r#"{"max_agents":5}"#)).await.expect(200);
        let second = world.agent(json!({"type": "inbound"})).await;

        world.server.cli(&["numbers", "add", "+15551234567", "--tenant", "acme"]);
        let free = key.get("/api/phone-numbers/available").await.expect(200);
        assert_eq!(free[0]["phone_number"], "+15551234567");
        assert_eq!((&free[0]["capabilities"], &free[0]["status"]), (&json!(["voice"]), &json!("available")));
        let assign = "/api/phone-numbers/+15551234567/assign";
        let done = key.post(assign, &json!({"agent_id": first})).await.expect(200);
        let told = json!({
            "message": "Phone number assigned successfully", "agent_id": first, "phone_number": "+15551234567",
        });
        assert_eq!(done, told);
        assert_eq!(key.get("/api/phone-numbers/available").await.expect(200), json!([]));
        let encoded = "/phone-numbers/%2B15551234567/assign";
        assert_eq!(key.post(encoded, &json!({"agent_id": first})).await.expect(200), told);
        let shown = key.get(&format!("/api/agents/{first}")).await.expect(200);
        assert_eq!(shown["phone_number"], "+15551234567");
        refused(&key.post(assign, &json!({"agent_id": second})).await, 409);
        refused(&key.post(assign, &json!({"agent_id": "agent_999"})).await, 404);
        refused(&key.post("/api/phone-numbers/+15550000000/assign", &json!({"agent_id": first})).await, 404);
        let release = "/api/phone-numbers/+15551234567/release";
        let released = key.post(release, &json!({})).await.expect(200);
        assert_eq!(released, json!({"message": "Phone number released successfully"}));
        refused(&key.post(release, &json!({})).await, 409);
        // Numbers of others are nobody's.
        refused(&admin.post(assign, &json!({"agent_id": first})).await, 404);
    });
}

#[test]
fn t100_what_cannot_be_called() {
    go(async {
        let world = World::start("phony-refused", &[]).await;
        let key = &world.key;
        let agent = world.agent(json!({"first_message": "Hello."})).await;
        let answers = world.agent(json!({"type": "inbound"})).await;
        let path = format!("/api/agents/{agent}/call");
        let order = json!({"to_number": "+15559876543"});
        assert!(
            refused(&key.post(&format!("/api/agents/{answers}/call"), &order).await, 400).contains("inbound")
        );
        refused(&key.post("/api/agents/agent_999/call", &order).await, 404);
        for bad in ["5559876543", "+12", "+0155598765", "+1555\u{661}876543", ""] {
            refused(&key.post(&path, &json!({"to_number": bad})).await, 400);
        }
        world.put(&format!("/api/agents/{agent}"), &json!({"status": "inactive"})).await.expect(200);
        refused(&key.post(&path, &order).await, 409);
        world.put(&format!("/api/agents/{agent}"), &json!({"status": "active"})).await.expect(200);
    });
}

#[test]
fn t099_t101_t102_t106_t111_a_call_and_what_is_told_of_it() {
    go(async {
        let world = World::start("phony-calls", &[]).await;
        let key = &world.key;
        let about = json!({"first_message": "Hello.", "context_data": {"from": "agent", "x": 1}});
        let agent = world.agent(about).await;
        let mut events = world.listen("").await;
        let mut others = {
            let other = world.server.key(&["--tenant", "other"]);
            let header = format!("Bearer {}", other.key);
            Ws::open(world.server.http, "/events/ws", &[("authorization", &header)])
                .await
                .expect("it may listen")
        };
        let sid = world.call(&agent, "15559876543", json!({"customer_id": "CUST_789", "x": 2})).await;
        let digits = sid.strip_prefix("CA").expect("its form");
        assert!(digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{sid}");
        assert_eq!(world.far.wait("INVITE").await.dialled(), "0015559876543");
        let started = events.wait("call.started").await;
        assert_eq!((&started["call_sid"], &started["agent_id"]), (&json!(sid), &json!(agent)));
        assert_eq!(
            (&started["direction"], &started["to_number"]),
            (&json!("outbound"), &json!("+15559876543"))
        );
        let mut filtered = world.listen(&format!("&call_sid={sid}")).await;

        let row = world.active(&sid).await;
        assert_eq!(row["direction"], "outbound");
        assert_eq!(row["context"], json!({"from": "agent", "customer_id": "CUST_789", "x": 2}));
        assert!(row["id"].as_str().expect("an id").starts_with("session_"));
        let grown = until(5.0, "the duration grows", async || {
            let row = world.active(&sid).await;
            row["duration_seconds"].as_i64().filter(|seconds| *seconds >= 1)
        });
        grown.await;
        let told = events.wait("transcript.final").await;
        assert_eq!((&told["text"], &told["role"]), (&json!("Hello."), &json!("agent")));

        let context = format!("/api/calls/{sid}/context");
        let merged = world.put(&context, &json!({"context": {"notes": "x", "from": null}})).await.expect(200);
        assert_eq!(merged, json!({"message": "Context updated successfully", "call_sid": sid}));
        let whole = json!({"customer_id": "CUST_789", "x": 2, "notes": "x"});
        assert_eq!(events.wait("context.updated").await["context"], whole);
        assert_eq!(world.active(&sid).await["context"], whole);
        refused(&world.put(&context, &json!({"context": 7})).await, 400);
        refused(&send(key.request(Method::DELETE, &format!("/api/agents/{agent}"))).await, 409);

        // Somebody else's call is nobody's.
        let stranger = world.server.key(&["--tenant", "third"]);
        refused(&stranger.post("/api/override/end", &json!({"call_sid": sid})).await, 404);
        let ended = key.post("/api/override/end", &json!({"call_sid": sid})).await.expect(200);
        assert_eq!(ended, json!({"message": "Call ended", "call_sid": sid}));
        world.far.wait("BYE").await;
        let told = events.wait("call.ended").await;
        assert!(told["duration"].is_u64() && told["status"] == "completed", "{told}");
        assert_eq!(filtered.wait("call.ended").await["call_sid"], sid);
        refused(&key.post("/api/override/end", &json!({"call_sid": sid})).await, 404);
        refused(&world.put(&context, &json!({"context": {}})).await, 404);
        // Another tenant heard nothing of all this.
        let quiet = tokio::time::timeout(Duration::from_millis(300), others.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    });
}

#[test]
fn t107_to_t109_history_and_figures() {
    go(async {
        let world = World::start("phony-history", &[]).await;
        let key = &world.key;
        let agent = world.agent(json!({"first_message": "Hello."})).await;
        let answers = world.agent(json!({"type": "inbound"})).await;
        let sid = world.call(&agent, "15559876543", json!({})).await;
        world.active(&sid).await;
        key.post("/api/override/end", &json!({"call_sid": sid})).await.expect(200);
        let row = world.past(&sid).await;
        assert_eq!((&row["status"], &row["cost"]), (&json!("completed"), &json!(0.013)));
        let page = key.get("/api/calls/history").await.expect(200);
        assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(1), &json!(100), &json!(0)));
        for query in ["limit=0", "limit=abc", "limit=1001", "start_date=tomorrow"] {
            refused(&key.get(&format!("/api/calls/history?{query}")).await, 400);
        }
        let of = async |query: &str| {
            key.get(&format!("/api/calls/history?{query}")).await.expect(200)["total"].clone()
        };
        assert_eq!(of("start_date=2026-01-02&end_date=2026-01-01").await, 0);
        assert_eq!(of(&format!("agent_id={agent}")).await, 1);
        assert_eq!(of(&format!("agent_id={answers}")).await, 0);
        let today = row["started_at"].as_str().expect("a time")[..10].to_owned();
        assert_eq!(of(&format!("start_date={today}&end_date={today}")).await, 1);

        // A call that nobody takes counts, and takes no part in the average.
        let busy = Uas::start(Script::Final("486 Busy Here", "")).await;
        world.server.trunk("busy", busy.addr, &[]);
        let other = world.server.key(&["--trunks", "busy", "--tenant", "acme"]);
        let to = json!({"to_number": "+15559876544"});
        let placed = other.post(&format!("/api/agents/{agent}/call"), &to).await.expect(200);
        let unheard = world.past(placed["call_sid"].as_str().expect("a call_sid")).await;
        let outcome = (&unheard["status"], &unheard["cost"], &unheard["duration_seconds"]);
        assert_eq!(outcome, (&json!("busy"), &json!(0.0), &json!(0)));
        let both = key.get("/api/analytics/summary?period=week").await.expect(200);
        assert_eq!((&both["total_calls"], &both["success_rate"]), (&json!(2), &json!(0.5)));
        assert_eq!(both["average_call_duration"], row["duration_seconds"]);
        let second = key.get("/api/calls/history?limit=1&offset=1").await.expect(200);
        assert_eq!((&second["calls"][0]["call_sid"], &second["total"]), (&json!(sid), &json!(2)));

        let of_one = format!("/api/analytics/agents/{agent}?period=day");
        let distribution = key.get(&of_one).await.expect(200)["hourly_distribution"].clone();
        let counted = distribution.as_object().expect("hours").values().filter_map(Value::as_i64);
        assert_eq!(counted.sum::<i64>(), 2, "{distribution}");
        let figures = key.get("/api/analytics/summary?period=day").await.expect(200);
        assert_eq!((&figures["total_agents"], &figures["total_calls"]), (&json!(2), &json!(2)));
        assert_eq!(
            (&figures["success_rate"], &figures["top_agents"][0]["agent_id"]),
            (&json!(0.5), &json!(agent))
        );
        assert!(figures["busiest_hour"].is_u64(), "{figures}");
        let one = key.get(&format!("/api/analytics/agents/{agent}")).await.expect(200);
        assert_eq!((&one["total_calls"], &one["daily_trend"][0]["date"]), (&json!(2), &json!(today)));
        refused(&key.get("/api/analytics/summary?period=decade").await, 400);
        refused(&key.get("/api/analytics/agents/agent_999").await, 404);
    });
}

#[test]
fn t103_t104_a_supervisor_speaks_and_presses_keys() {
    go(async {
        let world = World::start("phony-override", &[]).await;
        let ringing = Uas::start(Script::Ring).await;
        let agent = world.agent(json!({"first_message": "Hi."})).await;
        let sid = world.call(&agent, &number("0001"), json!({})).await;
        world.active(&sid).await;
        let sound = world.far.sound().await;
        let before = tokio::time::Instant::now();
        let text = json!({"call_sid": sid, "text": "Let me transfer you to our specialist."});
        let said = world.key.post("/api/override/text", &text).await.expect(200);
        assert_eq!(said, json!({"message": "Text sent successfully", "call_sid": sid}));
        until(10.0, "the words are heard", async || {
            (heard_seconds(&sound.samples_since(before)) > 1.0).then_some(())
        })
        .await;
        let keys = json!({"call_sid": sid, "digit": "1"});
        world.key.post("/api/override/dtmf", &keys).await.expect(200);
        until(5.0, "the key is pressed once", async || {
            let events: Vec<_> =
                sound.heard().into_iter().filter(|packet| packet.payload.len() == 4).collect();
            let ends = events.iter().filter(|packet| packet.payload[0] == 1 && packet.payload[1] & 0x80 != 0);
            (ends.count() >= 3).then_some(())
        })
        .await;
        for body in [json!({"call_sid": sid, "digit": "x"}), json!({"digit": "1"}), json!({"call_sid": sid})]
        {
            refused(&world.key.post("/api/override/dtmf", &body).await, 400);
        }
        refused(&world.key.post("/api/override/text", &json!({"call_sid": "CA1", "text": "x"})).await, 404);

        // A call that only rings takes no words.
        world.server.trunk("ring", ringing.addr, &[]);
        let waits = world.server.key(&["--trunks", "ring", "--tenant", "acme"]);
        let order = json!({"to_number": format!("+{}", number("0002"))});
        let placed = waits.post(&format!("/api/agents/{agent}/call"), &order).await.expect(200);
        ringing.wait("INVITE").await;
        let early = json!({"call_sid": placed["call_sid"], "text": "x"});
        refused(&world.key.post("/api/override/text", &early).await, 409);
        world.key.post("/api/override/end", &early).await.expect(200);
    });
}

#[test]
fn t105_a_call_is_put_through() {
    go(async {
        let world = World::start("phony-transfer", &[]).await;
        let agent = world.agent(json!({"first_message": "One moment please."})).await;
        let mut events = world.listen("").await;
        let sid = world.call(&agent, &number("0003"), json!({})).await;
        world.active(&sid).await;
        let target = format!("+{}", number("0004"));
        let body = json!({"call_sid": sid, "target": target});
        let told = world.key.post("/api/override/transfer", &body).await.expect(200);
        assert_eq!(told, json!({"message": "Transfer initiated", "call_sid": sid, "target": target}));
        refused(&world.key.post("/api/override/transfer", &body).await, 409);
        until(10.0, "the target is dialled", async || (world.far.count("INVITE") == 2).then_some(())).await;
        until(10.0, "both are there", async || (world.far.sounds().len() == 2).then_some(())).await;
        let sounds = world.far.sounds();
        for (from, to) in [(0, 1), (1, 0)] {
            let before = tokio::time::Instant::now();
            until(10.0, "one hears the other", async || {
                sounds[from].say(&crate::audio::tone(440.0, 0.2, 8000.0));
                (heard_seconds(&sounds[to].samples_since(before)) > 0.5).then_some(())
            })
            .await;
        }
        world.far.bye().await;
        until(10.0, "the other is hung up", async || (world.far.count("BYE") >= 1).then_some(())).await;
        let ended = events.wait("call.ended").await;
        assert_eq!(ended["end_reason"], "normal_hangup");
        assert_eq!(world.past(&sid).await["status"], "completed");
        let page = world.key.get("/api/calls/history").await.expect(200);
        assert_eq!(page["total"], 1, "the call keeps one record: {page}");
    });
}

#[test]
fn t105_a_transfer_that_fails_leaves_the_agent() {
    go(async {
        let world = World::start("phony-transfer-fails", &[]).await;
        let busy = Uas::start(Script::Final("486 Busy Here", "")).await;
        world.server.trunk("busy", busy.addr, &[]);
        let other = world.server.key(&["--trunks", "busy", "--tenant", "acme"]);
        let agent = world.agent(json!({"first_message": "Hi."})).await;
        let mut events = world.listen("").await;
        let sid = world.call(&agent, &number("0005"), json!({})).await;
        world.active(&sid).await;
        let body = json!({"call_sid": sid, "target": format!("+{}", number("0006"))});
        for _ in 0..2 {
            other.post("/api/override/transfer", &body).await.expect(200);
            let error = events.wait("error").await;
            assert_eq!((&error["code"], &error["call_sid"]), (&json!("transfer_failed"), &json!(sid)));
        }
        world.active(&sid).await;
        world.key.post("/api/override/end", &json!({"call_sid": sid})).await.expect(200);
        assert_eq!(events.wait("call.ended").await["status"], "completed");
    });
}

#[test]
fn t110_t112_who_may_listen() {
    go(async {
        let world = World::start("phony-listen", &[]).await;
        let (http, key) = (world.server.http, &world.key.key);
        let open = async |path: &str, headers: &[(&str, &str)]| Ws::open(http, path, headers).await;
        assert_eq!(open("/events/ws", &[]).await.err(), Some(401));
        assert_eq!(open("/events/ws?api_key=nope", &[]).await.err(), Some(401));
        let unknown = format!("/events/ws?api_key={key}&call_sid=CA{}", "0".repeat(32));
        assert_eq!(open(&unknown, &[]).await.err(), Some(404));
        // Not on REST.
        refused(&send(bare(http, Method::GET, &format!("/api/agents?api_key={key}"))).await, 401);
        let protocol = format!("bearer, {key}");
        let bearer = format!("Bearer {key}");
        let query = format!("/api/events/ws?token={key}");
        let mut sockets = vec![
            open("/events/ws", &[("authorization", &bearer)]).await.expect("Bearer"),
            open("/events/ws", &[("sec-websocket-protocol", &protocol)]).await.expect("a subprotocol"),
            open(&query, &[]).await.expect("the query"),
        ];
        let path = format!("/phony/events/ws?api_key={key}");
        while sockets.len() < 10 {
            sockets.push(open(&path, &[]).await.expect("ten may listen"));
        }
        assert_eq!(open(&path, &[]).await.err(), Some(429));
        sockets.pop().expect("ten").close().await;
        let again = until(5.0, "a place is free", async || open(&path, &[]).await.ok()).await;
        drop(again);
        // A frame that is too large ends it, and so does the end of the key.
        let mut loud = sockets.pop().expect("nine");
        loud.send_text(&"x".repeat(5000)).await;
        assert_eq!(loud.closed().await, 1009);
        world.server.cli(&["keys", "revoke", &world.key.key_id]);
        assert_eq!(sockets.remove(0).next().await, Came::Closed(1008));
    });
}

#[test]
fn t118_the_fifty_first_request_of_a_minute_waits() {
    go(async {
        let settings = [("RATELIMIT__PHONY_PER_MINUTE", "50"), ("RATELIMIT__PHONY_PER_HOUR", "1000")];
        let world = World::start("phony-rate", &settings).await;
        for nth in 1..=50 {
            let answer = world.key.get("/api/agents").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-ratelimit-limit"), "1000");
            assert_eq!(answer.header("x-ratelimit-remaining"), (1000 - nth).to_string());
        }
        let over = world.key.get("/api/agents").await;
        assert_eq!(refused(&over, 429), "Rate limit exceeded");
        let wait: u64 = over.header("retry-after").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        // Others have their own.
        world.admin.get("/api/agents").await.expect(200);
    });
}
