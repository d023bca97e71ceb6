//! Making whole the file of a recording that a crash left behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::wav::{self, HEADER};

/// What [`repair`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repaired {
    /// Size of the file.
    pub bytes: u64,
    /// Its length.
    pub duration_ms: u64,
    /// The file was not whole before.
    pub changed: bool,
}

/// Why a file could not be made whole.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// It is not a recording of this crate; it was left as it is.
    #[error("not a recording")]
    NotARecording,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes the sizes in the header match the samples that are there; half a sample at the end is cut off. A whole file
/// stays as it is.
///
/// # Errors
/// [`RepairError`]
pub fn repair(path: &Path) -> Result<Repaired, RepairError> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut found = [0; HEADER as usize];
    if len < HEADER {
        return Err(RepairError::NotARecording);
    }
    file.read_exact_at(&mut found, 0)?;
    let data = ((len - HEADER) & !1).min(wav::DATA_MAX & !1);
    let header = wav::header(data);
    // All but the two sizes is the same in every recording.
    let same = |range: std::ops::Range<usize>| found[range.clone()] == header[range];
    if !(same(0..4) && same(8..40)) {
        return Err(RepairError::NotARecording);
    }
    let changed = found != header || len != HEADER + data;
    if changed {
        file.set_len(HEADER + data)?;
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
    }
    Ok(Repaired { bytes: HEADER + data, duration_ms: wav::duration_ms(data), changed })
}
