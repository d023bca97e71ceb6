//! `GET /admin/v1/audit`: who changed what, newest first.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Answer, Query, Route, route, stored};
use crate::api::fault::Fault;
use crate::api::{App, json};
use crate::model::Timestamp;
use crate::store::audit::{AuditFilter, AuditRow};

/// The routes of the audit log.
pub fn routes() -> Vec<Route> {
    vec![route(__path_list, list)]
}

/// One row of the log.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminAuditEntry)]
struct Entry {
    /// Its number.
    id: i64,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who: a key, or `cli`.
    actor: String,
    /// From where.
    ip: Option<String>,
    /// What was done.
    action: String,
    /// To what.
    subject: String,
    /// What was changed; never a secret.
    #[schema(value_type = Object)]
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
#[derive(Serialize, ToSchema)]
#[schema(as = AdminAudit)]
struct Entries {
    /// The rows of the page.
    entries: Vec<Entry>,
    /// The `before` of the page that follows, if there may be one.
    next: Option<i64>,
}

/// `GET /audit?actor=&action=&subject=&from=&to=&before=&limit=`.
#[utoipa::path(
    get, path = "/audit", tag = "Admin: audit", operation_id = "adminAudit",
    summary = "Who changed what, newest first",
    params(
        ("actor" = Option<String>, Query, description = "A key's id, or `cli`"),
        ("action" = Option<String>, Query, description = "A word such as `key` or `key.create`"),
        ("subject" = Option<String>, Query, description = "What was changed"),
        ("from" = Option<String>, Query, description = "Not before this ISO 8601 moment or day"),
        ("to" = Option<String>, Query, description = "Before this ISO 8601 moment or day"),
        ("before" = Option<i64>, Query, minimum = 1, description = "Only rows before this number"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
    ),
    responses(
        (status = 200, description = "The page", body = Entries),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
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
