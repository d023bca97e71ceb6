//! Early dialogs of our calls: one for each far end that a proxy forked to (RFC 3261 §12.1, §13.2.2.4), and the
//! acknowledgement of what they say reliably (RFC 3262 §4).
//!
//! Owns tags, numbers and targets before the answer. Never decides which far end wins: the first 2xx does that.

use std::time::Instant;

use bytes::Bytes;

use super::{Call, MAX_FORKS, Phase};
use crate::dialog::Dialog;
use crate::headers::read_number;
use crate::message::{Headers, Method, Response};
use crate::parse::Core;
use crate::stack::Stack;

/// One far end before it has answered.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) dialog: Dialog,
    /// The `RSeq` of its last reliable response.
    rseq: Option<u32>,
    /// It has answered our offer reliably, so that either side may make a further one (RFC 3311 §5.1).
    pub(super) agreed: bool,
    /// What it last said of its media: counts as its answer when its 2xx says nothing.
    pub(super) sdp: Option<Bytes>,
}

/// What a provisional response is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provisional {
    /// Something new from the far end at this place.
    New(usize),
    /// A repetition, or one that came before its time: nobody is told.
    Again,
}

/// Whether a response must be acknowledged by PRACK.
fn reliable(headers: &Headers) -> Option<u32> {
    let required = headers.list("Require").any(|tag| tag.eq_ignore_ascii_case("100rel"));
    headers.get("RSeq").and_then(read_number).filter(|_| required)
}

impl Call {
    /// The early dialog of a far end by its tag.
    pub(super) fn early_by(&mut self, tag: &str) -> Option<&mut Early> {
        self.early.iter_mut().find(|early| early.dialog.remote_tag() == tag)
    }

    /// Takes note of a provisional response that has a body of its own or none, and acknowledges it if it asks for that.
    pub(super) fn hear_early(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        core: &Core,
        response: &Response,
        sdp: Option<&Bytes>,
    ) -> Provisional {
        let tag = core.to.tag().unwrap_or("");
        let at = match self.early.iter().position(|early| early.dialog.remote_tag() == tag) {
            Some(at) => at,
            None if self.early.len() < MAX_FORKS => {
                let dialog = self.dialog.established(&core.to, &response.headers);
                self.early.push(Early { dialog, rseq: None, agreed: false, sdp: None });
                self.early.len() - 1
            }
            // One more than can be told apart: heard, but not spoken to.
            None => return Provisional::New(self.early.len() - 1),
        };
        let rseq = reliable(&response.headers).filter(|_| !tag.is_empty());
        let early = &mut self.early[at];
        if let (Some(rseq), Some(last)) = (rseq, early.rseq)
            && rseq != last.wrapping_add(1)
        {
            return Provisional::Again;
        }
        if response.headers.has("Contact") {
            early.dialog = self.dialog.established(&core.to, &response.headers).counted_like(&early.dialog);
        }
        if let Some(sdp) = sdp {
            early.sdp = Some(sdp.clone());
        }
        if let Some(rseq) = rseq {
            early.rseq = Some(rseq);
            early.agreed |= sdp.is_some();
            self.prack(now, stack, at, rseq, core.cseq.seq);
        }
        Provisional::New(at)
    }

    /// Acknowledges a reliable response of the far end at that place.
    fn prack(&mut self, now: Instant, stack: &mut Stack, at: usize, rseq: u32, invite: u32) {
        let seq = self.dialog.next_seq();
        let dialog = &self.early[at].dialog;
        let mut request = dialog.numbered(Method::Prack, seq);
        request.headers.push("RAck", format!("{rseq} {invite} INVITE"));
        let peer = dialog.next_hop();
        self.login_tries = 0;
        self.send_inside(now, stack, request, seq, peer);
    }

    /// The dialog in which a change can be offered now: the confirmed one, or the newest early one that has agreed.
    pub(super) fn agreed_dialog(&self) -> Option<&Dialog> {
        match self.phase {
            Phase::Confirmed => Some(&self.dialog),
            Phase::Ringing => self.reliable.as_ref().filter(|r| r.agreed).map(|_| &self.dialog),
            Phase::Proceeding => {
                self.early.iter().rev().find(|early| early.agreed).map(|early| &early.dialog)
            }
            Phase::Calling | Phase::Answered | Phase::Over => None,
        }
    }
}
