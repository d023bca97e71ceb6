//! Turns of a conversation: who said what and when, and how long an answer took with its parts.

use super::Timestamp;
use super::event::Speaker;

/// When something was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first sound.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

/// One turn of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who.
    pub by: Speaker,
    /// The words; of a key that was pressed, which.
    pub text: String,
    /// When; where the beginning is not known, the end of the turn before.
    pub span: Span,
}

/// How long an answer took, from the caller's last sound to its own first one. What did not happen has no time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// The caller's turn that was answered, as the transcript counts.
    pub turn: u32,
    /// The caller's last sound; none where keys were pressed.
    pub speech_end: Option<Timestamp>,
    /// The recogniser gave the words.
    pub transcript: Timestamp,
    /// The language model was asked.
    pub asked: Option<Timestamp>,
    /// Its first word came.
    pub first_token: Option<Timestamp>,
    /// Its first clause was whole.
    pub first_clause: Option<Timestamp>,
    /// The voice gave the first sound of it.
    pub first_synthesis: Option<Timestamp>,
    /// That sound went out to the caller.
    pub first_audio: Option<Timestamp>,
    /// The caller spoke into the answer.
    pub interrupted: Option<Timestamp>,
    /// From the caller's last sound to the first of the answer, milliseconds.
    pub total_ms: Option<u32>,
    /// Of that: until the words were there, which is the recogniser's time and the silence that shows that the caller
    /// is done.
    pub hearing_ms: Option<u32>,
    /// Of that: from the question to the first clause, the model's time.
    pub model_ms: Option<u32>,
    /// Of that: from the clause to its first sound, the voice's time.
    pub voice_ms: Option<u32>,
    /// What is left: our own share.
    pub own_ms: Option<u32>,
}
