//! What the benches of whole calls share: the far end, the receiver of webhooks, and the server as a process.

pub(crate) mod far;
pub(crate) mod hooks;
pub(crate) mod program;

use std::error::Error;

/// Whatever goes wrong ends a benchmark.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The value at a part (0 to 1) of sorted values; NaN where there are none.
pub(crate) fn part_of(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * part).round() as usize).copied().unwrap_or(f64::NAN)
}
