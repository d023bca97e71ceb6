//! What a crash left behind, put in order before anything else starts (CONTRACT S31): open calls are ended, their
//! money settled, torn recordings repaired and the last webhooks promised.

use std::path::Path;
use std::sync::Arc;

use super::record::Recorder;
use crate::model::Timestamp;
use crate::model::call::{Amd, AmdStatus, CallView, EndReason};
use crate::model::event::{CallEvent, GatherEnd, RecordingSize, Stamped};
use crate::store::recordings::RecordingRow;
use crate::store::{Db, StoreError};
use crate::webhook::Format;

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoverReport {
    /// Calls that were open and are ended now.
    pub calls_ended: usize,
    /// Recordings repaired and completed.
    pub recordings_completed: usize,
    /// Recordings whose file is missing or beyond repair.
    pub recordings_failed: usize,
    /// Webhooks promised.
    pub deliveries: usize,
}

/// Ends every open call with [`EndReason::EngineRestart`] at `at`: a hold is released if the call was never
/// answered and stays taken if it was. Running it twice changes nothing the second time.
pub async fn recover(
    db: &Db,
    formats: Vec<&'static dyn Format>,
    recordings_dir: &Path,
    at: Timestamp,
) -> Result<RecoverReport, StoreError> {
    let recorder = Recorder::new(db.clone(), formats);
    let mut report = RecoverReport::default();
    for view in db.open_calls().await? {
        let call = view.order.id;
        let events = closing_events(&view);
        // When it really ended nobody knows; no later than it was allowed to last.
        let longest = i64::from(view.order.max_duration_ms);
        let at = view.answered_at.map_or(at, |answered| at.min(answered.plus_ms(longest)));
        let stamped = events.into_iter().map(|event| Stamped { call, at, event });
        report.deliveries += write(&recorder, view, stamped.collect()).await?;
        report.calls_ended += 1;
    }
    for row in db.open_recordings().await? {
        let event = finish_recording(recordings_dir, &row).await;
        if matches!(event, CallEvent::RecordingCompleted { .. }) {
            report.recordings_completed += 1;
        } else {
            report.recordings_failed += 1;
        }
        let stamped = Stamped { call: row.call_id, at, event };
        report.deliveries += recorder.write(&[(stamped, None)]).await?.deliveries;
    }
    Ok(report)
}

/// Everything that a call still owes its customer: the end of a gather, a verdict if one was asked for, the end.
fn closing_events(view: &CallView) -> Vec<CallEvent> {
    let mut events = Vec::new();
    if let Some(gather) = &view.gather {
        events.push(CallEvent::GatherTimeout { digits: gather.digits.clone(), reason: GatherEnd::Hangup });
    }
    if view.answered_at.is_some() && view.order.use_amd && view.amd.is_none() {
        let cause = "HANGUP".to_owned();
        events.push(CallEvent::Screened(Amd { status: AmdStatus::Unknown, cause, confidence: 0.0 }));
    }
    // Cause 41, temporary failure: the call broke on our side (Q.850 §2.2.7.3.1).
    events.push(CallEvent::Ended { reason: EndReason::EngineRestart, q850: 41, sip_code: None });
    events
}

/// Folds and writes one call's last events in one transaction.
async fn write(recorder: &Recorder, mut view: CallView, events: Vec<Stamped>) -> Result<usize, StoreError> {
    let mut batch = Vec::with_capacity(events.len());
    for stamped in events {
        view.apply(stamped.at, &stamped.event);
        batch.push((stamped, Some(Arc::new(view.clone()))));
    }
    Ok(recorder.write(&batch).await?.deliveries)
}

/// Makes the sizes in the file's header true and says how long it is.
async fn finish_recording(recordings_dir: &Path, row: &RecordingRow) -> CallEvent {
    let path = recordings_dir.join(&row.filename);
    let repaired = tokio::task::spawn_blocking(move || {
        media::wav::repair(&path).map_err(|error| error.to_string())?;
        std::fs::metadata(&path).map(|file| file.len()).map_err(|error| error.to_string())
    });
    let recording = row.recording.clone();
    match repaired.await.map_err(|error| error.to_string()).flatten() {
        Ok(bytes) => {
            let duration_ms = media::wav::duration_ms(bytes.saturating_sub(media::wav::HEADER));
            CallEvent::RecordingCompleted { recording, size: RecordingSize { bytes, duration_ms } }
        }
        Err(error) => {
            tracing::warn!(%recording, %error, "a recording could not be repaired");
            let size = RecordingSize { bytes: 0, duration_ms: 0 };
            CallEvent::RecordingFailed { recording, reason: "unreadable after a restart".to_owned(), size }
        }
    }
}
