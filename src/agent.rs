//! The agent: who talks on a call when nobody drives it verb by verb. It takes what the recogniser, the language model
//! and the line say, and answers with [`Act`]s: think, speak, hold, cut, hang up. Pure: time comes in as an argument,
//! and a whole conversation runs in a test without a sound.
//!
//! Three rules hold it together. Every answer has a *generation*: what belongs to an older one is dropped, so no word of
//! an answer that was given up is ever spoken. Who is interrupted *holds* at once and is *cut* only when the caller
//! really speaks; a cough lets the sentence go on where it was (FIELD need 5). And the history holds what was *heard*,
//! not what was written, because the model must not believe that it said what nobody heard (MEDIA 3.6).
//!
//! This room never speaks SIP, and HTTP only to the customers' functions that the model calls. [`keeper`] puts agents on
//! calls, [`driver`] connects one to its call, [`analyst`] sums finished conversations up.

pub mod analyst;
mod asking;
mod core;
pub mod driver;
mod gathering;
mod heard;
pub mod keeper;
mod machine;
mod meter;
mod mouth;
mod speaking;
#[cfg(test)]
mod tests;
mod thought;
mod tools;
pub mod writing;

use std::time::Duration;

pub use self::core::Agent;
use crate::llm::ToolCall;
use crate::model::agent::{AgentTool, Voicemail};

/// How an agent behaves; the same for all of its calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    /// What the language model is told first.
    pub prompt: String,
    /// Said by itself when the call is answered.
    pub first_message: Option<String>,
    /// Said where the language model fails.
    pub fallback: String,
    /// Said after a silence that is not the last.
    pub nudge: String,
    /// Said when the call has lasted as long as it may.
    pub farewell: String,
    /// A silence of the far end.
    pub silence: Duration,
    /// So many in a row end the call; at least 1.
    pub silences: u8,
    /// So much speech in a row is meant as an interruption.
    pub confirm: Duration,
    /// From the answer to the farewell; `None`: none is said.
    pub longest: Option<Duration>,
    /// Where a machine answers.
    pub voicemail: Voicemail,
    /// The customer's own functions, which the model may call.
    pub tools: Vec<AgentTool>,
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The far end.
    Caller,
    /// The agent.
    Agent,
}

/// One message of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who.
    pub role: Role,
    /// What was said, or heard of it.
    pub text: String,
}

/// A function that the model called, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The call as the model wrote it.
    pub call: ToolCall,
    /// What the model is told of it.
    pub result: String,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Somebody said something.
    Said(Said),
    /// The model used a function.
    Used(Used),
}

/// One clause of one answer: what is spoken in one breath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClauseId {
    /// Of which answer.
    pub generation: u32,
    /// Counts from 0.
    pub index: u32,
}

/// What an agent can do besides speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    /// End the call, once all is said.
    HangUp,
    /// Put the caller through to this number, as the model wrote it.
    Transfer(String),
    /// Press keys.
    SendDigits(String),
}

/// What happens to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Sense {
    /// The far end answered.
    Answered,
    /// It is a machine.
    Machine,
    /// It began or ceased to speak.
    Talk(bool),
    /// What the recogniser believes so far; replaces what it believed before.
    Partial(String),
    /// What was said.
    Final(String),
    /// A key was pressed.
    Digit(char),
    /// A clause of the model's answer.
    Clause(u32, String),
    /// The model calls a function.
    Tool(u32, ToolCall),
    /// The model's answer is complete.
    Thought(u32),
    /// The model failed.
    Failed(u32),
    /// What a customer's function gave, whichever answer it was called in.
    Gave(Used),
    /// A clause begins to be heard; it lasts so many milliseconds.
    Began(ClauseId, u32),
    /// A clause is over, after so many milliseconds of it, whole or not.
    Played(ClauseId, u32, bool),
    /// A transfer came to nothing.
    TransferFailed,
    /// The timer.
    Timeout,
}

/// What the agent does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Ask the model, with the history as it is now; an answer before it is not wanted any more.
    Think(u32),
    /// Nothing of the model is wanted any more.
    StopThinking,
    /// Speak after all that was given before.
    Speak(ClauseId, String),
    /// Hold what is being spoken, or let it go on.
    Hold(bool),
    /// Cut what is being spoken and forget what waits.
    Cut,
    /// Do this.
    Use(Tool),
    /// Call a customer's function; what it gives comes back as [`Sense::Gave`], also when nobody waits for it any more.
    Ask(ToolCall),
    /// End the call.
    HangUp,
    /// This is being said, so far.
    Saying(Said),
    /// This was said, to the last word that was heard.
    Turn(Said),
}
