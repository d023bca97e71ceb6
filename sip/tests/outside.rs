//! The way in and the way out: who may call, what strangers get, where responses go, what our INVITE looks like.

mod common;

use bytes::Bytes;
use common::*;
use sip::{Inbound, InviteError, Network, Peer, SessionError, SessionEvent};

#[test]
fn nobody_may_call_in_unless_allowed() {
    let mut bench = Bench::with(sip::Config { inbound: Inbound::Nobody, ..config(US) });
    bench.feed(request("INVITE", "", 1, "i", "o"));
    bench.feed(b"INVITE sip:x SIP/9.0\r\nVia: SIP/2.0/UDP h\r\nFrom: a:b\r\nTo: a:b\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n".to_vec());
    assert!(bench.sent.is_empty() && bench.events.is_empty());
    bench.feed(request("OPTIONS", "", 1, "o", ""));
    assert_eq!(bench.response(200).headers.get("Allow"), Some(sip::ALLOW));
    let trunk = [Network::from("192.0.2.2".parse::<std::net::IpAddr>().unwrap())].into_iter().collect();
    let mut bench = Bench::with(sip::Config { inbound: Inbound::From(trunk), max_sessions: 1, ..config(US) });
    bench.feed_from("203.0.113.1:5060", &request("INVITE", "", 1, "i", "o"));
    assert!(bench.sent.is_empty());
    assert_eq!(bench.endpoint.poll_stranger().unwrap().addr, "203.0.113.1:5060".parse().unwrap());
    bench.feed(request("INVITE", "", 1, "i", "o"));
    assert_eq!(bench.words(), ["invited"]);
    assert_eq!(bench.endpoint.poll_stranger(), None);
    bench.response(100);
    let second = String::from_utf8(request("INVITE", "", 1, "j", "o")).unwrap().replace("call-1", "call-2");
    bench.feed(second);
    assert!(bench.response(503).headers.has("Retry-After"));
    assert_eq!(bench.endpoint.invite(bench.now, target(THEM), Bytes::new()), Err(InviteError::Busy));
}

#[test]
fn whose_calls_are_taken_may_change() {
    let from = |networks: &[(&str, u8)]| {
        let network = |(base, prefix): &(&str, u8)| Network { base: base.parse().unwrap(), prefix: *prefix };
        Inbound::From(networks.iter().map(network).collect())
    };
    let mut bench = Bench::with(sip::Config { inbound: Inbound::Nobody, ..config(US) });
    for (nth, (taken, invited)) in [
        (from(&[("192.0.2.0", 24)]), true),
        (from(&[("192.0.3.0", 24), ("2001:db8::", 32)]), false),
        (from(&[("::ffff:192.0.2.2", 128)]), true),
        (from(&[("192.0.2.2", 32)]), true),
        (from(&[]), false),
    ]
    .into_iter()
    .enumerate()
    {
        bench.endpoint.take_calls(taken.clone());
        let invite = String::from_utf8(request("INVITE", "", 1, &format!("i{nth}"), "o")).unwrap();
        bench.feed(invite.replace("call-1", &format!("call-{nth}")));
        assert_eq!(bench.words().len(), usize::from(invited), "{taken:?}");
    }
}

#[test]
fn requests_outside_of_dialogs_leave_no_trace() {
    let mut bench = Bench::new();
    for (method, tag, extra, code) in [
        ("OPTIONS", "", "", 200),
        ("NOTIFY", "", "", 200),
        ("REGISTER", "", "", 405),
        ("MESSAGE", "", "", 405),
        ("BYE", "", "", 481),
        ("BYE", "x", "", 481),
        ("INFO", "x", "", 481),
        ("PRACK", "", "", 481),
        ("INVITE", "x", "", 481),
        ("REFER", "", "", 603),
        ("OPTIONS", "", "Require: foo, bar\r\n", 420),
        ("INVITE", "", "Require: 100rel, precondition\r\n", 420),
        ("INVITE", "", "Session-Expires: 89\r\nSupported: timer\r\n", 422),
        ("INVITE", "", "Accept: text/plain\r\n", 406),
    ] {
        let bytes = request_with(method, tag, 1, "x", extra, "");
        bench.feed(bytes.clone());
        let first = bench.response(code);
        bench.feed(bytes);
        assert_eq!(bench.response(code), first, "the same answer to the same question: {method}");
        assert_eq!(bench.endpoint.counts(), sip::Counts::default(), "{method}");
    }
    bench.feed(request("ACK", "x", 1, "x", ""));
    bench.feed(request("ACK", "", 1, "x", ""));
    bench.feed(b"garbage\r\n\r\n".to_vec());
    bench.feed(b"\r\n\r\n".to_vec());
    bench.feed(vec![0xff; 2_000]);
    assert!(bench.sent.is_empty() && bench.endpoint.poll_timeout().is_none());
}

#[test]
fn responses_go_where_the_request_came_from() {
    let mut bench = Bench::new();
    let via = |via: &str| {
        let text = String::from_utf8(request("OPTIONS", "", 1, "x", "")).unwrap();
        text.replace("SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKx", via)
    };
    for (sent, to, stamped) in [
        (
            "SIP/2.0/UDP 10.0.0.1:5062;rport;branch=z9hG4bKx",
            "203.0.113.7:1024",
            "SIP/2.0/UDP 10.0.0.1:5062;rport=1024;branch=z9hG4bKx;received=203.0.113.7",
        ),
        (
            "SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bKx",
            "203.0.113.7:5062",
            "SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bKx;received=203.0.113.7",
        ),
        (
            "SIP/2.0/UDP 203.0.113.7;branch=z9hG4bKx",
            "203.0.113.7:5060",
            "SIP/2.0/UDP 203.0.113.7;branch=z9hG4bKx",
        ),
        (
            "SIP/2.0/UDP pbx.example:5070;branch=z9hG4bKx, SIP/2.0/UDP h2",
            "203.0.113.7:5070",
            "SIP/2.0/UDP pbx.example:5070;branch=z9hG4bKx;received=203.0.113.7, SIP/2.0/UDP h2",
        ),
    ] {
        bench.feed_from("203.0.113.7:1024", via(sent).as_bytes());
        assert_eq!(bench.sent.front().unwrap().0, peer(to), "{sent}");
        assert_eq!(bench.response(200).headers.get("Via"), Some(stamped));
    }
    let tcp = Peer::new(sip::Transport::Tcp, "203.0.113.7:1024".parse().unwrap());
    bench.endpoint.handle_datagram(
        bench.now,
        tcp,
        via("SIP/2.0/TCP 10.0.0.1:5062;branch=z9hG4bKx").as_bytes(),
    );
    assert_eq!(bench.endpoint.poll_transmit().unwrap().to, tcp);
}

/// FIELD 5.10 and 5.37: the caller id that was asked for is in From, and Contact is the signalling address.
#[test]
fn what_an_invite_of_ours_looks_like() {
    let mut bench = Bench::new();
    let mut wanted = target(THEM);
    wanted.from_display = Some("A \"quoted\" name".to_owned());
    wanted.headers = vec![("P-Asserted-Identity".to_owned(), "<sip:+1555@example.com>".to_owned())];
    bench.endpoint.invite(bench.now, wanted, sdp("v=0\r\n")).unwrap();
    let bytes = bench.endpoint.poll_transmit().unwrap().bytes;
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let names: Vec<_> =
        text.lines().take_while(|l| !l.is_empty()).map(|l| l.split(':').next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "INVITE sip",
            "Via",
            "Max-Forwards",
            "From",
            "To",
            "Call-ID",
            "CSeq",
            "Contact",
            "Allow",
            "Supported",
            "Session-Expires",
            "Min-SE",
            "User-Agent",
            "P-Asserted-Identity",
            "Content-Type",
            "Content-Length"
        ]
    );
    assert!(text.contains("Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK") && text.contains(";rport\r\n"));
    assert!(text.contains("From: \"A \\\"quoted\\\" name\" <sip:alice@example.com>;tag="));
    assert!(text.contains("Contact: <sip:alice@192.0.2.1:5060>\r\n"));
    assert!(text.contains("Supported: 100rel, timer\r\nSession-Expires: 1800\r\nMin-SE: 90\r\n"));
    assert!(text.ends_with("Content-Length: 5\r\n\r\nv=0\r\n"));
}

#[test]
fn nothing_can_be_smuggled_into_a_header() {
    let mut bench = Bench::new();
    let with =
        |name: &str, value: &str| sip::Target { headers: vec![(name.into(), value.into())], ..target(THEM) };
    for (target, error) in [
        (with("X-A", "b\r\nVia: evil"), InviteError::Header(0)),
        (with("X A", "b"), InviteError::Header(0)),
        (with("", "b"), InviteError::Header(0)),
        (with("v", "b"), InviteError::Header(0)),
        (with("Content-length", "0"), InviteError::Header(0)),
        (sip::Target { from_display: Some("a\nb".into()), ..target(THEM) }, InviteError::Display),
    ] {
        assert_eq!(bench.endpoint.invite(bench.now, target, Bytes::new()), Err(error));
    }
    let huge = Bytes::from(vec![b'x'; 65_000]);
    assert_eq!(bench.endpoint.invite(bench.now, target(THEM), huge), Err(InviteError::TooLarge));
    let (id, _) = bench.answered();
    bench.session(id, |s, now| assert_eq!(s.info(now, "a\r\nb: c", Bytes::new()), Err(SessionError::Value)));
}

#[test]
fn multipart_bodies_are_searched_and_others_refused() {
    let mut bench = Bench::new();
    let multipart = "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n";
    let text = String::from_utf8(request("INVITE", "", 1, "i", multipart)).unwrap();
    bench.feed(
        text.replace("application/sdp\r\nContent-Length", "multipart/mixed;boundary=b\r\nContent-Length"),
    );
    let Some((_, SessionEvent::Invited(invite))) = bench.events.pop_front() else { panic!() };
    assert_eq!(invite.sdp.as_deref(), Some(&b"v=0"[..]));
    bench.response(100);
    let text = String::from_utf8(request("INVITE", "", 1, "i2", "x")).unwrap().replace("call-1", "call-2");
    bench.feed(text.replace("application/sdp\r\nContent-Length", "text/html\r\nContent-Length"));
    assert_eq!(bench.response(415).headers.get("Accept"), Some("application/sdp"));
}

#[test]
fn a_call_without_offer_gets_ours_in_the_200() {
    let mut bench = Bench::new();
    bench.feed(request("INVITE", "", 1, "i", ""));
    let id = bench.events.pop_front().unwrap().0;
    bench.session(id, |s, now| s.answer(now, sdp("our offer")));
    bench.response(100);
    let tag = tag_of(&bench.response(200));
    bench.feed(request("ACK", &tag, 1, "a", "their answer"));
    let Some((_, SessionEvent::Confirmed { sdp: Some(answer) })) = bench.events.pop_front() else { panic!() };
    assert_eq!(answer.as_ref(), b"their answer");
}
