//! The health of trunks by tables: what is said of them, and which way the next call goes.

use super::*;
use crate::model::call::EndReason;

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Bed {
    health: Health,
    now: Now,
    next: u128,
}

impl Bed {
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn new() -> Self {
        let now = Now { mono: Instant::now(), wall: Timestamp(1_800_000_000_000) };
        Self { health: Health::new(Duration::from_secs(30)), now, next: 0 }
    }

    fn later(&mut self, ms: u64) {
        self.now = self.now.plus(Duration::from_millis(ms));
    }

    fn choose_with(&mut self, max_calls: u32, calls_per_second: u32) -> (CallId, Choice) {
        self.next += 1;
        let call = CallId(self.next);
        let candidates =
            NAMES.map(|endpoint| Candidate { endpoint, max_calls, calls_per_second, reachable: true });
        (call, self.health.choose(self.now.mono, call, &candidates))
    }

    fn choose(&mut self) -> (CallId, Vec<usize>) {
        let (call, choice) = self.choose_with(0, 0);
        (call, choice.walk)
    }

    fn walk(&mut self) -> Vec<usize> {
        let (call, walk) = self.choose();
        self.health.release(call);
        walk
    }

    fn tell(&mut self, call: CallId, event: CallEvent) {
        self.health.heard(self.now.mono, &Stamped { call, at: self.now.wall, event });
    }

    fn dial(&mut self, call: CallId, trunk: &str) {
        self.tell(call, CallEvent::Dialing { trunk: trunk.into(), attempt: 1 });
    }

    fn fail(&mut self, call: CallId, trunk: &str, code: u16, fault: Fault, retry_after_s: Option<u32>) {
        let (trunk, reason, elapsed_ms) = (trunk.to_owned(), "reason".to_owned(), 12);
        self.tell(call, CallEvent::AttemptFailed { trunk, code, reason, elapsed_ms, retry_after_s, fault });
    }

    fn end(&mut self, call: CallId) {
        self.tell(call, CallEvent::Ended { reason: EndReason::TrunkFailure, q850: 41, sip_code: None });
    }

    /// One call whose attempt at `trunk` comes to this.
    fn attempt(&mut self, trunk: &str, code: u16, fault: Fault) {
        let (call, _) = self.choose();
        self.dial(call, trunk);
        self.fail(call, trunk, code, fault, None);
        self.end(call);
    }

    fn state(&self, trunk: &str) -> &'static str {
        self.health.report(self.now, trunk).state
    }
}

#[test]
fn five_faults_in_a_row_bench_and_one_call_probes() {
    let mut bed = Bed::new();
    for _ in 0..4 {
        bed.attempt("a", 503, Fault::Trunk);
    }
    assert_eq!(bed.walk(), [0, 1, 2]);
    bed.attempt("a", 0, Fault::Trunk);
    assert_eq!((bed.walk(), bed.state("a")), (vec![1, 2], "benched"));
    let report = bed.health.report(bed.now, "a");
    assert_eq!(report.benched_until, Some(bed.now.wall.plus_ms(30_000)));
    assert_eq!(report.why.as_deref(), Some("5 faults in a row, the last: reason"));
    assert_eq!((report.attempts, report.faults, report.faults_in_a_row), (5, 5, 5));

    bed.later(29_999);
    assert_eq!(bed.walk(), [1, 2]);
    bed.later(1);
    assert_eq!(bed.state("a"), "probing");
    // One call tries it, all others go on passing it over.
    let (probe, walk) = bed.choose();
    assert_eq!(walk, [0, 1, 2]);
    assert_eq!(bed.walk(), [1, 2]);
    bed.dial(probe, "a");
    bed.fail(probe, "a", 503, Fault::Trunk, None);
    bed.dial(probe, "b");
    assert_eq!((bed.walk(), bed.state("a")), (vec![1, 2], "benched"));
    bed.tell(probe, CallEvent::Ringing);
    bed.end(probe);

    bed.later(30_000);
    let (probe, _) = bed.choose();
    bed.dial(probe, "a");
    bed.later(180);
    bed.tell(probe, CallEvent::Ringing);
    assert_eq!((bed.walk(), bed.state("a")), (vec![0, 1, 2], "healthy"));
    assert_eq!(bed.health.report(bed.now, "a").last_answer_ms, Some(180));
}

#[test]
fn a_probe_that_never_came_to_its_trunk_is_given_back() {
    for ends in [CallEvent::Ringing, CallEvent::Answered] {
        let mut bed = Bed::new();
        for _ in 0..5 {
            bed.attempt("b", 503, Fault::Trunk);
        }
        bed.later(30_000);
        let (call, walk) = bed.choose();
        assert_eq!(walk, [0, 1, 2]);
        assert_eq!(bed.walk(), [0, 2]);
        bed.dial(call, "a");
        bed.tell(call, ends);
        assert_eq!(bed.walk(), [0, 1, 2]);
    }
    let mut bed = Bed::new();
    for _ in 0..5 {
        bed.attempt("a", 503, Fault::Trunk);
    }
    bed.later(30_000);
    let (call, _) = bed.choose();
    bed.dial(call, "a");
    // Cancelled before any answer: nothing is known, the next call tries.
    bed.end(call);
    assert_eq!((bed.walk(), bed.state("a")), (vec![0, 1, 2], "probing"));
}

#[test]
fn what_counts_and_what_breaks_the_row() {
    for (between, benched) in [
        (Some((486, Fault::FarEnd)), false),
        (Some((488, Fault::Media)), true),
        (Some((0, Fault::Nobody)), true),
        (None, true),
    ] {
        let mut bed = Bed::new();
        for at in 0..5 {
            if let (3, Some((code, fault))) = (at, between) {
                bed.attempt("a", code, fault);
            }
            bed.attempt("a", 500, Fault::Trunk);
        }
        assert_eq!(bed.state("a") == "benched", benched, "{between:?}");
    }
}

#[test]
fn retry_after_benches_for_its_time_at_most_five_minutes() {
    for (code, asked, benched_s) in
        [(503, Some(5), 5), (500, Some(7), 7), (503, Some(4000), 300), (503, None, 0), (480, Some(5), 0)]
    {
        let mut bed = Bed::new();
        let (call, _) = bed.choose();
        bed.dial(call, "a");
        bed.fail(call, "a", code, Fault::Trunk, asked);
        bed.end(call);
        if benched_s > 0 {
            bed.later(benched_s * 1000 - 1);
            assert_eq!(bed.walk(), [1, 2], "{code} {asked:?}");
            bed.later(1);
        }
        // It said itself when it can be used again: no probe.
        let (_, first) = bed.choose();
        assert_eq!((first, bed.walk()), (vec![0, 1, 2], vec![0, 1, 2]), "{code} {asked:?}");
    }
}

#[test]
fn benched_trunks_serve_when_all_are() {
    let mut bed = Bed::new();
    for trunk in NAMES {
        let (call, _) = bed.choose();
        bed.dial(call, trunk);
        bed.fail(call, trunk, 503, Fault::Trunk, Some(60));
        bed.end(call);
    }
    assert_eq!(bed.walk(), [0, 1, 2]);
}

#[test]
fn a_full_trunk_is_never_tried() {
    let mut bed = Bed::new();
    let (first, choice) = bed.choose_with(1, 0);
    assert_eq!(choice.walk, [0, 1, 2]);
    let (second, choice) = bed.choose_with(1, 0);
    assert_eq!((choice.walk, choice.passed), (vec![1, 2], vec![(0, "its calls are all in use".to_owned())]));
    // The second fails over to c, so b is free again.
    bed.dial(second, "b");
    bed.fail(second, "b", 503, Fault::Trunk, None);
    bed.dial(second, "c");
    let (third, choice) = bed.choose_with(1, 0);
    assert_eq!(choice.walk, [1]);
    let (_, choice) = bed.choose_with(1, 0);
    assert_eq!((choice.walk.len(), choice.busy), (0, true));
    bed.end(first);
    assert_eq!(bed.choose_with(1, 0).1.walk, [0]);
    bed.health.release(third);
    bed.end(second);
    assert_eq!(bed.choose_with(1, 0).1.walk, [1, 2]);
}

#[test]
fn a_full_trunk_counts_for_nothing_when_the_rest_is_benched() {
    let mut bed = Bed::new();
    for _ in 0..5 {
        bed.attempt("b", 503, Fault::Trunk);
        bed.attempt("c", 503, Fault::Trunk);
    }
    assert_eq!(bed.choose_with(1, 0).1.walk, [0]);
    assert_eq!(bed.choose_with(1, 0).1.walk, [1, 2]);
}

#[test]
fn starts_are_counted_in_any_second() {
    let mut bed = Bed::new();
    for _ in 0..2 {
        let (call, choice) = bed.choose_with(0, 2);
        assert_eq!(choice.walk, [0, 1, 2]);
        bed.dial(call, "a");
        bed.end(call);
        bed.later(400);
    }
    let (_, choice) = bed.choose_with(0, 2);
    assert_eq!(choice.walk, [1, 2]);
    bed.later(199);
    assert_eq!(bed.choose_with(0, 2).1.walk, [1, 2]);
    bed.later(1);
    // The first has a place again; the second has just had its two.
    assert_eq!(bed.choose_with(0, 2).1.walk, [0, 2]);
}

#[test]
fn a_trunk_without_an_address_is_passed_over() {
    let mut bed = Bed::new();
    let candidates = [false, true].map(|reachable| Candidate {
        endpoint: if reachable { "b" } else { "a" },
        max_calls: 0,
        calls_per_second: 0,
        reachable,
    });
    let choice = bed.health.choose(bed.now.mono, CallId(9), &candidates);
    assert_eq!((choice.walk, choice.busy), (vec![1], false));
    let choice = bed.health.choose(bed.now.mono, CallId(8), &candidates[..1]);
    assert_eq!((choice.walk.len(), choice.busy), (0, false));
}

#[test]
fn options_bench_and_bring_back() {
    let mut bed = Bed::new();
    for _ in 0..3 {
        assert_eq!(bed.walk(), [0, 1, 2]);
        bed.health.news(bed.now, "a", &TrunkNews::PingMissed);
    }
    assert_eq!(bed.walk(), [1, 2]);
    bed.health.news(bed.now, "a", &TrunkNews::Pinged { code: 404, elapsed_ms: 3 });
    assert_eq!(bed.walk(), [0, 1, 2]);
    let report = bed.health.report(bed.now, "a");
    assert_eq!((report.ping_ms, report.pings_missed, report.state), (Some(3), 0, "healthy"));
    // Faults of calls are not mended by OPTIONS.
    for _ in 0..5 {
        bed.attempt("a", 503, Fault::Trunk);
    }
    bed.health.news(bed.now, "a", &TrunkNews::Pinged { code: 200, elapsed_ms: 3 });
    assert_eq!(bed.state("a"), "benched");
}

#[test]
fn registrations_are_told_until_they_end() {
    let mut bed = Bed::new();
    bed.health.news(bed.now, "a", &TrunkNews::Registered { for_s: 60 });
    assert_eq!(bed.health.report(bed.now, "a").registered_until, Some(bed.now.wall.plus_ms(60_000)));
    let failed = TrunkNews::RegisterFailed { code: 403, reason: "Forbidden".into(), again_in_s: 30 };
    bed.health.news(bed.now, "a", &failed);
    let report = bed.health.report(bed.now, "a");
    assert_eq!(report.register_error.as_deref(), Some("403 Forbidden; again in 30 s"));
    assert!(report.registered_until.is_some());
    bed.later(60_000);
    assert_eq!(bed.health.report(bed.now, "a").registered_until, None);
    bed.health.keep(|name| name != "a");
    assert_eq!(bed.health.report(bed.now, "a").register_error, None);
}

#[test]
fn nothing_is_left_of_calls_that_are_over() {
    let mut bed = Bed::new();
    for _ in 0..50 {
        let (call, _) = bed.choose();
        bed.dial(call, "a");
        bed.fail(call, "a", 503, Fault::Trunk, None);
        bed.dial(call, "b");
        bed.tell(call, CallEvent::Answered);
        bed.end(call);
    }
    assert!(bed.health.calls.is_empty());
    assert!(bed.health.trunks.values().all(|trunk| trunk.on.is_empty() && trunk.probe.is_none()));
}
