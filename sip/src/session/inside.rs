//! Requests inside a dialog, theirs and ours (RFC 3261 §12.2, §14; RFC 3311, RFC 6086).
//!
//! Owns offers after the first, their collisions, and what every other method is answered with. Never lets two offers be
//! open at once.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Call, Ours, Phase, Theirs, end_by, set_sdp};
use crate::body::session_description;
use crate::dialog::Order;
use crate::message::{Method, Request, Response};
use crate::parse::Core;
use crate::stack::{Failure, Stack};
use crate::transaction::TxId;
use crate::{ALLOW, Peer, SessionError, SessionEvent, Side, TerminationCause};

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
        let other = core.from.tag().unwrap_or("") != self.dialog.remote_tag();
        if other && matches!(self.phase, Phase::Answered | Phase::Confirmed) {
            let code = if request.method == Method::Bye { 200 } else { 481 };
            return self.reply(now, stack, tx, code);
        }
        match self.dialog.accept_seq(core.cseq.seq) {
            Order::Newer => {}
            Order::Older => return self.reply(now, stack, tx, 500),
            Order::Same => return self.reply(now, stack, tx, 482),
        }
        // Whatever a BYE requires besides: the call is over for them.
        if request.method != Method::Bye && request.headers.list("Require").next().is_some() {
            let unsupported: Vec<&str> = request.headers.list("Require").collect();
            return self.reply_with(now, stack, tx, 420, &[("Unsupported", unsupported.join(", "))]);
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
                    ("Supported", String::new()),
                ];
                self.reply_with(now, stack, tx, 200, &says);
            }
            Method::Notify => self.reply(now, stack, tx, 200),
            Method::Refer => self.reply(now, stack, tx, 603),
            Method::Prack => self.reply(now, stack, tx, 481),
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
        if !invite && sdp.is_none() {
            self.dialog.refresh_target(&request.headers);
            return self.agree(now, stack, tx, None);
        }
        // Ours has been sent and not answered: both withdraw and try again at different times.
        let colliding = self.ours.as_ref().is_some_and(|ours| ours.tx.is_some());
        if colliding || matches!(self.phase, Phase::Calling | Phase::Proceeding) {
            return self.reply(now, stack, tx, 491);
        }
        if self.theirs.is_some() || self.unacked.is_some() || self.phase == Phase::Ringing {
            let seconds = stack.below(11);
            return self.reply_with(now, stack, tx, 500, &[("Retry-After", seconds.to_string())]);
        }
        self.dialog.refresh_target(&request.headers);
        self.theirs =
            Some(Theirs { tx, seq: core.cseq.seq, method: request.method.clone(), offerless: sdp.is_none() });
        if invite {
            self.reply(now, stack, tx, 100);
        }
        self.emit(stack, SessionEvent::Offer { sdp });
    }

    /// A 200 to an UPDATE.
    fn agree(&mut self, now: Instant, stack: &mut Stack, tx: TxId, sdp: Option<Bytes>) {
        let Some(mut response) = self.reply_to(stack, tx, 200) else { return };
        self.present(&mut response.headers);
        set_sdp(&mut response.headers, &mut response.body, sdp);
        stack.respond(now, tx, &response);
    }

    pub(super) fn answer_offer(&mut self, now: Instant, stack: &mut Stack, sdp: Bytes) {
        let Some(theirs) = self.theirs.take() else { return };
        if theirs.method == Method::Invite {
            self.accept(now, stack, theirs.tx, theirs.seq, Some(sdp), false, theirs.offerless);
        } else {
            self.agree(now, stack, theirs.tx, Some(sdp));
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
        if self.ours.is_some() || self.theirs.is_some() || self.unacked.is_some() {
            return Err(SessionError::Pending);
        }
        if stack.is_full() {
            return Err(SessionError::Busy);
        }
        self.login_tries = 0;
        self.ours = Some(Ours { sdp, tx: None, retry_at: None, tries: 0 });
        self.send_reinvite(now, stack);
        Ok(())
    }

    fn send_reinvite(&mut self, now: Instant, stack: &mut Stack) {
        let Some(sdp) = self.ours.as_ref().map(|ours| ours.sdp.clone()) else { return };
        let seq = self.dialog.next_seq();
        let mut request = self.dialog.numbered(Method::Invite, seq);
        self.present(&mut request.headers);
        set_sdp(&mut request.headers, &mut request.body, Some(sdp));
        let peer = self.dialog.next_hop();
        let tx = self.send_inside(now, stack, request, seq, peer);
        self.ours_moved(tx);
    }

    pub(super) fn ours_moved(&mut self, tx: TxId) {
        if let Some(ours) = &mut self.ours {
            ours.tx = Some(tx);
        }
    }

    pub(super) fn reinvite_answered(&mut self, stack: &mut Stack, tx: TxId, response: &Response) {
        if self.ours.take_if(|ours| ours.tx == Some(tx)).is_some() {
            let sdp = session_description(&response.headers, &response.body).ok().flatten();
            self.emit(stack, SessionEvent::OfferAnswered { sdp });
        }
    }

    pub(super) fn reinvite_refused(&mut self, now: Instant, stack: &mut Stack, code: u16) {
        if code == 481 {
            return self.dialog_gone(now, stack, &Response::new(481));
        }
        if code == 408 {
            return self.lost(now, stack, Failure::TimedOut);
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
        self.ours = None;
        self.emit(stack, SessionEvent::OfferRefused { code });
    }

    /// The time after a collision has passed. An offer of theirs that is being dealt with goes first.
    pub(super) fn retry_reinvite(&mut self, now: Instant, stack: &mut Stack) {
        if self.phase != Phase::Confirmed {
            return;
        }
        if self.theirs.is_some() || self.unacked.is_some() || stack.is_full() {
            if let Some(ours) = &mut self.ours {
                ours.retry_at = Some(now + stack.config.timers.t1);
            }
            return;
        }
        self.send_reinvite(now, stack);
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
