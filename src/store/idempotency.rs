//! Answers kept for requests that may be repeated (CONTRACT 0.5). Who may have them, and for how long, is decided by
//! those who ask.

use super::sql::{column, sql};
use super::{Db, StoreError};
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
        let row = self
            .optional(
                sql("SELECT digest, status, body FROM idempotency \
             WHERE api_key = $1 AND path = $2 AND name = $3 AND created_at > $4")
                .bind(request.key)
                .bind(&request.path)
                .bind(&request.name)
                .bind(after.0),
            )
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
        tx.run(
            sql("INSERT INTO idempotency (api_key, path, name, digest, status, body, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (api_key, path, name) DO UPDATE SET \
             digest = excluded.digest, status = excluded.status, body = excluded.body, \
             created_at = excluded.created_at")
            .bind(request.key)
            .bind(&request.path)
            .bind(&request.name)
            .bind(&answer.digest)
            .bind(i64::from(answer.status))
            .bind(&answer.body)
            .bind(at.0),
        )
        .await?;
        let old = sql(
            "SELECT api_key, path, name FROM idempotency WHERE created_at <= $1 ORDER BY created_at LIMIT $2",
        )
        .bind(expired.0)
        .bind(REMOVED_AT_ONCE);
        // Rows that another process is removing are left to it.
        let old = tx.shared(old, " FOR UPDATE SKIP LOCKED");
        for row in tx.all(old).await? {
            let gone = sql("DELETE FROM idempotency WHERE api_key = $1 AND path = $2 AND name = $3");
            let gone = gone.bind(column::<i64>(&row, "api_key")?).bind(column::<String>(&row, "path")?);
            tx.run(gone.bind(column::<String>(&row, "name")?)).await?;
        }
        if tx.is_shared() {
            let done = sql("DELETE FROM idempotency_running WHERE api_key = $1 AND path = $2 AND name = $3");
            tx.run(done.bind(request.key).bind(&request.path).bind(&request.name)).await?;
        }
        tx.commit().await
    }

    /// Puts this node's name on a request that is to be done, where several processes may be asked to. `Some` digest:
    /// of the body of the one that has it already.
    pub async fn claim_request(
        &self,
        request: &RequestName,
        digest: &str,
        ticket: i64,
    ) -> Result<Option<String>, StoreError> {
        let bind = |text| sql(text).bind(request.key).bind(&request.path).bind(&request.name);
        let mut tx = self.begin().await?;
        // This process knows what it does itself, so a row of its own is one that could not be removed.
        let taken = bind(
            "INSERT INTO idempotency_running (api_key, path, name, digest, node, ticket) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (api_key, path, name) DO UPDATE SET \
             digest = excluded.digest, ticket = excluded.ticket \
             WHERE idempotency_running.node = excluded.node AND excluded.node <> 0",
        );
        if tx.run(taken.bind(digest).bind(self.node()).bind(ticket)).await? > 0 {
            tx.commit().await?;
            return Ok(None);
        }
        let holder =
            bind("SELECT digest FROM idempotency_running WHERE api_key = $1 AND path = $2 AND name = $3");
        // Gone in between: whoever asks again finds the answer, or the name free.
        let holder = tx.optional(holder).await?;
        holder.map_or(Ok(Some(digest.to_owned())), |row| column(&row, "digest").map(Some))
    }

    /// Takes the name off again.
    pub async fn release_request(&self, request: &RequestName, ticket: i64) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let gone = sql(
            "DELETE FROM idempotency_running WHERE api_key = $1 AND path = $2 AND name = $3 AND node = $4 \
             AND ticket = $5",
        );
        let gone = gone.bind(request.key).bind(&request.path).bind(&request.name);
        tx.run(gone.bind(self.node()).bind(ticket)).await?;
        tx.commit().await
    }

    /// Answers that are kept, expired ones included.
    pub async fn kept_answers(&self) -> Result<i64, StoreError> {
        let row = self.one(sql("SELECT COUNT(*) FROM idempotency")).await?;
        row.first()
    }
}
