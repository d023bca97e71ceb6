//! Where a trunk is: `sip:host[:port][;transport=udp|tcp|tls]`, or `sips:` (RFC 3261 §19.1). No name is resolved here.

use sip::Transport;

/// A trunk's proxy as its operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The host; an IPv6 address keeps its brackets.
    pub host: String,
    /// The port, when written.
    pub port: Option<u16>,
    /// The transport, when written. Without one the name service may choose (RFC 3263 §4.1).
    pub transport: Option<Transport>,
    /// `sips:`: nothing but TLS will do.
    pub secure: bool,
}

impl Proxy {
    /// Reads the operator's text. `None` for another scheme, a user part, an unknown transport, `sips:` over anything but
    /// TLS, or what is no host and port.
    pub fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(':')?;
        let secure = scheme.eq_ignore_ascii_case("sips");
        if !secure && !scheme.eq_ignore_ascii_case("sip") {
            return None;
        }
        let mut parts = rest.split(';');
        let host_port = parts.next()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host_port.is_empty() || !host_port.chars().all(plain) {
            return None;
        }
        let mut transport = None;
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.eq_ignore_ascii_case("transport") {
                transport = Some(match value.to_ascii_lowercase().as_str() {
                    "udp" if !secure => Transport::Udp,
                    "tcp" if !secure => Transport::Tcp,
                    "tls" => Transport::Tls,
                    _ => return None,
                });
            }
        }
        let port_at = match host_port.rfind(']') {
            Some(bracket) => host_port[bracket..].find(':').map(|colon| bracket + colon),
            None => host_port.find(':'),
        };
        let (host, port) = match port_at {
            None => (host_port, None),
            Some(colon) => {
                let port = host_port[colon + 1..].parse().ok().filter(|port: &u16| *port != 0)?;
                (&host_port[..colon], Some(port))
            }
        };
        // What the SIP side cannot read as a host leads nowhere.
        host.parse::<sip::Host>().ok()?;
        Some(Self { host: host.to_owned(), port, transport, secure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        let tls = Some(Transport::Tls);
        for (text, read) in [
            (
                "sip:127.0.0.1:5070;transport=udp",
                Some(("127.0.0.1", Some(5070), Some(Transport::Udp), false)),
            ),
            ("SIP:carrier.example.com", Some(("carrier.example.com", None, None, false))),
            ("sip:[2001:db8::1]:5080", Some(("[2001:db8::1]", Some(5080), None, false))),
            ("sip:[2001:db8::1]", Some(("[2001:db8::1]", None, None, false))),
            ("sip:host;lr", Some(("host", None, None, false))),
            ("sip:host;Transport=TCP", Some(("host", None, Some(Transport::Tcp), false))),
            ("sip:host:5061;transport=tls", Some(("host", Some(5061), tls, false))),
            ("sips:host", Some(("host", None, None, true))),
            ("sips:host;transport=tls", Some(("host", None, tls, true))),
            ("sips:host;transport=tcp", None),
            ("sip:host;transport=sctp", None),
            ("sip:", None),
            ("sip::5060", None),
            ("sip:[::1", None),
            ("sip:user@host", None),
            ("sip:host:0", None),
            ("sip:host:65536", None),
            ("sip:ho st", None),
            ("sip:host\r\nVia: x", None),
            ("tel:123", None),
            ("host", None),
            ("", None),
        ] {
            let expected = read.map(|(host, port, transport, secure)| Proxy {
                host: host.to_owned(),
                port,
                transport,
                secure,
            });
            assert_eq!(Proxy::read(text), expected, "{text:?}");
        }
    }
}
