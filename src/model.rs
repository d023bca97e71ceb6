//! The words that all rooms share: ids, numbers, time. Plain values without behaviour that could fail later:
//! what is parsed here cannot be wrong inside. This room knows no database, no HTTP and no clock.

pub mod account;
pub mod agent;
pub mod analysis;
pub mod call;
pub mod cidr;
pub mod command;
pub mod event;
pub mod forms;
pub mod histogram;
pub mod id;
pub mod incoming;
pub mod ladder;
pub mod proxy;
pub mod purpose;
pub mod trunk;
pub mod turn;

use std::fmt;
use std::time::{Duration, Instant};

pub use id::CallId;

/// Wall-clock time in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`, the form of every surface that prints milliseconds.
    pub fn iso_ms(self) -> String {
        let at = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{at:.3}")
    }

    /// Reads an ISO 8601 moment with its offset (`2026-11-01T00:00:00Z`), or a day, which means its beginning in UTC.
    pub fn from_iso(text: &str) -> Option<Self> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Some(Self(at.as_millisecond()));
        }
        let day: jiff::civil::Date = text.parse().ok().filter(|_| text.len() == 10)?;
        let at = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Self(at.timestamp().as_millisecond()))
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment moved by `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// The two clocks of one moment: monotonic for timers and durations, wall for what people read.
/// The drivers read both once per input; the cores are given them.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timers and durations.
    pub mono: Instant,
    /// For stamps.
    pub wall: Timestamp,
}

impl Now {
    /// This moment, `by` later on both clocks.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self { mono: self.mono + by, wall: self.wall.plus_ms(ms) }
    }
}

/// A telephone number as digits in international form without the plus: 3 to 15 ASCII digits (E.164 §6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// Reads what people write: spaces and `-().` are dropped, one leading `+` or `00` too; what is left
    /// must be 3 to 15 ASCII digits (CONTRACT 1.1 `number`).
    pub fn parse_lenient(text: &str) -> Option<Self> {
        let kept: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.')).collect();
        Self::from_digits(kept.strip_prefix('+').or_else(|| kept.strip_prefix("00")).unwrap_or(&kept))
    }

    /// Reads [`PhoneNumber::digits`] back, as they stand.
    pub fn from_digits(text: &str) -> Option<Self> {
        let plain = (3..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| Self(text.to_owned()))
    }

    /// The digits, no plus.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// `+` and the digits.
    pub fn e164(&self) -> String {
        format!("+{}", self.0)
    }
}

/// Who the callee sees as calling: a number (kept as given, `^\+?[0-9]{3,15}$`) or nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerId {
    /// Digits, with the plus if it was given.
    Number(String),
    /// `anonymous`.
    Anonymous,
}

impl CallerId {
    /// Reads the `callerId` field (CONTRACT 1.1); nothing else ever reaches a SIP header.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "anonymous" {
            return Some(Self::Anonymous);
        }
        let digits = text.strip_prefix('+').unwrap_or(text);
        let plain = (3..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| Self::Number(text.to_owned()))
    }

    /// The user part of the From header.
    pub fn user(&self) -> &str {
        match self {
            Self::Number(number) => number,
            Self::Anonymous => "anonymous",
        }
    }
}

/// A secret that prints as `***`, so that no log line can hold it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, digits) in [
            ("+1 (415) 555-0100", Some("14155550100")),
            ("0014155550100", Some("14155550100")),
            ("14155550100", Some("14155550100")),
            ("12", None),
            ("", None),
            ("abc", None),
            ("1234567890123456", None),
            ("++123", None),
            ("1415\r\n5550100", None),
            ("sip:123@x", None),
            ("٠١٢٣٤", None),
            ("１２３４５", None),
        ] {
            assert_eq!(
                PhoneNumber::parse_lenient(text).as_ref().map(PhoneNumber::digits),
                digits,
                "{text:?}"
            );
        }
    }

    #[test]
    fn digits_survive_their_text_form_whatever_they_begin_with() {
        for text in ["+0012", "000012", "+0014155550100", "14155550100"] {
            let number = PhoneNumber::parse_lenient(text).unwrap();
            assert_eq!(PhoneNumber::from_digits(number.digits()), Some(number), "{text}");
        }
    }

    #[test]
    fn time_prints_with_milliseconds() {
        assert_eq!(Timestamp(1_771_322_520_007).iso_ms(), "2026-02-17T10:02:00.007Z");
        assert_eq!(Timestamp(0).iso_ms(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn moments_and_days_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:01Z", Some(1000)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1970-01-02", Some(86_400_000)),
            ("1970-01-02T00:00:00", None),
            ("1970-13-01", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::from_iso(text), ms.map(Timestamp), "{text}");
        }
    }
}
