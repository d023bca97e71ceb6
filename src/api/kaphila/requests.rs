//! Kaphila's request bodies, read and bounded (CONTRACT 1.1). Pure: bytes in, control's words out, and a fault that
//! names the field for everything else.

use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::config::Webhooks;
use crate::control::{Gather, PlaceCall};
use crate::model::event::PlayTo;
use crate::model::{CallerId, PhoneNumber};
use crate::webhook::guard;

/// Spoken where the request names no voice.
const DEFAULT_VOICE: &str = "en-US-Neural2-A";

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

/// Most rows of a list of recordings or events.
const ROWS_MAX: u32 = 1000;

fn bad(text: &str) -> Fault {
    Fault::Bad(text.to_owned())
}

/// The body of `/makecall` and `/batchcall`.
///
/// # Errors
/// [`Fault::Bad`].
pub fn place(body: &[u8], webhooks: &Webhooks) -> Result<PlaceCall, Fault> {
    let fields = Fields::read(body)?;
    let number = fields.required_text("number")?;
    let to = PhoneNumber::parse_lenient(number).filter(|_| number.chars().count() <= NUMBER_MAX_CHARS);
    let to = to.ok_or_else(|| bad("Invalid phone number format"))?;
    Ok(PlaceCall {
        submitted_number: number.to_owned(),
        to,
        webhook_url: webhook_url(&fields, webhooks)?,
        caller_id: caller_id(&fields)?,
        use_amd: fields.flag("useAmd")?.unwrap_or(false),
        voice_name: voice_name(&fields)?,
        ring_timeout_s: fields.integer("ringTimeout", 5..=120)?.unwrap_or(30),
        record: fields.flag("record")?,
    })
}

fn webhook_url(fields: &Fields, webhooks: &Webhooks) -> Result<Option<String>, Fault> {
    let Some(text) = fields.text("webhookUrl")? else { return Ok(None) };
    let url = guard::check_url(text, webhooks).map_err(|_| bad("webhookUrl must be an https URL"))?;
    Ok(Some(url.into()))
}

fn caller_id(fields: &Fields) -> Result<Option<CallerId>, Fault> {
    let Some(text) = fields.text("callerId")? else { return Ok(None) };
    let read = CallerId::parse(text);
    read.map(Some).ok_or_else(|| bad("callerId must be 3 to 15 digits, with or without a plus, or anonymous"))
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

/// The body of `/hangup`: the call, and whether to let what is queued be heard first.
///
/// # Errors
/// [`Fault::Bad`].
pub fn hang_up(body: &[u8]) -> Result<(String, bool), Fault> {
    let fields = Fields::read(body)?;
    Ok((call_id(&fields)?, fields.flag("drain")?.unwrap_or(false)))
}

/// The body of `/voice`.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    /// Into which call.
    pub call: String,
    /// What.
    pub text: String,
    /// Who hears it.
    pub to: PlayTo,
}

/// Reads [`Say`].
///
/// # Errors
/// [`Fault::Bad`].
pub fn say(body: &[u8]) -> Result<Say, Fault> {
    let fields = Fields::read(body)?;
    Ok(Say { call: call_id(&fields)?, text: text(&fields)?, to: play_to(&fields)? })
}

/// The body of `/play`.
#[derive(Clone, Debug, PartialEq)]
pub struct Play {
    /// Into which call.
    pub call: String,
    /// The sound's name, of a form that stays below the sounds' root.
    pub file: String,
    /// Who hears it.
    pub to: PlayTo,
}

/// Reads [`Play`].
///
/// # Errors
/// [`Fault::Bad`].
pub fn play(body: &[u8]) -> Result<Play, Fault> {
    let fields = Fields::read(body)?;
    let call = call_id(&fields)?;
    let file = fields.required_text("file")?;
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    if file.len() > FILE_MAX_CHARS || !file.split('/').all(word) {
        return Err(bad("Invalid file"));
    }
    Ok(Play { call, file: file.to_owned(), to: play_to(&fields)? })
}

/// The body of `/gather`: the call and what to collect.
///
/// # Errors
/// [`Fault::Bad`].
pub fn gather(body: &[u8]) -> Result<(String, Gather), Fault> {
    let fields = Fields::read(body)?;
    let call = call_id(&fields)?;
    let num_digits = fields.integer("numDigits", 1..=32)?.unwrap_or(1);
    let gather = Gather {
        text: text(&fields)?,
        to: play_to(&fields)?,
        num_digits: u8::try_from(num_digits).map_err(|_| bad("numDigits must be an integer from 1 to 32"))?,
        timeout_ms: fields.integer("timeout", 1000..=120_000)?.unwrap_or(10_000),
        finish_on_key: finish_on_key(&fields)?,
        replace: fields.flag("replace")?.unwrap_or(false),
    };
    Ok((call, gather))
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

/// The body of `/api/call-logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLogs {
    /// From 1.
    pub page: u32,
    /// 1 to 100.
    pub page_size: u32,
    /// Only calls of this status.
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

/// The body of `/api/analytics`: how many days, today included.
///
/// # Errors
/// [`Fault::Bad`].
pub fn analytics(body: &[u8]) -> Result<u32, Fault> {
    Ok(Fields::read_optional(body)?.integer("days", 1..=365)?.unwrap_or(7))
}

/// The body of `/api/dashboard`, which asks nothing.
///
/// # Errors
/// [`Fault::Bad`] for what is no object.
pub fn dashboard(body: &[u8]) -> Result<(), Fault> {
    Fields::read_optional(body).map(|_| ())
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
