//! The half of a session that is called (RFC 3261 §13.3, §9.2).
//!
//! Owns everything up to the ACK: ringing, the answer and its repetition, refusing, being cancelled. Never answers an INVITE
//! twice.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::reliable::Reliable;
use super::{Call, Origin, Phase, Unacked, end, end_by, set_sdp};
use crate::body::session_description;
use crate::dialog::Dialog;
use crate::message::{Headers, Method, Request, Response, reason_phrase};
use crate::parse::Core;
use crate::stack::Stack;
use crate::transaction::TxId;
use crate::{Invite, Peer, SessionEvent, SessionId, Side, TerminationCause};

/// How often a provisional response is repeated, so that proxies do not give up on the call (RFC 3261 §13.3.1.1).
const RINGING_REFRESH: Duration = Duration::from_secs(60);

/// An INVITE that begins a session, with all that has been read of it.
pub(crate) struct Incoming<'a> {
    pub(crate) request: &'a Request,
    pub(crate) core: &'a Core,
    pub(crate) sdp: Option<Bytes>,
    /// Where it came from.
    pub(crate) from: Peer,
    /// Where responses go.
    pub(crate) reply: Peer,
}

impl Call {
    /// Begins a session of theirs: 100, and the user is told.
    pub(crate) fn incoming(now: Instant, stack: &mut Stack, id: SessionId, incoming: Incoming<'_>) -> Self {
        let Incoming { request, core, sdp, from, reply } = incoming;
        let tx = stack.serve(id, core, request, reply);
        let local = core.to.clone().with_tag(&stack.token(8));
        let user = request.uri.as_sip().and_then(|uri| uri.user.clone());
        let contact = stack.contact(user.as_deref(), from);
        let dialog =
            Dialog::incoming(&core.call_id, local, core.from.clone(), core.cseq.seq, &request.headers, from);
        let origin = Origin {
            id,
            dialog,
            phase: Phase::Ringing,
            invite: tx,
            contact,
            credentials: None,
            sources: Vec::new(),
            caller: false,
        };
        let mut call = Self::new(origin);
        call.offerless = sdp.is_none();
        call.reliable = Reliable::for_caller(&request.headers, 1 + stack.below(1 << 30));
        call.peer_presents(&request.headers);
        let trying = stack.response(&request.headers, 100, "");
        stack.respond(now, tx, &trying);
        let invite = Invite {
            request_uri: request.uri.clone(),
            from: core.from.clone(),
            to: core.to.clone(),
            peer: from,
            sdp,
            call_id: core.call_id.clone(),
            headers: request.headers.clone(),
        };
        call.emit(stack, SessionEvent::Invited(Box::new(invite)));
        call
    }

    /// A response to a request that we serve, with our tag.
    pub(super) fn reply_to(&self, stack: &Stack, tx: TxId, code: u16) -> Option<Response> {
        let headers = &stack.servers.get(tx)?.request.headers;
        let mut response = stack.response(headers, code, self.dialog.local_tag());
        if (101..300).contains(&code) {
            response.headers.copy(headers, "Record-Route");
        }
        Some(response)
    }

    /// Answers a request with a status and no more.
    pub(super) fn reply(&self, now: Instant, stack: &mut Stack, tx: TxId, code: u16) {
        if let Some(response) = self.reply_to(stack, tx, code) {
            stack.respond(now, tx, &response);
        }
    }

    pub(super) fn ring(&mut self, now: Instant, stack: &mut Stack, code: u16, sdp: Option<Bytes>) {
        if self.phase != Phase::Ringing || !(101..200).contains(&code) {
            return;
        }
        self.refresh_at = Some(now + RINGING_REFRESH);
        if let Some(said) = &sdp {
            self.described = said.clone();
        }
        if self.reliable.as_ref().is_some_and(|reliable| reliable.required || sdp.is_some()) {
            return self.ring_reliably(now, stack, code, sdp);
        }
        let Some(mut response) = self.reply_to(stack, self.invite, code) else { return };
        self.present(&mut response.headers);
        set_sdp(&mut response.headers, &mut response.body, sdp);
        stack.respond(now, self.invite, &response);
    }

    pub(super) fn refresh_ringing(&mut self, now: Instant, stack: &mut Stack) {
        if self.phase == Phase::Ringing {
            stack.respond_again(self.invite);
            self.refresh_at = Some(now + RINGING_REFRESH);
        }
    }

    pub(super) fn answer(&mut self, now: Instant, stack: &mut Stack, sdp: Bytes) {
        if self.phase != Phase::Ringing || self.answer_waits(&sdp) {
            return;
        }
        let Some(invite) = stack.servers.get(self.invite) else { return };
        let seq = crate::parse::cseq_of(&invite.request.headers);
        self.phase = Phase::Answered;
        self.refresh_at = None;
        let said = self.reliable.as_ref().is_some_and(|reliable| reliable.described);
        let sdp = (!said).then_some(sdp);
        self.accept(now, stack, self.invite, seq, sdp, true, self.offerless && !said);
        stack.remember(now, self.id, None);
    }

    /// Sends a 200 to an INVITE and repeats it until the ACK comes (RFC 3261 §13.3.1.4).
    #[expect(clippy::too_many_arguments, reason = "each says one thing about one response")]
    pub(super) fn accept(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        tx: TxId,
        seq: u32,
        sdp: Option<Bytes>,
        first: bool,
        offered: bool,
    ) {
        let Some(mut response) = self.reply_to(stack, tx, 200) else { return };
        self.present(&mut response.headers);
        if let Some(sdp) = &sdp {
            self.described = sdp.clone();
        }
        set_sdp(&mut response.headers, &mut response.body, sdp);
        let Some(served) = stack.servers.get(tx) else { return };
        let peer = served.peer;
        self.grant_timer(now, stack, &served.request.headers, &mut response.headers);
        if let Some(bytes) = stack.respond(now, tx, &response) {
            let timers = stack.config.timers;
            let give_up = now + timers.patience();
            // Even a reliable transport is only reliable to the next hop, so the answer is repeated there, too.
            self.unacked = Some(Unacked {
                seq,
                bytes,
                peer,
                first,
                offered,
                next: now + timers.t1,
                interval: timers.t1,
                give_up,
            });
        }
    }

    /// Repeats a 200, or gives up on its ACK: then the call is ended by BYE.
    pub(super) fn repeat_answer(&mut self, now: Instant, stack: &mut Stack) {
        let Some(unacked) = &mut self.unacked else { return };
        if now < unacked.give_up {
            unacked.interval = (unacked.interval * 2).min(stack.config.timers.t2);
            unacked.next = now + unacked.interval;
            let (peer, bytes) = (unacked.peer, unacked.bytes.clone());
            return stack.send(peer, bytes);
        }
        self.unacked = None;
        let reason = self.bye_after_ack.take().flatten();
        self.send_bye(now, stack, reason);
        self.close(now, stack);
        self.conclude(stack, end(Side::Nobody, TerminationCause::TimedOut));
    }

    /// An ACK inside the dialog.
    pub(crate) fn acknowledged(&mut self, now: Instant, stack: &mut Stack, core: &Core, request: &Request) {
        let Some(unacked) = self.unacked.take_if(|unacked| unacked.seq == core.cseq.seq) else { return };
        if let Some(reason) = self.bye_after_ack.take() {
            return self.send_bye(now, stack, reason);
        }
        let sdp = session_description(&request.headers, &request.body).ok().flatten();
        let sdp = sdp.filter(|_| unacked.offered);
        if unacked.first {
            self.phase = Phase::Confirmed;
            self.reliable = None;
            self.emit(stack, SessionEvent::Confirmed { sdp });
        } else if unacked.offered {
            self.emit(stack, SessionEvent::OfferAnswered { sdp });
        }
    }

    /// Refuses the call.
    pub(super) fn refuse(&mut self, now: Instant, stack: &mut Stack, code: u16, headers: &[(&str, String)]) {
        if self.phase != Phase::Ringing {
            return;
        }
        self.finish_invite(now, stack, code, headers);
        let cause = TerminationCause::Rejected { code, reason: reason_phrase(code).to_owned() };
        self.conclude(stack, end(Side::Us, cause));
    }

    /// Sends the final refusal, and keeps it for those who ask again.
    pub(super) fn finish_invite(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        code: u16,
        headers: &[(&str, String)],
    ) {
        if let Some(mut response) = self.reply_to(stack, self.invite, code) {
            for (name, value) in headers {
                response.headers.push(name, value.clone());
            }
            stack.respond(now, self.invite, &response);
            let mut kept = Response::new(code);
            for (name, value) in headers {
                kept.headers.push(name, value.clone());
            }
            stack.remember(now, self.id, Some((kept, self.dialog.local_tag().to_owned())));
        }
        self.close(now, stack);
    }

    /// A CANCEL for an INVITE that we serve: it is answered 487, if it still can be.
    pub(crate) fn cancelled(&mut self, now: Instant, stack: &mut Stack, tx: TxId, headers: &Headers) {
        if tx == self.invite && self.phase == Phase::Ringing {
            self.finish_invite(now, stack, 487, &[]);
            self.conclude(stack, end_by(Side::Them, TerminationCause::Cancelled, headers));
        } else if self
            .theirs
            .as_ref()
            .is_some_and(|theirs| theirs.tx == tx && theirs.method == Method::Invite)
        {
            self.theirs = None;
            self.reply(now, stack, tx, 487);
        }
    }

    /// Their BYE (RFC 3261 §15.1.2).
    pub(super) fn bye(&mut self, now: Instant, stack: &mut Stack, tx: TxId, headers: &Headers) {
        self.reply(now, stack, tx, 200);
        if self.phase == Phase::Over {
            self.unacked = None;
            return;
        }
        if self.phase == Phase::Ringing {
            self.finish_invite(now, stack, 487, &[]);
        }
        self.close(now, stack);
        self.unacked = None;
        self.conclude(stack, end_by(Side::Them, TerminationCause::Bye, headers));
    }
}
