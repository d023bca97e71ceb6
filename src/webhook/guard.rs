//! The guard against addresses that a customer's URL must not reach: our own host, the operator's network, cloud
//! metadata. It looks at the URL when it is submitted ([`check_url`]: form and literal addresses, no DNS) and at
//! every address that a name resolves to before it is dialled ([`Resolver`]), so a name that changes between the
//! two gains nothing. Ranges: IANA special-purpose registries (RFC 6890 and successors).

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use url::{Host, Url};

use super::dns;
use crate::config::Webhooks;
use crate::model::cidr::{Cidr, NotCidr};

/// Longest URL, characters.
const URL_MAX: usize = 2048;

/// Names asked of the system's resolver at once.
const SYSTEM_LOOKUPS_MAX: usize = 64;

/// Longest wait for the system's resolver.
const SYSTEM_LOOKUP: Duration = Duration::from_secs(4);

/// Networks that are never dialled. Mapped and NAT64 forms are judged by the IPv4 address inside them instead.
const FORBIDDEN: &[Cidr] = &[
    Cidr::v4([0, 0, 0, 0], 8),
    Cidr::v4([10, 0, 0, 0], 8),
    Cidr::v4([100, 64, 0, 0], 10),
    Cidr::v4([127, 0, 0, 0], 8),
    Cidr::v4([169, 254, 0, 0], 16),
    Cidr::v4([172, 16, 0, 0], 12),
    Cidr::v4([192, 0, 0, 0], 24),
    Cidr::v4([192, 0, 2, 0], 24),
    Cidr::v4([192, 88, 99, 0], 24),
    Cidr::v4([192, 168, 0, 0], 16),
    Cidr::v4([198, 18, 0, 0], 15),
    Cidr::v4([198, 51, 100, 0], 24),
    Cidr::v4([203, 0, 113, 0], 24),
    Cidr::v4([224, 0, 0, 0], 4),
    Cidr::v4([240, 0, 0, 0], 4),
    Cidr::v6([0, 0, 0, 0], 96),
    Cidr::v6([0x64, 0xff9b, 1, 0], 48),
    Cidr::v6([0x100, 0, 0, 0], 64),
    Cidr::v6([0x2001, 0, 0, 0], 23),
    Cidr::v6([0x2001, 0xdb8, 0, 0], 32),
    Cidr::v6([0x2002, 0, 0, 0], 16),
    Cidr::v6([0x3fff, 0, 0, 0], 20),
    Cidr::v6([0x5f00, 0, 0, 0], 16),
    Cidr::v6([0xfc00, 0, 0, 0], 7),
    Cidr::v6([0xfe80, 0, 0, 0], 10),
    Cidr::v6([0xfec0, 0, 0, 0], 10),
    Cidr::v6([0xff00, 0, 0, 0], 8),
];

/// The prefix under which NAT64 carries IPv4 addresses (RFC 6052 §2.1).
const NAT64: Cidr = Cidr::v6([0x64, 0xff9b, 0, 0], 96);

/// Whether a customer's URL may lead to this address.
pub fn permitted(address: IpAddr, allowed: &[Cidr]) -> bool {
    let inner = carried_v4(address).map(IpAddr::V4);
    let excepted = |address: IpAddr| allowed.iter().any(|cidr| cidr.contains(address));
    if excepted(address) || inner.is_some_and(excepted) {
        return true;
    }
    let judged = inner.unwrap_or(address);
    !FORBIDDEN.iter().any(|network| network.contains(judged))
}

/// The IPv4 address that an IPv6 one stands for: IPv4-mapped (RFC 4291 §2.5.5.2) or NAT64 (RFC 6052 §2.1).
fn carried_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [.., a, b, c, d] = v6.octets();
    v6.to_ipv4_mapped().or_else(|| NAT64.contains(address).then(|| Ipv4Addr::new(a, b, c, d)))
}

/// The networks that the operator excepts.
pub fn allowed(config: &Webhooks) -> Result<Vec<Cidr>, NotCidr> {
    config.allow_cidrs.iter().map(|text| text.parse()).collect()
}

/// Why a URL was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// No absolute URL with a host.
    #[error("not an absolute URL")]
    Malformed,
    /// Neither `https` nor, where the operator permits it, `http`.
    #[error("the scheme is not permitted")]
    Scheme,
    /// `user:password@`.
    #[error("user information is not permitted")]
    UserInfo,
    /// `#…`
    #[error("a fragment is not permitted")]
    Fragment,
    /// Over 2048 characters.
    #[error("longer than 2048 characters")]
    TooLong,
    /// Port 0.
    #[error("the port is not usable")]
    Port,
    /// A literal address (or `localhost`) that must not be reached.
    #[error("the address is not permitted")]
    Address,
}

/// Reads a customer's URL and refuses what can be refused without DNS. Literal addresses in any notation (octal,
/// hexadecimal, one number) are normalised first.
pub fn check_url(text: &str, config: &Webhooks) -> Result<Url, UrlRefused> {
    if text.len() > URL_MAX {
        return Err(UrlRefused::TooLong);
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(UrlRefused::Malformed);
    }
    let url = Url::parse(text).map_err(|_| UrlRefused::Malformed)?;
    // Percent-encoding makes it longer, and it is the encoded form that is stored and checked again.
    if url.as_str().len() > URL_MAX {
        return Err(UrlRefused::TooLong);
    }
    match url.scheme() {
        "https" => {}
        "http" if config.allow_http => {}
        _ => return Err(UrlRefused::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlRefused::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(UrlRefused::Fragment);
    }
    if url.port() == Some(0) {
        return Err(UrlRefused::Port);
    }
    // An unreadable exception excepts nothing; the server refuses to start with one.
    let allowed = allowed(config).unwrap_or_default();
    let reachable = match url.host().ok_or(UrlRefused::Malformed)? {
        Host::Ipv4(address) => permitted(address.into(), &allowed),
        Host::Ipv6(address) => permitted(address.into(), &allowed),
        Host::Domain(name) => {
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            !is_localhost(name) || loopback.iter().any(|address| permitted(*address, &allowed))
        }
    };
    if reachable { Ok(url) } else { Err(UrlRefused::Address) }
}

/// `localhost` and names under it are the loopback by definition (RFC 6761 §6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// A name led only to forbidden addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name leads to a forbidden address")
    }
}

impl Error for Forbidden {}

/// Resolves names for the HTTP client and hands out only addresses that may be dialled.
#[derive(Clone, Debug)]
pub struct Resolver {
    server: Option<SocketAddr>,
    allowed: Arc<[Cidr]>,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    /// `server` is asked by UDP; without one the system's resolver is.
    pub fn new(server: Option<SocketAddr>, allowed: Vec<Cidr>) -> Self {
        Self { server, allowed: allowed.into(), lookups: Arc::new(Semaphore::new(SYSTEM_LOOKUPS_MAX)) }
    }

    /// Asks the system, on a thread that a name server which does not answer keeps for as long as it likes: so only
    /// so many of them, and never those that speech and files need.
    async fn ask_system(&self, name: &str) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let permit = self.lookups.clone().acquire_owned().await?;
        let name = name.to_owned();
        let ask = move || {
            let _permit = permit;
            (name.as_str(), 0).to_socket_addrs().map(Vec::from_iter)
        };
        Ok(tokio::task::spawn_blocking(ask).await??)
    }

    async fn lookup(&self, name: &str) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let found: Vec<SocketAddr> = match self.server {
            Some(server) => {
                dns::lookup(server, name).await?.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect()
            }
            None => tokio::time::timeout(SYSTEM_LOOKUP, self.ask_system(name)).await??,
        };
        let nobody = found.is_empty();
        let fit: Vec<SocketAddr> =
            found.into_iter().filter(|address| permitted(address.ip(), &self.allowed)).collect();
        if fit.is_empty() && !nobody {
            return Err(Forbidden.into());
        }
        Ok(fit)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.lookup(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether an error of the HTTP client comes from [`Forbidden`].
pub(super) fn is_forbidden(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<Forbidden>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
