//! One conversation: who speaks, who waits, what is remembered. Pure; see [`super`] for its rules.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::gathering::Gathering;
use super::heard::heard_of;
use super::machine::Leaving;
use super::{Act, ClauseId, Line, Manner, Role, Said, Sense, Tool, Used};
use crate::llm::ToolCall;

/// Lines of the history that the model is given, beside the prompt.
const HISTORY_MAX: usize = 60;
/// Lines that are remembered at all.
const REMEMBERED_MAX: usize = 4 * HISTORY_MAX;
/// Model failures in a row that end the call.
const FAILURES_MAX: u8 = 3;
/// Keys pressed one after the other within this time are one thing said.
const KEYS_PAUSE: Duration = Duration::from_millis(1500);
/// Keys kept of one such row.
const KEYS_MAX: usize = 32;
/// The model is asked so often for one answer, as it uses functions; the last time it is offered none.
const ROUNDS_MAX: u8 = 4;

#[derive(Debug)]
pub(super) struct Clause {
    id: ClauseId,
    text: String,
    /// When it began to be heard, and how many milliseconds of sound it has.
    began: Option<(Instant, u32)>,
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
    pub(super) manner: Manner,
    history: VecDeque<Line>,
    pub(super) generation: u32,
    pub(super) next_index: u32,
    /// The model is being asked.
    pub(super) thinking: bool,
    /// How often it was asked for this answer.
    rounds: u8,
    /// Functions called for this answer that have not given anything yet.
    pub(super) open: Vec<ToolCall>,
    /// A function gave something that the model has not seen.
    pub(super) news: bool,
    pub(super) gathering: Option<Gathering>,
    /// Clauses given and not over.
    pub(super) speaking: VecDeque<Clause>,
    /// What was heard of the present answer.
    heard: String,
    barge: Barge,
    pub(super) talking: bool,
    /// To be done when all is said.
    pub(super) after: Option<Tool>,
    pub(super) keys: String,
    pub(super) keys_due: Option<Instant>,
    pub(super) quiet_due: Option<Instant>,
    farewell_due: Option<Instant>,
    /// A machine listens: a message is left.
    pub(super) leaving: Option<Leaving>,
    silences: u8,
    failures: u8,
    /// The last words are being said: whatever the caller does, nothing follows from it.
    parting: bool,
    over: bool,
}

impl Agent {
    /// An agent before its call is answered.
    pub fn new(manner: Manner) -> Self {
        Self {
            manner,
            history: VecDeque::new(),
            generation: 0,
            next_index: 0,
            thinking: false,
            rounds: 0,
            open: Vec::new(),
            news: false,
            gathering: None,
            speaking: VecDeque::new(),
            heard: String::new(),
            barge: Barge::No,
            talking: false,
            after: None,
            keys: String::new(),
            keys_due: None,
            quiet_due: None,
            farewell_due: None,
            leaving: None,
            silences: 0,
            failures: 0,
            parting: false,
            over: false,
        }
    }

    /// How it behaves.
    pub fn manner(&self) -> &Manner {
        &self.manner
    }

    /// The lines so far that the model is given, the latest last.
    pub fn history(&self) -> impl Iterator<Item = &Line> {
        self.history.iter().skip(self.history.len().saturating_sub(HISTORY_MAX))
    }

    /// What has been said, or is about to be, of the answer that is not in the history yet.
    pub fn unfinished(&self) -> String {
        let waiting = self.speaking.iter().filter(|clause| clause.id.generation == self.generation);
        let texts = std::iter::once(self.heard.as_str()).chain(waiting.map(|clause| clause.text.as_str()));
        texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Whether the model may call functions in the answer that it is asked for.
    pub fn may_use_tools(&self) -> bool {
        self.rounds < ROUNDS_MAX
    }

    /// When [`Sense::Timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some(leaving) = &self.leaving {
            return leaving.deadline();
        }
        let barge = match self.barge {
            Barge::Held(at) => Some(at),
            Barge::No => None,
        };
        let gathering = self.gathering.as_ref().and_then(Gathering::deadline);
        let all = [barge, self.keys_due, self.quiet_due, gathering, self.farewell_due];
        all.into_iter().flatten().min()
    }

    /// Takes one thing in; what follows from it, in order.
    pub fn sense(&mut self, now: Instant, sense: Sense) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.over {
            return acts;
        }
        if self.leaving.is_some() {
            self.at_machine(now, &sense, &mut acts);
            return acts;
        }
        match sense {
            Sense::Answered => self.greet(now, &mut acts),
            Sense::Machine => self.machine(now, &mut acts),
            Sense::Talk(on) => self.talk(now, on, &mut acts),
            Sense::Partial(_) | Sense::Final(_) | Sense::Digit(_) if self.parting => {}
            Sense::Partial(text) => self.overheard(text, &mut acts),
            Sense::Final(text) => self.told(text.trim(), &mut acts),
            Sense::Digit(digit) => self.pressed(now, digit, &mut acts),
            Sense::Clause(generation, text) => self.speak(generation, text, &mut acts),
            Sense::Tool(generation, call) => self.use_tool(generation, call, &mut acts),
            Sense::Thought(generation) => self.thought(now, generation, &mut acts),
            Sense::Failed(generation) => self.failed(now, generation, &mut acts),
            Sense::Gave(used) => self.gave(now, used, &mut acts),
            Sense::Began(id, length_ms) => self.began(now, id, length_ms),
            Sense::Played(id, ms, completed) => self.played(now, id, ms, completed, &mut acts),
            Sense::TransferFailed => {
                self.told("[The transfer failed: nobody answered.]", &mut acts);
            }
            Sense::Timeout => self.timeout(now, &mut acts),
        }
        acts
    }

    /// The call is over: what was heard of the answer that was being spoken.
    pub fn finish(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some(Clause { text, began: Some((began, length_ms)), .. }) = self.speaking.pop_front() {
            let ms = now.saturating_duration_since(began).as_millis();
            let ms = u32::try_from(ms).unwrap_or(u32::MAX);
            self.hear(heard_of(&text, ms, Some(length_ms)));
        }
        self.speaking.clear();
        self.close_answer(&mut acts);
        self.over = true;
        acts
    }

    fn greet(&mut self, now: Instant, acts: &mut Vec<Act>) {
        self.farewell_due = self.manner.longest.map(|longest| now + longest);
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

    /// Nothing is being done that the caller waits for.
    fn has_nothing_to_do(&self) -> bool {
        !self.thinking && self.speaking.is_empty() && self.open.is_empty()
    }

    pub(super) fn wait_for_speech(&mut self, now: Instant) {
        if !self.has_nothing_to_do() || self.talking {
            return;
        }
        match &mut self.gathering {
            Some(gathering) => gathering.wait(now),
            None => self.quiet_due = Some(now + self.manner.silence),
        }
    }

    fn talk(&mut self, now: Instant, on: bool, acts: &mut Vec<Act>) {
        self.talking = on;
        if self.parting {
            return;
        }
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

    fn overheard(&mut self, text: String, acts: &mut Vec<Act>) {
        self.alive();
        // Words are no cough.
        if text.split_whitespace().nth(1).is_some() {
            self.barge_in(acts);
        }
        acts.push(Act::Saying(Said { role: Role::Caller, text }));
    }

    /// The caller speaks. Who only mutters while keys are waited for has heard enough of the prompt.
    fn barge_in(&mut self, acts: &mut Vec<Act>) {
        if self.gathering.is_none() {
            return self.interrupt(acts);
        }
        if !self.speaking.is_empty() {
            acts.push(Act::Cut);
        }
        if std::mem::replace(&mut self.barge, Barge::No) != Barge::No {
            acts.push(Act::Hold(false));
        }
    }

    /// Nothing of this answer is said any more.
    pub(super) fn interrupt(&mut self, acts: &mut Vec<Act>) {
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
        // What was asked of customers is done all the same, and told to the model when it is.
        self.open.clear();
        self.news = false;
        if let Some(gathering) = self.gathering.take() {
            self.remember(Line::Used(gathering.given_up()));
        }
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
        match self.history.back_mut() {
            Some(Line::Said(last)) if last.role == Role::Caller => {
                last.text.push(' ');
                last.text.push_str(text);
            }
            Some(_) | None => self.remember(Line::Said(said)),
        }
        self.rounds = 0;
        self.generation += 1;
        self.next_index = 0;
        self.think(acts);
    }

    pub(super) fn remember(&mut self, line: Line) {
        self.history.push_back(line);
        if self.history.len() > REMEMBERED_MAX {
            self.history.pop_front();
        }
    }

    fn think(&mut self, acts: &mut Vec<Act>) {
        self.rounds = self.rounds.saturating_add(1);
        self.news = false;
        self.thinking = true;
        acts.push(Act::Think(self.generation));
    }

    pub(super) fn speak(&mut self, generation: u32, text: String, acts: &mut Vec<Act>) {
        if generation != self.generation || text.trim().is_empty() {
            return;
        }
        self.quiet_due = None;
        let id = ClauseId { generation, index: self.next_index };
        self.next_index += 1;
        self.speaking.push_back(Clause { id, text: text.clone(), began: None });
        acts.push(Act::Speak(id, text));
    }

    fn thought(&mut self, now: Instant, generation: u32, acts: &mut Vec<Act>) {
        if generation != self.generation {
            return;
        }
        self.thinking = false;
        self.failures = 0;
        self.go_on(now, acts);
    }

    /// The model is shown what its functions gave, once all have, unless the call ends anyhow.
    pub(super) fn go_on(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let waits = self.thinking || !self.open.is_empty() || self.gathering.is_some();
        if !waits && self.news && self.after.is_none() && self.may_use_tools() {
            self.think(acts);
        }
        self.all_said(now, acts);
    }

    fn failed(&mut self, now: Instant, generation: u32, acts: &mut Vec<Act>) {
        if generation != self.generation {
            return;
        }
        self.thinking = false;
        self.news = false;
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

    fn gave(&mut self, now: Instant, used: Used, acts: &mut Vec<Act>) {
        let waited = self.open.iter().position(|call| call.id == used.call.id);
        self.remember(Line::Used(used));
        if let Some(at) = waited {
            self.open.remove(at);
            self.news = true;
            self.go_on(now, acts);
        }
    }

    pub(super) fn began(&mut self, now: Instant, id: ClauseId, length_ms: u32) {
        if let Some(clause) = self.speaking.iter_mut().find(|clause| clause.id == id) {
            clause.began = Some((now, length_ms));
        }
    }

    fn hear(&mut self, text: &str) {
        if !self.heard.is_empty() && !text.is_empty() && !self.heard.ends_with(' ') {
            self.heard.push(' ');
        }
        self.heard.push_str(text.trim());
    }

    pub(super) fn played(
        &mut self,
        now: Instant,
        id: ClauseId,
        ms: u32,
        completed: bool,
        acts: &mut Vec<Act>,
    ) {
        let Some(at) = self.speaking.iter().position(|clause| clause.id == id) else { return };
        let Some(clause) = self.speaking.remove(at) else { return };
        let length = clause.began.map(|(_, length_ms)| length_ms);
        self.hear(if completed { clause.text.as_str() } else { heard_of(&clause.text, ms, length) });
        if !self.heard.is_empty() {
            acts.push(Act::Saying(Said { role: Role::Agent, text: self.heard.clone() }));
        }
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
            let asked = |line: &Line| matches!(line, Line::Said(said) if said.role == Role::Caller);
            let at = match self.history.back() {
                Some(last) if asked(last) && self.thinking => self.history.len() - 1,
                Some(_) | None => self.history.len(),
            };
            self.history.insert(at, Line::Said(said));
        }
    }

    fn all_said(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if !self.has_nothing_to_do() {
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
        if self.gathering.is_some() {
            return self.gather(now, digit, acts);
        }
        self.interrupt(acts);
        if self.keys.len() < KEYS_MAX {
            self.keys.push(digit);
        }
        self.keys_due = Some(now + KEYS_PAUSE);
    }

    fn timeout(&mut self, now: Instant, acts: &mut Vec<Act>) {
        if self.farewell_due.take_if(|at| *at <= now).is_some() {
            return self.part(acts);
        }
        if matches!(self.barge, Barge::Held(at) if at <= now) {
            self.barge_in(acts);
        }
        if self.keys_due.take_if(|at| *at <= now).is_some() {
            let keys = std::mem::take(&mut self.keys);
            self.told(&format!("[The caller pressed {keys}]"), acts);
        }
        if self.gathering.as_ref().and_then(Gathering::deadline).is_some_and(|at| at <= now) {
            self.gathered(now, acts);
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

    /// The call has lasted as long as it may: last words, which nobody interrupts.
    fn part(&mut self, acts: &mut Vec<Act>) {
        self.interrupt(acts);
        (self.keys_due, self.quiet_due) = (None, None);
        self.parting = true;
        self.after = Some(Tool::HangUp);
        let farewell = self.manner.farewell.clone();
        self.speak(self.generation, farewell, acts);
        if self.speaking.is_empty() {
            self.end(acts);
        }
    }

    pub(super) fn end(&mut self, acts: &mut Vec<Act>) {
        self.over = true;
        acts.push(Act::HangUp);
    }
}
