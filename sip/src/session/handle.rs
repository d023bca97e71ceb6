//! The face of a session: what its user may ask for, and when.
//!
//! Owns nothing but a borrowed name. Every verb is passed on to the record, and what is asked for at the wrong time is
//! ignored or refused, never done halfway.

use std::time::Instant;

use bytes::Bytes;

use super::Call;
use crate::endpoint::Endpoint;
use crate::headers::Q850;
use crate::stack::Stack;
use crate::uri::Uri;
use crate::{Network, Replaces, SessionError, SessionId};

/// A live session, borrowed from its endpoint. What is asked for at the wrong time is ignored, unless it says otherwise.
pub struct Session<'a> {
    endpoint: &'a mut Endpoint,
    id: SessionId,
    call_id: String,
}

impl<'a> Session<'a> {
    pub(crate) fn new(endpoint: &'a mut Endpoint, id: SessionId, call_id: String) -> Self {
        Self { endpoint, id, call_id }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Call, &mut Stack) -> R) -> Option<R> {
        self.endpoint.with(self.id, act)
    }

    fn asked(
        &mut self,
        act: impl FnOnce(&mut Call, &mut Stack) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        self.with(act).unwrap_or(Err(SessionError::NotConfirmed))
    }

    /// The `Call-ID` of the session.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Takes requests inside the dialog from these, too, beside the addresses of the dialog itself.
    pub fn trust(&mut self, sources: Vec<Network>) {
        self.with(|call, _| call.sources = sources);
    }

    /// Tells a caller that we are on it: 180 to 183 (101 to 199 are sent as asked), with early media or without. A caller
    /// that knows 100rel is told reliably what carries a session description, and one that requires it everything
    /// (RFC 3262 §3): those responses go out one after the other, each when the one before has been acknowledged.
    pub fn ring(&mut self, now: Instant, code: u16, sdp: Option<Bytes>) {
        self.with(|call, stack| call.ring(now, stack, code, sdp));
    }

    /// Accepts a call with 200. `sdp` is our answer, or our offer when the INVITE had none; what has been said reliably
    /// before is not said again. While a reliable response with a session description is unacknowledged the 200 waits
    /// (RFC 3262 §3).
    pub fn answer(&mut self, now: Instant, sdp: Bytes) {
        self.with(|call, stack| call.answer(now, stack, sdp));
    }

    /// Refuses a call, or the offer last reported, with a final status of 300 to 699 (others become 603) and further headers.
    pub fn reject(&mut self, now: Instant, code: u16, headers: &[(&str, String)]) {
        let code = if (300..700).contains(&code) { code } else { 603 };
        self.with(|call, stack| match call.theirs {
            Some(_) => call.refuse_offer(now, stack, code, headers),
            None => call.refuse(now, stack, code, headers),
        });
    }

    /// Answers the offer last reported; to an offer that was none ([`crate::SessionEvent::Offer`] without SDP) this is ours.
    pub fn answer_offer(&mut self, now: Instant, sdp: Bytes) {
        self.with(|call, stack| call.answer_offer(now, stack, sdp));
    }

    /// Offers a change by re-INVITE. A collision with theirs is sorted out underneath (RFC 3261 §14.1).
    ///
    /// # Errors
    /// [`SessionError`], and nothing is sent.
    pub fn reinvite(&mut self, now: Instant, sdp: Bytes) -> Result<(), SessionError> {
        self.asked(|call, stack| call.reinvite(now, stack, sdp))
    }

    /// Offers a change by UPDATE (RFC 3311): in a confirmed session, and before the answer once the first offer has been
    /// answered reliably (RFC 6337 §2.2).
    ///
    /// # Errors
    /// [`SessionError`], and nothing is sent; [`SessionError::Unsupported`] when the far end does not take UPDATE.
    pub fn update(&mut self, now: Instant, sdp: Bytes) -> Result<(), SessionError> {
        self.asked(|call, stack| call.update(now, stack, sdp))
    }

    /// Sends an INFO (RFC 6086).
    ///
    /// # Errors
    /// [`SessionError`], and nothing is sent.
    pub fn info(&mut self, now: Instant, content_type: &str, body: Bytes) -> Result<(), SessionError> {
        self.asked(|call, stack| call.info(now, stack, content_type, body))
    }

    /// Asks the far end to call `to` in our place (RFC 3515): blind, or attended with the dialog that the new call is to
    /// replace (RFC 5589). [`crate::SessionEvent::Transfer`] tells what becomes of it. One at a time.
    ///
    /// # Errors
    /// [`SessionError`], and nothing is sent.
    pub fn refer(&mut self, now: Instant, to: &Uri, replaces: Option<&Replaces>) -> Result<(), SessionError> {
        self.asked(|call, stack| call.refer(now, stack, to, replaces))
    }

    /// The name of this dialog as its far end knows it, for [`Session::refer`] of another session (RFC 3891 §3), and where
    /// that far end is reached. `None` before it is confirmed.
    pub fn replaces(&mut self) -> Option<(Uri, Replaces)> {
        self.with(|call, _| call.replaces()).flatten()
    }

    /// Ends the session: CANCEL (as soon as it may be sent), BYE (as soon as it may be sent) or a refusal with 603.
    /// Asked again, it does nothing.
    pub fn hang_up(&mut self, now: Instant, reason: Option<Q850>) {
        self.with(|call, stack| call.hang_up(now, stack, reason));
    }
}
