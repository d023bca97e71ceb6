//! The rules of a session in which we are the platform (FIELD 3.1.2, 3.1.3), over real sockets: what a far end really
//! hears of what an application says, and what the application is told of it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha1::Sha1;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::audio::{bursts, chirp, heard_seconds, likeness, tone, write_wav};
use crate::harness::{go, home, until};
use crate::relay::World;
use crate::rtp::Sound;
use crate::services;
use crate::sockets::{Came, Ws};

const SHORT: &str =
    "Your appointment is on Tuesday at nine in the morning. Please bring along all the papers.";
const LONG: &str = "Your appointment is on Tuesday at nine in the morning. Please bring along all the papers that we \
                    have sent to you last week. If you cannot come then call us again before the weekend.";

/// Waits until so many seconds have been heard since then.
async fn heard(sound: &Sound, since: Instant, seconds: f64) {
    until(30.0, "it is heard", async || (heard_seconds(&sound.samples_since(since)) > seconds).then_some(()))
        .await;
}

/// Waits until it was heard, and has been quiet for a while; what was heard.
async fn heard_out(sound: &Sound, since: Instant) -> Vec<f64> {
    until(25.0, "it is said", async || {
        let last = sound.last_heard().filter(|at| *at > since)?;
        (last.elapsed().as_millis() > 600).then_some(())
    })
    .await;
    sound.samples_since(since)
}

fn text(token: &str) -> Value {
    json!({ "type": "text", "token": token, "last": true })
}

fn words(frame: &Value) -> &str {
    frame["description"].as_str().expect("words")
}

#[test]
fn t115_an_interruption_tells_exactly_what_was_heard() {
    go(async {
        let world = World::start("relay-exact").await;
        let (_, mut app) = world.attended("").await;
        let mut events = world.events().await;
        let sound = world.far.sound().await;
        // Twice: the first time it is made while it is said, and may have gaps.
        let mut length = 0;
        for _ in 0..2 {
            let whole = Instant::now();
            app.send(&text(SHORT)).await;
            assert_eq!(events.wait("transcript.final").await["text"], SHORT);
            let whole = bursts(&heard_out(&sound, whole).await);
            length = whole.last().expect("it was heard").end - whole[0].start;
        }

        let before = Instant::now();
        app.send(&text(SHORT)).await;
        heard(&sound, before, 2.5).await;
        sound.say(&tone(300.0, 1.0, 9000.0));
        let interrupt = app.wait("interrupt").await;
        let part = bursts(&heard_out(&sound, before).await);
        let part = part.last().expect("it was heard").end - part[0].start;
        let ms = interrupt["durationUntilInterruptMs"].as_f64().expect("a number");
        let really = part as f64 / 8.0;
        assert!((ms - really).abs() < 250.0, "{ms} ms are told, and {really} ms were heard");
        let told = interrupt["utteranceUntilInterrupt"].as_str().expect("text");
        assert!(SHORT.starts_with(told), "{told}");
        let (share, heard) = (told.len() as f64 / SHORT.len() as f64, part as f64 / length as f64);
        assert!(
            (share - heard).abs() < 0.07,
            "{share} of the text is told, and {heard} of it was heard: {told}"
        );
        // Nothing of the rest is ever said.
        let after = Instant::now();
        app.send(&text("Yes?")).await;
        assert_eq!(events.wait("transcript.final").await["text"], told);
        assert_eq!(events.wait("transcript.final").await["text"], "Yes?");
        assert!(heard_seconds(&heard_out(&sound, after).await) < 1.5);
    });
}

#[test]
fn t114_what_may_not_be_interrupted_goes_on_and_hides_what_is_pressed() {
    go(async {
        let world = World::start("relay-firm").await;
        let (_, mut app) = world.attended("").await;
        let sound = world.far.sound().await;
        let before = Instant::now();
        let firm = "This call is recorded for training, and it cannot be interrupted at all.";
        app.send(&json!({ "type": "text", "token": firm, "last": true, "interruptible": "none" })).await;
        heard(&sound, before, 0.5).await;
        sound.press('5', 3);
        sound.say(&tone(300.0, 0.5, 9000.0));
        let seconds = heard_seconds(&heard_out(&sound, before).await);
        assert!(seconds > 2.5, "{seconds} s were heard");
        sound.press('6', 3);
        // Neither an interruption nor the first key came before it.
        assert_eq!(app.json().await, json!({ "type": "dtmf", "digit": "6" }));
        // Keys alone may interrupt this, and are told after what they did.
        let before = Instant::now();
        app.send(&json!({ "type": "text", "token": LONG, "last": true, "interruptible": "dtmf" })).await;
        heard(&sound, before, 0.5).await;
        sound.press('7', 3);
        assert_eq!(app.json().await["type"], "interrupt");
        assert_eq!(app.json().await, json!({ "type": "dtmf", "digit": "7" }));
    });
}

#[test]
fn x31_frames_that_are_no_messages_are_refused_and_pings_are_answered() {
    go(async {
        let world = World::start("relay-frames").await;
        let (sid, mut app) = world.attended("").await;
        for frame in [
            "nonsense",
            "[]",
            "{}",
            r#"{"type":"dance"}"#,
            r#"{"type":"text"}"#,
            r#"{"type":"play"}"#,
            r#"{"type":"sendDigits","digits":"1a"}"#,
            r#"{"type":"language"}"#,
            r#"{"type":"end","handoffData":{}}"#,
        ] {
            app.send_text(frame).await;
            assert_eq!(app.json().await["description"], format!("Invalid message received: {frame}"));
        }
        // One that is understood, and nine may come again. A ping is no message.
        app.send(&json!({ "type": "text", "token": "", "unknown": [1, 2] })).await;
        for _ in 0..9 {
            app.send_bytes(&[0, 159, 146, 150]).await;
            assert!(words(&app.json().await).starts_with("Invalid message received"));
            app.ping().await;
        }
        app.send(&text("Still here.")).await;
        let sound = world.far.sound().await;
        heard(&sound, Instant::now() - Duration::from_secs(5), 0.2).await;
        let large = json!({ "type": "text", "token": "x".repeat(70_000), "last": true });
        app.send(&large).await;
        assert_eq!(app.closed().await, 1009);
        world.far.wait("BYE").await;
        assert_eq!(world.past(&sid).await["status"], "completed");
    });
}

#[test]
fn t116_keys_are_pressed_with_their_pauses() {
    go(async {
        let world = World::start("relay-keys").await;
        let (_, mut app) = world.attended("").await;
        let sound = world.far.sound().await;
        app.send(&json!({ "type": "sendDigits", "digits": "1ww2#" })).await;
        let starts = until(10.0, "three keys are pressed", async || {
            let mut starts: Vec<(u8, Instant)> = Vec::new();
            for packet in sound.heard().iter().filter(|packet| packet.payload.len() == 4) {
                if starts.last().is_none_or(|(key, _)| *key != packet.payload[0]) {
                    starts.push((packet.payload[0], packet.at));
                }
            }
            (starts.len() == 3).then_some(starts)
        })
        .await;
        assert_eq!(starts.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 2, 11]);
        let (paused, next) = (starts[1].1 - starts[0].1, starts[2].1 - starts[1].1);
        // Twice half a second, and the key itself.
        assert!((1.0..1.6).contains(&paused.as_secs_f64()), "{paused:?}");
        assert!(next.as_secs_f64() < 0.6, "{next:?}");
    });
}

#[test]
fn x31_sounds_are_played_as_often_as_asked_and_only_from_where_they_may_come() {
    go(async {
        let world = World::start("relay-play").await;
        let path = home("relay-play-sound").join("chirp.wav");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        let sample = chirp(0.8);
        write_wav(&path, &sample);
        let wav = std::fs::read(&path).expect("it was written");
        let files = services::Server::start(move |_, request| match request.path.as_str() {
            "/chirp.wav" => services::answer(200, "audio/wav", &wav),
            "/text.wav" => services::answer(200, "audio/wav", b"this is no sound"),
            _ => services::answer(404, "text/plain", b""),
        })
        .await;
        let (_, mut app) = world.attended("").await;
        let sound = world.far.sound().await;
        let before = Instant::now();
        app.send(&json!({ "type": "play", "source": files.url("/chirp.wav"), "loop": 2 })).await;
        let heard = heard_out(&sound, before).await;
        let seconds = heard_seconds(&heard);
        assert!((1.5..1.9).contains(&seconds), "{seconds} s were heard");
        let template: Vec<f64> = sample.iter().take(4000).map(|s| f64::from(*s)).collect();
        assert!(likeness(&template, &heard) > 0.9);
        for (source, why) in [
            ("file:///etc/passwd", "not permitted"),
            ("http://10.0.0.1/x.wav", "not permitted"),
            ("http://169.254.169.254/latest", "not permitted"),
            (files.url("/none.wav").as_str(), "HTTP 404"),
            (files.url("/text.wav").as_str(), "cannot be played"),
        ] {
            app.send(&json!({ "type": "play", "source": source })).await;
            let error = app.json().await;
            assert!(words(&error).contains(why), "{source}: {error}");
        }
        // A key stops what would go on for ever.
        let before = Instant::now();
        app.send(&json!({ "type": "play", "source": files.url("/chirp.wav"), "loop": 0 })).await;
        until(30.0, "it goes on", async || (heard_seconds(&sound.samples_since(before)) > 2.0).then_some(()))
            .await;
        sound.press('1', 3);
        assert_eq!(app.wait("interrupt").await["utteranceUntilInterrupt"], "");
        let after = Instant::now() + Duration::from_millis(300);
        tokio::time::sleep_until(after + Duration::from_secs(1)).await;
        assert!(heard_seconds(&sound.samples_since(after)) < 0.1);
    });
}

#[test]
fn t114_a_turn_may_take_the_place_of_one_that_may_be_preempted() {
    go(async {
        let world = World::start("relay-preempt").await;
        let (_, mut app) = world.attended("").await;
        let mut events = world.events().await;
        let sound = world.far.sound().await;
        let before = Instant::now();
        app.send(&json!({ "type": "text", "token": LONG, "last": true, "preemptible": true })).await;
        heard(&sound, before, 1.0).await;
        app.send(&text("It is done.")).await;
        let first = events.wait("transcript.final").await;
        let first = first["text"].as_str().expect("text");
        assert!(LONG.starts_with(first) && first.len() < LONG.len() && !first.is_empty(), "{first}");
        assert_eq!(events.wait("transcript.final").await["text"], "It is done.");
        let seconds = heard_seconds(&heard_out(&sound, before).await);
        assert!(seconds < 4.5, "{seconds} s were heard");
    });
}

#[test]
fn those_who_ask_are_told_who_speaks_and_what_was_heard() {
    go(async {
        let world = World::start("relay-info").await;
        let sid = world.call(&world.agent(json!({})).await).await;
        assert_eq!(world.attend_with(&sid, "&debug=everything").await.err(), Some(400));
        let more = "&debug=speaker-events%20tokens-played%20debugging";
        let mut app = world.attend_with(&sid, more).await.expect("it may attend");
        app.wait("setup").await;
        app.send(&text("Hello there.")).await;
        let info = |name: &str, value: &str| json!({ "type": "info", "name": name, "value": value });
        assert_eq!(app.json().await, info("agentSpeaking", "on"));
        assert_eq!(app.json().await, info("tokensPlayed", "Hello there."));
        assert_eq!(app.json().await, info("agentSpeaking", "off"));
        world.far.sound().await.say(&tone(300.0, 0.6, 9000.0));
        assert_eq!(app.json().await, info("clientSpeaking", "on"));
        assert_eq!(app.json().await, info("clientSpeaking", "off"));
        let trip = app.wait("info").await;
        assert_eq!(trip["name"], "roundTripDelayMs");
        assert!(trip["value"].as_str().expect("text").parse::<u64>().expect("a number") < 1000);
    });
}

#[test]
fn a_reader_that_is_too_slow_is_left_and_its_caller_is_not() {
    go(async {
        let world = World::start("relay-slow").await;
        let sid = world.call(&world.agent(json!({})).await).await;
        let path = format!("/relay/ws?call_sid={sid}");
        let mut app = Ws::open_slow(world.server.http, &path, &world.bearer()).await;
        app.wait("setup").await;
        // Each is answered by a frame of a kilobyte, which nobody takes.
        let refused = "\u{1d11e}".repeat(250);
        let mut events = world.events().await;
        let flood = async {
            for n in 0_u32.. {
                let frame = if n % 5 == 0 { r#"{"type":"text","token":""}"# } else { refused.as_str() };
                if app.try_send_text(frame).await.is_err() {
                    return;
                }
            }
        };
        let told = tokio::select! {
            told = events.wait("error") => told,
            () = flood => events.wait("error").await,
        };
        assert_eq!(told["code"], "relay_lost");
        world.far.wait("BYE").await;
        assert_eq!(app.closed().await, 1013);
    });
}

#[test]
fn an_application_that_we_went_to_is_gone_to_again() {
    go(async {
        let world = World::start("relay-again").await;
        world.server.put_sound("music/hold.wav", &chirp(3.0));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("ws://{}/talk", listener.local_addr().expect("it is bound"));
        let agent = world.agent(json!({ "relay_url": url })).await;
        let mut events = world.events().await;
        let sid = world.call(&agent).await;
        let (mut app, _) = Ws::accept(&listener).await;
        let first = app.wait("setup").await;
        let sound = world.far.sound().await;
        let before = Instant::now();
        app.send(&text(LONG)).await;
        heard(&sound, before, 0.5).await;
        // It falls over, and takes a second to come up again.
        let lost = Instant::now();
        drop(app);
        drop(listener);
        let error = events.wait("error").await;
        assert_eq!((&error["code"], &error["call_sid"]), (&json!("relay_lost"), &json!(sid)));
        let template: Vec<f64> = chirp(3.0).iter().take(4000).map(|s| f64::from(*s)).collect();
        until(10.0, "the caller hears music", async || {
            (likeness(&template, &sound.samples_since(lost)) > 0.9).then_some(())
        })
        .await;
        let listener = TcpListener::bind(url.trim_start_matches("ws://").trim_end_matches("/talk"))
            .await
            .expect("the port is free again");
        let (mut app, _) = Ws::accept(&listener).await;
        let again = app.wait("setup").await;
        assert_eq!(again["callSid"], first["callSid"]);
        assert_ne!(again["sessionId"], first["sessionId"]);
        let back = Instant::now();
        app.send(&text("Here I am again.")).await;
        app.send(&json!({ "type": "end" })).await;
        world.far.wait("BYE").await;
        let seconds = heard_seconds(&sound.samples_since(back));
        assert!((0.5..2.5).contains(&seconds), "{seconds} s were heard: the music goes, the words come");
        assert_eq!(world.past(&sid).await["status"], "completed");
    });
}

#[test]
fn an_application_that_came_to_us_finds_its_call_again() {
    go(async {
        let world = World::start("relay-parked").await;
        world.server.put_sound("music/hold.wav", &chirp(3.0));
        let (sid, app) = world.attended("").await;
        let mut events = world.events().await;
        drop(app);
        assert_eq!(events.wait("error").await["code"], "relay_lost");
        let mut app = world.attend(&sid).await.expect("its call waits for it");
        assert_eq!(app.wait("setup").await["callSid"], sid);
        // Nobody else may have it now.
        assert_eq!(world.attend(&sid).await.err(), Some(409));
        let sound = world.far.sound().await;
        sound.press('4', 3);
        assert_eq!(app.wait("dtmf").await["digit"], "4");
        // A restart of the application says so when it closes.
        app.close_with(1012).await;
        assert_eq!(events.wait("error").await["code"], "relay_lost");
        let mut app = world.attend(&sid).await.expect("its call waits for it");
        app.wait("setup").await;
        app.send(&json!({ "type": "end" })).await;
        assert_eq!(app.closed().await, 1000);
        world.far.wait("BYE").await;
    });
}

#[test]
fn an_application_that_does_not_come_back_is_apologised_for() {
    go(async {
        let world = World::start("relay-gone").await;
        world.server.put_sound("music/hold.wav", &chirp(3.0));
        let (sid, app) = world.attended("").await;
        let sound = world.far.sound().await;
        let before = Instant::now();
        drop(app);
        world.far.wait("BYE").await;
        let waited = before.elapsed().as_secs_f64();
        assert!((6.0..16.0).contains(&waited), "{waited} s");
        assert!(heard_seconds(&sound.samples_since(before)) > 6.0, "music, and an apology");
        assert_eq!(world.past(&sid).await["status"], "completed");
    });
}

#[test]
fn where_we_go_we_sign() {
    go(async {
        let world = World::with("relay-signs", &[("TWILIO__AUTH_TOKEN", "12345")]).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("ws://{}/talk?theme=dark", listener.local_addr().expect("it is bound"));
        let agent = world.agent(json!({ "relay_url": url })).await;
        world.call(&agent).await;
        let (mut app, _, shown) = Ws::accept_signed(&listener).await;
        let mut mac = Hmac::<Sha1>::new_from_slice(b"12345").expect("any length");
        mac.update(url.as_bytes());
        assert_eq!(shown, Some(STANDARD.encode(mac.finalize().into_bytes())));
        app.wait("setup").await;
        app.send(&json!({ "type": "end" })).await;
        assert_eq!(app.next().await, Came::Closed(1000));
        world.far.wait("BYE").await;
    });
}
