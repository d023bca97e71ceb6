//! The header of a recording's file: RIFF/WAVE, PCM, 8 kHz, one or two channels, 16-bit, exactly 44 bytes before the
//! samples.
//!
//! Owns the layout of those bytes. It never resamples and knows no other format; files are touched by
//! [`crate::driver`], of which [`repair`] and [`checksum`] are shown here because they belong to the format.

pub use crate::driver::repair::{RepairError, Repaired, checksum, repair};

use crate::RATE;
use crate::recorder::Channels;

/// Bytes before the first sample.
pub const HEADER: u64 = 44;
/// Most bytes of samples that one file can hold: both sizes in the header are 32 bits wide.
pub const DATA_MAX: u64 = u32::MAX as u64 - HEADER;

/// Bytes of one sample of every channel.
pub const fn block(channels: Channels) -> u64 {
    channels.count() as u64 * 2
}

/// The header of a file with `data` bytes of samples; more than [`DATA_MAX`] is written as [`DATA_MAX`].
pub fn header(channels: Channels, data: u64) -> [u8; HEADER as usize] {
    let data = u32::try_from(data.min(DATA_MAX)).expect("DATA_MAX fits 32 bits");
    let mut bytes = *b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\x02\0\x10\0data\0\0\0\0";
    bytes[4..8].copy_from_slice(&(data + HEADER as u32 - 8).to_le_bytes());
    let (count, block) = (channels.count(), channels.count() * 2);
    bytes[22..24].copy_from_slice(&count.to_le_bytes());
    bytes[24..28].copy_from_slice(&RATE.to_le_bytes());
    bytes[28..32].copy_from_slice(&(RATE * u32::from(block)).to_le_bytes());
    bytes[32..34].copy_from_slice(&block.to_le_bytes());
    bytes[40..44].copy_from_slice(&data.to_le_bytes());
    bytes
}

/// The channels that a header of [`header`]'s form tells of; `None` for any other form.
pub fn channels_of(found: &[u8; HEADER as usize]) -> Option<Channels> {
    let channels = Channels::from_count(u16::from_le_bytes([found[22], found[23]]))?;
    let ours = header(channels, 0);
    // All but the two sizes is the same in every recording.
    (found[0..4] == ours[0..4] && found[8..40] == ours[8..40]).then_some(channels)
}

/// The length of so many bytes of samples, in milliseconds.
pub fn duration_ms(channels: Channels, data: u64) -> u64 {
    data * 1000 / (u64::from(RATE) * block(channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_of_wav_agrees() {
        let mut file = header(Channels::Mono, 6).to_vec();
        file.extend([1, 0, 2, 0, 0xff, 0xff]);
        let mut reader = hound::WavReader::new(&file[..]).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 8000, 16));
        assert_eq!(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), [1, 2, -1]);
    }

    #[test]
    fn a_reader_of_wav_agrees_on_two_channels() {
        let mut file = header(Channels::Stereo, 8).to_vec();
        file.extend([1, 0, 2, 0, 0xff, 0xff, 4, 0]);
        assert_eq!(channels_of(file.first_chunk().unwrap()), Some(Channels::Stereo));
        let mut reader = hound::WavReader::new(&file[..]).unwrap();
        assert_eq!((reader.spec().channels, reader.duration()), (2, 2));
        assert_eq!(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), [1, 2, -1, 4]);
        assert_eq!(duration_ms(Channels::Stereo, 32_000), 1000);
        file[22] = 3;
        assert_eq!(channels_of(file.first_chunk().unwrap()), None);
    }

    #[test]
    fn sizes_never_wrap() {
        let bytes = header(Channels::Mono, u64::MAX);
        assert_eq!(bytes[4..8], (u32::MAX - 8).to_le_bytes());
        assert_eq!(bytes[40..44], (u32::MAX - 44).to_le_bytes());
    }
}
