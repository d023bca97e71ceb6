//! Claude Phone's one request body, read and bounded (CONTRACT 1.5). Pure: bytes in, control's words out, and for
//! everything else a fault in the document's words.

use utoipa::ToSchema;

use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::config::{Agent, Webhooks};
use crate::control::{PlaceCall, Record, Script};
use crate::model::call::{Surface, Then};
use crate::model::purpose::{Brief, Mode, Purpose};
use crate::model::{CallerId, PhoneNumber};

/// Longest message, in characters.
const MESSAGE_MAX_CHARS: usize = 1000;

/// Longest name of a device that can be one.
const DEVICE_MAX_CHARS: usize = 64;

/// Longest conversation, seconds.
const CONVERSATION_MAX_S: u32 = 600;

/// How long an announcement's line is open after the last word.
const AFTER_MESSAGE_MS: u32 = 500;

fn bad(text: &str) -> Fault {
    Fault::Bad(text.to_owned())
}

/// What `POST /api/outbound-call` asks for.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(as = OutboundCallAsked, rename_all = "camelCase")]
pub struct OutboundCall {
    /// The number to call, E.164.
    #[schema(value_type = String, pattern = r"^\+[1-9][0-9]{1,14}$", examples("+14155550100"))]
    pub to: PhoneNumber,
    /// What is said.
    #[schema(min_length = 1, max_length = 1000, examples("Your backup job completed successfully."))]
    pub message: String,
    /// `announce`: say it and hang up; `conversation`: say it and listen.
    #[schema(
        required = false,
        value_type = String,
        default = "announce",
        pattern = "^(announce|conversation)$"
    )]
    pub mode: Mode,
    /// Whose voice; an unknown one is the default's.
    #[schema(examples("Morpheus"))]
    pub device: Option<String>,
    /// Who the callee sees: 3 to 15 digits with or without a plus, or `anonymous`.
    #[schema(value_type = Option<String>, pattern = r"^(\+?[0-9]{3,15}|anonymous)$", examples("+14155550199"))]
    pub caller_id: Option<CallerId>,
    /// Seconds that it may ring.
    #[schema(required = false, default = 30, minimum = 5, maximum = 120)]
    pub timeout_seconds: u32,
    /// Where each change of state is told: an `https` URL of a public host.
    #[schema(max_length = 2048, examples("https://example.com/webhook"))]
    pub webhook_url: Option<String>,
}

impl OutboundCall {
    /// As control takes it, in this voice.
    pub fn placing(self, voice_name: String, agent: &Agent) -> PlaceCall {
        let talks = self.mode == Mode::Conversation;
        let then = if talks {
            let silence_ms = agent.silence_s.saturating_mul(1000);
            Then::Listen { silence_ms, repeats: agent.silence_repeats }
        } else {
            Then::HangUp { after_ms: AFTER_MESSAGE_MS }
        };
        PlaceCall {
            surface: Surface::ClaudePhone,
            submitted_number: self.to.e164(),
            to: self.to,
            caller_id: self.caller_id,
            webhook_url: self.webhook_url,
            use_amd: false,
            voice_name,
            ring_timeout_s: self.timeout_seconds,
            max_duration_s: talks.then_some(CONVERSATION_MAX_S),
            record: Record::As(false),
            record_channels: media::Channels::Mono,
            purpose: Purpose {
                mode: self.mode,
                brief: talks.then(|| brief(&self.message)),
                ..Purpose::default()
            },
            script: Some(Script { text: self.message, then }),
        }
    }
}

/// What a language model is told that goes on with the conversation.
fn brief(message: &str) -> Brief {
    let prompt =
        "You are on the telephone. You have called somebody to tell them what you say first. Answer their \
                  questions about it in one or two short sentences, and say goodbye when they have no more."
            .to_owned();
    Brief { prompt, first_message: Some(message.to_owned()) }
}

/// Reads it: of several faults the number's comes first, then the message's.
///
/// # Errors
/// In the document's words where it has some, else the field's name.
pub fn outbound_call(body: &[u8], webhooks: &Webhooks) -> Result<OutboundCall, Fault> {
    let fields = Fields::read(body)?;
    let to = fields.text("to").ok().flatten().and_then(e164);
    let to = to.ok_or_else(|| bad("Invalid phone number format"))?;
    let message = message(&fields)?;
    let mode = match fields.text("mode")? {
        None | Some("announce") => Mode::Announce,
        Some("conversation") => Mode::Conversation,
        Some(_) => return Err(bad("mode must be announce or conversation")),
    };
    let seconds = fields.integer("timeoutSeconds", 5..=120);
    let seconds = seconds.map_err(|_| bad("timeoutSeconds must be between 5 and 120"))?;
    Ok(OutboundCall {
        to,
        message,
        mode,
        device: device(&fields)?,
        caller_id: fields.caller_id("callerId")?,
        timeout_seconds: seconds.unwrap_or(30),
        webhook_url: fields.webhook_url("webhookUrl", webhooks)?,
    })
}

/// `^\+[1-9][0-9]{1,14}$`, as far as it is a number that can be dialled.
fn e164(text: &str) -> Option<PhoneNumber> {
    let digits = text.strip_prefix('+').filter(|digits| !digits.starts_with('0'))?;
    PhoneNumber::from_digits(digits)
}

fn message(fields: &Fields) -> Result<String, Fault> {
    let text = fields.text("message")?.unwrap_or_default();
    if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(bad("Message is required"));
    }
    if text.chars().count() > MESSAGE_MAX_CHARS {
        return Err(bad("Message too long"));
    }
    Ok(text.to_owned())
}

/// A name that no voice can have is as unknown as any other.
fn device(fields: &Fields) -> Result<Option<String>, Fault> {
    let name = fields.text("device")?;
    let short = |name: &&str| name.chars().count() <= DEVICE_MAX_CHARS && !name.chars().any(char::is_control);
    Ok(name.filter(short).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::documented_as_read;

    fn read(body: &str) -> Result<OutboundCall, Fault> {
        let webhooks = Webhooks { allow_http: true, ..Webhooks::default() };
        outbound_call(body.as_bytes(), &webhooks)
    }

    fn fault(body: &str) -> String {
        match read(body) {
            Err(Fault::Bad(text)) => text,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn the_printed_body_is_read() {
        let asked = read(
            r#"{"to":"+15551234567","message":"Hello from your server","mode":"announce","device":"Morpheus",
                "callerId":"+15559876543","timeoutSeconds":30,"webhookUrl":"https://example.com/webhook"}"#,
        );
        let asked = asked.unwrap();
        assert_eq!(
            (asked.to.e164().as_str(), asked.mode, asked.timeout_seconds),
            ("+15551234567", Mode::Announce, 30)
        );
        assert_eq!(
            (asked.device.as_deref(), asked.message.as_str()),
            (Some("Morpheus"), "Hello from your server")
        );
        let placing = asked.placing("x".into(), &Agent::default());
        assert_eq!(placing.script.unwrap().then, Then::HangUp { after_ms: 500 });
        assert_eq!((placing.max_duration_s, placing.record), (None, Record::As(false)));
    }

    #[test]
    fn a_conversation_listens_and_is_bounded() {
        let asked = read(r#"{"to":"+15551234567","message":"Hi","mode":"conversation"}"#).unwrap();
        let placing =
            asked.placing("x".into(), &Agent { silence_s: 7, silence_repeats: 3, ..Agent::default() });
        assert_eq!(placing.script.unwrap().then, Then::Listen { silence_ms: 7000, repeats: 3 });
        assert_eq!(placing.max_duration_s, Some(600));
    }

    #[test]
    fn the_number_comes_first_then_the_message_then_the_rest() {
        for number in [
            "",
            "5551234567",
            "+05551234567",
            "+1555123456789012",
            "+1 555 123 4567",
            "+1٢٣٤",
            "++15551234567",
        ] {
            let body = serde_json::json!({"to": number, "mode": "chat"}).to_string();
            assert_eq!(fault(&body), "Invalid phone number format", "{number}");
        }
        for to in ["", r#""to":null,"#, r#""to":15551234567,"#] {
            assert_eq!(fault(&format!("{{{to}\"message\":\"\"}}")), "Invalid phone number format", "{to}");
        }
        for message in ["null", "\"\"", "\" \\t\"", "\"\\u0000\""] {
            let body = format!(r#"{{"to":"+15551234567","message":{message},"mode":"chat"}}"#);
            assert_eq!(fault(&body), "Message is required", "{message}");
        }
        let with = |more: &str| format!(r#"{{"to":"+15551234567","message":"Hi",{more}}}"#);
        assert_eq!(fault(&with(r#""mode":"chat""#)), "mode must be announce or conversation");
        for seconds in ["4", "121", "30.5", "\"30\"", "true"] {
            let body = with(&format!("\"timeoutSeconds\":{seconds}"));
            assert_eq!(fault(&body), "timeoutSeconds must be between 5 and 120", "{seconds}");
        }
        assert_eq!(fault(&with(r#""device":7"#)), "device must be a string");
        assert_eq!(fault(&with(r#""webhookUrl":"ftp://a""#)), "webhookUrl must be an https URL");
        assert!(fault(&with("\"callerId\":\"x\\r\\n\"")).starts_with("callerId must be"));
    }

    #[test]
    fn messages_are_counted_in_characters() {
        let with = |text: &str| serde_json::json!({"to": "+15551234567", "message": text}).to_string();
        assert!(read(&with(&"é".repeat(1000))).is_ok());
        assert_eq!(fault(&with(&"é".repeat(1001))), "Message too long");
    }

    #[test]
    fn the_documentation_names_the_fields_that_are_read() {
        let body = r#"{"to":"+15551234567","message":"Hi"}"#;
        let webhooks = Webhooks::default();
        documented_as_read::<OutboundCall, _>(body, |bytes| outbound_call(bytes, &webhooks));
    }
}
