//! Agents that hold their conversation themselves, with a recogniser and a language model that speak the wire format
//! of the real ones. The far end's sound decides when they speak and when they fall silent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{bare, send};
use crate::audio::{heard_seconds, tone};
use crate::harness::{Server, go, until};
use crate::rtp::Sound;
use crate::services::{self, Request, Step};
use crate::uas::Uas;

const GREETING: &str = "Hello, your parcel is here.";
const LONG_ANSWER: &str = "It is a large box with a red label, and it came this morning with the first van of the day. \
                           You can pick it up at the desk by the main entrance whenever you like until nine.";

/// What the caller says, one after the other, whatever the sound.
const HEARD: &[&str] = &["What does it look like?", "Stop, where is it?", "Thank you, goodbye."];

fn delta(delta: &Value) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": delta }] }))
}

/// A streamed answer of the model's, in pieces that end anywhere.
fn stream(parts: &[Value]) -> Vec<Step> {
    let mut text: String = parts.iter().map(delta).collect();
    text.push_str("data: [DONE]\n\n");
    vec![services::head(200, "text/event-stream"), Step::Pieces(text.into_bytes(), 37)]
}

/// The model's answers in order; the last one hangs up.
fn thought(nth: usize) -> Vec<Step> {
    match nth {
        0 => stream(&[json!({ "role": "assistant", "content": "" }), json!({ "content": LONG_ANSWER })]),
        1 => stream(&[json!({ "content": "At the " }), json!({ "content": "desk." })]),
        _ => stream(&[
            json!({ "content": "Goodbye!" }),
            json!({ "tool_calls": [{ "index": 0, "id": "c1", "type": "function",
                                     "function": { "name": "hang_up", "arguments": "{}" } }] }),
        ]),
    }
}

/// Both services behind one address.
async fn minds() -> services::Server {
    let (utterances, questions) = (AtomicUsize::new(0), AtomicUsize::new(0));
    services::Server::start(move |_, request: &Request| {
        if request.path.ends_with("/audio/transcriptions") {
            let text = HEARD.get(utterances.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or_default();
            services::answer(200, "application/json", json!({ "text": text }).to_string().as_bytes())
        } else {
            thought(questions.fetch_add(1, Ordering::Relaxed))
        }
    })
    .await
}

/// The messages of the model's `nth` question.
async fn asked(minds: &services::Server, nth: usize) -> Vec<Value> {
    until(15.0, &format!("the model is asked for the {nth}. time"), async || {
        let questions =
            minds.seen().into_iter().filter(|request| request.path.ends_with("/chat/completions"));
        questions.map(|request| request.json()["messages"].as_array().cloned()).nth(nth)?
    })
    .await
}

/// Waits until so much has been heard since then, and it has been quiet again for a while.
async fn heard_out(sound: &Sound, since: Instant, seconds: f64) {
    until(20.0, "the agent has spoken", async || {
        let quiet = sound.last_heard().is_some_and(|at| at.elapsed().as_millis() > 700);
        (quiet && heard_seconds(&sound.samples_since(since)) > seconds).then_some(())
    })
    .await;
}

async fn place(server: SocketAddr, message: &str) -> String {
    let body = json!({ "to": "+14155550100", "message": message, "mode": "conversation" });
    let placed = send(bare(server, Method::POST, "/api/outbound-call").json(&body)).await.expect(200);
    placed["callId"].as_str().expect("an id").to_owned()
}

#[test]
fn an_agent_listens_answers_is_interrupted_and_says_goodbye() {
    go(async {
        let minds = minds().await;
        let base = minds.url("/v1");
        let settings = [
            ("SPEECH__STT", "openai"),
            ("SPEECH__OPENAI__BASE_URL", base.as_str()),
            ("SPEECH__OPENAI__API_KEY", "test"),
            ("LLM__BASE_URL", base.as_str()),
            ("LLM__MODEL", "test"),
        ];
        let server = Server::start("conversation", &settings).await;
        let far = Uas::answering().await;
        server.trunk("far", far.addr, &[]);
        let started = Instant::now();
        let call = place(server.http, GREETING).await;
        let sound = far.sound().await;
        heard_out(&sound, started, 0.8).await;

        // A question: what was said before is told with it.
        sound.say(&tone(300.0, 1.2, 9000.0));
        let messages = asked(&minds, 0).await;
        assert_eq!(messages[0]["role"], "system", "{messages:?}");
        assert_eq!(messages[1], json!({ "role": "assistant", "content": GREETING }));
        assert_eq!(messages[2], json!({ "role": "user", "content": HEARD[0] }));

        // The answer is heard; who speaks into it makes it fall silent, and it does not go on.
        let answering = Instant::now();
        until(15.0, "the answer is heard", async || {
            (heard_seconds(&sound.samples_since(answering)) > 1.5).then_some(())
        })
        .await;
        let interrupting = Instant::now();
        sound.say(&tone(300.0, 1.5, 9000.0));
        let messages = asked(&minds, 1).await;
        let spoken = heard_seconds(&sound.samples_since(interrupting));
        assert!(spoken < 0.6, "{spoken} s were heard after the interruption");
        assert_eq!(messages.last(), Some(&json!({ "role": "user", "content": HEARD[1] })));
        let cut = messages[messages.len() - 2]["content"].as_str().expect("text").to_owned();
        assert!(LONG_ANSWER.starts_with(&cut) && cut.len() < LONG_ANSWER.len() && !cut.is_empty(), "{cut}");

        // The last answer is heard to its end, then the call is hung up by the model's wish.
        heard_out(&sound, interrupting, 0.3).await;
        sound.say(&tone(300.0, 1.2, 9000.0));
        far.wait("BYE").await;
        let path = format!("/api/call/{call}");
        let ended = until(10.0, "the call is over", async || {
            let shown = send(bare(server.http, Method::GET, &path)).await.json();
            (shown["state"] == "completed").then_some(shown)
        })
        .await;
        assert_eq!(ended["mode"], "conversation", "{ended}");
    });
}
