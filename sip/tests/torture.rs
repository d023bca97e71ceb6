//! RFC 4475, message by message, with four cases from the field. Each file of the corpus has a row that says how it reads
//! and what a user agent that takes calls from anyone does with it; a file without a row fails, and so does a row without
//! a file.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::*;
use sip::frame::Framer;
use sip::headers::Via;
use sip::parse::{ParseError, parse};
use sip::{Host, Message, NameAddr, Request, SessionEvent, Uri};

/// How a message reads, and what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// A good INVITE: somebody calls.
    Rings,
    /// A good request, answered with this status.
    Answered(u16),
    /// A request that cannot be read to its end, answered with this status.
    Refused(u16),
    /// Not a message, or one that must not be answered: dropped.
    Dropped,
    /// A good response. Nobody waits for it: dropped.
    Response(u16),
}

use Reading::{Answered, Dropped, Refused, Response, Rings};

const TABLE: &[(&str, Reading)] = &[
    // Space inside of angle brackets (3.1.2.14).
    ("I_badaspec", Refused(400)),
    // A time zone that is not GMT (3.1.2.12).
    ("I_baddate", Refused(400)),
    // A comma in an unquoted display name (3.1.2.15).
    ("I_baddn", Refused(400)),
    // Empty parameters, in the Via, too: there is no way back (3.1.2.1).
    ("I_badinv01", Dropped),
    // SIP/7.0 (3.1.2.16).
    ("I_badvers", Refused(505)),
    // A status beyond 32 bits (3.1.2.19).
    ("I_bigcode", Dropped),
    // Less body than Content-Length says (3.1.2.2).
    ("I_clerr", Refused(400)),
    // Headers in the Request-URI (3.1.2.11).
    ("I_escruri", Refused(400)),
    // Angle brackets round the Request-URI (3.1.2.7).
    ("I_ltgtruri", Refused(400)),
    // A space in the Request-URI (3.1.2.8).
    ("I_lwsruri", Refused(400)),
    // Several spaces between the parts of the first line (3.1.2.9).
    ("I_lwsstart", Refused(400)),
    // CSeq names another method, known and unknown (3.1.2.17, 3.1.2.18).
    ("I_mismatch01", Refused(400)),
    ("I_mismatch02", Refused(400)),
    // A negative Content-Length (3.1.2.3).
    ("I_ncl", Refused(400)),
    // A quoted string that does not end (3.1.2.6).
    ("I_quotbal", Refused(400)),
    // A header in a Contact URI without angle brackets (3.1.2.13).
    ("I_regbadct", Refused(400)),
    // Numbers beyond their range, in a request and in a response (3.1.2.4, 3.1.2.5).
    ("I_scalar02", Refused(400)),
    ("I_scalarlg", Dropped),
    // Spaces after the version (3.1.2.10).
    ("I_trws", Refused(400)),
    // A branch that is the magic cookie and nothing else (3.2.1).
    ("S_badbranch", Answered(200)),
    // A response with a second Via (3.3.6).
    ("S_bcast", Response(200)),
    // Unknown extensions are required (3.3.4).
    ("S_bext01", Answered(420)),
    // URI parameters and header parameters of a Contact (3.3.12, 3.3.13); we are no registrar.
    ("S_cparam01", Answered(405)),
    ("S_cparam02", Answered(405)),
    // No Call-ID, From or To: no answer can be made (3.3.1).
    ("S_insuf", Dropped),
    // An INVITE by the rules of RFC 2543 (3.4.1).
    ("S_inv2543", Rings),
    // A body that we do not know (3.3.5).
    ("S_invut", Answered(415)),
    // Two Content-Lengths that differ (3.3.9).
    ("S_mcl01", Refused(400)),
    // Headers given twice that may stand only once (3.3.8).
    ("S_multi01", Refused(400)),
    // A known scheme that we do not speak (3.3.3).
    ("S_novelsc", Answered(416)),
    // Unknown authorization and a header in a Contact (3.3.7, 3.3.14); we are no registrar.
    ("S_regaut01", Answered(405)),
    ("S_regescrt", Answered(405)),
    // The caller takes nothing that we could answer with (3.3.15).
    ("S_sdp01", Answered(406)),
    // Unknown schemes, in the Request-URI and elsewhere (3.3.2, 3.3.3).
    ("S_unkscm", Answered(416)),
    ("S_unksm2", Answered(405)),
    // Max-Forwards is used up (3.3.11).
    ("S_zeromf", Answered(483)),
    // Two requests in a datagram: the second is no part of the first (3.1.1.8).
    ("V_dblreq", Answered(405)),
    // Escapes where they mean something and where they do not (3.1.1.3 to 3.1.1.5).
    ("V_esc01", Rings),
    ("V_esc02", Answered(405)),
    ("V_escnull", Answered(405)),
    // All that the grammar allows (3.1.1.2).
    ("V_intmeth", Answered(405)),
    // Long values (3.1.1.7).
    ("V_longreq", Rings),
    // No space between display name and angle bracket (3.1.1.6).
    ("V_lwsdisp", Answered(200)),
    // A binary part (3.1.1.11).
    ("V_mpart01", Answered(405)),
    // An empty reason phrase (3.1.1.13).
    ("V_noreason", Response(100)),
    // Semicolons in the user part (3.1.1.9).
    ("V_semiuri", Answered(200)),
    // Transports of all kinds (3.1.1.10).
    ("V_transports", Answered(200)),
    // A reason phrase beyond ASCII (3.1.1.12).
    ("V_unreason", Response(200)),
    // Space and folding wherever it may be; inside of a dialog that we do not have (3.1.1.1).
    ("V_wsinv", Answered(481)),
    // Compact names.
    ("X_compact", Rings),
    // IPv6 references.
    ("X_ipv6", Rings),
    // Line ends before the message.
    ("X_leadcrlf", Rings),
    // No Content-Length: the body is what the datagram holds.
    ("X_noclen_udp", Rings),
];

fn corpus() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

fn request_of(name: &str) -> Request {
    match parse(&corpus()[name]) {
        Ok(Message::Request(request)) => request,
        other => panic!("{name}: {other:?}"),
    }
}

/// What an endpoint does with a message from the network.
fn reading(bytes: &[u8]) -> Reading {
    let parsed = parse(bytes);
    let mut bench = Bench::new();
    bench.feed_from("192.0.2.254:5060", bytes);
    let rings = bench.events.iter().any(|(_, event)| matches!(event, SessionEvent::Invited(_)));
    let code = bench.sent.pop_front().map(|(_, message)| match message {
        Message::Response(response) => response.code,
        Message::Request(request) => panic!("we ask: {}", request.method),
    });
    assert!(bench.sent.is_empty(), "one answer is enough");
    match (parsed, rings, code) {
        (Ok(Message::Request(_)), true, Some(100)) => Rings,
        (Ok(Message::Request(_)), false, Some(code)) => Answered(code),
        (Ok(Message::Response(response)), false, None) => Response(response.code),
        (Err(ParseError::Refused { code: by_parser, .. }), false, Some(code)) if by_parser == code => {
            Refused(code)
        }
        (Err(ParseError::Malformed(_)), false, None) => Dropped,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_message_reads_as_its_row_says() {
    let corpus = corpus();
    let named: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    let there: BTreeSet<&str> = corpus.keys().map(String::as_str).collect();
    assert_eq!(named, there);
    assert_eq!(TABLE.len(), 53);
    for (name, expected) in TABLE {
        assert_eq!(reading(&corpus[*name]), *expected, "{name}");
    }
}

#[test]
fn the_invalid_are_all_refused_or_dropped_and_the_valid_all_read() {
    for (name, reading) in TABLE {
        match &name[..2] {
            "I_" => assert!(matches!(reading, Refused(400 | 505) | Dropped), "{name}"),
            "V_" | "X_" => assert!(!matches!(reading, Refused(_) | Dropped), "{name}"),
            _ => {}
        }
    }
}

#[test]
fn a_message_full_of_space_reads_like_one_without() {
    let request = request_of("V_wsinv");
    let headers = &request.headers;
    let vias: Vec<Via> = headers.list("Via").map(|via| via.parse().unwrap()).collect();
    let written: Vec<String> = vias.iter().map(ToString::to_string).collect();
    assert_eq!(
        written,
        [
            "SIP/2.0/UDP 192.0.2.2;branch=390skdjuw",
            "SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8",
            "SIP/2.0/UDP 192.168.255.111;branch=z9hG4bK30239"
        ]
    );
    let to: NameAddr = headers.get("To").unwrap().parse().unwrap();
    assert_eq!(
        (to.tag(), to.uri.to_string().as_str()),
        (Some("1918181833n"), "sip:vivekg@chair-dnrc.example.com")
    );
    let from: NameAddr = headers.get("From").unwrap().parse().unwrap();
    assert_eq!((from.tag(), from.display.as_deref()), (Some("98asjd8"), Some("J Rosenberg \\\"")));
    assert_eq!(headers.get("CSeq").unwrap().parse::<sip::headers::CSeq>().unwrap().seq, 9);
    assert_eq!(headers.get("Subject"), Some(""));
    assert_eq!(headers.get("NewFangledHeader"), Some("newfangled value continued newfangled value"));
    let contact: NameAddr = headers.get("Contact").unwrap().parse().unwrap();
    assert_eq!(contact.display.as_deref(), Some("Quoted string \"\""));
    assert_eq!((contact.params.get("q"), contact.params.get("newparam")), (Some("0.33"), Some("newvalue")));
    assert_eq!(request.body.len(), 150);
}

#[test]
fn all_that_the_grammar_allows_is_kept() {
    let request = request_of("V_intmeth");
    assert_eq!(request.method.as_str(), "!interesting-Method0123456789_*+`.%indeed'~");
    let Uri::Sip(uri) = &request.uri else { panic!() };
    assert_eq!(uri.user.as_deref(), Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(uri.password.as_deref(), Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!(uri.host, Host::Name("example.com".into()));
    let from: NameAddr = request.headers.get("From").unwrap().parse().unwrap();
    assert_eq!(from.display.as_deref(), Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(from.tag(), Some("_token~1'+`*%!-."));
    let to: NameAddr = request.headers.get("To").unwrap().parse().unwrap();
    assert_eq!(to.display.as_deref(), Some("BEL:\u{7} NUL:\0 DEL:\u{7f}"));
    assert!(request.to_bytes().starts_with(b"!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual"));
}

#[test]
fn escapes_are_undone_only_where_they_are_escapes() {
    let request = request_of("V_esc01");
    assert_eq!(request.uri.user().as_deref(), Some("sips:user@example.com"));
    let contact: NameAddr = request.headers.get("Contact").unwrap().parse().unwrap();
    assert_eq!(contact.uri.user().as_deref(), Some("caller"));
    let request = request_of("V_esc02");
    assert_eq!(request.method.as_str(), "RE%47IST%45R");
    assert_eq!(
        (request.headers.get_all("Contact").count(), request.headers.get_all("C%6Fntact").count()),
        (2, 1)
    );
    let request = request_of("V_escnull");
    let to: NameAddr = request.headers.get("To").unwrap().parse().unwrap();
    assert_eq!(to.uri.user().as_deref(), Some("null-\0-null"));
    assert_eq!(request_of("V_semiuri").uri.user().as_deref(), Some("user;par=u@example.net"));
}

#[test]
fn parameters_belong_to_the_uri_only_inside_of_brackets() {
    let contact = |name: &str| request_of(name).headers.get("Contact").unwrap().parse::<NameAddr>().unwrap();
    let (bare, bracketed) = (contact("S_cparam01"), contact("S_cparam02"));
    assert!(bare.params.has("unknownparam") && !bare.uri.as_sip().unwrap().params.has("unknownparam"));
    assert!(
        !bracketed.params.has("unknownparam") && bracketed.uri.as_sip().unwrap().params.has("unknownparam")
    );
}

#[test]
fn bodies_are_as_long_as_they_say() {
    assert_eq!(request_of("V_mpart01").body.len(), 553);
    assert_eq!(request_of("X_compact").body.as_ref(), b"v=0\r\n");
    assert_eq!(request_of("X_noclen_udp").body.as_ref(), b"v=0\r\n");
    assert!(request_of("V_dblreq").body.is_empty());
    let mut framer = Framer::new();
    framer.push(&corpus()["V_dblreq"]);
    // The INVITE's Content-Length is a letter short of its body, so that more than two would be too many.
    let methods: Vec<String> = std::iter::from_fn(|| framer.next_message().unwrap())
        .take(2)
        .map(|bytes| match parse(&bytes).unwrap() {
            Message::Request(request) => request.method.to_string(),
            Message::Response(_) => panic!(),
        })
        .collect();
    assert_eq!(methods, ["REGISTER", "INVITE"]);
}

#[test]
fn addresses_of_the_sixth_version() {
    let request = request_of("X_ipv6");
    let Uri::Sip(uri) = &request.uri else { panic!() };
    assert_eq!(
        (uri.host.to_string().as_str(), uri.port, uri.params.get("transport")),
        ("[2001:db8::2]", Some(5080), Some("tcp"))
    );
    assert_eq!(
        request.headers.get("Via").unwrap().parse::<Via>().unwrap().host.ip(),
        Some("2001:db8::1".parse().unwrap())
    );
}

#[test]
fn every_message_that_reads_is_written_so_that_it_reads_the_same() {
    for (name, bytes) in corpus() {
        let Ok(message) = parse(&bytes) else { continue };
        let written = message.to_bytes();
        let again = parse(&written).unwrap();
        assert_eq!(again.to_bytes(), written, "{name}");
        assert_eq!(again.body(), message.body(), "{name}");
        let visible = |message: &Message| -> Vec<(String, String)> {
            let headers = message.headers().iter().filter(|(name, _)| *name != "Content-Length");
            headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(visible(&again), visible(&message), "{name}");
    }
}
