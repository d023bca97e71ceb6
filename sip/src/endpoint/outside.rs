//! Requests outside of any dialog (RFC 3261 §8.2, §11, §13.3.1; RFC 3581).
//!
//! Owns the order of reasons to refuse, and answers that cost no memory. Only an INVITE from someone who may call leaves a
//! trace, and so does its final answer, for 32 s: an INVITE that is retried must not ring twice.

use std::net::SocketAddr;
use std::time::Instant;

use super::Endpoint;
use crate::body::session_description;
use crate::headers::{Via, read_number};
use crate::message::{Headers, Message, Method, Request, Response};
use crate::parse::{Core, parse_with_core};
use crate::session::{Call, Incoming, too_short};
use crate::stack::Memory;
use crate::uri::Uri;
use crate::{ALLOW, Inbound, Peer, SUPPORTED};

/// What we say when we have no room (RFC 3261 §21.5.4), in seconds.
const RETRY_AFTER_S: u32 = 5;
/// Most option tags repeated in `Unsupported`.
const MAX_UNSUPPORTED: usize = 16;

/// Refusals that ask the caller to come again with a changed INVITE: these are not held against it.
const INVITES_RETRY: &[u16] = &[401, 407, 412, 413, 415, 416, 420, 421, 422, 484, 485, 488, 491, 494];

/// Notes in the topmost `Via` where the request came from, and says where its responses go (RFC 3261 §18.2, RFC 3581 §4).
pub(super) fn stamp(headers: &mut Headers, core: &mut Core, from: Peer) -> Peer {
    core.via.stamp(from.addr);
    let first = headers.get("Via").unwrap_or_default();
    let rest: Vec<&str> = crate::headers::split_list(first).skip(1).collect();
    let mut line = core.via.to_string();
    for via in rest {
        line.push_str(", ");
        line.push_str(via);
    }
    headers.set_first("Via", line);
    if from.transport.is_reliable() {
        return from;
    }
    Peer { addr: SocketAddr::new(from.addr.ip(), core.via.response_port(from.addr.port())), ..from }
}

impl Endpoint {
    /// Takes a message for which there is no time: a request is answered 503 with `Retry-After`, and nothing is kept of it
    /// (RFC 3261 §21.5.4).
    pub fn handle_excess(&mut self, from: Peer, bytes: &[u8]) {
        let Ok((Message::Request(mut request), mut core)) = parse_with_core(bytes) else { return };
        if request.method == Method::Invite && !self.may_call(from) {
            return;
        }
        let reply = stamp(&mut request.headers, &mut core, from);
        self.overloaded(&request, reply);
    }

    /// Answers without a trace.
    pub(super) fn answer(&mut self, request: &Request, reply: Peer, code: u16, headers: &[(&str, &str)]) {
        if request.method == Method::Ack {
            return;
        }
        let tag = self.stack.stateless_tag(&request.headers);
        let mut response = self.stack.response(&request.headers, code, &tag);
        for (name, value) in headers {
            response.headers.push(name, *value);
        }
        self.stack.send(reply, response.to_bytes());
    }

    pub(super) fn overloaded(&mut self, request: &Request, reply: Peer) {
        self.answer(request, reply, 503, &[("Retry-After", &RETRY_AFTER_S.to_string())]);
    }

    /// Answers a request that could not be read to its end.
    pub(super) fn refuse_malformed(&mut self, from: Peer, code: u16, why: &str, mut headers: Headers) {
        let Some(Ok(mut via)) = headers.list("Via").next().map(str::parse::<Via>) else { return };
        let invite = headers.get("CSeq").is_some_and(|cseq| cseq.trim_end().ends_with("INVITE"));
        if invite && !self.may_call(from) {
            return;
        }
        via.stamp(from.addr);
        let port =
            if from.transport.is_reliable() { from.addr.port() } else { via.response_port(from.addr.port()) };
        let rest: Vec<String> = headers.list("Via").skip(1).map(str::to_owned).collect();
        headers.set("Via", via.to_string());
        for via in rest {
            headers.push("Via", via);
        }
        let tag = self.stack.stateless_tag(&headers);
        let mut response = self.stack.response(&headers, code, &tag);
        why.clone_into(&mut response.reason);
        let to = Peer { addr: SocketAddr::new(from.addr.ip(), port), ..from };
        self.stack.send(to, response.to_bytes());
    }

    /// Takes the INVITEs of these from here on. Calls that came in before are not touched.
    pub fn take_calls(&mut self, from: Inbound) {
        self.stack.config.inbound = from;
    }

    /// Who was the last to call without being allowed to, since this was asked before. It was given no answer.
    pub fn poll_stranger(&mut self) -> Option<Peer> {
        self.stranger.take()
    }

    fn may_call(&mut self, from: Peer) -> bool {
        let may = match &self.stack.config.inbound {
            Inbound::Nobody => false,
            Inbound::Anyone => true,
            Inbound::From(sources) => sources.contains(from.addr.ip()),
        };
        if !may {
            self.stranger = Some(from);
        }
        may
    }

    /// A request that belongs to no dialog of ours.
    pub(super) fn outside(&mut self, now: Instant, from: Peer, request: &Request, core: &Core, reply: Peer) {
        if request.method == Method::Ack || (request.method == Method::Invite && !self.may_call(from)) {
            return;
        }
        if request.headers.get("Max-Forwards").and_then(read_number) == Some(0) {
            return self.answer(request, reply, 483, &[]);
        }
        let takes = matches!(&request.uri, Uri::Sip(_)) || request.uri.scheme() == "tel";
        if !takes {
            return self.answer(request, reply, 416, &[]);
        }
        if core.to.tag().is_some() {
            return self.answer(request, reply, 481, &[]);
        }
        match &request.method {
            Method::Invite | Method::Options | Method::Notify => {}
            Method::Bye | Method::Info | Method::Update | Method::Prack => {
                return self.answer(request, reply, 481, &[]);
            }
            Method::Refer => return self.answer(request, reply, 603, &[]),
            Method::Ack | Method::Cancel | Method::Register | Method::Other(_) => {
                return self.answer(request, reply, 405, &[("Allow", ALLOW)]);
            }
        }
        let unsupported = unsupported(&request.headers);
        if !unsupported.is_empty() {
            return self.answer(request, reply, 420, &[("Unsupported", &unsupported)]);
        }
        match request.method {
            Method::Invite => self.invited(now, from, request, core, reply),
            Method::Options => {
                let says = [("Allow", ALLOW), ("Accept", "application/sdp"), ("Supported", SUPPORTED)];
                self.answer(request, reply, 200, &says);
            }
            _ => self.answer(request, reply, 200, &[]),
        }
    }

    fn invited(&mut self, now: Instant, from: Peer, request: &Request, core: &Core, reply: Peer) {
        if self.asked_before(request, core, reply) {
            return;
        }
        let Ok(sdp) = session_description(&request.headers, &request.body) else {
            return self.answer(request, reply, 415, &[("Accept", "application/sdp")]);
        };
        if !accepts_sdp(&request.headers) {
            return self.answer(request, reply, 406, &[]);
        }
        if let Some(least) = too_short(&self.stack, &request.headers) {
            return self.answer(request, reply, 422, &[("Min-SE", &least.to_string())]);
        }
        if self.is_full() {
            return self.overloaded(request, reply);
        }
        let id = self.new_session_id();
        let key = (core.call_id.clone(), core.from.tag().unwrap_or("").to_owned());
        if let Some(old) = self.stack.memories.find(&key) {
            self.stack.forget(old);
        }
        self.stack.memories.insert(id.0, key.clone(), Memory { key, seq: core.cseq.seq, refusal: None });
        let call = Call::incoming(now, &mut self.stack, id, Incoming { request, core, sdp, from, reply });
        self.add(call);
    }

    /// Whether the same caller has asked the same before: merged by a proxy (RFC 3261 §8.2.2.2), or retried after its
    /// refusal. Either way it does not ring again.
    fn asked_before(&mut self, request: &Request, core: &Core, reply: Peer) -> bool {
        let key = (core.call_id.clone(), core.from.tag().unwrap_or("").to_owned());
        let Some(memory) = self.stack.memories.find(&key).and_then(|id| self.stack.memories.get(id)) else {
            return false;
        };
        let Some((refusal, tag)) = &memory.refusal else {
            self.answer(request, reply, 482, &[]);
            return true;
        };
        if core.cseq.seq > memory.seq && INVITES_RETRY.contains(&refusal.code) {
            return false;
        }
        let (again, tag): (Response, String) = (refusal.clone(), tag.clone());
        let mut response = self.stack.response(&request.headers, again.code, &tag);
        for (name, value) in again.headers.iter() {
            response.headers.push(name, value);
        }
        self.stack.send(reply, response.to_bytes());
        true
    }
}

/// What a request requires and we do not know, as `Unsupported` says it (RFC 3261 §8.2.2.3); empty when all is known.
pub(crate) fn unsupported(headers: &Headers) -> String {
    let known = |tag: &str| SUPPORTED.split(", ").any(|own| own.eq_ignore_ascii_case(tag));
    let unknown: Vec<&str> =
        headers.list("Require").filter(|tag| !known(tag)).take(MAX_UNSUPPORTED).collect();
    unknown.join(", ")
}

/// Whether a caller takes session descriptions in our answer (RFC 3261 §20.1): when it says nothing, it does.
fn accepts_sdp(headers: &Headers) -> bool {
    if headers.get("Accept").is_none() {
        return true;
    }
    headers.list("Accept").any(|range| {
        let kind = range.split(';').next().unwrap_or("").trim();
        ["application/sdp", "application/*", "*/*"].iter().any(|ours| kind.eq_ignore_ascii_case(ours))
    })
}
