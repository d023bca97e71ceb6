//! `/admin/v1/numbers`: numbers that may be called, per tenant, and what happens on a call to one (CONTRACT 0.8, 3
//! S22). `twilioSid` is made here; there is no Twilio behind it.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Part, Query, Route, by, part, route, stored};
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
    vec![
        route(__path_list, list),
        route(__path_create, create).once(once),
        route(__path_show, show),
        route(__path_change, change),
        route(__path_remove, remove),
    ]
}

/// A number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminNumber)]
struct NumberBody {
    /// Its number.
    id: String,
    /// The number, E.164.
    phone_number: String,
    /// `PN` and 32 hex digits, made here.
    twilio_sid: String,
    /// Who it belongs to.
    tenant: String,
    /// What its owner calls it.
    friendly_name: String,
    /// The trunk that its calls come by; null: any.
    trunk: Option<String>,
    /// What happens on a call to it.
    on_call: OnCallBody,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
}

/// What happens on a call.
#[derive(Serialize, ToSchema)]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[schema(as = AdminOnCall)]
enum OnCallBody {
    /// 480.
    Nothing,
    /// Answered under a key, whose application drives it.
    Webhook {
        /// Where its events go.
        url: String,
        /// The key.
        key_id: String,
    },
    /// An agent talks.
    Agent {
        /// Its id.
        agent: String,
    },
    /// A sound, then the end.
    Play {
        /// Its name.
        sound: String,
    },
    /// The caller hears itself.
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

#[derive(Serialize, ToSchema)]
#[schema(as = AdminNumbers)]
struct Numbers {
    /// The rows of the page.
    numbers: Vec<NumberBody>,
    /// Rows of all pages.
    total: i64,
}

/// What a body says of a number; `None` where it says nothing.
#[derive(Debug, PartialEq, ToSchema)]
#[schema(as = AdminNumberAsked, rename_all = "camelCase")]
struct Changes {
    /// What its owner calls it.
    #[schema(min_length = 1, max_length = 100)]
    friendly_name: Option<String>,
    /// The trunk that its calls come by; `null`: any.
    #[schema(value_type = Option<String>)]
    trunk: Option<Option<String>>,
    /// What happens on a call to it; `null`: nothing.
    #[schema(value_type = Option<OnCallBody>)]
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

/// What makes a number.
#[derive(ToSchema)]
#[schema(as = AdminNumberMade, rename_all = "camelCase")]
struct Asked {
    /// The number, E.164.
    #[schema(value_type = String, examples("+14155550100"))]
    phone_number: PhoneNumber,
    /// Whom it belongs to.
    #[schema(required = false, default = "default", min_length = 1, max_length = 64)]
    tenant: String,
    /// What its owner calls it.
    #[schema(required = false, max_length = 100)]
    friendly_name: String,
    /// The trunk that its calls come by; `null`: any.
    trunk: Option<String>,
    /// What happens on a call to it; nothing unless said.
    #[schema(required = false, value_type = Option<OnCallBody>)]
    on_call: OnCall,
}

impl Asked {
    fn read(body: &[u8], webhooks: &Webhooks) -> Result<Self, Fault> {
        let fields = Fields::read(body)?;
        let number = forms::public_number(fields.required_text("phoneNumber")?);
        let phone_number = number.ok_or_else(|| Fault::Bad("phoneNumber must be in E.164 form".into()))?;
        let tenant = fields.text("tenant")?.unwrap_or("default");
        if !forms::is_tenant(tenant) {
            return Err(Fault::Bad("tenant must be 1 to 64 of A-Z a-z 0-9 - _".into()));
        }
        let asked = Changes::read(&fields, webhooks)?;
        Ok(Self {
            phone_number,
            tenant: tenant.to_owned(),
            friendly_name: asked.friendly_name.unwrap_or_default(),
            trunk: asked.trunk.flatten(),
            on_call: asked.on_call.unwrap_or_default(),
        })
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
        StoreError::UnknownAgent(_) => {
            Fault::Bad("onCall.agent must be an agent of the number's tenant".into())
        }
        error => stored(error),
    }
}

fn named(number: Part) -> Result<PhoneNumber, Fault> {
    forms::public_number(&part(number, MISSING)?).ok_or(Fault::Missing(MISSING))
}

/// `GET /numbers?tenant=&limit=&offset=`.
#[utoipa::path(
    get, path = "/numbers", tag = "Admin: numbers", operation_id = "adminListNumbers",
    summary = "The numbers that may be called",
    params(
        ("tenant" = Option<String>, Query, description = "Only this tenant's"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Rows skipped"),
    ),
    responses(
        (status = 200, description = "The page", body = Numbers),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let found = app.rooms.db.numbers(query.text("tenant"), limit, offset).await;
    let (numbers, total) = found.map_err(stored)?;
    let numbers = numbers.into_iter().map(NumberBody::from).collect();
    Ok(json(StatusCode::OK, &Numbers { numbers, total }))
}

/// `POST /numbers`.
#[utoipa::path(
    post, path = "/numbers", tag = "Admin: numbers", operation_id = "adminCreateNumber",
    summary = "Take in a number",
    request_body = Asked,
    responses(
        (status = 201, description = "The number", body = NumberBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Tenant not found`"),
        (status = 409, description = "The number is taken"),
    )
)]
async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let asked = Asked::read(&body, &app.rooms.config.webhooks)?;
    let new = NewNumber {
        number: asked.phone_number,
        tenant: asked.tenant,
        friendly_name: asked.friendly_name,
        trunk: asked.trunk,
        on_call: asked.on_call,
    };
    let number = app.rooms.db.add_number(&new, by(&caller)).await.map_err(refused)?;
    Ok(json(StatusCode::CREATED, &NumberBody::from(number)))
}

/// `GET /numbers/:number`.
#[utoipa::path(
    get, path = "/numbers/{number}", tag = "Admin: numbers", operation_id = "adminShowNumber",
    summary = "One number",
    params(
        ("number" = String, Path, description = "The number, E.164, its plus as it is or as `%2B`"),
    ),
    responses(
        (status = 200, description = "The number", body = NumberBody),
        (status = 404, description = "`Number not found`"),
    )
)]
async fn show(State(app): State<App>, number: Part) -> Answer {
    let number = named(number)?;
    let found = app.rooms.db.number(&number).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &NumberBody::from(found.ok_or(Fault::Missing(MISSING))?)))
}

/// `PATCH /numbers/:number`. A tenant keeps its number: to move one, remove it and import it again.
#[utoipa::path(
    patch, path = "/numbers/{number}", tag = "Admin: numbers", operation_id = "adminChangeNumber",
    summary = "Change what happens on a call",
    request_body = Changes,
    params(
        ("number" = String, Path, description = "The number, E.164, its plus as it is or as `%2B`"),
    ),
    responses(
        (status = 200, description = "The number as it is now", body = NumberBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Number not found`"),
    )
)]
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

/// That it is gone.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminNumberRemoved)]
struct Removed {
    /// Always true.
    removed: bool,
}

/// `DELETE /numbers/:number`.
#[utoipa::path(
    delete, path = "/numbers/{number}", tag = "Admin: numbers", operation_id = "adminRemoveNumber",
    summary = "Remove a number",
    params(
        ("number" = String, Path, description = "The number, E.164, its plus as it is or as `%2B`"),
    ),
    responses(
        (status = 200, description = "It is gone", body = Removed),
        (status = 404, description = "`Number not found`"),
    )
)]
async fn remove(State(app): State<App>, Extension(caller): Extension<Caller>, number: Part) -> Answer {
    let number = named(number)?;
    app.rooms.db.remove_number(&number, by(&caller)).await.map_err(stored)?;
    Ok(json(StatusCode::OK, &Removed { removed: true }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::documented_as_read;

    #[test]
    fn bodies_are_documented_as_they_are_read() {
        let webhooks = Webhooks::default();
        documented_as_read::<Asked, _>(r#"{"phoneNumber":"+14155550100"}"#, |body| {
            Asked::read(body, &webhooks)
        });
        documented_as_read::<Changes, _>("{}", |body| Changes::read(&Fields::read(body)?, &webhooks));
    }
}
