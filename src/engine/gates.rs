//! How many calls go by each trunk now, and how many were begun in the last second: the limits of a trunk hold for
//! fail-over as for first choices, and only here is every INVITE known. Owns the counts; never chooses a trunk.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::call::TrunkPlan;

/// The time in which `calls_per_second` counts.
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Gate {
    on: u32,
    /// Starts of the last second, at most as many as are allowed.
    starts: VecDeque<Instant>,
}

/// The counts of all trunks with a call or a start of the last second, by endpoint name.
#[derive(Debug, Default)]
pub(super) struct Gates {
    trunks: BTreeMap<String, Gate>,
}

impl Gates {
    /// Takes a place for one INVITE.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn enter(&mut self, now: Instant, plan: &TrunkPlan) -> Result<(), &'static str> {
        let (calls, starts) = (plan.profile.max_calls, plan.profile.calls_per_second as usize);
        if !self.trunks.contains_key(&plan.endpoint) {
            self.trunks.insert(plan.endpoint.clone(), Gate::default());
        }
        let Some(gate) = self.trunks.get_mut(&plan.endpoint) else { return Ok(()) };
        if calls > 0 && gate.on >= calls {
            return Err("its calls are all in use");
        }
        gate.starts.retain(|at| now.saturating_duration_since(*at) < SECOND);
        if starts > 0 && gate.starts.len() >= starts {
            return Err("it has had its calls of this second");
        }
        if starts > 0 {
            gate.starts.push_back(now);
        }
        gate.on += 1;
        Ok(())
    }

    /// Whether a place would be given now.
    pub(super) fn has_room(&self, now: Instant, plan: &TrunkPlan) -> bool {
        let (calls, starts) = (plan.profile.max_calls, plan.profile.calls_per_second as usize);
        let Some(gate) = self.trunks.get(&plan.endpoint) else { return true };
        let recent = gate.starts.iter().filter(|at| now.saturating_duration_since(**at) < SECOND).count();
        (calls == 0 || gate.on < calls) && (starts == 0 || recent < starts)
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, endpoint: &str) {
        let Some(gate) = self.trunks.get_mut(endpoint) else { return };
        gate.on = gate.on.saturating_sub(1);
        if gate.on == 0 && gate.starts.is_empty() {
            self.trunks.remove(endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Secret;
    use crate::model::trunk::TrunkProfile;

    fn plan(max_calls: u32, calls_per_second: u32) -> TrunkPlan {
        TrunkPlan {
            endpoint: "a-endpoint".into(),
            host: "10.0.0.1".into(),
            port: None,
            hops: Vec::new(),
            username: String::new(),
            password: Secret::default(),
            dial_prefix: "00".into(),
            codecs: Vec::new(),
            caller_id: None,
            no_response_timeout_ms: 2000,
            profile: Arc::new(TrunkProfile { max_calls, calls_per_second, ..TrunkProfile::default() }),
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn limits_hold_and_places_come_back() {
        let (mut gates, start) = (Gates::default(), Instant::now());
        let two = plan(2, 0);
        let mut enter = || (gates.has_room(start, &two), gates.enter(start, &two).is_ok());
        assert_eq!([0; 3].map(|_| enter()), [(true, true), (true, true), (false, false)]);
        gates.leave("a-endpoint");
        assert!(gates.enter(start, &two).is_ok());
        gates.leave("a-endpoint");
        gates.leave("a-endpoint");
        assert!(gates.trunks.is_empty());

        let paced = plan(0, 2);
        let at = |ms| start + Duration::from_millis(ms);
        let taken = [0, 400, 999, 1000, 1399, 1400].map(|ms| gates.enter(at(ms), &paced).is_ok());
        assert_eq!(taken, [true, true, false, true, false, true]);
    }
}
