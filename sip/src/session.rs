//! A session: the life of one INVITE, from either side (RFC 3261 §13, §14, §15; RFC 3326; RFC 6026).
//!
//! Owns the order of things: what may be sent now, what a response means, when the end is told. [`uac`] is the half that
//! calls, with its [`early`] dialogs; [`uas`] the half that is called, with what it says [`reliable`]ly; [`inside`] what both
//! share once there is a dialog, with the session [`timer`] and transfers ([`refer`]). [`handle`] is what users hold. Never
//! reads SDP.
//! The end is told at once where our wish decides it, and the wire is cleaned up underneath: the record lingers until its
//! last transaction is gone.

mod early;
mod handle;
mod inside;
mod refer;
mod reliable;
mod timer;
mod uac;
mod uas;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::auth::{self, Answered, Asker, Credentials, Logins};
use crate::dialog::Dialog;
use crate::headers::{Q850, q850_cause, read_number};
use crate::message::{Headers, Method, Request, Response};
use crate::parse::Core;
use crate::stack::{Failure, Stack};
use crate::transaction::{ClientTx, TxId};
use crate::{ALLOW, Network, Peer, SUPPORTED, SessionEvent, SessionId, Side, Termination, TerminationCause};
use early::Early;
use reliable::Reliable;
use timer::Timer;

pub use handle::Session;
pub(crate) use timer::too_short;
pub(crate) use uas::Incoming;

/// How long the far end may take to confirm a CANCEL before the end is told all the same.
const CANCEL_REPORT: Duration = Duration::from_secs(4);
/// How often one request is sent again with credentials: a proxy, a server, and a stale nonce of each.
const MAX_LOGIN_TRIES: u8 = 4;
/// Most ACKs kept for repeated 2xx: the forks of an INVITE and the last re-INVITEs.
const MAX_ACKS: usize = 16;
/// Most far ends of one call that are told apart.
const MAX_FORKS: usize = 8;
/// Most headers of a refusal that are passed on.
const MAX_PASSED_HEADERS: usize = 16;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// We call; nothing heard yet.
    Calling,
    /// We call; a provisional response came.
    Proceeding,
    /// They call; no final answer given.
    Ringing,
    /// They call; we answered, and their ACK is awaited.
    Answered,
    /// Both know that the call stands.
    Confirmed,
    /// Nothing more will happen; transactions may linger.
    Over,
}

/// An ACK that we sent, for the case that the 2xx comes again.
#[derive(Debug)]
struct Ack {
    tag: String,
    seq: u32,
    peer: Peer,
    bytes: Bytes,
}

/// A 2xx of ours whose ACK is awaited (RFC 3261 §13.3.1.4).
#[derive(Debug)]
struct Unacked {
    seq: u32,
    bytes: Bytes,
    peer: Peer,
    /// Of the INVITE that made the session, not of a later one.
    first: bool,
    /// The 200 carried an offer, so the ACK carries an answer.
    offered: bool,
    next: Instant,
    interval: Duration,
    give_up: Instant,
}

/// A re-INVITE or UPDATE of ours.
#[derive(Debug)]
struct Ours {
    method: Method,
    /// `None` in an UPDATE that only refreshes.
    sdp: Option<Bytes>,
    /// It refreshes the session timer: nobody asked for it, so nobody is told when it is refused.
    refresh: bool,
    /// The far end, while it is one of several that have not answered.
    early: Option<String>,
    /// The transaction; `None` while a collision is being waited out.
    tx: Option<TxId>,
    retry_at: Option<Instant>,
    tries: u8,
}

impl Ours {
    fn new(method: Method, sdp: Option<Bytes>) -> Self {
        Self { method, sdp, refresh: false, early: None, tx: None, retry_at: None, tries: 0 }
    }
}

/// A re-INVITE, UPDATE or PRACK of theirs with an offer that the user has not answered.
#[derive(Debug)]
struct Theirs {
    tx: TxId,
    seq: u32,
    method: Method,
    /// Without SDP: our answer is an offer.
    offerless: bool,
}

/// A wish to give up before the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cancel {
    No,
    /// Waiting for the first provisional response (RFC 3261 §9.1).
    Wanted(Option<Q850>),
    Sent,
}

/// The record of a session.
pub(crate) struct Call {
    pub(crate) id: SessionId,
    pub(crate) dialog: Dialog,
    phase: Phase,
    /// Whether the end has been told.
    told: bool,
    /// The INVITE's transaction: a client's when we call, a server's when they do.
    invite: TxId,
    contact: String,
    credentials: Option<Credentials>,
    logins: Logins,
    sources: Vec<Network>,
    acks: Vec<Ack>,
    unacked: Option<Unacked>,
    ours: Option<Box<Ours>>,
    theirs: Option<Theirs>,
    /// Our last session description, for refreshes.
    described: Bytes,
    timer: Option<Timer>,
    /// The least time between refreshes that anybody has asked for, in seconds.
    min_se: u32,
    timer_tries: u8,
    /// They take UPDATE.
    peer_updates: bool,
    /// A REFER of ours that is not settled.
    transfer: Option<TxId>,
    /// Whether the `Call-ID` is ours: decides the bands of RFC 3261 §14.1.
    caller: bool,
    // Our call only.
    cancel: Cancel,
    trying_told: bool,
    early: Vec<Early>,
    no_response: Duration,
    no_response_at: Option<Instant>,
    report_at: Option<Instant>,
    login_tries: u8,
    // Their call only.
    /// Their INVITE had no SDP, so our 200 carries the offer.
    offerless: bool,
    reliable: Option<Box<Reliable>>,
    refresh_at: Option<Instant>,
    /// A wish to hang up that must wait for the ACK (RFC 3261 §15).
    bye_after_ack: Option<Option<Q850>>,
}

/// What a session is made from, whichever side began.
struct Origin {
    id: SessionId,
    dialog: Dialog,
    phase: Phase,
    invite: TxId,
    contact: String,
    credentials: Option<Credentials>,
    sources: Vec<Network>,
    caller: bool,
}

impl Call {
    fn new(origin: Origin) -> Self {
        let Origin { id, dialog, phase, invite, contact, credentials, sources, caller } = origin;
        Self {
            id,
            dialog,
            phase,
            told: false,
            invite,
            contact,
            credentials,
            logins: Logins::default(),
            sources,
            acks: Vec::new(),
            unacked: None,
            ours: None,
            theirs: None,
            described: Bytes::new(),
            timer: None,
            min_se: 0,
            timer_tries: 0,
            peer_updates: false,
            transfer: None,
            caller,
            cancel: Cancel::No,
            trying_told: false,
            early: Vec::new(),
            no_response: Duration::ZERO,
            no_response_at: None,
            report_at: None,
            login_tries: 0,
            offerless: false,
            reliable: None,
            refresh_at: None,
            bye_after_ack: None,
        }
    }

    /// Whether the user has been told of the end.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// Whether the record can go: told, and nothing on the wire that would need it.
    pub(crate) fn is_done(&self, stack: &Stack) -> bool {
        self.told && self.phase == Phase::Over && self.unacked.is_none() && stack.owned_by(self.id) == 0
    }

    /// Whether requests inside the dialog are taken from an address.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.dialog.knows(ip)
            || self.sources.iter().any(|source| source.contains(ip))
            || self.early.iter().any(|early| early.dialog.knows(ip))
    }

    /// Whether a request with this From tag belongs here.
    pub(crate) fn has_remote_tag(&self, tag: &str) -> bool {
        match self.phase {
            Phase::Calling | Phase::Proceeding => {
                self.early.iter().any(|early| early.dialog.remote_tag() == tag)
            }
            Phase::Ringing | Phase::Answered | Phase::Confirmed | Phase::Over => {
                self.dialog.remote_tag() == tag || self.acks.iter().any(|ack| ack.tag == tag)
            }
        }
    }

    fn emit(&self, stack: &mut Stack, event: SessionEvent) {
        if !self.told {
            stack.events.push_back((self.id, event));
        }
    }

    /// Tells the end, once.
    fn conclude(&mut self, stack: &mut Stack, termination: Termination) {
        self.emit(stack, SessionEvent::Terminated(termination));
        self.told = true;
        self.no_response_at = None;
        self.report_at = None;
    }

    /// The dialog is over. What they wait for is answered, and what we wait for gets an end.
    fn close(&mut self, now: Instant, stack: &mut Stack) {
        self.phase = Phase::Over;
        (self.refresh_at, self.timer, self.reliable) = (None, None, None);
        self.early = Vec::new();
        if let Some(theirs) = self.theirs.take() {
            self.reply(now, stack, theirs.tx, 487);
        }
        let reinvite = self.ours.take().and_then(|ours| ours.tx);
        for waiting in reinvite.into_iter().chain(self.caller.then_some(self.invite)) {
            stack.limit_client(now, waiting);
        }
    }

    /// The next moment at which [`Call::timeout`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let unacked = self.unacked.as_ref().map(|u| u.next.min(u.give_up));
        let retry = self.ours.as_ref().and_then(|ours| ours.retry_at);
        let reliable = self.reliable.as_ref().and_then(|reliable| reliable.deadline());
        let (told, ringing) = (self.report_at, self.refresh_at);
        [self.no_response_at, told, ringing, unacked, retry, reliable, self.timer_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn timeout(&mut self, now: Instant, stack: &mut Stack) {
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.no_response_at) {
            self.no_response(stack);
        }
        if due(&mut self.report_at) {
            self.conclude(stack, end(Side::Us, TerminationCause::Cancelled));
        }
        if due(&mut self.refresh_at) {
            self.refresh_ringing(now, stack);
        }
        if self.unacked.as_ref().is_some_and(|u| u.next.min(u.give_up) <= now) {
            self.repeat_answer(now, stack);
        }
        if self.reliable.as_ref().and_then(|r| r.deadline()).is_some_and(|at| at <= now) {
            self.repeat_ringing(now, stack);
        }
        self.timer_due(now, stack);
        if self.ours.as_mut().is_some_and(|ours| due(&mut ours.retry_at)) {
            self.retry_ours(now, stack);
        }
    }

    /// A response to a request of ours.
    pub(crate) fn response(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        tx: TxId,
        core: &Core,
        response: &Response,
    ) {
        if (200..300).contains(&response.code) {
            self.logins.accepted();
        }
        if tx == self.invite && self.caller {
            return self.invite_response(now, stack, tx, core, response);
        }
        if core.cseq.method == Method::Invite && (200..300).contains(&response.code) {
            return self.success(now, stack, tx, core, response);
        }
        if response.code < 200 {
            return;
        }
        let retried = self.login(now, stack, tx, response);
        if self.ours.as_ref().is_some_and(|ours| ours.tx == Some(tx)) {
            match retried {
                Some(retry) => self.ours_moved(retry),
                None if response.code < 300 => {
                    self.dialog.refresh_target(&response.headers);
                    self.ours_answered(now, stack, tx, response);
                }
                None => self.ours_refused(now, stack, response),
            }
        } else if self.transfer == Some(tx) {
            self.referred(now, stack, response, retried);
        } else if retried.is_none() && core.cseq.method == Method::Info {
            match response.code {
                481 => self.dialog_gone(now, stack, response),
                408 => self.lost(now, stack, Failure::TimedOut),
                _ => {}
            }
        }
    }

    /// A request of ours that ended without a final response.
    pub(crate) fn failed(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        id: TxId,
        tx: &ClientTx,
        failure: Failure,
    ) {
        if id == self.invite && self.caller {
            return self.invite_failed(now, stack, failure);
        }
        let transfer = self.transfer == Some(id);
        if transfer {
            self.refer_failed(stack);
        }
        let ours = self.ours.as_ref().is_some_and(|ours| ours.tx == Some(id));
        if ours && self.phase != Phase::Confirmed {
            // Before the answer the INVITE decides what becomes of the call.
            self.ours = None;
            return self.emit(stack, SessionEvent::OfferRefused { code: 408 });
        }
        if ours || transfer || tx.key.method == Method::Info {
            self.lost(now, stack, failure);
        }
    }

    /// No answer inside a dialog ends it (RFC 3261 §12.2.1.2). The BYE is for a far end that only we cannot hear.
    fn lost(&mut self, now: Instant, stack: &mut Stack, failure: Failure) {
        if self.phase == Phase::Confirmed {
            self.send_bye(now, stack, None);
            self.close(now, stack);
            let cause = match failure {
                Failure::TimedOut => TerminationCause::TimedOut,
                Failure::Transport => TerminationCause::Transport,
            };
            self.conclude(stack, end(Side::Nobody, cause));
        }
    }

    /// Sends a request inside the dialog, with what logins are known.
    fn send_inside(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        mut request: Request,
        seq: u32,
        peer: Peer,
    ) -> TxId {
        self.add_logins(stack, &mut request);
        stack.start(now, self.id, request, seq, peer)
    }

    fn add_logins(&mut self, stack: &mut Stack, request: &mut Request) {
        request.headers.set("User-Agent", stack.config.user_agent.clone());
        let Some(credentials) = &self.credentials else { return };
        for asker in [Asker::Server, Asker::Proxy] {
            request.headers.remove(asker.answer_header());
        }
        let (uri, cnonce) = (request.uri.to_string(), stack.token(16));
        let answered = Answered { method: request.method.as_str(), uri: &uri, body: &request.body };
        for (name, value) in self.logins.headers(credentials, &answered, &cnonce) {
            request.headers.push(name, value);
        }
    }

    /// Answers a challenge by sending the request again (RFC 3261 §22.2); the new transaction, if it was worth it.
    fn login(&mut self, now: Instant, stack: &mut Stack, tx: TxId, response: &Response) -> Option<TxId> {
        let asker = Asker::of(response.code)?;
        self.credentials.as_ref()?;
        let challenge = auth::strongest(response.headers.get_all(asker.challenge_header()))?;
        let old = stack.clients.get(tx)?;
        let (mut request, peer) = (old.request.clone(), old.peer);
        let sent: Vec<&str> = request.headers.get_all(asker.answer_header()).collect();
        let worth =
            self.logins.challenged(asker, challenge, (!sent.is_empty()).then(|| sent.join(", ")).as_deref());
        if !worth || self.login_tries >= MAX_LOGIN_TRIES || stack.is_full() {
            return None;
        }
        self.login_tries += 1;
        request.headers.remove("Via");
        let seq = self.dialog.next_seq();
        let method = request.method.clone();
        request.headers.set("CSeq", format!("{seq} {method}"));
        Some(self.send_inside(now, stack, request, seq, peer))
    }

    /// Says BYE, now.
    fn send_bye(&mut self, now: Instant, stack: &mut Stack, reason: Option<Q850>) {
        let seq = self.dialog.next_seq();
        let dialog = self.dialog.clone();
        self.send_bye_in(now, stack, &dialog, seq, reason);
    }

    fn send_bye_in(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        dialog: &Dialog,
        seq: u32,
        reason: Option<Q850>,
    ) {
        let mut bye = dialog.numbered(Method::Bye, seq);
        if let Some(reason) = reason {
            bye.headers.push("Reason", reason.to_string());
        }
        self.login_tries = 0;
        self.send_inside(now, stack, bye, seq, dialog.next_hop());
    }

    /// Ends the session in whatever way its phase asks for.
    fn hang_up(&mut self, now: Instant, stack: &mut Stack, reason: Option<Q850>) {
        match self.phase {
            Phase::Calling | Phase::Proceeding => self.give_up(now, stack, reason),
            Phase::Ringing => {
                let headers: Vec<(&str, String)> = reason.iter().map(|r| ("Reason", r.to_string())).collect();
                self.refuse(now, stack, 603, &headers);
            }
            Phase::Answered => {
                // A BYE before the ACK could overtake it.
                self.bye_after_ack = Some(reason);
                self.close(now, stack);
                self.conclude(stack, end(Side::Us, TerminationCause::Bye));
            }
            Phase::Confirmed => {
                self.send_bye(now, stack, reason);
                self.close(now, stack);
                self.unacked = None;
                self.conclude(stack, end(Side::Us, TerminationCause::Bye));
            }
            Phase::Over => {}
        }
    }

    /// `Contact`, `Allow` and `Supported`, as every message that makes or changes a dialog has them.
    fn present(&self, headers: &mut Headers) {
        headers.push("Contact", self.contact.clone());
        headers.push("Allow", ALLOW);
        headers.push("Supported", SUPPORTED);
    }

    /// Takes note of what they take, where they say it.
    fn peer_presents(&mut self, headers: &Headers) {
        if headers.has("Allow") {
            self.peer_updates = headers.list("Allow").any(|method| method == Method::Update.as_str());
        }
    }
}

/// An end that needs no further words.
fn end(by: Side, cause: TerminationCause) -> Termination {
    Termination { by, cause, q850: None, retry_after: None, headers: Vec::new() }
}

/// An end that a message of theirs caused, with what it tells about the reason.
fn end_by(by: Side, cause: TerminationCause, headers: &Headers) -> Termination {
    let retry_after = headers.get("Retry-After").and_then(|value| {
        let digits = value.trim_start();
        read_number(&digits[..digits.bytes().take_while(u8::is_ascii_digit).count()])
    });
    let passed = |name: &str| {
        name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("X-"))
            || matches!(name, "Warning" | "Error-Info")
    };
    let kept = headers.iter().filter(|(name, _)| passed(name)).take(MAX_PASSED_HEADERS);
    Termination {
        by,
        cause,
        q850: q850_cause(headers.get_all("Reason")),
        retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())),
        headers: kept.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// Adds a body of session description, or none.
fn set_sdp(headers: &mut Headers, body: &mut Bytes, sdp: Option<Bytes>) {
    if let Some(sdp) = sdp {
        headers.push("Content-Type", "application/sdp");
        *body = sdp;
    }
}
