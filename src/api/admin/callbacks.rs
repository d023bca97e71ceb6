//! `GET /admin/v1/callbacks`: what others' systems have told `POST /webhook/callback` (CONTRACT 1.4), newest first.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Part, Query, Route, part, route, stored};
use crate::api::download::{self, Finished};
use crate::api::fault::Fault;
use crate::api::hamming::fetched;
use crate::api::{App, json};
use crate::store::callbacks::{CallbackRow, Fetched};

/// The fault of a path that names no recording.
const MISSING: &str = "Recording not found";

/// The routes of the inbox.
pub fn routes() -> Vec<Route> {
    vec![route(__path_list, list), route(__path_recording, recording)]
}

/// One row of the inbox.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminCallback)]
struct Shown {
    /// Its number, in the order of coming.
    id: i64,
    /// The call, in its sender's words.
    call: String,
    /// One of the seven statuses.
    status: String,
    /// Its recording can be had.
    recording_available: bool,
    /// Who told: a key's id, `signature` or `loopback`.
    sender: String,
    /// When.
    #[schema(format = DateTime)]
    received_at: String,
    /// The recording that it tells of: `fetching`, `stored`, `failed` or `removed`; null where none is to be fetched.
    recording: Option<&'static str>,
    /// Bytes of the recording that is here.
    recording_size: Option<i64>,
}

impl From<CallbackRow> for Shown {
    fn from(CallbackRow { id, callback, fetched }: CallbackRow) -> Self {
        Self {
            id,
            call: callback.call,
            status: callback.status,
            recording_available: callback.recording_available,
            sender: callback.sender,
            received_at: callback.received_at.iso_ms(),
            recording: fetched.map(Fetched::as_str),
            recording_size: fetched.and_then(Fetched::size),
        }
    }
}

/// A page of the inbox.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminCallbacks)]
struct List {
    /// The page.
    callbacks: Vec<Shown>,
    /// Rows in all.
    total: i64,
}

/// `GET /callbacks?call=&limit=&offset=`.
#[utoipa::path(
    get, path = "/callbacks", tag = "Admin: callbacks", operation_id = "adminCallbacks",
    summary = "What others' systems have told, newest first",
    description = "The newest 10000 that came to `POST /webhook/callback`. They change no call.",
    params(
        ("call" = Option<String>, Query, description = "Only of the call of this id"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Rows skipped"),
    ),
    responses(
        (status = 200, description = "The page", body = List),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let (rows, total) = app.rooms.db.callbacks(query.text("call"), limit, offset).await.map_err(stored)?;
    let callbacks = rows.into_iter().map(Shown::from).collect();
    Ok(json(StatusCode::OK, &List { callbacks, total }))
}

/// `GET /callbacks/:callback/recording`.
#[utoipa::path(
    get, path = "/callbacks/{callback}/recording", tag = "Admin: callbacks", operation_id = "adminCallbackRecording",
    summary = "The recording that was fetched for a callback",
    params(
        ("callback" = i64, Path, description = "The callback's number"),
        ("Range" = Option<String>, Header, description = "One range of bytes: `bytes=0-99`"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 206, description = "The range", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 404, description = "`Recording not found`: there was none, or it could not be had, or it is too old"),
        (status = 416, description = "The range lies outside of the file"),
    )
)]
async fn recording(State(app): State<App>, callback: Part, headers: HeaderMap) -> Answer {
    let id: i64 = part(callback, MISSING)?.parse().map_err(|_| Fault::Missing(MISSING))?;
    let row = app.rooms.db.callback(id).await.map_err(stored)?;
    if !row.is_some_and(|row| matches!(row.fetched, Some(Fetched::Stored(_)))) {
        return Err(Fault::Missing(MISSING));
    }
    let filename = fetched::file_name(id);
    let sent = Finished { filename: &filename, sha256: None };
    let found = download::whole(&fetched::folder(&app), sent, &headers).await?;
    found.ok_or(Fault::Missing(MISSING))
}
