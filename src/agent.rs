//! The agent: who talks on a call when nobody drives it verb by verb. It takes what the recogniser, the language model
//! and the line say, and answers with [`Act`]s: think, speak, hold, cut, hang up. Pure: time comes in as an argument,
//! and a whole conversation runs in a test without a sound.
//!
//! Three rules hold it together. Every answer has a *generation*: what belongs to an older one is dropped, so no word of
//! an answer that was given up is ever spoken. Who is interrupted *holds* at once and is *cut* only when the caller
//! really speaks; a cough lets the sentence go on where it was (FIELD need 5). And the history holds what was *heard*,
//! not what was written, because the model must not believe that it said what nobody heard (MEDIA 3.6).
//!
//! This room never speaks HTTP or SIP. [`keeper`] puts agents on calls, [`driver`] connects one to its call.

pub mod driver;
mod heard;
pub mod keeper;
mod mouth;
#[cfg(test)]
mod tests;
mod thought;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use heard::heard_of;

/// How an agent behaves; the same for all of its calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    /// What the language model is told first.
    pub prompt: String,
    /// Said by itself when the call is answered.
    pub first_message: Option<String>,
    /// Said where the language model fails.
    pub fallback: String,
    /// Said after a silence that is not the last.
    pub nudge: String,
    /// A silence of the far end.
    pub silence: Duration,
    /// So many in a row end the call; at least 1.
    pub silences: u8,
    /// So much speech in a row is meant as an interruption.
    pub confirm: Duration,
}

/// Messages of the history that the model is given, beside the prompt.
const HISTORY_MAX: usize = 60;
/// Model failures in a row that end the call.
const FAILURES_MAX: u8 = 3;
/// Keys pressed one after the other within this time are one thing said.
const KEYS_PAUSE: Duration = Duration::from_millis(1500);
/// Keys kept of one such row.
const KEYS_MAX: usize = 32;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The far end.
    Caller,
    /// The agent.
    Agent,
}

/// One message of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who.
    pub role: Role,
    /// What was said, or heard of it.
    pub text: String,
}

/// One clause of one answer: what is spoken in one breath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClauseId {
    /// Of which answer.
    pub generation: u32,
    /// Counts from 0.
    pub index: u32,
}

/// What an agent can do besides speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    /// End the call, once all is said.
    HangUp,
    /// Put the caller through to this number, as the model wrote it.
    Transfer(String),
    /// Press keys.
    SendDigits(String),
}

/// What happens to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Sense {
    /// The far end answered.
    Answered,
    /// It began or ceased to speak.
    Talk(bool),
    /// What the recogniser believes so far; replaces what it believed before.
    Partial(String),
    /// What was said.
    Final(String),
    /// A key was pressed.
    Digit(char),
    /// A clause of the model's answer.
    Clause(u32, String),
    /// The model wants something done.
    Tool(u32, Tool),
    /// The model's answer is complete.
    Thought(u32),
    /// The model failed.
    Failed(u32),
    /// A clause begins to be heard; it lasts so many milliseconds.
    Began(ClauseId, u32),
    /// A clause is over, after so many milliseconds of it, whole or not.
    Played(ClauseId, u32, bool),
    /// A transfer came to nothing.
    TransferFailed,
    /// The timer.
    Timeout,
}

/// What the agent does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Ask the model, with the history as it is now; an answer before it is not wanted any more.
    Think(u32),
    /// Nothing of the model is wanted any more.
    StopThinking,
    /// Speak after all that was given before.
    Speak(ClauseId, String),
    /// Hold what is being spoken, or let it go on.
    Hold(bool),
    /// Cut what is being spoken and forget what waits.
    Cut,
    /// Do this.
    Use(Tool),
    /// End the call.
    HangUp,
    /// This was said, to the last word that was heard.
    Turn(Said),
}

#[derive(Debug)]
struct Clause {
    id: ClauseId,
    text: String,
    /// Milliseconds of sound, once it began.
    length_ms: Option<u32>,
}

/// Where an interruption stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barge {
    No,
    /// Held; cut at that moment unless the caller falls silent before.
    Held(Instant),
}

/// One conversation.
#[derive(Debug)]
pub struct Agent {
    manner: Manner,
    history: Vec<Said>,
    generation: u32,
    next_index: u32,
    /// The model is being asked.
    thinking: bool,
    /// Clauses given and not over.
    speaking: VecDeque<Clause>,
    /// What was heard of the present answer.
    heard: String,
    barge: Barge,
    talking: bool,
    /// To be done when all is said.
    after: Option<Tool>,
    keys: String,
    keys_due: Option<Instant>,
    quiet_due: Option<Instant>,
    silences: u8,
    failures: u8,
    over: bool,
}

impl Agent {
    /// An agent before its call is answered.
    pub fn new(manner: Manner) -> Self {
        Self {
            manner,
            history: Vec::new(),
            generation: 0,
            next_index: 0,
            thinking: false,
            speaking: VecDeque::new(),
            heard: String::new(),
            barge: Barge::No,
            talking: false,
            after: None,
            keys: String::new(),
            keys_due: None,
            quiet_due: None,
            silences: 0,
            failures: 0,
            over: false,
        }
    }

    /// What the model is told first.
    pub fn prompt(&self) -> &str {
        &self.manner.prompt
    }

    /// What was said so far, the latest last; as much as the model is given.
    pub fn history(&self) -> &[Said] {
        let skipped = self.history.len().saturating_sub(HISTORY_MAX);
        &self.history[skipped..]
    }

    /// When [`Sense::Timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let barge = match self.barge {
            Barge::Held(at) => Some(at),
            Barge::No => None,
        };
        [barge, self.keys_due, self.quiet_due].into_iter().flatten().min()
    }

    /// Takes one thing in; what follows from it, in order.
    pub fn sense(&mut self, now: Instant, sense: Sense) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.over {
            return acts;
        }
        match sense {
            Sense::Answered => self.greet(now, &mut acts),
            Sense::Talk(on) => self.talk(now, on, &mut acts),
            Sense::Partial(text) => {
                self.alive();
                // Words are no cough.
                if text.split_whitespace().nth(1).is_some() {
                    self.interrupt(&mut acts);
                }
            }
            Sense::Final(text) => self.told(text.trim(), &mut acts),
            Sense::Digit(digit) => self.pressed(now, digit, &mut acts),
            Sense::Clause(generation, text) => self.speak(generation, text, &mut acts),
            Sense::Tool(generation, tool) => self.use_tool(generation, tool, &mut acts),
            Sense::Thought(generation) => self.thought(now, generation, &mut acts),
            Sense::Failed(generation) => self.failed(now, generation, &mut acts),
            Sense::Began(id, length_ms) => {
                if let Some(clause) = self.speaking.iter_mut().find(|clause| clause.id == id) {
                    clause.length_ms = Some(length_ms);
                }
            }
            Sense::Played(id, ms, completed) => self.played(now, id, ms, completed, &mut acts),
            Sense::TransferFailed => {
                self.told("[The transfer failed: nobody answered.]", &mut acts);
            }
            Sense::Timeout => self.timeout(now, &mut acts),
        }
        acts
    }

    fn greet(&mut self, now: Instant, acts: &mut Vec<Act>) {
        match self.manner.first_message.clone() {
            Some(text) => {
                self.generation += 1;
                self.speak(self.generation, text, acts);
            }
            None => self.wait_for_speech(now),
        }
    }

    /// The caller is there: silences are counted anew.
    fn alive(&mut self) {
        self.silences = 0;
        self.quiet_due = None;
    }

    fn is_idle(&self) -> bool {
        !self.thinking && self.speaking.is_empty() && !self.talking
    }

    fn wait_for_speech(&mut self, now: Instant) {
        if self.is_idle() {
            self.quiet_due = Some(now + self.manner.silence);
        }
    }

    fn talk(&mut self, now: Instant, on: bool, acts: &mut Vec<Act>) {
        self.talking = on;
        if on {
            self.alive();
            if !self.speaking.is_empty() && self.barge == Barge::No {
                self.barge = Barge::Held(now + self.manner.confirm);
                acts.push(Act::Hold(true));
            }
            return;
        }
        if std::mem::replace(&mut self.barge, Barge::No) != Barge::No {
            acts.push(Act::Hold(false));
        }
        self.wait_for_speech(now);
    }

    /// The caller speaks: nothing of this answer is said any more.
    fn interrupt(&mut self, acts: &mut Vec<Act>) {
        let held = std::mem::replace(&mut self.barge, Barge::No) != Barge::No;
        if self.thinking {
            self.thinking = false;
            acts.push(Act::StopThinking);
        }
        if !self.speaking.is_empty() {
            acts.push(Act::Cut);
        }
        if held {
            acts.push(Act::Hold(false));
        }
        self.after = None;
        // What the line still says of this answer's clauses is taken into the history; what the model says is not.
        self.generation += 1;
        self.next_index = 0;
    }

    fn told(&mut self, text: &str, acts: &mut Vec<Act>) {
        self.alive();
        if text.is_empty() {
            return;
        }
        self.interrupt(acts);
        self.close_answer(acts);
        let said = Said { role: Role::Caller, text: text.to_owned() };
        acts.push(Act::Turn(said.clone()));
        // Two things said without an answer between them are one message to the model.
        match self.history.last_mut() {
            Some(last) if last.role == Role::Caller => {
                last.text.push(' ');
                last.text.push_str(text);
            }
            Some(_) | None => self.history.push(said),
        }
        self.think(acts);
    }

    fn think(&mut self, acts: &mut Vec<Act>) {
        self.generation += 1;
        self.next_index = 0;
        self.thinking = true;
        acts.push(Act::Think(self.generation));
    }

    fn speak(&mut self, generation: u32, text: String, acts: &mut Vec<Act>) {
        if generation != self.generation || text.trim().is_empty() {
            return;
        }
        self.quiet_due = None;
        let id = ClauseId { generation, index: self.next_index };
        self.next_index += 1;
        self.speaking.push_back(Clause { id, text: text.clone(), length_ms: None });
        acts.push(Act::Speak(id, text));
    }

    fn use_tool(&mut self, generation: u32, tool: Tool, acts: &mut Vec<Act>) {
        if generation != self.generation {
            return;
        }
        match tool {
            Tool::SendDigits(_) => acts.push(Act::Use(tool)),
            Tool::HangUp | Tool::Transfer(_) => self.after = Some(tool),
        }
    }

    fn thought(&mut self, now: Instant, generation: u32, acts: &mut Vec<Act>) {
        if generation != self.generation {
            return;
        }
        self.thinking = false;
        self.failures = 0;
        self.all_said(now, acts);
    }

    fn failed(&mut self, now: Instant, generation: u32, acts: &mut Vec<Act>) {
        if generation != self.generation {
            return;
        }
        self.thinking = false;
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.after = Some(Tool::HangUp);
        }
        // An answer that broke off in the middle was an answer.
        if self.speaking.is_empty() && self.heard.is_empty() {
            let fallback = self.manner.fallback.clone();
            self.speak(generation, fallback, acts);
        }
        self.all_said(now, acts);
    }

    fn played(&mut self, now: Instant, id: ClauseId, ms: u32, completed: bool, acts: &mut Vec<Act>) {
        let Some(at) = self.speaking.iter().position(|clause| clause.id == id) else { return };
        let Some(clause) = self.speaking.remove(at) else { return };
        let heard =
            if completed { clause.text.as_str() } else { heard_of(&clause.text, ms, clause.length_ms) };
        if !self.heard.is_empty() && !heard.is_empty() && !self.heard.ends_with(' ') {
            self.heard.push(' ');
        }
        self.heard.push_str(heard.trim());
        if self.speaking.is_empty() && id.generation != self.generation {
            self.close_answer(acts);
        }
        self.all_said(now, acts);
    }

    /// The present answer goes into the history, as far as it was heard.
    fn close_answer(&mut self, acts: &mut Vec<Act>) {
        let text = std::mem::take(&mut self.heard);
        if !text.is_empty() {
            let said = Said { role: Role::Agent, text };
            acts.push(Act::Turn(said.clone()));
            // An answer that was cut may be told of only after what cut it.
            let at = match self.history.last() {
                Some(last) if last.role == Role::Caller && self.thinking => self.history.len() - 1,
                Some(_) | None => self.history.len(),
            };
            self.history.insert(at, said);
        }
    }

    fn all_said(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if self.thinking || !self.speaking.is_empty() {
            return;
        }
        self.close_answer(acts);
        match self.after.take() {
            Some(Tool::HangUp) => self.end(acts),
            Some(tool @ (Tool::Transfer(_) | Tool::SendDigits(_))) => acts.push(Act::Use(tool)),
            None => self.wait_for_speech(now),
        }
    }

    fn pressed(&mut self, now: Instant, digit: char, acts: &mut Vec<Act>) {
        self.alive();
        self.interrupt(acts);
        if self.keys.len() < KEYS_MAX {
            self.keys.push(digit);
        }
        self.keys_due = Some(now + KEYS_PAUSE);
    }

    fn timeout(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if matches!(self.barge, Barge::Held(at) if at <= now) {
            self.interrupt(acts);
        }
        if self.keys_due.take_if(|at| *at <= now).is_some() {
            let keys = std::mem::take(&mut self.keys);
            self.told(&format!("[The caller pressed {keys}]"), acts);
        }
        if self.quiet_due.take_if(|at| *at <= now).is_some() {
            self.silences = self.silences.saturating_add(1);
            if self.silences >= self.manner.silences {
                self.end(acts);
            } else {
                self.generation += 1;
                self.next_index = 0;
                let nudge = self.manner.nudge.clone();
                self.speak(self.generation, nudge, acts);
            }
        }
    }

    fn end(&mut self, acts: &mut Vec<Act>) {
        self.over = true;
        acts.push(Act::HangUp);
    }
}
