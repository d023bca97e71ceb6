//! One ConversationRelay session in which we are the platform (CONTRACT 1.2 `/relay/ws` uses b and c): what an
//! application says becomes speech in order, what the far end does becomes frames. Pure: frames, things overheard on
//! the line and finished sounds go in, [`Act`]s come out. It never speaks, dials or waits.

use std::collections::VecDeque;

use super::clauses::Clauses;
use super::frames::{self, FromApplication, Interruptible, Setup};
use crate::model::call::Overheard;

/// Malformed frames in a row that end a session (CONTRACT 1.2, X31).
const MALFORMED_MAX: u8 = 10;
/// Clauses and sounds that may wait.
const QUEUE_MAX: usize = 200;
/// Of those so many are with the engine, so that one follows the other without a gap and little must be taken back.
const AHEAD: usize = 2;
/// And so many are being made into sound.
const PREPARED: usize = 4;

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
    /// Make these words into sound, and say so by [`Session::prepared`].
    Speak(u64, String),
    /// Fetch this sound, and say so likewise.
    Fetch(u64, String),
    /// Play what was prepared under this number.
    Play(u64),
    /// Cut what is playing.
    Cut,
    /// Press these keys.
    Press(String),
    /// The agent has said this so far.
    Saying(String, u32),
    /// The agent's turn, as far as it was heard.
    Said(String, u32),
    /// The application gave the call back with these words.
    HandOff(String),
    /// The session is over by the application's will, and everything is said.
    Done,
    /// Close with this code for this reason.
    Close(u16, &'static str),
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Clause(String),
    Sound(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waiting,
    Preparing,
    Ready,
    Playing,
}

/// Something to be heard.
#[derive(Debug)]
struct Item {
    number: u64,
    turn: u32,
    what: What,
    /// How often it is still to be heard.
    loops: u32,
    ends_turn: bool,
    interruptible: Interruptible,
    preemptible: bool,
    stage: Stage,
    length_ms: u32,
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
    /// The far end has answered, and the application knows.
    begun: bool,
    clauses: Clauses,
    items: VecDeque<Item>,
    next: u64,
    turn: u32,
    /// The turn's last token has come, or none yet.
    between_turns: bool,
    heard: Heard,
    /// What is playing was cut because the far end spoke or pressed a key; told when the engine says how much was heard.
    interrupting: bool,
    ending: bool,
    over: bool,
    malformed: u8,
}

impl Session {
    /// A session that waits for the answer.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            begun: false,
            clauses: Clauses::default(),
            items: VecDeque::new(),
            next: 0,
            turn: 0,
            between_turns: true,
            heard: Heard::default(),
            interrupting: false,
            ending: false,
            over: false,
            malformed: 0,
        }
    }

    /// The far end has answered: `setup` goes out, once.
    pub fn begin(&mut self) -> Vec<Act> {
        if std::mem::replace(&mut self.begun, true) {
            Vec::new()
        } else {
            vec![Act::Send(self.setup.frame())]
        }
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
            FromApplication::Text { token, last, interruptible, preemptible } => {
                self.begin_turn(&mut acts);
                for clause in self.clauses.push(&token, last) {
                    self.add(What::Clause(clause), 1, interruptible, preemptible, &mut acts);
                }
                if last {
                    self.end_turn();
                }
            }
            FromApplication::Play { source, loops, interruptible, preemptible } => {
                self.begin_turn(&mut acts);
                self.add(What::Sound(source), loops, interruptible, preemptible, &mut acts);
                self.end_turn();
            }
            FromApplication::SendDigits(digits) => acts.push(Act::Press(digits)),
            FromApplication::Language => {}
            FromApplication::End(handoff) => {
                acts.extend(handoff.map(Act::HandOff));
                self.ending = true;
            }
        }
        self.go_on(&mut acts);
        acts
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

    /// The first piece of a turn takes the place of what may be preempted.
    fn begin_turn(&mut self, acts: &mut Vec<Act>) {
        if !std::mem::take(&mut self.between_turns) {
            return;
        }
        self.turn += 1;
        let cut = self.items.front().is_some_and(|item| item.stage == Stage::Playing && item.preemptible);
        self.items.retain(|item| !item.preemptible || item.stage == Stage::Playing);
        if cut {
            acts.push(Act::Cut);
        }
    }

    fn end_turn(&mut self) {
        self.between_turns = true;
        if let Some(last) = self.items.back_mut().filter(|item| item.turn == self.turn) {
            last.ends_turn = true;
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
        if matches!(&what, What::Clause(clause) if clause.trim().is_empty()) {
            return;
        }
        if self.items.len() >= QUEUE_MAX {
            acts.push(Act::Send(frames::error("Too much is waiting to be said")));
            return;
        }
        let (number, turn) = (self.next, self.turn);
        self.next += 1;
        self.items.push_back(Item {
            number,
            turn,
            what,
            loops,
            ends_turn: false,
            interruptible,
            preemptible,
            stage: Stage::Waiting,
            length_ms: 0,
        });
    }

    /// Sound for what was asked is there, so many milliseconds of it, or will never be.
    pub fn prepared(&mut self, number: u64, length_ms: Result<u32, String>) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(at) = self.items.iter().position(|item| item.number == number) else { return acts };
        match length_ms {
            Ok(length_ms) => {
                if let Some(item) = self.items.get_mut(at) {
                    (item.stage, item.length_ms) = (Stage::Ready, length_ms);
                }
            }
            Err(why) => {
                acts.push(Act::Send(frames::error(&why)));
                self.drop_item(at, &mut acts);
            }
        }
        self.go_on(&mut acts);
        acts
    }

    /// Something was overheard on the line. `playback` turns the engine's name of a playback into ours.
    pub fn overheard(&mut self, what: &Overheard, playback: impl Fn(&str) -> Option<u64>) -> Vec<Act> {
        let mut acts = Vec::new();
        match what {
            Overheard::Answered => return self.begin(),
            Overheard::Digit(digit) => {
                if self.begun {
                    acts.push(Act::Send(frames::dtmf(*digit)));
                    self.barge_in(|item| item.interruptible.dtmf, &mut acts);
                }
            }
            Overheard::Talk { on: true } => self.barge_in(|item| item.interruptible.speech, &mut acts),
            Overheard::Talk { on: false } | Overheard::Began { .. } => {}
            Overheard::Played { playback: name, completed, played_ms } => {
                if let Some(number) = playback(name) {
                    self.played(number, *completed, *played_ms, &mut acts);
                }
            }
            Overheard::Transferred => {
                self.over = true;
                acts.push(Act::Close(close::NORMAL, "The call was transferred."));
            }
        }
        self.go_on(&mut acts);
        acts
    }

    /// The far end speaks or presses a key while something is heard that it may interrupt.
    fn barge_in(&mut self, may: impl Fn(&Item) -> bool, acts: &mut Vec<Act>) {
        let playing = self.items.front().is_some_and(|item| item.stage == Stage::Playing && may(item));
        if !playing || self.interrupting {
            return;
        }
        self.interrupting = true;
        self.clauses.clear();
        // Applications drop what they were saying when they hear of it: what comes next is another turn.
        self.between_turns = true;
        self.items.retain(|item| item.stage == Stage::Playing || !may(item));
        acts.push(Act::Cut);
    }

    fn played(&mut self, number: u64, completed: bool, played_ms: u32, acts: &mut Vec<Act>) {
        let Some(at) = self.items.iter().position(|item| item.number == number) else { return };
        let Some(item) = self.items.get_mut(at) else { return };
        if self.heard.turn != item.turn {
            self.heard = Heard { turn: item.turn, ..Heard::default() };
        }
        self.heard.ms += u64::from(played_ms);
        if let What::Clause(clause) = &item.what {
            let part = if completed { clause } else { prefix(clause, played_ms, item.length_ms) };
            self.heard.text.push_str(part);
            if !part.is_empty() {
                acts.push(Act::Saying(self.heard.text.trim().to_owned(), item.turn));
            }
        }
        item.loops = item.loops.saturating_sub(1);
        if completed && item.loops > 0 && !self.interrupting {
            item.stage = Stage::Ready;
            return;
        }
        self.drop_item(at, acts);
        let playing = self.items.iter().any(|item| item.stage == Stage::Playing);
        if self.interrupting && !playing {
            self.interrupting = false;
            let heard = std::mem::take(&mut self.heard);
            acts.push(Act::Send(frames::interrupt(heard.text.trim_end(), heard.ms)));
            Self::tell_said(&heard, acts);
        }
    }

    /// Takes an item out; with the last of a turn the turn is told.
    fn drop_item(&mut self, at: usize, acts: &mut Vec<Act>) {
        let Some(item) = self.items.remove(at) else { return };
        let more = self.items.iter().any(|other| other.turn == item.turn);
        if !more && item.ends_turn && !self.interrupting {
            let heard = std::mem::take(&mut self.heard);
            Self::tell_said(&heard, acts);
        }
    }

    fn tell_said(heard: &Heard, acts: &mut Vec<Act>) {
        let text = heard.text.trim();
        if !text.is_empty() {
            acts.push(Act::Said(text.to_owned(), heard.turn));
        }
    }

    /// Sends on what can go on.
    fn go_on(&mut self, acts: &mut Vec<Act>) {
        if self.over || self.interrupting {
            return;
        }
        for item in self.items.iter_mut().take(PREPARED).filter(|item| item.stage == Stage::Waiting) {
            item.stage = Stage::Preparing;
            acts.push(match &item.what {
                What::Clause(clause) => Act::Speak(item.number, clause.trim().to_owned()),
                What::Sound(source) => Act::Fetch(item.number, source.clone()),
            });
        }
        for item in self.items.iter_mut().take(AHEAD) {
            match item.stage {
                Stage::Playing => {}
                Stage::Ready => {
                    item.stage = Stage::Playing;
                    acts.push(Act::Play(item.number));
                }
                Stage::Waiting | Stage::Preparing => break,
            }
        }
        if self.ending && self.items.is_empty() {
            self.over = true;
            acts.push(Act::Done);
        }
    }
}

/// As much of a clause as was heard, by the share of its sound; whole characters.
fn prefix(clause: &str, played_ms: u32, length_ms: u32) -> &str {
    let all = clause.chars().count() as u64;
    let heard = all * u64::from(played_ms.min(length_ms)) / u64::from(length_ms.max(1));
    let end = clause.char_indices().nth(usize::try_from(heard).unwrap_or(usize::MAX)).map(|(at, _)| at);
    clause.get(..end.unwrap_or(clause.len())).unwrap_or(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let setup = Setup {
            session: "VX1".into(),
            account: "AC1".into(),
            call: "CA1".into(),
            from: "+1".into(),
            to: "+2".into(),
            direction: "outbound",
            parameters: serde_json::Map::new(),
        };
        let mut session = Session::new(setup);
        assert!(matches!(session.begin().as_slice(), [Act::Send(setup)] if setup.contains("\"setup\"")));
        session
    }

    fn say(session: &mut Session, token: &str, last: bool) -> Vec<Act> {
        session.frame(&frames::text(token, last))
    }

    fn played(session: &mut Session, number: u64, completed: bool, played_ms: u32) -> Vec<Act> {
        let what = Overheard::Played { playback: number.to_string(), completed, played_ms };
        session.overheard(&what, |name| name.parse().ok())
    }

    #[test]
    fn words_are_spoken_in_order_and_told() {
        let mut session = session();
        assert_eq!(say(&mut session, "One. Two", false), [Act::Speak(0, "One.".into())]);
        assert_eq!(say(&mut session, " three.", true), [Act::Speak(1, "Two three.".into())]);
        // The second is ready first, and waits.
        assert_eq!(session.prepared(1, Ok(800)), []);
        assert_eq!(session.prepared(0, Ok(500)), [Act::Play(0), Act::Play(1)]);
        assert_eq!(played(&mut session, 0, true, 500), [Act::Saying("One.".into(), 1)]);
        let told = [Act::Saying("One. Two three.".into(), 1), Act::Said("One. Two three.".into(), 1)];
        assert_eq!(played(&mut session, 1, true, 800), told);
        assert_eq!(
            session.frame(r#"{"type":"end","handoffData":"x"}"#),
            [Act::HandOff("x".into()), Act::Done]
        );
    }

    #[test]
    fn whoever_speaks_is_let_speak() {
        let mut session = session();
        let _ = say(&mut session, "Your appointment is on Tuesday. And so on.", true);
        let _ = session.prepared(0, Ok(2000));
        let _ = session.prepared(1, Ok(1000));
        let talk = Overheard::Talk { on: true };
        assert_eq!(session.overheard(&talk, |_| None), [Act::Cut]);
        assert_eq!(session.overheard(&talk, |_| None), []);
        let acts = played(&mut session, 0, false, 1000);
        assert!(matches!(acts.as_slice(), [Act::Saying(..)]), "{acts:?}");
        let acts = played(&mut session, 1, false, 0);
        let [Act::Send(interrupt), Act::Said(said, 1)] = acts.as_slice() else { panic!("{acts:?}") };
        let interrupt: serde_json::Value = serde_json::from_str(interrupt).unwrap();
        assert_eq!(interrupt["type"], "interrupt");
        assert_eq!(interrupt["durationUntilInterruptMs"], 1000);
        let heard = interrupt["utteranceUntilInterrupt"].as_str().unwrap();
        assert!("Your appointment is on Tuesday.".starts_with(heard) && heard.len() >= 14, "{heard}");
        assert_eq!(said, heard);
        // The next turn goes out as if nothing had been.
        assert_eq!(say(&mut session, "Sorry.", true), [Act::Speak(2, "Sorry.".into())]);
    }

    #[test]
    fn what_may_not_be_interrupted_is_not() {
        let mut session = session();
        let _ = session.frame(r#"{"type":"text","token":"Listen.","last":true,"interruptible":"dtmf"}"#);
        let _ = session.prepared(0, Ok(900));
        assert_eq!(session.overheard(&Overheard::Talk { on: true }, |_| None), []);
        let acts = session.overheard(&Overheard::Digit('5'), |_| None);
        assert_eq!(acts, [Act::Send(frames::dtmf('5')), Act::Cut]);
    }

    #[test]
    fn a_turn_that_may_be_preempted_is() {
        let mut session = session();
        let _ = session.frame(r#"{"type":"text","token":"Please wait.","last":true,"preemptible":true}"#);
        let _ = session.prepared(0, Ok(900));
        assert_eq!(say(&mut session, "Done.", true), [Act::Cut, Act::Speak(1, "Done.".into())]);
        let _ = played(&mut session, 0, false, 300);
        assert_eq!(session.prepared(1, Ok(300)), [Act::Play(1)]);
    }

    #[test]
    fn a_sound_is_played_as_often_as_asked() {
        let mut session = session();
        let acts = session.frame(r#"{"type":"play","source":"https://x/y.wav","loop":2}"#);
        assert_eq!(acts, [Act::Fetch(0, "https://x/y.wav".into())]);
        assert_eq!(session.prepared(0, Ok(300)), [Act::Play(0)]);
        assert_eq!(played(&mut session, 0, true, 300), [Act::Play(0)]);
        assert_eq!(played(&mut session, 0, true, 300), []);
        let _ = session.frame(r#"{"type":"play","source":"file:///x"}"#);
        assert_eq!(session.prepared(1, Err("no".into())), [Act::Send(frames::error("no"))]);
    }

    #[test]
    fn ten_malformed_frames_in_a_row_end_it() {
        let mut session = session();
        for round in 0..2 {
            for _ in 0..9 {
                assert!(matches!(session.frame("{}").as_slice(), [Act::Send(_)]));
            }
            if round == 0 {
                assert_eq!(session.frame(r#"{"type":"sendDigits","digits":"1"}"#), [Act::Press("1".into())]);
            }
        }
        let acts = session.frame("nonsense");
        assert!(matches!(acts.as_slice(), [Act::Send(_), Act::Close(1008, _)]), "{acts:?}");
    }

    #[test]
    fn nothing_is_said_before_the_answer() {
        let mut session = session();
        session.begun = false;
        let acts = say(&mut session, "Hello", true);
        assert_eq!(acts, [Act::Send(frames::error("The call is not answered yet"))]);
        let acts = session.overheard(&Overheard::Answered, |_| None);
        assert!(matches!(acts.as_slice(), [Act::Send(_)]));
    }
}
