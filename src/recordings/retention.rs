//! The end of a recording's time: `recordings.retention_days` after its end, or what its key says instead. The file goes
//! first, here and where it was uploaded to, then the row is marked; the row itself stays for the log. A recording
//! that is being written is never looked at.

use std::io;

use super::{Recordings, RecordingsError};
use crate::model::Timestamp;
use crate::store::recordings::RecordingRow;

/// Recordings read at once.
const BATCH: i64 = 100;

impl Recordings {
    /// Removes every recording that has outlived its time at `now`; says how many. One whose file cannot be removed
    /// is left for the next time.
    ///
    /// # Errors
    /// The database.
    pub async fn sweep(&self, now: Timestamp) -> Result<usize, RecordingsError> {
        let (mut swept, mut after) = (0, (Timestamp(i64::MIN), String::new()));
        loop {
            let rows =
                self.db.outlived_recordings(self.retention_days, now, (after.0, &after.1), BATCH).await?;
            let Some(last) = rows.last() else { return Ok(swept) };
            after = (last.created_at, last.recording.clone());
            for row in &rows {
                if self.remove(row).await {
                    self.db.expire_recording(&row.recording, now).await?;
                    swept += 1;
                }
            }
        }
    }

    /// Removes the bytes of a recording wherever they are; true when none are left.
    async fn remove(&self, row: &RecordingRow) -> bool {
        match tokio::fs::remove_file(self.folder.join(&row.filename)).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(recording = %row.recording, %error, "an outlived recording cannot be removed");
                return false;
            }
        }
        let Some(remote) = self.remote.as_ref().filter(|_| row.uploaded) else { return true };
        match remote.delete(&row.filename).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(recording = %row.recording, %error, "an uploaded recording cannot be removed");
                false
            }
        }
    }
}
