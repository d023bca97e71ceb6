//! What a call is for: who talks, for which campaign, with what the customer wants remembered about it.

use serde_json::{Map, Value};

/// Which way a call goes, seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// We dial.
    #[default]
    Outbound,
    /// We are called.
    Inbound,
}

impl Direction {
    /// The word of the database and of the surfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    /// Reads [`Direction::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Outbound, Self::Inbound].into_iter().find(|direction| direction.as_str() == text)
    }
}

/// Who decides what is said (CONTRACT 4.1 `mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The application, verb by verb.
    #[default]
    Control,
    /// A message is spoken and the call ended.
    Announce,
    /// A message is spoken, then the line is listened to.
    Conversation,
    /// An agent.
    Agent,
}

impl Mode {
    /// The word of the database and of the surfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Announce => "announce",
            Self::Conversation => "conversation",
            Self::Agent => "agent",
        }
    }

    /// Reads [`Mode::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        let all = [Self::Control, Self::Announce, Self::Conversation, Self::Agent];
        all.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What a call is for. The default is an outbound call that its application drives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Purpose {
    /// Which way it goes.
    pub direction: Direction,
    /// Who decides what is said.
    pub mode: Mode,
    /// The agent's row (`agents.id`).
    pub agent: Option<i64>,
    /// The campaign's id.
    pub campaign: Option<String>,
    /// The contact's id.
    pub contact: Option<String>,
    /// What the customer gave along with the call.
    pub context: Map<String, Value>,
    /// What whoever talks is told, where that is no agent with a row of its own. Not kept: a call that is read back
    /// talks no more.
    pub brief: Option<Brief>,
}

/// What a talker without a row is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    /// What the language model is told first.
    pub prompt: String,
    /// Said by itself.
    pub first_message: Option<String>,
}
