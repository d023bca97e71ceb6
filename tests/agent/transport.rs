//! Calls of the running server by TCP and TLS: SIPp as a far end by TCP, and one of our own library by TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use serde_json::json;
use sip::tokio::{Arrival, SocketSettings, Sockets, TlsFiles};
use sip::{Config, Endpoint, Inbound, SessionEvent, Transport};

use crate::harness::{Server, go, home, number};
use crate::sipp::Sipp;

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this test runs on real sockets in real time")]
    Instant::now()
}

/// A key on one trunk with this proxy.
fn key_on(server: &Server, name: &str, proxy: &str) -> crate::api::Key {
    server.cli(&["trunks", "add", name, "--proxy", proxy]);
    server.key(&["--credits", "5", "--trunks", name])
}

#[test]
fn a_call_by_tcp_to_sipp() {
    go(async {
        let server = Server::start("tcp", &[]).await;
        let mut sipp = Sipp::start_with("answer", 1, &["-t", "t1"]).await;
        let key = key_on(&server, "tcp", &format!("sip:{};transport=tcp", sipp.addr));
        let call = key.answered_call(&json!({ "number": number("0100") })).await;
        key.hang_up(&call).await;
        key.wait_ended(&call).await;
        sipp.went_well().await;
        assert!(sipp.messages().contains("Via: SIP/2.0/TCP "), "{}", sipp.messages());
    });
}

/// Our certificate authority and a certificate for these names, as files in `folder`.
fn papers(folder: &std::path::Path, names: &[&str]) -> TlsFiles {
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
    TlsFiles {
        cert: write("cert.pem", own.pem()),
        key: write("key.pem", own_key.serialize_pem()),
        ca: write("ca.pem", root.pem()),
    }
}

/// Answers one call by TLS and plays no sound; ends when the call does. Gives back how it came.
async fn callee(mut sockets: Sockets) -> Transport {
    let port = sockets.local_addr(Transport::Tls).unwrap();
    let config = Config { inbound: Inbound::Anyone, tls_port: Some(port.port()), ..Config::new(port) };
    let mut endpoint = Endpoint::new(config, [3; 32]);
    let mut came = Transport::Udp;
    let sdp =
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";
    loop {
        while let Some((id, event)) = endpoint.poll_event() {
            match event {
                SessionEvent::Invited(invite) => {
                    came = invite.peer.transport;
                    endpoint.session(id).unwrap().answer(now(), Bytes::from_static(sdp.as_bytes()));
                }
                SessionEvent::Terminated(_) => return came,
                _ => {}
            }
        }
        while let Some(transmit) = endpoint.poll_transmit() {
            sockets.send(&transmit, None).unwrap();
        }
        let due = endpoint.poll_timeout().unwrap_or(now() + std::time::Duration::from_secs(60));
        tokio::select! {
            waited = sockets.wait() => waited.unwrap(),
            () = tokio::time::sleep_until(due.into()) => endpoint.handle_timeout(now()),
        }
        while let Some(arrival) = sockets.take() {
            if let Arrival::Message(from, bytes) = arrival {
                endpoint.handle_datagram(now(), from, &bytes);
            }
        }
    }
}

#[test]
fn a_call_by_tls_whose_certificate_is_good_and_none_where_it_is_not() {
    go(async {
        let folder = home("tls-papers");
        let files = papers(&folder, &["127.0.0.1"]);
        let ca = files.ca.clone().unwrap().display().to_string();
        let server = Server::start("tls", &[("SIP__TLS_CA", &ca)]).await;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = async |tls_files: TlsFiles| {
            let settings = SocketSettings { tls: Some(loopback), tls_files, ..SocketSettings::udp(loopback) };
            Sockets::bind(&settings).await.unwrap()
        };

        let good = listen(files).await;
        let proxy = format!("sips:{}", good.local_addr(Transport::Tls).unwrap());
        let key = key_on(&server, "good", &proxy);
        let far = tokio::spawn(callee(good));
        let call = key.answered_call(&json!({ "number": number("0100") })).await;
        key.hang_up(&call).await;
        assert_eq!(far.await.unwrap(), Transport::Tls);

        // Another authority's certificate: the trunk is one that cannot be reached.
        let strange = home("tls-strange");
        let bad = listen(papers(&strange, &["127.0.0.1"])).await;
        let proxy = format!("sip:{};transport=tls", bad.local_addr(Transport::Tls).unwrap());
        let key = key_on(&server, "bad", &proxy);
        let far = tokio::spawn(callee(bad));
        let failed = key.post("/makecall", &json!({ "number": number("0100") })).await.expect(500);
        assert_eq!(
            (&failed["code"], &failed["attemptedTrunks"]),
            (&json!("ORIGINATION_FAILED"), &json!(["bad-endpoint"]))
        );
        assert_eq!(key.credits().await, 5, "no call, no cost");
        far.abort();
    });
}
