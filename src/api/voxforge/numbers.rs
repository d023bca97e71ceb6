//! The tenant's numbers as VoxForge names them (CONTRACT 1.3): `phoneNumberId` of calls and campaigns. Which agent
//! answers a number is set on Phony and by operators.

use axum::Extension;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Wrong, array, window};
use crate::api::App;
use crate::api::admin::Query;
use crate::control::Caller;
use crate::store::agents::AgentName;
use crate::store::numbers::{Number, OnCall};

/// What a 404 calls it.
const KIND: &str = "Phone number";

/// What stands before the digits of a number's id in the database.
const PREFIX: &str = "num_";

/// A number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VoxForgePhoneNumber)]
struct Shown {
    /// Its id.
    id: String,
    /// In E.164 form.
    #[schema(examples("+15551234567"))]
    number: String,
    /// For people.
    friendly_name: String,
    /// The agent that answers calls to it.
    agent_id: Option<String>,
    /// Imported.
    #[schema(format = DateTime)]
    created_at: String,
}

/// VoxForge's form of a number's id.
pub(super) fn public_id(id: &str) -> String {
    format!("c{}", id.strip_prefix(PREFIX).unwrap_or(id))
}

/// The tenant's number of that id.
pub(super) async fn find(app: &App, caller: &Caller, id: &str) -> Result<Number, Wrong> {
    let missing = || Wrong::NoSuch(KIND, id.to_owned());
    let digits = id.strip_prefix('c').ok_or_else(missing)?;
    let found = app.rooms.db.number_of_id(&caller.key.tenant, &format!("{PREFIX}{digits}")).await?;
    found.ok_or_else(missing)
}

/// `GET /api/v1/phone-numbers`.
///
/// # Errors
/// A bad `limit` or `offset`.
#[utoipa::path(
    get, path = "/api/v1/phone-numbers", tag = "VoxForge: phone numbers",
    operation_id = "voxforgeListPhoneNumbers",
    summary = "The numbers in their order",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1000 unless said"),
        ("offset" = Option<u32>, Query, description = "Numbers skipped"),
    ),
    responses((status = 200, description = "The numbers; `X-Total-Count` says how many there are", body = [Shown]))
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let (limit, offset) = window(&Query::read(query.as_deref()))?;
    let tenant = &caller.key.tenant;
    let (numbers, total) = app.rooms.db.numbers(Some(tenant), limit, offset).await?;
    let mut shown = Vec::with_capacity(numbers.len());
    for number in numbers {
        let agent = match &number.on_call {
            OnCall::Agent(agent) => app.rooms.db.agent(tenant, AgentName::Public(agent)).await?,
            OnCall::Nothing | OnCall::Webhook { .. } | OnCall::Play(_) | OnCall::Echo => None,
        };
        shown.push(Shown {
            id: public_id(&number.id),
            number: number.number.e164(),
            friendly_name: number.friendly_name,
            agent_id: agent.map(|agent| agent.cuid),
            created_at: number.created_at.iso_ms(),
        });
    }
    Ok(array(&shown, total))
}
