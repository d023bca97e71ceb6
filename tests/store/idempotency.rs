//! Answers kept for repeats: how long, for whom, and what a crash leaves.

use trunkline::control::idempotency::{Begun, Claim, Idempotency, KEPT_MS};
use trunkline::control::{Failure, Refusal};
use trunkline::journal::recover;
use trunkline::model::Timestamp;
use trunkline::store::Db;
use trunkline::store::idempotency::{KeptAnswer, RequestName};

use crate::{Scratch, T0, eventually, formats, key};

fn request(key: i64, name: &str) -> RequestName {
    RequestName { key, path: "/makecall".into(), name: name.into() }
}

async fn first(known: &Idempotency, request: &RequestName, body: &[u8], now: Timestamp) -> Claim {
    match known.begin(request.clone(), body, now).await.unwrap() {
        Begun::First(claim) => claim,
        Begun::Repeat(answer) => panic!("it was answered: {answer:?}"),
    }
}

async fn repeat(known: &Idempotency, request: &RequestName, body: &[u8], now: Timestamp) -> KeptAnswer {
    match known.begin(request.clone(), body, now).await.unwrap() {
        Begun::First(_) => panic!("it was not answered"),
        Begun::Repeat(answer) => answer,
    }
}

async fn refused(known: &Idempotency, request: &RequestName, body: &[u8]) -> Refusal {
    match known.begin(request.clone(), body, T0).await {
        Err(Failure::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day_and_no_longer() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let known = Idempotency::new(db.clone());
    let one = request(key(&db, None).await.id, "one");
    first(&known, &one, b"body", T0).await.keep(200, "answer".into(), T0).await.unwrap();
    for ms in [0, 1, KEPT_MS - 1] {
        let answer = repeat(&known, &one, b"body", T0.plus_ms(ms)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "answer"));
    }
    assert_eq!(refused(&known, &one, b"other").await, Refusal::IdempotencyKeyReused);
    // A day later the name is free, for any body, and its new answer takes the place of the old.
    let later = T0.plus_ms(KEPT_MS);
    first(&known, &one, b"other", later).await.keep(402, "later".into(), later).await.unwrap();
    assert_eq!(repeat(&known, &one, b"other", later).await.status, 402);
    assert_eq!(db.kept_answers().await.unwrap(), 1);
}

#[tokio::test]
async fn a_claim_holds_its_name_until_it_is_dropped() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let _serving = db.claim_for_serving().await.unwrap();
    let known = Idempotency::new(db.clone());
    let owner = key(&db, None).await.id;
    let one = request(owner, "one");
    let claim = first(&known, &one, b"body", T0).await;
    assert_eq!(refused(&known, &one, b"body").await, Refusal::RequestInProgress);
    assert_eq!(refused(&known, &one, b"other").await, Refusal::IdempotencyKeyReused);
    let batch = RequestName { path: "/batchcall".into(), ..one.clone() };
    for free in [request(owner, "two"), request(key(&db, None).await.id, "one"), batch] {
        first(&known, &free, b"body", T0).await;
    }
    drop(claim);
    // Nothing was answered, so another body is as good.
    first(&known, &one, b"other", T0).await;
    assert_eq!(db.kept_answers().await.unwrap(), 0);
}

#[tokio::test]
async fn a_crash_frees_what_was_under_way_and_keeps_what_was_answered() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let serving = db.claim_for_serving().await.unwrap();
    let known = Idempotency::new(db.clone());
    let owner = key(&db, None).await.id;
    let (done, cut) = (request(owner, "done"), request(owner, "cut"));
    first(&known, &done, b"body", T0).await.keep(200, "answer".into(), T0).await.unwrap();
    // Never dropped, as in a process that is killed.
    std::mem::forget(first(&known, &cut, b"body", T0).await);
    drop(serving);
    db.close().await;
    let db = Db::open(&scratch.url()).await.unwrap();
    let _serving = db.claim_for_serving().await.unwrap();
    if db.is_shared() {
        assert_eq!(refused(&Idempotency::new(db.clone()), &cut, b"body").await, Refusal::RequestInProgress);
    }
    // PostgreSQL may need a moment to notice that the process is gone.
    eventually("the dead one's request is free", async || {
        recover(&db, formats(), scratch.path(), T0).await.unwrap();
        Idempotency::new(db.clone()).begin(cut.clone(), b"body", T0).await.is_ok()
    })
    .await;
    let known = Idempotency::new(db);
    assert_eq!(repeat(&known, &done, b"body", T0).await.body, "answer");
    first(&known, &cut, b"body", T0).await;
}

#[tokio::test]
async fn expired_answers_are_removed_as_new_ones_come() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let owner = key(&db, None).await.id;
    let answer = KeptAnswer { digest: "x".into(), status: 200, body: "{}".into() };
    let keep = async |name: String, at: Timestamp| {
        db.keep_answer(&request(owner, &name), &answer, at, at.plus_ms(-KEPT_MS)).await.unwrap();
    };
    for n in 0..150 {
        keep(format!("old-{n}"), T0).await;
    }
    keep("young".into(), T0.plus_ms(1)).await;
    assert_eq!(db.kept_answers().await.unwrap(), 151);
    let later = T0.plus_ms(KEPT_MS);
    for (n, left) in [(0, 52), (1, 3), (2, 4)] {
        keep(format!("new-{n}"), later).await;
        assert_eq!(db.kept_answers().await.unwrap(), left, "after {n}");
    }
    let young = db.kept_answer(&request(owner, "young"), later.plus_ms(-KEPT_MS)).await.unwrap();
    assert_eq!(young, Some(answer));
}
