//! One question to one trunk: is anybody there? OPTIONS from a socket of its own (RFC 3261 §11), so that it can be
//! asked beside a running server and without one. Owns nothing; says what it found in words.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::clock;
use crate::control::routing::Resolver;
use crate::model::account::Trunk;

/// An answer is waited for no longer than this.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Somebody answered, whatever the status.
    pub alive: bool,
    /// Where the question went.
    pub address: Option<SocketAddr>,
    /// The status.
    pub code: Option<u16>,
    /// From question to answer.
    pub elapsed_ms: Option<u32>,
    /// The same in words.
    pub words: String,
}

/// Asks a trunk. Takes at most 5 s and the time of finding its address.
pub async fn probe(trunk: &Trunk) -> Probe {
    let mut found = None;
    for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        if found.is_none() {
            found = Resolver::new(family, "").plan(trunk, clock::now().mono).await.map(|plan| (family, plan));
        }
    }
    let Some((family, plan)) = found else {
        let words = format!("{} has no address: is the name right?", trunk.proxy);
        return Probe { alive: false, address: None, code: None, elapsed_ms: None, words };
    };
    let Some(hop) = plan.hops.first() else {
        let words = format!("{} has no address", trunk.proxy);
        return Probe { alive: false, address: None, code: None, elapsed_ms: None, words };
    };
    let address = hop.address;
    if hop.transport != sip::Transport::Udp {
        return Probe { address: Some(address), ..connect(address).await };
    }
    let no =
        |words: String| Probe { alive: false, address: Some(address), code: None, elapsed_ms: None, words };
    match tokio::time::timeout(ANSWER_WITHIN, ask(family, address)).await {
        Err(_) => no(format!(
            "no answer from {address} within {} s: wrong address or port, a firewall between, or a carrier that \
             does not answer those it does not know",
            ANSWER_WITHIN.as_secs()
        )),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            no(format!("nothing listens at {address}"))
        }
        Ok(Err(error)) => no(format!("{address} cannot be asked: {error}")),
        Ok(Ok((code, reason, after))) => {
            let elapsed_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
            let words = format!("{address} answers {code} {reason} after {elapsed_ms} ms");
            let (code, elapsed_ms) = (Some(code), Some(elapsed_ms));
            Probe { alive: true, address: Some(address), code, elapsed_ms, words }
        }
    }
}

/// Whether a stream can be opened at all; what is behind it is not asked.
async fn connect(address: SocketAddr) -> Probe {
    let no = |words| Probe { alive: false, address: None, code: None, elapsed_ms: None, words };
    let began = clock::now().mono;
    match tokio::time::timeout(ANSWER_WITHIN, tokio::net::TcpStream::connect(address)).await {
        Err(_) => no(format!("no connection to {address} within {} s", ANSWER_WITHIN.as_secs())),
        Ok(Err(error)) => no(format!("no connection to {address}: {error}")),
        Ok(Ok(_)) => {
            let took = clock::now().mono.saturating_duration_since(began).as_millis();
            let words = format!("{address} takes connections; OPTIONS are asked over UDP only");
            let elapsed_ms = u32::try_from(took).ok();
            Probe { alive: true, address: None, code: None, elapsed_ms, words }
        }
    }
}

/// Status, phrase and time of the answer.
async fn ask(family: IpAddr, address: SocketAddr) -> io::Result<(u16, String, Duration)> {
    let socket = UdpSocket::bind((family, 0)).await?;
    // Connected, so that the system says which address of ours leads there and reports a closed port.
    socket.connect(address).await?;
    let ours = socket.local_addr()?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| io::Error::other("no random numbers"))?;
    let mut endpoint = sip::Endpoint::new(sip::Config::new(ours), seed);
    let uri = sip::Uri::sip_at("", sip::Host::Addr(address.ip()), Some(address.port()));
    let from = sip::Uri::sip_at("trunkline", sip::Host::Addr(ours.ip()), None);
    endpoint.options(clock::now().mono, uri, from, sip::Peer::udp(address)).map_err(io::Error::other)?;
    let mut buffer = vec![0; sip::parse::MAX_MESSAGE];
    loop {
        while let Some(transmit) = endpoint.poll_transmit() {
            socket.send(&transmit.bytes).await?;
        }
        match endpoint.poll_errand() {
            Some((_, sip::ErrandEvent::Answered { code, reason, after })) => {
                return Ok((code, reason, after));
            }
            Some((_, sip::ErrandEvent::Unanswered)) => return Err(io::ErrorKind::TimedOut.into()),
            Some((_, sip::ErrandEvent::Registration(_))) | None => {}
        }
        let wait = endpoint.poll_timeout().unwrap_or_else(|| clock::now().mono + ANSWER_WITHIN);
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let length = received?;
                endpoint.handle_datagram(clock::now().mono, sip::Peer::udp(address), &buffer[..length]);
            }
            () = tokio::time::sleep_until(wait.into()) => endpoint.handle_timeout(clock::now().mono),
        }
    }
}
