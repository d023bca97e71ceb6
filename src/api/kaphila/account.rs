//! Kaphila's routes about the service and the key: health, `/api/me`, the call log (CONTRACT 1.1, rows 1, 16, 18).

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::{calls, requests};
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::clock;
use crate::control::Caller;
use crate::control::admission::DEFAULT_RATE_LIMIT;
use crate::model::Timestamp;
use crate::store::calls::LogRow;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    service: &'static str,
    version: &'static str,
    timestamp: String,
    stats: Stats,
    features: Features,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    active_calls: usize,
}

#[derive(Serialize)]
struct Features {
    recording: &'static str,
    amd: &'static str,
    tts: &'static str,
    playback: &'static str,
}

/// `GET /health`, for everybody. What does not work is said: a lost database is a 500, anything else is named.
///
/// # Errors
/// [`Fault::Broken`] without a database.
pub async fn health(State(app): State<App>) -> Result<Response, Fault> {
    app.rooms.db.ping().await.map_err(|error| fault::broken("the database", &error))?;
    let problems = problems(&app).await;
    let body = Health {
        status: if problems.is_empty() { "healthy" } else { "degraded" },
        service: "Kaphila API Telephony API",
        version: "2.0.0",
        timestamp: clock::now().wall.iso_ms(),
        stats: Stats { active_calls: app.rooms.live.count() },
        features: Features {
            recording: "bridge-only",
            amd: "enhanced",
            tts: app.rooms.speech.name(),
            playback: "bridge-safe",
        },
        problems,
    };
    Ok(json(StatusCode::OK, &body))
}

async fn problems(app: &App) -> Vec<&'static str> {
    let recordings = tokio::fs::metadata(&app.rooms.config.paths.recordings).await;
    let writable = recordings.is_ok_and(|folder| folder.is_dir() && !folder.permissions().readonly());
    let checks = [
        (app.rooms.engine.is_alive(), "the SIP engine is not running"),
        (writable, "recordings cannot be written"),
        (app.rooms.journal.last_error().is_none(), "events cannot be written to the database"),
        (app.rooms.journal.lag() <= app.rooms.config.limits.journal_lag_max, "the journal is behind"),
    ];
    checks.into_iter().filter(|(well, _)| !well).map(|(_, problem)| problem).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Me<'a> {
    success: bool,
    api_key: Key<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Key<'a> {
    id: i64,
    key_id: &'a str,
    name: &'a str,
    credits: i64,
    total_calls: i64,
    successful_calls: i64,
    rate_limit: u32,
    created_at: String,
    last_used: Option<String>,
}

/// `GET /api/me`: the key's own row; never the key.
pub async fn me(Extension(caller): Extension<Caller>) -> Response {
    let key = &caller.key;
    let api_key = Key {
        id: key.id,
        key_id: &key.key_id,
        name: &key.name,
        credits: calls::credits(&caller),
        total_calls: key.total_calls,
        successful_calls: key.successful_calls,
        rate_limit: key.rate_limit.unwrap_or(DEFAULT_RATE_LIMIT),
        created_at: key.created_at.iso_ms(),
        last_used: key.last_used.map(Timestamp::iso_ms),
    };
    json(StatusCode::OK, &Me { success: true, api_key })
}

#[derive(Serialize)]
struct Logs {
    success: bool,
    logs: Vec<Log>,
    total_count: i64,
    pagination: Pagination,
}

#[derive(Serialize)]
struct Log {
    call_id: String,
    number: String,
    status: String,
    amd_status: Option<String>,
    duration: i64,
    created_at: String,
}

#[derive(Serialize)]
struct Pagination {
    page: u32,
    page_size: u32,
    total_pages: i64,
}

/// `POST /api/call-logs`: the key's calls, newest first.
///
/// # Errors
/// A bad body; a database that failed.
pub async fn call_logs(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Fault> {
    let asked = requests::call_logs(&body)?;
    let (page, size) = (i64::from(asked.page), i64::from(asked.page_size));
    let found = app.rooms.db.call_logs(caller.key.id, asked.status.as_deref(), size, (page - 1) * size).await;
    let (rows, total_count) = found.map_err(|error| fault::broken("call logs", &error))?;
    let pagination = Pagination {
        page: asked.page,
        page_size: asked.page_size,
        total_pages: (total_count + size - 1) / size,
    };
    let logs = rows.into_iter().map(|row| log(&app, row)).collect();
    Ok(json(StatusCode::OK, &Logs { success: true, logs, total_count, pagination }))
}

/// One row; a call that is up has lasted until now.
fn log(app: &App, row: LogRow) -> Log {
    let live = app.rooms.live.by_kaphila(&row.kaphila_id);
    let so_far = live.map(|view| view.duration_s(clock::now().wall));
    Log {
        call_id: row.kaphila_id,
        number: row.submitted_number,
        status: row.status,
        amd_status: row.amd_status,
        duration: so_far.unwrap_or(row.duration_s),
        created_at: row.created_at.iso_ms(),
    }
}
