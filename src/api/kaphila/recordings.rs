//! Kaphila's recordings (CONTRACT 1.1, rows 10 to 14, and pause, resume and link, which are ours). A row of the database decides whose a file is; the folder is
//! never listed, and a name in a request is only ever compared with a row.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::requests::{self, MakeLink};
use super::words::filename;
use crate::api::download;
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::clock;
use crate::control::{Caller, Refusal};
use crate::model::Timestamp;
use crate::model::call::{CallView, RecordingView};
use crate::model::event::Checksum;
use crate::recordings::links::Signed;
use crate::store::recordings::{RecordingRow, RecordingState};

/// What a handler answers.
type Answer = Result<Response, Fault>;

/// A path segment, percent-decoded once.
type Segment = Result<Path<String>, PathRejection>;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ActiveRecording)]
struct Active {
    /// The call.
    call_id: String,
    /// The file that is being written.
    #[schema(examples("call-1739781234.42-1739781239000.wav"))]
    filename: String,
    /// The file's name without `.wav`.
    recording_id: String,
    /// Always true.
    active: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordingFile)]
struct StoredFile {
    /// Its name.
    filename: String,
    /// Bytes.
    size: u64,
    /// When it was begun.
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Recordings)]
struct List {
    /// Always true.
    success: bool,
    /// What is being recorded.
    active: Vec<Active>,
    /// The key's files, newest first.
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
#[utoipa::path(
    get, path = "/recordings", tag = "Kaphila: recordings", operation_id = "listRecordings",
    summary = "The key's recordings",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Files listed; 1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Files skipped"),
    ),
    responses(
        (status = 200, description = "What is being recorded, and the files", body = List),
        (status = 400, description = "A parameter is wrong", body = super::Refused),
    )
)]
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
    let opened = download::open(app.rooms.recordings.folder(), &row.filename).await;
    opened.ok().flatten().map(|(_, bytes)| bytes)
}

#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordingShown)]
struct Shown {
    /// Always true.
    success: bool,
    /// The call.
    call_id: String,
    /// The file's name without `.wav`.
    recording_id: String,
    /// The file's name.
    filename: String,
    /// Still being written.
    active: bool,
    /// Takes silence for now; left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    paused: bool,
    /// 1, or 2 with the callee on the left; told once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, maximum = 2)]
    channels: Option<u16>,
    /// Bytes of the file; told once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    size: Option<u64>,
    /// Whole seconds; told once it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    duration: Option<u64>,
    /// SHA-256 of the whole file in hex; told once it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[0-9a-f]{64}$")]
    sha256: Option<String>,
    /// Why it failed, in a word; told of one that has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("disk_full"))]
    reason: Option<String>,
}

/// One of the key's recordings.
enum Found {
    /// Being written, as the live call knows before the database does.
    Running { call: String, recording: String, paused: bool },
    /// As its row has it.
    Stored(RecordingRow),
}

/// The latest recording of the key's call of that id.
async fn find(app: &App, caller: &Caller, call: Segment) -> Result<Found, Fault> {
    let Path(call) = call.map_err(|_| Fault::NoRecording)?;
    if let Ok(view) = app.calls.live(caller, &call)
        && let Some(RecordingView { recording, paused, .. }) = running(&view)
    {
        return Ok(Found::Running { call, recording: recording.clone(), paused: *paused });
    }
    let row = app.rooms.db.recording_of_call(caller.key.id, &call).await;
    let row = row.map_err(|error| fault::broken("looking up a recording", &error))?;
    row.map(Found::Stored).ok_or(Fault::NoRecording)
}

/// `GET /recordings/:callId`, for live calls and for those that are over.
///
/// # Errors
/// [`Fault::NoRecording`].
#[utoipa::path(
    get, path = "/recordings/{callId}", tag = "Kaphila: recordings", operation_id = "showRecording",
    summary = "A call's latest recording",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "The recording", body = Shown),
        (status = 404, description = "`Recording not found`", body = super::Refused),
    )
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let shown = match find(&app, &caller, call).await? {
        Found::Running { call, recording, paused } => Shown {
            success: true,
            call_id: call,
            filename: filename(&recording),
            recording_id: recording,
            active: true,
            paused,
            ..Shown::default()
        },
        Found::Stored(row) => {
            let over = matches!(row.state, RecordingState::Done | RecordingState::Failed);
            Shown {
                success: true,
                call_id: row.call,
                recording_id: row.recording,
                filename: row.filename,
                channels: over.then_some(row.channels.count()),
                size: over.then_some(row.bytes),
                duration: over.then_some(row.duration_ms / 1000),
                sha256: row.sha256.map(Checksum::hex),
                reason: row.reason,
                ..Shown::default()
            }
        }
    };
    Ok(json(StatusCode::OK, &shown))
}

/// `GET /recordings/:callId/download`: the file, or what there is of it while it grows.
///
/// # Errors
/// [`Fault::NoRecording`]; a range outside of the file.
#[utoipa::path(
    get, path = "/recordings/{callId}/download", tag = "Kaphila: recordings", operation_id = "downloadRecording",
    summary = "The file of a call's latest recording",
    description = "While the call is up: what there is so far. A finished file can be had in ranges.",
    params(
        ("callId" = String, Path, description = "The call's id"),
        ("Range" = Option<String>, Header, description = "One range of bytes: `bytes=0-99`"),
        ("If-Range" = Option<String>, Header, description = "The range only of the file with this `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "Nothing of the file with this `ETag`"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 206, description = "The range", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 304, description = "The file is the one named"),
        (status = 404, description = "`Recording not found`", body = super::Refused),
        (status = 416, description = "The range lies outside of the file", body = super::Refused),
    )
)]
pub async fn download(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    call: Segment,
    headers: HeaderMap,
) -> Answer {
    let sent = match find(&app, &caller, call).await? {
        Found::Running { recording, .. } => {
            download::snapshot(app.rooms.recordings.folder(), &filename(&recording)).await?
        }
        Found::Stored(row) => download::recorded(&app, &row, &headers).await?,
    };
    sent.ok_or(Fault::NoRecording)
}

/// `GET /recordings/file/:filename/download`: any of the key's files by name.
///
/// # Errors
/// `Invalid filename` for what cannot be one; [`Fault::NoFile`]; a range outside of the file.
#[utoipa::path(
    get, path = "/recordings/file/{filename}/download", tag = "Kaphila: recordings",
    operation_id = "downloadRecordingFile",
    summary = "A recording's file by its name",
    params(
        ("filename" = String, Path, description = "The file's name, with `.wav`"),
        ("Range" = Option<String>, Header, description = "One range of bytes: `bytes=0-99`"),
        ("If-Range" = Option<String>, Header, description = "The range only of the file with this `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "Nothing of the file with this `ETag`"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 206, description = "The range", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 400, description = "`Invalid filename`", body = super::Refused),
        (status = 304, description = "The file is the one named"),
        (status = 404, description = "`File not found`", body = super::Refused),
        (status = 416, description = "The range lies outside of the file", body = super::Refused),
    )
)]
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
    download::recorded(&app, &row, &headers).await?.ok_or(Fault::NoFile)
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordingLink)]
struct Link {
    /// Always true.
    success: bool,
    /// Gives the file to whoever asks for it, without a key.
    url: String,
    /// When it ends.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// `POST /recordings/:callId/link`: an address that gives the recording to whoever has it, for a while.
///
/// # Errors
/// [`Fault::NoRecording`]; a bad `expiresIn`.
#[utoipa::path(
    post, path = "/recordings/{callId}/link", tag = "Kaphila: recordings", operation_id = "linkRecording",
    summary = "Make a link to a call's latest recording",
    description = "The link needs no key and ends by itself, or with the key that made the call.",
    params(("callId" = String, Path, description = "The call's id")),
    request_body = Option<MakeLink>,
    responses(
        (status = 200, description = "The link", body = Link),
        (status = 400, description = "`expiresIn` is wrong", body = super::Refused),
        (status = 404, description = "`Recording not found`", body = super::Refused),
    )
)]
pub async fn link(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    call: Segment,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let MakeLink { expires_in } = requests::link(&body)?;
    let recording = match find(&app, &caller, call).await? {
        Found::Running { recording, .. } => recording,
        Found::Stored(row) => row.recording,
    };
    let Signed { expires, signature } =
        app.rooms.recordings.links().sign(&recording, clock::now().wall, expires_in);
    let base = download::link_base(&app, &headers);
    let url = format!("{base}/recordings/link/{recording}?expires={expires}&signature={signature}");
    let expires_at = Timestamp(expires * 1000).iso_ms();
    Ok(json(StatusCode::OK, &Link { success: true, url, expires_at }))
}

/// The query of a link. Whatever is missing makes one that is not good.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct LinkQuery {
    expires: String,
    signature: String,
}

/// `GET /recordings/link/:recordingId`: what a link of [`link`] leads to; asks for no key.
///
/// # Errors
/// [`Fault::BadLink`]; [`Fault::NoRecording`] where recording or key are gone.
#[utoipa::path(
    get, path = "/recordings/link/{recordingId}", tag = "Kaphila: recordings", operation_id = "followRecordingLink",
    summary = "The file that a link leads to",
    description = "Needs no key: the address proves itself.",
    params(
        ("recordingId" = String, Path, description = "The recording's id"),
        ("expires" = Option<String>, Query, description = "Of the link"),
        ("signature" = Option<String>, Query, description = "Of the link"),
        ("Range" = Option<String>, Header, description = "One range of bytes: `bytes=0-99`"),
        ("If-Range" = Option<String>, Header, description = "The range only of the file with this `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "Nothing of the file with this `ETag`"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 206, description = "The range", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 304, description = "The file is the one named"),
        (status = 403, description = "`Link is not valid`: changed, or over", body = super::Refused),
        (status = 404, description = "`Recording not found`: it is gone, or its key is", body = super::Refused),
        (status = 416, description = "The range lies outside of the file", body = super::Refused),
        (status = 500, description = "Something broke; the log says what", body = super::Refused),
    )
)]
pub async fn follow_link(
    State(app): State<App>,
    recording: Segment,
    query: Result<Query<LinkQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let Path(recording) = recording.map_err(|_| Fault::BadLink)?;
    let Query(LinkQuery { expires, signature }) = query.map_err(|_| Fault::BadLink)?;
    let link = Signed { expires: expires.parse().map_err(|_| Fault::BadLink)?, signature };
    let now = clock::now().wall;
    if !app.rooms.recordings.links().is_good(&recording, &link, now) {
        return Err(Fault::BadLink);
    }
    let row = app.rooms.db.recording_of_valid_key(&recording, now).await;
    let row = row.map_err(|error| fault::broken("looking up a recording", &error))?;
    download::recorded(&app, &row.ok_or(Fault::NoRecording)?, &headers).await?.ok_or(Fault::NoRecording)
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordingStopped)]
struct Stopped {
    /// Always true.
    success: bool,
    /// What was done, in words.
    message: &'static str,
    /// The file's name.
    filename: String,
    /// The file's name without `.wav`.
    recording_id: String,
}

fn stopped(message: &'static str, recording: String) -> Response {
    let filename = filename(&recording);
    json(StatusCode::OK, &Stopped { success: true, message, filename, recording_id: recording })
}

/// `POST /recordings/:callId/stop`: the file is closed; the call goes on.
///
/// # Errors
/// [`Refusal::NoActiveRecording`].
#[utoipa::path(
    post, path = "/recordings/{callId}/stop", tag = "Kaphila: recordings", operation_id = "stopRecording",
    summary = "Stop recording a call",
    description = "The file is closed and the call goes on.",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "It is closed", body = Stopped),
        (status = 404, description = "`No active recording`", body = super::Refused),
    )
)]
pub async fn stop(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let Path(call) = call.map_err(|_| Refusal::NoActiveRecording)?;
    let recording = app.calls.stop_recording(&caller, &call).await?;
    Ok(stopped("Recording stopped successfully", recording))
}

/// `POST /recordings/:callId/pause`: silence goes into the file until it is resumed. Pausing twice is pausing once.
///
/// # Errors
/// [`Refusal::NoActiveRecording`].
#[utoipa::path(
    post, path = "/recordings/{callId}/pause", tag = "Kaphila: recordings", operation_id = "pauseRecording",
    summary = "Pause the recording of a call",
    description = "Silence goes into the file until it is resumed, so that its time line is that of the call. Pausing twice is pausing once.",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "It is so", body = Stopped),
        (status = 404, description = "`No active recording`", body = super::Refused),
    )
)]
pub async fn pause(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let Path(call) = call.map_err(|_| Refusal::NoActiveRecording)?;
    let recording = app.calls.pause_recording(&caller, &call, true).await?;
    Ok(stopped("Recording paused successfully", recording))
}

/// `POST /recordings/:callId/resume`: sound goes into the file again.
///
/// # Errors
/// [`Refusal::NoActiveRecording`].
#[utoipa::path(
    post, path = "/recordings/{callId}/resume", tag = "Kaphila: recordings", operation_id = "resumeRecording",
    summary = "Resume the recording of a call",
    description = "Sound goes into the file again.",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "It is so", body = Stopped),
        (status = 404, description = "`No active recording`", body = super::Refused),
    )
)]
pub async fn resume(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let Path(call) = call.map_err(|_| Refusal::NoActiveRecording)?;
    let recording = app.calls.pause_recording(&caller, &call, false).await?;
    Ok(stopped("Recording resumed successfully", recording))
}
