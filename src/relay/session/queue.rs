//! What waits to be heard: clauses and sounds in the order in which the application gave them. Pure; owns the order,
//! how far ahead of the line it is worked, and what is taken back when somebody speaks.

use std::collections::VecDeque;

use super::Act;
use crate::relay::frames::Interruptible;

/// Clauses and sounds that may wait.
const QUEUE_MAX: usize = 200;
/// Of those so many are with the engine, so that one follows the other without a gap and little must be taken back.
const AHEAD: usize = 2;
/// And so many are being made into sound.
const PREPARED: usize = 4;

/// What is to be heard.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// Words.
    Clause(String),
    /// A sound's address.
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
pub(super) struct Item {
    number: u64,
    /// The turn that it belongs to.
    pub(super) turn: u32,
    /// The words or the sound.
    pub(super) what: What,
    language: Option<String>,
    /// How often it is still to be heard.
    loops: u32,
    /// What may interrupt it.
    pub(super) interruptible: Interruptible,
    preemptible: bool,
    stage: Stage,
    /// Of its sound, once that is there.
    pub(super) length_ms: u32,
}

impl Item {
    /// One that nothing was done for yet.
    pub(super) fn new(
        turn: u32,
        what: What,
        language: Option<String>,
        loops: u32,
        interruptible: Interruptible,
        preemptible: bool,
    ) -> Self {
        let (number, stage, length_ms) = (0, Stage::Waiting, 0);
        Self { number, turn, what, language, loops, interruptible, preemptible, stage, length_ms }
    }

    /// Whether what holds for the one holds for the other: only such are given to the line together, for the line
    /// cuts all or nothing.
    fn is_alike(&self, other: &Self) -> bool {
        (self.interruptible, self.preemptible) == (other.interruptible, other.preemptible)
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    next: u64,
}

impl Queue {
    /// An empty one that gives no number again.
    pub(super) fn emptied(&self) -> Self {
        Self { items: VecDeque::new(), next: self.next }
    }

    /// Puts an item at the end; `false` where too much waits.
    pub(super) fn push(&mut self, mut item: Item) -> bool {
        if self.items.len() >= QUEUE_MAX {
            return false;
        }
        item.number = self.next;
        self.next += 1;
        self.items.push_back(item);
        true
    }

    /// What may interrupt the last item of a turn, and whether it is preemptible.
    pub(super) fn back_manner(&self, turn: u32) -> Option<(Interruptible, bool)> {
        let last = self.items.back().filter(|item| item.turn == turn)?;
        Some((last.interruptible, last.preemptible))
    }

    /// A new turn takes the place of what may be preempted; whether what plays is to be cut.
    pub(super) fn preempt(&mut self) -> bool {
        let cut = self.front_playing(|item| item.preemptible);
        self.items.retain(|item| !item.preemptible || item.stage == Stage::Playing);
        cut
    }

    /// An item's sound is there.
    pub(super) fn ready(&mut self, number: u64, length_ms: u32) {
        if let Some(item) = self.items.iter_mut().find(|item| item.number == number) {
            (item.stage, item.length_ms) = (Stage::Ready, length_ms);
        }
    }

    /// An item.
    pub(super) fn get(&self, number: u64) -> Option<&Item> {
        self.items.iter().find(|item| item.number == number)
    }

    /// Takes an item out.
    pub(super) fn take(&mut self, number: u64) -> Option<Item> {
        let at = self.items.iter().position(|item| item.number == number)?;
        self.items.remove(at)
    }

    /// An item was heard to its end; whether it is to be heard again.
    pub(super) fn again(&mut self, number: u64) -> bool {
        let Some(item) = self.items.iter_mut().find(|item| item.number == number) else { return false };
        item.loops = item.loops.saturating_sub(1);
        if item.loops > 0 {
            item.stage = Stage::Ready;
        }
        item.loops > 0
    }

    /// Drops what is not playing and may be interrupted so.
    pub(super) fn interrupt(&mut self, may: impl Fn(&Item) -> bool) {
        self.items.retain(|item| item.stage == Stage::Playing || !may(item));
    }

    /// Whether something is heard for which this holds.
    pub(super) fn front_playing(&self, holds: impl Fn(&Item) -> bool) -> bool {
        self.items.front().is_some_and(|item| item.stage == Stage::Playing && holds(item))
    }

    /// Whether this item is with the line.
    pub(super) fn is_playing(&self, number: u64) -> bool {
        self.get(number).is_some_and(|item| item.stage == Stage::Playing)
    }

    /// Whether anything is with the line.
    pub(super) fn plays(&self) -> bool {
        self.items.iter().any(|item| item.stage == Stage::Playing)
    }

    /// Whether anything of this turn waits or plays.
    pub(super) fn has_more_of(&self, turn: u32) -> bool {
        self.items.iter().any(|item| item.turn == turn)
    }

    /// Whether everything was heard.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Works ahead: makes sounds, and gives to the line what is next.
    pub(super) fn go_on(&mut self, acts: &mut Vec<Act>) {
        for item in self.items.iter_mut().take(PREPARED).filter(|item| item.stage == Stage::Waiting) {
            item.stage = Stage::Preparing;
            acts.push(match &item.what {
                What::Clause(clause) => {
                    Act::Speak(item.number, clause.trim().to_owned(), item.language.clone())
                }
                What::Sound(source) => Act::Fetch(item.number, source.clone()),
            });
        }
        let Some(front) = self.items.front() else { return };
        // What is heard several times is asked for each time.
        let ahead = if front.loops > 1 { 1 } else { AHEAD };
        let alike = self.items.iter().take(ahead).take_while(|item| item.is_alike(front)).count();
        for item in self.items.iter_mut().take(alike) {
            match item.stage {
                Stage::Playing => {}
                Stage::Ready => {
                    item.stage = Stage::Playing;
                    acts.push(Act::Play(item.number));
                }
                Stage::Waiting | Stage::Preparing => break,
            }
        }
    }
}
