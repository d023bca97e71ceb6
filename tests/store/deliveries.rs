//! The log of attempts, redeliveries beside their lanes, rows set aside, and the removal of what is old.

use trunkline::model::call::EndReason;
use trunkline::model::{CallId, Timestamp};
use trunkline::store::Db;
use trunkline::store::audit::{AuditFilter, By};
use trunkline::store::deliveries::{
    ATTEMPTS_KEPT, AttemptRow, DeliveryFilter, Purged, Redelivered, Replayed,
};
use trunkline::store::outbox::{NewDelivery, Settled, Settlement};
use trunkline::webhook::purge;

use crate::{Scratch, T0, at, ended, key, order, place};

const URL: &str = "https://a.example/hooks";
const OTHER: &str = "https://b.example/hooks";
const DAY_MS: i64 = 86_400_000;

async fn world() -> (Scratch, Db, i64) {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    for call in 1..=3 {
        assert!(place(&db, &order(key, call, Some(URL))).await);
    }
    (scratch, db, key)
}

/// Enqueues events of a call and gives back their row ids.
async fn enqueue(db: &Db, key: i64, call: u128, url: &str, events: &[&'static str]) -> Vec<i64> {
    let mut tx = db.begin().await.unwrap();
    let mut ids = Vec::new();
    for (event, ms) in events.iter().zip(0..) {
        let new = NewDelivery {
            call: CallId(call),
            key,
            dialect: "kaphila",
            event,
            terminal: *event == "ended",
            url: url.to_owned(),
            body: b"{}".to_vec(),
            at: T0.plus_ms(ms),
        };
        ids.push(tx.enqueue(&new).await.unwrap());
    }
    tx.commit().await.unwrap();
    ids
}

fn settled(id: i64, call: u128, url: &str, attempts: u32, settlement: Settlement) -> Settled {
    let status = if settlement == Settlement::Delivered { 200 } else { 500 };
    Settled {
        id,
        call: CallId(call),
        url: url.to_owned(),
        attempts,
        settlement,
        status: Some(status),
        result: format!("status {status}"),
    }
}

async fn settle(db: &Db, call: u128, url: &str, ids: &[i64], settlement: Settlement) {
    let mut tx = db.begin().await.unwrap();
    for id in ids {
        tx.settle(&settled(*id, call, url, 1, settlement), T0).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn settle_again(db: &Db, id: i64, call: u128, url: &str, made: u32, settlement: Settlement) {
    let mut tx = db.begin().await.unwrap();
    tx.settle_redelivery(&settled(id, call, url, 1 + made, settlement), made, T0.plus_ms(9)).await.unwrap();
    tx.commit().await.unwrap();
}

async fn again(db: &Db, now: Timestamp) -> Vec<i64> {
    let rows = db.due_redeliveries(now, 100, &[]).await.unwrap();
    rows.into_iter().map(|(delivery, _)| delivery.id).collect()
}

async fn due(db: &Db) -> Vec<i64> {
    let rows = db.claim(T0.plus_ms(1_000_000), 100).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

async fn end(db: &Db, call: u128, when: Timestamp) {
    let mut view = db.call(CallId(call)).await.unwrap().unwrap();
    let event = ended(EndReason::NormalHangup);
    view.apply(when, &event);
    let mut tx = db.begin().await.unwrap();
    assert!(tx.insert_event(&at(call, 0, event), view.events, "{}").await.unwrap());
    tx.save_call(&view).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn every_attempt_is_logged_and_the_log_is_bounded() {
    let (_scratch, db, key) = world().await;
    let id = enqueue(&db, key, 1, URL, &["one"]).await[0];
    let attempt = |number| AttemptRow {
        number,
        at: T0.plus_ms(i64::from(number)),
        took_ms: 12,
        status: (number % 2 == 0).then_some(500),
        result: "status 500".into(),
    };
    let mut tx = db.begin().await.unwrap();
    for number in (1..=ATTEMPTS_KEPT + 10).chain([ATTEMPTS_KEPT + 10]) {
        tx.log_attempt(id, &attempt(number)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let (row, attempts) = db.delivery(id).await.unwrap().unwrap();
    assert_eq!(attempts, (11..=ATTEMPTS_KEPT + 10).map(attempt).collect::<Vec<_>>());
    assert_eq!((row.event.as_str(), row.state.as_str()), ("one", "waiting"));
    assert_eq!(db.delivery_of_event(&row.event_id).await.unwrap(), Some(id));
    assert_eq!(db.delivery_of_event("evt_none").await.unwrap(), None);
    assert!(db.delivery(id + 1).await.unwrap().is_none());
}

#[tokio::test]
async fn redeliveries_keep_their_own_order_and_leave_the_lane_alone() {
    let (_scratch, db, key) = world().await;
    let ids = enqueue(&db, key, 1, URL, &["one", "two", "three", "four"]).await;
    settle(&db, 1, URL, &ids[..2], Settlement::Delivered).await;
    settle(&db, 1, URL, &ids[2..3], Settlement::Dropped).await;
    let by = By::cli(T0);
    // The newest first, and yet the oldest heads the line.
    for id in [ids[2], ids[1], ids[0]] {
        assert_eq!(db.redeliver(id, &by).await.unwrap(), Redelivered::Queued);
    }
    assert_eq!(again(&db, T0).await, ids[..1]);
    assert_eq!(due(&db).await, ids[3..], "what was queued first is where it was");
    settle_again(&db, ids[0], 1, URL, 1, Settlement::Retry(T0.plus_ms(500))).await;
    assert!(again(&db, T0).await.is_empty(), "nothing overtakes it while it is tried again");
    let (first, made) = db.due_redeliveries(T0.plus_ms(500), 9, &[]).await.unwrap().remove(0);
    assert_eq!((first.id, first.attempts, made), (ids[0], 2, 1));
    settle_again(&db, ids[0], 1, URL, 2, Settlement::Failed).await;
    let (row, _) = db.delivery(ids[0]).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.attempts, row.last_status), ("delivered", 3, Some(500)));
    assert_eq!(row.redelivery, None, "it was delivered once, and that stays true");
    assert_eq!(again(&db, T0).await, ids[1..2]);
    settle_again(&db, ids[1], 1, URL, 1, Settlement::Delivered).await;
    settle_again(&db, ids[2], 1, URL, 1, Settlement::Delivered).await;
    let (row, _) = db.delivery(ids[2]).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.settled_at), ("delivered", Some(T0.plus_ms(9))));
    assert!(again(&db, T0.plus_ms(10_000)).await.is_empty());
    let rows = db.audit_rows(&AuditFilter::default(), 10).await.unwrap();
    let asked = rows.iter().filter(|row| row.action == "delivery.redeliver").count();
    assert_eq!(asked, 3, "who asked is written down");
}

#[tokio::test]
async fn what_still_waits_is_only_hurried() {
    let (_scratch, db, key) = world().await;
    let ids = enqueue(&db, key, 1, URL, &["one", "two"]).await;
    settle(&db, 1, URL, &ids[..1], Settlement::Retry(T0.plus_ms(2_000_000))).await;
    assert!(due(&db).await.is_empty());
    let by = By::cli(T0.plus_ms(5));
    assert_eq!(db.redeliver(ids[1], &by).await.unwrap(), Redelivered::Hurried);
    assert!(due(&db).await.is_empty(), "it does not overtake the first of its lane");
    assert_eq!(db.redeliver(ids[0], &by).await.unwrap(), Redelivered::Hurried);
    assert_eq!(due(&db).await, ids[..1]);
    assert!(again(&db, T0.plus_ms(10_000)).await.is_empty());
    assert_eq!(db.redeliver(999, &by).await.unwrap(), Redelivered::Unknown);
}

#[tokio::test]
async fn a_replay_takes_what_its_filter_meets_and_no_more_than_its_limit() {
    let (_scratch, db, key) = world().await;
    let mut all = Vec::new();
    for call in 1..=3 {
        let url = if call == 3 { OTHER } else { URL };
        let ids = enqueue(&db, key, call, url, &["one", "two"]).await;
        settle(&db, call, url, &ids[..1], Settlement::Failed).await;
        settle(&db, call, url, &ids[1..], Settlement::Delivered).await;
        all.extend(ids);
    }
    let by = By::cli(T0);
    let to = |host: &str| DeliveryFilter { host: Some(host.into()), ..DeliveryFilter::default() };
    let none = db.replay(&to("c.example"), 100, &by).await.unwrap();
    assert_eq!(none, Replayed { matched: 0, queued: 0 });
    let one = db.replay(&to("a.example"), 1, &by).await.unwrap();
    assert_eq!(one, Replayed { matched: 2, queued: 1 });
    assert_eq!(again(&db, T0).await, [all[0]], "the oldest");
    let rest = db.replay(&DeliveryFilter::default(), 100, &by).await.unwrap();
    assert_eq!(rest, Replayed { matched: 3, queued: 2 }, "what is queued already is not queued twice");
    let delivered = DeliveryFilter { state: Some("delivered".into()), ..DeliveryFilter::default() };
    assert_eq!(db.replay(&delivered, 100, &by).await.unwrap().queued, 3);
    assert_eq!(again(&db, T0).await, [all[0], all[2], all[4]], "one of each lane");
    settle_again(&db, all[0], 1, URL, 1, Settlement::Delivered).await;
    assert_eq!(again(&db, T0).await, [all[1], all[2], all[4]]);
    let busy = db.due_redeliveries(T0, 9, &["a.example".to_owned()]).await.unwrap();
    assert_eq!(busy.into_iter().map(|(row, _)| row.id).collect::<Vec<_>>(), [all[4]]);
}

#[tokio::test]
async fn lists_are_narrowed_and_paged() {
    let (_scratch, db, key) = world().await;
    let first = enqueue(&db, key, 1, URL, &["one", "two", "ended"]).await;
    let second = enqueue(&db, key, 2, OTHER, &["one"]).await;
    settle(&db, 1, URL, &first[..1], Settlement::Delivered).await;
    let list = async |filter: DeliveryFilter| -> Vec<i64> {
        let rows = db.list_deliveries(&filter, 10, None).await.unwrap();
        rows.into_iter().map(|row| row.id).collect()
    };
    let all = DeliveryFilter::default;
    let key_id = db.key(key).await.unwrap().unwrap().key_id;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(list(all()).await, [second[0], first[2], first[1], first[0]]);
    for (filter, wanted) in [
        (DeliveryFilter { key: Some(key_id), ..all() }, 4),
        (DeliveryFilter { key: text("key_0"), ..all() }, 0),
        (DeliveryFilter { call: text("1771322520.1"), ..all() }, 3),
        (DeliveryFilter { event: text("one"), ..all() }, 2),
        (DeliveryFilter { state: text("delivered"), ..all() }, 1),
        (DeliveryFilter { host: text("b.example"), ..all() }, 1),
        (DeliveryFilter { from: Some(T0.plus_ms(1)), ..all() }, 2),
        (DeliveryFilter { to: Some(T0.plus_ms(1)), ..all() }, 2),
        (DeliveryFilter { event: text("one"), host: text("a.example"), state: text("waiting"), ..all() }, 0),
    ] {
        assert_eq!(list(filter.clone()).await.len(), wanted, "{filter:?}");
    }
    let page = db.list_deliveries(&all(), 2, Some(first[2])).await.unwrap();
    assert_eq!(page.into_iter().map(|row| row.id).collect::<Vec<_>>(), [first[1], first[0]]);
}

#[tokio::test]
async fn what_is_set_aside_fills_no_claim_and_comes_back_in_order() {
    let (_scratch, db, key) = world().await;
    let mut ids = Vec::new();
    for index in 0..5 {
        ids.extend(enqueue(&db, key, 1, &format!("https://slow.example/{index}"), &["one"]).await);
    }
    let quick = enqueue(&db, key, 2, OTHER, &["one"]).await;
    let mut tx = db.begin().await.unwrap();
    tx.set_aside(&ids, "host:slow.example").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(due(&db).await, quick);
    assert_eq!(db.next_due(T0.plus_ms(-1)).await.unwrap(), Some(T0), "the quick one's moment");
    let waiting = db.aside("host:slow.example", 10).await.unwrap();
    assert_eq!(waiting.into_iter().map(|row| row.id).collect::<Vec<_>>(), ids);
    let mut tx = db.begin().await.unwrap();
    assert_eq!(tx.let_back("host:other.example", 9).await.unwrap(), 0);
    assert_eq!(tx.let_back("host:slow.example", 2).await.unwrap(), 2);
    tx.commit().await.unwrap();
    assert_eq!(due(&db).await, [ids[0], ids[1], quick[0]]);
    let mut tx = db.begin().await.unwrap();
    assert_eq!(tx.let_back("host:slow.example", 9).await.unwrap(), 3);
    tx.set_aside(&ids, "receiver:x").await.unwrap();
    tx.let_all_back().await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(due(&db).await.len(), 6);
}

#[tokio::test]
async fn old_calls_lose_their_deliveries_and_events_and_no_others_do() {
    let (_scratch, db, key) = world().await;
    for call in 4..=5 {
        assert!(place(&db, &order(key, call, Some(URL))).await);
    }
    // 1 is old and done; 2 still waits; 3 is up; 4 ended lately; 5 is asked for again.
    let mut ids = Vec::new();
    for call in 1..=5 {
        let row = enqueue(&db, key, call, URL, &["ended"]).await[0];
        if call != 2 {
            settle(&db, call, URL, &[row], Settlement::Failed).await;
        }
        if call != 3 {
            end(&db, call, if call == 4 { T0.plus_ms(5 * DAY_MS) } else { T0 }).await;
        }
        ids.push(row);
    }
    assert_eq!(db.redeliver(ids[4], &By::cli(T0)).await.unwrap(), Redelivered::Queued);
    let now = T0.plus_ms(31 * DAY_MS);
    assert_eq!(purge::once(&db, now, 0).await.unwrap(), Purged::default(), "for ever");
    assert_eq!(purge::once(&db, T0.plus_ms(29 * DAY_MS), 30).await.unwrap(), Purged::default());
    let purged = purge::once(&db, now, 30).await.unwrap();
    assert_eq!(purged, Purged { calls: 1, deliveries: 1, events: 1 });
    assert_eq!(purge::once(&db, now, 30).await.unwrap(), Purged::default(), "once");
    assert!(db.deliveries(CallId(1)).await.unwrap().is_empty());
    assert!(db.events(CallId(1)).await.unwrap().is_empty());
    assert!(db.call(CallId(1)).await.unwrap().is_some(), "the call itself stays in the log");
    for call in 2..=5 {
        assert_eq!(db.deliveries(CallId(call)).await.unwrap().len(), 1, "{call}");
    }
    settle(&db, 2, URL, &ids[1..2], Settlement::Failed).await;
    assert_eq!(purge::once(&db, now, 30).await.unwrap().calls, 1, "as soon as it waits no more");
}
