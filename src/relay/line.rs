//! What a session does to its call: sounds made and played, keys pressed, the far end listened to, what was said told
//! to whoever wants to know. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use media::Tap;
use tokio::task::JoinSet;

use super::{Desk, PLAYBACK, fetch};
use crate::clock;
use crate::control::apology::apologise;
use crate::hearing::{Ears, HearingError, HearingEvent, Listening, Words};
use crate::journal::{Notice, Told};
use crate::model::CallId;
use crate::model::call::{CallState, CallView, Command, CommandError};
use crate::model::event::{CallEvent, PlayTo, Speaker, Stamped};

/// Words must be sound in this time.
const SPEECH_WITHIN: Duration = Duration::from_secs(10);
/// What is heard while nobody talks.
const MUSIC: &str = "music/hold";

/// A sound that was asked for, or why there is none.
type Prepared = (u64, Result<Arc<media::Clip>, String>);

/// What a line has to tell.
pub(super) enum News {
    /// What was asked for under this number is there, so many milliseconds of it, or will never be.
    Prepared(u64, Result<u32, String>),
    /// The far end said something.
    Heard(HearingEvent),
}

/// One call's line.
pub(super) struct Line {
    desk: Desk,
    call: CallId,
    tenant: String,
    voice: String,
    kaphila_id: String,
    clips: BTreeMap<u64, Arc<media::Clip>>,
    preparing: JoinSet<Prepared>,
    tap: Tap,
    hearing: Option<(Ears, Words)>,
}

impl Line {
    /// The line of this call.
    pub(super) fn new(desk: Desk, view: &CallView) -> Self {
        let order = &view.order;
        Self {
            desk,
            call: order.id,
            tenant: order.tenant.clone(),
            voice: order.voice_name.clone(),
            kaphila_id: order.kaphila_id.clone(),
            clips: BTreeMap::new(),
            preparing: JoinSet::new(),
            tap: Tap::new(),
            hearing: None,
        }
    }

    /// Whether the far end has answered, and is there.
    pub(super) fn is_answered(&self) -> bool {
        self.desk.rooms.live.get(self.call).is_some_and(|view| view.state == CallState::Answered)
    }

    /// Whether there is a call yet, or still.
    pub(super) fn is_live(&self) -> bool {
        self.desk.rooms.live.get(self.call).is_some_and(|view| view.state != CallState::Ended)
    }

    /// Forgets what an application wanted, and speaks in this voice where it is one of its own.
    pub(super) fn clear(&mut self, voice: Option<String>) {
        self.clips.clear();
        self.preparing = JoinSet::new();
        self.hearing = None;
        // What was said meanwhile was said to nobody.
        while self.tap.pop().is_some() {}
        if let Some(voice) = voice {
            self.voice = voice;
        }
    }

    /// Makes words into sound; [`Line::news`] gives it.
    pub(super) fn speak(&mut self, number: u64, words: String, language: Option<String>) {
        let speech = self.desk.rooms.speech.clone();
        let voice = match language {
            // Another language has another voice: one that the language's name stands for.
            Some(tag) if speech.resolve(&tag).language != speech.resolve(&self.voice).language => tag,
            Some(_) | None => self.voice.clone(),
        };
        self.preparing.spawn(async move {
            let spoken = tokio::time::timeout(SPEECH_WITHIN, speech.say(&words, &voice)).await;
            let clip = match spoken {
                Ok(Ok(clip)) => Ok(clip),
                Ok(Err(error)) => Err(format!("The text could not be spoken: {error}")),
                Err(_) => Err("The text could not be spoken in time".to_owned()),
            };
            (number, clip)
        });
    }

    /// Fetches a sound; [`Line::news`] gives it.
    pub(super) fn fetch(&mut self, number: u64, source: String) {
        let (client, rooms) = (self.desk.means.client.clone(), self.desk.rooms.clone());
        self.preparing.spawn(async move {
            let sound = fetch::sound(&client, &source, &rooms.config.webhooks, &rooms.sounds).await;
            (number, sound.map_err(|error| format!("The sound cannot be played: {error}")))
        });
    }

    /// What comes next. Nothing is lost when the wait is given up; it never ends where there is nothing to come.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            (number, clip) = prepared(&mut self.preparing) => match clip {
                Ok(clip) => {
                    let length = clip.duration_ms();
                    self.clips.insert(number, clip);
                    News::Prepared(number, Ok(length))
                }
                Err(why) => News::Prepared(number, Err(why)),
            },
            event = understood(&mut self.hearing) => News::Heard(event),
        }
    }

    /// Plays what was prepared.
    ///
    /// # Errors
    /// Why it cannot be played.
    pub(super) async fn play(&mut self, number: u64) -> Result<(), String> {
        let Some(clip) = self.clips.get(&number).cloned() else { return Ok(()) };
        // Those before it were heard, and are not heard again.
        self.clips = self.clips.split_off(&number.saturating_sub(2));
        let playback = format!("{PLAYBACK}{}-{number}", self.kaphila_id);
        let playing = self.play_clip(playback, clip).await;
        playing.map_err(|error| format!("It cannot be played: {error}"))
    }

    async fn play_clip(&self, playback: String, clip: Arc<media::Clip>) -> Result<(), CommandError> {
        let play = Command::Play { playback, clip, text: None, file: None, to: PlayTo::Bridge };
        self.desk.rooms.engine.command(self.call, play).await.map(|_| ())
    }

    /// Music for somebody who waits, once through; `false` where there is none.
    pub(super) async fn music(&self) -> bool {
        match self.desk.rooms.sounds.load(None, MUSIC).await {
            Ok(clip) => self.play_clip(self.music_name(), clip).await.is_ok(),
            Err(_) => false,
        }
    }

    /// What the engine calls that.
    pub(super) fn music_name(&self) -> String {
        format!("{PLAYBACK}{}-hold", self.kaphila_id)
    }

    /// The number of a playback of ours.
    pub(super) fn number(name: &str) -> Option<u64> {
        name.rsplit_once('-')?.1.parse().ok()
    }

    /// Listens to the far end in this language; [`Line::news`] gives what it says.
    ///
    /// # Errors
    /// [`HearingError::None`] where no recogniser is configured.
    pub(super) async fn listen(&mut self, language: String, hints: Vec<String>) -> Result<(), HearingError> {
        let first = self.hearing.is_none();
        self.hearing = Some(self.desk.means.hearing.listen(Listening { language, hints })?);
        if first {
            self.command(Command::Listen { tap: self.tap.clone() }).await;
        }
        Ok(())
    }

    /// Nobody listens any more.
    pub(super) fn deaf(&mut self) {
        self.hearing = None;
    }

    /// Leads what was heard to the recogniser.
    pub(super) fn hear(&mut self) {
        while let Some(frame) = self.tap.pop() {
            if let Some((ears, _)) = &mut self.hearing {
                ears.hear(&frame);
            }
        }
    }

    /// Has the engine do something; that it is too late for it is no harm.
    pub(super) async fn command(&self, command: Command) {
        if let Err(error) = self.desk.rooms.engine.command(self.call, command).await {
            tracing::debug!(call = %self.call, %error, "an application's wish came too late");
        }
    }

    /// Somebody has said so much so far.
    pub(super) fn saying(&self, by: Speaker, text: String, turn: u32) {
        self.tell(Notice::Saying { by, text, turn });
    }

    /// Something went wrong, in words.
    pub(super) fn mishap(&self, code: &'static str, message: &str) {
        self.tell(Notice::Mishap { code, message: message.to_owned() });
    }

    /// Remembers what happened.
    pub(super) fn record(&self, event: CallEvent) {
        self.desk.rooms.journal.record(Stamped { call: self.call, at: clock::now().wall, event });
    }

    fn tell(&self, notice: Notice) {
        let (tenant, call, at) = (self.tenant.clone(), self.call, clock::now().wall);
        self.desk.rooms.journal.feed().tell(Told { tenant, call, at, notice });
    }

    /// Says that nothing can be done, and ends the call when that was heard.
    pub(super) async fn apologise(&self) {
        apologise(&self.desk.rooms, self.call, &self.voice).await;
    }
}

/// The next sound that is there. Never ends where none is being made.
async fn prepared(preparing: &mut JoinSet<Prepared>) -> Prepared {
    loop {
        match preparing.join_next().await {
            Some(Ok(prepared)) => return prepared,
            // A preparation that crashed said so in the log.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// What was understood next. Never ends where nobody listens.
async fn understood(hearing: &mut Option<(Ears, Words)>) -> HearingEvent {
    if let Some((_, words)) = hearing
        && let Some(event) = words.next().await
    {
        return event;
    }
    *hearing = None;
    std::future::pending().await
}
