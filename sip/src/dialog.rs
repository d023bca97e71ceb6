//! A dialog: tags, sequence numbers, route set, remote target (RFC 3261 §12).
//!
//! Owns everything that a request inside a dialog must carry, and the one counter of our CSeq numbers, so that no two
//! requests share one. Never sends and never waits.

use std::net::{IpAddr, SocketAddr};

use crate::headers::{CSeq, NameAddr, host_is, split_list};
use crate::message::{Headers, Method, Request};
use crate::uri::{Host, Uri};
use crate::{Peer, Transport};

/// Most entries kept of a route set.
const MAX_ROUTES: usize = 32;

/// What the two sides remember of each other.
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    pub(crate) call_id: String,
    /// Our side of From/To, with our tag.
    pub(crate) local: NameAddr,
    /// Their side of From/To, with their tag once it is known.
    pub(crate) remote: NameAddr,
    local_seq: u32,
    remote_seq: Option<u32>,
    routes: Vec<NameAddr>,
    pub(crate) target: Uri,
    /// Where the dialog's first message went to or came from: taken when no address literal says better.
    pub(crate) peer: Peer,
}

/// How an incoming CSeq number stands to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Newer,
    Same,
    Older,
}

impl Dialog {
    /// The half dialog with which a call of ours begins.
    pub(crate) fn outgoing(
        call_id: String,
        local: NameAddr,
        remote: NameAddr,
        target: Uri,
        peer: Peer,
    ) -> Self {
        Self { call_id, local, remote, local_seq: 0, remote_seq: None, routes: Vec::new(), target, peer }
    }

    /// The dialog of an INVITE that came in (RFC 3261 §12.1.1). `local` has our tag already.
    pub(crate) fn incoming(
        call_id: &str,
        local: NameAddr,
        remote: NameAddr,
        seq: u32,
        headers: &Headers,
        peer: Peer,
    ) -> Self {
        let target = contact(headers).unwrap_or_else(|| remote.uri.clone());
        let routes = routes(headers);
        Self {
            call_id: call_id.to_owned(),
            local,
            remote,
            local_seq: 0,
            remote_seq: Some(seq),
            routes,
            target,
            peer,
        }
    }

    /// Completes a dialog of ours from a 2xx, or makes the dialog of another fork (RFC 3261 §12.1.2, §13.2.2.4).
    pub(crate) fn established(&self, to: &NameAddr, headers: &Headers) -> Self {
        let mut dialog = self.clone();
        dialog.remote = to.clone();
        // Another fork may have counted before; this one counts for itself.
        dialog.remote_seq = None;
        dialog.routes = routes(headers);
        dialog.routes.reverse();
        dialog.refresh_target(headers);
        dialog
    }

    /// Goes on counting their requests where an early form of the same dialog was.
    #[must_use]
    pub(crate) fn counted_like(mut self, early: &Self) -> Self {
        self.remote_seq = early.remote_seq;
        self
    }

    /// Their tag; empty when there is none yet, or when they speak RFC 2543.
    pub(crate) fn remote_tag(&self) -> &str {
        self.remote.tag().unwrap_or("")
    }

    /// Our tag.
    pub(crate) fn local_tag(&self) -> &str {
        self.local.tag().unwrap_or("")
    }

    /// The number for our next request.
    pub(crate) fn next_seq(&mut self) -> u32 {
        self.local_seq += 1;
        self.local_seq
    }

    /// Their target changes with each re-INVITE, UPDATE and 2xx to ours (RFC 3261 §12.2).
    pub(crate) fn refresh_target(&mut self, headers: &Headers) {
        if let Some(uri) = contact(headers) {
            self.target = uri;
        }
    }

    /// Takes note of the number of one of their requests (RFC 3261 §12.2.2).
    pub(crate) fn accept_seq(&mut self, seq: u32) -> Order {
        match self.remote_seq {
            Some(last) if seq < last => Order::Older,
            Some(last) if seq == last => Order::Same,
            _ => {
                self.remote_seq = Some(seq);
                Order::Newer
            }
        }
    }

    /// A request with a number from [`Dialog::next_seq`], or that of the INVITE for the ACK of a 2xx (RFC 3261 §12.2.1.1).
    pub(crate) fn numbered(&self, method: Method, seq: u32) -> Request {
        let strict = self.routes.first().filter(|first| !first.uri.is_loose());
        let uri = strict.map_or(&self.target, |first| &first.uri).for_request_line();
        let mut request = Request::new(method.clone(), uri);
        let headers = &mut request.headers;
        headers.push("Max-Forwards", "70");
        for route in self.routes.iter().skip(usize::from(strict.is_some())) {
            headers.push("Route", route.to_string());
        }
        if strict.is_some() {
            headers.push("Route", format!("<{}>", self.target));
        }
        headers.push("From", self.local.to_string());
        headers.push("To", self.remote.to_string());
        headers.push("Call-ID", self.call_id.clone());
        headers.push("CSeq", CSeq { seq, method }.to_string());
        request
    }

    /// Where the next request goes: to the first route, else to the target; by the way of the first message when that is a
    /// name, or a private address told by someone who does not live on a private network.
    pub(crate) fn next_hop(&self) -> Peer {
        let hop = self.routes.first().map_or(&self.target, |route| &route.uri);
        let Some(sip) = hop.as_sip() else { return self.peer };
        let Some(ip) = sip.host.ip() else { return self.peer };
        let peer = self.peer.addr.ip();
        let inner = (is_private(ip) && !is_private(peer)) || (is_loopback(ip) && !is_loopback(peer));
        if ip.is_unspecified() || inner {
            return self.peer;
        }
        // The way that carried the first message is known to work; a target that asks for another is reached by it all the same.
        let transport = self.peer.transport;
        // A target that names no transport, at the address of a connection, was told for datagrams: an INVITE goes by a stream
        // for its size alone. The connection leads there all the same.
        let unnamed = sip.params.get("transport").is_none() && ip.to_canonical() == peer.to_canonical();
        if transport.is_reliable() && unnamed {
            return self.peer;
        }
        let port = sip.port.unwrap_or(if transport == Transport::Tls { 5061 } else { 5060 });
        Peer { addr: SocketAddr::new(ip, port), ..self.peer }
    }

    /// Whether an address belongs to the dialog: the first message's, or a host of the target or the route set.
    pub(crate) fn knows(&self, ip: IpAddr) -> bool {
        let in_uri = |uri: &Uri| uri.as_sip().is_some_and(|sip| host_is(&sip.host, ip));
        host_is(&Host::Addr(self.peer.addr.ip()), ip)
            || in_uri(&self.target)
            || self.routes.iter().any(|r| in_uri(&r.uri))
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn contact(headers: &Headers) -> Option<Uri> {
    headers.list("Contact").next()?.parse::<NameAddr>().ok().map(|contact| contact.uri)
}

fn routes(headers: &Headers) -> Vec<NameAddr> {
    headers
        .get_all("Record-Route")
        .flat_map(split_list)
        .filter_map(|r| r.parse().ok())
        .take(MAX_ROUTES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialog(record_route: &[&str]) -> Dialog {
        let peer = Peer::udp("192.0.2.1:5060".parse().unwrap());
        let address = |text: &str| text.parse::<NameAddr>().unwrap();
        let half = Dialog::outgoing(
            "c".into(),
            address("<sip:a@h>;tag=1"),
            address("<sip:b@h>"),
            "sip:b@h".parse().unwrap(),
            peer,
        );
        let mut headers = Headers::new();
        headers.push("Contact", "<sip:b@198.51.100.7:5066>");
        for route in record_route {
            headers.push("Record-Route", *route);
        }
        half.established(&address("<sip:b@h>;tag=2"), &headers)
    }

    #[test]
    fn loose_routes_stand_reversed_before_the_target() {
        let dialog = dialog(&["<sip:198.51.100.2;lr>", "<sip:198.51.100.1:5070;lr>"]);
        let bye = dialog.numbered(Method::Bye, 7);
        assert_eq!(bye.uri.to_string(), "sip:b@198.51.100.7:5066");
        let routes: Vec<_> = bye.headers.get_all("Route").collect();
        assert_eq!(routes, ["<sip:198.51.100.1:5070;lr>", "<sip:198.51.100.2;lr>"]);
        assert_eq!(dialog.next_hop().addr, "198.51.100.1:5070".parse().unwrap());
    }

    #[test]
    fn a_strict_route_takes_the_place_of_the_target() {
        let dialog = dialog(&["<sip:198.51.100.2;lr>", "<sip:198.51.100.1?x=y>"]);
        let bye = dialog.numbered(Method::Bye, 7);
        assert_eq!(bye.uri.to_string(), "sip:198.51.100.1");
        let routes: Vec<_> = bye.headers.get_all("Route").collect();
        assert_eq!(routes, ["<sip:198.51.100.2;lr>", "<sip:b@198.51.100.7:5066>"]);
    }

    #[test]
    fn sequence_numbers_rise_and_theirs_must_too() {
        let mut dialog = dialog(&[]);
        let numbers: Vec<_> = (0..3).map(|_| dialog.next_seq()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let orders: Vec<_> = [7, 7, 6, 9].into_iter().map(|seq| dialog.accept_seq(seq)).collect();
        assert_eq!(orders, [Order::Newer, Order::Same, Order::Older, Order::Newer]);
    }

    #[test]
    fn a_private_contact_from_outside_is_not_believed() {
        let mut dialog = dialog(&[]);
        assert_eq!(dialog.next_hop().addr, "198.51.100.7:5066".parse().unwrap());
        dialog.target = "sip:b@10.0.0.4:5060".parse().unwrap();
        assert_eq!(dialog.next_hop(), dialog.peer);
        dialog.target = "sip:b@127.0.0.1:5060".parse().unwrap();
        dialog.peer = Peer::udp("10.0.0.1:5080".parse().unwrap());
        assert_eq!(dialog.next_hop(), dialog.peer);
        dialog.peer = Peer::udp("192.0.2.1:5060".parse().unwrap());
        dialog.target = "sip:b@pbx.example".parse().unwrap();
        assert_eq!(dialog.next_hop(), dialog.peer);
        assert!(dialog.knows("192.0.2.1".parse().unwrap()) && !dialog.knows("192.0.2.2".parse().unwrap()));
    }
}
