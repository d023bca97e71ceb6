//! Hamming Phone's two routes of customers: starting a call and fetching its recording (CONTRACT 1.4).

use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::api::admin::Query;
use crate::api::fault::{self, Fault};
use crate::api::fields::Fields;
use crate::api::{App, download, json};
use crate::config::{Agent, Webhooks};
use crate::control::{Caller, PlaceCall, Record, Script};
use crate::model::call::{Surface, Then};
use crate::model::purpose::{Brief, Mode, Purpose};
use crate::model::{CallId, PhoneNumber};
use crate::speech::DEFAULT_VOICE;
use crate::store::recordings::{RecordingRow, RecordingState};

/// Longest prompt, in characters.
const PROMPT_MAX_CHARS: usize = 32_768;

/// Longest number as it may be written.
const NUMBER_MAX_CHARS: usize = 16;

/// Longest call, seconds.
const CALL_MAX_S: u32 = 600;

/// How long a telephone rings, seconds.
const RING_S: u32 = 30;

/// How long a recording that is not finished is waited for, and how often it is looked at.
const RECORDING_WITHIN: Duration = Duration::from_secs(15);
const RECORDING_LOOK: Duration = Duration::from_millis(100);

fn bad(text: &str) -> Fault {
    Fault::Bad(text.to_owned())
}

/// What `POST /start-call` asks for.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(as = StartCallAsked)]
pub struct StartCall {
    /// The number to call: E.164, or its digits alone.
    #[schema(value_type = String, pattern = r"^\+?[1-9][0-9]{2,14}$", examples("+14155550100"))]
    pub phone_number: PhoneNumber,
    /// What the agent on the call is told about itself.
    #[schema(min_length = 1, max_length = 32768, examples("You are calling to book a table for two."))]
    pub prompt: String,
    /// Where the call's statuses are sent: an `https` URL of a public host.
    #[schema(max_length = 2048, examples("https://example.com/webhook/callback"))]
    pub webhook_url: String,
}

impl StartCall {
    fn placing(self, agent: &Agent) -> PlaceCall {
        let silence_ms = agent.silence_s.saturating_mul(1000);
        let then = Then::Listen { silence_ms, repeats: agent.silence_repeats };
        let context = Map::from_iter([("prompt".to_owned(), Value::String(self.prompt.clone()))]);
        let brief = Some(Brief { prompt: self.prompt, first_message: None });
        PlaceCall {
            surface: Surface::Hamming,
            submitted_number: self.phone_number.e164(),
            to: self.phone_number,
            caller_id: None,
            webhook_url: Some(self.webhook_url),
            use_amd: false,
            voice_name: DEFAULT_VOICE.to_owned(),
            ring_timeout_s: RING_S,
            max_duration_s: Some(CALL_MAX_S),
            record: Record::As(true),
            record_channels: media::Channels::Mono,
            purpose: Purpose { mode: Mode::Agent, context, brief, ..Purpose::default() },
            // Said where no language model acts on the prompt.
            script: Some(Script { text: agent.fallback_text.clone(), then }),
        }
    }
}

/// Reads it.
///
/// # Errors
/// Names the field at fault.
fn start_call(body: &[u8], webhooks: &Webhooks) -> Result<StartCall, Fault> {
    let fields = Fields::read(body)?;
    let number = fields.required_text("phone_number")?;
    let digits = number.strip_prefix('+').unwrap_or(number);
    let read = PhoneNumber::from_digits(digits).filter(|_| number.len() <= NUMBER_MAX_CHARS);
    let read = read.filter(|_| !digits.starts_with('0'));
    let phone_number = read.ok_or_else(|| bad("phone_number must be an E.164 number"))?;
    let prompt = fields.required_text("prompt")?;
    if prompt.trim().is_empty() {
        return Err(bad("prompt is required"));
    }
    if prompt.chars().count() > PROMPT_MAX_CHARS {
        return Err(bad("prompt must be 1 to 32768 characters"));
    }
    fields.required_text("webhook_url")?;
    let webhook_url = fields.webhook_url("webhook_url", webhooks)?;
    let webhook_url = webhook_url.ok_or_else(|| bad("webhook_url is required"))?;
    Ok(StartCall { phone_number, prompt: prompt.to_owned(), webhook_url })
}

#[derive(Serialize, ToSchema)]
#[schema(as = CallStarted)]
struct Started {
    /// The call's id, also in its callbacks and for its recording.
    id: String,
    /// Always `initiated`.
    status: &'static str,
}

/// `POST /start-call`.
///
/// # Errors
/// A field that is wrong; too many calls, too soon, after too many failures; no credit or trunk.
#[utoipa::path(
    post, path = "/start-call", tag = "Hamming Phone", operation_id = "startCall",
    summary = "Start a call",
    description = "Answers at once; what becomes of the call is told to `webhook_url`. A call that all trunks have \
        failed is tried again after 1, 2 and 4 seconds. 20 calls at once, each at most 10 minutes, 500 ms apart; after \
        three in a row that no trunk took there are none for 30 seconds.",
    request_body = StartCall,
    responses(
        (status = 200, description = "The call is on its way", body = Started),
        (status = 400, description = "A field is wrong or missing, or the number may not be called"),
        (status = 402, description = "No credit is left"),
        (status = 429, description = "Too many calls, too soon, or `Circuit open`; `Retry-After` says when"),
        (status = 500, description = "`No outbound route`, or something broke; the log says what"),
        (status = 503, description = "No room for more calls"),
    )
)]
pub async fn start(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Fault> {
    let config = &app.rooms.config;
    let asked = start_call(&body, &config.webhooks)?;
    let queued = app.calls.queue(caller, asked.placing(&config.agent)).await?;
    let id = queued.view.order.id.uuid();
    if !app.rooms.converses {
        tracing::info!(call = %id, "the prompt of a call has nobody to act on it: no recogniser and language model are configured");
    }
    Ok(json(StatusCode::OK, &Started { id, status: "initiated" }))
}

/// What is known of a call's recording.
enum Found {
    /// There is none, or none of this key's.
    Nothing,
    /// It is not whole yet.
    Unfinished,
    /// It is over.
    Finished(RecordingRow),
}

async fn find(app: &App, caller: &Caller, id: CallId) -> Result<Found, Fault> {
    let broken = |error| fault::broken("looking up a recording", &error);
    let db = &app.rooms.db;
    let view = match app.rooms.live.get(id) {
        Some(view) => Some(view.as_ref().clone()),
        None => db.call(id).await.map_err(broken)?,
    };
    let own = view.filter(|view| view.order.key == caller.key.id && view.order.surface == Surface::Hamming);
    let Some(view) = own else { return Ok(Found::Nothing) };
    let row = db.recording_of_call_id(caller.key.id, id).await.map_err(broken)?;
    Ok(match row {
        Some(row) if matches!(row.state, RecordingState::Done | RecordingState::Failed) => {
            Found::Finished(row)
        }
        Some(_) => Found::Unfinished,
        None if view.end.is_none() => Found::Unfinished,
        None => Found::Nothing,
    })
}

/// `GET /media/exercise?id=`: the recording of a call, waited for while it is being finished.
///
/// # Errors
/// [`Fault::NoRecording`], with `Retry-After` where there may be one soon.
#[utoipa::path(
    get, path = "/media/exercise", tag = "Hamming Phone", operation_id = "callRecording",
    summary = "The recording of a call",
    description = "One that is not finished is waited for, up to 15 seconds.",
    params(
        ("id" = String, Query, description = "The call's id"),
        ("Range" = Option<String>, Header, description = "One range of bytes: `bytes=0-99`"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 206, description = "The range", content_type = "audio/wav", body = crate::api::openapi::Bytes),
        (status = 400, description = "`id` is missing"),
        (status = 404, description = "No such recording; with `Retry-After`: not yet"),
        (status = 416, description = "The range lies outside of the file"),
    )
)]
pub async fn recording(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let query = Query::read(query.as_deref());
    let id = query.text("id").ok_or_else(|| bad("id is required"))?;
    let id = CallId::from_uuid(id).ok_or(Fault::NoRecording)?;
    let until = Instant::now() + RECORDING_WITHIN;
    loop {
        match find(&app, &caller, id).await? {
            Found::Nothing => return Err(Fault::NoRecording),
            Found::Finished(row) => {
                return download::recorded(&app, &row, &headers).await?.ok_or(Fault::NoRecording);
            }
            Found::Unfinished if Instant::now() >= until => {
                let mut answer = Fault::NoRecording.into_response();
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return Ok(answer);
            }
            Found::Unfinished => tokio::time::sleep(RECORDING_LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::documented_as_read;

    const BODY: &str =
        r#"{"phone_number":"+14155550100","prompt":"Be kind.","webhook_url":"https://example.com/cb"}"#;

    fn read(body: &str) -> Result<StartCall, Fault> {
        start_call(body.as_bytes(), &Webhooks::default())
    }

    #[test]
    fn all_three_fields_are_required_and_named() {
        let asked = read(BODY).unwrap();
        assert_eq!(asked.phone_number.e164(), "+14155550100");
        assert_eq!(read(&BODY.replace('+', "")), Ok(asked));
        for (from, to, fault) in [
            ("phone_number", "number", "phone_number is required"),
            ("+14155550100", "", "phone_number is required"),
            ("+14155550100", "+1 415 555 0100", "phone_number must be an E.164 number"),
            ("+14155550100", "004155550100", "phone_number must be an E.164 number"),
            ("\"+14155550100\"", "14155550100", "phone_number must be a string"),
            ("prompt", "p", "prompt is required"),
            ("Be kind.", " ", "prompt is required"),
            ("Be kind.", &"é".repeat(32_769), "prompt must be 1 to 32768 characters"),
            ("webhook_url", "w", "webhook_url is required"),
            ("https://example.com/cb", "http://10.0.0.1", "webhook_url must be an https URL"),
        ] {
            assert_eq!(read(&BODY.replace(from, to)), Err(bad(fault)), "{fault}");
        }
        assert!(read(&BODY.replace("Be kind.", &"é".repeat(32_768))).is_ok());
    }

    #[test]
    fn the_documentation_names_the_fields_that_are_read() {
        documented_as_read::<StartCall, _>(BODY, |bytes| start_call(bytes, &Webhooks::default()));
    }

    #[test]
    fn a_call_is_recorded_and_listens() {
        let placing = read(BODY).unwrap().placing(&Agent::default());
        assert_eq!((placing.record, placing.max_duration_s), (Record::As(true), Some(600)));
        assert_eq!(placing.purpose.context["prompt"], "Be kind.");
        assert!(matches!(placing.script.unwrap().then, Then::Listen { silence_ms: 30_000, repeats: 2 }));
    }
}
