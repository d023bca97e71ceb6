//! The server machines: INVITE (RFC 3261 §17.2.1 with RFC 6026) and all others (§17.2.2).
//!
//! Owns when a response is sent again and when the exchange is forgotten. Never touches a message.

use std::time::{Duration, Instant};

use super::Timers;

/// Where the request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// `Proceeding` of an INVITE, `Trying` and `Proceeding` of the others: no final response yet.
    Proceeding,
    /// A final response was sent that the machine answers for.
    Completed,
    /// The ACK of a refused INVITE came.
    Confirmed,
    /// A 2xx to an INVITE was sent; the session repeats it (RFC 6026 §7.1).
    Accepted,
    /// To be removed.
    Terminated,
}

/// What a deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing: the deadline was an old one.
    Nothing,
    /// Timer G: send the response again.
    Retransmit,
    /// Timer H, I, J or L: the machine has ended.
    Forgotten,
}

/// One server transaction.
#[derive(Debug)]
pub(crate) struct Server {
    invite: bool,
    reliable: bool,
    timers: Timers,
    state: State,
    /// Timer G with its present interval.
    again: Option<(Instant, Duration)>,
    end: Option<Instant>,
}

impl Server {
    pub(crate) fn new(timers: Timers, invite: bool, reliable: bool) -> Self {
        Self { invite, reliable, timers, state: State::Proceeding, again: None, end: None }
    }

    #[cfg(test)]
    fn state(&self) -> State {
        self.state
    }

    /// A response is about to be sent. False when the exchange has its final response already.
    pub(crate) fn respond(&mut self, now: Instant, code: u16) -> bool {
        if self.state != State::Proceeding {
            return false;
        }
        if code < 200 {
            return true;
        }
        let patience = now + self.timers.patience();
        if self.invite && code < 300 {
            (self.state, self.end) = (State::Accepted, Some(patience));
        } else if self.invite {
            (self.state, self.end) = (State::Completed, Some(patience));
            self.again = (!self.reliable).then(|| (now + self.timers.t1, self.timers.t1));
        } else {
            (self.state, self.end) = (State::Completed, Some(if self.reliable { now } else { patience }));
        }
        true
    }

    /// The request came again. True when the last response is to be sent again.
    pub(crate) fn retransmitted(&self) -> bool {
        matches!(self.state, State::Proceeding | State::Completed)
    }

    /// An ACK came. True when it was the one of a refusal, so that the session need not hear of it.
    pub(crate) fn acknowledged(&mut self, now: Instant) -> bool {
        if self.state == State::Completed && self.invite {
            self.state = State::Confirmed;
            self.again = None;
            self.end = Some(if self.reliable { now } else { now + self.timers.t4 });
        }
        self.state != State::Accepted
    }

    pub(crate) fn timeout(&mut self, now: Instant) -> Due {
        if self.end.is_some_and(|end| end <= now) {
            self.state = State::Terminated;
            (self.again, self.end) = (None, None);
            return Due::Forgotten;
        }
        match self.again {
            Some((at, interval)) if at <= now => {
                let next = (interval * 2).min(self.timers.t2);
                self.again = Some((now + next, next));
                Due::Retransmit
            }
            _ => Due::Nothing,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (self.again, self.end) {
            (Some((again, _)), Some(end)) => Some(again.min(end)),
            (Some((again, _)), None) => Some(again),
            (None, end) => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(server: &mut Server, start: Instant) -> Vec<(u128, Due)> {
        let mut seen = Vec::new();
        while let Some(at) = server.deadline() {
            let due = server.timeout(at);
            seen.push(((at - start).as_millis(), due));
        }
        seen
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_refusal_is_repeated_until_it_is_acknowledged() {
        let now = start();
        let mut server = Server::new(Timers::default(), true, false);
        assert_eq!(server.deadline(), None);
        assert!(server.respond(now, 180) && server.respond(now, 486) && !server.respond(now, 200));
        let mut unheard = Server::new(Timers::default(), true, false);
        unheard.respond(now, 486);
        let seen = run(&mut unheard, now);
        let times: Vec<_> = seen.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500, 32_000]);
        assert!(server.retransmitted());
        assert!(server.acknowledged(now));
        assert!(!server.retransmitted());
        assert_eq!(run(&mut server, now), [(5_000, Due::Forgotten)]);
    }

    #[test]
    fn a_2xx_is_left_to_the_session_and_repeated_invites_are_absorbed() {
        let now = start();
        let mut server = Server::new(Timers::default(), true, false);
        assert!(server.respond(now, 200));
        assert_eq!(server.state(), State::Accepted);
        assert!(!server.retransmitted());
        assert!(!server.acknowledged(now));
        assert_eq!(run(&mut server, now), [(32_000, Due::Forgotten)]);
    }

    #[test]
    fn other_requests_keep_their_answer_for_repeats() {
        let now = start();
        let mut server = Server::new(Timers::default(), false, false);
        assert!(server.respond(now, 200) && server.retransmitted());
        assert_eq!(run(&mut server, now), [(32_000, Due::Forgotten)]);
        let mut server = Server::new(Timers::default(), false, true);
        server.respond(now, 200);
        assert_eq!(run(&mut server, now), [(0, Due::Forgotten)]);
    }
}
