//! Every bound of Kaphila's bodies, one case at a time.

use super::*;
use crate::api::fields::documented_as_read;

fn webhooks() -> Webhooks {
    Webhooks::default()
}

fn error_of<T: std::fmt::Debug>(read: Result<T, Fault>) -> String {
    match read {
        Err(Fault::Bad(text)) => text,
        other => panic!("{other:?} is no refusal of a field"),
    }
}

fn place_error(body: &str) -> String {
    error_of(place(body.as_bytes(), &webhooks()))
}

#[test]
fn a_number_is_all_a_call_needs() {
    let call = place(br#"{"number":"14155550100","other":[1],"callerId":null}"#, &webhooks()).unwrap();
    let expected = PlaceCall {
        submitted_number: "14155550100".into(),
        to: PhoneNumber::parse_lenient("14155550100").unwrap(),
        caller_id: None,
        webhook_url: None,
        use_amd: false,
        voice_name: "en-US-Neural2-A".into(),
        ring_timeout_s: 30,
        surface: Surface::Kaphila,
        max_duration_s: None,
        record: Record::AsKey(None),
        record_channels: media::Channels::Mono,
        purpose: Purpose::default(),
        script: None,
    };
    assert_eq!(PlaceCall::from(call), expected);
}

#[test]
fn every_field_of_a_call_is_read() {
    let body = r#"{"number":"+1 (415) 555-0100","webhookUrl":"https://example.com/hooks/calls","callerId":"+19172452367",
        "useAmd":true,"voiceName":"x","ringTimeout":120,"record":false}"#;
    let call = place(body.as_bytes(), &webhooks()).unwrap();
    assert_eq!(call.number, "+1 (415) 555-0100");
    assert_eq!(call.to.digits(), "14155550100");
    assert_eq!(call.caller_id, Some(CallerId::Number("+19172452367".into())));
    assert_eq!(call.webhook_url.as_deref(), Some("https://example.com/hooks/calls"));
    assert_eq!((call.use_amd, call.ring_timeout, call.record), (true, 120, Some(false)));
}

#[test]
fn a_bad_number_is_named() {
    for body in ["{}", r#"{"number":null}"#, r#"{"number":""}"#] {
        assert_eq!(place_error(body), "number is required");
    }
    assert_eq!(place_error(r#"{"number":14155550100}"#), "number must be a string");
    let long = format!("1415555{}0100", " ".repeat(60));
    for number in [
        "abc",
        "12",
        "1234567890123456",
        "1415@h",
        "1415\\r\\n5550100",
        "1415\\u00005550",
        "٠١٢٣٤",
        "１２３４５",
        "\u{200f}14155550100",
        "1415555😀0100",
        long.as_str(),
    ] {
        assert_eq!(
            place_error(&format!("{{\"number\":\"{number}\"}}")),
            "Invalid phone number format",
            "{number}"
        );
    }
}

#[test]
fn bad_options_of_a_call_are_named() {
    for (member, error) in [
        (r#""webhookUrl":"ftp://x""#, "webhookUrl must be an https URL"),
        (r#""webhookUrl":"not a url""#, "webhookUrl must be an https URL"),
        (r#""webhookUrl":"""#, "webhookUrl must be an https URL"),
        (r#""webhookUrl":"https://u:p@h/""#, "webhookUrl must be an https URL"),
        (r#""webhookUrl":"http://example.com/""#, "webhookUrl must be an https URL"),
        (r#""webhookUrl":"https://127.0.0.1/""#, "webhookUrl must be an https URL"),
        (r#""webhookUrl":5"#, "webhookUrl must be a string"),
        (r#""useAmd":"yes""#, "useAmd must be a boolean"),
        (r#""record":1"#, "record must be a boolean"),
        (r#""ringTimeout":4"#, "ringTimeout must be an integer from 5 to 120"),
        (r#""ringTimeout":121"#, "ringTimeout must be an integer from 5 to 120"),
        (r#""ringTimeout":"30""#, "ringTimeout must be an integer from 5 to 120"),
        (r#""ringTimeout":10.5"#, "ringTimeout must be an integer from 5 to 120"),
        (r#""voiceName":"""#, "voiceName must be 1 to 64 letters, digits, underscores or hyphens"),
        (r#""voiceName":"a b""#, "voiceName must be 1 to 64 letters, digits, underscores or hyphens"),
        (r#""callerId":7"#, "callerId must be a string"),
    ] {
        assert_eq!(place_error(&format!("{{\"number\":\"14155550100\",{member}}}")), error, "{member}");
    }
    for caller_id in ["", "12", "a", "1415\\r\\nVia: x", "\\\"1415\\\"", "+", "++123", "Anonymous"] {
        let error = place_error(&format!("{{\"number\":\"14155550100\",\"callerId\":\"{caller_id}\"}}"));
        assert!(error.starts_with("callerId must be"), "{caller_id}: {error}");
    }
    let voice = "v".repeat(65);
    let error = place_error(&format!("{{\"number\":\"14155550100\",\"voiceName\":\"{voice}\"}}"));
    assert!(error.starts_with("voiceName"), "{error}");
}

#[test]
fn hangup_needs_a_call() {
    assert_eq!(hang_up(br#"{"callId":"1.2"}"#).unwrap(), HangUp { call_id: "1.2".into(), drain: false });
    assert_eq!(
        hang_up(br#"{"callId":"1.2","drain":true}"#).unwrap(),
        HangUp { call_id: "1.2".into(), drain: true }
    );
    assert_eq!(error_of(hang_up(b"{}")), "callId is required");
    assert_eq!(error_of(hang_up(br#"{"callId":12}"#)), "callId must be a string");
    assert_eq!(error_of(hang_up(br#"{"callId":"a\u0000b"}"#)), "Invalid callId");
}

#[test]
fn speech_has_text_and_a_target() {
    let said = say(br#"{"callId":"1.2","text":"<speak>hi</speak>","playTo":"channel"}"#).unwrap();
    assert_eq!(
        said,
        Say { call_id: "1.2".into(), text: "<speak>hi</speak>".into(), play_to: PlayTo::Channel }
    );
    assert_eq!(say(br#"{"callId":"1.2","text":"a"}"#).unwrap().play_to, PlayTo::Bridge);
    assert_eq!(error_of(say(br#"{"text":"a"}"#)), "callId is required");
    for text in ["", "  ", "\\u0000\\n"] {
        let body = format!("{{\"callId\":\"1.2\",\"text\":\"{text}\"}}");
        assert_eq!(error_of(say(body.as_bytes())), "text is required", "{text:?}");
    }
    assert_eq!(
        error_of(say(br#"{"callId":"1.2","text":"a","playTo":"both"}"#)),
        "playTo must be bridge or channel"
    );
    for (chars, good) in [(5000, true), (5001, false)] {
        let body = format!("{{\"callId\":\"1.2\",\"text\":\"{}\"}}", "é".repeat(chars));
        assert_eq!(say(body.as_bytes()).is_ok(), good, "{chars}");
    }
}

#[test]
fn sounds_stay_below_their_root() {
    let played = play(br#"{"callId":"1.2","file":"custom/welcome"}"#).unwrap();
    assert_eq!(
        played,
        Play { call_id: "1.2".into(), file: "custom/welcome".into(), play_to: PlayTo::Bridge }
    );
    assert_eq!(error_of(play(br#"{"callId":"1.2"}"#)), "file is required");
    let long = "a".repeat(129);
    for file in
        ["../../etc/passwd", "/etc/passwd", "a\\u0000b", "a.wav", "a//b", "a/", "a b", ".", "é", &long]
    {
        let body = format!("{{\"callId\":\"1.2\",\"file\":\"{file}\"}}");
        assert_eq!(error_of(play(body.as_bytes())), "Invalid file", "{file}");
    }
}

#[test]
fn a_gather_has_its_bounds() {
    let asked = gather(br#"{"callId":"1.2","text":"Enter"}"#).unwrap();
    assert_eq!((asked.call_id.as_str(), asked.num_digits, asked.timeout), ("1.2", 1, 10_000));
    assert_eq!((asked.finish_on_key, asked.replace, asked.play_to), (None, false, PlayTo::Bridge));
    let body =
        br##"{"callId":"1.2","text":"E","numDigits":32,"timeout":120000,"finishOnKey":"#","replace":true}"##;
    let asked = gather(body).unwrap();
    assert_eq!((asked.num_digits, asked.timeout, asked.finish_on_key), (32, 120_000, Some('#')));
    assert!(asked.replace);
    assert_eq!(error_of(gather(br#"{"callId":"1.2"}"#)), "text is required");
    for (member, error) in [
        (r#""numDigits":0"#, "numDigits must be an integer from 1 to 32"),
        (r#""numDigits":33"#, "numDigits must be an integer from 1 to 32"),
        (r#""numDigits":1.5"#, "numDigits must be an integer from 1 to 32"),
        (r#""timeout":10"#, "timeout must be an integer from 1000 to 120000"),
        (r#""timeout":120001"#, "timeout must be an integer from 1000 to 120000"),
        (r#""finishOnKey":"ab""#, "finishOnKey must be one of 0 to 9, * and #"),
        (r#""finishOnKey":"a""#, "finishOnKey must be one of 0 to 9, * and #"),
        (r#""replace":"no""#, "replace must be a boolean"),
    ] {
        let body = format!("{{\"callId\":\"1.2\",\"text\":\"a\",{member}}}");
        assert_eq!(error_of(gather(body.as_bytes())), error, "{member}");
    }
}

#[test]
fn call_logs_have_pages() {
    let first = CallLogs { page: 1, page_size: 20, status: None };
    assert_eq!(call_logs(b""), Ok(first.clone()));
    assert_eq!(call_logs(b"{}"), Ok(first));
    let body = br#"{"page":2,"page_size":100,"status":"completed"}"#;
    assert_eq!(call_logs(body), Ok(CallLogs { page: 2, page_size: 100, status: Some("completed".into()) }));
    for member in [r#""page":0"#, r#""page_size":0"#, r#""page_size":101"#, r#""page":"x""#, r#""status":1"#]
    {
        assert!(call_logs(format!("{{{member}}}").as_bytes()).is_err(), "{member}");
    }
}

#[test]
fn the_recordings_window_comes_from_the_query() {
    assert_eq!(recordings_window(None), Ok((1000, 0)));
    assert_eq!(recordings_window(Some("limit=5&offset=10&x=y")), Ok((5, 10)));
    for query in ["limit=0", "limit=1001", "limit=x", "limit=%2B5", "limit=", "offset=-1", "offset=1.5"] {
        assert!(recordings_window(Some(query)).is_err(), "{query}");
    }
}

#[test]
fn the_events_window_comes_from_the_query() {
    assert_eq!(events_window(None), Ok((1000, 0)));
    assert_eq!(events_window(Some("after=7&limit=2&offset=x")), Ok((2, 7)));
    assert_eq!(events_window(Some("after=4294967295")), Ok((1000, u32::MAX)));
    for query in ["limit=0", "limit=1001", "after=-1", "after=x", "after=", "after=4294967296"] {
        assert!(events_window(Some(query)).is_err(), "{query}");
    }
}

#[test]
fn analytics_are_of_one_to_365_days() {
    for (body, days) in
        [("", 7), ("{}", 7), (r#"{"days":null}"#, 7), (r#"{"days":1}"#, 1), (r#"{"days":365}"#, 365)]
    {
        assert_eq!(analytics(body.as_bytes()), Ok(Analytics { days }), "{body}");
    }
    for body in [r#"{"days":0}"#, r#"{"days":366}"#, r#"{"days":"7"}"#, r#"{"days":7.0}"#, r#"{"days":-7}"#] {
        let error = Fault::Bad("days must be an integer from 1 to 365".into());
        assert_eq!(analytics(body.as_bytes()), Err(error), "{body}");
    }
    assert!(analytics(b"[]").is_err());
    for body in ["", "{}", r#"{"x":1}"#] {
        assert_eq!(dashboard(body.as_bytes()), Ok(Nothing {}), "{body}");
    }
    assert!(dashboard(b"nothing").is_err());
}

#[test]
fn file_names_lead_nowhere_else() {
    for good in ["call-1720012345.88-1739781234567.wav", "a.wav", ".a.wav"] {
        assert_eq!(filename(good), Ok(good));
    }
    let long = format!("{}.wav", "a".repeat(201));
    for name in [
        "x.mp3",
        ".wav",
        "wav",
        "",
        "../../etc/passwd.wav",
        "%2e%2e.wav",
        "..\\x.wav",
        "a\0.wav",
        "/etc/passwd.wav",
        "a..b.wav",
        "a/b.wav",
        "a.WAV",
        "é.wav",
        &long,
    ] {
        assert_eq!(filename(name), Err(bad("Invalid filename")), "{name:?}");
    }
}

#[test]
fn bodies_are_documented_as_they_are_read() {
    documented_as_read::<MakeCall, _>(r#"{"number":"14155550100"}"#, |body| place(body, &webhooks()));
    documented_as_read::<HangUp, _>(r#"{"callId":"1.2"}"#, hang_up);
    documented_as_read::<Say, _>(r#"{"callId":"1.2","text":"a"}"#, say);
    documented_as_read::<Play, _>(r#"{"callId":"1.2","file":"a"}"#, play);
    documented_as_read::<GatherDigits, _>(r#"{"callId":"1.2","text":"a"}"#, gather);
    documented_as_read::<CallLogs, _>("{}", call_logs);
    documented_as_read::<Analytics, _>("{}", analytics);
    documented_as_read::<Nothing, _>("{}", dashboard);
}
