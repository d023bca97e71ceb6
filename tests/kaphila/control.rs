//! Hanging up, and what is said of live calls.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Server, go, number, until, world};
use crate::receiver::Receiver;
use crate::sipp::Sipp;
use crate::uas::{Script, Uas};

#[test]
fn t41_a_live_call_is_hung_up_at_once() {
    go(async {
        let far = Uas::answering().await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let hooks = Receiver::start().await;
        let call = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        let asked = Instant::now();
        let answer = key.post("/hangup", &json!({"callId": call})).await.expect(200);
        let expected = json!({"success": true, "message": format!("Call {call} terminated"), "callId": call});
        assert_eq!(answer, expected);
        let bye = far.wait("BYE").await;
        assert!((bye.at - asked).as_secs_f64() < 0.5, "{:?}", bye.at - asked);
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["status"], &ended["endReason"]), (&json!("completed"), &json!("api_hangup")));
        assert_eq!(ended["hangupCause"], "16");
        until(1.0, "the ended call is gone", async || {
            let answer = key.post("/hangup", &json!({"callId": call})).await;
            (answer.status == 404).then(|| assert_eq!(answer.refused(404), "Call not found"))
        })
        .await;
    });
}

#[test]
fn sipp_answers_and_is_hung_up_on() {
    go(async {
        let mut far = Sipp::start("answer", 3).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        for _ in 0..3 {
            let call = key.answered_call(&json!({"number": number("0100")})).await;
            key.hang_up(&call).await;
            assert_eq!(key.wait_ended(&call).await["status"], "completed");
        }
        far.went_well().await;
        assert_eq!(key.credits().await, 7);
    });
}

#[test]
fn t42_a_ringing_call_is_cancelled() {
    go(async {
        let mut far = Sipp::start("ring", 1).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let hooks = Receiver::start().await;
        let call = key.call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        key.hang_up(&call).await;
        assert_eq!(key.wait_ended(&call).await["status"], "canceled");
        far.went_well().await;
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["endReason"], &ended["hangupCause"]), (&json!("canceled"), &json!("16")));
        assert_eq!(key.credits().await, 10);
    });
}

#[test]
fn x16_an_answer_that_crosses_the_cancel_is_acknowledged_and_ended() {
    go(async {
        let mut far = Sipp::start("late_answer", 1).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let hooks = Receiver::start().await;
        let call = key.call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
        key.hang_up(&call).await;
        assert_eq!(key.wait_ended(&call).await["status"], "canceled");
        far.went_well().await;
        assert_eq!(hooks.wait("call.ended").await.json["status"], "canceled");
        assert_eq!(hooks.events(), ["call.initiated", "call.ended"]);
        assert_eq!(key.credits().await, 10);

        // The same of the built-in far end, which writes down that it was cancelled and yet answered.
        let to = number("0504");
        let key = world().await.key("10");
        let call = key.call(&json!({"number": to})).await;
        key.hang_up(&call).await;
        assert_eq!(key.wait_ended(&call).await["status"], "canceled");
        let line = world().await.carrier.call(&to).await.line;
        assert_eq!((&line["cancelled"], &line["endedBy"]), (&json!(true), &json!("them")), "{line}");
        assert_eq!(key.credits().await, 10);
    });
}

#[test]
fn hanging_up_in_the_ring_and_at_the_answer_gives_one_end() {
    go(async {
        // Hang-ups sent all along the moment of the answer: whatever wins, one end and honest money.
        let world = world().await;
        for delay_ms in [0, 150, 190, 200, 205, 210, 250] {
            let far = Uas::answering().await;
            let (key, _) = world.key_on("1", &[far.addr]);
            let hooks = Receiver::start().await;
            let call = key.call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
            tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
            key.hang_up(&call).await;
            let status = key.wait_ended(&call).await["status"].clone();
            let ended = hooks.wait("call.ended").await.json;
            assert_eq!(ended["status"], status);
            let answered = ended["wasAnswered"] == true;
            assert_eq!(status, if answered { "completed" } else { "canceled" });
            assert_eq!(key.credits().await, i64::from(!answered));
            assert_eq!(hooks.count("call.ended"), 1);
        }
    });
}

#[test]
fn t59_t61_live_calls_are_told_to_their_key_alone() {
    go(async {
        let world = world().await;
        let (key, stranger) = (world.key("10"), world.key("10"));
        let to = number("0100");
        let call = key.answered_call(&json!({"number": to})).await;
        let list = key.get("/calls").await.expect(200);
        assert_eq!(
            (&list["success"], &list["totalCalls"], &list["activeCalls"]),
            (&json!(true), &json!(1), &json!(1))
        );
        let row = list["calls"][0].as_object().expect("a row");
        let names: BTreeSet<_> = row.keys().map(String::as_str).collect();
        let documented =
            ["callId", "status", "number", "amd", "gather", "recording", "voiceName", "hasBridge"];
        assert!(documented.iter().all(|name| names.contains(name)), "{names:?}");
        assert_eq!(
            (&row["callId"], &row["number"], &row["hasBridge"]),
            (&json!(call), &json!(to), &json!(true))
        );
        assert_eq!((&row["gather"], &row["status"]), (&Value::Null, &json!("answered")));
        assert_eq!(row["amd"], json!({"status": "NOAMD", "cause": null, "confidence": null}));
        assert_eq!(
            (&row["recording"]["active"], &row["recording"]["method"]),
            (&json!(true), &json!("bridge"))
        );

        let one = key.get(&format!("/calls/{call}")).await.expect(200);
        for name in ["success", "callId", "status", "number", "amd", "recording", "hasBridge", "hasSnoop"] {
            assert!(one.get(name).is_some(), "{name}: {one}");
        }
        assert_eq!(one["hasSnoop"], false);

        let other = stranger.get("/calls").await.expect(200);
        assert_eq!((&other["totalCalls"], &other["calls"]), (&json!(0), &json!([])));
        key.hang_up(&call).await;
        until(1.5, "the ended call is not found", async || {
            (key.get(&format!("/calls/{call}")).await.status == 404).then_some(())
        })
        .await;
        assert_eq!(key.get("/calls").await.expect(200)["totalCalls"], 0);
    });
}

#[test]
fn x2_another_keys_call_is_an_unknown_call() {
    go(async {
        let world = world().await;
        let (key, stranger) = (world.key("10"), world.key("10"));
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        let body = json!({"callId": call, "text": "hello", "file": "custom/welcome"});
        for path in ["/hangup", "/voice", "/play", "/gather"] {
            assert_eq!(stranger.post(path, &body).await.refused(404), "Call not found", "{path}");
        }
        let filename = key.get(&format!("/recordings/{call}")).await.expect(200)["filename"].clone();
        let filename = filename.as_str().expect("a name");
        for path in [
            format!("/calls/{call}"),
            format!("/recordings/{call}"),
            format!("/recordings/{call}/download"),
            format!("/recordings/file/{filename}/download"),
        ] {
            stranger.get(&path).await.refused(404);
        }
        stranger.post(&format!("/recordings/{call}/stop"), &json!({})).await.refused(404);
        assert_eq!(key.get(&format!("/calls/{call}")).await.expect(200)["recording"]["active"], true);
        key.hang_up(&call).await;
        key.wait_ended(&call).await;
        stranger.get(&format!("/recordings/file/{filename}/download")).await.refused(404);
        assert_eq!(stranger.get("/recordings").await.expect(200)["files"], json!([]));
    });
}

#[test]
fn the_far_end_may_hold_the_call_and_take_it_back() {
    go(async {
        let world = world().await;
        let (key, hooks, to) = (world.key("10"), Receiver::start().await, number("0503"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        tokio::time::sleep(std::time::Duration::from_millis(4500)).await;
        key.post("/voice", &json!({"callId": call, "text": "Are you there again?"})).await.expect(200);
        assert_eq!(hooks.wait("tts.played").await.json["completed"], true);
        key.hang_up(&call).await;
        let far = world.carrier.call(&to).await;
        let heard = far.heard();
        assert!(
            crate::audio::heard_seconds(&heard[heard.len().min(4 * 8000)..]) > 0.3,
            "heard after the hold"
        );
    });
}

#[test]
fn a_bad_answer_fails_the_call_cleanly() {
    go(async {
        let garbled = Uas::start(Script::AnswerWith("v=0\r\nm=audio -5 RTP/AVP x\r\n".into())).await;
        let (key, _) = world().await.key_on("10", &[garbled.addr]);
        let answer = key.post("/makecall", &json!({"number": number("0100")})).await;
        assert!([200, 500].contains(&answer.status), "{}", answer.json());
        let logs = key.post("/api/call-logs", &json!({})).await.expect(200);
        let call = logs["logs"][0]["call_id"].as_str().expect("a row").to_owned();
        assert_eq!(key.wait_ended(&call).await["status"], "failed");
        garbled.wait("BYE").await;
        assert_eq!(key.credits().await, 10);
    });
}

#[test]
fn a_call_without_sound_or_without_end_is_ended() {
    go(async {
        let settings = [("LIMITS__MEDIA_TIMEOUT_S", "2"), ("LIMITS__MAX_CALL_DURATION_S", "5")];
        let server = Server::start("limits", &settings).await;
        for (mute, reason, cause, seconds) in
            [(true, "media_timeout", "41", 2.0), (false, "max_duration", "102", 5.0)]
        {
            let far = Uas::answering().await;
            let (key, _) = server.key_on("10", &[far.addr]);
            let hooks = Receiver::start().await;
            key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
            if mute {
                far.sound().await.mute();
            }
            let since = Instant::now();
            let ended = hooks.wait("call.ended").await;
            assert_eq!(
                (&ended.json["endReason"], &ended.json["hangupCause"]),
                (&json!(reason), &json!(cause))
            );
            let lasted = (ended.at - since).as_secs_f64();
            assert!((lasted - seconds).abs() < 1.0, "{reason} after {lasted} s");
            far.wait("BYE").await;
        }
    });
}
