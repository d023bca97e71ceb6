//! The basic call flows of RFC 3665, message by message, between two endpoints on a network that loses nothing; for the
//! proxies of §3.2 a small loose-routing one stands between them.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use sip::headers::Via;
use sip::parse::parse;
use sip::{Message, NameAddr, Q850, SessionEvent, SessionId, Target};

const ALICE: &str = "10.0.0.1:5061";
const BOB: &str = "10.0.0.2:5062";
const PROXY: &str = "10.0.0.9:5069";

/// A proxy that stays in the path (RFC 3261 §16) and keeps no state.
struct Proxy {
    addr: SocketAddr,
    /// Where requests without a route go.
    onward: SocketAddr,
}

impl Proxy {
    fn forward(&self, bytes: &[u8]) -> (SocketAddr, Bytes) {
        match parse(bytes).unwrap() {
            Message::Response(mut response) => {
                let vias: Vec<String> = response.headers.list("Via").skip(1).map(str::to_owned).collect();
                response.headers.remove("Via");
                for via in vias.iter().rev() {
                    response.headers.push_front("Via", via.clone());
                }
                let next: Via = vias[0].parse().unwrap();
                (SocketAddr::new(next.host.ip().unwrap(), next.port.unwrap()), response.to_bytes())
            }
            Message::Request(mut request) => {
                let routes: Vec<String> = request.headers.list("Route").skip(1).map(str::to_owned).collect();
                let routed = request.headers.has("Route");
                request.headers.remove("Route");
                for route in &routes {
                    request.headers.push("Route", route.clone());
                }
                let branch = format!("SIP/2.0/UDP {};branch=z9hG4bKp{}", self.addr, branch_of(&request));
                request.headers.push_front("Via", branch);
                if request.method.as_str() == "INVITE" {
                    request.headers.push_front("Record-Route", format!("<sip:{};lr>", self.addr));
                }
                let uri = request.uri.as_sip().unwrap();
                let next = SocketAddr::new(uri.host.ip().unwrap(), uri.port.unwrap());
                (if routed { next } else { self.onward }, request.to_bytes())
            }
        }
    }
}

/// The same for an INVITE, its CANCEL and the ACK of its refusal: made from the branch that came.
fn branch_of(request: &sip::Request) -> String {
    let via: Via = request.headers.list("Via").next().unwrap().parse().unwrap();
    via.branch().unwrap_or_default().to_owned()
}

struct Stage {
    net: Net,
    proxy: Option<Proxy>,
    told: VecDeque<(usize, SessionId, SessionEvent)>,
}

impl Stage {
    fn new() -> Self {
        let mut net = Net::new(Box::new(|| vec![Duration::from_millis(10)]));
        net.add(config(ALICE), 1);
        net.add(config(BOB), 2);
        Self { net, proxy: None, told: VecDeque::new() }
    }

    fn with_proxy() -> Self {
        let mut stage = Self::new();
        let addr: SocketAddr = PROXY.parse().unwrap();
        stage.net.outside.insert(addr);
        stage.proxy = Some(Proxy { addr, onward: BOB.parse().unwrap() });
        stage
    }

    fn run(&mut self, ms: u64) {
        let end = self.net.now + Duration::from_millis(ms);
        while self.net.step(end) {
            while let Some((_, at, bytes)) = self.net.to_outside.pop_front() {
                let (to, bytes) = self.proxy.as_ref().unwrap().forward(&bytes);
                self.net.send(at, to, &bytes);
            }
        }
        self.told.extend(self.net.events.drain(..));
    }

    fn call(&mut self, via: &str) -> SessionId {
        let now = self.net.now;
        let id = self
            .net
            .endpoint(0)
            .invite(now, Target { peer: peer(via), ..target(BOB) }, sdp("offer"))
            .unwrap();
        self.net.drain();
        self.run(100);
        id
    }

    fn bob(&self) -> SessionId {
        self.told.iter().find(|(node, ..)| *node == 1).unwrap().1
    }

    fn act(
        &mut self,
        node: usize,
        id: SessionId,
        act: impl FnOnce(&mut sip::Session<'_>, std::time::Instant),
    ) {
        let now = self.net.now;
        act(&mut self.net.endpoint(node).session(id).unwrap(), now);
        self.net.drain();
        self.run(100);
    }

    /// The flow so far, with A for Alice, B for Bob and P for the proxy.
    fn flow(&self) -> Vec<String> {
        let name = |line: &String| line.replace("5061", "A").replace("5062", "B").replace("5069", "P");
        self.net.trace.iter().map(name).collect()
    }

    fn words(&self, node: usize) -> Vec<String> {
        self.told.iter().filter(|(at, ..)| *at == node).map(|(_, _, event)| word(event)).collect()
    }

    /// Nothing is left at either end.
    fn close(&mut self) {
        let before = self.net.trace.len();
        self.run(120_000);
        assert_eq!(self.net.trace.len(), before, "more was said than the flow has");
        for node in 0..2 {
            assert_eq!(self.net.endpoint(node).counts(), sip::Counts::default());
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn session_establishment_3_1() {
    let mut stage = Stage::new();
    stage.call(BOB);
    let bob = stage.bob();
    stage.act(1, bob, |s, now| s.ring(now, 180, None));
    stage.act(1, bob, |s, now| s.answer(now, sdp("answer")));
    stage.act(1, bob, |s, now| s.hang_up(now, Some(Q850(16))));
    let flow = "
        A > B INVITE
        B > A 100 INVITE
        B > A 180 INVITE
        B > A 200 INVITE
        A > B ACK
        B > A BYE
        A > B 200 BYE";
    assert_eq!(stage.flow(), lines(flow));
    assert_eq!(stage.words(0), ["trying", "progress 180 0 false", "answered", "terminated Them Bye"]);
    assert_eq!(stage.words(1), ["invited", "confirmed", "terminated Us Bye"]);
    let Some((_, _, SessionEvent::Terminated(end))) = stage.told.iter().rfind(|(node, ..)| *node == 0) else {
        panic!()
    };
    assert_eq!(end.q850, Some(16));
    stage.close();
}

#[test]
fn session_establishment_through_a_proxy_3_2() {
    let mut stage = Stage::with_proxy();
    let alice = stage.call(PROXY);
    let bob = stage.bob();
    stage.act(1, bob, |s, now| s.ring(now, 180, None));
    stage.act(1, bob, |s, now| s.answer(now, sdp("answer")));
    stage.act(0, alice, |s, now| s.reinvite(now, sdp("hold")).unwrap());
    stage.act(1, bob, |s, now| s.answer_offer(now, sdp("held")));
    stage.act(1, bob, |s, now| s.info(now, "application/dtmf-relay", sdp("Signal=5")).unwrap());
    stage.act(0, alice, |s, now| s.hang_up(now, None));
    let flow = "
        A > P INVITE
        P > B INVITE
        B > P 100 INVITE
        P > A 100 INVITE
        B > P 180 INVITE
        P > A 180 INVITE
        B > P 200 INVITE
        P > A 200 INVITE
        A > P ACK
        P > B ACK
        A > P INVITE
        P > B INVITE
        B > P 100 INVITE
        P > A 100 INVITE
        B > P 200 INVITE
        P > A 200 INVITE
        A > P ACK
        P > B ACK
        B > P INFO
        P > A INFO
        A > P 200 INFO
        P > B 200 INFO
        A > P BYE
        P > B BYE
        B > P 200 BYE
        P > A 200 BYE";
    assert_eq!(stage.flow(), lines(flow));
    assert_eq!(stage.words(1), ["invited", "confirmed", "offer", "terminated Them Bye"]);
    let words = ["trying", "progress 180 0 false", "answered", "offer answered", "info", "terminated Us Bye"];
    assert_eq!(stage.words(0), words);
    stage.close();
}

#[test]
fn no_answer_3_8() {
    let mut stage = Stage::with_proxy();
    let alice = stage.call(PROXY);
    let bob = stage.bob();
    stage.act(1, bob, |s, now| s.ring(now, 180, None));
    stage.act(0, alice, |s, now| s.hang_up(now, None));
    let flow = "
        A > P INVITE
        P > B INVITE
        B > P 100 INVITE
        P > A 100 INVITE
        B > P 180 INVITE
        P > A 180 INVITE
        A > P CANCEL
        P > B CANCEL
        B > P 200 CANCEL
        B > P 487 INVITE
        P > A 200 CANCEL
        P > A 487 INVITE
        A > P ACK
        P > B ACK";
    assert_eq!(stage.flow(), lines(flow));
    assert_eq!(stage.words(0), ["trying", "progress 180 0 false", "terminated Us Cancelled"]);
    assert_eq!(stage.words(1), ["invited", "terminated Them Cancelled"]);
    stage.close();
}

#[test]
fn busy_and_other_refusals_3_9() {
    for code in [486, 404, 480, 503, 603] {
        let mut stage = Stage::new();
        stage.call(BOB);
        let bob = stage.bob();
        stage.act(1, bob, |s, now| s.reject(now, code, &[]));
        let flow = format!("A > B INVITE\nB > A 100 INVITE\nB > A {code} INVITE\nA > B ACK");
        assert_eq!(stage.flow(), lines(&flow));
        let reason = sip::reason_phrase(code);
        assert_eq!(
            stage.words(0).pop().unwrap(),
            format!("terminated Them Rejected {{ code: {code}, reason: {reason:?} }}")
        );
        stage.close();
    }
}

#[test]
fn no_response_at_all_3_10() {
    let mut stage = Stage::new();
    stage.call("10.0.0.77:5062");
    stage.run(40_000);
    assert_eq!(stage.flow(), vec!["A > B INVITE"; 7]);
    assert_eq!(stage.words(0), ["terminated Nobody NoResponse"]);
    stage.close();
}

#[test]
fn temporarily_moved_3_6() {
    let mut stage = Stage::new();
    stage.call(BOB);
    let bob = stage.bob();
    stage.act(1, bob, |s, now| s.reject(now, 302, &[("Contact", "<sip:bob@10.0.0.8>".to_owned())]));
    let Some((_, _, SessionEvent::Terminated(end))) = stage.told.iter().rfind(|(node, ..)| *node == 0) else {
        panic!()
    };
    let sip::TerminationCause::Redirected { code: 302, contacts } = &end.cause else { panic!("{end:?}") };
    assert_eq!(contacts[0].to_string(), "sip:bob@10.0.0.8");
    stage.close();
}

#[test]
fn a_lost_ack_is_sent_again_for_each_200() {
    let mut losses = 0;
    let mut stage = Stage::new();
    stage.net = {
        // The seventh datagram is the first ACK; the 183 with its session description has been acknowledged before.
        let mut net = Net::new(Box::new(move || {
            losses += 1;
            if losses == 7 { vec![] } else { vec![Duration::from_millis(10)] }
        }));
        net.add(config(ALICE), 1);
        net.add(config(BOB), 2);
        net
    };
    stage.call(BOB);
    let bob = stage.bob();
    stage.act(1, bob, |s, now| s.ring(now, 183, Some(sdp("early"))));
    stage.act(1, bob, |s, now| s.answer(now, sdp("answer")));
    stage.run(1_000);
    assert_eq!(stage.flow()[2..5], ["B > A 183 INVITE", "A > B PRACK", "B > A 200 PRACK"]);
    assert_eq!(stage.flow()[5..], ["B > A 200 INVITE", "A > B ACK", "B > A 200 INVITE", "A > B ACK"]);
    assert_eq!(stage.words(1), ["invited", "confirmed"]);
    assert_eq!(stage.words(0), ["trying", "progress 183 0 true", "answered"]);
}

#[test]
fn names_in_a_flow_are_those_that_were_given() {
    let mut stage = Stage::new();
    let now = stage.net.now;
    let called = Target { from_display: Some("Alice, \"A\"".to_owned()), ..target(BOB) };
    stage.net.endpoint(0).invite(now, called, sdp("offer")).unwrap();
    stage.net.drain();
    stage.run(100);
    let Some((1, _, SessionEvent::Invited(invite))) = stage.told.pop_front() else { panic!() };
    let from: &NameAddr = &invite.from;
    assert_eq!(from.display.as_deref(), Some("Alice, \"A\""));
    assert_eq!(invite.request_uri.to_string(), "sip:bob@10.0.0.2:5062");
    assert_eq!((invite.peer, invite.sdp), (peer(ALICE), Some(sdp("offer"))));
}
