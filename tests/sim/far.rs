//! The far end of every trunk: our own SIP endpoint that behaves at random as carriers and people do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::sdp::{self, Direction, Local, OfferConfig};
use rand_chacha::ChaCha8Rng;
use sip::{Endpoint, Inbound, Peer, SessionEvent, SessionId, Transmit};

use crate::net::{below, chance};

enum Act {
    Ring,
    Answer,
    Reject(u16),
    HangUp,
    Hold,
}

/// One carrier.
pub(crate) struct Far {
    pub(crate) address: SocketAddr,
    endpoint: Endpoint,
    plan: BTreeMap<(Instant, u64), (SessionId, Act)>,
    offers: BTreeMap<SessionId, Bytes>,
    counter: u64,
    /// Swallows every datagram: a dead trunk.
    pub(crate) dead: bool,
    /// Sessions seen and sessions ended.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
}

impl Far {
    pub(crate) fn new(address: SocketAddr, seed: u8) -> Self {
        let config = sip::Config {
            inbound: Inbound::Anyone,
            max_sessions: 100_000,
            max_transactions: 200_000,
            ..sip::Config::new(address)
        };
        Self {
            address,
            endpoint: Endpoint::new(config, [seed; 32]),
            plan: BTreeMap::new(),
            offers: BTreeMap::new(),
            counter: 0,
            dead: false,
            begun: 0,
            ended: 0,
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if !self.dead {
            self.endpoint.handle_datagram(now, Peer::udp(from), bytes);
        }
    }

    pub(crate) fn transmit(&mut self) -> Option<Transmit> {
        self.endpoint.poll_transmit()
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        let plan = self.plan.keys().next().map(|(at, _)| *at);
        [plan, self.endpoint.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn counts(&self) -> sip::Counts {
        self.endpoint.counts()
    }

    pub(crate) fn work(&mut self, rng: &mut ChaCha8Rng, now: Instant) {
        if self.endpoint.poll_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        while let Some(first) = self.plan.first_entry()
            && first.key().0 <= now
        {
            let (id, act) = first.remove();
            self.act(now, id, &act);
        }
        while let Some((id, event)) = self.endpoint.poll_event() {
            self.event(rng, now, id, event);
        }
    }

    fn act(&mut self, now: Instant, id: SessionId, act: &Act) {
        let answer = self.offers.get(&id).and_then(|offer| self.answer_to(offer));
        let held = self.hold_offer();
        let Some(mut session) = self.endpoint.session(id) else { return };
        match act {
            Act::Ring => session.ring(now, 180, None),
            Act::Answer => match answer {
                Some(sdp) => session.answer(now, sdp),
                None => session.reject(now, 488, &[]),
            },
            Act::Reject(code) => session.reject(now, *code, &[]),
            Act::HangUp => session.hang_up(now, None),
            // Refused while another change is under way; that is the far end's bad luck.
            Act::Hold => drop(session.reinvite(now, held)),
        }
    }

    fn local(&self) -> Local {
        Local { address: self.address.ip(), port: 40_000, session_id: 7, version: 1 }
    }

    fn config() -> OfferConfig {
        OfferConfig { codecs: vec![media::Codec::Pcmu], telephone_event: true, ..OfferConfig::default() }
    }

    fn answer_to(&self, offer: &Bytes) -> Option<Bytes> {
        let answered = sdp::answer(&self.local(), &Self::config(), offer, Direction::SendRecv);
        answered.ok().map(|(sdp, _)| sdp.into())
    }

    fn hold_offer(&self) -> Bytes {
        sdp::offer(&self.local(), &Self::config(), Direction::SendOnly).into()
    }

    fn event(&mut self, rng: &mut ChaCha8Rng, now: Instant, id: SessionId, event: SessionEvent) {
        match event {
            SessionEvent::Invited(invite) => {
                self.begun += 1;
                self.offers.insert(id, invite.sdp.clone().unwrap_or_default());
                self.decide(rng, now, id);
            }
            SessionEvent::Offer { sdp } => {
                let answer =
                    sdp.and_then(|offer| self.answer_to(&offer)).unwrap_or_else(|| self.hold_offer());
                if let Some(mut session) = self.endpoint.session(id) {
                    session.answer_offer(now, answer);
                }
            }
            SessionEvent::Terminated(_) => self.ended += 1,
            SessionEvent::Trying
            | SessionEvent::Progress { .. }
            | SessionEvent::Answered { .. }
            | SessionEvent::Confirmed { .. }
            | SessionEvent::OfferAnswered { .. }
            | SessionEvent::OfferRefused { .. }
            | SessionEvent::Transfer(_)
            | SessionEvent::Info { .. } => {}
        }
    }

    fn later(&mut self, at: Instant, id: SessionId, act: Act) {
        self.counter += 1;
        self.plan.insert((at, self.counter), (id, act));
    }

    fn decide(&mut self, rng: &mut ChaCha8Rng, now: Instant, id: SessionId) {
        let ring = now + Duration::from_millis(u64::from(below(rng, 3000)));
        let then = ring + Duration::from_millis(u64::from(below(rng, 12_000)));
        if chance(rng, 70) {
            self.later(ring, id, Act::Ring);
        }
        match below(rng, 10) {
            0 => self.later(then, id, Act::Reject(486)),
            1 => self.later(now, id, Act::Reject(503)),
            2 => self.later(now, id, Act::Reject(500)),
            3 => self.later(then, id, Act::Reject([404, 480, 603, 408, 302, 403][below(rng, 6) as usize])),
            // Rings for ever.
            4 => {}
            _ => {
                self.later(then, id, Act::Answer);
                let up = Duration::from_millis(u64::from(below(rng, 90_000)));
                if chance(rng, 20) {
                    self.later(then + up / 2, id, Act::Hold);
                }
                if chance(rng, 60) {
                    self.later(then + up, id, Act::HangUp);
                }
            }
        }
    }
}
