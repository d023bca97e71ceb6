//! By which way a message goes: our address towards a peer, names of peers, and which UDP peers take no TCP
//! (RFC 3261 §18.1.1).
//!
//! Owns the little that an endpoint remembers of its peers. Never resolves a name and never sends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Config, NameId, Peer, Transport};

/// Largest request that is sent in a datagram, in bytes, when the path's MTU is unknown (RFC 3261 §18.1.1).
const MAX_DATAGRAM_REQUEST: usize = 1_300;
/// How long a peer that refused TCP is not asked again.
const REFUSAL_LASTS: Duration = Duration::from_secs(300);
/// Most peers remembered to refuse TCP.
const MAX_REFUSALS: usize = 256;
/// The port of TLS where none is set.
const TLS_PORT: u16 = 5_061;

/// The address that a peer is told to reach us at: of its IP version, with the port of its transport.
pub(crate) fn local(config: &Config, peer: Peer) -> SocketAddr {
    let theirs = peer.addr.ip().to_canonical();
    let same = theirs.is_ipv4() == config.local.is_ipv4();
    let usual = config.local_other.filter(|_| !same).unwrap_or(config.local.ip());
    let around = || config.told_networks.iter().find(|(net, _)| net.contains(theirs)).map(|(_, ours)| *ours);
    let ip = config.told.get(&theirs).copied().unwrap_or_else(around).unwrap_or(usual);
    let port = match peer.transport {
        Transport::Udp => config.local.port(),
        Transport::Tcp => config.tcp_port.unwrap_or(config.local.port()),
        Transport::Tls => config.tls_port.unwrap_or(TLS_PORT),
    };
    SocketAddr::new(ip, port)
}

/// What is remembered of peers.
#[derive(Debug, Default)]
pub(crate) struct Route {
    /// Names by number, less one: number 0 is no name.
    names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, NameId>,
    /// Until when these are spoken to by UDP whatever the size.
    without_tcp: BTreeMap<SocketAddr, Instant>,
}

impl Route {
    /// The number of a name. When there are no more numbers it is that of no name, which no certificate of a name fits.
    pub(crate) fn id_of(&mut self, name: &str) -> NameId {
        let name: Arc<str> = name.trim_end_matches('.').to_ascii_lowercase().into();
        if let Some(id) = self.numbers.get(&name) {
            return *id;
        }
        let Ok(number) = u16::try_from(self.names.len() + 1) else { return NameId::default() };
        self.names.push(name.clone());
        self.numbers.insert(name, NameId(number));
        NameId(number)
    }

    /// The name with a number.
    pub(crate) fn name_of(&self, id: NameId) -> Option<&str> {
        let at = usize::from(id.0).checked_sub(1)?;
        self.names.get(at).map(|name| &**name)
    }

    /// Whether a request of this size to this peer goes by TCP although UDP was meant.
    pub(crate) fn moves_to_tcp(&mut self, now: Instant, peer: Peer, bytes: usize) -> bool {
        if peer.transport != Transport::Udp || bytes <= MAX_DATAGRAM_REQUEST {
            return false;
        }
        match self.without_tcp.get(&peer.addr) {
            Some(until) if *until > now => false,
            Some(_) => {
                self.without_tcp.remove(&peer.addr);
                true
            }
            None => true,
        }
    }

    /// A peer took no TCP connection.
    pub(crate) fn refused_tcp(&mut self, now: Instant, addr: SocketAddr) {
        if self.without_tcp.len() >= MAX_REFUSALS {
            self.without_tcp.retain(|_, until| *until > now);
        }
        if self.without_tcp.len() < MAX_REFUSALS {
            self.without_tcp.insert(addr, now + REFUSAL_LASTS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_number_each_and_compare_as_hosts_do() {
        let mut route = Route::default();
        let first = route.id_of("SBC.example.com.");
        assert_eq!(route.id_of("sbc.example.com"), first);
        assert_ne!(route.id_of("other.example.com"), first);
        assert_eq!(route.name_of(first), Some("sbc.example.com"));
        assert_eq!(route.name_of(NameId::default()), None);
        for n in 0..=u32::from(u16::MAX) {
            route.id_of(&format!("host{n}"));
        }
        assert_eq!(route.id_of("one.too.many"), NameId::default());
    }

    #[test]
    fn our_address_fits_the_peer() {
        let config = Config {
            local_other: Some("2001:db8::9".parse().unwrap()),
            tcp_port: Some(5070),
            told: [
                ("10.0.0.1".parse().unwrap(), "10.0.0.9".parse().ok()),
                ("198.51.100.1".parse().unwrap(), None),
            ]
            .into(),
            told_networks: vec![(
                crate::Network { base: "198.51.100.0".parse().unwrap(), prefix: 24 },
                "203.0.113.9".parse().unwrap(),
            )],
            ..Config::new("192.0.2.9:5060".parse().unwrap())
        };
        for (transport, theirs, ours) in [
            (Transport::Udp, "192.0.2.1:5060", "192.0.2.9:5060"),
            (Transport::Udp, "[::ffff:192.0.2.1]:5060", "192.0.2.9:5060"),
            (Transport::Tcp, "192.0.2.1:5060", "192.0.2.9:5070"),
            (Transport::Tls, "[2001:db8::1]:5061", "[2001:db8::9]:5061"),
            (Transport::Udp, "10.0.0.1:5060", "10.0.0.9:5060"),
            (Transport::Udp, "198.51.100.7:5060", "203.0.113.9:5060"),
            (Transport::Udp, "198.51.100.1:5060", "192.0.2.9:5060"),
        ] {
            let peer = Peer::new(transport, theirs.parse().unwrap());
            assert_eq!(local(&config, peer), ours.parse().unwrap());
        }
    }

    #[test]
    fn a_peer_that_refused_tcp_is_asked_again_after_a_while() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
        let now = Instant::now();
        let mut route = Route::default();
        let peer = Peer::udp("192.0.2.1:5060".parse().unwrap());
        assert!(!route.moves_to_tcp(now, peer, 1_300) && route.moves_to_tcp(now, peer, 1_301));
        route.refused_tcp(now, peer.addr);
        assert!(!route.moves_to_tcp(now, peer, 1_301));
        assert!(route.moves_to_tcp(now + REFUSAL_LASTS, peer, 1_301));
        assert!(!route.moves_to_tcp(now, Peer::new(Transport::Tls, peer.addr), 9_999));
    }
}
