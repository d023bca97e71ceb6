//! Credits: held at placing, taken at the answer, set free otherwise; never below zero.

use std::sync::Arc;

use trunkline::model::CallId;
use trunkline::model::call::CallView;
use trunkline::store::{Db, StoreError};

use crate::{Scratch, key, order, place};

async fn balance(db: &Db, key: i64) -> (Option<i64>, i64) {
    let key = db.key(key).await.unwrap().unwrap();
    (key.credits, key.held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_with_five_credits_place_five_calls() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, Some(5)).await.id;
    let tasks: Vec<_> = (1..=50)
        .map(|id| {
            let db = db.clone();
            tokio::spawn(async move { place(&db, &order(key, id, None)).await.then_some(id) })
        })
        .collect();
    let mut placed = Vec::new();
    for task in tasks {
        placed.extend(task.await.unwrap());
    }
    assert_eq!(placed.len(), 5);
    assert_eq!(balance(&db, key).await, (Some(5), 5));

    let captures: Vec<_> = placed
        .into_iter()
        .map(|id| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut tx = db.begin().await.unwrap();
                tx.capture_hold(CallId(id)).await.unwrap();
                tx.commit().await.unwrap();
            })
        })
        .collect();
    for capture in captures {
        capture.await.unwrap();
    }
    assert_eq!(balance(&db, key).await, (Some(0), 0));
    assert!(!place(&db, &order(key, 99, None)).await);
}

#[tokio::test]
async fn a_hold_moves_once_whatever_is_repeated() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, Some(2)).await.id;
    for call in [1, 2] {
        assert!(place(&db, &order(key, call, None)).await);
    }
    let settle = async |call: u128, capture: bool| {
        let mut tx = db.begin().await.unwrap();
        if capture {
            tx.capture_hold(CallId(call)).await.unwrap();
        } else {
            tx.release_hold(CallId(call)).await.unwrap();
        }
        tx.commit().await.unwrap();
        balance(&db, key).await
    };
    assert_eq!(balance(&db, key).await, (Some(2), 2));
    assert_eq!(settle(1, true).await, (Some(1), 1));
    assert_eq!(settle(1, true).await, (Some(1), 1));
    assert_eq!(settle(1, false).await, (Some(1), 1), "a taken credit stays taken");
    assert_eq!(settle(2, false).await, (Some(1), 0));
    assert_eq!(settle(2, false).await, (Some(1), 0));
    assert_eq!(settle(2, true).await, (Some(1), 0), "a released hold takes nothing later");
    assert_eq!(settle(77, true).await, (Some(1), 0), "no such call");
}

#[tokio::test]
async fn unlimited_keys_always_hold() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    for call in 1..=3 {
        assert!(place(&db, &order(key, call, None)).await);
    }
    let mut tx = db.begin().await.unwrap();
    tx.capture_hold(CallId(1)).await.unwrap();
    tx.release_hold(CallId(2)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(balance(&db, key).await, (None, 1));
}

#[tokio::test]
async fn a_hold_without_a_call_is_not_committed() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, Some(1)).await.id;
    let mut tx = db.begin().await.unwrap();
    assert!(tx.hold_credit(key).await.unwrap());
    assert!(matches!(tx.commit().await, Err(StoreError::HoldWithoutCall)));
    assert_eq!(balance(&db, key).await, (Some(1), 0));

    let mut dropped = db.begin().await.unwrap();
    assert!(dropped.hold_credit(key).await.unwrap());
    dropped.insert_call(&CallView::new(Arc::new(order(key, 1, None)))).await.unwrap();
    drop(dropped);
    assert_eq!(balance(&db, key).await, (Some(1), 0));
    assert_eq!(db.key(key).await.unwrap().unwrap().total_calls, 0);
    assert!(place(&db, &order(key, 1, None)).await);
}
