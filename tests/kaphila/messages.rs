//! Webhooks: their order, their words, their signature, answering-machine verdicts, and receivers that misbehave.

use std::time::Duration;

use serde_json::{Value, json};

use crate::carrier::seconds;
use crate::harness::{go, number, until, world};
use crate::receiver::{Receiver, genuine};

#[test]
fn t32_t33_t34_t35_t38_t81_a_plain_calls_events() {
    go(async {
        let world = world().await;
        let key = world.key("10");
        let hooks = Receiver::start().await;
        let to = number("0403");
        let call = key.call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        let completed = hooks.wait("recording.completed").await;
        let wav = key.get(&format!("/recordings/{call}/download")).await;
        assert_eq!(wav.status, 200);
        assert_eq!(completed.json["size"], wav.body.len(), "the file is whole when it is said to be");

        let events = hooks.events();
        let expected =
            ["call.initiated", "call.answered", "recording.started", "call.ended", "recording.completed"];
        assert_eq!(events, expected);
        for (index, delivery) in hooks.all().iter().enumerate() {
            let body = &delivery.json;
            assert_eq!(delivery.method, "POST");
            assert_eq!(delivery.header("content-type"), "application/json");
            assert_eq!(delivery.header("user-agent"), "Kaphila-API-API/2.0");
            assert_eq!((&body["callId"], &body["number"]), (&json!(call), &json!(to)), "{body}");
            assert_eq!(body["sequence"], index + 1, "{body}");
            assert!(
                body["timestamp"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')),
                "{body}"
            );
            assert_eq!(delivery.header("x-webhook-attempt"), "1");
            assert!(delivery.header("webhook-id").starts_with("evt_"));
            assert!(genuine(&key.webhook_secret, delivery, &delivery.body), "{body}");
            let mut altered = delivery.body.clone();
            altered[10] ^= 1;
            assert!(!genuine(&key.webhook_secret, delivery, &altered));
            let sent: i64 = delivery.header("webhook-timestamp").parse().expect("unix seconds");
            assert!((delivery.wall.as_second() - sent).abs() <= 5);
        }
        let status: Vec<_> = hooks.all().iter().map(|delivery| delivery.json["status"].clone()).collect();
        assert_eq!(status[..2], ["ringing", "answered"]);

        let far = world.carrier.call(&to).await;
        let answered = hooks.wait("call.answered").await;
        let noamd = json!({"status": "NOAMD", "cause": null, "confidence": null});
        assert_eq!(answered.json["amd"], noamd);
        let late = seconds(far.time("answeredAt"), answered.wall);
        assert!(late < 0.5, "call.answered {late} s after the 200 OK");

        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["status"], &ended["endReason"]), (&json!("completed"), &json!("normal_hangup")));
        assert_eq!((&ended["hangupCause"], &ended["wasAnswered"]), (&json!("16"), &json!(true)));
        assert_eq!((&ended["amd"], &ended["callDuration"]), (&noamd, &json!(3)));
        assert_eq!(ended["recording"]["active"], false);
        let id = ended["recording"]["recordingId"].as_str().expect("a recording");
        assert_eq!(ended["recording"]["filename"], format!("{id}.wav"));
        let log = key.wait_ended(&call).await;
        assert_eq!(
            (&log["status"], &log["duration"], &log["number"]),
            (&json!("completed"), &json!(3), &json!(to))
        );
        assert_eq!(far.line["endedBy"], "us", "the far end hung up");
    });
}

/// Places a screened call; `call.answered` and how long after the 200 OK it came.
async fn screened(digits: &str) -> (Value, f64, Vec<String>) {
    let world = world().await;
    let (key, hooks, to) = (world.key("10"), Receiver::start().await, number(digits));
    let call = key.call(&json!({"number": to, "webhookUrl": hooks.url(), "useAmd": true})).await;
    let answered = hooks.wait("call.answered").await;
    // The far end may be the one that hangs up.
    let _ = key.post("/hangup", &json!({"callId": call})).await;
    hooks.wait("recording.completed").await;
    let far = world.carrier.call(&to).await;
    (answered.json["amd"].clone(), seconds(far.time("answeredAt"), answered.wall), hooks.events())
}

const CAUSES: [&str; 8] = [
    "INITIALSILENCE",
    "HUMAN",
    "LONGGREETING",
    "MAXWORDS",
    "MAXWORDLENGTH",
    "TOOLONG",
    "NOAUDIODATA",
    "HANGUP",
];

#[test]
fn t36_a_person_is_heard_as_one() {
    go(async {
        for digits in ["0100", "0101"] {
            let (amd, after, events) = screened(digits).await;
            assert_eq!(amd["status"], "HUMAN", "{digits}: {amd}");
            assert!(CAUSES.contains(&amd["cause"].as_str().unwrap_or_default()), "{amd}");
            assert!(amd["confidence"].as_f64().is_some_and(|part| (0.0..=1.0).contains(&part)), "{amd}");
            assert!(after < 5.5, "{after} s");
            let expected =
                ["call.initiated", "recording.started", "call.answered", "call.ended", "recording.completed"];
            assert_eq!(events, expected);
        }
    });
}

#[test]
fn t37_a_voicemail_is_heard_as_one() {
    go(async {
        let (amd, after, _) = screened("0200").await;
        assert_eq!(amd["status"], "MACHINE", "{amd}");
        assert!(CAUSES.contains(&amd["cause"].as_str().unwrap_or_default()), "{amd}");
        assert!(after < 5.5, "{after} s");
    });
}

#[test]
fn t39_hanging_up_while_screened_is_still_an_answered_call() {
    go(async {
        let (key, hooks) = (world().await.key("10"), Receiver::start().await);
        key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url(), "useAmd": true})).await;
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["wasAnswered"], &ended["status"]), (&json!(true), &json!("completed")));
        let answered = hooks.wait("call.answered").await.json;
        assert_eq!(
            (&answered["amd"]["status"], &answered["amd"]["cause"]),
            (&json!("UNKNOWN"), &json!("HANGUP"))
        );
        let events = hooks.events();
        let place = |name: &str| events.iter().position(|event| event == name);
        assert!(place("call.answered") < place("call.ended"), "{events:?}");
        assert_eq!(hooks.count("call.ended"), 1);
    });
}

#[test]
fn an_undecided_call_shows_no_verdict_and_listens() {
    go(async {
        let key = world().await.key("10");
        let call = key.answered_call(&json!({"number": number("0200"), "useAmd": true})).await;
        let path = format!("/calls/{call}");
        let now = key.get(&path).await.expect(200);
        assert_eq!((&now["amd"], &now["hasSnoop"]), (&Value::Null, &json!(true)), "{now}");
        let later = until(8.0, "there is a verdict", async || {
            let call = key.get(&path).await.expect(200);
            (!call["amd"].is_null()).then_some(call)
        })
        .await;
        assert_eq!((&later["amd"]["status"], &later["hasSnoop"]), (&json!("MACHINE"), &json!(false)));
        key.hang_up(&call).await;
        assert_eq!(key.wait_ended(&call).await["amd_status"], "MACHINE");
    });
}

#[test]
fn x13_terminal_events_are_repeated_and_live_ones_only_if_nobody_can_have_read_them() {
    go(async {
        // A 500 may have been acted on, so live events are not repeated; the end of the call is.
        let hooks = Receiver::ruled(|_, before| (if before < 4 { 500 } else { 200 }, Duration::ZERO)).await;
        let key = world().await.key("10");
        key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url()})).await;
        hooks.wait("recording.completed").await;
        for live in ["call.initiated", "call.answered", "recording.started"] {
            assert_eq!(hooks.count(live), 1, "{:?}", hooks.events());
        }
        let ended: Vec<_> =
            hooks.all().into_iter().filter(|delivery| delivery.event() == "call.ended").collect();
        assert_eq!(ended.len(), 2, "{:?}", hooks.events());
        for (index, delivery) in ended.iter().enumerate() {
            assert_eq!(delivery.header("webhook-id"), ended[0].header("webhook-id"));
            assert_eq!(delivery.header("x-webhook-attempt"), (index + 1).to_string());
            assert_eq!(delivery.body, ended[0].body);
            assert!(genuine(&key.webhook_secret, delivery, &delivery.body));
        }
        assert_eq!(hooks.events().last().map(String::as_str), Some("recording.completed"));
    });
}

#[test]
fn a_busy_receiver_gets_live_events_again_and_in_order() {
    go(async {
        let hooks = Receiver::ruled(|_, before| (if before == 0 { 503 } else { 200 }, Duration::ZERO)).await;
        let key = world().await.key("10");
        key.call(&json!({"number": number("0403"), "webhookUrl": hooks.url()})).await;
        hooks.wait("recording.completed").await;
        let expected = [
            "call.initiated",
            "call.initiated",
            "call.answered",
            "recording.started",
            "call.ended",
            "recording.completed",
        ];
        assert_eq!(hooks.events(), expected);
    });
}

#[test]
fn gone_means_gone() {
    go(async {
        let hooks = Receiver::ruled(|_, before| (if before == 1 { 410 } else { 200 }, Duration::ZERO)).await;
        let key = world().await.key("10");
        let call = key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url()})).await;
        key.wait_ended(&call).await;
        // A later call to a receiver that is content is delivered whole, so the worker has come by.
        let other = Receiver::start().await;
        key.call(&json!({"number": number("0400"), "webhookUrl": other.url()})).await;
        other.wait("recording.completed").await;
        assert_eq!(hooks.events(), ["call.initiated", "call.answered"]);
    });
}

#[test]
fn a_slow_receiver_delays_only_its_own_call() {
    go(async {
        const SLOW: f64 = 4.0;
        let slow = Receiver::ruled(|_, _| (200, Duration::from_secs_f64(SLOW))).await;
        let quick = Receiver::start().await;
        let key = world().await.key("20");
        let mut calls = Vec::new();
        for _ in 0..3 {
            calls.push(key.call(&json!({"number": number("0400"), "webhookUrl": slow.url()})).await);
        }
        key.call(&json!({"number": number("0400"), "webhookUrl": quick.url()})).await;
        quick.wait("recording.completed").await;
        let times: Vec<_> = quick.all().iter().map(|delivery| delivery.at).collect();
        assert!((*times.last().expect("events") - times[0]).as_secs_f64() < SLOW);
        let first = slow.wait_nth("call.initiated", 3).await;
        assert!((first.at - slow.all()[0].at).as_secs_f64() < SLOW, "each call has a lane of its own");
        slow.wait_nth("call.answered", 3).await;
        for call in calls {
            let lane: Vec<_> =
                slow.all().into_iter().filter(|delivery| delivery.json["callId"] == call).collect();
            let gaps = lane.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64());
            assert!(gaps.into_iter().all(|gap| gap > SLOW - 0.1), "one at a time in a lane");
        }
    });
}

#[test]
fn x11_a_redirecting_receiver_is_not_followed() {
    go(async {
        let hooks = Receiver::ruled(|_, _| (302, Duration::ZERO)).await;
        let key = world().await.key("10");
        let call = key.call(&json!({"number": number("0400"), "webhookUrl": hooks.url()})).await;
        key.wait_ended(&call).await;
        let again = hooks.wait_nth("call.ended", 2).await;
        assert_eq!(
            again.header("x-webhook-attempt"),
            "2",
            "a redirect is a failure, and the event is terminal"
        );
    });
}

#[test]
fn while_a_secret_is_rotated_both_sign() {
    go(async {
        let server = &world().await.server;
        let old = world().await.key("10");
        let made = server.cli(&["keys", "rotate", &old.key_id]);
        let new = crate::api::Key::new(server.http, &made);
        assert_ne!((&new.key, &new.webhook_secret), (&old.key, &old.webhook_secret));
        let hooks = Receiver::start().await;
        old.call(&json!({"number": number("0304"), "webhookUrl": hooks.url()})).await;
        let ended = hooks.wait("call.ended").await;
        for key in [&old, &new] {
            assert!(genuine(&key.webhook_secret, &ended, &ended.body));
            key.get("/api/me").await.expect(200);
        }
        assert_eq!(ended.header("webhook-signature").split(' ').count(), 2);
    });
}
