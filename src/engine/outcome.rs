//! What a trunk's answer means: go on to the next trunk, or the far end has decided (CONTRACT 1.1 "Trunks",
//! FIELD 3.2.4), and the Q.850 cause that is told.

use sip::TerminationCause;

use crate::model::call::EndReason;
use crate::model::event::Fault;

/// Q.850 causes that trunkline tells of its own (CONTRACT 1.1 `hangupCause`).
pub(super) mod cause {
    /// Unallocated number.
    pub(in crate::engine) const NOT_FOUND: u16 = 1;
    /// Normal clearing.
    pub(in crate::engine) const NORMAL: u16 = 16;
    /// User busy.
    pub(in crate::engine) const BUSY: u16 = 17;
    /// No answer.
    pub(in crate::engine) const NO_ANSWER: u16 = 19;
    /// Call rejected.
    pub(in crate::engine) const REJECTED: u16 = 21;
    /// Redirected.
    pub(in crate::engine) const REDIRECTED: u16 = 23;
    /// Temporary failure: every other trunk or media fault.
    pub(in crate::engine) const FAILURE: u16 = 41;
    /// Recovery on timer expiry: the longest allowed call.
    pub(in crate::engine) const TIMER: u16 = 102;
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This trunk's fault: the next may do better. Holds the cause to tell if there is none.
    NextTrunk(u16),
    /// The far end decided.
    Final(EndReason, u16),
}

/// Reads a final status. `rang`: an 18x came in this attempt, so somebody's telephone has rung and no other trunk
/// may ring it again.
pub(super) fn of_status(code: u16, rang: bool) -> Outcome {
    let outcome = match code {
        404 | 410 | 484 | 485 | 604 => Outcome::Final(EndReason::NotFound, cause::NOT_FOUND),
        480 => Outcome::Final(EndReason::NoAnswer, cause::NO_ANSWER),
        408 if rang => Outcome::Final(EndReason::NoAnswer, cause::NO_ANSWER),
        486 | 600 => Outcome::Final(EndReason::Busy, cause::BUSY),
        603 | 607 | 608 => Outcome::Final(EndReason::Rejected, cause::REJECTED),
        403 => Outcome::NextTrunk(cause::REJECTED),
        300..=399 => Outcome::NextTrunk(cause::REDIRECTED),
        _ => Outcome::NextTrunk(cause::FAILURE),
    };
    after_ringing(outcome, rang)
}

/// Whose fault a failed attempt was (CONTRACT 1.1 "Trunks"). `code` is 0 where no final answer came.
pub(super) fn fault_of(code: u16, rang: bool, cause: &TerminationCause) -> Fault {
    match cause {
        TerminationCause::Rejected { .. } | TerminationCause::Redirected { .. } => match code {
            415 | 488 | 606 => Fault::Media,
            404 | 410 | 480 | 484 | 485 | 486 | 600 | 603 | 604 | 607 | 608 => Fault::FarEnd,
            408 if rang => Fault::FarEnd,
            _ => Fault::Trunk,
        },
        TerminationCause::NoResponse | TerminationCause::TimedOut | TerminationCause::Transport => {
            Fault::Trunk
        }
        TerminationCause::Cancelled
        | TerminationCause::Bye
        | TerminationCause::Expired
        | TerminationCause::Internal => Fault::Nobody,
    }
}

/// Whether this way of a trunk is down, so that another of its ways may do better (RFC 3263 §4.3).
pub(super) fn is_down(cause: &TerminationCause) -> bool {
    match cause {
        TerminationCause::Rejected { code, .. } => *code == 503,
        TerminationCause::NoResponse | TerminationCause::TimedOut | TerminationCause::Transport => true,
        TerminationCause::Redirected { .. }
        | TerminationCause::Cancelled
        | TerminationCause::Bye
        | TerminationCause::Expired
        | TerminationCause::Internal => false,
    }
}

/// What the end of an answered session comes to, and the Q.850 cause to tell where the far end told none.
pub(super) fn of_end(cause: &TerminationCause) -> (EndReason, u16) {
    match cause {
        TerminationCause::Bye => (EndReason::NormalHangup, cause::NORMAL),
        TerminationCause::Rejected { .. }
        | TerminationCause::Redirected { .. }
        | TerminationCause::Cancelled
        | TerminationCause::NoResponse
        | TerminationCause::TimedOut
        | TerminationCause::Expired
        | TerminationCause::Transport
        | TerminationCause::Internal => (EndReason::TrunkFailure, cause::FAILURE),
    }
}

/// No usable answer at all: silence, a dead transport, an unusable session description.
pub(super) fn of_silence(rang: bool) -> Outcome {
    after_ringing(Outcome::NextTrunk(cause::FAILURE), rang)
}

fn after_ringing(outcome: Outcome, rang: bool) -> Outcome {
    match outcome {
        Outcome::NextTrunk(cause) if rang => Outcome::Final(EndReason::TrunkFailure, cause),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_end_decides_or_the_next_trunk_is_tried() {
        use EndReason::{Busy, NoAnswer, NotFound, Rejected};
        for code in [404, 410, 484, 485, 604] {
            assert_eq!(of_status(code, false), Outcome::Final(NotFound, 1), "{code}");
        }
        for (code, reason, q850) in [
            (480, NoAnswer, 19),
            (486, Busy, 17),
            (600, Busy, 17),
            (603, Rejected, 21),
            (607, Rejected, 21),
            (608, Rejected, 21),
        ] {
            assert_eq!(of_status(code, false), Outcome::Final(reason, q850), "{code}");
        }
        for code in
            [401, 402, 403, 407, 408, 415, 420, 421, 482, 483, 488, 606, 500, 503, 504, 580, 400, 481, 302]
        {
            assert!(matches!(of_status(code, false), Outcome::NextTrunk(_)), "{code}");
        }
        assert_eq!(of_status(403, false), Outcome::NextTrunk(21));
        assert_eq!(of_status(302, false), Outcome::NextTrunk(23));
    }

    #[test]
    fn faults_are_those_of_the_fail_over_list_without_media() {
        let of = |code, rang| {
            let cause = TerminationCause::Rejected { code, reason: String::new() };
            fault_of(code, rang, &cause)
        };
        for code in 400..700 {
            let goes_on = matches!(of_status(code, false), Outcome::NextTrunk(_));
            let expected = match code {
                415 | 488 | 606 => Fault::Media,
                _ if goes_on => Fault::Trunk,
                _ => Fault::FarEnd,
            };
            assert_eq!(of(code, false), expected, "{code}");
        }
        assert_eq!(of(408, true), Fault::FarEnd);
        assert_eq!(fault_of(0, false, &TerminationCause::NoResponse), Fault::Trunk);
        assert_eq!(fault_of(0, false, &TerminationCause::Internal), Fault::Nobody);
        let redirected = TerminationCause::Redirected { code: 302, contacts: Vec::new() };
        assert_eq!(fault_of(302, false, &redirected), Fault::Trunk);
    }

    #[test]
    fn a_telephone_that_has_rung_is_not_rung_again() {
        assert_eq!(of_status(408, true), Outcome::Final(EndReason::NoAnswer, 19));
        assert_eq!(of_status(503, true), Outcome::Final(EndReason::TrunkFailure, 41));
        assert_eq!(of_silence(true), Outcome::Final(EndReason::TrunkFailure, 41));
    }
}
