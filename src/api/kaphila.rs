//! Kaphila, seed 003 (CONTRACT 1.1): its routes and the words of its refusals. Its JSON is in [`words`] and
//! [`events`], the reading of its bodies in [`requests`]; what is done is control's.

pub mod account;
pub mod calls;
pub mod events;
pub mod history;
pub mod recordings;
pub mod requests;
pub mod words;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::fault::Fault;
use super::gate::Gate;
use super::idempotency::Once;
use super::openapi::{Routes, route};
use super::{App, Dialect, json};
use crate::control::Refusal;
use crate::control::admission::Counted;

/// Kaphila's row.
pub const DIALECT: Dialect = Dialect {
    name: "kaphila",
    mounts: &["", "/kaphila"],
    prefixes: &["/", "/api/call-logs"],
    routes,
    envelope,
    format: Some(&events::Kaphila),
};

fn routes(app: &App) -> Routes {
    let once = Once { app: app.clone(), envelope };
    let verbs = [
        route(calls::__path_place, calls::place).once(&once),
        route(calls::__path_place_of_batch, calls::place_of_batch).once(&once),
        route(calls::__path_hang_up, calls::hang_up),
        route(calls::__path_say, calls::say),
        route(calls::__path_play, calls::play),
        route(calls::__path_gather, calls::gather),
    ];
    let live = [
        route(calls::__path_list, calls::list),
        route(calls::__path_show, calls::show),
        route(history::__path_events, history::events),
        route(history::__path_call_logs, history::call_logs),
        route(history::__path_show, history::show),
    ];
    let figures = [
        route(history::__path_dashboard, history::dashboard),
        route(history::__path_analytics, history::analytics),
    ];
    let recorded = [
        route(recordings::__path_list, recordings::list),
        route(recordings::__path_show, recordings::show),
        route(recordings::__path_download, recordings::download),
        route(recordings::__path_download_file, recordings::download_file),
        route(recordings::__path_stop, recordings::stop),
        route(recordings::__path_pause, recordings::pause),
        route(recordings::__path_resume, recordings::resume),
        route(recordings::__path_link, recordings::link),
    ];
    let surface = Some(DIALECT.name);
    let gate = |scope, counted| Gate { app: app.clone(), surface, scope, counted, body_max: None };
    Routes::new::<Refused>()
        .open([
            route(account::__path_health, account::health),
            route(recordings::__path_follow_link, recordings::follow_link),
        ])
        .guarded(&gate(Some("calls"), Counted::Kaphila), verbs)
        .guarded(&gate(Some("calls"), Counted::Not), live)
        .guarded(&gate(Some("recordings"), Counted::Not), recorded)
        .guarded(&gate(Some("analytics"), Counted::Not), figures)
        .guarded(&gate(None, Counted::Not), [route(account::__path_me, account::me)])
}

/// `{"success":false,"error":…}` and, where the document names one, a code with its members.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KaphilaError)]
pub(super) struct Refused<'a> {
    /// Always false.
    success: bool,
    /// What went wrong, in words.
    error: &'a str,
    /// A word for programs, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("ORIGINATION_FAILED"))]
    code: Option<&'static str>,
    /// With `ORIGINATION_FAILED`: the trunks in the order tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempted_trunks: Option<&'a [String]>,
    /// With `ORIGINATION_FAILED`: enabled trunks of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    total_trunks: Option<usize>,
}

pub(super) fn envelope(fault: &Fault) -> Response {
    let (status, error) = match fault {
        Fault::Bad(text) => (StatusCode::BAD_REQUEST, text.as_str()),
        Fault::Refused(refusal) => refused(refusal),
        Fault::UnknownPath => (StatusCode::NOT_FOUND, "Not found"),
        Fault::Missing(what) => (StatusCode::NOT_FOUND, *what),
        Fault::Conflict(text) => (StatusCode::CONFLICT, text.as_str()),
        Fault::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request body too large"),
        Fault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "Request body did not arrive in time"),
        Fault::NoRecording => (StatusCode::NOT_FOUND, "Recording not found"),
        Fault::NoFile => (StatusCode::NOT_FOUND, "File not found"),
        Fault::BadLink => (StatusCode::FORBIDDEN, "Link is not valid"),
        Fault::BadRange(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable"),
        Fault::SpeechFailed => (StatusCode::INTERNAL_SERVER_ERROR, "TTS failed"),
        Fault::SoundUnusable => (StatusCode::INTERNAL_SERVER_ERROR, "Sound file cannot be played"),
        Fault::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
    };
    let mut body = Refused { success: false, error, code: None, attempted_trunks: None, total_trunks: None };
    if let Fault::Refused(Refusal::OriginationFailed { attempted, total }) = fault {
        body.code = Some("ORIGINATION_FAILED");
        body.attempted_trunks = Some(attempted);
        body.total_trunks = Some(*total);
    }
    if *fault == Fault::Refused(Refusal::TrunksBusy) {
        body.code = Some("TRUNKS_BUSY");
    }
    if *fault == Fault::Refused(Refusal::NotAnswered) {
        body.code = Some("CALL_NOT_ANSWERED");
    }
    json(status, &body)
}

fn refused(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::MissingKey => (StatusCode::UNAUTHORIZED, "Missing API key"),
        Refusal::InvalidKey => (StatusCode::UNAUTHORIZED, "Invalid API key"),
        Refusal::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
        Refusal::CallerIdNotAllowed => (StatusCode::FORBIDDEN, "Forbidden"),
        Refusal::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded"),
        Refusal::NumberNotAllowed => (StatusCode::BAD_REQUEST, "number is not allowed"),
        Refusal::DestinationNotAllowed => (StatusCode::FORBIDDEN, "Destination not allowed"),
        Refusal::TooFast { .. } => (StatusCode::TOO_MANY_REQUESTS, "Call rate limit exceeded"),
        Refusal::CircuitOpen { .. } => (StatusCode::TOO_MANY_REQUESTS, "Circuit open"),
        Refusal::DayIsSpent => (StatusCode::PAYMENT_REQUIRED, "Daily credit limit reached"),
        Refusal::UnknownCall => (StatusCode::NOT_FOUND, "Call not found"),
        Refusal::NotAnswered => (StatusCode::BAD_REQUEST, "Call is not answered"),
        Refusal::GatherInProgress => (StatusCode::CONFLICT, "Gather already in progress"),
        Refusal::QueueFull => (StatusCode::TOO_MANY_REQUESTS, "Playback queue is full"),
        Refusal::Transferring => (StatusCode::CONFLICT, "Call is being transferred"),
        Refusal::Attended => (StatusCode::CONFLICT, "Another application talks on the call"),
        Refusal::NoActiveRecording => (StatusCode::NOT_FOUND, "No active recording"),
        Refusal::InvalidSound => (StatusCode::BAD_REQUEST, "Invalid file"),
        Refusal::SoundNotFound => (StatusCode::NOT_FOUND, "Sound file not found"),
        Refusal::TooManyCalls => (StatusCode::TOO_MANY_REQUESTS, "Concurrent call limit reached"),
        Refusal::NoCredits => (StatusCode::PAYMENT_REQUIRED, "Insufficient credits"),
        Refusal::NoTrunks => (StatusCode::SERVICE_UNAVAILABLE, "No trunks assigned"),
        Refusal::TrunksBusy => (StatusCode::SERVICE_UNAVAILABLE, "All trunks are busy"),
        Refusal::OriginationFailed { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "All trunk originate attempts failed")
        }
        Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
        Refusal::RequestInProgress => {
            (StatusCode::CONFLICT, "A request with this Idempotency-Key is in progress")
        }
        Refusal::IdempotencyKeyReused => {
            (StatusCode::CONFLICT, "Idempotency-Key was used with a different body")
        }
    }
}
