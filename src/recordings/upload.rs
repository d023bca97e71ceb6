//! A second place for finished recordings: an S3 bucket or a folder. Each is uploaded once, tried again after longer
//! and longer pauses, and read from there when the file here is gone. What is still to be uploaded is a matter of
//! rows, so it survives restarts; a row that is being uploaded is lent to one process for a while.

use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, Take};

use super::{Recordings, RecordingsError};
use crate::config::Upload;
use crate::model::Timestamp;
use crate::store::recordings::{RecordingRow, UploadResult};

/// Larger files go up in parts of this size, bytes; S3 wants at least 5 MiB.
const PART: usize = 8 * 1024 * 1024;
/// For how long one upload keeps other processes away from its row, milliseconds: a gigabyte at 1 MB/s.
const LEASE_MS: i64 = 20 * 60 * 1000;
/// Longest that one upload may take: less than its lease.
const UPLOAD_WITHIN: Duration = Duration::from_secs(18 * 60);
/// The pause after the first failure; it doubles up to [`PAUSE_MAX_MS`].
const PAUSE_MS: i64 = 5_000;
/// The longest pause.
const PAUSE_MAX_MS: i64 = 60 * 60 * 1000;
/// Uploads one after the other before the sweep gets its turn again.
const BATCH: usize = 100;

/// Why the other place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The setting names none that is known.
    #[error("url must be s3://BUCKET/PREFIX or file:///FOLDER")]
    Url,
    /// The file here.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What the other place said.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// What lies there is not as long as what was sent.
    #[error("{there} bytes lie there instead of {sent}")]
    Short {
        /// Bytes sent.
        sent: u64,
        /// Bytes that lie there.
        there: u64,
    },
    /// It took too long.
    #[error("not done in time")]
    TooSlow,
}

/// The other place.
#[derive(Clone, Debug)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Remote {
    /// The place of the settings; `None` where they name none. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`RemoteError`]
    pub fn open(settings: &Upload) -> Result<Option<Self>, RemoteError> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        if let Some(folder) = settings.url.strip_prefix("file://") {
            std::fs::create_dir_all(folder)?;
            let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
            return Ok(Some(Self { store: Arc::new(store), prefix: Path::default() }));
        }
        let place = settings.url.strip_prefix("s3://").ok_or(RemoteError::Url)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let retry_config =
            RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(if settings.region.is_empty() { "us-east-1" } else { &settings.region })
            .with_access_key_id(&settings.access_key.0)
            .with_secret_access_key(&settings.secret_key.0)
            .with_retry(retry_config)
            // Not every server of this kind knows how to delete several at once, and we never do.
            .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
        if !settings.endpoint.is_empty() {
            builder = builder
                .with_endpoint(settings.endpoint.trim_end_matches('/'))
                .with_allow_http(settings.endpoint.starts_with("http://"));
        }
        Ok(Some(Self { store: Arc::new(builder.build()?), prefix: Path::from(prefix) }))
    }

    fn place(&self, filename: &str) -> Path {
        self.prefix.clone().join(filename)
    }

    /// Puts a file there under its own name, whole or not at all; says how long it is.
    async fn put(&self, folder: &FilePath, filename: &str) -> Result<u64, RemoteError> {
        let file = File::open(folder.join(filename)).await?;
        let place = self.place(filename);
        let sent = file.metadata().await?.len();
        if sent <= PART as u64 {
            let bytes = portion(&mut file.take(sent)).await?;
            self.store.put(&place, bytes.into()).await?;
        } else {
            self.put_parts(file.take(sent), &place).await?;
        }
        let found = self.store.head(&place).await?.size;
        if found == sent { Ok(sent) } else { Err(RemoteError::Short { sent, there: found }) }
    }

    async fn put_parts(&self, mut file: Take<File>, place: &Path) -> Result<(), RemoteError> {
        let mut parts = self.store.put_multipart(place).await?;
        let sent = async {
            while file.limit() > 0 {
                let bytes = portion(&mut file).await?;
                parts.put_part(bytes.into()).await?;
            }
            parts.complete().await?;
            Ok(())
        };
        let sent = sent.await;
        if sent.is_err() {
            // Parts that were sent would be kept, and paid for, for ever. The first error is the one to tell.
            let _ = parts.abort().await;
        }
        sent
    }

    /// Removes a file there. One that is not there is as good as removed.
    pub(super) async fn delete(&self, filename: &str) -> Result<(), RemoteError> {
        match self.store.delete(&self.place(filename)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The size of a file there; `None` where there is none.
    ///
    /// # Errors
    /// Whatever else the other place says.
    pub async fn size(&self, filename: &str) -> Result<Option<u64>, RemoteError> {
        match self.store.head(&self.place(filename)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// So many bytes of a file there from `first` on, as they come.
    ///
    /// # Errors
    /// Whatever the other place says.
    pub async fn read(&self, filename: &str, first: u64, length: u64) -> Result<GetResult, RemoteError> {
        // An empty range is one that cannot be asked for; the whole of an empty file can.
        let range = (length > 0).then(|| GetRange::Bounded(first..first + length));
        let options = GetOptions { range, ..GetOptions::default() };
        Ok(self.store.get_opts(&self.place(filename), options).await?)
    }
}

/// The next bytes of a file, as many as one part takes.
async fn portion(file: &mut Take<File>) -> Result<Bytes, RemoteError> {
    let wanted = usize::try_from(file.limit()).unwrap_or(PART).min(PART);
    let mut bytes = vec![0; wanted];
    file.read_exact(&mut bytes).await?;
    Ok(bytes.into())
}

/// When a try that failed is made again: 5 s after the first, twice as long after each further one, an hour at most.
fn pause_ms(attempts: u32) -> i64 {
    PAUSE_MS.saturating_mul(1 << attempts.min(20)).min(PAUSE_MAX_MS)
}

impl Recordings {
    /// Uploads what is due, one after the other, up to a bound; says how many were tried.
    ///
    /// # Errors
    /// The database. An upload that fails is no error: it is tried again later.
    pub async fn upload_due(&self, now: impl Fn() -> Timestamp) -> Result<usize, RecordingsError> {
        let Some(remote) = &self.remote else { return Ok(0) };
        for tried in 0..BATCH {
            let at = now();
            let Some(row) = self.db.claim_upload(at, at.plus_ms(LEASE_MS)).await? else { return Ok(tried) };
            let came_to = self.upload(remote, &row, &now).await;
            self.db.settle_upload(&row.recording, came_to).await?;
            // Only what surely lies there is deleted here, and only once the row says so.
            if self.delete_local && came_to == UploadResult::Done {
                let removed = tokio::fs::remove_file(self.folder.join(&row.filename)).await;
                if let Err(error) = removed {
                    tracing::warn!(recording = %row.recording, %error, "an uploaded recording stays here");
                }
            }
        }
        Ok(BATCH)
    }

    async fn upload(&self, remote: &Remote, row: &RecordingRow, now: impl Fn() -> Timestamp) -> UploadResult {
        use std::sync::atomic::Ordering::Relaxed;
        let sent = tokio::time::timeout(UPLOAD_WITHIN, remote.put(&self.folder, &row.filename)).await;
        match sent.unwrap_or(Err(RemoteError::TooSlow)) {
            Ok(bytes) => {
                self.failing.store(false, Relaxed);
                tracing::info!(recording = %row.recording, bytes, "uploaded");
                UploadResult::Done
            }
            Err(RemoteError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(recording = %row.recording, "there is no file to upload");
                UploadResult::Hopeless
            }
            Err(error) => {
                self.failing.store(true, Relaxed);
                let pause = pause_ms(row.upload_attempts);
                tracing::warn!(recording = %row.recording, %error, pause_ms = pause, "an upload failed");
                UploadResult::Again(now().plus_ms(pause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let pauses: Vec<i64> = [0, 1, 2, 9, 10, 1000].into_iter().map(pause_ms).collect();
        assert_eq!(pauses, [5_000, 10_000, 20_000, 2_560_000, 3_600_000, 3_600_000]);
    }

    #[test]
    fn only_known_places_are_taken() {
        let upload = |url: &str| Remote::open(&Upload { url: url.into(), ..Upload::default() });
        assert!(matches!(upload(""), Ok(None)));
        assert!(matches!(upload("ftp://x"), Err(RemoteError::Url)));
        let s3 = upload("s3://bucket/some/prefix").unwrap().unwrap();
        assert_eq!(s3.place("a.wav").as_ref(), "some/prefix/a.wav");
        let s3 = upload("s3://bucket").unwrap().unwrap();
        assert_eq!(s3.place("a.wav").as_ref(), "a.wav");
    }
}
