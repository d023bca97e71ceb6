//! Placing calls: what is dialled, by which trunk, what a trunk's failure means, and how long the answer may take.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::api::{bare, call_id, send};
use crate::harness::{go, number, unique, world};
use crate::receiver::Receiver;
use crate::sipp::Sipp;
use crate::uas::{Script, Uas};

#[test]
fn t11_t12_t13_the_number_is_dialled_with_the_prefix_once() {
    go(async {
        let world = world().await;
        for submitted in ["+1 (415) 555-0100", "14155550100", "0014155550100", "1.415.555.0100"] {
            let far = Uas::start(Script::Ring).await;
            let (key, _) = world.key_on("10", &[far.addr]);
            let call = key.call(&json!({"number": submitted})).await;
            let invite = far.wait("INVITE").await;
            assert_eq!(invite.dialled(), "0014155550100", "{submitted}");
            let list = key.get("/calls").await.expect(200);
            assert_eq!(list["calls"][0]["number"], submitted);
            assert_eq!(list["calls"][0]["status"], "ringing");
            key.hang_up(&call).await;
        }
    });
}

#[test]
fn the_caller_id_asked_for_is_shown_if_it_is_allowed() {
    go(async {
        let world = world().await;
        let far = Uas::start(Script::Ring).await;
        let name = unique("t");
        world.server.trunk(&name, far.addr, &[]);
        let key = world.server.key(&["--credits", "5", "--trunks", &name, "--caller-ids", "19172452367"]);
        let refused =
            key.post("/makecall", &json!({"number": number("0100"), "callerId": "19172452368"})).await;
        refused.refused(403);
        let call = key.call(&json!({"number": number("0100"), "callerId": "19172452367"})).await;
        let from = far.wait("INVITE").await.header("From").to_owned();
        assert!(from.contains("19172452367@"), "{from}");
        key.hang_up(&call).await;
    });
}

#[test]
fn t15_a_receiver_that_cannot_be_resolved_does_not_refuse_the_call() {
    go(async {
        let key = world().await.key("10");
        let body = json!({"number": number("0303"), "webhookUrl": "https://example.com/hooks/calls"});
        let call = key.call(&body).await;
        key.hang_up(&call).await;
    });
}

#[test]
fn t16_t17_t22_t84_defaults_and_round_robin() {
    go(async {
        let world = world().await;
        let carrier = world.carrier.addr;
        let (key, names) = world.key_on("10", &[carrier, carrier, carrier]);
        let first = key.post("/makecall", &json!({"number": number("0304")})).await.expect(200);
        let expected = json!({
            "success": true, "callId": first["callId"], "status": "ringing", "amdEnabled": false,
            "voiceName": "en-US-Neural2-A", "credits": 10, "ringTimeoutSeconds": 30, "trunk": names[0],
            "trunkAttempts": 1, "totalTrunks": 3, "timestamp": first["timestamp"],
        });
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(first[field], *value, "{field}");
        }
        let id = call_id(&first);
        let (whole, counter) = id.split_once('.').expect("seconds and a counter");
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(whole.len() == 10 && digits(whole) && !counter.is_empty() && digits(counter), "{id}");

        let body = json!({"number": number("0304"), "ringTimeout": 20, "useAmd": true, "voiceName": "en-GB-Wavenet-B"});
        let second = key.post("/batchcall", &body).await.expect(200);
        assert_eq!((&second["ringTimeoutSeconds"], &second["amdEnabled"]), (&json!(20), &json!(true)));
        assert_eq!(second["voiceName"], "en-GB-Wavenet-B");
        let fields =
            |answer: &Value| answer.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(fields(&first), fields(&second));
        let third =
            key.post("/makecall", &json!({"number": number("0304"), "ringTimeout": 20})).await.expect(200);
        assert_eq!(third["ringTimeoutSeconds"], 20);
        let fourth = key.post("/makecall", &json!({"number": number("0304")})).await.expect(200);
        let trunks: Vec<_> =
            [&first, &second, &third, &fourth].iter().map(|answer| answer["trunk"].clone()).collect();
        assert_eq!(json!(trunks), json!([names[0], names[1], names[2], names[0]]));
        assert!([second, third, fourth].iter().all(|answer| answer["trunkAttempts"] == 1));
    });
}

#[test]
fn t23_a_503_goes_on_to_the_next_trunk() {
    go(async {
        let world = world().await;
        let mut broken = Sipp::start("unavailable", 1).await;
        let carrier = world.carrier.addr;
        let (key, names) = world.key_on("10", &[broken.addr, carrier, carrier]);
        let placed = key.post("/makecall", &json!({"number": number("0303")})).await.expect(200);
        assert_eq!(
            (&placed["trunk"], &placed["trunkAttempts"], &placed["totalTrunks"]),
            (&json!(names[1]), &json!(2), &json!(3))
        );
        key.hang_up(&call_id(&placed)).await;
        broken.went_well().await;
    });
}

#[test]
fn t24_a_silent_trunk_is_left_after_two_seconds() {
    go(async {
        let world = world().await;
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let addr = silent.local_addr().expect("a bound socket has an address");
        let (key, names) = world.key_on("10", &[addr, world.carrier.addr]);
        let answer = key.post("/makecall", &json!({"number": number("0303")})).await;
        let placed = answer.expect(200);
        assert_eq!(placed["trunk"], *names[1]);
        assert!(
            answer.took > Duration::from_secs(1) && answer.took < Duration::from_secs(4),
            "{:?}",
            answer.took
        );
        key.hang_up(&call_id(&placed)).await;
    });
}

#[test]
fn t25_when_every_trunk_fails_the_answer_names_them() {
    go(async {
        let world = world().await;
        let mut broken = Sipp::start("unavailable", 3).await;
        let (key, names) = world.key_on("10", &[broken.addr; 3]);
        let answer = key.post("/makecall", &json!({"number": number("0100")})).await.expect(500);
        let expected = json!({
            "success": false, "error": "All trunk originate attempts failed", "code": "ORIGINATION_FAILED",
            "attemptedTrunks": names, "totalTrunks": 3,
        });
        assert_eq!(answer, expected);
        assert_eq!(key.credits().await, 10);
        let logs = key.post("/api/call-logs", &json!({})).await.expect(200);
        assert_eq!(logs["total_count"], 1);
        let call = logs["logs"][0]["call_id"].as_str().expect("an id").to_owned();
        assert_eq!(key.wait_ended(&call).await["status"], "failed");
        broken.went_well().await;
    });
}

#[test]
fn nothing_listening_at_a_trunk_is_a_failure_of_that_trunk() {
    go(async {
        let world = world().await;
        let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, crate::harness::free_port()));
        let (key, names) = world.key_on("10", &[closed]);
        let answer = key.post("/makecall", &json!({"number": number("0100")})).await.expect(500);
        assert_eq!(answer["attemptedTrunks"], json!(names));
    });
}

#[test]
fn t26_busy_does_not_fail_over() {
    go(async {
        let world = world().await;
        let mut busy = Sipp::start("busy", 1).await;
        let second = Uas::start(Script::Ring).await;
        let (key, names) = world.key_on("10", &[busy.addr, second.addr]);
        let hooks = Receiver::start().await;
        let body = json!({"number": number("0100"), "webhookUrl": hooks.url()});
        let placed = key.post("/makecall", &body).await.expect(200);
        assert_eq!((&placed["status"], &placed["trunk"]), (&json!("ringing"), &json!(names[0])));
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["status"], &ended["endReason"]), (&json!("busy"), &json!("busy")));
        assert_eq!((&ended["hangupCause"], &ended["wasAnswered"]), (&json!("17"), &json!(false)));
        assert_eq!((&ended["callDuration"], &ended["recording"]), (&json!(0), &Value::Null));
        assert_eq!(ended["amd"], json!({"status": "NOAMD", "cause": null, "confidence": null}));
        busy.went_well().await;
        assert_eq!(second.count("INVITE"), 0);
        assert_eq!(key.credits().await, 10);
    });
}

#[test]
fn each_final_answer_has_its_status_and_cause() {
    go(async {
        let world = world().await;
        let key = world.key("10");
        let cases = [
            ("0301", "failed", "rejected", "21"),
            ("0302", "failed", "not_found", "1"),
            ("0304", "no_answer", "no_answer", "19"),
        ];
        for (digits, status, reason, cause) in cases {
            let hooks = Receiver::start().await;
            key.call(&json!({"number": number(digits), "webhookUrl": hooks.url()})).await;
            let ended = hooks.wait("call.ended").await.json;
            assert_eq!((&ended["status"], &ended["endReason"]), (&json!(status), &json!(reason)), "{digits}");
            assert_eq!(ended["hangupCause"], cause, "{digits}");
        }
    });
}

#[test]
fn t27_a_challenge_is_answered_with_the_trunks_password() {
    go(async {
        let world = world().await;
        let mut far = Sipp::start("challenge", 1).await;
        let (right, wrong) = (unique("t"), unique("t"));
        world.server.trunk(&right, far.addr, &["--username", "alice", "--password", "open sesame"]);
        let key = world.server.key(&["--credits", "10", "--trunks", &right]);
        let placed = key.post("/makecall", &json!({"number": number("0100")})).await.expect(200);
        assert_eq!(placed["trunkAttempts"], 1);
        let call = call_id(&placed);
        key.wait_status(&call, "answered").await;
        key.hang_up(&call).await;
        far.went_well().await;
        assert!(!far.messages().contains("open sesame"));

        let mut far = Sipp::start("challenge", 1).await;
        world.server.trunk(&wrong, far.addr, &["--username", "alice", "--password", "nonsense"]);
        let key = world.server.key(&["--credits", "10", "--trunks", &wrong]);
        key.post("/makecall", &json!({"number": number("0100")})).await.expect(500);
        far.went_well().await;
    });
}

#[test]
fn t28_ringing_ends_at_the_ring_timeout() {
    go(async {
        let far = Uas::start(Script::Ring).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let hooks = Receiver::start().await;
        key.call(&json!({"number": number("0100"), "ringTimeout": 5, "webhookUrl": hooks.url()})).await;
        let (invite, cancel) = (far.wait("INVITE").await, far.wait("CANCEL").await);
        let rang = (cancel.at - invite.at).as_secs_f64();
        assert!((rang - 5.0).abs() < 0.5, "{rang}");
        let ended = hooks.wait("call.ended").await.json;
        assert_eq!((&ended["status"], &ended["hangupCause"]), (&json!("no_answer"), &json!("19")));
        far.wait("ACK").await;
    });
}

#[test]
fn t31_a_trunk_that_only_tries_does_not_hold_the_request() {
    go(async {
        let far = Uas::start(Script::Trying).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let answer = key.post("/makecall", &json!({"number": number("0100")})).await;
        let placed = answer.expect(200);
        assert!(
            answer.took > Duration::from_secs(3) && answer.took.as_secs_f64() < 10.5,
            "{:?}",
            answer.took
        );
        key.hang_up(&call_id(&placed)).await;
        let ended = key.wait_ended(&call_id(&placed)).await;
        assert_eq!(ended["status"], "canceled");
    });
}

#[test]
fn x32_a_redirect_is_not_followed() {
    go(async {
        let elsewhere = Uas::start(Script::Ring).await;
        let first = Uas::start(Script::Final("302 Moved Temporarily", "")).await;
        let second = Uas::start(Script::Raw(|invite| {
            // A foreign contact in a 305: toll fraud.
            let more = "Contact: <sip:900@203.0.113.9>\r\n";
            vec![crate::uas::response(invite, invite.from, "305 Use Proxy", more, "").into_bytes()]
        }))
        .await;
        let (key, names) = world().await.key_on("10", &[first.addr, second.addr]);
        let answer = key.post("/makecall", &json!({"number": number("0100")})).await.expect(500);
        assert_eq!(answer["attemptedTrunks"], json!(names));
        assert_eq!(elsewhere.log().len(), 0);
    });
}

#[test]
fn the_concurrency_limit_of_a_key_holds() {
    go(async {
        let server = &world().await.server;
        let key = server.key(&["--credits", "10", "--trunks", "carrier", "--max-concurrent", "1"]);
        let call = key.call(&json!({"number": number("0303")})).await;
        let second = key.post("/makecall", &json!({"number": number("0303")})).await;
        assert_eq!(second.refused(429), "Concurrent call limit reached");
        key.hang_up(&call).await;
        key.wait_ended(&call).await;
        let call = key.call(&json!({"number": number("0303")})).await;
        key.hang_up(&call).await;
        send(bare(server.http, Method::GET, "/health")).await.expect(200);
    });
}
