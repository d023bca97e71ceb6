//! Claude Phone's five states and its reasons, from what is true of a call (CONTRACT 1.5, 4.3). Pure.

use crate::model::call::{CallState, CallView, EndReason};
use crate::store::calls::outcome;

/// The state in a word.
pub fn state(view: &CallView) -> &'static str {
    match view.state {
        CallState::Queued => "queued",
        CallState::Dialing | CallState::Ringing => "dialing",
        CallState::Answered => "playing",
        CallState::Ended if outcome(view) == "completed" => "completed",
        CallState::Ended => "failed",
    }
}

/// Why a call has failed; nothing for any other.
pub fn reason(view: &CallView) -> Option<&'static str> {
    let end = view.end.filter(|_| state(view) == "failed")?;
    Some(match end.reason {
        EndReason::Busy => "busy",
        EndReason::NoAnswer => "no_answer",
        EndReason::NotFound => "not_found",
        EndReason::Rejected => "rejected",
        // What the last trunk said: it has nothing against us, and much against the number.
        EndReason::TrunkFailure if end.sip_code == Some(403) => "rejected",
        EndReason::Canceled | EndReason::ApiHangup => "cancelled",
        EndReason::NormalHangup
        | EndReason::TrunkFailure
        | EndReason::MaxDuration
        | EndReason::MediaTimeout
        | EndReason::InsufficientCredits
        | EndReason::Shutdown
        | EndReason::EngineRestart => "service_unavailable",
    })
}
