//! Bytes to message (RFC 3261 §7, §18.3, RFC 4475 for what goes wrong).
//!
//! Owns reading: total, never panics, every size limited. Tolerates folding, compact names, white space round colons,
//! line ends of LF alone, leading line ends and, on datagrams, a missing `Content-Length`. A request that is wrong but says
//! enough to be answered comes back as [`ParseError::Refused`] with the status that it deserves.

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

use crate::headers::{CSeq, HeaderError, NameAddr, Via, read_number, split_list};
use crate::message::{Headers, Message, Method, Request, Response, is_token};
use crate::uri::Uri;

/// Longest message, in bytes: what one UDP datagram can carry.
pub const MAX_MESSAGE: usize = 65_535;
/// Most header lines in a message.
pub const MAX_HEADERS: usize = 128;
/// Longest header value, in bytes, after unfolding.
pub const MAX_HEADER_VALUE: usize = 8 * 1_024;
/// Longest header name, method or start line word, in bytes.
pub const MAX_WORD: usize = 256;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Nothing but line ends: a keep-alive (RFC 5626 §3.5.1).
    #[error("empty")]
    Empty,
    /// Larger than [`MAX_MESSAGE`].
    #[error("message too large")]
    TooLarge,
    /// Not SIP, or not enough of it to answer.
    #[error("not SIP: {0}")]
    Malformed(&'static str),
    /// A request with an error that RFC 3261 allows to be answered.
    #[error("{code} {why}")]
    Refused {
        /// The status to answer with.
        code: u16,
        /// What is wrong, fit for a reason phrase.
        why: &'static str,
        /// What was read, for `Via`, `From`, `To`, `Call-ID` and `CSeq` of the answer.
        headers: Box<Headers>,
    },
}

/// The headers that every message must have, read.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    pub(crate) via: Via,
    pub(crate) from: NameAddr,
    pub(crate) to: NameAddr,
    pub(crate) call_id: String,
    pub(crate) cseq: CSeq,
}

impl Core {
    pub(crate) fn read(headers: &Headers) -> Result<Self, &'static str> {
        let via = headers.list("Via").next().ok_or("Missing Via")?.parse::<Via>().map_err(|_| "Bad Via")?;
        let address = |name: &'static str, bad: &'static str| -> Result<NameAddr, &'static str> {
            headers.get(name).ok_or(bad)?.parse().map_err(|_: HeaderError| bad)
        };
        let from = address("From", "Bad From")?;
        let to = address("To", "Bad To")?;
        let call_id = headers.get("Call-ID").filter(|id| !id.is_empty()).ok_or("Bad Call-ID")?.to_owned();
        let cseq = headers.get("CSeq").ok_or("Missing CSeq")?.parse().map_err(|_: HeaderError| "Bad CSeq")?;
        Ok(Self { via, from, to, call_id, cseq })
    }
}

/// The number of a message whose `CSeq` has been read before.
pub(crate) fn cseq_of(headers: &Headers) -> u32 {
    headers.get("CSeq").and_then(|cseq| cseq.parse::<CSeq>().ok()).map_or(0, |cseq| cseq.seq)
}

enum Start<'a> {
    Request { method: Method, uri: Result<Uri, &'static str>, version_ok: bool },
    Response { code: u16, reason: &'a str },
}

/// Reads one message: a datagram, or what [`crate::frame::Framer`] cut out of a stream.
///
/// # Errors
/// See [`ParseError`].
pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
    parse_with_core(bytes).map(|(message, _)| message)
}

pub(crate) fn parse_with_core(bytes: &[u8]) -> Result<(Message, Core), ParseError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(ParseError::TooLarge);
    }
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(ParseError::Empty)?;
    let mut lines = Lines { rest: &bytes[start..] };
    let first = lines.next().ok_or(ParseError::Malformed("no line end"))?;
    // A reason phrase in some other character set is no reason to lose the answer.
    let text = String::from_utf8_lossy(first);
    if matches!(text, Cow::Owned(_)) && !first.starts_with(b"SIP/") {
        return Err(ParseError::Malformed("start line is not text"));
    }
    let start = read_start(&text);
    let (headers, header_error) = read_headers(&mut lines)?;
    let outcome = match header_error {
        Some(why) => Err(why),
        None => read_body(&headers, lines.rest),
    };
    match start? {
        Start::Response { code, reason } => {
            let body = outcome.map_err(ParseError::Malformed)?;
            let core = Core::read(&headers).map_err(ParseError::Malformed)?;
            let response = Response { code, reason: reason.trim().to_owned(), headers, body };
            Ok((Message::Response(response), core))
        }
        Start::Request { method, uri, version_ok } => {
            let checked = if version_ok {
                check_request(&method, &headers).map_err(|why| (400, why)).and_then(|core| {
                    let uri = uri.map_err(|why| (400, why))?;
                    let body = outcome.map_err(|why| (400, why))?;
                    Ok((core, uri, body))
                })
            } else {
                Err((505, "Version Not Supported"))
            };
            match checked {
                Ok((core, uri, body)) => Ok((Message::Request(Request { method, uri, headers, body }), core)),
                Err((code, why)) => Err(refused(code, why, &method, headers)),
            }
        }
    }
}

/// An error as an answer, when the request is no ACK and names itself well enough to be answered (RFC 3261 §8.2, §16.3).
fn refused(code: u16, why: &'static str, method: &Method, headers: Headers) -> ParseError {
    let addressed = headers.list("Via").next().is_some_and(|via| via.parse::<Via>().is_ok());
    let named =
        ["From", "To", "Call-ID", "CSeq"].iter().all(|name| headers.get(name).is_some_and(|v| !v.is_empty()));
    let acked =
        *method == Method::Ack || headers.get("CSeq").is_some_and(|cseq| cseq.trim_end().ends_with(" ACK"));
    if addressed && named && !acked {
        ParseError::Refused { code, why, headers: Box::new(headers) }
    } else {
        ParseError::Malformed(why)
    }
}

/// Lines that end in LF or CRLF; `None` when none is left that ends.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|b| *b == b'\n')?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

fn read_start(line: &str) -> Result<Start<'_>, ParseError> {
    const BAD: ParseError = ParseError::Malformed("bad start line");
    if line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/")) {
        let (version, rest) = line.split_once(' ').ok_or(BAD)?;
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        if !version.eq_ignore_ascii_case("SIP/2.0") || code.len() != 3 {
            return Err(BAD);
        }
        let code = read_number(code).and_then(|code| u16::try_from(code).ok()).ok_or(BAD)?;
        return if (100..700).contains(&code) { Ok(Start::Response { code, reason }) } else { Err(BAD) };
    }
    let (method, rest) = line.split_once(' ').ok_or(BAD)?;
    let method = Method::read(method).filter(|m| m.as_str().len() <= MAX_WORD).ok_or(BAD)?;
    // The version is the last word. What lies between must be one URI, without a space on either side of it.
    let (uri, version) = rest.trim_end_matches(' ').rsplit_once(' ').ok_or(BAD)?;
    let number =
        version.get(..4).filter(|name| name.eq_ignore_ascii_case("SIP/")).and_then(|_| version.get(4..));
    let number = number.filter(|n| n.split('.').all(|part| read_number(part).is_some())).ok_or(BAD)?;
    let uri = if rest.ends_with(' ') {
        Err("Bad Request Line")
    } else {
        match uri.parse::<Uri>() {
            Ok(Uri::Sip(sip)) if sip.headers.is_some() => Err("Headers in Request-URI"),
            Ok(uri) => Ok(uri),
            Err(_) => Err("Bad Request-URI"),
        }
    };
    Ok(Start::Request { method, uri, version_ok: number == "2.0" })
}

/// Reads header lines up to the empty one. A wrong line is reported and left out, so that the rest can be answered.
fn read_headers(lines: &mut Lines<'_>) -> Result<(Headers, Option<&'static str>), ParseError> {
    let mut headers = Headers::new();
    let mut error = None;
    let mut pending: Option<(String, String)> = None;
    let mut count = 0;
    loop {
        let line = lines.next().ok_or(ParseError::Malformed("headers do not end"))?;
        if let [b' ' | b'\t', ..] = line {
            if let Some((_, value)) = &mut pending {
                value.push(' ');
                value.push_str(String::from_utf8_lossy(line).trim());
                if value.len() > MAX_HEADER_VALUE {
                    return Err(ParseError::Malformed("header too long"));
                }
            } else {
                error = error.or(Some("Bad Header"));
            }
            continue;
        }
        if let Some((name, value)) = pending.take() {
            headers.push(&name, value.trim());
        }
        if line.is_empty() {
            return Ok((headers, error));
        }
        count += 1;
        if count > MAX_HEADERS {
            return Err(ParseError::Malformed("too many headers"));
        }
        if line.len() > MAX_HEADER_VALUE + MAX_WORD {
            return Err(ParseError::Malformed("header too long"));
        }
        match read_header(line) {
            Some(header) => pending = Some(header),
            None => error = error.or(Some("Bad Header")),
        }
    }
}

fn read_header(line: &[u8]) -> Option<(String, String)> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = line[..colon].trim_ascii_end();
    if name.is_empty() || name.len() > MAX_WORD || !name.iter().copied().all(is_token) {
        return None;
    }
    let value = String::from_utf8_lossy(&line[colon + 1..]);
    (value.len() <= MAX_HEADER_VALUE)
        .then(|| (String::from_utf8_lossy(name).into_owned(), value.trim().to_owned()))
}

/// The body, as long as `Content-Length` says; all that is left when it says nothing.
fn read_body(headers: &Headers, rest: &[u8]) -> Result<Bytes, &'static str> {
    let mut length = None;
    for value in headers.get_all("Content-Length") {
        let said = read_number(value).ok_or("Bad Content-Length")? as usize;
        if length.replace(said).is_some_and(|before| before != said) {
            return Err("Several Content-Lengths");
        }
    }
    match length {
        None => Ok(Bytes::copy_from_slice(rest)),
        Some(length) => rest.get(..length).map(Bytes::copy_from_slice).ok_or("Body Too Short"),
    }
}

/// What a request must satisfy beyond its lines (RFC 3261 §8.1.1, §8.2).
fn check_request(method: &Method, headers: &Headers) -> Result<Core, &'static str> {
    for name in ["From", "To", "Call-ID", "CSeq", "Max-Forwards"] {
        if headers.get_all(name).count() > 1 {
            return Err("Header Given Twice");
        }
    }
    let core = Core::read(headers)?;
    if core.cseq.method != *method {
        return Err("CSeq Names Another Method");
    }
    if headers.get("Max-Forwards").is_some_and(|value| read_number(value).is_none()) {
        return Err("Bad Max-Forwards");
    }
    // A BYE ends the call whatever else is wrong with it.
    if *method == Method::Bye {
        return Ok(core);
    }
    // SIP knows no time zone but GMT (RFC 3261 §20.17).
    if headers.get("Date").is_some_and(|date| !date.to_ascii_uppercase().ends_with("GMT")) {
        return Err("Bad Date");
    }
    for name in ["Contact", "Route", "Record-Route"] {
        for value in headers.get_all(name) {
            for element in split_list(value) {
                let star = name == "Contact" && element == "*";
                if !star && element.parse::<NameAddr>().is_err() {
                    return Err("Bad Address Header");
                }
            }
        }
    }
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=1\r\n\
                         To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n";

    fn refusal(text: &str) -> u16 {
        match parse(text.as_bytes()) {
            Err(ParseError::Refused { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reason_phrase_in_latin_1_is_read_and_a_request_in_it_is_not() {
        let response = PLAIN.replace("OPTIONS sip:a@b SIP/2.0", "SIP/2.0 486 Occup?");
        let bytes = |text: &str| text.bytes().map(|b| if b == b'?' { 0xe9 } else { b }).collect::<Vec<_>>();
        let Ok(Message::Response(read)) = parse(&bytes(&format!("{response}\r\n"))) else { panic!() };
        assert_eq!(read.code, 486);
        let request = PLAIN.replace("sip:a@b SIP", "sip:?@b SIP");
        assert!(matches!(parse(&bytes(&format!("{request}\r\n"))), Err(ParseError::Malformed(_))));
    }

    #[test]
    fn line_ends_of_any_kind() {
        let text = format!("{PLAIN}Subject: a\r\n b\r\n\r\nbody").replace("\r\n", "\n");
        let message = parse(text.as_bytes()).unwrap();
        assert_eq!(message.headers().get("Subject"), Some("a b"));
        assert_eq!(message.body().as_ref(), b"body");
        assert_eq!(parse(b"\r\n\r\n"), Err(ParseError::Empty));
    }

    #[test]
    fn sizes_are_limited() {
        assert_eq!(parse(&vec![b'a'; MAX_MESSAGE + 1]), Err(ParseError::TooLarge));
        let long = format!("{PLAIN}X: {}\r\n\r\n", "y".repeat(MAX_HEADER_VALUE + 300));
        assert_eq!(parse(long.as_bytes()), Err(ParseError::Malformed("header too long")));
        let many = format!("{PLAIN}{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(parse(many.as_bytes()), Err(ParseError::Malformed("too many headers")));
        let folded = format!("{PLAIN}X: y\r\n{}\r\n", " zzzzzzzzzzzzzzz\r\n".repeat(1_000));
        assert_eq!(parse(folded.as_bytes()), Err(ParseError::Malformed("header too long")));
    }

    #[test]
    fn what_can_be_answered_is_answered() {
        assert_eq!(refusal(&format!("{PLAIN}Content-Length: 5\r\n\r\nabc")), 400);
        assert_eq!(refusal(&format!("{PLAIN}bad header\r\n\r\n")), 400);
        assert_eq!(refusal(&format!("{PLAIN}Date: Fri, 01 Jan 2010 16:00:00 EST\r\n\r\n")), 400);
        assert_eq!(refusal(&format!("{PLAIN}\r\n").replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia")), 505);
        assert_eq!(refusal(&format!("{PLAIN}\r\n").replace("sip:a@b SIP", "sip:a@b  SIP")), 400);
        let ack = format!("{PLAIN}Content-Length: 5\r\n\r\n").replace("OPTIONS", "ACK");
        assert!(matches!(parse(ack.as_bytes()), Err(ParseError::Malformed(_))));
        let no_via = format!("{PLAIN}Content-Length: 5\r\n\r\n").replace("Via", "Wia");
        assert!(matches!(parse(no_via.as_bytes()), Err(ParseError::Malformed(_))));
    }
}
