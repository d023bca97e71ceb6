//! Typed headers: reading one value, writing one value (RFC 3261 §20, §25.1; RFC 3326 for `Reason`).
//!
//! Owns `Via`, the address headers, `CSeq`, `Reason` and the small grammar they share: lists, quoted strings, parameters.
//! Tolerant in what white space and which sets of words it reads, exact in what it writes. Never looks at a whole message.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::message::Method;
use crate::uri::{Host, Params, Uri, UriError, host_port};

/// Why a header value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The URI in it.
    #[error("URI: {0}")]
    Uri(#[from] UriError),
    /// A quotation mark or angle bracket without its partner.
    #[error("unbalanced quotes or brackets")]
    Unbalanced,
    /// A display name that would have to be quoted.
    #[error("bad display name")]
    Display,
    /// A parameter list that is none.
    #[error("bad parameter")]
    Param,
    /// A number out of range, or none.
    #[error("bad number")]
    Number,
    /// The value lacks a part.
    #[error("incomplete value")]
    Incomplete,
}

/// Walks over a value and calls `found` at each `separator` outside of quotes and angle brackets.
fn split_outside(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let whole = rest?;
        let (mut quoted, mut escaped, mut angle) = (false, false, false);
        for (at, byte) in whole.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'<' if !quoted => angle = true,
                b'>' if !quoted => angle = false,
                _ if byte == separator && !quoted && !angle => {
                    rest = Some(&whole[at + 1..]);
                    return Some(&whole[..at]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(whole)
    })
}

/// The elements of a comma-separated value, trimmed; empty ones are left out.
pub fn split_list(value: &str) -> impl Iterator<Item = &str> {
    split_outside(value, b',').map(str::trim).filter(|element| !element.is_empty())
}

/// Reads `name=value` pieces after the first `;`. One `;` too many at the end is forgiven, more are not.
pub(crate) fn read_params(text: &str) -> Result<Params, HeaderError> {
    let mut params = Params::default();
    let mut pieces = split_outside(text, b';').map(str::trim).peekable();
    while let Some(piece) = pieces.next() {
        if piece.is_empty() && pieces.peek().is_none() {
            break;
        }
        let (name, value) = match piece.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (piece, None),
        };
        let plain =
            |text: &str| !text.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '<' | '>' | '"'));
        let fits = match value {
            Some(value) if value.starts_with('"') => unquote(value).is_some(),
            Some(value) => plain(value),
            None => true,
        };
        if name.is_empty() || !plain(name) || !fits {
            return Err(HeaderError::Param);
        }
        params.push(name, value).map_err(|_| HeaderError::Param)?;
    }
    Ok(params)
}

/// The text inside a quoted string with its escapes undone; `None` when the text is not exactly one quoted string.
pub fn unquote(text: &str) -> Option<String> {
    let (inner, rest) = take_quoted(text)?;
    rest.is_empty().then_some(inner)
}

/// Takes a quoted string off the front.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 2..])),
            '\\' => out.push(chars.next()?.1),
            other => out.push(other),
        }
    }
    None
}

/// Writes a quoted string.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\r' | '\n' => out.push(' '),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// `From`, `To`, `Contact`, `Route` and `Record-Route`: a name, an address, parameters (RFC 3261 §20.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name without quotes and escapes.
    pub display: Option<String>,
    /// The address.
    pub uri: Uri,
    /// Header parameters (`tag`, `q`, `expires` …), not those of the URI.
    pub params: Params,
}

impl NameAddr {
    /// An address without name and parameters.
    pub fn new(uri: Uri) -> Self {
        Self { display: None, uri, params: Params::default() }
    }

    /// The `tag` parameter, unless absent or empty.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }

    /// The same address with this tag.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.params.set("tag", Some(tag.to_owned()));
        self
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", quote(display))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

impl FromStr for NameAddr {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let text = text.trim();
        let (display, rest) = if text.starts_with('"') {
            let (display, rest) = take_quoted(text).ok_or(HeaderError::Unbalanced)?;
            (Some(display), rest.trim_start())
        } else {
            match text.find('<') {
                Some(at) => (Some(text[..at].trim().to_owned()), &text[at..]),
                None => return bare_address(text),
            }
        };
        if !text.starts_with('"')
            && display.as_deref().is_some_and(|d| d.contains([',', '"', ';', ':', '\\']))
        {
            return Err(HeaderError::Display);
        }
        let inner = rest.strip_prefix('<').ok_or(HeaderError::Unbalanced)?;
        let (uri, tail) = inner.split_once('>').ok_or(HeaderError::Unbalanced)?;
        let params = after_semicolon(tail)?;
        Ok(Self { display: display.filter(|d| !d.is_empty()), uri: uri.parse()?, params })
    }
}

/// An address without angle brackets: whatever follows `;` belongs to the header, and `?` and `,` may not stand in it.
fn bare_address(text: &str) -> Result<NameAddr, HeaderError> {
    let at = text.find(';').unwrap_or(text.len());
    let (uri, tail) = text.split_at(at);
    if uri.contains(['?', ',']) {
        return Err(HeaderError::Param);
    }
    Ok(NameAddr { display: None, uri: uri.trim_end().parse()?, params: after_semicolon(tail)? })
}

fn after_semicolon(tail: &str) -> Result<Params, HeaderError> {
    match tail.trim_start().strip_prefix(';') {
        Some(params) => read_params(params),
        None if tail.trim().is_empty() => Ok(Params::default()),
        None => Err(HeaderError::Param),
    }
}

/// One `Via` value (RFC 3261 §20.42, RFC 3581).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The protocol version, `2.0` in everything that we speak.
    pub version: String,
    /// The transport as written: an open set.
    pub transport: String,
    /// `sent-by` host.
    pub host: Host,
    /// `sent-by` port.
    pub port: Option<u16>,
    /// `branch`, `received`, `rport` …
    pub params: Params,
}

impl Via {
    /// The `branch` parameter, unless absent or empty.
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch").filter(|branch| !branch.is_empty())
    }

    /// Whether the branch was made by the rules of RFC 3261, so that it alone names the transaction (§17.2.3).
    pub fn has_magic_branch(&self) -> bool {
        self.branch()
            .and_then(|b| b.get(7..).filter(|_| b[..7].eq_ignore_ascii_case("z9hG4bK")))
            .is_some_and(|b| !b.is_empty())
    }

    /// Notes where the request really came from (RFC 3261 §18.2.1, RFC 3581 §4).
    pub(crate) fn stamp(&mut self, from: std::net::SocketAddr) {
        let wants_port = self.params.has("rport");
        if wants_port {
            self.params.set("rport", Some(from.port().to_string()));
        }
        if wants_port || self.host.ip().map(|ip| ip.to_canonical()) != Some(from.ip().to_canonical()) {
            self.params.set("received", Some(from.ip().to_canonical().to_string()));
        }
    }

    /// The port that responses go to (RFC 3261 §18.2.2, RFC 3581 §4): that of the source when `rport` asked for it.
    pub(crate) fn response_port(&self, source: u16) -> u16 {
        if self.params.has("rport") { source } else { self.port.unwrap_or(5060) }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/{}/{} {}", self.version, self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

impl FromStr for Via {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let (protocol, rest) = text.split_once('/').ok_or(HeaderError::Incomplete)?;
        let (version, rest) = rest.split_once('/').ok_or(HeaderError::Incomplete)?;
        let rest = rest.trim_start();
        let (transport, rest) = rest.split_once(char::is_whitespace).ok_or(HeaderError::Incomplete)?;
        let token = |t: &str| !t.is_empty() && t.bytes().all(crate::message::is_token);
        if !protocol.trim().eq_ignore_ascii_case("SIP") || !token(version.trim()) || !token(transport) {
            return Err(HeaderError::Incomplete);
        }
        let (sent_by, params) = match rest.split_once(';') {
            Some((sent_by, params)) => (sent_by, read_params(params)?),
            None => (rest, Params::default()),
        };
        let (host, port) = host_port(sent_by)?;
        Ok(Self { version: version.trim().to_owned(), transport: transport.to_owned(), host, port, params })
    }
}

/// `CSeq` (RFC 3261 §20.16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq {
    /// The sequence number.
    pub seq: u32,
    /// The method.
    pub method: Method,
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.method)
    }
}

impl FromStr for CSeq {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let mut words = text.split_whitespace();
        let (Some(seq), Some(method), None) = (words.next(), words.next(), words.next()) else {
            return Err(HeaderError::Incomplete);
        };
        let seq = read_number(seq).ok_or(HeaderError::Number)?;
        Ok(Self { seq, method: Method::read(method).ok_or(HeaderError::Incomplete)? })
    }
}

/// Reads digits and nothing else, leading zeros included.
pub(crate) fn read_number(text: &str) -> Option<u32> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A Q.850 cause with which a call is ended (RFC 3326).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Q850(pub u16);

impl fmt::Display for Q850 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Q.850;cause={}", self.0)
    }
}

/// The first Q.850 cause (0 to 127) among `Reason` values. Anything malformed is passed over: a reason only informs.
pub fn q850_cause<'a>(reasons: impl Iterator<Item = &'a str>) -> Option<u16> {
    reasons.flat_map(split_list).find_map(|reason| {
        let (protocol, params) = reason.split_once(';')?;
        if !protocol.trim().eq_ignore_ascii_case("Q.850") {
            return None;
        }
        let cause = read_number(read_params(params).ok()?.get("cause")?)?;
        u16::try_from(cause).ok().filter(|cause| *cause <= 127)
    })
}

/// The media type and its parameters of a `Content-Type`.
pub(crate) fn content_type(value: &str) -> (String, Params) {
    match value.split_once(';') {
        Some((kind, params)) => (kind.trim().to_ascii_lowercase(), read_params(params).unwrap_or_default()),
        None => (value.trim().to_ascii_lowercase(), Params::default()),
    }
}

/// Whether a host is one of those addresses.
pub(crate) fn host_is(host: &Host, ip: IpAddr) -> bool {
    host.ip().is_some_and(|own| own.to_canonical() == ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_their_forms() {
        for (text, written) in [
            ("sip:a@b;tag=1", "<sip:a@b>;tag=1"),
            ("caller<sip:a@b;x>; tag = 1", "\"caller\" <sip:a@b;x>;tag=1"),
            ("\"J \\\\\\\"\" <sip:a@b>", "\"J \\\\\\\"\" <sip:a@b>"),
            ("\"a,b;<c>\"<sip:a@b>;n=\"x;y\"", "\"a,b;<c>\" <sip:a@b>;n=\"x;y\""),
            ("<tel:+1555>", "<tel:+1555>"),
            ("<sip:a@b>;tag=1;", "<sip:a@b>;tag=1"),
        ] {
            assert_eq!(text.parse::<NameAddr>().unwrap().to_string(), written);
        }
        for bad in [
            "Bell, A <sip:a@b>",
            "\"open <sip:a@b>",
            "<sip:a@b>;;;",
            "<sip:a@b",
            "<sip:a@b> x",
            "sip:a@b?r=1",
            "",
        ] {
            assert!(bad.parse::<NameAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn vias_with_space_anywhere() {
        let via: Via =
            "SIP  /   2.0  /UDP     [2001:db8::2] : 5060 ;  branch  =  z9hG4bK30239".parse().unwrap();
        assert_eq!(via.to_string(), "SIP/2.0/UDP [2001:db8::2]:5060;branch=z9hG4bK30239");
        assert!(via.has_magic_branch());
        assert!(!"SIP/2.0/UDP h;branch=z9hG4bK".parse::<Via>().unwrap().has_magic_branch());
        assert!(
            !"SIP/2.0/UDP h;branch=\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}".parse::<Via>().unwrap().has_magic_branch()
        );
        assert!("SIP/2.0/UDP 192.0.2.15;;,;,,".parse::<Via>().is_err());
    }

    #[test]
    fn a_stamped_via_says_where_it_came_from() {
        let mut via: Via = "SIP/2.0/UDP 10.0.0.1:5062;rport;branch=z9hG4bKx".parse().unwrap();
        via.stamp("192.0.2.9:4000".parse().unwrap());
        assert_eq!(
            via.to_string(),
            "SIP/2.0/UDP 10.0.0.1:5062;rport=4000;branch=z9hG4bKx;received=192.0.2.9"
        );
        assert_eq!(via.response_port(4000), 4000);
        let mut via: Via = "SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bKx".parse().unwrap();
        via.stamp("192.0.2.9:4000".parse().unwrap());
        assert_eq!(via.to_string(), "SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bKx");
        assert_eq!(via.response_port(4000), 5062);
    }

    #[test]
    fn a_reason_without_cause_is_passed_over() {
        // A BYE whose Reason has no cause has crashed others.
        for (text, cause) in [
            ("Q.850;cause=16;text=\"Normal, clearing\"", Some(16)),
            ("SIP;cause=600, Q.850 ; cause = 17", Some(17)),
            ("Q.850", None),
            ("Q.850;text=\"x\"", None),
            ("Q.850;cause=", None),
            ("Q.850;cause=99999999999", None),
            ("Q.850;cause=300", None),
            (";;;,,,\"", None),
        ] {
            assert_eq!(q850_cause(std::iter::once(text)), cause, "{text}");
        }
    }

    #[test]
    fn lists_split_only_outside_quotes_and_brackets() {
        let parts: Vec<_> = split_list("<sip:a@b,c>, \"x,\\\"y\" <sip:d>,, e").collect();
        assert_eq!(parts, ["<sip:a@b,c>", "\"x,\\\"y\" <sip:d>", "e"]);
    }
}
