//! Who is passed over: a service that failed several times in a row would cost every text its time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that send it to the bench.
const FAILURES: u32 = 3;
/// How long it stays there. Then one more failure sends it back.
const OUT: Duration = Duration::from_secs(30);

/// One service's place.
#[derive(Debug, Default)]
pub struct Bench(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

impl Bench {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It did what it was asked for.
    pub fn well(&self) {
        *self.state() = State::default();
    }

    /// It did not.
    pub fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.until = Some(now + OUT);
        }
    }

    /// Whether it is passed over.
    pub fn is_out(&self, now: Instant) -> bool {
        self.state().until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_are_too_many() {
        let bench = Bench::default();
        let now = Instant::now();
        bench.failed(now);
        bench.failed(now);
        bench.well();
        bench.failed(now);
        bench.failed(now);
        assert!(!bench.is_out(now));
        bench.failed(now);
        assert!(bench.is_out(now) && bench.is_out(now + OUT - Duration::from_secs(1)));
        assert!(!bench.is_out(now + OUT));
        // It is tried again, and one failure is enough now.
        bench.failed(now + OUT);
        assert!(bench.is_out(now + OUT));
        bench.well();
        assert!(!bench.is_out(now + OUT));
    }
}
