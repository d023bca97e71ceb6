//! What is sent next and when: the worker's decisions as functions of their arguments. No clock, no chance, no
//! database; each rule of CONTRACT 0.6 stands here once. Which receivers are dead is `circuit`'s to say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Format, Outcome};
use crate::model::{CallId, Timestamp};
use crate::store::outbox::{Delivery, Settlement};

/// Delays from this on are jittered.
const JITTERED_FROM: Duration = Duration::from_secs(30);

/// Jitter: a tenth of the delay, either way.
const JITTER: f64 = 0.1;

/// Delays after the first, second, … failure of an event that must arrive.
const TERMINAL_DELAYS_S: &[u64] = &[30, 5 * 60, 30 * 60, 2 * 3600];

/// Delays after the first, second, … failure of an event that is worth something only while the call is up.
const LIVE_DELAYS_S: &[u64] = &[1, 3, 10];

/// The schedule of webhooks that go to a call's own URL (CONTRACT 0.6, Kaphila and Claude Phone): what must arrive is
/// sent again for hours, anything else only where the receiver cannot have acted on it, and 410 ends it.
pub fn retry_of_a_call(terminal: bool, failures: u32, outcome: &Outcome) -> Option<Duration> {
    if outcome.is_success() || outcome.is_gone() || !(terminal || outcome.cannot_have_been_processed()) {
        return None;
    }
    nth(if terminal { TERMINAL_DELAYS_S } else { LIVE_DELAYS_S }, failures)
}

/// The delay after so many failures, from 1, by a table of seconds.
pub fn nth(delays_s: &[u64], failures: u32) -> Option<Duration> {
    let place = usize::try_from(failures).ok()?.checked_sub(1)?;
    delays_s.get(place).map(|seconds| Duration::from_secs(*seconds))
}

/// Whether a row that is due is still worth sending: a live event that failed before its call ended is not.
pub fn outlived(delivery: &Delivery) -> bool {
    !delivery.terminal && delivery.attempts > 0 && delivery.call_ended
}

/// An event that was never tried waits at least this long for a dead receiver, before `webhooks.time_scale`: the
/// probes of these minutes stand for its one attempt.
const UNTRIED: Duration = Duration::from_secs(300);

/// Longest schedule that is added up.
const FAILURES_MAX: u32 = 32;

/// How long a row waits for a receiver whose circuit is open. Its attempts are not made meanwhile and are not counted,
/// so time stands for them: it is given up when the whole of its schedule, delays and time-outs, would have been over
/// since the event. An event that was never tried waits no less than five minutes.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Multiplies every delay of the dialect's table.
    pub time_scale: f64,
}

impl Patience {
    /// What becomes of a row that cannot go, if it has waited long enough.
    pub fn over(&self, delivery: &Delivery, format: &dyn Format, now: Timestamp) -> Option<Settlement> {
        let mut most = format.timeout();
        for failures in 1..=FAILURES_MAX {
            let Some(delay) = format.retry_after(&delivery.event, failures, &Outcome::Unreachable) else {
                break;
            };
            most = most.saturating_add(scaled(delay, self.time_scale)).saturating_add(format.timeout());
        }
        if delivery.attempts == 0 {
            most = most.max(scaled(UNTRIED, self.time_scale));
        }
        let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        let given_up = if delivery.terminal { Settlement::Failed } else { Settlement::Dropped };
        (now > delivery.created_at.plus_ms(most)).then_some(given_up)
    }
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug)]
pub struct After<'a> {
    /// The row as it was claimed.
    pub delivery: &'a Delivery,
    /// What came of the attempt.
    pub outcome: &'a Outcome,
    /// The call is over by now.
    pub call_ended: bool,
    /// Now.
    pub now: Timestamp,
    /// Multiplies every delay of the dialect's table.
    pub time_scale: f64,
    /// From -1 to 1, drawn anew for each attempt.
    pub chance: f64,
}

impl After<'_> {
    /// Delivered, tried again, or given up.
    pub fn settlement(&self, format: &dyn Format) -> Settlement {
        if self.outcome.is_success() {
            return Settlement::Delivered;
        }
        if self.outcome.is_gone() && format.gone_stops_call() {
            return Settlement::Gone;
        }
        let given_up = if self.delivery.terminal { Settlement::Failed } else { Settlement::Dropped };
        if !self.delivery.terminal && self.call_ended {
            return given_up;
        }
        match self.delay(format) {
            Some(delay) => {
                let ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                Settlement::Retry(self.now.plus_ms(ms))
            }
            None => given_up,
        }
    }

    /// The time to the next attempt. `Retry-After` may lengthen it, at most to the delay that would follow it.
    fn delay(&self, format: &dyn Format) -> Option<Duration> {
        let failures = self.delivery.attempts + 1;
        let table = |failures| format.retry_after(&self.delivery.event, failures, self.outcome);
        let own = table(failures)?;
        let jitter = if own >= JITTERED_FROM { 1.0 + JITTER * self.chance.clamp(-1.0, 1.0) } else { 1.0 };
        let delay = scaled(own, self.time_scale * jitter);
        let Outcome::Answered { retry_after: Some(asked), .. } = self.outcome else { return Some(delay) };
        let most = table(failures + 1).map_or(delay, |next| scaled(next, self.time_scale));
        Some(delay.max((*asked).min(most)))
    }
}

/// A delay times a factor that may be anything an operator writes.
fn scaled(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor.max(0.0)).unwrap_or(delay)
}

/// Which attempts are under way, and what may join them.
#[derive(Clone, Debug)]
pub struct UnderWay {
    most: usize,
    most_per_host: usize,
    rows: BTreeMap<i64, (CallId, String, String)>,
    lanes: BTreeSet<(CallId, String)>,
    hosts: BTreeMap<String, usize>,
}

impl UnderWay {
    /// Caps of all attempts and of those to one host; at least one of each.
    pub fn new(most: usize, most_per_host: usize) -> Self {
        Self {
            most: most.max(1),
            most_per_host: most_per_host.max(1),
            rows: BTreeMap::new(),
            lanes: BTreeSet::new(),
            hosts: BTreeMap::new(),
        }
    }

    /// Attempts under way.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No attempt is under way.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether this row is under way.
    pub fn contains(&self, id: i64) -> bool {
        self.rows.contains_key(&id)
    }

    /// The rows under way.
    pub fn ids(&self) -> Vec<i64> {
        self.rows.keys().copied().collect()
    }

    /// No further attempt may begin.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= self.most
    }

    /// Rows to ask the outbox for: enough to find one that may go behind all those that may not.
    pub fn page(&self) -> usize {
        self.most + 2 * self.rows.len()
    }

    /// How many more attempts may go to a host now.
    pub fn free_to(&self, host: &str) -> usize {
        let to_host = self.hosts.get(host).copied().unwrap_or(0);
        self.most_per_host.saturating_sub(to_host)
    }

    /// Whether half of what may go to a host is under way: the other half is kept for first deliveries.
    pub fn is_busy(&self, host: &str) -> bool {
        self.is_full() || 2 * self.free_to(host) < self.most_per_host
    }

    /// Hosts of which [`UnderWay::is_busy`] is true.
    pub fn busy_hosts(&self) -> Vec<String> {
        self.hosts.keys().filter(|host| self.is_busy(host)).cloned().collect()
    }

    /// Takes a row in, unless it or another of its lane is under way or a cap is reached.
    pub fn begin(&mut self, delivery: &Delivery) -> bool {
        let lane = (delivery.call, delivery.url.clone());
        let to_host = self.hosts.get(&delivery.host).copied().unwrap_or(0);
        let free = !self.is_full() && self.free_to(&delivery.host) > 0;
        if !free || self.rows.contains_key(&delivery.id) || self.lanes.contains(&lane) {
            return false;
        }
        self.rows.insert(delivery.id, (lane.0, lane.1.clone(), delivery.host.clone()));
        self.lanes.insert(lane);
        self.hosts.insert(delivery.host.clone(), to_host + 1);
        true
    }

    /// An attempt is over and written down.
    pub fn end(&mut self, id: i64) {
        let Some((call, url, host)) = self.rows.remove(&id) else { return };
        self.lanes.remove(&(call, url));
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
