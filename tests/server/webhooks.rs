//! Deliveries as operators handle them: looked at, sent again, replayed, by HTTP and by command line; and the receiver
//! for trials.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Key, bare, send};
use crate::carrier::Carrier;
use crate::harness::{Process, Server, TRUNKLINE, free_port, go, number, until};
use crate::receiver::{Receiver, genuine};

const DELIVERIES: &str = "/admin/v1/deliveries";

struct Stage {
    server: Server,
    _carrier: Carrier,
    key: Key,
    admin: Key,
}

async fn stage(name: &str) -> Stage {
    let server = Server::start(name, &[]).await;
    let carrier = Carrier::start(&server.home.join("carrier"), false).await;
    server.trunk("carrier", carrier.addr, &[]);
    let key = server.key(&["--trunks", "carrier", "--rate-limit", "10000"]);
    let admin = server.key(&["--admin"]);
    Stage { server, _carrier: carrier, key, admin }
}

/// A busy callee: one attempt, then `call.ended`. Gives the call's id when the URL has been told.
async fn call_to(stage: &Stage, url: &str) -> String {
    stage.key.call(&json!({ "number": number("0300"), "webhookUrl": url })).await
}

/// The delivery of a call's end, once it is in this state.
async fn end_of(stage: &Stage, call: &str, state: &str) -> Value {
    let path = format!("{DELIVERIES}?call={call}&event=call.ended&state={state}");
    until(20.0, &format!("the end of {call} is {state}"), async || {
        let list = stage.admin.get(&path).await.expect(200);
        list["deliveries"].as_array().and_then(|rows| rows.first().cloned())
    })
    .await
}

/// Waits until the last attempt at a call's end was answered with this status.
async fn answered_with(stage: &Stage, call: &str, status: u16) {
    let path = format!("{DELIVERIES}?call={call}&event=call.ended");
    until(20.0, &format!("the end of {call} is answered with {status}"), async || {
        let list = stage.admin.get(&path).await.expect(200);
        (list["deliveries"][0]["lastStatusCode"] == status).then_some(())
    })
    .await;
}

#[test]
fn a_delivery_is_looked_at_and_sent_again() {
    go(async {
        let stage = stage("deliveries").await;
        let receiver = Receiver::start().await;
        let call = call_to(&stage, &receiver.url()).await;
        let first = receiver.wait("call.ended").await;
        let row = end_of(&stage, &call, "delivered").await;
        assert_eq!(row["eventId"], first.header("webhook-id"));
        assert_eq!((&row["callId"], &row["keyId"]), (&json!(call), &json!(stage.key.key_id)));
        assert_eq!((&row["attempts"], &row["lastStatusCode"]), (&json!(1), &json!(200)));

        let path = format!("{DELIVERIES}/{}", row["eventId"].as_str().unwrap());
        let whole = stage.admin.get(&path).await.expect(200);
        let log = whole["attemptLog"].as_array().unwrap();
        assert_eq!((log.len(), &log[0]["number"], &log[0]["statusCode"]), (1, &json!(1), &json!(200)));
        assert!(log[0]["tookMs"].is_u64(), "{whole}");
        assert!(whole.get("body").is_none(), "bodies hold what callers typed: {whole}");

        let queued = stage.admin.post(&format!("{path}/redeliver"), &json!({})).await.expect(202);
        assert_eq!(queued["id"], row["id"]);
        let second = receiver.wait_nth("call.ended", 2).await;
        assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
        assert_eq!(second.header("x-webhook-attempt"), "2");
        assert_eq!(second.body, first.body);
        assert!(genuine(&stage.key.webhook_secret, &second, &second.body), "signed anew");

        let audit = stage.admin.get("/admin/v1/audit?action=delivery.redeliver").await.expect(200);
        let entry = &audit["entries"][0];
        assert_eq!(
            (&entry["actor"], &entry["subject"]),
            (&json!(stage.admin.key_id), &json!(row["id"].to_string()))
        );

        // The same by the command line, which nobody tells the server of.
        let id = row["id"].to_string();
        assert_eq!(stage.server.cli(&["webhooks", "redeliver", &id])["queued"], true);
        let third = receiver.wait_nth("call.ended", 3).await;
        assert_eq!(third.header("x-webhook-attempt"), "3");
        let shown = until(10.0, "the third attempt is in the log", async || {
            let shown = stage.server.cli(&["webhooks", "show", &id]);
            (shown["attemptLog"].as_array()?.len() == 3).then_some(shown)
        })
        .await;
        assert_eq!(shown["state"], "delivered");
        let listed = stage.server.cli(&["webhooks", "list", "--call", &call]);
        assert_eq!(listed.as_array().unwrap().len(), receiver.events().len() - 2, "{listed}");
    });
}

#[test]
fn what_failed_is_replayed_when_the_receiver_is_back() {
    go(async {
        let stage = stage("replay").await;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let receiver = Receiver::on(addr, |_, _| (500, Duration::ZERO)).await;
        let url = receiver.url();
        let mut calls = Vec::new();
        for _ in 0..2 {
            calls.push(call_to(&stage, &url).await);
        }
        // Nobody waits for five failures: a receiver that says it is gone ends a row at its next attempt.
        for call in &calls {
            let row = end_of(&stage, call, "waiting").await;
            assert_eq!(row["nextAttemptAt"].as_str().map(str::len), Some(24), "{row}");
        }
        drop(receiver);
        let gone = Receiver::on(addr, |_, _| (410, Duration::ZERO)).await;
        for call in &calls {
            end_of(&stage, call, "gone").await;
        }
        drop(gone);
        let back = Receiver::on(addr, crate::receiver::at_once).await;
        let nothing = stage.admin.post(&format!("{DELIVERIES}/replay"), &Value::Null).await;
        assert_eq!(nothing.status, 400, "a body is an object or nothing");
        let failed = stage.admin.post(&format!("{DELIVERIES}/replay"), &json!({})).await.expect(202);
        assert_eq!(failed, json!({ "matched": 0, "queued": 0 }), "none has failed for good");
        let filter = json!({ "filter": { "state": "gone", "host": "127.0.0.1" }, "limit": 1 });
        let one = stage.admin.post(&format!("{DELIVERIES}/replay"), &filter).await.expect(202);
        assert_eq!(one, json!({ "matched": 2, "queued": 1 }));
        let rest = stage.server.cli(&["webhooks", "replay", "--state", "gone"]);
        assert_eq!(rest["queued"], 1, "{rest}");
        back.wait_nth("call.ended", 2).await;
        for call in &calls {
            end_of(&stage, call, "delivered").await;
        }
    });
}

#[test]
fn only_operators_see_deliveries_and_bad_questions_are_named() {
    go(async {
        let stage = stage("deliveries-refused").await;
        assert_eq!(send(bare(stage.server.http, Method::GET, DELIVERIES)).await.status, 401);
        assert_eq!(stage.key.get(DELIVERIES).await.refused(403), "Forbidden");
        for (query, field) in
            [("state=lost", "state"), ("from=soon", "from"), ("limit=0", "limit"), ("before=x", "before")]
        {
            let text = stage.admin.get(&format!("{DELIVERIES}?{query}")).await.refused(400);
            assert!(text.starts_with(field), "{text}");
        }
        for path in ["/999", "/evt_none", "/%00"] {
            let text = stage.admin.get(&format!("{DELIVERIES}{path}")).await.refused(404);
            assert_eq!(text, "Delivery not found");
        }
        let none = format!("{DELIVERIES}/999/redeliver");
        assert_eq!(stage.admin.post(&none, &json!({})).await.refused(404), "Delivery not found");
        for (body, field) in [
            (json!({ "filter": "failed" }), "filter"),
            (json!({ "filter": { "state": "waiting" } }), "state"),
            (json!({ "limit": 1001 }), "limit"),
        ] {
            let text = stage.admin.post(&format!("{DELIVERIES}/replay"), &body).await.refused(400);
            assert!(text.starts_with(field), "{text}");
        }
        let empty = stage.admin.get(DELIVERIES).await.expect(200);
        assert_eq!(empty, json!({ "deliveries": [], "next": null }));
    });
}

/// Starts the receiver for trials.
async fn listener(stage: &Stage, name: &str, options: &[&str]) -> (Process, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let log = stage.server.home.join(format!("{name}.log"));
    let mut command = Command::new(TRUNKLINE);
    command.args(["webhooks", "listen", "--listen", &address]).args(options);
    let mut process = Process::start(name, &mut command, log);
    until(10.0, "the receiver listens", async || {
        process.must_run();
        process.said("listening on").then_some(())
    })
    .await;
    (process, format!("http://{address}/hooks"))
}

#[test]
fn the_receiver_for_trials_believes_only_the_right_secret() {
    go(async {
        let stage = stage("listen").await;
        let (right, url) = listener(&stage, "right", &["--secret", &stage.key.webhook_secret]).await;
        call_to(&stage, &url).await;
        until(15.0, "the end is printed", async || right.said("call.ended").then_some(())).await;
        assert!(right.said("signature ok") && !right.said("REFUSED"));

        let other = stage.server.key(&[]).webhook_secret;
        let (wrong, url) = listener(&stage, "wrong", &["--secret", &other]).await;
        let call = call_to(&stage, &url).await;
        until(15.0, "a refusal is printed", async || wrong.said("REFUSED (none of its 1 v1").then_some(()))
            .await;
        answered_with(&stage, &call, 401).await;

        let (ill, url) = listener(&stage, "ill", &["--status", "500", "--delay-ms", "10"]).await;
        let call = call_to(&stage, &url).await;
        until(15.0, "it came", async || ill.said("not checked").then_some(())).await;
        answered_with(&stage, &call, 500).await;
    });
}
