//! Calls whose trunks are all tried again.

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn again(redials_ms: &[u32]) -> CallOrder {
    CallOrder { redials_ms: redials_ms.to_vec(), ..order(false) }
}

fn dialled(events: &[CallEvent]) -> Vec<(String, u8)> {
    let dialled = events.iter().filter_map(|event| match event {
        CallEvent::Dialing { trunk, attempt } => Some((trunk.clone(), *attempt)),
        _other => None,
    });
    dialled.collect()
}

#[test]
fn every_trunk_is_tried_again_after_each_wait_and_then_it_is_over() {
    let mut line = Line::dialled(again(&[1000, 2000]));
    line.signal(rejected(503));
    assert_eq!(names(&line.signal(rejected(503))), ["attempt_failed"], "both have failed; it waits");
    assert!(line.call.live());
    assert!(line.wait(MS(999)).is_empty());
    assert_eq!(dialled(&line.wait(MS(1))), [("a-endpoint".to_owned(), 3)]);
    line.signal(rejected(500));
    line.signal(rejected(503));
    assert!(line.wait(MS(1999)).is_empty());
    assert_eq!(dialled(&line.wait(MS(1))), [("a-endpoint".to_owned(), 5)]);
    line.signal(rejected(503));
    assert_eq!(names(&line.signal(rejected(503))), ["attempt_failed", "ended"]);
}

#[test]
fn a_redial_that_is_answered_is_a_call_like_any_other() {
    let mut line = Line::dialled(again(&[1000]));
    line.signal(rejected(503));
    line.signal(rejected(503));
    line.wait(MS(1000));
    let sdp = Some(Bytes::from_static(ANSWER));
    assert_eq!(names(&line.signal(SessionEvent::Answered { sdp })), ["answered"]);
    let over = line.signal(bye());
    assert_eq!(over.last().map(CallEvent::name), Some("ended"));
}

#[test]
fn what_the_far_end_decided_is_not_tried_again() {
    for (code, reason) in [(486, EndReason::Busy), (404, EndReason::NotFound), (603, EndReason::Rejected)] {
        let mut line = Line::dialled(again(&[1000]));
        let told = line.signal(rejected(code));
        assert!(matches!(told.last(), Some(CallEvent::Ended { reason: r, .. }) if *r == reason), "{told:?}");
    }
    let mut line = Line::dialled(again(&[1000]));
    line.signal(ring());
    let told = line.signal(rejected(503));
    assert_eq!(names(&told), ["attempt_failed", "ended"], "a telephone that has rung");
    let mut line = Line::dialled(again(&[1000]));
    line.signal(rejected(403));
    let told = line.signal(rejected(403));
    assert_eq!(names(&told), ["attempt_failed", "ended"], "forbidden by the last trunk");
}

#[test]
fn silence_is_given_its_ten_seconds_each_time() {
    let mut line = Line::dialled(again(&[1000]));
    let ((), steps) = {
        line.now = line.now.plus(PLACEMENT_CEILING);
        line.steps(Call::timeout)
    };
    assert!(steps.iter().any(|step| matches!(step, Step::HangUp(41))), "{steps:?}");
    assert_eq!(names(&events(steps)), ["attempt_failed"]);
    assert!(line.signal(rejected(487)).is_empty(), "the last words of the attempt that was given up");
    assert_eq!(dialled(&line.wait(MS(1000))), [("a-endpoint".to_owned(), 2)]);
    assert!(line.wait(PLACEMENT_CEILING - MS(1)).is_empty());
    assert_eq!(names(&line.wait(MS(1))), ["attempt_failed", "ended"]);
}

#[test]
fn who_hangs_up_meanwhile_ends_it() {
    let mut line = Line::dialled(again(&[1000]));
    line.signal(rejected(503));
    line.signal(rejected(503));
    let (answer, told) = line.ask(Command::HangUp { drain: false });
    assert_eq!((answer, names(&told)), (Ok(Accepted::Done), vec!["ended"]));
    assert!(line.wait(MS(5000)).is_empty());
}
