//! What became of webhook attempts, counted for whoever looks after the server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Outcome;
use crate::model::histogram::{Counts, Histogram};
use crate::store::outbox::Settlement;

/// The worker's figures. Cheap to count in; read by anybody.
#[derive(Debug, Default)]
pub struct Figures {
    delivered: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    gone: AtomicU64,
    answered: [AtomicU64; 5],
    unreachable: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    broken: AtomicU64,
    took: Histogram,
    under_way: AtomicU64,
}

/// The classes of an answer's status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Figures {
    /// What became of deliveries: each row settled, by the word for it.
    pub fn settled(&self) -> [(&'static str, u64); 5] {
        [
            ("delivered", &self.delivered),
            ("retried", &self.retried),
            ("failed", &self.failed),
            ("dropped", &self.dropped),
            ("gone", &self.gone),
        ]
        .map(|(word, count)| (word, count.load(Ordering::Relaxed)))
    }

    /// What attempts came to, by a word or the class of the answer's status.
    pub fn attempts(&self) -> Vec<(&'static str, u64)> {
        let answered = CLASSES.into_iter().zip(&self.answered);
        let others = [
            ("unreachable", &self.unreachable),
            ("refused", &self.refused),
            ("timed_out", &self.timed_out),
            ("broken", &self.broken),
        ];
        answered.chain(others).map(|(word, count)| (word, count.load(Ordering::Relaxed))).collect()
    }

    /// How long attempts took, to the end of the answer's headers or to the failure.
    pub fn took(&self) -> Counts {
        self.took.read()
    }

    /// Attempts under way.
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    pub(super) fn set_under_way(&self, count: usize) {
        self.under_way.store(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn count_attempt(&self, outcome: &Outcome, took: Duration) {
        self.took.count(took);
        let counter = match outcome {
            Outcome::Answered { status, .. } => &self.answered[usize::from(status / 100).clamp(1, 5) - 1],
            Outcome::Unreachable => &self.unreachable,
            Outcome::Refused => &self.refused,
            Outcome::TimedOut => &self.timed_out,
            Outcome::Broken => &self.broken,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_settlement(&self, settlement: Settlement) {
        let counter = match settlement {
            Settlement::Delivered => &self.delivered,
            Settlement::Retry(_) => &self.retried,
            Settlement::Failed => &self.failed,
            Settlement::Dropped => &self.dropped,
            Settlement::Gone => &self.gone,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_what_they_came_to() {
        let figures = Figures::default();
        for status in [200, 204, 410, 503, 999] {
            figures.count_attempt(&Outcome::Answered { status, retry_after: None }, Duration::from_millis(3));
        }
        figures.count_attempt(&Outcome::TimedOut, Duration::from_secs(5));
        let found: Vec<_> = figures.attempts().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(found, [("2xx", 2), ("4xx", 1), ("5xx", 2), ("timed_out", 1)]);
        assert_eq!(figures.took().total(), 6);
    }
}
