//! Sound files to samples: WAV, MP3, Ogg Vorbis and FLAC by symphonia, raw µ-law and A-law by giving them the header
//! they lack. Bounded in bytes by the caller and in seconds here. Blocks, and never
//! panics.

use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::RATE;
use super::resample::RATES;

/// Mono samples, −1 to 1.
#[derive(Debug)]
pub(super) struct Sound {
    /// All of them.
    pub(super) samples: Vec<f32>,
    /// How many make a second.
    pub(super) rate: u32,
}

/// Why a file gives no sound.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// It is longer than allowed.
    TooLong,
    /// It is not what its name says, or damaged.
    Bad(String),
}

/// Decodes a file by its extension (`wav`, `mp3`, `ogg`, `flac`, `ulaw`, `alaw`); at most `max_s` seconds.
pub(super) fn file(bytes: Vec<u8>, extension: &str, max_s: usize) -> Result<Sound, DecodeError> {
    match extension {
        "ulaw" => sound(with_header(bytes, 7), "wav", max_s),
        "alaw" => sound(with_header(bytes, 6), "wav", max_s),
        "mp3" => sound(without_tag(bytes), "mp3", max_s),
        _ => sound(bytes, extension, max_s),
    }
}

/// Decodes a WAV file; one made for a pipe, whose header says nothing of its length, too.
pub(super) fn wav(bytes: Vec<u8>, max_s: usize) -> Result<Sound, DecodeError> {
    sound(with_true_sizes(bytes), "wav", max_s)
}

/// Decoders have slips on damaged data: an overflow that is counted wrong in one build panics in another. Nothing of
/// a failed attempt is used again.
fn sound(bytes: Vec<u8>, extension: &str, max_s: usize) -> Result<Sound, DecodeError> {
    let attempt = AssertUnwindSafe(|| decoded(bytes, extension, max_s));
    catch_unwind(attempt).unwrap_or_else(|_| Err(because("the decoder crashed")))
}

fn decoded(bytes: Vec<u8>, extension: &str, max_s: usize) -> Result<Sound, DecodeError> {
    let mut hint = Hint::new();
    hint.with_extension(extension);
    let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&hint, source, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| bad(&error))?;
    let track = format.default_track(TrackType::Audio).ok_or_else(|| because("it has no sound track"))?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params = params.ok_or_else(|| because("its codec is unknown"))?;
    let id = track.id;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())
        .map_err(|error| bad(&error))?;

    let mut sound = Sound { samples: Vec::new(), rate: 0 };
    let mut piece: Vec<f32> = Vec::new();
    while let Some(packet) = next_packet(format.as_mut())? {
        if packet.track_id != id {
            continue;
        }
        let buffer = match decoder.decode(&packet) {
            Ok(buffer) => buffer,
            // One damaged packet is a click, not the end.
            Err(Error::DecodeError(_)) => continue,
            Err(error) => return Err(bad(&error)),
        };
        let (rate, channels) = (buffer.spec().rate(), buffer.spec().channels().count());
        buffer.copy_to_vec_interleaved(&mut piece);
        sound.add(&piece, rate, channels, max_s)?;
    }
    if sound.samples.is_empty() { Err(because("it holds no sound")) } else { Ok(sound) }
}

impl Sound {
    /// Adds interleaved samples, mixed to mono.
    fn add(&mut self, piece: &[f32], rate: u32, channels: usize, max_s: usize) -> Result<(), DecodeError> {
        if !RATES.contains(&rate) || (self.rate != 0 && self.rate != rate) || channels == 0 {
            return Err(because("its sample rate cannot be used"));
        }
        self.rate = rate;
        // Short of a sample per channel there is nothing to mix.
        let mix = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
        self.samples.extend(piece.chunks_exact(channels).map(mix));
        if self.samples.len() > max_s * rate as usize { Err(DecodeError::TooLong) } else { Ok(()) }
    }
}

fn next_packet(
    format: &mut dyn FormatReader,
) -> Result<Option<symphonia::core::packet::Packet>, DecodeError> {
    match format.next_packet() {
        Ok(packet) => Ok(packet),
        // A file cut short is played as far as it goes.
        Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(bad(&error)),
    }
}

fn bad(error: &Error) -> DecodeError {
    DecodeError::Bad(error.to_string())
}

fn because(reason: &str) -> DecodeError {
    DecodeError::Bad(reason.to_owned())
}

/// Drops the tag before an MP3 (ID3v2.4 §3.1): a picture in it can look like sound.
fn without_tag(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some([b'I', b'D', b'3', _, _, _, a, b, c, d]) = bytes.first_chunk() {
        // Seven bits a byte, so that no size looks like sound.
        let size = [a, b, c, d].into_iter().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f));
        bytes.drain(..(size + 10).min(bytes.len()));
    }
    bytes
}

/// Puts a WAV header for 8 kHz mono before raw bytes; `format` is 6 for A-law, 7 for µ-law (RFC 2361 §4).
fn with_header(bytes: Vec<u8>, format: u16) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX - 100);
    let mut wav = Vec::with_capacity(bytes.len() + 46);
    wav.extend(b"RIFF");
    wav.extend((length + 38).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(18_u32.to_le_bytes());
    wav.extend(format.to_le_bytes());
    wav.extend(1_u16.to_le_bytes());
    wav.extend(RATE.to_le_bytes());
    wav.extend(RATE.to_le_bytes());
    wav.extend([1, 0, 8, 0, 0, 0]);
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    wav.extend(bytes);
    wav
}

/// Corrects the length of a last chunk `data` that claims more than there is.
fn with_true_sizes(mut wav: Vec<u8>) -> Vec<u8> {
    let mut at = 12;
    while let Some(head) = wav.get(at..at + 8) {
        let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let left = wav.len() - at - 8;
        if &head[..4] == b"data" && size > left {
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            wav[at + 4..at + 8].copy_from_slice(&left.to_le_bytes());
            return wav;
        }
        at = at.saturating_add(8).saturating_add(size).saturating_add(size % 2);
    }
    wav
}

#[cfg(test)]
mod tests {
    use super::*;
    use hound::{SampleFormat, WavSpec, WavWriter};

    fn wav_of(rate: u32, channels: u16, bits: u16, samples: &[i32]) -> Vec<u8> {
        let spec =
            WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format: SampleFormat::Int };
        let mut out = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut out, spec).unwrap();
        for sample in samples {
            writer.write_sample(*sample).unwrap();
        }
        writer.finalize().unwrap();
        out.into_inner()
    }

    #[test]
    fn pcm_of_any_width_comes_out_alike() {
        for (bits, half) in [(8, 64), (16, 16_384), (24, 4_194_304), (32, 1_073_741_824)] {
            let wav = wav_of(16_000, 1, bits, &[half; 320]);
            let sound = file(wav, "wav", 10).unwrap();
            assert_eq!((sound.rate, sound.samples.len()), (16_000, 320));
            assert!(sound.samples.iter().all(|s| (s - 0.5).abs() < 0.01), "{bits}: {:?}", sound.samples[0]);
        }
    }

    #[test]
    fn two_channels_are_mixed() {
        let wav = wav_of(8000, 2, 16, &[16_384, 0].repeat(100));
        let sound = file(wav, "wav", 10).unwrap();
        assert_eq!(sound.samples.len(), 100);
        assert!(sound.samples.iter().all(|s| (s - 0.25).abs() < 0.001));
    }

    /// A quarter of a second of 1000 Hz at half of full scale, 16 kHz; the MP3 has a title before it.
    #[test]
    fn compressed_sound_is_read() {
        let files: [(&str, &[u8]); 3] = [
            ("mp3", include_bytes!("fixtures/tone.mp3")),
            ("ogg", include_bytes!("fixtures/tone.ogg")),
            ("flac", include_bytes!("fixtures/tone.flac")),
        ];
        for (extension, bytes) in files {
            let sound = file(bytes.to_vec(), extension, 10).unwrap();
            assert_eq!(sound.rate, 16_000, "{extension}");
            // An encoder may add a frame or two of silence.
            assert!((4000..7500).contains(&sound.samples.len()), "{extension}: {}", sound.samples.len());
            let power: f32 = sound.samples.iter().map(|s| s * s).sum::<f32>() / 4000.0;
            assert!((power - 0.125).abs() < 0.02, "{extension}: {power}");
        }
    }

    #[test]
    fn a_picture_in_a_tag_is_not_played() {
        let mp3 = without_tag(include_bytes!("fixtures/tone.mp3").to_vec());
        // 2^17 bytes of what looks like the beginning of sound.
        let mut tagged = b"ID3\x04\0\0\0\x08\0\0".to_vec();
        tagged.extend([0xff, 0xfb, 0x90, 0x64].repeat(1 << 15));
        tagged.extend(&mp3);
        let (plain, tagged) = (file(mp3, "mp3", 10).unwrap(), file(tagged, "mp3", 10).unwrap());
        assert_eq!(plain.samples, tagged.samples);
        assert!(without_tag(b"ID3\x04\0\0\x7f\x7f\x7f\x7f".to_vec()).is_empty());
    }

    #[test]
    fn raw_telephone_sound_is_read() {
        // G.711, Tables 1a and 2a: the largest positive code words, and the smallest.
        let sound = file(vec![0x80, 0x00, 0xff], "ulaw", 10).unwrap();
        assert_eq!(sound.rate, 8000);
        let heard: Vec<i32> = sound.samples.iter().map(|s| (s * 32_768.0).round() as i32).collect();
        assert_eq!(heard, [32_124, -32_124, 0]);
        let sound = file(vec![0xaa, 0x2a, 0xd5], "alaw", 10).unwrap();
        let heard: Vec<i32> = sound.samples.iter().map(|s| (s * 32_768.0).round() as i32).collect();
        assert_eq!(heard, [32_256, -32_256, 8]);
    }

    #[test]
    fn length_is_bounded() {
        assert_eq!(file(wav_of(8000, 1, 8, &[1; 8001]), "wav", 1).err(), Some(DecodeError::TooLong));
        assert!(file(wav_of(8000, 1, 8, &[1; 8000]), "wav", 1).is_ok());
    }

    #[test]
    fn a_header_made_for_a_pipe_is_read() {
        let mut wav = wav_of(22_050, 1, 16, &[1000; 441]);
        wav[4..8].copy_from_slice(&0x7fff_f024_u32.to_le_bytes());
        wav[40..44].copy_from_slice(&0x7fff_f000_u32.to_le_bytes());
        let sound = super::wav(wav, 10).unwrap();
        assert_eq!((sound.rate, sound.samples.len()), (22_050, 441));
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        for extension in ["wav", "mp3", "ogg", "flac"] {
            for bytes in [Vec::new(), b"RIFF".to_vec(), vec![0; 5000], vec![0xff; 5000]] {
                assert!(matches!(file(bytes, extension, 10), Err(DecodeError::Bad(_))), "{extension}");
            }
        }
        assert!(matches!(file(Vec::new(), "ulaw", 10), Err(DecodeError::Bad(_))));
        assert!(matches!(file(wav_of(1000, 1, 16, &[1; 100]), "wav", 10), Err(DecodeError::Bad(_))));
    }

    #[test]
    fn damage_anywhere_is_no_panic() {
        let good = wav_of(8000, 1, 16, &[500; 64]);
        for at in 0..good.len() {
            for byte in [0x00, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                // Either outcome is right; what counts is that there is one.
                let _ = wav(bytes.clone(), 1);
                bytes.truncate(at);
                let _ = wav(bytes, 1);
            }
        }
    }
}
