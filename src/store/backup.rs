//! The whole database as portable rows, and back: one JSON object a row, the same from SQLite and from PostgreSQL, so
//! that what was saved from one can be restored into the other. Reading sees one moment, beside a running server;
//! writing is one transaction that begins with an empty schema of the version that was saved. It opens connections of
//! its own, knows tables only by what the migrations make, and never prints a row.

mod load;
mod read;

pub use load::Loader;
pub use read::Saver;

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, SqlSafeStr};

use super::StoreError;
use super::migrate::{MIGRATIONS, digest};

/// Why rows could not be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What is read is no backup, or not a whole one.
    #[error("not a whole backup: {0}")]
    Damaged(String),
    /// The database that is restored into is not empty.
    #[error("the database holds keys, trunks, numbers or calls; --force replaces everything in it")]
    NotEmpty,
    /// The schema of the backup is not one of ours.
    #[error("the backup's schema: {0}")]
    Schema(String),
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// One applied migration: its number, and the digest of its text.
pub type Applied = (i64, String);

/// Tables that tell whether somebody uses a database.
const TELLING: [&str; 4] = ["api_keys", "trunks", "numbers", "calls"];

/// The table of migrations itself is written anew, not restored.
const MIGRATIONS_TABLE: &str = "migrations";

/// Rows fetched at once.
const PAGE: usize = 1000;

/// The tables that these migrations leave, oldest first.
fn tables_of(versions: &BTreeSet<i64>) -> Vec<String> {
    let mut tables: Vec<String> = Vec::new();
    for (version, _, text) in MIGRATIONS {
        if !versions.contains(version) {
            continue;
        }
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let name = |words: &mut std::str::SplitWhitespace<'_>| {
                let name = words.find(|word| !matches!(*word, "IF" | "NOT" | "EXISTS")).unwrap_or_default();
                name.trim_end_matches([';', '(']).to_owned()
            };
            match (words.next(), words.next()) {
                (Some("CREATE"), Some("TABLE")) => tables.push(name(&mut words)),
                (Some("DROP"), Some("TABLE")) => {
                    let gone = name(&mut words);
                    tables.retain(|table| *table != gone);
                }
                _ => {}
            }
        }
    }
    tables
}

/// The texts of these migrations, oldest first, each of which must be known here and unchanged.
fn texts_of(applied: &[Applied]) -> Result<Vec<(i64, &'static str, &'static str)>, BackupError> {
    let known: BTreeMap<i64, _> = MIGRATIONS.iter().map(|migration| (migration.0, *migration)).collect();
    let mut texts = Vec::new();
    for (version, found) in applied {
        let Some(migration) = known.get(version) else {
            let newer = format!("migration {version} was made by a newer version of this program");
            return Err(BackupError::Schema(newer));
        };
        if digest(migration.2) != *found {
            return Err(BackupError::Schema(format!(
                "migration {version} differs from the one of this program"
            )));
        }
        texts.push(*migration);
    }
    texts.sort_by_key(|(version, _, _)| *version);
    Ok(texts)
}

/// Every table after those that it refers to; those that refer to each other stay in their order.
fn in_order(tables: Vec<String>, refers: &[(String, String)]) -> Vec<String> {
    let mut ordered: Vec<String> = Vec::new();
    let mut waiting = tables;
    while !waiting.is_empty() {
        let blocked = |table: &String| {
            refers.iter().any(|(from, to)| from == table && to != table && waiting.contains(to))
        };
        let free: Vec<String> = waiting.iter().filter(|table| !blocked(table)).cloned().collect();
        if free.is_empty() {
            ordered.append(&mut waiting);
        }
        waiting.retain(|table| !free.contains(table));
        ordered.extend(free);
    }
    ordered
}

/// A name between quotes. Names are those of our migrations or of the database's own catalogue, never of a file.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// SQL text put together from literals and [`quoted`] names.
fn composed(text: String) -> impl SqlSafeStr {
    AssertSqlSafe(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_those_of_the_migrations() {
        let first = tables_of(&BTreeSet::from([1]));
        assert_eq!(first, ["counters", "tenants", "api_keys", "trunks", "key_trunks"]);
        let all = tables_of(&MIGRATIONS.iter().map(|(version, _, _)| *version).collect());
        for table in TELLING.iter().filter(|table| **table != "numbers") {
            assert!(all.iter().any(|known| known == table), "{table}");
        }
    }

    #[test]
    fn tables_come_after_what_they_refer_to() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let refer = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let refers = [refer("a", "c"), refer("c", "d"), refer("d", "d"), refer("a", "gone")];
        assert_eq!(in_order(names(&["a", "b", "c", "d"]), &refers), names(&["b", "d", "c", "a"]));
        let circle = [refer("a", "b"), refer("b", "a")];
        assert_eq!(in_order(names(&["a", "b"]), &circle), names(&["a", "b"]));
    }

    #[test]
    fn unknown_and_changed_migrations_are_refused() {
        let (version, _, text) = MIGRATIONS[0];
        assert_eq!(texts_of(&[(version, digest(text))]).unwrap().len(), 1);
        assert!(texts_of(&[(version, "00".to_owned())]).is_err());
        let newer = texts_of(&[(999, String::new())]).unwrap_err().to_string();
        assert_eq!(newer, "the backup's schema: migration 999 was made by a newer version of this program");
    }
}
