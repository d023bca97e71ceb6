//! All calls of a tenant, whichever key and surface they came by: the list that VoxForge pages through, and one of them
//! (CONTRACT 1.3, 4.3). Ended calls alone, and figures of them, are [`super::past`]'s.

use super::analyses::read_analysis;
use super::calls::read_call;
use super::sql::{Row, Statement, column, sql};
use super::{Db, StoreError};
use crate::model::analysis::Analysis;
use crate::model::call::CallView;
use crate::model::{CallId, Timestamp};

/// How far a call has come, as coarsely as lists ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not answered yet.
    Queued,
    /// Answered.
    Up,
    /// Answered, and over.
    Completed,
    /// Over without an answer, or cut off.
    Failed,
}

impl Stage {
    fn condition(self) -> &'static str {
        match self {
            Self::Queued => " AND c.state NOT IN ('answered', 'ended')",
            Self::Up => " AND c.state = 'answered'",
            Self::Completed => " AND c.state = 'ended' AND c.outcome = 'completed'",
            Self::Failed => " AND c.state = 'ended' AND c.outcome <> 'completed'",
        }
    }
}

/// Which calls are wanted; what is `None` is not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// How far they have come.
    pub stage: Option<Stage>,
    /// The agent's row.
    pub agent: Option<i64>,
    /// The campaign's id.
    pub campaign: Option<String>,
    /// Placed at that moment or later.
    pub from: Option<Timestamp>,
    /// Placed before that moment.
    pub to: Option<Timestamp>,
}

impl CallFilter {
    fn narrow(&self, statement: &mut Statement) {
        if let Some(stage) = self.stage {
            statement.push(stage.condition());
        }
        if let Some(agent) = self.agent {
            statement.push(" AND c.agent = ").push_bind(agent);
        }
        if let Some(campaign) = &self.campaign {
            statement.push(" AND c.campaign = ").push_bind(campaign);
        }
        if let Some(from) = self.from {
            statement.push(" AND c.created_at >= ").push_bind(from.0);
        }
        if let Some(to) = self.to {
            statement.push(" AND c.created_at < ").push_bind(to.0);
        }
    }
}

/// A call as it was last saved, and its recording where that is whole and still kept.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantCall {
    /// The call.
    pub view: CallView,
    /// The recording's id.
    pub recording: Option<String>,
    /// What is said of it, once it is.
    pub analysis: Option<Analysis>,
}

const CALLS: &str = "SELECT c.*, r.recording AS kept_recording, a.summary AS analysis_summary, \
     a.sentiment AS analysis_sentiment FROM calls c LEFT JOIN recordings r \
     ON r.recording = c.recording AND r.state = 'done' AND r.expired_at IS NULL \
     LEFT JOIN analyses a ON a.call = c.id AND a.state = 'done' WHERE c.tenant = $1";

impl Db {
    /// A page of a tenant's calls, newest first, and how many there are in all.
    pub async fn tenant_calls(
        &self,
        tenant: &str,
        filter: &CallFilter,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<TenantCall>, i64), StoreError> {
        let mut page = sql(CALLS).bind(tenant);
        let mut total = sql("SELECT COUNT(*) FROM calls c WHERE c.tenant = $1").bind(tenant);
        filter.narrow(&mut page);
        filter.narrow(&mut total);
        page.push(" ORDER BY c.created_at DESC, c.id DESC LIMIT ").push_bind(limit);
        page.push(" OFFSET ").push_bind(offset);
        let rows = self.all(page).await?;
        let total = self.one(total).await?.first()?;
        Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
    }

    /// One of a tenant's calls.
    pub async fn tenant_call(&self, tenant: &str, id: CallId) -> Result<Option<TenantCall>, StoreError> {
        let mut one = sql(CALLS).bind(tenant);
        one.push(" AND c.id = ").push_bind(id.hex());
        self.optional(one).await?.as_ref().map(read).transpose()
    }
}

fn read(row: &Row) -> Result<TenantCall, StoreError> {
    let recording = column(row, "kept_recording")?;
    Ok(TenantCall { view: read_call(row)?, recording, analysis: read_analysis(row)? })
}
