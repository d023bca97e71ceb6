//! Says goodbye to whoever asks by key not to be called again, and hangs up (CONTRACT 3 S18). That they are not called
//! again is the journal's to write, with the key's event; here it is only told to them, when it is on disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::control::Rooms;
use crate::journal::{Notice, Told};
use crate::model::call::{CallState, CallView, Command};
use crate::model::event::{CallEvent, PlayTo};

/// Notices that may wait; far more than ever do.
const NOTICES_MAX: usize = 100_000;

/// What is said.
const WORDS: &str = "You will not be called again.";

/// The words must be sound in this time, or the call ends without them.
const SPEECH_WITHIN: Duration = Duration::from_secs(4);

/// What follows the last word.
const PAUSE: Duration = Duration::from_millis(300);

/// Starts listening for keys. Ends when aborted.
pub fn start(rooms: Rooms) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let mut told = rooms.journal.feed().listen(None, None, NOTICES_MAX);
            while let Some(told) = told.recv().await {
                if let Some((view, key)) = pressed(&told) {
                    tokio::spawn(part(rooms.clone(), view, key));
                }
            }
            tracing::error!("who asked not to be called again was not told so in time");
        }
    })
}

/// The key that was pressed on a campaign's call.
fn pressed(told: &Told) -> Option<(Arc<CallView>, char)> {
    match &told.notice {
        Notice::Fact(view, CallEvent::Digit { digit, .. }) if view.order.purpose.campaign.is_some() => {
            Some((Arc::clone(view), *digit))
        }
        Notice::Fact(..) | Notice::Saying { .. } | Notice::Mishap { .. } => None,
    }
}

async fn part(rooms: Rooms, view: Arc<CallView>, key: char) {
    let order = &view.order;
    let Some(campaign) = &order.purpose.campaign else { return };
    let campaign = match rooms.db.campaign(&order.tenant, campaign).await {
        Ok(campaign) => campaign,
        Err(error) => return tracing::error!(call = %order.id, %error, "a campaign could not be read"),
    };
    let asked = campaign.is_some_and(|campaign| campaign.about.opt_out_key == Some(key));
    if !asked || view.state != CallState::Answered {
        return;
    }
    tracing::info!(call = %order.id, "whoever was called asked not to be called again");
    let said = tokio::time::timeout(SPEECH_WITHIN, rooms.speech.say(WORDS, &order.voice_name)).await;
    if let Ok(Ok(clip)) = said {
        let length = Duration::from_millis(clip.duration_ms().into());
        let (playback, text) = (format!("tts-{}-farewell", order.id.hex()), Some(WORDS.to_owned()));
        let play = Command::Play { playback, clip, text, file: None, to: PlayTo::Bridge };
        let stopped = rooms.engine.command(order.id, Command::StopPlayback).await;
        if stopped.is_ok() && rooms.engine.command(order.id, play).await.is_ok() {
            // Not by draining: whoever talks for the campaign may go on, and nobody listens any more.
            tokio::time::sleep(length + PAUSE).await;
        }
    }
    if let Err(error) = rooms.engine.command(order.id, Command::HangUp { drain: false }).await {
        tracing::debug!(call = %order.id, %error, "the call was over");
    }
}
