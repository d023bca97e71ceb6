//! Session timers (RFC 4028) from both sides: who refreshes, by what, and what happens when nobody does.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::*;
use sip::{Request, Response, SessionEvent, SessionId};

const SECOND: Duration = Duration::from_secs(1);
const UPDATES: &str = "Allow: INVITE, UPDATE\r\n";

/// Our call, answered with these headers.
fn answered(bench: &mut Bench, extra: &str) -> SessionId {
    let id = bench.invite(target(THEM));
    let invite = bench.request("INVITE");
    let extra = format!("Contact: <sip:bob@192.0.2.2:5060>\r\n{extra}");
    bench.feed(reply(&invite, 200, "t", &extra, "answer"));
    bench.request("ACK");
    assert_eq!(bench.words(), ["answered"]);
    id
}

/// Their call with these headers, answered; our 200.
fn taken(bench: &mut Bench, extra: &str) -> Response {
    bench.feed(request_with("INVITE", "", 1, "i1", extra, "offer"));
    let (id, _) = bench.events.pop_front().unwrap();
    bench.response(100);
    bench.session(id, |s, now| s.answer(now, sdp("answer")));
    let ok = bench.response(200);
    bench.feed(request("ACK", &tag_of(&ok), 1, "a1", ""));
    assert_eq!(bench.words(), ["confirmed"]);
    ok
}

fn of<'a>(headers: &'a sip::Headers, name: &str) -> &'a str {
    headers.get(name).unwrap_or_default()
}

fn refresh(bench: &mut Bench, method: &str) -> Request {
    let refresh = bench.request(method);
    assert_eq!(of(&refresh.headers, "Session-Expires"), "90;refresher=uac");
    assert_eq!(of(&refresh.headers, "Supported"), "100rel, timer");
    refresh
}

/// FIELD 5.3: the time that the callee imposes is kept.
#[test]
fn we_refresh_at_half_time_by_update_where_it_is_taken() {
    let mut bench = Bench::new();
    answered(&mut bench, &format!("{UPDATES}Require: timer\r\nSession-Expires: 90;refresher=uac\r\n"));
    bench.pass(Duration::from_millis(44_999));
    assert!(bench.sent.is_empty());
    bench.pass(Duration::from_millis(1));
    for _ in 0..3 {
        let update = refresh(&mut bench, "UPDATE");
        assert!(update.body.is_empty());
        bench.feed(reply(&update, 200, "", "Session-Expires: 90;refresher=uac\r\n", ""));
        bench.pass(SECOND * 45);
    }
    assert_eq!(bench.words(), [""; 0]);
}

#[test]
fn where_update_is_not_taken_the_last_description_is_offered_again() {
    let mut bench = Bench::new();
    answered(&mut bench, "Session-Expires: 90;refresher=uac\r\n");
    bench.pass(SECOND * 45);
    let reinvite = refresh(&mut bench, "INVITE");
    assert_eq!(reinvite.body.as_ref(), b"offer");
    bench.feed(reply(&reinvite, 200, "", "Session-Expires: 90;refresher=uac\r\n", "answer"));
    bench.request("ACK");
    assert_eq!(bench.words(), ["offer answered"]);
    // One that says it takes UPDATE and does not.
    let mut bench = Bench::new();
    answered(&mut bench, &format!("{UPDATES}Session-Expires: 90;refresher=uac\r\n"));
    bench.pass(SECOND * 45);
    let update = refresh(&mut bench, "UPDATE");
    bench.feed(reply(&update, 501, "", "", ""));
    bench.pass(SECOND);
    refresh(&mut bench, "INVITE");
}

/// FIELD 5.2: a refresh and the BYE do not share a number.
#[test]
fn a_refused_refresh_is_tried_again_and_a_session_that_nobody_refreshed_is_ended() {
    let mut bench = Bench::new();
    answered(&mut bench, &format!("{UPDATES}Session-Expires: 90;refresher=uac\r\n"));
    bench.pass(SECOND * 45);
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let update = refresh(&mut bench, "UPDATE");
        numbers.push(seq_of(&update));
        bench.feed(reply(&update, 500, "", "", ""));
        bench.pass(SECOND * 5);
    }
    // 90 s less a third of it.
    let bye = bench.request("BYE");
    assert_eq!(of(&bye.headers, "Reason"), "Q.850;cause=102");
    numbers.push(seq_of(&bye));
    assert_eq!(numbers, [2, 3, 4, 5]);
    assert_eq!(bench.words(), ["terminated Nobody Expired"]);
    bench.sent.clear();
    bench.assert_empties();
}

#[test]
fn a_refresh_that_meets_no_dialog_or_no_answer_ends_the_session() {
    for code in [481, 408] {
        let mut bench = Bench::new();
        answered(&mut bench, &format!("{UPDATES}Session-Expires: 1800;refresher=uac\r\n"));
        bench.pass(SECOND * 900);
        let update = bench.request("UPDATE");
        bench.feed(reply(&update, code, "", "", ""));
        assert_eq!(bench.words().len(), 1, "{code}");
    }
    let mut bench = Bench::new();
    answered(&mut bench, &format!("{UPDATES}Session-Expires: 1800;refresher=uac\r\n"));
    bench.pass(SECOND * 940);
    assert_eq!(bench.words(), ["terminated Nobody TimedOut"]);
}

#[test]
fn when_they_refresh_we_wait_and_give_up_in_time() {
    let mut bench = Bench::new();
    let id = answered(&mut bench, "Require: timer\r\nSession-Expires: 90;refresher=uas\r\n");
    bench.pass(SECOND * 50);
    assert!(bench.sent.is_empty());
    let (call_id, tag) = {
        let session = bench.endpoint.session(id).unwrap();
        (session.call_id().to_owned(), session_tag(&mut bench.endpoint, id))
    };
    let update = format!(
        "UPDATE sip:a@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKu\r\n\
         From: <sip:bob@192.0.2.2:5060>;tag=t\r\nTo: <sip:alice@example.com>;tag={tag}\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 UPDATE\r\nSupported: timer\r\nSession-Expires: 90;refresher=uac\r\nContent-Length: 0\r\n\r\n"
    );
    bench.feed(update);
    let ok = bench.response(200);
    assert_eq!(of(&ok.headers, "Session-Expires"), "90;refresher=uac");
    assert_eq!(of(&ok.headers, "Require"), "timer");
    bench.pass(Duration::from_millis(59_999));
    assert!(bench.sent.is_empty());
    bench.pass(Duration::from_millis(1));
    bench.request("BYE");
    assert_eq!(bench.words(), ["terminated Nobody Expired"]);
}

fn session_tag(endpoint: &mut sip::Endpoint, id: SessionId) -> String {
    endpoint.session(id).unwrap().replaces().unwrap().1.from_tag
}

#[test]
fn an_interval_too_small_is_asked_for_again_with_theirs() {
    let mut bench = Bench::new();
    bench.invite(target(THEM));
    let first = bench.request("INVITE");
    assert_eq!((of(&first.headers, "Session-Expires"), of(&first.headers, "Min-SE")), ("1800", "90"));
    bench.feed(reply(&first, 422, "x", "Min-SE: 3600\r\n", ""));
    bench.request("ACK");
    let second = bench.request("INVITE");
    assert_eq!((of(&second.headers, "Session-Expires"), of(&second.headers, "Min-SE")), ("3600", "3600"));
    assert_eq!((seq_of(&second), second.body.as_ref()), (2, &b"offer"[..]));
    assert_eq!(second.headers.get("Call-ID"), first.headers.get("Call-ID"));
    assert_ne!(second.headers.get("Via"), first.headers.get("Via"));
    // The same demand again would go on for ever.
    bench.feed(reply(&second, 422, "y", "Min-SE: 3600\r\n", ""));
    bench.request("ACK");
    assert!(bench.sent.is_empty());
    let Some((_, SessionEvent::Terminated(_))) = bench.events.pop_back() else { panic!() };
    bench.assert_empties();
}

#[test]
fn an_answer_without_a_timer_has_none() {
    let mut bench = Bench::new();
    answered(&mut bench, UPDATES);
    bench.pass(SECOND * 10_000);
    assert!(bench.sent.is_empty());
}

#[test]
fn a_caller_may_choose_the_refresher_and_otherwise_we_are() {
    for (asked, granted, required) in [
        ("Supported: timer\r\nSession-Expires: 90\r\n", "90;refresher=uas", ""),
        ("Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n", "90;refresher=uac", "timer"),
        ("Require: timer\r\nSession-Expires: 90;refresher=uas\r\n", "90;refresher=uas", ""),
        ("Supported: timer\r\n", "1800;refresher=uas", ""),
        ("Supported: timer\r\nMin-SE: 2000\r\n", "2000;refresher=uas", ""),
        // A proxy has put it in for a caller that knows nothing of it.
        ("Session-Expires: 60\r\n", "60;refresher=uas", ""),
        ("", "", ""),
    ] {
        let mut bench = Bench::new();
        let ok = taken(&mut bench, asked);
        assert_eq!(of(&ok.headers, "Session-Expires"), granted, "{asked}");
        assert_eq!(of(&ok.headers, "Require"), required, "{asked}");
    }
}

#[test]
fn as_the_called_side_we_refresh_and_an_impossible_reinvite_is_refused() {
    let mut bench = Bench::new();
    let ok = taken(&mut bench, &format!("{UPDATES}Supported: timer\r\nSession-Expires: 90\r\n"));
    bench.pass(SECOND * 45);
    let update = refresh(&mut bench, "UPDATE");
    bench.feed(reply(&update, 200, "", "Session-Expires: 90;refresher=uac\r\n", ""));
    let short = "Supported: timer\r\nSession-Expires: 30\r\n";
    bench.feed(request_with("INVITE", &tag_of(&ok), 2, "r2", short, "offer"));
    assert_eq!(of(&bench.response(422).headers, "Min-SE"), "90");
}

#[test]
fn a_refresh_waits_while_an_offer_is_open() {
    let mut bench = Bench::new();
    let ok = taken(&mut bench, &format!("{UPDATES}Supported: timer\r\nSession-Expires: 90\r\n"));
    bench.pass(SECOND * 44);
    bench.feed(request("INVITE", &tag_of(&ok), 2, "r2", "hold"));
    bench.response(100);
    bench.pass(SECOND * 2);
    assert!(bench.sent.is_empty());
    bench.session(SessionId(1), |s, now| s.answer_offer(now, sdp("held")));
    let held = bench.response(200);
    // Who does not repeat the timer and does not know it is refreshed all the same: we are the one who refreshes.
    assert_eq!(of(&held.headers, "Session-Expires"), "1800;refresher=uas");
}
