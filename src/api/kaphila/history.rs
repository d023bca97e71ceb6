//! Kaphila's history of calls: the log and each of its calls, the events of one, the dashboard and the analytics
//! (CONTRACT 1.1, rows 9 and 15 to 17). Days and weeks are UTC's.

mod figures;

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::words::{Amd, Recording};
use super::{calls, requests, words};
use crate::api::fault::{self, Fault};
use crate::api::{App, json};
use crate::clock;
use crate::control::{Caller, Refusal};
use crate::model::call::{AttemptView, CallView};
use crate::model::{CallerId, Timestamp};
use crate::store::calls::LogRow;
use crate::store::history::EventRow;
use figures::{Overview, Stats};

/// What a handler answers.
type Answer = Result<Response, Fault>;

/// A path segment, percent-decoded once.
type Segment = Result<Path<String>, PathRejection>;

/// Calls on the dashboard.
const RECENT_CALLS: i64 = 10;

#[derive(Serialize, ToSchema)]
#[schema(as = CallLogs)]
struct Logs {
    /// Always true.
    success: bool,
    /// The calls of the page, newest first.
    logs: Vec<Log>,
    /// Calls of all pages.
    total_count: i64,
    /// Which page it is.
    pagination: Pagination,
}

/// One call as every list of the past shows it.
#[derive(Serialize, ToSchema)]
#[schema(as = CallLog)]
struct Log {
    /// The call's id.
    call_id: String,
    /// The number as it was submitted.
    number: String,
    /// `initiated`, `ringing`, `answered`, `completed`, `no_answer`, `busy`, `canceled` or `failed`.
    status: String,
    /// Who answered, where that was asked.
    amd_status: Option<String>,
    /// Seconds from answer to end, or to now.
    duration: i64,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Serialize, ToSchema)]
struct Pagination {
    /// From 1.
    page: u32,
    /// Rows on a page.
    page_size: u32,
    /// Pages there are.
    total_pages: i64,
}

/// `POST /api/call-logs`: the key's calls, newest first.
///
/// # Errors
/// A bad body; a database that failed.
#[utoipa::path(
    post, path = "/api/call-logs", tag = "Kaphila: history", operation_id = "callLogs",
    summary = "The log of calls",
    description = "A page of the key's calls, newest first. The body may be empty.",
    request_body = Option<requests::CallLogs>,
    responses(
        (status = 200, description = "The page", body = Logs),
        (status = 400, description = "A field is wrong", body = super::Refused),
    )
)]
pub async fn call_logs(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = requests::call_logs(&body)?;
    let (page, size) = (i64::from(asked.page), i64::from(asked.page_size));
    let found = app.rooms.db.call_logs(caller.key.id, asked.status.as_deref(), size, (page - 1) * size).await;
    let (rows, total_count) = found.map_err(|error| fault::broken("call logs", &error))?;
    let pagination = Pagination {
        page: asked.page,
        page_size: asked.page_size,
        total_pages: (total_count + size - 1) / size,
    };
    let logs = logs(&app, rows);
    Ok(json(StatusCode::OK, &Logs { success: true, logs, total_count, pagination }))
}

/// A call that is up has lasted until now.
fn logs(app: &App, rows: Vec<LogRow>) -> Vec<Log> {
    let now = clock::now().wall;
    let log = |row: LogRow| {
        let live = app.rooms.live.by_kaphila(&row.kaphila_id);
        let so_far = live.map(|view| view.duration_s(now));
        Log {
            call_id: row.kaphila_id,
            number: row.submitted_number,
            status: row.status,
            amd_status: row.amd_status,
            duration: so_far.unwrap_or(row.duration_s),
            created_at: row.created_at.iso_ms(),
        }
    };
    rows.into_iter().map(log).collect()
}

/// A call in full: its line of the log, and what the log has no room for.
#[derive(Serialize, ToSchema)]
#[schema(as = CallRecord)]
struct Whole<'a> {
    #[serde(flatten)]
    log: Log,
    /// Who the callee saw.
    caller_id: Option<&'a str>,
    /// The voice asked for.
    voice_name: &'a str,
    /// How long it might ring.
    ring_timeout_seconds: u32,
    /// The trunk it went by.
    trunk: Option<&'a str>,
    /// The trunks tried before, and what they said.
    attempts: Vec<Attempt<'a>>,
    /// The trunks that were not tried, and why.
    passed_over: Vec<Passed<'a>>,
    /// The verdict on who answered.
    amd: Option<Amd>,
    /// The call's latest recording.
    recording: Option<Recording>,
    /// When the first trunk was asked.
    #[schema(format = DateTime)]
    dialed_at: Option<String>,
    /// When it first rang.
    #[schema(format = DateTime)]
    ringing_at: Option<String>,
    /// When it was answered.
    #[schema(format = DateTime)]
    answered_at: Option<String>,
    /// When it ended.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Why it ended.
    end_reason: Option<&'static str>,
    /// The Q.850 cause.
    #[schema(examples("16"))]
    hangup_cause: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TrunkAttempt)]
struct Attempt<'a> {
    /// The trunk.
    trunk: &'a str,
    /// Its SIP answer, if there was one.
    code: Option<u16>,
    /// What became of it.
    reason: &'a str,
    /// How long it took.
    elapsed_ms: u32,
    /// How long the trunk asked not to be tried again, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after_s: Option<u32>,
}

/// A trunk that was not tried, and why.
#[derive(Serialize, ToSchema)]
#[schema(as = TrunkPassedOver)]
struct Passed<'a> {
    /// The trunk.
    trunk: &'a str,
    /// Why it was not tried.
    reason: &'a str,
}

impl<'a> Attempt<'a> {
    fn of(attempt: &'a AttemptView) -> Self {
        let AttemptView { trunk, code, reason, elapsed_ms, retry_after_s } = attempt;
        let (code, elapsed_ms, retry_after_s) = (*code, *elapsed_ms, *retry_after_s);
        Self { trunk, code, reason, elapsed_ms, retry_after_s }
    }
}

impl<'a> Whole<'a> {
    fn of(view: &'a CallView, now: Timestamp) -> Self {
        let order = &view.order;
        let moment = |at: Option<Timestamp>| at.map(Timestamp::iso_ms);
        let log = Log {
            call_id: order.kaphila_id.clone(),
            number: order.submitted_number.clone(),
            status: words::status(view).to_owned(),
            amd_status: view.amd.as_ref().map(|amd| amd.status.as_str().to_owned()),
            duration: view.duration_s(now),
            created_at: order.created_at.iso_ms(),
        };
        Self {
            log,
            caller_id: order.from.as_ref().map(CallerId::user),
            voice_name: &order.voice_name,
            ring_timeout_seconds: order.ring_timeout_ms / 1000,
            trunk: view.trunk(),
            attempts: view.attempts.iter().map(Attempt::of).collect(),
            passed_over: view.passed.iter().map(|p| Passed { trunk: &p.trunk, reason: &p.reason }).collect(),
            amd: if view.end.is_some() { Some(Amd::at_end(view)) } else { Amd::of(view) },
            recording: view.recording.as_ref().map(Recording::of),
            dialed_at: moment(view.dialed_at),
            ringing_at: moment(view.ringing_at),
            answered_at: moment(view.answered_at),
            ended_at: moment(view.end.map(|end| end.at)),
            end_reason: view.end.map(|end| end.reason.as_str()),
            hangup_cause: view.end.map(|end| end.q850.to_string()),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = CallRecordShown)]
struct Shown<'a> {
    /// Always true.
    success: bool,
    /// The call.
    call: Whole<'a>,
}

/// `GET /api/call-logs/:callId`: one of the key's calls, live or over.
///
/// # Errors
/// [`Refusal::UnknownCall`].
#[utoipa::path(
    get, path = "/api/call-logs/{callId}", tag = "Kaphila: history", operation_id = "showCallLog",
    summary = "One call of the log",
    description = "With every trunk that was tried and every time that is known.",
    params(("callId" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "The call", body = Shown),
        (status = 404, description = "`Call not found`", body = super::Refused),
    )
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, call: Segment) -> Answer {
    let view = own(&app, &caller, call).await?;
    let call = Whole::of(&view, clock::now().wall);
    Ok(json(StatusCode::OK, &Shown { success: true, call }))
}

/// The key's call of that id, live or over. A live call's view is ahead of the database.
async fn own(app: &App, caller: &Caller, call: Segment) -> Result<Arc<CallView>, Fault> {
    let Path(call) = call.map_err(|_| Refusal::UnknownCall)?;
    if let Ok(view) = app.calls.live(caller, &call) {
        return Ok(view);
    }
    let saved = app.rooms.db.call_of_key(caller.key.id, &call).await;
    let saved = saved.map_err(|error| fault::broken("looking up a call", &error))?;
    Ok(Arc::new(saved.ok_or(Refusal::UnknownCall)?))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallEvents)]
struct Events<'a> {
    /// Always true.
    success: bool,
    /// The call.
    call_id: &'a str,
    /// Its events in their order.
    events: Vec<Event>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CallEvent)]
struct Event {
    /// Its place, from 1.
    sequence: u32,
    /// What happened.
    #[serde(rename = "type")]
    kind: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// What belongs to it; digits are shown as `*`.
    #[schema(value_type = Object)]
    data: Map<String, Value>,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        // Every row's data is an object; one that is none has nothing to show.
        let mut data: Map<String, Value> = serde_json::from_str(&row.data).unwrap_or_default();
        mask_digits(&mut data);
        Self { sequence: row.sequence, kind: row.kind, at: row.at.iso_ms(), data }
    }
}

/// Keys pressed may be somebody's PIN: their number is shown, not which they are (CONTRACT S44).
fn mask_digits(data: &mut Map<String, Value>) {
    for name in ["digit", "digits"] {
        if let Some(Value::String(digits)) = data.get_mut(name) {
            *digits = "*".repeat(digits.chars().count());
        }
    }
}

/// `GET /calls/:callId/events`: what happened to one of the key's calls, live or over, oldest first. With `after`
/// set to the last sequence seen a client catches up on what it has missed.
///
/// # Errors
/// [`Refusal::UnknownCall`]; a bad `limit` or `after`.
#[utoipa::path(
    get, path = "/calls/{callId}/events", tag = "Kaphila: history", operation_id = "callEvents",
    summary = "What happened to a call",
    description = "Of a live call and of one that is over. Digits are counted and not shown.",
    params(
        ("callId" = String, Path, description = "The call's id"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Events listed; 1000 unless said"),
        ("after" = Option<u32>, Query, description = "Only those after this `sequence`"),
    ),
    responses(
        (status = 200, description = "The events", body = Events),
        (status = 400, description = "A parameter is wrong", body = super::Refused),
        (status = 404, description = "`Call not found`", body = super::Refused),
    )
)]
pub async fn events(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    call: Segment,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, after) = requests::events_window(query.as_deref())?;
    let view = own(&app, &caller, call).await?;
    let rows = app.rooms.db.events_after(view.order.id, after, limit).await;
    let rows = rows.map_err(|error| fault::broken("a call's events", &error))?;
    let events = rows.into_iter().map(Event::from).collect();
    Ok(json(StatusCode::OK, &Events { success: true, call_id: &view.order.kaphila_id, events }))
}

#[derive(Serialize, ToSchema)]
struct Dashboard {
    /// Always true.
    success: bool,
    /// The key's figures.
    stats: Stats,
    /// The last ten calls, newest first.
    recent_calls: Vec<Log>,
}

/// `POST /api/dashboard`: the key's calls in a few numbers, and the latest of them.
///
/// # Errors
/// A body that is no object; a database that failed.
#[utoipa::path(
    post, path = "/api/dashboard", tag = "Kaphila: history", operation_id = "dashboard",
    summary = "The key's figures at a glance",
    description = "The body may be empty. Days and weeks are UTC's; weeks begin on Monday.",
    request_body = Option<requests::Nothing>,
    responses(
        (status = 200, description = "The figures", body = Dashboard),
        (status = 400, description = "The body is no JSON object", body = super::Refused),
    )
)]
pub async fn dashboard(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    requests::dashboard(&body)?;
    let broken = |error| fault::broken("the dashboard", &error);
    let now = clock::now().wall;
    let (today, week) = (figures::day_of(now), figures::week_of(now));
    let counts = app.rooms.db.outcomes(caller.key.id, today, week).await.map_err(broken)?;
    let recent = app.rooms.db.call_logs(caller.key.id, None, RECENT_CALLS, 0).await;
    let (recent, _) = recent.map_err(broken)?;
    let stats = Stats::of(calls::credits(&caller), &counts);
    Ok(json(StatusCode::OK, &Dashboard { success: true, stats, recent_calls: logs(&app, recent) }))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Analytics {
    /// Always true.
    success: bool,
    /// `Last <n> days`.
    period: String,
    /// All days together.
    overview: Overview,
    /// Each day that had calls, newest first.
    daily_volume: Vec<figures::Day>,
    /// How calls ended, the most frequent first.
    status_breakdown: Vec<figures::Share>,
}

/// `POST /api/analytics`: the key's calls of the last days that are over, in numbers.
///
/// # Errors
/// A bad body; a database that failed.
#[utoipa::path(
    post, path = "/api/analytics", tag = "Kaphila: history", operation_id = "analytics",
    summary = "Figures of the last days",
    description = "Of calls that are over. The body may be empty.",
    request_body = Option<requests::Analytics>,
    responses(
        (status = 200, description = "The figures", body = Analytics),
        (status = 400, description = "A field is wrong", body = super::Refused),
    )
)]
pub async fn analytics(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let days = requests::analytics(&body)?.days;
    let since = figures::days_back(clock::now().wall, days);
    let counts = app.rooms.db.days(caller.key.id, since).await;
    let counts = counts.map_err(|error| fault::broken("the analytics", &error))?;
    let body = Analytics {
        success: true,
        period: format!("Last {days} days"),
        overview: Overview::of(&counts),
        daily_volume: figures::daily(&counts),
        status_breakdown: figures::shares(&counts),
    };
    Ok(json(StatusCode::OK, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_counted_and_not_shown() {
        for (data, shown) in [
            (r##"{"digit":"#","source":"rfc4733"}"##, r#"{"digit":"*","source":"rfc4733"}"#),
            (r#"{"digits":"1234","remaining":0}"#, r#"{"digits":"****","remaining":0}"#),
            (r#"{"digits":""}"#, r#"{"digits":""}"#),
            (r#"{"trunk":"a-endpoint","attempt":1}"#, r#"{"attempt":1,"trunk":"a-endpoint"}"#),
            ("no object", "{}"),
        ] {
            let row = EventRow { sequence: 1, kind: "x".into(), at: Timestamp(0), data: data.into() };
            let event = serde_json::to_value(Event::from(row)).unwrap();
            assert_eq!(event["data"], serde_json::from_str::<Value>(shown).unwrap(), "{data}");
        }
    }
}
