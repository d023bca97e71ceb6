//! `/admin/v1/numbers`: numbers that may be called, per tenant, and what happens on a call to one (CONTRACT 0.8, 3
//! S22). `twilioSid` is made here; there is no Twilio behind it.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::Value;

use super::{Answer, Part, Query, Route, by, part, repeatable, stored};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::idempotency::Once;
use crate::api::{App, json};
use crate::config::Webhooks;
use crate::control::Caller;
use crate::model::{PhoneNumber, forms};
use crate::store::StoreError;
use crate::store::numbers::{NewNumber, Number, OnCall};
use crate::webhook::guard;

/// The fault of a path that names no number.
const MISSING: &str = "Number not found";

/// Longest id of an agent.
const AGENT_MAX: usize = 64;

/// The routes of numbers.
pub fn routes(once: &Once) -> Vec<Route> {
    let all = get(list).merge(repeatable(once, post(create)));
    vec![("/numbers", all), ("/numbers/{number}", get(show).patch(change).delete(remove))]
}

/// A number.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NumberBody {
    id: String,
    phone_number: String,
    twilio_sid: String,
    tenant: String,
    friendly_name: String,
    trunk: Option<String>,
    on_call: OnCallBody,
    created_at: String,
}

/// What happens on a call.
#[derive(Serialize)]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum OnCallBody {
    Nothing,
    Webhook { url: String, key_id: String },
    Agent { agent: String },
    Play { sound: String },
    Echo,
}

impl From<Number> for NumberBody {
    fn from(number: Number) -> Self {
        let on_call = match number.on_call {
            OnCall::Nothing => OnCallBody::Nothing,
            OnCall::Webhook { url, key_id } => OnCallBody::Webhook { url, key_id },
            OnCall::Agent(agent) => OnCallBody::Agent { agent },
            OnCall::Play(sound) => OnCallBody::Play { sound },
            OnCall::Echo => OnCallBody::Echo,
        };
        Self {
            id: number.id,
            phone_number: number.number.e164(),
            twilio_sid: number.sid,
            tenant: number.tenant,
            friendly_name: number.friendly_name,
            trunk: number.trunk,
            on_call,
            created_at: number.created_at.iso_ms(),
        }
    }
}

#[derive(Serialize)]
struct Numbers {
    numbers: Vec<NumberBody>,
    total: i64,
}

/// What a body says of a number; `None` where it says nothing.
#[derive(Debug, PartialEq)]
struct Changes {
    friendly_name: Option<String>,
    trunk: Option<Option<String>>,
    on_call: Option<OnCall>,
}

impl Changes {
    fn read(fields: &Fields, webhooks: &Webhooks) -> Result<Self, Fault> {
        let friendly_name = match fields.text("friendlyName")? {
            Some(text) if !forms::is_label(text) => {
                return Err(Fault::Bad("friendlyName must be 1 to 100 characters".into()));
            }
            text => text.map(str::to_owned),
        };
        let trunk = fields.text("trunk")?.map(str::to_owned);
        let trunk = fields.has("trunk").then_some(trunk);
        let on_call = match (fields.has("onCall"), fields.object("onCall")?) {
            (false, _) => None,
            (true, None) => Some(OnCall::Nothing),
            (true, Some(about)) => Some(on_call(&about, webhooks)?),
        };
        Ok(Self { friendly_name, trunk, on_call })
    }
}

/// Reads `{"action": …}` with what the action needs.
fn on_call(about: &Fields, webhooks: &Webhooks) -> Result<OnCall, Fault> {
    match about.required_text("action").map_err(within)? {
        "nothing" => Ok(OnCall::Nothing),
        "echo" => Ok(OnCall::Echo),
        "webhook" => {
            let url = about.required_text("url").map_err(within)?;
            let checked = guard::check_url(url, webhooks);
            let url = checked.map_err(|_| Fault::Bad("onCall.url must be an https URL".into()))?;
            let key_id = about.required_text("keyId").map_err(within)?.to_owned();
            Ok(OnCall::Webhook { url: url.into(), key_id })
        }
        "agent" => {
            let agent = about.required_text("agent").map_err(within)?;
            let plain = agent.len() <= AGENT_MAX && agent.bytes().all(|b| b.is_ascii_graphic());
            let wrong = || Fault::Bad("onCall.agent must be the id of an agent".into());
            plain.then(|| OnCall::Agent(agent.to_owned())).ok_or_else(wrong)
        }
        "play" => {
            let sound = about.required_text("sound").map_err(within)?;
            let wrong = || Fault::Bad("onCall.sound must be the name of a sound".into());
            forms::is_sound(sound).then(|| OnCall::Play(sound.to_owned())).ok_or_else(wrong)
        }
        _ => Err(Fault::Bad("onCall.action must be nothing, webhook, agent, play or echo".into())),
    }
}

/// A fault of a field inside `onCall`.
fn within(fault: Fault) -> Fault {
    match fault {
        Fault::Bad(text) => Fault::Bad(format!("onCall.{text}")),
        other => other,
    }
}

/// Faults of what a body names are the body's, not the path's.
fn refused(error: StoreError) -> Fault {
    match error {
        StoreError::UnknownKey(_) => {
            Fault::Bad("onCall.keyId must be a live key of the number's tenant".into())
        }
        error => stored(error),
    }
}

fn named(number: Part) -> Result<PhoneNumber, Fault> {
    forms::public_number(&part(number, MISSING)?).ok_or(Fault::Missing(MISSING))
}

/// `GET /numbers?tenant=&limit=&offset=`.
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let found = app.rooms.db.numbers(query.text("tenant"), limit, offset).await;
    let (numbers, total) = found.map_err(stored)?;
    let numbers = numbers.into_iter().map(NumberBody::from).collect();
    Ok(json(StatusCode::OK, &Numbers { numbers, total }))
}

/// `POST /numbers`.
async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let fields = Fields::read(&body)?;
    let number = forms::public_number(fields.required_text("phoneNumber")?);
    let number = number.ok_or_else(|| Fault::Bad("phoneNumber must be in E.164 form".into()))?;
    let tenant = fields.text("tenant")?.unwrap_or("default");
    if !forms::is_tenant(tenant) {
        return Err(Fault::Bad("tenant must be 1 to 64 of A-Z a-z 0-9 - _".into()));
    }
    let asked = Changes::read(&fields, &app.rooms.config.webhooks)?;
    let new = NewNumber {
        number,
        tenant: tenant.to_owned(),
        friendly_name: asked.friendly_name.unwrap_or_default(),
        trunk: asked.trunk.flatten(),
        on_call: asked.on_call.unwrap_or_default(),
    };
    let number = app.rooms.db.add_number(&new, by(&caller)).await.map_err(refused)?;
    Ok(json(StatusCode::CREATED, &NumberBody::from(number)))
}

/// `GET /numbers/:number`.
async fn show(State(app): State<App>, number: Part) -> Answer {
    let number = named(number)?;
    let found = app.rooms.db.number(&number).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &NumberBody::from(found.ok_or(Fault::Missing(MISSING))?)))
}

/// `PATCH /numbers/:number`. A tenant keeps its number: to move one, remove it and import it again.
async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    number: Part,
    body: Bytes,
) -> Answer {
    let number = named(number)?;
    let fields = Fields::read(&body)?;
    for fixed in ["tenant", "phoneNumber"] {
        if fields.has(fixed) {
            return Err(Fault::Bad(format!("{fixed} cannot be changed")));
        }
    }
    let asked = Changes::read(&fields, &app.rooms.config.webhooks)?;
    let change = |number: &mut Number| {
        number.friendly_name = asked.friendly_name.unwrap_or_else(|| number.friendly_name.clone());
        number.trunk = asked.trunk.unwrap_or_else(|| number.trunk.clone());
        number.on_call = asked.on_call.unwrap_or_else(|| number.on_call.clone());
    };
    let changed = app.rooms.db.change_number(&number, by(&caller), change).await.map_err(refused)?;
    Ok(json(StatusCode::OK, &NumberBody::from(changed)))
}

/// `DELETE /numbers/:number`.
async fn remove(State(app): State<App>, Extension(caller): Extension<Caller>, number: Part) -> Answer {
    let number = named(number)?;
    app.rooms.db.remove_number(&number, by(&caller)).await.map_err(stored)?;
    Ok(json(
        StatusCode::OK,
        &Value::Object(serde_json::Map::from_iter([("removed".to_owned(), true.into())])),
    ))
}
