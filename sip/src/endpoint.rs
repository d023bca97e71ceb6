//! The root: takes datagrams apart, finds whom they concern, and answers what concerns nobody (RFC 3261 §8.2, §18).
//!
//! Owns all sessions and the shared [`Stack`]. Requests from strangers are answered without leaving a trace: no transaction,
//! no dialog, and the same answer each time. Never blocks, reads a clock or draws randomness but from its seed.

mod errands;
mod outside;

pub(crate) use outside::unsupported;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::message::{Message, Method, Request, Response};
use crate::parse::{Core, ParseError, parse_with_core};
use crate::session::{Call, Session};
use crate::stack::{Due, Stack};
use crate::transaction::{ServerKey, TxId};
use crate::{Config, InviteError, Network, Peer, SessionEvent, SessionId, Target, Transmit};
use errands::Errand;

pub use errands::{ErrandEvent, ErrandId};

/// How much an endpoint holds. All are zero some time (`64*T1` and a little) after the last call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sessions, with those that are over but have messages on the wire.
    pub sessions: usize,
    /// Transactions of ours and of others.
    pub transactions: usize,
    /// Requests of ours that nobody has answered yet. Who stops before they are 0 leaves far ends in calls that are
    /// over for us.
    pub waiting: usize,
    /// INVITEs that are remembered only to answer them alike if they come again.
    pub remembered: usize,
}

/// A SIP user agent: see the [crate] for its five verbs.
pub struct Endpoint {
    stack: Stack,
    calls: BTreeMap<SessionId, Call>,
    /// By Call-ID and our tag.
    dialogs: BTreeMap<(String, String), SessionId>,
    /// Requests of ours outside of any dialog, under numbers of their own.
    errands: BTreeMap<SessionId, Errand>,
    errand_events: errands::Events,
    next_session: u64,
    /// Sessions whose end has not been told: what `max_sessions` limits.
    live: usize,
    /// The last who called and may not.
    stranger: Option<Peer>,
}

impl Endpoint {
    /// An endpoint without sessions. The seed decides every tag, branch, Call-ID and back-off.
    pub fn new(config: Config, rng_seed: [u8; 32]) -> Self {
        Self {
            stack: Stack::new(config, rng_seed),
            calls: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            errands: BTreeMap::new(),
            errand_events: errands::Events::new(),
            next_session: 0,
            live: 0,
            stranger: None,
        }
    }

    /// Calls someone. `offer` is the body, `application/sdp`.
    ///
    /// # Errors
    /// [`InviteError`], and nothing is sent.
    pub fn invite(
        &mut self,
        now: Instant,
        mut target: Target,
        offer: Bytes,
    ) -> Result<SessionId, InviteError> {
        if self.is_full() {
            return Err(InviteError::Busy);
        }
        if let Some(name) = target.server_name.take() {
            target.peer = self.named(target.peer, &name);
        }
        let id = self.new_session_id();
        let call = Call::outgoing(now, &mut self.stack, id, target, offer)?;
        self.add(call);
        Ok(id)
    }

    /// Tells a peer another address of ours in `Via` and `Contact` from here on; `None`: the usual one, also where its
    /// network is told another.
    pub fn advertise(&mut self, peer: IpAddr, ours: Option<IpAddr>) {
        let (peer, config) = (peer.to_canonical(), &mut self.stack.config);
        if ours.is_some() || config.told_networks.iter().any(|(net, _)| net.contains(peer)) {
            config.told.insert(peer, ours);
        } else {
            config.told.remove(&peer);
        }
    }

    /// Tells peers of these networks another address of ours from here on, and no other networks; the first that holds a
    /// peer counts, and what was said of the peer alone counts before all of them.
    pub fn advertise_in(&mut self, networks: Vec<(Network, IpAddr)>) {
        self.stack.config.told_networks = networks;
    }

    /// A session that is not over; `None` when it is.
    pub fn session(&mut self, id: SessionId) -> Option<Session<'_>> {
        let call_id = self.calls.get(&id).filter(|call| !call.is_told())?.dialog.call_id.clone();
        Some(Session::new(self, id, call_id))
    }

    /// Takes one datagram, or one message that a [`crate::frame::Framer`] cut from a stream.
    pub fn handle_datagram(&mut self, now: Instant, from: Peer, bytes: &[u8]) {
        match parse_with_core(bytes) {
            Ok((Message::Response(response), core)) => self.response(now, &core, &response),
            // On a stream nothing else says where a message ends (RFC 3261 §18.3).
            Ok((Message::Request(Request { headers, .. }), _))
                if from.transport.is_reliable() && headers.get("Content-Length").is_none() =>
            {
                self.refuse_malformed(from, 400, "Missing Content-Length", headers);
            }
            Ok((Message::Request(request), core)) => self.request(now, from, request, core),
            Err(ParseError::Refused { code, why, headers }) => {
                self.refuse_malformed(from, code, why, *headers);
            }
            Err(ParseError::Empty | ParseError::TooLarge | ParseError::Malformed(_)) => {}
        }
    }

    /// The transport cannot reach a peer (an ICMP error, a lost connection): what waits for it fails at once.
    pub fn handle_transport_error(&mut self, now: Instant, to: Peer) {
        for (id, tx) in self.stack.unreachable(now, to) {
            if self.is_errand(tx.owner) {
                self.errand_failed(now, tx.owner, crate::stack::Failure::Transport);
            }
            self.with(tx.owner, |call, stack| {
                call.failed(now, stack, id, &tx, crate::stack::Failure::Transport);
            });
        }
    }

    /// Does what is due. Call it when [`Endpoint::poll_timeout`] says so; too early or too late does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.stack.deadlines.pop(now) {
            match due {
                Due::Client(id) => self.client_due(now, id),
                Due::Server(id) => self.stack.server_due(now, id),
                Due::Session(id) if self.is_errand(id) => self.errand_due(now, id),
                Due::Session(id) => {
                    self.with(id, |call, stack| call.timeout(now, stack));
                }
                Due::Memory(id) => {
                    self.stack.memories.remove(id, |memory| &memory.key);
                }
            }
        }
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.stack.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<(SessionId, SessionEvent)> {
        self.stack.events.pop_front()
    }

    /// When [`Endpoint::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.stack.deadlines.first()
    }

    /// The same peer under a host name, which its certificate must show (RFC 5922 §7.1).
    pub fn named(&mut self, peer: Peer, name: &str) -> Peer {
        Peer { name: self.stack.route_mut().id_of(name), ..peer }
    }

    /// The name that a peer's certificate must show; `None`: its address.
    pub fn server_name(&self, peer: Peer) -> Option<&str> {
        self.stack.route().name_of(peer.name)
    }

    /// How much is held.
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.calls.len(),
            transactions: self.stack.clients.len() + self.stack.servers.len(),
            waiting: self.stack.waiting(),
            remembered: self.stack.memories.len(),
        }
    }

    fn is_full(&self) -> bool {
        self.live >= self.stack.config.max_sessions || self.stack.is_full()
    }

    fn new_session_id(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }

    fn add(&mut self, call: Call) {
        let id = call.id;
        self.dialogs.insert((call.dialog.call_id.clone(), call.dialog.local_tag().to_owned()), id);
        self.calls.insert(id, call);
        self.live += 1;
        self.settle(id);
    }

    /// Lets a session act, then looks after its deadline and whether it can go.
    pub(crate) fn with<R>(
        &mut self,
        id: SessionId,
        act: impl FnOnce(&mut Call, &mut Stack) -> R,
    ) -> Option<R> {
        let call = self.calls.get_mut(&id)?;
        let before = call.is_told();
        let result = act(call, &mut self.stack);
        if !before && call.is_told() {
            self.live -= 1;
        }
        self.settle(id);
        Some(result)
    }

    fn settle(&mut self, id: SessionId) {
        let Some(call) = self.calls.get(&id) else { return };
        if call.is_done(&self.stack) {
            self.dialogs.remove(&(call.dialog.call_id.clone(), call.dialog.local_tag().to_owned()));
            self.calls.remove(&id);
            self.stack.deadlines.set(Due::Session(id), None);
        } else {
            self.stack.deadlines.set(Due::Session(id), call.deadline());
        }
    }

    fn client_due(&mut self, now: Instant, id: TxId) {
        let Some((tx, failure)) = self.stack.client_due(now, id) else { return };
        if let Some(failure) = failure.filter(|_| self.is_errand(tx.owner)) {
            return self.errand_failed(now, tx.owner, failure);
        }
        self.with(tx.owner, |call, stack| {
            if let Some(failure) = failure {
                call.failed(now, stack, id, &tx, failure);
            }
        });
    }

    fn response(&mut self, now: Instant, core: &Core, response: &Response) {
        // A response that more than one Via claims was never meant for a user agent (RFC 3261 §8.1.3.3).
        if response.headers.list("Via").nth(1).is_some() {
            return;
        }
        let Some((tx, owner, deliver)) = self.stack.take_response(now, core, response) else { return };
        if deliver && self.is_errand(owner) {
            return self.errand_response(now, owner, response);
        }
        if deliver {
            self.with(owner, |call, stack| call.response(now, stack, tx, core, response));
        }
    }

    fn request(&mut self, now: Instant, from: Peer, mut request: Request, mut core: Core) {
        let key = ServerKey::of(&core, &request.method);
        let reply = outside::stamp(&mut request.headers, &mut core, from);
        if let Some(id) = self.stack.servers.find(&key) {
            if request.method != Method::Ack {
                return self.stack.respond_again(id);
            }
            let absorbed = self.stack.acknowledged(now, id);
            if absorbed {
                return;
            }
        }
        if request.method == Method::Cancel {
            return self.cancel(now, from, &request, &core, reply);
        }
        let Some(tag) = core.to.tag() else { return self.outside(now, from, &request, &core, reply) };
        let known = self.dialogs.get(&(core.call_id.clone(), tag.to_owned())).copied();
        let owner = known.filter(|id| {
            self.calls.get(id).is_some_and(|call| {
                call.has_remote_tag(core.from.tag().unwrap_or("")) && call.trusts(from.addr.ip())
            })
        });
        match owner {
            Some(id) if request.method == Method::Ack => {
                self.with(id, |call, stack| call.acknowledged(now, stack, &core, &request));
            }
            Some(_) if self.stack.is_full() && request.method != Method::Bye => {
                self.overloaded(&request, reply);
            }
            Some(id) => {
                self.with(id, |call, stack| call.request(now, stack, &core, &request, reply));
            }
            None => self.outside(now, from, &request, &core, reply),
        }
    }

    /// A CANCEL: matched by the branch of the INVITE that it is about (RFC 3261 §9.2).
    fn cancel(&mut self, now: Instant, from: Peer, request: &Request, core: &Core, reply: Peer) {
        let key = ServerKey::of(core, &Method::Invite);
        let found =
            self.stack.servers.find(&key).and_then(|tx| Some((tx, self.stack.servers.get(tx)?.owner)));
        let trusted =
            |owner: &SessionId| self.calls.get(owner).is_none_or(|call| call.trusts(from.addr.ip()));
        let Some((tx, owner)) = found.filter(|(_, owner)| trusted(owner)) else {
            return self.answer(request, reply, 481, &[]);
        };
        self.answer(request, reply, 200, &[]);
        self.with(owner, |call, stack| call.cancelled(now, stack, tx, &request.headers));
    }
}
