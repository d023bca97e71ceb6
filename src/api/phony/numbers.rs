//! Phony's numbers: those of the tenant that nobody has, and which agent has one (CONTRACT 1.2, 3 S22). What else may
//! happen on a call to a number is the operator's to say; such a number is not available.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Segment, agents, list as rows, segment, stored};
use crate::api::admin::{Query, by};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::openapi::{Route, route};
use crate::api::{App, json};
use crate::control::Caller;
use crate::model::PhoneNumber;
use crate::store::numbers::{Number, OnCall};

/// The fault of a path that names no number of the tenant's.
const MISSING: &str = "Phone number not found";

/// What a number can do.
const CAPABILITIES: [&str; 1] = ["voice"];

/// The documented routes of numbers.
pub(super) fn routes() -> [Route; 3] {
    [route(__path_available, available), route(__path_assign, assign), route(__path_release, release)]
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyNumber)]
struct NumberBody {
    /// E.164.
    phone_number: String,
    /// The number's own id.
    #[schema(pattern = "^PN[0-9a-f]{32}$")]
    twilio_sid: String,
    /// For people.
    friendly_name: String,
    /// `voice`.
    capabilities: [&'static str; 1],
    /// `available`.
    status: &'static str,
}

/// `GET /api/phone-numbers/available`.
#[utoipa::path(
    get, path = "/api/phone-numbers/available", tag = "Phony: numbers", operation_id = "phonyAvailableNumbers",
    summary = "The tenant's numbers that nobody has",
    responses((status = 200, description = "The numbers", body = [NumberBody]))
)]
pub(super) async fn available(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = Query::read(query.as_deref()).window_of(1000)?;
    let db = &app.rooms.db;
    let (mut numbers, _) = db.numbers(Some(&caller.key.tenant), 10_000, 0).await.map_err(stored)?;
    numbers.retain(|number| number.on_call == OnCall::Nothing);
    let total = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
    let body = |number: Number| NumberBody {
        phone_number: number.number.e164(),
        twilio_sid: number.sid,
        friendly_name: number.friendly_name,
        capabilities: CAPABILITIES,
        status: "available",
    };
    let page = numbers.into_iter().skip(offset as usize).take(limit as usize);
    Ok(rows(&page.map(body).collect::<Vec<_>>(), total))
}

/// The tenant's number that a path names.
async fn found(app: &App, caller: &Caller, text: Segment) -> Result<Number, Fault> {
    let text = segment(text, MISSING)?;
    let number = text.strip_prefix('+').and_then(PhoneNumber::from_digits);
    let number = number.ok_or(Fault::Missing(MISSING))?;
    let number = app.rooms.db.number(&number).await.map_err(stored)?;
    number.filter(|number| number.tenant == caller.key.tenant).ok_or(Fault::Missing(MISSING))
}

/// Which agent gets a number.
#[derive(ToSchema)]
#[schema(as = PhonyAssignment)]
#[expect(dead_code, reason = "for the document; the body is read as it stands")]
pub struct AssignFields {
    /// The agent.
    agent_id: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyNumberAssigned)]
struct Assigned {
    /// What was done.
    message: &'static str,
    /// The agent.
    agent_id: String,
    /// The number.
    phone_number: String,
}

/// `POST /api/phone-numbers/{number}/assign`.
#[utoipa::path(
    post, path = "/api/phone-numbers/{number}/assign", tag = "Phony: numbers", operation_id = "phonyAssignNumber",
    summary = "Give an agent a number",
    params(("number" = String, Path, description = "E.164, its plus as it stands or as `%2B`")),
    request_body = AssignFields,
    responses(
        (status = 200, description = "It has it", body = Assigned),
        (status = 400, description = "`agent_id` is missing", body = super::Refused),
        (status = 404, description = "No such number or agent", body = super::Refused),
        (status = 409, description = "Somebody else has it", body = super::Refused),
    )
)]
pub(super) async fn assign(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    number: Segment,
    body: Bytes,
) -> Answer {
    let fields = Fields::read(&body)?;
    let name = fields.required_text("agent_id")?;
    let number = found(&app, &caller, number).await?;
    let agent = agents::found(&app, &caller, name).await?;
    let (agent_id, wanted) = (agent.phony_id(), OnCall::Agent(agent.phony_id()));
    let ours = [wanted.clone(), OnCall::Agent(agent.cuid)];
    let give = |number: &mut Number| {
        if number.on_call == OnCall::Nothing {
            number.on_call = wanted;
        }
    };
    let changed = app.rooms.db.change_number(&number.number, by(&caller), give).await.map_err(stored)?;
    if !ours.contains(&changed.on_call) {
        return Err(Fault::Conflict("Phone number is already assigned".into()));
    }
    let (message, phone_number) = ("Phone number assigned successfully", changed.number.e164());
    Ok(json(StatusCode::OK, &Assigned { message, agent_id, phone_number }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyNumberReleased)]
struct Released {
    /// What was done.
    message: &'static str,
}

/// `POST /api/phone-numbers/{number}/release`.
#[utoipa::path(
    post, path = "/api/phone-numbers/{number}/release", tag = "Phony: numbers", operation_id = "phonyReleaseNumber",
    summary = "Take a number from its agent",
    params(("number" = String, Path, description = "E.164, its plus as it stands or as `%2B`")),
    responses(
        (status = 200, description = "It is free", body = Released),
        (status = 404, description = "No such number", body = super::Refused),
        (status = 409, description = "No agent has it", body = super::Refused),
    )
)]
pub(super) async fn release(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    number: Segment,
) -> Answer {
    let number = found(&app, &caller, number).await?;
    let mut released = false;
    let free = |number: &mut Number| {
        if matches!(number.on_call, OnCall::Agent(_)) {
            (number.on_call, released) = (OnCall::Nothing, true);
        }
    };
    app.rooms.db.change_number(&number.number, by(&caller), free).await.map_err(stored)?;
    if !released {
        return Err(Fault::Conflict("Phone number is not assigned".into()));
    }
    Ok(json(StatusCode::OK, &Released { message: "Phone number released successfully" }))
}
