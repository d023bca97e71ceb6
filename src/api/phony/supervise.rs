//! What a supervisor does to a live call of the tenant's: speaks, presses keys, puts it through, ends it (CONTRACT 1.2
//! override).

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, agents, call_of};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::openapi::{Route, route};
use crate::api::{App, json};
use crate::control::{Caller, Named};
use crate::speech::TEXT_MAX;

/// Keys of one request.
const KEYS_MAX: usize = 32;

/// The documented routes.
pub(super) fn routes() -> [Route; 4] {
    [
        route(__path_say, say),
        route(__path_press, press),
        route(__path_put_through, put_through),
        route(__path_end, end),
    ]
}

/// The call of a body, by its id as it was given.
fn call(fields: &Fields) -> Result<(String, Named<'static>), Fault> {
    let sid = fields.required_text("call_sid")?;
    Ok((sid.to_owned(), Named::OfTenant(call_of(sid)?)))
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyOverridden)]
struct Done {
    /// What was done.
    message: &'static str,
    /// The call.
    call_sid: String,
    /// The number, where it is put through.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    target: Option<String>,
}

fn done(message: &'static str, call_sid: String, target: Option<String>) -> Answer {
    Ok(json(StatusCode::OK, &Done { message, call_sid, target }))
}

/// What shall be said.
#[derive(ToSchema)]
#[schema(as = PhonyOverrideText)]
#[expect(dead_code, reason = "for the document; the body is read as it stands")]
pub struct TextFields {
    /// The call.
    call_sid: String,
    /// 1 to 5000 characters.
    text: String,
}

/// `POST /api/override/text`.
#[utoipa::path(
    post, path = "/api/override/text", tag = "Phony: supervisor", operation_id = "phonyOverrideText",
    summary = "Speak into a call",
    description = "In the place of what is being said.",
    request_body = TextFields,
    responses(
        (status = 200, description = "It is said", body = Done),
        (status = 400, description = "A field is wrong or missing", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of the tenant", body = super::Refused),
        (status = 409, description = "Nobody has answered it yet", body = super::Refused),
    )
)]
pub(super) async fn say(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let fields = Fields::read(&body)?;
    let text = fields.required_text("text")?;
    if text.chars().count() > TEXT_MAX || text.trim().is_empty() {
        return Err(Fault::Bad(format!("text must be 1 to {TEXT_MAX} characters")));
    }
    let (sid, call) = call(&fields)?;
    app.calls.interject(&caller, call, text).await?;
    done("Text sent successfully", sid, None)
}

/// Which keys shall be pressed.
#[derive(ToSchema)]
#[schema(as = PhonyOverrideDtmf)]
#[expect(dead_code, reason = "for the document; the body is read as it stands")]
pub struct DtmfFields {
    /// The call.
    call_sid: String,
    /// 1 to 32 keys.
    #[schema(pattern = "^[0-9A-D*#]{1,32}$")]
    digit: String,
}

/// `POST /api/override/dtmf`.
#[utoipa::path(
    post, path = "/api/override/dtmf", tag = "Phony: supervisor", operation_id = "phonyOverrideDtmf",
    summary = "Press keys on a call",
    description = "100 ms each, and as long between them.",
    request_body = DtmfFields,
    responses(
        (status = 200, description = "They are pressed", body = Done),
        (status = 400, description = "A field is wrong or missing", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of the tenant", body = super::Refused),
        (status = 409, description = "Nobody has answered it yet", body = super::Refused),
    )
)]
pub(super) async fn press(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let fields = Fields::read(&body)?;
    let digits = fields.required_text("digit")?;
    let key = |b: u8| matches!(b, b'0'..=b'9' | b'A'..=b'D' | b'*' | b'#');
    if digits.len() > KEYS_MAX || !digits.bytes().all(key) {
        return Err(Fault::Bad(format!("digit must be 1 to {KEYS_MAX} of 0-9 A-D * #")));
    }
    let (sid, call) = call(&fields)?;
    app.calls.press(&caller, call, digits.to_owned()).await?;
    done("DTMF sent successfully", sid, None)
}

/// Whom a call shall be put through to.
#[derive(ToSchema)]
#[schema(as = PhonyOverrideTransfer)]
#[expect(dead_code, reason = "for the document; the body is read as it stands")]
pub struct TransferFields {
    /// The call.
    call_sid: String,
    /// The number, E.164 with its plus.
    #[schema(pattern = r"^\+[1-9][0-9]{6,14}$")]
    target: String,
}

/// `POST /api/override/transfer`.
#[utoipa::path(
    post, path = "/api/override/transfer", tag = "Phony: supervisor", operation_id = "phonyOverrideTransfer",
    summary = "Put a call through to somebody else",
    description = "The agent talks on until somebody answers there; an `error` event tells that nobody did.",
    request_body = TransferFields,
    responses(
        (status = 200, description = "It is dialled", body = Done),
        (status = 400, description = "A field is wrong, or the number may not be called", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of the tenant", body = super::Refused),
        (status = 409, description = "Nobody has answered it yet, or it is put through already",
            body = super::Refused),
        (status = 503, description = "No trunk", body = super::Refused),
    )
)]
pub(super) async fn put_through(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let fields = Fields::read(&body)?;
    let target = agents::e164(&fields, "target")?;
    let (sid, call) = call(&fields)?;
    let told = target.e164();
    app.calls.put_through(&caller, call, target).await?;
    done("Transfer initiated", sid, Some(told))
}

/// Which call shall end.
#[derive(ToSchema)]
#[schema(as = PhonyOverrideEnd)]
#[expect(dead_code, reason = "for the document; the body is read as it stands")]
pub struct EndFields {
    /// The call.
    call_sid: String,
}

/// `POST /api/override/end`.
#[utoipa::path(
    post, path = "/api/override/end", tag = "Phony: supervisor", operation_id = "phonyOverrideEnd",
    summary = "End a call",
    request_body = EndFields,
    responses(
        (status = 200, description = "It ends", body = Done),
        (status = 400, description = "`call_sid` is missing", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of the tenant", body = super::Refused),
    )
)]
pub(super) async fn end(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let (sid, call) = call(&Fields::read(&body)?)?;
    app.calls.hang_up(&caller, call, false).await?;
    done("Call ended", sid, None)
}
