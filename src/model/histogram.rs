//! A histogram that any thread may count in and any other may read, without a lock: how long things took, in buckets
//! whose upper ends are chosen once for all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets, microseconds; above the last there is one more, without an end.
pub const EDGES_US: [u64; 14] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// Counts of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; EDGES_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a [`Histogram`] held at a moment. A count that comes while it is read may be in one part and not yet in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Durations in each bucket, the last being those above all edges.
    pub buckets: [u64; EDGES_US.len() + 1],
    /// All durations together, microseconds.
    pub sum_us: u64,
}

impl Counts {
    /// How many there are.
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Histogram {
    /// Counts one.
    pub fn count(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = EDGES_US.partition_point(|edge| *edge < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// What it holds now.
    pub fn read(&self) -> Counts {
        Counts {
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.count(Duration::from_micros(micros));
        }
        let counts = histogram.read();
        assert_eq!(counts.buckets[..2], [2, 1]);
        assert_eq!(counts.buckets[13..], [1, 1]);
        assert_eq!((counts.total(), counts.sum_us), (5, 20_001_002));
    }
}
