//! Kaphila's routes, each status and each text.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode};
use serde_json::json;

use super::world::{World, answers, rings};
use crate::clock;
use crate::model::CallerId;
use crate::model::account::RecordingMode;
use crate::model::call::{CommandError, EndReason};
use crate::model::event::{CallEvent, Checksum, Fault, RecordingSize};

const CALL: &str = r#"{"number":"14155550100"}"#;

#[tokio::test]
async fn health_needs_no_key_and_names_problems() {
    let world = World::new(rings).await;
    let body = world.ask(Method::GET, "/health", None, "").await.json();
    assert_eq!(body["status"], "healthy");
    assert_eq!(body["service"], "Kaphila API Telephony API");
    assert_eq!(body["version"], "2.0.0");
    assert_eq!(body["stats"], json!({"activeCalls": 0}));
    assert_eq!(body["features"]["recording"], "bridge-only");
    assert_eq!(body["features"]["amd"], "enhanced");
    assert_eq!(body["features"]["playback"], "bridge-safe");
    assert!(!body["features"]["tts"].as_str().unwrap().is_empty());
    let timestamp = body["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    assert_eq!(body.get("problems"), None);

    std::fs::remove_dir_all(&world.recordings).unwrap();
    let body = world.ask(Method::GET, "/kaphila/health", None, "").await.json();
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["problems"], json!(["recordings cannot be written"]));

    world.db.close().await;
    let answer = world.ask(Method::GET, "/health", None, "").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.text(), r#"{"success":false,"error":"Internal server error"}"#);
}

#[tokio::test]
async fn a_key_is_needed_and_shown_as_bearer() {
    let world = World::new(rings).await;
    let key = world.key("A", &[], |new| new.credits = Some(10)).await;
    let missing = world.ask(Method::GET, "/api/me", None, "").await;
    assert_eq!(missing.status, StatusCode::UNAUTHORIZED);
    assert_eq!(missing.text(), r#"{"success":false,"error":"Missing API key"}"#);
    assert_eq!(missing.header("www-authenticate"), Some("Bearer"));
    let wrong = world.get("/api/me", "nope").await;
    assert_eq!(
        (wrong.status, wrong.text()),
        (StatusCode::UNAUTHORIZED, r#"{"success":false,"error":"Invalid API key"}"#)
    );
    let in_query = world.ask(Method::GET, &format!("/api/me?api_key={key}"), None, "").await;
    assert_eq!(in_query.status, StatusCode::UNAUTHORIZED);

    let me = world.get("/api/me", &key).await;
    let body = me.json();
    let fields: Vec<_> = body["apiKey"].as_object().unwrap().keys().cloned().collect();
    let nine = [
        "createdAt",
        "credits",
        "id",
        "keyId",
        "lastUsed",
        "name",
        "rateLimit",
        "successfulCalls",
        "totalCalls",
    ];
    assert_eq!(fields, nine);
    assert_eq!(
        (body["apiKey"]["credits"].as_i64(), body["apiKey"]["rateLimit"].as_i64()),
        (Some(10), Some(100))
    );
    assert!(!me.text().contains(&key));
    assert!(world.get("/api/me", &key).await.json()["apiKey"]["lastUsed"].is_string());
}

#[tokio::test]
async fn scope_and_address_are_forbidden_alike() {
    let world = World::new(rings).await;
    let unscoped = world.key("A", &[], |new| new.scopes = vec!["calls".into()]).await;
    let far = world.key("B", &[], |new| new.ip_allow = vec!["198.51.100.0/24".into()]).await;
    let forbidden = r#"{"success":false,"error":"Forbidden"}"#;
    let answer = world.get("/recordings", &unscoped).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::FORBIDDEN, forbidden));
    assert_eq!(world.get("/calls", &unscoped).await.status, StatusCode::OK);
    assert_eq!(world.get("/api/me", &far).await.text(), forbidden);
    for (peer, status) in [("198.51.100.7:1", StatusCode::OK), ("203.0.113.1:1", StatusCode::FORBIDDEN)] {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = Request::get("/api/me").header("authorization", format!("Bearer {far}"));
        let request = request.extension(ConnectInfo(peer)).header("x-forwarded-for", "198.51.100.7");
        assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.status, status);
    }
}

#[tokio::test]
async fn the_window_counts_failures_and_is_exact_at_once() {
    let world = World::new(rings).await;
    let key = world.key("A", &[], |new| new.rate_limit = Some(5)).await;
    let other = world.key("B", &[], |_| {}).await;
    let world = Arc::new(world);
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (world, key) = (Arc::clone(&world), key.clone());
        let path = ["/makecall", "/batchcall", "/voice", "/play", "/gather", "/hangup"][n % 6];
        asked.spawn(async move { world.post(path, &key, "{").await });
    }
    let answers = asked.join_all().await;
    let taken = answers.iter().filter(|a| a.status == StatusCode::BAD_REQUEST).count();
    let refused: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert_eq!((taken, refused.len()), (5, 15));
    for answer in refused {
        assert_eq!(answer.text(), r#"{"success":false,"error":"Rate limit exceeded"}"#);
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        assert_eq!(
            (answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")),
            (Some("5"), Some("0"))
        );
        let reset: i64 = answer.header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!((3590..=3601).contains(&(reset - clock::now().wall.seconds())), "{reset}");
    }
    assert_eq!(world.get("/calls", &key).await.status, StatusCode::OK);
    assert_eq!(world.get("/calls", &key).await.header("x-ratelimit-limit"), None);
    let first = world.post("/hangup", &other, "{}").await;
    assert_eq!((first.status, first.header("x-ratelimit-remaining")), (StatusCode::BAD_REQUEST, Some("99")));
}

#[tokio::test]
async fn one_key_cannot_ask_without_end() {
    let world = World::with(rings, |config| config.limits.requests_per_second_per_key = 0).await;
    let key = world.key("A", &[], |_| {}).await;
    let answer = world.get("/calls", &key).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, Some("1")));
}

#[tokio::test]
async fn a_placed_call_is_answered_as_documented() {
    let world = World::new(rings).await;
    let key = world.key("A", &["a", "b", "c"], |new| new.credits = Some(10)).await;
    let answer = world.post("/makecall", &key, CALL).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let mut body = answer.json();
    let id = body["callId"].as_str().unwrap().to_owned();
    let (seconds, counter) = id.split_once('.').unwrap();
    assert!(seconds.len() == 10 && counter.parse::<u32>().is_ok(), "{id}");
    for field in ["callId", "timestamp", "voiceResolved"] {
        assert!(body.as_object_mut().unwrap().remove(field).is_some_and(|v| v.is_string()), "{field}");
    }
    let expected = json!({
        "success": true, "status": "ringing", "amdEnabled": false, "voiceName": "en-US-Neural2-A", "credits": 10,
        "ringTimeoutSeconds": 30, "trunk": "a-endpoint", "trunkAttempts": 1, "totalTrunks": 3,
    });
    assert_eq!(body, expected);
    let order = Arc::clone(&world.orders.lock().unwrap()[0]);
    assert_eq!((order.to.digits(), order.record, order.max_duration_ms), ("14155550100", true, 3_600_000));
    for trunk in ["b-endpoint", "c-endpoint", "a-endpoint"] {
        assert_eq!(world.post("/batchcall", &key, CALL).await.json()["trunk"], trunk);
    }
    let named = world.post(
        "/kaphila/batchcall",
        &key,
        r#"{"number":"+1 415 555 0100","ringTimeout":20,"useAmd":true}"#,
    );
    let named = named.await.json();
    assert_eq!((named["ringTimeoutSeconds"].as_i64(), named["amdEnabled"].as_bool()), (Some(20), Some(true)));
}

#[tokio::test]
async fn checks_come_in_their_order() {
    let world = World::new(rings).await;
    let broke = world.key("C", &[], |new| new.credits = Some(0)).await;
    let trunkless = world.key("D", &[], |_| {}).await;
    let busy = world.key("E", &["a"], |new| new.max_concurrent = 0).await;
    for (key, body, status, error) in [
        (&broke, "{}", StatusCode::BAD_REQUEST, "number is required"),
        (&broke, CALL, StatusCode::PAYMENT_REQUIRED, "Insufficient credits"),
        (&trunkless, CALL, StatusCode::SERVICE_UNAVAILABLE, "No trunks assigned"),
        (&busy, CALL, StatusCode::TOO_MANY_REQUESTS, "Concurrent call limit reached"),
        (&busy, r#"{"number":"911"}"#, StatusCode::BAD_REQUEST, "number is not allowed"),
        (&busy, r#"{"number":"+1 900 555 0100"}"#, StatusCode::BAD_REQUEST, "number is not allowed"),
    ] {
        let answer = world.post("/makecall", key, body).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(error)), "{body}");
    }
    assert!(world.orders.lock().unwrap().is_empty());
    // A refused call leaves nothing behind: no hold, no row, no turn of the trunks.
    assert_eq!(world.post("/api/call-logs", &trunkless, "").await.json()["total_count"], 0);
    let key = world.db.find_key(&trunkless).await.unwrap().unwrap();
    assert_eq!((key.held, key.total_calls), (0, 0));
}

#[tokio::test]
async fn as_many_calls_as_credits_and_no_more() {
    let world = Arc::new(World::new(rings).await);
    let key = world.key("A", &["a"], |new| new.credits = Some(5)).await;
    let mut placed = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (world, key) = (Arc::clone(&world), key.clone());
        placed.spawn(async move { world.post("/makecall", &key, CALL).await.status });
    }
    let statuses = placed.join_all().await;
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((count(StatusCode::OK), count(StatusCode::PAYMENT_REQUIRED)), (5, 15), "{statuses:?}");
    world.journal.flush().await;
    assert_eq!(world.get("/api/me", &key).await.json()["apiKey"]["credits"], 5);
}

#[tokio::test]
async fn a_caller_id_must_be_the_keys_own() {
    let world = World::new(rings).await;
    let own = |new: &mut crate::store::accounts::NewKey| {
        new.caller_ids = vec![CallerId::Number("+19172452367".into())];
    };
    let key = world.key("A", &["a"], own).await;
    let with = |id: &str| format!("{{\"number\":\"14155550100\",\"callerId\":\"{id}\"}}");
    for foreign in ["19172452368", "anonymous"] {
        let answer = world.post("/makecall", &key, &with(foreign)).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (StatusCode::FORBIDDEN, Some("Forbidden"))
        );
    }
    for body in [with("19172452367"), with("+19172452367"), CALL.to_owned()] {
        assert_eq!(world.post("/makecall", &key, &body).await.status, StatusCode::OK);
    }
    let orders = world.orders.lock().unwrap();
    let shown: Vec<_> = orders.iter().map(|order| order.from.as_ref().unwrap().user().to_owned()).collect();
    assert_eq!(shown, ["19172452367", "+19172452367", "+19172452367"]);
}

#[tokio::test]
async fn a_call_that_no_trunk_takes_names_them() {
    let world = World::new(|order| {
        let mut events = vec![CallEvent::Queued];
        for (n, plan) in order.trunks.iter().enumerate() {
            let (trunk, attempt) = (plan.endpoint.clone(), u8::try_from(n + 1).unwrap());
            events.push(CallEvent::Dialing { trunk: trunk.clone(), attempt });
            events.push(CallEvent::AttemptFailed {
                trunk,
                code: 503,
                reason: "x".into(),
                elapsed_ms: 5,
                retry_after_s: None,
                fault: Fault::Trunk,
            });
        }
        events.push(CallEvent::Ended { reason: EndReason::TrunkFailure, q850: 41, sip_code: Some(503) });
        Ok(events)
    })
    .await;
    let key = world.key("A", &["a", "b"], |new| new.credits = Some(1)).await;
    for trunks in [r#"["a-endpoint","b-endpoint"]"#, r#"["b-endpoint","a-endpoint"]"#] {
        let answer = world.post("/makecall", &key, CALL).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        let text = format!(
            "{{\"success\":false,\"error\":\"All trunk originate attempts failed\",\"code\":\"ORIGINATION_FAILED\",\
             \"attemptedTrunks\":{trunks},\"totalTrunks\":2}}"
        );
        assert_eq!(answer.text(), text);
        world.journal.flush().await;
    }
    let me = world.get("/api/me", &key).await.json();
    assert_eq!((me["apiKey"]["credits"].as_i64(), me["apiKey"]["totalCalls"].as_i64()), (Some(1), Some(2)));
}

#[tokio::test]
async fn a_busy_far_end_is_a_call_all_the_same() {
    let world = World::new(|order| {
        let trunk = order.trunks[0].endpoint.clone();
        let busy = CallEvent::Ended { reason: EndReason::Busy, q850: 17, sip_code: Some(486) };
        Ok(vec![CallEvent::Dialing { trunk, attempt: 1 }, busy])
    })
    .await;
    let key = world.key("A", &["a"], |_| {}).await;
    let answer = world.post("/makecall", &key, CALL).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (StatusCode::OK, Some("ringing")));
    assert_eq!(answer.json()["credits"], -1);
    world.journal.flush().await;
    let logs = world.post("/api/call-logs", &key, r#"{"status":"busy"}"#).await.json();
    assert_eq!(logs["logs"][0]["status"], "busy");
}

#[tokio::test]
async fn what_the_engine_does_not_take_is_undone() {
    let world = World::new(|_| Err(CommandError::Unavailable)).await;
    let key = world.key("A", &["a"], |new| new.credits = Some(1)).await;
    for _ in 0..3 {
        let answer = world.post("/makecall", &key, CALL).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::SERVICE_UNAVAILABLE, r#"{"success":false,"error":"Service unavailable"}"#)
        );
        assert!(answer.header("retry-after").is_some());
        world.journal.flush().await;
        assert_eq!(world.db.find_key(&key).await.unwrap().unwrap().held, 0);
    }
    assert_eq!(world.get("/calls", &key).await.json()["totalCalls"], 0);
    world.app.drain();
    assert_eq!(world.post("/makecall", &key, CALL).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.get("/api/me", &key).await.json()["apiKey"]["totalCalls"], 3);
}

#[tokio::test]
async fn trunks_that_cannot_be_found_fail_the_call() {
    let world = World::with(rings, |config| config.sip.udp = "[::1]:0".parse().unwrap()).await;
    let key = world.key("A", &["a"], |new| new.credits = Some(1)).await;
    let answer = world.post("/makecall", &key, CALL).await.json();
    assert_eq!(answer["attemptedTrunks"], json!(["a-endpoint"]));
    world.journal.flush().await;
    assert_eq!(world.db.find_key(&key).await.unwrap().unwrap().held, 0);
    assert!(world.orders.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_key_decides_about_recording() {
    let world = World::new(rings).await;
    for (mode, asked, recorded) in [
        (RecordingMode::Always, "false", true),
        (RecordingMode::Off, "true", false),
        (RecordingMode::OnRequest, "true", true),
        (RecordingMode::OnRequest, "false", false),
        (RecordingMode::OnRequest, "null", false),
    ] {
        let key = world.key("A", &["a"], |new| new.recording = mode).await;
        let body = format!("{{\"number\":\"14155550100\",\"record\":{asked}}}");
        assert_eq!(world.post("/makecall", &key, &body).await.status, StatusCode::OK);
        assert_eq!(world.orders.lock().unwrap().last().unwrap().record, recorded, "{mode:?} {asked}");
    }
}

#[tokio::test]
async fn live_calls_are_shown_to_their_key_alone() {
    let world = World::new(answers).await;
    let (key, other) = (world.key("A", &["a"], |_| {}).await, world.key("B", &[], |_| {}).await);
    let id = world.call(&key).await;
    let recording = format!("call-{id}-1739781234567");
    world.happens(CallEvent::RecordingStarted { recording: recording.clone() }).await;
    world.happens(CallEvent::GatherStarted { expected: 4, timeout_ms: 12_000 }).await;
    world.happens(CallEvent::GatherProgress { digits: "12".into(), digit: '2', remaining: 2 }).await;
    let mut list = world.get("/calls", &key).await.json();
    assert!(list.as_object_mut().unwrap().remove("timestamp").is_some());
    let recording = json!({"active": true, "filename": format!("{recording}.wav"), "recordingId": recording, "method": "bridge"});
    let amd = json!({"status": "NOAMD", "cause": null, "confidence": null});
    let call = json!({
        "callId": id, "status": "answered", "number": "14155550100", "amd": amd,
        "gather": {"active": true, "expectedDigits": 4, "digits": "12", "timeoutMs": 12000},
        "recording": recording, "voiceName": "en-US-Neural2-A", "hasBridge": true,
    });
    assert_eq!(list, json!({"success": true, "totalCalls": 1, "activeCalls": 1, "calls": [call]}));
    let shown = json!({
        "success": true, "callId": id, "status": "answered", "number": "14155550100", "amd": amd,
        "recording": recording, "hasBridge": true, "hasSnoop": false,
    });
    assert_eq!(world.get(&format!("/calls/{id}"), &key).await.json(), shown);
    assert_eq!(world.ask(Method::GET, "/health", None, "").await.json()["stats"]["activeCalls"], 1);

    assert_eq!(world.get("/calls", &other).await.json()["totalCalls"], 0);
    let foreign = world.get(&format!("/calls/{id}"), &other).await;
    assert_eq!(
        (foreign.status, foreign.text()),
        (StatusCode::NOT_FOUND, r#"{"success":false,"error":"Call not found"}"#)
    );
    for unknown in ["/calls/1.2", "/calls/%ff", "/calls/a%00b"] {
        assert_eq!(world.get(unknown, &key).await.status, StatusCode::NOT_FOUND, "{unknown}");
    }
    world.happens(CallEvent::Ended { reason: EndReason::NormalHangup, q850: 16, sip_code: None }).await;
    assert_eq!(world.get(&format!("/calls/{id}"), &key).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get("/calls", &key).await.json()["activeCalls"], 0);
}

#[tokio::test]
async fn verbs_reach_the_engine_and_are_echoed() {
    let world = World::new(answers).await;
    let key = world.key("A", &["a"], |_| {}).await;
    let id = world.call(&key).await;
    let body = json!({"callId": id, "text": "Hello", "playTo": "channel"}).to_string();
    let said = world.post("/voice", &key, &body).await.json();
    let playback = said["playbackId"].as_str().unwrap();
    let ms = playback.strip_prefix(&format!("tts-{id}-")).unwrap();
    assert!(ms.len() == 13 && ms.bytes().all(|b| b.is_ascii_digit()), "{playback}");
    let expected = json!({
        "success": true, "message": "TTS played successfully", "text": "Hello", "playbackId": playback, "method": "channel",
    });
    assert_eq!(said, expected);
    let again = world.post("/voice", &key, &body).await.json();
    assert_ne!(again["playbackId"], said["playbackId"]);

    let body = json!({"callId": id, "text": "Enter", "numDigits": 4, "timeout": 12000, "finishOnKey": "#"})
        .to_string();
    let gathering = world.post("/gather", &key, &body).await.json();
    let expected = json!({
        "success": true, "message": "Gathering 4 digits with 12000ms timeout", "callId": id, "expectedDigits": 4,
        "timeoutMs": 12000,
    });
    assert_eq!(gathering, expected);

    let hung = world.post("/hangup", &key, &json!({"callId": id, "drain": true}).to_string()).await.json();
    assert_eq!(hung, json!({"success": true, "message": format!("Call {id} terminated"), "callId": id}));
    let commands = world.commands.lock().unwrap();
    assert_eq!(commands[0], format!("play {playback} Hello channel"));
    assert_eq!(commands[2..], ["gather 4 12000 Some('#')".to_owned(), "hang up true".to_owned()]);
}

#[tokio::test]
async fn verbs_refuse_what_cannot_be() {
    let world = World::new(rings).await;
    let (key, other) = (world.key("A", &["a"], |_| {}).await, world.key("B", &[], |_| {}).await);
    let id = world.call(&key).await;
    let body = json!({"callId": id, "text": "Hello", "file": "custom/none"}).to_string();
    let unanswered = r#"{"success":false,"error":"Call is not answered","code":"CALL_NOT_ANSWERED"}"#;
    for path in ["/voice", "/play", "/gather"] {
        let answer = world.post(path, &key, &body).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::BAD_REQUEST, unanswered), "{path}");
    }
    for path in ["/voice", "/play", "/gather", "/hangup"] {
        let answer = world.post(path, &other, &body).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::NOT_FOUND, r#"{"success":false,"error":"Call not found"}"#)
        );
    }
    assert!(world.commands.lock().unwrap().is_empty());
    world.happens(CallEvent::Answered).await;
    let missing = world.post("/play", &key, &body).await;
    assert_eq!(
        (missing.status, missing.text()),
        (StatusCode::NOT_FOUND, r#"{"success":false,"error":"Sound file not found"}"#)
    );
    world.happens(CallEvent::GatherStarted { expected: 1, timeout_ms: 1000 }).await;
    let twice = world.post("/gather", &key, &body).await;
    assert_eq!(
        (twice.status, twice.text()),
        (StatusCode::CONFLICT, r#"{"success":false,"error":"Gather already in progress"}"#)
    );
    let replacing = json!({"callId": id, "text": "Hello", "replace": true}).to_string();
    assert_eq!(world.post("/gather", &key, &replacing).await.status, StatusCode::OK);
    let none = world.post(&format!("/recordings/{id}/stop"), &key, "").await;
    assert_eq!(
        (none.status, none.text()),
        (StatusCode::NOT_FOUND, r#"{"success":false,"error":"No active recording"}"#)
    );
    for (path, error) in
        [("/hangup", "callId is required"), ("/voice", "callId is required"), ("/play", "callId is required")]
    {
        let answer = world.post(path, &key, "{}").await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (StatusCode::BAD_REQUEST, Some(error)));
    }
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused() {
    let world = World::new(rings).await;
    let key = world.key("A", &["a"], |_| {}).await;
    let deep = "[".repeat(10_000);
    for body in ["{\"number\":", "[]", "\"x\"", "null", "", &deep] {
        let answer = world.post("/makecall", &key, body).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::BAD_REQUEST, r#"{"success":false,"error":"Invalid JSON body"}"#)
        );
    }
}

#[tokio::test]
async fn recordings_are_served_to_their_key_alone() {
    let world = World::new(answers).await;
    let (key, other) = (world.key("A", &["a"], |_| {}).await, world.key("B", &[], |_| {}).await);
    let id = world.call(&key).await;
    let recording = format!("call-{id}-1739781234567");
    let filename = format!("{recording}.wav");
    world.happens(CallEvent::RecordingStarted { recording: recording.clone() }).await;
    let mut growing = media::wav::header(media::Channels::Mono, 0).to_vec();
    growing.extend([7; 101]);
    std::fs::write(world.recordings.join(&filename), &growing).unwrap();

    let one = json!({"callId": id, "filename": filename, "recordingId": recording, "active": true});
    let list = world.get("/recordings", &key).await.json();
    assert_eq!(list["active"], json!([one]));
    assert_eq!(
        (list["files"][0]["filename"].as_str(), list["files"][0]["size"].as_i64()),
        (Some(&*filename), Some(145))
    );
    let shown = world.get(&format!("/recordings/{id}"), &key).await.json();
    assert_eq!((shown["active"].as_bool(), shown["filename"].as_str()), (Some(true), Some(&*filename)));
    let live = world.get(&format!("/recordings/{id}/download"), &key).await;
    assert_eq!((live.status, live.header("content-type")), (StatusCode::OK, Some("audio/wav")));
    assert_eq!((live.header("content-length"), live.bytes.len()), (Some("144"), 144));
    assert_eq!(live.bytes[40..44], 100_u32.to_le_bytes());

    world.happens(CallEvent::Ended { reason: EndReason::NormalHangup, q850: 16, sip_code: None }).await;
    let (size, sha256) = (RecordingSize { bytes: 145, duration_ms: 6 }, Checksum([0xab; 32]));
    world.happens(CallEvent::RecordingCompleted { recording: recording.clone(), size, sha256 }).await;
    let by_id = world.get(&format!("/recordings/{id}/download"), &key).await;
    let by_name = world.get(&format!("/recordings/file/{filename}/download"), &key).await;
    assert_eq!((by_id.status, &by_id.bytes), (StatusCode::OK, &growing));
    assert_eq!((by_name.status, &by_name.bytes), (StatusCode::OK, &growing));
    assert_eq!(by_id.header("accept-ranges"), Some("bytes"));
    assert_eq!(by_id.header("etag"), Some(&*format!("\"{}\"", sha256.hex())));
    let shown = world.get(&format!("/recordings/{id}"), &key).await.json();
    assert_eq!(
        (&shown["active"], &shown["channels"], &shown["size"]),
        (&json!(false), &json!(1), &json!(145))
    );
    assert_eq!(shown["sha256"], sha256.hex());

    let unknown = r#"{"success":false,"error":"Recording not found"}"#;
    for path in [format!("/recordings/{id}"), format!("/recordings/{id}/download")] {
        let answer = world.get(&path, &other).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, unknown), "{path}");
    }
    assert_eq!(
        world.get("/recordings", &other).await.json(),
        json!({"success": true, "active": [], "files": []})
    );
    let foreign = world.get(&format!("/recordings/file/{filename}/download"), &other).await;
    assert_eq!(
        (foreign.status, foreign.text()),
        (StatusCode::NOT_FOUND, r#"{"success":false,"error":"File not found"}"#)
    );
    std::fs::remove_file(world.recordings.join(&filename)).unwrap();
    assert_eq!(world.get(&format!("/recordings/{id}/download"), &key).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn file_names_of_other_places_are_refused() {
    let world = World::new(rings).await;
    let key = world.key("A", &[], |_| {}).await;
    for name in [
        "x.mp3",
        "..%2f..%2fetc%2fpasswd.wav",
        "%252e%252e.wav",
        "..\\x.wav",
        "a%00.wav",
        "%ff.wav",
        "%2fetc%2fpasswd.wav",
    ] {
        let answer = world.get(&format!("/recordings/file/{name}/download"), &key).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::BAD_REQUEST, r#"{"success":false,"error":"Invalid filename"}"#),
            "{name}"
        );
    }
    std::fs::write(world.recordings.join("stray.wav"), b"RIFF").unwrap();
    for name in ["none.wav", "stray.wav"] {
        let answer = world.get(&format!("/recordings/file/{name}/download"), &key).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::NOT_FOUND, r#"{"success":false,"error":"File not found"}"#)
        );
    }
    assert_eq!(world.get("/recordings?limit=0", &key).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn call_logs_come_in_pages() {
    let world = World::new(rings).await;
    let key = world.key("A", &["a"], |_| {}).await;
    let empty = world.post("/api/call-logs", &key, "{}").await.json();
    let pagination = json!({"page": 1, "page_size": 20, "total_pages": 0});
    assert_eq!(empty, json!({"success": true, "logs": [], "total_count": 0, "pagination": pagination}));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.call(&key).await);
    }
    let second = world.post("/api/call-logs", &key, r#"{"page":2,"page_size":2}"#).await.json();
    assert_eq!((second["logs"].as_array().unwrap().len(), second["total_count"].as_i64()), (2, Some(5)));
    assert_eq!(second["pagination"], json!({"page": 2, "page_size": 2, "total_pages": 3}));
    let past = world.post("/api/call-logs", &key, r#"{"page":9}"#).await.json();
    assert_eq!((past["logs"].as_array().unwrap().len(), past["total_count"].as_i64()), (0, Some(5)));
    let unknown = world.post("/api/call-logs", &key, r#"{"status":"nonsense"}"#).await.json();
    assert_eq!(unknown["total_count"], 0);
    let row = &world.post("/api/call-logs", &key, "").await.json()["logs"][0];
    let fields: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["amd_status", "call_id", "created_at", "duration", "number", "status"]);
    assert!(ids.contains(&row["call_id"].as_str().unwrap().to_owned()));
    assert_eq!((row["status"].as_str(), row["duration"].as_i64()), (Some("ringing"), Some(0)));
    for body in [r#"{"page":0}"#, r#"{"page_size":0}"#, r#"{"page_size":101}"#, r#"{"page":"x"}"#] {
        assert_eq!(world.post("/api/call-logs", &key, body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
}
