//! Transfers that we ask for (RFC 3515, RFC 5589), blind and attended, and those that are asked of us.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::*;
use sip::{Request, SessionError, SessionEvent, SessionId, Transfer};

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers.get(name).unwrap_or_default()
}

/// A report about our REFER.
fn notify(tag: &str, seq: u32, state: &str, line: &str) -> Vec<u8> {
    let extra = format!(
        "Event: refer;id=2\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag;version=2.0\r\n"
    );
    let text = String::from_utf8(request_with("NOTIFY", tag, seq, &format!("n{seq}"), &extra, "")).unwrap();
    let body = format!("{line}\r\n");
    text.replace("Content-Length: 0\r\n", &format!("Content-Length: {}\r\n", body.len()))
        .into_bytes()
        .into_iter()
        .chain(body.into_bytes())
        .collect()
}

fn told(bench: &mut Bench) -> Vec<Transfer> {
    let told = bench.events.drain(..).map(|(_, event)| match event {
        SessionEvent::Transfer(step) => step,
        other => panic!("{other:?}"),
    });
    told.collect()
}

#[test]
fn a_blind_transfer_is_reported_step_by_step() {
    let mut bench = Bench::new();
    let (id, tag) = bench.taken();
    let to: sip::Uri = "sip:carol@192.0.2.9".parse().unwrap();
    bench.session(id, |s, now| s.refer(now, &to, None).unwrap());
    bench.session(id, |s, now| assert_eq!(s.refer(now, &to, None), Err(SessionError::Pending)));
    let refer = bench.request("REFER");
    assert_eq!(header(&refer, "Refer-To"), "<sip:carol@192.0.2.9>");
    assert_eq!(header(&refer, "Referred-By"), "<sip:me@example.com>");
    assert!(refer.headers.has("Contact"));
    bench.feed(reply(&refer, 202, "", "", ""));
    bench.feed(notify(&tag, 2, "active;expires=60", "SIP/2.0 100 Trying"));
    bench.feed(notify(&tag, 3, "active;expires=60", "SIP/2.0 180 Ringing"));
    bench.feed(notify(&tag, 4, "active;expires=60", "no status line"));
    bench.feed(notify(&tag, 5, "terminated;reason=noresource", "SIP/2.0 200 OK"));
    bench.feed(notify(&tag, 6, "terminated;reason=noresource", "SIP/2.0 200 OK"));
    for _ in 0..5 {
        bench.response(200);
    }
    let step = |code, reason: &str| Transfer::Progress { code, reason: reason.to_owned() };
    assert_eq!(
        told(&mut bench),
        [
            Transfer::Accepted,
            step(100, "Trying"),
            step(180, "Ringing"),
            Transfer::Finished { code: Some(200) }
        ]
    );
    // The next may follow.
    bench.session(id, |s, now| s.refer(now, &to, None).unwrap());
    bench.request("REFER");
}

#[test]
fn an_attended_transfer_names_the_dialog_to_be_replaced() {
    let mut bench = Bench::new();
    let (first, _) = bench.answered();
    let (second, _) = bench.taken();
    let (target, replaces) = bench.endpoint.session(second).unwrap().replaces().unwrap();
    assert_eq!((target.to_string(), replaces.call_id.as_str()), ("sip:them@192.0.2.2:5060".into(), "call-1"));
    assert_eq!(replaces.to_tag, "them");
    bench.session(first, |s, now| s.refer(now, &target, Some(&replaces)).unwrap());
    let refer = bench.request("REFER");
    let wanted = format!(
        "<sip:them@192.0.2.2:5060?Replaces=call-1%3Bto-tag%3Dthem%3Bfrom-tag%3D{}>",
        replaces.from_tag
    );
    assert_eq!(header(&refer, "Refer-To"), wanted);
}

#[test]
fn a_transfer_that_is_refused_or_unanswered_is_told_as_such() {
    let to: sip::Uri = "sip:carol@192.0.2.9".parse().unwrap();
    let mut bench = Bench::new();
    let (id, _) = bench.answered();
    bench.session(id, |s, now| s.refer(now, &to, None).unwrap());
    let refer = bench.request("REFER");
    bench.feed(reply(&refer, 603, "", "", ""));
    assert_eq!(told(&mut bench), [Transfer::Refused { code: 603 }]);
    bench.session(id, |s, now| s.refer(now, &to, None).unwrap());
    bench.pass(Duration::from_secs(33));
    assert_eq!(bench.words(), ["transfer Refused { code: 408 }", "terminated Nobody TimedOut"]);
}

/// FIELD 5.18: a NOTIFY that nobody asked for is answered 200, always.
#[test]
fn a_notify_is_never_refused() {
    let mut bench = Bench::new();
    let (_, tag) = bench.taken();
    bench.feed(notify(&tag, 2, "active", "SIP/2.0 180 Ringing"));
    bench.response(200);
    for seq in 3..6 {
        let mwi = "Event: message-summary\r\nSubscription-State: active\r\n";
        bench.feed(request_with("NOTIFY", &tag, seq, &format!("m{seq}"), mwi, ""));
        bench.response(200);
    }
    bench.feed(request_with("NOTIFY", "", 1, "out", "Event: message-summary\r\n", ""));
    bench.response(200);
    assert!(bench.events.is_empty());
}

#[test]
fn a_refer_of_theirs_is_declined() {
    let mut bench = Bench::new();
    let (_, tag) = bench.taken();
    let extra = "Refer-To: <sip:+19005550100@192.0.2.9>\r\n";
    bench.feed(request_with("REFER", &tag, 2, "r", extra, ""));
    bench.response(603);
    assert!(bench.events.is_empty() && bench.sent.is_empty());
}

#[test]
fn only_a_confirmed_session_has_a_name_to_be_replaced() {
    let mut bench = Bench::new();
    let id: SessionId = bench.invite(target(THEM));
    let to: sip::Uri = "sip:carol@192.0.2.9".parse().unwrap();
    assert_eq!(bench.endpoint.session(id).unwrap().replaces(), None);
    bench.session(id, |s, now| assert_eq!(s.refer(now, &to, None), Err(SessionError::NotConfirmed)));
}
