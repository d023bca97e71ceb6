//! Tones and levels: sine generators, and the two rulers (level and power at a frequency) used by detectors and tests.
//!
//! Levels are dBm0 as ITU-T G.711 §4 fixes them: a full-scale sine of the digital line is +3.14 dBm0, so 0 dBm0 is a
//! sine of 3.14 dB below full scale. Never allocates after a tone was made.

use std::f32::consts::{SQRT_2, TAU};

use crate::RATE;
use crate::dtmf;

const FULL_SCALE: f32 = 32768.0;
#[expect(clippy::approx_constant, reason = "a level, not a circle")]
const FULL_SCALE_DBM0: f32 = 3.14;
const MAX_PARTS: usize = 4;

/// The lowest level [`level_dbm0`] and [`power_at`] answer, for digital silence.
pub const SILENCE_DBM0: f32 = -100.0;

/// The peak amplitude, in 16-bit steps, of a sine of that level.
pub fn dbm0_to_amplitude(dbm0: f32) -> f32 {
    FULL_SCALE * 10f32.powf((dbm0 - FULL_SCALE_DBM0) / 20.0)
}

/// The level, in dBm0, of a sine of that mean square (16-bit steps squared).
pub(crate) fn mean_square_dbm0(mean_square: f32) -> f32 {
    let amplitude = mean_square.max(0.0).sqrt() * SQRT_2;
    (20.0 * (amplitude / FULL_SCALE).max(1e-9).log10() + FULL_SCALE_DBM0).max(SILENCE_DBM0)
}

/// The level of some samples in dBm0: that of a sine with the same mean power. [`SILENCE_DBM0`] for nothing or zeros.
pub fn level_dbm0(pcm: &[i16]) -> f32 {
    if pcm.is_empty() {
        return SILENCE_DBM0;
    }
    let energy: i64 = pcm.iter().map(|&sample| i64::from(sample) * i64::from(sample)).sum();
    mean_square_dbm0((energy as f64 / pcm.len() as f64) as f32)
}

/// The level in dBm0 of the sine part at `freq` Hz, by the Goertzel recurrence over all samples given. The resolution
/// is 8000 / length Hz.
pub fn power_at(pcm: &[i16], freq: f32) -> f32 {
    if pcm.is_empty() {
        return SILENCE_DBM0;
    }
    let omega = std::f64::consts::TAU * f64::from(freq) / f64::from(RATE);
    let coefficient = 2.0 * omega.cos();
    let (mut last, mut before) = (0.0f64, 0.0f64);
    for &sample in pcm {
        let next = f64::from(sample) + coefficient * last - before;
        before = last;
        last = next;
    }
    let power = last * last + before * before - coefficient * last * before;
    let length = pcm.len() as f64;
    mean_square_dbm0((2.0 * power / (length * length)) as f32)
}

/// One sine: a phasor turned by a fixed angle a sample.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Part {
    cos: f32,
    sin: f32,
    turn_cos: f32,
    turn_sin: f32,
    amplitude: f32,
}

/// A sum of up to four sines that goes on without a break from one [`Tone::fill`] to the next.
#[derive(Clone, PartialEq, Debug)]
pub struct Tone {
    parts: [Part; MAX_PARTS],
    used: usize,
}

impl Tone {
    /// A tone of `(Hz, dBm0)` parts, all starting at phase zero. Parts after the fourth are left out.
    pub fn new(freqs: &[(f32, f32)]) -> Self {
        let mut parts = [Part::default(); MAX_PARTS];
        for (part, &(freq, dbm0)) in parts.iter_mut().zip(freqs) {
            let angle = TAU * freq / RATE as f32;
            *part = Part {
                cos: 1.0,
                sin: 0.0,
                turn_cos: angle.cos(),
                turn_sin: angle.sin(),
                amplitude: dbm0_to_amplitude(dbm0),
            };
        }
        Self { parts, used: freqs.len().min(MAX_PARTS) }
    }

    /// Writes the next samples, saturating where the parts add up beyond 16 bits.
    pub fn fill(&mut self, out: &mut [i16]) {
        let parts = &mut self.parts[..self.used];
        for sample in out.iter_mut() {
            let mut sum = 0.0;
            for part in parts.iter_mut() {
                sum += part.sin * part.amplitude;
                let cos = part.cos * part.turn_cos - part.sin * part.turn_sin;
                part.sin = part.cos * part.turn_sin + part.sin * part.turn_cos;
                part.cos = cos;
            }
            *sample = sum.round().clamp(-32768.0, 32767.0) as i16;
        }
        for part in parts {
            // Rounding lets the phasor drift off the unit circle; one Newton step per call pulls it back.
            let scale = 1.5 - 0.5 * (part.cos * part.cos + part.sin * part.sin);
            part.cos *= scale;
            part.sin *= scale;
        }
    }
}

/// The two tones of a key (ITU-T Q.23) at -10 dBm0 each, or `None` for what is no key.
pub fn dtmf_tone(c: char) -> Option<Tone> {
    let (row, column) = dtmf::key_frequencies(c)?;
    Some(Tone::new(&[(row, -10.0), (column, -10.0)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(parts: &[(f32, f32)], count: usize) -> Vec<i16> {
        let mut out = vec![0; count];
        Tone::new(parts).fill(&mut out);
        out
    }

    #[test]
    fn levels_are_measured_as_they_are_made() {
        for dbm0 in [0.0, -10.0, -25.0, -40.0] {
            let pcm = samples(&[(1000.0, dbm0)], 1600);
            assert!((level_dbm0(&pcm) - dbm0).abs() < 0.1, "{dbm0}: {}", level_dbm0(&pcm));
            assert!((power_at(&pcm, 1000.0) - dbm0).abs() < 0.1);
            assert!(power_at(&pcm, 2000.0) < dbm0 - 25.0);
        }
        assert_eq!(level_dbm0(&[0; 160]), SILENCE_DBM0);
        assert_eq!(level_dbm0(&[]), SILENCE_DBM0);
    }

    #[test]
    fn zero_dbm0_is_3_14_db_below_full_scale() {
        let peak = dbm0_to_amplitude(0.0);
        assert!((20.0 * (32768.0 / peak).log10() - FULL_SCALE_DBM0).abs() < 1e-4);
    }

    #[test]
    fn pieces_join_without_a_seam() {
        let whole = samples(&[(440.0, -10.0), (350.0, -13.0)], 1600);
        let mut tone = Tone::new(&[(440.0, -10.0), (350.0, -13.0)]);
        let mut pieces = vec![0; 1600];
        for piece in pieces.chunks_mut(160) {
            tone.fill(piece);
        }
        assert!(whole.iter().zip(&pieces).all(|(a, b)| a.abs_diff(*b) <= 1));
    }

    #[test]
    fn an_hour_neither_grows_nor_fades() {
        let mut tone = Tone::new(&[(1004.0, -10.0)]);
        let mut frame = [0; 160];
        for _ in 0..180_000 {
            tone.fill(&mut frame);
        }
        assert!((level_dbm0(&frame) + 10.0).abs() < 0.2);
    }

    #[test]
    fn loud_parts_saturate_and_extra_parts_are_left_out() {
        let pcm = samples(&[(500.0, 3.0), (500.0, 3.0)], 160);
        assert_eq!(pcm.iter().copied().max(), Some(32767));
        let five = [(500.0, -20.0), (600.0, -20.0), (700.0, -20.0), (800.0, -20.0), (900.0, -20.0)];
        assert_eq!(samples(&five, 160), samples(&five[..4], 160));
        assert_eq!(samples(&[], 160), vec![0; 160]);
    }

    #[test]
    fn a_key_has_its_two_tones() {
        let mut pcm = vec![0; 800];
        dtmf_tone('6').unwrap().fill(&mut pcm);
        assert!((power_at(&pcm, 770.0) + 10.0).abs() < 0.3);
        assert!((power_at(&pcm, 1477.0) + 10.0).abs() < 0.3);
        assert!(dtmf_tone('x').is_none());
    }
}
