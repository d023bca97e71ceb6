//! Kaphila's routes about the service and the key: health and `/api/me` (CONTRACT 1.1, rows 1 and 18).

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::calls;
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::clock;
use crate::control::Caller;
use crate::control::admission::DEFAULT_RATE_LIMIT;
use crate::model::Timestamp;

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
