//! Thousands of calls in virtual time: random far ends, a bad network, random commands. What must hold holds for
//! every call, and a failing run is repeated by its seed (`TRUNKLINE_SEED=n cargo test --test sim`).

mod ears;
mod far;
mod money;
mod net;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use net::Weather;
use trunkline::model::CallId;
use trunkline::model::event::{CallEvent, Stamped};
use world::{MAX_DURATION_MS, World};

const BAD: Weather = Weather { loss_percent: 10, duplicate_percent: 5, delay_max_ms: 400 };
const GOOD: Weather = Weather { loss_percent: 0, duplicate_percent: 0, delay_max_ms: 20 };

fn seeds(default: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var("TRUNKLINE_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => default.collect(),
    }
}

/// Runs `calls` calls, begun over one virtual minute, until nothing is left.
fn run(seed: u64, weather: Weather, calls: u32, dead_trunk: bool) -> World {
    println!("seed {seed}");
    let mut world = World::new(seed, weather);
    if dead_trunk {
        world.kill_trunk(1);
    }
    let mut at = Duration::ZERO;
    for number in 1..=calls {
        at += Duration::from_millis(u64::from(world.roll(120_000 / calls.max(1) + 1)));
        while world.step(at) {}
        let order = world.order(u128::from(number));
        world.place(order);
    }
    while world.step(at + Duration::from_secs(400)) {}
    world
}

fn by_call(events: &[Stamped]) -> BTreeMap<CallId, Vec<&Stamped>> {
    let mut calls: BTreeMap<CallId, Vec<&Stamped>> = BTreeMap::new();
    for event in events {
        calls.entry(event.call).or_default().push(event);
    }
    calls
}

/// What every call owes its owner, whatever happened to it.
fn assert_call_is_told_right(call: CallId, events: &[&Stamped]) {
    let count = |wanted: fn(&CallEvent) -> bool| events.iter().filter(|e| wanted(&e.event)).count();
    let told = format!("{call}: {events:#?}");
    assert_eq!(count(|e| matches!(e, CallEvent::Ended { .. })), 1, "one end: {told}");
    assert!(count(|e| matches!(e, CallEvent::Answered)) <= 1, "one answer: {told}");
    assert!(count(|e| matches!(e, CallEvent::Screened(_))) <= 1, "one verdict: {told}");
    assert!(matches!(events[0].event, CallEvent::Queued), "queued first: {told}");
    let end = events.iter().position(|e| matches!(e.event, CallEvent::Ended { .. })).expect("counted");
    for late in &events[end + 1..] {
        assert!(
            matches!(late.event, CallEvent::RecordingCompleted { .. } | CallEvent::RecordingFailed { .. }),
            "only the recording's file outlives a call: {told}"
        );
    }
    let answered = events.iter().find(|e| matches!(e.event, CallEvent::Answered));
    if let Some(answered) = answered {
        let up = events[end].at.0 - answered.at.0;
        assert!(up <= i64::from(MAX_DURATION_MS), "outlived its limit by {up} ms: {told}");
    }
    assert_pairs(events, &told);
}

/// Whatever begins ends: gathers, recordings.
fn assert_pairs(events: &[&Stamped], told: &str) {
    let (mut gathers, mut recordings) = (0i32, 0i32);
    for event in events {
        match event.event {
            CallEvent::GatherStarted { .. } => gathers += 1,
            CallEvent::GatherComplete { .. } | CallEvent::GatherTimeout { .. } => gathers -= 1,
            CallEvent::RecordingStarted { .. } => recordings += 1,
            CallEvent::RecordingCompleted { .. } | CallEvent::RecordingFailed { .. } => recordings -= 1,
            CallEvent::Queued
            | CallEvent::Dialing { .. }
            | CallEvent::AttemptFailed { .. }
            | CallEvent::PassedOver { .. }
            | CallEvent::Proceeding
            | CallEvent::Ringing
            | CallEvent::Answered
            | CallEvent::Screened(_)
            | CallEvent::RecordingStopped { .. }
            | CallEvent::RecordingPaused { .. }
            | CallEvent::RecordingResumed { .. }
            | CallEvent::Digit { .. }
            | CallEvent::GatherProgress { .. }
            | CallEvent::Played { .. }
            | CallEvent::Said { .. }
            | CallEvent::TurnTimed(_)
            | CallEvent::ContextChanged { .. }
            | CallEvent::HandedOff { .. }
            | CallEvent::TransferStarted { .. }
            | CallEvent::TransferFailed { .. }
            | CallEvent::Unheard { .. }
            | CallEvent::Transferred
            | CallEvent::Ended { .. } => {}
        }
        assert!((0..=1).contains(&gathers), "gathers do not pair: {told}");
        assert!((0..=1).contains(&recordings), "recordings do not pair: {told}");
    }
    assert_eq!((gathers, recordings), (0, 0), "something was left open: {told}");
}

fn assert_world(world: &World, calls: u32) {
    let told = by_call(&world.events);
    assert_eq!(told.len(), calls as usize);
    for (call, events) in &told {
        assert_call_is_told_right(*call, events);
    }
    world.assert_empty();
}

#[test]
fn a_thousand_calls_over_a_bad_network_each_end_once() {
    for seed in seeds(1..6) {
        let world = run(seed, BAD, 1000, false);
        assert_world(&world, 1000);
    }
}

#[test]
fn a_thousand_calls_over_a_good_network_with_one_dead_trunk() {
    for seed in seeds(100..102) {
        let world = run(seed, GOOD, 1000, true);
        assert_world(&world, 1000);
        let answered = world.events.iter().filter(|e| matches!(e.event, CallEvent::Answered)).count();
        assert!(answered > 300, "only {answered} answered");
    }
}

#[test]
fn a_seed_repeats_its_run_event_for_event() {
    let (one, two) = (run(7, BAD, 200, false), run(7, BAD, 200, false));
    assert_eq!(one.events, two.events);
    let other = run(8, BAD, 200, false);
    assert_ne!(one.events, other.events);
}
