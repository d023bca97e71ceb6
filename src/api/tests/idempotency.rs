//! Requests that are repeated under one `Idempotency-Key`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use tokio::sync::Barrier;

use super::world::{Answer, World, rings};
use crate::model::call::{CallOrder, CommandError, EndReason};
use crate::model::event::{CallEvent, Fault};

const CALL: &str = r#"{"number":"14155550100"}"#;

impl World {
    async fn named(&self, path: &str, key: &str, name: &str, body: &str) -> Answer {
        let request = Request::post(path)
            .header("authorization", format!("Bearer {key}"))
            .header("idempotency-key", name);
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    fn placed(&self) -> usize {
        self.orders.lock().unwrap().len()
    }
}

fn error(answer: &Answer) -> (StatusCode, String) {
    (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_repeat_is_given_the_first_answer() {
    let world = World::new(rings).await;
    let key = world.key("A", &["a"], |new| new.credits = Some(10)).await;
    let first = world.named("/makecall", &key, "one", CALL).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (StatusCode::OK, None));
    world.journal.flush().await;
    // The same route under the surface's own mounting point is the same place.
    for path in ["/makecall", "/kaphila/makecall"] {
        let again = world.named(path, &key, "one", CALL).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (StatusCode::OK, Some("true")));
        assert_eq!(again.header("content-type"), first.header("content-type"));
        assert_eq!(again.bytes, first.bytes);
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    }
    assert_eq!(world.placed(), 1);
    let (status, told) = error(&world.named("/makecall", &key, "one", r#"{"number":"14155550101"}"#).await);
    assert_eq!(
        (status, told.as_str()),
        (StatusCode::CONFLICT, "Idempotency-Key was used with a different body")
    );

    // Another path, another name, another key, no name: each is a call of its own.
    let other = world.key("B", &["a"], |_| {}).await;
    assert_eq!(world.named("/batchcall", &key, "one", CALL).await.status, StatusCode::OK);
    assert_eq!(world.named("/makecall", &key, "two", CALL).await.status, StatusCode::OK);
    assert_eq!(world.named("/makecall", &other, "one", CALL).await.status, StatusCode::OK);
    assert_eq!(world.post("/makecall", &key, CALL).await.status, StatusCode::OK);
    assert_eq!(world.placed(), 5);
}

#[tokio::test]
async fn a_repeat_counts_in_the_rate_window() {
    let world = World::new(rings).await;
    let key = world.key("A", &["a"], |new| new.rate_limit = Some(3)).await;
    for remaining in ["2", "1", "0"] {
        let answer = world.named("/makecall", &key, "one", CALL).await;
        assert_eq!(
            (answer.status, answer.header("x-ratelimit-remaining")),
            (StatusCode::OK, Some(remaining))
        );
    }
    let over = world.named("/makecall", &key, "one", CALL).await;
    assert_eq!(error(&over), (StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded".into()));
    assert_eq!(over.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn refusals_are_kept_and_what_may_change_is_not() {
    let world = World::new(rings).await;
    let broke = world.key("A", &["a"], |new| new.credits = Some(0)).await;
    for (name, body, status) in [
        ("a", "{}", StatusCode::BAD_REQUEST),
        ("b", CALL, StatusCode::PAYMENT_REQUIRED),
        ("c", "{", StatusCode::BAD_REQUEST),
    ] {
        let first = world.named("/makecall", &broke, name, body).await;
        let again = world.named("/makecall", &broke, name, body).await;
        assert_eq!((first.status, first.header("idempotent-replayed")), (status, None));
        assert_eq!((again.status, again.header("idempotent-replayed")), (status, Some("true")));
        assert_eq!(
            (again.text(), again.header("content-type")),
            (first.text(), first.header("content-type"))
        );
    }
    assert_eq!(world.db.kept_answers().await.unwrap(), 3);
    let trunkless = world.key("B", &[], |_| {}).await;
    let busy = world.key("C", &["a"], |new| new.max_concurrent = 0).await;
    for (key, status) in
        [(&trunkless, StatusCode::SERVICE_UNAVAILABLE), (&busy, StatusCode::TOO_MANY_REQUESTS)]
    {
        for _ in 0..2 {
            let answer = world.named("/makecall", key, "one", CALL).await;
            assert_eq!((answer.status, answer.header("idempotent-replayed")), (status, None));
        }
    }
    assert_eq!(world.db.kept_answers().await.unwrap(), 3);
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_before_the_body_is_read() {
    let world = World::new(rings).await;
    let key = world.key("A", &["a"], |_| {}).await;
    let told = "Idempotency-Key must be 1 to 128 visible ASCII characters";
    for name in ["", "a b", "a\tb", &"x".repeat(129)] {
        for body in [CALL, "{"] {
            let answer = world.named("/makecall", &key, name, body).await;
            assert_eq!(error(&answer), (StatusCode::BAD_REQUEST, told.into()), "{name:?}");
        }
    }
    let twice = Request::post("/batchcall").header("authorization", format!("Bearer {key}"));
    let twice = twice.header("idempotency-key", "a").header("idempotency-key", "a");
    assert_eq!(world.send(twice.body(Body::from(CALL)).unwrap()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.named("/makecall", &key, &"x".repeat(128), CALL).await.status, StatusCode::OK);
    // Elsewhere the header means nothing.
    assert_eq!(error(&world.named("/hangup", &key, "a b", "{}").await).1, "callId is required");
    assert_eq!((world.placed(), world.db.kept_answers().await.unwrap()), (1, 1));
}

/// The call goes out and nothing is heard of it yet.
fn silent(order: &CallOrder) -> Result<Vec<CallEvent>, CommandError> {
    Ok(vec![CallEvent::Queued, CallEvent::Dialing { trunk: order.trunks[0].endpoint.clone(), attempt: 1 }])
}

#[tokio::test]
async fn a_repeat_of_what_is_being_done_is_told_to_wait() {
    let world = Arc::new(World::new(silent).await);
    let key = world.key("A", &["a"], |_| {}).await;
    let asked = {
        let (world, key) = (Arc::clone(&world), key.clone());
        tokio::spawn(async move { world.named("/makecall", &key, "one", CALL).await })
    };
    while world.placed() == 0 {
        tokio::task::yield_now().await;
    }
    let early = world.named("/makecall", &key, "one", CALL).await;
    let told = "A request with this Idempotency-Key is in progress";
    assert_eq!(error(&early), (StatusCode::CONFLICT, told.into()));
    assert_eq!(early.header("retry-after"), Some("1"));
    let different = world.named("/makecall", &key, "one", "{}").await;
    assert_eq!(error(&different).1, "Idempotency-Key was used with a different body");

    // Who asked hangs up; what was asked is done all the same, and the repeat finds it.
    asked.abort();
    assert!(asked.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(world.named("/makecall", &key, "one", CALL).await.status, StatusCode::CONFLICT);
    world.happens(CallEvent::Ringing).await;
    let answer = loop {
        let answer = world.named("/makecall", &key, "one", CALL).await;
        if answer.status == StatusCode::OK {
            break answer;
        }
        assert_eq!(error(&answer).1, told);
        tokio::task::yield_now().await;
    };
    assert_eq!(answer.header("idempotent-replayed"), Some("true"));
    assert_eq!(answer.json()["callId"], world.orders.lock().unwrap()[0].kaphila_id);
    assert_eq!(world.placed(), 1);
}

#[tokio::test]
async fn a_call_that_came_to_nothing_may_be_tried_again() {
    let world = World::new(|order| {
        let mut events = silent(order)?;
        let trunk = order.trunks[0].endpoint.clone();
        events.push(CallEvent::AttemptFailed {
            trunk,
            code: 503,
            reason: "x".into(),
            elapsed_ms: 5,
            retry_after_s: None,
            fault: Fault::Trunk,
        });
        events.push(CallEvent::Ended { reason: EndReason::TrunkFailure, q850: 41, sip_code: Some(503) });
        Ok(events)
    })
    .await;
    let key = world.key("A", &["a"], |_| {}).await;
    for calls in 1..=2 {
        let answer = world.named("/makecall", &key, "one", CALL).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!((answer.json()["code"].as_str(), world.placed()), (Some("ORIGINATION_FAILED"), calls));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_are_one_call() {
    let world = Arc::new(World::new(rings).await);
    let key = world.key("A", &["a"], |new| new.rate_limit = Some(10_000)).await;
    for round in 0..3 {
        let barrier = Arc::new(Barrier::new(100));
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (world, key, barrier) = (Arc::clone(&world), key.clone(), Arc::clone(&barrier));
            asked.spawn(async move {
                barrier.wait().await;
                world.named("/makecall", &key, &format!("round-{round}"), CALL).await
            });
        }
        let answers = asked.join_all().await;
        assert_eq!(world.placed(), round + 1);
        let call = world.orders.lock().unwrap()[round].kaphila_id.clone();
        let mut first = 0;
        for answer in &answers {
            match answer.status {
                StatusCode::OK => {
                    assert_eq!(answer.json()["callId"], call);
                    first += usize::from(answer.header("idempotent-replayed").is_none());
                }
                status => assert_eq!(status, StatusCode::CONFLICT, "{}", answer.text()),
            }
        }
        assert_eq!(first, 1);
    }
}
