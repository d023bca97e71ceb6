//! Counts over a key's calls, by outcome and by day.

use std::sync::Arc;

use trunkline::model::call::{Amd, AmdStatus, CallView, EndReason};
use trunkline::model::event::CallEvent;
use trunkline::model::{CallId, Timestamp};
use trunkline::store::Db;
use trunkline::store::history::{DAY_MS, DayCount, OutcomeCount};

use crate::{Scratch, T0, at, dialing, ended, key, order, place};

/// A call of a key placed at `placed`, with these events a second apart.
async fn call(db: &Db, key: i64, id: u128, placed: Timestamp, events: &[CallEvent]) {
    let mut order = order(key, id, None);
    order.created_at = placed;
    assert!(place(db, &order).await);
    let mut view = CallView::new(Arc::new(order));
    for (ms, event) in (0_i64..).step_by(1000).zip(events) {
        view.apply(placed.plus_ms(ms), event);
    }
    let mut tx = db.begin().await.unwrap();
    assert!(tx.save_call(&view).await.unwrap());
    tx.commit().await.unwrap();
}

fn screened(status: AmdStatus) -> CallEvent {
    CallEvent::Screened(Amd { status, cause: "HUMAN".into(), confidence: 0.9 })
}

#[tokio::test]
async fn calls_are_counted_by_outcome_day_and_week() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let (owner, other) = (key(&db, None).await.id, key(&db, None).await.id);
    let today = Timestamp(T0.0.div_euclid(DAY_MS) * DAY_MS);
    let (yesterday, week) = (today.plus_ms(-1), today.plus_ms(-DAY_MS));
    let human = [CallEvent::Answered, screened(AmdStatus::Human), ended(EndReason::NormalHangup)];
    let machine = [dialing(), CallEvent::Answered, screened(AmdStatus::Machine), ended(EndReason::ApiHangup)];
    call(&db, owner, 1, today, &human).await;
    call(&db, owner, 2, T0, &machine).await;
    call(&db, owner, 3, T0, &[CallEvent::Answered]).await;
    call(&db, owner, 4, T0, &[dialing()]).await;
    call(&db, owner, 5, yesterday, &[ended(EndReason::NoAnswer)]).await;
    call(&db, owner, 6, week.plus_ms(-1), &[ended(EndReason::Busy)]).await;
    call(&db, other, 7, T0, &human).await;

    let count = |outcome: &str, calls, today, this_week| OutcomeCount {
        outcome: outcome.into(),
        calls,
        today,
        this_week,
    };
    let expected = [
        count("answered", 1, 1, 1),
        count("busy", 1, 0, 0),
        count("completed", 2, 2, 2),
        count("no_answer", 1, 0, 1),
        count("ringing", 1, 1, 1),
    ];
    assert_eq!(db.outcomes(owner, today, week).await.unwrap(), expected);
    assert_eq!(db.outcomes(99, today, week).await.unwrap(), []);

    let first = today.0 / DAY_MS;
    let day = |day, outcome: &str, calls, duration_s, humans, machines| DayCount {
        day,
        outcome: outcome.into(),
        calls,
        duration_s,
        humans,
        machines,
    };
    // Both completed calls lasted two seconds from their answer; what is up is not counted.
    let expected = [
        day(first, "completed", 2, 4, 1, 1),
        day(first - 1, "no_answer", 1, 0, 0, 0),
        day(first - 2, "busy", 1, 0, 0, 0),
    ];
    assert_eq!(db.days(owner, week.plus_ms(-DAY_MS)).await.unwrap(), expected);
    assert_eq!(db.days(owner, today).await.unwrap(), expected[..1]);
    assert_eq!(db.days(owner, yesterday).await.unwrap(), expected[..2]);
}

#[tokio::test]
async fn a_call_and_its_events_are_found_by_its_key_alone() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let (owner, other) = (key(&db, None).await.id, key(&db, None).await.id);
    call(&db, owner, 1, T0, &[dialing(), ended(EndReason::Busy)]).await;
    let saved = db.call_of_key(owner, "1771322520.1").await.unwrap();
    assert_eq!(saved.map(|view| view.order.id), Some(CallId(1)));
    assert_eq!(db.call_of_key(other, "1771322520.1").await.unwrap(), None);
    assert_eq!(db.call_of_key(owner, "1771322520.2").await.unwrap(), None);

    let mut tx = db.begin().await.unwrap();
    for sequence in 1..=5 {
        let stamped = at(1, i64::from(sequence), dialing());
        assert!(tx.insert_event(&stamped, sequence, "{}").await.unwrap());
    }
    tx.commit().await.unwrap();
    let sequences = async |after, limit| {
        let rows = db.events_after(CallId(1), after, limit).await.unwrap();
        rows.into_iter().map(|row| row.sequence).collect::<Vec<_>>()
    };
    assert_eq!(sequences(0, 1000).await, [1, 2, 3, 4, 5]);
    assert_eq!(sequences(2, 2).await, [3, 4]);
    assert_eq!(sequences(5, 2).await, [0_u32; 0]);
    let row = &db.events_after(CallId(1), 4, 1).await.unwrap()[0];
    assert_eq!((row.kind.as_str(), row.at, row.data.as_str()), ("dialing", T0.plus_ms(5), "{}"));
}
