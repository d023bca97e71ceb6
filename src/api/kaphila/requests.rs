//! Kaphila's request bodies, read and bounded (CONTRACT 1.1). Pure: bytes in, control's words out, and a fault that
//! names the field for everything else.

use utoipa::ToSchema;

use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::config::Webhooks;
use crate::control::{Gather, PlaceCall, Record};
use crate::model::call::Surface;
use crate::model::event::PlayTo;
use crate::model::purpose::Purpose;
use crate::model::{CallerId, PhoneNumber};
use crate::speech::DEFAULT_VOICE;

/// Longest number as people write it; kept and printed as submitted.
const NUMBER_MAX_CHARS: usize = 64;

/// Longest text to speak, in characters.
const TEXT_MAX_CHARS: usize = 5000;

/// Longest name of a sound.
const FILE_MAX_CHARS: usize = 128;

/// Longest id of a call that could be one.
const CALL_ID_MAX_CHARS: usize = 64;

/// Highest page of the call logs.
const PAGE_MAX: u32 = 1_000_000;

/// For how many seconds a link to a recording may be good: a minute to a week.
const LINK_SECONDS: std::ops::RangeInclusive<u32> = 60..=604_800;

/// For how many it is where the request does not say.
const LINK_DEFAULT_S: u32 = 3600;

/// Most rows of a list of recordings or events.
const ROWS_MAX: u32 = 1000;

fn bad(text: &str) -> Fault {
    Fault::Bad(text.to_owned())
}

/// What `POST /makecall` and `POST /batchcall` ask for.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct MakeCall {
    /// The number to call, international: 3 to 15 digits, with or without `+` or `00`; blanks, hyphens, dots and
    /// parentheses are left out.
    #[schema(min_length = 1, max_length = 64, examples("+1 415 555 0100"))]
    pub number: String,
    /// The number read.
    #[schema(ignore)]
    pub to: PhoneNumber,
    /// Where the call's events are sent: an `https` URL of a public host.
    #[schema(max_length = 2048, examples("https://example.com/hooks/calls"))]
    pub webhook_url: Option<String>,
    /// Who the callee sees: 3 to 15 digits with or without a plus, or `anonymous`. The key's or the trunk's unless
    /// said.
    #[schema(value_type = Option<String>, pattern = r"^(\+?[0-9]{3,15}|anonymous)$", examples("+14155550199"))]
    pub caller_id: Option<CallerId>,
    /// Find out whether a person or a machine answers.
    #[schema(required = false, default = false)]
    pub use_amd: bool,
    /// The voice of texts on this call; an unknown one is spoken by the voice nearest to it.
    #[schema(
        required = false,
        default = "en-US-Neural2-A",
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9_-]+$"
    )]
    pub voice_name: String,
    /// Seconds that it may ring.
    #[schema(required = false, default = 30, minimum = 5, maximum = 120)]
    pub ring_timeout: u32,
    /// Record it, for keys that leave that to the request.
    pub record: Option<bool>,
    /// `mono`: one channel with everybody in it; `stereo`: the callee on the left, all else on the right.
    #[schema(required = false, value_type = String, default = "mono", pattern = "^(mono|stereo)$")]
    pub record_channels: media::Channels,
}

impl From<MakeCall> for PlaceCall {
    fn from(asked: MakeCall) -> Self {
        Self {
            submitted_number: asked.number,
            to: asked.to,
            caller_id: asked.caller_id,
            webhook_url: asked.webhook_url,
            use_amd: asked.use_amd,
            voice_name: asked.voice_name,
            ring_timeout_s: asked.ring_timeout,
            surface: Surface::Kaphila,
            max_duration_s: None,
            record: Record::AsKey(asked.record),
            purpose: Purpose::default(),
            script: None,
            record_channels: asked.record_channels,
        }
    }
}

/// Reads it.
///
/// # Errors
/// Names the field at fault.
pub fn place(body: &[u8], webhooks: &Webhooks) -> Result<MakeCall, Fault> {
    let fields = Fields::read(body)?;
    let number = fields.required_text("number")?;
    let to = PhoneNumber::parse_lenient(number).filter(|_| number.chars().count() <= NUMBER_MAX_CHARS);
    let to = to.ok_or_else(|| bad("Invalid phone number format"))?;
    Ok(MakeCall {
        number: number.to_owned(),
        to,
        webhook_url: fields.webhook_url("webhookUrl", webhooks)?,
        caller_id: fields.caller_id("callerId")?,
        use_amd: fields.flag("useAmd")?.unwrap_or(false),
        voice_name: voice_name(&fields)?,
        ring_timeout: fields.integer("ringTimeout", 5..=120)?.unwrap_or(30),
        record: fields.flag("record")?,
        record_channels: record_channels(&fields)?,
    })
}

fn record_channels(fields: &Fields) -> Result<media::Channels, Fault> {
    match fields.text("recordChannels")? {
        None | Some("mono") => Ok(media::Channels::Mono),
        Some("stereo") => Ok(media::Channels::Stereo),
        Some(_) => Err(bad("recordChannels must be mono or stereo")),
    }
}

/// What `POST /recordings/:callId/link` asks for; the body may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct MakeLink {
    /// For how many seconds the link is good.
    #[schema(required = false, default = 3600, minimum = 60, maximum = 604_800)]
    pub expires_in: u32,
}

/// Reads it.
///
/// # Errors
/// Names the field at fault.
pub fn link(body: &[u8]) -> Result<MakeLink, Fault> {
    let fields = Fields::read_optional(body)?;
    Ok(MakeLink { expires_in: fields.integer("expiresIn", LINK_SECONDS)?.unwrap_or(LINK_DEFAULT_S) })
}

fn voice_name(fields: &Fields) -> Result<String, Fault> {
    let name = fields.text("voiceName")?.unwrap_or(DEFAULT_VOICE);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if plain && (1..=64).contains(&name.len()) {
        Ok(name.to_owned())
    } else {
        Err(bad("voiceName must be 1 to 64 letters, digits, underscores or hyphens"))
    }
}

/// What `POST /hangup` asks for.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct HangUp {
    /// The call.
    #[schema(min_length = 1, max_length = 64, examples("1739781234.42"))]
    pub call_id: String,
    /// Let what is queued be heard first.
    #[schema(required = false, default = false)]
    pub drain: bool,
}

/// Reads it.
///
/// # Errors
/// Names the field at fault.
pub fn hang_up(body: &[u8]) -> Result<HangUp, Fault> {
    let fields = Fields::read(body)?;
    Ok(HangUp { call_id: call_id(&fields)?, drain: fields.flag("drain")?.unwrap_or(false) })
}

/// What `POST /voice` asks for.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Say {
    /// The call.
    #[schema(min_length = 1, max_length = 64, examples("1739781234.42"))]
    pub call_id: String,
    /// The text; markup is spoken, not obeyed.
    #[schema(min_length = 1, max_length = 5000, examples("Hello, this is a call for you."))]
    pub text: String,
    /// Who hears it: `bridge` (both sides and the recording) or `channel` (the callee alone).
    #[schema(required = false, value_type = String, default = "bridge", pattern = "^(bridge|channel)$")]
    pub play_to: PlayTo,
}

/// Reads it.
///
/// # Errors
/// Names the field at fault.
pub fn say(body: &[u8]) -> Result<Say, Fault> {
    let fields = Fields::read(body)?;
    Ok(Say { call_id: call_id(&fields)?, text: text(&fields)?, play_to: play_to(&fields)? })
}

/// What `POST /play` asks for.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Play {
    /// The call.
    #[schema(min_length = 1, max_length = 64, examples("1739781234.42"))]
    pub call_id: String,
    /// The sound's name below the sounds folder, without its ending.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
        examples("custom/welcome")
    )]
    pub file: String,
    /// Who hears it: `bridge` (both sides and the recording) or `channel` (the callee alone).
    #[schema(required = false, value_type = String, default = "bridge", pattern = "^(bridge|channel)$")]
    pub play_to: PlayTo,
}

/// Reads it.
///
/// # Errors
/// Names the field at fault; `Invalid file` for a name that could leave the sounds folder.
pub fn play(body: &[u8]) -> Result<Play, Fault> {
    let fields = Fields::read(body)?;
    let call_id = call_id(&fields)?;
    let file = fields.required_text("file")?;
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    if file.len() > FILE_MAX_CHARS || !file.split('/').all(word) {
        return Err(bad("Invalid file"));
    }
    Ok(Play { call_id, file: file.to_owned(), play_to: play_to(&fields)? })
}

/// What `POST /gather` asks for.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct GatherDigits {
    /// The call.
    #[schema(min_length = 1, max_length = 64, examples("1739781234.42"))]
    pub call_id: String,
    /// Spoken first.
    #[schema(min_length = 1, max_length = 5000, examples("Please press one."))]
    pub text: String,
    /// Who hears it: `bridge` (both sides and the recording) or `channel` (the callee alone).
    #[schema(required = false, value_type = String, default = "bridge", pattern = "^(bridge|channel)$")]
    pub play_to: PlayTo,
    /// Digits to wait for.
    #[schema(required = false, default = 1, minimum = 1, maximum = 32)]
    pub num_digits: u8,
    /// Milliseconds to wait, from the end of the text or the first key.
    #[schema(required = false, default = 10000, minimum = 1000, maximum = 120000)]
    pub timeout: u32,
    /// A key that ends it early: `0` to `9`, `*` or `#`; empty for none.
    #[schema(value_type = Option<String>, pattern = "^[0-9*#]?$", examples("#"))]
    pub finish_on_key: Option<char>,
    /// End a gather that is under way and take its place.
    #[schema(required = false, default = false)]
    pub replace: bool,
}

impl From<GatherDigits> for Gather {
    fn from(asked: GatherDigits) -> Self {
        Self {
            text: asked.text,
            to: asked.play_to,
            num_digits: asked.num_digits,
            timeout_ms: asked.timeout,
            finish_on_key: asked.finish_on_key,
            replace: asked.replace,
        }
    }
}

/// Reads it.
///
/// # Errors
/// Names the field at fault.
pub fn gather(body: &[u8]) -> Result<GatherDigits, Fault> {
    let fields = Fields::read(body)?;
    let call_id = call_id(&fields)?;
    let num_digits = fields.integer("numDigits", 1..=32)?.unwrap_or(1);
    Ok(GatherDigits {
        call_id,
        text: text(&fields)?,
        play_to: play_to(&fields)?,
        num_digits: u8::try_from(num_digits).map_err(|_| bad("numDigits must be an integer from 1 to 32"))?,
        timeout: fields.integer("timeout", 1000..=120_000)?.unwrap_or(10_000),
        finish_on_key: finish_on_key(&fields)?,
        replace: fields.flag("replace")?.unwrap_or(false),
    })
}

fn finish_on_key(fields: &Fields) -> Result<Option<char>, Fault> {
    let Some(text) = fields.text("finishOnKey")? else { return Ok(None) };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (None, _) => Ok(None),
        (Some(key @ ('0'..='9' | '*' | '#')), None) => Ok(Some(key)),
        _ => Err(bad("finishOnKey must be one of 0 to 9, * and #")),
    }
}

fn call_id(fields: &Fields) -> Result<String, Fault> {
    let id = fields.required_text("callId")?;
    if id.len() > CALL_ID_MAX_CHARS || id.chars().any(char::is_control) {
        return Err(bad("Invalid callId"));
    }
    Ok(id.to_owned())
}

fn text(fields: &Fields) -> Result<String, Fault> {
    let text = fields.required_text("text")?;
    if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(bad("text is required"));
    }
    if text.chars().count() > TEXT_MAX_CHARS {
        return Err(bad("text must be 1 to 5000 characters"));
    }
    Ok(text.to_owned())
}

fn play_to(fields: &Fields) -> Result<PlayTo, Fault> {
    match fields.text("playTo")? {
        None | Some("bridge") => Ok(PlayTo::Bridge),
        Some("channel") => Ok(PlayTo::Channel),
        Some(_) => Err(bad("playTo must be bridge or channel")),
    }
}

/// What `POST /api/call-logs` asks for.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(as = CallLogsAsked)]
pub struct CallLogs {
    /// From 1.
    #[schema(required = false, default = 1, minimum = 1, maximum = 1000000)]
    pub page: u32,
    /// Rows on a page.
    #[schema(required = false, default = 20, minimum = 1, maximum = 100)]
    pub page_size: u32,
    /// Only calls of this status.
    #[schema(examples("completed"))]
    pub status: Option<String>,
}

/// Reads [`CallLogs`].
///
/// # Errors
/// [`Fault::Bad`].
pub fn call_logs(body: &[u8]) -> Result<CallLogs, Fault> {
    let fields = Fields::read_optional(body)?;
    Ok(CallLogs {
        page: fields.integer("page", 1..=PAGE_MAX)?.unwrap_or(1),
        page_size: fields.integer("page_size", 1..=100)?.unwrap_or(20),
        status: fields.text("status")?.map(str::to_owned),
    })
}

/// What `POST /api/analytics` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(as = AnalyticsAsked)]
pub struct Analytics {
    /// Days back from now, today included.
    #[schema(required = false, default = 7, minimum = 1, maximum = 365)]
    pub days: u32,
}

/// Reads it; an empty body asks for a week.
///
/// # Errors
/// Names the field at fault.
pub fn analytics(body: &[u8]) -> Result<Analytics, Fault> {
    let days = Fields::read_optional(body)?.integer("days", 1..=365)?.unwrap_or(7);
    Ok(Analytics { days })
}

/// What `POST /api/dashboard` asks for: nothing, as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
pub struct Nothing {}

/// The body of `/api/dashboard`, which asks nothing.
///
/// # Errors
/// [`Fault::Bad`] for what is no object.
pub fn dashboard(body: &[u8]) -> Result<Nothing, Fault> {
    Fields::read_optional(body).map(|_| Nothing {})
}

/// `limit` and `offset` of `GET /recordings`, from the query.
///
/// # Errors
/// [`Fault::Bad`].
pub fn recordings_window(query: Option<&str>) -> Result<(u32, u32), Fault> {
    window(query, "offset")
}

/// `limit` and `after` of `GET /calls/:callId/events`, from the query.
///
/// # Errors
/// [`Fault::Bad`].
pub fn events_window(query: Option<&str>) -> Result<(u32, u32), Fault> {
    window(query, "after")
}

/// How many rows of a list, and from where.
fn window(query: Option<&str>, from: &str) -> Result<(u32, u32), Fault> {
    let (mut limit, mut start) = (ROWS_MAX, 0);
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let number = || value.parse::<u32>().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()));
        if name == "limit" {
            let within = number().filter(|n| (1..=ROWS_MAX).contains(n));
            limit = within.ok_or_else(|| bad("limit must be an integer from 1 to 1000"))?;
        } else if name == from {
            start = number().ok_or_else(|| Fault::Bad(format!("{from} must be an integer from 0")))?;
        }
    }
    Ok((limit, start))
}

/// The name of a recording's file as it came in a path, percent-decoded once: `^[A-Za-z0-9._-]{1,200}\.wav$`
/// without two dots in a row.
///
/// # Errors
/// [`Fault::Bad`] `Invalid filename`.
pub fn filename(name: &str) -> Result<&str, Fault> {
    let stem = name.strip_suffix(".wav").unwrap_or_default();
    let plain = stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let good = plain && (1..=200).contains(&stem.len()) && !name.contains("..");
    if good { Ok(name) } else { Err(bad("Invalid filename")) }
}

#[cfg(test)]
mod tests;
