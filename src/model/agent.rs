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
}
