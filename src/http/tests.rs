//! The listener on real sockets of loopback: what slow, idle, greedy and stalled peers get.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::config::Http;

/// No wait of these tests is longer.
const LONG: Duration = Duration::from_secs(20);

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("trunkline-http-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config() -> Http {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Http { listen: vec![any], header_timeout_s: 1, idle_timeout_s: 2, ..Http::default() }
}

fn router() -> Router {
    let large = || async { Body::from(vec![b'x'; 64 * 1024 * 1024]) };
    let who = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        "late"
    };
    let echo = |upgrade: WebSocketUpgrade| async {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(frame)) = socket.recv().await {
                socket.send(frame).await.unwrap();
            }
        })
    };
    let router = Router::new().route("/", get(who)).route("/slow", get(slow)).route("/large", get(large));
    router.route("/socket", get(echo))
}

async fn start(config: &Http) -> (Serving, Vec<SocketAddr>) {
    let listener = Listener::bind(config).await.unwrap();
    let addresses = listener.addresses();
    (listener.serve(&router()), addresses)
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Reads one answer that ends in this text.
async fn answer(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 1024];
    while !text.ends_with(end.as_bytes()) {
        let read = timeout(LONG, stream.read(&mut chunk)).await.expect("an answer in time").unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(text).unwrap()
}

/// How long it takes until the peer closes.
async fn closes(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let mut chunk = [0; 1024];
    loop {
        match timeout(LONG, stream.read(&mut chunk)).await.expect("closed in time") {
            Ok(0) | Err(_) => return started.elapsed(),
            Ok(_) => {}
        }
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn every_address_answers_and_knows_its_peer() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (serving, addresses) = start(&Http { listen: vec![any, any], ..config() }).await;
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        let mut stream = connect(address).await;
        stream.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut stream, "127.0.0.1").await.starts_with("HTTP/1.1 200"));
    }
    serving.stop(LONG).await;
}

/// Slowloris: heads that arrive a byte at a time take no place from others and are closed.
#[tokio::test]
async fn slow_heads_are_closed_and_hold_up_nobody() {
    let (serving, addresses) = start(&config()).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(addresses[0]).await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        slow.push(stream);
    }
    let mut quick = connect(addresses[0]).await;
    quick.write_all(REQUEST).await.unwrap();
    answer(&mut quick, "127.0.0.1").await;

    // A byte now and then does not buy more time.
    let dripping = Instant::now();
    let mut stream = connect(addresses[0]).await;
    while stream.write_all(b"x").await.is_ok() && dripping.elapsed() < LONG {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(dripping.elapsed() < Duration::from_secs(5), "{:?}", dripping.elapsed());
    for stream in &mut slow {
        assert!(closes(stream).await < Duration::from_secs(3));
    }
    serving.stop(LONG).await;
}

#[tokio::test]
async fn a_websocket_has_no_heads_to_be_slow_with() {
    let (_serving, addresses) = start(&config()).await;
    let stream = connect(addresses[0]).await;
    let request = format!("ws://{}/socket", addresses[0]);
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    for _ in 0..2 {
        socket.send(Message::text("well?")).await.unwrap();
        let said = timeout(LONG, socket.next()).await.unwrap();
        assert_eq!(said.unwrap().unwrap(), Message::text("well?"));
        // Longer than a head may take.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
}

#[tokio::test]
async fn idle_connections_are_kept_for_a_while() {
    let (serving, addresses) = start(&config()).await;
    let mut stream = connect(addresses[0]).await;
    stream.write_all(REQUEST).await.unwrap();
    answer(&mut stream, "127.0.0.1").await;
    // Longer than a head may take, for none has begun.
    tokio::time::sleep(Duration::from_millis(1400)).await;
    stream.write_all(REQUEST).await.unwrap();
    answer(&mut stream, "127.0.0.1").await;
    let waited = closes(&mut stream).await;
    assert!((1.5..4.0).contains(&waited.as_secs_f64()), "{waited:?}");
    // Nothing sent at all: the time of a head.
    let mut silent = connect(addresses[0]).await;
    let waited = closes(&mut silent).await;
    assert!((0.5..1.9).contains(&waited.as_secs_f64()), "{waited:?}");
    serving.stop(LONG).await;
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let (serving, addresses) = start(&config()).await;
    let mut stream = connect(addresses[0]).await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream, "late").await.starts_with("HTTP/1.1 200"));
    serving.stop(LONG).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    let pace = Pace { head: LONG, idle: LONG, stall: Duration::from_millis(200) };
    let (stop, stopped) = watch::channel(false);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    theirs.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    timeout(LONG, serve(ours, peer, router(), pace, stopped)).await.expect("given up in time");
    drop(stop);
}

#[tokio::test]
async fn connections_are_bounded_and_the_rest_wait() {
    let (serving, addresses) = start(&Http { max_connections: 2, ..config() }).await;
    let mut held = [connect(addresses[0]).await, connect(addresses[0]).await];
    for stream in &mut held {
        stream.write_all(REQUEST).await.unwrap();
        answer(stream, "127.0.0.1").await;
    }
    let mut third = connect(addresses[0]).await;
    third.write_all(REQUEST).await.unwrap();
    let early = timeout(Duration::from_millis(300), third.read_u8()).await;
    assert!(early.is_err(), "a third one is served");
    drop(held);
    assert!(answer(&mut third, "127.0.0.1").await.starts_with("HTTP/1.1 200"));
    serving.stop(LONG).await;
}

#[tokio::test]
async fn stopping_answers_what_is_under_way() {
    let (serving, addresses) = start(&config()).await;
    let mut busy = connect(addresses[0]).await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut idle = connect(addresses[0]).await;
    idle.write_all(REQUEST).await.unwrap();
    answer(&mut idle, "127.0.0.1").await;
    let stopping = tokio::spawn(serving.stop(LONG));
    assert!(answer(&mut busy, "late").await.starts_with("HTTP/1.1 200"));
    stopping.await.unwrap();
    assert!(TcpStream::connect(addresses[0]).await.is_err());
}

/// Writes a certificate for `localhost` and its key.
fn certificate(folder: &Path) -> (PathBuf, PathBuf, CertificateOf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key, made.cert.der().clone())
}

type CertificateOf = tokio_rustls::rustls::pki_types::CertificateDer<'static>;

/// Asks over TLS, trusting this certificate alone.
async fn ask_tls(address: SocketAddr, trusted: CertificateOf) -> io::Result<String> {
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".to_owned().try_into().unwrap();
    let mut stream = connector.connect(name, connect(address).await).await?;
    stream.write_all(REQUEST).await?;
    Ok(answer(&mut stream, "127.0.0.1").await)
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_are_renewed() {
    let folder = Scratch::new();
    let (tls_cert, tls_key, first) = certificate(&folder.0);
    let listener = Listener::bind(&Http { tls_cert, tls_key, ..config() }).await.unwrap();
    let address = listener.addresses()[0];
    let certificates = listener.shared.tls.clone().unwrap();
    let serving = listener.serve(&router());
    assert!(ask_tls(address, first.clone()).await.unwrap().starts_with("HTTP/1.1 200"));

    // Whoever speaks plain HTTP gets no answer, and others are served meanwhile.
    let mut plain = connect(address).await;
    plain.write_all(REQUEST).await.unwrap();
    closes(&mut plain).await;

    let (cert, key, second) = certificate(&folder.0);
    certificates.renew().await;
    assert!(ask_tls(address, second.clone()).await.is_ok());
    assert!(ask_tls(address, first).await.is_err());

    std::fs::write(&key, "no key").unwrap();
    certificates.renew().await;
    assert!(ask_tls(address, second).await.is_ok(), "a pair that cannot be read leaves the old one");
    std::fs::write(&cert, "").unwrap();
    assert!(matches!(Certificates::load(&cert, &key), Err(TlsError::Empty(_))));
    serving.stop(LONG).await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = Listener::bind(&Http { listen: vec![address], ..config() }).await.err().unwrap();
    assert!(error.to_string().starts_with(&format!("cannot listen on HTTP {address}: ")), "{error}");
    let none = Http { tls_cert: "/nowhere/a.pem".into(), tls_key: "/nowhere/b.pem".into(), ..config() };
    let error = Listener::bind(&none).await.err().unwrap();
    assert!(error.to_string().starts_with("cannot read /nowhere/a.pem: "), "{error}");
}
