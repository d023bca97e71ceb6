//! Exact sliding windows: the moments of the last N seconds are kept, so the limit holds over every span of that
//! length and not only over fixed ones. In memory, where a restart begins anew, or in a database that several processes
//! share. Keys are the only thing that makes a window, and each window holds at most its limit of moments, so the size
//! is bounded by what operators granted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::model::Timestamp;
use crate::store::{Db, StoreError};

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Whether it is taken. Only taken requests count.
    pub allowed: bool,
    /// Requests a window.
    pub limit: u32,
    /// Requests left after this one.
    pub remaining: u32,
    /// Until the oldest counted request leaves the window.
    pub resets_in: Duration,
}

impl Rate {
    /// Whole seconds until a refused request may be tried again, at least 1.
    pub fn retry_after_s(self) -> u64 {
        ceil_s(self.resets_in).max(1)
    }
}

/// Whole seconds, rounded up.
fn ceil_s(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// One window length for any number of keys. Safe to ask from many threads at once: with L left, exactly L of N
/// requests that come together are taken.
#[derive(Debug)]
pub struct Limiter {
    window: Duration,
    taken: DashMap<i64, VecDeque<Instant>>,
}

impl Limiter {
    /// Windows of this length, none used yet.
    pub fn new(window: Duration) -> Self {
        Self { window, taken: DashMap::new() }
    }

    /// Asks for one request of `key` at `now` under `limit`, and counts it if it is taken.
    pub fn take(&self, key: i64, limit: u32, now: Instant) -> Rate {
        let mut taken = self.taken.entry(key).or_default();
        while taken.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.window) {
            taken.pop_front();
        }
        let used = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        let allowed = used < limit;
        if allowed {
            taken.push_back(now);
        }
        let since_oldest = taken.front().map(|at| now.saturating_duration_since(*at));
        Rate {
            allowed,
            limit,
            remaining: limit.saturating_sub(used).saturating_sub(u32::from(allowed)),
            resets_in: self.window.saturating_sub(since_oldest.unwrap_or_default()),
        }
    }
}

/// One surface's windows, exact over all processes that serve from the database.
#[derive(Debug)]
pub struct Windows {
    db: Db,
    surface: &'static str,
    window: Duration,
    here: Limiter,
}

impl Windows {
    /// Windows of this length, by the surface's word.
    pub fn new(db: Db, surface: &'static str, window: Duration) -> Self {
        Self { db, surface, window, here: Limiter::new(window) }
    }

    /// Asks for one request of `key` at `now` under `limit`, and counts it if it is taken. Where processes share the
    /// windows, the time is the database's.
    ///
    /// # Errors
    /// A database that failed.
    pub async fn take(&self, key: i64, limit: u32, now: Instant) -> Result<Rate, StoreError> {
        if !self.db.is_shared() {
            return Ok(self.here.take(key, limit, now));
        }
        let window_ms = i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX);
        let counted = self.db.take_rate(self.surface, key, limit, window_ms).await?;
        let used = u32::try_from(counted.used).unwrap_or(u32::MAX);
        let since_oldest = Duration::from_millis(u64::try_from(counted.oldest_ms_ago).unwrap_or(0));
        Ok(Rate {
            allowed: counted.taken,
            limit,
            remaining: limit.saturating_sub(used).saturating_sub(u32::from(counted.taken)),
            resets_in: self.window.saturating_sub(since_oldest),
        })
    }
}

/// Fixed windows of a minute that begin with a key's first request (CONTRACT 1.3), exact over all processes that serve
/// from the database. A window ends on a whole second, so that what clients are told of its end is its end.
#[derive(Debug)]
pub struct Minutes {
    db: Db,
    /// Each key's window: where it ends, and the requests in it.
    here: DashMap<i64, (Timestamp, u32)>,
}

impl Minutes {
    /// No window has begun.
    pub fn new(db: Db) -> Self {
        Self { db, here: DashMap::new() }
    }

    /// Asks for one request of `key` at `now` under `limit`, and counts it if it is taken. Where processes share the
    /// windows, the time is the database's.
    ///
    /// # Errors
    /// A database that failed.
    pub async fn take(&self, key: i64, limit: u32, now: Timestamp) -> Result<Rate, StoreError> {
        let (ends_in_ms, asked) = if self.db.is_shared() {
            self.db.take_minute(key).await?
        } else {
            let mut window = self.here.entry(key).or_insert((Timestamp(i64::MIN), 0));
            if now >= window.0 {
                *window = (Timestamp((now.seconds() + 60 + i64::from(now.0.rem_euclid(1000) > 0)) * 1000), 0);
            }
            window.1 = window.1.saturating_add(1);
            (window.0.0.saturating_sub(now.0), window.1)
        };
        let resets_in = Duration::from_millis(u64::try_from(ends_in_ms).unwrap_or(0));
        Ok(Rate { allowed: asked <= limit, limit, remaining: limit.saturating_sub(asked), resets_in })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn start() -> Instant {
        crate::clock::now().mono
    }

    #[test]
    fn the_window_slides_and_refused_requests_do_not_count() {
        let limiter = Limiter::new(Duration::from_secs(10));
        let t0 = start();
        let at = |ms: u64| t0 + Duration::from_millis(ms);
        let first = limiter.take(1, 2, at(0));
        assert_eq!((first.allowed, first.remaining, first.resets_in), (true, 1, Duration::from_secs(10)));
        assert_eq!(limiter.take(1, 2, at(4_000)).remaining, 0);
        for ms in [4_001, 5_000, 9_999] {
            let refused = limiter.take(1, 2, at(ms));
            assert!(!refused.allowed);
            assert_eq!(refused.remaining, 0);
        }
        assert_eq!(limiter.take(1, 2, at(9_999)).retry_after_s(), 1);
        assert_eq!(limiter.take(1, 2, at(4_500)).retry_after_s(), 6);
        // Exactly one place is free once the first has left; the second still counts until 14 s.
        assert!(limiter.take(1, 2, at(10_000)).allowed);
        assert!(!limiter.take(1, 2, at(13_999)).allowed);
        assert!(limiter.take(1, 2, at(14_000)).allowed);
    }

    #[test]
    fn keys_do_not_touch_each_other() {
        let limiter = Limiter::new(Duration::from_secs(10));
        let now = start();
        assert!(limiter.take(1, 1, now).allowed);
        assert!(!limiter.take(1, 1, now).allowed);
        assert!(limiter.take(2, 1, now).allowed);
    }

    #[test]
    fn a_limit_of_nothing_takes_nothing() {
        let refused = Limiter::new(Duration::from_secs(3600)).take(1, 0, start());
        assert_eq!((refused.allowed, refused.retry_after_s()), (false, 3600));
    }

    #[test]
    fn exactly_what_is_left_is_taken_by_many_at_once() {
        let limiter = Arc::new(Limiter::new(Duration::from_secs(3600)));
        let now = start();
        let taken = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let (limiter, taken) = (Arc::clone(&limiter), Arc::clone(&taken));
                scope.spawn(move || {
                    for _ in 0..50 {
                        if limiter.take(7, 137, now).allowed {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.load(Ordering::Relaxed), 137);
    }
}
