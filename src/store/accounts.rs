//! Keys, tenants and credits. A key is stored as its SHA-256 hash; what is printed at its making cannot be read
//! again. Credits move in three steps (held, taken or released), each one statement that cannot go below zero.

use std::fmt;

use serde_json::json;

use super::audit::By;
use super::sql::{Row, Statement, column, flag, join, split, sql};
use super::{Db, StoreError, Tx, ids, keys, tenants};
use crate::model::account::{ApiKey, Policy, RecordingMode};
use crate::model::{CallId, CallerId, Secret, Timestamp};

/// How long a rotated key is still accepted and its secret still signs (CONTRACT 0.7, 0.8): 24 hours.
pub const ROTATION_MS: i64 = 24 * 60 * 60 * 1000;

/// Time between two writes of one key's `last_used`.
const TOUCH_EVERY_MS: i64 = 1000;

/// Every scope of CONTRACT 0.2, `admin` last.
pub const SCOPES: &[&str] =
    &["calls", "recordings", "agents", "numbers", "campaigns", "supervise", "analytics", "webhooks", "admin"];

/// Every surface that a key can be enabled for (CONTRACT 1).
pub const SURFACES: &[&str] = &["kaphila", "phony", "voxforge", "hamming", "claude-phone"];

/// Every plan (CONTRACT 0.8).
pub const PLANS: &[&str] = &["starter", "professional", "business", "enterprise"];

/// Longest time that a key's recordings may be kept, days; 0 keeps them for ever.
pub const KEEP_DAYS_MAX: u32 = 36_500;

/// Which trunks a new key may dial by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrunkChoice {
    /// None: calls are refused.
    #[default]
    None,
    /// All there are, now and later, in the order they were made.
    All,
    /// These, in this order.
    Names(Vec<String>),
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewKey {
    /// The operator's name for it.
    pub name: String,
    /// A tenant's id or subdomain; made where it is missing.
    pub tenant: String,
    /// Balance, `None` for unlimited.
    pub credits: Option<i64>,
    /// Requests an hour on Kaphila's six routes; `None`: the default, 100.
    pub rate_limit: Option<u32>,
    /// Where its calls go.
    pub trunks: TrunkChoice,
    /// Live calls at once.
    pub max_concurrent: u32,
    /// Are its calls recorded?
    pub recording: RecordingMode,
    /// Days that its recordings are kept, 0 for ever; `None`: as the configuration says.
    pub keep_days: Option<u32>,
    /// Caller ids it may show; empty: any.
    pub caller_ids: Vec<CallerId>,
    /// CIDRs it may come from; empty: anywhere.
    pub ip_allow: Vec<String>,
    /// Words of [`SCOPES`].
    pub scopes: Vec<String>,
    /// Words of [`SURFACES`]; empty: all of them.
    pub surfaces: Vec<String>,
    /// What its calls may cost and where they may go.
    pub policy: Policy,
    /// Not accepted from here on.
    pub expires_at: Option<Timestamp>,
    /// `starter`, `professional`, `business` or `enterprise`.
    pub plan: String,
}

impl NewKey {
    /// A key with the defaults of `keys create` (CONTRACT 0.8).
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tenant: "default".to_owned(),
            credits: None,
            rate_limit: None,
            trunks: TrunkChoice::None,
            max_concurrent: 100,
            recording: RecordingMode::Always,
            keep_days: None,
            caller_ids: Vec::new(),
            ip_allow: Vec::new(),
            scopes: SCOPES
                .iter()
                .filter(|scope| **scope != "admin")
                .map(|scope| (*scope).to_owned())
                .collect(),
            surfaces: Vec::new(),
            policy: Policy::default(),
            expires_at: None,
            plan: "enterprise".to_owned(),
        }
    }
}

/// A key just made or rotated, with the only copy of its secret. Prints without it.
#[derive(Clone, PartialEq)]
pub struct CreatedKey {
    /// The row.
    pub key: ApiKey,
    /// `ak_` and 32 characters, shown once.
    pub secret: String,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// `SELECT` of every column of [`read_key`] with what follows; the pieces are all literals of this file.
macro_rules! select_keys {
    ($rest:literal) => {
        sql(concat!(
            "SELECT api_keys.*, \
             (SELECT status FROM tenants WHERE tenants.id = api_keys.tenant) AS tenant_status, \
             (SELECT max_concurrent_calls FROM tenants WHERE tenants.id = api_keys.tenant) AS tenant_calls \
             FROM api_keys ",
            $rest
        ))
    };
}

/// All of what [`read_key`] reads, for lists that say which.
pub(super) fn select_keys() -> Statement {
    select_keys!("")
}

impl Db {
    /// Makes a key; unknown trunk names are an error that names them, and then nothing is made.
    pub async fn create_key(&self, new: NewKey, by: impl Into<By>) -> Result<CreatedKey, StoreError> {
        self.insert_key(new, ids::key_id()?, by.into()).await
    }

    /// Makes a key of this public id unless there is one, be it revoked. Its secret is known to nobody until it is
    /// rotated.
    pub async fn ensure_key(&self, key_id: &str, new: NewKey, by: impl Into<By>) -> Result<(), StoreError> {
        if self.key_of_id(key_id).await?.is_some() {
            return Ok(());
        }
        match self.insert_key(new, key_id.to_owned(), by.into()).await {
            // Another process that starts at the same time was quicker.
            Err(StoreError::Database(_)) if self.key_of_id(key_id).await?.is_some() => Ok(()),
            made => made.map(drop),
        }
    }

    async fn insert_key(&self, new: NewKey, key_id: String, by: By) -> Result<CreatedKey, StoreError> {
        let secret = ids::api_key()?;
        let mut tx = self.begin().await?;
        let tenant = tx.tenant(&new.tenant, &by).await?;
        let id = tx.count("api_keys").await?;
        let callers: Vec<String> = new.caller_ids.iter().map(|caller| caller.user().to_owned()).collect();
        tx.run(sql(
            "INSERT INTO api_keys (id, key_id, tenant, name, hash, prefix, scopes, ip_allow, plan, credits, \
             rate_limit, max_concurrent, recording, caller_ids, all_trunks, webhook_secret, created_at, surfaces, \
             countries, allow_premium, allow_emergency, daily_credits, calls_per_minute, expires_at, \
             keep_days) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
             $21, $22, $23, $24, $25)",
        )
        .bind(id)
        .bind(key_id)
        .bind(tenant)
        .bind(&new.name)
        .bind(ids::key_hash(&secret))
        .bind(&secret[..8])
        .bind(join(&new.scopes))
        .bind(join(&new.ip_allow))
        .bind(&new.plan)
        .bind(new.credits)
        .bind(new.rate_limit.map(i64::from))
        .bind(i64::from(new.max_concurrent))
        .bind(new.recording.as_str())
        .bind(join(&callers))
        .bind(i64::from(new.trunks == TrunkChoice::All))
        .bind(ids::webhook_secret()?.0)
        .bind(by.at.0)
        .bind(join(&new.surfaces))
        .bind(join(&new.policy.countries))
        .bind(new.policy.premium)
        .bind(new.policy.emergency)
        .bind(new.policy.daily_credits)
        .bind(new.policy.calls_per_minute)
        .bind(new.expires_at.map(|at| at.0))
        .bind(new.keep_days))
        .await?;
        if let TrunkChoice::Names(names) = &new.trunks {
            tx.assign_trunks(id, names).await?;
        }
        let row = tx.one(select_keys!("WHERE id = $1").bind(id)).await?;
        let key = read_key(&row)?;
        let mut told = keys::settings(&key);
        told.insert("trunks".to_owned(), keys::trunks_word(&new.trunks));
        tx.audit(&by, "key.create", &key.key_id, &told.into()).await?;
        tx.commit().await?;
        Ok(CreatedKey { key, secret })
    }

    /// The key that was presented, if it is valid now. See [`Db::find_key_at`].
    pub async fn find_key(&self, presented: &str) -> Result<Option<ApiKey>, StoreError> {
        self.find_key_at(presented, crate::clock::now().wall).await
    }

    /// The key that was presented, unless it is unknown, revoked or expired at `at`. For 24 h after a rotation the
    /// key before it is found too. The look-up is by hash, so its time tells nothing of any key.
    pub async fn find_key_at(&self, presented: &str, at: Timestamp) -> Result<Option<ApiKey>, StoreError> {
        let hash = ids::key_hash(presented);
        let row = self
            .optional(
                select_keys!(
                    "WHERE (hash = $1 OR (old_hash = $1 AND old_until > $2)) \
             AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"
                )
                .bind(&hash)
                .bind(at.0),
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let current = ids::equal_in_constant_time(&column::<String>(&row, "hash")?, &hash);
        let before = column::<Option<String>>(&row, "old_hash")?
            .is_some_and(|old| ids::equal_in_constant_time(&old, &hash));
        if current || before { read_key(&row).map(Some) } else { Ok(None) }
    }

    /// One key by row id, revoked ones too.
    pub async fn key(&self, id: i64) -> Result<Option<ApiKey>, StoreError> {
        let row = self.optional(select_keys!("WHERE id = $1").bind(id)).await?;
        row.as_ref().map(read_key).transpose()
    }

    /// Every key, oldest first, revoked ones too.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows = self.all(select_keys!("ORDER BY id")).await?;
        rows.iter().map(read_key).collect()
    }

    /// Ends a key from `at` on. Revoking twice keeps the first moment.
    pub async fn revoke_key(&self, key_id: &str, by: impl Into<By>) -> Result<(), StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        if tx.locked_key(key_id).await?.revoked_at.is_some() {
            return Ok(());
        }
        let end = sql("UPDATE api_keys SET revoked_at = $2 WHERE key_id = $1").bind(key_id).bind(by.at.0);
        tx.run(end).await?;
        tx.audit(&by, "key.revoke", key_id, &json!({})).await?;
        tx.commit().await
    }

    /// Gives a key a new secret and a new webhook secret. For 24 h the old key is accepted too and the old secret
    /// signs beside the new; what an earlier rotation left behind ends now.
    pub async fn rotate_key(&self, key_id: &str, by: impl Into<By>) -> Result<CreatedKey, StoreError> {
        let by = by.into();
        let secret = ids::api_key()?;
        let mut tx = self.begin().await?;
        let row = tx.optional(sql(
            "UPDATE api_keys SET old_hash = hash, old_webhook_secret = webhook_secret, old_until = $2, hash = $3, \
             prefix = $4, webhook_secret = $5 WHERE key_id = $1 AND revoked_at IS NULL RETURNING id",
        )
        .bind(key_id)
        .bind(by.at.plus_ms(ROTATION_MS).0)
        .bind(ids::key_hash(&secret))
        .bind(&secret[..8])
        .bind(ids::webhook_secret()?.0))
        .await?;
        let Some(row) = row else { return Err(StoreError::UnknownKey(key_id.to_owned())) };
        let row = tx.one(select_keys!("WHERE id = $1").bind(column::<i64>(&row, "id")?)).await?;
        let key = read_key(&row)?;
        tx.audit(&by, "key.rotate", key_id, &json!({ "prefix": key.prefix })).await?;
        tx.commit().await?;
        Ok(CreatedKey { key, secret })
    }

    /// Adds to (or takes from) a balance and returns it. A balance never falls below what calls under way hold.
    pub async fn add_credit(&self, key_id: &str, delta: i64, by: impl Into<By>) -> Result<i64, StoreError> {
        let mut tx = self.begin().await?;
        let key = tx.locked_key(key_id).await?;
        let Some(credits) = key.credits else {
            return Err(StoreError::UnlimitedCredits(key_id.to_owned()));
        };
        let balance = credits.saturating_add(delta);
        if balance < key.held {
            return Err(StoreError::BelowHeld(key_id.to_owned()));
        }
        tx.run(sql("UPDATE api_keys SET credits = $2 WHERE key_id = $1").bind(key_id).bind(balance)).await?;
        let told = json!({ "delta": delta, "credits": balance });
        tx.audit(&by.into(), "key.credit", key_id, &told).await?;
        tx.commit().await?;
        Ok(balance)
    }

    /// Notes that a key was used. Written at most once a second for each key.
    pub async fn touch_key(&self, id: i64, at: Timestamp) -> Result<(), StoreError> {
        if !self.claim_touch(id, at) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        tx.run(sql("UPDATE api_keys SET last_used = $2 WHERE id = $1").bind(id).bind(at.0)).await?;
        tx.commit().await
    }

    /// Whether it is this caller's turn to write `last_used`.
    fn claim_touch(&self, id: i64, at: Timestamp) -> bool {
        let mut last = self.touched.entry(id).or_insert(i64::MIN);
        let due = at.0.saturating_sub(*last) >= TOUCH_EVERY_MS;
        if due {
            *last = at.0;
        }
        due
    }

    /// The secrets that sign a key's webhooks at `at`, newest first: two for 24 h after a rotation.
    pub async fn webhook_secrets(&self, key: i64, at: Timestamp) -> Result<Vec<Secret>, StoreError> {
        let row = self
            .optional(
                sql("SELECT webhook_secret, old_webhook_secret, old_until FROM api_keys WHERE id = $1")
                    .bind(key),
            )
            .await?;
        row.map_or(Ok(Vec::new()), |row| signing(&row, at))
    }
}

impl Tx {
    /// The key of this id, which nobody else can change until this transaction is over.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`].
    pub(super) async fn locked_key(&mut self, key_id: &str) -> Result<ApiKey, StoreError> {
        // An update that changes nothing locks the row, whichever the database.
        self.run(sql("UPDATE api_keys SET name = name WHERE key_id = $1").bind(key_id)).await?;
        let row = self.optional(select_keys!("WHERE key_id = $1").bind(key_id)).await?;
        row.as_ref().map_or_else(|| Err(StoreError::UnknownKey(key_id.to_owned())), read_key)
    }

    /// Holds one credit for the call that this transaction is about to insert. `false`: there is none left.
    pub async fn hold_credit(&mut self, key: i64) -> Result<bool, StoreError> {
        let row = self
            .optional(
                sql("UPDATE api_keys SET held = held + 1 \
             WHERE id = $1 AND (credits IS NULL OR credits - held >= 1) RETURNING id")
                .bind(key),
            )
            .await?;
        self.held = row.map(|_| key);
        Ok(self.held.is_some())
    }

    /// What writes down for which call the credit was held, if one was. Called by [`Tx::insert_call`].
    pub(super) fn keep_hold(&mut self, call: CallId) -> Option<Statement> {
        let key = self.held.take()?;
        let insert = sql("INSERT INTO credit_holds (call, api_key, state) VALUES ($1, $2, 'held')");
        Some(insert.bind(call.hex()).bind(key))
    }

    /// The call was answered: its held credit is taken. Once; later calls change nothing.
    pub async fn capture_hold(&mut self, call: CallId) -> Result<(), StoreError> {
        let Some(key) = self.settle_hold(call, "taken").await? else { return Ok(()) };
        self.run(sql("UPDATE api_keys SET credits = credits - 1, held = held - 1 WHERE id = $1").bind(key))
            .await?;
        Ok(())
    }

    /// The call ended: a credit that is still held becomes free again. Once; a taken one stays taken.
    pub async fn release_hold(&mut self, call: CallId) -> Result<(), StoreError> {
        let Some(key) = self.settle_hold(call, "released").await? else { return Ok(()) };
        self.run(sql("UPDATE api_keys SET held = held - 1 WHERE id = $1").bind(key)).await?;
        self.give_back(key, call).await
    }

    /// Moves a hold out of `held`; the key whose hold it was, if it was still held.
    async fn settle_hold(&mut self, call: CallId, state: &str) -> Result<Option<i64>, StoreError> {
        let row = self
            .optional(
                sql(
                    "UPDATE credit_holds SET state = $2 WHERE call = $1 AND state = 'held' RETURNING api_key",
                )
                .bind(call.hex())
                .bind(state),
            )
            .await?;
        row.map(|row| column(&row, "api_key")).transpose()
    }

    /// Counts a call that was answered and completed; calls placed are counted when they are inserted.
    pub async fn finish_counters(&mut self, key: i64, successful: bool) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE api_keys SET successful_calls = successful_calls + $2 WHERE id = $1")
                .bind(key)
                .bind(i64::from(successful)),
        )
        .await?;
        Ok(())
    }

    /// The number of a Kaphila call id, from 1; persisted and never reused.
    pub async fn next_call_counter(&mut self) -> Result<i64, StoreError> {
        self.count("calls").await
    }

    /// The key's trunk cursor `k` (0 for its first call), moved on by one.
    pub async fn next_trunk_cursor(&mut self, key: i64) -> Result<u64, StoreError> {
        let row = self.one(sql(
            "UPDATE api_keys SET trunk_cursor = trunk_cursor + 1 WHERE id = $1 RETURNING trunk_cursor - 1",
        )
        .bind(key))
        .await?;
        Ok(u64::try_from(row.first::<i64>()?).unwrap_or(0))
    }
}

/// The secrets that sign a key's webhooks at `at`, newest first.
pub(super) fn signing(row: &Row, at: Timestamp) -> Result<Vec<Secret>, StoreError> {
    let mut secrets = vec![Secret(column(row, "webhook_secret")?)];
    let valid = column::<Option<i64>>(row, "old_until")?.is_some_and(|until| until > at.0);
    if let Some(old) = column::<Option<String>>(row, "old_webhook_secret")?.filter(|_| valid) {
        secrets.push(Secret(old));
    }
    Ok(secrets)
}

pub(super) fn read_key(row: &Row) -> Result<ApiKey, StoreError> {
    let number = |name| -> Result<Option<u32>, StoreError> {
        let value: Option<i64> = column(row, name)?;
        value.map(|v| u32::try_from(v).map_err(|_| StoreError::Unreadable("api_keys number"))).transpose()
    };
    let callers = split(&column::<String>(row, "caller_ids")?);
    let suspended = column::<String>(row, "tenant_status")? == tenants::SUSPENDED;
    Ok(ApiKey {
        id: column(row, "id")?,
        key_id: column(row, "key_id")?,
        name: column(row, "name")?,
        tenant: column(row, "tenant")?,
        suspended,
        tenant_calls: number("tenant_calls")?,
        prefix: column(row, "prefix")?,
        scopes: split(&column::<String>(row, "scopes")?),
        surfaces: split(&column::<String>(row, "surfaces")?),
        ip_allow: split(&column::<String>(row, "ip_allow")?),
        credits: column(row, "credits")?,
        held: column(row, "held")?,
        rate_limit: number("rate_limit")?,
        plan: column(row, "plan")?,
        max_concurrent: number("max_concurrent")?.unwrap_or(0),
        policy: Policy {
            countries: split(&column::<String>(row, "countries")?),
            premium: flag(row, "allow_premium")?,
            emergency: flag(row, "allow_emergency")?,
            daily_credits: number("daily_credits")?,
            calls_per_minute: number("calls_per_minute")?,
        },
        recording: RecordingMode::from_text(&column::<String>(row, "recording")?)
            .ok_or(StoreError::Unreadable("api_keys.recording"))?,
        keep_days: number("keep_days")?,
        caller_ids: callers.iter().filter_map(|text| CallerId::parse(text)).collect(),
        webhook_secret: Secret(column(row, "webhook_secret")?),
        total_calls: column(row, "total_calls")?,
        successful_calls: column(row, "successful_calls")?,
        created_at: Timestamp(column(row, "created_at")?),
        last_used: column::<Option<i64>>(row, "last_used")?.map(Timestamp),
        expires_at: column::<Option<i64>>(row, "expires_at")?.map(Timestamp),
        revoked_at: column::<Option<i64>>(row, "revoked_at")?.map(Timestamp),
    })
}
