//! When a campaign may call: a span of the day on certain days, by the wall clock of a time zone (CONTRACT 3 S17). The
//! start is within, the end is not; a start later than the end spans midnight, and such a night belongs to the day on
//! which it begins. Where clocks are put forward a start that does not exist is the first moment after; where they are
//! put back an hour that comes twice counts twice. Pure: moment and zone are arguments.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;

use crate::model::Timestamp;

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

/// Days looked at for the next opening: a week, and the days that time zones may add at either end.
const LOOK_DAYS: i64 = 9;

/// Days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u8);

/// Every day with the word that surfaces have for it, in the order of the week.
const WORDS: &[(&str, Weekday)] = &[
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl Days {
    /// All of them.
    pub const ALL: Self = Self(0x7f);

    /// Those of these words, `mon` to `sun`; `None` for any other word, and for none at all.
    pub fn from_words(words: &[&str]) -> Option<Self> {
        let mut days = 0;
        for word in words {
            let (_, day) = WORDS.iter().find(|(known, _)| known == word)?;
            days |= Self::bit(*day);
        }
        (days != 0).then_some(Self(days))
    }

    /// Their words, in the order of the week.
    pub fn words(self) -> Vec<&'static str> {
        WORDS.iter().filter(|(_, day)| self.0 & Self::bit(*day) != 0).map(|(word, _)| *word).collect()
    }

    /// As the database keeps them: one bit a day, Monday the lowest.
    pub fn bits(self) -> i64 {
        self.0.into()
    }

    /// Reads [`Days::bits`].
    pub fn from_bits(bits: i64) -> Option<Self> {
        u8::try_from(bits).ok().filter(|bits| (1..=0x7f).contains(bits)).map(Self)
    }

    fn has(self, date: Date) -> bool {
        self.0 & Self::bit(date.weekday()) != 0
    }

    fn bit(day: Weekday) -> u8 {
        1 << day.to_monday_zero_offset()
    }
}

/// When may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Start and end, minutes after midnight, never the same; `None`: all day.
    pub span: Option<(u16, u16)>,
    /// On which days.
    pub days: Days,
}

/// Longest name of a time zone, characters.
const ZONE_MAX: usize = 64;

/// The IANA time zone of that name.
pub fn zone_of(name: &str) -> Option<TimeZone> {
    if name.len() > ZONE_MAX { None } else { TimeZone::get(name).ok() }
}

/// Reads `HH:MM`, minutes after midnight.
pub fn minute_of(text: &str) -> Option<u16> {
    let plain = text.len() == 5
        && text.bytes().enumerate().all(|(at, b)| (at == 2 && b == b':') || (at != 2 && b.is_ascii_digit()));
    let (hours, minutes) = text.split_once(':').filter(|_| plain)?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

/// Writes [`minute_of`].
pub fn time_of(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

impl Hours {
    /// Whether may be called at that moment, in that zone.
    pub fn open(&self, at: Timestamp, zone: &TimeZone) -> bool {
        let Some(wall) = wall(at, zone) else { return false };
        let (date, time) = (wall.date(), wall.time());
        let minute = u16::try_from(i32::from(time.hour()) * 60 + i32::from(time.minute())).unwrap_or(0);
        let day = match self.span {
            None => Some(date),
            Some((start, end)) if start < end => (start <= minute && minute < end).then_some(date),
            Some((start, _)) if minute >= start => Some(date),
            Some((_, end)) => (minute < end).then(|| date.yesterday().ok()).flatten(),
        };
        day.is_some_and(|day| self.days.has(day))
    }

    /// The first moment from `at` on at which may be called; `None` where there is none within the next days.
    pub fn next_open(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.first(at, zone, true)
    }

    /// The first moment from `at` on at which may not be called any more; `None` where there is none.
    pub fn next_shut(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.first(at, zone, false)
    }

    /// The first moment from `at` on at which it is open, or shut. That changes only where the wall clock reaches
    /// midnight, start or end, or is set.
    fn first(&self, at: Timestamp, zone: &TimeZone, open: bool) -> Option<Timestamp> {
        if self.open(at, zone) == open {
            return Some(at);
        }
        let today = wall(at, zone)?.date();
        let (start, end) = self.span.unwrap_or((0, 0));
        let mut moments = Vec::new();
        for day in 0..=LOOK_DAYS {
            let date = today.checked_add(jiff::Span::new().days(day)).ok()?;
            for minute in [0, start, end] {
                moments.extend(reached(date, minute, zone));
            }
        }
        let from = jiff::Timestamp::from_millisecond(at.0).ok()?;
        let set = zone.following(from).take(2).map(|change| change.timestamp().as_millisecond());
        moments.extend(set.map(Timestamp));
        moments.retain(|moment| *moment >= at);
        moments.sort_unstable();
        moments.into_iter().find(|moment| self.open(*moment, zone) == open)
    }
}

fn wall(at: Timestamp, zone: &TimeZone) -> Option<jiff::civil::DateTime> {
    Some(zone.to_datetime(jiff::Timestamp::from_millisecond(at.0).ok()?))
}

/// The moments at which the wall clock shows that minute on that day: one, two, or where it is passed over the moment
/// it would have come by either reckoning.
fn reached(date: Date, minute: u16, zone: &TimeZone) -> Vec<Timestamp> {
    let minute = minute % DAY_MINUTES;
    let hour = i8::try_from(minute / 60).unwrap_or(0);
    let time = Time::new(hour, i8::try_from(minute % 60).unwrap_or(0), 0, 0);
    let Ok(time) = time else { return Vec::new() };
    let wall = zone.to_ambiguous_zoned(date.to_datetime(time));
    let either = [wall.clone().earlier(), wall.later()];
    either.into_iter().flatten().map(|at| Timestamp(at.timestamp().as_millisecond())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn hours(start: &str, end: &str) -> Hours {
        Hours { span: Some((minute_of(start).unwrap(), minute_of(end).unwrap())), days: Days::ALL }
    }

    #[test]
    fn times_are_written_with_two_digits_each() {
        assert_eq!(minute_of("09:05"), Some(545));
        assert_eq!(time_of(545), "09:05");
        for wrong in ["9:00", "09:0", "24:00", "09:60", "", "09-00", "ab:cd", "09:00 ", "+9:00", "0٩:00"] {
            assert_eq!(minute_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn days_survive_both_their_forms() {
        let days = Days::from_words(&["fri", "mon"]).unwrap();
        assert_eq!(days.words(), ["mon", "fri"]);
        assert_eq!(Days::from_bits(days.bits()), Some(days));
        assert_eq!((Days::from_words(&[]), Days::from_words(&["monday"])), (None, None));
        assert_eq!((Days::from_bits(0), Days::from_bits(128), Days::from_bits(-1)), (None, None, None));
    }

    #[test]
    fn the_start_is_within_and_the_end_is_not() {
        let (zone, office) = (zone("America/New_York"), hours("09:00", "17:00"));
        // In January New York is five hours behind UTC.
        for (moment, open) in [
            ("2025-01-15T13:59:59.999Z", false),
            ("2025-01-15T14:00:00Z", true),
            ("2025-01-15T21:59:59.999Z", true),
            ("2025-01-15T22:00:00Z", false),
            // In July four.
            ("2025-07-15T12:59:59Z", false),
            ("2025-07-15T13:00:00Z", true),
            ("2025-07-15T20:59:59Z", true),
            ("2025-07-15T21:00:00Z", false),
        ] {
            assert_eq!(office.open(at(moment), &zone), open, "{moment}");
        }
        assert_eq!(office.next_open(at("2025-01-15T22:00:00Z"), &zone), Some(at("2025-01-16T14:00:00Z")));
        assert_eq!(office.next_shut(at("2025-01-15T15:00:00Z"), &zone), Some(at("2025-01-15T22:00:00Z")));
        let now = at("2025-01-15T15:00:00.123Z");
        assert_eq!(office.next_open(now, &zone), Some(now));
    }

    #[test]
    fn nights_span_midnight_and_belong_to_their_evening() {
        let utc = TimeZone::UTC;
        let night = Hours { days: Days::from_words(&["fri"]).unwrap(), ..hours("22:00", "06:00") };
        // 2025-01-17 is a Friday.
        for (moment, open) in [
            ("2025-01-17T05:59:00Z", false),
            ("2025-01-17T21:59:59Z", false),
            ("2025-01-17T22:00:00Z", true),
            ("2025-01-18T05:59:59Z", true),
            ("2025-01-18T06:00:00Z", false),
            ("2025-01-18T23:00:00Z", false),
        ] {
            assert_eq!(night.open(at(moment), &utc), open, "{moment}");
        }
        assert_eq!(night.next_open(at("2025-01-18T06:00:00Z"), &utc), Some(at("2025-01-24T22:00:00Z")));
    }

    #[test]
    fn clocks_that_are_put_forward_leave_no_start_out() {
        // 2025-03-09: 02:00 to 03:00 does not exist in New York, which changes at 07:00 UTC.
        let zone = zone("America/New_York");
        let early = hours("02:30", "05:00");
        assert!(!early.open(at("2025-03-09T06:59:59Z"), &zone));
        assert!(early.open(at("2025-03-09T07:00:00Z"), &zone));
        assert_eq!(early.next_open(at("2025-03-09T05:00:00Z"), &zone), Some(at("2025-03-09T07:00:00Z")));
        assert_eq!(early.next_shut(at("2025-03-09T07:30:00Z"), &zone), Some(at("2025-03-09T09:00:00Z")));
        // All of it lies in the hour that does not exist: not on that day.
        let gone = hours("02:10", "02:50");
        assert_eq!(gone.next_open(at("2025-03-09T05:00:00Z"), &zone), Some(at("2025-03-10T06:10:00Z")));
    }

    #[test]
    fn clocks_that_are_put_back_make_a_longer_hour() {
        // 2025-11-02: 01:00 to 02:00 comes twice in New York, at 05:00 and at 06:00 UTC.
        let zone = zone("America/New_York");
        let hour = hours("01:00", "02:00");
        for (moment, open) in [
            ("2025-11-02T04:59:59Z", false),
            ("2025-11-02T05:00:00Z", true),
            ("2025-11-02T06:59:59Z", true),
            ("2025-11-02T07:00:00Z", false),
        ] {
            assert_eq!(hour.open(at(moment), &zone), open, "{moment}");
        }
        // The wall clock passes the end of this one twice.
        let half = hours("01:15", "01:45");
        assert_eq!(half.next_shut(at("2025-11-02T05:30:00Z"), &zone), Some(at("2025-11-02T05:45:00Z")));
        assert_eq!(half.next_open(at("2025-11-02T05:45:00Z"), &zone), Some(at("2025-11-02T06:15:00Z")));
    }

    #[test]
    fn whole_days_open_at_midnight() {
        let zone = zone("Europe/Berlin");
        let weekend = Hours { span: None, days: Days::from_words(&["sat", "sun"]).unwrap() };
        assert_eq!(weekend.next_open(at("2025-06-19T12:00:00Z"), &zone), Some(at("2025-06-20T22:00:00Z")));
        assert_eq!(weekend.next_shut(at("2025-06-21T12:00:00Z"), &zone), Some(at("2025-06-22T22:00:00Z")));
        let always = Hours { span: None, days: Days::ALL };
        assert_eq!(always.next_shut(at("2025-06-21T12:00:00Z"), &zone), None);
    }

    /// What is said to be the next opening is open, and nothing between is: minute by minute over two changes of clock.
    #[test]
    fn the_next_opening_is_the_first() {
        for name in ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"] {
            let zone = zone(name);
            for (start, end) in
                [("01:30", "02:15"), ("22:00", "02:30"), ("00:00", "00:01"), ("02:00", "03:00")]
            {
                let hours = hours(start, end);
                for begin in ["2025-03-08T00:00:00Z", "2025-11-01T00:00:00Z"] {
                    let mut now = at(begin);
                    let mut said = hours.next_open(now, &zone).unwrap();
                    for _ in 0..3 * 24 * 60 {
                        if hours.open(now, &zone) {
                            assert!(said <= now, "{name} {start} {now:?}");
                        } else {
                            said = hours.next_open(now, &zone).unwrap();
                            assert!(said > now && hours.open(said, &zone), "{name} {start} {now:?}");
                        }
                        now = now.plus_ms(60_000);
                    }
                }
            }
        }
    }
}
