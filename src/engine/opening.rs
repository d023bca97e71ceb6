//! What a call does by itself once it is answered (CONTRACT 1.5 announce and conversation, 3 S25): says what it was
//! given, then hangs up, or listens and ends when nobody speaks. Pure: the call plays and hangs up, this keeps the time.

use std::time::{Duration, Instant};

use crate::model::call::Then;

/// What follows the words.
#[derive(Debug)]
pub(super) struct Opening {
    then: Then,
    /// The words have been heard.
    spoken: bool,
    /// The far end speaks now.
    talking: bool,
    /// Playbacks run: their time is nobody's silence.
    playing: bool,
    silences: u8,
    deadline: Option<Instant>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// End the call.
    HangUp,
    /// One more silence is over; the line stays.
    Silence,
}

impl Opening {
    /// An opening whose words are about to be played.
    pub(super) fn new(then: Then) -> Self {
        Self { then, spoken: false, talking: false, playing: true, silences: 0, deadline: None }
    }

    /// Whether the far end must be listened to.
    pub(super) fn listens(&self) -> bool {
        matches!(self.then, Then::Listen { .. })
    }

    /// Nothing is being played any more.
    pub(super) fn quiet(&mut self, now: Instant) {
        self.playing = false;
        self.spoken = true;
        self.set(now);
    }

    /// Something is being played.
    pub(super) fn playing(&mut self) {
        self.playing = true;
        if self.listens() {
            self.deadline = None;
        }
    }

    /// The far end began or ceased to speak.
    pub(super) fn talk(&mut self, now: Instant, on: bool) {
        self.talking = on;
        self.alive(now);
    }

    /// The far end gave a sign of life.
    pub(super) fn alive(&mut self, now: Instant) {
        self.silences = 0;
        if self.listens() {
            self.deadline = None;
            self.set(now);
        }
    }

    /// The timer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The timer is looked at.
    pub(super) fn timeout(&mut self, now: Instant) -> Option<Due> {
        self.deadline.take_if(|at| *at <= now)?;
        match self.then {
            Then::Stay => None,
            Then::HangUp { .. } => Some(Due::HangUp),
            Then::Listen { repeats, .. } => {
                self.silences = self.silences.saturating_add(1);
                if self.silences >= repeats {
                    return Some(Due::HangUp);
                }
                self.set(now);
                Some(Due::Silence)
            }
        }
    }

    fn set(&mut self, now: Instant) {
        if !self.spoken || self.playing {
            return;
        }
        match self.then {
            Then::Stay => {}
            Then::HangUp { after_ms } => {
                self.deadline.get_or_insert(now + Duration::from_millis(after_ms.into()));
            }
            Then::Listen { silence_ms, .. } if !self.talking => {
                self.deadline.get_or_insert(now + Duration::from_millis(silence_ms.into()));
            }
            Then::Listen { .. } => {}
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any start will do")]
mod tests {
    use super::*;

    const LISTEN: Then = Then::Listen { silence_ms: 30_000, repeats: 2 };

    fn after(start: Instant, s: u64) -> Instant {
        start + Duration::from_secs(s)
    }

    #[test]
    fn an_announcement_hangs_up_a_moment_after_its_last_word() {
        let start = Instant::now();
        let mut opening = Opening::new(Then::HangUp { after_ms: 500 });
        assert_eq!((opening.deadline(), opening.listens()), (None, false));
        opening.quiet(after(start, 3));
        let due = after(start, 3) + Duration::from_millis(500);
        assert_eq!(opening.deadline(), Some(due));
        opening.talk(after(start, 3), true);
        assert_eq!(opening.timeout(after(start, 3)), None);
        assert_eq!(opening.timeout(due), Some(Due::HangUp));
    }

    #[test]
    fn two_silences_in_a_row_end_a_conversation() {
        let start = Instant::now();
        let mut opening = Opening::new(LISTEN);
        opening.quiet(start);
        assert_eq!(opening.timeout(after(start, 30)), Some(Due::Silence));
        assert_eq!(opening.timeout(after(start, 59)), None);
        assert_eq!(opening.timeout(after(start, 60)), Some(Due::HangUp));
    }

    #[test]
    fn who_speaks_or_presses_a_key_is_there() {
        let start = Instant::now();
        let mut opening = Opening::new(LISTEN);
        opening.talk(start, true);
        opening.quiet(start);
        assert_eq!(opening.deadline(), None, "it speaks");
        opening.talk(after(start, 10), false);
        assert_eq!(opening.timeout(after(start, 40)), Some(Due::Silence));
        opening.alive(after(start, 45));
        assert_eq!(opening.timeout(after(start, 75)), Some(Due::Silence), "counted anew");
        assert_eq!(opening.timeout(after(start, 105)), Some(Due::HangUp));
    }

    #[test]
    fn what_is_played_is_no_silence() {
        let start = Instant::now();
        let mut opening = Opening::new(LISTEN);
        opening.quiet(start);
        opening.playing();
        assert_eq!(opening.deadline(), None);
        opening.quiet(after(start, 50));
        assert_eq!(opening.deadline(), Some(after(start, 80)));
    }

    #[test]
    fn whoever_stays_has_no_timer() {
        let start = Instant::now();
        let mut opening = Opening::new(Then::Stay);
        opening.quiet(start);
        assert_eq!((opening.deadline(), opening.timeout(after(start, 999))), (None, None));
    }
}
