//! `GET /admin/v1/calls/:id/turns`: how long the agent's answers of a call took, and where the time went.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Part, Route, part, route, stored};
use crate::api::fault::Fault;
use crate::api::{App, json};
use crate::model::Timestamp;
use crate::model::turn::TurnTimes;

/// What a 404 says.
const MISSING: &str = "Call not found";

/// The routes of turns.
pub fn routes() -> Vec<Route> {
    vec![route(__path_list, list)]
}

/// One answer of the agent's. What did not happen is null.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdminTurn)]
struct Shown {
    /// The caller's turn that was answered, as the transcript counts.
    turn: u32,
    /// The caller's last sound; null where keys were pressed.
    #[schema(format = DateTime)]
    speech_end_at: Option<String>,
    /// The recogniser gave the words.
    #[schema(format = DateTime)]
    transcript_at: String,
    /// The language model was asked.
    #[schema(format = DateTime)]
    asked_at: Option<String>,
    /// Its first word came.
    #[schema(format = DateTime)]
    first_token_at: Option<String>,
    /// Its first clause was whole.
    #[schema(format = DateTime)]
    first_clause_at: Option<String>,
    /// The voice gave the first sound of it.
    #[schema(format = DateTime)]
    first_synthesis_at: Option<String>,
    /// That sound went out to the caller.
    #[schema(format = DateTime)]
    first_audio_at: Option<String>,
    /// The caller spoke into the answer.
    #[schema(format = DateTime)]
    interrupted_at: Option<String>,
    /// From the caller's last sound to the first of the answer.
    total_ms: Option<u32>,
    /// Of that: until the words were there, with the silence that shows that the caller is done.
    hearing_ms: Option<u32>,
    /// Of that: from the question to the model's first clause.
    model_ms: Option<u32>,
    /// Of that: from the clause to its first sound.
    voice_ms: Option<u32>,
    /// What is left: the engine's own share.
    own_ms: Option<u32>,
}

impl From<TurnTimes> for Shown {
    fn from(times: TurnTimes) -> Self {
        let at = |at: Option<Timestamp>| at.map(Timestamp::iso_ms);
        Self {
            turn: times.turn,
            speech_end_at: at(times.speech_end),
            transcript_at: times.transcript.iso_ms(),
            asked_at: at(times.asked),
            first_token_at: at(times.first_token),
            first_clause_at: at(times.first_clause),
            first_synthesis_at: at(times.first_synthesis),
            first_audio_at: at(times.first_audio),
            interrupted_at: at(times.interrupted),
            total_ms: times.total_ms,
            hearing_ms: times.hearing_ms,
            model_ms: times.model_ms,
            voice_ms: times.voice_ms,
            own_ms: times.own_ms,
        }
    }
}

/// The answers of a call.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminTurns)]
struct List {
    /// The first one first.
    turns: Vec<Shown>,
    /// How many there are.
    total: usize,
}

/// `GET /calls/{id}/turns`.
#[utoipa::path(
    get, path = "/calls/{id}/turns", tag = "Admin: calls", operation_id = "adminCallTurns",
    summary = "How long the answers of a call took",
    description = "Of live calls and of those that are over, each answer once it is given; at most 500 a call.",
    params(("id" = String, Path, description = "The call's id in the form of any surface")),
    responses(
        (status = 200, description = "The answers", body = List),
        (status = 404, description = "`Call not found`"),
    )
)]
async fn list(State(app): State<App>, id: Part) -> Answer {
    let id = part(id, MISSING)?;
    let db = &app.rooms.db;
    let call = db.call_named(&id).await.map_err(stored)?.ok_or(Fault::Missing(MISSING))?;
    let times = db.turn_times(call).await.map_err(stored)?;
    let turns: Vec<Shown> = times.into_iter().map(Shown::from).collect();
    Ok(json(StatusCode::OK, &List { total: turns.len(), turns }))
}
