//! Dialling: one trunk of the order after the other, until one has the call or none is left (CONTRACT 1.1 "Trunks").
//! Which trunks those are was decided before; only their own limits are asked here once more.

use std::sync::Arc;
use std::time::Duration;

use sip::{Termination, TerminationCause};

use super::{Call, Ctx, Dial, PLACEMENT_CEILING, Phase, Step};
use crate::engine::outcome::{self, Outcome, cause};
use crate::model::call::EndReason;
use crate::model::event::{CallEvent, Fault};

/// Redirects followed in one attempt.
const REDIRECTS_MAX: u8 = 5;

impl Call {
    /// The RTP socket is bound: now its port may be told to a trunk.
    pub(super) fn begin_dialling(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Opening {
            self.phase = Phase::Dialing;
            if !self.dial(ctx, 0) {
                self.walk_over(ctx, cause::FAILURE, None);
            }
        }
    }

    /// No trunk is left: the call is over, unless the order wants all of them tried again after a while. One that
    /// forbids the call (403) would forbid it again.
    pub(super) fn walk_over(&mut self, ctx: &mut Ctx<'_>, q850: u16, code: Option<u16>) {
        let again = self.order.redials_ms.get(self.redials).filter(|_| code != Some(403));
        let Some(wait_ms) = again.copied() else {
            return self.finish(ctx, EndReason::TrunkFailure, q850, code);
        };
        self.leave_trunk(ctx);
        self.redials += 1;
        self.placed = false;
        (self.timers.placement, self.timers.proceeding, self.timers.ring) = (None, None, None);
        self.timers.redial = Some(ctx.now.mono + Duration::from_millis(wait_ms.into()));
    }

    /// Tries all trunks once more, with the time of a first walk.
    pub(super) fn redial(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Dialing {
            self.timers.placement = Some(ctx.now.mono + PLACEMENT_CEILING);
            if !self.dial(ctx, 0) {
                self.walk_over(ctx, cause::FAILURE, None);
            }
        }
    }

    /// The next trunk of the list that has a place for this call.
    fn next_open(&mut self, ctx: &mut Ctx<'_>, from: usize) -> Option<usize> {
        let order = Arc::clone(&self.order);
        for (at, plan) in order.trunks.iter().enumerate().skip(from) {
            match ctx.gates.enter(ctx.now.mono, plan) {
                Ok(()) => return Some(at),
                Err(why) => {
                    let (trunk, reason) = (plan.endpoint.clone(), why.to_owned());
                    ctx.event(CallEvent::PassedOver { trunk, reason });
                }
            }
        }
        None
    }

    /// The trunk's place is free again.
    pub(super) fn leave_trunk(&mut self, ctx: &mut Ctx<'_>) {
        if std::mem::take(&mut self.dial.placed)
            && let Some(trunk) = self.order.trunks.get(self.dial.trunk)
        {
            ctx.gates.leave(&trunk.endpoint);
        }
    }

    /// Dials the first trunk from this place on that takes the call; `false` where none does.
    fn dial(&mut self, ctx: &mut Ctx<'_>, from: usize) -> bool {
        self.leave_trunk(ctx);
        let Some(trunk) = self.next_open(ctx, from) else { return false };
        let started = ctx.now.mono;
        self.dial = Dial::new(trunk, true, started);
        self.timers.proceeding = None;
        self.timers.ring = Some(started + Duration::from_millis(self.order.ring_timeout_ms.into()));
        let Some(endpoint) = self.trunk().map(|plan| plan.endpoint.clone()) else { return false };
        self.tried = self.tried.saturating_add(1);
        ctx.event(CallEvent::Dialing { trunk: endpoint, attempt: self.tried });
        let (place, config) = (self.place(ctx.settings), self.offer_config());
        ctx.steps.push_back(Step::Invite(trunk, self.described.offer(place, &config)));
        true
    }

    pub(super) fn attempt_failed(
        &mut self,
        ctx: &mut Ctx<'_>,
        code: u16,
        reason: &str,
        retry_after: Option<Duration>,
        fault: Fault,
    ) {
        let trunk = self.trunk().map(|trunk| trunk.endpoint.clone()).unwrap_or_default();
        let elapsed = ctx.now.mono.saturating_duration_since(self.dial.started);
        let elapsed_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        let retry_after_s = retry_after.map(|wait| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX));
        let reason = reason.to_owned();
        ctx.event(CallEvent::AttemptFailed { trunk, code, reason, elapsed_ms, retry_after_s, fault });
    }

    pub(super) fn attempt_over(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) {
        if self.next_hop(ctx, termination) || self.follow(ctx, termination) {
            return;
        }
        let rang = self.dial.rang;
        let (code, reason, outcome) = match &termination.cause {
            TerminationCause::Rejected { code, reason } => {
                (*code, reason.as_str(), outcome::of_status(*code, rang))
            }
            TerminationCause::Redirected { code, .. } => {
                (*code, "redirected", outcome::of_status(*code, rang))
            }
            TerminationCause::NoResponse => (0, "no response", outcome::of_silence(rang)),
            TerminationCause::TimedOut => (0, "timed out", outcome::of_silence(rang)),
            TerminationCause::Transport => (0, "transport error", outcome::of_silence(rang)),
            TerminationCause::Cancelled
            | TerminationCause::Bye
            | TerminationCause::Expired
            | TerminationCause::Internal => (0, "failed", outcome::of_silence(rang)),
        };
        let fault = outcome::fault_of(code, rang, &termination.cause);
        self.attempt_failed(ctx, code, reason, termination.retry_after, fault);
        let told = |own: u16| termination.q850.unwrap_or(own);
        match outcome {
            Outcome::Final(reason, cause) => self.finish(ctx, reason, told(cause), status(code)),
            Outcome::NextTrunk(cause) => {
                let next = self.dial.trunk + 1;
                if !self.dial(ctx, next) {
                    self.walk_over(ctx, told(cause), status(code));
                }
            }
        }
    }

    /// Follows a 3xx where the trunk may redirect, and only to addresses of the trunk's own: a redirect elsewhere is how
    /// calls are stolen (FIELD 3.2.2). To all above it is still the same attempt.
    fn follow(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) -> bool {
        let TerminationCause::Redirected { contacts, .. } = &termination.cause else { return false };
        let Some(plan) = self.trunk().filter(|plan| plan.profile.allow_redirects) else { return false };
        let networks = plan.profile.networks();
        let own = |uri: &&sip::Uri| {
            let ip = uri.as_sip().filter(|sip| !sip.secure).and_then(|sip| sip.host.ip());
            ip.is_some_and(|ip| {
                plan.hops.iter().any(|hop| hop.address.ip() == ip) || networks.iter().any(|n| n.contains(ip))
            })
        };
        let followed = self.dial.redirected.as_ref().map_or(0, |(_, times)| *times);
        let Some(uri) = contacts.iter().find(own).filter(|_| followed < REDIRECTS_MAX) else { return false };
        self.dial.redirected = Some((uri.clone(), followed + 1));
        (self.dial.provisional, self.dial.early) = (false, None);
        self.timers.proceeding = None;
        ctx.steps.push_back(Step::Invite(self.dial.trunk, self.described.again()));
        true
    }

    /// Tries the next way of the same trunk, if this one is down and there is another (RFC 3263 §4.3). To all above it is
    /// still the same attempt.
    fn next_hop(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) -> bool {
        let hops = self.trunk().map_or(0, |trunk| trunk.hops.len());
        if !outcome::is_down(&termination.cause) || self.dial.rang || self.dial.hop + 1 >= hops {
            return false;
        }
        self.dial.hop += 1;
        self.dial.redirected = None;
        (self.dial.provisional, self.dial.early) = (false, None);
        self.timers.proceeding = None;
        let (place, config) = (self.place(ctx.settings), self.offer_config());
        ctx.steps.push_back(Step::Invite(self.dial.trunk, self.described.offer(place, &config)));
        true
    }
}

fn status(code: u16) -> Option<u16> {
    (code > 0).then_some(code)
}
