//! UDP: a socket that speaks in [`Peer`]s and [`Transmit`]s (RFC 3261 §18).
//!
//! Owns the socket and nothing else. The loop that feeds an [`crate::Endpoint`] belongs to whoever owns the endpoint.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::{canonical, mapped};
use crate::{Peer, Transmit, Transport};

/// A bound UDP socket.
#[derive(Debug)]
pub struct UdpTransport {
    socket: UdpSocket,
    /// Bound to an IPv6 address: IPv4 peers are reached by their mapped addresses (RFC 4291 §2.5.5.2).
    ipv6: bool,
}

impl UdpTransport {
    /// Binds an address.
    ///
    /// # Errors
    /// What the system says: the address is in use, or not ours.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr).await?;
        // Until the runtime has once seen it writable, nothing can be sent without waiting.
        socket.writable().await?;
        let ipv6 = socket.local_addr()?.is_ipv6();
        Ok(Self { socket, ipv6 })
    }

    /// The bound address, with the port that the system chose.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a datagram. `buf` should hold [`crate::parse::MAX_MESSAGE`] bytes. What a peer's refusal (ICMP) reports here
    /// is passed over: it says nothing of the next datagram.
    ///
    /// # Errors
    /// What the system says of the socket itself.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<(usize, Peer)> {
        loop {
            match self.socket.recv_from(buf).await {
                Ok((len, addr)) => return Ok((len, Peer::udp(canonical(addr)))),
                Err(error) if is_about_a_peer(&error) => tracing::debug!(%error, "a peer is unreachable"),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until [`UdpTransport::try_recv`] may have something.
    ///
    /// # Errors
    /// What the system says of the socket itself.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Takes a datagram that is there already; [`io::ErrorKind::WouldBlock`] when there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<(usize, Peer)> {
        loop {
            match self.socket.try_recv_from(buf) {
                Ok((len, addr)) => return Ok((len, Peer::udp(canonical(addr)))),
                Err(error) if is_about_a_peer(&error) => tracing::debug!(%error, "a peer is unreachable"),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends without waiting. A full socket loses the datagram, as the network may: the transactions send it again.
    ///
    /// # Errors
    /// What the system says; then [`crate::Endpoint::handle_transport_error`] is due, unless it is [`io::ErrorKind::WouldBlock`].
    /// [`io::ErrorKind::Unsupported`] for a peer on a stream.
    pub fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        if transmit.to.transport != Transport::Udp {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let to = if self.ipv6 { mapped(transmit.to.addr) } else { transmit.to.addr };
        self.socket.try_send_to(&transmit.bytes, to).map(|_| ())
    }
}

/// Errors that an earlier datagram of ours caused, not the socket.
fn is_about_a_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn datagrams_cross_and_a_closed_port_does_not_end_the_socket() {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (a, b) =
            (UdpTransport::bind(loopback).await.unwrap(), UdpTransport::bind(loopback).await.unwrap());
        let closed = UdpTransport::bind(loopback).await.unwrap().local_addr().unwrap();
        let to = |addr| Transmit { to: Peer::udp(addr), bytes: Bytes::from_static(b"hello") };
        let mut buf = [0; 64];
        assert_eq!(a.try_recv(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.try_send(&to(closed)).unwrap();
        b.try_send(&to(a.local_addr().unwrap())).unwrap();
        let (len, from) = a.recv(&mut buf).await.unwrap();
        assert_eq!((&buf[..len], from), (&b"hello"[..], Peer::udp(b.local_addr().unwrap())));
        let tcp = Transmit { to: Peer::new(Transport::Tcp, loopback), bytes: Bytes::new() };
        assert_eq!(a.try_send(&tcp).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
