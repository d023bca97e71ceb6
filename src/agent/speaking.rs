//! What the agent says on its way through mouth and line: which clause has how much sound, what of it is out, what was
//! heard. A clause is over when all of its sound is, or when it was cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use media::Clip;

use super::driver::Work;
use super::meter::Mark;
use super::mouth::{Mouth, Piece};
use super::{Act, ClauseId, Sense};
use crate::clock;
use crate::model::call::Command;
use crate::model::event::PlayTo;
use crate::model::turn::Span;

/// How long a text takes to say where its sound is not whole yet, milliseconds a character.
const MS_PER_CHAR: u32 = 65;

/// A clause whose sound is on its way.
#[derive(Debug)]
pub(super) struct Sounding {
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

impl Sounding {
    fn new(id: ClauseId, text: &str) -> Self {
        let chars = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let (out, length_ms, played_ms) = (0, 0, 0);
        Self { id, chars, out, whole: false, length_ms, played_ms, began: false, completed: true }
    }
}

impl Work {
    pub(super) fn speak(&mut self, id: ClauseId, text: String) {
        let sounding = Sounding::new(id, &text);
        if self.mouth.say(id, text) {
            self.sounding.push_back(sounding);
        }
    }

    /// Stops the line and the mouth. What was never given to the line ends here; the line tells of the rest.
    pub(super) async fn cut(&mut self) -> Vec<Act> {
        // Sound that the old mouth has made and nobody has taken is gone with it.
        self.mouth = Mouth::new(self.rooms.speech.clone(), self.order.voice_name.clone());
        self.command(Command::StopPlayback).await;
        let mut acts = Vec::new();
        let (waiting, out): (VecDeque<Sounding>, VecDeque<Sounding>) =
            std::mem::take(&mut self.sounding).into_iter().partition(|clause| clause.out == 0);
        self.sounding = out;
        for clause in &mut self.sounding {
            clause.whole = true;
        }
        for clause in waiting {
            let over = Sense::Played(clause.id, clause.played_ms, false);
            acts.extend(self.agent.sense(clock::now().mono, over));
        }
        acts
    }

    pub(super) async fn piece(&mut self, piece: Piece) -> bool {
        match piece {
            Piece::Asked(id, at) => self.meter.mark(id.generation, Mark::VoiceAsked, at),
            Piece::Sound(id, clip, came) => self.play(id, clip, came).await,
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

    async fn play(&mut self, id: ClauseId, clip: Arc<Clip>, came: Instant) {
        self.meter.mark(id.generation, Mark::Synthesis, came);
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

    pub(super) async fn began(&mut self, playback: &str) -> bool {
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
        let now = clock::now();
        self.meter.mark(id.generation, Mark::Audio, now.mono);
        self.spoken.agent.get_or_insert(Span { from: now.wall, until: now.wall });
        self.sense(Sense::Began(id, length)).await
    }

    pub(super) async fn played(&mut self, playback: &str, completed: bool, played_ms: u32) -> bool {
        let Some(id) = clause_of(playback) else { return true };
        if let Some(span) = &mut self.spoken.agent {
            span.until = clock::now().wall;
        }
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
