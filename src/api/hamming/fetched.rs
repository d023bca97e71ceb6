//! The recordings that callbacks tell of (CONTRACT 1.4 `event_recording`): fetched from where the operator has said,
//! through the guard, bounded in size, time and number, and kept beside the inbox under the number of their row. Nothing
//! follows from what is in them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use url::Url;

use crate::api::App;
use crate::clock;
use crate::recordings::disk;
use crate::store::callbacks::Fetched;
use crate::store::history::DAY_MS;
use crate::webhook::guard::{self, UrlRefused};

/// Largest recording, bytes: half an hour of 8 kHz, 16 bit.
const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// One try takes no longer.
const WITHIN: Duration = Duration::from_secs(15);
/// Pauses before the second and the third try; the other side may still be finishing the file.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// Fetched at once.
static TURNS: Semaphore = Semaphore::const_new(4);
/// Waiting for their turn or being fetched.
static PLACES: Semaphore = Semaphore::const_new(100);

/// Why a recording cannot be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Refused(#[from] UrlRefused),
    #[error("recordings_base is no URL")]
    Base,
    #[error("it could not be fetched")]
    Unreachable,
    #[error("HTTP {0}")]
    Status(u16),
    #[error("it is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("it did not come in time")]
    Late,
    #[error("it is no WAV file")]
    NoWav,
    #[error("the disk is full")]
    Full,
    #[error("too many others are being fetched")]
    Busy,
    #[error(transparent)]
    File(#[from] io::Error),
}

impl FetchError {
    /// Another try may go better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable | Self::Late => true,
            Self::Status(code) => matches!(code, 404 | 429 | 500..),
            Self::Refused(_)
            | Self::Base
            | Self::TooLarge
            | Self::NoWav
            | Self::Full
            | Self::Busy
            | Self::File(_) => false,
        }
    }
}

/// The folder of these recordings.
pub fn folder(app: &App) -> PathBuf {
    app.rooms.config.paths.recordings.join("callbacks")
}

/// The file of a row.
pub fn file_name(row: i64) -> String {
    format!("{row}.wav")
}

/// Whether recordings are to be fetched at all.
pub(super) fn wanted(app: &App) -> bool {
    !app.rooms.config.hamming.recordings_base.is_empty()
}

/// Removes the files of rows that are forgotten.
pub(super) async fn remove(app: &App, rows: &[i64]) {
    for row in rows {
        let path = folder(app).join(file_name(*row));
        if let Err(error) = tokio::fs::remove_file(&path).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(row, %error, "the recording of a callback could not be removed");
        }
    }
}

/// Fetches the recording of a call for a row, whatever becomes of the request that told of it.
pub(super) fn begin(app: App, row: i64, call: String) {
    tokio::spawn(async move {
        let fetched = match fetch(&app, row, &call).await {
            Ok(size) => Fetched::Stored(i64::try_from(size).unwrap_or(i64::MAX)),
            Err(error) => {
                tracing::warn!(row, %error, "the recording that a callback tells of was not fetched");
                Fetched::Failed
            }
        };
        match app.rooms.db.callback_fetched(row, fetched).await {
            Ok(true) => {}
            Ok(false) => remove(&app, &[row]).await,
            Err(error) => tracing::error!(row, %error, "what came of a callback's recording is not written"),
        }
        forget_old(&app).await;
    });
}

/// Removes what is older than recordings may be.
async fn forget_old(app: &App) {
    let days = i64::from(app.rooms.config.recordings.retention_days);
    if days == 0 {
        return;
    }
    let before = clock::now().wall.plus_ms(-days.saturating_mul(DAY_MS));
    match app.rooms.db.remove_callback_recordings(before).await {
        Ok(rows) => remove(app, &rows).await,
        Err(error) => tracing::warn!(%error, "old recordings of callbacks could not be removed"),
    }
}

async fn fetch(app: &App, row: i64, call: &str) -> Result<u64, FetchError> {
    let _place = PLACES.try_acquire().map_err(|_| FetchError::Busy)?;
    let _turn = TURNS.acquire().await.map_err(|_| FetchError::Busy)?;
    let config = &app.rooms.config;
    let base = config.hamming.recordings_base.trim_end_matches('/');
    let mut url = Url::parse(&format!("{base}/media/exercise")).map_err(|_| FetchError::Base)?;
    url.query_pairs_mut().append_pair("id", call);
    let url = guard::check_url(url.as_str(), &config.webhooks)?;
    let folder = folder(app);
    tokio::fs::create_dir_all(&folder).await?;
    if disk::is_low(&folder, config.recordings.min_free_bytes) {
        return Err(FetchError::Full);
    }
    let part = folder.join(format!("{row}.part"));
    let mut pauses = PAUSES.into_iter();
    loop {
        let once = tokio::time::timeout(WITHIN, fetch_once(app, url.clone(), &part)).await;
        let error = match once.unwrap_or(Err(FetchError::Late)) {
            Ok(size) => {
                tokio::fs::rename(&part, folder.join(file_name(row))).await?;
                return Ok(size);
            }
            Err(error) => error,
        };
        // What came of it is of no use; that it may not be there is fine.
        let _ = tokio::fs::remove_file(&part).await;
        match pauses.next().filter(|_| error.may_pass()) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error),
        }
    }
}

async fn fetch_once(app: &App, url: Url, part: &Path) -> Result<u64, FetchError> {
    let key = &app.rooms.config.hamming.recordings_key;
    let mut request = app.relay.means.client.get(url);
    if !key.0.is_empty() {
        request = request.bearer_auth(&key.0);
    }
    let mut response = request.send().await.map_err(|_| FetchError::Unreachable)?;
    if response.status().as_u16() != 200 {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut file = File::create(part).await?;
    let (mut size, mut head) = (0, Vec::new());
    while let Some(piece) = response.chunk().await.map_err(|_| FetchError::Unreachable)? {
        size += piece.len() as u64;
        if size > BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        head.extend(piece.iter().take(HEAD - head.len()));
        file.write_all(&piece).await?;
    }
    if !is_wav(&head) {
        return Err(FetchError::NoWav);
    }
    file.sync_all().await?;
    Ok(size)
}

/// Bytes by which a WAV file is known.
const HEAD: usize = 12;

fn is_wav(head: &[u8]) -> bool {
    head.len() == HEAD && head.starts_with(b"RIFF") && head.ends_with(b"WAVE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_file_is_known_by_its_head() {
        assert!(is_wav(b"RIFF\x24\0\0\0WAVE"));
        for other in [&b"RIFF\x24\0\0\0WAV"[..], b"RIFX\x24\0\0\0WAVE", b"<!doctype ht", b""] {
            assert!(!is_wav(other), "{other:?}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        assert!(FetchError::Late.may_pass() && FetchError::Status(404).may_pass());
        assert!(FetchError::Status(503).may_pass() && !FetchError::Status(401).may_pass());
        assert!(!FetchError::TooLarge.may_pass() && !FetchError::NoWav.may_pass());
    }
}
