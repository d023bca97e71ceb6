//! Calls that a platform holds and our agent talks on (CONTRACT 1.2 `/relay/ws` use a), with a language model that speaks
//! the wire format of the real ones; and who may bring such calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::harness::{go, number, until};
use crate::relay::World;
use crate::services::{self, Request, Step};
use crate::sockets::Ws;

/// A streamed answer of the model's, in pieces that end anywhere.
fn stream(parts: &[Value]) -> Vec<Step> {
    let delta =
        |delta: &Value| format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": delta }] }));
    let mut text: String = parts.iter().map(delta).collect();
    text.push_str("data: [DONE]\n\n");
    vec![services::head(200, "text/event-stream"), Step::Pieces(text.into_bytes(), 23)]
}

fn says(words: &[&str]) -> Vec<Step> {
    stream(&words.iter().map(|word| json!({ "content": word })).collect::<Vec<_>>())
}

fn calls(words: &str, name: &str, arguments: &Value) -> Vec<Step> {
    let call = json!({ "index": 0, "id": "c1", "type": "function",
                       "function": { "name": name, "arguments": arguments.to_string() } });
    stream(&[json!({ "content": words }), json!({ "tool_calls": [call] })])
}

/// A model that answers in this order.
async fn model(answers: Vec<Vec<Step>>) -> Arc<services::Server> {
    let nth = AtomicUsize::new(0);
    let answers = move |_, _: &Request| {
        let nth = nth.fetch_add(1, Ordering::Relaxed);
        answers.get(nth).cloned().unwrap_or_else(|| services::answer(500, "text/plain", b""))
    };
    Arc::new(services::Server::start(answers).await)
}

/// The messages of the model's `nth` question.
async fn asked(model: &services::Server, nth: usize) -> Vec<Value> {
    until(15.0, "the model is asked", async || {
        model.seen().get(nth).map(|request| request.json()["messages"].as_array().cloned())?
    })
    .await
}

async fn world(name: &str, model: &services::Server) -> World {
    let base = model.url("/v1");
    World::with(name, &[("LLM__BASE_URL", base.as_str()), ("LLM__MODEL", "test")]).await
}

/// A platform's call to an agent, with the agent's first words taken in.
async fn platform(world: &World, sid: &str) -> Ws {
    let agent = world.agent(json!({ "type": "inbound", "first_message": "Good morning." })).await;
    let path = format!("/relay/ws?api_key={}", world.key.key);
    let mut platform = Ws::open(world.server.http, &path, &[]).await.expect("it may talk");
    platform.send(&setup(sid, "+441632960202", &json!({ "agent_id": agent, "ticket": "8841" }))).await;
    assert_eq!(platform.json().await, json!({ "type": "text", "token": "Good morning.", "last": true }));
    platform
}

fn setup(sid: &str, to: &str, parameters: &Value) -> Value {
    json!({
        "type": "setup", "sessionId": "VX1", "accountSid": "AC1", "callSid": sid, "parentCallSid": "",
        "from": "+441632960101", "to": to, "forwardedFrom": "", "callType": "PSTN", "callerName": "",
        "direction": "inbound", "callStatus": "RINGING", "customParameters": parameters,
    })
}

fn prompt(text: &str) -> Value {
    json!({ "type": "prompt", "voicePrompt": text, "lang": "en-US", "last": true })
}

/// The words of a turn, to its last token.
async fn turn(platform: &mut Ws) -> String {
    let mut words = String::new();
    loop {
        let frame = platform.wait("text").await;
        words.push_str(frame["token"].as_str().expect("words"));
        if frame["last"] == true {
            return words.trim().to_owned();
        }
    }
}

fn sid(digits: &str) -> String {
    format!("CA{}", digits.repeat(8))
}

#[test]
fn t117_a_platform_is_answered_by_the_language_model() {
    go(async {
        let long =
            "It is a large box. It came this morning with the first van, and it waits at the desk for you.";
        let model = model(vec![
            says(&[
                "It is a large box. It came this mor",
                "ning with the first van, and it ",
                "waits at the desk for you.",
            ]),
            says(&["At the ", "desk."]),
            calls("I press a key.", "send_dtmf", &json!({ "digits": "1w2" })),
            says(&["Done."]),
            calls("Goodbye!", "hang_up", &json!({})),
        ])
        .await;
        let world = world("relay-thinks", &model).await;
        let sid = sid("a1b2");
        let mut platform = platform(&world, &sid).await;
        let mut events = world.events().await;
        platform.send(&prompt("What does it look like?")).await;
        assert_eq!(turn(&mut platform).await, long);
        let messages = asked(&model, 0).await;
        let system = messages[0]["content"].as_str().expect("a prompt");
        assert!(system.starts_with("You sell.") && system.contains("8841"), "{system}");
        assert_eq!(messages[1], json!({ "role": "assistant", "content": "Good morning." }));
        assert_eq!(messages[2], json!({ "role": "user", "content": "What does it look like?" }));

        // Who cuts it short has heard so much of it, and the model is told so.
        platform
            .send(&json!({ "type": "interrupt", "utteranceUntilInterrupt": "It is a large box. It came this",
                           "durationUntilInterruptMs": "2150.5" }))
            .await;
        platform.send(&prompt("Where is it?")).await;
        assert_eq!(turn(&mut platform).await, "At the desk.");
        let messages = asked(&model, 1).await;
        assert_eq!(messages[3], json!({ "role": "assistant", "content": "It is a large box. It came this" }));
        assert_eq!(messages[4], json!({ "role": "user", "content": "Where is it?" }));

        // Keys go both ways.
        platform.send(&json!({ "type": "dtmf", "digit": "5" })).await;
        assert_eq!(platform.wait("sendDigits").await["digits"], "1w2");
        let pressed = asked(&model, 2).await;
        let pressed = pressed.last().expect("a message")["content"].as_str().expect("words").to_owned();
        assert!(pressed.contains('5'), "{pressed}");
        until(10.0, "the model is asked once more", async || (model.seen().len() > 3).then_some(())).await;
        platform.send(&prompt("Thank you, goodbye.")).await;
        let end = platform.wait("end").await;
        let handoff = end["handoffData"].as_str().expect("a string");
        assert_eq!(serde_json::from_str::<Value>(handoff).expect("JSON"), json!({ "reasonCode": "hang_up" }));
        platform.close().await;
        let mut texts = Vec::new();
        while texts.len() < 6 {
            let said = events.wait("transcript.final").await;
            texts.push((
                said["role"].as_str().expect("who").to_owned(),
                said["text"].as_str().expect("what").to_owned(),
            ));
        }
        let told = |role: &str, text: &str| texts.contains(&(role.to_owned(), text.to_owned()));
        assert!(told("caller", "What does it look like?"), "{texts:?}");
        assert!(told("agent", "It is a large box. It came this"), "{texts:?}");
        assert_eq!(events.wait("call.ended").await["status"], "completed");
    });
}

#[test]
fn t117_an_agent_hands_its_caller_over() {
    go(async {
        let model = model(vec![
            calls("One moment.", "transfer", &json!({ "to": "+14155550199" })),
            services::answer(500, "text/plain", b""),
        ])
        .await;
        let world = world("relay-hands", &model).await;
        let sid = sid("c3d4");
        let mut platform = platform(&world, &sid).await;
        platform.send(&prompt("A person, please.")).await;
        assert_eq!(turn(&mut platform).await, "One moment.");
        let end = platform.wait("end").await;
        let handoff = end["handoffData"].as_str().expect("a string");
        let handoff: Value = serde_json::from_str(handoff).expect("JSON");
        assert_eq!(handoff, json!({ "reasonCode": "transfer", "to": "+14155550199" }));
        platform.close().await;
        assert_eq!(world.past(&sid).await["handoff_data"], handoff.to_string());
    });
}

#[test]
fn t117_a_model_that_fails_is_covered_for() {
    go(async {
        let model =
            model(vec![services::answer(500, "text/plain", b""), services::answer(500, "text/plain", b"")])
                .await;
        let world = world("relay-fails", &model).await;
        let mut platform = platform(&world, &sid("e5f6")).await;
        platform.send(&prompt("Hello?")).await;
        let words = turn(&mut platform).await;
        assert!(!words.is_empty(), "the fallback is said");
    });
}

#[test]
fn x31_a_platform_that_talks_nonsense_is_told_so_and_left() {
    go(async {
        let world = World::start("relay-nonsense").await;
        let agent = world.agent(json!({ "type": "inbound" })).await;
        let path = format!("/relay/ws?api_key={}", world.key.key);
        let mut platform = Ws::open(world.server.http, &path, &[]).await.expect("it may talk");
        platform.send(&setup(&sid("0a0b"), "+441632960202", &json!({ "agent_id": agent }))).await;
        platform.wait("text").await;
        for frame in ["nonsense", r#"{"type":"dance"}"#, r#"{"type":"prompt"}"#, r#"{"type":"dtmf"}"#] {
            platform.send_text(frame).await;
            assert_eq!(platform.json().await["description"], format!("Invalid message received: {frame}"));
        }
        platform.send(&setup(&sid("0a0b"), "+1", &json!({}))).await;
        assert_eq!(platform.json().await["type"], "error");
        // What only tells something, and pings, are fine.
        platform.send(&json!({ "type": "info", "name": "agentSpeaking", "value": "on" })).await;
        platform.send(&json!({ "type": "error", "description": "64107" })).await;
        platform.ping().await;
        for _ in 0..10 {
            platform.send_bytes(&[1, 2, 3]).await;
            assert_eq!(platform.json().await["type"], "error");
        }
        assert_eq!(platform.closed().await, 1008);
        let mut silent = Ws::open(world.server.http, &path, &[]).await.expect("it may talk");
        assert_eq!(silent.closed().await, 1008);
        let mut large = Ws::open(world.server.http, &path, &[]).await.expect("it may talk");
        large.send(&setup(&sid("0c0d"), "+441632960202", &json!({ "agent_id": agent }))).await;
        large.wait("text").await;
        large.send(&prompt(&"x".repeat(70_000))).await;
        assert_eq!(large.closed().await, 1009);
    });
}

#[test]
fn telnyx_is_understood() {
    go(async {
        let world = World::start("relay-telnyx").await;
        let agent = world.agent(json!({ "type": "inbound" })).await;
        let path = format!("/relay/ws?api_key={}", world.key.key);
        let mut platform = Ws::open(world.server.http, &path, &[]).await.expect("it may talk");
        platform
            .send(&json!({
                "type": "setup", "sessionId": "7d1c", "callControlId": "v3:MdI91X4l", "callSessionId": "428c31b6",
                "callLegId": "428c31b6", "from": "+441632960101", "to": "+441632960202", "direction": "incoming",
                "callType": "PSTN", "callStatus": "active", "lang": "en", "customParameters": { "agent_id": agent },
            }))
            .await;
        assert_eq!(platform.wait("text").await["last"], true);
        platform
            .send(&json!({ "type": "prompt", "voicePrompt": "Hello?", "lang": "en", "last": true }))
            .await;
        assert_eq!(platform.wait("text").await["last"], true);
        let list = world.key.get("/api/calls/active").await.expect(200);
        assert_eq!((&list[0]["agent_id"], &list[0]["direction"]), (&json!(agent), &json!("inbound")));
    });
}

fn signature(url: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(b"12345").expect("any length");
    mac.update(url.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[test]
fn where_twilios_token_is_configured_its_signature_is_what_counts() {
    go(async {
        let world = World::with("relay-signed", &[("TWILIO__AUTH_TOKEN", "12345")]).await;
        let (http, agent) = (world.server.http, world.agent(json!({ "type": "inbound" })).await);
        let called = format!("+{}", number("0000"));
        world.server.cli(&["numbers", "add", &called, "--tenant", "acme", "--agent", &agent]);
        let open = async |path: &str, shown: &[(&str, &str)]| Ws::open(http, path, shown).await;

        // Absent, of another address, of another token: nobody comes in, whatever the key.
        let key = format!("/relay/ws?api_key={}", world.key.key);
        assert_eq!(open(&key, &[]).await.err(), Some(401));
        assert_eq!(open("/relay/ws", &[]).await.err(), Some(401));
        let other = signature(&format!("wss://{http}/events/ws"));
        assert_eq!(open("/relay/ws", &[("x-twilio-signature", &other)]).await.err(), Some(401));
        let wrong = STANDARD.encode([7; 20]);
        assert_eq!(open(&key, &[("x-twilio-signature", &wrong)]).await.err(), Some(401));
        // A bad key is none, signed or not.
        let bad = "/relay/ws?api_key=ak_live_nobody";
        let signed = signature(&format!("wss://{http}{bad}"));
        assert_eq!(open(bad, &[("x-twilio-signature", &signed)]).await.err(), Some(401));

        // As Twilio signs it, and as proxies make it look; with and without a key.
        for (path, url, more) in [
            ("/relay/ws", format!("wss://{http}/relay/ws"), None),
            ("/relay/ws", format!("https://{http}/relay/ws/"), None),
            ("/relay/ws", "wss://calls.example.com/relay/ws".to_owned(), Some("calls.example.com")),
            (key.as_str(), format!("wss://{http}{key}"), None),
        ] {
            let signed = signature(&url);
            let mut shown = vec![("X-Twilio-Signature", signed.as_str())];
            shown.extend(more.map(|host| ("x-forwarded-host", host)));
            let mut platform = open(path, &shown).await.unwrap_or_else(|status| panic!("{url}: {status}"));
            // Whose call it is is said by the number, or by the agent.
            platform.send(&setup(&sid("1234"), &called, &json!({}))).await;
            assert_eq!(platform.wait("text").await["token"], "Hi.");
            platform.close().await;
        }
        let signed = signature(&format!("wss://{http}/relay/ws"));
        let shown = [("x-twilio-signature", signed.as_str())];
        let mut platform = open("/relay/ws", &shown).await.expect("it may talk");
        platform.send(&setup(&sid("4321"), "+441632960299", &json!({ "agent_id": agent }))).await;
        assert_eq!(platform.wait("text").await["token"], "Hi.");
        let mut platform = open("/relay/ws", &shown).await.expect("it may talk");
        platform.send(&setup(&sid("5678"), "+441632960299", &json!({}))).await;
        assert_eq!(platform.closed().await, 1008);
    });
}

#[test]
fn x33_a_key_in_the_query_is_for_sockets_only() {
    go(async {
        let world = World::start("relay-query-key").await;
        for path in ["/api/agents", "/api/v1/agents", "/api/calls/active"] {
            let url = format!("{}{path}?api_key={}", world.key.base, world.key.key);
            let status = crate::api::CLIENT.get(&url).send().await.expect("it answers").status();
            assert_eq!(status.as_u16(), 401, "{path}");
        }
        for path in ["/events/ws", "/relay/ws"] {
            let asked = format!("{path}?api_key={}", world.key.key);
            Ws::open(world.server.http, &asked, &[]).await.expect("it may come in").close().await;
        }
        assert!(!world.server.process.said(&world.key.key), "no key is logged");
    });
}
