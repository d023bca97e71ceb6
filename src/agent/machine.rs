//! What an agent does where a machine answers (answering-machine detection, MEDIA 1): nothing else than before, hang up,
//! or leave a message once the greeting and its tone are over. Nobody is talked with any more from there on. Pure.

use std::time::{Duration, Instant};

use super::core::Agent;
use super::{Act, Sense, Tool};
use crate::model::agent::Voicemail;

/// So much silence after the greeting: pauses within one are shorter, and the tone has been heard by then.
const QUIET: Duration = Duration::from_millis(1500);
/// The message is left after so long, whatever is still heard.
const GREETING_MAX: Duration = Duration::from_secs(45);
/// How often a message is begun anew because the greeting was not over.
const ANEW_MAX: u8 = 2;

/// A message that is to be left.
#[derive(Debug)]
pub(super) struct Leaving {
    quiet_due: Option<Instant>,
    latest: Option<Instant>,
    anew: u8,
}

impl Leaving {
    /// When it is due to be left.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.quiet_due, self.latest].into_iter().flatten().min()
    }
}

impl Agent {
    /// A machine answers.
    pub(super) fn machine(&mut self, now: Instant, acts: &mut Vec<Act>) {
        match self.manner.voicemail {
            Voicemail::Continue => {}
            Voicemail::HangUp => {
                self.interrupt(acts);
                self.end(acts);
            }
            Voicemail::Message(_) => {
                self.interrupt(acts);
                self.keys.clear();
                (self.keys_due, self.quiet_due) = (None, None);
                let quiet_due = (!self.talking).then(|| now + QUIET);
                self.leaving = Some(Leaving { quiet_due, latest: Some(now + GREETING_MAX), anew: 0 });
            }
        }
    }

    /// What happens while a message is left.
    pub(super) fn at_machine(&mut self, now: Instant, sense: &Sense, acts: &mut Vec<Act>) {
        match sense {
            Sense::Talk(true) => self.machine_talks(now, acts),
            Sense::Talk(false) => {
                self.talking = false;
                let silent = self.speaking.is_empty() || self.after.is_none();
                if let Some(leaving) = self.leaving.as_mut().filter(|_| silent) {
                    leaving.quiet_due = Some(now + QUIET);
                }
            }
            Sense::Timeout => self.leave(now, acts),
            Sense::Began(id, length_ms) => self.began(now, *id, *length_ms),
            Sense::Played(id, ms, completed) => self.played(now, *id, *ms, *completed, acts),
            Sense::Answered
            | Sense::Machine
            | Sense::Partial(_)
            | Sense::Final(_)
            | Sense::Digit(_)
            | Sense::Clause(..)
            | Sense::Tool(..)
            | Sense::Thought(_)
            | Sense::Failed(_)
            | Sense::Gave(_)
            | Sense::TransferFailed => {}
        }
    }

    /// The greeting goes on: a message that has begun would not be on the tape.
    fn machine_talks(&mut self, now: Instant, acts: &mut Vec<Act>) {
        self.talking = true;
        let Some(leaving) = &mut self.leaving else { return };
        leaving.quiet_due = None;
        if self.after.is_some() && leaving.anew < ANEW_MAX {
            leaving.anew += 1;
            leaving.latest = Some(now + GREETING_MAX);
            self.after = None;
            self.generation += 1;
            acts.push(Act::Cut);
        }
    }

    fn leave(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let Some(leaving) = &mut self.leaving else { return };
        if leaving.deadline().is_none_or(|due| now < due) {
            return;
        }
        (leaving.quiet_due, leaving.latest) = (None, None);
        let Voicemail::Message(message) = &self.manner.voicemail else { return };
        let message = message.clone();
        self.generation += 1;
        self.next_index = 0;
        self.after = Some(Tool::HangUp);
        self.speak(self.generation, message, acts);
    }
}
