//! Caps that must hold whatever comes together: credits of a UTC day and calls of a minute. They are asked inside the
//! transaction that places a call, after the key's credit was held, so that of many requests exactly as many pass as
//! there is room for. Which caps a key has is decided above.

use super::history::DAY_MS;
use super::sql::{column, sql};
use super::{Db, StoreError, Tx};
use crate::model::call::{EndReason, Surface};
use crate::model::{CallId, Timestamp};

/// Spans in which calls are counted, milliseconds.
pub const MINUTE_MS: i64 = 60_000;
/// An hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;

/// The UTC day of a moment, from 1970-01-01.
fn day(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_MS)
}

impl Tx {
    /// Counts the credit that was just held towards the day of `at`. `false`: the day has had `most` already.
    pub async fn count_daily_credit(
        &mut self,
        key: i64,
        most: Option<u32>,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let row = self
            .one(
                sql("INSERT INTO daily_credits (api_key, day, credits) VALUES ($1, $2, 1) \
                     ON CONFLICT (api_key, day) DO UPDATE SET credits = daily_credits.credits + 1 \
                     RETURNING credits")
                .bind(key)
                .bind(day(at)),
            )
            .await?;
        let credits: i64 = row.first()?;
        Ok(most.is_none_or(|most| credits <= i64::from(most)))
    }

    /// A credit that was held came free: it no longer counts towards the day on which its call was placed.
    pub(super) async fn give_back(&mut self, key: i64, call: CallId) -> Result<(), StoreError> {
        let placed =
            self.optional(sql("SELECT created_at FROM calls WHERE id = $1").bind(call.hex())).await?;
        let Some(row) = placed else { return Ok(()) };
        let day = day(Timestamp(column(&row, "created_at")?));
        let less = sql(
            "UPDATE daily_credits SET credits = credits - 1 WHERE api_key = $1 AND day = $2 AND credits > 0",
        );
        self.run(less.bind(key).bind(day)).await?;
        Ok(())
    }

    /// When a key that has placed `most` calls (of one surface, where one is named) in the span of `span_ms` before `at` may place the next; `None`: now.
    pub async fn next_call_at(
        &mut self,
        key: i64,
        surface: Option<Surface>,
        (most, span_ms): (u32, i64),
        at: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        if most == 0 {
            return Ok(Some(at.plus_ms(span_ms)));
        }
        // The call that fills the span, if there are as many: the next may come when it has left.
        let mut fills = sql(
            "SELECT created_at FROM calls WHERE api_key = $1 AND created_at > $2 AND direction = 'outbound'",
        );
        fills = fills.bind(key).bind(at.plus_ms(-span_ms).0);
        if let Some(surface) = surface {
            fills.push(" AND surface = ").push_bind(surface.as_str());
        }
        fills.push(" ORDER BY created_at DESC LIMIT 1 OFFSET ").push_bind(i64::from(most) - 1);
        let fills = self.optional(fills).await?;
        fills.map(|row| Ok(Timestamp(column(&row, "created_at")?).plus_ms(span_ms))).transpose()
    }

    /// Live calls of a key on one surface. Exact as [`Tx::active_count`] is.
    pub async fn active_on(&mut self, key: i64, surface: Surface) -> Result<i64, StoreError> {
        self.lock_key(key).await?;
        let count =
            sql("SELECT COUNT(*) FROM calls WHERE api_key = $1 AND surface = $2 AND state <> 'ended'");
        self.one(count.bind(key).bind(surface.as_str())).await?.first()
    }

    /// Since when the latest `most` calls of a key on one surface that are over have all failed by their trunks: the
    /// end of the last of them. `None` where they have not, or are fewer.
    pub async fn failing_since(
        &mut self,
        key: i64,
        surface: Surface,
        most: u32,
    ) -> Result<Option<Timestamp>, StoreError> {
        let latest =
            sql("SELECT end_reason, answered_at, ended_at FROM calls WHERE api_key = $1 AND surface = $2 \
             AND state = 'ended' ORDER BY created_at DESC, id DESC LIMIT $3");
        let rows = self.all(latest.bind(key).bind(surface.as_str()).bind(i64::from(most))).await?;
        let mut last = None;
        for row in &rows {
            let reason: Option<String> = column(row, "end_reason")?;
            let answered = column::<Option<i64>>(row, "answered_at")?.is_some();
            if answered || reason.as_deref() != Some(EndReason::TrunkFailure.as_str()) {
                return Ok(None);
            }
            last = last.max(column::<Option<i64>>(row, "ended_at")?);
        }
        let full = u32::try_from(rows.len()).is_ok_and(|found| found >= most.max(1));
        Ok(last.filter(|_| full).map(Timestamp))
    }

    /// Live calls of all keys of a tenant. Nobody else can count them until this transaction is over.
    pub async fn active_of_tenant(&mut self, tenant: &str) -> Result<i64, StoreError> {
        // An update that changes nothing locks the row, whichever the database.
        self.run(sql("UPDATE tenants SET name = name WHERE id = $1").bind(tenant)).await?;
        let count = sql("SELECT COUNT(*) FROM calls WHERE tenant = $1 AND state <> 'ended'").bind(tenant);
        self.one(count).await?.first()
    }
}

impl Db {
    /// Credits that a key's calls placed on the day of `at` have taken or hold.
    pub async fn credits_of_day(&self, key: i64, at: Timestamp) -> Result<i64, StoreError> {
        let row = self
            .optional(
                sql("SELECT credits FROM daily_credits WHERE api_key = $1 AND day = $2")
                    .bind(key)
                    .bind(day(at)),
            )
            .await?;
        row.map_or(Ok(0), |row| row.first())
    }
}
