//! VoxForge's campaigns (CONTRACT 1.3, 3 S17 to S20). What they do is [`crate::campaigns`]'s; here they are made, changed,
//! given contacts, and shown.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::members::{Import, bring, contacts_of};
use super::{Answer, Segment, Wrong, agents, array, contacts, named, numbers, text_within, window};
use crate::api::admin::{Query, by};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::campaigns::Days;
use crate::campaigns::hours::{minute_of, time_of, zone_of};
use crate::campaigns::import::Imported;
use crate::clock;
use crate::control::Caller;
use crate::model::Timestamp;
use crate::model::id::agent_cuid;
use crate::store::campaigns::{Campaign, CampaignSettings, Counts, Status};

/// What a 404 calls it.
pub(super) const KIND: &str = "Campaign";

/// Longest name, characters.
const NAME_MAX: usize = 120;

/// Calls that begin in any second, and seconds until a contact is called again, where the request does not say.
const PER_SECOND: u32 = 10;
const RETRY_S: u32 = 30 * 60;

/// A span of the day.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = VoxForgeCallWindow)]
pub struct CallWindow {
    /// `HH:MM`, within.
    #[schema(examples("09:00"))]
    start: String,
    /// `HH:MM`, not within; earlier than the start: on the next day.
    #[schema(examples("17:00"))]
    end: String,
}

/// A campaign in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeCampaign)]
struct Brief {
    /// Its id.
    id: String,
    /// For people.
    name: String,
    /// `active`, `paused`, `completed` or `cancelled`.
    status: &'static str,
    /// Contacts.
    calls_total: i64,
    /// Those that will not be called again.
    calls_completed: i64,
    /// Made.
    #[schema(format = DateTime)]
    created_at: String,
}

/// A campaign in full.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeCampaignFull)]
struct Full {
    #[serde(flatten)]
    brief: Brief,
    /// The agent that talks.
    agent_id: String,
    /// The number that seems to call.
    phone_number_id: String,
    /// Nobody is called before.
    #[schema(format = DateTime)]
    scheduled_start: String,
    /// By whose clocks the hours are told, except for contacts that have a zone of their own.
    timezone: String,
    /// From when to when; null: all day.
    call_window: Option<CallWindow>,
    /// On which days, `mon` to `sun`.
    days: Vec<&'static str>,
    /// Calls at once.
    max_concurrent_calls: u32,
    /// Calls that begin in any second.
    calls_per_second: u32,
    /// Times that a contact is called whose line is busy, who does not answer, or whose trunk fails.
    max_attempts: u32,
    /// Seconds until the next time.
    retry_delay_seconds: u32,
    /// Calls of all campaigns to one number in 24 hours; null: no limit.
    max_calls_per_number_per_day: Option<u32>,
    /// The key by which whoever is called asks not to be called again; null: there is none.
    #[schema(value_type = Option<String>)]
    opt_out_key: Option<char>,
    /// What has come of the contacts.
    progress: Progress,
    /// What of the contacts in the request was taken; only where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    import: Option<Import>,
}

/// What has come of a campaign's contacts.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeCampaignProgress)]
struct Progress {
    /// To be called, or called again.
    pending: i64,
    /// Being called.
    dialing: i64,
    /// Talked to.
    done: i64,
    /// Called in vain.
    failed: i64,
    /// Not to be called.
    skipped: i64,
}

impl Brief {
    fn new(campaign: &Campaign, counts: Counts) -> Self {
        Self {
            id: campaign.id.clone(),
            name: campaign.about.name.clone(),
            status: campaign.status.as_str(),
            calls_total: counts.total(),
            calls_completed: counts.finished(),
            created_at: campaign.created_at.iso_ms(),
        }
    }
}

impl Full {
    fn new(campaign: &Campaign, counts: Counts, import: Option<Import>) -> Self {
        let about = &campaign.about;
        let Counts { pending, dialing, done, failed, skipped } = counts;
        let window = |(start, end)| CallWindow { start: time_of(start), end: time_of(end) };
        Self {
            brief: Brief::new(campaign, counts),
            agent_id: agent_cuid(about.agent),
            phone_number_id: numbers::public_id(&about.number),
            scheduled_start: about.starts_at.iso_ms(),
            timezone: about.timezone.clone(),
            call_window: about.span.map(window),
            days: Days::from_bits(about.days).unwrap_or(Days::ALL).words(),
            max_concurrent_calls: about.max_concurrent,
            calls_per_second: about.calls_per_second,
            max_attempts: about.max_attempts,
            retry_delay_seconds: about.retry_s,
            max_calls_per_number_per_day: about.number_per_day,
            opt_out_key: about.opt_out_key,
            progress: Progress { pending, dialing, done, failed, skipped },
            import,
        }
    }
}

/// What a body says of a campaign.
#[derive(Default, ToSchema)]
#[schema(as = VoxForgeCampaignInput, rename_all = "camelCase")]
pub struct Input {
    /// For people; needed to make one.
    #[schema(min_length = 1, max_length = 120)]
    name: Option<String>,
    /// The agent that talks; needed to make one.
    agent_id: Option<String>,
    /// The number that seems to call; needed to make one.
    phone_number_id: Option<String>,
    /// `active`, `paused`, `completed` or `cancelled`.
    status: Option<String>,
    /// Nobody is called before; now unless said.
    #[schema(value_type = Option<String>, format = DateTime)]
    scheduled_start: Option<Timestamp>,
    /// An IANA zone; `UTC` unless said.
    timezone: Option<String>,
    /// From when to when; all day unless said.
    #[schema(value_type = Option<CallWindow>)]
    call_window: Option<(u16, u16)>,
    /// On which days, `mon` to `sun`; every day unless said.
    #[schema(value_type = Option<Vec<String>>)]
    days: Option<Days>,
    /// Calls at once; 1 unless said.
    #[schema(minimum = 1, maximum = 100)]
    max_concurrent_calls: Option<u32>,
    /// Calls that begin in any second; 10 unless said.
    #[schema(minimum = 1, maximum = 100)]
    calls_per_second: Option<u32>,
    /// Times that a contact is called who is busy or does not answer; 1 unless said.
    #[schema(minimum = 1, maximum = 5)]
    max_attempts: Option<u32>,
    /// Seconds until the next time; 1800 unless said.
    #[schema(minimum = 1, maximum = 604800)]
    retry_delay_seconds: Option<u32>,
    /// Calls of all campaigns to one number in 24 hours; no limit unless said.
    #[schema(minimum = 1, maximum = 100)]
    max_calls_per_number_per_day: Option<u32>,
    /// A key, one of `0`-`9`, `*` and `#`: whoever presses it in the call is thanked and never called again by any
    /// campaign. Empty: none.
    #[schema(value_type = Option<String>, pattern = "^[0-9*#]?$", examples("9"))]
    opt_out_key: Option<Option<char>>,
    /// Whom to call; only where a campaign is made.
    #[schema(value_type = Option<Vec<contacts::Input>>, max_items = 100000)]
    contacts: Option<Imported>,
}

impl Input {
    fn read(fields: &Fields) -> Result<Self, Fault> {
        let id = |name: &str| -> Result<Option<String>, Fault> {
            fields.text(name)?.map(|text| text_within(name, text, 1, 64)).transpose()
        };
        let name = fields.text("name")?.map(|text| text_within("name", text, 1, NAME_MAX));
        let start = fields.text("scheduledStart")?.map(|text| {
            let wrong = || Fault::Bad("scheduledStart must be an ISO 8601 moment with its offset".into());
            Timestamp::from_iso(text).filter(|_| text.len() > 10).ok_or_else(wrong)
        });
        let timezone = fields.text("timezone")?;
        if timezone.is_some_and(|zone| zone_of(zone).is_none()) {
            return Err(Fault::Bad("timezone must be an IANA time zone".into()));
        }
        let days = fields.texts("days", 7)?.map(|words| {
            let wrong = || Fault::Bad("days must be one or more of mon, tue, wed, thu, fri, sat, sun".into());
            Days::from_words(&words).ok_or_else(wrong)
        });
        Ok(Self {
            name: name.transpose()?,
            agent_id: id("agentId")?,
            phone_number_id: id("phoneNumberId")?,
            status: fields.text("status")?.map(str::to_owned),
            scheduled_start: start.transpose()?,
            timezone: timezone.map(str::to_owned),
            call_window: fields.object("callWindow")?.map(|window| span(&window)).transpose()?,
            days: days.transpose()?,
            max_concurrent_calls: fields.integer("maxConcurrentCalls", 1..=100)?,
            calls_per_second: fields.integer("callsPerSecond", 1..=100)?,
            max_attempts: fields.integer("maxAttempts", 1..=5)?,
            retry_delay_seconds: fields.integer("retryDelaySeconds", 1..=604_800)?,
            max_calls_per_number_per_day: fields.integer("maxCallsPerNumberPerDay", 1..=100)?,
            opt_out_key: fields.text("optOutKey")?.map(key_of).transpose()?,
            contacts: None,
        })
    }

    /// Sets what is said; agent and number were found before.
    fn apply(self, about: &mut CampaignSettings, agent: Option<i64>, number: Option<String>) {
        about.name = self.name.unwrap_or(std::mem::take(&mut about.name));
        about.agent = agent.unwrap_or(about.agent);
        about.number = number.unwrap_or(std::mem::take(&mut about.number));
        about.starts_at = self.scheduled_start.unwrap_or(about.starts_at);
        about.timezone = self.timezone.unwrap_or(std::mem::take(&mut about.timezone));
        about.span = self.call_window.or(about.span);
        about.days = self.days.map_or(about.days, Days::bits);
        about.max_concurrent = self.max_concurrent_calls.unwrap_or(about.max_concurrent);
        about.calls_per_second = self.calls_per_second.unwrap_or(about.calls_per_second);
        about.max_attempts = self.max_attempts.unwrap_or(about.max_attempts);
        about.retry_s = self.retry_delay_seconds.unwrap_or(about.retry_s);
        about.number_per_day = self.max_calls_per_number_per_day.or(about.number_per_day);
        about.opt_out_key = self.opt_out_key.unwrap_or(about.opt_out_key);
    }
}

/// One key of a telephone, or none.
fn key_of(text: &str) -> Result<Option<char>, Fault> {
    let mut keys = text.chars();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key @ ('0'..='9' | '*' | '#')), None) => Ok(Some(key)),
        (Some(_), _) => Err(Fault::Bad("optOutKey must be one of 0 to 9, * and #".into())),
    }
}

fn span(window: &Fields) -> Result<(u16, u16), Fault> {
    let minute = |name: &str| {
        let read = window.text(name)?.and_then(minute_of);
        read.ok_or_else(|| Fault::Bad(format!("callWindow.{name} must be a time of day as HH:MM")))
    };
    let (start, end) = (minute("start")?, minute("end")?);
    if start == end {
        return Err(Fault::Bad("callWindow.start and callWindow.end must differ".into()));
    }
    Ok((start, end))
}

/// The tenant's campaign of that id.
pub(super) async fn find(app: &App, caller: &Caller, id: String) -> Result<Campaign, Wrong> {
    app.rooms.db.campaign(&caller.key.tenant, &id).await?.ok_or(Wrong::NoSuch(KIND, id))
}

pub(super) async fn counts(app: &App, campaign: &str) -> Result<Counts, Wrong> {
    let counts = app.rooms.db.campaign_counts(&[campaign]).await?;
    Ok(counts.get(campaign).copied().unwrap_or_default())
}

/// Agent and number that a body names.
async fn crew(app: &App, caller: &Caller, input: &Input) -> Result<(Option<i64>, Option<String>), Wrong> {
    let agent = match &input.agent_id {
        Some(id) => Some(agents::find(app, caller, id.clone()).await?.id),
        None => None,
    };
    let number = match &input.phone_number_id {
        Some(id) => Some(numbers::find(app, caller, id).await?.id),
        None => None,
    };
    Ok((agent, number))
}

/// `GET /api/v1/campaigns`.
///
/// # Errors
/// A bad `limit` or `offset`.
#[utoipa::path(
    get, path = "/api/v1/campaigns", tag = "VoxForge: campaigns", operation_id = "voxforgeListCampaigns",
    summary = "The campaigns, newest first",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Campaigns skipped"),
    ),
    responses((status = 200, description = "The campaigns; `X-Total-Count` says how many there are", body = [Brief]))
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = window(&Query::read(query.as_deref()))?;
    let (campaigns, total) = app.rooms.db.campaigns(&caller.key.tenant, limit, offset).await?;
    let ids: Vec<&str> = campaigns.iter().map(|campaign| campaign.id.as_str()).collect();
    let counts: BTreeMap<String, Counts> = app.rooms.db.campaign_counts(&ids).await?;
    let brief =
        |campaign: &Campaign| Brief::new(campaign, counts.get(&campaign.id).copied().unwrap_or_default());
    let shown: Vec<Brief> = campaigns.iter().map(brief).collect();
    Ok(array(&shown, total))
}

/// `POST /api/v1/campaigns`.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`] for agent and number.
#[utoipa::path(
    post, path = "/api/v1/campaigns", tag = "VoxForge: campaigns", operation_id = "voxforgeCreateCampaign",
    summary = "Make a campaign",
    description = "It is active at once and calls as soon as it has contacts: those of `contacts`, and those that are \
                   brought later.",
    request_body = Input,
    responses(
        (status = 201, description = "It is made", body = Full),
        (status = 400, description = "A field is wrong"),
        (status = 404, description = "There is no such agent or number"),
    )
)]
pub async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let fields = Fields::read(&body)?;
    for name in ["name", "agentId", "phoneNumberId"] {
        fields.required_text(name)?;
    }
    let mut input = Input::read(&fields)?;
    input.contacts = contacts_of(&fields)?;
    let status = match input.status.as_deref() {
        None | Some("active") => Status::Active,
        Some("paused") => Status::Paused,
        Some(_) => return Err(Wrong::bad("status must be active or paused")),
    };
    let contacts = input.contacts.take();
    let (agent, number) = crew(&app, &caller, &input).await?;
    let now = clock::now().wall;
    let mut about = CampaignSettings {
        name: String::new(),
        agent: 0,
        number: String::new(),
        starts_at: now,
        timezone: "UTC".into(),
        span: None,
        days: Days::ALL.bits(),
        max_concurrent: 1,
        calls_per_second: PER_SECOND,
        max_attempts: 1,
        retry_s: RETRY_S,
        number_per_day: None,
        opt_out_key: None,
    };
    input.apply(&mut about, agent, number);
    let owner = (caller.key.tenant.as_str(), caller.key.id);
    let campaign = app.rooms.db.create_campaign(owner, about, status, by(&caller)).await?;
    let import = match contacts {
        Some(contacts) => Some(bring(&app, &campaign, contacts).await?),
        None => None,
    };
    let counts = counts(&app, &campaign.id).await?;
    Ok(json(StatusCode::CREATED, &Full::new(&campaign, counts, import)))
}

/// `GET /api/v1/campaigns/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/campaigns/{id}", tag = "VoxForge: campaigns", operation_id = "voxforgeShowCampaign",
    summary = "A campaign in full",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The campaign", body = Full), (status = 404, description = "There is none"))
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let campaign = find(&app, &caller, named(KIND, id)?).await?;
    let counts = counts(&app, &campaign.id).await?;
    Ok(json(StatusCode::OK, &Full::new(&campaign, counts, None)))
}

/// `PATCH /api/v1/campaigns/:id`: what is said changes, all else stays.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`]; a 400 for a status that cannot follow, and for a campaign that is over.
#[utoipa::path(
    patch, path = "/api/v1/campaigns/{id}", tag = "VoxForge: campaigns", operation_id = "voxforgeChangeCampaign",
    summary = "Pause, resume, end or change a campaign",
    description = "Paused it calls nobody more and its calls go on; cancelled those that still ring are hung up.",
    params(("id" = String, Path, description = "Its id")),
    request_body = Input,
    responses(
        (status = 200, description = "The campaign as it is now", body = Full),
        (status = 400, description = "A field is wrong, or the campaign is over"),
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
    let input = Input::read(&Fields::read_optional(&body)?)?;
    let status = match input.status.as_deref().map(|word| (word, Status::from_text(word))) {
        Some((_, None)) => {
            return Err(Wrong::bad("status must be one of active, paused, completed, cancelled"));
        }
        Some((_, status)) => status,
        None => None,
    };
    let (agent, number) = crew(&app, &caller, &input).await?;
    let change = |campaign: &mut Campaign| {
        if campaign.status.is_final() {
            return Err(Fault::Bad(format!("The campaign is {}", campaign.status.as_str())));
        }
        campaign.status = status.unwrap_or(campaign.status);
        input.apply(&mut campaign.about, agent, number);
        Ok(())
    };
    let changed = app.rooms.db.change_campaign(&caller.key.tenant, &id, change, by(&caller)).await?;
    let campaign = changed.ok_or(Wrong::NoSuch(KIND, id))??;
    let counts = counts(&app, &campaign.id).await?;
    Ok(json(StatusCode::OK, &Full::new(&campaign, counts, None)))
}
