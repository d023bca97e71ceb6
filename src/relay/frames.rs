//! The frames of ConversationRelay (FIELD 3.1.1, 3.1.2): JSON objects told apart by `type`. Reading is lenient, as the
//! protocol asks: unknown fields mean nothing, and what cannot be read is a [`Malformed`], never the end of a session.

use serde_json::{Map, Value, json};

/// Longest text of one frame, bytes.
const TEXT_MAX: usize = 16 * 1024;
/// Most keys of one frame.
const KEYS_MAX: usize = 64;
/// What `loop: 0` stands for, and most that is taken (FIELD 3.1.2).
const LOOPS_MAX: u32 = 1000;
/// Of a frame that cannot be read this much is said back, characters.
const QUOTED_MAX: usize = 200;
/// Longest name of a language, bytes (RFC 5646 §4.4.1).
const LANGUAGE_MAX: usize = 35;
/// Longest `handoffData`, bytes.
const HANDOFF_MAX: usize = 16 * 1024;

/// What may interrupt what is being said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruptible {
    /// Speech may.
    pub speech: bool,
    /// Keys may.
    pub dtmf: bool,
}

impl Interruptible {
    /// Both, as where nothing is said.
    pub const ANY: Self = Self { speech: true, dtmf: true };

    /// Nothing may.
    pub const NONE: Self = Self { speech: false, dtmf: false };

    /// Reads one of the protocol's words: `any` and `true`, `none` and `false`, `speech`, `dtmf`.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "any" | "true" => Some(Self::ANY),
            "none" | "false" => Some(Self::NONE),
            "speech" => Some(Self { speech: true, dtmf: false }),
            "dtmf" => Some(Self { speech: false, dtmf: true }),
            _ => None,
        }
    }

    /// What a frame says of it; the inner `None`: nothing.
    fn read(value: Option<&Value>) -> Option<Option<Self>> {
        match value {
            None | Some(Value::Null) => Some(None),
            Some(Value::Bool(all)) => Some(Some(if *all { Self::ANY } else { Self::NONE })),
            Some(Value::String(word)) => Self::from_word(word).map(Some),
            Some(Value::Number(_) | Value::Array(_) | Value::Object(_)) => None,
        }
    }
}

/// What an application says.
#[derive(Clone, Debug, PartialEq)]
pub enum FromApplication {
    /// Words, in pieces that carry their own blanks.
    Text {
        /// The piece.
        token: String,
        /// It ends the turn.
        last: bool,
        /// Its language (BCP 47), where it is another one.
        lang: Option<String>,
        /// What may interrupt it; `None`: as the session has it.
        interruptible: Option<Interruptible>,
        /// The next turn may take its place; `None`: as the session has it.
        preemptible: Option<bool>,
    },
    /// A sound from somewhere.
    Play {
        /// Its URL.
        source: String,
        /// How often, at least once.
        loops: u32,
        /// What may interrupt it; `None`: as the session has it.
        interruptible: Option<Interruptible>,
        /// The next turn may take its place; `None`: as the session has it.
        preemptible: Option<bool>,
    },
    /// Keys to be pressed.
    SendDigits(String),
    /// Other languages (BCP 47) from here on; at least one of them.
    Language {
        /// Of what is said.
        speech: Option<String>,
        /// Of what is heard.
        hearing: Option<String>,
    },
    /// The session is over; words for whoever takes the call.
    End(Option<String>),
}

/// A frame that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(
    /// What the application is told.
    pub String,
);

fn malformed(text: &str) -> Malformed {
    let quoted: String = text.chars().take(QUOTED_MAX).collect();
    Malformed(format!("Invalid message received: {quoted}"))
}

/// A frame's object and its type.
fn object(text: &str) -> Option<(Map<String, Value>, String)> {
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(text) else { return None };
    let kind = fields.get("type")?.as_str()?.to_owned();
    Some((fields, kind))
}

/// A field that need not be there: the outer `None` is a value that it cannot have, the inner one is none at all.
fn flag(fields: &Map<String, Value>, name: &str) -> Option<Option<bool>> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_bool().map(Some),
    }
}

/// The same for a language; an empty one is none.
fn language(fields: &Map<String, Value>, name: &str) -> Option<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => match value.as_str()? {
            "" => Some(None),
            tag => is_language(tag).then(|| Some(tag.to_owned())),
        },
    }
}

/// Whether a text has the form of a language (BCP 47); `multi` is one to those who use it.
pub fn is_language(tag: &str) -> bool {
    let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    tag.len() <= LANGUAGE_MAX && tag.split('-').all(part)
}

fn text_of<'a>(fields: &'a Map<String, Value>, name: &str, most: usize) -> Option<&'a str> {
    fields.get(name)?.as_str().filter(|text| text.len() <= most)
}

impl FromApplication {
    /// Reads a frame.
    ///
    /// # Errors
    /// [`Malformed`], with what the application is told.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        Self::of(text).ok_or_else(|| malformed(text))
    }

    fn of(text: &str) -> Option<Self> {
        let (fields, kind) = object(text)?;
        let interruptible = || Interruptible::read(fields.get("interruptible"));
        Some(match kind.as_str() {
            "text" => Self::Text {
                token: text_of(&fields, "token", TEXT_MAX)?.to_owned(),
                last: flag(&fields, "last")?.unwrap_or(false),
                lang: language(&fields, "lang")?,
                interruptible: interruptible()?,
                preemptible: flag(&fields, "preemptible")?,
            },
            "play" => {
                let loops = match fields.get("loop") {
                    None | Some(Value::Null) => 1,
                    Some(times) => u32::try_from(times.as_u64()?).ok().filter(|n| *n <= LOOPS_MAX)?,
                };
                Self::Play {
                    source: text_of(&fields, "source", 2048)?.to_owned(),
                    loops: if loops == 0 { LOOPS_MAX } else { loops },
                    interruptible: interruptible()?,
                    preemptible: flag(&fields, "preemptible")?,
                }
            }
            "sendDigits" => {
                let digits = text_of(&fields, "digits", KEYS_MAX)?;
                let key = |b: u8| b.is_ascii_digit() || matches!(b, b'w' | b'*' | b'#');
                if digits.is_empty() || !digits.bytes().all(key) {
                    return None;
                }
                Self::SendDigits(digits.to_owned())
            }
            "language" => {
                let speech = language(&fields, "ttsLanguage")?;
                let hearing = language(&fields, "transcriptionLanguage")?;
                if speech.is_none() && hearing.is_none() {
                    return None;
                }
                Self::Language { speech, hearing }
            }
            "end" => match fields.get("handoffData") {
                None | Some(Value::Null) => Self::End(None),
                Some(_) => Self::End(Some(text_of(&fields, "handoffData", HANDOFF_MAX)?.to_owned())),
            },
            _ => return None,
        })
    }
}

/// What a session begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// `VX` and 32 hex digits.
    pub session: String,
    /// `AC` and 32 hex digits.
    pub account: String,
    /// `CA` and 32 hex digits.
    pub call: String,
    /// Who calls.
    pub from: String,
    /// Who is called.
    pub to: String,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// What the call's context holds, as text.
    pub parameters: Map<String, Value>,
}

impl Setup {
    /// The frame.
    pub fn frame(&self) -> String {
        json!({
            "type": "setup",
            "sessionId": self.session,
            "accountSid": self.account,
            "callSid": self.call,
            "parentCallSid": "",
            "from": self.from,
            "to": self.to,
            "forwardedFrom": "",
            "callType": "PSTN",
            "callerName": "",
            "direction": self.direction,
            "callStatus": "IN-PROGRESS",
            "customParameters": self.parameters,
        })
        .to_string()
    }
}

/// A context's values as text, for `customParameters`.
pub fn parameters(context: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    context.iter().map(|(name, value)| (name.clone(), Value::String(text(value)))).collect()
}

/// The far end said something; `last`: it is said to its end.
pub fn prompt(text: &str, language: &str, last: bool) -> String {
    // Where the language is found out by the recogniser, the primary tag is all that is known of it.
    json!({ "type": "prompt", "voicePrompt": text, "lang": language, "last": last }).to_string()
}

/// What only tells how the session does, for applications that asked for it.
pub fn info(name: &str, value: &str) -> String {
    json!({ "type": "info", "name": name, "value": value }).to_string()
}

/// The far end pressed a key.
pub fn dtmf(digit: char) -> String {
    json!({ "type": "dtmf", "digit": digit.to_string() }).to_string()
}

/// What was said was interrupted; how much of it was heard.
pub fn interrupt(utterance: &str, ms: u64) -> String {
    json!({
        "type": "interrupt", "utteranceUntilInterrupt": utterance, "durationUntilInterruptMs": ms,
    })
    .to_string()
}

/// Something was wrong; the session goes on.
pub fn error(description: &str) -> String {
    json!({ "type": "error", "description": description }).to_string()
}

/// Words for the caller, as an application says them.
pub fn text(token: &str, last: bool) -> String {
    json!({ "type": "text", "token": token, "last": last }).to_string()
}

/// Keys to be pressed, as an application says it.
pub fn send_digits(digits: &str) -> String {
    json!({ "type": "sendDigits", "digits": digits }).to_string()
}

/// The application is done; why, for whoever takes the call.
pub fn end(handoff: &Value) -> String {
    json!({ "type": "end", "handoffData": handoff.to_string() }).to_string()
}

/// What a platform says that is not ours.
#[derive(Clone, Debug, PartialEq)]
pub enum FromPlatform {
    /// A call.
    Setup {
        /// `CA…`
        call: String,
        /// Who calls.
        from: String,
        /// Who is called.
        to: String,
        /// We were called; otherwise the platform dialled.
        inbound: bool,
        /// As the platform was told them.
        parameters: Map<String, Value>,
    },
    /// The caller said something.
    Prompt {
        /// The words, cumulative until the last.
        text: String,
        /// The whole turn.
        last: bool,
    },
    /// The caller pressed a key.
    Dtmf(char),
    /// The caller cut us short.
    Interrupt {
        /// As much of our turn as was heard.
        heard: String,
    },
    /// The platform did not like something.
    Error(String),
    /// What only tells how the platform does.
    Info,
}

impl FromPlatform {
    /// Reads a frame.
    ///
    /// # Errors
    /// [`Malformed`], with what the platform is told.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        Self::of(text).ok_or_else(|| malformed(text))
    }

    fn of(text: &str) -> Option<Self> {
        let (fields, kind) = object(text)?;
        let word = |name: &str| text_of(&fields, name, 256).unwrap_or_default().to_owned();
        Some(match kind.as_str() {
            "setup" => Self::Setup {
                // Telnyx names its calls by ids of its own beside, or instead.
                call: ["callSid", "callControlId"]
                    .into_iter()
                    .find_map(|name| text_of(&fields, name, 256))?
                    .to_owned(),
                from: word("from"),
                to: word("to"),
                inbound: !word("direction").starts_with("outbound"),
                parameters: fields
                    .get("customParameters")
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default(),
            },
            "prompt" => Self::Prompt {
                text: text_of(&fields, "voicePrompt", TEXT_MAX)?.to_owned(),
                // Older platforms leave it out: then each prompt is whole.
                last: fields.get("last").is_none_or(|last| last.as_bool().unwrap_or(true)),
            },
            "dtmf" => Self::Dtmf(text_of(&fields, "digit", 8)?.chars().next()?),
            "interrupt" => Self::Interrupt {
                heard: text_of(&fields, "utteranceUntilInterrupt", TEXT_MAX).unwrap_or_default().to_owned(),
            },
            "error" => Self::Error(word("description")),
            "info" => Self::Info,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_applications_say_is_read() {
        let read = |text| FromApplication::read(text).unwrap();
        assert_eq!(
            read(r#"{"type":"text","token":"Sure, ","last":false,"interruptible":true,"x":1}"#),
            FromApplication::Text {
                token: "Sure, ".into(),
                last: false,
                lang: None,
                interruptible: Some(Interruptible::ANY),
                preemptible: None
            }
        );
        assert_eq!(
            read(
                r#"{"type":"play","source":"https://files.example/hold.wav","loop":0,"interruptible":"dtmf"}"#
            ),
            FromApplication::Play {
                source: "https://files.example/hold.wav".into(),
                loops: 1000,
                interruptible: Some(Interruptible { speech: false, dtmf: true }),
                preemptible: None
            }
        );
        assert_eq!(
            read(r##"{"type":"sendDigits","digits":"1ww204#"}"##),
            FromApplication::SendDigits("1ww204#".into())
        );
        assert_eq!(
            read(r#"{"type":"language","ttsLanguage":"fr-FR"}"#),
            FromApplication::Language { speech: Some("fr-FR".into()), hearing: None }
        );
        assert_eq!(read(r#"{"type":"end","handoffData":"{}"}"#), FromApplication::End(Some("{}".into())));
        assert_eq!(read(r#"{"type":"end"}"#), FromApplication::End(None));
    }

    #[test]
    fn what_cannot_be_read_is_said_back() {
        for bad in [
            "",
            "[]",
            r#"{"kind":"x"}"#,
            r#"{"type":"x"}"#,
            r#"{"type":"text"}"#,
            r#"{"type":"text","token":null}"#,
            r#"{"type":"text","token":"a","last":"yes"}"#,
            r#"{"type":"sendDigits","digits":"12a"}"#,
            r#"{"type":"sendDigits","digits":""}"#,
            r#"{"type":"language"}"#,
            r#"{"type":"language","ttsLanguage":7,"transcriptionLanguage":"de"}"#,
            r#"{"type":"language","ttsLanguage":"no language"}"#,
            r#"{"type":"text","token":"a","lang":"../x"}"#,
            r#"{"type":"text","token":"a","interruptible":"sometimes"}"#,
            r#"{"type":"text","token":"a","interruptible":1}"#,
            r#"{"type":"end","handoffData":{}}"#,
            r#"{"type":"play","source":"https://x/y.wav","loop":-1}"#,
            r#"{"type":"play","source":"https://x/y.wav","loop":1001}"#,
        ] {
            let Malformed(told) = FromApplication::read(bad).unwrap_err();
            assert_eq!(told, format!("Invalid message received: {bad}"));
        }
        let Malformed(told) = FromApplication::read(&"ß".repeat(1000)).unwrap_err();
        assert!(told.chars().count() < 250);
    }

    #[test]
    fn what_platforms_say_is_read() {
        let setup = r#"{"type":"setup","sessionId":"VX7c1e","accountSid":"AC01","callSid":"CA9f22","from":"+441632960101","to":"+441632960202","direction":"inbound","callStatus":"RINGING","customParameters":{"ticket":"8841"}}"#;
        let FromPlatform::Setup { call, inbound, parameters, .. } = FromPlatform::read(setup).unwrap() else {
            panic!("a setup");
        };
        assert_eq!((call.as_str(), inbound, parameters["ticket"].as_str()), ("CA9f22", true, Some("8841")));
        let whole = FromPlatform::Prompt { text: "hi".into(), last: true };
        assert_eq!(FromPlatform::read(r#"{"type":"prompt","voicePrompt":"hi","last":true}"#).unwrap(), whole);
        assert_eq!(FromPlatform::read(r#"{"type":"prompt","voicePrompt":"hi"}"#).unwrap(), whole);
        let interrupt =
            r#"{"type":"interrupt","utteranceUntilInterrupt":"x","durationUntilInterruptMs":"1320"}"#;
        assert_eq!(FromPlatform::read(interrupt).unwrap(), FromPlatform::Interrupt { heard: "x".into() });
        assert!(FromPlatform::read(r#"{"type":"setup"}"#).is_err());
        let telnyx = r#"{"type":"setup","callControlId":"v3:abc","callSessionId":"s","callLegId":"l","callStatus":"active","lang":"en","from":"+1","to":"+2"}"#;
        assert!(
            matches!(FromPlatform::read(telnyx).unwrap(), FromPlatform::Setup { call, .. } if call == "v3:abc")
        );
    }

    #[test]
    fn parameters_are_text() {
        let context = json!({"a": "x", "b": 7, "c": [1]});
        let told = parameters(context.as_object().unwrap());
        assert_eq!(Value::Object(told), json!({"a": "x", "b": "7", "c": "[1]"}));
    }
}
