//! VoxForge's words for what is true of a call (CONTRACT 4.3).

use crate::model::call::{CallState, CallView};
use crate::store::calls::outcome;

/// Answered, and over of itself.
pub(super) fn completed(view: &CallView) -> bool {
    outcome(view) == "completed"
}

/// `queued`, `in-progress`, `completed` or `failed`.
pub(super) fn status(view: &CallView) -> &'static str {
    match view.state {
        CallState::Queued | CallState::Dialing | CallState::Ringing => "queued",
        CallState::Answered => "in-progress",
        CallState::Ended if completed(view) => "completed",
        CallState::Ended => "failed",
    }
}
