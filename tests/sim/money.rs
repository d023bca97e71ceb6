//! The same random calls, with a real database behind them: what they cost and what is told of them is exact.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use trunkline::api::FORMATS;
use trunkline::journal::{Journal, JournalHandle, Live};
use trunkline::model::call::CallView;
use trunkline::model::event::CallEvent;
use trunkline::model::{CallId, Timestamp};
use trunkline::store::Db;
use trunkline::store::accounts::NewKey;

use crate::by_call;
use crate::net::Weather;
use crate::world::World;

const GRANTED: i64 = 60;
const CALLS: u32 = 400;
const BAD: Weather = Weather { loss_percent: 5, duplicate_percent: 5, delay_max_ms: 200 };

struct Books {
    db: Db,
    live: Live,
    journal: JournalHandle,
    key: i64,
    file: PathBuf,
    told: usize,
}

impl Books {
    async fn open(seed: u64) -> Self {
        let file = std::env::temp_dir().join(format!("trunkline-sim-{}-{seed}.db", std::process::id()));
        let db = Db::open(&format!("sqlite://{}", file.display())).await.expect("a database");
        let new = NewKey { credits: Some(GRANTED), ..NewKey::named("sim") };
        let key = db.create_key(new, Timestamp(0)).await.expect("a key").key.id;
        let live = Live::default();
        let wake = Arc::new(Notify::new());
        let (journal, _) = Journal::start(db.clone(), live.clone(), FORMATS.to_vec(), wake);
        Self { db, live, journal, key, file, told: 0 }
    }

    /// Everything that has happened so far is in the database.
    async fn catch_up(&mut self, world: &World) {
        for event in &world.events[self.told..] {
            self.journal.record(event.clone());
        }
        self.told = world.events.len();
        self.journal.flush().await;
    }

    /// Places a call as control does: one transaction that holds a credit, or nothing at all.
    async fn place(&mut self, world: &mut World, number: u32) -> bool {
        let mut order = world.order(u128::from(number));
        order.key = self.key;
        let view = CallView::new(Arc::new(order.clone()));
        let mut tx = self.db.begin().await.expect("a transaction");
        if !tx.hold_credit(self.key).await.expect("a hold") {
            return false;
        }
        tx.insert_call(&view).await.expect("a row");
        tx.commit().await.expect("a commit");
        self.live.admit(view);
        world.place(order);
        true
    }

    async fn assert_never_overdrawn(&self, world: &World) {
        let key = self.db.key(self.key).await.expect("a key").expect("the key");
        let credits = key.credits.expect("limited");
        let answered = world.events.iter().filter(|e| matches!(e.event, CallEvent::Answered)).count();
        assert_eq!(credits, GRANTED - i64::try_from(answered).expect("few"), "one credit an answer, no more");
        assert!(key.held >= 0 && credits - key.held >= 0, "held {} of {credits}", key.held);
    }
}

#[tokio::test]
async fn credits_are_exact_and_each_event_is_once_in_the_outbox() {
    for seed in crate::seeds(40..42) {
        let mut world = World::new(seed, BAD);
        let mut books = Books::open(seed).await;
        let (mut placed, mut refused) = (0, 0);
        let mut at = Duration::ZERO;
        for number in 1..=CALLS {
            at += Duration::from_millis(u64::from(world.roll(1000)));
            while world.step(at) {}
            books.catch_up(&world).await;
            books.assert_never_overdrawn(&world).await;
            if books.place(&mut world, number).await {
                placed += 1;
            } else {
                refused += 1;
            }
        }
        while world.step(at + Duration::from_secs(400)) {}
        books.catch_up(&world).await;
        books.assert_never_overdrawn(&world).await;
        println!("seed {seed}: {placed} placed, {refused} refused");
        assert!(placed > 60 && refused > 60, "the money must run out in this test");
        let key = books.db.key(books.key).await.expect("a key").expect("the key");
        assert_eq!(key.held, 0, "a hold was left");
        for (call, events) in by_call(&world.events) {
            assert_eq!(books.db.events(call).await.expect("events").len(), events.len());
            assert_told_once(&books.db, call).await;
        }
        books.db.close().await;
        std::fs::remove_file(&books.file).expect("the test's own file");
    }
}

/// Bodies are numbered from 1 without a gap, and the end is told once.
async fn assert_told_once(db: &Db, call: CallId) {
    let log = db.deliveries(call).await.expect("deliveries");
    let mut ends = 0;
    for (place, delivery) in log.iter().enumerate() {
        let body = db.delivery_body(delivery.id).await.expect("a body").expect("the body");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["sequence"], place + 1, "{log:?}");
        ends += usize::from(delivery.event == "call.ended");
    }
    assert_eq!(ends, 1, "{log:?}");
}
