//! The rows of recordings. The row decides whose a file is and whether it may be served, never the directory.

use sqlx::sqlite::SqliteRow;

use super::{Db, StoreError, Tx, column};
use crate::model::call::CallOrder;
use crate::model::event::RecordingSize;
use crate::model::{CallId, Timestamp};

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
    /// Begun.
    pub created_at: Timestamp,
}

impl Tx {
    /// Makes a recording's row or moves it on. `size` is known once the recording is over.
    pub async fn upsert_recording(
        &mut self,
        order: &CallOrder,
        recording: &str,
        state: RecordingState,
        size: Option<&RecordingSize>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let number = |value: Option<u64>| i64::try_from(value.unwrap_or_default()).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO recordings (recording, filename, call, api_key, state, bytes, duration_ms, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (recording) DO UPDATE SET \
             state = excluded.state, bytes = excluded.bytes, duration_ms = excluded.duration_ms",
        )
        .bind(recording)
        .bind(format!("{recording}.wav"))
        .bind(order.id.hex())
        .bind(order.key)
        .bind(state.as_str())
        .bind(number(size.map(|s| s.bytes)))
        .bind(number(size.map(|s| s.duration_ms)))
        .bind(at.0)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }
}

/// `SELECT` of every column of [`read_recording`] with what follows.
macro_rules! select_recordings {
    ($rest:literal) => {
        sqlx::query(concat!(
            "SELECT r.recording, r.filename, r.call, r.api_key, r.state, r.bytes, r.duration_ms, r.created_at, \
             c.kaphila_id FROM recordings r JOIN calls c ON c.id = r.call ",
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
        let rows = select_recordings!(
            "WHERE r.api_key = $1 ORDER BY r.created_at DESC, r.recording DESC LIMIT $2 OFFSET $3"
        )
        .bind(key)
        .bind(limit.max(0))
        .bind(offset.max(0))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_recording).collect()
    }

    /// The latest recording of one of the key's calls.
    pub async fn recording_of_call(
        &self,
        key: i64,
        kaphila_id: &str,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = select_recordings!(
            "WHERE c.kaphila_id = $1 AND r.api_key = $2 ORDER BY r.created_at DESC, r.recording DESC LIMIT 1"
        )
        .bind(kaphila_id)
        .bind(key)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(read_recording).transpose()
    }

    /// One of the key's recordings by file name.
    pub async fn recording_by_filename(
        &self,
        key: i64,
        filename: &str,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = select_recordings!("WHERE r.filename = $1 AND r.api_key = $2")
            .bind(filename)
            .bind(key)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read_recording).transpose()
    }

    /// Recordings that were never finished, oldest first: what a crash left behind.
    pub async fn open_recordings(&self) -> Result<Vec<RecordingRow>, StoreError> {
        let rows = select_recordings!(
            "WHERE r.state IN ('active', 'finalising') ORDER BY r.created_at, r.recording"
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_recording).collect()
    }
}

fn read_recording(row: &SqliteRow) -> Result<RecordingRow, StoreError> {
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
        created_at: Timestamp(column(row, "created_at")?),
    })
}
