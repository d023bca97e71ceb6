//! The rows of recordings. The row decides whose a file is and whether it may be served, never the directory.

use super::sql::{Row, column, sql};
use super::{Db, StoreError, Tx};
use crate::model::call::CallOrder;
use crate::model::event::{Checksum, RecordingSize};
use crate::model::{CallId, Secret, Timestamp};

/// How far a recording has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingState {
    /// Being written.
    Active,
    /// Stopped; the file is being closed.
    Finalising,
    /// Whole on disk.
    Done,
    /// Could not be kept (in full).
    Failed,
}

/// Each [`RecordingState`] with the word of its column.
const STATES: &[(RecordingState, &str)] = &[
    (RecordingState::Active, "active"),
    (RecordingState::Finalising, "finalising"),
    (RecordingState::Done, "done"),
    (RecordingState::Failed, "failed"),
];

impl RecordingState {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        STATES.iter().find(|(known, _)| *known == self).map_or("failed", |(_, word)| word)
    }

    fn from_text(text: &str) -> Option<Self> {
        STATES.iter().find(|(_, word)| *word == text).map(|(state, _)| *state)
    }
}

/// One recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingRow {
    /// Its id: the file name without `.wav`.
    pub recording: String,
    /// The file name.
    pub filename: String,
    /// Kaphila's form of its call's id.
    pub call: String,
    /// Its call.
    pub call_id: CallId,
    /// Whose.
    pub key: i64,
    /// How far it has come.
    pub state: RecordingState,
    /// Bytes on disk, once it is over.
    pub bytes: u64,
    /// Length, once it is over.
    pub duration_ms: u64,
    /// One channel or two.
    pub channels: media::Channels,
    /// Of the whole file, once it is done.
    pub sha256: Option<Checksum>,
    /// Why it failed, in a word.
    pub reason: Option<String>,
    /// It lies where recordings are uploaded to.
    pub uploaded: bool,
    /// Tries to upload it so far.
    pub upload_attempts: u32,
    /// Begun.
    pub created_at: Timestamp,
}

/// What is known of a recording once it is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordingEnd<'a> {
    /// What the file holds.
    pub size: Option<&'a RecordingSize>,
    /// Of a whole file.
    pub sha256: Option<Checksum>,
    /// Why it failed.
    pub reason: Option<&'a str>,
}

/// What a try to upload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadResult {
    /// It lies there.
    Done,
    /// There is nothing that could be uploaded.
    Hopeless,
    /// Not now; not before this moment.
    Again(Timestamp),
}

impl Tx {
    /// Makes a recording's row or moves it on.
    pub async fn upsert_recording(
        &mut self,
        order: &CallOrder,
        recording: &str,
        state: RecordingState,
        end: &RecordingEnd<'_>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let number = |value: Option<u64>| i64::try_from(value.unwrap_or_default()).unwrap_or(i64::MAX);
        self.run(sql(
            "INSERT INTO recordings (recording, filename, call, api_key, state, bytes, duration_ms, created_at, \
             channels, sha256, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (recording) DO UPDATE SET state = excluded.state, bytes = excluded.bytes, \
             duration_ms = excluded.duration_ms, sha256 = excluded.sha256, reason = excluded.reason",
        )
        .bind(recording)
        .bind(format!("{recording}.wav"))
        .bind(order.id.hex())
        .bind(order.key)
        .bind(state.as_str())
        .bind(number(end.size.map(|s| s.bytes)))
        .bind(number(end.size.map(|s| s.duration_ms)))
        .bind(at.0)
        .bind(i64::from(order.record_channels.count()))
        .bind(end.sha256.map(Checksum::hex))
        .bind(end.reason))
        .await?;
        Ok(())
    }
}

/// `SELECT` of every column of [`read_recording`] with what follows.
macro_rules! select_recordings {
    ($rest:literal) => {
        sql(concat!(
            "SELECT r.recording, r.filename, r.call, r.api_key, r.state, r.bytes, r.duration_ms, r.created_at, \
             r.channels, r.sha256, r.reason, r.upload_state, r.upload_attempts, c.kaphila_id FROM recordings r JOIN calls c ON c.id = r.call ",
            $rest
        ))
    };
}

impl Db {
    /// A key's recordings in every state, newest first.
    pub async fn recordings(
        &self,
        key: i64,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        let rows = self
            .all(
                select_recordings!(
                    "WHERE r.api_key = $1 AND r.expired_at IS NULL ORDER BY r.created_at DESC, r.recording DESC LIMIT $2 OFFSET $3"
                )
                .bind(key)
                .bind(limit.max(0))
                .bind(offset.max(0)),
            )
            .await?;
        rows.iter().map(read_recording).collect()
    }

    /// The latest recording of one of the key's calls.
    pub async fn recording_of_call(
        &self,
        key: i64,
        kaphila_id: &str,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = self
            .optional(
                select_recordings!(
                    "WHERE c.kaphila_id = $1 AND r.api_key = $2 AND r.expired_at IS NULL \
             ORDER BY r.created_at DESC, r.recording DESC LIMIT 1"
                )
                .bind(kaphila_id)
                .bind(key),
            )
            .await?;
        row.as_ref().map(read_recording).transpose()
    }

    /// The same by the call itself.
    pub async fn recording_of_call_id(
        &self,
        key: i64,
        call: CallId,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = self
            .optional(
                select_recordings!(
                    "WHERE r.call = $1 AND r.api_key = $2 AND r.expired_at IS NULL \
             ORDER BY r.created_at DESC, r.recording DESC LIMIT 1"
                )
                .bind(call.hex())
                .bind(key),
            )
            .await?;
        row.as_ref().map(read_recording).transpose()
    }

    /// One of the key's recordings by file name.
    pub async fn recording_by_filename(
        &self,
        key: i64,
        filename: &str,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = self
            .optional(
                select_recordings!("WHERE r.filename = $1 AND r.api_key = $2 AND r.expired_at IS NULL")
                    .bind(filename)
                    .bind(key),
            )
            .await?;
        row.as_ref().map(read_recording).transpose()
    }

    /// One of the recordings of a tenant's calls, by its id.
    pub async fn recording_of_tenant(
        &self,
        tenant: &str,
        recording: &str,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let one = select_recordings!("WHERE r.recording = $1 AND c.tenant = $2 AND r.expired_at IS NULL");
        self.optional(one.bind(recording).bind(tenant)).await?.as_ref().map(read_recording).transpose()
    }

    /// A recording by its id, whoever asks, unless its key is revoked or expired at `at`.
    pub async fn recording_of_valid_key(
        &self,
        recording: &str,
        at: Timestamp,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = self
            .optional(
                select_recordings!(
                    "JOIN api_keys k ON k.id = r.api_key WHERE r.recording = $1 AND r.expired_at IS NULL \
                     AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)"
                )
                .bind(recording)
                .bind(at.0),
            )
            .await?;
        row.as_ref().map(read_recording).transpose()
    }

    /// Finished recordings that have been kept for as long as their key says, or `keep_days` where it says nothing;
    /// 0 days are for ever. At most `limit`, oldest first, begun after `after`.
    pub async fn outlived_recordings(
        &self,
        keep_days: u32,
        now: Timestamp,
        after: (Timestamp, &str),
        limit: i64,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        let rows = self
            .all(
                select_recordings!(
                    "JOIN api_keys k ON k.id = r.api_key WHERE r.expired_at IS NULL \
                     AND r.state IN ('done', 'failed') AND COALESCE(k.keep_days, $1) > 0 \
                     AND r.created_at <= $2 - 86400000 * (SELECT MIN(COALESCE(keep_days, $1)) FROM api_keys \
                     WHERE COALESCE(keep_days, $1) > 0) \
                     AND r.created_at + r.duration_ms <= $2 - COALESCE(k.keep_days, $1) * 86400000 \
                     AND (r.created_at > $3 OR (r.created_at = $3 AND r.recording > $4)) \
                     ORDER BY r.created_at, r.recording LIMIT $5"
                )
                .bind(keep_days)
                .bind(now.0)
                .bind(after.0.0)
                .bind(after.1)
                .bind(limit),
            )
            .await?;
        rows.iter().map(read_recording).collect()
    }

    /// The file is gone for good: nobody is shown the recording any more. The row stays.
    pub async fn expire_recording(&self, recording: &str, at: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.run(
            sql("UPDATE recordings SET expired_at = $2 WHERE recording = $1 AND expired_at IS NULL \
                 AND state IN ('done', 'failed')")
            .bind(recording)
            .bind(at.0),
        )
        .await?;
        tx.commit().await
    }

    /// Takes the next recording that is to be uploaded at `now` and keeps other processes from taking it until
    /// `lease`. `None`: nothing is due.
    pub async fn claim_upload(
        &self,
        now: Timestamp,
        lease: Timestamp,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let due = select_recordings!(
            "WHERE r.upload_state = 'none' AND r.state = 'done' AND r.expired_at IS NULL AND r.upload_at <= $1 \
             ORDER BY r.upload_at, r.recording LIMIT 1"
        );
        let Some(row) = self.optional(due.bind(now.0)).await? else { return Ok(None) };
        let found = read_recording(&row)?;
        let mut tx = self.begin().await?;
        // Another process may have been quicker.
        let claim = sql(
            "UPDATE recordings SET upload_at = $3, upload_attempts = upload_attempts + 1 WHERE recording = $1 \
             AND upload_at <= $2 AND upload_state = 'none' AND expired_at IS NULL",
        );
        let claimed = tx.run(claim.bind(&found.recording).bind(now.0).bind(lease.0)).await?;
        tx.commit().await?;
        Ok((claimed == 1).then_some(found))
    }

    /// The upload of a claimed recording has come to this: it lies there, it never will, or it is tried again.
    pub async fn settle_upload(&self, recording: &str, came_to: UploadResult) -> Result<(), StoreError> {
        let (state, at) = match came_to {
            UploadResult::Done => ("done", Timestamp(0)),
            UploadResult::Hopeless => ("failed", Timestamp(0)),
            UploadResult::Again(at) => ("none", at),
        };
        let mut tx = self.begin().await?;
        tx.run(
            sql("UPDATE recordings SET upload_state = $2, upload_at = $3 WHERE recording = $1")
                .bind(recording)
                .bind(state)
                .bind(at.0),
        )
        .await?;
        tx.commit().await
    }

    /// A secret of this server's own by its name; `fresh` becomes it where there is none yet. Processes that share
    /// the database get the same.
    pub async fn server_secret(&self, name: &str, fresh: &Secret) -> Result<Secret, StoreError> {
        let found = |row: Option<Row>| row.map(|row| row.first::<String>().map(Secret)).transpose();
        let ask = || sql("SELECT value FROM server_secrets WHERE name = $1").bind(name);
        if let Some(secret) = found(self.optional(ask()).await?)? {
            return Ok(secret);
        }
        let mut tx = self.begin().await?;
        tx.run(
            sql("INSERT INTO server_secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(name)
                .bind(&fresh.0),
        )
        .await?;
        let secret = found(tx.optional(ask()).await?)?;
        tx.commit().await?;
        secret.ok_or(StoreError::Unreadable("server_secrets.value"))
    }

    /// Recordings that were never finished, oldest first.
    pub async fn open_recordings(&self) -> Result<Vec<RecordingRow>, StoreError> {
        let rows = select_recordings!(
            "WHERE r.state IN ('active', 'finalising') ORDER BY r.created_at, r.recording"
        );
        self.all(rows).await?.iter().map(read_recording).collect()
    }

    /// Those of them whose calls no process has.
    pub(super) async fn recordings_of_nobody(&self) -> Result<Vec<RecordingRow>, StoreError> {
        let rows = select_recordings!(
            "WHERE r.state IN ('active', 'finalising') AND c.node = 0 ORDER BY r.created_at, r.recording"
        );
        self.all(rows).await?.iter().map(read_recording).collect()
    }
}

fn read_recording(row: &Row) -> Result<RecordingRow, StoreError> {
    let number = |name| column::<i64>(row, name).map(|value| u64::try_from(value).unwrap_or_default());
    Ok(RecordingRow {
        recording: column(row, "recording")?,
        filename: column(row, "filename")?,
        call: column(row, "kaphila_id")?,
        call_id: CallId::from_hex(&column::<String>(row, "call")?)
            .ok_or(StoreError::Unreadable("recordings.call"))?,
        key: column(row, "api_key")?,
        state: RecordingState::from_text(&column::<String>(row, "state")?)
            .ok_or(StoreError::Unreadable("recordings.state"))?,
        bytes: number("bytes")?,
        duration_ms: number("duration_ms")?,
        channels: u16::try_from(column::<i64>(row, "channels")?)
            .ok()
            .and_then(media::Channels::from_count)
            .ok_or(StoreError::Unreadable("recordings.channels"))?,
        sha256: column::<Option<String>>(row, "sha256")?.as_deref().and_then(Checksum::from_hex),
        reason: column(row, "reason")?,
        uploaded: column::<String>(row, "upload_state")? == "done",
        upload_attempts: u32::try_from(column::<i64>(row, "upload_attempts")?).unwrap_or(u32::MAX),
        created_at: Timestamp(column(row, "created_at")?),
    })
}
