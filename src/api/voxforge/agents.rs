//! VoxForge's agents (CONTRACT 1.3), the same rows that Phony has: `isActive` is its `status`, and an agent made here is
//! one that calls.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Map;
use utoipa::ToSchema;

use super::{Answer, Deleted, Segment, Wrong, array, deleted, named, text_within, window};
use crate::api::admin::{Query, by};
use crate::api::agent_tools::{self, ToolBody};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::config::Webhooks;
use crate::control::Caller;
use crate::control::agents::{InUse, in_use};
use crate::model::agent::{Agent, AgentKind, AgentSettings, AgentTool, Voicemail};
use crate::model::forms;
use crate::store::agents::{AgentName, MadeAgent};

/// What a 404 calls it.
const KIND: &str = "Agent";

/// Longest name, first words and prompt, characters.
const NAME_MAX: usize = 120;
const WORDS_MAX: usize = 5000;
const PROMPT_MAX: usize = 32 * 1024;

/// Seconds that a call of an agent's may last where it does not say.
const DURATION_S: u32 = 600;

/// An agent in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeAgent)]
struct Brief {
    /// Its id.
    id: String,
    /// For people.
    name: String,
    /// It may place and take calls.
    is_active: bool,
    /// Its voice.
    voice: String,
    /// What it says by itself.
    first_message: Option<String>,
    /// Made.
    #[schema(format = DateTime)]
    created_at: String,
}

/// An agent in full.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeAgentFull)]
struct Full {
    #[serde(flatten)]
    brief: Brief,
    /// What the language model is told first.
    system_prompt: String,
    /// BCP-47.
    language: String,
    /// Seconds.
    max_call_duration: u32,
    /// Its calls are recorded.
    record: bool,
    /// `continue`, `hangup` or `message`: what it does where a machine answers.
    voicemail: &'static str,
    /// What it says to machines.
    voicemail_message: Option<String>,
    /// Functions that its language model may call.
    tools: Vec<ToolBody>,
    /// Last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<Agent> for Brief {
    fn from(agent: Agent) -> Self {
        let settings = agent.settings;
        Self {
            id: agent.cuid,
            name: settings.name,
            is_active: settings.active,
            voice: settings.voice,
            first_message: settings.first_message,
            created_at: agent.created_at.iso_ms(),
        }
    }
}

impl Full {
    fn new(app: &App, agent: Agent) -> Self {
        let settings = &agent.settings;
        let longest = app.rooms.config.limits.max_call_duration_s;
        Self {
            system_prompt: settings.system_prompt.clone(),
            language: settings.language.clone(),
            max_call_duration: settings.max_call_duration_s.unwrap_or(longest),
            record: settings.record,
            voicemail: settings.voicemail.as_str(),
            voicemail_message: settings.voicemail.message().map(str::to_owned),
            tools: agent_tools::shown(&settings.tools),
            updated_at: agent.updated_at.iso_ms(),
            brief: agent.into(),
        }
    }
}

/// What a body says of an agent.
#[derive(Default, ToSchema)]
#[schema(as = VoxForgeAgentInput, rename_all = "camelCase")]
pub struct Input {
    /// For people; needed to make one.
    #[schema(min_length = 1, max_length = 120)]
    name: Option<String>,
    /// What the language model is told first; needed to make one.
    system_prompt: Option<String>,
    /// What it says by itself; empty: nothing of its own.
    #[schema(max_length = 5000)]
    first_message: Option<String>,
    /// `jennifer` unless said.
    voice: Option<String>,
    /// BCP-47; `en-US` unless said.
    language: Option<String>,
    /// Seconds; 600 unless said.
    #[schema(minimum = 10, maximum = 14400)]
    max_call_duration: Option<u32>,
    /// Its calls are recorded, which they are unless said.
    record: Option<bool>,
    /// It may place and take calls, which it may unless said.
    is_active: Option<bool>,
    /// `continue` (unless said), `hangup` or `message`: what it does where a machine answers.
    #[schema(value_type = Option<String>, pattern = "^(continue|hangup|message)$")]
    voicemail: Option<&'static str>,
    /// What it says to machines, after their greeting; needed for `message`.
    #[schema(max_length = 5000)]
    voicemail_message: Option<String>,
    /// Functions that its language model may call; they take the place of all there were.
    #[schema(value_type = Option<Vec<ToolBody>>, max_items = 16)]
    tools: Option<Vec<AgentTool>>,
}

impl Input {
    fn read(fields: &Fields, webhooks: &Webhooks) -> Result<Self, Fault> {
        let text = |name: &str, least, most| -> Result<Option<String>, Fault> {
            fields.text(name)?.map(|text| text_within(name, text, least, most)).transpose()
        };
        let language = fields.text("language")?;
        if language.is_some_and(|tag| !forms::is_language(tag)) {
            return Err(Fault::Bad("language must be a BCP-47 tag".into()));
        }
        let machines = agent_tools::voicemail(fields, ["voicemail", "voicemailMessage"])?;
        let voice = fields.text("voice")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if voice.is_some_and(|name| !(1..=64).contains(&name.len()) || !name.bytes().all(plain)) {
            return Err(Fault::Bad("voice must be 1 to 64 of A-Z a-z 0-9 - _".into()));
        }
        Ok(Self {
            name: text("name", 1, NAME_MAX)?,
            system_prompt: text("systemPrompt", 1, PROMPT_MAX)?,
            first_message: text("firstMessage", 0, WORDS_MAX)?,
            voice: voice.map(str::to_owned),
            language: language.map(str::to_owned),
            max_call_duration: fields.integer("maxCallDuration", 10..=14_400)?,
            record: fields.flag("record")?,
            is_active: fields.flag("isActive")?,
            voicemail: machines.as_ref().map(Voicemail::as_str),
            voicemail_message: machines.as_ref().and_then(Voicemail::message).map(str::to_owned),
            tools: agent_tools::read(fields, "tools", webhooks)?,
        })
    }

    fn apply(self, settings: &mut AgentSettings) {
        let set = |place: &mut String, value: Option<String>| *place = value.unwrap_or(std::mem::take(place));
        set(&mut settings.name, self.name);
        set(&mut settings.system_prompt, self.system_prompt);
        set(&mut settings.voice, self.voice);
        set(&mut settings.language, self.language);
        if let Some(words) = self.first_message {
            settings.first_message = Some(words).filter(|words| !words.trim().is_empty());
        }
        settings.max_call_duration_s = self.max_call_duration.or(settings.max_call_duration_s);
        settings.record = self.record.unwrap_or(settings.record);
        settings.active = self.is_active.unwrap_or(settings.active);
        let message = self.voicemail_message;
        if let Some(machines) = self.voicemail.and_then(|word| Voicemail::from_text(word, message.as_deref()))
        {
            settings.voicemail = machines;
        }
        if let Some(tools) = self.tools {
            settings.tools = tools;
        }
    }
}

/// The tenant's agent of that id.
pub(super) async fn find(app: &App, caller: &Caller, id: String) -> Result<Agent, Wrong> {
    let found = app.rooms.db.agent(&caller.key.tenant, AgentName::Public(&id)).await?;
    found.ok_or(Wrong::NoSuch(KIND, id))
}

/// `GET /api/v1/agents`.
///
/// # Errors
/// A bad `limit` or `offset`.
#[utoipa::path(
    get, path = "/api/v1/agents", tag = "VoxForge: agents", operation_id = "voxforgeListAgents",
    summary = "The agents, oldest first",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Agents skipped"),
    ),
    responses((status = 200, description = "The agents; `X-Total-Count` says how many there are", body = [Brief]))
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = window(&Query::read(query.as_deref()))?;
    let agents = app.rooms.db.agents(&caller.key.tenant, limit, offset).await?;
    let total = app.rooms.db.agent_count(&caller.key.tenant).await?;
    let agents: Vec<Brief> = agents.into_iter().map(Brief::from).collect();
    Ok(array(&agents, total))
}

/// `POST /api/v1/agents`.
///
/// # Errors
/// A bad field; [`Wrong::Limit`] where plan or tenant have as many as they may.
#[utoipa::path(
    post, path = "/api/v1/agents", tag = "VoxForge: agents", operation_id = "voxforgeCreateAgent",
    summary = "Make an agent",
    request_body = Input,
    responses(
        (status = 201, description = "It is made", body = Full),
        (status = 400, description = "A field is wrong"),
        (status = 422, description = "The plan allows no more agents"),
    )
)]
pub async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let fields = Fields::read(&body)?;
    for name in ["name", "systemPrompt"] {
        fields.required_text(name)?;
    }
    let mut settings = AgentSettings {
        name: String::new(),
        kind: AgentKind::Outbound,
        active: true,
        system_prompt: String::new(),
        first_message: None,
        voice: "jennifer".into(),
        language: "en-US".into(),
        max_call_duration_s: Some(DURATION_S),
        record: true,
        context: Map::new(),
        relay_url: None,
        relay_keeps: false,
        voicemail: Voicemail::default(),
        tools: Vec::new(),
    };
    Input::read(&fields, &app.rooms.config.webhooks)?.apply(&mut settings);
    let most = app.rooms.config.plans.limits(&caller.key.plan).max_agents;
    match app.rooms.db.create_agent(&caller.key.tenant, settings, most, by(&caller)).await? {
        MadeAgent::Made(agent) => Ok(json(StatusCode::CREATED, &Full::new(&app, *agent))),
        MadeAgent::Full => Err(Wrong::Limit("Agent limit reached")),
    }
}

/// `GET /api/v1/agents/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/agents/{id}", tag = "VoxForge: agents", operation_id = "voxforgeShowAgent",
    summary = "An agent in full",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The agent", body = Full), (status = 404, description = "There is none"))
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let agent = find(&app, &caller, named(KIND, id)?).await?;
    Ok(json(StatusCode::OK, &Full::new(&app, agent)))
}

/// `PATCH /api/v1/agents/:id`: what is said changes, all else stays.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`].
#[utoipa::path(
    patch, path = "/api/v1/agents/{id}", tag = "VoxForge: agents", operation_id = "voxforgeChangeAgent",
    summary = "Change an agent",
    params(("id" = String, Path, description = "Its id")),
    request_body = Input,
    responses(
        (status = 200, description = "The agent as it is now", body = Full),
        (status = 400, description = "A field is wrong"),
        (status = 404, description = "There is none"),
    )
)]
pub async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
    body: Bytes,
) -> Answer {
    let id = named(KIND, id)?;
    let input = Input::read(&Fields::read_optional(&body)?, &app.rooms.config.webhooks)?;
    let (tenant, name) = (&caller.key.tenant, AgentName::Public(&id));
    let changed =
        app.rooms.db.change_agent(tenant, name, |settings| input.apply(settings), by(&caller)).await?;
    let agent = changed.ok_or(Wrong::NoSuch(KIND, id))?;
    Ok(json(StatusCode::OK, &Full::new(&app, agent)))
}

/// `DELETE /api/v1/agents/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`]; a 400 while it talks or a campaign wants it.
#[utoipa::path(
    delete, path = "/api/v1/agents/{id}", tag = "VoxForge: agents", operation_id = "voxforgeDeleteAgent",
    summary = "Delete an agent",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "It is gone", body = Deleted),
        (status = 400, description = "A live call or an active campaign has it"),
        (status = 404, description = "There is none"),
    )
)]
pub async fn delete(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let agent = find(&app, &caller, named(KIND, id)?).await?;
    match in_use(&app.rooms.db, agent.id).await? {
        Some(InUse::Calls) => return Err(Wrong::bad("Agent has live calls")),
        Some(InUse::Campaigns) => return Err(Wrong::bad("Agent is in a campaign")),
        None => {}
    }
    if !app.rooms.db.delete_agent(&caller.key.tenant, agent.id, by(&caller)).await? {
        return Err(Wrong::NoSuch(KIND, agent.cuid));
    }
    Ok(deleted(agent.cuid))
}
