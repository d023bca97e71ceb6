//! The customer's functions of an agent, and what it does where a machine answers, as both surfaces with agents take and
//! show them. The addresses are looked at by the guard of webhooks.

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::fault::Fault;
use super::fields::Fields;
use crate::config::Webhooks;
use crate::model::agent::{AgentTool, OWN_TOOLS, Voicemail};

/// Functions of one agent.
const TOOLS_MAX: usize = 16;
/// Longest name, description, filler, characters, and longest schema, bytes.
const NAME_MAX: usize = 64;
const DESCRIPTION_MAX: usize = 1000;
const FILLER_MAX: usize = 200;
/// Longest message for machines, characters.
const MESSAGE_MAX: usize = 5000;
const SCHEMA_MAX_BYTES: usize = 8 * 1024;
/// Seconds that a function may take, unless said.
const SECONDS: u32 = 10;

/// A function that the language model may call.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AgentTool)]
pub struct ToolBody {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`; not one of `hang_up`, `transfer`, `send_dtmf`, `gather_digits`.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
    /// For the model: what it does, and when to call it.
    #[schema(min_length = 1, max_length = 1000)]
    description: String,
    /// JSON schema of its arguments.
    #[schema(value_type = Object)]
    parameters: Map<String, Value>,
    /// Where calls are posted, signed like webhooks; what is answered with a 2xx is told to the model, up to 8 KiB.
    url: String,
    /// Seconds that it may take.
    #[schema(minimum = 1, maximum = 10)]
    timeout: u32,
    /// Said when it is called while nothing else is being said.
    filler: Option<String>,
}

impl From<&AgentTool> for ToolBody {
    fn from(tool: &AgentTool) -> Self {
        Self {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            url: tool.url.clone(),
            timeout: tool.timeout_ms / 1000,
            filler: tool.filler.clone(),
        }
    }
}

/// Shows an agent's functions.
pub fn shown(tools: &[AgentTool]) -> Vec<ToolBody> {
    tools.iter().map(ToolBody::from).collect()
}

/// Reads the functions of a body; they take the place of all there were.
///
/// # Errors
/// [`Fault::Bad`] names what is wrong with which.
pub fn read(fields: &Fields, name: &str, webhooks: &Webhooks) -> Result<Option<Vec<AgentTool>>, Fault> {
    let Some(list) = fields.list(name, TOOLS_MAX)? else { return Ok(None) };
    let mut tools: Vec<AgentTool> = Vec::new();
    for (at, value) in list.iter().enumerate() {
        let place = |fault| match fault {
            Fault::Bad(text) => Fault::Bad(format!("{name}[{at}]: {text}")),
            other => other,
        };
        let fields = Fields::read(value.to_string().as_bytes());
        let fields = fields.map_err(|_| place(Fault::Bad("it must be an object".into())))?;
        let tool = read_one(&fields, webhooks).map_err(place)?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(place(Fault::Bad("name must be unlike the others".into())));
        }
        tools.push(tool);
    }
    Ok(Some(tools))
}

fn read_one(fields: &Fields, webhooks: &Webhooks) -> Result<AgentTool, Fault> {
    let name = fields.required_text("name")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.len() > NAME_MAX || !name.bytes().all(plain) || OWN_TOOLS.contains(&name) {
        return Err(Fault::Bad(
            "name must be 1 to 64 of A-Z a-z 0-9 _ - and none of the engine's own".into(),
        ));
    }
    let description = fields.required_text("description")?;
    let filler = fields.text("filler")?.filter(|text| !text.trim().is_empty());
    for (field, text, most) in
        [("description", description, DESCRIPTION_MAX), ("filler", filler.unwrap_or_default(), FILLER_MAX)]
    {
        if text.chars().count() > most {
            return Err(Fault::Bad(format!("{field} must be at most {most} characters")));
        }
    }
    let url = fields.webhook_url("url", webhooks)?.ok_or_else(|| Fault::Bad("url is required".into()))?;
    let seconds = fields.integer("timeout", 1..=SECONDS)?.unwrap_or(SECONDS);
    Ok(AgentTool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: parameters(fields)?,
        url,
        timeout_ms: seconds * 1000,
        filler: filler.map(str::to_owned),
    })
}

fn parameters(fields: &Fields) -> Result<Map<String, Value>, Fault> {
    let Some(schema) = fields.map("parameters")? else {
        return Ok(Map::from_iter([
            ("type".to_owned(), json!("object")),
            ("properties".to_owned(), json!({})),
        ]));
    };
    if schema.get("type").is_some_and(|kind| kind != "object") {
        return Err(Fault::Bad("parameters must be the JSON schema of an object".into()));
    }
    if Value::Object(schema.clone()).to_string().len() > SCHEMA_MAX_BYTES {
        return Err(Fault::Bad(format!("parameters must be at most {SCHEMA_MAX_BYTES} bytes")));
    }
    Ok(schema.clone())
}

/// What a body says of machines: a word, and the message that one of the words needs, which alone means that word. `names`
/// are the surface's own for both.
///
/// # Errors
/// [`Fault::Bad`].
pub fn voicemail(fields: &Fields, names: [&str; 2]) -> Result<Option<Voicemail>, Fault> {
    let [word_name, message_name] = names;
    let (word, message) = (fields.text(word_name)?, fields.text(message_name)?);
    if message.is_some_and(|text| text.chars().count() > MESSAGE_MAX) {
        return Err(Fault::Bad(format!("{message_name} must be at most {MESSAGE_MAX} characters")));
    }
    let Some(word) = word.or(message.map(|_| "message")) else { return Ok(None) };
    if !["continue", "hangup", "message"].contains(&word) {
        return Err(Fault::Bad(format!("{word_name} must be continue, hangup or message")));
    }
    let read = Voicemail::from_text(word, message);
    let wanted = || Fault::Bad(format!("{message_name} is required where {word_name} is message"));
    read.map(Some).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(text: &str) -> Result<Option<Vec<AgentTool>>, Fault> {
        let fields = Fields::read(format!("{{\"tools\":{text}}}").as_bytes()).unwrap();
        read(&fields, "tools", &Webhooks::default())
    }

    #[test]
    fn a_function_is_taken_whole_or_not_at_all() {
        let book = r#"{"name":"book","description":"Books.","url":"https://example.com/book"}"#;
        let taken = tools(&format!("[{book}]")).unwrap().unwrap();
        assert_eq!((taken[0].name.as_str(), taken[0].timeout_ms), ("book", 10_000));
        assert_eq!(taken[0].parameters["type"], "object");
        assert_eq!(tools("[]").unwrap().map(|tools| tools.len()), Some(0));
        for (text, wrong) in [
            (format!("[{book},{book}]"), "tools[1]: name must be unlike the others"),
            ("[1]".into(), "tools[0]: it must be an object"),
            (book.replace("\"book\"", "\"transfer\""), "none of the engine's own"),
            (book.replace("\"book\"", "\"a b\""), "name must be 1 to 64"),
            (book.replace("https://example.com", "https://10.0.0.1"), "url must be an https URL"),
            (book.replace('}', r#","timeout":11}"#), "timeout must be an integer from 1 to 10"),
            (book.replace('}', r#","parameters":{"type":"array"}}"#), "JSON schema of an object"),
            (book.replace("Books.", &"x".repeat(1001)), "description must be at most 1000"),
        ] {
            let text = if text.starts_with('[') { text } else { format!("[{text}]") };
            let Err(Fault::Bad(said)) = tools(&text) else { panic!("{text}") };
            assert!(said.contains(wrong), "{said}");
        }
    }

    #[test]
    fn a_message_for_machines_has_words() {
        let read = |text: &str| {
            voicemail(&Fields::read(text.as_bytes()).unwrap(), ["voicemail", "voicemail_message"])
        };
        let message = Some(Voicemail::Message("Call us.".into()));
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"voicemail":"hangup"}"#), Ok(Some(Voicemail::HangUp)));
        assert_eq!(read(r#"{"voicemail":"message","voicemail_message":"Call us."}"#), Ok(message.clone()));
        assert_eq!(read(r#"{"voicemail_message":"Call us."}"#), Ok(message));
        for wrong in [
            r#"{"voicemail":"message"}"#,
            r#"{"voicemail":"message","voicemail_message":" "}"#,
            r#"{"voicemail":"shout"}"#,
            r#"{"voicemail":1}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
