//! What is said where nobody is left to talk on a call: a sentence, and the end. Owns nothing; never leaves a caller alone
//! on a silent line.

use std::time::Duration;

use super::Rooms;
use crate::model::CallId;
use crate::model::call::{CallState, Command};
use crate::model::event::PlayTo;

/// The words must be sound in this time.
const SPEECH_WITHIN: Duration = Duration::from_secs(10);

/// Says `agent.fallback_text` and ends the call when that was heard; a call that is over is left alone.
pub async fn apologise(rooms: &Rooms, call: CallId, voice: &str) {
    if rooms.live.get(call).is_none_or(|view| view.state == CallState::Ended) {
        return;
    }
    let words = &rooms.config.agent.fallback_text;
    let spoken = tokio::time::timeout(SPEECH_WITHIN, rooms.speech.say(words, voice)).await;
    if let Ok(Ok(clip)) = spoken {
        let (playback, text) = (format!("tts-{}-fallback", call.hex()), Some(words.clone()));
        let play = Command::Play { playback, clip, text, file: None, to: PlayTo::Bridge };
        for command in [Command::StopPlayback, play] {
            if rooms.engine.command(call, command).await.is_err() {
                break;
            }
        }
    }
    if let Err(error) = rooms.engine.command(call, Command::HangUp { drain: true }).await {
        tracing::debug!(%call, %error, "the call was over");
    }
}
