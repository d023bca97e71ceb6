//! VoxForge's calls, their webhooks and their recordings (CONTRACT 1.3) from outside.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{CLIENT, Key, bare, send};
use crate::carrier::Carrier;
use crate::harness::{Server, go, home, number, unique, until, world};
use crate::receiver::{Delivery, Receiver, genuine};
use crate::voxforge::{delete, id_of, key_of, patch, refused, sample_agent};

/// A customer with an agent and a number.
pub(crate) struct Customer {
    pub(crate) key: Key,
    pub(crate) agent: String,
    pub(crate) number: String,
    pub(crate) tenant: String,
}

impl Customer {
    /// A new one on this server, whose key has this trunk.
    pub(crate) async fn new(server: &Server, trunk: &str, options: &[&str]) -> Self {
        let tenant = unique("vfc");
        let mut all = vec!["--trunks", trunk, "--rate-limit", "10000"];
        all.extend_from_slice(options);
        let key = key_of(server, &tenant, &all);
        let mut agent = sample_agent();
        agent["firstMessage"] = json!("Hello.");
        let agent = id_of(&key.post("/api/v1/agents", &agent).await.expect(201));
        server.cli(&["numbers", "add", &format!("+{}", number("7777")), "--tenant", &tenant]);
        let numbers = key.get("/api/v1/phone-numbers").await.expect(200);
        Self { number: id_of(&numbers[0]), key, agent, tenant }
    }

    /// On the shared server and carrier.
    pub(crate) async fn shared(options: &[&str]) -> Self {
        Self::new(&world().await.server, "carrier", options).await
    }

    /// What `POST /api/v1/calls` wants.
    pub(crate) fn order(&self, to: &str) -> Value {
        json!({"agentId": self.agent, "phoneNumberId": self.number, "to": format!("+{to}")})
    }

    /// Has the agent call; the call.
    pub(crate) async fn call(&self, to: &str) -> Value {
        self.key.post("/api/v1/calls", &self.order(to)).await.expect(201)
    }

    /// Waits until a call has this status.
    pub(crate) async fn wait(&self, id: &str, status: &str) -> Value {
        let path = format!("/api/v1/calls/{id}");
        until(20.0, &format!("call {id} is {status}"), async || {
            let call = self.key.get(&path).await.expect(200);
            assert!(call["status"] == status || call["endedAt"].is_null(), "{call}");
            (call["status"] == status).then_some(call)
        })
        .await
    }

    /// Subscribes a receiver; the endpoint's answer.
    pub(crate) async fn subscribe(&self, receiver: &Receiver, events: &[&str]) -> Value {
        let body = json!({"url": receiver.url(), "events": events});
        self.key.post("/api/v1/webhooks", &body).await.expect(201)
    }
}

#[test]
fn t133_the_list_keeps_to_its_bounds() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let list = customer.key.get("/api/v1/calls").await.expect(200);
        assert_eq!(list, json!({"calls": [], "total": 0, "limit": 50, "offset": 0}));
        for query in ["limit=201", "limit=0", "status=foo", "from=soon", "offset=-1"] {
            refused(&customer.key.get(&format!("/api/v1/calls?{query}")).await, 400, "BAD_REQUEST");
        }
        assert_eq!(customer.key.get("/api/v1/calls?limit=200").await.expect(200)["limit"], 200);
    });
}

#[test]
fn t134_t136_an_agent_calls() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let to = number("0403");
        let made = customer.call(&to).await;
        let id = id_of(&made);
        assert_eq!((&made["status"], &made["direction"]), (&json!("queued"), &json!("outbound")));
        assert_eq!((&made["to"], &made["duration"]), (&json!(format!("+{to}")), &json!(0)));
        assert_eq!((&made["agentId"], &made["campaignId"]), (&json!(customer.agent), &Value::Null));
        customer.wait(&id, "in-progress").await;
        let busy = delete(&customer.key, &format!("/api/v1/agents/{}", customer.agent)).await;
        refused(&busy, 400, "BAD_REQUEST");
        let over = customer.wait(&id, "completed").await;
        let moment = |name: &str| over[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let answered =
            moment("answeredAt").until(moment("endedAt")).unwrap().total(jiff::Unit::Second).unwrap();
        assert_eq!(over["duration"], json!(answered.floor() as i64));
        assert_eq!((&over["endReason"], &over["analysis"]), (&json!("normal_hangup"), &Value::Null));
        assert_eq!(over["transcript"][0]["role"], "agent");
        assert_eq!(over["transcript"][0]["text"], "Hello.");
        let far = world().await.carrier.call(&to).await;
        assert!(far.line["from"].as_str().is_some_and(|from| from.ends_with("7777")), "{}", far.line);
        // The recording by its link, and by the key.
        let url = until(5.0, "the recording is whole", async || {
            let call = customer.key.get(&format!("/api/v1/calls/{id}")).await.expect(200);
            call["recordingUrl"].as_str().map(str::to_owned)
        })
        .await;
        let file = send(CLIENT.get(&url)).await;
        assert_eq!((file.status, file.header("content-type")), (200, "audio/wav"));
        refused(&send(CLIENT.get(url.replace("exp=1", "exp=2"))).await, 403, "FORBIDDEN");
        let path = url.split('?').next().unwrap();
        refused(&send(CLIENT.get(path)).await, 401, "UNAUTHORIZED");
        assert_eq!(send(CLIENT.get(path).bearer_auth(&customer.key.key)).await.body, file.body);
        let stranger = Customer::shared(&[]).await;
        refused(&send(CLIENT.get(path).bearer_auth(&stranger.key.key)).await, 404, "NOT_FOUND");
        refused(&stranger.key.get(&format!("/api/v1/calls/{id}")).await, 404, "NOT_FOUND");
    });
}

#[test]
fn t134b_what_cannot_be_called_is_named() {
    go(async {
        let customer = Customer::shared(&["--plan", "starter", "--credits", "1"]).await;
        let key = &customer.key;
        for (field, value, status, code) in [
            ("to", json!("5551234567"), 400, "BAD_REQUEST"),
            ("to", Value::Null, 400, "BAD_REQUEST"),
            ("to", json!("+19005550100"), 400, "BAD_REQUEST"),
            ("agentId", json!("clx"), 404, "NOT_FOUND"),
            ("phoneNumberId", json!("clx"), 404, "NOT_FOUND"),
        ] {
            let mut order = customer.order(&number("0100"));
            order[field] = value;
            refused(&key.post("/api/v1/calls", &order).await, status, code);
        }
        let agent = format!("/api/v1/agents/{}", customer.agent);
        patch(key, &agent, &json!({"isActive": false})).await.expect(200);
        let order = customer.order(&number("0303"));
        refused(&key.post("/api/v1/calls", &order).await, 400, "BAD_REQUEST");
        patch(key, &agent, &json!({"isActive": true})).await.expect(200);
        let first = customer.call(&number("0303")).await;
        refused(&key.post("/api/v1/calls", &order).await, 422, "LIMIT_REACHED");
        let rich = Customer::shared(&["--plan", "starter"]).await;
        let calls = [rich.call(&number("0303")).await, rich.call(&number("0303")).await];
        let third = rich.key.post("/api/v1/calls", &rich.order(&number("0303"))).await;
        assert_eq!(refused(&third, 422, "LIMIT_REACHED"), "Concurrent call limit reached");
        let none = Customer::new(&world().await.server, "", &[]).await;
        let text =
            refused(&none.key.post("/api/v1/calls", &none.order("14155550100")).await, 500, "INTERNAL_ERROR");
        assert_eq!(text, "No outbound route");
        for (owner, call) in [(&customer, &first), (&rich, &calls[0]), (&rich, &calls[1])] {
            let logs = owner.key.get("/calls").await.expect(200);
            for live in logs["calls"].as_array().unwrap() {
                owner.key.hang_up(live["callId"].as_str().unwrap()).await;
            }
            owner.wait(&id_of(call), "failed").await;
        }
    });
}

#[test]
fn t135_t163_calls_are_found_by_what_is_known_of_them() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let to = number("0400");
        let kaphila = customer.key.call(&json!({"number": to})).await;
        customer.key.wait_ended(&kaphila).await;
        let called = id_of(&customer.call(&number("0300")).await);
        customer.wait(&called, "failed").await;
        let list = async |query: &str| {
            let list = customer.key.get(&format!("/api/v1/calls?{query}")).await.expect(200);
            let rows = list["calls"].as_array().unwrap().clone();
            assert_eq!(list["total"], rows.len(), "{query}");
            rows.iter().map(|row| row["to"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        // What lives is known sooner than it is written.
        until(5.0, "the end is written", async || (list("status=failed").await.len() == 1).then_some(()))
            .await;
        let all = list("").await;
        assert_eq!((all.len(), &all[1]), (2, &format!("+{to}")), "newest first: {all:?}");
        assert_eq!(list("status=completed").await, [format!("+{to}")]);
        assert_eq!(list("status=failed").await, [all[0].clone()]);
        assert_eq!(list(&format!("agentId={}", customer.agent)).await, [all[0].clone()]);
        assert!(list("agentId=clx").await.is_empty() && list("campaignId=clx").await.is_empty());
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let tomorrow = today.tomorrow().unwrap();
        assert_eq!(list(&format!("from={today}&to={tomorrow}")).await.len(), 2);
        assert!(list(&format!("from={tomorrow}")).await.is_empty());
        let page = customer.key.get("/api/v1/calls?limit=1&offset=1").await.expect(200);
        assert_eq!((&page["total"], page["calls"].as_array().unwrap().len()), (&json!(2), 1));
    });
}

/// Runs one of the document's programs on a delivery.
fn document_says(program: &str, file: &str, delivery: &Delivery, body: &[u8], secret: &str) -> bool {
    let path = format!("{}/tests/clients/voxforge/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(program);
    command.arg(path).arg(delivery.header("x-voxforge-signature")).arg(secret);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program}: {error}; run tests/run"));
    child.stdin.take().unwrap().write_all(body).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    String::from_utf8_lossy(&out).trim().eq_ignore_ascii_case("true")
}

#[test]
fn t138_t139_every_call_is_told() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let receiver = Receiver::start().await;
        let all = ["call.started", "call.ended", "call.failed", "transcript.ready", "analysis.complete"];
        let endpoint = customer.subscribe(&receiver, &all).await;
        let secret = endpoint["secret"].as_str().unwrap();
        let to = number("0400");
        let call = id_of(&customer.call(&to).await);
        let last = receiver.wait("transcript.ready").await;
        assert_eq!(receiver.events(), ["call.started", "call.ended", "transcript.ready"]);
        assert!(last.json["data"]["turns"].as_u64() >= Some(1), "{}", last.json);
        let ended = receiver.wait("call.ended").await;
        let expected = json!({
            "callId": call, "status": "completed", "duration": ended.json["data"]["duration"],
            "to": format!("+{to}"), "agentId": customer.agent, "campaignId": null
        });
        assert_eq!(ended.json["data"], expected);
        assert!(ended.json["data"]["duration"].is_u64() && ended.json["timestamp"].is_string());
        assert_eq!((&ended.json["sequence"], ended.header("x-webhook-attempt")), (&json!(2), "1"));
        assert!(genuine(secret, &ended, &ended.body));
        let changed = [b" ".as_slice(), &ended.body].concat();
        for (program, file) in [("python3", "verify.py"), ("node", "verify.cjs")] {
            assert!(document_says(program, file, &ended, &ended.body, secret), "{program}");
            assert!(!document_says(program, file, &ended, &changed, secret), "{program}");
        }
        // Busy: failed and nothing more. A call of another surface is told in the same form.
        let kaphila = customer.key.call(&json!({"number": number("0300")})).await;
        let failed = receiver.wait("call.failed").await;
        assert_eq!(
            (&failed.json["data"]["reason"], &failed.json["data"]["status"]),
            (&json!("busy"), &json!("failed"))
        );
        assert_eq!(failed.json["data"]["agentId"], Value::Null);
        customer.key.wait_ended(&kaphila).await;
        assert_eq!(receiver.count("call.ended"), 1);
        // A rotated secret signs; the old one still does, in the standard's header.
        let path = format!("/api/v1/webhooks/{}", id_of(&endpoint));
        let rotated = customer.key.post(&format!("{path}/rotate"), &json!({})).await.expect(200);
        let newest = rotated["secret"].as_str().unwrap();
        customer.key.call(&json!({"number": number("0300")})).await;
        let next = receiver.wait_nth("call.failed", 2).await;
        assert!(genuine(secret, &next, &next.body) && genuine(newest, &next, &next.body));
        assert!(document_says("python3", "verify.py", &next, &next.body, newest));
        assert!(!document_says("python3", "verify.py", &next, &next.body, secret));
        // The log, and once more.
        let log = customer.key.get(&format!("{path}/deliveries")).await.expect(200);
        let first = log.as_array().unwrap().last().unwrap().clone();
        assert_eq!(
            (&first["event"], &first["status"], &first["lastStatusCode"], &first["callId"]),
            (&json!("call.started"), &json!("delivered"), &json!(200), &json!(call))
        );
        let again = format!("{path}/deliveries/{}/redeliver", id_of(&first));
        customer.key.post(&again, &json!({})).await.expect(200);
        let started = |n| receiver.wait_nth("call.started", n);
        let (one, more) = (started(1).await, started(4).await);
        assert_eq!(one.header("webhook-id"), more.header("webhook-id"));
        let stranger = Customer::shared(&[]).await;
        refused(&stranger.key.post(&again, &json!({})).await, 404, "NOT_FOUND");
        // Deleted: nothing more comes.
        delete(&customer.key, &path).await.expect(200);
        let before = receiver.all().len();
        let silent = customer.key.call(&json!({"number": number("0300")})).await;
        customer.key.wait_ended(&silent).await;
        assert_eq!(receiver.all().len(), before);
        refused(&customer.key.get(&path).await, 404, "NOT_FOUND");
    });
}

#[test]
fn t140_failures_are_tried_again_four_times() {
    go(async {
        let folder = home("vf-retries");
        let carrier = Carrier::start(&folder, false).await;
        let server = Server::start("vf-retries", &[("WEBHOOKS__TIME_SCALE", "0.0005")]).await;
        server.trunk("carrier", carrier.addr, &[]);
        let customer = Customer::new(&server, "carrier", &[]).await;
        let receiver = Receiver::ruled(|_, _| (500, Duration::ZERO)).await;
        let endpoint = customer.subscribe(&receiver, &["call.failed"]).await;
        customer.call(&number("0300")).await;
        receiver.wait_nth("call.failed", 5).await;
        let path = format!("/api/v1/webhooks/{}/deliveries", id_of(&endpoint));
        let row = until(5.0, "the delivery is given up", async || {
            let log = customer.key.get(&path).await.expect(200);
            (log[0]["status"] == "failed").then(|| log[0].clone())
        })
        .await;
        assert_eq!((&row["attempts"], &row["lastStatusCode"]), (&json!(5), &json!(500)));
        assert_eq!(row["nextAttemptAt"], Value::Null);
        let all = receiver.all();
        assert_eq!(all.len(), 5);
        assert!(all.iter().all(|sent| sent.header("webhook-id") == all[0].header("webhook-id")));
        assert!(all.iter().all(|sent| sent.body == all[0].body));
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
        for (gap, least) in gaps.iter().zip([0.0135, 0.135, 0.81, 3.24]) {
            assert!((least..least + 2.0).contains(gap), "{gaps:?}");
        }
    });
}

#[test]
fn t141_receivers_have_ten_seconds() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let receiver = Receiver::ruled(|_, before| {
            (200, if before == 0 { Duration::from_secs(11) } else { Duration::ZERO })
        })
        .await;
        customer.subscribe(&receiver, &["call.failed"]).await;
        customer.call(&number("0300")).await;
        let first = receiver.wait("call.failed").await;
        let again = receiver.wait_nth("call.failed", 2).await;
        // Given up at 10 s, sent again after 30 s times 0.02, give or take a tenth.
        let gap = (again.at - first.at).as_secs_f64();
        assert!((10.0 + 0.5..10.5 + 0.7 + 0.5).contains(&gap), "{gap}");
        assert_eq!(again.header("x-webhook-attempt"), "2");
    });
}

#[test]
fn t142_endpoints_must_be_https() {
    go(async {
        let settings = [("WEBHOOKS__ALLOW_HTTP", "false")];
        let server = Server::start("vf-https", &settings).await;
        let key = key_of(&server, "t", &[]);
        let make = |url: &str| json!({"url": url, "events": ["call.ended"]});
        refused(&key.post("/api/v1/webhooks", &make("http://example.com/h")).await, 400, "BAD_REQUEST");
        let call = json!({"number": "14155550100", "webhookUrl": "http://example.com/h"});
        key.post("/makecall", &call).await.refused(400);
        let made = key.post("/api/v1/webhooks", &make("https://example.com/h")).await.expect(201);
        assert_eq!((&made["isActive"], &made["events"]), (&json!(true), &json!(["call.ended"])));
        assert!(made["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
        let list = key.get("/api/v1/webhooks").await.expect(200);
        assert!(list[0].get("secret").is_none() && list.as_array().unwrap().len() == 1);
        for wrong in [
            json!({"url": "https://example.com/h"}),
            json!({"url": "https://example.com/h", "events": []}),
            json!({"url": "https://example.com/h", "events": ["call.lost"]}),
            json!({"url": "https://u:p@example.com/h", "events": ["call.ended"]}),
            json!({"events": ["call.ended"]}),
        ] {
            refused(&key.post("/api/v1/webhooks", &wrong).await, 400, "BAD_REQUEST");
        }
    });
}

#[test]
fn t143_only_what_is_wanted_comes() {
    go(async {
        let customer = Customer::shared(&[]).await;
        let (some, none) = (Receiver::start().await, Receiver::start().await);
        customer.subscribe(&some, &["call.ended"]).await;
        let off = customer.subscribe(&none, &["call.ended", "call.started"]).await;
        let path = format!("/api/v1/webhooks/{}", id_of(&off));
        let changed = patch(&customer.key, &path, &json!({"isActive": false})).await.expect(200);
        assert_eq!(changed["isActive"], false);
        let call = id_of(&customer.call(&number("0400")).await);
        customer.wait(&call, "completed").await;
        some.wait("call.ended").await;
        assert_eq!((some.events(), none.events()), (vec!["call.ended".to_owned()], vec![]));
    });
}

#[test]
fn t165_every_refusal_wears_the_envelope() {
    go(async {
        let server = &world().await.server;
        for (method, path, status) in [
            (Method::GET, "/api/v1/nothing", 404),
            (Method::GET, "/voxforge/nothing", 404),
            (Method::PUT, "/api/v1/calls", 405),
            (Method::DELETE, "/voxforge/api/v1/campaigns/c/contacts", 405),
            (Method::POST, "/api/v1/calls", 401),
        ] {
            let answer = send(bare(server.http, method, path)).await;
            let body = answer.expect(status);
            assert!(body["error"]["code"].is_string(), "{path}: {body}");
        }
    });
}
