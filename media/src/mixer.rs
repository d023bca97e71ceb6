//! The sum of a room.
//!
//! Owns the arithmetic: one exact 32-bit sum, from which each leg's own sound is taken off again, and a soft limiter
//! at the very end. It never scales sources down because others are there. A lone source passes bit-exact.

use crate::{FRAME, Frame};

/// The limiter bends from here: 3 dB below full scale.
const KNEE: i32 = 23_197;
/// What is left above the knee.
const ROOM: i32 = i16::MAX as i32 - KNEE;

/// A sum of frames, exact: 32 bits hold 65,536 sources at full scale.
#[derive(Clone, Debug)]
pub struct Mix {
    sum: [i32; FRAME],
    sources: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self::new()
    }
}

impl Mix {
    /// Silence.
    pub const fn new() -> Self {
        Self { sum: [0; FRAME], sources: 0 }
    }

    /// Adds a source.
    pub fn add(&mut self, frame: &Frame) {
        for (sum, sample) in self.sum.iter_mut().zip(frame) {
            *sum += i32::from(*sample);
        }
        self.sources += 1;
    }

    /// Takes off a source that was added before.
    pub fn take(&mut self, frame: &Frame) {
        for (sum, sample) in self.sum.iter_mut().zip(frame) {
            *sum -= i32::from(*sample);
        }
        self.sources = self.sources.saturating_sub(1);
    }

    /// Whether anything was added: an empty sum is silence.
    pub fn is_empty(&self) -> bool {
        self.sources == 0
    }

    /// The sum as a frame: exact for one source, otherwise limited. The other party of a call of two is so heard as
    /// it was sent, which no limiter improves.
    pub fn write(&self, out: &mut Frame) {
        if self.sources <= 1 {
            for (out, sum) in out.iter_mut().zip(&self.sum) {
                *out = *sum as i16;
            }
        } else {
            for (out, sum) in out.iter_mut().zip(&self.sum) {
                *out = limit(*sum);
            }
        }
    }
}

/// A soft limiter without memory or look-ahead: straight up to -3 dBFS, from there a curve of the same slope that
/// never reaches beyond full scale.
pub fn limit(sample: i32) -> i16 {
    let over = i64::from(sample.unsigned_abs()) - i64::from(KNEE);
    if over <= 0 {
        return sample as i16;
    }
    let bent = i64::from(KNEE) + i64::from(ROOM) * over / (over + i64::from(ROOM));
    (bent * i64::from(sample.signum())) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limiter_is_straight_then_rises_and_stays_within_bounds() {
        assert_eq!(limit(KNEE), KNEE as i16);
        assert_eq!(limit(-KNEE), -KNEE as i16);
        let mut last = i16::MIN;
        for sample in (-400_000..400_000).step_by(7) {
            let limited = limit(sample);
            assert!(limited >= last, "at {sample}");
            assert_eq!(limited, -limit(-sample));
            last = limited;
        }
        assert_eq!(limit(1), 1);
        assert!(limit(i32::MAX) > 32_760);
        assert!(limit(i32::MIN) < -32_760);
    }

    #[test]
    fn own_sound_is_taken_off_exactly_even_when_the_sum_is_far_over_full_scale() {
        let (loud, quiet) = ([30_000; FRAME], [-1234; FRAME]);
        let mut mix = Mix::new();
        for frame in [&loud, &loud, &loud, &quiet] {
            mix.add(frame);
        }
        for _ in 0..3 {
            mix.take(&loud);
        }
        let mut out = [0; FRAME];
        mix.write(&mut out);
        assert_eq!(out, quiet);
        mix.take(&quiet);
        assert!(mix.is_empty());
    }

    #[test]
    fn a_lone_source_passes_at_full_scale_and_two_are_limited() {
        let frame = [i16::MIN; FRAME];
        let mut mix = Mix::new();
        mix.add(&frame);
        let mut out = [0; FRAME];
        mix.write(&mut out);
        assert_eq!(out, frame);
        mix.add(&[0; FRAME]);
        mix.write(&mut out);
        assert_eq!(out[0], limit(i32::from(i16::MIN)));
    }
}
