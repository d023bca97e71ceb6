//! Sound into text: what the other side of a call says.
//!
//! A session takes frames of a call ([`Ears`]) and gives what was understood ([`Words`]). This room owns the
//! recognisers, their order, and what happens when one fails: its connection is made anew once, then the next one
//! listens, and what was said meanwhile waits. It never blocks whoever gives frames, keeps no sound, and logs no text.
//!
//! When speech begins is told by a detector of our own, some 60 ms after the first sound and long before any service
//! could: whatever interrupts a prompt hangs on it.

mod cutter;
mod posted;
mod session;
mod socketed;

use std::sync::Arc;

use media::Frame;
use tokio::sync::mpsc;
use url::Url;

use crate::config;
use crate::provider::bench::Bench;
use crate::provider::{Client, Trouble};

use posted::Posted;
use socketed::Socketed;

/// Frames that may wait for a recogniser: 10 s, enough to connect anew.
const FRAMES: usize = 500;
/// Events that may wait to be taken.
const EVENTS: usize = 64;
/// Longest text of one utterance, bytes.
const TEXT_MAX: usize = 16 * 1024;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HearingEvent {
    /// Somebody began to speak.
    SpeechStarted,
    /// What an utterance that goes on seems to be; each replaces the one before.
    Partial {
        /// The text.
        text: String,
    },
    /// What an utterance was; never empty.
    Final {
        /// The text.
        text: String,
    },
    /// No recogniser is left; nothing comes after it.
    Failed {
        /// The last one's trouble.
        error: HearingError,
    },
}

/// Why nothing is understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HearingError {
    /// No recogniser is configured.
    #[error("no recogniser is configured")]
    None,
    /// The last recogniser that was tried failed.
    #[error("{name}: {trouble}")]
    Service {
        /// The configuration's word for it.
        name: &'static str,
        /// What went wrong.
        trouble: Trouble,
    },
}

/// What a session is told beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// BCP 47, such as `en-US`; empty: whatever the recogniser takes for granted.
    pub language: String,
    /// Words that are likely, for recognisers that take them.
    pub hints: Vec<String>,
}

/// The recognisers in the order in which they are tried. Clones share them; by default there are none.
#[derive(Clone, Debug, Default)]
pub struct Hearing(Arc<Vec<Seat>>);

#[derive(Debug)]
struct Seat {
    recogniser: Recogniser,
    bench: Bench,
}

/// A way to recognise.
#[derive(Debug)]
enum Recogniser {
    /// Whole utterances are posted.
    Posted(Posted),
    /// Sound flows over a WebSocket.
    Socketed(Socketed),
}

impl Recogniser {
    fn name(&self) -> &'static str {
        match self {
            Self::Posted(_) => "openai",
            Self::Socketed(socketed) => socketed.name(),
        }
    }
}

impl Hearing {
    /// Opens the configured recognisers; there may be none.
    ///
    /// # Errors
    /// [`HearingError::Service`] for the first whose settings lead nowhere.
    pub fn new(config: &config::Speech) -> Result<Self, HearingError> {
        let seat = |name: &String| {
            let recogniser = open(name, config)?;
            Ok(Seat { recogniser, bench: Bench::default() })
        };
        let seats: Result<Vec<Seat>, HearingError> = config.stt.iter().map(seat).collect();
        Ok(Self(Arc::new(seats?)))
    }

    /// Whether anything is configured.
    pub fn is_available(&self) -> bool {
        !self.0.is_empty()
    }

    /// The recognisers' names in the order in which they are tried.
    pub fn providers(&self) -> Vec<&'static str> {
        self.0.iter().map(|seat| seat.recogniser.name()).collect()
    }

    /// Begins to listen. The session ends when the [`Ears`] are dropped (what was said until then is still told) or
    /// the [`Words`] are.
    ///
    /// # Errors
    /// [`HearingError::None`] where no recogniser is configured.
    pub fn listen(&self, listening: Listening) -> Result<(Ears, Words), HearingError> {
        if !self.is_available() {
            return Err(HearingError::None);
        }
        let (frames_in, frames) = mpsc::channel(FRAMES);
        let (tell, events) = mpsc::channel(EVENTS);
        tokio::spawn(session::run(self.0.clone(), listening, frames, tell));
        Ok((Ears { frames: frames_in, lost: 0 }, Words { events }))
    }
}

fn open(name: &str, config: &config::Speech) -> Result<Recogniser, HearingError> {
    let wrong = |name, trouble| HearingError::Service { name, trouble };
    let address =
        |name, text: &str| Url::parse(text).map_err(|_| wrong(name, Trouble::Settings("its address")));
    match name {
        "openai-realtime" => {
            // The same server by another scheme.
            let base = config.openai.base_url.replacen("http", "ws", 1);
            let url = address("openai-realtime", &base)?;
            Ok(Recogniser::Socketed(Socketed::realtime(url, &config.openai)))
        }
        "deepgram" => {
            let url = address("deepgram", &config.deepgram.url)?;
            Ok(Recogniser::Socketed(Socketed::deepgram(url, &config.deepgram)))
        }
        "vosk" => Ok(Recogniser::Socketed(Socketed::vosk(address("vosk", &config.vosk.url)?))),
        _ => {
            let client = Client::new().map_err(|trouble| wrong("openai", trouble))?;
            Ok(Recogniser::Posted(Posted::new(client, config.openai.clone())))
        }
    }
}

/// Where a call's frames go in.
#[derive(Debug)]
pub struct Ears {
    frames: mpsc::Sender<Frame>,
    lost: u64,
}

impl Ears {
    /// Gives 20 ms (8 kHz mono); never waits. `false` where they were dropped: the recognisers are far behind, or the
    /// session is over.
    pub fn hear(&mut self, frame: &Frame) -> bool {
        let taken = self.frames.try_send(*frame).is_ok();
        if !taken {
            self.lost += 1;
        }
        taken
    }

    /// Frames that were dropped.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        self.frames.is_closed()
    }
}

/// Where what was understood comes out.
#[derive(Debug)]
pub struct Words {
    events: mpsc::Receiver<HearingEvent>,
}

impl Words {
    /// The next event; `None` at the end of the session. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Option<HearingEvent> {
        self.events.recv().await
    }
}

/// A text as it is told: without blanks around it, bounded; `None` where there is nothing.
fn told(text: &str) -> Option<String> {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text[..end].trim();
    (!text.is_empty()).then(|| text.to_owned())
}
