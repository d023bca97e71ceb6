//! RFC 4475's messages over the wire at the running server. By TCP each is answered as it deserves; by UDP, where answers
//! go to wherever its `Via` says, the server goes on after it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sip::frame::Framer;
use sip::parse::{ParseError, parse};
use sip::{Message, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::harness::{Server, free_port, go};

/// Longer than any answer takes.
const ANSWER: Duration = Duration::from_secs(10);

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sip/tests/torture");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

fn options(mark: &str, transport: &str) -> String {
    format!(
        "OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1;branch=z9hG4bK{mark};rport\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: {mark}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// What a message deserves on a connection: an answer with this code, any final answer, or none. INVITEs are not
/// answered, since nobody may call this server.
#[derive(Debug, PartialEq, Eq)]
enum Deserves {
    Code(u16),
    Any,
    Nothing,
}

fn deserves(message: &[u8]) -> Deserves {
    match parse(message) {
        Ok(Message::Request(request)) => match request.method {
            Method::Invite | Method::Ack => Deserves::Nothing,
            _ => Deserves::Any,
        },
        Ok(Message::Response(_)) => Deserves::Nothing,
        Err(ParseError::Refused { code, headers, .. }) => {
            let invite = headers.get("CSeq").is_some_and(|cseq| cseq.trim_end().ends_with("INVITE"));
            if invite { Deserves::Nothing } else { Deserves::Code(code) }
        }
        Err(_) => Deserves::Nothing,
    }
}

async fn code(stream: &mut TcpStream, framer: &mut Framer) -> Option<u16> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(message) = framer.next_message().unwrap() {
            let text = String::from_utf8_lossy(&message).into_owned();
            return Some(text.split(' ').nth(1).unwrap().parse().unwrap());
        }
        match timeout(ANSWER, stream.read(&mut buffer)).await.expect("an answer or an end") {
            Ok(length @ 1..) => framer.push(&buffer[..length]),
            Ok(_) | Err(_) => return None,
        }
    }
}

#[test]
fn torture_by_tcp() {
    go(async {
        let tcp = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let server = Server::start("torture-tcp", &[("SIP__TCP", &tcp.to_string())]).await;
        let (mut answered, mut closed) = (0, 0);
        for (name, bytes) in corpus() {
            let mut cutter = Framer::new();
            cutter.push(&bytes);
            let first = cutter.next_message();
            // What comes after the first message is a message of its own on a stream.
            let whole = matches!(&first, Ok(Some(message)) if message.len() == bytes.len());
            let mut stream = TcpStream::connect(tcp).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut framer = Framer::new();
            if whole {
                stream.write_all(options(&name, "TCP").as_bytes()).await.unwrap();
                let got = code(&mut stream, &mut framer).await.expect(&name);
                match deserves(&bytes) {
                    Deserves::Code(wanted) => assert_eq!(got, wanted, "{name}"),
                    Deserves::Any => assert!(got >= 200, "{name}: {got}"),
                    // The answer is that of the OPTIONS after it.
                    Deserves::Nothing => {
                        assert_eq!(got, 200, "{name}");
                        continue;
                    }
                }
                answered += 1;
                assert_eq!(code(&mut stream, &mut framer).await, Some(200), "{name}");
            } else if first.is_err() {
                // No length, or none that can be read: perhaps told why, and closed in any case.
                while let Some(got) = code(&mut stream, &mut framer).await {
                    assert!((400..600).contains(&got), "{name}: {got}");
                }
                closed += 1;
            }
        }
        assert!(answered >= 10 && closed >= 3, "{answered} {closed}");
        assert_eq!(
            deserves(&corpus().iter().find(|(name, _)| name == "I_ncl").unwrap().1),
            Deserves::Nothing
        );
        drop(server);
    });
}

#[test]
fn torture_by_udp() {
    go(async {
        let server = Server::start("torture-udp", &[]).await;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut buffer = [0; 65_535];
        for (name, bytes) in corpus() {
            socket.send_to(&bytes, server.sip).await.unwrap();
            socket.send_to(options(&name, "UDP").as_bytes(), server.sip).await.unwrap();
            // Answers to the message itself come only where its Via asked for the source port.
            loop {
                let length = timeout(ANSWER, socket.recv(&mut buffer)).await.expect(&name).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                assert!(text.starts_with("SIP/2.0 "), "{name}: {text}");
                if text.contains(&format!("z9hG4bK{name};")) {
                    assert!(text.starts_with("SIP/2.0 200 "), "{name}: {text}");
                    break;
                }
            }
        }
    });
}
