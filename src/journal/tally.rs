//! What the journal has committed, counted for whoever looks after the server: ends of calls, attempts, verdicts, events.
//! Trunks are named by their operators and are few; past a bound those that are new are counted together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::call::CallView;
use crate::model::event::{CallEvent, Stamped};
use crate::model::histogram::{Counts, Histogram};

/// Different trunks that are counted by name.
const TRUNKS_MAX: usize = 256;

/// Stands for further trunks.
const OTHERS: &str = "others";

/// Stands for no trunk.
const NONE: &str = "none";

/// Counts, by what they are counted by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Calls that were placed or came in.
    pub begun: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Ends by reason and by the trunk that had the call, `none` for one that none had.
    pub ended: BTreeMap<(&'static str, String), u64>,
    /// Attempts by trunk and by what came of them: a SIP status, 200 for an answer, 0 for nothing at all.
    pub attempts: BTreeMap<(String, u16), u64>,
    /// Verdicts of answering-machine detection.
    pub screened: BTreeMap<&'static str, u64>,
    /// Calls that were answered and heard nothing for a while.
    pub unheard: u64,
    /// All events.
    pub events: u64,
    /// Trunks that are counted by name.
    trunks: BTreeSet<String>,
}

/// The journal's figures.
#[derive(Debug, Default)]
pub struct Tally {
    facts: Mutex<Facts>,
    commits: Histogram,
    failed: AtomicU64,
}

impl Tally {
    /// What has been committed so far.
    pub fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long each transaction took.
    pub fn commits(&self) -> Counts {
        self.commits.read()
    }

    /// Transactions that failed and were tried again.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a committed group.
    pub(super) fn count<'a>(
        &self,
        took: Duration,
        batch: impl Iterator<Item = (&'a Stamped, Option<&'a CallView>)>,
    ) {
        self.commits.count(took);
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        for (stamped, view) in batch {
            facts.count(&stamped.event, view);
        }
    }
}

impl Facts {
    fn count(&mut self, event: &CallEvent, view: Option<&CallView>) {
        self.events += 1;
        let trunk = view.and_then(CallView::trunk);
        match event {
            CallEvent::Queued => self.begun += 1,
            CallEvent::Answered => {
                self.answered += 1;
                self.attempt(trunk.unwrap_or(NONE), 200);
            }
            CallEvent::AttemptFailed { trunk, code, .. } => self.attempt(trunk, *code),
            CallEvent::Ended { reason, .. } => {
                let trunk = self.name(trunk.unwrap_or(NONE));
                *self.ended.entry((reason.as_str(), trunk)).or_default() += 1;
            }
            CallEvent::Screened(amd) => *self.screened.entry(amd.status.as_str()).or_default() += 1,
            CallEvent::Unheard { .. } => self.unheard += 1,
            CallEvent::Dialing { .. }
            | CallEvent::PassedOver { .. }
            | CallEvent::Proceeding
            | CallEvent::Ringing
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
            | CallEvent::ContextChanged { .. }
            | CallEvent::HandedOff { .. }
            | CallEvent::TransferStarted { .. }
            | CallEvent::TransferFailed { .. }
            | CallEvent::Transferred
            | CallEvent::TurnTimed(_) => {}
        }
    }

    fn attempt(&mut self, trunk: &str, code: u16) {
        let trunk = self.name(trunk);
        *self.attempts.entry((trunk, code)).or_default() += 1;
    }

    /// The name that a trunk is counted by.
    fn name(&mut self, trunk: &str) -> String {
        if !self.trunks.contains(trunk) {
            if self.trunks.len() >= TRUNKS_MAX {
                return OTHERS.to_owned();
            }
            self.trunks.insert(trunk.to_owned());
        }
        trunk.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_names_is_bounded() {
        let mut facts = Facts::default();
        for trunk in 0..TRUNKS_MAX + 10 {
            facts.attempt(&format!("t{trunk}-endpoint"), 503);
        }
        facts.attempt("t0-endpoint", 503);
        assert_eq!(facts.attempts.len(), TRUNKS_MAX + 1);
        assert_eq!(facts.attempts[&(OTHERS.to_owned(), 503)], 10);
        assert_eq!(facts.attempts[&("t0-endpoint".to_owned(), 503)], 2);
    }
}
