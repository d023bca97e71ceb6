//! Room for recordings. The media's writer refuses to begin one below the floor; this says so to whoever asks how the
//! server is.

use std::path::Path;

/// Whether the disk of `folder` has less room than `floor` bytes. A disk that cannot be asked has other troubles,
/// which are told elsewhere; a floor of 0 is none.
pub fn is_low(folder: &Path, floor: u64) -> bool {
    floor > 0 && media::driver::free_bytes(folder).is_ok_and(|free| free < floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_decides() {
        let folder = std::env::temp_dir();
        assert!(is_low(&folder, u64::MAX));
        assert!(!is_low(&folder, 1));
        assert!(!is_low(&folder, 0));
        assert!(!is_low(Path::new("/nowhere/at/all"), u64::MAX));
    }
}
