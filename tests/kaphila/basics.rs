//! Without a call: health, keys, and what is refused before anything is dialled.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;

use crate::api::{bare, send};
use crate::carrier::seconds;
use crate::harness::{Server, go, number, until, world};

fn is_timestamp(text: &str) -> bool {
    let shape = "dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == shape.len()
        && text
            .bytes()
            .zip(shape.bytes())
            .all(|(byte, like)| if like == b'd' { byte.is_ascii_digit() } else { byte == like })
}

#[test]
fn t01_t02_health_tells_what_runs_and_how_many_calls_are_up() {
    go(async {
        let server = Server::start("health", &[]).await;
        let health = async || send(bare(server.http, Method::GET, "/health")).await.expect(200);
        let quiet = health().await;
        assert_eq!(quiet["status"], "healthy", "{quiet}");
        assert_eq!(quiet["service"], "Kaphila API Telephony API");
        assert_eq!(quiet["version"], "2.0.0");
        assert!(is_timestamp(quiet["timestamp"].as_str().unwrap_or_default()), "{quiet}");
        assert_eq!(quiet["stats"]["activeCalls"], 0);
        assert_eq!(quiet["features"]["recording"], "bridge-only");
        assert_eq!(quiet["features"]["amd"], "enhanced");
        assert_eq!(quiet["features"]["playback"], "bridge-safe");
        assert!(quiet["features"]["tts"].as_str().is_some_and(|name| !name.is_empty()), "{quiet}");

        let (key, _) = server.key_on("10", &[world().await.carrier.addr]);
        let call = key.answered_call(&json!({"number": number("0100")})).await;
        assert_eq!(health().await["stats"]["activeCalls"], 1);
        key.hang_up(&call).await;
        until(3.0, "no call is counted", async || {
            (health().await["stats"]["activeCalls"] == 0).then_some(())
        })
        .await;
    });
}

#[test]
fn t03_t04_t05_only_a_known_bearer_key_is_let_in() {
    go(async {
        let server = &world().await.server;
        let missing = send(bare(server.http, Method::GET, "/api/me")).await;
        assert_eq!(missing.expect(401), json!({"success": false, "error": "Missing API key"}));
        assert_eq!(missing.header("www-authenticate"), "Bearer");
        assert!(!missing.header("x-request-id").is_empty());
        let key = server.key(&[]);
        let with = async |value: String| {
            send(bare(server.http, Method::GET, "/api/me").header("authorization", value)).await
        };
        let unknown = with("Bearer nope".into()).await.expect(401);
        assert_eq!(unknown, json!({"success": false, "error": "Invalid API key"}));
        with(format!("bearer {}", key.key)).await.expect(200);
        with(format!("BEARER   {}", key.key)).await.expect(200);
        for bad in ["Token ", "Bearer", "Bearer x y ", "Basic "] {
            with(format!("{bad}{}", key.key)).await.refused(401);
        }
        send(bare(server.http, Method::GET, &format!("/api/me?api_key={}", key.key))).await.refused(401);
        server.cli(&["keys", "revoke", &key.key_id]);
        assert_eq!(key.get("/api/me").await.refused(401), "Invalid API key");
    });
}

#[test]
fn t06_t07_me_has_the_nine_documented_fields() {
    go(async {
        let key = world().await.server.key(&["--credits", "10"]);
        let first_at = Timestamp::now();
        let me = key.get("/api/me").await.expect(200);
        let row = me["apiKey"].as_object().expect("apiKey");
        let names: Vec<_> = row.keys().map(String::as_str).collect();
        let mut documented = [
            "id",
            "keyId",
            "name",
            "credits",
            "totalCalls",
            "successfulCalls",
            "rateLimit",
            "createdAt",
            "lastUsed",
        ];
        documented.sort_unstable();
        assert_eq!(names, documented, "{me}");
        assert!(row["id"].is_i64() && row["credits"] == 10 && row["rateLimit"] == 100, "{me}");
        assert!(row["keyId"].as_str().is_some_and(|id| id.starts_with("key_") && id.len() == 14), "{me}");
        assert!(is_timestamp(row["createdAt"].as_str().unwrap_or_default()), "{me}");
        until(5.0, "lastUsed is not before the first request", async || {
            let me = key.get("/api/me").await.expect(200);
            let used: Timestamp = me["apiKey"]["lastUsed"].as_str()?.parse().ok()?;
            (seconds(first_at, used) > -0.002).then_some(())
        })
        .await;
    });
}

#[test]
fn t08_t09_t10_t14_t18_t19_bad_fields_of_makecall_are_named() {
    go(async {
        let key = world().await.key("10");
        let refused = async |body: serde_json::Value, names: &str| {
            for path in ["/makecall", "/batchcall"] {
                let error = key.post(path, &body).await.refused(400);
                assert!(error.to_lowercase().contains(&names.to_lowercase()), "{body}: {error}");
            }
        };
        refused(json!({}), "number").await;
        refused(json!({"number": null}), "number").await;
        refused(json!({"number": 14_155_550_100_u64}), "number").await;
        for bad in
            ["", "abc", "12", "1234567890123456", "1415\r\n5550100", "1415@5550100", "14155550100;x=y", "+"]
        {
            refused(json!({"number": bad}), "number").await;
        }
        for bad in
            ["٠١٢٣٤٥٦٧٨٩", "１４１５５５５０１００", "\u{202e}14155550100", "1415555☎0100", "14155550100\0"]
        {
            refused(json!({"number": bad}), "number").await;
        }
        for bad in ["911", "112", "999", "000", "110", "119", "+19005551234"] {
            key.post("/makecall", &json!({"number": bad})).await.refused(400);
        }
        let good = number("0100");
        for bad in ["ftp://x", "not a url", "https://u:p@h/", "https://h/#part", "//h/", "https://", ""] {
            refused(json!({"number": good, "webhookUrl": bad}), "webhookUrl").await;
        }
        refused(
            json!({"number": good, "webhookUrl": format!("https://h/{}", "a".repeat(2048))}),
            "webhookUrl",
        )
        .await;
        for bad in [json!(4), json!(121), json!("30"), json!(10.5), json!(-1), json!(1e300), json!([30])] {
            refused(json!({"number": good, "ringTimeout": bad}), "ringTimeout").await;
        }
        for bad in [json!("yes"), json!(1)] {
            refused(json!({"number": good, "useAmd": bad}), "useAmd").await;
        }
        for bad in [json!("a b"), json!("x".repeat(65)), json!(7), json!("\r\n")] {
            refused(json!({"number": good, "voiceName": bad}), "voiceName").await;
        }
        for bad in [json!("1\r\nX: y"), json!("\"x\" <sip:a@b>"), json!(17), json!("12")] {
            refused(json!({"number": good, "callerId": bad}), "callerId").await;
        }
        assert_eq!(world().await.carrier.calls_to(&good), 0);
        assert_eq!(key.get("/calls").await.expect(200)["totalCalls"], 0);
        assert_eq!(key.credits().await, 10);
    });
}

#[test]
fn t20_t21_money_is_asked_for_before_trunks() {
    go(async {
        let server = &world().await.server;
        let body = json!({"number": number("0100")});
        let trunkless = server.key(&["--credits", "10"]);
        let answer = trunkless.post("/makecall", &body).await.expect(503);
        assert_eq!(answer, json!({"success": false, "error": "No trunks assigned"}));
        assert_eq!(trunkless.credits().await, 10, "nothing is held for a call that was not placed");
        for options in [&["--credits", "0"][..], &["--credits", "0", "--trunks", "carrier"]] {
            let error = server.key(options).post("/makecall", &body).await.refused(402);
            assert_eq!(error, "Insufficient credits");
        }
    });
}

#[test]
fn t40_t43_t50_bad_fields_of_the_call_verbs_are_refused() {
    go(async {
        let key = world().await.key("10");
        let cases = [
            ("/hangup", json!({})),
            ("/hangup", json!({"callId": 7})),
            ("/voice", json!({"callId": "1.1"})),
            ("/voice", json!({"text": "hello"})),
            ("/voice", json!({"callId": "1.1", "text": ""})),
            ("/voice", json!({"callId": "1.1", "text": 5})),
            ("/voice", json!({"callId": "1.1", "text": "x".repeat(5001)})),
            ("/voice", json!({"callId": "1.1", "text": "hello", "playTo": "both"})),
            ("/play", json!({"callId": "1.1"})),
            ("/play", json!({"file": "custom/welcome"})),
            ("/play", json!({"callId": "1.1", "file": "custom/welcome", "playTo": 1})),
            ("/gather", json!({"callId": "1.1"})),
            ("/gather", json!({"callId": "1.1", "text": "hello", "numDigits": 0})),
            ("/gather", json!({"callId": "1.1", "text": "hello", "numDigits": 33})),
            ("/gather", json!({"callId": "1.1", "text": "hello", "numDigits": 1.5})),
            ("/gather", json!({"callId": "1.1", "text": "hello", "numDigits": "4"})),
            ("/gather", json!({"callId": "1.1", "text": "hello", "timeout": 10})),
            ("/gather", json!({"callId": "1.1", "text": "hello", "timeout": 120_001})),
        ];
        for (path, body) in cases {
            let answer = key.post(path, &body).await;
            assert_eq!(
                answer.status,
                400,
                "{path} {}: {}",
                body.to_string().get(..80).unwrap_or(""),
                answer.json()
            );
            answer.refused(400);
        }
        for path in ["/hangup", "/voice", "/play", "/gather"] {
            let body = json!({"callId": "1720012345.88", "text": "hello", "file": "custom/welcome"});
            let error = key.post(path, &body).await.refused(404);
            assert_eq!(error, "Call not found", "{path}");
        }
    });
}

#[test]
fn t79_t80_the_rate_limit_is_exact_over_the_six_routes() {
    go(async {
        let server = Server::start("rate", &[("RATELIMIT__KAPHILA_WINDOW_S", "3")]).await;
        let (key, other) = (server.key(&[]), server.key(&[]));
        let routes = ["/makecall", "/batchcall", "/voice", "/play", "/gather", "/hangup"];
        let requests = (0..110).map(|n| {
            let key = key.clone();
            async move { key.post(routes[n % routes.len()], &json!({})).await }
        });
        let mut tasks = tokio::task::JoinSet::new();
        requests.for_each(|request| {
            tasks.spawn(request);
        });
        let answers = tasks.join_all().await;
        let passed = answers.iter().filter(|answer| answer.status == 400).count();
        let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert_eq!((passed, limited.len()), (100, 10));
        for answer in limited {
            assert_eq!(answer.json(), json!({"success": false, "error": "Rate limit exceeded"}));
            let wait: u64 = answer.header("retry-after").parse().expect("Retry-After in seconds");
            assert!((1..=3).contains(&wait));
            assert_eq!(
                (answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")),
                ("100", "0")
            );
        }
        key.get("/calls").await.expect(200);
        other.post("/hangup", &json!({})).await.refused(400);
        until(6.0, "the window has passed", async || {
            (key.post("/hangup", &json!({})).await.status == 400).then_some(())
        })
        .await;
    });
}

#[test]
fn t83_t165_what_is_not_there_wears_the_envelope() {
    go(async {
        let key = world().await.key("10");
        let wrong = key.get("/makecall").await;
        wrong.refused(405);
        assert_eq!(wrong.header("allow"), "POST");
        for path in ["/kaphila/makecall", "/hangup", "/voice", "/play", "/gather", "/recordings/1.1/stop"] {
            key.get(path).await.refused(405);
        }
        for path in ["/nothing", "/calls/1.1/more", "/kaphila/nothing", "/recordings/1720012345.88"] {
            key.get(path).await.refused(404);
        }
        key.get("/kaphila/calls").await.expect(200);
        let head = send(key.request(Method::HEAD, "/calls")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(send(key.request(Method::OPTIONS, "/calls")).await.status, 204);
        let large = key.post_bytes("/makecall", vec![b' '; 300 * 1024]).await;
        large.refused(413);
        key.get("/api/me").await.expect(200);
    });
}
