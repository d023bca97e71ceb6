//! VoxForge's API keys (CONTRACT 1.3). A key makes keys of its own kind: of its tenant, with its trunks, scopes and
//! bounds, and at most its plan; so nobody gains by making one. It revokes those that it could have made.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Deleted, Segment, Wrong, array, deleted, named, window};
use crate::api::admin::{Query, by};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::control::{Caller, Refusal};
use crate::model::account::ApiKey;
use crate::model::cidr::Cidr;
use crate::model::forms;
use crate::store::accounts::{NewKey, PLANS};
use crate::store::keys::KeyFilter;

/// What a 404 calls it.
const KIND: &str = "API key";

/// What stands before the digits of a key's id in the database.
const PREFIX: &str = "key_";

/// What stands before them here.
const OWN_PREFIX: &str = "c00000000000000";

/// Most networks of one key.
const NETWORKS_MAX: usize = 100;

/// A key, without the key itself.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgeApiKey)]
struct Shown {
    /// Its id.
    id: String,
    /// For people.
    name: String,
    /// The first characters of the key.
    prefix: String,
    /// `starter`, `professional`, `business` or `enterprise`.
    plan: String,
    /// Networks it may come from; empty: any.
    ip_allow: Vec<String>,
    /// Made.
    #[schema(format = DateTime)]
    created_at: String,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
#[schema(as = VoxForgeNewApiKey)]
struct Made {
    #[serde(flatten)]
    about: Shown,
    /// The key; it is not shown again.
    key: String,
}

impl From<ApiKey> for Shown {
    fn from(key: ApiKey) -> Self {
        Self {
            id: public_id(&key.key_id),
            name: key.name,
            prefix: key.prefix,
            plan: key.plan,
            ip_allow: key.ip_allow,
            created_at: key.created_at.iso_ms(),
        }
    }
}

/// VoxForge's form of a key's id.
fn public_id(key_id: &str) -> String {
    format!("{OWN_PREFIX}{}", key_id.strip_prefix(PREFIX).unwrap_or(key_id))
}

/// What a body says of a key.
#[derive(Debug, ToSchema)]
#[schema(as = VoxForgeApiKeyInput, rename_all = "camelCase")]
pub struct Input {
    /// For people.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// At most the plan of the key that asks; the same unless said.
    plan: Option<String>,
    /// Networks it may come from, within those of the key that asks; the same unless said.
    ip_allow: Option<Vec<String>>,
}

impl Input {
    fn read(fields: &Fields) -> Result<Self, Fault> {
        let name = fields.required_text("name")?;
        if !forms::is_label(name) {
            return Err(Fault::Bad("name must be 1 to 100 characters".into()));
        }
        let plan = fields.text("plan")?;
        if plan.is_some_and(|plan| !PLANS.contains(&plan)) {
            return Err(Fault::Bad(format!("plan must be one of {}", PLANS.join(", "))));
        }
        let networks = fields.texts("ipAllow", NETWORKS_MAX)?;
        if networks.iter().flatten().any(|text| text.parse::<Cidr>().is_err()) {
            return Err(Fault::Bad("ipAllow must hold networks such as 10.0.0.0/8".into()));
        }
        let networks = networks.map(|texts| texts.into_iter().map(str::to_owned).collect());
        Ok(Self { name: name.to_owned(), plan: plan.map(str::to_owned), ip_allow: networks })
    }
}

/// Live keys of one tenant; more are made by an admin.
const KEYS_MAX: i64 = 100;

/// Credits of a key that this one makes: none where its own are bounded, as a whole or by the day, or many keys would
/// spend together what one may not.
fn credits_of_child(own: &ApiKey) -> Option<i64> {
    (own.credits.is_some() || own.policy.daily_credits.is_some()).then_some(0)
}

/// How much a plan is; one that nobody knows is the least.
fn rank(plan: &str) -> usize {
    PLANS.iter().position(|known| *known == plan).unwrap_or(0)
}

/// Whether every one of these networks lies in one of those.
fn within(networks: &[String], own: &[String]) -> bool {
    let read =
        |texts: &[String]| texts.iter().filter_map(|text| text.parse::<Cidr>().ok()).collect::<Vec<_>>();
    let own = read(own);
    let inside = |inner: &Cidr| {
        own.iter().any(|outer| outer.prefix() <= inner.prefix() && outer.contains(inner.base()))
    };
    !networks.is_empty() && read(networks).iter().all(inside)
}

/// `GET /api/v1/api-keys`.
///
/// # Errors
/// A bad `limit` or `offset`.
#[utoipa::path(
    get, path = "/api/v1/api-keys", tag = "VoxForge: API keys", operation_id = "voxforgeListApiKeys",
    summary = "The keys, oldest first",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Keys skipped"),
    ),
    responses((status = 200, description = "The keys; `X-Total-Count` says how many there are", body = [Shown]))
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = window(&Query::read(query.as_deref()))?;
    let filter = KeyFilter { tenant: Some(caller.key.tenant), revoked: Some(false) };
    let (keys, total) = app.rooms.db.keys_page(&filter, limit, offset).await?;
    let keys: Vec<Shown> = keys.into_iter().map(Shown::from).collect();
    Ok(array(&keys, total))
}

/// `POST /api/v1/api-keys`.
///
/// # Errors
/// A bad field; [`Refusal::Forbidden`] for more than the key that asks may do.
#[utoipa::path(
    post, path = "/api/v1/api-keys", tag = "VoxForge: API keys", operation_id = "voxforgeCreateApiKey",
    summary = "Make a key",
    description = "The key is shown once. It may do what the key that asks may do, at most on its plan; it has unlimited \
                   credits only where that one has, with no limit of the day either, and none otherwise.",
    request_body = Input,
    responses(
        (status = 201, description = "It is made", body = Made),
        (status = 400, description = "A field is wrong"),
        (status = 422, description = "The tenant has as many keys as it may have"),
    )
)]
pub async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let Input { name, plan, ip_allow } = Input::read(&Fields::read(&body)?)?;
    let own = &caller.key;
    let plan = plan.unwrap_or_else(|| own.plan.clone());
    let ip_allow = ip_allow.unwrap_or_else(|| own.ip_allow.clone());
    if rank(&plan) > rank(&own.plan) || !(own.ip_allow.is_empty() || within(&ip_allow, &own.ip_allow)) {
        return Err(Refusal::Forbidden.into());
    }
    let living = KeyFilter { tenant: Some(own.tenant.clone()), revoked: Some(false) };
    if app.rooms.db.keys_page(&living, 1, 0).await?.1 >= KEYS_MAX {
        return Err(Wrong::Limit("A tenant has at most 100 API keys"));
    }
    let new = NewKey {
        name,
        tenant: own.tenant.clone(),
        credits: credits_of_child(own),
        rate_limit: own.rate_limit,
        trunks: app.rooms.db.trunk_names(own.id).await?,
        max_concurrent: own.max_concurrent,
        recording: own.recording,
        caller_ids: own.caller_ids.clone(),
        ip_allow,
        scopes: own.scopes.clone(),
        surfaces: own.surfaces.clone(),
        policy: own.policy.clone(),
        expires_at: own.expires_at,
        keep_days: own.keep_days,
        plan,
    };
    let made = app.rooms.db.create_key(new, by(&caller)).await?;
    Ok(json(StatusCode::CREATED, &Made { about: made.key.into(), key: made.secret }))
}

/// `DELETE /api/v1/api-keys/:id`.
///
/// # Errors
/// [`Wrong::NoSuch`]; [`Refusal::Forbidden`] for a key that may do more than the one that asks.
#[utoipa::path(
    delete, path = "/api/v1/api-keys/{id}", tag = "VoxForge: API keys", operation_id = "voxforgeRevokeApiKey",
    summary = "Revoke a key",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "It is revoked", body = Deleted), (status = 404, description = "There is none"))
)]
pub async fn revoke(State(app): State<App>, Extension(caller): Extension<Caller>, id: Segment) -> Answer {
    let id = named(KIND, id)?;
    let key_id = id.strip_prefix(OWN_PREFIX).map(|digits| format!("{PREFIX}{digits}"));
    let found = match &key_id {
        Some(key_id) => app.rooms.db.key_of_id(key_id).await?,
        None => None,
    };
    let own = &caller.key;
    let Some(key) = found.filter(|key| key.tenant == own.tenant && key.revoked_at.is_none()) else {
        return Err(Wrong::NoSuch(KIND, id));
    };
    if key.scopes.iter().any(|scope| !own.scopes.contains(scope)) || rank(&key.plan) > rank(&own.plan) {
        return Err(Refusal::Forbidden.into());
    }
    app.rooms.db.revoke_key(&key.key_id, by(&caller)).await?;
    Ok(deleted(id))
}
