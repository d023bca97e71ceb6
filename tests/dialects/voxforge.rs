//! VoxForge (CONTRACT 1.3) from outside: agents, contacts, appointments, keys, plans.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::api::{Answer, Key, bare, send};
use crate::harness::{Server, World, go, unique, until, world};

/// A key of a tenant of its own.
pub(crate) fn tenant_key(world: &World, options: &[&str]) -> Key {
    key_of(&world.server, &unique("vf"), options)
}

/// A key of this tenant.
pub(crate) fn key_of(server: &Server, tenant: &str, options: &[&str]) -> Key {
    let mut all = vec!["--tenant", tenant];
    all.extend_from_slice(options);
    server.key(&all)
}

/// PATCH of JSON.
pub(crate) async fn patch(key: &Key, path: &str, body: &Value) -> Answer {
    send(key.request(Method::PATCH, path).header("content-type", "application/json").body(body.to_string()))
        .await
}

/// DELETE.
pub(crate) async fn delete(key: &Key, path: &str) -> Answer {
    send(key.request(Method::DELETE, path)).await
}

/// Checks that it is this status in VoxForge's envelope with this code, and gives the text.
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) -> String {
    let body = answer.expect(status);
    assert_eq!(body["error"]["code"], code, "{body}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    body["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {body}")).to_owned()
}

/// The id of what an answer holds, which must be one of VoxForge's form.
pub(crate) fn id_of(body: &Value) -> String {
    let id = body["id"].as_str().unwrap_or_else(|| panic!("no id: {body}"));
    let plain = id.len() == 25 && id.starts_with('c');
    let digits = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    assert!(plain && digits, "{id}");
    id.to_owned()
}

/// The document's agent.
pub(crate) fn sample_agent() -> Value {
    json!({
        "name": "Support Agent",
        "systemPrompt": "You are a helpful support agent for Acme Corp...",
        "firstMessage": "Hi, this is Acme support. How can I help you today?",
        "voice": "jennifer",
        "language": "en-US",
        "maxCallDuration": 600
    })
}

#[test]
fn t119_no_key_is_unauthorized() {
    go(async {
        let world = world().await;
        for path in ["/api/v1/agents", "/voxforge/api/v1/agents", "/api/v1/contacts", "/api/v1/api-keys"] {
            let answer = send(bare(world.server.http, Method::GET, path)).await;
            refused(&answer, 401, "UNAUTHORIZED");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert_eq!(answer.header("x-ratelimit-limit"), "");
        }
    });
}

#[test]
fn t120_the_sample_agent_is_made_and_shown() {
    go(async {
        let key = tenant_key(world().await, &[]);
        let made = key.post("/api/v1/agents", &sample_agent()).await.expect(201);
        let id = id_of(&made);
        assert_eq!(
            (&made["isActive"], &made["language"], &made["maxCallDuration"]),
            (&json!(true), &json!("en-US"), &json!(600))
        );
        assert_eq!(key.get(&format!("/api/v1/agents/{id}")).await.expect(200), made);
        let least = json!({"name": "Least", "systemPrompt": "Be brief."});
        let least = key.post("/api/v1/agents", &least).await.expect(201);
        assert_eq!((&least["voice"], &least["firstMessage"]), (&json!("jennifer"), &Value::Null));
        let list = key.get("/api/v1/agents").await;
        assert_eq!(list.header("x-total-count"), "2");
        let list = list.expect(200);
        let names: Vec<&str> = list[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["createdAt", "firstMessage", "id", "isActive", "name", "voice"]);
        assert_eq!(list.as_array().unwrap().len(), 2);
        // Nobody else's business.
        let other = tenant_key(world().await, &[]);
        refused(&other.get(&format!("/api/v1/agents/{id}")).await, 404, "NOT_FOUND");
        assert_eq!(other.get("/api/v1/agents").await.expect(200), json!([]));
    });
}

#[test]
fn t121_unknown_agents_are_named() {
    go(async {
        let key = tenant_key(world().await, &[]);
        let text = refused(&key.get("/api/v1/agents/clx123").await, 404, "NOT_FOUND");
        assert_eq!(text, "Agent with id clx123 not found");
    });
}

#[test]
fn t122_agents_change_and_go() {
    go(async {
        let key = tenant_key(world().await, &[]);
        let made = key.post("/api/v1/agents", &sample_agent()).await.expect(201);
        let path = format!("/api/v1/agents/{}", id_of(&made));
        let mut changed = patch(&key, &path, &json!({"isActive": false})).await.expect(200);
        assert_eq!(changed["isActive"], false);
        let mut expected = made.clone();
        expected["isActive"] = json!(false);
        for agent in [&mut changed, &mut expected] {
            agent["updatedAt"] = Value::Null;
        }
        assert_eq!(changed, expected);
        assert_eq!(patch(&key, &path, &json!({})).await.expect(200)["isActive"], false);
        let gone = delete(&key, &path).await.expect(200);
        assert_eq!(gone, json!({"id": made["id"], "deleted": true}));
        refused(&key.get(&path).await, 404, "NOT_FOUND");
        refused(&delete(&key, &path).await, 404, "NOT_FOUND");
    });
}

#[test]
fn t123_what_is_wrong_is_named_in_the_envelope() {
    go(async {
        let key = tenant_key(world().await, &[]);
        let missing = key.post("/api/v1/agents", &json!({"systemPrompt": "x"})).await;
        assert_eq!(refused(&missing, 400, "BAD_REQUEST"), "name is required");
        refused(&key.post_bytes("/api/v1/agents", "{\"name\":").await, 400, "BAD_REQUEST");
        for (field, value) in [
            ("maxCallDuration", json!(9)),
            ("maxCallDuration", json!(14_401)),
            ("maxCallDuration", json!("600")),
            ("language", json!("english!")),
            ("voice", json!("")),
            ("name", json!("n".repeat(121))),
            ("isActive", json!("yes")),
        ] {
            let mut body = sample_agent();
            body[field] = value;
            let text = refused(&key.post("/api/v1/agents", &body).await, 400, "BAD_REQUEST");
            assert!(text.contains(field), "{text}");
        }
        let answer = send(key.request(Method::PUT, "/api/v1/agents")).await;
        refused(&answer, 405, "BAD_REQUEST");
        refused(&key.get("/api/v1/nothing").await, 404, "NOT_FOUND");
        refused(&key.post_bytes("/api/v1/agents", " ".repeat(300_000)).await, 413, "BAD_REQUEST");
    });
}

#[test]
fn t124_a_plan_has_an_end() {
    go(async {
        let key = tenant_key(world().await, &["--plan", "starter"]);
        for _ in 0..3 {
            key.post("/api/v1/agents", &sample_agent()).await.expect(201);
        }
        refused(&key.post("/api/v1/agents", &sample_agent()).await, 422, "LIMIT_REACHED");
    });
}

#[test]
fn t125_plans_count_requests_by_the_minute() {
    go(async {
        let world = world().await;
        let key = tenant_key(world, &["--plan", "starter"]);
        let reset = |answer: &Answer| answer.header("x-ratelimit-reset").parse::<i64>().unwrap();
        let first = key.get("/api/v1/agents").await;
        let now = jiff::Timestamp::now().as_second();
        let end = reset(&first);
        assert!((now + 1..=now + 61).contains(&end), "{end} at {now}");
        assert_eq!((first.header("x-ratelimit-limit"), first.header("x-ratelimit-remaining")), ("60", "59"));
        for left in (0..59).rev() {
            let answer = key.get("/api/v1/agents/none").await;
            assert_eq!(answer.status, 404);
            assert_eq!(answer.header("x-ratelimit-remaining"), left.to_string());
            assert_eq!(reset(&answer), end);
        }
        let over = key.get("/api/v1/agents").await;
        refused(&over, 429, "RATE_LIMITED");
        assert_eq!((over.header("x-ratelimit-remaining"), reset(&over)), ("0", end));
        let wait: i64 = over.header("retry-after").parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
        let free = tenant_key(world, &[]);
        assert_eq!(free.get("/api/v1/agents").await.header("x-ratelimit-limit"), "");
    });
}

/// At the second that was told, and not before, requests are taken again.
#[test]
fn t125b_a_window_ends_when_it_says() {
    go(async {
        let key = tenant_key(world().await, &["--plan", "starter"]);
        let mut end = 0;
        for _ in 0..60 {
            end = key.get("/api/v1/agents").await.header("x-ratelimit-reset").parse().unwrap();
        }
        let left = || end * 1000 - jiff::Timestamp::now().as_millisecond();
        sleep(Duration::from_millis(u64::try_from(left() - 1000).unwrap_or(0))).await;
        // Asked again and again: refused to the last moment before it, taken from then on.
        let mut refusals = 0;
        let taken = loop {
            let before = left();
            let answer = key.get("/api/v1/agents").await;
            if answer.status == 200 {
                break answer;
            }
            refused(&answer, 429, "RATE_LIMITED");
            assert!(before > 0, "refused after the window's end");
            refusals += 1;
            sleep(Duration::from_millis(20)).await;
        };
        assert!(left() <= 0, "taken before the window's end");
        assert!(refusals > 0);
        assert_eq!(taken.header("x-ratelimit-remaining"), "59");
    });
}

#[test]
fn t126_addresses_are_kept_to() {
    go(async {
        let key = tenant_key(world().await, &["--ip-allow", "10.0.0.0/8"]);
        refused(&key.get("/api/v1/agents").await, 403, "FORBIDDEN");
        let forged = key.request(Method::GET, "/api/v1/agents").header("x-forwarded-for", "10.0.0.1");
        refused(&send(forged).await, 403, "FORBIDDEN");
    });
}

#[test]
fn t127_keys_are_shown_once() {
    go(async {
        let world = world().await;
        let key = tenant_key(world, &["--plan", "business", "--credits", "5", "--scopes", "agents,calls"]);
        let made = key.post("/api/v1/api-keys", &json!({"name": "CRM Sync"})).await.expect(201);
        let secret = made["key"].as_str().unwrap().to_owned();
        assert_eq!((&made["plan"], &made["ipAllow"]), (&json!("business"), &json!([])));
        let list = key.get("/api/v1/api-keys").await.expect(200);
        let rows = list.as_array().unwrap();
        assert_eq!(rows.len(), 2);
        assert!(!list.to_string().contains(&secret), "the key is shown again");
        assert_eq!(rows[1]["prefix"], secret[..8]);
        let new = Key { key: secret, ..key.clone() };
        new.get("/api/v1/agents").await.expect(200);
        refused(&new.get("/api/v1/contacts").await, 403, "FORBIDDEN");
        assert_eq!(new.get("/api/me").await.expect(200)["apiKey"]["credits"], 0);
        for more in [json!({"name": "x", "plan": "enterprise"})] {
            refused(&key.post("/api/v1/api-keys", &more).await, 403, "FORBIDDEN");
        }
        refused(
            &key.post("/api/v1/api-keys", &json!({"name": "x", "plan": "gold"})).await,
            400,
            "BAD_REQUEST",
        );
        let path = format!("/api/v1/api-keys/{}", id_of(&made));
        let stranger = tenant_key(world, &[]);
        refused(&delete(&stranger, &path).await, 404, "NOT_FOUND");
        assert_eq!(delete(&key, &path).await.expect(200)["deleted"], true);
        refused(&new.get("/api/v1/agents").await, 401, "UNAUTHORIZED");
        refused(&delete(&key, &path).await, 404, "NOT_FOUND");
    });
}

#[test]
fn contacts_are_made_changed_and_forgotten() {
    go(async {
        let key = tenant_key(world().await, &[]);
        let body =
            json!({"phone": "+1 (555) 123-4567", "name": "Ada", "variables": {"plan": "gold", "n": 3}});
        let made = key.post("/api/v1/contacts", &body).await.expect(201);
        assert_eq!((&made["phone"], &made["dnc"]), (&json!("+15551234567"), &json!(false)));
        assert_eq!(made["variables"], json!({"plan": "gold", "n": 3}));
        let path = format!("/api/v1/contacts/{}", id_of(&made));
        let changed =
            patch(&key, &path, &json!({"dnc": true, "timezone": "Europe/Berlin"})).await.expect(200);
        assert_eq!((&changed["dnc"], &changed["timezone"]), (&json!(true), &json!("Europe/Berlin")));
        assert_eq!(changed["name"], "Ada");
        assert_eq!(key.get("/api/v1/contacts").await.expect(200)[0], changed);
        for wrong in [
            json!({}),
            json!({"phone": "5551234567"}),
            json!({"phone": "=1+1"}),
            json!({"phone": 1}),
            json!({"phone": "+15551234567", "timezone": "Mars/X"}),
            json!({"phone": "+15551234567", "variables": []}),
        ] {
            refused(&key.post("/api/v1/contacts", &wrong).await, 400, "BAD_REQUEST");
        }
        refused(&tenant_key(world().await, &[]).get(&path).await, 404, "NOT_FOUND");
        delete(&key, &path).await.expect(200);
        refused(&key.get(&path).await, 404, "NOT_FOUND");
    });
}

#[test]
fn t137_appointments_are_made_listed_and_cancelled() {
    go(async {
        let key = tenant_key(world().await, &[]);
        let contact = key.post("/api/v1/contacts", &json!({"phone": "+15551234567"})).await.expect(201);
        let sample = |start: &str, end: &str| {
            json!({
                "contactId": contact["id"], "startTime": start, "endTime": end, "title": "Product Demo",
                "notes": "Prospect is interested in the CRM integration"
            })
        };
        let path = "/api/v1/appointments";
        let made = key.post(path, &sample("2025-02-15T10:00:00Z", "2025-02-15T10:30:00Z")).await.expect(201);
        assert_eq!((&made["status"], &made["contactId"]), (&json!("confirmed"), &contact["id"]));
        let late = key.post(path, &sample("2025-02-28T23:30:00Z", "2025-03-01T00:30:00Z")).await.expect(201);
        for (start, end) in [
            ("2025-02-15T10:00:00Z", "2025-02-15T10:00:00Z"),
            ("2025-02-15T10:00:00Z", "2025-02-15T09:00:00Z"),
            ("2025-02-15T10:00:00Z", "2025-02-16T10:00:01Z"),
            ("2025-02-15", "2025-02-16"),
            ("soon", "later"),
        ] {
            refused(&key.post(path, &sample(start, end)).await, 400, "BAD_REQUEST");
        }
        let mut stranger = sample("2025-02-15T10:00:00Z", "2025-02-15T10:30:00Z");
        stranger["contactId"] = json!("clx");
        let text = refused(&key.post(path, &stranger).await, 404, "NOT_FOUND");
        assert_eq!(text, "Contact with id clx not found");
        for (query, ids) in [
            ("status=confirmed&from=2025-02-01&to=2025-02-28", vec![&made["id"], &late["id"]]),
            ("to=2025-02-27", vec![&made["id"]]),
            ("from=2025-02-15T10:00:00Z&to=2025-02-15T10:00:00Z", vec![&made["id"]]),
            ("from=2025-02-16", vec![&late["id"]]),
            ("status=no_show", vec![]),
        ] {
            let list = key.get(&format!("{path}?{query}")).await.expect(200);
            let found: Vec<&Value> = list.as_array().unwrap().iter().map(|row| &row["id"]).collect();
            assert_eq!(found, ids, "{query}");
        }
        refused(&key.get(&format!("{path}?status=lost")).await, 400, "BAD_REQUEST");
        let one = format!("{path}/{}", id_of(&made));
        assert_eq!(key.get(&one).await.expect(200), made);
        assert_eq!(
            patch(&key, &one, &json!({"status": "cancelled"})).await.expect(200)["status"],
            "cancelled"
        );
        refused(&patch(&key, &one, &json!({"status": "maybe"})).await, 400, "BAD_REQUEST");
        refused(&patch(&key, &one, &json!({"endTime": "2025-02-15T09:00:00Z"})).await, 400, "BAD_REQUEST");
        assert_eq!(key.get(&one).await.expect(200)["endTime"], made["endTime"]);
    });
}

#[test]
fn numbers_are_listed() {
    go(async {
        let world = world().await;
        let tenant = unique("vf");
        let key = key_of(&world.server, &tenant, &[]);
        let number = format!("+1{}", crate::harness::number("0100").trim_start_matches('1'));
        world.server.cli(&["numbers", "add", &number, "--tenant", &tenant]);
        let list = key.get("/api/v1/phone-numbers").await.expect(200);
        assert_eq!((&list[0]["number"], &list[0]["agentId"]), (&json!(number), &Value::Null));
        id_of(&list[0]);
    });
}

#[test]
fn making_twice_under_one_name_makes_once() {
    go(async {
        let key = tenant_key(world().await, &[]);
        let ask = || {
            key.request(Method::POST, "/api/v1/agents")
                .header("idempotency-key", "one")
                .header("content-type", "application/json")
        };
        let first = send(ask().body(sample_agent().to_string())).await;
        let again = send(ask().body(sample_agent().to_string())).await;
        assert_eq!(first.expect(201), again.expect(201));
        assert_eq!(again.header("idempotent-replayed"), "true");
        refused(&send(ask().body("{\"name\":\"x\",\"systemPrompt\":\"y\"}")).await, 400, "BAD_REQUEST");
        let count = until(2.0, "the list", async || {
            Some(key.get("/api/v1/agents").await.expect(200).as_array().unwrap().len())
        });
        assert_eq!(count.await, 1);
    });
}
