//! What has become of a key's calls, counted, and the event log of one of them (CONTRACT 1.1, rows 15 and 17). Days
//! are UTC.

use super::sql::{Row, column, sql};
use super::{Db, StoreError};
use crate::model::{CallId, Timestamp};

/// Milliseconds of a UTC day.
pub const DAY_MS: i64 = 86_400_000;

/// A key's calls of one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeCount {
    /// A word of [`super::calls::outcome`].
    pub outcome: String,
    /// All of them.
    pub calls: i64,
    /// Those placed today.
    pub today: i64,
    /// Those placed this week.
    pub this_week: i64,
}

/// A key's calls of one day and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayCount {
    /// Days since 1970-01-01.
    pub day: i64,
    /// A word of [`super::calls::outcome`].
    pub outcome: String,
    /// How many.
    pub calls: i64,
    /// Seconds from answer to end, of all together.
    pub duration_s: i64,
    /// Those a person answered.
    pub humans: i64,
    /// Those a machine answered.
    pub machines: i64,
}

/// One line of a call's event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// From 1, without gaps.
    pub sequence: u32,
    /// The event's name.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// Its own fields, a JSON object.
    pub data: String,
}

impl Db {
    /// All calls of a key by outcome; `today` and `week` are where today and this week begin.
    pub async fn outcomes(
        &self,
        key: i64,
        today: Timestamp,
        week: Timestamp,
    ) -> Result<Vec<OutcomeCount>, StoreError> {
        let rows = self.all(sql(
            "SELECT outcome, COUNT(*) AS calls, CAST(SUM(CASE WHEN created_at >= $2 THEN 1 ELSE 0 END) AS BIGINT) AS today, \
             CAST(SUM(CASE WHEN created_at >= $3 THEN 1 ELSE 0 END) AS BIGINT) AS this_week \
             FROM calls WHERE api_key = $1 GROUP BY outcome ORDER BY outcome",
        )
        .bind(key)
        .bind(today.0)
        .bind(week.0))
        .await?;
        let read = |row: &Row| {
            Ok(OutcomeCount {
                outcome: column(row, "outcome")?,
                calls: column(row, "calls")?,
                today: column(row, "today")?,
                this_week: column(row, "this_week")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// A key's calls placed since `since` that are over, by day and outcome; the newest day first.
    pub async fn days(&self, key: i64, since: Timestamp) -> Result<Vec<DayCount>, StoreError> {
        let rows = self.all(sql(
            "SELECT created_at / $3 AS day, outcome, COUNT(*) AS calls, CAST(SUM(duration_s) AS BIGINT) AS duration_s, \
             CAST(SUM(CASE WHEN amd_status = 'HUMAN' THEN 1 ELSE 0 END) AS BIGINT) AS humans, \
             CAST(SUM(CASE WHEN amd_status = 'MACHINE' THEN 1 ELSE 0 END) AS BIGINT) AS machines \
             FROM calls WHERE api_key = $1 AND created_at >= $2 AND state = 'ended' \
             GROUP BY created_at / $3, outcome ORDER BY day DESC, outcome",
        )
        .bind(key)
        .bind(since.0)
        .bind(DAY_MS))
        .await?;
        let read = |row: &Row| {
            Ok(DayCount {
                day: column(row, "day")?,
                outcome: column(row, "outcome")?,
                calls: column(row, "calls")?,
                duration_s: column(row, "duration_s")?,
                humans: column(row, "humans")?,
                machines: column(row, "machines")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// A call's events after the one of sequence `after` (0: from the first), oldest first, at most `limit`.
    pub async fn events_after(
        &self,
        call: CallId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<EventRow>, StoreError> {
        let rows = self
            .all(
                sql("SELECT sequence, type, at, data FROM events WHERE call = $1 AND sequence > $2 \
             ORDER BY sequence LIMIT $3")
                .bind(call.hex())
                .bind(i64::from(after))
                .bind(i64::from(limit)),
            )
            .await?;
        let read = |row: &Row| {
            let sequence = u32::try_from(column::<i64>(row, "sequence")?);
            let sequence = sequence.map_err(|_| StoreError::Unreadable("events.sequence"))?;
            let at = Timestamp(column(row, "at")?);
            Ok(EventRow { sequence, kind: column(row, "type")?, at, data: column(row, "data")? })
        };
        rows.iter().map(read).collect()
    }
}
