//! What the tests share: a bench with one endpoint and a hand-written far end, and a network of endpoints with a clock of
//! its own. Nothing here waits.

#![expect(dead_code, reason = "each test binary uses its own part of this")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::{
    Config, Endpoint, Inbound, Message, Peer, Request, Response, SessionEvent, SessionId, Target, Transmit,
    parse::parse,
};

/// One instant to count from.
#[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn peer(text: &str) -> Peer {
    Peer::udp(text.parse().unwrap())
}

pub(crate) const US: &str = "192.0.2.1:5060";
pub(crate) const THEM: &str = "192.0.2.2:5060";

pub(crate) fn config(local: &str) -> Config {
    Config { inbound: Inbound::Anyone, ..Config::new(local.parse().unwrap()) }
}

pub(crate) fn target(to: &str) -> Target {
    Target::new(format!("sip:bob@{to}").parse().unwrap(), "sip:alice@example.com".parse().unwrap(), peer(to))
}

pub(crate) fn sdp(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// One word per event, with the part that matters.
pub(crate) fn word(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Trying => "trying".into(),
        SessionEvent::Progress { code, dialog, sdp, .. } => {
            format!("progress {code} {} {}", dialog.0, sdp.is_some())
        }
        SessionEvent::Answered { .. } => "answered".into(),
        SessionEvent::Invited(_) => "invited".into(),
        SessionEvent::Confirmed { .. } => "confirmed".into(),
        SessionEvent::Offer { .. } => "offer".into(),
        SessionEvent::OfferAnswered { .. } => "offer answered".into(),
        SessionEvent::OfferRefused { code } => format!("offer refused {code}"),
        SessionEvent::Info { .. } => "info".into(),
        SessionEvent::Transfer(step) => format!("transfer {step:?}"),
        SessionEvent::Terminated(end) => format!("terminated {:?} {:?}", end.by, end.cause),
    }
}

/// One endpoint, and what it sent and told.
pub(crate) struct Bench {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Instant,
    pub(crate) sent: VecDeque<(Peer, Message)>,
    pub(crate) events: VecDeque<(SessionId, SessionEvent)>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(config(US))
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            endpoint: Endpoint::new(config, [7; 32]),
            now: start(),
            sent: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn drain(&mut self) {
        while let Some(Transmit { to, bytes }) = self.endpoint.poll_transmit() {
            self.sent.push_back((to, seen(&bytes)));
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Lets time pass, with every timeout at its moment.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    pub(crate) fn feed_from(&mut self, from: &str, bytes: &[u8]) {
        self.endpoint.handle_datagram(self.now, peer(from), bytes);
        self.drain();
    }

    pub(crate) fn feed(&mut self, message: impl Into<Vec<u8>>) {
        self.feed_from(THEM, &message.into());
    }

    pub(crate) fn invite(&mut self, target: Target) -> SessionId {
        let id = self.endpoint.invite(self.now, target, sdp("offer")).unwrap();
        self.drain();
        id
    }

    /// Does something with a live session.
    pub(crate) fn session(&mut self, id: SessionId, act: impl FnOnce(&mut sip::Session<'_>, Instant)) {
        let now = self.now;
        act(&mut self.endpoint.session(id).unwrap(), now);
        self.drain();
    }

    /// The next request that was sent; it must have this method.
    pub(crate) fn request(&mut self, method: &str) -> Request {
        match self.sent.pop_front() {
            Some((_, Message::Request(request))) if request.method.as_str() == method => request,
            other => panic!("expected {method}, not {other:?}"),
        }
    }

    /// The next response that was sent; it must have this code.
    pub(crate) fn response(&mut self, code: u16) -> Response {
        match self.sent.pop_front() {
            Some((_, Message::Response(response))) if response.code == code => response,
            other => panic!("expected {code}, not {other:?}"),
        }
    }

    pub(crate) fn words(&mut self) -> Vec<String> {
        self.events.drain(..).map(|(_, event)| word(&event)).collect()
    }

    /// Nothing is left after the last call.
    pub(crate) fn assert_empties(&mut self) {
        self.pass(Duration::from_secs(120));
        assert_eq!(self.endpoint.counts(), sip::Counts::default());
        assert_eq!(self.endpoint.poll_timeout(), None);
    }

    /// A call of ours that has been answered by a far end with tag `t`.
    pub(crate) fn answered(&mut self) -> (SessionId, Request) {
        let id = self.invite(target(THEM));
        let invite = self.request("INVITE");
        self.feed(reply(&invite, 200, "t", "Contact: <sip:bob@192.0.2.2:5060>\r\n", "answer"));
        let ack = self.request("ACK");
        assert_eq!(self.words(), ["answered"]);
        (id, ack)
    }

    /// A call of theirs (tag `them`) that we have answered and they confirmed; our tag comes with it.
    pub(crate) fn taken(&mut self) -> (SessionId, String) {
        self.feed(request("INVITE", "", 1, "i1", "offer"));
        let (id, _) = self.events.pop_front().unwrap();
        self.response(100);
        self.session(id, |session, now| session.answer(now, sdp("answer")));
        let tag = tag_of(&self.response(200));
        self.feed(request("ACK", &tag, 1, "a1", ""));
        assert_eq!(self.words(), ["confirmed"]);
        (id, tag)
    }
}

/// What was sent, read back. The refusal of a malformed request repeats what was malformed, so that only its first line need
/// be readable; everything else must be.
fn seen(bytes: &[u8]) -> Message {
    parse(bytes).unwrap_or_else(|error| {
        let code =
            [400, 505].into_iter().find(|code| bytes.starts_with(format!("SIP/2.0 {code} ").as_bytes()));
        Message::Response(Response::new(
            code.unwrap_or_else(|| panic!("{error}: {}", String::from_utf8_lossy(bytes))),
        ))
    })
}

/// A response by hand to a request of ours.
pub(crate) fn reply(request: &Request, code: u16, to_tag: &str, extra: &str, body: &str) -> Vec<u8> {
    let h = |name: &str| request.headers.get(name).unwrap().to_owned();
    let to = if to_tag.is_empty() || h("To").contains(";tag=") {
        h("To")
    } else {
        format!("{};tag={to_tag}", h("To"))
    };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "SIP/2.0 {code} {}\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
        sip::reason_phrase(code),
        h("Via"),
        h("From"),
        h("Call-ID"),
        h("CSeq"),
        body.len()
    )
    .into_bytes()
}

/// A request by hand to us, from the far end with tag `them`, in call `call-1`.
pub(crate) fn request(method: &str, our_tag: &str, seq: u32, branch: &str, body: &str) -> Vec<u8> {
    request_with(method, our_tag, seq, branch, "", body)
}

pub(crate) fn request_with(
    method: &str,
    our_tag: &str,
    seq: u32,
    branch: &str,
    extra: &str,
    body: &str,
) -> Vec<u8> {
    let tag = if our_tag.is_empty() { String::new() } else { format!(";tag={our_tag}") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:me@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:them@example.net>;tag=them\r\nTo: <sip:me@example.com>{tag}\r\nCall-ID: call-1\r\nCSeq: {seq} {method}\r\n\
         Contact: <sip:them@192.0.2.2:5060>\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(crate) fn tag_of(response: &Response) -> String {
    let to: sip::NameAddr = response.headers.get("To").unwrap().parse().unwrap();
    to.tag().unwrap().to_owned()
}

pub(crate) fn seq_of(request: &Request) -> u32 {
    request.headers.get("CSeq").unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// How a network treats a datagram: after these delays a copy arrives; none when it is lost.
pub(crate) type Weather = Box<dyn FnMut() -> Vec<Duration>>;

/// Endpoints on a network with a clock of its own.
pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) nodes: Vec<(SocketAddr, Endpoint)>,
    pub(crate) events: Vec<(usize, SessionId, SessionEvent)>,
    pub(crate) trace: Vec<String>,
    weather: Weather,
    flying: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Bytes)>,
    count: u64,
    /// Datagrams to these addresses are handed out instead: a part of the test plays there.
    pub(crate) outside: BTreeSet<SocketAddr>,
    pub(crate) to_outside: VecDeque<(SocketAddr, SocketAddr, Bytes)>,
}

impl Net {
    pub(crate) fn new(weather: Weather) -> Self {
        let now = start();
        Self {
            now,
            start: now,
            nodes: Vec::new(),
            events: Vec::new(),
            trace: Vec::new(),
            weather,
            flying: BTreeMap::new(),
            count: 0,
            outside: BTreeSet::new(),
            to_outside: VecDeque::new(),
        }
    }

    pub(crate) fn add(&mut self, config: Config, seed: u8) -> usize {
        self.nodes.push((config.local, Endpoint::new(config, [seed; 32])));
        self.nodes.len() - 1
    }

    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        let port = |addr: SocketAddr| addr.port();
        self.trace.push(format!("{} > {} {}", port(from), port(to), headline(bytes)));
        for delay in (self.weather)() {
            self.count += 1;
            self.flying.insert((self.now + delay, self.count), (from, to, bytes.clone()));
        }
    }

    /// Collects what all endpoints have to say.
    pub(crate) fn drain(&mut self) {
        for at in 0..self.nodes.len() {
            let from = self.nodes[at].0;
            while let Some(Transmit { to, bytes }) = self.nodes[at].1.poll_transmit() {
                self.send(from, to.addr, &bytes);
            }
            while let Some((id, event)) = self.nodes[at].1.poll_event() {
                self.events.push((at, id, event));
            }
        }
    }

    pub(crate) fn next_moment(&self) -> Option<Instant> {
        let flying = self.flying.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.iter().filter_map(|(_, endpoint)| endpoint.poll_timeout());
        timers.chain(flying).min()
    }

    /// Goes to the next moment at which something happens, not beyond `end`. False when nothing does.
    pub(crate) fn step(&mut self, end: Instant) -> bool {
        let Some(at) = self.next_moment().filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= at) {
            let (from, to, bytes) = entry.remove();
            if self.outside.contains(&to) {
                self.to_outside.push_back((from, to, bytes));
                return true;
            }
            if let Some((_, endpoint)) = self.nodes.iter_mut().find(|(addr, _)| *addr == to) {
                endpoint.handle_datagram(self.now, Peer::udp(from), &bytes);
            }
            self.drain();
        }
        for node in &mut self.nodes {
            node.1.handle_timeout(self.now);
        }
        self.drain();
        true
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    pub(crate) fn endpoint(&mut self, node: usize) -> &mut Endpoint {
        &mut self.nodes[node].1
    }
}

/// `INVITE 1` or `180 INVITE`.
pub(crate) fn headline(bytes: &[u8]) -> String {
    match parse(bytes) {
        Ok(Message::Request(request)) => request.method.to_string(),
        Ok(Message::Response(response)) => {
            let method = response.headers.get("CSeq").unwrap().split(' ').nth(1).unwrap().to_owned();
            format!("{} {method}", response.code)
        }
        Err(error) => format!("{error:?}"),
    }
}
