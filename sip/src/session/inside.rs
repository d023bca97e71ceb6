//! Requests inside a dialog, theirs and ours (RFC 3261 §12.2, §14; RFC 3311, RFC 6086).
//!
//! Owns offers after the first, their collisions, and what every other method is answered with. Never lets two offers be
//! open at once.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Call, Ours, Phase, Theirs, end_by, set_sdp, too_short};
use crate::body::session_description;
use crate::dialog::Order;
use crate::message::{Method, Request, Response};
use crate::parse::Core;
use crate::stack::{Failure, Stack};
use crate::transaction::TxId;
use crate::{ALLOW, Peer, SUPPORTED, SessionError, SessionEvent, Side, TerminationCause};

/// How often a colliding re-INVITE is tried again.
const MAX_GLARE_TRIES: u8 = 6;

impl Call {
    /// A request of theirs inside the dialog; neither ACK nor CANCEL.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        core: &Core,
        request: &Request,
        reply: Peer,
    ) {
        let tx = stack.serve(self.id, core, request, reply);
        // Another far end of a forked call, whose answer crossed the one that won: it ends nothing but itself.
        let tag = core.from.tag().unwrap_or("");
        let other = tag != self.dialog.remote_tag();
        if other && matches!(self.phase, Phase::Answered | Phase::Confirmed) {
            let code = if request.method == Method::Bye { 200 } else { 481 };
            return self.reply(now, stack, tx, code);
        }
        let dialog = match self.early.iter_mut().find(|early| early.dialog.remote_tag() == tag) {
            Some(early) => &mut early.dialog,
            None => &mut self.dialog,
        };
        match dialog.accept_seq(core.cseq.seq) {
            Order::Newer => {}
            Order::Older => return self.reply(now, stack, tx, 500),
            Order::Same => return self.reply(now, stack, tx, 482),
        }
        // Whatever a BYE requires besides: the call is over for them.
        let unsupported = crate::endpoint::unsupported(&request.headers);
        if request.method != Method::Bye && !unsupported.is_empty() {
            return self.reply_with(now, stack, tx, 420, &[("Unsupported", unsupported)]);
        }
        match &request.method {
            Method::Bye => self.bye(now, stack, tx, &request.headers),
            _ if self.phase == Phase::Over => self.reply(now, stack, tx, 481),
            Method::Invite | Method::Update => self.offered(now, stack, tx, core, request),
            Method::Info => self.informed(now, stack, tx, request),
            Method::Options => {
                let says = [
                    ("Allow", ALLOW.to_owned()),
                    ("Accept", "application/sdp".to_owned()),
                    ("Supported", SUPPORTED.to_owned()),
                ];
                self.reply_with(now, stack, tx, 200, &says);
            }
            Method::Notify => self.notified(now, stack, tx, request),
            // Whom we call is nobody's business but our user's: a REFER taken would be a free call for the far end.
            Method::Refer => self.reply(now, stack, tx, 603),
            Method::Prack => self.pracked(now, stack, tx, core, request),
            Method::Ack | Method::Cancel | Method::Register | Method::Other(_) => {
                self.reply_with(now, stack, tx, 405, &[("Allow", ALLOW.to_owned())]);
            }
        }
    }

    fn reply_with(&self, now: Instant, stack: &mut Stack, tx: TxId, code: u16, headers: &[(&str, String)]) {
        let Some(mut response) = self.reply_to(stack, tx, code) else { return };
        for (name, value) in headers {
            response.headers.push(name, value.clone());
        }
        stack.respond(now, tx, &response);
    }

    fn informed(&mut self, now: Instant, stack: &mut Stack, tx: TxId, request: &Request) {
        self.reply(now, stack, tx, 200);
        let content_type = request.headers.get("Content-Type").unwrap_or("").to_owned();
        self.emit(stack, SessionEvent::Info { content_type, body: request.body.clone() });
    }

    /// A re-INVITE or UPDATE (RFC 3261 §14.2, RFC 3311 §5.2).
    fn offered(&mut self, now: Instant, stack: &mut Stack, tx: TxId, core: &Core, request: &Request) {
        let invite = request.method == Method::Invite;
        let Ok(sdp) = session_description(&request.headers, &request.body) else {
            return self.reply_with(now, stack, tx, 415, &[("Accept", "application/sdp".to_owned())]);
        };
        if let Some(least) = too_short(stack, &request.headers) {
            return self.reply_with(now, stack, tx, 422, &[("Min-SE", least.to_string())]);
        }
        let tag = core.from.tag().unwrap_or("");
        self.peer_presents(&request.headers);
        if !invite && sdp.is_none() {
            self.moved(tag, request);
            return self.agree(now, stack, tx, None);
        }
        // Ours has been sent and not answered: both withdraw and try again at different times.
        let colliding = self.ours.as_ref().is_some_and(|ours| ours.tx.is_some() && ours.sdp.is_some());
        let calling = matches!(self.phase, Phase::Calling | Phase::Proceeding);
        let agreed = match self.phase {
            Phase::Calling | Phase::Proceeding => self.early_by(tag).is_some_and(|early| early.agreed),
            Phase::Ringing => self.reliable.as_ref().is_some_and(|reliable| reliable.agreed),
            Phase::Answered | Phase::Confirmed | Phase::Over => true,
        };
        // Before the answer only an UPDATE may follow, and only on an offer that has been answered (RFC 3311 §5.1).
        let early = agreed && !invite;
        if colliding || calling && !early {
            return self.reply(now, stack, tx, 491);
        }
        let busy = self.theirs.is_some() || self.unacked.is_some();
        if busy || self.phase == Phase::Ringing && !early {
            let seconds = stack.below(11);
            return self.reply_with(now, stack, tx, 500, &[("Retry-After", seconds.to_string())]);
        }
        self.moved(tag, request);
        if let Some(early) = self.early_by(tag) {
            early.sdp.clone_from(&sdp);
        }
        self.theirs =
            Some(Theirs { tx, seq: core.cseq.seq, method: request.method.clone(), offerless: sdp.is_none() });
        if invite {
            self.reply(now, stack, tx, 100);
        }
        self.emit(stack, SessionEvent::Offer { sdp });
    }

    /// Their target may be another now (RFC 3261 §12.2.2, RFC 3311 §5.2).
    fn moved(&mut self, tag: &str, request: &Request) {
        match self.early_by(tag) {
            Some(early) => early.dialog.refresh_target(&request.headers),
            None => self.dialog.refresh_target(&request.headers),
        }
    }

    /// A 200 to an UPDATE or PRACK.
    fn agree(&mut self, now: Instant, stack: &mut Stack, tx: TxId, sdp: Option<Bytes>) {
        let Some(mut response) = self.reply_to(stack, tx, 200) else { return };
        self.present(&mut response.headers);
        set_sdp(&mut response.headers, &mut response.body, sdp);
        let Some(served) = stack.servers.get(tx) else { return };
        if served.request.method == Method::Update && self.phase == Phase::Confirmed {
            self.grant_timer(now, stack, &served.request.headers, &mut response.headers);
        }
        stack.respond(now, tx, &response);
    }

    pub(super) fn answer_offer(&mut self, now: Instant, stack: &mut Stack, sdp: Bytes) {
        let Some(theirs) = self.theirs.take() else { return };
        if theirs.method == Method::Invite {
            self.accept(now, stack, theirs.tx, theirs.seq, Some(sdp), false, theirs.offerless);
        } else {
            self.described = sdp.clone();
            self.agree(now, stack, theirs.tx, Some(sdp));
            self.after_prack(now, stack);
        }
    }

    pub(super) fn refuse_offer(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        code: u16,
        headers: &[(&str, String)],
    ) {
        if let Some(theirs) = self.theirs.take() {
            self.reply_with(now, stack, theirs.tx, code, headers);
            self.after_prack(now, stack);
        }
    }

    pub(super) fn reinvite(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        sdp: Bytes,
    ) -> Result<(), SessionError> {
        if self.phase != Phase::Confirmed {
            return Err(SessionError::NotConfirmed);
        }
        self.offer(now, stack, Ours::new(Method::Invite, Some(sdp)))
    }

    pub(super) fn update(&mut self, now: Instant, stack: &mut Stack, sdp: Bytes) -> Result<(), SessionError> {
        let Some(dialog) = self.agreed_dialog() else { return Err(SessionError::NotConfirmed) };
        if !self.peer_updates {
            return Err(SessionError::Unsupported);
        }
        let early = (self.phase == Phase::Proceeding).then(|| dialog.remote_tag().to_owned());
        self.offer(now, stack, Ours { early, ..Ours::new(Method::Update, Some(sdp)) })
    }

    fn offer(&mut self, now: Instant, stack: &mut Stack, ours: Ours) -> Result<(), SessionError> {
        if self.ours.is_some() || self.theirs.is_some() || self.unacked.is_some() {
            return Err(SessionError::Pending);
        }
        if stack.is_full() {
            return Err(SessionError::Busy);
        }
        self.login_tries = 0;
        self.ours = Some(Box::new(ours));
        self.send_ours(now, stack);
        Ok(())
    }

    /// Sends what we offer, or refreshes, for the first time or again.
    pub(super) fn send_ours(&mut self, now: Instant, stack: &mut Stack) {
        let Some(ours) = &self.ours else { return };
        let (method, sdp) = (ours.method.clone(), ours.sdp.clone());
        let seq = self.dialog.next_seq();
        let Some(dialog) = self.agreed_dialog() else { return };
        let mut request = dialog.numbered(method, seq);
        let peer = dialog.next_hop();
        self.present(&mut request.headers);
        if self.phase == Phase::Confirmed {
            self.propose_timer(stack, &mut request.headers);
        }
        set_sdp(&mut request.headers, &mut request.body, sdp);
        let tx = self.send_inside(now, stack, request, seq, peer);
        self.ours_moved(tx);
    }

    pub(super) fn ours_moved(&mut self, tx: TxId) {
        if let Some(ours) = &mut self.ours {
            ours.tx = Some(tx);
        }
    }

    /// A 2xx to what we offered.
    pub(super) fn ours_answered(&mut self, now: Instant, stack: &mut Stack, tx: TxId, response: &Response) {
        let Some(ours) = self.ours.take_if(|ours| ours.tx == Some(tx)) else { return };
        self.peer_presents(&response.headers);
        if self.phase == Phase::Confirmed {
            self.timer_answered(now, &response.headers);
        }
        if let Some(offered) = ours.sdp {
            self.described = offered;
            let sdp = session_description(&response.headers, &response.body).ok().flatten();
            self.emit(stack, SessionEvent::OfferAnswered { sdp });
        }
    }

    /// What we offered was refused.
    pub(super) fn ours_refused(&mut self, now: Instant, stack: &mut Stack, response: &Response) {
        let code = response.code;
        // Before the answer the INVITE decides what becomes of the call.
        match code {
            481 if self.phase == Phase::Confirmed => return self.dialog_gone(now, stack, response),
            408 if self.phase == Phase::Confirmed => return self.lost(now, stack, Failure::TimedOut),
            422 if self.lengthen(response) => return self.send_ours(now, stack),
            _ => {}
        }
        let caller = self.caller;
        let Some(ours) = &mut self.ours else { return };
        if code == 491 && ours.tries < MAX_GLARE_TRIES {
            // RFC 3261 §14.1, in units of 10 ms: 2.1 to 4 s for the owner of the Call-ID, 0 to 2 s for the other.
            let wait = if caller { 210 + stack.below(191) } else { stack.below(201) };
            ours.tx = None;
            ours.tries += 1;
            ours.retry_at = Some(now + Duration::from_millis(u64::from(wait) * 10));
            return;
        }
        let refresh = ours.refresh;
        self.ours = None;
        if refresh {
            self.refresh_refused(now, code);
        } else {
            self.emit(stack, SessionEvent::OfferRefused { code });
        }
    }

    /// The time after a collision has passed. An offer of theirs that is being dealt with goes first.
    pub(super) fn retry_ours(&mut self, now: Instant, stack: &mut Stack) {
        if self.agreed_dialog().is_none() {
            if let Some(ours) = self.ours.take_if(|ours| !ours.refresh) {
                debug_assert!(ours.tx.is_none(), "what is sent waits for its answer");
                self.emit(stack, SessionEvent::OfferRefused { code: 491 });
            }
            return;
        }
        if self.theirs.is_some() || self.unacked.is_some() || stack.is_full() {
            if let Some(ours) = &mut self.ours {
                ours.retry_at = Some(now + stack.config.timers.t1);
            }
            return;
        }
        self.send_ours(now, stack);
    }

    pub(super) fn info(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        kind: &str,
        body: Bytes,
    ) -> Result<(), SessionError> {
        if self.phase != Phase::Confirmed {
            return Err(SessionError::NotConfirmed);
        }
        if kind.chars().any(char::is_control) {
            return Err(SessionError::Value);
        }
        if stack.is_full() {
            return Err(SessionError::Busy);
        }
        self.login_tries = 0;
        let seq = self.dialog.next_seq();
        let mut request = self.dialog.numbered(Method::Info, seq);
        request.headers.push("Content-Type", kind);
        request.body = body;
        let peer = self.dialog.next_hop();
        self.send_inside(now, stack, request, seq, peer);
        Ok(())
    }

    /// They say that they know no such dialog (RFC 3261 §12.2.1.2): there is nobody left to say BYE to.
    pub(super) fn dialog_gone(&mut self, now: Instant, stack: &mut Stack, response: &Response) {
        if self.phase != Phase::Over {
            self.close(now, stack);
            let cause = TerminationCause::Rejected { code: response.code, reason: response.reason.clone() };
            self.conclude(stack, end_by(Side::Them, cause, &response.headers));
        }
    }
}
