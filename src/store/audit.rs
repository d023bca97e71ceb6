//! Who changed what, and when (CONTRACT 2.2). Each change of keys, tenants, trunks, numbers and sounds writes one row
//! in the transaction that makes it, so that there is neither a change without its row nor a row without its change.
//! Rows are only added. A row never holds a secret: whoever writes one names settings, not what keys or passwords are.

use std::net::IpAddr;

use serde_json::Value;

use super::sql::{Row, column, sql};
use super::{Db, StoreError, Tx};
use crate::model::Timestamp;

/// Longest detail, bytes; a longer one is replaced by a note that it was.
const DETAIL_MAX: usize = 8192;

/// Longest subject, characters.
const SUBJECT_MAX: usize = 256;

/// The actor of the command line.
pub const CLI: &str = "cli";

/// The actor of the configuration file, read at start.
pub const CONFIG: &str = "config";

/// The actor of what the server does by itself.
pub const SERVER: &str = "server";

/// Who makes a change, from where, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// A key id, [`CLI`], [`CONFIG`] or [`SERVER`].
    pub actor: String,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
    /// The moment of the change.
    pub at: Timestamp,
}

impl By {
    /// The command line.
    pub fn cli(at: Timestamp) -> Self {
        Self { actor: CLI.to_owned(), ip: None, at }
    }

    /// The configuration file.
    pub fn config(at: Timestamp) -> Self {
        Self { actor: CONFIG.to_owned(), ip: None, at }
    }

    /// The server itself.
    pub fn server(at: Timestamp) -> Self {
        Self { actor: SERVER.to_owned(), ip: None, at }
    }

    /// The holder of a key, by its `key_…` id.
    pub fn key(key_id: &str, ip: Option<IpAddr>, at: Timestamp) -> Self {
        Self { actor: key_id.to_owned(), ip, at }
    }
}

/// Changes that name nobody are made by hand on this machine.
impl From<Timestamp> for By {
    fn from(at: Timestamp) -> Self {
        Self::cli(at)
    }
}

/// One row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// From 1, in the order of the changes.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// A key id, [`CLI`] or [`CONFIG`].
    pub actor: String,
    /// Where the request came from.
    pub ip: Option<String>,
    /// `<kind>.<verb>`, for example `key.create`.
    pub action: String,
    /// The name of what was changed.
    pub subject: String,
    /// What changed, a JSON object.
    pub detail: String,
}

/// Which rows are wanted. `None` everywhere: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this actor.
    pub actor: Option<String>,
    /// Of this action; the part before the dot finds all of its kind.
    pub action: Option<String>,
    /// Of this subject.
    pub subject: Option<String>,
    /// Not before this moment.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
    /// Older than the row of this id: the page after it.
    pub before: Option<i64>,
}

impl Tx {
    /// Writes down a change that this transaction makes. `action` is `<kind>.<verb>`; `detail` is an object that holds
    /// no secret.
    pub async fn audit(
        &mut self,
        by: &By,
        action: &'static str,
        subject: &str,
        detail: &Value,
    ) -> Result<(), StoreError> {
        let id = self.count("audit").await?;
        let text = Some(detail.to_string()).filter(|text| text.len() <= DETAIL_MAX);
        let subject: String = subject.chars().take(SUBJECT_MAX).collect();
        self.run(
            sql("INSERT INTO audit (id, at, actor, ip, action, subject, detail) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(id)
            .bind(by.at.0)
            .bind(&by.actor)
            .bind(by.ip.map(|ip| ip.to_string()))
            .bind(action)
            .bind(subject)
            .bind(text.unwrap_or_else(|| r#"{"tooLong":true}"#.to_owned())),
        )
        .await?;
        Ok(())
    }
}

impl Db {
    /// The rows of a filter, newest first, at most `limit`.
    pub async fn audit_rows(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let mut rows = sql("SELECT id, at, actor, ip, action, subject, detail FROM audit WHERE id < ");
        rows.push_bind(filter.before.unwrap_or(i64::MAX));
        if let Some(actor) = &filter.actor {
            rows.push(" AND actor = ").push_bind(actor);
        }
        if let Some(action) = &filter.action {
            // What stands for any text in a pattern would only find more than was asked for.
            rows.push(" AND (action = ").push_bind(action);
            rows.push(" OR action LIKE ").push_bind(format!("{action}.%")).push(")");
        }
        if let Some(subject) = &filter.subject {
            rows.push(" AND subject = ").push_bind(subject);
        }
        if let Some(from) = filter.from {
            rows.push(" AND at >= ").push_bind(from.0);
        }
        if let Some(to) = filter.to {
            rows.push(" AND at < ").push_bind(to.0);
        }
        rows.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
        self.all(rows).await?.iter().map(read_row).collect()
    }
}

fn read_row(row: &Row) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        id: column(row, "id")?,
        at: Timestamp(column(row, "at")?),
        actor: column(row, "actor")?,
        ip: column(row, "ip")?,
        action: column(row, "action")?,
        subject: column(row, "subject")?,
        detail: column(row, "detail")?,
    })
}
