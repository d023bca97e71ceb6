//! A language model: any server that speaks OpenAI's `POST /chat/completions`, streamed.
//!
//! This room owns the request, the stream of its answer ([`Reply`]) and its time limits. It keeps no conversation,
//! decides nothing, and logs no text. Dropping a reply ends the request.

mod sse;
mod wire;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::provider::{Answer, Client, Order, STALL_TIME, Trouble, bearer, joined};

use wire::Assembly;

/// Most characters of one reply; what comes after is not read.
const TEXT_MAX: usize = 32 * 1024;

/// What a model is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// Functions that it may call.
    pub tools: Vec<Tool>,
    /// The model; `None`: the configured one.
    pub model: Option<String>,
    /// 0 to 2; `None`: as the server has it.
    pub temperature: Option<f32>,
    /// Longest reply, tokens; `None`: as the server has it.
    pub max_tokens: Option<u32>,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What the model is to be.
    System(String),
    /// What the other side said.
    User(String),
    /// What the model said, and the functions that it called.
    Assistant {
        /// What it said.
        text: String,
        /// What it called.
        calls: Vec<ToolCall>,
    },
    /// What a function gave.
    Tool {
        /// The call's id.
        id: String,
        /// What it gave.
        text: String,
    },
}

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// When to call it.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: serde_json::Value,
}

/// A call of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Its id, for the answer.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments as the model wrote them: JSON, if it wrote well.
    pub arguments: String,
}

/// A part of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, cut anywhere.
    Text(String),
    /// A whole call of a function.
    Call(ToolCall),
    /// The end; nothing comes after it.
    Done(Finish),
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model was done.
    Stop,
    /// It reached its longest length.
    Length,
    /// It waits for functions.
    Calls,
    /// The server would not say it.
    Filtered,
}

/// Why there is no reply, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// The server, or the way to it.
    #[error("the language model failed: {0}")]
    Service(#[from] Trouble),
    /// The first word did not come in time.
    #[error("the language model did not begin in time")]
    NoFirstWord,
    /// The last word did not come in time.
    #[error("the language model did not end in time")]
    NoEnd,
    /// The reply has neither text nor calls.
    #[error("the language model said nothing")]
    Silent,
}

/// The configured model. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Llm {
    client: Client,
    config: config::Llm,
}

/// A reply that comes. Dropping it ends the request.
#[derive(Debug)]
pub struct Reply {
    answer: Option<Answer>,
    lines: sse::Lines,
    assembly: Assembly,
    ready: VecDeque<Piece>,
    /// When the next piece must be there, and when all must.
    first_until: Option<Instant>,
    until: Instant,
    said: usize,
}

impl Llm {
    /// The configured model; `None` where none is configured.
    ///
    /// # Errors
    /// [`LlmError::Service`] where no request can be made at all.
    pub fn new(config: &config::Llm) -> Result<Option<Self>, LlmError> {
        if config.base_url.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { client: Client::new()?, config: config.clone() }))
    }

    /// The configured model's name.
    pub fn model(&self) -> &str {
        &self.config.model
    }

    /// Asks; returns when the server begins to answer. A refusal that may pass is tried once more.
    ///
    /// # Errors
    /// [`LlmError`].
    pub async fn ask(&self, ask: &Ask) -> Result<Reply, LlmError> {
        let now = Instant::now();
        let first = Duration::from_millis(u64::from(self.config.first_token_timeout_ms));
        let until = now + Duration::from_secs(u64::from(self.config.timeout_s));
        let mut headers =
            vec![("content-type", "application/json".to_owned()), ("accept", "text/event-stream".to_owned())];
        headers.extend(bearer(&self.config.api_key.0));
        let order = Order {
            url: joined(&self.config.base_url, "chat/completions"),
            headers,
            body: wire::request(ask, &self.config).to_string().into(),
        };
        let answer = self.client.send(&order, first).await.map_err(|trouble| match trouble {
            Trouble::Late => LlmError::NoFirstWord,
            other => LlmError::Service(other),
        })?;
        let whole = match answer.kind().as_str() {
            "text/event-stream" => false,
            "application/json" => true,
            _ => return Err(Trouble::Answer("neither events nor JSON").into()),
        };
        Ok(Reply {
            answer: Some(answer),
            lines: sse::Lines::new(whole),
            assembly: Assembly::default(),
            ready: VecDeque::new(),
            first_until: Some(now + first),
            until,
            said: 0,
        })
    }
}

impl Reply {
    /// The next piece; `None` after [`Piece::Done`] or an error. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Option<Result<Piece, LlmError>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.first_until = None;
                if let Piece::Text(text) = &piece {
                    self.said += text.len();
                }
                if self.said > TEXT_MAX {
                    self.answer = None;
                    self.ready.clear();
                    return Some(Ok(Piece::Done(Finish::Length)));
                }
                if matches!(piece, Piece::Done(_)) {
                    self.answer = None;
                }
                return Some(Ok(piece));
            }
            if let Err(error) = self.read().await? {
                self.answer = None;
                return Some(Err(error));
            }
        }
    }

    /// Reads one piece of the body; `None` where there is nothing left to read.
    async fn read(&mut self) -> Option<Result<(), LlmError>> {
        let answer = self.answer.as_mut()?;
        // The first word has a time limit of its own, however long a service is silent before it.
        let (limit, late) = match self.first_until {
            Some(first) => (first.min(self.until), LlmError::NoFirstWord),
            None if Instant::now() + STALL_TIME > self.until => (self.until, LlmError::NoEnd),
            None => (Instant::now() + STALL_TIME, LlmError::Service(Trouble::Late)),
        };
        let within = limit.saturating_duration_since(Instant::now());
        let chunk = match answer.chunk_within(within).await {
            Err(Trouble::Late) => return Some(Err(late)),
            Err(trouble) => return Some(Err(trouble.into())),
            Ok(chunk) => chunk,
        };
        let events = match &chunk {
            Some(bytes) => self.lines.push(bytes),
            None => self.lines.finish(),
        };
        let taken = events.map_err(LlmError::Service).and_then(|events| {
            for event in events {
                self.ready.extend(self.assembly.take(&event)?);
            }
            Ok(())
        });
        if taken.is_ok() && chunk.is_none() {
            // A server that forgets to say that it is done has said all the same.
            self.answer = None;
            return match self.assembly.end() {
                Ok(rest) => {
                    self.ready.extend(rest);
                    (!self.ready.is_empty()).then_some(Ok(()))
                }
                Err(error) => Some(Err(error)),
            };
        }
        Some(taken)
    }
}
