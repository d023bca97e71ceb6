//! The thought: one question to the language model and its answer, cut into clauses as it comes. A task of its own;
//! dropping it ends the request.

use std::time::Instant;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::meter::Mark;
use super::{Agent, Line, Role, Sense, tools};
use crate::clock;
use crate::control::Rooms;
use crate::llm::{self, Ask, Llm, Message, Piece};
use crate::model::call::CallOrder;
use crate::speech::{Clauses, words};

/// Tokens of an answer: nobody wants to listen longer.
const TOKENS_MAX: u32 = 600;

/// What a thought tells.
#[derive(Debug)]
pub(super) enum News {
    /// Something for the agent.
    Sense(Sense),
    /// A moment of the answer of that generation.
    Mark(u32, Mark, Instant),
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Thought(JoinHandle<()>);

impl Drop for Thought {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks the model; its answer is told as [`Sense`]s of this generation.
pub(super) fn think(llm: Llm, ask: Ask, generation: u32, told: mpsc::Sender<News>) -> Thought {
    Thought(tokio::spawn(async move {
        if let Err(error) = answer(&llm, &ask, generation, &told).await {
            tracing::warn!(%error, "the language model gave no whole answer");
            // Whoever asked may be gone.
            let _ = told.send(News::Sense(Sense::Failed(generation))).await;
        }
    }))
}

async fn answer(
    llm: &Llm,
    ask: &Ask,
    generation: u32,
    told: &mpsc::Sender<News>,
) -> Result<(), llm::LlmError> {
    let mark = |mark| News::Mark(generation, mark, clock::now().mono);
    let mut reply = llm.ask(ask).await?;
    let mut clauses = Clauses::new();
    let mut silent = true;
    while let Some(piece) = reply.next().await {
        let senses: Vec<Sense> = match piece? {
            Piece::Text(text) => {
                if std::mem::take(&mut silent) {
                    // Whoever asked may be gone.
                    let _ = told.send(mark(Mark::Token)).await;
                }
                clauses.push(&text).iter().filter_map(|clause| spoken(generation, clause)).collect()
            }
            Piece::Call(call) => vec![Sense::Tool(generation, call)],
            Piece::Done(_) => break,
        };
        for sense in senses {
            if matches!(sense, Sense::Clause(..)) {
                let _ = told.send(mark(Mark::Clause)).await;
            }
            if told.send(News::Sense(sense)).await.is_err() {
                return Ok(());
            }
        }
    }
    if let Some(rest) = clauses.finish().and_then(|clause| spoken(generation, &clause)) {
        let _ = told.send(mark(Mark::Clause)).await;
        let _ = told.send(News::Sense(rest)).await;
    }
    let _ = told.send(News::Sense(Sense::Thought(generation))).await;
    Ok(())
}

fn spoken(generation: u32, clause: &str) -> Option<Sense> {
    words(clause).map(|clause| Sense::Clause(generation, clause.to_owned()))
}

/// What the customer gave along with a call, for the model.
pub(super) fn about(rooms: &Rooms, order: &CallOrder) -> String {
    let context = rooms.live.get(order.id).map(|view| view.order.purpose.context.clone());
    match context.filter(|context| !context.is_empty()) {
        Some(context) => format!("\n\nWhat is known of this call: {}", Value::Object(context)),
        None => String::new(),
    }
}

/// What the model is asked now; `about` is what is known of the call.
pub(super) fn question(agent: &Agent, about: &str) -> Ask {
    let manner = agent.manner();
    let mut messages = vec![Message::System(format!("{}{about}", manner.prompt))];
    let lines: Vec<&Line> = agent.history().collect();
    // Functions called in the answer that goes on stand behind the last words; what it has said belongs before them.
    let last_said = lines.iter().rposition(|line| matches!(line, Line::Said(_)));
    let mut unfinished = agent.unfinished();
    for (at, line) in lines.into_iter().enumerate() {
        match line {
            Line::Said(said) if said.role == Role::Caller => messages.push(Message::User(said.text.clone())),
            Line::Said(said) => {
                messages.push(Message::Assistant { text: said.text.clone(), calls: Vec::new() });
            }
            Line::Used(used) => {
                let present = last_said.is_none_or(|last| at > last);
                let text = if present { std::mem::take(&mut unfinished) } else { String::new() };
                messages.push(Message::Assistant { text, calls: vec![used.call.clone()] });
                messages.push(Message::Tool { id: used.call.id.clone(), text: used.result.clone() });
            }
        }
    }
    let tools = if agent.may_use_tools() { tools::offered(&manner.tools) } else { Vec::new() };
    Ask { messages, tools, max_tokens: Some(TOKENS_MAX), ..Ask::default() }
}
