//! The retry tables and the caps, without waiting.

use super::*;
use crate::model::call::CallView;
use crate::model::event::Stamped;
use crate::webhook::Rendered;

/// The tables that CONTRACT 0.6 gives Kaphila.
struct Tables;

impl Format for Tables {
    fn name(&self) -> &'static str {
        "kaphila"
    }

    fn render(&self, _: &Stamped, _: &CallView, _: u32) -> Vec<Rendered> {
        Vec::new()
    }

    fn terminal(&self, event: &str) -> bool {
        event == "call.ended"
    }

    fn user_agent(&self) -> &'static str {
        "test"
    }

    fn retry_after(&self, event: &str, failures: u32, outcome: &Outcome) -> Option<Duration> {
        let table: &[u64] = if self.terminal(event) { &[30, 300, 1800, 7200] } else { &[1, 3, 10] };
        if !self.terminal(event) && !outcome.cannot_have_been_processed() {
            return None;
        }
        let index = usize::try_from(failures).ok()?.checked_sub(1)?;
        table.get(index).copied().map(Duration::from_secs)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }
}

fn delivery(id: i64, event: &str, attempts: u32) -> Delivery {
    Delivery {
        id,
        event_id: format!("evt_{id}"),
        call: CallId(1),
        key: 1,
        dialect: "kaphila".into(),
        event: event.into(),
        terminal: Tables.terminal(event),
        url: "https://a.example/".into(),
        host: "a.example".into(),
        attempts,
        created_at: NOW,
        call_ended: false,
    }
}

const NOW: Timestamp = Timestamp(1_000_000);

fn after<'a>(delivery: &'a Delivery, outcome: &'a Outcome) -> After<'a> {
    After { delivery, outcome, call_ended: false, now: NOW, time_scale: 1.0, chance: 0.0 }
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered { status, retry_after: None }
}

#[test]
fn terminal_events_are_tried_five_times() {
    for (attempts, seconds) in [(0, 30), (1, 300), (2, 1800), (3, 7200)] {
        let row = delivery(1, "call.ended", attempts);
        for outcome in [answered(500), answered(302), answered(404), Outcome::TimedOut, Outcome::Unreachable]
        {
            let settled = after(&row, &outcome).settlement(&Tables);
            assert_eq!(settled, Settlement::Retry(NOW.plus_ms(seconds * 1000)), "{attempts} {outcome:?}");
        }
    }
    let last = delivery(1, "call.ended", 4);
    assert_eq!(after(&last, &answered(500)).settlement(&Tables), Settlement::Failed);
}

#[test]
fn live_events_are_tried_again_only_where_nobody_can_have_acted() {
    for (attempts, seconds) in [(0, 1), (1, 3), (2, 10)] {
        let row = delivery(1, "dtmf.received", attempts);
        for outcome in [Outcome::Unreachable, Outcome::Refused, answered(429), answered(503)] {
            let settled = after(&row, &outcome).settlement(&Tables);
            assert_eq!(settled, Settlement::Retry(NOW.plus_ms(seconds * 1000)), "{attempts} {outcome:?}");
        }
        for outcome in [Outcome::TimedOut, Outcome::Broken, answered(500), answered(302)] {
            assert_eq!(after(&row, &outcome).settlement(&Tables), Settlement::Dropped, "{outcome:?}");
        }
    }
    let last = delivery(1, "dtmf.received", 3);
    assert_eq!(after(&last, &Outcome::Unreachable).settlement(&Tables), Settlement::Dropped);
}

#[test]
fn the_calls_end_ends_the_retries_of_live_events_only() {
    let ended = |event, outcome: &Outcome| {
        let row = delivery(1, event, 0);
        After { call_ended: true, ..after(&row, outcome) }.settlement(&Tables)
    };
    assert_eq!(ended("dtmf.received", &Outcome::Unreachable), Settlement::Dropped);
    assert_eq!(ended("dtmf.received", &answered(200)), Settlement::Delivered);
    assert_eq!(ended("call.ended", &Outcome::Unreachable), Settlement::Retry(NOW.plus_ms(30_000)));
    for (event, attempts, call_ended, gone) in [
        ("dtmf.received", 1, true, true),
        ("dtmf.received", 0, true, false),
        ("dtmf.received", 1, false, false),
        ("call.ended", 1, true, false),
    ] {
        let row = Delivery { call_ended, ..delivery(1, event, attempts) };
        assert_eq!(outlived(&row), gone, "{event} {attempts} {call_ended}");
    }
}

#[test]
fn gone_stops_the_lane() {
    for event in ["dtmf.received", "call.ended"] {
        assert_eq!(after(&delivery(1, event, 0), &answered(410)).settlement(&Tables), Settlement::Gone);
    }
}

#[test]
fn retry_after_lengthens_up_to_the_next_delay_and_never_shortens() {
    let asked = |seconds| Outcome::Answered { status: 503, retry_after: Some(Duration::from_secs(seconds)) };
    for (event, attempts, asked_s, delay_s) in [
        ("call.ended", 0, 5, 30),
        ("call.ended", 0, 100, 100),
        ("call.ended", 0, 100_000, 300),
        ("call.ended", 3, 100_000, 7200),
        ("dtmf.received", 0, 2, 2),
        ("dtmf.received", 0, 60, 3),
        ("dtmf.received", 2, 60, 10),
    ] {
        let settled = after(&delivery(1, event, attempts), &asked(asked_s)).settlement(&Tables);
        assert_eq!(settled, Settlement::Retry(NOW.plus_ms(delay_s * 1000)), "{event} {attempts} {asked_s}");
    }
}

#[test]
fn long_delays_are_jittered_and_all_are_scaled() {
    for (event, chance, time_scale, ms) in [
        ("call.ended", 1.0, 1.0, 33_000),
        ("call.ended", -1.0, 1.0, 27_000),
        ("call.ended", -1.0, 0.01, 270),
        ("dtmf.received", 1.0, 1.0, 1000),
        ("dtmf.received", 1.0, 0.5, 500),
        ("dtmf.received", 0.0, -1.0, 0),
        ("dtmf.received", 0.0, f64::INFINITY, 1000),
    ] {
        let row = delivery(1, event, 0);
        let settled = After { chance, time_scale, ..after(&row, &Outcome::Unreachable) }.settlement(&Tables);
        assert_eq!(settled, Settlement::Retry(NOW.plus_ms(ms)), "{event} {chance} {time_scale}");
    }
}

#[test]
fn a_lane_and_a_host_are_never_overrun() {
    let row = |id: i64, call: u128, host: &str| {
        let url = format!("https://{host}/");
        Delivery { call: CallId(call), host: host.into(), url, ..delivery(id, "dtmf.received", 0) }
    };
    let mut under_way = UnderWay::new(4, 2);
    assert!(under_way.begin(&row(1, 1, "slow")));
    assert!(!under_way.begin(&row(1, 1, "slow")), "the same row");
    assert!(!under_way.begin(&row(2, 1, "slow")), "the same lane");
    assert!(under_way.begin(&row(3, 2, "slow")));
    assert!(!under_way.begin(&row(4, 3, "slow")), "the host is full");
    assert_eq!((under_way.free_to("slow"), under_way.free_to("quick")), (0, 2));
    assert_eq!(under_way.busy_hosts(), ["slow"]);
    assert!(under_way.begin(&row(5, 3, "quick")), "another host is not held up");
    assert!(under_way.begin(&row(6, 4, "third")));
    assert!(under_way.is_full() && !under_way.begin(&row(7, 5, "fourth")));
    under_way.end(1);
    under_way.end(1);
    assert!(under_way.busy_hosts().is_empty() && under_way.begin(&row(2, 1, "slow")));
    for id in [2, 3, 5, 6] {
        under_way.end(id);
    }
    assert!(under_way.is_empty());
}

#[test]
fn a_row_waits_for_a_dead_receiver_as_long_as_its_schedule_would_have_lasted() {
    for (event, attempts, time_scale, ms, given_up) in [
        // 30 s, 5 min, 30 min, 2 h and five time-outs of 5 s.
        ("call.ended", 0, 1.0, 9_355_000, Settlement::Failed),
        ("call.ended", 3, 1.0, 9_355_000, Settlement::Failed),
        // 1 s, 3 s, 10 s and four time-outs.
        ("dtmf.received", 1, 1.0, 34_000, Settlement::Dropped),
        ("dtmf.received", 0, 1.0, 300_000, Settlement::Dropped),
        ("dtmf.received", 0, 0.01, 20_140, Settlement::Dropped),
    ] {
        let row = delivery(1, event, attempts);
        let over = |ms| Patience { time_scale }.over(&row, &Tables, NOW.plus_ms(ms));
        assert_eq!(over(ms), None, "{event} {attempts}");
        assert_eq!(over(ms + 1), Some(given_up), "{event} {attempts}");
    }
}
