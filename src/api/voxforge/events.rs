//! VoxForge's webhooks (CONTRACT 0.6, 1.3): what every call of a tenant tells its endpoints, on whichever surface it was
//! placed. Pure; the bytes are made once, at the event.

use std::time::Duration;

use hmac::{Hmac, Mac};
use serde::Serialize;
use sha2::Sha256;

use super::words;
use crate::model::analysis::Analysis;
use crate::model::call::CallView;
use crate::model::event::{CallEvent, Stamped};
use crate::model::id::agent_cuid;
use crate::model::purpose::Direction;
use crate::model::{Secret, Timestamp};
use crate::webhook::{Format, Outcome, Rendered, schedule};

/// Every event, in the order in which a call tells them.
pub(super) const EVENTS: &[&str] =
    &["call.started", "call.ended", "call.failed", "transcript.ready", "analysis.complete"];

/// Delays after the first, second, … failure.
const DELAYS_S: &[u64] = &[30, 5 * 60, 30 * 60, 2 * 3600];

/// VoxForge's [`Format`].
pub struct VoxForge;

#[derive(Serialize)]
struct Body<'a> {
    event: &'static str,
    timestamp: String,
    sequence: u32,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    call_id: String,
    status: &'static str,
    duration: i64,
    to: String,
    agent_id: Option<String>,
    campaign_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    turns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sentiment: Option<&'static str>,
}

fn data(view: &CallView, at: Timestamp) -> Data<'_> {
    let order = &view.order;
    Data {
        call_id: order.id.cuid(),
        status: words::status(view),
        duration: view.duration_s(at),
        to: order.to.e164(),
        agent_id: order.purpose.agent.map(agent_cuid),
        campaign_id: order.purpose.campaign.as_deref(),
        reason: None,
        transcript_url: None,
        turns: None,
        summary: None,
        sentiment: None,
    }
}

/// The event's name, and why the call failed; nothing for facts that VoxForge does not tell.
fn tell(event: &CallEvent, view: &CallView) -> Option<(&'static str, Option<&'static str>)> {
    match event {
        CallEvent::Queued if view.order.purpose.direction == Direction::Inbound => {
            Some(("call.started", None))
        }
        // The first INVITE of the call, not of what it is transferred to.
        CallEvent::Dialing { attempt: 1, .. } if view.attempts.len() == 1 => Some(("call.started", None)),
        CallEvent::Ended { .. } if words::completed(view) => Some(("call.ended", None)),
        CallEvent::Ended { reason, .. } => Some(("call.failed", Some(reason.as_str()))),
        CallEvent::Queued
        | CallEvent::Dialing { .. }
        | CallEvent::AttemptFailed { .. }
        | CallEvent::PassedOver { .. }
        | CallEvent::Proceeding
        | CallEvent::Ringing
        | CallEvent::Answered
        | CallEvent::Screened(_)
        | CallEvent::RecordingStarted { .. }
        | CallEvent::RecordingStopped { .. }
        | CallEvent::RecordingPaused { .. }
        | CallEvent::RecordingResumed { .. }
        | CallEvent::RecordingCompleted { .. }
        | CallEvent::RecordingFailed { .. }
        | CallEvent::Digit { .. }
        | CallEvent::GatherStarted { .. }
        | CallEvent::GatherProgress { .. }
        | CallEvent::GatherComplete { .. }
        | CallEvent::GatherTimeout { .. }
        | CallEvent::Played { .. }
        | CallEvent::Said { .. }
        | CallEvent::TurnTimed(_)
        | CallEvent::ContextChanged { .. }
        | CallEvent::HandedOff { .. }
        | CallEvent::TransferStarted { .. }
        | CallEvent::TransferFailed { .. }
        | CallEvent::Unheard { .. }
        | CallEvent::Transferred => None,
    }
}

fn written(body: &Body<'_>) -> Rendered {
    let bytes = serde_json::to_vec(body).expect("the body holds only text and numbers under fixed names");
    Rendered { event: body.event, body: bytes }
}

impl Format for VoxForge {
    fn name(&self) -> &'static str {
        "voxforge"
    }

    fn render(&self, event: &Stamped, view: &CallView, sequence: u32) -> Vec<Rendered> {
        let Some((name, reason)) = tell(&event.event, view) else { return Vec::new() };
        let data = Data { reason, ..data(view, event.at) };
        vec![written(&Body { event: name, timestamp: event.at.iso_ms(), sequence, data })]
    }

    fn transcript(&self, at: Timestamp, view: &CallView, turns: u32, sequence: u32) -> Option<Rendered> {
        let url = format!("/api/v1/calls/{}", view.order.id.cuid());
        let data = Data { transcript_url: Some(url), turns: Some(turns), ..data(view, at) };
        Some(written(&Body { event: "transcript.ready", timestamp: at.iso_ms(), sequence, data }))
    }

    fn analysis(&self, at: Timestamp, view: &CallView, said: &Analysis, sequence: u32) -> Option<Rendered> {
        let (summary, sentiment) = (Some(said.summary.as_str()), Some(said.sentiment.as_str()));
        // It is told after the call: its duration is that of the call.
        let over = view.end.map_or(at, |end| end.at);
        let data = Data { summary, sentiment, ..data(view, over) };
        Some(written(&Body { event: "analysis.complete", timestamp: at.iso_ms(), sequence, data }))
    }

    fn has_endpoints(&self) -> bool {
        true
    }

    fn terminal(&self, _: &str) -> bool {
        true
    }

    fn user_agent(&self) -> &'static str {
        "VoxForge-Webhooks/1.0"
    }

    fn retry_after(&self, _: &str, failures: u32, outcome: &Outcome) -> Option<Duration> {
        if outcome.is_success() {
            return None;
        }
        schedule::nth(DELAYS_S, failures)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn gone_stops_call(&self) -> bool {
        false
    }

    /// The document's: the secret as it was shown is the key, the raw body the message.
    fn own_signature(&self, newest: &Secret, body: &[u8]) -> Option<(&'static str, String)> {
        let mut mac = Hmac::<Sha256>::new_from_slice(newest.0.as_bytes()).ok()?;
        mac.update(body);
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(("x-voxforge-signature", format!("sha256={hex}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_own_check_takes_the_signature() {
        // RFC 4231 §4.3: key "Jefe", data "what do ya want for nothing?".
        let signed = VoxForge.own_signature(&Secret("Jefe".into()), b"what do ya want for nothing?");
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signed, Some(("x-voxforge-signature", expected.to_owned())));
    }

    #[test]
    fn every_failure_is_tried_again_four_times() {
        let failed = Outcome::Answered { status: 410, retry_after: None };
        let delays: Vec<Option<u64>> =
            (1..=5).map(|n| Some(VoxForge.retry_after("call.ended", n, &failed)?.as_secs())).collect();
        assert_eq!(delays, [Some(30), Some(300), Some(1800), Some(7200), None]);
        assert!(!VoxForge.gone_stops_call());
    }
}
