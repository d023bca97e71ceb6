//! One process among those that share a database: keeps its own place, hangs up what was taken from it when it was
//! thought dead, and cleans up after others that died. With a database of its own it does nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::api;
use crate::clock;
use crate::engine::driver::EngineHandle;
use crate::journal::{self, Live, RecoverReport};
use crate::model::call::Command;
use crate::store::Db;
use crate::store::nodes::{Serving, Suspects};

/// How often a process looks for what others left behind.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// One process among those that share a database.
pub(super) struct Watch {
    /// Shared.
    pub(super) db: Db,
    /// The calls of this process.
    pub(super) live: Live,
    /// Hangs up those that are no longer its own.
    pub(super) engine: EngineHandle,
    /// Told of webhooks that were promised.
    pub(super) wake: Arc<Notify>,
    /// The folder of recordings, shared too.
    pub(super) recordings: PathBuf,
}

impl Watch {
    /// Runs until it is aborted; with the right to serve goes the place.
    pub(super) async fn run(self, mut serving: Serving) {
        let lost = Notify::new();
        tokio::select! {
            () = serving.keep(&lost) => {}
            () = self.hang_up_when(&lost) => {}
            () = self.look_around() => {}
        }
    }

    /// Calls that another process has closed in the books do not go on.
    async fn hang_up_when(&self, lost: &Notify) {
        loop {
            lost.notified().await;
            for view in self.live.all() {
                let hang_up = Command::HangUp { drain: false };
                if let Err(error) = self.engine.command(view.order.id, hang_up).await {
                    tracing::debug!(call = %view.order.id, %error, "hanging up a call that was taken away");
                }
            }
        }
    }

    async fn look_around(&self) {
        let mut suspects = Suspects::default();
        loop {
            tokio::time::sleep(LOOK_AROUND).await;
            let (formats, at) = (api::FORMATS.to_vec(), clock::now().wall);
            let looked =
                journal::recover_others(&self.db, formats, &self.recordings, at, &self.live, &mut suspects);
            match looked.await {
                Ok(found) if found == RecoverReport::default() => {}
                Ok(found) => {
                    tracing::warn!(?found, "closed what a dead process left open");
                    self.wake.notify_one();
                }
                Err(error) => tracing::error!(%error, "looking for what dead processes left open"),
            }
        }
    }
}
