//! What a crash leaves behind.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use trunkline::journal::{Journal, Live, RecoverReport, recover};
use trunkline::model::CallId;
use trunkline::model::call::{AmdStatus, CallState, CallView, EndReason};
use trunkline::model::event::{CallEvent, Checksum};
use trunkline::store::recordings::RecordingState;
use trunkline::store::{Db, StoreError};

use crate::{Scratch, T0, at, dialing, ended, formats, key, order, place};

const URL: &str = "https://example.com/hooks";

/// A WAV as a crash leaves it: the sizes in the header are those of an empty file, half a sample at the end.
fn torn_wav() -> Vec<u8> {
    let mut bytes =
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
            .to_vec();
    bytes.extend(std::iter::repeat_n(1, 16_001));
    bytes
}

/// Three calls: ringing; answered, recorded, gathering and not yet screened; over.
async fn crash(scratch: &Scratch, db: &Db) -> i64 {
    let key = key(db, Some(5)).await.id;
    let live = Live::default();
    let (journal, task) = Journal::start(db.clone(), live.clone(), formats(), Arc::new(Notify::new()));
    for id in 1..=3 {
        let mut order = order(key, id, Some(URL));
        order.use_amd = id == 2;
        assert!(place(db, &order).await);
        live.admit(CallView::new(Arc::new(order)));
    }
    let recording = || "call-2".to_owned();
    for (call, event) in [
        (1, dialing()),
        (1, CallEvent::Ringing),
        (2, dialing()),
        (2, CallEvent::Answered),
        (2, CallEvent::RecordingStarted { recording: recording() }),
        (2, CallEvent::GatherStarted { expected: 4, timeout_ms: 10_000 }),
        (2, CallEvent::GatherProgress { digits: "12".into(), digit: '2', remaining: 2 }),
        (3, CallEvent::Answered),
        (3, CallEvent::RecordingStarted { recording: "call-3".into() }),
        (3, ended(EndReason::NormalHangup)),
    ] {
        journal.record(at(call, 0, event));
    }
    drop(journal);
    task.await.unwrap();
    std::fs::write(scratch.path().join("call-2.wav"), torn_wav()).unwrap();
    key
}

#[tokio::test]
async fn one_server_at_a_time_has_sqlite_and_many_have_postgresql() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.db().await, scratch.db().await);
    let claim = first.claim_for_serving().await.unwrap();
    if first.is_shared() {
        second.claim_for_serving().await.unwrap();
        return;
    }
    assert!(matches!(second.claim_for_serving().await, Err(StoreError::InUse(_))));
    drop(claim);
    second.claim_for_serving().await.unwrap();
}

#[tokio::test]
async fn open_calls_are_closed_and_settled_once() {
    let scratch = Scratch::new();
    let key = {
        let db = scratch.db().await;
        let key = crash(&scratch, &db).await;
        db.close().await;
        key
    };
    let db = scratch.db().await;
    let now = T0.plus_ms(60_000);
    let report = recover(&db, formats(), scratch.path(), now).await.unwrap();
    assert_eq!(
        report,
        RecoverReport { calls_ended: 2, recordings_completed: 1, recordings_failed: 1, deliveries: 6 }
    );
    let money = db.key(key).await.unwrap().unwrap();
    assert_eq!(
        (money.credits, money.held),
        (Some(3), 0),
        "the ringing call's hold is free, two answers are paid"
    );
    assert_eq!((money.total_calls, money.successful_calls), (3, 1));
    for call in [1, 2] {
        let view = db.call(CallId(call)).await.unwrap().unwrap();
        let end = view.end.unwrap();
        assert_eq!((view.state, end.reason, end.q850), (CallState::Ended, EndReason::EngineRestart, 41));
        assert_eq!(end.at, now);
    }
    let (failed, _) = db.call_logs(key, Some("failed"), 10, 0).await.unwrap();
    assert_eq!(failed.len(), 2);
    let screened = db.call(CallId(2)).await.unwrap().unwrap().amd.unwrap();
    assert_eq!((screened.status, screened.cause.as_str()), (AmdStatus::Unknown, "HANGUP"));

    let told: Vec<_> = db.deliveries(CallId(2)).await.unwrap().into_iter().map(|row| row.event).collect();
    let last = ["gather_timeout", "screened", "ended", "recording_completed"];
    assert_eq!(told[told.len() - 4..], last);
    assert_eq!(db.deliveries(CallId(1)).await.unwrap().pop().unwrap().event, "ended");
    assert_eq!(db.deliveries(CallId(3)).await.unwrap().pop().unwrap().event, "recording_failed");

    assert_eq!(recover(&db, formats(), scratch.path(), now).await.unwrap(), RecoverReport::default());
    assert_eq!(db.key(key).await.unwrap().unwrap(), money);
}

#[tokio::test]
async fn a_torn_recording_opens_again() {
    let scratch = Scratch::new();
    let db = scratch.db().await;
    let key = crash(&scratch, &db).await;
    recover(&db, formats(), scratch.path(), T0).await.unwrap();
    let row = db.recording_of_call(key, "1771322520.2").await.unwrap().unwrap();
    assert_eq!((row.state, row.bytes, row.duration_ms), (RecordingState::Done, 16_044, 1000));
    let whole = std::fs::read(scratch.path().join("call-2.wav")).unwrap();
    assert_eq!(row.sha256, Some(Checksum(Sha256::digest(whole).into())));
    let reader = hound::WavReader::open(scratch.path().join("call-2.wav")).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.duration()), (8000, 8000));
    let lost = db.recording_of_call(key, "1771322520.3").await.unwrap().unwrap();
    assert_eq!((lost.state, lost.bytes), (RecordingState::Failed, 0));
}
