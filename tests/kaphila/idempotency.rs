//! A request repeated under one `Idempotency-Key` is done once.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Answer, Key, call_id, send};
use crate::harness::{Server, go, number, unique, until, world};
use crate::uas::{Script, Uas};

impl Key {
    /// POST of JSON under an `Idempotency-Key`.
    async fn named(&self, path: &str, name: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).header("idempotency-key", name);
        send(request.body(body.to_string())).await
    }
}

fn told(answer: &Answer) -> &str {
    answer.header("idempotent-replayed")
}

#[test]
fn t82_a_repeat_is_given_the_first_answer_and_dials_nobody() {
    go(async {
        let far = Uas::answering().await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        for (path, invites) in [("/makecall", 1), ("/batchcall", 2)] {
            let (name, body) = (unique("order-"), json!({"number": number("0100")}));
            let first = key.named(path, &name, &body).await;
            let again = key.named(path, &name, &body).await;
            assert_eq!(first.expect(200), again.expect(200));
            assert_eq!((told(&first), told(&again)), ("", "true"));
            let other = key.named(path, &name, &json!({"number": number("0100")})).await;
            assert_eq!(other.refused(409), "Idempotency-Key was used with a different body");
            assert_eq!(far.count("INVITE"), invites);
            let call = call_id(&first.json());
            key.hang_up(&call).await;
            key.wait_ended(&call).await;
            // The call is over; a late repeat still is no new one.
            assert_eq!(call_id(&key.named(path, &name, &body).await.expect(200)), call);
        }
        assert_eq!(far.count("INVITE"), 2);
        for bad in ["", "a b", &"x".repeat(129)] {
            key.named("/makecall", bad, &json!({"number": number("0100")})).await.refused(400);
        }
        let me = key.get("/api/me").await.expect(200);
        assert_eq!(me["apiKey"]["totalCalls"], 2);
    });
}

#[test]
fn a_hundred_repeats_at_once_are_one_call() {
    go(async {
        let far = Uas::answering().await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let (name, body) = (unique("order-"), json!({"number": number("0100")}));
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let (key, name, body) = (key.clone(), name.clone(), body.clone());
            tasks.spawn(async move { key.named("/makecall", &name, &body).await });
        }
        let answers = tasks.join_all().await;
        let calls: Vec<_> = answers.iter().filter(|a| a.status == 200).map(|a| call_id(&a.json())).collect();
        assert!(calls.iter().all(|call| *call == calls[0]), "{calls:?}");
        assert_eq!(answers.iter().filter(|a| a.status == 200 && told(a).is_empty()).count(), 1);
        for answer in answers.iter().filter(|a| a.status != 200) {
            assert_eq!(answer.refused(409), "A request with this Idempotency-Key is in progress");
        }
        assert_eq!((far.count("INVITE"), key.credits().await >= 9), (1, true));
        assert_eq!(key.get("/calls").await.expect(200)["totalCalls"], 1);
        key.hang_up(&calls[0]).await;
        key.wait_ended(&calls[0]).await;
    });
}

#[test]
fn who_hangs_up_on_the_answer_finds_it_by_asking_again() {
    go(async {
        // The far end says 100 and nothing more: /makecall takes 4 s.
        let far = Uas::start(Script::Trying).await;
        let (key, _) = world().await.key_on("10", &[far.addr]);
        let (name, body) = (unique("order-"), json!({"number": number("0100")}));
        let request = key.request(Method::POST, "/makecall").header("idempotency-key", &name);
        let impatient = request.body(body.to_string()).timeout(Duration::from_millis(700)).send().await;
        assert!(impatient.is_err_and(|error| error.is_timeout()));
        far.wait("INVITE").await;
        let early = key.named("/makecall", &name, &body).await;
        assert_eq!(early.refused(409), "A request with this Idempotency-Key is in progress");
        assert_eq!(early.header("retry-after"), "1");
        let answer = until(8.0, "the first request is answered", async || {
            let answer = key.named("/makecall", &name, &body).await;
            (answer.status != 409).then_some(answer)
        })
        .await;
        assert_eq!((answer.status, told(&answer)), (200, "true"));
        let live = key.get("/calls").await.expect(200);
        assert_eq!((&live["totalCalls"], &live["calls"][0]["callId"]), (&json!(1), &answer.json()["callId"]));
        assert_eq!(far.count("INVITE"), 1);
    });
}

#[test]
fn a_crash_keeps_what_was_answered_and_frees_what_was_not() {
    go(async {
        let mut server = Server::start("repeats", &[]).await;
        let (busy, trying) =
            (Uas::start(Script::Final("486 Busy Here", "")).await, Uas::start(Script::Trying).await);
        let (quick, _) = server.key_on("10", &[busy.addr]);
        let (slow, _) = server.key_on("10", &[trying.addr]);
        let body = json!({"number": number("0100")});
        let first = quick.named("/makecall", "one", &body).await.expect(200);
        let cut = {
            let (slow, body) = (slow.clone(), body.clone());
            tokio::spawn(async move {
                let request = slow.request(Method::POST, "/makecall").header("idempotency-key", "one");
                request.body(body.to_string()).send().await
            })
        };
        trying.wait("INVITE").await;
        assert_eq!(slow.named("/makecall", "one", &body).await.status, 409);
        server.crash();
        assert!(cut.await.expect("no panic").is_err(), "the crash cut it off");
        server.start_again().await;

        let again = quick.named("/makecall", "one", &body).await;
        assert_eq!((again.expect(200), told(&again)), (first, "true"));
        assert_eq!(busy.count("INVITE"), 1);
        // The cut-off call was ended by the restart; the name it came under is free.
        let retried = slow.named("/makecall", "one", &body).await;
        assert_eq!((retried.status, told(&retried)), (200, ""));
        let logs = slow.post("/api/call-logs", &json!({})).await.expect(200);
        assert_eq!((&logs["total_count"], &logs["logs"][1]["status"]), (&json!(2), &json!("failed")));
        assert_eq!(logs["logs"][0]["call_id"], retried.json()["callId"]);
    });
}
