//! Packet loss concealment: what is played where a packet is missing.
//!
//! Owns the last 48.75 ms of what was played and the pitch period found in it, after the manner of ITU-T G.711
//! Appendix I: the last period is repeated, at full level for 10 ms, then 20 % weaker each 10 ms, silent after 60 ms;
//! the sound that follows a gap is overlapped with the repetition. It adds no delay, looks only backwards, and never
//! allocates. The pitch search runs once a gap.

/// Samples of the past that are kept: 48.75 ms.
const HISTORY: usize = 390;
/// The shortest and longest pitch period: 5 ms (200 Hz) and 15 ms (66 Hz).
const MIN_PITCH: usize = 40;
const MAX_PITCH: usize = 120;
/// The stretch that is compared when the period is searched: 20 ms.
const COMPARED: usize = 160;
/// Full level for this long, then the slope below.
const FULL_LEVEL: usize = 80;
/// A fifth less each 10 ms.
const SLOPE: f32 = 0.2 / 80.0;
/// Samples over which a seam at the start of a gap is levelled.
const SEAM: usize = 16;
/// The longest overlap at the end of a gap: 10 ms.
const MAX_OVERLAP: usize = 80;

/// Conceals the gaps of one direction of one leg. Samples are 16-bit linear at 8 kHz.
#[derive(Clone, Debug)]
pub struct Concealer {
    history: [i16; HISTORY],
    /// One pitch period, made ready to be repeated.
    period: [f32; MAX_PITCH],
    pitch: usize,
    /// Samples made since the gap began; 0 outside a gap.
    made: usize,
    /// The step from the last real sample to the first repeated one.
    seam: f32,
}

impl Default for Concealer {
    fn default() -> Self {
        Self::new()
    }
}

impl Concealer {
    /// A concealer that has heard nothing: its first gap is silence.
    pub fn new() -> Self {
        Self { history: [0; HISTORY], period: [0.0; MAX_PITCH], pitch: MIN_PITCH, made: 0, seam: 0.0 }
    }

    /// Takes real sound. After a gap, its beginning is overlapped in place with the repetition.
    pub fn good(&mut self, frame: &mut [i16]) {
        if self.made > 0 {
            let gap_ms = self.made / 8;
            let overlap = (self.pitch / 4 + (gap_ms / 10).saturating_sub(1) * 32)
                .clamp(30, MAX_OVERLAP)
                .min(frame.len());
            for (index, sample) in frame[..overlap].iter_mut().enumerate() {
                let weight = (index as f32 + 0.5) / overlap as f32;
                let repeated = self.next_sample();
                *sample = (f32::from(*sample) * weight + repeated * (1.0 - weight)).round() as i16;
            }
            self.made = 0;
        }
        self.remember(frame);
    }

    /// Fills `out` with the next stretch of the gap.
    pub fn conceal(&mut self, out: &mut [i16]) {
        if self.made == 0 {
            self.begin_gap();
        }
        for sample in out.iter_mut() {
            *sample = self.next_sample().round().clamp(-32768.0, 32767.0) as i16;
        }
        self.remember(out);
    }

    /// Whether a gap has gone on so long that only silence is left of it.
    pub fn muted(&self) -> bool {
        self.gain() <= 0.0
    }

    fn gain(&self) -> f32 {
        (1.0 - self.made.saturating_sub(FULL_LEVEL) as f32 * SLOPE).max(0.0)
    }

    fn next_sample(&mut self) -> f32 {
        let gain = self.gain();
        let mut sample = self.period[self.made % self.pitch];
        if self.made < SEAM {
            sample += self.seam * (1.0 - (self.made as f32 + 1.0) / SEAM as f32);
        }
        self.made += 1;
        sample * gain
    }

    fn remember(&mut self, frame: &[i16]) {
        let new = frame.len().min(HISTORY);
        self.history.copy_within(new.., 0);
        self.history[HISTORY - new..].copy_from_slice(&frame[frame.len() - new..]);
    }

    fn begin_gap(&mut self) {
        self.pitch = self.find_pitch();
        let (pitch, last) = (self.pitch, HISTORY - self.pitch);
        for (index, sample) in self.period[..pitch].iter_mut().enumerate() {
            *sample = f32::from(self.history[last + index]);
        }
        // The end of the period leads over into what came before its beginning, so that the repetition has no seam.
        let overlap = pitch / 4;
        for index in 0..overlap {
            let weight = (index as f32 + 1.0) / overlap as f32;
            let at = pitch - overlap + index;
            let earlier = f32::from(self.history[last - overlap + index]);
            self.period[at] = self.period[at] * (1.0 - weight) + earlier * weight;
        }
        self.seam = f32::from(self.history[HISTORY - 1]) - f32::from(self.history[last - 1]);
    }

    /// The lag with the highest normalised correlation: every second lag and sample first, then its neighbours.
    fn find_pitch(&self) -> usize {
        let mut best = (MIN_PITCH, f32::MIN);
        for lag in (MIN_PITCH..=MAX_PITCH).step_by(2) {
            let score = self.likeness(lag, 2);
            if score > best.1 {
                best = (lag, score);
            }
        }
        let around = best.0.saturating_sub(1).max(MIN_PITCH)..=(best.0 + 1).min(MAX_PITCH);
        let mut fine = (best.0, f32::MIN);
        for lag in around {
            let score = self.likeness(lag, 1);
            if score > fine.1 {
                fine = (lag, score);
            }
        }
        fine.0
    }

    fn likeness(&self, lag: usize, step: usize) -> f32 {
        let start = HISTORY - COMPARED;
        let (mut product, mut energy) = (0.0f32, 1.0f32);
        for at in (start..HISTORY).step_by(step) {
            let (now, before) = (f32::from(self.history[at]), f32::from(self.history[at - lag]));
            product += now * before;
            energy += before * before;
        }
        product / energy.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{Tone, level_dbm0};

    fn heard(concealer: &mut Concealer, tone: &mut Tone, frames: usize) -> Vec<i16> {
        let mut all = Vec::new();
        for _ in 0..frames {
            let mut frame = [0; 160];
            tone.fill(&mut frame);
            concealer.good(&mut frame);
            all.extend(frame);
        }
        all
    }

    fn largest_step(pcm: &[i16]) -> u16 {
        pcm.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap_or(0)
    }

    #[test]
    fn a_lost_frame_of_a_steady_tone_is_hardly_heard() {
        let mut concealer = Concealer::new();
        let mut tone = Tone::new(&[(150.0, -10.0)]);
        let mut all = heard(&mut concealer, &mut tone, 4);
        let mut gap = [0; 160];
        concealer.conceal(&mut gap);
        all.extend(gap);
        let lost = level_dbm0(&gap);
        tone.fill(&mut [0; 160]);
        let normal = largest_step(&all[..640]);
        all.extend(heard(&mut concealer, &mut tone, 2));
        assert!((lost + 10.0).abs() < 1.5, "{lost}");
        assert!(largest_step(&all) < normal * 2, "{} against {normal}", largest_step(&all));
    }

    #[test]
    fn a_gap_fades_by_a_fifth_each_10_ms_and_ends_after_60() {
        let mut concealer = Concealer::new();
        heard(&mut concealer, &mut Tone::new(&[(200.0, -10.0)]), 4);
        let mut gap = [0; 640];
        concealer.conceal(&mut gap);
        let first = level_dbm0(&gap[..80]);
        for (index, share) in [1.0f32, 0.9, 0.7, 0.5, 0.3, 0.1].into_iter().enumerate() {
            let level = level_dbm0(&gap[index * 80..(index + 1) * 80]);
            assert!((level - first - 20.0 * share.log10()).abs() < 1.5, "{index}: {level}");
        }
        assert!(gap[480..].iter().all(|&sample| sample == 0));
        assert!(concealer.muted());
    }

    #[test]
    fn sound_after_a_long_gap_fades_in() {
        let mut concealer = Concealer::new();
        concealer.conceal(&mut [0; 960]);
        let mut frame = [10_000; 160];
        concealer.good(&mut frame);
        assert!(frame[0] < 200);
        assert_eq!(frame[159], 10_000);
    }

    #[test]
    fn silence_conceals_to_silence() {
        let mut concealer = Concealer::new();
        let mut gap = [1; 160];
        concealer.conceal(&mut gap);
        assert_eq!(gap, [0; 160]);
    }

    #[test]
    fn the_loudest_input_stays_in_range() {
        let mut concealer = Concealer::new();
        for round in 0..40 {
            let mut frame = [0i16; 160];
            for (index, sample) in frame.iter_mut().enumerate() {
                *sample = if (index / 37 + round) % 2 == 0 { i16::MAX } else { i16::MIN };
            }
            if round % 3 == 0 {
                concealer.conceal(&mut frame);
            } else {
                concealer.good(&mut frame);
            }
        }
    }
}
