//! VoxForge's endpoints of webhooks and the log of what was sent to them (CONTRACT 1.3, 0.6, 0.7).

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::events::EVENTS;
use super::{Answer, Deleted, Segment, Wrong, array, deleted, named, window};
use crate::api::admin::{Query, by};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::config::Webhooks;
use crate::control::Caller;
use crate::model::id::{cuid, cuid_bits};
use crate::model::{CallId, Secret, Timestamp};
use crate::store::deliveries::{DeliveryRow, Redelivered};
use crate::store::endpoints::{Endpoint, EndpointSettings, MadeEndpoint};
use crate::webhook::guard;

/// What a 404 calls it.
const KIND: &str = "Webhook";
const DELIVERY: &str = "Delivery";

/// An endpoint.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeWebhook)]
struct Shown {
    /// Its id.
    id: String,
    /// Where events go.
    url: String,
    /// Those that it wants.
    events: Vec<String>,
    /// It is told.
    is_active: bool,
    /// Made.
    #[schema(format = DateTime)]
    created_at: String,
}

/// An endpoint that was just made.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeNewWebhook)]
struct Made {
    #[serde(flatten)]
    about: Shown,
    /// Signs what is sent there; it is not shown again.
    secret: String,
}

/// A new secret.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeWebhookSecret)]
struct Rotated {
    /// Signs from now on; for 24 hours the one before it signs too, in `webhook-signature`.
    secret: String,
}

/// A delivery.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeDelivery)]
struct Sent {
    /// Its id.
    id: String,
    /// What it told.
    event: String,
    /// Of which call.
    call_id: String,
    /// `pending`, `delivered` or `failed`.
    status: &'static str,
    /// Attempts made.
    attempts: u32,
    /// What the receiver answered last.
    last_status_code: Option<u16>,
    /// The next attempt, while it waits for one.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// When the event happened.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Endpoint> for Shown {
    fn from(endpoint: Endpoint) -> Self {
        let EndpointSettings { url, events, active } = endpoint.about;
        Self { id: endpoint.id, url, events, is_active: active, created_at: endpoint.created_at.iso_ms() }
    }
}

impl From<(DeliveryRow, CallId)> for Sent {
    fn from((row, call): (DeliveryRow, CallId)) -> Self {
        let again = row.redelivery.map(|pending| pending.next_at);
        Self {
            id: cuid(u128::from(row.id.unsigned_abs())),
            event: row.event,
            call_id: call.cuid(),
            status: match (row.state.as_str(), again) {
                ("waiting", _) | (_, Some(_)) => "pending",
                ("delivered", None) => "delivered",
                (_, None) => "failed",
            },
            attempts: row.attempts,
            last_status_code: row.last_status,
            next_attempt_at: row.next_at.or(again).map(Timestamp::iso_ms),
            created_at: row.created_at.iso_ms(),
        }
    }
}

/// What a body says of an endpoint.
#[derive(Debug, Default, ToSchema)]
#[schema(as = VoxForgeWebhookInput, rename_all = "camelCase")]
pub struct Input {
    /// An https address; needed to make one.
    url: Option<String>,
    /// The events it wants; needed to make one.
    events: Option<Vec<String>>,
    /// It is told, which it is unless said.
    is_active: Option<bool>,
}

impl Input {
    fn read(fields: &Fields, webhooks: &Webhooks) -> Result<Self, Fault> {
        let url = fields.text("url")?.map(|text| guard::check_url(text, webhooks));
        let url = url.transpose().map_err(|_| Fault::Bad("url must be an https URL".into()))?;
        let wrong = || Fault::Bad(format!("events must be one or more of {}", EVENTS.join(", ")));
        let events = match fields.texts("events", EVENTS.len()).map_err(|_| wrong())? {
            Some(names) if names.is_empty() || names.iter().any(|name| !EVENTS.contains(name)) => {
                return Err(wrong());
            }
            // In the order in which a call tells them, each once.
            Some(names) => {
                let known = EVENTS.iter().filter(|event| names.contains(event));
                Some(known.map(|event| (*event).to_owned()).collect())
            }
            None => None,
        };
        Ok(Self { url: url.map(String::from), events, is_active: fields.flag("isActive")? })
    }
}

/// The tenant's endpoint of that id.
async fn find(app: &App, caller: &Caller, id: String) -> Result<Endpoint, Wrong> {
    app.rooms.db.endpoint(&caller.key.tenant, &id).await?.ok_or(Wrong::NoSuch(KIND, id))
}

/// `GET /api/v1/webhooks`.
///
/// # Errors
/// A database that failed.
#[utoipa::path(
    get, path = "/api/v1/webhooks", tag = "VoxForge: webhooks", operation_id = "voxforgeListWebhooks",
    summary = "The endpoints, oldest first",
    responses((status = 200, description = "The endpoints, without their secrets", body = [Shown]))
)]
pub async fn list(State(app): State<App>, Extension(caller): Extension<Caller>) -> Answer {
    let endpoints = app.rooms.db.endpoints(&caller.key.tenant).await?;
    let endpoints: Vec<Shown> = endpoints.into_iter().map(Shown::from).collect();
    Ok(array(&endpoints, i64::try_from(endpoints.len()).unwrap_or(i64::MAX)))
}

/// `POST /api/v1/webhooks`.
///
/// # Errors
/// A bad field; [`Wrong::Limit`] for one endpoint too many.
#[utoipa::path(
    post, path = "/api/v1/webhooks", tag = "VoxForge: webhooks", operation_id = "voxforgeCreateWebhook",
    summary = "Make an endpoint",
    description = "From here on it is told of every call of the tenant, whichever surface placed it. The secret is shown \
                   once.",
    request_body = Input,
    responses(
        (status = 201, description = "It is made", body = Made),
        (status = 400, description = "A field is wrong"),
        (status = 422, description = "There are as many as there may be"),
    )
)]
pub async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let fields = Fields::read(&body)?;
    fields.required_text("url")?;
    let input = Input::read(&fields, &app.rooms.config.webhooks)?;
    let (Some(url), Some(events)) = (input.url, input.events) else {
        return Err(Wrong::bad("events is required"));
    };
    let about = EndpointSettings { url, events, active: input.is_active.unwrap_or(true) };
    match app.rooms.db.create_endpoint(&caller.key.tenant, about, by(&caller)).await? {
        MadeEndpoint::Made(endpoint, Secret(secret)) => {
            Ok(json(StatusCode::CREATED, &Made { about: (*endpoint).into(), secret }))
        }
        MadeEndpoint::Full => Err(Wrong::Limit("Webhook limit reached")),
    }
}

/// `GET /api/v1/webhooks/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/webhooks/{id}", tag = "VoxForge: webhooks", operation_id = "voxforgeShowWebhook",
    summary = "An endpoint",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The endpoint", body = Shown), (status = 404, description = "There is none"))
)]
pub async fn show(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let endpoint = find(&app, &caller, named(KIND, id)?).await?;
    Ok(json(StatusCode::OK, &Shown::from(endpoint)))
}

/// `PATCH /api/v1/webhooks/:id`: what is said changes, all else stays.
///
/// # Errors
/// A bad field; [`Wrong::NoSuch`].
#[utoipa::path(
    patch, path = "/api/v1/webhooks/{id}", tag = "VoxForge: webhooks", operation_id = "voxforgeChangeWebhook",
    summary = "Change an endpoint",
    params(("id" = String, Path, description = "Its id")),
    request_body = Input,
    responses(
        (status = 200, description = "The endpoint as it is now", body = Shown),
        (status = 400, description = "A field is wrong"),
        (status = 404, description = "There is none"),
    )
)]
pub async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
    body: Bytes,
) -> Answer {
    let id = named(KIND, id)?;
    let Input { url, events, is_active } =
        Input::read(&Fields::read_optional(&body)?, &app.rooms.config.webhooks)?;
    let change = |about: &mut EndpointSettings| {
        about.url = url.unwrap_or(std::mem::take(&mut about.url));
        about.events = events.unwrap_or(std::mem::take(&mut about.events));
        about.active = is_active.unwrap_or(about.active);
    };
    let changed = app.rooms.db.change_endpoint(&caller.key.tenant, &id, change, by(&caller)).await?;
    Ok(json(StatusCode::OK, &Shown::from(changed.ok_or(Wrong::NoSuch(KIND, id))?)))
}

/// `DELETE /api/v1/webhooks/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    delete, path = "/api/v1/webhooks/{id}", tag = "VoxForge: webhooks", operation_id = "voxforgeDeleteWebhook",
    summary = "Delete an endpoint",
    description = "What still waited to be sent there is dropped.",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It is gone", body = Deleted), (status = 404, description = "There is none"))
)]
pub async fn delete(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let id = named(KIND, id)?;
    if app.rooms.db.delete_endpoint(&caller.key.tenant, &id, by(&caller)).await? {
        Ok(deleted(id))
    } else {
        Err(Wrong::NoSuch(KIND, id))
    }
}

/// `POST /api/v1/webhooks/:id/rotate`.
///
/// # Errors
/// [`Wrong::NoSuch`].
#[utoipa::path(
    post, path = "/api/v1/webhooks/{id}/rotate", tag = "VoxForge: webhooks", operation_id = "voxforgeRotateWebhook",
    summary = "Give an endpoint a new secret",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The secret, which is not shown again", body = Rotated), (status = 404, description = "There is none"))
)]
pub async fn rotate(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let id = named(KIND, id)?;
    let rotated = app.rooms.db.rotate_endpoint(&caller.key.tenant, &id, by(&caller)).await?;
    let Secret(secret) = rotated.ok_or(Wrong::NoSuch(KIND, id))?;
    Ok(json(StatusCode::OK, &Rotated { secret }))
}

/// `GET /api/v1/webhooks/:id/deliveries`.
///
/// # Errors
/// A bad `limit` or `offset`; [`Wrong::NoSuch`].
#[utoipa::path(
    get, path = "/api/v1/webhooks/{id}/deliveries", tag = "VoxForge: webhooks",
    operation_id = "voxforgeListWebhookDeliveries",
    summary = "What was sent to an endpoint, newest first",
    params(
        ("id" = String, Path, description = "The endpoint's id"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Deliveries skipped"),
    ),
    responses(
        (status = 200, description = "The deliveries; `X-Total-Count` says how many there are", body = [Sent]),
        (status = 404, description = "There is no such endpoint"),
    )
)]
pub async fn deliveries(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Segment,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = window(&Query::read(query.as_deref()))?;
    let endpoint = find(&app, &caller, named(KIND, id)?).await?;
    let rows = app.rooms.db.endpoint_deliveries(&endpoint.id, limit, offset).await?;
    let total = app.rooms.db.endpoint_delivery_count(&endpoint.id).await?;
    let rows: Vec<Sent> = rows.into_iter().map(Sent::from).collect();
    Ok(array(&rows, total))
}

/// `POST /api/v1/webhooks/:id/deliveries/:deliveryId/redeliver`: it is sent again as soon as it can go.
///
/// # Errors
/// [`Wrong::NoSuch`]; a 400 while too many wait.
#[utoipa::path(
    post, path = "/api/v1/webhooks/{id}/deliveries/{deliveryId}/redeliver", tag = "VoxForge: webhooks",
    operation_id = "voxforgeRedeliver",
    summary = "Send a delivery again",
    params(
        ("id" = String, Path, description = "The endpoint's id"),
        ("deliveryId" = String, Path, description = "The delivery's id"),
    ),
    responses(
        (status = 200, description = "The delivery as it is now", body = Sent),
        (status = 400, description = "Too many redeliveries wait"),
        (status = 404, description = "There is none"),
    )
)]
pub async fn redeliver(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    ids: Result<Path<(String, String)>, PathRejection>,
) -> Answer {
    let Path((endpoint, delivery)) = ids.map_err(|_| Wrong::NoSuch(KIND, String::new()))?;
    let endpoint = find(&app, &caller, endpoint).await?;
    let row = cuid_bits(&delivery).and_then(|bits| i64::try_from(bits).ok());
    let missing = || Wrong::NoSuch(DELIVERY, delivery.clone());
    let row = row.ok_or_else(missing)?;
    let find = async || app.rooms.db.endpoint_delivery(&endpoint.id, row).await?.ok_or_else(missing);
    find().await?;
    match app.rooms.db.redeliver(row, &by(&caller)).await? {
        Redelivered::Full => Err(Wrong::bad("Too many redeliveries are waiting")),
        Redelivered::Unknown => Err(missing()),
        Redelivered::Queued | Redelivered::Hurried => Ok(json(StatusCode::OK, &Sent::from(find().await?))),
    }
}
