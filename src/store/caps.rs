//! Caps that must hold whatever comes together: credits of a UTC day and calls of a minute. They are asked inside the
//! transaction that places a call, after the key's credit was held, so that of many requests exactly as many pass as
//! there is room for. Which caps a key has is decided above.

use super::history::DAY_MS;
use super::sql::{column, sql};
use super::{Db, StoreError, Tx};
use crate::model::{CallId, Timestamp};

/// The span in which calls are counted, milliseconds.
pub const MINUTE_MS: i64 = 60_000;

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

    /// When a key that has placed `most` calls in the minute before `at` may place the next; `None`: now.
    pub async fn next_call_at(
        &mut self,
        key: i64,
        most: u32,
        at: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        if most == 0 {
            return Ok(Some(at.plus_ms(MINUTE_MS)));
        }
        // The call that fills the minute, if there are as many: the next may come when it has left.
        let fills = self
            .optional(
                sql("SELECT created_at FROM calls WHERE api_key = $1 AND created_at > $2 \
                     ORDER BY created_at DESC LIMIT 1 OFFSET $3")
                .bind(key)
                .bind(at.plus_ms(-MINUTE_MS).0)
                .bind(i64::from(most) - 1),
            )
            .await?;
        fills.map(|row| Ok(Timestamp(column(&row, "created_at")?).plus_ms(MINUTE_MS))).transpose()
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
