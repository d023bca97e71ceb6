//! DTMF: keys heard and keys sent, by telephone events (RFC 4733) and by their tones (ITU-T Q.23, Q.24).
//!
//! Owns the numbers of the sixteen keys and the rule that one press heard in two ways is one digit. The rooms below own
//! one way each: [`EventReceiver`] and [`DigitSender`] speak RFC 4733, [`InbandDetector`] listens. None of them reads a
//! clock or allocates after it was made, and none of them ever logs a digit.

mod events;
mod inband;
mod send;

use std::time::{Duration, Instant};

pub use events::EventReceiver;
pub use inband::InbandDetector;
pub use send::{DigitSender, EventTick};

const KEYS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];
/// Frequencies of the rows and columns in Hz (ITU-T Q.23).
const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const KEYPAD: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

/// How a digit reached us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum DigitSource {
    /// A telephone event in RTP (RFC 4733).
    Rfc4733,
    /// The tones themselves.
    Inband,
    /// A SIP INFO request.
    Info,
}

/// The event number of a key: 0 to 15 (RFC 4733 §3.2). Small letters count as capitals.
pub fn digit_event(c: char) -> Option<u8> {
    let c = c.to_ascii_uppercase();
    KEYS.iter().position(|&key| key == c).map(|position| position as u8)
}

/// The key of an event number (RFC 4733 §3.2); `None` for flash (16) and everything above.
pub fn event_digit(e: u8) -> Option<char> {
    KEYS.get(usize::from(e)).copied()
}

/// Row and column frequency of a key in Hz.
pub(crate) fn key_frequencies(c: char) -> Option<(f32, f32)> {
    let c = c.to_ascii_uppercase();
    KEYPAD.iter().zip(ROWS).find_map(|(keys, row)| {
        keys.iter().zip(COLUMNS).find(|&(&key, _)| key == c).map(|(_, column)| (row, column))
    })
}

/// How long after a digit the same digit from another source is the same press.
const SAME_PRESS: Duration = Duration::from_millis(300);
/// How many accepted digits are remembered; nobody presses more keys than that in 300 ms.
const REMEMBERED: usize = 8;

/// Lets every key press of a leg through once, by whichever of its sources it comes first.
#[derive(Clone, Debug, Default)]
pub struct Dedup {
    accepted: [Option<(Instant, char, DigitSource)>; REMEMBERED],
    next: usize,
    events_seen: bool,
}

impl Dedup {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this digit is a press of its own. The same digit from another source within 300 ms is not; and once a
    /// telephone event was heard, what is heard in-band is never one.
    pub fn accept(&mut self, now: Instant, digit: char, source: DigitSource) -> bool {
        match source {
            DigitSource::Rfc4733 => self.events_seen = true,
            DigitSource::Inband if self.events_seen => return false,
            DigitSource::Inband | DigitSource::Info => {}
        }
        let repeated = self.accepted.iter().flatten().any(|&(at, known, from)| {
            known == digit && from != source && now.saturating_duration_since(at) < SAME_PRESS
        });
        if repeated {
            return false;
        }
        self.accepted[self.next] = Some((now, digit, source));
        self.next = (self.next + 1) % REMEMBERED;
        true
    }

    /// Whether a telephone event was ever heard: the in-band detector may rest.
    pub fn events_seen(&self) -> bool {
        self.events_seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_events_are_each_others_inverse() {
        for event in 0..=15 {
            assert_eq!(digit_event(event_digit(event).unwrap()), Some(event));
        }
        assert_eq!(event_digit(16), None);
        assert_eq!(digit_event('*'), Some(10));
        assert_eq!(digit_event('#'), Some(11));
        assert_eq!(digit_event('d'), Some(15));
        assert_eq!(digit_event('E'), None);
        assert_eq!(key_frequencies('5'), Some((770.0, 1336.0)));
        assert_eq!(key_frequencies('w'), None);
    }

    #[test]
    fn a_press_heard_twice_is_one_digit() {
        let start = epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let mut dedup = Dedup::new();
        assert!(dedup.accept(at(0), '1', DigitSource::Info));
        assert!(!dedup.accept(at(299), '1', DigitSource::Rfc4733));
        assert!(dedup.accept(at(301), '1', DigitSource::Rfc4733));
        assert!(dedup.accept(at(320), '1', DigitSource::Rfc4733), "the same source may repeat a digit");
        assert!(dedup.accept(at(330), '2', DigitSource::Info));
    }

    #[test]
    fn in_band_rests_once_an_event_was_heard() {
        let start = epoch();
        let mut dedup = Dedup::new();
        assert!(dedup.accept(start, '4', DigitSource::Inband));
        assert!(!dedup.accept(start + Duration::from_millis(60), '4', DigitSource::Rfc4733));
        assert!(dedup.events_seen());
        assert!(!dedup.accept(start + Duration::from_secs(9), '7', DigitSource::Inband));
        assert!(dedup.accept(start + Duration::from_secs(9), '7', DigitSource::Info));
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn epoch() -> Instant {
        Instant::now()
    }
}
