//! Any rate to the telephone's 8 kHz, with everything above 4 kHz taken out first: what is left there would come
//! back as a whistle. Whole clips ([`to_8k`]) or piece by piece ([`Thinner`]), away from the media threads.

use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use super::RATE;

/// Rates that are taken, Hz. The filter's length follows from the ratio of the rates; odd rates above this would
/// cost memory without end.
pub(super) const RATES: std::ops::RangeInclusive<u32> = 4000..=192_000;
/// Input frames a step; the filter is at least this long, which sets how steep it is.
const CHUNK: usize = 1024;

/// Mono samples at `rate` as mono samples at 8 kHz. `None` for a rate that is not taken.
pub(super) fn to_8k(samples: Vec<f32>, rate: u32) -> Option<Vec<f32>> {
    if rate == RATE || samples.is_empty() {
        return Some(samples);
    }
    if !RATES.contains(&rate) {
        return None;
    }
    let (from, to) = (usize::try_from(rate).ok()?, usize::try_from(RATE).ok()?);
    let window = WindowFunction::BlackmanHarris2;
    let mut resampler = Fft::<f32>::new_custom(from, to, CHUNK, 1, 1, window, FixedSync::Both).ok()?;
    let frames = samples.len();
    let input = InterleavedOwned::new_from(samples, 1, frames).ok()?;
    Some(resampler.process_all(&input, frames, None).ok()?.take_data())
}

/// Sound that comes in pieces, brought to 8 kHz as it comes. What goes in is heard half a filter later (about 20 ms);
/// the pieces together are as long as they should be.
pub(super) struct Thinner {
    fft: Option<Fft<f32>>,
    rate: u64,
    waiting: Vec<f32>,
    /// Samples of the filter's start that are still to be left out.
    trim: usize,
    taken: u64,
    given: u64,
}

impl Thinner {
    /// For this rate; `None` for one that is not taken.
    pub(super) fn new(rate: u32) -> Option<Self> {
        if !RATES.contains(&rate) {
            return None;
        }
        let (from, to) = (usize::try_from(rate).ok()?, usize::try_from(RATE).ok()?);
        let window = WindowFunction::BlackmanHarris2;
        let fft = match rate == RATE {
            true => None,
            false => Some(Fft::<f32>::new_custom(from, to, CHUNK, 1, 1, window, FixedSync::Both).ok()?),
        };
        let trim = fft.as_ref().map_or(0, Resampler::output_delay);
        Some(Self { fft, rate: u64::from(rate), waiting: Vec::new(), trim, taken: 0, given: 0 })
    }

    /// The next piece.
    pub(super) fn push(&mut self, samples: &[f32]) -> Vec<f32> {
        self.taken += samples.len() as u64;
        if self.fft.is_none() {
            return samples.to_vec();
        }
        self.waiting.extend_from_slice(samples);
        self.turn()
    }

    /// What the filter still holds, once nothing more comes.
    pub(super) fn finish(&mut self) -> Vec<f32> {
        let Some(fft) = &self.fft else { return Vec::new() };
        let expected = (self.taken * u64::from(RATE)).div_ceil(self.rate);
        let step = fft.input_frames_next();
        let mut out = Vec::new();
        while self.given < expected {
            // Silence pushes the rest through.
            let room = step - self.waiting.len() % step;
            self.waiting.extend(std::iter::repeat_n(0.0, room));
            let before = self.given;
            out.extend(self.turn());
            if self.given == before && self.trim == 0 {
                break;
            }
        }
        let over = usize::try_from(self.given.saturating_sub(expected)).unwrap_or(0);
        out.truncate(out.len().saturating_sub(over));
        out
    }

    /// Filters what is there in whole steps.
    fn turn(&mut self) -> Vec<f32> {
        let mut out = Vec::new();
        let Some(fft) = &mut self.fft else { return out };
        let step = fft.input_frames_next();
        let whole = self.waiting.len() / step * step;
        for piece in self.waiting[..whole].chunks_exact(step) {
            let Ok(input) = InterleavedOwned::new_from(piece.to_vec(), 1, step) else { continue };
            let Ok(made) = fft.process(&input, None) else { continue };
            let mut made = made.take_data();
            let late = self.trim.min(made.len());
            self.trim -= late;
            made.drain(..late);
            out.extend(made);
        }
        self.waiting.drain(..whole);
        self.given += out.len() as u64;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    fn tone(hz: f64, rate: u32) -> Vec<f32> {
        (0..rate).map(|n| (0.5 * (TAU * hz * f64::from(n) / f64::from(rate)).sin()) as f32).collect()
    }

    /// Level against the tone that went in, dB, away from the ends.
    fn gain_db(hz: f64, rate: u32) -> f64 {
        let out = to_8k(tone(hz, rate), rate).unwrap();
        let middle = &out[1000..out.len() - 1000];
        let power: f64 = middle.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / middle.len() as f64;
        10.0 * (power / 0.125).max(1e-20).log10()
    }

    #[test]
    fn the_voice_band_passes_unchanged() {
        for rate in [16_000, 22_050, 24_000, 44_100, 48_000] {
            for hz in [100.0, 300.0, 1000.0, 2000.0, 3000.0, 3400.0] {
                let gain = gain_db(hz, rate);
                assert!(gain.abs() < 0.1, "{hz} Hz at {rate}: {gain:.3} dB");
            }
        }
    }

    #[test]
    fn what_would_whistle_is_gone() {
        for rate in [16_000, 22_050, 24_000, 44_100, 48_000] {
            for hz in [4600.0, 5000.0, 5500.0, 6500.0, 7900.0] {
                let gain = gain_db(hz, rate);
                assert!(gain < -80.0, "{hz} Hz at {rate}: {gain:.1} dB");
            }
        }
    }

    #[test]
    fn lower_rates_come_up() {
        let gain = gain_db(1000.0, 11_025);
        assert!(gain.abs() < 0.1, "{gain}");
        assert_eq!(to_8k(tone(440.0, 4000), 4000).unwrap().len(), 8000);
    }

    #[test]
    fn length_and_place_are_kept() {
        for rate in [11_025, 16_000, 22_050, 44_100, 48_000, 96_000] {
            let second = usize::try_from(rate).unwrap();
            let mut samples = vec![0.0; 2 * second];
            samples[second] = 1.0;
            let out = to_8k(samples, rate).unwrap();
            assert_eq!(out.len(), 16_000, "{rate}");
            let peak = (0..out.len()).max_by(|a, b| out[*a].abs().total_cmp(&out[*b].abs())).unwrap();
            assert!(peak.abs_diff(8000) <= 1, "{rate}: {peak}");
        }
    }

    #[test]
    fn odd_rates_do_not_crash() {
        assert_eq!(to_8k(vec![0.1; 10], 192_001), None);
        assert_eq!(to_8k(vec![0.1; 10], 0), None);
        assert_eq!(to_8k(Vec::new(), 44_100), Some(Vec::new()));
        assert_eq!(to_8k(vec![0.1; 3], 8000).unwrap().len(), 3);
        assert!(to_8k(vec![0.1; 1], 44_101).is_some_and(|out| out.len() <= 1));
    }

    #[test]
    fn pieces_come_out_as_the_whole_does() {
        for rate in [8000, 16_000, 22_050, 24_000, 44_100] {
            let sound = tone(440.0, rate);
            let whole = to_8k(sound.clone(), rate).unwrap();
            for size in [1, 7, 480, 5000] {
                let mut thinner = Thinner::new(rate).unwrap();
                let mut out: Vec<f32> = sound.chunks(size).flat_map(|piece| thinner.push(piece)).collect();
                out.extend(thinner.finish());
                assert_eq!(out.len(), whole.len(), "{rate} in pieces of {size}");
                let worst = out.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-4, "{rate} in pieces of {size}: {worst}");
            }
        }
        assert!(Thinner::new(192_001).is_none());
        let mut thinner = Thinner::new(24_000).unwrap();
        assert_eq!(thinner.finish(), Vec::<f32>::new());
    }

    #[test]
    fn the_first_sound_does_not_wait_for_much() {
        let mut thinner = Thinner::new(24_000).unwrap();
        // 100 ms in; most of it is out.
        let out = thinner.push(&tone(440.0, 24_000)[..2400]);
        assert!(out.len() > 400, "{}", out.len());
    }
}
