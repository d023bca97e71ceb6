//! Calls that are put through to a second party, and calls that somebody attends.

use super::*;
use crate::engine::call::second::{SecondStep, TARGET};
use crate::model::call::{Overheard, TransferOrder};

fn transfer() -> Command {
    Command::Transfer(Box::new(TransferOrder {
        to: PhoneNumber::parse_lenient("14155550199").unwrap(),
        from: None,
        trunks: vec![trunk("a"), trunk("b")],
        ring_timeout_ms: 20_000,
    }))
}

impl Line {
    fn second(&mut self, event: SessionEvent) -> Vec<Step> {
        self.steps(|call, ctx| call.second_signalled(ctx, event)).1
    }

    /// A call whose second party is being dialled.
    fn transferring() -> Self {
        let mut line = Self::answered(order(false));
        let (answer, steps) = line.steps(|call, ctx| call.command(ctx, transfer()));
        assert!(
            answer.is_ok() && matches!(steps.as_slice(), [Step::Event(_), Step::Second(SecondStep::Open)])
        );
        line.call.second_port = Some(10_002);
        let steps = line.steps(|call, ctx| call.heard(ctx, Heard::Opened { leg: TARGET })).1;
        assert!(matches!(steps.as_slice(), [Step::Second(SecondStep::Invite(0, 0, _))]), "{steps:?}");
        line
    }
}

fn answer() -> SessionEvent {
    SessionEvent::Answered { sdp: Some(Bytes::from_static(ANSWER)) }
}

#[test]
fn both_hear_each_other_and_either_ends_the_call() {
    for far_end in [true, false] {
        let mut line = Line::transferring();
        line.second(ring());
        let steps = line.second(answer());
        let cut =
            |step: &Step| matches!(step, Step::Media(media::Command::StopPlayback { playback: None, .. }));
        let joined =
            |step: &Step| matches!(step, Step::Media(media::Command::Connect { leg, .. }) if *leg == TARGET);
        assert!(steps.iter().any(cut) && steps.iter().any(joined), "{steps:?}");
        assert_eq!(names(&events(steps)), ["transferred"]);
        assert_eq!(line.ask(transfer()).0, Err(CommandError::Transferring));
        let told = if far_end { line.signal(bye()) } else { events(line.second(bye())) };
        let ends = told.iter().filter(|event| matches!(event, CallEvent::Ended { .. })).count();
        let reason = told
            .iter()
            .any(|event| matches!(event, CallEvent::Ended { reason: EndReason::NormalHangup, q850: 16, .. }));
        assert!(ends == 1 && reason, "{told:?}");
    }
}

#[test]
fn a_second_party_that_is_not_there_leaves_the_call_as_it_was() {
    let mut line = Line::transferring();
    let steps = line.second(rejected(503));
    assert!(matches!(steps.as_slice(), [Step::Second(SecondStep::Invite(1, 0, _))]), "{steps:?}");
    let told = events(line.second(rejected(486)));
    assert!(matches!(told.as_slice(), [CallEvent::TransferFailed { code: 486, .. }]), "{told:?}");
    assert!(line.call.live());
    // The leg is open already: the next one is dialled at once.
    let steps = line.steps(|call, ctx| call.command(ctx, transfer())).1;
    assert!(
        matches!(steps.as_slice(), [Step::Event(_), Step::Second(SecondStep::Invite(0, 0, _))]),
        "{steps:?}"
    );
    let told = line.wait(Duration::from_secs(20));
    assert!(matches!(told.as_slice(), [CallEvent::TransferFailed { code: 0, .. }]), "{told:?}");
    assert_eq!(line.gates.enter(line.now.mono, &trunk("b")), Ok(()));
}

#[test]
fn a_call_that_ends_takes_its_second_party_along() {
    let mut line = Line::transferring();
    let steps = line.steps(|call, ctx| call.signalled(ctx, bye())).1;
    let hung_up = |step: &Step| matches!(step, Step::Second(SecondStep::HangUp(_)));
    assert!(steps.iter().any(hung_up), "{steps:?}");
    assert!(!names(&events(steps)).contains(&"transfer_failed"));
}

#[test]
fn a_second_leg_that_cannot_be_opened_is_a_transfer_that_failed() {
    let mut line = Line::answered(order(false));
    assert_eq!(line.ask(transfer()).0, Ok(Accepted::Done));
    let told = line.hear(Heard::Failed { leg: TARGET, error: "in use".into() });
    assert_eq!(names(&told), ["transfer_failed"]);
    assert!(line.call.live());
}

#[test]
fn a_second_party_is_dialled_by_the_ways_of_a_trunk_in_turn() {
    let mut line = Line::answered(order(false));
    let Command::Transfer(mut order) = transfer() else { unreachable!() };
    let hop = |last: u8| call::Hop::udp((Ipv4Addr::new(10, 0, 0, last), 5060).into());
    order.trunks[0].hops = vec![hop(1), hop(2)];
    line.ask(Command::Transfer(order)).0.unwrap();
    line.steps(|call, ctx| call.heard(ctx, Heard::Opened { leg: TARGET }));
    let steps = line.second(rejected(503));
    assert!(matches!(steps.as_slice(), [Step::Second(SecondStep::Invite(0, 1, _))]), "{steps:?}");
    let steps = line.second(rejected(503));
    assert!(matches!(steps.as_slice(), [Step::Second(SecondStep::Invite(1, 0, _))]), "{steps:?}");
}

fn overheard(steps: Vec<Step>) -> Vec<Overheard> {
    let what = |step| if let Step::Overheard(what) = step { Some(what) } else { None };
    steps.into_iter().filter_map(what).collect()
}

/// Whether the line is left as it is without anybody: nothing is held, nobody listens.
fn is_left_open(steps: &[Step]) -> bool {
    let has = |wanted: fn(&media::Command) -> bool| {
        steps.iter().any(|step| matches!(step, Step::Media(command) if wanted(command)))
    };
    has(|command| matches!(command, media::Command::PausePlayback { on: false, .. }))
        && has(|command| matches!(command, media::Command::Listen { tap: None, .. }))
        && has(|command| matches!(command, media::Command::ListenTalk { on: false, .. }))
}

#[test]
fn whoever_attends_is_told_of_a_transfer_and_leaves_nothing_behind() {
    let mut line = Line::transferring();
    line.ask(Command::Attend { on: true }).0.unwrap();
    line.second(rejected(500));
    assert_eq!(overheard(line.second(rejected(486))), [Overheard::TransferFailed]);
    let steps = line.steps(|call, ctx| call.command(ctx, Command::Attend { on: false })).1;
    assert!(is_left_open(&steps), "{steps:?}");

    let mut line = Line::transferring();
    line.ask(Command::Attend { on: true }).0.unwrap();
    let steps = line.second(answer());
    assert!(is_left_open(&steps), "{steps:?}");
    assert_eq!(overheard(steps), [Overheard::Transferred]);
    assert_eq!(line.ask(Command::Attend { on: true }).0, Err(CommandError::Transferring));
}

#[test]
fn whoever_attends_hears_the_line_and_speaks_in_the_calls_place() {
    let mut line = Line::dialled(order(false));
    assert_eq!(line.ask(Command::Attend { on: true }).0, Ok(Accepted::Done));
    let steps = line.steps(|call, ctx| call.signalled(ctx, answer())).1;
    assert_eq!(overheard(steps), [Overheard::Answered]);
    let opening =
        call::Opening { playback: "x".into(), clip: clip(), text: None, file: None, then: call::Then::Stay };
    let (answer, steps) = line.steps(|call, ctx| call.command(ctx, Command::Open(opening)));
    assert!(answer.is_ok() && steps.is_empty(), "the call says nothing by itself: {steps:?}");
    let press = Heard::Digit { leg: CALLEE, digit: '5', source: media::DigitSource::Rfc4733 };
    assert_eq!(overheard(line.steps(|call, ctx| call.heard(ctx, press)).1), [Overheard::Digit('5')]);
    let talk = Heard::Talk { leg: CALLEE, change: media::TalkChange::Started };
    let heard = overheard(line.steps(|call, ctx| call.heard(ctx, talk)).1);
    assert_eq!(heard, [Overheard::Talk { on: true }]);
    line.ask(Command::Attend { on: false }).0.unwrap();
    let press = Heard::Digit { leg: CALLEE, digit: '6', source: media::DigitSource::Rfc4733 };
    assert!(overheard(line.steps(|call, ctx| call.heard(ctx, press)).1).is_empty());
}
