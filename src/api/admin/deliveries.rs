//! `/admin/v1/deliveries`: the log of webhooks with every attempt, and sending them again (CONTRACT 0.6). A redelivery
//! keeps its `webhook-id`, counts `X-Webhook-Attempt` on, is signed anew and goes also after the call's end; what is
//! still queued for the first time keeps its order and goes before it. Of what receivers answer nothing is shown but
//! the status, and of bodies nothing at all: they hold what callers typed.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Part, Query, Route, by, part, route, stored};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::control::Caller;
use crate::model::Timestamp;
use crate::store::deliveries::{AttemptRow, DeliveryFilter, DeliveryRow, REPLAY_MAX, Redelivered, STATES};

/// The fault of a path that names no delivery.
const MISSING: &str = "Delivery not found";

/// Longest value of a filter, bytes.
const VALUE_MAX: usize = 256;

/// The routes of deliveries.
pub fn routes() -> Vec<Route> {
    vec![
        route(__path_list, list),
        route(__path_replay, replay),
        route(__path_show, show),
        route(__path_redeliver, redeliver),
    ]
}

/// A delivery.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminDelivery)]
struct DeliveryBody {
    /// Its number.
    id: i64,
    /// The `webhook-id`, the same at every attempt.
    event_id: String,
    /// The call that it tells of.
    call_id: String,
    /// The key's public name.
    key_id: String,
    /// The surface whose form it has.
    surface: String,
    /// What it tells.
    event: String,
    /// What has become of it.
    state: String,
    /// Where it goes.
    url: String,
    /// How often it was tried.
    attempts: u32,
    /// The receiver's last status.
    last_status_code: Option<u16>,
    /// What became of the last attempt, in a word.
    last_result: String,
    /// When it is tried next.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was over.
    #[schema(format = DateTime)]
    settled_at: Option<String>,
    /// The redelivery that is not through.
    redelivery: Option<RedeliveryBody>,
}

/// A redelivery that is not through.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminRedelivery)]
struct RedeliveryBody {
    /// When it was asked for.
    #[schema(format = DateTime)]
    requested_at: String,
    /// When it is tried next.
    #[schema(format = DateTime)]
    next_attempt_at: String,
    /// How often it was tried.
    attempts: u32,
}

/// One attempt.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminAttempt)]
struct AttemptBody {
    /// Its place, from 1.
    number: u32,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// How long it took.
    took_ms: u32,
    /// The receiver's status.
    status_code: Option<u16>,
    /// What became of it, in a word.
    result: String,
}

/// A delivery with its attempts, the first one first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminDeliveryWhole)]
struct Whole {
    #[serde(flatten)]
    delivery: DeliveryBody,
    /// Every attempt, the first one first.
    attempt_log: Vec<AttemptBody>,
}

/// Deliveries, newest first; `next` is the `before` of the page that follows, if there may be one.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminDeliveries)]
struct Deliveries {
    /// The rows of the page.
    deliveries: Vec<DeliveryBody>,
    /// The `before` of the page that follows, if there may be one.
    next: Option<i64>,
}

/// What a replay took in.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminReplayed)]
struct Replayed {
    /// Deliveries that the filter met.
    matched: u32,
    /// Of these, newly queued.
    queued: u32,
}

impl From<DeliveryRow> for DeliveryBody {
    fn from(row: DeliveryRow) -> Self {
        let redelivery = row.redelivery.map(|pending| RedeliveryBody {
            requested_at: pending.requested_at.iso_ms(),
            next_attempt_at: pending.next_at.iso_ms(),
            attempts: pending.made,
        });
        Self {
            id: row.id,
            event_id: row.event_id,
            call_id: row.call,
            key_id: row.key,
            surface: row.dialect,
            event: row.event,
            state: row.state,
            url: row.url,
            attempts: row.attempts,
            last_status_code: row.last_status,
            last_result: row.last_result,
            next_attempt_at: row.next_at.map(Timestamp::iso_ms),
            created_at: row.created_at.iso_ms(),
            settled_at: row.settled_at.map(Timestamp::iso_ms),
            redelivery,
        }
    }
}

impl From<AttemptRow> for AttemptBody {
    fn from(row: AttemptRow) -> Self {
        let AttemptRow { number, at, took_ms, status, result } = row;
        Self { number, at: at.iso_ms(), took_ms, status_code: status, result }
    }
}

/// Reads a filter, from a query or from a body alike.
fn filter<'a>(text: impl Fn(&str) -> Result<Option<&'a str>, Fault>) -> Result<DeliveryFilter, Fault> {
    let value = |name: &str| match text(name)? {
        Some(value) if value.len() > VALUE_MAX || value.chars().any(char::is_control) => {
            Err(Fault::Bad(format!("{name} must be at most {VALUE_MAX} characters")))
        }
        value => Ok(value.filter(|value| !value.is_empty()).map(str::to_owned)),
    };
    let moment = |name: &str| match value(name)? {
        None => Ok(None),
        Some(text) => Timestamp::from_iso(&text)
            .map(Some)
            .ok_or_else(|| Fault::Bad(format!("{name} must be an ISO 8601 moment or day"))),
    };
    let state = value("state")?;
    if state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
        return Err(Fault::Bad(format!("state must be one of {}", STATES.join(", "))));
    }
    Ok(DeliveryFilter {
        key: value("key")?,
        call: value("call")?,
        event: value("event")?,
        state,
        host: value("host")?.map(|host| host.to_ascii_lowercase()),
        from: moment("from")?,
        to: moment("to")?,
    })
}

/// `GET /deliveries?key=&call=&event=&state=&host=&from=&to=&before=&limit=`.
#[utoipa::path(
    get, path = "/deliveries", tag = "Admin: webhooks", operation_id = "adminListDeliveries",
    summary = "The log of webhooks, newest first",
    params(
        ("key" = Option<String>, Query, description = "A key's id"),
        ("call" = Option<String>, Query, description = "A call's id"),
        ("event" = Option<String>, Query, description = "An event's name"),
        ("state" = Option<String>, Query, description = "`waiting`, `delivered`, `failed`, `dropped` or `gone`"),
        ("host" = Option<String>, Query, description = "A receiver's host"),
        ("from" = Option<String>, Query, description = "Not before this ISO 8601 moment or day"),
        ("to" = Option<String>, Query, description = "Before this ISO 8601 moment or day"),
        ("before" = Option<i64>, Query, minimum = 1, description = "Only rows before this number"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
    ),
    responses(
        (status = 200, description = "The page", body = Deliveries),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, _) = query.window()?;
    let before = query.number("before", 1..=i64::MAX)?;
    let filter = filter(|name| Ok(query.text(name)))?;
    let rows = app.rooms.db.list_deliveries(&filter, limit, before).await.map_err(stored)?;
    let full = u32::try_from(rows.len()).is_ok_and(|found| found == limit);
    let next = rows.last().map(|row| row.id).filter(|_| full);
    let deliveries = rows.into_iter().map(DeliveryBody::from).collect();
    Ok(json(StatusCode::OK, &Deliveries { deliveries, next }))
}

/// The row that a path names, by its number or its `evt_…`.
async fn named(app: &App, path: Part) -> Result<i64, Fault> {
    let name = part(path, MISSING)?;
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Fault::Missing(MISSING));
    }
    let found = app.rooms.db.delivery_of_event(&name).await.map_err(stored)?;
    found.ok_or(Fault::Missing(MISSING))
}

async fn whole(app: &App, id: i64) -> Result<Whole, Fault> {
    let found = app.rooms.db.delivery(id).await.map_err(stored)?;
    let (row, attempts) = found.ok_or(Fault::Missing(MISSING))?;
    Ok(Whole { delivery: row.into(), attempt_log: attempts.into_iter().map(AttemptBody::from).collect() })
}

/// `GET /deliveries/:delivery`, with its attempts.
#[utoipa::path(
    get, path = "/deliveries/{delivery}", tag = "Admin: webhooks", operation_id = "adminShowDelivery",
    summary = "One webhook, with its attempts",
    params(
        ("delivery" = String, Path, description = "Its number or its `evt_…`"),
    ),
    responses(
        (status = 200, description = "The delivery", body = Whole),
        (status = 404, description = "`Delivery not found`"),
    )
)]
async fn show(State(app): State<App>, path: Part) -> Answer {
    let id = named(&app, path).await?;
    Ok(json(StatusCode::OK, &whole(&app, id).await?))
}

/// `POST /deliveries/:delivery/redeliver`: 202, sent as soon as it can go.
#[utoipa::path(
    post, path = "/deliveries/{delivery}/redeliver", tag = "Admin: webhooks", operation_id = "adminRedeliver",
    summary = "Send a webhook again",
    description = "Under the same `webhook-id`, signed anew.",
    params(
        ("delivery" = String, Path, description = "Its number or its `evt_…`"),
    ),
    responses(
        (status = 202, description = "It is queued", body = Whole),
        (status = 404, description = "`Delivery not found`"),
        (status = 409, description = "Too many redeliveries are waiting"),
    )
)]
async fn redeliver(State(app): State<App>, Extension(caller): Extension<Caller>, path: Part) -> Answer {
    let id = named(&app, path).await?;
    match app.rooms.db.redeliver(id, &by(&caller)).await.map_err(stored)? {
        Redelivered::Unknown => Err(Fault::Missing(MISSING)),
        Redelivered::Full => Err(Fault::Conflict("Too many redeliveries are waiting".into())),
        Redelivered::Queued | Redelivered::Hurried => Ok(json(StatusCode::ACCEPTED, &whole(&app, id).await?)),
    }
}

/// Which deliveries a replay is of.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the form of what `filter` reads")]
#[schema(as = AdminReplayFilter)]
struct FilterAsked {
    /// A key's id.
    key: Option<String>,
    /// A call's id.
    call: Option<String>,
    /// An event's name.
    event: Option<String>,
    /// `delivered`, `failed`, `dropped` or `gone`; `failed` unless said.
    state: Option<String>,
    /// A receiver's host.
    host: Option<String>,
    /// Not before this ISO 8601 moment or day.
    from: Option<String>,
    /// Before this ISO 8601 moment or day.
    to: Option<String>,
}

/// What a replay asks for.
#[derive(ToSchema)]
#[schema(as = AdminReplayAsked)]
struct ReplayAsked {
    /// Which deliveries.
    #[schema(value_type = Option<FilterAsked>)]
    filter: DeliveryFilter,
    /// At most so many.
    #[schema(required = false, minimum = 1)]
    limit: u32,
}

impl ReplayAsked {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let fields = Fields::read_optional(body)?;
        let about = fields.object("filter")?.unwrap_or_default();
        let filter = filter(|name| about.text(name))?;
        if filter.state.as_deref() == Some("waiting") {
            return Err(Fault::Bad(
                "state must be one that is settled: waiting deliveries are sent anyway".into(),
            ));
        }
        let limit = fields.integer("limit", 1..=REPLAY_MAX)?.unwrap_or(REPLAY_MAX);
        Ok(Self { filter, limit })
    }
}

/// `POST /deliveries/replay {filter, limit}`: sends again what the filter meets, the oldest first. Without a state only
/// what has failed.
#[utoipa::path(
    post, path = "/deliveries/replay", tag = "Admin: webhooks", operation_id = "adminReplay",
    summary = "Send again what a filter meets",
    description = "The oldest first; without a state only what has failed. The body may be empty.",
    request_body = Option<ReplayAsked>,
    responses(
        (status = 202, description = "They are queued", body = Replayed),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn replay(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let ReplayAsked { filter, limit } = ReplayAsked::read(&body)?;
    let replayed = app.rooms.db.replay(&filter, limit, &by(&caller)).await.map_err(stored)?;
    let body = Replayed { matched: replayed.matched, queued: replayed.queued };
    Ok(json(StatusCode::ACCEPTED, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<DeliveryFilter, Fault> {
        filter(|name| Ok(pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)))
    }

    #[test]
    fn filters_are_read_and_nonsense_is_named() {
        assert_eq!(read(&[]), Ok(DeliveryFilter::default()));
        let all =
            read(&[("host", "A.Example"), ("state", "gone"), ("from", "2026-02-17"), ("call", "")]).unwrap();
        assert_eq!(all.host.as_deref(), Some("a.example"));
        assert_eq!((all.state.as_deref(), all.call), (Some("gone"), None));
        assert_eq!(all.from, Timestamp::from_iso("2026-02-17T00:00:00Z"));
        for (name, value, text) in [
            ("state", "lost", "state must be one of waiting, delivered, failed, dropped, gone"),
            ("to", "soon", "to must be an ISO 8601 moment or day"),
            ("key", "a\nb", "key must be at most 256 characters"),
        ] {
            assert_eq!(read(&[(name, value)]), Err(Fault::Bad(text.into())));
        }
    }
}
