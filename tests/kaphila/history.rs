//! The history of calls in numbers, and one call of it in full.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Key;
use crate::harness::{go, number, world};
use crate::receiver::Receiver;

async fn dashboard(key: &Key) -> Value {
    key.post("/api/dashboard", &json!({})).await.expect(200)
}

#[test]
fn t71_a_new_keys_dashboard_is_all_zeros() {
    go(async {
        let key = world().await.server.key(&["--credits", "0"]);
        let zeros = json!({
            "success": true, "recent_calls": [],
            "stats": {
                "total_credits": 0, "total_calls": 0, "successful_calls": 0, "success_rate": 0,
                "calls_today": 0, "successful_calls_today": 0, "calls_this_week": 0,
            },
        });
        assert_eq!(dashboard(&key).await, zeros);
        assert_eq!(key.post_bytes("/api/dashboard", "").await.expect(200), zeros);
        key.post_bytes("/api/dashboard", "[]").await.refused(400);
        assert_eq!(key.get("/api/dashboard").await.refused(405), "Method not allowed");
    });
}

#[test]
fn t72_t77_calls_are_counted_by_what_became_of_them() {
    go(async {
        let world = world().await;
        let (key, stranger) = (world.key("10"), world.key("10"));
        let ended = async |far_end: &str, status: &str| {
            let call = key.call(&json!({"number": number(far_end)})).await;
            assert_eq!(key.wait_ended(&call).await["status"], status);
            call
        };
        for (far_end, status) in [("0400", "completed"), ("0304", "no_answer"), ("0400", "completed")] {
            ended(far_end, status).await;
        }
        let stats = dashboard(&key).await["stats"].clone();
        assert_eq!((&stats["total_calls"], &stats["successful_calls"]), (&json!(3), &json!(2)));
        assert_eq!(stats["success_rate"], 66.67);
        let last = ended("0300", "busy").await;
        let shown = dashboard(&key).await;
        let stats = &shown["stats"];
        let total = |name: &str| stats[name].as_i64().unwrap_or_else(|| panic!("no {name}: {stats}"));
        assert_eq!((total("total_calls"), total("successful_calls"), total("total_credits")), (4, 2, 8));
        assert_eq!(stats["success_rate"], 50);
        // The day may have changed since the first call.
        let midnight = total("calls_today") < 4;
        assert!(total("successful_calls_today") == 2 || midnight, "{stats}");
        assert!(total("calls_this_week") == 4 || midnight, "{stats}");
        assert_eq!(shown["recent_calls"][0]["call_id"], last);
        let logs = key.post("/api/call-logs", &json!({})).await.expect(200);
        assert_eq!(shown["recent_calls"], logs["logs"]);
        assert_eq!(dashboard(&stranger).await["stats"]["total_calls"], 0);

        let shown = key.post("/api/analytics", &json!({"days": 7})).await.expect(200);
        assert_eq!(shown["period"], "Last 7 days");
        let overview = &shown["overview"];
        for (name, value) in
            [("totalCalls", 4), ("completedCalls", 2), ("failedCalls", 1), ("noAnswerCalls", 1)]
        {
            assert_eq!(overview[name], value, "{name}: {overview}");
        }
        assert_eq!(overview["successRate"], 50);
        let seconds: i64 =
            logs["logs"].as_array().expect("rows").iter().filter_map(|r| r["duration"].as_i64()).sum();
        assert_eq!(overview["avgDuration"].as_f64(), Some(seconds as f64 / 2.0), "{logs}");
        let shares = shown["statusBreakdown"].as_array().expect("shares");
        assert_eq!(shares[0], json!({"status": "completed", "count": 2, "percentage": 50}));
        let sum: f64 = shares.iter().filter_map(|share| share["percentage"].as_f64()).sum();
        assert!((sum - 100.0).abs() <= 0.05, "{shown}");
        let today = Timestamp::now().to_string();
        let day = &shown["dailyVolume"][0];
        assert!(day["date"] == today[..10] || midnight, "{day}");
        assert!(
            *day == json!({"date": day["date"], "total_calls": 4, "completed": 2, "failed": 1}) || midnight
        );
    });
}

#[test]
fn t78_analytics_are_of_one_to_365_days() {
    go(async {
        let key = world().await.key("10");
        for body in [json!({"days": 0}), json!({"days": 366}), json!({"days": "7"}), json!({"days": 1.5})] {
            let error = key.post("/api/analytics", &body).await.refused(400);
            assert_eq!(error, "days must be an integer from 1 to 365", "{body}");
        }
        assert_eq!(key.post("/api/analytics", &json!({})).await.expect(200)["period"], "Last 7 days");
        let empty = key.post_bytes("/api/analytics", "").await.expect(200);
        assert_eq!((&empty["overview"]["totalCalls"], &empty["dailyVolume"]), (&json!(0), &json!([])));
        assert_eq!(
            (&empty["overview"]["avgDuration"], &empty["overview"]["successRate"]),
            (&json!(0), &json!(0))
        );
    });
}

#[test]
fn a_call_that_is_over_is_shown_with_its_events_and_without_its_digits() {
    go(async {
        let world = world().await;
        let (key, stranger) = (world.key("10"), world.key("10"));
        let hooks = Receiver::start().await;
        // The far end presses 1 2 3 4 after the prompt.
        let to = number("0110");
        let call = key.answered_call(&json!({"number": to, "webhookUrl": hooks.url()})).await;
        let gather = json!({"callId": call, "text": "Please enter your four digits.", "numDigits": 4});
        key.post("/gather", &gather).await.expect(200);
        assert_eq!(hooks.wait("gather.complete").await.json["digits"], "1234");
        key.hang_up(&call).await;
        hooks.wait("call.ended").await;
        key.get(&format!("/calls/{call}")).await.refused(404);

        let shown = key.get(&format!("/api/call-logs/{call}")).await.expect(200);
        let row = key.wait_ended(&call).await;
        for (name, value) in row.as_object().expect("a row") {
            assert_eq!(shown["call"][name], *value, "{name}");
        }
        assert_eq!(
            (&shown["call"]["number"], &shown["call"]["end_reason"]),
            (&json!(to), &json!("api_hangup"))
        );
        assert_eq!(
            (&shown["call"]["hangup_cause"], &shown["call"]["trunk"]),
            (&json!("16"), &json!("carrier-endpoint"))
        );

        let path = format!("/calls/{call}/events");
        let answer = key.get(&path).await;
        let listed = answer.expect(200);
        let events = listed["events"].as_array().expect("events");
        let kinds: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        for kind in ["queued", "dialing", "ringing", "answered", "gather_started", "gather_complete", "ended"]
        {
            assert_eq!(kinds.iter().filter(|k| **k == kind).count(), 1, "{kind}: {kinds:?}");
        }
        assert_eq!(kinds.iter().filter(|kind| **kind == "digit").count(), 4);
        let complete =
            events.iter().find(|event| event["type"] == "gather_complete").expect("it was counted");
        assert_eq!(complete["data"], json!({"digits": "****"}));
        for event in events {
            for name in ["digit", "digits"] {
                let shown = event["data"][name].as_str().unwrap_or_default();
                assert!(shown.chars().all(|c| c == '*'), "{event}");
            }
        }
        let after = key.get(&format!("{path}?after=2&limit=3")).await.expect(200);
        assert_eq!(after["events"], json!(events[2..5]));
        for path in [path.as_str(), &format!("/api/call-logs/{call}")] {
            assert_eq!(stranger.get(path).await.refused(404), "Call not found");
        }
        for path in ["/calls/1.2/events", "/api/call-logs/1.2"] {
            assert_eq!(key.get(path).await.refused(404), "Call not found");
        }
    });
}
