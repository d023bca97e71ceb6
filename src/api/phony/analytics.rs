//! Phony's figures of calls that are over (CONTRACT 1.2 analytics): of a tenant, and of one agent. Periods roll back from
//! now; hours and days are UTC's.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Segment, agents, segment, stored, tenant_of, words};
use crate::api::admin::Query;
use crate::api::fault::Fault;
use crate::api::openapi::{Route, route};
use crate::api::{App, json};
use crate::clock;
use crate::control::Caller;
use crate::model::Timestamp;
use crate::store::agents::AgentName;
use crate::store::history::DAY_MS;
use crate::store::past::{CountBy, Past, Tally};

/// The periods, and how many days each is.
const PERIODS: [(&str, i64); 4] = [("day", 1), ("week", 7), ("month", 30), ("year", 365)];

/// Agents that are named in a summary.
const TOP: usize = 5;

/// The documented routes of figures.
pub(super) fn routes() -> [Route; 2] {
    [route(__path_summary, summary), route(__path_agent, agent)]
}

/// Where the period asked for begins.
fn since(query: &Query) -> Result<Timestamp, Fault> {
    let word = query.text("period").unwrap_or("month");
    let days = PERIODS.iter().find(|(known, _)| *known == word).map(|(_, days)| *days);
    let days = days.ok_or_else(|| Fault::Bad("period must be day, week, month or year".into()))?;
    Ok(clock::now().wall.plus_ms(-days * DAY_MS))
}

/// Figures that both answers have.
struct Figures {
    calls: i64,
    minutes: i64,
    average: i64,
    rate: f64,
}

impl Figures {
    fn of(tallies: &[Tally]) -> Self {
        let sum = |what: fn(&Tally) -> i64| tallies.iter().map(what).sum::<i64>();
        let (calls, answered, seconds) = (sum(|t| t.calls), sum(|t| t.answered), sum(|t| t.seconds));
        let average = if answered == 0 { 0 } else { (2 * seconds + answered) / (2 * answered) };
        let hundredths = if calls == 0 { 0 } else { (200 * answered + calls) / (2 * calls) };
        let rate = f64::from(i32::try_from(hundredths).unwrap_or(100)) / 100.0;
        Self { calls, minutes: agents::minutes(seconds), average, rate }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyTopAgent)]
struct TopAgent {
    /// The agent.
    agent_id: String,
    /// For people.
    name: String,
    /// Its calls that are over.
    calls: i64,
    /// Minutes of them, rounded.
    minutes: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonySummary)]
struct Summary {
    /// Agents of the tenant.
    total_agents: i64,
    /// Calls that are over.
    total_calls: i64,
    /// Minutes of them, rounded.
    total_minutes: i64,
    /// Seconds of an answered call.
    average_call_duration: i64,
    /// Answered calls among all, 0 to 1, two decimals.
    success_rate: f64,
    /// The hour with most calls; none without calls.
    busiest_hour: Option<i64>,
    /// The agents with most calls.
    top_agents: Vec<TopAgent>,
}

/// `GET /api/analytics/summary`.
#[utoipa::path(
    get, path = "/api/analytics/summary", tag = "Phony: analytics", operation_id = "phonySummary",
    summary = "Figures of the tenant's calls",
    params(
        ("period" = Option<String>, Query, description = "`day`, `week`, `month` (unless said) or `year`, up to now"),
        ("tenant_id" = Option<String>, Query, description = "Another tenant, for admins"),
    ),
    responses(
        (status = 200, description = "The figures", body = Summary),
        (status = 400, description = "There is no such period", body = super::Refused),
    )
)]
pub(super) async fn summary(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref());
    let from = Some(since(&query)?);
    let tenant = tenant_of(&caller, query.text("tenant_id"))?;
    let db = &app.rooms.db;
    let past = Past { tenant: &tenant, from, ..Past::default() };
    let hours = db.tallies(&past, CountBy::Hour).await.map_err(stored)?;
    let mut talkers = db.tallies(&past, CountBy::Agent).await.map_err(stored)?;
    talkers.sort_by_key(|tally| (-tally.calls, -tally.seconds, tally.of));
    let mut top_agents = Vec::new();
    for tally in talkers.iter().take(TOP) {
        let known = db.agent_ever(&tenant, AgentName::Row(tally.of)).await.map_err(stored)?;
        let name = known.map(|(agent, _)| agent.settings.name).unwrap_or_default();
        let (calls, minutes) = (tally.calls, agents::minutes(tally.seconds));
        top_agents.push(TopAgent { agent_id: words::agent(tally.of), name, calls, minutes });
    }
    let figures = Figures::of(&hours);
    let body = Summary {
        total_agents: db.agent_count(&tenant).await.map_err(stored)?,
        total_calls: figures.calls,
        total_minutes: figures.minutes,
        average_call_duration: figures.average,
        success_rate: figures.rate,
        busiest_hour: hours.iter().rev().max_by_key(|tally| tally.calls).map(|tally| tally.of),
        top_agents,
    };
    Ok(json(StatusCode::OK, &body))
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyDay)]
struct Day {
    /// UTC.
    #[schema(pattern = r"^\d{4}-\d\d-\d\d$")]
    date: String,
    /// Calls placed on it.
    calls: i64,
    /// Minutes of them, rounded.
    minutes: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PhonyAgentFigures)]
struct AgentFigures {
    /// The agent.
    agent_id: String,
    /// For people.
    name: String,
    /// Its calls that are over.
    total_calls: i64,
    /// Minutes of them, rounded.
    total_minutes: i64,
    /// Seconds of an answered call.
    average_call_duration: i64,
    /// Answered calls among all, 0 to 1, two decimals.
    success_rate: f64,
    /// Calls by the hour of the day, UTC; hours without calls are left out.
    hourly_distribution: BTreeMap<i64, i64>,
    /// Days with calls, oldest first.
    daily_trend: Vec<Day>,
}

/// `GET /api/analytics/agents/{agent}`.
#[utoipa::path(
    get, path = "/api/analytics/agents/{agent}", tag = "Phony: analytics", operation_id = "phonyAgentFigures",
    summary = "Figures of one agent's calls",
    params(
        ("agent" = String, Path, description = "Its id"),
        ("period" = Option<String>, Query, description = "`day`, `week`, `month` (unless said) or `year`, up to now"),
    ),
    responses(
        (status = 200, description = "The figures", body = AgentFigures),
        (status = 400, description = "There is no such period", body = super::Refused),
        (status = 404, description = "`Agent not found`", body = super::Refused),
    )
)]
pub(super) async fn agent(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Segment,
    RawQuery(query): RawQuery,
) -> Answer {
    let from = Some(since(&Query::read(query.as_deref()))?);
    let agent = agents::found(&app, &caller, &segment(name, agents::MISSING)?).await?;
    let past = Past { tenant: &agent.tenant, agent: Some(agent.id), from, until: None };
    let hours = app.rooms.db.tallies(&past, CountBy::Hour).await.map_err(stored)?;
    let days = app.rooms.db.tallies(&past, CountBy::Day).await.map_err(stored)?;
    let figures = Figures::of(&hours);
    let day = |tally: &Tally| {
        let date = Timestamp(tally.of * DAY_MS).iso_ms().chars().take(10).collect();
        Day { date, calls: tally.calls, minutes: agents::minutes(tally.seconds) }
    };
    let body = AgentFigures {
        agent_id: agent.phony_id(),
        name: agent.settings.name,
        total_calls: figures.calls,
        total_minutes: figures.minutes,
        average_call_duration: figures.average,
        success_rate: figures.rate,
        hourly_distribution: hours.iter().map(|tally| (tally.of, tally.calls)).collect(),
        daily_trend: days.iter().map(day).collect(),
    };
    Ok(json(StatusCode::OK, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_those_of_the_document() {
        let figures = Figures::of(&[Tally { of: 9, calls: 850, answered: 850, seconds: 3200 * 60 }]);
        assert_eq!((figures.minutes, figures.average, figures.rate), (3200, 226, 1.0));
        let none = Figures::of(&[]);
        assert_eq!((none.calls, none.average, none.rate), (0, 0, 0.0));
        let some = Figures::of(&[Tally { of: 1, calls: 3, answered: 2, seconds: 61 }]);
        assert_eq!((some.average, some.rate), (31, 0.67));
    }
}
