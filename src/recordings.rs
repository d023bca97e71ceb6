//! What becomes of finished recordings: how long they are kept ([`retention`]), where else they lie ([`upload`]), who
//! may fetch one without a key ([`links`]), and whether there is room for more ([`disk`]).
//!
//! This room never touches a recording that is still being written: that file belongs to the media's writer. It owns
//! no JSON and no HTTP; the surfaces ask it. A row of the database decides what there is, never the folder: a file is
//! removed first and its row marked after, so that no row promises what is gone for longer than a crash lasts.

pub mod disk;
pub mod links;
pub mod retention;
pub mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::config::Config;
use crate::store::{Db, StoreError};
use links::Links;
use upload::{Remote, RemoteError};

/// How often uploads that are due are looked for.
const UPLOAD_EVERY: Duration = Duration::from_secs(1);
/// Of these looks, every so manieth also looks for recordings that have outlived their time: every five minutes.
const SWEEP_EVERY: u64 = 300;

/// Why recordings cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum RecordingsError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place to upload to.
    #[error("recordings.upload: {0}")]
    Remote(#[from] RemoteError),
    /// No randomness for the secret of links.
    #[error("the system gives no random numbers")]
    Random,
}

/// Finished recordings, and what may be asked of them.
#[derive(Debug)]
pub struct Recordings {
    db: Db,
    folder: PathBuf,
    retention_days: u32,
    min_free_bytes: u64,
    delete_local: bool,
    links: Links,
    remote: Option<Remote>,
    /// The last try to upload came to nothing.
    failing: AtomicBool,
}

impl Recordings {
    /// Ready to be asked. The secret that signs links is made at the first start.
    ///
    /// # Errors
    /// [`RecordingsError`]
    pub async fn open(config: &Config, db: Db) -> Result<Self, RecordingsError> {
        let settings = &config.recordings;
        let links = Links::open(&db).await?;
        Ok(Self {
            folder: config.paths.recordings.clone(),
            retention_days: settings.retention_days,
            min_free_bytes: settings.min_free_bytes,
            delete_local: settings.upload.delete_local,
            remote: Remote::open(&settings.upload)?,
            links,
            failing: AtomicBool::new(false),
            db,
        })
    }

    /// The folder in which they lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Who signs links.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Where they are uploaded to, if anywhere.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// No recording begins now for want of room.
    pub fn disk_is_low(&self) -> bool {
        disk::is_low(&self.folder, self.min_free_bytes)
    }

    /// The last try to upload one came to nothing.
    pub fn uploads_fail(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// Starts the task that uploads and sweeps, one thing at a time. Abort it to stop: everything it does can be cut off
/// and done anew.
pub fn keep(recordings: Arc<Recordings>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPLOAD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0;
        loop {
            ticks.tick().await;
            if round % SWEEP_EVERY == 0 {
                match recordings.sweep(clock::now().wall).await {
                    Ok(0) => {}
                    Ok(swept) => tracing::info!(swept, "recordings had outlived their time"),
                    Err(error) => tracing::warn!(%error, "recordings could not be swept"),
                }
            }
            round += 1;
            match recordings.upload_due(|| clock::now().wall).await {
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "uploads could not be looked for"),
            }
        }
    })
}
