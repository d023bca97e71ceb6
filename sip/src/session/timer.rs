//! Session timers (RFC 4028): a call whose far end has vanished without a word is noticed and ended.
//!
//! Owns who refreshes, how often, and the end when nobody did. Refreshes go by UPDATE where the far end takes it, else by a
//! re-INVITE that repeats our last session description (§7.4). Never shortens what the far end was promised.

use std::time::{Duration, Instant};

use super::{Call, Ours, Phase, end};
use crate::headers::{Q850, read_number, read_params};
use crate::message::{Headers, Method, Response};
use crate::stack::Stack;
use crate::transaction::TxId;
use crate::{Side, TerminationCause};

/// How often an INVITE is sent again with a longer time (422).
const MAX_TRIES: u8 = 3;
/// Shortest and longest time that is believed, in seconds: a far end that wants less is refreshed no more often, and one
/// that wants a week gets a day.
const BELIEVED: (u32, u32) = (4, 86_400);
/// Pause after a refresh that was refused or could not be sent.
const RETRY: Duration = Duration::from_secs(5);
/// Q.850: recovery on timer expiry.
const TIMER_EXPIRY: Q850 = Q850(102);

/// The agreement about one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    /// Seconds.
    interval: u32,
    /// We refresh.
    ours: bool,
    /// The next refresh of ours, or the end.
    next: Instant,
    end: Instant,
}

/// `Session-Expires` as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expires {
    seconds: u32,
    /// `refresher=uac`; `None` when it is left open.
    by_uac: Option<bool>,
}

fn read_expires(headers: &Headers) -> Option<Expires> {
    let value = headers.get("Session-Expires")?;
    let (seconds, params) = value.split_once(';').unwrap_or((value, ""));
    let params = read_params(params).ok()?;
    let by_uac = match params.get("refresher") {
        Some(who) if who.eq_ignore_ascii_case("uac") => Some(true),
        Some(who) if who.eq_ignore_ascii_case("uas") => Some(false),
        Some(_) | None => None,
    };
    Some(Expires { seconds: read_number(seconds)?.clamp(BELIEVED.0, BELIEVED.1), by_uac })
}

fn min_se(headers: &Headers) -> Option<u32> {
    let value = headers.get("Min-SE")?;
    read_number(value.split(';').next().unwrap_or(value)).map(|seconds| seconds.min(BELIEVED.1))
}

fn knows_timers(headers: &Headers) -> bool {
    headers.list("Supported").chain(headers.list("Require")).any(|tag| tag.eq_ignore_ascii_case("timer"))
}

/// The `Min-SE` with which a request is to be refused (422): its time is too short for us, and its sender knows why
/// (RFC 4028 §9).
pub(crate) fn too_short(stack: &Stack, headers: &Headers) -> Option<u32> {
    let least = seconds(stack.config.min_session_expires);
    let asked = headers.get("Session-Expires").and_then(|v| read_number(v.split(';').next().unwrap_or(v)))?;
    (asked < least && knows_timers(headers)).then_some(least)
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).min(BELIEVED.1)
}

impl Timer {
    fn new(now: Instant, interval: u32, ours: bool) -> Self {
        // RFC 4028 §10: the BYE goes out before the far end counts the session as dead.
        let end = now + Duration::from_secs(u64::from(interval - (interval / 3).min(32)));
        let next = if ours { now + Duration::from_secs(interval.into()) / 2 } else { end };
        Self { interval, ours, next, end }
    }
}

impl Call {
    /// When the timer has something to do.
    pub(super) fn timer_deadline(&self) -> Option<Instant> {
        self.timer.map(|timer| timer.next.min(timer.end))
    }

    /// Proposes a time in an INVITE or UPDATE of ours: the refresher stays who it is.
    pub(super) fn propose_timer(&self, stack: &Stack, headers: &mut Headers) {
        let least = self.min_se.max(seconds(stack.config.min_session_expires));
        let wanted = match &self.timer {
            Some(timer) => timer.interval,
            None => seconds(stack.config.session_expires),
        };
        if wanted == 0 {
            return;
        }
        let refresher = match &self.timer {
            Some(timer) if timer.ours => ";refresher=uac",
            Some(_) => ";refresher=uas",
            None => "",
        };
        // A far end may have taken less than anybody may ask for; then that is kept.
        let least = if self.timer.is_some() { self.min_se } else { least };
        let wanted = wanted.max(least);
        headers.set("Session-Expires", format!("{wanted}{refresher}"));
        headers.set("Min-SE", least.max(90).min(wanted).to_string());
    }

    /// What the far end made of our proposal: a 2xx to an INVITE or UPDATE of ours (RFC 4028 §7.2).
    pub(super) fn timer_answered(&mut self, now: Instant, headers: &Headers) {
        self.timer = read_expires(headers)
            .map(|expires| Timer::new(now, expires.seconds, expires.by_uac.unwrap_or(true)));
    }

    /// Agrees to a time in a 2xx of ours to a request with these headers (RFC 4028 §9).
    pub(super) fn grant_timer(
        &mut self,
        now: Instant,
        stack: &Stack,
        request: &Headers,
        response: &mut Headers,
    ) {
        let knows = knows_timers(request);
        let own = seconds(stack.config.session_expires);
        let asked = read_expires(request);
        let refreshing = self.timer.is_some_and(|timer| timer.ours);
        if own == 0 && asked.is_none() || asked.is_none() && !knows && !refreshing {
            self.timer = None;
            return;
        }
        let least = min_se(request).unwrap_or(0).max(seconds(stack.config.min_session_expires));
        let interval = asked.map_or(own.max(least), |asked| asked.seconds);
        let by_uac = knows && asked.and_then(|asked| asked.by_uac).unwrap_or(false);
        let refresher = if by_uac { "uac" } else { "uas" };
        response.set("Session-Expires", format!("{interval};refresher={refresher}"));
        if by_uac {
            response.push("Require", "timer");
        }
        self.timer = Some(Timer::new(now, interval, !by_uac));
    }

    /// Time to refresh, or to end what nobody has refreshed.
    pub(super) fn timer_due(&mut self, now: Instant, stack: &mut Stack) {
        let Some(timer) = self.timer.as_mut().filter(|timer| timer.next.min(timer.end) <= now) else {
            return;
        };
        if timer.end <= now {
            if self.phase == Phase::Confirmed {
                self.send_bye(now, stack, Some(TIMER_EXPIRY));
                self.close(now, stack);
                return self.conclude(stack, end(Side::Nobody, TerminationCause::Expired));
            }
            self.timer = None;
            return;
        }
        timer.next = timer.end.min(now + RETRY);
        let busy = self.ours.is_some() || self.theirs.is_some() || self.unacked.is_some() || stack.is_full();
        if self.phase == Phase::Confirmed && !busy {
            self.refresh(now, stack);
        }
    }

    /// Sends a refresh, by UPDATE if they take it.
    fn refresh(&mut self, now: Instant, stack: &mut Stack) {
        let (method, sdp) = if self.peer_updates {
            (Method::Update, None)
        } else {
            (Method::Invite, Some(self.described.clone()))
        };
        self.login_tries = 0;
        self.ours = Some(Box::new(Ours { refresh: true, ..Ours::new(method, sdp) }));
        self.send_ours(now, stack);
        if let Some(timer) = &mut self.timer {
            timer.next = timer.end;
        }
    }

    /// A refresh was refused: it is tried again while there is time, by re-INVITE if UPDATE was the trouble.
    pub(super) fn refresh_refused(&mut self, now: Instant, code: u16) {
        let at_once = self.peer_updates && matches!(code, 405 | 415 | 501);
        self.peer_updates &= !at_once;
        if let Some(timer) = &mut self.timer {
            timer.next = timer.end.min(if at_once { now } else { now + RETRY });
        }
    }

    /// Takes the far end's least time (422, RFC 4028 §7.3). False when that would change nothing or has been done too often.
    pub(super) fn lengthen(&mut self, response: &Response) -> bool {
        let least = min_se(&response.headers).filter(|least| *least > self.min_se);
        let worth = least.is_some() && self.timer_tries < MAX_TRIES;
        if worth {
            self.timer_tries += 1;
            self.min_se = least.unwrap_or(self.min_se);
            if let Some(timer) = &mut self.timer {
                timer.interval = timer.interval.max(self.min_se);
            }
        }
        worth
    }

    /// Sends the INVITE again with the time that the far end wants at least; the new transaction.
    pub(super) fn invite_longer(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        tx: TxId,
        response: &Response,
    ) -> Option<TxId> {
        if response.code != 422 || stack.is_full() || !self.lengthen(response) {
            return None;
        }
        let old = stack.clients.get(tx)?;
        let (mut request, peer) = (old.request.clone(), old.peer);
        request.headers.remove("Via");
        let seq = self.dialog.next_seq();
        request.headers.set("CSeq", format!("{seq} INVITE"));
        self.propose_timer(stack, &mut request.headers);
        Some(self.send_inside(now, stack, request, seq, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.push(name, *value);
        }
        headers
    }

    #[test]
    fn session_expires_in_all_its_forms() {
        for (text, seconds, by_uac) in [
            ("1800", 1800, None),
            ("1800;refresher=uac", 1800, Some(true)),
            (" 90 ; Refresher = UAS ;x", 90, Some(false)),
            ("1", 4, None),
            ("4000000000;refresher=both", 86_400, None),
        ] {
            let read = read_expires(&headers(&[("Session-Expires", text)]));
            assert_eq!(read, Some(Expires { seconds, by_uac }), "{text}");
        }
        for bad in ["", "x", "99999999999", "1800;refresher=\""] {
            assert_eq!(read_expires(&headers(&[("Session-Expires", bad)])), None, "{bad}");
        }
        assert_eq!(read_expires(&headers(&[("x", "300")])).map(|e| e.seconds), Some(300));
    }

    #[test]
    fn the_end_comes_before_the_far_end_counts_us_dead() {
        #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
        let now = Instant::now();
        for (interval, end) in [(1800, 1768), (90, 60), (4, 3)] {
            let timer = Timer::new(now, interval, true);
            assert_eq!((timer.next - now).as_secs(), u64::from(interval / 2));
            assert_eq!((timer.end - now).as_secs(), end);
        }
    }
}
