//! Making whole the file of a recording that a crash left behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk;
use crate::recorder::Channels;
use crate::wav::{self, HEADER};

/// What [`repair`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repaired {
    /// Size of the file.
    pub bytes: u64,
    /// Its length.
    pub duration_ms: u64,
    /// Its channels.
    pub channels: Channels,
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

/// Makes the sizes in the header match the samples that are there; a sample that is not there in every
/// channel is cut off the end. A whole file stays as it is.
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
    let channels = wav::channels_of(&found).ok_or(RepairError::NotARecording)?;
    let data = (len - HEADER).min(wav::DATA_MAX);
    let data = data - data % wav::block(channels);
    let header = wav::header(channels, data);
    let changed = found != header || len != HEADER + data;
    if changed {
        file.set_len(HEADER + data)?;
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
    }
    let duration_ms = wav::duration_ms(channels, data);
    Ok(Repaired { bytes: HEADER + data, duration_ms, channels, changed })
}

/// SHA-256 of a file, after its bytes are safe on the disk.
///
/// # Errors
/// Whatever the system says.
pub fn checksum(path: &Path) -> io::Result<[u8; 32]> {
    let file = File::open(path)?;
    file.sync_all()?;
    disk::sha256(&file, file.metadata()?.len(), &mut vec![0; disk::READ_BYTES])
}
