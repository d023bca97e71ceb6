//! Calls: the row that is each call's fold, its event log, and the lists made of them.

use std::sync::Arc;

use super::sql::{Row, Statement, column, flag, sql};
use super::{Db, StoreError, Tx, rows};
use crate::model::call::{
    Amd, AmdStatus, CallOrder, CallState, CallView, End, EndReason, RecordingView, Surface,
};
use crate::model::event::Stamped;
use crate::model::purpose::{Direction, Mode, Purpose};
use crate::model::{CallId, CallerId, PhoneNumber, Timestamp};

/// One line of a call log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Kaphila's form of the call id.
    pub kaphila_id: String,
    /// As submitted.
    pub submitted_number: String,
    /// A word of [`outcome`].
    pub status: String,
    /// `HUMAN`, `MACHINE` or `UNKNOWN` once decided.
    pub amd_status: Option<String>,
    /// Whole seconds from answer to end; 0 before the end.
    pub duration_s: i64,
    /// Placed.
    pub created_at: Timestamp,
}

/// Each [`CallState`] with the word of the `state` column.
const STATES: &[(CallState, &str)] = &[
    (CallState::Queued, "queued"),
    (CallState::Dialing, "dialing"),
    (CallState::Ringing, "ringing"),
    (CallState::Answered, "answered"),
    (CallState::Ended, "ended"),
];

/// What has become of a call in one word (CONTRACT 1.1 statuses, 4.3): `ringing` and `answered` while it is up;
/// `completed`, `no_answer`, `busy`, `canceled` or `failed` after. An answered call that the server's death cut
/// off is `failed` (S31).
pub fn outcome(view: &CallView) -> &'static str {
    let Some(end) = view.end else {
        return if view.answered_at.is_some() { "answered" } else { "ringing" };
    };
    if view.answered_at.is_some() && end.reason != EndReason::EngineRestart {
        return "completed";
    }
    match end.reason {
        EndReason::NoAnswer => "no_answer",
        EndReason::Busy => "busy",
        EndReason::Canceled | EndReason::ApiHangup => "canceled",
        EndReason::NormalHangup
        | EndReason::Rejected
        | EndReason::NotFound
        | EndReason::TrunkFailure
        | EndReason::MaxDuration
        | EndReason::MediaTimeout
        | EndReason::InsufficientCredits
        | EndReason::Shutdown
        | EndReason::EngineRestart => "failed",
    }
}

impl Tx {
    /// [`Db::call`], as this transaction sees it.
    pub async fn call(&mut self, id: CallId) -> Result<Option<CallView>, StoreError> {
        self.optional(select_call(id)).await?.as_ref().map(read_call).transpose()
    }

    /// Inserts a call just placed and counts it for its key. A credit held by [`Tx::hold_credit`] becomes this
    /// call's.
    pub async fn insert_call(&mut self, view: &CallView) -> Result<(), StoreError> {
        let order = &view.order;
        let insert = sql(
            "INSERT INTO calls (id, kaphila_id, surface, api_key, tenant, submitted_number, number, caller_id, \
             trunks, ring_timeout_ms, max_duration_ms, use_amd, record, voice_name, webhook_url, created_at, \
             state, outcome, node, record_channels, direction, mode, agent, campaign, contact, context, placed, \
             attempts) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
             $19, $20, $21, $22, $23, $24, $25, $26, 0, '[]')",
        )
        .bind(order.id.hex())
        .bind(&order.kaphila_id)
        .bind(order.surface.as_str())
        .bind(order.key)
        .bind(&order.tenant)
        .bind(&order.submitted_number)
        .bind(order.to.digits())
        .bind(order.from.as_ref().map(CallerId::user))
        .bind(rows::write_trunks(&order.trunks))
        .bind(i64::from(order.ring_timeout_ms))
        .bind(i64::from(order.max_duration_ms))
        .bind(i64::from(order.use_amd))
        .bind(i64::from(order.record))
        .bind(&order.voice_name)
        .bind(order.webhook_url.as_deref())
        .bind(order.created_at.0)
        .bind(state_word(view.state))
        .bind(outcome(view))
        .bind(self.node)
        .bind(i64::from(order.record_channels.count()))
        .bind(order.purpose.direction.as_str())
        .bind(order.purpose.mode.as_str())
        .bind(order.purpose.agent)
        .bind(order.purpose.campaign.as_deref())
        .bind(order.purpose.contact.as_deref())
        .bind(rows::write_object(&order.purpose.context));
        let mut all = vec![insert];
        all.extend(self.keep_hold(order.id));
        all.push(sql("UPDATE api_keys SET total_calls = total_calls + 1 WHERE id = $1").bind(order.key));
        self.together(all).await?;
        if view.events > 0 {
            self.save_call(view).await?;
        }
        Ok(())
    }

    /// Writes what the fold knows now into the call's row. `false` if there is no such call.
    pub async fn save_call(&mut self, view: &CallView) -> Result<bool, StoreError> {
        let amd = view.amd.as_ref();
        let recording = view.recording.as_ref();
        let end = view.end;
        let done = self.run(sql(
            "UPDATE calls SET state = $2, outcome = $3, placed = $4, attempts = $5, amd_status = $6, \
             amd_cause = $7, amd_confidence = $8, gather = $9, recording = $10, recording_active = $11, \
             dialed_at = $12, ringing_at = $13, answered_at = $14, ended_at = $15, end_reason = $16, q850 = $17, \
             sip_code = $18, duration_s = $19, events = $20, passed = $21, context = $22, handoff = $23 WHERE id = $1",
        )
        .bind(view.order.id.hex())
        .bind(state_word(view.state))
        .bind(outcome(view))
        .bind(i64::from(view.placed))
        .bind(rows::write_attempts(&view.attempts))
        .bind(amd.map(|a| a.status.as_str()))
        .bind(amd.map(|a| a.cause.as_str()))
        .bind(amd.map(|a| f64::from(a.confidence)))
        .bind(view.gather.as_ref().map(rows::write_gather))
        .bind(recording.map(|r| r.recording.as_str()))
        .bind(i64::from(recording.is_some_and(|r| r.active)))
        .bind(view.dialed_at.map(|t| t.0))
        .bind(view.ringing_at.map(|t| t.0))
        .bind(view.answered_at.map(|t| t.0))
        .bind(end.map(|e| e.at.0))
        .bind(end.map(|e| e.reason.as_str()))
        .bind(end.map(|e| i64::from(e.q850)))
        .bind(end.and_then(|e| e.sip_code).map(i64::from))
        .bind(end.map_or(0, |e| view.duration_s(e.at)))
        .bind(i64::from(view.events))
        .bind(rows::write_passed(&view.passed))
        .bind(rows::write_object(&view.order.purpose.context))
        .bind(view.handoff.as_deref()))
        .await?;
        Ok(done > 0)
    }

    /// Appends to the event log; `sequence` counts a call's events from 1 and `data` is
    /// [`rows::event_data`]'s. `false` if that event is there already, which a commit whose answer was lost may
    /// leave behind.
    pub async fn insert_event(
        &mut self,
        stamped: &Stamped,
        sequence: u32,
        data: &str,
    ) -> Result<bool, StoreError> {
        let done = self
            .run(
                sql("INSERT INTO events (call, sequence, type, at, data) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (call, sequence) DO NOTHING")
                .bind(stamped.call.hex())
                .bind(i64::from(sequence))
                .bind(stamped.event.name())
                .bind(stamped.at.0)
                .bind(data),
            )
            .await?;
        Ok(done > 0)
    }

    /// Live calls of a key. Exact until the end of the transaction: the key is locked, so nobody else places a call.
    pub async fn active_count(&mut self, key: i64) -> Result<i64, StoreError> {
        self.lock_key(key).await?;
        self.one(active(key)).await?.first()
    }
}

impl Db {
    /// Live calls of a key.
    pub async fn active_count(&self, key: i64) -> Result<i64, StoreError> {
        self.one(active(key)).await?.first()
    }

    /// Every call that has not ended, oldest first.
    pub async fn open_calls(&self) -> Result<Vec<CallView>, StoreError> {
        self.calls_still_open(sql("SELECT * FROM calls WHERE state <> 'ended' ORDER BY created_at, id")).await
    }

    /// Those of them that no process has.
    pub(super) async fn calls_of_nobody(&self) -> Result<Vec<CallView>, StoreError> {
        let calls = "SELECT * FROM calls WHERE state <> 'ended' AND node = 0 ORDER BY created_at, id";
        self.calls_still_open(sql(calls)).await
    }

    async fn calls_still_open(&self, calls: Statement) -> Result<Vec<CallView>, StoreError> {
        let rows = self.all(calls).await?;
        // One row that cannot be read must not keep the server from closing the others.
        let read = |row| {
            read_call(row).inspect_err(|error| tracing::error!(%error, "an open call is left as it is"))
        };
        Ok(rows.iter().filter_map(|row| read(row).ok()).collect())
    }

    /// One call as it was last saved.
    pub async fn call(&self, id: CallId) -> Result<Option<CallView>, StoreError> {
        self.optional(select_call(id)).await?.as_ref().map(read_call).transpose()
    }

    /// One of the key's calls by Kaphila's form of the id, as it was last saved.
    pub async fn call_of_key(&self, key: i64, kaphila_id: &str) -> Result<Option<CallView>, StoreError> {
        let row = self
            .optional(
                sql("SELECT * FROM calls WHERE kaphila_id = $1 AND api_key = $2").bind(kaphila_id).bind(key),
            )
            .await?;
        row.as_ref().map(read_call).transpose()
    }

    /// A key's calls, newest first, and how many there are in all. `status` is a word of [`outcome`]; others
    /// find nothing.
    pub async fn call_logs(
        &self,
        key: i64,
        status: Option<&str>,
        limit: i64,
        offset: i64,
    ) -> Result<(Vec<LogRow>, i64), StoreError> {
        let mut rows = sql(
            "SELECT kaphila_id, submitted_number, outcome, amd_status, duration_s, created_at FROM calls \
             WHERE api_key = $1",
        )
        .bind(key);
        let mut total = sql("SELECT COUNT(*) FROM calls WHERE api_key = $1").bind(key);
        if let Some(word) = status {
            rows.push(" AND outcome = ").push_bind(word);
            total.push(" AND outcome = ").push_bind(word);
        }
        rows.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit.max(0));
        rows.push(" OFFSET ").push_bind(offset.max(0));
        let rows = self.all(rows).await?;
        let total = self.one(total).await?.first()?;
        let list = rows.iter().map(read_log).collect::<Result<_, _>>()?;
        Ok((list, total))
    }

    /// The event log of a call: sequence, type and data, oldest first.
    pub async fn events(&self, call: CallId) -> Result<Vec<(u32, String, String)>, StoreError> {
        let rows = self
            .all(
                sql("SELECT sequence, type, data FROM events WHERE call = $1 ORDER BY sequence")
                    .bind(call.hex()),
            )
            .await?;
        let read = |row: &Row| {
            let sequence = u32::try_from(column::<i64>(row, "sequence")?);
            let sequence = sequence.map_err(|_| StoreError::Unreadable("events.sequence"))?;
            Ok((sequence, column(row, "type")?, column(row, "data")?))
        };
        rows.iter().map(read).collect()
    }
}

/// Counts the live calls of a key.
fn active(key: i64) -> Statement {
    sql("SELECT COUNT(*) FROM calls WHERE api_key = $1 AND state <> 'ended'").bind(key)
}

fn state_word(state: CallState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("queued", |(_, word)| word)
}

fn read_log(row: &Row) -> Result<LogRow, StoreError> {
    Ok(LogRow {
        kaphila_id: column(row, "kaphila_id")?,
        submitted_number: column(row, "submitted_number")?,
        status: column(row, "outcome")?,
        amd_status: column(row, "amd_status")?,
        duration_s: column(row, "duration_s")?,
        created_at: Timestamp(column(row, "created_at")?),
    })
}

fn select_call(id: CallId) -> Statement {
    sql("SELECT * FROM calls WHERE id = $1").bind(id.hex())
}

pub(super) fn read_call(row: &Row) -> Result<CallView, StoreError> {
    let unreadable = |what: &'static str| move || StoreError::Unreadable(what);
    let moment = |name| column::<Option<i64>>(row, name).map(|at| at.map(Timestamp));
    let state: String = column(row, "state")?;
    let state = STATES.iter().find(|(_, word)| *word == state).ok_or_else(unreadable("calls.state"))?.0;
    let recording: Option<String> = column(row, "recording")?;
    let active = flag(row, "recording_active")?;
    Ok(CallView {
        order: Arc::new(read_order(row)?),
        state,
        attempts: rows::read_attempts(&column::<String>(row, "attempts")?)?,
        passed: rows::read_passed(&column::<String>(row, "passed")?)?,
        placed: flag(row, "placed")?,
        amd: read_amd(row)?,
        gather: column::<Option<String>>(row, "gather")?.as_deref().map(rows::read_gather).transpose()?,
        recording: recording.map(|recording| RecordingView { recording, active, paused: false }),
        dialed_at: moment("dialed_at")?,
        ringing_at: moment("ringing_at")?,
        answered_at: moment("answered_at")?,
        handoff: column(row, "handoff")?,
        end: read_end(row)?,
        events: narrow(row, "events")?,
    })
}

fn read_order(row: &Row) -> Result<CallOrder, StoreError> {
    let unreadable = |what: &'static str| move || StoreError::Unreadable(what);
    Ok(CallOrder {
        id: CallId::from_hex(&column::<String>(row, "id")?).ok_or_else(unreadable("calls.id"))?,
        kaphila_id: column(row, "kaphila_id")?,
        surface: Surface::from_text(&column::<String>(row, "surface")?)
            .ok_or_else(unreadable("calls.surface"))?,
        key: column(row, "api_key")?,
        tenant: column(row, "tenant")?,
        submitted_number: column(row, "submitted_number")?,
        to: PhoneNumber::from_digits(&column::<String>(row, "number")?)
            .ok_or_else(unreadable("calls.number"))?,
        from: column::<Option<String>>(row, "caller_id")?.as_deref().and_then(CallerId::parse),
        trunks: rows::read_trunks(&column::<String>(row, "trunks")?)?,
        // A call that is read back is dialled by nobody any more.
        redials_ms: Vec::new(),
        ring_timeout_ms: narrow(row, "ring_timeout_ms")?,
        max_duration_ms: narrow(row, "max_duration_ms")?,
        use_amd: flag(row, "use_amd")?,
        record: flag(row, "record")?,
        record_channels: u16::try_from(column::<i64>(row, "record_channels")?)
            .ok()
            .and_then(media::Channels::from_count)
            .ok_or_else(unreadable("calls.record_channels"))?,
        voice_name: column(row, "voice_name")?,
        webhook_url: column(row, "webhook_url")?,
        purpose: read_purpose(row)?,
        created_at: Timestamp(column(row, "created_at")?),
    })
}

fn read_purpose(row: &Row) -> Result<Purpose, StoreError> {
    let unreadable = |what: &'static str| move || StoreError::Unreadable(what);
    let direction = Direction::from_text(&column::<String>(row, "direction")?);
    Ok(Purpose {
        direction: direction.ok_or_else(unreadable("calls.direction"))?,
        mode: Mode::from_text(&column::<String>(row, "mode")?).ok_or_else(unreadable("calls.mode"))?,
        agent: column(row, "agent")?,
        campaign: column(row, "campaign")?,
        contact: column(row, "contact")?,
        context: rows::read_object(&column::<String>(row, "context")?)?,
        brief: None,
    })
}

fn read_amd(row: &Row) -> Result<Option<Amd>, StoreError> {
    let Some(status) = column::<Option<String>>(row, "amd_status")? else { return Ok(None) };
    let status = AmdStatus::from_text(&status).ok_or(StoreError::Unreadable("calls.amd_status"))?;
    let cause = column::<Option<String>>(row, "amd_cause")?.unwrap_or_default();
    let confidence = column::<Option<f64>>(row, "amd_confidence")?.unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "it was an f32 when it was written")]
    let confidence = confidence as f32;
    Ok(Some(Amd { status, cause, confidence }))
}

fn read_end(row: &Row) -> Result<Option<End>, StoreError> {
    let Some(at) = column::<Option<i64>>(row, "ended_at")? else { return Ok(None) };
    let reason = column::<Option<String>>(row, "end_reason")?;
    let reason = reason.as_deref().and_then(EndReason::from_text);
    let code = |name| -> Result<Option<u16>, StoreError> {
        let value = column::<Option<i64>>(row, name)?;
        value.map(|v| u16::try_from(v).map_err(|_| StoreError::Unreadable("calls code"))).transpose()
    };
    Ok(Some(End {
        at: Timestamp(at),
        reason: reason.ok_or(StoreError::Unreadable("calls.end_reason"))?,
        q850: code("q850")?.unwrap_or_default(),
        sip_code: code("sip_code")?,
    }))
}

fn narrow(row: &Row, name: &str) -> Result<u32, StoreError> {
    u32::try_from(column::<i64>(row, name)?).map_err(|_| StoreError::Unreadable("calls number"))
}
