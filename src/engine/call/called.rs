//! A call that came in: answered at once, as soon as its RTP socket is bound (CONTRACT 0.8). Its description is the answer
//! to the caller's offer, or an offer where the INVITE had none (RFC 3264 §5, §6; RFC 3261 §13.2.1).

use std::net::IpAddr;

use bytes::Bytes;
use sip::{Termination, TerminationCause};

use super::{CALLEE, Call, Ctx, Phase, Step};
use crate::engine::outcome::{self, cause};
use crate::model::call::EndReason;
use crate::model::event::CallEvent;

/// What a call came in with.
#[derive(Debug)]
pub(in crate::engine) struct Called {
    /// The caller's offer; `None`: we are to make one, and its answer comes with the ACK.
    pub(in crate::engine) offer: Option<Bytes>,
    /// What is heard is said back.
    pub(in crate::engine) echo: bool,
    /// Where it came from.
    pub(in crate::engine) peer: IpAddr,
}

impl Call {
    /// Makes it a call that came in. A place on its trunk has been taken for it.
    pub(in crate::engine) fn came_in(&mut self, called: Called) {
        self.called = Some(called);
        self.dial.placed = true;
    }

    /// The RTP socket is bound: the call is answered.
    pub(super) fn pick_up(&mut self, ctx: &mut Ctx<'_>) {
        let Some(Called { offer, echo, .. }) = &self.called else { return };
        let (offer, echo) = (offer.clone(), *echo);
        let (place, config) = (self.place(ctx.settings), self.offer_config());
        let Ok((ours, remote)) = self.described.reply(place, &config, offer.as_deref()) else {
            ctx.steps.push_back(Step::RefuseOffer(488));
            self.finish(ctx, EndReason::TrunkFailure, cause::FAILURE, Some(488));
            return;
        };
        self.placed();
        self.phase = Phase::Answered;
        ctx.steps.push_back(Step::PickUp(ours));
        ctx.event(CallEvent::Answered);
        if let Some(remote) = remote {
            self.connect(ctx, remote);
        }
        if echo {
            ctx.media(media::Command::Echo { bridge: self.bridge, leg: CALLEE, on: true });
        }
        self.begin_talking(ctx);
    }

    /// The caller has gone before the answer.
    pub(super) fn given_up(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) {
        let (reason, own) = match termination.cause {
            TerminationCause::Cancelled | TerminationCause::Bye => (EndReason::Canceled, cause::NORMAL),
            ref other => outcome::of_end(other),
        };
        self.finish(ctx, reason, termination.q850.unwrap_or(own), None);
    }
}
