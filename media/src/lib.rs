//! Telephone audio: RTP in and out, mixing, playback, recording, and what is heard on a line (keys, speech,
//! answering machines).
//!
//! This crate owns everything that happens to sound, 8 kHz mono in frames of 20 ms. The heart is [`Bridge`], one per
//! call: pure, without socket, clock, file or randomness; time comes in as an argument, randomness as a seed. Only
//! [`driver`] touches the system: it owns the worker threads, the RTP sockets and the files of recordings.
//!
//! It never speaks SIP and knows nothing of accounts, routes or HTTP. RTP is RFC 3550 with the audio profile of
//! RFC 3551, telephone events are RFC 4733, session descriptions RFC 3264 and RFC 8866.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub mod amd;
pub mod bridge;
mod clip;
pub mod codec;
pub mod conceal;
pub mod driver;
pub mod dtmf;
pub mod jitter;
pub mod latch;
pub mod mixer;
pub mod playback;
pub mod recorder;
pub mod rtp;
pub mod sdp;
pub mod srtp;
pub mod stream;
pub mod talk;
pub mod tap;
pub mod tone;
pub mod wav;

pub use amd::{AmdCause, AmdConfig, AmdStatus, Verdict};
pub use bridge::Bridge;
pub use clip::Clip;
pub use codec::Codec;
pub use driver::{EventReceiver, Full, Media, MediaConfig, Metrics, Punctuality};
pub use dtmf::DigitSource;
pub use jitter::JitterConfig;
pub use recorder::Channels;
pub use talk::TalkChange;
pub use tap::Tap;

/// Samples in a second: the one rate of this crate.
pub const RATE: u32 = 8000;
/// Samples in one frame of 20 ms.
pub const FRAME: usize = 160;
/// Milliseconds in one frame.
pub const FRAME_MS: u32 = 20;
/// One frame: 160 samples of 8 kHz mono, 16-bit linear.
pub type Frame = [i16; FRAME];

/// Frames as milliseconds of sound.
pub(crate) const fn frames_ms(frames: u64) -> u64 {
    frames * FRAME_MS as u64
}

/// One mixing room. A call has exactly one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BridgeId(pub u64);

/// A party in a bridge; counted from 0 within the bridge, at most [`bridge::LEGS_MAX`] of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LegId(pub u8);

/// A sound being played; chosen by whoever asks for it, unique within the bridge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PlaybackId(pub u64);

/// A recording; chosen by whoever asks for it, unique within the bridge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordingId(pub u64);

/// When the tones of keys are looked for in the sound itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InbandMode {
    /// Only while the far end has not agreed to telephone events (RFC 4733).
    #[default]
    Auto,
    /// Always; a key pressed once is still reported once.
    Always,
    /// Never.
    Never,
}

/// How keys are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigitMode {
    /// As telephone events (RFC 4733); falls back to tones when the far end has not agreed to them.
    Rfc4733,
    /// As tones in the sound.
    Inband,
}

/// Where a playback goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlayTo {
    /// All legs and the recording.
    Bridge,
    /// This leg alone; not in the recording.
    Leg(LegId),
}

/// What a recording holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordWhat {
    /// All legs and everything played into the bridge, mixed to mono.
    Mix,
    /// What this leg says, alone.
    Heard(LegId),
    /// Two channels: what this leg says on the left, and on the right what all others say and what is played into
    /// the bridge.
    Sides(LegId),
}

/// Why a recording could not be kept, or not be kept whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// The disk has no room, or less than the floor it is to keep free.
    DiskFull,
    /// The system refused a write for another reason.
    WriteError,
    /// The file is no longer under its name.
    FileGone,
    /// A WAV file cannot hold more.
    TooLong,
    /// Too many recordings, too many at once, or no bridge to record.
    Refused,
}

impl RecordFault {
    /// One word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::WriteError => "write_error",
            Self::FileGone => "file_gone",
            Self::TooLong => "too_long",
            Self::Refused => "refused",
        }
    }
}

/// An endless tone.
#[derive(Clone, PartialEq, Debug)]
pub struct ToneSpec {
    /// Its parts: frequency in Hz and level in dBm0.
    pub parts: Vec<(f32, f32)>,
}

/// How a leg behaves.
#[derive(Clone, Debug)]
pub struct LegSettings {
    /// The source of RTP may be learned when it differs from the session description (a far end behind NAT).
    pub symmetric: bool,
    /// Report [`Heard::MediaTimeout`] after this long without RTP; `None`: never.
    pub media_timeout: Option<Duration>,
    /// Whether tones of keys are looked for.
    pub detect_inband: InbandMode,
    /// The jitter buffer.
    pub jitter: JitterConfig,
}

impl Default for LegSettings {
    fn default() -> Self {
        Self {
            symmetric: true,
            media_timeout: Some(Duration::from_secs(30)),
            detect_inband: InbandMode::Auto,
            jitter: JitterConfig::default(),
        }
    }
}

/// What is asked of a media worker. One bridge lives on one worker. A command for a bridge or leg that does not
/// exist does nothing, except that [`Command::Play`] and [`Command::Record`] are answered as ended and failed.
#[derive(Clone, Debug)]
pub enum Command {
    /// Adds a leg: binds its RTP socket. The bridge is made with its first leg. A socket that cannot be bound, or an
    /// odd port (RFC 3550 §11), is answered by [`Heard::Failed`].
    Open {
        /// The bridge.
        bridge: BridgeId,
        /// The new leg.
        leg: LegId,
        /// Where to bind; an even port.
        local: SocketAddr,
        /// How it behaves.
        settings: LegSettings,
        /// Gives SSRC and the first sequence number and timestamp, which RFC 3550 §5.1 wants unpredictable.
        seed: u64,
    },
    /// Media may flow to `remote.address`. May come again, after a re-INVITE: address, codec and direction change,
    /// and the source may be learned anew.
    Connect {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// What its session description said.
        remote: sdp::Remote,
    },
    /// Plays a clip after those already waiting for the same destination. Bounded: at most
    /// [`playback::QUEUE_MAX`] per destination; one more ends at once, not completed.
    Play {
        /// The bridge.
        bridge: BridgeId,
        /// The name of this playback.
        playback: PlaybackId,
        /// The sound.
        clip: Arc<Clip>,
        /// Where it goes.
        to: PlayTo,
        /// From the start again at its end, until stopped.
        looped: bool,
    },
    /// Stops a playback, running or waiting, or all of them; a running one fades out in 5 ms.
    StopPlayback {
        /// The bridge.
        bridge: BridgeId,
        /// Which; `None`: all.
        playback: Option<PlaybackId>,
    },
    /// Holds everything that is played into the bridge where it is, or lets it go on.
    PausePlayback {
        /// The bridge.
        bridge: BridgeId,
        /// Hold.
        on: bool,
    },
    /// Gives every frame that a leg is heard to say to a tap as well; silence where there is none.
    Listen {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// Where the frames go; `None`: nowhere any more.
        tap: Option<Tap>,
    },
    /// Sends back to a leg what it says.
    Echo {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// On or off.
        on: bool,
    },
    /// Sends an endless tone to a leg; it is not in the recording.
    Tone {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// The tone; `None`: off.
        tone: Option<ToneSpec>,
    },
    /// Sends no RTP at all to a leg.
    Mute {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// On or off.
        on: bool,
    },
    /// Starts answering-machine detection on what a leg says; ends with one [`Heard::Amd`].
    ListenAmd {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// The thresholds.
        config: AmdConfig,
    },
    /// Stops answering-machine detection without a verdict.
    StopAmd {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
    },
    /// Reports when a leg speaks and falls silent.
    ListenTalk {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// On or off.
        on: bool,
    },
    /// Sends keys to a leg, after the requests already waiting (at most 8); each ends with one [`Heard::DigitsSent`],
    /// at once when it cannot be taken.
    SendDigits {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// `0`-`9`, `*`, `#`, `A`-`D`, and `w` for a pause of half a second; others are left out, as is what goes
        /// beyond 64.
        digits: String,
        /// As events or tones.
        mode: DigitMode,
        /// How long each key is pressed, in milliseconds.
        on_ms: u16,
        /// The pause after each key, in milliseconds.
        gap_ms: u16,
    },
    /// Records into a WAV file (8 kHz, 16-bit, one channel or two) which is readable at `path` from
    /// [`Heard::RecordingStarted`] on.
    Record {
        /// The bridge.
        bridge: BridgeId,
        /// The name of this recording.
        recording: RecordingId,
        /// The file.
        path: PathBuf,
        /// What goes into it.
        what: RecordWhat,
    },
    /// Puts silence into a recording instead of sound, or sound again; the time line goes on. What is heard in between
    /// goes nowhere near the file: after the end of the pause, sound that had arrived during it and still waits to be
    /// heard is left out as well.
    PauseRecording {
        /// The bridge.
        bridge: BridgeId,
        /// Which.
        recording: RecordingId,
        /// Silence or sound.
        on: bool,
    },
    /// Ends a recording; [`Heard::RecordingEnded`] follows when the file is whole and on disk.
    StopRecording {
        /// The bridge.
        bridge: BridgeId,
        /// Which.
        recording: RecordingId,
    },
    /// A held leg is not watched for missing RTP.
    Hold {
        /// The bridge.
        bridge: BridgeId,
        /// The leg.
        leg: LegId,
        /// On or off.
        on: bool,
    },
    /// Ends the bridge: recordings stop, sockets close, [`Heard::Closed`] is the last word of the bridge itself (the
    /// end of a recording may come later).
    Close {
        /// The bridge.
        bridge: BridgeId,
    },
}

impl Command {
    /// Whom it is for.
    pub fn bridge(&self) -> BridgeId {
        match self {
            Self::Open { bridge, .. }
            | Self::Connect { bridge, .. }
            | Self::Play { bridge, .. }
            | Self::StopPlayback { bridge, .. }
            | Self::Echo { bridge, .. }
            | Self::Tone { bridge, .. }
            | Self::Mute { bridge, .. }
            | Self::ListenAmd { bridge, .. }
            | Self::StopAmd { bridge, .. }
            | Self::ListenTalk { bridge, .. }
            | Self::PausePlayback { bridge, .. }
            | Self::Listen { bridge, .. }
            | Self::SendDigits { bridge, .. }
            | Self::Record { bridge, .. }
            | Self::PauseRecording { bridge, .. }
            | Self::StopRecording { bridge, .. }
            | Self::Hold { bridge, .. }
            | Self::Close { bridge } => *bridge,
        }
    }
}

/// What happened in a bridge.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Where.
    pub bridge: BridgeId,
    /// What.
    pub heard: Heard,
}

/// What a bridge, or its recorder, has to say.
#[derive(Clone, PartialEq, Debug)]
pub enum Heard {
    /// A leg could not be opened.
    Failed {
        /// The leg.
        leg: LegId,
        /// Why, in the system's words.
        error: String,
    },
    /// A leg's socket is bound: its port may be told to the far end.
    Opened {
        /// The leg.
        leg: LegId,
    },
    /// The first RTP packet of a leg since it was opened.
    FirstPacket {
        /// The leg.
        leg: LegId,
    },
    /// A key was pressed: once per press, when it begins.
    Digit {
        /// The leg.
        leg: LegId,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// How it came.
        source: DigitSource,
    },
    /// Who answered.
    Amd {
        /// The leg.
        leg: LegId,
        /// The verdict.
        verdict: Verdict,
    },
    /// A leg began or ceased to speak.
    Talk {
        /// The leg.
        leg: LegId,
        /// Which of the two.
        change: TalkChange,
    },
    /// The first frame of a playback went out.
    PlaybackStarted {
        /// Which.
        playback: PlaybackId,
    },
    /// A playback is over.
    PlaybackEnded {
        /// Which.
        playback: PlaybackId,
        /// It was played to its end.
        completed: bool,
        /// How much of it was played, over all rounds of a looped one.
        played_ms: u32,
    },
    /// All keys asked for were sent.
    DigitsSent {
        /// The leg.
        leg: LegId,
    },
    /// No RTP for the leg's `media_timeout` while connected and not held. Said once per silence.
    MediaTimeout {
        /// The leg.
        leg: LegId,
    },
    /// The file of a recording is open and readable.
    RecordingStarted {
        /// Which.
        recording: RecordingId,
    },
    /// A recording is whole and on disk.
    RecordingEnded {
        /// Which.
        recording: RecordingId,
        /// Size of the file.
        bytes: u64,
        /// Its length.
        duration_ms: u64,
        /// How much of that is silence in place of sound that could not be written in time.
        degraded_ms: u64,
        /// SHA-256 of the whole file, as read back from it.
        sha256: [u8; 32],
    },
    /// A recording could not go on; what was written by then can be played.
    RecordingFailed {
        /// Which.
        recording: RecordingId,
        /// Why, in a word.
        fault: RecordFault,
        /// Why, in the system's words.
        reason: String,
        /// Size of the file; 0 when there is none.
        bytes: u64,
        /// Its length.
        duration_ms: u64,
    },
    /// The bridge is gone, its sockets are closed.
    Closed {
        /// What each leg carried.
        stats: Vec<(LegId, LegStats)>,
    },
}

impl Heard {
    /// The end of a recording that never had a file.
    pub(crate) fn never_recorded(recording: RecordingId, fault: RecordFault, reason: String) -> Self {
        Self::RecordingFailed { recording, fault, reason, bytes: 0, duration_ms: 0 }
    }
}

/// What a leg carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LegStats {
    /// RTP packets taken.
    pub packets_in: u64,
    /// RTP packets sent.
    pub packets_out: u64,
    /// Bytes of the datagrams taken.
    pub bytes_in: u64,
    /// Bytes of the datagrams sent.
    pub bytes_out: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Frames of sound made up for missing ones.
    pub concealed: u64,
    /// Packets that came too late to be played.
    pub late: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1), in milliseconds.
    pub jitter_ms: u32,
    /// Datagrams that were not RTP, or of a payload type never agreed to.
    pub garbage: u64,
    /// RTP from somebody else than the far end: neither heard nor recorded.
    pub strangers: u64,
}
