//! How punctual the workers are: counters that any thread may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper ends of the buckets of lateness, in microseconds; the last bucket has none.
const EDGES: [u64; 14] = [25, 50, 75, 100, 150, 250, 500, 1000, 2000, 3500, 5000, 10_000, 20_000, 60_000];

/// How punctual the workers are, since the start, over all workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Frames of 20 ms made, counted per bridge.
    pub ticks: u64,
    /// Slots that began more than 5 ms late: one slot is the turn of a quarter of a worker's bridges.
    pub overruns: u64,
    /// Slots that were left out because a worker was more than 60 ms behind.
    pub skipped: u64,
    /// Datagrams the system would not send.
    pub send_errors: u64,
    /// Bridges that were ended because of a fault in the program.
    pub faults: u64,
    /// Half of the slots began at most so many microseconds late (upper end of a bucket).
    pub lateness_p50_us: u64,
    /// 99 of 100 slots began at most so many microseconds late (upper end of a bucket).
    pub lateness_p99_us: u64,
    /// The latest slot, in microseconds.
    pub lateness_max_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) ticks: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) send_errors: AtomicU64,
    pub(super) faults: AtomicU64,
    overruns: AtomicU64,
    lateness: [AtomicU64; EDGES.len() + 1],
    latest: AtomicU64,
}

impl Counters {
    pub(super) fn late(&self, micros: u64) {
        let bucket = EDGES.partition_point(|edge| *edge < micros);
        self.lateness[bucket].fetch_add(1, Ordering::Relaxed);
        self.latest.fetch_max(micros, Ordering::Relaxed);
        if micros > 5000 {
            self.overruns.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Metrics {
        let buckets = self.lateness.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let max = self.latest.load(Ordering::Relaxed);
        Metrics {
            ticks: self.ticks.load(Ordering::Relaxed),
            overruns: self.overruns.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            send_errors: self.send_errors.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            lateness_p50_us: percentile(&buckets, 50, max),
            lateness_p99_us: percentile(&buckets, 99, max),
            lateness_max_us: max,
        }
    }
}

fn percentile(buckets: &[u64], percent: u64, max: u64) -> u64 {
    let wanted = (buckets.iter().sum::<u64>() * percent).div_ceil(100);
    let mut seen = 0;
    for (count, edge) in buckets.iter().zip(EDGES) {
        seen += count;
        if seen >= wanted {
            return edge.min(max);
        }
    }
    max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_upper_ends_of_buckets() {
        let counters = Counters::default();
        assert_eq!(counters.read(), Metrics::default());
        for _ in 0..98 {
            counters.late(40);
        }
        counters.late(700);
        counters.late(90_000);
        let metrics = counters.read();
        assert_eq!((metrics.lateness_p50_us, metrics.lateness_p99_us), (50, 1000));
        assert_eq!((metrics.lateness_max_us, metrics.overruns), (90_000, 1));
    }
}
