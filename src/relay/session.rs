//! One ConversationRelay session in which we are the platform (CONTRACT 1.2 `/relay/ws` uses b and c): what an
//! application says becomes speech in order, what the far end does becomes frames. Pure: frames, things overheard on
//! the line, words that were understood and finished sounds go in, [`Act`]s come out. It never speaks, dials or waits.
//!
//! The order of frames is that of what happened: an interruption is told before the key or the words that made it, and
//! what an application still says of a turn that was interrupted is not said (FIELD 3.1.3).

mod queue;
#[cfg(test)]
mod tests;

use super::frames::{self, FromApplication, Interruptible, Setup};
use super::options::{Options, Sensitivity};
use crate::model::call::Overheard;
use crate::model::event::Speaker;
use crate::speech::Clauses;
use queue::{Item, Queue, What};

/// Malformed frames in a row that end a session (CONTRACT 1.2, X31).
const MALFORMED_MAX: u8 = 10;
/// Frames that may wait for an interruption to be told first.
const HELD_MAX: usize = 32;

/// The WebSocket's codes (RFC 6455 §7.4.1).
pub mod close {
    /// All is done.
    pub const NORMAL: u16 = 1000;
    /// Against the rules.
    pub const POLICY: u16 = 1008;
    /// A frame is too large.
    pub const TOO_LARGE: u16 = 1009;
    /// Try again later: whoever reads is too slow.
    pub const TRY_LATER: u16 = 1013;
}

/// What shall be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Send this frame.
    Send(String),
    /// Make these words into sound, in this language (BCP 47) where it is not the voice's, and say so by
    /// [`Session::prepared`].
    Speak(u64, String, Option<String>),
    /// Fetch this sound, and say so likewise.
    Fetch(u64, String),
    /// Play what was prepared under this number.
    Play(u64),
    /// Cut what is playing.
    Cut,
    /// Press these keys.
    Press(String),
    /// Listen to the far end in this language from here on (BCP 47), and say what is understood by
    /// [`Session::understood`].
    Listen(String),
    /// This was said so far.
    Saying(Speaker, String, u32),
    /// A turn; of the agent's as much as was heard.
    Said(Speaker, String, u32),
    /// The application gave the call back with these words.
    HandOff(String),
    /// The session is over by the application's will, and everything is said.
    Done,
    /// Close with this code for this reason.
    Close(u16, &'static str),
}

/// What was heard of a turn.
#[derive(Debug, Default)]
struct Heard {
    turn: u32,
    text: String,
    ms: u64,
}

/// A session. See the module's words.
#[derive(Debug)]
pub struct Session {
    setup: Setup,
    options: Options,
    /// Of what is said; `None`: the voice's own.
    speech_language: Option<String>,
    /// Of what is heard.
    hearing_language: String,
    /// The far end has answered, and the application knows.
    begun: bool,
    clauses: Clauses,
    /// The language of the words that are no clause yet.
    clause_language: Option<String>,
    queue: Queue,
    /// Turns of both sides.
    turn: u32,
    /// The agent's turn that tokens belong to.
    writing: u32,
    /// The turn's last token has come, or none yet.
    between_turns: bool,
    /// Tokens belong to a turn that was interrupted.
    stale: bool,
    heard: Heard,
    /// What is playing was cut because the far end spoke or pressed a key; told when the engine says how much was heard.
    interrupting: bool,
    /// What is told after that.
    held: Vec<Act>,
    /// The far end began to speak while it could not interrupt, and what it says then is not to be told.
    masked: bool,
    /// The application was told that the agent speaks.
    agent_speaks: bool,
    ending: bool,
    over: bool,
    malformed: u8,
}

impl Session {
    /// A session that waits for the answer; `language` is what is listened to where the options do not say.
    pub fn new(setup: Setup, options: Options, language: &str) -> Self {
        Self {
            setup,
            speech_language: options.speech_language.clone(),
            hearing_language: options.hearing_language.clone().unwrap_or_else(|| language.to_owned()),
            options,
            begun: false,
            clauses: Clauses::default(),
            clause_language: None,
            queue: Queue::default(),
            turn: 0,
            writing: 0,
            between_turns: true,
            stale: false,
            heard: Heard::default(),
            interrupting: false,
            held: Vec::new(),
            masked: false,
            agent_speaks: false,
            ending: false,
            over: false,
            malformed: 0,
        }
    }

    /// The session that comes after this one, with an application that came back: it is told all anew, and nothing of
    /// the old one is said any more.
    pub fn anew(&self, setup: Setup, options: Options, language: &str) -> Self {
        let queue = self.queue.emptied();
        Self { queue, turn: self.turn, ..Self::new(setup, options, language) }
    }

    /// The far end has answered: `setup` goes out, once.
    pub fn begin(&mut self) -> Vec<Act> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        vec![Act::Send(self.setup.frame()), Act::Listen(self.hearing_language.clone())]
    }

    /// A frame of the application's.
    pub fn frame(&mut self, text: &str) -> Vec<Act> {
        let frame = match FromApplication::read(text) {
            Ok(frame) => frame,
            Err(malformed) => return self.refuse(&malformed.0, true),
        };
        if !self.begun {
            return self.refuse("The call is not answered yet", false);
        }
        if self.ending {
            return self.refuse("The session has ended", false);
        }
        self.malformed = 0;
        let mut acts = Vec::new();
        match frame {
            FromApplication::Text { token, last, lang, interruptible, preemptible } => {
                let manner = self.manner(interruptible, preemptible);
                self.text(&token, last, lang, manner, &mut acts);
            }
            FromApplication::Play { source, loops, interruptible, preemptible } => {
                let (interruptible, preemptible) = self.manner(interruptible, preemptible);
                self.stale = false;
                self.begin_turn(&mut acts);
                self.add(What::Sound(source), loops, interruptible, preemptible, &mut acts);
                self.end_turn(&mut acts);
            }
            FromApplication::SendDigits(digits) => acts.push(Act::Press(digits)),
            FromApplication::Language { speech, hearing } => {
                self.speech_language = speech.or(self.speech_language.take());
                if let Some(hearing) = hearing {
                    self.hearing_language.clone_from(&hearing);
                    acts.push(Act::Listen(hearing));
                }
            }
            FromApplication::End(handoff) => {
                self.flush(&mut acts);
                self.end_turn(&mut acts);
                acts.extend(handoff.map(Act::HandOff));
                self.ending = true;
            }
        }
        self.go_on(&mut acts);
        acts
    }

    fn manner(
        &self,
        interruptible: Option<Interruptible>,
        preemptible: Option<bool>,
    ) -> (Interruptible, bool) {
        let own = &self.options;
        (interruptible.unwrap_or(own.interruptible), preemptible.unwrap_or(own.preemptible))
    }

    /// Tells the application that something of its was not done; ten in a row that cannot be read end the session.
    fn refuse(&mut self, why: &str, malformed: bool) -> Vec<Act> {
        let mut acts = vec![Act::Send(frames::error(why))];
        if malformed {
            self.malformed += 1;
            if self.malformed >= MALFORMED_MAX {
                self.over = true;
                acts.push(Act::Close(close::POLICY, "Too many consecutive malformed messages."));
            }
        }
        acts
    }

    /// A piece of a turn's words.
    fn text(
        &mut self,
        token: &str,
        last: bool,
        lang: Option<String>,
        (interruptible, preemptible): (Interruptible, bool),
        acts: &mut Vec<Act>,
    ) {
        if self.stale {
            // The next turn is another.
            self.stale = !last;
            return;
        }
        self.begin_turn(acts);
        let language = lang.or_else(|| self.speech_language.clone());
        if language != self.clause_language {
            self.flush(acts);
            self.clause_language = language;
        }
        let mut clauses = self.clauses.push(token);
        if last {
            clauses.extend(self.clauses.finish());
        }
        for clause in clauses {
            self.add(What::Clause(clause), 1, interruptible, preemptible, acts);
        }
        if last {
            self.end_turn(acts);
        }
    }

    /// What is written so far is a clause.
    fn flush(&mut self, acts: &mut Vec<Act>) {
        let (interruptible, preemptible) = self.queue.back_manner(self.writing).unwrap_or_else(|| {
            let own = &self.options;
            (own.interruptible, own.preemptible)
        });
        if let Some(clause) = self.clauses.finish() {
            self.add(What::Clause(clause), 1, interruptible, preemptible, acts);
        }
    }

    /// The first piece of a turn takes the place of what may be preempted.
    fn begin_turn(&mut self, acts: &mut Vec<Act>) {
        if !std::mem::take(&mut self.between_turns) {
            return;
        }
        self.turn += 1;
        self.writing = self.turn;
        if self.queue.preempt() {
            acts.push(Act::Cut);
        }
    }

    fn end_turn(&mut self, acts: &mut Vec<Act>) {
        let begun = !std::mem::replace(&mut self.between_turns, true);
        // All of it was heard before its end was told.
        if begun && self.heard.turn == self.writing && !self.queue.has_more_of(self.writing) {
            let heard = std::mem::take(&mut self.heard);
            Self::tell_said(&heard, acts);
        }
    }

    fn add(
        &mut self,
        what: What,
        loops: u32,
        interruptible: Interruptible,
        preemptible: bool,
        acts: &mut Vec<Act>,
    ) {
        let language = match &what {
            What::Clause(clause) if clause.trim().is_empty() => return,
            What::Clause(_) => self.clause_language.clone(),
            What::Sound(_) => None,
        };
        let item = Item::new(self.writing, what, language, loops, interruptible, preemptible);
        if !self.queue.push(item) {
            acts.push(Act::Send(frames::error("Too much is waiting to be said")));
        }
    }

    /// Sound for what was asked is there, so many milliseconds of it, or will never be.
    pub fn prepared(&mut self, number: u64, length_ms: Result<u32, String>) -> Vec<Act> {
        let mut acts = Vec::new();
        match length_ms {
            Ok(length_ms) => self.queue.ready(number, length_ms),
            Err(why) => {
                if let Some(item) = self.queue.take(number) {
                    acts.push(Act::Send(frames::error(&why)));
                    self.dropped(&item, &mut acts);
                }
            }
        }
        self.go_on(&mut acts);
        acts
    }

    /// The far end said this; `last`: to its end. What is not the last is replaced by what comes next.
    pub fn understood(&mut self, text: &str, last: bool) -> Vec<Act> {
        let mut acts = Vec::new();
        let text = text.trim();
        if !self.begun || self.ending || self.over || text.is_empty() {
            return acts;
        }
        let meant = match self.options.sensitivity {
            Sensitivity::High | Sensitivity::Medium => true,
            Sensitivity::Low => last || text.split_whitespace().nth(1).is_some(),
        };
        if meant {
            self.barge_in(|item| item.interruptible.speech, &mut acts);
        }
        let masked = self.masked && self.queue.front_playing(|item| !item.interruptible.speech);
        if !masked {
            let mut told = Vec::new();
            if last || self.options.partial {
                told.push(Act::Send(frames::prompt(text, &self.hearing_language, last)));
            }
            if last {
                self.turn += 1;
                told.push(Act::Said(Speaker::Caller, text.to_owned(), self.turn));
            } else {
                told.push(Act::Saying(Speaker::Caller, text.to_owned(), self.turn + 1));
            }
            self.after_interruption(told, &mut acts);
        }
        self.go_on(&mut acts);
        acts
    }

    /// Something was overheard on the line. `playback` turns the engine's name of a playback into ours.
    pub fn overheard(&mut self, what: &Overheard, playback: impl Fn(&str) -> Option<u64>) -> Vec<Act> {
        let mut acts = Vec::new();
        match what {
            Overheard::Answered => return self.begin(),
            Overheard::Digit(digit) => self.digit(*digit, &mut acts),
            Overheard::Talk { on } => self.talk(*on, &mut acts),
            Overheard::Began { playback: name } => {
                let ours = playback(name).is_some_and(|number| self.queue.is_playing(number));
                if ours {
                    self.tell_speaker(true, &mut acts);
                }
            }
            Overheard::Played { playback: name, completed, played_ms } => {
                if let Some(number) = playback(name) {
                    self.played(number, *completed, *played_ms, &mut acts);
                }
            }
            Overheard::TransferFailed => {}
            Overheard::Transferred => {
                self.over = true;
                acts.push(Act::Close(close::NORMAL, "The call was transferred."));
            }
        }
        self.go_on(&mut acts);
        acts
    }

    fn digit(&mut self, digit: char, acts: &mut Vec<Act>) {
        if !self.begun || self.ending || !self.options.dtmf {
            return;
        }
        let masked = !self.options.report.dtmf && self.queue.front_playing(|item| !item.interruptible.dtmf);
        self.barge_in(|item| item.interruptible.dtmf, acts);
        if !masked {
            self.after_interruption(vec![Act::Send(frames::dtmf(digit))], acts);
        }
    }

    fn talk(&mut self, on: bool, acts: &mut Vec<Act>) {
        if !self.begun {
            return;
        }
        if on {
            self.masked =
                !self.options.report.speech && self.queue.front_playing(|item| !item.interruptible.speech);
            if self.options.sensitivity == Sensitivity::High {
                self.barge_in(|item| item.interruptible.speech, acts);
            }
        }
        if self.options.info.speakers {
            acts.push(Act::Send(frames::info("clientSpeaking", if on { "on" } else { "off" })));
        }
    }

    /// The far end speaks or presses a key while something is heard that it may interrupt.
    fn barge_in(&mut self, may: impl Fn(&Item) -> bool, acts: &mut Vec<Act>) {
        if self.interrupting || !self.queue.front_playing(&may) {
            return;
        }
        self.interrupting = true;
        self.clauses.clear();
        // What still comes of this turn was written before the application knows; what comes next is another turn.
        self.stale = !self.between_turns;
        self.between_turns = true;
        self.queue.interrupt(may);
        acts.push(Act::Cut);
    }

    /// What an interruption is told before.
    fn after_interruption(&mut self, told: Vec<Act>, acts: &mut Vec<Act>) {
        if !self.interrupting {
            acts.extend(told);
        } else if self.held.len() < HELD_MAX {
            self.held.extend(told);
        }
    }

    fn played(&mut self, number: u64, completed: bool, played_ms: u32, acts: &mut Vec<Act>) {
        let Some(item) = self.queue.get(number) else { return };
        if self.heard.turn != item.turn {
            self.heard = Heard { turn: item.turn, ..Heard::default() };
        }
        self.heard.ms += u64::from(played_ms);
        if let What::Clause(clause) = &item.what {
            let part = if completed { clause } else { prefix(clause, played_ms, item.length_ms) };
            self.heard.text.push_str(part);
            if !part.is_empty() {
                acts.push(Act::Saying(Speaker::Agent, self.heard.text.trim().to_owned(), item.turn));
                if self.options.info.tokens {
                    acts.push(Act::Send(frames::info("tokensPlayed", part.trim())));
                }
            }
        }
        if completed && !self.interrupting && self.queue.again(number) {
            return;
        }
        if let Some(item) = self.queue.take(number) {
            self.dropped(&item, acts);
        }
        if !self.queue.plays() {
            self.tell_speaker(false, acts);
            self.interrupted(acts);
        }
    }

    /// Everything that was cut is told of: now the application is.
    fn interrupted(&mut self, acts: &mut Vec<Act>) {
        if !std::mem::take(&mut self.interrupting) {
            return;
        }
        let heard = std::mem::take(&mut self.heard);
        acts.push(Act::Send(frames::interrupt(heard.text.trim_end(), heard.ms)));
        Self::tell_said(&heard, acts);
        self.stale = false;
        acts.append(&mut self.held);
    }

    fn tell_speaker(&mut self, on: bool, acts: &mut Vec<Act>) {
        if std::mem::replace(&mut self.agent_speaks, on) != on && self.options.info.speakers {
            acts.push(Act::Send(frames::info("agentSpeaking", if on { "on" } else { "off" })));
        }
    }

    /// An item is gone; with the last of a turn the turn is told.
    fn dropped(&mut self, item: &Item, acts: &mut Vec<Act>) {
        let more = self.queue.has_more_of(item.turn) || (item.turn == self.writing && !self.between_turns);
        if !more && !self.interrupting && self.heard.turn == item.turn {
            let heard = std::mem::take(&mut self.heard);
            Self::tell_said(&heard, acts);
        }
    }

    fn tell_said(heard: &Heard, acts: &mut Vec<Act>) {
        let text = heard.text.trim();
        if !text.is_empty() {
            acts.push(Act::Said(Speaker::Agent, text.to_owned(), heard.turn));
        }
    }

    /// The application is gone: what was heard of its turn, and nothing is said any more.
    pub fn leave(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        let heard = std::mem::take(&mut self.heard);
        Self::tell_said(&heard, &mut acts);
        self.over = true;
        acts
    }

    /// Whether the application wants to know how long a round trip takes.
    pub fn tells_round_trips(&self) -> bool {
        self.options.info.round_trip
    }

    /// A round trip to the application took so long.
    pub fn round_trip(&self, ms: u128) -> Vec<Act> {
        let told = self.options.info.round_trip && self.begun;
        told.then(|| Act::Send(frames::info("roundTripDelayMs", &ms.to_string()))).into_iter().collect()
    }

    /// Sends on what can go on.
    fn go_on(&mut self, acts: &mut Vec<Act>) {
        if self.over || self.interrupting {
            return;
        }
        self.queue.go_on(acts);
        if self.ending && self.queue.is_empty() {
            self.over = true;
            acts.push(Act::Done);
        }
    }
}

/// As much of a clause as was heard, by the share of its sound; whole characters.
fn prefix(clause: &str, played_ms: u32, length_ms: u32) -> &str {
    // The blanks around it make no sound.
    let begin = clause.len() - clause.trim_start().len();
    let all = clause.trim().chars().count() as u64;
    let heard = all * u64::from(played_ms.min(length_ms)) / u64::from(length_ms.max(1));
    let heard = usize::try_from(heard).unwrap_or(usize::MAX);
    if heard == 0 {
        return "";
    }
    let spoken = clause.get(begin..).unwrap_or_default();
    let end = spoken.char_indices().nth(heard).map_or(clause.len(), |(at, _)| begin + at);
    clause.get(..end).unwrap_or(clause).trim_end()
}
