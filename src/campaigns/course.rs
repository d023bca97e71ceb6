//! How many calls of one campaign may begin now: as many as it may have at once less those that it has, no more in a
//! second than it may begin, none while its calls are being refused or its trunks are down. Pure: the moment is an
//! argument, what is remembered is of this process alone; that no limit is passed by several together is the store's
//! to see to, when a call takes its contact.

use std::collections::VecDeque;

use crate::model::Timestamp;

/// So many calls in a row that failed by their trunks stop a campaign for a while.
const FAULTS: u32 = 5;

/// For how long the first time, and at most; each time it is twice as long.
const HOLD_MS: i64 = 30_000;
const HOLD_MAX_MS: i64 = 600_000;

/// After a call was refused for want of room the next is tried after this time.
const REFUSED_MS: i64 = 1000;

/// What limits a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Calls at once.
    pub concurrent: u32,
    /// Calls that begin in any second.
    pub per_second: u32,
}

/// Where a campaign stands, as far as this process knows.
#[derive(Debug, Default)]
pub struct Course {
    /// When the calls of the last second began.
    begun: VecDeque<Timestamp>,
    /// Nothing begins before.
    hold: Option<Timestamp>,
    /// Calls in a row that failed by their trunks.
    faults: u32,
    /// How often that has stopped it.
    stops: u32,
}

impl Course {
    /// How many calls may begin at `now`, while so many are up.
    pub fn room(&mut self, now: Timestamp, pace: Pace, up: u32) -> u32 {
        if self.hold.is_some_and(|until| now < until) {
            return 0;
        }
        while self.begun.front().is_some_and(|at| now.0.saturating_sub(at.0) >= 1000) {
            self.begun.pop_front();
        }
        let begun = u32::try_from(self.begun.len()).unwrap_or(u32::MAX);
        // After a stop one call tries whether the trunks are back.
        let probe = if self.faults >= FAULTS { u32::from(up == 0) } else { u32::MAX };
        pace.concurrent.saturating_sub(up).min(pace.per_second.saturating_sub(begun)).min(probe)
    }

    /// A call has begun.
    pub fn begun(&mut self, now: Timestamp) {
        self.begun.push_back(now);
    }

    /// A call was refused for want of room, credits or trunks: not again before a while.
    pub fn refused(&mut self, now: Timestamp, after_s: Option<u64>) {
        let ms = after_s.and_then(|s| i64::try_from(s).ok()).map_or(REFUSED_MS, |s| s.saturating_mul(1000));
        self.hold = Some(now.plus_ms(ms.clamp(REFUSED_MS, HOLD_MAX_MS)));
    }

    /// A call is over; `by_trunks`: its trunks failed, nobody's telephone rang.
    pub fn ended(&mut self, now: Timestamp, by_trunks: bool) {
        if !by_trunks {
            (self.faults, self.stops) = (0, 0);
            return;
        }
        self.faults = self.faults.saturating_add(1);
        if self.faults >= FAULTS {
            let ms = HOLD_MS.saturating_mul(1 << self.stops.min(10)).min(HOLD_MAX_MS);
            self.stops = self.stops.saturating_add(1);
            self.hold = Some(now.plus_ms(ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { concurrent: 5, per_second: 3 };

    #[test]
    fn both_limits_hold() {
        let mut course = Course::default();
        assert_eq!(course.room(Timestamp(0), PACE, 0), 3);
        assert_eq!(course.room(Timestamp(0), PACE, 4), 1);
        assert_eq!(course.room(Timestamp(0), PACE, 9), 0);
        for ms in [0, 10, 20] {
            course.begun(Timestamp(ms));
        }
        assert_eq!(course.room(Timestamp(999), PACE, 0), 0);
        assert_eq!(course.room(Timestamp(1000), PACE, 0), 1);
        assert_eq!(course.room(Timestamp(1020), PACE, 0), 3);
    }

    #[test]
    fn what_is_refused_is_not_asked_again_at_once() {
        let mut course = Course::default();
        course.refused(Timestamp(0), None);
        assert_eq!((course.room(Timestamp(999), PACE, 0), course.room(Timestamp(1000), PACE, 0)), (0, 3));
        course.refused(Timestamp(1000), Some(7));
        assert_eq!((course.room(Timestamp(7999), PACE, 0), course.room(Timestamp(8000), PACE, 0)), (0, 3));
    }

    #[test]
    fn trunks_that_are_down_cost_few_contacts() {
        let mut course = Course::default();
        for _ in 0..4 {
            course.ended(Timestamp(0), true);
        }
        assert_eq!(course.room(Timestamp(0), PACE, 0), 3);
        course.ended(Timestamp(0), true);
        assert_eq!(course.room(Timestamp(29_999), PACE, 0), 0);
        // One tries, then twice as long.
        assert_eq!(course.room(Timestamp(30_000), PACE, 0), 1);
        assert_eq!(course.room(Timestamp(30_000), PACE, 1), 0);
        course.ended(Timestamp(30_000), true);
        assert_eq!(course.room(Timestamp(89_999), PACE, 0), 0);
        assert_eq!(course.room(Timestamp(90_000), PACE, 0), 1);
        course.ended(Timestamp(91_000), false);
        assert_eq!(course.room(Timestamp(91_000), PACE, 0), 3);
        for _ in 0..40 {
            course.ended(Timestamp(100_000), true);
        }
        assert_eq!(course.room(Timestamp(100_000 + HOLD_MAX_MS), PACE, 0), 1);
    }
}
