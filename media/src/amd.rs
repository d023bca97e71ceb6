//! Answering machine detection: did a person or a machine pick up?
//!
//! Owns the state machine that telephone people know: words and silences, told apart by the mean absolute sample of a
//! 20 ms frame, against nine limits in milliseconds. It starts inside a word, so that a first utterance without silence
//! before it is not counted. Time is the count of frames; no clock is read, nothing is allocated.

use crate::Frame;
use crate::jitter::Popped;

const FRAME_MS: u32 = 20;

/// Who picked up, as far as could be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AmdStatus {
    /// A person.
    Human,
    /// A machine.
    Machine,
    /// It could not be told.
    Unknown,
}

impl AmdStatus {
    /// The word of the status: `HUMAN`, `MACHINE` or `UNKNOWN`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "HUMAN",
            Self::Machine => "MACHINE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Why the verdict is what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AmdCause {
    /// Nobody spoke for [`AmdConfig::initial_silence_ms`].
    InitialSilence,
    /// A short greeting, then silence.
    Human,
    /// The greeting went on for [`AmdConfig::greeting_ms`] of voice.
    LongGreeting,
    /// [`AmdConfig::max_words`] words were counted.
    MaxWords,
    /// One word went on for [`AmdConfig::max_word_ms`].
    MaxWordLength,
    /// Undecided after [`AmdConfig::total_ms`].
    TooLong,
    /// Not one frame of sound in [`AmdConfig::total_ms`].
    NoAudioData,
    /// The far end hung up before a verdict.
    Hangup,
}

/// Precision of each cause, measured on 800 labelled calls that were kept apart from all tuning, half people and half
/// machines. This state machine takes six of ten people for machines and hardly ever a machine for a person: HUMAN can be
/// believed, MACHINE little more than a coin.
const CONFIDENCE: [(AmdCause, &str, f32); 8] = [
    (AmdCause::InitialSilence, "INITIALSILENCE", 0.5),
    (AmdCause::Human, "HUMAN", 0.97),
    (AmdCause::LongGreeting, "LONGGREETING", 0.62),
    (AmdCause::MaxWords, "MAXWORDS", 0.62),
    (AmdCause::MaxWordLength, "MAXWORDLENGTH", 0.62),
    (AmdCause::TooLong, "TOOLONG", 0.5),
    (AmdCause::NoAudioData, "NOAUDIODATA", 0.0),
    (AmdCause::Hangup, "HANGUP", 0.0),
];

impl AmdCause {
    fn row(self) -> &'static (Self, &'static str, f32) {
        &CONFIDENCE[self as usize]
    }

    /// The word of the cause, such as `LONGGREETING`.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// How often a verdict of this cause is right, 0 to 1.
    pub fn confidence(self) -> f32 {
        self.row().2
    }
}

/// What nobody speaking at first means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InitialSilence {
    /// A machine, as the telephone people have it.
    #[default]
    Machine,
    /// A person who waits.
    Human,
    /// Nobody knows.
    Unknown,
}

/// The limits of the detector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AmdConfig {
    /// Silence before the first word that ends the analysis, in ms.
    pub initial_silence_ms: u32,
    /// What that silence means.
    pub initial_silence: InitialSilence,
    /// Voice in the greeting that makes it a machine's, in ms.
    pub greeting_ms: u32,
    /// Silence after a greeting that makes it a person's, in ms.
    pub after_greeting_ms: u32,
    /// The analysis ends without a result after this, in ms.
    pub total_ms: u32,
    /// Voice of at least this length is a word, in ms.
    pub min_word_ms: u32,
    /// Silence of at least this length parts two words, in ms.
    pub between_words_ms: u32,
    /// As many words make it a machine.
    pub max_words: u32,
    /// One word of this length makes it a machine, in ms.
    pub max_word_ms: u32,
    /// A frame is silent when its mean absolute sample lies below this.
    pub threshold: u16,
}

impl Default for AmdConfig {
    fn default() -> Self {
        Self {
            initial_silence_ms: 2500,
            initial_silence: InitialSilence::Machine,
            greeting_ms: 1500,
            after_greeting_ms: 800,
            total_ms: 5000,
            min_word_ms: 100,
            between_words_ms: 50,
            max_words: 3,
            max_word_ms: 5000,
            threshold: 256,
        }
    }
}

/// The result of an analysis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Verdict {
    /// Who picked up.
    pub status: AmdStatus,
    /// Why.
    pub cause: AmdCause,
    /// How often a verdict of this cause is right, 0 to 1.
    pub confidence: f32,
    /// Time from the first frame to the verdict, in ms.
    pub latency_ms: u32,
}

/// One analysis of one leg, from the moment it was answered.
#[derive(Clone, Debug)]
pub struct Amd {
    config: AmdConfig,
    total: u32,
    /// Length of the running silence.
    silence: u32,
    /// Voice since the last silence that parts words.
    consecutive_voice: u32,
    /// All voice.
    voice: u32,
    words: u32,
    in_word: bool,
    initial: bool,
    greeting: bool,
    heard_audio: bool,
    done: bool,
}

impl Amd {
    /// A fresh analysis.
    pub fn new(config: AmdConfig) -> Self {
        Self {
            config,
            total: 0,
            silence: 0,
            consecutive_voice: 0,
            voice: 0,
            words: 0,
            in_word: true,
            initial: true,
            greeting: false,
            heard_audio: false,
            done: false,
        }
    }

    /// Takes 20 ms and answers the verdict, once. A frame of [`Popped::Silence`] (nothing was received) only moves the
    /// time on. After the verdict every call answers `None`.
    pub fn hear(&mut self, pcm: &Frame, kind: Popped) -> Option<Verdict> {
        if self.done {
            return None;
        }
        self.total += FRAME_MS;
        let cause = if self.total >= self.config.total_ms {
            let heard = self.heard_audio || kind != Popped::Silence;
            Some(if heard { AmdCause::TooLong } else { AmdCause::NoAudioData })
        } else {
            match kind {
                Popped::Silence => None,
                Popped::Audio | Popped::Concealed => self.sound(pcm),
            }
        };
        let verdict = self.verdict(cause?);
        self.done = true;
        Some(verdict)
    }

    /// The verdict when the far end hangs up now: unknown, for want of time. `None` when there has been one.
    pub fn hangup(&mut self) -> Option<Verdict> {
        if self.done {
            return None;
        }
        self.done = true;
        Some(self.verdict(AmdCause::Hangup))
    }

    fn sound(&mut self, pcm: &Frame) -> Option<AmdCause> {
        self.heard_audio = true;
        let sum: u32 = pcm.iter().map(|sample| u32::from(sample.unsigned_abs())).sum();
        if sum / (pcm.len() as u32) < u32::from(self.config.threshold) {
            self.silent()
        } else {
            self.voiced()
        }
    }

    fn silent(&mut self) -> Option<AmdCause> {
        self.silence += FRAME_MS;
        if self.silence >= self.config.between_words_ms {
            self.in_word = false;
            self.consecutive_voice = 0;
        }
        if self.initial && self.silence >= self.config.initial_silence_ms {
            return Some(AmdCause::InitialSilence);
        }
        (self.greeting && self.silence >= self.config.after_greeting_ms).then_some(AmdCause::Human)
    }

    fn voiced(&mut self) -> Option<AmdCause> {
        self.silence = 0;
        self.consecutive_voice += FRAME_MS;
        self.voice += FRAME_MS;
        let is_word = self.consecutive_voice >= self.config.min_word_ms;
        if is_word && !self.in_word {
            self.words += 1;
            self.in_word = true;
        }
        if self.consecutive_voice >= self.config.max_word_ms {
            return Some(AmdCause::MaxWordLength);
        }
        if self.words >= self.config.max_words {
            return Some(AmdCause::MaxWords);
        }
        if self.greeting && self.voice >= self.config.greeting_ms {
            return Some(AmdCause::LongGreeting);
        }
        if is_word && !self.greeting {
            self.initial = false;
            self.greeting = true;
        }
        None
    }

    fn verdict(&self, cause: AmdCause) -> Verdict {
        let status = match cause {
            AmdCause::Human => AmdStatus::Human,
            AmdCause::LongGreeting | AmdCause::MaxWords | AmdCause::MaxWordLength => AmdStatus::Machine,
            AmdCause::InitialSilence => match self.config.initial_silence {
                InitialSilence::Machine => AmdStatus::Machine,
                InitialSilence::Human => AmdStatus::Human,
                InitialSilence::Unknown => AmdStatus::Unknown,
            },
            AmdCause::TooLong | AmdCause::NoAudioData | AmdCause::Hangup => AmdStatus::Unknown,
        };
        Verdict { status, cause, confidence: cause.confidence(), latency_ms: self.total }
    }
}

#[cfg(test)]
mod tests;
