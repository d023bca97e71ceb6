//! How long answers take, and where the time goes: it takes the moments of one answer after the other and gives
//! [`TurnTimes`]. Pure.

use std::time::{Duration, Instant};

use crate::model::turn::TurnTimes;
use crate::model::{Now, Timestamp};

/// Answers of one call that are measured; a call that goes on for longer goes on unmeasured.
const TURNS_MAX: u32 = 500;

/// A moment on the way to an answer's first sound. Each counts once an answer, the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The model was asked.
    Asked,
    /// Its first word came.
    Token,
    /// Its first clause was whole.
    Clause,
    /// The voice was asked.
    VoiceAsked,
    /// The voice's first sound came.
    Synthesis,
    /// The first sound went out.
    Audio,
    /// The caller spoke into it.
    Interrupted,
}

/// The moments of one answer, by [`Mark`].
#[derive(Clone, Debug)]
struct Course {
    turn: u32,
    generation: Option<u32>,
    speech_end: Option<Instant>,
    transcript: Instant,
    marks: [Option<Instant>; 7],
}

/// Measures the answers of one call.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Now,
    speech_end: Option<Instant>,
    course: Option<Course>,
    measured: u32,
}

impl Meter {
    pub(super) fn new(origin: Now) -> Self {
        Self { origin, speech_end: None, course: None, measured: 0 }
    }

    /// The caller speaks, or made the last sound then.
    pub(super) fn speech_end(&mut self, at: Option<Instant>) {
        self.speech_end = at;
    }

    /// Words of the caller's, or keys, which are to be answered: the answer before is over.
    pub(super) fn understood(&mut self, now: Instant, turn: u32) -> Option<TurnTimes> {
        let before = self.close();
        if self.measured < TURNS_MAX {
            let speech_end = self.speech_end.take().filter(|end| *end <= now);
            let marks = [None; 7];
            self.course = Some(Course { turn, generation: None, speech_end, transcript: now, marks });
        }
        before
    }

    /// A moment of the answer of that generation.
    pub(super) fn mark(&mut self, generation: u32, mark: Mark, at: Instant) {
        let Some(course) = &mut self.course else { return };
        if mark == Mark::Asked {
            course.generation.get_or_insert(generation);
        }
        if course.generation == Some(generation) {
            course.marks[mark as usize].get_or_insert(at);
        }
    }

    /// The caller spoke into the answer that is being measured, if it is being given.
    pub(super) fn interrupted(&mut self, at: Instant) {
        if let Some(generation) = self.course.as_ref().and_then(|course| course.generation) {
            self.mark(generation, Mark::Interrupted, at);
        }
    }

    /// The answer is over, if there is one.
    pub(super) fn close(&mut self) -> Option<TurnTimes> {
        let course = self.course.take()?;
        self.measured += 1;
        let wall = |at: Instant| self.wall(at);
        let marked = |mark: Mark| course.marks[mark as usize];
        let between = |from: Option<Instant>, to: Option<Instant>| {
            from.zip(to).map(|(from, to)| to.saturating_duration_since(from))
        };
        let heard = Some(course.transcript);
        let total = between(course.speech_end, marked(Mark::Audio));
        let hearing = between(course.speech_end, heard);
        let model = between(marked(Mark::Asked), marked(Mark::Clause));
        let voice = between(marked(Mark::VoiceAsked), marked(Mark::Synthesis));
        let own = total.zip(hearing).zip(model.zip(voice)).map(|((total, hearing), (model, voice))| {
            total.saturating_sub(hearing).saturating_sub(model).saturating_sub(voice)
        });
        let ms = |time: Option<Duration>| Some(u32::try_from(time?.as_millis()).unwrap_or(u32::MAX));
        Some(TurnTimes {
            turn: course.turn,
            speech_end: course.speech_end.map(wall),
            transcript: wall(course.transcript),
            asked: marked(Mark::Asked).map(wall),
            first_token: marked(Mark::Token).map(wall),
            first_clause: marked(Mark::Clause).map(wall),
            first_synthesis: marked(Mark::Synthesis).map(wall),
            first_audio: marked(Mark::Audio).map(wall),
            interrupted: marked(Mark::Interrupted).map(wall),
            total_ms: ms(total),
            hearing_ms: ms(hearing),
            model_ms: ms(model),
            voice_ms: ms(voice),
            own_ms: ms(own),
        })
    }

    /// A moment as people read it.
    pub(super) fn wall(&self, at: Instant) -> Timestamp {
        let since = |later: Instant, earlier: Instant| {
            i64::try_from(later.saturating_duration_since(earlier).as_millis()).unwrap_or(i64::MAX)
        };
        self.origin.wall.plus_ms(since(at, self.origin.mono) - since(self.origin.mono, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_share_is_what_nobody_else_took() {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut meter = Meter::new(Now { mono: start, wall: Timestamp(1_000_000) });
        meter.speech_end(Some(at(100)));
        assert_eq!(meter.understood(at(900), 2), None);
        for (mark, ms) in [
            (Mark::Asked, 902),
            (Mark::Token, 1102),
            (Mark::Clause, 1202),
            (Mark::VoiceAsked, 1204),
            (Mark::Synthesis, 1354),
            (Mark::Audio, 1380),
            (Mark::Interrupted, 2000),
        ] {
            meter.mark(7, mark, at(ms));
            // Later clauses of the same answer, and other answers, change nothing.
            meter.mark(7, mark, at(ms + 5000));
            meter.mark(6, mark, at(ms - 50));
        }
        let times = meter.understood(at(9000), 4).expect("the first answer is over");
        let parts = (times.total_ms, times.hearing_ms, times.model_ms, times.voice_ms, times.own_ms);
        assert_eq!(parts, (Some(1280), Some(800), Some(300), Some(150), Some(30)));
        assert_eq!((times.turn, times.first_audio), (2, Some(Timestamp(1_001_380))));
        assert_eq!(times.interrupted, Some(Timestamp(1_002_000)));
        // Nothing came of the second one, and nobody spoke before it.
        let times = meter.close().expect("the second answer is over");
        assert_eq!((times.turn, times.transcript), (4, Timestamp(1_009_000)));
        assert_eq!((times.speech_end, times.total_ms, times.own_ms), (None, None, None));
        assert_eq!(meter.close(), None);
    }
}
