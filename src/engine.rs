//! The engine: one pure state machine that owns the SIP endpoint and every live call. It takes inputs (datagrams,
//! what the media heard, commands, time) and gives outputs (datagrams, media commands, events). No socket, clock,
//! database or task: [`driver`] has those. One input, then drain all outputs, then the next input.

pub mod driver;

mod call;
mod gather;
mod outcome;
mod ports;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::{BridgeId, LegSettings};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use sip::{SessionEvent, SessionId};

use crate::model::call::{Accepted, CallOrder, Command, CommandError};
use crate::model::event::Stamped;
use crate::model::{CallId, Now};
use call::{Call, Ctx, Seeds, Step};
use ports::Ports;

/// What the engine needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What From headers say.
    pub sip_address: IpAddr,
    /// What session descriptions say.
    pub media_address: IpAddr,
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

/// What happens to the engine from outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A SIP message came in.
    Datagram(sip::Peer, &'a [u8]),
    /// A datagram could not be delivered there.
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
}

/// The engine. See the module's words.
pub struct Engine {
    settings: Settings,
    endpoint: sip::Endpoint,
    calls: BTreeMap<CallId, Call>,
    sessions: BTreeMap<SessionId, CallId>,
    /// The session of each call's present attempt.
    current: BTreeMap<CallId, SessionId>,
    bridges: BTreeMap<BridgeId, CallId>,
    ports: Ports,
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
        let mut sip_seed = [0; 32];
        rng.fill_bytes(&mut sip_seed);
        let (min, max) = settings.rtp_ports;
        Self {
            settings,
            endpoint: sip::Endpoint::new(sip, sip_seed),
            calls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            current: BTreeMap::new(),
            bridges: BTreeMap::new(),
            ports: Ports::new(min, max),
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
        if self.live >= self.settings.max_calls || self.calls.contains_key(&order.id) {
            return Err(CommandError::Unavailable);
        }
        let port = self.ports.take(now.mono).ok_or(CommandError::Unavailable)?;
        let id = order.id;
        let bridge = BridgeId(self.next_bridge);
        self.next_bridge += 1;
        // 63 bits: some far ends read the o= line into a signed integer.
        let seeds = Seeds { sdp_session: self.rng.next_u64() >> 1, media: self.rng.next_u64() };
        self.bridges.insert(bridge, id);
        self.calls.insert(id, Call::new(now, order, bridge, port, seeds));
        self.live += 1;
        self.with_call(now, id, Call::start);
        self.pump(now);
        Ok(())
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
            Input::Datagram(from, bytes) => self.endpoint.handle_datagram(now.mono, from, bytes),
            Input::Unreachable(peer) => self.endpoint.handle_transport_error(now.mono, peer),
            Input::Heard(event) => {
                if let Some(id) = self.bridges.get(&event.bridge).copied() {
                    self.with_call(now, id, |call, ctx| call.heard(ctx, event.heard));
                }
            }
            Input::Timeout => {
                self.endpoint.handle_timeout(now.mono);
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
        self.endpoint.poll_transmit().map(Output::Transmit)
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let calls = self.deadlines.first().map(|(at, _)| *at);
        [calls, self.endpoint.poll_timeout()].into_iter().flatten().min()
    }

    /// Hands the endpoint's events to their calls until there are none.
    fn pump(&mut self, now: Now) {
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
                Some(_) => {}
                None => self.uninvited(now, session),
            }
        }
    }

    /// Inbound calls are not taken yet: 480, as for a number with nothing assigned.
    fn uninvited(&mut self, now: Now, session: SessionId) {
        if let Some(mut session) = self.endpoint.session(session) {
            session.reject(now.mono, 480, &[]);
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
        let settings = &self.settings;
        let mut ctx = Ctx { now, settings, steps: &mut steps };
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
        }
        if call.finished() {
            self.ports.give_back(now.mono, call.port);
            self.bridges.remove(&call.bridge);
            self.current.remove(&id);
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
            Step::Invite(trunk, offer) => self.invite(now, call, trunk, offer, steps),
            Step::HangUp(q850) => {
                let reason = Some(sip::Q850(q850));
                self.with_session(id, |session| session.hang_up(now.mono, reason));
            }
            Step::AnswerOffer(sdp) => self.with_session(id, |session| session.answer_offer(now.mono, sdp)),
            Step::RefuseOffer(code) => self.with_session(id, |session| session.reject(now.mono, code, &[])),
        }
    }

    fn next_port(&mut self, now: Now, call: &mut Call, steps: &mut VecDeque<Step>) {
        self.ports.give_back(now.mono, call.port);
        if let Some(port) = self.ports.take(now.mono) {
            call.port = port;
            self.outputs.push_back(Output::Media(call.open(&self.settings)));
        } else {
            call.fail(&mut Ctx { now, settings: &self.settings, steps });
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
        let invited = match target(&call.order, trunk, self.settings.sip_address) {
            Some(target) => self.endpoint.invite(now.mono, target, offer).ok(),
            None => None,
        };
        if let Some(session) = invited {
            self.sessions.insert(session, id);
            self.current.insert(id, session);
        } else {
            // The endpoint is full or the trunk unusable: to the call that is one more failed attempt.
            self.current.remove(&id);
            let mut ctx = Ctx { now, settings: &self.settings, steps };
            call.signalled(&mut ctx, SessionEvent::Terminated(no_invite()));
        }
    }
}

/// The INVITE of one attempt: `00` and the number at the trunk, the caller id of the order or the trunk.
fn target(order: &CallOrder, trunk: usize, our_address: IpAddr) -> Option<sip::Target> {
    let plan = order.trunks.get(trunk)?;
    let user = format!("{}{}", plan.dial_prefix, order.to.digits());
    let caller = order.from.as_ref().or(plan.caller_id.as_ref());
    let anonymous = matches!(caller, Some(crate::model::CallerId::Anonymous));
    let from_user = caller.map_or("trunkline", |c| c.user());
    let from_host = match anonymous {
        true => sip::Host::Name("anonymous.invalid".to_owned()),
        false => sip::Host::Addr(our_address),
    };
    let headers = if anonymous { vec![("Privacy".to_owned(), "id".to_owned())] } else { Vec::new() };
    let credentials = (!plan.username.is_empty())
        .then(|| sip::Credentials { username: plan.username.clone(), password: plan.password.0.clone() });
    Some(sip::Target {
        uri: sip::Uri::sip_at(&user, host(&plan.host), plan.port),
        from: sip::Uri::sip_at(from_user, from_host, None),
        from_display: anonymous.then(|| "Anonymous".to_owned()),
        peer: sip::Peer::udp(plan.address),
        credentials,
        headers,
        no_response_timeout: Duration::from_millis(plan.no_response_timeout_ms.into()),
        sources: Vec::new(),
    })
}

/// A host as the trunk's proxy has it: a name, or an address (IPv6 in brackets).
fn host(text: &str) -> sip::Host {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_or_else(|_| sip::Host::Name(text.to_owned()), sip::Host::Addr)
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
