//! Streams over loopback: two endpoints by TCP and TLS, and peers that misbehave.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::tokio::{Arrival, SocketSettings, Sockets, StreamLimits, TlsFiles};
use sip::{
    Config, Endpoint, Inbound, Peer, SessionEvent, SessionId, Side, Target, TerminationCause, Transport, Uri,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(20);

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "these tests run on real sockets in real time")]
    Instant::now()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn quick() -> StreamLimits {
    StreamLimits {
        connections: 64,
        per_address: 4,
        connect: Duration::from_secs(2),
        handshake: Duration::from_millis(500),
        message: Duration::from_millis(300),
        idle: LONG,
        write: Duration::from_secs(2),
        ping: Duration::ZERO,
    }
}

/// A certificate for `name` by an authority of our own, as files.
struct Papers {
    folder: PathBuf,
    files: TlsFiles,
}

impl Papers {
    fn new(test: &str, names: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("trunkline-tls-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = authority.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let own_key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let own = rcgen::CertificateParams::new(names).unwrap().signed_by(&own_key, &issuer).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let files = TlsFiles {
            cert: write("cert.pem", own.pem()),
            key: write("key.pem", own_key.serialize_pem()),
            ca: write("ca.pem", root.pem()),
        };
        Self { folder, files }
    }
}

impl Drop for Papers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An endpoint with its sockets.
struct Node {
    endpoint: Endpoint,
    sockets: Sockets,
    events: Vec<(SessionId, SessionEvent)>,
}

impl Node {
    async fn new(files: &TlsFiles, limits: StreamLimits, seed: u8) -> Self {
        let listens_tls = files.cert.is_some();
        let settings = SocketSettings {
            tcp: Some(loopback()),
            tls: listens_tls.then(loopback),
            tls_files: files.clone(),
            limits,
            ..SocketSettings::udp(loopback())
        };
        let sockets = Sockets::bind(&settings).await.unwrap();
        let port = |transport| sockets.local_addr(transport).map(|addr| addr.port());
        let config = Config {
            inbound: Inbound::Anyone,
            tcp_port: port(Transport::Tcp),
            tls_port: port(Transport::Tls),
            large_by_tcp: true,
            ..Config::new(sockets.local_addr(Transport::Udp).unwrap())
        };
        Self { endpoint: Endpoint::new(config, [seed; 32]), sockets, events: Vec::new() }
    }

    fn addr(&self, transport: Transport) -> SocketAddr {
        self.sockets.local_addr(transport).unwrap()
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let name = self.endpoint.server_name(transmit.to).map(str::to_owned);
            if self.sockets.send(&transmit, name.as_deref()).is_err() {
                self.endpoint.handle_transport_error(now(), transmit.to);
            }
        }
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push(event);
        }
    }

    /// Waits for one thing and does what it asks for. Gives back every message that came.
    async fn turn(&mut self) -> Vec<(Peer, Bytes)> {
        self.flush();
        let due = self.endpoint.poll_timeout().unwrap_or(now() + LONG);
        tokio::select! {
            waited = self.sockets.wait() => waited.unwrap(),
            () = tokio::time::sleep_until(due.into()) => self.endpoint.handle_timeout(now()),
        }
        let mut came = Vec::new();
        while let Some(arrival) = self.sockets.take() {
            match arrival {
                Arrival::Message(from, bytes) => {
                    self.endpoint.handle_datagram(now(), from, &bytes);
                    came.push((from, bytes));
                }
                Arrival::Excess(from, bytes) => self.endpoint.handle_excess(from, &bytes),
                Arrival::Unreachable(peer) => self.endpoint.handle_transport_error(now(), peer),
            }
            self.flush();
        }
        self.flush();
        came
    }

    fn call(&mut self, to: Peer, name: Option<&str>, offer: &str) -> SessionId {
        let uri = Uri::sip("bob", to.addr);
        let mut target = Target::new(uri, Uri::sip("alice", loopback()), to);
        target.server_name = name.map(str::to_owned);
        self.endpoint.invite(now(), target, Bytes::copy_from_slice(offer.as_bytes())).unwrap()
    }

    fn take(&mut self, wanted: fn(&SessionEvent) -> bool) -> Option<(SessionId, SessionEvent)> {
        let at = self.events.iter().position(|(_, event)| wanted(event))?;
        Some(self.events.remove(at))
    }
}

/// Runs both until one of them has what is wanted.
async fn until<T>(
    a: &mut Node,
    b: &mut Node,
    mut wanted: impl FnMut(&mut Node, &mut Node) -> Option<T>,
) -> T {
    let give_up = now() + LONG;
    loop {
        if let Some(found) = wanted(a, b) {
            return found;
        }
        a.flush();
        b.flush();
        assert!(now() < give_up, "nothing more happens: {:?} {:?}", a.events, b.events);
        tokio::select! {
            _ = a.turn() => {}
            _ = b.turn() => {}
            () = tokio::time::sleep_until(give_up.into()) => {}
        }
    }
}

fn invited(event: &SessionEvent) -> bool {
    matches!(event, SessionEvent::Invited(_))
}

fn answered(event: &SessionEvent) -> bool {
    matches!(event, SessionEvent::Answered { .. })
}

fn confirmed(event: &SessionEvent) -> bool {
    matches!(event, SessionEvent::Confirmed { .. })
}

fn terminated(event: &SessionEvent) -> bool {
    matches!(event, SessionEvent::Terminated(_))
}

/// One whole call from `a` to `b`, hung up by `b`: its BYE must find its way back. Gives back by which transport the
/// INVITE came.
async fn whole_call(a: &mut Node, b: &mut Node, to: Peer, name: Option<&str>, offer: &str) -> Transport {
    a.call(to, name, offer);
    let (id, event) = until(a, b, |_, b| b.take(invited)).await;
    let SessionEvent::Invited(invite) = event else { panic!() };
    b.endpoint.session(id).unwrap().answer(now(), Bytes::from_static(b"answer"));
    until(a, b, |a, _| a.take(answered)).await;
    until(a, b, |_, b| b.take(confirmed)).await;
    b.endpoint.session(id).unwrap().hang_up(now(), None);
    let (_, event) = until(a, b, |a, _| a.take(terminated)).await;
    let SessionEvent::Terminated(end) = event else { panic!() };
    assert_eq!((end.by, end.cause), (Side::Them, TerminationCause::Bye));
    until(a, b, |_, b| b.take(terminated)).await;
    until(a, b, |a, b| (a.endpoint.counts().waiting + b.endpoint.counts().waiting == 0).then_some(())).await;
    invite.peer.transport
}

#[tokio::test]
async fn calls_go_by_tcp_both_ways_over_one_connection() {
    let (mut a, mut b) = (
        Node::new(&TlsFiles::default(), quick(), 1).await,
        Node::new(&TlsFiles::default(), quick(), 2).await,
    );
    let to_b = Peer::new(Transport::Tcp, b.addr(Transport::Tcp));
    for _ in 0..3 {
        assert_eq!(whole_call(&mut a, &mut b, to_b, None, "offer").await, Transport::Tcp);
    }
    assert_eq!((a.sockets.connections(), b.sockets.connections()), (1, 1));
    // The other way the same connection serves: `b` knows from the Via where `a` takes connections (RFC 5923).
    let to_a = Peer::new(Transport::Tcp, a.addr(Transport::Tcp));
    assert_eq!(whole_call(&mut b, &mut a, to_a, None, "offer").await, Transport::Tcp);
    assert_eq!((a.sockets.connections(), b.sockets.connections()), (1, 1));
}

#[tokio::test]
async fn calls_go_by_tls_and_the_certificate_is_checked() {
    let papers = Papers::new("pair", &["sbc.example.com", "127.0.0.1"]);
    let (mut a, mut b) =
        (Node::new(&papers.files, quick(), 1).await, Node::new(&papers.files, quick(), 2).await);
    let to_b = Peer::new(Transport::Tls, b.addr(Transport::Tls));
    assert_eq!(whole_call(&mut a, &mut b, to_b, Some("SBC.example.com"), "offer").await, Transport::Tls);
    // Without a name the certificate must be for the address.
    assert_eq!(whole_call(&mut a, &mut b, to_b, None, "offer").await, Transport::Tls);
    let to_a = Peer::new(Transport::Tls, a.addr(Transport::Tls));
    assert_eq!(whole_call(&mut b, &mut a, to_a, None, "offer").await, Transport::Tls);

    // Another name, and another authority: no call.
    let strangers = Papers::new("strangers", &["sbc.example.com"]);
    let mut c = Node::new(&strangers.files, quick(), 3).await;
    for (caller, to, name) in
        [(&mut a, to_b, Some("other.example.com")), (&mut c, to_b, Some("sbc.example.com"))]
    {
        caller.call(to, name, "offer");
        let (_, event) = until(caller, &mut b, |caller, _| caller.take(terminated)).await;
        let SessionEvent::Terminated(end) = event else { panic!() };
        assert_eq!((end.by, end.cause), (Side::Nobody, TerminationCause::Transport));
    }
    assert!(b.take(invited).is_none());
}

#[tokio::test]
async fn large_requests_go_by_tcp_and_by_udp_where_there_is_none() {
    let mut a = Node::new(&TlsFiles::default(), quick(), 1).await;
    // TCP on the port of UDP, as RFC 3261 §18.1.1 means it.
    let mut b = loop {
        let udp = Node::new(&TlsFiles::default(), quick(), 2).await.addr(Transport::Udp);
        let settings = SocketSettings { tcp: Some(udp), limits: quick(), ..SocketSettings::udp(udp) };
        // Another program may be quicker.
        let Ok(sockets) = Sockets::bind(&settings).await else { continue };
        let config = Config { inbound: Inbound::Anyone, ..Config::new(udp) };
        break Node { endpoint: Endpoint::new(config, [2; 32]), sockets, events: Vec::new() };
    };
    let long = "a=x\r\n".repeat(300);
    let to_b = Peer::udp(b.addr(Transport::Udp));
    assert_eq!(whole_call(&mut a, &mut b, to_b, None, "offer").await, Transport::Udp);
    assert_eq!(whole_call(&mut a, &mut b, to_b, None, &long).await, Transport::Tcp);

    let sockets = Sockets::bind(&SocketSettings::udp(loopback())).await.unwrap();
    let udp = sockets.local_addr(Transport::Udp).unwrap();
    let config = Config { inbound: Inbound::Anyone, ..Config::new(udp) };
    let mut c = Node { endpoint: Endpoint::new(config, [3; 32]), sockets, events: Vec::new() };
    assert_eq!(whole_call(&mut a, &mut c, Peer::udp(udp), None, &long).await, Transport::Udp);
    // The second time it is not asked again.
    assert_eq!(whole_call(&mut a, &mut c, Peer::udp(udp), None, &long).await, Transport::Udp);
}

#[tokio::test]
async fn a_refused_connection_ends_the_call_at_once() {
    let mut a = Node::new(&TlsFiles::default(), quick(), 1).await;
    let mut b = Node::new(&TlsFiles::default(), quick(), 2).await;
    let closed = TcpListener::bind(loopback()).await.unwrap().local_addr().unwrap();
    a.call(Peer::new(Transport::Tcp, closed), None, "offer");
    let (_, event) = until(&mut a, &mut b, |a, _| a.take(terminated)).await;
    let SessionEvent::Terminated(end) = event else { panic!() };
    assert_eq!(end.cause, TerminationCause::Transport);
}

#[tokio::test]
async fn ipv4_and_ipv6_share_a_socket() {
    let settings = SocketSettings {
        tcp: Some("[::]:0".parse().unwrap()),
        ..SocketSettings::udp("[::]:0".parse().unwrap())
    };
    let sockets = Sockets::bind(&settings).await.unwrap();
    let (udp, tcp) = (
        sockets.local_addr(Transport::Udp).unwrap().port(),
        sockets.local_addr(Transport::Tcp).unwrap().port(),
    );
    let config = Config {
        inbound: Inbound::Anyone,
        local_other: Some("::1".parse().unwrap()),
        tcp_port: Some(tcp),
        ..Config::new(SocketAddr::new("127.0.0.1".parse().unwrap(), udp))
    };
    let mut b = Node { endpoint: Endpoint::new(config, [2; 32]), sockets, events: Vec::new() };
    let mut a = Node::new(&TlsFiles::default(), quick(), 1).await;
    let to = |transport, ip: &str, port| Peer::new(transport, SocketAddr::new(ip.parse().unwrap(), port));
    assert_eq!(
        whole_call(&mut a, &mut b, to(Transport::Udp, "127.0.0.1", udp), None, "offer").await,
        Transport::Udp
    );
    assert_eq!(
        whole_call(&mut a, &mut b, to(Transport::Tcp, "127.0.0.1", tcp), None, "offer").await,
        Transport::Tcp
    );

    let sockets = Sockets::bind(&SocketSettings::udp("[::1]:0".parse().unwrap())).await.unwrap();
    let config =
        Config { inbound: Inbound::Anyone, ..Config::new(sockets.local_addr(Transport::Udp).unwrap()) };
    let mut c = Node { endpoint: Endpoint::new(config, [3; 32]), sockets, events: Vec::new() };
    assert_eq!(
        whole_call(&mut c, &mut b, to(Transport::Udp, "::1", udp), None, "offer").await,
        Transport::Udp
    );
    assert_eq!(
        whole_call(&mut c, &mut b, to(Transport::Tcp, "::1", tcp), None, "offer").await,
        Transport::Tcp
    );
}

/// A peer by hand.
async fn raw(node: &Node) -> TcpStream {
    TcpStream::connect(node.addr(Transport::Tcp)).await.unwrap()
}

/// Runs a node while a peer by hand does something.
async fn beside<T>(node: &mut Node, doing: impl Future<Output = T>) -> T {
    tokio::pin!(doing);
    let end = tokio::time::sleep(LONG);
    tokio::pin!(end);
    loop {
        tokio::select! {
            done = &mut doing => return done,
            _ = node.turn() => {}
            () = &mut end => panic!("nothing more happens"),
        }
    }
}

fn options(branch: &str, length: &str) -> String {
    format!(
        "OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{branch};rport\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: {branch}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n{length}\r\n"
    )
}

async fn read_until_closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn pings_are_answered_and_messages_may_come_in_pieces_or_together() {
    let mut node = Node::new(&TlsFiles::default(), quick(), 1).await;
    let mut peer = raw(&node).await;
    let text = format!("{}{}", options("one", "Content-Length: 0\r\n"), options("two", "l: 0\r\n"));
    let got = beside(&mut node, async {
        for piece in text.as_bytes().chunks(100) {
            peer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut got = String::new();
        let mut buffer = [0; 4096];
        while got.matches("SIP/2.0 200 ").count() < 2 {
            let length = peer.read(&mut buffer).await.unwrap();
            got.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        peer.write_all(b"\r\n\r\n").await.unwrap();
        let mut pong = [0; 2];
        peer.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\r\n");
        got
    })
    .await;
    assert!(got.contains("Call-ID: one") && got.contains("Call-ID: two"), "{got}");
}

#[tokio::test]
async fn an_unreadable_stream_is_told_why_and_closed() {
    let mut node = Node::new(&TlsFiles::default(), quick(), 1).await;
    for length in ["", "Content-Length: -7\r\n", "l: 1\r\nl: 2\r\n"] {
        let mut peer = raw(&node).await;
        let said = beside(&mut node, async {
            peer.write_all(options("bad", length).as_bytes()).await.unwrap();
            read_until_closed(&mut peer).await
        })
        .await;
        assert!(said.starts_with("SIP/2.0 400 "), "{length:?}: {said:?}");
    }
    // What is not SIP at all, and never ends, is closed without a word.
    let mut peer = raw(&node).await;
    let said = beside(&mut node, async {
        let _ = peer.write_all(&vec![b'x'; sip::frame::MAX_HEAD + 1]).await;
        read_until_closed(&mut peer).await
    })
    .await;
    assert_eq!(said, "");
}

#[tokio::test]
async fn slow_and_silent_peers_lose_their_connection() {
    let mut node = Node::new(&TlsFiles::default(), quick(), 1).await;
    // Never says anything.
    let mut silent = raw(&node).await;
    assert_eq!(beside(&mut node, read_until_closed(&mut silent)).await, "");
    // Says a byte from time to time.
    let mut slow = raw(&node).await;
    let text = options("slow", "Content-Length: 0\r\n");
    let (mut reading, mut writing) = slow.split();
    let sent = beside(&mut node, async {
        let mut sent = 0_usize;
        let mut byte = [0; 1];
        for piece in text.as_bytes() {
            if writing.write_all(&[*piece]).await.is_err() {
                break;
            }
            sent += 1;
            tokio::select! {
                _ = reading.read(&mut byte) => break,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        sent
    })
    .await;
    assert!(sent < text.len(), "{sent}");
    until_no_connection(&mut node).await;
}

async fn until_no_connection(node: &mut Node) {
    let give_up = now() + LONG;
    while node.sockets.connections() > 0 {
        assert!(now() < give_up);
        tokio::select! {
            _ = node.turn() => {}
            () = tokio::time::sleep_until(give_up.into()) => {}
        }
    }
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let limits = StreamLimits { message: LONG, ..quick() };
    let mut node = Node::new(&TlsFiles::default(), limits, 1).await;
    let mut peers = Vec::new();
    for _ in 0..limits.per_address {
        peers.push(raw(&node).await);
    }
    let mut one_more = raw(&node).await;
    assert_eq!(beside(&mut node, read_until_closed(&mut one_more)).await, "");
    assert_eq!(node.sockets.connections(), limits.per_address);
    drop(peers);
    until_no_connection(&mut node).await;
    let mut again = raw(&node).await;
    beside(&mut node, async {
        again.write_all(options("again", "l: 0\r\n").as_bytes()).await.unwrap();
        let mut buffer = [0; 12];
        again.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"SIP/2.0 200 ");
    })
    .await;
}

#[tokio::test]
async fn a_tls_peer_that_does_not_shake_hands_is_dropped() {
    let papers = Papers::new("mute", &["127.0.0.1"]);
    let mut node = Node::new(&papers.files, quick(), 1).await;
    let mut mute = TcpStream::connect(node.addr(Transport::Tls)).await.unwrap();
    beside(&mut node, read_until_closed(&mut mute)).await;
    let mut plain = TcpStream::connect(node.addr(Transport::Tls)).await.unwrap();
    beside(&mut node, async {
        plain.write_all(options("plain", "l: 0\r\n").as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let _ = plain.read_to_end(&mut all).await;
        assert!(!all.starts_with(b"SIP/"));
    })
    .await;
    until_no_connection(&mut node).await;
}

#[tokio::test]
async fn our_pings_find_a_peer_that_has_died() {
    let limits = StreamLimits { ping: Duration::from_millis(100), ..quick() };
    let mut node = Node::new(&TlsFiles::default(), limits, 1).await;
    let far = TcpListener::bind(loopback()).await.unwrap();
    node.call(Peer::new(Transport::Tcp, far.local_addr().unwrap()), None, "offer");
    node.flush();
    let mut peer = beside(&mut node, far.accept()).await.unwrap().0;
    // Answers three pings, and then no more: the connection goes.
    let pings = beside(&mut node, async {
        let (mut pings, mut held) = (0, Vec::new());
        let mut buffer = [0; 4096];
        loop {
            let Ok(length @ 1..) = peer.read(&mut buffer).await else { return pings };
            held.extend_from_slice(&buffer[..length]);
            if held.ends_with(b"\r\n\r\n\r\n\r\n") || held == b"\r\n\r\n" || held.ends_with(b"offer\r\n\r\n")
            {
                held.clear();
                pings += 1;
                if pings <= 3 {
                    peer.write_all(b"\r\n").await.unwrap();
                }
            }
        }
    })
    .await;
    assert!((4..=5).contains(&pings), "{pings}");
    until_no_connection(&mut node).await;
}
