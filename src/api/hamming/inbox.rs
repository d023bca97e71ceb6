//! `POST /webhook/callback`: the receiver that the Hamming document describes (CONTRACT 1.4, 2.1 C8). What it is told is
//! put into an inbox that operators read, and changes no call. It believes this machine's own programs, keys, and the
//! signature of a secret that the operator has set.

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use std::net::SocketAddr;
use utoipa::ToSchema;

use super::events::STATUSES;
use super::{DIALECT, fetched};
use crate::api::door::Door;
use crate::api::fault::{self, Fault};
use crate::api::fields::Fields;
use crate::api::gate;
use crate::api::{App, json};
use crate::clock;
use crate::control::Refusal;
use crate::model::Now;
use crate::store::callbacks::NewCallback;
use crate::webhook::verify::{self, Signed};

/// The status that tells of a recording.
const RECORDED: &str = "event_recording";

/// Longest id of a call.
const ID_MAX_CHARS: usize = 128;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(as = CallbackTold)]
pub struct Told {
    /// The call.
    #[schema(min_length = 1, max_length = 128)]
    pub id: String,
    /// One of seven.
    #[schema(
        pattern = "^(initiated|in-progress|completed|failed|event_phone_call_connected|event_phone_call_ended|event_recording)$"
    )]
    pub status: String,
    /// Its recording can be had.
    pub recording_available: bool,
}

/// Reads it.
///
/// # Errors
/// Names the field at fault.
fn told(body: &[u8]) -> Result<Told, Fault> {
    let fields = Fields::read(body)?;
    let id = fields.required_text("id")?;
    if id.chars().count() > ID_MAX_CHARS || id.chars().any(char::is_control) {
        return Err(Fault::Bad("id must be 1 to 128 characters".into()));
    }
    let status = fields.required_text("status")?;
    if !STATUSES.contains(&status) {
        return Err(Fault::Bad(format!("status must be one of {}", STATUSES.join(", "))));
    }
    let available = fields.flag("recording_available")?;
    let recording_available =
        available.ok_or_else(|| Fault::Bad("recording_available is required".into()))?;
    Ok(Told { id: id.to_owned(), status: status.to_owned(), recording_available })
}

#[derive(Serialize, ToSchema)]
#[schema(as = CallbackReceived)]
struct Received {
    /// Always true.
    received: bool,
}

/// `POST /webhook/callback`.
///
/// # Errors
/// A field that is wrong; a sender that nothing speaks for.
#[utoipa::path(
    post, path = "/webhook/callback", tag = "Hamming Phone", operation_id = "receiveCallback",
    summary = "Receive the status of a call elsewhere",
    description = "Needs no key from programs on this machine, nor with the Standard Webhooks signature of \
        `hamming.callback_secret`. What is told is shown by `/admin/v1/callbacks` and changes no call; the recording of an \
        `event_recording` is fetched where `hamming.recordings_base` says from where.",
    request_body = Told,
    responses(
        (status = 200, description = "It is in the inbox", body = Received),
        (status = 400, description = "A field is wrong or missing"),
        (status = 401, description = "Neither from this machine, nor with a key or signature that is good"),
        (status = 403, description = "The key is not for this, or a browser sends for somebody else"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 500, description = "Something broke; the log says what"),
    )
)]
pub async fn take(State(app): State<App>, request: Request) -> Result<Response, Fault> {
    let now = clock::now();
    let own = Door::new(&app, &[], &app.rooms.config.claude_phone.allow_hosts).lets_in(&request);
    let (parts, body) = request.into_parts();
    let max = app.rooms.config.http.max_body_bytes;
    let body = gate::read_body(&parts.method, &parts.headers, body, max).await?;
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let sender = sender(&app, &parts.headers, peer, own, &body, now).await?;
    let Told { id: call, status, recording_available } = told(&body)?;
    let fetch = status == RECORDED && recording_available && fetched::wanted(&app);
    let callback = NewCallback { call, status, recording_available, sender, received_at: now.wall };
    let kept = app.rooms.db.keep_callback(&callback, fetch).await;
    let kept = kept.map_err(|error| fault::broken("the inbox of callbacks", &error))?;
    fetched::remove(&app, &kept.forgotten).await;
    if fetch {
        fetched::begin(app, kept.id, callback.call);
    }
    Ok(json(StatusCode::OK, &Received { received: true }))
}

/// Who tells, by whatever speaks for it: a key, a signature, or that it is on this machine.
async fn sender(
    app: &App,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    own: Result<(), Fault>,
    body: &[u8],
    now: Now,
) -> Result<String, Fault> {
    if headers.contains_key(header::AUTHORIZATION) {
        let shown = gate::credentials(headers, peer);
        let caller = app.admission.identify(&shown, Some(DIALECT.name), Some("calls"), now).await?;
        return Ok(caller.key.key_id);
    }
    let secret = &app.rooms.config.hamming.callback_secret;
    if !secret.0.is_empty() && headers.contains_key("webhook-signature") {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let signed = Signed {
            id: text("webhook-id"),
            timestamp: text("webhook-timestamp"),
            signature: text("webhook-signature"),
        };
        let genuine = verify::verify(std::slice::from_ref(secret), signed, body, now.wall.seconds());
        return genuine.map(|()| "signature".to_owned()).map_err(|_| Refusal::InvalidKey.into());
    }
    own.map(|()| "loopback".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::documented_as_read;

    #[test]
    fn the_three_fields_are_read_and_nothing_is_coerced() {
        let good = r#"{"id":"x","status":"in-progress","recording_available":false}"#;
        let read = told(good.as_bytes()).unwrap();
        assert_eq!(
            (read.id.as_str(), read.status.as_str(), read.recording_available),
            ("x", "in-progress", false)
        );
        for (from, to) in [
            ("\"x\"", "\"\""),
            ("\"x\"", "7"),
            ("\"x\"", "\"a\\nb\""),
            ("in-progress", "foo"),
            ("false", "\"true\""),
            ("false", "null"),
            ("false", "0"),
        ] {
            assert!(matches!(told(good.replace(from, to).as_bytes()), Err(Fault::Bad(_))), "{to}");
        }
        for status in STATUSES {
            assert!(told(good.replace("in-progress", status).as_bytes()).is_ok(), "{status}");
        }
        documented_as_read::<Told, _>(good, told);
    }
}
