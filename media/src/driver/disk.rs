//! What the disk has: room, and the bytes of a file.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes that are worth reading back at once.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// Bytes that a program without privileges can still write to the disk that `path` is on.
///
/// # Errors
/// What the system says: there is no such path, for instance.
#[expect(unsafe_code, reason = "the standard library does not ask for free space")]
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a NUL and `found` has room for the whole answer; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so it has filled the answer in.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// SHA-256 of the first `bytes` of a file, read through `buffer`.
pub(super) fn sha256(file: &File, bytes: u64, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..part], at)?;
        digest.update(&buffer[..part]);
        at += part as u64;
    }
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_says_how_much_room_it_has() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert!(free_bytes(Path::new("/nowhere/at/all")).is_err());
        assert!(free_bytes(Path::new("a\0b")).is_err());
    }
}
