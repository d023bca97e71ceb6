//! Requests of ours outside of any dialog: OPTIONS that ask whether someone is there (RFC 3261 §11) and registrations
//! (RFC 3261 §10).
//!
//! Owns their transactions; what a registration does next is [`crate::register`]'s. Never touches a session.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::headers::{CSeq, NameAddr};
use crate::message::{Method, Request, Response};
use crate::register::{Next, RegisterEvent, Registrar, Registration};
use crate::stack::{Due, Failure};
use crate::uri::Uri;
use crate::{ALLOW, InviteError, Peer, SessionId};

/// Most errands at a time.
const ERRANDS_MAX: usize = 10_000;

/// Names an errand within its endpoint; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrandId(SessionId);

/// What became of an errand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrandEvent {
    /// OPTIONS was answered, whatever the status: someone is there. The last event.
    Answered {
        /// The status.
        code: u16,
        /// Its phrase.
        reason: String,
        /// How long it took.
        after: Duration,
    },
    /// OPTIONS was not answered, or could not be sent. The last event.
    Unanswered,
    /// A registration; [`RegisterEvent::Unregistered`] is the last.
    Registration(RegisterEvent),
}

#[derive(Debug)]
pub(super) enum Errand {
    Options { since: Instant },
    Registration(Box<Registration>),
}

/// Events that were not fetched yet.
pub(super) type Events = VecDeque<(ErrandId, ErrandEvent)>;

impl Endpoint {
    /// Asks whether someone is there. Ends with [`ErrandEvent::Answered`] or, after `64*T1`, [`ErrandEvent::Unanswered`].
    ///
    /// # Errors
    /// [`InviteError::Busy`], and nothing is sent.
    pub fn options(
        &mut self,
        now: Instant,
        uri: Uri,
        from: Uri,
        peer: Peer,
    ) -> Result<ErrandId, InviteError> {
        self.errand_room()?;
        let id = self.new_session_id();
        let (call_id, tag) = (self.stack.token(16), self.stack.token(8));
        let mut request = Request::new(Method::Options, uri.for_request_line());
        let headers = &mut request.headers;
        headers.push("Max-Forwards", "70");
        headers.push("From", NameAddr::new(from).with_tag(&tag).to_string());
        headers.push("To", NameAddr::new(uri).to_string());
        headers.push("Call-ID", call_id);
        headers.push("CSeq", CSeq { seq: 1, method: Method::Options }.to_string());
        headers.push("Contact", self.stack.contact(None, peer));
        headers.push("Accept", "application/sdp");
        headers.push("User-Agent", self.stack.config.user_agent.clone());
        self.errands.insert(id, Errand::Options { since: now });
        self.stack.start(now, id, request, 1, peer);
        Ok(ErrandId(id))
    }

    /// Registers, and keeps the registration until [`Endpoint::unregister`].
    ///
    /// # Errors
    /// [`InviteError::Busy`], and nothing is sent.
    pub fn register(&mut self, now: Instant, target: Registrar) -> Result<ErrandId, InviteError> {
        self.errand_room()?;
        let id = self.new_session_id();
        let (call_id, tag) = (self.stack.token(16), self.stack.token(8));
        let user = target.address.as_sip().and_then(|uri| uri.user.clone());
        let contact = self.stack.contact(user.as_deref(), target.peer);
        let registration = Registration::new(now, target, call_id, tag, contact);
        self.errands.insert(id, Errand::Registration(Box::new(registration)));
        self.errand_due(now, id);
        Ok(ErrandId(id))
    }

    /// Gives a registration up; the registrar is told. Ends with [`RegisterEvent::Unregistered`].
    pub fn unregister(&mut self, now: Instant, id: ErrandId) {
        if let Some(Errand::Registration(registration)) = self.errands.get_mut(&id.0) {
            let next = registration.leave();
            self.errand_next(now, id.0, next);
        }
    }

    /// The next thing that happened to an errand.
    pub fn poll_errand(&mut self) -> Option<(ErrandId, ErrandEvent)> {
        self.errand_events.pop_front()
    }

    fn errand_room(&self) -> Result<(), InviteError> {
        let full = self.errands.len() >= ERRANDS_MAX || self.stack.is_full();
        if full { Err(InviteError::Busy) } else { Ok(()) }
    }

    pub(super) fn is_errand(&self, owner: SessionId) -> bool {
        self.errands.contains_key(&owner)
    }

    /// A deadline of an errand, or its beginning: what is due is sent.
    pub(super) fn errand_due(&mut self, now: Instant, id: SessionId) {
        let Some(Errand::Registration(registration)) = self.errands.get_mut(&id) else { return };
        let due = registration.deadline().is_some_and(|at| at <= now);
        if due {
            self.send_register(now, id);
        }
    }

    fn send_register(&mut self, now: Instant, id: SessionId) {
        let (cnonce, random) = (self.stack.token(16), self.stack.below(u32::MAX));
        let full = self.stack.is_full();
        let Some(Errand::Registration(registration)) = self.errands.get_mut(&id) else { return };
        if full {
            let next = registration.failed(now, "too many transactions", random);
            return self.errand_next(now, id, next);
        }
        let (mut request, seq) = registration.request(&cnonce);
        let peer = registration.peer();
        request.headers.push("Allow", ALLOW);
        request.headers.push("User-Agent", self.stack.config.user_agent.clone());
        self.stack.deadlines.set(Due::Session(id), None);
        self.stack.start(now, id, request, seq, peer);
    }

    fn errand_next(&mut self, now: Instant, id: SessionId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Again => self.send_register(now, id),
            Next::Tell(event) => {
                let over = event == RegisterEvent::Unregistered;
                self.errand_events.push_back((ErrandId(id), ErrandEvent::Registration(event)));
                if over {
                    self.errands.remove(&id);
                }
                let due = match self.errands.get(&id) {
                    Some(Errand::Registration(registration)) => registration.deadline(),
                    Some(Errand::Options { .. }) | None => None,
                };
                self.stack.deadlines.set(Due::Session(id), due);
            }
        }
    }

    /// A response to an errand's request.
    pub(super) fn errand_response(&mut self, now: Instant, id: SessionId, response: &Response) {
        let random = self.stack.below(u32::MAX);
        match self.errands.get_mut(&id) {
            Some(Errand::Options { since }) if response.code >= 200 => {
                let after = now.saturating_duration_since(*since);
                let (code, reason) = (response.code, response.reason.clone());
                self.errands.remove(&id);
                self.errand_events.push_back((ErrandId(id), ErrandEvent::Answered { code, reason, after }));
            }
            Some(Errand::Registration(registration)) => {
                let next = registration.answered(now, response, random);
                self.errand_next(now, id, next);
            }
            Some(Errand::Options { .. }) | None => {}
        }
    }

    /// An errand's request ended without a final response.
    pub(super) fn errand_failed(&mut self, now: Instant, id: SessionId, failure: Failure) {
        let random = self.stack.below(u32::MAX);
        match self.errands.get_mut(&id) {
            Some(Errand::Options { .. }) => {
                self.errands.remove(&id);
                self.errand_events.push_back((ErrandId(id), ErrandEvent::Unanswered));
            }
            Some(Errand::Registration(registration)) => {
                let why = match failure {
                    Failure::TimedOut => "no answer",
                    Failure::Transport => "cannot be reached",
                };
                let next = registration.failed(now, why, random);
                self.errand_next(now, id, next);
            }
            None => {}
        }
    }
}
