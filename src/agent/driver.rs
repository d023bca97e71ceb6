//! The agent at work on one call: a task between the line, the recogniser, the language model and the mouth, and the
//! pure [`Agent`] that decides. It ends with the call, or when the call is put through to a person.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use media::Tap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::asking;
use super::meter::{Mark, Meter};
use super::mouth::Mouth;
use super::speaking::Sounding;
use super::thought::{self, News, Thought};
use super::{Act, Agent, Manner, Role, Said, Sense, Tool, Used};
use crate::clock;
use crate::control::apology::apologise;
use crate::control::{Caller, Calls, Named, Refusal, Rooms};
use crate::hearing::{Ears, Hearing, HearingEvent, Listening, Words};
use crate::journal::{Notice, Told};
use crate::llm::{Llm, ToolCall};
use crate::model::agent::Voicemail;
use crate::model::call::{AmdStatus, CallOrder, CallState, Command, Overheard};
use crate::model::event::{CallEvent, Speaker, Stamped};
use crate::model::turn::{Span, TurnTimes};
use crate::model::{PhoneNumber, Timestamp};

/// How often the tap is emptied: a frame's length.
const FRAME: Duration = Duration::from_millis(20);
/// What the model says may wait to be taken in.
const NEWS_MAX: usize = 64;
/// What happens to the call may wait likewise.
const FACTS_MAX: usize = 1000;
/// Silence of the line by which the end of speech is noticed: it was over so long before.
const NOTICED_AFTER: Duration = Duration::from_millis(200);

/// What agents understand and think with.
#[derive(Clone, Debug)]
pub struct Minds {
    /// Sound to text.
    pub hearing: Hearing,
    /// Text to text.
    pub llm: Llm,
    /// Asks the functions of customers.
    pub asks: reqwest::Client,
}

/// A call that an agent is to talk on.
pub struct Assignment {
    /// The rooms below.
    pub rooms: Rooms,
    /// For what agents do beyond talking.
    pub calls: Arc<Calls>,
    /// With what it thinks.
    pub minds: Minds,
    /// Under whose rules it may put calls through.
    pub caller: Caller,
    /// The call.
    pub order: Arc<CallOrder>,
    /// What happens on its line.
    pub overheard: mpsc::Receiver<Overheard>,
    /// How it behaves.
    pub manner: Manner,
    /// BCP 47.
    pub language: String,
}

/// What is spoken, by whom, since when.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    /// The caller's utterance that goes on.
    caller: Option<Span>,
    /// The agent's turn.
    pub(super) agent: Option<Span>,
}

pub(super) struct Work {
    pub(super) rooms: Rooms,
    calls: Arc<Calls>,
    minds: Minds,
    caller: Caller,
    pub(super) order: Arc<CallOrder>,
    pub(super) agent: Agent,
    pub(super) mouth: Mouth,
    pub(super) sounding: VecDeque<Sounding>,
    thought: Option<Thought>,
    news: mpsc::Sender<News>,
    asking: JoinSet<Used>,
    /// The agent has asked for a transfer.
    transferring: bool,
    turns: u32,
    pub(super) pieces: u64,
    pub(super) spoken: Spoken,
    pub(super) meter: Meter,
}

/// What comes in from outside of the call.
struct Sources {
    overheard: mpsc::Receiver<Overheard>,
    news: mpsc::Receiver<News>,
    /// What happens to the call, where the agent cares who answers.
    facts: Option<mpsc::Receiver<Arc<Told>>>,
    tap: Tap,
    frames: Interval,
    ears: Ears,
    words: Words,
}

/// Talks until the call is over or put through.
pub async fn run(assignment: Assignment) {
    let Assignment { rooms, calls, minds, caller, order, overheard, manner, language } = assignment;
    let listening = Listening { language, hints: Vec::new() };
    let (ears, words) = match minds.hearing.listen(listening) {
        Ok(both) => both,
        Err(error) => {
            tracing::error!(call = %order.id, %error, "the agent cannot listen");
            return apologise(&rooms, order.id, &order.voice_name).await;
        }
    };
    let (sender, news) = mpsc::channel(NEWS_MAX);
    let cares = manner.voicemail != Voicemail::Continue;
    let facts = cares.then(|| rooms.journal.feed().listen(None, Some(order.id), FACTS_MAX));
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sources = Sources { overheard, news, facts, tap: Tap::new(), frames, ears, words };
    let mut work = Work {
        mouth: Mouth::new(rooms.speech.clone(), order.voice_name.clone()),
        agent: Agent::new(manner),
        rooms,
        calls,
        minds,
        caller,
        order,
        sounding: VecDeque::new(),
        thought: None,
        news: sender,
        asking: JoinSet::new(),
        transferring: false,
        turns: 0,
        pieces: 0,
        spoken: Spoken::default(),
        meter: Meter::new(clock::now()),
    };
    if work.is_answered() {
        work.begin(&sources.tap).await;
    }
    while work.step(&mut sources).await {}
    work.finish().await;
}

impl Work {
    /// Waits for one thing and does what follows from it; `false` when there is nothing left to do.
    async fn step(&mut self, sources: &mut Sources) -> bool {
        let due = self.agent.deadline().unwrap_or_else(|| clock::now().mono + Duration::from_secs(3600));
        let Sources { overheard, news, facts, tap, frames, ears, words } = sources;
        let fact = async {
            match facts {
                Some(facts) => facts.recv().await,
                None => None,
            }
        };
        tokio::select! {
            what = overheard.recv() => match what {
                Some(Overheard::Answered) => self.begin(tap).await,
                Some(Overheard::Transferred) => return false,
                None => {
                    // The call is over, or this task was too slow for it and nobody talks on it any more.
                    apologise(&self.rooms, self.order.id, &self.order.voice_name).await;
                    return false;
                }
                Some(what) => return self.overheard(what).await,
            },
            Some(news) = news.recv() => match news {
                News::Sense(sense) => return self.sense(sense).await,
                News::Mark(generation, mark, at) => self.meter.mark(generation, mark, at),
            },
            Some(piece) = self.mouth.next() => return self.piece(piece).await,
            Some(event) = words.next() => return self.understood(event).await,
            Some(Ok(used)) = self.asking.join_next() => return self.sense(Sense::Gave(used)).await,
            Some(told) = fact => {
                if is_machine(&told) {
                    return self.sense(Sense::Machine).await;
                }
            }
            _ = frames.tick() => {
                while let Some(frame) = tap.pop() {
                    ears.hear(&frame);
                }
            }
            () = sleep_until(due.into()) => return self.sense(Sense::Timeout).await,
        }
        true
    }

    fn is_answered(&self) -> bool {
        self.rooms.live.get(self.order.id).is_some_and(|view| view.state == CallState::Answered)
    }

    async fn begin(&mut self, tap: &Tap) {
        self.command(Command::Listen { tap: tap.clone() }).await;
        self.sense(Sense::Answered).await;
    }

    async fn overheard(&mut self, what: Overheard) -> bool {
        match what {
            Overheard::Talk { on } => {
                self.noticed(on);
                self.sense(Sense::Talk(on)).await
            }
            Overheard::Digit(digit) => self.sense(Sense::Digit(digit)).await,
            Overheard::Began { playback } => self.began(&playback).await,
            Overheard::Played { playback, completed, played_ms } => {
                self.played(&playback, completed, played_ms).await
            }
            // A supervisor's transfer is none of the agent's.
            Overheard::TransferFailed if std::mem::take(&mut self.transferring) => {
                self.sense(Sense::TransferFailed).await
            }
            Overheard::Answered | Overheard::Transferred | Overheard::TransferFailed => true,
        }
    }

    /// The caller began or ceased to speak: the moments of it.
    fn noticed(&mut self, on: bool) {
        let now = clock::now();
        if on {
            self.meter.speech_end(None);
            let span = Span { from: now.wall, until: now.wall };
            self.spoken.caller.get_or_insert(span);
        } else {
            let end = now.mono.checked_sub(NOTICED_AFTER).unwrap_or(now.mono);
            self.meter.speech_end(Some(end));
            if let Some(span) = &mut self.spoken.caller {
                span.until = self.meter.wall(end);
            }
        }
    }

    async fn understood(&mut self, event: HearingEvent) -> bool {
        match event {
            HearingEvent::SpeechStarted => true,
            HearingEvent::Partial { text } => self.sense(Sense::Partial(text)).await,
            HearingEvent::Final { text } => self.sense(Sense::Final(text)).await,
            HearingEvent::Failed { error } => {
                tracing::error!(call = %self.order.id, %error, "no recogniser is left; the silence rule ends the call");
                true
            }
        }
    }

    /// Tells the agent and does what it says; `false` when it has hung up.
    pub(super) async fn sense(&mut self, sense: Sense) -> bool {
        let mut acts: VecDeque<Act> = self.agent.sense(clock::now().mono, sense).into();
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Think(generation) => self.think(generation),
                Act::StopThinking => {
                    self.thought = None;
                    self.interrupted();
                }
                Act::Speak(id, text) => {
                    // What is said without the model is a clause from here on.
                    self.meter.mark(id.generation, Mark::Clause, clock::now().mono);
                    self.speak(id, text);
                }
                Act::Hold(on) => self.command(Command::PausePlayback { on }).await,
                Act::Cut => {
                    self.interrupted();
                    acts.extend(self.cut().await);
                }
                Act::Use(tool) => self.use_tool(tool).await,
                Act::Ask(call) => self.ask(call),
                Act::Saying(said) => self.saying(said),
                Act::Turn(said) => self.record(said),
                Act::HangUp => {
                    self.command(Command::HangUp { drain: false }).await;
                    return false;
                }
            }
        }
        true
    }

    fn think(&mut self, generation: u32) {
        self.meter.mark(generation, Mark::Asked, clock::now().mono);
        let ask = thought::question(&self.agent, &thought::about(&self.rooms, &self.order));
        let llm = self.minds.llm.clone();
        self.thought = Some(thought::think(llm, ask, generation, self.news.clone()));
    }

    /// The answer that is being measured was spoken into, or given up before it was heard.
    fn interrupted(&mut self) {
        self.meter.interrupted(clock::now().mono);
    }

    async fn use_tool(&mut self, tool: Tool) {
        let call = Named::OfKey(self.order.id);
        match tool {
            Tool::HangUp => self.command(Command::HangUp { drain: false }).await,
            Tool::SendDigits(digits) => {
                if let Err(error) = self.calls.press(&self.caller, call, digits).await {
                    tracing::warn!(call = %self.order.id, %error, "the agent's keys could not be pressed");
                }
            }
            Tool::Transfer(to) => {
                let begun = match PhoneNumber::parse_lenient(&to) {
                    Some(to) => self.calls.put_through(&self.caller, call, to).await,
                    None => Err(Refusal::NumberNotAllowed.into()),
                };
                self.transferring = begun.is_ok();
                if let Err(error) = begun {
                    tracing::warn!(call = %self.order.id, %error, "the agent's transfer could not begin");
                    // Where so much waits, one thing more cannot be taken in.
                    let _ = self.news.try_send(News::Sense(Sense::TransferFailed));
                }
            }
        }
    }

    /// Calls a customer's function, beside everything else.
    fn ask(&mut self, call: ToolCall) {
        let tools = &self.agent.manner().tools;
        let asked = asking::begin(&mut self.asking, &self.rooms, &self.minds.asks, &self.order, tools, call);
        if let Err(refused) = asked {
            // As above.
            let _ = self.news.try_send(News::Sense(Sense::Gave(refused)));
        }
    }

    fn saying(&mut self, said: Said) {
        tell_saying(&self.rooms, &self.order, said, self.turns + 1);
    }

    fn record(&mut self, said: Said) {
        self.turns += 1;
        let now = clock::now();
        let (span, times) = match said.role {
            Role::Caller => (self.spoken.caller.take(), self.meter.understood(now.mono, self.turns)),
            Role::Agent => (self.spoken.agent.take(), self.meter.close()),
        };
        self.tell_times(times, now.wall);
        let (by, text, turn) = (speaker(said.role), said.text, self.turns);
        self.tell(CallEvent::Said { by, text, turn, span }, now.wall);
    }

    fn tell_times(&self, times: Option<TurnTimes>, at: Timestamp) {
        let Some(times) = times else { return };
        self.rooms.turns.note(&times);
        self.tell(CallEvent::TurnTimed(Box::new(times)), at);
    }

    fn tell(&self, event: CallEvent, at: Timestamp) {
        self.rooms.journal.record(Stamped { call: self.order.id, at, event });
    }

    pub(super) async fn command(&self, command: Command) {
        if let Err(error) = self.rooms.engine.command(self.order.id, command).await {
            tracing::debug!(call = %self.order.id, %error, "the call takes no more commands");
        }
    }

    /// What was being said when the call ended is part of what was said.
    async fn finish(mut self) {
        self.thought = None;
        for act in self.agent.finish(clock::now().mono) {
            if let Act::Turn(said) = act {
                self.record(said);
            }
        }
        let times = self.meter.close();
        self.tell_times(times, clock::now().wall);
        // What customers were asked to do is done to its end, also where nobody hears of it any more.
        self.asking.detach_all();
    }
}

/// Half a sentence, for whoever listens now; it is not kept.
pub(super) fn tell_saying(rooms: &Rooms, order: &CallOrder, said: Said, turn: u32) {
    let notice = Notice::Saying { by: speaker(said.role), text: said.text, turn };
    let (tenant, call) = (order.tenant.clone(), order.id);
    rooms.journal.feed().tell(Told { tenant, call, at: clock::now().wall, notice });
}

/// A role as events have it.
pub(super) fn speaker(role: Role) -> Speaker {
    match role {
        Role::Caller => Speaker::Caller,
        Role::Agent => Speaker::Agent,
    }
}

fn is_machine(told: &Told) -> bool {
    match &told.notice {
        Notice::Fact(_, CallEvent::Screened(amd)) => amd.status == AmdStatus::Machine,
        Notice::Fact(..) | Notice::Saying { .. } | Notice::Mishap { .. } => false,
    }
}
