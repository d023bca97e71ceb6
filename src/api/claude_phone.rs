//! Claude Phone, seed 004 (CONTRACT 1.5): its routes and the words of its refusals. Who may come without a key is
//! decided by the [`super::door`]; its JSON is in [`calls`] and [`events`]; what is done is control's.

pub mod calls;
pub mod events;
pub mod requests;
pub mod words;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::door::Door;
use super::fault::Fault;
use super::gate::Gate;
use super::idempotency::Once;
use super::openapi::{Routes, route};
use super::{App, Dialect, json};
use crate::control::Refusal;
use crate::control::admission::Counted;

/// Claude Phone's row.
pub const DIALECT: Dialect = Dialect {
    name: "claude_phone",
    mounts: &["", "/claude-phone"],
    prefixes: &["/api/call", "/api/outbound-call"],
    routes,
    envelope,
    format: Some(&events::ClaudePhone),
};

/// The surface's word among a key's settings.
const SURFACE: &str = "claude-phone";

fn routes(app: &App) -> Routes {
    let routes = Routes::new::<Refused>();
    if !app.rooms.config.claude_phone.enabled {
        return routes;
    }
    let once = Once { app: app.clone(), envelope };
    let gate = Gate {
        app: app.clone(),
        surface: Some(SURFACE),
        scope: Some("calls"),
        counted: Counted::Not,
        body_max: None,
    };
    let settings = &app.rooms.config.claude_phone;
    let door = Door::new(app, &settings.allow_cidrs, &settings.allow_hosts);
    let without_body = [
        route(calls::__path_show, calls::show),
        route(calls::__path_list, calls::list),
        route(calls::__path_hang_up, calls::hang_up),
    ];
    let placing = [route(calls::__path_place, calls::place).once(&once)];
    routes.guarded_by_door(&gate, |handler| door.before(true, handler), placing).guarded_by_door(
        &gate,
        |handler| door.before(false, handler),
        without_body,
    )
}

/// `{"success":false,"error":…}`.
#[derive(Serialize, ToSchema)]
#[schema(as = ClaudePhoneError)]
struct Refused<'a> {
    /// Always false.
    success: bool,
    /// What went wrong: a sentence for what the client can mend, else one word.
    #[schema(examples("Invalid phone number format", "service_unavailable"))]
    error: &'a str,
}

fn envelope(fault: &Fault) -> Response {
    let (status, error) = match fault {
        Fault::Bad(text) => (StatusCode::BAD_REQUEST, text.as_str()),
        Fault::Refused(refusal) => refused(refusal),
        Fault::UnknownPath => (StatusCode::NOT_FOUND, "Not found"),
        Fault::Missing(what) => (StatusCode::NOT_FOUND, *what),
        Fault::Conflict(text) => (StatusCode::CONFLICT, text.as_str()),
        Fault::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request body too large"),
        Fault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "Request body did not arrive in time"),
        Fault::NoRecording | Fault::NoFile => (StatusCode::NOT_FOUND, "Recording not found"),
        Fault::BadLink => (StatusCode::FORBIDDEN, "forbidden"),
        Fault::BadRange(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable"),
        Fault::SpeechFailed | Fault::SoundUnusable | Fault::Broken => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
        }
    };
    json(status, &Refused { success: false, error })
}

fn refused(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::MissingKey | Refusal::InvalidKey => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Refusal::Forbidden | Refusal::CallerIdNotAllowed | Refusal::DestinationNotAllowed => {
            (StatusCode::FORBIDDEN, "forbidden")
        }
        Refusal::NumberNotAllowed => (StatusCode::BAD_REQUEST, "Phone number is not allowed"),
        Refusal::RateLimited { .. }
        | Refusal::TooFast { .. }
        | Refusal::TooManyCalls
        | Refusal::CircuitOpen { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        Refusal::NoCredits | Refusal::DayIsSpent => (StatusCode::PAYMENT_REQUIRED, "insufficient_credits"),
        Refusal::UnknownCall => (StatusCode::NOT_FOUND, "Call not found"),
        Refusal::NoTrunks
        | Refusal::TrunksBusy
        | Refusal::OriginationFailed { .. }
        | Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable"),
        Refusal::NotAnswered => (StatusCode::CONFLICT, "Call is not answered"),
        Refusal::Transferring => (StatusCode::CONFLICT, "Call is being transferred"),
        Refusal::Attended => (StatusCode::CONFLICT, "Call has an application already"),
        Refusal::GatherInProgress => (StatusCode::CONFLICT, "Gather already in progress"),
        Refusal::QueueFull => (StatusCode::TOO_MANY_REQUESTS, "Playback queue is full"),
        Refusal::NoActiveRecording => (StatusCode::NOT_FOUND, "No active recording"),
        Refusal::InvalidSound => (StatusCode::BAD_REQUEST, "Invalid file"),
        Refusal::SoundNotFound => (StatusCode::NOT_FOUND, "Sound file not found"),
        Refusal::RequestInProgress => {
            (StatusCode::CONFLICT, "A request with this Idempotency-Key is in progress")
        }
        Refusal::IdempotencyKeyReused => {
            (StatusCode::CONFLICT, "Idempotency-Key was used with a different body")
        }
    }
}
