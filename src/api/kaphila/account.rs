//! Kaphila's routes about the service and the key: health and `/api/me` (CONTRACT 1.1, rows 1 and 18).

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::calls;
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::clock;
use crate::control::Caller;
use crate::control::admission::DEFAULT_RATE_LIMIT;
use crate::model::Timestamp;

#[derive(Serialize, ToSchema)]
struct Health {
    /// `healthy`, or `degraded` with the problems named.
    #[schema(pattern = "^(healthy|degraded)$", examples("healthy"))]
    status: &'static str,
    /// The service's name.
    service: &'static str,
    /// The version of this surface.
    #[schema(examples("2.0.0"))]
    version: &'static str,
    /// Now, UTC.
    #[schema(format = DateTime)]
    timestamp: String,
    /// What goes on.
    stats: Stats,
    /// What the service can do.
    features: Features,
    /// What does not work; only where something does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<&'static str>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HealthStats)]
struct Stats {
    /// Live calls of all keys.
    active_calls: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HealthFeatures)]
struct Features {
    /// Where calls are recorded.
    recording: &'static str,
    /// Answering-machine detection.
    amd: &'static str,
    /// The voice in use.
    tts: &'static str,
    /// How prompts are played.
    playback: &'static str,
}

/// `GET /health`, for everybody. What does not work is said: a lost database is a 500, anything else is named.
///
/// # Errors
/// [`Fault::Broken`] without a database.
#[utoipa::path(
    get, path = "/health", tag = "Kaphila: service", operation_id = "health",
    summary = "Whether the service works",
    description = "Needs no key. What does not work is named in `problems`; without a database the answer is a 500.",
    responses(
        (status = 200, description = "It works, as far as `status` says", body = Health),
        (status = 500, description = "The database is lost", body = super::Refused),
    )
)]
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
        (!app.rooms.recordings.disk_is_low(), "the disk is almost full: calls are not recorded"),
        (!app.rooms.recordings.uploads_fail(), "recordings cannot be uploaded"),
        (app.rooms.journal.last_error().is_none(), "events cannot be written to the database"),
        (app.rooms.journal.lag() <= app.rooms.config.limits.journal_lag_max, "the journal is behind"),
    ];
    checks.into_iter().filter(|(well, _)| !well).map(|(_, problem)| problem).collect()
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Me<'a> {
    /// Always true.
    success: bool,
    /// The key that asked.
    api_key: Key<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OwnKey)]
struct Key<'a> {
    /// Its number.
    id: i64,
    /// Its public name, which is no secret.
    #[schema(examples("key_1"))]
    key_id: &'a str,
    /// What its owner calls it.
    name: &'a str,
    /// Balance; -1: unlimited.
    #[schema(minimum = -1)]
    credits: i64,
    /// Calls placed.
    total_calls: i64,
    /// Calls answered.
    successful_calls: i64,
    /// Requests in each window on the counted routes.
    rate_limit: u32,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last used before this request.
    #[schema(format = DateTime)]
    last_used: Option<String>,
}

/// `GET /api/me`: the key's own row; never the key.
#[utoipa::path(
    get, path = "/api/me", tag = "Kaphila: service", operation_id = "me",
    summary = "The key that asks",
    description = "Its balance, its counters and its limits; never the key itself.",
    responses((status = 200, description = "The key", body = Me))
)]
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
