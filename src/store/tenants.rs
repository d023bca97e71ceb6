//! Tenants: who keys and numbers belong to, and what all keys of one may do together (CONTRACT 1.2 tenants, 3 S48).

use serde_json::{Map, Value, json};

use super::audit::By;
use super::keys::difference;
use super::sql::{Row, column, sql};
use super::{Db, StoreError, Tx, ids};
use crate::model::Timestamp;

/// The status of a tenant whose keys may do nothing.
pub const SUSPENDED: &str = "suspended";

/// Every status of a tenant.
pub const STATUSES: &[&str] = &["trial", "active", SUSPENDED];

/// Agents and live calls of a tenant made over HTTP where the request names none (CONTRACT 0.8).
pub const DEFAULT_LIMITS: (u32, u32) = (50, 200);

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// `tenant_…`, or the name that the command line made it by.
    pub id: String,
    /// For people.
    pub name: String,
    /// Unique; a host name label for those made over HTTP.
    pub subdomain: String,
    /// A word of [`STATUSES`].
    pub status: String,
    /// Agents it may have; `None`: no limit.
    pub max_agents: Option<u32>,
    /// Live calls of all its keys together; `None`: no limit.
    pub max_concurrent_calls: Option<u32>,
    /// Empty: none.
    pub billing_email: String,
    /// Made.
    pub created_at: Timestamp,
}

impl Tenant {
    fn settings(&self) -> Map<String, Value> {
        let pairs = [
            ("name", json!(self.name)),
            ("subdomain", json!(self.subdomain)),
            ("status", json!(self.status)),
            ("maxAgents", json!(self.max_agents)),
            ("maxConcurrentCalls", json!(self.max_concurrent_calls)),
            ("billingEmail", json!(self.billing_email)),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A tenant to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTenant {
    /// For people.
    pub name: String,
    /// `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`.
    pub subdomain: String,
    /// A word of [`STATUSES`].
    pub status: &'static str,
    /// `None`: no limit.
    pub max_agents: Option<u32>,
    /// `None`: no limit.
    pub max_concurrent_calls: Option<u32>,
    /// Empty: none.
    pub billing_email: String,
}

impl Db {
    /// Makes a tenant.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where another tenant has its subdomain for subdomain or id.
    pub async fn create_tenant(&self, new: &NewTenant, by: impl Into<By>) -> Result<Tenant, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        if tx.find_tenant(&new.subdomain).await?.is_some() {
            return Err(StoreError::Taken("subdomain", new.subdomain.clone()));
        }
        let tenant = Tenant {
            id: ids::hex_name("tenant_", 8)?,
            name: new.name.clone(),
            subdomain: new.subdomain.clone(),
            status: new.status.to_owned(),
            max_agents: new.max_agents,
            max_concurrent_calls: new.max_concurrent_calls,
            billing_email: new.billing_email.clone(),
            created_at: by.at,
        };
        if !tx.insert_tenant(&tenant, &by).await? {
            return Err(StoreError::Taken("subdomain", tenant.subdomain));
        }
        tx.commit().await?;
        Ok(tenant)
    }

    /// The tenant with this id or subdomain.
    pub async fn tenant(&self, name: &str) -> Result<Option<Tenant>, StoreError> {
        let row =
            self.optional(sql("SELECT * FROM tenants WHERE id = $1 OR subdomain = $1").bind(name)).await?;
        row.as_ref().map(read_tenant).transpose()
    }

    /// A page of tenants, oldest first, and how many there are in all.
    pub async fn tenants(&self, limit: u32, offset: u32) -> Result<(Vec<Tenant>, i64), StoreError> {
        let page = sql("SELECT * FROM tenants ORDER BY created_at, id LIMIT $1 OFFSET $2");
        let rows = self.all(page.bind(i64::from(limit)).bind(i64::from(offset))).await?;
        let total = self.one(sql("SELECT COUNT(*) FROM tenants")).await?.first()?;
        Ok((rows.iter().map(read_tenant).collect::<Result<_, _>>()?, total))
    }

    /// Changes a tenant's settings: `change` is given the tenant as it is and sets fields of it; what it does to the
    /// id and the moment of making is not stored.
    ///
    /// # Errors
    /// [`StoreError::UnknownTenant`]; [`StoreError::Taken`] for a subdomain of another; [`StoreError::OwnTenant`] where a
    /// key suspends its own.
    pub async fn change_tenant(
        &self,
        name: &str,
        by: impl Into<By>,
        change: impl FnOnce(&mut Tenant),
    ) -> Result<Tenant, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        let lock = sql("UPDATE tenants SET name = name WHERE id = $1 OR subdomain = $1").bind(name);
        tx.run(lock).await?;
        let found = tx.find_tenant(name).await?;
        let before = found.ok_or_else(|| StoreError::UnknownTenant(name.to_owned()))?;
        let mut after = before.clone();
        change(&mut after);
        after.id.clone_from(&before.id);
        after.created_at = before.created_at;
        let told = difference(&before.settings(), &after.settings());
        if told.contains_key("subdomain") && tx.find_tenant(&after.subdomain).await?.is_some() {
            return Err(StoreError::Taken("subdomain", after.subdomain));
        }
        if told.is_empty() {
            return Ok(before);
        }
        if told.contains_key("status") && after.status == SUSPENDED {
            let own = sql("SELECT id FROM api_keys WHERE key_id = $1 AND tenant = $2");
            if tx.optional(own.bind(&by.actor).bind(&after.id)).await?.is_some() {
                return Err(StoreError::OwnTenant);
            }
        }
        let update = sql("UPDATE tenants SET name = $2, subdomain = $3, status = $4, max_agents = $5, \
             max_concurrent_calls = $6, billing_email = $7 WHERE id = $1");
        let update = update.bind(&after.id).bind(&after.name).bind(&after.subdomain).bind(&after.status);
        let update =
            update.bind(after.max_agents).bind(after.max_concurrent_calls).bind(&after.billing_email);
        tx.run(update).await?;
        tx.audit(&by, "tenant.update", &after.id, &told.into()).await?;
        tx.commit().await?;
        Ok(after)
    }
}

impl Tx {
    /// The id of the tenant with this id or subdomain, made where it is missing.
    pub(super) async fn tenant(&mut self, name: &str, by: &By) -> Result<String, StoreError> {
        if let Some(tenant) = self.find_tenant(name).await? {
            return Ok(tenant.id);
        }
        let tenant = Tenant {
            id: name.to_owned(),
            name: name.to_owned(),
            subdomain: name.to_owned(),
            status: "active".to_owned(),
            max_agents: None,
            max_concurrent_calls: None,
            billing_email: String::new(),
            created_at: by.at,
        };
        if self.insert_tenant(&tenant, by).await? {
            return Ok(tenant.id);
        }
        // Somebody was quicker, and has committed by now.
        let found = self.find_tenant(name).await?;
        found.map(|tenant| tenant.id).ok_or_else(|| StoreError::UnknownTenant(name.to_owned()))
    }

    async fn find_tenant(&mut self, name: &str) -> Result<Option<Tenant>, StoreError> {
        let row =
            self.optional(sql("SELECT * FROM tenants WHERE id = $1 OR subdomain = $1").bind(name)).await?;
        row.as_ref().map(read_tenant).transpose()
    }

    /// `false`: another has its id or its subdomain.
    async fn insert_tenant(&mut self, tenant: &Tenant, by: &By) -> Result<bool, StoreError> {
        let insert = sql(
            "INSERT INTO tenants (id, name, subdomain, created_at, status, max_agents, max_concurrent_calls, \
             billing_email) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        );
        let insert = insert
            .bind(&tenant.id)
            .bind(&tenant.name)
            .bind(&tenant.subdomain)
            .bind(tenant.created_at.0)
            .bind(&tenant.status)
            .bind(tenant.max_agents)
            .bind(tenant.max_concurrent_calls)
            .bind(&tenant.billing_email);
        if self.run(insert).await? == 0 {
            return Ok(false);
        }
        self.audit(by, "tenant.create", &tenant.id, &tenant.settings().into()).await?;
        Ok(true)
    }
}

fn read_tenant(row: &Row) -> Result<Tenant, StoreError> {
    let number = |name| -> Result<Option<u32>, StoreError> {
        let value: Option<i64> = column(row, name)?;
        value.map(|v| u32::try_from(v).map_err(|_| StoreError::Unreadable("tenants number"))).transpose()
    };
    Ok(Tenant {
        id: column(row, "id")?,
        name: column(row, "name")?,
        subdomain: column(row, "subdomain")?,
        status: column(row, "status")?,
        max_agents: number("max_agents")?,
        max_concurrent_calls: number("max_concurrent_calls")?,
        billing_email: column(row, "billing_email")?,
        created_at: Timestamp(column(row, "created_at")?),
    })
}
