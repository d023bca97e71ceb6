//! Everything that can happen to a call, as facts in the past tense. The journal writes them, the live view is
//! their fold, every webhook is a rendering of one of them.

use serde_json::{Map, Value};

use super::call::{Amd, EndReason};
use super::turn::{Span, TurnTimes};
use super::{CallId, PhoneNumber, Timestamp};

/// Where a key press was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigitSource {
    /// RFC 4733 telephone-event.
    Rfc4733,
    /// Tones in the audio.
    Inband,
    /// SIP INFO.
    Info,
}

/// Where a playback is heard (CONTRACT 1.1 `playTo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayTo {
    /// By every leg and in the recording.
    Bridge,
    /// By the callee's leg alone; not in the recording.
    Channel,
}

impl PlayTo {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Channel => "channel",
        }
    }
}

/// Why a gather ended without its digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatherEnd {
    /// Its time was over.
    Timeout,
    /// The call ended first.
    Hangup,
    /// A later gather took its place (`replace`).
    Replaced,
}

impl GatherEnd {
    /// The `reason` word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Hangup => "hangup",
            Self::Replaced => "replaced",
        }
    }
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The far end.
    Caller,
    /// Whoever talks for us.
    Agent,
}

impl Speaker {
    /// The word on the wire and in the event log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Agent => "agent",
        }
    }
}

/// What a finished recording holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingSize {
    /// Bytes of the file, header included.
    pub bytes: u64,
    /// Length in milliseconds.
    pub duration_ms: u64,
}

/// SHA-256 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(pub [u8; 32]);

impl Checksum {
    /// As 64 lower-case hex digits.
    pub fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads [`Checksum::hex`].
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// What a failed attempt says of its trunk (CONTRACT 1.1 "Trunks").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The trunk failed: several in a row and it is left alone for a while.
    Trunk,
    /// The trunk works and this call did not suit it (415, 488, 606, a session description of no use).
    Media,
    /// The far end decided: the trunk works.
    FarEnd,
    /// We gave up; nothing is known of the trunk.
    Nobody,
}

/// All that can happen to a call. No `match` over it has a wildcard arm: a new fact must be decided everywhere.
#[derive(Clone, Debug, PartialEq)]
pub enum CallEvent {
    /// Accepted; nothing sent yet. Of a call that came in: it is about to be answered.
    Queued,
    /// An INVITE went out by `trunk` (its endpoint name, `<name>-endpoint`); `attempt` counts from 1.
    Dialing {
        /// The endpoint's name, `<name>-endpoint`.
        trunk: String,
        /// Counts from 1.
        attempt: u8,
    },
    /// That attempt came to nothing; `code` is its SIP status, 0 where none was received.
    AttemptFailed {
        /// The endpoint's name, `<name>-endpoint`.
        trunk: String,
        /// SIP status; 0: none was received.
        code: u16,
        /// Why.
        reason: String,
        /// From its INVITE.
        elapsed_ms: u32,
        /// Seconds after which the trunk wants to be asked again (`Retry-After`).
        retry_after_s: Option<u32>,
        /// Whose fault it was.
        fault: Fault,
    },
    /// A trunk of the call's list was not tried.
    PassedOver {
        /// The endpoint's name, `<name>-endpoint`.
        trunk: String,
        /// Why, in words.
        reason: String,
    },
    /// The trunk has the call (100) and has said nothing more for a while.
    Proceeding,
    /// 18x: it rings.
    Ringing,
    /// 2xx.
    Answered,
    /// The answering-machine verdict, once per answered call for which it was asked.
    Screened(Amd),
    /// A recording's file was opened; `recording` is its id (the file name without `.wav`).
    RecordingStarted {
        /// The recording's id: the file name without `.wav`.
        recording: String,
    },
    /// A recording was stopped by command while the call goes on.
    RecordingStopped {
        /// The recording's id: the file name without `.wav`.
        recording: String,
    },
    /// A recording takes silence from here on.
    RecordingPaused {
        /// The recording's id: the file name without `.wav`.
        recording: String,
    },
    /// A recording takes sound again.
    RecordingResumed {
        /// The recording's id: the file name without `.wav`.
        recording: String,
    },
    /// The file is whole and safe on disk.
    RecordingCompleted {
        /// The recording's id: the file name without `.wav`.
        recording: String,
        /// What the file holds.
        size: RecordingSize,
        /// Of the whole file.
        sha256: Checksum,
    },
    /// The file could not be kept, or not whole; the call goes on.
    RecordingFailed {
        /// The recording's id: the file name without `.wav`.
        recording: String,
        /// Why: a word of [`media::RecordFault`], `not_finished` or `unreadable`.
        reason: String,
        /// What the file holds.
        size: RecordingSize,
    },
    /// A key press.
    Digit {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// How it was heard.
        source: DigitSource,
    },
    /// A gather was accepted.
    GatherStarted {
        /// Digits wanted.
        expected: u8,
        /// Total time.
        timeout_ms: u32,
    },
    /// A gather took a digit; `digits` holds all so far.
    GatherProgress {
        /// All digits so far, in order.
        digits: String,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// Digits still wanted.
        remaining: u8,
    },
    /// A gather has what it asked for.
    GatherComplete {
        /// All digits so far, in order.
        digits: String,
    },
    /// A gather ended without.
    GatherTimeout {
        /// All digits so far, in order.
        digits: String,
        /// Why.
        reason: GatherEnd,
    },
    /// A playback ended; `text` is set for speech that the caller asked for with /voice, `file` for sounds.
    Played {
        /// The playback's id.
        playback: String,
        /// The words, for speech.
        text: Option<String>,
        /// The sound's name, for sounds.
        file: Option<String>,
        /// Who hears it.
        to: PlayTo,
        /// Heard to its end.
        completed: bool,
    },
    /// A turn of the conversation, as far as it was heard; agents' only where an application speaks in its own turns
    /// (what is played by command is told by [`CallEvent::Played`]).
    Said {
        /// Who.
        by: Speaker,
        /// The words.
        text: String,
        /// Counts the turns of the call from 1.
        turn: u32,
        /// When, where that is known.
        span: Option<Span>,
    },
    /// An answer of the agent's was given, or given up: how long it took.
    TurnTimed(Box<TurnTimes>),
    /// What the customer wants remembered of the call is this from here on.
    ContextChanged {
        /// All of it.
        context: Map<String, Value>,
    },
    /// The application gave the call back, with words for whoever takes it.
    HandedOff {
        /// As the application gave them.
        data: String,
    },
    /// Somebody else is being dialled, to be put together with the callee.
    TransferStarted {
        /// Whom.
        number: PhoneNumber,
    },
    /// Nobody there: the call goes on as before.
    TransferFailed {
        /// SIP status of the last attempt; 0: none was received.
        code: u16,
        /// In words.
        reason: String,
    },
    /// Both hear each other.
    Transferred,
    /// The call is answered and no sound has come for a while.
    Unheard {
        /// What is known of the reason, for operators.
        words: String,
    },
    /// The call is over. Exactly one per call.
    Ended {
        /// Why.
        reason: EndReason,
        /// Q.850 cause.
        q850: u16,
        /// The SIP status that decided, where one did.
        sip_code: Option<u16>,
    },
}

impl CallEvent {
    /// The stable name under which the event is stored and listed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dialing { .. } => "dialing",
            Self::AttemptFailed { .. } => "attempt_failed",
            Self::PassedOver { .. } => "passed_over",
            Self::Proceeding => "proceeding",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
            Self::Screened(_) => "screened",
            Self::RecordingStarted { .. } => "recording_started",
            Self::RecordingStopped { .. } => "recording_stopped",
            Self::RecordingPaused { .. } => "recording_paused",
            Self::RecordingResumed { .. } => "recording_resumed",
            Self::RecordingCompleted { .. } => "recording_completed",
            Self::RecordingFailed { .. } => "recording_failed",
            Self::Digit { .. } => "digit",
            Self::GatherStarted { .. } => "gather_started",
            Self::GatherProgress { .. } => "gather_progress",
            Self::GatherComplete { .. } => "gather_complete",
            Self::GatherTimeout { .. } => "gather_timeout",
            Self::Played { .. } => "played",
            Self::ContextChanged { .. } => "context_changed",
            Self::HandedOff { .. } => "handed_off",
            Self::TransferStarted { .. } => "transfer_started",
            Self::TransferFailed { .. } => "transfer_failed",
            Self::Transferred => "transferred",
            Self::Said { .. } => "said",
            Self::TurnTimed(_) => "turn_timed",
            Self::Unheard { .. } => "unheard",
            Self::Ended { .. } => "ended",
        }
    }
}

/// An event with its call and its moment: what flows from the engine to the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// Whose.
    pub call: CallId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: CallEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_survive_their_text_form() {
        let sum = Checksum(std::array::from_fn(|n| n as u8 * 8));
        assert_eq!(Checksum::from_hex(&sum.hex()), Some(sum));
        for bad in ["", "00", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert_eq!(Checksum::from_hex(bad), None, "{bad}");
        }
    }
}
