//! Campaigns: who calls, when, how fast, and how far it has come (CONTRACT 1.3, 3 S17 to S20). Their contacts are
//! [`super::campaign_contacts`]'s.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::audit::By;
use super::sql::{Row, column, sql};
use super::{Db, StoreError, ids};
use crate::model::Timestamp;

/// How far a campaign has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It calls.
    Active,
    /// It calls nobody until it is active again.
    Paused,
    /// Everybody was called, or it was said to be done.
    Completed,
    /// It was called off.
    Cancelled,
}

/// Every [`Status`] with its word.
const STATUSES: &[(Status, &str)] = &[
    (Status::Active, "active"),
    (Status::Paused, "paused"),
    (Status::Completed, "completed"),
    (Status::Cancelled, "cancelled"),
];

impl Status {
    /// The word of the database and of the surface.
    pub fn as_str(self) -> &'static str {
        STATUSES.iter().find(|(status, _)| *status == self).map_or("active", |(_, word)| word)
    }

    /// Reads [`Status::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        STATUSES.iter().find(|(_, word)| *word == text).map(|(status, _)| *status)
    }

    /// It will call nobody ever again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// A campaign of a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// `^c[a-z0-9]{24}$`
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The key that made it; its calls are that key's.
    pub key: i64,
    /// How far it has come.
    pub status: Status,
    /// What can be changed of it.
    pub about: CampaignSettings,
    /// Made.
    pub created_at: Timestamp,
    /// Last changed.
    pub updated_at: Timestamp,
}

/// What can be changed of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignSettings {
    /// For people.
    pub name: String,
    /// The agent's row.
    pub agent: i64,
    /// The id of the number that seems to call.
    pub number: String,
    /// Nobody is called before.
    pub starts_at: Timestamp,
    /// An IANA zone.
    pub timezone: String,
    /// From when to when, minutes after midnight; `None`: all day.
    pub span: Option<(u16, u16)>,
    /// On which days, one bit a day.
    pub days: i64,
    /// Calls at once.
    pub max_concurrent: u32,
    /// Calls that begin in any second.
    pub calls_per_second: u32,
    /// Times that one contact is called.
    pub max_attempts: u32,
    /// Seconds until the next time.
    pub retry_s: u32,
    /// Calls of any campaign to one number in 24 hours; `None`: no limit.
    pub number_per_day: Option<u32>,
    /// The key by which whoever is called asks not to be called again, one of `0`-`9`, `*`, `#`; `None`: there is none.
    pub opt_out_key: Option<char>,
}

/// What has come of a campaign's contacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To be called, or called again.
    pub pending: i64,
    /// Being called.
    pub dialing: i64,
    /// Called, and talked to.
    pub done: i64,
    /// Called in vain.
    pub failed: i64,
    /// Not to be called.
    pub skipped: i64,
}

impl Counts {
    /// All of them.
    pub fn total(self) -> i64 {
        self.pending + self.dialing + self.finished()
    }

    /// Those that will not be called again.
    pub fn finished(self) -> i64 {
        self.done + self.failed + self.skipped
    }
}

impl Db {
    /// Makes a campaign, with nobody in it.
    pub async fn create_campaign(
        &self,
        (tenant, key): (&str, i64),
        about: CampaignSettings,
        status: Status,
        by: impl Into<By>,
    ) -> Result<Campaign, StoreError> {
        let by = by.into();
        let (id, tenant) = (ids::cuid()?, tenant.to_owned());
        let campaign = Campaign { id, tenant, key, status, about, created_at: by.at, updated_at: by.at };
        let about = &campaign.about;
        let insert = sql(
            "INSERT INTO campaigns (id, tenant, api_key, status, name, agent, number, starts_at, timezone, \
             window_start, window_end, days, max_concurrent, calls_per_second, max_attempts, retry_s, \
             number_per_day, created_at, updated_at, opt_out_key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
             $11, $12, $13, $14, $15, $16, $17, $18, $18, $19)",
        )
        .bind(&campaign.id)
        .bind(&campaign.tenant)
        .bind(key)
        .bind(status.as_str())
        .bind(&about.name)
        .bind(about.agent)
        .bind(&about.number)
        .bind(about.starts_at.0)
        .bind(&about.timezone)
        .bind(about.span.map(|(start, _)| i64::from(start)))
        .bind(about.span.map(|(_, end)| i64::from(end)))
        .bind(about.days)
        .bind(about.max_concurrent)
        .bind(about.calls_per_second)
        .bind(about.max_attempts)
        .bind(about.retry_s)
        .bind(about.number_per_day)
        .bind(by.at.0)
        .bind(about.opt_out_key.map(String::from));
        let mut tx = self.begin().await?;
        tx.run(insert).await?;
        tx.audit(&by, "campaign.create", &campaign.id, &told(&campaign)).await?;
        tx.commit().await?;
        Ok(campaign)
    }

    /// One of a tenant's campaigns.
    pub async fn campaign(&self, tenant: &str, id: &str) -> Result<Option<Campaign>, StoreError> {
        let one = sql("SELECT * FROM campaigns WHERE id = $1 AND tenant = $2").bind(id).bind(tenant);
        self.optional(one).await?.as_ref().map(read_campaign).transpose()
    }

    /// A page of a tenant's campaigns, newest first, and how many there are in all.
    pub async fn campaigns(
        &self,
        tenant: &str,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Campaign>, i64), StoreError> {
        let page = sql(
            "SELECT * FROM campaigns WHERE tenant = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3",
        );
        let rows = self.all(page.bind(tenant).bind(limit).bind(offset)).await?;
        let total = sql("SELECT COUNT(*) FROM campaigns WHERE tenant = $1").bind(tenant);
        let total = self.one(total).await?.first()?;
        Ok((rows.iter().map(read_campaign).collect::<Result<_, _>>()?, total))
    }

    /// What has come of the contacts of these campaigns.
    pub async fn campaign_counts(&self, ids: &[&str]) -> Result<BTreeMap<String, Counts>, StoreError> {
        let mut all: BTreeMap<String, Counts> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(all);
        }
        let mut count =
            sql("SELECT campaign, state, COUNT(*) AS contacts FROM campaign_contacts WHERE campaign IN ");
        count.push_list(ids.iter().copied()).push(" GROUP BY campaign, state");
        for row in self.all(count).await? {
            let counts = all.entry(column(&row, "campaign")?).or_default();
            let contacts = column(&row, "contacts")?;
            match column::<String>(&row, "state")?.as_str() {
                "pending" => counts.pending = contacts,
                "dialing" => counts.dialing = contacts,
                "done" => counts.done = contacts,
                "failed" => counts.failed = contacts,
                _ => counts.skipped = contacts,
            }
        }
        Ok(all)
    }

    /// Changes a campaign: `change` is given it as it is and sets status and settings, or refuses, and then nothing is
    /// written. `None` if there is no such campaign.
    pub async fn change_campaign<E>(
        &self,
        tenant: &str,
        id: &str,
        change: impl FnOnce(&mut Campaign) -> Result<(), E>,
        by: impl Into<By>,
    ) -> Result<Option<Result<Campaign, E>>, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        tx.run(sql("UPDATE campaigns SET name = name WHERE id = $1").bind(id)).await?;
        let one = sql("SELECT * FROM campaigns WHERE id = $1 AND tenant = $2").bind(id).bind(tenant);
        let found = tx.optional(one).await?.as_ref().map(read_campaign).transpose()?;
        let Some(mut campaign) = found else { return Ok(None) };
        if let Err(refused) = change(&mut campaign) {
            return Ok(Some(Err(refused)));
        }
        campaign.updated_at = by.at;
        let about = &campaign.about;
        let update = sql(
            "UPDATE campaigns SET status = $2, name = $3, agent = $4, number = $5, starts_at = $6, timezone = $7, \
             window_start = $8, window_end = $9, days = $10, max_concurrent = $11, calls_per_second = $12, \
             max_attempts = $13, retry_s = $14, number_per_day = $15, updated_at = $16, \
             opt_out_key = $17 WHERE id = $1",
        )
        .bind(id)
        .bind(campaign.status.as_str())
        .bind(&about.name)
        .bind(about.agent)
        .bind(&about.number)
        .bind(about.starts_at.0)
        .bind(&about.timezone)
        .bind(about.span.map(|(start, _)| i64::from(start)))
        .bind(about.span.map(|(_, end)| i64::from(end)))
        .bind(about.days)
        .bind(about.max_concurrent)
        .bind(about.calls_per_second)
        .bind(about.max_attempts)
        .bind(about.retry_s)
        .bind(about.number_per_day)
        .bind(by.at.0)
        .bind(about.opt_out_key.map(String::from));
        tx.run(update).await?;
        tx.audit(&by, "campaign.change", id, &told(&campaign)).await?;
        tx.commit().await?;
        Ok(Some(Ok(campaign)))
    }

    /// Whether a campaign that is not over wants an agent.
    pub async fn agent_has_campaigns(&self, agent: i64) -> Result<bool, StoreError> {
        let wanted =
            sql("SELECT id FROM campaigns WHERE agent = $1 AND status IN ('active', 'paused') LIMIT 1");
        Ok(self.optional(wanted.bind(agent)).await?.is_some())
    }

    /// Campaigns that may call now, as far as their status and start say.
    pub async fn campaigns_at_work(&self, now: Timestamp) -> Result<Vec<Campaign>, StoreError> {
        let active = sql("SELECT * FROM campaigns WHERE status = 'active' AND starts_at <= $1 ORDER BY id");
        self.all(active.bind(now.0)).await?.iter().map(read_campaign).collect()
    }

    /// Of these campaigns those that were called off.
    pub async fn cancelled(&self, ids: &BTreeSet<String>) -> Result<BTreeSet<String>, StoreError> {
        if ids.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut off = sql("SELECT id FROM campaigns WHERE status = 'cancelled' AND id IN ");
        off.push_list(ids);
        self.all(off).await?.iter().map(Row::first).collect()
    }

    /// Completes an active campaign that has contacts and nobody left to call. Whether it did.
    pub async fn complete_campaign(&self, id: &str, at: Timestamp) -> Result<bool, StoreError> {
        let open = sql("SELECT position FROM campaign_contacts WHERE campaign = $1 \
             AND state IN ('pending', 'dialing') LIMIT 1");
        let any = sql("SELECT position FROM campaign_contacts WHERE campaign = $1 LIMIT 1");
        // Asked beside the writer: it is so only once.
        if self.optional(open.bind(id)).await?.is_some() || self.optional(any.bind(id)).await?.is_none() {
            return Ok(false);
        }
        let mut tx = self.begin().await?;
        // Locked by a statement of its own: the next one then sees the contacts that were added meanwhile.
        let lock = sql("UPDATE campaigns SET name = name WHERE id = $1 AND status = 'active'");
        if tx.run(lock.bind(id)).await? == 0 {
            return Ok(false);
        }
        let done = sql("UPDATE campaigns SET status = 'completed', updated_at = $2 WHERE id = $1 \
             AND NOT EXISTS (SELECT 1 FROM campaign_contacts c WHERE c.campaign = $1 \
             AND c.state IN ('pending', 'dialing'))");
        let done = tx.run(done.bind(id).bind(at.0)).await? > 0;
        tx.commit().await?;
        Ok(done)
    }
}

/// What the audit log tells of a campaign.
fn told(campaign: &Campaign) -> Value {
    json!({ "name": campaign.about.name, "status": campaign.status.as_str(), "agent": campaign.about.agent })
}

fn read_campaign(row: &Row) -> Result<Campaign, StoreError> {
    let number = |name| -> Result<u32, StoreError> {
        u32::try_from(column::<i64>(row, name)?).map_err(|_| StoreError::Unreadable("campaigns number"))
    };
    let minute = |name| -> Result<Option<u16>, StoreError> {
        Ok(column::<Option<i64>>(row, name)?.and_then(|minute| u16::try_from(minute).ok()))
    };
    let status = Status::from_text(&column::<String>(row, "status")?);
    let per_day = column::<Option<i64>>(row, "number_per_day")?;
    Ok(Campaign {
        id: column(row, "id")?,
        tenant: column(row, "tenant")?,
        key: column(row, "api_key")?,
        status: status.ok_or(StoreError::Unreadable("campaigns.status"))?,
        about: CampaignSettings {
            name: column(row, "name")?,
            agent: column(row, "agent")?,
            number: column(row, "number")?,
            starts_at: Timestamp(column(row, "starts_at")?),
            timezone: column(row, "timezone")?,
            span: minute("window_start")?.zip(minute("window_end")?),
            days: column(row, "days")?,
            max_concurrent: number("max_concurrent")?,
            calls_per_second: number("calls_per_second")?,
            max_attempts: number("max_attempts")?,
            retry_s: number("retry_s")?,
            number_per_day: per_day.and_then(|calls| u32::try_from(calls).ok()),
            opt_out_key: column::<Option<String>>(row, "opt_out_key")?.and_then(|key| key.chars().next()),
        },
        created_at: Timestamp(column(row, "created_at")?),
        updated_at: Timestamp(column(row, "updated_at")?),
    })
}
