//! Text into sound, and sound files into clips: everything that a call plays.
//!
//! This room owns the voices ([`Speech`]), the memory of prompts already spoken and the folder of sounds
//! ([`Sounds`]), and cuts texts that are still being written into what can be spoken ([`Clauses`]). Whatever it hands out is 8 kHz mono and about −20 dBm0 loud where it is speech, made on threads of
//! its own: a media thread only copies samples. It never writes text to the log, knows nothing of calls, and takes
//! text as plain text: markup in it is spoken, not obeyed.
//!
//! Voices are tried in the configured order, each with its share of the time that is left; one that failed several
//! times in a row is passed over for a while. The built-in voice is always the last, so that no call falls silent.

mod azure;
mod cache;
mod clauses;
mod decode;
mod elevenlabs;
#[cfg(feature = "embedded-voice")]
mod embedded;
mod google;
mod library;
mod live;
mod openai;
mod polly;
mod program;
mod reader;
mod remote;
mod resample;
mod shape;
mod sounds;
mod stream;
mod voices;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use media::Clip;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::config;
use crate::provider::bench::Bench;

use cache::Lru;
pub use clauses::{Clauses, words};
#[cfg(feature = "embedded-voice")]
use embedded::Embedded;
pub use library::{Listed, ShelfError, Upload, split_file};
use program::Program;
use remote::{Cast, Remote};
pub use sounds::{SoundError, Sounds};
pub use stream::SpeechStream;
pub use voices::{DEFAULT_VOICE, Gender, Voice};

/// Longest text, in characters.
pub const TEXT_MAX: usize = 5000;
/// Longest speech, in seconds: text of mere abbreviations and numbers takes more time than its length tells.
const SPEECH_MAX_S: usize = 10 * 60;
/// Longest wait for a text, all voices together; the customer's request waits with it.
const SAY_WITHIN: Duration = Duration::from_secs(4);
/// Voices that make sound themselves.
const LOCAL: [&str; 3] = ["embedded", "espeak", "flite"];
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
    seats: Vec<Arc<Seat>>,
    /// Names of voices that stand for others.
    names: BTreeMap<String, String>,
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

/// A way to speak, and whether it may.
#[derive(Debug)]
struct Seat {
    provider: Provider,
    bench: Bench,
}

/// A way to speak.
#[derive(Clone, Debug)]
enum Provider {
    #[cfg(feature = "embedded-voice")]
    Embedded(Arc<Embedded>),
    Program(Arc<Program>),
    Remote(Arc<Remote>),
}

/// What a name of a voice asks of a provider.
#[derive(Clone, Debug)]
enum Role {
    /// Of those that make sound themselves.
    Local(Voice),
    /// Of a service.
    Remote(Cast),
}

/// What was asked for.
struct Asked<'a> {
    /// The name, mapped.
    name: &'a str,
    /// The provider that it names before a colon.
    provider: Option<&'a str>,
}

impl Provider {
    fn open(name: &str, config: &config::Speech) -> Result<Self, String> {
        if let Some(remote) = Remote::open(name, config) {
            return remote.map(|remote| Self::Remote(Arc::new(remote)));
        }
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
            Self::Remote(remote) => remote.name(),
        }
    }

    /// Changes of the engine or its data change this, so that no prompt of an older one is played.
    fn version(&self) -> String {
        match self {
            #[cfg(feature = "embedded-voice")]
            Self::Embedded(_) => embedded::VERSION.to_owned(),
            Self::Program(_) => "1".to_owned(),
            Self::Remote(remote) => remote.version(),
        }
    }

    /// The voice as this provider can speak it.
    fn fit(&self, voice: Voice) -> Voice {
        match self {
            #[cfg(feature = "embedded-voice")]
            Self::Embedded(_) => voice.in_english(),
            Self::Program(program) if program.only_english() => voice.in_english(),
            Self::Program(_) | Self::Remote(_) => voice,
        }
    }

    /// The role that a name has here.
    fn role(&self, asked: &Asked<'_>) -> Role {
        match self {
            Self::Remote(remote) => {
                Role::Remote(remote.cast(asked.name, asked.provider == Some(remote.name())))
            }
            _ => Role::Local(self.fit(Voice::named(asked.name))),
        }
    }

    /// Samples, −1 to 1, and their rate. Blocks; services do not speak here.
    fn speak(&self, text: &str, voice: &Voice) -> Result<(Vec<f32>, u32), SpeechError> {
        match self {
            #[cfg(feature = "embedded-voice")]
            Self::Embedded(embedded) => embedded.speak(text, voice),
            Self::Program(program) => program.speak(text, voice),
            Self::Remote(_) => Err(SpeechError::Failed("it speaks elsewhere".to_owned())),
        }
    }
}

/// A name of a voice and what it stands for, for a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceListed {
    /// The name that customers give.
    pub name: String,
    /// The first configured provider.
    pub provider: &'static str,
    /// The voice in that provider's own words.
    pub speaks_as: String,
    /// BCP 47 or espeak's word for the language; empty where the text decides it.
    pub language: String,
    /// Whose voice.
    pub gender: Gender,
    /// Whether name and language were known; otherwise it is the nearest that there is.
    pub known: bool,
}

impl Speech {
    /// Opens the configured voices. One that cannot be used is left out, with a warning, while another can. Where no
    /// voice of this machine is named, the built-in one comes last.
    ///
    /// # Errors
    /// [`SpeechError::NoVoice`] says for each configured voice why it cannot be used.
    pub fn new(config: &config::Speech) -> Result<Self, SpeechError> {
        let mut providers = Vec::new();
        let mut refused = Vec::new();
        for name in &config.tts {
            match Provider::open(name, config) {
                Ok(provider) => providers.push(provider),
                Err(reason) => {
                    tracing::warn!(voice = name, reason, "a configured voice cannot be used");
                    refused.push(format!("{name}: {reason}"));
                }
            }
        }
        let local = config.tts.iter().any(|name| LOCAL.contains(&name.as_str()));
        if !local && !config.tts.is_empty() {
            match Provider::open("embedded", config) {
                Ok(provider) => providers.push(provider),
                Err(reason) => tracing::warn!(reason, "there is no voice to fall back to"),
            }
        }
        if providers.is_empty() {
            return Err(SpeechError::NoVoice(refused.join("; ")));
        }
        let pair = |text: &String| {
            text.split_once('=').map(|(name, other)| (name.trim().to_owned(), other.trim().to_owned()))
        };
        Ok(Self::with(providers, config.voices.iter().filter_map(pair).collect(), config.cache_bytes))
    }

    fn with(providers: Vec<Provider>, names: BTreeMap<String, String>, cache_bytes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let memory = Memory { clips: Lru::new(cache_bytes), flights: BTreeMap::new() };
        let seat = |provider| Arc::new(Seat { provider, bench: Bench::default() });
        Self(Arc::new(Inner {
            seats: providers.into_iter().map(seat).collect(),
            names,
            memory: Mutex::new(memory),
            workers: Arc::new(Semaphore::new(cores)),
        }))
    }

    /// Says `text` (1 to [`TEXT_MAX`] characters, plain) with the voice that `voice_name` stands for. A text said
    /// before is remembered; one being said for another caller is waited for.
    ///
    /// # Errors
    /// What is wrong with the text, or the last voice's failure when all of them failed.
    pub async fn say(&self, text: &str, voice_name: &str) -> Result<Arc<Clip>, SpeechError> {
        let text: Arc<str> = voices::spoken_form(text)?.into();
        let asked = self.asked(voice_name);
        let until = Instant::now() + SAY_WITHIN;
        let mut outcome = Err(SpeechError::Silent);
        let line = self.line(&asked);
        for (n, seat) in line.iter().enumerate() {
            let role = seat.provider.role(&asked);
            let said = timeout(share(until, line.len() - n), self.said_by(seat, &text, role)).await;
            outcome = said.unwrap_or(Err(SpeechError::Late));
            match &outcome {
                Ok(_) => break,
                Err(error) => tracing::warn!(voice = seat.provider.name(), %error, "a text was not spoken"),
            }
        }
        outcome
    }

    /// Says a text that is wanted once and soon, such as an answer in a conversation: its sound begins to come as
    /// soon as a service streams it, and is not remembered (what was remembered before is used). Returns when the
    /// first piece is there.
    ///
    /// # Errors
    /// As [`Speech::say`].
    pub async fn stream(&self, text: &str, voice_name: &str) -> Result<SpeechStream, SpeechError> {
        let text: Arc<str> = voices::spoken_form(text)?.into();
        let asked = self.asked(voice_name);
        let until = Instant::now() + SAY_WITHIN;
        let mut outcome = Err(SpeechError::Silent);
        let line = self.line(&asked);
        for (n, seat) in line.iter().enumerate() {
            let role = seat.provider.role(&asked);
            if let Some(clip) = self.0.memory().clips.get(&key(&seat.provider, &text, &role)) {
                return Ok(SpeechStream::whole(seat.provider.name(), clip));
            }
            let started = self.0.start(seat.provider.clone(), text.clone(), role);
            outcome = timeout(share(until, line.len() - n), started).await.unwrap_or(Err(SpeechError::Late));
            seat.note(&outcome);
            match &outcome {
                Ok(_) => break,
                Err(error) => tracing::warn!(voice = seat.provider.name(), %error, "a text was not spoken"),
            }
        }
        outcome
    }

    /// The voice that a name stands for, as a voice of this machine speaks it. Any name has one.
    pub fn resolve(&self, voice_name: &str) -> Voice {
        let asked = self.asked(voice_name);
        let voice = Voice::named(asked.name);
        self.0.seats.first().map_or(voice, |seat| seat.provider.fit(voice))
    }

    /// The first voice's name: `embedded-espeak`, `espeak`, `flite`, or a service's.
    pub fn name(&self) -> &'static str {
        self.0.seats.first().map_or("none", |seat| seat.provider.name())
    }

    /// The voices' names in the order in which they are tried.
    pub fn providers(&self) -> Vec<&'static str> {
        self.0.seats.iter().map(|seat| seat.provider.name()).collect()
    }

    /// What one name stands for.
    pub fn listed(&self, voice_name: &str) -> Option<VoiceListed> {
        let asked = self.asked(voice_name);
        let seat = *self.line(&asked).first()?;
        let voice = seat.provider.fit(Voice::named(asked.name));
        let (speaks_as, language) = match seat.provider.role(&asked) {
            Role::Local(voice) => (voice.to_string(), voice.language.to_owned()),
            Role::Remote(cast) => (cast.voice, cast.language),
        };
        let name = voice_name.to_owned();
        let provider = seat.provider.name();
        Some(VoiceListed { name, provider, speaks_as, language, gender: voice.gender, known: voice.known })
    }

    /// The usual names and what they stand for: those of the configuration, then those that customers' documents
    /// show. Any other name is taken as well.
    pub fn voices(&self) -> Vec<VoiceListed> {
        let known = voices::catalogue();
        let own = self.0.names.keys().filter(|name| !known.contains(name)).cloned().collect::<Vec<_>>();
        own.iter().chain(&known).filter_map(|name| self.listed(name)).collect()
    }

    /// A name as the configuration maps it, and the provider before its colon.
    fn asked<'a>(&'a self, voice_name: &'a str) -> Asked<'a> {
        let name = self.0.names.get(voice_name).map_or(voice_name, String::as_str);
        match name.split_once(':') {
            Some((provider, name)) if !name.is_empty() && is_provider(provider) => {
                // The configuration's word for the built-in voice is shorter than its own.
                let provider = if provider == "embedded" { "embedded-espeak" } else { provider };
                Asked { name, provider: Some(provider) }
            }
            Some(_) | None => Asked { name, provider: None },
        }
    }

    /// Who is tried, in order: the provider that is asked for, then the others; none that sits on the bench, unless
    /// all do.
    fn line(&self, asked: &Asked<'_>) -> Vec<&Arc<Seat>> {
        let now = Instant::now();
        let all = &self.0.seats;
        let mut line: Vec<&Arc<Seat>> = all.iter().filter(|seat| !seat.bench.is_out(now)).collect();
        if line.is_empty() {
            line = all.iter().collect();
        }
        // Stable: the others keep their order.
        line.sort_by_key(|seat| asked.provider != Some(seat.provider.name()));
        line
    }

    async fn said_by(&self, seat: &Arc<Seat>, text: &Arc<str>, role: Role) -> Spoken {
        let mut flight = match self.flight(seat, text, role)? {
            Found::Clip(clip) => return Ok(clip),
            Found::Flight(flight) => flight,
        };
        let landed = flight.wait_for(Option::is_some).await;
        let spoken = landed.ok().and_then(|spoken| spoken.clone());
        spoken.unwrap_or_else(|| Err(SpeechError::Failed("it was stopped".to_owned())))
    }

    /// What is remembered, or the flight under way, or a new one.
    fn flight(&self, seat: &Arc<Seat>, text: &Arc<str>, role: Role) -> Result<Found, SpeechError> {
        let key = key(&seat.provider, text, &role);
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
        let (inner, seat, text) = (self.0.clone(), seat.clone(), text.clone());
        // On its own task: the first to ask may go away while others still wait, and a prompt that comes too late
        // for this caller is there for the next.
        tokio::spawn(async move {
            let spoken = inner.speak(seat.provider.clone(), text, role).await.map(Arc::new);
            // Its own failures count here, not the impatience of a caller.
            seat.note(&spoken);
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

fn is_provider(word: &str) -> bool {
    LOCAL.contains(&word) || ["google", "openai", "azure", "elevenlabs", "polly"].contains(&word)
}

/// This voice's part of the time that is left, when so many are still to be tried: the next must have its time too.
fn share(until: Instant, left: usize) -> Duration {
    until.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(1).max(1)
}

impl Seat {
    /// Remembers how it went. What is wrong with the text is not the voice's fault, and a voice of this machine is
    /// never passed over.
    fn note<T>(&self, outcome: &Result<T, SpeechError>) {
        let Err(error) = outcome else { return self.bench.well() };
        let its_own = matches!(error, SpeechError::Failed(_) | SpeechError::Late | SpeechError::Silent);
        if its_own && matches!(self.provider, Provider::Remote(_)) {
            self.bench.failed(Instant::now());
        }
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

    /// A whole text, not remembered.
    async fn speak(&self, provider: Provider, text: Arc<str>, role: Role) -> Result<Clip, SpeechError> {
        let sound = match (&provider, &role) {
            (Provider::Remote(remote), Role::Remote(cast)) => Some(remote.whole(&text, cast).await?),
            _ => None,
        };
        let stopped = |_| SpeechError::Failed("it was stopped".to_owned());
        let work = async move {
            let permit = self.workers.clone().acquire_owned().await.map_err(stopped)?;
            let work = move || {
                // Held until the work is really done, even when nobody waits any longer.
                let _permit = permit;
                let (samples, rate) = match (sound, role) {
                    (Some(sound), _) => sound,
                    (None, Role::Local(voice)) => provider.speak(&text, &voice)?,
                    (None, Role::Remote(_)) => return Err(SpeechError::Silent),
                };
                shape::clip(samples, rate, &text)
            };
            // A panic of the voice ends here: the runtime catches it and says so.
            let crashed = |_| SpeechError::Failed("it crashed".to_owned());
            tokio::task::spawn_blocking(work).await.map_err(crashed)?
        };
        timeout(SAY_WITHIN, work).await.unwrap_or(Err(SpeechError::Late))
    }

    /// The beginning of a text.
    async fn start(
        &self,
        provider: Provider,
        text: Arc<str>,
        role: Role,
    ) -> Result<SpeechStream, SpeechError> {
        match (&provider, &role) {
            (Provider::Remote(remote), Role::Remote(cast)) => {
                SpeechStream::of(remote.clone(), text, cast.clone()).await
            }
            _ => {
                let name = provider.name();
                let clip = self.speak(provider, text, role).await?;
                Ok(SpeechStream::whole(name, Arc::new(clip)))
            }
        }
    }
}

fn key(provider: &Provider, text: &str, role: &Role) -> Key {
    let mut hash = Sha256::new();
    let (voice, manner) = match role {
        Role::Local(voice) => (voice.to_string(), voice.manner()),
        Role::Remote(cast) => (cast.voice.clone(), cast.language.clone()),
    };
    // A zero byte between the parts: no part can hold one.
    for part in [provider.name(), &provider.version(), &voice, &manner, text] {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
