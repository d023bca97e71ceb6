//! The JSON of `POST /chat/completions`: the request, and the pieces of its answer put together. Pure. Fields that are
//! missing, `null` or new are no errors; servers differ.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, Finish, LlmError, Message, Piece, ToolCall};
use crate::config;
use crate::provider::Trouble;

/// Most functions called at once.
const CALLS_MAX: usize = 64;
/// Longest arguments of one call, bytes.
const ARGUMENTS_MAX: usize = 64 * 1024;

/// The body of a request.
pub(super) fn request(ask: &Ask, config: &config::Llm) -> Value {
    let messages: Vec<Value> = ask.messages.iter().map(message).collect();
    let model = ask.model.as_deref().filter(|model| !model.is_empty()).unwrap_or(&config.model);
    let mut body = json!({"model": model, "messages": messages, "stream": true});
    if let Some(temperature) = ask.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(most) = ask.max_tokens {
        // OpenAI renamed it; others know the old name only.
        let new = config.base_url.starts_with("https://api.openai.com/");
        body[if new { "max_completion_tokens" } else { "max_tokens" }] = json!(most);
    }
    if !ask.tools.is_empty() {
        let tool = |tool: &super::Tool| {
            let function =
                json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
            json!({"type": "function", "function": function})
        };
        body["tools"] = ask.tools.iter().map(tool).collect();
    }
    body
}

fn message(message: &Message) -> Value {
    match message {
        Message::System(text) => json!({"role": "system", "content": text}),
        Message::User(text) => json!({"role": "user", "content": text}),
        Message::Tool { id, text } => json!({"role": "tool", "tool_call_id": id, "content": text}),
        Message::Assistant { text, calls } if calls.is_empty() => {
            json!({"role": "assistant", "content": text})
        }
        Message::Assistant { text, calls } => {
            let call = |call: &ToolCall| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            };
            let content = if text.is_empty() { Value::Null } else { json!(text) };
            let calls: Vec<Value> = calls.iter().map(call).collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    /// A stream's.
    delta: Option<Delta>,
    /// A whole answer's.
    message: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// Puts the events of one answer together.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    calls: Vec<ToolCall>,
    finish: Option<Finish>,
    spoke: bool,
    done: bool,
}

impl Assembly {
    /// What an event says.
    ///
    /// # Errors
    /// [`LlmError::Service`] for an error in the place of an answer.
    pub(super) fn take(&mut self, event: &str) -> Result<Vec<Piece>, LlmError> {
        if self.done {
            return Ok(Vec::new());
        }
        if event.trim() == "[DONE]" {
            return self.end();
        }
        let bad = |_| LlmError::Service(Trouble::Answer("other JSON"));
        let chunk: Chunk = serde_json::from_str(event).map_err(bad)?;
        if chunk.error.is_some_and(|error| !error.is_null()) {
            return Err(Trouble::Answer("an error").into());
        }
        let mut pieces = Vec::new();
        // The last chunk may have no choices, only figures.
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(pieces) };
        if let Some(delta) = choice.delta.or(choice.message) {
            let text = delta.content.or(delta.refusal).filter(|text| !text.is_empty());
            self.spoke |= text.is_some();
            pieces.extend(text.map(Piece::Text));
            for call in delta.tool_calls.unwrap_or_default() {
                self.call(call)?;
            }
        }
        self.finish = choice.finish_reason.as_deref().map(finish).or(self.finish);
        Ok(pieces)
    }

    fn call(&mut self, delta: CallDelta) -> Result<(), LlmError> {
        // Some servers count, some send each call whole, with an id that is new.
        let same = |call: &ToolCall| delta.id.as_ref().is_none_or(|id| id.is_empty() || *id == call.id);
        let at = match delta.index {
            Some(index) => index,
            None if self.calls.last().is_some_and(same) => self.calls.len() - 1,
            None => self.calls.len(),
        };
        if at >= CALLS_MAX || at > self.calls.len() {
            return Err(Trouble::Answer("calls without order").into());
        }
        if at == self.calls.len() {
            self.calls.push(ToolCall::default());
        }
        let call = &mut self.calls[at];
        if let Some(id) = delta.id.filter(|id| !id.is_empty()) {
            call.id = id;
        }
        if let Some(function) = delta.function {
            if let Some(name) = function.name.filter(|name| !name.is_empty()) {
                call.name = name;
            }
            call.arguments.push_str(&function.arguments.unwrap_or_default());
        }
        if call.arguments.len() > ARGUMENTS_MAX { Err(Trouble::Answer("too much").into()) } else { Ok(()) }
    }

    /// The end: the calls, which are whole now, and why it ended.
    ///
    /// # Errors
    /// [`LlmError::Silent`] where there was neither text nor a call.
    pub(super) fn end(&mut self) -> Result<Vec<Piece>, LlmError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(Vec::new());
        }
        let calls: Vec<ToolCall> =
            std::mem::take(&mut self.calls).into_iter().filter(|call| !call.name.is_empty()).collect();
        if !self.spoke && calls.is_empty() && self.finish != Some(Finish::Filtered) {
            return Err(LlmError::Silent);
        }
        let otherwise = if calls.is_empty() { Finish::Stop } else { Finish::Calls };
        let finish = self.finish.unwrap_or(otherwise);
        Ok(calls.into_iter().map(Piece::Call).chain([Piece::Done(finish)]).collect())
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::Calls,
        "content_filter" => Finish::Filtered,
        _ => Finish::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::Tool;

    fn config() -> config::Llm {
        config::Llm { base_url: "http://h/v1".into(), model: "m".into(), ..config::Llm::default() }
    }

    fn all(events: &[&str]) -> Result<Vec<Piece>, LlmError> {
        let mut assembly = Assembly::default();
        let mut pieces = Vec::new();
        for event in events {
            pieces.extend(assembly.take(event)?);
        }
        pieces.extend(assembly.end()?);
        Ok(pieces)
    }

    #[test]
    fn a_conversation_with_functions_is_written() {
        let call = ToolCall { id: "c1".into(), name: "hours".into(), arguments: "{}".into() };
        let ask = Ask {
            messages: vec![
                Message::System("Be short.".into()),
                Message::User("When?".into()),
                Message::Assistant { text: String::new(), calls: vec![call] },
                Message::Tool { id: "c1".into(), text: "9 to 5".into() },
                Message::Assistant { text: "Nine.".into(), calls: Vec::new() },
            ],
            tools: vec![Tool {
                name: "hours".into(),
                description: "When we are open".into(),
                parameters: json!({"type": "object"}),
            }],
            temperature: Some(0.5),
            max_tokens: Some(100),
            model: None,
        };
        let body = request(&ask, &config());
        assert_eq!((&body["model"], &body["stream"]), (&json!("m"), &json!(true)));
        assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(100), &json!(0.5)));
        assert_eq!(body["messages"][2]["tool_calls"][0]["function"]["name"], "hours");
        assert!(body["messages"][2]["content"].is_null());
        assert_eq!(body["messages"][3], json!({"role": "tool", "tool_call_id": "c1", "content": "9 to 5"}));
        assert_eq!(body["tools"][0]["function"]["description"], "When we are open");
        let openai = config::Llm { base_url: "https://api.openai.com/v1".into(), ..config() };
        assert_eq!(request(&ask, &openai)["max_completion_tokens"], 100);
        assert!(request(&Ask::default(), &config()).get("tools").is_none());
    }

    #[test]
    fn text_comes_as_it_is_written() {
        let pieces = all(&[
            "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}",
            "{\"choices\":[{\"delta\":{\"content\":\"Hel\"},\"finish_reason\":null}]}",
            "{\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}",
            "{\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}",
            "{\"choices\":[],\"usage\":{\"total_tokens\":3}}",
            "[DONE]",
            "{\"choices\":[{\"delta\":{\"content\":\"late\"}}]}",
        ]);
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces, Ok(vec![text("Hel"), text("lo"), Piece::Done(Finish::Length)]));
    }

    #[test]
    fn functions_are_put_together() {
        let pieces = all(&[
            "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}",
            "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\"\"}}]}}]}",
            "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}",
            "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]},\"finish_reason\":\"tool_calls\"}]}",
        ])
        .unwrap();
        let call = |id: &str, name: &str, arguments: &str| {
            Piece::Call(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() })
        };
        assert_eq!(pieces, [call("a", "f", "{\"x\":1}"), call("b", "g", "{}"), Piece::Done(Finish::Calls)]);
        let pieces = all(&[
            "{\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}",
        ]);
        assert_eq!(pieces.unwrap(), [call("a", "f", "{}"), call("b", "g", "{}"), Piece::Done(Finish::Calls)]);
    }

    #[test]
    fn errors_and_nothing_are_told_apart() {
        assert_eq!(all(&["[DONE]"]), Err(LlmError::Silent));
        assert_eq!(all(&[]), Err(LlmError::Silent));
        assert_eq!(all(&["nonsense"]), Err(LlmError::Service(Trouble::Answer("other JSON"))));
        let error = all(&["{\"error\":{\"message\":\"overloaded\"}}"]);
        assert_eq!(error, Err(LlmError::Service(Trouble::Answer("an error"))));
        let far = "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":99,\"id\":\"a\"}]}}]}";
        assert!(all(&[far]).is_err());
        let filtered = all(&["{\"choices\":[{\"delta\":{},\"finish_reason\":\"content_filter\"}]}"]);
        assert_eq!(filtered, Ok(vec![Piece::Done(Finish::Filtered)]));
    }
}
