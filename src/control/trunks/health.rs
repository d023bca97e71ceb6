//! Which trunks are fit to carry a call now: events in, decisions out, time as an argument (CONTRACT 1.1 "Trunks").
//! Owns each trunk's bench, its calls and its starts of the last second. Never dials, waits or looks anything up.
//!
//! A trunk is benched by a 500 or 503 with `Retry-After` for that long, and by [`FAULTS_IN_A_ROW`] faults for a set
//! time; after the latter one probe call goes through it, and what becomes of that decides. Answers of the far end
//! (busy, unknown number) are a sign of health. Misfits of media (415, 488, 606) say nothing either way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::event::{CallEvent, Fault, Stamped};
use crate::model::trunk::TrunkNews;
use crate::model::{CallId, Now, Timestamp};

/// So many faults one after the other bench a trunk.
pub const FAULTS_IN_A_ROW: u32 = 5;

/// The longest time that a `Retry-After` benches for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// So many unanswered OPTIONS one after the other bench a trunk.
const PINGS_MISSED: u32 = 3;

/// The time in which `calls_per_second` counts.
const SECOND: Duration = Duration::from_secs(1);

/// A trunk that a call could go by.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `<name>-endpoint`.
    pub endpoint: &'a str,
    /// Calls at once; 0: no limit.
    pub max_calls: u32,
    /// Starts in any second; 0: no limit.
    pub calls_per_second: u32,
    /// Its address is known.
    pub reachable: bool,
}

/// The way of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Places of the candidates to try, in order.
    pub walk: Vec<usize>,
    /// Places of those that are not tried, and why.
    pub passed: Vec<(usize, String)>,
    /// No trunk is left, and at least one because it is at a limit.
    pub busy: bool,
}

/// What is known of a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `healthy`, `benched` or `probing`.
    pub state: &'static str,
    /// The end of the bench.
    pub benched_until: Option<Timestamp>,
    /// Why it is benched, or was last.
    pub why: Option<String>,
    /// Calls on it now.
    pub active_calls: usize,
    /// Faults since it last worked.
    pub faults_in_a_row: u32,
    /// From the latest INVITE that was answered to its first answer above 100.
    pub last_answer_ms: Option<u32>,
    /// INVITEs since the start of the program.
    pub attempts: u64,
    /// Of these answered with 200.
    pub answered: u64,
    /// Of these failed by the trunk.
    pub faults: u64,
    /// The end of the registration that holds.
    pub registered_until: Option<Timestamp>,
    /// Why the latest registration was not taken.
    pub register_error: Option<String>,
    /// From the latest answered OPTIONS to its answer.
    pub ping_ms: Option<u32>,
    /// OPTIONS unanswered since the last that was.
    pub pings_missed: u32,
}

/// Why and how long a trunk is left alone.
#[derive(Clone, Debug)]
struct Bench {
    until: Instant,
    why: String,
    /// Afterwards one call goes first.
    probes: bool,
    /// OPTIONS put it there; an answer to them ends it.
    by_ping: bool,
}

#[derive(Debug, Default)]
struct Trunk {
    on: BTreeSet<CallId>,
    /// Starts of the last second, at most as many as are allowed.
    starts: VecDeque<Instant>,
    bench: Option<Bench>,
    /// The call that tries it after its bench.
    probe: Option<CallId>,
    why: Option<String>,
    faults_in_a_row: u32,
    last_answer_ms: Option<u32>,
    attempts: u64,
    answered: u64,
    faults: u64,
    registered: Option<Timestamp>,
    register_error: Option<String>,
    ping_ms: Option<u32>,
    pings_missed: u32,
}

#[derive(Debug, Default)]
struct OnCall {
    /// The trunk whose place it takes.
    trunk: Option<String>,
    /// When its INVITE went out; `None` while it is only meant to.
    dialed_at: Option<Timestamp>,
    /// An answer above 100 came in this attempt.
    responded: bool,
    /// Trunks that it is to try after their bench.
    probes: Vec<String>,
}

/// The health of all trunks. See the module's words.
#[derive(Debug)]
pub struct Health {
    bench: Duration,
    trunks: BTreeMap<String, Trunk>,
    calls: BTreeMap<CallId, OnCall>,
}

impl Trunk {
    /// Why no call may go by it at all, if so.
    fn full(&mut self, now: Instant, candidate: &Candidate<'_>) -> Option<&'static str> {
        if candidate.max_calls > 0 && self.on.len() >= candidate.max_calls as usize {
            return Some("its calls are all in use");
        }
        self.starts.retain(|at| now.saturating_duration_since(*at) < SECOND);
        let allowed = candidate.calls_per_second as usize;
        (allowed > 0 && self.starts.len() >= allowed).then_some("it has had its calls of this second")
    }

    /// Why calls had better go by others, if so.
    fn benched(&self, now: Instant) -> Option<String> {
        let bench = self.bench.as_ref()?;
        if bench.until > now {
            return Some(format!("benched: {}", bench.why));
        }
        (bench.probes && self.probe.is_some()).then(|| format!("being tried again: {}", bench.why))
    }

    fn started(&mut self, now: Instant) {
        self.starts.retain(|at| now.saturating_duration_since(*at) < SECOND);
        // More than any limit counts are never asked for.
        if self.starts.len() < 1000 {
            self.starts.push_back(now);
        }
    }

    fn sit(&mut self, until: Instant, why: String, probes: bool, by_ping: bool) {
        let longer = self.bench.as_ref().is_some_and(|bench| bench.until > until);
        if !longer {
            self.why = Some(why.clone());
            self.bench = Some(Bench { until, why, probes, by_ping });
        }
    }

    fn works(&mut self) {
        self.faults_in_a_row = 0;
        self.bench = None;
        self.probe = None;
    }
}

impl Health {
    /// All trunks are taken for healthy. `bench`: how long faults in a row bench for.
    pub fn new(bench: Duration) -> Self {
        Self { bench, trunks: BTreeMap::new(), calls: BTreeMap::new() }
    }

    /// The way of a call over `candidates`, in the order of preference. The first place is taken for the call at
    /// once, so that no two calls take the last one; [`CallEvent::Ended`] or [`Health::release`] gives it back.
    pub fn choose(&mut self, now: Instant, call: CallId, candidates: &[Candidate<'_>]) -> Choice {
        let mut choice = Choice::default();
        let mut open = Vec::new();
        for (place, candidate) in candidates.iter().enumerate() {
            let trunk = self.trunks.entry(candidate.endpoint.to_owned()).or_default();
            if !candidate.reachable {
                choice.passed.push((place, "its address is not known".to_owned()));
            } else if let Some(why) = trunk.full(now, candidate) {
                choice.busy = true;
                choice.passed.push((place, why.to_owned()));
            } else {
                open.push((place, trunk.benched(now)));
            }
        }
        let all_benched = open.iter().all(|(_, why)| why.is_some());
        for (place, why) in open {
            match why {
                Some(why) if !all_benched => choice.passed.push((place, why)),
                Some(_) | None => choice.walk.push(place),
            }
        }
        choice.passed.sort_by_key(|(place, _)| *place);
        choice.busy &= choice.walk.is_empty();
        self.reserve(now, call, candidates, &choice.walk);
        choice
    }

    fn reserve(&mut self, now: Instant, call: CallId, candidates: &[Candidate<'_>], walk: &[usize]) {
        let names = walk.iter().filter_map(|place| candidates.get(*place)).map(|c| c.endpoint);
        let mut on = OnCall::default();
        for (at, name) in names.enumerate() {
            let Some(trunk) = self.trunks.get_mut(name) else { continue };
            if at == 0 {
                trunk.on.insert(call);
                trunk.started(now);
                on.trunk = Some(name.to_owned());
            }
            let due = trunk.bench.as_ref().is_some_and(|bench| bench.until <= now);
            if due && trunk.bench.as_ref().is_some_and(|bench| bench.probes) && trunk.probe.is_none() {
                trunk.probe = Some(call);
                on.probes.push(name.to_owned());
            } else if due && trunk.probe.is_none() {
                trunk.bench = None;
            }
        }
        if on.trunk.is_some() {
            self.calls.insert(call, on);
        }
    }

    /// The call came to nothing before its first INVITE.
    pub fn release(&mut self, call: CallId) {
        let Some(on) = self.calls.remove(&call) else { return };
        self.leave(call, on.trunk.as_deref());
        self.give_up_probes(call, &on.probes);
    }

    fn leave(&mut self, call: CallId, trunk: Option<&str>) {
        if let Some(trunk) = trunk.and_then(|name| self.trunks.get_mut(name)) {
            trunk.on.remove(&call);
        }
    }

    /// The walk ends before it came to these.
    fn give_up_probes(&mut self, call: CallId, names: &[String]) {
        for name in names {
            if let Some(trunk) = self.trunks.get_mut(name) {
                trunk.probe.take_if(|probe| *probe == call);
            }
        }
    }

    /// Takes in what happened to a call.
    pub fn heard(&mut self, now: Instant, stamped: &Stamped) {
        let call = stamped.call;
        match &stamped.event {
            CallEvent::Dialing { trunk, .. } => self.dialing(now, call, trunk, stamped.at),
            CallEvent::AttemptFailed { trunk, code, reason, elapsed_ms, retry_after_s, fault } => {
                let responded = self.calls.get(&call).is_some_and(|on| on.responded);
                if *code > 0 && !responded {
                    self.trunk(trunk).last_answer_ms = Some(*elapsed_ms);
                }
                self.leave_attempt(call);
                self.judge(now, call, trunk, *fault, &said(*code, reason));
                if let (500 | 503, Some(seconds)) = (code, retry_after_s) {
                    let wait = Duration::from_secs(u64::from(*seconds)).min(RETRY_AFTER_MAX);
                    let why = format!("it asked for {} s ({code})", wait.as_secs());
                    self.trunk(trunk).sit(now + wait, why, false, false);
                }
            }
            CallEvent::Ringing => self.works(call, stamped.at, false),
            CallEvent::Answered => self.works(call, stamped.at, true),
            CallEvent::Ended { .. } => self.release(call),
            CallEvent::Queued
            | CallEvent::PassedOver { .. }
            | CallEvent::Proceeding
            | CallEvent::Screened(_)
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
            | CallEvent::TurnTimed(_)
            | CallEvent::ContextChanged { .. }
            | CallEvent::HandedOff { .. }
            | CallEvent::TransferStarted { .. }
            | CallEvent::TransferFailed { .. }
            | CallEvent::Unheard { .. }
            | CallEvent::Transferred => {}
        }
    }

    fn trunk(&mut self, name: &str) -> &mut Trunk {
        if !self.trunks.contains_key(name) {
            self.trunks.insert(name.to_owned(), Trunk::default());
        }
        self.trunks.entry(name.to_owned()).or_default()
    }

    fn dialing(&mut self, now: Instant, call: CallId, name: &str, at: Timestamp) {
        let on = self.calls.entry(call).or_default();
        let before = on.trunk.replace(name.to_owned());
        let meant = before.as_deref() == Some(name) && on.dialed_at.is_none();
        (on.dialed_at, on.responded) = (Some(at), false);
        if !meant {
            self.leave(call, before.as_deref());
        }
        let trunk = self.trunk(name);
        trunk.attempts += 1;
        if !meant {
            trunk.on.insert(call);
            trunk.started(now);
        }
    }

    fn leave_attempt(&mut self, call: CallId) {
        let trunk = self.calls.get_mut(&call).and_then(|on| on.trunk.take());
        self.leave(call, trunk.as_deref());
    }

    /// What a failed attempt says of its trunk.
    fn judge(&mut self, now: Instant, call: CallId, name: &str, fault: Fault, said: &str) {
        let bench = self.bench;
        let trunk = self.trunk(name);
        let probed = trunk.probe.take_if(|probe| *probe == call).is_some();
        match fault {
            Fault::FarEnd => trunk.works(),
            Fault::Media | Fault::Nobody => {}
            Fault::Trunk => {
                trunk.faults += 1;
                trunk.faults_in_a_row = trunk.faults_in_a_row.saturating_add(1);
                let row = trunk.faults_in_a_row;
                if probed || row >= FAULTS_IN_A_ROW {
                    trunk.sit(now + bench, format!("{row} faults in a row, the last: {said}"), true, false);
                }
            }
        }
    }

    /// An answer that shows that the call has arrived: the walk is over.
    fn works(&mut self, call: CallId, at: Timestamp, answered: bool) {
        let Some(on) = self.calls.get_mut(&call) else { return };
        let (name, probes) = (on.trunk.clone(), std::mem::take(&mut on.probes));
        let first = !std::mem::replace(&mut on.responded, true);
        let took = on.dialed_at.map(|dialed| u32::try_from((at.0 - dialed.0).max(0)).unwrap_or(u32::MAX));
        self.give_up_probes(call, &probes);
        let Some(trunk) = name.as_deref().and_then(|name| self.trunks.get_mut(name)) else { return };
        trunk.works();
        trunk.answered += u64::from(answered);
        if first {
            trunk.last_answer_ms = took;
        }
    }

    /// Takes in what became of a registration or of OPTIONS. `endpoint` as in events.
    pub fn news(&mut self, now: Now, endpoint: &str, news: &TrunkNews) {
        let bench = self.bench;
        let trunk = self.trunk(endpoint);
        match news {
            TrunkNews::Registered { for_s } => {
                trunk.registered = Some(now.wall.plus_ms(i64::from(*for_s) * 1000));
                trunk.register_error = None;
            }
            TrunkNews::RegisterFailed { code, reason, again_in_s } => {
                let text = format!("{}; again in {again_in_s} s", said(*code, reason));
                trunk.register_error = Some(text);
            }
            TrunkNews::Unregistered => (trunk.registered, trunk.register_error) = (None, None),
            TrunkNews::Pinged { elapsed_ms, .. } => {
                (trunk.ping_ms, trunk.pings_missed) = (Some(*elapsed_ms), 0);
                trunk.bench.take_if(|bench| bench.by_ping);
            }
            TrunkNews::PingMissed => {
                trunk.pings_missed = trunk.pings_missed.saturating_add(1);
                if trunk.pings_missed >= PINGS_MISSED {
                    let why = format!("{} OPTIONS unanswered", trunk.pings_missed);
                    trunk.sit(now.mono + bench, why, true, true);
                }
            }
        }
    }

    /// What is known of a trunk, by its endpoint name.
    pub fn report(&self, now: Now, endpoint: &str) -> Report {
        let unknown = Trunk::default();
        let trunk = self.trunks.get(endpoint).unwrap_or(&unknown);
        let left = trunk.bench.as_ref().and_then(|bench| bench.until.checked_duration_since(now.mono));
        let left = left.filter(|left| !left.is_zero());
        let state = match (&left, &trunk.bench) {
            (Some(_), _) => "benched",
            (None, Some(bench)) if bench.probes => "probing",
            (None, _) => "healthy",
        };
        let ms = |left: Duration| i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
        Report {
            state,
            benched_until: left.map(|left| now.wall.plus_ms(ms(left))),
            why: trunk.why.clone(),
            active_calls: trunk.on.len(),
            faults_in_a_row: trunk.faults_in_a_row,
            last_answer_ms: trunk.last_answer_ms,
            attempts: trunk.attempts,
            answered: trunk.answered,
            faults: trunk.faults,
            registered_until: trunk.registered.filter(|until| *until > now.wall),
            register_error: trunk.register_error.clone(),
            ping_ms: trunk.ping_ms,
            pings_missed: trunk.pings_missed,
        }
    }

    /// Forgets trunks that are no more and carry nothing.
    pub fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.trunks.retain(|endpoint, trunk| exists(endpoint) || !trunk.on.is_empty());
    }
}

/// `503 Service Unavailable`, or our own words where no answer came.
fn said(code: u16, reason: &str) -> String {
    if code == 0 { reason.to_owned() } else { format!("{code} {reason}") }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
