//! The thought: one question to the language model and its answer, cut into clauses as it comes. A task of its own;
//! dropping it ends the request.

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Agent, Role, Sense, Tool};
use crate::llm::{self, Ask, Clauses, Llm, Message, Piece};

/// Tokens of an answer: nobody wants to listen longer.
const TOKENS_MAX: u32 = 600;

/// A question under way.
#[derive(Debug)]
pub(super) struct Thought(JoinHandle<()>);

impl Drop for Thought {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks the model; its answer is told as [`Sense`]s of this generation.
pub(super) fn think(llm: Llm, ask: Ask, generation: u32, told: mpsc::Sender<Sense>) -> Thought {
    Thought(tokio::spawn(async move {
        if let Err(error) = answer(&llm, &ask, generation, &told).await {
            tracing::warn!(%error, "the language model gave no whole answer");
            // Whoever asked may be gone.
            let _ = told.send(Sense::Failed(generation)).await;
        }
    }))
}

async fn answer(
    llm: &Llm,
    ask: &Ask,
    generation: u32,
    told: &mpsc::Sender<Sense>,
) -> Result<(), llm::LlmError> {
    let mut reply = llm.ask(ask).await?;
    let mut clauses = Clauses::new();
    while let Some(piece) = reply.next().await {
        let senses: Vec<Sense> = match piece? {
            Piece::Text(text) => {
                clauses.push(&text).into_iter().map(|clause| Sense::Clause(generation, clause)).collect()
            }
            Piece::Call(call) => tool(&call.name, &call.arguments)
                .map(|tool| Sense::Tool(generation, tool))
                .into_iter()
                .collect(),
            Piece::Done(_) => break,
        };
        for sense in senses {
            if told.send(sense).await.is_err() {
                return Ok(());
            }
        }
    }
    let rest = clauses.finish().map(|clause| Sense::Clause(generation, clause));
    for sense in rest.into_iter().chain([Sense::Thought(generation)]) {
        // Whoever asked may be gone.
        let _ = told.send(sense).await;
    }
    Ok(())
}

/// What the model is asked now.
pub(super) fn question(agent: &Agent, about: &str) -> Ask {
    let mut messages = vec![Message::System(format!("{}{about}", agent.prompt()))];
    messages.extend(agent.history().iter().map(|said| match said.role {
        Role::Caller => Message::User(said.text.clone()),
        Role::Agent => Message::Assistant { text: said.text.clone(), calls: Vec::new() },
    }));
    Ask { messages, tools: tools(), max_tokens: Some(TOKENS_MAX), ..Ask::default() }
}

fn tools() -> Vec<llm::Tool> {
    let function = |name: &str, description: &str, parameters: Value| llm::Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters,
    };
    let text = |name: &str, about: &str| {
        json!({ "type": "object", "required": [name],
                "properties": { name: { "type": "string", "description": about } } })
    };
    vec![
        function(
            "hang_up",
            "End the call, after what you say now has been heard.",
            json!({ "type": "object", "properties": {} }),
        ),
        function(
            "transfer",
            "Put the caller through to a person, after what you say now has been heard.",
            text("to", "Telephone number in international form, e.g. +14155550100"),
        ),
        function("send_dtmf", "Press telephone keys.", text("digits", "0-9, *, # and w for a short pause")),
    ]
}

/// A call of one of [`tools`]; `None` for what the model made up.
fn tool(name: &str, arguments: &str) -> Option<Tool> {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let text = |name: &str| arguments.get(name).and_then(Value::as_str).map(str::to_owned);
    match name {
        "hang_up" => Some(Tool::HangUp),
        "transfer" => text("to").map(Tool::Transfer),
        "send_dtmf" => text("digits").map(Tool::SendDigits),
        _ => {
            tracing::warn!("the language model called a function that there is not");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_offered_is_done() {
        for (name, arguments, expected) in [
            ("hang_up", "", Some(Tool::HangUp)),
            ("hang_up", "{}", Some(Tool::HangUp)),
            ("transfer", r#"{"to":"+1415"}"#, Some(Tool::Transfer("+1415".into()))),
            ("transfer", r#"{"to":7}"#, None),
            ("transfer", "not JSON", None),
            ("send_dtmf", r#"{"digits":"1#"}"#, Some(Tool::SendDigits("1#".into()))),
            ("launch", "{}", None),
        ] {
            assert_eq!(tool(name, arguments), expected, "{name} {arguments}");
        }
        let offered: Vec<String> = tools().into_iter().map(|tool| tool.name).collect();
        assert_eq!(offered, ["hang_up", "transfer", "send_dtmf"]);
    }
}
