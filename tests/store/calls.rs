//! Call rows, logs and recordings.

use std::sync::Arc;

use trunkline::model::call::{Amd, AmdStatus, CallOrder, CallState, CallView, EndReason};
use trunkline::model::event::{CallEvent, Checksum, Fault, RecordingSize};
use trunkline::model::{CallId, Secret};
use trunkline::store::Db;
use trunkline::store::calls::outcome;
use trunkline::store::recordings::{RecordingEnd, RecordingState};

use crate::{Scratch, T0, at, dialing, ended, key, order, place};

async fn save(db: &Db, view: &CallView) {
    let mut tx = db.begin().await.unwrap();
    assert!(tx.save_call(view).await.unwrap());
    tx.commit().await.unwrap();
}

fn folded(order: CallOrder, events: &[CallEvent]) -> CallView {
    let mut view = CallView::new(Arc::new(order));
    for (ms, event) in (0_i64..).step_by(1000).zip(events) {
        view.apply(T0.plus_ms(ms), event);
    }
    view
}

fn screened() -> CallEvent {
    CallEvent::Screened(Amd { status: AmdStatus::Machine, cause: "LONGGREETING".into(), confidence: 0.75 })
}

#[tokio::test]
async fn a_view_is_read_back_as_it_was_saved() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let mut order = order(key(&db, None).await.id, 7, Some("https://example.com/hooks"));
    order.use_amd = true;
    order.trunks[0].password = Secret("very secret".into());
    order.trunks[0].username = "user".into();
    assert!(place(&db, &order).await);
    let mut without_secrets = order.clone();
    without_secrets.trunks[0].password = Secret::default();
    without_secrets.trunks[0].username = String::new();

    let steps = [
        CallEvent::Queued,
        dialing(),
        CallEvent::AttemptFailed {
            trunk: "a-endpoint".into(),
            code: 503,
            reason: "Busy here".into(),
            elapsed_ms: 9,
            retry_after_s: Some(5),
            fault: Fault::Trunk,
        },
        CallEvent::PassedOver { trunk: "b-endpoint".into(), reason: "its calls are all in use".into() },
        dialing(),
        CallEvent::Ringing,
        CallEvent::Answered,
        CallEvent::RecordingStarted { recording: "call-x".into() },
        screened(),
        CallEvent::GatherStarted { expected: 4, timeout_ms: 10_000 },
        CallEvent::GatherProgress { digits: "1".into(), digit: '1', remaining: 3 },
        ended(EndReason::MaxDuration),
    ];
    for upto in 0..=steps.len() {
        let view = folded(without_secrets.clone(), &steps[..upto]);
        save(&db, &view).await;
        assert_eq!(db.call(CallId(7)).await.unwrap(), Some(view.clone()), "after {upto}");
        let open = if view.state == CallState::Ended { vec![] } else { vec![view] };
        assert_eq!(db.open_calls().await.unwrap(), open, "after {upto}");
    }
    let bytes = scratch.bytes();
    let holds = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    assert!(holds(b"a-endpoint"), "this is not the database");
    assert!(!holds(b"very secret"), "a trunk's password was written");
}

#[tokio::test]
async fn outcomes_are_the_documented_words() {
    let order = || order(1, 1, None);
    let answered = |reason| folded(order(), &[dialing(), CallEvent::Answered, ended(reason)]);
    let unanswered = |reason| folded(order(), &[dialing(), CallEvent::Ringing, ended(reason)]);
    assert_eq!(outcome(&folded(order(), &[dialing()])), "ringing");
    assert_eq!(outcome(&folded(order(), &[dialing(), CallEvent::Answered])), "answered");
    for reason in
        [EndReason::NormalHangup, EndReason::ApiHangup, EndReason::Shutdown, EndReason::MediaTimeout]
    {
        assert_eq!(outcome(&answered(reason)), "completed");
    }
    assert_eq!(outcome(&answered(EndReason::EngineRestart)), "failed");
    for (reason, word) in [
        (EndReason::NoAnswer, "no_answer"),
        (EndReason::Busy, "busy"),
        (EndReason::Canceled, "canceled"),
        (EndReason::Rejected, "failed"),
        (EndReason::NotFound, "failed"),
        (EndReason::TrunkFailure, "failed"),
        (EndReason::Shutdown, "failed"),
        (EndReason::EngineRestart, "failed"),
    ] {
        assert_eq!(outcome(&unanswered(reason)), word, "{reason:?}");
    }
}

#[tokio::test]
async fn logs_are_newest_first_filtered_and_the_keys_own() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let (mine, other) = (key(&db, None).await.id, key(&db, None).await.id);
    for id in 1..=5_u128 {
        let mut order = order(mine, id, None);
        order.created_at = T0.plus_ms(i64::try_from(id).unwrap());
        assert!(place(&db, &order).await);
        if id <= 2 {
            let events = [dialing(), CallEvent::Answered, screened(), ended(EndReason::NormalHangup)];
            save(&db, &folded(order, &events)).await;
        }
    }
    assert!(place(&db, &order(other, 6, None)).await);

    let (page, total) = db.call_logs(mine, None, 2, 1).await.unwrap();
    let ids: Vec<_> = page.iter().map(|row| row.kaphila_id.as_str()).collect();
    assert_eq!((ids, total), (vec!["1771322520.4", "1771322520.3"], 5));
    let (done, total) = db.call_logs(mine, Some("completed"), 20, 0).await.unwrap();
    assert_eq!((done.len(), total), (2, 2));
    assert_eq!((done[0].duration_s, done[0].amd_status.as_deref()), (2, Some("MACHINE")));
    assert_eq!(done[0].submitted_number, "+1 415 555 0100");
    let (none, total) = db.call_logs(mine, Some("no such word"), 20, 0).await.unwrap();
    assert_eq!((none.len(), total), (0, 0));
    let (past, total) = db.call_logs(mine, None, 20, 100).await.unwrap();
    assert_eq!((past.len(), total), (0, 5));

    assert_eq!(db.active_count(mine).await.unwrap(), 3);
    assert_eq!(db.begin().await.unwrap().active_count(other).await.unwrap(), 1);
    assert_eq!(db.key(mine).await.unwrap().unwrap().total_calls, 5);
}

#[tokio::test]
async fn recordings_belong_to_their_key() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let (mine, other) = (key(&db, None).await.id, key(&db, None).await.id);
    let order = order(mine, 1, None);
    assert!(place(&db, &order).await);
    let size = RecordingSize { bytes: 16_044, duration_ms: 1000 };
    let mut tx = db.begin().await.unwrap();
    for (name, ms) in [("call-1-a", 1), ("call-1-b", 2)] {
        let moment = T0.plus_ms(ms);
        tx.upsert_recording(&order, name, RecordingState::Active, &RecordingEnd::default(), moment)
            .await
            .unwrap();
    }
    let end = RecordingEnd { size: Some(&size), sha256: Some(Checksum([7; 32])), reason: None };
    tx.upsert_recording(&order, "call-1-a", RecordingState::Done, &end, T0.plus_ms(99)).await.unwrap();
    tx.commit().await.unwrap();

    let list = db.recordings(mine, 10, 0).await.unwrap();
    assert_eq!(list.iter().map(|row| row.recording.as_str()).collect::<Vec<_>>(), ["call-1-b", "call-1-a"]);
    assert_eq!((list[1].bytes, list[1].duration_ms, list[1].state), (16_044, 1000, RecordingState::Done));
    assert_eq!((list[1].created_at, list[1].sha256), (T0.plus_ms(1), Some(Checksum([7; 32]))));
    assert_eq!(db.recordings(mine, 1, 1).await.unwrap(), list[1..]);
    assert_eq!(db.recording_of_call(mine, "1771322520.1").await.unwrap().as_ref(), Some(&list[0]));
    assert_eq!(db.recording_by_filename(mine, "call-1-a.wav").await.unwrap().as_ref(), Some(&list[1]));
    assert!(db.recordings(other, 10, 0).await.unwrap().is_empty());
    assert!(db.recording_of_call(other, "1771322520.1").await.unwrap().is_none());
    assert!(db.recording_by_filename(other, "call-1-a.wav").await.unwrap().is_none());
    assert_eq!(db.open_recordings().await.unwrap(), list[..1]);
}

#[tokio::test]
async fn an_event_is_logged_once() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    assert!(place(&db, &order(key(&db, None).await.id, 1, None)).await);
    let stamped = at(1, 0, CallEvent::Ringing);
    let mut tx = db.begin().await.unwrap();
    assert!(tx.insert_event(&stamped, 1, "{}").await.unwrap());
    assert!(!tx.insert_event(&stamped, 1, "{}").await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(db.events(CallId(1)).await.unwrap(), [(1, "ringing".to_owned(), "{}".to_owned())]);
}
