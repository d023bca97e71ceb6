//! `/admin/v1/trunks`: the carriers that calls are dialled through, and how they do. A trunk is written with the
//! settings of `[[trunk]]`, in camel case or as they stand in the file; its password is never shown. Its health is
//! that of the process that answers.

mod form;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::{Map, Value, json as value};
use utoipa::ToSchema;

use super::{Answer, Part, Route, by, part, route, stored};
use crate::api::fault::Fault;
use crate::api::fields::Fields;
use crate::api::{App, json};
use crate::clock;
use crate::config::TrunkConfig;
use crate::control::Caller;
use crate::control::trunks::health::Report;
use crate::control::trunks::probe::{self, Probe};
use crate::model::Timestamp;
use crate::model::account::Trunk;
use crate::model::trunk::Policy;
use crate::store::trunks::{NewTrunk, describe};
use form::{TrunkAsked, TrunkBody};

/// The fault of a path that names no trunk.
const MISSING: &str = "Trunk not found";

/// The routes of trunks.
pub fn routes() -> Vec<Route> {
    vec![
        route(__path_list, list),
        route(__path_create, create),
        route(__path_show, show),
        route(__path_change, change),
        route(__path_remove, remove),
        route(__path_test, test),
        route(__path_policy, policy),
    ]
}

/// How a trunk does.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminTrunkHealth)]
struct Health {
    /// What has become of it.
    state: &'static str,
    /// When it is tried again, where it is benched.
    #[schema(format = DateTime)]
    benched_until: Option<String>,
    /// Why it is as it is.
    why: Option<String>,
    /// Calls on it now.
    active_calls: usize,
    /// Faults since it last took a call.
    faults_in_a_row: u32,
    /// How long its last answer took.
    last_answer_ms: Option<u32>,
    /// How often it was tried.
    attempts: u64,
    /// Attempts that were answered.
    answered: u64,
    /// Attempts that failed by the trunk's fault.
    faults: u64,
    /// When its registration ends.
    #[schema(format = DateTime)]
    registered_until: Option<String>,
    /// Why it is not registered.
    register_error: Option<String>,
    /// How long its last answer to OPTIONS took.
    ping_ms: Option<u32>,
    /// OPTIONS without an answer, in a row.
    pings_missed: u32,
}

impl From<Report> for Health {
    fn from(report: Report) -> Self {
        Self {
            state: report.state,
            benched_until: report.benched_until.map(Timestamp::iso_ms),
            why: report.why,
            active_calls: report.active_calls,
            faults_in_a_row: report.faults_in_a_row,
            last_answer_ms: report.last_answer_ms,
            attempts: report.attempts,
            answered: report.answered,
            faults: report.faults,
            registered_until: report.registered_until.map(Timestamp::iso_ms),
            register_error: report.register_error,
            ping_ms: report.ping_ms,
            pings_missed: report.pings_missed,
        }
    }
}

/// A trunk: its settings by [`describe`], and `health`.
fn body(app: &App, trunk: &Trunk) -> Value {
    let mut body = describe(trunk);
    let endpoint = crate::control::routing::endpoint(trunk);
    let health = Health::from(app.rooms.fleet.report(clock::now(), &endpoint));
    if let Value::Object(members) = &mut body {
        members.insert("health".to_owned(), value!(health));
    }
    body
}

async fn find(app: &App, trunk: Part) -> Result<Trunk, Fault> {
    let name = part(trunk, MISSING)?;
    app.rooms.db.trunk(&name).await.map_err(stored)?.ok_or(Fault::Missing(MISSING))
}

/// The trunks.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminTrunks)]
struct Trunks {
    /// All of them, oldest first.
    #[schema(value_type = Vec<TrunkBody>)]
    trunks: Vec<Value>,
    /// How many.
    total: usize,
}

/// `GET /trunks`, oldest first.
#[utoipa::path(
    get, path = "/trunks", tag = "Admin: trunks", operation_id = "adminListTrunks",
    summary = "The trunks, with their health",
    responses(
        (status = 200, description = "The trunks", body = Trunks),
    )
)]
async fn list(State(app): State<App>) -> Answer {
    let trunks = app.rooms.db.trunks().await.map_err(stored)?;
    let trunks: Vec<Value> = trunks.iter().map(|trunk| body(&app, trunk)).collect();
    Ok(json(StatusCode::OK, &Trunks { total: trunks.len(), trunks }))
}

/// `GET /trunks/:trunk`.
#[utoipa::path(
    get, path = "/trunks/{trunk}", tag = "Admin: trunks", operation_id = "adminShowTrunk",
    summary = "One trunk, with its health",
    params(
        ("trunk" = String, Path, description = "Its name"),
    ),
    responses(
        (status = 200, description = "The trunk", body = TrunkBody),
        (status = 404, description = "`Trunk not found`"),
    )
)]
async fn show(State(app): State<App>, trunk: Part) -> Answer {
    let trunk = find(&app, trunk).await?;
    Ok(json(StatusCode::OK, &body(&app, &trunk)))
}

/// `POST /trunks`.
#[utoipa::path(
    post, path = "/trunks", tag = "Admin: trunks", operation_id = "adminCreateTrunk",
    summary = "Add a trunk",
    description = "`name` and `proxy` are required.",
    request_body = TrunkAsked,
    responses(
        (status = 201, description = "The trunk", body = TrunkBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 409, description = "A trunk of that name is there"),
    )
)]
async fn create(State(app): State<App>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Answer {
    let asked = settings(&bytes)?;
    let config = onto(TrunkConfig::default(), &asked)?;
    if config.name.is_empty() || config.proxy.is_empty() {
        let missing = if config.name.is_empty() { "name" } else { "proxy" };
        return Err(Fault::Bad(format!("{missing} is required")));
    }
    let db = &app.rooms.db;
    if db.trunk(&config.name).await.map_err(stored)?.is_some() {
        return Err(Fault::Conflict(format!("trunk {} exists", config.name)));
    }
    let trunk = save(&app, &caller, &config, flag(&asked, "enabled")?.unwrap_or(true)).await?;
    Ok(json(StatusCode::CREATED, &body(&app, &trunk)))
}

/// `PATCH /trunks/:trunk`: what is not said stays, `null` takes a setting back to its default. The name stays.
#[utoipa::path(
    patch, path = "/trunks/{trunk}", tag = "Admin: trunks", operation_id = "adminChangeTrunk",
    summary = "Change a trunk",
    description = "What is not said stays, `null` takes a setting back to its default. The name stays.",
    request_body = TrunkAsked,
    params(
        ("trunk" = String, Path, description = "Its name"),
    ),
    responses(
        (status = 200, description = "The trunk as it is now", body = TrunkBody),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Trunk not found`"),
    )
)]
async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    trunk: Part,
    bytes: Bytes,
) -> Answer {
    let old = find(&app, trunk).await?;
    let asked = settings(&bytes)?;
    let config = onto(TrunkConfig::from(&old), &asked)?;
    if config.name != old.name {
        return Err(Fault::Bad("name cannot be changed".into()));
    }
    let trunk = save(&app, &caller, &config, flag(&asked, "enabled")?.unwrap_or(old.enabled)).await?;
    Ok(json(StatusCode::OK, &body(&app, &trunk)))
}

async fn save(app: &App, caller: &Caller, config: &TrunkConfig, enabled: bool) -> Result<Trunk, Fault> {
    let new = NewTrunk::try_from(config).map_err(|error| Fault::Bad(error.what))?;
    app.rooms.db.save_trunk(&new, enabled, by(caller)).await.map_err(stored)
}

/// `DELETE /trunks/:trunk`, also from the keys that use it. Calls on it go on.
#[utoipa::path(
    delete, path = "/trunks/{trunk}", tag = "Admin: trunks", operation_id = "adminRemoveTrunk",
    summary = "Remove a trunk",
    params(
        ("trunk" = String, Path, description = "Its name"),
    ),
    responses(
        (status = 204, description = "It is gone, from the keys too; calls on it go on"),
        (status = 404, description = "`Trunk not found`"),
    )
)]
async fn remove(State(app): State<App>, Extension(caller): Extension<Caller>, trunk: Part) -> Answer {
    let name = part(trunk, MISSING)?;
    if !app.rooms.db.remove_trunk(&name, by(&caller)).await.map_err(stored)? {
        return Err(Fault::Missing(MISSING));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminTrunkTested)]
struct Tested {
    /// Its name.
    name: String,
    /// Whether it answered.
    alive: bool,
    /// Where it was asked.
    address: Option<String>,
    /// Its SIP status.
    code: Option<u16>,
    /// How long the answer took.
    elapsed_ms: Option<u32>,
    /// The outcome in words.
    words: String,
}

/// `POST /trunks/:trunk/test`: OPTIONS and the answer in words. 200 whatever the answer.
#[utoipa::path(
    post, path = "/trunks/{trunk}/test", tag = "Admin: trunks", operation_id = "adminTestTrunk",
    summary = "Ask a trunk whether it is there",
    params(
        ("trunk" = String, Path, description = "Its name"),
    ),
    responses(
        (status = 200, description = "What it answered, whatever that is", body = Tested),
        (status = 404, description = "`Trunk not found`"),
    )
)]
async fn test(State(app): State<App>, trunk: Part) -> Answer {
    let trunk = find(&app, trunk).await?;
    let Probe { alive, address, code, elapsed_ms, words } = probe::probe(&trunk).await;
    let address = address.map(|address| address.to_string());
    Ok(json(StatusCode::OK, &Tested { name: trunk.name, alive, address, code, elapsed_ms, words }))
}

/// In which order a key's trunks are tried.
#[derive(ToSchema)]
#[schema(as = AdminTrunkPolicyAsked)]
struct PolicyAsked {
    /// `round_robin`, `priority` or `weighted`.
    #[schema(value_type = String, pattern = "^(round_robin|priority|weighted)$", examples("priority"))]
    policy: Policy,
}

impl PolicyAsked {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let fields = Fields::read(body)?;
        let wrong = || Fault::Bad("policy must be round_robin, priority or weighted".into());
        Ok(Self { policy: Policy::from_text(fields.required_text("policy")?).ok_or_else(wrong)? })
    }
}

/// The order as it is now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminTrunkPolicy)]
struct PolicySet {
    /// The key.
    key_id: String,
    /// `round_robin`, `priority` or `weighted`.
    policy: &'static str,
}

/// `PUT /keys/:key/trunk-policy` with `policy`: `round_robin`, `priority` or `weighted`.
#[utoipa::path(
    put, path = "/keys/{key}/trunk-policy", tag = "Admin: keys", operation_id = "adminTrunkPolicy",
    summary = "Say in which order a key's trunks are tried",
    request_body = PolicyAsked,
    params(
        ("key" = String, Path, description = "The key's `key_…` id"),
    ),
    responses(
        (status = 200, description = "The order as it is now", body = PolicySet),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
        (status = 404, description = "`Key not found`"),
    )
)]
async fn policy(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    key: Part,
    bytes: Bytes,
) -> Answer {
    let key = part(key, "Key not found")?;
    let PolicyAsked { policy } = PolicyAsked::read(&bytes)?;
    if !app.rooms.db.set_trunk_policy(&key, policy, by(&caller)).await.map_err(stored)? {
        return Err(Fault::Missing("Key not found"));
    }
    Ok(json(StatusCode::OK, &PolicySet { key_id: key, policy: policy.as_str() }))
}

/// The members of a body, by the settings' names in the file.
fn settings(bytes: &[u8]) -> Result<Map<String, Value>, Fault> {
    // For the refusals that all bodies share.
    Fields::read(bytes)?;
    let invalid = |_| Fault::Bad("Invalid JSON body".into());
    let body: Map<String, Value> = serde_json::from_slice(bytes).map_err(invalid)?;
    Ok(body.into_iter().map(|(name, value)| (snake(&name), value)).collect())
}

/// `maxCalls` as `max_calls`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn flag(asked: &Map<String, Value>, name: &str) -> Result<Option<bool>, Fault> {
    match asked.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(*on)),
        Some(_) => Err(Fault::Bad(format!("{name} must be a boolean"))),
    }
}

/// The settings with what a body says of them. Members that are no settings are passed over.
fn onto(config: TrunkConfig, asked: &Map<String, Value>) -> Result<TrunkConfig, Fault> {
    let (mut config, defaults) = (config, TrunkConfig::default());
    for (name, value) in asked {
        let only: Map<String, Value> = match value {
            Value::Null => Map::new(),
            value => std::iter::once((name.clone(), value.clone())).collect(),
        };
        match serde_json::from_value::<TrunkConfig>(Value::Object(only)) {
            Ok(read) => config.take(name, if value.is_null() { &defaults } else { &read }),
            Err(_) if TrunkConfig::SETTINGS.contains(&name.as_str()) => {
                return Err(Fault::Bad(format!("{name} has a value of the wrong kind")));
            }
            Err(_) => {}
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_change_what_they_name_and_nothing_else() {
        let before = TrunkConfig { max_calls: 7, from_user: "me".into(), ..TrunkConfig::default() };
        let asked =
            settings(br#"{"maxCalls":3,"source_cidrs":["10.0.0.0/8"],"fromUser":null,"colour":1}"#).unwrap();
        let after = onto(before.clone(), &asked).unwrap();
        let expected = TrunkConfig {
            max_calls: 3,
            source_cidrs: vec!["10.0.0.0/8".into()],
            from_user: String::new(),
            ..before
        };
        assert_eq!(after, expected);
        for wrong in [r#"{"maxCalls":"3"}"#, r#"{"register":1}"#, r#"{"codecs":"PCMU"}"#, r#"{"weight":-1}"#]
        {
            let asked = settings(wrong.as_bytes()).unwrap();
            assert!(matches!(onto(TrunkConfig::default(), &asked), Err(Fault::Bad(_))), "{wrong}");
        }
        assert!(settings(b"[]").is_err() && settings(b"{").is_err());
    }

    #[test]
    fn every_setting_can_be_changed() {
        for name in TrunkConfig::SETTINGS {
            let mut config = TrunkConfig::default();
            let other = TrunkConfig::unlike_default();
            config.take(name, &other);
            assert_ne!(config, TrunkConfig::default(), "{name}");
        }
    }
}
