//! Claude Phone's webhooks: one for each change of state, under the state's name (CONTRACT 0.6, 1.5). Pure; the bytes
//! are made once, at the event.

use std::time::Duration;

use serde::Serialize;

use super::words;
use crate::model::call::CallView;
use crate::model::event::{CallEvent, Stamped};
use crate::webhook::{Format, Outcome, Rendered, schedule};

/// Claude Phone's [`Format`].
pub struct ClaudePhone;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    call_id: String,
    state: &'static str,
    to: &'a str,
    duration: i64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    sequence: u32,
}

/// Whether a fact changes the state: what is dialled after the first trunk does not, nor does ringing.
fn changes_state(event: &CallEvent) -> bool {
    match event {
        CallEvent::Queued
        | CallEvent::Dialing { attempt: 1, .. }
        | CallEvent::Answered
        | CallEvent::Ended { .. } => true,
        CallEvent::Dialing { .. }
        | CallEvent::AttemptFailed { .. }
        | CallEvent::PassedOver { .. }
        | CallEvent::Proceeding
        | CallEvent::Ringing
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
        | CallEvent::Transferred => false,
    }
}

impl Format for ClaudePhone {
    fn name(&self) -> &'static str {
        "claude_phone"
    }

    fn render(&self, event: &Stamped, view: &CallView, sequence: u32) -> Vec<Rendered> {
        if !changes_state(&event.event) {
            return Vec::new();
        }
        let state = words::state(view);
        let body = Body {
            call_id: view.order.id.uuid(),
            state,
            to: &view.order.submitted_number,
            duration: view.duration_s(event.at),
            timestamp: event.at.iso_ms(),
            reason: words::reason(view),
            sequence,
        };
        let body = serde_json::to_vec(&body).expect("the body holds only text and numbers under fixed names");
        vec![Rendered { event: state, body }]
    }

    fn terminal(&self, event: &str) -> bool {
        matches!(event, "completed" | "failed")
    }

    fn user_agent(&self) -> &'static str {
        "Claude-Phone/1.0"
    }

    fn retry_after(&self, event: &str, failures: u32, outcome: &Outcome) -> Option<Duration> {
        schedule::retry_of_a_call(self.terminal(event), failures, outcome)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }
}
