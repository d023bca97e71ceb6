//! The agent at work on one call: a task between the line, the recogniser, the language model and the mouth, and the
//! pure [`Agent`] that decides. It ends with the call, or when the call is put through to a person.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::{Clip, Tap};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::mouth::{Mouth, Piece};
use super::thought::{self, Thought};
use super::{Act, Agent, ClauseId, Manner, Role, Sense, Tool};
use crate::clock;
use crate::control::apology::apologise;
use crate::control::{Caller, Calls, Named, Refusal, Rooms};
use crate::hearing::{Ears, Hearing, HearingEvent, Listening, Words};
use crate::llm::Llm;
use crate::model::PhoneNumber;
use crate::model::call::{CallOrder, CallState, Command, Overheard};
use crate::model::event::{CallEvent, PlayTo, Speaker, Stamped};

/// How often the tap is emptied: a frame's length.
const FRAME: Duration = Duration::from_millis(20);
/// What the model says may wait to be taken in.
const SENSES_MAX: usize = 64;
/// How long a text takes to say where its sound is not whole yet, milliseconds a character.
const MS_PER_CHAR: u32 = 65;

/// What agents understand and think with.
#[derive(Clone, Debug)]
pub struct Minds {
    /// Sound to text.
    pub hearing: Hearing,
    /// Text to text.
    pub llm: Llm,
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

/// A clause whose sound is on its way.
#[derive(Debug)]
struct Sounding {
    id: ClauseId,
    chars: u32,
    /// Pieces given to the line and not over.
    out: u32,
    /// All pieces are given.
    whole: bool,
    length_ms: u32,
    played_ms: u32,
    began: bool,
    completed: bool,
}

struct Work {
    rooms: Rooms,
    calls: Arc<Calls>,
    minds: Minds,
    caller: Caller,
    order: Arc<CallOrder>,
    agent: Agent,
    mouth: Mouth,
    sounding: VecDeque<Sounding>,
    thought: Option<Thought>,
    senses: mpsc::Sender<Sense>,
    turns: u32,
    pieces: u64,
    /// The agent has asked for a transfer.
    transferring: bool,
    /// When the caller fell silent, until the answer is heard.
    silent_at: Option<Instant>,
}

/// Talks until the call is over or put through.
pub async fn run(assignment: Assignment) {
    let Assignment { rooms, calls, minds, caller, order, mut overheard, manner, language } = assignment;
    let listening = Listening { language, hints: Vec::new() };
    let (mut ears, mut words) = match minds.hearing.listen(listening) {
        Ok(both) => both,
        Err(error) => {
            tracing::error!(call = %order.id, %error, "the agent cannot listen");
            return apologise(&rooms, order.id, &order.voice_name).await;
        }
    };
    let (senses, mut sensed) = mpsc::channel(SENSES_MAX);
    let mouth = Mouth::new(rooms.speech.clone(), order.voice_name.clone());
    let agent = Agent::new(manner);
    let sounding = VecDeque::new();
    let mut work = Work {
        rooms,
        calls,
        minds,
        caller,
        order,
        agent,
        mouth,
        sounding,
        thought: None,
        senses,
        turns: 0,
        pieces: 0,
        transferring: false,
        silent_at: None,
    };
    let tap = Tap::new();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    if work.is_answered() {
        work.begin(&tap).await;
    }
    while work.step(&mut overheard, &mut sensed, (&tap, &mut frames), (&mut ears, &mut words)).await {}
}

impl Work {
    /// Waits for one thing and does what follows from it; `false` when there is nothing left to do.
    async fn step(
        &mut self,
        overheard: &mut mpsc::Receiver<Overheard>,
        sensed: &mut mpsc::Receiver<Sense>,
        (tap, frames): (&Tap, &mut Interval),
        (ears, words): (&mut Ears, &mut Words),
    ) -> bool {
        let due = self.agent.deadline().unwrap_or_else(|| clock::now().mono + Duration::from_secs(3600));
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
            Some(sense) = sensed.recv() => return self.sense(sense).await,
            Some(piece) = self.mouth.next() => return self.piece(piece).await,
            Some(event) = words.next() => return self.understood(event).await,
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
                if !on {
                    self.silent_at = Some(clock::now().mono);
                }
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
    async fn sense(&mut self, sense: Sense) -> bool {
        let mut acts: VecDeque<Act> = self.agent.sense(clock::now().mono, sense).into();
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Think(generation) => {
                    let ask = thought::question(&self.agent, &self.about());
                    let llm = self.minds.llm.clone();
                    self.thought = Some(thought::think(llm, ask, generation, self.senses.clone()));
                }
                Act::StopThinking => self.thought = None,
                Act::Speak(id, text) => self.speak(id, text),
                Act::Hold(on) => self.command(Command::PausePlayback { on }).await,
                Act::Cut => acts.extend(self.cut().await),
                Act::Use(tool) => self.use_tool(tool).await,
                Act::Turn(said) => self.record(said.role, said.text),
                Act::HangUp => {
                    self.command(Command::HangUp { drain: false }).await;
                    return false;
                }
            }
        }
        true
    }

    /// What the customer gave along with the call, for the model.
    fn about(&self) -> String {
        let context = self.rooms.live.get(self.order.id).map(|view| view.order.purpose.context.clone());
        match context.filter(|context| !context.is_empty()) {
            Some(context) => {
                format!("\n\nWhat is known of this call: {}", serde_json::Value::Object(context))
            }
            None => String::new(),
        }
    }

    fn speak(&mut self, id: ClauseId, text: String) {
        let chars = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        if self.mouth.say(id, text) {
            let (out, length_ms, played_ms) = (0, 0, 0);
            let (whole, began, completed) = (false, false, true);
            self.sounding.push_back(Sounding {
                id,
                chars,
                out,
                whole,
                length_ms,
                played_ms,
                began,
                completed,
            });
        }
    }

    /// Stops the line and the mouth. What was never given to the line ends here; the line tells of the rest.
    async fn cut(&mut self) -> Vec<Act> {
        self.mouth = Mouth::new(self.rooms.speech.clone(), self.order.voice_name.clone());
        self.command(Command::StopPlayback).await;
        let mut acts = Vec::new();
        let (waiting, out) =
            std::mem::take(&mut self.sounding).into_iter().partition(|clause| clause.out == 0);
        self.sounding = out;
        for clause in &mut self.sounding {
            clause.whole = true;
        }
        let waiting: VecDeque<Sounding> = waiting;
        for clause in waiting {
            let over = Sense::Played(clause.id, clause.played_ms, false);
            acts.extend(self.agent.sense(clock::now().mono, over));
        }
        acts
    }

    async fn piece(&mut self, piece: Piece) -> bool {
        match piece {
            Piece::Sound(id, clip) => self.play(id, clip).await,
            Piece::End(id) => {
                let Some(clause) = self.sounding.iter_mut().find(|clause| clause.id == id) else {
                    return true;
                };
                clause.whole = true;
                return self.settle(id).await;
            }
        }
        true
    }

    async fn play(&mut self, id: ClauseId, clip: Arc<Clip>) {
        let Some(clause) = self.sounding.iter_mut().find(|clause| clause.id == id) else { return };
        clause.length_ms += clip.duration_ms();
        clause.out += 1;
        self.pieces += 1;
        let playback = format!("agent-{}-{}-{}", id.generation, id.index, self.pieces);
        let play = Command::Play { playback, clip, text: None, file: None, to: PlayTo::Bridge };
        if let Err(error) = self.rooms.engine.command(self.order.id, play).await {
            tracing::debug!(call = %self.order.id, %error, "a clause could not be played");
            if let Some(clause) = self.sounding.iter_mut().find(|clause| clause.id == id) {
                clause.out -= 1;
                clause.completed = false;
            }
        }
    }

    async fn began(&mut self, playback: &str) -> bool {
        let Some(clause) = clause_of(playback).and_then(|id| self.sounding.iter_mut().find(|c| c.id == id))
        else {
            return true;
        };
        if std::mem::replace(&mut clause.began, true) {
            return true;
        }
        let guessed = clause.chars.saturating_mul(MS_PER_CHAR);
        let length = if clause.whole { clause.length_ms } else { clause.length_ms.max(guessed) };
        let id = clause.id;
        if let Some(at) = self.silent_at.take() {
            let ms = clock::now().mono.saturating_duration_since(at).as_millis();
            tracing::info!(call = %self.order.id, ms, "from the caller's last sound to the answer's first");
        }
        self.sense(Sense::Began(id, length)).await
    }

    async fn played(&mut self, playback: &str, completed: bool, played_ms: u32) -> bool {
        let Some(id) = clause_of(playback) else { return true };
        let Some(clause) = self.sounding.iter_mut().find(|clause| clause.id == id) else { return true };
        clause.out = clause.out.saturating_sub(1);
        clause.played_ms += played_ms;
        clause.completed &= completed;
        self.settle(id).await
    }

    /// Tells the agent of a clause that is over.
    async fn settle(&mut self, id: ClauseId) -> bool {
        let Some(at) = self.sounding.iter().position(|clause| clause.id == id) else { return true };
        let clause = &self.sounding[at];
        if !clause.whole || clause.out > 0 {
            return true;
        }
        let (ms, completed) = (clause.played_ms, clause.completed && clause.length_ms > 0);
        self.sounding.remove(at);
        self.sense(Sense::Played(id, ms, completed)).await
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
                    // What waits there is too much to take in one thing more.
                    let _ = self.senses.try_send(Sense::TransferFailed);
                }
            }
        }
    }

    fn record(&mut self, role: Role, text: String) {
        self.turns += 1;
        let by = match role {
            Role::Caller => Speaker::Caller,
            Role::Agent => Speaker::Agent,
        };
        let event = CallEvent::Said { by, text, turn: self.turns };
        self.rooms.journal.record(Stamped { call: self.order.id, at: clock::now().wall, event });
    }

    async fn command(&self, command: Command) {
        if let Err(error) = self.rooms.engine.command(self.order.id, command).await {
            tracing::debug!(call = %self.order.id, %error, "the call takes no more commands");
        }
    }
}

/// The clause of a playback's name, `agent-<generation>-<index>-<piece>`.
fn clause_of(playback: &str) -> Option<ClauseId> {
    let mut parts = playback.strip_prefix("agent-")?.split('-');
    Some(ClauseId { generation: parts.next()?.parse().ok()?, index: parts.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_playback_names_its_clause() {
        assert_eq!(clause_of("agent-3-0-17"), Some(ClauseId { generation: 3, index: 0 }));
        for other in ["tts-1.2-3", "agent-", "agent-x-1-1", ""] {
            assert_eq!(clause_of(other), None, "{other}");
        }
    }
}
