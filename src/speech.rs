//! Text into sound, and sound files into clips: everything that a call plays.
//!
//! This room owns the voices ([`Speech`]), the memory of prompts already spoken and the folder of sounds
//! ([`Sounds`]). Whatever it hands out is 8 kHz mono and about −20 dBm0 loud where it is speech, made on threads of
//! its own: a media thread only copies samples. It never writes text to the log, knows nothing of calls, and takes
//! text as plain text: markup in it is spoken, not obeyed.

mod cache;
mod decode;
#[cfg(feature = "embedded-voice")]
mod embedded;
mod library;
mod program;
mod resample;
mod shape;
mod sounds;
mod voices;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use media::Clip;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use crate::config;

use cache::Lru;
#[cfg(feature = "embedded-voice")]
use embedded::Embedded;
pub use library::{Listed, ShelfError, Upload, split_file};
use program::Program;
pub use sounds::{SoundError, Sounds};
pub use voices::{Gender, Voice};

/// Longest text, in characters.
pub const TEXT_MAX: usize = 5000;
/// Longest speech, in seconds: text of mere abbreviations and numbers takes more time than its length tells.
const SPEECH_MAX_S: usize = 10 * 60;
/// Longest wait for one voice; the customer's request waits with it.
const SAY_WITHIN: Duration = Duration::from_secs(4);
/// Different texts being spoken or waiting to be spoken at once.
const FLIGHTS_MAX: usize = 256;
/// The rate of the telephone, Hz.
const RATE: u32 = media::RATE;

/// Why there is no speech.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpeechError {
    /// None of the configured voices can be used; why, for each.
    #[error("no voice can be used: {0}")]
    NoVoice(String),
    /// The text is empty, or nothing but control characters.
    #[error("the text is empty")]
    Empty,
    /// The text is longer than [`TEXT_MAX`] characters, or takes too long to say.
    #[error("the text is too long")]
    TooLong,
    /// Words went in and silence came out.
    #[error("the voice said nothing")]
    Silent,
    /// The voice took too long.
    #[error("the voice took too long")]
    Late,
    /// Too many texts are waiting.
    #[error("too many texts are waiting to be spoken")]
    Busy,
    /// The voice failed; in its own words, never the text's.
    #[error("the voice failed: {0}")]
    Failed(String),
}

/// The voices in the order in which they are tried, and what they have said before. Clones share both.
#[derive(Clone, Debug)]
pub struct Speech(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    providers: Vec<Provider>,
    memory: Mutex<Memory>,
    /// One core each: more at once would only make all of them late.
    workers: Arc<Semaphore>,
}

/// What was said, and what is being said. One lock for both: a text is always in at most one of them.
#[derive(Debug)]
struct Memory {
    clips: Lru<Key>,
    flights: BTreeMap<Key, Flight>,
}

/// SHA-256 over provider, voice and text.
type Key = [u8; 32];
type Spoken = Result<Arc<Clip>, SpeechError>;
/// `None` until it is spoken. Whoever asks for the same text meanwhile waits here too.
type Flight = watch::Receiver<Option<Spoken>>;

/// A way to speak. All block, and are called on blocking threads only.
#[derive(Clone, Debug)]
enum Provider {
    #[cfg(feature = "embedded-voice")]
    Embedded(Arc<Embedded>),
    Program(Arc<Program>),
}

impl Provider {
    fn open(name: &str) -> Result<Self, String> {
        match name {
            #[cfg(feature = "embedded-voice")]
            "embedded" => Embedded::new().map(|voice| Self::Embedded(Arc::new(voice))),
            #[cfg(not(feature = "embedded-voice"))]
            "embedded" => Err("this binary was built without its voice (feature embedded-voice)".to_owned()),
            "espeak" | "flite" => Program::find(name).map(|program| Self::Program(Arc::new(program))),
            _ => Err("there is no such voice".to_owned()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            #[cfg(feature = "embedded-voice")]
            Self::Embedded(_) => "embedded-espeak",
            Self::Program(program) => program.name(),
        }
    }

    /// Changes of the engine or its data change this, so that no prompt of an older one is played.
    fn version(&self) -> &'static str {
        match self {
            #[cfg(feature = "embedded-voice")]
            Self::Embedded(_) => embedded::VERSION,
            Self::Program(_) => "1",
        }
    }

    /// The voice as this provider can speak it.
    fn fit(&self, voice: Voice) -> Voice {
        match self {
            #[cfg(feature = "embedded-voice")]
            Self::Embedded(_) => voice.in_english(),
            Self::Program(program) if program.only_english() => voice.in_english(),
            Self::Program(_) => voice,
        }
    }

    /// Samples, −1 to 1, and their rate. Blocks.
    fn speak(&self, text: &str, voice: &Voice) -> Result<(Vec<f32>, u32), SpeechError> {
        match self {
            #[cfg(feature = "embedded-voice")]
            Self::Embedded(embedded) => embedded.speak(text, voice),
            Self::Program(program) => program.speak(text, voice),
        }
    }
}

impl Speech {
    /// Opens the configured voices. One that cannot be used is left out, with a warning, while another can.
    ///
    /// # Errors
    /// [`SpeechError::NoVoice`] says for each configured voice why it cannot be used.
    pub fn new(config: &config::Speech) -> Result<Self, SpeechError> {
        let mut providers = Vec::new();
        let mut refused = Vec::new();
        for name in &config.tts {
            match Provider::open(name) {
                Ok(provider) => providers.push(provider),
                Err(reason) => {
                    tracing::warn!(voice = name, reason, "a configured voice cannot be used");
                    refused.push(format!("{name}: {reason}"));
                }
            }
        }
        if providers.is_empty() {
            return Err(SpeechError::NoVoice(refused.join("; ")));
        }
        Ok(Self::with(providers, config.cache_bytes))
    }

    fn with(providers: Vec<Provider>, cache_bytes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let memory = Memory { clips: Lru::new(cache_bytes), flights: BTreeMap::new() };
        Self(Arc::new(Inner {
            providers,
            memory: Mutex::new(memory),
            workers: Arc::new(Semaphore::new(cores)),
        }))
    }

    /// Says `text` (1 to [`TEXT_MAX`] characters, plain) with the voice that `voice_name` maps to. A text said
    /// before is remembered; one being said for another caller is waited for.
    ///
    /// # Errors
    /// What is wrong with the text, or the last voice's failure when all of them failed.
    pub async fn say(&self, text: &str, voice_name: &str) -> Result<Arc<Clip>, SpeechError> {
        let text: Arc<str> = voices::spoken_form(text)?.into();
        let mut outcome = Err(SpeechError::Silent);
        for provider in &self.0.providers {
            let voice = provider.fit(Voice::named(voice_name));
            outcome = self.said_by(provider, &text, voice).await;
            match &outcome {
                Ok(_) => break,
                Err(error) => tracing::warn!(voice = provider.name(), %error, "a text was not spoken"),
            }
        }
        outcome
    }

    /// The voice that a name stands for, as the first configured provider speaks it. Any name has one.
    pub fn resolve(&self, voice_name: &str) -> Voice {
        let voice = Voice::named(voice_name);
        self.0.providers.first().map_or(voice, |provider| provider.fit(voice))
    }

    /// The first voice's name: `embedded-espeak`, `espeak` or `flite`.
    pub fn name(&self) -> &'static str {
        self.0.providers.first().map_or("none", Provider::name)
    }

    async fn said_by(&self, provider: &Provider, text: &Arc<str>, voice: Voice) -> Spoken {
        let mut flight = match self.flight(provider, text, voice)? {
            Found::Clip(clip) => return Ok(clip),
            Found::Flight(flight) => flight,
        };
        let landed = flight.wait_for(Option::is_some).await;
        let spoken = landed.ok().and_then(|spoken| spoken.clone());
        spoken.unwrap_or_else(|| Err(SpeechError::Failed("it was stopped".to_owned())))
    }

    /// What is remembered, or the flight under way, or a new one.
    fn flight(&self, provider: &Provider, text: &Arc<str>, voice: Voice) -> Result<Found, SpeechError> {
        let key = key(provider, text, &voice);
        let mut memory = self.0.memory();
        if let Some(clip) = memory.clips.get(&key) {
            return Ok(Found::Clip(clip));
        }
        // A flight whose sender is gone never lands: its task was dropped with the runtime.
        if let Some(flight) = memory.flights.get(&key).filter(|flight| flight.has_changed().is_ok()) {
            return Ok(Found::Flight(flight.clone()));
        }
        if memory.flights.len() >= FLIGHTS_MAX {
            return Err(SpeechError::Busy);
        }
        let (land, flight) = watch::channel(None);
        memory.flights.insert(key, flight.clone());
        let (inner, provider, text) = (self.0.clone(), provider.clone(), text.clone());
        // On its own task: the first to ask may go away while others still wait.
        tokio::spawn(async move {
            let spoken = inner.speak(provider, text, voice).await;
            let mut memory = inner.memory();
            if let Ok(clip) = &spoken {
                memory.clips.put(key, clip.clone());
            }
            memory.flights.remove(&key);
            drop(memory);
            land.send_replace(Some(spoken));
        });
        Ok(Found::Flight(flight))
    }
}

enum Found {
    Clip(Arc<Clip>),
    Flight(Flight),
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it is held; if something did, the memory is still whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn speak(&self, provider: Provider, text: Arc<str>, voice: Voice) -> Spoken {
        let workers = self.workers.clone();
        let work = async move {
            let stopped = |_| SpeechError::Failed("it was stopped".to_owned());
            let permit = workers.acquire_owned().await.map_err(stopped)?;
            let work = move || {
                // Held until the work is really done, even when nobody waits any longer.
                let _permit = permit;
                let (samples, rate) = provider.speak(&text, &voice)?;
                shape::clip(samples, rate, &text)
            };
            // A panic of the voice ends here: the runtime catches it and says so.
            let crashed = |_| SpeechError::Failed("it crashed".to_owned());
            tokio::task::spawn_blocking(work).await.map_err(crashed)?
        };
        // The next voice of the list must have its time too.
        let within = SAY_WITHIN / u32::try_from(self.providers.len()).unwrap_or(1).max(1);
        tokio::time::timeout(within, work).await.unwrap_or(Err(SpeechError::Late)).map(Arc::new)
    }
}

fn key(provider: &Provider, text: &str, voice: &Voice) -> Key {
    let mut hash = Sha256::new();
    // A zero byte between the parts: no part can hold one.
    for part in [provider.name(), provider.version(), &voice.to_string(), &voice.manner(), text] {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
