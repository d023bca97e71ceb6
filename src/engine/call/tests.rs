//! One call by hand: what is said to it, and exactly what it answers. No socket, no sound, no waiting.

mod hops;
mod offers;
mod quiet;
mod redial;
mod second;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::{BridgeId, Clip, Heard, PlaybackId, RecordingId};
use sip::{SessionEvent, Side, Termination, TerminationCause};

use super::*;
use crate::model::call::{Accepted, AmdStatus, Command, CommandError, GatherOrder, Surface};
use crate::model::event::GatherEnd;
use crate::model::purpose::Purpose;
use crate::model::trunk::TrunkProfile;
use crate::model::{CallId, PhoneNumber, Secret, Timestamp};

const ANSWER: &[u8] = b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n";

struct Line {
    call: Call,
    settings: Settings,
    gates: Gates,
    now: Now,
}

fn trunk(name: &str) -> TrunkPlan {
    TrunkPlan {
        endpoint: format!("{name}-endpoint"),
        host: "10.0.0.1".into(),
        port: None,
        hops: vec![call::Hop::udp((Ipv4Addr::new(10, 0, 0, 1), 5060).into())],
        username: String::new(),
        password: Secret::default(),
        dial_prefix: "00".into(),
        codecs: vec!["PCMU".into()],
        caller_id: None,
        no_response_timeout_ms: 2000,
        profile: Arc::default(),
    }
}

fn order(use_amd: bool) -> CallOrder {
    CallOrder {
        id: CallId(1),
        kaphila_id: "1800000000.1".into(),
        surface: Surface::Kaphila,
        purpose: Purpose::default(),
        key: 1,
        tenant: "default".into(),
        submitted_number: "14155550100".into(),
        to: PhoneNumber::parse_lenient("14155550100").unwrap(),
        from: None,
        trunks: vec![trunk("a"), trunk("b")],
        redials_ms: Vec::new(),
        ring_timeout_ms: 30_000,
        max_duration_ms: 600_000,
        use_amd,
        record: true,
        record_channels: media::Channels::Mono,
        voice_name: "alloy".into(),
        webhook_url: None,
        created_at: Timestamp(0),
    }
}

impl Line {
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn new(order: CallOrder) -> Self {
        let settings = Settings {
            sip_address: Ipv4Addr::new(10, 0, 0, 9).into(),
            sip_address_other: None,
            media_address: Ipv4Addr::new(10, 0, 0, 9).into(),
            media_address_other: None,
            local_nets: Vec::new(),
            rtp_bind: Ipv4Addr::new(10, 0, 0, 9).into(),
            rtp_ports: (10_000, 10_100),
            leg: media::LegSettings::default(),
            recordings: "rec".into(),
            playback_queue_max: 2,
            max_calls: 1,
            amd: media::AmdConfig::default(),
        };
        let now = Now { mono: Instant::now(), wall: Timestamp(1_800_000_000_000) };
        let call = Call::new(
            now,
            Arc::new(order),
            BridgeId(1),
            10_000,
            Seeds { sdp_session: 1, media: 1, keys: [1; 32] },
        );
        let mut line = Self { call, settings, gates: Gates::default(), now };
        line.events(Call::start);
        line
    }

    /// A call whose first INVITE is out.
    fn dialled(order: CallOrder) -> Self {
        let mut line = Self::new(order);
        assert_eq!(names(&line.hear(Heard::Opened { leg: CALLEE })), ["dialing"]);
        line
    }

    fn steps<T>(&mut self, work: impl FnOnce(&mut Call, &mut Ctx<'_>) -> T) -> (T, Vec<Step>) {
        let mut steps = VecDeque::new();
        let (settings, gates) = (&self.settings, &mut self.gates);
        let mut ctx = Ctx { now: self.now, settings, gates, steps: &mut steps };
        let answer = work(&mut self.call, &mut ctx);
        (answer, steps.into())
    }

    fn events(&mut self, work: impl FnOnce(&mut Call, &mut Ctx<'_>)) -> Vec<CallEvent> {
        events(self.steps(work).1)
    }

    fn signal(&mut self, event: SessionEvent) -> Vec<CallEvent> {
        self.events(|call, ctx| call.signalled(ctx, event))
    }

    fn hear(&mut self, heard: Heard) -> Vec<CallEvent> {
        self.events(|call, ctx| call.heard(ctx, heard))
    }

    fn press(&mut self, digit: char) -> Vec<CallEvent> {
        self.hear(Heard::Digit { leg: CALLEE, digit, source: media::DigitSource::Rfc4733 })
    }

    fn ask(&mut self, command: Command) -> (Result<Accepted, CommandError>, Vec<CallEvent>) {
        let (answer, steps) = self.steps(|call, ctx| call.command(ctx, command));
        (answer, events(steps))
    }

    fn wait(&mut self, by: Duration) -> Vec<CallEvent> {
        let until = self.now.mono + by;
        let mut all = Vec::new();
        while let Some(at) = self.call.deadline().filter(|at| *at <= until) {
            self.now = self.now.plus(at.saturating_duration_since(self.now.mono));
            all.extend(self.events(Call::timeout));
        }
        self.now = self.now.plus(until - self.now.mono);
        all
    }

    fn answered(order: CallOrder) -> Self {
        let mut line = Self::dialled(order);
        let sdp = Some(Bytes::from_static(ANSWER));
        line.signal(SessionEvent::Answered { sdp });
        line.hear(Heard::RecordingStarted { recording: RecordingId(0) });
        line.hear(Heard::FirstPacket { leg: CALLEE });
        line
    }
}

fn events(steps: Vec<Step>) -> Vec<CallEvent> {
    let event = |step| if let Step::Event(event) = step { Some(event) } else { None };
    steps.into_iter().filter_map(event).collect()
}

fn names(events: &[CallEvent]) -> Vec<&'static str> {
    events.iter().map(CallEvent::name).collect()
}

fn rejected(code: u16) -> SessionEvent {
    let cause = TerminationCause::Rejected { code, reason: "No".into() };
    SessionEvent::Terminated(Termination { by: Side::Them, cause, ..crate::engine::no_invite() })
}

fn bye() -> SessionEvent {
    let cause = TerminationCause::Bye;
    SessionEvent::Terminated(Termination { by: Side::Them, cause, ..crate::engine::no_invite() })
}

fn ring() -> SessionEvent {
    SessionEvent::Progress { code: 180, reason: "Ringing".into(), dialog: sip::EarlyId(0), sdp: None }
}

fn clip() -> Arc<Clip> {
    Arc::new(Clip::from_samples(vec![0i16; 800]))
}

fn say() -> Command {
    let (playback, text) = ("tts".to_owned(), Some("words".to_owned()));
    Command::Play { playback, clip: clip(), text, file: None, to: PlayTo::Bridge }
}

fn gather_order(num_digits: u8, replace: bool) -> GatherOrder {
    let (prompt, to) = (clip(), PlayTo::Bridge);
    GatherOrder { prompt, to, num_digits, timeout_ms: 10_000, finish_on_key: None, replace }
}

fn gather(num_digits: u8) -> Command {
    Command::Gather(gather_order(num_digits, false))
}

#[test]
fn a_port_that_is_taken_is_followed_by_another_and_only_so_many() {
    let mut line = Line::new(order(false));
    let taken = || Heard::Failed { leg: CALLEE, error: "address in use".into() };
    for _ in 1..PORTS_TRIED_MAX {
        let ((), steps) = line.steps(|call, ctx| call.heard(ctx, taken()));
        assert!(matches!(steps[..], [Step::NextPort]), "{steps:?}");
    }
    let told = line.hear(taken());
    assert_eq!(told, [CallEvent::Ended { reason: EndReason::TrunkFailure, q850: 41, sip_code: None }]);
}

#[test]
fn a_failed_trunk_is_followed_by_the_next_and_then_by_the_end() {
    let mut line = Line::dialled(order(false));
    assert_eq!(names(&line.signal(rejected(503))), ["attempt_failed", "dialing"]);
    let last = line.signal(rejected(500));
    assert_eq!(names(&last), ["attempt_failed", "ended"]);
    let end = CallEvent::Ended { reason: EndReason::TrunkFailure, q850: 41, sip_code: Some(500) };
    assert_eq!(last[1], end);
}

#[test]
fn busy_is_the_far_ends_word_and_no_second_trunk_is_tried() {
    let mut line = Line::dialled(order(false));
    let told = line.signal(rejected(486));
    assert_eq!(told[1], CallEvent::Ended { reason: EndReason::Busy, q850: 17, sip_code: Some(486) });
}

#[test]
fn a_trunk_that_fails_after_ringing_ends_the_call() {
    let mut line = Line::dialled(order(false));
    assert_eq!(names(&line.signal(ring())), ["ringing"]);
    assert_eq!(names(&line.signal(rejected(503))), ["attempt_failed", "ended"]);
}

#[test]
fn ringing_is_cancelled_at_the_ring_timeout() {
    let mut line = Line::dialled(order(false));
    line.signal(ring());
    assert_eq!(names(&line.wait(Duration::from_millis(29_999))), [""; 0]);
    let told = line.wait(Duration::from_millis(1));
    assert_eq!(told[1], CallEvent::Ended { reason: EndReason::NoAnswer, q850: 19, sip_code: None });
}

#[test]
fn a_trunk_that_only_tries_has_the_call_after_four_seconds() {
    let mut line = Line::dialled(order(false));
    line.signal(SessionEvent::Trying);
    assert_eq!(names(&line.wait(Duration::from_millis(3999))), [""; 0]);
    assert_eq!(names(&line.wait(Duration::from_millis(1))), ["proceeding"]);
}

#[test]
fn without_any_response_the_call_is_given_up_after_ten_seconds() {
    let mut line = Line::dialled(order(false));
    let told = line.wait(Duration::from_secs(10));
    assert_eq!(names(&told), ["attempt_failed", "ended"]);
}

#[test]
fn an_unusable_answer_ends_the_call_without_a_charge() {
    let mut line = Line::dialled(order(false));
    let told = line.signal(SessionEvent::Answered { sdp: Some(Bytes::from_static(b"v=0\r\nm=audio -1")) });
    assert_eq!(names(&told), ["attempt_failed", "ended"]);
}

#[test]
fn hanging_up_during_screening_is_told_as_unknown_before_the_end() {
    let mut line = Line::answered(order(true));
    let told = line.signal(bye());
    assert_eq!(names(&told), ["screened", "ended"]);
    let CallEvent::Screened(amd) = &told[0] else { panic!("{told:?}") };
    assert_eq!((amd.status, amd.cause.as_str()), (AmdStatus::Unknown, "HANGUP"));
    assert_eq!(told[1], CallEvent::Ended { reason: EndReason::NormalHangup, q850: 16, sip_code: None });
}

#[test]
fn screening_ends_by_itself_when_nothing_is_counted() {
    let mut line = Line::answered(order(true));
    assert_eq!(names(&line.wait(Duration::from_millis(5400))), ["screened"]);
}

#[test]
fn the_last_digit_is_progress_too_and_comes_before_completion() {
    let mut line = Line::answered(order(false));
    let (answer, told) = line.ask(gather(2));
    assert_eq!((answer, names(&told)), (Ok(Accepted::Done), vec!["gather_started"]));
    assert_eq!(names(&line.press('1')), ["digit", "gather_progress"]);
    assert_eq!(names(&line.press('2')), ["digit", "gather_progress", "gather_complete"]);
}

#[test]
fn a_gathers_time_starts_at_the_end_of_its_prompt() {
    let mut line = Line::answered(order(false));
    line.ask(gather(1)).0.unwrap();
    assert_eq!(names(&line.wait(Duration::from_secs(60))), [""; 0]);
    line.hear(Heard::PlaybackEnded { playback: PlaybackId(0), completed: true, played_ms: 100 });
    assert_eq!(names(&line.wait(Duration::from_millis(9999))), [""; 0]);
    let told = line.wait(Duration::from_millis(1));
    assert_eq!(told, [CallEvent::GatherTimeout { digits: String::new(), reason: GatherEnd::Timeout }]);
}

#[test]
fn a_second_gather_waits_for_no_one() {
    let mut line = Line::answered(order(false));
    line.ask(gather(1)).0.unwrap();
    assert_eq!(line.ask(gather(1)).0, Err(CommandError::GatherInProgress));
    let (answer, told) = line.ask(Command::Gather(gather_order(1, true)));
    assert_eq!((answer, names(&told)), (Ok(Accepted::Done), vec!["gather_timeout", "gather_started"]));
}

#[test]
fn everything_open_is_told_before_the_end() {
    let mut line = Line::answered(order(true));
    line.ask(say()).0.unwrap();
    line.ask(gather(1)).0.unwrap();
    assert_eq!(line.ask(say()).0, Err(CommandError::QueueFull));
    let (_, told) = line.ask(Command::HangUp { drain: false });
    assert_eq!(names(&told), ["screened", "gather_timeout", "played", "ended"]);
    assert_eq!(line.ask(say()).0, Err(CommandError::UnknownCall));
}

#[test]
fn a_drained_hang_up_waits_for_the_speech() {
    let mut line = Line::answered(order(false));
    line.ask(say()).0.unwrap();
    let (answer, told) = line.ask(Command::HangUp { drain: true });
    assert_eq!((answer, told.len()), (Ok(Accepted::Done), 0));
    let told = line.hear(Heard::PlaybackEnded { playback: PlaybackId(0), completed: true, played_ms: 100 });
    assert_eq!(names(&told), ["played", "ended"]);
}

#[test]
fn one_key_press_heard_twice_is_one_digit() {
    let mut line = Line::answered(order(false));
    assert_eq!(names(&line.press('5')), ["digit"]);
    let body = Bytes::from_static(b"Signal=5\r\nDuration=160\r\n");
    let info = SessionEvent::Info { content_type: "application/dtmf-relay".into(), body };
    assert_eq!(names(&line.signal(info.clone())), [""; 0]);
    line.wait(Duration::from_millis(300));
    assert_eq!(names(&line.signal(info)), ["digit"]);
    assert_eq!(names(&line.press('5')), [""; 0]);
}

#[test]
fn nothing_is_said_on_a_line_that_is_not_answered() {
    let mut line = Line::dialled(order(false));
    assert_eq!(line.ask(say()).0, Err(CommandError::NotAnswered));
    assert_eq!(line.ask(gather(1)).0, Err(CommandError::NotAnswered));
    assert_eq!(line.ask(Command::StopRecording).0, Err(CommandError::NoActiveRecording));
    let pause = Command::PauseRecording { on: true };
    assert_eq!(line.ask(pause).0, Err(CommandError::NoActiveRecording));
    let (_, told) = line.ask(Command::HangUp { drain: false });
    assert_eq!(told, [CallEvent::Ended { reason: EndReason::Canceled, q850: 16, sip_code: None }]);
}

#[test]
fn a_stopped_recording_is_finished_while_the_call_goes_on() {
    let mut line = Line::answered(order(false));
    let (answer, told) = line.ask(Command::StopRecording);
    assert!(matches!(answer, Ok(Accepted::RecordingStopped { .. })));
    assert_eq!(names(&told), ["recording_stopped"]);
    assert_eq!(line.ask(Command::StopRecording).0, Err(CommandError::NoActiveRecording));
    let heard = Heard::RecordingEnded {
        recording: RecordingId(0),
        bytes: 44,
        duration_ms: 0,
        degraded_ms: 0,
        sha256: [7; 32],
    };
    assert_eq!(names(&line.hear(heard)), ["recording_completed"]);
    assert!(line.call.live());
}

#[test]
fn a_recording_is_paused_once_and_the_media_before_it_is_told() {
    let mut line = Line::answered(CallOrder { record_channels: media::Channels::Stereo, ..order(false) });
    for (on, told) in [(true, "recording_paused"), (false, "recording_resumed"), (true, "recording_paused")] {
        let (answer, events) = line.ask(Command::PauseRecording { on });
        assert!(matches!(answer, Ok(Accepted::RecordingPaused { .. })));
        assert_eq!(names(&events), [told]);
        assert_eq!(names(&line.ask(Command::PauseRecording { on }).1), [""; 0], "what is so stays so");
    }
    assert!(line.ask(Command::StopRecording).0.is_ok());
    let again = line.ask(Command::PauseRecording { on: false });
    assert_eq!((again.0, names(&again.1)), (Err(CommandError::NoActiveRecording), vec![]));
}

#[test]
fn a_call_is_forgotten_when_its_media_is_closed_and_its_file_whole() {
    let mut line = Line::answered(order(false));
    line.signal(bye());
    line.hear(Heard::Closed { stats: Vec::new() });
    assert!(!line.call.finished());
    let heard = Heard::RecordingEnded {
        recording: RecordingId(0),
        bytes: 44,
        duration_ms: 0,
        degraded_ms: 0,
        sha256: [7; 32],
    };
    assert_eq!(names(&line.hear(heard)), ["recording_completed"]);
    assert!(line.call.finished());
}

#[test]
fn a_recorder_that_never_reports_is_told_as_failed() {
    let mut line = Line::answered(order(false));
    line.signal(bye());
    assert_eq!(names(&line.wait(Duration::from_secs(120))), ["recording_failed"]);
    assert!(line.call.finished());
}

#[test]
fn a_session_that_nobody_refreshed_is_a_trunk_failure() {
    let mut line = Line::answered(order(false));
    let end =
        Termination { by: Side::Nobody, cause: TerminationCause::Expired, ..crate::engine::no_invite() };
    let told = line.signal(SessionEvent::Terminated(end));
    let ended = CallEvent::Ended { reason: EndReason::TrunkFailure, q850: 41, sip_code: None };
    assert_eq!(told.last(), Some(&ended));
}

#[test]
fn the_longest_call_ends_with_cause_102() {
    let mut line = Line::answered(order(false));
    let told = line.wait(Duration::from_secs(600));
    assert_eq!(told, [CallEvent::Ended { reason: EndReason::MaxDuration, q850: 102, sip_code: None }]);
}

/// An order whose first trunk has this profile.
fn order_with(profile: TrunkProfile) -> CallOrder {
    let mut order = order(false);
    order.trunks[0].profile = Arc::new(profile);
    order
}

fn redirected(contact: &str) -> SessionEvent {
    SessionEvent::Terminated(Termination {
        by: Side::Them,
        cause: TerminationCause::Redirected { code: 302, contacts: vec![contact.parse().unwrap()] },
        q850: None,
        retry_after: None,
        headers: Vec::new(),
    })
}

#[test]
fn a_trunk_at_its_limit_is_passed_over_and_its_place_comes_back() {
    let one = TrunkProfile { max_calls: 1, ..TrunkProfile::default() };
    let mut line = Line::dialled(order_with(one.clone()));
    let plan = line.call.order.trunks[0].clone();
    assert!(line.gates.enter(line.now.mono, &plan).is_err());
    line.ask(Command::HangUp { drain: false }).0.unwrap();
    assert!(line.gates.enter(line.now.mono, &plan).is_ok());

    // The only place of the first is taken: it is never dialled, and the attempt by the second is the first.
    let mut line = Line::new(order_with(one));
    line.gates.enter(line.now.mono, &plan).unwrap();
    let events = line.hear(Heard::Opened { leg: CALLEE });
    let reason = "its calls are all in use".to_owned();
    let passed = CallEvent::PassedOver { trunk: "a-endpoint".into(), reason };
    assert_eq!(events, [passed, CallEvent::Dialing { trunk: "b-endpoint".into(), attempt: 1 }]);
}

#[test]
fn a_redirect_is_followed_to_the_trunks_own_networks_alone() {
    let source_cidrs = vec!["10.0.7.0/24".into()];
    let own = TrunkProfile { allow_redirects: true, source_cidrs, ..TrunkProfile::default() };
    let mut line = Line::dialled(order_with(own));
    for _ in 0..5 {
        assert!(line.signal(redirected("sip:gw@10.0.7.9:5070")).is_empty());
        assert_eq!(line.call.redirect().unwrap().to_string(), "sip:gw@10.0.7.9:5070");
    }
    assert_eq!(names(&line.signal(redirected("sip:gw@10.0.7.9:5070"))), ["attempt_failed", "dialing"]);
    assert!(line.call.redirect().is_none());
    for (allowed, contact) in
        [(true, "sip:900@203.0.113.9"), (true, "sip:x@name.example"), (false, "sip:x@10.0.0.1")]
    {
        let profile = TrunkProfile { allow_redirects: allowed, ..TrunkProfile::default() };
        let mut line = Line::dialled(order_with(profile));
        assert_eq!(names(&line.signal(redirected(contact))), ["attempt_failed", "dialing"], "{contact}");
    }
}

#[test]
fn digits_are_heard_as_the_trunk_sends_them() {
    use media::DigitSource as Source;
    for (dtmf, heard) in [
        (Dtmf::Auto, [true, true, true]),
        (Dtmf::Rfc4733, [true, false, false]),
        (Dtmf::Inband, [false, true, false]),
        (Dtmf::Info, [false, false, true]),
    ] {
        let mut line = Line::dialled(order_with(TrunkProfile { dtmf, ..TrunkProfile::default() }));
        let offered = line.call.offer_config().telephone_event;
        assert_eq!(offered, matches!(dtmf, Dtmf::Auto | Dtmf::Rfc4733), "{dtmf:?}");
        line.signal(SessionEvent::Answered { sdp: Some(Bytes::from_static(ANSWER)) });
        for (source, heard) in [Source::Rfc4733, Source::Inband, Source::Info].into_iter().zip(heard) {
            line.now = line.now.plus(Duration::from_secs(1));
            let events = line.hear(Heard::Digit { leg: CALLEE, digit: '5', source });
            assert_eq!(!events.is_empty(), heard, "{dtmf:?} {source:?}");
        }
    }
}
