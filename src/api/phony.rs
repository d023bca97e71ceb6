//! Phony, seed 001 (CONTRACT 1.2): its routes and the words of its refusals. Agents, their numbers and their calls,
//! seen by a tenant: a key sees what its tenant has, whichever key made it. What is done is control's; the WebSockets
//! are in [`sockets`].

pub mod agents;
pub mod analytics;
pub mod calls;
pub mod feed;
pub mod numbers;
pub mod sockets;
pub mod supervise;
pub mod tenants;
pub mod words;

use axum::http::header::HeaderName;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::fault::{self, Fault};
use super::gate::Gate;
use super::idempotency::Once;
use super::openapi::{Routes, route};
use super::{App, Dialect, json};
use crate::control::admission::Counted;
use crate::control::{Caller, Refusal};
use crate::model::CallId;
use crate::store::StoreError;

/// Phony's row.
pub const DIALECT: Dialect = Dialect {
    name: "phony",
    mounts: &["", "/phony"],
    prefixes: &[
        "/healthz",
        "/agents",
        "/api/agents",
        "/phone-numbers",
        "/api/phone-numbers",
        "/api/calls/",
        "/api/override",
        "/api/analytics/",
        "/tenants",
        "/api/tenants",
        "/relay",
        "/api/relay",
        "/events",
        "/api/events",
    ],
    routes,
    envelope,
    format: None,
};

/// The scope of those who see all tenants.
const ADMIN: &str = "admin";

/// Carries how many rows there are in all beside a bare list.
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// What a handler answers.
type Answer = Result<Response, Fault>;

/// A path segment, percent-decoded once.
type Segment = Result<axum::extract::Path<String>, axum::extract::rejection::PathRejection>;

fn routes(app: &App) -> Routes {
    let once = Once { app: app.clone(), envelope };
    let gate = |scope| Gate {
        app: app.clone(),
        surface: Some(DIALECT.name),
        scope,
        counted: Counted::Phony,
        body_max: None,
    };
    let (agents, numbers, calls) = (gate(Some("agents")), gate(Some("numbers")), gate(Some("calls")));
    let (supervise, admin, analytics) = (gate(Some("supervise")), gate(Some(ADMIN)), gate(Some("analytics")));
    Routes::new::<Refused>()
        .open([route(calls::__path_health, calls::health)])
        .guarded(&agents, agents::routes(&once))
        .guarded(&calls, [route(agents::__path_call, agents::call).once(&once)])
        .guarded(&numbers, numbers::routes())
        .guarded(&calls, calls::routes())
        .guarded(&supervise, supervise::routes())
        .guarded(&analytics, analytics::routes())
        .guarded(&admin, tenants::routes(&once))
        .guarded(&gate(None), [route(tenants::__path_show, tenants::show)])
        .aliased(
            &agents,
            [
                ("/agents", get(agents::list).merge(once.around(post(agents::create)))),
                ("/agents/{agent}", get(agents::show).put(agents::change).delete(agents::delete)),
            ],
        )
        .aliased(&calls, [("/agents/{agent}/call", once.around(post(agents::call)))])
        .aliased(
            &numbers,
            [
                ("/phone-numbers/available", get(numbers::available)),
                ("/phone-numbers/{number}/assign", post(numbers::assign)),
                ("/phone-numbers/{number}/release", post(numbers::release)),
            ],
        )
        .aliased(
            &admin,
            [
                ("/api/tenants", get(tenants::list).merge(once.around(post(tenants::create)))),
                ("/api/tenants/{tenant}", axum::routing::patch(tenants::change)),
            ],
        )
        .aliased(&gate(None), [("/api/tenants/{tenant}", get(tenants::show))])
        .upgrading(sockets::routes())
}

/// `{"error","message","code"}`, for everything that is refused.
#[derive(Serialize, ToSchema)]
#[schema(as = PhonyError)]
pub(super) struct Refused<'a> {
    /// The reason phrase of the status.
    #[schema(examples("Bad Request"))]
    error: &'a str,
    /// What went wrong, in words.
    message: &'a str,
    /// The status.
    code: u16,
}

pub(super) fn envelope(fault: &Fault) -> Response {
    let (status, message) = match fault {
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
        Fault::SpeechFailed => (StatusCode::INTERNAL_SERVER_ERROR, "The text could not be spoken"),
        Fault::SoundUnusable => (StatusCode::INTERNAL_SERVER_ERROR, "The sound cannot be played"),
        Fault::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
    };
    let error = status.canonical_reason().unwrap_or("Error");
    json(status, &Refused { error, message, code: status.as_u16() })
}

fn refused(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::MissingKey | Refusal::InvalidKey => (StatusCode::UNAUTHORIZED, "Invalid or missing API key"),
        Refusal::Forbidden => (StatusCode::FORBIDDEN, "Insufficient permissions"),
        Refusal::CallerIdNotAllowed => (StatusCode::FORBIDDEN, "Caller id not allowed"),
        Refusal::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded"),
        Refusal::NumberNotAllowed => (StatusCode::BAD_REQUEST, "to_number is not allowed"),
        Refusal::DestinationNotAllowed => (StatusCode::FORBIDDEN, "Destination not allowed"),
        Refusal::TooFast { .. } => (StatusCode::TOO_MANY_REQUESTS, "Call rate limit exceeded"),
        Refusal::CircuitOpen { .. } => (StatusCode::TOO_MANY_REQUESTS, "Circuit open"),
        Refusal::DayIsSpent => (StatusCode::FORBIDDEN, "Daily credit limit reached"),
        Refusal::UnknownCall => (StatusCode::NOT_FOUND, "Call not found"),
        Refusal::NotAnswered => (StatusCode::CONFLICT, "Call is not answered"),
        Refusal::GatherInProgress => (StatusCode::CONFLICT, "Gather already in progress"),
        Refusal::QueueFull => (StatusCode::TOO_MANY_REQUESTS, "Too much is waiting to be said"),
        Refusal::Transferring => (StatusCode::CONFLICT, "Call is being transferred"),
        Refusal::Attended => (StatusCode::CONFLICT, "Another application talks on the call"),
        Refusal::NoActiveRecording => (StatusCode::NOT_FOUND, "No active recording"),
        Refusal::InvalidSound => (StatusCode::BAD_REQUEST, "Invalid sound"),
        Refusal::SoundNotFound => (StatusCode::NOT_FOUND, "Sound not found"),
        Refusal::TooManyCalls => (StatusCode::TOO_MANY_REQUESTS, "Concurrent call limit reached"),
        Refusal::NoCredits => (StatusCode::FORBIDDEN, "Insufficient credits"),
        Refusal::NoTrunks => (StatusCode::SERVICE_UNAVAILABLE, "No trunks assigned"),
        Refusal::TrunksBusy => (StatusCode::SERVICE_UNAVAILABLE, "All trunks are busy"),
        Refusal::OriginationFailed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "No trunk took the call"),
        Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
        Refusal::RequestInProgress => {
            (StatusCode::CONFLICT, "A request with this Idempotency-Key is in progress")
        }
        Refusal::IdempotencyKeyReused => {
            (StatusCode::CONFLICT, "Idempotency-Key was used with a different body")
        }
    }
}

/// A segment of the path; one that is no text names nothing.
fn segment(segment: Segment, missing: &'static str) -> Result<String, Fault> {
    segment.map(|axum::extract::Path(text)| text).map_err(|_| Fault::Missing(missing))
}

/// The call of a `call_sid`.
fn call_of(sid: &str) -> Result<CallId, Fault> {
    CallId::from_call_sid(sid).ok_or(Fault::Refused(Refusal::UnknownCall))
}

/// Whether the key may see every tenant.
fn sees_all(caller: &Caller) -> bool {
    caller.key.scopes.iter().any(|scope| scope == ADMIN)
}

/// The tenant that a request looks at: its own unless it names another, which only an admin may.
fn tenant_of(caller: &Caller, asked: Option<&str>) -> Result<String, Fault> {
    match asked {
        Some(other) if other != caller.key.tenant && !sees_all(caller) => Err(Refusal::Forbidden.into()),
        Some(tenant) => Ok(tenant.to_owned()),
        None => Ok(caller.key.tenant.clone()),
    }
}

/// A bare list, with the number of all rows beside it.
fn list(rows: &[impl Serialize], total: i64) -> Response {
    let mut response = json(StatusCode::OK, &rows);
    response.headers_mut().insert(TOTAL, HeaderValue::from(total));
    response
}

/// A fault for a database that failed.
#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn stored(error: StoreError) -> Fault {
    fault::broken("the database", &error)
}
