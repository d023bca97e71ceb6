//! Hamming Phone, seed 000 (CONTRACT 1.4): its routes and the words of its refusals. Its callbacks are in [`events`];
//! what is done, the pace of calls and their redials too, is control's and the engine's.

pub mod calls;
pub mod events;
pub mod fetched;
pub mod inbox;

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

/// Hamming Phone's row.
pub const DIALECT: Dialect = Dialect {
    name: "hamming",
    mounts: &["", "/hamming"],
    prefixes: &["/start-call", "/media", "/webhook"],
    routes,
    envelope,
    format: Some(&events::Hamming),
};

fn routes(app: &App) -> Routes {
    let once = Once { app: app.clone(), envelope };
    let gate = |scope| Gate {
        app: app.clone(),
        surface: Some(DIALECT.name),
        scope: Some(scope),
        counted: Counted::Not,
        body_max: None,
    };
    Routes::new::<Refused>()
        .guarded(&gate("calls"), [route(calls::__path_start, calls::start).once(&once)])
        .guarded(&gate("recordings"), [route(calls::__path_recording, calls::recording)])
        .open([route(inbox::__path_take, inbox::take)])
}

/// `{"error":{"message":…,"status":…}}`.
#[derive(Serialize, ToSchema)]
#[schema(as = HammingError)]
struct Refused<'a> {
    /// What went wrong.
    error: Error<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HammingErrorBody)]
struct Error<'a> {
    /// In words.
    message: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
}

fn envelope(fault: &Fault) -> Response {
    let (status, message) = match fault {
        Fault::Bad(text) => (StatusCode::BAD_REQUEST, text.as_str()),
        Fault::Refused(refusal) => refused(refusal),
        Fault::UnknownPath => (StatusCode::NOT_FOUND, "Not found"),
        Fault::Missing(what) => (StatusCode::NOT_FOUND, *what),
        Fault::Conflict(text) => (StatusCode::CONFLICT, text.as_str()),
        Fault::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request body too large"),
        Fault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "Request body did not arrive in time"),
        Fault::NoRecording | Fault::NoFile => (StatusCode::NOT_FOUND, "Recording not found"),
        Fault::BadLink => (StatusCode::FORBIDDEN, "Link is not valid"),
        Fault::BadRange(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable"),
        Fault::SpeechFailed | Fault::SoundUnusable | Fault::Broken => {
            (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
        }
    };
    json(status, &Refused { error: Error { message, status: status.as_u16() } })
}

fn refused(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::MissingKey | Refusal::InvalidKey => (StatusCode::UNAUTHORIZED, "Authentication failed"),
        Refusal::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
        Refusal::CallerIdNotAllowed => (StatusCode::FORBIDDEN, "Caller id not allowed"),
        Refusal::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded"),
        Refusal::NumberNotAllowed => (StatusCode::BAD_REQUEST, "phone_number is not allowed"),
        Refusal::DestinationNotAllowed => (StatusCode::FORBIDDEN, "Destination not allowed"),
        Refusal::TooFast { .. } => (StatusCode::TOO_MANY_REQUESTS, "Calls must be at least 500 ms apart"),
        Refusal::CircuitOpen { .. } => (StatusCode::TOO_MANY_REQUESTS, "Circuit open"),
        Refusal::TooManyCalls => (StatusCode::TOO_MANY_REQUESTS, "Concurrent call limit reached"),
        Refusal::NoCredits => (StatusCode::PAYMENT_REQUIRED, "Insufficient credits"),
        Refusal::DayIsSpent => (StatusCode::PAYMENT_REQUIRED, "Daily credit limit reached"),
        Refusal::UnknownCall => (StatusCode::NOT_FOUND, "Call not found"),
        Refusal::NotAnswered => (StatusCode::CONFLICT, "Call is not answered"),
        Refusal::GatherInProgress => (StatusCode::CONFLICT, "Gather already in progress"),
        Refusal::Transferring => (StatusCode::CONFLICT, "Call is being transferred"),
        Refusal::Attended => (StatusCode::CONFLICT, "Another application talks on the call"),
        Refusal::QueueFull => (StatusCode::TOO_MANY_REQUESTS, "Playback queue is full"),
        Refusal::NoActiveRecording => (StatusCode::NOT_FOUND, "No active recording"),
        Refusal::InvalidSound => (StatusCode::BAD_REQUEST, "Invalid file"),
        Refusal::SoundNotFound => (StatusCode::NOT_FOUND, "Sound file not found"),
        Refusal::NoTrunks | Refusal::OriginationFailed { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "No outbound route")
        }
        Refusal::TrunksBusy => (StatusCode::SERVICE_UNAVAILABLE, "All trunks are busy"),
        Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
        Refusal::RequestInProgress => {
            (StatusCode::CONFLICT, "A request with this Idempotency-Key is in progress")
        }
        Refusal::IdempotencyKeyReused => {
            (StatusCode::CONFLICT, "Idempotency-Key was used with a different body")
        }
    }
}
