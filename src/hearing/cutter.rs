//! Utterances out of a stream of frames, by the energy detector of `media`. Pure.

use std::collections::VecDeque;

use media::talk::Talk;
use media::{FRAME_MS, Frame, TalkChange};

/// Silence that ends an utterance, ms: people pause for less within a sentence.
const STOP_MS: u32 = 600;
/// What is kept of the sound before speech was noticed, frames: 300 ms.
const BEFORE: usize = 15;
/// The longest utterance, samples: 30 s. Then it is cut, and goes on as the next.
const LONGEST: usize = 30 * media::RATE as usize;
/// A spurt of voice shorter than this is a click or a cough.
const SHORTEST_MS: u32 = 160;

/// What a frame changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Somebody began to speak.
    pub(super) started: bool,
    /// An utterance is whole: 8 kHz samples.
    pub(super) utterance: Option<Vec<i16>>,
}

/// Cuts utterances.
#[derive(Debug)]
pub(super) struct Cutter {
    talk: Talk,
    before: VecDeque<Frame>,
    /// The utterance that goes on.
    sound: Vec<i16>,
    /// Whether it was cut out of a longer one, so that its end may be short.
    goes_on: bool,
}

impl Cutter {
    /// One that has heard nothing yet.
    pub(super) fn new() -> Self {
        let talk = Talk::with_stop(STOP_MS);
        Self { talk, before: VecDeque::with_capacity(BEFORE), sound: Vec::new(), goes_on: false }
    }

    /// Hears 20 ms.
    pub(super) fn hear(&mut self, frame: &Frame) -> Cut {
        let mut cut = Cut::default();
        match self.talk.hear(frame) {
            Some(TalkChange::Started) => {
                cut.started = true;
                self.sound = self.before.drain(..).flatten().collect();
                self.sound.extend_from_slice(frame);
            }
            Some(TalkChange::Stopped { spoke_ms, silent_ms }) => {
                self.sound.extend_from_slice(frame);
                // Half of the silence is enough for a recogniser to know that it is the end.
                let silence = (silent_ms / FRAME_MS / 2) as usize * frame.len();
                self.sound.truncate(self.sound.len().saturating_sub(silence));
                let sound = std::mem::take(&mut self.sound);
                let long_enough = spoke_ms >= SHORTEST_MS || self.goes_on;
                self.goes_on = false;
                cut.utterance = Some(sound).filter(|_| long_enough);
            }
            None if self.talk.speaking() => {
                self.sound.extend_from_slice(frame);
                if self.sound.len() >= LONGEST {
                    self.goes_on = true;
                    cut.utterance = Some(std::mem::take(&mut self.sound));
                }
            }
            None => {
                if self.before.len() >= BEFORE {
                    self.before.pop_front();
                }
                self.before.push_back(*frame);
            }
        }
        cut
    }

    /// What was said when nothing more comes.
    pub(super) fn finish(&mut self) -> Option<Vec<i16>> {
        let sound = std::mem::take(&mut self.sound);
        let shortest = (SHORTEST_MS / FRAME_MS) as usize * media::FRAME;
        (self.talk.speaking() && sound.len() >= shortest).then_some(sound)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Frames of a loud tone, or of silence.
    pub(in crate::hearing) fn frames(ms: u32, loud: bool) -> Vec<Frame> {
        let sample = |n: usize| if loud { (8000.0 * (n as f32 * 0.25).sin()) as i16 } else { 0 };
        (0..ms / FRAME_MS).map(|_| std::array::from_fn(sample)).collect()
    }

    fn hear(cutter: &mut Cutter, ms: u32, loud: bool) -> (u32, Vec<usize>) {
        let mut started = 0;
        let mut utterances = Vec::new();
        for frame in frames(ms, loud) {
            let cut = cutter.hear(&frame);
            started += u32::from(cut.started);
            utterances.extend(cut.utterance.map(|sound| sound.len() / 8));
        }
        (started, utterances)
    }

    #[test]
    fn an_utterance_has_its_beginning_and_a_little_silence() {
        let mut cutter = Cutter::new();
        assert_eq!(hear(&mut cutter, 1000, false), (0, vec![]));
        assert_eq!(hear(&mut cutter, 1000, true), (1, vec![]));
        // A pause within a sentence.
        assert_eq!(hear(&mut cutter, 400, false), (0, vec![]));
        assert_eq!(hear(&mut cutter, 500, true), (0, vec![]));
        let (started, lengths) = hear(&mut cutter, 1000, false);
        assert_eq!(started, 0);
        // 1.9 s, most of 300 ms before and 300 ms after.
        assert!(lengths.len() == 1 && (2300..=2560).contains(&lengths[0]), "{lengths:?}");
        assert_eq!(cutter.finish(), None);
    }

    #[test]
    fn a_click_is_no_utterance() {
        let mut cutter = Cutter::new();
        hear(&mut cutter, 500, false);
        hear(&mut cutter, 80, true);
        assert_eq!(hear(&mut cutter, 1000, false).1, Vec::<usize>::new());
    }

    #[test]
    fn what_never_ends_is_cut() {
        let mut cutter = Cutter::new();
        let mut lengths = Vec::new();
        for _ in 0..70 {
            lengths.extend(hear(&mut cutter, 1000, true).1);
        }
        assert_eq!(lengths, [30_000, 30_000]);
        assert!(cutter.finish().is_some_and(|rest| rest.len() > 9 * 8000));
    }
}
