//! Agents: one row for both surfaces that have them. Soft deletion only, because history keeps naming them
//! (CONTRACT 3 S47).

use serde_json::{Map, Value, json};

use super::audit::By;
use super::keys::difference;
use super::sql::{Row, Statement, column, flag, sql};
use super::{Db, StoreError, Tx, rows};
use crate::model::Timestamp;
use crate::model::agent::{Agent, AgentKind, AgentSettings, Voicemail};
use crate::model::id::agent_cuid;

/// An agent by one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentName<'a> {
    /// The row's id.
    Row(i64),
    /// `agent_<n>` or the cuid: each surface accepts either (CONTRACT 2.1 C1).
    Public(&'a str),
}

/// What came of making an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum MadeAgent {
    /// It is there.
    Made(Box<Agent>),
    /// The tenant, or the plan, has as many as it may have.
    Full,
}

/// What the audit log tells of settings: prompts and first words are the customer's business.
fn told(settings: &AgentSettings) -> Map<String, Value> {
    let pairs = [
        ("name", json!(settings.name)),
        ("kind", json!(settings.kind.as_str())),
        ("active", json!(settings.active)),
        ("voice", json!(settings.voice)),
        ("language", json!(settings.language)),
        ("maxCallDurationS", json!(settings.max_call_duration_s)),
        ("record", json!(settings.record)),
        ("voicemail", json!(settings.voicemail.as_str())),
        ("tools", settings.tools.iter().map(|tool| tool.name.as_str()).collect()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Db {
    /// Makes an agent of a tenant's, unless the tenant has `most` already, or as many as its own limit says.
    pub async fn create_agent(
        &self,
        tenant: &str,
        settings: AgentSettings,
        most: Option<u32>,
        by: impl Into<By>,
    ) -> Result<MadeAgent, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        // An update that changes nothing locks the row: two that come together are counted one after the other.
        tx.run(sql("UPDATE tenants SET name = name WHERE id = $1").bind(tenant)).await?;
        let row = tx
            .one(
                sql("SELECT t.max_agents AS own, (SELECT COUNT(*) FROM agents a WHERE a.tenant = t.id \
                     AND a.deleted_at IS NULL) AS there FROM tenants t WHERE t.id = $1")
                .bind(tenant),
            )
            .await?;
        let (own, there): (Option<i64>, i64) = (column(&row, "own")?, column(&row, "there")?);
        let limits = [own, most.map(i64::from)];
        if limits.into_iter().flatten().any(|most| there >= most) {
            return Ok(MadeAgent::Full);
        }
        let agent = Agent {
            id: tx.count("agents").await?,
            cuid: String::new(),
            tenant: tenant.to_owned(),
            settings,
            created_at: by.at,
            updated_at: by.at,
        };
        let agent = Agent { cuid: agent_cuid(agent.id), ..agent };
        tx.insert_agent(&agent).await?;
        tx.audit(&by, "agent.create", &agent.phony_id(), &Value::Object(told(&agent.settings))).await?;
        tx.commit().await?;
        Ok(MadeAgent::Made(Box::new(agent)))
    }

    /// A tenant's agent that has not been deleted.
    pub async fn agent(&self, tenant: &str, name: AgentName<'_>) -> Result<Option<Agent>, StoreError> {
        Ok(self.agent_ever(tenant, name).await?.filter(|(_, deleted)| !deleted).map(|(agent, _)| agent))
    }

    /// A tenant's agent, and whether it has been deleted.
    pub async fn agent_ever(
        &self,
        tenant: &str,
        name: AgentName<'_>,
    ) -> Result<Option<(Agent, bool)>, StoreError> {
        let row = self.optional(select_agent(tenant, name)).await?;
        let read = |row: &Row| {
            let deleted: Option<i64> = column(row, "deleted_at")?;
            Ok((read_agent(row)?, deleted.is_some()))
        };
        row.as_ref().map(read).transpose()
    }

    /// Whose an agent is that has not been deleted, by the name that the surfaces show.
    pub async fn tenant_of_agent(&self, name: &str) -> Result<Option<String>, StoreError> {
        let found = sql("SELECT tenant FROM agents WHERE (id = $1 OR cuid = $2) AND deleted_at IS NULL");
        let row = self.optional(found.bind(row_of(name).unwrap_or(-1)).bind(name)).await?;
        row.as_ref().map(|row| column(row, "tenant")).transpose()
    }

    /// A tenant's agents, oldest first.
    pub async fn agents(&self, tenant: &str, limit: u32, offset: u32) -> Result<Vec<Agent>, StoreError> {
        let page = sql(
            "SELECT * FROM agents WHERE tenant = $1 AND deleted_at IS NULL ORDER BY id LIMIT $2 OFFSET $3",
        );
        let rows = self.all(page.bind(tenant).bind(i64::from(limit)).bind(i64::from(offset))).await?;
        rows.iter().map(read_agent).collect()
    }

    /// How many agents a tenant has.
    pub async fn agent_count(&self, tenant: &str) -> Result<i64, StoreError> {
        let count = sql("SELECT COUNT(*) FROM agents WHERE tenant = $1 AND deleted_at IS NULL");
        self.one(count.bind(tenant)).await?.first()
    }

    /// Changes an agent: `change` is given its settings as they are. `None` if there is no such agent.
    pub async fn change_agent(
        &self,
        tenant: &str,
        name: AgentName<'_>,
        change: impl FnOnce(&mut AgentSettings),
        by: impl Into<By>,
    ) -> Result<Option<Agent>, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        tx.run(sql("UPDATE tenants SET name = name WHERE id = $1").bind(tenant)).await?;
        let Some(mut agent) = tx.agent(tenant, name).await? else { return Ok(None) };
        let before = told(&agent.settings);
        change(&mut agent.settings);
        agent.updated_at = by.at;
        tx.update_agent(&agent).await?;
        let changed = difference(&before, &told(&agent.settings));
        tx.audit(&by, "agent.change", &agent.phony_id(), &Value::Object(changed)).await?;
        tx.commit().await?;
        Ok(Some(agent))
    }

    /// Whether a live call is an agent's.
    pub async fn agent_has_calls(&self, id: i64) -> Result<bool, StoreError> {
        let live = sql("SELECT id FROM calls WHERE agent = $1 AND state <> 'ended' LIMIT 1");
        Ok(self.optional(live.bind(id)).await?.is_some())
    }

    /// Deletes an agent: it is found no more, history keeps it, and calls to its numbers are nobody's. `false` if there
    /// is no such agent.
    pub async fn delete_agent(&self, tenant: &str, id: i64, by: impl Into<By>) -> Result<bool, StoreError> {
        let by = by.into();
        let mut tx = self.begin().await?;
        let deleted = sql("UPDATE agents SET deleted_at = $3, active = 0 WHERE tenant = $1 AND id = $2 \
                           AND deleted_at IS NULL");
        if tx.run(deleted.bind(tenant).bind(id).bind(by.at.0)).await? == 0 {
            return Ok(false);
        }
        let numbers = sql("UPDATE numbers SET action = 'nothing', target = '' WHERE tenant = $1 \
                           AND action = 'agent' AND target IN ($2, $3)");
        tx.run(numbers.bind(tenant).bind(format!("agent_{id}")).bind(agent_cuid(id))).await?;
        tx.audit(&by, "agent.delete", &format!("agent_{id}"), &json!({})).await?;
        tx.commit().await?;
        Ok(true)
    }
}

impl Tx {
    /// A tenant's agent that has not been deleted.
    pub(super) async fn agent(
        &mut self,
        tenant: &str,
        name: AgentName<'_>,
    ) -> Result<Option<Agent>, StoreError> {
        let mut living = select_agent(tenant, name);
        living.push(" AND deleted_at IS NULL");
        self.optional(living).await?.as_ref().map(read_agent).transpose()
    }

    async fn insert_agent(&mut self, agent: &Agent) -> Result<(), StoreError> {
        let settings = &agent.settings;
        self.run(sql(
            "INSERT INTO agents (id, cuid, tenant, name, kind, active, system_prompt, first_message, voice, \
             language, max_call_duration_s, record, context, relay_url, relay_keeps, created_at, \
             updated_at, voicemail, voicemail_message, tools) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
             $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
        )
        .bind(agent.id)
        .bind(&agent.cuid)
        .bind(&agent.tenant)
        .bind(&settings.name)
        .bind(settings.kind.as_str())
        .bind(i64::from(settings.active))
        .bind(&settings.system_prompt)
        .bind(settings.first_message.as_deref())
        .bind(&settings.voice)
        .bind(&settings.language)
        .bind(settings.max_call_duration_s.map(i64::from))
        .bind(i64::from(settings.record))
        .bind(rows::write_object(&settings.context))
        .bind(settings.relay_url.as_deref())
        .bind(i64::from(settings.relay_keeps))
        .bind(agent.created_at.0)
        .bind(agent.updated_at.0)
        .bind(settings.voicemail.as_str())
        .bind(settings.voicemail.message())
        .bind(rows::write_tools(&settings.tools)))
        .await?;
        Ok(())
    }

    async fn update_agent(&mut self, agent: &Agent) -> Result<(), StoreError> {
        let settings = &agent.settings;
        self.run(sql(
            "UPDATE agents SET name = $2, kind = $3, active = $4, system_prompt = $5, first_message = $6, \
             voice = $7, language = $8, max_call_duration_s = $9, record = $10, context = $11, relay_url = $12, \
             relay_keeps = $13, updated_at = $14, voicemail = $15, voicemail_message = $16, tools = $17 WHERE id = $1",
        )
        .bind(agent.id)
        .bind(&settings.name)
        .bind(settings.kind.as_str())
        .bind(i64::from(settings.active))
        .bind(&settings.system_prompt)
        .bind(settings.first_message.as_deref())
        .bind(&settings.voice)
        .bind(&settings.language)
        .bind(settings.max_call_duration_s.map(i64::from))
        .bind(i64::from(settings.record))
        .bind(rows::write_object(&settings.context))
        .bind(settings.relay_url.as_deref())
        .bind(i64::from(settings.relay_keeps))
        .bind(agent.updated_at.0)
        .bind(settings.voicemail.as_str())
        .bind(settings.voicemail.message())
        .bind(rows::write_tools(&settings.tools)))
        .await?;
        Ok(())
    }
}

fn select_agent(tenant: &str, name: AgentName<'_>) -> Statement {
    let (row, cuid) = match name {
        AgentName::Row(id) => (id, ""),
        AgentName::Public(text) => (row_of(text).unwrap_or(-1), text),
    };
    sql("SELECT * FROM agents WHERE tenant = $1 AND (id = $2 OR cuid = $3)").bind(tenant).bind(row).bind(cuid)
}

/// The row of `agent_<n>`.
fn row_of(name: &str) -> Option<i64> {
    let digits = name.strip_prefix("agent_")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

fn read_agent(row: &Row) -> Result<Agent, StoreError> {
    let kind = AgentKind::from_text(&column::<String>(row, "kind")?);
    let seconds: Option<i64> = column(row, "max_call_duration_s")?;
    let seconds = seconds.map(u32::try_from).transpose();
    let message: Option<String> = column(row, "voicemail_message")?;
    let voicemail = Voicemail::from_text(&column::<String>(row, "voicemail")?, message.as_deref());
    let settings = AgentSettings {
        name: column(row, "name")?,
        kind: kind.ok_or(StoreError::Unreadable("agents.kind"))?,
        active: flag(row, "active")?,
        system_prompt: column(row, "system_prompt")?,
        first_message: column(row, "first_message")?,
        voice: column(row, "voice")?,
        language: column(row, "language")?,
        max_call_duration_s: seconds.map_err(|_| StoreError::Unreadable("agents.max_call_duration_s"))?,
        record: flag(row, "record")?,
        context: rows::read_object(&column::<String>(row, "context")?)?,
        relay_url: column(row, "relay_url")?,
        relay_keeps: flag(row, "relay_keeps")?,
        voicemail: voicemail.ok_or(StoreError::Unreadable("agents.voicemail"))?,
        tools: rows::read_tools(&column::<String>(row, "tools")?)?,
    };
    Ok(Agent {
        id: column(row, "id")?,
        cuid: column(row, "cuid")?,
        tenant: column(row, "tenant")?,
        settings,
        created_at: Timestamp(column(row, "created_at")?),
        updated_at: Timestamp(column(row, "updated_at")?),
    })
}
