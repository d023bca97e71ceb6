//! What a campaign would do if it went on now: whom it would call, whom not and why, and what keeps it from calling at
//! all. It asks what the driver asks, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::driver::{hours_of, too_often};
use crate::control::agents::idle;
use crate::control::{Rooms, policy};
use crate::model::Timestamp;
use crate::model::account::ApiKey;
use crate::store::StoreError;
use crate::store::agents::AgentName;
use crate::store::campaign_contacts::CampaignContact;
use crate::store::campaigns::Campaign;

/// Contacts looked at together.
const PAGE: u32 = 1000;

/// What a campaign would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preflight {
    /// Contacts that it would call.
    pub will_call: i64,
    /// Those that it would not, by the reason: `finished`, `dialing`, `dnc`, `not_allowed`, `too_often`, `never_open`.
    pub skipped: BTreeMap<String, i64>,
    /// When it may call next, by the campaign's own clocks; `None`: never.
    pub opens_at: Option<Timestamp>,
    /// Until when, from then on; `None`: for ever.
    pub closes_at: Option<Timestamp>,
    /// What keeps it from calling anybody.
    pub problems: Vec<&'static str>,
}

/// Looks at every contact of a campaign.
///
/// # Errors
/// A database that failed.
pub async fn preflight(rooms: &Rooms, campaign: &Campaign, now: Timestamp) -> Result<Preflight, StoreError> {
    let hours = hours_of(campaign);
    let zone = TimeZone::get(&campaign.about.timezone).unwrap_or(TimeZone::UTC);
    let from = now.max(campaign.about.starts_at);
    let opens_at = hours.next_open(from, &zone);
    let closes_at = opens_at.and_then(|opens| hours.next_shut(opens, &zone));
    let key = rooms.db.key(campaign.key).await?;
    let problems = problems(rooms, campaign, key.as_ref(), now).await?;
    let mut found = Preflight { opens_at, closes_at, problems, ..Preflight::default() };
    if opens_at.is_none() {
        found.problems.push("the hours never come");
    }
    let mut offset = 0;
    loop {
        let (page, _) = rooms.db.campaign_contacts(&campaign.id, PAGE, offset).await?;
        let phones: Vec<_> = page.iter().map(|contact| contact.phone.clone()).collect();
        let dnc = rooms.db.not_to_be_called(&campaign.tenant, &phones).await?;
        for contact in &page {
            let reason = if contact.state == "pending" && dnc.contains(&contact.phone) {
                Some("dnc".to_owned())
            } else {
                reason(rooms, (campaign, key.as_ref()), contact, now).await?
            };
            match reason {
                Some(reason) => *found.skipped.entry(reason).or_default() += 1,
                None => found.will_call += 1,
            }
        }
        if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            return Ok(found);
        }
        offset += PAGE;
    }
}

/// Why a contact would not be called; `None`: it would.
async fn reason(
    rooms: &Rooms,
    (campaign, key): (&Campaign, Option<&ApiKey>),
    contact: &CampaignContact,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let own = contact.last_outcome.clone();
    let reason = match contact.state.as_str() {
        "pending" => None,
        "skipped" => Some(own.unwrap_or_else(|| "skipped".to_owned())),
        "dialing" => Some("dialing".to_owned()),
        _ => Some("finished".to_owned()),
    };
    if reason.is_some() {
        return Ok(reason);
    }
    if key.is_some_and(|key| policy::may_call(&key.policy, &contact.phone).is_err()) {
        return Ok(Some("not_allowed".to_owned()));
    }
    let theirs = TimeZone::get(&contact.timezone).ok().filter(|_| !contact.timezone.is_empty());
    if theirs.is_some_and(|zone| hours_of(campaign).next_open(now, &zone).is_none()) {
        return Ok(Some("never_open".to_owned()));
    }
    let often = too_often(rooms, campaign, contact, now).await?;
    Ok(often.map(|_| "too_often".to_owned()))
}

/// What keeps a campaign from calling anybody.
async fn problems(
    rooms: &Rooms,
    campaign: &Campaign,
    key: Option<&ApiKey>,
    now: Timestamp,
) -> Result<Vec<&'static str>, StoreError> {
    let mut problems = BTreeSet::new();
    match key {
        None => drop(problems.insert("the key is gone")),
        Some(key) => {
            if key.revoked_at.is_some() || key.expires_at.is_some_and(|end| end <= now) {
                problems.insert("the key is revoked or expired");
            }
            if key.suspended {
                problems.insert("the tenant is suspended");
            }
            if key.credits.is_some_and(|credits| credits - key.held < 1) {
                problems.insert("there are no credits");
            }
            if rooms.db.key_trunks(key.id).await?.is_empty() {
                problems.insert("the key has no trunk");
            }
        }
    }
    let agent = rooms.db.agent(&campaign.tenant, AgentName::Row(campaign.about.agent)).await?;
    if agent.is_none_or(|agent| idle(&agent).is_some()) {
        problems.insert("the agent is not active, or places no calls");
    }
    if rooms.db.number_of_id(&campaign.tenant, &campaign.about.number).await?.is_none() {
        problems.insert("the phone number is gone");
    }
    Ok(problems.into_iter().collect())
}
