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
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use serde::Serialize;

use super::fault::Fault;
use super::gate::{self, Gate};
use super::idempotency::{self, Once};
use super::{App, Dialect, json};
use crate::control::Refusal;

/// Kaphila's row.
pub const DIALECT: Dialect =
    Dialect { name: "kaphila", prefixes: &["/"], routes, envelope, format: &events::Kaphila };

fn routes(app: &App) -> Router<App> {
    let once = Once { app: app.clone(), envelope };
    let place =
        || post(calls::place).route_layer(middleware::from_fn_with_state(once.clone(), idempotency::pass));
    let verbs = [
        ("/makecall", place()),
        ("/batchcall", place()),
        ("/hangup", post(calls::hang_up)),
        ("/voice", post(calls::say)),
        ("/play", post(calls::play)),
        ("/gather", post(calls::gather)),
    ];
    let live = [
        ("/calls", get(calls::list)),
        ("/calls/{call}", get(calls::show)),
        ("/calls/{call}/events", get(history::events)),
        ("/api/dashboard", post(history::dashboard)),
        ("/api/analytics", post(history::analytics)),
        ("/api/call-logs", post(history::call_logs)),
        ("/api/call-logs/{call}", get(history::show)),
    ];
    let recorded = [
        ("/recordings", get(recordings::list)),
        ("/recordings/{call}", get(recordings::show)),
        ("/recordings/{call}/download", get(recordings::download)),
        ("/recordings/file/{filename}/download", get(recordings::download_file)),
        ("/recordings/{call}/stop", post(recordings::stop)),
    ];
    let gate = |scope, counted| Gate { app: app.clone(), scope, counted };
    let router = Router::new().route("/health", get(account::health));
    let router = guarded(router, verbs, &gate(Some("calls"), true));
    let router = guarded(router, live, &gate(Some("calls"), false));
    let router = guarded(router, recorded, &gate(Some("recordings"), false));
    guarded(router, [("/api/me", get(account::me))], &gate(None, false))
}

/// Adds routes behind a gate. It stands before the handlers alone, so that a wrong method is a 405 for everybody.
fn guarded<const N: usize>(
    router: Router<App>,
    routes: [(&'static str, MethodRouter<App>); N],
    gate: &Gate,
) -> Router<App> {
    routes.into_iter().fold(router, |router, (path, methods)| {
        router.route(path, methods.route_layer(middleware::from_fn_with_state(gate.clone(), gate::pass)))
    })
}

/// `{"success":false,"error":…}` and, where the document names one, a code with its members.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused<'a> {
    success: bool,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempted_trunks: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_trunks: Option<usize>,
}

fn envelope(fault: &Fault) -> Response {
    let (status, error) = match fault {
        Fault::Bad(text) => (StatusCode::BAD_REQUEST, text.as_str()),
        Fault::Refused(refusal) => refused(refusal),
        Fault::UnknownPath => (StatusCode::NOT_FOUND, "Not found"),
        Fault::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request body too large"),
        Fault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "Request body did not arrive in time"),
        Fault::NoRecording => (StatusCode::NOT_FOUND, "Recording not found"),
        Fault::NoFile => (StatusCode::NOT_FOUND, "File not found"),
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
        Refusal::UnknownCall => (StatusCode::NOT_FOUND, "Call not found"),
        Refusal::NotAnswered => (StatusCode::BAD_REQUEST, "Call is not answered"),
        Refusal::GatherInProgress => (StatusCode::CONFLICT, "Gather already in progress"),
        Refusal::QueueFull => (StatusCode::TOO_MANY_REQUESTS, "Playback queue is full"),
        Refusal::NoActiveRecording => (StatusCode::NOT_FOUND, "No active recording"),
        Refusal::InvalidSound => (StatusCode::BAD_REQUEST, "Invalid file"),
        Refusal::SoundNotFound => (StatusCode::NOT_FOUND, "Sound file not found"),
        Refusal::TooManyCalls => (StatusCode::TOO_MANY_REQUESTS, "Concurrent call limit reached"),
        Refusal::NoCredits => (StatusCode::PAYMENT_REQUIRED, "Insufficient credits"),
        Refusal::NoTrunks => (StatusCode::SERVICE_UNAVAILABLE, "No trunks assigned"),
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
