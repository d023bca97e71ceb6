//! The outbox: webhooks that were promised in the same transaction as the fact they tell of, and the log of what
//! became of them. A *lane* is one call and one URL; its rows go in order, one at a time (CONTRACT 0.6). Which
//! rows of a lane may go is decided by `heads` and kept in the `head` column, so that finding what is due reads
//! one small index however much waits behind.

use super::accounts::signing;
use super::sql::{Row, Statement, column, flag, sql};
use super::{Db, StoreError, Tx, ids};
use crate::model::{CallId, Secret, Timestamp};

/// A webhook to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its call.
    pub call: CallId,
    /// Whose secret signs it.
    pub key: i64,
    /// The surface in whose form it is.
    pub dialect: &'static str,
    /// The event's name on that surface.
    pub event: &'static str,
    /// Of the terminal class: retried for hours and never dropped at the call's end.
    pub terminal: bool,
    /// Where it goes.
    pub url: String,
    /// UTF-8 JSON, the same bytes at every attempt.
    pub body: Vec<u8>,
    /// When the event happened.
    pub at: Timestamp,
}

/// A row that may be sent now. The body is read when it is ([`Db::delivery_body`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Row id: the order within a lane.
    pub id: i64,
    /// `evt_…`, the `webhook-id` of every attempt.
    pub event_id: String,
    /// Its call.
    pub call: CallId,
    /// Whose secret signs it.
    pub key: i64,
    /// The surface's word.
    pub dialect: String,
    /// The event's name.
    pub event: String,
    /// Of the terminal class.
    pub terminal: bool,
    /// Where it goes.
    pub url: String,
    /// The URL's host, for the caps on one host.
    pub host: String,
    /// Attempts made before.
    pub attempts: u32,
    /// When the event happened.
    pub created_at: Timestamp,
    /// The call is over.
    pub call_ended: bool,
}

/// What became of a row after an attempt, or instead of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The receiver has it.
    Delivered,
    /// Another attempt at that moment.
    Retry(Timestamp),
    /// Given up after its last attempt.
    Failed,
    /// A live event that is not worth sending any more.
    Dropped,
    /// The receiver wants nothing more of this call: the rest of the lane is dropped with it.
    Gone,
}

/// The end of one attempt, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The row.
    pub id: i64,
    /// Its call.
    pub call: CallId,
    /// Its URL.
    pub url: String,
    /// Attempts made in all.
    pub attempts: u32,
    /// What became of it.
    pub settlement: Settlement,
    /// The last HTTP status.
    pub status: Option<u16>,
    /// A few words for the log.
    pub result: String,
}

/// One line of a call's delivery log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryLog {
    /// Row id.
    pub id: i64,
    /// `evt_…`
    pub event_id: String,
    /// The event's name.
    pub event: String,
    /// `waiting`, `delivered`, `failed`, `dropped` or `gone`.
    pub state: String,
    /// Attempts made.
    pub attempts: u32,
    /// The next attempt, while it waits.
    pub next_at: Timestamp,
    /// The last HTTP status.
    pub last_status: Option<u16>,
    /// What the last attempt came to.
    pub last_result: String,
    /// The body.
    pub body: String,
}

/// What an attempt sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The body.
    pub body: String,
    /// The endpoint that it is for, if it is for one; its own secrets sign it then ([`Db::endpoint_secrets`]).
    pub endpoint: Option<String>,
    /// The secrets of the call's key, newest first.
    pub secrets: Vec<Secret>,
}

/// What waits, counted by lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Rows that are next in their lanes.
    pub lanes: i64,
    /// Those of them that are due and not set aside.
    pub due: i64,
    /// Those of them that are set aside for a receiver.
    pub aside: i64,
    /// Milliseconds since the event of the oldest of them; 0 where there is none.
    pub oldest_ms: i64,
}

/// Rows of a lane: all, and by state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    bodies: i64,
    gone: i64,
    waiting: i64,
}

/// A waiting row as [`heads`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    id: i64,
    terminal: bool,
    attempts: i64,
}

/// Which rows of a lane may go: the oldest; and while that one is a terminal event waiting for a retry, the
/// oldest live event too, because a terminal retry does not hold back live events. Once a head, a row stays one
/// until it is settled.
fn heads(oldest: Option<Waiting>, oldest_live: Option<Waiting>) -> [Option<i64>; 2] {
    let bypass = oldest.is_some_and(|row| row.terminal && row.attempts > 0);
    [oldest.map(|row| row.id), oldest_live.filter(|_| bypass).map(|row| row.id)]
}

impl Tx {
    /// Puts a webhook behind its lane's others and returns its row id. In a lane that a receiver has ended
    /// with 410 it is written down as dropped at once.
    pub async fn enqueue(&mut self, new: &NewDelivery) -> Result<i64, StoreError> {
        let body = std::str::from_utf8(&new.body).map_err(|_| StoreError::Body)?;
        self.lock_calls([new.call]).await?;
        let lane = match self.lane.take() {
            Some((call, url, lane)) if call == new.call && url == new.url => lane,
            _ => self.lane(new.call, &new.url).await?,
        };
        let (gone, alone) = (lane.gone > 0, lane.waiting == 0);
        let insert = "INSERT INTO deliveries (event_id, call, api_key, dialect, event, terminal, url, host, body, \
             state, next_at, created_at, settled_at, head, id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13, ";
        let mut insert = sql(insert)
            .bind(ids::event_id()?)
            .bind(new.call.hex())
            .bind(new.key)
            .bind(new.dialect)
            .bind(new.event)
            .bind(i64::from(new.terminal))
            .bind(&new.url)
            .bind(host_of(&new.url))
            .bind(body)
            .bind(if gone { "dropped" } else { "waiting" })
            .bind(new.at.0)
            .bind(gone.then_some(new.at.0))
            // Where nothing waits before it, it is the head at once.
            .bind(i64::from(alone && !gone));
        let inserted = if self.is_shared() {
            // Where a counter is asked outside of the transaction, its value comes first.
            let id = self.count("deliveries").await?;
            insert.push_bind(id).push(") RETURNING id");
            self.optional(insert).await?
        } else {
            insert.push("(SELECT value FROM counters WHERE name = 'deliveries')) RETURNING id");
            let count = sql("UPDATE counters SET value = value + 1 WHERE name = 'deliveries'");
            self.together(vec![count, insert]).await?
        };
        let id = inserted.ok_or(StoreError::Unreadable("deliveries.id"))?.first()?;
        // Behind a terminal event that waits for its retry a live one may go all the same.
        if !gone && !alone && !new.terminal {
            self.refresh_heads(new.call, &new.url).await?;
        }
        Ok(id)
    }

    /// Puts down for which endpoint a delivery is: its secret signs it.
    pub async fn deliver_for(&mut self, delivery: i64, endpoint: &str) -> Result<(), StoreError> {
        let update = sql("UPDATE deliveries SET endpoint = $2 WHERE id = $1");
        self.run(update.bind(delivery).bind(endpoint)).await?;
        Ok(())
    }

    /// An endpoint is no more: what waits for it is dropped, and what waits behind goes on.
    pub(super) async fn drop_waiting_of(&mut self, endpoint: &str, at: Timestamp) -> Result<(), StoreError> {
        let waiting =
            sql("SELECT DISTINCT call, url FROM deliveries WHERE endpoint = $1 AND state = 'waiting'");
        let mut lanes = Vec::new();
        for row in self.all(waiting.bind(endpoint)).await? {
            let call = CallId::from_hex(&column::<String>(&row, "call")?);
            let call = call.ok_or(StoreError::Unreadable("deliveries.call"))?;
            lanes.push((call, column::<String>(&row, "url")?));
        }
        self.lock_calls(lanes.iter().map(|(call, _)| *call)).await?;
        let dropped =
            sql("UPDATE deliveries SET state = 'dropped', settled_at = $2, aside = '', claimed_by = 0, \
             last_result = 'the endpoint was deleted' WHERE endpoint = $1 AND state = 'waiting'");
        self.run(dropped.bind(endpoint).bind(at.0)).await?;
        for (call, url) in lanes {
            self.refresh_heads(call, &url).await?;
        }
        Ok(())
    }

    /// The call is over: a live event that has already failed becomes due at once, so that the worker drops it
    /// and the rest of the lane moves on. Where the receiver takes no more (the lane's head is set aside for it), the
    /// live events behind are dropped now: nobody wants them when it is back, however long that takes.
    pub async fn expire_live(&mut self, call: CallId, at: Timestamp) -> Result<(), StoreError> {
        self.lane = None;
        let behind = sql(
            "UPDATE deliveries SET state = 'dropped', last_result = 'the call ended first', settled_at = $2, \
             aside = '', claimed_by = 0 WHERE call = $1 AND state = 'waiting' AND terminal = 0 AND url IN \
             (SELECT d.url FROM deliveries d WHERE d.call = $1 AND d.state = 'waiting' AND d.aside <> '' \
             AND d.aside NOT LIKE 'host:%')",
        )
        .bind(call.hex())
        .bind(at.0);
        let failed =
            sql("UPDATE deliveries SET next_at = $2 WHERE call = $1 AND state = 'waiting' AND terminal = 0 \
             AND attempts > 0 AND next_at > $2")
            .bind(call.hex())
            .bind(at.0);
        self.together(vec![behind, failed]).await?;
        Ok(())
    }

    /// Writes down what became of a row and lets the next of its lane go.
    pub async fn settle(&mut self, settled: &Settled, at: Timestamp) -> Result<(), StoreError> {
        let (state, next_at) = match settled.settlement {
            Settlement::Delivered => ("delivered", None),
            Settlement::Retry(next) => ("waiting", Some(next)),
            Settlement::Failed => ("failed", None),
            Settlement::Dropped => ("dropped", None),
            Settlement::Gone => ("gone", None),
        };
        self.lock_calls([settled.call]).await?;
        self.lane = None;
        let update = sql("UPDATE deliveries SET state = $2, attempts = $3, last_status = $4, last_result = $5, \
             next_at = COALESCE($6, next_at), settled_at = $7, claimed_by = 0 WHERE id = $1 AND state = 'waiting'")
        .bind(settled.id)
        .bind(state)
        .bind(i64::from(settled.attempts))
        .bind(settled.status.map(i64::from))
        .bind(&settled.result)
        .bind(next_at.map(|next| next.0))
        .bind(next_at.is_none().then_some(at.0));
        if settled.settlement == Settlement::Gone {
            self.run(update).await?;
            self.run(sql(
                "UPDATE deliveries SET state = 'dropped', settled_at = $3, last_result = 'receiver is gone' \
                 WHERE call = $1 AND url = $2 AND state = 'waiting'",
            )
            .bind(settled.call.hex())
            .bind(&settled.url)
            .bind(at.0))
            .await?;
            return Ok(());
        }
        let row = self.together(vec![update, oldest(settled.call, &settled.url, false)]).await?;
        self.put_heads(settled.call, &settled.url, row).await
    }

    /// Whether a call is over, as this transaction sees it.
    pub async fn call_ended(&mut self, call: CallId) -> Result<bool, StoreError> {
        let row = self
            .optional(sql("SELECT id FROM calls WHERE id = $1 AND state = 'ended'").bind(call.hex()))
            .await?;
        Ok(row.is_some())
    }

    /// How many bodies a call has sent (or promised) to a URL: the next one's sequence number less one.
    pub async fn bodies(&mut self, call: CallId, url: &str) -> Result<u32, StoreError> {
        let lane = self.lane(call, url).await?;
        let bodies = u32::try_from(lane.bodies).map_err(|_| StoreError::Unreadable("deliveries"))?;
        // Whoever asks is about to put the next one there.
        self.lane = Some((call, url.to_owned(), lane));
        Ok(bodies)
    }

    /// What a lane holds.
    async fn lane(&mut self, call: CallId, url: &str) -> Result<Lane, StoreError> {
        let asked = sql("SELECT COUNT(*) AS bodies, COUNT(CASE WHEN state = 'gone' THEN 1 END) AS gone, \
             COUNT(CASE WHEN state = 'waiting' THEN 1 END) AS waiting FROM deliveries WHERE call = $1 AND url = $2");
        let row = self.one(asked.bind(call.hex()).bind(url)).await?;
        let number = |name| column::<i64>(&row, name);
        Ok(Lane { bodies: number("bodies")?, gone: number("gone")?, waiting: number("waiting")? })
    }

    async fn refresh_heads(&mut self, call: CallId, url: &str) -> Result<(), StoreError> {
        let row = self.optional(oldest(call, url, false)).await?;
        self.put_heads(call, url, row).await
    }

    /// The same when the row of the oldest is at hand.
    async fn put_heads(&mut self, call: CallId, url: &str, row: Option<Row>) -> Result<(), StoreError> {
        let first = row.as_ref().map(read_waiting).transpose()?;
        let needs_live = first.is_some_and(|row| row.terminal && row.attempts > 0);
        let live = if needs_live { self.optional(oldest(call, url, true)).await? } else { None };
        let live = live.as_ref().map(read_waiting).transpose()?;
        for id in heads(first, live).into_iter().flatten() {
            self.run(sql("UPDATE deliveries SET head = 1 WHERE id = $1 AND head = 0").bind(id)).await?;
        }
        Ok(())
    }
}

/// Asks for the oldest row of a lane that waits, or the oldest live one.
fn oldest(call: CallId, url: &str, live_only: bool) -> Statement {
    sql("SELECT id, terminal, attempts FROM deliveries \
         WHERE call = $1 AND url = $2 AND state = 'waiting' AND terminal <= $3 ORDER BY id LIMIT 1")
    .bind(call.hex())
    .bind(url)
    .bind(i64::from(!live_only))
}

fn read_waiting(row: &Row) -> Result<Waiting, StoreError> {
    let (terminal, attempts) = (flag(row, "terminal")?, column(row, "attempts")?);
    Ok(Waiting { id: column(row, "id")?, terminal, attempts })
}

impl Db {
    /// At most `limit` rows that head their lanes, are due and not set aside, those due longest first. A row stays in
    /// this list until it is settled, so the worker must remember what it is sending. Where several processes send,
    /// a row is in the list of one of them; if that one dies the others are given it.
    pub async fn claim(&self, now: Timestamp, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.claim_beside(now, limit, &[]).await
    }

    /// The same without these rows, which their sender has already.
    pub async fn claim_beside(
        &self,
        now: Timestamp,
        limit: usize,
        under_way: &[i64],
    ) -> Result<Vec<Delivery>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        if self.is_shared() {
            self.claim_from_others(now, limit).await?;
        }
        let mut query = sql(
            "SELECT d.id, d.event_id, d.call, d.api_key, d.dialect, d.event, d.terminal, d.url, d.host, \
             d.attempts, d.created_at, c.state FROM deliveries d JOIN calls c ON c.id = d.call \
             WHERE d.state = 'waiting' AND d.head = 1 AND d.aside = '' AND d.next_at <= $1",
        )
        .bind(now.0);
        // One text whatever their number, so that it is prepared once. Both lists are read once, and looked into per row.
        if self.is_shared() {
            query.push(" AND d.claimed_by = ").push_bind(self.node());
            query.push(" AND d.id NOT IN (SELECT CAST(value AS BIGINT) FROM json_array_elements_text(CAST(");
            query.push_bind(json_list(under_way)).push(" AS json)))");
        } else {
            query.push(" AND d.id NOT IN (SELECT value FROM json_each(");
            query.push_bind(json_list(under_way)).push("))");
        }
        query.push(" ORDER BY d.next_at, d.id LIMIT ").push_bind(limit);
        let rows = self.all(query).await?;
        rows.iter().map(read_delivery).collect()
    }

    /// Puts this node's name on rows that are due and nobody's, so that it has at most `limit` of them. Rows that
    /// another process is putting its name on are passed over.
    async fn claim_from_others(&self, now: Timestamp, limit: i64) -> Result<(), StoreError> {
        let mine = sql("SELECT COUNT(*) FROM deliveries WHERE claimed_by = $1 AND claimed_by <> 0 \
             AND state = 'waiting' AND aside = '' AND next_at <= $2")
        .bind(self.node())
        .bind(now.0);
        let room = limit.saturating_sub(self.one(mine).await?.first()?);
        if room <= 0 {
            return Ok(());
        }
        // An array, because what stands behind IN may be looked up again for each row, and takes others each time.
        let mut free =
            sql("UPDATE deliveries SET claimed_by = $1 WHERE id = ANY (ARRAY(SELECT id FROM deliveries \
             WHERE state = 'waiting' AND head = 1 AND aside = '' AND claimed_by = 0 AND next_at <= $2")
            .bind(self.node())
            .bind(now.0);
        free.push(" ORDER BY next_at, id LIMIT ").push_bind(room).push(" FOR UPDATE SKIP LOCKED))");
        let mut tx = self.begin().await?;
        tx.run(free).await?;
        tx.commit().await
    }

    /// The earliest moment after `now` at which a row becomes due.
    pub async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let row = self
            .one(
                sql("SELECT MIN(next_at) AS next FROM deliveries \
             WHERE state = 'waiting' AND head = 1 AND aside = '' AND next_at > $1")
                .bind(now.0),
            )
            .await?;
        Ok(column::<Option<i64>>(&row, "next")?.map(Timestamp))
    }

    /// What waits at `now`. Reads the waiting heads and nothing else.
    pub async fn webhook_queue(&self, now: Timestamp) -> Result<Queue, StoreError> {
        let row = self
            .one(
                sql("SELECT COUNT(*) AS lanes, COUNT(CASE WHEN aside = '' AND next_at <= $1 THEN 1 END) AS due, \
             COUNT(CASE WHEN aside <> '' THEN 1 END) AS aside, MIN(created_at) AS oldest FROM deliveries \
             WHERE state = 'waiting' AND head = 1")
                .bind(now.0),
            )
            .await?;
        let oldest = column::<Option<i64>>(&row, "oldest")?;
        Ok(Queue {
            lanes: column(&row, "lanes")?,
            due: column(&row, "due")?,
            aside: column(&row, "aside")?,
            oldest_ms: oldest.map_or(0, |oldest| now.0.saturating_sub(oldest).max(0)),
        })
    }

    /// The body of a row.
    pub async fn delivery_body(&self, id: i64) -> Result<Option<String>, StoreError> {
        let row = self.optional(sql("SELECT body FROM deliveries WHERE id = $1").bind(id)).await?;
        row.map(|row| column(&row, "body")).transpose()
    }

    /// What an attempt at `at` needs of a row.
    pub async fn delivery_content(&self, id: i64, at: Timestamp) -> Result<Option<Content>, StoreError> {
        let one = sql("SELECT d.body, d.endpoint, k.webhook_secret, k.old_webhook_secret, k.old_until \
             FROM deliveries d JOIN api_keys k ON k.id = d.api_key WHERE d.id = $1");
        let row = self.optional(one.bind(id)).await?;
        row.map(|row| {
            let (body, endpoint) = (column(&row, "body")?, column(&row, "endpoint")?);
            Ok(Content { body, endpoint, secrets: signing(&row, at)? })
        })
        .transpose()
    }

    /// Everything that was to be sent for a call, oldest first.
    pub async fn deliveries(&self, call: CallId) -> Result<Vec<DeliveryLog>, StoreError> {
        let rows =
            self.all(sql("SELECT * FROM deliveries WHERE call = $1 ORDER BY id").bind(call.hex())).await?;
        rows.iter().map(read_log).collect()
    }
}

/// `[1,2,3]`
fn json_list(ids: &[i64]) -> String {
    serde_json::Value::from(ids).to_string()
}

/// The host that the caps count by; a URL that cannot be read counts as itself and is refused when it is sent.
fn host_of(url: &str) -> String {
    let parsed = url::Url::parse(url).ok();
    parsed.as_ref().and_then(url::Url::host_str).unwrap_or(url).to_ascii_lowercase()
}

/// Reads a row that has been joined with its call.
pub(super) fn read_delivery(row: &Row) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        id: column(row, "id")?,
        event_id: column(row, "event_id")?,
        call: CallId::from_hex(&column::<String>(row, "call")?)
            .ok_or(StoreError::Unreadable("deliveries.call"))?,
        key: column(row, "api_key")?,
        dialect: column(row, "dialect")?,
        event: column(row, "event")?,
        terminal: flag(row, "terminal")?,
        url: column(row, "url")?,
        host: column(row, "host")?,
        attempts: attempts(row)?,
        created_at: Timestamp(column(row, "created_at")?),
        call_ended: column::<String>(row, "state")? == "ended",
    })
}

fn read_log(row: &Row) -> Result<DeliveryLog, StoreError> {
    let status = column::<Option<i64>>(row, "last_status")?;
    Ok(DeliveryLog {
        id: column(row, "id")?,
        event_id: column(row, "event_id")?,
        event: column(row, "event")?,
        state: column(row, "state")?,
        attempts: attempts(row)?,
        next_at: Timestamp(column(row, "next_at")?),
        last_status: status.and_then(|status| u16::try_from(status).ok()),
        last_result: column(row, "last_result")?,
        body: column(row, "body")?,
    })
}

fn attempts(row: &Row) -> Result<u32, StoreError> {
    u32::try_from(column::<i64>(row, "attempts")?).map_err(|_| StoreError::Unreadable("deliveries.attempts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_one_head_unless_a_terminal_event_waits_for_its_retry() {
        let row = |id, terminal, attempts| Some(Waiting { id, terminal, attempts });
        assert_eq!(heads(None, None), [None, None]);
        assert_eq!(heads(row(1, false, 0), row(1, false, 0)), [Some(1), None]);
        assert_eq!(heads(row(1, false, 3), row(1, false, 3)), [Some(1), None]);
        assert_eq!(heads(row(1, true, 0), row(2, false, 0)), [Some(1), None]);
        assert_eq!(heads(row(1, true, 1), row(2, false, 0)), [Some(1), Some(2)]);
        assert_eq!(heads(row(1, true, 1), None), [Some(1), None]);
    }

    #[test]
    fn hosts_are_counted_without_their_ports() {
        assert_eq!(host_of("https://Hooks.Example:8443/a?b"), "hooks.example");
        assert_eq!(host_of("http://[::1]:5000/"), "[::1]");
        assert_eq!(host_of("nonsense"), "nonsense");
    }
}
