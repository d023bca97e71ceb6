//! Who is let in, what waits, and what is forgotten; whole calls that come in, with hand-written messages and no socket.

use std::net::Ipv4Addr;

use media::Heard;

use super::*;
use crate::engine::{Input, LocalNet, Settings};
use crate::model::call::{CallOrder, Hop, Surface};
use crate::model::purpose::{Direction, Purpose};
use crate::model::trunk::TrunkProfile;
use crate::model::{CallId, PhoneNumber, Secret, Timestamp};

const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

struct Door {
    engine: Engine,
    now: Now,
    sent: Vec<String>,
    events: Vec<&'static str>,
    incoming: Vec<Incoming>,
    media: Vec<media::Command>,
}

fn trunk(name: &str, profile: TrunkProfile) -> TrunkPlan {
    TrunkPlan {
        endpoint: format!("{name}-endpoint"),
        host: "10.0.0.1".into(),
        port: None,
        hops: vec![Hop::udp((Ipv4Addr::new(10, 0, 0, 1), 5060).into())],
        username: name.into(),
        password: Secret("secret".into()),
        dial_prefix: String::new(),
        codecs: vec!["PCMU".into()],
        caller_id: None,
        no_response_timeout_ms: 2000,
        profile: Arc::new(profile),
    }
}

fn order(id: u128, trunk: &TrunkPlan) -> Arc<CallOrder> {
    Arc::new(CallOrder {
        id: CallId(id),
        kaphila_id: format!("1800000000.{id}"),
        surface: Surface::Kaphila,
        purpose: Purpose { direction: Direction::Inbound, ..Purpose::default() },
        key: 1,
        tenant: "default".into(),
        submitted_number: "+14155550123".into(),
        to: PhoneNumber::parse_lenient("14155550100").unwrap(),
        from: None,
        trunks: vec![trunk.clone()],
        redials_ms: Vec::new(),
        ring_timeout_ms: 0,
        max_duration_ms: 600_000,
        use_amd: false,
        record: false,
        record_channels: media::Channels::Mono,
        voice_name: "alloy".into(),
        webhook_url: None,
        created_at: Timestamp(0),
    })
}

impl Door {
    fn new(trunks: Vec<TrunkPlan>) -> Self {
        Self::with(trunks, Vec::new())
    }

    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    fn with(trunks: Vec<TrunkPlan>, local_nets: Vec<LocalNet>) -> Self {
        let ours: IpAddr = Ipv4Addr::new(10, 0, 0, 9).into();
        let settings = Settings {
            sip_address: ours,
            sip_address_other: None,
            media_address: ours,
            media_address_other: None,
            local_nets,
            rtp_bind: ours,
            rtp_ports: (10_000, 10_100),
            leg: media::LegSettings::default(),
            recordings: "rec".into(),
            playback_queue_max: 2,
            max_calls: 3,
            amd: media::AmdConfig::default(),
        };
        let mut engine = Engine::new(settings, sip::Config::new((ours, 5060).into()), [7; 32]);
        engine.direct(Arc::new(Directory::new(trunks)));
        let now = Now { mono: Instant::now(), wall: Timestamp(1_800_000_000_000) };
        let (sent, events, incoming, media) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { engine, now, sent, events, incoming, media }
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    self.sent.push(String::from_utf8(transmit.bytes.to_vec()).unwrap());
                }
                Output::Event(stamped) => self.events.push(stamped.event.name()),
                Output::Incoming(incoming) => self.incoming.push(incoming),
                Output::Media(command) => self.media.push(command),
                Output::Trunk(..) | Output::Overheard(..) => {}
            }
        }
    }

    fn feed(&mut self, from: &str, text: &str) {
        let peer = sip::Peer::udp(from.parse().unwrap());
        self.engine.handle(self.now, Input::Datagram(peer, text.as_bytes()));
        self.drain();
    }

    fn request(&mut self, method: &str, call: &str, more: &str, body: &str) {
        let seq = if more.contains("Authorization") || method == "BYE" { 2 } else { 1 };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let to = if method == "INVITE" || method == "CANCEL" { String::new() } else { self.tag() };
        let text = format!(
            "{method} sip:14155550100@10.0.0.9 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{call}{seq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+14155550123@10.0.0.1>;tag=them\r\nTo: <sip:14155550100@10.0.0.9>{to}\r\n\
             Call-ID: {call}\r\nCSeq: {seq} {method}\r\nContact: <sip:them@10.0.0.1>\r\n{more}{kind}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.feed("10.0.0.1:5060", &text);
    }

    fn invite(&mut self, call: &str) {
        self.request("INVITE", call, "", OFFER);
    }

    /// Our tag in the last response.
    fn tag(&self) -> String {
        let to = self.sent.last().unwrap().lines().find(|line| line.starts_with("To: ")).unwrap().to_owned();
        to.split_once(";tag=").map_or_else(String::new, |(_, tag)| format!(";tag={tag}"))
    }

    /// The status of the last response.
    fn status(&self) -> &str {
        self.sent.last().unwrap().split(' ').nth(1).unwrap()
    }

    fn receive(&mut self, reception: Reception) -> Result<(), CommandError> {
        let ticket = self.incoming.last().unwrap().ticket;
        let received = self.engine.receive(self.now, ticket, reception);
        self.drain();
        received
    }

    fn answer(&mut self, id: u128, trunk: &TrunkPlan) -> Result<(), CommandError> {
        self.receive(Reception::Answer { order: order(id, trunk), echo: false })
    }

    /// The media of the latest call reports.
    fn heard(&mut self, heard: Heard) {
        let bridge = self.media.iter().rev().map(media::Command::bridge).next().unwrap();
        self.engine.handle(self.now, Input::Heard(media::Event { bridge, heard }));
        self.drain();
    }

    fn wait(&mut self, by: Duration) {
        let until = self.now.mono + by;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.plus(at.saturating_duration_since(self.now.mono));
            self.engine.handle(self.now, Input::Timeout);
            self.drain();
        }
        self.now = self.now.plus(until - self.now.mono);
    }
}

fn opened() -> Heard {
    Heard::Opened { leg: media::LegId(0) }
}

#[test]
fn a_call_is_answered_when_its_socket_is_bound_and_ends_with_the_callers_bye() {
    let plan = trunk("a", TrunkProfile::default());
    let mut door = Door::new(vec![plan.clone()]);
    door.invite("one");
    assert_eq!((door.status(), door.incoming.len()), ("100", 1));
    let incoming = door.incoming[0].clone();
    assert_eq!((incoming.dialled, incoming.caller.as_str()), (vec!["14155550100".into()], "+14155550123"));
    door.answer(1, &plan).unwrap();
    assert_eq!((door.events.as_slice(), door.status()), (&["queued"][..], "100"));
    door.heard(opened());
    assert_eq!(door.status(), "200");
    assert!(door.sent.last().unwrap().contains("m=audio 10000 RTP/AVP 0\r\n"), "{:?}", door.sent);
    assert!(door.media.iter().any(|command| matches!(command, media::Command::Connect { .. })));
    door.request("ACK", "one", "", "");
    door.request("BYE", "one", "", "");
    assert_eq!(door.events, ["queued", "answered", "ended"]);
    door.heard(Heard::Closed { stats: Vec::new() });
    door.wait(Duration::from_secs(120));
    assert_eq!(door.engine.residue(), (0, sip::Counts::default()));
    assert_eq!(door.engine.live_calls(), 0);
}

#[test]
fn a_caller_may_give_up_before_each_step() {
    let plan = trunk("a", TrunkProfile::default());
    let mut door = Door::new(vec![plan.clone()]);
    door.invite("waiting");
    door.request("CANCEL", "waiting", "", "");
    assert_eq!(door.answer(1, &plan), Err(CommandError::UnknownCall));
    assert!(door.events.is_empty());
    door.invite("opening");
    door.answer(2, &plan).unwrap();
    door.request("CANCEL", "opening", "", "");
    assert_eq!(door.events, ["queued", "ended"]);
    // The socket is bound too late: nothing is answered any more.
    door.heard(opened());
    assert_eq!(door.events.len(), 2);
    assert!(door.sent.iter().all(|text| !text.starts_with("SIP/2.0 200") || text.contains("CSeq: 1 CANCEL")));
}

#[test]
fn what_cannot_be_answered_is_refused_with_the_reason() {
    let plan = trunk("a", TrunkProfile::default());
    let mut door = Door::new(vec![plan.clone()]);
    door.request("INVITE", "codec", "", &OFFER.replace("RTP/AVP 0", "RTP/AVP 18"));
    door.answer(1, &plan).unwrap();
    door.heard(opened());
    assert_eq!((door.status(), door.events.as_slice()), ("488", &["queued", "ended"][..]));
    door.invite("socket");
    door.answer(2, &plan).unwrap();
    for _ in 0..8 {
        door.heard(Heard::Failed { leg: media::LegId(0), error: "address in use".into() });
    }
    assert_eq!((door.status(), door.events.len()), ("503", 4));
    door.invite("refused");
    door.receive(Reception::Refuse { code: 404, retry_after_s: None }).unwrap();
    assert_eq!(door.status(), "404");
    door.invite("forgotten");
    door.wait(Duration::from_secs(8));
    assert_eq!(door.status(), "503");
    assert!(door.sent.last().unwrap().contains("Retry-After: 5\r\n"));
    assert_eq!(door.answer(3, &plan), Err(CommandError::UnknownCall));
}

#[test]
fn there_is_room_for_so_many_and_those_that_wait_count() {
    let plan = trunk("a", TrunkProfile { max_calls: 2, ..TrunkProfile::default() });
    let mut door = Door::new(vec![plan.clone()]);
    for call in ["one", "two", "three"] {
        door.invite(call);
        assert_eq!(door.status(), "100", "{call}");
    }
    door.invite("four");
    assert_eq!(door.status(), "503", "the engine takes three");
    assert!(door.sent.last().unwrap().contains("Retry-After: 5\r\n"));
    for (id, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(CommandError::Unavailable))] {
        let ticket = door.incoming[usize::try_from(id).unwrap()].ticket;
        let answer = Reception::Answer { order: order(id, &plan), echo: false };
        assert_eq!(door.engine.receive(door.now, ticket, answer), expected, "the trunk takes two");
        door.drain();
    }
    door.invite("five");
    assert_eq!((door.status(), door.incoming.len()), ("503", 3), "it is not even asked");
}

#[test]
fn whoever_waits_when_the_doors_close_is_turned_away() {
    let plan = trunk("a", TrunkProfile::default());
    let mut door = Door::new(vec![plan.clone()]);
    door.invite("one");
    assert_eq!(door.status(), "100");
    door.engine.close_doors(door.now);
    door.drain();
    assert_eq!(door.status(), "503");
    assert_eq!(door.answer(1, &plan), Err(CommandError::UnknownCall));
    door.invite("two");
    assert_eq!((door.status(), door.incoming.len()), ("503", 1));
    door.request("ACK", "one", "", "");
    door.request("ACK", "two", "", "");
    door.wait(Duration::from_secs(120));
    assert_eq!(door.engine.residue(), (0, sip::Counts::default()));
}

#[test]
fn an_answer_without_a_trunk_turns_the_caller_away() {
    let plan = trunk("a", TrunkProfile::default());
    let mut door = Door::new(vec![plan.clone()]);
    door.invite("one");
    let order = CallOrder { trunks: Vec::new(), ..(*order(1, &plan)).clone() };
    let answer = Reception::Answer { order: Arc::new(order), echo: false };
    assert_eq!(door.receive(answer), Err(CommandError::Unavailable));
    assert_eq!((door.status(), door.engine.live_calls()), ("503", 0));
}

/// What our answer to a call from there says of us: in Contact, and for sound.
fn told(door: &mut Door, plan: &TrunkPlan, id: u128, from: &str) -> (String, String) {
    let call = format!("call{id}");
    let text = format!(
        "INVITE sip:14155550100@10.0.0.9 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{call}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+14155550123@{from}>;tag=them\r\nTo: <sip:14155550100@10.0.0.9>\r\n\
         Call-ID: {call}\r\nCSeq: 1 INVITE\r\nContact: <sip:them@{from}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    );
    door.feed(from, &text);
    door.answer(id, plan).unwrap();
    door.heard(opened());
    assert_eq!(door.status(), "200", "{from}");
    let line = |name: &str| {
        let mut lines = door.sent.last().unwrap().lines();
        lines.find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
    };
    (line("Contact: "), line("c=IN IP4 "))
}

#[test]
fn callers_are_told_the_address_that_is_meant_for_them() {
    let own = TrunkProfile {
        external_address: "203.0.113.5".parse().ok(),
        source_cidrs: vec!["198.51.100.0/24".into()],
        ..TrunkProfile::default()
    };
    let mut far = trunk("far", own);
    far.hops = vec![Hop::udp("192.0.2.1:5060".parse().unwrap())];
    let mut near =
        trunk("near", TrunkProfile { source_cidrs: vec!["10.7.0.0/16".into()], ..TrunkProfile::default() });
    near.hops = vec![Hop::udp("10.7.0.1:5060".parse().unwrap())];
    // Its own host lies in a network of the other's.
    let mut within = trunk("within", TrunkProfile::default());
    within.hops = vec![Hop::udp("198.51.100.9:5060".parse().unwrap())];
    let local = LocalNet {
        net: "10.7.0.0/16".parse().unwrap(),
        signalling: "10.7.0.9".parse().unwrap(),
        media: "10.7.0.10".parse().unwrap(),
    };
    let mut door = Door::with(vec![far.clone(), near.clone(), within.clone()], vec![local]);
    let contact = told(&mut door, &far, 1, "192.0.2.1:5060").0;
    assert!(contact.contains("@203.0.113.5:5060"), "{contact}");
    let contact = told(&mut door, &far, 2, "198.51.100.7:5060").0;
    assert!(contact.contains("@203.0.113.5:5060"), "a network of the trunk's: {contact}");
    let mut door = Door::with(vec![far.clone(), near.clone()], vec![local]);
    for (id, from) in [(3, "10.7.0.1:5060"), (4, "10.7.3.3:5060")] {
        let (contact, sound) = told(&mut door, &near, id, from);
        assert!(contact.contains("@10.7.0.9:5060"), "{from}: {contact}");
        assert_eq!(sound, "10.7.0.10", "{from}");
    }
    let mut door = Door::with(vec![far, near, within.clone()], vec![local]);
    let contact = told(&mut door, &within, 5, "198.51.100.9:5060").0;
    assert!(contact.contains("@10.0.0.9:5060"), "{contact}");
}

#[test]
fn a_password_is_asked_for_where_every_trunk_there_asks() {
    let asking = TrunkProfile { auth_inbound: true, ..TrunkProfile::default() };
    let mut door = Door::new(vec![trunk("alice", asking.clone()), trunk("bob", asking.clone())]);
    door.invite("one");
    assert_eq!((door.status(), door.incoming.len()), ("401", 0));
    let header = door.sent.last().unwrap().lines().find_map(|line| line.strip_prefix("WWW-Authenticate: "));
    let challenge = sip::auth::Challenge::read(header.unwrap()).unwrap();
    let request = sip::auth::Answered { method: "INVITE", uri: "sip:14155550100@10.0.0.9", body: b"" };
    let login = |password: &str| {
        let credentials = sip::Credentials { username: "bob".into(), password: password.into() };
        format!("Authorization: {}\r\n", challenge.answer(&credentials, &request, 1, "c"))
    };
    let right = login("secret");
    let wrong = login("guess");
    door.request("ACK", "one", "", "");
    door.request("INVITE", "one", &right, OFFER);
    assert_eq!((door.status(), door.incoming[0].trunks.len()), ("100", 1));
    assert_eq!(door.incoming[0].trunks[0].endpoint, "bob-endpoint");
    door.request("INVITE", "another", &right, OFFER);
    assert!(door.sent.last().unwrap().contains("stale=true"), "the nonce was another call's");
    let mut door = Door::new(vec![trunk("bob", asking.clone())]);
    door.invite("one");
    door.request("ACK", "one", "", "");
    door.request("INVITE", "one", &wrong, OFFER);
    assert_eq!((door.status(), door.incoming.len()), ("401", 0));
    // One that asks for nothing is let in as that one.
    let mut door = Door::new(vec![trunk("alice", asking), trunk("open", TrunkProfile::default())]);
    door.invite("one");
    assert_eq!(door.incoming[0].trunks.len(), 1);
    assert_eq!(door.incoming[0].trunks[0].endpoint, "open-endpoint");
}

#[test]
fn strangers_are_remembered_for_a_minute_and_not_too_many() {
    let mut strangers = Strangers::default();
    #[expect(clippy::disallowed_methods, reason = "any start will do")]
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
    assert_eq!(strangers.came(at(0), ip(1)), Some(1));
    assert_eq!([1, 59].map(|second| strangers.came(at(second), ip(1))), [None, None]);
    assert_eq!(strangers.came(at(60), ip(1)), Some(3));
    for n in 2..10_000 {
        strangers.came(at(61), ip(n));
        assert!(strangers.seen.len() <= STRANGERS_MAX);
    }
    assert_eq!(strangers.came(at(61), ip(20_000)), None);
    assert!(strangers.came(at(200), ip(20_000)).is_some_and(|untold| untold > 9_000));
    let mut door = Door::new(vec![trunk("a", TrunkProfile::default())]);
    door.feed("10.0.0.2:5060", "INVITE sip:1@10.0.0.9 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=t\r\nTo: <sip:1@b>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n");
    assert!(door.sent.is_empty() && door.incoming.is_empty());
    assert_eq!(door.engine.residue(), (0, sip::Counts::default()));
}

#[test]
fn headers_say_what_was_dialled_and_who_calls() {
    let mut door = Door::new(vec![trunk("a", TrunkProfile::default())]);
    let mut told = |more: &str| {
        let call = format!("call{}", door.incoming.len());
        door.request("INVITE", &call, more, OFFER);
        let Incoming { ticket, dialled, caller, anonymous, .. } = door.incoming.last().unwrap().clone();
        let refused = Reception::Refuse { code: 480, retry_after_s: None };
        door.engine.receive(door.now, ticket, refused).unwrap();
        door.drain();
        (dialled, caller, anonymous)
    };
    assert!(!told("").2);
    let (dialled, ..) = told("P-Called-Party-ID: <tel:+1-415-555-0177;x=y>\r\n");
    assert_eq!(dialled, ["14155550100", "+1-415-555-0177"]);
    let long = "1".repeat(500);
    let (_, caller, anonymous) = told(&format!("P-Asserted-Identity: <sip:{long}@x>\r\nPrivacy: none\r\n"));
    assert_eq!((caller.len(), anonymous), (USER_MAX_CHARS, false));
    assert!(told("Privacy: user;critical\r\n").2 && told("Privacy: ID\r\n").2);
    assert_eq!(told("P-Asserted-Identity: nonsense\r\n").1, "+14155550123");
}
