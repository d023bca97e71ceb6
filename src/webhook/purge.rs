//! Deliveries and events of calls that ended long ago are removed, a few calls at a time, so that no writer waits long
//! for it. A call that is up, or that still has something to send, keeps everything. Call rows and recordings are not
//! this file's business.

use std::time::Duration;

use crate::clock;
use crate::model::Timestamp;
use crate::store::deliveries::Purged;
use crate::store::history::DAY_MS;
use crate::store::{Db, StoreError};

/// Calls in one transaction.
const BATCH: u32 = 50;

/// The rest between two batches while there is more to remove.
const BREATH: Duration = Duration::from_millis(200);

/// The rest after the last.
const ROUND: Duration = Duration::from_secs(3600);

/// Calls that ended before this moment lose their deliveries and events; `None`: nothing is ever removed.
fn cutoff(now: Timestamp, keep_days: u32) -> Option<Timestamp> {
    (keep_days > 0).then(|| now.plus_ms(-i64::from(keep_days).saturating_mul(DAY_MS)))
}

/// The rest after a batch.
fn rest(removed: &Result<Purged, StoreError>) -> Duration {
    match removed {
        Ok(purged) if purged.calls >= BATCH.into() => BREATH,
        Ok(_) | Err(_) => ROUND,
    }
}

/// Removes one batch.
pub async fn once(db: &Db, now: Timestamp, keep_days: u32) -> Result<Purged, StoreError> {
    let Some(before) = cutoff(now, keep_days) else { return Ok(Purged::default()) };
    let mut tx = db.begin().await?;
    let purged = tx.purge(before, BATCH).await?;
    tx.commit().await?;
    Ok(purged)
}

/// Removes what is old for as long as it runs; it may be dropped at any moment.
pub(super) async fn run(db: Db, keep_days: u32) {
    if keep_days == 0 {
        return;
    }
    loop {
        let removed = once(&db, clock::now().wall, keep_days).await;
        match &removed {
            Ok(purged) if purged.calls > 0 => {
                let Purged { calls, deliveries, events } = purged;
                tracing::info!(calls, deliveries, events, "removed what webhooks.keep_days no longer keeps");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "old deliveries could not be removed; tried again later"),
        }
        tokio::time::sleep(rest(&removed)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_before_its_days_are_over() {
        let now = Timestamp(100 * DAY_MS);
        assert_eq!(cutoff(now, 30), Some(Timestamp(70 * DAY_MS)));
        assert_eq!(cutoff(now, 0), None);
        assert!(cutoff(now, u32::MAX).is_some_and(|before| before < Timestamp(0)));
    }

    #[test]
    fn a_full_batch_is_followed_by_another_soon() {
        let purged = |calls| Ok(Purged { calls, ..Purged::default() });
        assert_eq!(rest(&purged(u64::from(BATCH))), BREATH);
        assert_eq!(rest(&purged(1)), ROUND);
        assert_eq!(rest(&Err(StoreError::Random)), ROUND);
    }
}
