//! The bytes of every webhook, fact by fact, and the table of retries.

use std::sync::Arc;

use super::*;
use crate::model::call::{Amd as Verdict, AmdStatus, CallOrder, EndReason, Surface};
use crate::model::event::{Checksum, DigitSource, Fault, GatherEnd, PlayTo, RecordingSize};
use crate::model::purpose::Purpose;
use crate::model::{CallId, PhoneNumber, Timestamp};

const T0: Timestamp = Timestamp(1_771_322_520_000);
const RECORDING: &str = "call-1720012345.88-1739781234567";

fn order(use_amd: bool) -> CallOrder {
    CallOrder {
        id: CallId(1),
        kaphila_id: "1720012345.88".into(),
        surface: Surface::Kaphila,
        purpose: Purpose::default(),
        key: 1,
        tenant: "default".into(),
        submitted_number: "+1 415 555 0100".into(),
        to: PhoneNumber::parse_lenient("14155550100").unwrap(),
        from: None,
        trunks: Vec::new(),
        redials_ms: Vec::new(),
        ring_timeout_ms: 30_000,
        max_duration_ms: 3_600_000,
        use_amd,
        record: true,
        record_channels: media::Channels::Mono,
        voice_name: "en-US-Neural2-A".into(),
        webhook_url: Some("https://example.com/hook".into()),
        created_at: T0,
    }
}

/// Folds the events in, a second apart, and gives what the last of them is told as.
fn told(use_amd: bool, events: Vec<CallEvent>) -> Option<(&'static str, String)> {
    let mut view = CallView::new(Arc::new(order(use_amd)));
    let mut last = None;
    for (n, event) in events.into_iter().enumerate() {
        let at = T0.plus_ms(1000 * i64::try_from(n).unwrap());
        view.apply(at, &event);
        last = Some(Stamped { call: CallId(1), at, event });
    }
    let rendered = Kaphila.render(&last.unwrap(), &view, 3).pop()?;
    Some((rendered.event, String::from_utf8(rendered.body).unwrap()))
}

fn assert_told(use_amd: bool, events: Vec<CallEvent>, name: &str, second: u32, status: &str, more: &str) {
    let (event, body) = told(use_amd, events).unwrap();
    let expected = format!(
        "{{\"callId\":\"1720012345.88\",\"timestamp\":\"2026-02-17T10:02:{second:02}.000Z\",\"event\":\"{name}\",\
         \"status\":\"{status}\",\"number\":\"+1 415 555 0100\",\"sequence\":3,{more}}}"
    );
    assert_eq!((event, body), (name, expected));
}

fn dialing(attempt: u8) -> CallEvent {
    CallEvent::Dialing { trunk: "mycarrier-endpoint".into(), attempt }
}

fn verdict() -> CallEvent {
    let (status, cause) = (AmdStatus::Human, "HUMAN".into());
    CallEvent::Screened(Verdict { status, cause, confidence: 0.9 })
}

fn ended(reason: EndReason, q850: u16) -> CallEvent {
    CallEvent::Ended { reason, q850, sip_code: None }
}

#[test]
fn a_call_is_initiated_once() {
    let trunk = r#""trunk":"mycarrier-endpoint""#;
    assert_told(false, vec![dialing(1)], "call.initiated", 0, "ringing", trunk);
    assert_eq!(told(false, vec![dialing(1), dialing(2)]), None);
}

#[test]
fn a_call_that_comes_in_is_told_first() {
    let purpose = Purpose { direction: Direction::Inbound, ..Purpose::default() };
    let mut view = CallView::new(Arc::new(CallOrder { purpose, ..order(false) }));
    let mut tell = |second: i64, event: CallEvent| {
        let at = T0.plus_ms(1000 * second);
        view.apply(at, &event);
        let mut rendered = Kaphila.render(&Stamped { call: CallId(1), at, event }, &view, 1);
        String::from_utf8(rendered.pop().unwrap().body).unwrap()
    };
    let incoming = tell(0, CallEvent::Queued);
    let expected = r#""event":"call.incoming","status":"ringing","number":"+1 415 555 0100","sequence":1,"direction":"inbound","from":"+1 415 555 0100","to":"+14155550100","trunk":null}"#;
    assert!(incoming.ends_with(expected), "{incoming}");
    assert!(tell(1, CallEvent::Answered).contains(r#""event":"call.answered","status":"answered""#));
    assert!(tell(3, ended(EndReason::NormalHangup, 16)).ends_with(r#""callDuration":2}"#));
}

#[test]
fn an_answer_waits_for_the_verdict_where_one_is_asked_for() {
    let none = r#""amd":{"status":"NOAMD","cause":null,"confidence":null}"#;
    assert_told(false, vec![dialing(1), CallEvent::Answered], "call.answered", 1, "answered", none);
    assert_eq!(told(false, vec![dialing(1), CallEvent::Answered, verdict()]), None);
    assert_eq!(told(true, vec![dialing(1), CallEvent::Answered]), None);
    let human = r#""amd":{"status":"HUMAN","cause":"HUMAN","confidence":0.9}"#;
    let events = vec![dialing(1), CallEvent::Answered, verdict()];
    assert_told(true, events, "call.answered", 2, "answered", human);
}

#[test]
fn recordings_are_told_from_start_to_file() {
    let recording = || RECORDING.to_owned();
    let size = RecordingSize { bytes: 114_320, duration_ms: 7_142 };
    let object = |active| {
        format!(
            "\"recording\":{{\"active\":{active},\"filename\":\"{RECORDING}.wav\",\"recordingId\":\"{RECORDING}\",\
             \"method\":\"bridge\"}}"
        )
    };
    let started = CallEvent::RecordingStarted { recording: recording() };
    let events = vec![CallEvent::Answered, started.clone()];
    assert_told(false, events, "recording.started", 1, "answered", &object(true));
    let stopped = CallEvent::RecordingStopped { recording: recording() };
    let events = vec![CallEvent::Answered, started.clone(), stopped];
    assert_told(false, events, "recording.stopped", 2, "answered", &object(false));
    let paused = CallEvent::RecordingPaused { recording: recording() };
    let events = vec![CallEvent::Answered, started.clone(), paused.clone()];
    let more = object(true).replace("\"bridge\"", "\"bridge\",\"paused\":true");
    assert_told(false, events.clone(), "recording.paused", 2, "answered", &more);
    let events = [events, vec![CallEvent::RecordingResumed { recording: recording() }]].concat();
    assert_told(false, events, "recording.resumed", 3, "answered", &object(true));
    let (sha256, sum) = (Checksum([7; 32]), "07".repeat(32));
    let completed = CallEvent::RecordingCompleted { recording: recording(), size: size.clone(), sha256 };
    let events = vec![CallEvent::Answered, started.clone(), ended(EndReason::NormalHangup, 16), completed];
    let whole = object(false).replace("\"bridge\"", &format!("\"bridge\",\"sha256\":\"{sum}\""));
    let more = format!("{whole},\"size\":114320,\"duration\":7");
    assert_told(false, events, "recording.completed", 3, "completed", &more);
    let failed = CallEvent::RecordingFailed { recording: recording(), reason: "disk_full".into(), size };
    let why = "\"reason\":\"disk_full\",\"error\":\"Recording could not be kept\"";
    let more = format!("{},\"size\":114320,\"duration\":7,{why}", object(false));
    assert_told(false, vec![CallEvent::Answered, started, failed], "recording.failed", 2, "answered", &more);
}

#[test]
fn digits_are_told_alone_and_in_a_gather() {
    let digit = CallEvent::Digit { digit: '#', source: DigitSource::Rfc4733 };
    assert_told(false, vec![CallEvent::Answered, digit], "dtmf.received", 1, "answered", r##""digit":"#""##);
    let started = CallEvent::GatherStarted { expected: 4, timeout_ms: 12_000 };
    let events = vec![CallEvent::Answered, started];
    assert_told(false, events, "gather.started", 1, "answered", r#""expectedDigits":4,"timeoutMs":12000"#);
    let progress = CallEvent::GatherProgress { digits: "12".into(), digit: '2', remaining: 2 };
    let more = r#""digits":"12","digit":"2","remaining":2"#;
    assert_told(false, vec![CallEvent::Answered, progress], "gather.progress", 1, "answered", more);
    let complete = CallEvent::GatherComplete { digits: "1234".into() };
    assert_told(
        false,
        vec![CallEvent::Answered, complete],
        "gather.complete",
        1,
        "answered",
        r#""digits":"1234""#,
    );
    for (reason, word) in
        [(GatherEnd::Timeout, "timeout"), (GatherEnd::Hangup, "hangup"), (GatherEnd::Replaced, "replaced")]
    {
        let over = CallEvent::GatherTimeout { digits: "12".into(), reason };
        let more = format!("\"digits\":\"12\",\"reason\":\"{word}\"");
        assert_told(false, vec![CallEvent::Answered, over], "gather.timeout", 1, "answered", &more);
    }
}

#[test]
fn only_speech_is_told_as_played() {
    let played = |text: Option<&str>, file: Option<&str>| CallEvent::Played {
        playback: "tts-1720012345.88-1739781234567".into(),
        text: text.map(str::to_owned),
        file: file.map(str::to_owned),
        to: PlayTo::Channel,
        completed: false,
    };
    let more = r#""playbackId":"tts-1720012345.88-1739781234567","text":"a \"b\"","method":"channel","completed":false"#;
    let events = vec![CallEvent::Answered, played(Some("a \"b\""), None)];
    assert_told(false, events, "tts.played", 1, "answered", more);
    assert_eq!(told(false, vec![CallEvent::Answered, played(None, Some("custom/welcome"))]), None);
    assert_eq!(told(false, vec![CallEvent::Answered, played(None, None)]), None);
}

#[test]
fn an_answered_call_ends_with_all_its_fields() {
    let events = vec![
        dialing(1),
        CallEvent::Answered,
        CallEvent::RecordingStarted { recording: RECORDING.into() },
        verdict(),
        ended(EndReason::NormalHangup, 16),
    ];
    let more = r#""endReason":"normal_hangup","hangupCause":"16","wasAnswered":true,"amd":{"status":"HUMAN","cause":"HUMAN","confidence":0.9},"recording":{"active":false,"filename":"call-1720012345.88-1739781234567.wav","recordingId":"call-1720012345.88-1739781234567","method":"bridge"},"callDuration":3"#;
    assert_told(true, events, "call.ended", 4, "completed", more);
}

#[test]
fn an_unanswered_call_ends_with_its_reason() {
    let none = r#""wasAnswered":false,"amd":{"status":"NOAMD","cause":null,"confidence":null},"recording":null,"callDuration":0"#;
    for (reason, q850, status) in [
        (EndReason::Busy, 17, "busy"),
        (EndReason::NoAnswer, 19, "no_answer"),
        (EndReason::Rejected, 21, "failed"),
        (EndReason::NotFound, 1, "failed"),
        (EndReason::TrunkFailure, 41, "failed"),
        (EndReason::Canceled, 16, "canceled"),
    ] {
        for use_amd in [false, true] {
            let more = format!("\"endReason\":\"{}\",\"hangupCause\":\"{q850}\",{none}", reason.as_str());
            assert_told(use_amd, vec![dialing(1), ended(reason, q850)], "call.ended", 1, status, &more);
        }
    }
}

#[test]
fn a_call_that_was_never_dialled_ends_in_silence() {
    assert_eq!(told(false, vec![CallEvent::Queued, ended(EndReason::TrunkFailure, 41)]), None);
    let crashed = vec![CallEvent::Queued, ended(EndReason::EngineRestart, 41)];
    assert_eq!(told(false, crashed).unwrap().0, "call.ended");
}

#[test]
fn a_crash_makes_an_answered_call_failed() {
    let crashed = vec![dialing(1), CallEvent::Answered, ended(EndReason::EngineRestart, 41)];
    let more = r#""endReason":"engine_restart","hangupCause":"41","wasAnswered":true,"amd":{"status":"UNKNOWN","cause":"HANGUP","confidence":0.0},"recording":null,"callDuration":1"#;
    assert_told(true, crashed, "call.ended", 2, "failed", more);
}

#[test]
fn other_facts_are_not_told() {
    for event in [CallEvent::Queued, CallEvent::Proceeding, CallEvent::Ringing] {
        assert_eq!(told(false, vec![event]), None);
    }
    let failed = CallEvent::AttemptFailed {
        trunk: "a".into(),
        code: 503,
        reason: String::new(),
        elapsed_ms: 1,
        retry_after_s: None,
        fault: Fault::Trunk,
    };
    assert_eq!(told(false, vec![dialing(1), failed]), None);
}

#[test]
fn retries_follow_the_table() {
    let answered = |status| Outcome::Answered { status, retry_after: None };
    let delays = |event: &str, outcome: Outcome| -> Vec<u64> {
        let delay = |failures| Kaphila.retry_after(event, failures, &outcome).map(|d| d.as_secs());
        (1..9).map_while(delay).collect()
    };
    for event in ["call.ended", "recording.completed", "recording.stopped"] {
        assert!(Kaphila.terminal(event));
        for outcome in [answered(500), answered(302), answered(404), Outcome::TimedOut, Outcome::Unreachable]
        {
            assert_eq!(delays(event, outcome), [30, 300, 1800, 7200], "{event} {outcome:?}");
        }
        assert_eq!(delays(event, answered(410)), [0; 0]);
    }
    for event in ["call.initiated", "call.answered", "gather.complete", "dtmf.received", "tts.played"] {
        assert!(!Kaphila.terminal(event));
        for outcome in [answered(429), answered(502), answered(503), answered(504), Outcome::Unreachable] {
            assert_eq!(delays(event, outcome), [1, 3, 10], "{event} {outcome:?}");
        }
        for outcome in [answered(500), answered(404), answered(410), Outcome::TimedOut, Outcome::Broken] {
            assert_eq!(delays(event, outcome), [0; 0], "{event} {outcome:?}");
        }
    }
    assert_eq!(Kaphila.retry_after("call.ended", 0, &answered(500)), None);
    assert_eq!(Kaphila.timeout(), Duration::from_millis(5000));
    assert_eq!(Kaphila.user_agent(), "Kaphila-API-API/2.0");
}
