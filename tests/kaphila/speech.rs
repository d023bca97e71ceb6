//! `/voice` and `/play`: what is answered, what is heard, in which order.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::audio::{chirp, heard_seconds, likeness};
use crate::harness::{go, number, until, world};
use crate::receiver::Receiver;
use crate::sipp::Sipp;
use crate::uas::{Script, Uas};

#[test]
fn t44_speech_is_heard_soon_after_the_answer() {
    go(async {
        let far = Uas::answering().await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let hooks = Receiver::start().await;
        let call = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        let sound = far.sound().await;
        let text = "Hello, this is a reminder call.";
        let answer = key.post("/voice", &json!({"callId": call, "text": text})).await;
        let answered_at = Instant::now();
        let body = answer.expect(200);
        assert_eq!((&body["message"], &body["text"]), (&json!("TTS played successfully"), &json!(text)));
        assert_eq!((&body["success"], &body["method"]), (&json!(true), &json!("bridge")));
        let id = body["playbackId"].as_str().expect("a playback").to_owned();
        let stamp = id.strip_prefix(&format!("tts-{call}-")).expect("the call's id");
        assert!(stamp.len() == 13 && stamp.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        until(1.5, "speech is heard", async || {
            sound.heard().iter().find(|packet| packet.heard()).map(|packet| packet.at)
        })
        .await;
        let played = hooks.wait("tts.played").await.json;
        assert_eq!((&played["playbackId"], &played["text"]), (&json!(id), &json!(text)));
        assert_eq!((&played["method"], &played["completed"]), (&json!("bridge"), &json!(true)));
        let heard = heard_seconds(&sound.samples_since(answered_at - Duration::from_secs(2)));
        assert!((0.8..6.0).contains(&heard), "{heard} s of speech");
        key.hang_up(&call).await;
    });
}

#[test]
fn t45_before_the_answer_nothing_can_be_said() {
    go(async {
        let far = Uas::start(Script::Ring).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        world().await.server.put_sound("custom/early.wav", &chirp(0.2));
        let call = key.call(&json!({"number": number("0100")})).await;
        let body = json!({"callId": call, "text": "hello", "file": "custom/early"});
        for path in ["/voice", "/play", "/gather"] {
            let answer = key.post(path, &body).await;
            assert_eq!(answer.refused(400), "Call is not answered", "{path}");
            assert_eq!(answer.json()["code"], "CALL_NOT_ANSWERED");
        }
        key.hang_up(&call).await;
    });
}

#[test]
fn t46_two_speeches_follow_one_another() {
    go(async {
        let (key, hooks) = (world().await.key("10"), Receiver::start().await);
        let call = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        let mut ids = Vec::new();
        for text in ["This is the first of two sentences.", "And this is the second of the two sentences."] {
            let answer = key.post("/voice", &json!({"callId": call, "text": text})).await.expect(200);
            ids.push(answer["playbackId"].clone());
        }
        assert_ne!(ids[0], ids[1]);
        let second = hooks.wait_nth("tts.played", 2).await;
        let first = hooks.wait("tts.played").await;
        assert_eq!([&first.json["playbackId"], &second.json["playbackId"]], [&ids[0], &ids[1]]);
        assert!((second.at - first.at).as_secs_f64() > 0.8, "the second was spoken after the first");
        key.hang_up(&call).await;
    });
}

#[test]
fn t47_a_long_text_does_not_hold_the_request_and_is_cut_by_hanging_up() {
    go(async {
        let (key, hooks, to) = (world().await.key("10"), Receiver::start().await, number("0100"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        let text = "This sentence is one of the many that take up half a minute. ".repeat(9);
        let answer = key.post("/voice", &json!({"callId": call, "text": text})).await;
        answer.expect(200);
        assert!(answer.took < Duration::from_millis(1500), "{:?}", answer.took);
        key.hang_up(&call).await;
        hooks.wait("call.ended").await;
        let played = hooks.wait("tts.played").await.json;
        assert_eq!(played["completed"], false, "{played}");
        assert_eq!(
            hooks.events().iter().rposition(|name| name == "tts.played").map(|at| at + 1),
            hooks.events().iter().position(|name| name == "call.ended")
        );
    });
}

#[test]
fn t48_t49_a_sound_file_is_heard_as_it_is() {
    go(async {
        let world = world().await;
        let sound = chirp(1.0);
        let (key, to) = (world.key("10"), number("0100"));
        let call = key.answered_call(&json!({"number": to})).await;
        let answer = key.post("/play", &json!({"callId": call, "file": "custom/welcome"})).await.expect(200);
        assert_eq!(
            (&answer["message"], &answer["file"]),
            (&json!("Audio file played: custom/welcome"), &json!("custom/welcome"))
        );
        assert_eq!((&answer["method"], &answer["success"]), (&json!("bridge"), &json!(true)));
        assert!(
            answer["playbackId"].as_str().is_some_and(|id| id.starts_with(&format!("play-{call}-"))),
            "{answer}"
        );
        let missing = key.post("/play", &json!({"callId": call, "file": "custom/nothing"})).await;
        assert_eq!(missing.refused(404), "Sound file not found");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        key.hang_up(&call).await;
        let heard = world.carrier.call(&to).await.heard();
        let template: Vec<f64> = sound.into_iter().map(f64::from).collect();
        let score = likeness(&template, &heard);
        assert!(score > 0.9, "{score}");
    });
}

#[test]
fn x18_names_of_sounds_stay_inside_the_sounds() {
    go(async {
        let world = world().await;
        std::fs::write(world.server.home.join("secret.wav"), "not a sound").expect("the home can be written");
        let key = world.key("10");
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let long = "a".repeat(10_000);
        let bad = [
            "../../etc/passwd",
            "../secret",
            "/etc/passwd",
            "a\0b",
            "a//b",
            "a/",
            "",
            "a.wav",
            "..",
            "a b",
            "ä",
            &long,
            "a\\b",
        ];
        for file in bad {
            let answer = key.post("/play", &json!({"callId": call, "file": file})).await;
            assert_eq!(answer.status, 400, "{file:.40}: {}", answer.json());
        }
        key.hang_up(&call).await;
    });
}

#[test]
fn the_queue_of_speeches_is_bounded() {
    go(async {
        let key = world().await.key("10");
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let body = json!({"callId": call, "text": "One more sentence for the queue, and it is a long one."});
        let mut statuses = Vec::new();
        for _ in 0..23 {
            statuses.push(key.post("/voice", &body).await.status);
        }
        let taken = statuses.iter().filter(|status| **status == 200).count();
        assert!((20..=21).contains(&taken), "{statuses:?}");
        assert_eq!(statuses.last(), Some(&429));
        key.hang_up(&call).await;
    });
}

#[test]
fn x37_markup_is_read_as_text() {
    go(async {
        let (key, hooks, to) = (world().await.key("10"), Receiver::start().await, number("0100"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        for text in ["x".repeat(5001), "é".repeat(5001)] {
            key.post("/voice", &json!({"callId": call, "text": text})).await.refused(400);
        }
        let text = "<speak>Hi <break time=\"60s\"/> &amp; \u{1}bye</speak>";
        let answer = key.post("/voice", &json!({"callId": call, "text": text})).await.expect(200);
        assert!(answer["text"].as_str().is_some_and(|echo| echo.contains("<break time=")), "{answer}");
        hooks.wait("tts.played").await;
        let laughs = "<!DOCTYPE x [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]><x>&b;</x>";
        key.post("/voice", &json!({"callId": call, "text": laughs})).await.expect(200);
        hooks.wait_nth("tts.played", 2).await;
        key.hang_up(&call).await;
        // The words of the markup take their time, and its pause of a minute was not made.
        let heard = heard_seconds(&world().await.carrier.call(&to).await.heard());
        assert!((2.5..50.0).contains(&heard), "{heard}");
    });
}

#[test]
fn what_sipp_echoes_is_in_the_recording() {
    go(async {
        let world = world().await;
        world.server.put_sound("custom/echo.wav", &chirp(0.6));
        let mut far = Sipp::start("answer", 1).await;
        let (key, _) = world.key_on("10", &[far.addr]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        // To the far end alone: what the recording holds of it has been to SIPp and back.
        let body = json!({"callId": call, "file": "custom/echo", "playTo": "channel"});
        assert_eq!(key.post("/play", &body).await.expect(200)["method"], "channel");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        key.hang_up(&call).await;
        far.went_well().await;
        let ended = key.wait_ended(&call).await;
        assert_eq!(ended["status"], "completed");
        let wav = crate::recordings::finished(&key, &call).await;
        let template: Vec<f64> = chirp(0.6).into_iter().map(f64::from).collect();
        let score = likeness(&template, &crate::audio::read_wav(&wav));
        assert!(score > 0.9, "{score}");
    });
}
