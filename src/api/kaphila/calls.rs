//! Kaphila's call routes: placing, the verbs on a live call, the live list (CONTRACT 1.1, rows 2 to 9).

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::requests;
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlacedBody<'a> {
    success: bool,
    call_id: &'a str,
    status: &'static str,
    amd_enabled: bool,
    voice_name: &'a str,
    voice_resolved: String,
    credits: i64,
    ring_timeout_seconds: u32,
    trunk: Option<&'a str>,
    trunk_attempts: usize,
    total_trunks: usize,
    timestamp: String,
}

/// `POST /makecall` and `POST /batchcall`.
pub async fn place(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = requests::place(&body, &app.rooms.config.webhooks)?;
    let credits = credits(&caller);
    let Placed { view, total_trunks } = app.calls.place(caller, asked).await?;
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HungUp<'a> {
    success: bool,
    message: String,
    call_id: &'a str,
}

/// `POST /hangup`.
pub async fn hang_up(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let (call, drain) = requests::hang_up(&body)?;
    app.calls.hang_up(&caller, &call, drain).await?;
    let message = format!("Call {call} terminated");
    Ok(json(StatusCode::OK, &HungUp { success: true, message, call_id: &call }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlayedBody<'a> {
    success: bool,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    playback_id: &'a str,
    method: &'static str,
}

fn played(message: &str, text: Option<&str>, file: Option<&str>, playback: &str, to: PlayTo) -> Response {
    let method = to.as_str();
    let body = PlayedBody { success: true, message, text, file, playback_id: playback, method };
    json(StatusCode::OK, &body)
}

/// `POST /voice`.
pub async fn say(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = requests::say(&body)?;
    let playback = app.calls.say(&caller, &asked.call, &asked.text, asked.to).await?;
    Ok(played("TTS played successfully", Some(&asked.text), None, &playback, asked.to))
}

/// `POST /play`.
pub async fn play(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = requests::play(&body)?;
    let playback = app.calls.play(&caller, &asked.call, &asked.file, asked.to).await?;
    let message = format!("Audio file played: {}", asked.file);
    Ok(played(&message, None, Some(&asked.file), &playback, asked.to))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gathering<'a> {
    success: bool,
    message: String,
    call_id: &'a str,
    expected_digits: u8,
    timeout_ms: u32,
}

/// `POST /gather`.
pub async fn gather(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let (call, asked) = requests::gather(&body)?;
    let (digits, timeout_ms) = (asked.num_digits, asked.timeout_ms);
    app.calls.gather(&caller, &call, asked).await?;
    let message = format!("Gathering {digits} digits with {timeout_ms}ms timeout");
    let body = Gathering { success: true, message, call_id: &call, expected_digits: digits, timeout_ms };
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Collecting<'a> {
    active: bool,
    expected_digits: u8,
    digits: &'a str,
    timeout_ms: u32,
}

impl<'a> Collecting<'a> {
    fn of(gather: &'a GatherView) -> Self {
        let GatherView { expected, timeout_ms, digits } = gather;
        Self { active: true, expected_digits: *expected, digits, timeout_ms: *timeout_ms }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    call_id: &'a str,
    status: &'static str,
    number: &'a str,
    amd: Option<Amd>,
    gather: Option<Collecting<'a>>,
    recording: Option<Recording>,
    voice_name: &'a str,
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    success: bool,
    total_calls: usize,
    active_calls: usize,
    calls: Vec<Listed<'a>>,
    timestamp: String,
}

/// `GET /calls`: the key's own live calls, oldest first.
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    success: bool,
    call_id: &'a str,
    status: &'static str,
    number: &'a str,
    amd: Option<Amd>,
    recording: Option<Recording>,
    has_bridge: bool,
    has_snoop: bool,
}

/// `GET /calls/:callId`: one live call; detection listens in on it until it has a verdict.
pub async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    call: Result<Path<String>, PathRejection>,
) -> Answer {
    let call = call.map_err(|_| Refusal::UnknownCall)?;
    let view = app.calls.live(&caller, &call)?;
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
