//! A call that came in: answered at once, as soon as its RTP socket is bound (CONTRACT 0.8). Its description is the answer
//! to the caller's offer, or an offer where the INVITE had none (RFC 3264 §5, §6; RFC 3261 §13.2.1).

use bytes::Bytes;
use media::sdp::{self, Direction, Remote};
use sip::{Termination, TerminationCause};

use super::{CALLEE, Call, Ctx, Phase, Step};
use crate::engine::outcome::cause;
use crate::model::call::EndReason;
use crate::model::event::CallEvent;

/// What a call came in with.
#[derive(Debug)]
pub(in crate::engine) struct Called {
    /// The caller's offer; `None`: we are to make one, and its answer comes with the ACK.
    pub(in crate::engine) offer: Option<Bytes>,
    /// What is heard is said back.
    pub(in crate::engine) echo: bool,
}

impl Call {
    /// Makes it a call that came in. A place on its trunk has been taken for it.
    pub(in crate::engine) fn came_in(&mut self, called: Called) {
        self.called = Some(called);
        self.dial.placed = true;
    }

    /// The RTP socket is bound: the call is answered.
    pub(super) fn pick_up(&mut self, ctx: &mut Ctx<'_>) {
        let Some(Called { offer, echo }) = &self.called else { return };
        let (offer, echo) = (offer.clone(), *echo);
        let Ok((ours, remote)) = self.first_description(ctx, offer.as_deref()) else {
            ctx.steps.push_back(Step::RefuseOffer(488));
            self.finish(ctx, EndReason::TrunkFailure, cause::FAILURE, Some(488));
            return;
        };
        self.placed();
        self.phase = Phase::Answered;
        self.described = ours.into();
        ctx.steps.push_back(Step::PickUp(self.described.clone()));
        ctx.event(CallEvent::Answered);
        if let Some(remote) = remote {
            self.connect(ctx, remote);
        }
        if echo {
            ctx.media(media::Command::Echo { bridge: self.bridge, leg: CALLEE, on: true });
        }
        self.begin_talking(ctx);
    }

    fn first_description(
        &self,
        ctx: &Ctx<'_>,
        offer: Option<&[u8]>,
    ) -> Result<(Vec<u8>, Option<Remote>), sdp::SdpError> {
        let (local, config) = (self.local(ctx.settings), self.offer_config());
        let Some(offer) = offer else { return Ok((sdp::offer(&local, &config, Direction::SendRecv), None)) };
        let (ours, remote) = sdp::answer(&local, &config, offer, Direction::SendRecv)?;
        Ok((ours, Some(remote)))
    }

    /// The caller has gone before the answer.
    pub(super) fn given_up(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) {
        let (reason, own) = match termination.cause {
            TerminationCause::Cancelled | TerminationCause::Bye => (EndReason::Canceled, cause::NORMAL),
            TerminationCause::Rejected { .. }
            | TerminationCause::Redirected { .. }
            | TerminationCause::NoResponse
            | TerminationCause::TimedOut
            | TerminationCause::Expired
            | TerminationCause::Transport
            | TerminationCause::Internal => (EndReason::TrunkFailure, cause::FAILURE),
        };
        self.finish(ctx, reason, termination.q850.unwrap_or(own), None);
    }
}
