//! Requests, responses and their headers (RFC 3261 §7), and writing them.
//!
//! Owns the shape of a message and its exact output: canonical names, no compact forms, `Content-Length` always right.
//! The sets of methods and headers are open. Never looks at time, transactions or meaning.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::uri::Uri;

/// A request method.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// RFC 3261 §13.
    Invite,
    /// RFC 3261 §17.1.1.3.
    Ack,
    /// RFC 3261 §9.
    Cancel,
    /// RFC 3261 §15.
    Bye,
    /// RFC 3261 §11.
    Options,
    /// RFC 3261 §10.
    Register,
    /// RFC 6086.
    Info,
    /// RFC 3311.
    Update,
    /// RFC 3262.
    Prack,
    /// RFC 6665.
    Notify,
    /// RFC 3515.
    Refer,
    /// Any other, as written (methods are case-sensitive).
    Other(String),
}

const METHODS: &[(Method, &str)] = &[
    (Method::Invite, "INVITE"),
    (Method::Ack, "ACK"),
    (Method::Cancel, "CANCEL"),
    (Method::Bye, "BYE"),
    (Method::Options, "OPTIONS"),
    (Method::Register, "REGISTER"),
    (Method::Info, "INFO"),
    (Method::Update, "UPDATE"),
    (Method::Prack, "PRACK"),
    (Method::Notify, "NOTIFY"),
    (Method::Refer, "REFER"),
];

impl Method {
    /// The method as written on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => METHODS.iter().find(|(method, _)| method == known).map_or("", |(_, name)| name),
        }
    }

    /// Reads a method; `None` when the text is not a token.
    pub fn read(text: &str) -> Option<Self> {
        if let Some((method, _)) = METHODS.iter().find(|(_, name)| *name == text) {
            return Some(method.clone());
        }
        (!text.is_empty() && text.bytes().all(is_token)).then(|| Self::Other(text.to_owned()))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a byte may stand in a `token` (RFC 3261 §25.1).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// Canonical header names with their compact forms (RFC 3261 §7.3.3 and the IANA registry).
const NAMES: &[(&str, &str)] = &[
    ("Via", "v"),
    ("From", "f"),
    ("To", "t"),
    ("Call-ID", "i"),
    ("CSeq", ""),
    ("Contact", "m"),
    ("Content-Length", "l"),
    ("Content-Type", "c"),
    ("Max-Forwards", ""),
    ("Route", ""),
    ("Record-Route", ""),
    ("Allow", ""),
    ("Supported", "k"),
    ("Require", ""),
    ("Unsupported", ""),
    ("User-Agent", ""),
    ("Server", ""),
    ("Accept", ""),
    ("Accept-Encoding", ""),
    ("Accept-Language", ""),
    ("Alert-Info", ""),
    ("Allow-Events", "u"),
    ("Authentication-Info", ""),
    ("Authorization", ""),
    ("Call-Info", ""),
    ("Content-Disposition", ""),
    ("Content-Encoding", "e"),
    ("Content-Language", ""),
    ("Date", ""),
    ("Diversion", ""),
    ("Error-Info", ""),
    ("Event", "o"),
    ("Expires", ""),
    ("History-Info", ""),
    ("Identity", "y"),
    ("In-Reply-To", ""),
    ("Min-Expires", ""),
    ("Min-SE", ""),
    ("MIME-Version", ""),
    ("Organization", ""),
    ("P-Asserted-Identity", ""),
    ("P-Preferred-Identity", ""),
    ("Priority", ""),
    ("Privacy", ""),
    ("Proxy-Authenticate", ""),
    ("Proxy-Authorization", ""),
    ("Proxy-Require", ""),
    ("RAck", ""),
    ("Reason", ""),
    ("Refer-To", "r"),
    ("Referred-By", "b"),
    ("Reply-To", ""),
    ("Request-Disposition", "d"),
    ("Accept-Contact", "a"),
    ("Reject-Contact", "j"),
    ("Retry-After", ""),
    ("RSeq", ""),
    ("Session-Expires", "x"),
    ("Subject", "s"),
    ("Subscription-State", ""),
    ("Timestamp", ""),
    ("Warning", ""),
    ("WWW-Authenticate", ""),
];

fn canonical(name: &str) -> Cow<'static, str> {
    let known = NAMES
        .iter()
        .find(|(long, short)| long.eq_ignore_ascii_case(name) || short.eq_ignore_ascii_case(name));
    known.map_or_else(|| Cow::Owned(name.to_owned()), |(long, _)| Cow::Borrowed(*long))
}

/// The header fields of a message in their order. A value never holds CR or LF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of a header. Names compare without regard to case; ask by the long name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Every value of a header, one per line of the message, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Every element of a comma-separated header, over all its lines (RFC 3261 §7.3.1).
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.get_all(name).flat_map(crate::headers::split_list)
    }

    /// Appends a header. Line breaks in the value become spaces, so that no value can smuggle in another header.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((canonical(name), one_line(value.into())));
    }

    /// Puts a header before all others.
    pub fn push_front(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(0, (canonical(name), one_line(value.into())));
    }

    /// Replaces the first of that name in its place and removes the others; appends when there is none.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = one_line(value.into());
        match self.0.iter().position(|(n, _)| n.eq_ignore_ascii_case(name)) {
            None => self.0.push((canonical(name), value)),
            Some(first) => {
                self.0[first].1 = value;
                let mut at = 0;
                self.0.retain(|(n, _)| {
                    at += 1;
                    at <= first + 1 || !n.eq_ignore_ascii_case(name)
                });
            }
        }
    }

    /// Replaces the value of the first line of that name; the others stay.
    pub(crate) fn set_first(&mut self, name: &str, value: String) {
        if let Some(slot) = self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            slot.1 = one_line(value);
        }
    }

    /// Removes every header of that name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All headers in order, by their canonical names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_str()))
    }

    /// How many header lines there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies every line of a name from another message.
    pub(crate) fn copy(&mut self, from: &Self, name: &str) {
        for (n, v) in &from.0 {
            if n.eq_ignore_ascii_case(name) {
                self.0.push((n.clone(), v.clone()));
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>, body: &[u8]) {
        for (name, value) in &self.0 {
            if !name.eq_ignore_ascii_case("Content-Length") {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(body);
    }
}

fn one_line(value: String) -> String {
    if value.contains(['\r', '\n']) { value.replace(['\r', '\n'], " ") } else { value }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The Request-URI.
    pub uri: Uri,
    /// Header fields.
    pub headers: Headers,
    /// The body, exactly as long as `Content-Length` said.
    pub body: Bytes,
}

impl Request {
    /// A request without headers or body.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, headers: Headers::new(), body: Bytes::new() }
    }

    /// The request as it goes on the wire.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(512 + self.body.len());
        out.extend_from_slice(format!("{} {} SIP/2.0\r\n", self.method, self.uri).as_bytes());
        self.headers.write(&mut out, &self.body);
        out.into()
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 100 to 699.
    pub code: u16,
    /// The reason phrase; may be empty.
    pub reason: String,
    /// Header fields.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// A response without headers or body, with the standard phrase.
    pub fn new(code: u16) -> Self {
        Self { code, reason: reason_phrase(code).to_owned(), headers: Headers::new(), body: Bytes::new() }
    }

    /// The response as it goes on the wire.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(512 + self.body.len());
        out.extend_from_slice(format!("SIP/2.0 {} ", self.code).as_bytes());
        out.extend(self.reason.bytes().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
        out.extend_from_slice(b"\r\n");
        self.headers.write(&mut out, &self.body);
        out.into()
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

impl Message {
    /// The header fields.
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }

    /// The message as it goes on the wire.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

/// The standard phrase of a status code (RFC 3261 §21 and the IANA registry); the phrase of its class when unknown.
pub fn reason_phrase(code: u16) -> &'static str {
    const PHRASES: &[(u16, &str)] = &[
        (100, "Trying"),
        (180, "Ringing"),
        (181, "Call Is Being Forwarded"),
        (182, "Queued"),
        (183, "Session Progress"),
        (200, "OK"),
        (202, "Accepted"),
        (302, "Moved Temporarily"),
        (400, "Bad Request"),
        (401, "Unauthorized"),
        (402, "Payment Required"),
        (403, "Forbidden"),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (406, "Not Acceptable"),
        (407, "Proxy Authentication Required"),
        (408, "Request Timeout"),
        (410, "Gone"),
        (413, "Request Entity Too Large"),
        (415, "Unsupported Media Type"),
        (416, "Unsupported URI Scheme"),
        (420, "Bad Extension"),
        (422, "Session Interval Too Small"),
        (480, "Temporarily Unavailable"),
        (481, "Call/Transaction Does Not Exist"),
        (482, "Loop Detected"),
        (483, "Too Many Hops"),
        (484, "Address Incomplete"),
        (486, "Busy Here"),
        (487, "Request Terminated"),
        (488, "Not Acceptable Here"),
        (489, "Bad Event"),
        (491, "Request Pending"),
        (500, "Server Internal Error"),
        (501, "Not Implemented"),
        (502, "Bad Gateway"),
        (503, "Service Unavailable"),
        (504, "Server Time-out"),
        (505, "Version Not Supported"),
        (513, "Message Too Large"),
        (600, "Busy Everywhere"),
        (603, "Decline"),
        (604, "Does Not Exist Anywhere"),
        (606, "Not Acceptable"),
        (607, "Unwanted"),
        (608, "Rejected"),
    ];
    match PHRASES.binary_search_by_key(&code, |(c, _)| *c) {
        Ok(at) => PHRASES[at].1,
        Err(_) => match code / 100 {
            1 => "Session Progress",
            2 => "OK",
            3 => "Redirection",
            4 => "Client Error",
            5 => "Server Error",
            _ => "Failure",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_names_are_written_long() {
        let mut request = Request::new(Method::Options, "sip:a@b".parse().unwrap());
        request.headers.push("i", "1");
        request.headers.push("l", "77");
        request.headers.push("X-mine", "a\r\nEvil: b");
        let text = String::from_utf8(request.to_bytes().to_vec()).unwrap();
        assert_eq!(
            text,
            "OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 1\r\nX-mine: a  Evil: b\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn set_leaves_one_in_the_first_place() {
        let mut headers = Headers::new();
        for (name, value) in [("To", "1"), ("Via", "a"), ("via", "b"), ("From", "2")] {
            headers.push(name, value);
        }
        headers.set("VIA", "c");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("To", "1"), ("Via", "c"), ("From", "2")]);
    }
}
