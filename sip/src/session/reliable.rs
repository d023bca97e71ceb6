//! Provisional responses that must arrive (RFC 3262 §3), as the one who is called sends them.
//!
//! Owns their numbers, their repetition and their order: one at a time, the next when the PRACK for the last has come.
//! Never sends a 200 past a session description that may not have arrived.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Call, Phase, Theirs, end, set_sdp};
use crate::body::session_description;
use crate::headers::read_number;
use crate::message::{Headers, Method, Request};
use crate::parse::{Core, cseq_of};
use crate::stack::Stack;
use crate::transaction::TxId;
use crate::{Peer, SessionEvent, Side, TerminationCause};

/// Most responses that wait for the PRACK of one before them.
const MAX_WAITING: usize = 4;

/// A response whose PRACK is awaited.
#[derive(Debug)]
struct Unacked {
    rseq: u32,
    bytes: Bytes,
    peer: Peer,
    /// It carries a session description.
    says: bool,
    next: Instant,
    interval: Duration,
    give_up: Instant,
}

/// What is said reliably in one call of theirs.
#[derive(Debug)]
pub(super) struct Reliable {
    /// They take nothing else (`Require: 100rel`).
    pub(super) required: bool,
    first: u32,
    next: u32,
    unacked: Option<Unacked>,
    waiting: VecDeque<(u16, Option<Bytes>)>,
    /// The 200 that waits for a PRACK.
    answer: Option<Bytes>,
    /// Our session description has arrived: the 200 has none.
    pub(super) described: bool,
    /// The first offer has been answered reliably: either side may make another.
    pub(super) agreed: bool,
}

impl Reliable {
    /// For a caller that knows 100rel; `None` for others. `first` is the first number, not zero.
    pub(super) fn for_caller(headers: &Headers, first: u32) -> Option<Box<Self>> {
        let says = |name: &str| headers.list(name).any(|tag| tag.eq_ignore_ascii_case("100rel"));
        let required = says("Require");
        (required || says("Supported")).then(|| {
            Box::new(Self {
                required,
                first,
                next: first,
                unacked: None,
                waiting: VecDeque::new(),
                answer: None,
                described: false,
                agreed: false,
            })
        })
    }

    /// When the response is to be repeated or given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unacked.as_ref().map(|unacked| unacked.next.min(unacked.give_up))
    }
}

/// `RAck`: the number of the response, that of the request and its method (RFC 3262 §7.2).
fn read_rack(headers: &Headers) -> Option<(u32, u32)> {
    let mut words = headers.get("RAck")?.split_ascii_whitespace();
    let (rseq, seq) = (read_number(words.next()?)?, read_number(words.next()?)?);
    (words.next()? == "INVITE" && words.next().is_none()).then_some((rseq, seq))
}

impl Call {
    /// Sends a provisional response that must arrive, or lets it wait for its turn.
    pub(super) fn ring_reliably(&mut self, now: Instant, stack: &mut Stack, code: u16, sdp: Option<Bytes>) {
        let Some(reliable) = &mut self.reliable else { return };
        if reliable.unacked.is_some() {
            if reliable.waiting.len() < MAX_WAITING {
                reliable.waiting.push_back((code, sdp));
            }
            return;
        }
        let sdp = sdp.filter(|_| !reliable.described);
        let rseq = reliable.next;
        let Some(mut response) = self.reply_to(stack, self.invite, code) else { return };
        self.present(&mut response.headers);
        response.headers.push("Require", "100rel");
        response.headers.push("RSeq", rseq.to_string());
        let says = sdp.is_some();
        set_sdp(&mut response.headers, &mut response.body, sdp);
        let Some(peer) = stack.servers.get(self.invite).map(|tx| tx.peer) else { return };
        let Some(bytes) = stack.respond(now, self.invite, &response) else { return };
        let timers = stack.config.timers;
        if let Some(reliable) = &mut self.reliable {
            reliable.next = reliable.next.wrapping_add(1);
            let (next, give_up) = (now + timers.t1, now + timers.patience());
            reliable.unacked = Some(Unacked { rseq, bytes, peer, says, next, interval: timers.t1, give_up });
        }
    }

    /// Repeats the response, or gives up: then the call is refused (RFC 3262 §3).
    pub(super) fn repeat_ringing(&mut self, now: Instant, stack: &mut Stack) {
        let Some(unacked) = self.reliable.as_mut().and_then(|reliable| reliable.unacked.as_mut()) else {
            return;
        };
        if now < unacked.give_up {
            unacked.interval *= 2;
            unacked.next = now + unacked.interval;
            let (peer, bytes) = (unacked.peer, unacked.bytes.clone());
            return stack.send(peer, bytes);
        }
        self.finish_invite(now, stack, 504, &[]);
        self.conclude(stack, end(Side::Nobody, TerminationCause::TimedOut));
    }

    /// Whether the 200 has to wait; it is kept if so. A response without a session description is overtaken.
    pub(super) fn answer_waits(&mut self, sdp: &Bytes) -> bool {
        let pending = self.theirs.is_some();
        let Some(reliable) = &mut self.reliable else { return false };
        let waits = pending || reliable.unacked.as_ref().is_some_and(|unacked| unacked.says);
        if waits {
            reliable.answer = Some(sdp.clone());
        } else {
            reliable.unacked = None;
        }
        reliable.waiting.clear();
        waits
    }

    /// Their PRACK (RFC 3262 §3).
    pub(super) fn pracked(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        tx: TxId,
        core: &Core,
        request: &Request,
    ) {
        let invite = stack.servers.get(self.invite).map(|tx| cseq_of(&tx.request.headers));
        let named = read_rack(&request.headers).filter(|(_, seq)| invite.is_none_or(|own| own == *seq));
        let Some((reliable, (rseq, _))) = self.reliable.as_mut().zip(named) else {
            return self.reply(now, stack, tx, 481);
        };
        let Some(unacked) = reliable.unacked.take_if(|unacked| unacked.rseq == rseq) else {
            // One that came again under another number, or that the 200 has overtaken.
            let known = rseq.wrapping_sub(reliable.first) < reliable.next.wrapping_sub(reliable.first);
            return self.reply(now, stack, tx, if known { 200 } else { 481 });
        };
        let Ok(sdp) = session_description(&request.headers, &request.body) else {
            reliable.unacked = Some(unacked);
            return self.reply(now, stack, tx, 415);
        };
        reliable.described |= unacked.says;
        reliable.agreed |= unacked.says;
        if self.offerless && unacked.says {
            self.reply(now, stack, tx, 200);
            self.emit(stack, SessionEvent::OfferAnswered { sdp });
        } else if sdp.is_some() && self.phase == Phase::Ringing {
            let seq = core.cseq.seq;
            self.theirs = Some(Theirs { tx, seq, method: Method::Prack, offerless: false });
            self.emit(stack, SessionEvent::Offer { sdp });
            return;
        } else {
            self.reply(now, stack, tx, 200);
        }
        self.after_prack(now, stack);
    }

    /// Says what waited for the PRACK, or for the answer to the offer in it.
    pub(super) fn after_prack(&mut self, now: Instant, stack: &mut Stack) {
        let Some(reliable) = self.reliable.as_mut().filter(|reliable| reliable.unacked.is_none()) else {
            return;
        };
        if let Some(answer) = reliable.answer.take() {
            self.answer(now, stack, answer);
        } else if let Some((code, sdp)) = reliable.waiting.pop_front() {
            self.ring_reliably(now, stack, code, sdp);
        }
    }
}
