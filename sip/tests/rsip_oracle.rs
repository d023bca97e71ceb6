//! A second reader as an oracle: every message of the corpus and a set of ordinary ones is read by rsip, too. Where the two
//! readings differ, a row says why. A difference without a row fails, and so does a row without its difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rsip::headers::UntypedHeader as _;
use rsip::message::HeadersExt as _;
use rsip::prelude::{HasHeaders as _, ToTypedHeader as _};
use sip::headers::{CSeq, Via};
use sip::parse::parse;
use sip::{Message, NameAddr};

/// The parts of a message that both readers name. A part that cannot be read is absent.
type Reading = BTreeMap<&'static str, String>;

fn ours(bytes: &[u8]) -> Option<Reading> {
    let message = parse(bytes).ok()?;
    let start = match &message {
        Message::Request(request) => format!("{} {}", request.method, request.uri),
        Message::Response(response) => response.code.to_string(),
    };
    let mut out = Reading::from([("start", start), ("body", hex(message.body()))]);
    let headers = message.headers();
    for (name, uri, tag) in [("From", "from", "from tag"), ("To", "to", "to tag")] {
        let address: NameAddr = headers.get(name)?.parse().ok()?;
        out.insert(uri, address.uri.to_string());
        out.extend(address.tag().map(|t| (tag, t.to_owned())));
    }
    out.insert("call-id", headers.get("Call-ID")?.to_owned());
    out.insert("cseq", headers.get("CSeq")?.parse::<CSeq>().ok()?.to_string());
    let via: Via = headers.list("Via").next()?.parse().ok()?;
    out.insert("via", format!("{} {}", via.transport, via.host));
    out.extend(via.branch().map(|branch| ("branch", branch.to_owned())));
    let contact = headers.list("Contact").next().and_then(|c| c.parse::<NameAddr>().ok());
    out.extend(contact.map(|contact| ("contact", contact.uri.to_string())));
    Some(out)
}

fn theirs(bytes: &[u8]) -> Option<Reading> {
    let message = rsip::SipMessage::try_from(bytes).ok()?;
    let start = match &message {
        rsip::SipMessage::Request(request) => format!("{} {}", request.method, request.uri),
        rsip::SipMessage::Response(response) => response.status_code.code().to_string(),
    };
    let mut out = Reading::from([("start", start), ("body", hex(message.body()))]);
    if let Some(from) = message.from_header().ok().and_then(|h| h.typed().ok()) {
        out.insert("from", from.uri.to_string());
        out.extend(from.tag().map(|tag| ("from tag", tag.to_string())));
    }
    if let Some(to) = message.to_header().ok().and_then(|h| h.typed().ok()) {
        out.insert("to", to.uri.to_string());
        out.extend(to.tag().map(|tag| ("to tag", tag.to_string())));
    }
    out.extend(message.call_id_header().ok().map(|h| ("call-id", h.value().trim().to_owned())));
    let cseq = message.cseq_header().ok().and_then(|h| h.typed().ok());
    out.extend(cseq.map(|cseq| ("cseq", format!("{} {}", cseq.seq, cseq.method))));
    if let Some(via) = message.via_header().ok().and_then(|h| h.typed().ok()) {
        out.insert("via", format!("{} {}", via.transport, via.uri.host_with_port.host));
        out.extend(via.branch().map(|branch| ("branch", branch.value().to_owned())));
    }
    let contact = message.contact_header().ok().and_then(|h| h.typed().ok());
    out.extend(contact.map(|contact| ("contact", contact.uri.to_string())));
    debug_assert!(message.headers().iter().count() <= 128);
    Some(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names of the parts in which the readings differ; `read` when only one of them reads it at all.
fn differences(bytes: &[u8]) -> BTreeSet<&'static str> {
    let (ours, theirs) = match (ours(bytes), theirs(bytes)) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        (None, None) => return BTreeSet::new(),
        (Some(_), None) => return BTreeSet::from(["only we read it"]),
        (None, Some(_)) => return BTreeSet::from(["only rsip reads it"]),
    };
    ours.keys().chain(theirs.keys()).copied().filter(|part| ours.get(part) != theirs.get(part)).collect()
}

/// Message, parts, reason.
const EXPLAINED: &[(&str, &[&str], &str)] = &[
    ("I_badaspec", &["only rsip reads it"], "it passes over space inside of angle brackets"),
    ("I_baddate", &["only rsip reads it"], "it never reads Date"),
    ("I_baddn", &["only rsip reads it"], "it takes a comma in an unquoted display name"),
    ("I_badinv01", &["only rsip reads it"], "it reads a header only when asked, and then fails"),
    ("I_clerr", &["only rsip reads it"], "it never reads Content-Length"),
    ("I_ltgtruri", &["only rsip reads it"], "it takes the angle brackets for parts of the URI"),
    ("I_mismatch01", &["only rsip reads it"], "it does not compare CSeq with the method"),
    ("I_ncl", &["only rsip reads it"], "it never reads Content-Length"),
    ("I_quotbal", &["only rsip reads it"], "it does not count quotation marks"),
    ("I_regbadct", &["only rsip reads it"], "it takes headers in a bare Contact"),
    ("I_scalarlg", &["only rsip reads it"], "it reads CSeq only when asked, and then fails"),
    ("S_insuf", &["only rsip reads it"], "it does not miss From, To and Call-ID"),
    ("S_mcl01", &["only rsip reads it"], "it never reads Content-Length"),
    ("S_multi01", &["only rsip reads it"], "it takes the first of several CSeqs and Call-IDs"),
    ("S_regescrt", &["contact"], "it does not know the compact name of Contact"),
    ("S_unkscm", &["only we read it"], "it knows no URI without a host"),
    ("S_unksm2", &["contact", "to"], "it knows no URI without a host"),
    (
        "V_dblreq",
        &["body", "call-id"],
        "it takes the second request for a body, and knows no compact Call-ID",
    ),
    ("V_esc01", &["only we read it"], "it does not unfold headers"),
    ("V_esc02", &["only we read it"], "it knows only its own list of methods"),
    ("V_intmeth", &["only we read it"], "it knows only its own list of methods"),
    ("V_longreq", &["only we read it"], "it does not unfold headers"),
    ("V_semiuri", &["only we read it"], "it does not unfold headers"),
    ("V_wsinv", &["only we read it"], "it takes no space before colons and does not unfold headers"),
    (
        "X_compact",
        &["branch", "call-id", "contact", "from", "from tag", "to", "via"],
        "it knows no compact names",
    ),
    ("X_ipv6", &["only we read it"], "it knows no IPv6 reference"),
    ("X_leadcrlf", &["only we read it"], "it takes no line end before a message"),
    ("call to a telephone number", &["only we read it"], "it knows no URI without a host"),
    ("ordinary INVITE", &["start"], "it writes transport=udp in capitals"),
];

/// What a trunk says all day.
const ORDINARY: &[(&str, &str)] = &[
    (
        "ordinary INVITE",
        "INVITE sip:0015551234@192.0.2.10:5060;transport=udp SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1f;rport\n\
         Max-Forwards: 70\nFrom: \"Alice\" <sip:alice@192.0.2.1>;tag=a1\nTo: <sip:0015551234@192.0.2.10>\nCall-ID: 77@192.0.2.1\n\
         CSeq: 1 INVITE\nContact: <sip:alice@192.0.2.1:5060>\nAllow: INVITE, ACK, BYE\nContent-Type: application/sdp\n\
         Content-Length: 5\n\nv=0\n",
    ),
    (
        "ordinary 100",
        "SIP/2.0 100 Trying\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1f;rport=5060;received=192.0.2.1\n\
         From: \"Alice\" <sip:alice@192.0.2.1>;tag=a1\nTo: <sip:0015551234@192.0.2.10>\nCall-ID: 77@192.0.2.1\nCSeq: 1 INVITE\n\
         Content-Length: 0\n\n",
    ),
    (
        "ordinary 183",
        "SIP/2.0 183 Session Progress\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1f\nFrom: <sip:alice@192.0.2.1>;tag=a1\n\
         To: <sip:b@192.0.2.10>;tag=b1\nCall-ID: 77@192.0.2.1\nCSeq: 1 INVITE\nContact: <sip:b@192.0.2.10:5080>\n\
         Content-Type: application/sdp\nContent-Length: 5\n\nv=0\n",
    ),
    (
        "ordinary 200",
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1f\nRecord-Route: <sip:192.0.2.10;lr>\n\
         From: <sip:alice@example.com>;tag=a1\nTo: \"B, the callee\" <sip:b@example.com>;tag=b1\nCall-ID: 77\nCSeq: 1 INVITE\n\
         Contact: <sip:b@192.0.2.11;ob>;expires=60\nContent-Length: 0\n\n",
    ),
    (
        "ordinary ACK",
        "ACK sip:b@192.0.2.11;ob SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK2f\nRoute: <sip:192.0.2.10;lr>\n\
         Max-Forwards: 70\nFrom: <sip:alice@example.com>;tag=a1\nTo: <sip:b@example.com>;tag=b1\nCall-ID: 77\nCSeq: 1 ACK\n\
         Content-Length: 0\n\n",
    ),
    (
        "ordinary BYE",
        "BYE sip:alice@192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKb;rport\nMax-Forwards: 69\n\
         From: <sip:b@example.com>;tag=b1\nTo: <sip:alice@example.com>;tag=a1\nCall-ID: 77\nCSeq: 102 BYE\n\
         Reason: Q.850;cause=16;text=\"Normal call clearing\"\nContent-Length: 0\n\n",
    ),
    (
        "ordinary 407",
        "SIP/2.0 407 Proxy Authentication Required\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1f\n\
         From: <sip:alice@example.com>;tag=a1\nTo: <sip:b@example.com>;tag=p\nCall-ID: 77\nCSeq: 1 INVITE\n\
         Proxy-Authenticate: Digest realm=\"example.com\", nonce=\"n\", qop=\"auth\", algorithm=MD5\nContent-Length: 0\n\n",
    ),
    (
        "ordinary 486",
        "SIP/2.0 486 Busy Here\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1f\nFrom: <sip:alice@example.com>;tag=a1\n\
         To: <sip:b@example.com>;tag=b\nCall-ID: 77\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "call to a telephone number",
        "INVITE tel:+15551234 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\nMax-Forwards: 70\n\
         From: <tel:+15550000>;tag=1\nTo: <tel:+15551234>\nCall-ID: 1\nCSeq: 1 INVITE\nContact: <sip:192.0.2.1>\n\
         Content-Length: 0\n\n",
    ),
];

#[test]
fn every_difference_is_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture");
    let mut messages: BTreeMap<String, Vec<u8>> = ORDINARY
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.replace('\n', "\r\n").into_bytes()))
        .collect();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        messages
            .insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
    }
    let mut wrong = Vec::new();
    for (name, bytes) in &messages {
        let found = differences(bytes);
        let row = EXPLAINED.iter().find(|(message, ..)| message == name);
        let expected: BTreeSet<&str> =
            row.map(|(_, parts, _)| parts.iter().copied().collect()).unwrap_or_default();
        if found != expected {
            wrong.push(format!("(\"{name}\", &{:?}, \"\"),", found.iter().collect::<Vec<_>>()));
        }
    }
    assert!(EXPLAINED.iter().all(|(name, _, why)| messages.contains_key(*name) && !why.is_empty()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
