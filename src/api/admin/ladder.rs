//! `GET /admin/v1/calls/:id/sip`: what was said about a call by SIP, as JSON or drawn for a reader. Live calls, and those
//! that ended within ten minutes, of the process that is asked. Secrets and pressed keys are masked before they come here.

mod draw;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Part, Query, Route, part, route};
use crate::api::fault::Fault;
use crate::api::{App, json};
use crate::model::call::CommandError;
use crate::model::ladder::{CallName, Ladder, Rung};

const MISSING: &str = "Call not found";

/// Longest name of a call that is looked up.
const NAME_MAX: usize = 64;

/// The routes of calls' messages.
pub fn routes() -> Vec<Route> {
    vec![route(__path_show, show)]
}

/// One message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminSipMessage)]
struct MessageBody {
    /// When it went out or came in.
    #[schema(format = DateTime)]
    at: String,
    /// `sent` or `received`.
    direction: &'static str,
    /// `udp`, `tcp` or `tls`.
    transport: &'static str,
    /// To whom, or from whom.
    peer: String,
    /// `INVITE sip:…`, or `200 OK (INVITE)`.
    summary: String,
    /// Its `Call-ID`: each attempt and each party has another.
    sip_call_id: String,
    /// Bytes on the wire.
    size: usize,
    /// How often the same was repeated.
    repeated: u32,
    /// When it was repeated last; `null` where it was not.
    #[schema(format = DateTime)]
    repeated_at: Option<String>,
    /// The message, its first 2,048 bytes; credentials and pressed keys are masked.
    text: String,
}

/// The messages of one call, the oldest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminSipLadder)]
struct LadderBody {
    /// Kaphila's form of its id.
    call_id: String,
    /// The engine's own.
    id: String,
    /// Whether the call is still up.
    live: bool,
    /// Messages that are not kept any more: those before the latest 64.
    left_out: u32,
    /// The messages.
    messages: Vec<MessageBody>,
}

impl From<&Rung> for MessageBody {
    fn from(rung: &Rung) -> Self {
        Self {
            at: rung.at.iso_ms(),
            direction: if rung.sent { "sent" } else { "received" },
            transport: transport(rung.transport),
            peer: rung.peer.to_string(),
            summary: rung.summary(),
            sip_call_id: rung.dialog(),
            size: rung.size,
            repeated: rung.again,
            repeated_at: (rung.again > 0).then(|| rung.last_at.iso_ms()),
            text: rung.text(),
        }
    }
}

fn transport(of: sip::Transport) -> &'static str {
    match of {
        sip::Transport::Udp => "udp",
        sip::Transport::Tcp => "tcp",
        sip::Transport::Tls => "tls",
    }
}

/// `GET /calls/:call/sip?format=`.
#[utoipa::path(
    get, path = "/calls/{call}/sip", tag = "Admin: calls", operation_id = "adminCallSip",
    summary = "The SIP messages of a call, or the ladder of them drawn",
    description = "Of a live call or one that ended within ten minutes, on the server that has it: every trunk tried, and \
                   the second party of a transfer. The latest 64 messages; credentials and pressed keys are masked.",
    params(
        ("call" = String, Path, description = "Its id as any surface prints it"),
        ("format" = Option<String>, Query, description = "`json` or `text`; as `Accept` says, else `json`"),
    ),
    responses(
        (status = 200, description = "The messages", content(
            (LadderBody = "application/json"), (String = "text/plain")
        )),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Call not found`"),
    )
)]
async fn show(State(app): State<App>, path: Part, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let query = Query::read(query.as_deref());
    let drawn = match query.text("format") {
        None => wants_text(&headers),
        Some("text") => true,
        Some("json") => false,
        Some(_) => return Err(Fault::Bad("format must be json or text".into())),
    };
    let name = part(path, MISSING)?;
    if name.len() > NAME_MAX {
        return Err(Fault::Missing(MISSING));
    }
    let ladder = match app.rooms.engine.ladder(CallName::read(&name)).await {
        Ok(ladder) => ladder,
        Err(CommandError::UnknownCall) => return Err(Fault::Missing(MISSING)),
        Err(error) => return Err(Fault::Refused(error.into())),
    };
    Ok(if drawn { text(draw::draw(&ladder)) } else { json(StatusCode::OK, &shown(&ladder)) })
}

fn shown(ladder: &Ladder) -> LadderBody {
    LadderBody {
        call_id: ladder.kaphila_id.clone(),
        id: ladder.call.hex(),
        live: ladder.live,
        left_out: ladder.left_out,
        messages: ladder.rungs.iter().map(MessageBody::from).collect(),
    }
}

/// Whether text is asked for by name and JSON is not.
fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds =
        accept.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or(kind));
    let first = kinds.find(|kind| ["text/plain", "application/json"].contains(&kind.trim()));
    first.is_some_and(|kind| kind.trim() == "text/plain")
}

fn text(body: String) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
