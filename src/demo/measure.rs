//! What can be said of a recording without ears: its form, its level, whether someone speaks in a stretch of it, and
//! how alike two recordings of the same words are.

use media::tone::level_dbm0;

/// Samples in the frames that are measured: 20 ms.
const FRAME: usize = 160;
/// Frames louder than this hold speech, dBm0.
const SPEECH_DBM0: f32 = -42.0;
/// How far apart two recordings of one call may have begun, frames of 20 ms.
const LAG_MAX: isize = 50;

/// A mono recording at 8 kHz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sound(Vec<i16>);

impl Sound {
    /// Reads a RIFF WAVE file of 16-bit PCM, mono, 8000 Hz whose sizes are right. The error says what is wrong.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
            return Err("it is no RIFF WAVE file".into());
        }
        if number(4).map(|size| size as usize + 8) != Some(bytes.len()) {
            return Err("the size in its header is not its size".into());
        }
        let mut at = 12;
        let mut format = None;
        while let (Some(id), Some(size)) = (bytes.get(at..at + 4), number(at + 4)) {
            let start = at + 8;
            let chunk = bytes.get(start..start + size as usize).ok_or("a chunk is longer than the file")?;
            match id {
                b"fmt " => format = chunk.get(..16).map(<[u8]>::to_vec),
                b"data" if format.as_deref() == Some(&PCM_8K_MONO) => {
                    let samples = chunk.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
                    return Ok(Self(samples.collect()));
                }
                b"data" => return Err("it is not 16-bit mono at 8000 Hz".into()),
                _ => {}
            }
            at = start + size as usize + size as usize % 2;
        }
        Err("it has no data".into())
    }

    /// Its length.
    pub(super) fn seconds(&self) -> f64 {
        self.0.len() as f64 / 8000.0
    }

    /// The level of the frames in which someone speaks, dBm0; `None` if nobody does.
    pub(super) fn active_level_dbm0(&self) -> Option<f32> {
        let active: Vec<i16> =
            self.frames().filter(|frame| level_dbm0(frame) > SPEECH_DBM0).flatten().copied().collect();
        (!active.is_empty()).then(|| level_dbm0(&active))
    }

    /// Milliseconds with speech between two moments in milliseconds.
    pub(super) fn speech_ms(&self, from_ms: i64, to_ms: i64) -> u32 {
        let frame = |ms: i64| usize::try_from(ms.max(0) / 20).unwrap_or(0);
        let count = frame(to_ms).saturating_sub(frame(from_ms));
        let spoken =
            self.frames().skip(frame(from_ms)).take(count).filter(|frame| level_dbm0(frame) > SPEECH_DBM0);
        20 * u32::try_from(spoken.count()).unwrap_or(u32::MAX)
    }

    /// How alike the loudness of this and another recording moves from a moment on: 1 is the same, 0 unrelated.
    /// The two may have begun up to a second apart.
    pub(super) fn likeness(&self, other: &Self, from_ms: i64) -> f32 {
        let skip = usize::try_from(from_ms.max(0) / 20).unwrap_or(0);
        let envelope = |sound: &Self| -> Vec<f32> {
            let level = |frame: &[i16]| level_dbm0(frame).max(-60.0) + 60.0;
            sound.frames().skip(skip).map(level).collect()
        };
        let (ours, theirs) = (envelope(self), envelope(other));
        let lags = -LAG_MAX..=LAG_MAX;
        lags.map(|lag| correlation(&ours, &theirs, lag)).fold(0.0, f32::max)
    }

    fn frames(&self) -> impl Iterator<Item = &[i16]> {
        self.0.chunks_exact(FRAME)
    }
}

/// Format 1, one channel, 8000 Hz, 16,000 bytes a second, 2 bytes a frame, 16 bits a sample.
const PCM_8K_MONO: [u8; 16] = [1, 0, 1, 0, 0x40, 0x1f, 0, 0, 0x80, 0x3e, 0, 0, 2, 0, 16, 0];

/// Pearson's correlation of two series of which the second is shifted by `lag`; 0 where too little overlaps.
fn correlation(left: &[f32], right: &[f32], lag: isize) -> f32 {
    let shifted = |index: usize| right.get(index.checked_add_signed(lag)?);
    let pairs: Vec<(f32, f32)> =
        left.iter().enumerate().filter_map(|(index, a)| shifted(index).map(|b| (*a, *b))).collect();
    if pairs.len() < 25 {
        return 0.0;
    }
    let count = pairs.len() as f32;
    let (mean_a, mean_b) =
        (pairs.iter().map(|p| p.0).sum::<f32>() / count, pairs.iter().map(|p| p.1).sum::<f32>() / count);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

#[cfg(test)]
mod tests {
    use media::tone::Tone;

    use super::*;

    /// Silence and speech-like bursts: pairs of milliseconds.
    fn bursts(parts: &[(usize, usize)]) -> Vec<i16> {
        let mut samples = Vec::new();
        for (silent, loud) in parts {
            samples.resize(samples.len() + silent * 8, 0);
            let start = samples.len();
            samples.resize(start + loud * 8, 0);
            Tone::new(&[(700.0, -20.0)]).fill(&mut samples[start..]);
        }
        samples
    }

    fn wav(samples: &[i16]) -> Vec<u8> {
        let size = u32::try_from(samples.len() * 2).unwrap();
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((size + 36).to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend(16u32.to_le_bytes());
        bytes.extend(PCM_8K_MONO);
        bytes.extend(b"data");
        bytes.extend(size.to_le_bytes());
        bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
        bytes
    }

    #[test]
    fn files_are_read_and_wrong_ones_named() {
        let good = wav(&[1, -2, 3]);
        assert_eq!(Sound::read(&good), Ok(Sound(vec![1, -2, 3])));
        let mut stereo = good.clone();
        stereo[22] = 2;
        for (bytes, word) in [
            (&good[..good.len() - 1], "size"),
            (&[], "RIFF"),
            (&stereo, "mono"),
            (b"RIFF\x04\x00\x00\x00WAVE", "data"),
        ] {
            assert!(Sound::read(bytes).unwrap_err().contains(word), "{word}");
        }
    }

    #[test]
    fn speech_is_found_where_it_is() {
        let sound = Sound(bursts(&[(500, 400), (1000, 1000)]));
        assert_eq!(sound.speech_ms(0, 500), 0);
        assert_eq!(sound.speech_ms(0, 1500), 400);
        assert_eq!(sound.speech_ms(0, 60_000), 1400);
        assert_eq!(sound.speech_ms(900, 1800), 0);
        assert!((sound.active_level_dbm0().unwrap() + 20.0).abs() < 0.5);
        assert_eq!(Sound(vec![0; 8000]).active_level_dbm0(), None);
    }

    #[test]
    fn the_same_words_are_alike_and_others_are_not() {
        let words = [(300, 250), (80, 500), (200, 120), (400, 700), (100, 300)];
        let ours = Sound(bursts(&words));
        let mut late = vec![0; 8 * 260];
        late.extend(bursts(&words));
        assert!(ours.likeness(&Sound(late), 0) > 0.95);
        let others = Sound(bursts(&[(900, 60), (60, 60), (700, 90), (30, 30), (500, 400)]));
        assert!(ours.likeness(&others, 0) < 0.7, "{}", ours.likeness(&others, 0));
        assert_eq!(ours.likeness(&Sound(vec![0; 24_000]), 0), 0.0);
    }
}
