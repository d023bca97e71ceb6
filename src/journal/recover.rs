//! What a crash left behind, put in order (CONTRACT S31): open calls are ended, their money settled, torn recordings
//! repaired and the last webhooks promised. Before anything else starts; and now and then where several processes
//! share a database and the folder of recordings, because one of them may die while the others live on.

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::live::Live;
use super::record::Recorder;
use crate::model::Timestamp;
use crate::model::call::{Amd, AmdStatus, CallView, EndReason};
use crate::model::event::{CallEvent, Checksum, GatherEnd, RecordingSize, Stamped};
use crate::store::nodes::{Suspects, TakenOver};
use crate::store::recordings::RecordingRow;
use crate::store::{Db, StoreError};
use crate::webhook::Format;

/// A file of a recording has no name of its own for much less than this, milliseconds.
const UNNAMED_MS: i64 = 10_000;

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

/// Ends every open call that no living process has with [`EndReason::EngineRestart`] at `at`: a hold is released if
/// the call was never answered and stays taken if it was. Running it twice changes nothing the second time.
pub async fn recover(
    db: &Db,
    formats: Vec<&'static dyn Format>,
    recordings_dir: &Path,
    at: Timestamp,
) -> Result<RecoverReport, StoreError> {
    put_in_order(db, formats, recordings_dir, at, db.take_over(None).await?).await
}

/// A call that this process does not know so long after it was placed was never told to it.
const NEVER_TOLD_MS: i64 = 120_000;

/// The same while this process serves: for what other processes left behind that have looked dead at the look before,
/// too, and for calls of its own whose placing was committed without its knowing. With a database that is not shared
/// there is nothing to be found.
pub async fn recover_others(
    db: &Db,
    formats: Vec<&'static dyn Format>,
    recordings_dir: &Path,
    at: Timestamp,
    live: &Live,
    suspects: &mut Suspects,
) -> Result<RecoverReport, StoreError> {
    if !db.is_shared() {
        return Ok(RecoverReport::default());
    }
    let known = live.all().iter().map(|view| view.order.id).collect();
    db.disown(&known, at.plus_ms(-NEVER_TOLD_MS)).await?;
    put_in_order(db, formats, recordings_dir, at, db.take_over(Some(suspects)).await?).await
}

async fn put_in_order(
    db: &Db,
    formats: Vec<&'static dyn Format>,
    recordings_dir: &Path,
    at: Timestamp,
    left: TakenOver,
) -> Result<RecoverReport, StoreError> {
    let recorder = Recorder::of_nobodys_calls(db.clone(), formats);
    let mut report = RecoverReport::default();
    for view in &left.calls {
        let call = view.order.id;
        let events = closing_events(view);
        // When it really ended nobody knows; no later than it was allowed to last.
        let longest = i64::from(view.order.max_duration_ms);
        let at = view.answered_at.map_or(at, |answered| at.min(answered.plus_ms(longest)));
        let stamped = events.into_iter().map(|event| Stamped { call, at, event });
        report.deliveries += write(&recorder, view.clone(), stamped.collect()).await?;
        report.calls_ended += 1;
    }
    for row in &left.recordings {
        let event = finish_recording(recordings_dir, row).await;
        if matches!(event, CallEvent::RecordingCompleted { .. }) {
            report.recordings_completed += 1;
        } else {
            report.recordings_failed += 1;
        }
        let stamped = Stamped { call: row.call_id, at, event };
        report.deliveries += recorder.write(&[(stamped, None)]).await?.deliveries;
    }
    let (folder, shared) = (recordings_dir.to_owned(), db.is_shared());
    // Whatever becomes of it: they harm nobody.
    let _ = tokio::task::spawn_blocking(move || remove_unnamed(&folder, at, shared)).await;
    Ok(report)
}

/// Between its making and its naming a recording's file is a `.wav.part` for an instant, and nobody knows of it yet: what
/// a crash left of such is removed. Where others may be writing, only what is older than any instant.
fn remove_unnamed(folder: &Path, at: Timestamp, shared: bool) {
    let old = |file: &std::fs::DirEntry| {
        let made = file.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(at.0.saturating_sub(i64::try_from(made.as_millis()).ok()?) > UNNAMED_MS)
    };
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let unnamed = file.file_name().to_string_lossy().ends_with(".wav.part");
        if unnamed && (!shared || old(&file) == Some(true)) {
            let _ = std::fs::remove_file(file.path());
        }
    }
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

/// Makes the sizes in the file's header true and says how long it is and what its checksum is.
async fn finish_recording(recordings_dir: &Path, row: &RecordingRow) -> CallEvent {
    let path = recordings_dir.join(&row.filename);
    let repaired = tokio::task::spawn_blocking(move || {
        let whole = media::wav::repair(&path).map_err(|error| error.to_string())?;
        let sha256 = media::wav::checksum(&path).map_err(|error| error.to_string())?;
        Ok::<_, String>((whole, Checksum(sha256)))
    });
    let recording = row.recording.clone();
    match repaired.await.map_err(|error| error.to_string()).flatten() {
        Ok((media::wav::Repaired { bytes, duration_ms, .. }, sha256)) => {
            CallEvent::RecordingCompleted { recording, size: RecordingSize { bytes, duration_ms }, sha256 }
        }
        Err(error) => {
            tracing::warn!(%recording, %error, "a recording could not be repaired");
            let size = RecordingSize { bytes: 0, duration_ms: 0 };
            CallEvent::RecordingFailed { recording, reason: "unreadable".to_owned(), size }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_were_never_named_go_and_all_others_stay() {
        let folder = std::env::temp_dir().join(format!("trunkline-unnamed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let names = || {
            let mut names: Vec<String> = std::fs::read_dir(&folder)
                .unwrap()
                .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        for name in ["a.wav", "a.wav.part", "notes.part"] {
            std::fs::write(folder.join(name), b"").unwrap();
        }
        remove_unnamed(&folder, Timestamp(0), true);
        assert_eq!(names().len(), 3, "another server may be about to name it");
        remove_unnamed(&folder, Timestamp(i64::MAX), true);
        assert_eq!(names(), ["a.wav", "notes.part"]);
        std::fs::write(folder.join("b.wav.part"), b"").unwrap();
        remove_unnamed(&folder, Timestamp(0), false);
        assert_eq!(names(), ["a.wav", "notes.part"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
