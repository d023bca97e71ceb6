//! The header of a recording's file: RIFF/WAVE, PCM, 8 kHz, mono, 16-bit, exactly 44 bytes before the samples.
//!
//! Owns the layout of those bytes. It never resamples and knows no other format; files are touched by
//! [`crate::driver`], of which [`repair`] is shown here because it belongs to the format.

pub use crate::driver::repair::{RepairError, Repaired, repair};

use crate::RATE;

/// Bytes before the first sample.
pub const HEADER: u64 = 44;
/// Most bytes of samples that one file can hold: both sizes in the header are 32 bits wide.
pub const DATA_MAX: u64 = u32::MAX as u64 - HEADER;
/// Bytes of one second of samples.
pub const BYTES_PER_SECOND: u64 = RATE as u64 * 2;

/// The header of a file with `data` bytes of samples; more than [`DATA_MAX`] is written as [`DATA_MAX`].
pub fn header(data: u64) -> [u8; HEADER as usize] {
    let data = u32::try_from(data.min(DATA_MAX)).expect("DATA_MAX fits 32 bits");
    let mut bytes = *b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\x02\0\x10\0data\0\0\0\0";
    bytes[4..8].copy_from_slice(&(data + HEADER as u32 - 8).to_le_bytes());
    bytes[24..28].copy_from_slice(&RATE.to_le_bytes());
    bytes[28..32].copy_from_slice(&(RATE * 2).to_le_bytes());
    bytes[40..44].copy_from_slice(&data.to_le_bytes());
    bytes
}

/// The length of so many bytes of samples, in milliseconds.
pub fn duration_ms(data: u64) -> u64 {
    data * 1000 / BYTES_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_of_wav_agrees() {
        let mut file = header(6).to_vec();
        file.extend([1, 0, 2, 0, 0xff, 0xff]);
        let mut reader = hound::WavReader::new(&file[..]).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 8000, 16));
        assert_eq!(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), [1, 2, -1]);
    }

    #[test]
    fn sizes_never_wrap() {
        let bytes = header(u64::MAX);
        assert_eq!(bytes[4..8], (u32::MAX - 8).to_le_bytes());
        assert_eq!(bytes[40..44], (u32::MAX - 44).to_le_bytes());
    }
}
