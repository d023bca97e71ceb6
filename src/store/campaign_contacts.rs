//! The contacts of campaigns, and who of them is called (CONTRACT 3 S18, S19). A contact is `pending` until a call takes
//! it ([`Tx::claim_contact`], in the transaction that inserts the call), `dialing` until that call ends
//! ([`Tx::finish_contact`], in the transaction that writes the end), and then final or pending again. A process that dies
//! in between leaves a call that recovery ends, so no contact is left dialling and none is dialled again for it.
//!
//! Limits are kept to here, where several processes meet: who takes a contact has the campaign's row locked. The rows of
//! the contacts are the count; there is no counter that could differ from them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::campaigns::Campaign;
use super::contacts::{Contact, NewContact, ROWS_AT_ONCE, read_phone};
use super::history::DAY_MS;
use super::sql::{Row, column, sql};
use super::{Db, StoreError, Tx, ids, rows};
use crate::model::call::{CallView, EndReason};
use crate::model::{PhoneNumber, Timestamp};

/// The span in which no more calls begin than may begin in a second.
const SECOND_MS: i64 = 1000;

/// First half of the advisory locks' names: numbers. The second is the number's hash.
const NUMBERS_LOCKED: i64 = 0x6e75_6d62;

/// A contact as its campaign has it.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignContact {
    /// Its place in the order.
    pub position: i64,
    /// The contact's id.
    pub contact: String,
    /// Their number.
    pub phone: PhoneNumber,
    /// For people.
    pub name: String,
    /// What the agent may want to know.
    pub variables: Map<String, Value>,
    /// Where they live; empty: not known.
    pub timezone: String,
    /// `pending`, `dialing`, `done`, `failed` or `skipped`.
    pub state: String,
    /// Calls so far.
    pub attempts: i64,
    /// Not called before, while pending.
    pub next_at: Timestamp,
    /// What the last call came to, or why there was none.
    pub last_outcome: Option<String>,
}

/// Why a call did not get its contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untaken {
    /// Somebody else has it by now, or it is not to be called, not yet or not any more; others may be.
    Elsewhere,
    /// The campaign calls nobody at the moment, or has as many calls as it may have, or as may begin in a second.
    Shut,
    /// Campaigns have called the number as often as they may in a day; not again before then.
    TooOften(Timestamp),
}

/// The outcome of a contact who asked in the call not to be called again.
pub const OPTED_OUT: &str = "opted_out";

/// What came of adding contacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// New to the campaign.
    pub imported: usize,
    /// There already.
    pub duplicates: usize,
}

impl Db {
    /// Adds contacts to a campaign, behind those that are there, some at a time: what is cut off in the middle can be
    /// done again. Who has a contact with the tenant already keeps it; who must not be called is skipped from the start.
    /// `None`: the campaign is over, and takes nobody any more.
    pub async fn add_contacts(
        &self,
        campaign: &Campaign,
        contacts: &[NewContact],
        at: Timestamp,
    ) -> Result<Option<Added>, StoreError> {
        let mut added = Added::default();
        for some in contacts.chunks(ROWS_AT_ONCE) {
            let mut tx = self.begin().await?;
            let Some(imported) = tx.add_some_contacts(campaign, some, at).await? else { return Ok(None) };
            tx.commit().await?;
            added.imported += imported;
            added.duplicates += some.len() - imported.min(some.len());
        }
        Ok(Some(added))
    }

    /// A page of a campaign's contacts in their order, and how many there are in all.
    pub async fn campaign_contacts(
        &self,
        campaign: &str,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<CampaignContact>, i64), StoreError> {
        let page =
            sql("SELECT * FROM campaign_contacts WHERE campaign = $1 ORDER BY position LIMIT $2 OFFSET $3");
        let rows = self.all(page.bind(campaign).bind(limit).bind(offset)).await?;
        let total = sql("SELECT COUNT(*) FROM campaign_contacts WHERE campaign = $1").bind(campaign);
        let total = self.one(total).await?.first()?;
        Ok((rows.iter().map(read_contact).collect::<Result<_, _>>()?, total))
    }

    /// Contacts of a campaign that may be called now, those first that wait the longest, in the order of their list;
    /// with `elsewhere` only those that have a time zone of their own.
    pub async fn due_contacts(
        &self,
        campaign: &str,
        now: Timestamp,
        elsewhere: bool,
        limit: u32,
    ) -> Result<Vec<CampaignContact>, StoreError> {
        let mut due = sql("SELECT * FROM campaign_contacts WHERE campaign = $1 AND state = 'pending' \
             AND next_at <= $2")
        .bind(campaign)
        .bind(now.0);
        if elsewhere {
            due.push(" AND timezone <> ''");
        }
        due.push(" ORDER BY next_at, position LIMIT ").push_bind(limit);
        self.all(due).await?.iter().map(read_contact).collect()
    }

    /// How many contacts of each of these campaigns are being called, by any process.
    pub async fn dialing(&self, ids: &[&str]) -> Result<BTreeMap<String, u32>, StoreError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut count =
            sql("SELECT campaign, COUNT(*) AS contacts FROM campaign_contacts WHERE state = 'dialing' \
             AND campaign IN ");
        count.push_list(ids.iter().copied()).push(" GROUP BY campaign");
        let read = |row: &Row| {
            let contacts = column::<i64>(row, "contacts")?;
            Ok((column(row, "campaign")?, u32::try_from(contacts).unwrap_or(u32::MAX)))
        };
        self.all(count).await?.iter().map(read).collect()
    }

    /// Of these numbers those whose people asked a tenant not to be called.
    pub async fn not_to_be_called(
        &self,
        tenant: &str,
        phones: &[PhoneNumber],
    ) -> Result<BTreeSet<PhoneNumber>, StoreError> {
        let mut found = BTreeSet::new();
        for some in phones.chunks(ROWS_AT_ONCE) {
            let mut who =
                sql("SELECT DISTINCT phone FROM contacts WHERE dnc = 1 AND tenant = $1 AND phone IN ")
                    .bind(tenant);
            who.push_list(some.iter().map(PhoneNumber::e164));
            for row in self.all(who).await? {
                found.insert(read_phone(&row, "phone")?);
            }
        }
        Ok(found)
    }

    /// Calls of a tenant's campaigns to a number since `since`: how many, and when the first of them was placed.
    pub async fn campaign_calls_to(
        &self,
        tenant: &str,
        phone: &PhoneNumber,
        since: Timestamp,
    ) -> Result<(u32, Option<Timestamp>), StoreError> {
        let calls = sql("SELECT COUNT(*) AS calls, MIN(created_at) AS first FROM calls WHERE tenant = $1 \
             AND number = $2 AND campaign IS NOT NULL AND created_at > $3");
        let row = self.one(calls.bind(tenant).bind(phone.digits()).bind(since.0)).await?;
        let calls = u32::try_from(column::<i64>(&row, "calls")?).unwrap_or(u32::MAX);
        Ok((calls, column::<Option<i64>>(&row, "first")?.map(Timestamp)))
    }

    /// Does not call a contact before that moment.
    pub async fn put_off(&self, campaign: &str, position: i64, until: Timestamp) -> Result<(), StoreError> {
        let later = sql("UPDATE campaign_contacts SET next_at = $3 WHERE campaign = $1 AND position = $2 \
             AND state = 'pending'");
        let mut tx = self.begin().await?;
        tx.run(later.bind(campaign).bind(position).bind(until.0)).await?;
        tx.commit().await
    }

    /// Does not call a contact at all.
    pub async fn skip_contact(&self, campaign: &str, position: i64, why: &str) -> Result<(), StoreError> {
        let skip =
            sql("UPDATE campaign_contacts SET state = 'skipped', last_outcome = $3 WHERE campaign = $1 \
             AND position = $2 AND state = 'pending'");
        let mut tx = self.begin().await?;
        tx.run(skip.bind(campaign).bind(position).bind(why)).await?;
        tx.commit().await
    }
}

impl Tx {
    /// How many of these were new; `None` where the campaign is over.
    async fn add_some_contacts(
        &mut self,
        campaign: &Campaign,
        new: &[NewContact],
        at: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        let lock = sql("UPDATE campaigns SET name = name WHERE id = $1 AND status IN ('active', 'paused')");
        if self.run(lock.bind(&campaign.id)).await? == 0 {
            return Ok(None);
        }
        let last = sql("SELECT COALESCE(MAX(position), 0) FROM campaign_contacts WHERE campaign = $1");
        let last: i64 = self.one(last.bind(&campaign.id)).await?.first()?;
        let mut known = sql("SELECT phone, MIN(id) AS id, MAX(dnc) AS dnc FROM contacts WHERE tenant = $1 \
             AND phone IN ")
        .bind(&campaign.tenant);
        known.push_list(new.iter().map(|contact| contact.phone.e164())).push(" GROUP BY phone");
        let mut there: BTreeMap<String, (String, bool)> = BTreeMap::new();
        for row in self.all(known).await? {
            let dnc = column::<i64>(&row, "dnc")? != 0;
            there.insert(column(&row, "phone")?, (column(&row, "id")?, dnc));
        }
        let mut made = Vec::new();
        for about in new.iter().filter(|about| !there.contains_key(&about.phone.e164())) {
            made.push(Contact { id: ids::cuid()?, about: about.clone(), created_at: at });
        }
        self.insert_contacts(&campaign.tenant, &made).await?;
        let made = made.into_iter().map(|made| (made.about.phone.e164(), (made.id, made.about.dnc)));
        there.extend(made);
        let mut insert = sql(
            "INSERT INTO campaign_contacts (campaign, position, contact, phone, name, variables, timezone, state, \
             next_at, last_outcome) VALUES ",
        );
        for (index, (position, about)) in (last + 1..).zip(new).enumerate() {
            let phone = about.phone.e164();
            let (id, dnc) = there.get(&phone).cloned().unwrap_or_default();
            let dnc = dnc || about.dnc;
            insert.push(if index == 0 { "(" } else { ", (" }).push_bind(&campaign.id);
            insert.push(", ").push_bind(position);
            insert.push(", ").push_bind(id);
            insert.push(", ").push_bind(phone);
            insert.push(", ").push_bind(&about.name);
            insert.push(", ").push_bind(rows::write_object(&about.variables));
            insert.push(", ").push_bind(&about.timezone);
            insert.push(", ").push_bind(if dnc { "skipped" } else { "pending" });
            insert.push(", ").push_bind(at.0);
            insert.push(", ").push_bind(dnc.then_some("dnc")).push(")");
        }
        insert.push(" ON CONFLICT (campaign, phone) DO NOTHING");
        Ok(Some(usize::try_from(self.run(insert).await?).unwrap_or(usize::MAX)))
    }

    /// Takes a contact for a call that this transaction has inserted; `None`: it has it. Every limit is asked here, with
    /// the rows locked that others would count by, so that it holds however many processes call for the campaign.
    pub async fn claim_contact(
        &mut self,
        view: &CallView,
        now: Timestamp,
    ) -> Result<Option<Untaken>, StoreError> {
        let order = &view.order;
        let (Some(campaign), Some(contact)) = (&order.purpose.campaign, &order.purpose.contact) else {
            return Ok(None);
        };
        // Locks the campaign: what is counted next cannot change any more.
        let active = sql("UPDATE campaigns SET name = name WHERE id = $1 AND status = 'active' \
             RETURNING max_concurrent, calls_per_second, number_per_day");
        let Some(row) = self.optional(active.bind(campaign)).await? else { return Ok(Some(Untaken::Shut)) };
        let most: i64 = column(&row, "max_concurrent")?;
        let up = sql("SELECT COUNT(*) FROM campaign_contacts WHERE campaign = $1 AND state = 'dialing'");
        if self.one(up.bind(campaign)).await?.first::<i64>()? >= most {
            return Ok(Some(Untaken::Shut));
        }
        // By one clock, whoever asks.
        let taken_at = self.clock(now).await?;
        let begun = sql("SELECT COUNT(*) FROM campaign_contacts WHERE campaign = $1 AND taken_at > $2");
        let begun = begun.bind(campaign).bind(taken_at.plus_ms(-SECOND_MS).0);
        if self.one(begun).await?.first::<i64>()? >= column(&row, "calls_per_second")? {
            return Ok(Some(Untaken::Shut));
        }
        if let Some(most) = column::<Option<i64>>(&row, "number_per_day")?
            && let Some(until) = self.called_too_often(view, most, now).await?
        {
            return Ok(Some(Untaken::TooOften(until)));
        }
        let claim = sql(
            "UPDATE campaign_contacts SET state = 'dialing', attempts = attempts + 1, call = $3, taken_at = $7 \
             WHERE campaign = $1 AND contact = $2 AND phone = $6 AND state = 'pending' AND next_at <= $4 \
             AND NOT EXISTS (SELECT 1 FROM contacts c WHERE c.tenant = $5 AND c.phone = $6 AND c.dnc = 1)",
        )
        .bind(campaign)
        .bind(contact)
        .bind(order.id.hex())
        .bind(now.0)
        .bind(&order.tenant)
        .bind(order.to.e164())
        .bind(taken_at.0);
        Ok(if self.run(claim).await? == 1 { None } else { Some(Untaken::Elsewhere) })
    }

    /// The moment by the clock that all processes share: the database's, where there are several.
    async fn clock(&mut self, now: Timestamp) -> Result<Timestamp, StoreError> {
        if !self.is_shared() {
            return Ok(now);
        }
        let clock = sql("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)");
        Ok(Timestamp(self.one(clock).await?.first()?))
    }

    /// When campaigns may call a number again that they have called `most` times in a day, the call at hand not counted.
    async fn called_too_often(
        &mut self,
        view: &CallView,
        most: i64,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let order = &view.order;
        self.lock_number(&order.tenant, &order.to).await?;
        let calls = sql("SELECT COUNT(*) AS calls, MIN(created_at) AS first FROM calls WHERE tenant = $1 \
             AND number = $2 AND campaign IS NOT NULL AND created_at > $3 AND id <> $4");
        let calls = calls.bind(&order.tenant).bind(order.to.digits()).bind(now.plus_ms(-DAY_MS).0);
        let row = self.one(calls.bind(order.id.hex())).await?;
        let first = column::<Option<i64>>(&row, "first")?.map_or(now, Timestamp);
        Ok((column::<i64>(&row, "calls")? >= most).then(|| first.plus_ms(DAY_MS)))
    }

    /// Keeps everybody else's decisions about a number out until the end of the transaction: other campaigns may have it,
    /// too, and no row is theirs together.
    async fn lock_number(&mut self, tenant: &str, phone: &PhoneNumber) -> Result<(), StoreError> {
        if self.is_shared() {
            let lock = sql("SELECT pg_advisory_xact_lock(CAST($1 AS INTEGER), hashtext($2))");
            let name = format!("{tenant} {}", phone.e164());
            self.run(lock.bind(NUMBERS_LOCKED).bind(name)).await?;
        }
        Ok(())
    }

    /// Whoever is called has pressed a key. Where it is the one by which their campaign lets them ask not to be called
    /// again: the number is on the tenant's do-not-call list from here on, the contact's outcome says so, and campaigns
    /// that still had the number skip it. Whether it is.
    pub async fn opt_out(&mut self, view: &CallView, key: char, at: Timestamp) -> Result<bool, StoreError> {
        let order = &view.order;
        let Some(campaign) = &order.purpose.campaign else { return Ok(false) };
        let asked = sql("SELECT id FROM campaigns WHERE id = $1 AND opt_out_key = $2");
        if self.optional(asked.bind(campaign).bind(key.to_string())).await?.is_none() {
            return Ok(false);
        }
        let (tenant, phone) = (&order.tenant, order.to.e164());
        self.lock_number(tenant, &order.to).await?;
        let known = sql("UPDATE contacts SET dnc = 1 WHERE tenant = $1 AND phone = $2");
        if self.run(known.bind(tenant).bind(&phone)).await? == 0 {
            let (name, variables, timezone) = (String::new(), Map::new(), String::new());
            let about = NewContact { phone: order.to.clone(), name, variables, timezone, dnc: true };
            self.insert_contacts(tenant, &[Contact { id: ids::cuid()?, about, created_at: at }]).await?;
        }
        let own = sql("UPDATE campaign_contacts SET last_outcome = $3 WHERE campaign = $1 AND call = $2 \
             AND state = 'dialing'");
        self.run(own.bind(campaign).bind(order.id.hex()).bind(OPTED_OUT)).await?;
        let others = sql("UPDATE campaign_contacts SET state = 'skipped', last_outcome = 'dnc' \
             WHERE phone = $1 AND state = 'pending' AND campaign IN (SELECT id FROM campaigns \
             WHERE tenant = $2 AND status IN ('active', 'paused'))");
        self.run(others.bind(&phone).bind(tenant)).await?;
        Ok(true)
    }

    /// The call of a contact is over: it is final, or pending again where its campaign tries it again. A call that the
    /// server's stop cut off before anybody answered does not count.
    pub async fn finish_contact(&mut self, view: &CallView, at: Timestamp) -> Result<(), StoreError> {
        let (Some(campaign), Some(end)) = (&view.order.purpose.campaign, view.end) else { return Ok(()) };
        let completed = super::calls::outcome(view) == "completed";
        let fate = match end.reason {
            EndReason::NoAnswer | EndReason::Busy | EndReason::TrunkFailure => "again",
            EndReason::Shutdown => "cut",
            EndReason::NormalHangup
            | EndReason::ApiHangup
            | EndReason::Rejected
            | EndReason::NotFound
            | EndReason::Canceled
            | EndReason::MaxDuration
            | EndReason::MediaTimeout
            | EndReason::InsufficientCredits
            | EndReason::EngineRestart => "failed",
        };
        let fate = if completed { "done" } else { fate };
        let outcome = if completed { "completed" } else { end.reason.as_str() };
        let finish = sql(
            "UPDATE campaign_contacts SET state = CASE WHEN last_outcome = $6 THEN 'done' \
             WHEN $4 = 'cut' THEN 'pending' WHEN $4 = 'again' THEN CASE WHEN attempts < (SELECT max_attempts FROM campaigns WHERE id = $1) \
             THEN 'pending' ELSE 'failed' END ELSE $4 END, \
             attempts = attempts - CASE WHEN $4 = 'cut' THEN 1 ELSE 0 END, \
             last_outcome = CASE WHEN last_outcome = $6 THEN $6 ELSE $3 END, \
             next_at = $5 + (SELECT retry_s FROM campaigns WHERE id = $1) * 1000 \
             WHERE campaign = $1 AND call = $2 AND state = 'dialing'",
        )
        .bind(campaign)
        .bind(view.order.id.hex())
        .bind(outcome)
        .bind(fate)
        .bind(at.0)
        .bind(OPTED_OUT);
        self.run(finish).await?;
        Ok(())
    }
}

fn read_contact(row: &Row) -> Result<CampaignContact, StoreError> {
    Ok(CampaignContact {
        position: column(row, "position")?,
        contact: column(row, "contact")?,
        phone: read_phone(row, "phone")?,
        name: column(row, "name")?,
        variables: rows::read_object(&column::<String>(row, "variables")?)?,
        timezone: column(row, "timezone")?,
        state: column(row, "state")?,
        attempts: column(row, "attempts")?,
        next_at: Timestamp(column(row, "next_at")?),
        last_outcome: column(row, "last_outcome")?,
    })
}
