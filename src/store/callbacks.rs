//! The inbox of `POST /webhook/callback` (CONTRACT 1.4): what others' systems have told, as it was told. It holds the
//! newest and forgets the others; nothing follows from a row.

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

/// A row of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackRow {
    /// From 1, in the order of coming.
    pub id: i64,
    /// What was told.
    pub callback: NewCallback,
}

impl Db {
    /// Puts a callback into the inbox.
    pub async fn keep_callback(&self, new: &NewCallback) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let id = tx.count("callbacks").await?;
        tx.run(
            sql("INSERT INTO callbacks (id, call, status, recording_available, sender, received_at) \
                 VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(id)
            .bind(&new.call)
            .bind(&new.status)
            .bind(i64::from(new.recording_available))
            .bind(&new.sender)
            .bind(new.received_at.0),
        )
        .await?;
        tx.run(sql("DELETE FROM callbacks WHERE id <= $1").bind(id - KEPT)).await?;
        tx.commit().await
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
    Ok(CallbackRow {
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
