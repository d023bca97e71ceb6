//! Phony's agents, and the calls they are sent on (CONTRACT 1.2). One row of the store serves this surface and VoxForge's;
//! each prints its own form of the id and takes either.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Answer, Segment, list as rows, segment, stored, tenant_of, words};
use crate::api::admin::{Query, by};
use crate::api::agent_tools::{self, ToolBody};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::idempotency::Once;
use crate::api::openapi::{Route, route};
use crate::api::{App, json};
use crate::control::agents::{Errand, Idle, InUse, call_by_agent, idle, in_use};
use crate::control::transfer::CONTEXT_MAX_BYTES;
use crate::control::{Caller, Refusal};
use crate::model::agent::{Agent, AgentKind, AgentSettings, AgentTool, Voicemail};
use crate::model::call::Surface;
use crate::model::{CallerId, PhoneNumber};
use crate::relay;
use crate::store::agents::{AgentName, MadeAgent};
use crate::store::numbers::{Number, OnCall};
use crate::store::past::{CountBy, Past, Tally};

/// The fault of a path that names no agent.
pub(super) const MISSING: &str = "Agent not found";

/// Most agents that one answer is made from.
const AGENTS_MAX: u32 = 10_000;
/// Longest prompt, bytes.
const PROMPT_MAX: usize = 32 * 1024;
/// Longest name, characters.
const NAME_MAX: usize = 120;
/// Longest first message, characters.
const MESSAGE_MAX: usize = crate::speech::TEXT_MAX;
/// The voice of agents that name none.
const VOICE: &str = "alloy";
/// The language of agents that name none.
const LANGUAGE: &str = "en-US";

/// The documented routes of agents but for the call.
pub(super) fn routes(once: &Once) -> [Route; 5] {
    [
        route(__path_list, list),
        route(__path_create, create).once(once),
        route(__path_show, show),
        route(__path_change, change),
        route(__path_delete, delete),
    ]
}

/// An agent.
#[derive(Serialize, ToSchema)]
#[schema(as = PhonyAgent)]
struct AgentBody {
    /// Its id.
    #[schema(pattern = "^agent_[0-9]+$")]
    id: String,
    /// For people.
    name: String,
    /// `inbound` or `outbound`.
    r#type: &'static str,
    /// The number it answers and calls from.
    phone_number: Option<String>,
    /// What a language model is told first.
    system_prompt: String,
    /// Its voice.
    voice: String,
    /// `active` or `inactive`.
    status: &'static str,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// Its calls that are over.
    total_calls: i64,
    /// Minutes of them, rounded.
    total_minutes: i64,
    /// Put into each call's context.
    #[schema(value_type = Object)]
    context_data: Map<String, Value>,
    /// A ConversationRelay application that talks in its place.
    relay_url: Option<String>,
    /// `hangup` or `keep`: what becomes of a call when that application is done.
    after_relay: &'static str,
    /// Its calls are recorded.
    record: bool,
    /// What it says by itself.
    first_message: Option<String>,
    /// BCP-47.
    language: String,
    /// Longest call, seconds.
    max_call_duration: Option<u32>,
    /// `continue`, `hangup` or `message`: what it does where a machine answers.
    voicemail: &'static str,
    /// What it says to machines.
    voicemail_message: Option<String>,
    /// Functions that its language model may call.
    tools: Vec<ToolBody>,
}

impl AgentBody {
    fn new(agent: &Agent, number: Option<&Number>, tally: Tally) -> Self {
        let own = &agent.settings;
        Self {
            id: agent.phony_id(),
            name: own.name.clone(),
            r#type: own.kind.as_str(),
            phone_number: number.map(|number| number.number.e164()),
            system_prompt: own.system_prompt.clone(),
            voice: own.voice.clone(),
            status: if own.active { "active" } else { "inactive" },
            created_at: words::time(agent.created_at),
            total_calls: tally.calls,
            total_minutes: minutes(tally.seconds),
            context_data: own.context.clone(),
            relay_url: own.relay_url.clone(),
            after_relay: if own.relay_keeps { "keep" } else { "hangup" },
            record: own.record,
            first_message: own.first_message.clone(),
            language: own.language.clone(),
            max_call_duration: own.max_call_duration_s,
            voicemail: own.voicemail.as_str(),
            voicemail_message: own.voicemail.message().map(str::to_owned),
            tools: agent_tools::shown(&own.tools),
        }
    }
}

/// Seconds as minutes, rounded.
pub(super) fn minutes(seconds: i64) -> i64 {
    (seconds + 30) / 60
}

/// What can be said of an agent. To make one, `name`, `type` and `system_prompt` are needed; a change needs nothing.
#[derive(Default, ToSchema)]
#[schema(as = PhonyAgentFields)]
pub struct AgentFields {
    /// For people, 1 to 120 characters.
    name: Option<String>,
    /// `inbound` or `outbound`.
    #[schema(value_type = Option<String>, pattern = "^(inbound|outbound)$")]
    r#type: Option<AgentKind>,
    /// What a language model is told first, at most 32 KiB.
    system_prompt: Option<String>,
    /// Its voice; `alloy` unless said. Any name has one.
    voice: Option<String>,
    /// Put into each call's context; replaces what was there.
    #[schema(value_type = Option<Object>)]
    context_data: Option<Map<String, Value>>,
    /// `active` or `inactive`.
    #[schema(value_type = Option<String>, pattern = "^(active|inactive)$")]
    status: Option<bool>,
    /// A ConversationRelay application (`wss://…`) that talks in its place; empty: none.
    relay_url: Option<String>,
    /// `hangup` (unless said) or `keep`: what becomes of a call when that application is done.
    #[schema(value_type = Option<String>, pattern = "^(hangup|keep)$")]
    after_relay: Option<bool>,
    /// Its calls are recorded; true unless said.
    record: Option<bool>,
    /// What it says by itself; empty: nothing.
    first_message: Option<String>,
    /// BCP-47; `en-US` unless said.
    language: Option<String>,
    /// Longest call, seconds.
    #[schema(minimum = 10, maximum = 86400)]
    max_call_duration: Option<u32>,
    /// `continue` (unless said), `hangup` or `message`: what it does where a machine answers.
    #[schema(value_type = Option<String>, pattern = "^(continue|hangup|message)$")]
    voicemail: Option<&'static str>,
    /// What it says to machines, after their greeting; needed for `message`.
    voicemail_message: Option<String>,
    /// Functions that its language model may call; they take the place of all there were.
    #[schema(value_type = Option<Vec<ToolBody>>, max_items = 16)]
    tools: Option<Vec<AgentTool>>,
}

impl AgentFields {
    fn read(body: &[u8], app: &App) -> Result<Self, Fault> {
        let fields = Fields::read(body)?;
        let bounded = |name: &str, most: usize| match fields.text(name)? {
            Some(text) if text.chars().count() > most => {
                Err(Fault::Bad(format!("{name} must be at most {most} characters")))
            }
            text => Ok(text.map(str::to_owned)),
        };
        let name = bounded("name", NAME_MAX)?;
        if name.as_ref().is_some_and(|name| name.trim().is_empty() || name.chars().any(char::is_control)) {
            return Err(Fault::Bad(format!("name must be 1 to {NAME_MAX} characters")));
        }
        let system_prompt = fields.text("system_prompt")?.map(str::to_owned);
        if system_prompt.as_ref().is_some_and(|text| text.is_empty() || text.len() > PROMPT_MAX) {
            return Err(Fault::Bad(format!("system_prompt must be 1 to {PROMPT_MAX} bytes")));
        }
        let r#type = match fields.text("type")?.map(AgentKind::from_text) {
            Some(None) => return Err(Fault::Bad("type must be inbound or outbound".into())),
            kind => kind.flatten(),
        };
        let language = bounded("language", 35)?;
        let tag = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if language.as_ref().is_some_and(|text| text.len() < 2 || !text.bytes().all(tag)) {
            return Err(Fault::Bad("language must be a BCP-47 tag".into()));
        }
        let machines = agent_tools::voicemail(&fields, ["voicemail", "voicemail_message"])?;
        let relay_url = bounded("relay_url", 2048)?;
        if let Some(url) = relay_url.as_ref().filter(|url| !url.is_empty()) {
            relay::check_url(url, &app.rooms.config.webhooks)
                .map_err(|error| Fault::Bad(format!("relay_url: {error}")))?;
        }
        Ok(Self {
            name,
            r#type,
            system_prompt,
            voice: bounded("voice", 64)?,
            context_data: context(&fields, "context_data")?,
            status: word(&fields, "status", ["inactive", "active"])?,
            relay_url,
            after_relay: word(&fields, "after_relay", ["hangup", "keep"])?,
            record: fields.flag("record")?,
            first_message: bounded("first_message", MESSAGE_MAX)?,
            language,
            max_call_duration: fields.integer("max_call_duration", 10..=86_400)?,
            voicemail: machines.as_ref().map(Voicemail::as_str),
            voicemail_message: machines.as_ref().and_then(Voicemail::message).map(str::to_owned),
            tools: agent_tools::read(&fields, "tools", &app.rooms.config.webhooks)?,
        })
    }

    fn settings(self) -> Result<AgentSettings, Fault> {
        let required = |name: &str| Fault::Bad(format!("{name} is required"));
        let mut settings = AgentSettings {
            name: self.name.clone().ok_or_else(|| required("name"))?,
            kind: self.r#type.ok_or_else(|| required("type"))?,
            active: true,
            system_prompt: self.system_prompt.clone().ok_or_else(|| required("system_prompt"))?,
            first_message: None,
            voice: VOICE.to_owned(),
            language: LANGUAGE.to_owned(),
            max_call_duration_s: None,
            record: true,
            context: Map::new(),
            relay_url: None,
            relay_keeps: false,
            voicemail: Voicemail::default(),
            tools: Vec::new(),
        };
        self.onto(&mut settings);
        Ok(settings)
    }

    fn onto(self, own: &mut AgentSettings) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        let or_none = |text: Option<String>| text.map(|text| Some(text).filter(|text| !text.is_empty()));
        set(&mut own.name, self.name);
        set(&mut own.kind, self.r#type);
        set(&mut own.system_prompt, self.system_prompt);
        set(&mut own.voice, self.voice.filter(|voice| !voice.is_empty()));
        set(&mut own.context, self.context_data);
        set(&mut own.active, self.status);
        set(&mut own.relay_url, or_none(self.relay_url));
        set(&mut own.relay_keeps, self.after_relay);
        set(&mut own.record, self.record);
        set(&mut own.first_message, or_none(self.first_message));
        set(&mut own.language, self.language);
        set(&mut own.max_call_duration_s, self.max_call_duration.map(Some));
        let message = self.voicemail_message;
        set(
            &mut own.voicemail,
            self.voicemail.and_then(|word| Voicemail::from_text(word, message.as_deref())),
        );
        set(&mut own.tools, self.tools);
    }
}

/// One of two words: the second is `true`.
fn word(fields: &Fields, name: &str, words: [&str; 2]) -> Result<Option<bool>, Fault> {
    match fields.text(name)? {
        None => Ok(None),
        Some(text) if words.contains(&text) => Ok(Some(text == words[1])),
        Some(_) => Err(Fault::Bad(format!("{name} must be {} or {}", words[0], words[1]))),
    }
}

/// A customer's own object.
pub(super) fn context(fields: &Fields, name: &str) -> Result<Option<Map<String, Value>>, Fault> {
    let Some(object) = fields.object(name)?.map(Fields::into_object) else { return Ok(None) };
    if Value::Object(object.clone()).to_string().len() > CONTEXT_MAX_BYTES {
        return Err(Fault::Bad(format!("{name} must be at most {CONTEXT_MAX_BYTES} bytes")));
    }
    Ok(Some(object))
}

/// The numbers of a tenant by the agent they are assigned to, in either form of its id.
async fn assigned(app: &App, tenant: &str) -> Result<BTreeMap<String, Number>, Fault> {
    let (numbers, _) = app.rooms.db.numbers(Some(tenant), AGENTS_MAX, 0).await.map_err(stored)?;
    let named = |number: Number| match &number.on_call {
        OnCall::Agent(agent) => Some((agent.clone(), number)),
        OnCall::Nothing | OnCall::Webhook { .. } | OnCall::Play(_) | OnCall::Echo => None,
    };
    // The first of several is shown: they come in order, and a later one does not take an earlier one's place.
    Ok(numbers.into_iter().rev().filter_map(named).collect())
}

fn number_of<'a>(numbers: &'a BTreeMap<String, Number>, agent: &Agent) -> Option<&'a Number> {
    numbers.get(&agent.phony_id()).or_else(|| numbers.get(&agent.cuid))
}

/// The number that is assigned to an agent, the first of several.
async fn own_number(app: &App, agent: &Agent) -> Result<Option<Number>, Fault> {
    let names = [&*agent.phony_id(), &*agent.cuid];
    app.rooms.db.number_of_agent(&agent.tenant, names).await.map_err(stored)
}

/// The body of one agent.
async fn shown(app: &App, agent: &Agent) -> Result<AgentBody, Fault> {
    let number = own_number(app, agent).await?;
    let past = Past { tenant: &agent.tenant, agent: Some(agent.id), ..Past::default() };
    let tally = app.rooms.db.tallies(&past, CountBy::Agent).await.map_err(stored)?;
    Ok(AgentBody::new(agent, number.as_ref(), tally.first().copied().unwrap_or_default()))
}

/// The caller's agent of that name.
pub(super) async fn found(app: &App, caller: &Caller, name: &str) -> Result<Agent, Fault> {
    let agent = app.rooms.db.agent(&caller.key.tenant, AgentName::Public(name)).await.map_err(stored)?;
    agent.ok_or(Fault::Missing(MISSING))
}

/// `GET /api/agents`.
#[utoipa::path(
    get, path = "/api/agents", tag = "Phony: agents", operation_id = "phonyListAgents",
    summary = "The tenant's agents",
    description = "Oldest first. `limit` and `offset` are taken; `X-Total-Count` says how many there are.",
    params(
        ("tenant_id" = Option<String>, Query, description = "Another tenant's, for admins"),
        ("status" = Option<String>, Query, description = "`active` or `inactive`"),
        ("type" = Option<String>, Query, description = "`inbound` or `outbound`"),
    ),
    responses(
        (status = 200, description = "The agents", body = [AgentBody]),
        (status = 400, description = "A filter has another value", body = super::Refused),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref());
    let kind = match query.text("type").map(AgentKind::from_text) {
        Some(None) => return Err(Fault::Bad("type must be inbound or outbound".into())),
        kind => kind.flatten(),
    };
    let active = match query.text("status") {
        None => None,
        Some("active") => Some(true),
        Some("inactive") => Some(false),
        Some(_) => return Err(Fault::Bad("status must be active or inactive".into())),
    };
    let (limit, offset) = query.window_of(1000)?;
    let tenant = tenant_of(&caller, query.text("tenant_id"))?;
    let db = &app.rooms.db;
    let mut agents = db.agents(&tenant, AGENTS_MAX, 0).await.map_err(stored)?;
    agents.retain(|agent| {
        let own = &agent.settings;
        kind.is_none_or(|kind| own.kind == kind) && active.is_none_or(|active| own.active == active)
    });
    let numbers = assigned(&app, &tenant).await?;
    let past = Past { tenant: &tenant, ..Past::default() };
    let tallies = db.tallies(&past, CountBy::Agent).await.map_err(stored)?;
    let tallies: BTreeMap<i64, Tally> = tallies.into_iter().map(|tally| (tally.of, tally)).collect();
    let body = |agent: &Agent| {
        let tally = tallies.get(&agent.id).copied().unwrap_or_default();
        AgentBody::new(agent, number_of(&numbers, agent), tally)
    };
    let page = agents.iter().skip(offset as usize).take(limit as usize);
    let bodies: Vec<AgentBody> = page.map(body).collect();
    Ok(rows(&bodies, i64::try_from(agents.len()).unwrap_or(i64::MAX)))
}

/// `POST /api/agents`.
#[utoipa::path(
    post, path = "/api/agents", tag = "Phony: agents", operation_id = "phonyCreateAgent",
    summary = "Make an agent",
    request_body = AgentFields,
    responses(
        (status = 201, description = "It is made", body = AgentBody),
        (status = 400, description = "A field is wrong or missing", body = super::Refused),
        (status = 403, description = "The tenant has as many agents as it may have", body = super::Refused),
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let settings = AgentFields::read(&body, &app)?.settings()?;
    let made = app.rooms.db.create_agent(&caller.key.tenant, settings, None, by(&caller)).await;
    match made.map_err(stored)? {
        MadeAgent::Made(agent) => {
            Ok(json(StatusCode::CREATED, &AgentBody::new(&agent, None, Tally::default())))
        }
        MadeAgent::Full => Err(Refusal::Forbidden.into()),
    }
}

/// `GET /api/agents/{agent}`.
#[utoipa::path(
    get, path = "/api/agents/{agent}", tag = "Phony: agents", operation_id = "phonyShowAgent",
    summary = "One agent",
    params(("agent" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The agent", body = AgentBody),
        (status = 404, description = "`Agent not found`", body = super::Refused),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
) -> Answer {
    let agent = found(&app, &caller, &segment(name, MISSING)?).await?;
    Ok(json(StatusCode::OK, &shown(&app, &agent).await?))
}

/// `PUT /api/agents/{agent}`.
#[utoipa::path(
    put, path = "/api/agents/{agent}", tag = "Phony: agents", operation_id = "phonyChangeAgent",
    summary = "Change an agent",
    description = "What is not said stays as it is.",
    params(("agent" = String, Path, description = "Its id")),
    request_body = AgentFields,
    responses(
        (status = 200, description = "The agent as it is now", body = AgentBody),
        (status = 400, description = "A field is wrong", body = super::Refused),
        (status = 404, description = "`Agent not found`", body = super::Refused),
    )
)]
pub(super) async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
    body: Bytes,
) -> Answer {
    let changes = AgentFields::read(&body, &app)?;
    let name = segment(name, MISSING)?;
    let change = |own: &mut AgentSettings| changes.onto(own);
    let (db, tenant) = (&app.rooms.db, &caller.key.tenant);
    let changed = db.change_agent(tenant, AgentName::Public(&name), change, by(&caller)).await;
    let agent = changed.map_err(stored)?.ok_or(Fault::Missing(MISSING))?;
    Ok(json(StatusCode::OK, &shown(&app, &agent).await?))
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyMessage)]
struct Message {
    /// What was done.
    message: &'static str,
}

/// `DELETE /api/agents/{agent}`.
#[utoipa::path(
    delete, path = "/api/agents/{agent}", tag = "Phony: agents", operation_id = "phonyDeleteAgent",
    summary = "Delete an agent",
    description = "Its number is free again; the history keeps its calls.",
    params(("agent" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "It is deleted", body = Message),
        (status = 404, description = "`Agent not found`", body = super::Refused),
        (status = 409, description = "It has live calls, or a campaign wants it", body = super::Refused),
    )
)]
pub(super) async fn delete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
) -> Answer {
    let db = &app.rooms.db;
    let agent = found(&app, &caller, &segment(name, MISSING)?).await?;
    match in_use(db, agent.id).await.map_err(stored)? {
        Some(InUse::Calls) => return Err(Fault::Conflict("Agent has active calls".into())),
        Some(InUse::Campaigns) => return Err(Fault::Conflict("Agent is in a campaign".into())),
        None => {}
    }
    if !db.delete_agent(&agent.tenant, agent.id, by(&caller)).await.map_err(stored)? {
        return Err(Fault::Missing(MISSING));
    }
    Ok(json(StatusCode::OK, &Message { message: "Agent deleted successfully" }))
}

/// Whom an agent shall call.
#[derive(ToSchema)]
#[schema(as = PhonyCallOrder)]
pub struct CallFields {
    /// The number, E.164 with its plus.
    #[schema(value_type = String, pattern = r"^\+[1-9][0-9]{6,14}$")]
    to_number: PhoneNumber,
    /// What shall be remembered of the call; stands over what the agent has.
    #[schema(value_type = Option<Object>)]
    context: Map<String, Value>,
}

impl CallFields {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let fields = Fields::read(body)?;
        let to_number = e164(&fields, "to_number")?;
        Ok(Self { to_number, context: context(&fields, "context")?.unwrap_or_default() })
    }
}

/// A number that must be there, in E.164 with its plus.
pub(super) fn e164(fields: &Fields, name: &str) -> Result<PhoneNumber, Fault> {
    let text = fields.required_text(name)?;
    let digits = text.strip_prefix('+').filter(|digits| (7..=15).contains(&digits.len()));
    let number = digits.filter(|digits| !digits.starts_with('0')).and_then(PhoneNumber::from_digits);
    number.ok_or_else(|| Fault::Bad(format!("{name} must be an E.164 number with its plus")))
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyCallPlaced)]
struct Placed {
    /// The call's id, used by every other route.
    #[schema(pattern = "^CA[0-9a-f]{32}$")]
    call_sid: String,
    /// Always `queued`.
    status: &'static str,
    /// What was done.
    message: &'static str,
}

/// `POST /api/agents/{agent}/call`.
#[utoipa::path(
    post, path = "/api/agents/{agent}/call", tag = "Phony: calls", operation_id = "phonyCall",
    summary = "Have an agent call somebody",
    description = "Answers as soon as the call is taken; what becomes of it is told by `/events/ws`.",
    params(("agent" = String, Path, description = "Its id")),
    request_body = CallFields,
    responses(
        (status = 200, description = "It is taken", body = Placed),
        (status = 400, description = "A field is wrong, or the agent does not call", body = super::Refused),
        (status = 404, description = "`Agent not found`", body = super::Refused),
        (status = 409, description = "The agent is inactive", body = super::Refused),
        (status = 503, description = "No trunk, or no room for more calls", body = super::Refused),
    )
)]
pub(super) async fn call(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
    body: Bytes,
) -> Answer {
    let CallFields { to_number: to, context } = CallFields::read(&body)?;
    let agent = found(&app, &caller, &segment(name, MISSING)?).await?;
    match idle(&agent) {
        Some(Idle::Inbound) => return Err(Fault::Bad("An inbound agent does not call".into())),
        Some(Idle::Inactive) => return Err(Fault::Conflict("Agent is inactive".into())),
        None => {}
    }
    let number = own_number(&app, &agent).await?;
    let from = number.map(|number| CallerId::Number(number.number.e164()));
    let errand = Errand { surface: Surface::Phony, to, from, campaign: None, contact: None, context };
    let asked = call_by_agent(&agent, errand, &caller.key, &app.rooms.config.agent);
    let queued = app.calls.queue(caller, asked).await?;
    let (status, message) = ("queued", "Call initiated successfully");
    let body = Placed { call_sid: queued.view.order.id.call_sid(), status, message };
    Ok(json(StatusCode::OK, &body))
}
