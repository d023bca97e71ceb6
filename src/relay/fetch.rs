//! Sounds from addresses that a customer names: through the guard, bounded in size and time, decoded by what the name or
//! the answer says they are. Nothing is kept.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Webhooks;
use crate::speech::{SoundError, Sounds};
use crate::webhook::guard::{self, UrlRefused};

/// Largest sound, bytes.
const BYTES_MAX: usize = 10 * 1024 * 1024;
/// It must be here in this time.
const WITHIN: Duration = Duration::from_secs(10);

/// What content types stand for.
const KINDS: &[(&str, &str)] = &[
    ("audio/wav", "wav"),
    ("audio/wave", "wav"),
    ("audio/x-wav", "wav"),
    ("audio/vnd.wave", "wav"),
    ("audio/mpeg", "mp3"),
    ("audio/mp3", "mp3"),
    ("audio/ogg", "ogg"),
    ("application/ogg", "ogg"),
    ("audio/flac", "flac"),
    ("audio/x-flac", "flac"),
    ("audio/basic", "ulaw"),
    ("audio/x-mulaw", "ulaw"),
];

/// Why a sound cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// Its address is not permitted.
    #[error(transparent)]
    Refused(#[from] UrlRefused),
    /// The other side, or the way there. Says no more: what is behind an address is nobody's business.
    #[error("it could not be fetched")]
    Unreachable,
    /// It answered so.
    #[error("HTTP {0}")]
    Status(u16),
    /// It is larger than it may be.
    #[error("it is too large")]
    TooLarge,
    /// It took too long.
    #[error("it did not come in time")]
    Late,
    /// It is no sound.
    #[error(transparent)]
    Sound(#[from] SoundError),
}

/// The sound at an address.
///
/// # Errors
/// [`FetchError`].
pub(super) async fn sound(
    client: &reqwest::Client,
    source: &str,
    config: &Webhooks,
    sounds: &Sounds,
) -> Result<Arc<media::Clip>, FetchError> {
    let url = guard::check_url(source, config)?;
    let ending = url.path().rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let fetching = async {
        let mut response = client.get(url).send().await.map_err(|_| FetchError::Unreachable)?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|_| FetchError::Unreachable)? {
            if bytes.len() + piece.len() > BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, kind))
    };
    let fetched = tokio::time::timeout(WITHIN, fetching).await.map_err(|_| FetchError::Late)?;
    let (bytes, kind) = fetched?;
    let known = kind.and_then(|kind| KINDS.iter().find(|(name, _)| *name == kind).map(|(_, ending)| *ending));
    let ending = known.map(str::to_owned).or(ending).unwrap_or_else(|| "wav".to_owned());
    Ok(sounds.decode(bytes, &ending).await?)
}
