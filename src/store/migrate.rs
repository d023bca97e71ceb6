//! The schema, brought up to date when the database is opened. Each migration runs once, all that are missing in
//! one transaction, so that two processes that start together do not meet half of it.

use sha2::{Digest, Sha256};
use sqlx::{Row, SqlitePool};

use super::{StoreError, ids};

/// Number, name and text of every migration, oldest first. An applied one is never edited.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "accounts", include_str!("../../migrations/0001_accounts.sql")),
    (2, "calls", include_str!("../../migrations/0002_calls.sql")),
    (3, "outbox", include_str!("../../migrations/0003_outbox.sql")),
    (4, "idempotency", include_str!("../../migrations/0004_idempotency.sql")),
];

/// Applies what is missing.
pub(super) async fn run(writer: &SqlitePool) -> Result<(), StoreError> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS migrations \
         (version BIGINT PRIMARY KEY NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    let applied =
        sqlx::query("SELECT version, digest FROM migrations ORDER BY version").fetch_all(&mut *tx).await?;
    for row in &applied {
        check(row.try_get("version")?, row.try_get("digest")?)?;
    }
    for (version, name, text) in MIGRATIONS.iter().skip(applied.len()) {
        sqlx::raw_sql(*text).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO migrations (version, name, digest) VALUES ($1, $2, $3)")
            .bind(version)
            .bind(*name)
            .bind(digest(text))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// An applied migration must be one of ours, unchanged: anything else is another program's data.
fn check(version: i64, found: &str) -> Result<(), StoreError> {
    let Some((_, name, text)) = MIGRATIONS.iter().find(|(known, _, _)| *known == version) else {
        return Err(StoreError::Schema(format!(
            "migration {version} was made by a newer version of this program"
        )));
    };
    if digest(text) != found {
        return Err(StoreError::Schema(format!("migration {version} ({name}) differs from the applied one")));
    }
    Ok(())
}

fn digest(text: &str) -> String {
    ids::hex(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        for (index, (version, _, _)) in MIGRATIONS.iter().enumerate() {
            assert_eq!(*version, i64::try_from(index).unwrap() + 1);
        }
    }

    #[test]
    fn a_foreign_or_newer_schema_is_refused() {
        assert!(check(99, "").is_err());
        assert!(check(1, "00").is_err());
        assert!(check(1, &digest(MIGRATIONS[0].2)).is_ok());
    }
}
