//! The control room: everything that is decided before the engine acts. It says who may ask ([`admission`]), which
//! way a call goes ([`routing`], [`trunks`]), what may be dialled ([`numbers`], [`policy`]), what was done before
//! ([`idempotency`]), what becomes of calls that come in ([`inbound`]), and carries
//! the verbs out ([`Calls`]). It never reads HTTP and never words an answer: it says no with a [`Refusal`], and each
//! surface has its own words for those.

pub mod admission;
pub mod adopt;
pub mod agents;
pub mod apology;
pub mod calls;
pub mod idempotency;
pub mod inbound;
pub mod numbers;
pub mod placing;
pub mod policy;
pub mod rate;
pub mod routing;
pub mod transfer;
pub mod trunks;
pub mod turn_figures;

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::engine::driver::EngineHandle;
use crate::journal::{JournalHandle, Live};
use crate::model::account::ApiKey;
use crate::model::call::CommandError;
use crate::recordings::Recordings;
use crate::speech::{Sounds, Speech, SpeechError};
use crate::store::campaign_contacts::Untaken;
use crate::store::{Db, StoreError};

use routing::Resolver;
use trunks::Fleet;
use turn_figures::TurnFigures;

pub use calls::{Calls, Gather, Named};
pub use placing::{PlaceCall, Placed, Queued, Record, Script};

/// The rooms that control works with; made once, shared by all requests.
#[derive(Clone)]
pub struct Rooms {
    /// Every setting and limit.
    pub config: Arc<Config>,
    /// Keys, credits, calls.
    pub db: Db,
    /// The live calls.
    pub live: Live,
    /// Where facts are told.
    pub journal: JournalHandle,
    /// What acts on calls.
    pub engine: EngineHandle,
    /// Text to audio.
    pub speech: Speech,
    /// Sound files to audio.
    pub sounds: Arc<Sounds>,
    /// Finished recordings.
    pub recordings: Arc<Recordings>,
    /// How the trunks do.
    pub fleet: Arc<Fleet>,
    /// Where the trunks are.
    pub resolver: Arc<Resolver>,
    /// A recogniser and a language model are configured: agents hold their conversations themselves.
    pub converses: bool,
    /// How long the answers of agents take.
    pub turns: Arc<TurnFigures>,
}

/// Who is asking in this request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key that was presented.
    pub key: ApiKey,
    /// Where the request came from, as far as it can be known.
    pub ip: Option<IpAddr>,
}

/// Every business reason to say no. A refusal is not an error: nothing broke, and nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No key was presented.
    MissingKey,
    /// A key was presented that is malformed, unknown, revoked or expired.
    InvalidKey,
    /// The key is good and may not do this, or not from here.
    Forbidden,
    /// The key may not show this caller id.
    CallerIdNotAllowed,
    /// The surface's window is used up; `retry_after_s` is at least 1.
    RateLimited {
        /// Seconds until a request is taken again.
        retry_after_s: u64,
    },
    /// The number is that of an emergency or premium-rate service, which the key may not call.
    NumberNotAllowed,
    /// The number is in a country that the key may not call.
    DestinationNotAllowed,
    /// The key has placed as many calls in the last minute as it may; `retry_after_s` is at least 1.
    TooFast {
        /// Seconds until the next call may be placed.
        retry_after_s: u64,
    },
    /// The latest calls have all failed by their trunks; `retry_after_s` is at least 1.
    CircuitOpen {
        /// Seconds until a call is tried again.
        retry_after_s: u64,
    },
    /// The key's calls have taken or hold as many credits today as they may.
    DayIsSpent,
    /// No live call of this key has that id.
    UnknownCall,
    /// The call is not answered yet.
    NotAnswered,
    /// A gather is collecting already.
    GatherInProgress,
    /// Too many playbacks wait on this call.
    QueueFull,
    /// Nothing is being recorded.
    NoActiveRecording,
    /// The name cannot be that of a sound.
    InvalidSound,
    /// No sound has that name.
    SoundNotFound,
    /// The key has as many live calls as it may have.
    TooManyCalls,
    /// No credit is left.
    NoCredits,
    /// The key has no enabled trunk.
    NoTrunks,
    /// Every trunk of the key is at a limit of its own.
    TrunksBusy,
    /// Every trunk was tried in vain.
    OriginationFailed {
        /// Endpoint names in the order tried.
        attempted: Vec<String>,
        /// Enabled trunks of the key.
        total: usize,
    },
    /// The call is being transferred, or was.
    Transferring,
    /// Another application talks on the call.
    Attended,
    /// The engine is full, stopping or too far behind.
    Unavailable,
    /// A request of the same `Idempotency-Key` is still being done.
    RequestInProgress,
    /// The `Idempotency-Key` belongs to a request with another body.
    IdempotencyKeyReused,
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::UnknownCall => Self::UnknownCall,
            CommandError::NotAnswered => Self::NotAnswered,
            CommandError::GatherInProgress => Self::GatherInProgress,
            CommandError::QueueFull => Self::QueueFull,
            CommandError::NoActiveRecording => Self::NoActiveRecording,
            CommandError::Transferring => Self::Transferring,
            CommandError::Attended => Self::Attended,
            CommandError::Unavailable => Self::Unavailable,
        }
    }
}

/// Why control could not do what was asked: a no, or something that broke.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A business reason; the caller is told it.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Text could not be made into audio.
    #[error(transparent)]
    Speech(#[from] SpeechError),
    /// Making the audio took longer than a caller can wait.
    #[error("speech was not ready in time")]
    SpeechTooSlow,
    /// A sound file is there and cannot be played.
    #[error("sound file cannot be played: {0}")]
    Sound(String),
    /// No random bits could be had for an id.
    #[error("the system gives no random numbers")]
    Random,
    /// The contact that a campaign wanted to call did not become this call's.
    #[error("the contact was not taken: {0:?}")]
    Untaken(Untaken),
    /// The task that placed the call panicked.
    #[error("placing a call panicked")]
    Panicked,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self::Refused(error.into())
    }
}
