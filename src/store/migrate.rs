//! The schema, brought up to date when the database is opened. Each migration runs once, all that are missing in
//! one transaction, so that two processes that start together do not meet half of it.

use super::sql::{column, sql};
use super::{StoreError, Tx, ids};
use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

/// Number, name and text of every migration, oldest first. An applied one is never edited.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "accounts", include_str!("../../migrations/0001_accounts.sql")),
    (2, "calls", include_str!("../../migrations/0002_calls.sql")),
    (3, "outbox", include_str!("../../migrations/0003_outbox.sql")),
    (4, "idempotency", include_str!("../../migrations/0004_idempotency.sql")),
    (5, "nodes", include_str!("../../migrations/0005_nodes.sql")),
    (6, "admin", include_str!("../../migrations/0006_admin.sql")),
    (7, "attempts", include_str!("../../migrations/0007_attempts.sql")),
    (8, "recordings", include_str!("../../migrations/0008_recordings.sql")),
    (9, "trunks", include_str!("../../migrations/0009_trunks.sql")),
    (10, "surfaces", include_str!("../../migrations/0010_surfaces.sql")),
    (11, "callbacks", include_str!("../../migrations/0011_callbacks.sql")),
    (12, "voxforge", include_str!("../../migrations/0012_voxforge.sql")),
    (13, "campaigns", include_str!("../../migrations/0013_campaigns.sql")),
    (14, "phony", include_str!("../../migrations/0014_phony.sql")),
    (15, "promises", include_str!("../../migrations/0015_promises.sql")),
    (16, "callback_recordings", include_str!("../../migrations/0016_callback_recordings.sql")),
    (17, "agent tools", include_str!("../../migrations/0017_agent_tools.sql")),
    (18, "analyses", include_str!("../../migrations/0018_analyses.sql")),
];

/// The table of what is applied.
pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations \
     (version BIGINT PRIMARY KEY NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL)";

/// The name of PostgreSQL's lock that keeps other processes out meanwhile; SQLite's transaction does.
pub(super) const MIGRATING: i64 = 0x7472_756e_6b6c_696e;

/// Applies what is missing.
pub(super) async fn run(mut tx: Tx) -> Result<(), StoreError> {
    if tx.is_shared() {
        tx.run(sql("SELECT pg_advisory_xact_lock($1)").bind(MIGRATING)).await?;
    }
    tx.lend().script(TABLE).await?;
    let applied = tx.all(sql("SELECT version, digest FROM migrations ORDER BY version")).await?;
    let mut known = BTreeSet::new();
    for row in &applied {
        let version = column(row, "version")?;
        check(version, &column::<String>(row, "digest")?)?;
        known.insert(version);
    }
    for (version, name, text) in MIGRATIONS.iter().filter(|(version, _, _)| !known.contains(version)) {
        tx.lend().script(text).await?;
        let done = sql("INSERT INTO migrations (version, name, digest) VALUES ($1, $2, $3)");
        tx.run(done.bind(version).bind(*name).bind(digest(text))).await?;
    }
    tx.commit().await
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

/// What the table of migrations keeps of a text.
pub(super) fn digest(text: &str) -> String {
    ids::hex(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_upwards() {
        assert!(MIGRATIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_foreign_or_newer_schema_is_refused() {
        assert!(check(99, "").is_err());
        assert!(check(1, "00").is_err());
        assert!(check(1, &digest(MIGRATIONS[0].2)).is_ok());
    }
}
