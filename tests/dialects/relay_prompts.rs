//! Prompts: what the far end says is recognised during a session in which we are the platform, and told to the
//! application in the order in which it happened (FIELD 3.1.1, 3.1.3). The recognisers speak the wire formats of the real
//! ones.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::audio::{heard_seconds, tone};
use crate::harness::{Process, free_port, go, run_folder, until};
use crate::relay::World;
use crate::services;
use crate::sockets::Ws;

const LONG: &str = "Your appointment is on Tuesday at nine in the morning. Please bring along all the papers that we \
                    have sent to you last week. If you cannot come then call us again before the weekend.";

/// A service to which utterances are posted, and which hears these words in them, one after the other.
async fn posted(words: &'static [&'static str]) -> Arc<services::Server> {
    let nth = AtomicUsize::new(0);
    let server = services::Server::start(move |_, _| {
        let text = words.get(nth.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or_default();
        services::answer(200, "application/json", json!({ "text": text }).to_string().as_bytes())
    });
    Arc::new(server.await)
}

async fn with_posted(name: &str, server: &services::Server) -> World {
    let base = server.url("/v1");
    let settings = [
        ("SPEECH__STT", "openai"),
        ("SPEECH__OPENAI__BASE_URL", base.as_str()),
        ("SPEECH__OPENAI__API_KEY", "test"),
    ];
    World::with(name, &settings).await
}

/// A vosk-server that understands more of a sentence with every fifth of a second that is loud.
async fn streaming() -> SocketAddr {
    const SENTENCE: [&str; 4] = ["I", "I want", "I want to", "I want to move"];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.expect("a WebSocket");
                let mut understood = 0_usize;
                while let Some(Ok(message)) = socket.next().await {
                    let Message::Binary(sound) = message else { continue };
                    let loud = sound.chunks_exact(2).any(|s| i16::from_le_bytes([s[0], s[1]]).abs() > 2000);
                    let said = if loud {
                        understood += 1;
                        json!({ "partial": SENTENCE[((understood - 1) / 2).min(SENTENCE.len() - 1)] })
                    } else if std::mem::take(&mut understood) > 2 {
                        json!({ "text": "I want to move." })
                    } else {
                        json!({ "partial": "" })
                    };
                    if socket.send(Message::Text(said.to_string().into())).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn text(token: &str) -> Value {
    json!({ "type": "text", "token": token, "last": true })
}

#[test]
fn t115_words_become_prompts_after_the_interruption_that_they_made() {
    go(async {
        let stt = posted(&["What do you want?", "Stop, please.", "Oui, merci.", "Bonjour"]).await;
        let world = with_posted("relay-prompts", &stt).await;
        let mut events = world.events().await;
        let (_, mut app) = world.attended("").await;
        let sound = world.far.sound().await;
        let prompt = |text: &str, lang: &str| json!({ "type": "prompt", "voicePrompt": text, "lang": lang, "last": true });
        sound.say(&tone(300.0, 1.2, 9000.0));
        assert_eq!(app.json().await, prompt("What do you want?", "en-US"));
        let told = events.wait("transcript.final").await;
        assert_eq!((&told["role"], &told["text"]), (&json!("caller"), &json!("What do you want?")));

        let before = Instant::now();
        app.send(&text(LONG)).await;
        until(30.0, "it is heard", async || {
            (heard_seconds(&sound.samples_since(before)) > 1.0).then_some(())
        })
        .await;
        sound.say(&tone(300.0, 1.2, 9000.0));
        let interrupt = app.json().await;
        assert_eq!(interrupt["type"], "interrupt", "{interrupt}");
        assert_eq!(app.json().await, prompt("Stop, please.", "en-US"));
        let told = events.wait("transcript.final").await;
        assert_eq!((&told["role"], &told["text"]), (&json!("agent"), &interrupt["utteranceUntilInterrupt"]));
        assert_eq!(events.wait("transcript.final").await["text"], "Stop, please.");

        // Another language: what is said is asked for in it, and what is told is of it.
        app.send(&json!({ "type": "language", "ttsLanguage": "fr-FR", "transcriptionLanguage": "fr-FR" }))
            .await;
        let before = Instant::now();
        app.send(&text("Bonjour, comment allez-vous?")).await;
        until(30.0, "it is heard", async || {
            (heard_seconds(&sound.samples_since(before)) > 0.8).then_some(())
        })
        .await;
        assert_eq!(events.wait("transcript.final").await["text"], "Bonjour, comment allez-vous?");
        sound.say(&tone(300.0, 1.2, 9000.0));
        assert_eq!(app.json().await, prompt("Oui, merci.", "fr-FR"));
        assert_eq!(events.wait("transcript.final").await["text"], "Oui, merci.");
        let seen = stt.seen();
        let language = |nth: usize, code: &str| {
            let body = String::from_utf8_lossy(&seen[nth].body).into_owned();
            body.contains(&format!("name=\"language\"\r\n\r\n{code}\r\n"))
        };
        assert!(language(0, "en") && language(2, "fr"));

        // What is said into something that may not be interrupted is not told.
        let before = Instant::now();
        app.send(
            &json!({ "type": "text", "token": LONG, "last": true, "interruptible": false, "lang": "en-US" }),
        )
        .await;
        until(30.0, "it is heard", async || {
            (heard_seconds(&sound.samples_since(before)) > 1.0).then_some(())
        })
        .await;
        sound.say(&tone(300.0, 1.2, 9000.0));
        until(10.0, "it is understood", async || (stt.seen().len() > 3).then_some(())).await;
        sound.press('9', 3);
        assert_eq!(events.wait("transcript.final").await["text"], LONG);
        sound.press('3', 3);
        assert_eq!(app.json().await, json!({ "type": "dtmf", "digit": "3" }));
    });
}

#[test]
fn t115_those_who_ask_are_told_what_is_not_said_to_its_end() {
    go(async {
        let vosk = format!("ws://{}", streaming().await);
        let world =
            World::with("relay-partial", &[("SPEECH__STT", "vosk"), ("SPEECH__VOSK__URL", &vosk)]).await;
        let (_, mut app) = world.attended("&partialPrompts=true&language=en-GB").await;
        let sound = world.far.sound().await;
        sound.say(&tone(300.0, 0.9, 9000.0));
        let mut before = String::new();
        loop {
            let prompt = app.json().await;
            assert_eq!((&prompt["type"], &prompt["lang"]), (&json!("prompt"), &json!("en-GB")));
            let text = prompt["voicePrompt"].as_str().expect("words").to_owned();
            assert!(text.starts_with(&before), "{before}, then {text}");
            if prompt["last"] == true {
                assert_eq!(text, "I want to move.");
                break;
            }
            before = text;
        }
        assert!(before.starts_with("I want"), "{before}");
        // Who does not ask is told once.
        app.send(&json!({ "type": "end" })).await;
        world.far.wait("BYE").await;
        let (_, mut app) = world.attended("").await;
        let sound = until(5.0, "there is another call", async || world.far.sounds().get(1).cloned()).await;
        sound.say(&tone(300.0, 0.9, 9000.0));
        let prompt = app.json().await;
        assert_eq!((&prompt["voicePrompt"], &prompt["last"]), (&json!("I want to move."), &json!(true)));
    });
}

#[test]
fn t115_a_voice_that_is_not_sure_enough_does_not_interrupt() {
    go(async {
        let vosk = format!("ws://{}", streaming().await);
        let world = World::with("relay-low", &[("SPEECH__STT", "vosk"), ("SPEECH__VOSK__URL", &vosk)]).await;
        let (_, mut app) = world.attended("&interruptSensitivity=low").await;
        let sound = world.far.sound().await;
        let before = Instant::now();
        app.send(&text(LONG)).await;
        until(30.0, "it is heard", async || {
            (heard_seconds(&sound.samples_since(before)) > 1.0).then_some(())
        })
        .await;
        // One word is no interruption; the agent talks on.
        sound.say(&tone(300.0, 0.06, 9000.0));
        let spoken = Instant::now();
        until(30.0, "it goes on", async || (heard_seconds(&sound.samples_since(spoken)) > 1.5).then_some(()))
            .await;
        sound.say(&tone(300.0, 0.9, 9000.0));
        assert_eq!(app.json().await["type"], "interrupt");
        assert_eq!(app.json().await["voicePrompt"], "I want to move.");
    });
}

#[test]
fn without_a_recogniser_it_is_said_that_no_prompts_come() {
    go(async {
        let world = World::start("relay-deaf").await;
        let (_, mut app) = world.attended("").await;
        assert!(world.server.process.said("the relay application gets keys and no prompts"));
        world.far.sound().await.press('1', 3);
        assert_eq!(app.json().await["digit"], "1");
    });
}

#[test]
fn an_application_written_with_a_well_known_library_runs_unchanged() {
    go(async {
        let stt = posted(&["What is it?", "Thank you, goodbye."]).await;
        let base = stt.url("/v1");
        let settings = [
            ("SPEECH__STT", "openai"),
            ("SPEECH__OPENAI__BASE_URL", base.as_str()),
            ("SPEECH__OPENAI__API_KEY", "test"),
            ("TWILIO__AUTH_TOKEN", "12345"),
        ];
        let world = World::with("relay-ws", &settings).await;
        let port = free_port();
        let mut application =
            Process::start("application", &mut node(port), world.server.home.join("application.log"));
        until(15.0, "the application listens", async || {
            application.must_run();
            application.said("listening").then_some(())
        })
        .await;
        let agent =
            world.agent(json!({ "relay_url": format!("ws://127.0.0.1:{port}/talk?theme=dark") })).await;
        let mut events = world.events().await;
        let sid = world.call(&agent).await;
        let sound = world.far.sound().await;
        let final_of = async |events: &mut Ws, role: &str| loop {
            let told = events.wait("transcript.final").await;
            if told["role"] == role {
                return told["text"].as_str().expect("text").to_owned();
            }
        };
        assert_eq!(final_of(&mut events, "agent").await, "Hello, ticket 8841. How can I help you?");
        sound.press('7', 3);
        until(10.0, "the key comes back", async || {
            sound.heard().iter().any(|p| p.payload.len() == 4 && p.payload[0] == 7).then_some(())
        })
        .await;
        sound.say(&tone(300.0, 1.2, 9000.0));
        assert_eq!(final_of(&mut events, "caller").await, "What is it?");
        assert_eq!(final_of(&mut events, "agent").await, "You said: What is it?");
        sound.say(&tone(300.0, 1.2, 9000.0));
        assert_eq!(final_of(&mut events, "agent").await, "Goodbye.");
        world.far.wait("BYE").await;
        assert_eq!(world.past(&sid).await["handoff_data"], r#"{"reasonCode":"done"}"#);
        until(5.0, "it is closed in order", async || application.said("closed 1000").then_some(())).await;
        application.must_run();
    });
}

/// The application, where its library is found.
fn node(port: u16) -> Command {
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    assert!(clients.join("node_modules/ws").exists(), "{} lacks ws; run tests/run", clients.display());
    let folder = run_folder(&clients.join("run"));
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let program = folder.join("application.mjs");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/relay/application.mjs");
    std::fs::copy(source, &program).expect("the target folder can be written");
    let mut command = Command::new("node");
    command.arg(program).env("PORT", port.to_string()).env("TOKEN", "12345");
    command
}
