//! Hamming Phone's callbacks: seven statuses, some of them states and some events, in the fixed order of CONTRACT 1.4
//! (C32), and how often a callback is tried (CONTRACT 0.6). Pure; the bytes are made once, at the event.

use std::time::Duration;

use serde::Serialize;

use crate::model::call::CallView;
use crate::model::event::{CallEvent, Stamped};
use crate::store::calls::outcome;
use crate::webhook::{Format, Outcome, Rendered, schedule};

/// Every status.
pub const STATUSES: [&str; 7] = [
    "initiated",
    "in-progress",
    "completed",
    "failed",
    "event_phone_call_connected",
    "event_phone_call_ended",
    RECORDING,
];

/// The one status that says that the recording can be had.
const RECORDING: &str = "event_recording";

/// Delays after the first, second and third failure.
const DELAYS_S: &[u64] = &[1, 2, 4];

/// Deliveries given up in a row after which their receiver is left alone for a while.
const BREAKS_AFTER: u32 = 3;

/// Hamming Phone's [`Format`].
pub struct Hamming;

#[derive(Serialize)]
struct Body {
    id: String,
    status: &'static str,
    recording_available: bool,
    sequence: u32,
}

/// What is told of an event, in order.
fn tell(event: &CallEvent, view: &CallView) -> &'static [&'static str] {
    match event {
        CallEvent::Queued => &["initiated"],
        CallEvent::Answered => &["event_phone_call_connected", "in-progress"],
        CallEvent::Ended { .. } if view.answered_at.is_none() => &["failed"],
        CallEvent::Ended { .. } if outcome(view) == "completed" => &["event_phone_call_ended", "completed"],
        CallEvent::Ended { .. } => &["event_phone_call_ended", "failed"],
        CallEvent::RecordingCompleted { .. } => &[RECORDING],
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
        | CallEvent::Transferred
        | CallEvent::Unheard { .. } => &[],
    }
}

impl Format for Hamming {
    fn name(&self) -> &'static str {
        "hamming"
    }

    fn render(&self, event: &Stamped, view: &CallView, sequence: u32) -> Vec<Rendered> {
        let bodies = tell(&event.event, view).iter().zip(sequence..).map(|(status, sequence)| {
            let id = view.order.id.uuid();
            let body = Body { id, status, recording_available: *status == RECORDING, sequence };
            let body = serde_json::to_vec(&body).expect("the body holds only text, numbers and flags");
            Rendered { event: status, body }
        });
        bodies.collect()
    }

    /// Each has its few seconds of retries, whether the call is up or not.
    fn terminal(&self, _: &str) -> bool {
        true
    }

    fn user_agent(&self) -> &'static str {
        "Hamming-Phone/1.0"
    }

    fn retry_after(&self, _: &str, failures: u32, outcome: &Outcome) -> Option<Duration> {
        if outcome.is_success() { None } else { schedule::nth(DELAYS_S, failures) }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn gone_stops_call(&self) -> bool {
        false
    }

    fn breaks_after(&self) -> Option<u32> {
        Some(BREAKS_AFTER)
    }
}
