//! Who speaks: the beginning and the end of talk spurts of one leg.
//!
//! Owns a voice detector by energy: a frame is voice when it stands out from the noise floor (the minimum of the last
//! four seconds) and is not far weaker than the speaker's own peak, with a lower threshold to go on than to begin. Never
//! reads a clock, never allocates.

use crate::Frame;
use crate::tone::level_dbm0;

const FRAME_MS: u32 = 20;
/// The floor is the lowest level of so many stretches of half a second.
const STRETCHES: usize = 8;
const STRETCH_FRAMES: u8 = 25;
/// The floor assumed before there was time to learn it, and its bounds, in dBm0.
const FLOOR_AT_FIRST: f32 = -52.0;
const FLOOR_LOWEST: f32 = -60.0;
const FLOOR_HIGHEST: f32 = -28.0;
/// Above the floor by so many dB to begin, and to go on.
const BEGIN_OVER_FLOOR: f32 = 10.0;
const GO_ON_OVER_FLOOR: f32 = 7.0;
/// Nothing below this is voice, in dBm0.
const WEAKEST: f32 = -46.0;
/// Below the peak by more than this is somebody else, and the peak sinks by so much a frame, in dB.
const UNDER_PEAK: f32 = 22.0;
const PEAK_SINKS: f32 = 0.05;
/// Frames of voice out of the last four that begin a spurt: no click is one.
const BEGIN_FRAMES: u32 = 3;
const BEGIN_WINDOW: u32 = 0b1111;
/// Silence that ends a spurt unless told otherwise, in ms.
const STOP_MS: u32 = 200;

/// A change in who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TalkChange {
    /// Speech began, up to 80 ms ago.
    Started,
    /// Speech ended.
    Stopped {
        /// Length of the spurt, from its first to its last voiced frame, in ms.
        spoke_ms: u32,
        /// The silence since, in ms.
        silent_ms: u32,
    },
}

/// Listens for speech on one leg.
#[derive(Clone, Debug)]
pub struct Talk {
    stop_ms: u32,
    lowest: [f32; STRETCHES],
    stretch: usize,
    frames: u8,
    peak: f32,
    /// The last frames, newest in the lowest bit: voice or not.
    recent: u32,
    spurt: Option<Spurt>,
}

#[derive(Clone, Copy, Debug)]
struct Spurt {
    frames: u32,
    silent: u32,
}

impl Default for Talk {
    fn default() -> Self {
        Self::new()
    }
}

impl Talk {
    /// A detector that ends a spurt after 200 ms of silence.
    pub fn new() -> Self {
        Self::with_stop(STOP_MS)
    }

    /// A detector that ends a spurt after that much silence, in ms (at least one frame).
    pub fn with_stop(stop_ms: u32) -> Self {
        Self {
            stop_ms: stop_ms.max(FRAME_MS),
            lowest: [FLOOR_AT_FIRST; STRETCHES],
            stretch: 0,
            frames: 0,
            peak: WEAKEST,
            recent: 0,
            spurt: None,
        }
    }

    /// Whether a spurt goes on.
    pub fn speaking(&self) -> bool {
        self.spurt.is_some()
    }

    /// Listens to 20 ms.
    pub fn hear(&mut self, pcm: &Frame) -> Option<TalkChange> {
        let voice = self.is_voice(level_dbm0(pcm));
        self.recent = (self.recent << 1) | u32::from(voice);
        let Some(spurt) = &mut self.spurt else {
            let window = self.recent & BEGIN_WINDOW;
            if window.count_ones() < BEGIN_FRAMES {
                return None;
            }
            self.spurt = Some(Spurt { frames: 32 - window.leading_zeros(), silent: 0 });
            return Some(TalkChange::Started);
        };
        spurt.frames = spurt.frames.saturating_add(1);
        if voice {
            spurt.silent = 0;
            return None;
        }
        spurt.silent += 1;
        let silent_ms = spurt.silent * FRAME_MS;
        if silent_ms < self.stop_ms {
            return None;
        }
        let spoke_ms = (spurt.frames - spurt.silent).saturating_mul(FRAME_MS);
        self.spurt = None;
        self.recent = 0;
        Some(TalkChange::Stopped { spoke_ms, silent_ms })
    }

    fn is_voice(&mut self, level: f32) -> bool {
        let floor = self.floor(level);
        self.peak = (self.peak - PEAK_SINKS).max(level).max(WEAKEST);
        let over = if self.spurt.is_some() { GO_ON_OVER_FLOOR } else { BEGIN_OVER_FLOOR };
        level >= WEAKEST && level >= floor + over && level >= self.peak - UNDER_PEAK
    }

    fn floor(&mut self, level: f32) -> f32 {
        let level = level.max(FLOOR_LOWEST);
        if self.frames == STRETCH_FRAMES {
            self.frames = 0;
            self.stretch = (self.stretch + 1) % STRETCHES;
            self.lowest[self.stretch] = level;
        }
        self.frames += 1;
        let lowest = &mut self.lowest[self.stretch];
        *lowest = lowest.min(level);
        self.lowest.iter().copied().fold(f32::MAX, f32::min).min(FLOOR_HIGHEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{SILENCE_DBM0, Tone};

    fn speak(talk: &mut Talk, dbm0: f32, frames: u32) -> Vec<(u32, TalkChange)> {
        let mut tone = Tone::new(&[(300.0, dbm0)]);
        (0..frames)
            .filter_map(|index| {
                let mut frame = [0; 160];
                if dbm0 > SILENCE_DBM0 {
                    tone.fill(&mut frame);
                }
                talk.hear(&frame).map(|change| (index, change))
            })
            .collect()
    }

    fn noise(talk: &mut Talk, seed: u32, peak: i32, frames: u32) -> usize {
        let mut state = seed;
        (0..frames)
            .filter(|_| {
                let frame = std::array::from_fn(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    ((state >> 16) as i32 % (2 * peak) - peak) as i16
                });
                talk.hear(&frame).is_some()
            })
            .count()
    }

    #[test]
    fn a_word_begins_after_60_ms_and_ends_after_200_ms_of_silence() {
        let mut talk = Talk::new();
        assert_eq!(speak(&mut talk, SILENCE_DBM0, 50), []);
        assert_eq!(speak(&mut talk, -20.0, 40), [(2, TalkChange::Started)]);
        assert!(talk.speaking());
        let stopped = TalkChange::Stopped { spoke_ms: 800, silent_ms: 200 };
        assert_eq!(speak(&mut talk, SILENCE_DBM0, 50), [(9, stopped)]);
        assert!(!talk.speaking());
    }

    #[test]
    fn a_pause_within_the_limit_is_part_of_the_spurt() {
        let mut talk = Talk::with_stop(500);
        speak(&mut talk, -20.0, 20);
        assert_eq!(speak(&mut talk, SILENCE_DBM0, 24), []);
        assert_eq!(speak(&mut talk, -20.0, 10), []);
        let stopped = TalkChange::Stopped { spoke_ms: 54 * 20, silent_ms: 500 };
        assert_eq!(speak(&mut talk, SILENCE_DBM0, 30), [(24, stopped)]);
    }

    #[test]
    fn clicks_and_silence_are_no_speech() {
        let mut talk = Talk::new();
        for _ in 0..50 {
            assert_eq!(speak(&mut talk, -10.0, 2), []);
            assert_eq!(speak(&mut talk, SILENCE_DBM0, 4), []);
        }
    }

    #[test]
    fn steady_noise_is_learnt_and_speech_over_it_is_heard() {
        let mut talk = Talk::new();
        noise(&mut talk, 1, 400, 250);
        assert!(!talk.speaking());
        assert_eq!(noise(&mut talk, 2, 400, 500), 0);
        assert_eq!(speak(&mut talk, -15.0, 20), [(2, TalkChange::Started)]);
    }

    #[test]
    fn a_weak_echo_of_a_loud_speaker_does_not_hold_the_spurt() {
        let mut talk = Talk::new();
        speak(&mut talk, -8.0, 50);
        let changes = speak(&mut talk, -36.0, 20);
        assert_eq!(changes, [(9, TalkChange::Stopped { spoke_ms: 1000, silent_ms: 200 })]);
    }

    #[test]
    fn five_minutes_of_speech_never_overflow() {
        let mut talk = Talk::new();
        for _ in 0..300 {
            speak(&mut talk, -20.0, 40);
            speak(&mut talk, SILENCE_DBM0, 5);
        }
        assert!(talk.speaking());
    }
}
