//! VoxForge, seed 002 (CONTRACT 1.3): its routes and the words of its refusals. Agents, contacts, appointments and
//! endpoints of webhooks are a tenant's, whichever of its keys asks. What is done is control's and the store's.

pub mod agents;
pub mod appointments;
pub mod calls;
pub mod campaigns;
pub mod contacts;
pub mod events;
pub mod keys;
pub mod members;
pub mod numbers;
pub mod recordings;
pub mod webhooks;
pub mod words;

use std::borrow::Cow;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::admin::Query;
use super::fault::{self, Fault};
use super::gate::Gate;
use super::idempotency::Once;
use super::openapi::{Routes, route};
use super::{App, Dialect, json};
use crate::control::admission::Counted;
use crate::control::{Failure, Refusal};
use crate::model::Timestamp;
use crate::store::StoreError;
use crate::store::history::DAY_MS;

/// VoxForge's row.
pub const DIALECT: Dialect = Dialect {
    name: "voxforge",
    mounts: &["", "/voxforge"],
    prefixes: &["/api/v1/"],
    routes,
    envelope,
    format: Some(&events::VoxForge),
};

/// Rows of a bare list, unless the request wants fewer.
const ROWS_MAX: i64 = 1000;

fn routes(app: &App) -> Routes {
    let once = Once { app: app.clone(), envelope };
    let surface = Some(DIALECT.name);
    let gate = |scope| Gate { app: app.clone(), surface, scope, counted: Counted::Plan, body_max: None };
    let talkers = [
        route(agents::__path_list, agents::list),
        route(agents::__path_create, agents::create).once(&once),
        route(agents::__path_show, agents::show),
        route(agents::__path_change, agents::change),
        route(agents::__path_delete, agents::delete),
    ];
    let people = [
        route(contacts::__path_list, contacts::list),
        route(contacts::__path_create, contacts::create).once(&once),
        route(contacts::__path_show, contacts::show),
        route(contacts::__path_change, contacts::change),
        route(contacts::__path_delete, contacts::delete),
        route(appointments::__path_list, appointments::list),
        route(appointments::__path_create, appointments::create).once(&once),
        route(appointments::__path_show, appointments::show),
        route(appointments::__path_change, appointments::change),
    ];
    let runs = [
        route(campaigns::__path_list, campaigns::list),
        route(campaigns::__path_show, campaigns::show),
        route(campaigns::__path_change, campaigns::change),
        route(members::__path_list_contacts, members::list_contacts),
        route(members::__path_show_preflight, members::show_preflight),
    ];
    let imports = [
        route(campaigns::__path_create, campaigns::create).once(&once),
        route(members::__path_import_contacts, members::import_contacts),
    ];
    let large = Gate { body_max: Some(members::BYTES_MAX), ..gate(Some("campaigns")) };
    let talks = [
        route(calls::__path_list, calls::list),
        route(calls::__path_create, calls::create).once(&once),
        route(calls::__path_show, calls::show),
    ];
    // An answer that is kept for repeats would keep the secret: it is not made by one.
    let hooks = [
        route(webhooks::__path_list, webhooks::list),
        route(webhooks::__path_create, webhooks::create),
        route(webhooks::__path_show, webhooks::show),
        route(webhooks::__path_change, webhooks::change),
        route(webhooks::__path_delete, webhooks::delete),
        route(webhooks::__path_rotate, webhooks::rotate),
        route(webhooks::__path_deliveries, webhooks::deliveries),
        route(webhooks::__path_redeliver, webhooks::redeliver),
    ];
    // An answer that is kept for repeats would keep the key: it is not made by one.
    let keys = [
        route(keys::__path_list, keys::list),
        route(keys::__path_create, keys::create),
        route(keys::__path_revoke, keys::revoke),
    ];
    Routes::new::<Refused>()
        .open([route(recordings::__path_follow, recordings::follow)])
        .guarded(&gate(Some("agents")), talkers)
        .guarded(&gate(Some("calls")), talks)
        .guarded(&gate(Some("webhooks")), hooks)
        .guarded(&gate(Some("campaigns")), people)
        .guarded(&gate(Some("campaigns")), runs)
        .guarded(&large, imports)
        .guarded(&gate(Some("numbers")), [route(numbers::__path_list, numbers::list)])
        .guarded(&gate(None), keys)
}

/// What a handler answers.
type Answer = Result<Response, Wrong>;

/// A path segment, percent-decoded once.
type Segment = Result<Path<String>, PathRejection>;

/// Why a request failed, where VoxForge has words of its own.
#[derive(Debug)]
pub enum Wrong {
    /// As on every surface.
    Fault(Fault),
    /// There is no such thing: its kind and its id.
    NoSuch(&'static str, String),
    /// The plan allows no more of it.
    Limit(&'static str),
}

impl Wrong {
    /// A request that is wrong in itself.
    fn bad(text: impl Into<String>) -> Self {
        Self::Fault(Fault::Bad(text.into()))
    }
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Self::Fault(refusal.into())
    }
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::Fault(failure.into())
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self::Fault(fault::broken("the database", &error))
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        match self {
            Self::Fault(fault) => fault.into_response(),
            Self::NoSuch(kind, id) => {
                refused(StatusCode::NOT_FOUND, "NOT_FOUND", format!("{kind} with id {id} not found"))
            }
            Self::Limit(text) => refused(StatusCode::UNPROCESSABLE_ENTITY, "LIMIT_REACHED", text),
        }
    }
}

/// `{"error":{"code":…,"message":…}}`
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeError)]
pub(super) struct Refused<'a> {
    /// What went wrong.
    error: Error<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeErrorDetail)]
struct Error<'a> {
    /// One of seven words for programs.
    #[schema(examples("NOT_FOUND"))]
    code: &'static str,
    /// In words for people.
    #[schema(value_type = String)]
    message: Cow<'a, str>,
}

fn refused<'a>(status: StatusCode, code: &'static str, message: impl Into<Cow<'a, str>>) -> Response {
    json(status, &Refused { error: Error { code, message: message.into() } })
}

pub(super) fn envelope(fault: &Fault) -> Response {
    let bad = "BAD_REQUEST";
    let (status, code, message) = match fault {
        Fault::Bad(text) | Fault::Conflict(text) => (StatusCode::BAD_REQUEST, bad, text.as_str()),
        Fault::Refused(refusal) => no(refusal),
        Fault::UnknownPath => (StatusCode::NOT_FOUND, "NOT_FOUND", "Not found"),
        Fault::Missing(what) => (StatusCode::NOT_FOUND, "NOT_FOUND", *what),
        Fault::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, bad, "Method not allowed"),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, bad, "Request body too large"),
        Fault::TooSlow => (StatusCode::REQUEST_TIMEOUT, bad, "Request body did not arrive in time"),
        Fault::NoRecording | Fault::NoFile => (StatusCode::NOT_FOUND, "NOT_FOUND", "Recording not found"),
        Fault::BadLink => (StatusCode::FORBIDDEN, "FORBIDDEN", "Link is not valid"),
        Fault::BadRange(_) => (StatusCode::RANGE_NOT_SATISFIABLE, bad, "Range not satisfiable"),
        Fault::SpeechFailed | Fault::SoundUnusable | Fault::Broken => {
            (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "Something went wrong on our end")
        }
    };
    refused(status, code, message)
}

fn no(refusal: &Refusal) -> (StatusCode, &'static str, &'static str) {
    let bad = |text| (StatusCode::BAD_REQUEST, "BAD_REQUEST", text);
    let forbidden = |text| (StatusCode::FORBIDDEN, "FORBIDDEN", text);
    let limit = |text| (StatusCode::UNPROCESSABLE_ENTITY, "LIMIT_REACHED", text);
    let slow = |text| (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", text);
    let missing = |text| (StatusCode::NOT_FOUND, "NOT_FOUND", text);
    let broken = |status, text| (status, "INTERNAL_ERROR", text);
    match refusal {
        Refusal::MissingKey | Refusal::InvalidKey => {
            (StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "Missing or invalid API key")
        }
        Refusal::Forbidden => forbidden("Key lacks permission or IP is restricted"),
        Refusal::CallerIdNotAllowed => forbidden("Key may not show this number"),
        Refusal::DestinationNotAllowed => forbidden("Destination not allowed"),
        Refusal::RateLimited { .. } => slow("Too many requests, slow down"),
        Refusal::TooFast { .. } => slow("Call rate limit exceeded"),
        Refusal::CircuitOpen { .. } => slow("Calls come to nothing, ask again later"),
        Refusal::QueueFull => slow("Playback queue is full"),
        Refusal::NumberNotAllowed => bad("to is not allowed"),
        Refusal::NotAnswered => bad("Call is not answered"),
        Refusal::GatherInProgress => bad("Gather already in progress"),
        Refusal::Transferring => bad("Call is being transferred"),
        Refusal::Attended => bad("Another application talks on the call"),
        Refusal::InvalidSound => bad("Invalid sound"),
        Refusal::RequestInProgress => bad("A request with this Idempotency-Key is in progress"),
        Refusal::IdempotencyKeyReused => bad("Idempotency-Key was used with a different body"),
        Refusal::UnknownCall => missing("Call not found"),
        Refusal::NoActiveRecording => missing("No active recording"),
        Refusal::SoundNotFound => missing("Sound not found"),
        Refusal::TooManyCalls => limit("Concurrent call limit reached"),
        Refusal::NoCredits => limit("Insufficient credits"),
        Refusal::DayIsSpent => limit("Daily credit limit reached"),
        Refusal::NoTrunks | Refusal::TrunksBusy | Refusal::OriginationFailed { .. } => {
            broken(StatusCode::INTERNAL_SERVER_ERROR, "No outbound route")
        }
        Refusal::Unavailable => broken(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
    }
}

/// What was deleted.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeDeleted)]
pub(super) struct Deleted {
    /// Of what was deleted.
    id: String,
    /// Always true.
    deleted: bool,
}

fn deleted(id: String) -> Response {
    json(StatusCode::OK, &Deleted { id, deleted: true })
}

/// The id that a path names.
fn named(kind: &'static str, segment: Segment) -> Result<String, Wrong> {
    segment.map(|Path(id)| id).map_err(|_| Wrong::NoSuch(kind, String::new()))
}

/// A bare list, and in a header how long it would be as a whole (CONTRACT 2.1 C21).
fn array<T: Serialize>(rows: &[T], total: i64) -> Response {
    let mut response = json(StatusCode::OK, &rows);
    response.headers_mut().insert(HeaderName::from_static("x-total-count"), HeaderValue::from(total));
    response
}

/// How many rows of a bare list, and after how many.
fn window(query: &Query) -> Result<(u32, u32), Fault> {
    let limit = query.number("limit", 1..=ROWS_MAX)?.unwrap_or(ROWS_MAX);
    let offset = query.number("offset", 0..=i64::from(u32::MAX))?.unwrap_or(0);
    Ok((u32::try_from(limit).unwrap_or(u32::MAX), u32::try_from(offset).unwrap_or(u32::MAX)))
}

/// `from` and `to` of a query: moments or days, both included; the second is given as the moment after.
fn span(query: &Query) -> Result<(Option<Timestamp>, Option<Timestamp>), Fault> {
    let moment = |name: &str| {
        let Some(text) = query.text(name) else { return Ok(None) };
        let read = Timestamp::from_iso(text);
        read.map(|at| Some((at, text.len() == 10)))
            .ok_or_else(|| Fault::Bad(format!("{name} must be an ISO 8601 moment or day")))
    };
    let to = moment("to")?.map(|(at, day)| at.plus_ms(if day { DAY_MS } else { 1 }));
    Ok((moment("from")?.map(|(at, _)| at), to))
}

/// A text within so many characters, without control characters that are not those of lines.
fn text_within(name: &str, text: &str, least: usize, most: usize) -> Result<String, Fault> {
    let plain = text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'));
    let fine = plain && (least..=most).contains(&text.chars().count());
    let fine = fine && (least == 0 || !text.trim().is_empty());
    fine.then(|| text.to_owned())
        .ok_or_else(|| Fault::Bad(format!("{name} must be {least} to {most} characters")))
}
