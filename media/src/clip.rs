//! A sound in memory, ready to be played.
//!
//! Owns the samples only. It never decodes or resamples: whoever makes a clip does that away from the media threads,
//! once, so that playing costs a copy.

use std::fmt;

use crate::RATE;

/// A sound: 8 kHz mono, 16-bit linear. Shared by all who play it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Clip {
    samples: Box<[i16]>,
}

impl Clip {
    /// A clip of these samples (8 kHz mono).
    pub fn from_samples(samples: impl Into<Box<[i16]>>) -> Self {
        Self { samples: samples.into() }
    }

    /// Its samples.
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// Its length in milliseconds, rounded down.
    pub fn duration_ms(&self) -> u32 {
        samples_ms(self.samples.len() as u64)
    }
}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clip").field("duration_ms", &self.duration_ms()).finish()
    }
}

/// Samples as milliseconds, rounded down; saturates after 49 days.
pub(crate) fn samples_ms(samples: u64) -> u32 {
    u32::try_from(samples * 1000 / u64::from(RATE)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_knows_its_length() {
        assert_eq!(Clip::from_samples(vec![0; 8007]).duration_ms(), 1000);
        assert_eq!(Clip::default().duration_ms(), 0);
        assert_eq!(format!("{:?}", Clip::from_samples(vec![1; 160])), "Clip { duration_ms: 20 }");
    }
}
