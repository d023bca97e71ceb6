//! Kaphila's recordings (CONTRACT 1.1, rows 10 to 14). A row of the database decides whose a file is; the folder is
//! never listed, and a name in a request is only ever compared with a row.

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::requests;
use super::words::filename;
use crate::api::download;
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::control::{Caller, Refusal};
use crate::model::call::{CallView, RecordingView};
use crate::store::recordings::{RecordingRow, RecordingState};

/// What a handler answers.
type Answer = Result<Response, Fault>;

/// A path segment, percent-decoded once.
type Segment = Result<Path<String>, PathRejection>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Active {
    call_id: String,
    filename: String,
    recording_id: String,
    active: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredFile {
    filename: String,
    size: u64,
    created_at: String,
}

#[derive(Serialize)]
struct List {
    success: bool,
    active: Vec<Active>,
    files: Vec<StoredFile>,
}

/// The recording that runs on a live call.
fn running(view: &CallView) -> Option<&RecordingView> {
    view.recording.as_ref().filter(|recording| recording.active)
}

/// `GET /recordings`: what is being recorded, and the key's files, newest first.
///
/// # Errors
/// A bad `limit` or `offset`; a database that failed.
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = requests::recordings_window(query.as_deref())?;
    let live = app.rooms.live.of_key(caller.key.id);
    let active = live.iter().filter_map(|view| {
        running(view).map(|recording| Active {
            call_id: view.order.kaphila_id.clone(),
            filename: filename(&recording.recording),
            recording_id: recording.recording.clone(),
            active: true,
        })
    });
    let active = active.collect();
    let rows = app.rooms.db.recordings(caller.key.id, i64::from(limit), i64::from(offset)).await;
    let rows = rows.map_err(|error| fault::broken("the recordings' list", &error))?;
    let mut files = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(size) = size_on_disk(&app, &row).await {
            files.push(StoredFile { filename: row.filename, size, created_at: row.created_at.iso_ms() });
        }
    }
    Ok(json(StatusCode::OK, &List { success: true, active, files }))
}

/// A finished file's size is in its row; a growing or broken one is measured. `None` where there is no file.
async fn size_on_disk(app: &App, row: &RecordingRow) -> Option<u64> {
    if row.state == RecordingState::Done {
        return Some(row.bytes);
    }
    let opened = download::open(&app.rooms.config.paths.recordings, &row.filename).await;
    opened.ok().flatten().map(|(_, bytes)| bytes)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    success: bool,
    call_id: String,
    recording_id: String,
    filename: String,
    active: bool,
}

/// One of the key's recordings: which, and whether its file is whole.
struct Found {
    call: String,
    recording: String,
    filename: String,
    active: bool,
    whole: bool,
}

/// The latest recording of the key's call of that id. A live call's view knows it before the database does.
async fn find(app: &App, caller: &Caller, call: Segment) -> Result<Found, Fault> {
    let Path(call) = call.map_err(|_| Fault::NoRecording)?;
    if let Ok(view) = app.calls.live(caller, &call)
        && let Some(recording) = running(&view)
    {
        let (recording, filename) = (recording.recording.clone(), filename(&recording.recording));
        return Ok(Found { call, recording, filename, active: true, whole: false });
    }
    let row = app.rooms.db.recording_of_call(caller.key.id, &call).await;
    let row = row.map_err(|error| fault::broken("looking up a recording", &error))?;
    let row = row.ok_or(Fault::NoRecording)?;
    let whole = row.state == RecordingState::Done;
    Ok(Found { call: row.call, recording: row.recording, filename: row.filename, active: false, whole })
}

/// `GET /recordings/:callId`, for live calls and for those that are over.
///
/// # Errors
/// [`Fault::NoRecording`].
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let Found { call, recording, filename, active, .. } = find(&app, &caller, call).await?;
    let body = Shown { success: true, call_id: call, recording_id: recording, filename, active };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /recordings/:callId/download`: the file, or what there is of it while it grows.
///
/// # Errors
/// [`Fault::NoRecording`]; a range outside of the file.
pub async fn download(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    call: Segment,
    headers: HeaderMap,
) -> Answer {
    let found = find(&app, &caller, call).await?;
    let folder = &app.rooms.config.paths.recordings;
    let sent = if found.whole {
        download::whole(folder, &found.filename, &headers).await
    } else {
        download::snapshot(folder, &found.filename).await
    };
    sent?.ok_or(Fault::NoRecording)
}

/// `GET /recordings/file/:filename/download`: any of the key's files by name.
///
/// # Errors
/// `Invalid filename` for what cannot be one; [`Fault::NoFile`]; a range outside of the file.
pub async fn download_file(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
    headers: HeaderMap,
) -> Answer {
    let Path(name) = name.map_err(|_| Fault::Bad("Invalid filename".into()))?;
    let name = requests::filename(&name)?;
    let row = app.rooms.db.recording_by_filename(caller.key.id, name).await;
    let row = row.map_err(|error| fault::broken("looking up a recording", &error))?;
    let row = row.ok_or(Fault::NoFile)?;
    let folder = &app.rooms.config.paths.recordings;
    let sent = if row.state == RecordingState::Done {
        download::whole(folder, &row.filename, &headers).await
    } else {
        download::snapshot(folder, &row.filename).await
    };
    sent?.ok_or(Fault::NoFile)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stopped {
    success: bool,
    message: &'static str,
    filename: String,
    recording_id: String,
}

/// `POST /recordings/:callId/stop`: the file is closed; the call goes on.
///
/// # Errors
/// [`Refusal::NoActiveRecording`].
pub async fn stop(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let Path(call) = call.map_err(|_| Refusal::NoActiveRecording)?;
    let recording = app.calls.stop_recording(&caller, &call).await?;
    let body = Stopped {
        success: true,
        message: "Recording stopped successfully",
        filename: filename(&recording),
        recording_id: recording,
    };
    Ok(json(StatusCode::OK, &body))
}
