//! Calls that an agent makes, on whichever surface they are asked for (CONTRACT 1.2, 1.3, 3 S25): what the agent says
//! first and how it listens, and whether an agent may go. The call is placed by [`super::placing`].

use serde_json::{Map, Value};

use super::{PlaceCall, Record, Script};
use crate::config;
use crate::model::account::{ApiKey, RecordingMode};
use crate::model::agent::{Agent, AgentKind, Voicemail};
use crate::model::call::{Surface, Then};
use crate::model::purpose::{Direction, Mode, Purpose};
use crate::model::{CallerId, PhoneNumber};
use crate::store::{Db, StoreError};

/// Seconds that a call of an agent's rings at most.
const RING_S: u32 = 30;

/// What an agent is sent for.
#[derive(Clone, Debug, PartialEq)]
pub struct Errand {
    /// Where it was asked for.
    pub surface: Surface,
    /// Whom to call.
    pub to: PhoneNumber,
    /// Who the callee shall see.
    pub from: Option<CallerId>,
    /// The campaign's id.
    pub campaign: Option<String>,
    /// The contact's id.
    pub contact: Option<String>,
    /// What the customer wants remembered of the call; stands over what the agent has.
    pub context: Map<String, Value>,
}

/// Why an agent calls nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It only answers.
    Inbound,
    /// It is switched off.
    Inactive,
}

/// What keeps an agent from calling, on whichever surface and for whichever campaign; `None`: nothing.
pub fn idle(agent: &Agent) -> Option<Idle> {
    if agent.settings.kind == AgentKind::Inbound {
        Some(Idle::Inbound)
    } else {
        (!agent.settings.active).then_some(Idle::Inactive)
    }
}

/// Why an agent cannot be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// It talks on live calls.
    Calls,
    /// A campaign that is not over wants it.
    Campaigns,
}

/// What keeps an agent, by its row, from being deleted.
///
/// # Errors
/// A database that failed.
pub async fn in_use(db: &Db, agent: i64) -> Result<Option<InUse>, StoreError> {
    if db.agent_has_calls(agent).await? {
        return Ok(Some(InUse::Calls));
    }
    Ok(db.agent_has_campaigns(agent).await?.then_some(InUse::Campaigns))
}

/// Bounds what a key may do by its plan too: the smallest limit holds (CONTRACT 0.8).
pub fn bound_by_plan(key: &mut ApiKey, plans: &config::Plans) {
    let most = plans.limits(&key.plan).max_concurrent_calls.unwrap_or(u32::MAX);
    key.max_concurrent = key.max_concurrent.min(most);
}

/// What an agent says first, and then listens. Where it has nothing of its own to say it says the fallback.
pub fn script(agent: &Agent, settings: &config::Agent) -> Script {
    let own = agent.settings.first_message.as_deref().filter(|text| !text.trim().is_empty());
    let text = own.unwrap_or(&settings.fallback_text).to_owned();
    let silence_ms = settings.silence_s.saturating_mul(1000);
    Script { text, then: Then::Listen { silence_ms, repeats: settings.silence_repeats } }
}

/// The call that an agent makes on an errand, under this key: one that records nothing stands over the agent.
pub fn call_by_agent(agent: &Agent, errand: Errand, key: &ApiKey, settings: &config::Agent) -> PlaceCall {
    let own = &agent.settings;
    let mut context = own.context.clone();
    context.extend(errand.context);
    PlaceCall {
        surface: errand.surface,
        submitted_number: errand.to.e164(),
        to: errand.to,
        caller_id: errand.from,
        webhook_url: None,
        // Whoever does the same for people and machines needs to wait for no verdict.
        use_amd: own.voicemail != Voicemail::Continue,
        voice_name: own.voice.clone(),
        ring_timeout_s: RING_S,
        max_duration_s: own.max_call_duration_s,
        record: Record::As(own.record && key.recording != RecordingMode::Off),
        record_channels: media::Channels::Mono,
        purpose: Purpose {
            direction: Direction::Outbound,
            mode: Mode::Agent,
            agent: Some(agent.id),
            campaign: errand.campaign,
            contact: errand.contact,
            context,
            brief: None,
        },
        // An application that talks in its place says everything.
        script: own.relay_url.is_none().then(|| script(agent, settings)),
    }
}
