//! What keys may do on the call routes: where to, as whom, from where, until when, how many and how dear.

use serde_json::json;
use tokio::task::JoinSet;

use crate::admin::{Admin, place};
use crate::api::{Answer, Key};
use crate::harness::{Server, go, number, until, world};

#[test]
fn destinations_are_closed_and_opened_by_key() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let key = admin.key(json!({"countries": ["1"]})).await;
        assert_eq!(place(&key, "+442079460000").await.refused(403), "Destination not allowed");
        assert_eq!(place(&key, "+49 30 901820").await.refused(403), "Destination not allowed");
        for closed in ["911", "112", "+1 900 555 0304", "00 1 900 555 0304"] {
            assert_eq!(place(&key, closed).await.refused(400), "number is not allowed", "{closed}");
        }
        place(&key, &number("0304")).await.expect(200);
        let path = format!("/keys/{}", key.key_id);
        admin.patch(&path, json!({"allowPremium": true, "allowEmergency": true})).await.expect(200);
        place(&key, "+1 900 555 0304").await.expect(200);
        let call = key.call(&json!({"number": "911"})).await;
        key.hang_up(&call).await;
        admin.patch(&path, json!({"countries": null})).await.expect(200);
        place(&key, "+44 20 7946 0304").await.expect(200);
    });
}

#[test]
fn scopes_surfaces_addresses_and_expiry_are_kept_to() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let reader = admin.key(json!({"scopes": ["recordings"]})).await;
        reader.get("/recordings").await.expect(200);
        assert_eq!(reader.get("/calls").await.refused(403), "Forbidden");
        assert_eq!(place(&reader, &number("0304")).await.refused(403), "Forbidden");
        let elsewhere = admin.key(json!({"ipAllow": ["10.0.0.0/8"]})).await;
        assert_eq!(elsewhere.get("/api/me").await.refused(403), "Forbidden");
        let other = admin.key(json!({"surfaces": ["voxforge"]})).await;
        assert_eq!(other.get("/api/me").await.refused(403), "Forbidden");
        admin.patch(&format!("/keys/{}", other.key_id), json!({"surfaces": ["kaphila"]})).await.expect(200);
        other.get("/api/me").await.expect(200);

        let ends = jiff::Timestamp::now() + std::time::Duration::from_millis(4000);
        let brief = admin.key(json!({"expiresAt": ends.to_string()})).await;
        brief.get("/api/me").await.expect(200);
        until(10.0, "the key has expired", async || (brief.get("/api/me").await.status == 401).then_some(()))
            .await;
        assert_eq!(admin.get(&format!("/keys/{}", brief.key_id)).await["state"], "expired");
    });
}

#[test]
fn a_day_of_credits_is_not_sold_twice() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let key = admin.key(json!({"dailyCredits": 3})).await;
        let answers = at_once(&key, 12, "0400").await;
        let placed: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(placed.len(), 3);
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(refused.refused(402), "Daily credit limit reached");
        }
        for answer in placed {
            assert_eq!(key.wait_ended(&crate::api::call_id(&answer.json())).await["status"], "completed");
        }
        assert_eq!(place(&key, &number("0304")).await.refused(402), "Daily credit limit reached");
        let path = format!("/keys/{}", key.key_id);
        assert_eq!(admin.get(&path).await["creditsToday"], 3);
        admin.patch(&path, json!({"dailyCredits": 4})).await.expect(200);
        // Nobody answers: the day has its credit back.
        for _ in 0..2 {
            let call = key.call(&json!({"number": number("0303")})).await;
            assert_eq!(place(&key, &number("0304")).await.refused(402), "Daily credit limit reached");
            key.hang_up(&call).await;
            key.wait_ended(&call).await;
        }
        assert_eq!(admin.get(&path).await["creditsToday"], 3);
    });
}

#[test]
fn a_minute_has_so_many_calls() {
    go(async {
        let admin = Admin::of(&world().await.server);
        let key = admin.key(json!({"callsPerMinute": 4})).await;
        let answers = at_once(&key, 12, "0304").await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 4);
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(refused.refused(429), "Call rate limit exceeded");
            let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
            assert!((1..=60).contains(&seconds), "{seconds}");
        }
        assert_eq!(key.credits().await, -1);
    });
}

/// So many placings that start together.
async fn at_once(key: &Key, requests: usize, last_four: &str) -> Vec<Answer> {
    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        let (key, to) = (key.clone(), number(last_four));
        tasks.spawn(async move { place(&key, &to).await });
    }
    tasks.join_all().await
}

#[test]
fn caller_ids_belong_to_the_tenant_where_that_is_asked() {
    go(async {
        let server = Server::start("callerid", &[("CALLERID__ENFORCE", "true")]).await;
        server.trunk("carrier", world().await.carrier.addr, &[]);
        let key = server.key(&["--trunks", "carrier", "--tenant", "TC"]);
        let showing = async |caller: &str| {
            key.post("/makecall", &json!({"number": number("0304"), "callerId": caller})).await
        };
        assert_eq!(showing("+15005550006").await.refused(403), "Forbidden");
        assert_eq!(showing("anonymous").await.refused(403), "Forbidden");
        server.cli(&["numbers", "add", "+15005550006", "--tenant", "other"]);
        assert_eq!(showing("+15005550006").await.refused(403), "Forbidden");
        server.cli(&["numbers", "remove", "+15005550006"]);
        server.cli(&["numbers", "add", "+15005550006", "--tenant", "TC"]);
        showing("+15005550006").await.expect(200);
        showing("15005550006").await.expect(200);
        place(&key, &number("0304")).await.expect(200);
        let listed = server.key(&["--trunks", "carrier", "--caller-ids", "+14155550199,anonymous"]);
        for caller in ["+14155550199", "anonymous"] {
            let body = json!({"number": number("0304"), "callerId": caller});
            listed.post("/makecall", &body).await.expect(200);
        }
    });
}
