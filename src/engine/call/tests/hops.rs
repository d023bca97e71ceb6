//! The several ways of one trunk (RFC 3263 §4.3): the next is tried where one is down, and to all above it is still the same
//! attempt.

use super::*;

/// An order whose first trunk has three ways.
fn three_ways() -> CallOrder {
    let mut order = order(false);
    let hop = |last: u8| call::Hop::udp((Ipv4Addr::new(10, 0, 0, last), 5060).into());
    order.trunks[0].hops = (1..=3).map(hop).collect();
    order
}

fn ended_by(cause: TerminationCause) -> SessionEvent {
    SessionEvent::Terminated(Termination { by: Side::Nobody, cause, ..crate::engine::no_invite() })
}

/// The trunk and the way of an INVITE that goes out, if one does, and what is told.
fn next(line: &mut Line, event: SessionEvent) -> (Option<(usize, usize)>, Vec<&'static str>) {
    let ((), steps) = line.steps(|call, ctx| call.signalled(ctx, event));
    let invite = |step: &Step| if let Step::Invite(trunk, _) = step { Some(*trunk) } else { None };
    let trunk = steps.iter().find_map(invite);
    (trunk.map(|trunk| (trunk, line.call.hop())), names(&events(steps)))
}

#[test]
fn the_ways_of_a_trunk_are_tried_before_the_next_trunk_and_nothing_is_told_of_them() {
    for down in [
        || rejected(503),
        || ended_by(TerminationCause::NoResponse),
        || ended_by(TerminationCause::TimedOut),
        || ended_by(TerminationCause::Transport),
    ] {
        let mut line = Line::dialled(three_ways());
        assert_eq!(line.call.hop(), 0);
        assert_eq!(next(&mut line, down()), (Some((0, 1)), vec![]));
        assert_eq!(next(&mut line, down()), (Some((0, 2)), vec![]));
        assert_eq!(next(&mut line, down()), (Some((1, 0)), vec!["attempt_failed", "dialing"]));
        assert_eq!(next(&mut line, down()), (None, vec!["attempt_failed", "ended"]));
    }
}

#[test]
fn a_way_that_works_has_the_last_word() {
    for (code, told) in [(486, ["attempt_failed", "ended"]), (404, ["attempt_failed", "ended"])] {
        let mut line = Line::dialled(three_ways());
        assert_eq!(next(&mut line, rejected(code)), (None, told.to_vec()), "{code}");
    }
    // What another status says, it says of the trunk and not of the way.
    let mut line = Line::dialled(three_ways());
    assert_eq!(next(&mut line, rejected(500)), (Some((1, 0)), vec!["attempt_failed", "dialing"]));
    // Somebody's telephone has rung: it must not ring twice.
    let mut line = Line::dialled(three_ways());
    line.signal(ring());
    assert_eq!(next(&mut line, rejected(503)), (None, vec!["attempt_failed", "ended"]));
}

#[test]
fn a_trunk_keeps_its_one_place_while_its_ways_are_tried() {
    let mut order = three_ways();
    order.trunks[0].profile = Arc::new(TrunkProfile { max_calls: 1, ..TrunkProfile::default() });
    let plan = order.trunks[0].clone();
    let mut line = Line::dialled(order);
    assert_eq!(next(&mut line, rejected(503)), (Some((0, 1)), vec![]));
    assert!(!line.gates.has_room(line.now.mono, &plan));
    line.ask(Command::HangUp { drain: false }).0.unwrap();
    assert!(line.gates.has_room(line.now.mono, &plan));
}
