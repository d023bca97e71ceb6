//! What a fuzzer does with its bytes: four targets, used by libFuzzer (`targets/`) and by the runner of this package, which
//! needs no nightly compiler. Each panics where a promise is broken, and gives back a mark of what happened, so that inputs
//! that do something new can be told from those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::frame::{Framer, MAX_HEAD};
use sip::intake::is_known;
use sip::parse::{MAX_MESSAGE, ParseError, parse};
use sip::{
    Config, Counts, Endpoint, Inbound, Message, Peer, SessionEvent, SessionId, Target, Transport, Uri,
};

fn mark(of: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn written(message: &Message) -> Bytes {
    match message {
        Message::Request(request) => request.to_bytes(),
        Message::Response(response) => response.to_bytes(),
    }
}

/// Reads a message; one that can be read can be written and read again, and is then the same.
pub fn message(data: &[u8]) -> u64 {
    // Only its order is at stake here, but it must not panic either.
    let known = is_known(data);
    match parse(data) {
        Ok(message) => {
            let first = written(&message);
            if first.len() > MAX_MESSAGE {
                return 1;
            }
            let again = parse(&first).expect("what was written can be read");
            assert_eq!(written(&again), first, "writing is stable");
            let names: Vec<String> = message.headers().iter().map(|(name, _)| name.to_owned()).collect();
            mark((known, names.len().min(8), names.first().cloned(), message.body().is_empty()))
        }
        Err(ParseError::Refused { code, why, .. }) => mark((known, code, why)),
        Err(error) => mark((known, error.to_string())),
    }
}

/// Cuts a stream. Into what pieces it was sent must not matter.
pub fn stream(data: &[u8]) -> u64 {
    let cut = |piece: usize| {
        let mut framer = Framer::new();
        let (mut out, mut end) = (Vec::new(), None);
        'all: for bytes in data.chunks(piece) {
            framer.push(bytes);
            loop {
                match framer.next_message() {
                    Ok(Some(message)) => {
                        assert!(message.len() <= MAX_MESSAGE);
                        out.push(message);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert!(framer.lost_head().len() <= MAX_HEAD);
                        end = Some(error.to_string());
                        break 'all;
                    }
                }
            }
        }
        (out, end)
    };
    let whole = cut(data.len().max(1));
    let piece = usize::from(data.first().copied().unwrap_or(0)) % 64 + 1;
    let pieces = cut(piece);
    assert_eq!(whole.0, pieces.0, "pieces of {piece}");
    assert_eq!(whole.1, pieces.1, "pieces of {piece}");
    mark((whole.0.len(), whole.1))
}

/// Reads an answer, and answers an offer.
pub fn sdp(data: &[u8]) -> u64 {
    use media::sdp::{Direction, Local, OfferConfig, SdpError, Security, answer, read_answer};
    use media::srtp::{MASTER, MasterKey};
    let security = Security::Optional(MasterKey([7; MASTER]));
    let offered = OfferConfig { security, ..OfferConfig::default() };
    let local = Local { address: [192, 0, 2, 1].into(), port: 4_000, session_id: 1, version: 1 };
    let read = read_answer(&offered, data);
    // What we write ourselves can always be read, unless what we were given leaves no room.
    let ours = media::sdp::offer(&local, &offered, Direction::SendRecv);
    assert!(read_answer(&offered, &ours).is_ok());
    let answered = answer(&local, &offered, data, Direction::SendRecv).map(|(text, remote)| {
        match read_answer(&offered, &text) {
            Ok(back) => assert_eq!((back.codec, back.srtp.is_some()), (remote.codec, remote.srtp.is_some())),
            Err(error) => assert_eq!(error, SdpError::TooLarge),
        }
        (remote.direction, remote.srtp.map(|keys| keys.suite))
    });
    let read = read.map(|remote| format!("{:?}", remote.direction)).map_err(|error| error.to_string());
    mark((read, format!("{answered:?}")))
}

/// Parts of an input for [`endpoint`] are separated by this byte, which no message has.
pub const SEPARATOR: u8 = 0xff;

/// A session with its ends, as the user of the endpoint sees it.
struct World {
    endpoint: Endpoint,
    now: Instant,
    /// What was heard of each session; true once it has ended.
    sessions: BTreeMap<SessionId, bool>,
    /// The values of the last message that the endpoint sent, for messages that refer to it.
    last: BTreeMap<&'static str, String>,
    seen: BTreeSet<String>,
}

fn peer(text: &str) -> Peer {
    Peer::udp(text.parse::<SocketAddr>().expect("a literal"))
}

impl World {
    fn drain(&mut self) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            // The refusal of what could not be read repeats what could not be read.
            let Ok(message) = parse(&transmit.bytes) else { continue };
            let header = |name: &str| message.headers().get(name).unwrap_or("").to_owned();
            for (key, name) in [("@via", "Via"), ("@from", "From"), ("@to", "To"), ("@call", "Call-ID")] {
                self.last.insert(key, header(name));
            }
            let cseq = header("CSeq");
            self.last.insert("@seq", cseq.split(' ').next().unwrap_or("1").to_owned());
            self.last.insert("@method", cseq.split(' ').nth(1).unwrap_or("INVITE").to_owned());
        }
        while let Some((id, event)) = self.endpoint.poll_event() {
            self.seen.insert(format!("{event:?}").chars().take(12).collect());
            let ended = self.sessions.entry(id).or_insert(false);
            assert!(!*ended, "an event after the end");
            *ended = matches!(event, SessionEvent::Terminated(_));
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            self.drain();
            steps += 1;
            assert!(steps < 100_000, "time stands still");
        }
        self.now = end;
    }

    fn message(&mut self, from: &str, transport: Transport, text: &[u8]) {
        let mut text = String::from_utf8_lossy(text).into_owned();
        for (key, value) in &self.last {
            text = text.replace(key, value);
        }
        let from = Peer { transport, ..peer(from) };
        self.endpoint.handle_datagram(self.now, from, text.as_bytes());
    }

    fn act(&mut self, op: u8, rest: &[u8]) {
        let last = self.sessions.iter().rev().find(|(_, ended)| !**ended).map(|(id, _)| *id);
        let now = self.now;
        let sdp = || Bytes::from_static(b"v=0\r\n");
        let session = last.and_then(|id| self.endpoint.session(id));
        match (op, session) {
            (b'm', _) => self.message("192.0.2.2:5060", Transport::Udp, rest),
            (b't', _) => self.message("192.0.2.2:40000", Transport::Tcp, rest),
            (b'x', _) => self.message("203.0.113.9:5060", Transport::Udp, rest),
            (b'e', _) => self.endpoint.handle_excess(peer("192.0.2.2:5060"), rest),
            (b'u', _) => self.endpoint.handle_transport_error(now, peer("192.0.2.2:5060")),
            (b'i', _) => {
                let them = peer("192.0.2.2:5060");
                let mut target = Target::new(Uri::sip("bob", them.addr), Uri::sip("me", them.addr), them);
                target.credentials =
                    Some(sip::Credentials { username: "me".to_owned(), password: "secret".to_owned() });
                if let Ok(id) = self.endpoint.invite(now, target, sdp()) {
                    self.sessions.insert(id, false);
                }
            }
            (b'a', Some(mut session)) => session.answer(now, sdp()),
            (b'o', Some(mut session)) => session.answer_offer(now, sdp()),
            (b'r', Some(mut session)) => session.reject(now, 486, &[]),
            (b'h', Some(mut session)) => session.hang_up(now, None),
            (op, _) => self.pass(Duration::from_millis(u64::from(op) * 20)),
        }
        self.drain();
    }
}

/// Plays a story against an endpoint: its parts, separated by [`SEPARATOR`], are messages and acts of the user. In the end
/// everybody hangs up, and then nothing may be left.
pub fn endpoint(data: &[u8]) -> u64 {
    let config = Config {
        inbound: Inbound::Anyone,
        max_sessions: 8,
        max_transactions: 64,
        ..Config::new(SocketAddr::from(([192, 0, 2, 1], 5060)))
    };
    let mut world = World {
        endpoint: Endpoint::new(config, [7; 32]),
        now: Instant::now(),
        sessions: BTreeMap::new(),
        last: BTreeMap::new(),
        seen: BTreeSet::new(),
    };
    for part in data.split(|byte| *byte == SEPARATOR).take(64) {
        if let Some((op, rest)) = part.split_first() {
            world.act(*op, rest);
        }
    }
    for id in world.sessions.keys().copied().collect::<Vec<_>>() {
        let now = world.now;
        if let Some(mut session) = world.endpoint.session(id) {
            session.hang_up(now, None);
        }
    }
    world.drain();
    world.pass(Duration::from_secs(24 * 3_600));
    assert!(world.sessions.values().all(|ended| *ended), "a session without an end");
    assert_eq!(world.endpoint.counts(), Counts::default(), "something is left");
    mark((world.seen.into_iter().collect::<Vec<_>>(), world.sessions.len()))
}

/// A target by name.
pub type Named = (&'static str, fn(&[u8]) -> u64);

/// All targets.
pub const TARGETS: &[Named] =
    &[("message", message), ("stream", stream), ("sdp", sdp), ("endpoint", endpoint)];
