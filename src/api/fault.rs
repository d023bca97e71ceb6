//! Everything a request can fail by, before a surface has put it into its words. Handlers return it; the outermost
//! layer, which knows the surface by the path, words it.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::control::{Failure, Refusal};

/// Seconds after which a client may ask again where the engine is full or stopping.
const UNAVAILABLE_RETRY_S: u64 = 5;

/// Seconds after which a client may ask again for what is being done.
const IN_PROGRESS_RETRY_S: u64 = 1;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong; the text names the field.
    Bad(String),
    /// Control said no.
    Refused(Refusal),
    /// No such path.
    UnknownPath,
    /// The path is known, and what it names is not; the text says what.
    Missing(&'static str),
    /// What was asked for contradicts what there is; the text says how.
    Conflict(String),
    /// The path is known and does not take this method.
    MethodNotAllowed,
    /// The body is larger than bodies may be.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// No recording of that call.
    NoRecording,
    /// No recording of that name.
    NoFile,
    /// A link to a recording that was not made here, was changed, or has run out.
    BadLink,
    /// A range outside of a file of this many bytes.
    BadRange(u64),
    /// Text could not be made into speech.
    SpeechFailed,
    /// A sound file cannot be played.
    SoundUnusable,
    /// Something broke; the log says what.
    Broken,
}

impl Fault {
    /// The headers that go with it on every surface.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::Refused(refusal) => refusal_headers(refusal),
            Self::BadRange(size) => HeaderValue::from_str(&format!("bytes */{size}"))
                .map(|value| vec![(header::CONTENT_RANGE, value)])
                .unwrap_or_default(),
            Self::TooLarge | Self::TooSlow => vec![(header::CONNECTION, HeaderValue::from_static("close"))],
            Self::Bad(_)
            | Self::UnknownPath
            | Self::Missing(_)
            | Self::Conflict(_)
            | Self::MethodNotAllowed
            | Self::NoRecording
            | Self::NoFile
            | Self::BadLink
            | Self::SpeechFailed
            | Self::SoundUnusable
            | Self::Broken => Vec::new(),
        }
    }
}

fn refusal_headers(refusal: &Refusal) -> Vec<(HeaderName, HeaderValue)> {
    match refusal {
        Refusal::MissingKey | Refusal::InvalidKey => {
            vec![(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))]
        }
        Refusal::RateLimited { retry_after_s }
        | Refusal::TooFast { retry_after_s }
        | Refusal::CircuitOpen { retry_after_s } => {
            vec![(header::RETRY_AFTER, HeaderValue::from(*retry_after_s))]
        }
        Refusal::Unavailable => vec![(header::RETRY_AFTER, HeaderValue::from(UNAVAILABLE_RETRY_S))],
        Refusal::RequestInProgress => vec![(header::RETRY_AFTER, HeaderValue::from(IN_PROGRESS_RETRY_S))],
        Refusal::Forbidden
        | Refusal::CallerIdNotAllowed
        | Refusal::NumberNotAllowed
        | Refusal::DestinationNotAllowed
        | Refusal::DayIsSpent
        | Refusal::UnknownCall
        | Refusal::NotAnswered
        | Refusal::GatherInProgress
        | Refusal::QueueFull
        | Refusal::NoActiveRecording
        | Refusal::Transferring
        | Refusal::Attended
        | Refusal::InvalidSound
        | Refusal::SoundNotFound
        | Refusal::TooManyCalls
        | Refusal::NoCredits
        | Refusal::NoTrunks
        | Refusal::TrunksBusy
        | Refusal::OriginationFailed { .. }
        | Refusal::IdempotencyKeyReused => Vec::new(),
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => return Self::Refused(refusal),
            Failure::Speech(_) | Failure::SpeechTooSlow => {
                tracing::warn!(error = %failure, "speech failed");
                return Self::SpeechFailed;
            }
            Failure::Sound(_) => {
                tracing::warn!(error = %failure, "a sound cannot be played");
                return Self::SoundUnusable;
            }
            Failure::Store(_) | Failure::Random | Failure::Untaken(_) | Failure::Panicked => {}
        }
        broken("control", &failure)
    }
}

/// Logs what broke and hides it from the client.
pub fn broken(what: &'static str, error: &dyn std::error::Error) -> Fault {
    tracing::error!(%error, "{what} failed");
    Fault::Broken
}

/// Unworded: the outermost layer finds the fault in the response's extensions and gives it its words.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
