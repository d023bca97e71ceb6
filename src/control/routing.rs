//! Which way a call goes: the whole ordered list of trunks, made before the call is placed, so that nothing further
//! down ever asks back. [`rotate`] and [`read_proxy`] are pure; [`Resolver`] is the one place of control that asks
//! the name service, off the engine's path and before any transaction is open.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::model::account::Trunk;
use crate::model::call::TrunkPlan;

/// The SIP port where none is written (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

/// How long a resolved address is used without asking again.
const RESOLVED_FOR: Duration = Duration::from_secs(30);

/// How long the name service may take for one name.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);

/// The order for call number `turn` (from 0) of a key: its trunks from `turn` mod n on, once round the ring.
pub fn rotate<T>(mut trunks: Vec<T>, turn: u64) -> Vec<T> {
    let places = u64::try_from(trunks.len()).unwrap_or(u64::MAX).max(1);
    let first = usize::try_from(turn % places).unwrap_or(0);
    if first < trunks.len() {
        trunks.rotate_left(first);
    }
    trunks
}

/// The name under which customers see a trunk.
pub fn endpoint(trunk: &Trunk) -> String {
    format!("{}-endpoint", trunk.name)
}

/// Reads a trunk's proxy, `sip:host[:port][;transport=udp]`, into host and port. An IPv6 host keeps its brackets.
/// `None` for another scheme, a user part, another transport, or anything that is no host and port.
pub fn read_proxy(proxy: &str) -> Option<(String, Option<u16>)> {
    let rest = proxy.trim();
    let scheme = rest.get(..4).filter(|scheme| scheme.eq_ignore_ascii_case("sip:"))?;
    let mut parts = rest[scheme.len()..].split(';');
    let host_port = parts.next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if host_port.is_empty() || !host_port.chars().all(plain) {
        return None;
    }
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.eq_ignore_ascii_case("transport") && !value.eq_ignore_ascii_case("udp") {
            return None;
        }
    }
    let port_at = match host_port.rfind(']') {
        Some(bracket) => host_port[bracket..].find(':').map(|colon| bracket + colon),
        None => host_port.find(':'),
    };
    let Some(colon) = port_at else { return Some((host_port.to_owned(), None)) };
    let port = host_port[colon + 1..].parse().ok().filter(|port| *port != 0)?;
    (colon > 0).then(|| (host_port[..colon].to_owned(), Some(port)))
}

/// Host names to addresses, remembered for a short while. An answer that has grown old still serves where the name
/// service fails.
#[derive(Debug)]
pub struct Resolver {
    ipv4: bool,
    known: DashMap<(String, u16), (SocketAddr, Instant)>,
}

impl Resolver {
    /// A resolver for a SIP socket bound to `local`: only addresses of that family can be sent to.
    pub fn new(local: IpAddr) -> Self {
        Self { ipv4: local.is_ipv4(), known: DashMap::new() }
    }

    /// Everything the engine needs to dial by `trunk`; `None`, with a log line, where its proxy cannot be read or
    /// resolved now.
    pub async fn plan(&self, trunk: &Trunk, now: Instant) -> Option<TrunkPlan> {
        let Some((host, port)) = read_proxy(&trunk.proxy) else {
            tracing::warn!(trunk = %trunk.name, "the trunk's proxy cannot be read");
            return None;
        };
        let Some(address) = self.address(&host, port.unwrap_or(SIP_PORT), now).await else {
            tracing::warn!(trunk = %trunk.name, %host, "the trunk's proxy cannot be resolved");
            return None;
        };
        Some(TrunkPlan {
            endpoint: endpoint(trunk),
            host,
            port,
            address,
            username: trunk.username.clone(),
            password: trunk.password.clone(),
            dial_prefix: trunk.dial_prefix.clone(),
            codecs: trunk.codecs.clone(),
            caller_id: trunk.caller_id.clone(),
            no_response_timeout_ms: trunk.no_response_timeout_ms,
        })
    }

    async fn address(&self, host: &str, port: u16, now: Instant) -> Option<SocketAddr> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return (ip.is_ipv4() == self.ipv4).then(|| SocketAddr::new(ip, port));
        }
        let name = (host.to_ascii_lowercase(), port);
        let known = self.known.get(&name).map(|entry| *entry);
        if let Some((address, at)) = known
            && now.saturating_duration_since(at) < RESOLVED_FOR
        {
            return Some(address);
        }
        let asked = tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((bare, port))).await;
        let fresh =
            asked.ok().and_then(Result::ok).and_then(|mut all| all.find(|a| a.is_ipv4() == self.ipv4));
        match fresh {
            Some(address) => {
                self.known.insert(name, (address, now));
                Some(address)
            }
            None => known.map(|(address, _)| address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn trunk(name: &str, proxy: &str) -> Trunk {
        Trunk {
            id: 1,
            name: name.into(),
            proxy: proxy.into(),
            username: "user".into(),
            password: Secret("secret".into()),
            dial_prefix: "00".into(),
            caller_id: None,
            codecs: vec!["PCMU".into()],
            no_response_timeout_ms: 2000,
            enabled: true,
        }
    }

    #[test]
    fn each_call_starts_one_trunk_further() {
        let names = vec!["a", "b", "c"];
        assert_eq!(rotate(names.clone(), 0), ["a", "b", "c"]);
        assert_eq!(rotate(names.clone(), 1), ["b", "c", "a"]);
        assert_eq!(rotate(names.clone(), 2), ["c", "a", "b"]);
        assert_eq!(rotate(names.clone(), 3), ["a", "b", "c"]);
        assert_eq!(rotate(names, u64::MAX), ["a", "b", "c"]);
        assert_eq!(rotate(vec!["a"], 7), ["a"]);
        assert_eq!(rotate(Vec::<&str>::new(), 7), Vec::<&str>::new());
    }

    #[test]
    fn proxies_are_read() {
        for (proxy, read) in [
            ("sip:127.0.0.1:5070;transport=udp", Some(("127.0.0.1", Some(5070)))),
            ("SIP:carrier.example.com", Some(("carrier.example.com", None))),
            ("sip:[2001:db8::1]:5080", Some(("[2001:db8::1]", Some(5080)))),
            ("sip:[2001:db8::1]", Some(("[2001:db8::1]", None))),
            ("sip:host;lr", Some(("host", None))),
            ("sip:host;transport=tcp", None),
            ("sips:host", None),
            ("sip:", None),
            ("sip::5060", None),
            ("sip:user@host", None),
            ("sip:host:0", None),
            ("sip:host:65536", None),
            ("sip:ho st", None),
            ("sip:host\r\nVia: x", None),
            ("host", None),
            ("", None),
        ] {
            assert_eq!(read_proxy(proxy), read.map(|(host, port)| (host.to_owned(), port)), "{proxy:?}");
        }
    }

    #[tokio::test]
    async fn a_literal_address_needs_no_name_service() {
        let resolver = Resolver::new("0.0.0.0".parse().unwrap());
        let now = crate::clock::now().mono;
        let plan = resolver.plan(&trunk("mycarrier", "sip:127.0.0.1:5070;transport=udp"), now).await.unwrap();
        assert_eq!(plan.endpoint, "mycarrier-endpoint");
        assert_eq!(plan.address, "127.0.0.1:5070".parse().unwrap());
        assert_eq!((plan.host.as_str(), plan.port), ("127.0.0.1", Some(5070)));
        let plan = resolver.plan(&trunk("t", "sip:127.0.0.1"), now).await.unwrap();
        assert_eq!((plan.port, plan.address.port()), (None, 5060));
        // A socket of one family cannot send to the other.
        assert_eq!(resolver.plan(&trunk("t", "sip:[::1]"), now).await, None);
        assert_eq!(resolver.plan(&trunk("t", "tel:123"), now).await, None);
    }

    #[tokio::test]
    async fn a_name_is_remembered_for_a_while() {
        let resolver = Resolver::new("0.0.0.0".parse().unwrap());
        let now = crate::clock::now().mono;
        let kept = "192.0.2.1:5060".parse().unwrap();
        resolver.known.insert(("carrier.invalid".into(), 5060), (kept, now));
        let later = now + RESOLVED_FOR - Duration::from_millis(1);
        assert_eq!(resolver.address("Carrier.INVALID", 5060, later).await, Some(kept));
    }
}
