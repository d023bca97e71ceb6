//! A tenant's endpoints of webhooks (CONTRACT 1.3, 0.7): where the events of all its calls go, whichever key placed them
//! and on whichever surface. Each has a secret of its own.
//!
//! The journal asks for a tenant's endpoints at every event, so they are kept in memory (`Subscribers`): all of them,
//! because there are few. A change of this process is seen at once, one of another process within a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::RwLock;

use super::accounts::ROTATION_MS;
use super::audit::By;
use super::deliveries::{DeliveryRow, of_endpoint, read_row};
use super::sql::{Row, column, flag, join, split, sql};
use super::{Db, StoreError, Tx, ids};
use crate::clock;
use crate::model::{CallId, Secret, Timestamp};

/// Endpoints of one tenant.
pub const ENDPOINTS_MAX: i64 = 20;

/// What another process has changed is seen after this time.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// An endpoint of a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `^c[a-z0-9]{24}$`
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What can be changed of it.
    pub about: EndpointSettings,
    /// Made.
    pub created_at: Timestamp,
}

/// What can be changed of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where the events go; has passed the guard's check of its form.
    pub url: String,
    /// The events it wants, by name.
    pub events: Vec<String>,
    /// It is told.
    pub active: bool,
}

/// What came of making an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MadeEndpoint {
    /// It is there, with its secret, which is shown once.
    Made(Box<Endpoint>, Secret),
    /// The tenant has as many as it may have.
    Full,
}

/// The endpoints of all tenants that are told, as they were at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Subscribed {
    by_tenant: Arc<BTreeMap<String, Arc<[Endpoint]>>>,
}

impl Subscribed {
    /// Those of one tenant, oldest first.
    pub fn of(&self, tenant: &str) -> &[Endpoint] {
        self.by_tenant.get(tenant).map_or(&[], |endpoints| endpoints)
    }
}

/// The endpoints of all tenants, as they were read last.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    /// Raised with every change made here.
    changes: AtomicU64,
    /// With the changes that were known and the moment when it was read.
    read: RwLock<Option<(u64, Instant, Subscribed)>>,
}

impl Db {
    /// Makes an endpoint.
    pub async fn create_endpoint(
        &self,
        tenant: &str,
        about: EndpointSettings,
        by: impl Into<By>,
    ) -> Result<MadeEndpoint, StoreError> {
        let by = by.into();
        let secret = ids::webhook_secret()?;
        let (tenant, created_at) = (tenant.to_owned(), by.at);
        let endpoint = Endpoint { id: ids::cuid()?, tenant, about, created_at };
        let mut tx = self.begin().await?;
        // Two that come together are counted one after the other.
        tx.run(sql("UPDATE tenants SET name = name WHERE id = $1").bind(&endpoint.tenant)).await?;
        let there = sql("SELECT COUNT(*) FROM webhook_endpoints WHERE tenant = $1 AND deleted_at IS NULL");
        if tx.one(there.bind(&endpoint.tenant)).await?.first::<i64>()? >= ENDPOINTS_MAX {
            return Ok(MadeEndpoint::Full);
        }
        let insert =
            sql("INSERT INTO webhook_endpoints (id, tenant, url, events, active, secret, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(&endpoint.id)
            .bind(&endpoint.tenant)
            .bind(&endpoint.about.url)
            .bind(join(&endpoint.about.events))
            .bind(endpoint.about.active)
            .bind(&secret.0)
            .bind(by.at.0);
        tx.run(insert).await?;
        tx.audit(&by, "webhook.create", &endpoint.id, &told(&endpoint)).await?;
        self.commit_endpoints(tx).await?;
        Ok(MadeEndpoint::Made(Box::new(endpoint), secret))
    }

    /// A tenant's endpoints, oldest first.
    pub async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
        let list = sql("SELECT * FROM webhook_endpoints WHERE tenant = $1 AND deleted_at IS NULL \
             ORDER BY created_at, id");
        self.all(list.bind(tenant)).await?.iter().map(read_endpoint).collect()
    }

    /// One of a tenant's endpoints.
    pub async fn endpoint(&self, tenant: &str, id: &str) -> Result<Option<Endpoint>, StoreError> {
        let one = sql("SELECT * FROM webhook_endpoints WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL");
        self.optional(one.bind(id).bind(tenant)).await?.as_ref().map(read_endpoint).transpose()
    }

    /// Changes an endpoint: `change` is given its settings as they are. `None` if there is no such endpoint.
    pub async fn change_endpoint(
        &self,
        tenant: &str,
        id: &str,
        change: impl FnOnce(&mut EndpointSettings),
        by: impl Into<By>,
    ) -> Result<Option<Endpoint>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(mut endpoint) = tx.locked_endpoint(tenant, id).await? else { return Ok(None) };
        change(&mut endpoint.about);
        let about = &endpoint.about;
        let update = sql("UPDATE webhook_endpoints SET url = $2, events = $3, active = $4 WHERE id = $1");
        tx.run(update.bind(id).bind(&about.url).bind(join(&about.events)).bind(about.active)).await?;
        tx.audit(&by.into(), "webhook.change", id, &told(&endpoint)).await?;
        self.commit_endpoints(tx).await?;
        Ok(Some(endpoint))
    }

    /// Gives an endpoint a new secret; for 24 h the old one signs beside it. `None` if there is no such endpoint.
    pub async fn rotate_endpoint(
        &self,
        tenant: &str,
        id: &str,
        by: impl Into<By>,
    ) -> Result<Option<Secret>, StoreError> {
        let by = by.into();
        let secret = ids::webhook_secret()?;
        let mut tx = self.begin().await?;
        if tx.locked_endpoint(tenant, id).await?.is_none() {
            return Ok(None);
        }
        let update = sql("UPDATE webhook_endpoints SET old_secret = secret, old_until = $2, secret = $3 \
             WHERE id = $1");
        tx.run(update.bind(id).bind(by.at.plus_ms(ROTATION_MS).0).bind(&secret.0)).await?;
        tx.audit(&by, "webhook.rotate", id, &json!({})).await?;
        tx.commit().await?;
        Ok(Some(secret))
    }

    /// Deletes an endpoint; what still waited to go there is dropped. `false` if there is no such endpoint.
    pub async fn delete_endpoint(
        &self,
        tenant: &str,
        id: &str,
        by: impl Into<By>,
    ) -> Result<bool, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        if tx.locked_endpoint(tenant, id).await?.is_none() {
            return Ok(false);
        }
        let gone = sql("UPDATE webhook_endpoints SET deleted_at = $2, active = 0 WHERE id = $1");
        tx.run(gone.bind(id).bind(by.at.0)).await?;
        tx.audit(&by, "webhook.delete", id, &json!({})).await?;
        self.commit_endpoints(tx).await?;
        // Whoever promised one more in between sees the endpoint gone when it is sent.
        let mut tx = self.begin().await?;
        tx.drop_waiting_of(id, by.at).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn commit_endpoints(&self, tx: Tx) -> Result<(), StoreError> {
        let done = tx.commit().await;
        // Also where the answer was lost: then it may be done.
        self.subscribers.changes.fetch_add(1, Ordering::AcqRel);
        done
    }

    /// The endpoints of all tenants that are told, from memory.
    pub async fn subscribed(&self) -> Result<Subscribed, StoreError> {
        let changes = self.subscribers.changes.load(Ordering::Acquire);
        let now = clock::now().mono;
        let fresh = |known: u64, at: Instant| {
            known == changes && (!self.is_shared() || now.saturating_duration_since(at) < SEEN_WITHIN)
        };
        if let Some((known, at, all)) = &*self.subscribers.read.read().await
            && fresh(*known, *at)
        {
            return Ok(all.clone());
        }
        let list = sql("SELECT * FROM webhook_endpoints WHERE active = 1 AND deleted_at IS NULL \
             ORDER BY tenant, created_at, id");
        let mut by_tenant: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
        for row in self.all(list).await? {
            let endpoint = read_endpoint(&row)?;
            by_tenant.entry(endpoint.tenant.clone()).or_default().push(endpoint);
        }
        let all = by_tenant.into_iter().map(|(name, list)| (name, list.into())).collect();
        let all = Subscribed { by_tenant: Arc::new(all) };
        *self.subscribers.read.write().await = Some((changes, now, all.clone()));
        Ok(all)
    }

    /// The secrets that sign for an endpoint at `at`, newest first; none once it is deleted.
    pub async fn endpoint_secrets(&self, id: &str, at: Timestamp) -> Result<Vec<Secret>, StoreError> {
        let one = sql("SELECT secret, old_secret, old_until FROM webhook_endpoints \
             WHERE id = $1 AND deleted_at IS NULL");
        let Some(row) = self.optional(one.bind(id)).await? else { return Ok(Vec::new()) };
        let mut secrets = vec![Secret(column(&row, "secret")?)];
        let valid = column::<Option<i64>>(&row, "old_until")?.is_some_and(|until| until > at.0);
        if let Some(old) = column::<Option<String>>(&row, "old_secret")?.filter(|_| valid) {
            secrets.push(Secret(old));
        }
        Ok(secrets)
    }

    /// A page of an endpoint's deliveries, newest first, each with its call.
    pub async fn endpoint_deliveries(
        &self,
        endpoint: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<(DeliveryRow, CallId)>, StoreError> {
        let mut page = of_endpoint(endpoint);
        page.push(" ORDER BY d.id DESC LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
        self.all(page).await?.iter().map(with_call).collect()
    }

    /// How many deliveries an endpoint has.
    pub async fn endpoint_delivery_count(&self, endpoint: &str) -> Result<i64, StoreError> {
        let count = sql("SELECT COUNT(*) FROM deliveries WHERE endpoint = $1").bind(endpoint);
        self.one(count).await?.first()
    }

    /// One delivery of an endpoint's, with its call.
    pub async fn endpoint_delivery(
        &self,
        endpoint: &str,
        id: i64,
    ) -> Result<Option<(DeliveryRow, CallId)>, StoreError> {
        let mut one = of_endpoint(endpoint);
        one.push(" AND d.id = ").push_bind(id);
        self.optional(one).await?.as_ref().map(with_call).transpose()
    }
}

impl Tx {
    async fn locked_endpoint(&mut self, tenant: &str, id: &str) -> Result<Option<Endpoint>, StoreError> {
        // An update that changes nothing locks the row, whichever the database.
        self.run(sql("UPDATE webhook_endpoints SET url = url WHERE id = $1").bind(id)).await?;
        let one = sql("SELECT * FROM webhook_endpoints WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL");
        self.optional(one.bind(id).bind(tenant)).await?.as_ref().map(read_endpoint).transpose()
    }

    /// How many turns of a call its event log holds: what was said, and the keys that were pressed.
    pub async fn turns(&mut self, call: CallId) -> Result<u32, StoreError> {
        let count = sql("SELECT COUNT(*) FROM events WHERE call = $1 AND (type IN ('said', 'digit') \
             OR (type = 'played' AND data NOT LIKE '%\"text\":null%'))");
        let turns: i64 = self.one(count.bind(call.hex())).await?.first()?;
        u32::try_from(turns).map_err(|_| StoreError::Unreadable("events"))
    }
}

fn with_call(row: &Row) -> Result<(DeliveryRow, CallId), StoreError> {
    let call = CallId::from_hex(&column::<String>(row, "call")?);
    Ok((read_row(row)?, call.ok_or(StoreError::Unreadable("deliveries.call"))?))
}

/// What the audit log tells: what follows the question mark of a URL may be a secret.
fn told(endpoint: &Endpoint) -> serde_json::Value {
    let about = &endpoint.about;
    let url = about.url.split('?').next().unwrap_or_default();
    json!({ "url": url, "events": about.events, "active": about.active })
}

fn read_endpoint(row: &Row) -> Result<Endpoint, StoreError> {
    Ok(Endpoint {
        id: column(row, "id")?,
        tenant: column(row, "tenant")?,
        about: EndpointSettings {
            url: column(row, "url")?,
            events: split(&column::<String>(row, "events")?),
            active: flag(row, "active")?,
        },
        created_at: Timestamp(column(row, "created_at")?),
    })
}
