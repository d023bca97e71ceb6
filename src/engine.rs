//! The engine: one pure state machine that owns the SIP endpoint and every live call. It takes inputs (datagrams,
//! what the media heard, commands, time) and gives outputs (datagrams, media commands, events). No socket, clock,
//! database or task: [`driver`] has those. One input, then drain all outputs, then the next input.

pub mod driver;

mod call;
mod gates;
mod gather;
mod inbound;
mod ladder;
mod opening;
mod outcome;
mod ports;
mod target;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use media::{BridgeId, LegSettings};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use sip::{SessionEvent, SessionId};

use crate::model::call::{Accepted, CallOrder, Command, CommandError, Overheard, TrunkPlan};
use crate::model::cidr::Cidr;
use crate::model::event::Stamped;
use crate::model::incoming::{Directory, Incoming};
use crate::model::ladder::{CallName, Ladder};
use crate::model::trunk::{TrunkNews, TrunkWatch};
use crate::model::{CallId, Now};
use call::{Call, Ctx, SecondStep, Seeds, Step};
use gates::Gates;
use inbound::Desk;
use ladder::Ladders;
use ports::Ports;
use target::target;
use watch::Watches;

/// A network whose hosts reach us without the router that hides us from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNet {
    /// The network.
    pub net: Cidr,
    /// Our address in it, for Via, Contact and From.
    pub signalling: IpAddr,
    /// And for session descriptions.
    pub media: IpAddr,
}

/// What the engine needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What From headers say.
    pub sip_address: IpAddr,
    /// What From headers say to trunks of the other IP version, where there are such.
    pub sip_address_other: Option<IpAddr>,
    /// What session descriptions say.
    pub media_address: IpAddr,
    /// What session descriptions say to trunks of the other IP version, where there are such.
    pub media_address_other: Option<IpAddr>,
    /// Networks that are told our own addresses in place of the four above.
    pub local_nets: Vec<LocalNet>,
    /// Where RTP sockets are bound.
    pub rtp_bind: IpAddr,
    /// First and last RTP port.
    pub rtp_ports: (u16, u16),
    /// Each callee's leg.
    pub leg: LegSettings,
    /// Where recordings are written.
    pub recordings: PathBuf,
    /// Playbacks waiting on one call.
    pub playback_queue_max: usize,
    /// Live calls at once.
    pub max_calls: usize,
    /// Answering-machine detection.
    pub amd: media::AmdConfig,
}

impl Settings {
    /// What From headers say to a trunk.
    fn sip_address_for(&self, trunk: IpAddr) -> IpAddr {
        let local = self.local(trunk).map(|local| local.signalling);
        local.unwrap_or_else(|| of_version(self.sip_address, self.sip_address_other, trunk))
    }

    /// What session descriptions say to a trunk.
    fn media_address_for(&self, trunk: IpAddr) -> IpAddr {
        let local = self.local(trunk).map(|local| local.media);
        local.unwrap_or_else(|| of_version(self.media_address, self.media_address_other, trunk))
    }

    /// What Via and Contact say in whole networks: those of a trunk with an address of its own, the narrowest first, then
    /// those where ours is another.
    fn told_networks(&self, directory: &Directory) -> Vec<(sip::Network, IpAddr)> {
        let of_trunk = |trunk: &Arc<TrunkPlan>| {
            let own = trunk.profile.external_address;
            let networks = own.map(|own| trunk.profile.networks().into_iter().map(move |net| (net, own)));
            networks.into_iter().flatten().collect::<Vec<_>>()
        };
        let mut networks: Vec<_> = directory.trunks().iter().flat_map(of_trunk).collect();
        networks.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix()));
        let ours = self.local_nets.iter().map(|local| (local.net, local.signalling));
        let network = |net: Cidr| sip::Network { base: net.base(), prefix: net.prefix() };
        networks.into_iter().chain(ours).map(|(net, ours)| (network(net), ours)).collect()
    }

    fn local(&self, peer: IpAddr) -> Option<&LocalNet> {
        self.local_nets.iter().find(|local| local.net.contains(peer))
    }

    /// What Via and Contact say to a peer, where that is not what they say to all: `own`, the trunk's, or ours in its
    /// network.
    fn advertised(&self, own: Option<IpAddr>, peer: IpAddr) -> Option<IpAddr> {
        own.or_else(|| self.local(peer).map(|local| local.signalling))
    }
}

/// That of two addresses which a peer of this address can reach.
fn of_version(first: IpAddr, other: Option<IpAddr>, peer: IpAddr) -> IpAddr {
    let same = first.is_ipv4() == peer.to_canonical().is_ipv4();
    other.filter(|_| !same).unwrap_or(first)
}

/// What happens to the engine from outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A SIP message came in.
    Datagram(sip::Peer, &'a [u8]),
    /// A SIP message came in for which there is no time.
    Excess(sip::Peer, &'a [u8]),
    /// A message could not be delivered there.
    Unreachable(sip::Peer),
    /// A media worker reports.
    Heard(media::Event),
    /// A deadline has passed.
    Timeout,
}

/// What the engine wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this SIP message.
    Transmit(sip::Transmit),
    /// Give this to the media worker of its bridge.
    Media(media::Command),
    /// This happened.
    Event(Stamped),
    /// For whoever attends the call.
    Overheard(CallId, Overheard),
    /// This became of a trunk (its endpoint name) apart from any call.
    Trunk(String, TrunkNews),
    /// Somebody calls: [`Engine::receive`] says what becomes of it.
    Incoming(Incoming),
}

/// The engine. See the module's words.
pub struct Engine {
    settings: Settings,
    endpoint: sip::Endpoint,
    calls: BTreeMap<CallId, Call>,
    sessions: BTreeMap<SessionId, CallId>,
    /// The session of each call's present attempt.
    current: BTreeMap<CallId, SessionId>,
    /// The session of each call's second party.
    second: BTreeMap<CallId, SessionId>,
    bridges: BTreeMap<BridgeId, CallId>,
    ports: Ports,
    gates: Gates,
    watches: Watches,
    desk: Desk,
    ladders: Ladders,
    deadlines: BTreeSet<(Instant, CallId)>,
    outputs: VecDeque<Output>,
    next_bridge: u64,
    live: usize,
    rng: ChaCha8Rng,
}

impl Engine {
    /// An engine without calls. All its randomness comes from `seed`.
    pub fn new(settings: Settings, sip: sip::Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let (mut sip_seed, mut nonce_key) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut sip_seed);
        rng.fill_bytes(&mut nonce_key);
        let (min, max) = settings.rtp_ports;
        let desk = Desk::new(nonce_key, sip.inbound_sha256);
        let mut endpoint = sip::Endpoint::new(sip, sip_seed);
        endpoint.advertise_in(settings.told_networks(&Directory::default()));
        Self {
            settings,
            endpoint,
            calls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            current: BTreeMap::new(),
            second: BTreeMap::new(),
            bridges: BTreeMap::new(),
            ports: Ports::new(min, max),
            gates: Gates::default(),
            watches: Watches::default(),
            desk,
            ladders: Ladders::default(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
            next_bridge: 1,
            live: 0,
            rng,
        }
    }

    /// Calls that have not ended.
    pub fn live_calls(&self) -> usize {
        self.live
    }

    /// Calls of which anything is left, sessions and transactions of the endpoint: all 0 some time after the last
    /// call, or something leaks.
    pub fn residue(&self) -> (usize, sip::Counts) {
        (self.calls.len(), self.endpoint.counts())
    }

    /// Takes a call and dials its first trunk.
    ///
    /// # Errors
    /// [`CommandError::Unavailable`] when no call or no RTP port is free; nothing has happened then.
    pub fn originate(&mut self, now: Now, order: Arc<CallOrder>) -> Result<(), CommandError> {
        let id = order.id;
        let call = self.new_call(now, order)?;
        self.calls.insert(id, call);
        self.with_call(now, id, Call::start);
        self.pump(now);
        Ok(())
    }

    /// A call with a bridge and a port, counted as live.
    fn new_call(&mut self, now: Now, order: Arc<CallOrder>) -> Result<Call, CommandError> {
        if self.live >= self.settings.max_calls || self.calls.contains_key(&order.id) {
            return Err(CommandError::Unavailable);
        }
        let port = self.ports.take(now.mono).ok_or(CommandError::Unavailable)?;
        let bridge = BridgeId(self.next_bridge);
        self.next_bridge += 1;
        // 63 bits: some far ends read the o= line into a signed integer.
        let mut keys = [0; 32];
        self.rng.fill_bytes(&mut keys);
        let seeds = Seeds { sdp_session: self.rng.next_u64() >> 1, media: self.rng.next_u64(), keys };
        self.bridges.insert(bridge, order.id);
        self.live += 1;
        Ok(Call::new(now, order, bridge, port, seeds))
    }

    /// Asks something of a live call.
    ///
    /// # Errors
    /// Why it was not taken; the call is unchanged then.
    pub fn command(&mut self, now: Now, id: CallId, command: Command) -> Result<Accepted, CommandError> {
        let answer = self.with_call(now, id, |call, ctx| call.command(ctx, command));
        self.pump(now);
        answer.unwrap_or(Err(CommandError::UnknownCall))
    }

    /// Keeps registrations at these trunks and asks for them now and then; at no others from here on.
    pub fn watch(&mut self, now: Now, mut trunks: Vec<TrunkWatch>) {
        for trunk in &mut trunks {
            let own = trunk.external_address;
            trunk.external_address = self.settings.advertised(own, trunk.hop.address.ip());
        }
        self.watches.set(now.mono, &mut self.endpoint, trunks);
        self.pump(now);
    }

    /// Hangs up every call: the server stops.
    pub fn shut_down(&mut self, now: Now) {
        let ids: Vec<CallId> = self.calls.keys().copied().collect();
        for id in ids {
            self.with_call(now, id, Call::shut_down);
        }
        self.pump(now);
    }

    /// Takes one input in. Drain [`Engine::poll_output`] after it.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Datagram(from, bytes) => {
                self.ladders.came(now, from, bytes);
                self.endpoint.handle_datagram(now.mono, from, bytes);
                self.note_strangers(now);
            }
            Input::Excess(from, bytes) => {
                self.endpoint.handle_excess(from, bytes);
                self.note_strangers(now);
            }
            Input::Unreachable(peer) => self.endpoint.handle_transport_error(now.mono, peer),
            Input::Heard(event) => {
                if let Some(id) = self.bridges.get(&event.bridge).copied() {
                    self.with_call(now, id, |call, ctx| call.heard(ctx, event.heard));
                }
            }
            Input::Timeout => {
                self.endpoint.handle_timeout(now.mono);
                let ours = self.settings.sip_address;
                let news = self.watches.timeout(now.mono, &mut self.endpoint, ours);
                self.outputs.extend(news.into_iter().map(|(trunk, news)| Output::Trunk(trunk, news)));
                self.refuse_forgotten(now);
                while let Some((at, id)) = self.deadlines.first().copied()
                    && at <= now.mono
                {
                    self.with_call(now, id, Call::timeout);
                }
            }
        }
        self.pump(now);
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let transmit = self.endpoint.poll_transmit()?;
        self.ladders.goes(&transmit);
        Some(Output::Transmit(transmit))
    }

    /// The name that the certificate of a peer must show on TLS.
    pub fn server_name(&self, peer: sip::Peer) -> Option<&str> {
        self.endpoint.server_name(peer)
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let calls = self.deadlines.first().map(|(at, _)| *at);
        let others = [self.endpoint.poll_timeout(), self.watches.deadline(), self.desk.deadline()];
        others.into_iter().chain([calls]).flatten().min()
    }

    /// Hands the endpoint's events to their calls until there are none.
    fn pump(&mut self, now: Now) {
        self.ladders.at(now);
        while let Some((id, event)) = self.endpoint.poll_errand() {
            if let Some((trunk, news)) = self.watches.heard(id, event) {
                self.outputs.push_back(Output::Trunk(trunk, news));
            }
        }
        while let Some((session, event)) = self.endpoint.poll_event() {
            let over = matches!(event, SessionEvent::Terminated(_));
            let owner = self.sessions.get(&session).copied();
            if over {
                self.sessions.remove(&session);
            }
            match owner {
                // An abandoned attempt's last words change nothing.
                Some(id) if self.current.get(&id) == Some(&session) => {
                    self.with_call(now, id, |call, ctx| call.signalled(ctx, event));
                }
                Some(id) if self.second.get(&id) == Some(&session) => {
                    self.with_call(now, id, |call, ctx| call.second_signalled(ctx, event));
                }
                Some(_) => {}
                None => self.at_the_door(now, session, event),
            }
        }
    }

    /// Lets one call work and performs its steps. A panic inside ends that call and no other.
    fn with_call<T>(
        &mut self,
        now: Now,
        id: CallId,
        work: impl FnOnce(&mut Call, &mut Ctx<'_>) -> T,
    ) -> Option<T> {
        let mut call = self.calls.remove(&id)?;
        if let Some(at) = call.deadline() {
            self.deadlines.remove(&(at, id));
        }
        let was_live = call.live();
        let mut steps = VecDeque::new();
        let (settings, gates) = (&self.settings, &mut self.gates);
        let mut ctx = Ctx { now, settings, gates, steps: &mut steps };
        let worked = catch_unwind(AssertUnwindSafe(|| work(&mut call, &mut ctx)));
        if worked.is_err() {
            tracing::error!(call = %id, "a call's state machine panicked; the call is ended");
            call.fail(&mut ctx);
        }
        while let Some(step) = steps.pop_front() {
            self.perform(now, &mut call, step, &mut steps);
        }
        if was_live && !call.live() {
            self.live = self.live.saturating_sub(1);
            self.ladders.over(now, id);
        }
        if call.finished() {
            self.ports.give_back(now.mono, call.port);
            self.bridges.remove(&call.bridge);
            self.current.remove(&id);
            self.second.remove(&id);
            if let Some(port) = call.second_port {
                self.ports.give_back(now.mono, port);
            }
        } else {
            if let Some(at) = call.deadline() {
                self.deadlines.insert((at, id));
            }
            self.calls.insert(id, call);
        }
        worked.ok()
    }

    fn perform(&mut self, now: Now, call: &mut Call, step: Step, steps: &mut VecDeque<Step>) {
        let id = call.order.id;
        match step {
            Step::Event(event) => {
                self.outputs.push_back(Output::Event(Stamped { call: id, at: now.wall, event }));
            }
            Step::Media(command) => self.outputs.push_back(Output::Media(command)),
            Step::NextPort => self.next_port(now, call, steps),
            Step::Second(step) => self.perform_second(now, call, step, steps),
            Step::Overheard(what) => self.outputs.push_back(Output::Overheard(id, what)),
            Step::Invite(trunk, offer) => self.invite(now, call, trunk, offer, steps),
            Step::HangUp(q850) => {
                let reason = Some(sip::Q850(q850));
                self.with_session(id, |session| session.hang_up(now.mono, reason));
            }
            Step::PickUp(sdp) => self.with_session(id, |session| session.answer(now.mono, sdp)),
            Step::AnswerOffer(sdp) => self.with_session(id, |session| session.answer_offer(now.mono, sdp)),
            Step::RefuseOffer(code) => self.with_session(id, |session| session.reject(now.mono, code, &[])),
        }
    }

    fn perform_second(&mut self, now: Now, call: &mut Call, step: SecondStep, steps: &mut VecDeque<Step>) {
        let id = call.order.id;
        let session = self.second.get(&id).copied();
        match step {
            SecondStep::Open => {
                // One that could not be opened is somebody else's.
                if let Some(port) = call.second_port.take() {
                    self.ports.give_back(now.mono, port);
                }
                if let Some(port) = self.ports.take(now.mono) {
                    call.second_port = Some(port);
                    self.outputs.push_back(Output::Media(call.open_second(&self.settings, port)));
                } else {
                    let mut ctx = Ctx { now, settings: &self.settings, gates: &mut self.gates, steps };
                    call.second_failed(&mut ctx, 0, "no RTP port");
                }
            }
            SecondStep::Invite(trunk, hop, offer) => {
                let order = call.second.as_ref().map(|second| Arc::clone(&second.order));
                if let Some(plan) = order.as_ref().and_then(|order| order.trunks.get(trunk)) {
                    self.advertise(plan);
                }
                let there = order.and_then(|order| target(&order, trunk, (hop, None), &self.settings));
                match there.and_then(|there| self.endpoint.invite(now.mono, there, offer).ok()) {
                    Some(session) => {
                        self.sessions.insert(session, id);
                        self.second.insert(id, session);
                        self.note_dialog(&call.order, session);
                    }
                    None => {
                        let mut ctx = Ctx { now, settings: &self.settings, gates: &mut self.gates, steps };
                        call.second_signalled(&mut ctx, SessionEvent::Terminated(no_invite()));
                    }
                }
            }
            SecondStep::HangUp(q850) => {
                if let Some(mut session) = session.and_then(|session| self.endpoint.session(session)) {
                    session.hang_up(now.mono, Some(sip::Q850(q850)));
                }
            }
            SecondStep::AnswerOffer(sdp) => {
                if let Some(mut session) = session.and_then(|session| self.endpoint.session(session)) {
                    session.answer_offer(now.mono, sdp);
                }
            }
            SecondStep::RefuseOffer(code) => {
                if let Some(mut session) = session.and_then(|session| self.endpoint.session(session)) {
                    session.reject(now.mono, code, &[]);
                }
            }
        }
    }

    /// What is said in this session is said about that call.
    fn note_dialog(&mut self, order: &CallOrder, session: SessionId) {
        if let Some(session) = self.endpoint.session(session) {
            self.ladders.own(order.id, &order.kaphila_id, session.call_id());
        }
    }

    /// The SIP messages of a call that is up, or ended no long time ago.
    pub fn ladder(&self, name: &CallName) -> Option<Ladder> {
        self.ladders.of(name)
    }

    /// From here on a trunk's ways are told that address of ours which is meant for them.
    fn advertise(&mut self, plan: &TrunkPlan) {
        for hop in &plan.hops {
            let peer = hop.address.ip();
            let ours = self.settings.advertised(plan.profile.external_address, peer);
            self.endpoint.advertise(peer, ours);
        }
    }

    fn next_port(&mut self, now: Now, call: &mut Call, steps: &mut VecDeque<Step>) {
        self.ports.give_back(now.mono, call.port);
        if let Some(port) = self.ports.take(now.mono) {
            call.port = port;
            self.outputs.push_back(Output::Media(call.open(&self.settings)));
        } else {
            call.fail(&mut Ctx { now, settings: &self.settings, gates: &mut self.gates, steps });
        }
    }

    fn with_session(&mut self, id: CallId, work: impl FnOnce(&mut sip::Session<'_>)) {
        let Some(session) = self.current.get(&id) else { return };
        if let Some(mut session) = self.endpoint.session(*session) {
            work(&mut session);
        }
    }

    fn invite(&mut self, now: Now, call: &mut Call, trunk: usize, offer: Bytes, steps: &mut VecDeque<Step>) {
        let id = call.order.id;
        if let Some(plan) = call.order.trunks.get(trunk) {
            self.advertise(plan);
        }
        let way = (call.hop(), call.redirect());
        let invited = match target(&call.order, trunk, way, &self.settings) {
            Some(target) => self.endpoint.invite(now.mono, target, offer).ok(),
            None => None,
        };
        if let Some(session) = invited {
            self.sessions.insert(session, id);
            self.current.insert(id, session);
            self.note_dialog(&call.order, session);
        } else {
            // The endpoint is full or the trunk unusable: to the call that is one more failed attempt.
            self.current.remove(&id);
            let mut ctx = Ctx { now, settings: &self.settings, gates: &mut self.gates, steps };
            call.signalled(&mut ctx, SessionEvent::Terminated(no_invite()));
        }
    }
}

/// What an attempt comes to that could not even be sent.
fn no_invite() -> sip::Termination {
    sip::Termination {
        by: sip::Side::Nobody,
        cause: sip::TerminationCause::Internal,
        q850: None,
        retry_after: None,
        headers: Vec::new(),
    }
}
