//! Answers kept for requests that may be repeated (CONTRACT 0.5). Who may have them, and for how long, is decided by
//! those who ask.

use sqlx::Row;

use super::{Db, StoreError, column};
use crate::model::Timestamp;

/// Expired answers removed with each one that is kept: more than come in, and never a long transaction.
const REMOVED_AT_ONCE: i64 = 100;

/// Which request: one name given by a key on one path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestName {
    /// The key's row.
    pub key: i64,
    /// The route, without the surface's mounting point.
    pub path: String,
    /// The `Idempotency-Key` header's value.
    pub name: String,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// A digest of the request's body.
    pub digest: String,
    /// The HTTP status.
    pub status: u16,
    /// The answer's body.
    pub body: String,
}

impl Db {
    /// The answer kept for a request later than `after`.
    pub async fn kept_answer(
        &self,
        request: &RequestName,
        after: Timestamp,
    ) -> Result<Option<KeptAnswer>, StoreError> {
        let row = sqlx::query(
            "SELECT digest, status, body FROM idempotency \
             WHERE api_key = $1 AND path = $2 AND name = $3 AND created_at > $4",
        )
        .bind(request.key)
        .bind(&request.path)
        .bind(&request.name)
        .bind(after.0)
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let status = u16::try_from(column::<i64>(&row, "status")?);
        let status = status.map_err(|_| StoreError::Unreadable("idempotency.status"))?;
        Ok(Some(KeptAnswer { digest: column(&row, "digest")?, status, body: column(&row, "body")? }))
    }

    /// Keeps an answer given at `at`, in place of one that has expired, and removes some that are not later than
    /// `expired`.
    pub async fn keep_answer(
        &self,
        request: &RequestName,
        answer: &KeptAnswer,
        at: Timestamp,
        expired: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO idempotency (api_key, path, name, digest, status, body, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (api_key, path, name) DO UPDATE SET \
             digest = excluded.digest, status = excluded.status, body = excluded.body, \
             created_at = excluded.created_at",
        )
        .bind(request.key)
        .bind(&request.path)
        .bind(&request.name)
        .bind(&answer.digest)
        .bind(i64::from(answer.status))
        .bind(&answer.body)
        .bind(at.0)
        .execute(&mut *tx.inner)
        .await?;
        sqlx::query(
            "DELETE FROM idempotency WHERE (api_key, path, name) IN (SELECT api_key, path, name \
             FROM idempotency WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
        )
        .bind(expired.0)
        .bind(REMOVED_AT_ONCE)
        .execute(&mut *tx.inner)
        .await?;
        tx.commit().await
    }

    /// Answers that are kept, expired ones included.
    pub async fn kept_answers(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) FROM idempotency").fetch_one(&self.readers).await?;
        Ok(row.try_get(0)?)
    }
}
