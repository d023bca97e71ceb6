//! Transactions that share a commit: each is whole or nothing by itself, and is there when its writer is told so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trunkline::model::CallId;
use trunkline::model::call::CallView;
use trunkline::store::{Db, StoreError, Tx};

use crate::{Scratch, key, order};

/// Holds a credit and inserts the call; the job of a placing.
async fn insert(mut tx: Tx, key: i64, call: u128) -> (Tx, Result<bool, StoreError>) {
    let inserted = async {
        if !tx.hold_credit(key).await? {
            return Ok(false);
        }
        tx.insert_call(&CallView::new(Arc::new(order(key, call, None)))).await?;
        Ok(true)
    };
    let inserted = inserted.await;
    (tx, inserted)
}

async fn credits(db: &Db, key: i64) -> (Option<i64>, i64, i64) {
    let key = db.key(key).await.unwrap().unwrap();
    (key.credits, key.held, key.total_calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_at_once_exactly_those_with_a_credit_are_there() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, Some(7)).await.id;
    let tasks: Vec<_> = (1..=50_u128)
        .map(|call| {
            let db = db.clone();
            tokio::spawn(async move {
                let placed = db.write(|tx| insert(tx, key, call)).await.unwrap();
                // Who is told so finds it, by a connection of its own.
                assert_eq!(db.call(CallId(call)).await.unwrap().is_some(), placed);
                placed
            })
        })
        .collect();
    let mut placed = 0;
    for task in tasks {
        placed += usize::from(task.await.unwrap());
    }
    assert_eq!(placed, 7);
    assert_eq!(credits(&db, key).await, (Some(7), 7, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_fails_takes_nobody_along() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let told = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (1..=40_u128)
        .map(|call| {
            let (db, told) = (db.clone(), told.clone());
            tokio::spawn(async move {
                let job = |tx| async move {
                    let (mut tx, inserted) = insert(tx, key, call).await;
                    let result = match call % 4 {
                        // Changes its mind.
                        0 => Err(StoreError::Unreadable("on purpose")),
                        // A statement fails: there is such a call already.
                        1 => tx
                            .insert_call(&CallView::new(Arc::new(order(key, call, None))))
                            .await
                            .map(|()| true),
                        // Holds a credit for nobody.
                        2 => tx.hold_credit(key).await,
                        _ => inserted,
                    };
                    (tx, result)
                };
                let done = db.write(job).await;
                assert_eq!(done.is_ok(), call % 4 == 3, "{call}: {done:?}");
                if let Ok(true) = done {
                    told.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(told.load(Ordering::Relaxed), 10);
    assert_eq!(credits(&db, key).await, (None, 10, 10));
    assert_eq!(db.open_calls().await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_writer_that_goes_away_leaves_nothing_and_stops_nobody() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = key(&db, None).await.id;
    let (begun, wait) = tokio::sync::oneshot::channel();
    let gone = db.clone();
    let task = tokio::spawn(async move {
        let job = |tx| async move {
            let (tx, inserted) = insert(tx, key, 1).await;
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
            (tx, inserted)
        };
        gone.write(job).await
    });
    wait.await.unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(db.write(|tx| insert(tx, key, 2)).await.unwrap());
    assert_eq!(db.open_calls().await.unwrap().len(), 1);
    assert_eq!(credits(&db, key).await, (None, 1, 1));
}
