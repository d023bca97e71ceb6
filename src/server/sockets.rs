//! The SIP side of the configuration: what is listened on, and what others are told to send to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use sip::Transport;
use sip::tokio::{BindError, SocketSettings, Sockets, StreamLimits, TlsFiles};

use super::StartError;
use crate::config::Config;
use crate::engine::LocalNet;
use crate::model::cidr::Cidr;

/// What peers are told: our address, and that of the other IP version where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) first: IpAddr,
    pub(super) other: Option<IpAddr>,
}

fn listens(text: &str) -> Result<Option<SocketAddr>, StartError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| StartError::Address(text.to_owned()))
}

/// Opens every SIP socket.
pub(super) async fn open(config: &Config) -> Result<Sockets, StartError> {
    let sip = &config.sip;
    let file = |path: &Path| (!path.as_os_str().is_empty()).then(|| PathBuf::from(path));
    let settings = SocketSettings {
        udp: sip.udp,
        tcp: listens(&sip.tcp)?,
        tls: listens(&sip.tls)?,
        tls_files: TlsFiles { cert: file(&sip.tls_cert), key: file(&sip.tls_key), ca: file(&sip.tls_ca) },
        limits: StreamLimits::default(),
    };
    Sockets::bind(&settings).await.map_err(|error| match error {
        BindError::Listen { addr, source, .. } => StartError::Listen { what: "SIP", address: addr, source },
        BindError::Tls(error) => StartError::Tls(error),
    })
}

/// What the endpoint says of us.
pub(super) fn endpoint(config: &Config, sockets: &Sockets, bound: SocketAddr, told: Told) -> sip::Config {
    let port = |transport| sockets.local_addr(transport).map(|addr| addr.port());
    sip::Config {
        user_agent: concat!("trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
        max_sessions: config.limits.max_calls.saturating_mul(2),
        // Of each call two linger for half a minute after its end (RFC 3261 §17).
        max_transactions: config.limits.max_calls.saturating_mul(40).max(50_000),
        local_other: told.other,
        tcp_port: port(Transport::Tcp),
        tls_port: port(Transport::Tls),
        large_by_tcp: true,
        inbound_sha256: config.sip.inbound_sha256,
        ..sip::Config::new(SocketAddr::new(told.first, bound.port()))
    }
}

/// The addresses that others are told: the configured one, the bound one, or that of the interface that leads outside
/// (asked of the routing table by connecting an unused socket; nothing is sent).
pub(super) fn told(external: &str, external_ipv6: &str, bound: IpAddr) -> Result<Told, StartError> {
    let read = |text: &str| text.parse().map_err(|_| StartError::Address(text.to_owned()));
    let ipv6 = if external_ipv6.is_empty() { None } else { Some(read(external_ipv6)?) };
    if !external.is_empty() {
        return Ok(Told { first: read(external)?, other: ipv6 });
    }
    if !bound.is_unspecified() {
        return Ok(Told { first: bound, other: ipv6 });
    }
    // TEST-NET-1 (RFC 5737) and its like (RFC 3849): any address outside will do.
    let ipv4 = routed(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    if bound.is_ipv4() {
        return Ok(Told { first: ipv4.unwrap_or(Ipv4Addr::LOCALHOST.into()), other: ipv6 });
    }
    let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let ipv6 = ipv6.or_else(|| routed(Ipv6Addr::UNSPECIFIED.into(), outside.into()));
    let ipv6 = ipv6.unwrap_or(Ipv6Addr::LOCALHOST.into());
    Ok(Told { first: ipv4.unwrap_or(Ipv4Addr::LOCALHOST.into()), other: Some(ipv6) })
}

/// Our own addresses in each of the operator's own networks.
pub(super) fn local_nets(config: &Config, sip: IpAddr) -> Result<Vec<LocalNet>, StartError> {
    let ours = |bound: IpAddr, net: &Cidr| {
        let wildcard = match net.base() {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        if bound.is_unspecified() { routed(wildcard, net.base()) } else { Some(bound) }
    };
    let mut nets = Vec::new();
    for text in &config.sip.local_nets {
        let net: Cidr = text.parse().map_err(|_| StartError::Address(text.clone()))?;
        if let (Some(signalling), Some(media)) = (ours(sip, &net), ours(config.rtp.bind, &net)) {
            nets.push(LocalNet { net, signalling, media });
        } else {
            tracing::warn!(
                "no interface leads to the local network {text}: its hosts are told the external address"
            );
        }
    }
    Ok(nets)
}

fn routed(from: IpAddr, outside: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((outside, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_fits_what_is_bound() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = |first| Told { first: ip(first), other: None };
        assert_eq!(told("192.0.2.9", "", ip("0.0.0.0")).unwrap(), one("192.0.2.9"));
        assert_eq!(told("", "", ip("127.0.0.1")).unwrap(), one("127.0.0.1"));
        assert_eq!(told("", "", ip("::1")).unwrap(), one("::1"));
        assert!(told("", "", ip("0.0.0.0")).unwrap().first.is_ipv4());
        let both = told("", "2001:db8::9", ip("::")).unwrap();
        assert!(both.first.is_ipv4() && both.other == Some(ip("2001:db8::9")));
        assert!(told("", "", ip("::")).unwrap().other.unwrap().is_ipv6());
        assert!(told("nowhere", "", ip("::")).is_err());
    }
}
