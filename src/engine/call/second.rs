//! A second party on a call: a transfer's leg, from its port to its end (CONTRACT 1.2 `override/transfer`). It is dialled
//! by the trunks of the order as the first one was, takes no credit, and is heard in the same bridge. Until it has
//! answered the call goes on as before; from then on whoever hangs up ends the call for both. The call keeps its one
//! duration, one recording and one end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::LegId;
use media::sdp::{self, Direction, Local, OfferConfig, Remote};
use sip::{SessionEvent, Termination, TerminationCause};

use super::{Call, Ctx, Phase, Step};
use crate::engine::Settings;
use crate::engine::outcome::{self, Outcome, cause};
use crate::model::call::{Accepted, CallOrder, CommandError, EndReason, Overheard, TransferOrder, TrunkPlan};
use crate::model::event::CallEvent;

/// The leg of whoever a call is transferred to.
pub(in crate::engine) const TARGET: LegId = LegId(1);

/// What the engine does for the second party.
#[derive(Debug)]
pub(in crate::engine) enum SecondStep {
    /// Take an RTP port and open it.
    Open,
    /// INVITE by the trunk at this place of the order.
    Invite(usize, Bytes),
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
    /// It holds one of the trunk's places.
    placed: bool,
    rang: bool,
    joined: bool,
    described: Bytes,
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
            placed: false,
            rang: false,
            joined: false,
            described: Bytes::new(),
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
            seed: self.media_seed.rotate_left(32) ^ 1,
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
        (second.trunk, second.placed, second.rang) = (trunk, true, false);
        second.ring = Some(ctx.now.mono + Duration::from_millis(order.ring_timeout_ms.into()));
        let (local, config) = (self.second_local(ctx.settings), self.second_offer());
        let offer: Bytes = sdp::offer(&local, &config, Direction::SendRecv).into();
        if let Some(second) = &mut self.second {
            second.described = offer.clone();
        }
        ctx.steps.push_back(Step::Second(SecondStep::Invite(trunk, offer)));
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
        self.second_connect(ctx, remote);
        ctx.event(CallEvent::Transferred);
    }

    fn second_connect(&mut self, ctx: &mut Ctx<'_>, remote: Remote) {
        if self.second.as_ref().is_none_or(|second| !second.joined) {
            return;
        }
        let on = remote.direction != Direction::SendRecv;
        ctx.media(media::Command::Connect { bridge: self.bridge, leg: TARGET, remote });
        ctx.media(media::Command::Hold { bridge: self.bridge, leg: TARGET, on });
    }

    fn second_offered(&mut self, ctx: &mut Ctx<'_>, offer: Option<&[u8]>) {
        let (config, mut local) = (self.second_offer(), self.second_local(ctx.settings));
        let write = |local: &Local| match offer {
            None => Some((sdp::offer(local, &config, Direction::SendRecv), None)),
            Some(offer) => {
                let answered = sdp::answer(local, &config, offer, Direction::SendRecv).ok();
                answered.map(|(ours, remote)| (ours, Some(remote)))
            }
        };
        let (Some((mut ours, remote)), Some(second)) = (write(&local), &mut self.second) else {
            return ctx.steps.push_back(Step::Second(SecondStep::RefuseOffer(488)));
        };
        if ours != second.described {
            self.second_version += 1;
            local.version = self.second_version;
            ours = write(&local).map(|(ours, _)| ours).unwrap_or(ours);
            second.described = ours.clone().into();
        }
        ctx.steps.push_back(Step::Second(SecondStep::AnswerOffer(ours.into())));
        if let Some(remote) = remote {
            self.second_connect(ctx, remote);
        }
    }

    fn second_terminated(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) {
        let Some(second) = &self.second else { return };
        if second.joined {
            let (reason, own) = match termination.cause {
                TerminationCause::Bye => (EndReason::NormalHangup, cause::NORMAL),
                TerminationCause::Rejected { .. }
                | TerminationCause::Redirected { .. }
                | TerminationCause::Cancelled
                | TerminationCause::NoResponse
                | TerminationCause::TimedOut
                | TerminationCause::Expired
                | TerminationCause::Transport
                | TerminationCause::Internal => (EndReason::TrunkFailure, cause::FAILURE),
            };
            return self.end(ctx, reason, termination.q850.unwrap_or(own));
        }
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

    fn second_local(&self, settings: &Settings) -> Local {
        let plan = self.second.as_ref().and_then(Second::plan);
        let told = plan.and_then(|plan| plan.profile.media_address);
        let hop = plan.and_then(|plan| plan.hops.first());
        let address = hop.map(|hop| settings.media_address_for(hop.address.ip()));
        Local {
            address: told.or(address).unwrap_or(settings.media_address),
            port: self.second_port.unwrap_or_default(),
            session_id: self.sdp_session ^ 1,
            version: self.second_version,
        }
    }

    fn second_offer(&self) -> OfferConfig {
        super::offer_config(self.second.as_ref().and_then(Second::plan))
    }
}
