//! Kaphila's call routes: placing, the verbs on a live call, the live list (CONTRACT 1.1, rows 2 to 9).

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::requests::{self, GatherDigits, HangUp, MakeCall, Play, Say};
use super::words::{self, Amd, Recording};
use crate::api::fault::Fault;
use crate::api::{App, json};
use crate::clock;
use crate::control::{Caller, Placed, Refusal};
use crate::model::call::{CallState, CallView, GatherView};
use crate::model::event::PlayTo;

/// What a handler answers.
type Answer = Result<Response, Fault>;

/// The balance of a key as Kaphila prints it: -1 for one without a limit.
pub fn credits(caller: &Caller) -> i64 {
    caller.key.credits.unwrap_or(-1)
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallPlaced)]
struct PlacedBody<'a> {
    /// Always true.
    success: bool,
    /// The call's id, used by every other route.
    #[schema(pattern = r"^\d{10}\.\d{1,10}$", examples("1739781234.42"))]
    call_id: &'a str,
    /// Always `ringing`.
    status: &'static str,
    /// Whether the answerer is screened.
    amd_enabled: bool,
    /// The voice asked for.
    voice_name: &'a str,
    /// The voice that speaks in its place on this machine.
    voice_resolved: String,
    /// Balance at this moment, this call not yet taken; -1: unlimited.
    #[schema(minimum = -1)]
    credits: i64,
    /// How long it rings.
    ring_timeout_seconds: u32,
    /// The trunk that took it.
    #[schema(examples("mycarrier-endpoint"))]
    trunk: Option<&'a str>,
    /// Trunks tried, this one included.
    trunk_attempts: usize,
    /// Enabled trunks of the key.
    total_trunks: usize,
    /// Now, UTC.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// `POST /makecall`.
///
/// # Errors
/// A field that is wrong; no credit, room or trunk for it.
#[utoipa::path(
    post, path = "/makecall", tag = "Kaphila: calls", operation_id = "makecall",
    summary = "Place a call",
    description = "Answers as soon as a trunk has taken the call; what becomes of it is told by webhook. One credit \
        is held, and taken when somebody answers.",
    request_body = MakeCall,
    responses(
        (status = 200, description = "A trunk has the call and it rings", body = PlacedBody),
        (status = 400, description = "A field is wrong or missing, or the number may not be called",
            body = super::Refused),
        (status = 402, description = "`Insufficient credits`", body = super::Refused),
        (status = 500, description = "Every trunk failed (`ORIGINATION_FAILED`, with the trunks tried), or something \
            broke", body = super::Refused),
        (status = 503, description = "`No trunks assigned`, or no room for more calls", body = super::Refused),
    )
)]
pub async fn place(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    placed(&app, caller, &body).await
}

/// `POST /batchcall`.
///
/// # Errors
/// As [`place`].
#[utoipa::path(
    post, path = "/batchcall", tag = "Kaphila: calls", operation_id = "batchcall",
    summary = "Place a call of a batch",
    description = "The same as `/makecall`; one request for each number.",
    request_body = MakeCall,
    responses(
        (status = 200, description = "A trunk has the call and it rings", body = PlacedBody),
        (status = 400, description = "A field is wrong or missing, or the number may not be called",
            body = super::Refused),
        (status = 402, description = "`Insufficient credits`", body = super::Refused),
        (status = 500, description = "Every trunk failed (`ORIGINATION_FAILED`, with the trunks tried), or something \
            broke", body = super::Refused),
        (status = 503, description = "`No trunks assigned`, or no room for more calls", body = super::Refused),
    )
)]
pub async fn place_of_batch(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    placed(&app, caller, &body).await
}

async fn placed(app: &App, caller: Caller, body: &[u8]) -> Answer {
    let asked = requests::place(body, &app.rooms.config.webhooks)?;
    let credits = credits(&caller);
    let Placed { view, total_trunks } = app.calls.place(caller, asked.into()).await?;
    let order = &view.order;
    let body = PlacedBody {
        success: true,
        call_id: &order.kaphila_id,
        status: "ringing",
        amd_enabled: order.use_amd,
        voice_name: &order.voice_name,
        voice_resolved: app.rooms.speech.resolve(&order.voice_name).to_string(),
        credits,
        ring_timeout_seconds: order.ring_timeout_ms / 1000,
        trunk: view.trunk(),
        trunk_attempts: view.attempts.len(),
        total_trunks,
        timestamp: clock::now().wall.iso_ms(),
    };
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HungUp<'a> {
    /// Always true.
    success: bool,
    /// `Call <id> terminated`.
    message: String,
    /// The call.
    call_id: &'a str,
}

/// `POST /hangup`.
///
/// # Errors
/// A field that is wrong; no such live call.
#[utoipa::path(
    post, path = "/hangup", tag = "Kaphila: calls", operation_id = "hangup",
    summary = "End a call",
    description = "One that still rings is cancelled and costs nothing.",
    request_body = HangUp,
    responses(
        (status = 200, description = "It ends", body = HungUp),
        (status = 400, description = "A field is wrong or missing", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of this key", body = super::Refused),
    )
)]
pub async fn hang_up(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let HangUp { call_id: call, drain } = requests::hang_up(&body)?;
    app.calls.hang_up(&caller, &call, drain).await?;
    let message = format!("Call {call} terminated");
    Ok(json(StatusCode::OK, &HungUp { success: true, message, call_id: &call }))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PlaybackQueued)]
struct PlayedBody<'a> {
    /// Always true.
    success: bool,
    /// What was done, in words.
    message: &'a str,
    /// The text, where one is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<&'a str>,
    /// The sound, where one is played.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    file: Option<&'a str>,
    /// Its id, which comes back in the webhook.
    #[schema(examples("tts-1739781234.42-1739781239000"))]
    playback_id: &'a str,
    /// `bridge` or `channel`, as asked.
    #[schema(pattern = "^(bridge|channel)$")]
    method: &'static str,
}

fn queued(message: &str, text: Option<&str>, file: Option<&str>, playback: &str, to: PlayTo) -> Response {
    let method = to.as_str();
    let body = PlayedBody { success: true, message, text, file, playback_id: playback, method };
    json(StatusCode::OK, &body)
}

/// `POST /voice`.
///
/// # Errors
/// A field that is wrong; no such live call, or nobody has answered it.
#[utoipa::path(
    post, path = "/voice", tag = "Kaphila: calls", operation_id = "voice",
    summary = "Say a text",
    description = "Spoken after what is queued on the call already. `tts.played` tells when it was heard.",
    request_body = Say,
    responses(
        (status = 200, description = "It is queued", body = PlayedBody),
        (status = 400, description = "A field is wrong or missing, or the call is not answered \
            (`CALL_NOT_ANSWERED`)", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of this key", body = super::Refused),
        (status = 500, description = "`TTS failed`, or something broke", body = super::Refused),
        (status = 503, description = "Too much is spoken at once", body = super::Refused),
    )
)]
pub async fn say(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = requests::say(&body)?;
    let playback = app.calls.say(&caller, &asked.call_id, &asked.text, asked.play_to).await?;
    Ok(queued("TTS played successfully", Some(&asked.text), None, &playback, asked.play_to))
}

/// `POST /play`.
///
/// # Errors
/// A field that is wrong; no such live call, nobody has answered it, no such sound.
#[utoipa::path(
    post, path = "/play", tag = "Kaphila: calls", operation_id = "play",
    summary = "Play a sound file",
    description = "A file of the sounds folder, by its name without the ending.",
    request_body = Play,
    responses(
        (status = 200, description = "It is queued", body = PlayedBody),
        (status = 400, description = "A field is wrong or missing, or the call is not answered \
            (`CALL_NOT_ANSWERED`)", body = super::Refused),
        (status = 404, description = "`Call not found` or `Sound file not found`", body = super::Refused),
        (status = 500, description = "The file cannot be played, or something broke", body = super::Refused),
        (status = 503, description = "Too much is played at once", body = super::Refused),
    )
)]
pub async fn play(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = requests::play(&body)?;
    let playback = app.calls.play(&caller, &asked.call_id, &asked.file, asked.play_to).await?;
    let message = format!("Audio file played: {}", asked.file);
    Ok(queued(&message, None, Some(&asked.file), &playback, asked.play_to))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GatherBegun)]
struct Gathering<'a> {
    /// Always true.
    success: bool,
    /// `Gathering <n> digits with <ms>ms timeout`.
    message: String,
    /// The call.
    call_id: &'a str,
    /// Digits waited for.
    expected_digits: u8,
    /// How long, from the end of the prompt or the first key.
    timeout_ms: u32,
}

/// `POST /gather`.
///
/// # Errors
/// A field that is wrong; no such live call, nobody has answered it, or digits are being gathered already.
#[utoipa::path(
    post, path = "/gather", tag = "Kaphila: calls", operation_id = "gather",
    summary = "Ask for digits",
    description = "Says a text and collects the keys that are pressed; the first key stops the text. The digits come \
        by webhook: `gather.progress`, then `gather.complete` or `gather.timeout`.",
    request_body = GatherDigits,
    responses(
        (status = 200, description = "It is queued", body = Gathering),
        (status = 400, description = "A field is wrong or missing, or the call is not answered \
            (`CALL_NOT_ANSWERED`)", body = super::Refused),
        (status = 404, description = "`Call not found`: no live call of this key", body = super::Refused),
        (status = 409, description = "Digits are being gathered already; `replace` ends that",
            body = super::Refused),
        (status = 500, description = "`TTS failed`, or something broke", body = super::Refused),
        (status = 503, description = "Too much is spoken at once", body = super::Refused),
    )
)]
pub async fn gather(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = requests::gather(&body)?;
    let (call, digits, timeout_ms) = (asked.call_id.clone(), asked.num_digits, asked.timeout);
    app.calls.gather(&caller, &call, asked.into()).await?;
    let message = format!("Gathering {digits} digits with {timeout_ms}ms timeout");
    let body = Gathering { success: true, message, call_id: &call, expected_digits: digits, timeout_ms };
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GatherState)]
struct Collecting<'a> {
    /// Always true.
    active: bool,
    /// Digits waited for.
    expected_digits: u8,
    /// Digits pressed so far.
    digits: &'a str,
    /// How long they are waited for.
    timeout_ms: u32,
}

impl<'a> Collecting<'a> {
    fn of(gather: &'a GatherView) -> Self {
        let GatherView { expected, timeout_ms, digits } = gather;
        Self { active: true, expected_digits: *expected, digits, timeout_ms: *timeout_ms }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LiveCall)]
struct Listed<'a> {
    /// The call's id.
    call_id: &'a str,
    /// `initiated`, `ringing` or `answered`.
    status: &'static str,
    /// The number as it was submitted.
    number: &'a str,
    /// The verdict on who answered; nothing while undecided.
    amd: Option<Amd>,
    /// The digits being gathered.
    gather: Option<Collecting<'a>>,
    /// The call's latest recording.
    recording: Option<Recording>,
    /// The voice asked for.
    voice_name: &'a str,
    /// Whether both sides hear each other.
    has_bridge: bool,
}

impl<'a> Listed<'a> {
    fn of(view: &'a CallView) -> Self {
        Self {
            call_id: &view.order.kaphila_id,
            status: words::status(view),
            number: &view.order.submitted_number,
            amd: Amd::of(view),
            gather: view.gather.as_ref().map(Collecting::of),
            recording: view.recording.as_ref().map(Recording::of),
            voice_name: &view.order.voice_name,
            has_bridge: view.state == CallState::Answered,
        }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LiveCalls)]
struct List<'a> {
    /// Always true.
    success: bool,
    /// Live calls of the key.
    total_calls: usize,
    /// The same.
    active_calls: usize,
    /// The calls, oldest first.
    calls: Vec<Listed<'a>>,
    /// Now, UTC.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// `GET /calls`: the key's own live calls, oldest first.
#[utoipa::path(
    get, path = "/calls", tag = "Kaphila: calls", operation_id = "listCalls",
    summary = "The live calls",
    description = "Those of the key that asks, oldest first.",
    responses((status = 200, description = "The calls", body = List))
)]
pub async fn list(State(app): State<App>, Extension(caller): Extension<Caller>) -> Response {
    let live = app.rooms.live.of_key(caller.key.id);
    let body = List {
        success: true,
        total_calls: live.len(),
        active_calls: live.len(),
        calls: live.iter().map(|view| Listed::of(view)).collect(),
        timestamp: clock::now().wall.iso_ms(),
    };
    json(StatusCode::OK, &body)
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LiveCallShown)]
struct Shown<'a> {
    /// Always true.
    success: bool,
    /// The call's id.
    call_id: &'a str,
    /// `initiated`, `ringing` or `answered`.
    status: &'static str,
    /// The number as it was submitted.
    number: &'a str,
    /// The verdict on who answered; nothing while undecided.
    amd: Option<Amd>,
    /// The call's latest recording.
    recording: Option<Recording>,
    /// Whether both sides hear each other.
    has_bridge: bool,
    /// Whether detection still listens.
    has_snoop: bool,
}

/// `GET /calls/:callId`: one live call; detection listens in on it until it has a verdict.
///
/// # Errors
/// [`Refusal::UnknownCall`].
#[utoipa::path(
    get, path = "/calls/{callId}", tag = "Kaphila: calls", operation_id = "showCall",
    summary = "One live call",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "The call", body = Shown),
        (status = 404, description = "`Call not found`: no live call of this key", body = super::Refused),
    )
)]
pub async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    call: Result<Path<String>, PathRejection>,
) -> Answer {
    let call = call.map_err(|_| Refusal::UnknownCall)?;
    let view = app.calls.live(&caller, call.as_str())?;
    let has_bridge = view.state == CallState::Answered;
    let body = Shown {
        success: true,
        call_id: &view.order.kaphila_id,
        status: words::status(&view),
        number: &view.order.submitted_number,
        amd: Amd::of(&view),
        recording: view.recording.as_ref().map(Recording::of),
        has_bridge,
        has_snoop: has_bridge && view.order.use_amd && view.amd.is_none(),
    };
    Ok(json(StatusCode::OK, &body))
}
