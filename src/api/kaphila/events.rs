//! Kaphila's webhooks: which facts it tells, under which name, with which fields, and how often a delivery is tried
//! (CONTRACT 0.6, 1.1). Pure; the bytes are made once, at the event.

use std::time::Duration;

use serde::Serialize;

use super::words::{self, Amd, Recording};
use crate::model::call::{CallView, EndReason};
use crate::model::event::{CallEvent, RecordingSize, Stamped};
use crate::model::purpose::Direction;
use crate::webhook::{Format, Outcome, Rendered, schedule};

/// Events that are delivered even after the call is over.
const TERMINAL: &[&str] = &["call.ended", "recording.completed", "recording.failed", "recording.stopped"];

/// Kaphila's [`Format`].
pub struct Kaphila;

/// The fields every body has, then those of its event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    call_id: &'a str,
    timestamp: String,
    event: &'static str,
    status: &'static str,
    number: &'a str,
    sequence: u32,
    #[serde(flatten)]
    more: More<'a>,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum More<'a> {
    Initiated {
        trunk: &'a str,
    },
    Incoming {
        direction: &'static str,
        from: &'a str,
        to: String,
        trunk: Option<&'a str>,
    },
    Answered {
        amd: Amd,
    },
    Recording {
        recording: Recording,
    },
    Recorded {
        recording: Recording,
        size: u64,
        duration: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'static str>,
    },
    Digit {
        digit: char,
    },
    GatherStarted {
        expected_digits: u8,
        timeout_ms: u32,
    },
    GatherProgress {
        digits: &'a str,
        digit: char,
        remaining: u8,
    },
    GatherComplete {
        digits: &'a str,
    },
    GatherTimeout {
        digits: &'a str,
        reason: &'static str,
    },
    Spoken {
        playback_id: &'a str,
        text: &'a str,
        method: &'static str,
        completed: bool,
    },
    Ended(Ended),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    end_reason: &'static str,
    hangup_cause: String,
    was_answered: bool,
    amd: Amd,
    recording: Option<Recording>,
    call_duration: i64,
}

/// The event's name and own fields; nothing for facts that Kaphila does not tell.
fn tell<'a>(event: &'a Stamped, view: &'a CallView) -> Option<(&'static str, More<'a>)> {
    let told = match &event.event {
        CallEvent::Dialing { trunk, attempt: 1 } => ("call.initiated", More::Initiated { trunk }),
        CallEvent::Queued if view.order.purpose.direction == Direction::Inbound => {
            let (direction, order) = (Direction::Inbound.as_str(), &view.order);
            let (from, to) = (order.submitted_number.as_str(), order.to.e164());
            ("call.incoming", More::Incoming { direction, from, to, trunk: view.trunk() })
        }
        CallEvent::Answered if !view.order.use_amd => ("call.answered", More::Answered { amd: Amd::NONE }),
        CallEvent::Screened(_) if view.order.use_amd => {
            ("call.answered", More::Answered { amd: Amd::of(view)? })
        }
        CallEvent::RecordingStarted { recording } => {
            ("recording.started", More::Recording { recording: Recording::new(recording, true) })
        }
        CallEvent::RecordingStopped { recording } => {
            ("recording.stopped", More::Recording { recording: Recording::new(recording, false) })
        }
        CallEvent::RecordingPaused { recording } => {
            let recording = Recording { paused: true, ..Recording::new(recording, true) };
            ("recording.paused", More::Recording { recording })
        }
        CallEvent::RecordingResumed { recording } => {
            ("recording.resumed", More::Recording { recording: Recording::new(recording, true) })
        }
        CallEvent::RecordingCompleted { recording, size, sha256 } => {
            let recording = Recording { sha256: Some(sha256.hex()), ..Recording::new(recording, false) };
            ("recording.completed", recorded(recording, size, None))
        }
        CallEvent::RecordingFailed { recording, size, reason } => {
            ("recording.failed", recorded(Recording::new(recording, false), size, Some(reason)))
        }
        CallEvent::Digit { digit, .. } => ("dtmf.received", More::Digit { digit: *digit }),
        CallEvent::GatherStarted { expected, timeout_ms } => {
            ("gather.started", More::GatherStarted { expected_digits: *expected, timeout_ms: *timeout_ms })
        }
        CallEvent::GatherProgress { digits, digit, remaining } => {
            ("gather.progress", More::GatherProgress { digits, digit: *digit, remaining: *remaining })
        }
        CallEvent::GatherComplete { digits } => ("gather.complete", More::GatherComplete { digits }),
        CallEvent::GatherTimeout { digits, reason } => {
            ("gather.timeout", More::GatherTimeout { digits, reason: reason.as_str() })
        }
        CallEvent::Played { playback, text: Some(text), to, completed, .. } => {
            let (method, completed) = (to.as_str(), *completed);
            ("tts.played", More::Spoken { playback_id: playback, text, method, completed })
        }
        CallEvent::Ended { .. } => ("call.ended", More::Ended(ended(event, view)?)),
        CallEvent::Queued
        | CallEvent::Dialing { .. }
        | CallEvent::AttemptFailed { .. }
        | CallEvent::PassedOver { .. }
        | CallEvent::Proceeding
        | CallEvent::Ringing
        | CallEvent::Answered
        | CallEvent::Screened(_)
        | CallEvent::Played { .. }
        | CallEvent::Said { .. }
        | CallEvent::TurnTimed(_)
        | CallEvent::ContextChanged { .. }
        | CallEvent::HandedOff { .. }
        | CallEvent::TransferStarted { .. }
        | CallEvent::TransferFailed { .. }
        | CallEvent::Unheard { .. }
        | CallEvent::Transferred => return None,
    };
    Some(told)
}

/// The end of a recording; one with a reason has failed.
fn recorded<'a>(recording: Recording, size: &RecordingSize, reason: Option<&'a str>) -> More<'a> {
    let (size, duration) = (size.bytes, size.duration_ms / 1000);
    More::Recorded { recording, size, duration, reason, error: reason.map(|_| "Recording could not be kept") }
}

/// The end of a call. Of one that was never dialled nothing was told, so neither is its end; what the crash of a
/// process cut off is told, for its beginning may have been lost with it.
fn ended(event: &Stamped, view: &CallView) -> Option<Ended> {
    let end = view.end?;
    if view.dialed_at.is_none() && end.reason != EndReason::EngineRestart {
        return None;
    }
    let recording = view.recording.as_ref().filter(|_| view.answered_at.is_some());
    Some(Ended {
        end_reason: end.reason.as_str(),
        hangup_cause: end.q850.to_string(),
        was_answered: view.answered_at.is_some(),
        amd: Amd::at_end(view),
        recording: recording.map(|recording| Recording::new(&recording.recording, false)),
        call_duration: view.duration_s(event.at),
    })
}

impl Format for Kaphila {
    fn name(&self) -> &'static str {
        "kaphila"
    }

    fn render(&self, event: &Stamped, view: &CallView, sequence: u32) -> Vec<Rendered> {
        let Some((name, more)) = tell(event, view) else { return Vec::new() };
        let body = Body {
            call_id: &view.order.kaphila_id,
            timestamp: event.at.iso_ms(),
            event: name,
            status: words::status(view),
            number: &view.order.submitted_number,
            sequence,
            more,
        };
        let body =
            serde_json::to_vec(&body).expect("the body holds only text, numbers and flags under fixed names");
        vec![Rendered { event: name, body }]
    }

    fn terminal(&self, event: &str) -> bool {
        TERMINAL.contains(&event)
    }

    fn user_agent(&self) -> &'static str {
        "Kaphila-API-API/2.0"
    }

    fn retry_after(&self, event: &str, failures: u32, outcome: &Outcome) -> Option<Duration> {
        schedule::retry_of_a_call(self.terminal(event), failures, outcome)
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(5000)
    }
}

#[cfg(test)]
mod tests;
