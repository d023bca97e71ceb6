//! Conversations that are over and wait to be summed up, and what was said of them. A row is claimed by moving its time
//! into the future: whoever dies over it leaves it to another, or to the next start.

use super::sql::{Row, column, sql};
use super::{Db, StoreError, Tx};
use crate::model::analysis::{Analysis, Sentiment};
use crate::model::{CallId, Timestamp};

impl Db {
    /// Has the conversations wait that ended after `from` and no later than `until`: answered calls of agents on which
    /// a caller said something. Those that wait already, or are done, are left alone. How many there were.
    ///
    /// # Errors
    /// The database.
    pub async fn queue_analyses(&self, from: Timestamp, until: Timestamp) -> Result<u64, StoreError> {
        // Most of the time there is none, and then nobody who writes is waited for.
        let new = sql(
            "SELECT c.id FROM calls c WHERE c.ended_at > $1 AND c.ended_at <= $2 AND c.answered_at IS NOT NULL \
             AND c.mode IN ('agent', 'conversation') \
             AND NOT EXISTS (SELECT 1 FROM analyses a WHERE a.call = c.id) LIMIT 1",
        );
        if self.optional(new.bind(from.0).bind(until.0)).await?.is_none() {
            return Ok(0);
        }
        let mut tx = self.begin().await?;
        let queue = sql(
            "INSERT INTO analyses (call, state, attempts, due_at) SELECT c.id, 'waiting', 0, c.ended_at \
             FROM calls c WHERE c.ended_at > $1 AND c.ended_at <= $2 AND c.answered_at IS NOT NULL \
             AND c.mode IN ('agent', 'conversation') \
             AND NOT EXISTS (SELECT 1 FROM analyses a WHERE a.call = c.id) AND EXISTS (SELECT 1 FROM events e WHERE e.call = c.id \
             AND e.type = 'said' AND e.data LIKE '%\"by\":\"caller\"%') ON CONFLICT (call) DO NOTHING",
        );
        let queued = tx.run(queue.bind(from.0).bind(until.0)).await?;
        tx.commit().await?;
        Ok(queued)
    }

    /// Takes the one that has waited longest, for so long that nobody else takes it before `again`.
    ///
    /// # Errors
    /// The database.
    pub async fn claim_analysis(
        &self,
        now: Timestamp,
        again: Timestamp,
    ) -> Result<Option<CallId>, StoreError> {
        let due = sql("SELECT call FROM analyses WHERE state = 'waiting' AND due_at <= $1 LIMIT 1");
        if self.optional(due.bind(now.0)).await?.is_none() {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        let claim = sql(
            "UPDATE analyses SET attempts = attempts + 1, due_at = $2 WHERE call = (SELECT call FROM analyses \
             WHERE state = 'waiting' AND due_at <= $1 ORDER BY due_at LIMIT 1) AND state = 'waiting' \
             AND due_at <= $1 RETURNING call",
        );
        let row = tx.optional(claim.bind(now.0).bind(again.0)).await?;
        tx.commit().await?;
        let Some(row) = row else { return Ok(None) };
        let id = CallId::from_hex(&column::<String>(&row, "call")?);
        id.map(Some).ok_or(StoreError::Unreadable("analyses.call"))
    }

    /// It came to nothing: it waits until then, or for ever when it was tried `attempts` times.
    ///
    /// # Errors
    /// The database.
    pub async fn put_analysis_off(
        &self,
        call: CallId,
        until: Timestamp,
        attempts: u32,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let off = sql("UPDATE analyses SET due_at = $2, \
                       state = CASE WHEN attempts >= $3 THEN 'none' ELSE 'waiting' END \
                       WHERE call = $1 AND state = 'waiting'");
        tx.run(off.bind(call.hex()).bind(until.0).bind(attempts)).await?;
        tx.commit().await
    }
}

impl Tx {
    /// Keeps what was said of a conversation; `false` where that is kept already.
    ///
    /// # Errors
    /// The database.
    pub async fn keep_analysis(
        &mut self,
        call: CallId,
        analysis: &Analysis,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let keep = sql("UPDATE analyses SET state = 'done', summary = $2, sentiment = $3, done_at = $4 \
                        WHERE call = $1 AND state = 'waiting'");
        let keep = keep.bind(call.hex()).bind(&analysis.summary).bind(analysis.sentiment.as_str()).bind(at.0);
        Ok(self.run(keep).await? > 0)
    }
}

/// What a row says that was joined to its call.
pub(super) fn read_analysis(row: &Row) -> Result<Option<Analysis>, StoreError> {
    let summary: Option<String> = column(row, "analysis_summary")?;
    let sentiment: Option<String> = column(row, "analysis_sentiment")?;
    let Some((summary, sentiment)) = summary.zip(sentiment) else { return Ok(None) };
    let sentiment = Sentiment::from_text(&sentiment).ok_or(StoreError::Unreadable("analyses.sentiment"))?;
    Ok(Some(Analysis { summary, sentiment }))
}
