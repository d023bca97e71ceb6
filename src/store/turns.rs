//! The turns of a call, read out of its event log: what was said and when, and how long the answers took.

use serde_json::{Map, Value, json};

use super::history::EventRow;
use super::sql::{Row, column, sql};
use super::{Db, StoreError};
use crate::model::event::Speaker;
use crate::model::turn::{Span, Turn, TurnTimes};
use crate::model::{CallId, Timestamp};

/// Turns of one transcript at most.
const TURNS_MAX: i64 = 5000;
/// Measured answers of one call at most; no more are written.
const TIMES_MAX: i64 = 500;

/// The `data` of an event that tells an answer's times.
pub(super) fn write_times(times: &TurnTimes) -> Value {
    let at = |at: Option<Timestamp>| at.map(|at| at.0);
    json!({
        "turn": times.turn,
        "speech_end": at(times.speech_end),
        "transcript": times.transcript.0,
        "asked": at(times.asked),
        "first_token": at(times.first_token),
        "first_clause": at(times.first_clause),
        "first_synthesis": at(times.first_synthesis),
        "first_audio": at(times.first_audio),
        "interrupted": at(times.interrupted),
        "total_ms": times.total_ms,
        "hearing_ms": times.hearing_ms,
        "model_ms": times.model_ms,
        "voice_ms": times.voice_ms,
        "own_ms": times.own_ms,
    })
}

/// Reads [`write_times`] back; what is missing or odd is as if it had not happened.
fn read_times(data: &str) -> TurnTimes {
    let data: Map<String, Value> = serde_json::from_str(data).unwrap_or_default();
    let at = |name: &str| data.get(name).and_then(Value::as_i64).map(Timestamp);
    let ms = |name: &str| data.get(name).and_then(Value::as_u64).and_then(|ms| u32::try_from(ms).ok());
    TurnTimes {
        turn: ms("turn").unwrap_or_default(),
        speech_end: at("speech_end"),
        transcript: at("transcript").unwrap_or_default(),
        asked: at("asked"),
        first_token: at("first_token"),
        first_clause: at("first_clause"),
        first_synthesis: at("first_synthesis"),
        first_audio: at("first_audio"),
        interrupted: at("interrupted"),
        total_ms: ms("total_ms"),
        hearing_ms: ms("hearing_ms"),
        model_ms: ms("model_ms"),
        voice_ms: ms("voice_ms"),
        own_ms: ms("own_ms"),
    }
}

/// What was said: by agents as far as it was heard, by others as it was understood, and the keys that were pressed.
/// Where it is not known when a turn began, it began when the one before was over. Nothing before the answer.
pub fn transcript(events: &[EventRow], answered: Option<Timestamp>) -> Vec<Turn> {
    let Some(answered) = answered else { return Vec::new() };
    let mut turns: Vec<Turn> = Vec::new();
    for event in events {
        let data: Map<String, Value> = serde_json::from_str(&event.data).unwrap_or_default();
        let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
        let (by, words) = match event.kind.as_str() {
            "played" => (Speaker::Agent, text("text")),
            "said" if text("by").as_deref() == Some("agent") => (Speaker::Agent, text("text")),
            "said" => (Speaker::Caller, text("text")),
            "digit" => (Speaker::Caller, text("digit")),
            _ => continue,
        };
        let Some(words) = words else { continue };
        let at = |name: &str| data.get(name).and_then(Value::as_i64).map(|at| Timestamp(at).max(answered));
        let until = at("until").unwrap_or(event.at.max(answered));
        let before = turns.last().map_or(answered, |turn| turn.span.until);
        let guessed = if event.kind == "digit" { until } else { before };
        let from = at("from").unwrap_or(guessed).min(until);
        turns.push(Turn { by, text: words, span: Span { from, until } });
    }
    turns
}

impl Db {
    /// A call's transcript.
    ///
    /// # Errors
    /// The database.
    pub async fn transcript(
        &self,
        call: CallId,
        answered: Option<Timestamp>,
    ) -> Result<Vec<Turn>, StoreError> {
        let said = sql("SELECT sequence, type, at, data FROM events WHERE call = $1 \
                        AND type IN ('said', 'played', 'digit') ORDER BY sequence LIMIT $2");
        let rows = self.all(said.bind(call.hex()).bind(TURNS_MAX)).await?;
        let read = |row: &Row| {
            let sequence = u32::try_from(column::<i64>(row, "sequence")?);
            let sequence = sequence.map_err(|_| StoreError::Unreadable("events.sequence"))?;
            let at = Timestamp(column(row, "at")?);
            Ok(EventRow { sequence, kind: column(row, "type")?, at, data: column(row, "data")? })
        };
        let events: Vec<EventRow> = rows.iter().map(read).collect::<Result<_, StoreError>>()?;
        Ok(transcript(&events, answered))
    }

    /// How long the answers of a call took, the first one first.
    ///
    /// # Errors
    /// The database.
    pub async fn turn_times(&self, call: CallId) -> Result<Vec<TurnTimes>, StoreError> {
        let told = sql("SELECT data FROM events WHERE call = $1 AND type = 'turn_timed' \
                        ORDER BY sequence LIMIT $2");
        let rows = self.all(told.bind(call.hex()).bind(TIMES_MAX)).await?;
        rows.iter().map(|row| Ok(read_times(&column::<String>(row, "data")?))).collect()
    }

    /// The call that a name means: Kaphila's form of the id, or any other surface's.
    ///
    /// # Errors
    /// The database.
    pub async fn call_named(&self, name: &str) -> Result<Option<CallId>, StoreError> {
        let forms = [CallId::from_hex, CallId::from_call_sid, CallId::from_uuid, CallId::from_cuid];
        let id = forms.iter().find_map(|form| form(name)).map(CallId::hex);
        let found = sql("SELECT id FROM calls WHERE kaphila_id = $1 OR id = $2");
        let row = self.optional(found.bind(name).bind(id.unwrap_or_default())).await?;
        let Some(row) = row else { return Ok(None) };
        let id = CallId::from_hex(&column::<String>(&row, "id")?);
        id.map(Some).ok_or(StoreError::Unreadable("calls.id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_holds_what_was_said_and_pressed() {
        let row = |kind: &str, at: i64, data: &str| EventRow {
            sequence: 1,
            kind: kind.into(),
            at: Timestamp(at),
            data: data.into(),
        };
        let events = [
            row("answered", 1000, "{}"),
            row("played", 3500, r#"{"text":"Hello.","completed":true}"#),
            row("played", 4000, r#"{"text":null,"file":"custom/welcome"}"#),
            row("digit", 5000, r#"{"digit":"4"}"#),
            row("said", 6000, r#"{"by":"caller","text":"Hi."}"#),
            row("said", 9000, r#"{"by":"agent","text":"Bye.","from":7000,"until":7500}"#),
        ];
        let turn = |by, text: &str, from, until| {
            let span = Span { from: Timestamp(from), until: Timestamp(until) };
            Turn { by, text: text.into(), span }
        };
        let expected = [
            turn(Speaker::Agent, "Hello.", 1000, 3500),
            turn(Speaker::Caller, "4", 5000, 5000),
            turn(Speaker::Caller, "Hi.", 5000, 6000),
            turn(Speaker::Agent, "Bye.", 7000, 7500),
        ];
        assert_eq!(transcript(&events, Some(Timestamp(1000))), expected);
        assert!(transcript(&events, None).is_empty());
    }

    #[test]
    fn times_survive_their_text_form() {
        let times = TurnTimes {
            turn: 3,
            speech_end: Some(Timestamp(5)),
            transcript: Timestamp(900),
            first_audio: Some(Timestamp(1500)),
            total_ms: Some(1495),
            own_ms: Some(12),
            ..TurnTimes::default()
        };
        assert_eq!(read_times(&write_times(&times).to_string()), times);
        assert_eq!(read_times("[]"), TurnTimes::default());
    }
}
