//! The agent in writing: a platform has the line and the voice, tells what the caller says, and is told what to say
//! (CONTRACT 1.2 `/relay/ws` use a). The same [`Agent`] decides; what it says is heard for as long as such words take,
//! unless the platform says that it was cut short. Owns the thoughts of one such conversation; sends nothing itself.

mod guess;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use self::guess::{Guess, Share};
use super::driver::{self, speaker};
use super::thought::{self, News, Thought};
use super::{Act, Agent, Manner, Role, Said, Sense, Tool, Used, asking};
use crate::clock;
use crate::control::Rooms;
use crate::llm::{Llm, ToolCall};
use crate::model::PhoneNumber;
use crate::model::call::CallOrder;
use crate::model::event::{CallEvent, Stamped};

/// What the model says may wait to be taken in.
const NEWS_MAX: usize = 64;
/// Whoever is cut short has said something; what, comes later.
const MUTTERED: &str = "(the caller speaks)";

/// What goes to the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Words, with their blanks; `last`: they end the turn.
    Token {
        /// The words.
        text: String,
        /// Nothing of the turn comes after them.
        last: bool,
    },
    /// Keys to be pressed.
    Press(String),
    /// The agent is done.
    End(Ending),
}

/// Why the agent is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The call is over.
    HangUp,
    /// The caller is to be put through to this number.
    Transfer(PhoneNumber),
}

/// One conversation.
pub struct Writer {
    rooms: Rooms,
    llm: Llm,
    asks: reqwest::Client,
    order: Arc<CallOrder>,
    agent: Agent,
    guess: Guess,
    thought: Option<Thought>,
    /// The generation of what is thought, or was last.
    thinking: u32,
    news: mpsc::Receiver<News>,
    tell_news: mpsc::Sender<News>,
    asking: JoinSet<Used>,
    turns: u32,
    /// Words of a turn have gone out, and its end has not.
    in_turn: bool,
    /// What the platform says was heard, while that is taken in.
    heard: Option<String>,
}

impl Writer {
    /// A conversation before its first word; `asks` goes to the customer's own functions.
    pub fn new(rooms: Rooms, llm: Llm, asks: reqwest::Client, order: Arc<CallOrder>, manner: Manner) -> Self {
        let (tell_news, news) = mpsc::channel(NEWS_MAX);
        Self {
            rooms,
            llm,
            asks,
            order,
            agent: Agent::new(manner),
            guess: Guess::default(),
            thought: None,
            thinking: 0,
            news,
            tell_news,
            asking: JoinSet::new(),
            turns: 0,
            in_turn: false,
            heard: None,
        }
    }

    /// The platform has the caller on the line.
    pub fn begin(&mut self) -> Vec<Written> {
        self.sense(Sense::Answered)
    }

    /// The caller says something, so far.
    pub fn saying(&self, text: String) {
        let said = Said { role: Role::Caller, text };
        driver::tell_saying(&self.rooms, &self.order, said, self.turns + 1);
    }

    /// The caller said this. Nothing was cut short, or that was told before.
    pub fn said(&mut self, text: String) -> Vec<Written> {
        let mut written = self.all_heard();
        written.extend(self.sense(Sense::Final(text)));
        written
    }

    /// The caller pressed a key.
    pub fn pressed(&mut self, digit: char) -> Vec<Written> {
        let mut written = self.all_heard();
        written.extend(self.sense(Sense::Digit(digit)));
        written
    }

    /// The platform cut the present turn short; so much of it was heard.
    pub fn interrupted(&mut self, heard: String) -> Vec<Written> {
        // The platform knows that this turn is over.
        self.in_turn = false;
        self.heard = Some(heard);
        let written = self.sense(Sense::Partial(MUTTERED.to_owned()));
        self.heard = None;
        self.in_turn = false;
        written
    }

    /// Waits for the next thing that happens by itself. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Vec<Written> {
        let due = [self.agent.deadline(), self.guess.due()].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| clock::now().mono + Duration::from_secs(3600));
        tokio::select! {
            Some(news) = self.news.recv() => match news {
                News::Sense(sense) => {
                    // The end of an answer that was given up is not that of the one that is thought now.
                    if let Sense::Thought(of) | Sense::Failed(of) = sense
                        && of == self.thinking
                    {
                        self.thought = None;
                    }
                    self.sense(sense)
                }
                // Nobody measures how long a platform takes.
                News::Mark(..) => Vec::new(),
            },
            Some(Ok(used)) = self.asking.join_next() => self.sense(Sense::Gave(used)),
            () = sleep_until(due.into()) => self.due(),
        }
    }

    fn due(&mut self) -> Vec<Written> {
        let now = clock::now().mono;
        let mut written = Vec::new();
        for share in self.guess.over(now) {
            written.extend(self.heard_share(share));
        }
        if self.agent.deadline().is_some_and(|due| due <= now) {
            written.extend(self.sense(Sense::Timeout));
        }
        written
    }

    /// The conversation is over: what was being said is part of what was said.
    pub fn finish(mut self) {
        self.thought = None;
        let now = clock::now().mono;
        let rest = self.guess.at(now);
        let mut acts = Vec::new();
        for Share { id, heard, all } in rest {
            acts.extend(self.agent.sense(now, Sense::Began(id, all)));
            acts.extend(self.agent.sense(now, Sense::Played(id, heard, heard >= all)));
        }
        acts.extend(self.agent.finish(now));
        for act in acts {
            if let Act::Turn(said) = act {
                self.record(said);
            }
        }
        // What customers were asked to do is done to its end, also where nobody hears of it any more.
        self.asking.detach_all();
    }

    fn all_heard(&mut self) -> Vec<Written> {
        let mut written = Vec::new();
        for share in self.guess.all() {
            written.extend(self.heard_share(share));
        }
        written
    }

    /// So much of a clause was heard, told in characters instead of milliseconds.
    fn heard_share(&mut self, Share { id, heard, all }: Share) -> Vec<Written> {
        let mut written = self.sense(Sense::Began(id, all));
        written.extend(self.sense(Sense::Played(id, heard, heard >= all)));
        written
    }

    /// Tells the agent and collects what the platform is told of it.
    fn sense(&mut self, sense: Sense) -> Vec<Written> {
        let mut written = Vec::new();
        let mut acts: VecDeque<Act> = self.agent.sense(clock::now().mono, sense).into();
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Think(generation) => self.think(generation),
                Act::StopThinking => self.thought = None,
                Act::Speak(id, text) => {
                    self.guess.say(clock::now().mono, id, &text);
                    let last = self.thought.is_none();
                    self.in_turn = !last;
                    let text = if last { text } else { format!("{text} ") };
                    written.push(Written::Token { text, last });
                }
                // The platform holds and cuts by itself.
                Act::Hold(_) => {}
                Act::Cut => {
                    let heard = self.heard.take();
                    let now = clock::now().mono;
                    let shares = match &heard {
                        Some(heard) => self.guess.cut(heard),
                        None => self.guess.at(now),
                    };
                    for Share { id, heard, all } in shares {
                        acts.extend(self.agent.sense(now, Sense::Began(id, all)));
                        acts.extend(self.agent.sense(now, Sense::Played(id, heard, false)));
                    }
                }
                Act::Use(tool) => self.use_tool(tool, &mut written),
                Act::Ask(call) => self.ask(call),
                Act::Saying(said) => {
                    if said.text != MUTTERED {
                        driver::tell_saying(&self.rooms, &self.order, said, self.turns + 1);
                    }
                }
                Act::Turn(said) => self.record(said),
                Act::HangUp => written.push(Written::End(Ending::HangUp)),
            }
        }
        if self.in_turn && self.thought.is_none() {
            self.in_turn = false;
            written.push(Written::Token { text: String::new(), last: true });
        }
        written
    }

    fn think(&mut self, generation: u32) {
        self.thinking = generation;
        let ask = thought::question(&self.agent, &thought::about(&self.rooms, &self.order));
        self.thought = Some(thought::think(self.llm.clone(), ask, generation, self.tell_news.clone()));
    }

    fn use_tool(&mut self, tool: Tool, written: &mut Vec<Written>) {
        match tool {
            Tool::HangUp => written.push(Written::End(Ending::HangUp)),
            Tool::SendDigits(digits) => {
                let keys = |c: char| c.is_ascii_digit() || matches!(c, '*' | '#' | 'w');
                if !digits.is_empty() && digits.chars().all(keys) {
                    written.push(Written::Press(digits));
                }
            }
            Tool::Transfer(to) => match PhoneNumber::parse_lenient(&to) {
                Some(to) => written.push(Written::End(Ending::Transfer(to))),
                None => {
                    // What the model wrote is no number: it is told, and says so.
                    let _ = self.tell_news.try_send(News::Sense(Sense::TransferFailed));
                }
            },
        }
    }

    /// Calls a customer's function, beside everything else.
    fn ask(&mut self, call: ToolCall) {
        let tools = &self.agent.manner().tools;
        let asked = asking::begin(&mut self.asking, &self.rooms, &self.asks, &self.order, tools, call);
        if let Err(refused) = asked {
            // Where so much waits, one thing more cannot be taken in.
            let _ = self.tell_news.try_send(News::Sense(Sense::Gave(refused)));
        }
    }

    fn record(&mut self, said: Said) {
        self.turns += 1;
        let event = CallEvent::Said { by: speaker(said.role), text: said.text, turn: self.turns, span: None };
        self.rooms.journal.record(Stamped { call: self.order.id, at: clock::now().wall, event });
    }
}
