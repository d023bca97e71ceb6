//! Calls that come in: who may bring them, what is asked about one before it is taken, and the answer. Plain values that
//! go between the rooms; which number leads where is decided above, what a call then does below.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::call::{CallOrder, TrunkPlan};
use super::cidr::Cidr;

/// The trunks that may bring calls, found by where a call comes from (CONTRACT 0.8, 3 S23).
#[derive(Debug, Default)]
pub struct Directory {
    trunks: Vec<Arc<TrunkPlan>>,
    /// By the addresses of their proxies.
    hosts: BTreeMap<IpAddr, Vec<usize>>,
    /// By their further networks.
    networks: Vec<(Cidr, usize)>,
}

impl PartialEq for Directory {
    fn eq(&self, other: &Self) -> bool {
        // All else follows from the trunks.
        self.trunks == other.trunks
    }
}

impl Directory {
    /// The directory of these trunks.
    pub fn new(trunks: Vec<TrunkPlan>) -> Self {
        let mut hosts: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
        let mut networks = Vec::new();
        for (place, trunk) in trunks.iter().enumerate() {
            for hop in &trunk.hops {
                let places = hosts.entry(hop.address.ip().to_canonical()).or_default();
                if !places.contains(&place) {
                    places.push(place);
                }
            }
            networks.extend(trunk.profile.networks().into_iter().map(|network| (network, place)));
        }
        Self { trunks: trunks.into_iter().map(Arc::new).collect(), hosts, networks }
    }

    /// Every trunk.
    pub fn trunks(&self) -> &[Arc<TrunkPlan>] {
        &self.trunks
    }

    /// Every address and network that calls may come from.
    pub fn sources(&self) -> Vec<sip::Network> {
        let hosts = self.hosts.keys().map(|host| sip::Network::from(*host));
        let network = |network: &Cidr| sip::Network { base: network.base(), prefix: network.prefix() };
        hosts.chain(self.networks.iter().map(|(known, _)| network(known))).collect()
    }

    /// The trunks that a call from there may have come by: those whose proxy is exactly there if there are such, else
    /// all that share the address or have it in a network of theirs.
    pub fn of(&self, source: SocketAddr) -> Vec<Arc<TrunkPlan>> {
        let ip = source.ip().to_canonical();
        let at_host = self.hosts.get(&ip).map(Vec::as_slice).unwrap_or_default();
        let trunk = |place: &usize| self.trunks.get(*place).cloned();
        let same = |hop: &super::call::Hop| {
            (hop.address.ip().to_canonical(), hop.address.port()) == (ip, source.port())
        };
        let exactly: Vec<_> =
            at_host.iter().filter_map(trunk).filter(|trunk| trunk.hops.iter().any(same)).collect();
        if !exactly.is_empty() {
            return exactly;
        }
        let around =
            self.networks.iter().filter(|(network, _)| network.contains(ip)).map(|(_, place)| *place);
        let mut places: Vec<usize> = at_host.iter().copied().chain(around).collect();
        places.sort_unstable();
        places.dedup();
        places.iter().filter_map(trunk).collect()
    }
}

/// A call that came in and waits to be taken or refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// Names it in the answer.
    pub ticket: sip::SessionId,
    /// The trunks it may have come by; never empty.
    pub trunks: Vec<Arc<TrunkPlan>>,
    /// What was dialled, as it was written, the likeliest place first.
    pub dialled: Vec<String>,
    /// Who calls, as it was written: a user part, empty where there is none.
    pub caller: String,
    /// The caller does not want to be known (RFC 3323).
    pub anonymous: bool,
}

/// What becomes of it.
#[derive(Clone, Debug)]
pub enum Reception {
    /// It is answered at once.
    Answer {
        /// The call; the first of its trunks is the one it came by.
        order: Arc<CallOrder>,
        /// What is heard is said back.
        echo: bool,
    },
    /// It is refused.
    Refuse {
        /// SIP status, 400 to 699.
        code: u16,
        /// Seconds after which it may be tried again.
        retry_after_s: Option<u32>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::model::call::Hop;
    use crate::model::trunk::TrunkProfile;

    fn trunk(name: &str, at: &str, cidrs: &[&str]) -> TrunkPlan {
        let source_cidrs = cidrs.iter().map(|text| (*text).to_owned()).collect();
        TrunkPlan {
            endpoint: name.into(),
            host: "10.0.0.1".into(),
            port: None,
            hops: vec![Hop::udp(at.parse().unwrap())],
            username: String::new(),
            password: Secret::default(),
            dial_prefix: String::new(),
            codecs: Vec::new(),
            caller_id: None,
            no_response_timeout_ms: 2000,
            profile: Arc::new(TrunkProfile { source_cidrs, ..TrunkProfile::default() }),
        }
    }

    #[test]
    fn a_call_is_known_by_where_it_comes_from() {
        let directory = Directory::new(vec![
            trunk("a", "192.0.2.1:5060", &[]),
            trunk("b", "192.0.2.1:5070", &["198.51.100.0/24"]),
            trunk("c", "[::ffff:192.0.2.3]:5060", &["198.51.100.7", "not a network"]),
        ]);
        for (source, names) in [
            ("192.0.2.1:5060", "a"),
            ("192.0.2.1:5070", "b"),
            ("192.0.2.1:40000", "ab"),
            ("[::ffff:192.0.2.1]:5060", "a"),
            ("192.0.2.3:5060", "c"),
            ("198.51.100.7:1", "bc"),
            ("198.51.100.8:1", "b"),
            ("192.0.2.4:5060", ""),
        ] {
            let found: String =
                directory.of(source.parse().unwrap()).iter().map(|trunk| trunk.endpoint.as_str()).collect();
            assert_eq!(found, names, "{source}");
            let sources: sip::Sources = directory.sources().into_iter().collect();
            let source: SocketAddr = source.parse().unwrap();
            assert_eq!(sources.contains(source.ip()), !names.is_empty(), "{source}");
        }
    }
}
