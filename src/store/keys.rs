//! What operators do with keys beside making and ending them: lists, changed settings, changed trunks. Every change is
//! told to the audit log setting by setting, with what was there before; secrets are no settings.

use serde_json::{Map, Value, json};

use super::accounts::{TrunkChoice, read_key, select_keys};
use super::audit::By;
use super::sql::{join, sql};
use super::{Db, StoreError, Tx};
use crate::model::CallerId;
use crate::model::Timestamp;
use crate::model::account::ApiKey;

/// Which keys are wanted. `None` everywhere: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Revoked ones, or those that are not.
    pub revoked: Option<bool>,
}

/// The settings of a key as the audit log tells them.
pub(super) fn settings(key: &ApiKey) -> Map<String, Value> {
    let callers: Vec<&str> = key.caller_ids.iter().map(CallerId::user).collect();
    let policy = &key.policy;
    let pairs = [
        ("name", json!(key.name)),
        ("tenant", json!(key.tenant)),
        ("credits", json!(key.credits)),
        ("rateLimit", json!(key.rate_limit)),
        ("plan", json!(key.plan)),
        ("maxConcurrent", json!(key.max_concurrent)),
        ("recording", json!(key.recording.as_str())),
        ("keepDays", json!(key.keep_days)),
        ("callerIds", json!(callers)),
        ("ipAllow", json!(key.ip_allow)),
        ("scopes", json!(key.scopes)),
        ("surfaces", json!(key.surfaces)),
        ("countries", json!(policy.countries)),
        ("allowPremium", json!(policy.premium)),
        ("allowEmergency", json!(policy.emergency)),
        ("dailyCredits", json!(policy.daily_credits)),
        ("callsPerMinute", json!(policy.calls_per_minute)),
        ("expiresAt", json!(key.expires_at.map(Timestamp::iso_ms))),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The trunks of a key as the audit log tells them.
pub(super) fn trunks_word(trunks: &TrunkChoice) -> Value {
    match trunks {
        TrunkChoice::None => json!([]),
        TrunkChoice::All => json!("all"),
        TrunkChoice::Names(names) => json!(names),
    }
}

/// What differs, each as `[before, after]`.
pub(super) fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    changed.map(|(name, value)| (name.clone(), json!([before.get(name), value]))).collect()
}

impl Db {
    /// One key by its public id, revoked ones too.
    pub async fn key_of_id(&self, key_id: &str) -> Result<Option<ApiKey>, StoreError> {
        let mut one = select_keys();
        one.push("WHERE key_id = ").push_bind(key_id);
        self.optional(one).await?.as_ref().map(read_key).transpose()
    }

    /// One key by its row, revoked ones too.
    pub async fn key_of_row(&self, row: i64) -> Result<Option<ApiKey>, StoreError> {
        let mut one = select_keys();
        one.push("WHERE id = ").push_bind(row);
        self.optional(one).await?.as_ref().map(read_key).transpose()
    }

    /// The oldest of a tenant's keys that is neither revoked nor expired at `at`; the one of this public id is looked at
    /// only where there is no other.
    pub async fn oldest_key(
        &self,
        tenant: &str,
        last: &str,
        at: Timestamp,
    ) -> Result<Option<ApiKey>, StoreError> {
        for others in [true, false] {
            let mut one = select_keys();
            one.push("WHERE tenant = ").push_bind(tenant).push(" AND revoked_at IS NULL");
            one.push(" AND (expires_at IS NULL OR expires_at > ").push_bind(at.0);
            one.push(if others { ") AND key_id <> " } else { ") AND key_id = " }).push_bind(last);
            one.push(" ORDER BY id LIMIT 1");
            if let Some(row) = self.optional(one).await? {
                return Ok(Some(read_key(&row)?));
            }
        }
        Ok(None)
    }

    /// A page of keys, oldest first, and how many there are in all.
    pub async fn keys_page(
        &self,
        filter: &KeyFilter,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<ApiKey>, i64), StoreError> {
        let (mut page, mut count) = (select_keys(), sql("SELECT COUNT(*) FROM api_keys "));
        for list in [&mut page, &mut count] {
            list.push("WHERE 1 = 1");
            if let Some(tenant) = &filter.tenant {
                list.push(" AND tenant = ").push_bind(tenant);
            }
            match filter.revoked {
                Some(true) => list.push(" AND revoked_at IS NOT NULL"),
                Some(false) => list.push(" AND revoked_at IS NULL"),
                None => list,
            };
        }
        page.push(" ORDER BY id LIMIT ").push_bind(i64::from(limit));
        page.push(" OFFSET ").push_bind(i64::from(offset));
        let total = self.one(count).await?.first()?;
        let keys = self.all(page).await?.iter().map(read_key).collect::<Result<_, _>>()?;
        Ok((keys, total))
    }

    /// Changes a key's settings: `change` is given the key as it is and sets fields of it. What it does to ids,
    /// counters, holds, moments and the webhook secret is not stored. Nothing is written where nothing differs.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`], [`StoreError::UnknownTrunks`]; [`StoreError::BelowHeld`] for a balance under what
    /// the key's calls hold.
    pub async fn change_key(
        &self,
        key_id: &str,
        by: impl Into<By>,
        change: impl FnOnce(&mut ApiKey),
        trunks: Option<&TrunkChoice>,
    ) -> Result<ApiKey, StoreError> {
        let mut tx = self.begin().await?;
        let before = tx.locked_key(key_id).await?;
        let mut after = before.clone();
        change(&mut after);
        after.tenant.clone_from(&before.tenant);
        if after.credits.is_some_and(|credits| credits < before.held) {
            return Err(StoreError::BelowHeld(key_id.to_owned()));
        }
        let mut told = difference(&settings(&before), &settings(&after));
        if !told.is_empty() {
            tx.write_settings(&after).await?;
        }
        if let Some(choice) = trunks {
            tx.replace_trunks(before.id, choice).await?;
            told.insert("trunks".to_owned(), trunks_word(choice));
        }
        if !told.is_empty() {
            tx.audit(&by.into(), "key.update", key_id, &told.into()).await?;
        }
        let key = tx.locked_key(key_id).await?;
        tx.commit().await?;
        Ok(key)
    }
}

impl Tx {
    async fn write_settings(&mut self, key: &ApiKey) -> Result<(), StoreError> {
        let callers: Vec<String> = key.caller_ids.iter().map(|caller| caller.user().to_owned()).collect();
        let update = sql(
            "UPDATE api_keys SET name = $2, credits = $3, rate_limit = $4, plan = $5, max_concurrent = $6, \
             recording = $7, caller_ids = $8, ip_allow = $9, scopes = $10, surfaces = $11, countries = $12, \
             allow_premium = $13, allow_emergency = $14, daily_credits = $15, calls_per_minute = $16, \
             expires_at = $17, keep_days = $18 WHERE id = $1",
        );
        let update = update
            .bind(key.id)
            .bind(&key.name)
            .bind(key.credits)
            .bind(key.rate_limit)
            .bind(&key.plan)
            .bind(key.max_concurrent)
            .bind(key.recording.as_str())
            .bind(join(&callers))
            .bind(join(&key.ip_allow))
            .bind(join(&key.scopes))
            .bind(join(&key.surfaces))
            .bind(join(&key.policy.countries))
            .bind(key.policy.premium)
            .bind(key.policy.emergency)
            .bind(key.policy.daily_credits)
            .bind(key.policy.calls_per_minute)
            .bind(key.expires_at.map(|at| at.0))
            .bind(key.keep_days);
        self.run(update).await?;
        Ok(())
    }

    async fn replace_trunks(&mut self, key: i64, choice: &TrunkChoice) -> Result<(), StoreError> {
        self.run(sql("DELETE FROM key_trunks WHERE api_key = $1").bind(key)).await?;
        let all = *choice == TrunkChoice::All;
        self.run(sql("UPDATE api_keys SET all_trunks = $2 WHERE id = $1").bind(key).bind(all)).await?;
        if let TrunkChoice::Names(names) = choice {
            self.assign_trunks(key, names).await?;
        }
        Ok(())
    }
}
