//! The sums of the dashboard and the analytics (CONTRACT 1.1, rows 15 and 17). Pure: counts in, figures out.
//!
//! The analytics are of calls that are over, so that completed, failed and unanswered ones are all of them.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::model::Timestamp;
use crate::store::history::{DAY_MS, DayCount, OutcomeCount};

/// Where the UTC day of a moment begins.
pub(super) fn day_of(at: Timestamp) -> Timestamp {
    days_back(at, 1)
}

/// Where the UTC day begins that, with the day of `at`, makes so many days.
pub(super) fn days_back(at: Timestamp, days: u32) -> Timestamp {
    let today = at.0.div_euclid(DAY_MS);
    Timestamp((today + 1 - i64::from(days)).saturating_mul(DAY_MS))
}

/// Where the ISO week of a moment begins: on Monday.
pub(super) fn week_of(at: Timestamp) -> Timestamp {
    let today = at.0.div_euclid(DAY_MS);
    // 1970-01-01 was a Thursday, three days after a Monday.
    Timestamp((today - (today + 3).rem_euclid(7)).saturating_mul(DAY_MS))
}

/// A quotient with a few decimals, rounded half up. A whole one prints without a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rounded {
    units: i64,
    per_one: i64,
}

impl Rounded {
    /// `part` of `whole`, 0 of nothing; `per_one` is 10 for one decimal, 100 for two. Neither is negative.
    fn quotient(part: i64, whole: i64, per_one: i64) -> Self {
        let doubled = i128::from(part) * i128::from(per_one) * 2 + i128::from(whole);
        let units = if whole == 0 { 0 } else { doubled / (i128::from(whole) * 2) };
        Self { units: i64::try_from(units).unwrap_or(i64::MAX), per_one }
    }

    /// With two decimals.
    fn percent(part: i64, whole: i64) -> Self {
        Self::quotient(part.saturating_mul(100), whole, 100)
    }
}

impl Serialize for Rounded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.units % self.per_one == 0 {
            serializer.serialize_i64(self.units / self.per_one)
        } else {
            serializer.serialize_f64(self.units as f64 / self.per_one as f64)
        }
    }
}

/// The dashboard's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DashboardStats)]
pub(super) struct Stats {
    /// Balance; -1: unlimited.
    total_credits: i64,
    /// All calls.
    total_calls: i64,
    /// Calls that were answered.
    successful_calls: i64,
    /// Percent, two decimals.
    #[schema(value_type = f64)]
    success_rate: Rounded,
    /// Calls since midnight UTC.
    calls_today: i64,
    /// Of these, answered ones.
    successful_calls_today: i64,
    /// Calls since Monday.
    calls_this_week: i64,
}

impl Stats {
    /// Successful is what was answered, whether it is over or not.
    pub(super) fn of(credits: i64, counts: &[OutcomeCount]) -> Self {
        let successful = || counts.iter().filter(|c| matches!(c.outcome.as_str(), "answered" | "completed"));
        let total_calls = counts.iter().map(|c| c.calls).sum();
        let successful_calls = successful().map(|c| c.calls).sum();
        Self {
            total_credits: credits,
            total_calls,
            successful_calls,
            success_rate: Rounded::percent(successful_calls, total_calls),
            calls_today: counts.iter().map(|c| c.today).sum(),
            successful_calls_today: successful().map(|c| c.today).sum(),
            calls_this_week: counts.iter().map(|c| c.this_week).sum(),
        }
    }
}

/// What an outcome counts as. Whatever is neither completed nor unanswered has failed, so that the three are all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Completed,
    NoAnswer,
    Failed,
}

fn kind(outcome: &str) -> Kind {
    match outcome {
        "completed" => Kind::Completed,
        "no_answer" => Kind::NoAnswer,
        _ => Kind::Failed,
    }
}

fn calls_of(counts: &[DayCount], wanted: Kind) -> i64 {
    counts.iter().filter(|c| kind(&c.outcome) == wanted).map(|c| c.calls).sum()
}

fn all_calls(counts: &[DayCount]) -> i64 {
    counts.iter().map(|c| c.calls).sum()
}

/// The analytics' numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AnalyticsOverview)]
pub(super) struct Overview {
    /// All calls.
    total_calls: i64,
    /// Answered and over.
    completed_calls: i64,
    /// Neither completed nor unanswered.
    failed_calls: i64,
    /// Nobody answered.
    no_answer_calls: i64,
    /// A person answered, as detection says.
    human_calls: i64,
    /// A machine answered, as detection says.
    machine_calls: i64,
    /// Seconds of a completed call, one decimal.
    #[schema(value_type = f64)]
    avg_duration: Rounded,
    /// Percent, two decimals.
    #[schema(value_type = f64)]
    success_rate: Rounded,
}

impl Overview {
    pub(super) fn of(counts: &[DayCount]) -> Self {
        let total_calls = all_calls(counts);
        let completed_calls = calls_of(counts, Kind::Completed);
        let completed = counts.iter().filter(|c| kind(&c.outcome) == Kind::Completed);
        let seconds = completed.map(|c| c.duration_s).sum();
        Self {
            total_calls,
            completed_calls,
            failed_calls: calls_of(counts, Kind::Failed),
            no_answer_calls: calls_of(counts, Kind::NoAnswer),
            human_calls: counts.iter().map(|c| c.humans).sum(),
            machine_calls: counts.iter().map(|c| c.machines).sum(),
            avg_duration: Rounded::quotient(seconds, completed_calls, 10),
            success_rate: Rounded::percent(completed_calls, total_calls),
        }
    }
}

/// One day's calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AnalyticsDay)]
pub(super) struct Day {
    /// `YYYY-MM-DD`.
    date: String,
    /// All calls.
    total_calls: i64,
    /// Answered and over.
    completed: i64,
    /// Neither completed nor unanswered.
    failed: i64,
}

/// Days with calls, as they come: the newest first.
pub(super) fn daily(counts: &[DayCount]) -> Vec<Day> {
    let day = |counts: &[DayCount]| {
        let number = counts.first().map_or(0, |count| count.day);
        let mut date = Timestamp(number.saturating_mul(DAY_MS)).iso_ms();
        date.truncate("YYYY-MM-DD".len());
        Day {
            date,
            total_calls: all_calls(counts),
            completed: calls_of(counts, Kind::Completed),
            failed: calls_of(counts, Kind::Failed),
        }
    };
    counts.chunk_by(|one, other| one.day == other.day).map(day).collect()
}

/// How much of all calls one status is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AnalyticsShare)]
pub(super) struct Share {
    /// The status.
    status: String,
    /// Its calls.
    count: i64,
    /// Percent of all calls, two decimals.
    #[schema(value_type = f64)]
    percentage: Rounded,
}

/// The most frequent status first; equals by name.
pub(super) fn shares(counts: &[DayCount]) -> Vec<Share> {
    let mut by_status = BTreeMap::<&str, i64>::new();
    for count in counts {
        *by_status.entry(&count.outcome).or_default() += count.calls;
    }
    let total = all_calls(counts);
    let share = |(status, count): (&str, i64)| Share {
        status: status.to_owned(),
        count,
        percentage: Rounded::percent(count, total),
    };
    let mut shares: Vec<_> = by_status.into_iter().map(share).collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.count));
    shares
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value(figures: &impl Serialize) -> Value {
        serde_json::to_value(figures).unwrap()
    }

    fn day(day: i64, outcome: &str, calls: i64) -> DayCount {
        DayCount { day, outcome: outcome.into(), calls, duration_s: 0, humans: 0, machines: 0 }
    }

    fn outcome(outcome: &str, calls: i64, today: i64, this_week: i64) -> OutcomeCount {
        OutcomeCount { outcome: outcome.into(), calls, today, this_week }
    }

    #[test]
    fn days_and_weeks_begin_at_midnight_utc() {
        // 2026-02-17 is a Tuesday.
        let noon = Timestamp(1_771_322_520_007);
        assert_eq!(day_of(noon).iso_ms(), "2026-02-17T00:00:00.000Z");
        assert_eq!(week_of(noon).iso_ms(), "2026-02-16T00:00:00.000Z");
        assert_eq!(days_back(noon, 7).iso_ms(), "2026-02-11T00:00:00.000Z");
        assert_eq!(days_back(noon, 365).iso_ms(), "2025-02-18T00:00:00.000Z");
        let monday = week_of(noon);
        for (ms, week) in [(0, monday), (7 * DAY_MS - 1, monday), (7 * DAY_MS, monday.plus_ms(7 * DAY_MS))] {
            assert_eq!(week_of(monday.plus_ms(ms)), week);
        }
        assert_eq!(week_of(monday.plus_ms(-1)), monday.plus_ms(-7 * DAY_MS));
        assert_eq!(day_of(day_of(noon)), day_of(noon));
    }

    #[test]
    fn quotients_are_rounded_half_up_and_whole_ones_are_whole() {
        for (part, whole, printed) in [
            (301, 340, "88.53"),
            (97, 112, "86.61"),
            (2, 3, "66.67"),
            (1, 3, "33.33"),
            (1, 8, "12.5"),
            (1, 16_000, "0.01"),
            (0, 0, "0"),
            (0, 5, "0"),
            (5, 5, "100"),
            (i64::MAX / 200, i64::MAX / 200, "100"),
        ] {
            assert_eq!(value(&Rounded::percent(part, whole)).to_string(), printed, "{part} of {whole}");
        }
        for (seconds, calls, printed) in [(4155, 97, "42.8"), (0, 0, "0"), (90, 2, "45"), (1, 20, "0.1")] {
            assert_eq!(value(&Rounded::quotient(seconds, calls, 10)).to_string(), printed);
        }
    }

    #[test]
    fn the_dashboard_counts_what_was_answered_as_a_success() {
        let zeros = json!({
            "total_credits": 0, "total_calls": 0, "successful_calls": 0, "success_rate": 0, "calls_today": 0,
            "successful_calls_today": 0, "calls_this_week": 0,
        });
        assert_eq!(value(&Stats::of(0, &[])), zeros);
        let counts = [
            outcome("answered", 1, 1, 1),
            outcome("busy", 20, 2, 9),
            outcome("completed", 300, 17, 80),
            outcome("no_answer", 18, 1, 11),
            outcome("ringing", 1, 1, 1),
        ];
        let figures = json!({
            "total_credits": 78, "total_calls": 340, "successful_calls": 301, "success_rate": 88.53,
            "calls_today": 22, "successful_calls_today": 18, "calls_this_week": 102,
        });
        assert_eq!(value(&Stats::of(78, &counts)), figures);
    }

    #[test]
    fn completed_failed_and_unanswered_are_all_calls() {
        let mut counts = vec![
            DayCount { duration_s: 800, humans: 18, machines: 1, ..day(20_501, "completed", 19) },
            day(20_501, "no_answer", 2),
            day(20_501, "failed", 1),
            DayCount { duration_s: 3355, humans: 66, machines: 27, ..day(20_499, "completed", 78) },
            day(20_499, "busy", 3),
            day(20_499, "canceled", 3),
            day(20_499, "no_answer", 6),
        ];
        // An answered call that a crash cut off has failed; its time is not the completed ones'.
        counts[2].duration_s = 1000;
        let overview = json!({
            "totalCalls": 112, "completedCalls": 97, "failedCalls": 7, "noAnswerCalls": 8, "humanCalls": 84,
            "machineCalls": 28, "avgDuration": 42.8, "successRate": 86.61,
        });
        assert_eq!(value(&Overview::of(&counts)), overview);
        let days = json!([
            {"date": "2026-02-17", "total_calls": 22, "completed": 19, "failed": 1},
            {"date": "2026-02-15", "total_calls": 90, "completed": 78, "failed": 6},
        ]);
        assert_eq!(value(&daily(&counts)), days);
        let listed = value(&shares(&counts));
        assert_eq!(listed[0], json!({"status": "completed", "count": 97, "percentage": 86.61}));
        let names: Vec<_> =
            listed.as_array().unwrap().iter().map(|s| s["status"].as_str().unwrap()).collect();
        assert_eq!(names, ["completed", "no_answer", "busy", "canceled", "failed"]);
        let sum: f64 = listed.as_array().unwrap().iter().map(|s| s["percentage"].as_f64().unwrap()).sum();
        assert!((sum - 100.0).abs() <= 0.05, "{sum}");
        assert_eq!((value(&daily(&[])), value(&shares(&[]))), (json!([]), json!([])));
    }
}
