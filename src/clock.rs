//! The server's clocks: the one place outside the media driver where time is read.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::{Now, Timestamp};

/// Reads both clocks at once.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the drivers get the time that the cores are given"
)]
pub fn now() -> Now {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    Now { mono: Instant::now(), wall: Timestamp(ms) }
}
