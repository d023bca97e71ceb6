//! What was asked of a call ([`CallOrder`]), what is true of it now ([`CallView`], a pure fold over its events)
//! and how calls end ([`EndReason`]).

use std::net::SocketAddr;
use std::sync::Arc;

use super::event::CallEvent;
use super::purpose::{Direction, Purpose};
use super::trunk::TrunkProfile;
use super::{CallId, CallerId, PhoneNumber, Secret, Timestamp};

pub use super::command::{
    Accepted, Command, CommandError, GatherOrder, Opening, Overheard, Then, TransferOrder,
};

/// The HTTP surface a call was placed on, or in whose form the application of an inbound call is told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Surface {
    /// CONTRACT 1.1.
    #[default]
    Kaphila,
    /// CONTRACT 1.2.
    Phony,
    /// CONTRACT 1.3.
    VoxForge,
    /// CONTRACT 1.4.
    Hamming,
    /// CONTRACT 1.5.
    ClaudePhone,
}

/// Every [`Surface`] with its word.
const SURFACES: &[(Surface, &str)] = &[
    (Surface::Kaphila, "kaphila"),
    (Surface::Phony, "phony"),
    (Surface::VoxForge, "voxforge"),
    (Surface::Hamming, "hamming"),
    (Surface::ClaudePhone, "claude_phone"),
];

impl Surface {
    /// The word stored in the database.
    pub fn as_str(self) -> &'static str {
        SURFACES.iter().find(|(surface, _)| *surface == self).map_or("kaphila", |(_, word)| word)
    }

    /// Reads [`Surface::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        SURFACES.iter().find(|(_, word)| *word == text).map(|(surface, _)| *surface)
    }
}

/// One way to a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// By which transport.
    pub transport: sip::Transport,
    /// Where to.
    pub address: SocketAddr,
    /// The name that its certificate must show on TLS; its address when there is none.
    pub server_name: Option<String>,
}

impl Hop {
    /// By UDP.
    pub fn udp(address: SocketAddr) -> Self {
        Self { transport: sip::Transport::Udp, address, server_name: None }
    }
}

/// One trunk of a call's plan, with everything the engine needs to dial by it.
#[derive(Clone, Debug, PartialEq)]
pub struct TrunkPlan {
    /// `<name>-endpoint`, the name customers see.
    pub endpoint: String,
    /// Host that goes into the request URI.
    pub host: String,
    /// Port that goes into the request URI, where one was configured.
    pub port: Option<u16>,
    /// Where the INVITE is sent, in the order in which the ways are tried (RFC 3263 §4.3). Never empty.
    pub hops: Vec<Hop>,
    /// Digest user, empty for none.
    pub username: String,
    /// Digest password.
    pub password: Secret,
    /// Put before the number in the request URI.
    pub dial_prefix: String,
    /// SDP codec names in order of preference.
    pub codecs: Vec<String>,
    /// The trunk's own caller id, where the order has none.
    pub caller_id: Option<CallerId>,
    /// Without any response in this time the next trunk is tried.
    pub no_response_timeout_ms: u32,
    /// How it wants to be dialled.
    pub profile: Arc<TrunkProfile>,
}

/// Everything decided before a call is placed. Nothing below asks back.
#[derive(Clone, Debug, PartialEq)]
pub struct CallOrder {
    /// The call.
    pub id: CallId,
    /// Kaphila's form of the id, `<seconds>.<counter>`.
    pub kaphila_id: String,
    /// Placed on.
    pub surface: Surface,
    /// `api_keys.id` of the payer.
    pub key: i64,
    /// `tenants.id`.
    pub tenant: String,
    /// The number exactly as submitted; of a call that came in: who calls, as customers are told it.
    pub submitted_number: String,
    /// The number read; of a call that came in: the number called.
    pub to: PhoneNumber,
    /// The caller id asked for (or the key's); of a call that came in: the caller's number, if it has one.
    pub from: Option<CallerId>,
    /// The whole ordered list of trunks; the engine walks it once, and once for each redial. Of a call that came in: the
    /// one it came by.
    pub trunks: Vec<TrunkPlan>,
    /// When every trunk has failed, all are tried once more after so many milliseconds, for each entry once.
    pub redials_ms: Vec<u32>,
    /// From the first 18x or INVITE to CANCEL.
    pub ring_timeout_ms: u32,
    /// From answer to BYE.
    pub max_duration_ms: u32,
    /// Screen the answerer.
    pub use_amd: bool,
    /// Record from answer to end.
    pub record: bool,
    /// One channel with everybody in it, or the callee on the left and all else on the right.
    pub record_channels: media::Channels,
    /// As submitted or the default.
    pub voice_name: String,
    /// Where the call's events go.
    pub webhook_url: Option<String>,
    /// Who talks and why.
    pub purpose: Purpose,
    /// Placed.
    pub created_at: Timestamp,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmdStatus {
    /// A person.
    Human,
    /// A machine.
    Machine,
    /// Could not be told.
    Unknown,
}

/// A verdict of answering-machine detection.
#[derive(Clone, Debug, PartialEq)]
pub struct Amd {
    /// Who.
    pub status: AmdStatus,
    /// One of MEDIA 1.6's bare words, e.g. `LONGGREETING`.
    pub cause: String,
    /// 0 to 1.
    pub confidence: f32,
}

impl AmdStatus {
    /// `HUMAN`, `MACHINE`, `UNKNOWN`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "HUMAN",
            Self::Machine => "MACHINE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Reads [`AmdStatus::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Human, Self::Machine, Self::Unknown].into_iter().find(|s| s.as_str() == text)
    }
}

/// Why a call ended (CONTRACT 1.1 `endReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The far party hung up, or the program was done.
    NormalHangup,
    /// `/hangup` after answer.
    ApiHangup,
    /// Rang out.
    NoAnswer,
    /// 486, 600.
    Busy,
    /// 603, 607, 608.
    Rejected,
    /// 404, 410, 484, 485, 604.
    NotFound,
    /// `/hangup` before answer.
    Canceled,
    /// Every trunk failed.
    TrunkFailure,
    /// The longest allowed call.
    MaxDuration,
    /// No RTP for too long.
    MediaTimeout,
    /// The money ran out.
    InsufficientCredits,
    /// The server was stopped.
    Shutdown,
    /// The server died and was started again.
    EngineRestart,
}

/// Every [`EndReason`] with its word.
const END_REASONS: &[(EndReason, &str)] = &[
    (EndReason::NormalHangup, "normal_hangup"),
    (EndReason::ApiHangup, "api_hangup"),
    (EndReason::NoAnswer, "no_answer"),
    (EndReason::Busy, "busy"),
    (EndReason::Rejected, "rejected"),
    (EndReason::NotFound, "not_found"),
    (EndReason::Canceled, "canceled"),
    (EndReason::TrunkFailure, "trunk_failure"),
    (EndReason::MaxDuration, "max_duration"),
    (EndReason::MediaTimeout, "media_timeout"),
    (EndReason::InsufficientCredits, "insufficient_credits"),
    (EndReason::Shutdown, "shutdown"),
    (EndReason::EngineRestart, "engine_restart"),
];

impl EndReason {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        END_REASONS.iter().find(|(r, _)| *r == self).map_or("normal_hangup", |(_, word)| word)
    }

    /// Reads [`EndReason::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        END_REASONS.iter().find(|(_, word)| *word == text).map(|(reason, _)| *reason)
    }
}

/// How far a call has come (CONTRACT 4.2; `ending` is a flag of the live engine only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallState {
    /// Accepted.
    Queued,
    /// INVITE out.
    Dialing,
    /// 18x.
    Ringing,
    /// 2xx.
    Answered,
    /// Over.
    Ended,
}

/// One trunk that was not tried, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedView {
    /// The endpoint's name.
    pub trunk: String,
    /// In words.
    pub reason: String,
}

/// One trunk tried.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptView {
    /// The endpoint's name.
    pub trunk: String,
    /// Its final status, once it failed; 0 for none received.
    pub code: Option<u16>,
    /// The reason phrase or our own words.
    pub reason: String,
    /// How long it took to fail.
    pub elapsed_ms: u32,
    /// Seconds after which the trunk wants to be asked again.
    pub retry_after_s: Option<u32>,
}

/// A gather that runs now.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherView {
    /// Digits wanted.
    pub expected: u8,
    /// Its time.
    pub timeout_ms: u32,
    /// Digits so far.
    pub digits: String,
}

/// A call's recording.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingView {
    /// The id; the file is this with `.wav`.
    pub recording: String,
    /// Still being written.
    pub active: bool,
    /// Takes silence for now.
    pub paused: bool,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// Q.850 cause.
    pub q850: u16,
    /// The SIP status that decided it, where one did.
    pub sip_code: Option<u16>,
}

/// What is true of a call: its order and the fold of its events. Live list, webhook and table row are all this.
#[derive(Clone, Debug, PartialEq)]
pub struct CallView {
    /// What was asked.
    pub order: Arc<CallOrder>,
    /// How far it has come.
    pub state: CallState,
    /// Trunks tried, in order.
    pub attempts: Vec<AttemptView>,
    /// Trunks passed over, in the order they were.
    pub passed: Vec<PassedView>,
    /// The trunk holds the call (100 for a while, or 18x, or more): `/makecall` may answer.
    pub placed: bool,
    /// The verdict, once given.
    pub amd: Option<Amd>,
    /// The running gather.
    pub gather: Option<GatherView>,
    /// The latest recording.
    pub recording: Option<RecordingView>,
    /// First INVITE, ours or theirs.
    pub dialed_at: Option<Timestamp>,
    /// First 18x; of a call that came in: its INVITE.
    pub ringing_at: Option<Timestamp>,
    /// 2xx.
    pub answered_at: Option<Timestamp>,
    /// What the application said when it gave the call back.
    pub handoff: Option<String>,
    /// The end.
    pub end: Option<End>,
    /// Events so far; the per-call sequence of the event log.
    pub events: u32,
}

/// Trunks passed over that a call keeps.
const PASSED_MAX: usize = 32;

impl CallView {
    /// A call of which nothing has happened yet.
    pub fn new(order: Arc<CallOrder>) -> Self {
        Self {
            order,
            state: CallState::Queued,
            attempts: Vec::new(),
            passed: Vec::new(),
            placed: false,
            amd: None,
            gather: None,
            recording: None,
            dialed_at: None,
            ringing_at: None,
            answered_at: None,
            handoff: None,
            end: None,
            events: 0,
        }
    }

    /// Takes one event in. Pure; the only way a view changes.
    pub fn apply(&mut self, at: Timestamp, event: &CallEvent) {
        self.events += 1;
        match event {
            CallEvent::Queued if self.order.purpose.direction == Direction::Inbound => {
                self.dialed_at.get_or_insert(at);
                self.rings(at);
            }
            CallEvent::Queued
            | CallEvent::Digit { .. }
            | CallEvent::Played { .. }
            | CallEvent::Said { .. }
            | CallEvent::TurnTimed(_)
            | CallEvent::TransferStarted { .. }
            | CallEvent::TransferFailed { .. }
            | CallEvent::Unheard { .. }
            | CallEvent::Transferred => {}
            CallEvent::ContextChanged { context } => {
                Arc::make_mut(&mut self.order).purpose.context.clone_from(context);
            }
            CallEvent::HandedOff { data } => self.handoff = Some(data.clone()),
            CallEvent::Dialing { trunk, .. } => self.dials(at, trunk),
            CallEvent::PassedOver { trunk, reason } => {
                if self.passed.len() < PASSED_MAX {
                    self.passed.push(PassedView { trunk: trunk.clone(), reason: reason.clone() });
                }
            }
            CallEvent::AttemptFailed { code, reason, elapsed_ms, retry_after_s, .. } => {
                if let Some(attempt) = self.attempts.last_mut() {
                    attempt.code = Some(*code);
                    attempt.reason.clone_from(reason);
                    attempt.elapsed_ms = *elapsed_ms;
                    attempt.retry_after_s = *retry_after_s;
                }
            }
            CallEvent::Proceeding => self.placed = true,
            CallEvent::Ringing => self.rings(at),
            CallEvent::Answered => {
                self.state = self.state.max(CallState::Answered);
                self.answered_at.get_or_insert(at);
                self.placed = true;
            }
            CallEvent::Screened(amd) => self.amd = Some(amd.clone()),
            CallEvent::RecordingStarted { recording } => {
                let recording = recording.clone();
                self.recording = Some(RecordingView { recording, active: true, paused: false });
            }
            CallEvent::RecordingPaused { recording } => self.recording_paused(recording, true),
            CallEvent::RecordingResumed { recording } => self.recording_paused(recording, false),
            CallEvent::RecordingStopped { recording }
            | CallEvent::RecordingCompleted { recording, .. }
            | CallEvent::RecordingFailed { recording, .. } => self.recording_over(recording),
            CallEvent::GatherStarted { expected, timeout_ms } => self.gathers(*expected, *timeout_ms),
            CallEvent::GatherProgress { digits, .. } => {
                if let Some(gather) = &mut self.gather {
                    gather.digits.clone_from(digits);
                }
            }
            CallEvent::GatherComplete { .. } | CallEvent::GatherTimeout { .. } => self.gather = None,
            CallEvent::Ended { reason, q850, sip_code } => {
                self.state = CallState::Ended;
                self.gather = None;
                if let Some(recording) = &mut self.recording {
                    (recording.active, recording.paused) = (false, false);
                }
                self.end = Some(End { at, reason: *reason, q850: *q850, sip_code: *sip_code });
            }
        }
    }

    fn gathers(&mut self, expected: u8, timeout_ms: u32) {
        self.gather = Some(GatherView { expected, timeout_ms, digits: String::new() });
    }

    fn dials(&mut self, at: Timestamp, trunk: &str) {
        self.state = self.state.max(CallState::Dialing);
        self.dialed_at.get_or_insert(at);
        let reason = String::new();
        let (trunk, retry_after_s) = (trunk.to_owned(), None);
        self.attempts.push(AttemptView { trunk, code: None, reason, elapsed_ms: 0, retry_after_s });
    }

    fn rings(&mut self, at: Timestamp) {
        self.state = self.state.max(CallState::Ringing);
        self.ringing_at.get_or_insert(at);
        self.placed = true;
    }

    fn recording_over(&mut self, ended: &str) {
        if let Some(view) = &mut self.recording
            && view.recording == ended
        {
            (view.active, view.paused) = (false, false);
        }
    }

    fn recording_paused(&mut self, recording: &str, paused: bool) {
        if let Some(view) = &mut self.recording
            && view.recording == recording
        {
            view.paused = paused && view.active;
        }
    }

    /// Seconds from answer to end (or to `now` while up), rounded down; 0 if never answered (CONTRACT 2.1 C24).
    pub fn duration_s(&self, now: Timestamp) -> i64 {
        let Some(answered) = self.answered_at else { return 0 };
        let until = self.end.map_or(now, |end| end.at);
        (until.0 - answered.0).max(0) / 1000
    }

    /// The endpoint that carries (or last carried) the INVITE.
    pub fn trunk(&self) -> Option<&str> {
        match self.order.purpose.direction {
            Direction::Outbound => self.attempts.last().map(|a| a.trunk.as_str()),
            Direction::Inbound => self.order.trunks.first().map(|trunk| trunk.endpoint.as_str()),
        }
    }
}
