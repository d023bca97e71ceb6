//! What may be asked of a live call, and what is answered. Plain orders with everything in them that the engine needs:
//! nothing below asks back.

use std::sync::Arc;

use super::call::TrunkPlan;
use super::event::PlayTo;
use super::{CallerId, PhoneNumber};

/// What may be asked of a live call.
#[derive(Clone, Debug)]
pub enum Command {
    /// Play sound; FIFO. `text` marks speech of /voice (its end is told as `tts.played`).
    Play {
        /// The playback's id.
        playback: String,
        /// What is heard.
        clip: Arc<media::Clip>,
        /// The words, for speech.
        text: Option<String>,
        /// The sound's name, for sounds.
        file: Option<String>,
        /// Who hears it.
        to: PlayTo,
    },
    /// Collect digits, with a prompt first.
    Gather(GatherOrder),
    /// What the call does by itself once it is answered, or at once where it is. Takes the place of an opening before.
    Open(Opening),
    /// End the call; `drain` waits for queued playback first (at most 60 s).
    HangUp {
        /// Let queued playback end first.
        drain: bool,
    },
    /// Stop the running recording; the call goes on.
    StopRecording,
    /// Silence in the running recording, or sound again. What is so already stays so.
    PauseRecording {
        /// Silence.
        on: bool,
    },
    /// Press keys: `0`-`9`, `*`, `#`, `A`-`D`, and `w` for a pause of half a second; at most 64.
    SendDigits {
        /// In order.
        digits: String,
    },
    /// Cut all that is played or waits to be.
    StopPlayback,
    /// Hold what is played where it is, or let it go on.
    PausePlayback {
        /// Hold.
        on: bool,
    },
    /// Give what the far end says to a tap, frame by frame.
    Listen {
        /// Where it goes.
        tap: media::Tap,
    },
    /// Somebody hears what happens on the line from here on and speaks in the call's place, or no longer. While
    /// somebody does, the call does nothing by itself: no opening, no silence rule.
    Attend {
        /// Begin.
        on: bool,
    },
    /// Dial somebody else and put both together; who has talked for us falls silent then.
    Transfer(Box<TransferOrder>),
}

/// Where a call is transferred to, with everything the engine needs to dial there.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferOrder {
    /// The number.
    pub to: PhoneNumber,
    /// Who is seen as calling.
    pub from: Option<CallerId>,
    /// The whole ordered list of trunks; the engine walks it once.
    pub trunks: Vec<TrunkPlan>,
    /// From the INVITE to CANCEL.
    pub ring_timeout_ms: u32,
}

/// A gather as asked for.
#[derive(Clone, Debug)]
pub struct GatherOrder {
    /// Spoken first.
    pub prompt: Arc<media::Clip>,
    /// Who hears it.
    pub to: PlayTo,
    /// Digits wanted, 1 to 32.
    pub num_digits: u8,
    /// Total time from the prompt's end or the first digit.
    pub timeout_ms: u32,
    /// A key that ends it early and is not part of the digits.
    pub finish_on_key: Option<char>,
    /// Take the place of a running gather.
    pub replace: bool,
}

/// What a call does by itself once it is answered.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The playback's id.
    pub playback: String,
    /// Heard first.
    pub clip: Arc<media::Clip>,
    /// The words of it, for speech.
    pub text: Option<String>,
    /// The sound's name, for sounds.
    pub file: Option<String>,
    /// Then.
    pub then: Then,
}

/// What follows an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The application goes on.
    Stay,
    /// The call is ended so long after the last sample.
    HangUp {
        /// Milliseconds.
        after_ms: u32,
    },
    /// The line is listened to: nothing from the far end for `silence_ms`, `repeats` times in a row, ends the call.
    Listen {
        /// Milliseconds without speech and keys.
        silence_ms: u32,
        /// At least 1.
        repeats: u8,
    },
}

/// What whoever attends a call hears of it, as it happens. Nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overheard {
    /// The callee has answered.
    Answered,
    /// The far end pressed a key.
    Digit(char),
    /// The far end began or ceased to speak.
    Talk {
        /// Began.
        on: bool,
    },
    /// The first sound of a playback went out.
    Began {
        /// The playback's id.
        playback: String,
    },
    /// A playback is over.
    Played {
        /// The playback's id.
        playback: String,
        /// Heard to its end.
        completed: bool,
        /// How much of it was heard.
        played_ms: u32,
    },
    /// The call was transferred: there is nothing more to do.
    Transferred,
    /// A transfer came to nothing: the call goes on as before.
    TransferFailed,
}

/// A command was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Nothing more to say.
    Done,
    /// The recording that was stopped.
    RecordingStopped {
        /// The recording's id: the file name without `.wav`.
        recording: String,
    },
    /// The recording that is paused, or goes on.
    RecordingPaused {
        /// The recording's id: the file name without `.wav`.
        recording: String,
    },
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such live call.
    #[error("call not found")]
    UnknownCall,
    /// It is not answered yet.
    #[error("call is not answered")]
    NotAnswered,
    /// A gather is already collecting.
    #[error("gather already in progress")]
    GatherInProgress,
    /// Too many playbacks wait.
    #[error("playback queue is full")]
    QueueFull,
    /// Nothing is being recorded.
    #[error("no active recording")]
    NoActiveRecording,
    /// The call is being transferred, or was.
    #[error("call is being transferred")]
    Transferring,
    /// Somebody else speaks in the call's place already.
    #[error("call is attended already")]
    Attended,
    /// The engine is stopping, full or gone.
    #[error("engine unavailable")]
    Unavailable,
}
