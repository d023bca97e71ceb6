//! Numbers that may be called, whose they are, and what happens on a call to one (CONTRACT 0.8 `numbers`, 3 S22, S23).
//! This room keeps them; calls that come in are the engine's.

use serde_json::{Map, Value, json};

use super::agents::AgentName;
use super::audit::By;
use super::keys::difference;
use super::sql::{Row, Statement, column, sql};
use super::{Db, StoreError, Tx, ids};
use crate::model::{PhoneNumber, Timestamp};

/// What happens on a call to a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnCall {
    /// It is refused: 480.
    #[default]
    Nothing,
    /// It is answered at once under a key, whose application drives it and hears of it at a URL.
    Webhook {
        /// Where its events go; has passed the guard's check of its form.
        url: String,
        /// `key_…`
        key_id: String,
    },
    /// An agent talks.
    Agent(String),
    /// A sound is played, then it is hung up.
    Play(String),
    /// What is heard is said back, for trials.
    Echo,
}

impl OnCall {
    /// The word of the database and of the surfaces.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Webhook { .. } => "webhook",
            Self::Agent(_) => "agent",
            Self::Play(_) => "play",
            Self::Echo => "echo",
        }
    }

    /// What the word needs beside it: a URL, an agent, a sound.
    fn target(&self) -> &str {
        match self {
            Self::Webhook { url, .. } => url,
            Self::Agent(agent) => agent,
            Self::Play(sound) => sound,
            Self::Nothing | Self::Echo => "",
        }
    }

    /// The key that answers, by its public id.
    fn key_id(&self) -> Option<&str> {
        match self {
            Self::Webhook { key_id, .. } => Some(key_id),
            Self::Nothing | Self::Agent(_) | Self::Play(_) | Self::Echo => None,
        }
    }
}

/// A number of a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// `num_` and 24 hex digits.
    pub id: String,
    /// The number.
    pub number: PhoneNumber,
    /// `PN` and 32 hex digits; made here, no Twilio behind it.
    pub sid: String,
    /// Whose it is.
    pub tenant: String,
    /// For people.
    pub friendly_name: String,
    /// The trunk that its calls come by, and that calls from it leave by; `None`: any.
    pub trunk: Option<String>,
    /// What happens on a call to it.
    pub on_call: OnCall,
    /// Imported.
    pub created_at: Timestamp,
}

impl Number {
    fn settings(&self) -> Map<String, Value> {
        let pairs = [
            ("tenant", json!(self.tenant)),
            ("friendlyName", json!(self.friendly_name)),
            ("trunk", json!(self.trunk)),
            ("onCall", json!(self.on_call.as_str())),
            ("target", json!(told_target(self.on_call.target()))),
            ("keyId", json!(self.on_call.key_id())),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A target as the audit log tells it: what follows the question mark of a URL may be a secret.
fn told_target(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

/// A number to be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNumber {
    /// The number.
    pub number: PhoneNumber,
    /// A tenant's id or subdomain; made where it is missing.
    pub tenant: String,
    /// For people; empty: the number itself.
    pub friendly_name: String,
    /// A trunk's name.
    pub trunk: Option<String>,
    /// What happens on a call to it.
    pub on_call: OnCall,
}

/// All of what [`read_number`] reads.
const COLUMNS: &str = "SELECT n.*, t.name AS trunk_name, k.key_id FROM numbers n \
                       LEFT JOIN trunks t ON t.id = n.trunk LEFT JOIN api_keys k ON k.id = n.api_key ";

fn select_numbers() -> Statement {
    sql(COLUMNS)
}

impl Db {
    /// Imports a number.
    ///
    /// # Errors
    /// [`StoreError::Taken`] for one that is known; [`StoreError::UnknownTrunks`]; [`StoreError::UnknownKey`] also for
    /// a key of another tenant; [`StoreError::UnknownAgent`] likewise.
    pub async fn add_number(&self, new: &NewNumber, by: impl Into<By>) -> Result<Number, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        let tenant = tx.tenant(&new.tenant, &by).await?;
        let e164 = new.number.e164();
        let friendly_name =
            if new.friendly_name.is_empty() { e164.clone() } else { new.friendly_name.clone() };
        let number = Number {
            id: ids::hex_name("num_", 12)?,
            number: new.number.clone(),
            sid: ids::hex_name("PN", 16)?,
            tenant,
            friendly_name,
            trunk: new.trunk.clone(),
            on_call: new.on_call.clone(),
            created_at: by.at,
        };
        let (trunk, key) = tx.references(&number).await?;
        let insert = sql(
            "INSERT INTO numbers (id, e164, sid, tenant, friendly_name, trunk, action, target, api_key, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (e164) DO NOTHING",
        );
        let insert = insert.bind(&number.id).bind(&e164).bind(&number.sid).bind(&number.tenant);
        let insert = insert.bind(&number.friendly_name).bind(trunk).bind(number.on_call.as_str());
        let insert = insert.bind(number.on_call.target()).bind(key).bind(by.at.0);
        if tx.run(insert).await? == 0 {
            return Err(StoreError::Taken("number", e164));
        }
        tx.audit(&by, "number.create", &e164, &number.settings().into()).await?;
        tx.commit().await?;
        Ok(number)
    }

    /// One number.
    pub async fn number(&self, number: &PhoneNumber) -> Result<Option<Number>, StoreError> {
        let mut one = select_numbers();
        one.push("WHERE n.e164 = ").push_bind(number.e164());
        self.optional(one).await?.as_ref().map(read_number).transpose()
    }

    /// One of a tenant's numbers by its id.
    pub async fn number_of_id(&self, tenant: &str, id: &str) -> Result<Option<Number>, StoreError> {
        let mut one = select_numbers();
        one.push("WHERE n.id = ").push_bind(id).push(" AND n.tenant = ").push_bind(tenant);
        self.optional(one).await?.as_ref().map(read_number).transpose()
    }

    /// A page of numbers in their order, of one tenant or of all, and how many there are in all.
    pub async fn numbers(
        &self,
        tenant: Option<&str>,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Number>, i64), StoreError> {
        let (mut page, mut count) = (select_numbers(), sql("SELECT COUNT(*) FROM numbers n "));
        if let Some(tenant) = tenant {
            page.push("WHERE n.tenant = ").push_bind(tenant);
            count.push("WHERE n.tenant = ").push_bind(tenant);
        }
        page.push(" ORDER BY n.e164 LIMIT ").push_bind(i64::from(limit));
        page.push(" OFFSET ").push_bind(i64::from(offset));
        let total = self.one(count).await?.first()?;
        let numbers = self.all(page).await?.iter().map(read_number).collect::<Result<_, _>>()?;
        Ok((numbers, total))
    }

    /// The first of a tenant's numbers that an agent of one of these names has.
    pub async fn number_of_agent(
        &self,
        tenant: &str,
        names: [&str; 2],
    ) -> Result<Option<Number>, StoreError> {
        let mut one = select_numbers();
        one.push("WHERE n.tenant = ").push_bind(tenant).push(" AND n.action = 'agent' AND n.target IN ");
        one.push_list(names).push(" ORDER BY n.e164 LIMIT 1");
        self.optional(one).await?.as_ref().map(read_number).transpose()
    }

    /// Whether a number is one of the tenant's.
    pub async fn owns_number(&self, tenant: &str, number: &PhoneNumber) -> Result<bool, StoreError> {
        let find = sql("SELECT id FROM numbers WHERE tenant = $1 AND e164 = $2");
        Ok(self.optional(find.bind(tenant).bind(number.e164())).await?.is_some())
    }

    /// Changes a number: `change` is given it as it is and sets fields of it; what it does to the id, the number, the
    /// sid, the tenant and the moment of import is not stored.
    ///
    /// # Errors
    /// [`StoreError::UnknownNumber`], and those of [`Db::add_number`].
    pub async fn change_number(
        &self,
        number: &PhoneNumber,
        by: impl Into<By>,
        change: impl FnOnce(&mut Number),
    ) -> Result<Number, StoreError> {
        let e164 = number.e164();
        let mut tx = self.begin().await?;
        // An update that changes nothing locks the row, whichever the database.
        tx.run(sql("UPDATE numbers SET sid = sid WHERE e164 = $1").bind(&e164)).await?;
        let mut one = select_numbers();
        one.push("WHERE n.e164 = ").push_bind(&e164);
        let found = tx.optional(one).await?.as_ref().map(read_number).transpose()?;
        let before = found.ok_or_else(|| StoreError::UnknownNumber(e164.clone()))?;
        let mut after = before.clone();
        change(&mut after);
        let after = Number {
            friendly_name: after.friendly_name,
            trunk: after.trunk,
            on_call: after.on_call,
            ..before.clone()
        };
        if after == before {
            return Ok(before);
        }
        let mut told = difference(&before.settings(), &after.settings());
        if told.is_empty() {
            told.insert("target".to_owned(), json!("changed"));
        }
        let (trunk, key) = tx.references(&after).await?;
        let update =
            sql("UPDATE numbers SET friendly_name = $2, trunk = $3, action = $4, target = $5, api_key = $6 \
             WHERE e164 = $1");
        let update = update.bind(&e164).bind(&after.friendly_name).bind(trunk).bind(after.on_call.as_str());
        tx.run(update.bind(after.on_call.target()).bind(key)).await?;
        tx.audit(&by.into(), "number.update", &e164, &told.into()).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// Forgets a number.
    ///
    /// # Errors
    /// [`StoreError::UnknownNumber`].
    pub async fn remove_number(&self, number: &PhoneNumber, by: impl Into<By>) -> Result<(), StoreError> {
        let e164 = number.e164();
        let mut tx = self.begin().await?;
        let gone = sql("DELETE FROM numbers WHERE e164 = $1 RETURNING tenant").bind(&e164);
        let Some(row) = tx.optional(gone).await? else { return Err(StoreError::UnknownNumber(e164)) };
        let told = json!({ "tenant": row.first::<String>()? });
        tx.audit(&by.into(), "number.remove", &e164, &told).await?;
        tx.commit().await
    }
}

impl Tx {
    /// The rows of the trunk and the key that a number names; an agent that it names must be its tenant's.
    async fn references(&mut self, number: &Number) -> Result<(Option<i64>, Option<i64>), StoreError> {
        let mut trunk = None;
        if let Some(name) = &number.trunk {
            let found = self.optional(sql("SELECT id FROM trunks WHERE name = $1").bind(name)).await?;
            let row = found.ok_or_else(|| StoreError::UnknownTrunks(vec![name.clone()]))?;
            trunk = Some(row.first()?);
        }
        let mut key = None;
        if let Some(key_id) = number.on_call.key_id() {
            let find =
                sql("SELECT id FROM api_keys WHERE key_id = $1 AND tenant = $2 AND revoked_at IS NULL");
            let found = self.optional(find.bind(key_id).bind(&number.tenant)).await?;
            let row = found.ok_or_else(|| StoreError::UnknownKey(key_id.to_owned()))?;
            key = Some(row.first()?);
        }
        if let OnCall::Agent(name) = &number.on_call
            && self.agent(&number.tenant, AgentName::Public(name)).await?.is_none()
        {
            return Err(StoreError::UnknownAgent(name.clone()));
        }
        Ok((trunk, key))
    }
}

fn read_number(row: &Row) -> Result<Number, StoreError> {
    let target: String = column(row, "target")?;
    let on_call = match column::<String>(row, "action")?.as_str() {
        "nothing" => OnCall::Nothing,
        "webhook" => OnCall::Webhook {
            url: target,
            key_id: column::<Option<String>>(row, "key_id")?
                .ok_or(StoreError::Unreadable("numbers.api_key"))?,
        },
        "agent" => OnCall::Agent(target),
        "play" => OnCall::Play(target),
        "echo" => OnCall::Echo,
        _ => return Err(StoreError::Unreadable("numbers.action")),
    };
    let e164: String = column(row, "e164")?;
    let number = e164.strip_prefix('+').and_then(PhoneNumber::from_digits);
    Ok(Number {
        id: column(row, "id")?,
        number: number.ok_or(StoreError::Unreadable("numbers.e164"))?,
        sid: column(row, "sid")?,
        tenant: column(row, "tenant")?,
        friendly_name: column(row, "friendly_name")?,
        trunk: column(row, "trunk_name")?,
        on_call,
        created_at: Timestamp(column(row, "created_at")?),
    })
}
