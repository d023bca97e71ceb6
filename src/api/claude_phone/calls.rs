//! Claude Phone's four routes (CONTRACT 1.5). They show and end the calls that the acting key has placed on this
//! surface, and no others.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::requests::{self, OutboundCall};
use super::words;
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::clock;
use crate::control::{Caller, Named, Refusal};
use crate::model::call::{CallView, Surface};
use crate::model::purpose::Mode;
use crate::model::{CallId, Timestamp};
use crate::speech::DEFAULT_VOICE;

/// What a handler answers.
type Answer = Result<Response, Fault>;

/// The call's id in a path.
type Segment = Result<Path<String>, PathRejection>;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OutboundCallQueued)]
struct Queued {
    /// Always true.
    success: bool,
    /// The call's id.
    #[schema(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    call_id: String,
    /// Always `queued`.
    status: &'static str,
    /// Always `Call initiated`.
    message: &'static str,
}

/// `POST /api/outbound-call`.
///
/// # Errors
/// A field that is wrong; no credit, room or trunk for it.
#[utoipa::path(
    post, path = "/api/outbound-call", tag = "Claude Phone", operation_id = "outboundCall",
    summary = "Call somebody and say something",
    description = "Answers at once; what becomes of the call is shown by its id and told by webhook. Programs on this \
        machine need no key.",
    request_body = OutboundCall,
    responses(
        (status = 200, description = "The call is on its way", body = Queued),
        (status = 400, description = "A field is wrong or missing, or the number may not be called",
            body = super::Refused),
        (status = 402, description = "`insufficient_credits`", body = super::Refused),
        (status = 429, description = "`rate_limited`: too many calls at once or in an hour", body = super::Refused),
        (status = 503, description = "`service_unavailable`: no trunk, or no room for more calls",
            body = super::Refused),
    )
)]
pub async fn place(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let config = &app.rooms.config;
    let asked = requests::outbound_call(&body, &config.webhooks)?;
    let talks = asked.mode == Mode::Conversation;
    let known = |name: &String| app.rooms.speech.resolve(name).known;
    let voice = asked.device.clone().filter(known).unwrap_or_else(|| DEFAULT_VOICE.to_owned());
    let queued = app.calls.queue(caller, asked.placing(voice, &config.agent)).await?;
    let call_id = queued.view.order.id.uuid();
    if talks && !app.rooms.converses {
        // What the callee says is waited for, and understood by nobody.
        tracing::info!(call = %call_id, "a conversation begins without a recogniser: none is configured");
    }
    let body = Queued { success: true, call_id, status: "queued", message: "Call initiated" };
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OutboundCallShown)]
struct Shown<'a> {
    /// Always true.
    success: bool,
    /// The call's id.
    #[schema(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    call_id: String,
    /// The number.
    to: &'a str,
    /// `queued`, `dialing`, `playing`, `completed` or `failed`.
    #[schema(pattern = "^(queued|dialing|playing|completed|failed)$")]
    state: &'static str,
    /// `announce` or `conversation`.
    mode: &'static str,
    /// Placed.
    #[schema(format = DateTime)]
    created_at: String,
    /// Answered; nothing before.
    #[schema(format = DateTime)]
    answered_at: Option<String>,
    /// Over; nothing before.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Whole seconds from the answer to the end, or until now.
    duration: i64,
    /// Why it has failed; left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("busy", "no_answer"))]
    reason: Option<&'static str>,
}

impl<'a> Shown<'a> {
    fn of(view: &'a CallView) -> Self {
        Self {
            success: true,
            call_id: view.order.id.uuid(),
            to: &view.order.submitted_number,
            state: words::state(view),
            mode: view.order.purpose.mode.as_str(),
            created_at: view.order.created_at.iso_ms(),
            answered_at: view.answered_at.map(Timestamp::iso_ms),
            ended_at: view.end.map(|end| end.at.iso_ms()),
            duration: view.duration_s(clock::now().wall),
            reason: words::reason(view),
        }
    }
}

/// A call of this surface that the key has placed.
fn is_own(caller: &Caller, view: &CallView) -> bool {
    view.order.key == caller.key.id && view.order.surface == Surface::ClaudePhone
}

fn call_id(call: Segment) -> Result<CallId, Fault> {
    let id = call.ok().and_then(|Path(text)| CallId::from_uuid(&text));
    id.ok_or(Fault::Refused(Refusal::UnknownCall))
}

/// `GET /api/call/{callId}`, also of a call that is over.
///
/// # Errors
/// No such call of this key's; a database that failed.
#[utoipa::path(
    get, path = "/api/call/{callId}", tag = "Claude Phone", operation_id = "showOutboundCall",
    summary = "What has become of a call",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "The call", body = Shown),
        (status = 404, description = "`Call not found`", body = super::Refused),
    )
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let id = call_id(call)?;
    let view = match app.rooms.live.get(id) {
        Some(view) => Some(view),
        None => {
            let saved = app.rooms.db.call(id).await;
            saved.map_err(|error| fault::broken("a call's row", &error))?.map(Arc::new)
        }
    };
    let view = view.filter(|view| is_own(&caller, view)).ok_or(Refusal::UnknownCall)?;
    Ok(json(StatusCode::OK, &Shown::of(&view)))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OutboundCallListed)]
struct Listed<'a> {
    /// The call's id.
    #[schema(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    call_id: String,
    /// The number.
    to: &'a str,
    /// `queued`, `dialing` or `playing`.
    #[schema(pattern = "^(queued|dialing|playing)$")]
    state: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OutboundCalls)]
struct List<'a> {
    /// Always true.
    success: bool,
    /// How many.
    count: usize,
    /// The calls, oldest first.
    calls: Vec<Listed<'a>>,
}

/// `GET /api/calls`: those that are not over.
#[utoipa::path(
    get, path = "/api/calls", tag = "Claude Phone", operation_id = "listOutboundCalls",
    summary = "The active calls",
    description = "Those that were placed here by the key that asks, oldest first.",
    responses((status = 200, description = "The calls", body = List))
)]
pub async fn list(State(app): State<App>, Extension(caller): Extension<Caller>) -> Response {
    let live = app.rooms.live.of_key(caller.key.id);
    let own = live.iter().filter(|view| is_own(&caller, view));
    let listed = own.map(|view| Listed {
        call_id: view.order.id.uuid(),
        to: &view.order.submitted_number,
        state: words::state(view),
    });
    let calls: Vec<_> = listed.collect();
    json(StatusCode::OK, &List { success: true, count: calls.len(), calls })
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OutboundCallHungUp)]
struct HungUp {
    /// Always true.
    success: bool,
    /// Always `Call hangup initiated`.
    message: &'static str,
    /// The call's id.
    #[schema(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    call_id: String,
}

/// `POST /api/call/{callId}/hangup`.
///
/// # Errors
/// No such live call of this key's.
#[utoipa::path(
    post, path = "/api/call/{callId}/hangup", tag = "Claude Phone", operation_id = "hangUpOutboundCall",
    summary = "End a call",
    description = "One that still rings is cancelled.",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "It ends", body = HungUp),
        (status = 404, description = "`Call not found`: unknown, or over", body = super::Refused),
    )
)]
pub async fn hang_up(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let id = call_id(call)?;
    let view = app.calls.live(&caller, Named::OfKey(id))?;
    if !is_own(&caller, &view) {
        return Err(Refusal::UnknownCall.into());
    }
    app.calls.hang_up(&caller, Named::OfKey(id), false).await?;
    let body = HungUp { success: true, message: "Call hangup initiated", call_id: id.uuid() };
    Ok(json(StatusCode::OK, &body))
}
