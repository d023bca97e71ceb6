//! A tenant's calls that are over, whichever surface and key placed them: the list, and figures by agent, hour and day
//! (CONTRACT 1.2 history and analytics). Hours and days are UTC's; a call belongs to the moment it was placed.

use super::sql::{Row, Statement, column, sql};
use super::{Db, StoreError};
use crate::model::{CallId, Timestamp};

/// Which calls are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Of this agent alone.
    pub agent: Option<i64>,
    /// Not placed before.
    pub from: Option<Timestamp>,
    /// Placed before.
    pub until: Option<Timestamp>,
}

/// One call that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastCall {
    /// The call.
    pub id: CallId,
    /// Its agent's row.
    pub agent: Option<i64>,
    /// A word of [`super::calls::outcome`].
    pub outcome: String,
    /// Somebody answered.
    pub answered: bool,
    /// Seconds from answer to end.
    pub duration_s: i64,
    /// Placed.
    pub created_at: Timestamp,
    /// Over.
    pub ended_at: Option<Timestamp>,
    /// What the application said when it gave the call back.
    pub handoff: Option<String>,
}

/// What calls are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountBy {
    /// The agent's row; calls without one are not counted.
    Agent,
    /// The hour of the day, 0 to 23.
    Hour,
    /// Days since 1970-01-01.
    Day,
}

impl CountBy {
    fn select(self) -> &'static str {
        match self {
            Self::Agent => "SELECT agent AS counted, ",
            Self::Hour => "SELECT (created_at / 3600000) % 24 AS counted, ",
            Self::Day => "SELECT created_at / 86400000 AS counted, ",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Agent => " AND agent IS NOT NULL GROUP BY agent ORDER BY agent",
            Self::Hour => " GROUP BY (created_at / 3600000) % 24 ORDER BY (created_at / 3600000) % 24",
            Self::Day => " GROUP BY created_at / 86400000 ORDER BY created_at / 86400000",
        }
    }
}

/// Calls of one agent, hour or day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Which agent, hour or day.
    pub of: i64,
    /// All that are over.
    pub calls: i64,
    /// Those that somebody answered.
    pub answered: i64,
    /// Seconds from answer to end, of all together.
    pub seconds: i64,
}

fn chosen(statement: &mut Statement, past: &Past<'_>) {
    statement.push(" FROM calls WHERE state = 'ended' AND tenant = ").push_bind(past.tenant);
    if let Some(agent) = past.agent {
        statement.push(" AND agent = ").push_bind(agent);
    }
    if let Some(from) = past.from {
        statement.push(" AND created_at >= ").push_bind(from.0);
    }
    if let Some(until) = past.until {
        statement.push(" AND created_at < ").push_bind(until.0);
    }
}

impl Db {
    /// A page of a tenant's calls that are over, newest first, and how many there are in all.
    pub async fn past_calls(
        &self,
        past: &Past<'_>,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<PastCall>, i64), StoreError> {
        let mut page =
            sql("SELECT id, agent, outcome, answered_at, duration_s, created_at, ended_at, handoff");
        chosen(&mut page, past);
        page.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(limit));
        page.push(" OFFSET ").push_bind(i64::from(offset));
        let mut total = sql("SELECT COUNT(*)");
        chosen(&mut total, past);
        let rows = self.all(page).await?;
        let total = self.one(total).await?.first()?;
        Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
    }

    /// A tenant's calls that are over, counted; in the order of what they are counted by.
    pub async fn tallies(&self, past: &Past<'_>, by: CountBy) -> Result<Vec<Tally>, StoreError> {
        let mut count = sql(by.select());
        count.push(
            "COUNT(*) AS calls, CAST(SUM(CASE WHEN answered_at IS NULL THEN 0 ELSE 1 END) AS BIGINT) AS answered, \
             CAST(SUM(duration_s) AS BIGINT) AS seconds",
        );
        chosen(&mut count, past);
        count.push(by.group());
        let tally = |row: &Row| {
            Ok(Tally {
                of: column(row, "counted")?,
                calls: column(row, "calls")?,
                answered: column(row, "answered")?,
                seconds: column(row, "seconds")?,
            })
        };
        self.all(count).await?.iter().map(tally).collect()
    }
}

fn read(row: &Row) -> Result<PastCall, StoreError> {
    let id = CallId::from_hex(&column::<String>(row, "id")?);
    Ok(PastCall {
        id: id.ok_or(StoreError::Unreadable("calls.id"))?,
        agent: column(row, "agent")?,
        outcome: column(row, "outcome")?,
        answered: column::<Option<i64>>(row, "answered_at")?.is_some(),
        duration_s: column(row, "duration_s")?,
        created_at: Timestamp(column(row, "created_at")?),
        ended_at: column::<Option<i64>>(row, "ended_at")?.map(Timestamp),
        handoff: column(row, "handoff")?,
    })
}
