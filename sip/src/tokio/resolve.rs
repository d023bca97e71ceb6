//! From the host of a SIP URI to where requests for it go: NAPTR, SRV, A and AAAA (RFC 3263 §4, RFC 2782, RFC 3403).
//!
//! Owns the question and what was answered, for as long as the answers are good. [`order`], the choice among them, is pure and
//! made anew for each call, so that calls spread as the weights say. Asked beside an endpoint, never from within it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use thiserror::Error;
use tokio::time::timeout;

use crate::{Host, Transport};

/// Longest wait for one question, in all.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Answers are kept for what their TTL says, but at least and at most this long.
const KEPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// How long old answers still serve where the name service fails.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// How soon a name is asked for again after it could not be answered while an old answer serves.
const RETRY: Duration = Duration::from_secs(5);
/// Most places remembered.
const PLACES_MAX: usize = 1_024;
/// Most targets of one place, and most addresses of one target.
const TARGETS_MAX: usize = 32;
/// Most hops given for one call.
const HOPS_MAX: usize = 8;

/// What a SIP URI says of where it leads (RFC 3263 §4.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The host, a name or an address.
    pub host: Host,
    /// The port, when written.
    pub port: Option<u16>,
    /// The `transport` parameter, when written.
    pub transport: Option<Transport>,
    /// `sips:`: nothing but TLS will do.
    pub secure: bool,
}

/// One way to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// By which transport.
    pub transport: Transport,
    /// Where to.
    pub addr: SocketAddr,
    /// The name that the certificate must show on TLS: that of the place, not what SRV made of it (RFC 5922 §4).
    pub server_name: Option<String>,
}

/// Why a place leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocateError {
    /// `sips:` over a transport that is not TLS.
    #[error("sips needs TLS")]
    Insecure,
    /// The name service says that there is no address, or none that we can send to.
    #[error("no usable address")]
    NoAddress,
    /// The name service did not answer in time.
    #[error("the name service does not answer")]
    NoAnswer,
}

/// One SRV record's worth: a target with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Smaller ones are tried first: the order of the transports, then the priority.
    pub rank: (u16, u16),
    /// The share among those of one rank.
    pub weight: u16,
    /// By which transport.
    pub transport: Transport,
    /// Its addresses, the first to be tried first.
    pub addrs: Vec<SocketAddr>,
}

/// The order in which candidates are tried by one call (RFC 2782): by rank, and within a rank at random by weight. The same
/// seed gives the same order.
pub fn order(candidates: &[Candidate], seed: u64) -> Vec<(Transport, SocketAddr)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut left: Vec<&Candidate> = candidates.iter().collect();
    // Those of no weight stand first in their rank, which gives them a small chance.
    left.sort_by_key(|candidate| (candidate.rank, candidate.weight > 0));
    let mut out = Vec::new();
    while let Some(first) = left.first() {
        let rank = first.rank;
        let group = left.iter().take_while(|candidate| candidate.rank == rank);
        let sum: u64 = group.map(|candidate| u64::from(candidate.weight)).sum();
        let mut drawn = random.next_u64() % (sum + 1);
        let at = left
            .iter()
            .take_while(|candidate| candidate.rank == rank)
            .position(|candidate| match drawn.checked_sub(u64::from(candidate.weight)) {
                Some(rest) if rest > 0 => {
                    drawn = rest;
                    false
                }
                _ => true,
            })
            .unwrap_or(0);
        let chosen = left.remove(at);
        out.extend(chosen.addrs.iter().map(|addr| (chosen.transport, *addr)));
    }
    out.truncate(HOPS_MAX);
    out
}

#[derive(Debug, Clone)]
struct Known {
    candidates: Vec<Candidate>,
    /// Asked again then.
    until: Instant,
    /// When it was last answered.
    asked: Instant,
}

/// Asks the name service, and remembers.
pub struct Resolver {
    dns: Option<TokioResolver>,
    /// Which IP versions our sockets can send to.
    ipv4: bool,
    ipv6: bool,
    known: Mutex<BTreeMap<Place, Known>>,
}

impl Resolver {
    /// A resolver for sockets bound to `local`, which asks `server`, or those of the system when there is none.
    pub fn new(local: IpAddr, server: Option<SocketAddr>) -> Self {
        let builder = match server {
            Some(server) => {
                let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
                udp.protocol = ProtocolConfig::Udp;
                (udp.port, tcp.port) = (server.port(), server.port());
                let server = NameServerConfig::new(server.ip(), true, vec![udp, tcp]);
                let config = ResolverConfig::from_name_servers(vec![server]);
                Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
            }
            None => TokioResolver::builder_tokio(),
        };
        let dns = builder.and_then(|mut builder| {
            let options = builder.options_mut();
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            options.timeout = Duration::from_secs(1);
            options.attempts = 2;
            builder.build()
        });
        let dns = dns.inspect_err(|error| tracing::warn!(%error, "no name service")).ok();
        // A socket bound to `::` takes both.
        let (ipv4, ipv6) = (local.is_ipv4() || local.is_unspecified(), local.is_ipv6());
        Self { dns, ipv4, ipv6, known: Mutex::default() }
    }

    /// The ways to a place, in the order in which this call is to try them: at least one, at most eight. `seed` decides
    /// among those of equal rank.
    ///
    /// # Errors
    /// [`LocateError`]. An old answer still serves where the name service fails.
    pub async fn locate(&self, place: &Place, now: Instant, seed: u64) -> Result<Vec<Hop>, LocateError> {
        if place.secure && place.transport.is_some_and(|transport| transport != Transport::Tls) {
            return Err(LocateError::Insecure);
        }
        let candidates = match &place.host {
            Host::Addr(ip) => self.literal(place, *ip)?,
            Host::Name(name) => self.remembered(place, name, now).await?,
        };
        let server_name = match &place.host {
            Host::Addr(_) => None,
            Host::Name(name) => Some(name.to_ascii_lowercase()),
        };
        let hop = |(transport, addr)| Hop { transport, addr, server_name: server_name.clone() };
        Ok(order(&candidates, seed).into_iter().map(hop).collect())
    }

    fn reaches(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }

    fn literal(&self, place: &Place, ip: IpAddr) -> Result<Vec<Candidate>, LocateError> {
        let ip = ip.to_canonical();
        if !self.reaches(ip) {
            return Err(LocateError::NoAddress);
        }
        let transport = default_transport(place);
        let port = place.port.unwrap_or(default_port(transport));
        Ok(vec![Candidate { rank: (0, 0), weight: 0, transport, addrs: vec![SocketAddr::new(ip, port)] }])
    }

    async fn remembered(
        &self,
        place: &Place,
        name: &str,
        now: Instant,
    ) -> Result<Vec<Candidate>, LocateError> {
        let kept = self.known().get(place).cloned();
        if let Some(known) = &kept
            && now < known.until
        {
            return Ok(known.candidates.clone());
        }
        let asked = timeout(ANSWER_WITHIN, self.ask(place, name)).await;
        let failure = match asked {
            Ok(Ok((candidates, ttl))) => {
                let until = now + ttl.clamp(KEPT.0, KEPT.1);
                self.keep(place, Known { candidates: candidates.clone(), until, asked: now });
                return Ok(candidates);
            }
            Ok(Err(error)) => error,
            Err(_) => LocateError::NoAnswer,
        };
        match kept {
            Some(known) if now.saturating_duration_since(known.asked) < STALE => {
                tracing::warn!(%name, %failure, "an old address still serves");
                self.keep(place, Known { until: now + RETRY, ..known.clone() });
                Ok(known.candidates)
            }
            Some(_) | None => Err(failure),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Place, Known>> {
        // Nothing is left half done under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, place: &Place, found: Known) {
        let mut known = self.known();
        if known.len() >= PLACES_MAX && !known.contains_key(place) {
            known.pop_first();
        }
        known.insert(place.clone(), found);
    }

    /// Asks for everything that RFC 3263 §4.1 and §4.2 say is to be asked.
    async fn ask(&self, place: &Place, name: &str) -> Result<(Vec<Candidate>, Duration), LocateError> {
        let mut answers = Answers::default();
        if place.port.is_none() {
            let services = match place.transport {
                Some(transport) => vec![(srv_name(transport, name), transport)],
                None => self.services(place, name, &mut answers).await,
            };
            for (at, (srv, transport)) in (0_u16..).zip(services) {
                self.targets(&srv, transport, at, &mut answers).await;
            }
        }
        if answers.candidates.is_empty() {
            let transport = default_transport(place);
            let port = place.port.unwrap_or(default_port(transport));
            let addrs = self.addresses(name, port, &mut answers).await;
            if !addrs.is_empty() {
                answers.candidates.push(Candidate { rank: (0, 0), weight: 0, transport, addrs });
            }
        }
        if !answers.candidates.is_empty() {
            let ttl = answers.ttl.unwrap_or(KEPT.0);
            return Ok((answers.candidates, ttl));
        }
        Err(if answers.silent { LocateError::NoAnswer } else { LocateError::NoAddress })
    }

    /// Which SRV names to ask for, by NAPTR or, without one, all that there may be.
    async fn services(&self, place: &Place, name: &str, answers: &mut Answers) -> Vec<(String, Transport)> {
        let mut found = Vec::new();
        if let Some(dns) = &self.dns
            && let Some(lookup) = answers.note(dns.lookup(rooted(name), NAPTR).await)
        {
            for record in lookup.answers().iter().take(TARGETS_MAX) {
                let RData::NAPTR(naptr) = &record.data else { continue };
                let transport = match naptr.services.to_ascii_uppercase().as_slice() {
                    b"SIP+D2U" => Transport::Udp,
                    b"SIP+D2T" => Transport::Tcp,
                    b"SIPS+D2T" => Transport::Tls,
                    _ => continue,
                };
                if naptr.flags.eq_ignore_ascii_case(b"s") && (!place.secure || transport == Transport::Tls) {
                    let rank = (naptr.order, naptr.preference);
                    found.push((rank, naptr.replacement.to_string(), transport));
                }
            }
        }
        found.sort();
        if !found.is_empty() {
            return found.into_iter().map(|(_, srv, transport)| (srv, transport)).collect();
        }
        let all: &[Transport] =
            if place.secure { &[Transport::Tls] } else { &[Transport::Udp, Transport::Tcp, Transport::Tls] };
        all.iter().map(|transport| (srv_name(*transport, name), *transport)).collect()
    }

    async fn targets(&self, srv: &str, transport: Transport, at: u16, answers: &mut Answers) {
        let Some(dns) = &self.dns else { return };
        let Some(lookup) = answers.note(dns.srv_lookup(rooted(srv)).await) else { return };
        for record in lookup.answers().iter().take(TARGETS_MAX) {
            let RData::SRV(srv) = &record.data else { continue };
            // A target of `.` says that the service is not there at all (RFC 2782).
            if srv.target.is_root() {
                continue;
            }
            let addrs = self.addresses(&srv.target.to_string(), srv.port, answers).await;
            if !addrs.is_empty() {
                let (rank, weight) = ((at, srv.priority), srv.weight);
                answers.candidates.push(Candidate { rank, weight, transport, addrs });
            }
        }
    }

    async fn addresses(&self, name: &str, port: u16, answers: &mut Answers) -> Vec<SocketAddr> {
        let Some(dns) = &self.dns else {
            let found = tokio::net::lookup_host((name, port)).await;
            return found.map(|all| all.filter(|a| self.reaches(a.ip())).collect()).unwrap_or_default();
        };
        let found = match dns.lookup_ip(rooted(name)).await {
            Ok(found) => found,
            Err(error) => {
                answers.silent |= !error.is_no_records_found();
                return Vec::new();
            }
        };
        answers.good_until(found.valid_until());
        let mut ips: Vec<IpAddr> = found.iter().filter(|ip| self.reaches(*ip)).take(TARGETS_MAX).collect();
        // IPv4 first: media follows the address that signalling took, and IPv4 is what carriers test.
        ips.sort_by_key(IpAddr::is_ipv6);
        ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }
}

const NAPTR: hickory_resolver::proto::rr::RecordType = hickory_resolver::proto::rr::RecordType::NAPTR;

/// What was answered so far.
#[derive(Default)]
struct Answers {
    candidates: Vec<Candidate>,
    /// The shortest TTL.
    ttl: Option<Duration>,
    /// Some question was not answered at all.
    silent: bool,
}

impl Answers {
    fn note(
        &mut self,
        answer: Result<hickory_resolver::lookup::Lookup, hickory_resolver::net::NetError>,
    ) -> Option<hickory_resolver::lookup::Lookup> {
        match answer {
            Ok(lookup) => {
                self.good_until(lookup.valid_until());
                Some(lookup)
            }
            Err(error) => {
                self.silent |= !error.is_no_records_found();
                None
            }
        }
    }

    fn good_until(&mut self, until: Instant) {
        #[expect(clippy::disallowed_methods, reason = "TTLs are counted by the name service's own clock")]
        let ttl = until.saturating_duration_since(Instant::now());
        self.ttl = Some(self.ttl.map_or(ttl, |shortest| shortest.min(ttl)));
    }
}

/// A name that is complete: a search list must not be tried on it.
fn rooted(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

fn srv_name(transport: Transport, name: &str) -> String {
    match transport {
        Transport::Udp => format!("_sip._udp.{name}"),
        Transport::Tcp => format!("_sip._tcp.{name}"),
        Transport::Tls => format!("_sips._tcp.{name}"),
    }
}

fn default_transport(place: &Place) -> Transport {
    let otherwise = if place.secure { Transport::Tls } else { Transport::Udp };
    place.transport.unwrap_or(otherwise)
}

fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(rank: u16, weight: u16, last: u8) -> Candidate {
        let addrs = vec![([192, 0, 2, last], 5060).into()];
        Candidate { rank: (0, rank), weight, transport: Transport::Udp, addrs }
    }

    #[test]
    fn priorities_stand_and_weights_share() {
        let candidates = [candidate(2, 1, 9), candidate(1, 30, 1), candidate(1, 10, 2), candidate(1, 0, 3)];
        let mut firsts = BTreeMap::new();
        for seed in 0..4_000 {
            let tried = order(&candidates, seed);
            assert_eq!(tried.len(), 4);
            assert_eq!(tried[3].1.ip(), IpAddr::from([192, 0, 2, 9]));
            *firsts.entry(tried[0].1.ip()).or_insert(0_u32) += 1;
        }
        let share = |last: u8| firsts.get(&IpAddr::from([192, 0, 2, last])).copied().unwrap_or(0);
        assert!((2_800..3_100).contains(&share(1)), "{firsts:?}");
        assert!((850..1_100).contains(&share(2)), "{firsts:?}");
        assert!((40..200).contains(&share(3)), "{firsts:?}");
        assert_eq!(order(&candidates, 5), order(&candidates, 5));
        assert!(order(&[], 1).is_empty());
    }

    #[tokio::test]
    async fn addresses_need_no_name_service() {
        let resolver = Resolver::new("0.0.0.0".parse().unwrap(), None);
        #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
        let now = Instant::now();
        let place = |host: &str, port, transport, secure| Place {
            host: host.parse().unwrap(),
            port,
            transport,
            secure,
        };
        for (place, hop) in [
            (place("192.0.2.1", None, None, false), Ok((Transport::Udp, "192.0.2.1:5060"))),
            (place("192.0.2.1", Some(7), Some(Transport::Tcp), false), Ok((Transport::Tcp, "192.0.2.1:7"))),
            (place("192.0.2.1", None, None, true), Ok((Transport::Tls, "192.0.2.1:5061"))),
            (place("192.0.2.1", None, Some(Transport::Udp), true), Err(LocateError::Insecure)),
            (place("[2001:db8::1]", None, None, false), Err(LocateError::NoAddress)),
        ] {
            let found = resolver.locate(&place, now, 0).await;
            let expected = hop.map(|(transport, addr)| {
                vec![Hop { transport, addr: addr.parse().unwrap(), server_name: None }]
            });
            assert_eq!(found, expected, "{place:?}");
        }
    }
}
