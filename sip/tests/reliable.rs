//! Provisional responses that must arrive (RFC 3262) and changes before the answer (RFC 3311), from both sides, and the
//! early dialogs of a forked call. One test each, by hand-written messages.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::*;
use sip::{Request, Response, SessionError, SessionEvent, SessionId, TerminationCause};

const SECOND: Duration = Duration::from_secs(1);
const CONTACT: &str = "Contact: <sip:bob@192.0.2.2:5060>\r\nAllow: INVITE, UPDATE\r\n";

/// The headers of a reliable response of the far end.
fn rseq(number: u32) -> String {
    format!("{CONTACT}Require: 100rel\r\nRSeq: {number}\r\n")
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers.get(name).unwrap_or_default()
}

/// Our call, with its INVITE.
fn calling(bench: &mut Bench) -> (SessionId, Request) {
    let id = bench.invite(target(THEM));
    (id, bench.request("INVITE"))
}

/// Their call with these headers; its session.
fn called(bench: &mut Bench, extra: &str, body: &str) -> SessionId {
    bench.feed(request_with("INVITE", "", 1, "i1", extra, body));
    let (id, event) = bench.events.pop_front().unwrap();
    assert!(matches!(event, SessionEvent::Invited(_)));
    bench.response(100);
    id
}

fn prack(tag: &str, seq: u32, rack: &str, body: &str) -> Vec<u8> {
    request_with("PRACK", tag, seq, &format!("p{seq}"), &format!("RAck: {rack}\r\n"), body)
}

fn number(response: &Response) -> u32 {
    assert_eq!(response.headers.get("Require"), Some("100rel"));
    response.headers.get("RSeq").unwrap().parse().unwrap()
}

#[test]
fn a_reliable_response_is_acknowledged_once_and_in_order() {
    let mut bench = Bench::new();
    let (_, invite) = calling(&mut bench);
    assert_eq!(header(&invite, "Supported"), "100rel, timer");
    bench.feed(reply(&invite, 183, "t", &rseq(7), "answer"));
    let first = bench.request("PRACK");
    assert_eq!((header(&first, "RAck"), seq_of(&first)), ("7 1 INVITE", 2));
    assert_eq!(first.uri.to_string(), "sip:bob@192.0.2.2:5060");
    assert!(header(&first, "To").ends_with(";tag=t"));
    // Repeated, because the PRACK was lost; and one that came too early.
    bench.feed(reply(&invite, 183, "t", &rseq(7), "answer"));
    bench.feed(reply(&invite, 180, "t", &rseq(9), ""));
    assert!(bench.sent.is_empty());
    bench.feed(reply(&invite, 180, "t", &rseq(8), ""));
    assert_eq!(header(&bench.request("PRACK"), "RAck"), "8 1 INVITE");
    assert_eq!(bench.words(), ["progress 183 0 true", "progress 180 0 false"]);
    bench.feed(reply(&first, 200, "", "", ""));
    // The 200 need not repeat what has been said reliably.
    bench.feed(reply(&invite, 200, "t", CONTACT, ""));
    assert_eq!(seq_of(&bench.request("ACK")), 1);
    let Some((_, SessionEvent::Answered { sdp: Some(answer) })) = bench.events.pop_front() else { panic!() };
    assert_eq!(answer.as_ref(), b"answer");
}

#[test]
fn a_prack_is_sent_again_until_it_is_answered_and_its_loss_ends_nothing() {
    let mut bench = Bench::new();
    let (_, invite) = calling(&mut bench);
    bench.feed(reply(&invite, 180, "t", &rseq(1), ""));
    bench.pass(SECOND * 2);
    assert_eq!(bench.sent.len(), 3);
    bench.pass(SECOND * 40);
    assert_eq!(bench.words(), ["progress 180 0 false"]);
}

#[test]
fn each_fork_is_acknowledged_in_its_own_dialog_and_the_first_answer_wins() {
    let mut bench = Bench::new();
    let (id, invite) = calling(&mut bench);
    let at = |port: u16, more: &str| format!("Contact: <sip:bob@192.0.2.2:{port}>\r\n{more}");
    let says = "Require: 100rel\r\nRSeq: 1\r\n";
    bench.feed(reply(&invite, 183, "a", &at(5071, says), "media of a"));
    bench.feed(reply(&invite, 183, "b", &at(5072, says), "media of b"));
    for (tag, port) in [("a", 5071), ("b", 5072)] {
        let (to, _) = *bench.sent.front().as_ref().unwrap();
        assert_eq!(to.addr.port(), port);
        let prack = bench.request("PRACK");
        assert!(header(&prack, "To").ends_with(&format!(";tag={tag}")));
        bench.feed(reply(&prack, 200, "", "", ""));
    }
    bench.feed(reply(&invite, 200, "b", &at(5072, ""), ""));
    assert!(header(&bench.request("ACK"), "To").ends_with(";tag=b"));
    bench.feed(reply(&invite, 200, "a", &at(5071, ""), "media of a"));
    assert!(header(&bench.request("ACK"), "To").ends_with(";tag=a"));
    assert!(header(&bench.request("BYE"), "To").ends_with(";tag=a"));
    let told: Vec<_> = bench.events.drain(..).collect();
    let Some((_, SessionEvent::Answered { sdp: Some(answer) })) = told.last() else { panic!("{told:?}") };
    assert_eq!((answer.as_ref(), told.len()), (&b"media of b"[..], 3));
    bench.session(id, |s, now| s.hang_up(now, None));
    assert!(header(&bench.request("BYE"), "To").ends_with(";tag=b"));
}

#[test]
fn a_caller_that_requires_it_hears_everything_reliably_and_one_after_the_other() {
    let mut bench = Bench::new();
    let id = called(&mut bench, "Require: 100rel\r\n", "offer");
    bench.session(id, |s, now| s.ring(now, 180, None));
    bench.session(id, |s, now| s.ring(now, 183, Some(sdp("early"))));
    let ringing = bench.response(180);
    let (first, tag) = (number(&ringing), tag_of(&ringing));
    bench.pass(Duration::from_millis(3_600));
    let times = bench.sent.len();
    assert_eq!(times, 3, "at 0.5, 1.5 and 3.5 s");
    bench.sent.clear();
    bench.feed(prack(&tag, 2, &format!("{} 1 INVITE", first + 1), ""));
    bench.response(481);
    bench.feed(prack(&tag, 3, &format!("{first} 2 INVITE"), ""));
    bench.response(481);
    bench.feed(prack(&tag, 4, &format!("{first} 1 INVITE"), ""));
    bench.response(200);
    let early = bench.response(183);
    assert_eq!((number(&early), early.body.as_ref()), (first + 1, &b"early"[..]));
    // The 200 must not overtake a session description that may not have arrived.
    bench.session(id, |s, now| s.answer(now, sdp("early")));
    assert!(bench.sent.is_empty());
    bench.feed(prack(&tag, 5, &format!("{} 1 INVITE", first + 1), ""));
    bench.response(200);
    let answer = bench.response(200);
    assert!(answer.body.is_empty() && answer.headers.get("CSeq") == Some("1 INVITE"));
    bench.feed(request("ACK", &tag, 1, "a1", ""));
    assert_eq!(bench.words(), ["confirmed"]);
}

#[test]
fn a_response_without_a_description_is_overtaken_by_the_answer() {
    let mut bench = Bench::new();
    let id = called(&mut bench, "Require: 100rel\r\n", "offer");
    bench.session(id, |s, now| s.ring(now, 180, None));
    let ringing = bench.response(180);
    bench.session(id, |s, now| s.answer(now, sdp("answer")));
    assert_eq!(bench.response(200).body.as_ref(), b"answer");
    bench.feed(prack(&tag_of(&ringing), 2, &format!("{} 1 INVITE", number(&ringing)), ""));
    bench.response(200);
    bench.feed(request("ACK", &tag_of(&ringing), 1, "a1", ""));
    bench.pass(SECOND * 4);
    assert!(bench.sent.is_empty());
    assert_eq!(bench.words(), ["confirmed"]);
}

#[test]
fn a_caller_that_only_knows_it_hears_early_media_reliably_and_ringing_not() {
    let mut bench = Bench::new();
    let id = called(&mut bench, "Supported: 100rel\r\n", "offer");
    bench.session(id, |s, now| s.ring(now, 180, None));
    assert!(!bench.response(180).headers.has("RSeq"));
    bench.session(id, |s, now| s.ring(now, 183, Some(sdp("early"))));
    number(&bench.response(183));
    let mut bench = Bench::new();
    let id = called(&mut bench, "", "offer");
    bench.session(id, |s, now| s.ring(now, 183, Some(sdp("early"))));
    assert!(!bench.response(183).headers.has("RSeq"));
}

#[test]
fn a_reliable_response_that_nobody_acknowledges_ends_the_call() {
    let mut bench = Bench::new();
    let id = called(&mut bench, "Supported: 100rel\r\n", "offer");
    bench.session(id, |s, now| s.ring(now, 183, Some(sdp("early"))));
    bench.session(id, |s, now| s.answer(now, sdp("early")));
    bench.pass(Duration::from_millis(31_999));
    assert!(
        bench.sent.iter().all(|(_, message)| matches!(message, sip::Message::Response(r) if r.code == 183))
    );
    bench.sent.clear();
    bench.pass(Duration::from_millis(1));
    bench.response(504);
    assert_eq!(bench.words(), ["terminated Nobody TimedOut"]);
    bench.assert_empties();
}

#[test]
fn an_offer_of_ours_in_a_reliable_response_is_answered_in_the_prack() {
    let mut bench = Bench::new();
    let id = called(&mut bench, "Supported: 100rel\r\n", "");
    bench.session(id, |s, now| s.ring(now, 183, Some(sdp("our offer"))));
    let early = bench.response(183);
    let tag = tag_of(&early);
    bench.feed(prack(&tag, 2, &format!("{} 1 INVITE", number(&early)), "their answer"));
    bench.response(200);
    let Some((_, SessionEvent::OfferAnswered { sdp: Some(answer) })) = bench.events.pop_front() else {
        panic!()
    };
    assert_eq!(answer.as_ref(), b"their answer");
    bench.session(id, |s, now| s.answer(now, sdp("our offer")));
    assert!(bench.response(200).body.is_empty());
    // No answer is awaited in the ACK.
    bench.feed(request("ACK", &tag, 1, "a1", ""));
    assert_eq!(bench.words(), ["confirmed"]);
}

#[test]
fn a_further_offer_in_the_prack_is_answered_in_its_200() {
    let mut bench = Bench::new();
    let id = called(&mut bench, "Supported: 100rel\r\n", "offer");
    bench.session(id, |s, now| s.ring(now, 183, Some(sdp("early"))));
    let early = bench.response(183);
    let tag = tag_of(&early);
    bench.feed(prack(&tag, 2, &format!("{} 1 INVITE", number(&early)), "another offer"));
    assert_eq!(bench.words(), ["offer"]);
    bench.session(id, |s, now| s.answer(now, sdp("early")));
    assert!(bench.sent.is_empty(), "the PRACK is answered first");
    bench.session(id, |s, now| s.answer_offer(now, sdp("another answer")));
    let ok = bench.response(200);
    assert_eq!((ok.headers.get("CSeq"), ok.body.as_ref()), (Some("2 PRACK"), &b"another answer"[..]));
    assert_eq!(bench.response(200).headers.get("CSeq"), Some("1 INVITE"));
}

#[test]
fn an_update_before_the_answer_needs_an_agreement_first() {
    let mut bench = Bench::new();
    let (_, invite) = calling(&mut bench);
    let update = |seq: u32, body: &str| {
        let h = |name: &str| header(&invite, name).to_owned();
        format!(
            "UPDATE sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKu{seq}\r\n\
             From: {};tag=t\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {seq} UPDATE\r\nContact: <sip:bob@192.0.2.2:5088>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            h("To"),
            h("From"),
            h("Call-ID"),
            body.len()
        )
    };
    bench.feed(reply(&invite, 183, "t", CONTACT, "early"));
    bench.feed(update(1, "change"));
    bench.response(491);
    bench.feed(reply(&invite, 183, "t", &rseq(1), "early"));
    bench.request("PRACK");
    bench.feed(update(2, "change"));
    assert_eq!(bench.words(), ["progress 183 0 true", "progress 183 0 true", "offer"]);
    let (id, now) = (SessionId(1), bench.now);
    bench.endpoint.session(id).unwrap().answer_offer(now, sdp("changed"));
    bench.drain();
    assert_eq!(bench.response(200).body.as_ref(), b"changed");
    bench.feed(update(2, "change"));
    bench.response(200);
    bench.feed(update(1, "old").replace("z9hG4bKu1", "z9hG4bKu1b"));
    bench.response(500);
    // The answer comes from where the UPDATE said, and what was agreed last holds.
    bench.feed(reply(&invite, 200, "t", "Contact: <sip:bob@192.0.2.2:5088>\r\n", ""));
    assert_eq!(bench.sent.front().unwrap().0.addr.port(), 5088);
    bench.request("ACK");
    let Some((_, SessionEvent::Answered { sdp: Some(last) })) = bench.events.pop_front() else { panic!() };
    assert_eq!(last.as_ref(), b"change");
}

#[test]
fn our_update_goes_out_early_and_late() {
    let mut bench = Bench::new();
    let (id, invite) = calling(&mut bench);
    bench.session(id, |s, now| assert_eq!(s.update(now, sdp("u")), Err(SessionError::NotConfirmed)));
    bench.feed(reply(&invite, 183, "t", &rseq(1), "early"));
    let prack = bench.request("PRACK");
    bench.feed(reply(&prack, 200, "", "", ""));
    bench.session(id, |s, now| s.update(now, sdp("u")).unwrap());
    let update = bench.request("UPDATE");
    assert_eq!((seq_of(&update), update.body.as_ref()), (3, &b"u"[..]));
    assert!(!update.headers.has("Session-Expires"));
    bench.feed(reply(&update, 200, "", CONTACT, "u answered"));
    bench.feed(reply(&invite, 200, "t", CONTACT, ""));
    bench.request("ACK");
    bench.session(id, |s, now| s.update(now, sdp("v")).unwrap());
    let update = bench.request("UPDATE");
    bench.feed(reply(&update, 504, "", "", ""));
    bench.events.pop_front();
    assert_eq!(bench.words(), ["offer answered", "answered", "offer refused 504"]);
    // Who does not say that it takes UPDATE is not sent any.
    let (id, _) = bench.answered();
    bench.session(id, |s, now| assert_eq!(s.update(now, sdp("u")), Err(SessionError::Unsupported)));
}

#[test]
fn a_call_that_is_cancelled_while_a_prack_is_awaited_is_over() {
    let mut bench = Bench::new();
    let id = called(&mut bench, "Supported: 100rel\r\n", "offer");
    bench.session(id, |s, now| s.ring(now, 183, Some(sdp("early"))));
    bench.response(183);
    bench.session(id, |s, now| s.answer(now, sdp("early")));
    bench.feed(request("CANCEL", "", 1, "i1", ""));
    bench.response(200);
    bench.response(487);
    bench.feed(request("ACK", "", 1, "i1", ""));
    bench.pass(SECOND * 40);
    assert!(bench.sent.is_empty());
    let Some((_, SessionEvent::Terminated(end))) = bench.events.pop_back() else { panic!() };
    assert_eq!(end.cause, TerminationCause::Cancelled);
    bench.assert_empties();
}
