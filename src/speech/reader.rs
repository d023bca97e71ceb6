//! What services answer, as samples: raw PCM, µ-law or WAV as it comes, everything else once it is whole. Pure; takes
//! bytes cut anywhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use media::Codec;
use serde::Deserialize;

use super::{SPEECH_MAX_S, SpeechError, decode};
use crate::provider::Trouble;

/// Most bytes of an answer: ten minutes at 48 kHz, in base64.
const BYTES_MAX: usize = SPEECH_MAX_S * 48_000 * 2 * 4 / 3;
/// 16-bit samples.
const FULL_SCALE: f32 = 32_768.0;
/// Longest head of a WAV file before its sound.
const HEAD_MAX: usize = 4096;

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Headerless 16-bit little-endian mono at this rate. A WAV header, where one comes, is believed instead.
    Pcm(u32),
    /// Headerless µ-law, 8 kHz.
    Ulaw,
    /// JSON with a WAV file in base64 in `audioContent`.
    Google,
}

/// Reads one answer.
pub(super) struct Reader {
    state: State,
    rate: u32,
    bytes: usize,
}

enum State {
    /// Not known yet whether a header comes, or even, where that is true, an MP3 file.
    Start(Vec<u8>, Form, bool),
    Pcm(Vec<u8>),
    Ulaw(Codec),
    /// Kept until the end: a file of this extension.
    Whole(Vec<u8>, &'static str),
    Json(Vec<u8>),
}

#[derive(Deserialize)]
struct GoogleAnswer {
    #[serde(rename = "audioContent")]
    audio: String,
}

impl Reader {
    /// For an answer of this media type to a request for `form`.
    ///
    /// # Errors
    /// [`Trouble::Answer`] for what is no sound.
    pub(super) fn new(form: Form, kind: &str) -> Result<Self, Trouble> {
        let rate = match form {
            Form::Pcm(rate) => rate,
            Form::Ulaw | Form::Google => super::RATE,
        };
        let state = match (form, kind) {
            (Form::Google, "application/json") => State::Json(Vec::new()),
            (Form::Google, _) => return Err(Trouble::Answer("something else than JSON")),
            (_, "audio/ogg" | "application/ogg") => State::Whole(Vec::new(), "ogg"),
            (_, "audio/flac" | "audio/x-flac") => State::Whole(Vec::new(), "flac"),
            (_, "" | "application/octet-stream" | "binary/octet-stream") => {
                State::Start(Vec::new(), form, false)
            }
            (_, kind) if kind.starts_with("audio/") => {
                State::Start(Vec::new(), form, matches!(kind, "audio/mpeg" | "audio/mp3"))
            }
            _ => return Err(Trouble::Answer("something else than sound")),
        };
        Ok(Self { state, rate, bytes: 0 })
    }

    /// Samples a second; certain once samples have come.
    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// The next bytes; the samples that are whole.
    ///
    /// # Errors
    /// [`Trouble::Answer`] for what is no sound, or too much of it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<f32>, Trouble> {
        self.bytes += bytes.len();
        if self.bytes > BYTES_MAX {
            return Err(Trouble::Answer("too much"));
        }
        match &mut self.state {
            State::Start(head, ..) => {
                head.extend_from_slice(bytes);
                self.begin(false)
            }
            State::Pcm(odd) => Ok(pcm(odd, bytes)),
            State::Ulaw(codec) => Ok(companded(*codec, bytes)),
            State::Whole(whole, _) | State::Json(whole) => {
                whole.extend_from_slice(bytes);
                Ok(Vec::new())
            }
        }
    }

    /// The end: what was kept until now.
    ///
    /// # Errors
    /// [`SpeechError::Failed`] for what is no sound.
    pub(super) fn finish(mut self) -> Result<(Vec<f32>, u32), SpeechError> {
        let mut samples = self.begin(true).map_err(|trouble| SpeechError::Failed(trouble.to_string()))?;
        let decoded = match self.state {
            State::Start(..) | State::Pcm(_) | State::Ulaw(_) => return Ok((samples, self.rate)),
            State::Whole(whole, extension) => decode::file(whole, extension, SPEECH_MAX_S),
            State::Json(json) => {
                let bad = |what: &str| SpeechError::Failed(format!("it answered {what}"));
                let answer: GoogleAnswer = serde_json::from_slice(&json).map_err(|_| bad("other JSON"))?;
                let wav = STANDARD.decode(answer.audio).map_err(|_| bad("no base64"))?;
                return whole_wav(&wav);
            }
        };
        let sound = decoded.map_err(|error| match error {
            decode::DecodeError::TooLong => SpeechError::TooLong,
            decode::DecodeError::Bad(reason) => SpeechError::Failed(reason),
        })?;
        samples.extend(sound.samples);
        Ok((samples, sound.rate))
    }

    /// Decides what the first bytes are, once there are enough of them.
    fn begin(&mut self, at_end: bool) -> Result<Vec<f32>, Trouble> {
        let State::Start(head, form, compressed) = &mut self.state else { return Ok(Vec::new()) };
        if head.len() < 12 && !at_end {
            return Ok(Vec::new());
        }
        if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE") {
            return match wav_head(head)? {
                Some(wav) => {
                    let rest = head.split_off(wav.length);
                    self.rate = wav.rate;
                    self.go(wav.codec, &rest)
                }
                None if at_end || head.len() > HEAD_MAX => Err(Trouble::Answer("a damaged WAV file")),
                None => Ok(Vec::new()),
            };
        }
        // Some servers answer MP3 whatever they are asked for.
        let frame = matches!(head.as_slice(), [0xff, second, ..] if second & 0xf6 == 0xf2);
        if *compressed && (head.starts_with(b"ID3") || frame) {
            self.state = State::Whole(std::mem::take(head), "mp3");
            return Ok(Vec::new());
        }
        if matches!(head.first(), Some(b'{' | b'<')) && head.iter().take(12).all(|b| (9..127).contains(b)) {
            return Err(Trouble::Answer("text instead of sound"));
        }
        let codec = (*form == Form::Ulaw).then_some(Codec::Pcmu);
        let rest = std::mem::take(head);
        self.go(codec, &rest)
    }

    fn go(&mut self, codec: Option<Codec>, rest: &[u8]) -> Result<Vec<f32>, Trouble> {
        self.state = codec.map_or(State::Pcm(Vec::new()), State::Ulaw);
        // They were counted when they came.
        self.bytes -= rest.len();
        self.push(rest)
    }
}

/// A WAV file that is there as a whole.
fn whole_wav(wav: &[u8]) -> Result<(Vec<f32>, u32), SpeechError> {
    let failed = |trouble: Trouble| SpeechError::Failed(trouble.to_string());
    if !wav.starts_with(b"RIFF") {
        return Err(failed(Trouble::Answer("no WAV file")));
    }
    let mut reader = Reader::new(Form::Pcm(super::RATE), "audio/wav").map_err(failed)?;
    let mut samples = reader.push(wav).map_err(failed)?;
    let (rest, rate) = reader.finish()?;
    samples.extend(rest);
    Ok((samples, rate))
}

/// A WAV file's head: how it is coded (16-bit PCM without one), its rate, and where the sound begins.
struct WavHead {
    codec: Option<Codec>,
    rate: u32,
    length: usize,
}

fn wav_head(head: &[u8]) -> Result<Option<WavHead>, Trouble> {
    let mut at = 12;
    let mut found: Option<(Option<Codec>, u32)> = None;
    while let Some(chunk) = head.get(at..at + 8) {
        let size = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
        if &chunk[..4] == b"data" {
            let (codec, rate) = found.ok_or(Trouble::Answer("a damaged WAV file"))?;
            return Ok(Some(WavHead { codec, rate, length: at + 8 }));
        }
        if &chunk[..4] == b"fmt " {
            let Some(fmt) = head.get(at + 8..at + 24) else { return Ok(None) };
            let word = |at: usize| u16::from_le_bytes([fmt[at], fmt[at + 1]]);
            let rate = u32::from_le_bytes([fmt[4], fmt[5], fmt[6], fmt[7]]);
            let codec = match (word(0), word(2), word(14)) {
                (1 | 0xfffe, 1, 16) => None,
                (7, 1, 8) => Some(Codec::Pcmu),
                (6, 1, 8) => Some(Codec::Pcma),
                _ => return Err(Trouble::Answer("a WAV file of another kind")),
            };
            found = Some((codec, rate));
        }
        at = at.saturating_add(8).saturating_add(size).saturating_add(size % 2);
        if at > HEAD_MAX {
            return Err(Trouble::Answer("a damaged WAV file"));
        }
    }
    Ok(None)
}

/// Samples; a byte that is half of one waits for the other.
fn pcm(odd: &mut Vec<u8>, bytes: &[u8]) -> Vec<f32> {
    odd.extend_from_slice(bytes);
    let whole = odd.len() / 2 * 2;
    let pairs = odd[..whole].chunks_exact(2);
    let samples = pairs.map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / FULL_SCALE).collect();
    odd.drain(..whole);
    samples
}

fn companded(codec: Codec, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0; bytes.len()];
    codec.decode(bytes, &mut out);
    out.into_iter().map(|sample| f32::from(sample) / FULL_SCALE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(format: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut out = b"RIFF\xff\xff\xff\xffWAVEjunk\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        out.extend(format.to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        out.extend(rate.to_le_bytes());
        out.extend((rate * u32::from(bits / 8)).to_le_bytes());
        out.extend((bits / 8).to_le_bytes());
        out.extend(bits.to_le_bytes());
        out.extend(b"data\xff\xff\xff\xff");
        out.extend(data);
        out
    }

    /// The answer cut into pieces of `size`.
    fn read(form: Form, kind: &str, body: &[u8], size: usize) -> Result<(Vec<f32>, u32), SpeechError> {
        let failed = |trouble: Trouble| SpeechError::Failed(trouble.to_string());
        let mut reader = Reader::new(form, kind).map_err(failed)?;
        let mut samples = Vec::new();
        for piece in body.chunks(size) {
            samples.extend(reader.push(piece).map_err(failed)?);
        }
        let (rest, rate) = reader.finish()?;
        samples.extend(rest);
        Ok((samples, rate))
    }

    fn numbers(samples: &[f32]) -> Vec<i32> {
        samples.iter().map(|s| (s * FULL_SCALE) as i32).collect()
    }

    #[test]
    fn pieces_may_be_cut_anywhere() {
        let data: Vec<u8> = (0..100_i16).flat_map(|n| (n * 300).to_le_bytes()).collect();
        let expected: Vec<i32> = (0..100).map(|n| n * 300).collect();
        let file = wav(1, 16_000, 16, &data);
        for size in 1..60 {
            let (samples, rate) = read(Form::Pcm(24_000), "audio/pcm", &data, size).unwrap();
            assert_eq!((numbers(&samples), rate), (expected.clone(), 24_000), "{size}");
            let (samples, rate) = read(Form::Pcm(24_000), "audio/wav", &file, size).unwrap();
            assert_eq!((numbers(&samples), rate), (expected.clone(), 16_000), "{size}");
        }
    }

    #[test]
    fn companded_sound_is_read() {
        let (samples, rate) = read(Form::Ulaw, "audio/basic", &[0xff; 20], 3).unwrap();
        assert_eq!((numbers(&samples), rate), (vec![0; 20], 8000));
        let (samples, _) = read(Form::Pcm(8000), "audio/x-wav", &wav(7, 8000, 8, &[0x80; 20]), 5).unwrap();
        assert_eq!(numbers(&samples), [32_124; 20]);
        let (samples, _) = read(Form::Pcm(8000), "audio/x-wav", &wav(6, 8000, 8, &[0xaa; 20]), 5).unwrap();
        assert_eq!(numbers(&samples), [32_256; 20]);
    }

    #[test]
    fn sound_in_json_is_read() {
        let data: Vec<u8> = [1000_i16; 50].iter().flat_map(|n| n.to_le_bytes()).collect();
        let body = format!("{{\"audioContent\":\"{}\"}}", STANDARD.encode(wav(1, 8000, 16, &data)));
        let (samples, rate) = read(Form::Google, "application/json", body.as_bytes(), 11).unwrap();
        assert_eq!((numbers(&samples), rate), (vec![1000; 50], 8000));
        for body in ["{}", "", "{\"audioContent\":\"?\"}", "{\"audioContent\":\"AAAA\"}"] {
            assert!(read(Form::Google, "application/json", body.as_bytes(), 11).is_err(), "{body}");
        }
    }

    #[test]
    fn mp3_is_read_where_it_was_not_asked_for() {
        let mp3 = include_bytes!("fixtures/tone.mp3");
        let (samples, rate) = read(Form::Pcm(24_000), "audio/mpeg", mp3, 100).unwrap();
        assert!(rate == 16_000 && samples.len() > 4000, "{rate} {}", samples.len());
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        for (kind, body) in [
            ("text/html", "<html>"),
            ("application/json", "{}"),
            ("audio/pcm", "{\"error\":{\"message\":\"no\"}}"),
            ("", "<?xml version='1.0'?><Error/>"),
        ] {
            assert!(read(Form::Pcm(24_000), kind, body.as_bytes(), 4).is_err(), "{kind} {body}");
        }
        assert!(read(Form::Google, "audio/wav", b"RIFF", 4).is_err());
        assert!(read(Form::Pcm(8000), "audio/wav", &wav(3, 8000, 32, &[0; 64]), 7).is_err());
        assert!(read(Form::Pcm(8000), "audio/wav", b"RIFF0000WAVEfmt ", 7).is_err());
        assert!(read(Form::Pcm(8000), "audio/wav", &b"RIFF0000WAVEabcd\xff\xff\xff\x7f"[..], 7).is_err());
    }
}
