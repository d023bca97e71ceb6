//! Gathering digits: how many, how long, how they are pressed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Key;
use crate::harness::{go, number, until, world};
use crate::receiver::Receiver;
use crate::uas::Uas;

/// An answered call at the tests' own far end.
async fn own_far_end(hooks: &Receiver) -> (Uas, Key, String) {
    let far = Uas::answering().await;
    let (key, _) = world().await.key_on("10", &[far.addr]);
    let call = key.answered_call(&json!({"number": number("0100"), "webhookUrl": hooks.url()})).await;
    (far, key, call)
}

/// Waits until the one live call shows such a gather.
async fn shown(key: &Key, what: &str, is: impl Fn(&Value) -> bool) {
    until(1.0, &format!("GET /calls shows {what}"), async || {
        let calls = key.get("/calls").await.expect(200);
        is(&calls["calls"][0]["gather"]).then_some(())
    })
    .await;
}

fn field<'a>(hooks: &'a [crate::receiver::Delivery], event: &str, name: &str) -> Vec<&'a Value> {
    hooks.iter().filter(|delivery| delivery.event() == event).map(|delivery| &delivery.json[name]).collect()
}

#[test]
fn t51_four_digits_are_told_one_by_one_and_whole() {
    go(async {
        let world = world().await;
        let (key, hooks, to) = (world.key("10"), Receiver::start().await, number("0110"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        let body = json!({"callId": call, "text": "Please enter your four digit pin now.", "numDigits": 4, "timeout": 12000});
        let answer = key.post("/gather", &body).await.expect(200);
        let expected = json!({
            "success": true, "message": "Gathering 4 digits with 12000ms timeout", "callId": call,
            "expectedDigits": 4, "timeoutMs": 12000,
        });
        assert_eq!(answer, expected);
        let complete = hooks.wait("gather.complete").await;
        assert_eq!(complete.json["digits"], "1234");
        let all = hooks.all();
        let started = field(&all, "gather.started", "expectedDigits");
        assert_eq!(started, [&json!(4)]);
        assert_eq!(field(&all, "gather.progress", "digit"), ["1", "2", "3", "4"]);
        assert_eq!(field(&all, "gather.progress", "digits"), ["1", "12", "123", "1234"]);
        assert_eq!(field(&all, "gather.progress", "remaining"), [3, 2, 1, 0]);
        assert_eq!(field(&all, "dtmf.received", "digit"), ["1", "2", "3", "4"]);
        let events = hooks.events();
        let order: Vec<_> =
            events.iter().filter(|name| name.contains("dtmf") || name.contains("progress")).collect();
        assert!(order.chunks(2).all(|pair| pair == ["dtmf.received", "gather.progress"]), "{order:?}");
        assert_eq!(hooks.count("tts.played"), 0, "a gather's prompt is not told");
        shown(&key, "no gather", Value::is_null).await;
        key.hang_up(&call).await;
        let far = world.carrier.call(&to).await;
        assert_eq!(far.line["dtmf"], json!([]), "nobody pressed keys at the far end's ear");
    });
}

#[test]
fn t52_defaults_are_one_digit_and_ten_seconds() {
    go(async {
        let world = world().await;
        let (key, hooks) = (world.key("10"), Receiver::start().await);
        let call = key.answered_call(&json!({"number": number("0102"), "webhookUrl": hooks.url()})).await;
        let answer = key
            .post("/gather", &json!({"callId": call, "text": "Press one or two, please."}))
            .await
            .expect(200);
        assert_eq!((&answer["expectedDigits"], &answer["timeoutMs"]), (&json!(1), &json!(10000)));
        assert_eq!(answer["message"], "Gathering 1 digits with 10000ms timeout");
        assert_eq!(hooks.wait("gather.complete").await.json["digits"], "2");
        key.hang_up(&call).await;
    });
}

#[test]
fn t53_without_a_digit_the_time_runs_from_the_prompts_end() {
    go(async {
        let hooks = Receiver::start().await;
        let (far, key, call) = own_far_end(&hooks).await;
        let sound = far.sound().await;
        let body = json!({"callId": call, "text": "Is anybody there?", "timeout": 2000});
        key.post("/gather", &body).await.expect(200);
        let timeout = hooks.wait("gather.timeout").await;
        assert_eq!((&timeout.json["digits"], &timeout.json["reason"]), (&json!(""), &json!("timeout")));
        let prompt_end = sound.last_heard().expect("the prompt was heard");
        let waited = (timeout.at - prompt_end).as_secs_f64();
        assert!((waited - 2.0).abs() < 0.5, "{waited} s after the prompt");
        key.hang_up(&call).await;
    });
}

#[test]
fn t54_t55_t57_digits_barge_in_are_counted_once_and_kept_at_the_timeout() {
    go(async {
        let hooks = Receiver::start().await;
        let (far, key, call) = own_far_end(&hooks).await;
        let sound = far.sound().await;
        let text = "This is a very long prompt which nobody wants to hear to its end, so that somebody will press a \
                    key while it is still being spoken, and then it has to be quiet at once and not go on and on.";
        let body = json!({"callId": call, "text": text, "numDigits": 4, "timeout": 3000});
        key.post("/gather", &body).await.expect(200);
        until(5.0, "the prompt is heard", async || sound.last_heard()).await;
        sound.press('1', 3);
        let first = hooks.wait("dtmf.received").await;
        let pressed = sound.pressed()[0];
        assert!((first.at - pressed).as_secs_f64() < 1.0);
        sound.press('2', 3);
        let timeout = hooks.wait("gather.timeout").await;
        assert_eq!(timeout.json["digits"], "12");
        let total = (timeout.at - pressed).as_secs_f64();
        assert!((total - 3.0).abs() < 0.5, "the time runs from the first digit: {total}");
        let quiet = sound.last_heard().expect("the prompt was heard");
        let cut = quiet.saturating_duration_since(pressed);
        assert!(cut < Duration::from_millis(300), "the prompt went on for {cut:?}");
        assert_eq!(hooks.count("dtmf.received"), 2, "{:?}", hooks.events());
        assert_eq!(hooks.count("gather.progress"), 2);

        // Outside a gather a key press is told too, once, however often its end is told.
        sound.press('#', 5);
        assert_eq!(hooks.wait_nth("dtmf.received", 3).await.json["digit"], "#");
        sound.press('#', 1);
        sound.press('#', 3);
        hooks.wait_nth("dtmf.received", 5).await;
        key.hang_up(&call).await;
        hooks.wait("call.ended").await;
        assert_eq!(hooks.count("dtmf.received"), 5, "three key presses, three events");
    });
}

#[test]
fn t56_a_tone_in_the_sound_is_a_digit_too() {
    go(async {
        let world = world().await;
        let (key, hooks, to) = (world.key("10"), Receiver::start().await, number("0112"));
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        key.post("/gather", &json!({"callId": call, "text": "Please press five, right now."}))
            .await
            .expect(200);
        assert_eq!(hooks.wait("gather.complete").await.json["digits"], "5");
        key.hang_up(&call).await;
        hooks.wait("call.ended").await;
        assert_eq!(hooks.count("dtmf.received"), 1, "one key press is one digit");
    });
}

#[test]
fn t58_t60_one_gather_at_a_time_unless_replaced() {
    go(async {
        let hooks = Receiver::start().await;
        let (_far, key, call) = own_far_end(&hooks).await;
        let body = json!({"callId": call, "text": "Press three keys.", "numDigits": 3});
        key.post("/gather", &body).await.expect(200);
        let expected = json!({"active": true, "expectedDigits": 3, "digits": "", "timeoutMs": 10000});
        shown(&key, "the gather", |gather| *gather == expected).await;
        assert_eq!(key.post("/gather", &body).await.refused(409), "Gather already in progress");
        let replace = json!({"callId": call, "text": "Press one key.", "numDigits": 1, "replace": true});
        key.post("/gather", &replace).await.expect(200);
        shown(&key, "the gather that replaces it", |gather| gather["expectedDigits"] == 1).await;
        key.hang_up(&call).await;
        let ended = hooks.wait("call.ended").await;
        let all = hooks.all();
        let reasons = field(&all, "gather.timeout", "reason");
        assert_eq!(reasons.last(), Some(&&json!("hangup")), "{:?}", hooks.events());
        let events = hooks.events();
        let place = |name: &str| events.iter().rposition(|event| event == name);
        assert!(place("gather.timeout") < place("call.ended"), "{events:?}");
        assert_eq!(ended.json["endReason"], "api_hangup");
    });
}

#[test]
fn a_finishing_key_ends_the_gather() {
    go(async {
        let hooks = Receiver::start().await;
        let (far, key, call) = own_far_end(&hooks).await;
        let sound = far.sound().await;
        let body =
            json!({"callId": call, "text": "Your number, and hash.", "numDigits": 10, "finishOnKey": "#"});
        key.post("/gather", &body).await.expect(200);
        for (nth, press) in ["7", "*", "#"].into_iter().enumerate() {
            sound.press(press.chars().next().expect("a key"), 3);
            hooks.wait_nth("dtmf.received", nth + 1).await;
        }
        assert_eq!(hooks.wait("gather.complete").await.json["digits"], "7*");
        far.bye().await;
        assert_eq!(hooks.wait("call.ended").await.json["endReason"], "normal_hangup");
    });
}
