//! `GET /admin/v1/audit`: who changed what, newest first.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::Value;

use super::{Answer, Query, Route, stored};
use crate::api::fault::Fault;
use crate::api::{App, json};
use crate::model::Timestamp;
use crate::store::audit::{AuditFilter, AuditRow};

/// The routes of the audit log.
pub fn routes() -> Vec<Route> {
    vec![("/audit", get(list))]
}

/// One row of the log.
#[derive(Serialize)]
struct Entry {
    id: i64,
    at: String,
    actor: String,
    ip: Option<String>,
    action: String,
    subject: String,
    detail: Value,
}

impl From<AuditRow> for Entry {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id,
            at: row.at.iso_ms(),
            actor: row.actor,
            ip: row.ip,
            action: row.action,
            subject: row.subject,
            detail: serde_json::from_str(&row.detail).unwrap_or_default(),
        }
    }
}

/// Rows of the log; `next` is the `before` of the page that follows, if there may be one.
#[derive(Serialize)]
struct Entries {
    entries: Vec<Entry>,
    next: Option<i64>,
}

/// `GET /audit?actor=&action=&subject=&from=&to=&before=&limit=`.
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, _) = query.window()?;
    let moment = |name: &str| match query.text(name) {
        None => Ok(None),
        Some(text) => Timestamp::from_iso(text)
            .map(Some)
            .ok_or_else(|| Fault::Bad(format!("{name} must be an ISO 8601 moment or day"))),
    };
    let word = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'.');
    let action = query.text("action");
    if action.is_some_and(|text| !word(&text)) {
        return Err(Fault::Bad("action must be a word such as key or key.create".into()));
    }
    let filter = AuditFilter {
        actor: query.text("actor").map(str::to_owned),
        action: action.map(str::to_owned),
        subject: query.text("subject").map(str::to_owned),
        from: moment("from")?,
        to: moment("to")?,
        before: query.number("before", 1..=i64::MAX)?,
    };
    let rows = app.rooms.db.audit_rows(&filter, limit).await.map_err(stored)?;
    Ok(shown(rows, limit))
}

fn shown(rows: Vec<AuditRow>, limit: u32) -> Response {
    let full = u32::try_from(rows.len()).is_ok_and(|found| found == limit);
    let next = rows.last().map(|row| row.id).filter(|_| full);
    json(StatusCode::OK, &Entries { entries: rows.into_iter().map(Entry::from).collect(), next })
}
