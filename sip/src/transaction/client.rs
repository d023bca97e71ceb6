//! The client machines: INVITE (RFC 3261 §17.1.1 with RFC 6026) and all others (§17.1.2).
//!
//! Owns when to send again, when to give up and when to forget. Never touches a message: it is told status codes and the
//! time, and says what to do.

use std::time::{Duration, Instant};

use super::Timers;

/// Where the request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// `Calling` of an INVITE, `Trying` of the others: nothing heard.
    Calling,
    /// A provisional response came.
    Proceeding,
    /// A final response came; retransmissions of it are absorbed.
    Completed,
    /// A 2xx to an INVITE came; further ones are passed up (RFC 6026 §7.2).
    Accepted,
    /// To be removed.
    Terminated,
}

/// What a response means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Pass it to the session.
    pub(crate) deliver: bool,
    /// Send the ACK of a refused INVITE, again if need be.
    pub(crate) ack: bool,
}

/// What a deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing: the deadline was an old one.
    Nothing,
    /// Send the request again.
    Retransmit,
    /// Timer B or F: no final answer came. The machine has ended.
    TimedOut,
    /// Timer D, K or M: the machine has ended.
    Forgotten,
}

/// One client transaction.
#[derive(Debug)]
pub(crate) struct Client {
    invite: bool,
    reliable: bool,
    timers: Timers,
    state: State,
    /// Timer A or E with its present interval.
    again: Option<(Instant, Duration)>,
    /// Timer B or F, then D, K or M.
    end: Option<Instant>,
    /// The end of an INVITE that nobody waits for.
    limit: Option<Instant>,
}

impl Client {
    /// A request that is being sent now.
    pub(crate) fn new(now: Instant, timers: Timers, invite: bool, reliable: bool) -> Self {
        let again = (!reliable).then(|| (now + timers.t1, timers.t1));
        Self {
            invite,
            reliable,
            timers,
            state: State::Calling,
            again,
            end: Some(now + timers.patience()),
            limit: None,
        }
    }

    /// No final response yet.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.state, State::Calling | State::Proceeding)
    }

    #[cfg(test)]
    fn state(&self) -> State {
        self.state
    }

    pub(crate) fn response(&mut self, now: Instant, code: u16) -> Verdict {
        const PASS: Verdict = Verdict { deliver: true, ack: false };
        const DROP: Verdict = Verdict { deliver: false, ack: false };
        match (self.state, code) {
            (State::Calling | State::Proceeding, 100..=199) => {
                self.state = State::Proceeding;
                if self.invite {
                    // A phone may ring for minutes: an INVITE waits without a timer once it is heard of.
                    (self.again, self.end) = (None, self.limit);
                } else {
                    self.again = self.again.map(|_| (now + self.timers.t2, self.timers.t2));
                }
                PASS
            }
            (State::Calling | State::Proceeding, 200..=299) if self.invite => {
                self.finish(State::Accepted, now, self.timers.patience());
                PASS
            }
            (State::Calling | State::Proceeding, _) if self.invite => {
                let linger = if self.reliable {
                    Duration::ZERO
                } else {
                    self.timers.patience().max(Duration::from_secs(32))
                };
                self.finish(State::Completed, now, linger);
                Verdict { deliver: true, ack: true }
            }
            (State::Calling | State::Proceeding, _) => {
                let linger = if self.reliable { Duration::ZERO } else { self.timers.t4 };
                self.finish(State::Completed, now, linger);
                PASS
            }
            (State::Accepted, 200..=299) => PASS,
            (State::Completed, 300..) if self.invite => Verdict { deliver: false, ack: true },
            (State::Completed | State::Accepted | State::Terminated, _) => DROP,
        }
    }

    fn finish(&mut self, state: State, now: Instant, linger: Duration) {
        self.state = state;
        self.again = None;
        self.end = Some(now + linger);
    }

    /// Nobody waits for the answer any more: a ringing INVITE, which has no timer, gets one, now or when it begins to ring.
    pub(crate) fn limit(&mut self, end: Instant) {
        let limit = *self.limit.get_or_insert(end);
        if self.state == State::Proceeding {
            self.end.get_or_insert(limit);
        }
    }

    /// The transport cannot reach the peer. True when the machine ends by it.
    pub(crate) fn unreachable(&mut self) -> bool {
        let waits = self.state == State::Calling;
        if waits {
            self.state = State::Terminated;
            (self.again, self.end) = (None, None);
        }
        waits
    }

    pub(crate) fn timeout(&mut self, now: Instant) -> Due {
        if self.end.is_some_and(|end| end <= now) {
            let waiting = self.waits();
            self.state = State::Terminated;
            (self.again, self.end) = (None, None);
            return if waiting { Due::TimedOut } else { Due::Forgotten };
        }
        match self.again {
            Some((at, interval)) if at <= now => {
                let doubled = interval * 2;
                let next = match self.state {
                    _ if self.invite => doubled,
                    State::Proceeding => self.timers.t2,
                    _ => doubled.min(self.timers.t2),
                };
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

    /// Runs a machine until it ends and notes in milliseconds what it did.
    fn run(client: &mut Client, start: Instant) -> Vec<(u128, Due)> {
        let mut seen = Vec::new();
        while let Some(at) = client.deadline() {
            let due = client.timeout(at);
            seen.push(((at - start).as_millis(), due));
        }
        seen
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn an_unanswered_invite_doubles_its_interval_until_timer_b() {
        let now = start();
        let mut client = Client::new(now, Timers::default(), true, false);
        let seen = run(&mut client, now);
        let times: Vec<_> = seen.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [500, 1_500, 3_500, 7_500, 15_500, 31_500, 32_000]);
        assert_eq!(seen.last().unwrap().1, Due::TimedOut);
        assert_eq!(client.state(), State::Terminated);
    }

    #[test]
    fn other_requests_stop_doubling_at_t2() {
        let now = start();
        let mut client = Client::new(now, Timers::default(), false, false);
        let times: Vec<_> = run(&mut client, now).iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500, 32_000]);
        let mut client = Client::new(now, Timers::default(), false, false);
        assert!(client.response(now, 100).deliver);
        let seen = run(&mut client, now);
        assert_eq!((seen[0], seen[1].0), ((4_000, Due::Retransmit), 8_000));
        assert_eq!(seen.last(), Some(&(32_000, Due::TimedOut)));
    }

    #[test]
    fn reliable_transports_never_repeat() {
        let now = start();
        let mut client = Client::new(now, Timers::default(), true, true);
        assert_eq!(run(&mut client, now), [(32_000, Due::TimedOut)]);
        let mut client = Client::new(now, Timers::default(), true, true);
        assert_eq!(client.response(now, 486), Verdict { deliver: true, ack: true });
        assert_eq!(run(&mut client, now), [(0, Due::Forgotten)]);
    }

    #[test]
    fn a_refusal_is_passed_up_once_and_acknowledged_each_time() {
        let now = start();
        let mut client = Client::new(now, Timers::default(), true, false);
        assert!(client.response(now, 180).deliver);
        assert_eq!(client.deadline(), None);
        assert_eq!(client.response(now, 486), Verdict { deliver: true, ack: true });
        assert_eq!(client.response(now, 486), Verdict { deliver: false, ack: true });
        assert_eq!(client.response(now, 200), Verdict { deliver: false, ack: false });
        assert_eq!(run(&mut client, now), [(32_000, Due::Forgotten)]);
    }

    #[test]
    fn every_2xx_of_an_invite_is_passed_up_and_nothing_else_after_it() {
        let now = start();
        let mut client = Client::new(now, Timers::default(), true, false);
        for _ in 0..3 {
            assert_eq!(client.response(now, 200), Verdict { deliver: true, ack: false });
        }
        assert_eq!(client.response(now, 180), Verdict { deliver: false, ack: false });
        assert_eq!(client.response(now, 500), Verdict { deliver: false, ack: false });
        assert_eq!(run(&mut client, now), [(32_000, Due::Forgotten)]);
    }

    #[test]
    fn an_invite_that_nobody_waits_for_has_an_end_even_if_it_rings_later() {
        let now = start();
        let end = now + Duration::from_secs(40);
        for early in [true, false] {
            let mut client = Client::new(now, Timers::default(), true, false);
            if early {
                client.limit(end);
            }
            client.response(now, 180);
            client.limit(end);
            assert_eq!(run(&mut client, now), [(40_000, Due::TimedOut)]);
        }
    }

    #[test]
    fn an_unreachable_peer_ends_only_what_still_waits() {
        let now = start();
        let mut client = Client::new(now, Timers::default(), true, false);
        assert!(client.unreachable());
        assert_eq!(client.deadline(), None);
        let mut client = Client::new(now, Timers::default(), false, false);
        client.response(now, 200);
        assert!(!client.unreachable());
        assert_eq!(run(&mut client, now), [(5_000, Due::Forgotten)]);
    }
}
