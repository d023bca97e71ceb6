//! URIs and parameter lists (RFC 3261 §19.1, §25.1; RFC 3986 for everything that is not `sip:`).
//!
//! Owns the reading and writing of `sip:` and `sips:` addresses. Every other scheme is carried as opaque text, because a
//! user agent must pass it on unharmed without understanding it. Never resolves names and never decides where a message goes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// Longest URI accepted, in bytes. Longer than any dialled thing, shorter than a header value.
pub const MAX_URI: usize = 4_096;
/// Most parameters accepted in one list.
pub const MAX_PARAMS: usize = 64;

/// Why a text is not a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UriError {
    /// Longer than [`MAX_URI`].
    #[error("URI too long")]
    TooLong,
    /// No scheme, or a scheme with letters that none may have.
    #[error("no usable scheme")]
    Scheme,
    /// White space, control characters, angle brackets or quotes inside.
    #[error("forbidden character")]
    Character,
    /// An empty user part before `@`.
    #[error("empty user part")]
    User,
    /// No host, or one that is neither a name nor an address.
    #[error("bad host")]
    Host,
    /// A port that is not a number of 16 bits.
    #[error("bad port")]
    Port,
    /// A parameter without a name, or too many of them.
    #[error("bad parameter")]
    Param,
}

/// A host: a name, or an address literal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A domain name, as written.
    Name(String),
    /// A literal address; IPv6 is written in brackets.
    Addr(IpAddr),
}

impl Host {
    /// The literal address, or `None` for a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Addr(ip) => Some(*ip),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Addr(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Addr(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl FromStr for Host {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Addr(ip.into())).map_err(|_| UriError::Host);
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Addr(ip.into()));
        }
        let fits = !text.is_empty()
            && text.len() <= 255
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'%'));
        if fits { Ok(Self::Name(text.to_owned())) } else { Err(UriError::Host) }
    }
}

/// Splits `host[:port]`, with white space tolerated round the colon (RFC 3261 §25.1 `COLON`).
pub(crate) fn host_port(text: &str) -> Result<(Host, Option<u16>), UriError> {
    let text = text.trim();
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(UriError::Host)?;
        let (host, rest) = text.split_at(end + 1);
        match rest.trim().strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.trim().is_empty() => (host, None),
            None => return Err(UriError::Host),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port.map(str::trim) {
        None => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse::<u16>().map_err(|_| UriError::Port)?)
        }
        Some(_) => return Err(UriError::Port),
    };
    Ok((host.trim().parse()?, port))
}

/// A list of `;name=value` parameters in their order. Names compare without regard to case; values keep their quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Params(Vec<(String, Option<String>)>);

impl Params {
    /// The raw value of a parameter: `None` when absent, `Some("")` when it has no value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_deref().unwrap_or(""))
    }

    /// Whether the parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets a parameter, replacing an earlier one of that name in its place.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        match self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes a parameter.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_deref()))
    }

    /// Appends without looking for an earlier one: what the wire repeated stays repeated.
    pub(crate) fn push(&mut self, name: &str, value: Option<&str>) -> Result<(), UriError> {
        if self.0.len() >= MAX_PARAMS || name.is_empty() {
            return Err(UriError::Param);
        }
        self.0.push((name.to_owned(), value.map(str::to_owned)));
        Ok(())
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

/// A `sip:` or `sips:` URI. User, password, parameters and headers keep their percent escapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SipUri {
    /// `sips:` rather than `sip:`.
    pub secure: bool,
    /// The user part as written.
    pub user: Option<String>,
    /// The password as written. Obsolete, but it must survive.
    pub password: Option<String>,
    /// The host.
    pub host: Host,
    /// The port, when written.
    pub port: Option<u16>,
    /// URI parameters (`transport`, `lr`, `user` …).
    pub params: Params,
    /// What follows `?`, as written.
    pub headers: Option<String>,
}

impl SipUri {
    fn parse(secure: bool, rest: &str) -> Result<Self, UriError> {
        let (user, password, rest) = match rest.split_once('@') {
            None => (None, None, rest),
            Some((info, rest)) => {
                let (user, password) = match info.split_once(':') {
                    Some((user, password)) => (user, Some(password.to_owned())),
                    None => (info, None),
                };
                if user.is_empty() {
                    return Err(UriError::User);
                }
                (Some(user.to_owned()), password, rest)
            }
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers.to_owned())),
            None => (rest, None),
        };
        let (host, tail) = rest.split_once(';').map_or((rest, None), |(host, tail)| (host, Some(tail)));
        let (host, port) = host_port(host)?;
        let mut params = Params::default();
        for piece in tail.into_iter().flat_map(|tail| tail.split(';')).filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').map_or((piece, None), |(n, v)| (n, Some(v)));
            params.push(name, value)?;
        }
        Ok(Self { secure, user, password, host, port, params, headers })
    }
}

impl fmt::Display for SipUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "sips:" } else { "sip:" })?;
        if let Some(user) = &self.user {
            f.write_str(user)?;
            if let Some(password) = &self.password {
                write!(f, ":{password}")?;
            }
            f.write_str("@")?;
        }
        write!(f, "{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)?;
        if let Some(headers) = &self.headers {
            write!(f, "?{headers}")?;
        }
        Ok(())
    }
}

/// Any URI that may stand in a SIP message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Uri {
    /// `sip:` or `sips:`.
    Sip(SipUri),
    /// Another scheme (`tel:`, `urn:` …), opaque.
    Other {
        /// The scheme as written, without the colon.
        scheme: String,
        /// Everything after the colon.
        rest: String,
    },
}

impl Uri {
    /// `sip:user@address`, or without a user when that is empty. What a user part may not hold is percent-escaped.
    pub fn sip(user: &str, at: SocketAddr) -> Self {
        Self::sip_at(user, Host::Addr(at.ip()), Some(at.port()))
    }

    /// As [`Uri::sip`], with a host and perhaps a port. The host must be one that [`Host::from_str`] gave.
    pub fn sip_at(user: &str, host: Host, port: Option<u16>) -> Self {
        let user = (!user.is_empty()).then(|| escape_user(user));
        Self::Sip(SipUri {
            secure: false,
            user,
            password: None,
            host,
            port,
            params: Params::default(),
            headers: None,
        })
    }

    /// The `sip:` form, or `None` for another scheme.
    pub fn as_sip(&self) -> Option<&SipUri> {
        match self {
            Self::Sip(uri) => Some(uri),
            Self::Other { .. } => None,
        }
    }

    /// The user part with its percent escapes undone; `None` when there is no user or it is no `sip:` URI.
    pub fn user(&self) -> Option<String> {
        self.as_sip().and_then(|uri| uri.user.as_deref()).map(unescape)
    }

    /// The scheme in lower case.
    pub fn scheme(&self) -> String {
        match self {
            Self::Sip(uri) => if uri.secure { "sips" } else { "sip" }.to_owned(),
            Self::Other { scheme, .. } => scheme.to_ascii_lowercase(),
        }
    }

    /// Whether a proxy behind this URI routes loosely (RFC 3261 §16.12): it has the `lr` parameter.
    pub fn is_loose(&self) -> bool {
        self.as_sip().is_none_or(|uri| uri.params.has("lr"))
    }

    /// The URI without what may not stand in a Request-URI (RFC 3261 §19.1.1: headers, and the `method` parameter).
    pub(crate) fn for_request_line(&self) -> Self {
        let mut uri = self.clone();
        if let Self::Sip(sip) = &mut uri {
            sip.headers = None;
            sip.params.remove("method");
        }
        uri
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sip(uri) => write!(f, "{uri}"),
            Self::Other { scheme, rest } => write!(f, "{scheme}:{rest}"),
        }
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.len() > MAX_URI {
            return Err(UriError::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"')) {
            return Err(UriError::Character);
        }
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        let lettered = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        if !lettered || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        {
            return Err(UriError::Scheme);
        }
        if scheme.eq_ignore_ascii_case("sip") {
            return SipUri::parse(false, rest).map(Self::Sip);
        }
        if scheme.eq_ignore_ascii_case("sips") {
            return SipUri::parse(true, rest).map(Self::Sip);
        }
        if rest.is_empty() {
            return Err(UriError::Host);
        }
        Ok(Self::Other { scheme: scheme.to_owned(), rest: rest.to_owned() })
    }
}

/// Undoes percent escapes. A broken escape stays as it is; bytes that make no UTF-8 become the replacement character.
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair
            .filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|p| u8::from_str_radix(p, 16).ok())
        {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Escapes what the `user` rule of RFC 3261 §25.1 does not take as it is.
fn escape_user(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_uris_come_back_as_they_were() {
        for text in [
            "sip:alice@example.com",
            "sips:alice:secret@[2001:db8::1]:5061;transport=tls;lr?Subject=x&To=y",
            "sip:192.0.2.1:5080",
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
            "tel:+15551234;phone-context=x",
            "soap.beep://192.0.2.103:3002",
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_uris_are_refused() {
        for (text, error) in [
            ("alice", UriError::Scheme),
            ("sip:", UriError::Host),
            ("sip:@host", UriError::User),
            ("sip:a b@host", UriError::Character),
            ("<sip:a@host>", UriError::Character),
            ("sip:a@host:99999", UriError::Port),
            ("sip:a@[::1", UriError::Host),
            ("sip:a@host;=x", UriError::Param),
            ("tel:", UriError::Host),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
    }

    #[test]
    fn user_parts_are_escaped_and_unescaped() {
        let at: SocketAddr = "127.0.0.1:5070".parse().unwrap();
        let uri = Uri::sip("12#@ü", at);
        assert_eq!(uri.to_string(), "sip:12%23%40%C3%BC@127.0.0.1:5070");
        assert_eq!(uri.user().unwrap(), "12#@ü");
        assert_eq!(unescape("%4"), "%4");
        assert_eq!(unescape("%+1x"), "%+1x");
    }
}
