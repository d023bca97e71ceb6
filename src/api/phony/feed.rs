//! Phony's live events (CONTRACT 1.2 `/events/ws`): flat JSON objects, as the document's own client reads them. Pure.

use serde_json::{Map, Value, json};

use super::words;
use crate::journal::{Notice, Told};
use crate::model::call::CallView;
use crate::model::event::{CallEvent, Speaker};
use crate::model::purpose::Direction;
use crate::relay;

/// What somebody said, as a turn that is whole.
const FINAL: &str = "transcript.final";
/// The same on its way.
const PARTIAL: &str = "transcript.partial";

/// The frames that a notice is told by, in order; most facts are nobody's business here.
pub fn frames(told: &Told) -> Vec<String> {
    let events = match &told.notice {
        Notice::Fact(view, event) => fact(view, event),
        Notice::Saying { by, text, turn } => vec![said(PARTIAL, *by, text, *turn)],
        Notice::Mishap { code, message } => vec![("error", json!({ "code": code, "message": message }))],
    };
    let frame = |(kind, more): (&str, Value)| {
        let mut fields = Map::new();
        fields.insert("type".to_owned(), json!(kind));
        fields.insert("call_sid".to_owned(), json!(told.call.call_sid()));
        fields.insert("timestamp".to_owned(), json!(words::time(told.at)));
        if let Value::Object(more) = more {
            fields.extend(more);
        }
        Value::Object(fields).to_string()
    };
    events.into_iter().map(frame).collect()
}

fn said(kind: &'static str, by: Speaker, text: &str, turn: u32) -> (&'static str, Value) {
    (kind, json!({ "text": text, "role": by.as_str(), "turn": turn }))
}

fn started(view: &CallView) -> (&'static str, Value) {
    let order = &view.order;
    let more = json!({
        "agent_id": order.purpose.agent.map(words::agent),
        "from_number": words::from_number(view),
        "to_number": order.to.e164(),
        "direction": order.purpose.direction.as_str(),
    });
    ("call.started", more)
}

fn updated(view: &CallView) -> (&'static str, Value) {
    ("call.updated", json!({ "status": words::status(view) }))
}

fn fact(view: &CallView, event: &CallEvent) -> Vec<(&'static str, Value)> {
    match event {
        // A call that is dialled begins with its first INVITE; no other begins later than when it is taken.
        CallEvent::Dialing { attempt: 1, .. } => vec![started(view)],
        CallEvent::Queued
            if view.order.purpose.direction == Direction::Inbound || view.order.trunks.is_empty() =>
        {
            vec![started(view)]
        }
        CallEvent::Ringing | CallEvent::Answered | CallEvent::Transferred => vec![updated(view)],
        CallEvent::Played { playback, text: Some(text), completed: true, .. }
            if !playback.starts_with(relay::PLAYBACK) =>
        {
            let turn = view.events;
            vec![said(PARTIAL, Speaker::Agent, text, turn), said(FINAL, Speaker::Agent, text, turn)]
        }
        CallEvent::Said { by, text, turn, .. } => vec![said(FINAL, *by, text, *turn)],
        CallEvent::ContextChanged { context } => vec![("context.updated", json!({ "context": context }))],
        CallEvent::TransferFailed { code, reason } => {
            let message = match code {
                0 => format!("The transfer failed: {reason}"),
                code => format!("The transfer failed: {reason} ({code})"),
            };
            vec![("error", json!({ "code": "transfer_failed", "message": message }))]
        }
        CallEvent::Ended { .. } => vec![ended(view)],
        CallEvent::Queued
        | CallEvent::Dialing { .. }
        | CallEvent::AttemptFailed { .. }
        | CallEvent::PassedOver { .. }
        | CallEvent::Proceeding
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
        | CallEvent::HandedOff { .. }
        | CallEvent::TurnTimed(_)
        | CallEvent::TransferStarted { .. }
        | CallEvent::Unheard { .. } => Vec::new(),
    }
}

fn ended(view: &CallView) -> (&'static str, Value) {
    let end = view.end;
    let mut more = json!({
        "duration": end.map_or(0, |end| view.duration_s(end.at)),
        "status": words::status(view),
        "end_reason": end.map(|end| end.reason.as_str()),
    });
    if let (Some(fields), Some(handoff)) = (more.as_object_mut(), &view.handoff) {
        fields.insert("handoff_data".to_owned(), json!(handoff));
    }
    ("call.ended", more)
}
