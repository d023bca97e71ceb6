//! `GET /admin/v1/callbacks`: what others' systems have told `POST /webhook/callback` (CONTRACT 1.4), newest first.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Query, Route, route, stored};
use crate::api::{App, json};
use crate::store::callbacks::CallbackRow;

/// The routes of the inbox.
pub fn routes() -> Vec<Route> {
    vec![route(__path_list, list)]
}

/// One row of the inbox.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminCallback)]
struct Shown {
    /// Its number, in the order of coming.
    id: i64,
    /// The call, in its sender's words.
    call: String,
    /// One of the seven statuses.
    status: String,
    /// Its recording can be had.
    recording_available: bool,
    /// Who told: a key's id, `signature` or `loopback`.
    sender: String,
    /// When.
    #[schema(format = DateTime)]
    received_at: String,
}

impl From<CallbackRow> for Shown {
    fn from(CallbackRow { id, callback }: CallbackRow) -> Self {
        Self {
            id,
            call: callback.call,
            status: callback.status,
            recording_available: callback.recording_available,
            sender: callback.sender,
            received_at: callback.received_at.iso_ms(),
        }
    }
}

/// A page of the inbox.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminCallbacks)]
struct List {
    /// The page.
    callbacks: Vec<Shown>,
    /// Rows in all.
    total: i64,
}

/// `GET /callbacks?call=&limit=&offset=`.
#[utoipa::path(
    get, path = "/callbacks", tag = "Admin: callbacks", operation_id = "adminCallbacks",
    summary = "What others' systems have told, newest first",
    description = "The newest 10000 that came to `POST /webhook/callback`. They change no call.",
    params(
        ("call" = Option<String>, Query, description = "Only of the call of this id"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Rows skipped"),
    ),
    responses(
        (status = 200, description = "The page", body = List),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let (rows, total) = app.rooms.db.callbacks(query.text("call"), limit, offset).await.map_err(stored)?;
    let callbacks = rows.into_iter().map(Shown::from).collect();
    Ok(json(StatusCode::OK, &List { callbacks, total }))
}
