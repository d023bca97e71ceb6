//! The journal: fold first, one transaction for a group, nothing lost and nothing twice.

use std::sync::Arc;

use tokio::sync::Notify;
use trunkline::journal::{Journal, JournalHandle, Live};
use trunkline::model::CallId;
use trunkline::model::call::{CallState, CallView, EndReason};
use trunkline::model::event::{CallEvent, Checksum, RecordingSize, Stamped};
use trunkline::store::Db;
use trunkline::store::recordings::RecordingState;

use crate::{Scratch, at, dialing, digit, ended, eventually, formats, key, order, place};

const URL: &str = "https://example.com/hooks";

struct World {
    scratch: Scratch,
    db: Db,
    live: Live,
    journal: JournalHandle,
    wake: Arc<Notify>,
    key: i64,
}

impl World {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let db = scratch.db().await;
        let key = key(&db, Some(5)).await.id;
        let (live, wake) = (Live::default(), Arc::new(Notify::new()));
        let (journal, _task) = Journal::start(db.clone(), live.clone(), formats(), wake.clone());
        Self { scratch, db, live, journal, wake, key }
    }

    async fn place(&self, id: u128) {
        let order = order(self.key, id, Some(URL));
        assert!(place(&self.db, &order).await);
        self.live.admit(CallView::new(Arc::new(order)));
    }

    fn record(&self, call: u128, events: impl IntoIterator<Item = CallEvent>) {
        for (ms, event) in (0..).zip(events) {
            self.journal.record(at(call, ms, event));
        }
    }

    async fn event_names(&self, call: u128) -> Vec<String> {
        let events = self.db.events(CallId(call)).await.unwrap();
        for (wanted, (sequence, _, _)) in (1..).zip(&events) {
            assert_eq!(*sequence, wanted);
        }
        events.into_iter().map(|(_, name, _)| name).collect()
    }
}

fn whole_call() -> Vec<CallEvent> {
    vec![
        CallEvent::Queued,
        dialing(),
        CallEvent::Ringing,
        CallEvent::Answered,
        ended(EndReason::NormalHangup),
    ]
}

#[tokio::test]
async fn events_of_many_calls_are_written_in_order() {
    let world = World::new().await;
    for call in 1..=3 {
        world.place(call).await;
    }
    for index in 0..200_u32 {
        let digit = char::from_digit(index % 10, 10).unwrap();
        for call in 1..=3 {
            world.journal.record(at(call, index.into(), crate::digit(digit)));
        }
    }
    world.journal.flush().await;
    assert_eq!(world.journal.lag(), 0);
    for call in 1..=3 {
        let events = world.db.events(CallId(call)).await.unwrap();
        assert_eq!(events.len(), 200);
        let webhooks = world.db.deliveries(CallId(call)).await.unwrap();
        assert_eq!(webhooks.len(), 200);
        for (index, ((sequence, _, data), webhook)) in (0_u32..).zip(events.iter().zip(&webhooks)) {
            assert_eq!(*sequence, index + 1);
            assert!(data.contains(&format!("\"digit\":\"{}\"", index % 10)), "{data}");
            assert!(webhook.body.ends_with(&format!("\"sequence\":{}}}", index + 1)), "{}", webhook.body);
        }
        assert_eq!(world.db.call(CallId(call)).await.unwrap().unwrap().events, 200);
    }
}

#[tokio::test]
async fn several_recorders_of_one_call_lose_nothing() {
    const EACH: u32 = 3_000;
    let world = World::new().await;
    let order = order(world.key, 1, None);
    assert!(place(&world.db, &order).await);
    world.live.admit(CallView::new(Arc::new(order)));
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                start.wait();
                for ms in 0..EACH {
                    world.journal.record(at(1, ms.into(), digit('1')));
                }
            });
        }
    });
    world.journal.flush().await;
    let stored = world.db.call(CallId(1)).await.unwrap().unwrap();
    assert_eq!(stored.events, 4 * EACH);
    assert_eq!(world.event_names(1).await.len(), 4 * EACH as usize);
}

#[tokio::test]
async fn the_live_view_is_ahead_of_the_database() {
    let world = World::new().await;
    world.scratch.break_inserts("events", "NEW.sequence > 0").await;
    let order = order(world.key, 1, Some(URL));
    assert!(place(&world.db, &order).await);
    world.live.admit(CallView::new(Arc::new(order)));
    let mut seen = world.live.subscribe(CallId(1)).unwrap();
    world.record(1, [CallEvent::Queued, dialing()]);
    eventually("an error is told", async || world.journal.last_error().is_some()).await;
    world.record(1, [CallEvent::Ringing, CallEvent::Answered, digit('1'), digit('2')]);
    seen.wait_for(|view| view.state == CallState::Answered).await.unwrap();
    eventually("events wait", async || world.journal.lag() == 6).await;
    assert!(world.db.events(CallId(1)).await.unwrap().is_empty());
    assert_eq!(world.db.call(CallId(1)).await.unwrap().unwrap().state, CallState::Queued);

    world.scratch.mend_inserts("events").await;
    world.journal.flush().await;
    assert_eq!((world.journal.lag(), world.journal.last_error()), (0, None));
    let names = ["queued", "dialing", "ringing", "answered", "digit", "digit"];
    assert_eq!(world.event_names(1).await, names);
    assert_eq!(world.db.key(world.key).await.unwrap().unwrap().credits, Some(4), "taken once");
    assert_eq!(world.db.deliveries(CallId(1)).await.unwrap().len(), 5, "each webhook once");
}

#[tokio::test]
async fn a_group_is_all_or_nothing() {
    let world = World::new().await;
    world.place(1).await;
    world.scratch.break_inserts("deliveries", "NEW.event = 'ended'").await;
    world.record(1, whole_call());
    eventually("an error is told", async || world.journal.last_error().is_some()).await;
    let stored = world.db.call(CallId(1)).await.unwrap().unwrap();
    assert_ne!(stored.state, CallState::Ended);
    assert!(
        world.live.get(CallId(1)).is_some_and(|view| view.state == CallState::Ended),
        "until its end is on disk"
    );
    world.scratch.mend_inserts("deliveries").await;
    world.journal.flush().await;
    assert_eq!(world.event_names(1).await.last().unwrap(), "ended");
    assert!(world.live.get(CallId(1)).is_none());
}

#[tokio::test]
async fn money_follows_the_answer() {
    let world = World::new().await;
    for call in 1..=3 {
        world.place(call).await;
    }
    world.record(1, whole_call());
    world.record(2, [dialing(), CallEvent::Ringing, ended(EndReason::NoAnswer)]);
    world.record(3, [dialing(), CallEvent::Answered]);
    world.journal.flush().await;
    let key = world.db.key(world.key).await.unwrap().unwrap();
    assert_eq!((key.credits, key.held), (Some(3), 0));
    assert_eq!((key.total_calls, key.successful_calls), (3, 1));
    assert_eq!(world.db.active_count(world.key).await.unwrap(), 1);
}

#[tokio::test]
async fn an_ended_call_leaves_the_lists_at_once_and_its_late_recording_is_kept() {
    let world = World::new().await;
    world.place(1).await;
    world.place(2).await;
    assert_eq!((world.live.count(), world.live.of_key(world.key).len()), (2, 2));
    assert!(world.live.by_kaphila("1771322520.2").is_some());
    let follower = world.live.subscribe(CallId(1)).unwrap();
    let recording = || "call-1".to_owned();
    world.record(1, [CallEvent::Answered, CallEvent::RecordingStarted { recording: recording() }]);
    world.record(1, [ended(EndReason::NormalHangup), ended(EndReason::Busy)]);
    world.journal.flush().await;
    assert!(world.live.get(CallId(1)).is_none() && world.live.by_kaphila("1771322520.1").is_none());
    assert_eq!((world.live.count(), world.live.of_key(world.key).len()), (1, 1));
    assert_eq!(follower.borrow().end.unwrap().reason, EndReason::NormalHangup, "the first end stands");

    let size = RecordingSize { bytes: 16_044, duration_ms: 1000 };
    world.record(
        1,
        [
            CallEvent::RecordingCompleted { recording: recording(), size, sha256: Checksum([7; 32]) },
            ended(EndReason::Busy),
        ],
    );
    world.journal.flush().await;
    assert_eq!(world.event_names(1).await, ["answered", "recording_started", "ended", "recording_completed"]);
    let row = world.db.recording_of_call(world.key, "1771322520.1").await.unwrap().unwrap();
    assert_eq!((row.state, row.bytes), (RecordingState::Done, 16_044));
    let last = world.db.deliveries(CallId(1)).await.unwrap().pop().unwrap();
    assert_eq!((last.event.as_str(), last.body.contains("\"sequence\":4")), ("recording_completed", true));
    assert_eq!(world.journal.lag(), 0);
}

#[tokio::test]
async fn events_of_unknown_calls_are_passed_over() {
    let world = World::new().await;
    world.place(1).await;
    world.record(99, [CallEvent::Ringing, ended(EndReason::Busy)]);
    world.record(1, [CallEvent::Ringing]);
    world.journal.flush().await;
    assert_eq!(world.event_names(1).await, ["ringing"]);
    assert_eq!((world.journal.lag(), world.journal.last_error()), (0, None));
}

#[tokio::test]
async fn the_worker_is_woken_when_something_was_promised() {
    let world = World::new().await;
    world.place(1).await;
    world.record(1, [CallEvent::Ringing]);
    tokio::time::timeout(std::time::Duration::from_secs(10), world.wake.notified()).await.unwrap();
    assert_eq!(world.db.deliveries(CallId(1)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_journal_writes_everything_before_it_ends() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let order = order(key(&db, None).await.id, 1, None);
    assert!(place(&db, &order).await);
    let live = Live::default();
    live.admit(CallView::new(Arc::new(order)));
    let (journal, task) = Journal::start(db.clone(), live, formats(), Arc::new(Notify::new()));
    for (ms, event) in (0..).zip(whole_call()) {
        journal.record(Stamped { call: CallId(1), at: crate::T0.plus_ms(ms), event });
    }
    drop(journal);
    task.await.unwrap();
    assert_eq!(db.events(CallId(1)).await.unwrap().len(), 5);
}
