//! What reading a SIP message costs, and cutting a stream of them.
//!
//! `cargo bench --bench parsing`

use std::time::{Duration, Instant};

use sip::frame::Framer;
use sip::parse::parse;

const ROUNDS: u32 = 200_000;
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n";

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    Instant::now()
}

fn message(start: &str, body: &str) -> Vec<u8> {
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK0123456789abcdef;rport\r\nMax-Forwards: 70\r\n\
         From: \"Alice\" <sip:14155550100@carrier.example.com>;tag=0123456789abcdef\r\nTo: <sip:14155550101@192.0.2.1>\r\n\
         Call-ID: 0123456789abcdef0123456789abcdef\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@192.0.2.2:5060>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY\r\nUser-Agent: bench/1.0\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn each(what: &str, bytes: usize, time: Duration) {
    let nanos = time.as_nanos() as f64 / f64::from(ROUNDS);
    println!("{what:<24} {bytes:>5} bytes   {:>7.2} µs", nanos / 1_000.0);
}

fn main() {
    for (what, text) in [
        ("INVITE", message("INVITE sip:14155550101@192.0.2.1 SIP/2.0", SDP)),
        ("200 with a description", message("SIP/2.0 200 OK", SDP)),
        ("180", message("SIP/2.0 180 Ringing", "")),
        ("not SIP", vec![b'x'; 600]),
    ] {
        let start = now();
        let mut read = 0_u32;
        for _ in 0..ROUNDS {
            read += u32::from(std::hint::black_box(parse(std::hint::black_box(&text))).is_ok());
        }
        each(what, text.len(), start.elapsed());
        assert!(read == 0 || read == ROUNDS, "the same bytes read differently");
    }
    let text = message("INVITE sip:14155550101@192.0.2.1 SIP/2.0", SDP);
    let start = now();
    let (mut framer, mut cut) = (Framer::new(), 0);
    for _ in 0..ROUNDS {
        framer.push(&text);
        while let Ok(Some(message)) = framer.next_message() {
            cut += u32::from(message.len() == text.len());
        }
    }
    assert_eq!(cut, ROUNDS, "a message was lost");
    each("cut from a stream", text.len(), start.elapsed());
}
