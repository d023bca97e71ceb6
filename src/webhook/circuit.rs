//! Which receivers are dead. After five attempts in a row that found nobody or ended in silence, a receiver's circuit
//! opens: nothing is sent to it for half a minute, then one row goes as a probe, whose outcome closes the circuit or
//! opens it anew. So a dead receiver costs one time-out in half a minute instead of its whole share of the worker.
//!
//! Pure: time is an argument. A receiver is a customer's origin (scheme, host, port), so that what one customer points
//! at a shared host says nothing about the deliveries of another.
//!
//! Rows that wait for a closed circuit use up no attempts. They are still given up: a live event that has failed and
//! whose call is over at once, everything else when its schedule would have been over ([`super::schedule::Patience`]).

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::Outcome;
use crate::model::Timestamp;
use crate::store::outbox::Delivery;

/// Attempts in a row without an answer that open a circuit.
const THRESHOLD: u32 = 5;

/// How long it stays open, before `webhooks.time_scale`.
pub const PAUSE: Duration = Duration::from_secs(30);

/// Receivers that are remembered at most.
const RECEIVERS_MAX: usize = 10_000;

/// The receiver of a delivery: its origin, or its whole URL where each has a circuit of its own. It is also the name of
/// the queue in which rows wait for its circuit.
pub fn receiver(delivery: &Delivery, by_url: bool) -> String {
    let name = if by_url {
        Some(delivery.url.clone())
    } else {
        Url::parse(&delivery.url).ok().map(|url| url.origin().ascii_serialization())
    };
    // What cannot be read is refused when it is sent, and then there is no contact that could fail.
    format!("receiver:{}:{}", delivery.key, name.as_deref().unwrap_or("?"))
}

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// As the caps permit.
    Open,
    /// Not before that moment; without one, not before the probe is over.
    Shut(Option<Timestamp>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Failures in a row so far.
    Failing(u32),
    /// Nothing goes before that moment, then one row.
    Broken(Timestamp),
    /// One row is under way.
    Probing,
}

/// The circuits of all receivers that have failed lately.
#[derive(Clone, Debug)]
pub struct Circuits {
    pause_ms: i64,
    receivers: BTreeMap<String, State>,
    /// Deliveries given up in a row, of those receivers that are judged by them too.
    given_up: BTreeMap<String, u32>,
}

impl Circuits {
    /// All closed. `time_scale` multiplies the pause; anything that is no finite number from 0 up counts as 1.
    pub fn new(time_scale: f64) -> Self {
        let scale = if time_scale.is_finite() && time_scale >= 0.0 { time_scale } else { 1.0 };
        let pause = Duration::try_from_secs_f64(PAUSE.as_secs_f64() * scale).unwrap_or(PAUSE);
        let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        Self { pause_ms, receivers: BTreeMap::new(), given_up: BTreeMap::new() }
    }

    /// Whether something may be sent to a receiver now.
    pub fn gate(&self, receiver: &str, now: Timestamp) -> Gate {
        match self.receivers.get(receiver) {
            Some(State::Broken(until)) if *until > now => Gate::Shut(Some(*until)),
            Some(State::Probing) => Gate::Shut(None),
            None | Some(State::Failing(_) | State::Broken(_)) => Gate::Open,
        }
    }

    /// An attempt begins: where the circuit was open, it is the probe.
    pub fn begun(&mut self, receiver: &str) {
        if let Some(state @ State::Broken(_)) = self.receivers.get_mut(receiver) {
            *state = State::Probing;
        }
    }

    /// An attempt is over; without an outcome it was never made. Says whether the circuit closed by it, so that what
    /// waits for it may go.
    pub fn over(&mut self, receiver: &str, outcome: Option<&Outcome>, now: Timestamp) -> bool {
        let state = self.receivers.get(receiver).copied();
        match outcome {
            Some(Outcome::Unreachable | Outcome::TimedOut) => {
                let next = match state {
                    None => State::Failing(1),
                    Some(State::Failing(count)) if count + 1 < THRESHOLD => State::Failing(count + 1),
                    Some(State::Failing(_) | State::Probing) => State::Broken(now.plus_ms(self.pause_ms)),
                    Some(broken @ State::Broken(_)) => broken,
                };
                self.note(receiver, next);
                false
            }
            Some(Outcome::Answered { .. } | Outcome::Broken) => {
                self.receivers.remove(receiver);
                matches!(state, Some(State::Broken(_) | State::Probing))
            }
            // Nobody was dialled, so nothing is known: another row may be the probe.
            Some(Outcome::Refused) | None => {
                if state == Some(State::Probing) {
                    self.receivers.insert(receiver.to_owned(), State::Broken(now));
                }
                false
            }
        }
    }

    /// A delivery has arrived.
    pub fn arrived(&mut self, receiver: &str) {
        self.given_up.remove(receiver);
    }

    /// A delivery was given up after all its tries. The circuit opens when so many in a row were, and from then on for
    /// each further one.
    pub fn gave_up(&mut self, receiver: &str, most: u32, now: Timestamp) {
        if self.given_up.len() >= RECEIVERS_MAX && !self.given_up.contains_key(receiver) {
            return;
        }
        let count = self.given_up.entry(receiver.to_owned()).or_default();
        *count = count.saturating_add(1);
        if *count >= most {
            self.note(receiver, State::Broken(now.plus_ms(self.pause_ms)));
        }
    }

    /// Receivers whose pause is over and that nobody probes yet.
    pub fn to_probe(&self, now: Timestamp) -> Vec<String> {
        let due = |state: &State| matches!(state, State::Broken(until) if *until <= now);
        self.receivers.iter().filter(|(_, state)| due(state)).map(|(name, _)| name.clone()).collect()
    }

    /// Nothing waits for this receiver, so there is nothing to probe it with.
    pub fn forget(&mut self, receiver: &str) {
        self.receivers.remove(receiver);
    }

    /// When the next pause is over that is not over yet.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let until = |state: &State| match state {
            State::Broken(until) if *until > now => Some(*until),
            State::Failing(_) | State::Probing | State::Broken(_) => None,
        };
        self.receivers.values().filter_map(until).min()
    }

    fn note(&mut self, receiver: &str, state: State) {
        if self.receivers.len() >= RECEIVERS_MAX && !self.receivers.contains_key(receiver) {
            // Those that only began to fail are the least loss.
            self.receivers.retain(|_, state| !matches!(state, State::Failing(_)));
            if self.receivers.len() >= RECEIVERS_MAX {
                return;
            }
        }
        self.receivers.insert(receiver.to_owned(), state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const OK: Outcome = Outcome::Answered { status: 200, retry_after: None };
    const SICK: Outcome = Outcome::Answered { status: 500, retry_after: None };
    const DEAD: Outcome = Outcome::Unreachable;

    fn broken() -> Circuits {
        let mut circuits = Circuits::new(1.0);
        for _ in 0..THRESHOLD {
            assert_eq!(circuits.gate("a", NOW), Gate::Open);
            assert!(!circuits.over("a", Some(&DEAD), NOW));
        }
        circuits
    }

    #[test]
    fn five_failures_in_a_row_open_it_for_thirty_seconds() {
        let circuits = broken();
        let until = NOW.plus_ms(30_000);
        assert_eq!(circuits.gate("a", NOW), Gate::Shut(Some(until)));
        assert_eq!(circuits.gate("a", until.plus_ms(-1)), Gate::Shut(Some(until)));
        assert_eq!(circuits.gate("a", until), Gate::Open, "for the probe");
        assert_eq!(circuits.gate("b", NOW), Gate::Open, "others are not meant");
        assert_eq!(circuits.next(NOW), Some(until));
        assert_eq!(circuits.next(until), None);
        assert!(circuits.to_probe(until.plus_ms(-1)).is_empty());
        assert_eq!(circuits.to_probe(until), ["a"]);
    }

    #[test]
    fn any_answer_ends_the_row_of_failures() {
        for answer in [OK, SICK, Outcome::Broken] {
            let mut circuits = Circuits::new(1.0);
            for _ in 0..3 {
                for _ in 1..THRESHOLD {
                    circuits.over("a", Some(&Outcome::TimedOut), NOW);
                }
                circuits.over("a", Some(&answer), NOW);
            }
            assert_eq!(circuits.gate("a", NOW), Gate::Open, "{answer:?}");
            assert!(circuits.receivers.is_empty());
        }
    }

    #[test]
    fn one_probe_decides() {
        let later = NOW.plus_ms(30_000);
        let mut circuits = broken();
        circuits.begun("a");
        assert_eq!(circuits.gate("a", later), Gate::Shut(None), "one and no more");
        assert!(circuits.to_probe(later).is_empty());
        circuits.over("a", Some(&Outcome::TimedOut), later);
        assert_eq!(circuits.gate("a", later), Gate::Shut(Some(later.plus_ms(30_000))));
        circuits.begun("a");
        assert!(circuits.over("a", Some(&SICK), later), "a bad answer is an answer");
        assert_eq!(circuits.gate("a", later), Gate::Open);
    }

    #[test]
    fn a_probe_that_never_went_out_leaves_room_for_another() {
        for nothing in [None, Some(&Outcome::Refused)] {
            let mut circuits = broken();
            circuits.begun("a");
            assert!(!circuits.over("a", nothing, NOW.plus_ms(30_000)));
            assert_eq!(circuits.to_probe(NOW.plus_ms(30_000)), ["a"]);
            assert!(!circuits.over("b", nothing, NOW), "and opens nothing");
            assert_eq!(circuits.gate("b", NOW), Gate::Open);
        }
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_open_it_longer() {
        let mut circuits = broken();
        circuits.over("a", Some(&DEAD), NOW.plus_ms(4000));
        assert_eq!(circuits.next(NOW), Some(NOW.plus_ms(30_000)));
        assert!(circuits.over("a", Some(&OK), NOW.plus_ms(5000)), "but a late answer closes it");
    }

    #[test]
    fn deliveries_given_up_in_a_row_open_it_too() {
        let mut circuits = Circuits::new(1.0);
        circuits.gave_up("a", 3, NOW);
        circuits.gave_up("a", 3, NOW);
        circuits.arrived("a");
        for _ in 0..2 {
            circuits.gave_up("a", 3, NOW);
            assert_eq!(circuits.gate("a", NOW), Gate::Open);
        }
        circuits.gave_up("a", 3, NOW);
        let until = NOW.plus_ms(30_000);
        assert_eq!(circuits.gate("a", NOW), Gate::Shut(Some(until)));
        circuits.begun("a");
        circuits.over("a", Some(&SICK), until);
        circuits.gave_up("a", 3, until);
        assert_eq!(circuits.gate("a", until), Gate::Shut(Some(until.plus_ms(30_000))), "one more is enough");
        circuits.arrived("a");
        circuits.over("a", Some(&OK), until);
        circuits.gave_up("a", 3, until);
        assert_eq!(circuits.gate("a", until), Gate::Open);
    }

    #[test]
    fn the_pause_is_scaled() {
        for (scale, ms) in [(0.01, 300), (0.0, 0), (2.0, 60_000), (f64::NAN, 30_000), (-1.0, 30_000)] {
            let mut circuits = Circuits::new(scale);
            for _ in 0..THRESHOLD {
                circuits.over("a", Some(&DEAD), NOW);
            }
            assert_eq!(circuits.next(NOW.plus_ms(-1)), Some(NOW.plus_ms(ms)), "{scale}");
        }
    }

    #[test]
    fn receivers_are_bounded() {
        let mut circuits = Circuits::new(1.0);
        for index in 0..RECEIVERS_MAX + 10 {
            circuits.over(&index.to_string(), Some(&DEAD), NOW);
        }
        assert!(circuits.receivers.len() <= RECEIVERS_MAX);
    }
}
