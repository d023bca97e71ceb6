//! Kaphila's words for what is true of a call: status, verdict, recording (CONTRACT 1.1, 4.3). Pure; used by the
//! answers and by the webhooks alike, so that both always say the same.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::call::{CallView, RecordingView};

/// The status word of a call; the database keeps and filters the same words.
pub use crate::store::calls::outcome as status;

/// How a recording is made, on the wire.
pub const RECORDING_METHOD: &str = "bridge";

/// The `amd` object.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Amd {
    /// `HUMAN`, `MACHINE`, `UNKNOWN` or `NOAMD`.
    #[schema(pattern = "^(HUMAN|MACHINE|UNKNOWN|NOAMD)$")]
    pub status: &'static str,
    /// The detector's word; none without detection.
    pub cause: Option<String>,
    /// 0 to 1, two decimals.
    #[schema(minimum = 0, maximum = 1)]
    pub confidence: Option<f64>,
}

impl Amd {
    /// Nobody asked.
    pub const NONE: Self = Self { status: "NOAMD", cause: None, confidence: None };

    /// The verdict so far: `NOAMD` where none was asked for, nothing while undecided.
    pub fn of(view: &CallView) -> Option<Self> {
        if !view.order.use_amd {
            return Some(Self::NONE);
        }
        let amd = view.amd.as_ref()?;
        let confidence = (f64::from(amd.confidence) * 100.0).round() / 100.0;
        Some(Self {
            status: amd.status.as_str(),
            cause: Some(amd.cause.clone()),
            confidence: Some(confidence),
        })
    }

    /// The verdict once nothing can be added: `NOAMD` where nobody answered, unknown where the call ended before
    /// one was given.
    pub fn at_end(view: &CallView) -> Self {
        if view.answered_at.is_none() {
            return Self::NONE;
        }
        let unknown = || Self { status: "UNKNOWN", cause: Some("HANGUP".into()), confidence: Some(0.0) };
        Self::of(view).unwrap_or_else(unknown)
    }
}

/// The `recording` object.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecordingState)]
pub struct Recording {
    /// Still being written.
    pub active: bool,
    /// The file's name.
    pub filename: String,
    /// The file's name without `.wav`.
    pub recording_id: String,
    /// Always `bridge`.
    pub method: &'static str,
    /// Takes silence for now; left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub paused: bool,
    /// SHA-256 of the whole file in hex, once it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[0-9a-f]{64}$")]
    pub sha256: Option<String>,
}

impl Recording {
    /// The recording of that id.
    pub fn new(recording: &str, active: bool) -> Self {
        Self {
            active,
            filename: filename(recording),
            recording_id: recording.to_owned(),
            method: RECORDING_METHOD,
            paused: false,
            sha256: None,
        }
    }

    /// A call's latest recording.
    pub fn of(view: &RecordingView) -> Self {
        Self { paused: view.paused, ..Self::new(&view.recording, view.active) }
    }
}

/// The file of a recording.
pub fn filename(recording: &str) -> String {
    format!("{recording}.wav")
}
