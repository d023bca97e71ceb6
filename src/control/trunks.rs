//! The trunks while the server runs: which of them a call may take ([`health`]), whether one is there ([`probe`]),
//! and that those which want it are registered and asked for now and then ([`keeper`]). Owns the one live view of
//! all trunks; it lives in memory, and each process has its own. Which trunks a key has is the store's, and the order
//! among them [`super::routing`]'s.

pub mod health;
pub mod keeper;
pub mod probe;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::model::event::Stamped;
use crate::model::trunk::TrunkNews;
use crate::model::{CallId, Now};
use health::{Candidate, Choice, Health, Report};

/// The live view of all trunks. Shared by those who place calls and those who hear what becomes of them; every
/// question is answered at once.
pub struct Fleet {
    health: Mutex<Health>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

impl Fleet {
    /// All trunks are taken for healthy. `bench`: how long faults in a row bench a trunk for.
    pub fn new(bench: Duration) -> Self {
        Self { health: Mutex::new(Health::new(bench)) }
    }

    /// A panic elsewhere leaves counts as they were, which is better than no calls.
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way of a call over these trunks; see [`Health::choose`]. What was reserved is given back when the
    /// [`Reserved`] is dropped before [`Reserved::keep`].
    pub fn choose(&self, now: Instant, call: CallId, candidates: &[Candidate<'_>]) -> (Choice, Reserved<'_>) {
        let choice = self.health().choose(now, call, candidates);
        (choice, Reserved { fleet: self, call: Some(call) })
    }

    /// Takes in what happened to a call.
    pub fn heard(&self, stamped: &Stamped) {
        self.health().heard(clock::now().mono, stamped);
    }

    /// Takes in what became of a registration or of OPTIONS; `endpoint` is `<name>-endpoint`.
    pub fn news(&self, endpoint: &str, news: &TrunkNews) {
        self.health().news(clock::now(), endpoint, news);
    }

    /// What is known of a trunk, by its endpoint name.
    pub fn report(&self, now: Now, endpoint: &str) -> Report {
        self.health().report(now, endpoint)
    }

    /// Forgets trunks that are not among these endpoint names.
    fn keep(&self, endpoints: &BTreeSet<String>) {
        self.health().keep(|endpoint| endpoints.contains(endpoint));
    }
}

/// A place on a trunk that a call is about to take.
#[derive(Debug)]
#[must_use]
pub struct Reserved<'a> {
    fleet: &'a Fleet,
    call: Option<CallId>,
}

impl Reserved<'_> {
    /// The call exists now; its events give the place back.
    pub fn keep(mut self) {
        self.call = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.fleet.health().release(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_unless_it_is_kept() {
        let fleet = Fleet::default();
        let now = clock::now().mono;
        let only = [Candidate { endpoint: "a", max_calls: 1, calls_per_second: 0, reachable: true }];
        let (choice, reserved) = fleet.choose(now, CallId(1), &only);
        assert_eq!(choice.walk, [0]);
        assert!(fleet.choose(now, CallId(2), &only).0.busy);
        drop(reserved);
        let (choice, reserved) = fleet.choose(now, CallId(3), &only);
        assert_eq!(choice.walk, [0]);
        reserved.keep();
        assert!(fleet.choose(now, CallId(4), &only).0.busy);
    }
}
