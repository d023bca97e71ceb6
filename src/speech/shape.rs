//! What a voice made, as a call wants to hear it: 8 kHz, the silence at its ends cut to a breath, and as loud as
//! people are.

use media::Clip;

use super::{RATE, SPEECH_MAX_S, SpeechError, resample};

/// Active speech is brought to this level, in dBm0.
const TARGET_DBM0: f64 = -20.0;
/// A sine at full scale of 16-bit samples, in dBm0 (G.711, Table 5: 3.14 for A-law, 3.17 for µ-law).
const FULL_SCALE_DBM0: f64 = 3.17;
/// Silence left before and after.
const BREATH: usize = RATE as usize / 20;
/// Speech is measured and looked for in frames of 10 ms.
const FRAME: usize = RATE as usize / 100;
/// A frame this far below the loudest is a pause (the margin of ITU-T P.56 is about the same).
const PAUSE_DB: f64 = 35.0;
/// Below this (−66 dBFS) a whole clip is silence.
pub(super) const NOTHING: f64 = 0.0005;
/// No sample goes above this, whatever the level asks for.
pub(super) const PEAK: f64 = 0.9;

/// Makes the clip. `text` only tells whether silence is an error: a text without a letter or digit has nothing to
/// say.
pub(super) fn clip(samples: Vec<f32>, rate: u32, text: &str) -> Result<Clip, SpeechError> {
    let samples = resample::to_8k(samples, rate)
        .ok_or_else(|| SpeechError::Failed(format!("it speaks at {rate} samples a second")))?;
    if samples.len() > SPEECH_MAX_S * RATE as usize {
        return Err(SpeechError::TooLong);
    }
    let powers: Vec<f64> = samples.chunks(FRAME).map(power).collect();
    let loudest = powers.iter().copied().fold(0.0, f64::max);
    if loudest.sqrt() < NOTHING {
        return if text.chars().any(char::is_alphanumeric) {
            Err(SpeechError::Silent)
        } else {
            Ok(Clip::from_samples(vec![0; BREATH]))
        };
    }
    let floor = loudest * pause();
    let speaks = |power: &f64| *power >= floor;
    let first = powers.iter().position(speaks).unwrap_or(0);
    let last = powers.iter().rposition(speaks).unwrap_or(0);
    let (first, last) = (first * FRAME, ((last + 1) * FRAME).min(samples.len()));
    let (from, to) = (first.saturating_sub(BREATH), (last + BREATH).min(samples.len()));

    let active: Vec<f64> = powers.into_iter().filter(speaks).collect();
    let level = (active.iter().sum::<f64>() / active.len() as f64).sqrt();
    let peak = samples.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
    let gain = (wanted() / level).min(PEAK / f64::from(peak));
    let speech = samples[from..to].iter().map(|s| to_i16(f64::from(*s) * gain));
    // Where the voice left less silence than a breath, the rest is added.
    let before = std::iter::repeat_n(0, BREATH - (first - from));
    let after = std::iter::repeat_n(0, BREATH - (to - last));
    Ok(Clip::from_samples(before.chain(speech).chain(after).collect::<Vec<i16>>()))
}

/// The level that speech should have, 1 being full scale.
pub(super) fn wanted() -> f64 {
    // A sine at full scale has a level of 1/√2.
    10_f64.powf((TARGET_DBM0 - FULL_SCALE_DBM0) / 20.0) / std::f64::consts::SQRT_2
}

/// What part of the loudest frame's power a pause has at most.
pub(super) fn pause() -> f64 {
    10_f64.powf(-PAUSE_DB / 10.0)
}

/// Mean power, 1 being full scale.
pub(super) fn power(frame: &[f32]) -> f64 {
    frame.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / frame.len() as f64
}

/// −1 to 1 as a 16-bit sample; what lies outside is clipped.
pub(super) fn to_i16(sample: f64) -> i16 {
    // The cast saturates and takes NaN for 0.
    (sample * 32_767.0).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tone with silence around it.
    fn framed(before: usize, tone: usize, after: usize, level: f32) -> Vec<f32> {
        let sound = (0..tone).map(|n| level * (n as f32 * 0.5).sin());
        let silence = |n| std::iter::repeat_n(0.0, n);
        silence(before).chain(sound).chain(silence(after)).collect()
    }

    fn level_dbm0(samples: &[i16]) -> f64 {
        let power: f64 = samples.iter().map(|s| (f64::from(*s) / 32_768.0).powi(2)).sum();
        10.0 * (2.0 * power / samples.len() as f64).log10() + FULL_SCALE_DBM0
    }

    #[test]
    fn silence_at_the_ends_becomes_a_breath() {
        let clip = clip(framed(8000, 16_000, 12_000, 0.3), RATE, "x").unwrap();
        assert!(clip.samples().len().abs_diff(16_000 + 2 * BREATH) <= 2 * FRAME, "{clip:?}");
        assert!(clip.samples()[..BREATH - FRAME].iter().all(|s| *s == 0));
    }

    #[test]
    fn silence_is_added_where_there_was_none() {
        let clip = clip(framed(0, 16_000, 0, 0.3), RATE, "x").unwrap();
        assert_eq!(clip.samples().len(), 16_000 + 2 * BREATH);
        let (before, after) = (&clip.samples()[..BREATH], &clip.samples()[16_000 + BREATH..]);
        assert!(before.iter().chain(after).all(|s| *s == 0));
    }

    #[test]
    fn loud_and_soft_come_out_alike() {
        for level in [0.01, 0.1, 0.5, 1.0] {
            let clip = clip(framed(0, 16_000, 0, level), RATE, "x").unwrap();
            let heard = level_dbm0(&clip.samples()[BREATH..clip.samples().len() - BREATH]);
            assert!((heard + 20.0).abs() < 0.2, "{level}: {heard}");
        }
    }

    #[test]
    fn pauses_do_not_count_for_the_level() {
        let mut sound = framed(0, 8000, 16_000, 0.3);
        sound.extend(framed(0, 8000, 0, 0.3));
        let clip = clip(sound, RATE, "x").unwrap();
        let heard = level_dbm0(&clip.samples()[BREATH..8000]);
        assert!((heard + 20.0).abs() < 0.3, "{heard}");
    }

    #[test]
    fn peaks_are_never_clipped() {
        let mut sound = framed(0, 80_000, 0, 0.02);
        sound[40_000] = 1.0;
        let clip = clip(sound, RATE, "x").unwrap();
        let peak = clip.samples().iter().map(|s| s.unsigned_abs()).max().unwrap();
        assert!((29_000..=29_500).contains(&peak), "{peak}");
    }

    #[test]
    fn silence_is_an_error_only_where_words_were_asked_for() {
        assert_eq!(clip(vec![0.0; 4000], RATE, "hello"), Err(SpeechError::Silent));
        assert_eq!(clip(Vec::new(), RATE, "7"), Err(SpeechError::Silent));
        assert_eq!(clip(Vec::new(), RATE, "…").unwrap().samples().len(), BREATH);
    }

    #[test]
    fn samples_outside_are_clipped() {
        assert_eq!([to_i16(2.0), to_i16(-2.0), to_i16(f64::NAN)], [32_767, -32_768, 0]);
    }
}
