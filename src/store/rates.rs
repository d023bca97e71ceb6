//! Sliding windows of requests that several processes count in, exact over all of them. One row a window is locked
//! for a moment, and time is the database's, so that it does not matter whose clock is wrong. A process that has its
//! database to itself keeps its windows in memory instead.

use super::sql::{column, sql};
use super::{Db, StoreError};

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whether it was taken; only then it counts.
    pub taken: bool,
    /// Requests of the window that count, this one not included.
    pub used: i64,
    /// Milliseconds since the oldest of them, or 0 if there is none.
    pub oldest_ms_ago: i64,
}

impl Db {
    /// Counts one request of `key` in its window of a minute, which begins with its first request and ends on a whole
    /// second of the database's clock. Milliseconds until the end, and the requests so far, this one included.
    ///
    /// # Errors
    /// The database; always with SQLite, which has no such windows.
    pub async fn take_minute(&self, key: i64) -> Result<(i64, u32), StoreError> {
        let asked = sql("INSERT INTO plan_minutes AS m (api_key, ends_at, asked) VALUES ($1, \
             CAST(CEIL(EXTRACT(EPOCH FROM clock_timestamp()) + 60) * 1000 AS BIGINT), 1) \
             ON CONFLICT (api_key) DO UPDATE SET asked = CASE WHEN m.ends_at <= EXTRACT(EPOCH FROM clock_timestamp()) * 1000 \
             THEN 1 ELSE m.asked + 1 END, ends_at = CASE WHEN m.ends_at <= EXTRACT(EPOCH FROM clock_timestamp()) * 1000 \
             THEN excluded.ends_at ELSE m.ends_at END RETURNING asked, \
             ends_at - CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS left_ms, \
             set_config('synchronous_commit', 'off', true)");
        let mut tx = self.begin().await?;
        let row = tx.one(asked.bind(key)).await?;
        tx.commit().await?;
        let asked = u32::try_from(column::<i64>(&row, "asked")?).unwrap_or(u32::MAX);
        Ok((column(&row, "left_ms")?, asked))
    }

    /// Asks for one request of `key` in a window of `window_ms`, and counts it if fewer than `limit` count already.
    /// What a crash of the database loses of it is less than a second's.
    ///
    /// # Errors
    /// The database; always with SQLite, which has no such windows.
    pub async fn take_rate(
        &self,
        surface: &str,
        key: i64,
        limit: u32,
        window_ms: i64,
    ) -> Result<Counted, StoreError> {
        let mut tx = self.begin().await?;
        // Locks the window; the moment is read after that, and never runs backwards.
        let asked = sql("INSERT INTO rate_windows (surface, api_key, last_at, asked) \
             VALUES ($1, $2, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT), 1) \
             ON CONFLICT (surface, api_key) DO UPDATE SET asked = rate_windows.asked + 1, last_at = \
             GREATEST(rate_windows.last_at, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)) \
             RETURNING last_at, asked, set_config('synchronous_commit', 'off', true)")
        .bind(surface)
        .bind(key);
        let row = tx.one(asked).await?;
        let (now, asked): (i64, i64) = (column(&row, "last_at")?, column(&row, "asked")?);
        let begins = now.saturating_sub(window_ms);
        let counting = sql("SELECT COUNT(*) AS used, MIN(at) AS oldest FROM rate_moments \
             WHERE surface = $1 AND api_key = $2 AND at > $3");
        let row = tx.one(counting.bind(surface).bind(key).bind(begins)).await?;
        let used: i64 = column(&row, "used")?;
        let oldest = column::<Option<i64>>(&row, "oldest")?;
        let taken = used < i64::from(limit);
        if taken {
            let gone = sql("DELETE FROM rate_moments WHERE surface = $1 AND api_key = $2 AND at <= $3");
            tx.run(gone.bind(surface).bind(key).bind(begins)).await?;
            let new = sql("INSERT INTO rate_moments (surface, api_key, asked, at) VALUES ($1, $2, $3, $4)");
            tx.run(new.bind(surface).bind(key).bind(asked).bind(now)).await?;
        }
        tx.commit().await?;
        let oldest_ms_ago = oldest.map_or(0, |oldest| now.saturating_sub(oldest));
        Ok(Counted { taken, used, oldest_ms_ago })
    }
}
