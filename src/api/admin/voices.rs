//! `GET /admin/v1/voices`: the names of voices that customers' documents show, and what each stands for here. Any other
//! name is taken as well; `?name=` says what it would be.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Query, Route, route};
use crate::api::fault::Fault;
use crate::api::{App, json};
use crate::speech::{Gender, VoiceListed};

/// Longest name that is looked up, characters.
const NAME_MAX: usize = 128;

/// The routes of voices.
pub fn routes() -> Vec<Route> {
    vec![route(__path_list, list)]
}

/// A voice's name and what it stands for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminVoice)]
struct VoiceBody {
    /// The name that customers give.
    name: String,
    /// Who speaks it.
    provider: &'static str,
    /// The voice in that provider's own words.
    speaks_as: String,
    /// Its language; `null` where the text decides it.
    language: Option<String>,
    /// `male` or `female`.
    gender: &'static str,
    /// Whether name and language were known; otherwise it is the nearest that there is.
    known: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AdminVoices)]
struct VoiceList {
    /// The rows of the page.
    voices: Vec<VoiceBody>,
    /// Rows of all pages.
    total: usize,
    /// Who speaks, in the order in which they are tried.
    providers: Vec<&'static str>,
}

fn shown(voice: VoiceListed) -> VoiceBody {
    VoiceBody {
        name: voice.name,
        provider: voice.provider,
        speaks_as: voice.speaks_as,
        language: Some(voice.language).filter(|language| !language.is_empty()),
        gender: match voice.gender {
            Gender::Male => "male",
            Gender::Female => "female",
        },
        known: voice.known,
    }
}

/// `GET /voices?name=&limit=&offset=`.
#[utoipa::path(
    get, path = "/voices", tag = "Admin: voices", operation_id = "adminListVoices",
    summary = "The names of voices and what they stand for",
    params(
        ("name" = Option<String>, Query, max_length = 128, description = "One name, whether it is listed or not"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 unless said"),
        ("offset" = Option<u32>, Query, description = "Rows skipped"),
    ),
    responses(
        (status = 200, description = "The page", body = VoiceList),
        (status = 400, description = "A field or a parameter is wrong, and the text names it"),
    )
)]
async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let (limit, offset) = query.window()?;
    let speech = &app.rooms.speech;
    let found = match query.text("name") {
        Some(name) if name.chars().count() > NAME_MAX => {
            return Err(Fault::Bad(format!("name must be at most {NAME_MAX} characters")));
        }
        Some(name) => speech.listed(name).into_iter().collect(),
        None => speech.voices(),
    };
    let total = found.len();
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let voices = found.into_iter().skip(count(offset)).take(count(limit)).map(shown).collect();
    Ok(json(StatusCode::OK, &VoiceList { voices, total, providers: speech.providers() }))
}
