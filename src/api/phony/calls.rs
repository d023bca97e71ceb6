//! Phony's calls: the live ones, what is remembered of them, those that are over (CONTRACT 1.2); and whether the server
//! is well. A call of the tenant's is shown whichever surface placed it.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::words::{self, LiveCall};
use super::{Answer, Segment, agents, call_of, list as rows, segment, stored};
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::openapi::{Route, route};
use crate::api::{App, json};
use crate::clock;
use crate::control::transfer::CONTEXT_MAX_BYTES;
use crate::control::{Caller, Named};
use crate::model::Timestamp;
use crate::store::agents::AgentName;
use crate::store::history::DAY_MS;
use crate::store::past::Past;

/// The documented routes of calls.
pub(super) fn routes() -> [Route; 3] {
    [
        route(__path_active, active),
        route(__path_history, history),
        route(__path_change_context, change_context),
    ]
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhonyHealth)]
struct Health {
    /// `ok`.
    status: &'static str,
    /// Seconds since the start.
    uptime: u64,
    /// Live calls of everybody.
    active_calls: usize,
}

/// `GET /healthz`.
#[utoipa::path(
    get, path = "/healthz", tag = "Phony: calls", operation_id = "phonyHealth",
    summary = "Whether the server runs",
    responses((status = 200, description = "It does", body = Health))
)]
pub(super) async fn health(State(app): State<App>) -> Response {
    let uptime = clock::now().mono.saturating_duration_since(app.started).as_secs();
    json(StatusCode::OK, &Health { status: "ok", uptime, active_calls: app.rooms.live.count() })
}

/// `GET /api/calls/active`.
#[utoipa::path(
    get, path = "/api/calls/active", tag = "Phony: calls", operation_id = "phonyActiveCalls",
    summary = "The tenant's live calls",
    description = "Oldest first; those that wait or ring too. `limit` and `offset` are taken; `X-Total-Count` says how \
        many there are.",
    responses((status = 200, description = "The calls", body = [LiveCall]))
)]
pub(super) async fn active(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = Query::read(query.as_deref()).window_of(1000)?;
    let now = clock::now().wall;
    let live = app.rooms.live.of_tenant(&caller.key.tenant);
    let page = live.iter().skip(offset as usize).take(limit as usize);
    let calls: Vec<LiveCall> = page.map(|view| LiveCall::of(view, now)).collect();
    Ok(rows(&calls, i64::try_from(live.len()).unwrap_or(i64::MAX)))
}

/// A call that is over.
#[derive(Serialize, ToSchema)]
#[schema(as = PhonyPastCall)]
struct PastBody {
    /// The session's id.
    id: String,
    /// The call's id.
    #[schema(pattern = "^CA[0-9a-f]{32}$")]
    call_sid: String,
    /// Who talked.
    agent_id: Option<String>,
    /// Seconds from answer to end.
    duration_seconds: i64,
    /// `completed`, `no-answer`, `busy`, `canceled` or `failed`.
    status: &'static str,
    /// When it was asked for.
    #[schema(format = DateTime)]
    started_at: String,
    /// When it was over.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Dollars.
    cost: f64,
    /// What the relay application said when it gave the call back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    handoff_data: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyHistory)]
struct History {
    /// The calls of the page, newest first.
    calls: Vec<PastBody>,
    /// Calls of all pages.
    total: i64,
    /// Most calls of a page.
    limit: u32,
    /// Calls before the page.
    offset: u32,
}

/// A moment of a query; a day is its beginning or, as an end, its end.
fn moment(query: &Query, name: &str, end: bool) -> Result<Option<Timestamp>, Fault> {
    let Some(text) = query.text(name) else { return Ok(None) };
    // In a query a plus that was not encoded has become a blank.
    let text = text.replace(' ', "+");
    let at = Timestamp::from_iso(&text);
    let at = at.ok_or_else(|| Fault::Bad(format!("{name} must be an ISO 8601 date or moment")))?;
    Ok(Some(if end && text.len() == 10 { at.plus_ms(DAY_MS) } else { at }))
}

/// `GET /api/calls/history`.
#[utoipa::path(
    get, path = "/api/calls/history", tag = "Phony: calls", operation_id = "phonyHistory",
    summary = "The tenant's calls that are over",
    params(
        ("agent_id" = Option<String>, Query, description = "Of this agent alone"),
        ("start_date" = Option<String>, Query, description = "Not placed before, ISO 8601"),
        ("end_date" = Option<String>, Query, description = "Placed before, ISO 8601; a date means its end"),
        ("limit" = Option<u32>, Query, description = "Calls of a page, 1 to 1000; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Calls before the page"),
    ),
    responses(
        (status = 200, description = "The calls", body = History),
        (status = 400, description = "A value of the query is wrong", body = super::Refused),
    )
)]
pub(super) async fn history(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let (from, until) = (moment(&query, "start_date", false)?, moment(&query, "end_date", true)?);
    let (db, tenant) = (&app.rooms.db, caller.key.tenant.as_str());
    let agent = match query.text("agent_id") {
        None => None,
        // One that never was has no calls.
        Some(name) => {
            let found = db.agent_ever(tenant, AgentName::Public(name)).await.map_err(stored)?;
            Some(found.map_or(-1, |(agent, _)| agent.id))
        }
    };
    let past = Past { tenant, agent, from, until };
    let (calls, total) = db.past_calls(&past, limit, offset).await.map_err(stored)?;
    let body = |call: crate::store::past::PastCall| PastBody {
        id: words::session(call.id),
        call_sid: call.id.call_sid(),
        agent_id: call.agent.map(words::agent),
        duration_seconds: call.duration_s,
        status: words::past(&call.outcome),
        started_at: words::time(call.created_at),
        ended_at: call.ended_at.map(words::time),
        cost: words::cost(call.answered, call.duration_s),
        handoff_data: call.handoff,
    };
    let calls = calls.into_iter().map(body).collect();
    Ok(json(StatusCode::OK, &History { calls, total, limit, offset }))
}

/// What shall be remembered of a call.
#[derive(ToSchema)]
#[schema(as = PhonyContextChange)]
#[expect(dead_code, reason = "for the document; the body is read as it stands")]
pub struct ContextFields {
    /// Each member takes the place of its namesake; `null` removes it.
    #[schema(value_type = Object)]
    context: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyContextChanged)]
struct ContextChanged {
    /// What was done.
    message: &'static str,
    /// The call.
    call_sid: String,
}

/// `PUT /api/calls/{call_sid}/context`.
#[utoipa::path(
    put, path = "/api/calls/{call_sid}/context", tag = "Phony: calls", operation_id = "phonyChangeContext",
    summary = "Remember something of a live call",
    params(("call_sid" = String, Path, description = "The call")),
    request_body = ContextFields,
    responses(
        (status = 200, description = "It is remembered", body = ContextChanged),
        (status = 400, description = "`context` is missing, no object, or too large", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of the tenant", body = super::Refused),
    )
)]
pub(super) async fn change_context(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    sid: Segment,
    body: Bytes,
) -> Answer {
    let changes = agents::context(&Fields::read(&body)?, "context")?;
    let changes = changes.ok_or_else(|| Fault::Bad("context is required".into()))?;
    let call_sid = segment(sid, "Call not found")?;
    let call = Named::OfTenant(call_of(&call_sid)?);
    app.calls
        .remember(&caller, call, changes)?
        .map_err(|_| Fault::Bad(format!("the whole context must be at most {CONTEXT_MAX_BYTES} bytes")))?;
    Ok(json(StatusCode::OK, &ContextChanged { message: "Context updated successfully", call_sid }))
}
