//! How long the answers of agents take, counted for whoever watches the server: a few histograms of atomics, which
//! nobody waits for. Never reset; whoever wants a rate takes differences.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::turn::TurnTimes;

/// Upper bounds of the buckets, milliseconds; above the last there is one more.
pub const BOUNDS_MS: [u32; 14] = [10, 20, 40, 60, 100, 200, 400, 700, 1000, 1500, 2000, 3000, 5000, 10_000];
/// What is measured: all of it, and its parts.
const NAMES: [&str; 5] = ["total", "hearing", "model", "voice", "own"];

/// One histogram.
#[derive(Debug, Default)]
struct Series {
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_ms: AtomicU64,
}

/// The histograms since the start.
#[derive(Debug, Default)]
pub struct TurnFigures {
    series: [Series; NAMES.len()],
    interrupted: AtomicU64,
}

/// One histogram as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesNow {
    /// `total`, `hearing`, `model`, `voice` or `own`.
    pub part: &'static str,
    /// How many answers fell into each bucket of [`BOUNDS_MS`], and into the one above.
    pub buckets: [u64; BOUNDS_MS.len() + 1],
    /// All of them.
    pub count: u64,
    /// Their milliseconds together.
    pub sum_ms: u64,
}

/// All figures as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnSnapshot {
    /// The histograms.
    pub series: Vec<SeriesNow>,
    /// Answers that callers spoke into.
    pub interrupted: u64,
}

impl TurnFigures {
    /// Counts an answer.
    pub fn note(&self, times: &TurnTimes) {
        let parts = [times.total_ms, times.hearing_ms, times.model_ms, times.voice_ms, times.own_ms];
        for (series, ms) in self.series.iter().zip(parts) {
            let Some(ms) = ms else { continue };
            let at = BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS_MS.len());
            if let Some(bucket) = series.buckets.get(at) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
            series.sum_ms.fetch_add(ms.into(), Ordering::Relaxed);
        }
        if times.interrupted.is_some() {
            self.interrupted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The figures now.
    pub fn snapshot(&self) -> TurnSnapshot {
        let now = |(part, series): (&'static str, &Series)| {
            let buckets = series.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
            let sum_ms = series.sum_ms.load(Ordering::Relaxed);
            SeriesNow { part, buckets, count: buckets.iter().sum(), sum_ms }
        };
        let series = NAMES.into_iter().zip(&self.series).map(now).collect();
        TurnSnapshot { series, interrupted: self.interrupted.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn an_answer_falls_into_the_bucket_of_its_time() {
        let figures = TurnFigures::default();
        let times = TurnTimes { total_ms: Some(1200), own_ms: Some(20), ..TurnTimes::default() };
        figures.note(&times);
        let slow = TurnTimes { total_ms: Some(60_000), interrupted: Some(Timestamp(1)), ..times };
        figures.note(&slow);
        let now = figures.snapshot();
        assert_eq!(now.interrupted, 1);
        let [total, hearing, _, _, own] = now.series.as_slice() else { panic!("{now:?}") };
        assert_eq!((total.part, total.count, total.sum_ms), ("total", 2, 61_200));
        assert_eq!((total.buckets[9], total.buckets[14]), (1, 1));
        assert_eq!((hearing.count, hearing.sum_ms), (0, 0));
        assert_eq!((own.part, own.buckets[1], own.sum_ms), ("own", 2, 40));
    }
}
