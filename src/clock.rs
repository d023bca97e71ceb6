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
    let wall = Timestamp(ms);
    #[cfg(test)]
    let wall = set::wall().unwrap_or(wall);
    Now { mono: Instant::now(), wall }
}

/// A wall clock that tests set: for their own thread, and with it for every task of a runtime of one thread.
#[cfg(test)]
pub(crate) mod set {
    use std::cell::Cell;

    use super::Timestamp;

    thread_local! {
        static WALL: Cell<Option<Timestamp>> = const { Cell::new(None) };
    }

    pub(super) fn wall() -> Option<Timestamp> {
        WALL.get()
    }

    /// The clock stands at this moment until it is set again.
    pub(crate) fn to(at: Timestamp) {
        WALL.set(Some(at));
    }
}
