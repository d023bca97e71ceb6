//! The functions that the language model may call: four of the engine's own, and those of the customer. What it wrote is
//! read here, once; what cannot be read is told to the model in words, and nothing is done. Pure.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::core::Agent;
use super::gathering::{Gathering, Wanted};
use super::{Act, Line, Tool, Used};
use crate::llm::{self, ToolCall};
use crate::model::agent::AgentTool;

/// Functions that one answer may wait for at once.
const OPEN_MAX: usize = 8;
/// Keys that are waited for at most, and for how long.
const KEYS_MAX: u64 = 32;
const GATHER_S: u64 = 15;
const GATHER_S_MAX: u64 = 60;

/// What the model wants done.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// One of the engine's own.
    Own(Tool),
    /// Wait for keys.
    Gather(Wanted),
    /// One of the customer's: what is said meanwhile.
    Theirs(Option<String>),
}

impl Agent {
    /// The model calls a function.
    pub(super) fn use_tool(&mut self, generation: u32, call: ToolCall, acts: &mut Vec<Act>) {
        if generation != self.generation {
            return;
        }
        let wish = wish(&call, &self.manner.tools).and_then(|wish| match wish {
            // The call may always end.
            Wish::Own(Tool::HangUp | Tool::Transfer(_)) => Ok(wish),
            _ if !self.may_use_tools() => Err("no more functions for this answer"),
            _ if self.open.len() >= OPEN_MAX => Err("too many functions at once"),
            wish => Ok(wish),
        });
        match wish {
            Ok(Wish::Own(tool @ Tool::SendDigits(_))) => {
                acts.push(Act::Use(tool));
                self.answer_call(call, &json!({ "done": true }));
            }
            Ok(Wish::Own(tool @ (Tool::HangUp | Tool::Transfer(_)))) => self.after = Some(tool),
            Ok(Wish::Gather(wanted)) => {
                if !self.start_gathering(Gathering::new(call.clone(), wanted)) {
                    self.answer_call(call, &json!({ "error": "keys are being waited for already" }));
                }
            }
            Ok(Wish::Theirs(filler)) => {
                if let Some(filler) = filler.filter(|_| self.speaking.is_empty()) {
                    self.speak(generation, filler, acts);
                }
                self.open.push(call.clone());
                acts.push(Act::Ask(call));
            }
            Err(error) => self.answer_call(call, &json!({ "error": error })),
        }
    }

    fn answer_call(&mut self, call: ToolCall, result: &Value) {
        self.remember(Line::Used(Used { call, result: result.to_string() }));
        self.news = true;
    }
}

/// What a call asks for.
fn wish(call: &ToolCall, theirs: &[AgentTool]) -> Result<Wish, &'static str> {
    let arguments = arguments(call)?;
    let text = |name: &str| arguments.get(name).and_then(Value::as_str).map(str::to_owned);
    match call.name.as_str() {
        "hang_up" => Ok(Wish::Own(Tool::HangUp)),
        "transfer" => text("to").map(|to| Wish::Own(Tool::Transfer(to))).ok_or("to must be a string"),
        "send_dtmf" => {
            let digits = text("digits").filter(|digits| are_keys(digits));
            let digits = digits.ok_or("digits must be 1 to 64 of 0-9, *, #, A-D and w")?;
            Ok(Wish::Own(Tool::SendDigits(digits)))
        }
        "gather_digits" => wanted(&arguments).map(Wish::Gather),
        name => {
            let tool = theirs.iter().find(|tool| tool.name == name);
            let tool = tool.ok_or("there is no such function")?;
            Ok(Wish::Theirs(tool.filler.clone()))
        }
    }
}

/// The arguments of a call; some servers write nothing where there are none.
pub(super) fn arguments(call: &ToolCall) -> Result<Map<String, Value>, &'static str> {
    if call.arguments.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(&call.arguments) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(_) | Err(_) => Err("the arguments must be a JSON object"),
    }
}

fn are_keys(digits: &str) -> bool {
    let key = |c: char| matches!(c, '0'..='9' | '*' | '#' | 'A'..='D' | 'w');
    (1..=64).contains(&digits.len()) && digits.chars().all(key)
}

fn wanted(arguments: &Map<String, Value>) -> Result<Wanted, &'static str> {
    let number = |name: &str, unless, most| match arguments.get(name) {
        None | Some(Value::Null) => Some(unless),
        Some(value) => value.as_u64().filter(|n| (1..=most).contains(n)),
    };
    let keys = number("num_digits", 1, KEYS_MAX).and_then(|keys| usize::try_from(keys).ok());
    let seconds = number("timeout_s", GATHER_S, GATHER_S_MAX).ok_or("timeout_s must be 1 to 60")?;
    let finish = match arguments.get("finish_on_key") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) if key.is_empty() => None,
        Some(Value::String(key)) if key.len() == 1 && are_keys(key) => key.chars().next(),
        Some(_) => return Err("finish_on_key must be one key"),
    };
    let keys = keys.ok_or("num_digits must be 1 to 32")?;
    Ok(Wanted { keys, finish, within: Duration::from_secs(seconds) })
}

/// What the model is offered.
pub(super) fn offered(theirs: &[AgentTool]) -> Vec<llm::Tool> {
    let own = [
        (
            "hang_up",
            "End the call, after what you say now has been heard.",
            json!({ "type": "object", "properties": {} }),
        ),
        (
            "transfer",
            "Put the caller through to a person, after what you say now has been heard.",
            json!({ "type": "object", "required": ["to"], "properties": { "to": {
                "type": "string", "description": "Telephone number in international form, e.g. +14155550100" } } }),
        ),
        (
            "send_dtmf",
            "Press telephone keys.",
            json!({ "type": "object", "required": ["digits"], "properties": { "digits": {
                "type": "string", "description": "0-9, *, # and w for a short pause" } } }),
        ),
        (
            "gather_digits",
            "Have the caller press keys, after what you say now has been heard; gives the digits.",
            json!({ "type": "object", "required": ["num_digits"], "properties": {
                "num_digits": { "type": "integer", "description": "How many at most, 1 to 32" },
                "finish_on_key": { "type": "string", "description": "A key that ends the input, e.g. #" },
                "timeout_s": { "type": "integer", "description": "Seconds to wait; 15 unless said" } } }),
        ),
    ];
    let own = own.map(|(name, description, parameters)| llm::Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters,
    });
    let theirs = theirs.iter().map(|tool| llm::Tool {
        name: tool.name.clone(),
        description: tool.description.clone(),
        parameters: Value::Object(tool.parameters.clone()),
    });
    own.into_iter().chain(theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::agent::OWN_TOOLS;

    fn call(name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: "c1".into(), name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn only_what_is_offered_is_done() {
        let theirs =
            [AgentTool { name: "book".into(), filler: Some("A moment.".into()), ..AgentTool::default() }];
        let gather = |keys, finish, s| Wish::Gather(Wanted { keys, finish, within: Duration::from_secs(s) });
        for (name, arguments, expected) in [
            ("hang_up", "", Ok(Wish::Own(Tool::HangUp))),
            ("hang_up", "{}", Ok(Wish::Own(Tool::HangUp))),
            ("transfer", r#"{"to":"+1415"}"#, Ok(Wish::Own(Tool::Transfer("+1415".into())))),
            ("transfer", r#"{"to":7}"#, Err("to must be a string")),
            ("transfer", "not JSON", Err("the arguments must be a JSON object")),
            ("send_dtmf", r#"{"digits":"1#"}"#, Ok(Wish::Own(Tool::SendDigits("1#".into())))),
            ("send_dtmf", r#"{"digits":"1;2"}"#, Err("digits must be 1 to 64 of 0-9, *, #, A-D and w")),
            ("gather_digits", r#"{"num_digits":4}"#, Ok(gather(4, None, 15))),
            (
                "gather_digits",
                r##"{"num_digits":9,"finish_on_key":"#","timeout_s":5}"##,
                Ok(gather(9, Some('#'), 5)),
            ),
            ("gather_digits", r#"{"num_digits":33}"#, Err("num_digits must be 1 to 32")),
            (
                "gather_digits",
                r#"{"num_digits":1,"finish_on_key":"12"}"#,
                Err("finish_on_key must be one key"),
            ),
            ("book", "[]", Err("the arguments must be a JSON object")),
            ("book", "{}", Ok(Wish::Theirs(Some("A moment.".into())))),
            ("launch", "{}", Err("there is no such function")),
        ] {
            assert_eq!(wish(&call(name, arguments), &theirs), expected, "{name} {arguments}");
        }
        let offered: Vec<String> = offered(&theirs).into_iter().map(|tool| tool.name).collect();
        assert_eq!(offered, [&OWN_TOOLS[..], &["book"]].concat());
    }
}
