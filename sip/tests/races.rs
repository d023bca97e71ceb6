//! What goes wrong between two user agents: crossings, repetitions, refusals, strangers. One test each, by hand-written
//! messages; the names say the defect that others have shipped.

mod common;

use std::time::Duration;

use common::*;
use sip::{Credentials, Message, Q850, SessionEvent, Side, TerminationCause};

const SECOND: Duration = Duration::from_secs(1);

fn last(bench: &mut Bench) -> sip::Termination {
    match bench.events.pop_back() {
        Some((_, SessionEvent::Terminated(end))) => end,
        other => panic!("{other:?}"),
    }
}

/// FIELD 5.1.
#[test]
fn every_request_inside_a_dialog_has_a_cseq_of_its_own() {
    let mut bench = Bench::new();
    let (id, ack) = bench.answered();
    assert_eq!(seq_of(&ack), 1);
    let mut seqs = Vec::new();
    for _ in 0..2 {
        bench.session(id, |s, now| s.reinvite(now, sdp("hold")).unwrap());
        let reinvite = bench.request("INVITE");
        seqs.push(seq_of(&reinvite));
        bench.feed(reply(&reinvite, 200, "", "Contact: <sip:bob@192.0.2.2:5060>\r\n", "answer"));
        assert_eq!(seq_of(&bench.request("ACK")), seq_of(&reinvite));
    }
    bench.session(id, |s, now| s.info(now, "application/dtmf-relay", sdp("Signal=1")).unwrap());
    seqs.push(seq_of(&bench.request("INFO")));
    bench.session(id, |s, now| s.hang_up(now, None));
    seqs.push(seq_of(&bench.request("BYE")));
    assert_eq!(seqs, [2, 3, 4, 5]);
}

/// FIELD 5.2.
#[test]
fn a_pending_reinvite_and_the_bye_do_not_share_a_cseq() {
    let mut bench = Bench::new();
    let (id, _) = bench.answered();
    bench.session(id, |s, now| s.reinvite(now, sdp("refresh")).unwrap());
    let reinvite = bench.request("INVITE");
    bench.session(id, |s, now| s.hang_up(now, Some(Q850(16))));
    let bye = bench.request("BYE");
    assert!(seq_of(&bye) > seq_of(&reinvite));
    assert_eq!(bye.headers.get("Reason"), Some("Q.850;cause=16"));
    // The re-INVITE is answered all the same: its ACK goes out, and nobody is told.
    bench.feed(reply(&reinvite, 200, "", "", "answer"));
    bench.request("ACK");
    bench.feed(reply(&bye, 200, "", "", ""));
    assert_eq!(bench.words(), ["terminated Us Bye"]);
    bench.assert_empties();
}

/// FIELD 5.4.
#[test]
fn a_bye_on_a_record_routed_dialog_has_the_route_set() {
    let mut bench = Bench::new();
    let id = bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    let routes =
        "Record-Route: <sip:198.51.100.2;lr>, <sip:192.0.2.2;lr>\r\nContact: <sip:bob@203.0.113.9:5062>\r\n";
    bench.feed(reply(&invite, 200, "t", routes, "answer"));
    let (to, _) = bench.sent.front().unwrap();
    assert_eq!(*to, peer("192.0.2.2:5060"));
    let ack = bench.request("ACK");
    bench.session(id, |s, now| s.hang_up(now, None));
    let bye = bench.request("BYE");
    for request in [ack, bye] {
        assert_eq!(request.uri.to_string(), "sip:bob@203.0.113.9:5062");
        let routes: Vec<_> = request.headers.get_all("Route").collect();
        assert_eq!(routes, ["<sip:192.0.2.2;lr>", "<sip:198.51.100.2;lr>"]);
    }
    // From the other side: the order of the INVITE.
    let mut bench = Bench::new();
    bench.feed(request_with(
        "INVITE",
        "",
        1,
        "i",
        "Record-Route: <sip:192.0.2.2;lr>\r\nRecord-Route: <sip:198.51.100.2;lr>\r\n",
        "o",
    ));
    let id = bench.events.pop_front().unwrap().0;
    bench.session(id, |s, now| s.answer(now, sdp("answer")));
    bench.response(100);
    let ok = bench.response(200);
    assert_eq!(ok.headers.get_all("Record-Route").count(), 2);
    bench.feed(request("ACK", &tag_of(&ok), 1, "a", ""));
    bench.session(id, |s, now| s.hang_up(now, None));
    let routes: Vec<_> = bench.request("BYE").headers.get_all("Route").map(str::to_owned).collect();
    assert_eq!(routes, ["<sip:192.0.2.2;lr>", "<sip:198.51.100.2;lr>"]);
}

/// FIELD 5.5.
#[test]
fn dialogs_are_forgotten() {
    let mut bench = Bench::new();
    let (id, _) = bench.answered();
    bench.session(id, |s, now| s.hang_up(now, None));
    let bye = bench.request("BYE");
    bench.feed(reply(&bye, 200, "", "", ""));
    bench.events.clear();
    let (_, tag) = bench.taken();
    bench.feed(request("BYE", &tag, 2, "b1", ""));
    bench.response(200);
    assert!(bench.endpoint.counts().transactions > 0);
    bench.assert_empties();
}

/// FIELD 5.6.
#[test]
fn their_bye_ends_our_call() {
    let mut bench = Bench::new();
    let (id, ack) = bench.answered();
    let h = |name: &str| ack.headers.get(name).unwrap().to_owned();
    let bye = format!(
        "BYE sip:alice@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKbye\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: 9 BYE\r\nReason: SIP;cause=200, Q.850;cause=31;text=\"x\"\r\nContent-Length: 0\r\n\r\n",
        h("To"),
        h("From"),
        h("Call-ID")
    );
    bench.feed(bye.clone());
    bench.response(200);
    let end = last(&mut bench);
    assert_eq!((end.by, end.cause, end.q850), (Side::Them, TerminationCause::Bye, Some(31)));
    assert!(bench.endpoint.session(id).is_none());
    // Its repetition gets the same answer, and tells nothing.
    bench.feed(bye);
    bench.response(200);
    assert_eq!(bench.words(), [""; 0]);
    bench.assert_empties();
}

/// FIELD 5.27.
#[test]
fn a_bye_with_a_reason_without_cause_is_a_bye() {
    for reason in ["Q.850", "Q.850;cause=", "Q.850;text=\"no cause\"", ";;\"", "SIP ;cause=x"] {
        let mut bench = Bench::new();
        let (_, tag) = bench.taken();
        bench.feed(request_with("BYE", &tag, 2, "b", &format!("Reason: {reason}\r\n"), ""));
        bench.response(200);
        let end = last(&mut bench);
        assert_eq!((end.by, end.cause, end.q850), (Side::Them, TerminationCause::Bye, None), "{reason}");
    }
}

/// FIELD 5.28.
#[test]
fn a_200_that_crosses_our_cancel_gets_ack_and_bye() {
    let mut bench = Bench::new();
    let id = bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.feed(reply(&invite, 180, "t", "", ""));
    bench.session(id, |s, now| s.hang_up(now, None));
    bench.session(id, |s, now| s.hang_up(now, None));
    let cancel = bench.request("CANCEL");
    assert_eq!(cancel.headers.get("Via"), invite.headers.get("Via"));
    assert_eq!((cancel.uri.clone(), seq_of(&cancel)), (invite.uri.clone(), 1));
    bench.feed(reply(&invite, 200, "t", "Contact: <sip:bob@192.0.2.2>\r\n", "answer"));
    bench.request("ACK");
    let bye = bench.request("BYE");
    assert!(bye.headers.get("To").unwrap().ends_with(";tag=t"));
    assert_eq!(bench.words(), ["progress 180 0 false", "terminated Us Cancelled"]);
    // The 200 again: the ACK again, no second BYE.
    bench.feed(reply(&invite, 200, "t", "Contact: <sip:bob@192.0.2.2>\r\n", "answer"));
    bench.request("ACK");
    assert!(bench.sent.is_empty());
    bench.feed(reply(&cancel, 481, "x", "", ""));
    bench.feed(reply(&bye, 200, "", "", ""));
    bench.assert_empties();
    assert_eq!(bench.words(), [""; 0]);
}

#[test]
fn a_cancel_waits_for_the_first_provisional_and_its_487_tells_the_end() {
    let mut bench = Bench::new();
    let id = bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.session(id, |s, now| s.hang_up(now, Some(Q850(31))));
    assert!(bench.sent.is_empty());
    bench.feed(reply(&invite, 100, "", "", ""));
    let cancel = bench.request("CANCEL");
    assert_eq!(cancel.headers.get("Reason"), Some("Q.850;cause=31"));
    assert_eq!(bench.words(), [""; 0]);
    bench.feed(reply(&cancel, 200, "t", "", ""));
    bench.feed(reply(&invite, 487, "t", "", ""));
    let ack = bench.request("ACK");
    assert_eq!(ack.headers.get("Via"), invite.headers.get("Via"));
    assert_eq!(bench.words(), ["terminated Us Cancelled"]);
    bench.assert_empties();
}

#[test]
fn a_cancel_that_nobody_confirms_is_told_after_four_seconds_and_forgotten() {
    let mut bench = Bench::new();
    let id = bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.feed(reply(&invite, 180, "t", "", ""));
    bench.session(id, |s, now| s.hang_up(now, None));
    bench.words();
    bench.pass(SECOND * 4 - Duration::from_millis(1));
    assert_eq!(bench.words(), [""; 0]);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.words(), ["terminated Us Cancelled"]);
    assert!(bench.endpoint.session(id).is_none());
    bench.assert_empties();
    assert_eq!(bench.words(), [""; 0]);
}

#[test]
fn no_response_is_told_in_time_and_a_late_one_is_cancelled() {
    let mut bench = Bench::new();
    bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.pass(SECOND * 10);
    assert_eq!(bench.words(), ["terminated Nobody NoResponse"]);
    bench.sent.clear();
    bench.feed(reply(&invite, 183, "t", "", "media"));
    bench.request("CANCEL");
    bench.feed(reply(&invite, 200, "t", "Contact: <sip:bob@192.0.2.2>\r\n", "answer"));
    bench.request("ACK");
    bench.request("BYE");
    assert_eq!(bench.words(), [""; 0]);
    bench.assert_empties();
}

#[test]
fn silence_ends_by_timer_b_and_an_unreachable_peer_at_once() {
    let mut bench = Bench::new();
    bench.invite(sip::Target { no_response_timeout: SECOND * 60, ..target(THEM) });
    bench.pass(SECOND * 33);
    assert_eq!(bench.words(), ["terminated Nobody TimedOut"]);
    assert_eq!(bench.sent.len(), 7);
    bench.invite(target(THEM));
    bench.endpoint.handle_transport_error(bench.now, peer(THEM));
    bench.drain();
    assert_eq!(bench.words(), ["terminated Nobody Transport"]);
    bench.assert_empties();
}

/// FIELD 5.29.
#[test]
fn an_invite_retried_after_its_refusal_does_not_ring_again() {
    let mut bench = Bench::new();
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    let id = bench.events.pop_front().unwrap().0;
    bench.response(100);
    bench.session(id, |s, now| s.reject(now, 486, &[("Reason", "Q.850;cause=17".to_owned())]));
    let busy = bench.response(486);
    bench.feed(request("ACK", &tag_of(&busy), 1, "i1", ""));
    assert_eq!(bench.words(), ["terminated Us Rejected { code: 486, reason: \"Busy Here\" }"]);
    for (seq, branch) in [(1, "i1"), (1, "i2"), (2, "i3")] {
        bench.feed(request("INVITE", "", seq, branch, "offer"));
        if branch != "i1" {
            let again = bench.response(486);
            assert_eq!(again.headers.get("Reason"), Some("Q.850;cause=17"));
            assert_eq!(tag_of(&again), tag_of(&busy));
        }
    }
    assert!(bench.sent.is_empty());
    assert_eq!(bench.words(), [""; 0]);
    bench.assert_empties();
    // Long after, it is a new call.
    bench.feed(request("INVITE", "", 3, "i4", "offer"));
    assert_eq!(bench.words(), ["invited"]);
}

#[test]
fn an_invite_that_was_asked_to_change_may_come_again() {
    let mut bench = Bench::new();
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    let id = bench.events.pop_front().unwrap().0;
    bench.session(id, |s, now| s.reject(now, 488, &[]));
    bench.words();
    bench.feed(request("INVITE", "", 2, "i2", "other offer"));
    assert_eq!(bench.words(), ["invited"]);
}

#[test]
fn a_repeated_invite_is_absorbed_and_a_merged_one_refused() {
    let mut bench = Bench::new();
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    let id = bench.events.front().unwrap().0;
    assert_eq!(bench.words(), ["invited"]);
    bench.response(100);
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    bench.response(100);
    bench.session(id, |s, now| s.ring(now, 180, None));
    let ringing = bench.response(180);
    assert!(ringing.headers.has("Contact"));
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    assert_eq!(bench.response(180), ringing);
    bench.feed(request("INVITE", "", 1, "other", "offer"));
    bench.response(482);
    assert_eq!(bench.words(), [""; 0]);
    // A proxy gives up on a call that says nothing for minutes.
    bench.pass(SECOND * 61);
    assert_eq!(bench.response(180), ringing);
}

#[test]
fn an_answer_is_repeated_until_its_ack_and_then_ended() {
    let mut bench = Bench::new();
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    let id = bench.events.pop_front().unwrap().0;
    bench.response(100);
    bench.session(id, |s, now| s.answer(now, sdp("answer")));
    bench.pass(SECOND * 31);
    assert_eq!(bench.sent.len(), 10);
    bench.pass(SECOND * 2);
    let codes: Vec<_> = bench.sent.drain(..).filter(|(_, m)| matches!(m, Message::Request(_))).collect();
    assert!(matches!(&codes[0].1, Message::Request(bye) if bye.method.as_str() == "BYE"));
    assert_eq!(bench.words(), ["terminated Nobody TimedOut"]);
    bench.assert_empties();
}

#[test]
fn hanging_up_before_the_ack_waits_for_it() {
    let mut bench = Bench::new();
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    let id = bench.events.pop_front().unwrap().0;
    bench.session(id, |s, now| s.answer(now, sdp("answer")));
    bench.session(id, |s, now| s.hang_up(now, None));
    bench.response(100);
    let tag = tag_of(&bench.response(200));
    assert!(bench.sent.is_empty());
    assert_eq!(bench.words(), ["terminated Us Bye"]);
    bench.feed(request("ACK", &tag, 1, "a1", ""));
    let bye = bench.request("BYE");
    bench.feed(reply(&bye, 200, "", "", ""));
    bench.assert_empties();
    assert_eq!(bench.words(), [""; 0]);
}

#[test]
fn a_cancel_ends_a_ringing_call_and_not_an_answered_one() {
    let mut bench = Bench::new();
    bench.feed(request("INVITE", "", 1, "i1", "offer"));
    bench.response(100);
    bench.feed_from("203.0.113.5:5060", &request("CANCEL", "", 1, "i1", ""));
    bench.response(481);
    bench.feed(request_with("CANCEL", "", 1, "i1", "Reason: Q.850;cause=26\r\n", ""));
    bench.response(200);
    let gone = bench.response(487);
    let end = last(&mut bench);
    assert_eq!((end.by, end.cause, end.q850), (Side::Them, TerminationCause::Cancelled, Some(26)));
    bench.feed(request("ACK", &tag_of(&gone), 1, "i1", ""));
    bench.feed(request("CANCEL", "", 1, "nothing", ""));
    bench.response(481);
    bench.assert_empties();
    bench.events.clear();
    let (_, _) = bench.taken();
    bench.feed(request("CANCEL", "", 1, "i1", ""));
    bench.response(200);
    assert_eq!(bench.words(), [""; 0]);
}

#[test]
fn of_two_forks_that_answer_the_second_is_hung_up() {
    let mut bench = Bench::new();
    let id = bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.feed(reply(&invite, 183, "a", "", "early"));
    bench.feed(reply(&invite, 180, "b", "", ""));
    bench.feed(reply(&invite, 183, "a", "", "early"));
    bench.feed(reply(&invite, 200, "b", "Contact: <sip:b@192.0.2.2:5062>\r\n", "answer"));
    assert_eq!(bench.request("ACK").uri.to_string(), "sip:b@192.0.2.2:5062");
    let words = bench.words();
    assert_eq!(words, ["progress 183 0 true", "progress 180 1 false", "progress 183 0 true", "answered"]);
    bench.feed(reply(&invite, 200, "a", "Contact: <sip:a@192.0.2.2:5061>\r\n", "answer"));
    assert_eq!(bench.request("ACK").uri.to_string(), "sip:a@192.0.2.2:5061");
    let bye = bench.request("BYE");
    assert!(bye.headers.get("To").unwrap().ends_with(";tag=a"));
    bench.session(id, |s, now| s.hang_up(now, None));
    let bye_b = bench.request("BYE");
    assert!(bye_b.headers.get("To").unwrap().ends_with(";tag=b") && seq_of(&bye_b) > seq_of(&bye));
    assert_eq!(bench.words(), ["terminated Us Bye"]);
}

#[test]
fn a_bye_of_the_fork_that_lost_does_not_end_the_call() {
    let mut bench = Bench::new();
    let id = bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.feed(reply(&invite, 200, "b", "Contact: <sip:b@192.0.2.2:5060>\r\n", "answer"));
    bench.request("ACK");
    bench.feed(reply(&invite, 200, "a", "Contact: <sip:a@192.0.2.2:5060>\r\n", "answer"));
    bench.request("ACK");
    bench.request("BYE");
    let text = |name: &str| invite.headers.get(name).unwrap().to_owned();
    let bye = |tag: &str| {
        format!(
            "BYE sip:me@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKx{tag}\r\n\
             From: {};tag={tag}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 9 BYE\r\nContent-Length: 0\r\n\r\n",
            text("To"),
            text("From"),
            text("Call-ID")
        )
    };
    bench.feed(bye("a"));
    bench.response(200);
    assert_eq!(bench.words(), ["answered"]);
    bench.session(id, |session, _| assert!(!session.call_id().is_empty()));
    bench.feed(bye("b"));
    bench.response(200);
    assert_eq!(bench.words(), ["terminated Them Bye"]);
}

#[test]
fn silence_after_the_login_is_no_response() {
    let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
    let mut bench = Bench::new();
    bench.invite(sip::Target { credentials, ..target(THEM) });
    let invite = bench.request("INVITE");
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n";
    bench.feed(reply(&invite, 401, "t", challenge, ""));
    bench.pass(Duration::from_secs(11));
    assert_eq!(bench.words(), ["terminated Nobody NoResponse"]);
}

#[test]
fn a_challenge_is_answered_once_and_a_stale_one_again() {
    let challenge = |nonce: &str, more: &str| {
        format!(
            "Proxy-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\", algorithm=MD5{more}\r\n\
             Proxy-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\", algorithm=SHA-256{more}\r\n"
        )
    };
    let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
    let mut bench = Bench::new();
    let id = bench.invite(sip::Target { credentials, ..target(THEM) });
    let first = bench.request("INVITE");
    bench.feed(reply(&first, 407, "t", &challenge("n1", ""), ""));
    let ack = bench.request("ACK");
    assert_eq!(ack.headers.get("Via"), first.headers.get("Via"));
    let second = bench.request("INVITE");
    let answer = second.headers.get("Proxy-Authorization").unwrap();
    assert!(answer.contains("algorithm=SHA-256") && answer.contains("nc=00000001"), "{answer}");
    assert_eq!((seq_of(&first), seq_of(&second)), (1, 2));
    assert_eq!(first.headers.get("Call-ID"), second.headers.get("Call-ID"));
    assert_eq!(first.headers.get("From"), second.headers.get("From"));
    assert_ne!(first.headers.get("Via"), second.headers.get("Via"));
    bench.feed(reply(&second, 407, "t", &challenge("n2", ", stale=true"), ""));
    bench.request("ACK");
    let third = bench.request("INVITE");
    assert!(third.headers.get("Proxy-Authorization").unwrap().contains("nonce=\"n2\""));
    bench.feed(reply(&third, 200, "t", "Contact: <sip:b@192.0.2.2>\r\n", "answer"));
    assert_eq!(
        bench.request("ACK").headers.get("Proxy-Authorization"),
        third.headers.get("Proxy-Authorization")
    );
    assert_eq!(bench.words(), ["answered"]);
    bench.session(id, |s, now| s.hang_up(now, None));
    let bye = bench.request("BYE");
    assert!(bye.headers.get("Proxy-Authorization").unwrap().contains("nc=00000002"));
    assert_eq!(bye.headers.get_all("Proxy-Authorization").count(), 1);
}

#[test]
fn wrong_credentials_end_the_call() {
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n";
    let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
    let mut bench = Bench::new();
    bench.invite(sip::Target { credentials, ..target(THEM) });
    for _ in 0..2 {
        let invite = bench.request("INVITE");
        bench.feed(reply(&invite, 401, "t", challenge, ""));
        bench.request("ACK");
    }
    assert_eq!(bench.words(), ["terminated Them Rejected { code: 401, reason: \"Unauthorized\" }"]);
    bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.feed(reply(&invite, 401, "t", challenge, ""));
    assert_eq!(bench.words(), ["terminated Them Rejected { code: 401, reason: \"Unauthorized\" }"]);
    bench.sent.clear();
    bench.assert_empties();
}

#[test]
fn a_refusal_tells_all_it_knows() {
    let mut bench = Bench::new();
    bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    let extra =
        "Retry-After: 120 (busy);duration=3\r\nX-Twilio-Error: 32011 limit\r\nReason: Q.850;cause=42\r\n";
    bench.feed(reply(&invite, 503, "t", extra, ""));
    let end = last(&mut bench);
    assert_eq!((end.by, end.q850, end.retry_after), (Side::Them, Some(42), Some(SECOND * 120)));
    assert_eq!(end.headers, [("X-Twilio-Error".to_owned(), "32011 limit".to_owned())]);
    bench.sent.clear();
    bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    bench.feed(reply(&invite, 302, "t", "Contact: <sip:x@192.0.2.3>, <tel:+1>\r\n", ""));
    let TerminationCause::Redirected { code: 302, contacts } = last(&mut bench).cause else { panic!() };
    assert_eq!(contacts.len(), 2);
}
