//! The half of a session that calls (RFC 3261 §13.2, §9.1).
//!
//! Owns everything up to the answer: the INVITE and its retries with credentials, early dialogs, giving up, and the 2xx that
//! nobody wants any more. Never leaves a far end with a call that we have forgotten.

use std::time::Instant;

use bytes::Bytes;

use super::early::Provisional;
use super::{Ack, CANCEL_REPORT, Call, Cancel, MAX_ACKS, MAX_FORKS, Origin, Phase, end, end_by, set_sdp};
use crate::body::session_description;
use crate::dialog::Dialog;
use crate::headers::{NameAddr, Q850, split_list};
use crate::message::{Headers, Method, Response};
use crate::parse::{Core, MAX_MESSAGE};
use crate::stack::{Failure, Stack};
use crate::transaction::TxId;
use crate::uri::Uri;
use crate::{EarlyId, InviteError, SessionEvent, SessionId, Side, Target, TerminationCause};

/// Room that a datagram must leave for `Via`, credentials and what IP and UDP need, in bytes.
const HEADROOM: usize = 2_048;

/// Headers that only we write.
const OWN_HEADERS: &[&str] = &[
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Route",
    "Record-Route",
    "Content-Length",
    "Content-Type",
    "Allow",
    "User-Agent",
    "Authorization",
    "Proxy-Authorization",
    "Require",
    "Supported",
    "Session-Expires",
    "Min-SE",
];

fn check(target: &Target) -> Result<(), InviteError> {
    if target.from_display.as_deref().is_some_and(|display| display.chars().any(char::is_control)) {
        return Err(InviteError::Display);
    }
    for (at, (name, value)) in target.headers.iter().enumerate() {
        let token = !name.is_empty() && name.bytes().all(crate::message::is_token);
        let mut named = Headers::new();
        named.push(if token { name } else { "-" }, "");
        let ours = named.iter().any(|(name, _)| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)));
        if !token || ours || value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(InviteError::Header(at));
        }
    }
    Ok(())
}

impl Call {
    /// Begins a call of ours: sends the INVITE.
    pub(crate) fn outgoing(
        now: Instant,
        stack: &mut Stack,
        id: SessionId,
        target: Target,
        offer: Bytes,
    ) -> Result<Self, InviteError> {
        check(&target)?;
        let (call_id, tag) = (stack.token(16), stack.token(8));
        let local = NameAddr { display: target.from_display, ..NameAddr::new(target.from) }.with_tag(&tag);
        let user = local.uri.as_sip().and_then(|uri| uri.user.clone());
        let contact = stack.contact(user.as_deref(), target.peer);
        let remote = NameAddr::new(target.uri.clone());
        let mut dialog = Dialog::outgoing(call_id, local, remote, target.uri.for_request_line(), target.peer);
        let seq = dialog.next_seq();
        let mut invite = dialog.numbered(Method::Invite, seq);
        let origin = Origin {
            id,
            dialog,
            phase: Phase::Calling,
            invite: 0,
            contact,
            credentials: target.credentials,
            sources: target.sources,
            caller: true,
        };
        let mut call = Self::new(origin);
        call.present(&mut invite.headers);
        call.propose_timer(stack, &mut invite.headers);
        call.described = offer.clone();
        invite.headers.push("User-Agent", stack.config.user_agent.clone());
        for (name, value) in &target.headers {
            invite.headers.push(name, value.clone());
        }
        set_sdp(&mut invite.headers, &mut invite.body, Some(offer));
        if invite.to_bytes().len() > MAX_MESSAGE - HEADROOM {
            return Err(InviteError::TooLarge);
        }
        call.no_response = target.no_response_timeout;
        call.no_response_at = Some(now + call.no_response);
        call.invite = stack.start(now, id, invite, seq, target.peer);
        Ok(call)
    }

    pub(super) fn invite_response(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        tx: TxId,
        core: &Core,
        response: &Response,
    ) {
        self.no_response_at = None;
        match response.code {
            ..200 => self.provisional(now, stack, core, response),
            200..300 => self.success(now, stack, tx, core, response),
            _ => self.refused(now, stack, tx, response),
        }
    }

    fn provisional(&mut self, now: Instant, stack: &mut Stack, core: &Core, response: &Response) {
        if self.phase == Phase::Calling {
            self.phase = Phase::Proceeding;
        }
        if self.cancel != Cancel::No {
            return self.pursue_cancel(now, stack);
        }
        if response.code == 100 {
            if !std::mem::replace(&mut self.trying_told, true) {
                self.emit(stack, SessionEvent::Trying);
            }
            return;
        }
        self.peer_presents(&response.headers);
        let sdp = session_description(&response.headers, &response.body).ok().flatten();
        let Provisional::New(at) = self.hear_early(now, stack, core, response, sdp.as_ref()) else { return };
        let dialog = EarlyId(u8::try_from(at).unwrap_or(u8::MAX));
        let progress =
            SessionEvent::Progress { code: response.code, reason: response.reason.clone(), dialog, sdp };
        self.emit(stack, progress);
    }

    /// A 2xx to an INVITE of ours, the first or a later one, wanted or not (RFC 3261 §13.2.2.4, §14.1).
    pub(super) fn success(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        tx: TxId,
        core: &Core,
        response: &Response,
    ) {
        let (tag, seq) = (core.to.tag().unwrap_or(""), core.cseq.seq);
        if let Some(ack) = self.acks.iter().find(|ack| ack.seq == seq && ack.tag == tag) {
            let (peer, bytes) = (ack.peer, ack.bytes.clone());
            return stack.send(peer, bytes);
        }
        if tx != self.invite || !self.caller {
            self.dialog.refresh_target(&response.headers);
            let dialog = self.dialog.clone();
            self.acknowledge(stack, tx, &dialog, seq, tag);
            return self.ours_answered(now, stack, tx, response);
        }
        let mut dialog = self.dialog.established(&core.to, &response.headers);
        let waiting = matches!(self.phase, Phase::Calling | Phase::Proceeding);
        if waiting && !self.told && self.cancel == Cancel::No {
            let early = self.early_by(tag).and_then(|early| {
                dialog = dialog.clone().counted_like(&early.dialog);
                early.sdp.take()
            });
            self.dialog = dialog.clone();
            self.acknowledge(stack, tx, &dialog, seq, tag);
            let sdp = session_description(&response.headers, &response.body).ok().flatten().or(early);
            return self.confirmed(now, stack, response, sdp);
        }
        if self.acks.iter().filter(|ack| ack.seq == seq).count() >= MAX_FORKS {
            return;
        }
        // Nobody waits for this one: given up, or another fork was faster.
        if waiting {
            self.dialog = dialog.clone();
            self.close(now, stack);
        }
        self.acknowledge(stack, tx, &dialog, seq, tag);
        let bye = self.dialog.next_seq();
        self.send_bye_in(now, stack, &dialog, bye, None);
        if waiting {
            self.conclude(stack, end(Side::Us, TerminationCause::Cancelled));
        }
    }

    /// The first far end has answered: the others are none of ours any more.
    fn confirmed(&mut self, now: Instant, stack: &mut Stack, response: &Response, sdp: Option<Bytes>) {
        self.phase = Phase::Confirmed;
        self.early = Vec::new();
        self.peer_presents(&response.headers);
        self.timer_answered(now, &response.headers);
        let tag = self.dialog.remote_tag();
        let lost = self.ours.take_if(|ours| ours.early.as_deref().is_some_and(|early| early != tag));
        self.emit(stack, SessionEvent::Answered { sdp });
        if lost.is_some() {
            self.emit(stack, SessionEvent::OfferRefused { code: 481 });
        }
    }

    /// Sends the ACK of a 2xx with the credentials of its INVITE (RFC 3261 §13.2.2.4), and keeps it.
    fn acknowledge(&mut self, stack: &mut Stack, tx: TxId, dialog: &Dialog, seq: u32, tag: &str) {
        let mut ack = dialog.numbered(Method::Ack, seq);
        if let Some(invite) = stack.clients.get(tx) {
            ack.headers.copy(&invite.request.headers, "Authorization");
            ack.headers.copy(&invite.request.headers, "Proxy-Authorization");
        }
        ack.headers.push("User-Agent", stack.config.user_agent.clone());
        let peer = dialog.next_hop();
        let bytes = stack.send_ack(ack, peer);
        if self.acks.len() >= MAX_ACKS {
            self.acks.remove(0);
        }
        self.acks.push(Ack { tag: tag.to_owned(), seq, peer, bytes });
    }

    fn refused(&mut self, now: Instant, stack: &mut Stack, tx: TxId, response: &Response) {
        let given_up = self.told || self.cancel != Cancel::No;
        let again = if given_up {
            None
        } else {
            self.login(now, stack, tx, response).or_else(|| self.invite_longer(now, stack, tx, response))
        };
        if let Some(retry) = again {
            self.invite = retry;
            self.phase = Phase::Calling;
            // Some carriers have nothing to say to wrong credentials.
            self.no_response_at = Some(now + self.no_response);
            return;
        }
        self.close(now, stack);
        let headers = &response.headers;
        if given_up {
            return self.conclude(stack, end_by(Side::Us, TerminationCause::Cancelled, headers));
        }
        let code = response.code;
        let cause = if code < 400 {
            TerminationCause::Redirected { code, contacts: contacts(headers) }
        } else {
            TerminationCause::Rejected { code, reason: response.reason.clone() }
        };
        self.conclude(stack, end_by(Side::Them, cause, headers));
    }

    pub(super) fn invite_failed(&mut self, now: Instant, stack: &mut Stack, failure: Failure) {
        if self.phase == Phase::Over {
            return;
        }
        let given_up = self.cancel != Cancel::No;
        self.close(now, stack);
        let termination = match failure {
            _ if given_up => end(Side::Us, TerminationCause::Cancelled),
            Failure::TimedOut => end(Side::Nobody, TerminationCause::TimedOut),
            Failure::Transport => end(Side::Nobody, TerminationCause::Transport),
        };
        self.conclude(stack, termination);
    }

    /// The user gives up before the answer.
    pub(super) fn give_up(&mut self, now: Instant, stack: &mut Stack, reason: Option<Q850>) {
        if self.cancel == Cancel::No {
            self.cancel = Cancel::Wanted(reason);
            self.no_response_at = None;
            if !self.told {
                self.report_at = Some(now + CANCEL_REPORT);
            }
            self.pursue_cancel(now, stack);
        }
    }

    /// Sends the CANCEL once it may be sent: not before a provisional response (RFC 3261 §9.1).
    fn pursue_cancel(&mut self, now: Instant, stack: &mut Stack) {
        if self.phase != Phase::Proceeding {
            return;
        }
        if let Cancel::Wanted(reason) = std::mem::replace(&mut self.cancel, Cancel::Sent) {
            stack.cancel(now, self.invite, reason.map(|reason| reason.to_string()));
            // They might never confirm it (RFC 3261 §9.1): then the INVITE is forgotten.
            stack.limit_client(now, self.invite);
        }
    }

    /// Nobody answered at all. The user is told; should someone answer yet, it is cancelled. The INVITE goes on being
    /// repeated: it may have arrived and only its answers been lost, and then nothing else would stop the ringing.
    pub(super) fn no_response(&mut self, stack: &mut Stack) {
        self.cancel = Cancel::Wanted(None);
        self.conclude(stack, end(Side::Nobody, TerminationCause::NoResponse));
    }
}

fn contacts(headers: &Headers) -> Vec<Uri> {
    let addresses =
        headers.get_all("Contact").flat_map(split_list).filter_map(|c| c.parse::<NameAddr>().ok());
    addresses.map(|address| address.uri).take(MAX_FORKS).collect()
}
