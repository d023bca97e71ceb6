//! `/admin/v1/tenants`: who keys and numbers belong to. A suspended tenant's keys are refused with 403; what they have
//! placed ends normally (CONTRACT 3 S48). Tenants are never removed: calls and their money belong to them.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Part, Query, Route, by, part, route, stored};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::idempotency::Once;
use crate::api::{App, json};
use crate::control::Caller;
use crate::model::forms;
use crate::store::tenants::{DEFAULT_LIMITS, NewTenant, STATUSES, Tenant};

/// Highest limit of a tenant.
const LIMIT_MAX: u32 = 1_000_000;

/// The fault of a path that names no tenant.
const MISSING: &str = "Tenant not found";

/// The routes of tenants.
pub fn routes(once: &Once) -> Vec<Route> {
    vec![
        route(__path_list, list),
        route(__path_create, create).once(once),
        route(__path_show, show),
        route(__path_change, change),
    ]
}

/// A tenant.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminTenant)]
struct TenantBody {
    /// Its number.
    id: String,
    /// Its name.
    name: String,
    /// Its short name.
    subdomain: String,
    /// `trial`, `active` or `suspended`.
    status: String,
    /// Most agents; null: no limit.
    max_agents: Option<u32>,
    /// Most calls at once; null: no limit.
    max_concurrent_calls: Option<u32>,
    /// Where bills go.
    billing_email: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Tenant> for TenantBody {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name,
            subdomain: tenant.subdomain,
            status: tenant.status,
            max_agents: tenant.max_agents,
            max_concurrent_calls: tenant.max_concurrent_calls,
            billing_email: tenant.billing_email,
            created_at: tenant.created_at.iso_ms(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = AdminTenants)]
struct Tenants {
    /// The rows of the page.
    tenants: Vec<TenantBody>,
    /// Rows of all pages.
    total: i64,
}

/// What a body says of a tenant; `None` where it says nothing.
#[derive(Default, ToSchema)]
#[schema(as = AdminTenantAsked, rename_all = "camelCase")]
struct Changes {
    /// Its name; required when it is made.
    #[schema(min_length = 1, max_length = 100, examples("Acme"))]
    name: Option<String>,
    /// Its short name, as in a host name; required when it is made.
    #[schema(min_length = 1, max_length = 63, examples("acme"))]
    subdomain: Option<String>,
    /// `trial`, `active` or `suspended`.
    status: Option<&'static str>,
    /// Most agents; `null`: no limit.
    #[schema(value_type = Option<u32>)]
    max_agents: Option<Option<u32>>,
    /// Most calls at once; `null`: no limit.
    #[schema(value_type = Option<u32>)]
    max_concurrent_calls: Option<Option<u32>>,
    /// Where bills go.
    billing_email: Option<String>,
}

impl Changes {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let fields = Fields::read(body)?;
        let text = |name: &str, good: fn(&str) -> bool, wanted: &str| match fields.text(name)? {
            None => Ok(None),
            Some(text) if good(text) => Ok(Some(text.to_owned())),
            Some(_) => Err(Fault::Bad(format!("{name} must be {wanted}"))),
        };
        let limit = |name: &str| match fields.integer(name, 0..=LIMIT_MAX)? {
            None => Ok::<_, Fault>(fields.has(name).then_some(None)),
            number => Ok(Some(number)),
        };
        let status = match fields.text("status")? {
            None => None,
            Some(text) => Some(
                *STATUSES
                    .iter()
                    .find(|known| **known == text)
                    .ok_or_else(|| Fault::Bad("status must be trial, active or suspended".into()))?,
            ),
        };
        let email = |text: &str| text.is_empty() || forms::is_email(text);
        Ok(Self {
            name: text("name", forms::is_label, "1 to 100 characters")?,
            subdomain: text("subdomain", forms::is_subdomain, "1 to 63 of a-z 0-9 - as in a host name")?,
            status,
            max_agents: limit("maxAgents")?,
            max_concurrent_calls: limit("maxConcurrentCalls")?,
            billing_email: text("billingEmail", email, "an address")?,
        })
    }

    fn onto(self, tenant: &mut Tenant) {
        tenant.name = self.name.unwrap_or_else(|| tenant.name.clone());
        tenant.subdomain = self.subdomain.unwrap_or_else(|| tenant.subdomain.clone());
        tenant.status = self.status.map_or_else(|| tenant.status.clone(), str::to_owned);
        tenant.max_agents = self.max_agents.unwrap_or(tenant.max_agents);
        tenant.max_concurrent_calls = self.max_concurrent_calls.unwrap_or(tenant.max_concurrent_calls);
        tenant.billing_email = self.billing_email.unwrap_or_else(|| tenant.billing_email.clone());
    }
}

/// `GET /tenants?limit=&offset=`, oldest first.
#[utoipa::path(
    get, path = "/tenants", tag = "Admin: tenants", operation_id = "adminListTenants",
    summary = "The tenants, oldest first",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Rows skipped"),
    ),
    responses(
        (status = 200, description = "The page", body = Tenants),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let (limit, offset) = Query::read(query.as_deref()).window()?;
    let (tenants, total) = app.rooms.db.tenants(limit, offset).await.map_err(stored)?;
    let tenants = tenants.into_iter().map(TenantBody::from).collect();
    Ok(json(StatusCode::OK, &Tenants { tenants, total }))
}

/// `POST /tenants`.
#[utoipa::path(
    post, path = "/tenants", tag = "Admin: tenants", operation_id = "adminCreateTenant",
    summary = "Make a tenant",
    request_body = Changes,
    responses(
        (status = 201, description = "The tenant", body = TenantBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 409, description = "The subdomain is taken"),
    )
)]
async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = Changes::read(&body)?;
    let required = |name: &str| Fault::Bad(format!("{name} is required"));
    let (agents, calls) = DEFAULT_LIMITS;
    let new = NewTenant {
        name: asked.name.ok_or_else(|| required("name"))?,
        subdomain: asked.subdomain.ok_or_else(|| required("subdomain"))?,
        status: asked.status.unwrap_or("active"),
        max_agents: asked.max_agents.unwrap_or(Some(agents)),
        max_concurrent_calls: asked.max_concurrent_calls.unwrap_or(Some(calls)),
        billing_email: asked.billing_email.unwrap_or_default(),
    };
    let tenant = app.rooms.db.create_tenant(&new, by(&caller)).await.map_err(stored)?;
    Ok(json(StatusCode::CREATED, &TenantBody::from(tenant)))
}

/// `GET /tenants/:tenant`, by id or subdomain.
#[utoipa::path(
    get, path = "/tenants/{tenant}", tag = "Admin: tenants", operation_id = "adminShowTenant",
    summary = "One tenant",
    params(
        ("tenant" = String, Path, description = "Its id or subdomain"),
    ),
    responses(
        (status = 200, description = "The tenant", body = TenantBody),
        (status = 404, description = "`Tenant not found`"),
    )
)]
async fn show(State(app): State<App>, tenant: Part) -> Answer {
    let name = part(tenant, MISSING)?;
    let tenant = app.rooms.db.tenant(&name).await.map_err(stored)?.ok_or(Fault::Missing(MISSING))?;
    Ok(json(StatusCode::OK, &TenantBody::from(tenant)))
}

/// `PATCH /tenants/:tenant`. A key cannot suspend its own tenant: nobody could undo it over HTTP.
#[utoipa::path(
    patch, path = "/tenants/{tenant}", tag = "Admin: tenants", operation_id = "adminChangeTenant",
    summary = "Change a tenant",
    description = "A suspended tenant's keys are refused; what they have placed ends normally.",
    request_body = Changes,
    params(
        ("tenant" = String, Path, description = "Its id or subdomain"),
    ),
    responses(
        (status = 200, description = "The tenant as it is now", body = TenantBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Tenant not found`"),
        (status = 409, description = "The subdomain is taken, or the key would suspend its own tenant"),
    )
)]
async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    tenant: Part,
    body: Bytes,
) -> Answer {
    let name = part(tenant, MISSING)?;
    let asked = Changes::read(&body)?;
    let db = &app.rooms.db;
    let tenant = db.change_tenant(&name, by(&caller), |tenant| asked.onto(tenant)).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &TenantBody::from(tenant)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::documented_as_read;

    #[test]
    fn bodies_are_documented_as_they_are_read() {
        documented_as_read::<Changes, _>("{}", Changes::read);
    }
}
