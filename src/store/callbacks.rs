//! The inbox of `POST /webhook/callback` (CONTRACT 1.4): what others' systems have told, as it was told. It holds the
//! newest and forgets the others; nothing follows from a row, but that a recording it tells of may be fetched, whose file
//! has the row's number for its name.

use super::sql::{Row, column, flag, sql};
use super::{Db, StoreError};
use crate::model::Timestamp;

/// Rows that are kept.
pub const KEPT: i64 = 10_000;

/// One callback as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCallback {
    /// The call, in its sender's words.
    pub call: String,
    /// One of the seven statuses.
    pub status: String,
    /// Its recording can be had.
    pub recording_available: bool,
    /// Who told: a key's public id, `signature` or `loopback`.
    pub sender: String,
    /// When.
    pub received_at: Timestamp,
}

/// How the fetching of a recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is being fetched, or was when the server stopped.
    Fetching,
    /// It is here, so many bytes.
    Stored(i64),
    /// It could not be had.
    Failed,
    /// It was here, and is too old.
    Removed,
}

impl Fetched {
    /// The word of the database and of the surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Stored(_) => "stored",
            Self::Failed => "failed",
            Self::Removed => "removed",
        }
    }

    /// Bytes of the file that is here.
    pub fn size(self) -> Option<i64> {
        match self {
            Self::Stored(size) => Some(size),
            Self::Fetching | Self::Failed | Self::Removed => None,
        }
    }
}

/// A row of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackRow {
    /// From 1, in the order of coming.
    pub id: i64,
    /// What was told.
    pub callback: NewCallback,
    /// The recording that it tells of; `None`: nothing is to be fetched.
    pub fetched: Option<Fetched>,
}

/// What came of a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCallback {
    /// Its row's number.
    pub id: i64,
    /// Rows that were forgotten for it and had a file.
    pub forgotten: Vec<i64>,
}

impl Db {
    /// Puts a callback into the inbox; with `fetch` its recording is to be fetched.
    pub async fn keep_callback(&self, new: &NewCallback, fetch: bool) -> Result<KeptCallback, StoreError> {
        let mut tx = self.begin().await?;
        let id = tx.count("callbacks").await?;
        tx.run(
            sql("INSERT INTO callbacks (id, call, status, recording_available, sender, received_at, \
                 recording) VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(id)
            .bind(&new.call)
            .bind(&new.status)
            .bind(i64::from(new.recording_available))
            .bind(&new.sender)
            .bind(new.received_at.0)
            .bind(fetch.then(|| Fetched::Fetching.as_str())),
        )
        .await?;
        let old = sql("DELETE FROM callbacks WHERE id <= $1 RETURNING id, recording").bind(id - KEPT);
        let mut forgotten = Vec::new();
        for row in tx.all(old).await? {
            if column::<Option<String>>(&row, "recording")?.is_some() {
                forgotten.push(column(&row, "id")?);
            }
        }
        tx.commit().await?;
        Ok(KeptCallback { id, forgotten })
    }

    /// Notes what came of fetching a recording. `false`: the row was forgotten meanwhile.
    pub async fn callback_fetched(&self, id: i64, fetched: Fetched) -> Result<bool, StoreError> {
        let note = sql("UPDATE callbacks SET recording = $2, recording_size = $3 WHERE id = $1");
        let mut tx = self.begin().await?;
        let noted = tx.run(note.bind(id).bind(fetched.as_str()).bind(fetched.size())).await? > 0;
        tx.commit().await?;
        Ok(noted)
    }

    /// Notes that the recordings of callbacks that came before that moment are removed; the rows that had one.
    pub async fn remove_callback_recordings(&self, before: Timestamp) -> Result<Vec<i64>, StoreError> {
        let note = sql("UPDATE callbacks SET recording = 'removed', recording_size = NULL \
             WHERE recording = 'stored' AND received_at < $1 RETURNING id");
        let mut tx = self.begin().await?;
        let rows = tx.all(note.bind(before.0)).await?;
        tx.commit().await?;
        rows.iter().map(Row::first).collect()
    }

    /// One row of the inbox.
    pub async fn callback(&self, id: i64) -> Result<Option<CallbackRow>, StoreError> {
        let one = sql("SELECT * FROM callbacks WHERE id = $1").bind(id);
        self.optional(one).await?.as_ref().map(read).transpose()
    }

    /// A page of the inbox, newest first, of one call where it is named; and how many there are in all.
    pub async fn callbacks(
        &self,
        call: Option<&str>,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<CallbackRow>, i64), StoreError> {
        let (mut page, mut count) = (sql("SELECT * FROM callbacks"), sql("SELECT COUNT(*) FROM callbacks"));
        if let Some(call) = call {
            for list in [&mut page, &mut count] {
                list.push(" WHERE call = ").push_bind(call);
            }
        }
        page.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
        page.push(" OFFSET ").push_bind(i64::from(offset));
        let total = self.one(count).await?.first()?;
        let rows = self.all(page).await?;
        Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
    }
}

fn read(row: &Row) -> Result<CallbackRow, StoreError> {
    let size = column::<Option<i64>>(row, "recording_size")?.unwrap_or(0);
    let fetched = match column::<Option<String>>(row, "recording")?.as_deref() {
        None => None,
        Some("fetching") => Some(Fetched::Fetching),
        Some("stored") => Some(Fetched::Stored(size)),
        Some("failed") => Some(Fetched::Failed),
        Some("removed") => Some(Fetched::Removed),
        Some(_) => return Err(StoreError::Unreadable("callbacks.recording")),
    };
    Ok(CallbackRow {
        fetched,
        id: column(row, "id")?,
        callback: NewCallback {
            call: column(row, "call")?,
            status: column(row, "status")?,
            recording_available: flag(row, "recording_available")?,
            sender: column(row, "sender")?,
            received_at: Timestamp(column(row, "received_at")?),
        },
    })
}
