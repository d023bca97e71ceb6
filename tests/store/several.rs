//! Several nodes on one PostgreSQL: each has its own [`Db`], opened on the same URL, and knows nothing of the others but
//! what the database holds. Here they are two in one program, which is what two processes are to the database; real
//! processes share one in `tests/faults`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use trunkline::clock;
use trunkline::control::idempotency::{Begun, Idempotency};
use trunkline::control::rate::Windows;
use trunkline::control::{Failure, Refusal};
use trunkline::journal::{Live, Recorder, RecoverReport, recover, recover_others};
use trunkline::model::CallId;
use trunkline::model::call::{CallState, CallView, EndReason};
use trunkline::model::event::CallEvent;
use trunkline::store::Db;
use trunkline::store::idempotency::RequestName;
use trunkline::store::nodes::{Serving, Suspects};
use trunkline::store::outbox::{Settled, Settlement};

use crate::{Scratch, T0, at, dialing, ended, eventually, formats, key, order, place};

const URL: &str = "https://example.com/hooks";

/// A node: a process as far as the database can tell, though both live in this program.
struct Process {
    db: Db,
    serving: Serving,
}

impl Process {
    async fn start(scratch: &Scratch) -> Self {
        let db = scratch.db().await;
        let serving = db.claim_for_serving().await.unwrap();
        Self { db, serving }
    }
}

async fn two(scratch: &Scratch) -> [Process; 2] {
    [Process::start(scratch).await, Process::start(scratch).await]
}

/// Does `what` so often at once, every other time in the other process, and collects the answers.
async fn at_once<T, Fut>(processes: &[Process; 2], times: u32, what: impl Fn(Db, u32) -> Fut) -> Vec<T>
where
    T: Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> =
        (0..times).map(|n| tokio::spawn(what(processes[usize::from(n % 2 == 1)].db.clone(), n))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_calls_from_two_processes_and_five_credits() {
    let scratch = Scratch::with(true);
    let processes = two(&scratch).await;
    let key = key(&processes[0].db, Some(5)).await.id;
    let placed = at_once(&processes, 50, move |db, n| async move {
        place(&db, &order(key, u128::from(n) + 1, None)).await.then_some(u128::from(n) + 1)
    })
    .await;
    let placed: Vec<u128> = placed.into_iter().flatten().collect();
    assert_eq!(placed.len(), 5);
    let calls = Arc::new(placed);
    at_once(&processes, 5, move |db, n| {
        let call = calls[n as usize];
        async move {
            let mut tx = db.begin().await.unwrap();
            tx.capture_hold(CallId(call)).await.unwrap();
            tx.commit().await.unwrap();
        }
    })
    .await;
    let paid = processes[1].db.key(key).await.unwrap().unwrap();
    assert_eq!((paid.credits, paid.held), (Some(0), 0));
    assert!(!place(&processes[0].db, &order(key, 99, None)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn live_calls_are_counted_over_both_processes() {
    let scratch = Scratch::with(true);
    let processes = two(&scratch).await;
    let key = key(&processes[0].db, None).await.id;
    let placed = at_once(&processes, 40, move |db, n| async move {
        let mut tx = db.begin().await.unwrap();
        if tx.active_count(key).await.unwrap() >= 7 {
            return None;
        }
        let cursor = tx.next_trunk_cursor(key).await.unwrap();
        let number = tx.next_call_counter().await.unwrap();
        let view = CallView::new(Arc::new(order(key, u128::from(n) + 1, None)));
        tx.insert_call(&view).await.unwrap();
        tx.commit().await.unwrap();
        Some((cursor, number))
    })
    .await;
    let placed: Vec<_> = placed.into_iter().flatten().collect();
    let cursors: BTreeSet<u64> = placed.iter().map(|(cursor, _)| *cursor).collect();
    let numbers: BTreeSet<i64> = placed.iter().map(|(_, number)| *number).collect();
    assert_eq!(cursors, (0..7).collect(), "each trunk's turn once");
    assert_eq!((placed.len(), numbers.len()), (7, 7), "no number twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_requests_with_a_hundred_left_take_a_hundred() {
    let scratch = Scratch::with(true);
    let processes = two(&scratch).await;
    let key = key(&processes[0].db, None).await.id;
    let hour = Duration::from_secs(3600);
    let answers = at_once(&processes, 200, move |db, _| async move {
        Windows::new(db, "kaphila", hour).take(key, 100, clock::now().mono).await.unwrap()
    })
    .await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|rate| rate.allowed);
    assert_eq!((taken.len(), refused.len()), (100, 100));
    let left: BTreeSet<u32> = taken.iter().map(|rate| rate.remaining).collect();
    assert_eq!(left, (0..100).collect(), "each is told another number");
    assert!(refused.iter().all(|rate| rate.remaining == 0 && (3000..=3600).contains(&rate.retry_after_s())));
}

#[tokio::test]
async fn a_shared_window_slides() {
    let scratch = Scratch::with(true);
    let [one, other] = two(&scratch).await;
    let key = key(&one.db, None).await.id;
    let take = async |db: &Db| db.take_rate("kaphila", key, 2, 400).await.unwrap();
    assert!(take(&one.db).await.taken && take(&other.db).await.taken);
    let mut refused = 0;
    eventually("the first has left the window", async || {
        let counted = take(&one.db).await;
        refused += u32::from(!counted.taken);
        counted.taken
    })
    .await;
    assert!(refused > 0, "refused ones do not count, and there were none");
    // Two others are their own windows.
    assert!(other.db.take_rate("kaphila", key + 1, 2, 400).await.is_err(), "no such key");
    assert!(other.db.take_rate("other", key, 1, 400).await.unwrap().taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_repeats_at_two_processes_are_done_once() {
    let scratch = Scratch::with(true);
    let processes = two(&scratch).await;
    let key = key(&processes[0].db, None).await.id;
    let known = processes.each_ref().map(|process| Idempotency::new(process.db.clone()));
    let request = RequestName { key, path: "/makecall".into(), name: "one".into() };
    let asked = request.clone();
    let answers = at_once(&processes, 100, move |_, n| {
        let (known, request) = (known[usize::from(n % 2 == 1)].clone(), asked.clone());
        async move { (known.begin(request, b"body", T0).await, known) }
    })
    .await;
    let (mut first, mut under_way) = (Vec::new(), 0);
    for (answer, known) in answers {
        match answer {
            Ok(Begun::First(claim)) => first.push((claim, known)),
            Err(Failure::Refused(Refusal::RequestInProgress)) => under_way += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((first.len(), under_way), (1, 99));
    first.pop().unwrap().0.keep(200, "answer".into(), T0).await.unwrap();
    for process in &processes {
        let begun = Idempotency::new(process.db.clone()).begin(request.clone(), b"body", T0).await.unwrap();
        assert!(matches!(begun, Begun::Repeat(answer) if answer.body == "answer"));
    }
}

/// Twenty calls with a webhook each.
async fn promise(db: &Db, key: i64) {
    let recorder = Recorder::new(db.clone(), formats());
    for id in 1..=20 {
        let order = order(key, id, Some(URL));
        assert!(place(db, &order).await);
        let mut view = CallView::new(Arc::new(order));
        let stamped = at(id, 0, dialing());
        view.apply(stamped.at, &stamped.event);
        recorder.write(&[(stamped, Some(Arc::new(view)))]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_webhook_is_claimed_by_two() {
    let scratch = Scratch::with(true);
    let processes = two(&scratch).await;
    let key = key(&processes[0].db, None).await.id;
    promise(&processes[0].db, key).await;
    let claims =
        at_once(&processes, 2, |db, n| async move { (n % 2, db.claim(T0.plus_ms(1), 6).await.unwrap()) })
            .await;
    let mut rows = [BTreeSet::new(), BTreeSet::new()];
    for (process, claimed) in claims {
        rows[process as usize].extend(claimed.into_iter().map(|row| row.id));
    }
    assert_eq!((rows[0].len(), rows[1].len()), (6, 6), "no more than each asked for");
    assert!(rows[0].is_disjoint(&rows[1]));
    let due = processes[0].db.claim(T0.plus_ms(1), 6).await.unwrap();
    assert_eq!(due.iter().map(|row| row.id).collect::<BTreeSet<_>>(), rows[0], "still the same ones");

    // What has to be tried again is anybody's.
    let mut tx = processes[0].db.begin().await.unwrap();
    let row = &due[0];
    let settlement = Settlement::Retry(T0);
    let (url, result) = (row.url.clone(), "status 503".to_owned());
    let settled =
        Settled { id: row.id, call: row.call, url, attempts: 1, settlement, status: Some(503), result };
    tx.settle(&settled, T0).await.unwrap();
    tx.commit().await.unwrap();
    let all = processes[1].db.claim(T0.plus_ms(1), 100).await.unwrap();
    assert_eq!(all.len(), 15, "twenty less the five that the other still has");

    // A process that dies gives its rows back.
    let [one, other] = processes;
    drop(other.serving);
    eventually("the dead one's rows are claimed", async || {
        recover(&one.db, formats(), scratch.path(), T0).await.unwrap();
        one.db.claim(T0.plus_ms(1), 100).await.unwrap().len() == 20
    })
    .await;
}

#[tokio::test]
async fn only_calls_of_the_dead_are_closed() {
    let scratch = Scratch::with(true);
    let [alive, dying] = two(&scratch).await;
    let key = key(&alive.db, Some(5)).await.id;
    assert!(place(&alive.db, &order(key, 1, Some(URL))).await);
    assert!(place(&dying.db, &order(key, 2, Some(URL))).await);
    // A third process starts beside the two.
    let third = Process::start(&scratch).await;
    let found = recover(&third.db, formats(), scratch.path(), T0).await.unwrap();
    assert_eq!(found, RecoverReport::default());

    dying.db.close().await;
    drop(dying.serving);
    let mut suspects = Suspects::default();
    let live = Live::default();
    let mut looks = 0;
    eventually("the dead one's call is closed", async || {
        looks += 1;
        let found = recover_others(&third.db, formats(), scratch.path(), T0, &live, &mut suspects).await;
        found.unwrap().calls_ended == 1
    })
    .await;
    assert!(looks > 1, "one look is not enough");
    let state = async |id| third.db.call(CallId(id)).await.unwrap().unwrap();
    assert_eq!(state(2).await.end.unwrap().reason, EndReason::EngineRestart);
    assert_eq!(state(1).await.state, CallState::Queued);
    let money = third.db.key(key).await.unwrap().unwrap();
    assert_eq!((money.credits, money.held), (Some(5), 1), "the living call keeps its hold");
}

#[tokio::test]
async fn who_was_wrongly_taken_for_dead_writes_no_second_end() {
    let scratch = Scratch::with(true);
    let [mut cut, other] = two(&scratch).await;
    let key = key(&cut.db, Some(5)).await.id;
    let order = order(key, 1, Some(URL));
    assert!(place(&cut.db, &order).await);
    let recorder = Recorder::new(cut.db.clone(), formats());
    let mut view = CallView::new(Arc::new(order));
    let mut write = async |event: CallEvent| {
        let stamped = at(1, 0, event);
        view.apply(stamped.at, &stamped.event);
        recorder.write(&[(stamped, Some(Arc::new(view.clone())))]).await.unwrap()
    };
    write(dialing()).await;
    // Its registration is cut while it works on.
    scratch.cut_connections().await;
    recover(&other.db, formats(), scratch.path(), T0).await.unwrap();
    let end = async || other.db.call(CallId(1)).await.unwrap().unwrap().end.unwrap();
    assert_eq!(end().await.reason, EndReason::EngineRestart);
    let events = other.db.events(CallId(1)).await.unwrap();

    write(CallEvent::Answered).await;
    let written = write(ended(EndReason::NormalHangup)).await;
    assert_eq!((written.ended, written.deliveries), (vec![CallId(1)], 0));
    assert_eq!(other.db.events(CallId(1)).await.unwrap(), events);
    assert_eq!(end().await.reason, EndReason::EngineRestart);
    let money = other.db.key(key).await.unwrap().unwrap();
    assert_eq!((money.credits, money.held), (Some(5), 0));

    // It notices, and is a node again: its next call stays its own.
    let lost = Notify::new();
    tokio::select! {
        () = cut.serving.keep(&lost) => {}
        told = tokio::time::timeout(Duration::from_secs(10), lost.notified()) => told.unwrap(),
    }
    assert!(place(&cut.db, &crate::order(key, 2, None)).await);
    let found = recover(&other.db, formats(), scratch.path(), T0).await.unwrap();
    assert_eq!(found, RecoverReport::default());
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced() {
    let scratch = Scratch::with(true);
    let process = Process::start(&scratch).await;
    let key = key(&process.db, Some(5)).await.id;
    let tx = process.db.begin().await.unwrap();
    scratch.cut_connections().await;
    assert!(tx.commit().await.is_err(), "what was under way is lost");
    process.db.ping().await.unwrap();
    assert!(place(&process.db, &order(key, 1, None)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_together_make_one_schema() {
    let scratch = Scratch::with(true);
    let url = scratch.url();
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { Db::open(&url).await.unwrap().ping().await.unwrap() })
        })
        .collect();
    for opened in opening {
        opened.await.unwrap();
    }
}
