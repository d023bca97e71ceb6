//! A second party on a call: a transfer's leg, from its port to its end (CONTRACT 1.2 `override/transfer`). It is dialled
//! by the trunks of the order as the first one was, each by its ways in turn (RFC 3263 §4.3), but follows no redirection. It
//! takes no credit, and is heard in the same bridge. Until it has answered the call goes on as before; from then on
//! whoever hangs up ends the call for both. The call keeps its one duration, one recording and one end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::LegId;
use media::sdp::{self, OfferConfig, Remote};
use sip::{SessionEvent, Termination, TerminationCause};

use super::description::Place;
use super::{Call, Ctx, Phase, Step};
use crate::engine::Settings;
use crate::engine::outcome::{self, Outcome, cause};
use crate::model::call::{Accepted, CallOrder, CommandError, Overheard, TransferOrder, TrunkPlan};
use crate::model::event::CallEvent;

/// The leg of whoever a call is transferred to.
pub(in crate::engine) const TARGET: LegId = LegId(1);

/// The keys it is told are numbered from here: none of the first leg's (see [`super::seeds`]).
const SECOND: u64 = 1 << 32;

/// What the engine does for the second party.
#[derive(Debug)]
pub(in crate::engine) enum SecondStep {
    /// Take an RTP port and open it.
    Open,
    /// INVITE by the trunk at this place of the order, by this way of it.
    Invite(usize, usize, Bytes),
    /// CANCEL or BYE, whatever is right, with this Q.850 cause.
    HangUp(u16),
    /// Answer the re-INVITE that waits.
    AnswerOffer(Bytes),
    /// Refuse it.
    RefuseOffer(u16),
}

/// The second party.
#[derive(Debug)]
pub(in crate::engine) struct Second {
    /// The call's order with the number, the caller id and the trunks of the transfer in their places.
    pub(in crate::engine) order: Arc<CallOrder>,
    trunk: usize,
    /// Which of the trunk's ways.
    hop: usize,
    /// It holds one of the trunk's places.
    placed: bool,
    rang: bool,
    joined: bool,
    ring: Option<Instant>,
}

impl Second {
    fn plan(&self) -> Option<&TrunkPlan> {
        self.order.trunks.get(self.trunk)
    }

    /// When it has rung long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ring
    }
}

impl Call {
    /// Begins a transfer.
    pub(super) fn transfer(
        &mut self,
        ctx: &mut Ctx<'_>,
        order: TransferOrder,
    ) -> Result<Accepted, CommandError> {
        if self.second.is_some() {
            return Err(CommandError::Transferring);
        }
        let TransferOrder { to, from, trunks, ring_timeout_ms } = order;
        ctx.event(CallEvent::TransferStarted { number: to.clone() });
        let order = CallOrder { to, from, trunks, ring_timeout_ms, ..(*self.order).clone() };
        self.second = Some(Second {
            order: Arc::new(order),
            trunk: 0,
            hop: 0,
            placed: false,
            rang: false,
            joined: false,
            ring: None,
        });
        if self.second_ready {
            self.second_dial(ctx, 0, 0);
        } else {
            ctx.steps.push_back(Step::Second(SecondStep::Open));
        }
        Ok(Accepted::Done)
    }

    /// Asks the media worker for the second leg's socket.
    pub(in crate::engine) fn open_second(&self, settings: &Settings, port: u16) -> media::Command {
        media::Command::Open {
            bridge: self.bridge,
            leg: TARGET,
            local: (settings.rtp_bind, port).into(),
            settings: settings.leg.clone(),
            // Another stream than the first leg's, from the same seed.
            seed: self.seeds.media.rotate_left(32) ^ 1,
        }
    }

    /// Its socket is bound.
    pub(super) fn second_opened(&mut self, ctx: &mut Ctx<'_>) {
        self.second_ready = true;
        if self.second.as_ref().is_some_and(|second| !second.joined && second.ring.is_none()) {
            self.second_dial(ctx, 0, 0);
        }
    }

    /// Dials the first trunk from this place on that takes the call; `code` is what the one before said.
    fn second_dial(&mut self, ctx: &mut Ctx<'_>, from: usize, code: u16) {
        self.second_leave(ctx);
        let Some(second) = &mut self.second else { return };
        let order = Arc::clone(&second.order);
        let mut rest = order.trunks.iter().enumerate().skip(from);
        let open = rest.find(|(_, plan)| ctx.gates.enter(ctx.now.mono, plan).is_ok());
        let Some((trunk, _)) = open else {
            return self.second_failed(ctx, code, "no trunk took the call");
        };
        (second.trunk, second.hop, second.placed, second.rang) = (trunk, 0, true, false);
        second.ring = Some(ctx.now.mono + Duration::from_millis(order.ring_timeout_ms.into()));
        self.second_invite(ctx);
    }

    fn second_invite(&mut self, ctx: &mut Ctx<'_>) {
        let Some(Second { trunk, hop, .. }) = self.second else { return };
        let (place, config) = (self.second_place(ctx.settings), self.second_offer());
        let offer = self.second_described.offer(place, &config);
        ctx.steps.push_back(Step::Second(SecondStep::Invite(trunk, hop, offer)));
    }

    /// Tries the next way of the same trunk, if this one is down and there is another.
    fn second_next_hop(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) -> bool {
        let Some(second) = &mut self.second else { return false };
        let hops = second.plan().map_or(0, |plan| plan.hops.len());
        if !outcome::is_down(&termination.cause) || second.rang || second.hop + 1 >= hops {
            return false;
        }
        second.hop += 1;
        self.second_invite(ctx);
        true
    }

    /// Its trunk's place is free again.
    fn second_leave(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(second) = &mut self.second
            && std::mem::take(&mut second.placed)
            && let Some(plan) = second.order.trunks.get(second.trunk)
        {
            ctx.gates.leave(&plan.endpoint);
        }
    }

    /// Nobody is there: the call goes on as before.
    pub(in crate::engine) fn second_failed(&mut self, ctx: &mut Ctx<'_>, code: u16, reason: &str) {
        self.second_leave(ctx);
        if self.second.take().is_some() && self.phase == Phase::Answered {
            self.attended(ctx, Overheard::TransferFailed);
            ctx.event(CallEvent::TransferFailed { code, reason: reason.to_owned() });
        }
    }

    /// The call ends: so does its second party.
    pub(super) fn second_over(&mut self, ctx: &mut Ctx<'_>, q850: u16) {
        self.second_leave(ctx);
        if self.second.take().is_some() {
            ctx.steps.push_back(Step::Second(SecondStep::HangUp(q850)));
        }
    }

    pub(super) fn second_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let due = |second: &mut Second| second.ring.take_if(|at| *at <= ctx.now.mono).is_some();
        if self.second.as_mut().is_some_and(due) {
            ctx.steps.push_back(Step::Second(SecondStep::HangUp(cause::NO_ANSWER)));
            self.second_failed(ctx, 0, "ring timeout");
        }
    }

    /// What its session reports.
    pub(in crate::engine) fn second_signalled(&mut self, ctx: &mut Ctx<'_>, event: SessionEvent) {
        match event {
            SessionEvent::Progress { .. } => {
                if let Some(second) = &mut self.second {
                    second.rang = true;
                }
            }
            SessionEvent::Answered { sdp } => self.second_answered(ctx, sdp.as_deref()),
            SessionEvent::Offer { sdp } => self.second_offered(ctx, sdp.as_deref()),
            SessionEvent::Confirmed { sdp: Some(sdp) } | SessionEvent::OfferAnswered { sdp: Some(sdp) } => {
                if let Ok(remote) = sdp::read_answer(&self.second_offer(), &sdp) {
                    self.second_connect(ctx, remote);
                }
            }
            SessionEvent::Terminated(termination) => self.second_terminated(ctx, &termination),
            SessionEvent::Trying
            | SessionEvent::Info { .. }
            | SessionEvent::Confirmed { sdp: None }
            | SessionEvent::OfferAnswered { sdp: None }
            | SessionEvent::OfferRefused { .. }
            | SessionEvent::Transfer(_)
            | SessionEvent::Invited(_) => {}
        }
    }

    fn second_answered(&mut self, ctx: &mut Ctx<'_>, sdp: Option<&[u8]>) {
        let config = self.second_offer();
        let Some(second) = self.second.as_mut().filter(|second| !second.joined) else { return };
        let Some(remote) = sdp.and_then(|sdp| sdp::read_answer(&config, sdp).ok()) else {
            ctx.steps.push_back(Step::Second(SecondStep::HangUp(cause::FAILURE)));
            return self.second_failed(ctx, 200, "unusable session description");
        };
        (second.joined, second.ring) = (true, None);
        // Whoever has talked for us falls silent before the two hear each other.
        self.opening = None;
        self.attended(ctx, Overheard::Transferred);
        self.attended = false;
        ctx.media(media::Command::StopPlayback { bridge: self.bridge, playback: None });
        self.unattended(ctx);
        self.second_connect(ctx, remote);
        ctx.event(CallEvent::Transferred);
    }

    /// Whether the two hear each other.
    pub(super) fn has_joined(&self) -> bool {
        self.second.as_ref().is_some_and(|second| second.joined)
    }

    fn second_connect(&self, ctx: &mut Ctx<'_>, remote: Remote) {
        if self.has_joined() {
            self.connect_leg(ctx, TARGET, remote);
        }
    }

    fn second_offered(&mut self, ctx: &mut Ctx<'_>, offer: Option<&[u8]>) {
        let (place, config) = (self.second_place(ctx.settings), self.second_offer());
        match self.second_described.reply(place, &config, offer) {
            Ok((ours, remote)) => {
                ctx.steps.push_back(Step::Second(SecondStep::AnswerOffer(ours)));
                if let Some(remote) = remote {
                    self.second_connect(ctx, remote);
                }
            }
            Err(_) => ctx.steps.push_back(Step::Second(SecondStep::RefuseOffer(488))),
        }
    }

    fn second_terminated(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) {
        let Some(second) = &self.second else { return };
        if second.joined {
            let (reason, own) = outcome::of_end(&termination.cause);
            return self.end(ctx, reason, termination.q850.unwrap_or(own));
        }
        if self.second_next_hop(ctx, termination) {
            return;
        }
        let Some(second) = &self.second else { return };
        let (rang, next) = (second.rang, second.trunk + 1);
        let (code, outcome) = match &termination.cause {
            TerminationCause::Rejected { code, .. } | TerminationCause::Redirected { code, .. } => {
                (*code, outcome::of_status(*code, rang))
            }
            TerminationCause::NoResponse
            | TerminationCause::TimedOut
            | TerminationCause::Transport
            | TerminationCause::Cancelled
            | TerminationCause::Bye
            | TerminationCause::Expired
            | TerminationCause::Internal => (0, outcome::of_silence(rang)),
        };
        match outcome {
            Outcome::NextTrunk(_) => self.second_dial(ctx, next, code),
            Outcome::Final(reason, _) => self.second_failed(ctx, code, reason.as_str()),
        }
    }

    fn second_place(&self, settings: &Settings) -> Place {
        let second = self.second.as_ref();
        let plan = second.and_then(Second::plan);
        let hop = second.and_then(|second| plan?.hops.get(second.hop));
        let peer = hop.map(|hop| hop.address.ip());
        Place::told(settings, plan, peer, self.second_port.unwrap_or_default())
    }

    fn second_offer(&self) -> OfferConfig {
        let trunk = self.second.as_ref().map_or(0, |second| second.trunk as u64);
        self.seeds.offer_config(self.second.as_ref().and_then(Second::plan), SECOND + trunk)
    }
}
