//! Deliveries as operators see them, and what they may do to them: the log of every attempt, the list by filter,
//! redeliveries, rows set aside while their receiver takes no more, and the removal of what is old.
//!
//! The order of first deliveries is `outbox`'s alone. A redelivery never enters it: it waits in a table of its own, in
//! order of its own within each lane, and leaves the row's state as it was unless it succeeds. Nothing that a receiver
//! answered is stored but the status.

use serde_json::{Value, json};

use super::audit::By;
use super::outbox::{Delivery, Settled, Settlement, read_delivery};
use super::sql::{Row, Statement, column, sql};
use super::{Db, StoreError, Tx};
use crate::model::Timestamp;

/// Attempts of one delivery that are kept; older ones make room.
pub const ATTEMPTS_KEPT: u32 = 50;

/// Redeliveries waiting at once, of all customers together.
pub const REDELIVERIES_MAX: u32 = 10_000;

/// Redeliveries that one replay queues at most.
pub const REPLAY_MAX: u32 = 1000;

/// The states of a delivery.
pub const STATES: &[&str] = &["waiting", "delivered", "failed", "dropped", "gone"];

/// One attempt, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// From 1: the `X-Webhook-Attempt` that it carried.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// Milliseconds from then to the end of the receiver's headers, or to the failure.
    pub took_ms: u32,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// A few words of ours.
    pub result: String,
}

/// Which deliveries are meant; what is `None` is not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// `key_…`
    pub key: Option<String>,
    /// The call's id as Kaphila prints it.
    pub call: Option<String>,
    /// The event's name.
    pub event: Option<String>,
    /// One of [`STATES`].
    pub state: Option<String>,
    /// The URL's host, lower case, without a port.
    pub host: Option<String>,
    /// Happened at that moment or later.
    pub from: Option<Timestamp>,
    /// Happened before that moment.
    pub to: Option<Timestamp>,
}

/// A redelivery that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// The next attempt.
    pub next_at: Timestamp,
    /// Attempts made since it was asked for.
    pub made: u32,
}

/// A delivery in full, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Row id: newer deliveries have higher ones.
    pub id: i64,
    /// `evt_…`, the `webhook-id` of every attempt.
    pub event_id: String,
    /// The call's id as Kaphila prints it.
    pub call: String,
    /// `key_…`
    pub key: String,
    /// The surface's word.
    pub dialect: String,
    /// The event's name.
    pub event: String,
    /// One of [`STATES`].
    pub state: String,
    /// Where it goes.
    pub url: String,
    /// Attempts made.
    pub attempts: u32,
    /// The next attempt, while it waits for one. In the past: as soon as it can go.
    pub next_at: Option<Timestamp>,
    /// The last HTTP status.
    pub last_status: Option<u16>,
    /// What the last attempt came to, or why there was none.
    pub last_result: String,
    /// When the event happened.
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub settled_at: Option<Timestamp>,
    /// Asked for again and not yet through.
    pub redelivery: Option<Pending>,
}

/// What became of the wish to send a delivery again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redelivered {
    /// It waits for its turn.
    Queued,
    /// It still waits for its first success; its next attempt is due now, and keeps its place in its lane.
    Hurried,
    /// There is no such delivery.
    Unknown,
    /// [`REDELIVERIES_MAX`] are waiting already.
    Full,
}

/// What a replay took in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Settled deliveries that the filter meets.
    pub matched: u32,
    /// Those that were queued by this replay, the oldest first.
    pub queued: u32,
}

/// What was removed by age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Ended calls that keep neither deliveries nor events any more.
    pub calls: u64,
    /// Deliveries, with their attempts.
    pub deliveries: u64,
    /// Events.
    pub events: u64,
}

const ROW: &str = "SELECT d.id, d.event_id, c.kaphila_id, k.key_id, d.dialect, d.event, d.state, d.url, \
     d.attempts, d.next_at, d.last_status, d.last_result, d.created_at, d.settled_at, r.made AS again_made, \
     r.next_at AS again_at, r.requested_at AS again_requested FROM deliveries d \
     JOIN calls c ON c.id = d.call JOIN api_keys k ON k.id = d.api_key \
     LEFT JOIN redeliveries r ON r.delivery = d.id WHERE d.id > 0";

/// The deliveries of an endpoint, each with its call's id; the statement has a WHERE already.
pub(super) fn of_endpoint(endpoint: &str) -> Statement {
    let mut rows = sql("SELECT d.call, ");
    rows.push(ROW.trim_start_matches("SELECT ")).push(" AND d.endpoint = ").push_bind(endpoint);
    rows
}

impl DeliveryFilter {
    /// Adds this filter to a statement over `deliveries d` that has a WHERE already.
    fn narrow(&self, statement: &mut Statement) {
        if let Some(key) = &self.key {
            statement.push(" AND d.api_key = (SELECT id FROM api_keys WHERE key_id = ");
            statement.push_bind(key).push(")");
        }
        if let Some(call) = &self.call {
            statement.push(" AND d.call = (SELECT id FROM calls WHERE kaphila_id = ");
            statement.push_bind(call).push(")");
        }
        if let Some(event) = &self.event {
            statement.push(" AND d.event = ").push_bind(event);
        }
        if let Some(state) = &self.state {
            statement.push(" AND d.state = ").push_bind(state);
        }
        if let Some(host) = &self.host {
            statement.push(" AND d.host = ").push_bind(host);
        }
        if let Some(from) = self.from {
            statement.push(" AND d.created_at >= ").push_bind(from.0);
        }
        if let Some(to) = self.to {
            statement.push(" AND d.created_at < ").push_bind(to.0);
        }
    }
}

impl Tx {
    /// Writes an attempt into the log of its delivery. The same number twice is written once.
    pub async fn log_attempt(&mut self, delivery: i64, attempt: &AttemptRow) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO attempts (delivery, number, at, took_ms, status, result) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (delivery, number) DO NOTHING")
            .bind(delivery)
            .bind(attempt.number)
            .bind(attempt.at.0)
            .bind(attempt.took_ms)
            .bind(attempt.status.map(i64::from))
            .bind(&attempt.result),
        )
        .await?;
        if let Some(oldest) = attempt.number.checked_sub(ATTEMPTS_KEPT).filter(|number| *number > 0) {
            let old = sql("DELETE FROM attempts WHERE delivery = $1 AND number <= $2");
            self.run(old.bind(delivery).bind(oldest)).await?;
        }
        Ok(())
    }

    /// Has a delivery sent again, under its own `webhook-id`, also after its call's end.
    pub async fn redeliver(&mut self, id: i64, now: Timestamp) -> Result<Redelivered, StoreError> {
        let found =
            self.optional(sql("SELECT call, url, host, state FROM deliveries WHERE id = $1").bind(id));
        let Some(row) = found.await? else { return Ok(Redelivered::Unknown) };
        if column::<String>(&row, "state")? == "waiting" {
            self.run(
                sql(
                    "UPDATE deliveries SET next_at = $2 WHERE id = $1 AND state = 'waiting' AND next_at > $2",
                )
                .bind(id)
                .bind(now.0),
            )
            .await?;
            return Ok(Redelivered::Hurried);
        }
        let (call, url): (String, String) = (column(&row, "call")?, column(&row, "url")?);
        if self.redeliveries_left().await? == 0 {
            return Ok(Redelivered::Full);
        }
        self.run(
            sql("INSERT INTO redeliveries (delivery, call, url, host, next_at, requested_at) \
                 VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (delivery) DO UPDATE SET next_at = $5")
            .bind(id)
            .bind(&call)
            .bind(&url)
            .bind(column::<String>(&row, "host")?)
            .bind(now.0),
        )
        .await?;
        self.refresh_redeliveries(&call, &url).await?;
        Ok(Redelivered::Queued)
    }

    /// Has every settled delivery that the filter meets sent again, the oldest first, at most `limit` of them.
    pub async fn replay(
        &mut self,
        filter: &DeliveryFilter,
        limit: u32,
        now: Timestamp,
    ) -> Result<Replayed, StoreError> {
        let mut count = sql("SELECT COUNT(*) FROM deliveries d WHERE d.state <> 'waiting'");
        filter.narrow(&mut count);
        let matched: i64 = self.one(count).await?.first()?;
        let limit = limit.min(self.redeliveries_left().await?);
        let mut queue = sql("INSERT INTO redeliveries (delivery, call, url, host, next_at, requested_at) \
             SELECT d.id, d.call, d.url, d.host, CAST($1 AS BIGINT), CAST($1 AS BIGINT) FROM deliveries d \
             WHERE d.state <> 'waiting' \
             AND NOT EXISTS (SELECT 1 FROM redeliveries r WHERE r.delivery = d.id)")
        .bind(now.0);
        filter.narrow(&mut queue);
        queue.push(" ORDER BY d.id LIMIT ").push_bind(limit);
        queue.push(" ON CONFLICT (delivery) DO NOTHING");
        let queued = self.run(queue).await?;
        // An older one may have come in before the head of its lane.
        for statement in [
            "UPDATE redeliveries SET head = 0 WHERE head = 1 \
             AND delivery NOT IN (SELECT MIN(delivery) FROM redeliveries GROUP BY call, url)",
            "UPDATE redeliveries SET head = 1 WHERE head = 0 \
             AND delivery IN (SELECT MIN(delivery) FROM redeliveries GROUP BY call, url)",
        ] {
            self.run(sql(statement)).await?;
        }
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Replayed { matched: small(matched.unsigned_abs()), queued: small(queued) })
    }

    /// Writes down what became of a redelivery's attempt, the `made`th since it was asked for, and lets the next of
    /// its lane go. Only a success changes the row's state.
    pub async fn settle_redelivery(
        &mut self,
        settled: &Settled,
        made: u32,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE deliveries SET attempts = $2, last_status = $3, last_result = $4 WHERE id = $1")
                .bind(settled.id)
                .bind(settled.attempts)
                .bind(settled.status.map(i64::from))
                .bind(&settled.result),
        )
        .await?;
        match settled.settlement {
            Settlement::Retry(next) => {
                let later = sql("UPDATE redeliveries SET made = $2, next_at = $3 WHERE delivery = $1");
                self.run(later.bind(settled.id).bind(made).bind(next.0)).await?;
                return Ok(());
            }
            Settlement::Delivered => {
                let done = sql("UPDATE deliveries SET state = 'delivered', settled_at = $2 WHERE id = $1");
                self.run(done.bind(settled.id).bind(at.0)).await?;
            }
            Settlement::Failed | Settlement::Dropped | Settlement::Gone => {}
        }
        self.run(sql("DELETE FROM redeliveries WHERE delivery = $1").bind(settled.id)).await?;
        self.refresh_redeliveries(&settled.call.hex(), &settled.url).await
    }

    /// Takes a due redelivery: until then nobody else is given it. `false` if somebody else has it.
    pub async fn take_redelivery(
        &mut self,
        id: i64,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let later = sql("UPDATE redeliveries SET next_at = $3 WHERE delivery = $1 AND next_at <= $2");
        Ok(self.run(later.bind(id).bind(now.0).bind(until.0)).await? == 1)
    }

    /// Sets due rows aside in the queue of that name.
    pub async fn set_aside(&mut self, ids: &[i64], queue: &str) -> Result<(), StoreError> {
        let mut statement =
            sql("UPDATE deliveries SET aside = $1, claimed_by = 0 WHERE state = 'waiting' AND id IN ")
                .bind(queue);
        statement.push_list(ids);
        self.run(statement).await?;
        Ok(())
    }

    /// Lets the rows of a queue back that are due longest, at most `limit`; how many there were.
    pub async fn let_back(&mut self, queue: &str, limit: usize) -> Result<usize, StoreError> {
        let rows = self
            .run(
                sql("UPDATE deliveries SET aside = '' WHERE id IN (SELECT id FROM deliveries \
                     WHERE state = 'waiting' AND aside <> '' AND aside = $1 ORDER BY next_at, id LIMIT $2)")
                .bind(queue)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX)),
            )
            .await?;
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }

    /// Lets every row back, whoever set it aside.
    pub async fn let_all_back(&mut self) -> Result<(), StoreError> {
        self.run(sql("UPDATE deliveries SET aside = '' WHERE state = 'waiting' AND aside <> ''")).await?;
        Ok(())
    }

    /// Removes the deliveries and events of at most `calls` calls that ended before that moment, the oldest first.
    /// Calls that still have something to send keep everything.
    pub async fn purge(&mut self, ended_before: Timestamp, calls: u32) -> Result<Purged, StoreError> {
        let found = self.all(
            sql("SELECT c.id FROM calls c WHERE c.state = 'ended' AND c.purged = 0 AND c.ended_at < $1 \
                 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.call = c.id AND d.state = 'waiting') \
                 AND NOT EXISTS (SELECT 1 FROM redeliveries r WHERE r.call = c.id) \
                 ORDER BY c.ended_at, c.id LIMIT $2")
            .bind(ended_before.0)
            .bind(calls),
        );
        let ids: Vec<String> = found.await?.iter().map(|row| column(row, "id")).collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Ok(Purged::default());
        }
        let among = |text: &'static str| {
            let mut statement = sql(text);
            statement.push_list(&ids);
            statement
        };
        let deliveries =
            self.run(among("DELETE FROM deliveries WHERE state <> 'waiting' AND call IN ")).await?;
        let events = self.run(among("DELETE FROM events WHERE call IN ")).await?;
        let calls = self.run(among("UPDATE calls SET purged = 1 WHERE id IN ")).await?;
        Ok(Purged { calls, deliveries, events })
    }

    async fn redeliveries_left(&mut self) -> Result<u32, StoreError> {
        let waiting: i64 = self.one(sql("SELECT COUNT(*) FROM redeliveries")).await?.first()?;
        Ok(REDELIVERIES_MAX.saturating_sub(u32::try_from(waiting).unwrap_or(u32::MAX)))
    }

    async fn refresh_redeliveries(&mut self, call: &str, url: &str) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE redeliveries SET head = CASE WHEN delivery = (SELECT MIN(o.delivery) \
                 FROM redeliveries o WHERE o.call = $1 AND o.url = $2) THEN 1 ELSE 0 END \
                 WHERE call = $1 AND url = $2")
            .bind(call)
            .bind(url),
        )
        .await?;
        Ok(())
    }
}

impl Db {
    /// Has a delivery sent again, and writes down who asked for it.
    pub async fn redeliver(&self, id: i64, by: &By) -> Result<Redelivered, StoreError> {
        let mut tx = self.begin().await?;
        let done = tx.redeliver(id, by.at).await?;
        if matches!(done, Redelivered::Queued | Redelivered::Hurried) {
            tx.audit(by, "delivery.redeliver", &id.to_string(), &json!({})).await?;
        }
        tx.commit().await?;
        Ok(done)
    }

    /// Has settled deliveries sent again, at most [`REPLAY_MAX`], and writes down who asked for it. A filter that names
    /// no state means those that failed.
    pub async fn replay(&self, filter: &DeliveryFilter, limit: u32, by: &By) -> Result<Replayed, StoreError> {
        let state = filter.state.clone().unwrap_or_else(|| "failed".to_owned());
        let filter = DeliveryFilter { state: Some(state), ..filter.clone() };
        let mut tx = self.begin().await?;
        let replayed = tx.replay(&filter, limit.min(REPLAY_MAX), by.at).await?;
        let detail = json!({ "filter": describe(&filter), "queued": replayed.queued });
        tx.audit(by, "delivery.replay", "", &detail).await?;
        tx.commit().await?;
        Ok(replayed)
    }

    /// Deliveries that the filter meets, the newest first, at most `limit`; `before`: only those with a lower id.
    pub async fn list_deliveries(
        &self,
        filter: &DeliveryFilter,
        limit: u32,
        before: Option<i64>,
    ) -> Result<Vec<DeliveryRow>, StoreError> {
        let mut statement = sql(ROW);
        filter.narrow(&mut statement);
        if let Some(before) = before {
            statement.push(" AND d.id < ").push_bind(before);
        }
        statement.push(" ORDER BY d.id DESC LIMIT ").push_bind(limit);
        self.all(statement).await?.iter().map(read_row).collect()
    }

    /// A delivery and its attempts, the first one first.
    pub async fn delivery(&self, id: i64) -> Result<Option<(DeliveryRow, Vec<AttemptRow>)>, StoreError> {
        let mut statement = sql(ROW);
        statement.push(" AND d.id = ").push_bind(id);
        let Some(row) = self.optional(statement).await? else { return Ok(None) };
        let attempts = self
            .all(
                sql("SELECT number, at, took_ms, status, result FROM attempts WHERE delivery = $1 ORDER BY number")
                    .bind(id),
            )
            .await?;
        Ok(Some((read_row(&row)?, attempts.iter().map(read_attempt).collect::<Result<_, _>>()?)))
    }

    /// The row id of `evt_…`.
    pub async fn delivery_of_event(&self, event_id: &str) -> Result<Option<i64>, StoreError> {
        let row = self.optional(sql("SELECT id FROM deliveries WHERE event_id = $1").bind(event_id)).await?;
        row.map(|row| column(&row, "id")).transpose()
    }

    /// At most `limit` redeliveries that head their lanes and are due, those due longest first, none to `full_hosts`;
    /// each with the attempts made since it was asked for, which is what its `created_at` is here. Whoever sends one
    /// takes it first ([`Tx::take_redelivery`]).
    pub async fn due_redeliveries(
        &self,
        now: Timestamp,
        limit: usize,
        full_hosts: &[String],
    ) -> Result<Vec<(Delivery, u32)>, StoreError> {
        let mut statement =
            sql("SELECT d.id, d.event_id, d.call, d.api_key, d.dialect, d.event, d.terminal, d.url, \
             d.host, d.attempts, r.requested_at AS created_at, c.state, r.made FROM redeliveries r \
             JOIN deliveries d ON d.id = r.delivery JOIN calls c ON c.id = d.call \
             WHERE r.head = 1 AND r.next_at <= $1")
            .bind(now.0);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        if !full_hosts.is_empty() {
            statement.push(" AND r.host NOT IN ").push_list(full_hosts);
        }
        statement.push(" ORDER BY r.next_at, r.delivery LIMIT ").push_bind(limit);
        let rows = self.all(statement).await?;
        rows.iter().map(|row| Ok((read_delivery(row)?, count(row, "made")?))).collect()
    }

    /// Rows of a queue of [`Tx::set_aside`], those due longest first.
    pub async fn aside(&self, queue: &str, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let rows = self
            .all(
                sql("SELECT d.id, d.event_id, d.call, d.api_key, d.dialect, d.event, d.terminal, d.url, d.host, \
                     d.attempts, d.created_at, c.state FROM deliveries d JOIN calls c ON c.id = d.call \
                     WHERE d.state = 'waiting' AND d.aside <> '' AND d.aside = $1 ORDER BY d.next_at, d.id LIMIT $2")
                .bind(queue)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX)),
            )
            .await?;
        rows.iter().map(read_delivery).collect()
    }
}

/// A filter for the audit log.
fn describe(filter: &DeliveryFilter) -> Value {
    json!({
        "key": filter.key,
        "call": filter.call,
        "event": filter.event,
        "state": filter.state,
        "host": filter.host,
        "from": filter.from.map(Timestamp::iso_ms),
        "to": filter.to.map(Timestamp::iso_ms),
    })
}

pub(super) fn read_row(row: &Row) -> Result<DeliveryRow, StoreError> {
    let state: String = column(row, "state")?;
    let next_at = Timestamp(column(row, "next_at")?);
    let redelivery = match column::<Option<i64>>(row, "again_at")? {
        None => None,
        Some(next_at) => Some(Pending {
            requested_at: Timestamp(column(row, "again_requested")?),
            next_at: Timestamp(next_at),
            made: count(row, "again_made")?,
        }),
    };
    Ok(DeliveryRow {
        id: column(row, "id")?,
        event_id: column(row, "event_id")?,
        call: column(row, "kaphila_id")?,
        key: column(row, "key_id")?,
        dialect: column(row, "dialect")?,
        event: column(row, "event")?,
        next_at: if state == "waiting" { Some(next_at) } else { redelivery.map(|pending| pending.next_at) },
        state,
        url: column(row, "url")?,
        attempts: count(row, "attempts")?,
        last_status: status(row, "last_status")?,
        last_result: column(row, "last_result")?,
        created_at: Timestamp(column(row, "created_at")?),
        settled_at: column::<Option<i64>>(row, "settled_at")?.map(Timestamp),
        redelivery,
    })
}

fn read_attempt(row: &Row) -> Result<AttemptRow, StoreError> {
    Ok(AttemptRow {
        number: count(row, "number")?,
        at: Timestamp(column(row, "at")?),
        took_ms: count(row, "took_ms")?,
        status: status(row, "status")?,
        result: column(row, "result")?,
    })
}

fn status(row: &Row, name: &str) -> Result<Option<u16>, StoreError> {
    Ok(column::<Option<i64>>(row, name)?.and_then(|status| u16::try_from(status).ok()))
}

fn count(row: &Row, name: &str) -> Result<u32, StoreError> {
    u32::try_from(column::<i64>(row, name)?).map_err(|_| StoreError::Unreadable("deliveries"))
}
