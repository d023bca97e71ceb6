//! `/admin/v1/keys`: API keys, from making to end (CONTRACT 0.2, 3 S28, S29). A key and its webhook secret are shown in
//! the answer that makes them and never again. What is changed holds for the next request.

mod settings;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Part, Query, Route, by, part, route, stored};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::clock;
use crate::control::Caller;
use crate::model::account::ApiKey;
use crate::model::{CallerId, Timestamp};
use crate::store::accounts::{CreatedKey, TrunkChoice};
use crate::store::keys::KeyFilter;
use settings::Changes;

/// Most that one request may add to or take from a balance.
const CREDIT_MAX: i64 = 1_000_000_000;

/// The fault of a path that names no key.
const MISSING: &str = "Key not found";

/// The routes of keys.
pub fn routes() -> Vec<Route> {
    vec![
        route(__path_list, list),
        route(__path_create, create),
        route(__path_show, show),
        route(__path_change, change),
        route(__path_remove, remove),
        route(__path_revoke, revoke),
        route(__path_rotate, rotate),
        route(__path_credit, credit),
        route(__path_assign_trunks, assign_trunks),
    ]
}

/// The trunks of a key: `"all"`, or their names in the order in which they are tried.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = AdminKeyTrunks)]
enum Trunks {
    All(&'static str),
    Names(Vec<String>),
}

impl From<TrunkChoice> for Trunks {
    fn from(choice: TrunkChoice) -> Self {
        match choice {
            TrunkChoice::All => Self::All("all"),
            TrunkChoice::None => Self::Names(Vec::new()),
            TrunkChoice::Names(names) => Self::Names(names),
        }
    }
}

/// A key, without its secrets save in the answer that makes them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminKey)]
struct KeyBody {
    /// Its number.
    id: i64,
    /// The key's public name.
    key_id: String,
    /// The key itself, in the answer that makes it and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    /// The secret that signs its webhooks, in the answer that makes it and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    webhook_secret: Option<String>,
    /// Its name.
    name: String,
    /// Who it belongs to.
    tenant: String,
    /// The first characters of the key.
    prefix: String,
    /// What has become of it.
    state: &'static str,
    /// Its plan.
    plan: String,
    /// Balance; null: unlimited.
    credits: Option<i64>,
    /// Credits that calls under way hold.
    credits_held: i64,
    /// Credits taken or held since midnight UTC.
    credits_today: i64,
    /// Requests in each window; null: the default.
    rate_limit: Option<u32>,
    /// Calls at once.
    max_concurrent: u32,
    /// `always`, `off` or `on_request`.
    recording: &'static str,
    /// Days that its recordings are kept, 0: for ever; null: as configured.
    keep_days: Option<u32>,
    /// The trunks it dials by.
    trunks: Trunks,
    /// Caller ids it may show; empty: any.
    caller_ids: Vec<String>,
    /// Networks it may be shown from; empty: any.
    ip_allow: Vec<String>,
    /// What it may do.
    scopes: Vec<String>,
    /// Surfaces it may use; empty: all.
    surfaces: Vec<String>,
    /// Country calling codes it may dial; empty: all.
    countries: Vec<String>,
    /// May dial premium-rate numbers.
    allow_premium: bool,
    /// May dial emergency numbers.
    allow_emergency: bool,
    /// Most credits on one UTC day; null: no cap.
    daily_credits: Option<u32>,
    /// Most calls in one minute; null: no cap.
    calls_per_minute: Option<u32>,
    /// Calls placed.
    total_calls: i64,
    /// Calls answered.
    successful_calls: i64,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last used.
    #[schema(format = DateTime)]
    last_used: Option<String>,
    /// When it stops working; null: never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it was ended.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

/// What has become of a key at a moment.
fn state(key: &ApiKey, at: Timestamp) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.is_some_and(|end| end <= at) {
        "expired"
    } else if key.suspended {
        "suspended"
    } else {
        "active"
    }
}

impl KeyBody {
    /// The body of a key with what the database knows besides.
    async fn of(app: &App, key: ApiKey) -> Result<Self, Fault> {
        let now = clock::now().wall;
        let db = &app.rooms.db;
        let trunks = db.trunk_names(key.id).await.map_err(stored)?.into();
        let credits_today = db.credits_of_day(key.id, now).await.map_err(stored)?;
        Ok(Self {
            id: key.id,
            key: None,
            webhook_secret: None,
            state: state(&key, now),
            key_id: key.key_id,
            name: key.name,
            tenant: key.tenant,
            prefix: key.prefix,
            plan: key.plan,
            credits: key.credits,
            credits_held: key.held,
            credits_today,
            rate_limit: key.rate_limit,
            max_concurrent: key.max_concurrent,
            recording: key.recording.as_str(),
            keep_days: key.keep_days,
            trunks,
            caller_ids: key.caller_ids.iter().map(|caller| CallerId::user(caller).to_owned()).collect(),
            ip_allow: key.ip_allow,
            scopes: key.scopes,
            surfaces: key.surfaces,
            countries: key.policy.countries,
            allow_premium: key.policy.premium,
            allow_emergency: key.policy.emergency,
            daily_credits: key.policy.daily_credits,
            calls_per_minute: key.policy.calls_per_minute,
            total_calls: key.total_calls,
            successful_calls: key.successful_calls,
            created_at: key.created_at.iso_ms(),
            last_used: key.last_used.map(Timestamp::iso_ms),
            expires_at: key.expires_at.map(Timestamp::iso_ms),
            revoked_at: key.revoked_at.map(Timestamp::iso_ms),
        })
    }

    /// With the secrets, the one time that they are shown.
    async fn with_secrets(app: &App, made: CreatedKey) -> Result<Self, Fault> {
        let webhook_secret = made.key.webhook_secret.0.clone();
        let shown = Self::of(app, made.key).await?;
        Ok(Self { key: Some(made.secret), webhook_secret: Some(webhook_secret), ..shown })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = AdminKeys)]
struct Keys {
    /// The rows of the page.
    keys: Vec<KeyBody>,
    /// Rows of all pages.
    total: i64,
}

/// `GET /keys?tenant=&state=active|revoked&limit=&offset=`, oldest first.
#[utoipa::path(
    get, path = "/keys", tag = "Admin: keys", operation_id = "adminListKeys",
    summary = "The keys, oldest first",
    params(
        ("tenant" = Option<String>, Query, description = "Only this tenant's"),
        ("state" = Option<String>, Query, description = "`active` or `revoked`"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Rows skipped"),
    ),
    responses(
        (status = 200, description = "The page", body = Keys),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let revoked = match query.text("state") {
        None => None,
        Some("active") => Some(false),
        Some("revoked") => Some(true),
        Some(_) => return Err(Fault::Bad("state must be active or revoked".into())),
    };
    let filter = KeyFilter { tenant: query.text("tenant").map(str::to_owned), revoked };
    let (found, total) = app.rooms.db.keys_page(&filter, limit, offset).await.map_err(stored)?;
    let mut keys = Vec::with_capacity(found.len());
    for key in found {
        keys.push(KeyBody::of(&app, key).await?);
    }
    Ok(json(StatusCode::OK, &Keys { keys, total }))
}

/// `POST /keys`: what `trunkline keys create` does, with its defaults.
#[utoipa::path(
    post, path = "/keys", tag = "Admin: keys", operation_id = "adminCreateKey",
    summary = "Make a key",
    description = "The key and its webhook secret are shown in this answer and never again. `name` is required.",
    request_body = Changes,
    responses(
        (status = 201, description = "The key, with its secrets", body = KeyBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Tenant not found`"),
    )
)]
async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let new = Changes::read(&Fields::read(&body)?, clock::now().wall)?.into_new()?;
    let made = app.rooms.db.create_key(new, by(&caller)).await.map_err(stored)?;
    Ok(json(StatusCode::CREATED, &KeyBody::with_secrets(&app, made).await?))
}

async fn found(app: &App, key: Part) -> Result<ApiKey, Fault> {
    let key_id = part(key, MISSING)?;
    app.rooms.db.key_of_id(&key_id).await.map_err(stored)?.ok_or(Fault::Missing(MISSING))
}

/// A key as it is now.
async fn shown(app: &App, key_id: &str) -> Answer {
    let key = app.rooms.db.key_of_id(key_id).await.map_err(stored)?.ok_or(Fault::Missing(MISSING))?;
    Ok(json(StatusCode::OK, &KeyBody::of(app, key).await?))
}

/// `GET /keys/:key`, by its `key_…` id.
#[utoipa::path(
    get, path = "/keys/{key}", tag = "Admin: keys", operation_id = "adminShowKey",
    summary = "One key",
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The key", body = KeyBody),
        (status = 404, description = "`Key not found`"),
    )
)]
async fn show(State(app): State<App>, key: Part) -> Answer {
    let key = found(&app, key).await?;
    Ok(json(StatusCode::OK, &KeyBody::of(&app, key).await?))
}

/// `PATCH /keys/:key`: what the body names is changed, the rest stays.
#[utoipa::path(
    patch, path = "/keys/{key}", tag = "Admin: keys", operation_id = "adminChangeKey",
    summary = "Change a key",
    description = "What the body names is changed, the rest stays; `null` takes a setting back to its default.",
    request_body = Changes,
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The key as it is now", body = KeyBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Key not found`"),
        (status = 409, description = "The change contradicts what there is"),
    )
)]
async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    key: Part,
    body: Bytes,
) -> Answer {
    let key_id = part(key, MISSING)?;
    let asked = Changes::read(&Fields::read(&body)?, clock::now().wall)?;
    if asked.tenant.is_some() {
        return Err(Fault::Bad("tenant cannot be changed".into()));
    }
    let trunks = asked.trunks.clone();
    let changed = app.rooms.db.change_key(&key_id, by(&caller), |key| asked.onto(key), trunks.as_ref());
    let key = changed.await.map_err(stored)?;
    Ok(json(StatusCode::OK, &KeyBody::of(&app, key).await?))
}

/// `DELETE /keys/:key`: as [`revoke`].
#[utoipa::path(
    delete, path = "/keys/{key}", tag = "Admin: keys", operation_id = "adminRemoveKey",
    summary = "End a key",
    description = "The same as revoking it.",
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The key as it is now", body = KeyBody),
        (status = 404, description = "`Key not found`"),
    )
)]
async fn remove(app: State<App>, caller: Extension<Caller>, key: Part) -> Answer {
    revoke(app, caller, key).await
}

/// `POST /keys/:key/revoke`: ends a key now; calls under way go on. Again: no change.
#[utoipa::path(
    post, path = "/keys/{key}/revoke", tag = "Admin: keys", operation_id = "adminRevokeKey",
    summary = "End a key",
    description = "At once; calls under way go on.",
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The key as it is now", body = KeyBody),
        (status = 404, description = "`Key not found`"),
    )
)]
async fn revoke(State(app): State<App>, Extension(caller): Extension<Caller>, key: Part) -> Answer {
    let key_id = part(key, MISSING)?;
    app.rooms.db.revoke_key(&key_id, by(&caller)).await.map_err(stored)?;
    shown(&app, &key_id).await
}

/// `POST /keys/:key/rotate`: a new key and webhook secret; the old ones work for 24 h more.
#[utoipa::path(
    post, path = "/keys/{key}/rotate", tag = "Admin: keys", operation_id = "adminRotateKey",
    summary = "Give a key a new secret",
    description = "The old key and the old webhook secret go on working beside the new ones for 24 hours.",
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The key, with its new secrets", body = KeyBody),
        (status = 404, description = "`Key not found`"),
        (status = 409, description = "The key is revoked"),
    )
)]
async fn rotate(State(app): State<App>, Extension(caller): Extension<Caller>, key: Part) -> Answer {
    let key = found(&app, key).await?;
    if key.revoked_at.is_some() {
        return Err(Fault::Conflict("The key is revoked".into()));
    }
    let made = app.rooms.db.rotate_key(&key.key_id, by(&caller)).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &KeyBody::with_secrets(&app, made).await?))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminKeyCredited)]
struct Credited {
    /// The key's public name.
    key_id: String,
    /// Balance; null: unlimited.
    credits: i64,
}

/// What a credit asks for.
#[derive(ToSchema)]
#[schema(as = AdminCreditAsked)]
struct CreditAsked {
    /// What is added to the balance, or taken from it.
    #[schema(minimum = -1000000000, maximum = 1000000000, examples(10))]
    delta: i64,
}

impl CreditAsked {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let delta = Fields::read(body)?.signed("delta", -CREDIT_MAX..=CREDIT_MAX)?;
        Ok(Self { delta: delta.ok_or_else(|| Fault::Bad("delta is required".into()))? })
    }
}

/// `POST /keys/:key/credit` `{"delta": ±N}`.
#[utoipa::path(
    post, path = "/keys/{key}/credit", tag = "Admin: keys", operation_id = "adminCreditKey",
    summary = "Add to a balance, or take from it",
    request_body = CreditAsked,
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The new balance", body = Credited),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Key not found`"),
        (status = 409, description = "The key is unlimited, or the balance would fall below what its calls hold"),
    )
)]
async fn credit(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    key: Part,
    body: Bytes,
) -> Answer {
    let key_id = part(key, MISSING)?;
    let CreditAsked { delta } = CreditAsked::read(&body)?;
    let credits = app.rooms.db.add_credit(&key_id, delta, by(&caller)).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &Credited { key_id, credits }))
}

/// Which trunks a key shall have.
#[derive(ToSchema)]
#[schema(as = AdminKeyTrunksAsked)]
struct TrunksAsked {
    /// `"all"`, or their names in the order in which they are tried; `null`: none.
    #[schema(value_type = Trunks)]
    trunks: TrunkChoice,
}

impl TrunksAsked {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let trunks = settings::trunks(&Fields::read(body)?)?;
        Ok(Self { trunks: trunks.ok_or_else(|| Fault::Bad("trunks is required".into()))? })
    }
}

/// `PUT /keys/:key/trunks` `{"trunks": "all" | [name, …]}`: which trunks it dials by, in this order.
#[utoipa::path(
    put, path = "/keys/{key}/trunks", tag = "Admin: keys", operation_id = "adminKeyTrunks",
    summary = "Say by which trunks a key dials",
    request_body = TrunksAsked,
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The key as it is now", body = KeyBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Key not found`"),
    )
)]
async fn assign_trunks(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    key: Part,
    body: Bytes,
) -> Result<Response, Fault> {
    let key_id = part(key, MISSING)?;
    let TrunksAsked { trunks } = TrunksAsked::read(&body)?;
    let changed = app.rooms.db.change_key(&key_id, by(&caller), |_| {}, Some(&trunks)).await;
    changed.map_err(stored)?;
    shown(&app, &key_id).await
}
