//! `/admin/v1/keys`: API keys, from making to end (CONTRACT 0.2, 3 S28, S29). A key and its webhook secret are shown in
//! the answer that makes them and never again. What is changed holds for the next request.

mod settings;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post, put};
use serde::Serialize;

use super::{Answer, Part, Query, Route, by, part, stored};
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
        ("/keys", get(list).post(create)),
        ("/keys/{key}", get(show).patch(change).delete(revoke)),
        ("/keys/{key}/revoke", post(revoke)),
        ("/keys/{key}/rotate", post(rotate)),
        ("/keys/{key}/credit", post(credit)),
        ("/keys/{key}/trunks", put(assign_trunks)),
    ]
}

/// The trunks of a key: `"all"`, or their names in the order in which they are tried.
#[derive(Serialize)]
#[serde(untagged)]
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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyBody {
    id: i64,
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
    name: String,
    tenant: String,
    prefix: String,
    state: &'static str,
    plan: String,
    credits: Option<i64>,
    credits_held: i64,
    credits_today: i64,
    rate_limit: Option<u32>,
    max_concurrent: u32,
    recording: &'static str,
    trunks: Trunks,
    caller_ids: Vec<String>,
    ip_allow: Vec<String>,
    scopes: Vec<String>,
    surfaces: Vec<String>,
    countries: Vec<String>,
    allow_premium: bool,
    allow_emergency: bool,
    daily_credits: Option<u32>,
    calls_per_minute: Option<u32>,
    total_calls: i64,
    successful_calls: i64,
    created_at: String,
    last_used: Option<String>,
    expires_at: Option<String>,
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

#[derive(Serialize)]
struct Keys {
    keys: Vec<KeyBody>,
    total: i64,
}

/// `GET /keys?tenant=&state=active|revoked&limit=&offset=`, oldest first.
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
async fn show(State(app): State<App>, key: Part) -> Answer {
    let key = found(&app, key).await?;
    Ok(json(StatusCode::OK, &KeyBody::of(&app, key).await?))
}

/// `PATCH /keys/:key`: what the body names is changed, the rest stays.
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

/// `DELETE /keys/:key` and `POST /keys/:key/revoke`: ends a key now; calls under way go on. Again: no change.
async fn revoke(State(app): State<App>, Extension(caller): Extension<Caller>, key: Part) -> Answer {
    let key_id = part(key, MISSING)?;
    app.rooms.db.revoke_key(&key_id, by(&caller)).await.map_err(stored)?;
    shown(&app, &key_id).await
}

/// `POST /keys/:key/rotate`: a new key and webhook secret; the old ones work for 24 h more.
async fn rotate(State(app): State<App>, Extension(caller): Extension<Caller>, key: Part) -> Answer {
    let key = found(&app, key).await?;
    if key.revoked_at.is_some() {
        return Err(Fault::Conflict("The key is revoked".into()));
    }
    let made = app.rooms.db.rotate_key(&key.key_id, by(&caller)).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &KeyBody::with_secrets(&app, made).await?))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Credited {
    key_id: String,
    credits: i64,
}

/// `POST /keys/:key/credit` `{"delta": ±N}`.
async fn credit(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    key: Part,
    body: Bytes,
) -> Answer {
    let key_id = part(key, MISSING)?;
    let delta = Fields::read(&body)?.signed("delta", -CREDIT_MAX..=CREDIT_MAX)?;
    let delta = delta.ok_or_else(|| Fault::Bad("delta is required".into()))?;
    let credits = app.rooms.db.add_credit(&key_id, delta, by(&caller)).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &Credited { key_id, credits }))
}

/// `PUT /keys/:key/trunks` `{"trunks": "all" | [name, …]}`: which trunks it dials by, in this order.
async fn assign_trunks(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    key: Part,
    body: Bytes,
) -> Result<Response, Fault> {
    let key_id = part(key, MISSING)?;
    let trunks = settings::trunks(&Fields::read(&body)?)?;
    let trunks = trunks.ok_or_else(|| Fault::Bad("trunks is required".into()))?;
    let changed = app.rooms.db.change_key(&key_id, by(&caller), |_| {}, Some(&trunks)).await;
    changed.map_err(stored)?;
    shown(&app, &key_id).await
}
