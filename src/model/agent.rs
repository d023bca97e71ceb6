//! Agents: who talks on a call, in whose voice, with which words first (CONTRACT 1.2, 1.3, 4.1).

use serde_json::{Map, Value};

use super::Timestamp;

/// Which calls an agent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// It answers.
    Inbound,
    /// It calls.
    Outbound,
}

impl AgentKind {
    /// The word of the database and of the surfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// Reads [`AgentKind::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Inbound, Self::Outbound].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What an agent does where answering-machine detection says that a machine answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Voicemail {
    /// It goes on as with a person; nothing is detected.
    #[default]
    Continue,
    /// It hangs up.
    HangUp,
    /// It says this after the greeting, and hangs up.
    Message(String),
}

impl Voicemail {
    /// The word of the database and of the surfaces.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::HangUp => "hangup",
            Self::Message(_) => "message",
        }
    }

    /// What it says.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Message(text) => Some(text),
            Self::Continue | Self::HangUp => None,
        }
    }

    /// Reads [`Voicemail::as_str`] and [`Voicemail::message`]; `None` for another word, and for a message of no words.
    pub fn from_text(word: &str, message: Option<&str>) -> Option<Self> {
        match word {
            "continue" => Some(Self::Continue),
            "hangup" => Some(Self::HangUp),
            "message" => {
                let text = message.filter(|text| !text.trim().is_empty())?;
                Some(Self::Message(text.to_owned()))
            }
            _ => None,
        }
    }
}

/// Names of the functions that every agent's language model may call; no customer's function has one of them.
pub const OWN_TOOLS: [&str; 4] = ["hang_up", "transfer", "send_dtmf", "gather_digits"];

/// A function of the customer's that the language model may call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentTool {
    /// Letters, digits, `_` and `-`; unlike all others of the agent.
    pub name: String,
    /// For the model: what it does and when to call it.
    pub description: String,
    /// JSON schema of its arguments.
    pub parameters: Map<String, Value>,
    /// Where calls of it are posted.
    pub url: String,
    /// How long it may take, milliseconds.
    pub timeout_ms: u32,
    /// Said when it is called while nothing is being said.
    pub filler: Option<String>,
}

/// An agent of a tenant's. One row serves both surfaces that have agents; each prints its own form of the id.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Row id; `agent_<id>` is Phony's form.
    pub id: i64,
    /// VoxForge's form of the id, `^c[a-z0-9]{24}$`.
    pub cuid: String,
    /// Whose it is.
    pub tenant: String,
    /// What is said of it.
    pub settings: AgentSettings,
    /// Made.
    pub created_at: Timestamp,
    /// Last changed.
    pub updated_at: Timestamp,
}

impl Agent {
    /// Phony's form of the id.
    pub fn phony_id(&self) -> String {
        format!("agent_{}", self.id)
    }
}

/// What can be changed of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSettings {
    /// For people.
    pub name: String,
    /// Which calls it is for.
    pub kind: AgentKind,
    /// It may place and take calls.
    pub active: bool,
    /// What the language model is told first.
    pub system_prompt: String,
    /// What it says by itself.
    pub first_message: Option<String>,
    /// As given; resolved when it speaks.
    pub voice: String,
    /// BCP-47.
    pub language: String,
    /// Seconds from answer to BYE; `None`: the engine's limit.
    pub max_call_duration_s: Option<u32>,
    /// Its calls are recorded.
    pub record: bool,
    /// Put into each call's context.
    pub context: Map<String, Value>,
    /// A ConversationRelay application that talks in its place.
    pub relay_url: Option<String>,
    /// The call goes on when that application is done; otherwise it is hung up.
    pub relay_keeps: bool,
    /// What it does where a machine answers.
    pub voicemail: Voicemail,
    /// The customer's functions that its language model may call.
    pub tools: Vec<AgentTool>,
}
