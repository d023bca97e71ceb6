//! The dashboard, the analytics, one call of the log and its events.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{World, answers, rings};
use crate::model::call::{Amd, AmdStatus, EndReason};
use crate::model::event::{CallEvent, DigitSource};

fn over(reason: EndReason) -> CallEvent {
    CallEvent::Ended { reason, q850: 16, sip_code: None }
}

#[tokio::test]
async fn a_new_key_has_a_dashboard_of_zeros() {
    let world = World::new(rings).await;
    let key = world.key("A", &["a"], |new| new.credits = Some(0)).await;
    let zeros = json!({
        "success": true, "recent_calls": [],
        "stats": {
            "total_credits": 0, "total_calls": 0, "successful_calls": 0, "success_rate": 0, "calls_today": 0,
            "successful_calls_today": 0, "calls_this_week": 0,
        },
    });
    for body in ["{}", "", r#"{"anything":1}"#] {
        let answer = world.post("/api/dashboard", &key, body).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, zeros.clone()), "{body}");
    }
    let unlimited = world.key("B", &[], |_| {}).await;
    assert_eq!(world.post("/api/dashboard", &unlimited, "").await.json()["stats"]["total_credits"], -1);
    for body in ["[]", "{", "7"] {
        let answer = world.post("/api/dashboard", &key, body).await;
        assert_eq!(answer.text(), r#"{"success":false,"error":"Invalid JSON body"}"#);
    }
    let bare = world.ask(Method::POST, "/api/dashboard", None, "{}").await;
    assert_eq!(bare.status, StatusCode::UNAUTHORIZED);
    for path in ["/api/dashboard", "/api/analytics"] {
        let answer = world.get(path, &key).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));
    }
}

#[tokio::test]
async fn dashboard_and_analytics_follow_the_calls_of_their_key() {
    let world = World::new(answers).await;
    let key = world.key("A", &["a"], |new| new.credits = Some(50)).await;
    let other = world.key("B", &[], |_| {}).await;
    let mut ids = Vec::new();
    for end in [Some(EndReason::NormalHangup), Some(EndReason::EngineRestart), None] {
        ids.push(world.call(&key).await);
        if let Some(reason) = end {
            world.happens(over(reason)).await;
        }
    }
    let body = world.post("/api/dashboard", &key, "{}").await.json();
    // One over, one up, one cut off by the server's death: two of three.
    let stats = json!({
        "total_credits": 47, "total_calls": 3, "successful_calls": 2, "success_rate": 66.67, "calls_today": 3,
        "successful_calls_today": 2, "calls_this_week": 3,
    });
    assert_eq!(body["stats"], stats);
    let recent = body["recent_calls"].as_array().unwrap();
    let logs = world.post("/api/call-logs", &key, "{}").await.json();
    assert_eq!(json!(recent), logs["logs"]);
    assert_eq!(recent.len(), 3);
    for _ in 0..9 {
        world.call(&key).await;
    }
    let body = world.post("/api/dashboard", &key, "{}").await.json();
    assert_eq!(body["recent_calls"].as_array().unwrap().len(), 10);
    assert_eq!(world.post("/api/dashboard", &other, "{}").await.json()["stats"]["total_calls"], 0);

    let body = world.post("/api/analytics", &key, "").await.json();
    assert_eq!(body["period"], "Last 7 days");
    // Calls that are up are none of these yet.
    let overview = json!({
        "totalCalls": 2, "completedCalls": 1, "failedCalls": 1, "noAnswerCalls": 0, "humanCalls": 0,
        "machineCalls": 0, "avgDuration": 0, "successRate": 50,
    });
    assert_eq!(body["overview"], overview);
    let shares = json!([
        {"status": "completed", "count": 1, "percentage": 50}, {"status": "failed", "count": 1, "percentage": 50},
    ]);
    assert_eq!(body["statusBreakdown"], shares);
    let days = body["dailyVolume"].as_array().unwrap();
    let sum = |name: &str| days.iter().map(|day| day[name].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum("total_calls"), sum("completed"), sum("failed")), (2, 1, 1));
    let period = world.post("/api/analytics", &key, r#"{"days":30}"#).await.json();
    assert_eq!(period["period"], "Last 30 days");
    let empty = world.post("/api/analytics", &other, "{}").await.json();
    assert_eq!((&empty["dailyVolume"], &empty["statusBreakdown"]), (&json!([]), &json!([])));
    for body in [r#"{"days":0}"#, r#"{"days":366}"#, r#"{"days":"7"}"#] {
        let answer = world.post("/api/analytics", &key, body).await;
        let error = r#"{"success":false,"error":"days must be an integer from 1 to 365"}"#;
        assert_eq!((answer.status, answer.text()), (StatusCode::BAD_REQUEST, error), "{body}");
    }
}

#[tokio::test]
async fn a_call_of_the_past_is_shown_to_its_key_alone() {
    let world = World::new(answers).await;
    let (key, other) = (world.key("A", &["a"], |_| {}).await, world.key("B", &[], |_| {}).await);
    let placed = world.post("/makecall", &key, r#"{"number":"+1 (415) 555-0100","useAmd":true}"#).await;
    let id = placed.json()["callId"].as_str().unwrap().to_owned();
    let path = format!("/api/call-logs/{id}");
    let live = world.get(&path, &key).await.json();
    assert_eq!((&live["success"], &live["call"]["status"]), (&json!(true), &json!("answered")));
    assert_eq!((&live["call"]["amd"], &live["call"]["ended_at"]), (&Value::Null, &Value::Null));

    let confidence = 0.75;
    let amd = Amd { status: AmdStatus::Machine, cause: "LONGGREETING".into(), confidence };
    world.happens(CallEvent::Screened(amd)).await;
    world.happens(CallEvent::RecordingStarted { recording: format!("call-{id}-1") }).await;
    world.happens(over(EndReason::MaxDuration)).await;
    assert_eq!(world.get(&format!("/calls/{id}"), &key).await.status, StatusCode::NOT_FOUND);
    let mut call = world.get(&path, &key).await.json()["call"].take();
    for moment in ["created_at", "dialed_at", "ringing_at", "answered_at", "ended_at"] {
        let at = call.as_object_mut().unwrap().remove(moment).unwrap();
        assert!(at.as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')), "{moment} {at}");
    }
    let attempts = json!([{"trunk": "a-endpoint", "code": null, "reason": "", "elapsed_ms": 0}]);
    let recording = json!({
        "active": false, "filename": format!("call-{id}-1.wav"), "recordingId": format!("call-{id}-1"),
        "method": "bridge",
    });
    let expected = json!({
        "call_id": id, "number": "+1 (415) 555-0100", "status": "completed", "amd_status": "MACHINE",
        "duration": 0, "caller_id": null, "voice_name": "en-US-Neural2-A", "ring_timeout_seconds": 30,
        "trunk": "a-endpoint", "attempts": attempts, "passed_over": [],
        "recording": recording,
        "amd": {"status": "MACHINE", "cause": "LONGGREETING", "confidence": 0.75},
        "end_reason": "max_duration", "hangup_cause": "16",
    });
    assert_eq!(call, expected);
    let unknown = r#"{"success":false,"error":"Call not found"}"#;
    for (path, key) in [
        (path.as_str(), &other),
        ("/api/call-logs/1.2", &key),
        ("/api/call-logs/%ff", &key),
        ("/api/call-logs/a%00b", &key),
        ("/calls/1.2/events", &key),
        ("/calls/%ff/events", &key),
    ] {
        let answer = world.get(path, key).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, unknown), "{path}");
    }
}

#[tokio::test]
async fn events_are_listed_with_their_digits_masked() {
    let world = World::new(answers).await;
    let (key, other) = (world.key("A", &["a"], |_| {}).await, world.key("B", &[], |_| {}).await);
    let id = world.call(&key).await;
    world.happens(CallEvent::GatherStarted { expected: 2, timeout_ms: 9000 }).await;
    world.happens(CallEvent::Digit { digit: '7', source: DigitSource::Rfc4733 }).await;
    world.happens(CallEvent::GatherProgress { digits: "73".into(), digit: '3', remaining: 0 }).await;
    world.happens(CallEvent::GatherComplete { digits: "73".into() }).await;
    let path = format!("/calls/{id}/events");
    let live = world.get(&path, &key).await;
    world.happens(over(EndReason::NormalHangup)).await;
    let all = world.get(&path, &key).await;
    assert_eq!((live.status, all.status), (StatusCode::OK, StatusCode::OK));
    let (live, all) = (live.json(), all.json());
    assert_eq!((&all["success"], &all["callId"]), (&json!(true), &json!(id)));
    let events = all["events"].as_array().unwrap();
    assert_eq!(json!(events[..8]), live["events"]);
    let told: Vec<_> = events.iter().map(|event| json!([event["type"], event["data"]])).collect();
    let expected = json!([
        ["queued", {}], ["dialing", {"trunk": "a-endpoint", "attempt": 1}], ["ringing", {}], ["answered", {}],
        ["gather_started", {"expected": 2, "timeout_ms": 9000}],
        ["digit", {"digit": "*", "source": "rfc4733"}],
        ["gather_progress", {"digits": "**", "digit": "*", "remaining": 0}],
        ["gather_complete", {"digits": "**"}],
        ["ended", {"reason": "normal_hangup", "q850": 16, "sip_code": null}],
    ]);
    assert_eq!(json!(told), expected);
    for (n, event) in events.iter().enumerate() {
        assert_eq!((event["sequence"].as_u64(), event.as_object().unwrap().len()), (Some(n as u64 + 1), 4));
        assert!(event["at"].as_str().unwrap().ends_with('Z'));
    }
    let window = world.get(&format!("{path}?after=5&limit=2"), &key).await.json();
    assert_eq!(window["events"], json!(events[5..7]));
    assert_eq!(world.get(&format!("{path}?after=9"), &key).await.json()["events"], json!([]));
    assert_eq!(world.get(&format!("{path}?limit=0"), &key).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.get(&path, &other).await.text(), r#"{"success":false,"error":"Call not found"}"#);
}
