//! RFC 3263 against a name server of our own on loopback.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use sip::Transport;
use sip::tokio::{LocateError, Place, Resolver};
use tokio::net::UdpSocket;

const TTL: u32 = 60;

/// Answers from a table; says nothing while it is told to be silent.
struct NameServer {
    addr: SocketAddr,
    silent: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

impl NameServer {
    async fn new(table: Vec<(&str, RData)>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let (silent, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (hush, count) = (silent.clone(), asked.clone());
        let table: Vec<Record> =
            table.into_iter().map(|(owner, data)| Record::from_rdata(name(owner), TTL, data)).collect();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                if hush.load(Ordering::Relaxed) {
                    continue;
                }
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                answer.metadata.message_type = MessageType::Response;
                answer.metadata.recursion_available = true;
                let query = question.queries[0].clone();
                let known = table.iter().any(|record| record.name == *query.name());
                let fits = |record: &&Record| {
                    record.name == *query.name() && record.data.record_type() == query.query_type()
                };
                answer.add_answers(table.iter().filter(fits).cloned().collect::<Vec<_>>());
                if !known {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                answer.add_query(query);
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self { addr, silent, asked }
    }
}

fn naptr(order: u16, preference: u16, service: &str, replacement: &str) -> RData {
    let text = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
    RData::NAPTR(NAPTR::new(order, preference, text("s"), text(service), text(""), name(replacement)))
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, name(target)))
}

fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn place(host: &str) -> Place {
    Place { host: host.parse().unwrap(), port: None, transport: None, secure: false }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    Instant::now()
}

fn any() -> IpAddr {
    "0.0.0.0".parse().unwrap()
}

/// `transport address` of each hop.
async fn ways(resolver: &Resolver, place: &Place, at: Instant) -> Vec<String> {
    let hops = resolver.locate(place, at, 1).await.unwrap();
    hops.iter().map(|hop| format!("{:?} {}", hop.transport, hop.addr)).collect()
}

#[tokio::test]
async fn naptr_leads_to_srv_leads_to_addresses() {
    let server = NameServer::new(vec![
        ("carrier.test.", naptr(20, 10, "SIP+D2U", "_sip._udp.carrier.test.")),
        ("carrier.test.", naptr(10, 20, "SIP+D2T", "_sip._tcp.carrier.test.")),
        ("carrier.test.", naptr(10, 10, "SIPS+D2T", "_sips._tcp.carrier.test.")),
        ("carrier.test.", naptr(1, 1, "E2U+sip", "_sip._udp.elsewhere.test.")),
        ("carrier.test.", a(99)),
        ("_sips._tcp.carrier.test.", srv(10, 0, 5061, "one.carrier.test.")),
        ("_sip._tcp.carrier.test.", srv(20, 0, 5060, "two.carrier.test.")),
        ("_sip._tcp.carrier.test.", srv(10, 0, 5070, "one.carrier.test.")),
        ("_sip._udp.carrier.test.", srv(10, 0, 5080, "one.carrier.test.")),
        ("one.carrier.test.", a(1)),
        ("two.carrier.test.", a(2)),
        ("two.carrier.test.", RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2))),
    ])
    .await;
    let resolver = Resolver::new(any(), Some(server.addr));
    let start = now();
    assert_eq!(
        ways(&resolver, &place("Carrier.test"), start).await,
        ["Tls 192.0.2.1:5061", "Tcp 192.0.2.1:5070", "Tcp 192.0.2.2:5060", "Udp 192.0.2.1:5080"]
    );
    let secure = Place { secure: true, ..place("carrier.test") };
    let hops = resolver.locate(&secure, start, 1).await.unwrap();
    // The certificate must be for the name that was asked for, not for what SRV made of it.
    assert_eq!((hops.len(), hops[0].server_name.as_deref()), (1, Some("carrier.test")));
    // A transport skips NAPTR, a port skips SRV as well.
    let tcp = Place { transport: Some(Transport::Tcp), ..place("carrier.test") };
    assert_eq!(ways(&resolver, &tcp, start).await, ["Tcp 192.0.2.1:5070", "Tcp 192.0.2.2:5060"]);
    let port = Place { port: Some(7), ..place("carrier.test") };
    assert_eq!(ways(&resolver, &port, start).await, ["Udp 192.0.2.99:7"]);
    // Sockets of both IP versions reach both addresses, IPv4 first.
    let both = Resolver::new("::".parse().unwrap(), Some(server.addr));
    assert_eq!(
        ways(&both, &tcp, start).await,
        ["Tcp 192.0.2.1:5070", "Tcp 192.0.2.2:5060", "Tcp [2001:db8::2]:5060"]
    );
}

#[tokio::test]
async fn without_naptr_srv_is_asked_and_without_srv_the_address() {
    let server = NameServer::new(vec![
        ("srv.test.", a(9)),
        ("_sip._tcp.srv.test.", srv(1, 0, 5062, "srv.test.")),
        ("_sip._udp.srv.test.", srv(1, 0, 0, ".")),
        ("plain.test.", a(3)),
    ])
    .await;
    let resolver = Resolver::new(any(), Some(server.addr));
    assert_eq!(ways(&resolver, &place("srv.test"), now()).await, ["Tcp 192.0.2.9:5062"]);
    assert_eq!(ways(&resolver, &place("plain.test"), now()).await, ["Udp 192.0.2.3:5060"]);
    let secure = Place { secure: true, ..place("plain.test") };
    assert_eq!(ways(&resolver, &secure, now()).await, ["Tls 192.0.2.3:5061"]);
    let nobody = resolver.locate(&place("nobody.test"), now(), 1).await;
    assert_eq!(nobody, Err(LocateError::NoAddress));
}

#[tokio::test]
async fn answers_are_kept_for_their_ttl_and_serve_on_when_the_name_service_fails() {
    let server = NameServer::new(vec![("kept.test.", a(4))]).await;
    let resolver = Resolver::new(any(), Some(server.addr));
    let start = now();
    let port = Place { port: Some(5060), ..place("kept.test") };
    assert_eq!(ways(&resolver, &port, start).await, ["Udp 192.0.2.4:5060"]);
    let asked = server.asked.load(Ordering::Relaxed);
    let within = start + Duration::from_secs(u64::from(TTL) - 5);
    assert_eq!(ways(&resolver, &port, within).await, ["Udp 192.0.2.4:5060"]);
    assert_eq!(server.asked.load(Ordering::Relaxed), asked, "asked again before its time");

    // Another resolver has no memory to fall back to; this one has.
    server.silent.store(true, Ordering::Relaxed);
    let later = start + Duration::from_secs(3_600);
    assert_eq!(ways(&resolver, &port, later).await, ["Udp 192.0.2.4:5060"]);
    let fresh = Resolver::new(any(), Some(server.addr));
    assert_eq!(fresh.locate(&port, start, 1).await, Err(LocateError::NoAnswer));
}
