//! Inside a dialog: offers that collide, requests that come twice, from the wrong side or too early. One test each, by
//! hand-written messages.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::*;
use sip::{SessionError, SessionEvent, TerminationCause};

const SECOND: Duration = Duration::from_secs(1);

fn last(bench: &mut Bench) -> sip::Termination {
    match bench.events.pop_back() {
        Some((_, SessionEvent::Terminated(end))) => end,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reinvites_that_collide_are_tried_again_in_the_bands_of_the_rfc() {
    let mut bench = Bench::new();
    let (id, _) = bench.answered();
    bench.session(id, |s, now| s.reinvite(now, sdp("a")).unwrap());
    bench.session(id, |s, now| assert_eq!(s.reinvite(now, sdp("b")), Err(SessionError::Pending)));
    let first = bench.request("INVITE");
    bench.feed(reply(&first, 491, "", "", ""));
    bench.request("ACK");
    bench.pass(Duration::from_millis(2_099));
    assert!(bench.sent.is_empty());
    for _ in 0..191 {
        if bench.sent.is_empty() {
            bench.pass(Duration::from_millis(10));
        }
    }
    let again = bench.request("INVITE");
    assert_eq!((seq_of(&again), again.body.as_ref()), (3, &b"a"[..]));
    bench.feed(reply(&again, 488, "", "", ""));
    bench.request("ACK");
    assert_eq!(bench.words(), ["offer refused 488"]);

    let mut bench = Bench::new();
    let (id, tag) = bench.taken();
    bench.session(id, |s, now| s.reinvite(now, sdp("a")).unwrap());
    let ours = bench.request("INVITE");
    bench.feed(request("INVITE", &tag, 2, "r2", "theirs"));
    bench.response(491);
    bench.feed(request("ACK", &tag, 2, "r2", ""));
    bench.feed(reply(&ours, 491, "", "", ""));
    bench.request("ACK");
    bench.pass(SECOND * 2);
    bench.request("INVITE");
    assert_eq!(bench.words(), [""; 0]);
}

#[test]
fn a_reinvite_of_theirs_is_answered_refused_or_asked_to_wait() {
    let mut bench = Bench::new();
    let (id, tag) = bench.taken();
    bench.feed(request("INVITE", &tag, 2, "r2", "hold"));
    bench.response(100);
    bench.feed(request("INVITE", &tag, 3, "r3", "hold again"));
    let wait: u32 = bench.response(500).headers.get("Retry-After").unwrap().parse().unwrap();
    assert!(wait <= 10);
    bench.feed(request("ACK", &tag, 3, "r3", ""));
    bench.session(id, |s, now| s.answer_offer(now, sdp("held")));
    let ok = bench.response(200);
    assert_eq!((ok.body.as_ref(), tag_of(&ok)), (&b"held"[..], tag.clone()));
    bench.pass(Duration::from_millis(600));
    assert_eq!(bench.response(200), ok);
    bench.feed(request("ACK", &tag, 2, "a2", ""));
    bench.pass(SECOND);
    assert!(bench.sent.is_empty());
    bench.feed(request("INVITE", &tag, 4, "r4", "video"));
    bench.response(100);
    bench.session(id, |s, now| s.reject(now, 488, &[]));
    bench.response(488);
    bench.feed(request("ACK", &tag, 4, "r4", ""));
    // Without an offer: ours is in the 200, theirs in the ACK.
    bench.feed(request("INVITE", &tag, 5, "r5", ""));
    bench.response(100);
    bench.session(id, |s, now| s.answer_offer(now, sdp("our offer")));
    bench.response(200);
    bench.feed(request("ACK", &tag, 5, "a5", "their answer"));
    bench.feed(request("UPDATE", &tag, 6, "u6", ""));
    bench.response(200);
    bench.feed(request("UPDATE", &tag, 7, "u7", "update"));
    bench.session(id, |s, now| s.answer_offer(now, sdp("updated")));
    assert_eq!(bench.response(200).body.as_ref(), b"updated");
    assert_eq!(bench.words(), ["offer", "offer", "offer", "offer answered", "offer"]);
}

#[test]
fn a_new_contact_moves_the_target() {
    let mut bench = Bench::new();
    let (id, tag) = bench.taken();
    let moved = String::from_utf8(request("INVITE", &tag, 2, "r2", "o")).unwrap();
    bench.feed(moved.replace("<sip:them@192.0.2.2:5060>", "<sip:them@192.0.2.2:5099>"));
    bench.session(id, |s, now| s.answer_offer(now, sdp("a")));
    bench.sent.clear();
    bench.feed(request("ACK", &tag, 2, "a2", ""));
    bench.session(id, |s, now| s.hang_up(now, None));
    assert_eq!(bench.sent.front().unwrap().0, peer("192.0.2.2:5099"));
    assert_eq!(bench.request("BYE").uri.to_string(), "sip:them@192.0.2.2:5099");
}

#[test]
fn other_methods_inside_a_dialog() {
    let mut bench = Bench::new();
    let (_, tag) = bench.taken();
    for (seq, (method, code)) in [
        ("OPTIONS", 200),
        ("NOTIFY", 200),
        ("REFER", 603),
        ("PRACK", 481),
        ("MESSAGE", 405),
        ("SUBSCRIBE", 405),
        ("INFO", 200),
    ]
    .into_iter()
    .enumerate()
    {
        bench.feed(request(method, &tag, u32::try_from(seq).unwrap() + 2, &format!("m{seq}"), ""));
        let response = bench.response(code);
        assert_eq!(response.headers.has("Allow"), code == 405 || method == "OPTIONS", "{method}");
    }
    bench.feed(request("INFO", &tag, 3, "old", ""));
    bench.response(500);
    bench.feed(request_with("INFO", &tag, 40, "req", "Require: timer, gruu\r\n", ""));
    assert_eq!(bench.response(420).headers.get("Unsupported"), Some("gruu"));
    assert_eq!(bench.words(), ["info"]);
}

#[test]
fn a_stranger_who_knows_the_dialog_is_still_a_stranger() {
    let mut bench = Bench::new();
    let (id, tag) = bench.taken();
    bench.feed_from("203.0.113.66:5060", &request("BYE", &tag, 2, "b", ""));
    bench.response(481);
    assert!(bench.endpoint.session(id).is_some());
    bench.feed(request("BYE", &tag, 2, "b", ""));
    bench.response(200);
    assert_eq!(bench.words(), ["terminated Them Bye"]);
    // A further source that the target names is none.
    let mut bench = Bench::new();
    bench.invite(sip::Target { sources: vec![IpAddr::from([203, 0, 113, 66]).into()], ..target(THEM) });
    let invite = bench.request("INVITE");
    bench.feed(reply(&invite, 200, "t", "Contact: <sip:b@192.0.2.2>\r\n", "a"));
    let ack = bench.request("ACK");
    let h = |name: &str| ack.headers.get(name).unwrap().to_owned();
    let bye = format!(
        "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.66;branch=z9hG4bKb\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\n\r\n",
        h("To"),
        h("From"),
        h("Call-ID")
    );
    bench.feed_from("203.0.113.66:5060", bye.as_bytes());
    bench.response(200);
}

#[test]
fn a_481_inside_the_dialog_ends_it() {
    let mut bench = Bench::new();
    let (id, _) = bench.answered();
    bench.session(id, |s, now| s.info(now, "text/plain", sdp("x")).unwrap());
    let info = bench.request("INFO");
    bench.feed(reply(&info, 481, "", "", ""));
    assert!(matches!(last(&mut bench).cause, TerminationCause::Rejected { code: 481, .. }));
    let (id, _) = bench.answered();
    bench.session(id, |s, now| s.reinvite(now, sdp("x")).unwrap());
    bench.sent.clear();
    bench.pass(SECOND * 33);
    assert_eq!(bench.words(), ["terminated Nobody TimedOut"]);
    for again in [true, false] {
        bench.sent.clear();
        let (id, _) = bench.answered();
        bench.session(id, |s, now| {
            let asked = if again { s.reinvite(now, sdp("x")) } else { s.info(now, "a/b", sdp("x")) };
            assert_eq!(asked, Ok(()));
        });
        let request = bench.request(if again { "INVITE" } else { "INFO" });
        bench.feed(reply(&request, 408, "", "", ""));
        assert_eq!(bench.words(), ["terminated Nobody TimedOut"]);
        let last = bench.sent.pop_back().map(|(_, message)| message);
        assert!(matches!(last, Some(sip::Message::Request(bye)) if bye.method == sip::Method::Bye));
    }
    bench.sent.clear();
    bench.assert_empties();
}

#[test]
fn a_pending_offer_of_theirs_is_answered_when_we_hang_up() {
    let mut bench = Bench::new();
    let (id, tag) = bench.taken();
    bench.feed(request("INVITE", &tag, 2, "r2", "hold"));
    bench.response(100);
    bench.session(id, |s, now| s.hang_up(now, None));
    bench.request("BYE");
    bench.response(487);
    assert_eq!(bench.words(), ["offer", "terminated Us Bye"]);
    bench.assert_empties();
}
