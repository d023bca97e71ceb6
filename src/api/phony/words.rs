//! Phony's words for what is true of a call: ids, status, numbers, times, money (CONTRACT 1.2, 1.6, 4.3). Pure; used by
//! the answers and by the live events alike.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::model::call::{CallState, CallView};
use crate::model::{CallId, CallerId, Timestamp};
use crate::store::calls::outcome;

/// What a started minute costs, in thousandths of a dollar (CONTRACT 3 S26).
const MINUTE_COSTS: i64 = 13;

/// `YYYY-MM-DDTHH:MM:SSZ`.
pub fn time(at: Timestamp) -> String {
    let text = at.iso_ms();
    format!("{}Z", text.get(..19).unwrap_or(&text))
}

/// The `session_…` id of a call.
pub fn session(call: CallId) -> String {
    format!("session_{}", call.hex())
}

/// The `agent_…` id of an agent's row.
pub fn agent(row: i64) -> String {
    format!("agent_{row}")
}

/// The status word of an outcome of the store's.
pub fn past(outcome: &str) -> &'static str {
    match outcome {
        "completed" => "completed",
        "no_answer" => "no-answer",
        "busy" => "busy",
        "canceled" => "canceled",
        _ => "failed",
    }
}

/// The status word of a call.
pub fn status(view: &CallView) -> &'static str {
    match view.state {
        CallState::Queued | CallState::Dialing => "queued",
        CallState::Ringing => "ringing",
        CallState::Answered => "active",
        CallState::Ended => past(outcome(view)),
    }
}

/// Who calls: as ordered, else as the trunk shows.
pub fn from_number(view: &CallView) -> String {
    let order = &view.order;
    let trunk = order.trunks.iter().find(|trunk| Some(trunk.endpoint.as_str()) == view.trunk());
    let shown = order.from.as_ref().or_else(|| trunk.or(order.trunks.first())?.caller_id.as_ref());
    match shown {
        Some(CallerId::Number(number)) if number.starts_with('+') => number.clone(),
        Some(CallerId::Number(number)) => format!("+{number}"),
        Some(CallerId::Anonymous) => "anonymous".to_owned(),
        None => String::new(),
    }
}

/// Dollars for a call of so many seconds; nothing where nobody answered.
pub fn cost(answered: bool, seconds: i64) -> f64 {
    let minutes =
        if answered { seconds.max(1).div_euclid(60) + i64::from(seconds.max(1) % 60 > 0) } else { 0 };
    let thousandths = i32::try_from(minutes * MINUTE_COSTS).unwrap_or(i32::MAX);
    f64::from(thousandths) / 1000.0
}

/// A live call.
#[derive(Serialize, ToSchema)]
#[schema(as = PhonyLiveCall)]
pub struct LiveCall {
    /// The session's id.
    #[schema(pattern = "^session_")]
    id: String,
    /// The call's id, used by every other route.
    #[schema(pattern = "^CA[0-9a-f]{32}$")]
    call_sid: String,
    /// Who talks.
    agent_id: Option<String>,
    /// Who calls.
    from_number: String,
    /// Who is called.
    to_number: String,
    /// `inbound` or `outbound`.
    direction: &'static str,
    /// `queued`, `ringing` or `active`.
    status: &'static str,
    /// When it was asked for.
    #[schema(format = DateTime)]
    started_at: String,
    /// Seconds since somebody answered.
    duration_seconds: i64,
    /// What is remembered of it.
    #[schema(value_type = Object)]
    context: Map<String, Value>,
}

impl LiveCall {
    /// What is true of a call now.
    pub fn of(view: &CallView, now: Timestamp) -> Self {
        let order = &view.order;
        Self {
            id: session(order.id),
            call_sid: order.id.call_sid(),
            agent_id: order.purpose.agent.map(agent),
            from_number: from_number(view),
            to_number: order.to.e164(),
            direction: order.purpose.direction.as_str(),
            status: status(view),
            started_at: time(order.created_at),
            duration_seconds: view.duration_s(now),
            context: order.purpose.context.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn started_minutes_cost_and_unanswered_calls_do_not() {
        for (answered, seconds, dollars) in
            [(false, 0, 0.0), (true, 0, 0.013), (true, 60, 0.013), (true, 61, 0.026), (true, 240, 0.052)]
        {
            assert_eq!(cost(answered, seconds).to_string(), f64::to_string(&dollars), "{seconds}");
        }
    }

    #[test]
    fn times_have_no_fraction() {
        assert_eq!(time(Timestamp(1_704_067_200_999)), "2024-01-01T00:00:00Z");
    }
}
