//! Which way a call goes: the whole ordered list of trunks, made before the call is placed, so that nothing further
//! down ever asks back. [`order`] is pure; [`Resolver`] is the one place of control that asks
//! the name service, off the engine's path and before any transaction is open.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use sip::tokio::Place;

use crate::model::account::Trunk;
use crate::model::call::{Hop, TrunkPlan};
use crate::model::proxy::Proxy;
use crate::model::trunk::Policy;

/// Where name servers are asked (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// How much a trunk is liked by keys that care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Lower comes first.
    pub priority: u32,
    /// Share of first places.
    pub weight: u32,
}

/// The order for call number `turn` (from 0) of a key, each trunk once. Round robin starts at `turn` mod n and walks
/// the ring; priority sorts and lets equals take turns; weighted gives first places in exact proportion over as many
/// calls as the weights sum up to, well mixed, and walks the ring from there.
pub fn order<T>(
    mut trunks: Vec<T>,
    policy: Policy,
    turn: u64,
    preference: impl Fn(&T) -> Preference,
) -> Vec<T> {
    let first = match policy {
        Policy::RoundRobin => place(turn, trunks.len()),
        Policy::Weighted => {
            let weights: Vec<u32> = trunks.iter().map(|trunk| preference(trunk).weight).collect();
            weighted_place(&weights, turn).unwrap_or_else(|| place(turn, trunks.len()))
        }
        Policy::Priority => {
            trunks.sort_by_key(|trunk| preference(trunk).priority);
            let same = |a: &T, b: &T| preference(a).priority == preference(b).priority;
            for equals in trunks.chunk_by_mut(same) {
                let first = place(turn, equals.len());
                equals.rotate_left(first);
            }
            0
        }
    };
    trunks.rotate_left(first);
    trunks
}

/// `turn` mod `places`, 0 where there is none.
fn place(turn: u64, places: usize) -> usize {
    let places = u64::try_from(places).unwrap_or(u64::MAX).max(1);
    usize::try_from(turn % places).unwrap_or(0)
}

/// Whose turn it is by weight; `None` where nobody has any.
fn weighted_place(weights: &[u32], turn: u64) -> Option<usize> {
    let sum = weights.iter().fold(0_u64, |sum, weight| sum + u64::from(*weight));
    if sum == 0 {
        return None;
    }
    // A step near the golden section of the sum and coprime to it: every ticket once in `sum` turns, neighbours far
    // apart, so that a weight of 9 to 1 is no nine calls in a row and then one.
    let mut step = (sum * 618 / 1000).max(1);
    while gcd(step, sum) != 1 {
        step += 1;
    }
    let mut ticket = (turn % sum) * step % sum;
    weights.iter().position(|weight| {
        let mine = ticket < u64::from(*weight);
        ticket = ticket.saturating_sub(u64::from(*weight));
        mine
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The name under which customers see a trunk.
pub fn endpoint(trunk: &Trunk) -> String {
    format!("{}-endpoint", trunk.name)
}

/// Where trunks are: their proxies' names to addresses, beside the engine and before any transaction is open.
pub struct Resolver {
    names: sip::tokio::Resolver,
}

impl Resolver {
    /// A resolver for a SIP socket bound to `local`: only addresses that it can send to are given. `server` is the name
    /// server to ask instead of the system's, an address with or without a port; empty for those of the system.
    pub fn new(local: IpAddr, server: &str) -> Self {
        let with_port = |ip: IpAddr| SocketAddr::new(ip, DNS_PORT);
        let server = server.parse().ok().or_else(|| server.parse().ok().map(with_port));
        Self { names: sip::tokio::Resolver::new(local, server) }
    }

    /// Everything the engine needs to dial by `trunk`; `None`, with a log line, where its proxy cannot be read or
    /// resolved now.
    pub async fn plan(&self, trunk: &Trunk, now: Instant) -> Option<TrunkPlan> {
        let Some(proxy) = Proxy::read(&trunk.proxy) else {
            tracing::warn!(trunk = %trunk.name, "the trunk's proxy cannot be read");
            return None;
        };
        let host = proxy.host.parse().ok()?;
        let place = Place { host, port: proxy.port, transport: proxy.transport, secure: proxy.secure };
        let hops = match self.names.locate(&place, now, random()).await {
            Ok(hops) => hops,
            Err(error) => {
                tracing::warn!(trunk = %trunk.name, host = %proxy.host, %error, "the trunk's proxy cannot be resolved");
                return None;
            }
        };
        let hop = |hop: sip::tokio::Hop| Hop {
            transport: hop.transport,
            address: hop.addr,
            server_name: hop.server_name,
        };
        Some(TrunkPlan {
            endpoint: endpoint(trunk),
            host: proxy.host,
            port: proxy.port,
            hops: hops.into_iter().map(hop).collect(),
            username: trunk.username.clone(),
            password: trunk.password.clone(),
            dial_prefix: trunk.dial_prefix.clone(),
            codecs: trunk.codecs.clone(),
            caller_id: trunk.caller_id.clone(),
            no_response_timeout_ms: trunk.no_response_timeout_ms,
            profile: Arc::new(trunk.profile.clone()),
        })
    }
}

/// Which of several equal targets a call tries first.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the calls do not spread, and go through all the same.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::model::trunk::TrunkProfile;

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
            profile: TrunkProfile::default(),
            enabled: true,
        }
    }

    #[test]
    fn each_call_starts_one_trunk_further() {
        let rotate = |names: &[&'static str], turn| {
            order(names.to_vec(), Policy::RoundRobin, turn, |_| Preference { priority: 0, weight: 1 })
        };
        let names = ["a", "b", "c"];
        assert_eq!(rotate(&names, 0), ["a", "b", "c"]);
        assert_eq!(rotate(&names, 1), ["b", "c", "a"]);
        assert_eq!(rotate(&names, 2), ["c", "a", "b"]);
        assert_eq!(rotate(&names, 3), ["a", "b", "c"]);
        assert_eq!(rotate(&names, u64::MAX), ["a", "b", "c"]);
        assert_eq!(rotate(&["a"], 7), ["a"]);
        assert_eq!(rotate(&[], 7), Vec::<&str>::new());
    }

    #[test]
    fn priority_sorts_and_equals_take_turns() {
        let trunks = vec![("a", 5), ("b", 1), ("c", 5), ("d", 1)];
        for (turn, expected) in [(0, "bdac"), (1, "dbca"), (2, "bdac")] {
            let liked = |trunk: &(&str, u32)| Preference { priority: trunk.1, weight: 1 };
            let ordered = order(trunks.clone(), Policy::Priority, turn, liked);
            assert_eq!(ordered.iter().map(|(name, _)| *name).collect::<String>(), expected);
        }
    }

    #[test]
    fn first_places_follow_the_weights() {
        for weights in [[3, 1, 0], [1, 1, 1], [9, 1, 0], [5, 0, 7], [1000, 1, 999]] {
            let sum: u32 = weights.iter().sum();
            let mut firsts = [0_u32; 3];
            for turn in 0..u64::from(sum) {
                let liked = |at: &usize| Preference { priority: 0, weight: weights[*at] };
                let ordered = order(vec![0, 1, 2], Policy::Weighted, turn, liked);
                firsts[ordered[0]] += 1;
                assert_eq!(ordered.iter().sum::<usize>(), 3);
            }
            assert_eq!(firsts, weights);
        }
        let liked = |_: &usize| Preference { priority: 0, weight: 0 };
        assert_eq!(order(vec![0, 1, 2], Policy::Weighted, 1, liked), [1, 2, 0]);
    }

    #[tokio::test]
    async fn a_literal_address_needs_no_name_service() {
        let resolver = Resolver::new("0.0.0.0".parse().unwrap(), "");
        let now = crate::clock::now().mono;
        let plan = resolver.plan(&trunk("mycarrier", "sip:127.0.0.1:5070;transport=udp"), now).await.unwrap();
        assert_eq!(plan.endpoint, "mycarrier-endpoint");
        assert_eq!(plan.hops, [Hop::udp("127.0.0.1:5070".parse().unwrap())]);
        assert_eq!((plan.host.as_str(), plan.port), ("127.0.0.1", Some(5070)));
        let plan = resolver.plan(&trunk("t", "sip:127.0.0.1"), now).await.unwrap();
        assert_eq!((plan.port, plan.hops[0].address.port()), (None, 5060));
        // A socket of one family cannot send to the other.
        assert_eq!(resolver.plan(&trunk("t", "sip:[::1]"), now).await, None);
        assert_eq!(resolver.plan(&trunk("t", "tel:123"), now).await, None);
    }
}
