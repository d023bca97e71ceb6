//! Lanes: order within a call, what holds what back, and what is dropped.

use trunkline::model::call::EndReason;
use trunkline::model::{CallId, Timestamp};
use trunkline::store::Db;
use trunkline::store::outbox::{Delivery, NewDelivery, Settled, Settlement};

use crate::{Scratch, T0, ended, key, order, place};

const URL: &str = "https://a.example/hooks";

async fn world() -> (Scratch, Db, i64) {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    for call in 1..=3 {
        assert!(place(&db, &order(key, call, Some(URL))).await);
    }
    (scratch, db, key)
}

async fn enqueue(db: &Db, key: i64, call: u128, url: &str, events: &[&'static str]) {
    let mut tx = db.begin().await.unwrap();
    for event in events {
        let terminal = event.starts_with("recording") || *event == "ended";
        let (url, body) = (url.to_owned(), format!("\"{event}\"").into_bytes());
        let new =
            NewDelivery { call: CallId(call), key, dialect: "kaphila", event, terminal, url, body, at: T0 };
        tx.enqueue(&new).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn due(db: &Db, now: Timestamp) -> Vec<String> {
    db.claim(now, 100).await.unwrap().into_iter().map(|row| row.event).collect()
}

async fn settle(db: &Db, event: &str, settlement: Settlement) {
    let rows = db.claim(T0.plus_ms(1_000_000_000), 100).await.unwrap();
    let row: Delivery = rows.into_iter().find(|row| row.event == event).unwrap();
    let settled = Settled {
        id: row.id,
        call: row.call,
        url: row.url,
        attempts: row.attempts + 1,
        settlement,
        status: Some(500),
        result: "status 500".into(),
    };
    let mut tx = db.begin().await.unwrap();
    tx.settle(&settled, T0).await.unwrap();
    tx.commit().await.unwrap();
}

async fn states(db: &Db, call: u128) -> Vec<(String, String)> {
    let rows = db.deliveries(CallId(call)).await.unwrap();
    rows.into_iter().map(|row| (row.event, row.state)).collect()
}

/// Ends the call as the journal does.
async fn end(db: &Db, call: u128) {
    let mut view = db.call(CallId(call)).await.unwrap().unwrap();
    view.apply(T0, &ended(EndReason::NormalHangup));
    let mut tx = db.begin().await.unwrap();
    tx.save_call(&view).await.unwrap();
    tx.expire_live(CallId(call), T0).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_lane_goes_one_at_a_time_and_lanes_are_independent() {
    let (_scratch, db, key) = world().await;
    enqueue(&db, key, 1, URL, &["one", "two", "three"]).await;
    enqueue(&db, key, 1, "https://b.example/", &["elsewhere"]).await;
    enqueue(&db, key, 2, URL, &["other call"]).await;
    assert_eq!(due(&db, T0).await, ["one", "elsewhere", "other call"]);
    assert!(due(&db, T0.plus_ms(-1)).await.is_empty());
    settle(&db, "one", Settlement::Delivered).await;
    assert_eq!(due(&db, T0).await, ["two", "elsewhere", "other call"]);
    settle(&db, "two", Settlement::Retry(T0.plus_ms(1000))).await;
    assert_eq!(due(&db, T0.plus_ms(999)).await, ["elsewhere", "other call"], "a retry holds the lane");
    assert_eq!(db.next_due(T0).await.unwrap(), Some(T0.plus_ms(1000)));
    assert_eq!(due(&db, T0.plus_ms(1000)).await, ["elsewhere", "other call", "two"]);
    settle(&db, "two", Settlement::Dropped).await;
    assert_eq!(due(&db, T0).await, ["three", "elsewhere", "other call"]);
}

#[tokio::test]
async fn ids_are_stable_and_bodies_are_kept_as_they_were() {
    let (_scratch, db, key) = world().await;
    enqueue(&db, key, 1, URL, &["one"]).await;
    let first = db.claim(T0, 1).await.unwrap().remove(0);
    settle(&db, "one", Settlement::Retry(T0.plus_ms(5))).await;
    let second = db.claim(T0.plus_ms(5), 1).await.unwrap().remove(0);
    assert_eq!(second, Delivery { attempts: 1, ..first.clone() });
    assert!(first.event_id.starts_with("evt_") && first.event_id.len() == 28);
    assert_eq!(db.delivery_body(first.id).await.unwrap().as_deref(), Some("\"one\""));
    let log = db.deliveries(CallId(1)).await.unwrap().remove(0);
    assert_eq!((log.attempts, log.last_status, log.last_result.as_str()), (1, Some(500), "status 500"));
}

#[tokio::test]
async fn a_terminal_retry_holds_back_terminal_events_only() {
    let (_scratch, db, key) = world().await;
    enqueue(&db, key, 1, URL, &["recording_stopped", "recording_completed", "live one", "live two"]).await;
    assert_eq!(due(&db, T0).await, ["recording_stopped"], "first attempts go in order");
    settle(&db, "recording_stopped", Settlement::Retry(T0.plus_ms(30_000))).await;
    assert_eq!(due(&db, T0).await, ["live one"]);
    enqueue(&db, key, 1, URL, &["live three"]).await;
    settle(&db, "live one", Settlement::Retry(T0.plus_ms(1000))).await;
    assert!(due(&db, T0).await.is_empty(), "live events keep their own order");
    settle(&db, "live one", Settlement::Delivered).await;
    settle(&db, "live two", Settlement::Delivered).await;
    assert_eq!(due(&db, T0.plus_ms(30_000)).await, ["live three", "recording_stopped"]);
    settle(&db, "live three", Settlement::Delivered).await;
    enqueue(&db, key, 1, URL, &["ended"]).await;
    settle(&db, "recording_stopped", Settlement::Delivered).await;
    assert_eq!(due(&db, T0.plus_ms(30_000)).await, ["recording_completed"]);
    settle(&db, "recording_completed", Settlement::Failed).await;
    assert_eq!(due(&db, T0.plus_ms(30_000)).await, ["ended"]);
}

#[tokio::test]
async fn the_end_makes_a_failed_live_event_due_to_be_dropped() {
    let (_scratch, db, key) = world().await;
    enqueue(&db, key, 1, URL, &["failed once", "untried"]).await;
    settle(&db, "failed once", Settlement::Retry(T0.plus_ms(10_000))).await;
    assert!(due(&db, T0).await.is_empty());
    enqueue(&db, key, 1, URL, &["ended"]).await;
    end(&db, 1).await;
    let row = db.claim(T0, 10).await.unwrap().remove(0);
    assert!(row.call_ended && trunkline::webhook::schedule::outlived(&row), "{row:?}");
    settle(&db, "failed once", Settlement::Dropped).await;
    let row = db.claim(T0, 10).await.unwrap().remove(0);
    assert_eq!(row.event, "untried");
    assert!(!trunkline::webhook::schedule::outlived(&row), "what was never tried gets its one attempt");
}

#[tokio::test]
async fn gone_ends_the_lane_for_good() {
    let (_scratch, db, key) = world().await;
    enqueue(&db, key, 1, URL, &["one", "two"]).await;
    enqueue(&db, key, 2, URL, &["other call"]).await;
    settle(&db, "one", Settlement::Gone).await;
    enqueue(&db, key, 1, URL, &["ended"]).await;
    let wanted = [("one", "gone"), ("two", "dropped"), ("ended", "dropped")];
    assert_eq!(states(&db, 1).await, wanted.map(|(event, state)| (event.to_owned(), state.to_owned())));
    assert_eq!(due(&db, T0.plus_ms(1_000_000)).await, ["other call"], "only that call's events are stopped");
}

#[tokio::test]
async fn a_settled_row_stays_settled() {
    let (_scratch, db, key) = world().await;
    enqueue(&db, key, 1, URL, &["one"]).await;
    let row = db.claim(T0, 1).await.unwrap().remove(0);
    let settled = |settlement| Settled {
        id: row.id,
        call: row.call,
        url: row.url.clone(),
        attempts: 1,
        settlement,
        status: None,
        result: String::new(),
    };
    for settlement in [Settlement::Delivered, Settlement::Retry(T0)] {
        let mut tx = db.begin().await.unwrap();
        tx.settle(&settled(settlement), T0).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(states(&db, 1).await, [("one".to_owned(), "delivered".to_owned())]);
}
