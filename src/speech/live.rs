//! Speech that is played while it is still being made: 8 kHz, without the silence before it, about as loud as a whole
//! prompt would be, in pieces that are short at first (so that it begins at once) and longer later.

use media::Clip;

use super::resample::Thinner;
use super::shape::{self, to_i16};
use super::{RATE, SPEECH_MAX_S, SpeechError};

/// The first piece, samples: 100 ms.
const FIRST: usize = RATE as usize / 10;
/// The longest piece, samples: 1.6 s.
const LONGEST: usize = FIRST * 16;
/// Loudness is measured in frames of 10 ms.
const FRAME: usize = RATE as usize / 100;
/// How far a frame's gain may be above the one before: 25 dB a second is not heard as a step.
const STEP: f64 = 1.029;
/// Too loud is mended faster.
const STEP_DOWN: f64 = 1.12;
/// What is made softer or louder at most: 26 dB, 12 dB.
const GAIN: std::ops::RangeInclusive<f64> = 0.05..=4.0;

/// Makes pieces of sound that comes in pieces.
pub(super) struct Live {
    thinner: Thinner,
    /// Samples at 8 kHz that do not fill a frame yet.
    rest: Vec<f32>,
    piece: Vec<i16>,
    size: usize,
    gain: f64,
    /// Power of the frames that were speech, summed, and how many they were.
    active: (f64, u32),
    loudest: f64,
    samples: usize,
}

impl Live {
    /// For sound at this rate.
    ///
    /// # Errors
    /// [`SpeechError::Failed`] for a rate that cannot be used.
    pub(super) fn new(rate: u32) -> Result<Self, SpeechError> {
        let thinner = Thinner::new(rate)
            .ok_or_else(|| SpeechError::Failed(format!("it speaks at {rate} samples a second")))?;
        let (rest, piece) = (Vec::new(), Vec::new());
        let active = (0.0, 0);
        Ok(Self { thinner, rest, piece, size: FIRST, gain: 1.0, active, loudest: 0.0, samples: 0 })
    }

    /// Takes what came and gives the pieces that are whole.
    ///
    /// # Errors
    /// [`SpeechError::TooLong`].
    pub(super) fn push(&mut self, samples: &[f32]) -> Result<Vec<Clip>, SpeechError> {
        let thin = self.thinner.push(samples);
        self.take(&thin)
    }

    /// The end: the last piece.
    ///
    /// # Errors
    /// [`SpeechError::Silent`] where nothing was heard at all, [`SpeechError::TooLong`].
    pub(super) fn finish(mut self) -> Result<Vec<Clip>, SpeechError> {
        let thin = self.thinner.finish();
        let mut clips = self.take(&thin)?;
        let rest = std::mem::take(&mut self.rest);
        self.frame(&rest);
        if !self.piece.is_empty() {
            clips.push(Clip::from_samples(std::mem::take(&mut self.piece)));
        }
        if self.active.1 == 0 { Err(SpeechError::Silent) } else { Ok(clips) }
    }

    fn take(&mut self, thin: &[f32]) -> Result<Vec<Clip>, SpeechError> {
        self.samples += thin.len();
        if self.samples > SPEECH_MAX_S * RATE as usize {
            return Err(SpeechError::TooLong);
        }
        self.rest.extend_from_slice(thin);
        let whole = self.rest.len() / FRAME * FRAME;
        let frames: Vec<f32> = self.rest.drain(..whole).collect();
        let mut clips = Vec::new();
        for frame in frames.chunks_exact(FRAME) {
            self.frame(frame);
            if self.piece.len() >= self.size {
                clips.push(Clip::from_samples(std::mem::take(&mut self.piece)));
                self.size = (self.size * 2).min(LONGEST);
            }
        }
        Ok(clips)
    }

    /// One frame, brought a little nearer to the level that it should have.
    fn frame(&mut self, frame: &[f32]) {
        if frame.is_empty() {
            return;
        }
        let power = shape::power(frame);
        self.loudest = self.loudest.max(power);
        if power.sqrt() >= shape::NOTHING && power >= self.loudest * shape::pause() {
            self.active = (self.active.0 + power, self.active.1 + 1);
        }
        if self.active.1 == 0 {
            // Silence before the first word would be dead air.
            return;
        }
        let level = (self.active.0 / f64::from(self.active.1)).sqrt();
        let wanted = (shape::wanted() / level).clamp(*GAIN.start(), *GAIN.end());
        self.gain = wanted.clamp(self.gain / STEP_DOWN, self.gain * STEP);
        let peak = frame.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
        self.gain = self.gain.min(shape::PEAK / f64::from(peak.max(f32::MIN_POSITIVE)));
        let gain = self.gain;
        self.piece.extend(frame.iter().map(|s| to_i16(f64::from(*s) * gain)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(ms: usize, level: f32, rate: usize) -> Vec<f32> {
        (0..rate * ms / 1000)
            .map(|n| level * (n as f32 * 1000.0 * std::f32::consts::TAU / rate as f32).sin())
            .collect()
    }

    fn all(live: Live, pieces: &[&[f32]]) -> Result<Vec<Clip>, SpeechError> {
        let mut live = live;
        let mut clips = Vec::new();
        for piece in pieces {
            clips.extend(live.push(piece)?);
        }
        clips.extend(live.finish()?);
        Ok(clips)
    }

    #[test]
    fn it_begins_short_and_goes_on_in_longer_pieces() {
        let sound = tone(4000, 0.3, 24_000);
        let pieces: Vec<&[f32]> = sound.chunks(480).collect();
        let clips = all(Live::new(24_000).unwrap(), &pieces).unwrap();
        let lengths: Vec<u32> = clips.iter().map(Clip::duration_ms).collect();
        assert_eq!(lengths[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(lengths.iter().sum::<u32>(), 4000);
    }

    #[test]
    fn silence_before_the_first_word_is_left_out() {
        let clips = all(Live::new(8000).unwrap(), &[&vec![0.0; 16_000], &tone(500, 0.3, 8000)]).unwrap();
        let samples: usize = clips.iter().map(|clip| clip.samples().len()).sum();
        assert!(samples.abs_diff(4000) <= 2 * FRAME, "{samples}");
    }

    #[test]
    fn loud_and_soft_come_out_alike_after_a_moment() {
        for level in [0.05, 0.3, 0.9] {
            let clips = all(Live::new(8000).unwrap(), &[&tone(3000, level, 8000)]).unwrap();
            let samples: Vec<i16> = clips.iter().flat_map(|clip| clip.samples().to_vec()).collect();
            let late: Vec<f32> = samples[16_000..].iter().map(|s| f32::from(*s) / 32_768.0).collect();
            let heard = shape::power(&late).sqrt();
            assert!((heard / shape::wanted() - 1.0).abs() < 0.05, "{level}: {heard}");
        }
    }

    #[test]
    fn nothing_and_too_much_are_errors() {
        assert_eq!(all(Live::new(8000).unwrap(), &[&[0.0; 800]]).err(), Some(SpeechError::Silent));
        let long = vec![0.1; SPEECH_MAX_S * 8000 + 1];
        assert_eq!(all(Live::new(8000).unwrap(), &[&long]).err(), Some(SpeechError::TooLong));
        assert!(Live::new(1).is_err());
    }
}
