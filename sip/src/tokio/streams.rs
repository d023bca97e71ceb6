//! All connections of an endpoint: opened, admitted, found again, and counted (RFC 3261 §18, RFC 5923).
//!
//! Owns which connection a message goes by. A response goes by the connection of its request (RFC 3261 §18.2.2), or, when
//! that is gone, to where its sender said that it is reached. A request goes by any connection to that peer, whoever opened
//! it. Never reads or writes itself: each connection's task does.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::tcp::{Ended, Link, StreamEvent, StreamLimits, serve};
use super::tls::{Dialler, Porter, TlsError, TlsFiles};
use super::{canonical, is_nowhere};
use crate::headers::Via;
use crate::message::Message;
use crate::parse::parse;
use crate::{Peer, Transport};

/// Messages that may wait for one connection: more means that the peer does not read.
const OUTBOUND_MAX: usize = 1_024;
/// Messages of all connections that may wait for the endpoint; then the connections wait.
const EVENTS_MAX: usize = 1_024;
/// Most closed connections whose senders can still be answered elsewhere.
const FORMER_MAX: usize = 1_024;

struct Connection {
    id: u64,
    outbound: mpsc::Sender<Bytes>,
    /// We opened it.
    ours: bool,
    /// Its first message has been looked at.
    learned: bool,
    /// Where its sender can be reached if it closes.
    alias: Option<Peer>,
}

/// All connections.
pub(super) struct Streams {
    limits: StreamLimits,
    dialler: Option<Dialler>,
    porter: Option<Porter>,
    open: BTreeMap<Peer, Connection>,
    /// Connections that they opened, by address.
    admitted: BTreeMap<IpAddr, usize>,
    /// From where a peer is reached to the connection that it opened.
    aliases: BTreeMap<Peer, Peer>,
    /// Where those are reached whose connection has closed.
    former: BTreeMap<Peer, Peer>,
    former_order: VecDeque<Peer>,
    events: mpsc::Receiver<StreamEvent>,
    events_in: mpsc::Sender<StreamEvent>,
    next_id: u64,
}

impl Streams {
    /// No connection yet. Without a usable list of authorities TLS connections cannot be opened; without a certificate,
    /// where `accept_tls` wants one, there is an error.
    pub(super) fn new(files: &TlsFiles, accept_tls: bool, limits: StreamLimits) -> Result<Self, TlsError> {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let porter = if accept_tls { Some(Porter::new(files)?) } else { None };
        // Authorities that were named must be there; the system's may be missing where nobody speaks TLS.
        let dialler = match Dialler::new(files) {
            Ok(dialler) => Some(dialler),
            Err(error) if files.ca.is_some() || files.cert.is_some() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "no TLS connection can be opened");
                None
            }
        };
        Ok(Self {
            limits,
            dialler,
            porter,
            open: BTreeMap::new(),
            admitted: BTreeMap::new(),
            aliases: BTreeMap::new(),
            former: BTreeMap::new(),
            former_order: VecDeque::new(),
            events,
            events_in,
            next_id: 0,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Waits for what a connection tells.
    pub(super) async fn event(&mut self) -> StreamEvent {
        match self.events.recv().await {
            Some(event) => event,
            // We hold a sender ourselves, so that the channel never ends.
            None => std::future::pending().await,
        }
    }

    /// What a connection has told already.
    pub(super) fn try_event(&mut self) -> Option<StreamEvent> {
        self.events.try_recv().ok()
    }

    /// Takes a connection that a peer opened, unless there are too many.
    pub(super) fn admit(&mut self, transport: Transport, stream: TcpStream, addr: SocketAddr) {
        let peer = Peer::new(transport, addr);
        let theirs = self.admitted.get(&addr.ip()).copied().unwrap_or(0);
        if self.open.len() >= self.limits.connections || theirs >= self.limits.per_address {
            tracing::debug!(peer = %addr, "too many connections");
            return;
        }
        // Delay costs a small message more than a packet does.
        let _ = stream.set_nodelay(true);
        let porter = if transport == Transport::Tls { self.porter.clone() } else { None };
        *self.admitted.entry(addr.ip()).or_default() += 1;
        let link = self.link(peer, false);
        let (id, events, limits) = (self.next_id, self.events_in.clone(), self.limits);
        tokio::spawn(async move {
            let why = match porter {
                None => serve(stream, link).await,
                Some(porter) => match timeout(limits.handshake, porter.admit(stream)).await {
                    Ok(Ok(stream)) => serve(stream, link).await,
                    Ok(Err(_)) | Err(_) => Ended::NotOpened,
                },
            };
            // Nobody is left to tell when the sockets are gone.
            let _ = events.send(StreamEvent::Closed { peer, id, why }).await;
        });
    }

    /// Notes a new connection and makes its task's end of it.
    fn link(&mut self, peer: Peer, ours: bool) -> Link {
        self.next_id += 1;
        let (sender, outbound) = mpsc::channel(OUTBOUND_MAX);
        let connection = Connection { id: self.next_id, outbound: sender, ours, learned: ours, alias: None };
        self.open.insert(peer, connection);
        Link { peer, ours, limits: self.limits, outbound, events: self.events_in.clone() }
    }

    /// Looks at the first request on a connection that a peer opened: its `Via` says where its sender takes connections. Only
    /// the port is believed; the address is the one that the connection comes from.
    pub(super) fn learn(&mut self, peer: Peer, bytes: &[u8]) {
        let Some(connection) = self.open.get_mut(&peer).filter(|connection| !connection.learned) else {
            return;
        };
        connection.learned = true;
        let Ok(Message::Request(request)) = parse(bytes) else { return };
        let via = request.headers.list("Via").next().and_then(|via| via.parse::<Via>().ok());
        let Some(via) = via else { return };
        let port = via.port.unwrap_or(if peer.transport == Transport::Tls { 5061 } else { 5060 });
        let alias = Peer { addr: SocketAddr::new(peer.addr.ip(), port), ..peer };
        if alias != peer && !is_nowhere(alias.addr) {
            connection.alias = Some(alias);
            self.aliases.insert(alias, peer);
        }
    }

    /// A connection has ended. Gives back whom nothing more can be sent to, if anything might wait for that.
    pub(super) fn closed(&mut self, peer: Peer, id: u64, why: Ended) -> Option<Peer> {
        tracing::debug!(peer = %peer.addr, ?why, "a connection ended");
        let current = self.open.get(&peer).is_some_and(|connection| connection.id == id);
        if !current {
            return None;
        }
        self.forget(peer);
        Some(peer)
    }

    fn forget(&mut self, peer: Peer) {
        let Some(connection) = self.open.remove(&peer) else { return };
        if !connection.ours
            && let Some(count) = self.admitted.get_mut(&peer.addr.ip())
        {
            *count -= 1;
            if *count == 0 {
                self.admitted.remove(&peer.addr.ip());
            }
        }
        let Some(alias) = connection.alias else { return };
        if self.aliases.get(&alias) == Some(&peer) {
            self.aliases.remove(&alias);
        }
        if self.former.insert(peer, alias).is_none() {
            self.former_order.push_back(peer);
        }
        if self.former_order.len() > FORMER_MAX
            && let Some(oldest) = self.former_order.pop_front()
        {
            self.former.remove(&oldest);
        }
    }

    /// Which connection a message for a peer goes by; where none is open, which is to be opened.
    fn way(&self, to: Peer) -> Peer {
        if self.open.contains_key(&to) {
            return to;
        }
        let to = self.former.get(&to).copied().unwrap_or(to);
        self.aliases.get(&to).copied().unwrap_or(to)
    }

    /// Sends by the connection to a peer, which is opened when there is none.
    pub(super) fn send(&mut self, to: Peer, bytes: Bytes, name: Option<&str>) -> io::Result<()> {
        let to = self.way(to);
        if let Some(connection) = self.open.get(&to) {
            match connection.outbound.try_send(bytes) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.forget(to);
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"));
                }
                Err(mpsc::error::TrySendError::Closed(bytes)) => {
                    // It has just ended, and its end has not been told yet.
                    self.forget(to);
                    return self.open(self.way(to), bytes, name);
                }
            }
        }
        self.open(to, bytes, name)
    }

    fn open(&mut self, to: Peer, bytes: Bytes, name: Option<&str>) -> io::Result<()> {
        if self.open.len() >= self.limits.connections {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections"));
        }
        if is_nowhere(to.addr) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let dialler = match (to.transport, &self.dialler) {
            (Transport::Tls, None) => return Err(io::ErrorKind::Unsupported.into()),
            (Transport::Tls, Some(dialler)) => Some(dialler.clone()),
            (Transport::Udp | Transport::Tcp, _) => None,
        };
        let link = self.link(to, true);
        let id = self.next_id;
        if let Some(connection) = self.open.get(&to) {
            // The queue is new and empty.
            let _ = connection.outbound.try_send(bytes);
        }
        let (events, limits, name) = (self.events_in.clone(), self.limits, name.map(str::to_owned));
        tokio::spawn(async move {
            let why = connect(to, dialler, name.as_deref(), link, limits).await;
            // Nobody is left to tell when the sockets are gone.
            let _ = events.send(StreamEvent::Closed { peer: to, id, why }).await;
        });
        Ok(())
    }
}

async fn connect(
    to: Peer,
    dialler: Option<Dialler>,
    name: Option<&str>,
    link: Link,
    limits: StreamLimits,
) -> Ended {
    let stream = match timeout(limits.connect, TcpStream::connect(canonical(to.addr))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(peer = %to.addr, %error, "connecting");
            return Ended::NotOpened;
        }
        Err(_) => {
            tracing::debug!(peer = %to.addr, "connecting took too long");
            return Ended::NotOpened;
        }
    };
    // Delay costs a small message more than a packet does.
    let _ = stream.set_nodelay(true);
    let Some(dialler) = dialler else { return serve(stream, link).await };
    match timeout(limits.handshake, dialler.dial(stream, name, to.addr.ip())).await {
        Ok(Ok(stream)) => serve(stream, link).await,
        Ok(Err(error)) => {
            tracing::warn!(peer = %to.addr, name, %error, "a TLS handshake failed");
            Ended::NotOpened
        }
        Err(_) => Ended::NotOpened,
    }
}
