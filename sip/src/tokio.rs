//! The driver's half of the transport: every socket of an endpoint behind one door (RFC 3261 §18).
//!
//! Owns the sockets, and a task per connection. [`Sockets::wait`] waits, [`Sockets::take`] gives what has come in, calls
//! under way first, and [`Sockets::send`] never waits. The loop that feeds an [`crate::Endpoint`] belongs to whoever owns
//! the endpoint. Looks into messages only where RFC 5923 needs it: the `Via` of the first one on a connection says under
//! which address its sender is reached.

mod resolve;
mod streams;
mod tcp;
mod tls;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::intake::{Intake, Turn};
use crate::parse::MAX_MESSAGE;
use crate::{Peer, Transmit, Transport};

pub use resolve::{Hop, LocateError, Place, Resolver, order};
use streams::Streams;
pub use tcp::StreamLimits;
pub use tls::{TlsError, TlsFiles};
pub use udp::UdpTransport;

/// Datagrams taken from the socket before others get their turn.
const BATCH_MAX: usize = 256;

/// An IPv4 address in IPv6 clothes (RFC 4291 §2.5.5.2) as what it is.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The address under which an IPv6 socket reaches an IPv4 peer.
fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// What an endpoint listens on.
#[derive(Debug, Clone)]
pub struct SocketSettings {
    /// The UDP address. `[::]` takes IPv4 as well.
    pub udp: SocketAddr,
    /// The TCP address, if TCP connections are accepted.
    pub tcp: Option<SocketAddr>,
    /// The TLS address, if TLS connections are accepted.
    pub tls: Option<SocketAddr>,
    /// What TLS is made from.
    pub tls_files: TlsFiles,
    /// The limits of connections.
    pub limits: StreamLimits,
}

impl SocketSettings {
    /// UDP alone; TCP and TLS can be opened by us, and are accepted nowhere.
    pub fn udp(addr: SocketAddr) -> Self {
        let (tls_files, limits) = (TlsFiles::default(), StreamLimits::default());
        Self { udp: addr, tcp: None, tls: None, tls_files, limits }
    }
}

/// Why the sockets of an endpoint cannot be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("{transport:?} {addr}: {source}")]
    Listen {
        /// For which transport.
        transport: Transport,
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// For [`crate::Endpoint::handle_datagram`].
    Message(Peer, Bytes),
    /// For [`crate::Endpoint::handle_excess`].
    Excess(Peer, Bytes),
    /// For [`crate::Endpoint::handle_transport_error`].
    Unreachable(Peer),
}

/// Every socket of an endpoint.
pub struct Sockets {
    udp: UdpTransport,
    tcp: Option<TcpListener>,
    tls: Option<TcpListener>,
    streams: Streams,
    intake: Intake,
    unreachable: VecDeque<Peer>,
    buffer: Box<[u8]>,
}

enum Awoken {
    Udp,
    Stream(tcp::StreamEvent),
    Accepted(Transport, io::Result<(tokio::net::TcpStream, SocketAddr)>),
}

impl Sockets {
    /// Opens everything. Nothing is left open when something cannot be.
    ///
    /// # Errors
    /// [`BindError`] names what could not be opened.
    pub async fn bind(settings: &SocketSettings) -> Result<Self, BindError> {
        let refused = |transport, addr| move |source| BindError::Listen { transport, addr, source };
        let streams = Streams::new(&settings.tls_files, settings.tls.is_some(), settings.limits)?;
        let udp = UdpTransport::bind(settings.udp).await.map_err(refused(Transport::Udp, settings.udp))?;
        let mut listeners = [None, None];
        let wanted = [(Transport::Tcp, settings.tcp), (Transport::Tls, settings.tls)];
        for (slot, (transport, addr)) in listeners.iter_mut().zip(wanted) {
            if let Some(addr) = addr {
                *slot = Some(TcpListener::bind(addr).await.map_err(refused(transport, addr))?);
            }
        }
        let [tcp, tls] = listeners;
        let buffer = vec![0; MAX_MESSAGE].into_boxed_slice();
        let (intake, unreachable) = (Intake::default(), VecDeque::new());
        Ok(Self { udp, tcp, tls, streams, intake, unreachable, buffer })
    }

    /// Where a transport is listened on, with the port that the system chose; `None` where it is not.
    pub fn local_addr(&self, transport: Transport) -> Option<SocketAddr> {
        match transport {
            Transport::Udp => self.udp.local_addr().ok(),
            Transport::Tcp => self.tcp.as_ref()?.local_addr().ok(),
            Transport::Tls => self.tls.as_ref()?.local_addr().ok(),
        }
    }

    /// Connections that are open or being opened.
    pub fn connections(&self) -> usize {
        self.streams.len()
    }

    /// Waits until [`Sockets::take`] may have something. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// What the system says of the UDP socket itself.
    pub async fn wait(&mut self) -> io::Result<()> {
        if !self.intake.is_empty() || !self.unreachable.is_empty() {
            return Ok(());
        }
        let awoken = tokio::select! {
            readable = self.udp.readable() => {
                readable?;
                Awoken::Udp
            }
            event = self.streams.event() => Awoken::Stream(event),
            accepted = accept(self.tcp.as_ref()) => Awoken::Accepted(Transport::Tcp, accepted),
            accepted = accept(self.tls.as_ref()) => Awoken::Accepted(Transport::Tls, accepted),
        };
        match awoken {
            Awoken::Udp => {}
            Awoken::Stream(event) => self.stream_event(event),
            Awoken::Accepted(transport, Ok((stream, addr))) => {
                self.streams.admit(transport, stream, canonical(addr));
            }
            // Out of files, or a peer that went away before it was let in.
            Awoken::Accepted(_, Err(error)) => tracing::warn!(%error, "accepting a connection"),
        }
        self.fill();
        Ok(())
    }

    /// What has come in, in the order of what matters most; `None` when there is nothing more.
    pub fn take(&mut self) -> Option<Arrival> {
        if let Some(peer) = self.unreachable.pop_front() {
            return Some(Arrival::Unreachable(peer));
        }
        self.intake.take().map(|turn| match turn {
            Turn::Take(from, bytes) => Arrival::Message(from, bytes),
            Turn::Refuse(from, bytes) => Arrival::Excess(from, bytes),
        })
    }

    /// Takes in what the system holds for us, within bounds, without waiting.
    pub fn fill(&mut self) {
        for _ in 0..BATCH_MAX {
            let Ok((length, from)) = self.udp.try_recv(&mut self.buffer) else { break };
            self.intake.push(from, Bytes::copy_from_slice(&self.buffer[..length]));
        }
        for _ in 0..BATCH_MAX {
            if self.intake.is_full() {
                return;
            }
            let Some(event) = self.streams.try_event() else { return };
            self.stream_event(event);
        }
    }

    fn stream_event(&mut self, event: tcp::StreamEvent) {
        match event {
            tcp::StreamEvent::Message(peer, bytes) => {
                self.streams.learn(peer, &bytes);
                self.intake.push(peer, bytes);
            }
            tcp::StreamEvent::Closed { peer, id, why } => {
                if let Some(peer) = self.streams.closed(peer, id, why) {
                    self.unreachable.push_back(peer);
                }
            }
        }
    }

    /// Sends without waiting. A full UDP socket loses the datagram, as the network may; a connection is opened when there
    /// is none, and when that fails [`Arrival::Unreachable`] follows. `name` is what the certificate must show on TLS
    /// ([`crate::Endpoint::server_name`]).
    ///
    /// # Errors
    /// What the system says; then [`crate::Endpoint::handle_transport_error`] is due, unless it is
    /// [`io::ErrorKind::WouldBlock`].
    pub fn send(&mut self, transmit: &Transmit, name: Option<&str>) -> io::Result<()> {
        match transmit.to.transport {
            Transport::Udp => self.udp.try_send(transmit),
            Transport::Tcp | Transport::Tls => self.streams.send(transmit.to, transmit.bytes.clone(), name),
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Whether an address has the port of nobody: nothing can be sent there.
fn is_nowhere(addr: SocketAddr) -> bool {
    addr.port() == 0 || addr.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || addr.ip().is_unspecified()
}
