//! ConversationRelay (CONTRACT 1.2 `/relay/ws`) from outside: an application that talks on our call, a platform that
//! talks to our agent, and an application that we go to.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::api::Key;
use crate::audio::{heard_seconds, tone};
use crate::harness::{Server, go, number, until};
use crate::sockets::{Came, Ws};
use crate::uas::Uas;

/// A server, a far end that answers, and a key of the tenant `acme`.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) far: Uas,
    pub(crate) key: Key,
}

impl World {
    pub(crate) async fn start(name: &str) -> Self {
        Self::with(name, &[]).await
    }

    pub(crate) async fn with(name: &str, settings: &[(&str, &str)]) -> Self {
        let server = Server::start(name, settings).await;
        let far = Uas::answering().await;
        server.trunk("far", far.addr, &[]);
        let key = server.key(&["--trunks", "far", "--tenant", "acme"]);
        Self { server, far, key }
    }

    pub(crate) async fn agent(&self, more: Value) -> String {
        let mut body = json!({"name": "Sales", "type": "outbound", "system_prompt": "You sell.", "first_message": "Hi."});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let made = self.key.post("/api/agents", &body).await.expect(201);
        made["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn call(&self, agent: &str) -> String {
        let order =
            json!({"to_number": format!("+{}", number("0001")), "context": {"ticket": "8841", "n": 7}});
        let placed = self.key.post(&format!("/api/agents/{agent}/call"), &order).await.expect(200);
        placed["call_sid"].as_str().expect("a call_sid").to_owned()
    }

    pub(crate) async fn attend(&self, sid: &str) -> Result<Ws, u16> {
        self.attend_with(sid, "").await
    }

    /// Attends with more in the query.
    pub(crate) async fn attend_with(&self, sid: &str, more: &str) -> Result<Ws, u16> {
        let path = format!("/relay/ws?call_sid={sid}{more}");
        Ws::open(self.server.http, &path, &[("authorization", &self.bearer())]).await
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.key.key)
    }

    /// What happens on the tenant's calls from here on.
    pub(crate) async fn events(&self) -> Ws {
        let path = format!("/events/ws?api_key={}", self.key.key);
        Ws::open(self.server.http, &path, &[]).await.expect("it may listen")
    }

    /// A call that an application attends, told of it by `setup`.
    pub(crate) async fn attended(&self, more: &str) -> (String, Ws) {
        let sid = self.call(&self.agent(json!({})).await).await;
        let mut app = self.attend_with(&sid, more).await.expect("it may attend");
        assert_eq!(app.json().await["type"], "setup");
        (sid, app)
    }

    pub(crate) async fn past(&self, sid: &str) -> Value {
        until(15.0, "the call is over", async || {
            let page = self.key.get("/api/calls/history").await.expect(200);
            page["calls"].as_array()?.iter().find(|row| row["call_sid"] == sid).cloned()
        })
        .await
    }
}

#[test]
fn t113_t114_t116_an_application_talks_on_our_call() {
    go(async {
        let world = World::start("relay-attend").await;
        let sid = world.call(&world.agent(json!({})).await).await;
        let mut app = world.attend(&sid).await.expect("it may attend");
        assert_eq!(world.attend(&sid).await.err(), Some(409));
        let setup = app.json().await;
        assert_eq!((&setup["type"], &setup["callSid"]), (&json!("setup"), &json!(sid)));
        assert_eq!((&setup["direction"], &setup["callType"]), (&json!("outbound"), &json!("PSTN")));
        assert_eq!(setup["customParameters"], json!({"ticket": "8841", "n": "7"}));
        assert!(setup["sessionId"].as_str().expect("an id").starts_with("VX"));
        let events = format!("/events/ws?api_key={}", world.key.key);
        let mut events = Ws::open(world.server.http, &events, &[]).await.expect("it may listen");

        let sound = world.far.sound().await;
        let before = Instant::now();
        app.send(&json!({"type": "text", "token": "Hello there. ", "last": false})).await;
        app.send(&json!({"type": "text", "token": "How are you today?", "last": true})).await;
        assert_eq!(events.wait("transcript.partial").await["text"], "Hello there.");
        let said = events.wait("transcript.final").await;
        assert_eq!(
            (&said["text"], &said["role"]),
            (&json!("Hello there. How are you today?"), &json!("agent"))
        );
        assert!(heard_seconds(&sound.samples_since(before)) > 1.0);

        sound.press('5', 3);
        assert_eq!(app.wait("dtmf").await, json!({"type": "dtmf", "digit": "5"}));

        app.send(&json!({"type": "sendDigits", "digits": "12#"})).await;
        until(5.0, "three keys are pressed", async || {
            let packets = sound.heard();
            let mut keys: Vec<u8> =
                packets.iter().filter(|p| p.payload.len() == 4).map(|p| p.payload[0]).collect();
            keys.dedup();
            (keys == [1, 2, 11]).then_some(())
        })
        .await;
        app.send(&json!({"type": "dance"})).await;
        let error = app.wait("error").await;
        assert!(
            error["description"].as_str().expect("words").starts_with("Invalid message received: "),
            "{error}"
        );
        for source in ["file:///etc/passwd", "http://10.0.0.1/x.wav"] {
            app.send(&json!({"type": "play", "source": source})).await;
            let error = app.wait("error").await;
            assert!(error["description"].as_str().expect("words").contains("not permitted"), "{error}");
        }
        app.send(&json!({"type": "text", "token": "Goodbye.", "last": true})).await;
        app.send(&json!({"type": "end", "handoffData": "{\"reason\":\"done\"}"})).await;
        assert_eq!(app.closed().await, 1000);
        world.far.wait("BYE").await;
        let ended = events.wait("call.ended").await;
        assert_eq!(ended["handoff_data"], "{\"reason\":\"done\"}");
        assert_eq!(world.past(&sid).await["handoff_data"], "{\"reason\":\"done\"}");
    });
}

#[test]
fn t115_who_speaks_interrupts() {
    go(async {
        let world = World::start("relay-interrupt").await;
        let sid = world.call(&world.agent(json!({})).await).await;
        let mut app = world.attend(&sid).await.expect("it may attend");
        app.wait("setup").await;
        let sound = world.far.sound().await;
        let text = "Your appointment is on Tuesday at nine in the morning, and please do not forget to bring along all \
                    the papers that we have sent to you last week.";
        let before = Instant::now();
        app.send(&json!({"type": "text", "token": text, "last": true})).await;
        until(10.0, "it is heard", async || {
            (heard_seconds(&sound.samples_since(before)) > 1.0).then_some(())
        })
        .await;
        sound.say(&tone(300.0, 1.5, 9000.0));
        let interrupt = app.wait("interrupt").await;
        let heard = interrupt["utteranceUntilInterrupt"].as_str().expect("text");
        assert!(text.starts_with(heard) && !heard.is_empty() && heard.len() < text.len(), "{heard}");
        assert!(interrupt["durationUntilInterruptMs"].as_u64().is_some_and(|ms| ms > 500), "{interrupt}");
        app.close().await;
        // Whoever leaves leaves nobody alone: the caller hears so, and is hung up.
        world.far.wait("BYE").await;
    });
}

#[test]
fn x31_ten_invalid_messages_end_a_session() {
    go(async {
        let world = World::start("relay-malformed").await;
        let sid = world.call(&world.agent(json!({})).await).await;
        let mut app = world.attend(&sid).await.expect("it may attend");
        app.wait("setup").await;
        for _ in 0..10 {
            app.send_text("nonsense").await;
        }
        for _ in 0..10 {
            assert_eq!(app.wait("error").await["type"], "error");
        }
        assert_eq!(app.next().await, Came::Closed(1008));
        world.far.wait("BYE").await;
    });
}

#[test]
fn t110_a_key_that_is_revoked_ends_its_session_and_not_the_call() {
    go(async {
        let world = World::start("relay-revoked").await;
        let other = world.server.key(&["--tenant", "acme"]);
        let sid = world.call(&world.agent(json!({})).await).await;
        let mut app = world.attend(&sid).await.expect("it may attend");
        app.wait("setup").await;
        world.server.cli(&["keys", "revoke", &world.key.key_id]);
        assert_eq!(app.closed().await, 1008);
        let list = other.get("/api/calls/active").await.expect(200);
        assert_eq!((&list[0]["call_sid"], &list[0]["status"]), (&json!(sid), &json!("active")));
        other.post("/api/override/end", &json!({"call_sid": sid})).await.expect(200);
    });
}

#[test]
fn t117_a_platform_talks_to_our_agent() {
    go(async {
        let world = World::start("relay-serve").await;
        let agent = world.agent(json!({"type": "inbound"})).await;
        let path = format!("/relay/ws?api_key={}", world.key.key);
        assert_eq!(Ws::open(world.server.http, "/relay/ws", &[]).await.err(), Some(401));
        let mut platform = Ws::open(world.server.http, &path, &[]).await.expect("it may talk");
        let sid = format!("CA{}", "9f22".repeat(8));
        platform
            .send(&json!({
                "type": "setup", "sessionId": "VX1", "accountSid": "AC1", "callSid": sid, "parentCallSid": "",
                "from": "+441632960101", "to": "+441632960202", "forwardedFrom": "", "callType": "PSTN",
                "callerName": "", "direction": "inbound", "callStatus": "RINGING",
                "customParameters": {"agent_id": agent, "ticket": "1"},
            }))
            .await;
        let greeting = platform.wait("text").await;
        assert_eq!((&greeting["token"], &greeting["last"]), (&json!("Hi."), &json!(true)));
        let list = world.key.get("/api/calls/active").await.expect(200);
        assert_eq!((&list[0]["call_sid"], &list[0]["agent_id"]), (&json!(sid), &json!(agent)));
        assert_eq!((&list[0]["direction"], &list[0]["status"]), (&json!("inbound"), &json!("active")));
        let events = format!("/events/ws?api_key={}&call_sid={sid}", world.key.key);
        let mut events = Ws::open(world.server.http, &events, &[]).await.expect("it may listen");
        platform
            .send(&json!({"type": "prompt", "voicePrompt": "I want", "lang": "en-GB", "last": false}))
            .await;
        platform
            .send(&json!({"type": "prompt", "voicePrompt": "I want to move.", "lang": "en-GB", "last": true}))
            .await;
        let answer = platform.wait("text").await;
        assert!(answer["last"] == true && !answer["token"].as_str().expect("text").is_empty(), "{answer}");
        let mut partial = events.wait("transcript.partial").await;
        while partial["role"] == "agent" {
            partial = events.wait("transcript.partial").await;
        }
        assert_eq!((&partial["text"], &partial["role"]), (&json!("I want"), &json!("caller")));
        // The greeting may be told late: what happens is told once it is on disk.
        let mut whole = events.wait("transcript.final").await;
        while whole["role"] == "agent" {
            whole = events.wait("transcript.final").await;
        }
        assert_eq!((&whole["text"], &whole["role"]), (&json!("I want to move."), &json!("caller")));
        platform.close().await;
        assert_eq!(events.wait("call.ended").await["status"], "completed");
        assert_eq!(world.past(&sid).await["agent_id"], agent);

        // Whoever says something else first is sent away.
        let mut rude = Ws::open(world.server.http, &path, &[]).await.expect("it may talk");
        rude.send(&json!({"type": "prompt", "voicePrompt": "hi"})).await;
        assert_eq!(rude.closed().await, 1008);
    });
}

#[test]
fn t113_we_go_to_an_application() {
    go(async {
        let world = World::start("relay-open").await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("ws://{}/talk?x=1", listener.local_addr().expect("it is bound"));
        let agent = world.agent(json!({"relay_url": url})).await;
        let sid = world.call(&agent).await;
        let (mut app, path) = Ws::accept(&listener).await;
        assert_eq!(path, "/talk?x=1");
        assert_eq!(app.wait("setup").await["callSid"], sid);
        let sound = world.far.sound().await;
        let before = Instant::now();
        app.send(&json!({"type": "text", "token": "Good morning, this is the clinic.", "last": true})).await;
        until(10.0, "it is heard", async || {
            (heard_seconds(&sound.samples_since(before)) > 1.0).then_some(())
        })
        .await;
        app.send(&json!({"type": "end"})).await;
        world.far.wait("BYE").await;
        assert_eq!(world.past(&sid).await["status"], "completed");
    });
}

#[test]
fn t113_an_application_that_is_not_there_is_apologised_for() {
    go(async {
        let world = World::start("relay-absent").await;
        let nobody = crate::harness::free_port();
        let agent = world.agent(json!({"relay_url": format!("ws://127.0.0.1:{nobody}/")})).await;
        let events = format!("/events/ws?api_key={}", world.key.key);
        let mut events = Ws::open(world.server.http, &events, &[]).await.expect("it may listen");
        let sid = world.call(&agent).await;
        let error = events.wait("error").await;
        assert_eq!((&error["code"], &error["call_sid"]), (&json!("relay_unreachable"), &json!(sid)));
        let sound = world.far.sound().await;
        world.far.wait("BYE").await;
        let start = Instant::now() - Duration::from_secs(30);
        assert!(heard_seconds(&sound.samples_since(start)) > 1.0, "the caller is told");
    });
}
