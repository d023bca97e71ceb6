//! What all sessions share: transactions, timers, outputs, randomness (RFC 3261 §17, §18).
//!
//! Owns the way from a message to the wire and back to the transaction that waits for it. Never knows what a session is
//! about: a transaction has an owner, and that is all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use crate::headers::NameAddr;
use crate::message::{Headers, Method, Request, Response};
use crate::parse::Core;
use crate::route::Route;
use crate::transaction::client::{Client, Due as ClientDue};
use crate::transaction::server::{Due as ServerDue, Server};
use crate::transaction::{ClientKey, ClientTx, ServerKey, ServerTx, Table, Timetable, TxId};
use crate::uri::Host;
use crate::{Config, Peer, SessionEvent, SessionId, Transmit, Transport};

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Client(TxId),
    Server(TxId),
    Session(SessionId),
    /// The memory of how a session's INVITE was answered.
    Memory(u64),
}

/// How an incoming INVITE was answered, for those who ask again.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) key: (String, String),
    pub(crate) seq: u32,
    /// The final refusal with its further headers; `None` while there is none, and when the call was taken.
    pub(crate) refusal: Option<(Response, String)>,
}

/// Why a request of ours will not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    TimedOut,
    Transport,
}

pub(crate) struct Stack {
    pub(crate) config: Config,
    rng: ChaCha8Rng,
    /// Makes the tags of answers that leave no trace, the same for each repetition of a request.
    secret: [u8; 16],
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<(SessionId, SessionEvent)>,
    pub(crate) clients: Table<ClientKey, ClientTx>,
    pub(crate) servers: Table<ServerKey, ServerTx>,
    pub(crate) memories: Table<(String, String), Memory>,
    pub(crate) deadlines: Timetable<Due>,
    /// Live client transactions by owner.
    owned: BTreeMap<SessionId, usize>,
    /// Client transactions by whom they were sent to.
    by_peer: BTreeSet<(Peer, TxId)>,
    /// Client transactions without a final response.
    waiting: usize,
    route: Route,
    next_tx: TxId,
}

impl Stack {
    pub(crate) fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut secret = [0; 16];
        rng.fill_bytes(&mut secret);
        Self {
            config,
            rng,
            secret,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            clients: Table::default(),
            servers: Table::default(),
            memories: Table::default(),
            deadlines: Timetable::default(),
            owned: BTreeMap::new(),
            by_peer: BTreeSet::new(),
            waiting: 0,
            route: Route::default(),
            next_tx: 0,
        }
    }

    /// `bytes` random bytes in hexadecimal.
    pub(crate) fn token(&mut self, bytes: usize) -> String {
        let mut out = String::with_capacity(bytes * 2);
        for _ in 0..bytes.div_ceil(4) {
            out.push_str(&format!("{:08x}", self.rng.next_u32()));
        }
        out.truncate(bytes * 2);
        out
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.rng.next_u32() % bound
    }

    pub(crate) fn is_full(&self) -> bool {
        self.clients.len() + self.servers.len() >= self.config.max_transactions
    }

    pub(crate) fn send(&mut self, to: Peer, bytes: Bytes) {
        self.transmits.push_back(Transmit { to, bytes });
    }

    /// How many requests of a session still wait or linger.
    pub(crate) fn owned_by(&self, session: SessionId) -> usize {
        self.owned.get(&session).copied().unwrap_or(0)
    }

    /// Requests of ours that nobody has answered yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn route_mut(&mut self) -> &mut Route {
        &mut self.route
    }

    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    fn via(&self, peer: Peer, branch: &str) -> String {
        let local = crate::route::local(&self.config, peer);
        let host = Host::Addr(local.ip());
        format!("SIP/2.0/{} {host}:{};branch={branch};rport", peer.transport.via_name(), local.port())
    }

    /// Sends a request and begins its transaction. The request has no `Via` yet.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        owner: SessionId,
        mut request: Request,
        seq: u32,
        peer: Peer,
    ) -> TxId {
        let branch = format!("z9hG4bK{}", self.token(12));
        let via = self.via(peer, &branch);
        request.headers.push_front("Via", via);
        self.start_with_branch(now, owner, request, seq, peer, branch)
    }

    /// The same request by another way: what its `Via` says must be true (RFC 3261 §18.1.1).
    fn rerouted(&self, request: &mut Request, branch: &str, peer: Peer) -> Bytes {
        let via = self.via(peer, branch);
        request.headers.set_first("Via", via);
        request.to_bytes()
    }

    fn start_with_branch(
        &mut self,
        now: Instant,
        owner: SessionId,
        mut request: Request,
        seq: u32,
        mut peer: Peer,
        branch: String,
    ) -> TxId {
        self.next_tx += 1;
        let id = self.next_tx;
        let mut wire = request.to_bytes();
        let invite = request.method == Method::Invite;
        // A CANCEL goes the way of its INVITE, whatever its size.
        let may_move = self.config.large_by_tcp && request.method != Method::Cancel;
        let by_size = may_move && self.route.moves_to_tcp(now, peer, wire.len());
        if by_size {
            peer.transport = Transport::Tcp;
            wire = self.rerouted(&mut request, &branch, peer);
        }
        let machine = Client::new(now, self.config.timers, invite, peer.transport.is_reliable());
        let key = ClientKey { branch, method: request.method.clone() };
        self.deadlines.set(Due::Client(id), machine.deadline());
        self.send(peer, wire.clone());
        *self.owned.entry(owner).or_default() += 1;
        let tx = ClientTx { key: key.clone(), machine, peer, by_size, request, wire, ack: None, owner, seq };
        self.clients.insert(id, key, tx);
        self.by_peer.insert((peer, id));
        self.waiting += 1;
        id
    }

    /// Sends a CANCEL for an INVITE of ours: the same branch, Request-URI and route (RFC 3261 §9.1).
    pub(crate) fn cancel(&mut self, now: Instant, invite: TxId, reason: Option<String>) {
        let Some(tx) = self.clients.get(invite) else { return };
        let (owner, seq, peer, branch) = (tx.owner, tx.seq, tx.peer, tx.key.branch.clone());
        let mut cancel = follow_up(&tx.request, &Method::Cancel, seq, None);
        cancel.headers.push("User-Agent", self.config.user_agent.clone());
        if let Some(reason) = reason {
            cancel.headers.push("Reason", reason);
        }
        self.start_with_branch(now, owner, cancel, seq, peer, branch);
    }

    /// Sends the ACK of a 2xx, which is no transaction; gives back what was sent, for the next 2xx.
    pub(crate) fn send_ack(&mut self, mut ack: Request, peer: Peer) -> Bytes {
        let branch = format!("z9hG4bK{}", self.token(12));
        let via = self.via(peer, &branch);
        ack.headers.push_front("Via", via);
        let bytes = ack.to_bytes();
        self.send(peer, bytes.clone());
        bytes
    }

    /// Forgets a request of ours, whatever it waits for.
    fn end_client(&mut self, id: TxId) -> Option<ClientTx> {
        self.deadlines.set(Due::Client(id), None);
        let tx = self.clients.remove(id, |tx| &tx.key)?;
        self.by_peer.remove(&(tx.peer, id));
        if let Some(count) = self.owned.get_mut(&tx.owner) {
            *count -= 1;
            if *count == 0 {
                self.owned.remove(&tx.owner);
            }
        }
        Some(tx)
    }

    /// Lets an INVITE of ours wait for `64*T1` more and no longer.
    pub(crate) fn limit_client(&mut self, now: Instant, id: TxId) {
        let patience = self.config.timers.patience();
        let Some(tx) = self.clients.get_mut(id) else { return };
        tx.machine.limit(now + patience);
        let deadline = tx.machine.deadline();
        self.deadlines.set(Due::Client(id), deadline);
    }

    /// Gives a response to its transaction; tells whose it is and whether the owner is to hear of it.
    pub(crate) fn take_response(
        &mut self,
        now: Instant,
        core: &Core,
        response: &Response,
    ) -> Option<(TxId, SessionId, bool)> {
        let key = ClientKey { branch: core.via.branch()?.to_owned(), method: core.cseq.method.clone() };
        let id = self.clients.find(&key)?;
        let tx = self.clients.get_mut(id)?;
        let waited = tx.machine.waits();
        let verdict = tx.machine.response(now, response.code);
        if waited && !tx.machine.waits() {
            self.waiting -= 1;
        }
        let (owner, peer) = (tx.owner, tx.peer);
        if verdict.ack {
            let ack = tx.ack.get_or_insert_with(|| {
                follow_up(&tx.request, &Method::Ack, tx.seq, response.headers.get("To")).to_bytes()
            });
            let ack = ack.clone();
            self.send(peer, ack);
        }
        let deadline = self.clients.get(id).and_then(|tx| tx.machine.deadline());
        self.deadlines.set(Due::Client(id), deadline);
        Some((id, owner, verdict.deliver))
    }

    /// A deadline of a request of ours. A failure that the owner must hear of comes back with the transaction, which has ended.
    pub(crate) fn client_due(&mut self, now: Instant, id: TxId) -> Option<(ClientTx, Option<Failure>)> {
        let tx = self.clients.get_mut(id)?;
        let due = tx.machine.timeout(now);
        let (deadline, again) = (tx.machine.deadline(), (tx.peer, tx.wire.clone()));
        match due {
            ClientDue::Nothing => {}
            ClientDue::Retransmit => self.send(again.0, again.1),
            ClientDue::TimedOut => {
                self.waiting -= 1;
                return self.end_client(id).map(|tx| (tx, Some(Failure::TimedOut)));
            }
            ClientDue::Forgotten => return self.end_client(id).map(|tx| (tx, None)),
        }
        self.deadlines.set(Due::Client(id), deadline);
        None
    }

    /// Requests of ours that wait for a peer which cannot be reached. Those that went by TCP for their size alone are
    /// sent by UDP instead.
    pub(crate) fn unreachable(&mut self, now: Instant, peer: Peer) -> Vec<(TxId, ClientTx)> {
        let concerned = self.by_peer.range((peer, TxId::MIN)..=(peer, TxId::MAX));
        let concerned: Vec<TxId> = concerned.map(|(_, id)| *id).collect();
        let mut failed = Vec::new();
        for id in concerned {
            let Some(tx) = self.clients.get_mut(id) else { continue };
            if !tx.machine.unreachable() {
                continue;
            }
            if tx.by_size {
                self.back_to_udp(now, id);
                continue;
            }
            self.waiting -= 1;
            failed.extend(self.end_client(id).map(|tx| (id, tx)));
        }
        failed
    }

    /// Sends a large request by UDP after all, under the branch that it had.
    fn back_to_udp(&mut self, now: Instant, id: TxId) {
        let Some(tx) = self.clients.get(id) else { return };
        let (mut request, branch, before) = (tx.request.clone(), tx.key.branch.clone(), tx.peer);
        let peer = Peer { transport: Transport::Udp, ..before };
        self.route.refused_tcp(now, peer.addr);
        let wire = self.rerouted(&mut request, &branch, peer);
        let machine = Client::new(now, self.config.timers, request.method == Method::Invite, false);
        self.deadlines.set(Due::Client(id), machine.deadline());
        if let Some(tx) = self.clients.get_mut(id) {
            (tx.peer, tx.by_size, tx.request, tx.wire, tx.machine) =
                (peer, false, request, wire.clone(), machine);
        }
        self.by_peer.remove(&(before, id));
        self.by_peer.insert((peer, id));
        self.send(peer, wire);
    }

    /// Begins to serve a request.
    pub(crate) fn serve(&mut self, owner: SessionId, core: &Core, request: &Request, peer: Peer) -> TxId {
        self.next_tx += 1;
        let id = self.next_tx;
        let key = ServerKey::of(core, &request.method);
        let machine =
            Server::new(self.config.timers, request.method == Method::Invite, peer.transport.is_reliable());
        let request = Request { body: Bytes::new(), ..request.clone() };
        let tx = ServerTx { key: key.clone(), machine, peer, request, last: None, owner };
        self.servers.insert(id, key, tx);
        id
    }

    /// Sends a response to a request that we serve; gives back its bytes, or `None` when there was a final one already.
    pub(crate) fn respond(&mut self, now: Instant, id: TxId, response: &Response) -> Option<Bytes> {
        let tx = self.servers.get_mut(id)?;
        if !tx.machine.respond(now, response.code) {
            return None;
        }
        let bytes = response.to_bytes();
        tx.last = Some(bytes.clone());
        let (peer, deadline) = (tx.peer, tx.machine.deadline());
        self.deadlines.set(Due::Server(id), deadline);
        self.send(peer, bytes.clone());
        Some(bytes)
    }

    /// Sends the last response again, if the exchange still answers for it.
    pub(crate) fn respond_again(&mut self, id: TxId) {
        let Some(tx) = self.servers.get(id).filter(|tx| tx.machine.retransmitted()) else { return };
        if let Some(bytes) = tx.last.clone() {
            self.send(tx.peer, bytes);
        }
    }

    pub(crate) fn server_due(&mut self, now: Instant, id: TxId) {
        let Some(tx) = self.servers.get_mut(id) else { return };
        let due = tx.machine.timeout(now);
        let deadline = tx.machine.deadline();
        match due {
            ServerDue::Nothing => {}
            ServerDue::Retransmit => self.respond_again(id),
            ServerDue::Forgotten => {
                self.servers.remove(id, |tx| &tx.key);
            }
        }
        self.deadlines.set(Due::Server(id), deadline);
    }

    /// A response with all that must be repeated from the request (RFC 3261 §8.2.6).
    pub(crate) fn response(&self, request: &Headers, code: u16, tag: &str) -> Response {
        let mut response = Response::new(code);
        let headers = &mut response.headers;
        headers.copy(request, "Via");
        headers.push("From", request.get("From").unwrap_or_default());
        let to = request.get("To").unwrap_or_default();
        headers.push("To", if code == 100 { to.to_owned() } else { tagged(to, tag) });
        headers.push("Call-ID", request.get("Call-ID").unwrap_or_default());
        headers.push("CSeq", request.get("CSeq").unwrap_or_default());
        headers.push("Server", self.config.user_agent.clone());
        response
    }

    /// A tag that repeats for a repeated request and that nobody else can foretell.
    pub(crate) fn stateless_tag(&self, request: &Headers) -> String {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        for name in ["Call-ID", "CSeq", "From"] {
            hash.update(request.get(name).unwrap_or_default());
            hash.update([0]);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// An ACK with the key of an INVITE that we serve. True when it was the one of a refusal.
    pub(crate) fn acknowledged(&mut self, now: Instant, id: TxId) -> bool {
        let Some(tx) = self.servers.get_mut(id) else { return false };
        let absorbed = tx.machine.acknowledged(now);
        let deadline = tx.machine.deadline();
        self.deadlines.set(Due::Server(id), deadline);
        absorbed
    }

    /// Our `Contact`: the user part that the other side knows us by, at our address.
    pub(crate) fn contact(&self, user: Option<&str>, peer: Peer) -> String {
        let user = user.map_or_else(String::new, |user| format!("{user}@"));
        let transport = match peer.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        };
        let local = crate::route::local(&self.config, peer);
        format!("<sip:{user}{}:{}{transport}>", Host::Addr(local.ip()), local.port())
    }

    /// Forgets how an INVITE was answered.
    pub(crate) fn forget(&mut self, id: u64) {
        self.deadlines.set(Due::Memory(id), None);
        self.memories.remove(id, |memory| &memory.key);
    }

    /// Notes the final answer to a session's INVITE. It is forgotten after `64*T1`.
    pub(crate) fn remember(&mut self, now: Instant, session: SessionId, refusal: Option<(Response, String)>) {
        if let Some(memory) = self.memories.get_mut(session.0) {
            memory.refusal = refusal;
            self.deadlines.set(Due::Memory(session.0), Some(now + self.config.timers.patience()));
        }
    }
}

/// A `To` with our tag, unless it has one: otherwise as it was written, since some compare the text.
fn tagged(to: &str, tag: &str) -> String {
    match to.parse::<NameAddr>() {
        Ok(address) if address.tag().is_some() => to.to_owned(),
        Ok(address) if address.params.has("tag") => address.with_tag(tag).to_string(),
        Ok(_) | Err(_) => format!("{};tag={tag}", to.trim_end_matches([';', ' ', '\t'])),
    }
}

/// A request that belongs to one sent before: the ACK of a refusal, or a CANCEL (RFC 3261 §9.1, §17.1.1.3). `to` is that of
/// the response.
fn follow_up(request: &Request, method: &Method, seq: u32, to: Option<&str>) -> Request {
    let mut next = Request::new(method.clone(), request.uri.clone());
    let old = &request.headers;
    next.headers.push("Via", old.get("Via").unwrap_or_default());
    next.headers.push("Max-Forwards", "70");
    next.headers.copy(old, "Route");
    next.headers.push("From", old.get("From").unwrap_or_default());
    next.headers.push("To", to.or(old.get("To")).unwrap_or_default());
    next.headers.push("Call-ID", old.get("Call-ID").unwrap_or_default());
    next.headers.push("CSeq", format!("{seq} {method}"));
    next
}
