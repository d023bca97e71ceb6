//! The verbs of a live call: say, play, gather, stop or pause the recording, hang up. Each checks what may be checked
//! here, hands one command to the engine and returns; what then happens is told by events. Calls are placed in
//! [`super::placing`].

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Caller, Failure, Refusal, Rooms};
use crate::clock;
use crate::model::CallId;
use crate::model::call::{Accepted, CallState, CallView, Command, GatherOrder};
use crate::model::event::PlayTo;
use crate::speech::SoundError;

/// Speech must be ready in this time (CONTRACT 1.1 `/voice`).
const SPEECH_WITHIN: Duration = Duration::from_secs(4);

/// Digits to collect, with every field in its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// Spoken first.
    pub text: String,
    /// Who hears it.
    pub to: PlayTo,
    /// 1 to 32.
    pub num_digits: u8,
    /// 1000 to 120000.
    pub timeout_ms: u32,
    /// A key that ends it early.
    pub finish_on_key: Option<char>,
    /// Take the place of a running one.
    pub replace: bool,
}

/// A live call by the name that a surface has for it, and whose it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// Kaphila's form of the id; a call of the caller's key.
    Kaphila(&'a str),
    /// A call of the caller's key.
    OfKey(CallId),
    /// A call of any key of the caller's tenant.
    OfTenant(CallId),
}

impl<'a> From<&'a str> for Named<'a> {
    fn from(kaphila_id: &'a str) -> Self {
        Self::Kaphila(kaphila_id)
    }
}

impl<'a> From<&'a String> for Named<'a> {
    fn from(kaphila_id: &'a String) -> Self {
        Self::Kaphila(kaphila_id)
    }
}

/// The verbs, over the rooms that carry them out.
pub struct Calls {
    pub(super) rooms: Rooms,
    last_playback_ms: AtomicI64,
    draining: AtomicBool,
    /// Held while what is remembered of a call is changed.
    pub(super) remembering: Mutex<()>,
}

impl Calls {
    /// The verbs over these rooms.
    pub fn new(rooms: Rooms) -> Self {
        Self {
            rooms,
            last_playback_ms: AtomicI64::new(0),
            draining: AtomicBool::new(false),
            remembering: Mutex::new(()),
        }
    }

    /// Whether calls are refused from here on.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Refuses to place calls from here on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Speaks into a call; returns the playback's id once the speech is queued.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`], [`Refusal::NotAnswered`], [`Refusal::QueueFull`]; speech that fails or is late.
    pub async fn say(
        &self,
        caller: &Caller,
        call: impl Into<Named<'_>>,
        text: &str,
        to: PlayTo,
    ) -> Result<String, Failure> {
        let view = self.answered(caller, call)?;
        let clip = in_time(self.rooms.speech.say(text, &view.order.voice_name)).await?;
        let playback = self.playback_id("tts", &view.order.kaphila_id);
        let text = Some(text.to_owned());
        let play = Command::Play { playback: playback.clone(), clip, text, file: None, to };
        self.rooms.engine.command(view.order.id, play).await?;
        Ok(playback)
    }

    /// Plays a sound file into a call; returns the playback's id once it is queued.
    ///
    /// # Errors
    /// As [`Calls::say`]; [`Refusal::SoundNotFound`], [`Refusal::InvalidSound`]; a file that cannot be decoded.
    pub async fn play(
        &self,
        caller: &Caller,
        call: impl Into<Named<'_>>,
        file: &str,
        to: PlayTo,
    ) -> Result<String, Failure> {
        let view = self.answered(caller, call)?;
        let clip = match self.rooms.sounds.load(Some(&caller.key.key_id), file).await {
            Ok(clip) => clip,
            Err(SoundError::Invalid) => return Err(Refusal::InvalidSound.into()),
            Err(SoundError::NotFound) => return Err(Refusal::SoundNotFound.into()),
            Err(error @ (SoundError::Undecodable(_) | SoundError::TooLong)) => {
                return Err(Failure::Sound(error.to_string()));
            }
        };
        let playback = self.playback_id("play", &view.order.kaphila_id);
        let file = Some(file.to_owned());
        let play = Command::Play { playback: playback.clone(), clip, text: None, file, to };
        self.rooms.engine.command(view.order.id, play).await?;
        Ok(playback)
    }

    /// Speaks a prompt and collects digits; returns once the gather runs.
    ///
    /// # Errors
    /// As [`Calls::say`]; [`Refusal::GatherInProgress`] where one runs and is not to be replaced.
    pub async fn gather(
        &self,
        caller: &Caller,
        call: impl Into<Named<'_>>,
        asked: Gather,
    ) -> Result<(), Failure> {
        let view = self.answered(caller, call)?;
        if view.gather.is_some() && !asked.replace {
            return Err(Refusal::GatherInProgress.into());
        }
        let prompt = in_time(self.rooms.speech.say(&asked.text, &view.order.voice_name)).await?;
        let order = GatherOrder {
            prompt,
            to: asked.to,
            num_digits: asked.num_digits,
            timeout_ms: asked.timeout_ms,
            finish_on_key: asked.finish_on_key,
            replace: asked.replace,
        };
        self.rooms.engine.command(view.order.id, Command::Gather(order)).await?;
        Ok(())
    }

    /// Ends a call; with `drain` after what is queued has been played.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`] also for calls that are over.
    pub async fn hang_up(
        &self,
        caller: &Caller,
        call: impl Into<Named<'_>>,
        drain: bool,
    ) -> Result<(), Failure> {
        let view = self.live(caller, call)?;
        self.rooms.engine.command(view.order.id, Command::HangUp { drain }).await?;
        Ok(())
    }

    /// Stops a call's running recording; returns its id.
    ///
    /// # Errors
    /// [`Refusal::NoActiveRecording`] where none runs, and where there is no such call.
    pub async fn stop_recording(
        &self,
        caller: &Caller,
        call: impl Into<Named<'_>>,
    ) -> Result<String, Failure> {
        let view = self.live(caller, call).map_err(|_| Refusal::NoActiveRecording)?;
        self.recording_command(&view, Command::StopRecording).await
    }

    /// Puts silence into a call's running recording, or sound again; returns its id. Asking twice is asking once.
    ///
    /// # Errors
    /// [`Refusal::NoActiveRecording`] where none runs, and where there is no such call.
    pub async fn pause_recording(
        &self,
        caller: &Caller,
        call: impl Into<Named<'_>>,
        on: bool,
    ) -> Result<String, Failure> {
        let view = self.live(caller, call).map_err(|_| Refusal::NoActiveRecording)?;
        self.recording_command(&view, Command::PauseRecording { on }).await
    }

    async fn recording_command(&self, view: &CallView, command: Command) -> Result<String, Failure> {
        match self.rooms.engine.command(view.order.id, command).await.map_err(Refusal::from) {
            Ok(Accepted::RecordingStopped { recording } | Accepted::RecordingPaused { recording }) => {
                Ok(recording)
            }
            Ok(Accepted::Done) | Err(Refusal::UnknownCall | Refusal::NotAnswered) => {
                Err(Refusal::NoActiveRecording.into())
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// A text as sound, if it can be had in time.
    pub(super) async fn spoken(&self, text: &str, voice_name: &str) -> Result<Arc<media::Clip>, Failure> {
        in_time(self.rooms.speech.say(text, voice_name)).await
    }

    /// The call of that name, while it lives. One that is not the caller's is as unknown as one that never was.
    ///
    /// # Errors
    /// [`Refusal::UnknownCall`].
    pub fn live<'a>(&self, caller: &Caller, call: impl Into<Named<'a>>) -> Result<Arc<CallView>, Refusal> {
        let live = &self.rooms.live;
        let name = call.into();
        let view = match name {
            Named::Kaphila(id) => live.by_kaphila(id),
            Named::OfKey(id) | Named::OfTenant(id) => live.get(id),
        };
        let own = |view: &Arc<CallView>| match name {
            Named::Kaphila(_) | Named::OfKey(_) => view.order.key == caller.key.id,
            Named::OfTenant(_) => view.order.tenant == caller.key.tenant,
        };
        view.filter(|view| own(view) && view.state != CallState::Ended).ok_or(Refusal::UnknownCall)
    }

    pub(super) fn answered<'a>(
        &self,
        caller: &Caller,
        call: impl Into<Named<'a>>,
    ) -> Result<Arc<CallView>, Refusal> {
        let view = self.live(caller, call)?;
        if view.state == CallState::Answered { Ok(view) } else { Err(Refusal::NotAnswered) }
    }

    /// `<kind>-<call>-<13-digit ms>`; two in one millisecond are a millisecond apart in name.
    pub(super) fn playback_id(&self, kind: &str, call: &str) -> String {
        let now = clock::now().wall.0;
        let next = |last: i64| Some(now.max(last + 1));
        let last = self.last_playback_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let ms = now.max(last.unwrap_or(now) + 1);
        format!("{kind}-{call}-{ms:013}")
    }
}

async fn in_time<T, E>(speech: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    match tokio::time::timeout(SPEECH_WITHIN, speech).await {
        Ok(spoken) => Ok(spoken?),
        Err(_) => Err(Failure::SpeechTooSlow),
    }
}
