//! A gather: digits, a terminator, one total time (CONTRACT 1.1 row 7). Pure; the call plays the prompt and owns
//! the timer that this asks for.

use std::time::{Duration, Instant};

/// A running gather.
#[derive(Debug)]
pub(super) struct Gather {
    expected: u8,
    timeout: Duration,
    finish_on_key: Option<char>,
    digits: String,
    /// Set when the prompt has ended or the first digit has come.
    deadline: Option<Instant>,
}

/// What a key press did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Taken; more are wanted.
    Progress { digits: String, remaining: u8 },
    /// Taken, and it was the last wanted.
    Complete { digits: String },
    /// It was the finishing key; these are the digits before it.
    Finished { digits: String },
}

impl Gather {
    /// A gather whose prompt is about to be played.
    pub(super) fn new(expected: u8, timeout: Duration, finish_on_key: Option<char>) -> Self {
        Self { expected, timeout, finish_on_key, digits: String::new(), deadline: None }
    }

    /// The prompt was heard to its end, or cut: the time runs from here unless it runs already.
    pub(super) fn prompt_ended(&mut self, now: Instant) {
        self.deadline.get_or_insert(now + self.timeout);
    }

    /// One key press. The first one starts the time; later ones do not restart it.
    pub(super) fn press(&mut self, now: Instant, digit: char) -> Step {
        if self.finish_on_key == Some(digit) {
            return Step::Finished { digits: self.digits.clone() };
        }
        self.prompt_ended(now);
        self.digits.push(digit);
        let taken = u8::try_from(self.digits.len()).unwrap_or(u8::MAX);
        match self.expected.saturating_sub(taken) {
            0 => Step::Complete { digits: self.digits.clone() },
            remaining => Step::Progress { digits: self.digits.clone(), remaining },
        }
    }

    /// When the time is over, once it runs.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The digits so far.
    pub(super) fn digits(&self) -> &str {
        &self.digits
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any start will do")]
mod tests {
    use super::*;

    const TEN_S: Duration = Duration::from_secs(10);

    #[test]
    fn the_last_digit_completes() {
        let now = Instant::now();
        let mut gather = Gather::new(2, TEN_S, None);
        assert_eq!(gather.press(now, '4'), Step::Progress { digits: "4".into(), remaining: 1 });
        assert_eq!(gather.press(now, '#'), Step::Complete { digits: "4#".into() });
    }

    #[test]
    fn the_time_is_total_and_starts_at_the_prompts_end_or_the_first_digit() {
        let start = Instant::now();
        let mut gather = Gather::new(4, TEN_S, None);
        assert_eq!(gather.deadline(), None);
        gather.press(start, '1');
        gather.prompt_ended(start + Duration::from_secs(3));
        gather.press(start + Duration::from_secs(5), '2');
        assert_eq!(gather.deadline(), Some(start + TEN_S));
        assert_eq!(gather.digits(), "12");
    }

    #[test]
    fn the_finishing_key_is_not_part_of_the_digits() {
        let now = Instant::now();
        let mut gather = Gather::new(4, TEN_S, Some('#'));
        gather.press(now, '7');
        assert_eq!(gather.press(now, '#'), Step::Finished { digits: "7".into() });
    }
}
