//! VoxForge's calls (CONTRACT 1.3, 4.3): all those of the tenant, whichever surface placed them, and one by an agent.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Map;
use utoipa::ToSchema;

use super::recordings::link;
use super::{Answer, Segment, Wrong, agents, named, numbers, span, words};
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::clock;
use crate::control::Caller;
use crate::control::agents::{Errand, Idle, bound_by_plan, call_by_agent, idle};
use crate::model::call::Surface;
use crate::model::event::Speaker;
use crate::model::id::agent_cuid;
use crate::model::turn::Turn as SaidTurn;
use crate::model::{CallId, CallerId, Timestamp, forms};
use crate::store::agents::AgentName;
use crate::store::tenant_calls::{CallFilter, Stage, TenantCall};

/// What a 404 calls it.
const KIND: &str = "Call";

/// Rows of the list where the request does not say, and most of them.
const ROWS: i64 = 50;
const ROWS_MAX: i64 = 200;

/// The words of `status` in a query.
const STAGES: &[(&str, Stage)] = &[
    ("queued", Stage::Queued),
    ("in-progress", Stage::Up),
    ("completed", Stage::Completed),
    ("failed", Stage::Failed),
];

/// A call in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeCall)]
struct Brief {
    /// Its id.
    id: String,
    /// `queued`, `in-progress`, `completed` or `failed`.
    status: &'static str,
    /// `outbound` or `inbound`.
    direction: &'static str,
    /// Who was called.
    to: String,
    /// Whole seconds from answer to end, or so far.
    duration: i64,
    /// What was said, in a few sentences; null until it is known.
    summary: Option<String>,
    /// `positive`, `neutral` or `negative`; null likewise.
    sentiment: Option<&'static str>,
    /// Gives the recording to whoever asks for it within an hour; null while there is none.
    recording_url: Option<String>,
    /// Placed.
    #[schema(format = DateTime)]
    created_at: String,
}

/// The list.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeCalls)]
struct List {
    /// Newest first.
    calls: Vec<Brief>,
    /// How many there are.
    total: i64,
    /// As asked, or 50.
    limit: u32,
    /// As asked, or 0.
    offset: u32,
}

/// A call in full.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeCallFull)]
struct Full {
    #[serde(flatten)]
    brief: Brief,
    /// Who seems to call.
    from: Option<String>,
    /// The agent that talks.
    agent_id: Option<String>,
    /// The campaign it belongs to.
    campaign_id: Option<String>,
    /// The contact that was called.
    contact_id: Option<String>,
    /// Dialled.
    #[schema(format = DateTime)]
    started_at: Option<String>,
    /// Answered.
    #[schema(format = DateTime)]
    answered_at: Option<String>,
    /// Over.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Why it ended.
    #[schema(examples("normal_hangup"))]
    end_reason: Option<&'static str>,
    /// What was said, as far as it is known.
    transcript: Vec<Turn>,
    /// What the language model says of the conversation; null until it does, and where there was none.
    #[schema(nullable)]
    analysis: Option<Analysed>,
}

/// What is said of a conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeAnalysis)]
struct Analysed {
    /// What was said, in a few sentences.
    summary: String,
    /// `positive`, `neutral` or `negative`.
    sentiment: &'static str,
}

/// One turn of a conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeTurn)]
struct Turn {
    /// `agent` or `user`.
    role: &'static str,
    /// The words; of a key that was pressed, which.
    text: String,
    /// Seconds after the answer; not before it began where that is not known.
    start: f64,
    /// Seconds after the answer.
    end: f64,
}

/// A call to be placed.
#[derive(Debug, ToSchema)]
#[schema(as = VoxForgeCallInput, rename_all = "camelCase")]
pub struct Input {
    /// The agent that talks.
    agent_id: String,
    /// The number that seems to call.
    phone_number_id: String,
    /// Whom to call, in E.164 form.
    #[schema(value_type = String, examples("+15551234567"))]
    to: crate::model::PhoneNumber,
}

impl Input {
    fn read(fields: &Fields) -> Result<Self, Fault> {
        let agent_id = fields.required_text("agentId")?.to_owned();
        let phone_number_id = fields.required_text("phoneNumberId")?.to_owned();
        let to = forms::e164(fields.required_text("to")?);
        let to = to.ok_or_else(|| Fault::Bad("to must be a number in E.164 form".into()))?;
        Ok(Self { agent_id, phone_number_id, to })
    }
}

impl Brief {
    fn new(app: &App, headers: &HeaderMap, call: &TenantCall) -> Self {
        let TenantCall { view, recording, analysis } = call;
        let now = clock::now().wall;
        let order = &view.order;
        Self {
            id: order.id.cuid(),
            status: words::status(view),
            direction: order.purpose.direction.as_str(),
            to: order.to.e164(),
            duration: view.duration_s(now),
            summary: analysis.as_ref().map(|said| said.summary.clone()),
            sentiment: analysis.as_ref().map(|said| said.sentiment.as_str()),
            recording_url: recording.as_ref().map(|recording| link(app, headers, recording, now)),
            created_at: order.created_at.iso_ms(),
        }
    }
}

impl Turn {
    fn new(turn: SaidTurn, answered: Timestamp) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "calls last hours, not millennia")]
        let seconds = |at: Timestamp| (at.0 - answered.0).max(0) as f64 / 1000.0;
        let role = match turn.by {
            Speaker::Agent => "agent",
            Speaker::Caller => "user",
        };
        Self { role, text: turn.text, start: seconds(turn.span.from), end: seconds(turn.span.until) }
    }
}

async fn full(app: &App, headers: &HeaderMap, call: TenantCall) -> Result<Full, Wrong> {
    let brief = Brief::new(app, headers, &call);
    let TenantCall { view, analysis, .. } = call;
    let order = &view.order;
    let turns = app.rooms.db.transcript(order.id, view.answered_at).await?;
    let answered = view.answered_at.unwrap_or_default();
    let purpose = &order.purpose;
    Ok(Full {
        brief,
        from: order.from.as_ref().map(|from| from.user().to_owned()),
        agent_id: purpose.agent.map(agent_cuid),
        campaign_id: purpose.campaign.clone(),
        contact_id: purpose.contact.clone(),
        started_at: view.dialed_at.map(Timestamp::iso_ms),
        answered_at: view.answered_at.map(Timestamp::iso_ms),
        ended_at: view.end.map(|end| end.at.iso_ms()),
        end_reason: view.end.map(|end| end.reason.as_str()),
        transcript: turns.into_iter().map(|turn| Turn::new(turn, answered)).collect(),
        analysis: analysis.map(|said| Analysed { summary: said.summary, sentiment: said.sentiment.as_str() }),
    })
}

/// What a query says, with its agent found; `None` where there is no such agent, and so no such call.
async fn filter(app: &App, caller: &Caller, query: &Query) -> Result<Option<CallFilter>, Wrong> {
    let stage = match query.text("status") {
        None => None,
        Some(word) => {
            let known = STAGES.iter().find(|(known, _)| *known == word);
            let wrong = || Wrong::bad("status must be one of queued, in-progress, completed, failed");
            Some(known.ok_or_else(wrong)?.1)
        }
    };
    let (from, to) = span(query)?;
    let agent = match query.text("agentId") {
        None => None,
        Some(id) => match app.rooms.db.agent_ever(&caller.key.tenant, AgentName::Public(id)).await? {
            Some((agent, _)) => Some(agent.id),
            None => return Ok(None),
        },
    };
    let campaign = query.text("campaignId").map(str::to_owned);
    Ok(Some(CallFilter { stage, agent, campaign, from, to }))
}

/// `GET /api/v1/calls`.
///
/// # Errors
/// A bad parameter.
#[utoipa::path(
    get, path = "/api/v1/calls", tag = "VoxForge: calls", operation_id = "voxforgeListCalls",
    summary = "The calls, newest first",
    description = "All calls of the tenant, whichever surface placed them.",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 unless said"),
        ("offset" = Option<u32>, Query, description = "Calls skipped"),
        ("status" = Option<String>, Query, description = "`queued`, `in-progress`, `completed` or `failed`"),
        ("agentId" = Option<String>, Query, description = "Only those of this agent"),
        ("campaignId" = Option<String>, Query, description = "Only those of this campaign"),
        ("from" = Option<String>, Query, description = "Only those placed then or later: a moment or a day"),
        ("to" = Option<String>, Query, description = "Only those placed then or earlier; a day counts whole"),
    ),
    responses(
        (status = 200, description = "The calls", body = List),
        (status = 400, description = "A parameter is wrong"),
    )
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = Query::read(query.as_deref());
    let small = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    let limit = small(query.number("limit", 1..=ROWS_MAX)?.unwrap_or(ROWS));
    let offset = small(query.number("offset", 0..=i64::from(u32::MAX))?.unwrap_or(0));
    let (rows, total) = match filter(&app, &caller, &query).await? {
        Some(filter) => app.rooms.db.tenant_calls(&caller.key.tenant, &filter, limit, offset).await?,
        None => (Vec::new(), 0),
    };
    let calls = rows.iter().map(|row| Brief::new(&app, &headers, row)).collect();
    Ok(json(StatusCode::OK, &List { calls, total, limit, offset }))
}

/// `POST /api/v1/calls`: an agent calls; answered as soon as the call is taken.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`] for agent and number; what placing refuses.
#[utoipa::path(
    post, path = "/api/v1/calls", tag = "VoxForge: calls", operation_id = "voxforgeCreateCall",
    summary = "Have an agent call",
    request_body = Input,
    responses(
        (status = 201, description = "The call is taken", body = Full),
        (status = 400, description = "A field is wrong, or the agent is not active"),
        (status = 404, description = "There is no such agent or number"),
        (status = 422, description = "No more calls at once, or no credits"),
        (status = 503, description = "The engine is full or stopping"),
    )
)]
pub async fn create(
    State(app): State<App>,
    Extension(mut caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let Input { agent_id, phone_number_id, to } = Input::read(&Fields::read(&body)?)?;
    let agent = agents::find(&app, &caller, agent_id).await?;
    let number = numbers::find(&app, &caller, &phone_number_id).await?;
    match idle(&agent) {
        Some(Idle::Inbound) => return Err(Wrong::bad("Agent does not place calls")),
        Some(Idle::Inactive) => return Err(Wrong::bad("Agent is not active")),
        None => {}
    }
    bound_by_plan(&mut caller.key, &app.rooms.config.plans);
    let errand = Errand {
        surface: Surface::VoxForge,
        to,
        from: Some(CallerId::Number(number.number.e164())),
        campaign: None,
        contact: None,
        context: Map::new(),
    };
    let call = call_by_agent(&agent, errand, &caller.key, &app.rooms.config.agent);
    let queued = app.calls.queue(caller, call).await?;
    let call = TenantCall { view: (*queued.view).clone(), recording: None, analysis: None };
    Ok(json(StatusCode::CREATED, &full(&app, &headers, call).await?))
}

/// `GET /api/v1/calls/:id`, for live calls and for those that are over.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/calls/{id}", tag = "VoxForge: calls", operation_id = "voxforgeShowCall",
    summary = "A call in full",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The call", body = Full), (status = 404, description = "There is none"))
)]
pub async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
    headers: HeaderMap,
) -> Answer {
    let id = named(KIND, id)?;
    let call = CallId::from_cuid(&id);
    let found = match call {
        Some(call) => app.rooms.db.tenant_call(&caller.key.tenant, call).await?,
        None => None,
    };
    let Some(mut found) = found else { return Err(Wrong::NoSuch(KIND, id)) };
    // What lives is known sooner than it is written.
    if let Some(live) = call.and_then(|call| app.rooms.live.get(call)) {
        found.view = (*live).clone();
    }
    Ok(json(StatusCode::OK, &full(&app, &headers, found).await?))
}
