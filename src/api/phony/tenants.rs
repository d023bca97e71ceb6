//! Phony's tenants (CONTRACT 1.2, 2.1 C35): an admin makes and changes them, everybody may look at their own.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Segment, list as rows, sees_all, segment, stored, words};
use crate::api::admin::{Query, by};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::idempotency::Once;
use crate::api::openapi::{Route, route};
use crate::api::{App, json};
use crate::control::Caller;
use crate::model::forms;
use crate::store::StoreError;
use crate::store::tenants::{DEFAULT_LIMITS, NewTenant, STATUSES, Tenant};

/// The fault of a path that names no tenant.
const MISSING: &str = "Tenant not found";
/// Highest limit of a tenant.
const LIMIT_MAX: u32 = 1_000_000;

/// The documented routes of admins.
pub(super) fn routes(once: &Once) -> [Route; 3] {
    [route(__path_list, list), route(__path_create, create).once(once), route(__path_change, change)]
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyTenantLimits)]
struct Limits {
    /// Agents it may have; none: no limit.
    max_agents: Option<u32>,
    /// Live calls of all its keys together; none: no limit.
    max_concurrent_calls: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyTenant)]
struct TenantBody {
    /// Its id.
    id: String,
    /// For people.
    name: String,
    /// Its label of a host name.
    subdomain: String,
    /// `trial`, `active` or `suspended`.
    status: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// What it may have.
    limits: Limits,
    /// Where bills go.
    billing_email: Option<String>,
}

impl From<Tenant> for TenantBody {
    fn from(tenant: Tenant) -> Self {
        let Tenant { max_agents, max_concurrent_calls, .. } = tenant;
        Self {
            id: tenant.id,
            name: tenant.name,
            subdomain: tenant.subdomain,
            status: tenant.status,
            created_at: words::time(tenant.created_at),
            limits: Limits { max_agents, max_concurrent_calls },
            billing_email: Some(tenant.billing_email).filter(|email| !email.is_empty()),
        }
    }
}

/// What can be said of a tenant. To make one, `name` and `subdomain` are needed.
#[derive(Default, ToSchema)]
#[schema(as = PhonyTenantFields)]
pub struct TenantFields {
    /// For people, 1 to 100 characters.
    name: Option<String>,
    /// Unique, 1 to 63 of a-z 0-9 - as in a host name.
    subdomain: Option<String>,
    /// `trial`, `active` or `suspended`; only where one is changed.
    #[schema(value_type = Option<String>)]
    status: Option<&'static str>,
    /// Agents it may have; 50 unless said.
    max_agents: Option<u32>,
    /// Live calls of all its keys together; 200 unless said.
    max_concurrent_calls: Option<u32>,
    /// Where bills go.
    billing_email: Option<String>,
}

impl TenantFields {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let fields = Fields::read(body)?;
        let text = |name: &str, good: fn(&str) -> bool, wanted: &str| match fields.text(name)? {
            Some(text) if !good(text) => Err(Fault::Bad(format!("{name} must be {wanted}"))),
            text => Ok(text.map(str::to_owned)),
        };
        let status =
            match fields.text("status")? {
                None => None,
                Some(text) => {
                    let known = STATUSES.iter().find(|known| **known == text);
                    Some(*known.ok_or_else(|| {
                        Fault::Bad(format!("status must be one of {}", STATUSES.join(", ")))
                    })?)
                }
            };
        let email = |text: &str| text.is_empty() || forms::is_email(text);
        Ok(Self {
            name: text("name", forms::is_label, "1 to 100 characters")?,
            subdomain: text("subdomain", forms::is_subdomain, "1 to 63 of a-z 0-9 - as in a host name")?,
            status,
            max_agents: fields.integer("max_agents", 0..=LIMIT_MAX)?,
            max_concurrent_calls: fields.integer("max_concurrent_calls", 0..=LIMIT_MAX)?,
            billing_email: text("billing_email", email, "an address")?,
        })
    }
}

/// A fault for what the store refused.
fn refused(error: StoreError) -> Fault {
    match error {
        StoreError::UnknownTenant(_) => Fault::Missing(MISSING),
        StoreError::Taken(..) => Fault::Conflict("Subdomain already exists".into()),
        error @ StoreError::OwnTenant => Fault::Conflict(error.to_string()),
        error => stored(error),
    }
}

/// `GET /tenants`.
#[utoipa::path(
    get, path = "/tenants", tag = "Phony: tenants", operation_id = "phonyListTenants",
    summary = "All tenants",
    responses((status = 200, description = "The tenants", body = [TenantBody]))
)]
pub(super) async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let (limit, offset) = Query::read(query.as_deref()).window_of(1000)?;
    let (tenants, total) = app.rooms.db.tenants(limit, offset).await.map_err(stored)?;
    let bodies: Vec<TenantBody> = tenants.into_iter().map(TenantBody::from).collect();
    Ok(rows(&bodies, total))
}

/// `POST /tenants`.
#[utoipa::path(
    post, path = "/tenants", tag = "Phony: tenants", operation_id = "phonyCreateTenant",
    summary = "Make a tenant",
    request_body = TenantFields,
    responses(
        (status = 201, description = "It is made", body = TenantBody),
        (status = 400, description = "A field is wrong or missing", body = super::Refused),
        (status = 409, description = "Another has the subdomain", body = super::Refused),
    )
)]
pub(super) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let asked = TenantFields::read(&body)?;
    let required = |name: &str| Fault::Bad(format!("{name} is required"));
    let (agents, calls) = DEFAULT_LIMITS;
    let new = NewTenant {
        name: asked.name.ok_or_else(|| required("name"))?,
        subdomain: asked.subdomain.ok_or_else(|| required("subdomain"))?,
        status: "trial",
        max_agents: Some(asked.max_agents.unwrap_or(agents)),
        max_concurrent_calls: Some(asked.max_concurrent_calls.unwrap_or(calls)),
        billing_email: asked.billing_email.unwrap_or_default(),
    };
    let tenant = app.rooms.db.create_tenant(&new, by(&caller)).await.map_err(refused)?;
    Ok(json(StatusCode::CREATED, &TenantBody::from(tenant)))
}

/// `GET /tenants/{tenant}`.
#[utoipa::path(
    get, path = "/tenants/{tenant}", tag = "Phony: tenants", operation_id = "phonyShowTenant",
    summary = "One tenant",
    description = "One's own, or any for admins.",
    params(("tenant" = String, Path, description = "Its id or subdomain")),
    responses(
        (status = 200, description = "The tenant", body = TenantBody),
        (status = 404, description = "`Tenant not found`", body = super::Refused),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
) -> Answer {
    let name = segment(name, MISSING)?;
    let tenant = app.rooms.db.tenant(&name).await.map_err(stored)?;
    let seen = tenant.filter(|tenant| tenant.id == caller.key.tenant || sees_all(&caller));
    Ok(json(StatusCode::OK, &TenantBody::from(seen.ok_or(Fault::Missing(MISSING))?)))
}

/// `PATCH /tenants/{tenant}`.
#[utoipa::path(
    patch, path = "/tenants/{tenant}", tag = "Phony: tenants", operation_id = "phonyChangeTenant",
    summary = "Change a tenant",
    description = "The keys of a suspended one are refused; its live calls end by themselves.",
    params(("tenant" = String, Path, description = "Its id or subdomain")),
    request_body = TenantFields,
    responses(
        (status = 200, description = "The tenant as it is now", body = TenantBody),
        (status = 400, description = "A field is wrong", body = super::Refused),
        (status = 404, description = "`Tenant not found`", body = super::Refused),
        (status = 409, description = "Another has the subdomain, or the key would suspend its own tenant", body = super::Refused),
    )
)]
pub(super) async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
    body: Bytes,
) -> Answer {
    let asked = TenantFields::read(&body)?;
    let name = segment(name, MISSING)?;
    let change = |tenant: &mut Tenant| {
        tenant.name = asked.name.unwrap_or_else(|| tenant.name.clone());
        tenant.subdomain = asked.subdomain.unwrap_or_else(|| tenant.subdomain.clone());
        tenant.status = asked.status.map_or_else(|| tenant.status.clone(), str::to_owned);
        tenant.max_agents = asked.max_agents.or(tenant.max_agents);
        tenant.max_concurrent_calls = asked.max_concurrent_calls.or(tenant.max_concurrent_calls);
        tenant.billing_email = asked.billing_email.unwrap_or_else(|| tenant.billing_email.clone());
    };
    let tenant = app.rooms.db.change_tenant(&name, by(&caller), change).await.map_err(refused)?;
    Ok(json(StatusCode::OK, &TenantBody::from(tenant)))
}
